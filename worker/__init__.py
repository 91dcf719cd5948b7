"""The reference trainer: a thin user of `ps.nn`. `python -m worker.train --help` says what it trains on."""
