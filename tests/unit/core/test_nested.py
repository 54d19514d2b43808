"""A bridge above another: it stands for many leaves, and nothing is lost or believed on the way (docs/adr/0204)."""

import msgspec
import pytest

from p2pq.core import effects as fx
from p2pq.core import events as ev
from p2pq.core import nested
from p2pq.core.stock import GATHER_S
from p2pq.core.through import cluster_of
from p2pq.model.ids import NodeId, short
from p2pq.model.job import Outcome
from p2pq.wire import messages as msg
from p2pq.wire import prims, sign
from p2pq.wire.objects import BlobRef, Keycard, Result, SubGrant
from tests.unit.core.clusterkit import chain
from tests.unit.core.stockkit import (
    ANN,
    LEA,
    LEO,
    WINDOW_S,
    Bench,
    asks,
    down,
    granted,
    handed,
    link,
    master,
    of,
    placed,
    receipt,
    result,
    returns,
    sealed,
    up,
)
from tests.unit.core.workerkit import ME, MESH, PROFILE, WALL, Member, item, job_id, mandate, nonce, result_item

CAT, DOG = Member("cat"), Member("dog")
"""Bridges below."""
TOM = Member("tom")
"""A leaf of this very bridge."""
ONE, TWO, THREE = item(1), item(2, task=1), item(3, task=2)
ROWS_S = 3 * GATHER_S
"""So long leaves of bridges in a row may take."""


def bridge(member: Member = CAT, **fields) -> ev.LinkUp:
    return link(member, caps=("bridge",), **fields)


def card(member: Member, **fields) -> bytes:
    plain = {
        "mesh": MESH, "node": member.node, "boot": bytes(16), "prekey": member.prekey, "iat": WALL, "exp": WALL + 1,
    }  # fmt: skip
    return sign.sign(member.signer, Keycard(**(plain | fields)))


def leaf(member: Member, *path: Member, by: Member = CAT, serial: int = 1, **fields) -> msg.Leaf:
    """Return what a bridge below says of a leaf; or, where it is on the path itself, what is passed on of that."""
    further = path[1:] if [each.node for each in path[:1]] == [by.node] else path
    word = mandate(member, *(*reversed(further), by, ME)[: msg.HOPS_MAX], serial=serial)
    plain = {"certs": chain(member), "card": card(member), "profile": PROFILE, "mandate": word}
    return msg.Leaf(**(plain | {"path": tuple(each.node for each in path)} | fields))


def told(member: Member) -> msg.Leaf:
    """Return what is told above of a leaf of CAT."""
    return leaf(member, CAT, bridges=(bridge().certs,))


def shown(member: Member, *entries, by: Member = CAT, root: Member = ME) -> tuple[bytes, ...]:
    """Return what shows that an earlier life of this bridge gave leases to a bridge below, and that one to its leaf."""
    leases = tuple(each.lease for each in entries)
    first = handed(by, *leases, by=root)
    return first, handed(member, *leases, by=by, parent=sign.digest(first))


def place(member: Member, cpus: int = 2) -> msg.Place:
    return msg.Place(member.node, cpus, 4096, 1)


def wants(number: int, *places: msg.Place, ahead: int = 0, **fields) -> msg.Request:
    """Return what a bridge asks with."""
    plain = {
        "cpus": sum(each.cpus for each in places),
        "memory_mb": sum(each.memory_mb for each in places),
        "gpus": sum(each.gpus for each in places),
        "tasks_max": sum(each.cpus for each in places) + ahead,
        "places": places,
        "ahead": ((job_id(), ahead),) if ahead else (),
    }
    return asks(number, **(plain | fields))


def to_below(message: msg.Passed, member: Member = CAT) -> fx.Send:
    return fx.Send(peer=member.node, message=msg.Through(node=ANN.node, message=message, cluster=True))


def drop(reason: str, member: Member = CAT) -> fx.Drop:
    return fx.Drop(peer=member.node, reason=reason)


def beats(*items, running: bool = False) -> tuple[msg.Beat, ...]:
    return tuple(msg.Beat(each.lease, running=running) for each in items)


class Row(Bench):
    """A bridge with a bridge below, whose leaves are LEA and LEO."""

    def ready(self, *members: Member) -> None:
        self.do(master())
        self.do(bridge())
        self.below(msg.Leaves(leaves=tuple(leaf(member) for member in members)))
        self.below(msg.Holding())
        self.tick(after=ROWS_S)
        self.flush()
        self.work()

    def below(self, message: msg.Passed, member: Member = CAT, **kwargs) -> list[fx.Effect]:
        through = msg.Through(node=ANN.node, message=message, cluster=True)
        return self.do(ev.Received(peer=member.node, message=through), **kwargs)

    def report(self, **fields) -> list[fx.Effect]:
        return self.below(msg.Report(**fields))

    def given(self, *items, **fields) -> msg.Granted:
        """Let the bridge below ask for its leaves, and the master answer with these; return the grant."""
        self.below(wants(1, place(LEA), place(LEO)))
        self.flush()
        grant = granted(items, number=self.numbers, **fields)
        self.master(grant)
        return grant


@pytest.fixture
def bench() -> Row:
    bench = Row()
    bench.ready(LEA, LEO)
    return bench


def handed_on(grant: msg.Granted, number: int, *items, keys: tuple[Member, ...] = (), **fields) -> msg.Granted:
    """Return what the bridge below is given of a grant."""
    sub = SubGrant(
        mesh=MESH, node=ME.node, master=ANN.node, to=CAT.node, parent=sign.digest(grant.grant), nonce=nonce(number),
        leases=tuple(each.lease for each in items), expires=WALL + 60_000,
    )  # fmt: skip
    plain = {"grant": grant.grant, "manifest": grant.manifest, "subs": (sign.sign(ME.signer, sub),)}
    return msg.Granted(**(plain | {"keys": tuple((each.node, sealed(each)) for each in keys)} | fields))


# -- who the leaves are --------------------------------------------------------------------------------------------------


def test_a_bridge_below_is_shown_the_masters_and_its_leaves_are_waited_for() -> None:
    bench = Row()
    shown = fx.Send(peer=CAT.node, message=msg.MasterIs(certs=master().certs, boot=bytes(16), minor=msg.MINOR))
    assert bench.do(bridge()) == []
    assert bench.do(master()) == [shown]
    assert bench.below(msg.Leaves(leaves=(leaf(LEA),))) == []
    assert bench.tick(after=ROWS_S - 0.1) == []
    assert bench.tick(after=0.1) == [up(msg.Leaves(leaves=(told(LEA),))), up(msg.Holding())]
    assert bench.do(ev.LinkDown(peer=ANN.node)) == [fx.Send(peer=CAT.node, message=msg.Parted(node=ANN.node))]


def test_masters_are_shown_to_a_bridge_that_comes_later() -> None:
    bench = Row()
    bench.do(master())
    bench.tick(after=ROWS_S)
    shown = fx.Send(peer=CAT.node, message=msg.MasterIs(certs=master().certs, boot=bytes(16), minor=msg.MINOR))
    assert bench.do(bridge()) == [shown]


def test_leaves_are_waited_for_longer_when_a_bridge_comes_meanwhile() -> None:
    bench = Row()
    bench.do(master())
    bench.do(ev.Tick(), after=1.0)
    bench.do(bridge())
    assert bench.tick(after=ROWS_S - 1.1) == []
    assert bench.tick(after=0.1) == [up(msg.Leaves()), up(msg.Holding())]


def test_leaves_of_a_bridge_below_come_and_go(bench: Row) -> None:
    news = to_below(msg.HasWork(counter=2, owners=("ann",)))
    assert bench.below(msg.Leaves(leaves=(leaf(TOM, DOG),), gone=(LEA.node, TOM.node))) == [news]
    assert bench.stock.toward(TOM.node) == CAT.node
    assert bench.flush() == [up(msg.Leaves(leaves=(leaf(TOM, CAT, DOG),))), up(msg.Leaves(gone=(LEA.node,)))]
    assert bench.stock.toward(LEA.node) is None
    bench.do(ev.LinkDown(peer=CAT.node))
    assert bench.flush() == [up(msg.Leaves(gone=(LEO.node, TOM.node)))]


def test_a_bridge_below_that_leaves_takes_its_leaves_with_it(bench: Row) -> None:
    assert bench.below(msg.Leaving()) == []
    assert bench.flush() == [up(msg.Leaves(gone=(LEA.node, LEO.node)))]


def test_a_leaf_that_is_linked_as_well_stays_when_the_bridge_below_has_it_no_more(bench: Row) -> None:
    bench.do(link(LEA, caps=("work",), certs=chain(LEA)))
    bench.card(LEA, card(LEA))
    bench.leaf(LEA, bench.holding(LEA, serial=2))
    bench.leaf(LEA, msg.ProfileIs(profile=PROFILE))
    here = leaf(LEA, mandate=mandate(LEA, ME, serial=2))
    assert bench.flush() == [up(msg.Leaves(leaves=(here,)))]
    bench.below(msg.Leaves(gone=(LEA.node,)))
    assert bench.flush() == [up(msg.Leaves(leaves=(here,)))]


def way(*members: Member) -> str:
    return " > ".join(short(each.node) for each in members)


def circle(*members: Member) -> str:
    return f"leaf: the way leads in a circle: {way(*members)}"


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        (leaf(TOM, certs=chain(TOM, "submit")), "leaf: no work capability"),
        (leaf(TOM, certs=(b"x",)), "leaf: bad-certificate"),
        (leaf(TOM, card=card(LEA)), "leaf: bad signature"),
        (leaf(ANN), circle(ANN, ME, CAT, ANN)),
        (leaf(TOM, ME), circle(ANN, ME, CAT, ME, TOM)),
        (leaf(TOM, DOG, DOG), circle(ANN, ME, CAT, DOG, DOG, TOM)),
    ],
)
def test_who_does_not_prove_to_be_a_leaf_is_none_and_a_circle_is_named(bench: Row, said: msg.Leaf, reason: str) -> None:
    assert bench.below(msg.Leaves(leaves=(said,))) == [drop(reason)]
    assert bench.flush() == []


def test_a_way_over_too_many_bridges_is_refused_and_named(bench: Row) -> None:
    named = way(ANN, ME, CAT, DOG, LEO, TOM)
    assert bench.below(msg.Leaves(leaves=(leaf(TOM, DOG, LEO),))) == [
        drop(f"leaf: the way leads over more than 3 bridges: {named}")
    ]


def test_who_is_out_is_no_leaf(bench: Row) -> None:
    bench.out.add(TOM.node)
    assert bench.below(msg.Leaves(leaves=(leaf(TOM),))) == [drop("leaf: banned")]


def test_a_leaf_that_is_out_is_given_nothing_whatever_the_bridge_below_says(bench: Row) -> None:
    bench.given(ONE, keys=(LEA, LEO))
    assert bench.stock.expel(lambda cert: cert.sub == TOM.node, bench.now) == []
    bench.stock.expel(lambda cert: cert.sub == LEA.node, bench.now)
    bench.stock.check()
    assert of(bench.flush(), msg.Leaves) == [msg.Leaves(gone=(LEA.node,))]
    assert bench.report(results=(result(LEA, ONE),)) == [drop("result: not by a leaf")]
    bench.below(wants(2, place(LEA), place(LEO, 1)))
    [asked] = of(bench.flush(), msg.Request)
    assert [each.leaf for each in asked.places] == [LEO.node]
    grant = granted((TWO,), number=bench.numbers, sent=True, keys=())
    assert of(bench.master(grant), msg.Granted)[0].keys == (), "LEO's was sent, LEA's is forgotten"


def test_there_are_not_too_many_leaves_below(bench: Row, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nested, "LEAVES_TOTAL_MAX", 2)
    assert bench.below(msg.Leaves(leaves=(leaf(TOM),))) == [drop("leaf: too many leaves")]
    bench.below(msg.Leaves(leaves=(leaf(LEA),)))
    assert bench.flush() == [up(msg.Leaves(leaves=(told(LEA),)))], "who is known may change"


@pytest.mark.parametrize("said", [msg.ProfileIs(profile=PROFILE), msg.ResultReady(result=b"r")])
def test_a_bridge_below_does_not_speak_as_a_worker(bench: Row, said: msg.Passed) -> None:
    assert bench.below(said) == [drop("through: not for a master")]


@pytest.mark.parametrize("said", [msg.Leaves(), msg.Report()])
def test_a_worker_does_not_speak_as_a_bridge(bench: Row, said: msg.Passed) -> None:
    bench.join(TOM)
    assert bench.leaf(TOM, said) == [drop("through: not for a master", TOM)]
    assert bench.do(ev.Received(peer=TOM.node, message=msg.Through(node=ANN.node, message=said, cluster=True))) == []


def test_one_more_bridge_than_there_may_be_leaves_is_not_heard(bench: Row, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("p2pq.core.serving.LEAVES_TOTAL_MAX", 1)
    bench.do(bridge(DOG))
    assert bench.below(msg.Holding(), DOG) == [drop("through: too many leaves", DOG)]


# -- what is asked for and given -----------------------------------------------------------------------------------------


def test_what_leaves_below_have_room_for_is_asked_for_at_once_and_given_as_one_part(bench: Row) -> None:
    assert bench.below(wants(1, place(LEA), place(LEO), place(TOM))) == []
    assert bench.flush() == [up(wants(1, place(LEA), place(LEO), nonce=nonce(1)))]
    grant = granted((ONE, TWO, THREE), avoid=((ONE.lease, LEA.node), (ONE.lease, TOM.node)))
    part = handed_on(grant, 1, ONE, TWO, THREE, keys=(LEA, LEO), avoid=((ONE.lease, LEA.node),))
    assert bench.master(grant) == [to_below(part)]
    assert bench.stock.leaf_of(ANN.node, ONE.lease) == cluster_of(CAT.node)
    assert bench.flush() == [], "who has got them is not known yet"
    again = granted((item(4, task=3), item(5, task=4)), number=2, sent=True, keys=())
    bench.below(wants(2, place(LEA, 1), place(LEO, 1)))
    bench.flush()
    part = handed_on(again, 2, item(4, task=3), item(5, task=4), manifest=b"")
    assert bench.master(again) == [to_below(part)], "manifest and keys are sent once"


def test_no_more_is_given_than_leaves_with_a_key_have_room_for(bench: Row) -> None:
    bench.below(wants(1, place(LEA), place(LEO)))
    bench.flush()
    grant = granted((ONE, TWO, THREE), keys=(LEO,))
    assert bench.master(grant) == [to_below(handed_on(grant, 1, ONE, TWO, keys=(LEO,)))]


def test_a_leaf_that_has_not_said_what_it_offers_is_given_nothing(bench: Row) -> None:
    bench.do(link(TOM, caps=("work",)))
    bench.leaf(TOM, msg.Holding())
    assert of(bench.leaf(TOM, asks(7)), msg.Nothing)
    bench.below(wants(1, place(LEA)))
    bench.flush()
    bench.below(msg.Leaving())
    assert not of(bench.master(granted((ONE,), keys=(LEA, TOM))), msg.Granted)
    assert [each for said in of(bench.tick(after=5.0) + bench.flush(), msg.Report) for each in said.returns]


def test_a_key_that_came_later_was_missing_for_nothing(bench: Row) -> None:
    bench.below(wants(1, place(LEA), place(LEO)))
    bench.flush()
    bench.master(granted((ONE, TWO, THREE), keys=(LEO,)))
    bench.below(wants(2, place(LEA)))
    bench.flush()
    bench.master(granted((item(4, task=3),), number=2, sent=True, keys=(LEA,)))
    bench.below(msg.Leaving())
    told = [each for said in of(bench.tick(after=5.0) + bench.flush(), msg.Report) for each in said.returns]
    assert told == [*returns("late", item(4, task=3))]


def test_what_only_an_avoided_leaf_has_room_for_is_not_given(bench: Row) -> None:
    bench.below(wants(1, place(LEA)))
    bench.flush()
    grant = granted((ONE, TWO), avoid=((ONE.lease, LEA.node),))
    assert bench.master(grant) == [to_below(handed_on(grant, 1, TWO, keys=(LEA,)))]


def test_a_stock_goes_to_a_bridge_below_out_of_what_others_do_not_have_room_for(bench: Row) -> None:
    bench.join(TOM)
    bench.leaf(TOM, asks(7, tasks_max=2, ahead=((job_id(), 2),)))
    bench.flush()
    bench.leaf(TOM, msg.Leaving())
    grant = granted((ONE, TWO, THREE), number=bench.numbers, keys=(LEA,), avoid=((TWO.lease, LEA.node),))
    assert bench.master(grant)[:-1] == []
    assert bench.below(wants(1, ahead=2)) == [
        to_below(handed_on(grant, 1, ONE, TWO, keys=(LEA,), avoid=((TWO.lease, LEA.node),)))
    ]
    bench.enter(TOM)
    bench.leaf(TOM, asks(8))
    assert bench.below(wants(2, ahead=2)) == [], "somebody has room for it now"
    bench.leaf(TOM, msg.Leaving())
    assert bench.below(wants(3, ahead=2)) == [to_below(handed_on(grant, 3, THREE, manifest=b""))]


def test_nothing_is_said_to_a_bridge_below_when_the_master_has_nothing_for_all_of_it(bench: Row) -> None:
    bench.below(wants(1, place(LEA), place(LEO)))
    bench.flush()
    answer = msg.Nothing(nonce=nonce(1), owner="ann", counter=1, wide=(2, 0, 0))
    told = msg.Nothing(nonce=nonce(1), owner="ann", counter=1, wide=(2, 0, 0))
    assert bench.master(answer) == [to_below(told)]
    [again] = of(bench.below(wants(2, place(LEO, 1))), msg.Nothing)
    assert again.nonce == nonce(2)


def test_what_a_bridge_below_asks_twice_or_of_another_owner_is_dropped(bench: Row) -> None:
    bench.below(wants(1, place(LEA)))
    assert bench.below(wants(1, place(LEA))) == [drop("repeated request")]
    assert bench.below(wants(2, place(LEA), owner="bob")) == [drop("request for another owner")]


def test_work_is_announced_to_a_bridge_below() -> None:
    bench = Row()
    bench.do(master())
    bench.do(bridge())
    bench.below(msg.Leaves(leaves=(leaf(LEA),)))
    bench.below(msg.Holding())
    bench.tick(after=ROWS_S)
    assert bench.work() == [to_below(msg.HasWork(counter=1, owners=("ann",)))]


# -- what comes of it ----------------------------------------------------------------------------------------------------


def test_who_has_what_and_what_came_of_it_is_passed_on(bench: Row) -> None:
    bench.given(ONE, TWO)
    big = BlobRef(b"b" * 32, 5)
    small = b"small"
    inline = BlobRef(prims.blob_id(small), len(small))
    entry = msgspec.structs.replace(result_item(ONE, Outcome(reason="ok", exit=0)), body=(big, inline))
    raw = sign.sign(LEA.signer, Result(mesh=MESH, node=ANN.node, by=LEA.node, items=(entry,)))
    said = msg.Report(
        placed=placed(LEA, ONE) + placed(LEO, TWO), beats=beats(TWO, running=True), results=(raw,), blobs=(small, b"other"),
        returns=returns("refused", TWO),
    )  # fmt: skip
    assert bench.below(said) == []
    assert bench.stock.leaf_of(ANN.node, ONE.lease) == LEA.node
    assert bench.flush() == [
        up(
            msg.Report(
                placed=placed(LEA, ONE) + placed(LEO, TWO),
                results=(raw,),
                blobs=(small,),
                returns=returns("refused", TWO),
            )
        )
    ]
    raw_receipt = receipt(ONE)
    assert bench.master(msg.Receipted(receipt=raw_receipt)) == [to_below(msg.Receipted(receipt=raw_receipt))]
    assert not bench.stock.holds


def sub_grant(bridge: Member, to: Member, above: bytes, *items, signer: Member | None = None, **fields) -> bytes:
    plain = {
        "mesh": MESH, "node": bridge.node, "master": ANN.node, "to": to.node, "parent": sign.digest(above),
        "nonce": bytes(16), "leases": tuple(each.lease for each in items), "expires": WALL,
    }  # fmt: skip
    return sign.sign((signer or bridge).signer, SubGrant(**(plain | fields)))


def test_how_leases_came_to_leaves_below_is_passed_on_as_far_as_it_is_of_these_results(bench: Row) -> None:
    grant = bench.given(ONE, TWO)
    outer = sub_grant(ME, CAT, grant.grant, ONE, TWO)
    leas, leos = sub_grant(CAT, LEA, outer, ONE), sub_grant(CAT, LEO, outer, TWO)
    bench.report(placed=placed(LEA, ONE) + placed(LEO, TWO), results=(result(LEA, ONE),), subs=(leos, leas, outer))
    [report] = of(bench.flush(), msg.Report)
    assert (report.results, report.subs) == ((result(LEA, ONE),), (outer, leas))
    bench.report(results=(result(LEO, TWO),), subs=())
    [report] = of(bench.flush(), msg.Report)
    assert (report.results, report.subs) == ((result(LEO, TWO),), ()), "of that nothing is told, and nothing is made up"


def test_a_bridge_below_that_forges_is_suspected_and_its_results_are_not_passed_on(bench: Row) -> None:
    grant = bench.given(ONE, TWO)
    bench.report(placed=placed(LEA, ONE, TWO))
    bench.flush()
    outer = sub_grant(ME, CAT, grant.grant, ONE)
    forged = sub_grant(CAT, LEA, outer, ONE, signer=DOG)
    told = fx.Drop(peer=CAT.node, reason="sub-grant: bad signature", suspect=ev.FORGED)
    assert bench.report(results=(result(LEA, ONE),), subs=(outer, forged), returns=returns("late", TWO)) == [told]
    assert bench.flush() == [up(msg.Report(returns=returns("late", TWO)))]
    wider = sub_grant(CAT, LEA, outer, ONE, TWO)
    assert bench.report(results=(result(LEA, ONE),), subs=(outer, wider)) == [drop("result: wider than the one above")]
    assert bench.flush() == []


def test_what_is_told_of_a_stray_goes_on_with_it(bench: Row) -> None:
    mine, other = sub_grant(CAT, LEA, b"grant", ONE, TWO), sub_grant(CAT, LEO, b"grant", THREE)
    for each, fields in ((ONE, {"results": (result(LEA, ONE),)}), (TWO, {"strays": (result(LEA, TWO),)})):
        told = bench.report(**fields, subs=(other, mine))
        assert told == [up(msg.Report(strays=(result(LEA, each),), subs=(mine,)))]
    wider = sub_grant(CAT, LEA, mine, ONE, THREE)
    assert bench.report(strays=(result(LEA, THREE),), subs=(mine, wider)) == [drop("result: wider than the one above")]


def test_heartbeats_of_a_bridge_below_renew_what_it_has(bench: Row) -> None:
    bench.given(ONE)
    bench.report(placed=placed(LEA, ONE))
    bench.flush()
    bench.report(beats=beats(ONE, running=True))
    assert bench.flush() == [up(msg.Report(beats=beats(ONE, running=True)))]
    for _ in range(5):
        assert bench.report(beats=beats(ONE, running=True)) == []
        assert of(bench.tick(after=15.0), msg.Report) or of(bench.flush(), msg.Report)
    assert bench.stock.leaf_of(ANN.node, ONE.lease) == LEA.node
    ended = [each for _ in range(5) for each in of(bench.tick(after=15.0) + bench.flush(), msg.Report)]
    assert returns("expired", ONE) in [each.returns for each in ended]


def test_a_leaf_that_has_gone_on_before_it_was_introduced_may_have_got_something(bench: Row) -> None:
    bench.given(ONE)
    assert bench.report(placed=placed(TOM, ONE)) == []
    assert bench.flush() == [up(msg.Report(placed=placed(TOM, ONE)))]
    assert bench.stock.leaf_of(ANN.node, ONE.lease) == TOM.node


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (result(TOM, ONE), "result: not by a leaf"),
        (result(LEA, ONE, signer=LEO), "result: bad signature"),
        (result(LEA, ONE, node=CAT.node), "result: for somebody else"),
        (result(LEA, ONE, mesh=b"x" * 32), "result: for somebody else"),
        (b"garbage", "result: malformed"),
    ],
)
def test_a_result_that_is_no_leafs_word_to_the_master_is_not_passed_on(bench: Row, raw: bytes, reason: str) -> None:
    bench.given(ONE)
    bench.report(placed=placed(LEA, ONE))
    bench.flush()
    assert bench.report(results=(raw,)) == [drop(reason)]
    assert bench.flush() == []


def test_no_result_counts_of_a_lease_that_is_somebody_elses(bench: Row) -> None:
    bench.join(TOM, ONE.lease)
    bench.flush()
    assert bench.report(results=(result(LEA, ONE),)) == [drop("result: lease was never given to it")]
    assert bench.report(beats=beats(ONE), placed=placed(LEA, ONE), returns=returns("lost", ONE)) == []
    assert bench.flush() == []
    assert bench.leaf(TOM, msg.Heartbeat(beats=beats(ONE))) == []


def test_of_what_nobody_was_shown_to_have_been_given_a_bridge_below_says_nothing(bench: Row) -> None:
    bench.do(bridge(DOG))
    bench.below(msg.Leaves(leaves=(leaf(TOM, by=DOG),)), DOG)
    told = msg.Report(placed=placed(TOM, ONE), beats=beats(ONE), returns=returns("disk", ONE), proofs=shown(LEA, ONE))
    for proofs in ((), shown(LEA, ONE), shown(TOM, ONE, by=DOG, root=DOG), shown(TOM, ONE, by=DOG)[1:]):
        bench.below(msg.Holding(leases=(ONE.lease,), proofs=proofs), DOG)
        bench.below(told, DOG)
    assert of(bench.flush(), msg.Report) == []
    bench.below(msg.Holding(leases=(ONE.lease,), proofs=shown(LEA, ONE)))
    bench.report(placed=placed(LEA, ONE))
    assert bench.stock.leaf_of(ANN.node, ONE.lease) == LEA.node


def test_what_the_master_has_to_judge_is_passed_on_from_below_as_well(bench: Row) -> None:
    raw, blob = result(LEA, ONE), b"blob"
    for fields in ({"results": (raw,)}, {"strays": (raw,)}):
        assert bench.report(**fields, blobs=(blob,)) == [up(msg.Report(strays=(raw,)))], "the blob is of another"
        assert bench.report(strays=(result(TOM, ONE),)) == [drop("result: not by a leaf")]
        over = msg.Receipted(receipt=receipt(ONE))
        assert bench.master(over) == [to_below(over)]


def test_the_bytes_of_what_is_shown_are_bounded_however_few_leases_it_is_of(
    bench: Row, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, last = shown(LEA, ONE), shown(LEA, TWO)
    monkeypatch.setattr(nested, "SHOWN_BYTES_MAX", sum(map(len, (*first, *last))) - 1)
    for each in (first, last):
        bench.report(proofs=each)
    bench.report(placed=placed(LEA, ONE, TWO))
    assert of(bench.flush(), msg.Report) == [msg.Report(placed=placed(LEA, TWO), beats=beats(TWO))]


def test_what_is_shown_is_bounded(bench: Row, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nested, "HELD_MAX", 2)
    bench.report(proofs=shown(LEA, ONE, TWO, THREE))
    bench.report(placed=placed(LEA, ONE, TWO, THREE))
    assert of(bench.flush(), msg.Report) == [msg.Report(placed=placed(LEA, TWO, THREE), beats=beats(TWO, THREE))]


def test_results_that_find_no_room_are_said_again(bench: Row, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.given(ONE, TWO)
    bench.report(placed=placed(LEA, ONE, TWO))
    bench.flush()
    monkeypatch.setattr("p2pq.core.batching.WAITING_BYTES_MAX", 1)
    first, second = result(LEA, ONE), result(LEA, TWO)
    bench.report(results=(first, second))
    assert of(bench.flush(), msg.Report) == [msg.Report(results=(first,))]


def test_what_a_bridge_below_has_lost_is_sent_again(bench: Row) -> None:
    bench.given(ONE)
    bench.report(returns=returns("no-manifest", ONE))
    assert bench.flush() == [up(msg.Report(returns=returns("no-manifest", ONE)))]
    bench.below(wants(2, place(LEA)))
    bench.flush()
    grant = granted((TWO,), number=bench.numbers, keys=(LEA,))
    assert bench.master(grant) == [to_below(handed_on(grant, 2, TWO, keys=(LEA,)))]


def test_what_a_bridge_below_does_not_hold_any_more_is_lost_where_a_leaf_had_it(bench: Row) -> None:
    bench.given(ONE, TWO, THREE)
    bench.report(placed=placed(LEA, ONE, THREE))
    bench.flush()
    assert bench.below(msg.Holding(leases=(THREE.lease,))) == []
    told = msg.Report(returns=returns("lost", ONE) + returns("recalled", TWO))
    assert bench.flush() == [up(told)]
    assert bench.stock.leaf_of(ANN.node, THREE.lease) == LEA.node


def test_what_only_waited_at_a_bridge_below_that_does_not_come_back_is_nobodys_failure(bench: Row) -> None:
    bench.given(ONE, TWO)
    bench.report(placed=placed(LEA, ONE))
    bench.flush()
    bench.do(ev.LinkDown(peer=CAT.node))
    reports = [report for _ in range(80) for report in of(bench.tick(after=1.0), msg.Report)]
    told = [report.returns for report in reports if report.returns]
    assert told == [returns("expired", ONE) + returns("recalled", TWO)]


def test_a_new_life_of_this_bridge_learns_what_leaves_below_hold() -> None:
    bench = Row()
    bench.do(master())
    bench.do(bridge())
    bench.below(msg.Leaves(leaves=(leaf(LEA),)))
    bench.below(msg.Holding(leases=(ONE.lease, TWO.lease), proofs=shown(LEA, ONE, TWO)))
    bench.report(placed=placed(LEA, ONE))
    assert bench.tick(after=ROWS_S) == [
        up(msg.Leaves(leaves=(told(LEA),))),
        up(msg.Holding(leases=(ONE.lease, TWO.lease))),
        up(msg.Report(placed=placed(LEA, ONE), beats=beats(ONE, TWO))),
    ]


def test_a_leaf_takes_its_leases_along_from_bridge_to_bridge_and_to_this_one(bench: Row) -> None:
    bench.given(ONE)
    bench.report(placed=placed(LEA, ONE))
    bench.flush()
    bench.do(bridge(DOG))
    bench.below(msg.Leaves(leaves=(leaf(LEA, by=DOG, serial=2),)), DOG)
    bench.below(msg.Holding(leases=(ONE.lease,)), DOG)
    bench.below(msg.Report(placed=placed(LEA, ONE)), DOG)
    assert bench.flush()
    assert bench.below(msg.Holding()) == [], "the first has nothing of it any more"
    assert not of(bench.flush(), msg.Report)
    bench.do(link(LEA, caps=("work",), certs=chain(LEA)))
    bench.card(LEA, card(LEA))
    assert bench.leaf(LEA, bench.holding(LEA, ONE.lease, serial=3)) == []
    raw = result(LEA, ONE)
    assert bench.leaf(LEA, msg.ResultReady(result=raw)) == []
    assert raw in [each for said in of(bench.flush(), msg.Report) for each in said.results]


def test_a_bridge_below_takes_nothing_of_a_leaf_that_chose_another(bench: Row) -> None:
    """It may have seen all that the leaf has said to anybody but to that other bridge."""
    bench.given(ONE)
    bench.report(placed=placed(LEA, ONE))
    bench.flush()
    bench.do(bridge(DOG))
    claimed = leaf(LEA, mandate=mandate(LEA, CAT, ME))
    assert bench.below(msg.Leaves(leaves=(claimed,)), DOG) == [drop("leaf: mandate for another way", DOG)]
    bench.below(msg.Holding(leases=(ONE.lease,)), DOG)
    bench.below(msg.Report(placed=placed(LEA, ONE), returns=returns("disk", ONE)), DOG)
    assert not [each for said in of(bench.flush(), msg.Report) for each in said.returns]
    assert bench.stock.leaf_of(ANN.node, ONE.lease) == LEA.node
    assert bench.stock.toward(LEA.node) == CAT.node


def test_a_bridge_that_a_leaf_has_left_cannot_take_it_back(bench: Row) -> None:
    bench.do(bridge(DOG))
    bench.below(msg.Leaves(leaves=(leaf(LEA, by=DOG, serial=2),)), DOG)
    assert bench.stock.toward(LEA.node) == DOG.node
    assert bench.below(msg.Leaves(leaves=(leaf(LEA),))) == [drop("leaf: it takes part another way by now")]
    bench.below(msg.Leaves(leaves=(leaf(LEA, by=DOG, serial=2),)), DOG)
    assert bench.stock.toward(LEA.node) == DOG.node


def test_a_leaf_takes_along_what_a_bridge_below_had_not_said_that_it_gave_it(bench: Row) -> None:
    grant = bench.given(ONE)
    bench.do(link(LEA, caps=("work",), certs=chain(LEA)))
    proofs = (grant.grant, *shown(LEA, ONE))
    bench.leaf(LEA, msg.Holding(leases=(ONE.lease,), mandate=mandate(LEA, ME, serial=2), proofs=proofs))
    assert bench.stock.leaf_of(ANN.node, ONE.lease) == LEA.node
    bench.report(returns=returns("lost", ONE))
    assert not [each for said in of(bench.flush(), msg.Report) for each in said.returns]


def test_a_leaf_takes_its_leases_along_to_a_bridge_below(bench: Row) -> None:
    bench.join(TOM, ONE.lease)
    bench.flush()
    bench.below(msg.Leaves(leaves=(leaf(TOM, serial=2),)))
    bench.report(placed=placed(TOM, ONE))
    bench.leaf(TOM, msg.Leaving())
    assert bench.stock.leaf_of(ANN.node, ONE.lease) == TOM.node
    raw = result(TOM, ONE)
    assert bench.report(results=(raw,)) == []
    assert raw in [each for said in of(bench.flush(), msg.Report) for each in said.results]


def test_what_is_cancelled_is_cancelled_below(bench: Row) -> None:
    bench.given(ONE, TWO)
    assert bench.master(msg.Cancel(leases=(ONE.lease, TWO.lease))) == [
        to_below(msg.Cancel(leases=(ONE.lease, TWO.lease)))
    ]
    assert not bench.stock.holds


def test_what_is_recalled_and_not_in_stock_here_is_recalled_below(bench: Row) -> None:
    bench.given(ONE, TWO, THREE)
    bench.report(placed=placed(LEA, ONE))
    bench.flush()
    assert bench.master(msg.Recall(tasks=1)) == [to_below(msg.Recall(tasks=1))]
    assert bench.master(msg.Recall(tasks=9)) == [to_below(msg.Recall(tasks=2))]
    bench.report(placed=placed(LEA, TWO, THREE))
    assert bench.master(msg.Recall(tasks=9)) == []


def test_a_leaf_below_with_a_new_key_is_not_sent_what_was_sealed_to_the_old_one(bench: Row) -> None:
    bench.given(ONE)
    bench.below(msg.Leaves(leaves=(leaf(LEA, card=card(LEA, boot=b"b" * 16)),)))
    bench.below(wants(2, place(LEA), place(LEO)))
    bench.flush()
    grant = granted((TWO, THREE), number=bench.numbers, sent=True, keys=(LEA,))
    part = handed_on(grant, 2, TWO, THREE, keys=(LEA,), manifest=b"")
    assert bench.master(grant) == [to_below(part)]


def test_nobodys_word_is_taken_of_more_leases_than_one_may_hold(bench: Row, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nested, "HELD_MAX", 0)
    assert bench.report(beats=beats(ONE), placed=placed(LEA, ONE)) == []
    assert bench.flush() == []


def test_a_leaf_here_and_leaves_below_are_served_alike(bench: Row) -> None:
    bench.join(TOM)
    bench.leaf(TOM, asks(5))
    bench.below(wants(6, place(LEA)))
    assert bench.stock.deadline is not None
    [asked] = of(bench.tick(after=WINDOW_S), msg.Request)
    assert [NodeId(each.leaf) for each in asked.places] == [TOM.node, LEA.node]
    grant = granted((ONE, TWO, THREE), number=bench.numbers, keys=(TOM, LEA))
    told = bench.master(grant)
    assert told[1:] == [to_below(handed_on(grant, 6, THREE, keys=(LEA,)))]
    assert down(TOM, of(told, msg.Granted)[0]) == told[0]
