"""A bridge that batches against any order of events: no lease is lost silently, given twice, or given to whom it is not for."""

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from p2pq.core import effects as fx
from p2pq.core import events as ev
from p2pq.core.serving import HOLD_S
from p2pq.model.config import ScheduleSettings
from p2pq.model.ids import LeaseId
from p2pq.model.job import Outcome
from p2pq.wire import codec, sign
from p2pq.wire import messages as msg
from p2pq.wire.handing import Handed
from p2pq.wire.objects import Grant, GrantItem, Result, SubGrant
from tests.unit.core.stockkit import ANN, LEA, LEO, Bench, asks, granted, master, receipt, result, smaller, worker
from tests.unit.core.workerkit import ME, MESH, OK, WALL, Member, job_id, manifest, nonce

LEAVES = {member.node: member for member in (LEA, LEO)}
JOBS = (manifest(ANN, 1), manifest(ANN, 2, priority=3), manifest(ANN, 3, only=LEO.node))
SETTINGS = ScheduleSettings()
leaves = st.sampled_from((LEA, LEO))
picks = st.integers(min_value=0, max_value=7)
seconds = st.sampled_from([0.0, 0.05, 0.3, 1.0, 2.0, 5.0, 15.0, 61.0])
outcomes = st.sampled_from([OK, Outcome(reason="exit", exit=1)])


class Bridge(RuleBasedStateMachine):
    """One master, two leaves."""

    @initialize()
    def start(self) -> None:
        self.bench = Bench()
        self.counter = 0
        self.leases = 0
        self.nonces = 0
        self.linked = False
        self.up: set[bytes] = set()
        """Workers that are linked."""
        self.asked: msg.Request | None = None
        """The last request of the cluster that was not answered."""
        self.granted: dict[LeaseId, GrantItem] = {}
        """What the master has granted and not heard the end of."""
        self.avoid: dict[LeaseId, bytes] = {}
        self.given: dict[LeaseId, bytes] = {}
        """Which leaf was given what: for good, as a lease is given once."""
        self.ways: dict[LeaseId, tuple[bytes, bytes]] = {}
        """By which grant and sub-grant."""
        self.open: dict[tuple[bytes, bytes], tuple[msg.Request, float]] = {}
        self.placed: dict[LeaseId, bytes] = {}
        """Of whom the master was told."""
        self.told = False
        self.do(ev.Tick())
        self.link_up(LEA)
        self.link_up(LEO)
        self.link_master()
        self.leaf_enters(LEA, 0)
        self.leaf_enters(LEO, 0)
        self.wait(5.0)
        self.master_announces(some=True)

    # -- everything that comes out is checked ---------------------------------------------------------------------------

    def do(self, event: ev.Event, after: float = 0.0) -> list[fx.Effect]:
        effects = self.bench.do(event, after=after)
        for effect in effects:
            if isinstance(effect, fx.Send):
                raw = codec.encode(effect.message)
                assert codec.decode_lenient(raw, msg.Message, size_max=len(raw)) == effect.message, "out of bounds"
                assert effect.peer in self.up or (effect.peer == ANN.node and self.linked), "said to nobody"
                if isinstance(effect.message, msg.Through):
                    if effect.peer == ANN.node:
                        self.heard(effect.message.message)
                    else:
                        self.answered(LEAVES[effect.peer], effect.message.message)
            else:
                assert isinstance(effect, fx.Drop)
        if self.linked:
            self.account()
        for _, since in self.open.values():
            assert self.bench.now < since + HOLD_S, "a request was not answered"
        return effects

    def heard(self, message: msg.Passed) -> None:
        """The master hears something of the cluster."""
        match message:
            case msg.Leaves():
                self.told = True
            case msg.Holding():
                assert self.told, "who the cluster is comes first"
            case msg.Report():
                assert self.told
                for lease, leaf in message.placed:
                    assert self.given.get(lease, leaf) == leaf, "given to another leaf than is said"
                    self.placed[lease] = leaf
                for item in message.returns:
                    self.granted.pop(item.lease, None)
                self.shown(message)
            case msg.Request():
                assert self.told
                assert self.asked is None, "asked twice at a time"
                rooms = sum(place.cpus for place in message.places)
                assert message.cpus == rooms
                self.asked = message
            case _:
                raise AssertionError(message)

    def shown(self, report: msg.Report) -> None:
        """Each result that is heard, strays too, comes with how its lease was handed on; of nothing else anything is told."""
        handed = Handed(report.subs, MESH, ANN.node)
        told = set()
        for raw in (*report.results, *report.strays):
            for entry in (word := sign.open_claimed(raw, Result, lambda claimed: claimed.by)).items:
                if entry.lease in self.ways:
                    grant, sub = self.ways[entry.lease]
                    (step,) = way = handed.way(entry.lease, word.by)
                    leases = tuple(item.lease for item in sign.open_signed(grant, Grant, ANN.node).items)
                    assert step.raw == sub
                    assert handed.begins(way, sign.digest(grant), ME.node, leases)
                    told.add(sub)
        assert set(report.subs) == told
        assert len(report.subs) == len(told)

    def answered(self, leaf: Member, message: msg.Passed) -> None:
        """A leaf hears something of the master."""
        match message:
            case msg.Granted():
                grant = sign.open_signed(message.grant, Grant, ANN.node)
                (raw,) = message.subs
                sub = sign.open_signed(raw, SubGrant, ME.node)
                request, _ = self.open.pop((leaf.node, sub.nonce))
                assert (sub.to, sub.parent, sub.node) == (leaf.node, sign.digest(message.grant), grant.to)
                assert [node for node, _ in message.keys] == [leaf.node]
                order = [item.lease for item in grant.items]
                assert [lease for lease in order if lease in sub.leases] == list(sub.leases)
                assert 0 < len(sub.leases) <= request.tasks_max
                assert leaf is LEO or grant.job != JOBS[2].job, "given to whom it is not for"
                for lease in sub.leases:
                    assert lease not in self.given, "given twice"
                    assert self.avoid.get(lease) != leaf.node, "given to whom is to be avoided"
                    self.given[lease] = leaf.node
                    self.ways[lease] = message.grant, raw
            case msg.Nothing(nonce=number):
                del self.open[leaf.node, number]
            case msg.HasWork() | msg.Cancel() | msg.Receipted() | msg.Confirmed():
                pass
            case _:
                raise AssertionError(message)

    def account(self) -> None:
        """Whatever was granted is in stock, at a leaf, or about to be handed back."""
        cluster = self.bench.stock._clusters[ANN.node]
        for lease in self.granted:
            places = (lease in cluster._shelf, cluster.leaf_of(lease) is not None, lease in cluster._batch.returns)
            assert any(places), f"{lease} is lost"
            assert not (places[0] and places[1])

    # -- links ----------------------------------------------------------------------------------------------------------

    def link_up(self, leaf: Member) -> None:
        self.up.add(leaf.node)
        self.forget_open(leaf)
        self.do(worker(leaf))
        self.bench.card(leaf)

    def forget_open(self, leaf: Member) -> None:
        self.open = {key: value for key, value in self.open.items() if key[0] != leaf.node}

    @rule(leaf=leaves, what=st.sampled_from(("comes", "goes", "leaves", "master", "no master")))
    def links_change(self, leaf: Member, what: str) -> None:
        match what:
            case "comes":
                self.link_up(leaf)
            case "goes":
                self.forget_open(leaf)
                self.up.discard(leaf.node)
                self.do(ev.LinkDown(peer=leaf.node))
            case "leaves":
                self.forget_open(leaf)
                self.say(leaf, msg.Leaving())
            case "master":
                self.link_master()
            case _:
                self.reset()
                self.linked = False
                self.do(ev.LinkDown(peer=ANN.node))

    def reset(self) -> None:
        """With its link the master loses what the cluster has in stock; leaves keep what they have."""
        self.told, self.asked = False, None
        self.granted.clear()
        self.open.clear()

    def link_master(self) -> None:
        self.reset()
        self.linked = True
        self.do(master())

    # -- leaves ---------------------------------------------------------------------------------------------------------

    def say(self, leaf: Member, message: msg.Passed) -> None:
        self.do(ev.Received(peer=leaf.node, message=msg.Through(node=ANN.node, message=message)))

    def mine(self, leaf: Member) -> list[LeaseId]:
        return [lease for lease, holder in self.given.items() if holder == leaf.node]

    @rule(leaf=leaves, pick=picks)
    def leaf_enters(self, leaf: Member, pick: int) -> None:
        """It names what it holds: all but one."""
        held = self.mine(leaf)
        if leaf.node in self.up and self.linked:
            del held[pick : pick + 1]
            self.say(leaf, self.bench.holding(leaf, *held))
            self.say(leaf, msg.ProfileIs(profile=smaller(slots=4)))

    @rule(leaf=leaves, cpus=st.integers(0, 4), ahead=st.booleans(), at_once=st.booleans())
    def leaf_asks(self, leaf: Member, cpus: int, ahead: bool, at_once: bool) -> None:
        if leaf.node not in self.up or not self.linked:
            return
        self.nonces += 1
        request = asks(
            self.nonces, cpus=cpus, tasks_max=max(1, cpus) + 2 * ahead, ahead=((job_id(1), 2),) if ahead else ()
        )
        self.open[leaf.node, nonce(self.nonces)] = (request, self.bench.now)
        self.say(leaf, request)
        if at_once:
            self.wait(0.05)

    @rule(leaf=leaves, pick=picks)
    def leaf_renews(self, leaf: Member, pick: int) -> None:
        beats = tuple(msg.Beat(lease) for lease in self.mine(leaf)[pick:])
        self.say(leaf, msg.Heartbeat(beats=beats))

    @rule(leaf=leaves, pick=picks, outcome=outcomes)
    def leaf_ends_one(self, leaf: Member, pick: int, outcome: Outcome) -> None:
        for lease in self.mine(leaf)[pick : pick + 1]:
            raw = result(leaf, GrantItem(0, 1, lease), outcome=outcome)
            self.say(leaf, msg.ResultReady(result=raw, subs=self.ways[lease][1:] if lease in self.ways else ()))

    @rule(leaf=leaves, pick=picks)
    def leaf_hands_back(self, leaf: Member, pick: int) -> None:
        items = tuple(msg.ReturnItem(lease, "evicted") for lease in self.mine(leaf)[pick : pick + 2])
        if items:
            self.say(leaf, msg.Return(items=items))

    # -- the master -----------------------------------------------------------------------------------------------------

    def order(self, message: msg.Passed) -> None:
        if self.linked:
            self.do(ev.Received(peer=ANN.node, message=msg.Through(node=self.bench.stock._me, message=message)))

    @rule(some=st.booleans())
    def master_announces(self, some: bool) -> None:
        self.counter += 1
        self.order(msg.HasWork(counter=self.counter, owners=("ann",) if some else ()))

    @rule(
        of=st.sampled_from(JOBS),
        count=st.integers(1, 8),
        avoid=st.sampled_from((None, LEA, LEO)),
        keys=st.sampled_from(((LEA, LEO), (LEA, LEO), ())),
        how=st.sampled_from(("soon", "slowly", "slowly", "too late")),
    )
    def master_grants(self, of, count: int, avoid: Member | None, keys: tuple[Member, ...], how: str) -> None:
        """Where it takes longer than leaves are made to wait, it all comes into stock."""
        if self.asked is None and self.linked:
            self.leaf_asks(LEA, cpus=4, ahead=False, at_once=True)
        if how == "slowly":
            self.wait(1.0)
        if self.asked is None or not self.linked:
            return
        late = how == "too late"
        items = []
        for _ in range(min(count, self.asked.tasks_max)):
            self.leases += 1
            items.append(GrantItem(self.leases % 1000, 1, LeaseId(1, self.leases)))
        number = 0 if late else int.from_bytes(self.asked.nonce, "big")
        avoided = () if avoid is None else ((items[0].lease, avoid.node),)
        self.avoid |= dict(avoided)
        self.granted |= {item.lease: item for item in items}
        if not late:
            self.asked = None
        expires = WALL + round(self.bench.now * 1000) + 60_000
        self.order(granted(tuple(items), number=number, of=of, keys=keys, avoid=avoided, expires=expires))

    @rule()
    def master_has_nothing(self) -> None:
        if self.asked is not None:
            asked, self.asked = self.asked, None
            self.order(msg.Nothing(nonce=asked.nonce, owner="ann", counter=self.counter))

    @rule(tasks=st.integers(1, 4))
    def master_recalls(self, tasks: int) -> None:
        self.order(msg.Recall(tasks=tasks))

    @rule(pick=picks)
    def master_cancels(self, pick: int) -> None:
        over = tuple(self.granted)[pick : pick + 2]
        for lease in over:
            del self.granted[lease]
        if over:
            self.order(msg.Cancel(leases=over))

    @rule(pick=picks)
    def master_has_results(self, pick: int) -> None:
        for lease in [lease for lease in self.placed if lease in self.granted][pick : pick + 1]:
            self.order(msg.Receipted(receipt=receipt(self.granted.pop(lease))))

    # -- time -----------------------------------------------------------------------------------------------------------

    @rule(after=seconds)
    def wait(self, after: float) -> None:
        """Let time pass, deadline by deadline."""
        until = self.bench.now + after
        while (at := self.bench.stock.deadline) is not None and at <= until:
            self.tick(at - self.bench.now)
        self.tick(until - self.bench.now)

    def tick(self, after: float) -> None:
        cluster = self.bench.stock._clusters.get(ANN.node)
        if cluster is not None:
            for placed in cluster._tenants:
                if placed.ended:  # its result has been passed on, and nothing more need be known of it
                    self.granted.pop(placed.lease, None)
            asked = cluster._restock.asked
            if asked is not None and self.bench.now + after >= asked.at + SETTINGS.request_s:
                self.asked = None
        self.do(ev.Tick(), after=max(0.0, after))


Bridge.TestCase.settings = settings(max_examples=80, stateful_step_count=40, deadline=None)
TestBridge = Bridge.TestCase
