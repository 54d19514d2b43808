"""What a job has run in a runner before its first task there and after its last, at every level."""

import asyncio
import errno
import os
from pathlib import Path
from typing import Any

import pytest

from p2pq.daemon import hooks as hooks_module
from p2pq.daemon import trains
from p2pq.daemon.launches import Hooks
from p2pq.daemon.runners import RunnerPool, TaskLaunch
from p2pq.daemon.scratch import Scratch
from p2pq.daemon.trains import Left, Passenger, TrainLaunch, run_train
from p2pq.errors import DiskFullError, SandboxError
from tests.sandbox.conftest import LIMITS, Ran, collect

BEGIN = """
[ ! -e input ] || cp input "$P2PQ_BEGUN"/file
export ADDED='two
lines' PATH="/mine:$PATH" P2PQ_JOB=other; unset LANG; echo heard; echo of >&2; sleep 60 & touch left
"""


def populate(folder: Path) -> None:
    (folder / "input").write_text("data")


def launch(level: Any, hooks: Hooks, script: str = "true", **changes: Any) -> TaskLaunch[Ran]:
    fields: dict[str, Any] = {
        "lease": "1",
        "job": b"job",
        "level": level,
        "argv": ("/bin/sh", "-c", script),
        "env": {"P2PQ_TASK": "7", "P2PQ_JOB": "mine"},
        "limits": LIMITS,
        "populate": populate,
        "collect": collect,
        "hooks": hooks,
    }
    return TaskLaunch(**(fields | changes))


def words(outcome: Ran) -> list[str]:
    return outcome.stdout.split("|")


async def test_tasks_have_what_the_begin_exports_and_leaves(pool: RunnerPool, level: str) -> None:
    script = 'printf "%s|" "$ADDED" "${PATH%%:*}" "${LANG-none}" "$P2PQ_JOB" "$P2PQ_TASK" "$(cat "$P2PQ_BEGUN"/file)" "$(ls)"; '
    script += 'echo more >> "$P2PQ_BEGUN"/file'
    hooks = Hooks(BEGIN, "")
    for found in ("data", "datamore"):
        outcome, ran = await pool.run(launch(level, hooks, script))
        assert outcome.reason == "ok"
        assert words(ran)[:-1] == ["two\nlines", "/mine", "none", "mine", "7", found, "input"]
        assert ran.stderr == "", "what it printed is no task's"


async def test_a_begin_that_fails_is_this_machines_doing_and_says_why(pool: RunnerPool, level: str) -> None:
    said: list[tuple[bytes, str]] = []
    pool.hooks.said = lambda job, text: said.append((job, text))
    with pytest.raises(SandboxError, match=r"--begin failed: it exited with status 3: no \?\[0mway$"):
        await pool.run(launch(level, Hooks("echo never; printf 'first\\nno \\033[0mway\\n' >&2; exit 3", "")))
    assert said == [(b"job", "--begin failed: it exited with status 3: no ?[0mway")]
    outcome, _ = await pool.run(launch(level, Hooks("true", ""), lease="2"))
    assert outcome.reason == "ok"


async def test_a_command_of_this_machine_only_has_failed_as_its_begin_did(pool: RunnerPool, tmp_path: Path) -> None:
    own = launch("none", Hooks("echo no >&2; exit 3", ""), "echo ran", populate=None, whole_env=True, cwd=str(tmp_path))
    outcome, ran = await pool.run(own)
    assert (outcome.reason, outcome.exit, outcome.detail) == ("exit", 3, "--begin failed: it exited with status 3")
    assert (ran.stdout, ran.stderr) == ("", "no\n")


async def test_the_end_comes_once_after_tasks_that_failed(pool: RunnerPool, tmp_path: Path) -> None:
    log = tmp_path / "log"
    hooks = Hooks(f"export A=1; echo begin >> {log}", f"echo end $A $P2PQ_TASK >> {log}")
    for lease in "12":
        outcome, _ = await pool.run(launch("none", hooks, f"echo task >> {log}; exit 1", lease=lease))
        assert outcome.exit == 1
    await pool.finish(b"another")
    assert log.read_text().split("\n") == ["begin", "task", "task", ""]
    await pool.finish(b"job")
    assert log.read_text().split("\n") == ["begin", "task", "task", "end 1", ""]
    await pool.finish(b"job")


async def test_an_end_that_fails_is_said_and_nothing_more(pool: RunnerPool, level: str) -> None:
    said: list[tuple[bytes, str]] = []
    pool.hooks.said = lambda job, text: said.append((job, text))
    hooks = Hooks('echo kept > "$P2PQ_BEGUN"/file', 'cat "$P2PQ_BEGUN"/file; exit 4')
    await pool.run(launch(level, hooks))
    await pool.finish(b"job")
    assert said == [(b"job", "--end failed: it exited with status 4: kept")]


async def test_an_idle_runner_ends_by_itself_and_the_node_does_not_wait_long(pool: RunnerPool, tmp_path: Path) -> None:
    log = tmp_path / "log"
    await pool.run(launch("none", Hooks("", f"echo end >> {log}; sleep 600"), job=b"long"))
    await pool.run(launch("none", Hooks("", f"echo end >> {log}"), lease="2"))
    await pool.close()
    assert log.read_text() == "end\n" * 2


async def test_who_is_to_end_meanwhile_does_not_begin(pool: RunnerPool, level: str) -> None:
    async with asyncio.TaskGroup() as group:
        running = group.create_task(pool.run(launch(level, Hooks("sleep 600", ""), "touch ran")))
        while not any(run.coupled for run in pool._running.values()):  # noqa: ASYNC110  nobody is told
            await asyncio.sleep(0)
        await pool.kill("1", "cancelled", grace_s=0.0)
    outcome, ran = running.result()
    assert (outcome.reason, sorted(ran.files)) == ("cancelled", ["input"])
    assert (await pool.run(launch(level, Hooks("true", ""), lease="2")))[0].reason == "ok"


async def test_a_train_begins_once(pool: RunnerPool, level: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trains, "LONG_S", 60.0)  # however slow this machine is
    common = launch(level, Hooks("export A=1", ""), populate=None)
    passengers = tuple(Passenger(str(n), ("/bin/sh", "-c", f"echo $A {n}"), (), {"P2PQ_TASK": str(n)}) for n in (1, 2))
    train = TrainLaunch(common, passengers, lambda _, folder, outcome: collect(folder, outcome), lambda *_: None)
    ended = [each async for some in run_train(pool, train) if isinstance(some, list) for each in some]
    assert [each.stdout for each in ended] == [b"1 1\n", b"1 2\n"]


async def test_a_train_of_this_machine_whose_begin_fails_gives_the_others_back(
    pool: RunnerPool, tmp_path: Path
) -> None:
    common = launch("none", Hooks("exit 3", ""), populate=None, whole_env=True, cwd=str(tmp_path))
    passengers = tuple(Passenger(str(n), ("true",), (), {}) for n in (1, 2))
    train = TrainLaunch(common, passengers, lambda _, folder, outcome: collect(folder, outcome), lambda *_: None)
    left, (place, outcome, _) = [some async for some in run_train(pool, train)]  # type: ignore[misc]
    assert left == Left(1)
    assert (place, outcome.exit) == (0, 3)


BYTES = "X=$(head -c 100000 /dev/zero | tr '\\0' '{}'); "
MANY = "for i in 1 2 3 4 5 6 7 8 9; do export X$i=$X; done"


@pytest.mark.parametrize("begin", [BYTES.format("x") + "X=$X$X; " + MANY, BYTES.format("\\001") + MANY])
async def test_what_exports_too_much_is_refused(pool: RunnerPool, begin: str) -> None:
    with pytest.raises(SandboxError, match="exports more than 1 MiB"):
        await pool.run(launch("none", Hooks(begin.replace("=$X$X", "=$X; export Y=$X Z=$X"), "")))


@pytest.mark.parametrize("shell", ["/bin/sh", "/bin/bash"])
async def test_a_begin_whose_environment_cannot_be_had_has_failed(pool: RunnerPool, shell: str) -> None:
    large = BYTES.format("x") + "export X=$X$X"  # no program can be given it
    for begin in (large, "export A=1; exec 0<&-", "export A=1; exec </dev/null"):
        with pytest.raises(SandboxError, match=r"--begin failed: it exited with status 126: \S"):
            await pool.run(launch("none", Hooks(begin, "", shell)))


async def test_what_writes_on_and_on_to_where_its_environment_goes_is_ended(pool: RunnerPool, level: str) -> None:
    with pytest.raises(SandboxError, match="--begin failed: it exports more than 1 MiB"):
        await pool.run(launch(level, Hooks("head -c 2000000 /dev/zero >&0; sleep 600", "")))


async def test_a_disk_that_fails_when_a_begin_is_over_is_said_to_be_one(
    pool: RunnerPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, "")

    monkeypatch.setattr(Scratch, "empty", full)
    with pytest.raises(DiskFullError):
        await pool.run(launch("none", Hooks("true", "")))


async def test_guests_do_not_end_more_at_once_than_there_is_room_for(
    pool: RunnerPool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hooks_module, "GUESTS_MAX", 1)
    said: list[tuple[bytes, str]] = []
    pool.hooks.said = lambda job, text: said.append((job, text))
    os.mkfifo(tmp_path / "gate")
    ends = Hooks("", f"echo $P2PQ_JOB >> {tmp_path}/log; read _ < {tmp_path}/gate")
    for job, guest in ((b"a", True), (b"b", True), (b"own", False)):
        env = {"P2PQ_JOB": job.decode()}
        await pool.run(launch("none", ends, job=job, idle_priority=guest, env=env))
    for job in (b"a", b"b", b"own"):
        pool.end_job(job)
    assert said == [(b"b", "--end did not run: too many others ran here")]
    await pool.finish(b"b")
    gate = os.open(tmp_path / "gate", os.O_RDWR)  # which waits for no reader
    os.write(gate, b"go\n" * 2)
    for job in (b"a", b"own"):
        await pool.finish(job)
    os.close(gate)
    assert sorted((tmp_path / "log").read_text().split()) == ["a", "own"]
