"""Control groups, on a folder that looks like a delegated one."""

import os
from pathlib import Path

import pytest

from p2pq.daemon.cgroups import Cgroups, Group


def fake(tmp_path: Path, *, controllers: str = "cpu memory pids", procs: str = "") -> tuple[Path, Path]:
    """Write what the kernel would show to a service with a group of its own."""
    membership = tmp_path / "membership"
    membership.write_text("4:memory:/x\n0::/user.slice/p2pq.service\n")
    own = tmp_path / "mount" / "user.slice" / "p2pq.service"
    own.mkdir(parents=True)
    (own / "cgroup.controllers").write_text(controllers)
    (own / "cgroup.procs").write_text(procs or f"{os.getpid()}\n")
    (own / "cgroup.subtree_control").write_text("")
    return membership, own


def test_a_delegated_group_is_taken_over_and_divided(tmp_path: Path) -> None:
    membership, own = fake(tmp_path)
    cgroups = Cgroups.open(membership, tmp_path / "mount")
    assert cgroups is not None
    assert (own / "p2pq-daemon" / "cgroup.procs").read_text() == str(os.getpid())
    assert (own / "cgroup.subtree_control").read_text() == "+memory +pids"
    group = cgroups.create("a1", 100 << 20, 10)
    group.add(77)
    made = own / "p2pq-a1"
    assert (made / "memory.max").read_text() == str(164 << 20)
    assert (made / "memory.swap.max").read_text() == "0"
    assert (made / "pids.max").read_text() == "14"
    assert (made / "cgroup.procs").read_text() == "77"
    assert group.oom_kills() == 0
    (made / "memory.events").write_text("low 0\noom 3\noom_kill 2\noom_group_kill 0\n")
    assert group.oom_kills() == 2
    cgroups.create("a2", None, 10)
    assert not (own / "p2pq-a2" / "memory.max").exists()
    with pytest.raises(FileExistsError):
        cgroups.create("a2", None, 10)


@pytest.mark.parametrize("changes", [{"controllers": "cpu"}, {"procs": "1\n2\n"}], ids=["no controller", "not alone"])
def test_a_group_that_is_not_ours_is_left_alone(tmp_path: Path, changes: dict[str, str]) -> None:
    membership, own = fake(tmp_path, **changes)
    before = sorted(own.iterdir())
    assert Cgroups.open(membership, tmp_path / "mount") is None
    assert sorted(own.iterdir()) == before
    assert (own / "cgroup.subtree_control").read_text() == ""


@pytest.mark.parametrize("text", ["", "0::/\n", "4:memory:/x\n", "0::/missing\n"])
def test_without_a_group_there_is_none(tmp_path: Path, text: str) -> None:
    (tmp_path / "membership").write_text(text)
    assert Cgroups.open(tmp_path / "membership", tmp_path) is None
    assert Cgroups.open(tmp_path / "no file", tmp_path) is None


def test_removing_deletes_the_folder(tmp_path: Path) -> None:
    folder = tmp_path / "group"
    folder.mkdir()
    Group(folder / "gone").remove()
    (folder / "x").touch()
    Group(folder).remove()
    assert (folder / "cgroup.kill").read_text() == "1"
    assert folder.exists()  # busy: left to the service manager
