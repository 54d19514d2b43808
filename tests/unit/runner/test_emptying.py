"""Deleting hostile trees."""

import os
from pathlib import Path

import pytest

from p2pq.runner import emptying


def deep(root: Path, levels: int) -> None:
    """Nest folders deeper than any path can name."""
    fd = os.open(root, os.O_RDONLY)
    for _ in range(levels):
        os.mkdir("d" * 50, dir_fd=fd)
        below = os.open("d" * 50, os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = below
    os.close(os.open("leaf", os.O_CREAT, dir_fd=fd))
    os.close(fd)


def test_empty_folder_deletes_hostile_trees(tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "kept").touch()
    deep(root, 600)
    for number in range(200):
        (root / f"file {number}").touch(mode=0)
    (root / "link").symlink_to(outside)
    (root / "name\nwith\x1b[2J").mkdir()
    os.mkfifo(root / "fifo")
    closed = root / "closed"
    (closed / "in" / "in").mkdir(parents=True)
    (closed / "in" / "link").symlink_to(outside)
    (closed / "in").chmod(0)
    closed.chmod(0)
    root.chmod(0)
    emptying.empty_folder(str(root))
    assert list(root.iterdir()) == []
    assert root.stat().st_mode & 0o777 == 0o700
    assert [path.name for path in outside.iterdir()] == ["kept"]


def test_empty_folder_copes_with_its_own_names(tmp_path: Path) -> None:
    for number in range(3):
        (tmp_path / f"{emptying.FLATTEN}{number}" / "x" / "y").mkdir(parents=True)
    (tmp_path / f"{emptying.FLATTEN}3").touch()
    (tmp_path / "a" / "b" / "c").mkdir(parents=True)
    emptying.empty_folder(str(tmp_path))
    assert list(tmp_path.iterdir()) == []


def test_empty_folder_leaves_mount_points(tmp_path: Path) -> None:
    (tmp_path / "build" / "venv" / "bin").mkdir(parents=True)
    (tmp_path / "build" / "left" / "over").mkdir(parents=True)
    (tmp_path / "other").touch()
    emptying.empty_folder(str(tmp_path), [["build", "venv"]])
    assert [str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*")] == [
        "build",
        "build/venv",
        "build/venv/bin",
    ]


def test_empty_folder_refuses_a_link_and_a_file(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "kept").touch()
    (tmp_path / "link").symlink_to("folder")
    for name in ("link", "folder/kept"):
        with pytest.raises(OSError, match="Not a directory"):
            emptying.empty_folder(str(tmp_path / name))
    assert (tmp_path / "folder" / "kept").exists()


def test_keep_below_is_relative_to_the_root() -> None:
    keep = [["tmp", "build", "venv"], ["dev", "shm", "x"], ["tmpx", "y"]]
    assert emptying.keep_below("/tmp", keep) == [["build", "venv"]]
    assert emptying.keep_below("/dev/shm", keep) == [["x"]]
