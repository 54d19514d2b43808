"""What a task finds in its folder; what it can put there is hostile (test_guests.py, test_sealing.py)."""

import json

import pytest

from p2pq.daemon import taskfolder
from p2pq.errors import RefusedError


def prepare(folder, params):
    taskfolder.furnish(folder)
    taskfolder.write_params(folder, params)


def test_a_task_finds_a_results_folder_and_its_parameters(tmp_path):
    for folder in (tmp_path / "bare", tmp_path / "used"):
        folder.mkdir()
    (tmp_path / "used/results").mkdir()
    for folder in (tmp_path / "bare", tmp_path / "used"):
        prepare(folder, {"k": "1"})
        assert (folder / "results").is_dir()
        assert json.loads((folder / taskfolder.PARAMS_FILE).read_text()) == {"k": "1"}


@pytest.mark.parametrize(("name", "blamed"), [("results", "results"), (".p2pq", ".p2pq")])
def test_a_file_in_its_place_is_the_jobs_own_doing(tmp_path, name, blamed):
    (tmp_path / name).write_text("x")
    with pytest.raises(RefusedError, match=f"called {blamed}, where every task"):
        prepare(tmp_path, {})


def test_links_that_a_job_has_put_there_lead_nowhere(tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    mine = outside / "profile"
    mine.write_text("mine")
    job = tmp_path / "job"
    (job / ".p2pq").mkdir(parents=True)
    (job / taskfolder.PARAMS_FILE).symlink_to(mine)
    prepare(job, {"k": "1"})
    assert (mine.read_text(), json.loads((job / taskfolder.PARAMS_FILE).read_text())) == ("mine", {"k": "1"})
    assert not (job / taskfolder.PARAMS_FILE).is_symlink()
    other = tmp_path / "other"
    other.mkdir()
    (other / ".p2pq").symlink_to(outside)
    with pytest.raises(RefusedError, match=r"called \.p2pq"):
        prepare(other, {})
    assert [path.name for path in outside.iterdir()] == ["profile"]


@pytest.mark.parametrize(
    ("text", "progress"), [("0.5", 500), ("1\n", 1000), ("2", None), ("-1", None), ("x", None), ("nan", None)]
)
def test_progress_is_a_number_from_0_to_1(tmp_path, text, progress):
    assert taskfolder.read_progress(tmp_path) is None
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / taskfolder.PROGRESS_NAME).write_text(text)
    assert taskfolder.read_progress(tmp_path) == progress
    taskfolder.remove_progress(tmp_path)
    assert not (tmp_path / "results" / taskfolder.PROGRESS_NAME).exists()
    taskfolder.remove_progress(tmp_path)
