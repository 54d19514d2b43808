"""A pool, and a short way to run one program in it."""

import os
import shutil
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from p2pq.daemon import basic, sandbox
from p2pq.daemon.runners import Limits, Outcome, RunnerPool, TaskLaunch

HOSTILE = Path(__file__).parents[1] / "hostile"
LIMITS = Limits(
    cpus=1,
    memory_bytes=512 << 20,
    wall_s=60.0,
    disk_bytes=512 << 20,
    processes=64,
    output_bytes=16 << 20,
)


@dataclass(frozen=True)
class Ran:
    outcome: Outcome
    stdout: str
    stderr: str
    files: dict[str, str]


Run = Callable[..., Awaitable[Ran]]


def collect(folder: Path, outcome: Outcome) -> Ran:
    files = {
        path.name: path.read_text(errors="replace")
        for path in folder.iterdir()
        if path.is_file() and os.access(path, os.R_OK) and path.stat().st_size < 1 << 20
    }
    with outcome.stdout.open("rb") as out, outcome.stderr.open("rb") as err:
        return Ran(
            outcome,
            out.read(1 << 20).decode(errors="replace"),
            err.read(1 << 20).decode(errors="replace"),
            files,
        )


@pytest.fixture
def python(tmp_path: Path) -> sandbox.JobPython:
    return sandbox.resolve_python(Path(sys.executable), user_home=Path.home(), p2pq_home=tmp_path / "home")


SANDBOXES = [pytest.param("strict", marks=pytest.mark.sandbox), pytest.param("basic", marks=pytest.mark.sandbox)]


@pytest.fixture(params=[*SANDBOXES, "none"])
def level(request: pytest.FixtureRequest) -> str:
    return possible(request.param)


@pytest.fixture(params=SANDBOXES)
def sandboxed(request: pytest.FixtureRequest) -> str:
    return possible(request.param)


def possible(level: str) -> str:
    if level == "strict" and shutil.which("bwrap") is None:
        pytest.skip("bubblewrap (bwrap) is not installed")
    if level == "basic" and basic.problem():
        pytest.skip(basic.problem())
    return level


@pytest.fixture
async def pool(tmp_path: Path, python: sandbox.JobPython) -> AsyncIterator[RunnerPool]:
    """A pool whose scratch folder has an awkward name."""
    scratch = tmp_path / "home" / 'it\'s a "scratch" folder $(x)'
    pool = RunnerPool(scratch, python, grace_s=0.2, idle_s=30.0)
    await pool.start()
    yield pool
    await pool.close()
    assert list(scratch.iterdir()) == []


@pytest.fixture
def run(pool: RunnerPool) -> Run:
    """Run a program of tests/hostile, or a command, and return what came of it."""

    async def run(
        program: str | tuple[str, ...],
        *args: str,
        level: str = "strict",
        job: bytes = b"job",
        limits: Limits = LIMITS,
        lease: str = "1",
        **extra: object,
    ) -> Ran:
        if isinstance(program, str):
            source = (HOSTILE / f"{program}.py").read_text()
            argv = (str(pool.python.executable), "-I", "-S", "main.py", *args)
        else:
            source, argv = "", program

        def populate(folder: Path) -> None:
            (folder / "main.py").write_text(source)

        launch = TaskLaunch(
            lease=lease,
            job=job,
            level=level,
            argv=argv,
            env={},
            limits=limits,
            populate=populate,
            collect=collect,
            **extra,
        )
        _, ran = await pool.run(launch)
        return ran

    return run
