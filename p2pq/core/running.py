"""The half of a worker that runs attempts: what starts in which slot, what room is asked for, what comes of what ended."""

from collections.abc import Callable, Iterable
from random import Random
from typing import Final

from msgspec.structs import replace

from p2pq.core import effects as fx
from p2pq.core import events as ev
from p2pq.core.asking import Asking, Timer
from p2pq.core.deadlines import Deadlines
from p2pq.core.fairness import Means, accounts
from p2pq.core.identity import Identity
from p2pq.core.records import Restored, ResultKept
from p2pq.core.reports import Reports
from p2pq.core.slots import Attempt, Key, Room, Slots
from p2pq.core.stillness import Stillness
from p2pq.core.waking import Waking
from p2pq.model.config import ScheduleSettings
from p2pq.model.ids import JobId, Mono, NodeId, Wall
from p2pq.model.job import Fault
from p2pq.model.notice import GuestEnded, GuestTaken
from p2pq.model.owner import Verdict
from p2pq.wire import messages as msg

TRAIN_S: Final = 0.1
"""Own attempts that are known to be short go to a slot together, about so much work at a time: to tell of each alone takes longer
than it runs."""
TRAIN_MAX: Final = 64
"""Attempts at most that go together."""
SHORTEST_S: Final = 1e-3
DETAIL_CHARS_MAX: Final = 500
PATIENCE: Final = 4
"""A lease ahead that waits this many times ``ahead_s`` is handed back: what runs before it is longer than thought."""


class Running:
    """The attempts that this node holds, and the room that they take."""

    def __init__(
        self,
        identity: Identity,
        schedule: ScheduleSettings,
        restored: Restored,
        rng: Random,
        entropy: Callable[[int], bytes],
        wall: Callable[[Mono], Wall],
    ) -> None:
        """Hold nothing yet but the results kept by an earlier life."""
        self._identity, self._schedule = identity, schedule
        self._wall = wall
        self._deadlines: Deadlines[Timer] = Deadlines()
        self._accounts = accounts(schedule.fair_scale_s, schedule.fairness)
        self._means = Means()
        self._asking = Asking(identity.node, schedule, self._accounts, self._means, self._deadlines, rng, entropy)
        self._slots = Slots()
        self._reports = Reports(identity, schedule, restored, self._slots, self._asking, self._deadlines)
        self._stillness = Stillness(self._accounts)
        self._waking = Waking(
            self._slots, self._stillness, self._asking, self._deadlines, self._reports.masters, entropy
        )
        self._machine: ev.Offering | None = None
        """What this machine can offer."""
        self._verdict = Verdict()
        self._offering: ev.Offering | None = None
        """What it offers: that, as far as its owner lets guests have it."""
        self._draining = False

    @property
    def _patience_s(self) -> float:
        return max(PATIENCE * self._schedule.ahead_s, self._schedule.request_s)

    def _fill(self, now: Mono, out: list[fx.Effect]) -> None:
        """Start what fits, then ask for more."""
        freed = self._asking.has_turn and self._slots.free(own=False).cpus > 0
        self._fill_slots(now, out)
        if freed and (left := self._slots.free(own=False)).cpus <= 0:
            # What waited has the slot; whoever's turn it is has the next one, and none stands empty meanwhile.
            self._ask(Room(1, left.memory_mb, left.gpus), now, out, own=False)
        for own in (True, False):
            self._ask(self._slots.spare(own=own), now, out, own=own)

    def _ask(self, free: Room, now: Mono, out: list[fx.Effect], *, own: bool) -> None:
        if self._offering is None or self._draining:
            return
        self._asking.lately.take_in(self._slots.near, now)
        if not own and not (self._offering.profile.accepts and "work" in self._identity.caps):
            return
        waiting_s, slots = self._slots.waiting_s(own=own), self._slots.room[own].cpus
        for master, request in self._asking.plan(free, slots, waiting_s, now, own=own):
            claimed = self._reports.masters[master].claimed
            out.append(fx.Send(peer=master, message=replace(request, owner=claimed)))

    def _fill_slots(self, now: Mono, out: list[fx.Effect]) -> None:
        for own in (True, False):
            while (attempt := self._slots.next(own=own)) is not None:
                self._start(self._train(attempt), now, out)

    def _train(self, first: Attempt) -> tuple[Attempt, ...]:
        """Return what starts with an attempt, in its slot."""
        mean_s = self._means.get(_run_of(first))
        limit = 1 if mean_s is None else min(TRAIN_MAX, int(TRAIN_S / max(mean_s, SHORTEST_S)))
        return (first,) if limit <= 1 else self._slots.behind(first, limit)

    def _start(self, attempts: tuple[Attempt, ...], now: Mono, out: list[fx.Effect]) -> None:
        self._slots.start(attempts, now)
        starts = tuple(attempt.order() for attempt in attempts)
        out.append(starts[0] if len(starts) == 1 else fx.Train(starts=starts))
        self._occupy(attempts[0], now)
        for attempt in attempts:
            self._deadlines.cancel(("ahead", (attempt.master, attempt.lease)))
            job, lease, master = attempt.manifest, attempt.lease, attempt.master
            taken = GuestTaken(lease=lease, master=master, owner=job.owner, job=JobId(job.job), task=attempt.task)
            out.append(fx.Emit(notice=taken))

    def _occupy(self, attempt: Attempt, now: Mono) -> None:
        """Let its owner be charged for the slot from now on: of a train the first that has not ended, and no other."""
        if not attempt.own:
            self._accounts[attempt.far].occupy((attempt.master, attempt.lease), now)

    def _vacated(self, attempt: Attempt | None, now: Mono) -> None:
        """An attempt needs its slot no longer, though its end is still to come."""
        if attempt is not None and self._slots.vacate(attempt, now) and not attempt.own:
            self._accounts[attempt.far].vacate((attempt.master, attempt.lease), now)

    def _end(self, attempt: Attempt, reason: str, now: Mono, out: list[fx.Effect]) -> float:
        """Hold the lease no longer; return how long its slot was taken, in seconds."""
        self._stillness.settle(attempt, now)
        self._slots.remove(attempt)
        self._deadlines.cancel(("ahead", (attempt.master, attempt.lease)))
        if not attempt.own:
            self._accounts[attempt.far].free((attempt.master, attempt.lease), now)
        if attempt.since is None:
            return 0.0
        lease, master, job = attempt.lease, attempt.master, JobId(attempt.manifest.job)
        ended = GuestEnded(lease=lease, master=master, job=job, task=attempt.task, reason=reason)
        out.append(fx.Emit(notice=ended))
        return attempt.ran_s(now)

    def _exited(
        self,
        exits: tuple[ev.Exited, ...],
        back: tuple[Key, ...],
        now: Mono,
        out: list[fx.Effect],
        *,
        apart: bool = False,
    ) -> None:
        """Attempts ended, and perhaps some that were to run after them in the same slot do not run there."""
        ended: list[tuple[Attempt, ev.Exited]] = []
        took_s = 0.0
        for event in exits:
            attempt = self._slots.get(event.master, event.lease)
            if attempt is not None and attempt.state != "waiting":
                took_s = max(took_s, self._end(attempt, event.outcome.reason, now, out))
                ended.append((attempt, event))
        for attempt, event in ended:
            if (following := self._slots.next_of(attempt.train, now)) is not None:
                self._occupy(following, now)
            if event.outcome.reason != "saved":  # which says nothing about how long the job's tasks are
                job = JobId(attempt.manifest.job)
                each_s = took_s / len(ended)
                self._means.learn(_run_of(attempt), event.outcome.run_ms / 1000)
                self._asking.ended(event.master, job, attempt.manifest.owner, each_s, ok=event.outcome.ok)
        self._put_back(back, now, out, apart=apart)
        # Before the record: the slot need not stand empty until the result is durable.
        self._fill(now, out)
        kept: list[tuple[ResultKept, bytes]] = []
        for attempt, event in ended:
            item = attempt.result(event)
            if event.outcome.reason == "saved" and not item.checkpoint:
                self._reports.hand_back(
                    event.master, [msg.ReturnItem(event.lease, attempt.fault, attempt.detail[:DETAIL_CHARS_MAX])], out
                )
            else:
                kept.append((attempt.kept(item, self._wall(now)), attempt.grant))
        if kept:
            self._reports.results(kept, now, out)

    def _put_back(self, back: tuple[Key, ...], now: Mono, out: list[fx.Effect], *, apart: bool) -> None:
        """What has not begun in its slot, where something takes longer than was thought, waits for the next one."""
        held = [
            attempt for key in back if (attempt := self._slots.get(*key)) is not None and attempt.state == "starting"
        ]
        together = [attempt for attempt in held if attempt.train]
        self._slots.put_back(together)
        for attempt in together:
            if not attempt.own:
                self._accounts[attempt.far].vacate((attempt.master, attempt.lease), now)
        waiting = [attempt for attempt in held if attempt.state == "waiting"]
        for attempt in waiting:
            attempt.apart = attempt.apart or apart
            self._deadlines.set(("ahead", (attempt.master, attempt.lease)), Mono(now + self._patience_s))
        if self._draining:
            self._hand_back(waiting, "draining", now, out)
        elif self._verdict.stance != "run":
            guests = [attempt for attempt in waiting if not attempt.own]
            self._hand_back(guests, "evicted", now, out, self._verdict.reason)

    def _hand_back(
        self, attempts: Iterable[Attempt], fault: Fault, now: Mono, out: list[fx.Effect], detail: str = ""
    ) -> None:
        """End these attempts and return their leases, master by master; ``detail`` says for people why."""
        items: dict[NodeId, list[msg.ReturnItem]] = {}
        for attempt in tuple(attempts):
            if attempt.state != "waiting":
                out.append(fx.Kill(lease=attempt.lease, master=attempt.master, reason=fault, detail=detail))
            self._end(attempt, fault, now, out)
            items.setdefault(attempt.master, []).append(msg.ReturnItem(attempt.lease, fault, detail[:DETAIL_CHARS_MAX]))
        for master, returned in items.items():
            self._reports.hand_back(master, returned, out)


def _run_of(attempt: Attempt) -> tuple[str, bytes]:
    """Return what the mean run time of a job's attempts is kept by: what a slot is taken for longer goes together in a train."""
    return "run", attempt.manifest.job
