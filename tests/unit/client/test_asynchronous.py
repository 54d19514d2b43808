"""The asynchronous client, against a node that says what the test wants."""

import asyncio
from pathlib import Path

import pytest

from p2pq.client import asynchronous, finding
from p2pq.client.asynchronous import AsyncClient
from p2pq.client.framing import AnswerError
from p2pq.errors import NodeUnreachableError, RefusedError, RemoteProtocolError, UsageError
from p2pq.wire import control
from p2pq.wire.commandcontrol import Ends
from p2pq.wire.control import Change, Failed, LogChunk, Note
from tests.unit.client.nodekit import GONE, HANG, JOB, job_view, task_view

IN_TIME_S = 0.05
"""A timeout that is meant to be reached."""


@pytest.fixture
async def client(node):
    async with AsyncClient(node.home, start=False) as found:
        yield found


@pytest.fixture
async def job(node, client):
    node.answers[control.Show] = [job_view()]
    found = await client.job(JOB[:4])
    node.heard.clear()
    return found


async def heard_hanging(node):
    assert await asyncio.to_thread(node.hanging.acquire, timeout=10)


async def test_submit(node, client, tmp_path, caplog):
    caplog.set_level("INFO")
    node.answers[control.Submit] = [Note(text="the earlier results are elsewhere"), job_view()]
    job = await client.submit(tmp_path, ["--rate", "{rate}"], sweep={"rate": [1, 2]}, cpus=2)
    assert (job.id, job.name, job.results) == (JOB, "mysim", Path("/r"))
    [asked] = node.heard
    assert (asked.folder, asked.args, asked.sweep) == (str(tmp_path), ("--rate", "{rate}"), ("rate=1,2",))
    assert asked.resources.cpus == 2
    assert "the earlier results are elsewhere" in caplog.text
    with pytest.raises(TypeError, match="no option 'cpu'"):
        await client.submit(tmp_path, cpu=2)


async def test_tasks_as_they_end(node, job):
    views = [
        task_view(1, exit=0, params={"rate": "2"}, results="/r/1"),
        Note(text="x"),
        task_view(0, "failed", signal=9),
    ]
    node.answers[Ends] = views
    first, second = [task async for task in job.as_completed()]
    assert (first.number, first.state, first.exit_code, first.params) == (1, "done", 0, {"rate": "2"})
    assert (first.results, first.signal) == (Path("/r/1"), None)
    assert (second.number, second.state, second.signal, second.results) == (0, "failed", 9, None)
    assert node.heard == [Ends(job=JOB, views=True)]


async def test_other_requests_go_on_while_a_job_is_followed(node, client, job):
    node.answers[Ends] = [task_view(0), HANG]
    node.answers[control.Logs] = [LogChunk(task=0, data=b"a\n"), LogChunk(task=0, data=b"b\n")]
    tasks = job.as_completed()
    task = await anext(tasks)
    assert (await task.stdout(), await task.stderr()) == (b"a\nb\n", b"a\nb\n")
    assert node.heard[1:] == [control.Logs(job=JOB, task=0), control.Logs(job=JOB, task=0, stream="stderr")]
    await tasks.aclose()
    assert await asyncio.to_thread(node.left.acquire, timeout=10), "the node is told that nobody listens any more"


async def test_wait(node, job):
    node.answers[control.Watch] = [Change(job=job_view()), Change(job=job_view("failed"), ended=True)]
    assert await job.wait() == "failed"
    node.answers[control.Watch] = []
    assert await job.wait() == "running", "as the node has it"


async def test_timeouts_leave_the_job_and_the_client_as_they_were(node, client, job):
    node.answers[control.Watch] = [Change(job=job_view()), HANG]
    with pytest.raises(TimeoutError, match=r"the job has not ended after 0\.05 s; it goes on"):
        await job.wait(IN_TIME_S)
    node.answers[Ends] = [task_view(0), HANG]
    with pytest.raises(TimeoutError, match="it goes on"):
        assert [task.number async for task in job.as_completed(IN_TIME_S)] == [0]
    assert await job.state() == "running"


async def test_a_free_connection_is_used_again(node, client, job):
    greeted = node.greeted
    assert [await job.state() for _ in range(3)] == ["running"] * 3
    node.answers[control.Watch] = [HANG]
    async with asyncio.TaskGroup() as group:
        waiting = group.create_task(job.wait())
        await heard_hanging(node)
        assert node.greeted == greeted
        assert await job.state() == "running", "while the one before is taken"
        assert node.greeted == greeted + 1
        waiting.cancel()
    node.answers[control.Why] = [Failed(message="no")]
    with pytest.raises(AnswerError):
        await job.why()
    assert await job.state() == "running"
    assert node.greeted == greeted + 1, "a refusal is an answer, too"


async def test_a_connection_that_broke_meanwhile_is_not_used_again(node, client, job):
    greeted = node.greeted
    client._kept._reader.feed_eof()
    assert await job.state() == "running"
    assert node.greeted == greeted + 1


async def test_a_free_connection_is_let_go_of_after_a_moment(node, client, job, monkeypatch):
    monkeypatch.setattr(asynchronous, "KEPT_S", 0.0)
    greeted = node.greeted
    assert await job.state() == "running"
    while client._kept is not None:  # noqa: ASYNC110  there is nobody to tell
        await asyncio.sleep(0)
    assert await job.state() == "running"
    assert node.greeted == greeted + 1


async def test_cancelled_waits_leave_nothing_behind(node, client, job):
    node.answers[control.Watch] = [HANG]
    async with asyncio.TaskGroup() as group:
        waiting = group.create_task(job.wait())
        await heard_hanging(node)
        waiting.cancel()
    assert await asyncio.to_thread(node.left.acquire, timeout=10)
    assert await job.state() == "running"


async def test_what_is_asked_of_a_job(node, client, job):
    node.answers |= {
        control.Tasks: [task_view(0), task_view(1, "pending")],
        control.CancelJob: [job_view("cancelled")],
        control.Retry: [job_view()],
        control.Why: [Note(text="no machine is free.", suggestion="Wait.")],
        control.Jobs: [job_view(), job_view("done")],
    }
    assert [(task.number, task.state) for task in await job.tasks()] == [(0, "done"), (1, "pending")]
    assert repr((await job.tasks())[1]) == "<AsyncTask 1 pending>"
    await job.cancel(3)
    await job.retry(cancelled=True)
    assert await job.why() == "no machine is free. Wait."
    assert [each.id for each in await client.jobs(2)] == [JOB, JOB]
    assert node.heard[2:] == [
        control.CancelJob(job=JOB, task=3),
        control.Retry(job=JOB, cancelled=True),
        control.Why(job=JOB),
        control.Jobs(limit=2),
    ]
    assert repr(job) == "<AsyncJob abcdefgh mysim>"


@pytest.mark.parametrize(
    ("answer", "kind", "words"),
    [
        ([Failed(message="there is no job 'abcd'")], AnswerError, "there is no job 'abcd'"),
        ([GONE], NodeUnreachableError, "went away"),
        ([], RemoteProtocolError, "without JobView"),
    ],
)
async def test_what_goes_wrong_is_a_sentence(node, client, answer, kind, words):
    node.answers[control.Show] = answer
    with pytest.raises(kind, match=words):
        await client.job("abcd")


async def test_what_is_no_request_is_said_here(node, client):
    with pytest.raises(UsageError, match="the job's id is empty"):
        await client.job("")
    assert node.heard == []


async def test_a_node_that_refuses_or_makes_no_sense(node, client):
    node.greeting = Failed(message="wrong token")
    with pytest.raises(RefusedError, match="wrong token"):
        await client.status()
    node.greeting = Note(text="x")
    with pytest.raises(RemoteProtocolError, match="did not greet back"):
        await client.status()


async def test_a_node_that_is_gone(node, client):
    (node.home / "node.sock").unlink()
    with pytest.raises(NodeUnreachableError, match="start one with `p2pq start`"):
        await client.jobs()


async def test_no_node_and_none_wanted(tmp_path, monkeypatch):
    monkeypatch.setenv("P2PQ_ALLOW_ROOT", "1")
    with pytest.raises(NodeUnreachableError, match="no node has run"):
        async with AsyncClient(tmp_path, start=False):
            pass


async def test_a_node_is_found_once_and_started_if_wanted(node, monkeypatch):
    found = []
    connect = finding.connect
    monkeypatch.setattr(finding, "connect", lambda home, **how: found.append(how["start"]) or connect(home, **how))
    client = AsyncClient(node.home)
    async with asyncio.TaskGroup() as group:
        for _ in range(asynchronous.CALLS_MAX + 2):
            group.create_task(client.jobs())
    assert found == [True]
    assert len(node.heard) == asynchronous.CALLS_MAX + 2
    await client.close()
    with pytest.raises(UsageError, match="closed"):
        await client.jobs()


async def test_the_usual_home(node, monkeypatch):
    monkeypatch.setenv("P2PQ_HOME", str(node.home))
    async with AsyncClient(start=False) as client:
        assert await client.jobs() == []


async def test_jobs_that_are_followed_have_a_limit(node, client, job, monkeypatch):
    monkeypatch.setattr(asynchronous, "FOLLOWED_MAX", 1)
    node.answers[Ends] = [task_view(0), HANG]
    tasks = job.as_completed()
    await anext(tasks)
    with pytest.raises(UsageError, match="follows 1 jobs already"):
        await job.wait()
    await tasks.aclose()
    assert await job.wait() == "running"
