"""Two meshes on two networks without a route between them, and one host that stands in both, with a node in each."""

import json
from pathlib import Path

import pytest

from tests.e2e import lab
from tests.netns.lan import Host, Lan, into_one_mesh, start_all
from tests.netns.test_bridge import FAR, SLEEPS, processes, values, wanted

WAIT_S = 120.0


class Meshes:
    """Mesh A has anna and one node of the gate, mesh B has dora and the other."""

    def __init__(self, lan: Lan) -> None:
        self.gate_a = lan.add("gate-a", (0, 1))
        self.anna, self.dora = lan.add("anna"), lan.add("dora", (1,))
        self.gate_b = lan.second(self.gate_a, "gate-b")
        self.a, self.b = [self.gate_a, self.anna], [self.gate_b, self.dora]
        for hosts in (self.a, self.b):
            into_one_mesh(hosts)
        self.id_a, self.id_b = (hosts[0].json("mesh")["id"] for hosts in (self.a, self.b))

    def peer(self, tmp_path: Path) -> None:
        """Let the two admins hand each other a file."""
        offer, both = tmp_path / "a.peering", tmp_path / "both.peering"
        offer.write_text(self.gate_a.ok("mesh", "peer", "offer", self.id_b))
        assert "--from" in self.gate_b.fails(2, "mesh", "peer", "accept", str(offer))
        assert "nothing was changed" in self.gate_b.fails(4, "mesh", "peer", "accept", str(offer), "--from", self.id_b)
        assert "admin" in self.dora.fails(4, "mesh", "peer", "accept", str(offer), "--from", self.id_a)
        both.write_text(self.gate_b.ok("mesh", "peer", "accept", str(offer), "--from", self.id_a))
        self.gate_a.ok("mesh", "peer", "accept", str(both))
        for host in (self.anna, self.dora):
            lab.until(lambda host=host: states(host) == ["holds"], "it has spread")

    def allow(self, host: Host, mesh: str, more: str, **fields: bool) -> None:
        """Let a node have to do with another mesh, and start it anew."""
        said = "".join(f"{key} = true\n" for key, yes in fields.items() if yes)
        host.configure(f'{more}\n[[peer]]\nmesh = "{mesh}"\n{said}')

    def restart(self, *hosts: Host) -> None:
        for host in hosts:
            assert host.stop() == 0
        start_all([host for host in hosts if host is not self.gate_b])
        if self.gate_b in hosts:
            self.gate_b.start("--peer", self.gate_a.address)


def states(host: Host) -> list[str]:
    return [each["state"] for each in host.json("mesh", "peers")]


def owners(host: Host) -> set[str]:
    return {each["owner"] for each in host.json("status")["running"]}


@pytest.fixture
def meshes(lan: Lan) -> Meshes:
    return Meshes(lan)


def test_a_job_goes_to_another_mesh_only_where_all_agree_and_no_longer_than_they_do(
    meshes: Meshes, tmp_path: Path
) -> None:
    gate_a, gate_b, anna, dora = meshes.gate_a, meshes.gate_b, meshes.anna, meshes.dora
    bridge = "[node]\naccept = false\n[bridge]\nenabled = true"
    far = '[node]\nlabels = { far = "yes" }'
    folder = lab.make_folder(tmp_path / "job", SLEEPS)

    # All nodes but the worker agree, the admins not yet.
    meshes.allow(gate_a, meshes.id_b, bridge, bridge=True)
    meshes.allow(gate_b, meshes.id_a, bridge, bridge=True)
    meshes.allow(anna, meshes.id_b, "", offer=True)
    dora.configure(far)
    meshes.restart(gate_a, gate_b, anna, dora)
    job = anna.detach("--need", FAR, "--array", "0-3", str(folder), "1")
    lab.until(lambda: anna.up() == {"gate-a"} and dora.up() == {"gate-b"}, "each sees its own mesh", 60)
    assert gate_a.up() == {"anna"}

    # The admins agree, the worker does not.
    meshes.peer(tmp_path)
    lab.until(lambda: "gate-b" in anna.up(), "the way over the bridges stands", 60)
    assert dora.up() == {"gate-b"}
    assert [task.state for task in anna.tasks(job)] == ["pending"] * 4

    # All agree.
    meshes.allow(dora, meshes.id_a, far, accept=True)
    meshes.restart(dora)
    anna.ok("wait", job, timeout=WAIT_S)
    assert values(folder, 4) == wanted(4)
    assert {(task.node, task.via) for task in anna.tasks(job)} == {("dora@gate-b", ("gate-a", "gate-b@gate-b"))}
    [seen] = [peer for peer in anna.json("peers") if peer["name"] == "dora"]
    assert (seen["mesh"], seen["owner"].endswith("@gate-b"), seen["via"]) == (
        "gate-b",
        True,
        ["gate-a", "gate-b@gate-b"],
    )
    assert "dora" not in {each["name"] for each in anna.json("members")}

    # Whose word the results are can be told, as far as it goes.
    report = json.loads(anna.ok("verify", job, "--json"))
    assert (report["verified"], [each["mesh"] for each in report["signers"]]) == (4, ["gate-b"])
    assert "admins say who they are" in anna.ok("verify", job)

    # Either admin ends it: what runs is stopped, and nothing begins any more.
    endless = anna.detach("--need", FAR, str(folder), "600")
    lab.until(lambda: processes(endless), "it runs", 60)
    assert all(owner.endswith("@gate-a") for owner in owners(dora))
    assert "ended for good" in gate_b.ok("mesh", "peer", "end", "gate-a")
    lab.until(lambda: not processes(endless), "nothing of it runs", 20)
    for host in (gate_a, gate_b, anna, dora):
        lab.until(lambda host=host: states(host) == ["ended"], "everybody has heard of it", 90)
    lab.until(lambda: anna.up() == {"gate-a"} and dora.up() == {"gate-b"}, "each sees its own mesh again")
    meshes.restart(gate_a, gate_b, anna, dora)
    lab.until(lambda: anna.up() == {"gate-a"} and dora.up() == {"gate-b"}, "and nobody else after a restart", 60)
    assert "for good" in gate_a.fails(4, "mesh", "peer", "accept", str(tmp_path / "both.peering"))
    assert [task.state for task in anna.tasks(endless)] == ["pending"]
    assert (json.loads(anna.ok("verify", job, "--json"))["verified"], processes(endless)) == (4, [])
