"""What linked nodes tell each other of bans, mesh keys and peerings: news at once, and what was missed by comparing.

Once a minute both say what they know as hashes; whose differ answers with what takes the two further.
"""

from collections.abc import Mapping
from typing import Final

from p2pq.core.abroad import BANS_PER_MESSAGE, Abroad
from p2pq.core.bans import Bans
from p2pq.core.effects import Effect, Send
from p2pq.core.events import LinkUp
from p2pq.core.meshkeys import MeshKeys
from p2pq.model.ids import Mono, NodeId
from p2pq.wire import messages as msg

COMPARE_S: Final = 30.0
"""What both sides of a link know is compared at most this often, whatever the other side sends."""


class Telling:
    """What a membership says of what it knows, and how often."""

    def __init__(self, links: Mapping[NodeId, LinkUp], bans: Bans, mesh_keys: MeshKeys, abroad: Abroad) -> None:
        """Have told nobody; all of these are the membership's own."""
        self._links, self._bans, self._mesh_keys, self._abroad = links, bans, mesh_keys, abroad
        self._compared: dict[tuple[NodeId, str], Mono] = {}
        """When a linked peer that knew something else was last answered."""

    def forget(self, peer: NodeId) -> None:
        """The link to a peer is gone."""
        for known in [key for key in self._compared if key[0] == peer]:
            del self._compared[known]

    # -- news -----------------------------------------------------------------------------------------------------------

    def bans(self, peer: NodeId, bans: tuple[bytes, ...], out: list[Effect]) -> None:
        """Tell a peer bans."""
        if self._links[peer].minor < msg.TRUST_SINCE:
            bans = tuple(raw for raw in bans if self._bans.is_of_node(raw))
        for first in range(0, len(bans), BANS_PER_MESSAGE):
            out.append(Send(peer=peer, message=msg.Bans(bans=bans[first : first + BANS_PER_MESSAGE])))  # noqa: PERF401

    def keys(self, peer: NodeId, keys: tuple[bytes, ...], out: list[Effect]) -> None:
        """Tell a peer of our mesh mesh keys."""
        if keys and self._links[peer].minor >= msg.TRUST_SINCE and not self._links[peer].mesh:
            out.append(Send(peer=peer, message=msg.MeshKeys(keys=keys)))

    # -- what two nodes know, compared ----------------------------------------------------------------------------------

    def heads(self, peer: NodeId, now: Mono, out: list[Effect]) -> None:
        """Tell a peer what is known here, as hashes."""
        if self._links[peer].minor >= msg.TRUST_SINCE:
            heads = self._abroad.heads(peer, self._bans.head, self._mesh_keys.head, now)
            out.append(Send(peer=peer, message=heads))

    def compare(self, peer: NodeId, theirs: msg.Heads, now: Mono, out: list[Effect]) -> None:
        """Ask for the bans that we lack, and tell our mesh keys; as the heads differ there, too, it does the same."""
        further = self._abroad.compare(peer, theirs, self._bans, now)
        if further and self._once_in_a_while(peer, "peerings", now):
            out.extend(Send(peer=peer, message=message) for message in further)
        if self._links[peer].mesh:
            return
        bans, keys = theirs.bans != self._bans.head, theirs.mesh_keys != self._mesh_keys.head
        if not (bans or keys) or not self._once_in_a_while(peer, "heads", now):
            return
        if bans and not self._bans.full:
            out.append(Send(peer=peer, message=msg.BansKnown(digests=self._bans.digests)))
        if keys:
            self.keys(peer, self._mesh_keys.signed, out)

    def bans_beyond(self, peer: NodeId, known: msg.BansKnown, now: Mono, out: list[Effect]) -> None:
        """Tell a peer the bans of a mesh that it does not know, if they are any of its business."""
        if known.mesh or self._links[peer].mesh:
            lacking = self._abroad.bans_beyond(peer, known.mesh, known.digests, self._bans)
            # A peer may name any mesh; remembered are only answers, so these are as few as the meshes known here.
            if lacking and self._once_in_a_while(peer, known.mesh.hex(), now):
                self.bans(peer, lacking, out)
        elif self._once_in_a_while(peer, "bans", now):
            self.bans(peer, self._bans.beyond(known.digests), out)

    def _once_in_a_while(self, peer: NodeId, what: str, now: Mono) -> bool:
        """Tell whether that may be answered now; what is not is asked again within a minute."""
        if now - self._compared.get((peer, what), Mono(-COMPARE_S)) < COMPARE_S:
            return False
        self._compared[peer, what] = now
        return True
