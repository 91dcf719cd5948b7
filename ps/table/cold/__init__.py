"""The cold tiers of tables: one protocol, `Cold`, and an implementation for each kind."""
