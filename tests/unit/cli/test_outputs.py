"""What is printed as tasks end, beyond what tests of the commands show."""

import errno
import io
import os
import tempfile

import pytest

from p2pq.cli import outputs
from p2pq.cli.outputs import CountsLine, Printer
from p2pq.errors import StorageError
from p2pq.wire.commandcontrol import TaskEnded
from p2pq.wire.control import LogChunk


@pytest.fixture
def small(monkeypatch):
    """Keep a few bytes in memory only."""
    monkeypatch.setattr(outputs, "KEPT_BYTES_MAX", 10)


def chunk(task, data, stream="stdout"):
    return LogChunk(task=task, data=data, stream=stream)


def ended(task):
    return TaskEnded(task=task, state="done")


def files(monkeypatch):
    """Return the list of temporary files that will be made."""
    made = []
    real = tempfile.TemporaryFile
    monkeypatch.setattr(tempfile, "TemporaryFile", lambda: made.append(real()) or made[-1])
    return made


def test_what_comes_early_waits_in_memory_then_in_a_file(capfdbinary, monkeypatch, small):
    made = files(monkeypatch)
    with Printer(order=range(9)) as printer:
        printer.take(chunk(2, b"2" * 8))
        assert made == []
        printer.take(chunk(2, b"E" * 8, "stderr"))
        printer.take(chunk(2, b"3" * 8))
        printer.end(ended(2))
        printer.take(chunk(1, b"1"))
        printer.end(ended(1))
        [file] = made
        assert file.seek(0, 2) == 16
        assert capfdbinary.readouterr() == (b"", b"")
        printer.take(chunk(0, b"0"))
        printer.end(ended(0))
        assert capfdbinary.readouterr() == (b"01" + b"2" * 8 + b"3" * 8, b"E" * 8)
        assert file.seek(0, 2) == 0
        printer.take(chunk(4, b"4" * 9))
        printer.take(chunk(4, b"44"))
        printer.take(chunk(3, b"3"))
        printer.end(ended(4))
        printer.end(ended(3))
        assert capfdbinary.readouterr().out == b"3" + b"4" * 11
        printer.take(chunk(6, b"6" * 11))
    assert made == [file]
    assert file.closed


def test_what_waits_for_tasks_that_never_come_is_printed_at_last(capfdbinary):
    with Printer(order=range(9), tag=lambda task: b"%d\t" % task) as printer:
        for task in (3, 1):
            printer.take(chunk(task, b"a"))
            printer.end(ended(task))
        assert capfdbinary.readouterr().out == b""
        printer.take(chunk(0, b"b\n"))
        printer.finish()
    assert capfdbinary.readouterr().out == b"0\tb\n1\ta3\ta"


def test_output_of_the_task_whose_turn_comes_goes_on_after_what_was_kept(capfdbinary):
    with Printer(order=range(9)) as printer:
        printer.take(chunk(1, b"a"))
        printer.end(ended(0))
        printer.take(chunk(1, b"b"))
        printer.end(ended(1))
    assert capfdbinary.readouterr().out == b"ab"


def test_tags_of_pieces(capfdbinary):
    with Printer(tag=lambda task: b"%d\t" % task) as printer:
        for data in (b"a", b"", b"b\n", b"\n\n", b"c\nd"):
            printer.take(chunk(0, data))
        printer.take(chunk(0, b"e\n", "stderr"))
        printer.end(ended(0))
        printer.take(chunk(1, b"f\n"))
        printer.end(ended(1))
    assert capfdbinary.readouterr() == (b"0\tab\n0\t\n0\t\n0\tc\n0\td1\tf\n", b"0\te\n")


def test_no_room_for_what_comes_early(monkeypatch, small):
    def full():
        raise OSError(errno.ENOSPC, "No space left")

    monkeypatch.setattr(tempfile, "TemporaryFile", full)
    with Printer(order=range(9)) as printer, pytest.raises(StorageError, match="No space left; make room, set TMPDIR"):
        printer.take(chunk(1, b"1" * 11))


def test_what_was_printed_first_stands_first_where_both_are_one_terminal(monkeypatch):
    seen = []

    class Stream(io.BytesIO):
        def flush(self):
            seen.append(self.getvalue())

    out, err = Stream(), io.BytesIO()
    monkeypatch.setattr("sys.stdout", io.TextIOWrapper(out))
    monkeypatch.setattr("sys.stderr", io.TextIOWrapper(err))
    with Printer() as printer:
        printer.take(chunk(0, b"a"))
        assert seen == []
        printer.take(chunk(0, b"b", "stderr"))
        assert seen == [b"a"]
        assert err.getvalue() == b"b"


def test_the_time_left_and_what_failed(monkeypatch, capsys):
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    clock = iter([100.0, 110.0, 115.0, 130.0])
    line = CountsLine(3, bar=False, eta=True, clock=lambda: next(clock))
    line.clear()
    assert capsys.readouterr().err == ""
    line.ended("done")
    line.ended("failed")
    line.ended("cancelled")
    line.clear()
    line.clear()
    assert capsys.readouterr().err.split("\r\x1b[K") == [
        "", "1/3, 20 s left", "2/3, 1 failed, 7.5 s left", "3/3, 1 failed", "",
    ]  # fmt: skip


def test_what_an_output_does_not_take_is_let_go_of(tmp_path, monkeypatch):
    reader, writer = os.pipe()
    os.close(reader)
    with (tmp_path / "f").open("w") as good, open(writer, "w") as broken:  # noqa: PTH123  a descriptor
        monkeypatch.setattr("sys.stdout", broken)
        monkeypatch.setattr("sys.stderr", good)
        broken.write("lost")
        good.write("kept")
        outputs.let_go()
        broken.flush()
    assert (tmp_path / "f").read_text() == "kept"


def test_lines_of_several_tasks_are_mixed_and_never_cut(capfdbinary):
    mixer = outputs.Mixer(lines=True, tag=lambda task: b"%d\t" % task)
    with mixer:
        mixer.take(LogChunk(task=1, data=b"be"))
        mixer.take(LogChunk(task=2, data=b"a\rb\n\nc"))
        mixer.take(LogChunk(task=1, data=b"gin", stream="stderr"))
        mixer.take(LogChunk(task=1, data=b"gin\n"))
        assert capfdbinary.readouterr() == (b"2\ta\rb\n2\t\n1\tbegin\n", b"")
        mixer.end(TaskEnded(task=2, state="done"))
        assert capfdbinary.readouterr() == (b"2\tc", b"")
        mixer.finish()
        mixer.finish()
    assert capfdbinary.readouterr() == (b"", b"1\tgin")


def test_a_line_that_does_not_end_is_printed_in_pieces(capfdbinary, monkeypatch):
    monkeypatch.setattr(outputs, "LINE_BYTES_MAX", 4)
    mixer = outputs.Mixer(lines=True)
    for piece in (b"abc", b"de", b"f"):
        mixer.take(LogChunk(task=1, data=piece))
    assert capfdbinary.readouterr().out == b"abcde"


def test_what_is_not_grouped_comes_at_once_without_a_tag(capfdbinary):
    mixer = outputs.Mixer(lines=False, tag=lambda _: b"tag\t")
    mixer.take(LogChunk(task=1, data=b"a"))
    mixer.take(LogChunk(task=2, data=b"b", stream="stderr"))
    assert capfdbinary.readouterr() == (b"a", b"b")
    mixer.end(TaskEnded(task=1, state="done"))


def test_in_order_the_task_whose_turn_it_is_may_be_heard_at_once(capfdbinary):
    with outputs.Printer(order=[1, 2], live=True) as printer:
        printer.take(LogChunk(task=2, data=b"b\n"))
        printer.take(LogChunk(task=1, data=b"a"))
        assert capfdbinary.readouterr().out == b"a"
