"""What the rows of a repaired store mean together: what hangs in the air is dropped, what is lost waits again."""

from pathlib import Path
from typing import Final

import msgspec

from p2pq import decoders
from p2pq.core.intervals import IntervalSet
from p2pq.core.records import Intervals
from p2pq.daemon.delivery import target
from p2pq.daemon.history import JobExtra, encode_extra
from p2pq.daemon.salvage import ATTEMPTS_SANE, Salvage
from p2pq.daemon.submission import open_sweep
from p2pq.model.ids import JobId, Wall, to_text
from p2pq.model.job import Outcome
from p2pq.model.params import task_number
from p2pq.wire.objects import ResultItem

LOST: Final = "its details were lost with a damaged store"


def judge(salvage: Salvage, wall: Wall) -> None:
    """Make a whole of the rows that were saved, and note what is missing.

    Args:
        salvage: the new store, within a transaction.
        wall: the present.
    """
    run = salvage.db.execute
    _belong(salvage)
    _settle(salvage)
    _drop(
        salvage,
        "leases",
        "n NOT IN (SELECT n FROM jobs WHERE state IS NULL) OR NOT EXISTS (SELECT * FROM tasks WHERE tasks.n = leases.n "
        "AND tasks.task = leases.task AND state = 'running' AND attempts = leases.attempt) "
        "OR (SELECT count(*) FROM leases AS other WHERE other.n = leases.n AND other.task = leases.task) > 1 "
        "OR EXISTS (SELECT * FROM settled WHERE settled.epoch = leases.epoch AND counter >= start AND counter < stop)",
    )
    salvage.again += run(
        "UPDATE tasks SET state = 'pending' WHERE state = 'running' AND NOT EXISTS "
        "(SELECT * FROM leases WHERE leases.n = tasks.n AND leases.task = tasks.task)"
    ).rowcount
    run("UPDATE tasks SET attempts = 0 WHERE attempts NOT BETWEEN 0 AND ?", (ATTEMPTS_SANE,))
    run(
        "UPDATE tasks SET attempts = max(attempts, coalesce((SELECT max(attempt) FROM attempts "
        "WHERE attempts.n = tasks.n AND attempts.task = tasks.task), 0))"
    )
    _rebuild_tasks(salvage)
    _miss(salvage)
    salvage.again += run(
        "UPDATE tasks SET state = 'pending', ended = NULL WHERE state IN ('done', 'failed') AND NOT delivered "
        "AND n IN (SELECT n FROM jobs WHERE state IS NULL) AND NOT EXISTS (SELECT * FROM attempts "
        "WHERE attempts.n = tasks.n AND attempts.task = tasks.task AND result IS NOT NULL)"
    ).rowcount
    run(
        "UPDATE tasks SET state = 'cancelled', delivered = 1 WHERE state = 'pending' "
        "AND n IN (SELECT n FROM jobs WHERE cancelled AND state IS NULL)"
    )
    _fill_done(salvage)
    (highest,) = run(
        "SELECT max(coalesce((SELECT max(value) FROM meta WHERE key != 'synced'), 0), "
        "coalesce((SELECT max(epoch) FROM attempts), 0), coalesce((SELECT max(epoch) FROM leases), 0), "
        "coalesce((SELECT max(epoch) FROM settled), 0), ?)",
        (wall,),
    ).fetchone()
    for key in ("epoch", "rebuilt"):
        run("INSERT OR REPLACE INTO meta VALUES (?, ?)", (key, highest))


def _drop(salvage: Salvage, table: str, where: str) -> None:
    gone = salvage.db.execute(f"DELETE FROM {table} WHERE {where}").rowcount  # noqa: S608  all of it is written here
    salvage.counts[table].saved -= gone
    salvage.counts[table].dropped += gone


def _belong(salvage: Salvage) -> None:
    """Drop what belongs to a job that is lost, and remember what is known of that."""
    run = salvage.db.execute
    rest: dict[int, bytes | None] = {}
    for table in ("tasks", "attempts", "leases"):
        rest |= dict.fromkeys(n for (n,) in run(f"SELECT DISTINCT n FROM {table} WHERE n NOT IN (SELECT n FROM jobs)"))  # noqa: S608
    for n in rest:
        found = run("SELECT result FROM attempts WHERE n = ? AND result IS NOT NULL LIMIT 1", (n,)).fetchone()
        rest[n] = None if found is None else decoders.unpack(found[0], ResultItem).job
    named = dict(run("SELECT job, extra FROM extras WHERE job NOT IN (SELECT job FROM jobs)").fetchall())
    for job, raw in named.items():
        extra = decoders.unpack(raw, JobExtra)
        salvage.lost.append(f"{to_text(job)[:8]} {extra.name} ({extra.folder})")
    ids = {job for job in rest.values() if job is not None}
    salvage.lost += [f"{to_text(job)[:8]} (its name and folder are lost, too)" for job in sorted(ids - named.keys())]
    # Each of the others may be one of those that are named.
    nameless = max(0, sum(job is None for job in rest.values()) - len(named.keys() - ids))
    salvage.lost += ["of which not even the id is left"] * nameless
    salvage.counts["jobs"].lost += len(salvage.lost)
    _drop(salvage, "extras", "job NOT IN (SELECT job FROM jobs)")
    for table in ("tasks", "attempts", "grants", "proofs", "subs"):
        _drop(salvage, table, "n NOT IN (SELECT n FROM jobs)")


def _miss(salvage: Salvage) -> None:
    """Say of each job what is missing of it, in the report and, where people look at the job, in what they see of it."""
    run = salvage.db.execute
    parts: dict[int, list[str]] = {n: ["what happened to it last"] for n in sorted(salvage.earlier)}
    for (n,) in run("SELECT n FROM jobs WHERE NOT pruned AND job NOT IN (SELECT job FROM extras)"):
        parts.setdefault(n, []).append("its name, its folder and where its results lie")
        salvage.counts["extras"].lost += 1
    tasks = run(
        "SELECT n, done + failed - (SELECT count(*) FROM tasks WHERE tasks.n = jobs.n AND tasks.state IN ('done', 'failed')) "
        "AS gone FROM jobs WHERE state IS NOT NULL AND NOT pruned AND gone > 0"
    ).fetchall()
    for n, gone in tasks:
        parts.setdefault(n, []).append(f"the details of {_count(gone, 'task')}")
        salvage.counts["tasks"].lost += gone
    attempts = run(
        "SELECT n, sum(gone) FROM (SELECT n, attempts - (SELECT count(*) FROM attempts WHERE attempts.n = tasks.n "
        "AND attempts.task = tasks.task) AS gone FROM tasks) WHERE gone > 0 GROUP BY n"
    ).fetchall()
    for n, gone in attempts if salvage.harmed else ():
        parts.setdefault(n, []).append(f"the details of {_count(gone, 'attempt')}")
        salvage.counts["attempts"].lost += gone
    for n, texts in sorted(parts.items()):
        _note(salvage, n, " and ".join(texts))


def _note(salvage: Salvage, number: int, missing: str) -> None:
    run = salvage.db.execute
    job, state = run("SELECT job, state FROM jobs WHERE n = ?", (number,)).fetchone()
    found = run("SELECT extra FROM extras WHERE job = ?", (job,)).fetchone()
    if found is None:
        # Its results, if any come or are wanted again, go into the home.
        results = salvage.home.path / "recovered" / to_text(job)
        extra = JobExtra(name="recovered", results=str(results), tasks=salvage.sizes[number])
        if state is None:
            salvage.moved.append(f"{to_text(JobId(job))[:8]}: {results}")
    else:
        extra = decoders.unpack(found[0], JobExtra)
    extra = msgspec.structs.replace(extra, lost=f"lost with a damaged store: {missing}")
    run("INSERT OR REPLACE INTO extras VALUES (?, ?)", (job, encode_extra(extra)))
    salvage.incomplete.append(f"{to_text(JobId(job))[:8]} {extra.name}: {missing}")


def _settle(salvage: Salvage) -> None:
    """Whatever brought a result is settled, even if that very row is lost."""
    run = salvage.db.execute
    found: dict[int, IntervalSet] = {}
    for epoch, start, stop in run("SELECT epoch, start, stop FROM settled"):
        found.setdefault(epoch, IntervalSet()).add(start, stop)
    for epoch, counter in run("SELECT epoch, counter FROM attempts WHERE outcome IS NOT NULL"):
        found.setdefault(epoch, IntervalSet()).add(counter)
    run("DELETE FROM settled")
    salvage.db.executemany(
        "INSERT INTO settled VALUES (?, ?, ?)",
        ((epoch, start, stop) for epoch, done in found.items() for start, stop in done.intervals()),
    )


def _rebuild_tasks(salvage: Salvage) -> None:
    """Tasks whose row is lost: what their attempts say of them."""
    run = salvage.db.execute
    lost = run(
        "SELECT n, task, max(attempt), sum(fault IS NOT NULL), max(attempts.ended), job, jobs.state, "
        "group_concat(hex(outcome)) FROM attempts JOIN jobs USING (n) "
        "WHERE NOT EXISTS (SELECT * FROM tasks WHERE tasks.n = attempts.n AND tasks.task = attempts.task) "
        "GROUP BY n, task"
    ).fetchall()
    for number, task, attempts, faults, ended, job, job_state, outcomes in lost:
        salvage.counts["tasks"].lost += job_state is None
        ends = [decoders.unpack(bytes.fromhex(text), Outcome) for text in (outcomes or "").split(",") if text]
        done = any(outcome.ok for outcome in ends)
        delivered = done and (job_state is not None or _is_delivered(salvage, job, task))
        salvage.again += not done and job_state is None
        run(
            "INSERT INTO tasks (n, task, state, attempts, failures, faults, delivered, ended) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            (number, task, "done" if done else "pending", attempts, len(ends) - done, faults, delivered, ended),
        )


def _is_delivered(salvage: Salvage, job: bytes, task: int) -> bool:
    found = salvage.db.execute("SELECT extra FROM extras WHERE job = ?", (job,)).fetchone()
    if found is None:
        return False
    extra = decoders.unpack(found[0], JobExtra)
    sweep = open_sweep(extra)
    number = task_number(sweep.array, sweep.axes, task)
    return target(Path(extra.results), tasks=extra.tasks, number=number).is_dir()


def _fill_done(salvage: Salvage) -> None:
    """Tasks of jobs that ended as done: every one of them is done, whatever else is lost."""
    run = salvage.db.execute
    for number, done, raw in run("SELECT n, done, kept FROM jobs WHERE state = 'done' AND NOT pruned").fetchall():
        (rows,) = run("SELECT count(*) FROM tasks WHERE n = ?", (number,)).fetchone()
        if rows >= done:
            continue
        kept = IntervalSet(() if raw is None else decoders.unpack(raw, Intervals))
        run("UPDATE tasks SET state = 'done', delivered = 1 WHERE n = ?", (number,))
        salvage.db.executemany(
            "INSERT OR IGNORE INTO tasks (n, task, state, attempts, delivered, detail) VALUES (?, ?, 'done', 1, 1, ?)",
            ((number, task, LOST) for task in range(salvage.sizes[number]) if task not in kept),
        )


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"
