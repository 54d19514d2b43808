"""Options of GNU parallel: those that are known, and what is said of those that are not."""

import os

import click
import pytest

from p2pq.cli.grammar import REFUSED, ManyCommand, for_values, grammar_of
from p2pq.cli.inputs import Grammar
from p2pq.cli.main import main
from p2pq.errors import UsageError

PLAIN = {"null": False, "shuf": False, "jobs": ""}


OTHER = {
    "header": None, "arg_sep": ":::", "arg_file_sep": "::::", "colsep": None, "link": False, "trim": None, "max_args": None,
    "quote": False, "max_lines": None, "context": True, "multiple": False, "plus": False,
}  # fmt: skip


def read(*typed):
    seen = {}
    command = ManyCommand("x", callback=lambda **options: seen.update(options))
    command.params = for_values(click.command()(lambda: None)).params
    command.main(typed, standalone_mode=False)
    return grammar_of(PLAIN | seen)


def test_what_is_typed_is_how_it_is_read():
    at_once = len(os.sched_getaffinity(0))
    assert read() == Grammar(at_once=at_once)
    assert read("--header", ":", "-C", ",", "--trim", "rl", "-N", "3") == Grammar(
        header=True, colsep=",", trim="lr", values_max=3, at_once=at_once
    )
    assert grammar_of(PLAIN | OTHER | {"jobs": "1"}).at_once == 1
    assert read("-L", "2").values_max == 2
    assert read("--plus").plus
    assert read("-L", "2", "-n", "3").values_max == 3
    assert read("-X", "--link", "--arg-sep", ",,") == Grammar(fill="context", link=True, values=",,", at_once=at_once)
    assert read("-m", "--arg-file-sep", "::") == Grammar(fill="values", files="::", at_once=at_once)


@pytest.mark.parametrize(
    ("typed", "sentence"),
    [
        (["--header", "x"], "`--header :` takes the first values for names"),
        (["--arg-sep", "::::"], "are the same"),
        (["--plus", "-X"], "--plus goes with one value for each source"),
        (["--plus", "-N", "2"], "--plus goes with one value for each source"),
    ],
)
def test_what_is_not_known(typed, sentence):
    with pytest.raises(UsageError, match=sentence):
        read(*typed)


@pytest.mark.parametrize("option", REFUSED)
@pytest.mark.parametrize("command", ["map", "batch"])
def test_an_option_that_people_bring_along_is_answered_with_what_to_do(option, command, capsys):
    with pytest.raises(SystemExit) as ended:
        main([command, option, "1", "true"])
    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert said == f"p2pq: {option} of GNU parallel is not supported: {REFUSED[option]}\n"
