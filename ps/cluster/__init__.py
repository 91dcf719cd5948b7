"""Shards as Ray actors, and the coordinator that knows them. Only this package imports ray."""
