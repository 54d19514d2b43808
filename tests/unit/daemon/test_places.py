"""Where the results of jobs lie, also after newer jobs have moved them aside."""

from pathlib import Path

from p2pq.core.records import JobEnded
from p2pq.daemon import places
from p2pq.model.ids import Wall
from p2pq.wire import body as bodies
from p2pq.wire import control, sign
from p2pq.wire.body import JobBody
from p2pq.wire.objects import Manifest
from tests.unit.daemon.jobskit import AUTHOR, id_of


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


async def test_results_of_earlier_jobs_of_a_folder_are_no_input_under_whatever_name(rig, folder, tmp_path):
    """A job that brought its results to another place in the same folder does not make them inputs of the next."""
    for name in ("r1", "out/r 2"):
        await over(rig, folder, results=str(folder / name))
        (folder / name).mkdir(parents=True)
        (folder / name / "data").write_text("big")
    await over(rig, folder, results=str(folder / "r1"))
    assert (folder / "r1.~1~").is_dir()
    await over(rig, folder, results=str(folder / "never-came"))
    await over(rig, folder, results=str(tmp_path / "outside"))
    (tmp_path / "outside").mkdir()
    other = tmp_path / "other"
    other.mkdir()
    (other / "main.py").write_text("pass")
    await over(rig, other, results=str(folder / "of-another"))
    (folder / "of-another").mkdir()
    await over(rig, folder)
    (folder / "results").mkdir()
    found = places.inside(rig.store, folder, folder / "results")
    assert found == ("out/r 2", "r1")
    assert places.inside(rig.store, folder, folder / "r1") == ("out/r 2",)
    said = await rig.ask(rig.jobs.submit, control.Submit(folder=str(folder), results=str(folder / "r3")))
    assert [note.text.partition(" holds results of an earlier job")[0] for note in said[:2]] == list(found)
    assert "Note" not in {type(reply).__name__ for reply in said[2:]}


async def test_they_travel_if_that_is_asked_for(rig, folder):
    await over(rig, folder, results=str(folder / "r1"))
    (folder / "r1").mkdir()
    (folder / "r1/data").write_text("x")
    for exclude, expected in (((), False), (("!/r1/",), True)):
        request = control.Submit(folder=str(folder), exclude=exclude)
        prepared = await rig.jobs._preparing.prepare(request, b"", f"{folder}/results", rig.jobs)  # nothing is said
        manifest = sign.open_signed(prepared.manifest, Manifest, AUTHOR.node)
        parts = {ref.blob: rig.blobs.get(ref.blob) for ref in manifest.body}
        body = bodies.decrypt(prepared.key, manifest.body, parts, JobBody)
        assert ("r1/data" in [file.path for file in body.tree.files]) is expected
