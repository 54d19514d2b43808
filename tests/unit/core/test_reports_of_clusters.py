"""What a bridge tells a master of its leaves, their leases and their results; who is held to account for what."""

import msgspec
import pytest

from p2pq.core import effects as fx
from p2pq.core import events as ev
from p2pq.core import records as r
from p2pq.core import results as results_module
from p2pq.core.collecting import OVERHEAD_BYTES
from p2pq.core.results import RECEIPTS_S
from p2pq.model import notice as n
from p2pq.model.ids import LeaseId
from p2pq.model.job import Limits
from p2pq.wire import messages as msg
from p2pq.wire import prims, sign, trust
from p2pq.wire.objects import BLOB_BYTES_MAX, BlobRef, GrantItem, Receipt
from tests.unit.core.clusterkit import (
    BRIDGE,
    CAT,
    CLUSTER,
    DOG,
    EMU,
    OTHER,
    Cluster,
    bench_of,
    card,
    chain,
    drop,
    leaf,
    lease,
    mandate,
    moved,
    place,
    said,
    signed_result,
)
from tests.unit.core.mesh import (
    ALICE,
    BAD,
    LEFT,
    MASTER,
    OK,
    OWNER,
    PROFILE,
    WALL,
    Member,
    job_id,
    ready,
    receipt,
    result_item,
    submitted,
)

JOB = job_id()
PEER = Member("cluster")
PEER.node = CLUSTER
"""To whom receipts go."""


def rows(effects: list[fx.Effect]) -> list[r.Row]:
    return [each.row for each in effects if isinstance(each, fx.Record)]


def sends(effects: list[fx.Effect]) -> list[fx.Send]:
    return [each for each in effects if isinstance(each, fx.Send)]


def expired(member_node: bytes, item: GrantItem) -> fx.Emit:
    return fx.Emit(notice=n.LeaseExpired(lease=item.lease, worker=member_node, held_s=60.0))


# -- leaves ---------------------------------------------------------------------------------------------------------------


def test_leaves_wake_their_cluster_and_bad_ones_are_dropped() -> None:
    bench, cluster = bench_of()
    bench.do(submitted())
    bad = leaf(DOG, certs=chain(DOG, "submit"))
    assert cluster.says(msg.Leaves(leaves=(bad, leaf(CAT)))) == [
        drop("leaf: no work capability"),
        fx.Send(peer=CLUSTER, message=msg.HasWork(counter=2, owners=(OWNER,))),
    ]
    [worker] = bench.queue.workers()
    assert (worker.node, worker.name, worker.profile, worker.own) == (CAT.node, "cat", PROFILE, False)


def test_only_a_cluster_has_leaves_and_reports() -> None:
    bench, _ = bench_of()
    bench.join(ALICE)
    assert bench.says(ALICE, msg.Leaves(leaves=(leaf(CAT),))) == [drop("leaves: not of a cluster", ALICE.node)]
    assert bench.says(ALICE, msg.Report()) == [drop("report: not of a cluster", ALICE.node)]
    relayed = msgspec.structs.replace(EMU.link_up(), path=(BRIDGE.node,))
    bench.do(relayed)
    assert bench.says(EMU, msg.Report()) == [drop("report: not of a cluster", EMU.node)], "its link is only carried"


# -- who has what ---------------------------------------------------------------------------------------------------------


def test_a_lease_is_that_of_the_cluster_and_run_by_the_leaf() -> None:
    bench, cluster = bench_of(CAT, DOG)
    cluster.says(msg.Leaves(leaves=(leaf(DOG, path=(OTHER.node,), serial=2),)))
    bench.do(submitted(tasks=3))
    items = cluster.leases(place(CAT, 2), place(DOG, 1))
    assert [(task.worker, task.via) for task in bench.queue.tasks(JOB)] == [(CLUSTER, (BRIDGE.node,))] * 3
    assert cluster.placed(CAT, items[0]) == []
    assert cluster.placed(DOG, items[1]) == []
    assert [(task.worker, task.via) for task in bench.queue.tasks(JOB)] == [
        (CAT.node, (BRIDGE.node,)),
        (DOG.node, (BRIDGE.node, OTHER.node)),
        (CLUSTER, (BRIDGE.node,)),
    ]
    assert [(worker.leases, worker.cpus) for worker in bench.queue.workers()] == [(1, 1), (1, 1)]
    cluster.placed(DOG, items[0])
    assert [(worker.leases, worker.cpus) for worker in bench.queue.workers()] == [(0, 0), (2, 2)]
    assert " on dog " in str(bench.queue.why(JOB, 0, bench.now))


def test_what_a_grant_to_a_cluster_leaves_behind_names_the_cluster_and_its_bridge() -> None:
    bench, cluster = bench_of(CAT)
    bench.do(submitted())
    row = r.LeaseGranted(lease=lease(0), job=JOB, task=0, attempt=1, worker=CLUSTER, wall=WALL, via=(BRIDGE.node,))
    effects = cluster.ask(place(CAT))
    assert rows(effects) == [row, r.GrantKept(job=JOB, lease=lease(0), signed=said(effects).grant)]


def test_leases_are_placed_by_their_own_cluster_only() -> None:
    bench, cluster = bench_of(CAT)
    other = Cluster(bench, OTHER)
    other.join(DOG)
    bench.do(submitted())
    [item] = cluster.leases(place(CAT))
    assert other.placed(DOG, item) == []
    assert cluster.report(placed=((lease(9), CAT.node),)) == []
    assert bench.queue.tasks(JOB)[0].worker == CLUSTER


def test_what_was_given_to_a_leaf_that_is_out_waits_again() -> None:
    bench, cluster = bench_of(CAT, DOG)
    bench.do(submitted())
    [item] = cluster.leases(place(CAT))
    bench.queue.expel(DOG.node, bench.now)
    effects = cluster.placed(DOG, item)
    assert effects[0] == drop("placed: at a worker that is out")
    [ended] = rows(effects)
    assert (ended.fault, ended.counted) == ("recalled", False)
    assert fx.Send(peer=CLUSTER, message=msg.Cancel(leases=(item.lease,))) in effects
    assert bench.queue.job(JOB).pending == 1


def test_a_leaf_that_went_on_before_it_was_introduced_takes_its_work_along() -> None:
    """Its first bridge links anew, and says who has what; the leaf is another bridge's by then."""
    bench, cluster = bench_of(CAT)
    bench.do(submitted())
    [item] = cluster.leases(place(CAT))
    bench.do(ev.LinkDown(peer=CLUSTER))
    cluster.join()
    cluster.says(msg.Holding(leases=(item.lease,)))
    assert cluster.placed(DOG, item) == []
    other = Cluster(bench, OTHER)
    other.join(DOG)
    assert other.says(msg.Holding(leases=(item.lease,))) == moved(other.node, item)
    other.brings(DOG, result_item(item))
    assert bench.queue.collecting(item.lease) is not None
    bench.do(ev.Collected(lease=item.lease))
    assert bench.queue.job(JOB) is None or bench.queue.tasks(JOB)[0].state == "done"


def test_what_is_brought_is_not_taken_back_whatever_is_said_of_its_place() -> None:
    bench, cluster = bench_of(CAT, DOG, EMU)
    bench.do(submitted())
    [item] = cluster.leases(place(CAT))
    bench.queue.expel(EMU.node, bench.now)
    cluster.brings(CAT, result_item(item))
    for other in (DOG, EMU):
        assert cluster.placed(other, item) == []
    [ended] = [each for each in rows(bench.do(ev.Collected(lease=item.lease))) if isinstance(each, r.AttemptEnded)]
    assert ended.worker == CAT.node


def test_who_has_just_left_may_have_got_something_before() -> None:
    bench, cluster = bench_of(CAT)
    bench.do(submitted())
    [item] = cluster.leases(place(CAT))
    cluster.says(msg.Leaves(gone=(CAT.node,)))
    assert cluster.placed(CAT, item) == []
    shown = bench.queue.tasks(JOB)[0]
    assert (shown.worker, shown.via) == (CAT.node, ())


def test_a_second_attempt_that_was_placed_first_does_not_hide_the_latest() -> None:
    bench, cluster = bench_of(CAT, DOG)
    bench.do(submitted(tasks=2))
    slow, quick = cluster.leases(place(CAT, 2))
    cluster.finish(CAT, quick)
    cluster.placed(CAT, slow)
    bench.tick(10.0)
    [again] = cluster.leases(place(DOG))
    cluster.placed(DOG, again)
    cluster.placed(CAT, slow)
    shown = bench.queue.tasks(JOB)[0]
    assert (shown.worker, shown.again) == (CAT.node, DOG.node)
    assert bench.queue._book.jobs[JOB].tasks[0].worker == DOG.node


def test_beats_renew_and_tell_progress_and_cancels_go_to_the_cluster() -> None:
    bench, cluster = bench_of(CAT)
    bench.do(submitted(tasks=2))
    first, second = cluster.leases(place(CAT, 2))
    beats = (msg.Beat(first.lease, True, 500), msg.Beat(second.lease, False))
    bench.tick(20.0)
    told = cluster.report(placed=((first.lease, CAT.node),), beats=beats)
    assert told == [fx.Emit(notice=n.TaskProgressed(job=JOB, task=0, progress=500))]
    assert bench.queue.deadline == 80.0
    stop = fx.Send(peer=CLUSTER, message=msg.Cancel(leases=(first.lease,)))
    assert stop in bench.do(ev.CancelAsked(job=JOB, task=0, wall=WALL))
    assert cluster.report(beats=beats) == [stop]


def test_after_a_restart_of_the_bridge_what_it_had_in_stock_waits_again() -> None:
    bench, cluster = bench_of(CAT)
    bench.do(submitted(tasks=2))
    placed, stock = cluster.leases(place(CAT), ahead=((JOB, 1),))
    cluster.placed(CAT, placed)
    bench.do(ev.LinkDown(peer=CLUSTER))
    assert bench.queue.workers() == []
    cluster.join(CAT)
    [ended] = rows(cluster.says(msg.Holding(leases=(placed.lease,))))
    assert (ended.lease, ended.fault, ended.counted, ended.leaf) == (stock.lease, "recalled", False, None)
    assert bench.queue.tasks(JOB)[0].worker == CAT.node
    bench.do(ev.LinkDown(peer=CLUSTER))
    cluster.join(CAT)
    [ended] = rows(cluster.says(msg.Holding()))
    assert (ended.lease, ended.fault, ended.counted, ended.leaf) == (placed.lease, "lost", True, CAT.node)


def test_a_cluster_confirms_what_is_its() -> None:
    bench, cluster = bench_of(CAT)
    bench.do(submitted())
    [item] = cluster.leases(place(CAT))
    cluster.placed(CAT, item)
    [confirmed] = cluster.says(msg.Confirm(nonce=bytes(16), leases=(item.lease, lease(9))))
    assert confirmed.message == msg.Confirmed(nonce=bytes(16), leases=(item.lease,))


# -- results --------------------------------------------------------------------------------------------------------------


def test_a_result_is_brought_from_the_leaf_through_the_bridge_and_counts_for_the_leaf() -> None:
    bench, cluster = bench_of(CAT)
    bench.do(submitted())
    [item] = cluster.leases(place(CAT))
    blob = b"ciphertext"
    ref, far = BlobRef(prims.blob_id(blob), len(blob)), BlobRef(b"f" * 32, 9)
    result = result_item(item, body=(ref,), blobs=(far,))
    raw = ready(CAT, result).result
    assert cluster.report(results=(raw,), blobs=(blob,)) == [
        fx.Collect(lease=item.lease, peer=CAT.node, through=BRIDGE.node, blobs=(ref, far), inline=(blob,))
    ]
    assert cluster.report(results=(raw,)) == [], "it is on its way"
    effects = bench.do(ev.Collected(lease=item.lease))
    assert rows(effects)[0] == r.AttemptEnded(
        lease=item.lease,
        job=JOB,
        task=0,
        worker=CAT.node,
        result=result,
        state="done",
        wall=WALL,
        via=(BRIDGE.node,),
        proof=r.Proof(signed=raw, certs=chain(CAT)),
    )
    settled = n.TaskSettled(job=JOB, task=0, attempt=1, state="done", worker=CAT.node, outcome=OK, left=True)
    assert fx.Emit(notice=settled) in effects
    assert sends(bench.tick(RECEIPTS_S)) == [receipt(PEER, "settled", item.lease)]


def test_the_leafs_own_word_beats_its_bridges() -> None:
    bench, cluster = bench_of(CAT, DOG)
    bench.do(submitted(tasks=2))
    first, _ = cluster.leases(place(CAT, 2))
    cluster.placed(DOG, first)
    cluster.finish(CAT, first, BAD)
    standing = bench.queue._book.jobs[JOB].standing
    assert (standing.streak(CAT.node), standing.streak(DOG.node)) == (1, 0)


def test_results_of_strangers_and_for_others_do_not_count() -> None:
    bench, cluster = bench_of(CAT)
    bench.do(submitted(tasks=2))
    item, _ = cluster.leases(place(CAT, 2))
    bench.join(ALICE)
    result = result_item(item)
    assert cluster.brings(DOG, result) == [drop("result: not by a leaf")]
    assert cluster.report(results=(ready(CAT, result).result[:-1] + b"x",)) == [drop("result: bad signature")]
    assert cluster.report(results=(signed_result(CAT, result, node=DOG.node),)) == [drop("result: for somebody else")]
    assert cluster.report(results=(signed_result(CAT, result, mesh=bytes(32)),)) == [drop("result: for somebody else")]
    assert bench.says(ALICE, ready(ALICE, result)) == [drop("result: not of that lease", ALICE.node)]
    assert cluster.brings(CAT, result_item(item, lease=LeaseId(1, 99))) == [drop("result: lease was never granted")]
    assert cluster.brings(CAT, result_item(item, attempt=2)) == [drop("result: not of that lease")]


def test_a_direct_worker_signs_for_itself_only() -> None:
    bench, _ = bench_of()
    bench.join(ALICE)
    bench.do(submitted())
    [item] = bench.leases(ALICE)
    told = bench.says(ALICE, ready(ALICE, result_item(item), by=CAT.node))
    assert told == [drop("result: for somebody else", ALICE.node)]


def test_who_has_left_lately_still_brings_its_results() -> None:
    bench, cluster = bench_of(CAT)
    bench.do(submitted())
    [item] = cluster.leases(place(CAT))
    cluster.placed(CAT, item)
    cluster.says(msg.Leaves(gone=(CAT.node, DOG.node)))
    [collect] = cluster.brings(CAT, result_item(item))
    assert (collect.peer, collect.through) == (CAT.node, BRIDGE.node)
    [ended, *_] = rows(bench.do(ev.Collected(lease=item.lease)))
    assert ended.proof.certs == chain(CAT), "it proves what it has signed, gone or not"


def test_late_results_are_answered_and_receipts_go_together(monkeypatch: pytest.MonkeyPatch) -> None:
    bench, cluster = bench_of(CAT, DOG)
    bench.do(submitted(1, tasks=3))
    first, second, third = cluster.leases(place(CAT, 3))
    bench.do(ev.CancelAsked(job=JOB, task=2, wall=WALL))
    late = fx.Emit(notice=n.LateResult(lease=third.lease, worker=DOG.node))
    assert cluster.brings(DOG, result_item(third)) == [late]
    bench.tick(RECEIPTS_S / 2)
    cluster.finish(CAT, first)
    [told] = sends(bench.tick(RECEIPTS_S / 2))
    items = sign.open_signed(told.message.receipt, Receipt, MASTER.node).items
    assert [(each.lease, each.verdict) for each in items] == [(third.lease, "late"), (first.lease, "settled")]
    monkeypatch.setattr(results_module, "ITEMS_MAX", 1)
    assert sends(cluster.finish(CAT, second)) == [receipt(PEER, "settled", second.lease)], "full: it goes at once"


def test_receipts_for_a_bridge_that_is_gone_are_not_said() -> None:
    bench, cluster = bench_of(CAT)
    bench.do(submitted())
    [item] = cluster.leases(place(CAT))
    cluster.finish(CAT, item)
    bench.do(ev.LinkDown(peer=CLUSTER))
    assert bench.tick(RECEIPTS_S) == []
    assert bench.queue.deadline is None


def test_a_result_that_cannot_be_had_is_refused_in_time() -> None:
    bench, cluster = bench_of(CAT)
    limits = Limits(disk_mb=8, output_mb=4)
    most = limits.results_bytes + limits.printed_bytes + OVERHEAD_BYTES
    bench.do(submitted(tasks=2, limits=limits))
    item, big = cluster.leases(place(CAT, 2))
    cluster.brings(CAT, result_item(item))
    [ended] = rows(bench.do(ev.CollectFailed(lease=item.lease, reason="bad", refused=True)))
    assert (ended.fault, ended.leaf, ended.via) == ("deliver", CAT.node, (BRIDGE.node,))
    cluster.brings(CAT, result_item(big, blobs=(BlobRef(b"b" * 32, BLOB_BYTES_MAX),) * (most // BLOB_BYTES_MAX + 1)))
    told = sends(bench.tick(RECEIPTS_S))
    assert receipt(PEER, "refused", item.lease, big.lease) in told


def test_a_forgotten_lease_is_adopted_for_the_leaf() -> None:
    bench, cluster = bench_of(CAT)
    bench.do(submitted())
    restored = msgspec.structs.replace(bench.disk.restored(), epoch=8, rebuilt=8)
    bench2, cluster2 = bench_of(CAT, restored=restored)
    item = GrantItem(0, 1, LeaseId(3, 7))
    effects = cluster2.brings(CAT, result_item(item))
    [granted_row] = rows(effects)
    assert (granted_row.worker, granted_row.lease) == (CLUSTER, item.lease)
    assert fx.Collect(lease=item.lease, peer=CAT.node, through=BRIDGE.node, blobs=LEFT) in effects
    assert bench2.queue.tasks(JOB)[0].worker == CAT.node
    assert cluster.node == cluster2.node


# -- what comes back, and whose fault it is -------------------------------------------------------------------------------


def test_what_a_leaf_lost_is_held_against_the_leaf() -> None:
    bench, cluster = bench_of(CAT, DOG)
    bench.do(submitted(tasks=2))
    item, other = cluster.leases(place(CAT, 2))
    cluster.placed(CAT, item)
    lost = cluster.report(returns=(msg.ReturnItem(item.lease, "disk", "full"), msg.ReturnItem(other.lease, "late")))
    ended, late = rows(lost)
    assert ended == r.LeaseEnded(
        lease=item.lease,
        job=JOB,
        task=0,
        attempt=1,
        fault="disk",
        detail="full",
        leaf=CAT.node,
        via=(BRIDGE.node,),
    )
    assert (late.leaf, late.via, late.counted) == (None, (), False)
    told = n.AttemptLost(job=JOB, task=0, attempt=1, worker=CAT.node, fault="disk", detail="full")
    assert fx.Emit(notice=told) in lost
    assert bench.queue._book.jobs[JOB].tasks[0].avoid == CAT.node


def test_a_lease_that_nobody_renews_is_lost_at_the_leaf_that_has_it() -> None:
    bench, cluster = bench_of(CAT)
    bench.do(submitted(tasks=2))
    item, stock = cluster.leases(place(CAT, 2))
    cluster.placed(CAT, item)
    effects = bench.tick(60.0)
    assert expired(CAT.node, item) in effects
    assert expired(CLUSTER, stock) in effects
    assert sends(effects)[0] == fx.Send(peer=CLUSTER, message=msg.Cancel(leases=(item.lease, stock.lease)))


def test_a_bridge_that_loses_all_it_gets_is_slowed_down_until_an_attempt_ends() -> None:
    bench, cluster = bench_of(CAT)
    bench.do(submitted(tasks=50))
    for _ in range(3):
        [item] = cluster.leases(place(CAT), tasks_max=1)
        bench.tick(1.0)
        cluster.report(returns=(msg.ReturnItem(item.lease, "fetch"),))
    bench.tick(0.5)
    assert cluster.leases(place(CAT, 4)) == []
    bench.tick(1.0)
    [item] = cluster.leases(place(CAT, 4))
    cluster.finish(CAT, item)
    assert len(cluster.leases(place(CAT, 4))) == 4


def test_a_leaf_that_loses_all_it_gets_is_slowed_down_wherever_it_is() -> None:
    bench, cluster = bench_of(CAT, DOG)
    bench.do(submitted(tasks=50))
    for _ in range(3):
        [item] = cluster.leases(place(CAT), tasks_max=1)
        cluster.placed(CAT, item)
        bench.tick(1.0)
        cluster.report(returns=(msg.ReturnItem(item.lease, "sandbox"),))
    assert cluster.leases(place(CAT, 4)) == []
    bench.tick(2.0)
    [item] = cluster.leases(place(CAT, 4))
    cluster.placed(CAT, item)
    assert cluster.leases(place(CAT, 4)) == [], "one at a time"
    assert len(cluster.leases(place(DOG, 4))) == 4


# -- leaves that move -----------------------------------------------------------------------------------------------------


def test_a_bridge_that_claims_a_leaf_of_another_does_not_keep_its_results_away() -> None:
    bench, cluster = bench_of(CAT)
    bench.do(submitted(tasks=1))
    [item] = cluster.leases(place(CAT))
    cluster.placed(CAT, item)
    other = Cluster(bench, OTHER)
    other.join(CAT)
    assert other.report(beats=(msg.Beat(item.lease),)) == [drop("lease was never granted to it", other.node)]
    assert other.report(returns=(msg.ReturnItem(item.lease, "disk"),)) == [
        drop("lease was never granted to it", other.node)
    ]
    [collect] = [each for each in cluster.brings(CAT, result_item(item)) if isinstance(each, fx.Collect)]
    assert collect.through == BRIDGE.node
    [settled] = [each.notice for each in bench.do(ev.Collected(lease=item.lease)) if isinstance(each, fx.Emit)][:1]
    assert settled.worker == CAT.node


def test_nobody_is_blamed_by_a_bridge_that_it_has_never_chosen() -> None:
    bench, cluster = bench_of(CAT)
    bench.do(submitted(tasks=3))
    back, silent, known = cluster.leases(place(CAT, 3))
    cluster.placed(EMU, back, silent)
    cluster.placed(CAT, known)
    assert bench.queue.tasks(JOB)[0].worker == EMU.node, "it may have gone on before it was introduced"
    [ended] = rows(cluster.report(returns=(msg.ReturnItem(back.lease, "disk"),)))
    assert ended.leaf is None
    effects = bench.tick(60.0)
    assert expired(CLUSTER, silent) in effects
    assert expired(CAT.node, known) in effects


def test_its_own_word_says_that_it_has_run_what_only_its_bridge_had_said_before() -> None:
    bench, cluster = bench_of(CAT)
    bench.do(submitted(tasks=1))
    [item] = cluster.leases(place(CAT))
    cluster.placed(EMU, item)
    cluster.says(msg.Leaves(leaves=(leaf(EMU),)))
    [ended] = rows(cluster.finish(EMU, item))[:1]
    assert ended.worker == EMU.node


def test_a_stray_counts_only_where_the_master_knows_that_its_leaf_has_the_lease() -> None:
    bench, cluster = bench_of(CAT, DOG)
    bench.do(submitted(tasks=3))
    one, two, three = cluster.leases(place(CAT, 3))
    cluster.placed(CAT, one, two)
    strays = tuple(ready(DOG, result_item(each)).result for each in (one, three))
    told = cluster.report(strays=strays)
    assert not any(isinstance(each, fx.Collect) for each in told)
    assert bench.tick(RECEIPTS_S) == [], "CAT, and whoever gets the third, would take the answer for one to themselves"
    cluster.report(returns=tuple(msg.ReturnItem(each.lease, "disk") for each in (one, three)))
    cluster.report(strays=strays)
    late = [each for each in sends(bench.tick(RECEIPTS_S)) if isinstance(each.message, msg.Receipted)]
    assert late == [receipt(PEER, "late", one.lease, three.lease)]
    [collect] = [
        each for each in cluster.report(strays=(ready(CAT, result_item(two)).result,)) if isinstance(each, fx.Collect)
    ]
    assert collect.lease == two.lease


def test_a_worker_that_is_linked_says_so_itself() -> None:
    bench, cluster = bench_of()
    bench.join(CAT)
    assert bench.says(CAT, msg.Holding(mandate=mandate(CAT, BRIDGE))) == [
        drop("holding: mandate for another way", CAT.node)
    ]
    bench.says(CAT, msg.Holding(mandate=mandate(CAT, serial=7)))
    bench.do(ev.LinkDown(peer=CAT.node))
    claimed = leaf(CAT, serial=6)
    assert cluster.says(msg.Leaves(leaves=(claimed,)))[0] == drop("leaf: it takes part another way by now")


def test_what_leaves_took_along_is_still_theirs_when_the_master_is_started_again() -> None:
    bench, cluster = bench_of(CAT, DOG)
    bench.do(submitted(tasks=2))
    [first] = cluster.leases(place(CAT))
    [second] = cluster.leases(place(DOG))
    cluster.placed(CAT, first)
    cluster.placed(DOG, second)
    Cluster(bench, OTHER).join(CAT, serial=2)
    bench.join(DOG)
    bench.says(DOG, msg.Heartbeat(beats=(msg.Beat(second.lease),)))
    other = Cluster(bench, OTHER)
    assert other.report(beats=(msg.Beat(first.lease),)) == moved(other.node, first)
    bench, cluster = bench_of(restored=bench.disk.restored())
    assert rows(cluster.says(msg.Holding())) == []
    other = Cluster(bench, OTHER)
    other.join(CAT, serial=3)
    assert other.says(msg.Holding(leases=(first.lease,))) == []
    other.placed(CAT, first)
    assert other.brings(CAT, result_item(first)) != []
    bench.do(DOG.link_up())
    assert bench.says(DOG, msg.Holding(leases=(second.lease,))) == []
    assert [task.worker for task in bench.queue.tasks(JOB)] == [CAT.node, DOG.node]


def test_what_was_granted_to_a_worker_itself_is_nobody_elses_when_the_master_is_started_again() -> None:
    """A bridge spoke for the worker in between, and that is what the master has kept last."""
    bench, cluster = bench_of()
    bench.join(CAT)
    bench.do(submitted(tasks=2))
    lost, ended = bench.leases(CAT)
    bench.do(ev.LinkDown(peer=CAT.node))
    cluster.says(msg.Leaves(leaves=(leaf(CAT),)))
    beats = tuple(msg.Beat(item.lease) for item in (lost, ended))
    assert cluster.report(beats=beats) == moved(CLUSTER, lost, ended)
    bench, cluster = bench_of(restored=bench.disk.restored())
    assert [task.worker for task in bench.queue.tasks(JOB)] == [CAT.node, CAT.node]
    [row] = rows(cluster.says(msg.Holding(leases=(ended.lease,))))
    assert (row.lease, row.leaf, row.fault, row.counted) == (lost.lease, CAT.node, "lost", True)
    bench.do(CAT.link_up())
    [kept, collect] = bench.says(CAT, ready(CAT, result_item(ended)))
    assert ([kept], collect.peer, collect.through) == (moved(CAT.node, ended), CAT.node, None)


def test_a_leaf_takes_its_leases_to_another_bridge() -> None:
    bench, cluster = bench_of(CAT)
    bench.do(submitted(tasks=3))
    first, second, third = cluster.leases(place(CAT, 3))
    cluster.placed(CAT, first, second)
    other = Cluster(bench, OTHER)
    other.join(CAT, serial=2)
    beats = tuple(msg.Beat(item.lease) for item in (first, third))
    nobodys = drop("lease was never granted to it", other.node)
    assert other.report(beats=beats) == [*moved(other.node, first), nobodys], "nobody placed the third"
    assert other.placed(CAT, second) == moved(other.node, second)
    assert [task.via for task in bench.queue.tasks(JOB)] == [(OTHER.node,), (OTHER.node,), (BRIDGE.node,)]
    for _ in ("it may not know yet", "nor hear of it at once"):
        assert cluster.report(returns=(msg.ReturnItem(first.lease, "lost"),), beats=(msg.Beat(second.lease),)) == []
        cluster.says(msg.Leaves(gone=(CAT.node,)))
    [collect] = other.brings(CAT, result_item(first))
    assert (collect.peer, collect.through) == (CAT.node, OTHER.node)


def test_a_result_that_a_leaf_brings_another_way_counts() -> None:
    bench, cluster = bench_of(CAT)
    bench.do(submitted(tasks=2))
    first, second = cluster.leases(place(CAT, 2))
    cluster.placed(CAT, first, second)
    other = Cluster(bench, OTHER)
    other.join(CAT, serial=2)
    [kept, collect] = other.brings(CAT, result_item(first))
    assert ([kept], collect.through) == (moved(other.node, first), OTHER.node)
    bench.join(CAT)
    [kept, collect] = bench.says(CAT, ready(CAT, result_item(second)))
    assert [kept] == moved(CAT.node, second)
    assert (collect.peer, collect.through) == (CAT.node, None)
    assert sends(bench.do(ev.Collected(lease=second.lease)))[0] == receipt(CAT, "settled", second.lease)


def test_a_worker_whose_link_is_gone_goes_on_through_a_bridge() -> None:
    bench, cluster = bench_of()
    bench.join(CAT)
    bench.do(submitted(tasks=4))
    first, second, third, fourth = bench.leases(CAT)
    cluster.says(msg.Leaves(leaves=(leaf(CAT),)))
    kept = tuple(each.lease for each in (first, second, third, fourth))
    bench.says(CAT, msg.Holding(leases=kept, mandate=mandate(CAT, serial=2)))
    beats = (msg.Beat(first.lease),)
    assert cluster.report(beats=beats) == [], "it has a link and speaks for itself"
    assert bench.queue.tasks(JOB)[0].via == ()
    bench.do(ev.LinkDown(peer=CAT.node))
    told = cluster.report(placed=((first.lease, CAT.node),), beats=(*beats, msg.Beat(second.lease)))
    assert told == moved(CLUSTER, first, second)
    shown = bench.queue.tasks(JOB)
    assert [(task.worker, task.via) for task in shown[:3]] == [
        (CAT.node, (BRIDGE.node,)),
        (CAT.node, (BRIDGE.node,)),
        (CAT.node, (BRIDGE.node,)),
    ]
    assert [task.started for task in shown] == [True, True, False, False]
    [ended] = rows(cluster.report(returns=(msg.ReturnItem(first.lease, "disk"),)))
    assert (ended.lease, ended.leaf) == (first.lease, CAT.node)
    [kept, collect] = cluster.brings(CAT, result_item(third))
    assert ([kept], collect.peer, collect.through) == (moved(CLUSTER, third), CAT.node, BRIDGE.node)
    assert cluster.report(returns=(msg.ReturnItem(fourth.lease, "late"),)) == [], "nobody has named it here"
    assert bench.queue.tasks(JOB)[3].state == "running"
    bench.join(CAT)
    assert bench.says(CAT, msg.Heartbeat(beats=(msg.Beat(second.lease),))) == moved(CAT.node, second)
    assert bench.queue.tasks(JOB)[1].via == ()


def test_a_worker_that_comes_through_a_bridge_by_now_is_not_waited_for_at_its_dead_link() -> None:
    """What its network drops without a word looks like a link for another minute: as long as its lease is."""
    bench, cluster = bench_of()
    bench.join(CAT)
    bench.do(submitted())
    [item] = bench.leases(CAT)
    cluster.says(msg.Leaves(leaves=(leaf(CAT),)))
    assert cluster.report(beats=(msg.Beat(item.lease, running=True),)) == moved(CLUSTER, item)
    cluster.says(msg.Leaves(gone=(CAT.node,)))
    assert bench.says(CAT, msg.Heartbeat(beats=(msg.Beat(item.lease),))) == moved(CAT.node, item)
    cluster.says(msg.Leaves(leaves=(leaf(CAT, serial=2),)))
    assert bench.says(CAT, msg.Holding(leases=(item.lease,), mandate=mandate(CAT, serial=3))) == []
    assert cluster.report(beats=(msg.Beat(item.lease),)) == []
    bench.do(ev.LinkDown(peer=CAT.node))
    assert cluster.report(beats=(msg.Beat(item.lease),)) == moved(CLUSTER, item)


def test_a_leaf_that_links_up_itself_keeps_what_it_has() -> None:
    bench, cluster = bench_of(CAT)
    bench.do(submitted(tasks=2))
    item, _ = cluster.leases(place(CAT, 2))
    cluster.placed(CAT, item)
    bench.do(CAT.link_up())
    assert bench.says(CAT, msg.Holding(leases=(item.lease,))) == moved(CAT.node, item)
    shown = bench.queue.tasks(JOB)[0]
    assert (shown.worker, shown.via) == (CAT.node, ())
    assert bench.queue._book.leases.count(CAT.node) == 1
    bench.finish(CAT, item, OK)
    assert bench.queue.tasks(JOB)[0].state == "done"


# -- who is out -----------------------------------------------------------------------------------------------------------


def test_a_banned_leaf_has_nothing_any_more_and_its_bridge_is_told() -> None:
    out: list[bytes] = []
    bench, cluster = bench_of(CAT, DOG, out=lambda cert: cert.sub in out)
    bench.do(submitted(tasks=3))
    first, second, third = cluster.leases(place(CAT, 3))
    cluster.placed(CAT, first, second)
    cluster.placed(DOG, third)
    cluster.brings(CAT, result_item(second))
    out.append(CAT.node)
    effects = bench.queue.expel(CAT.node, bench.now)
    [ended] = rows(effects)
    assert (ended.lease, ended.leaf, ended.detail) == (first.lease, CAT.node, "the worker is banned")
    assert fx.Send(peer=CLUSTER, message=msg.Cancel(leases=(first.lease,))) in effects
    bench.disk.apply(ended)
    assert cluster.brings(CAT, result_item(first)) == [drop("result: not by a leaf")]
    assert cluster.says(msg.Leaves(leaves=(leaf(CAT),)))[0] == drop(f"leaf: {trust.BANNED}")
    assert bench.queue.tasks(JOB)[2].worker == DOG.node


def test_whoever_is_out_here_alone_is_avoided_until_its_bridge_knows() -> None:
    bench, cluster = bench_of(CAT, DOG)
    bench.do(submitted(tasks=9))
    bench.queue.expel(CAT.node, bench.now)
    message = said(cluster.ask(place(CAT, 3), place(DOG, 2)))
    assert message.avoid == ((lease(0), CAT.node), (lease(1), CAT.node))
    cluster.says(msg.Leaves(gone=(CAT.node,)))
    assert said(cluster.ask(place(DOG))).avoid == ()


def test_leaves_of_a_banned_owner_go_and_others_stay() -> None:
    bench, cluster = bench_of(DOG)
    cluster.says(msg.Leaves(leaves=(leaf(CAT, certs=chain(CAT, owner="mallory"), card=card(CAT)),)))
    bench.do(submitted(tasks=2))
    first, second = cluster.leases(place(CAT), place(DOG))
    cluster.placed(CAT, first)
    cluster.placed(DOG, second)
    assert [row.lease for row in rows(bench.queue.expel("mallory", bench.now))] == [first.lease]
    assert [worker.node for worker in bench.queue.workers()] == [DOG.node]
    assert bench.queue.expel("nobody", bench.now) == []


def test_of_a_banned_bridge_only_what_no_leaf_has_is_taken_back() -> None:
    bench, cluster = bench_of(CAT)
    bench.do(submitted(tasks=2))
    placed, stock = cluster.leases(place(CAT, 2))
    cluster.placed(CAT, placed)
    bench.do(ev.LinkDown(peer=CLUSTER))
    assert [row.lease for row in rows(bench.queue.expel(BRIDGE.node, bench.now))] == [stock.lease]
    other = Cluster(bench, OTHER)
    other.join(CAT, serial=2)
    assert other.report(beats=(msg.Beat(placed.lease),)) == moved(other.node, placed)
    assert bench.queue.tasks(JOB)[0].via == (OTHER.node,)


def test_idle_workers_get_what_a_cluster_has_beyond_its_slots() -> None:
    bench, cluster = bench_of(CAT)
    bench.do(submitted(tasks=9))
    assert len(cluster.leases(place(CAT, 4), ahead=((JOB, 5),))) == 9
    bench.do(ALICE.link_up(minor=2))
    bench.says(ALICE, msg.ProfileIs(profile=PROFILE))
    assert fx.Send(peer=CLUSTER, message=msg.Recall(tasks=3)) in bench.ask(ALICE)
