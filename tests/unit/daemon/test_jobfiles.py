"""Files of jobs that are gone from their owner's own store, or damaged there."""

import asyncio

from p2pq.core.events import CancelAsked
from p2pq.daemon import jobfiles
from p2pq.errors import StorageError
from p2pq.model import notice as facts
from p2pq.model.ids import JobId
from tests.unit.daemon.jobskit import id_of
from tests.unit.daemon.storekit import WORKER


async def submitted(rig, folder):
    job = id_of(rig, await rig.submit(folder))
    rig.posted.clear()
    return job, [rig.blobs._path(blob) for blob in rig.jobs.files._refs(job)]


def lost(rig, job, fault="fetch"):
    rig.jobs.notice(facts.AttemptLost(job=job, task=0, attempt=1, worker=WORKER, fault=fault))


async def read():
    for task in [task for task in asyncio.all_tasks() if task.get_name().startswith("job files ")]:
        await task


async def test_a_job_whose_files_are_gone_is_given_up_when_a_worker_could_not_have_them(rig, folder):
    job, paths = await submitted(rig, folder)
    paths[0].unlink()
    lost(rig, job, "expired")
    await read()
    assert rig.posted == []
    lost(rig, job)
    await read()
    [asked] = rig.posted
    assert isinstance(asked, CancelAsked)
    said = f"its files are lost (1 of {len(paths)} blobs are damaged or gone on this machine); submit the folder again"
    assert (asked.job, asked.task, asked.lost) == (job, None, said)
    assert rig.jobs.files.look(job), "what is known to be gone is said again at once, as after a start"
    assert len(rig.posted) == 2


async def test_damage_is_found_by_reading_but_not_for_each_fetch_that_fails(rig, folder):
    job, paths = await submitted(rig, folder)
    for _ in range(3):
        lost(rig, job)
        await read()
    assert rig.posted == []
    paths[-1].write_bytes(b"rotten")
    lost(rig, job)
    await read()
    assert rig.posted == []
    rig.jobs.files._read_at[job] -= jobfiles.READ_EVERY_S
    lost(rig, job)
    await read()
    assert len(rig.posted) == 1
    rig.jobs.notice(facts.JobFinished(job=job, state="cancelled"))
    assert not rig.jobs.files._read_at


async def test_a_disk_that_does_not_answer_now_says_nothing(rig, folder, monkeypatch):
    job, _ = await submitted(rig, folder)

    def fail(_):
        raise StorageError("a blob cannot be read: Input/output error")

    monkeypatch.setattr(rig.blobs, "verify", fail)
    lost(rig, job)
    await read()
    lost(rig, JobId(b"x" * 16))
    await read()
    assert rig.posted == []
