"""Commands that run commands on this machine: run, map, batch."""

import os
import shlex
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import Any, Final, TypeVar

import click
import msgspec

from p2pq.cli import inputs, outputs, pipes
from p2pq.cli.common import connect, harmless, note
from p2pq.cli.grammar import ManyCommand, for_many, for_pipes, for_values, grammar_of
from p2pq.cli.inputs import Tasks
from p2pq.cli.interrupts import HELD, Interrupts, StoppedError
from p2pq.cli.jobs import EXIT_INTERRUPTED, EXIT_OK, send, went_away
from p2pq.cli.many import FOR_FOLLOWERS, Many, failed_ones, joblog
from p2pq.cli.options import (
    DETACH,
    FILES,
    LESS,
    MAP_QUIET,
    NAME,
    RETURNS,
    WHERE,
    at_once,
    for_tasks,
    resources_of,
    time_of,
)
from p2pq.cli.outputs import is_its_own_doing
from p2pq.cli.progress import Progress, WaitOver
from p2pq.cli.sending import Sending, plain_path
from p2pq.client.connection import Connection
from p2pq.client.feeding import Feeding
from p2pq.client.inherited import environment, umask
from p2pq.core.records import Intervals
from p2pq.errors import NodeUnreachableError, NotRunError, P2PQError, UsageError
from p2pq.model import template
from p2pq.model.sources import Source
from p2pq.wire import control
from p2pq.wire.commandcontrol import PIECE_BYTES_MAX, Ends, SubmitCommands, TaskEnded
from p2pq.wire.control import Change, JobView, LogChunk, Note, StatusView

F = TypeVar("F", bound=Callable[..., Any])
Request = SubmitCommands | control.Submit

NAME_CHARS: Final = 60
"""Of a command, so much names its job."""
STOP_S: Final = 5.0
"""So long the end of a cancelled job is waited for: what is ended has a moment to clean up, the user has not."""


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
        with of_its_own():
            return super().invoke(ctx)


@contextmanager
def of_its_own() -> Iterator[None]:
    """Turn every failure of p2pq's own into one that ``run`` tells from those of what it runs.

    Raises:
        NotRunError: there was one.
    """
    try:
        yield
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
@NAME
@DETACH
@for_tasks(retries=0)
@WHERE
@FILES
@RETURNS
@LESS
@click.pass_context
def run_command(ctx: click.Context, /, words: Sequence[str], **options: Any) -> int:  # noqa: ANN401
    """Run CMD with its ARGs here, once there is room for it; its output and exit code become this command's.

    It runs in this folder, with this environment, without a shell. Its standard input is empty (/dev/null), or ours with -i,
    which is read to its end first. Options of p2pq come before CMD. Exit code: that of CMD, 128+N if signal N ended it, 125
    if p2pq could not run it to its end. Ctrl-C cancels it.
    """
    if options["where"] != "local":
        return _run_away(ctx, words, options)
    request = _request(options, tuple(words), shell=False)
    stdin = iter(lambda: sys.stdin.buffer.read(PIECE_BYTES_MAX), b"")
    feed = Feeding([stdin]) if options["stdin"] else None
    return _run(ctx, request, options, lambda node, job: _follow_one(node, job, quiet=options["quiet"]), feed)


def _run_away(ctx: click.Context, words: Sequence[str], options: dict[str, Any]) -> int:
    if options["stdin"]:
        raise UsageError("--stdin is for this machine only so far; send a file: --file FILE -- sh -c 'CMD < FILE'")
    files = [plain_path("--file", path) for path in options["files"]]
    returns = [plain_path("--return", path) for path in options["returns"]]
    detached = options["detach"]
    with Sending([shlex.join(words)], files, [returns] if returns else [], detached=detached) as sending:
        request = sending.request(options, options["name"] or " ".join(words)[:NAME_CHARS])
        if detached:
            sending.say_where()
        try:
            return _run(ctx, request, options, lambda node, job: _follow_one(node, job, quiet=options["quiet"]))
        finally:
            sending.bring()


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
    return exit_code(job.job, ended)


def exit_code(job: str, ended: TaskEnded | None) -> int:
    """Return the exit code that tells how the only task of a job ended.

    Raises:
        NotRunError: it did not end by itself, or nobody knows.
    """
    if ended is None:
        raise NotRunError(f"the node did not say how the command ended; see `p2pq show {job}`")
    if ended.gone:
        raise NotRunError(f"the output is not here any more, or not all of it: {ended.gone}")
    if ended.state == "done":
        return ended.exit or EXIT_OK
    if ended.state == "failed" and is_its_own_doing(ended):
        return ended.exit or 128 + (ended.signal or 0)
    why = "cancelled" if ended.state == "cancelled" else ended.reason or "it was lost"
    raise NotRunError(f"the command was not run to its end: {why}; see `p2pq why {job[:8]}.{ended.task}`")


# -- map and batch ------------------------------------------------------------------------------------------------------------


@click.command("map", cls=ManyCommand, context_settings={"allow_interspersed_args": False})
@click.argument("words", metavar="[CMD]... [::: VALUE...]...", nargs=-1, type=click.UNPROCESSED)
@for_values
@for_pipes
@for_many(MAP_QUIET)
@click.pass_context
def map_command(ctx: click.Context, /, words: Sequence[str], **options: Any) -> int:  # noqa: ANN401
    """Run CMD once for each value, as many at a time as there are slots; print the output of each when it ends.

    The grammar is GNU parallel's: ::: A B C gives values, :::: FILE the lines of a file; several multiply, :::+ and ::::+ go
    along with the one before. Without any, values are the lines of standard input, read to its end first. In CMD {} is the
    value, {.} without extension, {/} its last component, {//} its folder, {#} the task's number; {2} the second column. CMD
    without any of them gets the value at its end; without CMD the values are shell commands.

    Commands run in this folder, with this environment; their standard input is empty, or with --pipe a block of ours. Exit
    code: 0 if all succeeded, 1 if some failed. Ctrl-C cancels the job.
    """
    if options["pipe"] or options["pipe_part"]:
        return _run_pipe(ctx, words, options)
    if options["retry_failed"]:
        return _run_many(ctx, failed_ones(options), options)
    tasks = inputs.of_map(words, files=options["arg_file"], grammar=grammar_of(options))
    return _run_many(ctx, tasks, options)


@click.command("batch", cls=ManyCommand)
@click.argument("file", metavar="FILE|-", required=False)
@for_many(LESS)
@click.pass_context
def batch_command(ctx: click.Context, /, file: str | None, **options: Any) -> int:  # noqa: ANN401
    """Run every line of FILE (-: standard input) as a shell command; print the output of each when it ends.

    Task N is line N: a blank line or a # comment is a command that does nothing, and succeeds. Commands run in this folder,
    with this environment; their standard input is empty. Exit code: 0 if all succeeded, 1 if some failed. Ctrl-C cancels the
    job.
    """
    if options["retry_failed"]:
        return _run_many(ctx, failed_ones(options), options)
    if file is None:
        raise UsageError("Missing argument 'FILE|-': name a file of command lines, or - for standard input")
    return _run_many(ctx, inputs.of_batch(file, null=options["null"], shuffle=options["shuf"]), options)


def _run_many(ctx: click.Context, tasks: Tasks | None, options: dict[str, Any]) -> int:
    _check_detached(options)
    many = None if tasks is None else Many(tasks, options)
    if options["dry_run"]:
        if many is not None:
            many.print_commands()
        return EXIT_OK
    if tasks is None or many is None:
        with joblog(options):
            missing = "no task of the log has failed" if options["retry_failed"] else "there are no values"
            note(f"{missing}, so there is nothing to run")
        return EXIT_OK
    if not many.left:
        note("all tasks ran before, so there is nothing to run")
        return EXIT_OK
    if options["where"] != "local":
        return _run_many_away(ctx, tasks, many, options)
    tasks.command(0)  # what is wrong with the command is wrong with the first one
    request = _request(
        {**options, "name": options["name"] or tasks.name[:NAME_CHARS]},
        tasks.words,
        tasks.sources,
        skipped=many.skipped.intervals(),
    )
    with joblog(options) as log:
        return _run(ctx, request, options, lambda node, job: many.follow(node, job, log))


def _run_many_away(ctx: click.Context, tasks: Tasks, many: Many, options: dict[str, Any]) -> int:
    if options["jobs"]:
        raise UsageError("--jobs shares out the slots of this machine; leave it or --where out")
    if options["delay_ms"]:
        raise UsageError("--delay is for this machine only; leave it or --where out")
    lines = [tasks.command(task) for task in many.to_run]
    files = (plain_path("--file", path) for given in options["files"] for path in tasks.filled(given, many.to_run))
    each = [[plain_path("--return", path) for path in tasks.filled(given, many.to_run)] for given in options["returns"]]
    name = options["name"] or tasks.name[:NAME_CHARS] or " ".join(tasks.words)[:NAME_CHARS] or "commands"
    with Sending(lines, files, list(zip(*each, strict=True)), detached=options["detach"]) as sending:
        request = sending.request(options, name)
        if options["detach"]:
            sending.say_where()
        written = sending.bring if options["returns"] else None
        try:
            with joblog(options) as log:
                return _run(ctx, request, options, lambda node, job: many.follow(node, job, log, written))
        finally:
            sending.bring()


def _run_pipe(ctx: click.Context, words: Sequence[str], options: dict[str, Any]) -> int:
    _check_detached(options)
    if options["where"] != "local":
        raise UsageError("--pipe goes with this machine only so far; leave --where out")
    cutting = pipes.cutting_of(options)
    command, given = template.split_sources(words, values=options["arg_sep"], files=options["arg_file_sep"])
    if given or not command:
        raise UsageError("--pipe takes a command that reads its standard input, and no values; an input may be -a FILE")
    if options["pipe_part"] and not options["arg_file"]:
        raise UsageError("--pipe-part cuts files into blocks; name them with -a FILE, or use --pipe for standard input")
    if options["quote"]:
        command = template.quote(command)
    if not options["arg_file"] and sys.stdin.isatty():
        raise UsageError(
            "--pipe cuts our standard input into blocks; pipe something into it, or name files with -a FILE"
        )
    Many(Tasks(command, (), (), blocks=0), options)  # what is wrong with options is said before anything is read
    found = pipes.blocks(pipes.reading(options["arg_file"] or (pipes.STDIN,)), cutting)
    if options["dry_run"]:
        Many(Tasks(command, (), (), blocks=sum(1 for _ in found)), options).print_commands()
        return EXIT_OK
    first = next(found, None)
    request = _request(options, command)
    with joblog(options) as log:
        if first is None:
            note("there is no input, so there is nothing to run")
            return EXIT_OK

        def follow(node: Connection, job: JobView) -> int:
            return Many(Tasks(command, (), (), blocks=job.tasks.total), options).follow(node, job, log)

        return _run(ctx, request, options, follow, Feeding(chain([first], found)))


def _check_detached(options: dict[str, Any]) -> None:
    shown = [spelled for name, spelled in FOR_FOLLOWERS.items() if options[name]]
    if options["detach"] and shown:
        raise UsageError(f"--detach returns before there is any output; leave {shown[0]} out")


# -- what they share ----------------------------------------------------------------------------------------------------------


def _request(
    options: dict[str, Any],
    words: tuple[str, ...],
    sources: tuple[Source, ...] = (),
    *,
    shell: bool = True,
    skipped: Intervals = (),
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
        skipped=skipped,
        begin=options.get("begin", ""),
        end=options.get("end", ""),
        delay_ms=options.get("delay_ms", 0),
    )


def _run(
    ctx: click.Context,
    request: Request,
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
            assert isinstance(request, SubmitCommands)  # noqa: S101  folders read nothing
            request = feed.named(request)
        interrupts.hold(HELD)
        job = send(node, _shared_out(node, request, options))
        if job is None:
            return unnamed()
        try:
            interrupts.release()
            if options["detach"]:
                click.echo(job.job)
                return EXIT_OK
            return follow(node, job)
        except (StoppedError, OSError, P2PQError) as trouble:
            return given_up(job.job, trouble, lambda: connect(ctx))


def unnamed() -> int:
    """Say that nobody knows whether there is a job; return the exit code."""
    note("interrupted before the node had said the job's id; `p2pq jobs` tells whether it has one")
    return EXIT_INTERRUPTED


def given_up(job: str, trouble: BaseException, again: Callable[[], Connection]) -> int:
    """Cancel a job that is not followed to its end, where that is the user's wish or our doing; return the exit code.

    Args:
        job: its id.
        trouble: why; raised anew unless the user wants it.
        again: opens another connection to the node.
    """
    match trouble:
        case StoppedError(exit_code=code):
            _stop(job, again, say="interrupted: cancelled")
            return code
        case NodeUnreachableError():
            raise went_away([job]) from trouble
        case NotRunError():
            pass  # it has ended
        case _:
            _stop(job, again, say="" if isinstance(trouble, BrokenPipeError) else "cancelled")
    raise trouble


def _shared_out(node: Connection, request: Request, options: dict[str, Any]) -> Request:
    """Return a request of which no more tasks find room at a time than ``--jobs`` says: each has its share of the slots."""
    wanted = options.get("jobs", "")
    if not wanted:
        return request
    slots = node.one(control.Status(), StatusView).slots
    limit = at_once(wanted, slots)
    cpus = max(request.resources.cpus, -(-slots // limit))
    if slots // cpus < limit and not options["quiet"]:
        note(
            f"{slots // cpus} at a time, as each takes {cpus} of {slots} slots; a number that divides {slots} leaves none over"
        )
    return msgspec.structs.replace(request, resources=msgspec.structs.replace(request.resources, cpus=cpus))


def _stop(job: str, again: Callable[[], Connection], *, say: str) -> None:
    """Cancel a job, wait a little for its end, and say so; over a connection of its own, as the other is in mid-answer."""
    short = job[:8]
    try:
        with again() as node, Progress(quiet=True, timeout_s=STOP_S):
            view = node.one(control.CancelJob(job=job), JobView)
            for reply in node.ask(control.Watch(jobs=(job,))):
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
