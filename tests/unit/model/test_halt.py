"""GNU parallel's grammar of halting, and when it is time."""

import pytest

from p2pq.errors import UsageError
from p2pq.model.halt import Halt, parse_halt
from p2pq.model.job import TASKS_MAX


@pytest.mark.parametrize(
    ("text", "halt"),
    [
        ("never", None),
        ("now,fail=1", Halt(now=True, what="fail", count=1)),
        ("soon, fail=3", Halt(now=False, what="fail", count=3)),
        ("now,fail=10%", Halt(now=True, what="fail", count=10, percent=True)),
        ("soon,success=2", Halt(now=False, what="success", count=2)),
        ("now,done=100%", Halt(now=True, what="done", count=100, percent=True)),
    ],
)
def test_what_can_be_written(text, halt):
    assert parse_halt(text) == halt


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "never ",
        "now,fail=1 ",
        " now,fail=1",
        "now ,fail=1",
        "now,fail=1\n",
        "later,fail=1",
        "now",
        "now,fail",
        "now,fail=x",
        "now,fail=-1",
        "2",
        "now,fail=1%%",
    ],
)
def test_what_cannot(text):
    with pytest.raises(UsageError, match="is not known; write it like never, now,fail=1"):
        parse_halt(text)


@pytest.mark.parametrize("text", ["now,fail=0", "soon,fail=101%", f"now,done={TASKS_MAX + 1}"])
def test_numbers_have_bounds(text):
    with pytest.raises(UsageError, match="the least is 1"):
        parse_halt(text)


def reached(text, done, failed, total=10):
    halt = parse_halt(text)
    return halt.reached(done=done, failed=failed, total=total)


def test_tasks_are_counted():
    assert [reached("now,fail=2", 9, failed) for failed in (1, 2, 3)] == [False, True, True]
    assert [reached("now,success=2", done, 9) for done in (1, 2)] == [False, True]
    assert [reached("now,done=5", 3, failed) for failed in (1, 2)] == [False, True]


def test_a_share_is_of_the_tasks_that_are_over_and_of_three_at_least():
    assert not reached("now,fail=50%", 0, 2)
    assert reached("now,fail=50%", 1, 2)
    assert not reached("now,fail=50%", 3, 2)
    assert not reached("now,success=100%", 2, 0)
    assert reached("now,success=100%", 3, 0)
    assert [reached("soon,done=40%", done, 1) for done in (2, 3)] == [False, True]


def test_it_says_after_what():
    assert parse_halt("now,fail=1").sentence(done=4, failed=1) == "halted after 1 failure"
    assert parse_halt("now,fail=3").sentence(done=4, failed=3) == "halted after 3 failures"
    assert parse_halt("now,fail=30%").sentence(done=7, failed=3) == "halted after 3 failures in 10 tasks"
    assert parse_halt("soon,success=2").sentence(done=2, failed=0) == "halted after 2 successes"
    assert parse_halt("soon,done=50%").sentence(done=4, failed=1) == "halted after 5 tasks"
