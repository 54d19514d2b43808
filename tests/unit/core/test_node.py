"""One node: everything it decides, and what it says to itself, in one turn and in order."""

from random import Random

import msgspec
import pytest

from p2pq.core import effects as fx
from p2pq.core import events as ev
from p2pq.core.ledger import Ledger
from p2pq.core.node import LINKS_MAX, Node
from p2pq.core.prekeys import PREKEY_S, make_card
from p2pq.core.reaching import via_address
from p2pq.core.records import EpochBegun, ResultKept
from p2pq.core.through import cluster_of
from p2pq.core.views import PeerView, Policy
from p2pq.model.config import ScheduleSettings
from p2pq.model.halt import Halt
from p2pq.model.ids import JobId, LeaseId, Mono, Wall
from p2pq.model.job import Outcome, Resources
from p2pq.model.notice import BridgeSuspected, NodeWoke, PeerDown
from p2pq.model.owner import Verdict
from p2pq.wire import body, prims, seal, sign, trust
from p2pq.wire import messages as msg
from p2pq.wire.objects import Cert, Grant, GrantItem
from tests.unit.core.workerkit import (
    ANN,
    BOB,
    BODY,
    CAT,
    IDENTITY,
    KEY,
    ME,
    OFFER,
    OK,
    PROFILE,
    SAVED_BODY,
    SAVED_KEY,
    WALL,
    entropy,
    granted,
    item,
    job_id,
    manifest,
    result_item,
    returned,
    send,
    start,
)

ROOT = trust.make_root(lambda size: b"r" * size)


class Bench:
    """A node, its disk and its clock."""

    def __init__(self, **fields) -> None:
        self.disk = Ledger()
        self.now = Mono(100.0)
        self.fields = fields
        self.boot()

    def boot(self) -> None:
        self.numbers = 0
        self.node = Node(
            msgspec.structs.replace(IDENTITY, root=ROOT.public),
            ScheduleSettings(),
            self.disk.restored(),
            Random(1),
            self.entropy,
            now=self.now,
            wall=Wall(WALL),
            **self.fields,
        )

    def entropy(self, size: int) -> bytes:
        self.numbers += 1
        return self.numbers.to_bytes(size, "big")

    def do(self, event: ev.Event, *, after: float = 0.0) -> list[fx.Effect]:
        self.now = Mono(self.now + after)
        effects = self.node.handle(event, self.now)
        for effect in effects:
            assert not isinstance(effect, fx.Send) or effect.peer != ME.node
            if isinstance(effect, fx.Record):
                self.disk.apply(effect.row)
        self.node.check()
        assert self.node.deadline is None or self.node.deadline > self.now
        return effects

    def says(self, message: msg.CoreMessage, member=ANN) -> list[fx.Effect]:
        return self.do(ev.Received(peer=member.node, message=message))

    def submit(
        self, number: int = 1, *, secret: bytes = b"r" * 32, halt: Halt | None = None, **fields
    ) -> list[fx.Effect]:
        raw = sign.sign(ME.signer, manifest(ME, number, **({"tasks": 1} | fields)))
        return self.do(ev.Submitted(manifest=raw, key=KEY, reply_secret=secret, wall=WALL, halt=halt))


@pytest.fixture
def bench() -> Bench:
    bench = Bench()
    bench.do(ev.Tick())
    return bench


def kinds(effects: list[fx.Effect]) -> list[str]:
    """Name what matters of effects: rows, notices and messages by their own type."""
    names = []
    for effect in effects:
        inner = getattr(effect, "row", None) or getattr(effect, "notice", None) or getattr(effect, "message", None)
        names.append(type(effect if inner is None else inner).__name__)
    return names


def test_a_life_begins_at_once_with_a_new_epoch():
    bench = Bench()
    assert bench.node.deadline == 100.0
    assert bench.do(ev.Tick()) == [fx.Record(row=EpochBegun(epoch=1))]
    assert bench.node.deadline is None


def test_own_work_goes_from_submission_to_start_in_one_turn(bench: Bench):
    bench.do(OFFER)
    effects = bench.submit()
    job = manifest(ME, tasks=1)
    assert kinds(effects) == [
        "JobAdded",
        "JobQueued",
        "LeaseGranted",
        "TaskGranted",
        "GrantKept",
        "Start",
        "GuestTaken",
    ]
    assert effects[5:] == start(item(0), member=ME, of=job, may_be_empty=True)
    assert bench.node.busy


def test_own_work_is_settled_and_delivered(bench: Bench):
    bench.do(OFFER)
    bench.submit()
    lease = LeaseId(1, 0)
    assert bench.do(ev.Started(lease=lease, master=ME.node)) == []
    left = ev.Exited(lease=lease, master=ME.node, outcome=OK, sandbox="strict", body=BODY)
    effects = bench.do(left, after=1.0)
    assert kinds(effects) == ["GuestEnded", "ResultKept", "Collect"]
    assert bench.node.owes
    effects = bench.do(ev.Collected(lease=lease))
    assert kinds(effects) == ["AttemptEnded", "TaskSettled", "Deliver", "ResultReleased", "Release"]
    assert not bench.node.owes
    effects = bench.do(ev.Delivered(job=job_id(), task=0, wall=WALL))
    assert kinds(effects) == ["TaskDelivered", "TaskResultsWritten", "JobEnded", "JobFinished"]
    assert bench.node.deadline is None or not bench.node.busy


def test_own_work_that_left_nothing_counts_at_once(bench: Bench):
    bench.do(OFFER)
    bench.submit()
    effects = bench.do(ev.Exited(lease=LeaseId(1, 0), master=ME.node, outcome=OK, sandbox="strict"), after=1.0)
    assert kinds(effects) == [
        "GuestEnded",
        "AttemptEnded",
        "TaskSettled",
        "TaskResultsWritten",
        "JobEnded",
        "JobFinished",
        "Release",
    ], "there is nothing to bring or to write out, and nothing was kept for longer than this turn"
    assert effects[1].row.delivered
    assert not bench.node.owes
    assert bench.node.jobs() == []


def test_what_is_brought_together_is_acknowledged_together(bench: Bench):
    bench.do(OFFER)
    bench.submit(tasks=2)
    leases = [LeaseId(1, 0), LeaseId(1, 1)]
    for lease in leases:
        bench.do(ev.Exited(lease=lease, master=ME.node, outcome=OK, sandbox="strict", body=BODY), after=1.0)
    effects = bench.do(ev.Several(events=tuple(ev.Collected(lease=lease) for lease in leases)))
    assert kinds(effects) == [
        *("AttemptEnded", "TaskSettled", "Deliver") * 2,
        *("ResultReleased", "Release") * 2,
    ]
    effects = bench.do(ev.Several(events=tuple(ev.Delivered(job=job_id(), task=task, wall=WALL) for task in (0, 1))))
    assert kinds(effects)[-2:] == ["JobEnded", "JobFinished"]


def test_own_work_that_failed_and_left_nothing_is_tried_again(bench: Bench):
    bench.do(OFFER)
    bench.submit(retries=1)
    failed = Outcome(reason="exit", exit=1)
    effects = bench.do(ev.Exited(lease=LeaseId(1, 0), master=ME.node, outcome=failed, sandbox="strict"), after=1.0)
    assert kinds(effects)[:3] == ["GuestEnded", "AttemptEnded", "AttemptFailed"]
    assert not effects[1].row.delivered


def test_a_job_whose_last_task_left_nothing_says_first_after_what_it_was_halted(bench: Bench):
    bench.do(OFFER)
    bench.submit(tasks=2, retries=0, halt=Halt(now=False, what="success", count=1))
    failed = ev.Exited(lease=LeaseId(1, 0), master=ME.node, outcome=Outcome(reason="exit", exit=1), sandbox="strict")
    assert "JobEnded" not in kinds(bench.do(failed, after=1.0))
    effects = bench.do(ev.Exited(lease=LeaseId(1, 1), master=ME.node, outcome=OK, sandbox="strict"), after=1.0)
    said = [name for name in kinds(effects) if name.startswith("Job")]
    assert said == ["JobHalted", "JobHalted", "JobEnded", "JobFinished"]


def test_own_work_survives_a_restart(bench: Bench):
    bench.do(OFFER)
    bench.submit()
    bench.now = Mono(200.0)
    bench.boot()
    effects = bench.do(ev.Tick())
    # The new worker holds nothing, so the task waits again at once.
    assert kinds(effects) == ["EpochBegun", "LeaseEnded", "AttemptLost"]
    assert "Start" in kinds(bench.do(OFFER))


@pytest.mark.parametrize("by_name", [False, True], ids=["node", "owner"])
def test_who_is_banned_gets_nothing_more_from_here_even_before_its_link_is_closed(bench: Bench, by_name: bool):
    bench.do(OFFER)
    bench.do(ANN.link())
    effects = bench.says(msg.HasWork(counter=1, owners=("ann",)))
    number = int.from_bytes(effects[0].message.nonce, "big")
    asked = ev.OwnerBanAsked(owner="ann", banned=True) if by_name else ev.BanAsked(node=ANN.node, banned=True)
    assert kinds(bench.do(asked))[-2:] == ["Hangup", "PeerDown"]
    assert bench.says(granted((item(1),), number=number)) == [fx.Drop(peer=ANN.node, reason="not linked")]
    assert bench.says(msg.HasWork(counter=2, owners=("ann",))) == [fx.Drop(peer=ANN.node, reason="not linked")]
    assert not bench.node.guests(bench.now)
    assert bench.do(ev.LinkDown(peer=ANN.node)) == []
    assert kinds(bench.do(ANN.link())) == ["Hangup", "PeerRefused"]
    assert bench.node.banned(ANN.node, "ann")
    assert bench.node.ban_at("ann") == 0
    held = Cert(
        mesh=bytes(32),
        sub=ANN.node,
        iss=ROOT.public,
        ser=bytes(16),
        name="ann",
        owner="ann",
        caps=(),
        nbf=0,
        exp=1,
    )
    assert bench.node.out(held)
    assert not bench.node.out(msgspec.structs.replace(held, sub=BOB.node, owner="bob"))


def test_a_ban_of_an_owner_stops_its_jobs_whether_their_master_is_linked_or_not(bench: Bench):
    """What waits, what runs, and results that wait; own work of the same name goes on."""
    bench.do(OFFER)
    bench.do(ANN.link(owner="me"))
    effects = bench.says(msg.HasWork(counter=1, owners=("me",)))
    number = int.from_bytes(effects[0].message.nonce, "big")
    bench.says(granted((item(1), item(2)), number=number, of=manifest(owner="me")))
    bench.do(ev.Started(lease=LeaseId(1, 1), master=ANN.node))
    outcome = Outcome(reason="ok", exit=0)
    bench.do(ev.Exited(lease=LeaseId(1, 2), master=ANN.node, outcome=outcome, sandbox="strict"))
    bench.do(ev.LinkDown(peer=ANN.node))
    bench.submit()
    assert len(bench.node.guests(bench.now)) == 2
    effects = bench.do(ev.OwnerBanAsked(owner="me", banned=True))
    assert [each for each in effects if isinstance(each, fx.Kill)] == [
        fx.Kill(lease=LeaseId(1, 1), master=ANN.node, reason="banned")
    ]
    assert fx.Release(lease=LeaseId(1, 2), master=ANN.node) in effects
    assert [guest.own for guest in bench.node.guests(bench.now)] == [True]
    lifted = bench.do(ev.OwnerBanAsked(owner="me", banned=False))
    assert {"Kill", "Release"}.isdisjoint(kinds(lifted))
    assert not bench.node.banned(ANN.node, "me")


def test_own_work_goes_on_from_its_checkpoint_after_a_restart(bench: Bench):
    bench.do(OFFER)
    bench.submit(secret=ME.prekey_secret)
    first, again = LeaseId(1, 0), GrantItem(0, 2, LeaseId(2, 0))
    bench.do(ev.Started(lease=first, master=ME.node))
    bench.do(ev.Drain())
    told = bench.do(ev.Drain(save_s=2.5))
    assert told == [fx.Kill(lease=first, master=ME.node, reason="draining", checkpoint_s=2.5)]
    key = seal.seal(ME.prekey, SAVED_KEY, body.result_context(job_id(), 0, 1, first), entropy)
    saved = Outcome(reason="saved")
    left = {"key": key, "body": SAVED_BODY, "checkpoint": True}
    bench.do(ev.Exited(lease=first, master=ME.node, outcome=saved, sandbox="strict", **left))
    effects = bench.do(ev.Collected(lease=first))
    assert kinds(effects) == ["AttemptEnded", "AttemptLost", "ResultReleased", "Release"]
    bench.do(ev.Drain(now=True))
    bench.boot()
    bench.do(ev.Tick())
    effects = bench.do(OFFER)
    job = manifest(ME, tasks=1)
    assert effects[-2:] == start(
        again, member=ME, of=job, checkpoint_key=SAVED_KEY, checkpoint=SAVED_BODY, may_be_empty=True
    )


def test_a_guest_is_asked_for_and_run(bench: Bench):
    bench.do(OFFER)
    assert kinds(bench.do(ANN.link())) == ["PeerSeen", "PeerUp", "Holding", "ProfileIs"]
    effects = bench.says(msg.HasWork(counter=1, owners=("ann",)))
    number = int.from_bytes(effects[0].message.nonce, "big")
    assert bench.says(granted((item(1),), number=number))[:2] == start(item(1))
    assert [guest.task for guest in bench.node.guests(bench.now)] == [0]


def test_work_is_granted_to_a_worker(bench: Bench):
    bench.do(ANN.link())
    bench.says(msg.Holding())
    bench.says(msg.ProfileIs(profile=PROFILE))
    assert kinds(bench.submit())[-1] == "HasWork"
    request = msg.Request(nonce=bytes(16), owner="me", cpus=2)
    assert kinds(bench.says(request)) == ["LeaseGranted", "TaskGranted", "GrantKept", "Granted", "HasWork"]
    assert kinds(bench.says(msg.Heartbeat(beats=(msg.Beat(LeaseId(1, 0), progress=5),)))) == ["TaskProgressed"]
    assert bench.node.peers(bench.now) == (
        PeerView(
            id=ANN.node,
            name="ann",
            owner="ann",
            address="192.0.2.1:9476",
            path=(),
            state="up",
            reason="",
            slots=2,
            free=1,
            has_work=False,
            profile=PROFILE,
            boot=bytes(16),
            caps=("submit", "work"),
        ),
    )
    assert bench.says(msg.Leaving()) == []


def test_who_is_not_linked_is_not_heard(bench: Bench):
    assert bench.says(msg.Holding()) == [fx.Drop(peer=ANN.node, reason="not linked")]


def test_a_link_that_is_refused_reaches_nobody():
    bench = Bench(links_max=0)
    bench.do(OFFER)
    assert kinds(bench.do(ANN.link())) == ["Hangup", "LinksFull"]
    assert bench.do(ev.LinkDown(peer=ANN.node)) == []
    assert not bench.node.linked(ANN.node)
    assert LINKS_MAX == 64


def test_a_link_that_goes_is_told_to_all(bench: Bench):
    bench.do(OFFER)
    bench.do(ANN.link())
    bench.says(msg.HasWork(counter=1, owners=("ann",)))
    assert bench.node.peers(bench.now)[0].has_work
    assert bench.do(ev.LinkDown(peer=ANN.node, reason="reset")) == [
        fx.Emit(notice=PeerDown(peer=ANN.node, reason="reset"))
    ]
    assert not bench.node.peers(bench.now)[0].has_work


def test_peers_and_bans_reach_the_membership(bench: Bench):
    bench.do(ANN.link())
    assert bench.says(msg.Peers(addresses=((BOB.node, ("192.0.2.2:9476",)),))) == [
        fx.Dial(address="192.0.2.2:9476", node=BOB.node)
    ]
    bench.do(ev.DialFailed(address="192.0.2.2:9476", reason="timeout", node=BOB.node))
    bench.do(ev.AddressSeen(addresses=("192.0.2.3:9476",), source="config"))
    bench.do(ev.BanAsked(node=BOB.node, banned=True))
    assert bench.node.banned(BOB.node)
    views = bench.node.peers(bench.now)
    assert [(view.id, view.state, view.slots) for view in views] == [
        (ANN.node, "up", 0),
        (BOB.node, "refused", 0),
        (None, "connecting", 0),
    ]
    assert views[1].profile is None


def test_mesh_keys_reach_the_membership(bench: Bench):
    assert kinds(bench.do(ANN.link(minor=msg.TRUST_SINCE)))[0] == "Heads"
    assert kinds(bench.do(ev.Tick(wall=Wall(WALL)))) == ["Heads"]
    raw = trust.issue_mesh_key(ROOT, ROOT.public, b"k" * 32, at=WALL)
    assert (bench.node.mesh_keys.psks, bench.node.mesh_keys.newest_at) == ((), 0)
    assert kinds(bench.says(msg.MeshKeys(keys=(raw,)))) == ["MeshKeysKept", "MeshKeyRotated"]
    assert (bench.node.mesh_keys.psks, bench.node.mesh_keys.newest_at) == ((b"k" * 32,), WALL)
    assert kinds(bench.says(msg.BansKnown())) == []
    assert kinds(bench.says(msg.Heads(bans=bytes(32), mesh_keys=bytes(32)))) == ["BansKnown", "MeshKeys"]
    other = trust.issue_mesh_key(ROOT, ROOT.public, b"l" * 32, at=WALL)
    assert kinds(bench.do(ev.MeshKeyAsked(signed=other))) == ["MeshKeysKept", "MeshKeys", "MeshKeyRotated"]


LATE = WALL + 8 * 24 * 3600 * 1000


def a_week_later(bench: Bench) -> list[fx.Effect]:
    return bench.do(ev.Tick(wall=Wall(WALL + 7 * 24 * 3600 * 1000)), after=PREKEY_S)


def test_a_new_prekey_reaches_the_linked_and_what_is_sealed_to_either_runs(bench: Bench):
    """Also own work, and whoever links up later; who is too old to be told has to link anew."""
    bench.do(OFFER)
    bench.do(ANN.link(minor=msg.TRUST_SINCE))
    bench.do(BOB.link(address="192.0.2.2:9476"))
    effects = a_week_later(bench)
    assert kinds(effects)[-3:] == ["PrekeyChanged", "KeycardIs", "Hangup"]
    assert (effects[-2].peer, effects[-1]) == (ANN.node, fx.Hangup(peer=BOB.node, reason="new-prekey"))
    assert bench.node.prekeys.public == effects[-3].notice.prekey != ME.prekey
    assert kinds(bench.do(BOB.link(minor=msg.TRUST_SINCE)))[-1] == "KeycardIs"
    effects = bench.says(msg.HasWork(counter=1, owners=("ann",)))
    number = int.from_bytes(effects[0].message.nonce, "big")
    assert "Start" in kinds(bench.says(granted((item(1),), number=number, of=manifest(expires=LATE), expires=LATE)))
    assert "Start" in kinds(bench.submit(expires=LATE))


def test_a_master_seals_to_the_prekey_that_a_keycard_names(bench: Bench):
    bench.do(ANN.link(minor=msg.TRUST_SINCE))
    bench.says(msg.ProfileIs(profile=PROFILE))
    bench.submit(tasks=2)
    secret = b"n" * 32
    ann = msgspec.structs.replace(IDENTITY, node=ANN.node, secret=ANN.signer.seed)
    grants = []
    for number in range(2):
        effects = bench.says(msg.Request(nonce=number.to_bytes(16, "big"), owner="me", cpus=1))
        [said] = [
            each.message for each in effects if isinstance(each, fx.Send) and isinstance(each.message, msg.Granted)
        ]
        grants.append(sign.open_signed(said.grant, Grant, ME.node))
        assert said.manifest, "sealed anew, so sent anew"
        card = make_card(prims.x25519_public(secret), ann, Wall(WALL))
        assert bench.says(msg.KeycardIs(card=card)) == []
    for grant, private in zip(grants, (ANN.prekey_secret, secret), strict=True):
        assert seal.open_seal(private, grant.key, grant.manifest) == KEY
    forged = make_card(bytes(32), msgspec.structs.replace(ann, boot=b"b" * 16), Wall(WALL))
    assert bench.says(msg.KeycardIs(card=forged)) == [
        fx.Drop(peer=ANN.node, reason="keycard: not of this link", close=True)
    ]


def test_the_policy_is_shown(bench: Bench):
    nothing = Policy(known=False, accepts=False, reason="", draining=False, slots=0, free=0, kept=())
    assert bench.node.policy() == nothing
    bench.do(OFFER)
    shown = Policy(known=True, accepts=True, reason="", draining=False, slots=2, free=2, kept=())
    assert bench.node.policy() == shown
    held = Verdict(stance="suspend", reason="ben is here")
    bench.do(ev.OwnerIs(verdict=held))
    assert bench.node.policy() == msgspec.structs.replace(shown, accepts=False, reason="ben is here", verdict=held)
    bench.do(ev.OwnerIs(verdict=Verdict()))
    assert bench.node.policy() == shown
    bench.do(ev.Drain())
    assert bench.node.policy() == msgspec.structs.replace(shown, accepts=False, draining=True)


def test_drain_now_hands_back_before_it_says_goodbye(bench: Bench):
    bench.do(OFFER)
    bench.do(ANN.link())
    effects = bench.says(msg.HasWork(counter=1, owners=("ann",)))
    number = int.from_bytes(effects[0].message.nonce, "big")
    bench.says(granted((item(1),), number=number))
    assert bench.do(ev.Drain(now=True))[-2:] == [returned("draining", item(1)), send(msg.Leaving())]


def test_the_wall_clock_is_corrected(bench: Bench):
    bench.do(OFFER)
    bench.do(ANN.link())
    effects = bench.says(msg.HasWork(counter=1, owners=("ann",)))
    number = int.from_bytes(effects[0].message.nonce, "big")
    bench.do(ev.Tick(wall=Wall(WALL + 10_000_000)))
    assert kinds(bench.says(granted((item(1),), number=number))) == ["Return"]


def test_jobs_can_be_looked_at(bench: Bench):
    bench.submit(tasks=3)
    assert [job.job for job in bench.node.jobs()] == [job_id()]
    assert bench.node.job(job_id()) == bench.node.jobs()[0]
    assert len(bench.node.tasks(job_id())) == 3
    assert isinstance(bench.node.why(job_id(), None, bench.now), str)
    assert bench.node.why(JobId(bytes(16)), None, bench.now) is None
    assert kinds(bench.do(ev.CancelAsked(job=job_id(), wall=WALL)))[0] == "TasksCancelled"
    assert bench.node.jobs() == []


def test_what_is_due_comes_before_the_event(bench: Bench):
    bench.do(OFFER)
    bench.do(ANN.link())
    effects = bench.says(msg.HasWork(counter=1, owners=("ann",)))
    number = int.from_bytes(effects[0].message.nonce, "big")
    # The request lapsed two seconds after it was sent: this grant is late although nothing ticked meanwhile.
    bench.now = Mono(bench.now + 2.0)
    assert bench.says(granted((item(1),), number=number)) == [returned("late", item(1))]


def test_a_ban_stops_what_runs_here_for_the_banned_and_takes_back_what_it_held(bench: Bench):
    bench.do(OFFER)
    bench.do(ANN.link())
    effects = bench.says(msg.HasWork(counter=1, owners=("ann",)))
    number = int.from_bytes(effects[0].message.nonce, "big")
    bench.says(granted((item(1),), number=number))
    bench.says(msg.Holding())
    bench.says(msg.ProfileIs(profile=msgspec.structs.replace(PROFILE, labels=(("has", "gold"),))))
    bench.submit(resources=Resources(needs=(("has", "gold"),)))
    assert "LeaseGranted" in kinds(bench.says(msg.Request(nonce=bytes(16), owner="me", cpus=1)))
    effects = bench.do(ev.BanAsked(node=ANN.node, banned=True))
    assert "Hangup" in kinds(effects)
    assert {"Kill", "GuestEnded", "LeaseEnded", "AttemptLost"} <= set(kinds(effects))
    assert not bench.node.guests(bench.now)
    assert bench.node.tasks(job_id())[0].state == "pending"
    bench.do(ev.LinkDown(peer=ANN.node))
    assert "Kill" not in kinds(bench.do(ev.BanAsked(node=ANN.node, banned=False)))


def test_own_work_goes_on_whoever_bans_this_node(bench: Bench):
    bench.do(OFFER)
    bench.submit()
    effects = bench.do(ev.BanAsked(node=ME.node, banned=True))
    assert "Kill" not in kinds(effects)
    assert bench.node.busy


def test_bans_that_peers_tell_are_judged_like_those_of_the_user(bench: Bench):
    bench.do(ANN.link())
    assert kinds(bench.says(msg.Bans(bans=(b"no ban",)))) == ["Drop"]


def test_what_is_being_collected_can_be_looked_at(bench: Bench):
    assert bench.node.collecting(LeaseId(1, 0)) is None


def test_waking_comes_before_what_is_due(bench: Bench):
    bench.do(OFFER)
    bench.submit()
    effects = bench.do(ev.Woke(slept_s=600.0, counted=True), after=600.0)
    assert effects == [fx.Emit(notice=NodeWoke(slept_s=600.0, counted=True))]
    assert bench.node.busy
    assert [guest.since_s for guest in bench.node.guests(bench.now)] == [0.0]


def test_results_that_nobody_came_for_are_forgotten_after_their_days():
    bench = Bench(keep_days=2)
    bench.disk.apply(ResultKept(lease=LeaseId(1, 1), master=ANN.node, item=result_item(item(1)), wall=WALL))
    bench.boot()
    day_ms = 24 * 3600 * 1000
    bench.do(ev.Tick(wall=Wall(WALL + 2 * day_ms)))
    assert [kept.results for kept in bench.node.policy().kept] == [1]
    assert kinds(bench.do(ev.Tick(wall=Wall(WALL + 2 * day_ms + 1)))) == ["ResultReleased", "Release", "KeptForgotten"]
    assert bench.node.policy().kept == ()
    assert bench.disk.restored().kept == ()


def test_who_gives_something_else_than_a_blob_is_told_of_and_the_best_bridge_comes_first(bench: Bench):
    for member, address in ((ANN, "192.0.2.1:9476"), (BOB, "192.0.2.2:9476")):
        bench.do(member.link(address=address, caps=("submit", "work", "bridge")))
        bench.says(msg.Reach(number=1, ways=(msg.Way(ME.node[::-1]),)), member)
    assert bench.node.ways(ME.node[::-1]) == (ANN.node, BOB.node)
    assert kinds(bench.do(ev.Misserved(peer=ANN.node, reason=ev.OTHER_BYTES))) == ["BridgeSuspected"]
    assert bench.node.ways(ME.node[::-1]) == (BOB.node, ANN.node)


def test_a_bridge_that_forges_speaks_for_nobody_any_more_and_is_suspected(bench: Bench):
    cluster = cluster_of(CAT.node)
    bench.do(CAT.link(caps=("bridge",), minor=msg.MINOR))
    bench.says(msg.Through(node=cluster, message=msg.Leaves()), CAT)
    report = msg.Through(node=cluster, message=msg.Report(subs=(b"no sub-grant",)))
    assert bench.says(report, CAT) == [
        fx.Drop(peer=CAT.node, reason="through: sub-grant: malformed"),
        fx.Emit(notice=BridgeSuspected(bridge=CAT.node, reason=ev.FORGED)),
    ]
    assert bench.says(report, CAT) == [fx.Drop(peer=CAT.node, reason="through: nobody here is known by that")]
    bench.says(msg.Through(node=cluster, message=msg.Leaves()), CAT)
    assert "BridgeSuspected" in kinds(bench.says(report, CAT)), "it speaks again as if it had just come"


def test_the_bridges_on_a_way_are_told(bench: Bench):
    assert bench.node.path(ANN.node, BOB.node) == (ANN.node,)
    bench.do(ANN.link(caps=("submit", "work", "bridge")))
    assert bench.says(msg.Reach(number=1, ways=(msg.Way(BOB.node, (ME.node[::-1],)),))) == [
        fx.Dial(address=via_address(ANN.node, BOB.node), node=BOB.node)
    ]
    assert bench.node.path(ANN.node, BOB.node) == (ANN.node, ME.node[::-1])
