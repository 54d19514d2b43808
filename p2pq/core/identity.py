"""Who this node is: the keys that the core signs and opens with. Loaded by the daemon, never changed."""

import msgspec

from p2pq.core.events import LinkUp
from p2pq.model.ids import MeshId, NodeId
from p2pq.wire.messages import MINOR


class Identity(msgspec.Struct, frozen=True, kw_only=True):
    """This node's keys for one run. Secrets never appear in ``repr``."""

    node: NodeId
    secret: bytes
    """Ed25519 seed, 32 bytes."""
    mesh: MeshId
    name: str
    owner: str
    caps: tuple[str, ...]
    boot: bytes
    """16 random bytes, new at every start."""
    prekey_secret: bytes
    """X25519 secret of this run; job keys are sealed to its public half."""
    prekey: bytes
    root: bytes = b""
    """Public key of the mesh root, 32 bytes; without it signed bans cannot be checked and are refused."""

    psks: tuple[bytes, ...] = ()
    """Mesh keys that came with the membership, newest first; what admins signed since is in the store."""

    def __repr__(self) -> str:
        """Name the node, not its secrets."""
        return f"Identity({self.name!r}, owner={self.owner!r})"


def self_link(identity: Identity) -> LinkUp:
    """Return how a node is linked to itself: its machine works for its own user whatever it may do for others."""
    return LinkUp(
        peer=identity.node,
        name=identity.name,
        owner=identity.owner,
        caps=tuple(sorted({*identity.caps, "submit", "work"})),
        boot=identity.boot,
        minor=MINOR,
        prekey=identity.prekey,
        address="",
    )
