"""The master against clusters in any order of events: leaves that come, move and lie, bridges and a master that restart."""

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from p2pq.core import effects as fx
from p2pq.core import events as ev
from p2pq.core import records as r
from p2pq.model.ids import JobId, LeaseId
from p2pq.model.job import Outcome
from p2pq.wire import messages as msg
from p2pq.wire import sign
from p2pq.wire.objects import Grant, GrantItem, Receipt
from tests.unit.core.clusterkit import BRIDGE, CAT, DOG, EMU, FOX, OTHER, Cluster, leaf, place
from tests.unit.core.mesh import (
    BAD,
    MASTER,
    OK,
    PROFILE,
    WALL,
    Bench,
    Member,
    granted,
    job_id,
    ready,
    result_item,
    submitted,
)

LEAVES = (CAT, DOG, EMU, FOX)
"""FOX has a link of its own now and then."""
NAMES = {member.node: member for member in LEAVES}
leaves = st.sampled_from(LEAVES)
sides = st.sampled_from([0, 1])
picks = st.integers(min_value=0, max_value=7)
outcomes = st.sampled_from([OK, OK, BAD, Outcome(reason="runner-died"), Outcome(reason="saved")])
faults = st.sampled_from(["late", "refused", "no-manifest", "recalled", "disk", "lost"])
seconds = st.sampled_from([0.0, 0.06, 1.0, 3.0, 15.0, 61.0])


class Clusters(RuleBasedStateMachine):
    """One queue, two bridges, four leaves."""

    @initialize()
    def start(self) -> None:
        self.bench = Bench()
        self.clusters = (Cluster(self.bench, BRIDGE), Cluster(self.bench, OTHER))
        self.attempts: list[tuple[int, int, GrantItem]] = []
        """Whatever was ever granted to a cluster: to which, of which job."""
        self.up: set[bytes] = set()
        self.collecting: list[LeaseId] = []
        self.settled: set[tuple[JobId, int]] = set()
        self.leases: set[LeaseId] = set()
        self.receipts: set[LeaseId] = set()
        self.do(ev.Tick())
        for number, tasks in ((1, 6), (2, 4)):
            self.do(submitted(number, tasks=tasks, retries=2))
        for side in (0, 1):
            self.join(side)

    def do(self, event: ev.Event, after: float = 0.0) -> list[fx.Effect]:
        effects = self.bench.do(event, after=after)
        for effect in effects:
            match effect:
                case fx.Record(row=r.LeaseGranted() as row):
                    assert row.lease not in self.leases, "a lease was granted twice"
                    assert (row.job, row.task) not in self.settled, "a task that is over was granted"
                    self.leases.add(row.lease)
                case fx.Record(row=r.AttemptEnded() as row):
                    assert row.worker in NAMES, "an attempt that no leaf has signed for counts"
                    if row.state in {"done", "failed"}:
                        assert (row.job, row.task) not in self.settled, "a task was settled twice"
                        self.settled.add((row.job, row.task))
                case fx.Collect(lease=lease, peer=peer):
                    assert peer in NAMES, "a result is taken from nobody who has it"
                    self.collecting.append(lease)
                case fx.Send(peer=peer, message=msg.Receipted() as message):
                    receipt = sign.open_signed(message.receipt, Receipt, MASTER.node)
                    assert receipt.to == peer in self.up
                    for item in receipt.items:
                        assert item.verdict == "late" or item.lease not in self.receipts, "two verdicts"
                        self.receipts.add(item.lease)
                case fx.Send(peer=peer):
                    assert peer in self.up, "said something to somebody who is not there"
                case _:
                    pass
        self.agree()
        return effects

    def agree(self) -> None:
        """What is live here is live on the disk, and no task was lost on the way down."""
        restored = self.bench.disk.restored()
        live = {lease.lease: (lease.job, lease.task) for lease in restored.leases}
        for job in self.bench.queue.jobs():
            for task in self.bench.queue.tasks(job.job):
                assert (task.state == "running") == (task.lease in live)
            assert job.running == len({where for where in live.values() if where[0] == job.job})
            self.bench.queue.why(job.job, 0, self.bench.now)

    def says(self, side: int, message: msg.CoreMessage, after: float = 0.0) -> list[fx.Effect]:
        return self.do(ev.Received(peer=self.clusters[side].node, message=message), after)

    # -- bridges and leaves -----------------------------------------------------------------------------------------------

    @rule(side=sides)
    def join(self, side: int) -> None:
        cluster = self.clusters[side]
        self.up.add(cluster.node)
        self.do(cluster.up())
        own = LEAVES[side * 2 : side * 2 + 2]
        self.says(side, msg.Leaves(leaves=tuple(map(leaf, own))))

    @rule(side=sides, every=st.integers(1, 3))
    def holding(self, side: int, every: int) -> None:
        mine = tuple(item.lease for holder, _, item in self.attempts if holder == side)
        self.says(side, msg.Holding(leases=mine[::every]))

    @rule(side=sides)
    def down(self, side: int) -> None:
        self.up.discard(self.clusters[side].node)
        self.do(ev.LinkDown(peer=self.clusters[side].node))

    @rule(side=sides, member=leaves, comes=st.booleans())
    def move(self, side: int, member: Member, comes: bool) -> None:
        self.says(side, msg.Leaves(leaves=(leaf(member),)) if comes else msg.Leaves(gone=(member.node,)))

    @rule(up=st.booleans())
    def fox_links_up(self, up: bool) -> None:
        if up:
            self.up.add(FOX.node)
            self.do(FOX.link_up())
            self.do(ev.Received(peer=FOX.node, message=msg.ProfileIs(profile=PROFILE)))
        else:
            self.up.discard(FOX.node)
            self.do(ev.LinkDown(peer=FOX.node))

    @rule(member=leaves)
    def expel(self, member: Member) -> None:
        for effect in self.bench.queue.expel(member.node, self.bench.now):
            if isinstance(effect, fx.Record):
                self.bench.disk.apply(effect.row)
        self.bench.queue.check()
        self.agree()

    # -- work -------------------------------------------------------------------------------------------------------------

    @rule(
        side=sides,
        rooms=st.lists(st.integers(0, 3), min_size=4, max_size=4),
        ahead=st.integers(0, 3),
        job=st.integers(1, 2),
    )
    def request(self, side: int, rooms: list[int], ahead: int, job: int) -> None:
        places = tuple(place(member, cpus) for member, cpus in zip(LEAVES, rooms, strict=True) if cpus)
        request = self.bench.request(cpus=sum(rooms), places=places, tasks_max=8, ahead=((job_id(job), ahead),))
        effects = self.says(side, request)
        for message in (each.message for each in effects if isinstance(each, fx.Send)):
            if isinstance(message, msg.Granted):
                self.check_grant(side, message, places, ahead if job_id(job) == self.job_of(message) else 0)
        number = next((int.from_bytes(self.job_of(each.message), "big") for each in effects if _grants(each)), 0)
        self.attempts += [(side, number, item) for item in granted(effects)]

    @staticmethod
    def job_of(message: msg.Granted) -> bytes:
        return sign.open_signed(message.grant, Grant, MASTER.node).job

    def check_grant(self, side: int, message: msg.Granted, places: tuple[msg.Place, ...], ahead: int) -> None:
        """Leaves have room for all that was granted but for what was asked for ahead, and for each at one it need not avoid."""
        grant = sign.open_signed(message.grant, Grant, MASTER.node)
        assert (grant.to, grant.key) == (self.clusters[side].bridge.node, b"")
        room = {each.leaf: each.cpus for each in places}
        assert len(grant.items) <= sum(room.values()) + ahead
        shunned = {item.lease: {leaf for lease, leaf in message.avoid if lease == item.lease} for item in grant.items}
        assert {lease for lease, _ in message.avoid} <= shunned.keys()
        for member in LEAVES:
            avoiding = sum(member.node in who for who in shunned.values())
            assert avoiding <= sum(room.values()) - room.get(member.node, 0) + ahead, "it would wait at the bridge"
        hand = self.bench.queue.crew.get(self.clusters[side].node)
        stock = hand.cluster.leaves.keys() if ahead else room.keys()
        assert {leaf for leaf, _ in message.keys} <= room.keys() | stock, (
            "a key for nobody who asked, or may have of the stock"
        )

    @precondition(lambda self: self.attempts)
    @rule(side=sides, pick=picks, member=leaves)
    def placed(self, side: int, pick: int, member: Member) -> None:
        self.says(side, msg.Report(placed=((self.attempt(pick)[2].lease, member.node),)))

    @rule(side=sides, every=st.integers(1, 3), running=st.booleans())
    def beats(self, side: int, every: int, running: bool) -> None:
        mine = [item.lease for holder, _, item in self.attempts if holder == side]
        self.says(side, msg.Report(beats=tuple(msg.Beat(lease, running) for lease in mine[::every])))

    @precondition(lambda self: self.attempts)
    @rule(side=sides, pick=picks, fault=faults)
    def give_back(self, side: int, pick: int, fault: str) -> None:
        self.says(side, msg.Report(returns=(msg.ReturnItem(self.attempt(pick)[2].lease, fault),)))

    @precondition(lambda self: self.attempts)
    @rule(side=sides, pick=picks, member=leaves, outcome=outcomes, checkpoint=st.booleans())
    def result(self, side: int, pick: int, member: Member, outcome: Outcome, checkpoint: bool) -> None:
        _, number, item = self.attempt(pick)
        raw = ready(member, result_item(item, outcome, number, checkpoint=checkpoint)).result
        self.says(side, msg.Report(results=(raw,)))

    @precondition(lambda self: self.attempts)
    @rule(pick=picks, outcome=outcomes)
    def fox_brings(self, pick: int, outcome: Outcome) -> None:
        _, number, item = self.attempt(pick)
        self.do(ev.Received(peer=FOX.node, message=msg.Heartbeat(beats=(msg.Beat(item.lease),))))
        self.do(ev.Received(peer=FOX.node, message=ready(FOX, result_item(item, outcome, number))))

    def attempt(self, pick: int) -> tuple[int, int, GrantItem]:
        return self.attempts[-1 - pick % len(self.attempts)]

    @precondition(lambda self: self.collecting)
    @rule(pick=picks, good=st.sampled_from([True, True, False]))
    def collected(self, pick: int, good: bool) -> None:
        lease = self.collecting.pop(pick % len(self.collecting))
        self.do(ev.Collected(lease=lease) if good else ev.CollectFailed(lease=lease, reason="x"))

    @rule(after=seconds)
    def time_passes(self, after: float) -> None:
        self.do(ev.Tick(), after)

    @rule()
    def master_restarts(self) -> None:
        self.up.clear()
        self.collecting.clear()
        self.bench.boot()
        self.do(ev.Tick())
        for side in (0, 1):
            self.join(side)

    def teardown(self) -> None:
        """Whatever happened: once a bridge and its leaves do what they must, every job ends."""
        if not hasattr(self, "bench"):
            return
        self.down(1)
        self.join(0)
        self.says(0, msg.Holding())
        places = (place(CAT, 4), place(DOG, 4))
        for _ in range(300):
            if not self.bench.queue.jobs():
                break
            effects = self.says(0, self.bench.request(cpus=8, places=places, tasks_max=8))
            for item in granted(effects):
                number = next(int.from_bytes(self.job_of(each.message), "big") for each in effects if _grants(each))
                avoided = next(each.message.avoid for each in effects if _grants(each))
                member = DOG if (item.lease, CAT.node) in avoided else CAT
                self.says(0, msg.Report(results=(ready(member, result_item(item, OK, number)).result,)))
            while self.collecting:
                self.do(ev.Collected(lease=self.collecting.pop()))
            for job in self.bench.queue.jobs():
                for task in self.bench.queue.tasks(job.job):
                    self.do(ev.Delivered(job=job.job, task=task.task, wall=WALL))
            if (deadline := self.bench.queue.deadline) is not None:
                self.do(ev.Tick(), deadline - self.bench.now)
        assert not self.bench.queue.jobs(), "a job never ended"


def _grants(effect: fx.Effect) -> bool:
    return isinstance(effect, fx.Send) and isinstance(effect.message, msg.Granted)


TestClusters = Clusters.TestCase
TestClusters.settings = settings(max_examples=40, stateful_step_count=40, deadline=None)
