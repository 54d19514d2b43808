"""What starts in which slot: short attempts of one job go together, and what has not begun behind a long one waits again."""

import msgspec
import pytest

from p2pq.core import effects as fx
from p2pq.core import events as ev
from p2pq.core.running import TRAIN_MAX
from p2pq.model.ids import JobId, LeaseId
from p2pq.model.job import Outcome
from p2pq.wire import messages as msg
from tests.unit.core.workerkit import (
    ANN,
    ME,
    OFFER,
    PROFILE,
    Bench,
    ended,
    granted,
    item,
    job_id,
    manifest,
    ready,
    receipted,
    result_item,
    returned,
    start,
)
from tests.unit.core.workerkit import OWN as OWN_ROOM

SHORT = Outcome(reason="ok", exit=0, run_ms=2)

OWN = manifest(ME, sandbox="none")
NONE = {"member": ME, "of": OWN, "sandbox": "none"}


def exited(*counters: int, outcome: Outcome = SHORT) -> tuple[ev.Exited, ...]:
    """Return the ends of own attempts."""
    return tuple(
        ev.Exited(lease=LeaseId(1, counter), master=ME.node, outcome=outcome, sandbox="none") for counter in counters
    )


def requests(effects: list[fx.Effect]) -> list[msg.Request]:
    return [each.message for each in effects if isinstance(each, fx.Send) and isinstance(each.message, msg.Request)]


ONE_SLOT = ev.Offering(profile=PROFILE, own=msgspec.structs.replace(OWN_ROOM, slots=1))


class Own(Bench):
    """A worker with three slots for own tasks, of which many have ended here already."""

    def __init__(self, took_s: float = 0.002) -> None:
        super().__init__()
        self.join(ME)
        self.worker._means.learn(job_id(), took_s, 200)
        self.worker._means.learn(("run", job_id()), took_s, 200)
        asked = requests(self.work(ME))
        self.asked = [*requests(self.gets(0, asked=asked)), *requests(self.do(exited(0)[0], after=took_s))]

    def gets(self, *counters: int, asked: list[msg.Request] | None = None) -> list[fx.Effect]:
        """Let its master grant so many, in answer to the latest request."""
        items = tuple(item(counter, task=counter) for counter in counters)
        request = (asked or self.asked)[-1]
        return self.says(granted(items, number=int.from_bytes(request.nonce), member=ME, of=OWN), ME)


def trains(effects: list[fx.Effect]) -> list[list[int]]:
    """Return the counters of what starts, slot by slot."""
    found = []
    for each in effects:
        if isinstance(each, fx.Train):
            found.append([start.lease.counter for start in each.starts])
        elif isinstance(each, fx.Start):
            found.append([each.lease.counter])
    return found


@pytest.fixture
def own() -> Own:
    return Own()


def test_short_own_attempts_start_together_a_part_for_each_slot(own: Own) -> None:
    assert trains(own.gets(1, 2, 3, 4)) == [[1, 2], [3], [4]]


def test_a_train_is_told_as_a_whole_and_each_attempt_is_taken(own: Own) -> None:
    own.do(ONE_SLOT)
    effects = own.gets(1, 2)
    orders = [each for counter in (1, 2) for each in start(item(counter, task=counter), **NONE)]
    train = fx.Train(starts=tuple(each for each in orders if isinstance(each, fx.Start)))
    assert [each for each in effects if not isinstance(each, fx.Send)] == [
        train,
        *(each for each in orders if isinstance(each, fx.Emit)),
    ]


def test_what_is_not_known_to_be_short_starts_alone() -> None:
    own = Own(took_s=1.0)
    assert trains(own.gets(1, 2)) == [[1], [2]]


def test_what_takes_its_slot_for_long_only_because_it_came_alone_goes_together_from_then_on() -> None:
    own = Own()
    own.worker._means.learn(job_id(), 0.9, 1000)
    assert trains(own.gets(1, 2, 3, 4)) == [[1, 2], [3], [4]]


def test_short_attempts_of_others_go_together_too() -> None:
    bench = Bench()
    bench.join(ANN)
    bench.worker._means.learn(job_id(), 0.002, 200)
    bench.worker._means.learn(("run", job_id()), 0.002, 200)
    bench.says(granted((item(0),), number=int.from_bytes(requests(bench.work())[-1].nonce)))
    asked = requests(bench.exited(item(0), after=0.002, outcome=SHORT))[-1]
    more = bench.says(granted(tuple(item(each) for each in range(1, 9)), number=int.from_bytes(asked.nonce)))
    assert trains(more) == [[1, 2, 3, 4], [5, 6]], "one part for each slot of what waits"


def test_ends_that_come_together_are_one_message(own: Own) -> None:
    own.gets(1, 2, 3, 4)
    effects = own.do(ev.TrainExited(exits=exited(1, 2)), after=0.004)
    assert [each for each in effects if isinstance(each, fx.Emit)] == [
        ended(item(1, task=1), member=ME),
        ended(item(2, task=2), member=ME),
    ]
    results = [each for each in effects if isinstance(each, fx.Send) and isinstance(each.message, msg.ResultReady)]
    items = [result_item(item(each, task=each), SHORT, sandbox="none") for each in (1, 2)]
    assert results == [ready(*items, member=ME)]
    assert own.worker._means.get(JobId(job_id())) == pytest.approx(0.002), "4 ms for two of them"


def test_what_has_not_begun_behind_a_long_one_waits_for_the_next_slot(own: Own) -> None:
    own.gets(1, 2, 3, 4)
    assert trains(own.do(ev.TrainExited(exits=(), back=((ME.node, LeaseId(1, 2)),)), after=0.05)) == []
    assert trains(own.do(exited(3)[0], after=0.01)) == [[2]], "it goes before all others, on any slot"
    assert trains(own.do(ev.TrainExited(exits=exited(1)), after=0.01)) == []


def test_what_is_given_back_that_is_not_held_or_has_a_slot_of_its_own_changes_nothing(own: Own) -> None:
    own.gets(1, 2, 3, 4)
    odd = ((ME.node, LeaseId(1, 3)), (ME.node, LeaseId(9, 9)), (ANN.node, LeaseId(1, 1)))
    assert own.do(ev.TrainExited(exits=exited(77), back=odd)) == []
    assert {guest.state for guest in own.worker.guests(own.now)} == {"starting"}


def test_a_train_is_bounded() -> None:
    own = Own(took_s=0.0001)
    own.do(ONE_SLOT)
    assert [len(each) for each in trains(own.gets(*range(1, 100)))] == [TRAIN_MAX]


def test_receipts_release_what_ended_together(own: Own) -> None:
    own.gets(1, 2, 3, 4)
    own.do(ev.TrainExited(exits=exited(1, 2)), after=0.004)
    effects = own.says(receipted(LeaseId(1, 1), LeaseId(1, 2), member=ME), ME)
    assert [each.lease.counter for each in effects if isinstance(each, fx.Release)] == [1, 2]


def test_what_may_have_lost_its_runner_runs_alone_from_then_on(own: Own) -> None:
    own.do(ONE_SLOT)
    assert trains(own.gets(1, 2, 3)) == [[1, 2, 3]]
    back = tuple((ME.node, LeaseId(1, counter)) for counter in (1, 2, 3))
    assert trains(own.do(ev.TrainExited(exits=(), back=back, apart=True))) == [[1]]
    assert trains(own.do(exited(1)[0], after=0.01)) == [[2]]


def test_what_is_given_back_while_the_node_goes_down_goes_back_to_its_master(own: Own) -> None:
    own.do(ONE_SLOT)
    own.gets(1, 2, 3)
    own.do(ev.Drain(now=False))
    effects = own.do(ev.TrainExited(exits=(), back=((ME.node, LeaseId(1, 2)), (ME.node, LeaseId(1, 3)))))
    assert trains(effects) == []
    assert returned("draining", item(2, task=2), item(3, task=3), member=ME) in effects


class Theirs(Bench):
    """A worker with one slot, which holds a train of four short attempts of ann's job."""

    def __init__(self) -> None:
        super().__init__()
        one_slot = msgspec.structs.replace(PROFILE, slots=1)
        self.join(ANN, offer=ev.Offering(profile=one_slot, own=OWN_ROOM))
        for key in (job_id(), "ann", ("run", job_id())):
            self.worker._means.learn(key, 0.002, 200)
        first = requests(self.work())[-1]
        self.says(granted((item(0),), number=int.from_bytes(first.nonce)))
        asked = requests(self.exited(item(0), after=0.0, outcome=SHORT))[-1]
        self.begun = self.says(granted(tuple(map(item, range(1, 5))), number=int.from_bytes(asked.nonce)))

    def ends(self, *counters: int, back: tuple[int, ...] = (), after: float) -> list[fx.Effect]:
        exits = tuple(
            ev.Exited(lease=LeaseId(1, each), master=ANN.node, outcome=SHORT, sandbox="strict") for each in counters
        )
        returned = tuple((ANN.node, LeaseId(1, each)) for each in back)
        return self.do(ev.TrainExited(exits=exits, back=returned), after=after)

    @property
    def paid_s(self) -> float:
        """Return what ann has had of this worker, and what is expected of what runs, but not of what waits."""
        fairness = self.worker._accounts[False]
        waiting = [each for key, each in fairness._charges.items() if key not in fairness._running]
        return fairness.given(self.now)["ann"] - sum(each.expected_s * each.cpus for each in waiting)


def test_an_owner_is_charged_for_the_slot_of_a_train_once() -> None:
    theirs = Theirs()
    assert trains(theirs.begun) == [[1, 2, 3, 4]]
    theirs.ends(1, 2, after=0.25)
    assert theirs.paid_s == pytest.approx(0.25, abs=0.003)
    theirs.ends(3, after=0.5)
    theirs.ends(4, after=0.125)
    assert theirs.paid_s == pytest.approx(0.875, abs=0.003)


def test_what_did_not_begin_on_a_train_is_charged_from_when_it_has_a_slot() -> None:
    theirs = Theirs()
    theirs.ends(back=(2, 3), after=0.25)
    assert theirs.paid_s == pytest.approx(0.25, abs=0.003), "the first runs"
    assert trains(theirs.ends(1, 4, after=0.25)) == [[2, 3]]
    assert theirs.paid_s == pytest.approx(0.5, abs=0.003)
    assert trains(theirs.ends(back=(2, 3), after=0.25)) == [[2, 3]], "none of them could begin"
    assert theirs.paid_s == pytest.approx(0.75, abs=0.003), "their slot was taken meanwhile"


def test_a_sleep_is_no_time_of_anybody_on_a_train() -> None:
    theirs = Theirs()
    theirs.do(ev.Woke(slept_s=100.0, counted=True), after=100.25)
    theirs.ends(1, 2, 3, 4, after=0.25)
    assert theirs.paid_s == pytest.approx(0.25, abs=0.003), "they stand still until ann says that they are ours"


# -- what has ended leaves its slot before its result is kept


def vacates(bench: Bench, counter: int, *, after: float = 0.0) -> list[fx.Effect]:
    return bench.do(ev.Vacated(lease=LeaseId(1, counter), master=ANN.node), after=after)


def full() -> Bench:
    """Return a worker that runs two attempts of ann's, in all its slots, and holds another ahead."""
    bench = Bench()
    bench.do(OFFER)
    bench.do(ANN.link())
    bench.work()
    bench.says(granted((item(1),)))
    bench.do(ev.Started(lease=LeaseId(1, 1), master=ANN.node))
    bench.exited(item(1), after=0.125)
    bench.says(granted((item(2),), number=2))
    bench.says(granted((item(3), item(4)), number=3))
    assert states(bench) == ["starting", "starting", "waiting"]
    for counter in (2, 3):
        bench.do(ev.Started(lease=LeaseId(1, counter), master=ANN.node))
    return bench


def states(bench: Bench) -> list[str]:
    return [guest.state for guest in bench.worker.guests(bench.now)]


def test_the_next_one_starts_while_the_result_of_the_last_is_packed() -> None:
    bench = full()
    assert states(bench) == ["running", "running", "waiting"]
    assert vacates(bench, 2, after=0.5)[:2] == start(item(4))
    assert states(bench) == ["packing", "running", "starting"]
    effects = bench.exited(item(2), after=0.25)
    assert effects[0] == ended(item(2))
    assert ready(result_item(item(2))) in effects
    assert trains(effects) == [], "its slot was given away before"
    assert states(bench) == ["running", "starting"]


def test_an_owner_is_charged_for_the_slot_only_for_as_long_as_it_was_taken() -> None:
    bench = full()
    vacates(bench, 2, after=0.5)
    assert [guest.since_s for guest in bench.worker.guests(bench.now)] == pytest.approx([0.5, 0.5, 0.0])
    bench.exited(item(3))
    bench.exited(item(4))
    bench.exited(item(2), after=10.0)
    # The first took an eighth of a second; the others half a second each, half a second, and nothing.
    assert not bench.worker._slots
    requested_s = sum(each.expected_s for each in bench.worker._accounts[False]._charges.values())
    assert bench.worker._accounts[False].given(bench.now)["ann"] - requested_s == pytest.approx(1.125, abs=0.01)
    assert bench.worker._means.get(job_id()) == pytest.approx(0.3, abs=0.2), "nothing of the ten seconds"


def test_as_many_may_be_packed_as_there_are_slots() -> None:
    bench = full()
    vacates(bench, 2)
    vacates(bench, 3)
    bench.do(ev.Started(lease=LeaseId(1, 4), master=ANN.node))
    vacates(bench, 4)
    assert states(bench) == ["packing", "packing", "running"]
    bench.exited(item(2))
    vacates(bench, 4)
    assert states(bench) == ["packing", "packing"]


def test_what_is_not_held_waits_or_has_left_its_slot_leaves_none() -> None:
    bench = full()
    assert vacates(bench, 77) == []
    assert vacates(bench, 4) == []
    vacates(bench, 2)
    assert vacates(bench, 2) == []
    assert states(bench) == ["packing", "running", "starting"]


def test_one_of_a_train_leaves_no_slot(own: Own) -> None:
    own.gets(1, 2, 3, 4)
    assert own.do(ev.Vacated(lease=LeaseId(1, 1), master=ME.node)) == []
    assert {guest.state for guest in own.worker.guests(own.now)} == {"starting"}


def test_own_tasks_leave_their_slots_too() -> None:
    own = Own(took_s=1.0)
    own.do(ONE_SLOT)
    assert trains(own.gets(1, 2)) == [[1]]
    assert trains(own.do(ev.Vacated(lease=LeaseId(1, 1), master=ME.node))) == [[2]]
    assert trains(own.do(exited(1)[0], after=1.0)) == []


def test_what_left_its_slot_can_fail_and_be_cancelled() -> None:
    bench = full()
    vacates(bench, 2)
    vacates(bench, 3)
    failed = bench.do(ev.Faulted(lease=LeaseId(1, 2), master=ANN.node, fault="disk", detail="full"))
    assert returned("disk", item(2), detail="full") in failed
    cancelled = bench.says(msg.Cancel(leases=(LeaseId(1, 3),)))
    assert fx.Kill(lease=LeaseId(1, 3), master=ANN.node, reason="cancelled") in cancelled
    assert states(bench) == ["starting"]
    bench.worker.check()


def test_a_lease_is_renewed_until_the_result_is_kept() -> None:
    bench = full()
    vacates(bench, 2)
    beats = {
        beat.lease: beat.running
        for effect in bench.tick(after=20.0)
        if isinstance(effect, fx.Send) and isinstance(effect.message, msg.Heartbeat)
        for beat in effect.message.beats
    }
    assert beats[LeaseId(1, 2)] is True
