"""Links between hosts: ordered and reliable while they stand, like the WebSockets of the daemon, in a network that is not.

Losing means that a link breaks with what is on its way; a partition stalls links until they time out. Beyond what TCP can
do to a node, single messages may be lost (the link breaks a little later, as its record counters would notice) or come
twice and late.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from itertools import pairwise
from random import Random
from typing import Protocol

import msgspec

from p2pq.core import events as ev
from p2pq.core.reaching import is_via, parse_via
from p2pq.model.ids import NodeId
from p2pq.wire import codec
from p2pq.wire import messages as msg
from p2pq.wire.messages import HOPS_MAX
from simulations.world import World

TIMEOUT_S = (20.0, 30.0)
"""How long a node waits for an answer to its pings."""
DIAL_TIMEOUT_S = 10.0
CLOGGED_S = 10.0
"""The longest delay of a clogged link; a slower one would time out."""


class End(Protocol):
    """A host, as the network sees it."""

    index: int
    owner: str
    address: str
    listens: bool
    alive: bool
    dark: bool
    """It has no power, so nothing of it answers."""
    life: int
    naps: int
    """How often it was stopped or put to sleep."""
    node_id: NodeId
    minor: int
    """The newest minor version of the protocol that it speaks."""

    @property
    def held(self) -> bool:
        """Whether it is stopped or asleep now."""
        ...

    def post(self, event: ev.Event, trace: bytes = b"") -> None:
        """Something happens there."""
        ...

    def hello(self, address: str, *, dialled: bool, minor: int, path: tuple[NodeId, ...] = ()) -> ev.LinkUp:
        """Return what it says of itself when a link comes up."""
        ...

    def keeps_out(self, node: NodeId, owner: str) -> bool:
        """Tell whether it refuses a handshake with that node: it is banned."""
        ...

    def holds(self, blob: bytes) -> bool:
        """Tell whether that part of a result lies there."""
        ...

    def leads_to(self, node: NodeId) -> NodeId | None:
        """Return the bridge that leads from there to a node that is not linked."""
        ...


class Partition(msgspec.Struct, eq=False):
    """Hosts on one side of a cut. What leaves them does not arrive outside; nor, unless one-way, the other way round."""

    side: frozenset[int]
    one_way: bool

    def blocks(self, source: int, target: int) -> bool:
        """Tell whether nothing gets from one host to the other."""
        inside = source in self.side
        return inside != (target in self.side) and (inside or not self.one_way)

    def crosses(self, one: int, other: int) -> bool:
        """Tell whether it cuts between these two."""
        return (one in self.side) != (other in self.side)


class Link:
    """One connection. Each end may know, or not yet know, that it stands or that it is gone."""

    __slots__ = ("arrives", "dialler", "dialling", "hops", "open", "slow_until", "stalled", "target")

    def __init__(self, dialler: int, target: int, hops: tuple[int, ...] = ()) -> None:
        self.dialler = dialler
        self.target = target
        self.hops = hops
        """The bridges that carry it, from the dialler on."""
        self.open = {dialler: False, target: False}
        self.arrives = {dialler: 0.0, target: 0.0}
        """When the latest item towards that end arrives."""
        self.stalled: dict[int, list[bytes | Callable[[], None]]] = {dialler: [], target: []}
        self.slow_until = 0.0
        self.dialling = True
        """The dialler waits for an answer."""

    def other(self, end: int) -> int:
        """Return the end across."""
        return self.target if end == self.dialler else self.dialler

    def way(self, end: int) -> tuple[int, ...]:
        """Return the hosts on the way to that end, from the other one."""
        way = (self.dialler, *self.hops, self.target)
        return way if end == self.target else way[::-1]

    def crossed(self, partition: Partition) -> bool:
        """Tell whether a cut goes through it."""
        return any(partition.crosses(one, other) for one, other in pairwise(self.way(self.target)))


class Network:
    """All links, and what is wrong with them."""

    def __init__(self, world: World, may_link: Callable[[int, int], bool]) -> None:
        """Start with no hosts. ``may_link`` tells whether two hosts can reach each other at all."""
        self._world = world
        self._rng: Random = world.rng("network")
        self._may_link = may_link
        self._hosts: Sequence[End] = ()
        self._by_address: dict[str, End] = {}
        self._by_node: dict[NodeId, End] = {}
        self._ends: list[dict[int, Link]] = []
        """Per host, its open ends by peer."""
        self.partitions: list[Partition] = []
        self.loss = 0.0
        self.duplicates = 0.0
        self.delay_s = (0.0002, 0.002)
        self.ups: Counter[tuple[int, int]] = Counter()
        """Per host, how often a link of it came up."""
        self.messages = 0
        self.bytes = 0
        self.lost = 0

    def connect(self, hosts: Sequence[End]) -> None:
        """Plug these hosts in."""
        self._hosts = hosts
        self._by_address = {host.address: host for host in hosts}
        self._by_node = {host.node_id: host for host in hosts}
        self._ends = [{} for _ in hosts]

    def links(self) -> list[Link]:
        """Return every link that some end believes in, in a fixed order."""
        found: dict[int, Link] = {}
        for ends in self._ends:
            for link in ends.values():
                found[id(link)] = link
        return list(found.values())

    def links_of(self, host: int) -> list[Link]:
        """Return the links that a host believes in."""
        return list(self._ends[host].values())

    def any_link(self, rng: Random) -> Link | None:
        """Return some link, if there is one at some host."""
        ends = self._ends[rng.randrange(len(self._ends))]
        return ends[rng.choice(list(ends))] if ends else None

    def linked(self, one: int, other: int) -> bool:
        """Tell whether both ends of one link stand."""
        link = self._ends[one].get(other)
        return link is not None and self._ends[other].get(one) is link

    def carries(self, one: int, bridge: NodeId, node: NodeId) -> bool:
        """Tell whether a host gets data of a node over that bridge, and over those that lead on from there."""
        here, hop = one, self.host(bridge)
        for _ in range(HOPS_MAX):
            if not self.linked(here, hop.index):
                return False
            further = hop.leads_to(node)
            if further is None:
                return self.linked(hop.index, self.host(node).index)
            here, hop = hop.index, self.host(further)
        return False

    def host(self, node: NodeId) -> End:
        """Return the host that is that node."""
        return self._by_node[node]

    def _blocked(self, source: int, target: int) -> bool:
        return any(partition.blocks(source, target) for partition in self.partitions)

    def _cut_off(self, link: Link, end: int) -> bool:
        """Tell whether nothing gets to that end of a link now: a cut is in the way, or a bridge stands still."""
        if link.hops and any(self._hosts[hop].held for hop in link.hops):
            return True
        return bool(self.partitions) and any(self._blocked(one, other) for one, other in pairwise(link.way(end)))

    # -- coming up ------------------------------------------------------------------------------------------------------

    def dial(self, host: End, address: str, node: NodeId | None) -> None:
        """Try to link that host to whoever listens there."""
        if is_via(address):
            self._dial_via(host, address)
            return
        target = self._by_address.get(address)
        if target is None or not self._may_link(host.index, target.index):
            self._world.after(self._delay(), self._fail, host, host.life, address, "no route", node)
            return
        link = Link(host.index, target.index)
        self._world.after(self._delay(), self._arrive, link, host, host.life, target, address)
        self._world.after(DIAL_TIMEOUT_S, self._give_up, link, host, host.life, address)

    def _dial_via(self, host: End, address: str) -> None:
        """Ask a bridge for a link: as far as it knows, it and those further on are linked in a row."""
        bridge, node = (self._by_node[each] for each in parse_via(address))
        near, far = self._ends[host.index].get(bridge.index), self._ends[bridge.index].get(node.index)
        if near is None or near.hops or not bridge.alive or far is None:
            self._world.after(self._delay(), self._fail, host, host.life, address, "no-way", node.node_id)
            return
        link = Link(host.index, node.index, (bridge.index, *far.way(node.index)[1:-1]))
        self._world.after(2 * self._delay(), self._arrive, link, host, host.life, node, address)
        self._world.after(DIAL_TIMEOUT_S, self._give_up, link, host, host.life, address)

    def _fail(self, host: End, life: int, address: str, reason: str, node: NodeId | None) -> None:
        if host.alive and host.life == life:
            host.post(ev.DialFailed(address=address, reason=reason, node=node))

    def _give_up(self, link: Link, host: End, life: int, address: str) -> None:
        if link.dialling:
            link.dialling = False
            self._fail(host, life, address, "no answer", None)
            self._reset(link, host.index)

    def _arrive(self, link: Link, host: End, life: int, target: End, address: str) -> None:
        """The dialler's greeting has arrived."""
        hops = [self._hosts[hop] for hop in link.hops]
        if target.dark or target.held or any(hop.dark for hop in hops):
            return
        if self._cut_off(link, host.index) or self._cut_off(link, target.index):
            return
        if not (target.listens or hops) or not target.alive or not all(hop.alive for hop in hops):
            self._refuse(link, host, life, address, "refused", None)
            return
        old = self._ends[target.index].get(host.index)
        if old is not None and old.open[host.index] and not (old.hops and not hops):
            self._refuse(link, host, life, address, "already linked", target.node_id)
            return
        for here, there, reason in ((target, host, "by-peer:banned"), (host, target, "banned")):
            if here.keeps_out(there.node_id, there.owner):
                self._refuse(link, host, life, address, reason, target.node_id)
                return
        listens = host.address if host.listens and not hops else ""
        self._up(link, target, host.hello(listens, dialled=False, minor=target.minor, path=self._path(link, target)))
        self._push(link, host.index, lambda: self._answered(link, host, life, target, address))

    def _refuse(self, link: Link, host: End, life: int, address: str, reason: str, node: NodeId | None) -> None:
        link.dialling = False
        self._world.after(self._delay(), self._fail, host, life, address, reason, node)

    def _answered(self, link: Link, host: End, life: int, target: End, address: str) -> None:
        """The target's greeting has arrived: both ends stand, unless the two had the same idea at once."""
        if not link.dialling or not host.alive or host.life != life:
            self._reset(link, host.index)
            return
        link.dialling = False
        old = self._ends[host.index].get(target.index)
        better = old is not None and old.hops and not link.hops
        if old is not None and old.open[target.index] and old.dialler < link.dialler and not better:
            self._fail(host, life, address, "already linked", target.node_id)
            self._reset(link, host.index)
            return
        self._up(link, host, target.hello(address, dialled=True, minor=host.minor, path=self._path(link, host)))

    def _path(self, link: Link, end: End) -> tuple[NodeId, ...]:
        """Return the bridges of a link as one end sees them, the nearest first."""
        return tuple(self._hosts[hop].node_id for hop in link.way(end.index)[-2:0:-1])

    def _up(self, link: Link, host: End, hello: ev.LinkUp) -> None:
        peer = link.other(host.index)
        old = self._ends[host.index].get(peer)
        if old is not None:
            self.close(old, host.index, "replaced")
        link.open[host.index] = True
        self._ends[host.index][peer] = link
        self.ups[host.index, peer] += 1
        host.post(hello)

    # -- going down -----------------------------------------------------------------------------------------------------

    def close(self, link: Link, end: int, reason: str) -> None:
        """That end knows that the link is gone; the other one will hear of it when it can."""
        if not link.open[end]:
            return
        link.open[end] = False
        peer = link.other(end)
        if self._ends[end].get(peer) is link:
            del self._ends[end][peer]
        if self._hosts[end].alive:
            self._hosts[end].post(ev.LinkDown(peer=self._hosts[peer].node_id, reason=reason))
        self._reset(link, end)

    def hang_up(self, host: End, peer: NodeId, reason: str) -> None:
        """A node ends its link to a peer."""
        link = self._ends[host.index].get(self._by_node[peer].index)
        if link is not None:
            self.close(link, host.index, reason)

    def _reset(self, link: Link, end: int) -> None:
        other = link.other(end)
        if link.open[other]:
            self._push(link, other, lambda: self.close(link, other, "closed by peer"))

    def drop(self, link: Link) -> None:
        """The link breaks: what is on its way is lost, and both ends notice, each in its own time."""
        for end in (link.dialler, link.target):
            self._world.after(self._delay(), self.close, link, end, "broken")
            link.stalled[end].clear()

    def unplug(self, host: End, *, silent: bool) -> None:
        """A host is gone. ``silent``: without a word, so that its peers have to time out."""
        for link in list(self._ends[host.index].values()):
            link.open[host.index] = False
            peer = link.other(host.index)
            if silent:
                self._world.after(self._rng.uniform(*TIMEOUT_S), self._time_out, link, peer)
            else:
                self._reset(link, host.index)
        self._ends[host.index].clear()
        for link in self._over(host):
            for end in (link.dialler, link.target):
                wait_s = self._rng.uniform(*TIMEOUT_S) if silent else self._delay()
                self._world.after(wait_s, self._time_out, link, end)

    def _over(self, bridge: End) -> list[Link]:
        """Return the links that a host carries."""
        return [link for link in self.links() if bridge.index in link.hops]

    def _time_out(self, link: Link, end: int) -> None:
        if link.open[end]:
            self.close(link, end, "timed out")

    def hush(self, host: End) -> None:
        """A host says nothing any more: if that lasts, its peers give their links to it up."""
        for link in list(self._ends[host.index].values()):
            wait_s = self._rng.uniform(*TIMEOUT_S)
            self._world.after(wait_s, self._hushed, link, link.other(host.index), host, host.naps)
        for link in self._over(host):
            for end in (link.dialler, link.target):
                self._world.after(self._rng.uniform(*TIMEOUT_S), self._hushed, link, end, host, host.naps)

    def wake(self, host: End) -> None:
        """A host goes on: what it had to pass on flows again."""
        for link in self._over(host):
            self._flow_again(link)

    def _hushed(self, link: Link, end: int, host: End, nap: int) -> None:
        if host.held and host.naps == nap:
            self._time_out(link, end)

    def cut(self, partition: Partition) -> None:
        """Cut the network in two."""
        self.partitions.append(partition)
        for link in self.links():
            if link.crossed(partition):
                for end in (link.dialler, link.target):
                    self._world.after(self._rng.uniform(*TIMEOUT_S), self._starved, link, end, partition)

    def _starved(self, link: Link, end: int, partition: Partition) -> None:
        if partition in self.partitions and link.open[end]:
            self.close(link, end, "timed out")

    def mend(self, partition: Partition) -> None:
        """Undo a cut; what stalled flows again."""
        self.partitions.remove(partition)
        for link in self.links():
            self._flow_again(link)

    def _flow_again(self, link: Link) -> None:
        for end in (link.dialler, link.target):
            if link.stalled[end] and not self._cut_off(link, end):
                self._world.after(self._delay(), self._flow, link, end)

    def _flow(self, link: Link, end: int) -> None:
        if self._cut_off(link, end):
            return
        items, link.stalled[end] = link.stalled[end], []
        for item in items:
            self._deliver(link, end, item)

    # -- messages -------------------------------------------------------------------------------------------------------

    def send(self, host: End, peer: NodeId, message: msg.Message) -> None:
        """Say this over the link to that peer, if there is one."""
        target = self.host(peer)
        since = msg.SINCE.get(type(message), 1)
        assert since <= min(host.minor, target.minor), f"{type(message).__name__} is too new for this link"
        raw = codec.encode(message)
        self.messages += 1
        self.bytes += len(raw)
        link = self._ends[host.index].get(target.index)
        if link is None:
            self.lost += 1
            return
        end = link.other(host.index)
        if self.loss and self._rng.random() < self.loss:
            self.lost += 1
            self._world.after(self._rng.uniform(0.0, 3.0), self.drop, link)
            return
        self._push(link, end, raw)
        if self.duplicates and self._rng.random() < self.duplicates:
            self._world.after(self._delay() + self._rng.expovariate(1.0), self._again, link, end, raw)

    def _delay(self) -> float:
        return self._rng.uniform(*self.delay_s)

    def _push(self, link: Link, end: int, item: bytes | Callable[[], None]) -> None:
        """Let an item arrive at that end, after everything pushed before it."""
        delay = self._delay() * (1 + len(link.hops))
        if self._world.now < link.slow_until:
            delay = min(CLOGGED_S, 0.2 + 200 * delay)
        at = link.arrives[end] = max(self._world.now + delay, link.arrives[end])
        self._world.at(at, self._arrived, link, end, item)

    def _arrived(self, link: Link, end: int, item: bytes | Callable[[], None]) -> None:
        if link.stalled[end] or self._cut_off(link, end):
            link.stalled[end].append(item)
        else:
            self._deliver(link, end, item)

    def _again(self, link: Link, end: int, raw: bytes) -> None:
        if link.open[end]:
            self._arrived(link, end, raw)  # never before what came earlier

    def _deliver(self, link: Link, end: int, item: bytes | Callable[[], None]) -> None:
        if not isinstance(item, bytes):
            item()
            return
        if not link.open[end]:
            self.lost += 1
            self._reset(link, end)
            return
        message = codec.decode_lenient(item, msg.CoreMessage, size_max=msg.MESSAGE_BYTES_MAX)
        peer = self._hosts[link.other(end)].node_id
        self._hosts[end].post(ev.Received(peer=peer, message=message), item)
