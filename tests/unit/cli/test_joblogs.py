"""Logs of ended tasks, beyond what tests of the commands show: what they tell whoever goes on."""

import pytest

from p2pq.cli import joblogs
from p2pq.cli.joblogs import JobLog
from p2pq.core.intervals import IntervalSet
from p2pq.errors import UsageError
from p2pq.wire.commandcontrol import TaskEnded

HEAD = "\t".join(joblogs.HEAD) + "\n"


def line(seq, exit_code, signal=0, command="x"):
    return f"{seq}\t:\t1.0\t     0.1\t0\t0\t{exit_code}\t{signal}\t{command}\n"


def test_what_a_log_tells(tmp_path):
    """As GNU parallel: one line that says so makes a task successful."""
    log = tmp_path / "log"
    log.write_text(
        HEAD + line(1, 0) + line(1, 3) + line(2, 3, command="early") + line(2, 0) + line(4, 0, 9, "nine") + line(6, -1)
        + line(6, 2, command="a\tb\0c") + "noise\n" + line(7, 0).rstrip("\n")
    )  # fmt: skip
    past = joblogs.read(log)
    assert past.ran == IntervalSet([(0, 2), (3, 4), (5, 6)])
    assert past.succeeded == IntervalSet([(0, 2)])
    assert past.failed() == {3: "nine", 5: "a\tb\nc"}


def test_a_log_that_is_not_there_or_empty_tells_nothing(tmp_path):
    (tmp_path / "empty").touch()
    for name in ("none", "empty"):
        assert joblogs.read(tmp_path / name) == joblogs.Past()


@pytest.mark.parametrize(
    ("text", "sentence"),
    [("a story\n", "is no log of --joblog"), (HEAD + line(20_000_000, 0), "more than 10000000 tasks")],
)
def test_what_is_no_log_is_left_alone(tmp_path, text, sentence):
    (tmp_path / "log").write_text(text)
    with pytest.raises(UsageError, match=sentence):
        joblogs.read(tmp_path / "log")


def test_a_line_that_was_cut_off_is_ended_before_the_next(tmp_path):
    log = tmp_path / "log"
    for before in ("", HEAD, HEAD + line(1, 0), HEAD + line(1, 0) + "2\t:"):
        log.write_text(before)
        with JobLog(log, goes_on=True) as opened:
            opened.add(TaskEnded(task=4, state="done", exit=0), "\udcff")
        text = log.read_bytes()
        assert text.startswith(HEAD.encode())
        assert text.splitlines()[-1].split(b"\t")[0::8] == [b"5", b"\xff"]
        assert (0 in joblogs.read(log).ran, 4 in joblogs.read(log).ran) == ("1\t:" in before, True)
