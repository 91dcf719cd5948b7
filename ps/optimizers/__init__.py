"""Optimizers of rows, one file each: the settings, the state of a row, and the arithmetic.

    base           the class that every optimizer derives from
    arithmetic     functions that updates use, beside numpy
    registry       all optimizers, found by looking into this folder and checked when it is imported
    reference/     the same updates in plain numpy, a file each: the specification

A new optimizer is a file here and one of the same name in `reference/`. Nothing here imports numba or torch: an update
is a plain function, which `ps.kernels.updates.optim` compiles when it is first used.
"""
