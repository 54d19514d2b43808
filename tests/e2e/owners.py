"""Machines whose owners come first: what tests of several files do with them."""

import lab


def again(bob, environ=None, **policy):
    """Let a node begin again with another policy; it finds its peers by itself."""
    assert bob.stop() == 0
    bob.settings = {f"P2PQ_POLICY_{key.upper()}": value for key, value in policy.items()} | (environ or {})
    bob.start("--name", "bob")


def task(host, job):
    return host.json("tasks", job)[0]


def blocked(alice, tmp_path):
    """Let alice be too busy for anything else; return the job to cancel."""
    blocker = lab.make_folder(tmp_path / "block", "import time\ntime.sleep(600)\n")
    blocking = alice.submit("--cpus", str(alice.json("status")["slots"]), "--where", "alice", str(blocker))
    lab.until(lambda: alice.json("show", blocking)["state"] == "running", "alice is busy")
    return blocking


def linked(alice):
    return any(peer["name"] == "bob" and peer["state"] == "up" for peer in alice.json("peers"))
