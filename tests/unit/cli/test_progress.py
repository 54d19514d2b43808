"""The bar of submit and wait, and what is said without one."""

import io
import signal
import sys
import time

import pytest

from p2pq.cli.progress import Progress, WaitOver
from p2pq.wire.control import Change, Counts, JobView, TaskView


class Terminal(io.StringIO):
    def isatty(self):
        return True


def change(*, done=0, failed=0, running=0, progress=0.0, running_s=0.0, task=None):
    counts = Counts(total=4, done=done, failed=failed, running=running, pending=4 - done - failed - running)
    job = JobView(
        job="abcdefghij",
        name="sim\x1b[2J",
        owner="a",
        state="running",
        tasks=counts,
        attempts=1,
        submitted="",
        results="",
    )
    return Change(job=job, task=task, progress=progress, running_s=running_s)


def test_a_bar_tells_counts_and_the_time_left(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "100")
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    with Progress(quiet=False) as progress:
        progress.show(change(running=1, progress=0.25, running_s=60))
        progress.show(change(done=2, failed=1, running=1, progress=0.75, running_s=60))
        progress.say("a sentence\x1b")
        progress._bar.refresh()
    shown = terminal.getvalue()
    assert "3/4, 1 running, 1 failed" in shown
    assert "20 s left" in shown
    assert "p2pq: a sentence\ufffd" in shown
    assert "sim\ufffd[2J" in shown


@pytest.mark.parametrize("quiet", [True, False])
def test_without_a_bar_only_failures_are_said(capsys, quiet):
    with Progress(quiet=quiet) as progress:
        progress.show(change(done=1))
        for fields, said in (
            ({"exit": 3, "reason": "exit", "node": "bob"}, "task 7 failed on bob: exit 3"),
            ({"signal": 9, "reason": "signal"}, "task 7 failed: signal 9"),
            ({"signal": 9, "reason": "memory-limit"}, "task 7 failed: memory-limit"),
        ):
            progress.show(change(failed=1, task=TaskView(task=7, state="failed", **fields)))
            assert capsys.readouterr().err == f"p2pq: {said}; see `p2pq logs abcdefgh.7 --stderr`\n"
        progress.show(change(done=1, task=TaskView(task=7, state="done")))
    assert capsys.readouterr().err == ""


def test_waiting_ends_after_the_time_given():
    before = signal.getsignal(signal.SIGALRM)
    begun = time.monotonic()
    with pytest.raises(WaitOver), Progress(quiet=True, timeout_s=0.05):
        time.sleep(5)
    assert time.monotonic() - begun < 4
    assert signal.getsignal(signal.SIGALRM) is before
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)
