"""Output of tasks in files."""

import csv

import pytest

from p2pq.cli import keeping
from p2pq.cli.keeping import Folders, Table
from p2pq.errors import UsageError
from p2pq.wire.commandcontrol import TaskEnded
from p2pq.wire.control import LogChunk


def chunk(task, data, stream="stdout"):
    return LogChunk(task=task, data=data, stream=stream)


def ended(task, **fields):
    return TaskEnded(task=task, **{"state": "done", "exit": 0, "started": 1_700_000_000_123, "seconds": 0.25, **fields})


@pytest.mark.parametrize(
    ("names", "values", "folder"),
    [
        (["1", "2"], ["a", "b c"], "1/a/2/b c"),
        (["x"], ["a/x\\\t"], "x/a\\_x\\\\\\t"),
        ([], ["v"], "1/v"),
        (["1", "2", "3"], ["", ".", ".."], "1/\\/2/\\./3/\\.."),
        (["1"], ["\u00e9" * 150], "1/" + "\u00e9" * 100 + "~8"),
    ],
)
def test_folders_are_called_after_values(names, values, folder):
    stdout, stderr, number = keeping.named("out", names, values, 7)
    assert str(stdout) == f"out/{folder}/stdout"
    assert (stderr, number) == (stdout.with_name("stderr"), stdout.with_name("seq"))


def test_a_name_of_its_own():
    assert list(map(str, keeping.beside("out/a-1"))) == ["out/a-1", "out/a-1.err", "out/a-1.seq"]


def test_what_tasks_print_is_in_files_and_a_number_tells_that_it_is_whole(tmp_path):
    def files(task):
        return keeping.named(str(tmp_path), ["1"], [str(task)], task)

    with Folders(files) as folders:
        folders.take(chunk(1, b"a\xff"))
        folders.take(chunk(1, b"b"))
        folders.take(chunk(1, b"E", "stderr"))
        assert not files(1)[2].exists()
        folders.end(ended(1))
        folders.end(ended(0))
        folders.finish()
        assert [path.read_bytes() for path in files(1)] == [b"a\xffb", b"E", b"2"]
        assert [path.read_bytes() for path in files(0)] == [b"", b"", b"1"]
        folders.take(chunk(1, b"again"))
    assert not files(1)[2].exists(), "what is written anew is not whole"
    assert files(1)[0].read_bytes() == b"again", "what was open is closed"


def test_a_row_for_each_task(tmp_path):
    table = tmp_path / "out.csv"
    with Table(str(table), ["V1", "V2"], lambda task: (f"echo {task}", ["a,b", str(task)])) as rows:
        rows.take(chunk(1, b"x\n"))
        rows.take(chunk(1, b"E\xff", "stderr"))
        rows.end(ended(1, printed=(2, 2)))
        rows.end(ended(0, state="failed", exit=3))
        rows.finish()
    with table.open(newline="", errors="surrogateescape") as file:
        head, *lines = csv.reader(file)
    assert head[6:] == ["Exitval", "Signal", "Command", "V1", "V2", "Stdout", "Stderr"]
    assert lines == [
        ["2", ":", "1700000000.123", "0.250", "0", "2", "0", "0", "echo 1", "a,b", "1", "x\n", "E\udcff"],
        ["1", ":", "1700000000.123", "0.250", "0", "0", "3", "0", "echo 0", "a,b", "0", "", ""],
    ]


def test_a_table_is_gone_on_with(tmp_path):
    table = tmp_path / "out.csv"
    for number in range(2):
        with Table(str(table), ["V1"], lambda task: ("c", [str(task)]), goes_on=True) as rows:
            rows.end(ended(number))
    with table.open(newline="") as file:
        head, *lines = csv.reader(file)
    assert head[0] == "Seq"
    assert [line[0] for line in lines] == ["1", "2"], "what an earlier run has written stays"
    with Table(str(table), ["V1"], lambda task: ("c", [str(task)])):
        pass
    assert len(table.read_text().splitlines()) == 1, "one that begins anew is empty"


def test_a_table_on_standard_output(capfdbinary):
    with Table("-.tsv", ["V1"], lambda task: ("c", ["v"])) as rows:
        rows.end(ended(0))
    print("goes on")
    out = capfdbinary.readouterr().out.splitlines()
    assert out[0].split(b"\t")[0::9] == [b"Seq", b"V1"]
    assert out[1].split(b"\t")[8:] == [b"c", b"v", b"", b""]
    assert out[2] == b"goes on"


def test_a_cell_has_a_limit(tmp_path, monkeypatch):
    monkeypatch.setattr(keeping, "TABLE_BYTES_MAX", 1 << 20)
    rows = Table(str(tmp_path / "t.csv"), [], lambda task: ("c", []))
    with rows:
        rows.take(chunk(0, b"x" * 600_000))
        with pytest.raises(UsageError, match="printed more than 1 MiB, too much for a table; use --results DIR"):
            rows.take(chunk(0, b"x" * 600_000))
