"""The specification of the kernels: the same functions, same names and signatures, in plain numpy.

Slow and short. A kernel is right when it does what its namesake here does: to the bit, except where a docstring says
otherwise. Nothing of the service imports this package; the tests do.
"""
