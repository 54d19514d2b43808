"""Options that several commands share, and what becomes of them."""

import click
import pytest

from p2pq.cli import options
from p2pq.errors import UsageError
from p2pq.model.job import Resources


def parsed(*typed, retries=1):
    @click.command()
    @options.for_tasks(retries=retries)
    @options.HALT
    @click.option("--need", multiple=True)
    def command(**given):
        return given

    return command.main(list(typed), standalone_mode=False)


def test_what_nobody_asked_for():
    given = parsed(retries=3)
    assert options.resources_of(given) == Resources()
    assert (options.time_of(given), given["retries"], given["priority"], given["halt"]) == (0, 3, 0, "never")


def test_what_was_asked_for():
    given = parsed(
        *("--cpus", "2", "--memory", "1G", "--gpus", "1", "--time", "2m", "--retries", "5", "--priority", "-7"),
        *("--halt", "soon,done=50%", "--need", "os = linux", "--need", "has=numpy"),
    )
    needs = (("os", "linux"), ("has", "numpy"))
    assert options.resources_of(given) == Resources(cpus=2, memory_mb=1024, gpus=1, needs=needs)
    assert (options.time_of(given), given["retries"], given["priority"]) == (120, 5, -7)
    assert given["halt"] == "soon,done=50%"


@pytest.mark.parametrize("text", ["os", "=linux", "os=", " = "])
def test_what_is_no_label(text):
    with pytest.raises(UsageError, match="write it like --need os=linux"):
        options.resources_of(parsed("--need", text))


def test_a_condition_to_stop_is_checked_as_it_is_typed():
    with pytest.raises(UsageError, match="--halt '' is not known"):
        parsed("--halt", "")


@pytest.mark.parametrize(
    ("text", "slots", "found"),
    [
        ("", 4, 4), ("0", 4, 4), ("1", 4, 1), ("3", 4, 3), ("9", 4, 4), ("50%", 4, 2), ("30%", 4, 1), ("0%", 4, 1),
        ("200%", 4, 4), ("+0", 4, 4), ("+2", 4, 4), ("-1", 4, 3), ("-9", 4, 1),
    ],
)  # fmt: skip
def test_so_many_tasks_at_a_time(text, slots, found):
    assert options.at_once(text, slots) == found


@pytest.mark.parametrize("text", ["x", "1.5", "+50%", "-10%", "1e3", "procfile"])
def test_what_is_no_number_of_tasks(text):
    command = click.command()(options.JOBS(lambda **_given: None))
    with pytest.raises(UsageError, match=r"write it like 2, 50%, \+1 or -1, or 0 for all slots"):
        command.main(["--jobs", text], standalone_mode=False)


def test_the_longest_run_has_two_names():
    assert options.time_of(parsed("--timeout", "90")) == 90
