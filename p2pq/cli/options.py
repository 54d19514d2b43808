"""Options that several commands take, and what becomes of them: what a task needs, how long it may run, how it is told."""

import re
from collections.abc import Callable, Mapping
from typing import Any, Final, TypeVar

import click

from p2pq.errors import UsageError
from p2pq.model.amounts import parse_megabytes, parse_milliseconds, parse_seconds
from p2pq.model.halt import parse_halt
from p2pq.model.job import Resources
from p2pq.wire.commandcontrol import DELAY_MS_MAX

F = TypeVar("F", bound=Callable[..., Any])

DETACH = click.option("--detach", is_flag=True, help="Print the job id alone and return.")
QUIET = click.option("--quiet", is_flag=True, help="No progress bar.")
NAME: Final = click.option("--name", default="", help="What to call the job (default: after the command).")
WHERE: Final = click.option(
    "--where",
    default="local",
    metavar="any|local|NAME",
    help="This machine, in this folder (default); any machine, or that one, in a sandbox with what --file sends.",
)
FILES: Final = click.option(
    "--file", "files", multiple=True, metavar="FILE", help="With --where: send it along; may hold {} and its kin."
)
RETURNS: Final = click.option(
    "--return", "returns", multiple=True, metavar="FILE", help="With --where: bring it back; may hold {} and its kin."
)
BEGIN: Final = click.option(
    "--begin",
    default="",
    metavar="CMD",
    help="Run this shell command before the first task in each runner, for all tasks there: what it exports they have.",
)
END: Final = click.option(
    "--end", default="", metavar="CMD", help="Run this shell command in each runner after its last task."
)


def _delay(_context: click.Context, _option: click.Parameter, text: str) -> int:
    """Return the milliseconds of ``--delay``."""
    delay_ms = parse_milliseconds(text) if text else 0
    if delay_ms > DELAY_MS_MAX:
        raise UsageError(f"--delay {text} is too long; at most 24h may lie between two starts")
    return delay_ms


DELAY: Final = click.option(
    "--delay",
    "delay_ms",
    default="",
    metavar="TIME",
    callback=_delay,
    help="Let so much time pass between the starts of any two tasks, as 0.5 or 1m; those that wait hold their slots.",
)
LESS: Final = click.option("--quiet", "-q", is_flag=True, help="No remarks but errors.")
MAP_QUIET: Final = click.option("--quiet", is_flag=True, help="No remarks but errors.")  # -q is GNU parallel's
NULL: Final = click.option("--null", "-0", is_flag=True, help="Items of files end with NUL instead of at line ends.")


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


_AT_ONCE = re.compile(r"([+-]?)([0-9]{1,6})(%?)")


def _jobs(_context: click.Context, _option: click.Parameter, text: str) -> str:
    if text and (_AT_ONCE.fullmatch(text) is None or (text[0] in "+-" and text.endswith("%"))):
        raise UsageError(f"--jobs {text!r} is no number of tasks; write it like 2, 50%, +1 or -1, or 0 for all slots")
    return text


JOBS = click.option(
    "--jobs",
    "--max-procs",
    "-j",
    "-P",
    default="",
    metavar="N",
    callback=_jobs,
    help="At most so many at a time: 2, 50% of the slots, -1 (all but one), 0 (all). Each has its share of the slots.",
)


def at_once(text: str, slots: int) -> int:
    """Return how many tasks ``--jobs`` lets run at the same time on a node with that many slots; at least one."""
    match = _AT_ONCE.fullmatch(text)
    if match is None:
        return slots
    sign, number, percent = match[1], int(match[2]), match[3]
    wanted = slots * number // 100 if percent else {"+": slots + number, "-": slots - number, "": number or slots}[sign]
    return max(1, min(wanted, slots))


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
            "--time",
            "--timeout",
            "time_limit",
            default="",
            metavar="TIME",
            help="Longest run of a task, as 30m (default 24h).",
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
