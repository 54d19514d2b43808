"""The store adds rows up to what the reference, ``core.ledger.Ledger``, adds them up to, whenever it is closed and opened."""

import asyncio
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from p2pq.core import records
from p2pq.core.intervals import IntervalSet
from p2pq.core.ledger import Ledger
from p2pq.core.records import Restored, Row
from p2pq.daemon.store import Store
from p2pq.model.halt import Halt
from p2pq.model.ids import JobId, LeaseId, NodeId, Wall
from p2pq.model.job import Outcome
from p2pq.wire.objects import BlobRef, ResultItem

JOBS = [JobId(bytes([n]) * 16) for n in range(3)]
NODES = [NodeId(bytes([n]) * 32) for n in range(4)]
HANDED = tuple(records.HandedOn(signed=word, certs=(word, b"admin")) for word in (b"above", b"sub"))
PROOF = records.Proof(signed=b"result", certs=(b"member", b"admin"), handed=HANDED)
HALT = Halt(now=True, what="fail", count=3)
OUTCOMES = [
    Outcome(reason="ok"),
    Outcome(reason="exit", exit=3),
    Outcome(reason="runner-died"),
    Outcome(reason="saved", exit=1),
]

numbers = st.integers(0, 3)
nodes = st.sampled_from(NODES)
walls = st.integers(0, 1 << 40).map(Wall)
bits = st.booleans()


class Life:
    """What a core that writes rows knows, as far as rows follow from each other: draws the next one that may come."""

    def __init__(self) -> None:
        self.epoch = 0
        self.counter = 0
        self.live: dict[JobId, dict[int, str]] = {}
        self.attempts: dict[tuple[JobId, int], int] = {}
        self.leases: dict[LeaseId, tuple[JobId, int, int]] = {}
        self.kept: list[tuple[NodeId, LeaseId]] = []
        self.ended: list[JobId] = []
        self.added: dict[JobId, records.JobAdded] = {}

    def draw(self, data: st.DataObject) -> list[Row]:
        choices = [self.begin, self.peer, self.ban, self.keep]
        choices += [self.add] if len(self.attempts.keys() | self.live.keys()) == 0 or self.unused() else []
        choices += [self.grant, self.grant, self.end_task, self.deliver, self.cancel, self.end_job] if self.live else []
        choices += [self.halt, self.retry, self.forgive] if self.live else []
        choices += [self.reopen] if self.ended else []
        choices += [self.lose, self.move, self.settle, self.settle] if self.leases else []
        choices += [self.release] if self.kept else []
        return data.draw(st.sampled_from(choices))(data)

    def unused(self) -> list[JobId]:
        used = self.live.keys() | {job for job, _ in self.attempts}
        return [job for job in JOBS if job not in used]

    def begin(self, data: st.DataObject) -> list[Row]:
        self.epoch += data.draw(st.integers(1, 3))
        self.counter = 0
        return [records.EpochBegun(epoch=self.epoch)]

    def add(self, data: st.DataObject) -> list[Row]:
        job = self.unused()[0]
        self.live[job] = {}
        self.attempts[job, -1] = 0
        manifest = data.draw(st.binary(max_size=8))
        self.added[job] = records.JobAdded(
            job=job,
            manifest=manifest,
            key=b"k",
            reply_secret=b"s",
            wall=data.draw(walls),
            kept=data.draw(st.sampled_from([(), ((0, 1),), ((0, 1), (3, 9))])),
            halt=data.draw(st.sampled_from([None, HALT])),
        )
        return [self.added[job]]

    def grant(self, data: st.DataObject) -> list[Row]:
        job, task = data.draw(st.sampled_from(list(self.live))), data.draw(numbers)
        others = self.under_way(job, task)
        if self.live[job].get(task, "pending") not in {"pending", "running"} or len(others) > 1:
            return []
        self.counter += data.draw(st.integers(1, 2))
        lease = LeaseId(self.epoch, self.counter)
        attempt = self.attempts[job, task] = self.attempts.get((job, task), 0) + 1
        self.live[job][task] = "running"
        self.leases[lease] = (job, task, attempt)
        worker, wall = data.draw(nodes), data.draw(walls)
        row = records.LeaseGranted(lease=lease, job=job, task=task, attempt=attempt, worker=worker, wall=wall)
        # Not every lease is the first of a grant; one that a repaired store took up is of none.
        return [row, *([records.GrantKept(job=job, lease=lease, signed=b"grant")] if data.draw(bits) else [])]

    def under_way(self, job: JobId, task: int) -> list[LeaseId]:
        return [lease for lease, (whose, which, _) in self.leases.items() if (whose, which) == (job, task)]

    def forgive(self, data: st.DataObject) -> list[Row]:
        job, task = data.draw(st.sampled_from(list(self.live))), data.draw(numbers)
        attempts = self.attempts.get((job, task), 0)
        if not attempts:
            return []
        return [records.FailureForgiven(job=job, task=task, attempt=data.draw(st.integers(1, attempts)))]

    def move(self, data: st.DataObject) -> list[Row]:
        return [records.LeaseMoved(lease=data.draw(st.sampled_from(list(self.leases))), worker=data.draw(nodes))]

    def lose(self, data: st.DataObject) -> list[Row]:
        lease = data.draw(st.sampled_from(list(self.leases)))
        job, task, attempt = self.leases.pop(lease)
        if job in self.live and not self.under_way(job, task):
            self.live[job][task] = "pending"
        counted = data.draw(bits)
        return [records.LeaseEnded(lease=lease, job=job, task=task, attempt=attempt, fault="lost", counted=counted)]

    def settle(self, data: st.DataObject) -> list[Row]:
        lease = data.draw(st.sampled_from(list(self.leases)))
        job, task, attempt = self.leases.pop(lease)
        outcome = data.draw(st.sampled_from(OUTCOMES))
        state = "done" if outcome.ok else data.draw(st.sampled_from(["failed", "pending"]))
        before: list[Row] = []
        if not outcome.ok and self.under_way(job, task):
            state = "running"
        for other in self.under_way(job, task) if outcome.ok else ():
            _, _, lost = self.leases.pop(other)
            before.append(
                records.LeaseEnded(lease=other, job=job, task=task, attempt=lost, fault="cancelled", counted=False)
            )
        if job in self.live:
            self.live[job][task] = state
        result = ResultItem(
            job=job,
            task=task,
            attempt=attempt,
            lease=lease,
            outcome=outcome,
            sandbox="strict",
            checkpoint=not outcome.ok and data.draw(bits),
        )
        return [
            *before,
            records.AttemptEnded(
                lease=lease,
                job=job,
                task=task,
                worker=data.draw(nodes),
                result=result,
                state=state,  # type: ignore[arg-type]
                wall=data.draw(walls),
                counted=data.draw(bits),
                proof=data.draw(st.sampled_from([None, PROOF])),
            ),
        ]

    def end_task(self, data: st.DataObject) -> list[Row]:
        job, task = data.draw(st.sampled_from(list(self.live))), data.draw(numbers)
        if self.live[job].get(task, "pending") != "pending":
            return []
        state = data.draw(st.sampled_from(["failed", "cancelled"]))
        self.live[job][task] = state
        detail = data.draw(st.text(max_size=5))
        return [
            records.TaskEnded(job=job, task=task, state=state, detail=detail, wall=data.draw(walls))  # type: ignore[arg-type]
        ]

    def deliver(self, data: st.DataObject) -> list[Row]:
        job = data.draw(st.sampled_from(list(self.live)))
        over = [task for task, state in self.live[job].items() if state in {"done", "failed"}]
        return [records.TaskDelivered(job=job, task=data.draw(st.sampled_from(over)))] if over else []

    def cancel(self, data: st.DataObject) -> list[Row]:
        """The leases of a job end before what is left of it is cancelled."""
        job = data.draw(st.sampled_from(list(self.live)))
        rows = self._end_leases(job)
        self.live[job] = {task: state for task, state in self.live[job].items() if state in {"done", "failed"}}
        self.live[job].update(dict.fromkeys(set(range(4)) - self.live[job].keys(), "cancelled"))
        return [*rows, records.TasksCancelled(job=job, wall=data.draw(walls))]

    def halt(self, data: st.DataObject) -> list[Row]:
        """A job that is halted softly lets what runs end."""
        job = data.draw(st.sampled_from(list(self.live)))
        self.live[job].update({task: "cancelled" for task in range(4) if self.live[job].get(task) in {None, "pending"}})
        wall = data.draw(walls)
        return [
            records.JobHalted(job=job, detail=data.draw(st.text(max_size=5))),
            records.TasksCancelled(job=job, wall=wall, running=False),
        ]

    def retry(self, data: st.DataObject) -> list[Row]:
        return [self._retried(data.draw(st.sampled_from(list(self.live))), data)]

    def _retried(self, job: JobId, data: st.DataObject) -> Row:
        over = [task for task, state in self.live[job].items() if state in {"failed", "cancelled"}]
        again = data.draw(st.sets(st.sampled_from(over))) if over else set()
        self.live[job].update(dict.fromkeys(again, "pending"))
        tasks = IntervalSet((task, task + 1) for task in again).intervals()
        return records.TasksRetried(job=job, tasks=tasks, rest=data.draw(bits), wall=data.draw(walls))

    def reopen(self, data: st.DataObject) -> list[Row]:
        """A job that has ended comes back with tasks as somebody says that they were."""
        job = self.ended.pop(data.draw(st.integers(0, len(self.ended) - 1)))
        tasks = []
        self.live[job] = {}
        for task in range(4):
            state = data.draw(st.sampled_from(["done", "failed", "cancelled"]))
            self.live[job][task] = state
            attempts = self.attempts.get((job, task), 0)
            died, detail = data.draw(bits), data.draw(st.text(max_size=3))
            tasks.append(
                records.RestoredTask(
                    task=task,
                    state=state,  # type: ignore[arg-type]
                    attempts=attempts,
                    failures=data.draw(numbers),
                    faults=data.draw(numbers),
                    detail=detail,
                    delivered=data.draw(bits),
                    died=died,
                )
            )
        old = self.added[job]
        back = records.RestoredJob(
            job=job,
            manifest=old.manifest,
            key=old.key,
            reply_secret=old.reply_secret,
            wall=old.wall,
            kept=old.kept,
            halt=old.halt,
            halted=data.draw(st.text(max_size=3)),
            cancelled=data.draw(bits),
            tasks=tuple(tasks),
        )
        return [records.JobReopened(job=back), self._retried(job, data)]

    def end_job(self, data: st.DataObject) -> list[Row]:
        job = data.draw(st.sampled_from(list(self.live)))
        rows = self._end_leases(job)
        del self.live[job]
        self.ended.append(job)
        state = data.draw(st.sampled_from(["done", "failed", "cancelled"]))
        return [*rows, records.JobEnded(job=job, state=state, wall=data.draw(walls))]  # type: ignore[arg-type]

    def _end_leases(self, job: JobId) -> list[Row]:
        ended = {lease: held for lease, held in self.leases.items() if held[0] == job}
        for lease in ended:
            del self.leases[lease]
        return [
            records.LeaseEnded(lease=lease, job=job, task=task, attempt=attempt, fault="cancelled", counted=False)
            for lease, (_, task, attempt) in ended.items()
        ]

    def keep(self, data: st.DataObject) -> list[Row]:
        lease, master = LeaseId(data.draw(numbers), data.draw(numbers)), data.draw(nodes)
        self.kept.append((master, lease))
        blobs = (BlobRef(b"b" * 32, 5),)
        item = ResultItem(
            job=JOBS[0], task=0, attempt=1, lease=lease, outcome=OUTCOMES[0], sandbox="none", key=b"k", body=blobs
        )
        return [
            records.ResultKept(
                lease=lease,
                master=master,
                item=item,
                wall=data.draw(walls),
                owner=data.draw(st.text(max_size=3)),
                subs=data.draw(st.sampled_from([(), (b"sub",), (b"above", b"sub")])),
            )
        ]

    def release(self, data: st.DataObject) -> list[Row]:
        master, lease = data.draw(st.sampled_from(self.kept))
        return [records.ResultReleased(lease=lease, master=master)]

    def peer(self, data: st.DataObject) -> list[Row]:
        addresses = data.draw(st.sampled_from([(), ("10.0.0.1:9476",), ("10.0.0.1:1", "[fe80::1]:2")]))
        return [records.PeerSeen(node=data.draw(nodes), name=data.draw(st.text(max_size=3)), addresses=addresses)]

    def ban(self, data: st.DataObject) -> list[Row]:
        issuer, signed = data.draw(st.sampled_from((b"", b"i", b"j"))), data.draw(st.binary(max_size=3))
        return [records.BanKept(node=data.draw(nodes), banned=data.draw(bits), issuer=issuer, signed=signed)]

    def owner_ban(self, data: st.DataObject) -> list[Row]:
        owner, issuer = data.draw(st.sampled_from(("ann", "eve"))), data.draw(st.sampled_from((b"", b"i", b"j")))
        signed = data.draw(st.binary(max_size=3))
        return [records.OwnerBanKept(owner=owner, banned=data.draw(bits), issuer=issuer, signed=signed)]

    def mesh_keys(self, data: st.DataObject) -> list[Row]:
        return [records.MeshKeysKept(signed=tuple(data.draw(st.lists(st.binary(min_size=1, max_size=3), max_size=8))))]

    def peering(self, data: st.DataObject) -> list[Row]:
        words = st.binary(max_size=3)
        ident, offer = data.draw(st.sampled_from((b"1", b"2"))), data.draw(words)
        return [records.PeeringKept(id=ident, offer=offer, accept=data.draw(words), end=data.draw(words))]

    def peer_ban(self, data: st.DataObject) -> list[Row]:
        either = st.sampled_from((b"1", b"2"))
        mesh, issuer, subject = (data.draw(either) for _ in range(3))
        return [records.PeerBanKept(mesh=mesh, issuer=issuer, subject=subject, signed=data.draw(st.binary(max_size=3)))]


@pytest.mark.slow
@settings(max_examples=60)
@given(st.data())
def test_the_store_agrees_with_the_ledger(data: st.DataObject) -> None:
    life, ledger = Life(), Ledger()
    batches: list[list[Row]] = []
    for _ in range(data.draw(st.integers(1, 30), label="batches")):
        batch = [row for _ in range(data.draw(st.integers(0, 6))) for row in life.draw(data)]
        batches.append(batch)
    restarts = data.draw(st.sets(st.integers(0, len(batches))), label="restarts before")

    async def run() -> None:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "store.sqlite"
            store, restored = open_store(path)
            assert restored == Restored()
            for number, batch in enumerate(batches):
                if number in restarts:
                    await store.close()
                    store, restored = open_store(path)
                    assert restored == ledger.restored()
                waiter = store.commit(batch, full=number % 2 == 0)
                for row in batch:
                    ledger.apply(row)
            await waiter
            await store.close()
            store, restored = open_store(path)
            await store.close()
            assert restored == ledger.restored()

    asyncio.run(run())


def open_store(path: Path) -> tuple[Store, Restored]:
    store, restored = Store.open(path, lambda: Wall(0))
    store.start()
    return store, restored
