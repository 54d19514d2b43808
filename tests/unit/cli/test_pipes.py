"""A large input in blocks. What GNU parallel 20221122 does with the same input was looked at for each case but those said."""

import io
import os

import pytest

from p2pq.cli import pipes
from p2pq.cli.pipes import blocks, cutting_of
from p2pq.errors import UsageError

PLAIN = {
    "recend": None, "recstart": None, "regexp": False, "max_args": None, "max_lines": None, "header": None, "block": "1M",
    "rrs": False, "arg_file": (), "null": False, "colsep": None, "link": False, "trim": "n", "context": False, "multiple": False,
    "shuf": False, "resume": False, "resume_failed": False, "retry_failed": False,
}  # fmt: skip
TEN = b"".join(b"%d\n" % number for number in range(1, 11))
FASTA = b">1\na\n>2\nb\nc\n>3\nd\n"


def cut(data, **options):
    return list(blocks(io.BytesIO(data).read, cutting_of(PLAIN | options)))


@pytest.mark.parametrize(
    ("data", "options", "found"),
    [
        (b"", {}, []),
        (b"abc", {}, [b"abc"]),
        (TEN, {}, [TEN]),
        (TEN, {"block": "7"}, [b"1\n2\n3\n", b"4\n5\n6\n", b"7\n8\n9\n", b"10\n"]),
        (b"a" * 19 + b"\nbb\nc\n", {"block": "4"}, [b"a" * 19 + b"\n", b"bb\nc\n"]),
        (b"abcdefg", {"recend": "", "block": "3"}, [b"abc", b"def", b"g"]),
        (b"1\n2\n3\n4", {"max_args": 3}, [b"1\n2\n3\n", b"4"]),
        (TEN, {"max_args": 4, "block": "3"}, [b"1\n2\n3\n4\n", b"5\n6\n7\n8\n", b"9\n10\n"]),
        (TEN, {"max_lines": 3, "block": "13"}, [b"1\n2\n3\n4\n5\n6\n", b"7\n8\n9\n", b"10\n"]),
        (b"1\n2\n3\n", {"max_lines": 2}, [b"1\n2\n", b"3\n"]),
        (b"1\n2\n3\n4\n5\n", {"max_lines": 2, "max_args": 2}, [b"1\n2\n3\n4\n", b"5\n"]),
        (b"a;b;c", {"recend": ";", "block": "3"}, [b"a;", b"b;", b"c"]),
        (FASTA, {"recstart": ">", "max_args": 1}, [b">1\na\n", b">2\nb\nc\n", b">3\nd\n"]),
        (FASTA, {"recstart": ">", "block": "6"}, [b">1\na\n", b">2\nb\nc\n", b">3\nd\n"]),
        (b"<1>x<2><3>", {"recend": ">", "recstart": "<", "max_args": 1}, [b"<1>x<2>", b"<3>"]),
        (b"a12b3c456d", {"regexp": True, "recend": "[0-9]+", "max_args": 1}, [b"a12", b"b3", b"c456", b"d"]),
        (b"h\n1\n2\n3\n", {"header": ":", "max_args": 1}, [b"h\n1\n", b"h\n2\n", b"h\n3\n"]),
        (b"h", {"header": ":"}, []),
        (b"a\0b\0", {"recend": r"\0", "max_args": 1}, [b"a\0", b"b\0"]),
        (b"a\0b\0", {"null": True, "max_args": 1}, [b"a\0", b"b\0"]),
        (b"a\\b\tc", {"recend": r"\\b\t", "max_args": 1}, [b"a\\b\t", b"c"]),
        # Not as there: an empty record is one, and what a regular expression matches at the end of a block may go on.
        (b"a;;b", {"recend": ";", "max_args": 1}, [b"a;", b";", b"b"]),
        (FASTA, {"recstart": ">", "max_args": 1, "rrs": True}, [b"1\na\n", b"2\nb\nc\n", b"3\nd\n"]),
        (b"1;2;3;4;", {"recend": ";", "max_args": 2, "rrs": True}, [b"12", b"34"]),
        (b"a1b22", {"regexp": True, "recend": "[0-9]+", "max_args": 1, "rrs": True}, [b"a", b"b"]),
        (b"1aa2bb", {"regexp": True, "recend": r"([a-z])\2", "max_args": 1, "rrs": True}, [b"1", b"2"]),
        (b"ab", {"recend": "", "block": "1", "rrs": True}, [b"a", b"b"]),
        (b"a\xffb\xff", {"recend": "\udcff", "max_args": 1, "rrs": True}, [b"a", b"b"]),
        (b"a1b22c", {"regexp": True, "recend": "[0-9]+", "block": "4"}, [b"a1", b"b22", b"c"]),
    ],
)
def test_an_input_is_cut_at_ends_of_records(data, options, found):
    assert cut(data, **options) == found


@pytest.mark.parametrize(
    ("text", "size"),
    [("7", 7), ("1k", 1000), ("1K", 1024), ("2m", 2_000_000), ("2M", 2 << 20), ("1g", 10**9), ("1G", 1 << 30)],
)
def test_sizes_of_blocks(text, size):
    assert cutting_of(PLAIN | {"block": text}).block_bytes == size


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"block": "0"}, "write it like 100k or 10M, at most 1G"),
        ({"block": "2G"}, "at most 1G"),
        ({"block": "much"}, "is no size of blocks"),
        ({"max_args": 0}, "leave -N 0 out"),
        ({"recend": "", "max_args": 2}, "there are no records to count"),
        ({"recend": "", "max_lines": 2}, "there are no records to count"),
        ({"recend": "(", "regexp": True}, "make no regular expression"),
        ({"recend": "x", "recstart": "(?P=end)", "regexp": True, "rrs": True}, "make no regular expression"),
        ({"recend": "x*", "regexp": True}, "match between any two bytes"),
        ({"colsep": ","}, "--colsep is about values"),
        ({"trim": "l"}, "--trim is about values"),
        ({"resume_failed": True}, "--resume-failed is about values"),
    ],
)
def test_what_cannot_be_cut(options, sentence):
    with pytest.raises(UsageError, match=sentence):
        cutting_of(PLAIN | options)


def test_blocks_have_limits(monkeypatch):
    monkeypatch.setattr(pipes, "TASKS_MAX", 2)
    with pytest.raises(UsageError, match="more than 2 blocks; make them larger"):
        cut(TEN, max_args=1)
    monkeypatch.setattr(pipes, "RECORD_BYTES_MAX", 100)
    with pytest.raises(UsageError, match="say what ends one with --recend"):
        cut(b"x" * 1000, block="50")


def test_files_are_read_one_behind_the_other(tmp_path, monkeypatch):
    for name, data in (("a", b"12"), ("b", b""), ("c", b"345")):
        (tmp_path / name).write_bytes(data)
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"67")))
    read = pipes.reading([*(str(tmp_path / name) for name in "abc"), "-"])
    assert [read(4), read(0), read(2), read(9), read(9)] == [b"1234", b"", b"56", b"7", b""]
    with pytest.raises(FileNotFoundError):
        pipes.reading(["/no/such"])(1)


def test_files_may_be_divided_over_all_cpus(tmp_path, monkeypatch):
    monkeypatch.setattr(pipes.os, "sched_getaffinity", lambda _: {0, 1, 2})
    for name in "ab":
        (tmp_path / name).write_bytes(b"x" * 11)
    files = tuple(str(tmp_path / name) for name in "ab")
    assert pipes.cutting_of({**PLAIN, "block": "-2", "arg_file": files}).block_bytes == 4
    (tmp_path / "a").write_bytes(b"")
    assert pipes.cutting_of({**PLAIN, "block": "-2", "arg_file": files[:1]}).block_bytes == 1
    os.mkfifo(tmp_path / "pipe")
    for given in ((), ("-",), (*files, str(tmp_path / "pipe")), ("/dev/zero",), (str(tmp_path),)):
        with pytest.raises(UsageError, match="whose size is known"):
            pipes.cutting_of({**PLAIN, "block": "-1", "arg_file": given})
