"""The simulated disk keeps what it promised, and nothing more."""

from p2pq.core import effects as fx
from p2pq.core import records
from p2pq.model.ids import LeaseId, NodeId, Wall
from p2pq.wire.messages import Beat, Heartbeat, Leaving
from simulations.disk import Disk
from simulations.world import World

PEER = NodeId(b"p" * 32)
BYE = fx.Send(peer=PEER, message=Leaving())
BEAT = fx.Send(peer=PEER, message=Heartbeat(beats=(Beat(LeaseId(1, 1)),)))


class Bench:
    def __init__(self, seed: int = 1) -> None:
        self.world = World(seed)
        self.done: list[fx.Effect] = []
        self.kept: list[records.Row] = []
        self.disk = Disk(self.world.after, self.world.rng("disk"), self.done.append, self)

    def durable(self, rows: list[records.Row]) -> None:
        self.kept += rows

    def synced(self) -> None:
        pass

    def undone(self, count: int) -> None:
        del self.kept[len(self.kept) - count :]

    def epoch(self) -> int:
        return self.disk.restored(Wall(0)).epoch

    def peers(self) -> int:
        return len(self.disk.restored(Wall(0)).peers)

    def commit(self, *effects: fx.Effect) -> None:
        self.disk.take(list(effects))
        self.run()

    def run(self) -> None:
        self.world.run(self.world.now + 10.0, lambda: False)


def record(epoch: int) -> fx.Record:
    return fx.Record(row=records.EpochBegun(epoch=epoch))


def seen(number: int) -> fx.Record:
    return fx.Record(row=records.PeerSeen(node=NodeId(bytes([number]) * 32), name="p", addresses=()))


def test_what_follows_a_record_waits_until_it_is_durable():
    bench = Bench()
    bench.disk.take([BYE])
    assert bench.done == [BYE]
    bench.disk.take([record(1), BYE])
    bench.disk.take([BEAT, BYE])
    assert (bench.done, bench.epoch()) == ([BYE, BEAT], 0)
    bench.run()
    assert (bench.done, bench.epoch()) == ([BYE, BEAT, BYE, BYE], 1)


def test_a_crash_loses_what_was_not_committed():
    epochs = set()
    for seed in range(20):
        bench = Bench(seed)
        bench.disk.take([record(1), BYE])
        bench.disk.take([record(2), BYE])  # waits for the first commit
        bench.disk.crash(power=False)
        bench.run()
        assert bench.done == []
        assert [row.epoch for row in bench.kept] == [1] * bench.epoch()
        epochs.add(bench.epoch())
    assert epochs == {0, 1}  # a commit under way may or may not have succeeded


def test_a_loss_of_power_leaves_a_prefix_of_what_was_not_synced():
    left = set()
    for seed in range(30):
        bench = Bench(seed)
        bench.commit(seen(1))
        bench.commit(record(1))  # needs the log synced, and with it what was before
        for number in (2, 3, 4):
            bench.commit(seen(number))
        bench.disk.crash(power=True)
        assert bench.epoch() == 1
        assert len(bench.kept) == 1 + bench.peers()
        left.add(bench.peers())
    assert left == {1, 2, 3, 4}


def test_the_end_of_the_process_takes_nothing_that_was_committed():
    bench = Bench()
    bench.commit(seen(1))
    bench.disk.crash(power=False)
    assert bench.peers() == 1


def test_a_commit_that_was_under_way_is_not_there_without_what_was_before():
    for seed in range(30):
        bench = Bench(seed)
        bench.commit(seen(1))
        bench.disk.take([record(1)])
        bench.disk.crash(power=True)
        assert bench.peers() >= bench.epoch()


def test_another_disk_is_empty():
    bench = Bench()
    bench.commit(record(1), seen(1))
    bench.disk.take([seen(2)])
    bench.disk.wipe()
    bench.run()
    assert bench.disk.restored(Wall(1_700_000_000_999)) == records.Restored(epoch=1_700_000_000_999)
