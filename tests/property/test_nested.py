"""A bridge above another against any order of events: no lease is lost silently, given twice, or given to whom it is not for."""

from itertools import chain

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from p2pq.core import effects as fx
from p2pq.core import events as ev
from p2pq.model.ids import LeaseId
from p2pq.wire import messages as msg
from p2pq.wire import sign
from p2pq.wire.objects import Grant, GrantItem, SubGrant
from tests.unit.core.stockkit import ANN, LEA, LEO, granted, receipt, result
from tests.unit.core.test_nested import CAT, ROWS_S, Row, bridge, leaf, master, place, shown, wants
from tests.unit.core.workerkit import ME, Member

LEAVES = {member.node: member for member in (LEA, LEO)}
leaves = st.sampled_from((LEA, LEO))
picks = st.integers(min_value=0, max_value=7)
seconds = st.sampled_from([0.0, 0.05, 0.3, 1.0, 2.0, 5.0, 15.0])


class Upper(RuleBasedStateMachine):
    """One master, and a bridge below that is honest but forgets all whenever its link is gone."""

    @initialize()
    def start(self) -> None:
        self.bench = Row()
        self.counter = self.leases = self.asks = 0
        self.linked = False
        self.asked: msg.Request | None = None
        """The last request to the master that was not answered."""
        self.open: dict[LeaseId, GrantItem] = {}
        """What the master has granted and has not heard the end of."""
        self.avoid: dict[LeaseId, bytes] = {}
        self.given: set[LeaseId] = set()
        """For good, as a lease is given once."""
        self.held: dict[LeaseId, Member | None] = {}
        """What the bridge below has, and who of its leaves, if one has it."""
        self.shown: set[bytes] = set()
        """Leaves that the bridge below has told of."""
        self.placed: dict[LeaseId, bytes] = {}
        self.do(master())
        self.comes()
        self.wait(ROWS_S)
        self.announces(some=True)

    def do(self, event: ev.Event) -> None:
        self.take(self.bench.do(event))

    def below(self, message: msg.Passed) -> None:
        if self.linked:
            self.take(self.bench.below(message))

    def take(self, effects: list[fx.Effect]) -> None:
        for effect in effects:
            assert isinstance(effect, fx.Send), effect
            match effect.message:
                case msg.Through(message=message) if effect.peer == ANN.node:
                    self.master_hears(message)
                case msg.Through(node=node, message=message, cluster=cluster):
                    assert self.linked, "said to nobody"
                    assert (effect.peer, node, cluster) == (CAT.node, ANN.node, True)
                    self.below_hears(message)
                case other:
                    assert isinstance(other, msg.MasterIs), other

    def master_hears(self, message: msg.Passed) -> None:
        match message:
            case msg.Request():
                assert len({each.leaf for each in message.places}) == len(message.places)
                assert {each.leaf for each in message.places} <= LEAVES.keys()
                self.asked = message
            case msg.Report(placed=placed, beats=beats, returns=returns):
                for lease, node in placed:
                    assert lease in self.given, "at a leaf, and never given"
                    assert node != self.avoid.get(lease), "at a leaf that it was to avoid"
                    self.placed[lease] = node
                assert all(beat.lease in self.given | self.open.keys() for beat in beats)
                for item in returns:
                    self.open.pop(item.lease, None)
            case msg.Holding(leases=leases):
                for lease in [lease for lease in self.open if lease not in leases]:
                    del self.open[lease]
            case _:
                assert isinstance(message, msg.Leaves), message

    def below_hears(self, message: msg.Passed) -> None:
        match message:
            case msg.Granted(grant=grant, subs=(sub,), avoid=avoid):
                whole = sign.open_signed(grant, Grant, ANN.node)
                part = sign.open_signed(sub, SubGrant, ME.node)
                assert part.to == CAT.node
                assert part.parent == sign.digest(grant)
                assert not self.given & {*part.leases}, "given twice"
                assert {*part.leases} <= {item.lease for item in whole.items}
                for lease in part.leases:
                    assert self.avoid.get(lease) in {None, *(node for each, node in avoid if each == lease)}
                self.given |= {*part.leases}
                self.held |= dict.fromkeys(part.leases)
            case msg.Cancel(leases=leases):
                for lease in leases:
                    self.held.pop(lease, None)
            case msg.Recall(tasks=tasks):
                waiting = [lease for lease, member in self.held.items() if member is None]
                self.gives_back(waiting[:tasks])
            case _:
                assert isinstance(message, msg.Nothing | msg.HasWork | msg.Receipted), message

    # -- what happens ----------------------------------------------------------------------------------------------------

    @rule()
    def comes(self) -> None:
        """The bridge below links up, and knows of nothing but what its leaves hold."""
        if not self.linked:
            self.linked = True
            self.do(bridge())
            self.held = {lease: member for lease, member in self.held.items() if member is not None}
            self.below(msg.Leaves(leaves=tuple(map(leaf, LEAVES.values()))))
            had = {member: [lease for lease, who in self.held.items() if who is member] for member in LEAVES.values()}
            proofs = [
                shown(member, *(GrantItem(0, 1, lease) for lease in leases)) for member, leases in had.items() if leases
            ]
            self.below(msg.Holding(leases=tuple(self.held), proofs=tuple(chain.from_iterable(proofs))))
            self.below(msg.Report(placed=tuple((lease, member.node) for lease, member in self.held.items() if member)))

    @rule()
    def goes(self) -> None:
        if self.linked:
            self.linked = False
            self.do(ev.LinkDown(peer=CAT.node))

    @rule(first=picks, second=picks, ahead=picks)
    def asks_for(self, first: int, second: int, ahead: int) -> None:
        places = tuple(place(member, count) for member, count in ((LEA, first), (LEO, second)) if count)
        if places or ahead:
            self.asks += 1
            self.below(wants(self.asks, *places, ahead=ahead))

    @rule(count=picks, avoided=st.none() | leaves, keys=st.just({LEA, LEO}) | st.sets(leaves))
    def grants(self, count: int, avoided: Member | None, keys: set[Member]) -> None:
        if self.asked is None:
            self.comes()
            self.announces(some=True)
            self.asks_for(2, 2, 3)
            self.wait(0.1)
        if self.asked is None:
            return
        asked, self.asked = self.asked, None
        count = min(count, asked.tasks_max)
        if not count:
            nothing = msg.Nothing(nonce=asked.nonce, owner="ann", counter=self.counter)
            self.take(self.bench.master(nothing))
            return
        items = tuple(GrantItem(self.leases + number, 1, LeaseId(1, self.leases + number)) for number in range(count))
        self.leases += count
        self.open |= {each.lease: each for each in items}
        if avoided is not None:
            self.avoid[items[0].lease] = avoided.node
        avoid = () if avoided is None else ((items[0].lease, avoided.node),)
        by_name = tuple(sorted(keys, key=lambda member: member.name))
        self.take(self.bench.master(granted(items, nonce=asked.nonce, keys=by_name, avoid=avoid)))

    @rule(some=st.booleans())
    def announces(self, some: bool) -> None:
        self.counter += 1
        self.take(self.bench.master(msg.HasWork(counter=self.counter, owners=("ann",) if some else ())))

    @rule(member=leaves, count=picks)
    def places(self, member: Member, count: int) -> None:
        """Leaves get some of what waits at the bridge below."""
        if not self.linked:
            return
        waiting = [lease for lease, who in self.held.items() if who is None and self.avoid.get(lease) != member.node]
        got = waiting[: count + 1]
        self.held |= dict.fromkeys(got, member)
        self.below(msg.Report(placed=tuple((lease, member.node) for lease in got), beats=tuple(map(msg.Beat, got))))

    @rule(count=picks)
    def hands_back(self, count: int) -> None:
        if self.linked:
            self.gives_back(list(self.held)[:count])

    def gives_back(self, leases: list[LeaseId]) -> None:
        if not leases:
            return
        for lease in leases:
            del self.held[lease]
        self.below(msg.Report(returns=tuple(msg.ReturnItem(lease, "recalled") for lease in leases)))

    @rule(pick=picks)
    def ends(self, pick: int) -> None:
        """An attempt ends at a leaf, and its master says that it has the result."""
        self.places(LEA, 0)
        self.places(LEO, 0)
        running = [lease for lease, member in self.held.items() if member is not None and lease in self.open]
        if not (self.linked and running):
            return
        lease = running[pick % len(running)]
        member = self.held.pop(lease)
        assert member is not None
        entry = self.open.pop(lease)
        self.below(msg.Report(results=(result(member, entry),)))
        self.wait(1.0)
        self.take(self.bench.master(msg.Receipted(receipt=receipt(entry))))

    @rule(pick=picks)
    def cancels(self, pick: int) -> None:
        if self.open:
            lease = list(self.open)[pick % len(self.open)]
            del self.open[lease]
            self.take(self.bench.master(msg.Cancel(leases=(lease,))))

    @rule(tasks=st.integers(1, 8))
    def recalls(self, tasks: int) -> None:
        self.take(self.bench.master(msg.Recall(tasks=tasks)))

    @rule(wait_s=seconds)
    def wait(self, wait_s: float) -> None:
        self.bench.now += wait_s
        self.do(ev.Tick())
        self.below(msg.Report(beats=tuple(map(msg.Beat, self.held))))

    def teardown(self) -> None:
        """Whatever the bridge below has lost or never says anything of again is handed back in the end."""
        if not hasattr(self, "bench"):
            return
        for _ in range(12):
            self.bench.now += 15.0
            self.do(ev.Tick())
        assert self.open == {}, "lost silently"
        assert not self.bench.stock.holds


Upper.TestCase.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
TestUpper = Upper.TestCase
