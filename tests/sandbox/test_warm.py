"""A task in a fork of a warm interpreter is what it is in a fresh one; whatever becomes of that interpreter, the task runs."""

import asyncio
import dataclasses
import os
import re
import signal
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from p2pq.daemon import limits as limits_module
from p2pq.daemon.executing import for_libraries
from p2pq.daemon.runners import Outcome, RunnerPool, TaskLaunch
from tests.sandbox.conftest import LIMITS, SANDBOXES, possible
from tests.sandbox.corpus import BESIDE, SCRIPTS
from tests.sandbox.test_runners import Begun

ARGUMENTS = ("--odd", os.fsdecode(b"\xff\n\x01"), "", "last \u20ac")


@dataclass(frozen=True)
class Ended:
    """All that can be seen of a task from outside."""

    exit: int | None
    signal: int | None
    reason: str
    stdout: bytes
    stderr: bytes


Start = Callable[..., Awaitable[Ended]]


@pytest.fixture(params=[SANDBOXES[0], "none"])
def level(request: pytest.FixtureRequest) -> str:
    """Where there are such interpreters: in ``basic`` each task is shut in by itself."""
    return possible(request.param)


@pytest.fixture
def start(pool: RunnerPool, level: str) -> Start:
    """Run a script as task number so-and-so of its job."""

    async def start(
        text: str, number: int, *, warm: bool, job: bytes = b"", installed: str = "", **extra: object
    ) -> Ended:
        def populate(folder: Path) -> None:
            for name, content in {**BESIDE, "lib/installed.py": installed}.items():
                (folder / name).parent.mkdir(exist_ok=True)
                (folder / name).write_text(content)
            (folder / "main.py").write_bytes(text.encode(errors="surrogateescape"))

        def collect(_: Path, outcome: Outcome) -> Ended:
            return Ended(
                outcome.exit, outcome.signal, outcome.reason, outcome.stdout.read_bytes(), outcome.stderr.read_bytes()
            )

        launch = TaskLaunch(
            lease=f"{warm} {number}",
            job=job or b"warm" if warm else b"cold",
            level=level,
            argv=(str(pool.python.executable), "main.py", *ARGUMENTS, str(number)),
            env={"P2PQ_TASK": str(number), "P2PQ_ATTEMPT": "1", "P2PQ_ODD": os.fsdecode(b"\xfe="), "PYTHONPATH": "lib"}
            | for_libraries(1),
            populate=populate,
            collect=collect,
            warm=warm,
            **({"limits": LIMITS} | extra),
        )
        _, ended = await pool.run(launch)
        return ended

    return start


def zygotes(pool: RunnerPool) -> list[int]:
    """The interpreters that have imported ahead and now wait."""
    return [pid for runner in pool._alive if not runner.broken for pid in limits_module.children(runner.pid)]


def unlike(ended: Ended, pool: RunnerPool) -> Ended:
    """Take out what names the one scratch folder or the other, and addresses."""
    names = [name for runner in pool._alive for name in (runner.scratch.root.name, runner.token)]
    chance = re.compile("|".join([*names, "0x[0-9a-f]{6,}"]).encode())
    return dataclasses.replace(
        ended, stdout=chance.sub(b"CHANCE", ended.stdout), stderr=chance.sub(b"CHANCE", ended.stderr)
    )


@pytest.mark.slow
@pytest.mark.parametrize("name", SCRIPTS)
async def test_a_script_does_the_same_warm_and_cold(start: Start, pool: RunnerPool, name: str) -> None:
    text = SCRIPTS[name]
    for number in (1, 2):
        cold = unlike(await start(text, number, warm=False), pool)
        warm = unlike(await start(text, number, warm=True), pool)
        assert warm == cold
        assert len(zygotes(pool)) == 1


async def test_chance_is_anew_in_each_task(start: Start, pool: RunnerPool) -> None:
    text = """
import random
import secrets
import uuid
import numpy as np
print(random.random(), random.gauss(0, 1), np.random.random(), np.random.default_rng().random(), np.random.get_state()[1][0])
print(secrets.token_hex(), uuid.uuid4())
"""
    said = [(await start(text, number, warm=True)).stdout.split() for number in range(3)]
    assert len({word for words in said for word in words}) == 3 * 7
    assert len(zygotes(pool)) == 1


async def test_tasks_of_a_job_share_an_interpreter_that_waits_between_them(start: Start, pool: RunnerPool) -> None:
    seen = set()
    for number in range(3):
        assert (await start("import decimal\nprint(decimal)", number, warm=True)).exit == 0
        seen |= set(zygotes(pool))
    assert len(seen) == 1
    await start("import decimal", 1, warm=True, job=b"another")
    assert len(zygotes(pool)) == 2


WARM = "import sys\nprint(open('/proc/self/cmdline', 'rb').read().count(0) < len(sys.orig_argv))\n"
"""Prints whether it runs in a fork: that keeps the command line of the process that it was forked off."""


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
async def test_an_interpreter_that_was_killed_is_replaced(start: Start, pool: RunnerPool, how: signal.Signals) -> None:
    assert (await start(WARM, 1, warm=True)).stdout == b"True\n"
    (killed,) = zygotes(pool)
    os.kill(killed, how)
    ended = await start(WARM, 2, warm=True)
    assert (ended.exit, ended.stderr) == (0, b"")
    assert (await start(WARM, 3, warm=True)).stdout == b"True\n"
    assert zygotes(pool) not in ([], [killed])


async def test_an_interpreter_stands_still_while_no_task_runs(start: Start, pool: RunnerPool) -> None:
    for number in range(3):
        assert await start(WARM, number, warm=True) == Ended(0, None, "ok", b"True\n", b"")
        (still,) = zygotes(pool)
        assert psutil.Process(still).status() == psutil.STATUS_STOPPED, "what a task has put into it does not run"


async def test_a_task_may_kill_what_it_was_forked_off(start: Start, pool: RunnerPool) -> None:
    kill = """
import os, signal
with open(f"/proc/{os.getppid()}/task/{os.getppid()}/children") as file:
    for pid in map(int, file.read().split()):
        if pid != os.getpid():
            os.kill(pid, signal.SIGKILL)
print("killed")
"""
    for number in range(5):
        assert await start(kill, number, warm=True) == Ended(0, None, "ok", b"killed\n", b"")


async def test_what_a_task_leaves_is_killed_and_its_interpreter_is_not(start: Start, pool: RunnerPool) -> None:
    leaves = """
import os, time
for _ in range(3):
    if not os.fork():
        os.setsid()
        os.fork()
        time.sleep(1000)
"""
    found: list[list[int]] = []
    while len(found) < 2 or not found[-1] or found[-1] != found[-2]:
        assert len(found) < 6, "on a busy machine it may be too slow, and is lost; not each time"
        await start(leaves, len(found), warm=True)
        found.append(zygotes(pool))


async def test_a_task_is_killed_like_any_other(start: Start, pool: RunnerPool) -> None:
    text = "import os, signal, time\nsignal.signal(signal.SIGTERM, lambda *_: os._exit(7))\nprint(flush=True)\ntime.sleep(1000)\n"
    for grace_s, ends in ((10.0, (7, None)), (0.0, (None, signal.SIGKILL))):
        begun = Begun()
        async with asyncio.TaskGroup() as group:
            task = group.create_task(start(text, 1, warm=True, on_started=begun))
            await begun.wait()
            await pool.kill("True 1", "cancelled", grace_s=grace_s)
        assert (task.result().exit, task.result().signal) == ends
    small = dataclasses.replace(LIMITS, memory_bytes=100 << 20)
    assert (
        await start("x = bytearray(1 << 30)\nwhile True: pass", 1, warm=True, limits=small)
    ).reason == "memory-limit"
    assert (await start(WARM, 1, warm=True, limits=small)).exit == 0


async def test_what_was_imported_ahead_is_not_counted_as_the_tasks(start: Start, pool: RunnerPool) -> None:
    """Twice the module would be more than the limit, and is what there is while the task changes its copy."""
    text = """
import installed
import os
import time
while not os.path.exists("go"):
    time.sleep(0.01)
installed.HELD[::4096] = bytes(len(installed.HELD) // 4096)
time.sleep(0.6)  # it is looked at every 0.5 s
print(len(installed.HELD))
"""
    small = dataclasses.replace(LIMITS, memory_bytes=100 << 20)
    held = "HELD = bytearray(b'x') * (60 << 20)"

    def go(stdout: Path, _: Path) -> None:
        """Now it is known here which process is beside the task."""
        (stdout.parents[1] / "job" / "go").touch()

    for number in range(2):
        ended = await start(text, number, warm=True, limits=small, installed=held, on_started=go)
        assert ended == Ended(0, None, "ok", b"62914560\n", b"")
    more = held.replace("60", "110")
    assert (
        await start(text, 1, warm=True, job=b"more", limits=small, installed=more, on_started=go)
    ).reason == "memory-limit"


UNFIT = {
    "threads": "import threading\nthreading.Thread(target=threading.Event().wait, daemon=True).start()",
    "children": "import os\nif not os.fork():\n    os.read(os.pipe()[0], 1)",
    "prints": "print('welcome')",
    "complains": "import sys\nsys.stderr.write('deprecated')",
    "opens": "import os\nFILE = open(__file__)",
    "writes": "import tempfile\nFOLDER = tempfile.mkdtemp()",
    "moves": "import os\nos.chdir('/')",
    "fails": "raise RuntimeError('broken')",
    "exits": "raise SystemExit(5)",
    "needs": "import no_such_module_anywhere",
}


@pytest.mark.parametrize("why", UNFIT)
async def test_what_an_import_does_is_done_by_each_task(start: Start, pool: RunnerPool, why: str) -> None:
    text = "import colorsys\nimport installed\nimport decimal\nprint(installed.__name__)\n" + WARM
    cold = unlike(await start(text, 1, warm=False, installed=UNFIT[why]), pool)
    warm = unlike(await start(text, 1, warm=True, installed=UNFIT[why]), pool)
    assert warm == dataclasses.replace(cold, stdout=cold.stdout.replace(b"False\n", b"True\n"))
    assert len(zygotes(pool)) == 1


async def test_a_task_that_waits_for_imports_can_be_ended(start: Start, pool: RunnerPool, level: str) -> None:
    for grace_s in (0.0, 10.0):
        async with asyncio.TaskGroup() as group:
            ended = group.create_task(
                start("import installed", 1, warm=True, installed="import time; time.sleep(1000)")
            )
            await importing(pool)
            await pool.kill("True 1", "cancelled", grace_s=grace_s)
        assert ended.result().reason == "cancelled"


async def importing(pool: RunnerPool) -> None:
    """Wait until there is an interpreter, and thus a task that waits for it."""
    async with asyncio.timeout(20):
        while not zygotes(pool):  # noqa: ASYNC110  nobody tells
            await asyncio.sleep(0.01)


async def test_it_is_python_that_is_told_whether_it_is_warm(start: Start, pool: RunnerPool) -> None:
    assert (await start(WARM, 1, warm=False)).stdout == b"False\n"
    assert zygotes(pool) == []
