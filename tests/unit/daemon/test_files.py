"""Small things about files."""

import ctypes
import errno
import os
from contextlib import nullcontext
from pathlib import Path

import pytest

from p2pq.daemon import files


def test_files_and_folders_can_be_synced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[str] = []
    monkeypatch.setattr(os, "fsync", lambda fd: synced.append(str(Path(f"/proc/self/fd/{fd}").readlink())))
    (tmp_path / "file").write_text("x")
    files.sync(tmp_path / "file")
    files.sync(tmp_path)
    assert synced == [str(tmp_path / "file"), str(tmp_path)]
    with pytest.raises(FileNotFoundError):
        files.sync(tmp_path / "gone")


def test_many_files_begin_to_be_written_before_one_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[tuple[str, str]] = []

    def name(descriptor: int) -> str:
        return Path(f"/proc/self/fd/{descriptor}").readlink().name

    monkeypatch.setattr(os, "fsync", lambda fd: told.append(("synced", name(fd))))
    monkeypatch.setattr(files, "_begin_writing", lambda fd, *_: told.append(("begun", name(fd))))
    monkeypatch.setattr(files, "AT_ONCE", 2)
    for each in "abc":
        (tmp_path / each).write_text("x")
    files.sync_all([tmp_path / each for each in ("a", "gone", "b", "c")])
    first, rest = told[:1], told[1:]
    assert first == [("synced", "a")], "alone among its two, as the other is gone"
    assert rest == [("begun", "b"), ("begun", "c"), ("synced", "b"), ("synced", "c")]
    told.clear()
    monkeypatch.setattr(files, "_begin_writing", None)
    files.sync_all([tmp_path / "b", tmp_path / "c"])
    assert told == [("synced", "b"), ("synced", "c")], "a system that cannot begin is as safe"


def test_a_file_that_cannot_be_synced_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a").write_text("x")
    monkeypatch.setattr(os, "fsync", _refuse)
    before = len(list(Path("/proc/self/fd").iterdir()))
    with pytest.raises(OSError, match="broken"):
        files.sync_all([tmp_path / "a"])
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def _refuse(_descriptor: int) -> None:
    raise OSError(errno.EIO, "broken")


def test_a_tree_is_synced_from_below(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[str] = []
    monkeypatch.setattr(os, "fsync", lambda fd: synced.append(str(Path(f"/proc/self/fd/{fd}").readlink())))
    (tmp_path / "a/b").mkdir(parents=True)
    (tmp_path / "a/b/file").write_text("x")
    (tmp_path / "a/link").symlink_to("nowhere")
    files.sync_tree(tmp_path / "a")
    assert synced == [str(tmp_path / each) for each in ("a/b/file", "a/b", "a")]
    with pytest.raises(FileNotFoundError):
        files.sync_tree(tmp_path / "gone")


@pytest.fixture
def many(tmp_path: Path) -> Path:
    for number in range(files.ONE_BY_ONE + 1):
        (tmp_path / f"{number}").touch()
    return tmp_path


def test_many_files_are_synced_together_with_their_file_system(many: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[int] = []
    monkeypatch.setattr(os, "fsync", synced.append)
    files.sync_tree(many)
    assert synced == []
    monkeypatch.setattr(files, "_kernel", lambda: (5, 7))
    files.sync_tree(many)
    assert len(synced) == files.ONE_BY_ONE + 2, "an older kernel would not tell of lost writes"


@pytest.mark.parametrize(("code", "fails"), [(errno.ENOSYS, False), (errno.EINVAL, False), (errno.EIO, True)])
def test_a_file_system_that_cannot_be_synced(
    many: Path, monkeypatch: pytest.MonkeyPatch, code: int, fails: bool
) -> None:
    def syncfs(_: int) -> int:
        ctypes.set_errno(code)
        return -1

    synced: list[int] = []
    monkeypatch.setattr(os, "fsync", synced.append)
    monkeypatch.setattr(files, "_syncfs", syncfs)
    with pytest.raises(OSError, match=os.strerror(code)) if fails else nullcontext():
        files.sync_tree(many)
    assert len(synced) == (0 if fails else files.ONE_BY_ONE + 2)


@pytest.mark.parametrize(("code", "fails"), [(errno.EINVAL, False), (errno.ENOTSUP, False), (errno.EIO, True)])
def test_some_file_systems_cannot_sync_folders(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, fails: bool
) -> None:
    def fsync(_: int) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(OSError, match=os.strerror(code)) if fails else nullcontext():
        files.sync_folder(tmp_path)


def test_free_bytes_are_those_of_the_disk(tmp_path: Path) -> None:
    assert 0 <= files.free_bytes(tmp_path) <= os.statvfs(tmp_path).f_blocks * os.statvfs(tmp_path).f_frsize
