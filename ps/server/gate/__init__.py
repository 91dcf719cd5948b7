"""What every call passes before its handler: limits, lines to callers, counting, errors."""
