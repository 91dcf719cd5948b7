"""The configuration of one table."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from ps.config.admission import Admission, Always
from ps.config.cold import Cold, Fp16, TensorTrain
from ps.config.importance import Importance
from ps.config.initializers import Initializer, Normal, Uniform
from ps.config.optimizers import CORE_NAMES, Optimizer, RowwiseAdagrad
from ps.errors import ConfigError, InvalidArgument
from ps.quoting import shown
from ps.values.frozen import MAX_COUNT, Frozen

MAX_DIM = 65_536
"""The largest dim: a row's value must fit into a chunk on the wire."""

SHORTEST_HALF_LIFE_PUSHES = 64
"""The shortest half-life in pushes: a tick of a table's clock is a 64th of a half-life, and at least one push."""

DEFAULT_HALF_LIFE_PUSHES = 10_000
"""The half-life of tables and counts that have no turnover."""

MAX_NAME = 128
"""The most characters of a table's name."""


class TableConfig(Frozen):
    """One embedding table."""

    name: Annotated[str, Field(pattern=rf"^[A-Za-z0-9_][A-Za-z0-9_.\-]{{0,{MAX_NAME - 1}}}$")]
    """Letters, digits, `_`, `.` and `-`, at most 128."""
    dim: Annotated[int, Field(ge=1, le=MAX_DIM)]
    """Floats of a row's value."""
    optimizer: Optimizer = RowwiseAdagrad()
    """The optimizer that the shard applies at every push."""
    initializer: Initializer = Uniform()
    """The value of an id before its first push."""
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    """Decides the initial values, together with the name and the id: they are the same on every shard and after every
    restart."""
    half_life_pushes: Annotated[int, Field(ge=SHORTEST_HALF_LIFE_PUSHES, le=MAX_COUNT)] | None = None
    """The time after which a use counts half. A number: so many pushes of the table. None: by turnover, which suits
    tables and pushes of any size: a half-life has passed when as many rows have come as there is room for. Where rows
    may be evicted, new rows are counted, and the room is the whole table; elsewhere rows are counted that come into the
    share that `swap_fraction` leaves in RAM. Without turnover it is 10,000 pushes: in a table that no row ever leaves,
    in a tensor-train table, and for counts of ids without a row. A shorter half-life follows what is new, a longer one
    what is regular, and a far too long one never forgets (LFU). It does not matter where recency is the only weight."""
    swap_fraction: Annotated[float, Field(ge=0, lt=1)] = 0.5
    """The share of the rows, the least used, that live only on disk if the shard has one (`disk.path`)."""
    cold: Cold | None = None
    """How the less important rows are stored: `Fp16()` or `TensorTrain(rows=)`. None: all rows are float32."""
    device: Literal["cpu", "cuda", "torch-cpu"] = "cpu"
    """Where the rows that are not on disk are. `cuda`: in the memory of the shard's GPU, where they are also updated;
    index and statistics stay in RAM. `torch-cpu` is for tests: it runs the code of `cuda` on tensors in RAM."""
    importance: Importance = Importance()
    """What makes a row important: decides which rows go to disk and which are evicted."""
    admission: Admission = Always()
    """Which ids get a row. An id without a row reads its initial value; its gradients are dropped and counted."""
    max_rows_per_shard: Annotated[int, Field(ge=1, le=MAX_COUNT)] | None = None
    """Above so many rows on a shard the least important ones are evicted, down to about 0.95 of it. None: as many as
    the budgets of the shard allow."""
    expire_after_pushes: Annotated[int, Field(ge=16, le=MAX_COUNT)] | None = None
    """A row is dropped when this many pushes of the table, or up to a sixteenth more, have not named it. None:
    never."""

    @property
    def admission_half_life(self) -> int:
        """The number of pushes after which uses of an id without a row count half."""
        return self.half_life_pushes or DEFAULT_HALF_LIFE_PUSHES

    @property
    def clock_half_life(self) -> int | None:
        """The half-life of the clock that scores decay by, in pushes; None: by turnover."""
        if isinstance(self.cold, TensorTrain):  # rows come when they are frequent, not when they are there
            return self.admission_half_life
        return SHORTEST_HALF_LIFE_PUSHES if self.importance.by_recency_alone else self.half_life_pushes

    def having_optimizer(self, settings: Mapping[str, float], cores: bool = False) -> Self:
        """Returns this configuration with other settings of the optimizer, or of that of the `cores`: all that may
        change while the table lives. Raises ConfigError."""
        if not cores:
            return self.model_copy(update={"optimizer": self.optimizer.having(settings)})
        if not isinstance(self.cold, TensorTrain):
            raise ConfigError(f"table {self.name!r} has no cores: it is no tensor-train table; leave cores=True out")
        if self.cold.optimizer is None:
            raise ConfigError(
                f"the cores of table {self.name!r} have the table's optimizer, and change with it: leave cores=True out"
            )
        changed = self.cold.model_copy(update={"optimizer": self.cold.optimizer.having(settings)})
        return self.model_copy(update={"cold": changed})

    @model_validator(mode="after")
    def _cold_rows_are_in_ram(self) -> Self:
        if self.cold is not None and self.device != "cpu":
            raise ValueError(
                f"cold {self.cold.kind!r} does not go together with device {self.device!r} yet: cold rows are trained "
                "on the CPU; take cold None or device 'cpu'"
            )
        return self

    @model_validator(mode="after")
    def _cold_state_fits_the_optimizer(self) -> Self:
        rowwise = isinstance(self.cold, Fp16) and self.cold.state == "rowwise"
        if rowwise and self.optimizer.rowwise() is None:
            raise ValueError(
                f"the state of {self.optimizer.kind} is not one number a row, so cold rows cannot keep it as "
                "cold.state 'rowwise'; take 'fp16', or an Adagrad"
            )
        return self

    @model_validator(mode="after")
    def _tensor_train_fits(self) -> Self:
        if not isinstance(self.cold, TensorTrain):
            return self
        q_shapes = self.cold.q_shapes
        if q_shapes is not None and prod(q_shapes) != self.dim:
            raise ValueError(
                f"cold.q_shapes {q_shapes} make rows of {prod(q_shapes):,}, and dim is {self.dim}: take factors whose "
                "product is dim, or leave q_shapes out"
            )
        if self.cold.optimizer is None and self.optimizer.core_alignment is None:
            raise ValueError(
                f"optimizer {self.optimizer.kind!r} cannot train the cores of a tensor train: set cold.optimizer to "
                f"{CORE_NAMES}"
            )
        if not isinstance(self.admission, Always):
            raise ValueError(
                f"admission {self.admission.kind!r} does not go together with cold 'tensor_train': in a tensor-train "
                "table every id has a value; leave admission out"
            )
        return self

    @model_validator(mode="after")
    def _cores_begin_around_zero(self) -> Self:
        begin = self.initializer
        around_zero = (
            (isinstance(begin, Uniform) and begin.low == -begin.high and begin.high > 0)
            or (isinstance(begin, Normal) and begin.mean == 0 and begin.std > 0)
        )  # fmt: skip
        if isinstance(self.cold, TensorTrain) and not around_zero:
            raise ValueError(
                f"initializer {begin!r} does not go together with cold 'tensor_train': products of cores vary around "
                "0, and cores of zeros learn nothing; take Uniform(low=-x, high=x) or Normal(mean=0, std=x)"
            )
        return self


def check_table_name(name: str) -> None:
    """Raises InvalidArgument for a name that is too long. Messages quote names, so their length is bounded early."""
    if len(name) > MAX_NAME:
        raise InvalidArgument(
            f"a table's name has at most {MAX_NAME} characters, and this one has {len(name):,}: {shown(name)}"
        )
