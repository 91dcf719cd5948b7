"""`python -m worker.train`."""

from worker.train.command import main

main()
