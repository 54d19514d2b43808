from p2pq.core.announcer import WAVE, WAVE_S, Announcer
from p2pq.model.ids import Mono, NodeId
from p2pq.wire.messages import HasWork

ME = NodeId(b"me")
T0 = Mono(0.0)


def peers(count: int) -> list[NodeId]:
    return [NodeId(b"%d" % number) for number in range(count)]


def of(*workers: NodeId) -> Announcer:
    announcer = Announcer(ME)
    for worker in workers:
        announcer.join(worker)
    return announcer


def test_new_work_wakes_sleepers_once_and_its_end_tells_those_awake() -> None:
    first, second = peers(2)
    announcer = of(first, second)
    assert announcer.update((), 0, T0, grew=False) == []
    work = HasWork(counter=1, owners=("ann",))
    assert announcer.update(("ann",), 1, T0, grew=True) == [(first, work), (second, work)]
    assert announcer.update(("ann",), 1, T0, grew=True) == []
    announcer.slept(first)
    assert announcer.update(("ann",), 1, T0, grew=False) == []
    assert announcer.update((), 0, T0, grew=False) == [(second, HasWork(counter=3))]
    assert announcer.update((), 0, T0, grew=False) == []
    again = HasWork(counter=4, owners=("ann",))
    assert announcer.update(("ann",), 1, T0, grew=True) == [(first, again), (second, again)]
    announcer.check()


def test_one_task_does_not_wake_a_crowd() -> None:
    crowd = peers(3 * WAVE + 1)
    announcer = of(*crowd)
    told = announcer.update(("ann",), 1, T0, grew=True)
    assert [peer for peer, _ in told] == crowd[:WAVE]
    assert announcer.sleepers == 2 * WAVE + 1
    assert announcer.deadline == WAVE_S
    assert announcer.update(("ann",), 1, Mono(0.1), grew=False) == []
    for worker in crowd[:WAVE]:
        announcer.slept(worker)
    told = announcer.update(("ann",), 1, Mono(WAVE_S), grew=False)
    assert [peer for peer, _ in told] == crowd[WAVE : 3 * WAVE]
    announcer.check()
    told = announcer.update(("ann",), 1, Mono(2 * WAVE_S), grew=False)
    # Those who were answered Nothing since the change are left asleep: that would be polling.
    assert told == [(crowd[-1], HasWork(counter=1, owners=("ann",)))]
    assert announcer.deadline is None
    announcer.check()


def test_many_tasks_wake_as_many_as_could_help_and_the_own_machine_hears_first() -> None:
    crowd = peers(3 * WAVE)
    announcer = of(*crowd, ME)
    told = announcer.update(("ann",), WAVE, T0, grew=True)
    assert [peer for peer, _ in told] == [ME, *crowd[: 2 * WAVE - 1]]


def test_the_end_of_work_ends_the_wave() -> None:
    announcer = of(*peers(WAVE + 1))
    announcer.update(("ann",), 1, T0, grew=True)
    assert len(announcer.update((), 0, T0, grew=False)) == WAVE
    assert announcer.deadline is None
    announcer.check()


def test_another_owner_is_told_to_those_awake_too() -> None:
    first, second = peers(2)
    announcer = of(first)
    announcer.update(("ann",), 1, T0, grew=True)
    announcer.join(second)
    work = HasWork(counter=2, owners=("ann", "bea"))
    assert announcer.update(("ann", "bea"), 2, T0, grew=True) == [(first, work), (second, work)]
    announcer.check()


def test_a_worker_that_changed_hears_alone() -> None:
    first, second = peers(2)
    announcer = of(first, second)
    assert announcer.wake(first) == []
    announcer.update(("ann",), 1, T0, grew=True)
    announcer.slept(first)
    announcer.slept(second)
    assert announcer.wake(first) == [(first, HasWork(counter=2, owners=("ann",)))]
    assert announcer.update(("ann",), 1, T0, grew=False) == []
    announcer.leave(second)
    announcer.leave(first)
    assert announcer.update((), 0, T0, grew=False) == []
    announcer.check()
