"""What goes along with a folder before it is a job."""

import contextlib
import platform
from pathlib import Path

import pytest

from p2pq.core.views import PeerView
from p2pq.daemon import bundles, preparing
from p2pq.daemon.additions import Brought
from p2pq.daemon.bundles import Target
from p2pq.daemon.preparing import Packages, Preparing
from p2pq.daemon.requirements import LABEL, Wanted
from p2pq.daemon.submission import Looked, inputs_of
from p2pq.errors import RefusedError, UsageError
from p2pq.model.job import Resources
from p2pq.wire import body, sign
from p2pq.wire.body import JobBody
from p2pq.wire.control import Note, Submit
from p2pq.wire.objects import Manifest
from tests.unit.daemon.jobskit import AUTHOR

HERE = Target("3.11", "linux", "x86_64")


class Bundler:
    """Has an empty bundle."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()
        (folder / HERE.file).write_bytes(bundles.listed([]))
        self.asked: list[tuple[object, ...]] = []

    @contextlib.asynccontextmanager
    async def bundled(self, wanted, targets, say):
        self.asked.append((wanted.lines, targets))
        await say("bundle: ready")
        yield self.folder


class Freezer:
    """Has a program that it did not make."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()
        (folder / "main").write_text("ELF")
        (folder / "main").chmod(0o755)
        (folder / "_internal").mkdir()
        (folder / "_internal/.gitignore").write_text("*\n")
        (folder / "_internal/libpython.so").write_text("")
        self.asked: list[Looked] = []

    @contextlib.asynccontextmanager
    async def frozen(self, _folder, looked, say):
        self.asked.append(looked)
        await say("freeze: ready")
        yield Brought(self.folder, ".p2pq/frozen", "main")


class Bench:
    def __init__(self, rig, path: Path) -> None:
        self.blobs = rig.blobs
        self.bundler = Bundler(path / "bundle")
        self.freezer = Freezer(path / "frozen")
        targets = lambda resources, only: {HERE: (resources.needs, only)}  # noqa: E731
        packages = Packages(self.bundler, self.freezer, targets)  # type: ignore[arg-type]
        self.preparing = Preparing(AUTHOR, rig.store, rig.blobs, packages)
        self.without = Preparing(AUTHOR, rig.store, rig.blobs, None)
        self.folder = path / "job"
        self.folder.mkdir()
        (self.folder / "main.py").write_text("")
        self.heard: list[object] = []

    async def send(self, reply) -> None:
        self.heard.append(reply)

    async def prepare(self, by: Preparing | None = None, only: bytes = b"", **options):
        request = Submit(folder=str(self.folder), **options)
        prepared = await (by or self.preparing).prepare(request, only, f"{self.folder}/results", self.send)
        manifest = sign.open_signed(prepared.manifest, Manifest, AUTHOR.node)
        parts = {ref.blob: self.blobs.get(ref.blob) for ref in manifest.body}
        return manifest, body.decrypt(prepared.key, manifest.body, parts, JobBody)


@pytest.fixture
def bench(rig, tmp_path):
    return Bench(rig, tmp_path)


async def test_without_a_bundle_a_job_is_its_folder(bench):
    _, job = await bench.prepare(by=bench.without)
    assert [file.path for file in job.tree.files] == ["main.py"]
    assert bench.heard == []


async def test_a_bundle_goes_along_for_those_that_may_run_the_job(bench):
    (bench.folder / "requirements.txt").write_text("one\n")
    own = bench.folder / bundles.FOLDER
    own.mkdir(parents=True)
    (own / "stale.whl").write_text("")
    resources = Resources(needs=(("arch", "x86_64"),))
    manifest, job = await bench.prepare(env="bundle", resources=resources, only=AUTHOR.node)
    assert [file.path for file in job.tree.files] == [f".p2pq/bundle/{HERE.file}", "main.py", "requirements.txt"]
    assert manifest.resources.needs == (("arch", "x86_64"), LABEL)
    assert bench.bundler.asked == [(("one",), {HERE: (resources.needs, AUTHOR.node)})]
    assert bench.heard == [Note(text="bundle: ready")]
    assert [file.path for file in bundles.own_files(job.tree).files] == ["main.py", "requirements.txt"]
    (bench.bundler.folder / "cp312-linux-aarch64.json").write_bytes(bundles.listed([]))
    _, other = await bench.prepare(env="bundle")
    assert len(other.tree.files) == len(job.tree.files) + 1
    assert inputs_of(other) == inputs_of(job), "for --resume it does not matter who takes part"


async def test_a_program_goes_along_and_is_what_runs_on_machines_of_its_kind(bench):
    (bench.folder / "requirements.txt").write_text("one\n")
    manifest, job = await bench.prepare(env="freeze", args=("1",), resources=Resources(needs=(("os", "mine"),)))
    assert (job.kind, job.main, job.args) == ("command", ".p2pq/frozen/main", ("1",))
    assert [file.path for file in job.tree.files if file.executable] == [".p2pq/frozen/main"]
    assert ".p2pq/frozen/_internal/libpython.so" in [file.path for file in job.tree.files]
    assert manifest.resources.needs == (("os", "mine"), ("arch", platform.machine()))
    assert bench.freezer.asked == [
        Looked("main.py", ("main.py", "requirements.txt"), Wanted("requirements.txt", ("one",)))
    ]
    manifest, _ = await bench.prepare(env="freeze")
    assert manifest.resources.needs == (("os", platform.system().lower()), ("arch", platform.machine()))


async def test_there_must_be_packages_and_somebody_who_bundles_them(bench):
    with pytest.raises(UsageError, match="the folder asks for no packages"):
        await bench.prepare(env="bundle")
    with pytest.raises(RefusedError, match="without --bundle and --freeze"):
        await bench.prepare(by=bench.without, env="bundle")


def test_bundles_are_for_this_node_and_its_peers(tmp_path):
    class Scheduler:
        me = AUTHOR.node

        def name_of(self, _node):
            return "home"

        def peers(self) -> tuple[PeerView, ...]:
            return ()

    class Environments:
        folder = tmp_path
        target = HERE

    packages = preparing.packages(Environments(), Scheduler())  # type: ignore[arg-type]
    assert packages.targets(Resources(), b"") == {HERE: ("home",)}
    assert packages.targets(Resources(), b"x" * 32) == {}
