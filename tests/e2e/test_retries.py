"""Retries where there is nobody else to try: meshes of one node and of two."""

import time

import lab
import pytest

FLAKY = "import os, sys; sys.exit(os.environ['P2PQ_ATTEMPT'] == '1')"
BROKEN = "import sys; sys.exit(3)"
TASKS = 6
JOB_S = 30


@pytest.fixture(params=["host", "pair"])
def master(request):
    """The node that submits, in a mesh of one and of two."""
    found = request.getfixturevalue(request.param)
    return found if isinstance(found, lab.Host) else found[0]


def test_what_fails_is_tried_again_and_ends(master, tmp_path):
    """On the same node if there is no other, after a pause; and not for ever."""
    for name, main, retries, ends in (("flaky", FLAKY, 1, "done"), ("broken", BROKEN, 2, "failed")):
        folder = lab.make_folder(tmp_path / name, main)
        began = time.monotonic()
        done = master.run("submit", "--array", f"0-{TASKS - 1}", "--retries", str(retries), str(folder), timeout=JOB_S)
        print(f"{name}: {time.monotonic() - began:.1f} s")
        assert done.returncode == (ends == "failed"), done.stderr
        job = master.json("jobs")[0]
        assert (job["state"], job["tasks"][ends]) == (ends, TASKS)
        tasks = master.json("tasks", job["job"])
        shown = [master.json("show", f"{job['job']}.{task['task']}")["history"] for task in tasks]
        # Handed back unstarted as another node idles, or a second attempt that was not needed: attempts, but no retries.
        ran = [sum(attempt["state"] != "lost" for attempt in attempts) for attempts in shown]
        assert ran == [2 if ends == "done" else 1 + retries] * TASKS
        assert {task["exit"] for task in tasks} == {0 if ends == "done" else 3}
