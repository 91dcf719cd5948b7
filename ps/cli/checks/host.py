"""`psctl doctor` checks this host. Each function is one check and is given all that it needs."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

from ps.address import address_of
from ps.cli.checks.findings import Finding, fail, ok, warn
from ps.cli.screens.numbers import nbytes
from ps.cluster.ray import ports

DISTRIBUTION = "embedding-ps"
SERVER_FILES = 256
"""File descriptors that a shard needs beside RocksDB's: for connections of trainers, libraries, Ray and logs. Under
Ray, with a small database and one trainer, 71 were open."""
COMFORTABLE_FILES = 4096


def python_and_packages() -> Iterator[Finding]:
    """Compares the installed versions with what this package asks for."""
    yield ok("python", ".".join(map(str, sys.version_info[:3])))
    try:
        wanted = metadata.requires(DISTRIBUTION) or []
    except metadata.PackageNotFoundError:
        yield warn("packages", f"{DISTRIBUTION} runs from its source, not installed", "pip install -e .")
        return
    from packaging.requirements import Requirement

    needed = [found for found in map(Requirement, wanted) if found.marker is None]
    bad = []
    for need in needed:
        try:
            version = metadata.version(need.name)
        except metadata.PackageNotFoundError:
            bad.append(f"{need.name} is missing")
            continue
        if not need.specifier.contains(version, prereleases=True):
            bad.append(f"{need.name} is {version}, not {need.specifier}")
    if bad:
        yield fail("packages", "; ".join(bad), f"pip install -U {DISTRIBUTION}")
    else:
        shown = ", ".join(
            f"{name} {metadata.version(name)}" for name in ("grpcio", "numba", "numpy", "rocksdict", "ray")
        )
        yield ok("packages", f"all {len(needed)} as asked for: {shown}")


def files(limit: int, has_disk: bool) -> Finding:
    """Checks the limit of open files of this process, which shards that are started from here inherit."""
    from ps.storage.disk.options import MAX_OPEN_FILES

    needed = SERVER_FILES + (MAX_OPEN_FILES if has_disk else 0)
    fix = f"ulimit -n {COMFORTABLE_FILES} before psctl up, or nofile in /etc/security/limits.conf"
    if limit < needed:
        return fail("files", f"a process may open {limit:,} files, a shard needs {needed:,}", fix)
    if limit < 2 * needed:
        return warn(
            "files",
            f"a process may open {limit:,} files, a shard needs {needed:,}: few are left for many trainers",
            fix,
        )
    return ok("files", f"a process may open {limit:,} files")


def port_free(host: str, port: int, own: int | None = None) -> Finding:
    """Checks that the coordinator could listen on this port. `own` is the port on which the service itself listens, if
    it runs."""
    if port == own:
        return ok("port", f"the service itself listens on port {port}")
    why = ports.refusal(host, port)
    if why is not None:
        return fail("port", why, "end that process, or psctl up --port with another")
    return ok("port", f"{address_of(host, port)} is free")


def memory(shards: int, ram_bytes: int | None, host_ram: int, available: int) -> Finding:
    """Compares what `shards` shards may take with the memory of this host."""
    from ps.cli.sizing.demand import START_BYTES

    if ram_bytes is None:
        return warn(
            "memory",
            f"shards have no bound (memory.ram_bytes); {nbytes(available)} of {nbytes(host_ram)} are available",
            "set memory.ram_bytes in the service file: psctl size says how much",
        )
    wanted = shards * (ram_bytes + START_BYTES)
    says = f"{shards} shards may take {nbytes(wanted)}; {nbytes(available)} of {nbytes(host_ram)} are available"
    if wanted > host_ram:
        return fail("memory", says, "a lower memory.ram_bytes, fewer shards, or more hosts")
    if wanted > available:
        return warn("memory", says, "end other processes here, or lower memory.ram_bytes")
    return ok("memory", says)


def cores(shards: int) -> Finding:
    """Compares the number of shards with the number of cores: a shard has one engine thread."""
    here = len(os.sched_getaffinity(0))
    if shards > here:
        return warn("cores", f"{shards} shards on {here} cores", "as many shards as cores")
    return ok("cores", f"{here} cores for {shards} shards")


def cpu(cpuinfo: str) -> Finding:
    """Looks for wide vector instructions in `cpuinfo` (the text of /proc/cpuinfo): kernels are compiled for the CPU
    that runs them, and wide vectors make them fast."""
    found = re.search(r"^(?:flags|Features)\s*:(.*)$", cpuinfo, re.MULTILINE)
    features = set(found[1].split()) if found else set()
    for wide in ("avx512f", "avx2", "asimd"):
        if wide in features:
            return ok("cpu", f"{wide}")
    return warn(
        "cpu", "no AVX2: optimizers run at half speed or less", "a newer CPU, or one that the hypervisor passes on"
    )


def kernel(settings: Path = Path("/")) -> Iterator[Finding]:
    """Checks the settings of Linux that tables depend on."""
    overcommit = _word(settings / "proc/sys/vm/overcommit_memory")
    if overcommit == "2":
        yield fail(
            "overcommit",
            "vm.overcommit_memory is 2: a table cannot reserve address space",
            "sysctl vm.overcommit_memory=0",
        )
    pages = _word(settings / "sys/kernel/mm/transparent_hugepage/enabled")
    if "[never]" in pages:
        yield warn(
            "pages",
            "transparent huge pages are off: random access to large tables is 1.5 times as slow",
            "echo madvise > /sys/kernel/mm/transparent_hugepage/enabled",
        )


def _word(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8").strip()
    except OSError:
        return ""  # not here: a container may hide it
