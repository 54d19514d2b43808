"""The command logs: what tasks print, live or afterwards, any attempt of them."""

import codecs
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import click

from p2pq.cli.common import connect, harmless, note, print_json
from p2pq.cli.jobs import EXIT_INTERRUPTED, EXIT_OK, JSON, split, went_away
from p2pq.errors import NodeUnreachableError, UsageError
from p2pq.model.job import ATTEMPTS_MAX
from p2pq.wire import control
from p2pq.wire.control import LogChunk, Note


@click.command("logs")
@click.argument("job_task", metavar="JOB[.TASK]")
@click.option("--follow", "-f", is_flag=True, help="Go on as the task prints, until it ends.")
@click.option("--stderr", is_flag=True, help="Standard error instead of standard output.")
@click.option(
    "--attempt",
    default=None,
    type=click.IntRange(1, ATTEMPTS_MAX),
    metavar="N",
    help="That attempt (default: the latest).",
)
@click.option("--raw", is_flag=True, help="Leave control characters in (colours, but also worse).")
@JSON
@click.pass_context
def logs_command(  # noqa: PLR0913, PLR0917  one argument per option
    ctx: click.Context, job_task: str, follow: bool, stderr: bool, attempt: int | None, raw: bool, as_json: bool
) -> int:
    """Print what a job, or one task of it, printed."""
    job, task = split(job_task)
    if attempt is not None and (follow or task is None):
        raise UsageError("--attempt is about one task, without --follow: p2pq logs JOB.TASK --attempt N")
    request = control.Logs(
        job=job, task=task, stream="stderr" if stderr else "stdout", follow=follow, attempt=attempt or 0
    )
    printer = _LogPrinter(raw=raw, as_json=as_json, live=follow)
    try:
        with connect(ctx) as node, _safe(job, follow=follow):
            for reply in node.ask(request):
                if isinstance(reply, LogChunk):
                    printer.print(reply)
                elif isinstance(reply, Note):
                    note(reply.text)
    except KeyboardInterrupt:
        note(f"the job goes on; `p2pq wait {job}` waits for it, `p2pq cancel {job}` stops it")
        return EXIT_INTERRUPTED
    printer.end()
    return EXIT_OK


@contextmanager
def _safe(job: str, *, follow: bool) -> Iterator[None]:
    """Whoever follows a job and loses the node is told that the job is safe."""
    try:
        yield
    except NodeUnreachableError as error:
        raise (went_away([job]) if follow else error) from error


class _LogPrinter:
    """Prints output of tasks as it comes; characters that a piece cuts in two are put together again."""

    def __init__(self, *, raw: bool, as_json: bool, live: bool) -> None:
        """Print JSON as one document at the end, or, live, as an object per piece."""
        self._raw = raw or not sys.stdout.isatty()
        self._json = as_json
        self._live = live
        self._decoders: dict[int, codecs.IncrementalDecoder] = {}
        self._texts: dict[tuple[int, str], list[str]] = {}

    def print(self, chunk: LogChunk) -> None:
        """Take one piece of output."""
        if not self._json and self._raw:
            sys.stdout.buffer.write(chunk.data)
            sys.stdout.buffer.flush()
            return
        decoder = self._decoders.setdefault(chunk.task, codecs.getincrementaldecoder("utf-8")("replace"))
        text = decoder.decode(chunk.data)
        if self._json and not self._live:
            self._texts.setdefault((chunk.task, chunk.stream), []).append(text)
        elif self._json:
            print_json({"task": chunk.task, "stream": chunk.stream, "text": text})
        else:
            sys.stdout.write("\n".join("\t".join(map(harmless, line.split("\t"))) for line in text.split("\n")))
        sys.stdout.flush()

    def end(self) -> None:
        """Print what was kept until there is all of it."""
        if self._json and not self._live:
            print_json(
                [
                    {"task": task, "stream": stream, "text": "".join(parts)}
                    for (task, stream), parts in self._texts.items()
                ]
            )
