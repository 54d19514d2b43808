"""What a worker tells its masters of the leases it holds: that it still does, how far they are, what came of them.

Nothing said here is lost with a link: leases handed back and results are said again after the next link-up.
"""

from collections.abc import Iterable, Sequence
from typing import Final

import msgspec

from p2pq.core.asking import Asking, Timer
from p2pq.core.deadlines import Deadlines
from p2pq.core.effects import Drop, Effect, Emit, Record, Release, Send
from p2pq.core.events import LinkUp, Offering
from p2pq.core.grants import Declined, Master
from p2pq.core.identity import Identity
from p2pq.core.kept import RESEND_S, Kept, KeptFor
from p2pq.core.mandates import Mandates
from p2pq.core.proofs import pack
from p2pq.core.records import Restored, ResultKept, ResultReleased
from p2pq.core.slots import Attempt, Slots
from p2pq.errors import Reject
from p2pq.model.config import ScheduleSettings
from p2pq.model.ids import LeaseId, Mono, NodeId, Wall
from p2pq.model.notice import KeptForgotten
from p2pq.wire import sign
from p2pq.wire.messages import LEASES_MAX, MANDATES_SINCE, Beat, Heartbeat, Holding, ProfileIs, Return, ReturnItem
from p2pq.wire.objects import ITEMS_MAX, Grant, Receipt

PROGRESS_S: Final = 1.0
"""How far attempts are is told at most this often per master."""
RENEW_GRACE_S: Final = 120.0
"""Beyond its time limit, an attempt's lease is renewed for this long: fetching, stopping and packing take time."""


class Reports:
    """The voice of a worker towards its masters. Shares the worker's slots and deadlines; keeps the results."""

    def __init__(
        self,
        identity: Identity,
        schedule: ScheduleSettings,
        restored: Restored,
        slots: Slots,
        asking: Asking,
        deadlines: Deadlines[Timer],
    ) -> None:
        """Take up the results that an earlier life kept; nobody is linked yet."""
        self._identity = identity
        self._schedule = schedule
        self._slots = slots
        self._asking = asking
        self._deadlines = deadlines
        self._kept = Kept(identity, restored.kept)
        self._mandates = Mandates(identity, restored.epoch + 1)
        self._welcomes = False
        """Guests are taken here."""
        self._returning: dict[NodeId, dict[LeaseId, ReturnItem]] = {}
        """Handed back while their master was not linked."""
        self.masters: dict[NodeId, Master] = {}
        """Every linked node, and masters for which bridges speak; those with the capability ``submit`` may give work."""

    def kept(self) -> tuple[KeptFor, ...]:
        """Return what waits for its master's receipt, by master."""
        return self._kept.by_master()

    @property
    def owes(self) -> bool:
        """Whether a linked master has yet to acknowledge a result."""
        return any(self._kept.leases(master) for master in self.masters)

    def known(self, master: NodeId, lease: LeaseId) -> bool:
        """Tell whether a lease is held here in any form."""
        return self._slots.get(master, lease) is not None or self._kept.has(master, lease)

    def link_up(
        self, event: LinkUp, offering: Offering | None, now: Mono, out: list[Effect], *, draining: bool
    ) -> None:
        """Begin with a node, linked or through a bridge: first what is held of it, then what is offered, then what it missed."""
        peer = event.peer
        self.masters[peer] = Master(
            peer,
            event.owner,
            event.caps,
            event.minor,
            mesh=event.mesh or self._identity.mesh,
            foreign=bool(event.mesh),
            claimed=event.claimed,
            way=event.way,
        )
        returning = self._returning.pop(peer, {})
        kept = self._kept.leases(peer)
        leases = (*(attempt.lease for attempt in self._slots.of(peer)), *returning, *kept)
        if "submit" not in event.caps and not leases:
            return
        ours = ((attempt.grant, *attempt.subs) for attempt in self._slots.of(peer))
        proofs = pack((*ours, *self._kept.proofs(peer))) if event.way else ()
        # What bridges could say of this very node concerns nobody; abroad nobody speaks for anybody.
        silent = event.mesh or peer == self._identity.node or event.minor < MANDATES_SINCE
        mandate = b"" if silent else self._mandates.make(peer, event.way[::-1])
        out.append(Send(peer=peer, message=Holding(leases=leases[:LEASES_MAX], mandate=mandate, proofs=proofs)))
        self.profile(peer, offering, out, draining=draining)
        self.hand_back(peer, returning.values(), out)
        self._kept.linked(peer, now)
        self._asking.set_full(peer, full=self._kept.full(peer))
        self._send_kept(peer, kept, now, out)
        if leases:
            self.renew(peer, now)
        for attempt in self._slots.of(peer):  # it may be another life of it, which has to learn all anew
            attempt.told, attempt.shown = -1, False
            self.started(peer, now)

    def link_down(self, peer: NodeId) -> None:
        """Say nothing to that node until it is linked again."""
        self.masters.pop(peer, None)
        self._deadlines.cancel(("beat", peer))
        self._deadlines.cancel(("progress", peer))
        self._deadlines.cancel(("resend", peer))

    def profiles(self, offering: Offering | None, out: list[Effect], *, draining: bool) -> None:
        """Tell every node that may give work what is offered to it."""
        accepts = offering is not None and offering.profile.accepts and "work" in self._identity.caps
        self._welcomes = accepts and not draining
        for peer in self.masters:
            self.profile(peer, offering, out, draining=draining)

    def profile(self, peer: NodeId, offering: Offering | None, out: list[Effect], *, draining: bool) -> None:
        """Tell a node that may give work what is offered to it."""
        if offering is None or "submit" not in self.masters[peer].caps:
            return
        profile = offering.own if peer == self._identity.node else offering.profile
        if draining:
            profile = msgspec.structs.replace(profile, accepts=False, reason="the node is going down")
        out.append(Send(peer=peer, message=ProfileIs(profile=profile)))

    def hand_back(self, master: NodeId, items: Iterable[ReturnItem], out: list[Effect]) -> None:
        """Say that leases are handed back, now or after the next link-up."""
        items = tuple(items)
        if master not in self.masters:
            self._returning.setdefault(master, {}).update({item.lease: item for item in items})
            return
        parts = (items[first : first + ITEMS_MAX] for first in range(0, len(items), ITEMS_MAX))
        out.extend(Send(peer=master, message=Return(items=part)) for part in parts)

    def decline(self, master: NodeId, grant: Grant, declined: Declined, out: list[Effect]) -> None:
        """Hand back what was not taken of a grant; what is held already stays, in case the grant came twice."""
        fresh = (item.lease for item in grant.items if not self.known(master, item.lease))
        self.hand_back(master, [ReturnItem(lease, declined.fault, declined.detail) for lease in fresh], out)

    # -- what comes of ways (``Voice``) ---------------------------------------------------------------------------------

    def taken(self, master: Master, now: Mono, *, new: bool) -> None:
        """A grant was taken, with something ``new`` in it: what came is renewed from now on.

        It says nothing good of a way over which results go and no receipts come.
        """
        if new and not self._kept.due(master.node, now):
            master.brought = now
        self.renew(master.node, now)

    def brought(self, master: NodeId) -> Mono | None:
        """Return when a master last granted or acknowledged something, since it is linked or stands."""
        known = self.masters.get(master)
        return None if known is None else known.brought

    def waits(self, master: NodeId, now: Mono) -> bool:
        """Tell whether there is room for work of a master, or a result that it should have acknowledged."""
        idle = self._welcomes and self._slots.free(own=False).cpus > 0
        return idle or bool(self._kept.due(master, now))

    def keeps(self, master: NodeId, now: Mono) -> bool:
        """Tell whether attempts of a master are held here, and none of its results waits for too long."""
        return bool(self._slots.of(master)) and not self._kept.due(master, now)

    # -- results ------------------------------------------------------------------------------------------------------

    def results(self, results: Sequence[tuple[ResultKept, bytes]], now: Mono, out: list[Effect]) -> None:
        """Keep results of one master and say them, now or after the next link-up; each with its grant, as it was signed."""
        master = results[0][0].master
        for kept, grant in results:
            self._kept.keep(kept, now, grant)
            out.append(Record(row=kept))
        self._asking.set_full(master, full=self._kept.full(master))
        if master in self.masters:
            self._send_kept(master, [kept.lease for kept, _ in results], now, out)

    def release(self, master: NodeId, lease: LeaseId, out: list[Effect]) -> None:
        """Forget a result, if one is kept under that lease."""
        if self._kept.release(master, lease):
            self._asking.set_full(master, full=self._kept.full(master))
            out.append(Record(row=ResultReleased(lease=lease, master=master)))
            out.append(Release(lease=lease, master=master))

    def forget_old(self, before: Wall, out: list[Effect]) -> None:
        """Forget results that have been kept since before that: their master has not come for them."""
        for master, leases in self._kept.older(before).items():
            for lease in leases:
                self.release(master, lease, out)
            out.append(Emit(notice=KeptForgotten(master=master, results=len(leases))))

    def expel(self, who: NodeId | str, out: list[Effect]) -> None:
        """Forget all that a node, or the nodes of an owner, would still be told: it is out."""
        if isinstance(who, str):
            kept = self._kept.owned_by(who)
        else:
            self._returning.pop(who, None)
            kept = [(who, lease) for lease in self._kept.leases(who)]
        for master, lease in kept:
            self.release(master, lease, out)

    def receipted(self, master: NodeId, raw: bytes, now: Mono, out: list[Effect]) -> None:
        """Take in a receipt: whatever the verdict, the results in it are no longer wanted here."""
        try:
            receipt = sign.open_signed(raw, Receipt, master)
        except Reject as reject:
            out.append(Drop(peer=master, reason=f"receipt: {reject.reason}", close=True))
            return
        me, mesh = self._identity.node, self.masters[master].mesh
        ours = receipt.to in {me, self.masters[master].names(me)}
        if not ours or (receipt.mesh, receipt.node) != (mesh, master):
            out.append(Drop(peer=master, reason="receipt: not between these two nodes", close=True))
            return
        if any(self._kept.has(master, item.lease) for item in receipt.items):
            self.masters[master].brought = now
        for item in receipt.items:
            self.release(master, item.lease, out)

    def resend(self, master: NodeId, now: Mono, out: list[Effect]) -> None:
        """Say again what has waited too long for a receipt."""
        self._send_kept(master, self._kept.due(master, now), now, out)

    def _send_kept(self, master: NodeId, leases: Iterable[LeaseId], now: Mono, out: list[Effect]) -> None:
        out.extend(
            Send(peer=master, message=message)
            for message in self._kept.messages(master, leases, self.masters[master].mesh)
        )
        if ("resend", master) not in self._deadlines and self._kept.leases(master):
            self._deadlines.set(("resend", master), Mono(now + RESEND_S))

    # -- heartbeats ---------------------------------------------------------------------------------------------------

    def renew(self, master: NodeId, now: Mono) -> None:
        """See to it that a lease just taken is renewed from now on."""
        if ("beat", master) not in self._deadlines:
            self._deadlines.set(("beat", master), Mono(now + self._schedule.heartbeat_s))

    def heartbeat(self, master: NodeId, now: Mono, out: list[Effect]) -> None:
        """Renew every lease of that master that may still be renewed; the beat ends when nothing is held."""
        attempts = self._slots.of(master)
        beats = [
            _beat(attempt)
            for attempt in attempts
            if attempt.ran_s(now) < attempt.manifest.limits.time_s + RENEW_GRACE_S
        ]
        beats += [Beat(lease, running=False) for lease in self._kept.renewed(master, now)]
        parts = (tuple(beats[first : first + LEASES_MAX]) for first in range(0, len(beats), LEASES_MAX))
        out.extend(Send(peer=master, message=Heartbeat(beats=part)) for part in parts)
        if attempts or beats:
            self._deadlines.set(("beat", master), Mono(now + self._schedule.heartbeat_s))

    def progress(self, master: NodeId, now: Mono, out: list[Effect]) -> None:
        """Tell what is news of how far attempts are, at most once per PROGRESS_S."""
        if master not in self.masters or ("progress", master) in self._deadlines:
            return
        beats = tuple(_beat(attempt) for attempt in self._slots.of(master) if attempt.news)
        if beats:
            out.append(Send(peer=master, message=Heartbeat(beats=beats)))
            self._deadlines.set(("progress", master), Mono(now + PROGRESS_S))

    def started(self, master: NodeId, now: Mono) -> None:
        """Tell soon that an attempt runs, unless it is over before that: short tasks cost no message more."""
        if master in self.masters and ("progress", master) not in self._deadlines:
            self._deadlines.set(("progress", master), Mono(now + PROGRESS_S))

    def check(self) -> None:
        """Assert that what is held of linked masters is renewed, and that kept results will be said again."""
        self._kept.check()
        for master in self.masters:
            assert not self._slots.of(master) or ("beat", master) in self._deadlines, "a lease that nobody renews"
            assert not self._kept.leases(master) or ("resend", master) in self._deadlines, "a result that is not said"


def _beat(attempt: Attempt) -> Beat:
    attempt.told, attempt.shown = attempt.progress, attempt.runs
    return Beat(attempt.lease, attempt.runs, attempt.progress)
