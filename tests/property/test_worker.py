"""Whatever masters say and whatever happens here: no lease runs twice, no room is used twice, no result is lost."""

from random import Random
from typing import get_args

import msgspec
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from p2pq.core import effects as fx
from p2pq.core import events as ev
from p2pq.core.records import Restored, ResultKept, ResultReleased
from p2pq.core.worker import Worker
from p2pq.model.config import ScheduleSettings
from p2pq.model.ids import LeaseId, Mono, NodeId, Wall
from p2pq.model.job import Outcome, Profile, Resources
from p2pq.model.owner import Stance, Verdict
from p2pq.wire import messages as msg
from p2pq.wire import sign
from p2pq.wire.objects import Grant, GrantItem, Result
from tests.unit.core.workerkit import (
    ANN,
    BOB,
    IDENTITY,
    KEY,
    ME,
    OFFER,
    OK,
    OWN,
    PROFILE,
    WALL,
    Member,
    entropy,
    granted,
    manifest,
    receipted,
)

MEMBERS = {member.node: member for member in (ANN, BOB, ME)}
members = st.sampled_from((ANN, BOB, ME))
counters = st.integers(0, 12)


class Worker_(RuleBasedStateMachine):  # noqa: N801  the rules below are the names that matter
    """A worker among masters that answer, err and lie, on a machine that restarts."""

    def __init__(self) -> None:
        super().__init__()
        self.now = Mono(0.0)
        self.lives = 0
        self.numbers = 0
        self.disk: dict[tuple[NodeId, LeaseId], ResultKept] = {}
        self.requests: dict[bytes, tuple[Member, msg.Request]] = {}
        self.granted: list[tuple[Member, msg.Granted]] = []
        self.next_lease: dict[NodeId, int] = {}
        self.up: dict[NodeId, None] = {}
        self.said: dict[tuple[NodeId, LeaseId], None] = {}
        self.counter = 20
        self.boot()

    def boot(self) -> None:
        self.lives += 1
        self.offer = OFFER
        self.stance: Stance = "run"
        self.running: dict[tuple[NodeId, LeaseId], fx.Start] = {}
        self.behind: dict[tuple[NodeId, LeaseId], LeaseId] = {}
        """Of those on a train: its first lease."""
        self.still: set[tuple[NodeId, LeaseId]] = set()
        self.told: dict[tuple[NodeId, LeaseId], None] = {}
        """Of those, the ones that were told to end and to leave a checkpoint."""
        self.started: dict[tuple[NodeId, LeaseId], None] = {}
        self.requests.clear()
        self.questions: dict[bytes, tuple[Member, msg.Confirm]] = {}
        self.up.clear()
        self.worker = Worker(
            IDENTITY,
            ScheduleSettings(),
            Restored(kept=tuple(self.disk.values())),
            Random(self.lives),
            self.entropy,
            lambda now: Wall(WALL + round(now * 1000)),
        )
        self.do(OFFER)
        for member in MEMBERS.values():
            self.link_up(member, ("submit", "work"))

    def entropy(self, size: int) -> bytes:
        self.numbers += 1
        return self.numbers.to_bytes(size, "big")

    def do(self, event: ev.Event) -> None:
        for effect in self.worker.handle(event, self.now):
            match effect:
                case fx.Record(row=ResultKept() as row):
                    self.disk[row.master, row.lease] = row
                case fx.Record(row=ResultReleased() as row):
                    del self.disk[row.master, row.lease]
                case fx.Start():
                    assert effect.own or self.stance == "run", "a guest began that the owner does not want"
                    self.starts(effect)
                    self.room_is_not_used_twice()
                case fx.Train(starts=starts):
                    assert len(starts) > 1, "a train of one"
                    for start in starts:
                        assert start.own, "guests are charged one by one"
                        self.starts(start)
                        self.behind[start.master, start.lease] = starts[0].lease
                    self.room_is_not_used_twice()
                case fx.Kill(checkpoint_s=0.0):
                    del self.running[effect.master, effect.lease]
                    self.still.discard((effect.master, effect.lease))
                    self.told.pop((effect.master, effect.lease), None)
                case fx.Kill():
                    assert (effect.master, effect.lease) in self.running
                    assert effect.master != ANN.node, "its version takes no checkpoints"
                    self.told[effect.master, effect.lease] = None
                    self.still.discard((effect.master, effect.lease))
                case fx.Suspend(reason=reason):
                    assert effect.master != ME.node, (
                        "its own master sleeps and wakes with it, and own tasks are the owner's"
                    )
                    assert (effect.master, effect.lease) in self.running.keys() - (set() if reason else self.still)
                    self.still.add((effect.master, effect.lease))
                case fx.Continue():
                    self.still.remove((effect.master, effect.lease))
                case fx.Send(peer=peer):
                    assert peer in self.up, "said to nobody"
                    self.hear(peer, effect.message)

    def starts(self, start: fx.Start) -> None:
        key = (start.master, start.lease)
        assert key not in self.started, "a lease ran twice"
        self.started[key] = None
        self.running[key] = start
        assert start.key == KEY
        assert start.own or start.sandbox == "strict"

    def hear(self, peer: NodeId, message: msg.CoreMessage) -> None:
        match message:
            case msg.Request():
                assert message.nonce not in self.requests
                self.requests[message.nonce] = (MEMBERS[peer], message)
            case msg.ResultReady():
                for item in sign.open_signed(message.result, Result, ME.node).items:
                    self.said[peer, item.lease] = None
            case msg.Confirm():
                still = {key for key in self.still if key[0] == peer}
                # What the owner does not want now, and came after the sleep, nobody doubts.
                assert {(peer, lease) for lease in message.leases} >= still or self.stance == "suspend"
                self.questions[message.nonce] = (MEMBERS[peer], message)
            case msg.Holding():
                held = {lease for master, lease in (*self.running, *self.disk) if master == peer}
                assert held <= set(message.leases), "something held was not told"

    def room_is_not_used_twice(self) -> None:
        for own, profile in ((True, self.offer.own), (False, self.offer.profile)):
            slots = {self.behind.get(key, key): start for key, start in self.running.items() if start.own is own}
            cpus = sum(start.resources.cpus for start in slots.values())
            assert cpus <= profile.slots, "more runs than there is room"

    # -- what masters do --------------------------------------------------------------------------------------------

    @rule(member=members, caps=st.sampled_from([("submit", "work"), ("submit", "work"), ("work",)]))
    def link_up(self, member: Member, caps: tuple[str, ...]) -> None:
        if member is ME:
            caps = ("submit", "work")
        self.up[member.node] = None
        self.do(member.link(caps=caps, minor=1 if member is ANN else msg.MINOR))
        if "submit" in caps:
            self.has_work(member, some=True)

    @rule(member=members)
    def link_down(self, member: Member) -> None:
        self.up.pop(member.node, None)
        self.do(ev.LinkDown(peer=member.node))

    @rule(member=members, some=st.booleans())
    def has_work(self, member: Member, some: bool) -> None:
        self.counter += 1
        message = msg.HasWork(counter=self.counter, owners=(member.name,) if some else ())
        self.do(ev.Received(peer=member.node, message=message))

    @rule(member=members, counter=counters, owner=st.sampled_from(("ann", "zoe")))
    def has_old_or_foreign_work(self, member: Member, counter: int, owner: str) -> None:
        self.do(ev.Received(peer=member.node, message=msg.HasWork(counter=counter, owners=(owner,))))

    @precondition(lambda self: self.requests)
    @rule(data=st.data(), number=st.integers(1, 2), count=st.integers(1, 4), cpus=st.integers(1, 2), sent=st.booleans())
    def grant(self, data: st.DataObject, number: int, count: int, cpus: int, sent: bool) -> None:
        nonce = data.draw(st.sampled_from(sorted(self.requests)))
        member, request = self.requests.pop(nonce)
        job = manifest(member, number, resources=Resources(cpus=cpus))
        items = []
        for task in range(min(count, request.tasks_max)):
            lease = self.next_lease.get(member.node, 0)
            self.next_lease[member.node] = lease + 1
            items.append(GrantItem(task, 1, LeaseId(1, lease)))
        message = granted(
            tuple(items), member=member, of=job, nonce=nonce, sent=sent, expires=WALL + 60_000 + round(self.now * 1000)
        )
        self.granted.append((member, message))
        self.do(ev.Received(peer=member.node, message=message))

    @precondition(lambda self: self.requests)
    @rule(data=st.data())
    def grant_well(self, data: st.DataObject) -> None:
        self.grant(data, 1, 4, 1, sent=False)

    @precondition(lambda self: self.running)
    @rule(data=st.data())
    def ends_well(self, data: st.DataObject) -> None:
        self.ends(data, faulty=False)

    @precondition(lambda self: self.granted)
    @rule(data=st.data(), member=members)
    def grant_again(self, data: st.DataObject, member: Member) -> None:
        author, message = data.draw(st.sampled_from(self.granted))
        peer = data.draw(st.sampled_from((author, member)))
        self.do(ev.Received(peer=peer.node, message=message))

    @precondition(lambda self: self.requests)
    @rule(data=st.data(), counter=counters)
    def nothing(self, data: st.DataObject, counter: int) -> None:
        nonce = data.draw(st.sampled_from(sorted(self.requests)))
        member, request = self.requests.pop(nonce)
        message = msg.Nothing(nonce=nonce, owner=request.owner, counter=counter)
        self.do(ev.Received(peer=member.node, message=message))

    @rule(member=members, counter=counters)
    def cancel(self, member: Member, counter: int) -> None:
        self.do(ev.Received(peer=member.node, message=msg.Cancel(leases=(LeaseId(1, counter),))))

    @rule(member=members, counter=counters)
    def receipt(self, member: Member, counter: int) -> None:
        key = (member.node, LeaseId(1, counter))
        self.do(ev.Received(peer=member.node, message=receipted(LeaseId(1, counter), member=member)))
        if member.node in self.up:
            assert key not in self.disk

    @rule(member=members, raw=st.binary(max_size=40))
    def garbage(self, member: Member, raw: bytes) -> None:
        for message in (msg.Granted(grant=raw, manifest=raw), msg.Receipted(receipt=raw)):
            self.do(ev.Received(peer=member.node, message=message))

    # -- what happens here ------------------------------------------------------------------------------------------

    @precondition(lambda self: self.running)
    @rule(data=st.data())
    def runs(self, data: st.DataObject) -> None:
        master, lease = data.draw(st.sampled_from(sorted(self.running)))
        self.do(ev.Started(lease=lease, master=master))
        self.do(ev.Progressed(lease=lease, master=master, progress=data.draw(st.integers(0, 1000))))

    @precondition(lambda self: self.running)
    @rule(data=st.data(), faulty=st.booleans())
    def ends(self, data: st.DataObject, faulty: bool) -> None:
        key = data.draw(st.sampled_from(sorted(self.running)))
        del self.running[key]
        self.still.discard(key)
        master, lease = key
        self.said.pop(key, None)
        if faulty:
            self.told.pop(key, None)
            self.do(ev.Faulted(lease=lease, master=master, fault="disk"))
            return
        if key in self.told:
            del self.told[key]
            checkpoint = data.draw(st.booleans(), label="checkpoint")
            saved = Outcome(reason="saved")
            self.do(ev.Exited(lease=lease, master=master, outcome=saved, sandbox="strict", checkpoint=checkpoint))
            assert (key in self.disk) is checkpoint, "a checkpoint was lost, or made up"
            return
        self.do(ev.Exited(lease=lease, master=master, outcome=OK, sandbox="strict"))
        assert key in self.disk, "a result was lost"
        assert master not in self.up or key in self.said, "a result was not said"

    @precondition(lambda self: self.behind.keys() & self.running.keys())
    @rule(data=st.data())
    def train_ends(self, data: st.DataObject) -> None:
        """Some of a train end together, and some behind them never begin there."""
        first = data.draw(
            st.sampled_from(sorted({self.behind[key] for key in self.behind.keys() & self.running.keys()}))
        )
        train = [key for key in self.running if self.behind.get(key) == first and key not in self.told]
        ended = data.draw(st.integers(0, len(train)), label="ended")
        back = train[ended:] if data.draw(st.booleans(), label="given back") else []
        for key in (*train[:ended], *back):
            del self.running[key], self.behind[key]
        for key in back:
            del self.started[key]
        exits = tuple(
            ev.Exited(lease=lease, master=master, outcome=OK, sandbox="strict") for master, lease in train[:ended]
        )
        self.do(ev.TrainExited(exits=exits, back=tuple(back)))
        assert all(key in self.disk for key in train[:ended]), "a result was lost"

    @rule(slots=st.integers(0, 4), accepts=st.booleans())
    def offers(self, slots: int, accepts: bool) -> None:
        # Never below what runs: that is for the policy to end first.
        guests = sum(start.resources.cpus for start in self.running.values() if not start.own)
        profile: Profile = msgspec.structs.replace(PROFILE, slots=max(slots, guests), accepts=accepts)
        self.offer = ev.Offering(profile=profile, own=OWN)
        self.do(self.offer)

    @rule(after=st.sampled_from([0.0, 0.05, 0.5, 1.0, 5.0, 30.0, 700.0]))
    def wait(self, after: float) -> None:
        self.now = Mono(self.now + after)
        self.do(ev.Tick())

    @precondition(lambda self: self.questions)
    @rule(data=st.data(), every=st.integers(1, 3), asked=st.booleans())
    def confirmed(self, data: st.DataObject, every: int, asked: bool) -> None:
        nonce = data.draw(st.sampled_from(sorted(self.questions)))
        member, question = self.questions.pop(nonce)
        before = dict(self.running)
        still = {key for key in self.still if key[0] == member.node}
        answer = msg.Confirmed(nonce=nonce if asked else bytes(16), leases=question.leases[::every])
        self.do(ev.Received(peer=member.node, message=answer))
        kept = {(member.node, lease) for lease in answer.leases}
        gone = before.keys() - self.running.keys()
        assert gone <= still - kept, "an attempt was given up that was confirmed, or that nobody doubted"

    @precondition(lambda self: self.running)
    @rule(now=st.booleans())
    def drain(self, now: bool) -> None:
        self.do(ev.Drain(save_s=2.5))
        if now:
            self.do(ev.Drain(now=True))
            assert not self.running, "something was not handed back"

    @rule(stance=st.sampled_from(get_args(Stance)), grace_s=st.sampled_from([0.0, 10.0]))
    def owner(self, stance: Stance, grace_s: float) -> None:
        """The owner comes and goes."""
        before, told = dict(self.running), dict(self.told)
        self.stance = stance
        self.do(ev.OwnerIs(verdict=Verdict(stance=stance, reason="the owner is back"), grace_s=grace_s))
        gone = before.keys() - self.running.keys()
        assert all(not before[key].own for key in gone), "an own task was ended"
        guests = {key for key, start in self.running.items() if not start.own}
        if stance == "kill":
            assert not guests, "a guest was not killed"
        elif stance == "evict":
            assert guests <= self.told.keys(), "a guest was not told to end"
        else:
            assert not gone, "a guest was ended"
            assert told == self.told, "a guest was told to end"
        if stance == "suspend":
            assert guests <= self.still | self.told.keys(), "a guest runs on"

    @rule(slept=st.sampled_from([6.0, 30.0, 700.0]), counted=st.booleans())
    def sleep(self, slept: float, counted: bool) -> None:
        if counted:
            self.now = Mono(self.now + slept)
        self.do(ev.Woke(slept_s=slept, counted=counted))

    @rule()
    def restart(self) -> None:
        # What ran is gone with its runner; a lease of before never runs again, as its nonce died too.
        before = self.started
        self.boot()
        self.started = before

    @invariant()
    def all_is_well(self) -> None:
        self.worker.check()
        assert self.worker.deadline is None or self.worker.deadline > self.now
        foreign = sum(master != IDENTITY.node for master, _ in self.disk)
        assert sum(kept.results for kept in self.worker.kept()) == foreign
        held = {(guest.master, guest.lease) for guest in self.worker.guests(self.now) if guest.state != "waiting"}
        assert held == set(self.running)
        still = {(guest.master, guest.lease) for guest in self.worker.guests(self.now) if guest.state == "suspended"}
        assert still == self.still


TestWorker = Worker_.TestCase
TestWorker.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)


def test_the_kit_grants_what_it_says() -> None:
    message = granted((GrantItem(0, 1, LeaseId(1, 1)),))
    assert sign.open_signed(message.grant, Grant, ANN.node).to == ME.node
    assert entropy(3) == b"eee"
