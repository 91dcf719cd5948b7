"""What a table does with rows that are not hot: one protocol, `Cold`, and an implementation for each kind."""
