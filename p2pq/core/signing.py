"""What a master signs for its workers: grants and receipts."""

from collections.abc import Iterable

from p2pq.core.identity import Identity
from p2pq.core.jobs import Job
from p2pq.model.ids import NodeId, Wall
from p2pq.wire import prims, sign
from p2pq.wire.objects import Grant, GrantItem, Receipt, ReceiptItem


class Signatory:
    """Signs as one master."""

    def __init__(self, identity: Identity) -> None:
        """Sign with the key of that node."""
        self._identity = identity
        self.key = prims.SigningKey(identity.secret)

    def grant(
        self, job: Job, to: NodeId, nonce: bytes, items: tuple[GrantItem, ...], key: bytes, expires: Wall
    ) -> bytes:
        """Return the signed right of ``to`` to run attempts of a job; ``key`` is the job key, sealed to it.

        There is none where ``to`` is a bridge, which hands them on to leaves: each of these gets the key sealed to itself.

        Raises:
            Reject: it would not open at the other end.
        """
        grant = Grant(
            mesh=self._identity.mesh,
            node=self._identity.node,
            to=to,
            nonce=nonce,
            job=job.id,
            manifest=job.digest,
            items=items,
            key=key,
            expires=expires,
        )
        return sign.sign(self.key, grant)

    def receipt(self, to: NodeId, items: Iterable[ReceiptItem]) -> bytes:
        """Return the signed word that results are here."""
        receipt = Receipt(
            mesh=self._identity.mesh,
            node=self._identity.node,
            to=to,
            items=tuple(items),
        )
        return sign.sign(self.key, receipt)
