"""Who certifies the hosts of a simulated mesh."""

from collections.abc import Callable

from p2pq.model.ids import NodeId, Wall
from p2pq.wire import prims, trust
from p2pq.wire.objects import CAPABILITIES
from simulations.plans import Plan

DAY_MS = 24 * 3600 * 1000


class Office:
    """The root of a mesh and one admin, who is no host."""

    def __init__(self, root: prims.SigningKey, randbytes: Callable[[int], bytes], wall: Wall) -> None:
        """Certify the admin; everything holds from a day before the world begins, as clocks are wrong."""
        self.root = root
        self._admin = prims.SigningKey(randbytes(prims.KEY_BYTES))
        self._from = Wall(wall - DAY_MS)
        subject = trust.Subject(
            node=self._admin.public, name="admin", owner="admin", caps=("admin", "bridge", "submit", "work")
        )
        self._cert = trust.issue_admin(root, subject, serial=bytes(16), wall=self._from)

    def chain(self, node: NodeId, plan: Plan) -> tuple[bytes, ...]:
        """Return the certificates of a host, its own first."""
        caps = tuple(cap for cap in CAPABILITIES if cap in plan.caps)
        subject = trust.Subject(node=node, name=plan.name, owner=plan.owner, caps=caps)
        serial = prims.blake2b(node, size=16)
        cert = trust.issue_member(self._admin, self._cert, self.root.public, subject, serial=serial, wall=self._from)
        return cert, self._cert
