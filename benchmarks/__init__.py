"""Named benchmarks: `python -m benchmarks NAME ...`. Nothing in `ps` or `worker` imports this package."""
