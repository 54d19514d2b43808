"""What a bridge knows of the leases of one master, and what bridges below say of them (docs/adr/0204).

A bridge below is one more leaf here, and holds leases like one; which of its own leaves has which is passed on to the master,
and known here so that a lease that moves is followed.
"""

from collections import Counter
from collections.abc import Callable
from operator import attrgetter
from typing import Final

from p2pq.core import effects as fx
from p2pq.core import events as ev
from p2pq.core.batching import Batch
from p2pq.core.below import Below
from p2pq.core.deadlines import Deadlines
from p2pq.core.identity import Identity
from p2pq.core.kept import RESEND_S
from p2pq.core.mandates import Homes, open_mandate
from p2pq.core.proofs import PROOFS_BYTES_MAX, Proof, proven
from p2pq.core.restock import Restock
from p2pq.core.serving import HOLD_S, HOLD_SHARE, LEAVES_TOTAL_MAX, Leaf, Peer, Serving, Timer
from p2pq.core.shelf import Shelf
from p2pq.core.tenants import Placed, Tenants
from p2pq.core.through import cluster_of
from p2pq.errors import Reject
from p2pq.model.config import ScheduleSettings
from p2pq.model.ids import BlobId, LeaseId, Mono, NodeId, Wall
from p2pq.wire import messages as msg
from p2pq.wire import prims, sign, trust
from p2pq.wire.handing import Handed
from p2pq.wire.objects import ITEMS_MAX, Cert, Result

HELD_MAX: Final = msg.LEASES_MAX - ITEMS_MAX
"""Leases of one master here at most; of more nobody's word is taken."""
LEAF_HELD_MAX: Final = 8192
"""... and the leases that one leaf may have and still name more: it must leave others the most of these."""
SHOWN_BYTES_MAX: Final = 4 * PROOFS_BYTES_MAX
"""What a bridge below may have shown and not have named yet; beyond that all but the last message is forgotten."""
STRAY_S: Final = RESEND_S / 2
"""A result of a lease that was not shown to have been given is passed on once in so long."""
STRAYS_MAX: Final = 4096
"""Leases of such results of which the answer can be passed on, the latest."""


class Nested:
    """The leases of one master at and below this bridge."""

    def __init__(  # noqa: PLR0913, PLR0917  what the stock gives is exactly this much
        self,
        identity: Identity,
        link: ev.LinkUp,
        schedule: ScheduleSettings,
        entropy: Callable[[int], bytes],
        wall: Callable[[Mono], Wall],
        deadlines: Deadlines[Timer],
        is_banned: trust.IsBanned,
    ) -> None:
        """Know of no leaf. ``deadlines`` are those of the whole stock."""
        self.link = link
        self._identity, self._is_banned = identity, is_banned
        self._me = cluster_of(identity.node)
        self._mesh, self._master = identity.mesh, link.peer
        self._wall, self._deadlines = wall, deadlines
        self._shelf = Shelf(identity, link)
        self._restock = Restock(link.owner, schedule, entropy)
        self._tenants = Tenants()
        self._batch = Batch()
        hold_s = min(HOLD_S, HOLD_SHARE * schedule.request_s)
        self._serving = Serving(
            identity.node, link, self._shelf, self._restock, self._tenants, self._batch, deadlines, hold_s
        )
        self._homes = Homes()
        self._changed: dict[NodeId, None] = {}
        """Leaves of which the master is to be told."""
        self._shown: dict[Proof, None] = {}
        """What a bridge above is to be shown of leases that it may not have given."""
        self._strays: dict[tuple[LeaseId, NodeId], tuple[NodeId, Mono]] = {}
        """By lease and signer: results passed on though nothing showed that it was given; by whom, and when, the latest last."""
        self._gathering = True

    # -- leases ---------------------------------------------------------------------------------------------------------

    def _adopt(self, node: NodeId, lease: LeaseId, now: Mono) -> Placed | None:
        """Take up a lease that an earlier life of this bridge, or another, gave to a leaf, if that has been shown."""
        leaf = self._serving.leaves[node]
        most = LEAF_HELD_MAX if leaf.below is None else HELD_MAX
        # What was handed back counts until it is told, or a leaf that names and hands back ever more would fill the memory.
        here = len(self._tenants) + len(self._shelf) + len(self._batch.returns)
        full = here >= HELD_MAX or self._tenants.count(node) >= most
        if lease not in leaf.proven or lease in self._shelf or full:
            return None
        placed = Placed(lease, node, None, now, now, below=leaf.below is not None, proof=leaf.proven.pop(lease))
        self._tenants.add(placed)
        if leaf.below is None:
            self._batch.placed[lease] = node
        self._batch.beats[lease] = placed.beat
        if self.link.path:
            self._shown[placed.proof] = None
        return placed

    def _claim(self, node: NodeId, lease: LeaseId, now: Mono, runner: NodeId | None = None) -> Placed | None:
        """Return a lease that a leaf, or a bridge below, says to hold; None where it does not.

        ``runner``: whose word it is in the end. Whoever runs an attempt takes it along to where it takes part.
        """
        placed = self._tenants.get(lease) or self._adopt(node, lease, now)
        if placed is None:
            return None
        if placed.leaf != node and runner is not None:
            # A bridge below may be gone, or the leaf, before that one could say whom it gave the lease to.
            holder = self._serving.leaves.get(placed.leaf)
            below = placed.runner is None and (holder is None or holder.below is not None)
            shown = below and lease in self._serving.leaves[node].proven
            if shown or runner == (placed.runner or placed.leaf):
                self._tenants.move(placed, node, below=self._serving.leaves[node].below is not None)
        return placed if placed.leaf == node else None

    def _show(self, leaf: Leaf, proofs: tuple[bytes, ...]) -> None:
        """Take in what a leaf, or a bridge below, shows of how leases came there."""
        node, below = leaf.peer.link.peer, leaf.below
        size = sum(map(len, proofs))
        if leaf.shown + size > SHOWN_BYTES_MAX:
            # Whatever of it is of use has been named long since.
            leaf.proven.clear()
            leaf.shown = 0
        leaf.shown += size
        held = (lambda to: to == node) if below is None else below.home
        leaf.proven |= proven(proofs, self._master, self._identity, held)
        while len(leaf.proven) > HELD_MAX:
            del leaf.proven[next(iter(leaf.proven))]

    def _stray(
        self,
        node: NodeId,
        raw: bytes,
        blobs: tuple[bytes, ...],
        subs: tuple[bytes, ...],
        now: Mono,
        out: list[fx.Effect],
    ) -> None:
        """Pass on a result of leases that nothing here shows to have been given to who signed it: the master may know better.

        It is not said again as soon as its leaf says it again: nobody renews such a lease, so that it is over before long.
        """
        result = sign.open_claimed(raw, Result, attrgetter("by"))
        keys = [(item.lease, NodeId(result.by)) for item in result.items]
        seen = [self._strays[key][1] for key in keys if key in self._strays]
        if self._gathering or any(now - at < STRAY_S for at in seen):
            return
        for key in keys:
            self._strays.pop(key, None)
            self._strays[key] = (node, now)
        while len(self._strays) > STRAYS_MAX:
            del self._strays[next(iter(self._strays))]
        small = blobs if sum(map(len, blobs)) <= msg.INLINE_BYTES_MAX else ()
        self._up(msg.Report(strays=(raw,), blobs=small, subs=subs), out)

    def _strange(self, node: NodeId, result: Result) -> bool:
        """Tell whether nobody here has a lease of a result that is not this one's: then it may be a stray."""
        holders = (self._tenants.get(item.lease) for item in result.items)
        others = any(placed is not None and placed.leaf != node for placed in holders)
        return not others and not any(item.lease in self._shelf for item in result.items)

    def _result(self, node: NodeId, ready: msg.ResultReady, now: Mono, out: list[fx.Effect]) -> None:
        try:
            result = sign.open_signed(ready.result, Result, node)
            if (result.mesh, result.node, result.by) != (self._mesh, self._master, node):
                raise Reject("for somebody else")  # noqa: TRY301  ends like all else that is wrong
        except Reject as reject:
            out.append(fx.Drop(peer=node, reason=f"result: {reject.reason}"))
            return
        try:
            subs = _used(Handed(ready.subs, self._mesh, self._master), result)
        except Reject as reject:
            out.append(fx.Drop(peer=node, reason=f"sub-grant: {reject.reason}"))
            return
        found = [self._claim(node, item.lease, now, node) for item in result.items]
        mine = [placed for placed in found if placed is not None]
        if len(mine) < len(found):
            if self._strange(node, result):
                self._stray(node, ready.result, ready.blobs, subs, now, out)
            else:
                out.append(fx.Drop(peer=node, reason="result: lease was never given to it"))
            return
        # Where there is no room for it the leaf says it again.
        if self._batch.result(ready.result, ready.blobs, subs, by=node, hurries=self._hurries(mine, result)):
            self._ended(mine, result, now)

    def _lift(self, lease: LeaseId, now: Mono) -> Placed | None:
        """No leaf holds that lease any more; return what was known of it."""
        placed = self._tenants.remove(lease)
        if placed is not None:
            self._batch.beats.pop(lease, None)
            if placed.job is not None and not placed.ended:
                self._restock.placed(placed.job, -1, now)
        return placed

    def _hurries(self, mine: list[Placed], result: Result) -> bool:
        """Tell whether anything waits for a result: not for a good one, as long as there is more of its job here or below."""
        ending = Counter(placed.job for placed in mine)
        more = all(
            job is not None and (self._shelf.count(job) or self._restock.under_way(job) > count)
            for job, count in ending.items()
        )
        return not (more and all(item.outcome.ok for item in result.items))

    def _ended(self, mine: list[Placed], result: Result, now: Mono) -> None:
        """The result of these leases is on its way up."""
        for placed, item in zip(mine, result.items, strict=True):
            placed.heard = now
            if placed.job is not None and not placed.ended:
                self._restock.placed(placed.job, -1, now)
                self._restock.ended(placed.job, now - placed.since, now, ok=item.outcome.ok)
            placed.since = placed.since if placed.ended else now
            placed.ended = True

    # -- what leaves say ------------------------------------------------------------------------------------------------

    def _at_home(self, node: NodeId, leaf: Leaf, mandate: bytes, out: list[fx.Effect]) -> None:
        """A worker says that it takes part this way; the master hears of nobody who does not."""
        way = (self._identity.node, *self.link.path)
        try:
            self._homes.take(node, open_mandate(mandate, node, self._mesh, self._master, way), way)
        except Reject as reject:
            out.append(fx.Drop(peer=node, reason=f"holding: {reject.reason}"))
            return
        if mandate != leaf.mandate:
            leaf.mandate = mandate
            self._changed[node] = None

    def _holding(self, node: NodeId, leaf: Leaf, message: msg.Holding, now: Mono, out: list[fx.Effect]) -> None:
        holds = dict.fromkeys(message.leases)
        leaf.begun = True
        if leaf.below is None:
            self._at_home(node, leaf, message.mandate, out)
        leaf.proven.clear()
        leaf.shown = 0
        if any(self._tenants.of(node, lease) is None for lease in holds):
            self._show(leaf, message.proofs)
        for placed in self._tenants.held(node):
            if placed.lease not in holds:
                self._lift(placed.lease, now)
                # What only waited at a bridge below is nobody's failure: bridges remember nothing.
                self._batch.returned(msg.ReturnItem(placed.lease, "recalled" if placed.waits else "lost"))
        if leaf.below is not None:
            leaf.sent.clear()
            leaf.below.forget_keys()
        for lease in holds:
            self._beat(node, msg.Beat(lease, running=False), now, out)

    def _beat(self, node: NodeId, beat: msg.Beat, now: Mono, out: list[fx.Effect]) -> None:
        placed = self._claim(node, beat.lease, now, node)
        if placed is None:
            # A bridge below may not know yet that a leaf has taken a lease along.
            if (leaf := self._serving.leaves[node]).below is None:
                self._strange_beat(leaf, beat, out)
            return
        placed.heard = now
        if placed.hear(beat):
            self._batch.beats[beat.lease] = placed.beat

    def _strange_beat(self, leaf: Leaf, beat: msg.Beat, out: list[fx.Effect]) -> None:
        """A leaf says to hold what it has not been given, or no more: what runs is stopped; a result may be a stray."""
        if beat.lease in self._shelf or self._tenants.get(beat.lease) is not None:
            out.append(fx.Drop(peer=leaf.peer.speaker, reason="lease was never given to it"))
        elif beat.running and leaf.begun:
            self._serving.say(leaf.peer.link.peer, msg.Cancel(leases=(beat.lease,)), out)

    def _returned(self, node: NodeId, leaf: Leaf, items: tuple[msg.ReturnItem, ...], now: Mono) -> None:
        for item in items:
            if item.fault == "no-manifest":
                leaf.sent.clear()
            held = self._tenants.of(node, item.lease)
            if held is not None:  # else its time was over, which has been told
                self._lift(item.lease, now)
                self._batch.returned(item, hurries=self._missed(held, item))

    def _missed(self, held: Placed, item: msg.ReturnItem) -> bool:
        """Tell whether anybody waits for what a leaf gives back: not if it came too late and there is more of its job here."""
        return item.fault != "late" or held.job is None or not self._shelf.count(held.job)

    # -- bridges below --------------------------------------------------------------------------------------------------

    def _below(self, peer: Peer) -> Below | None:
        """Return what is known of the leaves of a peer that stands for many, if it does."""
        if not peer.link.path:
            return None
        above = (self._master, *self.link.path[::-1])
        return Below(self._identity, peer.speaker, peer.link.certs, above, self._is_banned, self._homes)

    def expel(self, gone: Callable[[Cert], bool]) -> bool:
        """Forget the leaves of bridges below that are out, and what was sealed to them; return whether there were any."""
        belows = [leaf.below for leaf in self._serving.leaves.values() if leaf.below is not None]
        found = [node for below in belows for node in below.expel(gone)]
        for node in found:
            self._changed[node] = None
        self._serving.unkey(found)
        return bool(found)

    def _from_below(
        self, leaf: Leaf, below: Below, message: msg.Leaves | msg.Report, now: Mono, out: list[fx.Effect]
    ) -> None:
        if isinstance(message, msg.Leaves):
            self._leaves(leaf, below, message, now, out)
        else:
            self._reported(leaf, below, message, now, out)

    def _leaves(self, leaf: Leaf, below: Below, message: msg.Leaves, now: Mono, out: list[fx.Effect]) -> None:
        for node in map(NodeId, message.gone):
            if below.leave(node):
                self._changed[node] = None
                if not self._serving.stands(node):
                    self._serving.unkey((node,))
        came = False
        for each in message.leaves:
            try:
                node, rekeyed = below.introduce(each, self._wall(now), room=LEAVES_TOTAL_MAX - self._serving.total)
            except Reject as reject:
                out.append(fx.Drop(peer=below.bridge, reason=f"leaf: {reject.reason}"))
                continue
            if rekeyed:
                self._serving.unkey((node,))
            self._changed[node] = None
            came = True
        if came:
            self._serving.wake(leaf.peer.link.peer, out)

    def _reported(self, leaf: Leaf, below: Below, report: msg.Report, now: Mono, out: list[fx.Effect]) -> None:
        node = leaf.peer.link.peer
        self._show(leaf, report.proofs)
        for lease, runner in report.placed:
            # Who has it need not be known, as that one may have gone on before it was introduced here. But to have taken along
            # what was elsewhere it must be here, by its own word.
            comes = NodeId(runner) if below.home(NodeId(runner)) else None
            if (placed := self._claim(node, lease, now, comes)) is not None:
                placed.heard = now
                placed.runner = NodeId(runner)
                self._batch.placed[lease] = placed.runner
        for beat in report.beats:
            if (placed := self._claim(node, beat.lease, now)) is not None:
                placed.heard = now
                if placed.hear(beat):
                    self._batch.beats[beat.lease] = placed.beat
        self._results_below(node, below, report, now, out)
        for item in report.returns:
            if item.fault == "no-manifest":
                leaf.sent.clear()
                below.forget_keys()
            if (held := self._tenants.of(node, item.lease)) is not None:
                self._lift(item.lease, now)
                self._batch.returned(item, hurries=self._missed(held, item))

    def _results_below(self, node: NodeId, below: Below, report: msg.Report, now: Mono, out: list[fx.Effect]) -> None:
        inline = {prims.blob_id(blob): blob for blob in report.blobs}
        try:
            handed = Handed(report.subs, self._mesh, self._master)
        except Reject as reject:
            drop = fx.Drop(peer=below.bridge, reason=f"sub-grant: {reject.reason}", suspect=ev.FORGED)
            out.append(drop)
            return
        for raw in report.results:
            self._result_below(node, below, raw, (inline, handed), now, out)
        for raw in report.strays:
            self._result_below(node, below, raw, (inline, handed), now, out, stray=True)

    def _result_below(  # noqa: PLR0913  each is a different fact
        self,
        node: NodeId,
        below: Below,
        raw: bytes,
        came: tuple[dict[BlobId, bytes], Handed],
        now: Mono,
        out: list[fx.Effect],
        *,
        stray: bool = False,
    ) -> None:
        inline, handed = came
        try:
            result = sign.open_claimed(raw, Result, attrgetter("by"))
            if (result.mesh, result.node) != (self._mesh, self._master):
                raise Reject("for somebody else")  # noqa: TRY301  ends like all else that is wrong
            if result.by not in below.leaves:
                raise Reject("not by a leaf")  # noqa: TRY301  see above
            subs = _used(handed, result)
        except Reject as reject:
            out.append(fx.Drop(peer=below.bridge, reason=f"result: {reject.reason}"))
            return
        named = dict.fromkeys(BlobId(ref.blob) for item in result.items for ref in (*item.body, *item.blobs))
        blobs = tuple(inline[blob] for blob in named if blob in inline)
        found = [] if stray else [self._claim(node, item.lease, now, NodeId(result.by)) for item in result.items]
        mine = [placed for placed in found if placed is not None]
        if stray or (len(mine) < len(found) and self._strange(node, result)):
            self._stray(node, raw, blobs, subs, now, out)
            return
        if len(mine) < len(found):
            out.append(fx.Drop(peer=below.bridge, reason="result: lease was never given to it"))
            return
        if self._batch.result(raw, blobs, subs, by=NodeId(result.by), hurries=self._hurries(mine, result)):
            self._ended(mine, result, now)

    def _recall(self, tasks: int, out: list[fx.Effect]) -> None:
        """Ask bridges below for so many attempts that no leaf has yet."""
        for node, leaf in self._serving.leaves.items():
            if leaf.below is not None and tasks > 0:
                waiting = sum(placed.runner is None for placed in self._tenants.held(node))
                if waiting:
                    self._serving.say(node, msg.Recall(tasks=min(tasks, waiting)), out)
                    tasks -= waiting

    def _up(self, message: msg.Passed, out: list[fx.Effect]) -> None:
        if self.link.path:
            through = msg.Through(node=self._master, message=message, cluster=True)
            out.append(fx.Send(peer=self.link.path[0], message=through))
        else:
            out.append(fx.Send(peer=self._master, message=msg.Through(node=self._me, message=message)))


def _used(handed: Handed, result: Result) -> tuple[bytes, ...]:
    """Return the sub-grants by which the leases of a result came to who signed it, as far as that is told.

    Raises:
        Reject: a bridge handed on what it did not have.
    """
    steps = (step for item in result.items for step in handed.way(item.lease, result.by))
    return tuple(dict.fromkeys(step.raw for step in steps))
