"""Whose doing a failure was, in one clause."""

import pytest

from p2pq.daemon.blame import Verdict, how, judge
from p2pq.daemon.history import AttemptRow
from p2pq.model.ids import LeaseId, NodeId, Wall
from p2pq.model.job import Outcome

BAD = Outcome(reason="exit", exit=3)
OK = Outcome(reason="ok", exit=0)


def row(attempt, node, **fields):
    return AttemptRow(
        task=0,
        attempt=attempt,
        lease=LeaseId(1, attempt),
        worker=NodeId(node.encode().ljust(32, b"\0")),
        granted=Wall(0),
        **fields,
    )


def judged(*attempts):
    return judge(attempts, lambda node: node.rstrip(b"\0").decode())


def test_nobody_is_at_fault_where_nothing_failed():
    assert judged() is None
    assert judged(row(1, "ann"), row(2, "ann", outcome=OK), row(3, "bob", fault="evicted")) is None


def test_nobody_is_at_fault_where_one_was_told_to_end_and_left_a_checkpoint():
    saved = row(1, "ann", outcome=Outcome(reason="saved", exit=1), counted=False)
    assert judged(saved) is None
    assert judged(saved, row(2, "bob", outcome=BAD)) == Verdict(
        "the task failed by its own doing (exit 3 on bob), and nowhere else was it tried", 2
    )


def test_what_fails_everywhere_is_the_task():
    assert judged(row(1, "ann", outcome=BAD), row(2, "bob", outcome=BAD)) == Verdict(
        "the task is at fault, it failed on 2 machines (exit 3 on ann, bob)", 2
    )


def test_what_failed_on_one_machine_only_is_said_so():
    killed = Outcome(reason="signal", signal=9)
    assert judged(row(1, "ann", outcome=BAD), row(2, "ann", outcome=BAD), row(3, "ann", outcome=killed)) == Verdict(
        "the task failed by its own doing (exit 3 on ann, signal 9 on ann), and nowhere else was it tried", 3
    )


def test_workers_that_lose_it_are_at_fault_themselves():
    lost = [row(attempt, f"n{attempt}", fault="lost") for attempt in range(1, 7)]
    assert judged(*lost) == Verdict(
        "6 attempts ended by their workers' doing, not the task's (lost on n1, n2, n3, n4 and 2 more)", 0
    )
    assert judged(lost[0]) == Verdict("1 attempt ended by its worker's doing, not the task's (lost on n1)", 0)


def test_both_are_told_and_the_attempt_with_output():
    found = judged(row(1, "ann", outcome=BAD), row(2, "bob", fault="disk"))
    assert found == Verdict(
        "the task failed by its own doing (exit 3 on ann), and nowhere else was it tried; "
        "1 attempt ended by its worker's doing (disk on bob)",
        1,
    )


def test_a_failure_that_does_not_count_says_why():
    died = row(1, "ann", outcome=Outcome(reason="runner-died"), counted=False)
    suspect = row(2, "bob", outcome=BAD, counted=False)
    assert judged(died) == Verdict("its runner died, which counts from the second time on (runner-died on ann)", 1)
    assert judged(suspect) == Verdict(
        "attempts fail there that succeed elsewhere, which counts against the machine (exit 3 on bob)", 2
    )
    assert judged(died, suspect, row(3, "ann", outcome=BAD)) == Verdict(
        "the task failed by its own doing (exit 3 on ann), and nowhere else was it tried; "
        "attempts fail there that succeed elsewhere, which counts against the machine (exit 3 on bob); "
        "its runner died, which counts from the second time on (runner-died on ann)",
        3,
    )


@pytest.mark.parametrize(
    ("outcome", "said"),
    [(BAD, "exit 3"), (Outcome(reason="signal", signal=9), "signal 9"), (Outcome(reason="time-limit"), "time-limit")],
)
def test_how_an_attempt_ended(outcome, said):
    assert how(outcome) == said


def test_an_environment_that_could_not_be_built_is_said_with_its_package():
    why = "environment of requirements.txt: x was not found"
    assert judged(
        row(1, "ann", fault="sandbox", detail=why), row(2, "bob", fault="sandbox", detail="no bwrap")
    ) == Verdict(f"2 attempts ended by their workers' doing, not the task's ({why} on ann, sandbox on bob)", 0)
