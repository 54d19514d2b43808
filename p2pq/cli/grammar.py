"""Options of GNU parallel about values and command lines, and sentences about those that p2pq has no use for."""

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, TypeVar

import click

from p2pq.cli.inputs import Grammar
from p2pq.cli.options import (
    BEGIN,
    DELAY,
    DETACH,
    END,
    FILES,
    HALT,
    JOBS,
    NAME,
    NULL,
    RETURNS,
    WHERE,
    at_once,
    for_tasks,
)
from p2pq.errors import UsageError

F = TypeVar("F", bound=Callable[..., Any])

_MACHINES: Final = "p2pq finds machines itself; --where any runs commands on them"
_SENT: Final = "with --where any, --file FILE goes along with every task"
REFUSED: Final[Mapping[str, str]] = {
    "--latest-line": "--line-buffer prints lines as they come",
    "--ll": "--line-buffer prints lines as they come",
    "--round-robin": "--pipe gives each block to a task of its own",
    "--cat": "tasks read their standard input; write `cat > file` into the command",
    "--fifo": "tasks read their standard input; write `cat > file` into the command",
    "--onall": _MACHINES,
    "--nonall": _MACHINES,
    "--sshlogin": _MACHINES,
    "--sshloginfile": _MACHINES,
    "-S": _MACHINES,
    "--transferfile": _SENT,
    "--transfer": "with --where any, --file {} goes along",
    "--basefile": _SENT,
    "--trc": "with --where any, --file {} --return FILE goes there and back",
    "--cleanup": "of --where any nothing stays on other machines",
    "--progress": "--bar and --eta show how far it is",
    "--no-run-if-empty": "an empty line is a value; leave such lines out, as with `grep .`",
    "-r": "an empty line is a value; leave such lines out, as with `grep .`",
    "-I": "the replacement string is {}",
    "--max-chars": "-X and -m fill command lines up to 64 KiB; -n N limits them",
    "-s": "-X and -m fill command lines up to 64 KiB; -n N limits them",
    "--group": "output is always grouped; leave it out",
    "--will-cite": "there is nothing to agree to; leave it out",
    "--rpl": "replacement strings of one's own would be Perl; cut values in the command, as in: echo {} | sed s/a/b/",
    "--semaphore": "`p2pq run` queues a command",
    "--tmux": "`p2pq logs JOB.TASK --follow` shows what a task prints",
    "--load": "the node looks at the load itself; see [policy] in its configuration",
    "--nice": "write `nice` into the command",
    "--workdir": "commands run in this folder; write `cd` into the command",
    "--wd": "commands run in this folder; write `cd` into the command",
    "--env": "commands have the whole environment of this shell",
}
"""Options that people bring along, and what to do instead."""


class ManyCommand(click.Command):
    """A command that answers options of GNU parallel which it has not with what to do instead."""

    def make_context(self, *args: Any, **options: Any) -> click.Context:  # noqa: ANN401  as click has it
        """Parse what was typed."""
        try:
            return super().make_context(*args, **options)
        except click.NoSuchOption as error:
            if (instead := REFUSED.get(error.option_name)) is not None:
                raise UsageError(f"{error.option_name} of GNU parallel is not supported: {instead}") from error
            raise


def for_values(command: F) -> F:
    """Add the options of map that are about its values."""
    return _added(
        command,
        click.option(
            "--arg-file",
            "-a",
            multiple=True,
            metavar="FILE",
            help="Values are the lines of FILE (-: standard input), like ::::.",
        ),
        click.option(
            "--colsep", "-C", default=None, metavar="REGEX", help="Split values into columns {1}, {2}, ... at REGEX."
        ),
        click.option(
            "--header",
            default=None,
            metavar=":",
            help="`--header :`: the first value of each source, or of each column, is its name, for {NAME}.",
        ),
        click.option(
            "--link",
            is_flag=True,
            help="Sources go along with one another instead of multiplying; short ones begin again.",
        ),
        click.option(
            "--trim",
            type=click.Choice(["n", "l", "r", "lr", "rl"]),
            default=None,
            help="Cut blanks off values: left, right (default: off columns of --colsep).",
        ),
        click.option(
            "--max-args",
            "-n",
            "-N",
            type=click.IntRange(0, 1_000_000),
            metavar="N",
            help="Give each command line N values; 0: one task per value, which is not given to it.",
        ),
        click.option(
            "--max-lines",
            "-L",
            type=click.IntRange(1, 1_000_000),
            metavar="N",
            help="As -n; with --pipe: lines of a record.",
        ),
        click.option(
            "-X", "--context", is_flag=True, help="As many values per command line as fit; a{}b becomes aVb aWb."
        ),
        click.option(
            "--plus",
            is_flag=True,
            help="More replacement strings: {..} {+/} {+.} {##} {%x} {#x} {/x/y} {^x} {:2:3} {uniq} ...",
        ),
        click.option(
            "--quote", "-q", is_flag=True, help="Words of CMD are no shell's: quote them, all but {} and its kin."
        ),
        click.option("-m", "--multiple", is_flag=True, help="As -X, but a{}b becomes aV Wb."),
        click.option("--arg-sep", default=":::", metavar="TEXT", help="Instead of :::."),
        click.option("--arg-file-sep", default="::::", metavar="TEXT", help="Instead of ::::."),
    )


def for_pipes(command: F) -> F:
    """Add the options of map that are about an input that is cut into blocks."""
    return _added(
        command,
        click.option(
            "--pipe", is_flag=True, help="Cut standard input (or -a FILE) into blocks, and let each task read one."
        ),
        click.option("--pipe-part", "--pipepart", is_flag=True, help="--pipe of the files of -a."),
        click.option(
            "--block",
            default="1M",
            metavar="SIZE",
            help="With --pipe: so large are blocks (default 1M). -N: N blocks of the files of -a for each cpu.",
        ),
        click.option(
            "--recend", default=None, metavar="TEXT", help="With --pipe: what ends a record (default: a line end)."
        ),
        click.option("--recstart", default=None, metavar="TEXT", help="With --pipe: what begins a record."),
        click.option("--regexp", is_flag=True, help="With --pipe: both are regular expressions."),
        click.option(
            "--rrs", "--remove-rec-sep", is_flag=True, help="With --pipe: take what ends and begins records away."
        ),
    )


def for_many(quiet: Callable[[F], F]) -> Callable[[F], F]:
    """Return what adds the options of map and batch, ``quiet`` among them."""
    options = (
        click.option("--keep-order", "-k", is_flag=True, help="Print output in the order of the tasks."),
        click.option(
            "--line-buffer",
            "--lb",
            is_flag=True,
            help="Print lines as tasks print them, mixed; with -k those of the first task that still runs.",
        ),
        click.option("--ungroup", "-u", is_flag=True, help="Print at once what tasks print, mixed anywhere; no tags."),
        click.option("--tag", is_flag=True, help="Put the task's values and a tab before each line of its output."),
        click.option("--tagstring", default="", metavar="TEXT", help="--tag with this, which may hold {} and its kin."),
        click.option(
            "--joblog",
            type=click.Path(path_type=Path, dir_okay=False),
            metavar="FILE",
            help="Log a line per ended task there, with GNU parallel's columns.",
        ),
        click.option("--resume", is_flag=True, help="Run only what --joblog or --results does not tell of; add to it."),
        click.option("--resume-failed", is_flag=True, help="--resume that runs failed tasks of --joblog again."),
        click.option(
            "--retry-failed", is_flag=True, help="Run the failed command lines of --joblog again, and nothing else."
        ),
        click.option(
            "--results",
            default="",
            metavar="DIR|NAME|FILE.csv",
            help="Keep output in files and print none: DIR/1/VALUE/stdout, a NAME with {}, or a table.",
        ),
        click.option(
            "--files", "as_files", is_flag=True, help="Keep output in temporary files, and print their names."
        ),
        click.option(
            "--compress", is_flag=True, help="Nothing more: what the node keeps of output is compressed in any case."
        ),
        click.option(
            "--each",
            default="",
            metavar="MODULE:FUNCTION",
            help="Call that Python function with each task as it ends, instead of printing its output.",
        ),
        click.option("--shuf", is_flag=True, help="Run the tasks in random order."),
        click.option("--dry-run", is_flag=True, help="Print the command lines; run nothing."),
        click.option("--bar", is_flag=True, help="On a terminal: a bar of how many tasks are over."),
        click.option("--eta", is_flag=True, help="On a terminal: how many tasks are over, and the time left."),
        HALT,
        JOBS,
        NULL,
        NAME,
        DETACH,
        DELAY,
        BEGIN,
        END,
        for_tasks(retries=1),
        WHERE,
        FILES,
        RETURNS,
        quiet,
    )

    return lambda command: _added(command, *options)


def _added(command: F, *options: Callable[[F], F]) -> F:
    """Add options, which help shows in this order."""
    for option in reversed(options):
        command = option(command)
    return command


def grammar_of(options: Mapping[str, Any]) -> Grammar:
    """Return how what was typed is to be read.

    Raises:
        UsageError: that is not said in a way that is known.
    """
    if options["header"] not in {None, ":"}:
        raise UsageError("--header takes a colon only: `--header :` takes the first values for names")
    if options["arg_sep"] == options["arg_file_sep"]:
        raise UsageError("--arg-sep and --arg-file-sep are the same; what follows would be values and files")
    several = (
        options["context"] or options["multiple"] or options["max_args"] is not None or options["max_lines"] is not None
    )
    if options["plus"] and options["quote"]:
        raise UsageError("-q does not know the replacement strings of --plus; leave one of them out")
    if options["plus"] and several:
        raise UsageError("--plus goes with one value for each source; leave out -X, -m, -n, -N and -L")
    return Grammar(
        null=options["null"],
        colsep=options["colsep"],
        header=options["header"] is not None,
        link=options["link"],
        trim="lr" if options["trim"] == "rl" else options["trim"],
        quote=options["quote"],
        shuffle=options["shuf"],
        plus=options["plus"],
        values_max=options["max_lines"] if options["max_args"] is None else options["max_args"],
        fill="context" if options["context"] else "values" if options["multiple"] else "",
        at_once=at_once(options["jobs"], len(os.sched_getaffinity(0))),
        values=options["arg_sep"],
        files=options["arg_file_sep"],
    )
