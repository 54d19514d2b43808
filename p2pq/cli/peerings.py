"""Commands about other meshes: mesh peers, mesh peer offer, accept, end."""

import sys
from typing import TextIO

import click

from p2pq.cli.common import connect, note, print_json, say, table
from p2pq.errors import RefusedError, UsageError
from p2pq.model.amounts import parse_seconds
from p2pq.model.ids import plain
from p2pq.wire.control import Note
from p2pq.wire.objects import PEER_CAPABILITIES, PeerCapability
from p2pq.wire.peercontrol import PeerAccept, PeerEnd, PeeringFile, PeeringsList, PeeringView, PeerOffer

_JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
_TEXT_CHARS_MAX = 64 << 10
_DOES = {"submit": "submit jobs", "work": "run tasks", "bridge": "carry links"}


@click.command("peers")
@_JSON
@click.pass_context
def peers_command(ctx: click.Context, as_json: bool) -> None:
    """List the meshes that this one peers with.

    The last column says what this node itself has to do with each, by its config.toml.
    """
    with connect(ctx) as node:
        views = node.all(PeeringsList(), PeeringView)
    if as_json:
        print_json(views)
        return
    table(
        ("MESH", "ID", "STATE", "UNTIL", "THEY MAY HERE", "WE MAY THERE", "THIS NODE"),
        [
            (
                view.name,
                view.mesh,
                view.state,
                (view.ended or view.until)[:10],
                _may(view.theirs, view.their_owners),
                _may(view.ours, view.our_owners),
                _policy(view),
            )
            for view in views
        ],
    )


@click.group("peer")
def peer_command() -> None:
    """Agree with another mesh on working together, or end that.

    An admin here makes an offer, an admin there accepts it and hands the file back, and it is accepted here, too.
    It says what the members of each mesh may do in the other one.
    """


@peer_command.command("offer")
@click.argument("mesh_id")
@click.option(
    "--they",
    default="submit,work,bridge",
    metavar="LIST",
    help="What they may do here, of bridge,submit,work (default all).",
)
@click.option(
    "--we",
    default="submit,work,bridge",
    metavar="LIST",
    help="What we may do there, of bridge,submit,work (default all).",
)
@click.option("--their-owners", default="", metavar="NAMES", help="Only these of their owners (default all).")
@click.option("--our-owners", default="", metavar="NAMES", help="Only these of our owners (default all).")
@click.option("--for", "life", default="90d", metavar="TIME", help="How long it holds (default 90d).")
@_JSON
@click.pass_context
def offer_command(  # noqa: PLR0913, PLR0917  one per option
    ctx: click.Context,
    mesh_id: str,
    they: str,
    we: str,
    their_owners: str,
    our_owners: str,
    life: str,
    as_json: bool,
) -> None:
    """Print an offer to the mesh MESH_ID, for an admin there.

    Ask that admin for the id, by a way that you trust. LIST is one or more of bridge, submit, work, divided by commas: bridge
    is to carry links for the other mesh, submit to run jobs on its machines, work to run its jobs.
    """
    request = PeerOffer(
        mesh=mesh_id,
        ours=_caps("--we", we),
        theirs=_caps("--they", they),
        our_owners=_names(our_owners),
        their_owners=_names(their_owners),
        life_s=parse_seconds(life),
    )
    with connect(ctx, start=True) as node:
        found = node.one(request, PeeringFile)
    if as_json:
        print_json(found)
        return
    click.echo(found.text, nl=False)
    _tell(found.peering)
    note("hand this file to an admin of that mesh, who runs: p2pq mesh peer accept FILE; nobody else can use it")


@peer_command.command("accept")
@click.argument("file", type=click.File("r", errors="replace"))
@click.option("--from", "sender", default="", metavar="MESH-ID", help="Who it must be from; else you are asked.")
@_JSON
@click.pass_context
def accept_command(ctx: click.Context, file: TextIO, sender: str, as_json: bool) -> None:
    """Accept the offer in FILE; or take in ours, accepted there.

    FILE is what `p2pq mesh peer offer` or `accept` printed; - is standard input.
    """
    text = file.read(_TEXT_CHARS_MAX)
    with connect(ctx, start=True) as node:
        found = node.one(PeerAccept(text=text), PeeringFile)
        offered = found.peering.state == "offered"
        if sender and plain(sender) != found.peering.mesh:
            raise RefusedError(f"it is from the mesh {found.peering.mesh}, not {sender}; nothing was changed")
        if offered and not sender:
            _ask(found)
        if not found.already:
            found = node.one(PeerAccept(text=text, sure=True), PeeringFile)
    if as_json:
        print_json(found)
        return
    click.echo(found.text, nl=False)
    _tell(found.peering)
    _tell_beside(found)
    if found.already:
        again = "; this is the file again that is to be handed back" if found.text else ""
        note(f"this was accepted already, and nothing was changed{again}")
    elif offered:
        note("accepted; hand this file back, there it is taken in by: p2pq mesh peer accept FILE")
    else:
        note("this mesh and that one peer now, and the nodes of this mesh learn of it by themselves")
    _tell_policy(found.peering)


@peer_command.command("end")
@click.argument("which", metavar="NAME-OR-ID")
@click.pass_context
def end_command(ctx: click.Context, which: str) -> None:
    """End the peering with a mesh, at once and for good.

    Its nodes lose their links, and tasks of its owners are stopped.
    """
    with connect(ctx) as node:
        say(node.one(PeerEnd(which=which), Note).text)


def _ask(found: PeeringFile) -> None:
    """Let the user compare who made an offer with what its admin says."""
    _tell(found.peering)
    _tell_beside(found)
    if not sys.stdin.isatty():
        raise UsageError(
            "nobody can be asked here; compare the id with that admin's `p2pq mesh`, then add --from MESH-ID"
        )
    if not click.confirm("Does `p2pq mesh` show this id there, and do you accept?", err=True):
        raise RefusedError("not accepted; nothing was changed")


def _tell(view: PeeringView) -> None:
    note(f"mesh {view.name or '(its name comes with its acceptance)'}, id {view.mesh}")
    note(f"they may here: {_may(view.theirs, view.their_owners)}; we may there: {_may(view.ours, view.our_owners)}")
    note(f"from {view.since} until {view.until}")


def _tell_beside(found: PeeringFile) -> None:
    for other in found.beside:
        note(
            f"another peering with that mesh holds beside it, {other.id[:8]} until {other.until}: they may here: "
            f"{_may(other.theirs, other.their_owners)}; we may there: {_may(other.ours, other.our_owners)}"
        )
    if found.beside:
        ends = " and ".join(f"`p2pq mesh peer end {other.id[:8]}`" for other in found.beside)
        note(f"each link goes by one of them, the latest first; all count until {ends}")


def _tell_policy(view: PeeringView) -> None:
    """A peering alone lets nobody in: say what each node has to be told."""
    if not (view.accept or view.offer or view.bridge):
        note(
            "no node has to do with that mesh before its config.toml says so: "
            f'[[peer]] mesh = "{view.mesh}", with accept, offer or bridge = true; see docs/configuration.md'
        )


def _may(caps: tuple[str, ...], owners: tuple[str, ...]) -> str:
    does = ", ".join(_DOES.get(cap, cap) for cap in caps)
    return f"{does} ({', '.join(owners)} only)" if owners else does


def _policy(view: PeeringView) -> str:
    """Say what this node lets that mesh do, by its own configuration."""
    wanted = {"accepts its jobs": view.accept, "offers it jobs": view.offer, "bridges": view.bridge}
    return ", ".join(what for what, yes in wanted.items() if yes) or "has nothing to do with it"


def _caps(option: str, text: str) -> tuple[PeerCapability, ...]:
    wanted = _names(text)
    unknown = [cap for cap in wanted if cap not in PEER_CAPABILITIES]
    if unknown or not wanted:
        raise UsageError(f"{option} {text!r}: name one or more of {', '.join(PEER_CAPABILITIES)}")
    return tuple(cap for cap in PEER_CAPABILITIES if cap in wanted)


def _names(text: str) -> tuple[str, ...]:
    return tuple(sorted({each.strip() for each in text.split(",") if each.strip()}))
