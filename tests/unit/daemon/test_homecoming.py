"""Results on their way home: what a hostile worker can send."""

import asyncio
import os
from types import SimpleNamespace

import msgspec
import pytest

from p2pq.core.effects import Collect, Deliver, Forget
from p2pq.core.events import Collected, CollectFailed, Delivered
from p2pq.core.placement import TaskSnapshot
from p2pq.core.records import Restored
from p2pq.daemon import homecoming
from p2pq.daemon.blobstore import BlobStore
from p2pq.daemon.homecoming import Homecoming
from p2pq.daemon.unpack import collect
from p2pq.errors import LinkError
from p2pq.model import notice as facts
from p2pq.model.ids import LeaseId, NodeId
from p2pq.model.job import Outcome
from p2pq.wire import body as bodies
from p2pq.wire import prims, seal
from p2pq.wire.body import ResultBody
from p2pq.wire.objects import BlobRef, ResultItem
from p2pq.wire.tree import PLAIN_MAX, File, Part, Tree, TreeLimits, seal_chunk
from tests.unit.core.mesh import submitted
from tests.unit.daemon.jobskit import AUTHOR, Transfers, id_of
from tests.unit.daemon.storekit import WORKER

REPLY = b"r" * 32
LEASE = LeaseId(1, 2)


class Bench:
    """A master that collects one result."""

    def __init__(self, tmp_path, tasks):
        self.folder = tmp_path
        self.blobs = BlobStore(tmp_path / "blobs", quota_bytes=1 << 30, reserve_bytes=0)
        self.events = asyncio.Queue()
        self.item = None
        self.home = Homecoming(
            node=NodeId(b"m" * 32),
            store=SimpleNamespace(
                secret=lambda _job: SimpleNamespace(reply_secret=REPLY, manifest=submitted().manifest)
            ),
            blobs=self.blobs,
            transfers=None,
            scheduler=SimpleNamespace(collecting=lambda _lease: self.item),
            tasks=tasks,
            post=self.events.put_nowait,
            in_trouble=pytest.fail,
        )

    def tree(self, name="out.txt"):
        source = self.folder / "source"
        (source / name).parent.mkdir(parents=True)
        (source / name).write_text("42")
        found, _ = collect(source, TreeLimits(), self.blobs.put, lambda _: os.urandom(32))
        return found

    def result(self, tree, key=b"k" * 32, detail="", skipped=(), **changes):
        body = ResultBody(tree=tree, output=Tree(), detail=detail, skipped=skipped)
        refs, parts = bodies.encrypt(b"k" * 32, body)
        for ref, part in zip(refs, parts, strict=True):
            self.blobs.put(ref.blob, part)
        context = bodies.result_context(b"j" * 16, 0, 1, LEASE)
        fields = {
            "job": b"j" * 16,
            "task": 0,
            "attempt": 1,
            "lease": LEASE,
            "outcome": Outcome(reason="ok"),
            "sandbox": "strict",
            "key": seal.seal(prims.x25519_public(REPLY), key, context, os.urandom),
            "body": refs,
            "blobs": bodies.tree_refs(tree),
        }
        self.item = ResultItem(**(fields | changes))
        return self.item

    async def collect(self, through=None):
        item = self.item
        blobs = (*item.body, *item.blobs)
        self.home.collect(Collect(lease=LEASE, peer=NodeId(b"w" * 32), blobs=blobs, through=through))
        return await self.events.get()


@pytest.fixture
async def bench(tmp_path):
    async with asyncio.TaskGroup() as tasks:
        yield Bench(tmp_path, tasks)


async def test_an_honest_result_counts(bench):
    bench.result(bench.tree())
    assert await bench.collect() == Collected(lease=LEASE)


async def test_a_result_of_a_leaf_is_brought_through_its_bridge(bench):
    item = bench.result(bench.tree())
    bench.home._transfers = transfers = Transfers(bench.blobs)
    absent = BlobRef(prims.blob_id(b"x"), 1)
    transfers.has = {absent.blob: b"x"}
    bench.item = msgspec.structs.replace(item, blobs=(*item.blobs, absent))
    assert await bench.collect(through=NodeId(b"g" * 32)) == Collected(lease=LEASE)
    assert transfers.asked == [(NodeId(b"w" * 32), NodeId(b"g" * 32))]


@pytest.mark.parametrize(
    ("outcome", "detail", "told"),
    [
        (Outcome(reason="ok", exit=0), "it exited with status 0", ""),
        (Outcome(reason="exit", exit=3), "it exited with status 3", ""),
        (Outcome(reason="exit", exit=0), "results is a link now\x1b[31m", "results is a link now\ufffd[31m"),
        (Outcome(reason="memory-limit"), "it used too much", "it used too much"),
    ],
)
async def test_what_a_result_says_for_people_is_told_on(bench, outcome, detail, told):
    skipped = ("pipe\n: is a pipe", *(f"{number}: is a socket" for number in range(24)))
    bench.result(bench.tree(), outcome=outcome, detail=detail, skipped=skipped)
    event = await bench.collect()
    assert (event.detail, event.skipped[0], event.skipped[-1]) == (told, "pipe\ufffd: is a pipe", "and 5 more")
    assert len(event.skipped) == 21


async def test_a_result_that_does_not_open_never_counts(bench):
    bench.result(bench.tree(), key=b"x" * 32)
    event = await bench.collect()
    assert isinstance(event, CollectFailed)
    assert event.refused
    assert not bench.blobs._tags


async def test_a_result_whose_tree_escapes_never_counts(bench):
    tree = bench.tree()
    evil = msgspec.structs.replace(tree, files=(File("../../.bashrc", False, 2, tree.files[0].parts),))
    bench.result(evil)
    event = await bench.collect()
    assert isinstance(event, CollectFailed)
    assert event.refused


async def test_a_result_that_does_not_bring_what_it_names_never_counts(bench):
    bench.result(bench.tree(), blobs=())
    event = await bench.collect()
    assert isinstance(event, CollectFailed)
    assert event.refused
    assert "did not bring" in event.reason


async def test_a_result_without_the_checkpoint_that_it_promises_never_counts(bench):
    bench.result(bench.tree(), checkpoint=True, outcome=Outcome(reason="exit", exit=1))
    event = await bench.collect()
    assert isinstance(event, CollectFailed)
    assert event.refused
    assert "checkpoint that it promises" in event.reason


async def test_a_result_with_its_checkpoint_counts_and_is_held_until_it_is_forgotten(bench):
    bench.result(bench.tree(".checkpoint/state"), checkpoint=True, outcome=Outcome(reason="saved"))
    assert await bench.collect() == Collected(lease=LEASE)
    assert list(bench.blobs._tags) == [("result", LEASE), ("checkpoint", LEASE)]
    bench.home.forget(Forget(lease=LEASE))
    assert not bench.blobs._tags


async def test_a_result_that_is_larger_than_its_job_allows_never_counts(bench):
    """A few kilobytes that say four hundred gigabytes: nothing of it is ever written."""
    zeros, ciphertext = seal_chunk(bytes(PLAIN_MAX), lambda _: b"k" * 32)
    bench.blobs.put(zeros.blob, ciphertext)
    many = (Part(0, 0, PLAIN_MAX),) * 500
    files = tuple(File(f"f{number}", False, 500 * PLAIN_MAX, many) for number in range(200))
    bench.result(Tree(files=files, chunks=(zeros,)))
    event = await bench.collect()
    assert isinstance(event, CollectFailed)
    assert event.refused
    assert "too many bytes" in event.reason
    assert not bench.blobs._tags


class Dripping:
    """A worker that brings a blob now and then, and never the last one."""

    def __init__(self, blobs, every_s):
        self.blobs = blobs
        self.every_s = every_s
        self.brought = 0

    async def fetch(self, _peer, missing, *, through=None):
        for _ in missing[:-1]:
            await asyncio.sleep(self.every_s)
            self.brought += 1
        await asyncio.sleep(3600)


@pytest.mark.slow
async def test_who_is_too_slow_to_bring_a_result_is_told_so(bench, monkeypatch):
    """A blob per moment is no progress; bytes at the asked pace are."""
    monkeypatch.setattr(homecoming, "COLLECT_S", 0.2)
    monkeypatch.setattr(homecoming, "LOOK_S", 0.02)
    bench.home._transfers = drip = Dripping(bench.blobs, 0.05)
    item = bench.result(bench.tree())
    absent = tuple(BlobRef(os.urandom(32), 1000) for _ in range(100))
    bench.item = msgspec.structs.replace(item, blobs=(*item.blobs, *absent))
    assert await bench.collect() == CollectFailed(lease=LEASE, reason="its worker was too slow to bring it", slow=True)
    assert 1 <= drip.brought <= 5
    assert not bench.blobs._tags
    have, now = set(), asyncio.get_running_loop().time()
    monkeypatch.setattr(homecoming, "COLLECT_BYTES_S", 1000)
    monkeypatch.setattr(bench.blobs, "has", have.__contains__)

    async def fetch(_peer, missing, *, through=None):
        for blob, _ in missing[:2]:
            have.add(blob)
        await asyncio.sleep(3600)

    drip.fetch = fetch
    bench.item = msgspec.structs.replace(bench.item, blobs=tuple(BlobRef(os.urandom(32), 200) for _ in range(9)))
    assert (await bench.collect()).slow
    assert asyncio.get_running_loop().time() - now >= 0.5, "0.2 s, and 0.2 s for each blob that came"


# -- what failed attempts printed -----------------------------------------------------------------------------------------

BAD = Outcome(reason="exit", exit=3)


def pinned(rig, tag):
    return rig.blobs._tags.get(tag, set())


async def settled():
    """Wait for what was begun."""
    for task in [task for task in asyncio.all_tasks() if task.get_name().startswith("keep output")]:
        await task


async def failed_once(rig, folder):
    job = id_of(rig, await rig.submit(folder))
    rig.scheduler.task = lambda job, task: TaskSnapshot(task=task, state="pending")
    item = await rig.settle(job, 0, "pending", BAD, printed="what went wrong")
    rig.blobs.pin(("result", item.lease), [ref.blob for ref in (*item.body, *item.blobs)])
    return job, item


async def test_what_a_failed_attempt_printed_is_held_while_its_job_lives(rig, folder):
    job, item = await failed_once(rig, folder)
    rig.jobs.notice(facts.AttemptFailed(job=job, task=0, attempt=1, worker=WORKER, outcome=BAD))
    await settled()
    assert not pinned(rig, ("result", item.lease))
    assert pinned(rig, ("outputs", job)) == {ref.blob for ref in (*item.body, *item.blobs)}
    final = await rig.settle(job, 0, "failed", BAD, attempt=2, printed="again")
    told = facts.TaskSettled(job=job, task=0, attempt=2, state="failed", worker=WORKER, outcome=BAD)
    rig.jobs.notice(told)
    await settled()
    assert pinned(rig, ("outputs", job)) > {ref.blob for ref in final.body}
    rig.jobs.notice(facts.JobFinished(job=job, state="failed"))
    assert pinned(rig, ("outputs", job)) == pinned(rig, job) == set()


async def test_it_is_held_again_after_a_start(rig, folder):
    job, item = await failed_once(rig, folder)
    rig.jobs.home.pin_live(Restored())
    await settled()
    assert pinned(rig, ("outputs", job))
    assert {ref.blob for ref in item.body} <= pinned(rig, ("outputs", job))


async def test_it_is_held_in_part_of_the_store_only_and_not_for_jobs_that_are_over(rig, folder, monkeypatch):
    job, item = await failed_once(rig, folder)
    notice = facts.AttemptFailed(job=job, task=0, attempt=1, worker=WORKER, outcome=BAD)
    monkeypatch.setattr(homecoming, "OUTPUTS_SHARE", 1 << 40)
    rig.jobs.notice(notice)
    await settled()
    assert not pinned(rig, ("result", item.lease))
    assert not pinned(rig, ("outputs", job))
    monkeypatch.undo()
    rig.scheduler.task = lambda job, task: None
    rig.blobs.pin(("result", item.lease), [ref.blob for ref in item.body])
    rig.jobs.notice(notice)
    await settled()
    assert not pinned(rig, ("result", item.lease))
    assert not pinned(rig, ("outputs", job))


async def test_output_that_is_gone_is_no_trouble(rig, folder):
    job, item = await failed_once(rig, folder)
    rig.blobs.unpin(("result", item.lease))
    rig.blobs.discard([ref.blob for ref in item.body])
    rig.blobs.pin(("result", item.lease), [ref.blob for ref in item.blobs])
    rig.jobs.notice(facts.AttemptFailed(job=job, task=0, attempt=1, worker=WORKER, outcome=BAD))
    await settled()
    assert not pinned(rig, ("result", item.lease))
    rig.jobs.notice(facts.AttemptFailed(job=job, task=0, attempt=9, worker=WORKER, outcome=BAD))
    rig.store.secret = lambda job: None
    assert rig.jobs.home._output_of(item) == {}


async def test_what_this_node_lacks_of_its_own_results_runs_again(rig, folder):
    """It lost power after the result was known, before its blobs were on the disk: there is nobody else to ask."""
    view = await rig.submit(folder)
    item, blobs = rig.result(id_of(rig, view), store=False)
    rig.scheduler.collecting = lambda lease: item
    rig.transfers.error = LinkError("the node is not linked")
    named = tuple(BlobRef(blob, len(part)) for blob, part in blobs.items())
    for peer, refused in ((AUTHOR.node, True), (WORKER, False)):
        rig.jobs.home.collect(Collect(peer=peer, lease=LEASE, blobs=named, inline=()))
        event = await rig.event()
        assert (type(event), event.refused) == (CollectFailed, refused)


async def test_results_of_this_very_node_are_made_durable_together(bench):
    bench.result(bench.tree())
    synced = []
    sync = bench.blobs.sync
    bench.blobs.sync = lambda blobs: synced.append(set(blobs)) or sync(blobs)
    names = {ref.blob for ref in (*bench.item.body, *bench.item.blobs)}
    leases = [LeaseId(1, each) for each in range(3)]
    for lease in leases:
        refs = (*bench.item.body, *bench.item.blobs)
        bench.home.collect(Collect(lease=lease, peer=NodeId(b"m" * 32), blobs=refs))
    context = [await bench.events.get()]
    while sum(len(each.events) for each in context) < 3:
        context.append(await bench.events.get())
    told = [event for each in context for event in each.events]
    assert told == [Collected(lease=lease) for lease in leases]
    assert synced == [names] * len(context)
    assert len(context) <= 2, "what came in one turn of the loop goes together"


async def test_of_which_of_them_a_result_does_not_open_is_found_out(bench):
    good = bench.result(bench.tree())
    bad = msgspec.structs.replace(good, key=os.urandom(len(good.key)))
    items = {LeaseId(1, 1): good, LeaseId(1, 2): bad}
    bench.home._scheduler = SimpleNamespace(collecting=items.get)
    for lease, item in items.items():
        bench.home.collect(Collect(lease=lease, peer=NodeId(b"m" * 32), blobs=(*item.body, *item.blobs)))
    told = sorted([await bench.events.get() for _ in items], key=lambda event: event.lease)
    assert told[0] == Collected(lease=LeaseId(1, 1))
    assert isinstance(told[1], CollectFailed)
    assert told[1].refused


async def test_results_that_go_nowhere_are_where_they_belong_all_at_once(bench):
    bench.home._stays = {b"j" * 16: True}
    bench.home._store = SimpleNamespace(result=lambda _job, _task: None)
    for task in (0, 1):
        bench.home.deliver(Deliver(job=b"j" * 16, task=task))
    told = await bench.events.get()
    assert [(type(each), each.task) for each in told.events] == [(Delivered, 0), (Delivered, 1)]
