"""The worker: asks for work, holds leases, starts what fits, keeps results until their master has them.

It believes a master nothing that is not signed, asked for and about that master's own jobs. Own work (this very node is the
master) has room of its own and goes the same way.
"""

from collections.abc import Callable
from random import Random
from typing import assert_never

from msgspec.structs import replace

from p2pq.core import effects as fx
from p2pq.core import events as ev
from p2pq.core import grants
from p2pq.core.asking import Asked, Timer
from p2pq.core.identity import Identity
from p2pq.core.kept import KeptFor
from p2pq.core.prekeys import Prekeys
from p2pq.core.records import Restored
from p2pq.core.running import DETAIL_CHARS_MAX
from p2pq.core.slots import Attempt, Guest, level
from p2pq.core.ways import Voice
from p2pq.core.yielding import Yielding
from p2pq.errors import Reject
from p2pq.model.config import ScheduleSettings
from p2pq.model.ids import JobId, LeaseId, Mono, NodeId, Wall
from p2pq.model.job import Profile
from p2pq.model.owner import Verdict
from p2pq.wire import messages as msg
from p2pq.wire.objects import Grant, Manifest


class Worker(Yielding):
    """This node as a worker. Guests' work is drawn fairly; own work starts at once."""

    def __init__(  # noqa: PLR0913, PLR0917  what the node gives is exactly this much
        self,
        identity: Identity,
        schedule: ScheduleSettings,
        restored: Restored,
        rng: Random,
        entropy: Callable[[int], bytes],
        wall: Callable[[Mono], Wall],
        prekeys: Prekeys | None = None,
    ) -> None:
        """Take up the results kept by an earlier life; ask nobody before Offering."""
        super().__init__(identity, schedule, restored, rng, entropy, wall)
        self._prekeys = prekeys or Prekeys(identity, Mono(0.0), 0.0)
        self.voice: Voice = self._reports

    @property
    def deadline(self) -> Mono | None:
        """The instant at which something is due, or None."""
        return self._deadlines.next

    @property
    def busy(self) -> bool:
        """Whether any lease is held."""
        return len(self._slots) > 0

    @property
    def owes(self) -> bool:
        """Whether a linked master has yet to acknowledge a result."""
        return self._reports.owes

    @property
    def draining(self) -> bool:
        """Whether nothing more is taken."""
        return self._draining

    @property
    def offering(self) -> ev.Offering | None:
        """What this node offers; None before its self-test has said."""
        return self._offering

    @property
    def verdict(self) -> Verdict:
        """What guests may do here by the policy of this machine's owner."""
        return self._verdict

    def kept(self) -> tuple[KeptFor, ...]:
        """Return what waits for its master's receipt, by master."""
        return self._reports.kept()

    def free_slots(self) -> int:
        """Return the cpus that guests may still take."""
        return max(0, self._slots.free(own=False).cpus)

    def has_work(self, master: NodeId) -> bool:
        """Tell whether that node has announced work."""
        return self._asking.has_any(master)

    def guests(self, now: Mono) -> tuple[Guest, ...]:
        """Return every attempt held, own ones too."""
        return self._slots.guests(now)

    def handle(self, event: ev.Event, now: Mono) -> list[fx.Effect]:
        """Do what is due, then take in the event, then start and ask for what fits."""
        out: list[fx.Effect] = []
        if isinstance(event, ev.Woke):
            self._waking.woke(event, self._patience_s, now, out)
        while (timer := self._deadlines.pop(now)) is not None:
            self._due(timer, now, out)
        self._take_in(event, now, out)
        self._fill(now, out)
        return out

    def expel(self, who: NodeId | str, now: Mono) -> list[fx.Effect]:
        """Stop and forget everything of a node, or of an owner, that is out: what waits, what runs, and kept results."""
        out: list[fx.Effect] = []
        for attempt in self._slots.owned_by(who) if isinstance(who, str) else self._slots.of(who):
            if attempt.state != "waiting":
                out.append(fx.Kill(lease=attempt.lease, master=attempt.master, reason="banned"))
            self._end(attempt, "banned", now, out)
        if not isinstance(who, str):
            self._waking.forget(who)
        self._reports.expel(who, out)
        self._fill(now, out)
        return out

    def forget_old(self, before: Wall) -> list[fx.Effect]:
        """Forget results that have been kept since before that."""
        out: list[fx.Effect] = []
        self._reports.forget_old(before, out)
        return out

    def _take_in(self, event: ev.Event, now: Mono, out: list[fx.Effect]) -> None:  # noqa: C901, PLR0912  one arm per event
        match event:
            case ev.LinkUp():
                self._link_up(event, now, out)
            case ev.LinkDown(peer=peer):
                self._link_down(peer)
            case ev.Received(peer=peer):
                self._receive(event, peer, now, out)
            case ev.Started(lease=lease, master=master):
                attempt = self._slots.get(master, lease)
                if attempt is not None and attempt.state == "starting":
                    attempt.state = "running"
                    self._reports.started(master, now)
            case ev.Vacated(lease=lease, master=master):
                self._vacated(self._slots.get(master, lease), now)
            case ev.Exited():
                self._exited((event,), (), now, out)
            case ev.TrainExited(exits=exits, back=back, apart=apart):
                self._exited(exits, back, now, out, apart=apart)
            case ev.Faulted(lease=lease, master=master, fault=fault, detail=detail):
                attempt = self._slots.get(master, lease)
                if attempt is not None:
                    self._end(attempt, fault, now, out)
                    self._reports.hand_back(master, [msg.ReturnItem(lease, fault, detail[:DETAIL_CHARS_MAX])], out)
                    self._asking.strike(master, now)
            case ev.Progressed(lease=lease, master=master, progress=progress):
                attempt = self._slots.get(master, lease)
                if attempt is not None and progress != attempt.progress:
                    attempt.progress = max(-1, min(1000, progress))
                    self._reports.progress(master, now, out)
            case ev.Offering():
                self._offer(event, now, out)
            case ev.OwnerIs():
                self._yield(event, now, out)
            case ev.Drain():
                self._drain(event, now, out)
            case (
                ev.Tick()
                | ev.Woke()
                | ev.AddressSeen()
                | ev.DialFailed()
                | ev.Misserved()
                | ev.Submitted()
                | ev.RetryAsked()
                | ev.CancelAsked()
                | ev.Collected()
                | ev.CollectFailed()
                | ev.Delivered()
                | ev.DeliverFailed()
                | ev.Several()
                | ev.TrustAsked()
            ):
                pass
            case _:
                assert_never(event)

    def _receive(  # noqa: C901, PLR0912  one arm per message
        self, event: ev.Received, peer: NodeId, now: Mono, out: list[fx.Effect]
    ) -> None:
        master = self._reports.masters.get(peer)
        if master is None:
            out.append(fx.Drop(peer=peer, reason="not linked"))
            return
        match event.message:
            case msg.HasWork() as message:
                # Fair shares are counted by owner: nobody speaks for more owners than its certificate names.
                may = "submit" in master.caps
                if any(owner != master.claimed for owner in message.owners) or not (may or master.foreign):
                    out.append(fx.Drop(peer=peer, reason="work that it may not offer"))
                elif may:  # those abroad cannot know what is welcome here
                    owners = (master.owner,) * len(message.owners)
                    self._asking.has_work(peer, replace(message, owners=owners))
            case msg.Granted() as message:
                self._granted(master, message, now, out)
            case msg.Nothing() as message:
                self._asking.nothing(peer, message, self._slots.room[False], now)
            case msg.Recall(tasks=tasks):
                waiting = [each for each in self._slots.of(peer) if each.state == "waiting"]
                self._hand_back(waiting[-tasks:], "recalled", now, out)
            case msg.Cancel(leases=leases):
                for lease in leases:
                    self._cancel(peer, lease, now, out)
            case msg.Confirmed() as message:
                for attempt in self._waking.confirmed(peer, message, now, out):
                    self._cancel(peer, attempt.lease, now, out)
            case msg.Receipted(receipt=raw):
                self._reports.receipted(peer, raw, now, out)
            case (
                msg.ProfileIs()
                | msg.Holding()
                | msg.Request()
                | msg.Return()
                | msg.Heartbeat()
                | msg.ResultReady()
                | msg.Confirm()
                | msg.Gossip()
                | msg.KeycardIs()
                | msg.Leaving()
                | msg.MasterIs()
                | msg.Parted()
                | msg.Leaves()
                | msg.Report()
                | msg.Through()
            ):
                pass
            case _:
                assert_never(event.message)

    # -- links --------------------------------------------------------------------------------------------------------

    def _link_up(self, event: ev.LinkUp, now: Mono, out: list[fx.Effect]) -> None:
        self._link_down(event.peer)
        if "submit" in event.caps:
            self._asking.linked(event.peer, far=event.far)
        self._reports.link_up(event, self._offering, now, out, draining=self._draining)
        self._waking.linked(event.peer, now, out)

    def _link_down(self, peer: NodeId) -> None:
        self._asking.gone(peer)
        self._reports.link_down(peer)

    def _profile(self, *, own: bool) -> Profile:
        assert self._offering is not None, "asked before there was an offer"
        return self._offering.own if own else self._offering.profile

    # -- grants -------------------------------------------------------------------------------------------------------

    def _granted(self, master: grants.Master, message: msg.Granted, now: Mono, out: list[fx.Effect]) -> None:
        try:
            grant = grants.open_grant(message, master, self._identity)
            manifest = grants.manifest_of(grant, message, master, self._identity.node, self._wall(now))
            enclosed = grants.open_enclosed(grant, message, master, self._identity)
        except Reject as reject:
            out.append(fx.Drop(peer=master.node, reason=reject.reason, close=True))
            return
        asked = self._asking.answer(master.node, grant.nonce, now)
        if asked is None:
            self._reports.decline(master.node, grant, grants.Declined("late", ""), out)
            return
        if len(grant.items) > asked.tasks_max:
            out.append(fx.Drop(peer=master.node, reason="grant: more than was asked for", close=True))
            return
        verdict = manifest
        if isinstance(verdict, Manifest):
            wall = self._wall(now)
            verdict = grants.admit(grant, verdict, self._profile(own=asked.own), self._identity, wall, own=asked.own)
        if isinstance(verdict, grants.Declined):
            self._reports.decline(master.node, grant, verdict, out)
            if verdict.fault == "no-manifest":
                self._asking.strike(master.node, now)
            else:
                self._asking.useless(asked)
            return
        self._accept(verdict, grant, enclosed, asked, now, out)

    def _accept(
        self, manifest: Manifest, grant: Grant, enclosed: grants.Enclosed, asked: Asked, now: Mono, out: list[fx.Effect]
    ) -> None:
        key = grants.open_key(enclosed, grant, manifest, self._prekeys)
        master = self._reports.masters[asked.master]
        if isinstance(key, grants.Declined):
            self._reports.decline(master.node, grant, key, out)
            self._asking.useless(asked)
            return
        sandbox = level(manifest, self._profile(own=asked.own), own=asked.own)
        assert sandbox is not None, "refused before"
        known = any(attempt.manifest.job == grant.job for attempt in self._slots.of(master.node))
        mean_s = self._asking.mean_s(JobId(grant.job), manifest.owner)
        inline = enclosed.blobs
        fresh = [item for item in grant.items if not self._reports.known(master.node, item.lease)]
        if not fresh:
            self._asking.useless(asked)
        for item in fresh:
            attempt = Attempt(
                master=master.node,
                lease=item.lease,
                manifest=manifest,
                task=item.task,
                attempt=item.attempt,
                key=key,
                own=asked.own,
                far=asked.far,
                sandbox=sandbox,
                expected_s=mean_s,
                inline=inline,
                subs=enclosed.subs,
                grant=enclosed.grant,
                checkpoints=master.minor >= msg.CHECKPOINTS_SINCE,
                may_be_empty=master.minor >= msg.EMPTY_SINCE,
            )
            inline = ()
            if reason := grants.resume(attempt, enclosed, master, self._prekeys):
                out.append(fx.Drop(peer=master.node, reason=reason))
            self._slots.add(attempt)
            self._deadlines.set(("ahead", (master.node, item.lease)), Mono(now + self._patience_s))
            if not asked.own:
                fairness = self._accounts[asked.far]
                fairness.charge((master.node, item.lease), manifest.owner, manifest.resources.cpus, mean_s)
        self._reports.taken(master, now, new=bool(fresh))
        self._fill_slots(now, out)
        waits = self._slots.get(master.node, grant.items[-1].lease)
        if not known and waits is not None and waits.state == "waiting":
            out.append(fx.Fetch(master=master.node, job=JobId(grant.job), blobs=manifest.body + manifest.blobs))

    # -- attempts -----------------------------------------------------------------------------------------------------

    def _cancel(self, peer: NodeId, lease: LeaseId, now: Mono, out: list[fx.Effect]) -> None:
        """Forget a lease of that master, whatever has become of it here."""
        attempt = self._slots.get(peer, lease)
        if attempt is not None:
            if attempt.state != "waiting":
                out.append(fx.Kill(lease=lease, master=peer, reason="cancelled"))
            self._end(attempt, "cancelled", now, out)
        else:
            self._reports.release(peer, lease, out)

    # -- deadlines ----------------------------------------------------------------------------------------------------

    def _due(self, timer: Timer, now: Mono, out: list[fx.Effect]) -> None:
        match timer:
            case ("request", nonce):
                self._asking.lapse(nonce, now)
            case ("kept", _):
                pass  # what is free now is asked for at the end of this turn
            case ("quiet", master):
                self._asking.unquiet(master)
            case ("beat", master):
                self._reports.heartbeat(master, now, out)
            case ("progress", master):
                self._reports.progress(master, now, out)
            case ("resend", master):
                self._reports.resend(master, now, out)
            case ("confirm", master):
                self._waking.lapse(master, now, out)
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
        self._reports.check()
        self._waking.check()
        for attempt in self._slots:
            key = (attempt.master, attempt.lease)
            assert (attempt.state == "waiting") == (("ahead", key) in self._deadlines), "a wait without an end"
            assert attempt.state == "waiting" or attempt.since is not None, "runs, but since when?"
            assert attempt.still is None or attempt.since is not None, "stands still without a slot"
            packing = attempt.state == "packing"
            assert packing == (attempt.left is not None), "has left its slot, or has not"
            assert (attempt.still is None) != (attempt.doubted or attempt.held) or packing or attempt.since is None, (
                "stands still for nothing"
            )
        self.check_guests()
