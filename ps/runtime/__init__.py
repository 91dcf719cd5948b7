"""The doors to what is outside: memory, files of the kernel, the clock."""
