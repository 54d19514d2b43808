"""The Python API on a real node, as programs use it."""

import asyncio
import contextlib
import io
import os
import re
from pathlib import Path

import lab
import pytest

from p2pq import AsyncClient, Client
from p2pq.client.framing import AnswerError

pytestmark = pytest.mark.slow

MAIN = """
import os, pathlib, sys
rate = sys.argv[sys.argv.index("--rate") + 1] if "--rate" in sys.argv else os.environ["P2PQ_TASK"]
print("rate", rate)
pathlib.Path("results/rate").write_text(rate)
if rate == "2":
    sys.exit("two is bad")
"""
SLEEPS = "import time\nprint('begun', flush=True)\ntime.sleep(600)\n"
PAGE = lab.ROOT / "docs" / "python.md"
IN_TIME_S = 60.0


@pytest.fixture
def mine(usual, tmp_path):
    """Make a folder to submit, for the node that is the usual one of this process."""
    return lab.make_folder(tmp_path / "mysim", MAIN)


def test_a_sweep_comes_back_as_paths_that_exist(mine):
    with Client() as client:
        job = client.submit("mysim/", ["--rate", "{rate}"], sweep={"rate": [1, 2, 3]}, retries=0)
        tasks = {}
        for task in job.as_completed(IN_TIME_S):
            assert (task.results / "rate").read_text() == task.params["rate"], "results are there when the task is"
            tasks[task.params["rate"]] = task
        assert {rate: task.exit_code for rate, task in tasks.items()} == {"1": 0, "2": 1, "3": 0}
        assert (tasks["2"].state, tasks["2"].stdout(), tasks["2"].stderr()) == ("failed", b"rate 2\n", b"two is bad\n")
        assert tasks["3"].results == job.results / str(tasks["3"].number)
        assert job.wait(IN_TIME_S) == job.state() == "failed"
    with Client(start=False) as again:
        found = again.job(job.id[:8])
        assert {task.number for task in found.as_completed(IN_TIME_S)} == {0, 1, 2}
        assert [task.state for task in found.tasks()] == ["done", "failed", "done"]
        assert found.id in {each.id for each in again.jobs()}
        (mine / "main.py").write_text(MAIN.replace('"2"', '"4"'))
        resumed = again.submit("mysim/", ["--rate", "{rate}"], sweep={"rate": [1, 2, 3]}, keep_done=True)
        done = {task.number: task for task in resumed.as_completed(IN_TIME_S)}
        assert sorted(done) == [0, 1, 2], "those that were kept, too"
        assert all((task.results / "rate").exists() for task in done.values())


def test_what_is_cancelled_ends(mine):
    (mine / "main.py").write_text(SLEEPS)
    with Client() as client:
        job = client.submit(mine, array=range(40))
        lab.until(lambda: any(task.state == "running" for task in job.tasks()), "a task runs")
        with pytest.raises(TimeoutError, match="it goes on"):
            job.wait(0.01)
        job.cancel(39)
        first = next(job.as_completed(IN_TIME_S))
        assert (first.number, first.state, first.results) == (39, "cancelled", None)
        job.cancel()
        assert job.wait(IN_TIME_S) == "cancelled"
        ended = [task.number for task in job.as_completed()]
        assert 39 in ended
        assert {task.state for task in job.tasks()} == {"cancelled"}
        with pytest.raises(AnswerError, match="no task 77"):
            job.cancel(77)


def test_two_jobs_side_by_side(mine):
    async def both():
        async with AsyncClient() as client:
            jobs = [await client.submit(mine, results=f"out{each}", array=range(each, each + 3)) for each in (10, 20)]
            numbers = [[], []]

            async def follow(job, into):
                async for task in job.as_completed(IN_TIME_S):
                    assert (task.results / "rate").read_text() == str(task.number)
                    into.append(task.number)
                    assert await task.stdout() == f"rate {task.number}\n".encode()

            async with asyncio.TaskGroup() as group:
                for job, into in zip(jobs, numbers, strict=True):
                    group.create_task(follow(job, into))
            return [sorted(each) for each in numbers], [await job.state() for job in jobs]

    assert asyncio.run(both()) == ([[10, 11, 12], [20, 21, 22]], ["done", "done"])


def test_commands_of_this_machine(mine):
    with Client() as client:
        job = client.commands(["echo {1}-{2}; pwd"], [["a", "b"], [1]])
        said = {task.number: task.stdout().decode().split() for task in job.as_completed(IN_TIME_S)}
        assert said == {0: ["a-1", str(Path.cwd())], 1: ["b-1", str(Path.cwd())]}
        assert [task.results for task in job.tasks()] == [None, None]
        [task] = client.commands(["sh", "-c", "echo $0 >&2; exit 3", "{}"], retries=0).as_completed(IN_TIME_S)
        assert (task.exit_code, task.stderr()) == (3, b"{}\n")


def test_a_node_is_started_where_none_runs(home, tmp_path, monkeypatch):
    monkeypatch.setenv("P2PQ_ALLOW_ROOT", "1")
    for name, value in {"P2PQ_NODE_LISTEN": "127.0.0.1:0", "P2PQ_NODE_MDNS": "false"}.items():
        monkeypatch.setenv(name, value)
    with Client(home.home) as client:
        status = client.status()
        assert Path(status.home) == home.home
        assert status.pid != os.getpid()
    assert home.json("status")["pid"] == status.pid, "it outlives the client"


def test_an_object_travels_with_the_job(mine):
    (mine / "main.py").write_text(
        "import sys\nsys.path.append(" + repr(str(lab.ROOT)) + ")\nfrom p2pq.job import data\nprint(data()['any'])\n"
    )
    with Client() as client:
        job = client.submit("mysim/", data={"any": [1, 2]}, where="local", sandbox="none", retries=0)
        [task] = job.as_completed(IN_TIME_S)
        assert (task.exit_code, task.stdout()) == (0, b"[1, 2]\n"), task.stderr()


EXAMPLES = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL)
SAID = [
    r"(\{'rate': '\d'\} [01] \S+/mysim/results/\d\n){3}",
    r"failed\n2 exit two is bad\n\n",
    r"\['done', 'failed'\]\n",
    r"21065\.8331\d+\n(1\.0\n|1\.41\d+\n|1\.73\d+\n){3}",
    r"49\.5\n",
    r"\[0, 1, 4, 9, 16\]\n",
]


@pytest.mark.parametrize(("example", "said"), list(zip(EXAMPLES, SAID, strict=True)))
def test_the_examples_of_the_documentation_run(mine, example, said):
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(example, str(PAGE), "exec"), {})
    assert re.fullmatch(said, printed.getvalue()), printed.getvalue()
