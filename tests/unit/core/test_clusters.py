"""Who counts as a leaf of a bridge, and what a cluster has room for."""

import msgspec
import pytest

from p2pq.core import clusters
from p2pq.core.clusters import Cluster, Rooms
from p2pq.core.mandates import Homes
from p2pq.core.placement import Ask
from p2pq.errors import Reject
from p2pq.model.ids import NodeId, Wall, short
from p2pq.model.job import Resources
from p2pq.wire import trust
from p2pq.wire.objects import GrantItem
from tests.unit.core.clusterkit import (
    BRIDGE,
    CAT,
    CLUSTER,
    DOG,
    EMU,
    LIFE_MS,
    OTHER,
    card,
    cert_of,
    chain,
    leaf,
    lease,
)
from tests.unit.core.mesh import IDENTITY, MASTER, PROFILE, WALL, Member, job_id


def introduce(cluster: Cluster, *members: Member, **fields: object) -> None:
    for member in members:
        cluster.introduce(leaf(member, **fields), IDENTITY, WALL, trust.nobody, Homes())
        cluster.check()


def cluster_with(*members: Member) -> Cluster:
    cluster = Cluster(BRIDGE.node)
    introduce(cluster, *members)
    return cluster


def test_a_leaf_is_who_its_certificate_and_its_keycard_say() -> None:
    cluster = Cluster(BRIDGE.node)
    node = cluster.introduce(leaf(CAT, path=(OTHER.node,)), IDENTITY, WALL, trust.nobody, Homes())
    view = cluster.leaves[node]
    assert (node, view.cert, view.prekey) == (CAT.node, cert_of(CAT), CAT.prekey)
    assert (view.profile, view.path) == (PROFILE, (OTHER.node,))
    assert cluster.slots == PROFILE.slots


def circle(*members: Member) -> str:
    return f"the way leads in a circle: {' > '.join(short(member.node) for member in members)}"


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"certs": chain(CAT, "submit")}, "no work capability"),
        ({"certs": (chain(CAT)[0],)}, trust.NOT_ADMIN),
        ({"certs": chain(BRIDGE), "card": card(BRIDGE)}, circle(MASTER, BRIDGE, BRIDGE)),
        ({"certs": chain(MASTER), "card": card(MASTER)}, circle(MASTER, BRIDGE, MASTER)),
        ({"path": (OTHER.node, BRIDGE.node)}, circle(MASTER, BRIDGE, OTHER, BRIDGE, CAT)),
        ({"path": (CAT.node,)}, circle(MASTER, BRIDGE, CAT, CAT)),
        ({"card": card(DOG)}, "bad signature"),
        ({"card": card(CAT, node=DOG.node)}, "keycard of another node"),
        ({"card": card(CAT, mesh=b"x" * 32)}, "keycard of another node"),
        ({"card": card(CAT, iat=0, exp=1)}, "not of this time"),
        ({"card": card(CAT, prekey=bytes(32))}, "low-order point"),
    ],
)
def test_who_does_not_prove_to_be_a_worker_is_no_leaf(fields: dict[str, object], reason: str) -> None:
    cluster = Cluster(BRIDGE.node)
    with pytest.raises(Reject) as caught:
        introduce(cluster, CAT, **fields)
    assert (caught.value.reason, cluster.leaves) == (reason, {})


def test_who_is_out_or_whose_certificate_has_ended_is_no_leaf() -> None:
    cluster = Cluster(BRIDGE.node)
    with pytest.raises(Reject, match=trust.BANNED):
        cluster.introduce(leaf(CAT), IDENTITY, WALL, lambda cert: cert.sub == CAT.node, Homes())
    with pytest.raises(Reject, match=trust.EXPIRED):
        cluster.introduce(leaf(CAT), IDENTITY, Wall(WALL + 2 * LIFE_MS), trust.nobody, Homes())
    assert cluster.leaves == {}


def test_leaves_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clusters, "LEAVES_TOTAL_MAX", 2)
    cluster = cluster_with(CAT, DOG)
    with pytest.raises(Reject, match="too many leaves"):
        introduce(cluster, EMU)
    introduce(cluster, CAT)
    assert list(cluster.leaves) == [CAT.node, DOG.node]


def test_results_of_those_that_left_lately_still_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clusters, "LEFT_MAX", 1)
    cluster = cluster_with(CAT, DOG)
    cluster.leave(CAT.node)
    cluster.leave(EMU.node)
    assert cluster.known(CAT.node) is not None
    cluster.leave(DOG.node)
    cluster.check()
    assert [cluster.known(member.node) is not None for member in (CAT, DOG, EMU)] == [False, True, False]
    introduce(cluster, DOG)
    assert list(cluster.leaves) == [DOG.node]


def test_who_is_expelled_counts_no_more_be_it_here_or_gone() -> None:
    cluster = cluster_with(CAT, DOG, EMU)
    cluster.leave(DOG.node)
    gone = (CAT.node, DOG.node)
    assert cluster.expel(lambda cert: cert.sub in gone) == [CAT.node, DOG.node]
    cluster.check()
    assert [cluster.known(member.node) is not None for member in (CAT, DOG, EMU)] == [False, False, True]
    assert list(cluster.refused) == [CAT.node, DOG.node]
    introduce(cluster, CAT)
    cluster.leave(DOG.node)
    assert cluster.refused == {}


def test_of_those_that_are_out_the_latest_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clusters, "REFUSED_MAX", 1)
    cluster = cluster_with(CAT, DOG)
    cluster.expel(lambda _: True)
    cluster.check()
    assert list(cluster.refused) == [DOG.node]


def test_attempts_avoid_the_latest_of_those_that_are_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clusters, "SHUNNED_MAX", 2)
    cluster = cluster_with(CAT, DOG, EMU)
    cluster.expel(lambda _: True)
    assert cluster.shunned == (EMU.node, DOG.node)
    assert list(cluster.refused) == [CAT.node, DOG.node, EMU.node], "but what is placed at any of them is taken back"


def test_able_is_each_leaf_for_itself() -> None:
    cluster = cluster_with(CAT)
    cluster.introduce(leaf(DOG, msgspec.structs.replace(PROFILE, slots=9)), IDENTITY, WALL, trust.nobody, Homes())
    plain = Ask(resources=Resources(cpus=4), sandbox="strict", only=b"")
    assert list(cluster.able(plain)) == [CAT.node, DOG.node]
    # Together they have 13 cpus: that is no room for a task of 10.
    assert list(cluster.able(msgspec.structs.replace(plain, resources=Resources(cpus=9)))) == [DOG.node]
    assert list(cluster.able(msgspec.structs.replace(plain, resources=Resources(cpus=10)))) == []
    assert list(cluster.able(msgspec.structs.replace(plain, only=CAT.node))) == [CAT.node]


def test_a_new_prekey_and_a_lost_key_are_answered_by_the_key_anew() -> None:
    cluster = cluster_with(CAT, DOG)
    for node in (CAT.node, DOG.node):
        cluster.leaves[node].keyed = {job_id(1): None, job_id(2): None}
    introduce(cluster, CAT)
    assert list(cluster.leaves[CAT.node].keyed) == [job_id(1), job_id(2)]
    introduce(cluster, CAT, card=card(CAT, prekey=DOG.prekey))
    assert cluster.leaves[CAT.node].keyed == {}
    cluster.forget_keys(job_id(1))
    assert list(cluster.leaves[DOG.node].keyed) == [job_id(2)]


def item(counter: int) -> GrantItem:
    return GrantItem(counter, 1, lease(counter))


def test_rooms_leave_room_elsewhere_for_what_avoids_a_leaf() -> None:
    rooms = Rooms(CLUSTER, {CAT.node: 2, DOG.node: 1}, 5, ())
    assert rooms.most == 8
    assert [rooms.beside(node) for node in (CAT.node, DOG.node, EMU.node, CLUSTER)] == [1, 2, 3, 0]
    rooms.shun(lease(0), DOG.node)
    assert [rooms.beside(node) for node in (CAT.node, DOG.node, EMU.node)] == [1, 1, 2]
    rooms.shun(lease(1), EMU.node)
    rooms.shun(lease(2), CAT.node)
    assert [rooms.beside(node) for node in (CAT.node, DOG.node, EMU.node)] == [0, 0, 0]
    pairs = ((lease(0), DOG.node), (lease(2), CAT.node))
    assert rooms.avoid([item(0), item(1), item(2)], {CAT.node, DOG.node}) == pairs


def test_a_doubtful_leaf_is_avoided_by_all_but_what_it_may_have() -> None:
    rooms = Rooms(CLUSTER, {CAT.node: 1, DOG.node: 3}, 0, (CAT.node, EMU.node))
    rooms.shun(lease(0), CAT.node)
    assert rooms.avoid([item(0), item(1), item(2)], {CAT.node, DOG.node, EMU.node}) == (
        (lease(0), CAT.node),
        (lease(2), CAT.node),
        (lease(0), EMU.node),
        (lease(1), EMU.node),
        (lease(2), EMU.node),
    )


def test_rooms_are_no_more_than_can_be_said_of(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clusters, "ITEMS_MAX", 5)
    assert Rooms(CLUSTER, {CAT.node: 9}, 0, ()).most == 5
    assert Rooms(CLUSTER, {CAT.node: 9}, 0, (DOG.node,)).most == 2
    many = Rooms(CLUSTER, {CAT.node: 9}, 0, [NodeId(bytes([n]) * 32) for n in range(7)])
    assert many.most == 1
    assert len(many.avoid([item(0)], ())) == 5


def test_keys_that_went_ahead_are_counted_for_the_latest_jobs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clusters, "AHEAD_JOBS_MAX", 2)
    cluster = cluster_with(CAT, DOG)
    cluster.went_ahead(job_id(1), 3)
    cluster.went_ahead(job_id(2), 9)
    cluster.went_ahead(job_id(1), 0)
    assert [cluster.may_go_ahead(job_id(number)) for number in (1, 2, 3)] == [1, 0, 4]
    cluster.went_ahead(job_id(3), 1)
    assert [cluster.may_go_ahead(job_id(number)) for number in (1, 2, 3)] == [4, 0, 3]
    cluster.check()
