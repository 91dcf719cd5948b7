"""State that is not saved, by class, with the reason. An attribute that is neither saved nor here fails a test.

Whatever decides a later value, answer or eviction does not belong here: it belongs into the component's `state`.
"""

from __future__ import annotations

REASONS: dict[str, dict[str, str]] = {
    "rows are saved as records, by their ids; where they lie decides nothing": {
        "Arena": "_ids _statistics _marks _free _n_free _used layout_epoch",
        "PlainRows": "_rows",
        "Pools": "_places _slots_end",
        "Pool": "_rows _stack _free _used",
        "Chunks": "tensors _starts",
        "IdIndex": "_lines _fills _depths _directory _segments _ensured _state",
        "Pages": "_windows",
    },
    "which rows are in RAM, on disk or on their way decides speed alone; dropped rows are not saved": {
        "Dropped": "_hand _end",
        "Fp16Cold": "_hand _slots_end _unswept",
        "Store": "_writing",
        "Demotions": "_condemned _hand _writing",
        "Fetches": "_open next",
        "Removals": "done",
        "Purge": "filter _next _again",
        "Maintenance": "_turns _closing",
    },
    "the tables: each is saved, with its configuration": {
        "Core": "tables",
        "Ground": "tables",
        "Shard": "tables",
        "Maintenance": "_tables",
        "Evictions": "_tables",
        "Table": "closed config created_as born",
        "TableState": "parts",
    },
    "follows from the configuration": {
        "PlainRows": "_rule",
        "MixedRows": "_rule _cold_rule",
        "DeviceRows": "_update",
    },
    "is what another attribute is": {
        "Ranking": "counted_lots",
    },
    "the checkpoint that is being taken: it fails with its process": {
        "Arena": "saving",
        "Saves": "waiting _under_way",
    },
    "says how many ids of an array are in use, and where checkpoints stand among them": {
        "Removed": "_n _marks _last_cut",
    },
    "follows from the rows and the configuration, and is counted again": {
        "Capacity": "_bytes_of _taken",
        "Ledger": "nbytes",
        "Beside": "_held",
        "RamBudget": "_rows_bytes",
        "Room": "_nbytes _held _tables",
        "Part": "_limit used",
        "DeviceBudget": "used",
        "Slots": "_used _indexed _reserved lender",
    },
    "what tables and requests ask for now": {
        "Slots": "_wanted _usual _claimed",
        "Shares": "_demands _firm _usual _wants _least _room",
        "Room": "claimed_bytes lacked",
        "Pressure": "_claim",
    },
    "prepared steps are hints: their pulls and pushes send the ids instead": {
        "Steps": "_steps _rows nbytes rows_bytes",
        "Awaited": "_tally _used",
    },
    "calls under way: nothing of them is applied, and clients send them again": {
        "Commit": "_under_way",
        "Rounds": "_open _closed",
        "Arrivals": "_changed _numbers _waits",
        "Engine": "_tasks _looks _closing _closed",
        "Building": "_places _turn",
    },
    "a poisoned shard is not saved": {
        "Commit": "poisoned",
    },
    "how this process fares: figures, health, what was said in the log of the program": {
        "Engine": "tasks_done wait_s busy_s",
        "Steps": "prepared expired",
        "Rise": "rows_late",
        "Aftermath": "failures _failing",
        "DiskHealth": "errors _counting _pause_s _not_before _refused _unread",
        "Traffic": "rows_read rows_written bytes_read bytes_written",
        "Overflows": "_said",
        "Watch": "_seen _account",
    },
    "threads, files and libraries": {
        "Threads": "assistant io down",
        "Assistant": "_pool",
        "Part": "_lock",
        "Disk": "_cache _options _tables _bytes_seen _undropped _rows_known _undo _database _families _pool",
        "DiskTier": "read_errors _pool _lock _len",
        "Family": "_rows _family _write_options _lock _idle _calls",
        "Chunks": "_device",
        "Table": "_parts",
    },
    "room for what is computed on the way": {
        "Buffers": "_found",
        "Cores": "_buffers",
    },
    "never changes": {
        "Cores": "_one _rules shape",
        "Ranking": "decay_T",
        "PlainRows": "lengths",
        "MixedRows": "lengths",
        "DeviceRows": "lengths",
    },
}

NOT_KEPT = {(owner, name) for classes in REASONS.values() for owner, names in classes.items() for name in names.split()}

UNDER_WAY = {"Demotion", "Slice", "Once", "Running"}
"""Classes of what another thread may be doing for the shard: nobody looks into them. It ends, or is done again."""
