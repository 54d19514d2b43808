"""Whatever happens to a node, through all its lives, a replay of its flight records decides the same, event by event."""

import io
from collections.abc import Iterator

from hypothesis import given, settings
from hypothesis import strategies as st

from p2pq.core import effects as fx
from p2pq.core import events as ev
from p2pq.core import flight
from p2pq.core.ledger import Ledger
from p2pq.model.config import ScheduleSettings
from p2pq.model.ids import LeaseId, Mono, Wall
from p2pq.wire import messages as msg
from p2pq.wire import sign
from simulations import replay
from tests.samples import fullest, smallest, unions
from tests.unit.core.workerkit import ANN, BOB, IDENTITY, KEY, ME, OFFER, OK, PROFILE, WALL, granted, item, manifest

BAD = msg.Return(items=(msg.ReturnItem(LeaseId(1, 0), "evicted"),))


OWN = (ev.Submitted, ev.RetryAsked, ev.Drain)
"""What the daemon says of its own jobs makes sense, or is a bug; one end of a life is enough."""


def odd() -> list[ev.Event]:
    """Return what makes no sense to most nodes: each event, and each message of each peer, from its definition."""
    events = [make(kind) for kind in unions(ev.Event) if kind not in OWN for make in MAKERS]
    said = [make(kind) for kind in unions(msg.CoreMessage) for make in MAKERS]
    return events + [ev.Received(peer=member.node, message=message) for member in (ANN, BOB) for message in said]


MAKERS = (smallest, fullest)
PLAIN: list[ev.Event] = [
    OFFER,
    ANN.link(),
    BOB.link(),
    ev.LinkDown(peer=ANN.node, reason="reset"),
    ev.Received(peer=ANN.node, message=msg.Holding()),
    ev.Received(peer=ANN.node, message=msg.ProfileIs(profile=PROFILE)),
    ev.Received(peer=ANN.node, message=msg.HasWork(counter=1, owners=("ann",))),
    ev.Received(peer=ANN.node, message=msg.Request(nonce=bytes(16), owner="me", cpus=2)),
    ev.Received(peer=ANN.node, message=BAD),
    ev.Tick(),
    ev.Tick(wall=Wall(WALL + 60_000)),
    ev.Drain(),
]
JOBS: list[ev.Event] = [
    ev.Submitted(
        manifest=sign.sign(ME.signer, manifest(ME, number, tasks=2)), key=KEY, reply_secret=b"r" * 32, wall=WALL
    )
    for number in (1, 2)
]
moves = st.lists(
    st.tuples(
        st.one_of(
            st.sampled_from(["answer", "answer", "answer", "restart"]),
            st.sampled_from(PLAIN + JOBS),
            st.sampled_from(odd()),
        ),
        st.integers(0, 7),
        st.sampled_from([0.0, 0.001, 0.3, 2.0, 16.0, 61.0]),
    ),
    max_size=60,
)


class Recorded:
    """A node that is written down, what its disk keeps, and what the world could answer to what it did."""

    def __init__(self) -> None:
        self.disk = Ledger()
        self.now = Mono(100.0)
        self.records: list[io.BytesIO] = []
        self.grants = 0
        self.begin()

    def begin(self) -> None:
        self.answers: list[ev.Event] = []
        header = flight.Header(
            software="p2pq",
            identity=IDENTITY,
            settings=ScheduleSettings(),
            restored=self.disk.restored(),
            links_max=8,
            keep_days=30,
            now=self.now,
            wall=WALL,
            seed=bytes([len(self.records)]) * 32,
        )
        self.node = header.begin()
        self.records.append(io.BytesIO())
        self.records[-1].write(flight.MAGIC + flight.pack(header))

    def do(self, event: ev.Event) -> None:
        record = self.records[-1]
        record.write(flight.pack(flight.Heard(self.now, event)))
        effects = self.node.handle(event, self.now)
        record.write(flight.pack(flight.decided(effects)))
        for effect in effects:
            if isinstance(effect, fx.Record):
                self.disk.apply(effect.row)
            self.answers += self.follow(effect)

    def follow(self, effect: fx.Effect) -> Iterator[ev.Event]:
        match effect:
            case fx.Send(peer=ANN.node, message=msg.Request(nonce=nonce)):
                self.grants += 1
                yield ev.Received(peer=ANN.node, message=granted((item(self.grants),), nonce=nonce))
            case fx.Start(lease=lease, master=master):
                yield ev.Started(lease=lease, master=master)
                yield ev.Exited(lease=lease, master=master, outcome=OK, sandbox="strict")
                yield ev.Faulted(lease=lease, master=master, fault="disk")
            case fx.Train(starts=starts):
                ends = [
                    ev.Exited(lease=each.lease, master=each.master, outcome=OK, sandbox="strict") for each in starts
                ]
                yield ev.TrainExited(exits=(ends[0],), back=((starts[-1].master, starts[-1].lease),))
                yield ev.TrainExited(exits=tuple(ends))
            case fx.Collect(lease=lease):
                yield ev.Several(events=(ev.Collected(lease=lease), ev.CollectFailed(lease=lease, reason="late")))
            case fx.Deliver(job=job, task=task):
                yield ev.Delivered(job=job, task=task, wall=WALL)


@given(moves)
@settings(max_examples=60)
def test_a_replay_decides_the_same(moves):
    recorded = Recorded()
    for move, pick, pause_s in moves:
        recorded.now = Mono(recorded.now + pause_s)
        match move:
            case "restart":
                recorded.begin()
            case "answer":
                if recorded.answers:
                    recorded.do(recorded.answers.pop(pick % len(recorded.answers)))
            case _:
                recorded.do(move)
    for record in recorded.records:
        again(record.getvalue())


def again(raw: bytes) -> replay.Replay:
    header, entries = flight.read(io.BytesIO(raw).read)
    replayed = replay.Replay(replay.parser().parse_args(["-", "--check"]), header, lambda _: None)
    replayed.run(entries)
    return replayed


def test_the_moves_lead_somewhere():
    """A run by hand through the same machinery: own work and a guest, from start to end, and a second life."""
    recorded = Recorded()
    for event in (*PLAIN[:2], *PLAIN[6:7], JOBS[0]):
        recorded.do(event)
    for _ in range(40):
        if recorded.answers:
            recorded.do(recorded.answers.pop(0))
    recorded.begin()
    recorded.do(ev.Tick())
    lives = [again(record.getvalue()) for record in recorded.records]
    assert [life.events > 0 and life.effects > 0 for life in lives] == [True, True]
    assert lives[0].effects > 40
    assert recorded.disk.restored().epoch == 2
