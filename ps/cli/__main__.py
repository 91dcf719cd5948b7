"""`python -m ps.cli` is psctl."""

from ps.cli import main

main()
