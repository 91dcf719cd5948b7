"""How far long work is."""

from __future__ import annotations

from collections.abc import Callable

Told = Callable[[str, int, int], object]
"""A function that is told what is being done, and how many bytes of how many are; 0 of 0: that is not known. The work
ends with what it raises."""
