"""What people are shown of other nodes, and of this one as a worker."""

import msgspec

from p2pq.core import events as ev
from p2pq.core.peers import Peer
from p2pq.core.placement import WorkerSnapshot
from p2pq.core.views import PeerView, Policy, peer_view, policy_of
from p2pq.model.ids import NodeId
from p2pq.model.job import Profile
from tests.unit.core.workerkit import ANN, BOB, OFFER, OWN, PROFILE, Bench, granted, item, kept, result_item

GATE = NodeId(b"g" * 32)
UP = Peer(
    id=ANN.node,
    name="ann",
    owner="anna",
    address="192.0.2.1:9476",
    path=(GATE,),
    state="up",
    boot=b"b" * 16,
    caps=("work",),
)
WORKS = WorkerSnapshot(
    node=ANN.node, name="ann", profile=PROFILE, own=False, leaving=False, request=None, leases=1, cpus=1
)


def test_a_worker_is_shown_with_what_it_offers_and_what_is_free_of_it() -> None:
    bench = Bench()
    bench.join(ANN)
    assert peer_view(UP, {ANN.node: WORKS}, bench.worker) == PeerView(
        id=ANN.node,
        name="ann",
        owner="anna",
        address="192.0.2.1:9476",
        path=(GATE,),
        state="up",
        reason="",
        slots=2,
        free=1,
        has_work=False,
        profile=PROFILE,
        boot=b"b" * 16,
        caps=("work",),
    )
    bench.work(ANN)
    assert peer_view(UP, {ANN.node: WORKS}, bench.worker).has_work


def test_nobody_has_less_than_nothing_free() -> None:
    full = msgspec.structs.replace(WORKS, cpus=5)
    assert peer_view(UP, {ANN.node: full}, Bench().worker).free == 0


def test_who_does_not_work_or_is_not_known_offers_nothing() -> None:
    bench = Bench()
    for peer in (UP, Peer(id=None, address="192.0.2.7:9476", state="down", reason="timeout")):
        view = peer_view(peer, {BOB.node: WORKS}, bench.worker)
        assert (view.slots, view.free, view.has_work, view.profile) == (0, 0, False, None)
        assert (view.address, view.state, view.reason) == (peer.address, peer.state, peer.reason)


def test_a_node_whose_sensors_have_not_spoken_accepts_nothing_yet() -> None:
    shown = policy_of(Bench().worker)
    assert (shown.known, shown.accepts, shown.reason, shown.slots) == (False, False, "", 0)


def test_a_node_says_what_guests_may_have_and_whether_they_may() -> None:
    bench = Bench()
    bench.join(ANN)
    plain = Policy(known=True, accepts=True, reason="", draining=False, slots=2, free=2, kept=())
    assert policy_of(bench.worker) == plain
    off = Profile(slots=2, memory_mb=4096, sandbox="strict", accepts=False, reason="somebody is at the keyboard")
    bench.do(ev.Offering(profile=off, own=OWN))
    shown = policy_of(bench.worker)
    assert (shown.accepts, shown.reason, shown.slots) == (False, "somebody is at the keyboard", 2)
    bench.do(OFFER)
    bench.do(ev.Drain(now=False))
    shown = policy_of(bench.worker)
    assert (shown.accepts, shown.draining) == (False, True)


def test_what_runs_is_not_free_and_what_is_kept_is_named() -> None:
    bench = Bench()
    bench.join(ANN)
    bench.work(ANN)
    bench.says(granted((item(1),)))
    assert policy_of(bench.worker).free == 1
    restored = Bench(kept(result_item(item(9))))
    [owed] = policy_of(restored.worker).kept
    assert (owed.master, owed.results) == (ANN.node, 1)
