"""The calls of a client, by what they are about. `ps.client.client.Client` has them all."""
