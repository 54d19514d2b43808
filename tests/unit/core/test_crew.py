"""Who is linked, who could run what, and who holds more than it can run."""

import msgspec
import pytest

from p2pq.core import crew as crews
from p2pq.core.clusters import Cluster
from p2pq.core.crew import Crew
from p2pq.core.events import LinkUp
from p2pq.core.jobs import Job
from p2pq.core.leases import Lease, Leases
from p2pq.core.through import cluster_of
from p2pq.errors import Reject
from p2pq.model.ids import LeaseId, Mono, NodeId
from p2pq.model.job import Profile, Resources
from p2pq.wire import messages as msg
from p2pq.wire import trust
from tests.unit.core.clusterkit import BRIDGE, CAT, CLUSTER, DOG, OTHER, cert_of, leaf, mandate
from tests.unit.core.mesh import (
    ALICE,
    BOB,
    IDENTITY,
    MASTER,
    PROFILE,
    WALL,
    GrantItem,
    Member,
    job_id,
    manifest,
    result_item,
)

MARK = LeaseId(1, 0)
CAROL = Member("carol")


def crew(*members: Member, profile: Profile = PROFILE) -> Crew:
    found = Crew(MASTER.node)
    for member in members:
        found.join(member.link_up(minor=2), MARK).profile = profile
        found.changed()
    return found


def job(**fields: object) -> Job:
    return Job(manifest(1, **fields), b"raw", b"digest", b"key", 1, WALL)


def holding(**counts: int) -> Leases:
    leases = Leases(1, 60.0, ())
    members = {member.name: member for member in (ALICE, BOB, MASTER)}
    for name, count in counts.items():
        for _ in range(count):
            leases.add(Lease(leases.new_id(), job_id(), 0, 1, members[name].node), Mono(0.0), 1.0)
    return leases


def test_who_comes_and_goes() -> None:
    found = crew(ALICE, BOB)
    assert ALICE.node in found
    assert [hand.link.peer for hand in found] == [ALICE.node, BOB.node]
    found.leave(ALICE.node)
    found.leave(ALICE.node)
    assert found.get(ALICE.node) is None
    assert ALICE.node not in found
    found.check()


def test_able_is_who_works_stays_and_fits() -> None:
    found = crew(ALICE)
    hand = found.get(ALICE.node)
    assert hand is not None
    assert found.able(job(), hand)
    assert not found.able(job(resources=Resources(cpus=99)), hand)
    hand.leaving = True
    assert not found.able(job(), hand)
    idler = found.join(BOB.link_up(caps=("submit",)), MARK)
    idler.profile = PROFILE
    assert not found.able(job(), idler)


def test_another_one_is_found_out_once_per_change() -> None:
    found, work = crew(ALICE), job()
    assert not found.other_is_able(work, ALICE.node)
    assert found.other_is_able(work, BOB.node)
    bob = found.join(BOB.link_up(), MARK)
    assert not found.other_is_able(work, ALICE.node)
    bob.profile = PROFILE
    assert not found.other_is_able(work, ALICE.node), "nobody said that something changed"
    found.changed()
    assert found.other_is_able(work, ALICE.node)
    assert found.other_is_able(work, NodeId(bytes(32)))


def test_the_fullest_is_who_holds_most_beyond_its_slots() -> None:
    found = crew(ALICE, BOB, MASTER)
    idle = found.get(MASTER.node)
    assert idle is not None
    assert found.fullest(idle, holding(alice=4, bob=1)) == (None, 0)
    assert found.fullest(idle, holding(alice=6, bob=9, master=30)) == (BOB.node, 5)
    found.join(BOB.link_up(minor=1), MARK)
    assert found.fullest(idle, holding(alice=6, bob=9)) == (ALICE.node, 2), "an older node does not know the word"


def test_snapshots_are_of_those_that_work() -> None:
    found = crew(ALICE, MASTER)
    found.join(BOB.link_up(caps=("submit",)), MARK)
    alice, master = found.snapshots(holding(alice=2), lambda _: 3)
    assert (alice.node, alice.own, alice.leases, alice.cpus) == (ALICE.node, False, 2, 6)
    assert (master.node, master.own, master.leases, master.cpus) == (MASTER.node, True, 0, 0)


def cluster_up(bridge: Member) -> LinkUp:
    up = bridge.link_up(caps=("work",), prekey=b"", minor=msg.MINOR)
    return msgspec.structs.replace(up, peer=cluster_of(bridge.node), path=(bridge.node,))


def with_leaves(found: Crew, bridge: Member, *leaves: Member, serial: int = 1) -> Cluster:
    """Let a bridge speak for these."""
    hand = found.get(cluster_of(bridge.node)) or found.join(cluster_up(bridge), MARK)
    assert hand.cluster is not None
    for each in leaves:
        found.introduce(hand.cluster, leaf(each, by=bridge, serial=serial), IDENTITY, WALL, trust.nobody)
    found.check()
    return hand.cluster


def test_a_leaf_is_spoken_for_by_the_bridge_that_introduced_it_last() -> None:
    found = crew(ALICE)
    near = with_leaves(found, BRIDGE, CAT, DOG)
    assert found.speaker(ALICE.node) == ALICE.node
    assert (found.speaker(CAT.node), found.path(CAT.node)) == (CLUSTER, (BRIDGE.node,))
    assert (found.speaker(BOB.node), found.path(BOB.node)) == (None, ())
    far = with_leaves(found, OTHER, CAT, serial=2)
    assert (found.speaker(CAT.node), found.path(CAT.node)) == (cluster_of(OTHER.node), (OTHER.node,))
    found.part(near, CAT.node)
    assert found.path(CAT.node) == (OTHER.node,)
    found.part(far, CAT.node)
    assert (found.speaker(CAT.node), found.path(CAT.node)) == (None, ())
    found.leave(CLUSTER)
    found.check()
    assert (found.speaker(DOG.node), found.path(CLUSTER)) == (None, ())


def test_the_way_to_who_is_gone_is_known_as_it_was_last(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(crews, "LEFT_MAX", 3)
    found = crew(ALICE)
    near = with_leaves(found, BRIDGE, CAT, DOG)
    assert found.way_left(CAT.node) == ()
    found.part(near, CAT.node)
    assert (found.way_left(CAT.node), found.way_left(DOG.node)) == ((BRIDGE.node,), ())
    found.leave(CLUSTER)
    assert found.way_left(DOG.node) == found.way_left(CLUSTER) == (BRIDGE.node,)
    found.join(BOB.link_up(path=(OTHER.node,)), MARK)
    for gone in (ALICE, BOB):
        found.leave(gone.node)
    found.check()
    assert (found.way_left(ALICE.node), found.way_left(BOB.node)) == ((), (OTHER.node,))
    assert found.way_left(CAT.node) == (), "who went first is forgotten first"
    found.join(BOB.link_up(), MARK)
    found.leave(BOB.node)
    assert found.way_left(BOB.node) == ()


def test_a_worker_of_another_mesh_is_named_so() -> None:
    found = crew()
    found.join(msgspec.structs.replace(ALICE.link_up(), mesh=b"m" * 32, realm="bee"), MARK)
    assert [each.name for each in found.snapshots(holding(), lambda _: 1)] == ["alice@bee"]


def test_a_leaf_is_spoken_for_on_the_way_that_it_chose_last_whoever_claims_it() -> None:
    found = crew()
    first = with_leaves(found, BRIDGE, CAT)
    second = with_leaves(found, OTHER, CAT, serial=2)
    for claimed in (leaf(CAT), leaf(CAT, serial=2), leaf(CAT, mandate=mandate(CAT, OTHER, serial=2))):
        with pytest.raises(Reject):
            found.introduce(first, claimed, IDENTITY, WALL, trust.nobody)
    assert found.speaker(CAT.node) == cluster_of(OTHER.node)
    found.part(second, CAT.node)
    with pytest.raises(Reject, match="it takes part another way by now"):
        found.introduce(first, leaf(CAT), IDENTITY, WALL, trust.nobody)
    assert found.speaker(CAT.node) is None


def test_what_bridges_were_told_before_is_over_once_a_worker_has_a_link_of_its_own() -> None:
    found = crew(CAT)
    link = CAT.link_up()
    found.at_home(link, mandate(CAT, serial=2), IDENTITY)
    found.leave(CAT.node)
    with pytest.raises(Reject, match="it takes part another way by now"):
        with_leaves(found, BRIDGE, CAT)
    assert found.speaker(CAT.node) is None
    with_leaves(found, BRIDGE, CAT, serial=3)
    assert found.speaker(CAT.node) == CLUSTER
    for word in (mandate(CAT, serial=2), mandate(CAT, BRIDGE, serial=4), mandate(DOG, serial=4)):
        with pytest.raises(Reject):
            found.at_home(link, word, IDENTITY)


def test_a_bridge_that_comes_again_has_no_leaves_yet() -> None:
    found = crew()
    with_leaves(found, BRIDGE, CAT)
    found.join(cluster_up(BRIDGE), MARK)
    found.check()
    assert found.speaker(CAT.node) is None


def test_a_link_that_a_bridge_carries_is_no_cluster() -> None:
    found = crew()
    assert found.join(msgspec.structs.replace(ALICE.link_up(), path=(BRIDGE.node,)), MARK).cluster is None
    assert found.path(ALICE.node) == (BRIDGE.node,)


def test_who_is_out_is_no_leaf_of_anybody() -> None:
    found = crew(ALICE)
    with_leaves(found, BRIDGE, CAT, DOG)
    with_leaves(found, OTHER, CAT, serial=2)
    assert found.expel(lambda cert: cert.sub == CAT.node) == [CAT.node]
    found.check()
    assert found.expel(lambda cert: cert.sub == CAT.node) == []
    assert [found.speaker(each.node) for each in (CAT, DOG)] == [None, CLUSTER]


def test_another_one_may_be_a_leaf_but_not_of_the_same_cluster() -> None:
    found = crew()
    with_leaves(found, BRIDGE, CAT)
    work = job()
    assert not found.other_is_able(work, CAT.node)
    with_leaves(found, OTHER, CAT, serial=2)
    assert not found.other_is_able(work, CAT.node), "it is the same one, seen twice"
    assert found.other_is_able(work, CLUSTER)
    found.leave(cluster_of(OTHER.node))
    assert not found.other_is_able(work, CLUSTER)
    with_leaves(found, BRIDGE, DOG)
    assert found.other_is_able(work, CAT.node)
    assert not found.other_is_able(work, CLUSTER)
    hand = found.get(CLUSTER)
    assert hand is not None
    assert found.able(work, hand)
    hand.leaving = True
    found.changed()
    assert not found.able(work, hand)
    assert not found.other_is_able(work, CAT.node)


def test_those_behind_bridges_are_counted_if_they_work() -> None:
    found = crew(ALICE)
    assert (found.far, found.slots_here) == (0, 4)
    hand = found.join(BOB.link_up(path=(CAROL.node,)), MARK)
    hand.profile = PROFILE
    assert hand.far
    assert (found.far, found.slots_here) == (1, 4)
    found.join(CAROL.link_up(caps=("submit",), path=(ALICE.node,)), MARK).profile = PROFILE
    assert (found.far, found.slots_here) == (1, 4)
    found.join(BOB.link_up(), MARK).profile = PROFILE
    assert (found.far, found.slots_here) == (0, 8)
    alice = found.get(ALICE.node)
    assert alice is not None
    alice.leaving = True
    assert found.slots_here == 4
    found.join(BOB.link_up(path=(CAROL.node,)), MARK)
    found.leave(BOB.node)
    found.leave(BOB.node)
    assert found.far == 0


def test_room_is_what_tasks_find_free_in_the_own_network() -> None:
    found = crew(ALICE, MASTER)
    found.join(BOB.link_up(path=(CAROL.node,)), MARK).profile = PROFILE
    leases = holding(alice=1, master=6)
    assert found.room_here(job(), leases, lambda _: 1) == 3
    assert found.room_here(job(), leases, lambda _: 3) == 1
    assert found.room_here(job(resources=Resources(cpus=2)), leases, lambda _: 1) == 2, "one slot is too few"
    assert found.room_here(job(resources=Resources(cpus=5)), leases, lambda _: 1) is None
    assert found.room_here(job(only=BOB.node), leases, lambda _: 1) is None
    (lease, *_) = leases.held(ALICE.node)
    lease.collecting = result_item(GrantItem(0, 1, lease.id))
    assert found.room_here(job(), leases, lambda _: 1) == 4


def test_snapshots_say_who_is_behind_bridges_and_whether_it_has_to_wait() -> None:
    found = crew(ALICE)
    found.join(BOB.link_up(path=(CAROL.node,)), MARK)
    for later in (False, True):
        alice, bob = found.snapshots(holding(), lambda _: 1, later=later)
        assert (alice.far, alice.later) == (False, False)
        assert (bob.far, bob.later) == (True, later)


def test_leaves_are_known_with_the_way_to_them_but_not_those_that_are_linked() -> None:
    found = crew(ALICE)
    cluster = with_leaves(found, BRIDGE, CAT, DOG)
    found.introduce(cluster, leaf(ALICE), IDENTITY, WALL, trust.nobody)
    known = [CAT.node, DOG.node]
    assert [each.peer for each in found.leaves()] == known
    assert [found.leaf(each.node) for each in (CAT, DOG)] == found.leaves()
    cat = found.leaf(CAT.node)
    assert cat is not None
    assert (cat.name, cat.owner, cat.caps, cat.path) == ("cat", cert_of(CAT).owner, ("work",), (BRIDGE.node,))
    assert (cat.prekey, cat.certs) == (CAT.prekey, leaf(CAT).certs)
    assert [found.leaf(each.node) for each in (ALICE, BOB)] == [None, None]
    found.part(cluster, CAT.node)
    assert found.leaf(CAT.node) is None
