"""A machine on which everything fails, and a job that fails everywhere: whose fault it is, and what it costs."""

import time
from pathlib import Path

from p2pq.wire import control
from tests.netns.lan import Host

TASKS = 300
BAD = "bert"
SHARE_MAX = 0.05
"""Of all attempts, how many may fail at the bad machine; a job of 10,000 tasks is held to 0.01 in the simulations."""
BROKEN_S = 30.0

PICKY = f"""#!/bin/sh
# Fails at once on the bad machine, as with a broken interpreter; takes a moment elsewhere.
test "$P2PQ_NODE" = {BAD} && exit 1
sleep 0.05
echo "$P2PQ_TASK" > "$P2PQ_RESULTS/task.txt"
"""
BROKEN = "#!/bin/sh\nexit 7\n"


def script(folder: Path, text: str) -> Path:
    folder.mkdir()
    (folder / "main.sh").write_text(text)
    return folder


def failures(host: Host) -> int:
    """Return how many attempts failed without deciding their task, so far."""
    [status] = host.ask(control.Status(), control.StatusView)
    return status.counters.get("attempt.failed", 0)


def test_a_black_hole_fails_no_task_and_a_broken_job_blackens_nobody(trio: list[Host], tmp_path: Path) -> None:
    anna = trio[0]
    picky = script(tmp_path / "picky", PICKY)
    anna.ok("submit", "--array", f"0-{TASKS - 1}", str(picky))
    [job] = anna.json("jobs")
    assert (job["state"], job["tasks"]["done"], job["tasks"]["failed"]) == ("done", TASKS, 0)
    results = {path.name: (path / "task.txt").read_text() for path in (picky / "results").iterdir()}
    assert results == {f"{task}": f"{task}\n" for task in range(TASKS)}
    assert BAD not in {task.node for task in anna.tasks(job["job"])}
    lost = failures(anna)
    print(f"a black hole among three took {lost} of {job['attempts']} attempts")
    assert job["attempts"] >= TASKS + lost  # and leases that were asked back before they began
    assert lost <= SHARE_MAX * job["attempts"]

    broken = script(tmp_path / "broken", BROKEN)
    began = time.monotonic()
    done = anna.run("submit", "--array", "0-19", str(broken))
    seconds = time.monotonic() - began
    assert done.returncode == 1, done.stderr
    [job, _] = anna.json("jobs")
    print(f"a broken job of 20 tasks failed in {seconds:.1f} s, by {job['attempts']} attempts")
    assert (job["state"], job["tasks"]["failed"]) == ("failed", 20)
    assert job["attempts"] <= 2 * 20
    assert seconds < BROKEN_S

    again = script(tmp_path / "again", "#!/bin/sh\nsleep 0.3\n")
    anna.ok("submit", "--array", "0-29", str(again))
    nodes = {task.node for task in anna.tasks(anna.json("jobs")[0]["job"])}
    assert nodes == {host.name for host in trio}, "everybody works for the next job"
