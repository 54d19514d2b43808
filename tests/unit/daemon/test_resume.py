"""What ``submit --resume`` keeps of an earlier job of the same folder."""

import shutil
from pathlib import Path

import pytest

from p2pq.core.records import JobEnded, TaskDelivered
from p2pq.daemon.history import JobExtra, Kept
from p2pq.daemon.resume import resumed
from p2pq.model import notice as facts
from p2pq.model.ids import Wall
from p2pq.model.job import Outcome
from p2pq.wire import control
from p2pq.wire.control import Note
from p2pq.wire.resultcontrol import Results
from tests.unit.daemon.jobskit import id_of

BAD = Outcome(reason="exit", exit=3)


async def submit(rig, folder, **options):
    """Submit with --resume; return what was said and the job."""
    replies = await rig.ask(rig.jobs.submit, control.Submit(folder=str(folder), resume=True, **options))
    *notes, view = replies
    return [note.text for note in notes if isinstance(note, Note)], view


def make(*folder):
    Path(*folder).mkdir(parents=True)


async def finish(rig, view, *, done=(), failed=()):
    """Let tasks end and their results lie in the folder, then end the job."""
    job = id_of(rig, view)
    tasks = rig.store.job(job).extra.tasks
    for task in (*done, *failed):
        await rig.settle(job, task, "failed" if task in failed else "done", BAD if task in failed else None)
        make(view.results, str(task) if tasks > 1 else "")
        await rig.write(TaskDelivered(job=job, task=task))
    await rig.write(JobEnded(job=job, state="done", wall=Wall(4)))
    rig.jobs.notice(facts.JobFinished(job=job, state="done"))
    return job


async def test_what_succeeded_with_the_same_inputs_stays_and_the_rest_runs(rig, folder):
    first = await finish(rig, await rig.submit(folder, sweep=("k=0:4",)), done=(0, 1, 3), failed=(2,))
    said, view = await submit(rig, folder, sweep=("k=0:4",))
    name = rig.jobs.catalogue.view(rig.store.job(first)).job[:8]
    assert said == [f"3 of 5 tasks are kept from job {name}, 2 run"]
    assert (view.tasks.done, view.tasks.pending, view.kept) == (3, 2, 3)
    assert rig.posted[-1].kept == ((0, 2), (3, 4))
    assert rig.store.job(id_of(rig, view)).extra.kept == (Kept(0, 2, first, 0), Kept(3, 4, first, 3))
    assert sorted(path.name for path in (folder / "results").iterdir()) == ["0", "1", "2", "3"]


async def test_what_left_nothing_has_no_folder_and_is_kept(rig, folder):
    view = await rig.submit(folder, sweep=("k=0:1",))
    job = id_of(rig, view)
    for task in (0, 1):
        await rig.settle(job, task, silent=task == 0, delivered=True)
    await rig.write(JobEnded(job=job, state="done", wall=Wall(4)))
    rig.jobs.notice(facts.JobFinished(job=job, state="done"))
    said, view = await submit(rig, folder, sweep=("k=0:1",))
    assert said[0].startswith("1 of 2 tasks are kept")
    assert rig.store.job(id_of(rig, view)).extra.kept == (Kept(0, 1, job, 0),)
    copy = folder.parent / "copy"
    [wrote] = await rig.ask(rig.jobs.results, Results(job=view.job, to=str(copy)))
    assert (wrote.tasks, list(copy.iterdir())) == (1, [])


async def test_a_chain_remembers_who_did_it(rig, folder):
    first = await finish(rig, await rig.submit(folder, sweep=("k=0:2",)), done=(0,), failed=(1, 2))
    _, view = await submit(rig, folder, sweep=("k=0:2",))
    shutil.rmtree(folder / "results/1")
    shutil.rmtree(folder / "results/2")
    second = await finish(rig, view, done=(1, 2))
    said, view = await submit(rig, folder, sweep=("k=0:2",))
    assert said[0].endswith("nothing is left to run")
    assert rig.store.job(id_of(rig, view)).extra.kept == (Kept(0, 1, first, 0), Kept(1, 3, second, 1))
    assert rig.posted[-1].kept == ((0, 3),)
    [wrote] = await rig.ask(rig.jobs.results, Results(job=view.job, to=str(folder.parent / "copy")))
    assert (wrote.tasks, sorted(path.name for path in (folder.parent / "copy").iterdir())) == (3, ["0", "1", "2"])


@pytest.mark.parametrize(
    ("before", "after", "kept"),
    [
        ({"array": "0-2"}, {"array": "1-3"}, ((0, 2),)),
        ({"array": "0-2"}, {"array": "0-2"}, ((0, 3),)),
        ({"sweep": ("k=0:2",)}, {"sweep": ("k=1:3",)}, ()),
        ({"sweep": ("k=5:7",)}, {"sweep": ("k=5:9",)}, ((0, 3),)),
        ({"sweep": ("k=0:2",)}, {"sweep": ("j=0:2",)}, ()),
        ({"sweep": ("k=0:2",)}, {}, ()),
        ({"array": "0-2", "priority": 3, "name": "x"}, {"array": "0-2", "retries": 9}, ((0, 3),)),
    ],
)
async def test_a_task_is_the_same_by_its_number_and_parameters(rig, folder, before, after, kept):
    await finish(rig, await rig.submit(folder, **before), done=(0, 1, 2))
    await submit(rig, folder, **after)
    assert rig.posted[-1].kept == kept
    assert (folder / "results").exists() == bool(kept)  # nothing kept: all of it is moved aside


@pytest.mark.parametrize("change", ["content", "mode", "name", "argument", "config"])
async def test_changed_inputs_run_everything_unless_told_otherwise(rig, folder, tmp_path, change):
    config = tmp_path / "c.toml"
    config.write_text("a = 1")
    options = {"array": "0-1", "config": str(config)}
    (folder / "data").write_text("1")
    await finish(rig, await rig.submit(folder, **options), done=(0, 1))
    match change:
        case "content":
            (folder / "data").write_text("2")
        case "mode":
            (folder / "data").chmod(0o755)
        case "name":
            (folder / "data").rename(folder / "dat")
        case "config":
            config.write_text("a = 2")
    changed = {**options, "args": ("x",)} if change == "argument" else options
    said, view = await submit(rig, folder, **changed, keep_done=True)
    assert view.kept == 2
    await finish(rig, view)
    (folder / "more").write_text("1")
    said, _ = await submit(rig, folder, **changed)
    assert "the files or the arguments are not those of job" in said[0]
    assert "results.~1~" in said[1]
    assert rig.posted[-1].kept == ()


async def test_results_that_were_taken_away_are_made_again(rig, folder):
    await finish(rig, await rig.submit(folder, array="0-2"), done=(0, 1, 2))
    shutil.rmtree(folder / "results/1")
    (folder / "results/1").write_text("not a folder")
    await submit(rig, folder, array="0-2")
    assert rig.posted[-1].kept == ((0, 1), (2, 3))


async def test_one_task_is_resumed_too(rig, folder):
    await finish(rig, await rig.submit(folder), done=(0,))
    said, view = await submit(rig, folder)
    assert (said[0].split(" from")[0], view.kept) == ("1 of 1 tasks are kept", 1)
    await finish(rig, view)
    said, _ = await submit(rig, folder, array="0-1")
    assert "put its results elsewhere" in said[0]


async def test_without_an_earlier_job_everything_runs(rig, folder, tmp_path):
    said, view = await submit(rig, folder)
    assert said == [f"no earlier job of this folder brought results to {folder}/results; every task runs"]
    await finish(rig, view, done=(0,))
    said, view = await submit(rig, folder, results=str(tmp_path / "else"))
    assert "no earlier job" in said[0]


async def test_a_job_of_which_only_the_id_is_known_is_passed_over(rig, folder):
    rig.store.job_rows = lambda limit: ()
    assert resumed(rig.store, JobExtra(folder=str(folder), results="/r", tasks=1)).kept == ()
