"""`psctl config show` and `psctl config check`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ps.cli.options import Json
from ps.cli.output import out, print_json

if TYPE_CHECKING:
    from pydantic import BaseModel

PLACE = 90

app = typer.Typer(help="Shows settings with their defaults, and checks files of them.")


@app.command()
def show(
    kind: Annotated[
        str,
        typer.Argument(
            help="service, launch, table, or a part of one: memory, disk, placement, importance, adagrad, fp16, ..."
        ),
    ] = "service",
    as_json: Json = False,
) -> None:
    """Prints all settings of one kind with their defaults and what they mean, as YAML to start a file from.

    --json: a JSON schema.
    """
    models = _models()
    if kind not in models:
        raise typer.BadParameter(f"{kind!r}: expected one of {', '.join(models)}")
    if as_json:
        print_json(models[kind].model_json_schema())
    else:
        from ps.cli.config_text import documented

        out.print("\n".join(documented(models[kind])), markup=False)


@app.command()
def check(
    file: Annotated[Path, typer.Argument(help="A service file, or a tables file (a list, or `tables:` with one).")],
    kind: Annotated[str, typer.Option("--kind", help="service or tables; by default told from the contents.")] = "",
    as_json: Json = False,
) -> None:
    """Says all that is wrong with a file of settings, field by field; exit code 1 if anything is.

    --json: {file, kind, problems: [{field, says}]}.
    """
    from ps.cli.config_file import SERVICE, TABLES
    from ps.cli.config_file import check as check_file

    if kind not in ("", SERVICE, TABLES):
        raise typer.BadParameter(f"--kind {kind!r}: expected {SERVICE} or {TABLES}")
    checked = check_file(file, kind or None)
    if as_json:
        problems = [problem._asdict() for problem in checked.problems]
        print_json({"file": str(file), "kind": checked.kind, "problems": problems})
    elif checked.problems:
        lines = (f"{file}: {field}: {says}" if field else f"{file}: {says}" for field, says in checked.problems)
        out.print("\n".join(lines), markup=False)
    else:
        out.print(f"{file}: a sound {checked.kind} file", markup=False)
    if checked.problems:
        raise typer.Exit(1)


def _models() -> dict[str, type[BaseModel]]:
    from ps import config
    from ps.cluster.ray import deployment
    from ps.optimizers.registry import OPTIMIZERS

    kinds: dict[str, type[BaseModel]] = {
        "service": config.ServiceConfig,
        "launch": deployment.Launch,
        "placement": deployment.Placement,
        "table": config.TableConfig,
        "importance": config.Importance,
        "network": config.NetworkConfig,
        "limits": config.LimitsConfig,
        "memory": config.MemoryConfig,
        "disk": config.DiskConfig,
        "log": config.LogConfig,
        "checkpoint": config.CheckpointConfig,
        "watching": config.WatchingConfig,
        "performance": config.PerformanceConfig,
    }
    parts: tuple[type[BaseModel], ...] = (
        *(one.config for one in OPTIMIZERS.values()),
        *(config.Uniform, config.Normal, config.Constant),
        *(config.Always, config.CountThreshold, config.Probability),
        *(config.Fp16, config.TensorTrain),
    )
    return {**kinds, **{str(part.model_fields["kind"].default): part for part in parts}}
