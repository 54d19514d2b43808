"""Checkpoints at their master: which result of a task the next attempt starts with, and how a worker is given it.

A task that is told to end, or fails, may leave ``results/.checkpoint/``; it comes back as part of the attempt's result,
which stays here until a later attempt brings another or the task is over.
"""

from collections.abc import Iterable

from p2pq.core.effects import Effect, Forget
from p2pq.core.events import LinkUp
from p2pq.core.identity import Identity
from p2pq.core.jobs import Job, Task
from p2pq.errors import Reject
from p2pq.wire import body, seal, sign
from p2pq.wire.messages import CHECKPOINTS_SINCE
from p2pq.wire.objects import Checkpoint, GrantItem, ResultItem
from p2pq.wire.prims import SigningKey


def keep(task: Task, item: ResultItem, out: list[Effect]) -> None:
    """A task that goes on brought a checkpoint: the next attempt starts with the one of the latest attempt."""
    if task.checkpoint is not None and task.checkpoint.attempt > item.attempt:
        out.append(Forget(lease=item.lease))
        return
    forget(task, out)
    task.checkpoint = item


def forget(task: Task, out: list[Effect]) -> None:
    """No further attempt will start with the checkpoint of a task."""
    if task.checkpoint is not None:
        out.append(Forget(lease=task.checkpoint.lease))
        task.checkpoint = None


def hand_on(  # noqa: PLR0913  each is a different fact
    job: Job,
    items: Iterable[GrantItem],
    to: LinkUp,
    identity: Identity,
    signer: SigningKey,
    entropy: seal.Entropy,
    *,
    cluster: bool = False,
) -> tuple[bytes, ...]:
    """Return, signed, the checkpoints with which attempts that are granted to a worker start.

    Call it once a job key has been sealed to that worker, so that its prekey is known to be usable. Which leaf of a cluster
    will run an attempt is not known: for one, they open with the job key.
    """
    if to.minor < CHECKPOINTS_SINCE:
        return ()
    handed = []
    for item in items:
        kept = job.tasks[item.task].checkpoint
        if kept is None:
            continue
        earlier = body.result_context(kept.job, kept.task, kept.attempt, kept.lease)
        context = body.checkpoint_context(job.id, item.task, item.lease)
        try:
            key = seal.open_seal(job.reply_secret, kept.key, earlier)
            sealed = seal.wrap(job.key, key, context) if cluster else seal.seal(to.prekey, key, context, entropy)
        except Reject:
            continue  # results are opened before they count, so only a damaged store brings us here: start from nothing
        checkpoint = Checkpoint(
            mesh=identity.mesh,
            node=identity.node,
            to=to.peer,
            job=job.id,
            task=item.task,
            lease=item.lease,
            key=sealed,
            body=kept.body,
        )
        handed.append(sign.sign(signer, checkpoint))
    return tuple(handed)
