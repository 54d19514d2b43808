"""Output in temporary files, whose names are printed."""

from pathlib import Path

import pytest

from p2pq.cli import tempfiles
from p2pq.cli.outputs import Printer
from p2pq.cli.tempfiles import TempFiles
from p2pq.errors import StorageError
from p2pq.wire.commandcontrol import TaskEnded
from p2pq.wire.control import LogChunk


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(tempfiles.tempfile, "tempdir", str(tmp_path))
    return tmp_path


def out(task: int, data: bytes) -> LogChunk:
    return LogChunk(task=task, data=data, stream="stdout")


def err(task: int, data: bytes) -> LogChunk:
    return LogChunk(task=task, data=data, stream="stderr")


def end(task: int) -> TaskEnded:
    return TaskEnded(task=task, state="done")


def contents(printed: str) -> list[bytes]:
    return [Path(name).read_bytes() for name in printed.splitlines()]


def test_names_of_files_that_hold_the_output_are_printed(
    folder: Path, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    with TempFiles(Printer()) as files:
        for piece in (b"one, ", b"two"):
            files.take(out(3, piece))
        files.take(err(3, b"said\n"))
        files.end(end(3))
        files.end(end(1))
        files.finish()
    printed = capfdbinary.readouterr()
    names = printed.out.decode()
    assert contents(names) == [b"one, two", b""]
    assert all(Path(name).parent == folder and Path(name).suffix == ".par" for name in names.splitlines())
    assert printed.err == b"said\n"


def test_they_are_in_order_where_that_is_asked_for(folder: Path, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    with TempFiles(Printer(order=iter([0, 1, 2]))) as files:
        for task in (1, 0, 2):
            files.take(out(task, b"%d" % task))
            files.end(end(task))
        files.finish()
    assert contents(capfdbinary.readouterr().out.decode()) == [b"0", b"1", b"2"]
    assert len(list(folder.iterdir())) == 3


def test_what_nobody_is_told_of_does_not_stay(folder: Path) -> None:
    with TempFiles(Printer()) as files:
        files.take(out(0, b"cut off"))
        assert list(folder.iterdir())
    assert not list(folder.iterdir())


def test_nor_does_that_of_a_task_whose_turn_never_came(folder: Path, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    with TempFiles(Printer(order=iter([0, 1, 2]))) as files:
        for task in (0, 2):
            files.take(out(task, b"x"))
            files.end(end(task))
    assert [str(path) for path in folder.iterdir()] == capfdbinary.readouterr().out.decode().splitlines()


def test_a_folder_that_takes_nothing_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfiles.tempfile, "tempdir", str(tmp_path / "missing"))
    with TempFiles(Printer()) as files, pytest.raises(StorageError, match="TMPDIR to another folder"):
        files.take(out(0, b"x"))
