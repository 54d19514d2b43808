"""A connection to the local node on asyncio: as ``connection``, for programs that do other things meanwhile."""

import asyncio
import contextlib
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self

from p2pq.client import framing
from p2pq.client.framing import AnswerError
from p2pq.wire.control import ControlRequest, Done, Failed, Reply


class AsyncConnection:
    """A connection to a node's Unix socket, open inside ``async with``.

    No generators: a program may end while one is suspended anywhere, and then each layer of them would be closed on its own.
    """

    def __init__(self, path: Path, token: bytes, keep: "Callable[[AsyncConnection], bool]" = lambda _: False) -> None:
        """Say where; nothing is opened yet.

        Args:
            path: of the node's socket.
            token: what is shown there.
            keep: told of the connection when it could answer another request; returns whether it is to stay open.
        """
        self._path = path
        self._token = token
        self._keep = keep
        self._reader: asyncio.StreamReader
        self._writer: asyncio.StreamWriter | None = None
        self._loop = asyncio.get_running_loop()
        self._answered = False
        """All that was asked is answered."""

    @property
    def is_free(self) -> bool:
        """Whether another request can be sent from this event loop: all before are answered, and the node is there."""
        return (
            self._answered
            and self._writer is not None
            and self._loop is asyncio.get_running_loop()
            and not self._writer.is_closing()
            and not self._reader.at_eof()
        )

    async def __aenter__(self) -> Self:
        """Connect and say hello, unless it is open already.

        Raises:
            NodeSilentError: a node listens there, but does not answer.
            NodeUnreachableError: nobody listens there.
            RefusedError: the node does not take the token or the version.
            RemoteProtocolError: what answers is no node.
        """
        if self._writer is not None:
            return self
        try:
            async with asyncio.timeout(framing.CONNECT_S):
                self._reader, self._writer = await asyncio.open_unix_connection(self._path)
                self._writer.write(framing.greeting(self._token))
                framing.welcomed(await self._receive())
        except (OSError, EOFError) as error:
            await self.close()
            raise framing.not_reached(self._path, error) from error
        except BaseException:
            await self.close()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the connection, unless it is kept; an answer that was under way ends."""
        if not (self.is_free and self._keep(self)):
            await self.close()

    async def send(self, request: ControlRequest) -> None:
        """Send a request.

        Raises:
            UsageError: it is beyond a limit, or holds what is no text.
            NodeUnreachableError: the node went away.
        """
        assert self._writer is not None  # noqa: S101  said once the connection is open
        self._answered = False
        self._writer.write(framing.frame_of(request))
        try:
            await self._writer.drain()
        except OSError as error:
            raise framing.went_away() from error

    async def reply(self) -> Reply | None:
        """Return the next item of the answer; None after the last.

        Raises:
            AnswerError: the node could not do it.
            NodeUnreachableError: the node went away in the middle.
            RemoteProtocolError: the answer makes no sense.
        """
        try:
            reply = await self._receive()
        except (OSError, EOFError) as error:
            raise framing.went_away() from error
        match reply:
            case Done():
                self._answered = True
                return None
            case Failed():
                self._answered = True
                raise AnswerError(reply)
            case _:
                return reply

    async def _receive(self) -> Reply:
        size = framing.size_of(await self._reader.readexactly(framing.LENGTH_BYTES))
        return framing.reply_of(await self._reader.readexactly(size))

    async def close(self) -> None:
        """Close the connection."""
        if self._writer is not None:
            self._writer.close()
            with contextlib.suppress(OSError):
                await self._writer.wait_closed()

    def abandon(self) -> None:
        """Close the connection soon."""
        if self._writer is not None:
            self._writer.close()
