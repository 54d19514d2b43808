"""What others compute on a machine sends guests away; what they compute themselves does not.

Of all that runs on this machine: the suite runs this test alone.
"""

import os
import subprocess
import sys
import time
from pathlib import Path

import lab
import owners
import psutil
import pytest

from tests import keypress
from tests.desktopkit import x_server

SQUARES = """\
import os, signal, sys
from pathlib import Path

# Adds up squares, for ever at first; an attempt that goes on from a checkpoint adds so many, and ends.
results = Path(os.environ["P2PQ_RESULTS"])
saved = results / ".checkpoint" / "sum"
told = []
signal.signal(signal.SIGUSR1, lambda *_: told.append(True))
number, total = map(int, saved.read_text().split()) if saved.exists() else (0, 0)
begun, last = number, number + 100_000 if saved.exists() else None
print("begun", flush=True)
while number != last:
    total += number * number
    number += 1
    if told:
        saved.parent.mkdir(exist_ok=True)
        saved.write_text(f"{number} {total}")
        sys.exit(1)
(results / "sum").write_text(f"{begun} {number} {total}")
"""
TICKS_A_SECOND = os.sysconf("SC_CLK_TCK")


def pin(host, core):
    """Let a node and all that it starts from now on use one core."""
    for thread in Path(f"/proc/{host.process.pid}/task").iterdir():
        os.sched_setaffinity(int(thread.name), {core})


def busy_s(core):
    """Return for how long a core has computed, whatever it was."""
    [line] = [line for line in Path("/proc/stat").read_text().splitlines() if line.startswith(f"cpu{core} ")]
    fields = [int(field) for field in line.split()[1:]]
    return sum(fields[each] for each in (0, 1, 2, 5, 6)) / TICKS_A_SECOND


def taken_s(*processes):
    """Return the processor time of these."""
    return sum(sum(each.cpu_times()[:2]) for each in processes)


@pytest.mark.desktop
@pytest.mark.slow
def test_load_of_others_sends_guests_elsewhere_with_their_checkpoint_and_their_own_does_not(tested, tmp_path):
    alice, bob = tested
    core = max(os.sched_getaffinity(0))
    short = {"load_max": "0.8", "load_pause": "0.8", "load_pause_s": "1", "evict_s": "1"}
    with x_server(tmp_path, "640x400", "-s", "0") as server:
        idle = keypress.policy(server, load_probe="", checkpoint_signal="USR1", grace_s="120", **short)
        owners.again(bob, idle.environ, **idle.policy)
        pin(bob, core)
        lab.until(lambda: owners.linked(alice), "bob is back")
        blocking = owners.blocked(alice, tmp_path)
        folder = lab.make_folder(tmp_path / "squares", SQUARES)
        job = alice.submit("--cold", str(folder))
        lab.until(lambda: "begun" in alice.run("logs", job).stdout, "it runs on bob")

        # As much of the core as is there, for three times as long as the node measures: that is no reason to leave.
        [guest] = keypress.running(bob, 1)
        ours = (guest, psutil.Process(bob.process.pid))
        known, began = len(bob.whole_log()), time.monotonic()
        busy, taken, computed = busy_s(core), taken_s(*ours), taken_s(guest)
        lab.until(lambda: taken_s(guest) - computed > 6, "it computes", 60)
        busy, taken = busy_s(core) - busy, taken_s(*ours) - taken
        foreign = (busy - taken) / (time.monotonic() - began)
        assert "other programs" not in bob.whole_log()[known:] or foreign > 0.2, "its own load counts"

        # What others compute is one.
        with subprocess.Popen([sys.executable, "-c", "while True: pass"]) as other:
            try:
                os.sched_setaffinity(other.pid, {core})
                lab.until(lambda: owners.task(alice, job)["state"] == "pending", "bob has handed it back", 120)
                assert "other programs keep this machine busy" in bob.json("status")["policy"]["reason"]
                said = "sent a task back: evicted: it was told to end (other programs keep this machine busy"
                assert said in alice.ok("why", job)
                alice.ok("cancel", blocking)
                lab.until(lambda: alice.json("show", job)["state"] == "done", "it is done elsewhere", 60)
            finally:
                other.kill()
        assert owners.task(alice, job)["node"] == "alice"
        begun, number, total = map(int, (folder / "results" / "sum").read_text().split())
        assert 0 < begun < number
        assert total == (number - 1) * number * (2 * number - 1) // 6
