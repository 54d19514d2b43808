"""Small things about files."""

import os
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


def test_free_bytes_are_those_of_the_disk(tmp_path: Path) -> None:
    assert 0 <= files.free_bytes(tmp_path) <= os.statvfs(tmp_path).f_blocks * os.statvfs(tmp_path).f_frsize
