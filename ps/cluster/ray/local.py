"""`psctl up` without a Ray cluster starts a keeper process, which owns a local Ray and the service until it is told to
stop.

The keeper is a process of its own, so that `psctl up` can return; `psctl down` ends it by its process id, and with it
the Ray that it started and nothing else. What runs is written to a state file per service name.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
from dataclasses import asdict, dataclass
from pathlib import Path

from ps.cluster.ray.deployment import Deployment
from ps.errors import InvalidArgument, NotFound, Unavailable
from ps.runtime.clock import SYSTEM_CLOCK


@dataclass(frozen=True)
class State:
    """A service that `psctl up` started on this host."""

    name: str
    address: str
    pid: int
    """The keeper's process id; 0 for a service whose actors are detached in a Ray cluster."""
    ray_address: str = ""


def state_file(name: str) -> Path:
    """Returns the path $XDG_STATE_HOME/embedding-ps/NAME.json."""
    home = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(home) / "embedding-ps" / f"{name}.json"


def read_state(name: str) -> State:
    """Reads the state of a service. Raises NotFound when no such service was started here, or its keeper is gone."""
    try:
        state = State(**json.loads(state_file(name).read_text(encoding="utf-8")))
    except (FileNotFoundError, NotADirectoryError):
        raise NotFound(f"no service {name!r} was started on this host; psctl up starts one") from None
    except OSError as error:
        raise _unusable(error) from error
    if state.pid and not is_alive(state.pid):
        state_file(name).unlink(missing_ok=True)
        raise NotFound(f"service {name!r} is gone: its process {state.pid} has ended")
    return state


def make_folder() -> None:
    """Makes the folder for state files. Raises InvalidArgument with the remedy before anything starts."""
    folder = state_file("any").parent
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise _unusable(error) from error


def _unusable(error: OSError) -> InvalidArgument:
    return InvalidArgument(
        f"psctl keeps what it started in {state_file('any').parent}, which cannot be used ({error.strerror}): set "
        "XDG_STATE_HOME to a folder that can be written"
    )


def write_state(state: State) -> None:
    """Writes the state file atomically: readers may come at any time."""
    make_folder()
    path = state_file(state.name)
    fresh = path.with_suffix(f".{os.getpid()}")
    fresh.write_text(json.dumps(asdict(state)), encoding="utf-8")
    fresh.replace(path)


def start_keeper(name: str, deployment: Deployment) -> State:
    """Starts the keeper and waits until the service answers. Raises Unavailable with the keeper's last lines."""
    log_path = state_file(name).with_suffix(".log")
    make_folder()
    command = [sys.executable, "-m", "ps.cluster.ray.local", name, deployment.to_json()]
    with log_path.open("w", encoding="utf-8") as log:
        keeper = subprocess.Popen(
            command, stdout=log, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, start_new_session=True
        )
    timeout_s = deployment.launch.timeout_s
    deadline = SYSTEM_CLOCK.monotonic() + timeout_s
    logs = deployment.service.log.mode != "off"  # then it may take long, and the keeper knows when it takes too long
    while (logs or SYSTEM_CLOCK.monotonic() < deadline) and keeper.poll() is None:
        try:
            state = read_state(name)
        except NotFound:
            SYSTEM_CLOCK.sleep(0.1)
            continue
        if state.pid == keeper.pid:
            return state
        SYSTEM_CLOCK.sleep(0.1)
    if keeper.poll() is None:
        os.kill(keeper.pid, signal.SIGTERM)
    tail = "\n".join(log_path.read_text(encoding="utf-8", errors="replace").splitlines()[-5:])
    raise Unavailable(f"service {name!r} did not start within {timeout_s:g} s; the end of {log_path}:\n{tail}")


def stop_keeper(state: State, timeout_s: float) -> bool:
    """Asks the keeper to drain and end, and returns whether it has ended."""
    os.kill(state.pid, signal.SIGTERM)
    deadline = SYSTEM_CLOCK.monotonic() + timeout_s
    while SYSTEM_CLOCK.monotonic() < deadline:
        if not is_alive(state.pid):
            return True
        SYSTEM_CLOCK.sleep(0.1)
    return False


def is_alive(pid: int) -> bool:
    """Returns whether a keeper runs under this process id. The state file may be older than a reboot, and the id may
    belong to another process by now, which must never get our signal. The command line of a process that has ended is
    empty."""
    try:
        return b"ps.cluster.ray.local" in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return False


def keep(name: str, deployment: Deployment) -> None:
    """Runs the keeper: launches the service, writes the state file, waits for SIGTERM or SIGINT, and shuts down."""
    from ps.cluster.ray.launch import deploy

    told_to_stop = threading.Event()
    with deploy(deployment, name=name) as service:
        for number in (signal.SIGTERM, signal.SIGINT):  # after ray.init, which sets its own
            signal.signal(number, lambda *_: told_to_stop.set())
        write_state(State(name, service.address, os.getpid()))
        try:
            told_to_stop.wait()
        finally:
            state_file(name).unlink(missing_ok=True)


if __name__ == "__main__":
    keep(sys.argv[1], Deployment.from_json(sys.argv[2]))
