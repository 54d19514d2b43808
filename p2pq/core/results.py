"""The half of a master that takes results in: each counts under its own lease, once, and is kept with what proves it."""

from operator import attrgetter
from typing import Final

import msgspec

from p2pq.core import effects as fx
from p2pq.core import events as ev
from p2pq.core import records
from p2pq.core.clusters import Cluster
from p2pq.core.collecting import Came
from p2pq.core.crew import Hand
from p2pq.core.granting import Granting
from p2pq.core.identity import Identity
from p2pq.core.leases import Lease
from p2pq.errors import Reject
from p2pq.model import notice
from p2pq.model.config import ScheduleSettings
from p2pq.model.ids import LeaseId, Mono, NodeId, Wall
from p2pq.wire import messages as msg
from p2pq.wire import prims, seal, sign
from p2pq.wire.handing import Handed
from p2pq.wire.objects import ITEMS_MAX, ReceiptItem, Result, ResultItem, Verdict

RECEIPTS_S: Final = 1.0
"""Receipts for a cluster wait so long at most, so that many go at once: a leaf keeps its results that much longer, no more."""
NOT_GIVEN: Final = "not of the grant of that lease"


class Results(Granting):
    """The jobs of this node, and what becomes of the attempts that were granted."""

    def __init__(
        self,
        identity: Identity,
        settings: ScheduleSettings,
        restored: records.Restored,
        entropy: seal.Entropy,
        now: Mono,
        wall: Wall,
    ) -> None:
        """Begin a life with a new epoch; what was live is live again.

        Raises:
            Reject: a restored manifest is not this node's: the store belongs to another key.
        """
        super().__init__(identity, settings, restored, entropy, now, wall)
        self._receipts_at: Mono | None = None
        """When the receipts that wait are said."""
        self._settled: dict[NodeId, list[LeaseId]] = {}
        """Results that have come to count in this turn, by who is told so."""

    def _result_ready(self, worker: Hand, ready: msg.ResultReady, now: Mono) -> None:
        peer = worker.link.peer
        try:
            result = sign.open_signed(ready.result, Result, peer)
        except Reject as reject:
            self._drop(peer, f"result: {reject.reason}")
            return
        if result.by != peer:
            self._drop(peer, "result: for somebody else")
            return
        try:
            handed = Handed(ready.subs, self._identity.mesh, self._identity.node)
        except Reject as reject:
            self._drop(peer, f"sub-grant: {reject.reason}")
            return
        proof = records.Proof(signed=ready.result, certs=worker.link.certs)
        came = Came(proof=proof, blobs={prims.blob_id(blob): blob for blob in ready.blobs}, handed=handed)
        self._results(worker, result, came, now)

    def _brought(self, worker: Hand, cluster: Cluster, report: msg.Report, now: Mono) -> None:
        """Take in the results that a bridge reports, each signed by one of its leaves."""
        peer = worker.link.peer
        try:
            handed = Handed(report.subs, self._identity.mesh, self._identity.node)
        except Reject as reject:
            self._forged(peer, reject.reason)
            return
        inline = {prims.blob_id(blob): blob for blob in report.blobs}
        said = [(raw, False) for raw in report.results] + [(raw, True) for raw in report.strays]
        for raw, stray in said:
            try:
                result = sign.open_claimed(raw, Result, attrgetter("by"))
            except Reject as reject:
                self._drop(peer, f"result: {reject.reason}")
                continue
            if (leaf := cluster.known(NodeId(result.by))) is None:
                self._drop(peer, "result: not by a leaf")
            else:
                proof = records.Proof(signed=raw, certs=leaf.certs)
                came = Came(proof=proof, blobs=inline, handed=handed, through=cluster.bridge, stray=stray)
                self._results(worker, result, came, now)

    def _results(self, worker: Hand, result: Result, came: Came, now: Mono) -> None:
        """Take in results that a worker, or a leaf of a cluster, has signed."""
        peer, by = worker.link.peer, NodeId(result.by)
        if (result.mesh, result.node) != (self._identity.mesh, self._identity.node):
            self._drop(peer, "result: for somebody else")
            return
        late: list[LeaseId] = []
        for item in result.items:
            lease = self._book.leases.get(item.lease)
            standing = self._book.leases.standing(item.lease)
            if standing == "forgotten" and worker.works and not came.stray:
                lease = self._book.adopt(item, by, now, None if worker.cluster is None else peer)
            if lease is not None:
                # Of one that somebody else has nothing is said: whoever that is would take it for an answer to itself. It is said
                # again once that lease is over.
                if lease.runner == by or not came.stray:
                    self._collect(worker, by, lease, item, came, now)
            elif standing != "unknown":
                late.append(item.lease)
                self._out.append(fx.Emit(notice=notice.LateResult(lease=item.lease, worker=by)))
            else:
                self._drop(peer, "result: lease was never granted")
        if late:
            self._receipt(peer, late, "late", now)

    def _collect(self, worker: Hand, by: NodeId, lease: Lease, item: ResultItem, came: Came, now: Mono) -> None:
        peer = worker.link.peer
        if lease.runner == by and lease.worker != peer:
            # Its own word says where it takes part, whichever bridge claims to speak for it.
            self._book.move(lease, peer)
        if (lease.worker, lease.job, lease.task, lease.attempt) != (peer, item.job, item.task, item.attempt):
            self._drop(peer, "result: not of that lease")
        elif lease.collecting is None and (proof := self._prove(peer, by, lease, came)) is not None:
            if lease.runner != by or lease.hearsay:
                self._book.place(lease, by)  # whatever its bridge said: this is the leaf's own word
            if not self._book.collect(lease, item, msgspec.structs.replace(came, proof=proof), now):
                self._receipt(peer, [lease.id], "refused", now)
            elif self._book.left_nothing(item):
                self._settle(lease, now)

    def _prove(self, peer: NodeId, by: NodeId, lease: Lease, came: Came) -> records.Proof | None:
        """Return what proves a result; None where what is told of how its lease came to its worker does not hold.

        Where nothing is told it counts all the same: it is the worker's own word.
        """
        given, handed = lease.given, came.handed
        try:
            way = handed.way(lease.id, by)
        except Reject as reject:
            self._drop(peer, f"sub-grant: {reject.reason}")
            return None
        if not way or given is None:
            return came.proof
        if not handed.begins(way, given.digest, given.to, given.leases):
            # What was granted to another bridge may have come to this one from there, and a leaf can leave that out.
            if way[0].sub.node == came.through == given.to:
                self._forged(peer, NOT_GIVEN)
            else:
                self._drop(peer, f"sub-grant: {NOT_GIVEN}")
            return None
        steps = tuple(
            records.HandedOn(signed=step.raw, certs=self._crew.bridge_certs(NodeId(step.sub.node))) for step in way
        )
        return msgspec.structs.replace(came.proof, handed=steps)

    def _forged(self, peer: NodeId, reason: str) -> None:
        """A bridge said what no honest one passes on: it speaks for nobody any more until it links anew, and is suspected."""
        self._out.append(fx.Drop(peer=peer, reason=f"sub-grant: {reason}", close=True, suspect=ev.FORGED))

    def _collected(self, event: ev.Collected, now: Mono) -> None:
        lease = self._book.leases.get(event.lease)
        if lease is None or lease.collecting is None:
            return  # it was cancelled meanwhile
        lease.detail, lease.skipped = event.detail, event.skipped
        self._settle(lease, now)

    def _settle(self, lease: Lease, now: Mono) -> None:
        """A result counts from now on; its worker is told so at the end of the turn."""
        self._revoke(self._book.settle(lease, now))
        if lease.worker in self._crew:
            self._settled.setdefault(lease.worker, []).append(lease.id)

    def _acknowledge(self, now: Mono) -> None:
        """Tell workers which of their results have come to count, all of a turn at once."""
        for worker, leases in self._settled.items():
            for first in range(0, len(leases), ITEMS_MAX):
                self._receipt(worker, leases[first : first + ITEMS_MAX], "settled", now)
        self._settled.clear()

    def _collect_failed(self, event: ev.CollectFailed, now: Mono) -> None:
        lease = self._book.leases.get(event.lease)
        if lease is None or lease.collecting is None:
            return  # it was cancelled meanwhile
        verdict = self._book.collect_failed(lease, event, now)
        if verdict is not None and lease.worker in self._crew:
            self._receipt(lease.worker, [lease.id], verdict, now)

    def _receipt(self, peer: NodeId, leases: list[LeaseId], verdict: Verdict, now: Mono) -> None:
        items = [ReceiptItem(lease, verdict) for lease in leases]
        worker = self._crew.get(peer)
        if worker is None or worker.cluster is None:
            self._say_receipt(peer, items)
            return
        worker.cluster.receipts += items
        if len(worker.cluster.receipts) >= ITEMS_MAX:
            self._hand_out(worker)
        elif self._receipts_at is None:
            self._receipts_at = Mono(now + RECEIPTS_S)
