"""Gpus, with files in the place of devices: which there are, who has which, what a task is told."""

import asyncio
from pathlib import Path

import pytest

from p2pq.daemon import gpus, sandbox
from p2pq.errors import RefusedError


@pytest.fixture
def devices(tmp_path: Path) -> Path:
    folder = tmp_path / "dev"
    folder.mkdir()
    for name in ("nvidia0", "nvidia2", "nvidia10", "nvidiactl", "nvidia-uvm", "nvidia-caps", "null"):
        (folder / name).touch()
    return folder


@pytest.fixture
def smi(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def says(script: str) -> None:
        program = tmp_path / "nvidia-smi"
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(0o755)

    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    return says


def test_they_are_found_by_their_device_files(devices: Path, smi) -> None:
    smi("echo GPU 0: not asked")
    assert gpus.find(None, devices) == (0, 2, 10)


@pytest.mark.parametrize(
    ("script", "found"),
    [
        ("echo 'GPU 0: A (UUID: x)'; echo '  MIG 1'; echo 'GPU 1: B'", (0, 1)),
        ("echo no devices; exit 9", ()),
        ("exit 1", ()),
    ],
)
def test_without_device_files_the_driver_s_program_is_asked(
    tmp_path: Path, smi, script: str, found: tuple[int, ...]
) -> None:
    smi(script)
    assert gpus.find(None, tmp_path / "dev") == found


def test_without_either_there_are_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert gpus.find(None, tmp_path) == ()


@pytest.mark.parametrize(("wanted", "found"), [(0, 0), (2, 2), (1000, gpus.GPUS_MAX)])
def test_a_setting_says_how_many(devices: Path, wanted: int, found: int) -> None:
    assert gpus.find(wanted, devices) == tuple(range(found))


def test_a_task_is_told_of_its_own_only() -> None:
    assert set(gpus.variables((0, 2)).values()) == {"0,2"}
    assert gpus.variables(()) == {"CUDA_VISIBLE_DEVICES": "", "HIP_VISIBLE_DEVICES": "", "ROCR_VISIBLE_DEVICES": ""}


def test_a_sandbox_has_the_files_of_its_own_only(devices: Path) -> None:
    assert gpus.mounts((), devices) == ()
    found = gpus.mounts((2, 5), devices)  # 5 is not there: a setting said so
    assert [mount.inside for mount in found] == ["/dev/nvidia2", "/dev/nvidiactl", "/dev/nvidia-uvm"]
    assert {mount.option for mount in found} == {"--dev-bind"}
    assert sandbox.Mount(devices, "/x", writable=True).option == "--bind"


async def test_each_belongs_to_one_task_at_a_time_and_who_comes_later_waits() -> None:
    has = gpus.Gpus((0, 1, 3))
    go, order = asyncio.Event(), []

    async def task(name: str, count: int) -> None:
        async with has.assigned(count) as got:
            order.append((name, got))
            await go.wait()

    async with asyncio.TaskGroup() as group:
        group.create_task(task("a", 2))
        group.create_task(task("none", 0))
        group.create_task(task("b", 1))
        late = group.create_task(task("c", 3))
        cancelled = group.create_task(task("d", 1))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert order == [("a", (0, 1)), ("none", ()), ("b", (3,))]
        cancelled.cancel()
        go.set()
        await late
    assert order[3:] == [("c", (0, 1, 3))]
    async with has.assigned(3) as got:
        assert got == (0, 1, 3), "all were given back"


async def test_what_is_killed_gives_its_own_back() -> None:
    has = gpus.Gpus((0,))
    with pytest.raises(RuntimeError, match="killed"):
        async with has.assigned(1):
            raise RuntimeError("killed")
    async with has.assigned(1) as got:
        assert got == (0,)


async def test_more_than_there_are_is_refused() -> None:
    with pytest.raises(RefusedError, match="this node has 1 gpus, and the task asks for 2"):
        async with gpus.Gpus((0,)).assigned(2):
            pytest.fail("it was given them")
