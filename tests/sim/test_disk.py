"""The simulated disk keeps what it promised, and nothing more."""

from p2pq.core import effects as fx
from p2pq.core import records
from p2pq.model.ids import LeaseId, NodeId
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
        self.disk = Disk(self.world, "disk", self.done.append, self.kept.append)

    def epoch(self) -> int:
        return self.disk.ledger.restored().epoch

    def run(self) -> None:
        self.world.run(10.0, lambda: False)


def record(epoch: int) -> fx.Record:
    return fx.Record(row=records.EpochBegun(epoch=epoch))


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
        bench.disk.crash()
        bench.run()
        assert bench.done == []
        assert [row.epoch for row in bench.kept] == [1] * bench.epoch()
        epochs.add(bench.epoch())
    assert epochs == {0, 1}  # a commit under way may or may not have succeeded
