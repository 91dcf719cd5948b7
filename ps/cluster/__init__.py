"""Runs shards as Ray actors, with the coordinator that knows them. Only this package imports ray."""
