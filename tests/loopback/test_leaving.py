"""How a trainer ends whose shard is dead or stalled: soon, with a word for each write that may be lost, and a status.

Trainers and shards are processes of their own. What a trainer may take at most is a limit on hanging, no measurement.
"""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

SERVE = """
import sys, ps
from ps.server.shard_server import ShardServer
with ShardServer(0, ps.ServiceConfig(watching={"metrics": False})) as server:
    print(server.address, flush=True)
    sys.stdin.read()
"""
TRAIN = """
import sys, numpy as np, ps
client = ps.connect(sys.argv[1], timeout_s=500)  # far longer than a test may take
client.create_table(ps.TableConfig(name="t", dim=2))
push = lambda: client.push("t", [1], np.ones((1, 2), np.float32))
push()
print("ready", flush=True)
sys.stdin.readline()
"""
LIMIT_S = 100
LOST = "writes that failed, or are not known to be applied"


@contextmanager
def trainer_of(ill: signal.Signals, code: str) -> Iterator[subprocess.Popen[str]]:
    """A trainer that runs `code` after its shard has got the signal."""
    with shard_and_trainer(ill, code) as (_, trainer):
        yield trainer


@contextmanager
def shard_and_trainer(ill: signal.Signals, code: str) -> Iterator[tuple[subprocess.Popen[str], subprocess.Popen[str]]]:
    """The same, and its shard."""
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen([sys.executable, "-c", SERVE], **pipes) as shard:
        try:
            address = shard.stdout.readline().strip()
            with subprocess.Popen(
                [sys.executable, "-c", TRAIN + code, address], **pipes, stderr=subprocess.PIPE
            ) as trainer:
                try:
                    assert trainer.stdout.readline() == "ready\n"
                    shard.send_signal(ill)
                    trainer.stdin.write("\n")
                    trainer.stdin.flush()
                    yield shard, trainer
                finally:
                    trainer.kill()
        finally:
            shard.kill()


def ended(trainer: subprocess.Popen[str]) -> tuple[int, str]:
    _, said = trainer.communicate(timeout=LIMIT_S)
    return trainer.returncode, said


@pytest.mark.slow
@pytest.mark.parametrize(
    ("ill", "last", "words"),
    [
        (signal.SIGKILL, "", ""),
        (signal.SIGKILL, "raise SystemExit('a bug')", "a bug"),
        (signal.SIGSTOP, "sys.exit()", ""),
        (signal.SIGSTOP, "[].pop()", "IndexError: pop from empty list"),
    ],
)
def test_an_end_waits_for_a_moment_and_says_which_push_may_be_lost(ill: signal.Signals, last: str, words: str) -> None:
    with trainer_of(ill, f"client.background(push)\n{last}") as trainer:
        status, said = ended(trainer)
    assert status != 0
    assert words in said
    assert LOST in said
    assert said.count("write 2 of t: perhaps applied by shards [0]") == 1
    assert "waits 3 s for 1 write under way" in said


@pytest.mark.slow
def test_with_a_client_as_context_an_error_does_not_hang_behind_its_pushes() -> None:
    code = "with client:\n    client.background(push)\n    [].pop()"
    with trainer_of(signal.SIGSTOP, code) as trainer:
        status, said = ended(trainer)
    assert status != 0
    assert "IndexError" in said
    assert "write 2 of t: perhaps applied by shards [0] (" in said, "its call was ended"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("ill", "what"),
    [
        (signal.SIGKILL, "client.pull('t', [1])"),
        (signal.SIGSTOP, "client.pull('t', [1])"),
        (signal.SIGSTOP, "push()"),
        (signal.SIGSTOP, "client.background(push).result()"),
    ],
)
def test_ctrl_c_ends_every_wait_at_once(ill: signal.Signals, what: str) -> None:
    code = f"print('waits', flush=True)\n{what}"
    with trainer_of(ill, code) as trainer:
        assert trainer.stdout.readline() == "waits\n"
        trainer.send_signal(signal.SIGINT)
        status, said = ended(trainer)
    assert status == -signal.SIGINT
    assert "KeyboardInterrupt" in said


@pytest.mark.slow
def test_a_write_that_ends_well_after_ctrl_c_is_not_said_to_be_lost() -> None:
    code = """
import os, signal
from ps.wire import codec
plain = codec.payload_message
def interrupt_when_it_is_sent(payload):
    os.kill(os.getpid(), signal.SIGINT)
    return plain(payload)
codec.payload_message = interrupt_when_it_is_sent
push()
"""
    with shard_and_trainer(signal.SIGSTOP, code) as (shard, trainer):
        while "waits 3 s for 1 write under way" not in (line := trainer.stderr.readline()):
            assert line, "the trainer has ended"
        shard.send_signal(signal.SIGCONT)
        status, said = ended(trainer)
    assert (status, said) == (-signal.SIGINT, "")


@pytest.mark.slow
def test_a_second_ctrl_c_ends_the_process() -> None:
    code = "from ps.client.writes import leaving\nleaving.GRACE_S = 500\nclient.background(push)\n"
    with trainer_of(signal.SIGSTOP, code) as trainer:
        assert "Ctrl-C ends the process at once" in trainer.stderr.readline()
        trainer.send_signal(signal.SIGINT)
        status, _ = ended(trainer)
    assert status == -signal.SIGINT


@pytest.mark.slow
def test_a_push_that_failed_unheard_is_said_and_one_that_was_heard_is_not() -> None:
    """The shard is well; the second table is not there any more."""
    code = """
client.create_table(ps.TableConfig(name="u", dim=2))
gone = lambda: client.push("u", [1], np.ones((1, 2), np.float32))
ps.connect(sys.argv[1]).drop_table("u")
heard = client.background(gone)
try:
    heard.result()
except ps.TableNotFound:
    print("heard", file=sys.stderr)
"""
    for more, status in (("", 0), ("client.background(gone); client.close()", 120)):
        with trainer_of(signal.SIGCONT, code + more) as trainer:
            found, said = ended(trainer)
        assert found == status, said
        assert said.startswith("heard")
        assert (LOST in said) == bool(more)
        assert ("write 3 of u: applied by no shard (TableNotFound: " in said) == bool(more)


@pytest.mark.slow
def test_pushes_that_end_in_time_are_nothing_to_talk_about() -> None:
    code = "for _ in range(50): client.background(push)\nsys.exit(3)"
    with trainer_of(signal.SIGCONT, code) as trainer:
        status, said = ended(trainer)
    assert (status, said) == (3, "")
