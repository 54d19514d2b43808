"""Commands about the mesh, each option by its effect."""

import time

import lab
import pytest

from tests.covers import covers


@pytest.fixture(scope="module")
def inviter(tmp_path_factory):
    """Give a host that invites."""
    with lab.hosts(tmp_path_factory.mktemp("inviter"), ["home"]) as [found]:
        found.start("--name", "alice", "--listen", "127.0.0.1:0")
        yield found


@pytest.fixture
def joiner(tmp_path):
    """Give a host that may join."""
    with lab.hosts(tmp_path, ["joiner"]) as [found]:
        found.start("--name", "bob", "--listen", "127.0.0.1:0")
        yield found


@covers("invite", "invite --caps", "invite --owner", "invite --uses", "invite --json")
@covers("join", "join --at", "join --yes", "join --json", "members", "members --json", "mesh", "mesh --json")
@covers("ban", "unban", "peers", "peers --json")
def test_invite_join_members_ban(inviter, joiner):
    alone = joiner.json("mesh")
    assert (alone["solo"], alone["members"]) == (True, 1)
    assert "only this node" in joiner.ok("mesh")
    invited = inviter.json("invite", "--caps", "work", "--owner", "carol", "--uses", "2")
    assert (invited["caps"], invited["owner"], invited["uses"]) == (["work"], "carol", 2)
    assert "--yes" in joiner.fails(2, "join", invited["code"], "--at", inviter.address)
    joined = joiner.json("join", invited["code"], "--at", inviter.address, "--yes")
    lab.until(lambda: joiner.json("mesh") == {**joined, "members": 2}, "alice is known")
    assert (joined["id"], joined["caps"], joined["owner"], joined["founder"]) == (
        inviter.json("mesh")["id"],
        ["work"],
        "carol",
        False,
    )
    me, bob = lab.until(lambda: len(found := inviter.json("members")) == 2 and found, "bob is a member")
    assert (me["name"], me["state"]) == ("alice", "self")
    assert (bob["name"], bob["owner"], bob["caps"]) == ("bob", "carol", ["work"])
    assert bob["expires"].endswith("Z")
    assert "carol" in inviter.ok("members")
    lab.until(lambda: [peer["state"] for peer in inviter.json("peers")] == ["up"], "linked")
    [peer] = inviter.json("peers")
    assert set(peer) >= {"id", "name", "address", "state", "rtt_ms", "slots", "free", "has_work", "mesh", "via"}
    assert "bob" in inviter.ok("peers")
    assert "members" in joiner.fails(4, "join", invited["code"], "--at", inviter.address, "--yes")

    assert "banned" in inviter.ok("ban", "bob")
    lab.until(lambda: not joiner.json("status")["peers"], "bob is out")
    assert inviter.json("members")[1]["state"] == "banned"
    assert "no longer" in inviter.ok("unban", bob["id"][:8])
    lab.until(lambda: inviter.json("status")["peers"] == 1, "bob is in again", 60)
    assert "p2pq peers" in inviter.fails(4, "ban", "nobody")


@covers("invite --caps", "join")
def test_who_is_invited_as_an_admin_lets_others_in(inviter, joiner, tmp_path):
    """Behind a bridge the founder cannot be reached: then the bridge is such an admin."""
    code = inviter.ok("invite", "--caps", "work,submit,bridge,admin").split()[0]
    joined = joiner.json("join", code, "--at", inviter.address, "--yes")
    assert (joined["caps"], joined["founder"]) == (["admin", "bridge", "submit", "work"], False)
    assert "founder" in joiner.fails(4, "invite", "--caps", "admin")
    with lab.hosts(tmp_path, ["third"]) as [third]:
        third.start("--name", "third", "--listen", "127.0.0.1:0")
        code = joiner.ok("invite").split()[0]
        assert third.json("join", code, "--at", joiner.address, "--yes")["id"] == joined["id"]
        lab.until(lambda: third.json("status")["peers"] == 2, "it is linked to both")


@covers("ban", "members")
def test_a_node_that_was_away_learns_of_a_ban_from_whomever_it_meets_first(tmp_path):
    with lab.hosts(tmp_path, ["alice", "bob", "carol", "dave"]) as found:
        alice, bob, carol, dave = found
        alice.start("--name", "alice", "--listen", "127.0.0.1:0")
        for host, name in ((bob, "bob"), (carol, "carol"), (dave, "dave")):
            host.start("--name", name, "--listen", "127.0.0.1:0")
            host.ok("join", alice.ok("invite").split()[0], "--at", alice.address, "--yes")
        lab.until(lambda: carol.json("status")["peers"] == 3, "carol knows everyone")
        carol.stop()
        alice.ok("ban", "bob")
        lab.until(lambda: member(dave, "bob")["state"] == "banned", "dave has heard of it")
        alice.stop()
        carol.start("--name", "carol", "--listen", "127.0.0.1:0", "--peer", dave.address)
        lab.until(lambda: member(carol, "bob")["state"] == "banned", "carol has it from dave, who is no admin")
        assert [peer["name"] for peer in carol.json("peers") if peer["state"] == "up"] == ["dave"]


@covers("ban", "ban --owner", "unban", "unban --owner")
def test_the_jobs_of_a_banned_owner_stop_and_its_nodes_are_out(tmp_path):
    """Bob runs it and is no admin. The owner's next node is out from the start, and all are in again after unban."""
    with lab.hosts(tmp_path, ["alice", "bob", "carol"]) as found:
        alice, bob, carol = found
        alice.start("--name", "alice", "--listen", "127.0.0.1:0", "--slots", "0")
        bob.start("--name", "bob", "--listen", "127.0.0.1:0", "--slots", "1")
        carol.start("--name", "carol", "--listen", "127.0.0.1:0", "--slots", "0")
        for host, owner in ((bob, "lab"), (carol, "eve")):
            code = alice.ok("invite", "--owner", owner).split()[0]
            host.ok("join", code, "--at", alice.address, "--yes")
        lab.until(lambda: member(bob, "carol")["state"] == "up", "bob and carol are linked")
        carol.submit("--array", "0-3", str(lab.make_folder(tmp_path / "job", "import time; time.sleep(600)")))
        lab.until(lambda: bob.json("status")["running"], "bob runs it")
        assert "name one" in alice.fails(2, "ban", "bob", "--owner", "eve")
        assert "itself" in alice.fails(4, "ban", "--owner", alice.json("mesh")["owner"])
        banned = time.monotonic()
        assert "All nodes of eve are banned here and" in alice.ok("ban", "--owner", "eve")
        lab.until(lambda: not bob.json("status")["running"], "nothing of it runs", 60)
        lab.until(lambda: not carol.json("status")["peers"], "carol has no link", 60)
        assert time.monotonic() - banned < 60
        assert member(bob, "carol")["state"] == "banned"
        with lab.hosts(tmp_path, ["dora"]) as [dora]:
            dora.start("--name", "dora", "--listen", "127.0.0.1:0")
            code = alice.ok("invite", "--owner", "eve").split()[0]
            assert "banned" in dora.fails(4, "join", code, "--at", alice.address, "--yes")
        assert "no longer" in alice.ok("unban", "--owner", "eve")
        lab.until(lambda: bob.json("status")["running"], "bob runs it again", 90)


def member(host, name):
    """Return what a node says of a member."""
    return next(each for each in host.json("members") if each["name"] == name)


@covers("invite", "invite --ttl", "invite --uses")
def test_codes_that_are_wrong_late_or_used(inviter, joiner, tmp_path):
    code = inviter.ok("invite", "--ttl", "1s").splitlines()[0]
    time.sleep(1.2)  # the code's own life; there is nothing to wait for
    assert "code" in joiner.fails(4, "join", code, "--at", inviter.address, "--yes")
    good = inviter.ok("invite", "--uses", "1").splitlines()[0]
    wrong = good[:-1] + ("2" if good[-1] != "2" else "3")
    assert "code" in joiner.fails(4, "join", wrong, "--at", inviter.address, "--yes")
    assert joiner.json("mesh")["solo"]
    assert "code" in joiner.fails(2, "join", "x", "--yes")
    joiner.ok("join", good, "--at", inviter.address, "--yes")
    with lab.hosts(tmp_path, ["third"]) as [third]:
        third.start("--listen", "127.0.0.1:0")
        assert "code" in third.fails(4, "join", good, "--at", inviter.address, "--yes")


@covers("mesh rotate-key")
def test_a_member_that_was_away_when_the_mesh_key_was_rotated_learns_it(inviter, joiner):
    """Twice meanwhile. Whoever links to the other first, an earlier key opens the gate; a stranger's does not."""
    assert "not an admin" not in inviter.ok("mesh", "rotate-key")
    joiner.ok("join", inviter.ok("invite").split()[0], "--at", inviter.address, "--yes")
    first = inviter.json("mesh")["key"]
    lab.until(lambda: joiner.json("mesh")["key"] == first, "a joiner has the newest key")
    inviter.ok("mesh", "rotate-key")
    second = inviter.json("mesh")["key"]
    lab.until(lambda: joiner.json("mesh")["key"] == second, "who is linked learns the new key")
    assert "admin" in joiner.fails(4, "mesh", "rotate-key")
    joiner.stop()
    for _ in range(2):
        inviter.ok("mesh", "rotate-key")
    newest = inviter.json("mesh")["key"]
    assert len({first, second, newest}) == 3
    joiner.start("--name", "bob", "--listen", "127.0.0.1:0", "--peer", inviter.address)
    lab.until(lambda: joiner.json("mesh")["key"] == newest, "who was away learns it when it is back")
    assert newest in inviter.ok("mesh")


@covers("mesh init", "mesh init --json", "mesh --json", "join")
def test_a_new_mesh_and_what_forbids_one(joiner, tmp_path):
    before = joiner.json("mesh")
    made = joiner.json("mesh", "init", "garden")
    assert (made["name"], made["founder"], made["solo"]) == ("garden", True, True)
    assert made["id"] != before["id"]
    assert joiner.json("mesh") == made
    assert joiner.json("status")["mesh"] == "garden"
    assert "garden" in joiner.ok("mesh")
    job = joiner.submit(str(lab.make_folder(tmp_path / "job", "import time; time.sleep(600)")))
    assert "p2pq jobs" in joiner.fails(4, "mesh", "init", "other")
    assert "p2pq jobs" in joiner.fails(4, "join", "7-guitar-anvil-2", "--at", "127.0.0.1:1", "--yes")
    joiner.ok("cancel", job)


@covers("join")
def test_joining_is_explained_and_asked_for(inviter, joiner):
    code = inviter.ok("invite").splitlines()[0]
    shown = lab.on_terminal(joiner, "join", code, "--at", inviter.address, typed="y\n")
    assert "run sandboxed tasks" in shown
    assert "Join? [y/N]" in shown
    assert not joiner.json("mesh")["solo"]
