"""The folders of one runner."""

from pathlib import Path

from p2pq.daemon.scratch import RUNNER_FILES, Scratch


def test_it_is_made_for_its_owner_only_emptied_and_removed(tmp_path: Path) -> None:
    scratch = Scratch(tmp_path / "one")
    scratch.create()
    assert {path.name for path in scratch.root.iterdir()} == {"job", "tmp", "begun", "out", "runner"}
    assert {path.stat().st_mode & 0o777 for path in (scratch.root, *scratch.root.iterdir())} == {0o700}
    for folder in (scratch.job, scratch.temporary, scratch.output):
        (folder / "left").mkdir()
    scratch.job.chmod(0)
    scratch.open_up()
    scratch.empty()
    assert [list(folder.iterdir()) for folder in (scratch.job, scratch.temporary, scratch.output)] == [[], [], []]
    scratch.remove()
    assert list(tmp_path.iterdir()) == []


def test_it_shows_what_the_runner_imports_and_removing_it_leaves_that_alone(tmp_path: Path) -> None:
    scratch = Scratch(tmp_path / "one")
    scratch.create()
    assert {path.name: path.readlink() for path in scratch.runner.iterdir()} == RUNNER_FILES
    own = {"zygote.py", "confine.py", "emptying.py", "folder.py"}
    assert set(RUNNER_FILES) == own | {"sitecustomize.py", "p2pq_script.py"}
    scratch.remove()
    assert all(file.is_file() for file in RUNNER_FILES.values())


def test_a_folder_that_became_a_link_is_not_opened_up(tmp_path: Path) -> None:
    scratch = Scratch(tmp_path / "one")
    scratch.create()
    target = tmp_path / "target"
    target.mkdir(mode=0o500)
    scratch.job.rmdir()
    scratch.job.symlink_to(target)
    scratch.open_up()
    assert target.stat().st_mode & 0o777 == 0o500
