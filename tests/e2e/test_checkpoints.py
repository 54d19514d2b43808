"""A task that is told to end goes on elsewhere from where it was."""

import shutil
import time

import lab
import pytest

COUNT = 24


@pytest.fixture
def job(pair, tmp_path):
    """Run the example on bob, alice's own slots being taken; return its id and folder once it has begun to count."""
    alice, _ = pair
    folder = tmp_path / "count"
    shutil.copytree(lab.ROOT / "examples" / "checkpoint", folder)
    blocker = tmp_path / "block"
    blocker.mkdir()
    (blocker / "main.py").write_text("import time\ntime.sleep(600)\n")
    cpus = alice.json("status")["slots"]
    for host in pair:
        lab.until(lambda host=host: host.json("status")["sandbox"] != "unknown", "the sandbox is tested")
    blocking = alice.submit("--cpus", str(cpus), "--where", "alice", str(blocker))
    lab.until(lambda: alice.json("show", blocking)["state"] == "running", "alice is busy")
    counting = alice.submit(str(folder), "--", "--to", str(COUNT))
    lab.until(lambda: _task(alice, counting)["progress"], "it counts")
    assert _task(alice, counting)["node"] == "bob"
    return counting, blocking, folder


def _task(host, job):
    return host.json("tasks", job)[0]


def _went_on(alice, job, folder):
    lab.until(lambda: alice.json("show", job)["state"] == "done", "it is done")
    assert (folder / "results" / "count.txt").read_text() == f"{COUNT}\n"
    assert not (folder / "results" / ".checkpoint").exists()
    said = alice.ok("logs", job).splitlines()
    begun = int(said[0].removeprefix("beginning at "))
    assert 0 < begun < COUNT
    assert said[-1] == f"counted to {COUNT}"
    assert _task(alice, job)["node"] == "alice"


def test_a_task_goes_on_elsewhere_when_its_machine_stops(pair, job):
    alice, bob = pair
    counting, blocking, folder = job
    before = time.monotonic()
    assert bob.stop() == 0
    assert time.monotonic() - before < 10
    lab.until(lambda: _task(alice, counting)["state"] == "pending", "bob has handed it back")
    alice.ok("cancel", blocking)
    lab.until(lambda: _task(alice, counting)["state"] == "running", "it goes on")
    assert "from the checkpoint of attempt 1" in alice.ok("why", f"{counting}.0")
    _went_on(alice, counting, folder)


def test_a_checkpoint_outlives_its_master(pair, job):
    alice, bob = pair
    counting, blocking, folder = job
    assert bob.stop() == 0
    alice.kill()
    alice.start("--name", "alice")
    alice.ok("cancel", blocking)
    _went_on(alice, counting, folder)
