"""How a lease came to the leaf that brings its result: what a master believes, keeps, and whom it holds to account."""

from collections.abc import Callable

import msgspec
import pytest

from p2pq.core import crew as crew_module
from p2pq.core import effects as fx
from p2pq.core import events as ev
from p2pq.core import records as r
from p2pq.core.leases import Lease
from p2pq.wire import messages as msg
from p2pq.wire import sign, trust
from p2pq.wire.objects import Grant, GrantItem
from tests.unit.core.clusterkit import (
    BRIDGE,
    CAT,
    CLUSTER,
    DOG,
    OTHER,
    Cluster,
    bench_of,
    chain,
    drop,
    leaf,
    lease,
    moved,
    place,
    said,
    signed_result,
    sub_grant,
)
from tests.unit.core.mesh import MASTER, Bench, job_id, ready, result_item, submitted

JOB = job_id()


def rows(effects: list[fx.Effect]) -> list[r.Row]:
    return [each.row for each in effects if isinstance(each, fx.Record)]


def given(bench: Bench, cluster: Cluster, *places: msg.Place, tasks: int = 2) -> tuple[bytes, list[GrantItem]]:
    """Let a cluster ask for a job; return the signed grant and its attempts."""
    bench.do(submitted(tasks=tasks))
    message = said(cluster.ask(*places))
    return message.grant, list(sign.open_signed(message.grant, Grant, MASTER.node).items)


def proof_of(bench: Bench, item: GrantItem) -> r.Proof | None:
    [ended, *_] = rows(bench.do(ev.Collected(lease=item.lease)))
    assert isinstance(ended, r.AttemptEnded)
    return ended.proof


def held(bench: Bench, item: GrantItem) -> Lease:
    found = bench.queue._book.leases.get(item.lease)
    assert found is not None
    return found


def forged(reason: str) -> fx.Drop:
    return fx.Drop(peer=CLUSTER, reason=f"sub-grant: {reason}", close=True, suspect=ev.FORGED)


NOT_GIVEN = "not of the grant of that lease"


def test_how_a_lease_came_to_its_leaf_is_kept_with_the_result_and_each_sub_grant_is_said_once() -> None:
    bench, cluster = bench_of(CAT, DOG)
    bench.do(BRIDGE.link_up(caps=("bridge",), minor=msg.MINOR))
    path = {"path": (OTHER.node,), "bridges": (chain(OTHER, "bridge"),)}
    cluster.says(msg.Leaves(leaves=(leaf(DOG, serial=2, **path),)))
    raw, (first, second, third) = given(bench, cluster, place(CAT, 2), place(DOG, 1), tasks=3)
    cats = sub_grant(raw, BRIDGE, CAT, first, second)
    outer = sub_grant(raw, BRIDGE, OTHER, third)
    inner = sub_grant(outer, OTHER, DOG, third)
    words = (
        signed_result(CAT, result_item(first), result_item(second)),
        signed_result(DOG, result_item(third)),
    )
    effects = cluster.report(results=words, subs=(inner, cats, outer))
    assert [each.lease for each in effects] == [first.lease, second.lease, third.lease]
    near = r.HandedOn(signed=cats, certs=BRIDGE.certs)
    far = r.HandedOn(signed=outer, certs=BRIDGE.certs), r.HandedOn(signed=inner, certs=chain(OTHER, "bridge"))
    of_cat = r.Proof(signed=words[0], certs=chain(CAT), handed=(near,))
    assert [proof_of(bench, item) for item in (first, second)] == [of_cat, of_cat]
    assert proof_of(bench, third) == r.Proof(signed=words[1], certs=chain(DOG), handed=far)


def test_whoever_says_how_it_came_to_a_leaf_is_taken_at_its_bridges_words() -> None:
    bench, cluster = bench_of(CAT)
    bench.do(BRIDGE.link_up(caps=("bridge",), minor=msg.MINOR))
    raw, [first, second] = given(bench, cluster, place(CAT, 2))
    step = sub_grant(raw, BRIDGE, CAT, first)
    cluster.report(results=(signed_result(CAT, result_item(first), result_item(second)),), subs=(step,))
    assert proof_of(bench, first).handed == (r.HandedOn(signed=step, certs=BRIDGE.certs),)
    assert proof_of(bench, second).handed == (), "of that nothing was told, and it counts all the same"


def test_bridges_further_away_are_known_by_what_was_shown_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    bench, cluster = bench_of()
    bench.do(BRIDGE.link_up(caps=("bridge",), minor=msg.MINOR))
    shown = leaf(CAT, path=(OTHER.node,), bridges=(chain(OTHER, "bridge"),))
    cluster.says(msg.Leaves(leaves=(shown,)))
    raw, [first, second] = given(bench, cluster, place(CAT, 2))
    outer = sub_grant(raw, BRIDGE, OTHER, first, second)
    inner = sub_grant(outer, OTHER, CAT, first, second)

    def brought(item: GrantItem) -> tuple[r.HandedOn, ...]:
        cluster.report(results=(signed_result(CAT, result_item(item)),), subs=(outer, inner))
        return proof_of(bench, item).handed

    steps = r.HandedOn(signed=outer, certs=BRIDGE.certs), r.HandedOn(signed=inner, certs=chain(OTHER, "bridge"))
    assert brought(first) == steps
    monkeypatch.setattr(crew_module, "BRIDGES_MAX", 1)
    cluster.says(msg.Leaves(leaves=(shown,)))
    assert brought(second) == (r.HandedOn(signed=outer), steps[1]), "the one that was shown last is known"


@pytest.mark.parametrize("chains", [(chain(OTHER, "work"),), (chain(DOG, "bridge"),), ((b"junk",),)])
def test_a_leaf_behind_who_is_no_bridge_is_none(chains: tuple[tuple[bytes, ...], ...]) -> None:
    bench, cluster = bench_of()
    [told] = cluster.says(msg.Leaves(leaves=(leaf(CAT, path=(OTHER.node,), bridges=chains),)))
    assert told.reason in {"leaf: not every node on the way is known to be a bridge", f"leaf: {trust.BAD_CERT}"}
    assert bench.queue.workers() == []


@pytest.mark.parametrize(
    ("forgery", "reason"),
    [
        (lambda raw, items: sub_grant(raw, BRIDGE, CAT, *items)[:-1] + b"x", "bad signature"),
        (lambda raw, items: sub_grant(raw, BRIDGE, CAT, *items, node=OTHER.node), "bad signature"),
        (lambda raw, items: sub_grant(raw, BRIDGE, CAT, *items, master=OTHER.node), "not of this master"),
        (lambda raw, items: sub_grant(raw, BRIDGE, CAT, *items, mesh=bytes(32)), "not of this master"),
        (lambda raw, items: sub_grant(b"other", BRIDGE, CAT, *items), NOT_GIVEN),
        (lambda raw, items: sub_grant(raw, BRIDGE, CAT, *items[::-1]), NOT_GIVEN),
        (lambda raw, items: sub_grant(raw, BRIDGE, CAT, *items, GrantItem(0, 1, lease(9))), NOT_GIVEN),
    ],
    ids=["altered", "another's", "another master's", "another mesh's", "another grant's", "another order", "wider"],
)
def test_a_bridge_that_forges_brings_no_result_and_is_suspected(
    forgery: Callable[[bytes, list[GrantItem]], bytes], reason: str
) -> None:
    bench, cluster = bench_of(CAT)
    raw, items = given(bench, cluster, place(CAT, 2))
    word = signed_result(CAT, result_item(items[0]))
    told = cluster.report(results=(word,), subs=(forgery(raw, items),))
    assert told == [forged(reason)]
    assert bench.queue.tasks(JOB)[0].state == "running", "it may still come another way"
    assert [each.lease for each in cluster.report(results=(word,))] == [items[0].lease]


def test_a_leaf_that_tells_of_another_bridge_what_is_not_true_harms_only_itself() -> None:
    bench, cluster = bench_of(CAT)
    raw, items = given(bench, cluster, place(CAT, 2))
    word = signed_result(CAT, result_item(items[0]))
    foreign = sub_grant(raw, OTHER, CAT, items[0])
    assert cluster.report(results=(word,), subs=(foreign,)) == [drop(f"sub-grant: {NOT_GIVEN}")]
    outer = sub_grant(raw, BRIDGE, OTHER, items[0])
    wider = sub_grant(outer, OTHER, CAT, *items)
    assert cluster.report(results=(word,), subs=(outer, wider)) == [drop("sub-grant: wider than the one above")]
    assert bench.queue.tasks(JOB)[0].state == "running"


def test_a_leaf_that_leaves_out_what_is_above_its_bridge_does_not_make_that_look_hostile() -> None:
    """The bridge was below another one when it handed the lease on, and is linked to the master by now."""
    bench, cluster = bench_of()
    cluster.says(msg.Leaves(leaves=(leaf(CAT, path=(OTHER.node,)),)))
    raw, items = given(bench, cluster, place(CAT, 2))
    cluster.placed(CAT, *items)
    outer = sub_grant(raw, BRIDGE, OTHER, *items)
    inner = sub_grant(outer, OTHER, CAT, *items)
    linked = Cluster(bench, OTHER)
    linked.join(CAT, serial=2)
    word = signed_result(CAT, result_item(items[0]))
    refused = drop(f"sub-grant: {NOT_GIVEN}", linked.node)
    assert linked.report(results=(word,), subs=(inner,)) == [*moved(linked.node, items[0]), refused]
    assert [each.lease for each in linked.report(results=(word,), subs=(outer, inner))] == [items[0].lease]


def test_a_sub_grant_of_another_lease_says_nothing_of_this_one() -> None:
    bench, cluster = bench_of(CAT)
    raw, [first, second] = given(bench, cluster, place(CAT, 2))
    foreign = (sub_grant(raw, BRIDGE, CAT, second), sub_grant(raw, BRIDGE, DOG, first))
    cluster.report(results=(signed_result(CAT, result_item(first)),), subs=foreign)
    assert proof_of(bench, first).handed == ()


def test_a_leaf_tells_how_it_came_to_it_wherever_it_takes_part() -> None:
    bench, cluster = bench_of(CAT)
    bench.do(BRIDGE.link_up(caps=("bridge",), minor=msg.MINOR))
    raw, items = given(bench, cluster, place(CAT, 3), tasks=3)
    cluster.placed(CAT, *items)
    step = sub_grant(raw, BRIDGE, CAT, *items)
    steps = (r.HandedOn(signed=step, certs=BRIDGE.certs),)
    other = Cluster(bench, OTHER)
    other.join(CAT, serial=2)
    other.report(results=(signed_result(CAT, result_item(items[0])),), subs=(step,))
    assert proof_of(bench, items[0]).handed == steps
    bench.join(CAT)

    def says(item: GrantItem, *subs: bytes) -> list[fx.Effect]:
        return bench.says(CAT, msgspec.structs.replace(ready(CAT, result_item(item)), subs=subs))

    assert says(items[1], step[:-1] + b"x") == [drop("sub-grant: bad signature", CAT.node)]
    refused = drop(f"sub-grant: {NOT_GIVEN}", CAT.node)
    assert says(items[1], sub_grant(b"other", BRIDGE, CAT, items[1])) == [*moved(CAT.node, items[1]), refused]
    assert [each.lease for each in says(items[1], step)] == [items[1].lease]
    assert proof_of(bench, items[1]).handed == steps


def test_a_master_that_was_started_again_knows_what_it_granted() -> None:
    bench, cluster = bench_of(CAT)
    raw, [first, second] = given(bench, cluster, place(CAT, 2))
    cluster.report(returns=(msg.ReturnItem(second.lease, "late"),))
    known = bench.disk.restored()
    assert [each.signed for each in known.grants] == [raw]
    word = signed_result(CAT, result_item(first))
    step, forgery = sub_grant(raw, BRIDGE, CAT, first), sub_grant(b"other", BRIDGE, CAT, first)
    _, again = bench_of(CAT, restored=known)
    assert again.report(results=(word,), subs=(forgery,)) == [forged(NOT_GIVEN)]
    bench, again = bench_of(CAT, restored=known)
    again.report(results=(word,), subs=(step,))
    assert held(bench, first).proof == r.Proof(signed=word, certs=chain(CAT), handed=(r.HandedOn(signed=step),))


@pytest.mark.parametrize(
    "grants", [(), (r.GrantKept(job=JOB, lease=lease(0), signed=b"junk"),)], ids=["lost", "altered"]
)
def test_of_a_grant_that_is_lost_nothing_can_be_proved(grants: tuple[r.GrantKept, ...]) -> None:
    bench, cluster = bench_of(CAT)
    raw, [first, _] = given(bench, cluster, place(CAT, 2))
    bench, cluster = bench_of(CAT, restored=msgspec.structs.replace(bench.disk.restored(), grants=grants))
    word = signed_result(CAT, result_item(first))
    cluster.report(results=(word,), subs=(sub_grant(raw, BRIDGE, CAT, first),))
    assert held(bench, first).proof == r.Proof(signed=word, certs=chain(CAT))
