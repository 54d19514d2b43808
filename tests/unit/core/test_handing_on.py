"""Grants that come through bridges: what of them a worker believes, and what of the bridges."""

from itertools import count
from random import Random

import msgspec
import pytest

from p2pq.core import effects as fx
from p2pq.core import events as ev
from p2pq.core.grants import Master, open_grant
from p2pq.core.node import Node
from p2pq.core.records import Restored, ResultReleased
from p2pq.core.through import cluster_of
from p2pq.errors import Reject
from p2pq.model.config import ScheduleSettings
from p2pq.model.ids import LeaseId, Mono
from p2pq.wire import body, seal, sign, trust
from p2pq.wire import messages as msg
from p2pq.wire.objects import Grant
from tests.unit.core.workerkit import (
    ANN,
    BOB,
    CAT,
    CLUSTER,
    IDENTITY,
    KEY,
    ME,
    OFFER,
    OK,
    PROFILE,
    SAVED_BODY,
    SAVED_KEY,
    WALL,
    Bench,
    Member,
    behind,
    checkpoint,
    granted,
    handed_on,
    item,
    job_id,
    kept,
    ready,
    receipted,
    result_item,
    returned,
    send,
    start,
    sub_grant,
)

DOG = Member("dog")
"""Another bridge, further away."""


@pytest.fixture
def bench() -> Bench:
    """Return a worker whose master ANN, behind CAT, has announced work and been asked."""
    bench = Bench()
    bench.do(OFFER)
    bench.do(CAT.link(caps=("bridge", "work")))
    assert bench.do(behind()) == [send(msg.Holding()), send(msg.ProfileIs(profile=PROFILE))]
    assert bench.work() == [bench.asks(1)]
    return bench


def dropped(reason: str, *, close: bool = True) -> fx.Drop:
    return fx.Drop(peer=ANN.node, reason=reason, close=close)


def test_who_has_shown_a_prekey_speaks_for_itself_whoever_carries_its_link() -> None:
    assert ANN.link(path=(CAT.node, DOG.node)).way == ()
    assert behind(ANN, CAT, DOG).way == (DOG.node, CAT.node)


# -- grants --------------------------------------------------------------------------------------------------------------


def test_a_part_of_a_grant_to_a_bridge_runs_where_the_bridge_hands_it_on(bench: Bench) -> None:
    whole = (item(1), item(2), item(3, 7), item(4))
    message = handed_on(whole, LeaseId(1, 1), LeaseId(1, 3))
    assert bench.says(message) == [*start(item(1)), *start(item(3, 7))]
    assert bench.says(message) == []
    assert {guest.lease for guest in bench.worker.guests(bench.now)} == {LeaseId(1, 1), LeaseId(1, 3)}


def test_of_what_is_declined_only_the_part_goes_back(bench: Bench) -> None:
    message = handed_on((item(1), item(2)), LeaseId(1, 2), sub={"number": 7})
    assert bench.says(message) == [returned("late", item(2))]


def test_the_sub_grant_answers_the_request_and_not_the_grant(bench: Bench) -> None:
    assert bench.says(handed_on((item(1),), number=1, sub={"number": 2})) == [returned("late", item(1))]
    assert not bench.worker.busy


def test_no_more_is_taken_of_a_bridge_than_was_asked_for(bench: Bench) -> None:
    assert bench.says(handed_on((item(1), item(2), item(3))))[0] == dropped("grant: more than was asked for")
    assert not bench.worker.busy


LATE = "the grant has expired (or a clock is wrong)"


@pytest.mark.parametrize("fields", [{"expires": WALL - 300_001}, {"sub": {"expires": WALL - 300_001}}])
def test_a_part_expires_with_the_grant_and_with_the_sub_grant(bench: Bench, fields: dict) -> None:
    assert bench.says(handed_on((item(1),), **fields)) == [returned("late", item(1), detail=LATE)]


BETWEEN = "sub-grant: not of that grant between these two nodes"
LEASES = "sub-grant: leases that its bridge did not have, or in another order"
FORGED = [
    ({"signer": BOB}, "bad signature"),
    ({"to": ME.node}, "grant: not between these two nodes"),
    ({"to": BOB.node}, "grant: not between these two nodes"),
    ({"to": CLUSTER}, "grant: not between these two nodes"),
    ({"sub": {"signer": BOB}}, "bad signature"),
    ({"sub": {"node": BOB.node}}, "bad signature"),
    ({"sub": {"node": BOB.node, "signer": BOB}}, BETWEEN),
    ({"sub": {"to": BOB.node}}, BETWEEN),
    ({"sub": {"mesh": bytes(32)}}, "not of this master"),
    ({"sub": {"parent": bytes(32)}}, BETWEEN),
    ({"sub": {"leases": (LeaseId(1, 3),)}}, LEASES),
    ({"sub": {"leases": (LeaseId(1, 1), LeaseId(1, 3))}}, LEASES),
    ({"sub": {"leases": (LeaseId(1, 2), LeaseId(1, 1))}}, LEASES),
    ({"sub": {"leases": (LeaseId(1, 1), LeaseId(1, 1))}}, LEASES),
    ({"sub": {"master": BOB.node}}, "not of this master"),
]


@pytest.mark.parametrize(("fields", "reason"), FORGED, ids=[f"{n}-{reason}" for n, (_, reason) in enumerate(FORGED)])
def test_a_broken_chain_ends_the_way(bench: Bench, fields: dict, reason: str) -> None:
    assert bench.says(handed_on((item(1), item(2)), **fields)) == [dropped(reason)]
    assert not bench.worker.busy


@pytest.mark.parametrize("subs", [0, 2])
def test_each_bridge_on_the_way_hands_on_once(bench: Bench, subs: int) -> None:
    message = handed_on((item(1),))
    message = msgspec.structs.replace(message, subs=message.subs * subs)
    assert bench.says(message) == [dropped("grant: not handed on by the bridges on its way")]


def test_garbage_is_no_sub_grant(bench: Bench) -> None:
    message = msgspec.structs.replace(handed_on((item(1),)), subs=(b"garbage",))
    assert bench.says(message) == [dropped("malformed")]


def test_a_linked_master_needs_no_bridge(bench: Bench) -> None:
    bench.do(ANN.link())
    bench.work()
    assert bench.says(handed_on((item(1),), sub={"number": 2})) == [dropped("grant: not between these two nodes")]
    extra = msgspec.structs.replace(granted((item(1),), number=2), subs=handed_on((item(1),)).subs)
    assert bench.says(extra) == [dropped("grant: not handed on by the bridges on its way")]
    assert bench.says(granted((item(1),), number=2))[:2] == start(item(1))


# -- two bridges ---------------------------------------------------------------------------------------------------------


FAR = Master(ANN.node, "ann", ("submit",), 4, IDENTITY.mesh, claimed="ann", way=behind(ANN, CAT, DOG).way)


def twice(first: tuple[LeaseId, ...], second: tuple[LeaseId, ...], **fields) -> msg.Granted:
    """Return a grant to DOG, handed on to CAT and, by that, to this node."""
    message = granted((item(1), item(2), item(3)), number=99, to=DOG.node, key=b"")
    outer = sub_grant(message.grant, *first, number=98, node=DOG.node, to=CAT.node, signer=DOG)
    return msgspec.structs.replace(message, subs=(outer, sub_grant(outer, *second, **fields)))


def test_two_bridges_hand_on_one_after_the_other() -> None:
    message = twice((LeaseId(1, 1), LeaseId(1, 3)), (LeaseId(1, 3),), expires=WALL + 5)
    part = open_grant(message, FAR, IDENTITY)
    whole = sign.open_signed(message.grant, Grant, ANN.node)
    assert part == msgspec.structs.replace(whole, items=(item(3),), nonce=(1).to_bytes(16, "big"), expires=WALL + 5)


def test_the_second_bridge_hands_on_what_the_first_gave_it() -> None:
    with pytest.raises(Reject, match="leases that its bridge did not have"):
        open_grant(twice((LeaseId(1, 1),), (LeaseId(1, 2),)), FAR, IDENTITY)
    message = twice((LeaseId(1, 1),), (LeaseId(1, 1),))
    skips = msgspec.structs.replace(message, subs=(message.subs[0], sub_grant(message.grant, LeaseId(1, 1))))
    with pytest.raises(Reject, match="not of that grant"):
        open_grant(skips, FAR, IDENTITY)
    turned = msgspec.structs.replace(message, subs=message.subs[::-1])
    with pytest.raises(Reject, match="not of that grant"):
        open_grant(turned, FAR, IDENTITY)


# -- keys and checkpoints ------------------------------------------------------------------------------------------------


def test_without_the_job_key_the_part_goes_back_and_the_master_is_left_alone_for_a_moment(bench: Bench) -> None:
    message = handed_on((item(1),))
    foreign = msgspec.structs.replace(message, keys=message.keys[:1])
    detail = "the job key did not come along"
    assert bench.says(foreign) == [returned("no-manifest", item(1), detail=detail)]
    assert bench.work(counter=2) == []
    assert bench.tick(after=1.0) == [bench.asks(2)]
    assert bench.says(handed_on((item(1),), sent=True, sub={"number": 2}))[:2] == start(item(1))


def test_the_key_that_is_sealed_to_this_node_counts(bench: Bench) -> None:
    message = handed_on((item(1),), key=seal.seal(ME.prekey, KEY, bytes(32), bytes))
    broken = msgspec.structs.replace(message, keys=((ME.node, b"k" * 80), *message.keys))
    assert bench.says(broken) == [returned("refused", item(1), detail="the job key: decryption failed")]
    bench.work(counter=2)
    assert bench.says(handed_on((item(1),), sub={"number": 2}))[:2] == start(item(1))


def wrapped(entry, **fields) -> bytes:
    """Return a checkpoint for whoever of CAT's cluster goes on with it."""
    context = body.checkpoint_context(job_id(), entry.task, entry.lease)
    return checkpoint(entry, **({"to": CLUSTER, "key": seal.wrap(KEY, SAVED_KEY, context)} | fields))


def test_whoever_has_the_job_key_opens_the_checkpoint_for_its_cluster(bench: Bench) -> None:
    message = handed_on((item(1), item(2, 1)), LeaseId(1, 2), checkpoints=(wrapped(item(2, 1)),))
    assert bench.says(message)[:2] == start(item(2, 1), checkpoint_key=SAVED_KEY, checkpoint=SAVED_BODY)


@pytest.mark.parametrize(
    ("raw", "why"),
    [
        (wrapped(item(1), to=ME.node), "checkpoint: not between these two nodes"),
        (wrapped(item(1), to=CAT.node), "checkpoint: not between these two nodes"),
        (wrapped(item(1), to=cluster_of(DOG.node)), "checkpoint: not between these two nodes"),
        (wrapped(item(2)), "checkpoint: not of that grant"),
        (wrapped(item(1), signer=CAT), "bad signature"),
    ],
)
def test_a_checkpoint_that_is_not_for_this_part_ends_the_way(bench: Bench, raw: bytes, why: str) -> None:
    assert bench.says(handed_on((item(1), item(2)), LeaseId(1, 1), checkpoints=(raw,))) == [dropped(why)]


def test_a_checkpoint_that_does_not_open_costs_the_work_behind_it_only(bench: Bench) -> None:
    sealed = wrapped(item(1), key=b"x" * 70)
    effects = bench.says(handed_on((item(1),), checkpoints=(sealed,)))
    assert effects[:3] == [dropped("checkpoint: decryption failed", close=False), *start(item(1))]


# -- receipts ------------------------------------------------------------------------------------------------------------


def holding(link: ev.LinkUp) -> Bench:
    """Return a worker that has a result for ANN, linked so."""
    bench = Bench(kept(result_item(item(1))))
    bench.do(OFFER)
    assert bench.do(link)[-1] == ready(result_item(item(1)))
    return bench


def released(lease: LeaseId) -> list[fx.Effect]:
    return [fx.Record(row=ResultReleased(lease=lease, master=ANN.node)), fx.Release(lease=lease, master=ANN.node)]


@pytest.mark.parametrize("to", [CLUSTER, ME.node])
def test_a_receipt_to_the_cluster_is_one_to_each_of_it(to: bytes) -> None:
    assert holding(behind()).says(receipted(LeaseId(1, 1), LeaseId(1, 9), to=to)) == released(LeaseId(1, 1))


@pytest.mark.parametrize(
    ("link", "fields"),
    [
        (behind(), {"to": cluster_of(DOG.node)}),
        (behind(), {"to": CAT.node}),
        (behind(), {"to": CLUSTER, "mesh": bytes(32)}),
        (behind(), {"to": CLUSTER, "node": BOB.node}),
        (ANN.link(), {"to": CLUSTER}),
        (ANN.link(path=(CAT.node,)), {"to": CLUSTER}),
    ],
)
def test_a_receipt_to_another_cluster_means_nothing(link: ev.LinkUp, fields: dict) -> None:
    assert holding(link).says(receipted(LeaseId(1, 1), **fields)) == [dropped("receipt: not between these two nodes")]


def test_a_bridge_signs_no_receipts() -> None:
    forged = receipted(LeaseId(1, 1), to=CLUSTER, signer=CAT)
    assert holding(behind()).says(forged) == [dropped("receipt: bad signature")]


# -- a node --------------------------------------------------------------------------------------------------------------


def test_a_leaf_runs_what_its_bridge_hands_on_and_its_result_goes_the_same_way() -> None:
    """From the master that is shown to its receipt; ``tests/unit/core/test_through.py`` has how a way begins and ends."""
    root = trust.make_root(lambda size: b"r" * size)
    subject = trust.Subject(node=ANN.node, name="ann", owner="ann", caps=("admin", "submit", "work"))
    chain = (trust.issue_admin(root, subject, serial=bytes(16), wall=WALL),)
    numbers = count(1)
    node = Node(
        msgspec.structs.replace(IDENTITY, root=root.public),
        ScheduleSettings(),
        Restored(),
        Random(1),
        lambda size: next(numbers).to_bytes(size, "big"),
        now=Mono(1.0),
        wall=WALL,
    )

    def do(event: ev.Event) -> list[fx.Effect]:
        effects = node.handle(event, Mono(1.0))
        node.check()
        return effects

    def hears(message: msg.Passed) -> list[fx.Effect]:
        return do(ev.Received(peer=CAT.node, message=msg.Through(node=ANN.node, message=message)))

    def says(message: msg.Passed) -> fx.Send:
        return send(msg.Through(node=ANN.node, message=message), CAT)

    do(OFFER)
    do(CAT.link(caps=("bridge",), minor=msg.MINOR))
    do(ev.Received(peer=CAT.node, message=msg.MasterIs(certs=chain, boot=bytes(16), minor=msg.MINOR)))
    [asked] = hears(msg.HasWork(counter=1, owners=("ann",)))
    assert isinstance(asked, fx.Send)
    assert isinstance(asked.message, msg.Through)
    answer = {"nonce": asked.message.message.nonce}
    whole = (item(1), item(2))
    granted = handed_on(whole, LeaseId(1, 2), sub=answer)
    assert hears(granted)[:2] == start(item(2), may_be_empty=True)
    do(ev.Started(lease=LeaseId(1, 2), master=ANN.node))
    effects = do(ev.Exited(lease=LeaseId(1, 2), master=ANN.node, outcome=OK, sandbox="strict"))
    [kept] = [each.row for each in effects if isinstance(each, fx.Record)]
    assert kept.subs == granted.subs
    assert effects[-1] == says(msgspec.structs.replace(ready(result_item(item(2))).message, subs=granted.subs))
    assert node.owes
    assert hears(receipted(LeaseId(1, 1), LeaseId(1, 2), to=CLUSTER)) == released(LeaseId(1, 2))
    assert not node.owes


# -- what shows that it was given here -----------------------------------------------------------------------------------


def shown(effects: list[fx.Effect]) -> tuple[bytes, ...]:
    [holding] = [
        each.message for each in effects if isinstance(each, fx.Send) and isinstance(each.message, msg.Holding)
    ]
    return holding.proofs


def test_a_leaf_shows_how_what_it_holds_came_to_it_wherever_it_goes(bench: Bench) -> None:
    message = handed_on((item(1), item(2)))
    bench.says(message)
    proofs = (message.grant, *message.subs)
    bench.exited(item(1))
    bench.do(ev.LinkDown(peer=ANN.node))
    assert shown(bench.do(behind(ANN, DOG))) == proofs, "of what runs, and of a result that waits"
    bench.exited(item(2))
    bench.do(ev.LinkDown(peer=ANN.node))
    assert shown(bench.do(behind(ANN, DOG))) == proofs
    bench.do(ev.LinkDown(peer=ANN.node))
    assert shown(bench.do(ANN.link())) == (), "the master knows"
    bench.says(receipted(item(1).lease, item(2).lease))
    bench.do(ev.LinkDown(peer=ANN.node))
    assert shown(bench.do(behind())) == ()


def test_of_results_of_an_earlier_life_the_sub_grants_are_left(bench: Bench) -> None:
    message = handed_on((item(1),))
    bench.says(message)
    [row] = [each.row for each in bench.exited(item(1)) if isinstance(each, fx.Record)]
    again = Bench(Restored(kept=(row,)))
    again.do(OFFER)
    assert shown(again.do(behind())) == message.subs
