"""Configuration: frozen, validated values. An unknown key or a value out of range is a `ConfigError` that names it.

Owns names, defaults and bounds. Does not own behaviour: `ps.optim` knows what an optimizer does, `ps.initializer`
what an initializer yields. Everything here round-trips through JSON, which is how it crosses the wire.
"""

from __future__ import annotations

from math import prod
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from ps import yaml_file
from ps.address import bare_host
from ps.config_problems import refused
from ps.errors import ConfigError, InvalidArgument
from ps.quoting import shown
from ps.seconds import LONGEST_S

PARTITIONS = 4096
"""Hash partitions of the id space: the unit that moves between shards."""

MIN_RAM_BYTES = 64 << 20
"""The least that a shard can be given."""

MAX_DIM = 65_536
"""A row's value must fit a wire chunk."""

SHORTEST_HALF_LIFE_PUSHES = 64
"""A tick of a table's clock is a 64th of a half-life: one push at least."""

DEFAULT_HALF_LIFE_PUSHES = 10_000
"""Of what cannot go by turnover."""

MAX_TENSOR_TRAIN_ROWS = 1 << 40
"""Rows that the cores of a table can stand for."""

MIN_FLOAT32, MAX_FLOAT32 = 1.2e-38, 3.4e38
"""Rows and their optimizers are float32: smaller would be 0 there, larger infinite."""

MAX_NAME = 128
"""Characters of a table's name."""

MAX_COUNT = 1 << 53
"""Of rows, pushes and the like: what a float holds exactly."""

Positive = Annotated[float, Field(ge=MIN_FLOAT32, le=MAX_FLOAT32)]
Seconds = Annotated[float, Field(ge=MIN_FLOAT32, le=LONGEST_S)]
NonNegative = Annotated[float, Field(ge=0, le=MAX_FLOAT32)]
Finite = Annotated[float, Field(ge=-MAX_FLOAT32, le=MAX_FLOAT32)]
Beta = Annotated[float, Field(ge=0, lt=1)]


class Frozen(BaseModel):
    """A value that does not change, and knows no keys but its own."""

    model_config: ClassVar[ConfigDict] = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    def __init__(self, **values: Any) -> None:
        try:
            super().__init__(**values)
        except ValidationError as error:
            raise refused(type(self).__name__, error, type(self).model_fields) from None

    @classmethod
    def from_json(cls, text: str | bytes) -> Self:
        """The value of a JSON text; raises ConfigError."""
        try:
            return cls.model_validate_json(text)
        except ValidationError as error:
            raise refused(cls.__name__, error, cls.model_fields) from None

    def to_json(self) -> str:
        """As JSON, every default written out."""
        return self.model_dump_json()


class SGD(Frozen):
    """w -= lr * g. No state."""

    kind: Literal["sgd"] = "sgd"
    lr: Positive = 0.01


class Adagrad(Frozen):
    """h += g*g; w -= lr * g / (sqrt(h) + eps), as torch.optim.Adagrad. State: dim floats a row."""

    kind: Literal["adagrad"] = "adagrad"
    lr: Positive = 0.01
    eps: Positive = 1e-10
    initial_accumulator: NonNegative = 0.0
    """h of a new row."""


class RowwiseAdagrad(Frozen):
    """h += mean(g*g); w -= lr * g / (sqrt(h) + eps): one float of state a row (FBGEMM's exact row-wise Adagrad)."""

    kind: Literal["rowwise_adagrad"] = "rowwise_adagrad"
    lr: Positive = 0.01
    eps: Positive = 1e-8
    initial_accumulator: NonNegative = 0.0
    """h of a new row."""


class Adam(Frozen):
    """Lazy Adam, as torch.optim.SparseAdam: moments of a row move only when it is pushed; the bias correction goes by
    the pushes of the whole table (docs/decisions/0017-steps-of-adam.md). State: 2 * dim floats a row."""

    kind: Literal["adam"] = "adam"
    lr: Positive = 0.001
    beta1: Beta = 0.9
    beta2: Beta = 0.999
    eps: Positive = 1e-8


class FTRL(Frozen):
    """FTRL-Proximal (McMahan et al. 2013, Algorithm 1), sparse by l1. State: 2 * dim floats a row."""

    kind: Literal["ftrl"] = "ftrl"
    alpha: Positive = 0.05
    beta: Positive = 1.0
    l1: NonNegative = 0.0
    l2: NonNegative = 0.0


Optimizer = Annotated[SGD | Adagrad | RowwiseAdagrad | Adam | FTRL, Field(discriminator="kind")]


class Uniform(Frozen):
    """Uniform in [low, high)."""

    kind: Literal["uniform"] = "uniform"
    low: Finite = -0.05
    high: Finite = 0.05

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.low > self.high:
            raise ValueError(f"low {self.low} is above high {self.high}")
        if self.high - self.low > MAX_FLOAT32:
            raise ValueError(f"high - low is {self.high - self.low}, more than a float32 holds")
        return self


class Normal(Frozen):
    """Gaussian."""

    kind: Literal["normal"] = "normal"
    mean: Finite = 0.0
    std: NonNegative = 0.01


class Constant(Frozen):
    """One value everywhere."""

    kind: Literal["constant"] = "constant"
    value: Finite = 0.0


Initializer = Annotated[Uniform | Normal | Constant, Field(discriminator="kind")]


class Importance(Frozen):
    """What makes a row important: the weights of the signals whose decaying sum is the row's score."""

    frequency: NonNegative = 1.0
    """Of every push that has the id, however often the id occurs in it."""
    occurrences: NonNegative = 0.0
    """Of every occurrence in a batch (`counts`): an id that comes many times at once, and then no more, weighs much."""
    positives: NonNegative = 0.0
    """Of every occurrence in a positive sample (`positives` of a push)."""
    attribution: NonNegative = 0.0
    """Of |gradient x value|, the value before the update: how much the loss leans on the row (first-order Taylor)."""
    recency: NonNegative = 0.0
    """Not added: what a row scores at least just after a push, so that new rows are not the first to go. As the only
    weight (`frequency=0, recency=1`) the order is that of the last push, to the push (LRU)."""
    external: NonNegative = 0.0
    """Of the scores that `client.report_importance` sends."""

    @property
    def by_recency_alone(self) -> bool:
        """Whether rows are ordered by their last push and nothing else."""
        return not any(weight for signal, weight in self.model_dump().items() if signal != "recency")

    @model_validator(mode="after")
    def _any(self) -> Self:
        if not any(self.model_dump().values()):
            raise ValueError("every weight is 0, no row would be more important than another: set one, frequency=1 say")
        return self


class Always(Frozen):
    """An id gets a row with its first push."""

    kind: Literal["always"] = "always"


class CountThreshold(Frozen):
    """An id gets a row with the push that brings its occurrences to `min_count`, by a count-min sketch: never later,
    and now and then too early where ids share cells. Counts are halved once in the table's `half_life_pushes` (10,000
    if that is None), so that rare ids do not get in by patience."""

    kind: Literal["count_threshold"] = "count_threshold"
    min_count: Annotated[int, Field(ge=1, le=65_535)]
    """Occurrences (`counts`) that it takes."""
    cells: Annotated[int, Field(ge=1 << 12, le=1 << 26)] = 1 << 20
    """Of the sketch on each shard, rounded up to a power of two; 8 bytes of RAM each. About as many as ids come in a
    half-life without being admitted: with fewer, some are admitted too early."""


class Probability(Frozen):
    """An id without a row gets one with probability p at each push: frequent ids soon, rare ones seldom."""

    kind: Literal["probability"] = "probability"
    p: Annotated[float, Field(gt=0, le=1)]


Admission = Annotated[Always | CountThreshold | Probability, Field(discriminator="kind")]


class Fp16(Frozen):
    """All but the most important rows take 16 bits an element: half the RAM and disk, rounded at random at each of
    their updates; a push takes somewhat longer."""

    kind: Literal["fp16"] = "fp16"
    hot_fraction: Annotated[float, Field(ge=0, le=1)] = 0.1
    """Share of all rows, the most important ones, that are float32. Raise it where rounding costs accuracy. New rows
    are float32 until about a 64th of a half-life later."""
    state: Literal["fp16", "rowwise"] = "fp16"
    """The optimizer's state in cold rows: 16 bits an element, or (Adagrad only) one float32 a row, their mean."""


Rank = Annotated[int, Field(ge=1, le=1024)]
Factor = Annotated[int, Field(ge=1, le=MAX_TENSOR_TRAIN_ROWS)]
CoreOptimizer = Annotated[SGD | Adagrad | RowwiseAdagrad, Field(discriminator="kind")]


class TensorTrain(Frozen):
    """All rows but the most frequent are computed from a few small cores (TT-Rec, Yin et al. 2021): RAM for thousands
    of rows instead of millions. Rows share the cores, so a push of one moves others a little, and each costs more to
    read."""

    kind: Literal["tensor_train"] = "tensor_train"
    rows: Annotated[int, Field(ge=1, le=MAX_TENSOR_TRAIN_ROWS)]
    """Rows that the cores stand for. Take the ids that there are, or somewhat fewer with index `hash`. More makes the
    cores larger, by a root of it as high as there are cores; fewer has more ids share a row."""
    ranks: Rank | tuple[Rank, ...] = 16
    """How much neighbouring cores tell each other: one number for all, or cores - 1 of them. Raise them where the loss
    stays above that of a table without cold rows; size and work of the inner cores grow with their square."""
    cores: Literal[2, 3, 4] = 3
    """Factors that a row is a product of. 2: quicker and more exact, much larger. 4: smaller still for very many rows,
    slower and harder to train."""
    p_shapes: tuple[Factor, ...] | None = None
    """How `rows` is split over the cores: as many factors as cores, their product at least `rows`. None: chosen, about
    equal, which makes the cores smallest. Set it to have those of a model trained elsewhere."""
    q_shapes: tuple[Factor, ...] | None = None
    """How the table's `dim` is split over the cores: as many factors as cores, their product exactly `dim`. None:
    chosen, about equal. Set it to have those of a model trained elsewhere; unequal ones make one core large."""
    index: Literal["dense", "hash"] = "dense"
    """`dense`: ids are 0 to rows - 1, others are refused. `hash`: any int64, hashed into `rows`; ids that meet there
    share what the cores say of them."""
    initializer: Literal["approximate_uniform", "gaussian", "uniform"] = "approximate_uniform"
    """How the cores begin. `approximate_uniform`: so that rows look drawn from the uniform distribution that suits
    `rows`. `gaussian`, `uniform`: entries of the cores are drawn from these; rows are then mostly near zero."""
    optimizer: CoreOptimizer | None = None
    """Of the cores, at the rate of rows: each core has the one that moves rows so, at every rank. None: the table's
    own, which must then be SGD, Adagrad or RowwiseAdagrad. Set it where the table has another one. Adagrad doubles the
    cores; RowwiseAdagrad has one number of state a slice of a core."""
    hot_rows: Annotated[int, Field(ge=0, le=MAX_COUNT)] = 10_000
    """Rows a shard keeps outside of the cores, exact and in RAM: the most frequent. Raise it where frequent ids lose
    accuracy; each costs what a row of a table without cold rows costs."""
    lift_after: Annotated[int, Field(ge=1, le=MAX_COUNT)] = 2
    """Uses, that is pushes that have the id, before an id may get a row of its own. Raise it where ids that come once
    or twice push others out; frequent ids then spend longer in the cores."""
    fold_tolerance: Positive = 0.1
    """Relative error |core value - row| / |row| up to which a row that is no longer frequent is folded back into the
    cores. Above, it stays exact, and goes to disk where there is one. Lower is more exact and keeps more rows."""

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
        """Raises InvalidArgument unless the cores stand for all ids between these two."""
        if self.index == "dense" and (least < 0 or most >= self.rows):
            raise InvalidArgument(
                f"table {table!r} has tensor-train rows for ids 0 to {self.rows - 1:,}; got "
                f"{least if least < 0 else most}: raise cold.rows, or take cold.index 'hash' for sparse ids"
            )


Cold = Annotated[Fp16 | TensorTrain, Field(discriminator="kind")]


class TableConfig(Frozen):
    """One embedding table."""

    name: Annotated[str, Field(pattern=rf"^[A-Za-z0-9_][A-Za-z0-9_.\-]{{0,{MAX_NAME - 1}}}$")]
    """Letters, digits, `_`, `.` and `-`, at most 128."""
    dim: Annotated[int, Field(ge=1, le=MAX_DIM)]
    """Floats of a row's value."""
    optimizer: Optimizer = RowwiseAdagrad()
    """Applied by the shard at every push."""
    initializer: Initializer = Uniform()
    """What an id reads as before its first push."""
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    """With the name and the id, decides the initial value: the same on every shard and after every restart."""
    half_life_pushes: Annotated[int, Field(ge=SHORTEST_HALF_LIFE_PUSHES, le=MAX_COUNT)] | None = None
    """After how long a use counts half. None: by turnover, which is right for tables and pushes of any size: when as
    many rows have come as there is room for. Where rows may be evicted those are new rows, and the room is the table;
    elsewhere rows that come to be among those that `swap_fraction` leaves in RAM. What has no turnover takes
    10,000 pushes: a table that no row ever leaves, a tensor-train table, and counts of ids without a row. A number:
    pushes of the table. Shorter follows what is new, longer what is regular, and far too long never forgets (LFU).
    Where recency is the only weight the half-life does not matter."""
    swap_fraction: Annotated[float, Field(ge=0, lt=1)] = 0.5
    """Share of the rows, the least used, that live on disk only, where the shard has a disk (`disk_path`)."""
    cold: Cold | None = None
    """What the less important rows are made of: `Fp16()` or `TensorTrain(rows=)`. None: all rows are float32."""
    device: Literal["cpu", "cuda", "torch-cpu"] = "cpu"
    """Where the rows that are not on disk are. `cuda`: in the memory of the GPU that torch sees where the shard runs,
    updated there; index and statistics stay in RAM. `torch-cpu`: what `cuda` does, on tensors in RAM: for tests."""
    importance: Importance = Importance()
    """Which rows stay: decides what goes to disk and what is evicted."""
    admission: Admission = Always()
    """Which ids get a row. One that has none reads its initial value; its gradients are dropped and counted."""
    max_rows_per_shard: Annotated[int, Field(ge=1, le=MAX_COUNT)] | None = None
    """Above so many rows on a shard the least important ones are evicted, to nine tenths of it. None: as many as the
    budgets of the shard allow."""
    expire_after_pushes: Annotated[int, Field(ge=16, le=MAX_COUNT)] | None = None
    """Rows that this many pushes of the table have left alone are dropped (to a sixteenth more). None: never."""

    @property
    def admission_half_life(self) -> int:
        """Pushes after which an id without a row counts half."""
        return self.half_life_pushes or DEFAULT_HALF_LIFE_PUSHES

    @property
    def clock_half_life(self) -> int | None:
        """The half-life of the clock that scores decay by, in pushes; None: by turnover."""
        if isinstance(self.cold, TensorTrain):  # rows come when they are frequent, not when they are there
            return self.admission_half_life
        return SHORTEST_HALF_LIFE_PUSHES if self.importance.by_recency_alone else self.half_life_pushes

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
        if rowwise and isinstance(self.optimizer, Adam | FTRL):
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
        if self.cold.optimizer is None and isinstance(self.optimizer, Adam | FTRL):
            raise ValueError(
                f"optimizer {self.optimizer.kind!r} cannot train the cores of a tensor train: set cold.optimizer to "
                "SGD, Adagrad or RowwiseAdagrad"
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
    """Raises InvalidArgument for what is too long to be a table's name: whoever is told of it quotes it."""
    if len(name) > MAX_NAME:
        raise InvalidArgument(f"a table's name of {len(name):,} characters: at most {MAX_NAME}: {shown(name)}")


class ServiceConfig(Frozen):
    """What a shard's server is told. The defaults suit one host; every limit has a typed error behind it."""

    host: str = "127.0.0.1"
    """Address to listen on, by IPv4, IPv6 or name. Loopback by default: there is no authentication on the port yet.
    "auto": the address of the node that a shard runs on, as Ray knows it."""
    grpc_threads: Annotated[int, Field(ge=2, le=1024)] = 16
    """Calls that are worked on at once: decoded, encoded, waiting for the engine. One that waits for its client is not
    among them, nor is a push that waits for the other ranks of its round."""
    max_requests: Annotated[int, Field(ge=1, le=4096)] = 256
    """Calls in progress at once, a thread each, those that wait for their client too; more are refused with
    RESOURCE_EXHAUSTED and a hint when to come again. One connection may have a quarter of them. Half of them may be
    pushes that wait for the other ranks of their rounds, without a thread: a group has at most so many ranks, and one.
    Describe, Stats, Advance and health are not among them."""
    max_connections: Annotated[int, Field(ge=1)] = 1024
    """Clients connected at once; fewer where the process may open fewer files. One more is turned away, and tries
    again."""
    stall_timeout_s: Seconds = 30.0
    """A call whose client sends nothing, or reads nothing, for so long is ended with Unavailable, which clients retry;
    so is one that goes on at less than 16 KiB a second on average. Raise it where the largest message, of
    `max_message_bytes`, takes longer on your network. Where others need the room, a second of silence is enough."""
    max_message_bytes: Annotated[int, Field(ge=1 << 20, le=1 << 30)] = 64 << 20
    """Largest single gRPC message, both ways; with `ram_bytes`, at most half of what messages under way may take. Rows
    and gradients travel in chunks and are not bound by it."""
    max_ids: Annotated[int, Field(ge=1)] = 4 << 20
    """Most ids in one request, over all its tables."""
    max_body_bytes: Annotated[int, Field(ge=1 << 20)] = 1 << 30
    """Most bytes of rows or gradients in one call: they are held in memory until applied or sent."""
    prepare_ttl_s: Seconds = 60.0
    """A prepared step that nobody used is forgotten after so long."""
    max_steps: Annotated[int, Field(ge=1)] = 1024
    """Prepared steps held at once; the oldest is forgotten first, and its pull and push carry their ids."""
    max_steps_bytes: Annotated[int, Field(ge=1)] = 256 << 20
    """Bytes of ids, counts and slots of prepared steps held at once; the same happens beyond them."""
    ledger_window: Annotated[int, Field(ge=16)] = 1024
    """Pushes remembered per worker. A retry that comes later than that many pushes is refused, not guessed at."""
    max_ledger_bytes: Annotated[int, Field(ge=1 << 20)] = 256 << 20
    """Bytes of remembered writes over all workers; beyond it those of the workers silent longest are forgotten."""
    ram_bytes: int | None = None
    """RAM that a shard's process may use above what it takes at its start, all counted; at least MIN_RAM_BYTES. Caches
    and limits below get at most a share of it (`ps.storage.budget.budget`), rows what is left. With a disk the others
    go there; without one the least important ones are evicted. None: no bound but the host's memory."""
    gpu_bytes: Annotated[int, Field(ge=1 << 20)] | None = None
    """Bytes of rows that a shard may hold on a GPU, over its tables with `device: cuda`; what would pass it is refused.
    What torch needs to work with comes on top, some hundred MiB. None: no bound but the GPU's memory."""
    disk_path: Path | None = None
    """Directory for rows on disk; None: all rows stay in RAM. Each shard has a folder of its own below it, which it
    empties at the start: scratch space. A relative path, and ~, are those of the host that the shard runs on."""
    disk_cache_bytes: Annotated[int, Field(ge=1 << 20)] = 64 << 20
    """RAM for RocksDB's blocks, indexes and filters."""
    disk_bytes: Annotated[int, Field(ge=1 << 20)] | None = None
    """Room on disk. Four fifths of it are for rows, the rest is for what RocksDB keeps until it compacts; when those
    are full the least important rows are evicted, down to nine tenths. None: no bound."""
    drain_timeout_s: Seconds = 10.0
    """How long a shard that is told to stop waits for calls in progress."""
    metrics: bool = True
    """Serve Prometheus metrics on a port of its own: every shard, and the coordinator."""
    log_format: Literal["text", "json"] = "text"
    """Of the lines that shards and coordinator log (Ray keeps them by actor): for people, or a JSON object each, with
    the ids of worker, step and write that a line is about."""
    tracing: bool = False
    """Send OpenTelemetry traces of calls, by OTLP over HTTP to OTEL_EXPORTER_OTLP_ENDPOINT; needs the extra `otel`."""
    discovery_path: Path | None = None
    """Directory, on the coordinator's host, in which it keeps SERVICE.json: Prometheus's targets, for its
    `file_sd_configs`. Written when a shard starts or comes back, removed when the service ends. None: no such file."""

    @field_validator("host")
    @classmethod
    def _as_sockets_take_it(cls, host: str) -> str:
        return bare_host(host)

    @field_validator("ram_bytes")
    @classmethod
    def _workable(cls, ram_bytes: int | None) -> int | None:
        if ram_bytes is not None and ram_bytes < MIN_RAM_BYTES:
            raise ValueError(
                f"the smallest that works is {MIN_RAM_BYTES:,} bytes: what a process takes when it is used, messages, "
                "caches and write buffers need two thirds of that"
            )
        return ram_bytes

    @model_validator(mode="after")
    def _disk_bytes_need_a_disk(self) -> Self:
        if self.disk_bytes is not None and self.disk_path is None:
            raise ValueError(f"disk_bytes is {self.disk_bytes:,}, and there is no disk: set disk_path too")
        return self

    @classmethod
    def from_yaml(cls, path: str | Path) -> Self:
        """Reads a YAML mapping. Raises ConfigError for an unknown key or broken YAML, NotFound."""
        values = yaml_file.load(path) or {}
        if not isinstance(values, dict):
            raise ConfigError(f"{path}: expected a mapping of settings, found {type(values).__name__}")
        return cls(**values)
