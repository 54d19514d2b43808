"""A bridge below another: it speaks to masters that are shown to it, and hands on what it was handed (docs/adr/0204)."""

import msgspec
import pytest

from p2pq.core import below as module
from p2pq.core import effects as fx
from p2pq.core import events as ev
from p2pq.core.below import Below
from p2pq.core.mandates import Homes
from p2pq.core.stock import GATHER_S
from p2pq.core.through import Fell, Stood, cluster_of
from p2pq.errors import Reject
from p2pq.model.ids import NodeId, Wall
from p2pq.model.notice import TooFar
from p2pq.wire import messages as msg
from p2pq.wire import sign, trust
from p2pq.wire.objects import SubGrant
from tests.unit.core.clusterkit import chain
from tests.unit.core.mesh import ROOT
from tests.unit.core.stockkit import (
    ANN,
    LEA,
    LEO,
    Bench,
    asks,
    checkpoint,
    down,
    granted,
    handed,
    introduced,
    link,
    of,
    placed,
    receipt,
    result,
    returns,
    sealed,
    worker,
)
from tests.unit.core.test_nested import leaf
from tests.unit.core.workerkit import IDENTITY, ME, MESH, WALL, Member, item, mandate, nonce

CAT, DOG, EEL = Member("cat"), Member("dog"), Member("eel")
"""Bridges, the one above this first."""
ONE, TWO, THREE = item(1), item(2, task=1), item(3, task=2)


def stood(*path: Member, **fields) -> Stood:
    """Return that ANN takes part through these bridges, the nearest first."""
    ways = path or (CAT,)
    chains = tuple((b"cert of " + each.name.encode(),) for each in ways[1:])
    plain = {"prekey": b"", "address": "", "path": tuple(each.node for each in ways), "bridges": chains}
    return Stood(link(ANN, caps=("submit",), **(plain | fields)), cluster=False)


def up(message: msg.Passed) -> fx.Send:
    return fx.Send(peer=CAT.node, message=msg.Through(node=ANN.node, message=message, cluster=True))


def shown(to: Member, *path: Member) -> fx.Send:
    ways = path or (CAT,)
    message = msg.MasterIs(
        certs=link(ANN).certs, boot=bytes(16), minor=msg.MINOR, path=tuple(each.node for each in ways),
        bridges=tuple(link(each).certs for each in ways),
    )  # fmt: skip
    return fx.Send(peer=to.node, message=message)


class Low(Bench):
    """A bridge below CAT, with leaves of its own."""

    above = (CAT,)

    def master(self, message: msg.Passed, **kwargs) -> list[fx.Effect]:
        through = msg.Through(node=ANN.node, message=message, cluster=True)
        return self.do(ev.Received(peer=CAT.node, message=through), **kwargs)

    def ready(self, *members: Member, **_: object) -> None:
        self.do(link(CAT, caps=("bridge",)))
        self.do(stood())
        for member in members:
            self.join(member)
        self.tick(after=3 * GATHER_S)
        self.flush()
        self.work()


@pytest.fixture
def bench() -> Low:
    bench = Low()
    bench.ready(LEA, LEO)
    return bench


def handed_on(items, number: int, *, giver: Member = CAT, to: Member = ME, **fields) -> msg.Granted:
    """Return a grant to the bridge above, handed on to this one."""
    whole = granted(items, number=99, to=giver.node, **fields)
    return msgspec.structs.replace(whole, subs=(sub(giver, to, whole.grant, number, *items),))


def sub(giver: Member, to: Member, parent: bytes, number: int, *items) -> bytes:
    return sign.sign(
        giver.signer,
        SubGrant(
            mesh=MESH, node=giver.node, master=ANN.node, to=to.node, parent=sign.digest(parent), nonce=nonce(number),
            leases=tuple(each.lease for each in items), expires=WALL + 60_000,
        ),
    )  # fmt: skip


# -- the way to a master -------------------------------------------------------------------------------------------------


def test_a_master_that_is_shown_is_shown_on_with_the_way_to_it() -> None:
    bench = Low()
    bench.do(link(CAT, caps=("bridge", "work")))
    bench.do(worker(LEA))
    bench.do(link(DOG, caps=("bridge",)))
    assert bench.do(stood()) == [shown(LEA), shown(DOG)], "not to where it comes from"
    assert bench.do(worker(LEO)) == [shown(LEO)]
    assert bench.do(Fell(ANN.node, CAT.node, cluster=False)) == [
        *(fx.Send(peer=each.node, message=msg.Parted(node=ANN.node)) for each in (LEA, DOG, LEO)),
        up(msg.Leaving()),
    ]
    assert bench.do(Fell(ANN.node, CAT.node, cluster=False)) == []


def test_the_bridge_above_need_not_be_told_what_it_said_itself(bench: Low) -> None:
    parted = [fx.Send(peer=each.node, message=msg.Parted(node=ANN.node)) for each in (LEA, LEO)]
    assert bench.do(Fell(ANN.node, CAT.node, cluster=False, known=True)) == parted


def test_the_way_to_a_master_ends_with_the_link_to_the_bridge_above(bench: Low) -> None:
    parted = [fx.Send(peer=each.node, message=msg.Parted(node=ANN.node)) for each in (LEA, LEO)]
    assert bench.do(ev.LinkDown(peer=CAT.node)) == parted
    assert bench.do(Fell(ANN.node, CAT.node, cluster=False)) == []
    assert bench.do(stood()) == [], "what is not linked leads nowhere"
    assert bench.stock.deadline is None


def test_a_bridge_on_the_way_is_not_shown_what_is_behind_it() -> None:
    bench = Low()
    bench.do(link(CAT, caps=("bridge",)))
    bench.do(link(DOG, caps=("bridge",)))
    bench.do(link(EEL, caps=("bridge",)))
    assert bench.do(stood(CAT, DOG)) == [shown(EEL, CAT, DOG)]


def test_nobody_is_spoken_for_to_a_master_that_is_too_far() -> None:
    bench = Low()
    bench.do(link(CAT, caps=("bridge",)))
    bench.do(worker(LEA))
    path = (CAT, DOG, EEL)
    notice = TooFar(master=ANN.node, path=tuple(each.node for each in path))
    assert bench.do(stood(*path)) == [fx.Emit(notice=notice)]
    assert bench.do(worker(LEO)) == []


@pytest.mark.parametrize(("path", "below", "rows"), [((CAT,), False, 1), ((CAT,), True, 2), ((CAT, DOG), True, 1)])
def test_leaves_of_bridges_further_down_are_waited_for_as_well(path, below: bool, rows: int) -> None:
    bench = Low()
    bench.do(link(CAT, caps=("bridge",)))
    if below:
        bench.do(link(EEL, caps=("bridge",)))
    bench.do(stood(*path))
    assert up(msg.Leaves()) not in bench.tick(after=rows * GATHER_S - 0.1)
    assert bench.tick(after=0.1) == [up(msg.Leaves()), up(msg.Holding())]


# -- attempts ------------------------------------------------------------------------------------------------------------


def test_leaves_are_introduced_and_asked_for_to_the_bridge_above() -> None:
    bench = Low()
    bench.do(link(CAT, caps=("bridge",)))
    bench.do(stood())
    bench.join(LEA)
    assert bench.tick(after=GATHER_S) == [
        up(msg.Leaves(leaves=(introduced(LEA, above=(CAT,)),))),
        up(msg.Holding()),
    ]
    assert bench.work() == [down(LEA, msg.HasWork(counter=1, owners=("ann",)))]
    bench.leaf(LEA, asks(1))
    [said] = bench.flush()
    assert said == up(asks(1, places=(msg.Place(LEA.node, 2, 4096, 1),)))


def test_what_was_handed_on_is_handed_on_again_and_every_link_of_the_chain_goes_along(bench: Low) -> None:
    bench.leaf(LEA, asks(1))
    bench.flush()
    grant = handed_on((ONE, TWO), bench.numbers)
    chain = (*grant.subs, sub(ME, LEA, grant.subs[0], 1, ONE, TWO))
    told = msgspec.structs.replace(grant, subs=chain, keys=((LEA.node, sealed(LEA)),))
    assert bench.master(grant) == [down(LEA, told)]
    assert bench.flush() == [up(msg.Report(placed=placed(LEA, ONE, TWO)))]
    raw = result(LEA, ONE)
    bench.leaf(LEA, msg.ResultReady(result=raw))
    bench.leaf(LEA, msg.Return(items=returns("refused", TWO)))
    assert up(msg.Report(results=(raw,), returns=returns("refused", TWO))) in bench.flush()


@pytest.mark.parametrize(
    ("grant", "reason"),
    [
        (granted((ONE,)), "grant: not between these two nodes"),
        (granted((ONE,), to=CAT.node), "grant: not handed on by the bridges on its way"),
        (handed_on((ONE,), 1, giver=DOG), "grant: not between these two nodes"),
        (handed_on((ONE,), 1, to=LEA), "sub-grant: not of that grant between these two nodes"),
        (handed_on((ONE,), 1, checkpoints=(checkpoint(ONE),)), "checkpoint: not for this cluster"),
    ],
)
def test_only_what_was_handed_on_from_bridge_to_bridge_is_believed(bench: Low, grant: msg.Granted, reason: str) -> None:
    bench.leaf(LEA, asks(1))
    bench.flush()
    assert bench.master(grant)[0] == fx.Drop(peer=ANN.node, reason=reason, close=True)


def test_receipts_and_checkpoints_are_for_all_that_the_outermost_bridge_speaks_for(bench: Low) -> None:
    bench.leaf(LEA, asks(1))
    bench.flush()
    raw = checkpoint(ONE, to=cluster_of(CAT.node))
    [told] = bench.master(handed_on((ONE,), bench.numbers, checkpoints=(raw,)))
    assert told.message.message.checkpoints == (raw,)
    bench.flush()
    over = receipt(ONE, to=cluster_of(CAT.node))
    assert bench.master(msg.Receipted(receipt=over)) == [down(LEA, msg.Receipted(receipt=over))]
    assert not bench.stock.holds
    [drop] = bench.master(msg.Receipted(receipt=receipt(TWO)))
    assert drop == fx.Drop(peer=ANN.node, reason="receipt: not for this cluster", close=True)


def test_what_bridges_of_no_master_here_say_is_not_heard(bench: Low) -> None:
    through = msg.Through(node=EEL.node, message=msg.Holding(), cluster=True)
    assert bench.do(ev.Received(peer=CAT.node, message=through)) == []
    through = msg.Through(node=ANN.node, message=msg.HasWork(counter=9, owners=("bob",)), cluster=True)
    assert bench.do(ev.Received(peer=LEA.node, message=through)) == [], "a worker speaks for nobody"


def test_a_bridge_above_is_shown_how_leases_came_here() -> None:
    bench = Low()
    bench.do(link(CAT, caps=("bridge",)))
    bench.do(stood())
    bench.join(LEA, ONE.lease)
    proof = handed(LEA, ONE.lease)
    assert up(msg.Holding(leases=(ONE.lease,), proofs=(proof,))) in bench.tick(after=GATHER_S)
    bench.join(LEO, TWO.lease)
    told = of(bench.flush(), msg.Report)
    assert told == [
        msg.Report(proofs=(handed(LEO, TWO.lease),)),
        msg.Report(placed=placed(LEO, TWO), beats=(msg.Beat(TWO.lease, running=False),)),
    ], "before anything is said of it"
    assert of(bench.flush(), msg.Report) == []


# -- what is known of it above -------------------------------------------------------------------------------------------


def below(bridge: Member = CAT, homes: Homes | None = None) -> Below:
    identity = msgspec.structs.replace(IDENTITY, root=ROOT.public)
    return Below(identity, bridge.node, chain(bridge, "bridge"), (ANN.node,), trust.nobody, homes or Homes())


def test_a_leaf_is_known_with_the_way_to_it_and_by_its_keycard() -> None:
    known, cat, dog = below(), chain(CAT, "bridge"), chain(DOG, "bridge")
    assert known.introduce(leaf(LEA, DOG, bridges=(dog,)), Wall(WALL), room=1) == (LEA.node, False)
    assert known.leaves == {LEA.node: leaf(LEA, CAT, DOG, bridges=(cat, dog))}
    assert known.home(LEA.node)
    near = leaf(LEA, serial=2)
    assert known.introduce(near, Wall(WALL), room=0) == (LEA.node, False)
    assert known.leaves == {LEA.node: leaf(LEA, CAT, serial=2, bridges=(cat,))}
    assert known.home(LEA.node)
    assert not known.home(LEO.node)
    assert known.introduce(leaf(LEA, DOG, serial=3), Wall(WALL), room=0) == (LEA.node, False)
    assert known.leaves == {LEA.node: leaf(LEA, CAT, DOG, serial=3)}, "of a way all is shown, or nothing"


@pytest.mark.parametrize("chains", [(chain(DOG, "work"),), (chain(EEL, "bridge"),), (chain(DOG, "bridge"),) * 2])
def test_whoever_is_shown_on_a_way_is_a_bridge(chains: tuple[tuple[bytes, ...], ...]) -> None:
    known = below()
    with pytest.raises(Reject, match="not every node on the way is known to be a bridge"):
        known.introduce(leaf(LEA, DOG, bridges=chains), Wall(WALL), room=1)
    assert known.leaves == {}


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        (leaf(LEA, serial=1), "it takes part another way by now"),
        (leaf(LEA, DOG, serial=1), "it takes part another way by now"),
        (leaf(LEA, mandate=b""), "malformed"),
        (leaf(LEA, by=DOG, serial=3), "mandate for another way"),
        (leaf(LEA, mandate=mandate(LEO, CAT, ME, serial=3)), "bad signature"),
        (leaf(LEA, mandate=mandate(LEA, CAT, ME, of=LEO, serial=3)), "mandate for another way"),
    ],
)
def test_a_leaf_that_did_not_say_that_it_takes_part_this_way_is_none(said: msg.Leaf, reason: str) -> None:
    homes = Homes()
    here, there = below(homes=homes), below(DOG, homes)
    here.introduce(leaf(LEA), Wall(WALL), room=1)
    there.introduce(leaf(LEA, by=DOG, serial=2), Wall(WALL), room=1)
    assert (here.home(LEA.node), there.home(LEA.node)) == (False, True)
    with pytest.raises(Reject, match=reason):
        here.introduce(said, Wall(WALL), room=1)
    assert there.home(LEA.node)


def test_keys_are_new_once_for_each_job_and_anew_when_they_are_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SENT_MAX", 2)
    known, both = below(), [LEA.node, LEO.node]
    assert known.new_keys(b"1", both) == both
    assert known.new_keys(b"1", both) == []
    assert known.new_keys(b"2", both[:1]) == both[:1]
    assert known.new_keys(b"2", both) == both[1:]
    known.unkey((NodeId(LEA.node), ANN.node))
    assert known.new_keys(b"2", both) == both[:1]
    assert known.new_keys(b"1", both) == both[:1]
    assert known.new_keys(b"3", both) == both
    assert known.new_keys(b"2", both) == both, "more jobs than are remembered"
    known.forget_keys()
    assert known.new_keys(b"3", both) == both
