"""Own network first: workers behind bridges are offered what the free slots of a master's own network do not take.

A task is left over where more wait than there are free slots in the own network, once it has waited for ``HOLD_S``, and at once
where nobody there is able to run it: so whatever waits is offered everywhere in the end. The way over the bridges opens at once
where more than another round of all slots here is left over, else after ``HOLD_S``, and closes when nothing was left over
for ``CALM_S``: small jobs around what the own network can take do not open and close it again and again.
"""

from collections.abc import Iterator
from typing import Final

from p2pq.core.announcer import Announcer
from p2pq.core.book import Book
from p2pq.core.crew import Crew, Hand
from p2pq.core.jobs import Job
from p2pq.core.placement import Ask
from p2pq.core.tails import LOOK_MAX
from p2pq.model.ids import JobId, Mono, NodeId
from p2pq.wire.messages import HasWork
from p2pq.wire.objects import ITEMS_MAX

HOLD_S: Final = 0.25
"""So long the own network has a job to itself; its workers take what they can within milliseconds."""
CALM_S: Final = 5.0
"""So long after something was left over last, workers behind bridges may still ask."""

Told = list[tuple[NodeId, HasWork]]


class Overflow:
    """Whom a master tells of its work, and how much of it a worker may have."""

    def __init__(self, me: NodeId, book: Book, crew: Crew) -> None:
        """Begin closed; ``book`` and ``crew`` are those of the master ``me``."""
        self._book = book
        self._crew = crew
        self._near = Announcer(me)
        self._far = Announcer(me)
        self.open = False
        """Workers behind bridges may have what is left over."""
        self._seen = Mono(0.0)
        """When something was left over last; from then on counts ``CALM_S``."""
        self._due: Mono | None = None
        """When something that is held back now will be left over."""
        self._news = False

    @property
    def deadline(self) -> Mono | None:
        """When somebody is to be told, or it is to be seen what is left over."""
        calm = Mono(self._seen + CALM_S) if self.open else None
        instants = (self._near.deadline, self._far.deadline, self._due, calm)
        return min((at for at in instants if at is not None), default=None)

    # -- who is told ----------------------------------------------------------------------------------------------------

    def join(self, hand: Hand) -> Told:
        """A worker linked up, by whatever way: it knows of no work."""
        self.leave(hand.link.peer)
        if not hand.works:
            return []
        self._news = self._news or (hand.far and not self.open)
        self._of(hand).join(hand.link.peer)
        return self.wake(hand)

    def leave(self, worker: NodeId) -> None:
        """A worker is gone."""
        self._near.leave(worker)
        self._far.leave(worker)

    def slept(self, hand: Hand) -> int:
        """A worker is about to be answered Nothing; return with which counter."""
        self._of(hand).slept(hand.link.peer)
        return self._of(hand).counter

    def wake(self, hand: Hand) -> Told:
        """This worker can do more or other things than before: tell it alone if there is work for it."""
        return self._of(hand).wake(hand.link.peer)

    def announce(self, now: Mono) -> Told:
        """Return whom to tell what now, the own network first."""
        book = self._book
        told: Told = []
        for worker in book.wake:
            speaker = self._crew.speaker(worker)
            if speaker is not None and (hand := self._crew.get(speaker)) is not None:
                told += self.wake(hand)
        book.wake.clear()
        tasks = book.grantable(self._near.sleepers) if book.grew else 0
        told += self._near.update(book.owners(), tasks, now, grew=book.grew)
        told += self._announce_far(now)
        book.grew = self._news = False
        return told

    def _of(self, hand: Hand) -> Announcer:
        return self._far if hand.far else self._near

    def _announce_far(self, now: Mono) -> Told:
        if not self._crew.far:
            self.open, self._due = False, None
            return self._far.update((), 0, now, grew=False)
        news = self._book.grew or self._news or (self._due is not None and now >= self._due)
        left = self._look(now) if news or (self.open and now >= self._seen + CALM_S) else 0
        kept = self._far.owners if self.open else ()
        return self._far.update(self._book.owners() if left else kept, left, now, grew=news and left > 0)

    # -- what is left over ----------------------------------------------------------------------------------------------

    def jobs(self, hand: Hand, owner: str, now: Mono) -> Iterator[tuple[Job, int]]:
        """Yield the jobs of an owner of which this worker may have something now, in order, and how many tasks at most."""
        if not hand.far:
            for job_id in list(self._book.lines.get(owner, ())):
                yield self._book.jobs[job_id], ITEMS_MAX
            return
        for job, left, sure in self._left(owner, now) if self.open else ():
            if not sure:
                self._hold(job, now)
            if left:
                yield job, left

    def took(self, hand: Hand, now: Mono) -> None:
        """A worker was granted something: if it is behind a bridge, there was something left over."""
        if hand.far:
            self._seen = now

    def holds(self, job: Job, now: Mono) -> bool:
        """Tell whether what waits of a job is for the own network alone now."""
        return not self.open or not any(each is job and left for each, left, _ in self._left(job.manifest.owner, now))

    def _look(self, now: Mono) -> int:
        """See what is left over, open or close by it, and return how many tasks workers behind bridges may have."""
        self._due = None
        tasks = cpus = 0
        certain = False
        slots = self._crew.slots_here
        for owner in self._book.owners():
            for job, left, sure in self._left(owner, now):
                if not sure:
                    self._hold(job, now)
                certain = certain or sure
                count = min(left, job.grantable or 1)
                tasks += count
                cpus += count * job.ask.resources.cpus
                if cpus > slots and tasks >= self._far.sleepers:
                    break  # whatever else there is changes nothing
        if certain or cpus > slots or (self.open and tasks):
            self.open, self._seen = True, now
        elif now >= self._seen + CALM_S:
            self.open = False
        return tasks if self.open else 0

    def _left(self, owner: str, now: Mono) -> Iterator[tuple[Job, int, bool]]:
        """Yield the jobs of an owner in order, how many tasks of each are left over, and whether that is for certain.

        It is where the own network had its time, or nobody in it is able; otherwise its free slots are counted.
        """
        before = 0
        rooms: dict[Ask, int | None] = {}
        for job_id in list(self._book.lines.get(owner, ())):
            job = self._book.jobs[job_id]
            count, cpus = job.grantable, job.ask.resources.cpus
            if job.ask not in rooms:  # most jobs ask for the same
                rooms[job.ask] = self._crew.room_here(job, self._book.leases, self._cpus_of)
            room = rooms[job.ask]
            if room is None or (job.since is not None and now >= job.since + HOLD_S):
                yield job, count or LOOK_MAX, True
            else:
                # Of second attempts, which are not counted, it is not known who may have them.
                yield job, count - min(count, max(0, room - before) // cpus), False
            before += 0 if room is None else count * cpus

    def _hold(self, job: Job, now: Mono) -> None:
        """Begin, or go on, to count the time that the own network has a job to itself."""
        job.since = now if job.since is None else job.since
        at = Mono(job.since + HOLD_S)
        self._due = at if self._due is None else min(at, self._due)

    def _cpus_of(self, job: JobId) -> int:
        return self._book.jobs[job].ask.resources.cpus

    def check(self) -> None:
        """Assert that nobody sleeps for ever while there is something for it."""
        self._near.check()
        self._far.check()
        assert self._crew.far or not (self.open or self._due), "open to nobody"
        assert self._crew.far == sum(hand.far and hand.works for hand in self._crew), "far workers are counted wrongly"
