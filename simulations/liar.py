"""A member of the mesh that does not play by the rules: it lies, repeats itself, reorders, floods, fails everything, drops tasks.

Beneath is an honest node, which links, asks and holds leases; what is said and done is another matter. It can do whatever a
member with a certificate of its own can: everything but forge the signatures of others.
"""

from collections import deque
from collections.abc import Callable
from random import Random
from typing import Any, Final, get_args

import msgspec

from p2pq.core import effects as fx
from p2pq.core import events as ev
from p2pq.errors import Reject
from p2pq.model.ids import JobId, LeaseId, NodeId
from p2pq.model.job import Fault, Outcome, Profile
from p2pq.wire import messages as msg
from p2pq.wire import sign
from p2pq.wire.objects import (
    ITEMS_MAX,
    BlobRef,
    Grant,
    GrantItem,
    Receipt,
    ReceiptItem,
    Result,
    ResultItem,
    SubGrant,
    Verdict,
)
from simulations.host import Host
from simulations.work import JobPlan

SAID_MAX: Final = 200
"""Messages that it remembers, to say them again."""
GRANTS_MAX: Final = 50
REORDER_S: Final = 3.0
FAULTS: Final[tuple[Fault, ...]] = get_args(Fault)
VERDICTS: Final[tuple[Verdict, ...]] = get_args(Verdict)


class Habits(msgspec.Struct, frozen=True, kw_only=True):
    """What a liar does."""

    lie_every_s: float = 0.0
    repeats: float = 0.0
    """How likely something said earlier is said again, with each message."""
    reorders: bool = False
    flood: int = 0
    """Messages in one burst, once."""
    fails: bool = False
    """Every task fails there, in 5 ms."""
    drops: float = 0.0
    """How likely a task that it took is never run."""


def habits_of(rng: Random) -> Habits:
    """Return the habits of one liar."""
    return Habits(
        lie_every_s=rng.choice((0.0, 0.1, 1.0)),
        repeats=rng.choice((0.0, 0.1, 1.0)),
        reorders=rng.random() < 0.3,
        flood=rng.choice((0, 0, 500, 3000)),
        fails=rng.random() < 0.3,
        drops=rng.choice((0.0, 0.0, 0.5)),
    )


class Taken(msgspec.Struct, frozen=True):
    """A lease that a master gave to it."""

    master: NodeId
    job: bytes
    item: GrantItem


class Liar(Host):
    """A host with habits, until it repents."""

    habits: Habits | None = None
    """What it does; None once it has repented."""

    def vow(self, habits: Habits) -> None:
        """Take up habits, before the first start."""
        self.habits = habits
        self._whim = Random(self._rng.randbytes(16))
        self._said: deque[tuple[NodeId, msg.CoreMessage]] = deque(maxlen=SAID_MAX)
        self._taken: deque[Taken] = deque(maxlen=GRANTS_MAX)
        self._met: dict[NodeId, None] = {}
        self.lies = 0

    def start(self) -> None:
        """Switch it on, and begin to lie."""
        super().start()
        if self.habits is not None:
            self._clock.after(1.0, self._lie, self.life)
            self._clock.after(self._whim.uniform(5.0, 60.0), self._flood, self.life)

    def repent(self) -> None:
        """Be honest from the next life on, which begins soon."""
        self.habits = None
        if self.alive:
            self.crash(silent=False)
            self._world.after(1.0, self.start)

    # -- what it hears and says -----------------------------------------------------------------------------------------

    def post(self, event: ev.Event, trace: bytes = b"") -> None:
        """Overhear what happens here."""
        if self.habits is not None:
            match event:
                case ev.LinkUp(peer=peer):
                    self._met[peer] = None
                case ev.Received(peer=peer, message=msg.Granted(grant=raw)):
                    self._overhear(peer, raw)
                case _:
                    pass
        super().post(event, trace)

    def _overhear(self, master: NodeId, raw: bytes) -> None:
        try:
            grant = sign.open_signed(raw, Grant, master)
        except Reject:
            return  # another liar's
        self._taken.extend(Taken(master, grant.job, item) for item in grant.items)

    def _say(self, peer: NodeId, message: msg.CoreMessage) -> None:
        habits = self.habits
        if habits is None:
            super()._say(peer, message)
            return
        self._said.append((peer, message))
        if habits.reorders:
            self._clock.after(self._whim.uniform(0.0, REORDER_S), self._say_late, self.life, peer, message)
        else:
            super()._say(peer, message)
        if self._whim.random() < habits.repeats:
            self._tell(self._whim.choice(self._met_list()), self._whim.choice(self._said)[1])

    def _say_late(self, life: int, peer: NodeId, message: msg.CoreMessage) -> None:
        if life == self.life:
            super()._say(peer, message)

    def _tell(self, peer: NodeId, message: msg.CoreMessage) -> None:
        self.lies += 1
        super()._say(peer, message)

    def _met_list(self) -> list[NodeId]:
        return list(self._met) or [self.node_id]

    # -- what it does with tasks ----------------------------------------------------------------------------------------

    def _start(self, start: fx.Start) -> None:
        if self.habits is None or self._whim.random() >= self.habits.drops:
            super()._start(start)

    def _behaviour(self, plan: JobPlan, start: fx.Start) -> tuple[float, Outcome]:
        if self.habits is not None and self.habits.fails:
            return 0.005, Outcome(reason="exit", exit=1, run_ms=5)
        return super()._behaviour(plan, start)

    # -- lies -----------------------------------------------------------------------------------------------------------

    def _flood(self, life: int) -> None:
        if life != self.life or self.habits is None or not self._met:
            return
        peer = self._whim.choice(self._met_list())
        say = self._whim.choice((self._lie_request, self._lie_heartbeat, self._lie_result, self._lie_has_work))
        for _ in range(self.habits.flood):
            self._tell(peer, say(peer))

    def _lie(self, life: int) -> None:
        if life != self.life or self.habits is None or not self.habits.lie_every_s:
            return
        if self._met:
            peer = self._whim.choice(self._met_list())
            self._tell(peer, self._whim.choice(self._lies())(peer))
        self._clock.after(self._whim.expovariate(1 / self.habits.lie_every_s), self._lie, life)

    def _lies(self) -> tuple[Callable[[NodeId], Any], ...]:
        return (
            self._lie_request, self._lie_heartbeat, self._lie_hand_back, self._lie_holding, self._lie_profile,
            self._lie_result, self._lie_result, self._lie_has_work, self._lie_grant, self._lie_receipt, self._lie_cancel,
            self._lie_nothing, self._lie_leaving,
        )  # fmt: skip

    def _lease(self, peer: NodeId) -> LeaseId:
        """Return a lease of that master: one of its own, or more likely one of somebody else."""
        mine = [taken.item.lease for taken in self._taken if taken.master == peer]
        if not mine:
            return LeaseId(self._whim.randrange(5), self._whim.randrange(100))
        lease = self._whim.choice(mine)
        off = self._whim.choice((0, 1, -1, self._whim.randint(-20, 20), 1 << 40))
        epoch = lease.epoch + self._whim.choice((0, 0, 0, 0, 1, -1))
        return LeaseId(max(0, epoch), max(0, lease.counter + off))

    def _leases(self, peer: NodeId) -> tuple[LeaseId, ...]:
        return tuple(self._lease(peer) for _ in range(self._whim.choice((0, 1, 5, 50))))

    def _lie_request(self, peer: NodeId) -> msg.Request:
        """Claim huge room, for anybody's work."""
        jobs = [taken.job for taken in self._taken if taken.master == peer]
        return msg.Request(
            nonce=self._whim.randbytes(16),
            owner=f"o{self._whim.randrange(5)}",
            cpus=self._whim.choice((0, 1, 1 << 20)),
            memory_mb=1 << 30,
            tasks_max=self._whim.choice((1, 3, 20)),
            ahead=tuple((job, 1 << 40) for job in dict.fromkeys(jobs)),
        )

    def _lie_heartbeat(self, peer: NodeId) -> msg.Heartbeat:
        return msg.Heartbeat(
            beats=tuple(msg.Beat(lease, self._whim.random() < 0.5, 500) for lease in self._leases(peer))
        )

    def _lie_hand_back(self, peer: NodeId) -> msg.Return:
        return msg.Return(
            items=tuple(msg.ReturnItem(lease, self._whim.choice(FAULTS), "a lie") for lease in self._leases(peer))
        )

    def _lie_holding(self, peer: NodeId) -> msg.Holding:
        return msg.Holding(leases=self._leases(peer))

    def _lie_profile(self, _peer: NodeId) -> msg.ProfileIs:
        slots = self._whim.choice((0, 4096))
        return msg.ProfileIs(profile=Profile(slots=slots, memory_mb=1 << 30, sandbox="strict", accepts=slots > 0))

    def _lie_result(self, peer: NodeId) -> msg.ResultReady:
        """Make up results: for leases of others, or for its own but of other tasks and attempts, or in another way come by."""
        known = [taken for taken in self._taken if taken.master == peer]
        taken = (
            self._whim.choice(known) if known else Taken(peer, self._whim.randbytes(16), GrantItem(0, 1, LeaseId(1, 0)))
        )
        mine = self._whim.random() < 0.3
        blob = BlobRef(self._whim.choice(list(self._results) or [self._whim.randbytes(32)]), 512)
        items = tuple(
            ResultItem(
                job=taken.job,
                task=max(0, taken.item.task + self._whim.choice((0, 0, 1, -1))),
                attempt=max(1, taken.item.attempt + self._whim.choice((0, 0, 1, -1))),
                lease=taken.item.lease if mine else self._lease(peer),
                outcome=self._whim.choice((Outcome(reason="ok", exit=0), Outcome(reason="exit", exit=7))),
                sandbox="strict",
                body=(blob,),
            )
            for _ in range(self._whim.choice((1, 3)))
        )
        to = peer if self._whim.random() < 0.9 else self.node_id
        result = Result(mesh=self._identity.mesh, node=to, by=self.node_id, items=items)
        return msg.ResultReady(result=sign.sign(self._key, result), subs=self._lie_subs(to, items) if mine else ())

    def _lie_subs(self, master: NodeId, items: tuple[ResultItem, ...]) -> tuple[bytes, ...]:
        """Claim to be a bridge that has handed these leases on to itself."""
        sub = SubGrant(
            mesh=self._identity.mesh,
            node=self.node_id,
            master=master,
            to=self.node_id,
            parent=bytes(32),
            nonce=bytes(16),
            leases=tuple(dict.fromkeys(item.lease for item in items)),
            expires=self._world.wall(),
        )
        return (sign.sign(self._key, sub),)

    def _lie_has_work(self, _peer: NodeId) -> msg.HasWork:
        """Announce work that is not there, or that it may not offer."""
        owner = self._identity.owner if self._whim.random() < 0.7 else f"o{self._whim.randrange(5)}"
        return msg.HasWork(counter=self._whim.randrange(1 << 20), owners=(owner,))

    def _lie_grant(self, peer: NodeId) -> msg.Granted:
        """Grant something that nobody asked for, of a job that does not exist, perhaps more than can be."""
        count = self._whim.choice((1, ITEMS_MAX))
        grant = Grant(
            mesh=self._identity.mesh,
            node=self.node_id,
            to=peer,
            nonce=self._whim.randbytes(16),
            job=JobId(self._whim.randbytes(16)),
            manifest=self._whim.randbytes(32),
            items=tuple(GrantItem(number, 1, LeaseId(1, number)) for number in range(count)),
            key=self._whim.randbytes(64),
            expires=self._world.wall(),
        )
        return msg.Granted(grant=sign.sign(self._key, grant))

    def _lie_receipt(self, peer: NodeId) -> msg.Receipted:
        """Acknowledge results of others' jobs, in its own name or with a wrong signature."""
        lease = self._lease(peer)
        author = self.node_id if self._whim.random() < 0.5 else self._whim.choice(self._met_list())
        receipt = Receipt(
            mesh=self._identity.mesh, node=author, to=peer, items=(ReceiptItem(lease, self._whim.choice(VERDICTS)),)
        )
        return msg.Receipted(receipt=sign.sign(self._key, receipt))

    def _lie_cancel(self, peer: NodeId) -> msg.Cancel:
        return msg.Cancel(leases=self._leases(peer))

    def _lie_nothing(self, _peer: NodeId) -> msg.Nothing:
        return msg.Nothing(nonce=self._whim.randbytes(16), owner="o1", counter=(1 << 53) - 1)

    def _lie_leaving(self, _peer: NodeId) -> msg.Leaving:
        return msg.Leaving()
