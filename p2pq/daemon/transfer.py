"""Blobs between linked nodes: tickets over the link, bytes over plain HTTP.

The side that dialled the link speaks HTTP, so that a node which nobody can dial takes and gives as well: a fetcher that
dialled asks for tickets (BlobWant, BlobTickets) and GETs; a fetcher that was dialled hands out tickets (BlobPush) and
the other side PUTs. Bytes are ciphertext, and each blob is checked against its name on arrival.

Where bridges carry the link, the nearest one is asked instead, and told who has the blobs: it gets them first, in the same
way, unless its store has them. So a blob crosses it once, however many want it, and it keeps what it cannot read.
"""

import asyncio
import os
from collections import deque
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Final

import aiohttp
from aiohttp import web
from aiohttp.abc import AbstractStreamWriter

from p2pq.daemon.blobstore import BlobStore
from p2pq.daemon.tickets import TICKET_S, Arrival, Ticket, Tickets, normal, resolve
from p2pq.errors import LinkError, Reject, StorageError
from p2pq.model.ids import NodeId, short
from p2pq.wire.messages import BlobGone, BlobPush, BlobTickets, BlobWant, Message
from p2pq.wire.tree import CHUNK

ANSWER_S: Final = 10.0
"""How long a peer may take to answer BlobWant."""
FAR_ANSWER_S: Final = 60.0
"""The same where that is a bridge which has to get the blobs first."""
BODY_S: Final = 120.0
"""How long one blob may take: 4 MiB at 35 kB/s."""
PARALLEL: Final = 4
"""Requests at once to one peer, over all fetches."""
BATCH_BLOBS: Final = 64
BATCH_BYTES: Final = 16 << 20
"""Tickets are asked for in batches of this size, so that few go stale on a slow link."""
PUSHES_MAX: Final = 2 * PARALLEL
"""BlobPush messages served at once per peer."""
BODIES_MAX: Final = 16
"""PUT bodies in memory at once."""
PAUSES_S: Final = (0.2, 1.0, 0.0)
"""Pauses after rounds that brought nothing; after the last one a fetch gives up."""
PATH: Final = "/p2pq/1/blob/"
SENDFILE_BYTES: Final = 512 << 10
"""Smaller blobs are read and written: opening a file for sendfile costs more than it saves."""
_PIECE: Final = 256 << 10

BlobMessage = BlobWant | BlobTickets | BlobPush | BlobGone


class TransferError(LinkError):
    """Blobs could not be fetched from that peer; what arrived is kept, and another try asks only for the rest."""


@dataclass(slots=True)
class _Link:
    """What is under way with one linked peer."""

    dialled: bool
    host: str
    url: str
    bridge: NodeId | None = None
    """Who carries the link, if it is not direct: no HTTP to the peer itself."""
    slots: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(PARALLEL))
    answers: "dict[int, asyncio.Future[tuple[bytes, ...]]]" = field(default_factory=dict)
    """BlobWants of ours that wait for BlobTickets."""
    pushes: dict[int, dict[bytes, bytes]] = field(default_factory=dict)
    """BlobPushes of ours: by request, ticket -> blob."""
    tasks: "set[asyncio.Task[None]]" = field(default_factory=set)
    """BlobPushes of theirs that are being served, and BlobWants of what this node, as a bridge, gets first."""


class _BlobFile(web.FileResponse):
    """A file that is sent within BODY_S, or the connection is cut: a peer that does not read must not hold it."""

    async def prepare(self, request: web.BaseRequest) -> AbstractStreamWriter | None:
        try:
            async with asyncio.timeout(BODY_S):
                return await super().prepare(request)
        except TimeoutError as error:
            raise ConnectionResetError("the peer reads too slowly") from error


def http_session() -> aiohttp.ClientSession:
    """Return a client session fit for ``Transfers``: no cookies, no proxies, no decompression, few connections per peer."""
    return aiohttp.ClientSession(
        auto_decompress=False,
        cookie_jar=aiohttp.DummyCookieJar(),
        connector=aiohttp.TCPConnector(limit=64, limit_per_host=2 * PARALLEL),
        timeout=aiohttp.ClientTimeout(total=BODY_S, connect=ANSWER_S),
        trust_env=False,
        read_bufsize=1 << 20,
    )


class Transfers:
    """Fetches and serves blobs. Use it from the event loop's thread only."""

    def __init__(  # noqa: PLR0913  each is a different part
        self,
        store: BlobStore,
        session: aiohttp.ClientSession,
        send: Callable[[NodeId, Message], None],
        *,
        tasks: asyncio.TaskGroup,
        clock: Callable[[], float],
        entropy: Callable[[int], bytes] = os.urandom,
        bridging: bool = False,
    ) -> None:
        """Take the parts.

        Args:
            store: where blobs come from and go to.
            session: from ``http_session``; closed by the caller.
            send: queues a message on the link to a peer; may raise LinkError.
            tasks: owns the tasks that push blobs.
            clock: monotonic seconds.
            entropy: ``n -> n`` random bytes.
            bridging: get blobs for peers from others.
        """
        self._bridging = bridging
        self._store = store
        self._session = session
        self._send = send
        self._tasks = tasks
        self._tickets = Tickets(clock, entropy)
        self._links: dict[NodeId, _Link] = {}
        self._flights: dict[tuple[NodeId, bytes], asyncio.Future[None]] = {}
        """By peer: one that sends nothing must not hold up what another would send. Honest peers share no blobs."""
        self._bodies = asyncio.Semaphore(BODIES_MAX)
        self._req = 0

    # ------------------------------------------------------------------ links

    def link_up(self, peer: NodeId, dialled: bool, address: str, bridge: NodeId | None = None) -> None:
        """A link is up.

        Args:
            peer: to whom.
            dialled: whether this node dialled it.
            address: ``HOST:PORT`` or ``[V6]:PORT``, numeric: where it was dialled, or where it came from.
            bridge: who carries the link; then the address does not matter.
        """
        if peer in self._links:
            self.link_down(peer)
        host = normal(address.rpartition(":")[0].strip("[]"))
        self._links[peer] = _Link(dialled=dialled, host=host, url=f"http://{address}{PATH}", bridge=bridge)

    def link_down(self, peer: NodeId) -> None:
        """A link is down: its tickets die, its requests fail at once."""
        link = self._links.pop(peer, None)
        if link is None:
            return
        for answer in link.answers.values():
            resolve(answer, ())
        self._tickets.drop(peer)
        for task in link.tasks:
            task.cancel()

    def on_message(self, peer: NodeId, message: BlobMessage) -> None:
        """Take a message of the data plane from a linked peer.

        Raises:
            Reject: it contradicts itself.
        """
        link = self._links.get(peer)
        if link is None:
            return  # it raced with the end of the link
        match message:
            case BlobWant():
                if len(link.tasks) < PUSHES_MAX and self._has_to_get(peer, message):
                    self._serve(peer, link, self._give_far(peer, link, message))
                else:
                    self._give(peer, link, message)
            case BlobTickets(req=req, tickets=tickets):
                answer = link.answers.get(req)
                if answer is not None:
                    resolve(answer, tickets)
            case BlobPush():
                self._serve_push(peer, link, message)
            case BlobGone(req=req, blobs=blobs):
                gone = set(blobs)
                for token, blob in link.pushes.get(req, {}).items():
                    if blob in gone:
                        self._tickets.revoke(token)

    # ------------------------------------------------------------------ fetching

    async def fetch(self, peer: NodeId, blobs: Sequence[tuple[bytes, int]]) -> None:
        """Bring blobs here from a linked peer; return when all are in the store (not yet synced).

        Blobs that another call is fetching are waited for, not fetched twice. Pin them before, or a full store may
        evict
        the first while the last arrive.

        Args:
            peer: who has them.
            blobs: names and sizes in bytes of ciphertext.

        Raises:
            TransferError: some are still missing after len(PAUSES_S) rounds without progress, or there is no link.
            StorageError: they cannot be stored.
        """
        wanted = dict(blobs)
        idle = 0
        while missing := {blob: size for blob, size in wanted.items() if not self._store.has(blob)}:
            if idle == len(PAUSES_S) or peer not in self._links or max(missing.values()) > CHUNK:
                raise TransferError(f"{len(missing)} of {len(wanted)} blobs could not be fetched from {short(peer)}")
            own = {blob: size for blob, size in missing.items() if (peer, blob) not in self._flights}
            if not own:
                await asyncio.wait({self._flights[peer, blob] for blob in missing})
                continue
            await self._fly(peer, own)
            if any(self._store.has(blob) for blob in own):
                idle = 0
                continue
            await asyncio.sleep(PAUSES_S[idle])
            idle += 1

    async def _fly(self, peer: NodeId, own: dict[bytes, int]) -> None:
        """Try once to get blobs that nobody else is getting."""
        landed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._flights.update(dict.fromkeys(((peer, blob) for blob in own), landed))
        batches = deque(_batches(own))
        failures: list[StorageError] = []
        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(min(PARALLEL, len(batches))):
                    group.create_task(self._fetch_batches(peer, batches, failures))
        finally:
            for blob in own:
                del self._flights[peer, blob]
            landed.set_result(None)
        if failures:
            raise failures[0]

    async def _fetch_batches(
        self, peer: NodeId, batches: deque[dict[bytes, int]], failures: list[StorageError]
    ) -> None:
        while batches and not failures and (link := self._links.get(peer)):
            holder, source = peer, b""
            if link.bridge is not None:
                holder, source = link.bridge, peer
                if (link := self._links.get(holder)) is None or link.bridge is not None:
                    return
            batch = batches.popleft()
            async with link.slots:
                try:
                    if link.dialled:
                        await self._pull(holder, link, batch, source)
                    else:
                        await self._await_push(holder, link, batch, source)
                except StorageError as error:
                    failures.append(error)

    async def _pull(self, peer: NodeId, link: _Link, batch: dict[bytes, int], source: bytes) -> None:
        self._req = req = self._req + 1
        answer = link.answers[req] = asyncio.get_running_loop().create_future()
        try:
            sizes = tuple(batch.values()) if source else ()
            if not self._say(peer, BlobWant(req=req, blobs=tuple(batch), source=source, sizes=sizes)):
                return
            async with asyncio.timeout(FAR_ANSWER_S if source else ANSWER_S):
                tickets = await answer
        except TimeoutError:
            return
        finally:
            del link.answers[req]
        for (blob, size), token in zip(batch.items(), tickets, strict=False):
            if token:
                await self._get(f"{link.url}{token.hex()}", blob, size)

    async def _get(self, url: str, blob: bytes, size: int) -> None:
        """GET one blob; a failure of the peer or the network leaves it missing."""
        try:
            async with self._session.get(
                url, allow_redirects=False, headers={"Accept-Encoding": "identity"}
            ) as response:
                if response.status != web.HTTPOk.status_code or response.content_length != size:
                    return
                data = await response.content.readexactly(size)
            await asyncio.to_thread(self._store.put, blob, data)
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError, asyncio.IncompleteReadError, Reject):
            return

    async def _await_push(self, peer: NodeId, link: _Link, batch: dict[bytes, int], source: bytes) -> None:
        self._req = req = self._req + 1
        loop = asyncio.get_running_loop()
        life_s = FAR_ANSWER_S if source else TICKET_S
        pairs = [self._tickets.to_put(peer, link.host, blob, size, life_s) for blob, size in batch.items()]
        tokens = [token for token, _ in pairs]
        link.pushes[req] = dict(zip(tokens, batch, strict=True))
        arrivals: list[Arrival] = [arrived for _, arrived in pairs]
        stale = loop.call_later(life_s, self._revoke, tokens)
        try:
            sizes = tuple(batch.values()) if source else ()
            push = BlobPush(req=req, blobs=tuple(batch), tickets=tuple(tokens), source=source, sizes=sizes)
            if self._say(peer, push):
                # Every future ends: by its PUT, by BlobGone, with the link, or unused after its time.
                await asyncio.wait(arrivals)
        finally:
            stale.cancel()
            del link.pushes[req]
            for token in tokens:
                self._tickets.end(token)
        for arrived in arrivals:
            error = arrived.result()
            if error is not None:
                raise error

    # ------------------------------------------------------------------ serving

    def routes(self) -> list[web.RouteDef]:
        """Return the routes for the server that peers reach."""
        path = PATH + "{token:[0-9a-f]{64}}"
        return [web.get(path, self._on_get, allow_head=False), web.put(path, self._on_put)]

    async def _on_get(self, request: web.Request) -> web.StreamResponse:
        _, ticket = self._admit(request, put=False)
        try:
            if self._store.size(ticket.blob) < SENDFILE_BYTES:
                return web.Response(body=await asyncio.to_thread(self._store.get, ticket.blob))
            return _BlobFile(await asyncio.to_thread(self._store.path, ticket.blob))
        except StorageError as error:
            raise web.HTTPNotFound from error

    async def _on_put(self, request: web.Request) -> web.StreamResponse:
        token, ticket = self._admit(request, put=True)
        try:
            if request.content_length != ticket.size or "Content-Encoding" in request.headers:
                raise web.HTTPBadRequest
            async with asyncio.timeout(BODY_S), self._bodies:
                data = await request.content.readexactly(ticket.size)
            await asyncio.to_thread(self._store.put, ticket.blob, data)
        except (OSError, asyncio.IncompleteReadError, Reject) as error:  # a time-out is an OSError
            raise web.HTTPBadRequest from error
        except StorageError as error:
            self._tickets.end(token, error)
            raise web.HTTPInsufficientStorage from error
        finally:
            self._tickets.end(token)
        return web.Response(status=web.HTTPNoContent.status_code)

    def _admit(self, request: web.Request, *, put: bool) -> tuple[bytes, Ticket]:
        """Use up the ticket that a request shows, or refuse the request."""
        if "Origin" in request.headers:
            raise web.HTTPForbidden  # a web page has no business here
        token = bytes.fromhex(request.match_info["token"])
        ticket = self._tickets.admit(token, request.remote or "", put=put)
        if ticket is None:
            raise web.HTTPNotFound
        return token, ticket

    def _ticket(self, peer: NodeId, link: _Link, blob: bytes) -> bytes:
        return self._tickets.to_get(peer, link.host, blob) if self._store.has(blob) else b""

    def _give(self, peer: NodeId, link: _Link, want: BlobWant) -> None:
        tickets = tuple(self._ticket(peer, link, blob) for blob in want.blobs)
        self._say(peer, BlobTickets(req=want.req, tickets=tickets))

    def _has_to_get(self, peer: NodeId, message: BlobWant | BlobPush) -> bool:
        """Tell whether a peer wants blobs of another one that this node, as a bridge, lacks and may get.

        Raises:
            Reject: the message contradicts itself.
        """
        if message.source and len(message.sizes) != len(message.blobs):
            raise Reject("blobs of a source without a size for each")
        source = self._links.get(NodeId(message.source))
        if not self._bridging or source is None or peer in {source.bridge, message.source}:
            return False
        return not all(map(self._store.has, message.blobs))

    async def _give_far(self, peer: NodeId, link: _Link, want: BlobWant) -> None:
        async with self._got_first(want):
            self._give(peer, link, want)

    @asynccontextmanager
    async def _got_first(self, message: BlobWant | BlobPush) -> AsyncIterator[None]:
        """Get the blobs that a peer wants from whom it named; what cannot be had is missing in the answer.

        They stay until the end of the block: the last of them must not drive out the first.
        """
        tag = object()
        self._store.pin(tag, message.blobs)
        try:
            with suppress(TransferError, StorageError):
                await self.fetch(NodeId(message.source), tuple(zip(message.blobs, message.sizes, strict=True)))
            yield
        finally:
            self._store.unpin(tag)

    def _serve(self, peer: NodeId, link: _Link, work: Coroutine[None, None, None]) -> None:
        task = self._tasks.create_task(work, name=f"blobs for {short(peer)}")
        link.tasks.add(task)
        task.add_done_callback(link.tasks.discard)

    def _revoke(self, tokens: list[bytes]) -> None:
        for token in tokens:
            self._tickets.revoke(token)

    # ------------------------------------------------------------------ pushing

    def _serve_push(self, peer: NodeId, link: _Link, push: BlobPush) -> None:
        if len(push.blobs) != len(push.tickets):
            raise Reject("a push has not one ticket per blob")
        far = self._has_to_get(peer, push)
        if not link.dialled or len(link.tasks) >= PUSHES_MAX:
            self._say(peer, BlobGone(req=push.req, blobs=push.blobs))
            return
        self._serve(peer, link, self._push(peer, link, push, far=far))

    async def _push(self, peer: NodeId, link: _Link, push: BlobPush, *, far: bool) -> None:
        if far:
            async with self._got_first(push):
                await self._push(peer, link, push, far=False)
            return
        gone = [
            blob
            for blob, token in zip(push.blobs, push.tickets, strict=True)
            if not await self._put(f"{link.url}{token.hex()}", blob)
        ]
        if gone:
            self._say(peer, BlobGone(req=push.req, blobs=tuple(gone)))

    async def _put(self, url: str, blob: bytes) -> bool:
        """PUT one blob; return whether it was taken."""
        try:
            data = await asyncio.to_thread(self._store.get, blob)
            headers = {"Content-Length": str(len(data)), "Content-Type": "application/octet-stream"}
            async with self._session.put(url, data=_pieces(data), headers=headers, allow_redirects=False) as response:
                return response.status == web.HTTPNoContent.status_code
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError, StorageError):
            return False

    def _say(self, peer: NodeId, message: BlobMessage) -> bool:
        """Send, or return False where the link is gone: its end is told by ``link_down``."""
        with suppress(LinkError):
            self._send(peer, message)
            return True
        return False


def _batches(blobs: dict[bytes, int]) -> Iterator[dict[bytes, int]]:
    """Cut into batches of at most BATCH_BLOBS and BATCH_BYTES, small enough to keep PARALLEL fetchers busy."""
    most = min(BATCH_BLOBS, -(-len(blobs) // PARALLEL))
    batch: dict[bytes, int] = {}
    total = 0
    for blob, size in blobs.items():
        if batch and (len(batch) == most or total + size > BATCH_BYTES):
            yield batch
            batch, total = {}, 0
        batch[blob] = size
        total += size
    if batch:
        yield batch


async def _pieces(data: bytes) -> AsyncIterator[memoryview]:
    view = memoryview(data)
    for at in range(0, len(data), _PIECE):
        yield view[at : at + _PIECE]
