"""Bundles on the owner's machine: found once for each target, fetched once by hash, laid out with their lists."""

import asyncio
import hashlib
import json
from pathlib import Path

import pytest

from p2pq.daemon import bundles, bundling, environments
from p2pq.daemon.attempt import Outcome
from p2pq.daemon.building import Work
from p2pq.daemon.bundles import Target
from p2pq.daemon.bundling import PYLOCK, Bundler
from p2pq.daemon.indexes import Index
from p2pq.daemon.jobpython import JobPython
from p2pq.daemon.requirements import Wanted
from p2pq.errors import BuildError, UsageError
from p2pq.model.config import EnvironmentSettings

HERE = Target("3.11", "linux", "x86_64")
THERE = Target("3.12", "linux", "aarch64")
ODD = Target("3.11", "plan9", "mips")
ONE = Wanted("requirements.txt", ("one",))


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


class Builder:
    """Answers as uv and the index would: ``has`` are the wheels, by target and name of file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.settings = EnvironmentSettings()
        self.python = JobPython(executable=Path("/usr/bin/python3"), prefixes=(), version="3.11.2")
        self.index = Index(certificates="/etc/ssl/mine")
        self.has: dict[str, dict[str, bytes]] = {"3.11": {"one-1.0-py3-none-any.whl": b"one"}}
        self.promised: dict[str, str] = {}
        self.calls: list[list[str]] = []
        self.fetched: list[str] = []
        self.failure = ""
        self.mute = False
        self.running = lambda: 0

    def asked_steps(self, folder: Path) -> list[str]:
        return json.loads((folder / "plan.json").read_text())["steps"][-1]["argv"]

    def asked(self, _wanted, _folder):
        return [], ["--requirement", "/job/requirements.txt"]

    async def run(self, work: Work, socket: Path):
        folder = self.path / f"job{len(self.calls) + len(self.fetched)}{work.name[-6:]}"
        folder.mkdir()
        work.populate(folder)
        argv = self.asked_steps(folder)
        assert not work.code
        assert self.running() == 1, "what is kept for further builds is in use"
        reason = "ok"
        if "compile" in argv:
            self.calls.append(argv)
            python = argv[argv.index("--python-version") + 1]
            if self.failure or python not in self.has:
                reason = "exit"
            else:
                self._answer(folder, self.has[python])
        else:
            order = json.loads((folder / "order.json").read_text())
            (folder / "fetched").mkdir()
            everything = {sha256(content): content for files in self.has.values() for content in files.values()}
            for _url, name, file_name in order["files"]:
                self.fetched.append(name)
                (folder / "fetched" / file_name).write_bytes(everything.get(file_name, b"something else"))
        (folder / "stderr").write_text(f"error: {self.failure or 'no such package'}")
        outcome = Outcome(0, None, 0.1, 1, reason, "it failed", folder / "stdout", folder / "stderr")
        return outcome, work.collect(folder, outcome), "x does not answer; "

    def _answer(self, folder: Path, files: dict[str, bytes]) -> None:
        lines = [] if self.mute else ['lock-version = "1.0"']
        for name, content in files.items():
            package, version = name.split("-")[:2]
            promised = self.promised.get(name, sha256(content))
            wheel = f'{{ url = "https://x/{name}", size = {len(content)}, hashes = {{ sha256 = "{promised}" }} }}'
            lines += ["[[packages]]", f'name = "{package}"', f'version = "{version}"', f"wheels = [{wheel}]"]
        (folder / PYLOCK).write_text("\n".join(lines))


class Environments:
    def __init__(self, path: Path, builder: Builder) -> None:
        self.folder = path / "environments"
        self._builder = builder
        self._running = 0
        builder.running = lambda: self._running
        self.problem = ""

    def builder(self, source: str):
        if self.problem:
            raise BuildError(self.problem)
        return self._builder

    running = environments.Environments.running

    def socket(self) -> Path:
        return Path("/nowhere")


class Bench:
    def __init__(self, path: Path) -> None:
        self.builder = Builder(path)
        self.environments = Environments(path, self.builder)
        self.bundler = Bundler(self.environments)  # type: ignore[arg-type]
        self.said: list[str] = []

    async def say(self, text: str) -> None:
        self.said.append(text)

    async def bundle(self, *targets: Target, wanted: Wanted = ONE) -> dict[str, bytes]:
        nodes = dict.fromkeys(targets or (HERE,), ("ann", "bob"))
        async with self.bundler.bundled(wanted, nodes, self.say) as folder:
            found = {path.name: path.read_bytes() for path in folder.iterdir()}
        assert not folder.exists()
        return found


@pytest.fixture
def bench(tmp_path):
    return Bench(tmp_path)


async def test_a_bundle_holds_a_list_for_each_target_and_each_wheel_once(bench):
    bench.builder.has["3.12"] = {**bench.builder.has["3.11"], "two-2.0-cp312-cp312-linux_aarch64.whl": b"two"}
    found = await bench.bundle(HERE, THERE)
    assert sorted(found) == [HERE.file, THERE.file, "one-1.0-py3-none-any.whl", "two-2.0-cp312-cp312-linux_aarch64.whl"]
    assert [wheel.name for wheel in bundles.read(found[THERE.file]).wheels] == ["one", "two"]
    assert [wheel.name for wheel in bundles.read(found[HERE.file]).wheels] == ["one"]
    assert found["two-2.0-cp312-cp312-linux_aarch64.whl"] == b"two"
    platforms = [argv[argv.index("--python-platform") + 1] for argv in bench.builder.calls]
    assert platforms == ["x86_64-manylinux_2_28", "aarch64-manylinux_2_28"]
    assert all("--no-build" in argv and argv[-1] == "/job/requirements.txt" for argv in bench.builder.calls)
    assert bench.said == [
        "bundle: Python 3.11 on linux x86_64 (ann, bob) ...",
        "bundle: Python 3.12 on linux aarch64 (ann, bob) ...",
        "bundle: fetching 2 of 2 wheels, 6 B",
        "bundle: 2 wheels, 6 B, for Python 3.11 on linux x86_64, Python 3.12 on linux aarch64",
    ]


async def test_the_second_time_nothing_is_asked_and_only_what_was_damaged_is_fetched(bench):
    first = await bench.bundle()
    bench.said.clear()
    assert await bench.bundle() == first
    assert (len(bench.builder.calls), bench.builder.fetched) == (1, ["one-1.0-py3-none-any.whl"])
    assert bench.said == ["bundle: 1 wheels, 3 B, for Python 3.11 on linux x86_64"]
    [kept] = (bench.environments.folder / "bundles/wheels").iterdir()
    kept.write_bytes(b"onx")
    [found] = (bench.environments.folder / "bundles/found").iterdir()
    whole = found.read_bytes()
    for calls, damaged in enumerate((b"half of", b"", whole[: whole.index(b"[[packages")], b'lock-version = "1.0"'), 2):
        found.write_bytes(damaged)
        assert await bench.bundle() == first
        assert (len(bench.builder.calls), len(bench.builder.fetched)) == (calls, 2)
    await bench.bundle(wanted=Wanted("requirements.txt", ("one", "two")))
    assert len(bench.builder.calls) == 6


async def test_what_was_found_is_on_the_disk_before_it_counts(bench, monkeypatch):
    done: list[tuple[str, list[str]]] = []

    def synced(path):
        done.append((path.name[:1], [each.suffix for each in (bench.environments.folder / "bundles/found").iterdir()]))

    monkeypatch.setattr(bundling.files, "sync", synced)
    monkeypatch.setattr(bundling.files, "sync_folder", synced)
    await bench.bundle()
    assert done == [(".", [".new"]), ("f", [".toml"])]


async def test_nothing_is_not_kept(bench):
    """Markers may leave a target without packages; what was found by mistake must not stay so for ever."""
    bench.builder.has["3.11"], one = {}, bench.builder.has["3.11"]
    assert list(await bench.bundle()) == [HERE.file]
    bench.builder.has["3.11"] = one
    assert sorted(await bench.bundle()) == [HERE.file, "one-1.0-py3-none-any.whl"]
    bench.builder.has["3.11"], bench.builder.mute = {}, True
    with pytest.raises(UsageError, match="uv has written nothing of what it has found"):
        await bench.bundle(wanted=Wanted("requirements.txt", ("two",)))


async def test_what_cannot_be_fetched_is_found_again(bench):
    await bench.bundle(THERE, HERE)
    name = "one-1.0-py3-none-any.whl"
    bench.builder.has["3.12"] = {name: bench.builder.has["3.11"][name], "two-2.0-py3-none-any.whl": b"two"}
    bench.builder.promised["two-2.0-py3-none-any.whl"] = "0" * 64
    with pytest.raises(UsageError, match="not what its index promised"):
        await bench.bundle(HERE, THERE)
    bench.builder.promised.clear()
    assert "two-2.0-py3-none-any.whl" in await bench.bundle(HERE, THERE)
    pythons = [argv[argv.index("--python-version") + 1] for argv in bench.builder.calls]
    assert pythons == ["3.12", "3.11", "3.12", "3.12"], "what the others were found is as good as before"


async def test_afterwards_what_is_kept_is_in_use_no_longer(bench):
    await bench.bundle()
    assert bench.environments._running == 0


async def test_who_cannot_have_it_is_named_and_the_others_have_it(bench):
    found = await bench.bundle(ODD, HERE, THERE)
    assert HERE.file in found
    assert THERE.file not in found
    nothing = [said for said in bench.said if "nothing for" in said]
    assert nothing == [
        f"bundle: nothing for {ODD} (ann, bob): uv knows no wheels for plan9 mips",
        f"bundle: nothing for {THERE} (ann, bob): environment of requirements.txt: x does not answer; no such package",
    ]


@pytest.mark.parametrize("wanted", [ONE, Wanted("main.py", ("one",), python=">=3.12")])
async def test_where_nobody_can_have_it_that_is_said(bench, wanted):
    bench.builder.failure = "no such package"
    said = r"--bundle: (environment of requirements\.txt: x does not answer; no such package|main\.py wants Python >=3\.12)"
    with pytest.raises(UsageError, match=said):
        await bench.bundle(wanted=wanted)
    assert list((bench.environments.folder / "bundles/wheels").iterdir()) == []


async def test_what_is_not_what_was_promised_is_not_taken(bench):
    bench.builder.promised["one-1.0-py3-none-any.whl"] = "0" * 64
    with pytest.raises(UsageError, match="not what its index promised"):
        await bench.bundle()


async def test_wheels_of_one_name_that_differ_are_refused(bench):
    bench.builder.has["3.12"] = {"one-1.0-py3-none-any.whl": b"another"}
    with pytest.raises(UsageError, match=r"one-1\.0-py3-none-any\.whl differs between indexes"):
        await bench.bundle(HERE, THERE)


async def test_too_much_is_refused_and_what_others_needed_makes_room(bench):
    await bench.bundle()
    bench.builder.settings = EnvironmentSettings(disk_mb=1, quota_mb=1)
    bench.builder.has["3.11"] = {"big-1.0-py3-none-any.whl": bytes(2 << 20)}
    with pytest.raises(UsageError, match="the wheels take 2 MiB, more than the 1 MiB"):
        await bench.bundle(wanted=Wanted("requirements.txt", ("big",)))
    kept = [path.stat().st_size for path in (bench.environments.folder / "bundles/wheels").iterdir()]
    assert kept == [2 << 20]


async def test_a_node_that_builds_nothing_says_why(bench):
    bench.environments.problem = "uv is not installed here"
    with pytest.raises(UsageError, match="--bundle: uv is not installed here"):
        await bench.bundle()


async def test_one_is_made_at_a_time(bench):
    first = bench.bundler.bundled(ONE, {HERE: ("ann",)}, bench.say)
    folder = await first.__aenter__()
    second = asyncio.ensure_future(bench.bundle())  # noqa: TID251
    await asyncio.sleep(0)
    assert folder.exists()
    await first.__aexit__(None, None, None)
    assert HERE.file in await second
