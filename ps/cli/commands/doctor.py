"""`psctl doctor`."""

from __future__ import annotations

import os
import resource
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ps.cli.checks.findings import FAIL, Finding, fail
from ps.cli.options import ANSWER_TIMEOUT_S, DEFAULT_NAME, Address, Json, Name, RayAddress, TimeoutS
from ps.cli.output import print_json, print_lines, screen
from ps.cli.screens.layout import columns, wrapped
from ps.errors import NotFound, PsError
from ps.runtime.clock import SYSTEM_CLOCK

if TYPE_CHECKING:
    from ps.cluster.ray.deployment import Deployment

PLACE = 60


def doctor(
    name: Name = DEFAULT_NAME,
    address: Address = "",
    shards: Annotated[
        int | None, typer.Option("--shards", "-n", min=1, help="How many shards will run on this host.")
    ] = None,
    config_file: Annotated[
        Path | None,
        typer.Option(
            "--config", exists=True, dir_okay=False, help="A service file; the options here take precedence over it."
        ),
    ] = None,
    port: Annotated[int | None, typer.Option("--port", help="The port that psctl up will use; 0 for any.")] = None,
    ray_address: RayAddress = "",
    as_json: Json = False,
    timeout_s: TimeoutS = ANSWER_TIMEOUT_S,
) -> None:
    """Looks for what is wrong or slow on this host, in Ray, and in the service if one runs, and says how to fix it.

    Exit code 1 if a check says FAIL. --json: {checks: [{check, level, says, fix}]}, level: ok, warn or FAIL.
    """
    from ps.cluster.ray.deployment import Deployment

    deployment = Deployment.of(config_file, shards=shards, port=port)
    found = [
        *_host(deployment, own_port(name, address)),
        *_ray(ray_address, name, deployment.launch.shards),
        *_service(name, address, timeout_s),
    ]
    if as_json:
        print_json({"checks": [finding._asdict() for finding in found]})
    else:
        print_lines(lines(found, screen().width))
    if any(finding.level == FAIL for finding in found):
        raise typer.Exit(1)


def lines(found: Sequence[Finding], width: int | None) -> list[str]:
    """Lays out the findings: a line for each, and one for its fix."""
    names = columns([(finding.level, finding.check, "|") for finding in found], left=3)
    shown = []
    for name, finding in zip(names, found, strict=True):
        head, indent = name[:-1], " " * (len(name) - 1)
        room = None if width is None else width - len(indent)
        first, *others = wrapped(finding.says, room, "")
        fix = wrapped(f"-> {finding.fix}", room, "   ") if finding.fix else []
        shown += [head + first, *(indent + line for line in (*others, *fix))]
    return shown


def own_port(name: str, address: str) -> int | None:
    """Finds the port of the service that is looked at, if one runs here under that name or at the address given."""
    from ps.address import parse
    from ps.cli.survey import address_of

    try:
        return parse(address_of(name, address))[1]
    except PsError:
        return None


def _host(deployment: Deployment, own_port: int | None) -> Iterator[Finding]:
    from ps.cli.checks import disk as check_disk
    from ps.cli.checks import host as check_host
    from ps.cli.checks import log as check_log
    from ps.runtime import host

    config, shards, port = deployment.service, deployment.launch.shards, deployment.launch.port
    yield from check_host.python_and_packages()
    yield check_host.files(resource.getrlimit(resource.RLIMIT_NOFILE)[0], config.disk.path is not None)
    if port:
        yield check_host.port_free(config.network.host, port, own_port)
    yield check_host.memory(shards, config.memory.ram_bytes, host.host_ram_bytes(), host.available_bytes())
    yield check_host.cores(shards)
    yield check_host.cpu(Path("/proc/cpuinfo").read_text(encoding="utf-8"))
    yield from check_host.kernel()
    if config.disk.path is not None:
        yield from check_disk.disk(config.disk.path, shards, config.disk.max_bytes)
    yield from check_log.log(config, shards)


def _ray(ray_address: str, name: str, shards: int) -> Iterator[Finding]:
    from ps.cli.checks import ray as check_ray

    yield check_ray.token(os.environ)
    yield from check_ray.cluster(ray_address, name, shards)


def _service(name: str, address: str, timeout_s: float) -> Iterator[Finding]:
    """Checks the service. There is nothing to check where none was started here under that name and no address is
    given."""
    from ps import __version__
    from ps.cli.checks import service as check_service
    from ps.cli.survey import Watch, address_of

    try:
        where = address_of(name, address)
    except NotFound:
        return
    try:
        with Watch(where, timeout_s) as watch:
            watch.look()  # connects
            started = SYSTEM_CLOCK.monotonic()
            survey = watch.look()
            took_s, now_s = SYSTEM_CLOCK.monotonic() - started, SYSTEM_CLOCK.wall()
    except PsError as error:
        yield fail(
            "service", str(error), "psctl up starts one; --address of another shard, if only the coordinator is down"
        )
        return
    yield from check_service.shards(survey)
    yield check_service.releases(survey, __version__)
    if survey.stats:
        yield check_service.clocks(survey.stats, now_s, took_s)
        yield check_service.files(survey.stats)
        yield from check_service.memory(survey.stats)
