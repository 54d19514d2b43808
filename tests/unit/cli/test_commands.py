"""run, map and batch against a node that says what the test wants."""

import io
import os
import re
import signal
import sys
from contextlib import nullcontext
from pathlib import Path

import pytest

from p2pq.cli import commands
from p2pq.cli.main import main
from p2pq.client.connection import Connection
from p2pq.errors import NodeUnreachableError, RefusedError
from p2pq.model.job import Resources
from p2pq.model.sources import Source, count
from p2pq.wire import control
from p2pq.wire.commandcontrol import Ends, KeepInput, SubmitCommands, TaskEnded
from p2pq.wire.control import Change, Counts, JobView, LogChunk, Note
from tests.covers import covers

JOB = "jobabcdefghij"


STATUS = control.StatusView(
    id="n", name="n", mesh="m", version="0", address="", slots=4, free=4, policy=control.PolicyView(state="run", reason=""),
    running=(), peers=0, queued=0, sandbox="strict",
)  # fmt: skip


def view(*, total, done=0, failed=0, cancelled=0, state="running"):
    counts = Counts(
        total=total, done=done, failed=failed, cancelled=cancelled, pending=total - done - failed - cancelled
    )
    return JobView(job=JOB, name="echo", owner="a", state=state, tasks=counts, attempts=0, submitted="", results="")


def done(task, **fields):
    return TaskEnded(task=task, **{"state": "done", "exit": 0, "started": 1_700_000_000_123, "seconds": 0.25, **fields})


def failed(task, **fields):
    return TaskEnded(task=task, **{"state": "failed", "started": 1_700_000_000_000, "seconds": 1.0, **fields})


def chunk(task, data, stream="stdout"):
    return LogChunk(task=task, data=data, stream=stream)


class Node:
    """Answers Ends with what it was given: replies, exceptions to raise, and functions to call in the middle."""

    one = Connection.one

    def __init__(self, *ends, state="done", before=()):
        self.heard = []
        self._ends = ends
        self._before = before
        self._state = state
        self._total = 1

    def ask(self, request):
        self.heard.append(request)
        match request:
            case SubmitCommands():
                self._total = count(request.sources)
                yield from said(self._before)
                yield view(total=self._total)
            case control.Submit():
                self._total = len(request.axes[0].values)
                self.folder = {path.name: path.read_text() for path in Path(request.folder).iterdir() if path.is_file()}
                self.results = Path(request.results) if request.results else None
                yield view(total=self._total)
            case Ends():
                yield from said(self._ends)
            case control.Status():
                yield STATUS
            case control.CancelJob():
                yield view(total=self._total)
            case control.Watch():
                yield Change(job=view(total=self._total, done=1, cancelled=self._total - 1, state="cancelled"))
            case control.Show():
                yield self._ended()

    def _ended(self):
        ends = [each for each in self._ends if isinstance(each, TaskEnded)]
        counts = {state: sum(each.state == state for each in ends) for state in ("done", "failed", "cancelled")}
        return view(total=self._total, **counts, state=self._state)

    def kinds(self):
        return [type(request).__name__ for request in self.heard]


def said(items):
    for item in items:
        if isinstance(item, BaseException):
            raise item
        if callable(item):
            item()
        else:
            yield item


@pytest.fixture
def ran(monkeypatch, capfdbinary):
    """Give a function that runs a command line against a node and returns exit code, stdout, stderr."""

    monkeypatch.setattr(commands, "STOP_S", 600.0)  # a machine that is slow is no job that does not end

    def run(node, *typed):
        monkeypatch.setattr(commands, "connect", lambda _ctx, **_options: nullcontext(node))
        with pytest.raises(SystemExit) as ended:
            main(typed)
        sys.stdout.flush()
        out, err = capfdbinary.readouterr()
        return ended.value.code, out, err.decode()

    return run


@pytest.fixture
def typed_in(monkeypatch):
    """Give a function that puts bytes into standard input."""

    def put(data, *, terminal=False):
        stream = io.TextIOWrapper(io.BytesIO(data))
        stream.isatty = lambda: terminal
        monkeypatch.setattr(sys, "stdin", stream)

    return put


def interrupt(number=signal.SIGINT):
    return lambda: os.kill(os.getpid(), number)


# -- run --------------------------------------------------------------------------------------------------------------


@covers("run")
def test_what_a_command_prints_is_ours_byte_by_byte_and_so_is_its_exit_code(ran, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GIVEN", "a=b\nc")
    node = Node(chunk(0, b"\xff\0a"), chunk(0, b"oops\n", "stderr"), chunk(0, b"b\r\n"), failed(0, exit=7))
    assert ran(node, "run", "tool", "--name", "{}", "--", "a b") == (7, b"\xff\0ab\r\n", "oops\n")
    [request, follow] = node.heard
    assert request.words == ("tool", "--name", "{}", "--", "a b")
    assert (request.sources, request.shell, request.retries, request.halt) == ((), False, 0, "")
    assert request.cwd == str(tmp_path)
    assert b"\0GIVEN=a=b\nc\0" in b"\0" + request.environment
    assert request.environment.endswith(b"\0")
    assert follow == Ends(job=JOB, live=True)


@covers("run --stdin")
def test_a_command_reads_what_we_are_given_if_asked_to(ran, typed_in):
    for option in ("--stdin", "-i"):
        typed_in(b"a\xff\n")
        node = Node(done(0))
        assert ran(node, "run", option, "--", "cat")[0] == 0
        [piece, request, _] = node.heard
        assert (piece.data, request.stdin, request.upload, request.shell) == (b"a\xff\n", (3,), piece.upload, False)
    typed_in(b"kept for others")
    ran(Node(done(0)), "run", "cat")
    assert sys.stdin.read() == "kept for others"


def test_whoever_is_interrupted_while_reading_has_submitted_nothing(ran, typed_in, monkeypatch):
    typed_in(b"")
    monkeypatch.setattr(sys.stdin.buffer, "read", lambda _: interrupt()(), raising=False)
    node = Node()
    assert ran(node, "run", "-i", "cat")[0] == 130
    assert node.heard == []


def test_each_piece_is_passed_on_before_the_next_comes(ran, capfdbinary):
    seen = []
    node = Node(chunk(0, b"now"), lambda: seen.append(capfdbinary.readouterr().out), done(0))
    assert ran(node, "run", "--", "x")[0] == 0
    assert seen == [b"now"]


@pytest.mark.parametrize(
    ("ended", "code", "sentence"),
    [
        (done(0), 0, ""),
        (TaskEnded(task=0, state="done"), 0, ""),
        (failed(0, exit=1), 1, ""),
        (failed(0, exit=0, reason="exit"), 125, "was not run to its end: exit; see"),
        (failed(0, signal=9, reason="signal"), 137, ""),
        (
            failed(0, reason="time-limit", signal=15),
            125,
            "was not run to its end: time-limit; see `p2pq why jobabcde.0`",
        ),
        (TaskEnded(task=0, state="cancelled"), 125, "was not run to its end: cancelled; see"),
        (TaskEnded(task=0, state="failed"), 125, "was not run to its end: it was lost; see"),
        (Note(text="waits"), 125, f"did not say how the command ended; see `p2pq show {JOB}`"),
        (NodeUnreachableError("gone"), 125, f"`p2pq start`, then `p2pq wait {JOB}`"),
    ],
)
def test_how_run_ends(ran, ended, code, sentence):
    found, out, err = ran(Node(ended), "run", "--quiet", "x")
    assert (found, out) == (code, b"")
    assert sentence in err
    assert err.count("\n") == bool(sentence)


@pytest.mark.parametrize(
    ("typed", "sentence"),
    [
        (["run"], "Missing argument"),
        (["run", "--nmae", "x", "y"], "No such option"),
        (["run", "--where", "any", "--stdin", "x"], "is for this machine only so far; send a file"),
        (["run", "--where", "any", "--file", "/etc/passwd", "x"], "is not below this folder"),
        (["run", "--cpus", "0", "x"], "is not in the range"),
        (["run", "--memory", "much", "x"], "is not a size"),
    ],
)
def test_what_is_typed_wrong_is_a_failure_of_p2pq_not_of_the_command(ran, typed, sentence):
    code, out, err = ran(None, *typed)
    assert (code, out) == (125, b"")
    assert sentence in err
    assert err.count("\n") == 1


def test_a_job_that_is_refused(ran):
    node = Node(before=[RefusedError("no room\x1b")])
    assert ran(node, "run", "x") == (125, b"", "p2pq: no room\ufffd\n")
    assert ran(node, "map", "x", ":::", "a") == (4, b"", "p2pq: no room\ufffd\n")


def test_a_run_in_a_folder_that_is_gone(ran, monkeypatch):
    monkeypatch.setattr(commands.Path, "cwd", lambda: (_ for _ in ()).throw(FileNotFoundError()))
    assert ran(Node(), "run", "x")[::2] == (
        125,
        "p2pq: the current folder is gone; go to one that is there and try again\n",
    )


@covers("run --quiet", "run --detach")
def test_remarks_and_the_job_id(ran):
    assert ran(Node(Note(text="it waits"), done(0)), "run", "x")[2] == "p2pq: it waits\n"
    assert ran(Node(Note(text="it waits"), done(0)), "run", "--quiet", "x")[2] == ""
    node = Node()
    assert ran(node, "run", "--detach", "--name", "n", "--where", "local", "x") == (0, JOB.encode() + b"\n", "")
    assert [request.name for request in node.heard] == ["n"]


# -- what is asked for ------------------------------------------------------------------------------------------------

LIMITS = ["--cpus", "2", "--memory", "1G", "--gpus", "1", "--time", "5m", "--priority", "-3"]
REQUEST = {"resources": Resources(cpus=2, memory_mb=1024, gpus=1), "time_s": 300, "priority": -3}


@pytest.mark.parametrize(
    ("typed", "asked"),
    [
        (["run", *LIMITS, "--retries", "4", "x"], {**REQUEST, "retries": 4}),
        (["map", *LIMITS, "--halt", "now,fail=1", "x", ":::", "a"], {**REQUEST, "retries": 1, "halt": "now,fail=1"}),
        (["map", "--retries", "0", "--name", "n", "x", ":::", "a"], {"retries": 0, "name": "n", "halt": "never"}),
    ],
)
def test_options_reach_the_node(ran, typed, asked):
    node = Node(done(0))
    assert ran(node, *typed)[0] == 0
    assert {name: getattr(node.heard[0], name) for name in asked} == asked


# -- map and batch ----------------------------------------------------------------------------------------------------


@covers("map")
def test_output_comes_as_tasks_end_stdout_to_stdout_stderr_to_stderr(ran):
    node = Node(chunk(1, b"b\xff"), chunk(1, b"\n"), chunk(1, b"E\n", "stderr"), done(1), chunk(0, b"a\n"), done(0))
    assert ran(node, "map", "echo", "{.}", ":::", "a", "b") == (0, b"b\xff\na\n", "E\n")
    request, follow, show = node.heard
    assert (request.words, request.sources, request.shell) == (("echo", "{.}"), (Source(("a", "b")),), True)
    assert follow == Ends(job=JOB)
    assert show == control.Show(job=JOB)


@covers("map --keep-order", "batch --keep-order")
@pytest.mark.parametrize("command", [["map", "x", ":::", "a", "b", "c"], ["batch", "-"]])
def test_keep_order_prints_in_the_order_of_tasks(ran, typed_in, command):
    typed_in(b"a\nb\nc\n")
    node = Node(chunk(2, b"c\n"), done(2), done(1), chunk(0, b"a\n"), done(0))
    assert ran(node, command[0], "--keep-order", *command[1:])[:2] == (0, b"a\nc\n")


@covers("map --tag", "batch --tag")
def test_tag_puts_values_before_lines(ran, tmp_path):
    node = Node(chunk(1, b"x\ny"), chunk(1, b"z\n"), done(1), chunk(0, b"e", "stderr"), done(0))
    assert ran(node, "map", "--tag", "x", ":::", "a", ":::", "1", "2") == (0, b"a 2\tx\na 2\tyz\n", "a 1\te")
    (tmp_path / "list").write_text("echo x\n")
    node = Node(chunk(0, b"x\n"), done(0))
    assert ran(node, "batch", "--tag", str(tmp_path / "list"))[1] == b"echo x\tx\n"


@covers("map --tagstring", "batch --tagstring")
def test_tags_may_be_anything(ran, typed_in):
    node = Node(chunk(1, b"x\ny\n"), done(1))
    assert ran(node, "map", "--tagstring", "{1/}-{#}", "x", ":::", "a", "d/b") == (0, b"b-2\tx\nb-2\ty\n", "")
    typed_in(b"x\n")
    assert ran(Node(chunk(0, b"x\n"), done(0)), "batch", "--tagstring", "{#}", "-")[1] == b"1\tx\n"


@covers("map --joblog", "batch --joblog")
def test_joblog_has_a_line_per_ended_task(ran, tmp_path):
    log = tmp_path / "log"
    never = TaskEnded(task=3, state="cancelled")
    cut = TaskEnded(task=4, state="cancelled", started=1_700_000_000_000, seconds=3.0)
    ends = [done(1, printed=(5, 2)), failed(0, signal=9), failed(2, reason="time-limit", signal=15), never, cut]
    node = Node(*ends, TaskEnded(task=5, state="failed", reason="refused"), state="failed")
    assert ran(node, "map", "--quiet", "--joblog", str(log), "echo", ":::", "a b", "b", "c\nd", "e", "f", "g")[0] == 1
    assert log.read_text().splitlines() == [
        "Seq\tHost\tStarttime\tJobRuntime\tSend\tReceive\tExitval\tSignal\tCommand",
        "2\t:\t1700000000.123\t     0.250\t0\t5\t0\t0\techo b",
        "1\t:\t1700000000.000\t     1.000\t0\t0\t0\t9\techo 'a b'",
        "3\t:\t1700000000.000\t     1.000\t0\t0\t-1\t15\techo 'c\0d'",
        "5\t:\t1700000000.000\t     3.000\t0\t0\t-1\t0\techo f",
        "6\t:\t0.000\t     0.000\t0\t0\t-1\t0\techo g",
    ]
    (tmp_path / "list").write_text("true\n")
    assert ran(Node(done(0)), "batch", "--joblog", str(log), str(tmp_path / "list"))[0] == 0
    assert log.read_text().splitlines()[1].endswith("\t0\t0\ttrue")
    node = Node()
    for unusable, why in (
        (tmp_path / "no" / "log", "No such file or directory"),
        ("/dev/full", "No space left on device"),
    ):
        code, _, err = ran(node, "map", "--joblog", str(unusable), "x", ":::", "a")
        assert (code, node.heard, err) == (4, [], f"p2pq: {unusable}: {why}; mend that and try again\n")


def log_of(path, *rows):
    lines = [f"{seq}\t:\t1.0\t0.1\t0\t0\t{code}\t0\t{command}" for seq, code, command in rows]
    path.write_text(
        "\n".join(["Seq\tHost\tStarttime\tJobRuntime\tSend\tReceive\tExitval\tSignal\tCommand", *lines, ""])
    )
    return str(path)


def told(path):
    return [(row[0], row[6], row[8]) for row in (line.split("\t") for line in path.read_text().splitlines()[1:])]


@covers("map --resume", "map --resume-failed", "batch --resume", "batch --resume-failed")
@pytest.mark.parametrize("kind", ["map", "batch"])
def test_a_job_goes_on_where_its_log_ends(ran, typed_in, tmp_path, kind):
    log = tmp_path / "log"
    before = [(1, 0, "x a"), (2, 7, "x b"), (4, 0, "x d"), (9, 0, "of a longer list")]
    words = ["x", ":::", "a", "b", "c", "d"] if kind == "map" else ["-"]
    for option, skipped, runs in (("--resume", ((0, 2), (3, 4)), [2]), ("--resume-failed", ((0, 1), (3, 4)), [1, 2])):
        log_of(log, *before)
        typed_in(b"x a\nx b\nx c\nx d\n")
        node = Node(*[item for task in reversed(runs) for item in (chunk(task, b"%d\n" % task), done(task))])
        code, out, _ = ran(node, kind, "-k", option, "--joblog", str(log), *words)
        assert (code, out) == (0, b"".join(b"%d\n" % task for task in runs))
        assert node.heard[0].skipped == skipped
        added = [(str(task + 1), "0", f"x {'abcd'[task]}") for task in reversed(runs)]
        assert told(log) == [(str(seq), str(code), command) for seq, code, command in before] + added
    typed_in(b"x a\n")
    assert ran(None, kind, "--resume", "--joblog", str(log), *words[:3]) == (
        0,
        b"",
        "p2pq: all tasks ran before, so there is nothing to run\n",
    )


@covers("map --retry-failed", "batch --retry-failed")
@pytest.mark.parametrize("kind", ["map", "batch"])
def test_what_a_log_says_has_failed_is_run_again(ran, tmp_path, kind):
    log = tmp_path / "log"
    log_of(log, (1, 0, "x"), (3, 7, "y a\0b"), (2, 7, "z"), (2, 0, "z"), (5, 0, "x"))
    node = Node(chunk(2, b"out\n"), done(2))
    code, out, _ = ran(node, kind, "--retry-failed", "--tag", "--joblog", str(log))
    assert (code, out) == (0, b"y a\nb\tout\n")
    request = node.heard[0]
    assert (request.words, request.sources) == ((), (Source(("", "", "y a\nb")),))
    assert request.skipped == ((0, 2),)
    assert told(log)[-1] == ("3", "0", "y a\0b")
    assert ran(None, kind, "--retry-failed", "--joblog", str(log)) == (
        0,
        b"",
        "p2pq: no task of the log has failed, so there is nothing to run\n",
    )


@covers("map --results", "batch --results")
def test_output_goes_into_files(ran, typed_in, tmp_path):
    ends = [chunk(1, b"b\n"), chunk(1, b"E", "stderr"), done(1), chunk(0, b"a\n"), done(0)]
    words = ["echo", ":::", "a/x", "b", ":::", "1"]
    assert ran(Node(*ends), "map", "--results", f"{tmp_path}/o", *words) == (0, b"", "")
    assert (tmp_path / "o/1/a\\_x/2/1/stdout").read_bytes() == b"a\n"
    assert (tmp_path / "o/1/b/2/1/stderr").read_bytes() == b"E"
    assert (tmp_path / "o/1/b/2/1/seq").read_text() == "2"
    assert ran(Node(*ends), "map", "--results", f"{tmp_path}/p/{{1/}}-{{#}}", *words)[0] == 0
    assert (tmp_path / "p/x-1").read_bytes() == b"a\n"
    assert (tmp_path / "p/b-2.err").read_bytes() == b"E"
    assert ran(Node(*ends), "map", "--header", ":", "--results", f"{tmp_path}/h", "e", ":::", "k", "a", "b")[0] == 0
    assert (tmp_path / "h/k/a/stdout").read_bytes() == b"a\n"
    assert ran(Node(*ends), "map", "-n2", "--results", f"{tmp_path}/n", "e", ":::", "a", "b", "c")[0] == 0
    assert (tmp_path / "n/1/a/1/b/stdout").read_bytes() == b"a\n"
    typed_in(b"echo a\necho b\n")
    assert ran(Node(*ends), "batch", "--results", f"{tmp_path}/t.csv", "-")[:2] == (0, b"")
    assert (tmp_path / "t.csv").read_text().splitlines()[0].endswith(",Command,V1,Stdout,Stderr")
    assert (tmp_path / "t.csv").read_text().splitlines()[1].endswith(',echo b,echo b,"b')
    (tmp_path / "o/1/b/2/1/seq").unlink()
    node = Node(done(1))
    assert ran(node, "map", "--resume", "--results", f"{tmp_path}/o", *words)[0] == 0
    assert node.heard[0].skipped == ((0, 1),)


@covers("map --each", "batch --each")
def test_a_function_is_called_with_each_task(ran, typed_in, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "modules", dict(sys.modules))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    (tmp_path / "mine.py").write_text(
        "def show(task):\n"
        "    print(task.number, task.arguments, task.command, task.exit_code, task.stdout, task.stderr, task.results)\n"
        "def fail(task):\n"
        "    raise ValueError(task.state)\n"
    )
    ends = [chunk(1, b"B"), failed(1, exit=3), chunk(0, b"A"), chunk(0, b"E", "stderr"), done(0)]
    code, out, _ = ran(Node(*ends, state="failed"), "map", "-k", "--each", "mine:show", "x", ":::", "a", "b")
    assert (code, out) == (1, b"0 ('a',) x a 0 b'A' b'E' None\n1 ('b',) x b 3 b'B' b'' None\n")
    typed_in(b"x\n")
    out = ran(Node(done(0)), "batch", "--each", "mine:show", "--results", "o", "-")[1]
    assert out == f"0 ('x',) x 0 b'' b'' {tmp_path}/o/1/x\n".encode()
    assert (tmp_path / "o/1/x/seq").exists()
    node = Node(done(0), AssertionError("goes on"))
    code, out, err = ran(node, "map", "--each", "mine:fail", "x", ":::", "a", "b")
    assert (code, out) == (1, b"")
    assert err.startswith("Traceback")
    assert err.splitlines()[-3:] == [
        "ValueError: done",
        "p2pq: cancelled job jobabcde after 1 of 2 tasks; `p2pq retry jobabcde --cancelled` runs the rest",
        "p2pq: --each: fail failed with task 0, as said above; mend that and try again",
    ]
    assert node.kinds() == ["SubmitCommands", "Ends", "CancelJob", "Watch"]


@covers(
    "map --header", "map --link", "map --trim", "map --max-args", "map --context", "map --multiple", "map --arg-sep",
    "map --arg-file-sep", "map --shuf", "batch --shuf",
)  # fmt: skip
def test_the_grammar_of_gnu_parallel(ran, typed_in, tmp_path):
    (tmp_path / "f").write_text("a\nb\n")

    def lines(*typed):
        return ran(None, "map", "--dry-run", *typed)[1].decode().splitlines()

    assert lines("--header", ":", "e", "{x}", ":::", "x", "1") == ["e 1"]
    assert lines("--link", "e", ":::", "a", "b", ":::", "1", "2") == ["e a 1", "e b 2"]
    assert lines("--trim", "lr", "e", ":::", " a ") == ["e a"]
    assert lines("--max-args", "2", "e", ":::", "a", "b", "c") == ["e a b", "e c"]
    assert lines("--context", "--max-args", "2", "e", "{}x", ":::", "a", "b") == ["e ax bx"]
    assert lines("--multiple", "-n2", "e", "{}x", ":::", "a", "b", "c", "d") == ["e a bx", "e c dx"]
    assert lines("--arg-sep", ",,", "e", ",,", ":::") == ["e :::"]
    assert lines("--arg-file-sep", ",,", "e", ",,", str(tmp_path / "f")) == ["e a", "e b"]
    assert sorted(lines("--shuf", "e", ":::", "a", "b")) == ["e a", "e b"]
    typed_in(b"b\na\n")
    assert sorted(ran(None, "batch", "--dry-run", "--shuf", "-")[1].split()) == [b"a", b"b"]


@covers("map --pipe", "map --block", "map --recend", "map --recstart", "map --regexp", "map --max-lines")
def test_a_large_input_is_cut_into_blocks_that_tasks_read(ran, typed_in, tmp_path):
    def told(data, *typed):
        typed_in(data)
        node = Node(chunk(0, b"x\n"), done(0))
        assert ran(node, "map", "--pipe", *typed, "cat") == (0, b"x\n", "")
        request = next(each for each in node.heard if isinstance(each, SubmitCommands))
        sent = b"".join(each.data for each in node.heard if isinstance(each, KeepInput))
        assert (request.words, request.sources, sent) == (("cat",), (), data)
        return request.stdin

    assert told(b"a\nb\nc\n") == (6,)
    assert told(b"a\nb\nc\n", "--block", "4") == (4, 2)
    assert told(b"a\nb\nc\n", "--max-lines", "1", "-N", "2") == (4, 2)
    assert told(b"a;b;", "--recend", ";", "--block", "2") == (2, 2)
    assert told(b">1>22", "--recstart", ">", "-N1") == (2, 3)
    assert told(b"a1b2", "--regexp", "--recend", "[0-9]", "-N1") == (2, 2)
    (tmp_path / "f").write_bytes(b"a\nb\n")
    log, out = tmp_path / "log", tmp_path / "out"
    node = Node(chunk(1, b"2\n"), done(1), chunk(0, b"1\n"), done(0))
    typed = ["--joblog", str(log), "--results", str(out), "-a", str(tmp_path / "f"), "x", "{#}"]
    assert ran(node, "map", "--pipe", "--max-lines", "1", "-N1", *typed)[0] == 0
    assert [line.split("\t")[8] for line in log.read_text().splitlines()[1:]] == ["x 2", "x 1"]
    assert (out / "block/1/stdout").read_bytes() == b"1\n"
    assert ran(None, "map", "--pipe", "--dry-run", "-N1", *typed[4:])[1] == b"x 1\nx 2\n"
    typed_in(b"")
    assert ran(None, "map", "--pipe", "cat") == (0, b"", "p2pq: there is no input, so there is nothing to run\n")


@covers("map --jobs", "batch --jobs")
@pytest.mark.parametrize("command", [["map", "x", ":::", "a"], ["batch", "-"]])
def test_each_has_its_share_of_the_slots(ran, typed_in, command):
    for more, cpus, said in (
        (["--jobs", "2"], 2, ""),
        (["--jobs", "50%", "--cpus", "3"], 3, "1 at a time, as each takes 3 of 4 slots"),
        (["--jobs", "-1"], 2, "2 at a time, as each takes 2 of 4 slots"),
        (["--jobs", "-1", "--quiet"], 2, ""),
        (["--jobs", "0"], 1, ""),
        (["-P", "1"], 4, ""),
        (["--max-procs", "4"], 1, ""),
    ):
        typed_in(b"true\n")
        node = Node(done(0))
        code, _, err = ran(node, command[0], *more, *command[1:])
        assert (code, err) == (0, said and f"p2pq: {said}; a number that divides 4 leaves none over\n")
        assert node.kinds()[:2] == ["Status", "SubmitCommands"]
        assert node.heard[1].resources == Resources(cpus=cpus)


@covers("map --dry-run", "batch --dry-run")
def test_dry_run_prints_command_lines_and_asks_nobody(ran, typed_in):
    assert ran(None, "map", "--dry-run", "echo", "{}", "{#}", ":::", "a b", "\udcff") == (
        0,
        b"echo 'a b' 1\necho '\xff' 2\n",
        "",
    )
    typed_in(b"echo a\n\nfalse")
    assert ran(None, "batch", "--dry-run", "-") == (0, b"echo a\n\nfalse\n", "")
    typed_in(b"")
    assert ran(None, "batch", "--dry-run", "-") == (0, b"", "")


@covers("batch", "batch --null", "map --null", "map --arg-file", "map --colsep")
def test_where_values_come_from(ran, typed_in):
    lines, whole = (("a b", "", "# c"), 1), (("a b\n\n# c\n",), 1)
    for typed, words, sources in (
        (["batch", "-"], (), [lines]),
        (["batch", "--null", "-"], (), [whole]),
        (["map", "x"], ("x",), [lines]),
        (["map"], (), [lines]),
        (["map", "--null", "x"], ("x",), [whole]),
        (["map", "--arg-file", "-", "x", ":::", "v"], ("x",), [lines, (("v",), 1)]),
        (["map", "x", ":::", "v", "::::", "-"], ("x",), [(("v",), 1), lines]),
        (["map", "--colsep", " ", "x", "{2}"], ("x", "{2}"), [(("a", "b", "", "", "#", "c"), 2)]),
    ):
        typed_in(b"a b\n\n# c\n")
        node = Node(*map(done, range(3)))
        assert ran(node, *typed)[0] == 0, typed
        assert node.heard[0].words == words, typed
        assert [(source.values, source.columns) for source in node.heard[0].sources] == sources, typed


@covers("map --detach", "batch --detach")
def test_the_job_id_alone(ran, typed_in):
    typed_in(b"true\n")
    node = Node()
    assert ran(node, "batch", "--detach", "--name", "n", "--where", "local", "-") == (0, f"{JOB}\n".encode(), "")
    assert [request.name for request in node.heard] == ["n"]
    node = Node()
    assert ran(node, "map", "--detach", "--name", "n", "x", ":::", "a") == (0, f"{JOB}\n".encode(), "")
    assert [request.name for request in node.heard] == ["n"]


@covers("map --quiet", "batch --quiet")
def test_some_tasks_failed(ran, typed_in):
    ends = [failed(0, exit=3), failed(1, reason="memory-limit", signal=9), Note(text="it waits")]
    code, out, err = ran(Node(*ends, state="failed"), "map", "x", ":::", "a", "b")
    assert (code, out) == (1, b"")
    assert err.splitlines() == [
        "p2pq: task 1 failed: memory-limit; see `p2pq why jobabcde.1`",
        "p2pq: it waits",
        f"p2pq: echo: 2 failed of 2; see `p2pq tasks {JOB}`",
        "p2pq: `p2pq retry jobabcde` runs what failed again",
    ]
    typed_in(b"a\nb\n")
    code, out, err = ran(Node(*ends, state="failed"), "batch", "--quiet", "-")
    assert (code, out, err) == (1, b"", "p2pq: task 1 failed: memory-limit; see `p2pq why jobabcde.1`\n")


def test_enough_succeeded(ran):
    """A job that was halted by its successes is done, whatever was cut off."""
    node = Node(done(0), TaskEnded(task=1, state="cancelled"))
    assert ran(node, "map", "--halt", "now,success=1", "x", ":::", "a", "b") == (0, b"", "")


def test_no_values_make_no_tasks(ran, typed_in, tmp_path):
    typed_in(b"")
    log = tmp_path / "log"
    assert ran(None, "map", "--joblog", str(log), "x") == (
        0,
        b"",
        "p2pq: there are no values, so there is nothing to run\n",
    )
    assert log.read_text().startswith("Seq\t")


@covers("map --bar", "map --eta", "batch --bar", "batch --eta")
@pytest.mark.parametrize("command", [["map", "x", ":::", "a", "b"], ["batch", "-"]])
def test_a_line_that_counts_is_for_terminals_only(ran, typed_in, monkeypatch, command):
    def shown(*options, terminal=True):
        typed_in(b"a\nb\n")
        monkeypatch.setattr("sys.stderr.isatty", lambda: terminal)
        return ran(Node(done(0), chunk(1, b"x"), done(1)), command[0], *options, *command[1:])[2]

    assert "\r\x1b[K[" + "=" * 15 + " " * 15 + "] 1/2\r\x1b[K\r\x1b[K[" in shown("--bar")
    assert re.search(r"\r\x1b\[K1/2, [^\r]+ left\r\x1b\[K", shown("--eta"))
    assert shown("--bar", "--eta").endswith("] 2/2\r\x1b[K")
    assert shown("--bar", "--eta", terminal=False) == ""
    assert shown() == ""


@pytest.mark.parametrize(
    ("typed", "sentence"),
    [
        (
            ["map", "x"],
            "there are no values; put ::: A B C after the command, -a FILE before it, or pipe lines into it",
        ),
        (["map", "--colsep", "(", "x", ":::", "a"], "is not a regular expression"),
        (["map", "-a", "-", "-a", "-", "x"], "standard input can be read only once"),
        (["map", "{%}", ":::", "a"], "is not supported"),
        (["map", "--joblog", "kept", "{%}", ":::", "a"], "is not supported"),
        (["map", "--joblog", "kept", "--memory", "much", "x", ":::", "a"], "is not a size"),
        (["map", "--detach", "--joblog", "l", "x", ":::", "a"], "leave --joblog out"),
        (["map", "--detach", "-k", "x", ":::", "a"], "leave --keep-order out"),
        (["map", "--pipe", "x"], "pipe something into it, or name files with -a FILE"),
        (["map", "--pipe", "x", ":::", "a"], "and no values; an input may be -a FILE"),
        (["map", "--pipe"], "takes a command that reads its standard input"),
        (["map", "--pipe", "--block", "big", "x"], "is no size of blocks"),
        (["map", "--pipe", "--detach", "-k", "x"], "leave --keep-order out"),
        (["map", "--where", "any", "-j2", "x", ":::", "a"], "--jobs shares out the slots of this machine"),
        (["map", "--where", "any", "--pipe", "x"], "--pipe goes with this machine only so far"),
        (["map", "--where", "any", "--file", "{}", "x", ":::", "../a"], "'../a' is not below this folder"),
        (["map", "--each", "nowhere:f", "x", ":::", "a"], "there is no nowhere.py here"),
        (["map", "--pipe", "--each", "nowhere:f", "-a", "kept", "x"], "there is no nowhere.py here"),
        (["map", "--resume", "x", ":::", "a"], "--joblog FILE, or folders with --results DIR"),
        (["map", "--resume", "--results", "t.csv", "x", ":::", "a"], "--joblog FILE, or folders with --results DIR"),
        (["map", "--resume-failed", "--results", "d", "x", ":::", "a"], "name the log with --joblog FILE"),
        (["map", "--resume", "--joblog", "kept", "x", ":::", "a"], "kept is no log of --joblog"),
        (
            ["map", "--shuf", "--resume", "--joblog", "l", "x", ":::", "a"],
            "--resume cannot know which ran; leave it out",
        ),
        (["map", "--retry-failed"], "name it with --joblog FILE"),
        (["map", "--detach", "--results", "d", "x", ":::", "a"], "leave --results out"),
        (["map", "-j", "many", "x", ":::", "a"], "write it like 2, 50%"),
        (["map", "--delay", "3x", "x", ":::", "a"], "'3x' is not a duration; write it like 90, 15m"),
        (["map", "--delay", "25h", "x", ":::", "a"], "--delay 25h is too long; at most 24h"),
        (["map", "--delay", "1", "--where", "any", "x", ":::", "a"], "--delay is for this machine only"),
        (["map", "--results", "{= $_ =}/", "x", ":::", "a"], "{= perl =} is not supported"),
        (["map", "--results", "d{%}", "x", ":::", "a"], "{%}, the number of a slot, is not supported"),
        (["map", "--halt", "", "x", ":::", "a"], "write it like never, now,fail=1"),
        (["map", "--nmae", "x", "y"], "No such option"),
        (["batch"], "Missing argument"),
    ],
)
def test_a_mistake_is_answered_with_one_sentence(ran, typed_in, tmp_path, monkeypatch, typed, sentence):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "kept").write_text("the log of another job\n")
    typed_in(b"", terminal=True)
    node = Node()
    code, out, err = ran(node, *typed)
    assert (code, out, node.heard) == (2, b"", [])
    assert sentence in err
    assert err.count("\n") == 1
    assert (tmp_path / "kept").read_text() == "the log of another job\n"


def test_a_file_that_is_not_there(ran):
    code, _, err = ran(None, "batch", "/no/such")
    assert (code, err) == (4, "p2pq: /no/such: No such file or directory; mend that and try again\n")


# -- on other machines ------------------------------------------------------------------------------------------------


def left(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


@covers("map --where", "map --file", "map --return", "batch --where", "batch --file", "batch --return")
@pytest.mark.parametrize("kind", ["map", "batch"])
def test_files_go_along_and_come_back(ran, typed_in, tmp_path, monkeypatch, kind):
    monkeypatch.chdir(tmp_path)
    for name in ("a.txt", "b.txt", "all"):
        (tmp_path / name).write_text(f"{name}\n")
    typed_in(b"./a.txt\n./b.txt\n")

    def came(task, name):
        folder = node.results / str(task)
        folder.mkdir(parents=True)
        (folder / name).write_text(f"of {task}")
        (folder / "unasked").write_text("")

    node = Node(
        lambda: came(1, "b.out"),
        chunk(1, b"B\n"),
        done(1),
        lambda: came(0, "a.out"),
        chunk(0, b"A\n"),
        done(0),
        lambda: node.seen.append([path for path in left(tmp_path) if ".p2pq" not in path]),
    )
    node.seen = []
    words = ["./{/}", ":::", "a.txt", "b.txt"] if kind == "map" else ["-"]
    wanted = ["--where", "any", "--file", "{}", "--file", "all", "--return", "{.}.out", "--memory", "1G"]
    assert ran(node, kind, "-k", *wanted, *words) == (0, b"A\nB\n", "")
    request = node.heard[0]
    assert (request.where, request.sandbox, request.stays) == ("any", "strict", False)
    assert request.resources == Resources(memory_mb=1024)
    assert request.axes[0].values == ("./a.txt a.out", "./b.txt b.out")
    assert {name: text for name, text in node.folder.items() if name != request.main} == {
        "a.txt": "a.txt\n",
        "b.txt": "b.txt\n",
        "all": "all\n",
    }
    assert node.seen == [["a.out", "a.txt", "all", "b.out", "b.txt"]], "they are here before the job is over"
    assert (tmp_path / "b.out").read_text() == "of 1"
    assert left(tmp_path) == node.seen[0]


def test_what_did_not_run_elsewhere_runs_there(ran, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    log_of(tmp_path / "log", (1, 0, "x a"), (3, 0, "x c"))
    node = Node(chunk(1, b"D\n"), failed(1, reason="memory-limit"), chunk(0, b"B\n"), done(0), state="failed")
    typed = ["-k", "--tag", "--where", "any", "--return", "{}.o", "--resume", "--joblog", "log"]
    code, out, err = ran(node, "map", *typed, "x", ":::", "a", "b", "c", "d")
    assert (code, out) == (1, b"b\tB\nd\tD\n")
    assert node.heard[0].axes[0].values == ("'x b' b.o", "'x d' d.o")
    assert told(tmp_path / "log")[2:] == [("4", "-1", "x d"), ("2", "0", "x b")]
    assert err.splitlines()[0] == "p2pq: task 3 failed: memory-limit; see `p2pq why jobabcde.1`"


@covers("run --where", "run --file", "run --return")
def test_one_command_elsewhere(ran, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "in").write_text("x")
    node = Node(chunk(0, b"out"), failed(0, exit=3))
    assert ran(node, "run", "--where", "lab3", "--file", "in", "--name", "n", "--", "sort", "a b") == (3, b"out", "")
    submit, follow = node.heard
    assert (submit.where, submit.name, submit.retries, submit.stays) == ("lab3", "n", 0, True)
    assert submit.axes[0].values == ("sort 'a b'",)
    assert sorted(node.folder) == ["in", submit.main]
    assert follow == Ends(job=JOB, live=True)
    node = Node(lambda: (node.results.mkdir(), (node.results / "o").write_text("made")), done(0))
    assert ran(node, "run", "--where", "any", "--return", "./o", "x")[0] == 0
    assert (tmp_path / "o").read_text() == "made"
    node = Node()
    code, out, err = ran(node, "run", "--where", "any", "--return", "o", "--detach", "x")
    assert (code, out) == (0, JOB.encode() + b"\n")
    assert err == f"p2pq: what it returns comes to {node.results.name}/\n"
    assert left(tmp_path) == ["in", "o"]


# -- nobody listens any more ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("typed", "sentence"),
    [
        (["run", "x"], "interrupted: cancelled job jobabcde; `p2pq retry jobabcde --cancelled` runs the rest"),
        (
            ["map", "x", ":::", "a", "b"],
            "interrupted: cancelled job jobabcde after 1 of 2 tasks; `p2pq retry jobabcde --cancelled` runs the rest",
        ),
    ],
)
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_an_interruption_cancels_the_job(ran, typed, sentence, number, code):
    before = [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)]
    node = Node(chunk(0, b"a\n"), interrupt(number), AssertionError("goes on"))
    assert ran(node, *typed) == (code, b"a\n", f"p2pq: {sentence}\n")
    assert node.kinds() == ["SubmitCommands", "Ends", "CancelJob", "Watch"]
    assert [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)] == before


def test_an_interruption_before_the_job_has_a_name_cancels_it_then(ran):
    node = Node(before=[interrupt()])
    code, _, err = ran(node, "map", "x", ":::", "a")
    assert (code, node.kinds()) == (130, ["SubmitCommands", "CancelJob", "Watch"])
    assert "stops as soon as the node has said which job it is; once more to leave at once\n" in err


def test_a_second_interruption_leaves_at_once(ran):
    node = Node(before=[interrupt(), interrupt(), AssertionError("goes on")])
    code, _, err = ran(node, "map", "x", ":::", "a")
    assert (code, node.kinds()) == (130, ["SubmitCommands"])
    assert "`p2pq jobs` tells whether it has one" in err


class Stubborn(Node):
    """A node of which the job does not end once it is cancelled."""

    def __init__(self, then):
        super().__init__(interrupt())
        self._then = then

    def ask(self, request):
        if request == control.Watch(jobs=(JOB,)):
            self._then()
            raise AssertionError("goes on")
        yield from super().ask(request)


def refuse():
    raise RefusedError("busy\x1b")


@pytest.mark.parametrize(
    ("then", "sentence"),
    [
        (interrupt(), "left before job jobabcde had ended; see `p2pq show jobabcde`"),
        (interrupt(signal.SIGALRM), "it has not ended after 600 s; see `p2pq show jobabcde`"),
        (refuse, "job jobabcde may still run (busy\ufffd); `p2pq cancel jobabcde` stops it"),
    ],
)
def test_a_job_that_does_not_end(ran, then, sentence):
    code, _, err = ran(Stubborn(then), "map", "x", ":::", "a")
    assert code == 130
    assert sentence in err
    assert err.count("\n") == 1


class Deaf(io.BytesIO):
    """An output that takes nothing."""

    def __init__(self, error):
        super().__init__()
        self._error = error

    def write(self, _data):
        raise self._error


@pytest.mark.parametrize(
    ("error", "typed", "code", "said"),
    [
        (BrokenPipeError(32, "Broken pipe"), ["run", "x"], 141, ""),
        (BrokenPipeError(32, "Broken pipe"), ["map", "x", ":::", "a"], 141, ""),
        (OSError(28, "No space left"), ["run", "x"], 125, "p2pq: the output: No space left; mend that and try again\n"),
        (
            OSError(28, "No space left"),
            ["map", "x", ":::", "a"],
            4,
            "p2pq: standard output: No space left; mend that and try again\n",
        ),
        (RefusedError("no more"), ["map", "x", ":::", "a"], 4, "p2pq: no more\n"),
    ],
)
def test_output_that_nobody_takes_cancels_the_job(ran, monkeypatch, error, typed, code, said):
    let_go = []
    monkeypatch.setattr("p2pq.cli.outputs._ours", lambda _stream: Deaf(error))
    monkeypatch.setattr("p2pq.cli.outputs.let_go", lambda: let_go.append(True))
    node = Node(chunk(0, b"a\n"), AssertionError("goes on"))
    cancelled = "p2pq: cancelled job jobabcde; `p2pq retry jobabcde --cancelled` runs the rest\n" if said else ""
    assert ran(node, *typed) == (code, b"", cancelled + said)
    assert node.kinds() == ["SubmitCommands", "Ends", "CancelJob", "Watch"]
    assert let_go == [True] * isinstance(error, OSError)
