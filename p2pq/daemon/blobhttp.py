"""The bytes of blobs over plain HTTP, each request with a ticket: GET from and PUT to whoever was dialled.

Nothing here decides who gets what; a blob that comes is kept only if its bytes are what its name says.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, nullcontext
from pathlib import Path
from typing import Final

import aiohttp
from aiohttp import web
from aiohttp.abc import AbstractStreamWriter

from p2pq.daemon.blobstore import BlobStore
from p2pq.daemon.tickets import Ticket, Tickets
from p2pq.errors import Reject, StorageError
from p2pq.model.ids import NodeId

CONNECT_S: Final = 10.0
BODY_S: Final = 120.0
"""How long one blob may take: 4 MiB at 35 kB/s."""
PARALLEL: Final = 4
"""Requests at once to one peer, over all fetches."""
BODIES_MAX: Final = 16
"""PUT bodies in memory at once."""
UPLOADS_MAX: Final = 4
"""Blobs on their way to neighbours at once, whoever they are: the machine is its owner's, and so is its network card."""
PATH: Final = "/p2pq/1/blob/"
SENDFILE_BYTES: Final = 512 << 10
"""Smaller blobs are read and written: opening a file for sendfile costs more than it saves."""
_PIECE: Final = 256 << 10


class _BlobFile(web.FileResponse):
    """A file that is sent within BODY_S, or the connection is cut: a peer that does not read must not hold it."""

    def __init__(self, path: Path, slot: AbstractAsyncContextManager[None]) -> None:
        """Send it once ``slot`` can be entered."""
        super().__init__(path)
        self._slot = slot

    async def prepare(self, request: web.BaseRequest) -> AbstractStreamWriter | None:
        try:
            async with self._slot, asyncio.timeout(BODY_S):
                return await super().prepare(request)
        except TimeoutError as error:
            raise ConnectionResetError("the peer reads too slowly") from error


def http_session() -> aiohttp.ClientSession:
    """Return a client session fit for ``BlobHttp``: no cookies, no proxies, no decompression, few connections per peer."""
    return aiohttp.ClientSession(
        auto_decompress=False,
        cookie_jar=aiohttp.DummyCookieJar(),
        connector=aiohttp.TCPConnector(limit=64, limit_per_host=2 * PARALLEL),
        timeout=aiohttp.ClientTimeout(total=BODY_S, connect=CONNECT_S),
        trust_env=False,
        read_bufsize=1 << 20,
    )


class BlobHttp:
    """Moves single blobs between this node's store and peers. Use it from the event loop's thread only."""

    def __init__(
        self,
        store: BlobStore,
        session: aiohttp.ClientSession,
        tickets: Tickets,
        *,
        came: Callable[[bytes], None],
        lied: Callable[[NodeId], None],
    ) -> None:
        """Take the parts.

        Args:
            store: where blobs come from and go to.
            session: from ``http_session``; closed by the caller.
            tickets: what was promised to peers.
            came: is told of each blob that has come.
            lied: is told of each peer that sent other bytes.
        """
        self._store, self._session, self._tickets = store, session, tickets
        self._came, self._lied = came, lied
        self._bodies = asyncio.Semaphore(BODIES_MAX)
        self._uploads = asyncio.Semaphore(UPLOADS_MAX)
        self.counters: Counter[str] = Counter()
        """Bytes of blobs since the start: to and from neighbours that share what they got, and all others."""

    def routes(self) -> list[web.RouteDef]:
        """Return the routes for the server that peers reach."""
        path = PATH + "{token:[0-9a-f]{64}}"
        return [web.get(path, self._on_get, allow_head=False), web.put(path, self._on_put)]

    async def get(self, peer: NodeId, url: str, ref: tuple[bytes, int], *, near: bool = False) -> None:
        """GET one blob; a failure of the peer or the network leaves it missing.

        Args:
            peer: who shall have it.
            url: where, up to and with its ticket.
            ref: name and size.
            near: the peer is a neighbour that got it itself.

        Raises:
            StorageError: it cannot be kept.
        """
        blob, size = ref
        try:
            async with self._session.get(
                url, allow_redirects=False, headers={"Accept-Encoding": "identity"}
            ) as response:
                if response.status != web.HTTPOk.status_code or response.content_length != size:
                    return
                data = await response.content.readexactly(size)
            await self._keep(peer, blob, data, near=near)
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError, asyncio.IncompleteReadError, Reject):
            return

    async def put(self, url: str, blob: bytes, *, near: bool = False) -> bool:
        """PUT one blob; return whether it was taken. One for a neighbour (``near``) waits for its turn."""
        try:
            async with self._slot(near=near):
                data = await asyncio.to_thread(self._store.get, blob)
                headers = {"Content-Length": str(len(data)), "Content-Type": "application/octet-stream"}
                request = self._session.put(url, data=_pieces(data), headers=headers, allow_redirects=False)
                async with request as response:
                    if response.status != web.HTTPNoContent.status_code:
                        return False
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError, StorageError):
            return False
        self._sent(len(data), near=near)
        return True

    async def _on_get(self, request: web.Request) -> web.StreamResponse:
        _, ticket = self._admit(request, put=False)
        size = self._store.size(ticket.blob)
        try:
            if size < SENDFILE_BYTES and not ticket.near:
                body = await asyncio.to_thread(self._store.get, ticket.blob)
                response: web.StreamResponse = web.Response(body=body)
            else:
                path = await asyncio.to_thread(self._store.path, ticket.blob)
                response = _BlobFile(path, self._slot(near=ticket.near))
        except StorageError as error:
            raise web.HTTPNotFound from error
        self._sent(size, near=ticket.near)
        return response

    async def _on_put(self, request: web.Request) -> web.StreamResponse:
        token, ticket = self._admit(request, put=True)
        try:
            if request.content_length != ticket.size or "Content-Encoding" in request.headers:
                raise web.HTTPBadRequest
            async with asyncio.timeout(BODY_S), self._bodies:
                data = await request.content.readexactly(ticket.size)
            await self._keep(ticket.peer, ticket.blob, data, near=ticket.near)
        except (OSError, asyncio.IncompleteReadError, Reject) as error:  # a time-out is an OSError
            raise web.HTTPBadRequest from error
        except StorageError as error:
            self._tickets.end(token, error)
            raise web.HTTPInsufficientStorage from error
        finally:
            self._tickets.end(token)
        return web.Response(status=web.HTTPNoContent.status_code)

    async def _keep(self, peer: NodeId, blob: bytes, data: bytes, *, near: bool) -> None:
        try:
            await asyncio.to_thread(self._store.put, blob, data)
        except Reject:
            self._lied(peer)
            raise
        self.counters["from-neighbours-bytes" if near else "from-holders-bytes"] += len(data)
        self._came(blob)

    def _admit(self, request: web.Request, *, put: bool) -> tuple[bytes, Ticket]:
        """Use up the ticket that a request shows, or refuse the request."""
        if "Origin" in request.headers:
            raise web.HTTPForbidden  # a web page has no business here
        token = bytes.fromhex(request.match_info["token"])
        ticket = self._tickets.admit(token, request.remote or "", put=put)
        if ticket is None:
            raise web.HTTPNotFound
        return token, ticket

    def _slot(self, *, near: bool) -> AbstractAsyncContextManager[None]:
        return self._uploads if near else nullcontext()

    def _sent(self, size: int, *, near: bool) -> None:
        self.counters["to-neighbours-bytes" if near else "to-fetchers-bytes"] += size


async def _pieces(data: bytes) -> AsyncIterator[memoryview]:
    view = memoryview(data)
    for at in range(0, len(data), _PIECE):
        yield view[at : at + _PIECE]
