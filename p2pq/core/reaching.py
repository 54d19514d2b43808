"""Who can be reached through whom: what bridges say that they are linked to, and what this node says as one.

A bridge carries links from end to end: it sees nothing but records that it cannot open, so it is trusted with nothing but
to pass them on. Each link of the way stands already when the next one is asked for, so no way leads in a circle; what a
bridge says is followed only where neither end is on the way already and it is at most HOPS_MAX bridges long.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Final

from p2pq.core.events import LinkUp
from p2pq.model.ids import NODE_ID_BYTES, NodeId
from p2pq.wire.messages import HOPS_MAX, PEERINGS_SINCE, REACH_MAX, SINCE, Reach, Through, Way

WAYS_MAX: Final = 1024
"""Ways remembered of all bridges; further ones are ignored. A quarter of the places that are known at most, so that no bridge
drives out those that can be dialled directly."""
_VIA: Final = "via:"


def via_address(bridge: NodeId, node: NodeId) -> str:
    """Return the place ``node`` as seen through ``bridge``: it is dialled like ``HOST:PORT``, and means something here only."""
    return f"{_VIA}{bridge.hex()}:{node.hex()}"


def is_via(address: str) -> bool:
    """Tell whether that is a place seen through a bridge."""
    return address.startswith(_VIA)


def parse_via(address: str) -> tuple[NodeId, NodeId]:
    """Return the bridge and the node of a ``via_address``.

    Raises:
        ValueError: it is none.
    """
    bridge, node = (bytes.fromhex(part) for part in address.removeprefix(_VIA).split(":"))
    if not is_via(address) or {len(bridge), len(node)} != {NODE_ID_BYTES}:
        raise ValueError(address)
    return NodeId(bridge), NodeId(node)


class Reaching:
    """The ways that bridges have told of, and what this node tells of its own links if it is one."""

    def __init__(
        self,
        me: NodeId,
        *,
        bridging: bool,
        batching: bool = False,
        carries: Callable[[bytes], bool] = lambda _: False,
    ) -> None:
        """Know of no way yet.

        Args:
            me: this node.
            bridging: it carries links for others.
            batching: it leads nobody to those for whom it speaks instead.
            carries: tells of another mesh whether it carries links between that one and ours.
        """
        self._me = me
        self._carries = carries
        self._bridging = bridging
        self._batching = batching
        self._ways: dict[NodeId, dict[NodeId, tuple[NodeId, ...]]] = {}
        self._heard: dict[NodeId, dict[NodeId, int]] = {}
        """By bridge: the number of the latest message that spoke of a node."""
        self._number = 0

    def path(self, bridge: NodeId, node: NodeId) -> tuple[NodeId, ...] | None:
        """Return the bridges on the way to a node, the nearest first; None where that bridge knows none."""
        further = self._ways.get(bridge, {}).get(node)
        return None if further is None else (bridge, *further)

    def bridges(self, node: NodeId) -> list[NodeId]:
        """Return the bridges that say that they lead to a node."""
        return [bridge for bridge, ways in self._ways.items() if node in ways]

    def heard(self, bridge: NodeId, message: Reach) -> tuple[list[NodeId], list[NodeId]]:
        """Take in what a bridge says; return whom it leads to now, and whom no longer."""
        ways, heard = self._ways.setdefault(bridge, {}), self._heard.setdefault(bridge, {})
        fresh = [NodeId(node) for node in message.gone if self._is_news(heard, NodeId(node), message.number)]
        gone = [node for node in fresh if ways.pop(node, None) is not None]
        new: list[NodeId] = []
        for way in message.ways:
            node, path = NodeId(way.node), tuple(map(NodeId, way.path))
            if node in {self._me, bridge} or self._me in path or bridge in path or node in path:
                continue
            if len(set(path)) < len(path) or (node not in ways and self._count() >= WAYS_MAX):
                continue
            if self._is_news(heard, node, message.number):
                ways[node] = path
                new.append(node)
        return new, gone

    def _count(self) -> int:
        return sum(map(len, self._ways.values()))

    def _is_news(self, heard: dict[NodeId, int], node: NodeId, number: int) -> bool:
        """Tell whether nothing later was said of that node: a turn that waits for its disk may be overtaken by the next."""
        if number < heard.get(node, 0):
            return False
        heard.pop(node, None)
        heard[node] = number
        if len(heard) > 2 * WAYS_MAX:
            del heard[next(iter(heard))]
        return True

    def leave(self, bridge: NodeId) -> list[NodeId]:
        """The link to a bridge is gone: return whom it led to."""
        self._heard.pop(bridge, None)
        return list(self._ways.pop(bridge, ()))

    # -- as a bridge ----------------------------------------------------------------------------------------------------

    def link_up(self, link: LinkUp, links: Mapping[NodeId, LinkUp]) -> list[tuple[NodeId, Reach]]:
        """Return what a bridge tells whom when a link has come up: everybody of the new one, the new one of everybody."""
        if not self._bridging:
            return []
        others = [each for each in links.values() if each.peer != link.peer]
        told = [(each.peer, self._say([link])) for each in others if self._worth(each, [link])]
        worth = self._worth(link, others)
        parts = [worth[at : at + REACH_MAX] for at in range(0, len(worth), REACH_MAX)]
        return told + [(link.peer, self._say(part)) for part in parts]

    def link_down(self, gone: LinkUp, links: Mapping[NodeId, LinkUp]) -> list[tuple[NodeId, Reach]]:
        """Return what a bridge tells whom when a link is gone."""
        if not self._bridging:
            return []
        return [(each.peer, self._say([], (gone.peer,))) for each in links.values() if self._worth(each, [gone])]

    def _say(self, links: list[LinkUp], gone: tuple[NodeId, ...] = ()) -> Reach:
        self._number += 1
        ways = tuple(Way(link.peer, link.path) for link in links)
        meshes = tuple(link.mesh for link in links) if any(link.mesh for link in links) else ()
        return Reach(number=self._number, ways=ways, gone=gone, meshes=meshes)

    def _worth(self, to: LinkUp, links: Iterable[LinkUp]) -> list[LinkUp]:
        """Return whom it is worth telling one peer of: the way is not too long, and it is not itself on it.

        Who is linked over other bridges hears it from the one next to it.
        """
        if to.minor < SINCE[Reach] or to.path or (to.mesh and not self._carries(to.mesh)):
            return []
        return [
            link
            for link in links
            if len(link.path) < HOPS_MAX and to.peer not in link.path and self._may_meet(to, link)
        ]

    def _may_meet(self, to: LinkUp, link: LinkUp) -> bool:
        """Tell whether a peer may hear of another one: nothing leads from one other mesh to the next."""
        if not link.mesh:
            return not (self._speaks(to) and self._speaks(link))
        return not to.mesh and to.minor >= PEERINGS_SINCE and self._carries(link.mesh)

    def _speaks(self, link: LinkUp) -> bool:
        """Tell whether this node speaks for a peer, or to it for others, instead of leading it: within one mesh only."""
        return self._batching and not link.path and not link.mesh and link.minor >= SINCE[Through]
