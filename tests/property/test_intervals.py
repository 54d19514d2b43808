"""Interval sets behave as sets; deadlines fire as a sorted list does."""

from hypothesis import given
from hypothesis import strategies as st

from p2pq.core.deadlines import Deadlines
from p2pq.core.intervals import IntervalSet
from p2pq.model.ids import Mono

edges = st.tuples(st.integers(0, 40), st.integers(0, 40))
steps = st.lists(st.tuples(st.sampled_from(["add", "remove", "take"]), edges), max_size=30)


@given(steps)
def test_an_interval_set_is_a_set(todo: list[tuple[str, tuple[int, int]]]) -> None:
    numbers, model = IntervalSet(), set()
    for what, (start, stop) in todo:
        if what == "add":
            numbers.add(start, stop)
            model |= set(range(start, stop))
        elif what == "remove":
            numbers.remove(start, stop)
            model -= set(range(start, stop))
        else:
            taken = sorted(model)[:start]
            assert numbers.take(start) == taken
            model -= set(taken)
        numbers.check()
        assert list(numbers) == sorted(model)
        assert len(numbers) == len(model)
        assert [value in numbers for value in range(41)] == [value in model for value in range(41)]


keys = st.sampled_from("abcde")
moves = st.lists(
    st.tuples(st.sampled_from(["set", "set", "cancel", "pop"]), keys, st.integers(0, 9)),
    max_size=200,
)


@given(moves)
def test_deadlines_fire_as_a_sorted_list_does(todo: list[tuple[str, str, int]]) -> None:
    deadlines: Deadlines[str] = Deadlines()
    model: dict[str, int] = {}
    for what, key, at in todo:
        if what == "set":
            deadlines.set(key, Mono(at))
            model[key] = at
        elif what == "cancel":
            deadlines.cancel(key)
            model.pop(key, None)
        else:
            due = deadlines.pop(Mono(at))
            soonest = min(model.values(), default=99)
            assert (due is None) == (soonest > at)
            if due is not None:
                assert model.pop(due) == soonest
        deadlines.check()
        assert deadlines.next == min(model.values(), default=None)
        assert len(deadlines) == len(model)
        assert all(
            deadlines.get(name) == model.get(name) and (name in deadlines) == (name in model) for name in "abcde"
        )
