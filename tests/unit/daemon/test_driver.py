import asyncio
import random
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import pytest

from p2pq.core.effects import Continue, Dial, Effect, Emit, Hangup, Kill, Record, Send, Start, Suspend
from p2pq.core.events import AddressSeen, CancelAsked, Event, LinkDown, LinkUp, Received, Tick, Woke
from p2pq.core.identity import Identity
from p2pq.core.node import Node
from p2pq.core.records import EpochBegun, JobAdded, LeaseGranted, PeerSeen, Row
from p2pq.daemon import driver as driver_module
from p2pq.daemon.driver import Driver
from p2pq.daemon.store import Store
from p2pq.errors import DiskFullError, InvariantError, StorageError, StoreDamagedError
from p2pq.model.config import ScheduleSettings
from p2pq.model.ids import JobId, LeaseId, MeshId, Mono, NodeId, Wall
from p2pq.model.job import Limits, Resources
from p2pq.model.notice import LinksFull
from p2pq.wire import prims
from p2pq.wire.messages import HasWork, Heartbeat, Through

PEER = NodeId(b"p" * 32)
JOB = JobId(b"j" * 16)
ROW = EpochBegun(epoch=1)
ADDED = JobAdded(job=JOB, manifest=b"", key=b"", reply_secret=b"", wall=Wall(0))


def said(number: int) -> Send:
    return Send(peer=PEER, message=HasWork(counter=number))


BEAT = Send(peer=PEER, message=Heartbeat(beats=()))
FAR_BEAT = Send(peer=PEER, message=Through(node=NodeId(b"f" * 32), message=Heartbeat(beats=())))


class FakeNode:
    """Answers events as told; remembers them."""

    def __init__(self) -> None:
        self.heard: list[tuple[Event, Mono]] = []
        self.deadline: Mono | None = None
        self.answers: dict[Event, list[Effect]] = {}
        self.checks = 0
        self.broken = ""

    def handle(self, event: Event, now: Mono) -> list[Effect]:
        self.heard.append((event, now))
        if self.deadline is not None and self.deadline <= now:
            self.deadline = None
        if self.broken == "handle":
            raise AssertionError("a task is in two places")
        return self.answers.get(event, [])

    def check(self) -> None:
        self.checks += 1
        if self.broken == "check":
            raise AssertionError("the count is wrong")

    def events(self) -> list[Event]:
        return [event for event, _ in self.heard]


class FakeStore:
    """A disk that is done when the test says so."""

    def __init__(self) -> None:
        self.trouble: StorageError | None = None
        self.batches: list[tuple[list[Row], bool, asyncio.Future[None]]] = []
        self.committed = asyncio.Event()

    def commit(self, rows: Sequence[Row], *, full: bool) -> asyncio.Future[None]:
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.batches.append((list(rows), full, waiter))
        self.committed.set()
        return waiter

    async def next_batch(self) -> tuple[list[Row], bool, asyncio.Future[None]]:
        async with asyncio.timeout(10):
            await self.committed.wait()
        self.committed.clear()
        return self.batches[-1]


class Rig:
    def __init__(self) -> None:
        self.node = FakeNode()
        self.store = FakeStore()
        self.performed: list[Effect] = []
        self.seen = asyncio.Event()
        self.mono = 0.0
        self.wall = 1_000_000.0
        self.boot = 0.0
        """What the clock since boot is ahead of the monotonic one."""
        self.driver = Driver(
            self.node,
            self.store,
            self.perform,
            lambda: Mono(self.mono),
            lambda: Wall(int(self.wall)),
            lambda: self.mono + self.boot,
        )

    def perform(self, effect: Effect) -> None:
        self.performed.append(effect)
        self.seen.set()

    async def settle(self) -> None:
        """Let everything that can happen happen."""
        for _ in range(30):
            await asyncio.sleep(0)

    def when(self, event: Event, *effects: Effect) -> Event:
        self.node.answers[event] = list(effects)
        return event

    async def idle(self, seconds: float) -> None:
        """Let time pass in which the driver looks up."""
        self.pass_time(seconds)
        self.driver._wake.set()
        await self.settle()

    def pass_time(self, seconds: float) -> None:
        self.mono += seconds
        self.wall += seconds * 1000


@asynccontextmanager
async def running(rig: Rig) -> AsyncIterator[Rig]:
    task = asyncio.get_running_loop().create_task(rig.driver.run())
    await rig.settle()
    rig.node.heard.clear()
    try:
        yield rig
    finally:
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


def cancel(task: int) -> CancelAsked:
    return CancelAsked(job=JOB, task=task, wall=Wall(0))


async def test_it_begins_with_the_wall_time() -> None:
    rig = Rig()
    task = asyncio.get_running_loop().create_task(rig.driver.run())
    await rig.settle()
    assert rig.node.heard == [(Tick(wall=Wall(1_000_000)), Mono(0))]
    assert rig.node.checks == 1
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_effects_without_rows_leave_at_once_and_in_order() -> None:
    async with running(Rig()) as rig:
        rig.driver.post(rig.when(cancel(1), said(1), Hangup(peer=PEER, reason="x")))
        rig.driver.post(rig.when(cancel(2), Dial(address="a:1")))
        await rig.settle()
        assert rig.performed == [said(1), Hangup(peer=PEER, reason="x"), Dial(address="a:1")]
        assert rig.store.batches == []


async def test_nothing_of_a_turn_leaves_before_its_rows_are_durable() -> None:
    async with running(Rig()) as rig:
        rig.driver.post(rig.when(cancel(1), said(1), Record(row=ROW), said(2), Record(row=ADDED)))
        rows, full, durable = await rig.store.next_batch()
        await rig.settle()
        assert (rows, full) == ([ROW, ADDED], True)
        assert rig.performed == []
        durable.set_result(None)
        await rig.settle()
        assert rig.performed == [said(1), said(2)]


async def test_later_turns_go_on_but_are_released_in_order() -> None:
    async with running(Rig()) as rig:
        seen = Record(row=PeerSeen(node=PEER, name="", addresses=()))
        rig.driver.post(rig.when(cancel(1), seen, said(1)))
        _, full, first = await rig.store.next_batch()
        assert not full
        rig.driver.post(rig.when(cancel(2), said(2)))
        rig.driver.post(rig.when(cancel(3), seen, said(3)))
        _, _, second = await rig.store.next_batch()
        await rig.settle()
        assert rig.node.events() == [cancel(1), cancel(2), cancel(3)]
        second.set_result(None)
        await rig.settle()
        assert rig.performed == []
        first.set_result(None)
        await rig.settle()
        assert rig.performed == [said(1), said(2), said(3)]


async def test_heartbeats_do_not_wait_for_the_disk() -> None:
    async with running(Rig()) as rig:
        rig.driver.post(rig.when(cancel(1), Record(row=ROW), said(1), BEAT))
        _, _, durable = await rig.store.next_batch()
        assert rig.performed == [BEAT]
        rig.driver.post(rig.when(cancel(2), said(2), FAR_BEAT))
        await rig.settle()
        assert rig.performed == [BEAT, FAR_BEAT]
        durable.set_result(None)
        await rig.settle()
        assert rig.performed == [BEAT, FAR_BEAT, said(1), said(2)]


async def test_tasks_start_before_the_disk_is_done_if_their_leases_are_durable() -> None:
    start = Start(
        lease=LeaseId(1, 1),
        master=PEER,
        owner="bob",
        job=JobId(b"j" * 16),
        task=0,
        attempt=1,
        tasks=1,
        key=b"k" * 32,
        reply=b"r" * 32,
        body=(),
        blobs=(),
        resources=Resources(),
        limits=Limits(),
        sandbox="strict",
        own=False,
    )
    own = msgspec.structs.replace(start, own=True)
    later = msgspec.structs.replace(own, lease=LeaseId(1, 2))
    granted = [
        LeaseGranted(lease=each.lease, job=each.job, task=0, attempt=1, worker=PEER, wall=Wall(0))
        for each in (own, later)
    ]
    async with running(Rig()) as rig:
        rig.driver.post(rig.when(cancel(1), *(Record(row=row) for row in granted), own, start))
        _, _, durable = await rig.store.next_batch()
        rig.driver.post(rig.when(cancel(2), later))
        await rig.settle()
        assert rig.performed == [start]
        durable.set_result(None)
        await rig.settle()
        assert rig.performed == [start, own, later]
        rig.driver.post(rig.when(cancel(3), Record(row=ROW), said(1), later))
        await rig.store.next_batch()
        assert rig.performed[3:] == [later]


async def test_the_disk_does_not_keep_a_guest_from_going_when_the_machine_s_owner_is_back() -> None:
    evicted = Kill(lease=LeaseId(1, 1), master=PEER, reason="evicted", detail="the owner is back")
    cancelled = Kill(lease=LeaseId(1, 2), master=PEER, reason="cancelled")
    still, on = (kind(lease=LeaseId(1, 3), master=PEER) for kind in (Suspend, Continue))
    async with running(Rig()) as rig:
        rig.driver.post(rig.when(cancel(1), Record(row=ROW), cancelled, evicted, still, on))
        _, _, durable = await rig.store.next_batch()
        assert rig.performed == [evicted, still, on]
        durable.set_result(None)
        await rig.settle()
        assert rig.performed == [evicted, still, on, cancelled]


async def test_a_turn_takes_a_bounded_number_of_events() -> None:
    async with running(Rig()) as rig:
        for number in range(300):
            rig.driver.post(rig.when(cancel(number), Record(row=ROW)))
        rows, _, _ = await rig.store.next_batch()
        assert len(rows) == 256
        await rig.settle()
        assert [len(batch[0]) for batch in rig.store.batches] == [256, 44]


async def test_effects_may_post_events() -> None:
    async with running(Rig()) as rig:
        answer = LinkDown(peer=PEER)
        rig.node.answers[cancel(1)] = [said(1)]
        original = rig.perform

        def perform(effect: Effect) -> None:
            original(effect)
            if effect == said(1):
                rig.driver.post(answer)

        rig.driver._perform = perform
        rig.driver.post(cancel(1))
        await rig.settle()
        assert rig.node.events() == [cancel(1), answer]


async def test_durable_posts_return_their_effects_when_all_is_done() -> None:
    async with running(Rig()) as rig, asyncio.TaskGroup() as group:
        rig.when(cancel(1), Record(row=ROW), said(1))
        rig.when(cancel(2), Emit(notice=LinksFull(links_max=1)))
        first = group.create_task(rig.driver.post_durable(cancel(1)))
        second = group.create_task(rig.driver.post_durable(cancel(2)))
        _, _, durable = await rig.store.next_batch()
        await rig.settle()
        assert not first.done()
        assert not second.done()
        durable.set_result(None)
        assert await first == [Record(row=ROW), said(1)]
        assert await second == [Emit(notice=LinksFull(links_max=1))]
        assert rig.performed == [said(1), Emit(notice=LinksFull(links_max=1))]


async def test_flush_waits_for_what_was_posted_before() -> None:
    async with running(Rig()) as rig, asyncio.TaskGroup() as group:
        rig.driver.post(rig.when(cancel(1), Record(row=ROW), said(1)))
        flushed = group.create_task(rig.driver.flush())
        _, _, durable = await rig.store.next_batch()
        await rig.settle()
        assert not flushed.done()
        durable.set_result(None)
        await flushed
        assert rig.performed == [said(1)]


async def test_a_caller_who_gave_up_disturbs_nobody() -> None:
    async with running(Rig()) as rig:
        rig.when(cancel(1), Record(row=ROW), said(1))
        waiting = asyncio.get_running_loop().create_task(rig.driver.post_durable(cancel(1)))
        _, _, durable = await rig.store.next_batch()
        waiting.cancel()
        await rig.settle()
        durable.set_result(None)
        await rig.settle()
        assert rig.performed == [said(1)]


# -- time ------------------------------------------------------------------------------------------------------------


async def test_a_deadline_is_kept_by_one_timer() -> None:
    rig = Rig()
    async with running(rig):
        rig.node.deadline = Mono(0.02)
        rig.driver.post(cancel(1))
        await rig.settle()
        assert rig.node.events() == [cancel(1)]
        rig.pass_time(0.02)
        async with asyncio.timeout(10):
            while len(rig.node.heard) < 2:
                await rig.driver._wake.wait()
                await asyncio.sleep(0)
        assert rig.node.heard[1] == (Tick(), Mono(0.02))
        await rig.settle()
        assert len(rig.node.heard) == 2


async def test_the_wall_time_is_told_every_minute() -> None:
    async with running(Rig()) as rig:
        for _ in range(59):
            await rig.idle(1)
        rig.driver.post(cancel(1))
        await rig.settle()
        assert rig.node.events() == [cancel(1)]
        rig.pass_time(1)
        rig.driver.post(cancel(2))
        await rig.settle()
        assert rig.node.events()[1:] == [Tick(wall=Wall(1_060_000)), cancel(2)]
        assert rig.node.checks == 2


async def test_a_sleep_comes_before_all_that_waited_and_before_what_is_due() -> None:
    async with running(Rig()) as rig:
        rig.node.deadline = Mono(1.0)
        rig.driver.post(cancel(1))
        rig.pass_time(302)
        rig.boot = 50.0
        await rig.settle()
        asleep = Woke(slept_s=50.0, counted=False)
        stopped = Woke(slept_s=300.0, counted=True)
        assert rig.node.events() == [stopped, asleep, Tick(wall=Wall(1_302_000)), cancel(1)]
        await rig.idle(1)
        assert len(rig.node.heard) == 4


async def test_a_sleep_is_told_though_nothing_else_happens() -> None:
    async with running(Rig()) as rig:
        rig.node.deadline = Mono(10.0)
        await rig.idle(59.5)
        assert rig.node.events() == [Woke(slept_s=57.5, counted=True)]


async def test_a_sleep_is_told_when_the_disk_has_caught_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(driver_module, "ROWS_WAITING_MAX", 1)
    async with running(Rig()) as rig:
        rig.driver.post(rig.when(cancel(1), Record(row=ROW)))
        _, _, durable = await rig.store.next_batch()
        await rig.settle()
        await rig.idle(32)
        await rig.idle(1)
        assert rig.node.events() == [cancel(1)]
        durable.set_result(None)
        await rig.settle()
        assert rig.node.events() == [cancel(1), Woke(slept_s=30.0, counted=True)]


@pytest.mark.parametrize("jump_ms", [-3_600_000, 5000])
async def test_the_wall_time_is_told_after_a_jump(jump_ms: int) -> None:
    async with running(Rig()) as rig:
        rig.wall += jump_ms
        rig.driver.post(cancel(1))
        await rig.settle()
        assert rig.node.events() == [Tick(wall=Wall(1_000_000 + jump_ms)), cancel(1)]


# -- what can go wrong -----------------------------------------------------------------------------------------------


async def test_a_broken_promise_of_the_core_ends_the_driver() -> None:
    for where, message in (("handle", "two places"), ("check", "count is wrong")):
        rig = Rig()
        rig.node.broken = where
        with pytest.raises(InvariantError, match=message):
            await rig.driver.run()
        with pytest.raises(StorageError, match="stopping"):
            await rig.driver.post_durable(cancel(1))


async def test_a_damaged_store_ends_the_driver_and_tells_who_waits() -> None:
    rig = Rig()
    task = asyncio.get_running_loop().create_task(rig.driver.run())
    rig.when(cancel(1), Record(row=ROW), said(1))
    waiting = asyncio.get_running_loop().create_task(rig.driver.post_durable(cancel(1)))
    _, _, durable = await rig.store.next_batch()
    durable.set_exception(StoreDamagedError("damaged"))
    with pytest.raises(StoreDamagedError):
        await task
    with pytest.raises(StorageError):
        await waiting
    assert rig.performed == []


async def test_while_the_disk_fails_durable_posts_are_refused_and_waiting_ones_told() -> None:
    async with running(Rig()) as rig:
        rig.when(cancel(1), Record(row=ROW), said(1))
        waiting = asyncio.get_running_loop().create_task(rig.driver.post_durable(cancel(1)))
        _, _, durable = await rig.store.next_batch()
        rig.store.trouble = DiskFullError("the disk is full")
        rig.driver.trouble_changed(rig.store.trouble)
        with pytest.raises(DiskFullError):
            await waiting
        with pytest.raises(DiskFullError):
            await rig.driver.post_durable(cancel(2))
        await rig.settle()
        assert rig.node.events() == [cancel(1)]
        rig.store.trouble = None
        rig.driver.trouble_changed(None)
        durable.set_result(None)
        await rig.settle()
        assert rig.performed == [said(1)]
        assert await rig.driver.post_durable(cancel(3)) == []


async def test_a_full_inbox_drops_what_peers_say_and_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(driver_module, "INBOX_MAX", 2)
    async with running(Rig()) as rig:
        spoken = Received(peer=PEER, message=HasWork(counter=1))
        for event in (spoken, spoken, spoken, cancel(1), spoken):
            rig.driver.post(event)
        await rig.settle()
        assert rig.node.events() == [spoken, spoken, cancel(1)]
        assert rig.driver.dropped == 2


async def test_no_turn_begins_while_the_disk_is_far_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(driver_module, "ROWS_WAITING_MAX", 2)
    async with running(Rig()) as rig:
        rig.driver.post(rig.when(cancel(1), Record(row=ROW), Record(row=ROW), said(1)))
        _, _, durable = await rig.store.next_batch()
        rig.driver.post(rig.when(cancel(2), said(2)))
        await rig.settle()
        assert rig.node.events() == [cancel(1)]
        durable.set_result(None)
        await rig.settle()
        assert rig.performed == [said(1), said(2)]


# -- the real core and the real store --------------------------------------------------------------------------------


async def test_the_real_node_lives_again_in_a_higher_epoch(tmp_path: Path) -> None:
    key = prims.SigningKey(b"\1" * 32)
    identity = Identity(
        node=key.public,
        secret=b"\1" * 32,
        mesh=MeshId(b"m" * 32),
        name="n",
        owner="o",
        caps=("admin", "submit", "work"),
        boot=b"b" * 16,
        prekey_secret=b"\2" * 32,
        prekey=b"\3" * 32,
    )
    loop = asyncio.get_running_loop()
    for epoch in (1, 2, 3):
        store, restored = Store.open(tmp_path / "store.sqlite", lambda: Wall(0))
        assert restored.epoch == epoch - 1
        rng = random.Random(epoch)
        node = Node(
            identity,
            ScheduleSettings(),
            restored,
            rng,
            rng.randbytes,
            now=Mono(loop.time()),
            wall=Wall(0),
        )
        performed: list[Effect] = []
        driver = Driver(node, store, performed.append, lambda: Mono(loop.time()), lambda: Wall(0))
        store.start(driver.trouble_changed)
        task = loop.create_task(driver.run())
        effects = await driver.post_durable(AddressSeen(addresses=("10.1.2.3:9476",), source="config"))
        assert any(isinstance(effect, Dial) for effect in performed + effects)
        up = LinkUp(
            peer=PEER,
            name="p",
            owner="o",
            caps=("work",),
            boot=b"c" * 16,
            minor=1,
            prekey=b"k" * 32,
            address="10.1.2.3:9476",
        )
        effects = await driver.post_durable(up)
        rows = [effect.row for effect in effects if isinstance(effect, Record)]
        assert any(isinstance(row, PeerSeen) for row in rows)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await store.close()
    store, restored = Store.open(tmp_path / "store.sqlite", lambda: Wall(0))
    await store.close()
    assert restored.epoch == 3
    assert [peer.name for peer in restored.peers] == ["p"]
