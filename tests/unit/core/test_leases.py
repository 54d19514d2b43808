import pytest

from p2pq.core.leases import GRACE_S, WAIT_S, Lease, Leases
from p2pq.model.ids import LeaseId, Mono
from tests.unit.core.mesh import ALICE, BOB, MASTER, GrantItem, job_id, result_item

TIME_S = 100.0


def table() -> Leases:
    return Leases(3, 60.0, ((1, ((0, 5),)),))


def granted(leases: Leases, now: float = 0.0, worker: bytes = ALICE.node) -> Lease:
    lease = Lease(leases.new_id(), job_id(), 0, 1, worker)
    leases.add(lease, Mono(now), TIME_S)
    leases.check()
    return lease


def item(lease: Lease) -> object:
    return result_item(GrantItem(lease.task, lease.attempt, lease.id))


def test_a_lease_that_is_not_renewed_is_due() -> None:
    leases = table()
    first, second = granted(leases), granted(leases, 1.0, BOB.node)
    assert [lease.id for lease in leases.held(ALICE.node)] == [LeaseId(3, 0)]
    leases.renew(second, Mono(30.0), running=False)
    assert leases.deadline == 60.0
    assert leases.pop_due(Mono(59.9)) is None
    assert leases.pop_due(Mono(60.0)) is first
    assert leases.pop_due(Mono(60.0)) is None
    assert leases.deadline == 90.0
    assert (leases.count(ALICE.node), leases.count(BOB.node), len(leases)) == (0, 1, 1)
    leases.check()


def test_standing() -> None:
    leases = table()
    live, over = granted(leases), granted(leases)
    leases.end(over)
    assert leases.get(live.id) is live
    known = {lease: leases.standing(lease) for lease in (live.id, over.id, LeaseId(1, 99), LeaseId(0, 0))}
    assert known == {live.id: "live", over.id: "over", LeaseId(1, 99): "over", LeaseId(0, 0): "over"}
    for lease in (LeaseId(3, 2), LeaseId(-1, 0), LeaseId(1, -1)):
        assert leases.standing(lease) == "unknown"
    assert leases.standing(LeaseId(4, 0)) == "over", "of a life that is forgotten"
    assert leases.mark == LeaseId(3, 2)


def test_standing_after_a_repair() -> None:
    leases = Leases(3, 60.0, ((1, ((0, 5),)),), 2)
    over = granted(leases)
    leases.end(over)
    expected = {
        LeaseId(1, 4): "over",
        LeaseId(1, 5): "forgotten",
        LeaseId(0, 0): "over",
        LeaseId(2, 99): "forgotten",
        over.id: "over",
        LeaseId(3, 1): "unknown",
        LeaseId(-1, 0): "unknown",
        LeaseId(1, -1): "unknown",
    }
    assert {lease: leases.standing(lease) for lease in expected} == expected
    old = Lease(LeaseId(2, 9), job_id(), 0, 1, ALICE.node)
    leases.add(old, Mono(0.0), TIME_S)
    assert leases.standing(old.id) == "live"
    leases.settle(old)
    assert leases.standing(old.id) == "over"
    leases.check()


def test_nobody_holds_a_lease_for_ever() -> None:
    leases = table()
    lease = granted(leases)
    assert lease.until == WAIT_S + TIME_S + GRACE_S
    leases.renew(lease, Mono(10.0), running=True)
    assert lease.until == 10.0 + TIME_S + GRACE_S
    leases.renew(lease, Mono(20.0), running=True)
    assert lease.until == 10.0 + TIME_S + GRACE_S
    leases.renew(lease, Mono(400.0), running=True)
    assert leases.deadline == lease.until == 410.0


def test_collecting_stops_the_clock_and_failure_starts_it_again() -> None:
    leases = table()
    lease = granted(leases)
    leases.collect(lease, item(lease))
    leases.check()
    leases.renew(lease, Mono(50.0), running=True)
    assert leases.deadline is None
    leases.collect_failed(lease, Mono(300.0))
    assert lease.collecting is None
    assert leases.deadline == 360.0
    leases.collect(lease, item(lease))
    leases.collect_failed(lease, Mono(500.0))
    assert leases.pop_due(Mono(500.0)) is lease


def test_what_is_settled_is_remembered() -> None:
    leases = table()
    lease = granted(leases)
    granted(leases)
    leases.settle(lease)
    assert leases.standing(lease.id) == "over"
    assert leases.settled() == ((1, ((0, 5),)), (3, ((0, 1),)))
    leases.check()


def test_settling_twice_is_a_bug() -> None:
    leases = table()
    lease = granted(leases)
    leases.settle(lease)
    with pytest.raises(AssertionError, match="settled twice"):
        leases.settle(lease)


def test_who_could_not_renew_because_the_master_slept_has_the_full_term_anew() -> None:
    leases = table()
    first, second, third = granted(leases), granted(leases, 30.0), granted(leases, 50.0)
    leases.renew(second, Mono(50.0), running=True)
    leases.collect(third, item(third))
    leases.slept(1000.0, Mono(1055.0))
    leases.check()
    assert (first.until, second.until) == (WAIT_S + TIME_S + GRACE_S + 1000.0, 50.0 + TIME_S + GRACE_S + 1000.0)
    assert leases.pop_due(Mono(1114.9)) is None
    assert {leases.pop_due(Mono(1115.0)), leases.pop_due(Mono(1115.0))} == {first, second}
    assert leases.deadline is None  # what is collected is not due
    assert leases.get(third.id) is third


def test_a_sleep_gives_nobody_more_than_the_time_limit() -> None:
    leases = table()
    lease = granted(leases)
    leases.renew(lease, Mono(1.0), running=True)
    bound = 1.0 + TIME_S + GRACE_S
    for at in range(60, 400, 50):
        leases.renew(lease, Mono(at), running=True)
    leases.slept(100.0, Mono(490.0))
    assert leases.deadline == bound + 100.0 < 490.0 + 60.0


def test_who_asks_is_told_what_is_live_and_its_own_and_that_is_renewed() -> None:
    leases = table()
    mine, over, foreign = granted(leases), granted(leases), granted(leases, worker=BOB.node)
    leases.renew(mine, Mono(1.0), running=True)
    leases.end(over)
    asked = (mine.id, over.id, foreign.id, LeaseId(9, 9))
    assert leases.confirm(ALICE.node, asked, Mono(50.0)) == (mine.id,)
    assert mine.running
    assert leases.pop_due(Mono(109.0)) is foreign
    assert leases.deadline == 110.0


def test_a_lease_of_a_cluster_is_also_found_by_the_leaf_that_has_it() -> None:
    leases = table()
    placed, stock = granted(leases), granted(leases)
    leases.place(placed, BOB.node)
    leases.check()
    assert (placed.worker, placed.runner, stock.runner) == (ALICE.node, BOB.node, ALICE.node)
    assert (leases.held(ALICE.node), leases.held(BOB.node)) == ([placed, stock], [])
    assert (leases.run_by(ALICE.node), leases.run_by(BOB.node)) == ([stock], [placed])
    leases.place(placed, MASTER.node)
    leases.check()
    assert (leases.run_by(BOB.node), leases.run_by(MASTER.node)) == ([], [placed])
    leases.end(placed)
    leases.check()
    assert leases.run_by(MASTER.node) == []


def test_a_leaf_takes_its_lease_along() -> None:
    leases = table()
    first, second = granted(leases), granted(leases)
    leases.place(first, BOB.node)
    leases.place(second, BOB.node)
    leases.move(first, MASTER.node)
    leases.check()
    assert (first.worker, first.leaf, leases.count(ALICE.node)) == (MASTER.node, BOB.node, 1)
    leases.move(second, BOB.node)
    leases.check()
    assert (second.worker, second.leaf, second.runner) == (BOB.node, None, BOB.node)
    assert leases.run_by(BOB.node) == [second, first]
    assert leases.count(ALICE.node) == 0
    leases.move(second, ALICE.node)
    leases.check()
    assert (second.worker, second.leaf, second.runner) == (ALICE.node, BOB.node, BOB.node)
    assert leases.run_by(BOB.node) == [first, second]
