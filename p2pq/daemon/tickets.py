"""Tickets for blobs: the right to one HTTP request for one blob, from one address, for a short time.

A ticket is 32 random bytes given to a peer over its link, and dies with that link. URLs carry tickets and name no blob.
"""

import asyncio
import ipaddress
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, TypeVar

from p2pq.errors import StorageError
from p2pq.model.ids import NodeId

TICKET_S: Final = 30.0
"""A ticket must be used within this time."""
TICKETS_MAX: Final = 1024
"""Live tickets per peer; an honest one uses a few hundred at once."""
TOKEN_BYTES: Final = 32

T = TypeVar("T")
Arrival = asyncio.Future[StorageError | None]
"""Done when a blob that was to be PUT here has come or will not; the error where this node could not keep it."""


@dataclass(slots=True)
class Ticket:
    """The right to one GET (``arrived`` unset) or one PUT."""

    peer: NodeId
    host: str
    blob: bytes
    size: int
    """Bytes that a PUT must bring."""
    expires: float
    arrived: Arrival | None = None
    near: bool = False
    """The blob goes from neighbour to neighbour."""
    used: bool = False


class Tickets:
    """The tickets that this node has given out."""

    def __init__(self, clock: Callable[[], float], entropy: Callable[[int], bytes]) -> None:
        """Take monotonic seconds and a source of random bytes."""
        self._clock = clock
        self._entropy = entropy
        self._tickets: dict[bytes, Ticket] = {}
        self._peers: dict[NodeId, dict[bytes, Ticket]] = {}

    def __len__(self) -> int:
        """Return how many tickets are live."""
        return len(self._tickets)

    def to_get(self, peer: NodeId, host: str, blob: bytes, *, near: bool = False) -> bytes:
        """Return a ticket to GET a blob, or nothing where the peer holds too many."""
        live = self._peers.get(peer, {})
        while live and next(iter(live.values())).expires <= self._clock():
            self.end(next(iter(live)))
        if len(live) >= TICKETS_MAX:
            return b""
        return self._add(Ticket(peer, host, blob, 0, self._clock() + TICKET_S, near=near))

    def to_put(
        self, peer: NodeId, host: str, ref: tuple[bytes, int], life_s: float = TICKET_S, *, near: bool = False
    ) -> tuple[bytes, Arrival]:
        """Return a ticket to PUT a blob, of that name and size, here within ``life_s``, and what tells when it has come."""
        arrived: Arrival = asyncio.get_running_loop().create_future()
        token = self._add(Ticket(peer, host, *ref, self._clock() + life_s, arrived, near))
        return token, arrived

    def admit(self, token: bytes, remote: str, *, put: bool) -> Ticket | None:
        """Use up a ticket; None where it is not good for this request.

        A ticket shown from another address stays good: whoever overheard it must not be able to spoil it. One for a PUT
        lives until ``end``, which its request must call.
        """
        ticket = self._tickets.get(token)
        if ticket is None or ticket.used or ticket.expires <= self._clock():
            return None
        if put is (ticket.arrived is None) or normal(remote) != ticket.host:
            return None
        ticket.used = True
        if not put:
            self.end(token)
        return ticket

    def end(self, token: bytes, error: StorageError | None = None) -> None:
        """Forget a ticket; wake who waits for its blob."""
        ticket = self._tickets.pop(token, None)
        if ticket is None:
            return
        live = self._peers[ticket.peer]
        del live[token]
        if not live:
            del self._peers[ticket.peer]
        if ticket.arrived is not None:
            resolve(ticket.arrived, error)

    def revoke(self, token: bytes) -> None:
        """Forget a ticket unless its request is under way."""
        ticket = self._tickets.get(token)
        if ticket is not None and not ticket.used:
            self.end(token)

    def drop(self, peer: NodeId) -> None:
        """Forget every ticket of a peer."""
        for token in list(self._peers.get(peer, ())):
            self.end(token)

    def _add(self, ticket: Ticket) -> bytes:
        token = self._entropy(TOKEN_BYTES)
        self._tickets[token] = self._peers.setdefault(ticket.peer, {})[token] = ticket
        return token


def resolve(future: "asyncio.Future[T]", value: T) -> None:
    """Set a future's result unless it is done already."""
    if not future.done():
        future.set_result(value)


def normal(host: str) -> str:
    """Return an address in one spelling: no scope, no IPv4 dressed up as IPv6; empty for what is no address."""
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return ""
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return str(mapped or address)
