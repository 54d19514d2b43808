"""Whatever the interpreter that has imported ahead does or fails to do, its task runs, once."""

import contextlib
import os
import sys
from pathlib import Path

import psutil
import pytest

from p2pq.runner import script, warm, zygote
from tests.unit.runner.test_main import Serving

SAY = "import os, _socket as s\nsock = s.socket(fileno=int(os.environ['P2PQ_WARM']))\n"
READY = SAY + "sock.send(bytes(4))\nsock.recv(9)\n"
WAIT = "sock.recv(1)\n"


class Bench:
    """A runner that has another interpreter than the honest one."""

    def __init__(self, folder: Path, says: str | None) -> None:
        self.folder = folder
        self.warm = folder / "warm"
        self.warm.mkdir()
        text = Path(zygote.__file__).read_text().replace("IMPORT_S = 10.0", "IMPORT_S = 0.4")
        (self.warm / "zygote.py").write_text(text.replace("FORK_S = 3.0", "FORK_S = 0.2"))
        (self.warm / f"{warm.SCRIPTS}.py").symlink_to(script.__file__)
        if says is None:
            (self.warm / f"{warm.NAME}.py").symlink_to(warm.__file__)
        else:
            (self.warm / f"{warm.NAME}.py").write_text(says)
        (folder / "main.py").write_text("import os, sys\nprint(sys.argv[1:], os.environ.get('MINE'), flush=True)\n")
        self.serving = Serving(str(self.warm))
        assert self.serving.hear() == {"op": "ready"}
        self.serving.say(op="setup", rlimits={}, keep=[], autogroup=False)

    def run(self, number: int, **changes: object) -> tuple[dict[str, object], str]:
        """Run a task; return how it started, and what it printed."""
        env = {"PATH": os.defpath, "TMPDIR": str(self.folder), "P2PQ_TASK": str(number), "MINE": "x"}
        order = {
            "argv": [sys.executable, "main.py", str(number)],
            "env": env,
            "cwd": str(self.folder),
            "warm": True,
        }
        with (self.folder / "out").open("wb") as out:
            self.serving.say((out.fileno(), out.fileno()), op="run", id=number, **(order | changes))
        started = self.serving.hear()
        if started["op"] == "started":
            assert self.serving.hear()["op"] == "exited"
        assert self.serving.hear() == {"op": "clean", "id": number}
        return started, (self.folder / "out").read_text()

    def files(self) -> set[str]:
        return {path.name for path in self.folder.iterdir()} - {"__pycache__"}


@contextlib.contextmanager
def bench(folder: Path, says: str | None = None):
    """End the runner, whatever came of it."""
    made = Bench(folder, says)
    try:
        yield made
    finally:
        made.serving.end()


def test_tasks_are_forked_off_one_interpreter(tmp_path: Path) -> None:
    with bench(tmp_path) as runner:
        beside = set()
        for number in (1, 2, 3):
            started, said = runner.run(number)
            assert said == f"['{number}'] x\n"
            beside.add(started["beside"])
        assert len(beside) == 1
        assert beside != {0}
        assert runner.files() == {"main.py", "out", "warm"}


def test_another_environment_has_another_interpreter(tmp_path: Path) -> None:
    with bench(tmp_path) as runner:
        first, _ = runner.run(1)
        second, said = runner.run(2, env={"TMPDIR": str(tmp_path), "MINE": "y"})
        assert first["beside"] != second["beside"]
        assert said == "['2'] y\n"


@pytest.mark.parametrize(
    "says",
    [
        "raise SystemExit",
        "import os\nos._exit(0)",
        "import os\nos.kill(os.getpid(), 9)",
        "raise ImportError(name='sitecustomize')",  # as if this Python looked for it elsewhere
        SAY + "sock.send(b'xxxx')\n" + WAIT,
        SAY + "sock.send(b'x')\n" + WAIT,
        SAY + WAIT,
        READY + WAIT,
        READY + "sock.send(bytes(4))\n" + WAIT,
        READY + "sock.send((1).to_bytes(4, 'big'))\n" + WAIT,
        READY + "sock.send(b'\\xff' * 4)\n" + WAIT,
        READY + "sock.send(os.getpid().to_bytes(4, 'big'))\n" + WAIT,
        READY + "sock.send(os.getppid().to_bytes(4, 'big'))\n" + WAIT,
        READY + "os._exit(0)",
        SAY + "sock.send(bytes(8))\n" + WAIT,
    ],
)
def test_an_interpreter_that_does_something_else_costs_no_task(tmp_path: Path, says: str) -> None:
    with bench(tmp_path, says) as runner:
        for number in range(1, zygote.FAILURES_MAX + 2):
            started, said = runner.run(number)
            assert (started["op"], said) == ("started", f"['{number}'] x\n")
        assert runner.files() == {"main.py", "out", "warm"}


def test_what_an_interpreter_has_started_is_killed_with_the_task(tmp_path: Path) -> None:
    lingers = "import time\npid = os.fork()\nif not pid:\n    time.sleep(1000)\n"
    with bench(
        tmp_path, SAY + lingers + "open('lingers', 'w').write(str(pid))\nsock.send(bytes(4))\nsock.recv(9)\n" + WAIT
    ) as runner:
        runner.run(1)
        pid = int((tmp_path / "lingers").read_text())
        assert not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


def test_after_some_failures_there_is_no_further_one(tmp_path: Path) -> None:
    with bench(tmp_path, f"open({str(tmp_path / 'tries')!r}, 'a').write('x')\nimport os\nos._exit(1)") as runner:
        for number in range(1, zygote.FAILURES_MAX + 3):
            runner.run(number)
        assert (tmp_path / "tries").read_text() == "x" * zygote.FAILURES_MAX


def test_imports_that_take_too_long_are_waited_for_by_no_task_and_used_later(tmp_path: Path) -> None:
    wait = f"    while not os.path.exists({str(tmp_path / 'go')!r}):\n        __import__('time').sleep(0.01)\n"
    says = Path(warm.__file__).read_text().replace("    leaving.keep()\n", wait + "    leaving.keep()\n")
    with bench(tmp_path, says) as runner:
        assert runner.run(1)[1] == "['1'] x\n"
        assert runner.run(2)[1] == "['2'] x\n"
        (tmp_path / "go").touch()
        number, forked = 3, ""
        while not forked:  # until it has said so
            assert runner.run(number)[1] == f"['{number}'] x\n"
            (tmp_path / "main.py").write_text("print(open('/proc/self/cmdline', 'rb').read().count(0) == 2)")
            forked = runner.run(number)[1].replace("False\n", "")
            (tmp_path / "main.py").write_text("import os, sys\nprint(sys.argv[1:], os.environ.get('MINE'))\n")
            number += 1


def test_what_cannot_be_started_fails_as_ever(tmp_path: Path) -> None:
    with bench(tmp_path) as runner:
        assert runner.run(1, argv=["/no/such/python", "main.py"])[0] == {"op": "failed", "id": 1, "errno": 2}
        assert runner.run(2, cwd="/no/such/folder")[0] == {"op": "failed", "id": 2, "errno": 2}
        assert runner.run(3, argv=["/bin/echo", "no Python"])[1] == "no Python\n"
        assert runner.run(4, argv=[sys.executable, "gone.py"])[1].endswith("[Errno 2] No such file or directory\n")


def test_what_is_too_long_for_an_order_is_started_from_scratch(tmp_path: Path) -> None:
    with bench(tmp_path) as runner:
        started, said = runner.run(1, argv=[sys.executable, "main.py", "x" * zygote.ORDER_BYTES_MAX])
        assert "beside" not in started
        assert len(said) > zygote.ORDER_BYTES_MAX


def test_an_order_is_what_the_other_side_reads() -> None:
    argv = ["python", "main.py", "", "\udcff\n", "=\u20ac"]
    env = {"A": "", "B": "x=y\n", "\udcfe": "\udcfd"}
    read = warm.Order(zygote.order({"cwd": "/a b", "argv": argv, "env": env}), [])
    assert (read.cwd, read.argv, read.env) == ("/a b", argv, env)
