"""Counting what a task uses, and the verdicts."""

import dataclasses
import os
import subprocess
import sys
from pathlib import Path

import pytest

from p2pq.daemon import limits
from p2pq.daemon.limits import Breach, Limits, Watch

LIMITS = Limits(
    cpus=2,
    memory_bytes=1 << 30,
    wall_s=10.0,
    disk_bytes=1 << 20,
    processes=8,
    output_bytes=1000,
)


def watch(tmp_path: Path, pid: int = 0, **changes: object) -> Watch:
    (tmp_path / "job").mkdir(exist_ok=True)
    chosen = dataclasses.replace(LIMITS, **changes)
    return Watch(chosen, pid or os.getpid(), (tmp_path / "job",), (tmp_path / "out",))


def test_resource_limits_are_stricter_in_a_sandbox() -> None:
    none, strict = LIMITS.rlimits("none"), LIMITS.rlimits("strict")
    assert none == {"RLIMIT_CORE": 0, "RLIMIT_FSIZE": 1 << 20, "RLIMIT_CPU": 80}
    assert none.items() <= strict.items()
    assert strict["RLIMIT_NPROC"] == 8
    assert "RLIMIT_AS" not in strict  # memory is counted, not reserved


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (200 << 20, "200 MiB"), (3 << 40, "3 TiB")],
)
def test_size_text(count: int, text: str) -> None:
    assert limits.size_text(count) == text


def test_tree_finds_grandchildren_of_all_threads() -> None:
    code = (
        "import threading, subprocess as s;"
        "threading.Thread(target=lambda: s.run(['sh', '-c', 'echo; read x; true'])).start()"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        process.stdout.readline()
        found = limits.tree(process.pid, 100)
        assert found[0] == process.pid
        assert len(found) == 2
        assert limits.tree(process.pid, 1) == [process.pid]
        assert limits.resident_bytes(found) > limits.resident_bytes(found[1:]) > 0
        assert 0 < limits.proportional_bytes(found) <= limits.resident_bytes(found)
        process.stdin.write(b"\n")
    assert limits.tree(process.pid, 100) == [process.pid]  # gone: nothing below it
    assert limits.resident_bytes([process.pid]) == 0
    assert limits.proportional_bytes([process.pid]) == 0


def test_what_a_task_was_forked_off_is_not_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    below = "x = bytearray(b'x') * (60 << 20); print(flush=True); input()"
    runner = (
        "import subprocess as s, sys;"
        f"c = s.Popen([sys.executable, '-c', {below!r}], stdin=s.PIPE, stdout=s.PIPE);"
        "c.stdout.readline(); print(c.pid, flush=True); input()"
    )
    with subprocess.Popen([sys.executable, "-c", runner], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        beside = int(process.stdout.readline())
        assert limits.inner_pid(beside) == beside
        small = watch(tmp_path, process.pid, memory_bytes=limits.resident_bytes([beside]) - (30 << 20))
        breach = small.look()
        assert breach is not None
        assert breach.reason == "memory-limit"
        small.spare(beside)
        assert small.look() is None
        monkeypatch.setattr(limits, "WARM_BYTES_MAX", 10 << 20)
        breach = small.look()
        assert breach is not None
        assert breach.reason == "memory-limit"
        for other in (0, process.pid, 1 << 22):  # none of its children
            small.spare(other)
            assert small.look() is not None
        process.stdin.write(b"\n")
        process.stdin.close()
    assert limits.inner_pid(process.pid) == 0


def test_folder_bytes_counts_blocks_and_names_and_follows_nothing(tmp_path: Path) -> None:
    assert limits.folder_bytes(tmp_path / "missing", 1) == 0
    root = tmp_path / "root"
    (root / "a" / "b").mkdir(parents=True)
    (root / "a" / "b" / "data").write_bytes(os.urandom(100_000))
    with (root / "sparse").open("wb") as file:
        file.truncate(1 << 40)
    (tmp_path / "big").write_bytes(os.urandom(1_000_000))
    (root / "link").symlink_to(tmp_path)
    used = limits.folder_bytes(root, 1 << 40)
    assert used is not None
    assert 100_000 < used < 200_000
    assert limits.folder_bytes(root, 10) > 10
    (root / "a").chmod(0)
    assert limits.folder_bytes(root, 1 << 40) is not None
    (root / "a").chmod(0o700)


def test_folder_bytes_gives_up_on_deep_nesting(tmp_path: Path) -> None:
    deep = tmp_path
    for _ in range(limits.DEPTH_MAX):
        deep /= "d"
    deep.mkdir(parents=True)
    assert limits.folder_bytes(tmp_path, 1 << 40) is None
    found = Watch(dataclasses.replace(LIMITS, disk_bytes=1 << 40), os.getpid(), (tmp_path,), ()).walk()
    assert found == Breach("disk-limit", "its folders are nested deeper than 256 levels")


def test_held_bytes_counts_files_and_bytes(tmp_path: Path) -> None:
    fd = os.open(tmp_path, os.O_PATH)
    try:
        assert limits.held_bytes(fd) > 0
    finally:
        os.close(fd)
    assert limits.free_bytes(tmp_path) > 0


def test_output_is_limited(tmp_path: Path) -> None:
    looking = watch(tmp_path)
    assert looking.look() is None  # no output file yet
    (tmp_path / "out").write_bytes(b"x" * 1001)
    found = looking.look()
    assert found is not None
    assert found.reason == "output-limit"


def test_memory_and_processes_are_limited(tmp_path: Path) -> None:
    with subprocess.Popen(["sh", "-c", "read x"], stdin=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert watch(tmp_path).look() is None
        found = watch(tmp_path, memory_bytes=1000).look()
        assert found is not None
        assert (found.reason, "the limit is 1000 B" in found.detail) == ("memory-limit", True)
        found = watch(tmp_path, processes=0).look()
        assert found == Breach("memory-limit", "it started more than 0 processes")
        assert watch(tmp_path, memory_bytes=None).look() is None
        process.stdin.close()


def test_threads_are_counted_where_the_kernel_does_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = (
        "import threading; gate = threading.Event()\n"
        "each = [threading.Thread(target=gate.wait, daemon=True) for _ in range(8)]\n"
        "[thread.start() for thread in each]; print(flush=True); input()"
    )
    argv = ["/bin/sh", "-c", '"$0" -c "$1"; :', sys.executable, code]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        process.stdout.readline()
        [below] = limits.children(process.pid)
        assert limits.threads(below) == 9
        assert watch(tmp_path, process.pid, processes=1).look() is None

        def counting(processes: int) -> Breach | None:
            chosen = dataclasses.replace(LIMITS, processes=processes)
            return Watch(chosen, process.pid, (tmp_path / "job",), (tmp_path / "out",), threads=True).look()

        assert counting(9) is None
        walked, children = [], limits.children
        monkeypatch.setattr(limits, "children", lambda pid: [walked.append(pid), *children(pid)][1:])
        assert counting(8) == Breach("memory-limit", "it started more than 8 processes and threads")
        assert walked == [process.pid]  # a process with very many threads has as many lists of children
        process.stdin.write(b"\n")
    assert limits.threads(below) == 0
    assert limits.crowd(process.pid, 8) == ([], 0)


def test_pace_follows_the_headroom(tmp_path: Path) -> None:
    near = watch(tmp_path)
    near.look()
    assert near.next_look_s == limits.POLL_S_MIN  # little output is left
    far = watch(tmp_path, output_bytes=1 << 40, memory_bytes=1 << 40)
    far.look()
    assert far.next_look_s == limits.POLL_S_MAX


def test_disk_is_limited(tmp_path: Path) -> None:
    looking = watch(tmp_path)
    assert looking.walk() is None
    assert looking.next_walk_s >= limits.DISK_POLL_S_MIN
    (tmp_path / "job" / "x").write_bytes(os.urandom(2 << 20))
    assert looking.walk() == Breach("disk-limit", "it holds more than 1 MiB on disk")


def test_what_is_to_be_behind_others_is_kept_there_at_each_look(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lowered: list[list[int]] = []
    monkeypatch.setattr(limits.autogroups, "lower", lowered.append)
    monkeypatch.setattr(limits, "children", lambda pid: [4] if pid == 3 else [])
    for grouped in (False, True):
        Watch(LIMITS, 3, (tmp_path,), (), grouped=grouped).look()
    assert lowered == [[4]]
