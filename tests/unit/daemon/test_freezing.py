"""Programs made of scripts: once for all that goes into them, of what the folder and its packages have."""

import asyncio
import json
import os
from pathlib import Path

import pytest

from p2pq.daemon import freezing
from p2pq.daemon.attempt import Outcome
from p2pq.daemon.building import Work
from p2pq.daemon.environments import Environment, Order
from p2pq.daemon.freezing import FREEZER, Freezer
from p2pq.daemon.indexes import Index
from p2pq.daemon.jobpython import JobPython
from p2pq.daemon.requirements import Wanted
from p2pq.daemon.submission import Looked
from p2pq.errors import BuildError, StorageError, UsageError
from p2pq.model.config import EnvironmentSettings

ONE = Wanted("requirements.txt", ("one",))


class Environments:
    """Builds nothing; makes programs as PyInstaller would."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.folder = path / "environments"
        self.folder.mkdir()
        self.settings = EnvironmentSettings()
        self.python = JobPython(executable=Path("/usr/bin/python3"), prefixes=(), version="3.11.2")
        self.index = Index()
        self.known: dict[str, Environment] = {}
        self.works: list[Work] = []
        self.copied: list[str] = []
        self.argv: list[str] = []
        self.bytes = 3
        self.failure = ""
        self.problem = ""

    def builder(self, _source):
        if self.problem:
            raise BuildError(self.problem)
        return self

    def order(self, wanted):
        return Order(wanted.source, wanted)

    async def get(self, order):
        if self.failure == "environment":
            raise BuildError("environment of requirements.txt: no such package")
        found = self.known.setdefault(order.name, Environment(order.name, self.path / order.name, 1))
        found.hold()
        return found

    def socket(self):
        return Path("/nowhere")

    async def run(self, work: Work, _socket: Path):
        folder = self.path / f"job{len(self.works)}"
        self.works.append(work)
        folder.mkdir()
        work.populate(folder)
        plan = json.loads((folder / "plan.json").read_text())
        assert plan["proxy"] == ""
        [step] = plan["steps"]
        self.argv = step["argv"]
        self.copied = sorted(
            str(each.relative_to(folder / "sources")) for each in folder.rglob("sources/**/*") if each.is_file()
        )
        made = folder / "dist/main"
        if self.failure == "link":
            made.parent.symlink_to(self.path / "owner")
        elif self.failure != "nothing":
            made.parent.mkdir()
        if self.failure == "odd":
            made.symlink_to("/etc")
        elif self.failure not in {"link", "nothing"}:
            made.mkdir()
            (made / "main").write_bytes(bytes(self.bytes))
        (folder / "stderr").write_text("Traceback\n  a line\nModuleNotFoundError: No module named 'x'\n")
        reason = "exit" if self.failure == "exit" else "ok"
        outcome = Outcome(1, None, 0.1, 1, reason, "it failed", folder / "stdout", folder / "stderr")
        return outcome, work.collect(folder, outcome), ""


class Bench:
    def __init__(self, path: Path) -> None:
        self.environments = Environments(path)
        self.freezer = Freezer(self.environments)  # type: ignore[arg-type]
        self.folder = path / "job"
        (self.folder / "inner").mkdir(parents=True)
        (self.folder / "main.py").write_text("import inner.helper")
        (self.folder / "inner/helper.py").write_text("")
        (self.folder / "data.csv").write_text("1")
        self.said: list[str] = []

    async def say(self, text: str) -> None:
        self.said.append(text)

    async def freeze(self, main: str = "main.py", wanted: Wanted | None = ONE) -> Path:
        looked = Looked(main, ("data.csv", "inner/helper.py", "main.py"), wanted)
        async with self.freezer.frozen(self.folder, looked, self.say) as brought:
            assert (brought.path, brought.main) == (".p2pq/frozen", "main")
            assert (brought.folder / "main").stat().st_size == self.environments.bytes
            return brought.folder


@pytest.fixture
def bench(tmp_path, monkeypatch):
    monkeypatch.setattr(freezing.shutil, "which", lambda name: f"/usr/bin/{name}")
    return Bench(tmp_path)


async def test_a_program_is_made_of_the_modules_of_the_folder_and_its_packages(bench):
    await bench.freeze()
    [work] = bench.environments.works
    assert (work.code, work.offline) == (True, True)
    assert [mount.inside for mount in work.mounts] == ["/p2pq-freezer", "/p2pq-env"]
    assert bench.environments.copied == ["inner/helper.py", "main.py"]
    assert bench.environments.argv[-1] == "/job/sources/main.py"
    assert "PyInstaller" in bench.environments.argv
    assert [said.partition(" of ")[0] for said in bench.said] == ["freeze: making one program", "freeze: a program"]
    assert [each.users for each in bench.environments.known.values()] == [0, 0]
    await bench.freeze(wanted=None)
    assert [mount.inside for mount in bench.environments.works[1].mounts] == ["/p2pq-freezer"]


async def test_it_is_made_again_only_if_what_goes_into_it_has_changed(bench):
    first = await bench.freeze()
    (bench.folder / "data.csv").write_text("2")
    assert await bench.freeze() == first
    assert len(bench.environments.works) == 1
    (bench.folder / "inner/helper.py").write_text("x = 1")
    assert await bench.freeze() != first
    names = {
        first.name,
        (await bench.freeze()).name,
        (await bench.freeze(wanted=Wanted("requirements.txt", ("two",)))).name,
    }
    bench.environments.python = JobPython(executable=Path("/usr/bin/python3"), prefixes=(), version="3.12.1")
    names.add((await bench.freeze()).name)
    assert len(names) == 4


@pytest.mark.parametrize(
    ("failure", "said"),
    [
        ("exit", "--freeze: ModuleNotFoundError: No module named 'x'$"),
        ("odd", "something else in the place of the program"),
        ("nothing", "something else in the place of the program"),
        ("environment", "--freeze: environment of requirements.txt: no such package"),
    ],
)
async def test_what_cannot_be_made_is_said(bench, failure, said):
    bench.environments.failure = failure
    with pytest.raises(UsageError, match=said):
        await bench.freeze()
    assert [each.users for each in bench.environments.known.values()] == [0] * len(bench.environments.known)
    bench.environments.failure = ""
    await bench.freeze()


async def test_no_folder_of_the_owners_is_taken_for_the_program(bench, tmp_path):
    """Code of packages runs in the sandbox, and may write there what leads out of it once it is looked at from outside."""
    owners = tmp_path / "owner/main"
    owners.mkdir(parents=True)
    (owners / "thesis.txt").write_text("mine")
    bench.environments.failure = "link"
    with pytest.raises(UsageError, match="something else in the place of the program"):
        await bench.freeze()
    assert (owners / "thesis.txt").read_text() == "mine"


async def test_a_program_is_on_the_disk_before_it_counts(bench, monkeypatch):
    kept = bench.environments.folder / "frozen"
    done: list[str] = []

    def synced(name):
        return lambda path: done.append(f"{name} {path.name} {len(list(kept.iterdir()))}")

    monkeypatch.setattr(freezing.files, "sync_tree", synced("tree"))
    monkeypatch.setattr(freezing.files, "sync", synced("names"))
    await bench.freeze()
    assert done == ["tree main 0", "names frozen 1"]


async def test_what_is_edited_meanwhile_does_not_get_the_name_of_what_it_was(bench):
    seen: list[str] = []
    get, run = bench.environments.get, bench.environments.run

    async def edited(order):
        (bench.folder / "inner/helper.py").write_text("x = 1")
        return await get(order)

    async def looked_at(work, socket):
        made = await run(work, socket)
        seen.append((bench.environments.path / "job0/sources/inner/helper.py").read_text())
        return made

    bench.environments.get, bench.environments.run = edited, looked_at
    await bench.freeze()
    assert seen == [""], "it is named by what it is made of"
    assert [path.name for path in bench.environments.folder.iterdir()] == ["frozen"]


async def test_only_python_is_frozen_and_with_what_that_takes(bench, monkeypatch):
    with pytest.raises(UsageError, match=r"run\.sh is none; an executable travels as it is"):
        await bench.freeze(main="run.sh")
    bench.environments.problem = "uv is not installed here"
    with pytest.raises(UsageError, match="--freeze: uv is not installed here"):
        await bench.freeze()
    monkeypatch.setattr(freezing.shutil, "which", lambda _: None)
    with pytest.raises(UsageError, match="install binutils"):
        await bench.freeze()


async def test_there_are_limits(bench, monkeypatch):
    bench.environments.settings = EnvironmentSettings(disk_mb=1)
    bench.environments.bytes = 2 << 20
    with pytest.raises(UsageError, match="takes more than 1 MiB"):
        await bench.freeze()
    monkeypatch.setattr(freezing, "MODULES_BYTES_MAX", 3)
    with pytest.raises(UsageError, match="the modules in the folder take more than"):
        await bench.freeze()
    monkeypatch.undo()
    (bench.folder / "inner/helper.py").unlink()
    monkeypatch.setattr(freezing.shutil, "which", lambda name: name)
    with pytest.raises(StorageError, match=r"helper\.py failed: No such file"):
        await bench.freeze()


async def test_the_least_recently_used_make_room(bench):
    bench.environments.settings = EnvironmentSettings(quota_mb=4)
    bench.environments.bytes = 600 << 10
    first = await bench.freeze()
    os.utime(first, (1, 1))
    second = await bench.freeze(wanted=None)
    assert not first.exists()
    assert second.exists()
    assert FREEZER.lines == ("pyinstaller>=6,<7",)


async def test_one_is_made_at_a_time(bench):
    looked = Looked("main.py", ("main.py",), None)
    first = bench.freezer.frozen(bench.folder, looked, bench.say)
    await first.__aenter__()
    second = asyncio.ensure_future(bench.freeze())  # noqa: TID251
    await asyncio.sleep(0)
    assert len(bench.environments.works) == 1
    await first.__aexit__(None, None, None)
    await second
    assert len(bench.environments.works) == 2
