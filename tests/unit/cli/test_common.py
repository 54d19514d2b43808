"""What commands share: parsing, printing, finding the node."""

import json
import sys

import click
import msgspec
import pytest

from p2pq.cli import common
from p2pq.cli.main import main
from p2pq.errors import RefusedError
from p2pq.wire.control import Counts, Note


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(None, ""), (0.25, "0.2 s"), (12.4, "12 s"), (185, "3:05"), (7384, "2:03:04"), (3 * 86400, "3 days, 0:00:00")],
)
def test_durations_as_people_say_them(seconds, text):
    assert common.duration(seconds) == text


@pytest.mark.parametrize(
    ("node", "via", "text"), [("leaf", (), "leaf"), ("leaf", ("near", "far"), "leaf < near < far"), (None, (), "")]
)
def test_who_is_behind_bridges_is_named_with_them(node, via, text):
    assert common.behind(node, via) == text


@pytest.mark.parametrize(
    ("count", "text"), [(None, ""), (0, "0 B"), (1536, "2 KiB"), (12 << 20, "12 MiB"), (5 << 40, "5.0 TiB")]
)
def test_sizes_as_people_say_them(count, text):
    assert common.size(count) == text


def test_json_is_one_line_of_ascii_without_tags(capsys):
    common.print_json([Note(text="café\x1b\u202e"), Counts(total=1)])
    [line] = capsys.readouterr().out.splitlines()
    assert line.isascii()
    found = json.loads(line)
    assert found[0] == {"text": "café\x1b\u202e"}
    assert found[1]["total"] == 1
    assert common.plain((1, {"type": "x", "a": [msgspec.UNSET is None]})) == [1, {"a": [False]}]


def test_names_that_others_wrote_cannot_steer_a_terminal(capsys):
    common.pairs([("name", "a\x1b[2Jb"), ("empty", ""), ("none", None)])
    common.say("x\ry")
    common.note("x\ny")
    out, err = capsys.readouterr()
    assert out.splitlines() == ["name  a\ufffd[2Jb", "x\ufffdy"]
    assert err == "p2pq: x\ufffdy\n"


def ended(*typed):
    with pytest.raises(SystemExit) as caught:
        main(typed)
    return caught.value.code


@pytest.mark.parametrize(
    ("raised", "code", "said"),
    [
        (KeyboardInterrupt(), 130, "p2pq: interrupted; the node and its jobs go on"),
        (click.Abort(), 130, "p2pq: interrupted; the node and its jobs go on"),
        (RefusedError("no\x1b"), 4, "p2pq: no\ufffd"),
        (click.FileError("f", "gone"), 4, "p2pq: Could not open file 'f': gone"),
        (0, 0, ""),
        (5, 5, ""),
        (None, 0, ""),
    ],
)
def test_how_a_command_ends(monkeypatch, capsys, raised, code, said):
    def command(**options):
        if isinstance(raised, BaseException):
            raise raised
        return raised

    monkeypatch.setattr("p2pq.cli.main.cli.main", command)
    assert ended("jobs") == code
    assert capsys.readouterr().err.strip() == said


def test_a_reader_that_has_had_enough(monkeypatch):
    """In the middle of a command, which click would turn into exit code 1, or when the last of it is flushed."""
    let_go = []
    monkeypatch.setattr("p2pq.cli.main._let_go", lambda: let_go.append(True))

    def broken(*_options):
        raise BrokenPipeError(32, "Broken pipe")

    monkeypatch.setattr("p2pq.cli.jobs.connect", broken)
    assert ended("jobs") == 141
    with monkeypatch.context() as patched:  # pytest itself flushes when the test is over
        patched.setattr("p2pq.cli.main.cli.main", lambda **_options: 0)
        patched.setattr("sys.stdout.flush", broken)
        assert ended("jobs") == 141
    assert let_go == [True, True]


def test_the_command_line_loads_neither_the_daemon_nor_an_event_loop():
    import subprocess  # noqa: PLC0415

    code = (
        "import sys, p2pq.cli.main, p2pq.cli.jobs, p2pq.cli.progress, p2pq.cli.commands, p2pq.client.starter\n"
        "print(*sorted({name.partition('.')[0] for name in sys.modules}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    loaded = set(done.stdout.split())
    assert {"click", "msgspec", "p2pq"} <= loaded
    assert not loaded & {
        "asyncio",
        "aiohttp",
        "rich",
        "sqlite3",
        "zeroconf",
        "nacl",
        "spake2",
        "psutil",
        "ssl",
        "logging",
    }
