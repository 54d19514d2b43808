"""Options that several commands take, and what becomes of them: what a task needs, how long it may run, how it is told."""

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import click

from p2pq.errors import UsageError
from p2pq.model.amounts import parse_megabytes, parse_seconds
from p2pq.model.halt import parse_halt
from p2pq.model.job import Resources

F = TypeVar("F", bound=Callable[..., Any])

DETACH = click.option("--detach", is_flag=True, help="Print the job id alone and return.")
QUIET = click.option("--quiet", is_flag=True, help="No progress bar.")


def _halt(_context: click.Context, _option: click.Parameter, text: str) -> str:
    parse_halt(text)  # the node takes an empty one for none
    return text


HALT = click.option(
    "--halt",
    default="never",
    metavar="WHEN",
    callback=_halt,
    help="Stop by itself: now,fail=3, soon,fail=10% (soon: what runs ends first), or with success= or done=.",
)


def for_tasks(*, retries: int) -> Callable[[F], F]:
    """Return a decorator that adds what each task of a job is given: cpus, memory, gpus, time, retries, priority.

    Args:
        retries: further attempts where the user asks for no number of them.
    """
    options = (
        click.option("--cpus", default=1, type=click.IntRange(1, 4096), help="Cpus per task (default 1)."),
        click.option("--memory", default="", metavar="SIZE", help="Memory per task, such as 512M or 4G."),
        click.option("--gpus", default=0, type=click.IntRange(0, 64), help="Gpus per task."),
        click.option(
            "--time", "time_limit", default="", metavar="TIME", help="Longest run of a task, such as 30m (default 24h)."
        ),
        click.option(
            "--retries",
            default=retries,
            type=click.IntRange(0, 1000),
            help=f"Further attempts after a failure (default {retries}).",
        ),
        click.option(
            "--priority", default=0, type=click.IntRange(-100, 100), help="Among your own jobs; higher first."
        ),
    )

    def add(command: F) -> F:
        for option in reversed(options):
            command = option(command)
        return command

    return add


def resources_of(options: Mapping[str, Any]) -> Resources:
    """Return what ``for_tasks`` and, where there is one, ``--need`` ask for."""
    return Resources(
        cpus=options["cpus"],
        memory_mb=parse_megabytes(options["memory"]) if options["memory"] else 0,
        gpus=options["gpus"],
        needs=tuple(_need(text) for text in options.get("need", ())),
    )


def time_of(options: Mapping[str, Any]) -> int:
    """Return the seconds of ``--time``, 0 where it was not given."""
    return parse_seconds(options["time_limit"]) if options["time_limit"] else 0


def _need(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not equals or not key.strip() or not value.strip():
        raise UsageError(f"--need {text!r} is not K=V; write it like --need os=linux or --need has=numpy")
    return key.strip(), value.strip()
