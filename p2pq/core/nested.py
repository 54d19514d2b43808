"""What a bridge knows of the leases of one master, and what bridges below say of them (docs/adr/0204).

A bridge below is one more leaf here, and holds leases like one; which of its own leaves has which is passed on to the master,
and known here so that a lease that moves is followed.
"""

from collections.abc import Callable
from operator import attrgetter
from typing import Final

from p2pq.core import effects as fx
from p2pq.core import events as ev
from p2pq.core.batching import Batch
from p2pq.core.below import Below
from p2pq.core.deadlines import Deadlines
from p2pq.core.identity import Identity
from p2pq.core.mandates import Homes, open_mandate
from p2pq.core.restock import Restock
from p2pq.core.serving import LEAVES_TOTAL_MAX, Leaf, Peer, Serving, Timer
from p2pq.core.shelf import Shelf
from p2pq.core.tenants import Placed, Tenants
from p2pq.errors import Reject
from p2pq.model.config import ScheduleSettings
from p2pq.model.ids import BlobId, LeaseId, Mono, NodeId, Wall
from p2pq.wire import messages as msg
from p2pq.wire import prims, sign, trust
from p2pq.wire.objects import ITEMS_MAX, Cert, Result

HELD_MAX: Final = msg.LEASES_MAX - ITEMS_MAX
"""Leases of one master here at most; of more nobody's word is taken."""
LEAF_HELD_MAX: Final = 8192
"""... and the leases that one leaf may have and still name more: it must leave others the most of these."""
POSTPONED_MAX: Final = 64
"""Results that wait for the master's answer."""


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
        self._mesh, self._master = identity.mesh, link.peer
        self._wall, self._deadlines = wall, deadlines
        self._shelf = Shelf(identity, link)
        self._restock = Restock(link.owner, schedule, entropy)
        self._tenants = Tenants()
        self._batch = Batch()
        self._serving = Serving(identity.node, link, self._shelf, self._restock, self._tenants, self._batch, deadlines)
        self._homes = Homes()
        self._changed: dict[NodeId, None] = {}
        """Leaves of which the master is to be told."""
        self._latest = LeaseId(0, 0)
        """The latest lease that was granted here."""
        self._doubted: dict[LeaseId, msg.ReturnItem] = {}
        """Leases handed back of which it will show with the master's answer whether anybody could have held them."""
        self._postponed: list[tuple[NodeId, msg.ResultReady | msg.Report, frozenset[LeaseId]]] = []
        """Results of which the same is true: who, next to this bridge, said them, and of which leases."""

    # -- leases ---------------------------------------------------------------------------------------------------------

    def _adopt(self, node: NodeId, lease: LeaseId, now: Mono) -> Placed | None:
        """Take a leaf's word that it holds a lease: an earlier life of this bridge, or another, gave it to it."""
        leaf = self._serving.leaves[node]
        most = LEAF_HELD_MAX if leaf.below is None else HELD_MAX
        # What was handed back counts until it is told, or a leaf that names and hands back ever more would fill the memory.
        here = len(self._tenants) + len(self._shelf) + len(self._batch.returns) + len(self._doubted)
        if lease in self._shelf or here >= HELD_MAX or self._tenants.count(node) >= most:
            return None
        placed = Placed(lease, node, None, now, now)
        self._tenants.add(placed)
        if leaf.below is None:
            self._batch.placed[lease] = node
        self._batch.beats[lease] = placed.beat
        return placed

    def _claim(self, node: NodeId, lease: LeaseId, now: Mono, runner: NodeId | None = None) -> Placed | None:
        """Return a lease that a leaf, or a bridge below, says to hold; None where it does not.

        ``runner``: whose word it is in the end. Whoever runs an attempt takes it along to where it takes part.
        """
        placed = self._tenants.get(lease) or self._adopt(node, lease, now)
        if placed is None:
            return None
        if placed.leaf != node and runner is not None and runner == (placed.runner or placed.leaf):
            self._tenants.move(placed, node)
        return placed if placed.leaf == node else None

    def _doubts(self, placed: Placed) -> bool:
        """Tell whether a lease that is here by somebody's word alone may be in a grant that is on its way.

        Then nobody has it yet. Leases are counted, so anybody can name the next ones. A bridge above gives them out in any order.
        """
        later = bool(self.link.path) or placed.lease > self._latest
        return later and placed.job is None and self._restock.asked is not None

    def _hand_back(self, placed: Placed, item: msg.ReturnItem) -> None:
        """Tell that a lease that somebody held here is given back."""
        (self._doubted if self._doubts(placed) else self._batch.returns)[placed.lease] = item

    def _postpone(self, node: NodeId, said: msg.ResultReady | msg.Report, mine: list[Placed]) -> None:
        """Take a result in once the master has answered; of what is too much whoever has it says it again."""
        results = (said.result,) if isinstance(said, msg.ResultReady) else said.results
        size = sum(map(len, (*results, *said.blobs)))
        if len(self._postponed) < POSTPONED_MAX and size <= msg.INLINE_BYTES_MAX:
            self._postponed.append((node, said, frozenset(placed.lease for placed in mine)))

    def _resume(self, now: Mono, out: list[fx.Effect]) -> None:
        """Take in what was postponed, if no grant is on its way any more."""
        if self._restock.asked is not None or not self._postponed:
            return
        postponed, self._postponed = self._postponed, []
        for node, said, _ in postponed:
            if (leaf := self._serving.leaves.get(node)) is None:
                continue
            if isinstance(said, msg.ResultReady):
                self._result(node, said, now, out)
            elif leaf.below is not None:
                self._reported(leaf, leaf.below, said, now, out)

    def _result(self, node: NodeId, ready: msg.ResultReady, now: Mono, out: list[fx.Effect]) -> None:
        try:
            result = sign.open_signed(ready.result, Result, node)
            if (result.mesh, result.node, result.by) != (self._mesh, self._master, node):
                raise Reject("for somebody else")  # noqa: TRY301  ends like all else that is wrong
        except Reject as reject:
            out.append(fx.Drop(peer=node, reason=f"result: {reject.reason}"))
            return
        found = [self._claim(node, item.lease, now, node) for item in result.items]
        mine = [placed for placed in found if placed is not None]
        if len(mine) < len(found):
            out.append(fx.Drop(peer=node, reason="result: lease was never given to it"))
            return
        if any(map(self._doubts, mine)):
            self._postpone(node, ready, mine)
            return
        # Where there is no room for it the leaf says it again.
        if self._batch.result(ready.result, ready.blobs, hurries=self._hurries(mine, result)):
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
        """Tell whether anything waits for a result: not for a good one, as long as there is more of its job in stock."""
        calm = all(placed.job is not None and self._shelf.count(placed.job) for placed in mine)
        return not (calm and all(item.outcome.ok for item in result.items))

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
        leaf.mandate = mandate
        self._changed[node] = None

    def _holding(self, node: NodeId, named: tuple[LeaseId, ...], now: Mono, out: list[fx.Effect]) -> None:
        holds, leaf = dict.fromkeys(named), self._serving.leaves[node]
        for placed in self._tenants.held(node):
            if placed.lease not in holds:
                self._lift(placed.lease, now)
                # What only waited at a bridge below is nobody's failure: bridges remember nothing.
                waited = leaf.below is not None and placed.runner is None
                self._hand_back(placed, msg.ReturnItem(placed.lease, "recalled" if waited else "lost"))
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
                out.append(fx.Drop(peer=leaf.peer.speaker, reason="lease was never given to it"))
            return
        placed.heard = now
        if placed.hear(beat):
            self._batch.beats[beat.lease] = placed.beat

    def _returned(self, node: NodeId, leaf: Leaf, items: tuple[msg.ReturnItem, ...], now: Mono) -> None:
        for item in items:
            if item.fault == "no-manifest":
                leaf.sent.clear()
            held = self._tenants.of(node, item.lease)
            if held is not None:  # else its time was over, which has been told
                self._lift(item.lease, now)
                self._hand_back(held, item)

    # -- bridges below --------------------------------------------------------------------------------------------------

    def _below(self, peer: Peer) -> Below | None:
        """Return what is known of the leaves of a peer that stands for many, if it does."""
        if not peer.link.path:
            return None
        above = (self._master, *self.link.path[::-1])
        return Below(self._identity, peer.speaker, above, self._is_banned, self._homes)

    def expel(self, gone: Callable[[Cert], bool]) -> bool:
        """Forget the leaves of bridges below that are out, and what was sealed to them; return whether there were any."""
        belows = [leaf.below for leaf in self._serving.leaves.values() if leaf.below is not None]
        found = [node for below in belows for node in below.expel(gone)]
        for node in found:
            self._changed[node] = None
            self._serving.unkey(node)
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
                    self._serving.unkey(node)
        came = False
        for each in message.leaves:
            try:
                node, rekeyed = below.introduce(each, self._wall(now), room=LEAVES_TOTAL_MAX - self._serving.total)
            except Reject as reject:
                out.append(fx.Drop(peer=below.bridge, reason=f"leaf: {reject.reason}"))
                continue
            if rekeyed:
                self._serving.unkey(node)
            self._changed[node] = None
            came = True
        if came:
            self._serving.wake(leaf.peer.link.peer, out)

    def _reported(self, leaf: Leaf, below: Below, report: msg.Report, now: Mono, out: list[fx.Effect]) -> None:
        node = leaf.peer.link.peer
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
        inline = {prims.blob_id(blob): blob for blob in report.blobs}
        for raw in report.results:
            self._result_below(node, below, raw, inline, now, out)
        for item in report.returns:
            if item.fault == "no-manifest":
                leaf.sent.clear()
                below.forget_keys()
            if (held := self._tenants.of(node, item.lease)) is not None:
                self._lift(item.lease, now)
                self._hand_back(held, item)

    def _result_below(
        self, node: NodeId, below: Below, raw: bytes, inline: dict[BlobId, bytes], now: Mono, out: list[fx.Effect]
    ) -> None:
        try:
            result = sign.open_claimed(raw, Result, attrgetter("by"))
            if (result.mesh, result.node) != (self._mesh, self._master):
                raise Reject("for somebody else")  # noqa: TRY301  ends like all else that is wrong
            if result.by not in below.leaves:
                raise Reject("not by a leaf")  # noqa: TRY301  see above
        except Reject as reject:
            out.append(fx.Drop(peer=below.bridge, reason=f"result: {reject.reason}"))
            return
        found = [self._claim(node, item.lease, now, NodeId(result.by)) for item in result.items]
        mine = [placed for placed in found if placed is not None]
        if len(mine) < len(found):
            out.append(fx.Drop(peer=below.bridge, reason="result: lease was never given to it"))
            return
        named = dict.fromkeys(BlobId(ref.blob) for item in result.items for ref in (*item.body, *item.blobs))
        blobs = tuple(inline[blob] for blob in named if blob in inline)
        if any(map(self._doubts, mine)):
            self._postpone(node, msg.Report(results=(raw,), blobs=blobs), mine)
            return
        if self._batch.result(raw, blobs, hurries=self._hurries(mine, result)):
            self._ended(mine, result, now)

    def _recall(self, tasks: int, out: list[fx.Effect]) -> None:
        """Ask bridges below for so many attempts that no leaf has yet."""
        for node, leaf in self._serving.leaves.items():
            if leaf.below is not None and tasks > 0:
                waiting = sum(placed.runner is None for placed in self._tenants.held(node))
                if waiting:
                    self._serving.say(node, msg.Recall(tasks=min(tasks, waiting)), out)
                    tasks -= waiting
