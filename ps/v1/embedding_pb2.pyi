from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Precision(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    PRECISION_UNSPECIFIED: _ClassVar[Precision]
    PRECISION_FP32: _ClassVar[Precision]
    PRECISION_FP16: _ClassVar[Precision]
    PRECISION_INT8: _ClassVar[Precision]

class Encoding(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ENCODING_UNSPECIFIED: _ClassVar[Encoding]
    ENCODING_FP32: _ClassVar[Encoding]
    ENCODING_FP16: _ClassVar[Encoding]
    ENCODING_INT8: _ClassVar[Encoding]
    ENCODING_ROWS_FP32: _ClassVar[Encoding]
    ENCODING_ROWS_FP16: _ClassVar[Encoding]
    ENCODING_ROWS_INT8: _ClassVar[Encoding]
    ENCODING_ELEMENTS_FP32: _ClassVar[Encoding]
    ENCODING_ELEMENTS_FP16: _ClassVar[Encoding]
    ENCODING_ELEMENTS_INT8: _ClassVar[Encoding]

class WriteMode(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    WRITE_MODE_UNSPECIFIED: _ClassVar[WriteMode]
    WRITE_MODE_UPSERT: _ClassVar[WriteMode]
    WRITE_MODE_ASSIGN: _ClassVar[WriteMode]
PRECISION_UNSPECIFIED: Precision
PRECISION_FP32: Precision
PRECISION_FP16: Precision
PRECISION_INT8: Precision
ENCODING_UNSPECIFIED: Encoding
ENCODING_FP32: Encoding
ENCODING_FP16: Encoding
ENCODING_INT8: Encoding
ENCODING_ROWS_FP32: Encoding
ENCODING_ROWS_FP16: Encoding
ENCODING_ROWS_INT8: Encoding
ENCODING_ELEMENTS_FP32: Encoding
ENCODING_ELEMENTS_FP16: Encoding
ENCODING_ELEMENTS_INT8: Encoding
WRITE_MODE_UNSPECIFIED: WriteMode
WRITE_MODE_UPSERT: WriteMode
WRITE_MODE_ASSIGN: WriteMode

class Block(_message.Message):
    __slots__ = ("encoding", "bytes")
    ENCODING_FIELD_NUMBER: _ClassVar[int]
    BYTES_FIELD_NUMBER: _ClassVar[int]
    encoding: Encoding
    bytes: int
    def __init__(self, encoding: _Optional[_Union[Encoding, str]] = ..., bytes: _Optional[int] = ...) -> None: ...

class Header(_message.Message):
    __slots__ = ("routing_epoch", "worker_id")
    ROUTING_EPOCH_FIELD_NUMBER: _ClassVar[int]
    WORKER_ID_FIELD_NUMBER: _ClassVar[int]
    routing_epoch: int
    worker_id: int
    def __init__(self, routing_epoch: _Optional[int] = ..., worker_id: _Optional[int] = ...) -> None: ...

class StepRef(_message.Message):
    __slots__ = ("step",)
    STEP_FIELD_NUMBER: _ClassVar[int]
    step: int
    def __init__(self, step: _Optional[int] = ...) -> None: ...

class TableIds(_message.Message):
    __slots__ = ("table", "ids", "sorted_ids", "counts", "bags")
    TABLE_FIELD_NUMBER: _ClassVar[int]
    IDS_FIELD_NUMBER: _ClassVar[int]
    SORTED_IDS_FIELD_NUMBER: _ClassVar[int]
    COUNTS_FIELD_NUMBER: _ClassVar[int]
    BAGS_FIELD_NUMBER: _ClassVar[int]
    table: str
    ids: bytes
    sorted_ids: bytes
    counts: bytes
    bags: bytes
    def __init__(self, table: _Optional[str] = ..., ids: _Optional[bytes] = ..., sorted_ids: _Optional[bytes] = ..., counts: _Optional[bytes] = ..., bags: _Optional[bytes] = ...) -> None: ...

class IdSet(_message.Message):
    __slots__ = ("tables",)
    TABLES_FIELD_NUMBER: _ClassVar[int]
    tables: _containers.RepeatedCompositeFieldContainer[TableIds]
    def __init__(self, tables: _Optional[_Iterable[_Union[TableIds, _Mapping]]] = ...) -> None: ...

class PrepareRequest(_message.Message):
    __slots__ = ("header", "step", "ids")
    HEADER_FIELD_NUMBER: _ClassVar[int]
    STEP_FIELD_NUMBER: _ClassVar[int]
    IDS_FIELD_NUMBER: _ClassVar[int]
    header: Header
    step: int
    ids: IdSet
    def __init__(self, header: _Optional[_Union[Header, _Mapping]] = ..., step: _Optional[int] = ..., ids: _Optional[_Union[IdSet, _Mapping]] = ...) -> None: ...

class PrepareResponse(_message.Message):
    __slots__ = ("version",)
    VERSION_FIELD_NUMBER: _ClassVar[int]
    version: int
    def __init__(self, version: _Optional[int] = ...) -> None: ...

class ForgetRequest(_message.Message):
    __slots__ = ("header", "step")
    HEADER_FIELD_NUMBER: _ClassVar[int]
    STEP_FIELD_NUMBER: _ClassVar[int]
    header: Header
    step: int
    def __init__(self, header: _Optional[_Union[Header, _Mapping]] = ..., step: _Optional[int] = ...) -> None: ...

class ForgetResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class PullRequest(_message.Message):
    __slots__ = ("header", "step", "ids", "formats", "return_exists")
    HEADER_FIELD_NUMBER: _ClassVar[int]
    STEP_FIELD_NUMBER: _ClassVar[int]
    IDS_FIELD_NUMBER: _ClassVar[int]
    FORMATS_FIELD_NUMBER: _ClassVar[int]
    RETURN_EXISTS_FIELD_NUMBER: _ClassVar[int]
    header: Header
    step: StepRef
    ids: IdSet
    formats: _containers.RepeatedCompositeFieldContainer[PullFormat]
    return_exists: bool
    def __init__(self, header: _Optional[_Union[Header, _Mapping]] = ..., step: _Optional[_Union[StepRef, _Mapping]] = ..., ids: _Optional[_Union[IdSet, _Mapping]] = ..., formats: _Optional[_Iterable[_Union[PullFormat, _Mapping]]] = ..., return_exists: _Optional[bool] = ...) -> None: ...

class PullFormat(_message.Message):
    __slots__ = ("important", "others", "important_share", "mask_below")
    IMPORTANT_FIELD_NUMBER: _ClassVar[int]
    OTHERS_FIELD_NUMBER: _ClassVar[int]
    IMPORTANT_SHARE_FIELD_NUMBER: _ClassVar[int]
    MASK_BELOW_FIELD_NUMBER: _ClassVar[int]
    important: Precision
    others: Precision
    important_share: float
    mask_below: float
    def __init__(self, important: _Optional[_Union[Precision, str]] = ..., others: _Optional[_Union[Precision, str]] = ..., important_share: _Optional[float] = ..., mask_below: _Optional[float] = ...) -> None: ...

class PullChunk(_message.Message):
    __slots__ = ("head", "parts", "payload")
    HEAD_FIELD_NUMBER: _ClassVar[int]
    PARTS_FIELD_NUMBER: _ClassVar[int]
    PAYLOAD_FIELD_NUMBER: _ClassVar[int]
    head: PullHead
    parts: _containers.RepeatedCompositeFieldContainer[PulledPart]
    payload: bytes
    def __init__(self, head: _Optional[_Union[PullHead, _Mapping]] = ..., parts: _Optional[_Iterable[_Union[PulledPart, _Mapping]]] = ..., payload: _Optional[bytes] = ...) -> None: ...

class PulledPart(_message.Message):
    __slots__ = ("rows", "blocks")
    ROWS_FIELD_NUMBER: _ClassVar[int]
    BLOCKS_FIELD_NUMBER: _ClassVar[int]
    rows: int
    blocks: _containers.RepeatedCompositeFieldContainer[Block]
    def __init__(self, rows: _Optional[int] = ..., blocks: _Optional[_Iterable[_Union[Block, _Mapping]]] = ...) -> None: ...

class PullHead(_message.Message):
    __slots__ = ("version", "tables")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    TABLES_FIELD_NUMBER: _ClassVar[int]
    version: int
    tables: _containers.RepeatedCompositeFieldContainer[PulledTable]
    def __init__(self, version: _Optional[int] = ..., tables: _Optional[_Iterable[_Union[PulledTable, _Mapping]]] = ...) -> None: ...

class PulledTable(_message.Message):
    __slots__ = ("dim", "rows", "exists", "important")
    DIM_FIELD_NUMBER: _ClassVar[int]
    ROWS_FIELD_NUMBER: _ClassVar[int]
    EXISTS_FIELD_NUMBER: _ClassVar[int]
    IMPORTANT_FIELD_NUMBER: _ClassVar[int]
    dim: int
    rows: int
    exists: bytes
    important: bytes
    def __init__(self, dim: _Optional[int] = ..., rows: _Optional[int] = ..., exists: _Optional[bytes] = ..., important: _Optional[bytes] = ...) -> None: ...

class PushChunk(_message.Message):
    __slots__ = ("head", "payload")
    HEAD_FIELD_NUMBER: _ClassVar[int]
    PAYLOAD_FIELD_NUMBER: _ClassVar[int]
    head: PushHead
    payload: bytes
    def __init__(self, head: _Optional[_Union[PushHead, _Mapping]] = ..., payload: _Optional[bytes] = ...) -> None: ...

class PushHead(_message.Message):
    __slots__ = ("header", "sequence", "step", "ids", "tables", "pulled_version", "ids_digest", "round", "wait_ms")
    HEADER_FIELD_NUMBER: _ClassVar[int]
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    STEP_FIELD_NUMBER: _ClassVar[int]
    IDS_FIELD_NUMBER: _ClassVar[int]
    TABLES_FIELD_NUMBER: _ClassVar[int]
    PULLED_VERSION_FIELD_NUMBER: _ClassVar[int]
    IDS_DIGEST_FIELD_NUMBER: _ClassVar[int]
    ROUND_FIELD_NUMBER: _ClassVar[int]
    WAIT_MS_FIELD_NUMBER: _ClassVar[int]
    header: Header
    sequence: int
    step: StepRef
    ids: IdSet
    tables: _containers.RepeatedCompositeFieldContainer[PushedTable]
    pulled_version: int
    ids_digest: int
    round: Round
    wait_ms: int
    def __init__(self, header: _Optional[_Union[Header, _Mapping]] = ..., sequence: _Optional[int] = ..., step: _Optional[_Union[StepRef, _Mapping]] = ..., ids: _Optional[_Union[IdSet, _Mapping]] = ..., tables: _Optional[_Iterable[_Union[PushedTable, _Mapping]]] = ..., pulled_version: _Optional[int] = ..., ids_digest: _Optional[int] = ..., round: _Optional[_Union[Round, _Mapping]] = ..., wait_ms: _Optional[int] = ...) -> None: ...

class Round(_message.Message):
    __slots__ = ("group", "number", "rank", "ranks")
    GROUP_FIELD_NUMBER: _ClassVar[int]
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    RANK_FIELD_NUMBER: _ClassVar[int]
    RANKS_FIELD_NUMBER: _ClassVar[int]
    group: str
    number: int
    rank: int
    ranks: int
    def __init__(self, group: _Optional[str] = ..., number: _Optional[int] = ..., rank: _Optional[int] = ..., ranks: _Optional[int] = ...) -> None: ...

class PushedTable(_message.Message):
    __slots__ = ("table", "rows", "dim", "positives", "blocks", "bags", "bag_blocks", "pushes")
    TABLE_FIELD_NUMBER: _ClassVar[int]
    ROWS_FIELD_NUMBER: _ClassVar[int]
    DIM_FIELD_NUMBER: _ClassVar[int]
    POSITIVES_FIELD_NUMBER: _ClassVar[int]
    BLOCKS_FIELD_NUMBER: _ClassVar[int]
    BAGS_FIELD_NUMBER: _ClassVar[int]
    BAG_BLOCKS_FIELD_NUMBER: _ClassVar[int]
    PUSHES_FIELD_NUMBER: _ClassVar[int]
    table: str
    rows: int
    dim: int
    positives: bytes
    blocks: _containers.RepeatedCompositeFieldContainer[Block]
    bags: int
    bag_blocks: _containers.RepeatedCompositeFieldContainer[Block]
    pushes: int
    def __init__(self, table: _Optional[str] = ..., rows: _Optional[int] = ..., dim: _Optional[int] = ..., positives: _Optional[bytes] = ..., blocks: _Optional[_Iterable[_Union[Block, _Mapping]]] = ..., bags: _Optional[int] = ..., bag_blocks: _Optional[_Iterable[_Union[Block, _Mapping]]] = ..., pushes: _Optional[int] = ...) -> None: ...

class PushResponse(_message.Message):
    __slots__ = ("version", "staleness", "repeated")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    STALENESS_FIELD_NUMBER: _ClassVar[int]
    REPEATED_FIELD_NUMBER: _ClassVar[int]
    version: int
    staleness: int
    repeated: bool
    def __init__(self, version: _Optional[int] = ..., staleness: _Optional[int] = ..., repeated: _Optional[bool] = ...) -> None: ...

class WriteChunk(_message.Message):
    __slots__ = ("head", "payload")
    HEAD_FIELD_NUMBER: _ClassVar[int]
    PAYLOAD_FIELD_NUMBER: _ClassVar[int]
    head: WriteHead
    payload: bytes
    def __init__(self, head: _Optional[_Union[WriteHead, _Mapping]] = ..., payload: _Optional[bytes] = ...) -> None: ...

class WriteHead(_message.Message):
    __slots__ = ("header", "sequence", "mode", "ids", "shape")
    HEADER_FIELD_NUMBER: _ClassVar[int]
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    MODE_FIELD_NUMBER: _ClassVar[int]
    IDS_FIELD_NUMBER: _ClassVar[int]
    SHAPE_FIELD_NUMBER: _ClassVar[int]
    header: Header
    sequence: int
    mode: WriteMode
    ids: TableIds
    shape: PushedTable
    def __init__(self, header: _Optional[_Union[Header, _Mapping]] = ..., sequence: _Optional[int] = ..., mode: _Optional[_Union[WriteMode, str]] = ..., ids: _Optional[_Union[TableIds, _Mapping]] = ..., shape: _Optional[_Union[PushedTable, _Mapping]] = ...) -> None: ...

class WriteResponse(_message.Message):
    __slots__ = ("version", "existed")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    EXISTED_FIELD_NUMBER: _ClassVar[int]
    version: int
    existed: bytes
    def __init__(self, version: _Optional[int] = ..., existed: _Optional[bytes] = ...) -> None: ...

class RemoveRequest(_message.Message):
    __slots__ = ("header", "sequence", "ids", "statistics")
    HEADER_FIELD_NUMBER: _ClassVar[int]
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    IDS_FIELD_NUMBER: _ClassVar[int]
    STATISTICS_FIELD_NUMBER: _ClassVar[int]
    header: Header
    sequence: int
    ids: TableIds
    statistics: bytes
    def __init__(self, header: _Optional[_Union[Header, _Mapping]] = ..., sequence: _Optional[int] = ..., ids: _Optional[_Union[TableIds, _Mapping]] = ..., statistics: _Optional[bytes] = ...) -> None: ...

class RemoveResponse(_message.Message):
    __slots__ = ("version", "existed")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    EXISTED_FIELD_NUMBER: _ClassVar[int]
    version: int
    existed: bytes
    def __init__(self, version: _Optional[int] = ..., existed: _Optional[bytes] = ...) -> None: ...

class ReportImportanceRequest(_message.Message):
    __slots__ = ("header", "sequence", "ids", "scores")
    HEADER_FIELD_NUMBER: _ClassVar[int]
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    IDS_FIELD_NUMBER: _ClassVar[int]
    SCORES_FIELD_NUMBER: _ClassVar[int]
    header: Header
    sequence: int
    ids: TableIds
    scores: bytes
    def __init__(self, header: _Optional[_Union[Header, _Mapping]] = ..., sequence: _Optional[int] = ..., ids: _Optional[_Union[TableIds, _Mapping]] = ..., scores: _Optional[bytes] = ...) -> None: ...

class ReportImportanceResponse(_message.Message):
    __slots__ = ("version", "existed")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    EXISTED_FIELD_NUMBER: _ClassVar[int]
    version: int
    existed: bytes
    def __init__(self, version: _Optional[int] = ..., existed: _Optional[bytes] = ...) -> None: ...

class ExportRequest(_message.Message):
    __slots__ = ("header", "table", "cursor", "max_rows", "least", "highest_rank")
    HEADER_FIELD_NUMBER: _ClassVar[int]
    TABLE_FIELD_NUMBER: _ClassVar[int]
    CURSOR_FIELD_NUMBER: _ClassVar[int]
    MAX_ROWS_FIELD_NUMBER: _ClassVar[int]
    LEAST_FIELD_NUMBER: _ClassVar[int]
    HIGHEST_RANK_FIELD_NUMBER: _ClassVar[int]
    header: Header
    table: str
    cursor: int
    max_rows: int
    least: int
    highest_rank: int
    def __init__(self, header: _Optional[_Union[Header, _Mapping]] = ..., table: _Optional[str] = ..., cursor: _Optional[int] = ..., max_rows: _Optional[int] = ..., least: _Optional[int] = ..., highest_rank: _Optional[int] = ...) -> None: ...

class ExportChunk(_message.Message):
    __slots__ = ("head", "payload")
    HEAD_FIELD_NUMBER: _ClassVar[int]
    PAYLOAD_FIELD_NUMBER: _ClassVar[int]
    head: ExportHead
    payload: bytes
    def __init__(self, head: _Optional[_Union[ExportHead, _Mapping]] = ..., payload: _Optional[bytes] = ...) -> None: ...

class ExportHead(_message.Message):
    __slots__ = ("next_cursor", "ids", "scores", "dim", "statistics", "highest_rank")
    NEXT_CURSOR_FIELD_NUMBER: _ClassVar[int]
    IDS_FIELD_NUMBER: _ClassVar[int]
    SCORES_FIELD_NUMBER: _ClassVar[int]
    DIM_FIELD_NUMBER: _ClassVar[int]
    STATISTICS_FIELD_NUMBER: _ClassVar[int]
    HIGHEST_RANK_FIELD_NUMBER: _ClassVar[int]
    next_cursor: int
    ids: bytes
    scores: bytes
    dim: int
    statistics: bytes
    highest_rank: int
    def __init__(self, next_cursor: _Optional[int] = ..., ids: _Optional[bytes] = ..., scores: _Optional[bytes] = ..., dim: _Optional[int] = ..., statistics: _Optional[bytes] = ..., highest_rank: _Optional[int] = ...) -> None: ...
