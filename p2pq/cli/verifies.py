"""The command ``verify``: whose word the results of a job are."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

import click

from p2pq.cli.common import home_of, note, print_json, say
from p2pq.cli.jobs import EXIT_FAILED, EXIT_OK, JSON, split
from p2pq.errors import UsageError
from p2pq.homes import refuse_root

if TYPE_CHECKING:
    from p2pq.daemon.verifying import Report

EXIT_UNKEPT: Final = 4
NAMED: Final = 8
"""Tasks, files or nodes that are named in one line."""


@click.command("verify")
@click.argument("job_task", metavar="JOB")
@click.argument("tasks", nargs=-1, metavar="[TASK]...")
@JSON
@click.pass_context
def verify_command(ctx: click.Context, job_task: str, tasks: Sequence[str], as_json: bool) -> int:
    """Check again who signed the results of a JOB, or of some TASKs of it, and that its files are what was signed.

    Needs no node: it reads the evidence that was kept with each result. Exit 0: every result is verified; 1: something is
    not as it must be; 4: nothing is wrong, but some results are not proved, and a sentence says why.
    """
    job, task = split(job_task)
    numbers = [_number(job, text) for text in tasks]
    if task is not None:
        numbers.append(task)
    refuse_root()
    from p2pq.daemon.home import Home  # noqa: PLC0415  slow to import
    from p2pq.daemon.verifying import verify  # noqa: PLC0415

    report = verify(Home.open(home_of(ctx).path, create=False), job, numbers)
    if as_json:
        print_json(report)
    else:
        _tell(report)
    if report.failed:
        note("something is not as it must be: run those tasks again, and see `p2pq ban` where a node is to blame")
        return EXIT_FAILED
    return EXIT_UNKEPT if report.unkept else EXIT_OK


def _number(job: str, text: str) -> int:
    if not text.isdecimal():
        raise UsageError(f"{text!r} is not a task; write its number, see `p2pq tasks {job}`")
    return split(f"{job}.{text}")[1] or 0


def _tell(report: "Report") -> None:
    signers = [
        f"{each.name} ({each.owner})" if each.owner not in {"", each.name} else each.name for each in report.signers
    ]
    by = f": signed by {_count(len(signers), 'node')} ({_some(signers)})" if signers else ""
    say(f"{report.verified} of {_count(report.results, 'result')} verified{by}")
    abroad = [each for each in report.signers if each.mesh]
    if abroad:
        meshes = sorted({each.mesh for each in abroad})
        say(
            f"{_count(sum(each.results for each in abroad), 'result')} by nodes of another mesh ({_some(meshes)}): that mesh's "
            "admins say who they are, under the peering that both meshes signed; this mesh vouches for nothing more"
        )
    for each in report.signers:
        if each.banned is not None:
            say(f"{each.name}, or who let it in, is banned since {each.banned}, after its results had come")
    if report.other_mesh:
        say(
            "the job was submitted in another mesh than this node is in now; certificates were checked against that mesh's root"
        )
    for group in (*report.refuted, *report.unkept):
        say(f"{_tasks(group.tasks)}: {group.reason}")
    if report.without:
        say(f"{_count(report.without, 'task')} failed without a result, so there is nothing to verify of them")
    for job, count in report.kept:
        say(f"{_count(count, 'result')} kept from job {job[:8]}: see `p2pq verify {job[:8]}`")
    _tell_files(report)


def _tell_files(report: "Report") -> None:
    files = report.files
    if files.same:
        say(f"{_count(files.same, 'file')} compared: what was signed")
    if files.differ:
        say(f"not what was signed: {_some(files.differ)}")
    if files.gone:
        say(f"not there any more: {_some(files.gone)}")
    if files.unsure:
        say(f"cannot be compared, as they are unreadable or their data made room for newer: {_some(files.unsure)}")
    if files.unnamed:
        say(f"and {_count(files.unnamed, 'file')} more of these")
    if files.unlisted:
        say(
            f"the files of {_count(files.unlisted, 'result')} cannot be compared: the list of them made room for newer data, "
            "or is damaged"
        )
    if files.undelivered:
        say(f"{_count(files.undelivered, 'result')} not written out yet, so no files were compared")


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def _tasks(numbers: Sequence[int]) -> str:
    return f"task{'' if len(numbers) == 1 else 's'} {_some([str(number) for number in numbers])}"


def _some(texts: Sequence[str]) -> str:
    more = len(texts) - NAMED
    return ", ".join(texts[:NAMED]) + (f" and {more} more" if more > 0 else "")
