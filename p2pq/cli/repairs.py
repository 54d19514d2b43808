"""The command ``repair``: what to do when the node says that its store is damaged."""

import sys
import time
from typing import TYPE_CHECKING

import click

from p2pq.cli.common import home_of, note, print_json, say
from p2pq.errors import RefusedError, UsageError
from p2pq.homes import refuse_root

if TYPE_CHECKING:
    from p2pq.daemon.repair import Report

QUESTION = "Build a new store from what can still be read? The damaged one is kept beside it."


@click.command("repair")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option("--force", is_flag=True, help="Build a new store even if no damage is found.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_context
def repair_command(ctx: click.Context, yes: bool, force: bool, as_json: bool) -> None:
    """Save what can be saved of a damaged store; the node must be stopped.

    Nothing is destroyed: the damaged files stay in the home as store.sqlite.damaged~N~. Jobs go on; tasks of which the store no
    longer knows what became of them run again, unless a worker still has their results.
    """
    refuse_root()
    from p2pq.daemon.home import Home  # noqa: PLC0415  slow to import
    from p2pq.daemon.identity import stored_node  # noqa: PLC0415
    from p2pq.daemon.repair import repair, trouble  # noqa: PLC0415
    from p2pq.daemon.store import missing  # noqa: PLC0415
    from p2pq.model.ids import Wall  # noqa: PLC0415

    home = Home.open(home_of(ctx).path, create=False)
    with home.lock():
        if not home.identity_key.exists() and not missing(home):
            note("no node has run here; there is nothing to repair")
            return
        node = stored_node(home)
        found = missing(home) or trouble(home.store, node)
        if not (found or force):
            note("the store is whole; there is nothing to repair")
            return
        note(found or "no damage was found")
        if not yes and not sys.stdin.isatty():
            raise UsageError("nobody can be asked here (standard input is no terminal); add --yes to build a new store")
        if not yes and not click.confirm(f"p2pq: {QUESTION}", err=True):
            raise RefusedError("nothing was changed")
        report = repair(home, node, Wall(int(time.time() * 1000)))
    if as_json:
        print_json(report)
        return
    _tell(report)


def _tell(report: "Report") -> None:
    if report.pages:
        say(
            f"the damaged store is {report.damaged} now; {report.unreadable_pages} of its {report.pages} pages are unreadable"
        )
    else:
        say("nothing of the old store is there; an empty one was begun")
    if report.broken_frames:
        say(
            f"its log: {report.broken_frames} of {report.frames} changed pages are broken; "
            f"transactions after that which are saved, but for those pages: {report.later}"
        )
    if report.unknown_pages:
        say(f"pages that are as they were earlier, and nobody knows which: {report.unknown_pages}")
    for table in report.tables:
        told = [
            f"{count} {what}"
            for count, what in (
                (table.saved, "saved"),
                (table.dropped, "of no use"),
                (table.lost, "lost at least"),
                (table.unreadable_pages, "of its pages unreadable"),
            )
            if count
        ]
        if told:
            say(f"  {table.table}: {', '.join(told)}")
    names = f": {', '.join(report.names)}" if report.names else ""
    say(f"live jobs that go on: {len(report.names)}{names}")
    if report.again:
        say(f"tasks that wait again, because what became of them is lost: {report.again}")
    for text in report.moved:
        say(f"its folder is forgotten, so its results go elsewhere: {text}")
    for text in report.incomplete:
        say(f"lost of job {text}")
    for text in report.lost_jobs:
        say(f"lost: job {text}; submit it again")
    say("start the node: `p2pq start`")
