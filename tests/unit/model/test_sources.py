"""Input sources: how many tasks they make, and which values each has."""

import pytest

from p2pq.errors import UsageError
from p2pq.model.params import Axis
from p2pq.model.sources import Source, axes, count, values

LETTERS = Source(("a", "b"))
PAIRS = Source(("x", "1", "y", "2", "z", "3"), 2)


def test_a_source_has_rows_of_columns():
    assert (LETTERS.rows(), PAIRS.rows()) == (2, 3)
    assert [PAIRS.row(position) for position in range(3)] == [("x", "1"), ("y", "2"), ("z", "3")]


def test_the_last_row_may_be_short():
    short = Source(("a", "b", "c"), 2)
    assert (short.rows(), short.row(0), short.row(1)) == (2, ("a", "b"), ("c",))
    assert [values((short,), index) for index in range(count((short,)))] == [("a", "b"), ("c",)]
    assert axes((short,)) == (Axis("1-2", ("a\tb", "c")),)


def test_sources_multiply_and_the_last_varies_fastest():
    sources = (LETTERS, PAIRS)
    assert count(sources) == 6
    assert [values(sources, index) for index in range(6)] == [
        ("a", "x", "1"),
        ("a", "y", "2"),
        ("a", "z", "3"),
        ("b", "x", "1"),
        ("b", "y", "2"),
        ("b", "z", "3"),
    ]


def test_without_sources_there_is_one_task_without_values():
    assert count(()) == 1
    assert values((), 0) == ()


def test_too_many_tasks_are_refused():
    thousand = Source(tuple(map(str, range(1000))))
    with pytest.raises(UsageError, match="makes 1000000000 tasks; the most is"):
        count((thousand,) * 3)


def test_people_see_sources_by_the_numbers_of_their_columns():
    assert axes((LETTERS, PAIRS, LETTERS)) == (
        Axis("1", ("a", "b")),
        Axis("2-3", ("x\t1", "y\t2", "z\t3")),
        Axis("4", ("a", "b")),
    )
