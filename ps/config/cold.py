"""Cold rows: how the less important rows of a table are stored."""

from __future__ import annotations

from math import prod
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from ps.config.optimizers import CoreOptimizer
from ps.errors import InvalidArgument
from ps.values.frozen import MAX_COUNT, Frozen, Positive

MAX_TENSOR_TRAIN_ROWS = 1 << 40
"""The most rows that the cores of a table can have."""


class Fp16(Frozen):
    """Stores all but the most important rows in 16 bits an element: half the RAM and disk. These rows are rounded
    stochastically at each update, and a push takes somewhat longer."""

    kind: Literal["fp16"] = "fp16"
    hot_fraction: Annotated[float, Field(ge=0, le=1)] = 0.1
    """Share of all rows, the most important ones, that are float32. Raise it where rounding costs accuracy. New rows
    are float32 until about a 64th of a half-life later."""
    state: Literal["fp16", "rowwise"] = "fp16"
    """The optimizer's state in cold rows: 16 bits an element, or (Adagrad only) one float32 a row, their mean."""


Rank = Annotated[int, Field(ge=1, le=1024)]
Factor = Annotated[int, Field(ge=1, le=MAX_TENSOR_TRAIN_ROWS)]


class TensorTrain(Frozen):
    """Computes all rows but the most frequent from a few small cores (TT-Rec, Yin et al. 2021), which take the RAM of
    thousands of rows instead of millions. Rows share the cores, so a push of one row moves others a little, and a row
    costs more to read."""

    kind: Literal["tensor_train"] = "tensor_train"
    rows: Annotated[int, Field(ge=1, le=MAX_TENSOR_TRAIN_ROWS)]
    """How many rows the cores have. Take the number of ids, or somewhat fewer with index `hash`. With n cores their
    size grows as the n-th root of it; with fewer rows more ids share a row."""
    ranks: Rank | tuple[Rank, ...] = 16
    """The ranks of the tensor train, between neighbouring cores: one number for all, or cores - 1 of them. Raise
    them where the loss stays above that of a table without cold rows; size and work of the inner cores grow with their
    square."""
    cores: Literal[2, 3, 4] = 3
    """How many factors a row is a product of. 2: faster and more exact, much larger. 4: still smaller for very many
    rows, slower and harder to train."""
    p_shapes: tuple[Factor, ...] | None = None
    """How `rows` is factored: as many factors as cores, their product at least `rows`. None: chosen about equal, which
    makes the cores smallest. Set it to use the factors of a model trained elsewhere."""
    q_shapes: tuple[Factor, ...] | None = None
    """How the table's `dim` is factored: as many factors as cores, their product exactly `dim`. None: chosen about
    equal. Set it to use the factors of a model trained elsewhere; unequal ones make one core large."""
    index: Literal["dense", "hash"] = "dense"
    """`dense`: ids are 0 to rows - 1, others are refused. `hash`: any int64, hashed into `rows`; ids with the same hash
    share a row of the cores."""
    initializer: Literal["approximate_uniform", "gaussian", "uniform"] = "approximate_uniform"
    """How the cores begin. `approximate_uniform`: so that rows look drawn from the uniform distribution that suits
    `rows`. `gaussian`, `uniform`: entries of the cores are drawn from such a distribution; rows are then mostly near
    zero."""
    optimizer: CoreOptimizer | None = None
    """The optimizer of the cores. Its rate is that of rows: each core gets the rate that moves rows by as much, at
    every rank. None: the table's own, which must then be SGD, Adagrad or RowwiseAdagrad. Set it where the table has
    another optimizer. Adagrad doubles the cores; RowwiseAdagrad has one number of state for each slice of a core."""
    hot_rows: Annotated[int, Field(ge=0, le=MAX_COUNT)] = 10_000
    """How many rows a shard keeps outside of the cores, exact and in RAM: the most frequent ones. Raise it where
    frequent ids lose accuracy; each costs as much as a row of a table without cold rows."""
    lift_after: Annotated[int, Field(ge=1, le=MAX_COUNT)] = 2
    """How many uses, that is pushes with the id, an id needs before it may get a row of its own. Raise it where ids
    that come once or twice push others out; frequent ids then stay in the cores for longer."""
    fold_tolerance: Positive = 0.1
    """Relative error |core value - row| / |row| up to which a row that is no longer frequent is folded back into the
    cores. Above it, the row stays exact, and goes to disk if the shard has one. A lower value is more exact and keeps
    more rows."""

    @model_validator(mode="after")
    def _shapes_fit(self) -> Self:
        for name, entries, length in (
            ("ranks", self.ranks if isinstance(self.ranks, tuple) else None, self.cores - 1),
            ("p_shapes", self.p_shapes, self.cores),
            ("q_shapes", self.q_shapes, self.cores),
        ):
            if entries is not None and len(entries) != length:
                raise ValueError(f"{name} {entries} has {len(entries)} entries: {self.cores} cores take {length}")
        if self.p_shapes is not None and prod(self.p_shapes) < self.rows:
            raise ValueError(
                f"p_shapes {self.p_shapes} stand for {prod(self.p_shapes):,} rows, fewer than rows {self.rows:,}: take "
                "larger ones, or leave p_shapes out"
            )
        return self

    def check_ids(self, table: str, least: int, most: int) -> None:
        """Raises InvalidArgument unless the cores have a row for all ids between these two."""
        if self.index == "dense" and (least < 0 or most >= self.rows):
            raise InvalidArgument(
                f"table {table!r} has tensor-train rows for ids 0 to {self.rows - 1:,}; got "
                f"{least if least < 0 else most}: raise cold.rows, or take cold.index 'hash' for sparse ids"
            )


Cold = Annotated[Fp16 | TensorTrain, Field(discriminator="kind")]
