"""Shards as Ray actors and the coordinator that knows them. The only package that imports ray."""
