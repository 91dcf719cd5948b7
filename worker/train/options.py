"""The options of the trainer's command line, in the panels of --help."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from worker.train.settings import OPTIMIZERS

DATA, ROWS, MODEL = "Data", "Where the rows live", "Model"
RANKS, WIRE, SAVED = "Several trainers", "What is sent, and when", "Checkpoints"
"""The panels of --help."""

DataOption = Annotated[
    str,
    typer.Option(
        help="flights (a year of flights: late or not?), criteo (your files) or synthetic.", rich_help_panel=DATA
    ),
]
PathOption = Annotated[
    list[str] | None,
    typer.Option(
        help="For criteo: a file, plain or gzip. Give it again for more files, or a quoted pattern: 'day_*'.",
        metavar="FILE",
        rich_help_panel=DATA,
    ),
]
RowsOption = Annotated[
    int, typer.Option(help="For synthetic: how many samples to generate.", min=1, rich_help_panel=DATA)
]
OnErrorOption = Annotated[
    str, typer.Option(help="For criteo: what to do at a malformed line, skip or stop.", rich_help_panel=DATA)
]
MaxMalformedOption = Annotated[
    float,
    typer.Option(
        help="Share of a file's lines that may be malformed and skipped.",
        min=0,
        max=1,
        metavar="SHARE",
        rich_help_panel=DATA,
    ),
]
TablesOption = Annotated[
    Path | None,
    typer.Option(help="YAML of settings per table, {table: {field: value}}.", exists=True, rich_help_panel=ROWS),
]
ServiceOption = Annotated[str, typer.Option(help="host:port of a running service.", rich_help_panel=ROWS)]
LocalOption = Annotated[int, typer.Option(help="Launch this many shards on a local Ray.", min=0, rich_help_panel=ROWS)]
DimOption = Annotated[int, typer.Option(help="Floats of an embedding.", min=1, rich_help_panel=MODEL)]
OptimizerOption = Annotated[
    str, typer.Option(help="Optimizer of the embeddings: " + ", ".join(OPTIMIZERS) + ".", rich_help_panel=MODEL)
]
LrOption = Annotated[float, typer.Option(help="Learning rate of the embeddings.", rich_help_panel=MODEL)]
DenseLrOption = Annotated[
    float, typer.Option(help="Learning rate of the dense layers (Adagrad).", rich_help_panel=MODEL)
]
BatchSizeOption = Annotated[
    int, typer.Option(help="Samples in a batch, of all trainers together.", min=1, rich_help_panel=MODEL)
]
DiskOption = Annotated[
    Path | None,
    typer.Option(
        help="With --local: directory for the rows on disk, on an SSD; emptied at the start, stays at the end. "
        "Default: a temporary one (below TMPDIR), removed at the end.",
        rich_help_panel=ROWS,
    ),
]
NoDiskOption = Annotated[
    bool, typer.Option("--no-disk", help="With --local: all rows stay in RAM.", rich_help_panel=ROWS)
]
SwapFractionOption = Annotated[
    float,
    typer.Option(
        help="Share of each table's rows, the least used, that live on disk.",
        min=0.0,
        max=0.999,
        rich_help_panel=ROWS,
    ),
]
DepthOption = Annotated[
    str,
    typer.Option(
        help='Batches prepared ahead: a number, or "auto", as many as are trained while one is prepared.',
        rich_help_panel=WIRE,
    ),
]
SeedOption = Annotated[
    int, typer.Option(help="Random seed of the dense layers, and of synthetic data.", rich_help_panel=MODEL)
]
ThreadsOption = Annotated[
    int, typer.Option(help="Threads of torch; leave cores for local shards.", min=1, rich_help_panel=MODEL)
]
TrainersOption = Annotated[
    int,
    typer.Option(
        help="Trainer processes: each gets a part of a batch. The dense part stays equal; --mode is for embeddings.",
        min=1,
        rich_help_panel=RANKS,
    ),
]
ModeOption = Annotated[
    str,
    typer.Option(
        help="With --trainers: hybrid (embeddings asynchronous) or synchronous (gradients of all summed, applied "
        "once, as one trainer would).",
        rich_help_panel=RANKS,
    ),
]
MaxStalenessOption = Annotated[
    int | None,
    typer.Option(
        help="With --trainers, hybrid: a trainer that is more than so many steps ahead of the slowest waits.",
        min=0,
        rich_help_panel=RANKS,
    ),
]
PullAheadOption = Annotated[
    int,
    typer.Option(
        help="Pull the rows of so many batches ahead. Rows then lack the pushes of at most as many steps.",
        min=0,
        rich_help_panel=WIRE,
    ),
]
SparsifyOption = Annotated[
    float | None,
    typer.Option(
        help="Push this share of the rows' gradients, the largest ones, and those that must not wait. "
        "The others are held and"
        " added to the next gradients of their rows.",
        metavar="DENSITY",
        rich_help_panel=WIRE,
    ),
]
WireDtypeOption = Annotated[
    Literal["fp32", "fp16", "int8", "by-importance"],
    typer.Option(
        help="Number type of rows and gradients on the wire; by-importance: "
        "the most important rows in fp32, others in int8.",
        rich_help_panel=WIRE,
    ),
]
CompressIdsOption = Annotated[
    bool,
    typer.Option(
        "--compress-ids", help="Send ids sorted, as the gaps between them: for slow networks.", rich_help_panel=WIRE
    ),
]
DenseDensityOption = Annotated[
    float,
    typer.Option(
        help="With --trainers: share of the dense gradients that is exchanged, the largest ones; the others are held.",
        metavar="DENSITY",
        rich_help_panel=RANKS,
    ),
]
CheckpointDirOption = Annotated[
    Path | None,
    typer.Option(
        help="Folder for checkpoints, which all trainers and shards see. Each has the dense part, its optimizer, the "
        "position in the data, held gradients, and all rows of the service. The last two stay.",
        metavar="FOLDER",
        file_okay=False,
        rich_help_panel=SAVED,
    ),
]
CheckpointEveryOption = Annotated[
    int,
    typer.Option(
        help="Steps from one checkpoint to the next. There is one more when the data ends, and none at a Ctrl-C.",
        min=1,
        rich_help_panel=SAVED,
    ),
]
ResumeOption = Annotated[
    bool,
    typer.Option(
        "--resume",
        help="Go on from the newest checkpoint, with the same options and a new service, which is given its rows; "
        "begin if there is none.",
        rich_help_panel=SAVED,
    ),
]
RewindOption = Annotated[
    bool,
    typer.Option(
        "--rewind",
        help="Resume with a service that has gone on since the checkpoint: its tables are dropped, and filled again "
        "with the checkpoint's rows.",
        rich_help_panel=SAVED,
    ),
]
ServiceCheckpointsOption = Annotated[
    str | None,
    typer.Option(
        help="Folder or URL (s3://...) for the service's part, which all shards see. Only what has changed is written "
        "there, and nothing is removed. Default: all rows in each checkpoint's own folder.",
        metavar="URL",
        rich_help_panel=SAVED,
    ),
]
