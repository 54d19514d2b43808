"""Whose time it is."""

import os
import subprocess
import sys
from pathlib import Path

from p2pq.daemon.sensors.kin import Kin
from tests.unit.daemon.sensors.prockit import FakeProc

SELF = os.getpid()


class Looks:
    """Kin on a /proc of its own, and its ticks."""

    def __init__(self, tmp_path: Path) -> None:
        self.fake = FakeProc(tmp_path)
        self.ours: list[int] = [100]
        self.ticks = 50
        self.fake.process(SELF, own=1000)
        self.fake.process(100, own=70)
        self.kin = Kin(lambda: self.ours, str(tmp_path), lambda: self.ticks)
        self.kin.look()

    def spent(self) -> int:
        """Return what was taken since the last look, a hundred ticks ago."""
        before = self.kin.spent
        self.ticks += 100
        self.kin.look()
        return self.kin.spent - before


def test_what_was_taken_before_the_first_look_does_not_count(tmp_path: Path) -> None:
    looks = Looks(tmp_path)
    assert looks.kin.spent == 0
    assert sorted(looks.kin.pids) == sorted([100, SELF])
    looks.fake.process(100, own=90)
    assert looks.spent() == 20


def test_children_count_and_still_do_when_their_parents_have_ended(tmp_path: Path) -> None:
    looks = Looks(tmp_path)
    looks.fake.process(100, own=70, children="101")
    looks.fake.process(101, started=60, own=5, children="102")
    looks.fake.process(102, started=60, own=5)
    assert looks.spent() == 10
    looks.fake.gone(101)
    looks.fake.process(100, own=70, reaped=5)  # 102 is init's child now
    looks.fake.process(102, started=60, own=45)
    assert looks.spent() == 40


def test_what_came_and_went_between_two_looks_counts_once(tmp_path: Path) -> None:
    looks = Looks(tmp_path)
    looks.fake.process(100, own=70, children="101")
    looks.fake.process(101, started=60, own=30)
    assert looks.spent() == 30
    looks.fake.gone(101)
    looks.fake.process(100, own=71, reaped=45)  # 15 more of 101, or of others that nobody saw
    assert looks.spent() == 16


def test_a_child_whom_nobody_waited_for_takes_nothing_back(tmp_path: Path) -> None:
    looks = Looks(tmp_path)
    looks.fake.process(100, own=70, children="101")
    looks.fake.process(101, started=60, own=30)
    assert looks.spent() == 30
    looks.fake.gone(101)
    looks.fake.process(100, own=75)
    assert looks.spent() == 5


def test_a_process_that_is_named_late_counts_from_then_on(tmp_path: Path) -> None:
    looks = Looks(tmp_path)
    looks.fake.process(300, started=7, own=500)
    looks.ours.append(300)
    assert looks.spent() == 0
    looks.fake.process(300, started=7, own=512)
    assert looks.spent() == 12


def test_an_id_that_another_process_got_is_not_ours_any_more(tmp_path: Path) -> None:
    looks = Looks(tmp_path)
    looks.ours.clear()
    looks.fake.process(100, started=140, own=10)
    assert looks.spent() == 0
    assert list(looks.kin.pids) == [SELF]


def test_a_process_that_is_gone_when_it_is_named_does_no_harm(tmp_path: Path) -> None:
    looks = Looks(tmp_path)
    looks.ours.append(4711)
    assert looks.spent() == 0
    (looks.fake.proc / "4711").mkdir()
    (looks.fake.proc / "4711" / "stat").write_text("")
    assert looks.spent() == 0


def test_processes_of_a_child_of_this_one_are_ours() -> None:
    kin = Kin(lambda: ())
    code = "import subprocess, sys; p = subprocess.Popen(['cat']); print(p.pid, flush=True); p.wait()"
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout is not None
        grandchild = int(child.stdout.readline())
        kin.look()
        assert {os.getpid(), child.pid, grandchild} <= set(kin.pids)
        child.communicate()
