"""A table: layout, tiers, initializer, optimizer and ranking put together."""
