"""The client for programs without an event loop, against a node that says what the test wants."""

import os
import pickle  # noqa: TID251  what this very program has made
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

import p2pq
from p2pq import Client
from p2pq.client.framing import AnswerError
from p2pq.errors import NodeUnreachableError, UsageError
from p2pq.model.sources import Source
from p2pq.wire import control
from p2pq.wire.commandcontrol import Ends, SubmitCommands
from p2pq.wire.control import Change, Failed, LogChunk, Note
from tests.unit.client.nodekit import HANG, JOB, job_view, task_view


@pytest.fixture
def client(node):
    with Client(node.home, start=False) as found:
        yield found


@pytest.fixture
def job(node, client):
    node.answers[control.Show] = [job_view()]
    return client.job(JOB)


def test_submit_and_follow(node, client, tmp_path):
    node.answers |= {
        control.Submit: [job_view()],
        Ends: [task_view(1, exit=0, results="/r/1"), task_view(0, "failed", exit=3)],
        control.Logs: [LogChunk(task=1, data=b"out")],
        control.Watch: [Change(job=job_view("failed"), ended=True)],
    }
    job = client.submit(tmp_path, ["x"], name="n")
    assert (job.id, job.name, job.results, repr(job)) == (JOB, "mysim", Path("/r"), "<Job abcdefgh mysim>")
    tasks = list(job.as_completed())
    assert [(task.number, task.state, task.exit_code, task.results) for task in tasks] == [
        (1, "done", 0, Path("/r/1")),
        (0, "failed", 3, None),
    ]
    assert (tasks[0].stdout(), tasks[0].stderr(), repr(tasks[0])) == (b"out", b"out", "<Task 1 done>")
    assert job.wait(timeout=10) == "failed"


def test_data_is_there_as_long_as_the_node_needs_it(node, client, tmp_path):
    seen = []

    def submit(request):
        seen.append(pickle.loads(Path(request.data).read_bytes()))
        return [job_view()]

    node.answers[control.Submit] = submit
    client.submit(tmp_path, data={"any": [1]})
    assert seen == [{"any": [1]}]
    assert not Path(node.heard[-1].data).exists()
    with pytest.raises(TypeError, match="pickle"):
        client.submit(tmp_path, data=(x for x in ()))


def test_what_is_asked_of_a_job(node, client, job):
    node.answers |= {
        control.Tasks: [task_view(0)],
        control.CancelJob: [job_view("cancelled")],
        control.Retry: [job_view()],
        control.Why: [Note(text="it runs.")],
        control.Logs: [LogChunk(task=0, data=b"err")],
        control.Jobs: [job_view()],
    }
    node.heard.clear()
    assert [task.state for task in job.tasks()] == ["done"]
    job.cancel()
    job.retry(2)
    assert job.why(1) == "it runs."
    assert job.logs(1, "stderr", attempt=2) == b"err"
    assert [each.id for each in client.jobs()] == [JOB]
    assert (job.state(), job.show().owner) == ("running", "me")
    assert node.heard[1:6] == [
        control.CancelJob(job=JOB),
        control.Retry(job=JOB, task=2),
        control.Why(job=JOB, task=1),
        control.Logs(job=JOB, task=1, stream="stderr", attempt=2),
        control.Jobs(limit=100),
    ]


def test_commands(node, client):
    node.answers[SubmitCommands] = [job_view(results="")]
    job = client.commands(["echo"], [[1, 2]], name="n")
    assert (job.id, job.results) == (JOB, None)
    [asked] = node.heard
    assert (asked.words, asked.sources, asked.name) == (("echo",), (Source(("1", "2")),), "n")


@pytest.mark.parametrize(("stdin", "sizes"), [(b"ab", (2,)), ([b"a", b"", b"b"], (1, 0, 1))])
def test_commands_with_standard_input(node, client, stdin, sizes):
    node.answers[SubmitCommands] = [job_view(results="")]
    client.commands(["cat"], stdin=stdin)
    piece, asked = node.heard
    assert (piece.data, asked.upload, asked.stdin, asked.shell) == (b"ab", piece.upload, sizes, False)


def test_whoever_leaves_the_loop_is_not_followed_any_more(node, job):
    node.answers[Ends] = [task_view(0), HANG]
    for task in job.as_completed():
        assert task.number == 0
        break
    assert node.left.acquire(timeout=10)


@pytest.mark.parametrize("wait", [lambda job: job.wait(), lambda job: list(job.as_completed())])
def test_ctrl_c_leaves_the_client_usable(node, job, wait):
    node.answers |= {control.Watch: [HANG], Ends: [HANG]}

    def press():
        assert node.hanging.acquire(timeout=10)
        signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)

    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    pressing = threading.Thread(target=press)
    pressing.start()
    try:
        with pytest.raises(KeyboardInterrupt):
            wait(job)
    finally:
        pressing.join()
        signal.signal(signal.SIGINT, before)
    assert node.left.acquire(timeout=10)
    assert job.state() == "running"


def test_an_interruption_that_comes_before_anything_begins_cancels_it(node, client, job, monkeypatch):
    """As soon as it is on its way to the other thread, and not only when it is waited for."""
    node.answers[control.Watch] = [HANG]
    loop = client._background._loop
    plain = loop.call_soon_threadsafe

    def interrupted(begin, *args):
        monkeypatch.setattr(loop, "call_soon_threadsafe", plain)
        plain(begin, *args)
        assert node.hanging.acquire(timeout=10)
        raise KeyboardInterrupt

    monkeypatch.setattr(loop, "call_soon_threadsafe", interrupted)
    with pytest.raises(KeyboardInterrupt):
        job.wait()
    assert node.left.acquire(timeout=10)
    assert job.state() == "running"


def test_timeouts(node, job):
    node.answers |= {control.Watch: [HANG], Ends: [HANG]}
    with pytest.raises(TimeoutError, match="it goes on"):
        job.wait(0.05)
    with pytest.raises(TimeoutError, match="it goes on"):
        next(job.as_completed(0.05))
    assert job.state() == "running"


def test_errors_are_those_of_p2pq(node, client, tmp_path):
    node.answers[control.Status] = [Failed(message="no room")]
    with pytest.raises(AnswerError, match="no room"):
        client.status()
    with pytest.raises(NodeUnreachableError, match="no node has run"), Client(tmp_path / "none", start=False):
        pass


def test_a_client_that_is_closed(node, job, client):
    node.answers |= {control.Watch: [HANG], Ends: [task_view(0), HANG]}
    tasks = job.as_completed()
    next(tasks)
    said = []

    def wait():
        with pytest.raises(UsageError, match="closed meanwhile") as caught:
            job.wait()
        said.append(caught.value)

    waiting = threading.Thread(target=wait)
    waiting.start()
    assert node.hanging.acquire(timeout=10)
    assert node.hanging.acquire(timeout=10)
    client.close()
    waiting.join()
    assert len(said) == 1
    client.close()
    with pytest.raises(UsageError, match="is closed; make another one"):
        job.state()
    tasks.close()


def test_a_client_is_not_used_by_forked_processes(client, monkeypatch):
    process = os.getpid()
    monkeypatch.setattr(os, "getpid", lambda: process + 1)
    with pytest.raises(UsageError, match="belongs to another process; make another one"):
        client.jobs()


def test_a_program_that_closes_nothing_ends_all_the_same(node):
    node.answers |= {control.Show: [job_view()], Ends: [task_view(0), HANG]}
    program = f"import p2pq; tasks = p2pq.Client({str(node.home)!r}).job('abcd').as_completed(); print(next(tasks))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert (done.stdout, done.stderr) == ("<Task 0 done>\n", "")


def test_the_api_is_loaded_when_it_is_asked_for():
    program = (
        "import sys, p2pq; print('asyncio' in sys.modules, 'msgspec' in sys.modules); print(p2pq.AsyncJob, p2pq.Task)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.splitlines() == [
        "False False",
        "<class 'p2pq.client.asynchronous.AsyncJob'> <class 'p2pq.client.blocking.Task'>",
    ]
    with pytest.raises(AttributeError, match="nothing"):
        _ = p2pq.nothing
