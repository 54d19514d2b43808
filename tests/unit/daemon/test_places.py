"""Where the results of jobs lie, also after newer jobs have moved them aside."""

from pathlib import Path

from p2pq.core.records import JobEnded
from p2pq.daemon import places
from p2pq.model.ids import Wall
from tests.unit.daemon.jobskit import id_of


async def over(rig, folder, **options):
    view = await rig.submit(folder, **options)
    job = id_of(rig, view)
    await rig.write(JobEnded(job=job, state="cancelled", wall=Wall(4)))
    return job


def lies(rig, job):
    return Path(rig.store.job(job).extra.results)


async def test_moved_results_go_on_belonging_to_their_jobs(rig, folder, tmp_path):
    results = folder / "results"
    first = await over(rig, folder)
    results.mkdir()
    elsewhere = await over(rig, folder, results=str(tmp_path / "other"))
    second = await over(rig, folder, resume=True)
    assert [lies(rig, job) for job in (first, second)] == [folder / "results.~1~", results]
    results.mkdir()
    third = await over(rig, folder)
    found = [lies(rig, job) for job in (first, elsewhere, second, third)]
    assert found == [folder / "results.~1~", tmp_path / "other", folder / "results.~2~", results]
    assert [places.newer(rig.store, job, lies(rig, job)) for job in (first, elsewhere, second, third)] == [None] * 4


async def test_of_what_people_moved_by_themselves_only_the_latest_job_is_sure(rig, folder, tmp_path):
    first = await over(rig, folder)
    second = await over(rig, folder)
    link = tmp_path / "link"
    link.symlink_to(folder)
    assert places.newer(rig.store, first, folder / "results") == second
    assert places.newer(rig.store, first, link / "results") == second
    assert places.newer(rig.store, second, folder / "results") is None
    assert places.newer(rig.store, first, tmp_path / "nobodys") is None
