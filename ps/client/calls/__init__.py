"""The calls of a client, grouped by subject. `ps.client.client.Client` has them all."""
