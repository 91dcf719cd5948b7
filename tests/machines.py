"""Machines that are none: each a process tree in namespaces of its own, reached over a bridge, by ssh.

A machine has its own network, process ids, host name, /mnt (a tmpfs with the home directory of its accounts), /run and
/dev/shm, and the rest of the file system of this one. So `ray stop` within it ends what runs within it, and nothing is
left of it when the test ends, even when that is killed: a machine lives as long as the pipe to its first process.
Needs root, iproute2, rsync and sshd (`tests/install_packages.sh`).
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

TOOLS = ("unshare", "nsenter", "ip", "mount", "rsync", "ssh", "ssh-keygen", "sshd")
HOME = "/mnt/home"
ACCOUNT = "ps"
READY = "ready"

LOOK = """
import sys, ps
with ps.connect(sys.argv[1]) as client:
    print(*(f"{shard.address}={shard.state}" for shard in client.shards()), *client.tables())
"""
"""A program for `python -c`, with an address: shards with their states, then tables."""

BOOT = f"""
set -e
mount -t tmpfs tmpfs /mnt
mount -t tmpfs tmpfs /run
mount -t tmpfs tmpfs /dev/shm
mkdir -p {HOME}/.ssh /run/sshd
mount --bind "$1/passwd" /etc/passwd
mount --bind "$1/hosts" /etc/hosts
cp "$1/id_ed25519" {HOME}/.ssh/
chmod -R go= {HOME}
hostname "$2"
ip link set lo up
/usr/sbin/sshd -f "$1/sshd_config" -E /run/sshd.log
echo {READY}
cat > /dev/null
"""
SSHD = """
ListenAddress 0.0.0.0
HostKey {folder}/host_key
AuthorizedKeysFile {folder}/id_ed25519.pub
PidFile /run/sshd.pid
StrictModes no
UsePAM no
PasswordAuthentication no
PermitRootLogin prohibit-password
Subsystem sftp internal-sftp
SetEnv RAY_TMPDIR=/mnt
"""


@dataclass(frozen=True)
class Machine:
    """One of them."""

    pid: int
    """Of its first process."""
    address: str

    def start(self, command: Sequence[str]) -> subprocess.Popen[str]:
        """Runs a command there, as its account and in this process's directory; stdout and stderr come together."""
        within = ["nsenter", f"--target={self.pid}", "--net", "--pid", "--mount", "--uts", f"--wdns={os.getcwd()}"]
        kept = {key: value for key, value in os.environ.items() if not key.startswith("RAY_")}
        environment = kept | {"HOME": HOME, "USER": ACCOUNT, "RAY_TMPDIR": "/mnt", "RAY_USAGE_STATS_ENABLED": "0"}
        environment |= {"COLUMNS": "160", "TERM": "dumb"}
        return subprocess.Popen(
            [*within, *command],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def run(self, *command: str, timeout_s: float) -> str:
        """What it printed; the test fails with it if the command does."""
        with self.start(command) as process:
            try:
                printed, _ = process.communicate(timeout=timeout_s)
            except subprocess.TimeoutExpired:
                process.kill()
                printed, _ = process.communicate()
                pytest.fail(f"{command} runs longer than {timeout_s:g} s; it said:\n{printed}")
        assert process.returncode == 0, f"{command} says:\n{printed}"
        return printed


@contextmanager
def machines(folder: Path, addresses: Sequence[str]) -> Iterator[list[Machine]]:
    """Machines with these addresses, of one /24 network, that log in to each other as ACCOUNT (which is root) by the
    key ~/.ssh/id_ed25519. Skips the test where there can be none. `folder` keeps keys and settings."""
    for tool in TOOLS:
        if shutil.which(tool, path=f"{os.environ['PATH']}:/usr/sbin") is None:
            pytest.skip(f"there is no command `{tool}`: run tests/install_packages.sh")
    _prepare(folder, addresses)
    with ExitStack() as stack:
        started = [stack.enter_context(_machine(folder, number, a)) for number, a in enumerate(addresses)]
        _join(started)
        yield started


def _prepare(folder: Path, addresses: Sequence[str]) -> None:
    for key in ("host_key", "id_ed25519"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / key)], check=True)
    (folder / "sshd_config").write_text(SSHD.format(folder=folder))
    hosts = [f"{address} {_name(number)}" for number, address in enumerate(addresses)]
    (folder / "hosts").write_text("\n".join(["127.0.0.1 localhost", *hosts, ""]))
    others = [line for line in Path("/etc/passwd").read_text().splitlines() if not line.startswith("root:")]
    accounts = [f"{name}:*:0:0::{HOME}:/bin/bash" for name in (ACCOUNT, "root")]
    (folder / "passwd").write_text("\n".join([*accounts, *others, ""]))


def _name(number: int) -> str:
    return f"machine-{number}"


@contextmanager
def _machine(folder: Path, number: int, address: str) -> Iterator[Machine]:
    spaces = ["--net", "--pid", "--fork", "--kill-child", "--mount", "--mount-proc", "--uts", "--ipc"]
    boot = ["bash", "-c", BOOT, "boot", str(folder), _name(number)]
    keeper = subprocess.Popen(
        ["unshare", *spaces, *boot],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    with keeper:  # closes its stdin, and all that runs in it ends
        assert keeper.stdout is not None
        if keeper.stdout.readline().strip() != READY:
            _, complaint = keeper.communicate()
            pytest.skip(f"no machine can be made of namespaces here: {complaint.strip()}")
        try:
            yield Machine(_first_process(keeper.pid), address)
        finally:
            keeper.kill()


def _first_process(unshare: int) -> int:
    (child,) = Path(f"/proc/{unshare}/task/{unshare}/children").read_text().split()
    return int(child)


def _join(started: Sequence[Machine]) -> None:
    """A bridge in the first one's network, and a cable from it to each of the others."""
    hub = started[0]
    _ip(hub, "link", "add", "bridge", "type", "bridge")
    _ip(hub, "link", "set", "bridge", "up")
    _ip(hub, "address", "add", f"{hub.address}/24", "dev", "bridge")
    _ip(hub, "route", "add", "default", "dev", "bridge")  # Ray takes the address by which the world would be reached
    for number, machine in enumerate(started[1:], 1):
        _ip(hub, "link", "add", f"port{number}", "type", "veth", "peer", "name", "eth0", "netns", str(machine.pid))
        _ip(hub, "link", "set", f"port{number}", "master", "bridge", "up")
        _ip(machine, "address", "add", f"{machine.address}/24", "dev", "eth0")
        _ip(machine, "link", "set", "eth0", "up")
        _ip(machine, "route", "add", "default", "via", hub.address)


def _ip(machine: Machine, *arguments: str) -> None:
    """Not within its process ids: `netns PID` means one of ours."""
    subprocess.run(["nsenter", f"--target={machine.pid}", "--net", "ip", *arguments], check=True)
