"""Commands that run commands on this machine: run, map, batch."""

import os
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack, nullcontext
from pathlib import Path
from typing import Any, Final, TypeVar

import click

from p2pq.cli import inputs, outputs
from p2pq.cli.common import connect, harmless, note
from p2pq.cli.interrupts import Interrupts, StoppedError
from p2pq.cli.jobs import EXIT_FAILED, EXIT_INTERRUPTED, EXIT_OK, say_end, send, went_away
from p2pq.cli.options import DETACH, HALT, for_tasks, resources_of, time_of
from p2pq.cli.outputs import CountsLine, JobLog, Printer, is_its_own_doing
from p2pq.cli.progress import Progress, WaitOver
from p2pq.client.asking import environment, umask
from p2pq.client.connection import Connection
from p2pq.client.feeding import Feeding
from p2pq.errors import NodeUnreachableError, NotRunError, P2PQError, UsageError
from p2pq.model import template
from p2pq.model.sources import Source, count, values
from p2pq.wire import control
from p2pq.wire.commandcontrol import PIECE_BYTES_MAX, Ends, SubmitCommands, TaskEnded
from p2pq.wire.control import Change, JobView, LogChunk, Note

F = TypeVar("F", bound=Callable[..., Any])

STOP_S: Final = 5.0
"""So long the end of a cancelled job is waited for: what is ended has a moment to clean up, the user has not."""


def _where(_context: click.Context, _option: click.Parameter, where: str) -> str:
    if where != "local":
        raise UsageError("map, batch and run work on this machine only so far; `p2pq submit` sends a folder anywhere")
    return where


_NAME: Final = click.option("--name", default="", help="What to call the job (default: after the command).")
_WHERE: Final = click.option(
    "--where", default="local", metavar="local", callback=_where, help="Where: only this machine so far."
)
_QUIET: Final = click.option("--quiet", "-q", is_flag=True, help="No remarks but errors.")
_NULL: Final = click.option("--null", "-0", is_flag=True, help="Items of files end with NUL instead of at line ends.")


def _for_many(command: F) -> F:
    """Add the options of map and batch."""
    options = (
        click.option("--keep-order", "-k", is_flag=True, help="Print output in the order of the tasks."),
        click.option("--tag", is_flag=True, help="Put the task's values and a tab before each line of its output."),
        click.option(
            "--joblog",
            type=click.Path(path_type=Path, dir_okay=False),
            metavar="FILE",
            help="Log a line per ended task there, with GNU parallel's columns.",
        ),
        click.option("--dry-run", is_flag=True, help="Print the command lines; run nothing."),
        click.option("--bar", is_flag=True, help="On a terminal: a bar of how many tasks are over."),
        click.option("--eta", is_flag=True, help="On a terminal: how many tasks are over, and the time left."),
        HALT,
        _NULL,
        _NAME,
        DETACH,
        for_tasks(retries=1),
        _WHERE,
        _QUIET,
    )
    for option in reversed(options):
        command = option(command)
    return command


# -- run ----------------------------------------------------------------------------------------------------------------------


class RunCommand(click.Command):
    """A command of which every failure of p2pq's own is told from failures of what it runs by its exit code: 125."""

    def make_context(self, *args: Any, **options: Any) -> click.Context:  # noqa: ANN401  as click has it
        """Parse what was typed."""
        try:
            return super().make_context(*args, **options)
        except click.UsageError as error:
            raise NotRunError(f"{' '.join(error.format_message().split())} (see `p2pq run --help`)") from error
        except P2PQError as error:
            raise NotRunError(str(error)) from error

    def invoke(self, ctx: click.Context) -> Any:  # noqa: ANN401
        """Run it."""
        try:
            return super().invoke(ctx)
        except P2PQError as error:
            raise NotRunError(str(error)) from error
        except BrokenPipeError:
            raise
        except OSError as error:
            outputs.let_go()
            raise NotRunError(f"{error.filename or 'the output'}: {error.strerror}; mend that and try again") from error


@click.command("run", cls=RunCommand, context_settings={"allow_interspersed_args": False})
@click.argument("words", metavar="[--] CMD [ARG]...", nargs=-1, required=True, type=click.UNPROCESSED)
@click.option("--stdin", "-i", is_flag=True, help="Let CMD read our standard input, once that has ended.")
@_NAME
@DETACH
@for_tasks(retries=0)
@_WHERE
@_QUIET
@click.pass_context
def run_command(ctx: click.Context, /, words: Sequence[str], **options: Any) -> int:  # noqa: ANN401
    """Run CMD with its ARGs here, once there is room for it; its output and exit code become this command's.

    It runs in this folder, with this environment, without a shell. Its standard input is empty (/dev/null), or ours with -i,
    which is read to its end first. Options of p2pq come before CMD. Exit code: that of CMD, 128+N if signal N ended it, 125
    if p2pq could not run it to its end. Ctrl-C cancels it.
    """
    request = _request(options, tuple(words), shell=False)
    stdin = iter(lambda: sys.stdin.buffer.read(PIECE_BYTES_MAX), b"")
    feed = Feeding([stdin]) if options["stdin"] else None
    return _run(ctx, request, options, lambda node, job: _follow_one(node, job, quiet=options["quiet"]), feed)


def _follow_one(node: Connection, job: JobView, *, quiet: bool) -> int:
    """Pass on what the only task prints; return the exit code that tells how it ended."""
    ended: TaskEnded | None = None
    for reply in node.ask(Ends(job=job.job, live=True)):
        match reply:
            case LogChunk():
                outputs.write(reply)
            case TaskEnded():
                ended = reply
            case Note(text=text) if not quiet:
                note(text)
            case _:
                pass
    if ended is None:
        raise NotRunError(f"the node did not say how the command ended; see `p2pq show {job.job}`")
    if ended.gone:
        raise NotRunError(f"the output is not here any more, or not all of it: {ended.gone}")
    if ended.state == "done":
        return ended.exit or EXIT_OK
    if ended.state == "failed" and is_its_own_doing(ended):
        return ended.exit or 128 + (ended.signal or 0)
    why = "cancelled" if ended.state == "cancelled" else ended.reason or "it was lost"
    raise NotRunError(f"the command was not run to its end: {why}; see `p2pq why {job.job[:8]}.{ended.task}`")


# -- map and batch ------------------------------------------------------------------------------------------------------------


@click.command("map", context_settings={"allow_interspersed_args": False})
@click.argument("words", metavar="[CMD]... [::: VALUE...]...", nargs=-1, type=click.UNPROCESSED)
@click.option(
    "--arg-file",
    "-a",
    multiple=True,
    metavar="FILE",
    help="Values are the lines of FILE (-: standard input), like ::::.",
)
@click.option("--colsep", default=None, metavar="REGEX", help="Split values into columns {1}, {2}, ... at REGEX.")
@_for_many
@click.pass_context
def map_command(ctx: click.Context, /, words: Sequence[str], **options: Any) -> int:  # noqa: ANN401
    """Run CMD once for each value, as many at a time as there are slots; print the output of each when it ends.

    The grammar is GNU parallel's: ::: A B C gives values, :::: FILE the lines of a file; several multiply, :::+ and ::::+ go
    along with the one before. Without any, values are the lines of standard input, read to its end first. In CMD {} is the
    value, {.} without extension, {/} its last component, {//} its folder, {#} the task's number; {2} the second column. CMD
    without any of them gets the value at its end; without CMD the values are shell commands.

    Commands run in this folder, with this environment; their standard input is empty. Exit code: 0 if all succeeded, 1 if
    some failed. Ctrl-C cancels the job.
    """
    command, sources = inputs.of_map(words, files=options["arg_file"], null=options["null"], colsep=options["colsep"])
    return _run_many(ctx, command, sources, options)


@click.command("batch")
@click.argument("file", metavar="FILE|-")
@_for_many
@click.pass_context
def batch_command(ctx: click.Context, /, file: str, **options: Any) -> int:  # noqa: ANN401
    """Run every line of FILE (-: standard input) as a shell command; print the output of each when it ends.

    Task N is line N: a blank line or a # comment is a command that does nothing, and succeeds. Commands run in this folder,
    with this environment; their standard input is empty. Exit code: 0 if all succeeded, 1 if some failed. Ctrl-C cancels the
    job.
    """
    return _run_many(ctx, (), inputs.of_batch(file, null=options["null"]), options)


def _run_many(
    ctx: click.Context, words: tuple[str, ...], sources: tuple[Source, ...] | None, options: dict[str, Any]
) -> int:
    shown = [f"--{name.replace('_', '-')}" for name in ("keep_order", "tag", "joblog", "bar", "eta") if options[name]]
    if options["detach"] and shown:
        raise UsageError(f"--detach returns before there is any output; leave {shown[0]} out")
    many = _Many(words, sources or (), options)
    if options["dry_run"]:
        many.print_commands(count(sources) if sources is not None else 0)
        return EXIT_OK
    if sources is not None:
        many.command(0)  # what is wrong with the command is wrong with the first one
    request = _request(options, words, sources or ())
    with JobLog(options["joblog"]) if options["joblog"] else nullcontext() as log:
        if sources is None:
            note("there are no values, so there is nothing to run")
            return EXIT_OK
        return _run(ctx, request, options, lambda node, job: many.follow(node, job, log))


class _Many:
    """The tasks of one map or batch."""

    def __init__(self, words: tuple[str, ...], sources: tuple[Source, ...], options: dict[str, Any]) -> None:
        """Keep what they are made of."""
        self._words = words
        self._sources = sources
        self._options = options
        self._incomplete = False
        """Not all of what tasks printed could be had."""

    def command(self, task: int) -> str:
        """Return the command line of a task."""
        return template.render(self._words, values(self._sources, task), task + 1)

    def print_commands(self, tasks: int) -> None:
        """Print all command lines."""
        for task in range(tasks):
            sys.stdout.buffer.write(os.fsencode(self.command(task)) + b"\n")

    def follow(self, node: Connection, job: JobView, log: JobLog | None) -> int:
        """Print what tasks printed as they end; return the exit code."""
        options = self._options
        line = CountsLine(job.tasks.total, bar=options["bar"], eta=options["eta"])
        with ExitStack() as stack:
            printer = stack.enter_context(
                Printer(keep_order=options["keep_order"], tag=self._tag if options["tag"] else None)
            )
            stack.callback(line.clear)
            for reply in node.ask(Ends(job=job.job)):
                match reply:
                    case LogChunk():
                        line.clear()
                        printer.take(reply)
                    case TaskEnded():
                        line.clear()
                        printer.end(reply.task)
                        self._ended(job, reply, log)
                        line.ended(reply.state)
                    case Note(text=text) if not options["quiet"]:
                        line.clear()
                        note(text)
                    case _:
                        pass
            printer.finish()
        view = node.one(control.Show(job=job.job), JobView)
        if not options["quiet"]:
            say_end(view, quiet=True)
        return EXIT_OK if view.state == "done" and not self._incomplete else EXIT_FAILED

    def _ended(self, job: JobView, ended: TaskEnded, log: JobLog | None) -> None:
        if log is not None:
            log.add(ended, self.command(ended.task))
        if ended.gone:
            self._incomplete = True
            note(f"the output of task {ended.task} is not here any more, or not all of it: {ended.gone}")
        if ended.state == "failed" and not is_its_own_doing(ended):
            # What it printed does not tell why.
            name = f"{job.job[:8]}.{ended.task}"
            note(f"task {ended.task} failed: {ended.reason or 'it was lost'}; see `p2pq why {name}`")

    def _tag(self, task: int) -> bytes:
        return "".join(f"{value}\t" for value in values(self._sources, task)).encode()


# -- what they share ----------------------------------------------------------------------------------------------------------


def _request(
    options: dict[str, Any], words: tuple[str, ...], sources: tuple[Source, ...] = (), *, shell: bool = True
) -> SubmitCommands:
    try:
        folder = str(Path.cwd())
    except FileNotFoundError as error:
        raise UsageError("the current folder is gone; go to one that is there and try again") from error
    return SubmitCommands(
        words=words,
        sources=sources,
        shell=shell,
        cwd=folder,
        environment=environment(),
        name=options["name"],
        resources=resources_of(options),
        time_s=time_of(options),
        retries=options["retries"],
        priority=options["priority"],
        halt=options.get("halt", ""),
        umask=umask(),
    )


def _run(
    ctx: click.Context,
    request: SubmitCommands,
    options: dict[str, Any],
    follow: Callable[[Connection, JobView], int],
    feed: Feeding | None = None,
) -> int:
    """Submit, then print what there is with ``follow``; a job that nobody listens to any more is cancelled.

    What the tasks are to read goes to the node first.
    """
    if "P2PQ_TASK" in os.environ and not options["detach"]:
        # It would hold its slot while it waits for another one; as many of these as there are slots would wait for ever.
        raise UsageError("this is a task of p2pq already: run the command itself, or add --detach")
    with Interrupts() as interrupts, connect(ctx, start=True) as node:
        if feed is not None:
            try:
                for piece in feed.pieces():
                    for _ in node.ask(piece):
                        pass
            except StoppedError as stopped:
                return stopped.exit_code  # nothing was submitted
            request = feed.named(request)
        interrupts.hold("stops as soon as the node has said which job it is; once more to leave at once")
        job = send(node, request)
        if job is None:
            note("interrupted before the node had said the job's id; `p2pq jobs` tells whether it has one")
            return EXIT_INTERRUPTED
        try:
            interrupts.release()
            if options["detach"]:
                click.echo(job.job)
                return EXIT_OK
            return follow(node, job)
        except StoppedError as stopped:
            _stop(ctx, job, say="interrupted: cancelled")
            return stopped.exit_code
        except NodeUnreachableError as error:
            raise went_away([job.job]) from error
        except NotRunError:
            raise  # it has ended
        except (OSError, P2PQError) as error:
            _stop(ctx, job, say="" if isinstance(error, BrokenPipeError) else "cancelled")
            raise


def _stop(ctx: click.Context, job: JobView, *, say: str) -> None:
    """Cancel a job, wait a little for its end, and say so; over a connection of its own, as the other is in mid-answer."""
    short = job.job[:8]
    try:
        with connect(ctx) as node, Progress(quiet=True, timeout_s=STOP_S):
            view = node.one(control.CancelJob(job=job.job), JobView)
            for reply in node.ask(control.Watch(jobs=(job.job,))):
                if isinstance(reply, Change):
                    view = reply.job
    except WaitOver:
        note(f"cancelled job {short}, but it has not ended after {STOP_S:g} s; see `p2pq show {short}`")
    except StoppedError:
        note(f"left before job {short} had ended; see `p2pq show {short}`")
    except P2PQError as error:
        note(f"job {short} may still run ({harmless(str(error))}); `p2pq cancel {short}` stops it")
    else:
        if say:
            over = view.tasks.done + view.tasks.failed
            of_many = f" after {over} of {view.tasks.total} tasks" if view.tasks.total > 1 else ""
            note(f"{say} job {short}{of_many}; `p2pq retry {short} --cancelled` runs the rest")
