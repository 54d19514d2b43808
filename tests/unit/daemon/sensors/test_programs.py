"""Programs by name, of a /proc of their own and of this machine's."""

import os
import shutil
import subprocess
from pathlib import Path

from p2pq.daemon.sensors.kin import Kin
from p2pq.daemon.sensors.programs import PERIOD_S, Programs
from tests.unit.daemon.sensors.prockit import FakeProc


def test_programs_are_found_by_name_but_ours_and_what_has_ended(tmp_path: Path) -> None:
    fake = FakeProc(tmp_path)
    fake.process(os.getpid())
    fake.process(1, argv="/usr/bin/blender -b")
    fake.process(2, argv="python3 /usr/games/chess")
    (fake.proc / "2" / "comm").write_text("chess\n")
    fake.process(3, argv="/opt/a-program-of-a-long-name")
    (fake.proc / "4").mkdir()  # ended while we looked
    fake.process(5, argv="ours")
    fake.process(6, argv="")
    (fake.proc / "6" / "comm").write_text("zombie\n")
    kin = Kin(lambda: [5], str(tmp_path), lambda: 9)
    named = ["blender", "chess", "a-program-of-a-long-name", "ours", "zombie", "x", "none"]
    now = 1.0
    programs = Programs(named, kin, str(tmp_path), lambda: now)
    found = ("a-program-of-a-long-name", "blender", "chess")
    assert programs.read() == found
    fake.gone(1)
    now += PERIOD_S - 0.1
    assert programs.read() == found
    now += 0.1
    assert programs.read() == ("a-program-of-a-long-name", "chess")


def test_without_names_nothing_is_looked_at(tmp_path: Path) -> None:
    assert Programs([], Kin(lambda: (), str(tmp_path)), str(tmp_path)).read() == ()


def test_a_program_of_this_machine_is_found(tmp_path: Path) -> None:
    here = Path(shutil.copy(shutil.which("cat") or "", tmp_path / "unlikely-program"))
    with subprocess.Popen([here], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(b"x")
        process.stdin.flush()
        process.stdout.read(1)
        assert Programs(["unlikely-program"], Kin(lambda: (), "/nonexistent")).read() == ("unlikely-program",)
        assert Programs(["unlikely-program"], Kin(lambda: ())).read() == ()  # started by this process: ours
        process.stdin.close()
