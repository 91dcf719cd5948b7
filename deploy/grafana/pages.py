"""What is on the dashboard."""

from __future__ import annotations

from deploy.grafana.panel import RAM, RPC, SHARD, TABLE, Panel, by_bucket, by_table, rate, stat, total

GLANCE = [
    stat("Shards that answer", "Prometheus reached them.", 'sum(up{cluster="$cluster", role="shard"})'),
    stat("Shards without their rows", "Restarted: training must stop.", f"sum(ps_state_lost{{{SHARD}}})"),
    stat("Shards that are poisoned", "A write failed half-way.", f"sum(ps_poisoned{{{SHARD}}})"),
    stat("Disks in trouble", "Full, sick or gone; rows stay in RAM meanwhile.", f"sum(ps_degraded{{{SHARD}}})"),
    stat("Rows", "That exist, on any tier.", f"sum(ps_rows{{{TABLE}}})"),
    stat(
        "Pushes a second",
        "Each shard's part of a push counts.",
        total("ps_pushes_total", SHARD),
    ),
    stat("Alerts", "That fire now.", 'count(ALERTS{cluster="$cluster", alertstate="firing"}) or vector(0)'),
]

MEMORY = [
    Panel(
        "RAM by tier and purpose",
        "All that the processes have taken since their start, piled up. The top of the pile is what memory.ram_bytes "
        "bounds.",
        {
            f"sum by (tier, purpose) (ps_bytes{{{RAM}}})": "{{tier}}: {{purpose}}",
            f"sum by (purpose) (ps_process_bytes{{{SHARD}}})": "process: {{purpose}}",
        },
        "bytes",
        stacked=True,
        width=12,
    ),
    Panel(
        "RAM against budget",
        "By shard: what is accounted for, what it may have (memory.ram_bytes), and what the kernel says (RSS, which "
        "has the process's own start in it).",
        {
            f"shard:ps_ram_bytes:sum{{{SHARD}}}": "shard {{shard}}",
            f'ps_budget_bytes{{{SHARD}, kind="ram"}}': "shard {{shard}} budget",
            f"process_resident_memory_bytes{{{RPC}}}": "shard {{shard}} RSS",
        },
        "bytes",
        width=12,
    ),
    Panel(
        "RAM by table",
        "Rows and all that belongs to them.",
        {f"sum by (table) (ps_bytes{{{RAM}}})": "{{table}}"},
        "bytes",
        stacked=True,
    ),
    Panel(
        "Disk against budget",
        "Files on disk, and disk.max_bytes. Rows get four fifths of it, the rest is for what RocksDB has yet to "
        "compact.",
        {
            f"ps_disk_bytes{{{SHARD}}}": "shard {{shard}}",
            f'ps_budget_bytes{{{SHARD}, kind="disk"}}': "shard {{shard}} budget",
        },
        "bytes",
    ),
    Panel(
        "GPU against budget",
        "Rows of tables on a device, and memory.gpu_bytes. Empty where there are none.",
        {
            f'sum by (shard) (ps_bytes{{{TABLE}, purpose="device_rows"}})': "shard {{shard}}",
            f'ps_budget_bytes{{{SHARD}, kind="gpu"}}': "shard {{shard}} budget",
        },
        "bytes",
    ),
]

ROWS = [
    Panel("Rows by tier", "Where rows live now.", {f"sum by (tier) (ps_rows{{{TABLE}}})": "{{tier}}"}, stacked=True),
    Panel("Rows by table", "On all tiers.", {f"sum by (table) (ps_rows{{{TABLE}}})": "{{table}}"}, stacked=True),
    by_table(
        "Swap in and out",
        "Rows that came up from disk, and that went down: both follow what is trained.",
        {"up": "ps_rows_raised_total", "down": "ps_rows_demoted_total"},
    ),
    by_table(
        "Prepared on time, and late",
        "Rows that a prepare brought up before they were asked for, and those that a pull or push waited for.",
        {"on time": "ps_rows_on_time_total", "late": "ps_rows_late_total"},
    ),
    Panel(
        "Late, of the rows read from disk",
        "Misses on the critical path. Under 1 % with a Prefetcher.",
        {'table:ps_rows_late:ratio_rate5m{cluster="$cluster", table=~"$table"}': "{{table}}"},
        "percentunit",
    ),
    Panel(
        "Disk",
        "Bytes of rows read and written a second.",
        {
            rate("ps_disk_read_bytes_total", TABLE, "shard"): "shard {{shard}} read",
            rate("ps_disk_written_bytes_total", TABLE, "shard"): "shard {{shard}} written",
        },
        "Bps",
    ),
]

TRAFFIC = [
    Panel(
        "Traffic by method and direction",
        "Bytes of messages: received by the shards, and sent by them.",
        {
            rate("ps_rpc_received_bytes_total", RPC, "method"): "{{method}} received",
            rate("ps_rpc_sent_bytes_total", RPC, "method"): "{{method}} sent",
        },
        "Bps",
        stacked=True,
    ),
    Panel(
        "Traffic by kind and direction",
        "The same bytes by what they are: ids, rows, gradients, flags, and headers with all that is around them.",
        {
            rate("ps_rpc_received_bytes_total", RPC, "kind"): "{{kind}} received",
            rate("ps_rpc_sent_bytes_total", RPC, "kind"): "{{kind}} sent",
        },
        "Bps",
        stacked=True,
    ),
    Panel(
        "Compression",
        "How many times fewer bytes than rows and gradients in float32. About 1 without wire_dtype and sparsify; ids "
        "that go with a push count against it.",
        {
            total("ps_plain_bytes_total", f'{SHARD}, direction="received"')
            + " / "
            + total("ps_rpc_received_bytes_total", f'{SHARD}, method="Push"'): "pushes",
            total("ps_plain_bytes_total", f'{SHARD}, direction="sent"')
            + " / "
            + total("ps_rpc_sent_bytes_total", f'{SHARD}, method="Pull"'): "pulls",
        },
    ),
    by_table(
        "Rows read, pushed, updated",
        "Pushed: named by pushes; updated: those whose gradient came along and that have a row.",
        {"read": "ps_rows_read_total", "pushed": "ps_rows_pushed_total", "updated": "ps_rows_updated_total"},
    ),
    Panel("Calls", "A second, by method.", {rate("ps_rpc_total", RPC, "method"): "{{method}}"}, "ops"),
    Panel(
        "Failed calls",
        "A second, by method and code. NOT_FOUND: a step had expired, its ids were sent instead. RESOURCE_EXHAUSTED: "
        "told to come again.",
        {rate("ps_rpc_total", f'{RPC}, code!="OK"', "method, code"): "{{method}} {{code}}"},
        "ops",
    ),
    Panel(
        "Steps",
        "Prepared, and of those expired: prepared and never pushed. Held: prepared and not yet pushed.",
        {
            rate("ps_steps_prepared_total", SHARD, "shard"): "shard {{shard}} prepared a second",
            rate("ps_steps_expired_total", SHARD, "shard"): "shard {{shard}} expired a second",
            f"ps_steps_held{{{SHARD}}}": "shard {{shard}} held",
        },
    ),
]

LATENCY = [
    Panel(
        "$method: seconds a call",
        "How many calls took how long, from their first byte to their last. Two bands: some shards or calls are slow.",
        by_bucket("ps_rpc_duration_seconds_bucket", f'{RPC}, method="$method"'),
        "s",
        kind="heatmap",
        repeat="method",
    ),
    Panel(
        "99 of 100 calls are faster",
        "By method.",
        {'method:ps_rpc_duration_seconds:p99_rate5m{cluster="$cluster"}': "{{method}}"},
        "s",
    ),
    Panel(
        "99 of 100 calls are faster, by shard",
        "Of the chosen methods: one that stands out is a slow node, or has more than its share of ids.",
        {
            "histogram_quantile(0.99, "
            + rate("ps_rpc_duration_seconds_bucket", f'{RPC}, method=~"$method"', "shard, le")
            + ")": "shard {{shard}}"
        },
        "s",
    ),
]

ENGINE = [
    Panel(
        "Engine busy",
        "Share of the time that the engine thread works. At 1 a shard does all that it can: add shards.",
        {rate("ps_engine_busy_seconds_total", SHARD, "shard"): "shard {{shard}}"},
        "percentunit",
    ),
    Panel("Engine queue", "Calls that wait for the engine.", {f"ps_engine_queue_length{{{SHARD}}}": "shard {{shard}}"}),
    Panel(
        "Wait for the engine",
        "Seconds that a task waited, on average.",
        {
            rate("ps_engine_wait_seconds_total", SHARD, "shard")
            + " / "
            + rate("ps_engine_tasks_total", SHARD, "shard"): "shard {{shard}}"
        },
        "s",
    ),
    Panel(
        "Staleness",
        "Pushes that a shard applied between a pull and the push of its gradients. It grows with the trainers.",
        by_bucket("ps_push_staleness_bucket", SHARD),
        kind="heatmap",
    ),
    Panel(
        "9 of 10 pushes are less stale",
        "By shard.",
        {f"shard:ps_push_staleness:p90_rate5m{{{SHARD}}}": "shard {{shard}}"},
    ),
    Panel(
        "CPU",
        "Cores that the process keeps busy; the engine is one of its threads.",
        {rate("process_cpu_seconds_total", RPC, "shard"): "shard {{shard}}"},
    ),
]

CHANGES = [
    by_table(
        "Admission",
        "Rows created, and ids without a row whose gradient was dropped because they were not admitted.",
        {"created": "ps_rows_created_total", "refused": "ps_rows_refused_total"},
    ),
    by_table(
        "Eviction",
        "Rows dropped for more important ones, and by age.",
        {"evicted": "ps_rows_evicted_total", "expired": "ps_rows_expired_total"},
    ),
    by_table(
        "Precision",
        "Rows that became half precision, and float32 again.",
        {"narrowed": "ps_rows_narrowed_total", "widened": "ps_rows_widened_total"},
    ),
    by_table(
        "Tensor-train tables",
        "Gradients that trained the cores, rows folded back into them, and rows kept exact because they did not fit.",
        {"cores": "ps_rows_in_cores_total", "folded": "ps_rows_folded_total", "kept": "ps_rows_kept_total"},
    ),
]

CHECKPOINTS = [
    Panel(
        "Age of the newest checkpoint",
        "Since it was complete, or since the coordinator began; and how often one is due.",
        {
            'ps_checkpoint_age_seconds{cluster="$cluster"}': "age",
            'ps_checkpoint_every_seconds{cluster="$cluster"}': "due every",
        },
        "s",
    ),
    Panel(
        "Checkpoint under way",
        "Bytes that each shard has written of it.",
        {f"ps_checkpoint_done_bytes{{{SHARD}}}": "shard {{shard}}"},
        "bytes",
    ),
    Panel(
        "Checkpoints that failed",
        "Since the coordinator began; its log says why.",
        {'ps_checkpoint_failures_total{cluster="$cluster"}': "failed"},
    ),
]

PAGES = {
    "At a glance": GLANCE,
    "Memory": MEMORY,
    "Rows and swap": ROWS,
    "Traffic": TRAFFIC,
    "Latency": LATENCY,
    "Engine and staleness": ENGINE,
    "Admission, eviction, precision": CHANGES,
    "Checkpoints": CHECKPOINTS,
}
"""Title of a row of panels -> the panels."""
