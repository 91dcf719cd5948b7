"""Tensor-train tables (TT-Rec): rows that are products of small cores. Used by a shard's cold tier and by a trainer.

`shape` says how rows and columns are cut, `initial` what cores start as, `rates` how fast each learns,
`cores` holds, reads and trains them, `fold` moves them towards given rows. Knows nothing of ids, tiers or budgets.
"""
