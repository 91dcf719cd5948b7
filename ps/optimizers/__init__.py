"""Optimizers of rows, a file each: what a user may set, the state of a row, and the arithmetic.

    base           what every optimizer is: the class that each of them derives from
    arithmetic     what an update is written with, beside numpy
    registry       all optimizers, found by looking into this folder and checked when it is imported
    reference/     the same updates in plain numpy, a file each: the specification

A new optimizer is a file here and one of the same name in `reference/`. Nothing here imports numba or torch: an update
is a plain function, which `ps.kernels.updates.optim` compiles when it is first used.
"""
