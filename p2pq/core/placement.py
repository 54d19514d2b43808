"""Where a task may run, and one sentence on why it does not run yet. Pure functions of what the master knows."""

from collections.abc import Callable, Sequence
from typing import Final, Protocol

import msgspec

from p2pq.core.through import whereabouts
from p2pq.model.ids import JobId, LeaseId, Mono, NodeId, Wall, short
from p2pq.model.job import JobState, Outcome, Profile, Resources, SandboxLevel, TaskState, missing_needs
from p2pq.wire.messages import Request

_RANK: Final[dict[SandboxLevel, int]] = {"none": 0, "basic": 1, "strict": 2}
NameOf = Callable[[NodeId], str]
"""What people call a node."""
_NAMED_MAX: Final = 3
"""Workers that a sentence names; the others are counted."""


class Ask(msgspec.Struct, frozen=True, kw_only=True):
    """What any task of a job asks of the worker it runs on."""

    resources: Resources
    sandbox: SandboxLevel
    only: bytes
    """Empty, or the one node that may run it."""


class WorkerSnapshot(msgspec.Struct, frozen=True, kw_only=True):
    """A linked worker, as its master knows it."""

    node: NodeId
    name: str
    profile: Profile
    own: bool
    """It is the master's own machine."""
    leaving: bool
    request: Request | None
    """The last one; None until it has asked."""
    leases: int
    """Attempts of this master that it holds."""
    cpus: int
    """Cpus that those attempts use."""
    of_job: int = 0
    """Those of these attempts that are of the job in question."""
    held_back: bool = False
    """It gets one attempt at a time of the job in question: those before failed there."""
    far: bool = False
    """Bridges carry the link to it."""
    later: bool = False
    """... and the own network is asked first for the job in question."""


class TaskSnapshot(msgspec.Struct, frozen=True, kw_only=True):
    """A task, as its master knows it."""

    task: int
    state: TaskState
    attempts: int = 0
    """Granted so far; the running or last one has this number."""
    worker: NodeId | None = None
    """Who runs it, or ran it last (not known of lives before a restart)."""
    via: tuple[NodeId, ...] = ()
    """Of a running one: the bridges on the way to the worker, the nearest first."""
    linked: bool = True
    """Of a running one: whom it was granted to can be reached now; else ``via`` is the way as it was last."""
    again: NodeId | None = None
    """Who runs a second attempt of it at the same time."""
    lease: LeaseId | None = None
    started: bool = False
    """The worker says that it runs (rather than waits for a slot or for blobs)."""
    since: Mono | None = None
    """When the live lease was granted."""
    heard: Mono | None = None
    """When its worker last said that it holds it."""
    due: Mono | None = None
    """When the lease ends if nothing more is heard; None while the result is on its way."""
    silent_s: float = 0.0
    """After so many seconds without a word the worker may be gone."""
    progress: int = -1
    """In thousandths; -1 where the task tells none."""
    outcome: Outcome | None = None
    """Of the last attempt that ended by the task's own doing."""
    failures: int = 0
    faults: int = 0
    detail: str = ""
    """What ended the last attempt that ended by its worker's doing, or the task."""
    not_before: Mono | None = None
    """It rests after a failed attempt until then."""
    delivered: bool = False
    checkpoint: int = 0
    """The attempt whose checkpoint the next attempt starts with (or the running one did); 0: none."""


class JobSnapshot(msgspec.Struct, frozen=True, kw_only=True):
    """A job that has not ended, as its master knows it."""

    job: JobId
    owner: str
    state: JobState
    tasks: int
    pending: int
    running: int
    done: int
    failed: int
    cancelled: int
    undelivered: int
    """Tasks that are over but whose results do not lie in the owner's folder yet."""
    priority: int
    ask: Ask
    submitted: Wall
    halted: str = ""
    """After what it was halted, if it was."""


def barrier(ask: Ask, profile: Profile, node: NodeId, *, own: bool) -> str | None:
    """Return what keeps a worker from ever running such a task, as a clause, or None if nothing does.

    Args:
        ask: what the task asks for.
        profile: what the worker offers at most.
        node: the worker.
        own: whether it is the master's own machine, where the isolation is the user's own choice.
    """
    wants = ask.resources
    if ask.only and ask.only != node:
        return "is not the node that the job is pinned to"
    if not own and not profile.accepts:
        return f"takes no guests ({profile.reason})" if profile.reason else "takes no guests"
    # A job that asks for no isolation asks so for its own machine; anybody else's is kept strict.
    level: SandboxLevel = "strict" if ask.sandbox == "none" else ask.sandbox
    if not own and _RANK[profile.sandbox] < _RANK[level]:
        return f"proved no {level} sandbox" + (f" ({profile.reason})" if profile.reason else "")
    if missing := missing_needs(wants, profile):
        return f"lacks {', '.join(missing)}"
    for have, want, what in (
        (profile.slots, wants.cpus, "cpus"),
        (profile.memory_mb, wants.memory_mb, "MiB of memory"),
        (profile.gpus, wants.gpus, "gpus"),
    ):
        if want > have:
            return f"has {have} {what}"
    return None


class Free(Protocol):
    """Room that is free."""

    @property
    def cpus(self) -> int:
        """Whole ones."""

    @property
    def memory_mb(self) -> int:
        """In mebibytes."""

    @property
    def gpus(self) -> int:
        """Whole ones."""


def fits(resources: Resources, free: Free) -> int:
    """Return how many such tasks fit into what is free."""
    count = free.cpus // resources.cpus
    if resources.memory_mb:
        count = min(count, free.memory_mb // resources.memory_mb)
    if resources.gpus:
        count = min(count, free.gpus // resources.gpus)
    return count


def room(resources: Resources, request: Request) -> int:
    """Return how many such tasks fit into what a request offers at once."""
    return min(fits(resources, request), request.tasks_max)


def why(  # noqa: PLR0913, PLR0917  each is a different fact
    job: JobSnapshot,
    task: TaskSnapshot | None,
    now: Mono,
    workers: Sequence[WorkerSnapshot],
    trouble: str = "",
    until: Mono | None = None,
    name_of: NameOf = short,
) -> str:
    """Say in one sentence where a job or one of its tasks stands, and what to do about it where one can.

    Args:
        job: the job.
        task: one task of it, or None for the job as a whole.
        now: to tell how long.
        workers: the linked workers, the own machine among them if it works.
        trouble: what a worker said when it sent a task of the job back that waits now.
        until: when the first of the tasks that pause waits no longer, if all that wait pause.
        name_of: names nodes that are not linked.
    """
    if task is not None and task.state != "pending":
        names = {worker.node: worker.name for worker in workers}
        still = next((w.profile.reason for w in workers if w.node == task.worker and w.profile.still and not w.own), "")
        return _why_not_pending(task, now, lambda node: names.get(node) or name_of(node), still)
    if task is None and not job.pending:
        if job.running:
            what = f"all {job.running} unfinished tasks are" if job.running > 1 else "the one unfinished task is"
            return f"{what} running; nothing waits."
        if job.undelivered:
            return (
                f"{job.undelivered} results wait to be written to the results folder; check its disk and permissions."
            )
        return "every task is over; nothing waits."
    if task is not None and task.not_before is not None and task.not_before > now:
        last = _last(task)
        return f"waiting {task.not_before - now:.0f} s before the next attempt: {last}; it is tried again by itself."
    paused = task is None and until is not None and until > now
    waiting = _why_paused(job.pending, until - now) if paused and until else _why_waiting(job.ask, workers, name_of)
    return f"{waiting[:-1]}; a worker sent a task back: {trouble}." if trouble and task is None else waiting


def _why_paused(tasks: int, seconds: float) -> str:
    if tasks == 1:
        return f"waiting {seconds:.0f} s before the next attempt, as the last came to nothing; it is tried again by itself."
    return f"{tasks} tasks pause as their last attempts came to nothing; the next is tried again in {seconds:.0f} s."


def _why_not_pending(task: TaskSnapshot, now: Mono, name_of: NameOf, still: str) -> str:
    where = f" on {name_of(whereabouts(task.worker, task.via)[0])}" if task.worker else ""
    if task.state == "running":
        return _why_running(task, where, now, name_of, still)
    if task.state == "cancelled":
        return "cancelled; submit the job again to run it."
    tail = "" if task.delivered else ", its results still to be written to the results folder"
    if task.state == "done":
        return f"done{where}{tail}; nothing to do."
    return f"failed{where} after {task.attempts} attempts{tail}: {_last(task)}; its results hold what it printed."


def _why_running(task: TaskSnapshot, where: str, now: Mono, name_of: NameOf, still: str) -> str:
    since = f" for {now - task.since:.0f} s" if task.since is not None else ""
    if task.again is not None:
        other = name_of(task.again)
        return f"running{where}{since}, longer than others, so also on {other}; the first result counts."
    if task.heard is not None and task.due is None:
        return f"ended{where}, attempt {task.attempts}; its result is on its way."
    verb = "running" if task.started else "being prepared (fetching files or waiting for a slot)"
    if task.worker and task.heard is not None and task.due is not None and not task.linked:
        node, via = whereabouts(task.worker, task.via)
        through = f", reached through {', '.join(map(name_of, via))} before," if via else ""
        return (
            f"{verb}{where}{since} as far as is known, but {name_of(node)}{through} is not reachable, and nothing was heard "
            f"from there for {now - task.heard:.0f} s; unless it comes back its lease ends in {max(0.0, task.due - now):.0f} s, "
            "and the task runs again elsewhere."
        )
    if task.heard is not None and task.due is not None and now - task.heard > task.silent_s:
        return (
            f"{verb}{where}{since} as far as is known, but nothing was heard from there for {now - task.heard:.0f} s; "
            f"if that lasts its lease ends in {task.due - now:.0f} s, and it is tried elsewhere."
        )
    if still:
        return (
            f"suspended{where}, as that machine's owner comes first: {still}; it goes on there by itself, or elsewhere if that "
            "takes long."
        )
    resumed = f" from the checkpoint of attempt {task.checkpoint}" if task.checkpoint else ""
    return f"{verb}{where}{since}, attempt {task.attempts}{resumed}; nothing to do but wait."


def _why_waiting(ask: Ask, workers: Sequence[WorkerSnapshot], name_of: NameOf) -> str:
    workers = [worker for worker in workers if not worker.leaving]
    if ask.only:
        workers = [worker for worker in workers if worker.node == ask.only]
        if not workers:
            return (
                f"pinned to node {name_of(NodeId(ask.only))}, which is not linked; start it, or submit without --where."
            )
    elif not workers:
        return "no worker is linked; start p2pq on another machine and join it to this mesh, or see `p2pq doctor`."
    barriers = [(w, barrier(ask, w.profile, w.node, own=w.own)) for w in workers]
    able = [worker for worker, clause in barriers if clause is None]
    if not able:
        return _why_nobody(ask, barriers)
    return _why_not_yet(ask, able)


def _why_not_yet(ask: Ask, able: Sequence[WorkerSnapshot]) -> str:
    """Say what those who could run it do instead."""
    later = [worker for worker in able if worker.later]
    near = [worker for worker in able if not worker.later]
    if later and near:
        first = _why_not_yet(ask, near)
        return f"{first[:-1]}; {_names(later)}, behind bridges, {_verb(later, 'gets', 'get')} what is left in a moment."
    heard = [worker for worker in able if not worker.held_back]
    if not heard:
        return f"{_names(able)} {_verb(able, 'is', 'are')} left out for a moment: attempts of this job failed there in a row."
    free = [worker for worker in heard if worker.profile.slots - worker.cpus >= ask.resources.cpus]
    if not free:
        return _why_full(heard)
    return _why_idle(free)


def _why_idle(free: Sequence[WorkerSnapshot]) -> str:
    """Say why these have slots that none of this node's tasks takes."""
    if all(worker.later for worker in free):
        return f"{_names(free)}, behind bridges, {_verb(free, 'gets', 'get')} what this node's own network leaves in a moment."
    if all(worker.request is None for worker in free):
        return f"{_names(free)} {_verb(free, 'has', 'have')} not asked for work yet; if this lasts, see `p2pq status`."
    if all(worker.far for worker in free):
        others = _verb(
            free, "it serves others, its own network first, or is", "they serve others, their own network first, or are"
        )
        return (
            f"{_names(free)}, behind bridges, {_verb(free, 'asks', 'ask')} for nothing more now: {others} not reachable; "
            f"it starts when {_verb(free, _names(free), 'one of them')} has room left."
        )
    return f"{_names(free)} {_verb(free, 'serves', 'serve')} others now; it starts when its owner's turn comes."


def _why_full(full: Sequence[WorkerSnapshot]) -> str:
    """Say whose tasks take all the slots of these."""
    if all(worker.of_job == worker.leases for worker in full):
        return (
            f"{_names(full)} {_verb(full, 'is', 'are')} busy with this very job, all {_verb(full, 'its', 'their')} slots are "
            "taken; it starts when one of its tasks ends."
        )
    return f"{_names(full)} {_verb(full, 'is', 'are')} busy with tasks of this node; it starts when one ends."


def _why_nobody(ask: Ask, barriers: Sequence[tuple[WorkerSnapshot, str | None]]) -> str:
    """Say why no linked worker may run it: the one lack that all share, or who lacks what."""
    wants = ask.resources
    profiles = [worker.profile for worker, _ in barriers]
    for needed in wants.needs:
        if all(needed not in profile.labels for profile in profiles):
            label = f"{needed[0]}={needed[1]}"
            who = _listed([worker.name for worker, _ in barriers])
            return f"needs {label}, which nobody has ({who}); label a node so, or submit without --need {label}."
    shortages: tuple[tuple[int, Callable[[Profile], int], str, str], ...] = (
        (wants.cpus, lambda profile: profile.slots, "cpus", "--cpus"),
        (wants.memory_mb, lambda profile: profile.memory_mb, "MiB of memory", "--memory"),
        (wants.gpus, lambda profile: profile.gpus, "gpus", "--gpus"),
    )
    for want, offered, what, option in shortages:
        most = max(offered(profile) for profile in profiles)
        if want > most:
            return f"needs {want} {what}, but no worker offers more than {most}; submit with a lower {option}."
    clauses = _listed([f"{worker.name} {clause}" for worker, clause in barriers])
    return f"no worker may run it: {clauses}; see `p2pq doctor` there."


def _last(task: TaskSnapshot) -> str:
    if task.detail:
        return task.detail
    outcome = task.outcome
    if outcome is None:
        return "the last attempt did not succeed"
    match outcome.reason:
        case "exit":
            return f"exit code {outcome.exit}"
        case "signal":
            return f"killed by signal {outcome.signal}"
        case _:
            return outcome.reason


def _names(workers: Sequence[WorkerSnapshot]) -> str:
    return _listed([worker.name for worker in workers])


def _listed(words: Sequence[str]) -> str:
    more = len(words) - _NAMED_MAX
    return ", ".join(words[:_NAMED_MAX]) + (f" and {more} more" if more > 0 else "")


def _verb(workers: Sequence[WorkerSnapshot], one: str, many: str) -> str:
    return one if len(workers) == 1 else many
