"""Small files, and what is no such thing."""

import os
from pathlib import Path

from p2pq.daemon.sensors import peeking


def test_files_are_read_whole_or_as_far_as_is_wanted(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"x" * 100_000)
    assert peeking.read(str(file)) == b"x" * 100_000
    assert peeking.read(str(file), 10) == b"x" * 10
    assert peeking.read(str(tmp_path / "none")) == peeking.read(str(tmp_path)) == b""


def test_texts_and_numbers(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("Battery\n")
    (tmp_path / "b").write_text("-12\n")
    assert peeking.text(str(tmp_path / "a")) == "Battery"
    assert peeking.number(str(tmp_path / "a")) is None
    assert peeking.number(str(tmp_path / "b")) == -12
    assert peeking.number(str(tmp_path / "none")) is None
    assert peeking.names(str(tmp_path)) == ["a", "b"]
    assert peeking.names(str(tmp_path / "none")) == []


def test_of_a_folder_of_others_only_some_names_are_read(tmp_path: Path) -> None:
    for name in "abc":
        (tmp_path / name).touch()
    assert len(peeking.some_names(str(tmp_path), 2)) == 2
    assert sorted(peeking.some_names(str(tmp_path), 4)) == ["a", "b", "c"]
    assert peeking.some_names(str(tmp_path / "none"), 2) == []


def test_of_a_path_that_others_chose_only_a_short_plain_file_is_read(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"abc")
    os.mkfifo(tmp_path / "pipe")
    assert peeking.read_plain(str(tmp_path / "file"), 3) == b"abc"
    assert peeking.read_plain(str(tmp_path / "file"), 2) == b""
    assert peeking.read_plain(str(tmp_path / "pipe"), 3) == b""
    assert peeking.read_plain("/dev/zero", 3) == peeking.read_plain("\0", 3) == b""


def test_this_process_is_among_those_there_are() -> None:
    assert os.getpid() in peeking.processes("/proc")
