"""The room a worker has and the attempts that take it: what is granted, what waits, what runs.

Own work and guests have rooms of their own: own tasks start at once beside running guests.
"""

from collections import Counter
from collections.abc import Iterator
from functools import partial
from itertools import dropwhile, islice, takewhile
from typing import Final, Literal

import msgspec

from p2pq.core.effects import Start
from p2pq.core.events import Exited
from p2pq.core.records import ResultKept
from p2pq.model.ids import JobId, LeaseId, Mono, NodeId, Wall
from p2pq.model.job import Fault, Profile, Resources, SandboxLevel, missing_needs
from p2pq.wire.objects import BlobRef, Manifest, ResultItem

Key = tuple[NodeId, LeaseId]
"""Lease ids are unique per master only."""

_LEVELS: Final[dict[str, SandboxLevel]] = {"strict": "strict", "basic": "basic", "none": "none"}
_RANK: Final[dict[SandboxLevel, int]] = {"none": 0, "basic": 1, "strict": 2}


class Room(msgspec.Struct, frozen=True):
    """Cpus, mebibytes and gpus, free or taken."""

    cpus: int = 0
    memory_mb: int = 0
    gpus: int = 0

    def plus(self, other: "Room") -> "Room":
        """Return both together."""
        return Room(self.cpus + other.cpus, self.memory_mb + other.memory_mb, self.gpus + other.gpus)

    def minus(self, other: "Room") -> "Room":
        """Return what is left without ``other``; below zero where an offer shrank under what runs."""
        return Room(self.cpus - other.cpus, self.memory_mb - other.memory_mb, self.gpus - other.gpus)

    def holds(self, other: "Room") -> bool:
        """Tell whether ``other`` fits in."""
        return self.cpus >= other.cpus and self.memory_mb >= other.memory_mb and self.gpus >= other.gpus

    def floored(self) -> "Room":
        """Return the same with nothing below zero."""
        return Room(max(0, self.cpus), max(0, self.memory_mb), max(0, self.gpus))


def offered(profile: Profile) -> Room:
    """Return all the room of an offer."""
    return Room(profile.slots, profile.memory_mb, profile.gpus)


def asked(resources: Resources) -> Room:
    """Return the room that one task takes."""
    return Room(resources.cpus, resources.memory_mb, resources.gpus)


def level(manifest: Manifest, profile: Profile, *, own: bool) -> SandboxLevel | None:
    """Return the isolation to run a job at, or None where it must not run here.

    Guests get the level that was proved here, if it is at least what they ask for; ``none`` is never accepted from others
    and counts as ``strict``. Own tasks get the level that was proved here, too, even if that is less; no other one was ever
    tried here, and an older kernel may not have it. They get ``none`` only if they ask for it, or nothing is proved.
    """
    wanted = manifest.sandbox
    if own:
        return "none" if wanted == "none" else profile.sandbox
    if wanted == "none":
        wanted = "strict"
    return profile.sandbox if _RANK[profile.sandbox] >= _RANK[wanted] else None


def refusal(manifest: Manifest, profile: Profile, me: NodeId, *, own: bool) -> str:
    """Return why a job cannot run here, in a few words; empty where it can."""
    if not own and not profile.accepts:
        return profile.reason or "guests are not accepted"
    if manifest.only not in (b"", me):
        return "meant for another node"
    if level(manifest, profile, own=own) is None:
        return "its isolation is not proved here"
    missing = missing_needs(manifest.resources, profile)
    if missing:
        return f"lacks {missing[0]}"
    return "" if offered(profile).holds(asked(manifest.resources)) else "larger than what is offered"


class Attempt(msgspec.Struct, kw_only=True):
    """One attempt that this worker holds the lease of."""

    master: NodeId
    lease: LeaseId
    manifest: Manifest
    task: int
    attempt: int
    key: bytes
    own: bool
    far: bool = False
    """Bridges carry the link to its master."""
    sandbox: SandboxLevel
    expected_s: float = 0.0
    """How long it was thought to take when it was granted."""
    inline: tuple[bytes, ...] = ()
    subs: tuple[bytes, ...] = ()
    """The sub-grants by which bridges handed it on to this node, the outermost first."""
    grant: bytes = b""
    """The signed grant that it is of."""
    checkpoints: bool = False
    """Its master takes a checkpoint back."""
    may_be_empty: bool = False
    """As in ``Start``."""
    checkpoint_key: bytes = b""
    checkpoint: tuple[BlobRef, ...] = ()
    """What it starts with: see ``Start``."""
    state: Literal["waiting", "starting", "running", "ending", "packing"] = "waiting"
    """ending: it was told to end and may leave a checkpoint; packing: it has ended, and left its slot, but not its result yet."""
    train: int = 0
    """Which attempts it was started together with, to run one after another in one slot; 0: it has a slot of its own."""
    apart: bool = False
    """It is to have a slot of its own: the runner of a train that it was on was lost."""
    fault: Fault = "evicted"
    """Why it was told to end, if it was."""
    detail: str = ""
    """The same for people."""
    since: Mono | None = None
    """When it took its slot; later by what it did not run meanwhile."""
    left: Mono | None = None
    """When it left its slot, if it is packing."""
    doubted: bool = False
    """It stands still, or must not start, because this node slept and its master may have given it to others."""
    held: bool = False
    """It stands still because of this machine's owner."""
    still: Mono | None = None
    """Since when it stands still, for whichever of these; None as well where it has no slot."""
    progress: int = -1
    told: int = -1
    """The progress that the master knows."""
    shown: bool = False
    """The master knows that it runs."""

    @property
    def near(self) -> bool:
        """Whether it is a guest of this network."""
        return not self.own and not self.far

    @property
    def runs(self) -> bool:
        """Whether its program has begun, rather than waits for a slot or for files."""
        return self.state in {"running", "ending", "packing"}

    @property
    def news(self) -> bool:
        """Whether there is something that the master does not know."""
        return self.progress != self.told or (self.runs and not self.shown)

    def ran_s(self, now: Mono) -> float:
        """Return how long it has had its slot, in seconds, without what it stood still."""
        if self.since is None:
            return 0.0
        return next((at for at in (self.left, self.still) if at is not None), now) - self.since

    def order(self) -> Start:
        """Return the order to run it."""
        manifest = self.manifest
        return Start(
            lease=self.lease,
            master=self.master,
            owner=manifest.owner,
            job=JobId(manifest.job),
            task=self.task,
            attempt=self.attempt,
            tasks=manifest.tasks,
            key=self.key,
            reply=manifest.reply,
            body=manifest.body,
            blobs=manifest.blobs,
            inline=self.inline,
            resources=manifest.resources,
            limits=manifest.limits,
            sandbox=self.sandbox,
            own=self.own,
            may_be_empty=self.may_be_empty,
            checkpoint_key=self.checkpoint_key,
            checkpoint=self.checkpoint,
        )

    def result(self, event: Exited) -> ResultItem:
        """Return what its master is told of its end."""
        return ResultItem(
            job=self.manifest.job,
            task=self.task,
            attempt=self.attempt,
            lease=self.lease,
            outcome=event.outcome,
            sandbox=_LEVELS[event.sandbox],
            key=event.key,
            body=event.body,
            blobs=event.blobs,
            checkpoint=event.checkpoint and self.checkpoints and not event.outcome.ok,
        )

    def kept(self, item: ResultItem, wall: Wall) -> ResultKept:
        """Return that its result is kept from now on."""
        return ResultKept(
            lease=self.lease, master=self.master, item=item, wall=wall, owner=self.manifest.owner, subs=self.subs
        )


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


class Slots:
    """Every attempt held, and the room that those with a slot take."""

    def __init__(self) -> None:
        """Start with no offer and nothing held."""
        self._held: dict[NodeId, dict[LeaseId, Attempt]] = {}
        self._waiting: dict[bool, dict[Key, Attempt]] = {False: {}, True: {}}
        self._waiting_s = {False: 0.0, True: 0.0}
        self._taken = {False: Room(), True: Room()}
        self._packing = {False: 0, True: 0}
        """How many have left their slots, and not ended."""
        self._trains: dict[int, dict[Key, Attempt]] = {}
        """What is left of each train."""
        self._numbered = 0
        """Trains, so far."""
        self.near = 0
        """The cpus that guests of this network take."""
        self.room = {False: Room(), True: Room()}
        """What is offered: to guests (False) and to own work (True)."""

    def __len__(self) -> int:
        return sum(len(held) for held in self._held.values())

    def __iter__(self) -> Iterator[Attempt]:
        """Go through all attempts, master by master."""
        for held in self._held.values():
            yield from held.values()

    def get(self, master: NodeId, lease: LeaseId) -> Attempt | None:
        """Return the attempt under that lease, if it is held."""
        return self._held.get(master, {}).get(lease)

    def of(self, master: NodeId) -> tuple[Attempt, ...]:
        """Return the attempts that this master granted, oldest first."""
        return tuple(self._held.get(master, {}).values())

    def owned_by(self, owner: str) -> list[Attempt]:
        """Return the attempts that run or wait here for an owner as a guest, whoever granted them."""
        held = (attempt for attempts in self._held.values() for attempt in attempts.values())
        return [attempt for attempt in held if attempt.manifest.owner == owner and not attempt.own]

    def waiting(self, *, own: bool) -> tuple[Attempt, ...]:
        """Return what waits for a slot, in order."""
        return tuple(self._waiting[own].values())

    def waiting_s(self, *, own: bool) -> float:
        """Return the expected slot-seconds of what waits for a slot."""
        return self._waiting_s[own]

    def free(self, *, own: bool) -> Room:
        """Return the room that nothing takes."""
        return self.room[own].minus(self._taken[own])

    def add(self, attempt: Attempt) -> None:
        """Hold another attempt; it waits."""
        held = self._held.setdefault(attempt.master, {})
        assert attempt.lease not in held, "held twice"
        held[attempt.lease] = attempt
        self._waiting[attempt.own][attempt.master, attempt.lease] = attempt
        self._waiting_s[attempt.own] += attempt.expected_s * attempt.manifest.resources.cpus

    def _wait_no_more(self, attempt: Attempt) -> None:
        waiting = self._waiting[attempt.own]
        del waiting[attempt.master, attempt.lease]
        left_s = self._waiting_s[attempt.own] - attempt.expected_s * attempt.manifest.resources.cpus
        # Begun afresh whenever nothing waits, so that rounding never adds up.
        self._waiting_s[attempt.own] = left_s if waiting else 0.0

    def spare(self, *, own: bool) -> Room:
        """Return the room to ask for more with: what is free, where it is not kept for the first that waits."""
        return self.free(own=own) if self._first(own=own) is None else Room()

    def _first(self, *, own: bool) -> Attempt | None:
        return next((attempt for attempt in self._waiting[own].values() if not attempt.doubted), None)

    def next(self, *, own: bool) -> Attempt | None:
        """Return the first that may start, if its room is free. In order: a wide one is not overtaken for ever."""
        first = self._first(own=own)
        if first is None or not self.free(own=own).holds(asked(first.manifest.resources)):
            return None
        return first

    def behind(self, first: Attempt, limit: int) -> tuple[Attempt, ...]:
        """Return an attempt that may start and what waits right behind it for the same: at most ``limit``, and a fair part.

        No more than a part for each slot of what waits of the job, so that no slot stands empty while another has all of it.
        """
        waiting = self._waiting[first.own].values()
        alike = list(
            takewhile(partial(_alike, first), islice(dropwhile(lambda each: each is not first, waiting), limit))
        )
        at_once = max(1, self.room[first.own].cpus // first.manifest.resources.cpus)
        same = sum(1 for each in islice(waiting, limit * at_once) if _alike(first, each))
        return tuple(alike[: max(1, -(-same // at_once))])

    def start(self, attempts: tuple[Attempt, ...], now: Mono) -> None:
        """Give waiting attempts a slot, one for all."""
        number = 0
        if len(attempts) > 1:
            number = self._numbered = self._numbered + 1
            self._trains[number] = {(each.master, each.lease): each for each in attempts}
        self._take(attempts[0])
        for attempt in attempts:
            self._wait_no_more(attempt)
            attempt.state, attempt.since, attempt.train = "starting", now, number

    def vacate(self, attempt: Attempt, now: Mono) -> bool:
        """Let an attempt leave its slot before it has ended, unless what others left is still being packed for all slots.

        One of a train never does, nor one that stands still or is told to end: its slot is free when it has ended.
        """
        alone = attempt.state in {"starting", "running"} and not attempt.train and attempt.still is None
        if not alone or self._packing[attempt.own] >= self.room[attempt.own].cpus:
            return False
        self._leave_slot(attempt)
        self._packing[attempt.own] += 1
        attempt.state, attempt.left = "packing", now
        return True

    def next_of(self, train: int, now: Mono) -> Attempt | None:
        """The slot of a train is the next one's from now on; return that, if there is one."""
        left = self._trains.get(train, {}).values()
        for attempt in left:
            attempt.since = now
        return next(iter(left), None)

    def put_back(self, attempts: list[Attempt]) -> None:
        """Let those of a train that have not begun wait again, before all others."""
        for attempt in attempts:
            self._leave_slot(attempt)
            attempt.state, attempt.since, attempt.train = "waiting", None, 0
            attempt.held, attempt.still = False, None
            self._waiting_s[attempt.own] += attempt.expected_s * attempt.manifest.resources.cpus
        for own in (False, True):
            first = {(each.master, each.lease): each for each in attempts if each.own is own}
            self._waiting[own] = first | self._waiting[own]

    def remove(self, attempt: Attempt) -> None:
        """Hold it no longer; its slot is free, or for those that it shares it with."""
        held = self._held[attempt.master]
        del held[attempt.lease]
        if not held:
            del self._held[attempt.master]
        if attempt.state == "waiting":
            self._wait_no_more(attempt)
        elif attempt.state == "packing":
            self._packing[attempt.own] -= 1
        else:
            self._leave_slot(attempt)

    def _take(self, attempt: Attempt) -> None:
        self._taken[attempt.own] = self._taken[attempt.own].plus(asked(attempt.manifest.resources))
        self.near += attempt.manifest.resources.cpus if attempt.near else 0

    def _leave_slot(self, attempt: Attempt) -> None:
        left = self._trains.get(attempt.train, {})
        left.pop((attempt.master, attempt.lease), None)
        if left:
            return
        self._trains.pop(attempt.train, None)
        self._taken[attempt.own] = self._taken[attempt.own].minus(asked(attempt.manifest.resources))
        self.near -= attempt.manifest.resources.cpus if attempt.near else 0

    def guests(self, now: Mono) -> tuple[Guest, ...]:
        """Return everything held, for people."""
        return tuple(
            Guest(
                lease=attempt.lease,
                master=attempt.master,
                owner=attempt.manifest.owner,
                job=JobId(attempt.manifest.job),
                task=attempt.task,
                attempt=attempt.attempt,
                state=attempt.state if attempt.still is None else "suspended",
                own=attempt.own,
                since_s=attempt.ran_s(now),
                progress=attempt.progress,
            )
            for attempt in self
        )

    def check(self) -> None:
        """Assert that the sums are those of what is held."""
        trains = Counter(each.train for each in self if each.train)
        assert trains == {number: len(left) for number, left in self._trains.items()}, (
            "a train is not what is left of it"
        )
        heads = {each.train: each for each in self if each.train}
        slotted = [each for each in self if each.state not in {"waiting", "packing"}]
        apart = [each for each in slotted if heads.get(each.train, each) is each]
        packing = Counter(each.own for each in self if each.state == "packing")
        assert packing == {own: count for own, count in self._packing.items() if count}, (
            "more or less is packed than is"
        )
        for own in (False, True):
            taken = Room()
            for attempt in apart:
                if attempt.own is own:
                    taken = taken.plus(asked(attempt.manifest.resources))
            assert taken == self._taken[own], "the room taken is not that of what runs"
            near = sum(each.manifest.resources.cpus for each in apart if each.near)
            assert near == self.near, "what guests of this network take is not what they run on"
            waiting_s = sum(each.expected_s * each.manifest.resources.cpus for each in self.waiting(own=own))
            assert abs(waiting_s - self._waiting_s[own]) < 1e-3 * (1 + waiting_s), "the wait is not that of what waits"
            for (master, lease), attempt in self._waiting[own].items():
                assert self.get(master, lease) is attempt, "something waits that is not held"
                assert attempt.state == "waiting", "something waits that has a slot"


def _alike(first: Attempt, other: Attempt) -> bool:
    """Tell whether two attempts can be of one train: of one job, and begun from nothing."""
    same = (first.master, first.manifest.job, first.far) == (other.master, other.manifest.job, other.far)
    fresh = not (first.checkpoint or other.checkpoint or first.apart or other.apart)
    return other is first or (same and fresh and not other.doubted)
