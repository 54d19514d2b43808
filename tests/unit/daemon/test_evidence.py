"""What proves results in the store: found by their leases, kept once, gone with their job."""

from contextlib import closing
from pathlib import Path

import msgspec
import pytest

from p2pq.core.records import GrantKept, HandedOn, JobAdded, JobEnded, Proof, TaskEnded, TasksRetried
from p2pq.daemon import evidence, sqlite
from p2pq.daemon.history import History
from p2pq.model.config import StoreSettings
from p2pq.model.ids import JobId, LeaseId, Wall
from p2pq.model.job import Outcome
from p2pq.wire.provenance import Handing, Kept
from tests.unit.core.test_through import chain
from tests.unit.core.workerkit import ANN, BOB
from tests.unit.daemon.storekit import ADDED, JOB, Opened, attempt_ended, granted, item, raw

Certs = tuple[bytes, ...]
CERTS: Certs = (b"member", b"admin")
BAD = Outcome(reason="exit", exit=3)


def grant(counter: int, signed: bytes, epoch: int = 1) -> GrantKept:
    return GrantKept(job=JOB, lease=LeaseId(epoch, counter), signed=signed)


def ended(task: int, attempt: int, counter: int, signed: bytes | None = b"word", certs=CERTS, **how):
    result = item(task, attempt, LeaseId(how.pop("epoch", 1), counter), how.pop("outcome", None))
    proof = None if signed is None else Proof(signed=signed, certs=certs, handed=how.pop("handed", ()))
    return msgspec.structs.replace(attempt_ended(result, how.pop("state", "done")), proof=proof)


def found(path: Path, start: int = 0, limit: int = 100) -> tuple[evidence.Decided, ...]:
    with closing(sqlite.connect(path, readonly=True)) as db:
        return History(db, path).decided(JOB, start=start, limit=limit)


def kept(task: int, counter: int, signed: bytes, given: bytes, certs=CERTS, **more) -> Kept:
    attempt = more.pop("attempt", 1)
    lease = LeaseId(more.pop("epoch", 1), counter)
    result = item(task, attempt, lease, more.pop("outcome", None))
    fields = {"grant": given, "signed": signed, "certs": certs, "granted": Wall(2000)} | more
    return Kept(task=task, attempt=attempt, lease=lease, wall=Wall(3000), item=result, **fields)


def handed(*steps: tuple[bytes, Certs]) -> tuple[HandedOn, ...]:
    return tuple(HandedOn(signed=signed, certs=certs) for signed, certs in steps)


NEAR, FURTHER, LAST = (b"near", (b"N", b"A")), (b"further", (b"F", b"A")), (b"last", (b"L", b"A"))


async def test_each_result_has_its_own_word_its_grant_and_its_certificates(opened: Opened) -> None:
    await opened.write(
        ADDED,
        *(granted(task, lease=LeaseId(1, task)) for task in range(4)),
        grant(0, b"of 0 and 1"),
        grant(2, b"of 2"),
        grant(3, b"of 3"),
        ended(1, 1, 1, b"one"),
        ended(0, 1, 0, b"nought", ()),
        ended(2, 1, 2, None),
        ended(3, 1, 3, b"three", outcome=BAD, state="failed"),
    )
    both = [
        kept(0, 0, b"nought", b"of 0 and 1", ()),
        kept(1, 1, b"one", b"of 0 and 1"),
        kept(2, 2, b"", b"of 2", ()),
        kept(3, 3, b"three", b"of 3", outcome=BAD),
    ]
    assert [each.kept for each in found(opened.path)] == both
    assert [each.state for each in found(opened.path)] == ["done", "done", "done", "failed"]
    assert [each.task for each in found(opened.path, start=1, limit=2)] == [1, 2]
    await opened.reopened()
    assert [each.kept for each in found(opened.path)] == both


async def test_the_attempt_that_decided_is_the_one_that_is_shown(opened: Opened) -> None:
    await opened.write(
        ADDED,
        granted(0, 1, LeaseId(1, 0)),
        grant(0, b"first"),
        ended(0, 1, 0, b"failed", outcome=BAD, state="pending"),
    )
    assert found(opened.path) == (), "it goes on"
    await opened.write(granted(0, 2, LeaseId(2, 0)), grant(0, b"second", epoch=2), ended(0, 2, 0, b"good", epoch=2))
    assert [each.kept for each in found(opened.path)] == [kept(0, 0, b"good", b"second", attempt=2, epoch=2)]
    await opened.write(TasksRetried(job=JOB, tasks=((0, 1),), wall=Wall(1)))
    assert found(opened.path) == (), "it was let run again"


async def test_a_task_that_was_given_up_has_none(opened: Opened) -> None:
    await opened.write(
        ADDED,
        granted(0),
        TaskEnded(job=JOB, task=0, state="failed", detail="given up", wall=Wall(1)),
        TaskEnded(job=JOB, task=1, state="cancelled", wall=Wall(1)),
    )
    assert found(opened.path) == (evidence.Decided(task=0, state="failed", delivered=True, kept=None),)


async def test_each_is_stored_once(opened: Opened) -> None:
    second = JobAdded(job=JobId(b"k" * 16), manifest=b"m", key=b"K", reply_secret=b"S", wall=Wall(1001))
    await opened.write(
        ADDED,
        second,
        *(granted(task, lease=LeaseId(1, task)) for task in range(64)),
        grant(0, b"a grant"),
        *(ended(task, 1, task, b"one word on all of them") for task in range(64)),
    )
    assert raw(opened.path, "SELECT count(*) FROM grants") == [(1,)]
    assert raw(opened.path, "SELECT signed FROM proofs") == [(b"one word on all of them",)]
    assert raw(opened.path, "SELECT n FROM chains") == [(1,)]
    assert {each.kept.signed for each in found(opened.path) if each.kept} == {b"one word on all of them"}
    await opened.write(msgspec.structs.replace(ended(0, 1, 70), job=second.job))
    assert raw(opened.path, "SELECT n FROM chains") == [(2,)], "shared by all jobs, and named by the latest"


@pytest.mark.parametrize("steps", [(NEAR,), (NEAR, FURTHER), (NEAR, FURTHER, LAST), ((b"near", ()), LAST)])
async def test_how_bridges_handed_it_on_is_kept_in_order(
    opened: Opened, steps: tuple[tuple[bytes, Certs], ...]
) -> None:
    await opened.write(ADDED, granted(0), grant(0, b"to a bridge"), ended(0, 1, 7, handed=handed(*steps)))
    expected = tuple(Handing(signed=signed, certs=certs) for signed, certs in steps)
    assert [each.kept for each in found(opened.path)] == [kept(0, 7, b"word", b"to a bridge", handed=expected)]


async def test_a_sub_grant_is_stored_once_for_all_its_leases(opened: Opened) -> None:
    second = JobAdded(job=JobId(b"k" * 16), manifest=b"m", key=b"K", reply_secret=b"S", wall=Wall(1001))
    await opened.write(
        ADDED,
        second,
        *(granted(task, lease=LeaseId(1, task)) for task in range(9)),
        *(ended(task, 1, task, handed=handed(NEAR, FURTHER if task < 5 else LAST)) for task in range(9)),
    )
    rows = "SELECT s, n, above, signed, (SELECT certs FROM chains WHERE c = chain) IS NOT NULL FROM subs"
    assert raw(opened.path, rows) == [(1, 1, None, b"near", 1), (2, 1, 1, b"further", 1), (3, 1, 1, b"last", 1)]
    steps = [tuple(step.signed for step in each.kept.handed) for each in found(opened.path) if each.kept]
    assert steps == [(b"near", b"further")] * 5 + [(b"near", b"last")] * 4
    await opened.write(msgspec.structs.replace(ended(0, 1, 70, handed=handed(NEAR)), job=second.job))
    assert raw(opened.path, "SELECT n FROM subs ORDER BY s")[-1] == (2,), "each job has its own, and takes them along"


async def test_certificates_of_a_bridge_that_become_known_later_prove_what_came_before(opened: Opened) -> None:
    await opened.write(ADDED, granted(0), granted(1, lease=LeaseId(1, 8)), ended(0, 1, 7, handed=handed((b"near", ()))))
    await opened.write(ended(1, 1, 8, handed=handed(NEAR)))
    await opened.write(granted(2, lease=LeaseId(1, 9)), ended(2, 1, 9, handed=handed((b"near", (b"later", b"A")))))
    steps = [each.kept.handed for each in found(opened.path) if each.kept]
    assert steps == [(Handing(signed=b"near", certs=NEAR[1]),)] * 3


@pytest.mark.parametrize("lost", ["near", "further"])
async def test_of_a_way_all_is_given_back_or_nothing(opened: Opened, lost: str) -> None:
    await opened.write(ADDED, granted(0), grant(0, b"to a bridge"), ended(0, 1, 7, handed=handed(NEAR, FURTHER)))
    await opened.store.close()
    raw(opened.path, f"DELETE FROM subs WHERE signed = CAST('{lost}' AS BLOB)")
    assert [each.kept for each in found(opened.path)] == [kept(0, 7, b"word", b"to a bridge")]


async def test_how_live_leases_were_granted_is_given_back(opened: Opened) -> None:
    await opened.write(
        ADDED,
        *(granted(task, lease=LeaseId(1, task)) for task in range(6)),
        *(grant(counter, b"grant %d" % counter) for counter in (1, 3, 5)),
        ended(5, 1, 5),
    )
    restored = await opened.reopened()
    assert restored.grants == (grant(1, b"grant 1"), grant(3, b"grant 3")), "one was granted before any that is kept"


async def test_it_goes_with_its_job(opened: Opened) -> None:
    second = JobAdded(job=JobId(b"k" * 16), manifest=b"m", key=b"K", reply_secret=b"S", wall=Wall(1001))
    await opened.write(
        ADDED,
        *(granted(task, lease=LeaseId(1, task)) for task in range(9)),
        *(grant(task, b"a grant") for task in range(9)),
        *(ended(task, 1, task, b"word %d" % task, handed=handed(NEAR, (b"sub %d" % task, CERTS))) for task in range(9)),
        JobEnded(job=JOB, state="done", wall=Wall(5000)),
        second,
        GrantKept(job=second.job, lease=LeaseId(1, 20), signed=b"of the second"),
    )
    await opened.store.prune(StoreSettings(keep_days=1))
    counts = "SELECT (SELECT count(*) FROM jobs), (SELECT count(*) FROM grants), (SELECT count(*) FROM proofs), "
    assert raw(opened.path, counts + "(SELECT count(*) FROM chains), (SELECT count(*) FROM subs)") == [(1, 1, 0, 0, 0)]


async def test_rows_of_a_job_that_is_gone_leave_nothing(opened: Opened) -> None:
    await opened.write(grant(0, b"a grant"), ended(0, 1, 0))
    counts = "SELECT (SELECT count(*) FROM grants), (SELECT count(*) FROM proofs), (SELECT count(*) FROM chains)"
    assert raw(opened.path, counts) == [(0, 0, 0)]


async def test_leases_that_a_damaged_store_may_have_forgotten_are_marked(opened: Opened) -> None:
    await opened.write(ADDED, granted(0), ended(0, 1, 7))
    await opened.store.close()
    raw(opened.path, "INSERT INTO meta VALUES ('rebuilt', 1)")
    assert [each.kept.forgotten for each in found(opened.path) if each.kept] == [True]
    raw(opened.path, "UPDATE meta SET value = 0 WHERE key = 'rebuilt'")
    assert [each.kept.forgotten for each in found(opened.path) if each.kept] == [False]


async def test_workers_are_called_what_their_certificates_say(opened: Opened) -> None:
    one, other = chain(ANN), chain(BOB)
    await opened.write(
        ADDED,
        *(granted(task, lease=LeaseId(1, task)) for task in range(3)),
        ended(0, 1, 0, b"nought", one),
        ended(1, 1, 1, b"one", other),
        ended(2, 1, 2, b"two", (b"no certificate", b"at all")),
    )
    with closing(sqlite.connect(opened.path, readonly=True)) as db:
        assert History(db, opened.path).workers_named() == {ANN.node: "ann", BOB.node: "bob"}
