"""Commands for the owner of this machine: pause, resume."""

import click

from p2pq.cli.common import connect, say
from p2pq.model.amounts import parse_seconds
from p2pq.wire.control import Note
from p2pq.wire.settingcontrol import PauseGuests


@click.command("pause")
@click.option("--for", "duration", metavar="TIME", help="For so long, as 30m or 2h (default: until `p2pq resume`).")
@click.pass_context
def pause_command(ctx: click.Context, duration: str | None) -> None:
    """Give this machine back to you: tasks of others stand still at once, and go elsewhere if that takes long.

    Your own tasks go on. A pause outlives the node.
    """
    for_s = None if duration is None else float(parse_seconds(duration))
    _say(ctx, PauseGuests(for_s=for_s))


@click.command("resume")
@click.pass_context
def resume_command(ctx: click.Context) -> None:
    """End a pause; from then on [policy] decides alone."""
    _say(ctx, PauseGuests(paused=False))


def _say(ctx: click.Context, request: PauseGuests) -> None:
    with connect(ctx) as node:
        say(node.one(request, Note).text)
