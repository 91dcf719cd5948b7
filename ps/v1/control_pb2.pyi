from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class DescribeRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class DescribeResponse(_message.Message):
    __slots__ = ("routing", "table_configs_json", "release")
    ROUTING_FIELD_NUMBER: _ClassVar[int]
    TABLE_CONFIGS_JSON_FIELD_NUMBER: _ClassVar[int]
    RELEASE_FIELD_NUMBER: _ClassVar[int]
    routing: Routing
    table_configs_json: _containers.RepeatedScalarFieldContainer[str]
    release: str
    def __init__(self, routing: _Optional[_Union[Routing, _Mapping]] = ..., table_configs_json: _Optional[_Iterable[str]] = ..., release: _Optional[str] = ...) -> None: ...

class Routing(_message.Message):
    __slots__ = ("epoch", "shards", "shard_of_partition", "coordinator")
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    SHARDS_FIELD_NUMBER: _ClassVar[int]
    SHARD_OF_PARTITION_FIELD_NUMBER: _ClassVar[int]
    COORDINATOR_FIELD_NUMBER: _ClassVar[int]
    epoch: int
    shards: _containers.RepeatedCompositeFieldContainer[ShardInfo]
    shard_of_partition: bytes
    coordinator: str
    def __init__(self, epoch: _Optional[int] = ..., shards: _Optional[_Iterable[_Union[ShardInfo, _Mapping]]] = ..., shard_of_partition: _Optional[bytes] = ..., coordinator: _Optional[str] = ...) -> None: ...

class ShardInfo(_message.Message):
    __slots__ = ("shard_id", "address", "metrics_address", "state", "incarnation", "came_back_at")
    SHARD_ID_FIELD_NUMBER: _ClassVar[int]
    ADDRESS_FIELD_NUMBER: _ClassVar[int]
    METRICS_ADDRESS_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    INCARNATION_FIELD_NUMBER: _ClassVar[int]
    CAME_BACK_AT_FIELD_NUMBER: _ClassVar[int]
    shard_id: int
    address: str
    metrics_address: str
    state: str
    incarnation: int
    came_back_at: int
    def __init__(self, shard_id: _Optional[int] = ..., address: _Optional[str] = ..., metrics_address: _Optional[str] = ..., state: _Optional[str] = ..., incarnation: _Optional[int] = ..., came_back_at: _Optional[int] = ...) -> None: ...

class CreateTableRequest(_message.Message):
    __slots__ = ("config_json", "exist_ok")
    CONFIG_JSON_FIELD_NUMBER: _ClassVar[int]
    EXIST_OK_FIELD_NUMBER: _ClassVar[int]
    config_json: str
    exist_ok: bool
    def __init__(self, config_json: _Optional[str] = ..., exist_ok: _Optional[bool] = ...) -> None: ...

class CreateTableResponse(_message.Message):
    __slots__ = ("config_json", "created")
    CONFIG_JSON_FIELD_NUMBER: _ClassVar[int]
    CREATED_FIELD_NUMBER: _ClassVar[int]
    config_json: str
    created: bool
    def __init__(self, config_json: _Optional[str] = ..., created: _Optional[bool] = ...) -> None: ...

class DropTableRequest(_message.Message):
    __slots__ = ("table", "missing_ok")
    TABLE_FIELD_NUMBER: _ClassVar[int]
    MISSING_OK_FIELD_NUMBER: _ClassVar[int]
    table: str
    missing_ok: bool
    def __init__(self, table: _Optional[str] = ..., missing_ok: _Optional[bool] = ...) -> None: ...

class DropTableResponse(_message.Message):
    __slots__ = ("dropped",)
    DROPPED_FIELD_NUMBER: _ClassVar[int]
    dropped: bool
    def __init__(self, dropped: _Optional[bool] = ...) -> None: ...

class SetOptimizerRequest(_message.Message):
    __slots__ = ("worker_id", "sequence", "table", "settings", "cores", "wait_ms")
    class SettingsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: float
        def __init__(self, key: _Optional[str] = ..., value: _Optional[float] = ...) -> None: ...
    WORKER_ID_FIELD_NUMBER: _ClassVar[int]
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    TABLE_FIELD_NUMBER: _ClassVar[int]
    SETTINGS_FIELD_NUMBER: _ClassVar[int]
    CORES_FIELD_NUMBER: _ClassVar[int]
    WAIT_MS_FIELD_NUMBER: _ClassVar[int]
    worker_id: int
    sequence: int
    table: str
    settings: _containers.ScalarMap[str, float]
    cores: bool
    wait_ms: int
    def __init__(self, worker_id: _Optional[int] = ..., sequence: _Optional[int] = ..., table: _Optional[str] = ..., settings: _Optional[_Mapping[str, float]] = ..., cores: _Optional[bool] = ..., wait_ms: _Optional[int] = ...) -> None: ...

class SetOptimizerResponse(_message.Message):
    __slots__ = ("config_json",)
    CONFIG_JSON_FIELD_NUMBER: _ClassVar[int]
    config_json: str
    def __init__(self, config_json: _Optional[str] = ...) -> None: ...

class StatsRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class StatsResponse(_message.Message):
    __slots__ = ("stats_json",)
    STATS_JSON_FIELD_NUMBER: _ClassVar[int]
    stats_json: str
    def __init__(self, stats_json: _Optional[str] = ...) -> None: ...

class AdvanceRequest(_message.Message):
    __slots__ = ("group", "rank", "clocks", "max_staleness")
    GROUP_FIELD_NUMBER: _ClassVar[int]
    RANK_FIELD_NUMBER: _ClassVar[int]
    CLOCKS_FIELD_NUMBER: _ClassVar[int]
    MAX_STALENESS_FIELD_NUMBER: _ClassVar[int]
    group: str
    rank: int
    clocks: _containers.RepeatedScalarFieldContainer[int]
    max_staleness: int
    def __init__(self, group: _Optional[str] = ..., rank: _Optional[int] = ..., clocks: _Optional[_Iterable[int]] = ..., max_staleness: _Optional[int] = ...) -> None: ...

class AdvanceResponse(_message.Message):
    __slots__ = ("clocks",)
    CLOCKS_FIELD_NUMBER: _ClassVar[int]
    clocks: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, clocks: _Optional[_Iterable[int]] = ...) -> None: ...

class Progress(_message.Message):
    __slots__ = ("stage", "done_bytes", "all_bytes", "result_json")
    STAGE_FIELD_NUMBER: _ClassVar[int]
    DONE_BYTES_FIELD_NUMBER: _ClassVar[int]
    ALL_BYTES_FIELD_NUMBER: _ClassVar[int]
    RESULT_JSON_FIELD_NUMBER: _ClassVar[int]
    stage: str
    done_bytes: int
    all_bytes: int
    result_json: str
    def __init__(self, stage: _Optional[str] = ..., done_bytes: _Optional[int] = ..., all_bytes: _Optional[int] = ..., result_json: _Optional[str] = ...) -> None: ...

class CheckpointRequest(_message.Message):
    __slots__ = ("worker_id", "sequence", "url", "full", "wait_ms")
    WORKER_ID_FIELD_NUMBER: _ClassVar[int]
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    URL_FIELD_NUMBER: _ClassVar[int]
    FULL_FIELD_NUMBER: _ClassVar[int]
    WAIT_MS_FIELD_NUMBER: _ClassVar[int]
    worker_id: int
    sequence: int
    url: str
    full: bool
    wait_ms: int
    def __init__(self, worker_id: _Optional[int] = ..., sequence: _Optional[int] = ..., url: _Optional[str] = ..., full: _Optional[bool] = ..., wait_ms: _Optional[int] = ...) -> None: ...

class RestoreRequest(_message.Message):
    __slots__ = ("worker_id", "sequence", "url", "log", "at", "tables", "values_only", "wait_ms")
    class AtEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: int
        value: int
        def __init__(self, key: _Optional[int] = ..., value: _Optional[int] = ...) -> None: ...
    class TablesEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    WORKER_ID_FIELD_NUMBER: _ClassVar[int]
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    URL_FIELD_NUMBER: _ClassVar[int]
    LOG_FIELD_NUMBER: _ClassVar[int]
    AT_FIELD_NUMBER: _ClassVar[int]
    TABLES_FIELD_NUMBER: _ClassVar[int]
    VALUES_ONLY_FIELD_NUMBER: _ClassVar[int]
    WAIT_MS_FIELD_NUMBER: _ClassVar[int]
    worker_id: int
    sequence: int
    url: str
    log: str
    at: _containers.ScalarMap[int, int]
    tables: _containers.ScalarMap[str, str]
    values_only: bool
    wait_ms: int
    def __init__(self, worker_id: _Optional[int] = ..., sequence: _Optional[int] = ..., url: _Optional[str] = ..., log: _Optional[str] = ..., at: _Optional[_Mapping[int, int]] = ..., tables: _Optional[_Mapping[str, str]] = ..., values_only: _Optional[bool] = ..., wait_ms: _Optional[int] = ...) -> None: ...

class CheckpointPartRequest(_message.Message):
    __slots__ = ("url", "name", "base")
    URL_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    BASE_FIELD_NUMBER: _ClassVar[int]
    url: str
    name: str
    base: str
    def __init__(self, url: _Optional[str] = ..., name: _Optional[str] = ..., base: _Optional[str] = ...) -> None: ...

class KeepPartRequest(_message.Message):
    __slots__ = ("url", "name", "truncate", "failed")
    URL_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    TRUNCATE_FIELD_NUMBER: _ClassVar[int]
    FAILED_FIELD_NUMBER: _ClassVar[int]
    url: str
    name: str
    truncate: int
    failed: bool
    def __init__(self, url: _Optional[str] = ..., name: _Optional[str] = ..., truncate: _Optional[int] = ..., failed: _Optional[bool] = ...) -> None: ...

class KeepPartResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class RestorePartRequest(_message.Message):
    __slots__ = ("url", "name", "exact", "log", "at", "tables", "values_only")
    class TablesEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    URL_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    EXACT_FIELD_NUMBER: _ClassVar[int]
    LOG_FIELD_NUMBER: _ClassVar[int]
    AT_FIELD_NUMBER: _ClassVar[int]
    TABLES_FIELD_NUMBER: _ClassVar[int]
    VALUES_ONLY_FIELD_NUMBER: _ClassVar[int]
    url: str
    name: str
    exact: bool
    log: str
    at: int
    tables: _containers.ScalarMap[str, str]
    values_only: bool
    def __init__(self, url: _Optional[str] = ..., name: _Optional[str] = ..., exact: _Optional[bool] = ..., log: _Optional[str] = ..., at: _Optional[int] = ..., tables: _Optional[_Mapping[str, str]] = ..., values_only: _Optional[bool] = ...) -> None: ...
