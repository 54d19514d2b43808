"""Arrays and sweeps, as typed and as told to tasks."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pq.errors import UsageError
from p2pq.model.params import (
    ARGV_CHARS_MAX,
    VALUE_CHARS_MAX,
    Axis,
    Range,
    array_value,
    count_tasks,
    expand,
    parse_array,
    parse_sweep,
    task_index,
    task_number,
    task_params,
)


@pytest.mark.parametrize(
    ("text", "ranges"),
    [
        ("7", (Range(7, 7),)),
        ("0-99", (Range(0, 99),)),
        ("0-99:5", (Range(0, 99, 5),)),
        ("3,7, 10-12", (Range(3, 3), Range(7, 7), Range(10, 12))),
    ],
)
def test_an_array_is_read_as_typed(text, ranges):
    assert parse_array(text) == ranges


@pytest.mark.parametrize("text", ["", "a", "1-", "5-1", "0-9:0", "1,1", "1-5,3", "-1", "1;2", "0-99999999", "1-2:"])
def test_a_bad_array_is_refused_with_what_to_write(text):
    with pytest.raises(UsageError, match="--array"):
        parse_array(text)


@pytest.mark.parametrize(
    ("text", "axis"),
    [
        ("k=1,2,3", Axis("k", ("1", "2", "3"))),
        ("x=0:1:0.25", Axis("x", ("0", "0.25", "0.5", "0.75", "1"))),
        ("x=0:1:0.1", Axis("x", ("0", "0.1", "0.2", "0.3", "0.4", "0.5", "0.6", "0.7", "0.8", "0.9", "1"))),
        ("n=3:1:-1", Axis("n", ("3", "2", "1"))),
        ("n=1:3", Axis("n", ("1", "2", "3"))),
        ("n=-0.5:0:0.5", Axis("n", ("-0.5", "0"))),
        ("n=-0:0", Axis("n", ("0",))),
        ("host=a:b", Axis("host", ("a:b",))),
        ("t=1:2:3:4", Axis("t", ("1:2:3:4",))),
        ("e=nan:1", Axis("e", ("nan:1",))),
        ("e=100:200:50", Axis("e", ("100", "150", "200"))),
    ],
)
def test_a_sweep_is_read_as_typed(text, axis):
    assert parse_sweep(text) == axis


@pytest.mark.parametrize(
    "text",
    ["", "k", "k=", "=1", "1k=2", "task=1", "x=0:1:0", "x=0:1:-1", "x=0:1e9:0.001", "k=" + "v" * 65_537],
)
def test_a_bad_sweep_is_refused(text):
    with pytest.raises(UsageError, match="--sweep"):
        parse_sweep(text)


def test_several_axes_multiply_and_the_last_varies_fastest():
    axes = (Axis("a", ("x", "y")), Axis("b", ("1", "2", "3")))
    assert count_tasks((), axes) == 6
    assert [task_params((), axes, index) for index in (0, 1, 3)] == [
        {"a": "x", "b": "1"},
        {"a": "x", "b": "2"},
        {"a": "y", "b": "1"},
    ]


def test_an_array_beside_a_sweep_is_the_slowest_axis():
    array, axes = (Range(5, 6),), (Axis("a", ("x", "y")),)
    assert count_tasks(array, axes) == 4
    assert task_params(array, axes, 2) == {"array": "6", "a": "x"}
    assert task_number(array, axes, 2) == 2
    assert task_index(array, axes, 2) == 2
    assert task_index(array, axes, 4) is None


def test_an_array_alone_names_the_tasks():
    array = (Range(3, 3), Range(10, 20, 5))
    assert [task_number(array, (), index) for index in range(4)] == [3, 10, 15, 20]
    assert [task_index(array, (), number) for number in (3, 10, 15, 20)] == [0, 1, 2, 3]
    assert task_index(array, (), 11) is None
    with pytest.raises(IndexError):
        array_value(array, 4)


def test_a_job_without_either_is_one_task():
    assert count_tasks((), ()) == 1
    assert task_params((), (), 0) == {}
    assert task_number((), (), 0) == 0


def test_one_parameter_twice_or_too_many_tasks_is_refused():
    with pytest.raises(UsageError, match="twice"):
        count_tasks((), (Axis("a", ("1",)), Axis("a", ("2",))))
    thousand = tuple(map(str, range(1000)))
    with pytest.raises(UsageError, match="the most is"):
        count_tasks((Range(0, 99),), (Axis("a", thousand), Axis("b", thousand)))


def test_arguments_are_filled_and_unnamed_axes_appended():
    axes = (Axis("rate", ("5",)), Axis("seed", ("1",)))
    params = {"rate": "5", "seed": "1"}
    assert expand(["--r={rate}", "{task}/{job}", "{other}", "{}"], params, job="j1", task=7, swept=axes) == [
        "--r=5",
        "7/j1",
        "{other}",
        "{}",
        "--seed",
        "1",
    ]


@given(
    st.lists(st.tuples(st.integers(0, 50), st.integers(0, 20), st.integers(1, 7)), min_size=1, max_size=4),
)
def test_numbers_and_indexes_are_inverse(pieces):
    text, at = [], 0
    for gap, span, step in pieces:
        text.append(f"{at + gap}-{at + gap + span}:{step}")
        at += gap + span + 1
    array = parse_array(",".join(text))
    total = count_tasks(array, ())
    numbers = [task_number(array, (), index) for index in range(total)]
    assert len(set(numbers)) == total
    assert [task_index(array, (), number) for number in numbers] == list(range(total))


def test_arguments_that_would_grow_without_bound_are_refused_before_they_are_built():
    axes = (Axis("x", ("v" * VALUE_CHARS_MAX,)),)
    with pytest.raises(UsageError, match="longer than"):
        expand(["{x}" * 1000], {"x": axes[0].values[0]}, job="j", task=3, swept=axes)
    with pytest.raises(UsageError, match="longer than"):
        expand(["a" * (ARGV_CHARS_MAX + 1)], {}, job="j", task=3, swept=())
