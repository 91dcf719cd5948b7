"""The reads of a client: pulls and exports."""
