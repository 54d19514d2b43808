"""The runner's own code, without a sandbox: deleting hostile trees, its frames, its end."""

import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from p2pq.runner import main as runner


class Serving:
    """A runner process at level none, spoken to directly."""

    def __init__(self, folder: str = str(Path(runner.__file__).parent)) -> None:
        self.control, theirs = socket.socketpair()
        self.control.settimeout(20)
        with theirs:
            self.process = subprocess.Popen(
                [sys.executable, "-I", "-S", runner.__file__, str(theirs.fileno()), "none", "0", folder],
                pass_fds=[theirs.fileno()],
                start_new_session=True,  # it may lower its session, which must not be that of these tests
            )

    def hear(self) -> dict[str, object]:
        size = int.from_bytes(self.exactly(4), "big")
        return json.loads(self.exactly(size))

    def exactly(self, size: int) -> bytes:
        data = b""
        while len(data) < size:
            part = self.control.recv(size - len(data))
            assert part
            data += part
        return data

    def say(self, fds: tuple[int, ...] = (), **fields: object) -> None:
        body = json.dumps(fields).encode()
        socket.send_fds(self.control, [len(body).to_bytes(4, "big") + body], fds)

    def end(self) -> None:
        self.control.close()
        assert self.process.wait(20) == 0


def test_a_task_from_run_to_clean(tmp_path: Path) -> None:
    serving = Serving()
    try:
        assert serving.hear() == {"op": "ready"}
        serving.say(op="setup", rlimits={"RLIMIT_NOFILE": 64}, keep=[], autogroup=True)
        with (tmp_path / "out").open("wb") as out, (tmp_path / "err").open("wb") as err:
            command = ["sh", "-c", "ulimit -n; ulimit -Hn; cat; pwd >&2; (sleep 100 &); exit 5"]
            env = {"PATH": os.environ["PATH"]}
            serving.say(
                (out.fileno(), err.fileno()),
                op="run",
                kind="command",
                id=9,
                argv=command,
                env=env,
                cwd=str(tmp_path),
            )
        assert serving.hear()["op"] == "started"
        ended = serving.hear()
        assert (ended["op"], ended["id"], ended["exit"], ended["signal"]) == ("exited", 9, 5, None)
        assert serving.hear() == {"op": "clean", "id": 9}
        assert (tmp_path / "out").read_text() == "64\n64\n"
        assert (tmp_path / "err").read_text() == f"{tmp_path}\n"
        with (tmp_path / "out").open("wb") as out, (tmp_path / "in").open("w+") as given:
            given.write("given")
            given.seek(0)
            serving.say((out.fileno(), out.fileno(), given.fileno()), op="run", id=9, argv=["cat"], env=env, cwd="/")
            assert [serving.hear()["op"] for _ in range(3)] == ["started", "exited", "clean"]
        assert (tmp_path / "out").read_text() == "given"
        # Orders that come too late, or for another task, are ignored.
        serving.say(op="signal", id=9, signal=9)
        serving.say(op="kill", id=8)
        serving.say(op="nonsense")
        with (tmp_path / "out").open("wb") as out:
            serving.say((out.fileno(), out.fileno()), op="run", id=10, argv=["a\0b"], env={}, cwd="/")
        assert serving.hear() == {"op": "failed", "id": 10, "errno": 0}
        assert serving.hear() == {"op": "clean", "id": 10}
    finally:
        serving.end()


def test_an_oversized_frame_ends_the_runner() -> None:
    serving = Serving()
    serving.hear()
    serving.control.send(b"\xff\xff\xff\xff")
    assert serving.process.wait(20) == 0
    serving.end()


LEADERLESS = """
import ctypes, os, threading
def rest():
    # The main thread is gone for the kernel when it is shown as a zombie.
    while open(f"/proc/{os.getpid()}/stat").read().rpartition(")")[2].split()[0] != "Z":
        pass
    os.write(1, b"x")
    os.read(0, 1)
threading.Thread(target=rest).start()
ctypes.CDLL(None).syscall({"x86_64": 60, "aarch64": 93}[os.uname().machine], 0)
"""


KILLING = """
import os, subprocess, sys, types
import main

kept = []  # or the next Popen would reap those that have ended

def start(code):
    child = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    kept.append(child)
    child.stdout.read(1)
    return child.pid

ended, first = start("print()"), start(sys.argv[1])
os.waitid(os.P_PID, ended, os.WEXITED | os.WNOWAIT)
print(main.kill_descendants() == [first])
os.waitid(os.P_PID, first, os.WEXITED | os.WNOWAIT)
print(main.kill_descendants() == [])
start(sys.argv[1])
main.Runner.kill_everything(types.SimpleNamespace(strict=False))
print("clean")
"""


def test_a_process_without_its_main_thread_is_killed_and_counts_as_alive() -> None:
    done = subprocess.run(
        [sys.executable, "-c", KILLING, LEADERLESS],
        cwd=Path(runner.__file__).parent,
        env={"PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert (done.stdout.split(), done.stderr) == (["True", "True", "clean"], "")


def test_a_session_that_cannot_be_lowered_yet_is_with_the_next_order() -> None:
    ours, theirs = os.pipe()
    os.set_blocking(theirs, False)
    with socket.socket() as unused:
        serving = runner.Runner(unused, "none", "", theirs)
        setup = {"op": "setup", "rlimits": {}, "keep": [], "autogroup": True}
        size = os.write(theirs, bytes(1 << 20))  # no more fits in
        serving.handle(setup, [])
        os.read(ours, size)
        serving.handle({"op": "kill", "id": 1}, [])
        serving.handle({"op": "kill", "id": 1}, [])
        assert os.read(ours, 100) == b"19"
        serving.handle(setup | {"autogroup": False}, [])
        serving.handle({"op": "kill", "id": 1}, [])
    os.close(theirs)
    assert os.read(ours, 100) == b""
    os.close(ours)


def test_an_ordinary_user_s_runner_lowers_its_session_though_nobody_may_look_into_it() -> None:
    """The kernel lets no ordinary user open that file of a process that is not dumpable."""
    user = "nobody" if os.geteuid() == 0 else None
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:  # where that user gets to
        Path(folder).chmod(0o755)
        file = Path(shutil.copy(runner.__file__, folder))
        file.chmod(0o644)
        control, theirs = socket.socketpair()
        argv = ["-I", "-S", str(file), str(theirs.fileno()), "none", "0", folder]
        process = None
        for python in (Path(sys.executable).resolve(), "/usr/bin/python3"):
            with contextlib.suppress(PermissionError, FileNotFoundError):
                process = process or subprocess.Popen(
                    [python, *argv], pass_fds=[theirs.fileno()], user=user, start_new_session=True, cwd="/"
                )
        if process is None:
            pytest.skip("needs an ordinary user that can run an interpreter")
        theirs.close()
        group = Path(f"/proc/{process.pid}/autogroup")
        serving = Serving.__new__(Serving)
        serving.control, serving.process = control, process
        control.settimeout(20)
        try:
            assert serving.hear() == {"op": "ready"}
            serving.say(op="setup", rlimits={}, keep=[], autogroup=True)
            deadline = time.monotonic() + 20
            # Others on this machine may have used up how often the kernel lets us do that.
            while group.exists() and not group.read_text().endswith("nice 19\n"):
                assert time.monotonic() < deadline
                serving.say(op="nothing", id=0)
                time.sleep(0.02)
        finally:
            serving.end()
