"""The folder that serves the tasks of a train: what is noticed of what a task did in it."""

import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from p2pq.runner import folder as module
from p2pq.runner.folder import Folder

CHANGES: dict[str, Callable[[Path], object]] = {
    "a new file": lambda root: (root / "new").touch(),
    "a new folder": lambda root: (root / "results/new").mkdir(),
    "a large file gone": lambda root: (root / "large").unlink(),
    "a large file altered": lambda root: _alter(root / "large"),
    "a file and its folder gone": lambda root: ((root / "other/file").unlink(), (root / "other").rmdir()),
    "a pipe in place of a file": lambda root: ((root / "main").unlink(), os.mkfifo(root / "main")),
    "a folder gone": lambda root: (root / "results").rmdir(),
    "other content of the same length and date": lambda root: _alter(root / "main"),
    "another mode": lambda root: (root / "main").chmod(0o600),
    "another mode of a folder": lambda root: (root / "results").chmod(0o500),
    "another mode of its own": lambda root: root.chmod(0o750),
    "a second name": lambda root: os.link(root / "main", root / "sub/main"),
    "a link elsewhere": lambda root: _relink(root / "link"),
    "a link in place of a folder": lambda root: _replace(root / "results"),
    "a file deep below": lambda root: (root / "sub/deep/x").write_text("a"),
}


def _alter(path: Path) -> None:
    info = path.stat()
    path.write_text("b" * info.st_size)
    os.utime(path, ns=(info.st_atime_ns, info.st_mtime_ns))


def _relink(path: Path) -> None:
    path.unlink()
    path.symlink_to("sub")


def _replace(path: Path) -> None:
    path.rmdir()
    path.symlink_to("sub")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "job"
    for name in ("sub/deep", "results", ".p2pq", "other"):
        (root / name).mkdir(parents=True)
    (root / "main").write_text("a")
    (root / "other/file").write_text("a")
    (root / "large").write_bytes(bytes(module.KEPT_MAX + 1))
    (root / ".p2pq/params.json").write_text("{}")
    (root / "link").symlink_to("main")
    return root


def remembered(root: Path) -> Folder:
    folder = Folder(str(root))
    folder.remember()
    return folder


def test_what_was_only_read_is_unchanged(root: Path) -> None:
    folder = remembered(root)
    assert (root / "main").read_text() == "a"
    (root / "sub/temporary").touch()
    (root / "sub/temporary").unlink()
    assert folder.unchanged(), "what was there for a while is no harm"
    folder.give('{"k": "1"}')
    assert (folder.unchanged(), (root / ".p2pq/params.json").read_text()) == (True, '{"k": "1"}')


@pytest.mark.parametrize("change", CHANGES)
def test_whatever_is_changed_is_noticed(root: Path, change: str) -> None:
    folder = remembered(root)
    CHANGES[change](root)
    assert not folder.unchanged()


def test_small_files_that_are_gone_are_put_back(root: Path) -> None:
    (root / "main").chmod(0o751)
    folder = remembered(root)
    for _ in range(2):
        (root / "main").unlink()
        (root / "other/file").unlink()
        assert folder.unchanged()
        assert ((root / "main").read_text(), (root / "main").stat().st_mode & 0o777) == ("a", 0o751)
    _alter(root / "main")
    assert not folder.unchanged(), "what was put back is looked at as what was there first"


def test_a_task_that_has_altered_its_parameters_is_noticed_and_they_are_not_followed(root: Path) -> None:
    folder = remembered(root)
    (root / ".p2pq/params.json").write_text("mine")
    assert not folder.unchanged()
    (root / ".p2pq/params.json").unlink()
    with pytest.raises(FileNotFoundError):
        folder.give("{}")


def test_a_folder_that_is_gone_is_no_longer_what_it_was(root: Path) -> None:
    folder = remembered(root)
    root.rename(root.with_name("away"))
    assert not folder.unchanged()


def test_it_is_remembered_only_when_a_change_would_have_another_date(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    newest = max(path.lstat().st_ctime_ns for path in root.rglob("*") if not path.is_dir())
    clock = iter([newest - 1, newest, newest + 1])
    slept: list[float] = []
    monkeypatch.setattr(time, "clock_gettime_ns", lambda _: next(clock))
    monkeypatch.setattr(time, "sleep", slept.append)
    assert remembered(root).found
    assert len(slept) == 2
    monkeypatch.setattr(time, "clock_gettime_ns", lambda _: newest)
    with pytest.raises(OSError, match="stands still"):
        remembered(root)
    assert len(slept) == 2 + module.TICKS_MAX


def test_dates_of_whole_seconds_are_not_trusted(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "entry", lambda info: (info.st_mode, info.st_ino, info.st_size, 10**9))
    with pytest.raises(OSError, match="whole seconds"):
        remembered(root)
