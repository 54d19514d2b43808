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
    OK,
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

OWN = manifest(ME, sandbox="none")
NONE = {"member": ME, "of": OWN, "sandbox": "none"}


def exited(*counters: int, outcome: Outcome = OK) -> tuple[ev.Exited, ...]:
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


def test_attempts_of_others_start_alone() -> None:
    bench = Bench()
    bench.join(ANN)
    bench.worker._means.learn(job_id(), 0.002, 200)
    bench.worker._means.learn(("run", job_id()), 0.002, 200)
    bench.says(granted((item(0),), number=int.from_bytes(requests(bench.work())[-1].nonce)))
    asked = requests(bench.exited(item(0), after=0.002))[-1]
    more = bench.says(granted(tuple(item(each) for each in range(1, 9)), number=int.from_bytes(asked.nonce)))
    assert trains(more) == [[1], [2]]


def test_ends_that_come_together_are_one_message(own: Own) -> None:
    own.gets(1, 2, 3, 4)
    effects = own.do(ev.TrainExited(exits=exited(1, 2)), after=0.004)
    assert [each for each in effects if isinstance(each, fx.Emit)] == [
        ended(item(1, task=1), member=ME),
        ended(item(2, task=2), member=ME),
    ]
    results = [each for each in effects if isinstance(each, fx.Send) and isinstance(each.message, msg.ResultReady)]
    items = [result_item(item(each, task=each), sandbox="none") for each in (1, 2)]
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
