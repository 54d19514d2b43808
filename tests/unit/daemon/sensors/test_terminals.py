"""What is typed into a terminal is seen, whoever prints there."""

import os
import pty
import threading
import time
import tty
from pathlib import Path

from p2pq.daemon.sensors.terminals import Terminals


class Machine:
    """A /dev with two consoles and a window."""

    def __init__(self, tmp_path: Path) -> None:
        self.root = tmp_path
        for folder in ("dev/pts", "proc", "sys/class/tty/tty0"):
            (tmp_path / folder).mkdir(parents=True)
        (tmp_path / "proc" / "uptime").write_text("5000.00 9000.00\n")
        for name in ("tty", "tty0", "tty1", "tty2", "ttyS0", "pts/3", "pts/ptmx"):
            self.typed(name, 9_900 if name in {"tty", "tty0", "ttyS0", "pts/ptmx"} else 6_000)

    def typed(self, name: str, wall: float) -> None:
        path = self.root / "dev" / name
        path.touch()
        os.utime(path, (wall, wall + 500))

    def front(self, name: str) -> None:
        (self.root / "sys" / "class" / "tty" / "tty0" / "active").write_text(f"{name}\n")


def test_the_last_terminal_to_be_typed_into_counts(tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    terminals = Terminals(str(tmp_path))
    assert terminals.idle_s(10_000) == 4_000
    machine.typed("pts/3", 9_000)
    assert terminals.idle_s(10_000) == 1_000
    (tmp_path / "dev" / "pts" / "3").unlink()
    assert terminals.idle_s(10_000) == 1_000
    machine.front("tty2")
    machine.typed("tty2", 9_500)
    assert terminals.idle_s(10_000) == 500
    machine.typed("tty1", 9_600)  # which has no keyboard now
    assert terminals.idle_s(10_000) == 500
    assert terminals.idle_s(9_000) == 0


def test_where_nobody_ever_typed_it_is_since_the_machine_started(tmp_path: Path) -> None:
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc" / "uptime").write_text("70.50 9000.00\n")
    assert Terminals(str(tmp_path)).idle_s(10_000) == 70.5
    assert Terminals(str(tmp_path / "none")).idle_s(10_000) == 0


def test_typing_into_a_real_terminal_is_seen_at_once_and_printing_is_not() -> None:
    ours, theirs = pty.openpty()
    try:
        tty.setraw(theirs)
        path = os.ttyname(theirs)
        os.utime(path, (1_000, 1_000))
        os.write(theirs, b"printed")
        os.read(ours, 100)
        assert Path(path).stat().st_atime == 1_000
        reader = threading.Thread(target=os.read, args=(theirs, 1))
        reader.start()
        os.write(ours, b"k")
        reader.join()
        assert Terminals().idle_s(time.time()) < 9  # in steps of eight seconds
        assert Path(path).stat().st_atime > 1_000
    finally:
        os.close(ours)
        os.close(theirs)
