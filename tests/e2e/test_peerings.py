"""Commands about other meshes, each option by its effect. Over bridges: tests/netns/test_peering.py."""

import lab
import pytest

from tests.covers import covers

JOB = "import os; open(os.environ['P2PQ_RESULTS'] + '/value.txt', 'w').write('there')"


@pytest.fixture
def two(tmp_path):
    """Give the founders of two meshes on one machine."""
    with lab.hosts(tmp_path, ["ann", "bob"]) as found:
        for host, name in zip(found, ("ann", "bob"), strict=True):
            host.start("--name", name, "--listen", "127.0.0.1:0")
        yield found


@covers("mesh peer offer", "mesh peer offer --json", "mesh peer offer --they", "mesh peer offer --we")
@covers("mesh peer offer --their-owners", "mesh peer offer --our-owners", "mesh peer offer --for")
@covers("mesh peer", "mesh peer accept", "mesh peer accept --from", "mesh peer accept --json")
@covers("mesh peers", "mesh peers --json", "mesh peer end")
def test_two_meshes_agree_and_end_it(two, tmp_path):
    ann, bob = two
    ids = [host.json("mesh")["id"] for host in two]
    assert ann.json("mesh", "peers") == []
    assert "not a mesh's id" in ann.fails(4, "mesh", "peer", "offer", "lab")
    assert "--we" in ann.fails(2, "mesh", "peer", "offer", ids[1], "--we", "admin")
    assert "--they" in ann.fails(2, "mesh", "peer", "offer", ids[1], "--they", "")
    assert "not a duration" in ann.fails(2, "mesh", "peer", "offer", ids[1], "--for", "ever")
    assert "at most 32 owners" in ann.fails(4, "mesh", "peer", "offer", ids[1], "--our-owners", "a\x01b")
    (tmp_path / "binary").write_bytes(b"\xd0\x00\xff")
    assert "that is no offer or peering" in ann.fails(4, "mesh", "peer", "accept", str(tmp_path / "binary"))
    terms = ["--we", "submit", "--they", "work,bridge", "--our-owners", "b,a", "--their-owners", "c", "--for", "1h"]
    offered = ann.json("mesh", "peer", "offer", ids[1], *terms)
    shown = offered["peering"]
    assert (
        shown["state"],
        shown["mesh"],
        shown["ours"],
        shown["theirs"],
        shown["our_owners"],
        shown["their_owners"],
    ) == (
        "offered",
        ids[1],
        ["submit"],
        ["bridge", "work"],
        ["a", "b"],
        ["c"],
    )
    assert shown["until"] > shown["since"]
    offer, both = tmp_path / "offer", tmp_path / "both"
    offer.write_text(offered["text"])
    assert "BEGIN P2PQ PEERING" in ann.ok("mesh", "peer", "offer", ids[1])
    assert "--from MESH-ID" in bob.fails(2, "mesh", "peer", "accept", str(offer))
    assert "nothing was changed" in bob.fails(4, "mesh", "peer", "accept", str(offer), "--from", ids[1])
    assert bob.json("mesh", "peers") == []
    accepted = bob.json("mesh", "peer", "accept", str(offer), "--from", ids[0])
    assert (accepted["peering"]["state"], accepted["peering"]["name"]) == ("holds", "ann")
    both.write_text(accepted["text"])
    said = ann.run("mesh", "peer", "accept", str(both))
    assert (said.returncode, said.stdout) == (0, "")
    assert "[[peer]]" in said.stderr
    for host, other in ((ann, "bob"), (bob, "ann")):
        [view] = host.json("mesh", "peers")
        assert (view["state"], view["name"], view["accept"], view["offer"], view["bridge"]) == (
            "holds",
            other,
            False,
            False,
            False,
        )
        assert "has nothing to do with it" in host.ok("mesh", "peers")
    assert "p2pq mesh peers" in bob.fails(4, "mesh", "peer", "end", "nobody")
    assert "for good" in bob.ok("mesh", "peer", "end", "ann")
    assert bob.json("mesh", "peers")[0]["state"] == "ended"
    assert "for good" in bob.fails(4, "mesh", "peer", "accept", str(both))
    assert "offer" in ann.run("mesh", "peer").stdout + ann.run("mesh", "peer", "--help").stdout


@covers("mesh peer accept", "mesh peer end")
def test_what_is_accepted_twice_or_beside_another_is_said(two, tmp_path):
    ann, bob = two
    ids = [host.json("mesh")["id"] for host in two]
    offer, both, second = (tmp_path / name for name in ("offer", "both", "second"))
    offer.write_text(ann.ok("mesh", "peer", "offer", ids[1]))
    both.write_text(bob.ok("mesh", "peer", "accept", str(offer), "--from", ids[0]))
    ann.ok("mesh", "peer", "accept", str(both))
    for host, path, text in ((bob, offer, both.read_text()), (bob, both, both.read_text()), (ann, both, "")):
        again = host.run("mesh", "peer", "accept", str(path))
        assert (again.returncode, again.stdout) == (0, text)
        assert "accepted already, and nothing was changed" in again.stderr
    [view] = bob.json("mesh", "peers")
    second.write_text(ann.ok("mesh", "peer", "offer", ids[1], "--they", "work"))
    said = bob.run("mesh", "peer", "accept", str(second), "--from", ids[0])
    assert f"all count until `p2pq mesh peer end {view['id'][:8]}`" in said.stderr
    assert "The peering with ann ended" in bob.ok("mesh", "peer", "end", view["id"][:8])
    assert [each["state"] for each in bob.json("mesh", "peers")] == ["holds", "ended"]


@covers("mesh peer offer", "mesh peer accept", "mesh peer end")
def test_a_job_runs_in_another_mesh_while_both_want_it(two, tmp_path):
    """Without a bridge: one node dials the other."""
    ann, bob = two
    ids = [host.json("mesh")["id"] for host in two]
    text = ann.ok("mesh", "peer", "offer", ids[1])
    for host, name in ((bob, "offer"), (ann, "both")):
        (tmp_path / name).write_text(text)
        more = ["--from", ids[0]] if host is bob else []
        text = host.ok("mesh", "peer", "accept", str(tmp_path / name), *more)
    for host in two:
        assert host.stop() == 0
    policies = [(ann, ids[1], "offer = true"), (bob, ids[0], "accept = true")]
    for host, mesh, line in policies:
        (host.home / "config.toml").write_text(f'[[peer]]\nmesh = "{mesh}"\n{line}\n')
        (host.home / "config.toml").chmod(0o600)
    bob.start("--name", "bob", "--listen", "127.0.0.1:0")
    ann.start("--name", "ann", "--listen", "127.0.0.1:0", "--slots", "0", "--peer", bob.address)
    lab.until(lambda: [peer["state"] for peer in ann.json("peers")] == ["up"], "they are linked")
    [peer] = ann.json("peers")
    assert (peer["name"], peer["mesh"], peer["via"]) == ("bob", "bob", [])
    assert peer["owner"].endswith("@bob")
    folder = lab.make_folder(tmp_path / "job", JOB)
    ann.ok("submit", "--where", "bob@bob", str(folder))
    assert (folder / "results/value.txt").read_text() == "there"
    job = ann.json("jobs")[0]["job"]
    report = ann.json("verify", job)
    assert (report["verified"], [each["mesh"] for each in report["signers"]]) == (1, ["bob"])
    ann.ok("mesh", "peer", "end", "bob")
    lab.until(lambda: bob.json("status")["peers"] == 0, "bob has no link any more")
    lab.until(lambda: bob.json("mesh", "peers")[0]["state"] == "ended", "bob has heard of it")
    assert ann.json("verify", job)["verified"] == 1
