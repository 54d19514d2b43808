"""A node that is told to be a bridge says so, and says why if it may not be. What bridges do is shown in tests/netns."""

import json

from tests.covers import covers
from tests.e2e import lab


@covers("start --bridge", "doctor --json")
def test_a_founder_may_be_a_bridge_and_is_one_only_when_told(home):
    home.settings["P2PQ_NODE_LISTEN"] = "127.0.0.1:0"
    for options, expected in (([], []), (["--bridge"], [("carries links between peers, 0 now", True)])):
        home.ok("start", "--no-mdns", *options)
        findings = [(each["detail"], each["ok"]) for each in home.json("doctor") if each["check"] == "bridge"]
        assert findings == expected
        home.ok("stop")


@covers("start --bridge", "doctor --json")
def test_a_bridge_that_is_to_batch_says_so(home):
    home.settings |= {"P2PQ_NODE_LISTEN": "127.0.0.1:0", "P2PQ_BRIDGE_BATCH": "1"}
    home.ok("start", "--no-mdns")
    home.ok("stop")
    assert "WARNING bridge.not-enabled" in home.log()
    home.ok("start", "--no-mdns", "--bridge")
    [finding] = [each for each in home.json("doctor") if each["check"] == "bridge"]
    said = "speaks for workers here, now 0, to masters, now 0; carries links between peers, 0 now"
    assert (finding["detail"], finding["ok"]) == (said, True)
    assert home.json("status")["bridge"] == []


@covers("node --bridge", "invite --caps", "mesh init")
def test_who_may_not_be_a_bridge_is_told_what_to_do(tmp_path):
    with lab.hosts(tmp_path, ["home", "another"]) as [home, another]:
        home.start("--listen", "127.0.0.1:0", "--slots", "1")
        another.start("--listen", "127.0.0.1:0", "--slots", "1", "--bridge")
        code = home.ok("invite").split()[0]
        another.ok("join", code, "--at", home.json("status")["address"], "--yes")
        found = json.loads(another.run("doctor", "--json").stdout)  # which ends with 1 where something fails
        [finding] = [each for each in found if each["check"] == "bridge"]
        assert not finding["ok"]
        assert "certificate does not let it" in finding["detail"]
        assert "--caps work,submit,bridge" in finding["suggestion"]
        assert "WARNING bridge.not-allowed" in another.log()
        assert "its certificate does not let it" in another.ok("status")
        assert "`p2pq mesh init NAME`" in finding["suggestion"]
        named = another.json("status")["name"]
        invited = home.run("invite", "--caps", "work,submit,bridge")
        code, mesh = invited.stdout.split()[0], home.json("mesh")["name"]
        assert f"in mesh {mesh} it will count as" in invited.stderr
        assert f"add: --at {home.json('status')['address']}" in invited.stderr
        assert f"it has left mesh {mesh}," in another.run("mesh", "init", "its-own").stderr
        assert "left" not in another.run("mesh", "init", "its-own-again").stderr
        another.ok("join", code, "--at", home.json("status")["address"], "--yes")
        [finding] = [each for each in another.json("doctor") if each["check"] == "bridge"]
        assert finding["ok"]
        assert "carries links between peers" in another.ok("status")
        assert another.json("status")["name"] == named  # it was not taken for another one of that name
