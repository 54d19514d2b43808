"""Own network first: who is told of work, and how much of it goes to workers behind bridges; whole effect lists."""

from collections.abc import Callable

import pytest

from p2pq.core import effects as fx
from p2pq.core import events as ev
from p2pq.core.overflow import CALM_S, HOLD_S
from p2pq.model.job import Profile, Resources
from p2pq.wire import messages as msg
from tests.unit.core.mesh import ALICE, BOB, OK, OWNER, PROFILE, Bench, Member, job_id, ready, result_item, submitted

GATE = Member("gate").node
CAROL = Member("carol")
FAR = (GATE,)


def has_work(member: Member, counter: int, owners: tuple[str, ...] = (OWNER,)) -> fx.Send:
    return fx.Send(peer=member.node, message=msg.HasWork(counter=counter, owners=owners))


def nothing(bench: Bench, member: Member, counter: int, wide: tuple[int, int, int] = (0, 0, 0)) -> list[fx.Effect]:
    message = msg.Nothing(nonce=bench.nonces.to_bytes(16, "big"), owner=OWNER, counter=counter, wide=wide)
    return [fx.Send(peer=member.node, message=message)]


def sent(effects: list[fx.Effect]) -> list[fx.Effect]:
    """Return what is said, without rows and notices."""
    return [effect for effect in effects if isinstance(effect, fx.Send)]


def mesh(near: int = 4, far: int = 4) -> Bench:
    """Alice is in the master's own network if she has slots, Bob is behind a bridge."""
    bench = Bench()
    bench.tick()
    if near:
        bench.join(ALICE, slots(near))
    if far:
        bench.join(BOB, slots(far), FAR)
    return bench


def slots(count: int) -> Profile:
    return Profile(slots=count, memory_mb=4096, labels=PROFILE.labels, sandbox="strict", accepts=True)


def opened(tasks: int = 9) -> Bench:
    """Nine tasks for four slots of Alice: five are left over."""
    bench = mesh()
    assert sent(bench.do(submitted(tasks=tasks))) == [has_work(ALICE, 1), has_work(BOB, 1)]
    return bench


def test_what_free_slots_can_take_is_told_to_the_own_network_alone() -> None:
    bench = mesh()
    assert sent(bench.do(submitted(tasks=4))) == [has_work(ALICE, 1)]
    assert bench.queue.deadline == HOLD_S
    assert bench.ask(BOB) == nothing(bench, BOB, 0)
    assert len(bench.leases(ALICE)) == 4
    assert bench.tick(HOLD_S) == []
    assert bench.queue.deadline == 60.0, "nothing waits for anything but the leases"


def test_what_still_waits_after_a_moment_is_offered_to_all() -> None:
    bench = mesh()
    bench.do(submitted(tasks=4))
    assert bench.tick(HOLD_S - 0.01) == []
    assert bench.tick(0.01) == [has_work(BOB, 1)]
    assert len(bench.leases(BOB)) == 4


def test_more_than_another_round_is_offered_at_once_but_for_what_free_slots_take() -> None:
    bench = opened()
    assert len(bench.leases(BOB, cpus=9, memory_mb=9999, tasks_max=9)) == 5
    assert bench.ask(BOB) == nothing(bench, BOB, 1)
    assert len(bench.leases(ALICE)) == 4


def test_another_round_alone_waits_a_moment() -> None:
    bench = mesh()
    assert sent(bench.do(submitted(tasks=8))) == [has_work(ALICE, 1)]
    assert len(bench.leases(ALICE)) == 4
    assert bench.ask(BOB) == nothing(bench, BOB, 0)
    assert bench.tick(HOLD_S) == [has_work(BOB, 1)]
    assert len(bench.leases(BOB)) == 4


def test_where_nobody_here_works_all_is_offered_at_once() -> None:
    bench = mesh(near=0)
    assert sent(bench.do(submitted())) == [has_work(BOB, 1)]
    assert len(bench.leases(BOB)) == 1


@pytest.mark.parametrize("fields", [{"resources": Resources(cpus=3)}, {"only": BOB.node}])
def test_what_nobody_here_is_able_to_run_is_offered_at_once(fields: dict[str, object]) -> None:
    bench = mesh(near=2)
    assert sent(bench.do(submitted(**fields))) == [has_work(ALICE, 1), has_work(BOB, 1)]
    assert bench.ask(ALICE)[-1] == nothing(bench, ALICE, 1)[-1]
    assert len(bench.leases(BOB)) == 1


def test_jobs_that_come_first_take_the_free_slots_first() -> None:
    """Three tasks find four slots; of the three after them two do not; what nobody here can run takes none of them."""
    bench = opened()
    assert len(bench.leases(ALICE)) == 4
    assert len(bench.leases(BOB, cpus=9, memory_mb=9999, tasks_max=9)) == 5
    bench.join(CAROL)
    bench.do(submitted(2, tasks=9, only=BOB.node))
    bench.do(submitted(3, tasks=3))
    bench.do(submitted(4, tasks=3))
    offers = [len(bench.leases(BOB, cpus=20, memory_mb=9999, tasks_max=20)) for _ in range(3)]
    assert offers == [9, 2, 0]
    assert [len(bench.leases(CAROL, cpus=4)) for _ in range(2)] == [3, 1]


def test_the_way_stays_open_for_a_while_but_own_slots_go_first() -> None:
    bench = opened()
    for item in bench.leases(BOB, cpus=5, memory_mb=9999, tasks_max=5):
        bench.finish(BOB, item, OK)
    for item in bench.leases(ALICE):
        bench.finish(ALICE, item, OK)
    bench.now += 1.0
    # Bob has not been told that there was nothing, and is not told that there is something: Alice can take it all.
    assert sent(bench.do(submitted(2, tasks=4))) == [has_work(ALICE, 3)]
    assert bench.ask(BOB) == nothing(bench, BOB, 1)
    # One more than she can take, and he is told of it at once.
    assert sent(bench.do(submitted(3, tasks=1))) == [has_work(BOB, 2)]
    assert len(bench.leases(BOB)) == 1
    assert len(bench.leases(ALICE)) == 4
    assert sent(bench.tick(CALM_S - 0.01)) == []
    assert sent(bench.tick(0.01)) == [has_work(BOB, 3, ())]
    assert sent(bench.do(submitted(4))) == [has_work(ALICE, 6)], "and then it is closed"


def test_it_does_not_close_while_something_is_left_over() -> None:
    bench = opened(tasks=99)
    bench.ask(ALICE)
    assert len(bench.leases(BOB)) == 4
    for _ in range(3):
        assert bench.tick(CALM_S) == []
        assert bench.queue.deadline == bench.now + CALM_S
    assert len(bench.leases(BOB)) == 4


def test_small_jobs_around_the_limit_open_it_once() -> None:
    """Four tasks a second, a fifth every other time: without a memory Bob would be told twenty times."""
    bench = mesh()
    told = []
    for number in range(1, 41):
        told += sent(bench.do(submitted(number, tasks=4 + number % 2)))
        items = bench.leases(ALICE)
        bench.tick(HOLD_S)
        told += sent(bench.ask(BOB))
        for each in items:
            bench.finish(ALICE, each, OK, number)
        bench.tick(1.0 - HOLD_S)
    talk = [effect.message for effect in told if effect.peer == BOB.node]
    assert sum(isinstance(message, msg.HasWork) and not message.owners for message in talk) == 0
    assert sum(isinstance(message, msg.Granted) for message in talk) == 20


def test_who_comes_over_a_bridge_hears_of_what_is_left_over_alone() -> None:
    bench = mesh(far=0)
    bench.do(submitted(tasks=99))
    assert bench.tick(10.0) == []
    assert sent(bench.join(BOB, path=FAR))[:1] == [has_work(BOB, 1)]
    bench.ask(BOB)
    assert sent(bench.join(CAROL, path=FAR))[:1] == [has_work(CAROL, 3)]


def test_when_the_last_one_behind_bridges_goes_there_is_nothing_to_open() -> None:
    bench = opened()
    bench.do(ev.LinkDown(peer=BOB.node, reason="gone"))
    assert bench.queue.deadline is None
    assert sent(bench.join(BOB, slots(4), FAR))[:1] == [has_work(BOB, 3)]


def test_who_is_linked_directly_after_all_belongs_to_the_own_network() -> None:
    bench = mesh(near=0)
    assert sent(bench.join(BOB, slots(4))) == []
    assert sent(bench.do(submitted(tasks=99))) == [has_work(BOB, 1)]
    assert bench.queue.deadline is None, "nobody is behind a bridge"


def test_who_does_not_work_is_nobody() -> None:
    bench = mesh(far=0)
    bench.do(BOB.link_up(caps=("submit",), path=FAR))
    assert sent(bench.do(submitted(tasks=99))) == [has_work(ALICE, 1)]
    assert bench.queue.deadline is None


def test_a_worker_that_must_prove_itself_is_woken_on_its_side() -> None:
    bench = opened(tasks=99)
    bench.queue._book.wake += [ALICE.node, BOB.node, CAROL.node]
    assert bench.tick(0.1) == [has_work(ALICE, 2), has_work(BOB, 2)]


def test_what_has_ended_takes_no_slot_while_its_result_is_fetched() -> None:
    bench = opened(tasks=4 + 5)
    bench.leases(BOB, cpus=5, memory_mb=9999, tasks_max=5)
    (first, *_) = bench.leases(ALICE)
    bench.says(ALICE, ready(ALICE, result_item(first)))
    assert sent(bench.do(submitted(2, tasks=1))) == [has_work(ALICE, 3)]
    assert bench.leases(BOB) == []


def test_second_attempts_are_for_the_own_network_first() -> None:
    """Two tasks; Alice has brought one after 3 s and is still at the other."""
    bench = mesh(near=2)
    bench.join(CAROL)
    bench.do(submitted(tasks=2))
    first, second = bench.leases(ALICE)
    bench.tick(3.0)
    bench.finish(ALICE, first, OK)
    told = bench.tick(3.0)
    assert {effect.peer for effect in told} == {ALICE.node, CAROL.node}
    assert bench.leases(BOB) == []
    assert bench.tick(HOLD_S) == [has_work(BOB, 1)]
    assert [item.task for item in bench.leases(BOB)] == [second.task]
    assert bench.leases(CAROL) == []


def test_second_attempts_go_far_at_once_where_nobody_here_is_left() -> None:
    bench = mesh(near=2)
    bench.do(submitted(tasks=2))
    first, _ = bench.leases(ALICE)
    bench.tick(3.0)
    bench.finish(ALICE, first, OK)
    bench.says(ALICE, msg.Leaving())
    assert sent(bench.tick(3.0))[-1] == has_work(BOB, 1)
    assert len(bench.leases(BOB)) == 1


def test_an_idle_worker_behind_a_bridge_takes_no_lease_ahead_from_the_own_network() -> None:
    bench = mesh(far=0)
    bench.do(ALICE.link_up(minor=2))
    bench.says(ALICE, msg.ProfileIs(profile=slots(1)))
    bench.join(BOB, slots(4), FAR)
    bench.do(submitted(tasks=2))
    assert len(bench.leases(ALICE, cpus=1, tasks_max=2, ahead=((job_id(), 1),))) == 2
    bench.now += HOLD_S
    assert bench.ask(BOB) == nothing(bench, BOB, 0)
    bench.join(CAROL)
    asked = bench.ask(CAROL)
    assert asked == [*nothing(bench, CAROL, 2), fx.Send(peer=ALICE.node, message=msg.Recall(tasks=1))]


def test_no_room_is_asked_for_behind_a_bridge_for_a_wide_task_of_the_own_network() -> None:
    bench = mesh()
    bench.do(submitted(resources=Resources(cpus=3)))
    assert bench.ask(BOB, cpus=1) == nothing(bench, BOB, 0)
    bench.tick(HOLD_S)
    assert bench.ask(BOB, cpus=1) == nothing(bench, BOB, 1, (3, 0, 0))


WAITS: list[tuple[int, float, Callable[[Bench], object], str]] = [
    (
        2,
        0.1,
        lambda _: None,
        "alice has not asked for work yet; if this lasts, see `p2pq status`; bob, behind bridges, gets what is left in a moment.",
    ),
    (
        8,
        0.1,
        lambda bench: bench.ask(ALICE),
        (
            "alice is busy with this very job, all its slots are taken; it starts when one of its tasks ends; "
            "bob, behind bridges, gets what is left in a moment."
        ),
    ),
    (
        99,
        0.1,
        lambda bench: bench.ask(ALICE),
        "bob has not asked for work yet; if this lasts, see `p2pq status`.",
    ),
    (
        8,
        HOLD_S,
        lambda bench: bench.ask(ALICE),
        "bob has not asked for work yet; if this lasts, see `p2pq status`.",
    ),
]


@pytest.mark.parametrize(("tasks", "after", "meanwhile", "sentence"), WAITS)
def test_why_says_whose_turn_it_is(
    tasks: int, after: float, meanwhile: Callable[[Bench], object], sentence: str
) -> None:
    bench = mesh()
    bench.do(submitted(tasks=tasks))
    meanwhile(bench)
    bench.tick(after)
    assert bench.queue.why(bench.queue.jobs()[0].job, None, bench.now) == sentence
    assert bench.queue.why(bench.queue.jobs()[0].job, tasks - 1, bench.now) == sentence


def test_asking_why_changes_nothing() -> None:
    bench = opened()
    job = bench.queue._book.jobs[bench.queue.jobs()[0].job]
    job.since = None
    before = bench.queue.deadline
    bench.queue.why(job.id, None, bench.now)
    assert job.since is None
    assert bench.queue.deadline == before


def test_the_time_counts_anew_when_a_job_waits_again() -> None:
    bench = mesh()
    bench.do(submitted(tasks=1))
    (item,) = bench.leases(ALICE)
    bench.tick(10.0)
    returned = msg.Return(items=(msg.ReturnItem(item.lease, "recalled"),))
    assert sent(bench.says(ALICE, returned)) == [has_work(ALICE, 3)]
    assert bench.tick(HOLD_S - 0.01) == []
    assert bench.tick(0.01) == [has_work(BOB, 1)]


def test_a_large_job_is_not_looked_through_to_its_end() -> None:
    """Whatever stands behind enough tasks for all is looked at when somebody asks for it, and then again in time."""
    bench = mesh()
    bench.do(submitted(1, tasks=99))
    bench.do(submitted(2, tasks=4))
    first, second = bench.queue._book.jobs.values()
    assert (first.since, second.since) == (0.0, None)
    bench.tick(HOLD_S)
    assert len(bench.leases(BOB, cpus=99, memory_mb=9999, tasks_max=99)) == 99
    assert second.since is None
    assert bench.ask(BOB) == nothing(bench, BOB, 3)
    assert second.since == HOLD_S
    assert sent(bench.tick(HOLD_S)) == [has_work(BOB, 4)]
    assert len(bench.leases(BOB)) == 4


def test_the_one_that_has_waited_longest_counts_wherever_it_stands() -> None:
    bench = mesh()
    bench.do(submitted(1, tasks=1))
    bench.now += HOLD_S / 2
    bench.do(submitted(2, tasks=1, priority=1))
    assert sent(bench.tick(HOLD_S / 2)) == [has_work(BOB, 1)]
    assert [item.task for item in bench.leases(BOB)] == [0]
    assert bench.leases(BOB) == []
