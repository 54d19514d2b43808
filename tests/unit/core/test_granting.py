"""What a master grants to the leaves of a cluster at once; what single workers get is in test_queue."""

import msgspec
import pytest

from p2pq.core import clusters, granting
from p2pq.core import effects as fx
from p2pq.core import events as ev
from p2pq.core.overflow import HOLD_S
from p2pq.core.results import RECEIPTS_S
from p2pq.errors import Reject
from p2pq.model.job import Resources
from p2pq.wire import body, seal, sign
from p2pq.wire import messages as msg
from p2pq.wire.objects import Checkpoint, Grant, GrantItem
from tests.unit.core import savekit
from tests.unit.core.clusterkit import (
    BRIDGE,
    CAT,
    CLUSTER,
    DOG,
    EMU,
    FOX,
    LIFE_MS,
    Cluster,
    bench_of,
    card,
    drop,
    leaf,
    lease,
    place,
    said,
)
from tests.unit.core.mesh import (
    ALICE,
    BAD,
    BOB,
    KEY,
    MASTER,
    OK,
    OWNER,
    PROFILE,
    WALL,
    Bench,
    granted,
    job_id,
    submitted,
)

JOB = job_id()


def keyed(message: msg.Granted) -> list[bytes]:
    return [node for node, _ in message.keys]


def fail(cluster: Cluster, member, item: GrantItem) -> None:
    cluster.placed(member, item)
    cluster.finish(member, item, BAD)


def suspect(bench: Bench, cluster: Cluster) -> None:
    """Let CAT fail where others succeed, until it is to prove itself."""
    for member in (*[DOG] * 6, CAT, CAT):
        [item] = cluster.leases(place(member), tasks_max=1)
        cluster.placed(member, item)
        cluster.finish(member, item, BAD if member is CAT else OK)
    assert bench.queue.workers(bench.queue._book.jobs[JOB])[0].held_back


def test_one_request_is_answered_for_all_leaves_at_once() -> None:
    bench, cluster = bench_of(CAT, DOG)
    job = submitted(tasks=9)
    bench.do(job)
    message = said(cluster.ask(place(CAT, 2), place(DOG, 3)))
    grant = sign.open_signed(message.grant, Grant, MASTER.node)
    assert grant == Grant(
        mesh=grant.mesh,
        node=MASTER.node,
        to=BRIDGE.node,
        nonce=bytes(15) + b"\x01",
        job=JOB,
        manifest=sign.digest(job.manifest),
        items=tuple(GrantItem(index, 1, lease(index)) for index in range(5)),
        key=b"",
        expires=WALL + 60_000,
    )
    assert (message.manifest, message.avoid, message.checkpoints) == (job.manifest, (), ())
    assert keyed(message) == [CAT.node, DOG.node]
    for (_, sealed), member in zip(message.keys, (CAT, DOG), strict=True):
        assert seal.open_seal(member.prekey_secret, sealed, grant.manifest) == KEY
    again = said(cluster.ask(place(DOG, 1)))
    assert (again.manifest, again.keys) == (b"", ())


def test_room_is_that_of_each_leaf_and_never_their_sum() -> None:
    bench, cluster = bench_of(CAT, DOG)
    bench.do(submitted(tasks=9, resources=Resources(cpus=2, memory_mb=1024)))
    assert len(cluster.leases(place(CAT, 3), place(DOG, 3))) == 2
    assert len(cluster.leases(place(CAT, 4, memory_mb=1500))) == 1
    [nothing] = [each for each in cluster.ask(place(CAT), place(DOG)) if isinstance(each, fx.Send)]
    assert (nothing.peer, nothing.message.wide) == (CLUSTER, (2, 1024, 0))
    assert len(cluster.leases(place(CAT, 99), tasks_max=2)) == 2


def test_nobody_is_told_of_room_that_no_leaf_ever_has() -> None:
    bench, cluster = bench_of(CAT)
    bench.do(submitted(1, resources=Resources(cpus=5)))
    for places in ((place(CAT),), (place(DOG, 9),), ()):
        [nothing] = [each.message for each in cluster.ask(*places) if isinstance(each, fx.Send)]
        assert nothing.wide == (0, 0, 0)


def test_places_of_strangers_and_of_leaves_that_could_not_run_it_do_not_count() -> None:
    bench, cluster = bench_of(CAT)
    cluster.says(msg.Leaves(leaves=(leaf(DOG, msgspec.structs.replace(PROFILE, accepts=False)),)))
    bench.do(submitted(tasks=9))
    message = said(cluster.ask(place(EMU, 4), place(DOG, 4), place(CAT, 1), ahead=((JOB, 2),)))
    assert len(sign.open_signed(message.grant, Grant, MASTER.node).items) == 3
    assert keyed(message) == [CAT.node]
    assert cluster.leases(place(DOG, 4)) == []


def test_a_stock_is_granted_only_as_it_was_asked_for() -> None:
    bench, cluster = bench_of(CAT)
    bench.do(submitted(tasks=99))
    assert len(cluster.leases(ahead=((JOB, 7),))) == 7
    assert len(cluster.leases(place(CAT, 2), ahead=((JOB, 3),))) == 5
    assert cluster.leases(ahead=((job_id(2), 7), (JOB, -1))) == []
    cluster.says(msg.Leaves(gone=(CAT.node,)))
    assert cluster.leases(ahead=((JOB, 7),)) == [], "nobody is left to run it"


def test_a_job_for_one_leaf_goes_to_that_leaf() -> None:
    bench, cluster = bench_of(CAT, DOG)
    bench.do(submitted(tasks=9, only=DOG.node))
    assert cluster.leases(place(CAT, 4)) == []
    message = said(cluster.ask(place(CAT, 4), place(DOG, 2)))
    assert len(granted([fx.Send(peer=CLUSTER, message=message)])) == 2
    assert keyed(message) == [DOG.node]


def test_what_failed_at_a_leaf_is_not_to_run_there_again() -> None:
    bench, cluster = bench_of(CAT, DOG)
    bench.do(submitted(tasks=2, retries=3))
    first, second = cluster.leases(place(CAT, 2))
    fail(cluster, CAT, first)
    fail(cluster, CAT, second)
    bench.tick(5.0)
    assert cluster.leases(place(CAT, 4)) == []
    message = said(cluster.ask(place(CAT, 4), place(DOG, 1)))
    assert granted([fx.Send(peer=CLUSTER, message=message)]) == [GrantItem(0, 2, lease(2))], "there is room for one"
    assert message.avoid == ((lease(2), CAT.node),)
    [other] = cluster.leases(place(DOG, 1))
    assert other.task == 1


def test_what_came_back_from_the_bridge_itself_may_go_to_another_cluster_only() -> None:
    bench, cluster = bench_of(CAT)
    other = Cluster(bench, EMU)
    other.join(DOG)
    bench.do(submitted())
    [item] = cluster.leases(place(CAT))
    cluster.report(returns=(msg.ReturnItem(item.lease, "disk"),))
    bench.tick(5.0)
    assert cluster.leases(place(CAT)) == []
    assert [each.task for each in other.leases(place(DOG))] == [0]


def test_where_no_other_can_run_it_the_cluster_has_it_again() -> None:
    bench, cluster = bench_of(CAT, DOG)
    bench.do(submitted())
    [item] = cluster.leases(place(CAT))
    cluster.report(returns=(msg.ReturnItem(item.lease, "disk"),))
    bench.tick(5.0)
    assert [each.task for each in cluster.leases(place(CAT))] == [0]


def test_a_leaf_that_must_prove_itself_gets_one_attempt_and_the_others_avoid_it() -> None:
    bench, cluster = bench_of(CAT, DOG)
    bench.do(submitted(tasks=50, retries=3))
    suspect(bench, cluster)
    message = said(cluster.ask(place(CAT, 4), place(DOG, 2), ahead=((JOB, 1),)))
    items = granted([fx.Send(peer=CLUSTER, message=message)])
    assert len(items) == 3, "CAT waits: two for DOG, and one ahead"
    assert [pair for pair in message.avoid if pair[1] == CAT.node] == [(item.lease, CAT.node) for item in items]
    bench.tick(20.0)
    message = said(cluster.ask(place(CAT, 4), place(DOG, 2)))
    items = granted([fx.Send(peer=CLUSTER, message=message)])
    assert len(items) == 3
    assert message.avoid == tuple((item.lease, CAT.node) for item in items[:2]), (
        "which failed there; the third may go there"
    )


def test_no_stock_waits_for_leaves_that_must_prove_themselves() -> None:
    bench, cluster = bench_of(CAT, DOG)
    bench.do(submitted(tasks=50, retries=3))
    suspect(bench, cluster)
    cluster.says(msg.Leaves(gone=(DOG.node,)))
    bench.join(ALICE)
    assert cluster.leases(ahead=((JOB, 5),)) == []
    bench.tick(20.0)
    assert len(cluster.leases(place(CAT, 4), ahead=((JOB, 5),))) == 1


def test_a_leaf_that_has_to_wait_is_woken_by_its_bridge() -> None:
    bench, cluster = bench_of(CAT, DOG)
    bench.do(submitted(tasks=50, retries=3))
    suspect(bench, cluster)
    cluster.ask(place(CAT))
    woken = bench.tick(20.0)
    assert [each.peer for each in woken if isinstance(each.message, msg.HasWork)] == [CLUSTER]
    cluster.says(msg.Leaves(gone=(CAT.node,)))
    bench.tick(20.0)


def test_a_second_attempt_runs_at_another_leaf() -> None:
    bench, cluster = bench_of(CAT, DOG)
    bench.do(submitted(tasks=2))
    slow, quick = cluster.leases(place(CAT, 2))
    cluster.placed(CAT, slow, quick)
    cluster.finish(CAT, quick)
    bench.tick(10.0)
    assert cluster.leases(place(CAT, 2)) == []
    message = said(cluster.ask(place(CAT, 2), place(DOG, 1)))
    assert granted([fx.Send(peer=CLUSTER, message=message)]) == [GrantItem(0, 2, lease(2))]
    assert message.avoid == ((lease(2), CAT.node),)
    shown = bench.queue.tasks(JOB)[0]
    assert (shown.worker, shown.again, shown.via) == (CAT.node, CLUSTER, (BRIDGE.node,))


def test_what_waits_in_the_stock_of_a_cluster_has_no_second_attempt_there() -> None:
    bench, cluster = bench_of(CAT, DOG)
    bench.do(submitted(tasks=2))
    slow, quick = cluster.leases(place(CAT, 2))
    cluster.finish(CAT, quick)
    bench.tick(10.0)
    assert cluster.leases(place(DOG, 2)) == []
    bench.join(ALICE)
    assert [each.task for each in bench.leases(ALICE)] == [slow.task]


def test_keys_go_to_no_more_leaves_than_there_is_use_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(granting, "KEYS_SPARE", 1)
    monkeypatch.setattr(clusters, "KEYS_MAX", 2)
    monkeypatch.setattr(granting, "KEYS_MAX", 2)
    bench, cluster = bench_of(CAT, DOG, EMU, FOX)
    for number in (1, 2, 3):
        bench.do(submitted(number, tasks=9, owner=f"{OWNER}{number}"))
    everywhere = tuple(map(place, (CAT, DOG, EMU, FOX)))

    def keys(number: int) -> list[bytes]:
        return keyed(said(cluster.ask(*everywhere, tasks_max=1, owner=f"{OWNER}{number}")))

    assert keys(1) == [CAT.node, DOG.node]
    assert keys(1) == [EMU.node, FOX.node]
    assert keys(1) == []
    assert keys(2) == [CAT.node, DOG.node]
    assert keys(3) == [CAT.node, DOG.node]
    assert keys(1) == [CAT.node, DOG.node], "beyond KEYS_MAX the first are sent again"


def test_with_a_stock_go_the_keys_of_all_who_may_have_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(granting, "KEYS_SPARE", 0)
    monkeypatch.setattr(granting, "KEYS_AHEAD", 3)
    bench, cluster = bench_of(CAT, DOG, EMU, FOX)
    bench.do(submitted(tasks=4))

    def keys() -> list[bytes]:
        return keyed(said(cluster.ask(place(DOG), tasks_max=2, ahead=((JOB, 1),))))

    assert keys() == [DOG.node, CAT.node, EMU.node], "first those with room"
    assert keys() == [FOX.node]


def test_no_more_keys_go_ahead_than_there_are_tasks_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(granting, "KEYS_SPARE", 0)
    bench, cluster = bench_of(CAT, DOG, EMU, FOX)
    bench.do(submitted(tasks=3))
    assert keyed(said(cluster.ask(tasks_max=2, ahead=((JOB, 2),)))) == [CAT.node, DOG.node, EMU.node]


def test_a_bridge_that_has_no_manifest_gets_everything_again() -> None:
    bench, cluster = bench_of(CAT)
    job = submitted(tasks=9)
    bench.do(job)
    [item] = cluster.leases(place(CAT))
    assert said(cluster.ask(place(CAT))).manifest == b""
    cluster.report(returns=(msg.ReturnItem(item.lease, "no-manifest"),))
    message = said(cluster.ask(place(CAT)))
    assert (message.manifest, keyed(message)) == (job.manifest, [CAT.node])


def test_a_bridge_that_has_no_manifest_again_and_again_gets_the_keys_that_it_needs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(granting, "KEYS_SPARE", 0)
    bench, cluster = bench_of(CAT, DOG, EMU, FOX)
    bench.do(submitted(tasks=9))
    counts = []
    for _ in range(5):
        message = said(cluster.ask(tasks_max=1, ahead=((JOB, 1),)))
        counts.append(len(keyed(message)))
        [item] = granted([fx.Send(peer=CLUSTER, message=message)])
        cluster.report(returns=(msg.ReturnItem(item.lease, "no-manifest"),))
    assert counts == [4, 4, 0, 0, 0], "two ahead for each leaf in all"
    assert keyed(said(cluster.ask(place(DOG), tasks_max=1))) == [DOG.node], "who has room gets what it needs"


def test_a_leaf_with_a_new_prekey_gets_the_key_again() -> None:
    bench, cluster = bench_of(CAT)
    bench.do(submitted(tasks=9))
    cluster.ask(place(CAT))
    cluster.says(msg.Leaves(leaves=(leaf(CAT, card=card(CAT, prekey=DOG.prekey)),)))
    [(node, sealed)] = said(cluster.ask(place(CAT))).keys
    assert node == CAT.node
    assert seal.open_seal(DOG.prekey_secret, sealed, bench.queue._book.jobs[JOB].digest) == KEY


def test_a_checkpoint_opens_for_whoever_has_the_job_key() -> None:
    bench, cluster = bench_of(CAT, DOG)
    bench.do(savekit.job())
    [item] = cluster.leases(place(CAT))
    cluster.placed(CAT, item)
    cluster.brings(CAT, savekit.left(item))
    bench.do(ev.Collected(lease=item.lease))
    message = said(cluster.ask(place(DOG)))
    [raw] = message.checkpoints
    value = sign.open_signed(raw, Checkpoint, MASTER.node)
    assert (value.to, value.lease) == (CLUSTER, lease(1))
    context = body.checkpoint_context(JOB, 0, value.lease)
    assert seal.unwrap(KEY, value.key, context) == savekit.RESULT_KEY


def test_a_grant_that_cannot_be_said_costs_nothing_but_a_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    bench, cluster = bench_of(CAT)
    bench.do(submitted())
    with monkeypatch.context() as patch:

        def refuse(*_: object) -> bytes:
            raise Reject("too long")

        patch.setattr("p2pq.core.signing.sign.sign", refuse)
        assert granted(cluster.ask(place(CAT))) == []
    assert bench.queue.job(JOB).pending == 1


def test_receipts_wait_for_each_other_whatever_is_granted_meanwhile() -> None:
    bench, cluster = bench_of(CAT)
    bench.do(submitted(tasks=9))
    [item] = cluster.leases(place(CAT))
    assert [each for each in cluster.finish(CAT, item) if isinstance(each, fx.Send)] == []
    assert bench.queue.deadline == RECEIPTS_S
    sends = [each.message for each in cluster.ask(place(CAT)) if isinstance(each, fx.Send)]
    assert [type(message) for message in sends] == [msg.Granted]
    sends = [each.message for each in bench.tick(RECEIPTS_S) if isinstance(each, fx.Send)]
    assert [type(message) for message in sends] == [msg.Receipted]


def test_who_is_leaving_gets_nothing() -> None:
    bench, cluster = bench_of(CAT)
    bench.do(submitted())
    cluster.says(msg.Leaving())
    assert cluster.leases(place(CAT)) == []


def test_a_leaf_whose_certificate_has_ended_gets_nothing() -> None:
    bench, cluster = bench_of(CAT, DOG)
    bench.do(submitted(tasks=9))
    bench.do(ev.Tick(wall=WALL + LIFE_MS + 300_001))
    assert cluster.leases(place(CAT)) == []
    assert cluster.says(msg.Leaves(leaves=(leaf(CAT),)))[:1] == [drop("leaf: certificate-expired")]


def test_a_direct_worker_is_served_as_ever_beside_a_cluster() -> None:
    bench, cluster = bench_of(CAT)
    bench.join(BOB)
    bench.do(submitted(tasks=9))
    assert len(bench.leases(BOB, cpus=2, places=(place(CAT, 4),))) == 2, "the places of a worker mean nothing"
    assert len(cluster.leases(place(CAT, 2))) == 2


# -- own network first --------------------------------------------------------------------------------------------------


def test_a_cluster_is_far_and_gets_what_free_slots_here_do_not_take() -> None:
    bench, cluster = bench_of(CAT, DOG)
    bench.join(ALICE)
    bench.do(submitted(tasks=4))
    assert cluster.leases(place(CAT, 4), place(DOG, 4)) == [], "Alice has room for four"
    bench.do(submitted(2, tasks=9))
    assert len(cluster.leases(place(CAT, 4), place(DOG, 4), cpus=8)) == 8
    assert len(bench.leases(ALICE)) == 4
    assert bench.queue._overflow.open


def test_what_waits_for_a_moment_is_offered_to_clusters_too() -> None:
    bench, cluster = bench_of(CAT)
    bench.join(ALICE)
    bench.do(submitted(tasks=4))
    told = [each.peer for each in bench.tick(HOLD_S) if isinstance(each, fx.Send)]
    assert told == [CLUSTER]
    assert len(cluster.leases(place(CAT, 4))) == 4
    assert all(shown.far for shown in bench.queue.workers() if shown.node == CAT.node)


def test_a_cluster_is_told_when_a_leaf_need_not_wait_any_longer() -> None:
    bench, _ = bench_of(CAT)
    bench.do(submitted())
    bench.queue._book.wake += [CAT.node, DOG.node]
    assert [each.peer for each in bench.tick() if isinstance(each, fx.Send)] == [CLUSTER]
