"""Commands about this node: node, start, stop, status, peers, doctor, config, completion."""

import os
import sys
import time
from collections.abc import Callable
from typing import Any, Final, TypeVar

import click

from p2pq.cli.common import connect, duration, home_of, note, pairs, print_json, say, size, table
from p2pq.errors import NodeSilentError, NodeUnreachableError, RefusedError, UsageError
from p2pq.homes import refuse_root
from p2pq.wire import control
from p2pq.wire.control import Finding, PeerView, StatusView
from p2pq.wire.settingcontrol import SettingsList, SettingView

F = TypeVar("F", bound=Callable[..., Any])

STOP_S: Final = 15.0

_JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


def _node_options(command: F) -> F:
    """Add the options that ``node`` and ``start`` share."""
    for option in (
        click.option("--name", metavar="N", help="What people see (default: the host name)."),
        click.option("--slots", metavar="N", type=click.IntRange(0, 4096), help="Cpus that tasks may use."),
        click.option("--listen", metavar="HOST:PORT", help="Where peers connect (default: every address, port 9476)."),
        click.option("--peer", multiple=True, metavar="HOST:PORT", help="Link to this node too; may be repeated."),
        click.option("--no-mdns", is_flag=True, help="Neither look for peers on the local network nor be found."),
        click.option("--no-accept", is_flag=True, help="Run nobody else's tasks."),
        click.option("--bridge", is_flag=True, help="Carry links between peers that cannot reach each other."),
        click.option("--label", multiple=True, metavar="K=V", help="What --need of a job is matched against."),
        click.option(
            "--load-probe",
            metavar="COMMAND",
            help="What it prints counts as the load, for a [policy] that goes by that.",
        ),
        click.option(
            "--flight", is_flag=True, help="Record decisions in HOME/flight, for replay. Holds the node's keys."
        ),
    ):
        command = option(command)
    return command


def _overrides(options: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the settings that options on the command line set."""
    node: dict[str, Any] = {key: options[key] for key in ("name", "slots", "listen") if options[key] is not None}
    if options["peer"]:
        node["peers"] = list(options["peer"])
    if options["no_mdns"]:
        node["mdns"] = False
    if options["no_accept"]:
        node["accept"] = False
    bridge = {"enabled": True} if options["bridge"] else {}
    log = {"flight": True} if options["flight"] else {}
    policy = {} if options["load_probe"] is None else {"load_probe": options["load_probe"]}
    if options["label"]:
        labels = dict(text.partition("=")[::2] for text in options["label"])
        if not all(key and value for key, value in labels.items()):
            raise UsageError("--label is not K=V; write it like --label room=12")
        node["labels"] = labels
    given = {"node": node, "bridge": bridge, "policy": policy, "log": log}
    return {section: settings for section, settings in given.items() if settings}


@click.command("node")
@_node_options
@click.pass_context
def node_command(ctx: click.Context, /, **options: Any) -> int:  # noqa: ANN401
    """Run a node in the foreground until it is told to stop.

    Prints one line `ready NAME ID HOST:PORT` when it serves. SIGTERM hands leases back and ends within 10 s.
    """
    refuse_root()
    overrides = _overrides(options)
    from p2pq.daemon.loading import load  # noqa: PLC0415  the daemon is slow to import

    run = load()
    return run(home_of(ctx).path, overrides, ready=_ready)


def _ready(line: str) -> None:
    click.echo(line)
    sys.stdout.flush()
    if os.environ.get("P2PQ_DETACHED") == "1":
        # Who started us has read the line and goes; the log is in HOME/node.log.
        nowhere = os.open(os.devnull, os.O_RDWR)
        os.dup2(nowhere, 1)
        os.dup2(nowhere, 2)
        os.close(nowhere)


@click.command("start")
@_node_options
@click.pass_context
def start_command(ctx: click.Context, /, **options: Any) -> None:  # noqa: ANN401
    """Start a node in the background; it stays until `p2pq stop`.

    So do the options: if the node ends in another way, the next start has them too, besides those that it is given.
    """
    _overrides(options)
    try:
        with connect(ctx) as node:
            raise RefusedError(f"a node runs here already ({node.welcome.name}); `p2pq stop` ends it")
    except NodeSilentError:
        raise
    except NodeUnreachableError:
        pass
    from p2pq.cli.starting import start  # noqa: PLC0415
    from p2pq.client.starter import Options  # noqa: PLC0415

    click.echo(start(home_of(ctx).path, Options(**options)))


@click.command("stop")
@click.option("--now", is_flag=True, help="Kill what runs; it starts again elsewhere.")
@click.pass_context
def stop_command(ctx: click.Context, now: bool) -> int:
    """Stop the node: what has not started is handed back, what runs ends or leaves a checkpoint within seconds.

    Own tasks go on after the next start.
    """
    from p2pq.cli.starting import forget  # noqa: PLC0415

    try:
        node = connect(ctx)
    except NodeSilentError:
        raise
    except NodeUnreachableError:
        forget(home_of(ctx).path)
        note("no node runs here")
        return 0
    with node:
        for _ in node.ask(control.Stop(now=now)):
            pass
    home = home_of(ctx)
    forget(home.path)
    deadline = time.monotonic() + STOP_S
    while time.monotonic() < deadline:
        try:
            with home.lock():
                return 0
        except RefusedError:
            time.sleep(0.02)
    note(f"the node has not ended after {STOP_S:g} s; see {home.path}/node.log")
    return 1


@click.command("status")
@_JSON
@click.pass_context
def status_command(ctx: click.Context, as_json: bool) -> None:
    """Show this node: mesh, peers, slots, what runs here and for whom, own queue."""
    with connect(ctx) as node:
        view = node.one(control.Status(), StatusView)
    if as_json:
        print_json(view)
        return
    pairs(
        [
            ("node", f"{view.name} ({view.id[:8]}), p2pq {view.version}"),
            ("mesh", view.mesh),
            ("owner", view.owner),
            ("address", view.address),
            ("peers", view.peers),
            ("bridge", view.bridging or None),
            ("slots", f"{view.free} of {view.slots} free for others; own work goes first" if view.slots else None),
            ("guests", f"{view.policy.state}{': ' + view.policy.reason if view.policy.reason else ''}"),
            ("sandbox", f"{view.sandbox}{': ' + view.sandbox_reason if view.sandbox_reason else ''}"),
            ("own queue", f"{view.queued} {'task' if view.queued == 1 else 'tasks'} waiting"),
            ("environments", _environments(view)),
            ("results kept for others", _kept(view)),
        ]
    )
    if view.running:
        click.echo()
        table(
            ("JOB", "TASK", "FOR", "FROM", "TIME", "STATE"),
            [
                (r.job[:8], r.task, r.owner, "here" if r.own else r.node, duration(r.seconds), r.state)
                for r in view.running
            ],
            right=(1, 4),
        )
    if view.bridge:
        click.echo()
        leaves = [", ".join(f"{leaf.node} ({leaf.attempts})" for leaf in each.leaves) for each in view.bridge]
        rows = [(each.node, each.stock, named) for each, named in zip(view.bridge, leaves, strict=True)]
        table(("SPEAKS TO", "IN STOCK", "FOR (ATTEMPTS)"), rows, right=(1,))
    if view.kept:
        click.echo()
        table(
            ("KEPT FOR", "UNTIL BACK", "RESULTS", "SIZE", "OLDEST"),
            [(k.owner, k.node, k.results, size(k.bytes), duration(k.oldest_s)) for k in view.kept],
            right=(2, 3, 4),
        )


def _environments(view: StatusView) -> str | None:
    """Say what packages of jobs take here."""
    count = view.disk.get("environments", 0)
    return f"{count} kept for jobs, {size(view.disk['environments_bytes'])}" if count else None


def _kept(view: StatusView) -> str | None:
    """Say how many results wait here, and how many may."""
    limits = view.kept_limits
    if not view.kept_results or limits is None:
        return None
    most = f"at most {limits.results} and {size(limits.bytes)} for each node, for {limits.days} days"
    return f"{view.kept_results} ({most})"


@click.command("peers")
@_JSON
@click.pass_context
def peers_command(ctx: click.Context, as_json: bool) -> None:
    """List the other nodes that this one sees."""
    with connect(ctx) as node:
        views = node.all(control.PeersList(), PeerView)
    if as_json:
        print_json(views)
        return
    if not views:
        click.echo("no peers yet; `p2pq invite` lets another machine in, `p2pq doctor` says what hinders")
        return
    table(
        ("ID", "NAME", "OWNER", "ADDRESS", "STATE", "RTT", "FREE", "WORK", "WHY"),
        [
            (
                v.id[:8],
                v.name,
                v.owner,
                f"via {', '.join(v.via)}" if v.via else v.address,
                v.state,
                f"{v.rtt_ms:.1f} ms" if v.rtt_ms is not None else None,
                f"{v.free}/{v.slots}" if v.slots is not None else None,
                "yes" if v.has_work else None,
                v.reason,
            )
            for v in views
        ],
        right=(5, 6),
    )


@click.command("doctor")
@_JSON
@click.pass_context
def doctor_command(ctx: click.Context, as_json: bool) -> int:
    """Check what works, what does not, and say the one thing to do about it; exit 1 if something fails."""
    from p2pq.cli.checks import with_sandbox, without_node  # noqa: PLC0415

    findings = without_node(home_of(ctx))
    try:
        with connect(ctx) as node:
            findings = with_sandbox(findings, node.one(control.Status(), StatusView).sandbox)
            findings.append(Finding(check="node", ok=True, detail=f"{node.welcome.name} answers"))
            findings += node.all(control.Doctor(), Finding)
    except NodeUnreachableError as error:
        detail, _, todo = str(error).partition("; ")
        findings.append(Finding(check="node", ok=False, detail=detail, suggestion=todo))
    if as_json:
        print_json(findings)
    else:
        for finding in findings:
            say(f"{'ok  ' if finding.ok else 'FAIL'}  {finding.check}: {finding.detail}")
            if finding.suggestion:
                say(f"      -> {finding.suggestion}")
    return 0 if all(finding.ok for finding in findings) else 1


@click.group("config", invoke_without_command=True)
@_JSON
@click.pass_context
def config_command(ctx: click.Context, as_json: bool) -> None:
    """Show every setting and where it comes from."""
    if ctx.invoked_subcommand is None:
        ctx.invoke(show, as_json=as_json)


@config_command.command("show")
@_JSON
@click.pass_context
def show(ctx: click.Context, as_json: bool = False) -> None:
    """Print each setting's value and where it comes from.

    These are those of the node that runs here; where none does, those of one that would start now, without options.
    """
    from p2pq.daemon.settings import FILE, load  # noqa: PLC0415

    try:
        with connect(ctx) as node:
            runs = node.all(SettingsList(), SettingView)
    except NodeUnreachableError:
        runs = []
    next_start = load(home_of(ctx).path, os.environ).entries
    rows = [(entry.key, entry.value, entry.origin) for entry in runs or next_start]
    if as_json:
        print_json([{"key": key, "value": value, "origin": origin} for key, value, origin in rows])
    else:
        table(("SETTING", "VALUE", "FROM"), [(key, _shown(value), origin) for key, value, origin in rows])
        note(
            "these hold in the node that runs here" if runs else "no node answers here; the next one starts with these"
        )
        fixed = {view.key: view.value for view in runs if view.origin == "option"}
        changed = _differing({view.key: view.value for view in runs}, {e.key: e.value for e in next_start} | fixed)
        if runs and changed:
            note(f"changed since it started: {', '.join(changed)}; `p2pq stop`, then `p2pq start` makes that hold")
        file = home_of(ctx).path / FILE
        note(f"the file is {file}{'' if file.exists() else ', which does not exist: all of it is optional'}")


def _differing(one: dict[str, Any], other: dict[str, Any]) -> list[str]:
    return [key for key in {**one, **other} if one.get(key) != other.get(key)]


def _shown(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, dict):
        return ", ".join(f"{key}={item}" for key, item in value.items()) or "-"
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value)) or "-"
    return "-" if value in (None, "") else str(value)


@click.command("completion")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion_command(shell: str) -> None:
    """Print the completion script; in bash: eval "$(p2pq completion bash)"."""
    from click.shell_completion import get_completion_class  # noqa: PLC0415

    from p2pq.cli.main import cli  # noqa: PLC0415  main imports this module lazily

    kind = get_completion_class(shell)
    if kind is None:
        raise UsageError(f"no completion for {shell}; there is one for bash, zsh and fish")
    click.echo(kind(cli, {}, "p2pq", "_P2PQ_COMPLETE").source())
