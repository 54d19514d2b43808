import msgspec
import pytest

from p2pq.core.placement import Ask, JobSnapshot, TaskSnapshot, WorkerSnapshot, barrier, fits, room, why
from p2pq.core.through import cluster_of
from p2pq.model.ids import LeaseId, Mono, Wall, short
from p2pq.model.job import Outcome, Profile, Resources
from p2pq.wire.messages import Place, Request
from tests.unit.core.mesh import ALICE, BOB, PROFILE, Member, job_id

ASK = Ask(resources=Resources(), sandbox="strict", only=b"")
LINUX = (("os", "linux"),)


def ask(*, sandbox: str = "strict", only: bytes = b"", **resources: object) -> Ask:
    return Ask(resources=Resources(**resources), sandbox=sandbox, only=only)


@pytest.mark.parametrize(
    ("asked", "offered", "clause"),
    [
        (ASK, {}, None),
        (ask(only=ALICE.node), {}, None),
        (ask(only=BOB.node), {}, "is not the node that the job is pinned to"),
        (ASK, {"accepts": False}, "takes no guests"),
        (ASK, {"accepts": False, "reason": "policy"}, "takes no guests (policy)"),
        (ASK, {"sandbox": "basic"}, "proved no strict sandbox"),
        (ASK, {"sandbox": "none", "reason": "no bwrap"}, "proved no strict sandbox (no bwrap)"),
        (ask(sandbox="basic"), {"sandbox": "basic"}, None),
        (ask(sandbox="none"), {"sandbox": "basic"}, "proved no strict sandbox"),
        (ask(needs=LINUX), {}, None),
        (ask(needs=(("has", "x"), ("os", "y"))), {}, "lacks has=x, os=y"),
        (ask(cpus=5), {}, "has 4 cpus"),
        (ask(memory_mb=4097), {}, "has 4096 MiB of memory"),
        (ask(gpus=1), {}, "has 0 gpus"),
    ],
)
def test_barrier_of_a_guest(asked: Ask, offered: dict[str, object], clause: str | None) -> None:
    profile = msgspec.structs.replace(PROFILE, **offered)
    assert barrier(asked, profile, ALICE.node, own=False) == clause


def test_the_own_machine_sets_its_own_rules() -> None:
    bare = Profile(slots=1)
    assert barrier(ASK, bare, ALICE.node, own=True) is None
    assert barrier(ask(needs=LINUX), bare, ALICE.node, own=True) == "lacks os=linux"


@pytest.mark.parametrize(
    ("wants", "offer", "count"),
    [
        ({}, {"cpus": 3, "tasks_max": 9}, 3),
        ({}, {"cpus": 3, "tasks_max": 2}, 2),
        ({"cpus": 2}, {"cpus": 3, "tasks_max": 9}, 1),
        ({"cpus": 4}, {"cpus": 3, "tasks_max": 9}, 0),
        ({"memory_mb": 100}, {"cpus": 3, "memory_mb": 250, "tasks_max": 9}, 2),
        ({"gpus": 1}, {"cpus": 3, "gpus": 1, "tasks_max": 9}, 1),
    ],
)
def test_room(wants: dict[str, int], offer: dict[str, int], count: int) -> None:
    assert room(Resources(**wants), Request(nonce=bytes(16), owner="ann", **offer)) == count


def test_a_leaf_has_room_whatever_its_cluster_asks_for_at_most() -> None:
    assert fits(Resources(cpus=2, memory_mb=100), Place(ALICE.node, 9, 399)) == 3
    assert fits(Resources(gpus=1), Place(ALICE.node, 9)) == 0


NOW = Mono(100.0)
ASKED = Request(nonce=bytes(16), owner="ann", cpus=1)


def worker(member: Member = ALICE, **fields: object) -> WorkerSnapshot:
    offered = {key: fields.pop(key) for key in list(fields) if key in Profile.__struct_fields__}
    plain = {"own": False, "leaving": False, "request": ASKED, "leases": 0, "cpus": 0}
    profile = msgspec.structs.replace(PROFILE, **offered)
    return WorkerSnapshot(node=member.node, name=member.name, profile=profile, **(plain | fields))


def job(asked: Ask = ASK, **counts: int) -> JobSnapshot:
    plain = {"pending": 1, "running": 0, "done": 0, "failed": 0, "cancelled": 0, "undelivered": 0}
    return JobSnapshot(
        job=job_id(),
        owner="ann",
        state="running",
        tasks=9,
        priority=0,
        ask=asked,
        submitted=Wall(0),
        **(plain | counts),
    )


def task(state: str, **fields: object) -> TaskSnapshot:
    return TaskSnapshot(task=0, state=state, **fields)


ANN = "no worker is linked; start p2pq on another machine and join it to this mesh, or see `p2pq doctor`."
NAMES = [Member(name) for name in ("n1", "n2", "n3", "n4", "n5")]


@pytest.mark.parametrize(
    ("asked", "workers", "sentence"),
    [
        (ASK, [], ANN),
        (ASK, [worker(leaving=True)], ANN),
        (
            ask(only=BOB.node),
            [worker()],
            f"pinned to node {short(BOB.node)}, which is not linked; start it, or submit without --where.",
        ),
        (
            ask(only=ALICE.node),
            [worker(), worker(BOB)],
            "alice serves others now; it starts when its owner's turn comes.",
        ),
        (ASK, [worker(cpus=4, leases=1)], "alice is busy with tasks of this node; it starts when one ends."),
        (
            ASK,
            [worker(cpus=4, leases=1), worker(BOB, cpus=4, leases=1)],
            "alice, bob are busy with tasks of this node; it starts when one ends.",
        ),
        (
            ASK,
            [worker(held_back=True), worker(BOB, held_back=True)],
            "alice, bob are left out for a moment: attempts of this job failed there in a row.",
        ),
        (
            ASK,
            [worker(held_back=True), worker(BOB, cpus=4, leases=1)],
            "bob is busy with tasks of this node; it starts when one ends.",
        ),
        (ASK, [worker(cpus=4, leases=1), worker(BOB)], "bob serves others now; it starts when its owner's turn comes."),
        (
            ASK,
            [worker(request=None), worker(BOB, request=None)],
            "alice, bob have not asked for work yet; if this lasts, see `p2pq status`.",
        ),
        (
            ASK,
            [worker(member) for member in NAMES],
            "n1, n2, n3 and 2 more serve others now; it starts when its owner's turn comes.",
        ),
        (
            ASK,
            [worker(cpus=4, leases=1), worker(BOB, far=True, later=True)],
            "alice is busy with tasks of this node; it starts when one ends; bob, behind bridges, gets what is left in a moment.",
        ),
        (
            ASK,
            [worker(cpus=4, leases=1), *(worker(member, far=True, later=True) for member in NAMES[:2])],
            (
                "alice is busy with tasks of this node; it starts when one ends; "
                "n1, n2, behind bridges, get what is left in a moment."
            ),
        ),
        (
            ASK,
            [worker(cpus=4, leases=1), worker(BOB, far=True)],
            (
                "bob, behind bridges, asks for nothing more now: it serves others, its own network first, or is not reachable; "
                "it starts when bob has room left."
            ),
        ),
        (
            ASK,
            [worker(far=True), worker(BOB, far=True)],
            (
                "alice, bob, behind bridges, ask for nothing more now: they serve others, their own network first, or are not "
                "reachable; it starts when one of them has room left."
            ),
        ),
        (
            ASK,
            [worker(far=True, request=None)],
            "alice has not asked for work yet; if this lasts, see `p2pq status`.",
        ),
        (
            ASK,
            [worker(cpus=4, leases=4, of_job=4), worker(BOB, cpus=4, leases=2, of_job=2)],
            "alice, bob are busy with this very job, all their slots are taken; it starts when one of its tasks ends.",
        ),
        (
            ASK,
            [worker(cpus=4, leases=4, of_job=4), worker(BOB, cpus=4, leases=2, of_job=1)],
            "alice, bob are busy with tasks of this node; it starts when one ends.",
        ),
        (
            ASK,
            [worker(far=True, later=True), worker(BOB, far=True, later=True)],
            "alice, bob, behind bridges, get what this node's own network leaves in a moment.",
        ),
        (
            ASK,
            [worker(), worker(BOB, far=True)],
            "alice, bob serve others now; it starts when its owner's turn comes.",
        ),
        (
            ask(needs=(*LINUX, ("has", "x"))),
            [worker(), worker(BOB)],
            "needs has=x, which nobody has (alice, bob); label a node so, or submit without --need has=x.",
        ),
        (ask(cpus=5), [worker()], "needs 5 cpus, but no worker offers more than 4; submit with a lower --cpus."),
        (
            ask(memory_mb=5000),
            [worker(), worker(BOB, memory_mb=1)],
            "needs 5000 MiB of memory, but no worker offers more than 4096; submit with a lower --memory.",
        ),
        (ask(gpus=2), [worker(gpus=1)], "needs 2 gpus, but no worker offers more than 1; submit with a lower --gpus."),
        (
            ASK,
            [worker(sandbox="none", reason="no bwrap"), worker(BOB, accepts=False)],
            "no worker may run it: alice proved no strict sandbox (no bwrap), bob takes no guests; see `p2pq doctor` there.",
        ),
    ],
)
def test_why_a_job_waits(asked: Ask, workers: list[WorkerSnapshot], sentence: str) -> None:
    assert why(job(asked), None, NOW, workers) == sentence
    assert why(job(asked), task("pending"), NOW, workers) == sentence


def test_a_node_that_is_not_linked_is_named_where_it_is_known() -> None:
    said = why(job(ask(only=BOB.node)), None, NOW, [], name_of={BOB.node: "bob"}.__getitem__)
    assert said == "pinned to node bob, which is not linked; start it, or submit without --where."


@pytest.mark.parametrize(
    ("counts", "sentence"),
    [
        ({"pending": 0, "running": 1}, "the one unfinished task is running; nothing waits."),
        ({"pending": 0, "running": 3}, "all 3 unfinished tasks are running; nothing waits."),
        (
            {"pending": 0, "undelivered": 2},
            "2 results wait to be written to the results folder; check its disk and permissions.",
        ),
        ({"pending": 0}, "every task is over; nothing waits."),
    ],
)
def test_why_of_a_job_in_which_nothing_waits(counts: dict[str, int], sentence: str) -> None:
    assert why(job(**counts), None, NOW, []) == sentence


RUNS = {"worker": ALICE.node, "lease": LeaseId(1, 0), "attempts": 2}
PREPARED = "being prepared (fetching files or waiting for a slot) on {}, attempt 1; nothing to do but wait."
SILENT = (
    " on alice for 60 s as far as is known, but nothing was heard from there for 25 s; "
    "if that lasts its lease ends in 35 s, and it is tried elsewhere."
)
GONE = (
    " on alice for 60 s as far as is known, but alice{} is not reachable, and nothing was heard from there for 5 s; "
    "unless it comes back its lease ends in 55 s, and the task runs again elsewhere."
)
RETRY = "waiting 5 s before the next attempt: {}; it is tried again by itself."


@pytest.mark.parametrize(
    ("of", "sentence"),
    [
        (
            task("running", started=True, since=Mono(40.0), **RUNS),
            "running on alice for 60 s, attempt 2; nothing to do but wait.",
        ),
        (
            task("running", worker=BOB.node, attempts=1),
            PREPARED.format("bob"),
        ),
        (
            task("running", worker=cluster_of(BOB.node), via=(BOB.node,), attempts=1),
            PREPARED.format("bob"),
        ),
        (
            task("running", started=True, since=Mono(40.0), heard=Mono(76.0), due=Mono(136.0), silent_s=24.0, **RUNS),
            "running on alice for 60 s, attempt 2; nothing to do but wait.",
        ),
        (
            task("running", started=True, since=Mono(40.0), heard=Mono(75.0), due=Mono(135.0), silent_s=24.0, **RUNS),
            f"running{SILENT}",
        ),
        (
            task("running", since=Mono(40.0), heard=Mono(75.0), due=Mono(135.0), silent_s=24.0, **RUNS),
            f"being prepared (fetching files or waiting for a slot){SILENT}",
        ),
        (
            task("running", since=Mono(40.0), heard=Mono(75.0), **RUNS),
            "ended on alice, attempt 2; its result is on its way.",
        ),
        (
            task("running", started=True, linked=False, since=Mono(40.0), heard=Mono(95.0), due=Mono(155.0), **RUNS),
            f"running{GONE.format('')}",
        ),
        (
            task("running", linked=False, via=(BOB.node,), since=Mono(40.0), heard=Mono(95.0), due=Mono(155.0), **RUNS),
            f"being prepared (fetching files or waiting for a slot){GONE.format(', reached through bob before,')}",
        ),
        (
            task(
                "running",
                worker=cluster_of(BOB.node),
                via=(BOB.node,),
                linked=False,
                since=Mono(40.0),
                heard=Mono(95.0),
                due=Mono(155.0),
            ),
            f"being prepared (fetching files or waiting for a slot){GONE.format('').replace('alice', 'bob')}",
        ),
        (task("cancelled"), "cancelled; submit the job again to run it."),
        (task("done", delivered=True, **RUNS), "done on alice; nothing to do."),
        (task("done"), "done, its results still to be written to the results folder; nothing to do."),
        (
            task("failed", outcome=Outcome(reason="exit", exit=3), delivered=True, **RUNS),
            "failed on alice after 2 attempts: exit code 3; its results hold what it printed.",
        ),
        (
            task("failed", attempts=1, outcome=Outcome(reason="signal", signal=9), delivered=True),
            "failed after 1 attempts: killed by signal 9; its results hold what it printed.",
        ),
        (
            task("failed", attempts=1, outcome=Outcome(reason="time-limit"), delivered=True),
            "failed after 1 attempts: time-limit; its results hold what it printed.",
        ),
        (task("pending", not_before=Mono(105.0), detail="disk: full"), RETRY.format("disk: full")),
        (task("pending", not_before=Mono(105.0)), RETRY.format("the last attempt did not succeed")),
        (task("pending", not_before=Mono(100.0)), ANN),
    ],
)
def test_why_of_a_task(of: TaskSnapshot, sentence: str) -> None:
    workers = [worker()] if of.worker else []
    assert why(job(), of, NOW, workers, name_of=lambda node: "bob" if node == BOB.node else short(node)) == sentence


def test_what_a_worker_said_when_it_sent_a_task_back_is_told_of_the_job() -> None:
    sentence = why(job(pending=1), None, NOW, [worker()], "refused: the disk is full")
    assert sentence == (
        "alice serves others now; it starts when its owner's turn comes; a worker sent a task back: refused: the disk is full."
    )
    assert "sent a task back" not in why(job(pending=1), task("pending"), NOW, [worker()], "refused: the disk is full")


def test_a_pause_before_a_retry_is_told_of_the_job() -> None:
    one = why(job(pending=1), None, NOW, [worker()], until=Mono(105.0))
    assert one == "waiting 5 s before the next attempt, as the last came to nothing; it is tried again by itself."
    many = why(job(pending=3), None, NOW, [worker()], "disk: full", Mono(105.0))
    assert many == (
        "3 tasks pause as their last attempts came to nothing; the next is tried again in 5 s; "
        "a worker sent a task back: disk: full."
    )
    for until in (None, NOW):
        assert why(job(pending=1), None, NOW, [worker()], until=until).startswith("alice serves others")
    assert why(job(pending=1), task("pending"), NOW, [worker()], until=Mono(105.0)).startswith("alice serves others")


def test_why_a_task_stands_still_where_its_machine_s_owner_is_back() -> None:
    still = {"accepts": False, "reason": "somebody uses this machine", "still": True}
    running = task("running", started=True, since=Mono(40.0), **RUNS)
    assert why(job(), running, NOW, [worker(**still)]) == (
        "suspended on alice, as that machine's owner comes first: somebody uses this machine; it goes on there by itself, "
        "or elsewhere if that takes long."
    )
    own = "running on alice for 60 s, attempt 2; nothing to do but wait."
    assert why(job(), running, NOW, [worker(**still, own=True)]) == own
