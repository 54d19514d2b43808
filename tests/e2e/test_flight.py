"""The flight recorder of a real node: through a submit and kill -9, what it wrote replays without a difference."""

import re
import stat
import subprocess
import sys
from pathlib import Path

import lab

from tests.covers import covers

WRITE = "import os, pathlib, time; time.sleep(0.3); pathlib.Path(os.environ['P2PQ_RESULTS'], 'a').write_text('b')"


def replay(path: Path, *options: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "simulations", "replay", str(path), *options],
        cwd=lab.ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr
    return done.stdout


@covers("node --flight")
def test_what_a_killed_node_and_its_next_life_decided_is_decided_again(home, tmp_path):
    folder = lab.make_folder(tmp_path / "job", WRITE)
    home.start("--flight", "--listen", "127.0.0.1:0", "--slots", "2")
    job = home.submit("--array", "0-7", str(folder))
    lab.until(lambda: home.json("show", job)["tasks"]["done"] >= 2, "two tasks are done")
    home.kill()
    home.start("--flight", "--listen", "127.0.0.1:0", "--slots", "2")
    home.ok("wait", job)
    assert home.stop() == 0
    first, second = sorted((home.home / "flight").iterdir())
    assert stat.S_IMODE((home.home / "flight").stat().st_mode) == 0o700
    assert [stat.S_IMODE(path.stat().st_mode) for path in (first, second)] == [0o600, 0o600]
    shown = [replay(path, "--check").splitlines() for path in (first, second)]
    assert [lines[-1].endswith("0 differences") for lines in shown] == [True, True]
    assert " with 0 jobs, 0 leases" in shown[0][0]
    assert re.search(r" with 1 jobs, [1-9]\d* leases", shown[1][0])
    assert any(f"record JobAdded job={job[:8]}" in line for line in shown[0])
    assert any(f"record JobEnded job={job[:8]}" in line for line in shown[1])
    assert "Drain" in shown[1][-2] + shown[1][-3]
    story = replay(second, "--job", job[:8], "--show", "effects")
    assert f"tell JobFinished job={job[:8]} state='done'" in story
    log = (home.home / "node.log").read_text()
    assert log.count("flight.recording") == 2
    assert "as secret as the home" in log


@covers("start --flight")
def test_a_node_in_the_background_is_recorded_when_told_and_only_then(home):
    home.settings["P2PQ_NODE_LISTEN"] = "127.0.0.1:0"
    for option in ([], ["--flight"]):
        home.ok("start", "--no-mdns", *option)
        home.ok("stop")
        assert (home.home / "flight").exists() == bool(option)
    assert "0 differences" in replay(home.home / "flight" / "0001.flight")
