"""Finding jobs and tasks by what people call them."""

import pytest

from p2pq.errors import NotFoundError
from p2pq.model.ids import JobId
from tests.unit.daemon.jobskit import id_of


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("abc", "too short"),
        ("abcdefgh", "no job 'abcdefgh'.*the node that it was submitted on"),
        ("a" * 60, "no job"),
        ("!!!!", "no job"),
    ],
)
async def test_jobs_that_are_not_there(rig, name, words):
    with pytest.raises(NotFoundError, match=words):
        rig.jobs.catalogue.find(name)
    with pytest.raises(NotFoundError, match="not here any more"):
        rig.jobs.catalogue.row(JobId(b"x" * 16))


async def test_tasks_are_named_by_their_numbers(rig, folder):
    catalogue = rig.jobs.catalogue
    row = catalogue.find((await rig.submit(folder, array="3,5")).job)
    assert (catalogue.index(row, 3), catalogue.index(row, 5)) == (0, 1)
    with pytest.raises(NotFoundError, match="no task 4"):
        catalogue.index(row, 4)


async def test_a_task_is_shown_with_its_history_or_without(rig, folder):
    catalogue = rig.jobs.catalogue
    job = id_of(rig, await rig.submit(folder, array="3,5"))
    row = catalogue.row(job)
    assert catalogue.task_row(row, 1) is None
    assert catalogue.task(row, 1, None).state == "pending"
    await rig.settle(job, 1)
    task = catalogue.task_row(row, 1)
    assert catalogue.task_row(row, 0) is None
    shown = catalogue.task(row, 1, task)
    assert (shown.task, shown.state, shown.node) == (5, "done", "worker")
