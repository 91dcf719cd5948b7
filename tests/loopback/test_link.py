"""Two network namespaces joined by a shaped link: a trainer and its shards meet there, and nothing is left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest

from benchmarks.harness.report import REPOSITORY
from benchmarks.wire.link import started, trained
from benchmarks.wire.link_trainer import Settings
from benchmarks.wire.namespaces import INTERFACE, End, NotPermitted, link, shape
from tests.waiting import until

Ends = tuple[End, End]

OWNER = """
import sys
from benchmarks.wire.namespaces import link, shape
with link() as ends:
    shape(ends, 10**9)
    print(*(end.pid for end in ends), flush=True)
    sys.stdin.read()
"""


def seen_here() -> tuple[str, set[str]]:
    """Named namespaces, and this namespace's interfaces."""
    named = subprocess.run(["ip", "netns", "list"], capture_output=True, text=True, check=True).stdout
    return named, set(os.listdir("/sys/class/net"))


def namespace_of(pid: int) -> str:
    return os.readlink(f"/proc/{pid}/ns/net")


def in_namespaces(namespaces: set[str]) -> list[str]:
    """Processes that are in one of them."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if os.readlink(process / "ns/net") in namespaces:
                found.append(process.name)
        except OSError:  # it has ended meanwhile
            continue
    return found


def shown(end: End, *command: str) -> str:
    done = subprocess.run([*end.within, *command], capture_output=True, text=True, check=True, timeout=20)
    return done.stdout


def test_each_end_has_the_link_and_no_other_way_out(link_ends: Ends) -> None:
    here = namespace_of(os.getpid())
    assert len({here, *(namespace_of(end.pid) for end in link_ends)}) == 3
    for end in link_ends:
        names = {line.partition(":")[0].strip() for line in shown(end, "cat", "/proc/self/net/dev").splitlines()[2:]}
        assert names >= {"lo", INTERFACE}
        routes = shown(end, "ip", "route").splitlines()
        assert len(routes) == 1
        assert routes[0].startswith(f"192.0.2.0/24 dev {INTERFACE} ")
        assert f"inet {end.address}/24" in shown(end, "ip", "address", "show", "up", "dev", INTERFACE)


@pytest.mark.parametrize(("bits_per_s", "said"), [(100_000_000, "rate 100Mbit"), (1_000_000_000, "rate 1Gbit")])
def test_both_directions_are_shaped_and_may_be_shaped_anew(link_ends: Ends, bits_per_s: int, said: str) -> None:
    shape(link_ends, 10_000_000)
    shape(link_ends, bits_per_s)
    for end in link_ends:
        (queue,) = shown(end, "tc", "qdisc", "show", "dev", INTERFACE).splitlines()
        assert queue.startswith("qdisc tbf ")
        assert f" {said} " in queue


@pytest.mark.usefixtures("link_ends")
@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_nothing_is_left_behind_whatever_ends_it(error: type[BaseException]) -> None:
    before = seen_here()
    namespaces: set[str] = set()

    def interrupted() -> None:
        with link() as ends:
            namespaces.update(namespace_of(end.pid) for end in ends)
            assert seen_here() == before, "not even meanwhile"
            raise error

    with pytest.raises(error):
        interrupted()
    assert seen_here() == before
    assert in_namespaces(namespaces) == []


@pytest.mark.usefixtures("link_ends")
def test_nothing_is_left_behind_by_an_owner_that_is_killed() -> None:
    before = seen_here()
    owner = subprocess.Popen(
        [sys.executable, "-c", OWNER], cwd=REPOSITORY, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with owner:
        assert owner.stdout is not None
        namespaces = {namespace_of(int(pid)) for pid in owner.stdout.readline().split()}
        assert len(namespaces) == 2
        owner.send_signal(signal.SIGKILL)
    until(lambda: in_namespaces(namespaces) == [])
    assert seen_here() == before


@pytest.mark.parametrize("tool", ["unshare", "nsenter", "ip", "tc"])
def test_a_missing_tool_is_named_with_the_mend(tool: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for other in {"unshare", "nsenter", "ip", "tc"} - {tool}:
        (tmp_path / other).symlink_to("/bin/true")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(NotPermitted, match=rf"no command `{tool}`: run tests/install_packages\.sh"), link():
        pass


def test_a_refusal_of_the_kernel_is_the_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for tool in ("unshare", "nsenter", "ip", "tc"):
        (tmp_path / tool).write_text("#!/bin/sh\necho 'unshare failed: Operation not permitted' >&2\nexit 1\n")
        (tmp_path / tool).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(NotPermitted, match="made here: unshare failed: Operation not permitted"), link():
        pass


@pytest.mark.slow  # three processes that load torch and the kernels
def test_a_trainer_and_its_shards_talk_across_and_compressed_is_fewer_bytes(link_ends: Ends) -> None:
    shape(link_ends, 100_000_000)
    tiny = Settings(addresses={}, history=500, ids=1000, dim=16, batch=32, steps=4)
    with ExitStack() as stack:
        trainer = started(stack, link_ends, tiny)
        carried = {way: trained(trainer, way, 4) for way in ("plain", "compressed")}
    assert 0 < carried["compressed"] < carried["plain"]
    # the keepers of the two namespaces are all that still is in them
    until(lambda: len(in_namespaces({namespace_of(end.pid) for end in link_ends})) == 2)
