"""The doors to what is outside: time, chance, memory, files of the kernel, threads to run on."""
