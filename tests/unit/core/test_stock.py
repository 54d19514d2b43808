"""A bridge that batches: who is shown to whom, and what goes through it."""

import msgspec

from p2pq.core import effects as fx
from p2pq.core import events as ev
from p2pq.core.kept import RESEND_S
from p2pq.core.records import ResultReleased
from p2pq.core.stock import BUSY_MAX, GATHER_S, Stock
from p2pq.core.views import Spoken
from p2pq.model.config import ScheduleSettings
from p2pq.model.ids import Mono, NodeId, Wall
from p2pq.wire import messages as msg
from p2pq.wire import seal, sign
from tests.unit.core.stockkit import (
    ANN,
    LEA,
    LEO,
    Bench,
    asks,
    down,
    granted,
    introduced,
    link,
    master,
    of,
    parcel,
    placed,
    receipt,
    result,
    up,
    worker,
)
from tests.unit.core.workerkit import BOB, IDENTITY, KEY, ME, OFFER, OK, WALL, Member, entropy, item, nonce
from tests.unit.core.workerkit import Bench as LeafBench

ONE, TWO = item(1), item(2, task=1)


def shown(to: Member, who: Member, boot: bytes = bytes(16)) -> fx.Send:
    return fx.Send(peer=to.node, message=msg.MasterIs(certs=link(who).certs, boot=boot, minor=msg.MINOR))


def parted(to: Member, who: Member) -> fx.Send:
    return fx.Send(peer=to.node, message=msg.Parted(node=who.node))


def gone(member: Member) -> ev.LinkDown:
    return ev.LinkDown(peer=member.node)


def test_every_worker_is_shown_every_master() -> None:
    bench = Bench()
    assert bench.stock.deadline is None
    assert bench.do(worker(LEA)) == []
    assert bench.do(master()) == [shown(LEA, ANN)]
    assert bench.do(worker(LEO)) == [shown(LEO, ANN)]
    assert bench.do(link(BOB)) == [shown(BOB, ANN), shown(LEA, BOB), shown(LEO, BOB)]
    assert bench.do(gone(BOB)) == [parted(LEA, BOB), parted(LEO, BOB)]
    assert bench.do(gone(ANN)) == [parted(LEA, ANN), parted(LEO, ANN)]
    assert bench.do(gone(LEA)) == []
    assert bench.stock.deadline is None


def test_a_link_that_takes_the_place_of_another_begins_anew() -> None:
    bench = Bench()
    bench.do(worker(LEA))
    bench.do(master())
    assert bench.do(master(boot=b"b" * 16)) == [parted(LEA, ANN), shown(LEA, ANN, b"b" * 16)]
    assert bench.do(master(path=(LEO.node,))) == [parted(LEA, ANN)]


def test_nothing_goes_through_links_that_are_carried_or_old_or_of_nobody() -> None:
    bench = Bench()
    bench.do(worker(LEA))
    assert bench.do(master(path=(LEO.node,))) == []
    assert bench.do(master(minor=3)) == []
    assert bench.do(master(certs=())) == []
    assert bench.do(master(mesh=b"o" * 32, realm="there")) == [], "speaking is for one mesh"
    assert bench.do(worker(LEO, mesh=b"o" * 32, realm="there")) == []
    assert bench.do(gone(LEO)) == []
    assert bench.do(ev.Received(peer=LEO.node, message=msg.KeycardIs(card=b"card"))) == []
    assert bench.master(msg.HasWork(counter=1, owners=("ann",))) == []
    assert bench.leaf(LEO, msg.Holding()) == []
    assert bench.leaf(LEA, msg.Holding()) == []
    assert bench.do(ev.Received(peer=LEA.node, message=msg.Holding())) == []


def test_who_may_not_work_or_is_the_master_itself_is_no_leaf() -> None:
    bench = Bench()
    bench.do(master())
    bench.do(link(LEA, caps=()))
    assert bench.leaf(LEA, msg.Holding()) == []
    assert bench.leaf(ANN, msg.Holding()) == []
    assert bench.tick(after=GATHER_S)[0] == up(msg.Leaves())


def test_work_of_two_masters_is_kept_apart() -> None:
    bench = Bench()
    bench.do(master(BOB))
    bench.ready(LEA)
    assert bench.stock.leaf_of(BOB.node, ONE.lease) is None
    bench.stocked(ONE)
    assert bench.stock.leaf_of(ANN.node, ONE.lease) == LEA.node
    assert bench.stock.leaf_of(BOB.node, ONE.lease) is None
    assert bench.stock.leaf_of(LEO.node, ONE.lease) is None
    bench.do(gone(BOB))
    assert bench.stock.leaf_of(ANN.node, ONE.lease) == LEA.node


def test_a_keycard_is_told_to_all_masters() -> None:
    bench = Bench()
    bench.ready(LEA)
    bench.card(LEA, b"new")
    (leaves,) = of(bench.flush(), msg.Leaves)
    assert [leaf.card for leaf in leaves.leaves] == [b"new"]


def test_a_leaf_whose_link_is_gone_is_gone_with_its_requests() -> None:
    bench = Bench()
    bench.ready(LEA, LEO)
    bench.leaf(LEA, asks(1))
    bench.do(gone(LEA))
    assert bench.flush() == [up(msg.Leaves(gone=(LEA.node,)))]


def test_a_master_is_told_at_once_where_nothing_can_be_held_of_it() -> None:
    bench = Bench()
    bench.do(worker(LEA))
    bench.tick(after=GATHER_S)
    assert bench.do(master()) == [shown(LEA, ANN), up(msg.Leaves()), up(msg.Holding())]
    assert bench.do(gone(ANN)) == [parted(LEA, ANN)]
    bench.do(worker(LEO))
    assert bench.do(master()) == [shown(LEA, ANN), shown(LEO, ANN)]


def test_a_master_that_comes_back_is_told_when_leaves_have_said_what_they_hold() -> None:
    bench = Bench()
    bench.ready(LEA)
    grant = bench.stocked(ONE)
    bench.leaf(LEA, asks(2))
    bench.do(gone(ANN), after=10.0)
    assert bench.do(master()) == [shown(LEA, ANN)]
    bench.leaf(LEA, bench.holding(LEA, ONE.lease))
    bench.leaf(LEA, msg.ProfileIs(profile=introduced(LEA).profile))
    assert bench.tick(after=GATHER_S)[:2] == [
        up(msg.Leaves(leaves=(introduced(LEA),))),
        up(msg.Holding(leases=(ONE.lease,))),
    ]
    assert bench.stock.leaf_of(ANN.node, ONE.lease) == LEA.node
    assert bench.master(grant) == []
    bench.leaf(LEA, msg.Return(items=(msg.ReturnItem(ONE.lease, "evicted"),)))
    bench.flush()
    bench.do(gone(ANN))
    assert bench.do(master())[1:] == [up(msg.Leaves()), up(msg.Holding())]


def test_requests_of_a_master_that_is_gone_need_no_answer() -> None:
    bench = Bench()
    bench.ready(LEA)
    bench.leaf(LEA, asks(1))
    bench.do(gone(ANN))
    assert bench.stock.deadline is None


def test_masters_that_left_with_leases_are_remembered_within_bounds() -> None:
    bench = Bench()
    stock = bench.stock
    bench.do(worker(LEA))
    stock._busy.update({NodeId(number.to_bytes(32, "big")): None for number in range(BUSY_MAX)})
    bench.do(master())
    bench.enter(LEA, ONE.lease)
    bench.do(gone(ANN))
    assert len(stock._busy) == BUSY_MAX
    assert ANN.node in stock._busy


def test_a_bridge_tells_whether_it_has_anything_of_any_master() -> None:
    bench = Bench()
    bench.ready(LEA)
    assert not bench.stock.holds
    bench.stocked(ONE)
    bench.flush()
    assert bench.stock.holds, "a leaf has it"
    bench.leaf(LEA, msg.ResultReady(result=result(LEA, ONE)))
    bench.flush()
    assert bench.stock.holds, "its receipt is to come"
    bench.master(msg.Receipted(receipt=receipt(ONE)))
    assert not bench.stock.holds
    bench.leaf(LEA, asks(2))
    bench.flush()
    bench.leaf(LEA, msg.Leaving())
    bench.master(granted((TWO,), number=2))
    assert bench.stock.holds, "it is in stock"
    bench.master(msg.Recall(tasks=1))
    assert bench.stock.holds, "the master has not been told"
    bench.flush()
    assert not bench.stock.holds


def test_sleep_is_nobodys_silence() -> None:
    bench = Bench()
    bench.ready(LEA)
    bench.leaf(LEA, asks(1))
    bench.flush()
    bench.master(granted((ONE,), number=1))
    bench.flush()
    bench.leaf(LEA, asks(2))
    bench.flush()
    bench.do(ev.Woke(slept_s=100.0, counted=True), after=100.0)
    assert bench.stock.leaf_of(ANN.node, ONE.lease) == LEA.node
    bench.tick(after=1.0)
    bench.leaf(LEA, asks(3))
    grant = granted((TWO,), number=2)
    assert bench.master(grant)[0] == down(LEA, parcel(LEA, grant, 3, TWO, sent=True))
    bench.do(ev.Woke(slept_s=1.0, counted=False))


def test_a_bridge_that_goes_down_takes_no_stock_from_anybody_who_comes_then() -> None:
    bench = Bench()
    bench.ready(LEA)
    bench.leaf(LEA, asks(1))
    bench.flush()
    bench.do(ev.Drain())
    bench.master(granted((ONE,), number=1))
    (report,) = of(bench.flush(), msg.Report)
    assert report == msg.Report(returns=(msg.ReturnItem(ONE.lease, "draining"),))
    bench.do(master(BOB))
    bench.tick(after=GATHER_S)
    assert bench.master(msg.HasWork(counter=5, owners=("ann",))) == []
    assert of(bench.leaf(LEA, asks(2)), msg.Nothing)[0].nonce == nonce(2)


def test_it_begins_with_nothing() -> None:
    stock = Stock(IDENTITY, ScheduleSettings(), bytes, lambda _: Wall(WALL), lambda _: False)
    assert stock.handle(ev.Tick(), Mono(0.0)) == []
    stock.check()


def test_a_worker_as_it_is_believes_what_its_bridge_gives_it_and_the_receipt_for_its_result() -> None:
    """From the master that it is shown to the receipt; what is said between the two is passed on by hand."""
    bench = Bench()
    bench.ready(LEA)
    keys = {"secret": LEA.signer.seed, "prekey": LEA.prekey, "prekey_secret": LEA.prekey_secret}
    leaf = LeafBench(identity=msgspec.structs.replace(IDENTITY, node=LEA.node, **keys))

    def pass_down(effects: list[fx.Effect]) -> list[fx.Effect]:
        said = [each.message.message for each in effects if isinstance(each, fx.Send) and each.peer == LEA.node]
        return [effect for message in said for effect in leaf.do(ev.Received(peer=ANN.node, message=message))]

    def pass_up(effects: list[fx.Effect]) -> list[fx.Effect]:
        said = [each.message for each in effects if isinstance(each, fx.Send)]
        return [effect for message in said for effect in bench.leaf(LEA, message)]

    leaf.do(link(ME, caps=("bridge",)))
    leaf.do(OFFER)
    pass_up(pass_down(pass_up(leaf.do(master(path=(ME.node,), prekey=b"")))))
    bench.flush()
    message = granted((ONE, TWO), number=1)
    key = seal.seal(LEA.prekey, KEY, sign.digest(message.manifest), entropy)
    started = pass_down(bench.master(msgspec.structs.replace(message, keys=((LEA.node, key),))))
    assert [each.lease for each in started if isinstance(each, fx.Start)] == [ONE.lease, TWO.lease]
    leaf.do(ev.Started(lease=ONE.lease, master=ANN.node))
    pass_up(leaf.do(ev.Exited(lease=ONE.lease, master=ANN.node, outcome=OK, sandbox="strict")))
    (report,) = of(bench.flush(), msg.Report)
    assert [report.placed, len(report.results)] == [placed(LEA, ONE, TWO), 1]
    assert pass_down(bench.master(msg.Receipted(receipt=receipt(ONE)))) == [
        fx.Record(row=ResultReleased(lease=ONE.lease, master=ANN.node)),
        fx.Release(lease=ONE.lease, master=ANN.node),
    ]


def test_people_are_shown_who_has_how_much_of_whom() -> None:
    bench = Bench()
    bench.do(master(BOB))
    bench.ready(LEA)
    assert bench.stock.spoken() == (Spoken(ANN.node, 0, ((LEA.node, 0),)),)
    two = item(2, task=1)
    bench.stocked(ONE, two)
    assert bench.stock.spoken() == (Spoken(ANN.node, 0, ((LEA.node, 2),)),)
    bench.leaf(LEA, msg.ResultReady(result=result(LEA, ONE)))
    assert bench.stock.spoken() == (Spoken(ANN.node, 0, ((LEA.node, 1),)),), "what has ended does not run"
    bench.leaf(LEA, msg.Leaving())
    assert bench.stock.spoken() == ()


def test_what_comes_of_a_way_are_grants_of_use_and_receipts() -> None:
    bench = Bench()
    stock = bench.stock
    assert (stock.brought(ANN.node), stock.waits(ANN.node, bench.now), stock.keeps(ANN.node, bench.now)) == (
        None,
        False,
        False,
    )
    bench.ready(LEA)
    assert (stock.brought(ANN.node), stock.waits(ANN.node, bench.now), stock.keeps(ANN.node, bench.now)) == (
        None,
        True,
        False,
    )
    bench.stocked(ONE, TWO)
    given = bench.now
    assert (stock.brought(ANN.node), stock.keeps(ANN.node, given)) == (given, True)
    bench.leaf(LEA, msg.ResultReady(result=result(LEA, ONE)))
    bench.tick(after=RESEND_S - 1)
    bench.leaf(LEA, msg.ResultReady(result=result(LEA, ONE)))
    assert stock.keeps(ANN.node, bench.now)
    bench.tick(after=1.0)
    assert not stock.keeps(ANN.node, bench.now), "nobody says that the result is there"
    bench.stocked(item(3), number=2)
    assert stock.brought(ANN.node) == given
    bench.master(msg.Receipted(receipt=receipt(item(9))))
    assert stock.brought(ANN.node) == given
    bench.master(msg.Receipted(receipt=receipt(ONE)))
    assert stock.brought(ANN.node) == bench.now
    assert stock.keeps(ANN.node, bench.now)
