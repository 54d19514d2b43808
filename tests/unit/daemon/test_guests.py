"""Attempts of others: what a hostile master or task can do to the node that runs them. The sandbox is tested elsewhere."""

import asyncio
import os
import signal
from pathlib import Path

import msgspec
import pytest

from p2pq.core.effects import Continue, Fetch, Kill, Suspend, Train
from p2pq.core.events import Exited, Faulted, Started, Vacated
from p2pq.daemon import gpus, launching, sealing
from p2pq.daemon import guests as module
from p2pq.daemon.attempt import Outcome, exited
from p2pq.daemon.blobstore import BlobStore
from p2pq.daemon.delivery import open_result
from p2pq.daemon.environments import Environment
from p2pq.daemon.guests import Guests
from p2pq.daemon.jobpython import JobPython
from p2pq.daemon.sandbox import Mount
from p2pq.daemon.unpack import collect
from p2pq.errors import BuildError
from p2pq.model.config import RunnerSettings
from p2pq.model.ids import JobId, LeaseId, NodeId
from p2pq.model.job import Resources
from p2pq.model.params import Axis
from p2pq.model.sources import Source
from p2pq.wire import body as bodies
from p2pq.wire.body import CommandsBody, JobBody, ResultBody
from p2pq.wire.objects import BlobRef
from p2pq.wire.tree import PLAIN_MAX, File, Part, Tree, TreeLimits, seal_chunk
from tests.unit.daemon.guestkit import REPLY, NoEnvironments, result_of, start_of

ALICE, MALLORY = NodeId(b"a" * 32), NodeId(b"m" * 32)
JOB = JobId(b"j" * 16)


class Pool:
    """Runs nothing: fills a folder, remembers what it saw, collects what ``left`` leaves."""

    python = JobPython(executable=Path("/usr/bin/python3"), prefixes=(), version="3")

    def __init__(self, folder):
        self.folder = folder
        self.launches = []
        self.seen = []
        self.left = lambda _folder: None
        self.told = asyncio.Queue()
        self.holds = []
        self.reason = "ok"
        self.quiets = []
        self.vacates = False
        self.go_on = asyncio.Event()
        self.go_on.set()

    async def kill(self, lease, reason, detail="", grace_s=0.0, number=15):
        self.reason = reason
        self.told.put_nowait((lease, reason, detail, grace_s, number))
        self.go_on.set()

    def quiet(self, *, still):
        self.quiets.append(still)

    def hold(self, lease, *, still):
        self.holds.append((lease, still))

    async def run(self, launch):
        self.launches.append(launch)
        job, out = (self.folder / f"{name}{len(self.launches)}" for name in ("job", "out"))
        job.mkdir()
        out.mkdir()
        if launch.furniture is not None:
            launch.furniture.write(job)
        if launch.populate is not None:
            launch.populate(job)
        main = job / "main.py"
        self.seen.append(main.read_text() if main.exists() else "")
        await self.go_on.wait()
        self.left(job)
        for name in ("stdout", "stderr"):
            (out / name).write_text("")
        outcome = Outcome(
            exit=0,
            signal=None,
            seconds=0.1,
            max_rss=1,
            reason=self.reason,
            detail=exited(0),
            stdout=out / "stdout",
            stderr=out / "stderr",
        )
        if self.vacates:
            launch.on_vacated()
        result = launch.collect(job, outcome)
        if launch.secure is not None:
            launch.secure(result)
        return outcome, result


class Transfers:
    def __init__(self):
        self.fetches = []
        self.begun = asyncio.Event()
        self.go_on = asyncio.Event()

    async def fetch(self, peer, blobs, *, shared):
        self.fetches.append((peer, blobs))
        self.begun.set()
        await self.go_on.wait()


class Bench:
    def __init__(self, tmp_path, tasks):
        self.folder = tmp_path
        self.blobs = BlobStore(tmp_path / "blobs", quota_bytes=1 << 30, reserve_bytes=0)
        self.events = asyncio.Queue()
        self.pool = Pool(tmp_path)
        self.environments = NoEnvironments()
        self.transfers = Transfers()
        self.guests = Guests(
            node=NodeId(b"w" * 32),
            name="worker",
            blobs=self.blobs,
            transfers=self.transfers,
            pool=self.pool,
            environments=self.environments,
            settings=RunnerSettings(),
            memory_mb=64,
            tasks=tasks,
            post=self.events.put_nowait,
        )

    def start(self, master, text, number, **changes):
        """Return the Start of a job whose main.py holds ``text``, its blobs being here already."""
        source = self.folder / f"source{number}"
        source.mkdir()
        (source / "main.py").write_text(text)
        tree, _ = collect(source, TreeLimits(), self.blobs.put, lambda _: os.urandom(32))
        key = os.urandom(32)
        fields = {"main": "main.py", "kind": "python", "tree": tree, **changes}
        refs, parts = bodies.encrypt(key, JobBody(**fields))
        for ref, part in zip(refs, parts, strict=True):
            self.blobs.put(ref.blob, part)
        return start_of(
            master=master, lease=LeaseId(1, number), job=JOB, key=key, body=refs, blobs=bodies.tree_refs(tree)
        )

    async def run(self, start):
        """Run it; return how it ended."""
        self.guests.start(start)
        while True:
            event = await self.events.get()
            if isinstance(event, Exited | Faulted):
                return event

    def result(self, start, event):
        return open_result(result_of(start, event), REPLY, self.blobs, start.limits)


@pytest.fixture
async def bench(tmp_path):
    async with asyncio.TaskGroup() as tasks:
        yield Bench(tmp_path, tasks)


async def test_two_masters_that_use_one_job_id_get_neither_the_others_program_nor_its_sandbox(bench):
    assert isinstance(await bench.run(bench.start(MALLORY, "print('false')", 1)), Exited)
    assert isinstance(await bench.run(bench.start(ALICE, "print('true')", 2)), Exited)
    assert bench.pool.seen == ["print('false')", "print('true')"]
    assert bench.pool.launches[0].job != bench.pool.launches[1].job


async def test_inputs_of_guests_leave_room_for_the_owner_of_the_machine(bench):
    start = bench.start(ALICE, "pass", 1)
    huge = msgspec.structs.replace(start, blobs=(BlobRef(b"h" * 32, (1 << 29) + 1),))
    event = await bench.run(huge)
    assert (event.fault, event.detail) == (
        "refused",
        "the files of others' jobs would take more than half of [store] blobs_mb here",
    )
    assert not bench.transfers.fetches
    assert isinstance(await bench.run(start), Exited)


async def test_a_script_of_many_tasks_may_start_warm(bench):
    def of(number, tasks, **changes):
        return msgspec.structs.replace(
            bench.start(NodeId(bytes([number]) * 32), "pass", number, **changes), tasks=tasks
        )

    for start in (of(1, 2), of(2, 1), of(3, 2, kind="python-cold"), of(4, 2, kind="shell")):
        await bench.run(start)
    assert [launch.warm for launch in bench.pool.launches] == [True, False, False, False]
    assert [launch.argv[1] for launch in bench.pool.launches] == ["main.py"] * 4


async def test_a_job_is_opened_once(bench, monkeypatch):
    opened = []
    decrypt = bodies.decrypt_job
    monkeypatch.setattr(module.bodies, "decrypt_job", lambda *args: opened.append(1) or decrypt(*args))
    first = bench.start(ALICE, "pass", 1)
    await bench.run(first)
    await bench.run(first)
    assert len(opened) == 1


async def test_what_was_opened_already_is_not_opened(bench, monkeypatch):
    monkeypatch.setattr(module, "open_job", lambda *_args: pytest.fail("it is known"))
    start = bench.start(NodeId(b"w" * 32), "pass", 1)
    bench.guests.opened(start.job, CommandsBody(words=("echo",), shell=False, cwd="/", environment=b""))
    await bench.run(start)
    assert bench.pool.launches[0].argv == ("echo",)


async def test_opened_bodies_together_stay_small(bench, monkeypatch):
    monkeypatch.setattr(module, "ENTRIES_KEPT_MAX", 10)
    for number in range(4):
        args = ("x",) * 6
        start = bench.start(NodeId(bytes([number]) * 32), "pass", number, args=args)
        await bench.run(start)
        assert len(bench.guests._bodies) <= 1
    await bench.run(bench.start(ALICE, "pass", 9, args=("y",) * 20))
    assert not bench.guests._bodies
    assert bench.guests._entries == 0


async def test_a_prefetch_of_one_master_does_not_stand_in_for_that_of_another(bench):
    refs = bench.start(ALICE, "pass", 1).blobs
    bench.blobs.discard([ref.blob for ref in refs])
    for master in (MALLORY, MALLORY, ALICE):
        bench.guests.fetch(Fetch(master=master, job=JOB, blobs=refs))
    bench.transfers.go_on.set()
    await asyncio.wait(tuple(bench.guests._prefetching.values()))
    assert [peer for peer, _ in bench.transfers.fetches] == [MALLORY, ALICE]


async def test_arguments_that_grow_without_bound_end_the_attempt(bench):
    axes = (Axis("x", ("v" * 60_000,)),)
    event = await bench.run(bench.start(MALLORY, "pass", 1, args=("{x}" * 10_000,), axes=axes))
    assert isinstance(event, Faulted)
    assert "longer than" in event.detail


async def test_results_beyond_a_limit_are_the_tasks_own_failure_and_are_named(bench, monkeypatch):
    monkeypatch.setattr(sealing, "TreeLimits", lambda **_: TreeLimits(entries_max=3))

    def litter(folder):
        for number in range(5):
            (folder / f"results/{number}").touch()

    bench.pool.left = litter
    start = bench.start(ALICE, "pass", 1)
    event = await bench.run(start)
    assert isinstance(event, Exited)
    assert event.outcome.reason == "disk-limit"
    body = bench.result(start, event)
    assert "too many files" in body.detail
    assert not body.tree.files
    assert body.detail.endswith("nothing of them was taken along")


@pytest.mark.parametrize(("ended", "reason"), [("ok", "exit"), ("time-limit", "time-limit")])
async def test_results_that_were_replaced_are_the_tasks_failure(bench, ended, reason):
    def replace(folder):
        (folder / "results").rmdir()
        (folder / "results").symlink_to("elsewhere")

    bench.pool.left = replace
    bench.pool.reason = ended
    start = bench.start(ALICE, "pass", 1)
    event = await bench.run(start)
    assert event.outcome.reason == reason
    assert not event.outcome.ok
    assert "results is a link now" in bench.result(start, event).detail


async def test_results_of_guests_are_on_the_disk_before_anybody_hears_of_them(bench):
    """Those of this node's own jobs are made so when they count."""
    bench.pool.left = lambda job: (job / "results/x").write_text("kept")
    starts = [bench.start(ALICE, "pass", 1), msgspec.structs.replace(bench.start(ALICE, "pass", 2), own=True)]
    bench.blobs.sync()
    assert isinstance(await bench.run(starts[0]), Exited)
    assert not bench.blobs._dirty
    assert isinstance(await bench.run(starts[1]), Exited)
    assert bench.blobs._dirty


async def test_what_was_cancelled_once_it_was_packed_holds_nothing(bench, monkeypatch):
    """Its master, who has cancelled it, never says that it is held no longer."""
    start = msgspec.structs.replace(bench.start(ALICE, "pass", 1), own=True, sandbox="none")
    bench.pool.left = lambda job: (job / "results/x").write_text("kept")
    seal = sealing.Sealer.seal

    def cancelled(sealer, folder, outcome):
        sealed = seal(sealer, folder, outcome)
        bench.guests.find(start.lease, ALICE).stdout = folder
        bench.guests.kill(Kill(lease=start.lease, master=ALICE, reason="cancelled"))
        return sealed

    monkeypatch.setattr(sealing.Sealer, "seal", cancelled)
    assert isinstance(await bench.run(start), Exited)
    assert not bench.blobs._tags


async def test_the_slot_of_an_attempt_is_free_before_its_result_is_packed(bench):
    bench.pool.vacates = True
    bench.guests.start(bench.start(ALICE, "pass", 1))
    assert [type(await bench.events.get()) for _ in range(3)] == [Started, Vacated, Exited]


async def test_results_that_cannot_be_read_are_this_machines_trouble(bench, monkeypatch):
    def fail(*_, **__):
        raise OSError(5, "Input/output error")

    bench.pool.left = lambda _: monkeypatch.setattr(sealing, "collect", fail)
    event = await bench.run(bench.start(ALICE, "pass", 1))
    assert (event.fault, event.detail) == ("disk", "what it left cannot be read: Input/output error")
    assert not bench.blobs._tags


@pytest.mark.parametrize("name", ["results", ".p2pq", ".p2pq/params.json/x", "dangling"])
async def test_a_tree_with_something_else_where_results_belong_is_refused_and_leaves_nothing_pinned(bench, name):
    """It says nothing about this machine, which would else be slowed down for it."""
    start = bench.start(MALLORY, "pass", 1)
    source = bench.folder / "odd"
    source.mkdir()
    if name == "dangling":
        name = "results"
        (source / name).symlink_to("nowhere")
    else:
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_text("in the way")
    tree, _ = collect(source, TreeLimits(), bench.blobs.put, lambda _: os.urandom(32))
    odd = bench.start(MALLORY, "pass", 2, tree=tree)
    odd = msgspec.structs.replace(odd, job=JobId(b"o" * 16), blobs=bodies.tree_refs(tree))
    event = await bench.run(odd)
    assert event.fault == "refused"
    assert f"something of its own called {name.split('/')[-2:][0]}" in event.detail
    assert not bench.blobs._tags
    assert isinstance(await bench.run(start), Exited)


async def test_a_blob_that_is_damaged_here_is_fetched_again_and_no_broken_disk(bench):
    start = bench.start(ALICE, "pass", 1)
    [ref] = start.body
    bench.blobs._path(ref.blob).unlink()
    event = await bench.run(start)
    assert (event.fault, bench.blobs.has(ref.blob)) == ("fetch", False)


async def test_what_would_fill_the_store_is_not_fetched_on_a_mere_hint(bench):
    huge = tuple(BlobRef(number.to_bytes(32, "big"), 4 << 20) for number in range(300))
    bench.guests.fetch(Fetch(master=MALLORY, job=JOB, blobs=huge))
    for number in range(20):
        ref = BlobRef(number.to_bytes(32, "big"), 1)
        bench.guests.fetch(Fetch(master=MALLORY, job=JobId(bytes([number]) * 16), blobs=(ref,)))
    bench.transfers.go_on.set()
    await asyncio.wait(tuple(bench.guests._prefetching.values()))
    assert len(bench.transfers.fetches) == module.PREFETCHES_MAX
    assert all(len(blobs) == 1 for _, blobs in bench.transfers.fetches)


async def test_what_is_suspended_while_it_is_fetched_is_not_launched_before_it_may(bench):
    start = bench.start(MALLORY, "pass", 1)
    missing = BlobRef(b"?" * 32, 1)
    bench.guests.start(msgspec.structs.replace(start, blobs=(*start.blobs, missing)))
    bench.guests.hold(Suspend(lease=start.lease, master=MALLORY))
    bench.guests.hold(Suspend(lease=start.lease, master=ALICE))  # no such attempt
    bench.transfers.go_on.set()
    await bench.events.get()
    assert [launch.suspended for launch in bench.pool.launches] == [True]
    assert [still for _, still in bench.pool.holds] == [True]
    assert bench.pool.holds[0][0] == bench.pool.launches[0].lease


async def test_what_may_go_on_again_is_launched_as_ever(bench):
    start = bench.start(MALLORY, "pass", 1)
    missing = BlobRef(b"?" * 32, 1)
    bench.guests.start(msgspec.structs.replace(start, blobs=(*start.blobs, missing)))
    bench.guests.hold(Suspend(lease=start.lease, master=MALLORY))
    bench.guests.hold(Continue(lease=start.lease, master=MALLORY))
    bench.transfers.go_on.set()
    await bench.events.get()
    assert [launch.suspended for launch in bench.pool.launches] == [False]
    assert [still for _, still in bench.pool.holds] == [True, False]


# -- checkpoints --------------------------------------------------------------------------------------------------------


def save(folder):
    (folder / "results/.checkpoint").mkdir(exist_ok=True)
    (folder / "results/.checkpoint/state").write_text("half way")


def with_checkpoint(bench, start, text="half way"):
    """Return the Start with what an earlier attempt left; its blobs are here."""
    source = bench.folder / "earlier"
    (source / ".checkpoint").mkdir(parents=True)
    (source / ".checkpoint/state").write_text(text)
    tree, _ = collect(source, TreeLimits(), bench.blobs.put, lambda _: os.urandom(32))
    key = os.urandom(32)
    refs, parts = bodies.encrypt(key, ResultBody(tree=tree, output=Tree()))
    for ref, part in zip(refs, parts, strict=True):
        bench.blobs.put(ref.blob, part)
    return msgspec.structs.replace(start, checkpoint_key=key, checkpoint=refs), tree


async def test_what_has_ended_when_it_is_told_to_end_may_be_kept(bench):
    start = bench.start(ALICE, "pass", 1)
    event = await bench.run(start)
    assert event.body
    bench.guests.kill(Kill(lease=start.lease, master=ALICE, reason="evicted", checkpoint_s=2.5))
    assert bench.blobs._tags, "its master has not got it yet"
    bench.guests.kill(Kill(lease=start.lease, master=ALICE, reason="cancelled"))
    assert not bench.blobs._tags


async def test_an_attempt_has_begun_once_it_has_its_gpus(bench):
    bench.guests._launching._gpus = gpus.Gpus((0,))
    bench.pool.go_on.clear()
    resources = Resources(gpus=1)
    first, second = (
        msgspec.structs.replace(bench.start(ALICE, "pass", number), resources=resources) for number in (1, 2)
    )
    bench.guests.start(first)
    assert isinstance(await bench.events.get(), Started)
    bench.guests.start(second)
    bench.pool.go_on.set()
    told = [await bench.events.get() for _ in range(3)]
    assert [(type(each), each.lease) for each in told] == [
        (Exited, first.lease),
        (Started, second.lease),
        (Exited, second.lease),
    ]


def far(number):
    """Return the Start of a guest whose blobs are not here."""
    body = (BlobRef(os.urandom(32), 100),)
    return start_of(master=ALICE, lease=LeaseId(1, number), job=JOB, key=bytes(32), body=body, blobs=())


async def test_what_is_fetched_for_a_train_that_nobody_wants_any_more_is_fetched_no_longer(bench):
    starts = (far(1), far(2))
    bench.guests.train(Train(starts=starts))
    await bench.transfers.begun.wait()
    waited = [bench.guests.find(start.lease, ALICE).over.wait() for start in starts]
    for start in starts:
        assert bench.guests.find(start.lease, ALICE) is not None
        bench.guests.kill(Kill(lease=start.lease, master=ALICE, reason="cancelled"))
        told = await bench.pool.told.get()
        assert told[3] == 0.0, "a guest is gone at once"
    for each in waited:
        await each
    assert bench.events.empty()
    assert not bench.blobs._tags


async def test_an_attempt_that_is_told_to_end_reports_its_checkpoint(bench):
    bench.pool.go_on.clear()
    bench.pool.left = save
    start = bench.start(ALICE, "pass", 1)
    bench.guests.start(start)
    assert isinstance(await bench.events.get(), Started)
    bench.guests.kill(Kill(lease=start.lease, master=ALICE, reason="draining", checkpoint_s=2.5))
    event = await bench.events.get()
    [launch] = bench.pool.launches
    assert bench.pool.told.get_nowait() == (
        launch.lease,
        "evicted",
        "it was told to end (draining)",
        2.5,
        signal.SIGTERM,
    )
    assert (event.outcome.reason, event.checkpoint) == ("saved", True)
    assert [file.path for file in bench.result(start, event).tree.files] == [".checkpoint/state"]
    assert bench.blobs._tags


async def test_a_guest_in_its_host_s_way_gets_the_owner_s_signal_and_grace_and_says_why(bench):
    bench.guests._signal = signal.SIGUSR1
    bench.pool.go_on.clear()
    bench.pool.left = save
    start = bench.start(ALICE, "pass", 1)
    bench.guests.start(start)
    assert isinstance(await bench.events.get(), Started)
    why = "somebody uses this machine"
    bench.guests.hold(Suspend(lease=start.lease, master=ALICE, reason=why))
    bench.guests.kill(Kill(lease=start.lease, master=ALICE, reason="evicted", detail=why, checkpoint_s=60.0))
    event = await bench.events.get()
    [launch] = bench.pool.launches
    assert bench.pool.told.get_nowait() == (
        launch.lease,
        "evicted",
        f"it was told to end ({why})",
        60.0,
        signal.SIGUSR1,
    )
    assert bench.result(start, event).detail.endswith("; it stood still for 0 s (somebody uses this machine)")


async def test_nothing_is_fetched_ahead_while_guests_stand_still(bench):
    fetching = asyncio.get_running_loop().create_task(asyncio.Event().wait())
    bench.guests._prefetching[ALICE, b"j"] = fetching
    bench.guests.quiet(still=False)
    assert not fetching.cancelling()
    bench.guests.quiet(still=True)
    await asyncio.wait([fetching])
    del bench.guests._prefetching[ALICE, b"j"]
    assert fetching.cancelled()
    assert bench.pool.quiets == [False, True]


async def test_one_that_left_nothing_reports_that_and_holds_nothing(bench):
    bench.pool.reason = "evicted"
    start = bench.start(ALICE, "pass", 1)
    event = await bench.run(start)
    assert event == Exited(lease=start.lease, master=ALICE, outcome=event.outcome, sandbox="strict")
    assert event.outcome.reason == "saved"
    assert not bench.blobs._tags


async def test_an_attempt_finds_its_checkpoint_in_place(bench):
    start, _ = with_checkpoint(bench, bench.start(ALICE, "pass", 1))
    found = []
    bench.pool.left = lambda folder: found.append((folder / "results/.checkpoint/state").read_text())
    event = await bench.run(start)
    assert isinstance(event, Exited)
    assert found == ["half way"]
    assert bench.pool.launches[0].env["P2PQ_CHECKPOINT"] == "/job/results/.checkpoint"


async def test_a_checkpoint_is_fetched_from_the_master_in_two_steps(bench):
    start, tree = with_checkpoint(bench, bench.start(ALICE, "pass", 1))
    bench.blobs.discard([ref.blob for ref in bodies.tree_refs(tree)])
    bench.transfers.go_on.set()
    event = await bench.run(start)  # what was not brought is not there
    assert isinstance(event, Faulted)
    assert bench.transfers.fetches == [(ALICE, [(ref.blob, ref.size) for ref in bodies.tree_refs(tree)])]


async def test_one_without_a_checkpoint_is_not_told_of_any(bench):
    await bench.run(bench.start(ALICE, "pass", 1))
    assert "P2PQ_CHECKPOINT" not in bench.pool.launches[0].env


async def test_a_checkpoint_of_no_use_costs_the_work_behind_it_only(bench):
    start, _ = with_checkpoint(bench, bench.start(ALICE, "pass", 1))
    event = await bench.run(msgspec.structs.replace(start, checkpoint_key=b"x" * 32))
    assert isinstance(event, Exited)
    assert "P2PQ_CHECKPOINT" not in bench.pool.launches[0].env


async def test_checkpoints_of_guests_leave_room_for_the_owner_of_the_machine(bench, monkeypatch):
    start, tree = with_checkpoint(bench, bench.start(ALICE, "pass", 1))
    inputs = sum(ref.size for ref in (*start.body, *start.blobs))
    size = sum(ref.size for ref in bodies.tree_refs(tree))
    monkeypatch.setattr(BlobStore, "quota_bytes", property(lambda _: module.GUESTS_PART * (inputs + size - 1)))
    assert (await bench.run(start)).fault == "refused"
    own = msgspec.structs.replace(start, own=True)
    assert isinstance(await bench.run(own), Exited)


# -- jobs that do not fit -------------------------------------------------------------------------------------------------


def zeros(parts):
    """A file of zeros that is a few bytes on the way."""
    chunk, ciphertext = seal_chunk(bytes(PLAIN_MAX), lambda _: b"k" * 32)
    part = Part(0, 0, PLAIN_MAX)
    return Tree(files=(File("zeros", False, parts * PLAIN_MAX, (part,) * parts),), chunks=(chunk,)), ciphertext


async def test_a_job_whose_files_are_more_than_a_task_may_hold_here_is_declined(bench):
    tree, _ = zeros(2)
    bench.guests._launching._settings = RunnerSettings(disk_mb=7)
    event = await bench.run(bench.start(ALICE, "", 1, tree=tree))
    assert (event.fault, event.detail) == (
        "refused",
        "the job's files are larger than the 7 MiB that a task may hold here",
    )
    assert bench.pool.seen == []
    assert not bench.blobs._tags


async def test_a_job_for_whose_files_there_is_no_room_is_declined_before_any_is_written(bench, monkeypatch):
    tree, ciphertext = zeros(2)
    bench.blobs.put(tree.chunks[0].blob, ciphertext)
    monkeypatch.setattr(launching.room.files, "free_bytes", lambda _: 2 * PLAIN_MAX)
    event = await bench.run(bench.start(ALICE, "", 1, tree=tree))
    assert (event.fault, event.detail) == (
        "refused",
        "the job's files would take 8 MiB, and there is room for 8 MiB",
    )
    assert not list(bench.folder.rglob("zeros"))


async def test_a_command_runs_in_its_users_folder_and_environment_and_brings_no_files(bench):
    key = os.urandom(32)
    sources = (Source(("a", "b c")),)
    body = CommandsBody(
        words=("/bin/echo", "{}"), sources=sources, cwd="/work", environment=b"A=1\0P2PQ_TASK=x\0", umask=0o077
    )
    refs, parts = bodies.encrypt(key, body)
    for ref, part in zip(refs, parts, strict=True):
        bench.blobs.put(ref.blob, part)
    start = start_of(
        master=ALICE,
        lease=LeaseId(1, 1),
        job=JOB,
        key=key,
        body=refs,
        task=1,
        tasks=2,
        own=True,
        may_be_empty=True,
        sandbox="none",
    )
    event = await bench.run(start)
    assert isinstance(event, Exited)
    [launch] = bench.pool.launches
    assert (launch.argv, launch.cwd, launch.level) == (("/bin/echo", "b c"), "/work", "none")
    assert (launch.whole_env, launch.idle_priority, launch.limits.memory_bytes, launch.umask) == (
        True,
        False,
        None,
        0o077,
    )
    assert (launch.env["A"], launch.env["P2PQ_TASK"]) == ("1", "1")
    assert "OMP_NUM_THREADS" not in launch.env
    assert (event.body, event.blobs) == ((), ()), "nothing was printed"


async def test_the_newest_body_of_an_own_job_is_kept_however_large_it_is(bench, monkeypatch):
    monkeypatch.setattr(module, "ENTRIES_KEPT_MAX", 2)
    opened = []
    decrypt = bodies.decrypt_job
    monkeypatch.setattr(module.bodies, "decrypt_job", lambda *args: opened.append(1) or decrypt(*args))
    for own, times in ((True, 1), (False, 3)):
        start = msgspec.structs.replace(
            bench.start(ALICE, "pass", 1 + own, args=("x",) * 9), own=own, job=JobId(bytes(15) + bytes([own]))
        )
        await bench.run(start)
        await bench.run(start)
        assert len(opened) == times


async def test_a_task_has_the_python_of_its_environment_and_holds_it(bench, tmp_path):
    environment = Environment("name", tmp_path / "built", 1)
    bench.environments.result = environment
    for sandbox in ("strict", "none"):
        start = msgspec.structs.replace(
            bench.start(NodeId(sandbox.encode().ljust(32)), "pass", len(sandbox)), sandbox=sandbox
        )
        assert isinstance(await bench.run(start), Exited)
    strict, plain = bench.pool.launches
    assert (strict.argv[0], strict.env["VIRTUAL_ENV"]) == ("/p2pq-env/bin/python", "/p2pq-env")
    assert strict.mounts == (Mount(tmp_path / "built/env", "/p2pq-env"),)
    assert (plain.argv[0], plain.mounts) == (str(tmp_path / "built/env/bin/python"), ())
    assert plain.python is not None
    assert plain.python.bin == tmp_path / "built/env/bin"
    assert environment.users == 0, "let go of when the attempts ended"
    dead = asyncio.get_running_loop().create_future()
    strict.until_dead(dead)
    assert environment.users == 1
    dead.cancel()


async def test_an_environment_that_cannot_be_had_is_the_workers_fault(bench):
    bench.environments.result = BuildError("environment of requirements.txt: x was not found")
    event = await bench.run(bench.start(ALICE, "pass", 1))
    assert isinstance(event, Faulted)
    assert (event.fault, event.detail) == ("sandbox", "environment of requirements.txt: x was not found")
    assert bench.pool.launches == []
