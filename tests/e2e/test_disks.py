"""Full and read-only disks, for real: small file systems under a node's home and under a user's folder."""

import contextlib
import os
import shutil
import subprocess
import threading
import time
from contextlib import contextmanager

import lab
import pytest

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root: file systems of their own"),
]

MAIN = """
import os, pathlib, time
time.sleep(float(os.environ["P2PQ_TASK"]) and 4)
(pathlib.Path(os.environ["P2PQ_RESULTS"]) / "out.txt").write_text(os.environ["P2PQ_TASK"] * 3000)
"""


@contextmanager
def small_disk(path, megabytes):
    """Put a small file system of its own at a folder."""
    path.mkdir(exist_ok=True)
    subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m,mode=700,uid={os.geteuid()}", "p2pq-test", path], check=True
    )
    try:
        yield path
    finally:
        subprocess.run(["umount", "-l", path], check=True)


def fill(folder):
    """Fill a disk to the last byte, and go on doing so until the file that does it, which is returned, is deleted.

    Now and then the store empties its log, which makes room for a moment.
    """
    filler = folder / "filler"
    filler.touch()
    _grow(filler)
    assert shutil.disk_usage(folder).free == 0
    threading.Thread(target=_stay_full, args=(filler,), daemon=True).start()
    return filler


def _grow(filler):
    with filler.open("r+b", buffering=0) as file:
        end = file.seek(0, os.SEEK_END)
        for size in (64 << 20, 1 << 20, 4096, 1):
            try:
                while True:
                    os.posix_fallocate(file.fileno(), end, size)
                    end += size
            except OSError:
                continue


def _stay_full(filler):
    while filler.exists():
        with contextlib.suppress(FileNotFoundError):  # deleted this very moment
            if shutil.disk_usage(filler.parent).free:
                _grow(filler)
        time.sleep(0.005)


def remount(folder, how):
    subprocess.run(["mount", "-o", f"remount,{how}", folder], check=True)


@pytest.fixture
def small(tmp_path):
    """Give a host whose home is a disk with little more than the GiB that must be free for a task to be run."""
    with lab.hosts(tmp_path, ["home"]) as [host], small_disk(host.home, 1400):
        host.settings["P2PQ_STORE_RESERVE_MB"] = "0"
        try:
            yield host
        finally:
            host.close()


def outputs(folder):
    results = folder / "results"
    assert [path for path in results.iterdir() if path.name.startswith(".p2pq")] == []
    return {path.name: (path / "out.txt").read_text() for path in results.iterdir()}


def expected(tasks):
    return {str(number): str(number) * 3000 for number in range(tasks)}


def test_a_disk_that_is_full_for_a_while_costs_nothing(small, tmp_path):
    small.start("--slots", "2")
    folder, other = (
        lab.make_folder(tmp_path / "job", MAIN),
        lab.make_folder(tmp_path / "other", "pass", data=os.urandom(9000).hex()),
    )
    job = small.submit("--array", "0-3", str(folder))
    lab.until(lambda: small.json("show", job)["tasks"]["done"] >= 1, "the first task is done")
    filler = fill(small.home)
    said = small.fails(4, "submit", "--detach", str(other))
    assert "full" in said
    assert not (other / "results").exists()
    lab.until(lambda: "store.trouble" in small.log() or "disk" in small.log(), "the node says that its disk is full")
    assert small.json("status")["name"], "it answers all the same"
    assert small.json("show", job)["state"] == "running"
    filler.unlink()
    small.ok("wait", job, timeout=90)
    assert outputs(folder) == expected(4)
    assert [task["state"] for task in small.json("tasks", job)] == ["done"] * 4
    small.ok("wait", small.submit(str(other)))


def test_results_that_a_worker_has_wait_for_their_masters_disk(small, tmp_path):
    small.start("--name", "alice")
    with lab.hosts(tmp_path, ["bob"]) as [bob]:
        bob.start("--name", "bob", "--slots", "2")
        bob.ok("join", small.ok("invite").split()[0], "--at", small.address, "--yes")
        lab.until(lambda: any(peer["state"] == "up" for peer in small.json("peers")), "bob is linked")
        folder = lab.make_folder(tmp_path / "job", MAIN)
        job = small.submit("--array", "0-2", "--where", "bob", str(folder))
        lab.until(lambda: small.json("show", job)["tasks"]["running"], "tasks run at bob")
        filler = fill(small.home)
        lab.until(
            lambda: bob.json("status")["kept_results"] >= 1 and not bob.json("status")["running"], "bob keeps them"
        )
        filler.unlink()
        small.ok("wait", job, timeout=120)
        lab.until(lambda: bob.json("status")["kept_results"] == 0, "bob may forget them")
        assert outputs(folder) == expected(3)
        for task in range(3):  # what was granted while the disk was full may have come too late
            history = small.json("show", f"{job}.{task}")["history"]
            assert len([attempt for attempt in history if attempt["reason"] != "late"]) == 1, "nothing ran twice"


@pytest.mark.parametrize("how", ["full", "read-only"])
def test_results_wait_for_the_users_disk(home, tmp_path, how):
    home.start("--slots", "2")
    with small_disk(tmp_path / "disk", 1) as disk:
        go = tmp_path / "go"
        waits = f"import pathlib, time\nwhile not pathlib.Path({str(go)!r}).exists(): time.sleep(0.02)\n"
        folder = lab.make_folder(disk / "job", waits + MAIN)
        job = home.submit("--array", "0-2", "--where", "local", "--sandbox", "none", str(folder))
        filler = fill(disk) if how == "full" else remount(disk, "ro")
        go.touch()
        lab.until(lambda: home.json("show", job)["tasks"]["done"] == 3, "the tasks are done", 60)
        assert home.json("show", job)["state"] == "running", "results are still to be written out"
        assert not any((folder / "results").glob("*/out.txt")) if (folder / "results").exists() else True
        watching = home.popen("wait", job, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        if how == "full":
            filler.unlink()
        else:
            remount(disk, "rw")
        assert watching.wait(timeout=90) == 0
        assert outputs(folder) == expected(3)


def test_a_home_that_is_read_only_is_said_in_one_sentence(small, tmp_path):
    small.start()
    small.stop()
    remount(small.home, "ro")
    assert "Read-only file system" in small.fails(4, "node", "--no-mdns")
    remount(small.home, "rw")
    small.start()
    folder = lab.make_folder(tmp_path / "job", "pass")
    small.ok("wait", small.submit(str(folder)))


def test_a_home_without_room_is_said_in_one_sentence(small):
    filler = fill(small.home)
    said = small.fails(4, "node", "--no-mdns")
    assert "No space left" in said or "full" in said
    filler.unlink()
    small.start()
    assert small.json("jobs") == []
