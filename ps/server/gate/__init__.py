"""What every call passes before its handler: limits, ends of stalled calls, counting, errors."""
