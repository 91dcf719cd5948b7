"""Tables: each puts layout, tiers, initializer, optimizer and ranking together."""
