"""How attempts are launched: what is the same for all of a job, and what is each one's own."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import pytest
from msgspec import UNSET

from p2pq.core.events import Started
from p2pq.daemon import gpus, room
from p2pq.daemon import launching as module
from p2pq.daemon.blobstore import BlobStore
from p2pq.daemon.jobpython import JobPython
from p2pq.daemon.launches import Hooks
from p2pq.daemon.launching import OWN_COMMANDS, Guest, Launching, pin_tag
from p2pq.errors import RefusedError
from p2pq.model.config import RunnerSettings
from p2pq.model.ids import JobId, LeaseId, NodeId, to_text
from p2pq.model.job import Limits, Resources
from p2pq.model.sources import Source
from p2pq.wire.body import CommandsBody, JobBody
from p2pq.wire.feed import Feed
from p2pq.wire.tree import Tree, convergent, seal_chunk
from tests.unit.daemon.guestkit import start_of

ME, JOB = NodeId(b"m" * 32), JobId(b"j" * 16)
COMMANDS = CommandsBody(
    words=("env", "{}"),
    sources=(Source(values=("a b", "c")),),
    cwd="/tmp",
    environment=b"PATH=/bin\0P2PQ_TASK=old",
    umask=0o27,
)


def with_gpus(tmp_path: Path, *gpus: int) -> Launching:
    return Launching(
        name="here",
        python=JobPython(executable=Path("/usr/bin/python3"), prefixes=(), version="3"),
        blobs=BlobStore(tmp_path / "blobs", quota_bytes=1 << 30, reserve_bytes=0),
        settings=RunnerSettings(),
        memory_mb=64,
        has=gpus,
    )


@pytest.fixture
def launching(tmp_path: Path) -> Launching:
    return with_gpus(tmp_path)


def guest(task: int) -> Guest:
    return Guest(start_of(master=ME, lease=LeaseId(1, task), job=JOB, task=task, tasks=2, own=True, sandbox="none"))


async def test_a_train_has_one_environment_and_what_differs(launching: Launching):
    guests, told = [guest(0), guest(1)], []
    train = launching.train(guests, COMMANDS, told.append)
    common = train.common
    assert (common.level, common.cwd, common.umask, common.whole_env) == ("none", "/tmp", 0o27, True)
    assert (common.job, common.limits.memory_bytes, common.populate) == (OWN_COMMANDS, None, None)
    assert common.stdin is None
    assert common.env["PATH"] == "/bin"
    assert [each.lease for each in train.passengers] == [each.name for each in guests]
    assert [each.argv for each in train.passengers] == [("env", "a b"), ("env", "c")]
    assert [each.otherwise for each in train.passengers] == [
        ("/bin/sh", "-c", "env 'a b'"),
        ("/bin/sh", "-c", "env c"),
    ]
    own = [common.env | each.env for each in train.passengers]
    assert [(each["P2PQ_TASK"], each["P2PQ_TASKS"], each["P2PQ_JOB"]) for each in own] == [
        ("0", "2", to_text(JOB)),
        ("1", "2", to_text(JOB)),
    ]
    train.on_started(1, Path("out"), Path("err"))
    assert (guests[1].stdout, guests[1].stderr, guests[0].stdout) == (Path("out"), Path("err"), None)
    assert told == [Started(lease=LeaseId(1, 1), master=ME)]


async def test_a_command_reads_its_part_of_the_standard_input(launching: Launching, tmp_path: Path):
    chunk, ciphertext = seal_chunk(b"abc", convergent(b"s" * 32))
    launching._blobs.put(chunk.blob, ciphertext)
    launch = launching.commands(
        guest(1), CommandsBody(words=("cat",), shell=False, cwd="/", stdin=Feed((1, 2), (chunk,)))
    )
    assert launch.stdin is not None
    launch.stdin(tmp_path / "stdin")
    assert (launch.argv, (tmp_path / "stdin").read_bytes()) == (("cat",), b"bc")


async def test_limits_of_guests_are_those_of_this_node_where_they_are_lower(launching: Launching):
    own = launching.limits(guest(0).start)
    other = launching.limits(start_of(master=ME, lease=LeaseId(1, 1), job=JOB))
    assert own.wall_s >= other.wall_s
    assert own.memory_bytes == other.memory_bytes == 64 << 20
    assert isinstance(guest(0).over, asyncio.Event)


@pytest.mark.parametrize(("sandbox", "processes"), [("strict", 1 << 16), ("basic", 1024), ("none", 1 << 16)])
async def test_the_weaker_sandbox_holds_fewer_processes(launching: Launching, sandbox: str, processes: int):
    asked = start_of(master=ME, lease=LeaseId(1, 1), job=JOB, sandbox=sandbox, limits=Limits(processes=1 << 16))
    assert launching.limits(asked).processes == processes
    assert launching.limits(msgspec.structs.replace(asked, limits=Limits(processes=7))).processes == 7


def test_what_holds_blobs_is_named_by_master_and_lease():
    assert pin_tag(ME, LeaseId(1, 2)) != pin_tag(NodeId(b"n" * 32), LeaseId(1, 2))
    assert pin_tag(ME, LeaseId(1, 2)) != pin_tag(ME, LeaseId(1, 3))


@pytest.mark.parametrize(("sandbox", "bound"), [("strict", True), ("basic", True), ("none", False)])
async def test_a_task_has_its_own_gpus_and_nobody_else_s(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sandbox: str, bound: bool
):
    real = gpus.mounts
    for name in ("nvidia0", "nvidia1", "nvidiactl"):
        (tmp_path / name).touch()
    monkeypatch.setattr(gpus, "mounts", lambda has: real(has, tmp_path))
    launching = with_gpus(tmp_path, 0, 1)
    job = JobBody(main="main.sh", kind="shell", tree=Tree())
    seen = []
    for number, count in enumerate((1, 1, 0)):
        start = start_of(
            master=ME, lease=LeaseId(1, number), job=JOB, sandbox=sandbox, own=True, resources=Resources(gpus=count)
        )
        seen.append(start)
    async with (
        launching.alone(Guest(seen[0]), job, None) as first,
        launching.alone(Guest(seen[1]), job, None) as second,
        launching.alone(Guest(seen[2]), job, None) as third,
    ):
        for at, (launch, has) in enumerate(((first, "0"), (second, "1"), (third, ""))):
            folder = tmp_path / f"job {at}"
            folder.mkdir()
            launch.furniture.write(folder)
            launch.populate(folder)
            assert launch.env["CUDA_VISIBLE_DEVICES"] == launch.env["HIP_VISIBLE_DEVICES"] == has
            names = [f"/dev/nvidia{has}", "/dev/nvidiactl"] if has and bound else []
            assert [mount.inside for mount in launch.mounts] == names
            assert launch.level == sandbox
    with pytest.raises(RefusedError):
        async with launching.alone(
            Guest(start_of(master=ME, lease=LeaseId(1, 9), job=JOB, resources=Resources(gpus=3))), job, None
        ):
            pytest.fail("it was given them")


async def test_commands_see_the_gpus_that_their_user_sees_unless_they_ask(tmp_path):
    launching = with_gpus(tmp_path, 4)
    job = CommandsBody(words=("true",), cwd="/", environment=b"CUDA_VISIBLE_DEVICES=1\0")
    for count, seen in ((0, "1"), (1, "4")):
        start = start_of(
            master=ME, lease=LeaseId(1, 0), job=JOB, sandbox="none", own=True, resources=Resources(gpus=count)
        )
        async with launching.alone(Guest(start), job, None) as launch:
            assert launch.env["CUDA_VISIBLE_DEVICES"] == seen


def test_what_runs_before_and_after_tasks_makes_runners_the_job_s_own(launching: Launching):
    plain, hooked = (msgspec.structs.replace(COMMANDS, begin=begin) for begin in (UNSET, "true"))
    assert (launching.commands(guest(0), plain).hooks, launching.commands(guest(0), plain).job) == (None, OWN_COMMANDS)
    launch = launching.commands(guest(0), hooked)
    assert (launch.hooks, launch.job) == (Hooks("true", "", "/bin/sh"), ME + JOB)
    folder = JobBody(main="main.sh", kind="shell", tree=Tree(), end="rm x")
    assert launching.job(guest(0), folder, None).hooks == Hooks("", "rm x")


async def test_another_task_may_run_before_the_results_are_packed_unless_that_takes_what_it_has(tmp_path: Path):
    """Its gpus are its own until then; and what a job begins with in a runner is for as many as there are slots."""
    launching = with_gpus(tmp_path, 0)
    job = JobBody(main="main.sh", kind="shell", tree=Tree())
    told: list[str] = []
    for body, resources, tells in (
        (job, Resources(), True),
        (job, Resources(gpus=1), False),
        (job, Resources(cpus=2), False),
        (msgspec.structs.replace(job, begin="true"), Resources(), False),
        (COMMANDS, Resources(), False),
    ):
        start = start_of(master=ME, lease=LeaseId(1, 0), job=JOB, sandbox="none", own=True, resources=resources)
        async with launching.alone(Guest(start), body, None, lambda: told.append("vacated")) as launch:
            assert (launch.on_vacated is not None) == tells
            if launch.on_vacated is not None:
                launch.on_vacated()
    assert told == ["vacated"]


def tells_claims(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return what room is claimed for from now on, and when a checkpoint is unpacked."""
    told: list[str] = []

    @contextmanager
    def claim(_folder: Path, _wanted: int, _left: int, what: str) -> Iterator[None]:
        told.append(what)
        yield

    monkeypatch.setattr(room, "claim", claim)
    monkeypatch.setattr(module, "put_in_place", lambda *_: told.append("unpacked") or True)
    return told


def test_room_is_claimed_for_what_is_written_and_no_more(
    launching: Launching, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """A folder is furnished for the next task, which may have a checkpoint where the last had none, and the other way."""
    told = tells_claims(monkeypatch)
    job = JobBody(main="main.sh", kind="shell", tree=Tree())
    launch = launching.job(guest(0), job, Tree())
    launch.furniture.write(tmp_path)
    assert told == ["the job's files"]
    launch.populate(tmp_path)
    assert told[1:] == ["the checkpoint", "unpacked"]
    assert launch.env["P2PQ_CHECKPOINT"] == f"{tmp_path}/results/.checkpoint"
    launching.job(guest(1), job, None).populate(tmp_path)
    assert len(told) == 3
