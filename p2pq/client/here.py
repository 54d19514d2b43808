"""Calls that this machine makes, in this folder and with this environment: what comes back are pickles of this user."""

import pickle  # noqa: TID251  what own processes of this user have written, see ``runner/calls``
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import msgspec

import p2pq
from p2pq.client.asynchronous import ask, last
from p2pq.client.feeding import Feeding
from p2pq.client.grouping import Group, argv
from p2pq.client.inherited import environment
from p2pq.client.streams import AsyncConnection
from p2pq.wire.commandcontrol import SubmitCommands
from p2pq.wire.control import JobView

ROOT: Final = str(Path(p2pq.__file__).parents[1])


class RemoteTraceback(Exception):  # noqa: N818  it is no error of its own: the cause of one, as for processes of a pool
    """Where an exception of a call came about, as text."""

    def __init__(self, text: str) -> None:
        """Take the traceback."""
        super().__init__(text)
        self._text = text

    def __str__(self) -> str:
        """Return the traceback, below the exception that it belongs to."""
        return f'\n"""\n{self._text}"""'


class Here:
    """Submits calls as commands of this machine, and opens what comes back."""

    jobs_max: Final = 8
    """Jobs that are under way at the same time: each takes a connection, and a node has 64."""

    def __init__(self, request: SubmitCommands) -> None:
        """Take what all jobs have in common."""
        self._request = request

    def jobs(self, groups: list[Group]) -> list[list[Group]]:
        """Return groups of calls as they are put into jobs."""
        return [groups]

    async def submit(self, node: AsyncConnection, groups: list[Group], check: Callable[[], None]) -> str:
        """Make a job of groups of calls; return its id.

        Raises:
            P2PQError: the node refuses, or ``check`` does.
        """
        feed = Feeding([group.data for group in groups])
        for piece in feed.pieces():
            check()
            await ask(node, piece, JobView)
        check()
        request = msgspec.structs.replace(
            self._request, words=argv(sys.executable, ROOT), cwd=str(Path.cwd()), environment=environment()
        )
        return last(await ask(node, feed.named(request), JobView), JobView).job

    def result(self, payload: memoryview, _node: str) -> Any:  # noqa: ANN401  whatever the call returned
        """Return what a call returned.

        Raises:
            Exception: what an object raises that cannot be opened here.
        """
        return pickle.loads(payload)  # noqa: S301  see above

    def other(self, payload: memoryview, node: str) -> BaseException:
        """Return what says that a call returned something that does not travel; here everything does that can be pickled."""
        return self.failure(payload, node)

    def failure(self, payload: memoryview, _node: str) -> BaseException:
        """Return what a call raised.

        Raises:
            Exception: it cannot be opened here.
        """
        return raised(payload)


def raised(payload: memoryview) -> BaseException:
    """Return a pickled exception, with where it came about.

    Raises:
        Exception: it cannot be opened here.
    """
    error, text = pickle.loads(payload)  # noqa: S301  see above
    # An exception may be a frozen dataclass, which would not let itself be told its cause.
    BaseException.__setattr__(error, "__cause__", RemoteTraceback(text))
    return error  # type: ignore[no-any-return]
