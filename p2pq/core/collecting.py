"""The books of a master that brings results here: how large one may be, and how often it may be too slow.

The outside world brings the blobs, at the pace that it is told here at least; this counts how often that was not kept.
"""

from typing import Final

import msgspec

from p2pq.core import effects as fx
from p2pq.core.adoption import RebuiltBook
from p2pq.core.events import CollectFailed
from p2pq.core.leases import Lease
from p2pq.core.records import Proof
from p2pq.model.ids import BlobId, Mono, NodeId
from p2pq.wire.handing import Handed
from p2pq.wire.objects import ResultItem, Verdict

COLLECT_S: Final = 120.0
"""How long it may take to bring a result, and ..."""
COLLECT_BYTES_S: Final = 50_000
"""... a second more for so many bytes that its worker has brought meanwhile."""
SLOW_MAX: Final = 3
"""Who is too slow so often with one result has lost it."""
OVERHEAD_BYTES: Final = 16 << 20
"""What encryption may add to the largest result."""


class Came(msgspec.Struct, frozen=True):
    """What came in one message with results."""

    proof: Proof
    blobs: dict[BlobId, bytes]
    """Small ones, by name."""
    handed: Handed
    """By which sub-grants leases came to who signed the results, as far as that is told."""
    through: NodeId | None = None
    """The bridge that spoke of it, where its worker is a leaf."""
    stray: bool = False
    """The bridge was not shown that its leases were given to who signed it: it counts only where that is known here."""


class CollectingBook(RebuiltBook):
    """Books that say what is brought here, and give up what takes for ever."""

    def collect(self, lease: Lease, item: ResultItem, message: Came, now: Mono) -> bool:
        """Let a result be brought here; False if it is larger than its job allows, and so is lost by its worker's doing.

        Of what left nothing there is nothing to bring.
        """
        limits = self.jobs[lease.job].manifest.limits
        if sum(ref.size for ref in item.blobs) > limits.results_bytes + limits.printed_bytes + OVERHEAD_BYTES:
            self.lose(lease, "deliver", "the result: it is larger than the job's limits allow", now)
            return False
        self.leases.collect(lease, item, message.proof)
        blobs = (*item.body, *item.blobs)
        if self.left_nothing(item):
            return True
        names = [BlobId(ref.blob) for ref in blobs]
        came = tuple(message.blobs[name] for name in names if name in message.blobs)
        self.out.append(
            fx.Collect(lease=lease.id, peer=lease.runner, through=message.through, blobs=blobs, inline=came)
        )
        return True

    def collect_failed(self, lease: Lease, event: CollectFailed, now: Mono) -> Verdict | None:
        """A result could not be brought here: its lease goes on, or is lost; return what its worker is told in that case."""
        lease.slow += event.slow
        if event.refused or lease.slow >= SLOW_MAX:
            self.lose(lease, "deliver", event.reason, now)
            return "refused" if event.refused else "late"
        self.leases.collect_failed(lease, now)
        return None
