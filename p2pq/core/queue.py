"""The master: jobs in, grants out, results in, exactly one of which settles each task.

Workers pull: a request is answered by one grant (of one job) or by Nothing. Results are accepted by lease only, which is
what makes duplicates, late results and forgotten attempts harmless.
"""

from typing import Final, assert_never

from p2pq.core import checkpoints, records
from p2pq.core import effects as fx
from p2pq.core import events as ev
from p2pq.core.clock import WallClock
from p2pq.core.collecting import Came, CollectingBook
from p2pq.core.crew import Crew, Hand
from p2pq.core.identity import Identity
from p2pq.core.jobs import Job
from p2pq.core.leases import Lease
from p2pq.core.overflow import Overflow
from p2pq.core.placement import JobSnapshot, TaskSnapshot, WorkerSnapshot, room, why
from p2pq.core.prekeys import open_card
from p2pq.core.signing import Signatory
from p2pq.errors import Reject
from p2pq.model import notice
from p2pq.model.config import ScheduleSettings
from p2pq.model.ids import JobId, LeaseId, Mono, NodeId, Wall
from p2pq.wire import messages as msg
from p2pq.wire import prims, seal, sign
from p2pq.wire.objects import Manifest, Result, ResultItem, Verdict

MANIFESTS_MAX: Final = 256
"""Jobs per link whose manifest is known to have been sent; beyond it the longest unused is sent again."""
RECALL_S: Final = 0.25
"""Leases are asked back at most this often."""


class Queue:
    """The jobs of this node and the leases on their tasks."""

    def __init__(
        self,
        identity: Identity,
        settings: ScheduleSettings,
        restored: records.Restored,
        entropy: seal.Entropy,
        now: Mono,
        wall: Wall,
    ) -> None:
        """Begin a life with a new epoch; what was live is live again. The first ``handle`` says so to the store.

        Raises:
            Reject: a restored manifest is not this node's: the store belongs to another key.
        """
        self._identity = identity
        self._signatory = Signatory(identity)
        self._lease_ms = round(settings.lease_s * 1000)
        self._entropy = entropy
        self._clock = WallClock(now, wall)
        self._began = now
        self._recall_at = now
        self._crew = crew = Crew(identity.node)
        self._book = CollectingBook(identity.node, settings, restored, self._clock, crew.other_is_able, crew.path, now)
        self._overflow = Overflow(identity.node, self._book, crew)
        self._out = self._book.out

    # -- the machine ----------------------------------------------------------------------------------------------------

    @property
    def deadline(self) -> Mono | None:
        """When to call ``handle`` at the latest."""
        if self._out:
            return self._began
        instants = (self._book.deadline, self._overflow.deadline)
        return min((at for at in instants if at is not None), default=None)

    def handle(self, event: ev.Event, now: Mono) -> list[fx.Effect]:
        """Fire what is due, take the event in, and return what is to be done."""
        if isinstance(event, ev.Woke):
            self._book.leases.slept(event.slept_s if event.counted else 0.0, now)
        self._revoke(self._book.fire(now))
        match event:
            case ev.Tick():
                if event.wall is not None:
                    self._clock.rebase(now, event.wall)
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
            case (
                ev.Woke()
                | ev.AddressSeen()
                | ev.DialFailed()
                | ev.Started()
                | ev.Exited()
                | ev.Faulted()
                | ev.Progressed()
                | ev.Offering()
                | ev.TrustAsked()
                | ev.Drain()
            ):
                pass  # for the worker and the membership, or taken in before
            case _:
                assert_never(event)
        return self._flush(now)

    def expel(self, worker: NodeId, now: Mono, why: str = "the worker is banned") -> list[fx.Effect]:
        """Take back every lease of a worker that is out; a result that is here whole already still counts."""
        for lease in self._book.leases.held(worker):
            if lease.collecting is None:
                self._book.lose(lease, "lost", why, now)
        return self._flush(now)

    def _flush(self, now: Mono) -> list[fx.Effect]:
        self._revoke(self._book.halt(now))
        self._tell(self._overflow.announce(now))
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

    def _revoke(self, leases: list[Lease]) -> None:
        """Tell the workers of leases that are over to stop; one that is not linked hears it when it links up."""
        by_worker: dict[NodeId, list[LeaseId]] = {}
        for lease in leases:
            by_worker.setdefault(lease.worker, []).append(lease.id)
        for worker, over in by_worker.items():
            if worker in self._crew:
                self._send(worker, msg.Cancel(leases=tuple(over)))

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
                self._holding(worker, message.leases, now)
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
            ):
                pass  # for the worker and the membership
            case _:
                assert_never(message)

    def _holding(self, worker: Hand, named: tuple[LeaseId, ...], now: Mono) -> None:
        peer = worker.link.peer
        holds = frozenset(named)
        for lease in self._book.leases.held(peer):
            # A result that is being collected may already be here whole; that decides, not the worker's memory.
            if lease.id < worker.mark and lease.id not in holds and lease.collecting is None:
                self._book.lose(lease, "lost", "the worker no longer holds it", now)
        self._heartbeat(peer, tuple(msg.Beat(lease, running=False) for lease in named), now)

    def _heartbeat(self, peer: NodeId, beats: tuple[msg.Beat, ...], now: Mono) -> None:
        over: list[LeaseId] = []
        strangers = 0
        for beat in beats:
            lease = self._book.leases.get(beat.lease)
            if lease is not None and lease.worker == peer:
                self._book.leases.renew(lease, now, running=beat.running)
                if beat.progress not in {-1, lease.progress}:
                    lease.progress = beat.progress
                    progressed = notice.TaskProgressed(job=lease.job, task=lease.task, progress=beat.progress)
                    self._out.append(fx.Emit(notice=progressed))
                continue
            standing = self._book.leases.standing(beat.lease)
            if standing == "over":
                over.append(beat.lease)
            elif standing != "forgotten":  # what it holds of those may be adopted when its result comes
                strangers += 1
        if over:
            self._send(peer, msg.Cancel(leases=tuple(over)))
        if strangers:
            self._drop(peer, "lease was never granted to it")

    # -- granting -------------------------------------------------------------------------------------------------------

    def _request(self, worker: Hand, request: msg.Request, now: Mono) -> None:
        peer = worker.link.peer
        if not worker.works:
            self._drop(peer, "no work capability")
            return
        if worker.request is not None and worker.request.nonce == request.nonce:
            self._drop(peer, "repeated request")
            return
        worker.request = request
        if self._serve(worker, request, now):
            return
        counter, wide = self._overflow.slept(worker), self._wide(worker, request, now)
        self._send(peer, msg.Nothing(nonce=request.nonce, owner=request.owner, counter=counter, wide=wide))
        self._recall(worker, request, now)

    def _serve(self, worker: Hand, request: msg.Request, now: Mono) -> bool:
        """Grant tasks that wait; where none do, second attempts of what takes too long. Return whether there were any."""
        peer = worker.link.peer
        ahead = dict(request.ahead)
        held_max = msg.LEASES_MAX - self._book.leases.count(peer)
        for again in (False, True):
            for job, left in self._overflow.jobs(worker, request.owner, now):
                if not self._crew.able(job, worker) or not (job.tail.open if again else job.may_take(peer)):
                    continue
                limit = room(job.ask.resources, request)
                if not again and not self._book.held_back(job, peer):
                    limit += max(0, ahead.get(job.id, 0))
                limit = self._book.allowance(job, peer, min(limit, request.tasks_max, held_max, left), now)
                if limit > 0 and self._grant(job, worker, request.nonce, limit, now, again=again):
                    self._overflow.took(worker, now)
                    return True
        return False

    def _wide(self, worker: Hand, request: msg.Request, now: Mono) -> tuple[int, int, int]:
        """Return what the first job that waits for more room than was offered needs, or zeros."""
        peer = worker.link.peer
        for job, _ in self._overflow.jobs(worker, request.owner, now):
            wants = job.ask.resources
            waits = job.may_take(peer) and not self._book.held_back(job, peer) and self._crew.able(job, worker)
            if waits and room(wants, request) == 0 and request.cpus:
                return wants.cpus, wants.memory_mb, wants.gpus
        return 0, 0, 0

    def _recall(self, idle: Hand, request: msg.Request, now: Mono) -> None:
        """Ask the worker that holds most more than it can run for some of that: another one is idle and nothing waits."""
        if now < self._recall_at or not request.cpus or not len(self._book.leases):
            return
        if idle.far and not self._overflow.open:
            return
        fullest, most = self._crew.fullest(idle, self._book.leases)
        if fullest is not None:
            self._recall_at = Mono(now + RECALL_S)
            self._send(fullest, msg.Recall(tasks=min(-(-most // 2), request.tasks_max)))

    def _grant(self, job: Job, worker: Hand, nonce: bytes, limit: int, now: Mono, *, again: bool) -> bool:
        """Grant up to so many attempts, if there is one that it may have; return whether that is settled by this."""
        peer = worker.link.peer
        known = job.id in worker.sent
        try:
            key = worker.sent[job.id] if known else self._seal(job, worker)
        except Reject as reject:
            self._drop(peer, f"prekey: {reject.reason}", close=True)
            return True
        give = self._book.grant_again if again else self._book.grant
        items = give(job, peer, limit, now)
        if not items:
            return False
        worker.sent.pop(job.id, None)
        worker.sent[job.id] = key
        if len(worker.sent) > MANIFESTS_MAX:
            del worker.sent[next(iter(worker.sent))]
        expires = Wall(self._clock.at(now) + self._lease_ms)
        try:
            signed = self._signatory.grant(job, peer, nonce, items, key, expires)
        except Reject as reject:
            self._book.take_back(items, f"it could not be granted: {reject.reason}", now)
            return False
        self._out.append(fx.Record(row=records.GrantKept(job=job.id, lease=items[0].lease, signed=signed)))
        manifest = b"" if known else job.raw
        handed_on = checkpoints.hand_on(job, items, worker.link, self._identity, self._signatory.key, self._entropy)
        self._send(peer, msg.Granted(grant=signed, manifest=manifest, checkpoints=handed_on))
        return True

    def _seal(self, job: Job, worker: Hand) -> bytes:
        return seal.seal(worker.link.prekey, job.key, job.digest, self._entropy)

    # -- what comes back ------------------------------------------------------------------------------------------------

    def _returned(self, worker: Hand, items: tuple[msg.ReturnItem, ...], now: Mono) -> None:
        peer = worker.link.peer
        strangers = 0
        for item in items:
            lease = self._book.leases.get(item.lease)
            if lease is not None and lease.worker == peer:
                if item.fault == "no-manifest":
                    worker.sent.pop(lease.job, None)
                if lease.collecting is None:  # else its result is on the way, and that decides
                    self._book.lose(lease, item.fault, item.detail, now)
            elif lease is not None or self._book.leases.standing(item.lease) == "unknown":
                strangers += 1
        if strangers:
            self._drop(peer, "lease was never granted to it")

    def _result_ready(self, worker: Hand, ready: msg.ResultReady, now: Mono) -> None:
        peer = worker.link.peer
        try:
            result = sign.open_signed(ready.result, Result, peer)
        except Reject as reject:
            self._drop(peer, f"result: {reject.reason}")
            return
        if (result.mesh, result.node, result.by) != (self._identity.mesh, self._identity.node, peer):
            self._drop(peer, "result: for somebody else")
            return
        late: list[LeaseId] = []
        came = Came(
            proof=records.Proof(signed=ready.result, certs=worker.link.certs),
            blobs={prims.blob_id(blob): blob for blob in ready.blobs},
        )
        for item in result.items:
            lease = self._book.leases.get(item.lease)
            standing = self._book.leases.standing(item.lease)
            if standing == "forgotten" and worker.works:
                lease = self._book.adopt(item, peer, now)
            if lease is not None:
                self._collect(peer, lease, item, came, now)
            elif standing != "unknown":
                late.append(item.lease)
                self._out.append(fx.Emit(notice=notice.LateResult(lease=item.lease, worker=peer)))
            else:
                self._drop(peer, "result: lease was never granted")
        if late:
            self._receipt(peer, late, "late")

    def _collect(self, peer: NodeId, lease: Lease, item: ResultItem, came: Came, now: Mono) -> None:
        if (lease.worker, lease.job, lease.task, lease.attempt) != (peer, item.job, item.task, item.attempt):
            self._drop(peer, "result: not of that lease")
        elif lease.collecting is None and not self._book.collect(lease, item, came, now):
            self._receipt(peer, [lease.id], "refused")

    def _collected(self, event: ev.Collected, now: Mono) -> None:
        lease = self._book.leases.get(event.lease)
        if lease is None or lease.collecting is None:
            return  # it was cancelled meanwhile
        lease.detail, lease.skipped = event.detail, event.skipped
        self._revoke(self._book.settle(lease, now))
        if lease.worker in self._crew:
            self._receipt(lease.worker, [lease.id], "settled")

    def _collect_failed(self, event: ev.CollectFailed, now: Mono) -> None:
        lease = self._book.leases.get(event.lease)
        if lease is None or lease.collecting is None:
            return  # it was cancelled meanwhile
        verdict = self._book.collect_failed(lease, event, now)
        if verdict is not None and lease.worker in self._crew:
            self._receipt(lease.worker, [lease.id], verdict)

    def _receipt(self, peer: NodeId, leases: list[LeaseId], verdict: Verdict) -> None:
        self._send(peer, msg.Receipted(receipt=self._signatory.receipt(peer, leases, verdict)))

    # -- helpers --------------------------------------------------------------------------------------------------------

    def _send(self, peer: NodeId, message: msg.CoreMessage) -> None:
        self._out.append(fx.Send(peer=peer, message=message))

    def _tell(self, told: list[tuple[NodeId, msg.HasWork]]) -> None:
        self._out += [fx.Send(peer=peer, message=message) for peer, message in told]

    def _drop(self, peer: NodeId, reason: str, *, close: bool = False) -> None:
        self._out.append(fx.Drop(peer=peer, reason=reason, close=close))

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
        )

    def why(self, job_id: JobId, index: int | None, now: Mono) -> str | None:
        """Say in one sentence where an open job (or one task of it) stands; None if there is no such job or task."""
        job = self._book.jobs.get(job_id)
        if job is None or (index is not None and not 0 <= index < job.manifest.tasks):
            return None
        task = None if index is None else self._book.task_snapshot(job, index)
        workers = self.workers(job, later=self._overflow.holds(job, now))
        return why(job.snapshot(), task, now, workers, job.trouble(), self._book.paused(job))

    def check(self) -> None:
        """Assert the invariants; they hold between any two calls of ``handle``."""
        self._book.check()
        self._overflow.check()
        for worker in self._crew:
            assert len(worker.sent) <= MANIFESTS_MAX, "a link remembers too many manifests"
