"""What bad input gets: one clear sentence with the next step, the right exit code, nothing lost, no traceback."""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
from pathlib import Path

import lab
import pytest

from p2pq.homes import socket_path

OK = "import os, pathlib; pathlib.Path(os.environ['P2PQ_RESULTS'], 'out').write_text('fine')"
NEEDS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: mounts and devices")


def nothing_was_queued(host, jobs):
    assert host.json("jobs") == jobs


# -- folders ------------------------------------------------------------------------------------------------------------


def a_socket(folder: Path) -> None:
    listener = socket.socket(socket.AF_UNIX)
    before = Path.cwd()
    os.chdir(folder)  # its path may be too long for a socket
    listener.bind("phone")
    os.chdir(before)
    listener.close()


FOLDERS = {
    "missing": (shutil.rmtree, "does not exist"),
    "a-file": (lambda folder: (shutil.rmtree(folder), folder.write_text("x")), "is not a folder"),
    "empty": (lambda folder: (folder / "main.py").unlink(), "holds no file"),
    "no-main": (lambda folder: (folder / "main.py").rename(folder / "other.py"), "--main FILE"),
    "two-mains": (
        lambda folder: [(folder / "main.py").rename(folder / "main_a.py"), (folder / "main_b.py").touch()],
        "main_a.py, main_b.py",
    ),
    "a-socket": (a_socket, "phone is a socket"),
    "a-pipe": (lambda folder: os.mkfifo(folder / "pipe"), "pipe is a named pipe"),
    "a-link-out": (lambda folder: (folder / "out").symlink_to("/etc/passwd"), "out"),
    "not-utf-8": (lambda folder: Path(os.fsdecode(os.fsencode(folder) + b"/caf\xe9")).touch(), "not UTF-8"),
}


@pytest.mark.parametrize("case", FOLDERS)
def test_a_folder_that_cannot_be_submitted(shared, tmp_path, case):
    spoil, expected = FOLDERS[case]
    folder = lab.make_folder(tmp_path / "job", OK)
    spoil(folder)
    before = shared.json("jobs")
    said = shared.fails(2, "submit", str(folder))
    assert expected in said
    nothing_was_queued(shared, before)
    assert not (folder / "results").exists()


@NEEDS_ROOT
def test_a_device_in_the_folder(shared, tmp_path):
    folder = lab.make_folder(tmp_path / "job", OK)
    os.mknod(folder / "null", 0o20666, os.makedev(1, 3))
    assert "null is a device; remove it or use --exclude" in shared.fails(2, "submit", str(folder))
    shared.ok("submit", "--exclude", "null", str(folder))


@pytest.mark.skipif(os.geteuid() == 0, reason="needs an ordinary user: root can read everything")
def test_an_unreadable_file_and_an_unwritable_place(shared, tmp_path):
    folder = lab.make_folder(tmp_path / "job", OK, secret__txt="x")
    (folder / "secret.txt").chmod(0)
    assert "secret.txt cannot be read" in shared.fails(2, "submit", str(folder))
    (folder / "secret.txt").unlink()
    folder.chmod(0o555)
    try:
        assert "--results" in shared.fails(4, "submit", str(folder))
    finally:
        folder.chmod(0o755)


def test_odd_but_legal_files_travel(shared, tmp_path):
    main = "import os, pathlib, shutil\nfor n in ('a\\nb', 'empty'): shutil.copy(n, os.environ['P2PQ_RESULTS'])"
    folder = lab.make_folder(tmp_path / "job\n\x1b[31m", main, empty="")
    (folder / "a\nb").write_text("x")
    done = shared.run("submit", str(folder))
    assert done.returncode == 0, done.stderr
    assert "holds a control character" in done.stderr
    assert "\x1b" not in done.stderr
    assert "\x1b" not in shared.ok("jobs")
    assert (folder / "results/a\nb").read_text() == "x"
    assert (folder / "results/empty").read_bytes() == b""


@pytest.mark.slow
def test_five_gibibytes_travel(home, tmp_path):
    home.start()
    folder = lab.make_folder(tmp_path / "job", "import os; print(os.path.getsize('big'))")
    with (folder / "big").open("wb") as big:
        big.truncate(5 << 30)
        big.seek(5 << 30)
        big.write(b"end")
    home.ok("submit", "--quiet", str(folder))
    assert home.ok("logs", home.json("jobs")[0]["job"]) == f"{(5 << 30) + 3}\n"


# -- options ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--array", "9-1"], "runs backwards"),
        (["--array", "x"], "0-99"),
        (["--sweep", "k"], "k=1,2,3"),
        (["--sweep", "task=1"], "another name"),
        (["--need", "gpu"], "K=V"),
        (["--time", "soon"], "15m"),
        (["--time", "0"], "15m"),
        (["--memory", "much"], "4G"),
        (["--cpus", "0"], "--cpus"),
        (["--retries", "-1"], "--retries"),
        (["--config", "/nonexistent"], "not a file"),
        (["--main", "../x.py"], "--main"),
        (["--exclude", "main.py", "--main", "main.py"], "--exclude"),
        (["--where", "local", "--sandbox", "loose"], "--sandbox"),
        (["--name", "n" * 5000, "--where", "x" * 5000], ""),
    ],
    ids=lambda value: " ".join(value)[:30] if isinstance(value, list) else "",
)
def test_options_that_make_no_sense(shared, tmp_path, options, expected):
    folder = lab.make_folder(tmp_path / "job", OK)
    (folder / "other").touch()
    code = 4 if "--name" in options else 2
    assert expected in shared.fails(code, "submit", *options, str(folder))


def test_arguments_that_are_no_text(shared, tmp_path):
    folder = lab.make_folder(tmp_path / "job", OK)
    assert "UTF-8" in shared.fails(2, "submit", str(folder), os.fsdecode(b"caf\xe9"))


@pytest.mark.parametrize("command", ["show", "tasks", "logs", "wait", "results", "cancel", "why"])
def test_a_job_that_is_not_there(shared, command):
    assert "p2pq jobs" in shared.fails(4, command, "aaaaaaaaaa")
    assert "characters" in shared.fails(4, command, "aa")
    shared.fails(2, command, "")


def test_nobody_reads_what_is_printed(shared):
    full = Path("/dev/full").open("w")  # noqa: SIM115
    with full:
        done = subprocess.run(
            shared.argv("jobs"), env=shared.environment(), stdout=full, stderr=subprocess.PIPE, text=True, check=False
        )
    assert (done.returncode, done.stderr) == (
        4,
        "p2pq: standard output: No space left on device; mend that and try again\n",
    )


# -- the node -----------------------------------------------------------------------------------------------------------


def test_a_port_in_use(shared, home):
    said = home.fails(2, "node", "--no-mdns", "--listen", shared.address)
    assert "in use" in said
    assert "--listen" in said
    assert "in use" in home.fails(2, "start", "--no-mdns", "--listen", shared.address)


def test_two_nodes_in_one_home(shared):
    assert "p2pq stop" in shared.fails(4, "node", "--no-mdns")


@pytest.mark.parametrize("what", [".", "identity.key", "api.token"])
def test_a_home_with_loose_modes(home, what):
    home.start()
    home.stop()
    path = home.home / what
    path.chmod(path.stat().st_mode | 0o044)
    said = home.fails(2, "node", "--no-mdns")
    assert "chmod" in said
    assert str(path.resolve()) in said
    assert "chmod" in home.fails(2, "start", "--no-mdns")


def test_a_damaged_store_is_left_as_it_is(home, tmp_path):
    home.start()
    home.ok("submit", str(lab.make_folder(tmp_path / "job", OK)))
    home.stop()
    store = home.home / "store.sqlite"
    content = bytearray(store.read_bytes())
    content[4096:8192] = b"\xff" * 4096
    store.write_bytes(content)
    said = home.fails(4, "node", "--no-mdns")
    assert "store.sqlite" in said
    assert "damaged" in said
    assert store.read_bytes() == content


def test_a_node_killed_in_mid_task(home, tmp_path):
    home.start("--slots", "1")
    # The second task outlasts whatever is started and asked meanwhile.
    folder = lab.make_folder(tmp_path / "job", f"import os, time; time.sleep(15 * int(os.environ['P2PQ_TASK']))\n{OK}")
    waiting = [home.popen("submit", "--array", "0-1", str(folder))]
    lab.until(lambda: home.json("jobs") and home.json("jobs")[0]["tasks"]["done"], "a task is done")
    job = home.json("jobs")[0]["job"]
    waiting += [home.popen("wait", job), home.popen("logs", "--follow", job), home.popen("retry", f"{job}.9")]
    waiting.pop().communicate(timeout=20)
    lab.until(lambda: spoken_to(home) >= len(waiting), "all have reached the node")
    home.json("status")  # what they asked has been taken in before this
    home.kill()
    for each in waiting:
        _, said = each.communicate(timeout=20)
        assert each.returncode == 3
        assert said == f"p2pq: the node went away; job {job} is safe: `p2pq start`, then `p2pq wait {job}`\n"
    assert "p2pq start" in home.fails(3, "status")
    home.start("--slots", "1")
    home.ok("wait", job)
    assert sorted(path.parent.name for path in folder.glob("results/*/out")) == ["0", "1"]


def spoken_to(home):
    """Return how many commands are connected to a host's node."""
    path = str(socket_path(home.home))
    lines = [line.split() for line in Path("/proc/net/unix").read_text().splitlines()]
    return sum(line[-1] == path and line[5] == "03" for line in lines)


def test_a_node_that_hangs_is_not_waited_for_forever(home):
    home.start()
    home.process.send_signal(signal.SIGSTOP)
    try:
        said = home.fails(3, "status")
        assert "does not answer within 5 s" in said
        assert "kill it and start it again" in said
        assert [home.fails(3, command) for command in ("stop", "start")] == [said] * 2
        assert home.fails(3, "submit", str(lab.make_folder(home.home.parent / "job", OK))) == said
    finally:
        home.process.send_signal(signal.SIGCONT)


# -- full disks ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def small(tmp_path):
    """Give a folder on a disk of one mebibyte."""
    folder = tmp_path / "small"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)], check=True)
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


@NEEDS_ROOT
def test_a_full_disk_where_the_results_go(shared, small, tmp_path):
    main = "import os, pathlib; pathlib.Path(os.environ['P2PQ_RESULTS'], 'out').write_bytes(os.urandom(4 << 20))"
    folder = lab.make_folder(tmp_path / "job", main)
    waiting = shared.popen("submit", "--results", str(small / "results"), str(folder))
    said = lab.read_line(waiting.stderr, 20)
    assert "results cannot be written out" in said
    assert "nothing is lost" in said
    job = shared.json("jobs")[0]["job"]
    assert "cannot be written out" in shared.ok("why", job)
    subprocess.run(["mount", "-o", "remount,size=20m", str(small)], check=True)
    out, said = waiting.communicate(timeout=60)
    assert (waiting.returncode, out) == (0, ""), said
    assert (small / "results/out").stat().st_size == 4 << 20
    assert [path.name for path in small.iterdir()] == ["results"]


def test_a_full_node_refuses_a_folder_and_goes_on(home, tmp_path):
    home.settings["P2PQ_STORE_BLOBS_MB"] = "1"
    home.start()
    folder = lab.make_folder(tmp_path / "job", OK)
    (folder / "big").write_bytes(os.urandom(3 << 20))
    said = home.fails(4, "submit", str(folder))
    assert "[store] blobs_mb" in said
    assert home.json("jobs") == []
    home.ok("submit", "--exclude", "big", str(folder))
    assert home.json("status")["disk"]["blobs_bytes"] < 1 << 20


def test_a_full_worker_gives_the_task_to_another(tmp_path):
    with contextlib.ExitStack() as stack:
        alice, bob = stack.enter_context(lab.hosts(tmp_path, ["alice", "bob"]))
        bob.settings["P2PQ_STORE_BLOBS_MB"] = "1"
        alice.start("--name", "alice", "--slots", "1", "--listen", "127.0.0.1:0")
        bob.start("--name", "bob", "--slots", "2", "--listen", "127.0.0.1:0")
        bob.ok("join", alice.ok("invite").split()[0], "--at", alice.address, "--yes")
        lab.until(lambda: alice.json("status")["peers"] == 1, "linked")
        main = "import os, pathlib; pathlib.Path(os.environ['P2PQ_RESULTS'], 'out').write_bytes(os.urandom(3 << 20))"
        folder = lab.make_folder(tmp_path / "job", f"import time; time.sleep(0.5)\n{main}")
        done = alice.run("submit", "--array", "0-3", str(folder))
        assert done.returncode == 0, done.stderr
        assert len(list(folder.glob("results/*/out"))) == 4
        job = alice.json("jobs")[0]["job"]
        assert {task["node"] for task in alice.json("tasks", job)} == {"alice"}
