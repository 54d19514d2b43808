"""The files that a task prints into, and what trouble with its folder means."""

import errno
import os
from pathlib import Path

import pytest

from p2pq.daemon.launches import open_outputs, storage_error
from p2pq.daemon.runner_process import Scratch
from p2pq.errors import DiskFullError, StorageError


@pytest.fixture
def scratch(tmp_path: Path) -> Scratch:
    scratch = Scratch(tmp_path / "1")
    scratch.create()
    return scratch


def test_outputs_are_new_files_that_are_appended_to(scratch: Scratch):
    files = open_outputs(scratch, os.O_RDWR)
    for number, each in enumerate(files):
        os.write(each, b"first")
        os.lseek(each, 0, os.SEEK_SET)
        os.write(each, str(number).encode())
        assert os.pread(each, 10, 0) == b"first" + str(number).encode()
        assert not os.get_inheritable(each)
        os.close(each)
    assert sorted(path.name for path in scratch.output.iterdir()) == ["stderr", "stdout"]


def test_what_an_earlier_task_left_is_never_written_to(scratch: Scratch):
    (scratch.output / "stderr").write_text("old")
    before = len(list(Path("/proc/self/fd").iterdir()))
    with pytest.raises(FileExistsError):
        open_outputs(scratch, os.O_WRONLY)
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_a_full_disk_is_told_from_other_trouble(tmp_path: Path):
    assert isinstance(storage_error(OSError(errno.ENOSPC, "full"), tmp_path), DiskFullError)
    other = storage_error(OSError(errno.EIO, "broken"), tmp_path)
    assert isinstance(other, StorageError)
    assert not isinstance(other, DiskFullError)
    assert "broken" in str(other)
