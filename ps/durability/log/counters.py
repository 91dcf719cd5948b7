"""What a log counts. `ps.counting` says what is made from these declarations."""

from __future__ import annotations

from dataclasses import dataclass

from ps.counting import counter, figure


@dataclass
class LogCounters:
    """One log since it was opened. Its own threads count."""

    bytes_written: int = counter("Bytes written to the log.", "bytes", "ps_log_written_bytes")
    records: int = counter("Writes that the log has.", "writes", "ps_log_records")
    groups: int = counter("Groups of writes that were handed to the system at once.", "groups", "ps_log_groups")
    fsyncs: int = counter("Times that the log was synced to disk.", "syncs", "ps_log_fsyncs")
    fsync_s: float = counter("Seconds that syncs of the log took.", "seconds", "ps_log_fsync_seconds")
    segments: int = figure("Files of the log.", "files")
    nbytes: int = figure("Bytes of these files.", "bytes")
    oldest_version: int = figure("The first version that the log has.", "version")
    waiting_bytes: int = figure("Bytes of writes that are not yet handed to the system.", "bytes")
