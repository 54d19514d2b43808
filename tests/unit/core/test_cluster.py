"""A bridge between a master and its leaves: what each hears of the other."""

from collections.abc import Callable

import msgspec
import pytest

from p2pq.core import cluster, nested
from p2pq.core import effects as fx
from p2pq.core import events as ev
from p2pq.core.serving import HOLD_S
from p2pq.core.stock import GATHER_S
from p2pq.model.ids import LeaseId
from p2pq.model.job import Limits, Outcome
from p2pq.wire import codec, sign
from p2pq.wire import messages as msg
from p2pq.wire.objects import ITEMS_MAX, SubGrant
from tests.unit.core.stockkit import (
    ANN,
    CLUSTER,
    LEA,
    LEO,
    WINDOW_S,
    Bench,
    asks,
    checkpoint,
    down,
    granted,
    handed,
    introduced,
    master,
    of,
    parcel,
    placed,
    receipt,
    result,
    returns,
    smaller,
    up,
    worker,
)
from tests.unit.core.workerkit import ME, MESH, OK, PROFILE, WALL, Member, item, mandate, manifest, nonce

LOU = Member("lou")
PLACE_LEA = msg.Place(LEA.node, 2, 4096, 1)
PLACE_LEO = msg.Place(LEO.node, 2, 4096, 1)
ONE, TWO, THREE, FOUR = item(1), item(2, task=1), item(3, task=2), item(4, task=3)


@pytest.fixture
def bench() -> Bench:
    bench = Bench()
    bench.ready(LEA, LEO)
    return bench


def wants(number: int, *places: msg.Place, ahead=(), tasks_max: int | None = None) -> fx.Send:
    """Return a request of the cluster."""
    cpus = sum(place.cpus for place in places)
    request = msg.Request(
        nonce=nonce(number),
        owner="ann",
        cpus=cpus,
        memory_mb=sum(place.memory_mb for place in places),
        gpus=sum(place.gpus for place in places),
        tasks_max=cpus if tasks_max is None else tasks_max,
        ahead=ahead,
        places=places,
    )
    return up(request)


def nothing(leaf, number: int, counter: int = 1, wide=(0, 0, 0)) -> fx.Send:
    return down(leaf, msg.Nothing(nonce=nonce(number), owner="ann", counter=counter, wide=wide))


def stocked(bench: Bench, *items, **fields) -> msg.Granted:
    """Let both leaves ask, leave and come back before the answer, so that all that is granted is in stock."""
    bench.leaf(LEA, asks(90))
    bench.leaf(LEO, asks(91))
    bench.flush()
    grant = granted(items, number=bench.numbers, **fields)
    bench.leaf(LEA, msg.Leaving())
    bench.leaf(LEO, msg.Leaving())
    bench.enter(LEA)
    bench.enter(LEO)
    assert bench.master(grant) == []
    return grant


# -- who takes part ------------------------------------------------------------------------------------------------------


def test_the_master_hears_who_the_leaves_are_and_then_what_they_hold() -> None:
    bench = Bench()
    bench.do(master())
    bench.join(LEA, ONE.lease)
    assert bench.tick(after=GATHER_S) == [
        up(msg.Leaves(leaves=(introduced(LEA),))),
        up(msg.Holding(leases=(ONE.lease,))),
        up(msg.Report(placed=placed(LEA, ONE), beats=(msg.Beat(ONE.lease, running=False),))),
    ]
    assert bench.tick(after=1.0) == []


def test_a_cluster_of_nobody_is_made_known_as_well() -> None:
    bench = Bench()
    bench.do(master())
    assert bench.tick(after=GATHER_S) == [up(msg.Leaves()), up(msg.Holding())]


def test_what_is_handed_back_before_the_master_is_told_is_named_as_held_first() -> None:
    bench = Bench()
    bench.do(master())
    bench.join(LEA, ONE.lease)
    bench.leaf(LEA, msg.Return(items=returns("draining", ONE)))
    assert bench.tick(after=GATHER_S)[1:] == [
        up(msg.Holding(leases=(ONE.lease,))),
        up(msg.Report(placed=placed(LEA, ONE), returns=returns("draining", ONE))),
    ]


def test_changes_of_leaves_are_told_together(bench: Bench) -> None:
    small = smaller(slots=1)
    assert bench.leaf(LEA, msg.ProfileIs(profile=small)) == [down(LEA, msg.HasWork(counter=2, owners=("ann",)))]
    assert bench.card(LEO, b"new") == []
    leo = msgspec.structs.replace(introduced(LEO), card=b"new")
    assert bench.flush() == [up(msg.Leaves(leaves=(introduced(LEA, small), leo)))]


def test_leaves_that_say_much_of_themselves_are_introduced_in_messages_that_can_be_said() -> None:
    bench = Bench()
    bench.do(master())
    labels = tuple((f"{number:03}" + "\U0001f41f" * 61, "\U0001f41f" * 64) for number in range(256))
    members = [Member(f"leaf {number}") for number in range(msg.LEAVES_MAX)]
    for member in members:
        bench.join(member, profile=smaller(labels=labels, reason="\U0001f41f" * 300))
    told = of(bench.tick(after=GATHER_S), msg.Leaves)
    assert sum(len(each.leaves) for each in told) == len(members)
    assert all(len(codec.encode(each)) < msg.MESSAGE_BYTES_MAX for each in told)


def test_a_worker_that_takes_part_no_more_is_gone_after_all_that_it_said(bench: Bench) -> None:
    bench.took(LEA, ONE)
    bench.leaf(LEA, msg.Leaving())
    assert bench.flush() == [
        up(msg.Report(placed=placed(LEA, ONE), beats=(msg.Beat(ONE.lease),))),
        up(msg.Leaves(gone=(LEA.node,))),
    ]
    assert bench.leaf(LEA, msg.Leaving()) == []


def test_who_comes_back_at_once_was_never_gone(bench: Bench) -> None:
    bench.leaf(LEA, msg.Leaving())
    bench.enter(LEA)
    assert bench.flush() == [up(msg.Leaves(leaves=(introduced(LEA),)))]


def test_whoever_was_never_known_is_not_said_to_be_gone(bench: Bench) -> None:
    bench.do(worker(LOU))
    bench.leaf(LOU, msg.Holding())
    bench.leaf(LOU, msg.Leaving())
    assert bench.flush() == []


def test_what_is_no_word_to_a_master_is_dropped(bench: Bench) -> None:
    for message in (msg.HasWork(counter=1), msg.Report(), msg.Leaves()):
        assert bench.leaf(LEA, message) == [fx.Drop(peer=LEA.node, reason="through: not for a master")]


def test_what_is_no_word_to_a_worker_is_ignored(bench: Bench) -> None:
    assert bench.master(msg.Holding()) == []
    assert bench.master(msg.Confirmed(nonce=nonce(1))) == []


def test_there_are_not_too_many_leaves(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("p2pq.core.serving.LEAVES_TOTAL_MAX", 2)
    bench.do(worker(LOU))
    assert bench.leaf(LOU, msg.Holding()) == [fx.Drop(peer=LOU.node, reason="through: too many leaves")]


# -- work ----------------------------------------------------------------------------------------------------------------


def test_the_master_is_asked_once_for_all_that_leaves_have_room_for(bench: Bench) -> None:
    assert bench.leaf(LEA, asks(1)) == []
    assert bench.leaf(LEO, asks(2)) == []
    assert bench.flush() == [wants(1, PLACE_LEA, PLACE_LEO)]
    grant = granted((ONE, TWO, THREE), number=1)
    assert bench.master(grant) == [
        down(LEA, parcel(LEA, grant, 1, ONE, TWO)),
        down(LEO, parcel(LEO, grant, 2, THREE)),
    ]
    assert bench.stock.leaf_of(ANN.node, ONE.lease) == LEA.node
    assert bench.stock.leaf_of(ANN.node, THREE.lease) == LEO.node
    assert bench.stock.leaf_of(ANN.node, FOUR.lease) is None
    assert bench.flush() == [up(msg.Report(placed=(*placed(LEA, ONE, TWO), *placed(LEO, THREE))))]


def test_the_manifest_goes_over_a_link_once(bench: Bench) -> None:
    bench.stocked(ONE)
    bench.leaf(LEA, asks(2))
    bench.flush()
    grant = granted((TWO,), number=2, sent=True)
    assert bench.master(grant) == [down(LEA, parcel(LEA, grant, 2, TWO, sent=True))]


def test_a_leaf_that_lost_a_manifest_is_sent_it_again(bench: Bench) -> None:
    bench.stocked(ONE)
    bench.leaf(LEA, msg.Return(items=returns("no-manifest", ONE)))
    bench.leaf(LEA, asks(2))
    assert bench.flush()[0] == up(msg.Report(placed=placed(LEA, ONE), returns=returns("no-manifest", ONE)))
    grant = granted((TWO,), number=2)
    assert bench.master(grant) == [down(LEA, parcel(LEA, grant, 2, TWO))]


def test_what_is_in_stock_is_given_out_at_once(bench: Bench) -> None:
    saved = checkpoint(TWO)
    grant = stocked(bench, ONE, TWO, checkpoints=(saved,), blobs=(b"b",))
    assert bench.leaf(LEO, asks(3)) == [down(LEO, parcel(LEO, grant, 3, ONE, TWO, checkpoints=(saved,)))]


def test_new_stock_wakes_who_sleeps(bench: Bench) -> None:
    bench.leaf(LEA, asks(1))
    bench.flush()
    assert bench.tick(after=HOLD_S) == [nothing(LEA, 1)]
    effects = bench.master(granted((ONE,), number=1))
    assert effects == [down(LEA, msg.HasWork(counter=2, owners=("ann",)))]


@pytest.mark.parametrize(
    ("sent", "keys", "fault"), [(True, (), "late"), (False, (), "no-manifest"), (True, (LEA,), "no-manifest")]
)
def test_what_comes_too_late_is_handed_back(bench: Bench, sent: bool, keys: tuple[Member, ...], fault: str) -> None:
    """With what came along, and the master takes for known here, it is to be sent anew."""
    bench.leaf(LEA, asks(1))
    bench.flush()
    bench.tick(after=2.0)
    bench.master(granted((ONE, TWO), number=1, sent=sent, keys=keys))
    assert bench.flush() == [up(msg.Report(returns=returns(fault, ONE, TWO)))]


def test_a_grant_that_comes_twice_does_no_harm(bench: Bench) -> None:
    bench.stocked(ONE)
    bench.flush()
    assert bench.master(granted((ONE,), number=1)) == []
    assert bench.flush() == []
    bench.leaf(LEA, asks(2))
    bench.flush()
    assert bench.master(granted((ONE,), number=2)) == []
    assert bench.flush() == []


def test_more_than_was_asked_for_ends_the_link(bench: Bench) -> None:
    bench.leaf(LEA, asks(1))
    bench.flush()
    assert bench.master(granted((ONE, TWO, THREE), number=1)) == [
        fx.Drop(peer=ANN.node, reason="grant: more than was asked for", close=True)
    ]


def test_a_grant_of_somebody_else_ends_the_link(bench: Bench) -> None:
    assert bench.master(granted((ONE,), signer=LEA)) == [fx.Drop(peer=ANN.node, reason="bad signature", close=True)]


def test_a_job_without_its_manifest_or_keys_is_handed_back_and_the_master_left_alone(bench: Bench) -> None:
    bench.leaf(LEA, asks(1))
    bench.flush()
    bench.master(granted((ONE,), number=1, sent=True))
    assert bench.flush() == [up(msg.Report(returns=returns("no-manifest", ONE)))]
    bench.leaf(LEA, asks(2))
    assert bench.tick(after=WINDOW_S) == []
    assert bench.tick(after=HOLD_S)[0] == nothing(LEA, 1, counter=1)
    bench.leaf(LEA, asks(3))
    bench.flush()
    bench.master(granted((TWO,), number=2, keys=()))
    assert bench.flush() == [up(msg.Report(returns=returns("no-manifest", TWO)))]


def test_what_no_leaf_takes_in_time_is_handed_back(bench: Bench) -> None:
    stocked(bench, ONE, TWO)
    bench.flush()
    bench.tick(after=4.0)
    bench.leaf(LEA, asks(3, tasks_max=1))
    bench.tick(after=1.0)
    assert bench.flush() == [up(msg.Report(returns=returns("late", TWO)))]


def test_what_only_a_key_was_missing_for_is_sent_anew(bench: Bench) -> None:
    stocked(bench, ONE, keys=(LEO,))
    bench.flush()
    bench.leaf(LEA, asks(3))
    bench.tick(after=5.0)
    assert bench.flush() == [up(msg.Report(returns=returns("no-manifest", ONE)))]


def test_a_job_that_no_leaf_can_run_now_waits_for_one_that_can(bench: Bench) -> None:
    for leaf in (LEA, LEO):
        bench.leaf(leaf, msg.ProfileIs(profile=smaller(accepts=False)))
    bench.flush()
    bench.leaf(LEA, asks(1))
    bench.flush()
    grant = granted((ONE,), number=1)
    bench.master(grant)
    bench.leaf(LEO, msg.ProfileIs(profile=PROFILE))
    assert bench.leaf(LEO, asks(2)) == [down(LEO, parcel(LEO, grant, 2, ONE))]


def test_stock_is_recalled_newest_first(bench: Bench) -> None:
    stocked(bench, ONE, TWO, THREE)
    bench.flush()
    bench.master(msg.Recall(tasks=2))
    assert bench.flush() == [up(msg.Report(returns=returns("recalled", THREE, TWO)))]


def test_work_of_other_owners_is_not_offered(bench: Bench) -> None:
    assert bench.work(2, "ann", "bob") == [fx.Drop(peer=ANN.node, reason="work that it may not offer")]
    assert bench.work(1) == []


def test_no_work_is_told_too(bench: Bench) -> None:
    assert bench.master(msg.HasWork(counter=2)) == [
        down(LEA, msg.HasWork(counter=2)),
        down(LEO, msg.HasWork(counter=2)),
    ]
    assert bench.leaf(LEA, asks(1)) == [nothing(LEA, 1, counter=2)]


def test_nothing_puts_to_sleep_those_it_was_asked_for(bench: Bench) -> None:
    bench.leaf(LEA, asks(1))
    bench.flush()
    bench.leaf(LEO, asks(2))
    assert bench.master(msg.Nothing(nonce=nonce(1), owner="ann", counter=1)) == [nothing(LEA, 1)]
    assert bench.flush() == [wants(2, PLACE_LEO)]
    assert bench.master(msg.Nothing(nonce=nonce(2), owner="ann", counter=1)) == [nothing(LEO, 2)]
    assert bench.leaf(LEA, asks(3)) == [nothing(LEA, 3)]
    assert bench.master(msg.Nothing(nonce=nonce(9), owner="ann", counter=1)) == []
    assert len(bench.work(2)) == 2
    assert bench.leaf(LEA, asks(4)) == []
    assert bench.flush() == [wants(3, PLACE_LEA)]


def test_who_was_not_asked_for_is_woken_with_the_answer(bench: Bench) -> None:
    bench.leaf(LEA, asks(1))
    bench.flush()
    bench.leaf(LEO, asks(2))
    assert bench.tick(after=HOLD_S) == [nothing(LEA, 1), nothing(LEO, 2)]
    assert bench.master(msg.Nothing(nonce=nonce(1), owner="ann", counter=1)) == [
        down(LEA, msg.HasWork(counter=2, owners=("ann",))),
        down(LEO, msg.HasWork(counter=2, owners=("ann",))),
    ]


def test_a_master_that_does_not_answer_is_left_alone_and_then_asked_again(bench: Bench) -> None:
    bench.leaf(LEA, asks(1))
    bench.flush()
    bench.tick(after=HOLD_S)
    assert bench.tick(after=2.0 - HOLD_S) == [down(LEA, msg.HasWork(counter=2, owners=("ann",)))]
    bench.leaf(LEA, asks(2))
    assert bench.flush() == []
    assert bench.tick(after=HOLD_S)[0] == nothing(LEA, 2, counter=2)
    bench.leaf(LEA, asks(3))
    assert bench.flush() == [wants(2, PLACE_LEA)]


def test_the_whole_cluster_is_never_asked_for_more_leases_than_one_worker_may_hold(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster, "ITEMS_MAX", msg.LEASES_MAX // 2)
    bench.took(LEA, ONE)
    bench.leaf(LEA, asks(1))
    assert bench.flush() == [up(msg.Report(placed=placed(LEA, ONE), beats=(msg.Beat(ONE.lease),)))]
    monkeypatch.setattr(nested, "HELD_MAX", 1)
    assert bench.took(LEA, TWO, also=(ONE,)) == [down(LEA, msg.Cancel(leases=(TWO.lease,)))]


# -- what leaves say of their leases ---------------------------------------------------------------------------------------


def test_results_are_passed_on_in_one_report_and_receipts_back(bench: Bench) -> None:
    bench.leaf(LEA, asks(1))
    bench.leaf(LEO, asks(2))
    bench.flush()
    bench.master(granted((ONE, TWO, THREE), number=1))
    first, second = result(LEA, ONE, TWO), result(LEO, THREE)
    bench.leaf(LEA, msg.ResultReady(result=first, blobs=(b"one",)))
    bench.leaf(LEO, msg.ResultReady(result=second))
    spread = (*placed(LEA, ONE, TWO), *placed(LEO, THREE))
    assert bench.flush()[0] == up(msg.Report(placed=spread, results=(first, second), blobs=(b"one",)))
    said = receipt(ONE, THREE, FOUR)
    assert bench.master(msg.Receipted(receipt=said)) == [
        down(LEA, msg.Receipted(receipt=said)),
        down(LEO, msg.Receipted(receipt=said)),
    ]
    assert bench.stock.leaf_of(ANN.node, ONE.lease) is None
    assert bench.stock.leaf_of(ANN.node, TWO.lease) == LEA.node


def test_how_leases_came_to_their_leaves_is_told_once_and_only_as_far_as_it_is_of_these_results(bench: Bench) -> None:
    bench.leaf(LEA, asks(1))
    bench.leaf(LEO, asks(2))
    bench.flush()
    grants = bench.master(granted((ONE, TWO, THREE), number=1))
    cat, leo = (each.message.message.subs for each in grants if isinstance(each.message.message, msg.Granted))
    first, second, third = (result(leaf, each) for leaf, each in ((LEA, ONE), (LEA, TWO), (LEO, THREE)))
    bench.leaf(LEA, msg.ResultReady(result=first, subs=cat))
    bench.leaf(LEA, msg.ResultReady(result=second, subs=(*leo, *cat)))
    bench.leaf(LEO, msg.ResultReady(result=third))
    [report] = of(bench.flush(), msg.Report)
    assert (report.results, report.subs) == ((first, second, third), cat)


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        (lambda sub: sub[:-1] + b"x", "bad signature"),
        (lambda _: sub_grant(b"grant", LEA.node, ONE.lease, TWO.lease, ONE.lease), "wider than the one above"),
        (lambda _: sub_grant(b"grant", LEA.node, ONE.lease, master=LEO.node), "not of this master"),
    ],
)
def test_a_leaf_that_tells_of_it_what_does_not_hold_brings_no_result(
    bench: Bench, said: Callable[[bytes], bytes], reason: str
) -> None:
    grant = bench.stocked(ONE)
    bench.flush()
    ready = msg.ResultReady(result=result(LEA, ONE), subs=(said(parcel(LEA, grant, 1, ONE).subs[0]),))
    assert bench.leaf(LEA, ready) == [fx.Drop(peer=LEA.node, reason=f"sub-grant: {reason}")]
    assert bench.flush() == []


def sub_grant(above: bytes, to: bytes, *leases: LeaseId, **fields: object) -> bytes:
    plain = {
        "mesh": MESH, "node": ME.node, "master": ANN.node, "to": to, "parent": sign.digest(above), "nonce": bytes(16),
        "leases": leases, "expires": WALL,
    }  # fmt: skip
    return sign.sign(ME.signer, SubGrant(**(plain | fields)))


def test_a_receipt_for_who_has_gone_waits_for_it_to_say_the_result_again(bench: Bench) -> None:
    bench.stocked(ONE)
    bench.leaf(LEA, msg.ResultReady(result=result(LEA, ONE)))
    bench.leaf(LEA, msg.Leaving())
    bench.flush()
    assert bench.master(msg.Receipted(receipt=receipt(ONE))) == []
    bench.enter(LEA, ONE.lease)
    raw = result(LEA, ONE)
    bench.leaf(LEA, msg.ResultReady(result=raw))
    assert [report.results for report in of(bench.flush(), msg.Report)] == [(raw,)]
    assert bench.master(msg.Receipted(receipt=receipt(ONE))) == [down(LEA, msg.Receipted(receipt=receipt(ONE)))]


def test_a_receipt_is_believed_only_of_the_master_to_this_cluster(bench: Bench) -> None:
    for said, reason in (
        (receipt(ONE, signer=LEA), "bad signature"),
        (receipt(ONE, to=LEA.node), "not for this cluster"),
    ):
        assert bench.master(msg.Receipted(receipt=said)) == [
            fx.Drop(peer=ANN.node, reason=f"receipt: {reason}", close=True)
        ]


def test_a_result_is_passed_on_only_of_who_signed_it_and_holds_its_leases(bench: Bench) -> None:
    bench.stocked(ONE)
    bench.flush()
    for leaf, raw, reason in (
        (LEA, result(LEA, ONE, signer=LEO), "bad signature"),
        (LEA, result(LEA, ONE, node=LEO.node), "for somebody else"),
        (LEO, result(LEO, TWO, ONE), "lease was never given to it"),
    ):
        dropped = fx.Drop(peer=leaf.node, reason=f"result: {reason}")
        assert bench.leaf(leaf, msg.ResultReady(result=raw)) == [dropped]
    assert of(bench.flush(), msg.Report) == []


def test_of_what_a_leaf_cannot_show_to_have_been_given_it_says_nothing(bench: Bench) -> None:
    """Leases are counted, and another leaf may hold these, which has not said so yet since this bridge was started."""
    beats = (msg.Beat(ONE.lease), msg.Beat(TWO.lease, running=False))
    for proofs in ((), (handed(LEA, ONE.lease),), (handed(LEO, ONE.lease, by=LEO),), (granted((ONE,)).grant, b"x")):
        bench.leaf(LEO, msg.Holding(leases=(ONE.lease, TWO.lease), mandate=mandate(LEO, ME), proofs=proofs))
        assert bench.leaf(LEO, msg.Heartbeat(beats=beats)) == [down(LEO, msg.Cancel(leases=(ONE.lease,)))]
        assert bench.leaf(LEO, msg.Return(items=returns("disk", ONE))) == []
    assert of(bench.flush(), msg.Report) == []
    bench.took(LEA, ONE)
    assert bench.stock.leaf_of(ANN.node, ONE.lease) == LEA.node


def test_a_heartbeat_that_was_under_way_as_the_master_came_anew_stops_nothing(bench: Bench) -> None:
    """Its leaf has yet to hear of that, and to say what it holds."""
    bench.took(LEA, ONE)
    bench.do(master())
    assert bench.leaf(LEA, msg.Heartbeat(beats=(msg.Beat(ONE.lease),))) == []
    bench.enter(LEA, ONE.lease)
    assert bench.stock.leaf_of(ANN.node, ONE.lease) == LEA.node


def test_the_result_of_a_lease_that_nobody_has_is_for_the_master_to_judge(bench: Bench) -> None:
    raw, blobs = result(LEA, ONE), (b"blob",)
    stray = up(msg.Report(strays=(raw,), blobs=blobs))
    assert bench.leaf(LEA, msg.ResultReady(result=raw, blobs=blobs)) == [stray]
    assert bench.leaf(LEA, msg.ResultReady(result=raw, blobs=blobs), after=nested.STRAY_S - 1) == [], "once is enough"
    assert of(bench.tick(after=2.0), msg.Report) == []
    long = (bytes(msg.INLINE_BYTES_MAX + 1),)
    assert of(bench.leaf(LEA, msg.ResultReady(result=raw, blobs=long)), msg.Report) == [msg.Report(strays=(raw,))]
    over = msg.Receipted(receipt=receipt(ONE))
    assert bench.master(over) == [down(LEA, over)]
    assert bench.master(over) == []


def test_a_stray_of_one_leaf_keeps_back_no_stray_of_another(bench: Bench) -> None:
    strays = [(leaf, result(leaf, ONE)) for leaf in (LEO, LEA)]
    for leaf, raw in strays:
        assert bench.leaf(leaf, msg.ResultReady(result=raw)) == [up(msg.Report(strays=(raw,)))]
        assert bench.leaf(leaf, msg.ResultReady(result=raw)) == []
    over = msg.Receipted(receipt=receipt(ONE))
    assert bench.master(over) == [down(LEO, over), down(LEA, over)]


def test_strays_are_remembered_within_bounds_and_wait_until_the_master_knows_the_leaf(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(nested, "STRAYS_MAX", 1)
    bench = Bench()
    bench.do(master())
    bench.join(LEA)
    assert bench.leaf(LEA, msg.ResultReady(result=result(LEA, ONE))) == []
    bench.tick(after=GATHER_S)
    for entry in (ONE, TWO):
        assert of(bench.leaf(LEA, msg.ResultReady(result=result(LEA, entry))), msg.Report)
    assert bench.master(msg.Receipted(receipt=receipt(ONE))) == []
    assert bench.master(msg.Receipted(receipt=receipt(TWO))) != []


def test_a_leaf_that_names_ever_more_leases_leaves_others_room(bench: Bench) -> None:
    beats = tuple(msg.Beat(item(number).lease) for number in range(1, nested.LEAF_HELD_MAX + 2))
    bench.leaf(LEO, bench.holding(LEO, *(beat.lease for beat in beats)))
    assert bench.stock.leaf_of(ANN.node, beats[-1].lease) is None
    bench.leaf(LEA, bench.holding(LEA, beats[-1].lease))
    assert bench.stock.leaf_of(ANN.node, beats[-1].lease) == LEA.node
    bench.leaf(LEA, asks(1))
    assert of(bench.flush(), msg.Request), "and there is room for what the master grants"


def test_what_leaves_name_and_hand_back_before_the_master_is_told_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nested, "HELD_MAX", 3)
    bench = Bench()
    bench.do(master())
    bench.join(LEO)
    for number in range(1, 6):
        bench.took(LEO, item(number))
        bench.leaf(LEO, msg.Return(items=returns("evicted", item(number))))
    told = of(bench.tick(after=GATHER_S), msg.Report)
    assert [report.returns for report in told] == [returns("evicted", ONE, TWO, THREE)]


def test_results_that_wait_are_bounded(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("p2pq.core.batching.WAITING_BYTES_MAX", 100)
    raw = result(LEA, ONE)
    bench.took(LEA, ONE, TWO)
    bench.leaf(LEA, msg.ResultReady(result=raw))
    bench.leaf(LEA, msg.ResultReady(result=result(LEA, TWO)))
    assert [report.results for report in of(bench.flush(), msg.Report)] == [(raw,)]


def test_what_is_enough_for_a_report_is_said_at_once(bench: Bench) -> None:
    beats = tuple(msg.Beat(item(number).lease) for number in range(ITEMS_MAX))
    effects = bench.leaf(LEA, bench.holding(LEA, *(beat.lease for beat in beats)))
    beats = tuple(msg.Beat(beat.lease, running=False) for beat in beats)
    assert effects == [up(msg.Report(placed=tuple((beat.lease, LEA.node) for beat in beats), beats=beats))]
    assert bench.flush() == []


def test_what_waits_is_said_with_what_is_enough(bench: Bench) -> None:
    bench.took(LEA, item(5000))
    more = (item(number).lease for number in range(ITEMS_MAX))
    assert len(bench.leaf(LEA, bench.holding(LEA, item(5000).lease, *more))) == 2
    assert bench.flush() == []


def test_leases_that_leaves_renew_are_renewed_together(bench: Bench) -> None:
    bench.leaf(LEA, asks(1))
    bench.leaf(LEO, asks(2))
    bench.flush()
    bench.master(granted((ONE, TWO, THREE), number=1))
    bench.flush()
    bench.leaf(LEA, msg.Heartbeat(beats=(msg.Beat(ONE.lease, True, 500), msg.Beat(TWO.lease, False))))
    assert bench.flush() == [up(msg.Report(beats=(msg.Beat(ONE.lease, True, 500),)))]
    bench.leaf(LEA, msg.Heartbeat(beats=(msg.Beat(ONE.lease, True, 500),)))
    assert bench.flush() == []
    bench.tick(after=15.0)
    beats = (msg.Beat(ONE.lease, True, 500), msg.Beat(TWO.lease, False), msg.Beat(THREE.lease, False))
    assert bench.flush() == [up(msg.Report(beats=beats))]


def test_what_is_in_stock_is_renewed_too(bench: Bench) -> None:
    bench.tick(after=12.0)
    bench.flush()
    bench.tick(after=12.0)
    stocked(bench, ONE)
    bench.tick(after=3.0)
    said = of(bench.flush(), msg.Report)
    assert [report.beats for report in said] == [(msg.Beat(ONE.lease, running=False),)]


def test_what_a_leaf_does_not_renew_is_over(bench: Bench) -> None:
    bench.leaf(LEA, asks(1))
    bench.flush()
    bench.master(granted((ONE, TWO), number=1))
    bench.leaf(LEA, msg.ResultReady(result=result(LEA, ONE)))
    bench.flush()
    bench.leaf(LEA, msg.Leaving())
    reports = [report for _ in range(80) for report in of(bench.tick(after=1.0), msg.Report)]
    assert [report.returns for report in reports if report.returns] == [returns("expired", TWO)]
    assert [len(report.beats) for report in reports] == [2, 2, 2, 2, 0]
    assert bench.stock.leaf_of(ANN.node, ONE.lease) is None


def test_a_leaf_that_comes_back_loses_what_it_does_not_name(bench: Bench) -> None:
    bench.leaf(LEA, asks(1))
    bench.flush()
    bench.master(granted((ONE, TWO), number=1))
    bench.flush()
    bench.leaf(LEA, bench.holding(LEA, TWO.lease, THREE.lease))
    assert bench.flush() == [
        up(
            msg.Report(
                placed=placed(LEA, THREE),
                beats=(msg.Beat(THREE.lease, running=False),),
                returns=returns("lost", ONE),
            )
        )
    ]


def test_who_does_not_say_that_it_takes_part_this_way_is_not_introduced() -> None:
    bench = Bench()
    bench.do(master())
    bench.do(worker(LEA))
    bench.card(LEA)
    word = mandate(LEA, LEO)
    assert bench.leaf(LEA, msg.Holding(mandate=word)) == [
        fx.Drop(peer=LEA.node, reason="holding: mandate for another way")
    ]
    bench.leaf(LEA, msg.ProfileIs(profile=PROFILE))
    assert bench.tick(after=GATHER_S) == [up(msg.Leaves()), up(msg.Holding())]


def test_nobody_holds_what_another_has_or_what_is_in_stock(bench: Bench) -> None:
    bench.stocked(ONE)
    dropped = [fx.Drop(peer=LEO.node, reason="lease was never given to it")]
    assert bench.leaf(LEO, bench.holding(LEO, ONE.lease)) == dropped
    stocked(bench, TWO)
    assert bench.leaf(LEO, bench.holding(LEO, TWO.lease)) == dropped


def test_only_who_holds_a_lease_hands_it_back(bench: Bench) -> None:
    bench.stocked(ONE)
    bench.flush()
    bench.leaf(LEO, msg.Return(items=returns("evicted", ONE)))
    assert bench.flush() == []
    bench.leaf(LEA, msg.Return(items=returns("evicted", ONE)))
    assert bench.flush() == [up(msg.Report(returns=returns("evicted", ONE)))]


def test_a_leaf_that_slept_hears_what_is_still_its_own(bench: Bench) -> None:
    bench.stocked(ONE)
    said = bench.leaf(LEA, msg.Confirm(nonce=nonce(5), leases=(ONE.lease, TWO.lease)))
    assert said == [down(LEA, msg.Confirmed(nonce=nonce(5), leases=(ONE.lease,)))]


def test_what_is_cancelled_is_dropped_wherever_it_is(bench: Bench) -> None:
    grant = stocked(bench, ONE, TWO, FOUR)
    bench.leaf(LEA, asks(2, tasks_max=1))
    bench.flush()
    over = (ONE.lease, TWO.lease, item(99).lease)
    assert bench.master(msg.Cancel(leases=over)) == [down(LEA, msg.Cancel(leases=(ONE.lease,)))]
    assert bench.leaf(LEA, asks(3)) == [down(LEA, parcel(LEA, grant, 3, FOUR, sent=True))]
    assert bench.flush() == [up(msg.Report(placed=placed(LEA, FOUR)))]


def test_of_what_is_cancelled_the_master_hears_nothing_more(bench: Bench) -> None:
    bench.leaf(LEA, msg.Heartbeat(beats=(msg.Beat(ONE.lease),)))
    bench.master(msg.Cancel(leases=(ONE.lease,)))
    assert bench.flush() == []


# -- the stock -------------------------------------------------------------------------------------------------------------


def test_a_stock_is_asked_for_once_an_attempt_has_ended_and_again_when_little_is_left(bench: Bench) -> None:
    """Of two at a time one has ended after a quarter of a second, which is taken for half a second: seven in 3.5 seconds."""
    job = manifest(ANN)
    bench.leaf(LEA, asks(1, ahead=()))
    bench.flush()
    bench.master(granted((ONE, TWO), number=1))
    bench.tick(after=0.25)
    bench.leaf(LEA, msg.ResultReady(result=result(LEA, ONE)))
    bench.leaf(LEA, asks(2, cpus=1, tasks_max=1))
    grant = granted(tuple(item(number, task=number) for number in range(10, 15)), number=2)
    assert bench.flush()[-1] == wants(2, msg.Place(LEA.node, 1, 4096, 1), ahead=((job.job, 7),), tasks_max=8)
    assert len(bench.master(grant)) == 1
    assert not of(bench.flush(), msg.Request)
    bench.leaf(LEA, msg.ResultReady(result=result(LEA, TWO)))
    bench.leaf(LEA, asks(3))  # two of four are left, and two have ended in 0.35 s (0.6): eleven in 3.5 s
    assert not of(bench.flush(), msg.Request)
    bench.leaf(LEA, asks(4, cpus=1, tasks_max=1))
    assert bench.flush()[-1] == wants(3, ahead=((job.job, 9),), tasks_max=9)


def test_what_failed_or_waited_too_long_is_not_kept_in_stock(bench: Bench) -> None:
    bench.leaf(LEA, asks(1))
    bench.flush()
    bench.master(granted((ONE, TWO), number=1))
    bench.tick(after=0.25)
    bench.leaf(LEA, msg.ResultReady(result=result(LEA, ONE, outcome=Outcome(reason="exit", exit=1))))
    assert not of(bench.flush(), msg.Request)
    bench.leaf(LEA, msg.ResultReady(result=result(LEA, TWO, outcome=OK)))
    assert not of(bench.flush(), msg.Request)


def test_a_bridge_that_goes_down_hands_its_stock_back_and_asks_for_no_more(bench: Bench) -> None:
    stocked(bench, ONE)
    bench.flush()
    bench.do(ev.Drain())
    assert bench.flush() == [up(msg.Report(returns=returns("draining", ONE)))]
    (message,) = of(bench.leaf(LEA, asks(4)), msg.Nothing)
    assert message.nonce == nonce(4)


def test_a_bridge_that_goes_at_once_says_so_at_once(bench: Bench) -> None:
    stocked(bench, ONE)
    bench.flush()
    assert bench.do(ev.Drain(now=True))[0] == up(msg.Report(returns=returns("draining", ONE)))
    assert bench.flush() == []
    assert bench.do(ev.Drain(now=True)) == []


def test_a_bridge_that_goes_before_it_has_spoken_says_nothing() -> None:
    bench = Bench()
    bench.do(master())
    bench.join(LEA, ONE.lease)
    assert bench.do(ev.Drain(now=True)) == []


def test_news_wait_for_a_twentieth_of_a_mean_attempt_or_two_whole_ones_if_nobody_waits_for_them(bench: Bench) -> None:
    bench.stocked(ONE, of=manifest(ANN, limits=Limits(time_s=100)))
    bench.flush()
    bench.tick(after=10.0)
    bench.leaf(LEA, msg.ResultReady(result=result(LEA, ONE)))
    bench.tick(after=0.06)
    bench.took(LEA, TWO, also=(ONE,))
    assert bench.tick(after=0.9) == []
    news = msg.Report(placed=placed(LEA, TWO), beats=(msg.Beat(TWO.lease),))
    assert of(bench.tick(after=0.2), msg.Report) == [news], "less, where nothing is in stock"
    bench.leaf(LEA, msg.Heartbeat(beats=(msg.Beat(TWO.lease, running=True),)))
    assert bench.tick(after=0.4) == []
    bench.leaf(LEA, msg.Return(items=returns("late", TWO)))
    assert bench.tick(after=0.4) == []
    assert of(bench.tick(after=0.2), msg.Report) == [msg.Report(returns=returns("late", TWO))]


def test_a_good_result_waits_for_others_as_long_as_more_of_its_job_is_in_stock(bench: Bench) -> None:
    bench.leaf(LEA, asks(1))
    bench.flush()
    bench.master(granted((ONE, TWO), number=1))
    bench.flush()
    bench.tick(after=0.5)
    first = msg.ResultReady(result=result(LEA, ONE))
    bench.leaf(LEA, first)
    assert [each.results for each in of(bench.flush(), msg.Report)] == [(first.result,)], "nothing is in stock"
    bench.leaf(LEO, asks(2, cpus=1, tasks_max=1))
    bench.flush()
    bench.master(granted((THREE, FOUR), number=2))
    bench.flush()
    second = msg.ResultReady(result=result(LEA, TWO))
    bench.leaf(LEA, second)
    assert of(bench.flush(), msg.Report) == []
    assert [each.results for each in of(bench.tick(after=1.0), msg.Report)] == [(second.result,)]


def test_a_good_result_hurries_if_its_leaf_may_have_nothing_of_what_is_in_stock(bench: Bench) -> None:
    bench.leaf(LEA, asks(1))
    bench.flush()
    bench.master(granted((ONE, TWO), number=1))
    bench.tick(after=0.5)
    bench.leaf(LEA, msg.ResultReady(result=result(LEA, ONE)))
    bench.flush()
    bench.master(msg.Nothing(nonce=nonce(2), owner="ann", counter=0))
    bench.leaf(LEA, asks(2))
    assert bench.tick(after=0.6) == [wants(3, PLACE_LEA)]
    assert bench.master(msg.Nothing(nonce=nonce(3), owner="ann", counter=1)) == [nothing(LEA, 2, counter=2)]
    bench.leaf(LEO, asks(3))
    assert bench.tick(after=0.6) == [wants(4, PLACE_LEO)]
    bench.leaf(LEO, msg.Leaving())
    bench.master(granted((THREE, FOUR), number=4, avoid=((THREE.lease, LEA.node), (FOUR.lease, LEA.node))))
    bench.flush()
    second = msg.ResultReady(result=result(LEA, TWO))
    bench.leaf(LEA, second)
    assert of(bench.flush(), msg.Report) == [], "there is more in stock"
    assert bench.leaf(LEA, asks(4)) == [nothing(LEA, 4, counter=3)]
    assert [each.results for each in of(bench.tick(after=0.1), msg.Report)] == [(second.result,)]


def test_what_comes_back_late_waits_as_long_as_more_of_its_job_is_in_stock(bench: Bench) -> None:
    bench.leaf(LEA, asks(1))
    bench.flush()
    bench.master(granted((ONE, TWO), number=1))
    bench.tick(after=0.5)
    bench.leaf(LEA, msg.ResultReady(result=result(LEA, ONE)))
    bench.leaf(LEO, asks(2, cpus=1, tasks_max=1))
    bench.flush()
    bench.master(granted((THREE, FOUR), number=2))
    bench.flush()
    bench.leaf(LEA, msg.Return(items=returns("late", TWO)))
    assert of(bench.flush(), msg.Report) == []
    [report] = of(bench.tick(after=1.0), msg.Report)
    assert report.returns == returns("late", TWO)
    bench.leaf(LEO, msg.Return(items=returns("recalled", THREE)))
    assert [each.returns for each in of(bench.flush(), msg.Report)] == [returns("recalled", THREE)]


def test_a_master_that_had_nothing_is_asked_for_more_leaves_at_once(bench: Bench) -> None:
    bench.leaf(LEA, asks(1))
    bench.flush()
    bench.master(granted((ONE, TWO), number=1))
    bench.tick(after=0.5)
    for each in (ONE, TWO):
        bench.leaf(LEA, msg.ResultReady(result=result(LEA, each)))
    bench.leaf(LEA, asks(2))
    bench.flush()
    bench.master(msg.Nothing(nonce=nonce(2), owner="ann", counter=1))
    bench.leaf(LEO, asks(3))
    assert of(bench.flush(), msg.Request) == [], "there is little hope"
    assert len(of(bench.tick(after=0.5), msg.Request)) == 1


def test_a_failure_does_not_wait(bench: Bench) -> None:
    bench.leaf(LEA, asks(1))
    bench.flush()
    bench.master(granted((ONE, TWO), number=1))
    bench.flush()
    bench.tick(after=0.5)
    good = msg.ResultReady(result=result(LEA, ONE))
    bench.leaf(LEA, good)
    bench.leaf(LEA, msg.ResultReady(result=result(LEA, TWO, outcome=Outcome(reason="exit", exit=1))))
    assert [len(each.results) for each in of(bench.flush(), msg.Report)] == [2]


def test_the_cluster_has_an_id_of_its_own() -> None:
    assert CLUSTER not in {ANN.node, LEA.node, LEO.node}
    assert WINDOW_S == 0.05
