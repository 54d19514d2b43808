"""What people read of a build that failed; tests/sandbox/test_builds.py builds."""

import asyncio
from pathlib import Path

import pytest

from p2pq.daemon.attempt import Outcome
from p2pq.daemon.building import SAID_CHARS, Builder, Work, remove_tree, shortened
from p2pq.daemon.indexes import Index
from p2pq.daemon.jobpython import JobPython
from p2pq.model.config import EnvironmentSettings

NO_SOLUTION = """\
error: No solution found.
  cause: Because a was not found and you require a,
         we can conclude that your requirements are unsatisfiable.

hint: try harder
"""


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        ("", ""),
        ("warning: x\nerror: No such thing\n", "No such thing"),
        (NO_SOLUTION, "No solution found: Because a was not found and you require a"),
        ("error: first\nerror: second\n", "second"),
        ("\x1b[1;31merror\x1b[0m: red\x07\u202e text", "red\ufffd\ufffd text"),
        ("error: " + "x" * 1000, "x" * (SAID_CHARS - 1) + "…"),
    ],
)
def test_what_uv_said_is_one_sentence(said, shown):
    assert shortened(said) == shown


def test_a_tree_goes_whatever_it_is(tmp_path: Path):
    folder = tmp_path / "tree"
    remove_tree(folder)
    (folder / "closed").mkdir(parents=True)
    (folder / "closed" / "file").touch()
    (folder / "closed").chmod(0)
    (folder / "link").symlink_to(tmp_path)
    remove_tree(folder)
    assert list(tmp_path.iterdir()) == []


class Pool:
    """Runs nothing; says which tasks were under way meanwhile."""

    def __init__(self) -> None:
        self.tasks: list[bool] = []

    async def run(self, launch):
        await asyncio.sleep(0)
        self.tasks.append(any(task.get_name() == "wheels" for task in asyncio.all_tasks()))
        outcome = Outcome(0, None, 0.1, 1, "ok", "", Path("/nowhere"), Path("/nowhere"))
        return outcome, launch.collect(Path("/nowhere"), outcome)

    def end_job(self, _job):
        pass


@pytest.mark.parametrize(
    ("code", "offline", "watched"), [(False, False, True), (True, False, False), (False, True, False)]
)
async def test_what_is_kept_is_watched_only_while_a_build_can_write_there(tmp_path, code, offline, watched):
    pool = Pool()
    builder = Builder(
        pool=pool,  # type: ignore[arg-type]
        python=JobPython(executable=Path("/usr/bin/python3"), prefixes=(), version="3.11.2"),
        index=Index(),
        uv=Path("/usr/bin/uv"),
        settings=EnvironmentSettings(),
        memory_mb=0,
        wheels=tmp_path,
    )
    work = Work(name="x", populate=lambda _: None, collect=lambda *_: "made", code=code, offline=offline)
    _, made, _ = await builder.run(work, tmp_path / "s")
    assert (made, pool.tasks) == ("made", [watched])
    while any(task.get_name() == "wheels" for task in asyncio.all_tasks()):  # noqa: ASYNC110
        await asyncio.sleep(0)
