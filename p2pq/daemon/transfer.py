"""Blobs between linked nodes: tickets over the link, bytes over plain HTTP.

The side that dialled the link speaks HTTP, so that a node which nobody can dial takes and gives as well: a fetcher that
dialled asks for tickets (BlobWant, BlobTickets) and GETs; a fetcher that was dialled hands out tickets (BlobPush) and
the other side PUTs. Bytes are ciphertext, and each blob is checked against its name on arrival.

Where bridges carry the link, the nearest one is asked instead, and told who has the blobs: it gets them first, in the same
way, unless its store has them. So a blob crosses it once, however many want it, and it keeps what it cannot read. It is the
same with a bridge that speaks for the holder, to which there is no link at all (docs/adr/0201).

What many want is had from neighbours (docs/adr/0211): the fetcher says to whom it is linked; the holder names, for a blob that
one of those has asked for before, that one. It is asked, and whatever does not come from it is asked of the holder again.
"""

import asyncio
import os
import random
from collections import Counter, deque
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Final

import aiohttp
from aiohttp import web

from p2pq.core.events import NO_BLOBS, OTHER_BYTES, Misserved
from p2pq.daemon.blobasks import FAR_ANSWER_S, Asks, BlobMessage, PeerLink, Terms
from p2pq.daemon.blobhttp import PARALLEL, PATH, BlobHttp
from p2pq.daemon.blobstore import BlobStore
from p2pq.daemon.neighbours import SHUN_S, STILL_S, Holders, Patience
from p2pq.daemon.tickets import Tickets, normal, resolve
from p2pq.daemon.ways import Bridges, Way
from p2pq.errors import LinkError, Reject, StorageError
from p2pq.model.ids import NodeId, short
from p2pq.wire.messages import NEAR_MAX, BlobGone, BlobPush, BlobTickets, BlobWant, Message
from p2pq.wire.tree import CHUNK

BATCH_BLOBS: Final = 64
BATCH_BYTES: Final = 16 << 20
"""Tickets are asked for in batches of this size, so that few go stale on a slow link."""
PUSHES_MAX: Final = 2 * PARALLEL
"""BlobPush messages served at once per peer."""
PAUSES_S: Final = (0.2, 1.0, 0.0)
"""Pauses after rounds that brought nothing; after the last one a fetch gives up."""


VAIN_S: Final = 10.0
"""A bridge that took so long for a batch and brought nothing of it gets no further one in this round."""


class TransferError(LinkError):
    """Blobs could not be fetched from that peer; what arrived is kept, and another try asks only for the rest."""


@dataclass(slots=True)
class _Flight:
    """One try to get blobs of a holder that nobody else is getting."""

    way: Way
    group: asyncio.TaskGroup
    near: tuple[NodeId, ...]
    batches: deque[dict[bytes, int]]
    failures: list[StorageError]
    patience: Patience


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
        bridges: Bridges | None = None,
    ) -> None:
        """Take the parts.

        Args:
            store: where blobs come from and go to.
            session: from ``http_session``; closed by the caller.
            send: queues a message on the link to a peer; may raise LinkError.
            tasks: owns the tasks that push blobs.
            clock: monotonic seconds.
            entropy: ``n -> n`` random bytes.
            bridges: which there are.
        """
        self._bridges = Bridges() if bridges is None else bridges
        self._store = store
        self._send = send
        self._tasks = tasks
        self._clock = clock
        self._tickets = Tickets(clock, entropy)
        self._http = BlobHttp(store, session, self._tickets, came=self._landed, lied=self._lied)
        self._asks = Asks(self._http, self._tickets, self._say)
        self._order = random.Random(entropy(16))  # noqa: S311  who fetches what first is no secret
        self._links: dict[NodeId, PeerLink] = {}
        self._flights: dict[bytes, dict[NodeId, asyncio.Future[None]]] = {}
        """By peer: one that sends nothing must not hold up what another would send."""
        self._holders = Holders()
        self._shunned: dict[NodeId, float] = {}
        """Neighbours that were too slow, or sent something else, and until when they are not asked."""

    @property
    def counters(self) -> Counter[str]:
        """Bytes of blobs since the start, by where they came from and went; and how often a neighbour was given up."""
        return self._http.counters

    def routes(self) -> list[web.RouteDef]:
        """Return the routes for the server that peers reach."""
        return self._http.routes()

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
        self._links[peer] = PeerLink(dialled=dialled, host=host, url=f"http://{address}{PATH}", bridge=bridge)

    def link_down(self, peer: NodeId) -> None:
        """A link is down: its tickets die, its requests fail at once."""
        link = self._links.pop(peer, None)
        if link is None:
            return
        for answer in link.answers.values():
            resolve(answer, None)
        self._tickets.drop(peer)
        self._holders.drop(peer)
        self._shunned.pop(peer, None)
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
                self._serve_want(peer, link, message)
            case BlobTickets():
                self._asks.answered(link, message)
            case BlobPush():
                self._serve_push(peer, link, message)
            case BlobGone():
                self._asks.gone(link, message)

    # ------------------------------------------------------------------ fetching

    async def fetch(
        self,
        peer: NodeId,
        blobs: Sequence[tuple[bytes, int]],
        *,
        shared: bool = False,
        through: NodeId | None = None,
    ) -> None:
        """Bring blobs here from a peer; return when all are in the store (not yet synced).

        Blobs that another call is fetching are waited for, not fetched twice. Pin them before, or a full store may
        evict the first while the last arrive.

        Args:
            peer: who has them.
            blobs: names and sizes in bytes of ciphertext.
            shared: others fetch them as well, so neighbours may have them.
            through: the linked bridge that spoke for the peer when this was decided, where it is not linked itself.

        Raises:
            TransferError: some are still missing after len(PAUSES_S) rounds without progress, or nothing leads there.
            StorageError: they cannot be stored.
        """
        wanted = dict(blobs)
        idle = 0
        idlers: Counter[NodeId] = Counter()
        while missing := {blob: size for blob, size in wanted.items() if not self._store.has(blob)}:
            way = self._bridges.way(self._links, peer, through, idlers)
            if idle == len(PAUSES_S) or way is None or max(missing.values()) > CHUNK:
                raise TransferError(f"{len(missing)} of {len(wanted)} blobs could not be fetched from {short(peer)}")
            own = {blob: size for blob, size in missing.items() if peer not in self._flights.get(blob, {})}
            if not own:
                await asyncio.wait({self._flights[blob][peer] for blob in missing})
                continue
            await self._fly(peer, way, own, self._neighbours(peer) if shared else ())
            if any(self._store.has(blob) for blob in own):
                idle = 0
                if way.bridge is not None and way.bridge not in idlers:
                    self._accuse(idlers)
                continue
            if way.bridge is not None:
                idlers[way.bridge] += 1
            await asyncio.sleep(PAUSES_S[idle])
            idle += 1

    def _accuse(self, idlers: Counter[NodeId]) -> None:
        """Tell of bridges that brought nothing of what another one had."""
        for bridge in idlers:
            self._bridges.post(Misserved(peer=bridge, reason=NO_BLOBS))
        idlers.clear()

    async def _fly(self, peer: NodeId, way: Way, own: dict[bytes, int], near: tuple[NodeId, ...]) -> None:
        """Try once to get blobs that nobody else is getting."""
        loop = asyncio.get_running_loop()
        batches = deque(_batches(own, BATCH_BYTES))
        if near:
            # Each neighbour begins elsewhere and asks for little at a time, so that each soon has what the others lack.
            order = self._order.sample(list(own.items()), len(own))
            batches = deque(_batches(dict(order), CHUNK))
        patience = Patience()
        coming: dict[bytes, asyncio.Future[None]] = {blob: loop.create_future() for blob in own}
        for blob, landed in coming.items():
            self._flights.setdefault(blob, {})[peer] = landed
            landed.add_done_callback(lambda _: patience.renew())
        failures: list[StorageError] = []
        try:
            async with asyncio.TaskGroup() as group:
                flight = _Flight(way, group, near, batches, failures, patience)
                for _ in range(min(PARALLEL, len(batches))):
                    group.create_task(self._fetch_batches(flight))
        finally:
            for blob, landed in coming.items():
                self._end_flight(blob, peer, landed)
        if failures:
            raise failures[0]

    def _end_flight(self, blob: bytes, peer: NodeId, landed: "asyncio.Future[None]") -> None:
        flights = self._flights.get(blob, {})
        if flights.get(peer) is landed:
            del flights[peer]
            if not flights:
                del self._flights[blob]
        resolve(landed, None)

    def _landed(self, blob: bytes) -> None:
        """Wake all who wait for a blob: it is here, from whomever."""
        for landed in self._flights.pop(blob, {}).values():
            resolve(landed, None)

    async def _fetch_batches(self, flight: _Flight) -> None:
        loop = asyncio.get_running_loop()
        while flight.batches and not flight.failures:
            batch, began = flight.batches.popleft(), loop.time()
            hinted = await self._ask_holder(flight, batch, flight.near)
            for neighbour, part in hinted.items():
                flight.group.create_task(self._ask_neighbour(flight, neighbour, part))
            waited = loop.time() - began > VAIN_S
            if flight.way.bridge is not None and waited and not hinted and not any(map(self._store.has, batch)):
                flight.batches.clear()  # or it would take as long for each: the next round asks another bridge

    async def _ask_holder(
        self, flight: _Flight, batch: dict[bytes, int], near: tuple[NodeId, ...]
    ) -> dict[NodeId, dict[bytes, int]]:
        """Get blobs from their holder, or the nearest bridge; return what it leaves to neighbours, by neighbour."""
        link = self._links.get(flight.way.ask)
        if link is None or link.bridge is not None:
            return {}
        async with link.slots:
            hints = await self._ask(flight, flight.way.ask, batch, Terms(source=flight.way.source, near=near))
        hinted: dict[NodeId, dict[bytes, int]] = {}
        for (blob, size), hint in zip(batch.items(), hints, strict=False):
            if 0 < hint <= len(near):
                hinted.setdefault(near[hint - 1], {})[blob] = size
        return hinted

    async def _ask_neighbour(self, flight: _Flight, neighbour: NodeId, part: dict[bytes, int]) -> None:
        """Get blobs from a neighbour that was named, and what does not come from there from the holder after all."""
        link = self._links.get(neighbour)
        if link is not None:
            try:
                async with link.near_slots, flight.patience.waiting() as still:
                    if neighbour not in self._shunned:
                        await self._ask(flight, neighbour, part, Terms(soon=True, still=still))
            except TimeoutError:
                self._shun(neighbour)
        missing = {blob: size for blob, size in part.items() if not self._store.has(blob)}
        if missing and not flight.failures:
            await self._ask_holder(flight, missing, ())

    async def _ask(self, flight: _Flight, peer: NodeId, batch: dict[bytes, int], terms: Terms) -> Sequence[int]:
        """Get blobs from a peer; return the hints that it gave instead of some."""
        link = self._links.get(peer)
        if link is not None:
            try:
                return await self._asks.ask(peer, link, batch, terms)
            except StorageError as error:
                flight.failures.append(error)
        return ()

    def _neighbours(self, holder: NodeId) -> tuple[NodeId, ...]:
        """Return to whom this node is linked without a bridge between, and whom it would ask before a holder."""
        now = self._clock()
        self._shunned = {node: until for node, until in self._shunned.items() if until > now}
        near = (node for node, link in self._links.items() if link.bridge is None and node not in self._shunned)
        return tuple(sorted(node for node in near if node != holder))[:NEAR_MAX]

    def _lied(self, peer: NodeId) -> None:
        self._shun(peer)
        self._bridges.post(Misserved(peer=peer, reason=OTHER_BYTES))

    def _shun(self, peer: NodeId) -> None:
        self._shunned[peer] = self._clock() + SHUN_S
        self.counters["neighbours-given-up"] += 1

    # ------------------------------------------------------------------ serving

    def _serve_want(self, peer: NodeId, link: PeerLink, want: BlobWant) -> None:
        _check_sizes(want)
        hints = self._hints(peer, want)
        if len(link.tasks) < PUSHES_MAX and self._has_to_get(peer, want, hints):
            self._serve(peer, link, self._give_later(peer, link, want, hints))
        else:
            self._give(peer, link, want, hints)

    def _give(self, peer: NodeId, link: PeerLink, want: BlobWant, hints: tuple[int, ...]) -> None:
        tickets = tuple(
            self._tickets.to_get(peer, link.host, blob, near=want.soon) if not hint and self._store.has(blob) else b""
            for blob, hint in zip(want.blobs, hints, strict=True)
        )
        self._say(peer, BlobTickets(req=want.req, tickets=tickets, hints=hints if any(hints) else ()))

    async def _give_later(self, peer: NodeId, link: PeerLink, want: BlobWant, hints: tuple[int, ...]) -> None:
        def still() -> None:
            self._say(peer, BlobTickets(req=want.req, tickets=()))

        async with self._got_first(want, hints, still):
            self._give(peer, link, want, hints)

    def _hints(self, peer: NodeId, message: BlobWant | BlobPush) -> tuple[int, ...]:
        """Return whom a peer shall ask for each blob that it wants: a place in its ``near``, from 1; 0: this node."""
        if not message.near:
            return (0,) * len(message.blobs)
        places = {NodeId(node): place for place, node in enumerate(message.near, 1)}
        getting = self._may_get(peer, message)
        hints = []
        for blob in message.blobs:
            named = self._holders.name(peer, blob, places) if getting or self._store.has(blob) else None
            hints.append(places[named] if named else 0)
        return tuple(hints)

    def _may_get(self, peer: NodeId, message: BlobWant | BlobPush) -> bool:
        """Tell whether a peer names another one from which this node, as a bridge, may get blobs for it."""
        return self._bridges.gets(self._links, peer, NodeId(message.source))

    def _has_to_get(self, peer: NodeId, message: BlobWant | BlobPush, hints: tuple[int, ...]) -> bool:
        """Tell whether this node has not yet what it shall give, but can get it or is getting it."""
        lacking = [
            blob for blob, hint in zip(message.blobs, hints, strict=True) if not hint and not self._store.has(blob)
        ]
        if message.soon:
            return any(blob in self._flights for blob in lacking)
        return bool(lacking) and self._may_get(peer, message)

    @asynccontextmanager
    async def _got_first(
        self, message: BlobWant | BlobPush, hints: tuple[int, ...], still: Callable[[], object]
    ) -> AsyncIterator[None]:
        """Get the blobs that a peer wants from whom it named, or wait for them; what cannot be had is missing in the answer.

        They stay until the end of the block: the last of them must not drive out the first.
        """
        tag = object()
        own = [blob for blob, hint in zip(message.blobs, hints, strict=True) if not hint]
        self._store.pin(tag, own)
        try:
            if message.soon:
                await self._wait_for(own, still)
            else:
                sizes = dict(zip(message.blobs, message.sizes, strict=True))
                with suppress(TransferError, StorageError):
                    refs = [(blob, sizes[blob]) for blob in own]
                    await self.fetch(NodeId(message.source), refs, shared=bool(message.near))
            yield
        finally:
            self._store.unpin(tag)

    async def _wait_for(self, blobs: Sequence[bytes], still: Callable[[], object]) -> None:
        """Wait for what this node is getting for itself, and say so again and again."""
        coming = {landed for blob in blobs for landed in self._flights.get(blob, {}).values()}
        with suppress(TimeoutError):
            async with asyncio.timeout(FAR_ANSWER_S):
                while coming:
                    still()
                    _, coming = await asyncio.wait(coming, timeout=STILL_S)

    def _serve(self, peer: NodeId, link: PeerLink, work: Coroutine[None, None, None]) -> None:
        task = self._tasks.create_task(work, name=f"blobs for {short(peer)}")
        link.tasks.add(task)
        task.add_done_callback(link.tasks.discard)

    # ------------------------------------------------------------------ pushing

    def _serve_push(self, peer: NodeId, link: PeerLink, push: BlobPush) -> None:
        if len(push.blobs) != len(push.tickets):
            raise Reject("a push has not one ticket per blob")
        _check_sizes(push)
        if not link.dialled or len(link.tasks) >= PUSHES_MAX:
            self._say(peer, BlobGone(req=push.req, blobs=push.blobs))
            return
        hints = self._hints(peer, push)
        named = {blob: hint for blob, hint in zip(push.blobs, hints, strict=True) if hint}
        if named:
            self._say(peer, BlobGone(req=push.req, blobs=tuple(named), hints=tuple(named.values())))
        if len(named) < len(push.blobs):
            self._serve(peer, link, self._push(peer, link, push, hints))

    async def _push(self, peer: NodeId, link: PeerLink, push: BlobPush, hints: tuple[int, ...]) -> None:
        if self._has_to_get(peer, push, hints):
            async with self._got_first(push, hints, lambda: self._say(peer, BlobGone(req=push.req, blobs=()))):
                await self._put_all(peer, link, push, hints)
        else:
            await self._put_all(peer, link, push, hints)

    async def _put_all(self, peer: NodeId, link: PeerLink, push: BlobPush, hints: tuple[int, ...]) -> None:
        gone = [
            blob
            for blob, token, hint in zip(push.blobs, push.tickets, hints, strict=True)
            if not hint and not await self._http.put(f"{link.url}{token.hex()}", blob, near=push.soon)
        ]
        if gone:
            self._say(peer, BlobGone(req=push.req, blobs=tuple(gone)))

    def _say(self, peer: NodeId, message: BlobMessage) -> bool:
        """Send, or return False where the link is gone: its end is told by ``link_down``."""
        with suppress(LinkError):
            self._send(peer, message)
            return True
        return False


def _check_sizes(message: BlobWant | BlobPush) -> None:
    if message.source and len(message.sizes) != len(message.blobs):
        raise Reject("blobs of a source without a size for each")


def _batches(blobs: dict[bytes, int], most_bytes: int) -> Iterator[dict[bytes, int]]:
    """Cut into batches of at most BATCH_BLOBS and so many bytes, small enough to keep PARALLEL fetchers busy."""
    most = min(BATCH_BLOBS, -(-len(blobs) // PARALLEL))
    batch: dict[bytes, int] = {}
    total = 0
    for blob, size in blobs.items():
        if batch and (len(batch) == most or total + size > most_bytes):
            yield batch
            batch, total = {}, 0
        batch[blob] = size
        total += size
    if batch:
        yield batch
