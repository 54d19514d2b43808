"""Tasks as they end, for whoever follows: what they printed, all of it and once, and how they ended."""

import asyncio

import msgspec
import pytest

from p2pq.core import records
from p2pq.core.records import JobEnded, TaskDelivered, TasksCancelled
from p2pq.daemon import ends as module
from p2pq.daemon.commands import Commands
from p2pq.daemon.ends import Ends, runs
from p2pq.daemon.feeding import Uploads
from p2pq.daemon.history import Kept
from p2pq.daemon.logs import CHUNK_BYTES, Logs
from p2pq.daemon.mixing import Told
from p2pq.errors import NotFoundError, RefusedError
from p2pq.model import notice as facts
from p2pq.model.ids import JobId, LeaseId, Wall
from p2pq.model.job import Outcome
from p2pq.model.sources import Source
from p2pq.wire.commandcontrol import Ends as Asked
from p2pq.wire.commandcontrol import SubmitCommands, TaskEnded
from p2pq.wire.control import LogChunk, Note, TaskView
from tests.unit.daemon.jobskit import AUTHOR, id_of

OK = Outcome(reason="ok", exit=0)
FAILED = Outcome(reason="exit", exit=3, run_ms=1500, started=7)


class Nobody:
    def find(self, lease, master):
        return None


class Bench:
    """Ends beside real jobs; the core is played by the test."""

    def __init__(self, rig, group):
        self.rig = rig
        self.group = group
        self.logs = Logs(
            node=AUTHOR.node,
            guests=Nobody(),
            jobs=rig.jobs,
            store=rig.store,
            blobs=rig.blobs,
            scheduler=rig.scheduler,
            tasks=group,
            say=lambda *_: None,
        )
        self.finished: list[JobId] = []

        async def finish(job: JobId) -> None:
            self.finished.append(job)

        self.ends = Ends(
            store=rig.store,
            blobs=rig.blobs,
            jobs=rig.jobs,
            scheduler=rig.scheduler,
            logs=self.logs,
            finish=finish,
        )
        self.said = []
        self.news = asyncio.Event()

    async def job(self, count=1):
        commands = Commands(
            jobs=self.rig.jobs,
            store=self.rig.store,
            blobs=self.rig.blobs,
            uploads=Uploads(self.rig.blobs, AUTHOR.chunk_keys()),
            opened=lambda _job, _body: None,
            post_durable=self.rig.post_durable,
        )
        sources = (Source(tuple(map(str, range(count)))),)
        asked = SubmitCommands(words=("echo",), sources=sources, cwd="/", environment=b"")
        return (await self.rig.ask(commands.submit, asked))[-1]

    async def settle(self, view, task, *, state="done", **fields):
        job = id_of(self.rig, view)
        await self.rig.settle(job, task, state, **fields)
        outcome = fields.get("outcome")
        self.tell(facts.TaskSettled(job=job, task=task, attempt=1, state=state, outcome=outcome, left=True))

    async def deliver(self, view, task):
        job = id_of(self.rig, view)
        await self.rig.write(TaskDelivered(job=job, task=task))
        self.tell(facts.TaskResultsWritten(job=job, task=task))

    async def finish(self, view):
        job = id_of(self.rig, view)
        await self.rig.write(JobEnded(job=job, state="done", wall=Wall(9)))
        self.tell(facts.JobFinished(job=job, state="done"))

    def tell(self, notice):
        self.ends.notice(notice)
        self.rig.jobs.notice(notice)

    async def send(self, reply):
        self.said.append(reply)
        self.news.set()

    def follow(self, view, **fields):
        return self.group.create_task(self.ends.ends(Asked(job=view.job, **fields), self.send))

    async def until(self, count):
        async with asyncio.timeout(10):
            while sum(isinstance(each, TaskEnded) for each in self.said) < count:
                self.news.clear()
                await self.news.wait()


@pytest.fixture
async def bench(rig):
    async with asyncio.TaskGroup() as group:
        yield Bench(rig, group)


def ended(task, **fields):
    plain = {"state": "done", "attempts": 1, "reason": "ok", "node": "worker"}
    return TaskEnded(task=task, **(plain | fields))


async def test_those_that_have_ended_come_first_and_each_once(bench):
    view = await bench.job(3)
    await bench.settle(view, 2, printed="two\n")
    following = bench.follow(view)
    await bench.until(1)
    await bench.settle(view, 0, state="failed", outcome=FAILED)
    bench.tell(facts.TaskSettled(job=id_of(bench.rig, view), task=2, attempt=1, state="done"))  # told late
    await bench.settle(view, 1, printed="one\n")
    await bench.finish(view)
    await following
    assert bench.said == [
        LogChunk(task=2, data=b"two\n"),
        ended(2, printed=(4, 0)),
        ended(0, state="failed", exit=3, reason="exit", started=7, seconds=1.5),
        LogChunk(task=1, data=b"one\n"),
        ended(1, printed=(4, 0)),
    ]


async def test_what_had_ended_before_and_is_run_again_is_told_again(bench):
    view = await bench.job(2)
    await bench.settle(view, 0, state="failed", outcome=FAILED)
    following = bench.follow(view)
    await bench.until(1)
    await bench.settle(view, 0, attempt=2, printed="again")
    await bench.settle(view, 1)
    await bench.finish(view)
    await following
    assert [each.state for each in bench.said if isinstance(each, TaskEnded) and each.task == 0] == ["failed", "done"]
    assert LogChunk(task=0, data=b"again") in bench.said


async def test_a_job_that_is_over_is_told_of_as_well(bench):
    view = await bench.job(2)
    await bench.settle(view, 0, printed="a")
    await bench.settle(view, 1)
    await bench.finish(view)
    await bench.ends.ends(Asked(job=view.job), bench.send)
    assert [each.task for each in bench.said if isinstance(each, TaskEnded)] == [0, 1]


async def test_many_at_once_are_all_told(bench, monkeypatch):
    monkeypatch.setattr(module, "AT_ONCE", 2)
    view = await bench.job(5)
    following = bench.follow(view)
    await asyncio.sleep(0)
    for task in range(5):
        await bench.settle(view, task)
    await bench.finish(view)
    await following
    assert [each.task for each in bench.said] == [0, 1, 2, 3, 4]


async def test_long_output_comes_in_pieces(bench):
    text = "x" * (3 * CHUNK_BYTES + 5)
    view = await bench.job()
    await bench.settle(view, 0, printed=text)
    await bench.finish(view)
    await bench.ends.ends(Asked(job=view.job), bench.send)
    *pieces, last = bench.said
    assert [len(piece.data) for piece in pieces] == [CHUNK_BYTES] * 3 + [5]
    assert b"".join(piece.data for piece in pieces) == text.encode()
    assert last.printed == (len(text), 0)


@pytest.mark.parametrize("text", ["short", "x" * (2 * CHUNK_BYTES)])
async def test_output_that_made_room_for_newer_is_said_to_be_gone(bench, text, monkeypatch):
    view = await bench.job()
    await bench.settle(view, 0, printed=text)
    await bench.finish(view)
    item = bench.rig.store.result(id_of(bench.rig, view), 0)
    bench.rig.blobs.discard([ref.blob for ref in item.blobs])
    await bench.ends.ends(Asked(job=view.job), bench.send)
    [told] = bench.said
    assert (told.state, told.gone) == ("done", "a blob is not here")


async def test_what_a_task_printed_is_held_until_its_followers_have_been_told(bench):
    view = await bench.job(2)
    slow = asyncio.Event()

    async def send(reply):
        await slow.wait()
        await bench.send(reply)

    following = bench.group.create_task(bench.ends.ends(Asked(job=view.job), send))
    await asyncio.sleep(0)
    await bench.settle(view, 0, printed="first")
    await bench.settle(view, 1, printed="x" * (2 * CHUNK_BYTES))
    items = [bench.rig.store.result(id_of(bench.rig, view), task) for task in (0, 1)]
    named = {ref.blob for item in items for ref in (*item.body, *item.blobs)}
    assert named <= set(bench.rig.blobs._pinned)
    slow.set()
    await bench.finish(view)
    await following
    assert not named & set(bench.rig.blobs._pinned)
    assert [each.gone for each in bench.said if isinstance(each, TaskEnded)] == ["", ""]


async def test_who_goes_away_holds_nothing_any_more(bench):
    view = await bench.job()
    following = bench.follow(view, live=True)
    await asyncio.sleep(0)
    await bench.settle(view, 0, printed="first")
    following.cancel()
    await asyncio.wait([following])
    item = bench.rig.store.result(id_of(bench.rig, view), 0)
    assert not {ref.blob for ref in item.blobs} & set(bench.rig.blobs._pinned)


async def test_output_that_is_gone_while_it_is_followed_is_said_to_be(bench, monkeypatch):
    view = await bench.job()
    await bench.settle(view, 0, printed="short")
    await bench.finish(view)
    bench.rig.blobs.discard([ref.blob for ref in bench.rig.store.result(id_of(bench.rig, view), 0).blobs])
    await bench.ends.ends(Asked(job=view.job, live=True), bench.send)
    assert "not here any more" in bench.said[-1].gone


async def test_what_goes_wrong_beside_the_tasks_is_told_once_and_the_end_of_runners_waited_for(bench):
    view = await bench.job()
    following = bench.follow(view)
    job = id_of(bench.rig, view)
    while not bench.ends._followers.get(job):  # noqa: ASYNC110  nobody is told
        await asyncio.sleep(0)
    for text in ("--begin failed: a", "--begin failed: a", "--begin failed: b"):
        bench.ends.said(job, text)
    bench.ends.said(JobId(b"o" * 16), "of another job")
    await bench.settle(view, 0)
    assert not bench.finished
    await bench.finish(view)
    await following
    assert bench.finished == [job]
    assert [each.text for each in bench.said if isinstance(each, Note)] == ["--begin failed: a", "--begin failed: b"]


async def test_no_more_than_a_few_notes_wait_for_who_reads_slowly(bench):
    follower = module._Follower(views=False, written=False)
    for number in range(100):
        follower.note(str(number))
    assert follower.unsaid() == list(map(str, range(module.NOTES_MAX)))
    assert follower.unsaid() == []


async def test_a_task_that_nobody_ran_has_nothing_to_tell(bench):
    view = await bench.job(2)
    following = bench.follow(view)
    await asyncio.sleep(0)
    bench.tell(facts.TaskSettled(job=id_of(bench.rig, view), task=1, attempt=0, state="cancelled"))
    await bench.finish(view)
    await following
    assert bench.said == []


async def test_one_task_is_followed_as_it_prints_and_its_output_is_not_said_twice(bench):
    view = await bench.job()
    following = bench.follow(view, live=True)
    await asyncio.sleep(0)
    await bench.settle(view, 0, printed="hello\n")
    await bench.finish(view)
    await following
    assert bench.said == [LogChunk(task=0, data=b"hello\n"), ended(0, printed=(6, 0))]


async def test_what_was_told_as_it_was_printed_is_not_told_again(bench, monkeypatch):
    view = await bench.job(3)
    stopped = []

    class Heard:
        """Has told of two bytes of task 0, and of task 1 under another lease than the one that brought its result."""

        def __init__(self, _row, **_parts):
            self.seen = set()

        def granted(self, tasks):
            self.seen |= set(tasks)

        async def watch(self):
            await asyncio.Event().wait()

        def close(self):
            stopped.append(self.seen)

        def end(self, task):
            item = bench.rig.store.result(id_of(bench.rig, view), task)
            lease = item.lease if task == 0 else LeaseId(99, 99)
            return None if task == 2 else Told(lease, {"stdout": 2, "stderr": 0})

    monkeypatch.setattr(module, "Mixer", Heard)
    monkeypatch.setattr(module, "LOOKED_AT_MAX", 1)
    following = bench.follow(view, live=True)
    await asyncio.sleep(0)
    for task in range(3):
        bench.tell(granted(id_of(bench.rig, view), task))
        await bench.settle(view, task, printed="hello\n")
    await bench.until(3)
    await bench.finish(view)
    await following
    assert [bytes(each.data) for each in bench.said if isinstance(each, LogChunk)] == [b"llo\n", b"hello\n", b"hello\n"]
    assert stopped == [{0, 1, 2}]


def granted(job, task):
    lease = LeaseId(1, task + 1)
    return facts.TaskGranted(job=job, task=task, attempt=1, lease=lease, worker=AUTHOR.node)


@pytest.mark.parametrize("live", [False, True])
async def test_a_job_that_nobody_takes_says_why(bench, live, monkeypatch):
    monkeypatch.setattr(module, "WAIT_WHY_S", 0.0)
    view = await bench.job()
    following = bench.follow(view, live=live)
    async with asyncio.timeout(10):
        while not bench.said:
            bench.news.clear()
            await bench.news.wait()
    assert bench.said == [Note(text=f"still waiting: {bench.rig.scheduler.reason}")]
    await bench.settle(view, 0)
    await bench.finish(view)
    await following


async def test_who_goes_away_is_forgotten_and_there_are_not_too_many(bench, monkeypatch):
    monkeypatch.setattr(module, "FOLLOWERS_MAX", 1)
    view = await bench.job()
    following = bench.follow(view)
    await asyncio.sleep(0)
    with pytest.raises(RefusedError, match="follow jobs already"):
        await bench.ends.ends(Asked(job=view.job), bench.send)
    following.cancel()
    await asyncio.wait([following])
    assert bench.ends._followers == {}
    with pytest.raises(NotFoundError):
        await bench.ends.ends(Asked(job="nosuchjob"), bench.send)


def shown(bench):
    return [(each.task, each.state, each.exit) for each in bench.said if isinstance(each, TaskView)]


async def test_views_come_once_results_are_written_out_each_once(bench):
    view = await bench.job(4)
    await bench.settle(view, 3, outcome=OK)
    await bench.settle(view, 2, outcome=OK)
    await bench.deliver(view, 2)
    following = bench.follow(view, views=True)
    await asyncio.sleep(0)
    await bench.settle(view, 0, state="failed", outcome=FAILED)
    job = id_of(bench.rig, view)
    await bench.rig.write(records.TaskEnded(job=job, task=1, state="cancelled", detail="cancelled", wall=Wall(7)))
    bench.tell(facts.TaskSettled(job=job, task=1, attempt=0, state="cancelled"))  # there is nothing to write out
    bench.tell(facts.TaskResultsWritten(job=job, task=2))  # told late
    await bench.deliver(view, 0)
    await bench.deliver(view, 3)
    await bench.finish(view)
    await following
    assert shown(bench) == [(2, "done", 0), (1, "cancelled", None), (0, "failed", 3), (3, "done", 0)]
    assert len(bench.said) == 4, "neither output nor TaskEnded"


async def test_what_tasks_printed_is_told_once_their_results_are_written_out(bench):
    view = await bench.job(4)
    await bench.settle(view, 3, outcome=OK)
    await bench.settle(view, 2, outcome=OK)
    await bench.deliver(view, 2)
    following = bench.follow(view, written=True)
    await asyncio.sleep(0)
    await bench.settle(view, 0, state="failed", outcome=FAILED)
    await bench.settle(view, 1, outcome=OK)
    for task in (0, 1, 3):
        await bench.deliver(view, task)
    await bench.finish(view)
    await following
    assert [each.task for each in bench.said if isinstance(each, TaskEnded)] == [2, 0, 1, 3]


async def test_views_of_tasks_that_were_cancelled_with_their_job(bench):
    view = await bench.job(2)
    await bench.settle(view, 1, state="pending", outcome=FAILED)
    following = bench.follow(view, views=True)
    await asyncio.sleep(0)
    await bench.rig.write(TasksCancelled(job=id_of(bench.rig, view), wall=Wall(8)))
    await bench.finish(view)
    await following
    assert shown(bench) == [(1, "cancelled", 3)]


async def test_views_of_what_an_earlier_job_had_done(bench):
    view = await bench.job(3)
    job = id_of(bench.rig, view)
    extra = bench.rig.store.job(job).extra
    bench.rig.store.keep_extra(job, msgspec.structs.replace(extra, kept=(Kept(0, 2, job, 0),)))
    await bench.settle(view, 2, outcome=OK)
    await bench.deliver(view, 2)
    await bench.finish(view)
    await bench.ends.ends(Asked(job=view.job, views=True), bench.send)
    assert shown(bench) == [(0, "done", None), (1, "done", None), (2, "done", 0)]


def test_numbers_that_follow_each_other_are_looked_up_at_once():
    assert runs([]) == []
    assert runs([3, 1, 2, 7, 5, 6, 9]) == [(1, 3), (5, 7), (9, 9)]
    assert runs([4, 4]) == [(4, 4)]
