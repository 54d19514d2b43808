"""A bridge that tampers: `p2pq node` with other classes in the place of those that carry links and blobs.

    python -m tests.netns.tampering node ...

To whom it does what is said by ``order``: a file in its home, node by node, which is read again whenever it changes. To all
others it is an honest bridge. SIGUSR1 ends all links that it carries, which then come again through its hands.

One class is one kind of tampering. Of what a bridge touches each may meddle with the records of a link (``records``), with
who is led to whom (``want``, ``offer``), with blobs (``blob``, ``gives``) and, where it batches, with what it tells a master of
how leases came to leaves (``subs``); a bridge that touches more gets more of these.
"""

import json
import os
import signal
from collections.abc import Callable
from contextlib import suppress
from contextvars import ContextVar
from pathlib import Path
from types import FrameType
from typing import Any, ClassVar

import aiohttp
import msgspec
from aiohttp import web

from p2pq.core import cluster, stock
from p2pq.core import effects as fx
from p2pq.core.identity import Identity
from p2pq.daemon import blobhttp, generation, link, links, relays, transfer
from p2pq.daemon.link import Stream
from p2pq.model.ids import NodeId, to_text
from p2pq.wire import codec, prims, sign
from p2pq.wire.messages import BlobGone, BlobPush, BlobTickets, BlobWant, Passed, RelayOffer, RelayWant, Report
from p2pq.wire.objects import SubGrant
from p2pq.wire.tree import CHUNK

FILE = "tampering.json"
FLOOD = 1000
Streams = tuple[Stream, Stream]


def order(home: Path, kinds: dict[str, str]) -> None:
    """Tell the bridge with that home whom (by id) to treat in which way, by the name of a class below."""
    assert set(kinds.values()) <= set(KINDS), kinds
    (home / f"{FILE}.new").write_text(json.dumps(kinds))
    (home / f"{FILE}.new").rename(home / FILE)


class Kind:
    """What a bridge may meddle with; this one meddles with nothing. One object for each direction of a link."""

    gives = True
    """Whether it gives the blobs that it was asked for."""

    def records(self, record: bytes) -> list[bytes]:
        """Return what is passed on in the place of a record of a link."""
        return [record]

    def want(self, want: RelayWant, others: list[NodeId]) -> RelayWant | None:
        """Return what is done in the place of a wish for a link; None: it is refused. ``others`` are linked as well."""
        return want

    def offer(self, offer: RelayOffer, others: list[NodeId]) -> list[RelayOffer]:
        """Return what is said in the place of an offer of a link."""
        return [offer]

    def blob(self, data: bytes) -> bytes:
        """Return what is sent in the place of a blob."""
        return data

    def subs(self, subs: tuple[bytes, ...], identity: Identity) -> tuple[bytes, ...]:
        """Return the sub-grants that are told of with results in the place of the true ones."""
        return subs


class Alters(Kind):
    """Flips a bit of each record."""

    def records(self, record: bytes) -> list[bytes]:
        return [flipped(record)]


class Replays(Kind):
    """Sends each record twice."""

    def records(self, record: bytes) -> list[bytes]:
        return [record, record]


class Swaps(Kind):
    """Sends records of the other links that it carries."""

    def records(self, record: bytes) -> list[bytes]:
        return [Carrying.latest]


class Withholds(Kind):
    """Passes on nothing any more, and keeps the connections open."""

    def records(self, record: bytes) -> list[bytes]:
        return []


class Inflates(Kind):
    """Sends more than was sent to it, without end."""

    def records(self, record: bytes) -> list[bytes]:
        return [record + bytes(1 << 20)] * 100


class Misleads(Kind):
    """Leads to another member than was asked for."""

    def want(self, want: RelayWant, others: list[NodeId]) -> RelayWant:
        return msgspec.structs.replace(want, to=next(each for each in others if each not in (want.to, want.origin)))


class ForgesOrigins(Kind):
    """Says that another member wants the link."""

    def offer(self, offer: RelayOffer, others: list[NodeId]) -> list[RelayOffer]:
        return [msgspec.structs.replace(offer, origin=next(each for each in others if each != offer.origin))]


class ReplaysHandshakes(Kind):
    """Sends the handshake of an earlier link once more."""

    def __init__(self) -> None:
        self._old = iter(list(Carrying.handshakes))

    def records(self, record: bytes) -> list[bytes]:
        return [next(self._old, record)]


class Promises(Kind):
    """Says that it leads there, and never does."""

    def want(self, want: RelayWant, others: list[NodeId]) -> None:
        return None


class Floods(Kind):
    """Offers a thousand links for one."""

    def offer(self, offer: RelayOffer, others: list[NodeId]) -> list[RelayOffer]:
        return [offer, *(msgspec.structs.replace(offer, ticket=os.urandom(32)) for _ in range(FLOOD))]


class AltersBlobs(Kind):
    """Flips a bit of each blob."""

    def blob(self, data: bytes) -> bytes:
        return flipped(data)


class SwapsBlobs(Kind):
    """Sends another blob, of the right length: one that it was asked for earlier."""

    def blob(self, data: bytes) -> bytes:
        earlier = next((each for each in Giving.sent if each != data), b"") or os.urandom(len(data))
        return (earlier * (len(data) // len(earlier) + 1))[: len(data)]


class WithholdsBlobs(Kind):
    """Says that it does not have them and cannot get them."""

    gives = False


class InflatesBlobs(Kind):
    """Sends more than any blob is long."""

    def blob(self, data: bytes) -> bytes:
        return data + bytes(2 * CHUNK)


class ForgesSubGrants(Kind):
    """Says by sub-grants of its own that it handed leases on which it was not granted."""

    def subs(self, subs: tuple[bytes, ...], identity: Identity) -> tuple[bytes, ...]:
        key = prims.SigningKey(identity.secret)
        true = [codec.decode_strict(sign.body_of(raw), SubGrant, size_max=len(raw)) for raw in subs]
        return tuple(sign.sign(key, msgspec.structs.replace(sub, parent=os.urandom(32))) for sub in true)


class Honest(Kind):
    """Does to nobody what it must not do."""


KINDS: dict[str, type[Kind]] = {kind.__name__: kind for kind in Kind.__subclasses__()}


def flipped(data: bytes) -> bytes:
    """Return it with one bit of its middle flipped."""
    middle = len(data) // 2
    return data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]


# -- the bridge --------------------------------------------------------------------------------------------------------


class Orders:
    """What the file says now."""

    _path = Path(os.environ.get("P2PQ_HOME", "."), FILE)
    _mark: object = None
    _kinds: ClassVar[dict[str, str]] = {}

    @classmethod
    def kind(cls, *ends: bytes) -> type[Kind]:
        """Return how who stands at one of these ends is treated."""
        with suppress(FileNotFoundError):
            found = cls._path.stat()
            if (mark := (found.st_ino, found.st_mtime_ns)) != cls._mark:
                cls._kinds, cls._mark = json.loads(cls._path.read_text()), mark
        names = (cls._kinds.get(to_text(end)) for end in ends)
        return KINDS[next(filter(None, names), Honest.__name__)]


class Carrying(relays.Relays):
    """Links that are carried, in its way."""

    latest = bytes(16)
    """The last record of a link that is not tampered with."""
    handshakes: ClassVar[list[bytes]] = []
    """The first two messages of whoever dialled the first link."""
    _ends: ContextVar[tuple[bytes, ...]] = ContextVar("ends")
    """Of the link that was asked for, whoever it leads to then."""
    _near: ContextVar[Stream] = ContextVar("near")

    def __init__(self, *parts: Any, **more: Any) -> None:
        super().__init__(*parts, **more)
        self._joined: list[Streams] = []
        signal.signal(signal.SIGUSR1, self._cut)

    def _cut(self, _signal: int, _frame: FrameType | None) -> None:
        for streams in self._joined:
            for stream in streams:
                link.cut(stream)

    def handle(self, peer: NodeId, message: relays.RelayMessage) -> None:
        if isinstance(message, RelayWant):
            self._ends.set((message.to, message.origin))
            others = list(self._neighbours.peers())  # type: ignore[attr-defined]  # it is of the links
            wanted = Orders.kind(message.to, message.origin)().want(message, others)
            if wanted is None:
                self._refuse(peer, message, relays.NOT_MET)
                return
            message = wanted
        super().handle(peer, message)

    def _say(self, peer: NodeId, message: Any) -> None:
        said = [message]
        if isinstance(message, RelayOffer):
            others = [each for each in self._neighbours.peers() if each != peer]  # type: ignore[attr-defined]
            said = Orders.kind(*self._ends.get())().offer(message, others)
        for each in said:
            super()._say(peer, each)

    async def _join(self, near: Stream, far: Stream) -> None:
        self._near.set(near)
        self._joined.append((near, far))
        try:
            await super()._join(near, far)
        finally:
            self._joined.remove((near, far))

    async def _pass_on(self, source: Stream, sink: Stream) -> None:
        dialled, ends = source is self._near.get(), self._ends.get()
        kind: Kind = Honest()
        with suppress(ConnectionError, aiohttp.ClientError, RuntimeError):
            while (got := await source.receive()).type is aiohttp.WSMsgType.BINARY:
                if type(kind) is not (wanted := Orders.kind(*ends)):
                    kind = wanted()
                if dialled and len(self.handshakes) < 2:
                    self.handshakes.append(got.data)
                if type(kind) is Honest:
                    Carrying.latest = got.data
                # An old handshake goes to whoever is dialled; what that one answers goes back as it is.
                replays = isinstance(kind, ReplaysHandshakes)
                for record in kind.records(got.data) if dialled or not replays else [got.data]:
                    await sink.send_bytes(record)


class Giving(transfer.Transfers):
    """Blobs that are given, in its way."""

    kinds: ClassVar[dict[bytes, Kind]] = {}
    """By blob: as whoever asked for it is treated, or who has it."""
    sent: ClassVar[list[bytes]] = []

    def _note(self, peer: NodeId, message: BlobWant | BlobPush) -> None:
        kind = Orders.kind(peer, message.source)
        for blob in message.blobs:
            self.kinds[blob] = kind()

    def _serve_want(self, peer: NodeId, link: Any, want: BlobWant) -> None:
        self._note(peer, want)
        if Orders.kind(peer, want.source).gives:
            super()._serve_want(peer, link, want)
        else:
            self._say(peer, BlobTickets(req=want.req, tickets=(b"",) * len(want.blobs)))

    def _serve_push(self, peer: NodeId, link: Any, push: BlobPush) -> None:
        self._note(peer, push)
        if Orders.kind(peer, push.source).gives:
            super()._serve_push(peer, link, push)
        else:
            self._say(peer, BlobGone(req=push.req, blobs=push.blobs))


class Sending(blobhttp.BlobHttp):
    """The bytes of blobs, in its way."""

    def _made(self, blob: bytes) -> bytes:
        data = self._store.get(blob)
        changed = Giving.kinds.get(blob, Honest()).blob(data)
        Giving.sent.append(data)
        del Giving.sent[:-8]
        return changed

    async def put(self, url: str, blob: bytes, *, near: bool = False) -> bool:
        with suppress(aiohttp.ClientError, TimeoutError, OSError):
            async with self._session.put(url, data=self._made(blob), allow_redirects=False) as response:
                return response.status == web.HTTPNoContent.status_code
        return False

    async def _on_get(self, request: web.Request) -> web.StreamResponse:
        _, ticket = self._admit(request, put=False)
        return web.Response(body=self._made(ticket.blob))


class Speaking(cluster.Cluster):
    """What is told to a master of leaves, in its way."""

    def _up(self, message: Passed, out: list[fx.Effect]) -> None:
        if isinstance(message, Report) and message.subs:
            kind = Orders.kind(self._master)()
            message = msgspec.structs.replace(message, subs=kind.subs(message.subs, self._identity))
        super()._up(message, out)


def main() -> None:
    """Be a node as ``p2pq`` makes one, with these parts in it."""
    places: tuple[tuple[Any, str, Callable[..., Any]], ...] = (
        (links, "Relays", Carrying),
        (generation, "Transfers", Giving),
        (transfer, "BlobHttp", Sending),
        (stock, "Cluster", Speaking),
    )
    for module, name, part in places:
        assert hasattr(module, name)
        setattr(module, name, part)
    from p2pq.cli.main import main as p2pq  # noqa: PLC0415  after the change

    p2pq()


if __name__ == "__main__":
    main()
