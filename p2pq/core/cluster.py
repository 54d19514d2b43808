"""One master and the leaves below this bridge that work for it: who holds which lease, and what is said.

To a leaf this answers for the master; to the master it is one large worker (docs/adr/0201). All of it is soft: both ends
know what they hold.
"""

from collections.abc import Callable
from typing import Final, assert_never, get_args

from p2pq.core import effects as fx
from p2pq.core import events as ev
from p2pq.core.deadlines import Deadlines
from p2pq.core.identity import Identity
from p2pq.core.kept import RESEND_S
from p2pq.core.nested import Nested
from p2pq.core.proofs import pack
from p2pq.core.serving import Kind, Leaf, Peer, Timer
from p2pq.core.shelf import Lot
from p2pq.core.through import cluster_of
from p2pq.core.views import Spoken
from p2pq.errors import Reject
from p2pq.model.config import ScheduleSettings
from p2pq.model.ids import JobId, LeaseId, Mono, NodeId, Wall
from p2pq.model.job import Fault
from p2pq.wire import messages as msg
from p2pq.wire import sign, trust
from p2pq.wire.objects import ITEMS_MAX, Receipt

PATIENCE_S: Final = 5.0
"""What no leaf has taken within this time is handed back."""
GONE_MAX: Final = 1024
"""Leaves that one message says to be gone."""
LEAVES_AT_ONCE: Final = 32
"""Leaves that one message introduces: with labels as long as may be, twice as many would be too long to be said."""
_KINDS: Final[tuple[Kind, ...]] = get_args(Kind)


class Cluster(Nested):
    """What this bridge does for one master, linked or shown by a bridge above."""

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
        super().__init__(identity, link, schedule, entropy, wall, deadlines, is_banned)
        self._schedule = schedule
        self._outermost = cluster_of((*link.path[::-1], identity.node)[0])
        """What the master knows as its worker: of the bridge on the way that is linked to it."""
        self._told: dict[NodeId, None] = {}
        """Leaves that the master knows."""
        self._began = Mono(0.0)
        self.brought: Mono | None = None
        """When the master last granted something of use, or acknowledged a result."""

    @property
    def busy(self) -> bool:
        """Whether leaves hold leases of this master."""
        return len(self._tenants) > 0

    @property
    def holds(self) -> bool:
        """Whether there is any attempt of this master here, in stock or at a leaf, or any news of one."""
        return self.busy or len(self._shelf) > 0 or bool(self._batch)

    @property
    def peopled(self) -> bool:
        """Whether anybody here works for this master."""
        return self._serving.total > 0

    def owed(self, now: Mono) -> bool:
        """Tell whether the master should have acknowledged a result."""
        return any(placed.ended and now - placed.since >= RESEND_S for placed in self._tenants)

    def leaf_of(self, lease: LeaseId) -> NodeId | None:
        """Return the leaf that holds a lease; None where none does, or it is not known."""
        placed = self._tenants.get(lease)
        return None if placed is None else placed.runner or placed.leaf

    def toward(self, leaf: NodeId) -> NodeId | None:
        """Return the bridge below that leads to a leaf; None where none does."""
        return self._serving.toward(leaf)

    def spoken(self) -> Spoken:
        """Return what people are shown of it."""
        counts = {node: sum(not placed.ended for placed in self._tenants.held(node)) for node in self._serving.leaves}
        return Spoken(self._master, len(self._shelf), tuple(counts.items()))

    # -- the link -------------------------------------------------------------------------------------------------------

    def begin(self, gather_s: float, now: Mono, out: list[fx.Effect]) -> None:
        """The link is up: so long leaves may say what they hold, then the master is told."""
        self._deadlines.set(("beat", self._master), Mono(now + self._schedule.heartbeat_s))
        self._began = now
        if gather_s:
            self._deadlines.set(("gather", self._master), Mono(now + gather_s))
        else:
            self._gathered(out)

    def gather(self, gather_s: float) -> None:
        """There is a bridge below now: if the master has not been told yet, leaves have so long in all."""
        at = self._deadlines.get(("gather", self._master))
        if at is not None:
            self._deadlines.set(("gather", self._master), max(at, Mono(self._began + gather_s)))

    def end(self) -> None:
        """The link is down: nothing of this master is due any more."""
        self._serving.end()
        for kind in _KINDS:
            self._deadlines.cancel((kind, self._master))

    def drain(self) -> None:
        """This node goes down: others may have what is in stock."""
        self._restock.stop()
        self._batch.hand_back(self._shelf.newest(len(self._shelf)), "draining")

    def leave_off(self, now: Mono, out: list[fx.Effect]) -> None:
        """This node is going at once: whatever there is to say is said now."""
        if not self._gathering:
            self._flush(now, out)

    def woke(self, now: Mono) -> None:
        """This node slept: nobody could say anything to it meanwhile."""
        for placed in self._tenants:
            placed.heard = now
        if self._restock.asked is not None:
            self._deadlines.set(("request", self._master), Mono(now + self._schedule.request_s))

    # -- the master -----------------------------------------------------------------------------------------------------

    def from_master(self, message: msg.Passed, now: Mono, out: list[fx.Effect]) -> None:
        """Take in what the master says to the cluster."""
        match message:
            case msg.HasWork(owners=owners):
                # As for any worker: nobody speaks for more owners than its certificate names.
                if any(owner != self.link.owner for owner in owners):
                    self._drop(self._master, "work that it may not offer", out)
                elif self._restock.has_work(message):
                    self._serving.grew()
            case msg.Granted():
                self._granted(message, now, out)
            case msg.Nothing(nonce=nonce, wide=wide):
                asked = self._restock.answer(nonce, now)
                if asked is not None:
                    self._answered()
                    self._restock.nothing(asked, message)
                    self._serving.refuse(wide, out)
            case msg.Recall(tasks=tasks):
                back = self._shelf.newest(tasks)
                self._batch.hand_back(back, "recalled")
                self._recall(tasks - len(back), out)
            case msg.Cancel(leases=leases):
                self._cancel(leases, now, out)
            case msg.Receipted(receipt=raw):
                self._receipted(raw, now, out)
            case _:
                pass  # for masters, or in answer to what is never asked

    def _granted(self, message: msg.Granted, now: Mono, out: list[fx.Effect]) -> None:
        # What came too late may bring what the master believes to be here from now on: told so, it sends that anew.
        late: Fault = "no-manifest" if message.manifest or message.keys else "late"
        lot: Lot | Fault = "draining" if self._restock.stopped else late
        try:
            opened = self._shelf.open(message)
            grant = opened[0]
            asked = self._restock.answer(grant.nonce, now)
            if asked is not None:
                self._answered()
            fresh = {item.lease: item for item in grant.items if not self._knows(item.lease)}
            if asked is not None:
                if len(grant.items) > asked.tasks_max:
                    raise Reject("grant: more than was asked for")  # noqa: TRY301  ends like all else that is wrong
                if fresh and not self._restock.stopped:
                    lot = self._shelf.put(message, opened, fresh, now, self._wall(now))
        except Reject as reject:
            self._drop(self._master, reject.reason, out, close=True)
            return
        if isinstance(lot, Lot):
            if self._shelf.usable_by_any(lot, self._serving.offers()) or not lot.keyless:
                self._restock.useful()
                self.brought = self.brought if self.owed(now) else now
                self._serving.stocked(now, out)
                self._be_patient()
                return
            # The master believes that it has sent the keys; told so, it sends all anew.
            self._shelf.rest(lot)
            lot = "no-manifest"
        self._batch.hand_back(tuple(fresh), lot)
        if asked is not None:
            self._strike(now)

    def _knows(self, lease: LeaseId) -> bool:
        return lease in self._shelf or self._tenants.get(lease) is not None

    def _answered(self) -> None:
        """Nothing is outstanding any more."""
        self._deadlines.cancel(("request", self._master))
        self._serving.answered()

    def _strike(self, now: Mono) -> None:
        self._deadlines.set(("quiet", self._master), Mono(now + self._restock.strike()))

    def _be_patient(self) -> None:
        """See to it that what waits here for too long is handed back."""
        since = self._shelf.waiting_since()
        if since is not None:
            self._deadlines.set(("patience", self._master), Mono(since + PATIENCE_S))

    def _impatient(self, now: Mono) -> None:
        for lot in self._shelf.overdue(PATIENCE_S, now):
            self._restock.late(JobId(lot.grant.job))
            self._batch.hand_back(self._shelf.rest(lot), "no-manifest" if lot.keyless else "late")
        self._be_patient()

    def _cancel(self, leases: tuple[LeaseId, ...], now: Mono, out: list[fx.Effect]) -> None:
        by_leaf: dict[NodeId, list[LeaseId]] = {}
        for lease in leases:
            self._shelf.drop(lease)
            placed = self._lift(lease, now)
            self._batch.forget(lease)
            if placed is not None:
                by_leaf.setdefault(placed.leaf, []).append(lease)
        for leaf, over in by_leaf.items():
            self._serving.say(leaf, msg.Cancel(leases=tuple(over)), out)

    def _receipted(self, raw: bytes, now: Mono, out: list[fx.Effect]) -> None:
        try:
            receipt = sign.open_signed(raw, Receipt, self._master)
            if (receipt.mesh, receipt.node, receipt.to) != (self._mesh, self._master, self._outermost):
                raise Reject("not for this cluster")  # noqa: TRY301  ends like all else that is wrong
        except Reject as reject:
            self._drop(self._master, f"receipt: {reject.reason}", out, close=True)
            return
        found = [self._lift(item.lease, now) for item in receipt.items]
        placed = [each for each in found if each is not None]
        self.brought = now if placed else self.brought
        over = dict.fromkeys(item.lease for item in receipt.items)
        strays = [self._strays.pop(key)[0] for key in list(self._strays) if key[0] in over]
        for leaf in dict.fromkeys((*(each.leaf for each in placed), *strays)):
            self._serving.say(leaf, msg.Receipted(receipt=raw), out)

    # -- leaves ---------------------------------------------------------------------------------------------------------

    def from_leaf(self, peer: Peer, message: msg.Passed, now: Mono, out: list[fx.Effect]) -> None:
        """Take in what a worker, or a bridge, below says to the master; the first word of it makes it one of the leaves."""
        node = peer.link.peer
        if isinstance(message, msg.Leaving):
            self.leave(node)
            return
        leaf = self._serving.join(peer, self._below(peer))
        if leaf is None:
            self._drop(peer.speaker, "through: too many leaves", out)
        elif leaf.below is not None and isinstance(message, msg.Leaves | msg.Report):
            self._from_below(leaf, leaf.below, message, now, out)
        elif leaf.below is not None and not isinstance(message, msg.Request | msg.Holding):
            self._drop(peer.speaker, "through: not for a master", out)
        else:
            self._heard(node, leaf, message, now, out)

    def _heard(self, node: NodeId, leaf: Leaf, message: msg.Passed, now: Mono, out: list[fx.Effect]) -> None:
        match message:
            case msg.ProfileIs(profile=profile):
                leaf.profile = profile
                self.renew(node)
                self._serving.wake(node, out)
            case msg.Request():
                self._serving.request(node, message, now, out)
            case msg.Holding():
                self._holding(node, leaf, message, now, out)
            case msg.Return(items=items):
                self._returned(node, leaf, items, now)
            case msg.Heartbeat(beats=beats):
                for beat in beats:
                    self._beat(node, beat, now, out)
            case msg.ResultReady():
                self._result(node, message, now, out)
            case msg.Confirm(nonce=nonce, leases=leases):
                held = [placed for lease in leases if (placed := self._tenants.of(node, lease)) is not None]
                for placed in held:
                    placed.heard = now
                confirmed = msg.Confirmed(nonce=nonce, leases=tuple(placed.lease for placed in held))
                self._serving.say(node, confirmed, out)
            case _:
                self._drop(node, "through: not for a master", out)

    def renew(self, node: NodeId) -> None:
        """What the master is told of a leaf has changed."""
        if node in self._serving.leaves:
            self._changed[node] = None

    def leave(self, node: NodeId) -> None:
        """A worker takes part no more. Its leases are not renewed any longer, unless it comes back in time."""
        self._changed |= dict.fromkeys(self._serving.leave(node))

    # -- what is due ----------------------------------------------------------------------------------------------------

    def due(self, timer: Timer, now: Mono, out: list[fx.Effect]) -> None:
        """Do what a deadline of this master was for."""
        match timer:
            case ("gather", _):
                self._gathered(out)
            case ("flush", _):
                self._flush(now, out)
            case ("wave", _):
                pass  # ``settle`` goes on with it
            case ("request", _):
                self._serving.answered()
                self._strike(now)
            case ("quiet", _):
                self._restock.quiet = False
                self._serving.grew()
            case ("beat", _):
                self._heartbeat(now)
            case ("patience", _):
                self._impatient(now)
            case ("hold", _, key):
                self._serving.lapse(key, out)
            case _:
                assert_never(timer)

    def _heartbeat(self, now: Mono) -> None:
        """Renew what is in stock and what leaves have renewed; what they have not for a whole term is over."""
        silent = [placed for placed in self._tenants if now - placed.heard >= self._schedule.lease_s]
        for placed in silent:
            self._lift(placed.lease, now)
            if not placed.ended:
                # What only waited at a bridge below that did not come back is nobody's failure.
                self._batch.returned(msg.ReturnItem(placed.lease, "recalled" if placed.waits else "expired"))
        for placed in self._tenants:
            self._batch.beats[placed.lease] = placed.beat
        for lease in self._shelf.leases():
            self._batch.beats[lease] = msg.Beat(lease, running=False)
        self._deadlines.set(("beat", self._master), Mono(now + self._schedule.heartbeat_s))

    # -- what the master is told ----------------------------------------------------------------------------------------

    def settle(self, now: Mono, out: list[fx.Effect]) -> None:
        """End a turn: wake leaves if there is something for them, and see to it that the master hears what is new."""
        self._serving.settle(now, out)
        if self._gathering:
            return
        if self._batch.full:
            self._flush(now, out)
        wants = self._wants
        if self._batch.hurries or self._changed or (wants and not self._restock.asleep):
            wait_s = self._restock.window_s
        else:
            wait_s = self._restock.doze_s if wants else self._restock.calm_s(stock=len(self._shelf) > 0)
        if self._batch or self._changed or wants:
            at = Mono(now + wait_s)
            due = self._deadlines.get(("flush", self._master))
            if due is None or at < due:
                self._deadlines.set(("flush", self._master), at)

    @property
    def _wants(self) -> bool:
        """Whether there is anything to ask the master."""
        return self._restock.may_ask and (len(self._serving) > 0 or self._restock.low(self._shelf.count))

    def _gathered(self, out: list[fx.Effect]) -> None:
        """Begin with the master: who the leaves are (by which it knows the cluster), what they hold, and then the rest."""
        self._gathering = False
        self._serving.grew()
        self._introduce(out)
        if not self._told:
            self._up(msg.Leaves(), out)
        leases = dict.fromkeys((*self._tenants.leases(), *self._batch.returns))
        proofs = pack(placed.proof for placed in self._tenants) if self.link.path else ()
        self._up(msg.Holding(leases=tuple(leases)[: msg.LEASES_MAX], proofs=proofs), out)
        self._shown.clear()
        self._report(out)

    def _flush(self, now: Mono, out: list[fx.Effect]) -> None:
        """Say all there is to say to the master, and ask it for what is wanted."""
        self._deadlines.cancel(("flush", self._master))
        self._introduce(out)
        self._report(out)
        if len(self._tenants) + len(self._shelf) > msg.LEASES_MAX - 2 * ITEMS_MAX:
            return
        request = self._restock.request(self._serving.wants(), self._shelf.count, len(self._shelf), now)
        if request is not None:
            self._up(request, out)
            self._deadlines.set(("request", self._master), Mono(now + self._schedule.request_s))

    def _introduce(self, out: list[fx.Effect]) -> None:
        """Tell of new leaves, and of those that have changed."""
        leaves = [node for node in self._changed if self._serving.stands(node)]
        for node in leaves:
            del self._changed[node]
        known = {node: told for node in leaves if (told := self._serving.introduction(node)) is not None}
        self._told |= dict.fromkeys(known)
        new = tuple(known.values())
        for first in range(0, len(new), LEAVES_AT_ONCE):
            self._up(msg.Leaves(leaves=new[first : first + LEAVES_AT_ONCE]), out)

    def _report(self, out: list[fx.Effect]) -> None:
        """Tell what is new of leases, then who is gone."""
        if self._shown:
            self._up(msg.Report(proofs=pack(self._shown)), out)
            self._shown.clear()
        if self._batch:
            for report in self._batch.take():
                self._up(report, out)
        gone = tuple(node for node in self._changed if node in self._told)
        self._changed.clear()
        for node in gone:
            del self._told[node]
        for first in range(0, len(gone), GONE_MAX):
            self._up(msg.Leaves(gone=gone[first : first + GONE_MAX]), out)

    @staticmethod
    def _drop(peer: NodeId, reason: str, out: list[fx.Effect], *, close: bool = False) -> None:
        out.append(fx.Drop(peer=peer, reason=reason, close=close))

    def check(self) -> None:
        """Assert the invariants; they hold between any two turns."""
        self._shelf.check()
        self._tenants.check()
        self._restock.check()
        self._serving.check()
        self._homes.check()
        assert not any(lease in self._shelf for lease in self._tenants.leases()), "in stock, and given to a leaf"
        due = {kind: (kind, self._master) in self._deadlines for kind in _KINDS}
        assert due["beat"], "leases that nobody renews"
        assert due["gather"] == self._gathering, "the master is never told, or twice"
        assert due["request"] == (self._restock.asked is not None), "a request that never lapses"
        assert self.link.path or not self._shown, "a master needs no proof of what it gave"
        assert due["quiet"] == self._restock.quiet, "a master that is left alone for ever"
        assert due["patience"] or not len(self._shelf), "a stock that may wait for ever"
        news = bool(self._batch) or bool(self._changed) or self._wants
        assert due["flush"] or self._gathering or not news, "news that is never told"
