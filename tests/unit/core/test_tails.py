"""The median of lengths, and which attempts take too long."""

from p2pq.core.tails import LOOK_MAX, SAMPLE, TAIL_S, Pace, Tail
from p2pq.model.ids import LeaseId, Mono


def lease(counter: int) -> LeaseId:
    return LeaseId(1, counter)


def test_the_median_is_of_the_latest_lengths() -> None:
    pace = Pace()
    assert pace.median is None
    for seconds in (5.0, 1.0, 3.0):
        pace.took(seconds)
    assert pace.median == 3.0
    pace.took(4.0)
    assert pace.median == 4.0
    for _ in range(SAMPLE):
        pace.took(9.0)
    assert pace.median == 9.0
    for _ in range(SAMPLE // 2 + 1):
        pace.took(2.0)
    assert pace.median == 2.0


def tail(*began: float) -> Tail:
    found = Tail()
    for number, at in enumerate(began):
        found.begin(lease(number), Mono(at))
    return found


def test_without_anything_to_compare_with_nothing_takes_too_long() -> None:
    known = tail(0.0)
    assert known.due() is None
    assert list(known.overdue(Mono(1e9))) == []
    empty = tail()
    empty.pace.took(1.0)
    assert empty.due() is None


def test_too_long_is_twice_the_median_and_two_seconds_at_least() -> None:
    known = tail(10.0, 11.0)
    known.pace.took(0.1)
    assert known.due() == 10.0 + TAIL_S
    assert list(known.overdue(Mono(11.9))) == []
    assert list(known.overdue(Mono(12.0))) == [lease(0)]
    for _ in range(3):
        known.pace.took(5.0)
    assert known.due() == 20.0
    assert list(known.overdue(Mono(21.0))) == [lease(0), lease(1)]


def test_who_has_ended_or_is_alone_again_counts_from_then() -> None:
    known = tail(0.0, 1.0)
    known.pace.took(1.0)
    known.end(lease(0))
    known.end(lease(7))
    assert len(known) == 1
    assert lease(0) not in known
    known.begin(lease(0), Mono(5.0))
    known.begin(lease(1), Mono(6.0))
    assert known.due() == 7.0
    assert lease(1) in known
    assert list(known.overdue(Mono(8.0))) == [lease(0), lease(1)]


def test_one_look_is_bounded() -> None:
    known = tail(*(0.0 for _ in range(2 * LOOK_MAX)))
    known.pace.took(1.0)
    assert len(list(known.overdue(Mono(9.0)))) == LOOK_MAX
