"""The master: jobs in, grants out, results in, exactly one of which settles each task.

Workers pull: a request is answered by one grant (of one job) or by Nothing. Results are accepted by lease only, which is
what makes duplicates, late results and forgotten attempts harmless.
"""

from collections.abc import Iterable
from typing import assert_never

import msgspec

from p2pq.core import effects as fx
from p2pq.core import events as ev
from p2pq.core import records
from p2pq.core.clusters import Cluster
from p2pq.core.crew import Hand
from p2pq.core.granting import MANIFESTS_MAX
from p2pq.core.identity import Identity
from p2pq.core.jobs import Job
from p2pq.core.leases import Lease
from p2pq.core.placement import JobSnapshot, NameOf, TaskSnapshot, WorkerSnapshot, why
from p2pq.core.prekeys import open_card
from p2pq.core.results import Results
from p2pq.core.through import cluster_of
from p2pq.errors import Reject
from p2pq.model import notice
from p2pq.model.config import ScheduleSettings
from p2pq.model.ids import JobId, LeaseId, Mono, NodeId, Wall, short
from p2pq.model.job import Fault
from p2pq.wire import messages as msg
from p2pq.wire import seal, sign, trust
from p2pq.wire.objects import Manifest, ResultItem


class Queue(Results):
    """The jobs of this node and the leases on their tasks."""

    def __init__(  # noqa: PLR0913, PLR0917  what the world gives is exactly this much
        self,
        identity: Identity,
        settings: ScheduleSettings,
        restored: records.Restored,
        entropy: seal.Entropy,
        now: Mono,
        wall: Wall,
        is_banned: trust.IsBanned,
    ) -> None:
        """Begin a life with a new epoch; what was live is live again. The first ``handle`` says so to the store.

        Raises:
            Reject: a restored manifest is not this node's: the store belongs to another key.
        """
        super().__init__(identity, settings, restored, entropy, now, wall)
        self._is_banned = is_banned
        self._began = now

    # -- the machine ----------------------------------------------------------------------------------------------------

    @property
    def deadline(self) -> Mono | None:
        """When to call ``handle`` at the latest."""
        if self._out:
            return self._began
        instants = (self._book.deadline, self._overflow.deadline, self._receipts_at)
        return min((at for at in instants if at is not None), default=None)

    def handle(self, event: ev.Event, now: Mono) -> list[fx.Effect]:
        """Fire what is due, take the event in, and return what is to be done."""
        if isinstance(event, ev.Woke):
            self._book.leases.slept(event.slept_s if event.counted else 0.0, now)
        self._revoke(self._book.fire(now))
        self._take_in(event, now)
        return self._flush(now)

    def _take_in(self, event: ev.Event, now: Mono) -> None:
        match event:
            case ev.Tick():
                if (wall := event.wall) is not None:
                    self._clock.rebase(now, wall)
                    self._crew.expel(lambda cert: wall > cert.exp + trust.SKEW_MS)
            case ev.LinkUp():
                self._link_up(event)
            case ev.LinkDown():
                self._link_down(event.peer)
            case ev.Received():
                self._received(event.peer, event.message, now)
            case ev.Submitted() | ev.CancelAsked() | ev.RetryAsked() | ev.Delivered() | ev.DeliverFailed():
                self._asked(event, now)
            case ev.Collected():
                self._collected(event, now)
            case ev.CollectFailed():
                self._collect_failed(event, now)
            case ev.Several(events=events):
                for each in events:
                    self._take_in(each, now)
            case (
                ev.Woke()
                | ev.AddressSeen()
                | ev.DialFailed()
                | ev.Misserved()
                | ev.Started()
                | ev.Vacated()
                | ev.Exited()
                | ev.TrainExited()
                | ev.Faulted()
                | ev.Progressed()
                | ev.Offering()
                | ev.OwnerIs()
                | ev.TrustAsked()
                | ev.Drain()
            ):
                pass  # for the worker and the membership, or taken in before
            case _:
                assert_never(event)

    def expel(self, subject: NodeId | str, now: Mono, why: str = "the worker is banned") -> list[fx.Effect]:
        """Take back every lease of a worker that is out, or of an owner's leaves; what is here whole already still counts."""
        gone = self._crew.expel(lambda cert: subject in {cert.sub, cert.owner})
        leases: list[Lease] = []
        if not isinstance(subject, str):
            gone = list(dict.fromkeys((*gone, subject)))
            # What leaves of a bridge have begun may go on: they take it elsewhere.
            leases = [lease for lease in self._book.leases.held(cluster_of(subject)) if lease.leaf is None]
        for node in gone:
            leases += self._book.leases.run_by(node)
        for lease in leases:
            if lease.collecting is None:
                self._book.lose(lease, "lost", why, now)
        self._revoke([lease for lease in leases if lease.leaf is not None and lease.collecting is None])
        return self._flush(now)

    def _flush(self, now: Mono) -> list[fx.Effect]:
        self._acknowledge(now)
        self._revoke(self._book.halt(now))
        self._tell(self._overflow.announce(now))
        if self._receipts_at is not None and now >= self._receipts_at:
            self._receipts_at = None
            for worker in self._crew:
                self._hand_out(worker)
        effects = self._out.copy()
        self._out.clear()
        return effects

    def _asked(
        self, event: ev.Submitted | ev.CancelAsked | ev.RetryAsked | ev.Delivered | ev.DeliverFailed, now: Mono
    ) -> None:
        """What this very node asks or reports of its own jobs."""
        match event:
            case ev.Submitted():
                manifest = sign.open_signed(event.manifest, Manifest, self._identity.node)
                row = records.JobAdded(
                    job=JobId(manifest.job),
                    manifest=event.manifest,
                    key=event.key,
                    reply_secret=event.reply_secret,
                    wall=event.wall,
                    kept=event.kept,
                    halt=event.halt,
                )
                self._book.add(row, manifest, now)
            case ev.RetryAsked():
                self._book.retry(event)
            case ev.CancelAsked():
                self._revoke(self._book.cancel(event, now))
            case ev.Delivered():
                self._book.delivered(event.job, event.task, now)
            case ev.DeliverFailed():
                self._book.deliver_failed(event, now)
            case _:
                assert_never(event)

    # -- links ----------------------------------------------------------------------------------------------------------

    def _link_up(self, link: ev.LinkUp) -> None:
        self._tell(self._overflow.join(self._crew.join(link, self._book.leases.mark)))

    def _link_down(self, peer: NodeId) -> None:
        # Its leases run on until they expire: a cable pulled for half a minute costs nothing.
        self._crew.leave(peer)
        self._overflow.leave(peer)

    def _received(  # noqa: C901, PLR0912  one arm per message
        self, peer: NodeId, message: msg.CoreMessage, now: Mono
    ) -> None:
        worker = self._crew.get(peer)
        if worker is None:
            self._drop(peer, "not linked")
            return
        match message:
            case msg.ProfileIs():
                worker.profile = message.profile
                self._crew.changed()
                if worker.works:
                    self._tell(self._overflow.wake(worker))
            case msg.Holding():
                self._holding(worker, message, now)
            case msg.Request():
                self._request(worker, message, now)
            case msg.Return():
                self._returned(worker, message.items, now)
            case msg.Heartbeat():
                self._heartbeat(peer, message.beats, now)
            case msg.ResultReady():
                self._result_ready(worker, message, now)
            case msg.Confirm(nonce=nonce, leases=leases):
                held = self._book.leases.confirm(peer, leases, now)
                self._send(peer, msg.Confirmed(nonce=nonce, leases=held))
            case msg.KeycardIs(card=card):
                try:
                    mesh = worker.link.mesh or self._identity.mesh
                    worker.rekey(open_card(card, worker.link, mesh, self._clock.at(now)))
                except Reject as reject:
                    self._drop(peer, f"keycard: {reject.reason}", close=True)
            case msg.Leaves():
                self._leaves(worker, message, now)
            case msg.Report():
                self._report(worker, message, now)
            case msg.Leaving():
                worker.leaving = True
                self._crew.changed()
            case (
                msg.HasWork()
                | msg.Granted()
                | msg.Nothing()
                | msg.Recall()
                | msg.Cancel()
                | msg.Receipted()
                | msg.Confirmed()
                | msg.Gossip()
                | msg.MasterIs()
                | msg.Parted()
                | msg.Through()
            ):
                pass  # for the worker and the membership
            case _:
                assert_never(message)

    def _holding(self, worker: Hand, message: msg.Holding, now: Mono) -> None:
        peer, named = worker.link.peer, message.leases
        holds = frozenset(named)
        self._at_home(worker, message.mandate)
        for lease in self._book.leases.held(peer):
            # A result that is being collected may already be here whole; that decides, not the worker's memory.
            if lease.id < worker.mark and lease.id not in holds and lease.collecting is None:
                # What only waited at a bridge is nobody's failure: bridges remember nothing.
                waited = worker.cluster is not None and lease.leaf is None
                fault: Fault = "recalled" if waited else "lost"
                self._book.lose(lease, fault, "the worker no longer holds it", now)
        self._heartbeat(peer, tuple(msg.Beat(lease, running=False) for lease in named), now)

    def _heartbeat(self, peer: NodeId, beats: tuple[msg.Beat, ...], now: Mono) -> None:
        over: list[LeaseId] = []
        strangers = 0
        for beat in beats:
            lease = self._book.leases.get(beat.lease)
            if lease is not None and (lease.worker == peer or self._follows(lease, peer)):
                self._book.leases.renew(lease, now, running=beat.running)
                if beat.progress not in {-1, lease.progress}:
                    lease.progress = beat.progress
                    progressed = notice.TaskProgressed(job=lease.job, task=lease.task, progress=beat.progress)
                    self._out.append(fx.Emit(notice=progressed))
                continue
            standing = self._book.leases.standing(beat.lease)
            if standing == "over":
                over.append(beat.lease)
            elif standing != "forgotten" and not self._taken_along(lease, peer):  # forgotten: its result may be adopted
                strangers += 1
        if over:
            self._send(peer, msg.Cancel(leases=tuple(over)))
        if strangers:
            self._drop(peer, "lease was never granted to it")

    def _follows(self, lease: Lease, peer: NodeId) -> bool:
        """Tell whether the worker that has a lease takes part through that peer now, which so answers for it from now on."""
        if self._crew.home(lease.runner) != peer:
            return False
        self._book.move(lease, peer)
        return True

    def _taken_along(self, lease: Lease | None, peer: NodeId) -> bool:
        """Tell whether a leaf of that cluster goes on with a lease elsewhere, which its bridge may not know yet."""
        hand = self._crew.get(peer)
        cluster = None if hand is None else hand.cluster
        return lease is not None and cluster is not None and cluster.known(lease.runner) is not None

    # -- clusters -------------------------------------------------------------------------------------------------------

    def _leaves(self, worker: Hand, message: msg.Leaves, now: Mono) -> None:
        cluster, peer = worker.cluster, worker.link.peer
        if cluster is None:
            self._drop(peer, "leaves: not of a cluster")
            return
        for node in message.gone:
            self._crew.part(cluster, NodeId(node))
        for leaf in message.leaves:
            try:
                self._crew.introduce(cluster, leaf, self._identity, self._clock.at(now), self._is_banned)
            except Reject as reject:
                self._drop(peer, f"leaf: {reject.reason}")
        if message.leaves:
            self._tell(self._overflow.wake(worker))

    def _report(self, worker: Hand, report: msg.Report, now: Mono) -> None:
        cluster, peer = worker.cluster, worker.link.peer
        if cluster is None:
            self._drop(peer, "report: not of a cluster")
            return
        self._placed(worker, cluster, report.placed, now)
        self._heartbeat(peer, report.beats, now)
        self._brought(worker, cluster, report, now)
        self._returned(worker, report.returns, now)

    def _placed(self, worker: Hand, cluster: Cluster, placed: Iterable[tuple[LeaseId, bytes]], now: Mono) -> None:
        """Take in which leaves have got which leases. Of one that is over they hear when they say that they have it.

        A leaf need not be known: it may have gone on to another bridge before this one could introduce it here.
        """
        peer = worker.link.peer
        back: list[Lease] = []
        for lease_id, node in placed:
            lease, leaf = self._book.leases.get(lease_id), NodeId(node)
            if lease is None or not (lease.worker == peer or self._follows(lease, peer)):
                continue
            if lease.collecting is not None:
                continue  # who has signed the result has had it
            if leaf in cluster.refused:
                # Its bridge may not know yet that the leaf is out, whose result would not count.
                self._drop(peer, "placed: at a worker that is out")
                self._book.lose(lease, "recalled", "it was given to a worker that is out", now)
                back.append(lease)
            else:
                self._book.place(lease, leaf, hearsay=cluster.known(leaf) is None)
        self._revoke(back)

    # -- what comes back ------------------------------------------------------------------------------------------------

    def _returned(self, worker: Hand, items: tuple[msg.ReturnItem, ...], now: Mono) -> None:
        peer = worker.link.peer
        strangers = 0
        for item in items:
            lease = self._book.leases.get(item.lease)
            if lease is not None and lease.worker == peer:
                if item.fault == "no-manifest":
                    worker.forget(lease.job)
                if lease.collecting is None:  # else its result is on the way, and that decides
                    self._book.lose(lease, item.fault, item.detail, now)
            elif lease is None:
                strangers += self._book.leases.standing(item.lease) == "unknown"
            else:
                strangers += not self._taken_along(lease, peer)
        if strangers:
            self._drop(peer, "lease was never granted to it")

    # -- for readers ----------------------------------------------------------------------------------------------------

    def jobs(self) -> list[JobSnapshot]:
        """Return the jobs that have not ended, in the order in which they came."""
        return [job.snapshot() for job in self._book.jobs.values()]

    def job(self, job_id: JobId) -> JobSnapshot | None:
        """Return one job, or None if there is none or it has ended."""
        job = self._book.jobs.get(job_id)
        return None if job is None else job.snapshot()

    def tasks(self, job_id: JobId, start: int = 0, limit: int = 100_000) -> list[TaskSnapshot]:
        """Return the job's tasks from ``start`` on, at most ``limit``; none for a job that is not open."""
        job = self._book.jobs.get(job_id)
        if job is None:
            return []
        stop = min(job.manifest.tasks, start + limit)
        return [self._book.task_snapshot(job, index) for index in range(start, stop)]

    def task_of(self, lease: LeaseId) -> tuple[JobId, int] | None:
        """Return the job and task that a live lease is for."""
        return None if (live := self._book.leases.get(lease)) is None else (live.job, live.task)

    def collecting(self, lease: LeaseId) -> ResultItem | None:
        """Return the result that is being collected under a lease; None if there is none."""
        return None if (live := self._book.leases.get(lease)) is None else live.collecting

    def workers(self, job: Job | None = None, *, later: bool = False) -> list[WorkerSnapshot]:
        """Return the linked peers that may work, as they stand with a job if one is given; ``later``: see ``Crew``."""
        book = self._book
        return self._crew.snapshots(
            book.leases,
            lambda each: book.jobs[each].ask.resources.cpus,
            lambda worker: job is not None and book.held_back(job, worker),
            later=later,
            job=None if job is None else job.id,
        )

    def why(self, job_id: JobId, index: int | None, now: Mono, name_of: NameOf = short) -> str | None:
        """Say in one sentence where an open job (or one task of it) stands; None if there is no such job or task.

        ``name_of`` tells what people call a node that is not linked.
        """
        job = self._book.jobs.get(job_id)
        if job is None or (index is not None and not 0 <= index < job.manifest.tasks):
            return None
        task = None if index is None else self._book.task_snapshot(job, index)
        workers = self.workers(job, later=self._overflow.holds(job, now))
        live = None if task is None or task.lease is None else self._book.leases.get(task.lease)
        if task is not None and live is not None and self._crew.speaker(live.runner) is None:
            task = msgspec.structs.replace(task, linked=False, via=self._crew.way_left(live.runner))
        return why(
            job.snapshot(), task, now, workers, trouble=job.trouble(), until=self._book.paused(job), name_of=name_of
        )

    def check(self) -> None:
        """Assert the invariants; they hold between any two calls of ``handle``."""
        self._book.check()
        self._overflow.check()
        self._crew.check()
        for worker in self._crew:
            assert len(worker.sent) <= MANIFESTS_MAX, "a link remembers too many manifests"
            waits = worker.cluster is not None and bool(worker.cluster.receipts)
            assert not waits or self._receipts_at is not None, "a receipt would never be said"
