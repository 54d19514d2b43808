"""The command ``p2pq``: options that every command knows, lazily loaded commands, errors as one sentence.

The table below holds each command's name, where it is, and its one line of help, so that ``p2pq --help`` imports nothing
else and answers at once.
"""

import importlib
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final, NoReturn

import click

from p2pq import __version__
from p2pq.errors import P2PQError

COMMANDS: Final[dict[str, dict[str, tuple[str, str]]]] = {
    "Jobs": {
        "submit": ("jobs", "Send a folder to idle machines and bring results/ back."),
        "run": ("commands", "Run one command; its output and exit code become this one's."),
        "map": ("commands", "Run a command on many values, as GNU parallel does."),
        "batch": ("commands", "Run every line of a file as a shell command."),
        "jobs": ("jobs", "List your jobs, newest first."),
        "show": ("jobs", "Show one job, or one task with every attempt of it."),
        "tasks": ("jobs", "List the tasks of a job: state, node, exit code, time, memory."),
        "logs": ("logs", "Print what a job or one task printed, live with --follow."),
        "wait": ("jobs", "Wait until jobs have ended."),
        "results": ("jobs", "Write a job's results out again."),
        "verify": ("verifies", "Check again who signed a job's results, and its files."),
        "cancel": ("jobs", "Stop a job or one task of it."),
        "retry": ("attempts", "Run the failed tasks of a job again."),
        "why": ("jobs", "Say in one sentence why a job or task is as it is."),
    },
    "Node": {
        "node": ("nodes", "Run a node in the foreground."),
        "start": ("nodes", "Start a node in the background."),
        "stop": ("nodes", "Stop the node; leases are handed back."),
        "status": ("nodes", "Show this node: mesh, peers, slots, what runs here and for whom."),
        "pause": ("owners", "Let no tasks of others run here, for a while."),
        "resume": ("owners", "Let them run again."),
        "peers": ("nodes", "List the other nodes that this one sees."),
        "repair": ("repairs", "Save what can be saved of a damaged store."),
        "screensaver": ("screensavers", "Draw what is computed here and for whom, as an X screensaver."),
        "doctor": ("nodes", "Check what works, and say what to do about what does not."),
        "config": ("nodes", "Show every setting and where it comes from."),
        "completion": ("nodes", "Print the completion script for bash, zsh or fish."),
    },
    "Mesh": {
        "mesh": ("meshes", "Show this node's mesh, or found a new one."),
        "members": ("meshes", "List who is in the mesh."),
        "invite": ("meshes", "Print a one-time code that lets another machine in."),
        "join": ("meshes", "Join a mesh by a code."),
        "ban": ("meshes", "Put a node out, at once."),
        "unban": ("meshes", "Let a banned node in again."),
    },
}


class _ReaderGoneError(Exception):
    """Whoever read our output has had enough."""


class LazyGroup(click.Group):
    """A group whose commands are imported when they are used."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of all commands."""
        del ctx
        return [name for section in COMMANDS.values() for name in section]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import and return a command."""
        del ctx
        for section in COMMANDS.values():
            if cmd_name in section:
                module = importlib.import_module(f"p2pq.cli.{section[cmd_name][0]}")
                command: click.Command = getattr(module, f"{cmd_name}_command")
                return command
        return None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands by section, without importing them."""
        del ctx
        for title, section in COMMANDS.items():
            with formatter.section(title):
                formatter.write_dl([(name, line) for name, (_, line) in section.items()])

    def invoke(self, ctx: click.Context) -> Any:  # noqa: ANN401  whatever the command returns
        """Run the command."""
        try:
            return super().invoke(ctx)
        except BrokenPipeError as error:
            raise _ReaderGoneError from error  # click would end with 1, which says that tasks failed

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command; suggest the nearest one where there is none of that name."""
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as error:
            import difflib  # noqa: PLC0415  only after a typo

            near = difflib.get_close_matches(args[0], self.list_commands(ctx), 1, 0.7)
            hint = f" Did you mean `p2pq {near[0]}`?" if near else ""
            raise click.UsageError(f"There is no command {args[0]!r}.{hint}", ctx) from error


@click.group(
    cls=LazyGroup,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.option(
    "--home",
    type=click.Path(path_type=Path, file_okay=False),
    help="The node's folder (default: P2PQ_HOME, else your data folder). Several homes are several nodes.",
)
@click.version_option(__version__, prog_name="p2pq")
@click.pass_context
def cli(ctx: click.Context, home: Path | None) -> None:
    """Send a folder to idle machines, get results/ back. No server, no accounts, no shared disk.

    \b
    p2pq node                 on every machine
    p2pq submit mysim/        on yours
    """  # noqa: D301  click's mark for verbatim text
    ctx.obj = home
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help(), err=True)
        ctx.exit(2)


def main(args: Sequence[str] | None = None) -> None:
    """Run the command line; the process ends with the exit code of cli.md."""
    _open_what_is_closed()
    end(lambda: cli.main(args=list(args) if args is not None else None, prog_name="p2pq", standalone_mode=False))


def end(work: Callable[[], Any]) -> NoReturn:
    """Do some work and end the process with the exit code that it returns; its errors are said here, and nowhere else."""
    try:
        code = work()
        sys.stdout.flush()
    except click.UsageError as error:
        command = error.ctx.command_path if error.ctx is not None else "p2pq"
        _say(f"{' '.join(error.format_message().split())} (see `{command} --help`)")
        code = 2
    except click.ClickException as error:
        _say(error.format_message())
        code = 4
    except (click.Abort, KeyboardInterrupt):
        _say("interrupted; the node and its jobs go on")
        code = 130
    except P2PQError as error:
        _say(str(error))
        failed = getattr(error, "failed", None)
        code = failed.exit_code if failed is not None else error.exit_code
    except (BrokenPipeError, _ReaderGoneError):
        # Nothing more can be said there.
        _let_go()
        code = 141
    except OSError as error:
        _let_go()
        _say(f"{error.filename or 'standard output'}: {error.strerror}; mend that and try again")
        code = 4
    sys.exit(code if isinstance(code, int) else 0)


def _let_go() -> None:
    from p2pq.cli.outputs import let_go  # noqa: PLC0415  only after an error

    let_go()


def _open_what_is_closed() -> None:
    """Whoever closed our standard input, output or error wants nothing of it; what we open next must not take its place."""
    for number, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        if getattr(sys, name) is None:
            descriptor = os.open(os.devnull, os.O_RDWR)
            if descriptor != number:
                os.dup2(descriptor, number)
                os.close(descriptor)
            setattr(sys, name, open(number, mode, closefd=False))  # noqa: SIM115  for as long as the process


def _say(message: str) -> None:
    from p2pq.wire.names import harmless  # noqa: PLC0415  only after an error

    print(f"p2pq: {harmless(message)}", file=sys.stderr)  # noqa: T201  the one place where errors are said
