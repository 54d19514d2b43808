"""When and what a bridge asks a master for: what its leaves have room for now, and a stock for the next ones.

There is one request at a time. A master that had nothing is asked again when it says that something changed, or for a leaf
that has more room than it was asked with.
"""

from collections.abc import Callable, Iterable
from itertools import islice
from typing import Final

import msgspec

from p2pq.core.asking import QUIET_MAX_S, SHORT_JOBS_MAX
from p2pq.core.fairness import Means
from p2pq.core.slots import Room
from p2pq.model.config import ScheduleSettings
from p2pq.model.ids import JobId, Mono, NodeId
from p2pq.wire.messages import PLACES_MAX, HasWork, Nothing, Place, Request
from p2pq.wire.objects import ITEMS_MAX

STOCK_S: Final = 3.5
"""The stock is what the cluster takes in so many seconds, or in two round trips where that is longer."""
LOW_S: Final = 0.5
"""It is filled up when it is not enough for so many seconds, or for a round trip where that is longer."""
STOCK_MAX: Final = 4096
"""Attempts in stock at most, of one master."""
WINDOW_SHARE: Final = 0.05
"""What is said to a master waits for others for so much of a mean attempt ..."""
DOZE_SHARE: Final = 1.0
"""... or so much where all there is to say is a request, and the master had nothing a moment ago ..."""
CALM_SHARE: Final = 2.0
"""... or so much where nobody waits for it, ..."""
WINDOW_MIN_S: Final = 0.05
"""... but at least and ..."""
WINDOW_MAX_S: Final = 1.0
"""... at most so long, or ..."""
CALM_MAX_S: Final = 2.0
"""... so long where nobody waits for it."""
FADE_S: Final = 10.0
"""After so much time what was learned of a job counts half."""
DOUBT_S: Final = 0.25
"""Attempts that have ended are taken to have taken that much longer together: one very short one says little."""
AHEAD_JOBS_MAX: Final = 64
"""Jobs that one request may ask a stock of."""
_NONCE_BYTES: Final = 16
_CPUS_MAX: Final = 1 << 20
_MEMORY_MAX: Final = 1 << 30
_GPUS_MAX: Final = 1 << 10
_ALL: Final = b""
"""The mean of all attempts is kept under this."""

Want = tuple[NodeId, Room, Request]
"""A leaf that waits for an answer, its room for it, and what it asked."""


class Flow(msgspec.Struct):
    """Attempts of one job below, and how often one ends there. How long each takes would mislead: the shortest end first."""

    at: Mono
    """When it changed last."""
    count: int = 0
    """How many are there."""
    ended: float = 0.0
    """How many have ended there ..."""
    busy_s: float = 0.0
    """... in so much time in which there were any; both fade."""


class Asked(msgspec.Struct, frozen=True):
    """The outstanding request."""

    nonce: bytes
    rooms: dict[NodeId, Room]
    tasks_max: int
    counter: int
    at: Mono


class Restock:
    """What one master is asked for."""

    def __init__(self, owner: str, schedule: ScheduleSettings, entropy: Callable[[int], bytes]) -> None:
        """Know nothing of its work."""
        self._owner, self._schedule, self._entropy = owner, schedule, entropy
        self._counter = -1
        self.offers = False
        """It has announced work."""
        self.stopped = False
        self.quiet = False
        """It is left alone for a moment: it did not answer, or what it gave was of no use."""
        self.asked: Asked | None = None
        self._slept = -1
        """The counter at which it had nothing for ``_rooms``."""
        self._rooms: dict[NodeId, Room] = {}
        self._strikes = 0
        self._answer_s = 0.0
        self._means = Means()
        self._short: dict[JobId, None] = {}
        """Jobs of which there may be a stock, as an attempt of theirs has ended well; the latest last."""
        self._flows: dict[JobId, Flow] = {}
        """Of which attempts are below, or a stock may be had."""

    # -- what is learned ------------------------------------------------------------------------------------------------

    @property
    def window_s(self) -> float:
        """How long news waits for more of it."""
        return self._within(WINDOW_SHARE, WINDOW_MAX_S)

    @property
    def doze_s(self) -> float:
        """How long a request waits for others while there is little hope for it."""
        # The master is to answer before leaves are told that there is nothing.
        return self._within(DOZE_SHARE, min(WINDOW_MAX_S, self._schedule.request_s / 2))

    def calm_s(self, *, stock: bool) -> float:
        """Return how long news waits where nobody waits for it; less without a ``stock``, as some may have one at a time."""
        heartbeats_s = self._schedule.heartbeat_s / 4  # they are among it, and leases must not end meanwhile
        if not stock:
            return self._within(1.0, min(WINDOW_MAX_S, heartbeats_s))
        return self._within(CALM_SHARE, min(CALM_MAX_S, heartbeats_s))

    def _within(self, share: float, most_s: float) -> float:
        mean_s = self._means.get(_ALL) or 0.0
        return min(most_s, max(WINDOW_MIN_S, share * mean_s))

    def placed(self, job: JobId, attempts: int, now: Mono) -> None:
        """So many attempts of a job have gone below, or (less than 0) are there no more."""
        self._flow(job, now).count += attempts
        self._tidy(job)

    def under_way(self, job: JobId) -> int:
        """Return how many attempts of a job are below."""
        flow = self._flows.get(job)
        return 0 if flow is None else flow.count

    def ended(self, job: JobId, took_s: float, now: Mono, *, ok: bool) -> None:
        """An attempt of that job has ended below, so long after it had gone there."""
        self._means.learn(_ALL, took_s)
        self._short.pop(job, None)
        flow = self._flow(job, now)
        flow.ended += 1
        if flow.busy_s > FADE_S:
            flow.ended, flow.busy_s = flow.ended / 2, flow.busy_s / 2
        if ok:
            self._short[job] = None
            if len(self._short) > SHORT_JOBS_MAX:
                self.late(next(iter(self._short)))
        self._tidy(job)

    def late(self, job: JobId) -> None:
        """What was in stock of a job waited too long: have none of it until an attempt of it ends again."""
        self._short.pop(job, None)
        self._tidy(job)

    def _flow(self, job: JobId, now: Mono) -> Flow:
        flow = self._flows.setdefault(job, Flow(now))
        flow.busy_s += max(0.0, now - flow.at) if flow.count else 0.0
        flow.at = now
        return flow

    def _tidy(self, job: JobId) -> None:
        """Forget a job of which nothing is below and no stock may be had."""
        if job not in self._short and job in self._flows and not self._flows[job].count:
            del self._flows[job]

    def target(self, job: JobId) -> int:
        """Return how many attempts of a job are to be in stock: what the cluster takes of it meanwhile, as many as end there."""
        if job not in self._short or not self._flows[job].count:
            return 0
        flow = self._flows[job]
        return min(ITEMS_MAX, int(self._horizon_s * flow.ended / (flow.busy_s + DOUBT_S)))

    @property
    def _horizon_s(self) -> float:
        return max(STOCK_S, 2 * self._answer_s)

    # -- asking ---------------------------------------------------------------------------------------------------------

    def has_work(self, message: HasWork) -> bool:
        """Take in what the master announces; return whether that is news."""
        if message.counter <= self._counter:
            return False
        self._counter = message.counter
        self.offers = bool(message.owners) and not self.stopped
        return True

    def stop(self) -> None:
        """Ask for nothing more."""
        self.offers, self.stopped = False, True

    @property
    def may_ask(self) -> bool:
        """Whether there is a point in asking now, if anything is wanted."""
        return self.offers and not self.quiet and self.asked is None

    @property
    def asleep(self) -> bool:
        """Whether the master had nothing when it was asked last, and has not said since that anything changed."""
        return self._slept >= self._counter

    def covered(self, leaf: NodeId, room: Room) -> bool:
        """Tell whether the master had nothing for that leaf and so much room already."""
        return self.asleep and leaf in self._rooms and self._rooms[leaf].holds(room)

    def forget(self, leaf: NodeId) -> None:
        """A leaf is gone, or can do other things than before."""
        self._rooms.pop(leaf, None)

    def request(self, wants: Iterable[Want], stock: Callable[[JobId], int], total: int, now: Mono) -> Request | None:
        """Return what to ask the master now, if anything, and count it as asked.

        Args:
            wants: the leaves that wait for an answer.
            stock: how many attempts of a job are in stock.
            total: how many are in all.
            now: the instant of the turn.
        """
        if not self.may_ask:
            return None
        rooms: dict[NodeId, Room] = {}
        ahead: dict[JobId, int] = {}
        tasks = 0
        before: Request | None = None
        for leaf, room, request in wants:
            if leaf not in rooms and len(rooms) == PLACES_MAX:
                break
            rooms[leaf] = rooms.get(leaf, Room()).plus(room)
            tasks += min(room.cpus, request.tasks_max)
            # A bridge below asks once, with the room of many leaves.
            for job, count in () if request is before else request.ahead:
                ahead[JobId(job)] = ahead.get(JobId(job), 0) + count
            before = request
        for job, missing in self._low(stock):
            ahead[job] = ahead.get(job, 0) + missing
        free = max(0, STOCK_MAX - total)
        ahead = {
            job: min(count, free, ITEMS_MAX) for job, count in islice(ahead.items(), AHEAD_JOBS_MAX) if count and free
        }
        most = max(ahead.values(), default=0)
        if not tasks + most:
            return None
        asked = Asked(self._entropy(_NONCE_BYTES), rooms, min(ITEMS_MAX, tasks + most), self._counter, now)
        self.asked = asked
        # What one leaf asks for again and again may come to more than a message can say.
        places = tuple(
            Place(leaf, min(_CPUS_MAX, each.cpus), min(_MEMORY_MAX, each.memory_mb), min(_GPUS_MAX, each.gpus))
            for leaf, each in rooms.items()
            if each.cpus
        )
        return Request(
            nonce=asked.nonce,
            owner=self._owner,
            cpus=min(_CPUS_MAX, sum(place.cpus for place in places)),
            memory_mb=min(_MEMORY_MAX, sum(place.memory_mb for place in places)),
            gpus=min(_GPUS_MAX, sum(place.gpus for place in places)),
            tasks_max=asked.tasks_max,
            ahead=tuple(ahead.items()),
            places=places,
        )

    def low(self, stock: Callable[[JobId], int]) -> bool:
        """Tell whether the stock of a job is to be filled up."""
        return any(True for _ in self._low(stock))

    def _low(self, stock: Callable[[JobId], int]) -> Iterable[tuple[JobId, int]]:
        """Go through the jobs of which there is not enough until more could come: how much is missing of each."""
        if self.asleep:
            return
        low = max(LOW_S, self._answer_s) / self._horizon_s
        for job in reversed(self._short):
            target = self.target(job)
            if low * target > stock(job):
                yield job, target - stock(job)

    def answer(self, nonce: bytes, now: Mono) -> Asked | None:
        """Close and return the request that this answers; None if it is none that is outstanding."""
        asked = self.asked
        if asked is None or asked.nonce != nonce:
            return None
        self.asked = None
        took_s = max(0.0, now - asked.at)
        self._answer_s += (took_s - self._answer_s) * (0.3 if self._answer_s else 1.0)
        return asked

    def useful(self) -> None:
        """What came is of use."""
        self._strikes = 0

    def nothing(self, asked: Asked, message: Nothing) -> None:
        """The master had nothing for what it was asked with."""
        self._strikes = 0
        counter = max(asked.counter, message.counter)
        if counter > self._slept:
            self._slept = counter
            self._rooms = {}
        self._rooms |= asked.rooms

    def strike(self) -> float:
        """Give up on what is outstanding; return for how many seconds to leave the master alone, longer each time."""
        self.asked = None
        self.quiet = True
        pause_s = min(QUIET_MAX_S, self._schedule.backoff_s * float(2**self._strikes))
        self._strikes = min(self._strikes + 1, 16)
        return pause_s

    def check(self) -> None:
        """Assert what holds between any two turns."""
        assert all(flow.count >= 0 for flow in self._flows.values()), "fewer than none are under way"
        assert all(flow.count or job in self._short for job, flow in self._flows.items()), (
            "a job is remembered for nothing"
        )
        assert all(self._flows[job].ended for job in self._short), "a stock of a job that is not known"
        assert len(self._short) <= SHORT_JOBS_MAX, "a stock of too many jobs"
