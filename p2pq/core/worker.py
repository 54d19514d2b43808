"""The worker: asks for work, holds leases, starts what fits, keeps results until their master has them.

It believes a master nothing that is not signed, asked for and about that master's own jobs. Own work (this very node is the
master) has room of its own and goes the same way.
"""

from collections.abc import Callable, Iterable
from random import Random
from typing import Final, assert_never

import msgspec

from p2pq.core import grants
from p2pq.core.asking import Asked, Asking, Timer
from p2pq.core.deadlines import Deadlines
from p2pq.core.effects import Drop, Effect, Emit, Fetch, Kill, Record, Release, Send, Start
from p2pq.core.events import (
    AddressSeen,
    BanAsked,
    CancelAsked,
    Collected,
    CollectFailed,
    Delivered,
    DeliverFailed,
    DialFailed,
    Drain,
    Event,
    Exited,
    Faulted,
    LinkDown,
    LinkUp,
    Offering,
    Progressed,
    Received,
    Started,
    Submitted,
    Tick,
)
from p2pq.core.fairness import Fairness, Means
from p2pq.core.identity import Identity
from p2pq.core.kept import RESEND_S, Kept
from p2pq.core.records import Restored, ResultKept, ResultReleased
from p2pq.core.slots import Attempt, Slots, level, offered, refusal
from p2pq.errors import Reject
from p2pq.model.config import ScheduleSettings
from p2pq.model.ids import JobId, LeaseId, Mono, NodeId
from p2pq.model.job import Fault, SandboxLevel
from p2pq.model.notice import GuestEnded, GuestTaken
from p2pq.wire import sign, trust
from p2pq.wire.messages import (
    LEASES_MAX,
    Bans,
    Beat,
    Cancel,
    Granted,
    HasWork,
    Heartbeat,
    Holding,
    Leaving,
    Nothing,
    Peers,
    ProfileIs,
    Receipted,
    Request,
    ResultReady,
    Return,
    ReturnItem,
)
from p2pq.wire.objects import ITEMS_MAX, Grant, Manifest, Receipt, ResultItem

PATIENCE: Final = 4
"""A lease ahead that waits this many times ``ahead_s`` is handed back: what runs before it is longer than thought."""
PROGRESS_S: Final = 1.0
"""Progress is told at most this often per master."""
RENEW_GRACE_S: Final = 120.0
"""Beyond its time limit, an attempt's lease is renewed for this long: fetching, stopping and packing take time."""

_LEVELS: Final[dict[str, SandboxLevel]] = {"strict": "strict", "basic": "basic", "none": "none"}


class Guest(msgspec.Struct, frozen=True, kw_only=True):
    """An attempt held here, for people."""

    lease: LeaseId
    master: NodeId
    owner: str
    job: JobId
    task: int
    attempt: int
    state: str
    own: bool
    since_s: float
    """Seconds since it took its slot; 0 while it waits."""
    progress: int


class Worker:
    """This node as a worker. Guests' work is drawn fairly; own work starts at once."""

    def __init__(
        self,
        identity: Identity,
        schedule: ScheduleSettings,
        restored: Restored,
        rng: Random,
        entropy: Callable[[int], bytes],
        wall: grants.Clock,
    ) -> None:
        """Take up the results kept by an earlier life; ask nobody before Offering."""
        self._identity = identity
        self._schedule = schedule
        self._wall = wall
        self._deadlines: Deadlines[Timer] = Deadlines()
        self._fairness = Fairness(schedule.fair_scale_s, schedule.fairness)
        self._asking = Asking(identity.node, schedule, self._fairness, Means(), self._deadlines, rng, entropy)
        self._slots = Slots()
        self._kept = Kept(identity, restored.kept)
        self._masters: dict[NodeId, grants.Master] = {}
        self._returning: dict[NodeId, dict[LeaseId, ReturnItem]] = {}
        """Handed back while their master was not linked; said after the next link-up."""
        self._offering: Offering | None = None
        self._draining = False

    @property
    def deadline(self) -> Mono | None:
        """The instant at which something is due, or None."""
        return self._deadlines.next

    @property
    def busy(self) -> bool:
        """Whether any lease is held."""
        return len(self._slots) > 0

    @property
    def draining(self) -> bool:
        """Whether nothing more is taken."""
        return self._draining

    @property
    def offering(self) -> Offering | None:
        """What this node offers; None before its sensors have said."""
        return self._offering

    def kept(self) -> int:
        """Return how many results wait for their master's receipt."""
        return len(self._kept)

    def free_slots(self) -> int:
        """Return the cpus that guests may still take."""
        return max(0, self._slots.free(own=False).cpus)

    def has_work(self, master: NodeId) -> bool:
        """Tell whether that node has announced work."""
        return self._asking.has_any(master)

    def guests(self, now: Mono) -> tuple[Guest, ...]:
        """Return every attempt held, own ones too."""
        return tuple(
            Guest(
                lease=attempt.lease,
                master=attempt.master,
                owner=attempt.manifest.owner,
                job=JobId(attempt.manifest.job),
                task=attempt.task,
                attempt=attempt.attempt,
                state=attempt.state,
                own=attempt.own,
                since_s=0.0 if attempt.since is None else now - attempt.since,
                progress=attempt.progress,
            )
            for attempt in self._slots
        )

    def handle(self, event: Event, now: Mono) -> list[Effect]:
        """Do what is due, then take in the event, then start and ask for what fits."""
        out: list[Effect] = []
        while (timer := self._deadlines.pop(now)) is not None:
            self._due(timer, now, out)
        self._take_in(event, now, out)
        self._fill(now, out)
        return out

    def _take_in(self, event: Event, now: Mono, out: list[Effect]) -> None:  # noqa: C901, PLR0912  one arm per event
        match event:
            case LinkUp():
                self._link_up(event, now, out)
            case LinkDown(peer=peer):
                self._link_down(peer)
            case Received(peer=peer):
                self._receive(event, peer, now, out)
            case Started(lease=lease, master=master):
                attempt = self._slots.get(master, lease)
                if attempt is not None and attempt.state == "starting":
                    attempt.state = "running"
            case Exited():
                self._exited(event, now, out)
            case Faulted(lease=lease, master=master, fault=fault, detail=detail):
                attempt = self._slots.get(master, lease)
                if attempt is not None:
                    self._end(attempt, fault, now, out)
                    self._return(master, [ReturnItem(lease, fault, detail[:500])], out)
                    self._asking.strike(master, now)
            case Progressed(lease=lease, master=master, progress=progress):
                attempt = self._slots.get(master, lease)
                if attempt is not None and progress != attempt.progress:
                    attempt.progress = max(-1, min(1000, progress))
                    if ("progress", master) not in self._deadlines:
                        self._tell_progress(master, now, out)
            case Offering():
                self._offer(event, now, out)
            case Drain(now=at_once):
                self._drain(now, out, at_once=at_once)
            case (
                Tick()
                | AddressSeen()
                | DialFailed()
                | Submitted()
                | CancelAsked()
                | Collected()
                | CollectFailed()
                | Delivered()
                | DeliverFailed()
                | BanAsked()
            ):
                pass
            case _:
                assert_never(event)

    def _receive(self, event: Received, peer: NodeId, now: Mono, out: list[Effect]) -> None:
        master = self._masters.get(peer)
        if master is None:
            out.append(Drop(peer=peer, reason="not linked"))
            return
        match event.message:
            case HasWork() as message:
                # Fair shares are counted by owner: nobody speaks for more owners than its certificate names.
                if "submit" not in master.caps or any(owner != master.owner for owner in message.owners):
                    out.append(Drop(peer=peer, reason="work that it may not offer"))
                else:
                    self._asking.has_work(peer, message)
            case Granted() as message:
                self._granted(master, message, now, out)
            case Nothing() as message:
                self._asking.nothing(peer, message)
            case Cancel(leases=leases):
                for lease in leases:
                    self._cancel(peer, lease, now, out)
            case Receipted(receipt=raw):
                self._receipted(peer, raw, out)
            case (
                ProfileIs()
                | Holding()
                | Request()
                | Return()
                | Heartbeat()
                | ResultReady()
                | Peers()
                | Bans()
                | Leaving()
            ):
                pass
            case _:
                assert_never(event.message)

    # -- links --------------------------------------------------------------------------------------------------------

    def _link_up(self, event: LinkUp, now: Mono, out: list[Effect]) -> None:
        peer = event.peer
        self._link_down(peer)
        self._masters[peer] = grants.Master(peer, event.owner, event.caps)
        if "submit" in event.caps:
            self._asking.linked(peer)
            self._asking.set_full(peer, full=self._kept.full(peer))
        returning = self._returning.pop(peer, {})
        held = [attempt.lease for attempt in self._slots.of(peer)]
        kept = self._kept.leases(peer)
        leases = (*held, *returning, *kept)
        if "submit" not in event.caps and not leases:
            return
        out.append(Send(peer=peer, message=Holding(leases=leases[:LEASES_MAX])))
        self._tell_profile(peer, out)
        self._return(peer, returning.values(), out)
        self._kept.linked(peer, now)
        if kept:
            self._send_kept(peer, kept, now, out)
        if leases:
            self._deadlines.set(("beat", peer), Mono(now + self._schedule.heartbeat_s))

    def _link_down(self, peer: NodeId) -> None:
        self._masters.pop(peer, None)
        self._asking.gone(peer)
        self._deadlines.cancel(("beat", peer))
        self._deadlines.cancel(("progress", peer))
        self._deadlines.cancel(("resend", peer))

    def _tell_profile(self, peer: NodeId, out: list[Effect]) -> None:
        """Tell a node that may give work what is offered to it."""
        if self._offering is None or "submit" not in self._masters[peer].caps:
            return
        profile = self._offering.own if peer == self._identity.node else self._offering.profile
        if self._draining:
            profile = msgspec.structs.replace(profile, accepts=False, reason="the node is going down")
        out.append(Send(peer=peer, message=ProfileIs(profile=profile)))

    # -- grants -------------------------------------------------------------------------------------------------------

    def _granted(self, master: grants.Master, message: Granted, now: Mono, out: list[Effect]) -> None:
        try:
            grant = grants.open_grant(message, master, self._identity)
            manifest = grants.manifest_of(grant, message, master, self._identity, self._wall(now))
        except Reject as reject:
            out.append(Drop(peer=master.node, reason=reject.reason, close=True))
            return
        asked = self._asking.answer(master.node, grant.nonce)
        if asked is None:
            self._decline(master, grant, grants.Declined("late", ""), out)
            return
        if len(grant.items) > asked.tasks_max:
            out.append(Drop(peer=master.node, reason="grant: more than was asked for", close=True))
            return
        verdict = manifest
        if isinstance(verdict, Manifest):
            verdict = self._admit(grant, verdict, asked, now)
        if isinstance(verdict, grants.Declined):
            self._decline(master, grant, verdict, out)
            if verdict.fault != "no-manifest":
                self._asking.useless(asked)
            return
        self._accept(verdict, grant, message, asked, now, out)

    def _admit(self, grant: Grant, manifest: Manifest, asked: Asked, now: Mono) -> Manifest | grants.Declined:
        """Tell whether a genuine grant may run here now."""
        offering = self._offering
        assert offering is not None, "asked before there was an offer"
        if self._wall(now) > grant.expires + trust.SKEW_MS:
            return grants.Declined("late", "the grant has expired (or a clock is wrong)")
        reason = refusal(manifest, offering.own if asked.own else offering.profile, self._identity.node, own=asked.own)
        return grants.Declined("refused", reason[:500]) if reason else manifest

    def _accept(
        self, manifest: Manifest, grant: Grant, message: Granted, asked: Asked, now: Mono, out: list[Effect]
    ) -> None:
        key = grants.open_key(grant, manifest, self._identity)
        offering = self._offering
        assert offering is not None, "asked before there was an offer"
        master = self._masters[asked.master]
        if isinstance(key, grants.Declined):
            self._decline(master, grant, key, out)
            self._asking.useless(asked)
            return
        sandbox = level(manifest, offering.own if asked.own else offering.profile, own=asked.own)
        assert sandbox is not None, "refused before"
        known = any(attempt.manifest.job == grant.job for attempt in self._slots.of(master.node))
        mean_s = self._asking.mean_s(JobId(grant.job), manifest.owner)
        inline = message.blobs
        for item in grant.items:
            if self._slots.get(master.node, item.lease) is not None:
                continue
            attempt = Attempt(
                master=master.node,
                lease=item.lease,
                manifest=manifest,
                task=item.task,
                attempt=item.attempt,
                key=key,
                own=asked.own,
                sandbox=sandbox,
                inline=inline,
            )
            inline = ()
            self._slots.add(attempt)
            self._deadlines.set(("ahead", (master.node, item.lease)), Mono(now + self._patience_s))
            if not asked.own:
                self._fairness.charge((master.node, item.lease), manifest.owner, manifest.resources.cpus, mean_s)
        if ("beat", master.node) not in self._deadlines:
            self._deadlines.set(("beat", master.node), Mono(now + self._schedule.heartbeat_s))
        self._fill_slots(now, out)
        waits = self._slots.get(master.node, grant.items[-1].lease)
        if not known and waits is not None and waits.state == "waiting":
            out.append(Fetch(master=master.node, job=JobId(grant.job), blobs=manifest.body + manifest.blobs))

    @property
    def _patience_s(self) -> float:
        return max(PATIENCE * self._schedule.ahead_s, self._schedule.request_s)

    def _decline(self, master: grants.Master, grant: Grant, verdict: grants.Declined, out: list[Effect]) -> None:
        """Hand back what was not taken; what is held already stays, in case the grant came twice."""
        items = [
            ReturnItem(item.lease, verdict.fault, verdict.detail)
            for item in grant.items
            if self._slots.get(master.node, item.lease) is None and not self._kept.has(master.node, item.lease)
        ]
        self._return(master.node, items, out)

    # -- attempts -----------------------------------------------------------------------------------------------------

    def _fill(self, now: Mono, out: list[Effect]) -> None:
        """Start what fits, then ask for more."""
        self._fill_slots(now, out)
        if self._offering is None or self._draining:
            return
        for own in (True, False):
            if not own and not (self._offering.profile.accepts and "work" in self._identity.caps):
                continue
            waiting_s = sum(
                self._asking.mean_s(JobId(attempt.manifest.job), attempt.manifest.owner)
                for attempt in self._slots.waiting(own=own)
            )
            free = self._slots.free(own=own)
            slots = self._slots.room[own].cpus
            for master, request in self._asking.plan(free, slots, waiting_s, now, own=own):
                out.append(Send(peer=master, message=request))

    def _fill_slots(self, now: Mono, out: list[Effect]) -> None:
        for own in (True, False):
            while (attempt := self._slots.next(own=own)) is not None:
                self._start(attempt, now, out)

    def _start(self, attempt: Attempt, now: Mono, out: list[Effect]) -> None:
        self._slots.start(attempt, now)
        self._deadlines.cancel(("ahead", (attempt.master, attempt.lease)))
        if not attempt.own:
            self._fairness.occupy((attempt.master, attempt.lease), now)
        manifest = attempt.manifest
        job = JobId(manifest.job)
        out.append(
            Start(
                lease=attempt.lease,
                master=attempt.master,
                owner=manifest.owner,
                job=job,
                task=attempt.task,
                attempt=attempt.attempt,
                tasks=manifest.tasks,
                key=attempt.key,
                reply=manifest.reply,
                body=manifest.body,
                blobs=manifest.blobs,
                inline=attempt.inline,
                resources=manifest.resources,
                limits=manifest.limits,
                sandbox=attempt.sandbox,
                own=attempt.own,
            )
        )
        taken = GuestTaken(lease=attempt.lease, master=attempt.master, owner=manifest.owner, job=job, task=attempt.task)
        out.append(Emit(notice=taken))

    def _end(self, attempt: Attempt, reason: str, now: Mono, out: list[Effect]) -> float:
        """Hold the lease no longer; return how long its slot was taken, in seconds."""
        self._slots.remove(attempt)
        self._deadlines.cancel(("ahead", (attempt.master, attempt.lease)))
        if not attempt.own:
            self._fairness.free((attempt.master, attempt.lease), now)
        if attempt.since is None:
            return 0.0
        ended = GuestEnded(
            lease=attempt.lease,
            master=attempt.master,
            job=JobId(attempt.manifest.job),
            task=attempt.task,
            reason=reason,
        )
        out.append(Emit(notice=ended))
        return now - attempt.since

    def _exited(self, event: Exited, now: Mono, out: list[Effect]) -> None:
        attempt = self._slots.get(event.master, event.lease)
        if attempt is None or attempt.state == "waiting":
            return
        manifest = attempt.manifest
        took_s = self._end(attempt, event.outcome.reason, now, out)
        self._asking.ended(event.master, JobId(manifest.job), manifest.owner, took_s)
        # Before the record: the slot need not stand empty until the result is durable.
        self._fill(now, out)
        item = ResultItem(
            job=manifest.job,
            task=attempt.task,
            attempt=attempt.attempt,
            lease=event.lease,
            outcome=event.outcome,
            sandbox=_LEVELS[event.sandbox],
            key=event.key,
            body=event.body,
            blobs=event.blobs,
        )
        self._kept.keep(event.master, item, now)
        self._asking.set_full(event.master, full=self._kept.full(event.master))
        out.append(Record(row=ResultKept(lease=event.lease, master=event.master, item=item)))
        if event.master in self._masters:
            self._send_kept(event.master, (event.lease,), now, out)

    def _cancel(self, peer: NodeId, lease: LeaseId, now: Mono, out: list[Effect]) -> None:
        """Forget a lease of that master, whatever has become of it here."""
        attempt = self._slots.get(peer, lease)
        if attempt is not None:
            if attempt.state != "waiting":
                out.append(Kill(lease=lease, master=peer, reason="cancelled"))
            self._end(attempt, "cancelled", now, out)
        else:
            self._release(peer, lease, out)

    def _release(self, peer: NodeId, lease: LeaseId, out: list[Effect]) -> None:
        if self._kept.release(peer, lease):
            self._asking.set_full(peer, full=self._kept.full(peer))
            out.append(Record(row=ResultReleased(lease=lease, master=peer)))
            out.append(Release(lease=lease, master=peer))

    def _receipted(self, peer: NodeId, raw: bytes, out: list[Effect]) -> None:
        try:
            receipt = sign.open_signed(raw, Receipt, peer)
        except Reject as reject:
            out.append(Drop(peer=peer, reason=reject.reason, close=True))
            return
        if (receipt.mesh, receipt.node, receipt.to) != (self._identity.mesh, peer, self._identity.node):
            out.append(Drop(peer=peer, reason="receipt: not between these two nodes", close=True))
            return
        for item in receipt.items:
            self._release(peer, item.lease, out)

    def _offer(self, event: Offering, now: Mono, out: list[Effect]) -> None:
        if event == self._offering:
            return
        self._offering = event
        self._slots.room = {False: offered(event.profile), True: offered(event.own)}
        for peer in self._masters:
            self._tell_profile(peer, out)
        for own, profile in ((False, event.profile), (True, event.own)):
            unwelcome = [
                attempt
                for attempt in self._slots.waiting(own=own)
                if refusal(attempt.manifest, profile, self._identity.node, own=own)
            ]
            self._hand_back(unwelcome, "evicted", now, out)

    def _drain(self, now: Mono, out: list[Effect], *, at_once: bool) -> None:
        if not self._draining:
            self._draining = True
            self._asking.stop()
            for peer in self._masters:
                self._tell_profile(peer, out)
        self._hand_back(
            [attempt for attempt in self._slots if at_once or attempt.state == "waiting"], "draining", now, out
        )

    def _hand_back(self, attempts: Iterable[Attempt], fault: Fault, now: Mono, out: list[Effect]) -> None:
        """End these attempts and return their leases, master by master."""
        items: dict[NodeId, list[ReturnItem]] = {}
        for attempt in tuple(attempts):
            if attempt.state != "waiting":
                out.append(Kill(lease=attempt.lease, master=attempt.master, reason=fault))
            self._end(attempt, fault, now, out)
            items.setdefault(attempt.master, []).append(ReturnItem(attempt.lease, fault))
        for master, returned in items.items():
            self._return(master, returned, out)

    # -- telling masters ----------------------------------------------------------------------------------------------

    def _return(self, master: NodeId, items: Iterable[ReturnItem], out: list[Effect]) -> None:
        """Say that leases are handed back, now or after the next link-up."""
        items = tuple(items)
        if master not in self._masters:
            self._returning.setdefault(master, {}).update({item.lease: item for item in items})
            return
        parts = (items[first : first + ITEMS_MAX] for first in range(0, len(items), ITEMS_MAX))
        out.extend(Send(peer=master, message=Return(items=part)) for part in parts)

    def _send_kept(self, master: NodeId, leases: Iterable[LeaseId], now: Mono, out: list[Effect]) -> None:
        out.extend(Send(peer=master, message=message) for message in self._kept.messages(master, leases))
        if ("resend", master) not in self._deadlines and self._kept.leases(master):
            self._deadlines.set(("resend", master), Mono(now + RESEND_S))

    def _tell_progress(self, master: NodeId, now: Mono, out: list[Effect]) -> None:
        if master not in self._masters:
            return
        news = [attempt for attempt in self._slots.of(master) if attempt.progress != attempt.told]
        if news:
            self._beat(master, [self._beat_of(attempt) for attempt in news], out)
            self._deadlines.set(("progress", master), Mono(now + PROGRESS_S))

    def _heartbeat(self, master: NodeId, now: Mono, out: list[Effect]) -> None:
        """Renew every lease of that master that may still be renewed; end the beat when there is none."""
        attempts = [
            attempt
            for attempt in self._slots.of(master)
            if attempt.since is None or now < attempt.since + attempt.manifest.limits.time_s + RENEW_GRACE_S
        ]
        beats = [self._beat_of(attempt) for attempt in attempts]
        beats += [Beat(lease, running=False) for lease in self._kept.renewed(master, now)]
        self._beat(master, beats, out)
        if self._slots.of(master) or beats:
            self._deadlines.set(("beat", master), Mono(now + self._schedule.heartbeat_s))

    def _beat_of(self, attempt: Attempt) -> Beat:
        attempt.told = attempt.progress
        return Beat(attempt.lease, attempt.state != "waiting", attempt.progress)

    def _beat(self, master: NodeId, beats: list[Beat], out: list[Effect]) -> None:
        parts = (tuple(beats[first : first + LEASES_MAX]) for first in range(0, len(beats), LEASES_MAX))
        out.extend(Send(peer=master, message=Heartbeat(beats=part)) for part in parts)

    # -- deadlines ----------------------------------------------------------------------------------------------------

    def _due(self, timer: Timer, now: Mono, out: list[Effect]) -> None:
        match timer:
            case ("request", nonce):
                self._asking.lapse(nonce, now)
            case ("quiet", master):
                self._asking.unquiet(master)
            case ("beat", master):
                self._heartbeat(master, now, out)
            case ("progress", master):
                self._tell_progress(master, now, out)
            case ("resend", master):
                self._send_kept(master, self._kept.due(master, now), now, out)
            case ("ahead", (master, lease)):
                attempt = self._slots.get(master, lease)
                assert attempt is not None, "waits, but is not held"
                self._asking.grown(master, JobId(attempt.manifest.job))
                self._hand_back([attempt], "late", now, out)
            case _:
                assert_never(timer)

    def check(self) -> None:
        """Assert the invariants of everything that the worker keeps."""
        self._slots.check()
        self._asking.check()
        self._kept.check()
        self._fairness.check()
        for attempt in self._slots:
            key = (attempt.master, attempt.lease)
            assert (attempt.state == "waiting") == (("ahead", key) in self._deadlines), "a wait without an end"
            assert attempt.state == "waiting" or attempt.since is not None, "runs, but since when?"
            linked = attempt.master in self._masters
            assert not linked or ("beat", attempt.master) in self._deadlines, "a lease that nobody renews"
