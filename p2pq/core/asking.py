"""Whom a worker asks for work: who has some, who was asked and has not answered, who had nothing that fits.

No polling: a master that had nothing is asked again when it says that something changed, or when there is more room
here than it was asked with.
"""

from collections.abc import Callable, Mapping
from random import Random
from typing import Final, Literal

import msgspec

from p2pq.core.deadlines import Deadlines
from p2pq.core.fairness import Accounts, Means
from p2pq.core.lately import Lately
from p2pq.core.reserving import Reserved, Wanted
from p2pq.core.slots import Key, Room
from p2pq.model.config import ScheduleSettings
from p2pq.model.ids import JobId, Mono, NodeId
from p2pq.wire.messages import HasWork, Nothing, Request
from p2pq.wire.objects import ITEMS_MAX

AHEAD_MAX: Final = 64
"""Attempts per slot that may wait for it at most."""
SHORT_JOBS_MAX: Final = 64
"""Jobs per master whose length is known to be short; beyond it the one that ended here longest ago is forgotten."""
DRAWS_MAX: Final = 64
"""Draws per turn; a worker with more free cpus gives away several at a draw."""
QUIET_MAX_S: Final = 60.0
"""The longest that a master is left alone after it, or this node for it, failed again and again."""
ANSWERS_WORTH: Final = 20
"""A lease ahead is worth while where a task takes less than so many answers of its master, however long that is: asking for
the next one when this one has ended would leave a slot empty for over a twentieth of the time."""
LONGEST_AHEAD: Final = 2
"""... but of no job whose attempts take more than so many times ``ahead_s``: the worker hands back what waits for long."""
_NONCE_BYTES: Final = 16
_KEPT: Final = ("kept", b"")

Timer = (
    tuple[Literal["request"], bytes]
    | tuple[Literal["quiet"], NodeId]
    | tuple[Literal["beat"], NodeId]
    | tuple[Literal["progress"], NodeId]
    | tuple[Literal["resend"], NodeId]
    | tuple[Literal["ahead"], Key]
    | tuple[Literal["confirm"], NodeId]
    | tuple[Literal["kept"], bytes]
)
"""What a deadline of the worker is for, and whom or what it concerns."""


class Asked(msgspec.Struct, frozen=True):
    """An outstanding request."""

    nonce: bytes
    master: NodeId
    owner: str
    own: bool
    far: bool
    room: Room
    tasks_max: int
    ahead: bool
    counter: int
    """What the master had announced when it was asked."""
    at: Mono


class _Sleep(msgspec.Struct, frozen=True):
    counter: int
    room: Room


class _Offer(msgspec.Struct):
    """What one linked master has."""

    counter: int = -1
    owners: tuple[str, ...] = ()
    asleep: dict[str, _Sleep] = msgspec.field(default_factory=dict)
    short: dict[JobId, str] = msgspec.field(default_factory=dict)
    strikes: int = 0
    quiet: bool = False
    full: bool = False
    far: bool = False
    answer_s: float = 0.0
    """How long its answers take, smoothed."""


class Asking:
    """The offers of linked masters and this worker's requests to them."""

    def __init__(  # noqa: PLR0913, PLR0917  each is a different thing to share
        self,
        me: NodeId,
        schedule: ScheduleSettings,
        accounts: Accounts,
        means: Means,
        deadlines: Deadlines[Timer],
        rng: Random,
        entropy: Callable[[int], bytes],
    ) -> None:
        """Know nobody yet. ``accounts``, ``means`` and ``deadlines`` are the worker's own."""
        self._me = me
        self._schedule = schedule
        self._accounts = accounts
        self._means = means
        self._deadlines = deadlines
        self._rng = rng
        self._entropy = entropy
        self._offers: dict[NodeId, _Offer] = {}
        self._asked: dict[bytes, Asked] = {}
        self._out = {False: Room(), True: Room()}
        """The room that outstanding requests speak for."""
        self._turn: tuple[str, NodeId] | None = None
        """Who was drawn when there was only room ahead, and has no short job: the next that is free is for that owner, or
        whoever is known to be short would be asked ahead again and again, and nobody else's length be ever learned."""
        self._reserved = Reserved(accounts)
        self.lately = Lately()
        """What guests of this network take and took."""

    def linked(self, master: NodeId, *, far: bool = False) -> None:
        """Begin with this master, from nothing; ``far``: bridges carry the link to it."""
        self._offers[master] = _Offer(far=far)

    def gone(self, master: NodeId) -> None:
        """Forget a master and what it was asked."""
        self._offers.pop(master, None)
        if self._reserved.wanted is not None and self._reserved.wanted.master == master:
            self._reserved.end()
        self._deadlines.cancel(("quiet", master))
        for asked in [asked for asked in self._asked.values() if asked.master == master]:
            self._close(asked)

    def stop(self) -> None:
        """Forget every request; answers to them will come late."""
        self._reserved.end()
        for asked in list(self._asked.values()):
            self._close(asked)

    def has_work(self, master: NodeId, message: HasWork) -> None:
        """Take in what a master announces; older news than the latest are ignored."""
        offer = self._offers[master]
        if message.counter <= offer.counter:
            return
        offer.counter = message.counter
        offer.owners = tuple(dict.fromkeys(message.owners))
        offer.asleep = {owner: sleep for owner, sleep in offer.asleep.items() if owner in offer.owners}

    @property
    def has_turn(self) -> bool:
        """Whether somebody was drawn who is to have the next that is free, and may wait for it here: nobody from afar may."""
        offer = None if self._turn is None else self._offers.get(self._turn[1])
        return offer is not None and not offer.far

    def has_any(self, master: NodeId) -> bool:
        """Tell whether a master announced work."""
        offer = self._offers.get(master)
        return offer is not None and bool(offer.owners)

    def nothing(self, master: NodeId, message: Nothing, most: Room, now: Mono) -> None:
        """Take in that a master had nothing that fits; an answer to no request is ignored.

        ``most`` is all the room there is for guests: where a task that waits there needs more than it was asked with, but no
        more than that, what becomes free is kept for it.
        """
        asked = self.answer(master, message.nonce, now)
        if asked is None:
            return
        self._offers[master].strikes = 0
        self._sleep(asked, max(message.counter, asked.counter))
        wide = Room(*message.wide)
        if wide.cpus and not asked.own and self._reserved.wanted is None and most.holds(wide):
            self._reserved.begin(Wanted(master, asked.owner, wide, asked.far), now)

    def answer(self, master: NodeId, nonce: bytes, now: Mono) -> Asked | None:
        """Close and return the request that this master answers; None if there is none (any more)."""
        asked = self._asked.get(nonce)
        if asked is None or asked.master != master:
            return None
        self._close(asked)
        offer, took_s = self._offers[master], max(0.0, now - asked.at)
        offer.answer_s += (took_s - offer.answer_s) * (0.3 if offer.answer_s else 1.0)
        wanted = self._reserved.wanted
        if (
            wanted is not None
            and (master, asked.owner) == (wanted.master, wanted.owner)
            and asked.room.holds(wanted.room)
        ):
            self._reserved.end()
        return asked

    def useless(self, asked: Asked) -> None:
        """Treat an answer that could not be used as nothing, so that it is not asked for at once again."""
        self._sleep(asked, self._offers[asked.master].counter)

    def lapse(self, nonce: bytes, now: Mono) -> None:
        """Give up on a request; the master is left alone for a moment."""
        asked = self._asked[nonce]
        self._close(asked)
        self.strike(asked.master, now)

    def woke(self, now: Mono) -> None:
        """Give every request its full time anew: nobody can be blamed for answers that came while this node slept."""
        for nonce in self._asked:
            self._deadlines.set(("request", nonce), Mono(now + self._schedule.request_s))

    def strike(self, master: NodeId, now: Mono) -> None:
        """Leave a master alone for a while, longer each time: it does not answer, or its tasks cannot start here."""
        offer = self._offers.get(master)
        if offer is None or offer.quiet:
            return
        offer.quiet = True
        pause_s = min(QUIET_MAX_S, self._schedule.backoff_s * 2**offer.strikes)
        offer.strikes = min(offer.strikes + 1, 16)
        self._deadlines.set(("quiet", master), Mono(now + pause_s))

    def unquiet(self, master: NodeId) -> None:
        """End the pause after a strike."""
        self._offers[master].quiet = False

    def set_full(self, master: NodeId, *, full: bool) -> None:
        """Ask a master that does not acknowledge results for nothing more, or ask it again."""
        offer = self._offers.get(master)
        if offer is not None:
            offer.full = full

    def ended(self, master: NodeId, job: JobId, owner: str, took_s: float, *, ok: bool) -> None:
        """Learn how long an attempt of a job took; leases ahead are asked for where jobs are short and succeed here."""
        self._means.learn(job, took_s)
        self._means.learn(owner, took_s)
        offer = self._offers.get(master)
        if offer is None:
            return
        offer.strikes = 0
        known = offer.short.pop(job, None)
        ahead_s = self._schedule.ahead_s
        worth_s = max(ahead_s, min(LONGEST_AHEAD * ahead_s, ANSWERS_WORTH * offer.answer_s))
        if ok and self.mean_s(job, owner) <= worth_s:
            offer.short[job] = owner
            if known is None and owner in offer.asleep and not offer.asleep[owner].room.cpus:
                del offer.asleep[owner]  # it was asked for others to go ahead, not for this one
            if self._turn == (owner, master):
                self._turn = None  # leases ahead can be asked of it from now on
            if len(offer.short) > SHORT_JOBS_MAX:
                del offer.short[next(iter(offer.short))]

    def grown(self, master: NodeId, job: JobId) -> None:
        """Stop taking a job for short until an attempt of it proves it again."""
        offer = self._offers.get(master)
        if offer is not None:
            offer.short.pop(job, None)

    def mean_s(self, job: JobId, owner: str) -> float:
        """Return the expected length of an attempt: the job's mean here, else the owner's, else the draw's scale."""
        for key in (job, owner):
            mean_s = self._means.get(key)
            if mean_s is not None:
                return mean_s
        return self._schedule.fair_scale_s

    def plan(self, free: Room, slots: int, waiting_s: float, now: Mono, *, own: bool) -> list[tuple[NodeId, Request]]:
        """Return what to ask whom now.

        Args:
            free: the room that nothing runs in.
            slots: how many cpus there are in all.
            waiting_s: expected slot-seconds of what waits for a slot already.
            now: the instant of the turn.
            own: for own work, or for guests.
        """
        free = free.minus(self._out[own]).floored()
        if not free.cpus:
            free = Room()  # memory alone runs nothing, and wakes nobody
        if not own and self._keeps(free, now):
            return []
        may_wait = not any(asked.ahead and asked.own == own for asked in self._asked.values())
        if free.cpus == 0 and not (may_wait and self._room_ahead(slots, waiting_s)):
            return []
        free, offers = self._eligible(free, now, own=own)
        if not offers:
            return []
        turn = None if own else self._take_turn(offers)
        if turn is not None and not free.cpus:
            self._turn = turn
            return []
        lengths = self._means.lengths(offers, self._schedule.fair_scale_s)
        requests = []
        room = free
        for (owner, master), cpus in self._draws(offers, free.cpus, turn, lengths, now, own=own).items():
            # The last cpus get what is left, so that nothing is lost by rounding.
            share = room.memory_mb * cpus // room.cpus if room.cpus else 0
            part = Room(cpus, share, room.gpus if cpus else 0)
            room = room.minus(part)
            ahead = self._ahead(master, owner, slots, waiting_s) if may_wait else ()
            may_wait = may_wait and not ahead
            if cpus or ahead:
                requests.append((master, self._request(master, owner, part, ahead, lengths[owner], now, own=own)))
            elif not own and owner not in self._offers[master].short.values():
                self._turn = (owner, master)
        return requests

    def _take_turn(self, offers: Mapping[str, list[tuple[NodeId, bool]]]) -> tuple[str, NodeId] | None:
        """Return whose turn it is, and forget it; none where the offer is gone."""
        turn, self._turn = self._turn, None
        return turn if turn and any(master == turn[1] for master, _ in offers.get(turn[0], ())) else None

    def _keeps(self, free: Room, now: Mono) -> bool:
        """Tell whether what is free is kept for a wide task that it is not enough for yet."""
        wanted = self._reserved.wanted
        if wanted is None:
            return False
        offer = self._offers[wanted.master]
        near = wanted.far and self._offering(free, own=False, far=False)
        if offer.quiet or offer.full or wanted.owner not in offer.owners or near:
            self._reserved.end()
            return False
        free = self._left(free, now) if wanted.far else free
        if self._reserved.keep(free, now):
            # Enough: ask its master once more, with all there is.
            offer.asleep.pop(wanted.owner, None)
        return self._reserved.wanted is not None and not free.holds(wanted.room)

    def _eligible(self, free: Room, now: Mono, *, own: bool) -> tuple[Room, dict[str, list[tuple[NodeId, bool]]]]:
        """Return what to ask with and, by owner, the masters to ask, and whether only for more room than asked with last.

        What is free goes to masters of this network first; only what none of them has anything for, and did not fill a moment
        ago, is offered to those behind bridges.
        """
        wanted = None if own else self._reserved.wanted
        if wanted is not None:
            return self._left(free, now) if wanted.far else free, {wanted.owner: [(wanted.master, True)]}
        offers = self._offering(free, own=own, far=False)
        if offers or own or not self._offering(free, own=False, far=True):
            return free, offers
        left = self._left(free, now)
        # Nor may anything from there wait for a slot that the own network had a moment ago.
        may = left.cpus or not self.lately.kept(now)
        return left, self._offering(left, own=False, far=True) if may else {}

    def _left(self, free: Room, now: Mono) -> Room:
        """Return what is free for masters behind bridges; more may be, later."""
        kept = min(free.cpus, self.lately.kept(now))
        until = self.lately.until
        if not kept or until is None:
            return free
        self._deadlines.set(_KEPT, until)
        cpus = free.cpus - kept
        return Room(cpus, free.memory_mb * cpus // free.cpus, free.gpus) if cpus else Room()

    def _offering(self, free: Room, *, own: bool, far: bool) -> dict[str, list[tuple[NodeId, bool]]]:
        offers: dict[str, list[tuple[NodeId, bool]]] = {}
        for master, offer in self._offers.items():
            if (master == self._me) is not own or offer.quiet or offer.full or offer.far is not far:
                continue
            for owner in offer.owners:
                sleep = offer.asleep.get(owner)
                again = sleep is not None and offer.counter <= sleep.counter
                if sleep is None or not again or not sleep.room.holds(free):
                    offers.setdefault(owner, []).append((master, again))
        return offers

    def _draws(
        self,
        offers: Mapping[str, list[tuple[NodeId, bool]]],
        cpus: int,
        turn: tuple[str, NodeId] | None,
        lengths: Mapping[str, float],
        now: Mono,
        *,
        own: bool,
    ) -> dict[tuple[str, NodeId], int]:
        """Draw an owner, then a master of it, for each free cpu; for none, once: whom to ask for leases ahead.

        ``turn``: who comes first, drawn before. ``lengths``: what an attempt of each owner is expected to take.
        """
        owners = tuple(offers)
        # Whoever is offered to is on one side of all bridges.
        fairness = self._accounts[self._offers[offers[owners[0]][0][0]].far]
        drawn: dict[tuple[str, NodeId], int] = {}
        chunk = cpus if own or len(owners) == 1 else -(-cpus // DRAWS_MAX)
        tentative: list[tuple[str, int]] = []
        while True:
            owner = owners[0] if own else turn[0] if turn else fairness.draw(owners, now, self._rng, lengths)
            masters = [each for each in offers[owner] if turn is None or each[0] == turn[1]]
            master, again = masters[self._rng.randrange(len(masters))] if len(masters) > 1 else masters[0]
            turn = None
            # Asked again with all there is, or it would be asked again for every share of it.
            take = cpus if again else min(chunk, cpus)
            drawn[owner, master] = drawn.get((owner, master), 0) + take
            cpus -= take
            if cpus <= 0:
                break
            key = ("draw", len(tentative))
            fairness.charge(key, owner, take, lengths[owner])
            tentative.append(key)
        for key in tentative:
            fairness.free(key, now)
        return drawn

    def _room_ahead(self, slots: int, waiting_s: float) -> bool:
        """Tell whether there is a short job of which more may wait: less than half of what may does."""
        shorts = (self.mean_s(job, owner) for offer in self._offers.values() for job, owner in offer.short.items())
        return any(self._most_s(mean_s, slots) >= 2 * waiting_s for mean_s in shorts)

    def _most_s(self, mean_s: float, slots: int) -> float:
        """Return how much work of a job may wait: for each slot ``ahead_s``, or one attempt where that is longer."""
        return max(self._schedule.ahead_s, mean_s) * slots

    def _ahead(self, master: NodeId, owner: str, slots: int, waiting_s: float) -> tuple[tuple[bytes, int], ...]:
        """Split the work that may wait over the short jobs of that owner, the latest first.

        Asked for when less than half of what may wait does. Of no job more than have ended here: one short attempt does not
        make a job short.
        """
        ahead: list[tuple[bytes, int]] = []
        for job, whose in reversed(self._offers[master].short.items()):
            mean_s = max(1e-3, self.mean_s(job, owner))
            most_s = self._most_s(mean_s, slots)
            room_s = most_s - waiting_s
            if whose == owner and most_s >= 2 * waiting_s and room_s >= mean_s:
                most = min(AHEAD_MAX * slots, ITEMS_MAX // 2, max(1, self._means.seen(job)))
                ahead.append((job, min(most, int(room_s / mean_s))))
        return tuple(ahead)

    def _request(  # noqa: PLR0913  each is a different fact
        self,
        master: NodeId,
        owner: str,
        room: Room,
        ahead: tuple[tuple[bytes, int], ...],
        expected_s: float,
        now: Mono,
        *,
        own: bool,
    ) -> Request:
        nonce = self._entropy(_NONCE_BYTES)
        most = max((count for _, count in ahead), default=0)
        asked = Asked(
            nonce=nonce,
            master=master,
            owner=owner,
            own=own,
            far=self._offers[master].far,
            room=room,
            tasks_max=min(ITEMS_MAX, room.cpus + most),
            ahead=bool(ahead),
            counter=self._offers[master].counter,
            at=now,
        )
        assert nonce not in self._asked, "a nonce was drawn twice"
        self._asked[nonce] = asked
        self._out[own] = self._out[own].plus(room)
        self._deadlines.set(("request", nonce), Mono(now + self._schedule.request_s))
        if not own:
            self._accounts[asked.far].charge(nonce, owner, room.cpus, expected_s)
        return Request(
            nonce=nonce,
            owner=owner,
            cpus=room.cpus,
            memory_mb=room.memory_mb,
            gpus=room.gpus,
            tasks_max=asked.tasks_max,
            ahead=ahead,
        )

    def _close(self, asked: Asked) -> None:
        del self._asked[asked.nonce]
        self._out[asked.own] = self._out[asked.own].minus(asked.room)
        self._deadlines.cancel(("request", asked.nonce))
        if not asked.own:
            self._accounts[asked.far].free(asked.nonce, Mono(0.0))

    def _sleep(self, asked: Asked, counter: int) -> None:
        asleep = self._offers[asked.master].asleep
        room = asked.room
        before = asleep.get(asked.owner)
        if before is not None and before.counter >= counter:
            room = Room(
                max(room.cpus, before.room.cpus),
                max(room.memory_mb, before.room.memory_mb),
                max(room.gpus, before.room.gpus),
            )
            counter = before.counter
        asleep[asked.owner] = _Sleep(counter, room)

    def check(self) -> None:
        """Assert that requests, their deadlines and the room they speak for agree."""
        self._reserved.check()
        for fairness in self._accounts.values():
            fairness.check()
        for own in (False, True):
            out = Room()
            for asked in self._asked.values():
                assert asked.master in self._offers, "a request to nobody"
                assert ("request", asked.nonce) in self._deadlines, "a request that never lapses"
                if asked.own is own:
                    out = out.plus(asked.room)
            assert out == self._out[own], "the room asked for is not that of the requests"
