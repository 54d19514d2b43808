"""Commands about the mesh: mesh, members, invite, join, ban, unban."""

import sys

import click

from p2pq.cli import peerings
from p2pq.cli.common import connect, note, pairs, print_json, say, table
from p2pq.errors import RefusedError, UsageError
from p2pq.model.amounts import parse_seconds
from p2pq.wire import control
from p2pq.wire.control import InviteView, MemberView, MeshView, Note
from p2pq.wire.objects import CAPABILITIES

_JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


@click.group("mesh", invoke_without_command=True)
@_JSON
@click.pass_context
def mesh_command(ctx: click.Context, as_json: bool) -> None:
    """Show this node's mesh, or found a new one with `mesh init`."""
    if ctx.invoked_subcommand is None:
        with connect(ctx, start=True) as node:
            _show(node.one(control.Mesh(), MeshView), as_json=as_json)


@mesh_command.command("init")
@click.argument("name")
@_JSON
@click.pass_context
def init(ctx: click.Context, name: str, as_json: bool) -> None:
    """Found a new mesh NAME. This node is its first member and admin."""
    with connect(ctx, start=True) as node:
        old = node.one(control.Mesh(), MeshView)
        _show(node.one(control.MeshInit(name=name), MeshView), as_json=as_json)
    if not old.solo:
        note(f"it has left mesh {old.name}, which has other members; a code from an admin there lets it in again")


@mesh_command.command("rotate-key")
@click.pass_context
def rotate_key(ctx: click.Context) -> None:
    """Give the mesh a new key. It spreads by itself, and no member has to do anything."""
    with connect(ctx) as node:
        say(node.one(control.RotateKey(), Note).text)


mesh_command.add_command(peerings.peers_command)
mesh_command.add_command(peerings.peer_command)


def _show(view: MeshView, *, as_json: bool) -> None:
    if as_json:
        print_json(view)
        return
    pairs(
        [
            ("mesh", view.name),
            ("id", view.id),
            ("members known", "only this node" if view.solo else view.members),
            ("this node may", ", ".join(view.caps) or "only watch"),
            ("counts as", view.owner),
            ("mesh key", view.key),
            ("founder", "yes; the root key lies here" if view.founder else None),
        ]
    )


@click.command("members")
@_JSON
@click.pass_context
def members_command(ctx: click.Context, as_json: bool) -> None:
    """List who is in the mesh, with capabilities and expiry."""
    with connect(ctx) as node:
        views = node.all(control.Members(), MemberView)
    if as_json:
        print_json(views)
    else:
        table(
            ("ID", "NAME", "OWNER", "MAY", "EXPIRES", "STATE"),
            [(v.id[:8], v.name, v.owner, ",".join(v.caps), v.expires[:10], v.state) for v in views],
        )


@click.command("invite")
@click.option("--caps", default="work,submit", metavar="LIST", help="What the joiner may do (default work,submit).")
@click.option("--owner", default="", metavar="NAME", help="As whom it counts (default: as you).")
@click.option("--ttl", default="10m", metavar="TIME", help="How long the code is good (default 10m).")
@click.option("--uses", default=1, type=click.IntRange(1, 1000), help="For how many machines (default 1).")
@_JSON
@click.pass_context
def invite_command(ctx: click.Context, caps: str, owner: str, ttl: str, uses: int, as_json: bool) -> None:
    """Print a one-time code that lets another machine in."""
    wanted = tuple(sorted({cap.strip() for cap in caps.split(",") if cap.strip()}))
    unknown = [cap for cap in wanted if cap not in CAPABILITIES]
    if unknown:
        raise UsageError(f"--caps {unknown[0]} is no capability; there are {', '.join(CAPABILITIES)}")
    request = control.Invite(caps=wanted, owner=owner, ttl_s=parse_seconds(ttl), uses=uses)
    with connect(ctx, start=True) as node:
        view = node.one(request, InviteView)
        mesh = node.one(control.Mesh(), MeshView)
    if as_json:
        print_json(view)
        return
    click.echo(view.code)
    machines = "one machine" if view.uses == 1 else f"{view.uses} machines"
    note(f"on the other machine: p2pq join {view.code}")
    note(
        f"good for {machines} until {view.expires}; "
        f"in mesh {mesh.name} it will count as {view.owner} and may {', '.join(view.caps)}"
    )
    if view.addresses:
        note(f"if it is not found there, add: --at {' or --at '.join(view.addresses[:4])}")


@click.command("join")
@click.argument("code")
@click.option("--at", default="", metavar="HOST:PORT", help="Where the inviting node listens, if it is not found.")
@click.option("--yes", "-y", is_flag=True, help="Do not ask.")
@_JSON
@click.pass_context
def join_command(ctx: click.Context, code: str, at: str, yes: bool, as_json: bool) -> None:
    """Join a mesh by the CODE that `p2pq invite` printed there."""
    if not yes:
        click.echo(
            "Joining lets members of that mesh run sandboxed tasks without network on this machine, and you on theirs.\n"
            "They can read what you submit. `p2pq node --no-accept` runs nobody else's tasks.",
            err=True,
        )
        if not sys.stdin.isatty():
            raise UsageError("nobody can be asked here (standard input is no terminal); add --yes to agree")
        if not click.confirm("Join?", err=True):
            raise RefusedError("not joined; nothing was changed")
    with connect(ctx, start=True) as node:
        _show(node.one(control.Join(code=code, at=at), MeshView), as_json=as_json)


_OWNER = click.option("--owner", default="", metavar="NAME", help="All nodes of that owner, present and future.")


@click.command("ban")
@click.argument("who", metavar="[NAME-OR-ID]", default="")
@_OWNER
@click.pass_context
def ban_command(ctx: click.Context, who: str, owner: str) -> None:
    """Put a node out, at once, or all of an owner; an admin's ban spreads through the mesh."""
    _ban(ctx, who, owner, banned=True)


@click.command("unban")
@click.argument("who", metavar="[NAME-OR-ID]", default="")
@_OWNER
@click.pass_context
def unban_command(ctx: click.Context, who: str, owner: str) -> None:
    """Let a banned node in again, or all of an owner."""
    _ban(ctx, who, owner, banned=False)


def _ban(ctx: click.Context, who: str, owner: str, *, banned: bool) -> None:
    if bool(who) == bool(owner):
        raise UsageError("name one: a node by NAME-OR-ID (see `p2pq members`), or an owner by --owner NAME")
    request = control.BanOwner(owner=owner, banned=banned) if owner else control.BanMember(who=who, banned=banned)
    with connect(ctx) as node:
        say(node.one(request, Note).text)
