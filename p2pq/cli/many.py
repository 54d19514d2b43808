"""The tasks of one map or batch: which of them run, and what becomes of what they print."""

import os
import sys
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, ExitStack, nullcontext
from functools import cached_property
from pathlib import Path
from typing import Any, Final, TypeVar

import msgspec

from p2pq.cli import joblogs, keeping
from p2pq.cli.common import note
from p2pq.cli.each import Calls, function_of
from p2pq.cli.inputs import Tasks, of_lines
from p2pq.cli.joblogs import JobLog
from p2pq.cli.jobs import EXIT_FAILED, EXIT_OK, say_end
from p2pq.cli.keeping import Folders, Named, Table
from p2pq.cli.outputs import CountsLine, Mixer, Printer, is_its_own_doing
from p2pq.cli.tempfiles import TempFiles
from p2pq.client.connection import Connection
from p2pq.client.told import EndedTask
from p2pq.core.intervals import IntervalSet
from p2pq.errors import UsageError
from p2pq.model import template
from p2pq.model.job import TASKS_MAX
from p2pq.wire import control
from p2pq.wire.commandcontrol import Ends, TaskEnded
from p2pq.wire.control import JobView, LogChunk, Note

Options = Mapping[str, Any]
R = TypeVar("R")

FOR_FOLLOWERS: Final = {
    "keep_order": "--keep-order",
    "line_buffer": "--line-buffer",
    "ungroup": "--ungroup",
    "tag": "--tag",
    "tagstring": "--tagstring",
    "joblog": "--joblog",
    "results": "--results",
    "as_files": "--files",
    "each": "--each",
    "bar": "--bar",
    "eta": "--eta",
}
"""Options about what is printed, or written, as tasks end."""


def failed_ones(options: Options) -> Tasks | None:
    """Return the tasks of a log, of which ``Many`` runs the failed ones; None where none has failed.

    Raises:
        UsageError: there is no log, or it is none.
        OSError: it cannot be read.
    """
    if options["joblog"] is None:
        raise UsageError("--retry-failed takes command lines from a log; name it with --joblog FILE")
    failed = joblogs.read(options["joblog"]).failed()
    return of_lines([failed.get(task, "") for task in range(max(failed, default=-1) + 1)])


def joblog(options: Options) -> AbstractContextManager[JobLog | None]:
    """Return the log that ``--joblog`` asks for.

    Raises:
        OSError: it cannot be written.
    """
    if options["joblog"] is None:
        return nullcontext()
    return JobLog(options["joblog"], goes_on=goes_on(options))


def goes_on(options: Options) -> bool:
    """Tell whether this adds to what an earlier run has done."""
    return any(options[name] for name in ("resume", "resume_failed", "retry_failed"))


class Many:
    """The tasks of one map or batch."""

    def __init__(self, tasks: Tasks, options: Options) -> None:
        """Find out which of them are to run.

        Raises:
            UsageError: that cannot be told, or there is no function as ``--each`` names it.
            EachFailedError: that one could not be loaded.
            OSError: a log cannot be read.
        """
        self._tasks = tasks
        self._options = options
        self._each = function_of(options["each"]) if options["each"] and not options["dry_run"] else None
        self._incomplete = False
        """Not all of what tasks printed could be had."""
        template.refuse_unsupported(options["results"])  # or it would be the name of a folder
        self.skipped = self._over()
        self._live = options["line_buffer"] or options["ungroup"]
        if self._live and (options["results"] or options["each"]):
            raise UsageError(
                "--line-buffer and -u are about what is printed, and with --results or --each nothing is; leave them out"
            )
        if options["as_files"] and (self._live or options["results"] or options["each"]):
            raise UsageError("--files says where output is; leave --line-buffer, -u, --results and --each out, or it")

    @cached_property
    def to_run(self) -> tuple[int, ...]:
        """The tasks that are to run."""
        return tuple(self._order())

    @property
    def left(self) -> int:
        """How many tasks are to run."""
        return self._tasks.count - len(self.skipped)

    def print_commands(self) -> None:
        """Print all command lines that would be run."""
        for task in self._order():
            sys.stdout.buffer.write(os.fsencode(self._tasks.command(task)) + b"\n")

    def follow(
        self, node: Connection, job: JobView, log: JobLog | None, written: Callable[[], None] | None = None
    ) -> int:
        """Print, or write, what tasks printed as they end; return the exit code.

        The job may be of all tasks, or of those that are to run only.

        Args:
            node: the node.
            job: the job there.
            log: gets a line for each task.
            written: called once the results of a task are written out, before anything is made of what it printed.
        """
        options = self._options
        line = CountsLine(self.left, bar=options["bar"], eta=options["eta"])
        with ExitStack() as stack:
            outputs = self._outputs()
            for output in outputs:
                stack.enter_context(output)
            stack.callback(line.clear)
            for told in node.ask(Ends(job=job.job, written=written is not None, live=self._live)):
                reply = self._as_ours(told, job)
                match reply:
                    case LogChunk():
                        line.clear()
                        for output in outputs:
                            output.take(reply)
                    case TaskEnded():
                        line.clear()
                        if written is not None:
                            written()
                        for output in outputs:
                            output.end(reply)
                        self._ended(job, reply, log)
                        line.ended(reply.state)
                    case Note(text=text) if not options["quiet"]:
                        line.clear()
                        note(text)
                    case _:
                        pass
            for output in outputs:
                output.finish()
        view = node.one(control.Show(job=job.job), JobView)
        if not options["quiet"]:
            say_end(view, quiet=True)
        return EXIT_OK if view.state == "done" and not self._incomplete else EXIT_FAILED

    def _as_ours(self, told: R, job: JobView) -> R:
        """Return what a job of those tasks only that are to run says of one, with the number that the task has here."""
        if isinstance(told, LogChunk | TaskEnded) and job.tasks.total < self._tasks.count:
            return msgspec.structs.replace(told, task=self.to_run[told.task])
        return told

    def _order(self) -> "filter[int]":
        return filter(lambda task: task not in self.skipped, range(self._tasks.count))

    def _ended(self, job: JobView, ended: TaskEnded, log: JobLog | None) -> None:
        if log is not None:
            log.add(ended, self._tasks.command(ended.task))
        if ended.gone:
            self._incomplete = True
            note(f"the output of task {ended.task} is not here any more, or not all of it: {ended.gone}")
        if ended.state == "failed" and not is_its_own_doing(ended):
            # What it printed does not tell why.
            there = self.to_run.index(ended.task) if job.tasks.total < self._tasks.count else ended.task
            name = f"{job.job[:8]}.{there}"
            note(f"task {ended.task} failed: {ended.reason or 'it was lost'}; see `p2pq why {name}`")

    # -- which of them run --------------------------------------------------------------------------------------------

    def _over(self) -> IntervalSet:
        """Return the tasks that are not to run."""
        options = self._options
        if options["retry_failed"]:
            failed = joblogs.read(options["joblog"]).failed()
            return IntervalSet((task, task + 1) for task in range(self._tasks.count) if task not in failed)
        if not options["resume"] and not options["resume_failed"]:
            return IntervalSet()
        if options["shuf"]:
            raise UsageError(
                "--shuf numbers the tasks anew each time, so that --resume cannot know which ran; leave it out"
            )
        if options["joblog"] is not None:
            past = joblogs.read(options["joblog"])
            over = past.succeeded if options["resume_failed"] else past.ran
            over.remove(self._tasks.count, TASKS_MAX)
            return over
        if options["resume_failed"]:
            raise UsageError("--resume-failed has to know what failed; name the log with --joblog FILE")
        if not options["results"] or _delimited(options["results"]):
            raise UsageError(
                "--resume has to know what ran; name the log with --joblog FILE, or folders with --results DIR"
            )
        return IntervalSet((task, task + 1) for task in range(self._tasks.count) if self._files(task)[2].exists())

    # -- where their output goes --------------------------------------------------------------------------------------

    def _outputs(self) -> "list[Printer | Mixer | TempFiles | Folders | Table | Calls]":
        options = self._options
        results = options["results"]
        order = self._order() if options["keep_order"] else None
        outputs: list[Printer | Mixer | TempFiles | Folders | Table | Calls] = []
        if results and not _delimited(results):
            outputs.append(Folders(self._files))
        elif results:
            columns = [f"V{number}" for number in range(1, len(self._tasks.values(0)) + 1)]

            def row(task: int) -> tuple[str, tuple[str, ...]]:
                return self._tasks.command(task), tuple(self._tasks.values(task))

            outputs.append(Table(results, columns, row, goes_on=goes_on(options)))
        if self._each is not None:
            outputs.append(Calls(self._each, order, self._made))
        return outputs or [self._printer()]

    def _printer(self) -> "Printer | Mixer | TempFiles":
        options = self._options
        tag = self._tag if options["tag"] or options["tagstring"] else None
        if self._live and not options["keep_order"]:
            return Mixer(lines=not options["ungroup"], tag=tag)
        printer = Printer(order=self._order() if options["keep_order"] else None, tag=tag, live=self._live)
        return TempFiles(printer) if options["as_files"] else printer

    def _made(self, ended: TaskEnded, stdout: bytes, stderr: bytes) -> EndedTask:
        results = self._options["results"]
        return EndedTask(
            number=ended.task,
            arguments=self._tasks.values(ended.task),
            command=self._tasks.command(ended.task),
            state=ended.state,
            exit_code=ended.exit,
            signal=ended.signal,
            seconds=ended.seconds,
            reason=ended.reason,
            node=ended.node,
            stdout=stdout,
            stderr=stderr,
            results=self._files(ended.task)[0].parent.absolute() if results and not _delimited(results) else None,
        )

    def _files(self, task: int) -> Named:
        results, values = self._options["results"], self._tasks.values(task)
        if template.replaces(results):
            return keeping.beside(template.fill(results, values, task + 1))
        if self._tasks.blocks is not None:
            return keeping.named(results, ["block"], [str(task + 1)], task)
        names = [self._tasks.names[position % len(self._tasks.names)] for position in range(len(values))]
        return keeping.named(results, names, values, task)

    def _tag(self, task: int) -> bytes:
        text = self._options["tagstring"]
        if not text:
            return os.fsencode(self._tasks.tag(task))
        return os.fsencode(template.fill(text, self._tasks.values(task), task + 1) + "\t")


def _delimited(results: str) -> bool:
    return Path(results).suffix in keeping.DELIMITERS
