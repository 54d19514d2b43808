"""Who is linked, who could run what, and who holds more than it can run."""

from p2pq.core.crew import Crew
from p2pq.core.jobs import Job
from p2pq.core.leases import Lease, Leases
from p2pq.model.ids import LeaseId, Mono, NodeId
from p2pq.model.job import Profile, Resources
from tests.unit.core.mesh import ALICE, BOB, MASTER, PROFILE, WALL, GrantItem, Member, job_id, manifest, result_item

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
