"""Environments of a node: built once however many wait, kept within a quota, never taken from who uses one."""

import asyncio
import json
import os
from pathlib import Path

import pytest

from p2pq.daemon import building, bundles, environments, indexes
from p2pq.daemon.blobstore import BlobStore
from p2pq.daemon.building import Bring
from p2pq.daemon.bundles import Source, Target, Wheel
from p2pq.daemon.environments import Environments, Order
from p2pq.daemon.home import Home
from p2pq.daemon.jobpython import JobPython
from p2pq.daemon.requirements import LABEL, Wanted
from p2pq.daemon.unpack import collect
from p2pq.errors import BuildError, DiskFullError, RefusedError
from p2pq.model.config import EnvironmentSettings
from p2pq.model.ids import JobId, LeaseId, NodeId
from p2pq.model.job import Resources
from p2pq.wire.body import CommandsBody, JobBody
from p2pq.wire.tree import TreeLimits
from tests.unit.daemon.guestkit import start_of

MB = 1 << 20
ONE, TWO = Wanted("requirements.txt", ("one",)), Wanted("requirements.txt", ("two",))

PYTHON = JobPython(executable=Path("/usr/bin/python3"), prefixes=(Path("/opt/x"),), version="3.11.2")


class Pool:
    python = PYTHON


class Builder:
    """Builds nothing but folders of a size, when it is let."""

    def __init__(self) -> None:
        self.index = indexes.Index()
        self.asked: list[tuple[str, bool]] = []
        self.bytes = MB
        self.brought: dict[str, bytes] = {}
        self.failure: Exception | None = None
        self.go_on = asyncio.Event()
        self.go_on.set()
        self.began = asyncio.Event()

    async def build(self, wanted: Wanted, target: Path, socket: Path, *, idle: bool, bring: Bring | None) -> int:
        self.asked.append((wanted.lines[0], idle))
        assert len(os.fsencode(socket)) < 108
        self.began.set()
        await self.go_on.wait()
        if bring is not None:
            place = target.parent / "brought"
            await asyncio.to_thread(bring, place)
            self.brought = {path.name: path.read_bytes() for path in place.iterdir()}
        if self.failure is not None:
            raise self.failure
        make(target, self.bytes)
        return self.bytes


def make(target: Path, size: int) -> None:
    (target / building.MADE).mkdir(parents=True)
    (target / building.ABOUT).write_text(json.dumps({"v": 1, "bytes": size, "source": "x"}))


class Bench:
    def __init__(self, path: Path, tasks: asyncio.TaskGroup, **settings: object) -> None:
        self.home = Home.open(path / "home", environ={"P2PQ_ALLOW_ROOT": "1"})
        self.blobs = BlobStore(self.home.blobs, quota_bytes=1 << 30, reserve_bytes=0)
        self.tasks = tasks
        self.settings = EnvironmentSettings(**{"quota_mb": 3, **settings})  # type: ignore[arg-type]
        self.builder = Builder()

    async def begin(self, uv: Path | None = Path("/usr/bin/uv")) -> Environments:
        found = Environments(
            self.home,
            self.settings,
            pool=Pool(),  # type: ignore[arg-type]
            blobs=self.blobs,
            tasks=self.tasks,
            memory_mb=64,
            environ={"HOME": str(self.home.path)},
            uv=uv,
        )
        await found.start()
        if found._builder is not None:
            found._builder = self.builder  # type: ignore[assignment]
        return found


@pytest.fixture
async def bench(tmp_path):
    async with asyncio.TaskGroup() as tasks:
        yield Bench(tmp_path, tasks)


async def test_ten_at_once_build_once(bench):
    cache = await bench.begin()
    bench.builder.go_on.clear()
    async with asyncio.TaskGroup() as group:
        waiting = [group.create_task(cache.get(Order("a", ONE), idle=True)) for _ in range(10)]
        await bench.builder.began.wait()
        bench.builder.go_on.set()
    found = {task.result() for task in waiting}
    assert bench.builder.asked == [("one", True)]
    assert len(found) == 1
    [environment] = found
    assert environment.users == 10
    assert (await cache.get(Order("a", ONE))) is environment
    assert (len(cache), cache.used_bytes, bench.builder.asked) == (1, MB, [("one", True)])


async def test_the_least_recently_used_that_nobody_needs_go(bench):
    cache = await bench.begin()
    kept = [await cache.get(Order(name, ONE)) for name in ("a", "b", "c")]
    for each in kept:
        each.let_go()
    (await cache.get(Order("a", ONE))).let_go()
    assert len(bench.builder.asked) == 3
    (await cache.get(Order("d", ONE))).let_go()
    built = bench.home.environments / "built"
    assert {path.name for path in built.iterdir()} == {"a", "c", "d"}
    kept[2].hold()
    bench.builder.bytes = 3 * MB
    await cache.get(Order("e", ONE))
    assert {path.name for path in built.iterdir()} == {"c", "e"}, "one in use stays, whatever the quota says"
    assert cache.used_bytes == 4 * MB


async def test_what_a_runner_needs_stays_until_it_is_dead(bench):
    cache = await bench.begin()
    found = await cache.get(Order("a", ONE))
    dead = asyncio.get_running_loop().create_future()
    found.hold_until(dead)
    found.let_go()
    assert found.users == 1
    dead.set_result(None)
    await asyncio.sleep(0)
    assert found.users == 0


async def test_what_is_kept_for_further_builds_has_its_part_of_the_quota(bench):
    cache = await bench.begin()
    wheels = bench.home.environments / "wheels"
    (wheels / "small").write_bytes(b"x" * (MB // 2))
    (await cache.get(Order("a", ONE))).let_go()
    assert (wheels / "small").exists()
    assert cache.used_bytes > MB + MB // 2
    (wheels / "large").write_bytes(b"x" * MB)
    (await cache.get(Order("b", ONE))).let_go()
    assert list(wheels.iterdir()) == []
    assert cache.used_bytes == 2 * MB


async def test_what_is_kept_for_further_builds_is_not_taken_from_one_that_runs(bench):
    cache = await bench.begin()
    large = bench.home.environments / "wheels/large"
    large.write_bytes(b"x" * MB)
    with cache.running():
        (await cache.get(Order("a", ONE))).let_go()
    assert large.exists()
    (await cache.get(Order("b", ONE))).let_go()
    assert not large.exists()


async def test_a_failure_is_told_to_all_who_wait_and_not_tried_again_for_a_moment(bench, monkeypatch):
    cache = await bench.begin()
    bench.builder.failure = BuildError("environment of x: there is no such package")
    results = await asyncio.gather(*(cache.get(Order("a", ONE)) for _ in range(3)), return_exceptions=True)  # noqa: TID251
    assert [str(each) for each in results] == ["environment of x: there is no such package"] * 3
    with pytest.raises(BuildError, match="no such package"):
        await cache.get(Order("a", ONE))
    assert len(bench.builder.asked) == 1
    monkeypatch.setattr(environments.time, "monotonic", lambda: 1e12)
    bench.builder.failure = DiskFullError("full")
    with pytest.raises(DiskFullError):
        await cache.get(Order("a", ONE))
    bench.builder.failure = None
    await cache.get(Order("a", ONE))
    assert len(bench.builder.asked) == 3, "what is no failure of the build is tried again at once"


async def test_what_nobody_waits_for_any_more_is_not_built(bench):
    cache = await bench.begin()
    bench.builder.go_on.clear()
    waiting = asyncio.ensure_future(cache.get(Order("a", ONE)))  # noqa: TID251
    await bench.builder.began.wait()
    waiting.cancel()
    await asyncio.wait([waiting])
    bench.builder.go_on.set()
    found = await cache.get(Order("a", ONE))
    assert (found.users, len(bench.builder.asked)) == (1, 2)


async def test_a_stop_ends_builds(bench):
    cache = await bench.begin()
    bench.builder.go_on.clear()
    waiting = asyncio.ensure_future(cache.get(Order("a", ONE)))  # noqa: TID251
    await bench.builder.began.wait()
    await cache.close()
    await asyncio.wait([waiting])
    assert waiting.cancelled()


async def test_a_later_life_finds_them_in_order_and_deletes_what_is_not_whole(bench):
    built = bench.home.environments / "built"
    for number, name in enumerate(("b", "a", "c")):
        make(built / name, MB)
        os.utime(built / name / building.ABOUT, (number, number))
    make(built / ".d.new", MB)
    (built / "e").mkdir()
    (built / "e" / building.ABOUT).write_text("[]")
    cache = await bench.begin()
    assert {path.name for path in built.iterdir()} == {"a", "b", "c"}
    (await cache.get(Order("b", ONE))).let_go()
    assert bench.builder.asked == []
    (await cache.get(Order("d", ONE))).let_go()
    assert {path.name for path in built.iterdir()} == {"b", "c", "d"}


async def test_another_python_than_it_wants(bench):
    cache = await bench.begin()
    with pytest.raises(BuildError, match=r"of main.py: it wants Python >=3.13, and jobs have 3.11.2 here"):
        await cache.get(Order("a", Wanted("main.py", ("one",), python=">=3.13")))
    assert bench.builder.asked == []


async def test_a_node_that_can_build_nothing_says_why(bench, monkeypatch):
    monkeypatch.setattr(environments, "find_uv", lambda: None)
    cache = await bench.begin(None)
    finding = await cache.finding()
    assert (finding.ok, cache.problem) == (False, "uv is not installed here")
    assert "pip install uv" in finding.suggestion
    with pytest.raises(BuildError, match=r"this node can build none .uv is not installed here."):
        await cache.get(Order("a", ONE))
    bench.settings = EnvironmentSettings(index="https://u:p@host/simple")
    cache = await bench.begin()
    finding = await cache.finding()
    assert finding.ok
    assert "takes a password" in finding.detail


async def test_an_index_that_does_not_answer_is_named(bench, unused_tcp_port):
    cache = await bench.begin()
    bench.builder.index = indexes.Index(url=f"http://127.0.0.1:{unused_tcp_port}/simple")
    assert "127.0.0.1 does not answer" in (await cache.finding()).detail
    async with await asyncio.start_server(lambda _reader, writer: writer.close(), "127.0.0.1", unused_tcp_port):
        finding = await cache.finding()
    assert finding.detail.startswith(f"packages come from http://127.0.0.1:{unused_tcp_port}/simple; 0 in ")
    assert "of at most 3 MiB" in finding.detail
    bench.builder.index = indexes.Index(url="")
    assert (await cache.finding()).detail.startswith("packages come from no index, only folders")


def job_of(bench: Bench, path: Path, files: dict[str, str], main: str = "main.py") -> JobBody:
    path.mkdir(exist_ok=True)
    for name, text in files.items():
        (path / name).write_text(text)
    tree, _ = collect(path, TreeLimits(), bench.blobs.put, lambda _: os.urandom(32))
    return JobBody(main=main, kind="python", tree=tree)


async def test_what_a_task_asks_for_is_read_from_the_files_of_its_job_once(bench, tmp_path):
    cache = await bench.begin()
    job = job_of(bench, tmp_path / "job", {"main.py": "", "requirements.txt": "one"})
    fields = {"master": NodeId(b"m" * 32), "lease": LeaseId(1, 1), "job": JobId(b"j" * 16)}
    needing = start_of(**fields, resources=Resources(needs=(LABEL,)))
    assert await cache.of_task(start_of(**fields), job) is None
    assert await cache.of_task(needing, CommandsBody(cwd="/")) is None
    found = await cache.of_task(needing, job)
    assert found is not None
    assert (found.users, found.name) == (1, cache.order(ONE).name)
    reads: list[bytes] = []
    bench.blobs.get = reads.append
    assert await cache.of_task(needing, job) is found
    assert reads == []
    assert found.python(PYTHON, strict=True) == JobPython(
        executable=Path("/p2pq-env/bin/python"), prefixes=PYTHON.prefixes, version=PYTHON.version
    )
    assert found.python(PYTHON, strict=False).executable == found.folder / "env/bin/python"


async def test_a_job_that_asks_for_nothing_or_for_what_cannot_be(bench, tmp_path):
    cache = await bench.begin()
    fields = {"master": NodeId(b"m" * 32), "lease": LeaseId(1, 1), "resources": Resources(needs=(LABEL,))}
    plain = job_of(bench, tmp_path / "plain", {"main.py": ""})
    assert await cache.of_task(start_of(**fields, job=JobId(b"a" * 16)), plain) is None
    hostile = job_of(bench, tmp_path / "hostile", {"main.py": "", "requirements.txt": "-e /etc"})
    with pytest.raises(RefusedError, match="-e is not supported"):
        await cache.of_task(start_of(**fields, job=JobId(b"b" * 16)), hostile)
    assert bench.builder.asked == []


async def test_a_job_that_brings_its_packages_asks_no_index(bench, tmp_path):
    cache = await bench.begin()
    wheel = Wheel("one", "1.0", "one-1.0-py3-none-any.whl", "1" * 64)
    folder = tmp_path / "brings"
    (folder / bundles.FOLDER).mkdir(parents=True)
    (folder / bundles.FOLDER / wheel.file).write_bytes(b"a wheel")
    (folder / bundles.FOLDER / cache.target.file).write_bytes(bundles.listed([Source(wheel, "https://x", 0)]))
    job = job_of(bench, folder, {"main.py": "", "requirements.txt": "one"})
    needing = {"master": NodeId(b"m" * 32), "lease": LeaseId(1, 1), "resources": Resources(needs=(LABEL,))}
    found = await cache.of_task(start_of(**needing, job=JobId(b"a" * 16)), job)
    assert found is not None
    assert bench.builder.asked == [(f"one==1.0 --hash=sha256:{'1' * 64}", True)]
    assert bench.builder.brought == {wheel.file: b"a wheel"}
    bench.builder.index = indexes.Index(url="https://other.example")
    assert await cache.of_task(start_of(**needing, job=JobId(b"b" * 16)), job) is found, "whatever the index"
    (tmp_path / "other" / bundles.FOLDER).mkdir(parents=True)
    (tmp_path / "other" / bundles.FOLDER / Target("3.9", "linux", "x86_64").file).write_bytes(bundles.listed([]))
    other = job_of(bench, tmp_path / "other", {})
    with pytest.raises(RefusedError, match="brings its packages along"):
        await cache.of_task(start_of(**needing, job=JobId(b"c" * 16)), other)


def order_of(bench: Bench, path: Path, content: bytes) -> Order:
    path.mkdir()
    (path / "one-1.0-py3-none-any.whl").write_bytes(content)
    tree, _ = collect(path, TreeLimits(), bench.blobs.put, lambda _: bytes(32))
    return Order("a", ONE, bundles.Brought(tree))


def hashes_checked(bench: Bench, monkeypatch) -> None:
    """Let the builder fail for wheels that are garbage, as uv would."""
    build = bench.builder.build

    async def checked(wanted, target, socket, *, idle, bring):
        def look(place: Path) -> None:
            bring(place)
            content = next(place.iterdir()).read_bytes()
            for each in place.iterdir():
                each.unlink()
            place.rmdir()
            bench.builder.failure = BuildError("hash mismatch") if content == b"garbage" else None
            place.mkdir()

        return await build(wanted, target, socket, idle=idle, bring=look)

    monkeypatch.setattr(bench.builder, "build", checked)


async def test_garbage_that_one_job_brings_is_a_failure_of_that_job_only(bench, tmp_path, monkeypatch):
    cache = await bench.begin()
    hashes_checked(bench, monkeypatch)
    hostile, honest = order_of(bench, tmp_path / "x", b"garbage"), order_of(bench, tmp_path / "y", b"a wheel")
    with pytest.raises(BuildError, match="hash mismatch"):
        await cache.get(hostile)
    found = await cache.get(honest)
    assert found.users == 1
    assert await cache.get(hostile) is found, "what was built right is for all who want it, whatever they have brought"
    assert len(bench.builder.asked) == 2


async def test_who_waits_behind_garbage_builds_of_what_it_has_brought(bench, tmp_path, monkeypatch):
    cache = await bench.begin()
    hashes_checked(bench, monkeypatch)
    orders = [order_of(bench, tmp_path / str(n), each) for n, each in enumerate((b"garbage", b"a wheel", b"a wheel "))]
    bench.builder.go_on.clear()
    async with asyncio.TaskGroup() as group:
        first = group.create_task(asyncio.wait([asyncio.ensure_future(cache.get(orders[0]))]))  # noqa: TID251
        others = [group.create_task(cache.get(order)) for order in (*orders[1:], orders[1])]
        await bench.builder.began.wait()
        bench.builder.go_on.set()
    [failed] = first.result()[0]
    assert str(failed.exception()) == "hash mismatch"
    assert len({task.result() for task in others}) == 1
    assert others[0].result().users == 3
    assert len(bench.builder.asked) == 2, "one after the other, and the third has what the second has made"
    assert cache._builds == {}


async def test_a_name_is_that_of_the_python_and_the_index_as_well(bench):
    cache = await bench.begin()
    names = {cache.order(ONE).name, cache.order(TWO).name}
    bench.builder.index = indexes.Index(url="https://other.example")
    names.add(cache.order(ONE).name)
    assert len(names) == 3


def test_uv_comes_with_p2pq(tmp_path, monkeypatch):
    found = environments.find_uv()
    assert found is not None
    assert os.access(found, os.X_OK)
    monkeypatch.setattr(environments.sysconfig, "get_path", lambda _: str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    assert environments.find_uv() is None
