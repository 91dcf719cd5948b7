"""Rows on disk: RocksDB, and what is read and written there."""
