"""`p2pq screensaver` beside a node that computes."""

import os
import signal
import time

import lab
import pytest

from p2pq.daemon.sensors import Sensors
from tests import keypress, saverend
from tests.desktopkit import x_server

SLEEP = "import os, time\nopen(os.environ['P2PQ_RESULTS'] + '/.progress', 'w').write('0.5')\ntime.sleep(600)"


def rows_of_light(server) -> int:
    """Return how many rows of the screen show something."""
    width, _, colors = server.pixels()
    return sum(any(colors[at : at + 3 * width]) for at in range(0, len(colors), 3 * width))


@pytest.mark.desktop
def test_what_is_computed_is_shown_and_the_end_of_the_saver_is_seen_within_a_tenth_of_a_second(host, tmp_path):
    with x_server(tmp_path, "640x400") as server:
        host.settings = server.environ
        saver = host.popen("screensaver", stdout=None, stderr=None)
        try:
            lab.until(lambda: rows_of_light(server), "it draws")
            before = rows_of_light(server)
            host.submit(str(lab.make_folder(tmp_path / "deep-thought", SLEEP)), "--name", "deep-thought")
            lab.until(lambda: rows_of_light(server) > before + 5, "the task is shown, with its bar")
            assert [each["progress"] for each in host.json("status")["running"]] == [0.5]
            sensors = Sensors(host.home, needs=("screen",), environ=server.environ)
            assert sensors.readings().saver
            os.kill(saver.pid, signal.SIGKILL)
            began = time.monotonic()
            while sensors.readings().saver:
                assert time.monotonic() - began < 5
            took = time.monotonic() - began
            sensors.close()
        finally:
            saver.kill()
            saver.wait()
    print(f"seen after {1000 * took:.1f} ms")


@pytest.mark.desktop
@pytest.mark.parametrize("way", ["closed", "killed"])
def test_every_process_of_a_guest_ends_with_the_screensaver(tmp_path, way):
    with (
        x_server(tmp_path, "640x400", "-s", "0") as server,
        keypress.guest(tmp_path, saverend.policy(server), saverend.SPIN) as host,
    ):
        took = saverend.end_of_saver(host, server, way)
        assert host.json("status")["policy"] == {"state": "kill", "reason": "the screen is in use"}
        lab.until(lambda: host.json("status")["running"] == [], "the task has been handed back")
        assert keypress.guests(host) == []
    print(f"gone after {1000 * took:.0f} ms")
