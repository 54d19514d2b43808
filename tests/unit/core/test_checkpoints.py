"""What a master hands on with a grant, and to whom."""

from p2pq.core import checkpoints
from p2pq.core import effects as fx
from p2pq.core.jobs import Task
from p2pq.model.ids import LeaseId
from p2pq.model.job import Outcome
from p2pq.wire import body, seal, sign
from p2pq.wire.objects import Checkpoint, GrantItem
from tests.unit.core.mesh import ALICE, BOB, MASTER, result_item
from tests.unit.core.savekit import JOB, RESULT_KEY, bench_of, bring, checkpoint, handed_on, join, left


def test_what_is_handed_on_opens_for_the_worker_only() -> None:
    bench = bench_of()
    [item] = bench.leases(ALICE)
    bring(bench, ALICE, item, left(item))
    [raw] = handed_on(bench.ask(BOB))
    value = sign.open_signed(raw, Checkpoint, MASTER.node)
    context = body.checkpoint_context(JOB, 0, value.lease)
    assert seal.open_seal(BOB.prekey_secret, value.key, context) == RESULT_KEY


def test_an_older_worker_starts_from_nothing() -> None:
    bench = bench_of()
    [item] = bench.leases(ALICE)
    bring(bench, ALICE, item, left(item))
    join(bench, BOB, minor=1)
    assert handed_on(bench.ask(BOB)) == ()


def test_only_tasks_with_a_checkpoint_get_one() -> None:
    bench = bench_of(tasks=3)
    first, second, _ = bench.leases(ALICE)
    bring(bench, ALICE, first, left(first))
    bring(bench, ALICE, second, result_item(second, Outcome(reason="saved")))
    assert handed_on(bench.ask(BOB)) == (checkpoint(BOB, GrantItem(0, 2, LeaseId(1, 3))),)


def test_a_result_that_does_not_open_is_no_checkpoint() -> None:
    bench = bench_of()
    [item] = bench.leases(ALICE)
    bring(bench, ALICE, item, left(item, key=b"damaged"))
    assert handed_on(bench.ask(BOB)) == ()


def test_an_earlier_attempt_that_ends_last_does_not_set_the_task_back() -> None:
    task, out = Task(), []
    newer, older = (left(GrantItem(0, attempt, LeaseId(1, attempt))) for attempt in (2, 1))
    checkpoints.keep(task, newer, out)
    checkpoints.keep(task, older, out)
    assert (task.checkpoint, out) == (newer, [fx.Forget(lease=older.lease)])
