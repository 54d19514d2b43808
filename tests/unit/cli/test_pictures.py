"""What the screensaver shows."""

from datetime import datetime

import pytest

from p2pq.cli.pictures import BRIGHT, DIM, PERIODS_S, ROWS_MAX, Line, lines, place
from p2pq.wire.control import StatusView
from p2pq.wire.parts import PolicyView, RunningView

NOW = datetime(2026, 3, 4, 14, 5)  # noqa: DTZ001  of the clock on the wall


def status(*running: RunningView, reason: str = "", peers: int = 2) -> StatusView:
    return StatusView(
        id="x" * 26,
        name="lab3",
        mesh="lab",
        version="1",
        address="",
        slots=4,
        free=1,
        policy=PolicyView(state="run", reason=reason),
        running=running,
        peers=peers,
        queued=0,
        sandbox="strict",
    )


def task(**changes: object) -> RunningView:
    given = {"job": "abcdefgh", "task": 3, "owner": "anna", "node": "desk", "seconds": 65.0, "own": False}
    return RunningView(**given | changes)  # type: ignore[arg-type]


def test_tasks_stand_in_columns_with_their_progress_and_owners_are_named_once() -> None:
    running = (
        task(progress=0.5, seconds=5.0),
        task(seconds=200.0, task=11),
        task(job="zzzz", owner="me", own=True, state="suspended"),
    )
    assert lines(status(*running), {"zzzz": "mine"}, NOW) == [
        Line("lab3", BRIGHT, large=True),
        Line("computes for anna and me"),
        Line(""),
        Line("anna  from desk  job abcdefgh, task 11  3:20"),
        Line("me               mine, task 3           65 s        suspended"),
        Line("anna  from desk  job abcdefgh, task 3   5.0 s  50%", part=0.5),
        Line(""),
        Line("mesh lab   2 peers   14:05", DIM),
    ]


def test_many_tasks_and_owners_are_counted() -> None:
    shown = lines(status(*(task(owner=f"o{number}") for number in range(ROWS_MAX + 3))), {}, NOW)
    assert shown[1].text == "computes for o0, o1, o10 and 10 more"
    assert shown[-3].text == "and 3 more"
    assert len(shown) == ROWS_MAX + 6


@pytest.mark.parametrize(
    ("reason", "said"),
    [("", "computes nothing: nobody asks for anything"), ("somebody is here", "computes nothing: somebody is here")],
)
def test_without_a_task_it_is_said_why(reason: str, said: str) -> None:
    shown = lines(status(reason=reason, peers=1), {}, NOW)
    assert [line.text for line in shown] == ["lab3", said, "", "mesh lab   1 peer   14:05"]


def test_without_a_node_it_is_said_how_to_start_one() -> None:
    assert [line.text for line in lines(None, {}, NOW)] == ["p2pq", "no node runs here; p2pq start", "", "14:05"]


def test_what_others_wrote_is_made_harmless() -> None:
    shown = lines(status(task(owner="a\x1b[2Jb\n", node="x\ny")), {"abcdefgh": "n\tm"}, NOW)
    assert not [line.text for line in shown if set(line.text) & set("\x1b\n\t")]


def test_the_picture_moves_slowly_and_stays_on_the_screen() -> None:
    room = (1000, 500)
    assert place(0.0, room) == (500, 250)
    assert place(PERIODS_S[0] / 4, room)[0] == 1000
    assert place(PERIODS_S[1] * 3 / 4, room)[1] == 0
    assert place(99.0, (-5, 0)) == (0, 0)
    for second in range(1000):
        (x, y), (u, v) = place(second, room), place(second + 1, room)
        assert abs(x - u) <= 6
        assert abs(y - v) <= 6
        assert 0 <= x <= 1000
        assert 0 <= y <= 500
