"""Trains of own commands from the core's order to what it is told: all of them, each once, whatever happens on the way."""

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from p2pq.core.effects import Kill, Start, Train
from p2pq.core.events import Event, Exited, Faulted, Progressed, Started, TrainExited, Vacated
from p2pq.daemon import guests, trains
from p2pq.daemon.attempt import Outcome, exited
from p2pq.daemon.blobstore import BlobStore
from p2pq.daemon.delivery import open_result
from p2pq.daemon.guests import Guests
from p2pq.daemon.launching import FOLLOWED_MAX, can_follow
from p2pq.daemon.runners import RunnerPool
from p2pq.daemon.sealing import Sealer
from p2pq.daemon.trains import Ended
from p2pq.errors import DiskFullError, SandboxError, StorageError
from p2pq.model.config import RunnerSettings
from p2pq.model.ids import JobId, LeaseId, NodeId
from p2pq.model.sources import Source
from p2pq.wire import body as bodies
from p2pq.wire.body import CommandsBody, JobBody, ResultBody
from p2pq.wire.feed import Feed
from p2pq.wire.tree import Directory, File, Part, Tree, convergent, read_part, seal_chunk
from tests.unit.daemon.guestkit import REPLY, NoEnvironments, result_of, start_of

NONE = Path("/dev/null")
ME, JOB = NodeId(b"m" * 32), JobId(b"j" * 16)


class Bench:
    """The attempts of a node, with real runners."""

    def __init__(self, folder: Path, pool: RunnerPool, tasks: asyncio.TaskGroup) -> None:
        self.folder = folder
        self.blobs = BlobStore(folder / "blobs", quota_bytes=1 << 30, reserve_bytes=0)
        self.events: asyncio.Queue[Event] = asyncio.Queue()
        self.guests = Guests(
            node=ME,
            name="me",
            blobs=self.blobs,
            transfers=None,  # type: ignore[arg-type]  # all is here
            pool=pool,
            environments=NoEnvironments(),  # type: ignore[arg-type]
            settings=RunnerSettings(),
            memory_mb=64,
            tasks=tasks,
            post=self.events.put_nowait,
        )

    def starts(self, *lines: str, cwd: str | None = None) -> tuple[Start, ...]:
        """Return the orders to run these command lines."""
        body = CommandsBody(
            words=("{}",),
            sources=(Source(values=lines),),
            cwd=cwd or str(self.folder),
            environment=f"PATH={os.defpath}".encode(),
            umask=0o22,
        )
        return self._starts(body, len(lines))

    def _starts(self, body: CommandsBody | JobBody, count: int) -> tuple[Start, ...]:
        key = os.urandom(32)
        refs, parts = bodies.encrypt(key, body)
        for ref, part in zip(refs, parts, strict=True):
            self.blobs.put(ref.blob, part)
        fields = {
            "job": JOB,
            "tasks": count,
            "own": True,
            "may_be_empty": True,
            "sandbox": "none",
            "key": key,
            "body": refs,
        }
        return tuple(start_of(master=ME, lease=LeaseId(1, task), task=task, **fields) for task in range(count))

    async def over(self, count: int) -> tuple[dict[int, Exited], list[int]]:
        """Wait until so many are accounted for; return those that ended and those that were given back, by task."""
        exits: dict[int, Exited] = {}
        back: list[int] = []
        while len(exits) + len(back) < count:
            match await self.events.get():
                case TrainExited(exits=some, back=others):
                    exits |= {each.lease.counter: each for each in some}
                    back += [lease.counter for _, lease in others]
                case Exited() as event:
                    exits[event.lease.counter] = event
                case Started() | Vacated():
                    pass
                case other:
                    raise AssertionError(other)
        assert self.guests.guests() == {}
        assert self.events.empty()
        return exits, back

    def printed(self, start: Start, event: Exited) -> dict[str, bytes]:
        """Return what an attempt printed, as its owner opens it."""
        body: ResultBody = open_result(result_of(start, event), REPLY, self.blobs, start.limits)
        return {
            file.path: b"".join(read_part(body.output, part, self.blobs.get) for part in file.parts)
            for file in body.output.files
        }


@pytest.fixture(autouse=True)
def _patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is to be short may take as long as a busy machine needs for it."""
    monkeypatch.setattr(trains, "LONG_S", 0.5)


@pytest.fixture
async def bench(tmp_path: Path, pool: RunnerPool) -> AsyncIterator[Bench]:
    async with asyncio.timeout(60), asyncio.TaskGroup() as tasks:
        yield Bench(tmp_path, pool, tasks)


async def test_each_of_a_train_is_told_of_once_with_what_it_printed(bench: Bench) -> None:
    starts = bench.starts("true", "echo out; echo err >&2; exit 3", "true", "no-such-program", "echo end")
    bench.guests.train(Train(starts=starts))
    exits, back = await bench.over(5)
    assert (sorted(exits), back) == ([0, 1, 2, 3, 4], [])
    assert [exits[task].outcome.exit for task in range(5)] == [0, 3, 0, 127, 0]
    assert exits[0].body == exits[2].body == (), "who printed nothing left nothing"
    assert bench.printed(starts[1], exits[1]) == {"stdout": b"out\n", "stderr": b"err\n"}
    assert b"no-such-program" in bench.printed(starts[3], exits[3])["stderr"]
    assert bench.printed(starts[4], exits[4]) == {"stdout": b"end\n", "stderr": b""}
    assert [exits[task].outcome.started for task in range(5)] == sorted(each.outcome.started for each in exits.values())


async def test_no_attempt_of_a_train_has_begun_before_the_one_ahead_of_it(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When one began is reckoned from when it was told of, which may be late."""
    outcome = Outcome(
        exit=0, signal=None, seconds=5.0, max_rss=1, reason="ok", detail=exited(0), stdout=NONE, stderr=NONE
    )

    async def told_at_once(*_: object) -> AsyncIterator[Any]:
        for place in range(3):
            yield [Ended(place, outcome, b"", b"")]

    monkeypatch.setattr(guests, "run_train", told_at_once)
    wall = iter([1000.0, 1000.1, 999.0])
    monkeypatch.setattr(guests.time, "time", lambda: next(wall, 999.0))
    bench.guests.train(Train(starts=bench.starts("true", "true", "true")))
    exits, _ = await bench.over(3)
    assert [exits[task].outcome.started for task in range(3)] == [995_000, 995_100, 995_100]


async def test_what_has_not_begun_behind_a_long_one_is_given_back(bench: Bench) -> None:
    bench.guests.train(Train(starts=bench.starts("true", "read x < fifo; echo long", "true", "true")))
    os.mkfifo(bench.folder / "fifo")
    told = []
    while not any(isinstance(each, TrainExited) and each.back for each in told):
        told.append(await bench.events.get())  # at once, and not when the long one has ended
    (bench.folder / "fifo").write_text("go\n")
    for each in told:
        bench.events.put_nowait(each)
    exits, back = await bench.over(4)
    assert (sorted(exits), sorted(back)) == ([0, 1], [2, 3])
    assert exits[1].outcome.run_ms >= 50


async def test_one_that_is_cancelled_is_told_of_no_more_and_the_rest_is_accounted_for(bench: Bench) -> None:
    starts = bench.starts("true", "echo; sleep 1000", "true", "true")
    bench.guests.train(Train(starts=starts))
    while not isinstance(await bench.events.get(), Started):
        pass
    guest = bench.guests.find(starts[1].lease, ME)
    assert guest is not None
    bench.guests.kill(Kill(lease=starts[1].lease, master=ME, reason="cancelled"))
    await guest.over.wait()
    assert bench.guests.guests() == {}


async def test_all_that_are_cancelled_before_it_departs_never_run(bench: Bench) -> None:
    starts = bench.starts("touch ran", "touch ran")
    bench.guests.train(Train(starts=starts))
    guests = list(bench.guests.guests().values())
    for each in starts:
        bench.guests.kill(Kill(lease=each.lease, master=ME, reason="cancelled"))
    for guest in guests:
        await guest.over.wait()
    assert not (bench.folder / "ran").exists()
    assert bench.events.empty()


async def test_a_folder_that_is_gone_is_each_one_s_failure(bench: Bench) -> None:
    bench.guests.train(Train(starts=bench.starts("true", "true", cwd="/no/such/folder")))
    exits, back = await bench.over(2)
    assert back == []
    assert [exits[task].outcome.exit for task in (0, 1)] == [127, 127]


async def test_trouble_of_this_machine_is_the_first_one_s_and_the_rest_waits_again(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("p2pq.daemon.runners.limits.free_bytes", lambda _: 0)
    bench.guests.train(Train(starts=bench.starts("true", "true", "true")))
    fault, given_back = await bench.events.get(), await bench.events.get()
    assert isinstance(fault, Faulted)
    assert (fault.lease.counter, fault.fault) == (0, "refused")
    assert given_back == TrainExited(exits=(), back=((ME, LeaseId(1, 1)), (ME, LeaseId(1, 2))))


async def test_output_that_cannot_be_kept_counts_as_it_has_run(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_args: object, **_fields: object) -> None:
        raise DiskFullError("the store is full")

    starts = bench.starts("echo a", "true")
    monkeypatch.setattr(bench.blobs, "add", full)
    bench.guests.train(Train(starts=starts))
    fault = await bench.events.get()
    assert isinstance(fault, Faulted)
    assert (fault.lease.counter, fault.fault) == (0, "disk"), "else it would run again and again"


async def test_trouble_after_all_have_been_told_of_is_nobody_s(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    run_train = guests.run_train

    async def fails_at_last(*args: Any) -> AsyncIterator[Any]:
        async for some in run_train(*args):
            yield some
        raise SandboxError("too late")

    monkeypatch.setattr(guests, "run_train", fails_at_last)
    bench.guests.train(Train(starts=bench.starts("true", "true")))
    exits, back = await bench.over(2)
    assert (sorted(exits), back) == ([0, 1], []), "and the node goes on"


async def test_what_has_run_and_cannot_be_kept_does_not_run_again(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran = Outcome(
        exit=0,
        signal=None,
        seconds=0.0,
        max_rss=1,
        reason="ok",
        detail=exited(0),
        stdout=bench.folder,
        stderr=bench.folder,
    )

    async def both_at_once(*_: Any) -> AsyncIterator[Any]:
        yield [Ended(place, ran, b"out", b"") for place in (0, 1)]

    def full(*_: object) -> None:
        raise StorageError("no room for it")

    monkeypatch.setattr(guests, "run_train", both_at_once)
    monkeypatch.setattr(Sealer, "printed", full)
    bench.guests.train(Train(starts=bench.starts("echo out", "echo out", "true")))
    told = [await bench.events.get() for _ in range(3)]
    assert [each.lease.counter for each in told if isinstance(each, Faulted)] == [0, 1]
    [back] = [each.back for each in told if isinstance(each, TrainExited)]
    assert [lease.counter for _, lease in back] == [2], "that has not begun"


def travels(bench: Bench, script: str, kind: str = "shell") -> JobBody:
    """Return a job of a folder with that script and an array of numbers."""
    chunk, ciphertext = seal_chunk(script.encode(), convergent(b"s" * 32))
    bench.blobs.put(chunk.blob, ciphertext)
    tree = Tree(files=(File("main", False, len(script), (Part(0, 0, len(script)),)),), chunks=(chunk,))
    return JobBody(main="main", kind=kind, tree=tree, array=((7, 99, 1),))  # type: ignore[arg-type]


async def test_tasks_of_a_folder_that_leave_nothing_go_together(bench: Bench) -> None:
    starts = bench._starts(travels(bench, "cat .p2pq/params.json; echo $P2PQ_TASK; exit 3"), 3)
    bench.guests.train(Train(starts=starts))
    exits, back = await bench.over(3)
    assert (sorted(exits), back) == ([0, 1, 2], [])
    printed = [bench.printed(starts[task], exits[task])["stdout"] for task in range(3)]
    assert printed == [b'{"array": "%d"}%d\n' % (number, number) for number in (7, 8, 9)]
    assert [each.outcome.exit for each in exits.values()] == [3, 3, 3]


async def test_of_a_job_whose_tasks_leave_something_they_go_one_by_one_from_then_on(bench: Bench) -> None:
    body = travels(bench, "echo $P2PQ_TASK > results/a")
    bench.guests.train(Train(starts=bench._starts(body, 3)))
    exits, back = await bench.over(3)
    assert (sorted(exits), back) == ([0], [1, 2])
    assert exits[0].body
    bench.guests.train(Train(starts=bench._starts(body, 3)[1:]))
    exits, back = await bench.over(2)
    assert sorted([*exits, *back]) == [1, 2]
    assert 1 in exits
    assert list(bench.guests._leaving) == [(ME, JOB)]


async def test_what_is_left_beside_the_results_counts_as_well(bench: Bench) -> None:
    """Else each train would be for one task, and all others be given back each time."""
    bench.guests.train(Train(starts=bench._starts(travels(bench, "touch temporary"), 3)))
    exits, back = await bench.over(3)
    assert (sorted(exits), back) == ([0], [1, 2])
    assert exits[0].body == ()
    assert list(bench.guests._leaving) == [(ME, JOB)]


async def test_where_none_of_a_train_can_begin_they_go_one_by_one(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else they would be given back for ever: on a file system whose dates are of no use no folder can serve several."""

    async def begins_none(*_: object) -> AsyncIterator[Any]:
        for nothing in ():
            yield nothing

    starts = bench._starts(travels(bench, "true"), 2)
    monkeypatch.setattr(guests, "run_train", begins_none)
    bench.guests.train(Train(starts=starts))
    assert (await bench.over(2)) == ({}, [0, 1])
    bench.guests.train(Train(starts=starts))
    exits, back = await bench.over(2)
    assert 0 in exits
    assert sorted([*exits, *back]) == [0, 1]


async def test_the_jobs_whose_tasks_leave_something_are_forgotten_at_last(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(guests, "BODIES_MAX", 1)
    bench.guests._leave((ME, b"a"))
    bench.guests._leave((ME, b"b"))
    assert list(bench.guests._leaving) == [(ME, b"b")]


async def test_one_that_goes_on_alone_tells_how_far_it_is(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guests, "PROGRESS_POLL_S", 0.01)
    script = f"echo 0.5 > results/.progress; read x < {bench.folder}/fifo"
    os.mkfifo(bench.folder / "fifo")
    bench.guests.train(Train(starts=bench._starts(travels(bench, script), 2)))
    told: list[Event] = []
    while not any(isinstance(each, Progressed) for each in told):
        told.append(await bench.events.get())
    (bench.folder / "fifo").write_text("go\n")
    for each in told:
        if not isinstance(each, Progressed):
            bench.events.put_nowait(each)
    exits, back = await bench.over(2)
    assert (sorted(exits), back) == ([0], [1])
    assert (exits[0].outcome.exit, exits[0].body) == (0, ()), "how far it was is no result"


async def test_many_files_and_interpreters_that_import_ahead_are_not_shared(bench: Bench) -> None:
    many = Tree(dirs=tuple(Directory(str(number)) for number in range(FOLLOWED_MAX + 1)))
    shell = travels(bench, "true")
    assert can_follow(shell)
    assert not can_follow(msgspec.structs.replace(shell, tree=many))
    assert not can_follow(travels(bench, "pass", "python"))


async def test_tasks_that_read_something_go_one_by_one_and_each_reads_its_own(bench: Bench) -> None:
    chunk, ciphertext = seal_chunk(b"abc", convergent(b"s" * 32))
    bench.blobs.put(chunk.blob, ciphertext)
    body = CommandsBody(words=("cat",), shell=False, cwd="/", umask=0o22, stdin=Feed((1, 2), (chunk,)))
    starts = bench._starts(body, 2)
    bench.guests.train(Train(starts=starts))
    exits, back = await bench.over(2)
    assert sorted([*exits, *back]) == [0, 1], "a slow machine gives back the second one"
    assert bench.printed(starts[0], exits[0])["stdout"] == b"a"
    if 1 in exits:
        assert bench.printed(starts[1], exits[1])["stdout"] == b"bc"
