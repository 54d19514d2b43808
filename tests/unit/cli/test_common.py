"""What commands share: parsing, printing, finding the node."""

import json
import sys

import click
import msgspec
import pytest

from p2pq.cli import common, starting
from p2pq.cli.main import main
from p2pq.errors import NodeUnreachableError, RefusedError, UsageError
from p2pq.wire.control import Counts, Note


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90", 90), ("90s", 90), ("15m", 900), ("2h", 7200), ("1d", 86400), ("1h30m", 5400),
        ("01:30:00", 5400), ("2:03", 123), ("1d1h1m1s", 90061),
    ],
)  # fmt: skip
def test_durations(text, seconds):
    assert common.parse_seconds(text) == seconds


@pytest.mark.parametrize("text", ["", "0", "0s", "soon", "-5", "1.5", "1:2", "5x", "m", "1h 30m"])
def test_what_is_no_duration(text):
    with pytest.raises(UsageError, match="15m"):
        common.parse_seconds(text)


@pytest.mark.parametrize("text", ["9" * 30, "999999999d", "999999999:00", f"{366 * 24 + 1}h"])
def test_no_duration_is_longer_than_a_year(text):
    with pytest.raises(UsageError, match="15m"):
        common.parse_seconds(text)
    assert common.parse_seconds("366d") == common.SECONDS_MAX


@pytest.mark.parametrize("text", ["9" * 400, "9" * 30 + "G", "999999999999T", "17T"])
def test_no_size_is_larger_than_any_machine(text):
    with pytest.raises(UsageError, match="512M"):
        common.parse_megabytes(text)


@pytest.mark.parametrize(
    ("text", "megabytes"),
    [("512", 512), ("512M", 512), ("4G", 4096), ("4GiB", 4096), ("1.5g", 1536), ("2048k", 2), ("1T", 1 << 20)],
)
def test_sizes(text, megabytes):
    assert common.parse_megabytes(text) == megabytes


@pytest.mark.parametrize("text", ["", "much", "-1", "0", "1k", "4X", "4GG"])
def test_what_is_no_size(text):
    with pytest.raises(UsageError, match="512M"):
        common.parse_megabytes(text)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(None, ""), (0.25, "0.2 s"), (12.4, "12 s"), (185, "3:05"), (7384, "2:03:04"), (3 * 86400, "3 days, 0:00:00")],
)
def test_durations_as_people_say_them(seconds, text):
    assert common.duration(seconds) == text


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


@pytest.fixture
def context(tmp_path, monkeypatch):
    monkeypatch.setenv("P2PQ_ALLOW_ROOT", "1")
    return click.Context(click.Command("x"), obj=tmp_path / "home")


def test_no_node_and_none_wanted(context):
    with pytest.raises(NodeUnreachableError, match=r"home; start one with `p2pq start`"):
        common.connect(context)


def test_a_token_that_cannot_be_read(context, tmp_path):
    (tmp_path / "home" / "api.token").mkdir(parents=True)
    with pytest.raises(NodeUnreachableError, match="check P2PQ_HOME"):
        common.connect(context)


def test_a_node_is_started_once_and_said(context, tmp_path, monkeypatch, capsys):
    started = []
    monkeypatch.setattr(starting, "start", started.append)
    with pytest.raises(NodeUnreachableError):
        common.connect(context, start=True)
    assert started == [(tmp_path / "home").resolve()]
    assert "started a node in the background; `p2pq stop` ends it" in capsys.readouterr().err


def test_root_must_be_meant(context, monkeypatch):
    monkeypatch.setattr("os.geteuid", lambda: 0)
    monkeypatch.delenv("P2PQ_ALLOW_ROOT")
    with pytest.raises(RefusedError, match="P2PQ_ALLOW_ROOT=1"):
        common.connect(context)


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
    monkeypatch.setattr("p2pq.cli.main.cli.main", lambda **_options: 0)
    monkeypatch.setattr("sys.stdout.flush", broken)
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
