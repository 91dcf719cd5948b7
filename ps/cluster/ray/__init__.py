"""Everything that calls Ray: actors, launching a service, a local cluster."""
