"""``p2pq run [--quiet] [--] CMD...`` on a node that runs: what most people type, without what takes longer to import than to do.

The whole command line (``main``, ``commands``) does the same, and everything else: it is used where there are other options, no
node, a refusal, or trouble of any kind. It alone puts things into words.
"""

import os
import sys

from p2pq.cli.interrupts import HELD, Interrupts
from p2pq.client.inherited import environment, umask
from p2pq.client.quick import QuickConnection
from p2pq.errors import P2PQError, Reject
from p2pq.homes import default_home, refuse_root

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any, NoReturn

_GONE = (OSError, EOFError, Reject)
"""What comes of a node that has gone, or makes no sense any more."""


def run(typed: list[str]) -> int | None:
    """Run what was typed behind ``p2pq run`` and return the exit code; None: nothing was done, all is left to ``main``."""
    quiet, words = _understood(typed)
    if not words or "P2PQ_TASK" in os.environ or None in (sys.stdin, sys.stdout, sys.stderr):
        return None
    try:
        with Interrupts() as interrupts:
            return _run(words, interrupts, quiet=quiet)
    except (KeyboardInterrupt, P2PQError, OSError) as trouble:
        return _end(trouble)


def _understood(typed: list[str]) -> tuple[bool, list[str]]:
    """Return whether it is to be quiet, and the command; none where there are options that are left to others."""
    quiet = False
    for at, word in enumerate(typed):
        if word in ("-q", "--quiet"):
            quiet = True
        elif word == "--":
            return quiet, typed[at + 1 :]
        else:
            return quiet, [] if word.startswith("-") else typed[at:]
    return quiet, []


def _run(words: list[str], interrupts: Interrupts, *, quiet: bool) -> int | None:
    try:
        refuse_root()
        home = os.path.realpath(default_home())
        cwd = os.getcwd()
        node = QuickConnection(home)
    except (P2PQError, *_GONE):
        return None
    with node:
        interrupts.hold(HELD)
        request = {
            "type": "SubmitCommands",
            "words": words,
            "shell": False,
            "cwd": cwd,
            "environment": environment(),
            "umask": umask(),
        }
        try:
            job = _submit(node, request)
        except KeyboardInterrupt:
            from p2pq.cli.commands import unnamed  # noqa: PLC0415  only in trouble, like all imports below

            return unnamed()
        try:
            interrupts.release()
            return None if job is None else _follow(node, job, quiet=quiet)
        except (KeyboardInterrupt, P2PQError, OSError) as trouble:
            if job is None:
                raise
            return _given_up(home, job, trouble)


def _submit(node: QuickConnection, request: "dict[str, Any]") -> str | None:
    """Return the id of the new job; None if there is none."""
    job: str | None = None
    try:
        for reply in node.ask(request):
            match reply:
                case {"type": "JobView", "job": str(name)}:
                    job = name
                case {"type": "Done"}:
                    pass
                case {"type": "Failed"}:
                    return None
                case _:
                    _note(reply)
    except (UnicodeEncodeError, OverflowError):
        return None
    except _GONE as error:
        from p2pq.cli.jobs import went_away_early  # noqa: PLC0415

        raise went_away_early() from error
    return job


def _follow(node: QuickConnection, job: str, *, quiet: bool) -> int:
    """Pass on what the task prints; return the exit code that tells how it ended."""
    ended: dict[str, Any] | None = None
    replies = node.ask({"type": "Ends", "job": job, "live": True})
    while (reply := _next(replies))["type"] != "Done":
        match reply:
            case {"type": "LogChunk", "data": bytes(data)}:
                stream = sys.stderr.buffer if reply.get("stream") == "stderr" else sys.stdout.buffer
                stream.write(data)
                stream.flush()
            case {"type": "TaskEnded"}:
                ended = reply
            case {"type": "Failed"}:
                raise _refusal(reply)
            case _:
                if not quiet:
                    _note(reply)
    if ended is not None and "gone" not in ended:
        match ended:
            case {"state": "done", "exit": int(code)} | {"state": "failed", "exit": int(code), "reason": "exit"}:
                return code
            case _:
                pass
    return _exit_code(job, ended)


def _next(replies: "Iterator[dict[str, Any]]") -> "dict[str, Any]":
    try:
        return next(replies)
    except _GONE as error:  # not to be taken for trouble of our outputs
        from p2pq.client.framing import went_away  # noqa: PLC0415

        raise went_away() from error


# -- left to the whole command line -------------------------------------------------------------------------------------------


def _note(reply: "dict[str, Any]") -> None:
    from p2pq.cli.common import note  # noqa: PLC0415

    if reply["type"] == "Note":
        note(reply["text"])


def _refusal(reply: "dict[str, Any]") -> P2PQError:
    from p2pq import decoders  # noqa: PLC0415
    from p2pq.client.framing import AnswerError  # noqa: PLC0415
    from p2pq.wire.control import Failed  # noqa: PLC0415

    return AnswerError(decoders.convert(reply, Failed))


def _exit_code(job: str, ended: "dict[str, Any] | None") -> int:
    from p2pq import decoders  # noqa: PLC0415
    from p2pq.cli.commands import exit_code  # noqa: PLC0415
    from p2pq.wire.commandcontrol import TaskEnded  # noqa: PLC0415

    return exit_code(job, None if ended is None else decoders.convert(ended, TaskEnded))


def _given_up(home: str, job: str, trouble: BaseException) -> int:
    from pathlib import Path  # noqa: PLC0415

    from p2pq.cli.commands import given_up  # noqa: PLC0415
    from p2pq.cli.common import note  # noqa: PLC0415
    from p2pq.client.finding import connect  # noqa: PLC0415

    return given_up(job, trouble, lambda: connect(Path(home), start=False, say=note))


def _end(trouble: BaseException) -> "NoReturn":
    from p2pq.cli.commands import of_its_own  # noqa: PLC0415
    from p2pq.cli.main import end  # noqa: PLC0415

    def work() -> None:
        with of_its_own():
            raise trouble

    end(work)
