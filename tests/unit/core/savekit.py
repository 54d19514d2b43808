"""What the tests of checkpoints at a master share: a job whose attempts leave them, and what is handed on."""

import msgspec

from p2pq.core import effects as fx
from p2pq.core import events as ev
from p2pq.core import records as r
from p2pq.model.ids import LeaseId
from p2pq.model.job import Outcome
from p2pq.wire import body, seal, sign
from p2pq.wire import messages as msg
from p2pq.wire.objects import BlobRef, Checkpoint, GrantItem, ResultItem
from tests.unit.core.mesh import (
    ALICE,
    BOB,
    MASTER,
    MESH,
    PROFILE,
    WALL,
    Bench,
    Member,
    entropy,
    job_id,
    proof,
    ready,
    result_item,
    submitted,
)

JOB = job_id()
SAVED = Outcome(reason="saved", exit=1)
RESULT_KEY = b"R" * 32
PARTS = (BlobRef(b"p" * 32, 70), BlobRef(b"q" * 32, 7))


def job(**fields: object) -> ev.Submitted:
    return msgspec.structs.replace(submitted(**fields), reply_secret=MASTER.prekey_secret)


def left(item: GrantItem, outcome: Outcome = SAVED, **fields: object) -> ResultItem:
    """What a worker says of an attempt that left a checkpoint."""
    context = body.result_context(JOB, item.task, item.attempt, item.lease)
    key = seal.seal(MASTER.prekey, RESULT_KEY, context, entropy)
    plain = {"key": key, "body": PARTS, "checkpoint": True}
    return result_item(item, outcome, **(plain | fields))


def bring(bench: Bench, member: Member, item: GrantItem, result: ResultItem) -> list[fx.Effect]:
    bench.says(member, ready(member, result))
    return bench.do(ev.Collected(lease=item.lease))


def join(bench: Bench, member: Member, *holds: LeaseId, minor: int = msg.CHECKPOINTS_SINCE) -> None:
    bench.do(msgspec.structs.replace(member.link_up(), minor=minor))
    bench.says(member, msg.Holding(leases=holds))
    bench.says(member, msg.ProfileIs(profile=PROFILE))


def bench_of(**fields: object) -> Bench:
    bench = Bench()
    bench.tick()
    for member in (ALICE, BOB):
        join(bench, member)
    bench.do(job(**fields))
    return bench


def handed_on(effects: list[fx.Effect]) -> tuple[bytes, ...]:
    [message] = [
        each.message for each in effects if isinstance(each, fx.Send) and isinstance(each.message, msg.Granted)
    ]
    return message.checkpoints


def checkpoint(to: Member, item: GrantItem, parts: tuple[BlobRef, ...] = PARTS) -> bytes:
    """The object that is to be sent, to the byte."""
    value = Checkpoint(
        mesh=MESH,
        node=MASTER.node,
        to=to.node,
        job=JOB,
        task=item.task,
        lease=item.lease,
        key=seal.seal(to.prekey, RESULT_KEY, body.checkpoint_context(JOB, item.task, item.lease), entropy),
        body=parts,
    )
    return sign.sign(MASTER.signer, value)


def ended(item: GrantItem, result: ResultItem, state: str, *, counted: bool, by: Member = ALICE) -> fx.Record:
    row = r.AttemptEnded(
        lease=item.lease,
        job=JOB,
        task=0,
        worker=by.node,
        result=result,
        state=state,
        wall=WALL,
        counted=counted,
        proof=proof(by, result),
    )
    return fx.Record(row=row)
