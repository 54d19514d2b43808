"""Commands about the node itself, each option by its effect."""

import json
import os
import signal
import socket
import subprocess
import time

import lab
import pytest

from p2pq import __version__
from tests.covers import covers

SLEEP = "import time; time.sleep(600)"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def check_options(host, port):
    """Check that the options of the two tests below had their effect."""
    lab.until(lambda: host.json("status")["sandbox"] != "unknown", "the sandbox is tested")
    status = host.json("status")
    assert (status["name"], status["slots"], status["address"]) == ("nice", 3, f"127.0.0.1:{port}")
    assert status["policy"]["state"] == "off"
    findings = {finding["check"]: finding["detail"] for finding in host.json("doctor")}
    assert "--no-mdns" in findings["discovery"]
    lab.until(lambda: [peer["address"] for peer in host.json("peers")] == ["127.0.0.1:1"], "the peer is tried")
    assert host.json("peers")[0]["state"] in {"connecting", "down"}
    assert "127.0.0.1:1" in host.ok("peers")


@covers("start", "start --name", "start --slots", "start --listen", "start --peer", "start --label", "start --no-mdns")
@covers("start --no-accept", "stop", "status")
def test_start_with_every_option_and_stop(home, tmp_path):
    port = free_port()
    options = [
        "--name",
        "nice",
        "--slots",
        "3",
        "--listen",
        f"127.0.0.1:{port}",
        "--peer",
        "127.0.0.1:1",
        "--label",
        "a=b",
    ]
    ready = home.ok("start", *options, "--no-mdns", "--no-accept").split()
    assert (ready[0], ready[1], ready[3]) == ("ready", "nice", f"127.0.0.1:{port}")
    check_options(home, port)
    shown = home.ok("status")
    assert "nice" in shown
    assert ready[2][:8] in shown
    assert "a node runs here already" in home.fails(4, "start")
    folder = lab.make_folder(tmp_path / "job", "pass")
    home.ok("submit", "--need", "a=b", str(folder))
    home.ok("stop")
    assert "p2pq start" in home.fails(3, "status")
    assert home.run("stop").returncode == 0
    assert not (home.home / "node.sock").exists()


@covers("start", "stop")
def test_options_of_start_hold_over_a_crash_until_stop(home):
    port = free_port()
    home.ok("start", "--name", "b", "--slots", "2", "--listen", f"127.0.0.1:{port}", "--label", "a=b", "--no-mdns")
    options = f"--name b --slots {{}} --listen 127.0.0.1:{port} --label a=b --no-mdns"
    for given, slots in (([], 2), (["--slots", "3"], 3), ([], 3)):
        os.kill(int((home.home / "node.lock").read_text()), signal.SIGKILL)
        lab.until(lambda: home.run("status").returncode == 3, "it is gone")
        started = home.run("start", *given)
        assert started.returncode == 0, started.stderr
        assert started.stdout.split()[3] == f"127.0.0.1:{port}"
        hold = options.format(slots)
        assert started.stderr == f"p2pq: no `p2pq stop` since the last start, so its options hold: {hold}\n"
        lab.until(lambda: home.json("status")["slots"], "its sensors have spoken")
        status = home.json("status")
        assert (status["name"], status["slots"]) == ("b", slots)
    os.kill(int((home.home / "node.lock").read_text()), signal.SIGKILL)
    lab.until(lambda: home.run("status").returncode == 3, "it is gone")
    assert "no node runs here" in home.run("stop").stderr
    home.settings["P2PQ_NODE_MDNS"] = "false"
    again = home.run("start", "--name", "c")
    assert (again.returncode, again.stderr) == (0, "")
    home.ok("stop")
    assert home.run("start", "--name", "d").stderr == ""


@covers("node", "node --name", "node --slots", "node --listen", "node --peer", "node --label", "node --no-mdns")
@covers("node --no-accept", "status --json")
def test_node_with_every_option_until_sigterm(home, tmp_path):
    port = free_port()
    options = [
        "--name",
        "nice",
        "--slots",
        "3",
        "--listen",
        f"127.0.0.1:{port}",
        "--peer",
        "127.0.0.1:1",
        "--label",
        "a=b",
    ]
    ready = home.start(*options, "--no-mdns", "--no-accept").split()
    assert (ready[0], ready[1], ready[3]) == ("ready", "nice", f"127.0.0.1:{port}")
    check_options(home, port)
    folder = lab.make_folder(tmp_path / "job", SLEEP)
    job = home.submit("--need", "a=b", str(folder))
    lab.until(lambda: home.json("status")["running"], "the task runs")
    [row] = home.json("status")["running"]
    assert (row["job"], row["task"], row["own"]) == (job, 0, True)
    assert job[:8] in home.ok("status")
    begun = time.monotonic()
    assert home.stop() == 0
    assert time.monotonic() - begun < 10


@covers("stop", "stop --now")
def test_stop_lets_short_tasks_end_and_stop_now_does_not(home, tmp_path):
    folder = lab.make_folder(tmp_path / "job", "import time; time.sleep(2)")
    attempts = []
    home.settings["P2PQ_NODE_MDNS"] = "false"
    for stop in (["stop"], ["stop", "--now"]):
        home.ok("start")
        job = home.submit(str(folder))
        lab.until(lambda job=job: home.json("show", job)["tasks"]["running"], "it runs")
        home.ok(*stop)
        home.ok("start")
        home.ok("wait", job)
        attempts.append(home.json("show", job)["attempts"])
        home.ok("stop")
    assert attempts == [1, 2]


def test_submit_starts_a_node_and_says_so(home, tmp_path):
    home.settings["P2PQ_NODE_MDNS"] = "false"
    folder = lab.make_folder(tmp_path / "job", "pass")
    done = home.run("submit", str(folder))
    assert done.returncode == 0
    assert "started a node" in done.stderr
    assert "p2pq stop" in done.stderr
    assert "started" not in home.run("submit", str(folder)).stderr
    home.ok("stop")
    home.settings["P2PQ_NODE_LISTEN"] = "not an address"
    assert "not an address" in home.fails(2, "submit", str(folder))


@covers("doctor", "doctor --json")
def test_doctor_fails_where_something_does(home):
    home.home.rmdir()
    done = home.run("doctor")
    assert done.returncode == 1
    assert "FAIL  node" in done.stdout
    assert "p2pq start" in done.stdout
    home.home.mkdir(mode=0o755)
    found = {item["check"]: item for item in json.loads(home.run("doctor", "--json").stdout)}
    assert found["python"]["ok"]
    assert not found["home"]["ok"]
    assert f"chmod 700 {home.home}" in found["home"]["detail"]


@covers("p2pq --home")
def test_home_decides_which_node(shared, home):
    home.settings["P2PQ_HOME"] = "/nonexistent"
    assert home.json("--home", str(shared.home), "status")["id"] == shared.ready.split()[2]
    assert "/nonexistent" in home.fails(3, "status")


@covers("p2pq", "p2pq --version")
def test_the_command_itself(home):
    assert __version__ in home.ok("--version")
    assert "submit" in home.ok("--help")
    bare = home.run()
    assert bare.returncode == 2
    assert "submit" in bare.stderr
    assert "p2pq submit" in home.fails(2, "sumbit")
    assert "--array" in home.fails(2, "submit", "--arrray", "0-1", ".")


@covers("config", "config --json", "config show", "config show --json")
def test_config_says_where_each_value_comes_from(home):
    (home.home / "config.toml").write_text('[node]\nname = "filed"\n')
    home.settings["P2PQ_NODE_SLOTS"] = "5"
    found = {row["key"]: row for row in home.json("config", "show")}
    assert found["node.name"]["value"] == "filed"
    assert found["node.name"]["origin"] == str(home.home / "config.toml")
    assert found["node.slots"]["value"] == 5
    assert "P2PQ_NODE_SLOTS" in found["node.slots"]["origin"]
    assert found["node.mdns"]["origin"] == "default"
    assert home.json("config") == list(found.values())
    assert home.ok("config") == home.ok("config", "show")
    assert any(line.split()[:2] == ["node.name", "filed"] for line in home.ok("config").splitlines())
    home.start("--bridge", "--name", "told")
    (home.home / "config.toml").write_text("[node]\nname = 'filed'\nmdns = true\n[store]\nkeep_days = 7\n")
    runs = {row["key"]: row for row in home.json("config", "show")}
    assert runs["bridge.enabled"] == {"key": "bridge.enabled", "value": True, "origin": "option"}
    assert (runs["node.name"]["value"], runs["node.slots"]["origin"]) == ("told", "P2PQ_NODE_SLOTS")
    assert "changed since it started: store.keep_days;" in home.run("config").stderr
    home.stop()
    (home.home / "config.toml").write_text('[node]\nnam = "filed"\n')
    said = [home.fails(2, *command) for command in (("config",), ("node",), ("start",), ("mesh", "init", "x"))]
    assert "did you mean `node.name`" in said[0]
    assert said == said[:1] * 4


@covers("completion")
@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_completes(home, shell):
    script = home.ok("completion", shell)
    assert "_P2PQ_COMPLETE" in script
    words = {"bash": "p2pq submit --arr", "zsh": "p2pq submit --arr", "fish": "p2pq submit --arr"}[shell]
    home.settings |= {"_P2PQ_COMPLETE": f"{shell}_complete", "COMP_WORDS": words, "COMP_CWORD": "2"}
    if shell == "fish":
        home.settings["COMP_CWORD"] = "--arr"
    assert "--array" in home.ok()
    home.settings |= {"COMP_WORDS": "p2pq inv", "COMP_CWORD": "inv" if shell == "fish" else "1"}
    assert "invite" in home.ok()


def test_a_bash_takes_the_script(home):
    script = home.ok("completion", "bash") + "\ncomplete -p p2pq\n"
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, timeout=20, check=False)
    assert done.returncode == 0, done.stderr
    assert "_p2pq_completion p2pq" in done.stdout


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_root_is_refused_unless_meant(home):
    home.settings["P2PQ_ALLOW_ROOT"] = "0"
    for command in (["node"], ["start"], ["status"], ["submit", "."]):
        assert "P2PQ_ALLOW_ROOT=1" in home.fails(4, *command)


def test_a_second_sigterm_ends_at_once(home, tmp_path):
    home.start()
    job = home.submit(str(lab.make_folder(tmp_path / "job", SLEEP)))
    lab.until(lambda: home.json("show", job)["tasks"]["running"], "it runs")
    process = home.process
    process.send_signal(signal.SIGTERM)
    time.sleep(0.3)
    begun = time.monotonic()
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=10)
    home.process = None
    assert time.monotonic() - begun < 3
    assert "Traceback" not in home.log()
