"""Trains with real runners, at all levels, and with runners that lie."""

import asyncio
import contextlib
import json
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest

from p2pq.daemon import runner_process, trains
from p2pq.daemon.attempt import Outcome
from p2pq.daemon.runner_messages import Did, End
from p2pq.daemon.runners import RunnerPool, TaskLaunch
from p2pq.daemon.scratch import Scratch
from p2pq.daemon.trains import Ended, Left, Passenger, TrainLaunch, run_train
from p2pq.errors import DiskFullError, SandboxError
from tests.sandbox.conftest import LIMITS

TRUE = ("/bin/true",)


class Told:
    """What a train told: each by its place, and who went on alone."""

    def __init__(self) -> None:
        self.ended: dict[int, Ended] = {}
        self.alone: dict[int, tuple[Outcome, str]] = {}
        self.started: list[int] = []
        self.left: Left | None = None
        self.begun = asyncio.Event()
        self.some = asyncio.Event()

    def start(self, place: int, _stdout: Path, _stderr: Path) -> None:
        self.started.append(place)
        self.begun.set()


@pytest.fixture(autouse=True)
def _patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is to be short may take as long as a busy machine needs for it."""
    monkeypatch.setattr(trains, "LONG_S", 0.5)


def sh(text: str) -> tuple[str, ...]:
    return ("/bin/sh", "-c", text)


async def ride(
    pool: RunnerPool,
    level: str,
    *commands: tuple[str, ...],
    told: Told | None = None,
    params: Sequence[str] = (),
    **fields: Any,
) -> Told:
    """Run commands as a train of one job."""
    told = told or Told()
    common: TaskLaunch[str] = TaskLaunch(
        lease="",
        job=b"job",
        level=level,
        argv=(),
        env={"COMMON": "c"},
        limits=LIMITS,
        collect=lambda *_: "",
        **{"populate": None, **fields},
    )  # type: ignore[arg-type]
    launch = TrainLaunch(
        common=common,
        passengers=tuple(
            Passenger(f"{place}", argv, ("/bin/echo", "otherwise"), {"OWN": str(place)}, (params or [""] * 64)[place])
            for place, argv in enumerate(commands)
        ),
        collect=lambda _place, _folder, outcome: outcome.stdout.read_text() + outcome.stderr.read_text(),
        on_started=told.start,
    )
    async with contextlib.aclosing(run_train(pool, launch)) as some:
        async for each in some:
            if isinstance(each, Left):
                told.left = each
            elif isinstance(each, tuple):
                told.alone[each[0]] = each[1:]
            else:
                told.ended |= {one.place: one for one in each}
            told.some.set()  # on a slow machine the first may go on alone
    return told


async def test_each_is_told_with_how_it_ended_and_what_it_printed(pool: RunnerPool, level: str) -> None:
    told = await ride(
        pool,
        level,
        TRUE,
        sh("echo $COMMON $OWN; echo err >&2; exit 3"),
        sh("kill -SEGV $$"),
        ("no-such-program",),
        sh("echo end"),
    )
    assert not told.alone
    ended = [told.ended[place] for place in range(5)]
    assert [(each.outcome.exit, each.outcome.signal, each.outcome.reason) for each in ended] == [
        (0, None, "ok"),
        (3, None, "exit"),
        (None, 11, "signal"),
        (0, None, "ok"),
        (0, None, "ok"),
    ]
    assert [(each.stdout, each.stderr) for each in ended] == [
        (b"", b""),
        (b"c 1\n", b"err\n"),
        (b"", b""),
        (b"otherwise\n", b""),
        (b"end\n", b""),
    ]
    assert all(0 <= each.outcome.seconds < 20 and each.outcome.max_rss > 0 for each in ended)
    assert ended[1].outcome.detail == "it exited with status 3"
    assert (await ride(pool, level, TRUE, TRUE)).ended.keys() == {0, 1}, "the runner is as good as before"
    assert len(pool._alive) == 1


async def test_nothing_of_one_is_left_for_the_next(pool: RunnerPool, level: str) -> None:
    left = sh("sleep 1000 & echo $! ; (setsid sleep 1000 &) ; cd /; exit 0")
    told = await ride(pool, level, left, sh("echo; : > /dev/stdout; echo only"), sh("cat; pgrep -x sleep; echo $?"))
    assert told.ended[1].stdout == b"only\n", "what is cut off is its own"
    assert told.ended[2].stdout.endswith(b"1\n") or level == "none", "nothing runs any more"
    pids = [int(pid) for pid in told.ended[0].stdout.split()]
    assert level == "strict" or not any(psutil.pid_exists(pid) for pid in pids)


async def test_behind_a_long_one_nothing_begins(pool: RunnerPool, level: str) -> None:
    told = Told()
    told = await ride(pool, level, TRUE, sh("echo long; sleep 0.9; exit 4"), TRUE, TRUE, told=told)
    assert (told.ended.keys(), told.started, told.left) == ({0}, [1], Left(2))
    outcome, printed = told.alone[1]
    assert (outcome.exit, printed) == (4, "long\n")
    assert 0.9 <= outcome.seconds < 20
    assert (await ride(pool, level, TRUE, TRUE)).ended.keys() == {0, 1}


async def test_what_prints_much_is_collected_and_the_rest_does_not_begin(pool: RunnerPool, level: str) -> None:
    told = await ride(pool, level, sh("head -c 9000 /dev/zero | tr '\\0' x"), TRUE)
    assert (told.ended.keys(), told.alone[0][1]) == (set(), "x" * 9000)
    assert told.alone[0][0].exit == 0
    assert (await ride(pool, level, sh("echo a"), TRUE)).ended[0].stdout == b"a\n"


async def test_much_in_all_is_told_in_pieces(pool: RunnerPool, level: str) -> None:
    told = await ride(pool, level, *[sh("head -c 4096 /dev/zero | tr '\\0' y")] * 64)
    together = {**{place: each.stdout.decode() for place, each in told.ended.items()}}
    assert all(text == "y" * 4096 for text in together.values())
    assert together.keys() == set(range(len(together)))


async def test_killing_one_that_goes_on_alone_asks_first(pool: RunnerPool, level: str) -> None:
    told = Told()
    async with asyncio.TaskGroup() as group:
        riding = group.create_task(
            ride(
                pool,
                level,
                TRUE,
                sh("trap 'echo saved; exit 7' TERM; echo; while :; do sleep 0.01; done"),
                TRUE,
                told=told,
            )
        )
        await told.begun.wait()
        await pool.kill("1", "cancelled", "enough", 10.0)
    outcome, _ = riding.result().alone[1]
    assert (outcome.reason, outcome.detail) == ("cancelled", "enough")
    assert riding.result().alone.keys() == {1}


async def test_killing_one_that_has_not_begun_ends_the_train(pool: RunnerPool, level: str) -> None:
    told = Told()
    async with asyncio.TaskGroup() as group:
        riding = group.create_task(ride(pool, level, *[sh("sleep 0.02")] * 64, told=told))
        await told.some.wait()
        await pool.kill("63", "cancelled")
    told = riding.result()
    assert 63 not in told.ended
    assert told.ended.keys() | told.alone.keys() == set(range(len(told.ended) + len(told.alone)))


async def kill_once_known(pool: RunnerPool, lease: str) -> None:
    assert lease in pool._running
    await pool.kill(lease, "cancelled")


async def test_a_train_of_which_one_is_killed_before_it_departs_does_not(pool: RunnerPool, level: str) -> None:
    async with asyncio.TaskGroup() as group:
        riding = group.create_task(ride(pool, level, sh("echo ran"), TRUE))
        group.create_task(kill_once_known(pool, "1"))  # while its runner starts
    assert (riding.result().ended, riding.result().alone) == ({}, {})
    assert (await ride(pool, level, TRUE, TRUE)).ended.keys() == {0, 1}


async def test_one_that_must_stand_still_does(pool: RunnerPool, level: str) -> None:
    told = Told()
    async with asyncio.TaskGroup() as group:
        riding = group.create_task(ride(pool, level, sh("sleep 0.7; echo over"), TRUE, told=told))
        await told.begun.wait()
        pool.hold("0", still=True)
        pool.hold("0", still=False)
    assert riding.result().alone[0][1] == "over\n"


async def test_a_train_that_is_given_up_leaves_nothing(pool: RunnerPool, level: str) -> None:
    told = Told()
    async with asyncio.TaskGroup() as group:
        riding = group.create_task(ride(pool, level, sh("sleep 1000"), TRUE, told=told))
        await told.begun.wait()
        riding.cancel()
    assert not pool._running
    assert not pool._busy


def fill(folder: Path) -> None:
    """Make a task's folder."""
    (folder / "results").mkdir()
    (folder / ".p2pq").mkdir()
    (folder / ".p2pq/params.json").write_text("none")
    (folder / "data").write_text("x")


async def test_one_folder_serves_all_that_leave_nothing_in_it(pool: RunnerPool, level: str) -> None:
    look = sh("ls -A . results $TMPDIR | grep -vx .p2pq; cat data .p2pq/params.json; cp data $TMPDIR")
    told = await ride(pool, level, *[look] * 3, populate=fill, params=["", "one", "two"])
    first, *others = [told.ended[place].stdout.decode() for place in range(3)]
    assert first.endswith("xnone")
    assert [each.replace("xone", "xnone").replace("xtwo", "xnone") for each in others] == [first, first]
    assert [each[-3:] for each in others] == ["one", "two"]
    assert (await ride(pool, level, TRUE, TRUE, populate=fill)).ended.keys() == {0, 1}, "it is filled anew"


@pytest.mark.parametrize("leaves", ["echo a > results/a", "echo y > data", "rm -r .p2pq", "chmod 0 results"])
async def test_behind_one_that_leaves_something_nothing_begins(pool: RunnerPool, level: str, leaves: str) -> None:
    if level == "basic":
        leaves = leaves.replace("chmod 0", "rmdir")  # modes do not change there
    told = await ride(pool, level, TRUE, sh(f"echo printed; {leaves}"), sh("echo never"), populate=fill)
    assert (told.ended.keys(), told.alone.keys()) == ({0}, {1})
    outcome, printed = told.alone[1]
    assert (outcome.exit, printed) == (0, "printed\n"), "what it printed is collected with what it left"
    assert (await ride(pool, level, sh("cat data"), TRUE, populate=fill)).ended[0].stdout == b"x"


async def test_without_a_folder_of_any_use_nothing_begins(pool: RunnerPool) -> None:
    told = await ride(pool, "none", TRUE, TRUE, populate=lambda folder: folder.rmdir())
    assert (told.ended, told.alone) == ({}, {})


async def test_a_folder_that_cannot_be_filled_is_this_machine_s_fault(pool: RunnerPool) -> None:
    def full(_: Path) -> None:
        raise OSError(28, "No space left on device")

    with pytest.raises(DiskFullError):
        await ride(pool, "none", TRUE, TRUE, populate=full)


END = [0, 0, 0, 0.0, 1, 0.0, 0.0, "", ""]
LIES: dict[str, list[dict[str, Any]]] = {
    "too many ends": [{"op": "did", "id": 0, "ends": [END] * 3, "over": True}],
    "one runs that is not there": [{"op": "did", "id": 0, "ends": [END] * 2, "over": True, "pid": 7}],
    "one runs and it is not over": [{"op": "did", "id": 0, "ends": [END], "pid": 7}],
    "much was printed by none": [{"op": "did", "id": 0, "ends": [], "over": True, "large": True}],
    "much was printed and it goes on": [{"op": "did", "id": 0, "ends": [END], "large": True}],
    "dirty after none": [{"op": "did", "id": 0, "ends": [], "over": True, "dirty": "x"}],
    "of another train": [{"op": "did", "id": 5, "ends": [END], "over": True}],
    "as a single task": [{"op": "started", "id": 0, "pid": 7}],
    "a number that is none": [{"op": "did", "id": 0, "ends": [[0, 0, 0, -1.0, 1, 0.0, 0.0, "", ""]], "over": True}],
    "an end with more to it": [{"op": "did", "id": 0, "ends": [[*END, 1]], "over": True}],
    "silence": [],
}


@pytest.mark.parametrize("lie", LIES)
async def test_a_runner_that_lies_is_lost_and_with_it_only_what_it_ran(
    pool: RunnerPool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, lie: str
) -> None:
    liar = tmp_path / "liar.py"
    liar.write_text(
        "import json, socket, sys\n"
        "control = socket.socket(fileno=int(sys.argv[1]))\n"
        "def say(message):\n"
        "    body = json.dumps(message).encode()\n"
        "    control.sendall(len(body).to_bytes(4, 'big') + body)\n"
        "say({'op': 'ready'})\n"
        "heard = b''\n"
        "while b'\"train\"' not in heard:\n"
        "    heard += control.recv(1 << 20)\n"
        "number = int(heard.split(b'\"id\":')[1].split(b',')[0])\n"
        f"for lie in json.loads({json.dumps(LIES[lie])!r}):\n"
        "    say({**lie, 'id': lie['id'] + number})\n" + ("control.recv(1)\n" if LIES[lie] else "")
    )
    monkeypatch.setattr(runner_process, "RUNNER_FILE", liar)
    told = await ride(pool, "none", TRUE, TRUE)
    assert (told.ended, told.alone) == ({}, {})
    assert told.left == Left(0, apart=True), "nobody knows which of them it was"
    monkeypatch.undo()
    assert (await ride(pool, "none", TRUE, TRUE)).ended.keys() == {0, 1}


async def test_a_runner_that_cannot_clean_up_is_not_used_again(
    pool: RunnerPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = runner_process.RUNNER_FILE.read_text()
    dirty = (
        runner_process.RUNNER_FILE.with_name("main.py")
        .read_text()
        .replace("    def clean_up(self) -> str:\n", "    def clean_up(self) -> str:\n        return 'a mess'\n")
    )
    assert dirty != source
    path = pool._scratch.parent / "dirty.py"
    path.write_text(dirty)
    monkeypatch.setattr(runner_process, "RUNNER_FILE", path)
    told = await ride(pool, "none", sh("echo a"), TRUE)
    assert (told.ended.keys(), told.ended[0].stdout) == ({0}, b"a\n"), "its end counts, as nothing else came of it"
    assert not [runner for runner in pool._alive if not runner.broken]


async def test_who_kills_its_runner_is_blamed_where_nobody_else_can_have_been_it(pool: RunnerPool) -> None:
    told = await ride(pool, "none", TRUE, sh("kill -9 $PPID"), TRUE)
    assert told.alone == {}
    assert told.left is not None
    assert told.left.apart
    told = await ride(pool, "none", sh("sleep 0.6; kill -9 $PPID"), TRUE)
    assert (told.alone[0][0].reason, told.left) == ("sandbox", Left(1))


async def test_a_folder_that_cannot_be_emptied_costs_the_runner_and_nothing_else(
    pool: RunnerPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: object, *, begun: bool) -> None:
        raise OSError(5, "broken")

    monkeypatch.setattr(Scratch, "empty", fail)
    assert (await ride(pool, "none", TRUE, TRUE)).ended.keys() == {0, 1}
    assert not [runner for runner in pool._alive if not runner.broken]


def test_the_one_that_was_killed_for_its_memory_is_named_and_no_other(tmp_path: Path) -> None:
    scratch, kills = Scratch(tmp_path), SimpleNamespace(oom_kills=lambda: 1)
    runner: Any = SimpleNamespace(scratch=scratch, group=kills, occupied=True)
    launch: Any = SimpleNamespace(common=SimpleNamespace(limits=LIMITS))
    train = trains._Train(3, 0.0, 0)
    ends = (End(1, 0, 0, 0.0, 1, 0.0, 0.0, b"", b""), End(0, 9, 0, 0.0, 1, 0.0, 0.0, b"", b""))
    trains._did(train, Did(id=1, ends=ends), runner, launch, now=1.0)
    assert [each.outcome.reason for each in train.batch] == ["exit", "memory-limit"]
    trains._did(train, Did(id=1, ends=ends[1:], over=True), runner, launch, now=1.0)
    assert train.batch[-1].outcome.reason == "signal", "nothing was killed for its memory since"


async def test_a_pool_that_closes_takes_no_train(pool: RunnerPool) -> None:
    await pool.close()
    with pytest.raises(SandboxError, match="the node is stopping"):
        await ride(pool, "none", TRUE, TRUE)
