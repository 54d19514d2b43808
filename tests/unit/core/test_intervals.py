import pytest

from p2pq.core.intervals import IntervalSet


def test_adding_melts_what_touches_or_overlaps() -> None:
    numbers = IntervalSet([(0, 2), (4, 6), (8, 10)])
    numbers.add(2, 4)
    assert numbers.intervals() == ((0, 6), (8, 10))
    numbers.add(7)
    assert numbers.intervals() == ((0, 6), (7, 10))
    numbers.add(5, 8)
    assert numbers.intervals() == ((0, 10),)
    numbers.add(3, 4)
    assert numbers.intervals() == ((0, 10),)
    numbers.add(20, 20)
    assert len(numbers) == 10
    numbers.check()


def test_removing_splits() -> None:
    numbers = IntervalSet([(0, 10)])
    numbers.remove(3)
    numbers.remove(5, 7)
    numbers.remove(5, 7)
    numbers.remove(11)
    numbers.remove(1, 1)
    assert numbers.intervals() == ((0, 3), (4, 5), (7, 10))
    numbers.remove(2, 8)
    assert numbers.intervals() == ((0, 2), (8, 10))
    numbers.remove(0, 2)
    assert list(numbers) == [8, 9]
    numbers.check()


def test_membership_and_order() -> None:
    numbers = IntervalSet([(5, 7), (1, 2)])
    assert [n for n in range(-1, 9) if n in numbers] == [1, 5, 6]
    assert numbers.first() == 1
    assert numbers == IntervalSet([(1, 2), (5, 6), (6, 7)])
    assert numbers != IntervalSet([(1, 2)])
    assert numbers != [1, 5, 6]
    assert repr(numbers) == "IntervalSet([(1, 2), (5, 7)])"


def test_take_is_smallest_first_and_bounded() -> None:
    numbers = IntervalSet([(0, 2), (4, 1_000_004)])
    assert numbers.take(0) == []
    assert numbers.take(4) == [0, 1, 4, 5]
    assert numbers.intervals() == ((6, 1_000_004),)
    numbers.clear()
    assert numbers.take(3) == []
    with pytest.raises(IndexError):
        numbers.first()


def test_check_finds_a_broken_set() -> None:
    numbers = IntervalSet([(0, 2)])
    numbers._count = 3
    with pytest.raises(AssertionError, match="the count is wrong"):
        numbers.check()
    numbers._starts, numbers._stops = [0, 2], [2, 3]
    with pytest.raises(AssertionError, match="touch"):
        numbers.check()
