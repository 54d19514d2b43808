"""Results that are brought to their master: how large, and how slowly."""

import pytest

from p2pq.core import effects as fx
from p2pq.core import events as ev
from p2pq.core.collecting import OVERHEAD_BYTES, SLOW_MAX
from p2pq.model.ids import LeaseId
from p2pq.model.job import Limits
from p2pq.wire.objects import BLOB_BYTES_MAX, BlobRef
from tests.unit.core.mesh import (
    ALICE,
    BOB,
    Bench,
    GrantItem,
    Member,
    job_id,
    ready,
    receipt,
    result_item,
    submitted,
)

JOB = job_id()


def granted(**job: object) -> tuple[Bench, GrantItem]:
    bench = Bench()
    bench.tick()
    bench.join(ALICE)
    bench.join(BOB)
    bench.do(submitted(tasks=1, **job))
    (item,) = bench.leases(ALICE)
    return bench, item


def brings(bench: Bench, member: Member, item: GrantItem, size: int = 0) -> list[fx.Effect]:
    blobs = [BlobRef(bytes([number % 256]) * 32, BLOB_BYTES_MAX) for number in range(size // BLOB_BYTES_MAX)]
    return bench.says(member, ready(member, result_item(item, blobs=tuple(blobs))))


def collects(effects: list[fx.Effect]) -> list[LeaseId]:
    return [effect.lease for effect in effects if isinstance(effect, fx.Collect)]


def test_a_worker_that_is_too_slow_again_and_again_has_lost_the_task() -> None:
    bench, item = granted()
    slow = ev.CollectFailed(lease=item.lease, reason="its worker was too slow to bring it", slow=True)
    for _ in range(SLOW_MAX - 1):
        assert collects(brings(bench, ALICE, item)) == [item.lease]
        assert bench.do(slow) == []
        assert bench.leases(BOB) == [], "it may try again"
    assert collects(brings(bench, ALICE, item)) == [item.lease]
    effects = bench.do(slow)
    assert receipt(ALICE, "late", item.lease) in effects
    (task,) = bench.queue.tasks(JOB)
    assert (task.state, task.faults, task.detail) == ("pending", 1, f"deliver: {slow.reason}")
    bench.tick(5.0)
    assert [again.attempt for again in bench.leases(BOB)] == [2]
    assert collects(brings(bench, ALICE, item)) == []


def test_a_link_or_a_disk_that_fails_costs_nothing() -> None:
    bench, item = granted()
    for _ in range(5 * SLOW_MAX):
        assert collects(brings(bench, ALICE, item)) == [item.lease]
        assert bench.do(ev.CollectFailed(lease=item.lease, reason="the disk is full")) == []
    assert bench.leases(BOB) == []


@pytest.mark.parametrize(("beyond", "taken"), [(0, True), (1, False)])
def test_a_result_that_is_larger_than_its_job_allows_is_not_even_fetched(beyond: int, taken: bool) -> None:
    limits = Limits(disk_mb=8, output_mb=4)
    bench, item = granted(limits=limits)
    most = limits.results_bytes + limits.printed_bytes + OVERHEAD_BYTES
    effects = brings(bench, ALICE, item, most + beyond * BLOB_BYTES_MAX)
    assert collects(effects) == [item.lease] * taken
    if not taken:
        assert receipt(ALICE, "refused", item.lease) in effects
        (task,) = bench.queue.tasks(JOB)
        assert task.detail == "deliver: the result: it is larger than the job's limits allow"
