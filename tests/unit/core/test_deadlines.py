import pytest

from p2pq.core.deadlines import Deadlines
from p2pq.model.ids import Mono


def drain(deadlines: Deadlines[str], now: float) -> list[str]:
    keys = []
    while (key := deadlines.pop(Mono(now))) is not None:
        keys.append(key)
        deadlines.check()
    return keys


def test_the_earliest_fires_first_and_ties_in_the_order_set() -> None:
    deadlines: Deadlines[str] = Deadlines()
    for key, at in (("z", 2.0), ("b", 1.0), ("a", 1.0)):
        deadlines.set(key, Mono(at))
    assert deadlines.next == 1.0
    assert drain(deadlines, 0.9) == []
    assert drain(deadlines, 2.0) == ["b", "a", "z"]
    assert deadlines.next is None
    assert len(deadlines) == 0


def test_moving_later_and_earlier_and_cancelling() -> None:
    deadlines: Deadlines[str] = Deadlines()
    deadlines.set("a", Mono(1.0))
    deadlines.set("b", Mono(2.0))
    deadlines.set("c", Mono(3.0))
    deadlines.set("a", Mono(5.0))
    deadlines.set("c", Mono(0.5))
    deadlines.cancel("b")
    deadlines.cancel("nobody")
    deadlines.check()
    assert (deadlines.get("a"), deadlines.get("b")) == (5.0, None)
    assert ("a" in deadlines, "b" in deadlines) == (True, False)
    assert list(deadlines) == ["a", "c"]
    assert deadlines.next == 0.5
    assert drain(deadlines, 4.9) == ["c"]
    assert deadlines.next == 5.0
    deadlines.set("c", Mono(4.0))
    assert drain(deadlines, 9.0) == ["c", "a"]


def test_stale_entries_are_cleared_away() -> None:
    deadlines: Deadlines[str] = Deadlines()
    deadlines.set("kept", Mono(5000.0))
    for step in range(1000):
        deadlines.set("moved", Mono(2000.0 - step))
    assert len(deadlines._heap) <= 70
    assert drain(deadlines, 6000.0) == ["moved", "kept"]


def test_check_finds_a_deadline_that_would_be_missed() -> None:
    deadlines: Deadlines[str] = Deadlines()
    deadlines.set("a", Mono(1.0))
    deadlines._heap.clear()
    with pytest.raises(AssertionError, match="missed"):
        deadlines.check()
