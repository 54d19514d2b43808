"""How soon guests are gone: ``python -m tests.saverend [TRIES]`` ends screensavers and tells how long a guest lived on.

The policy is ``screensaver``; half of the screensavers end as their window is closed, half by kill -9. The guest spins in four
processes, of which one is in a session of its own, and one is in another and has lost its parent.
"""

import os
import select
import signal
import statistics
import struct
import sys
import tempfile
import time
from pathlib import Path
from typing import Literal

import psutil

from p2pq.daemon.sensors.xclient import PACKET_BYTES, XClient
from tests import keypress
from tests.desktopkit import XServer, x_server
from tests.keypress import lab

TRIES = 20
TRIES_OF_A_JOB = 8
"""A task that is taken back more often than ten times waits ever longer for its next attempt."""
GOAL_S = 0.2
END_S = 30
SPIN = """
import os

def spin():
    while True:
        pass

if os.fork() == 0:
    spin()
if os.fork() == 0:
    os.setsid()
    spin()
if (middle := os.fork()) == 0:
    os.setsid()
    if os.fork() == 0:
        spin()
    os._exit(0)
os.waitpid(middle, 0)
spin()
"""
COUNT = 4
Way = Literal["closed", "killed"]
_DESTROY_WINDOW, _QUERY_TREE, _GET_INPUT_FOCUS = 4, 15, 43


def policy(server: XServer) -> keypress.Idle:
    """Return the settings of the policy ``screensaver``."""
    return keypress.Idle({"mode": "screensaver", "on_battery": "true"}, server.environ)


def close(server: XServer) -> None:
    """Close every window, as a window manager that is out of patience."""
    client = XClient(server.number, b"", answer_s=20)
    tree = client.ask(_QUERY_TREE, 0, struct.pack("<I", client.screen.root))
    (count,) = struct.unpack_from("<H", tree, 16)
    assert count, "no window is there"
    for window in struct.unpack_from(f"<{count}I", tree, PACKET_BYTES):
        client.tell(_DESTROY_WINDOW, 0, struct.pack("<I", window))
    client.ask(_GET_INPUT_FOCUS, 0, b"")  # what was told has been done
    client.close()


def end_of_saver(host: lab.Host, server: XServer, way: Way, rest_s: float = 0.0) -> float:
    """Run a screensaver until the guest has run, and for that long; end it, and return when the guest has ended, in seconds.

    That is the end of its last process, as the kernel tells it (pidfd); after it none is in /proc but as a zombie.
    """
    saver = host.popen("screensaver", stdout=None, stderr=None)
    try:
        found = keypress.running(host, COUNT)
        ends = [os.pidfd_open(each.pid) for each in found]
        time.sleep(rest_s)
        began = time.monotonic()
        if way == "closed":
            close(server)
        else:
            os.kill(saver.pid, signal.SIGKILL)
        for each in ends:
            assert select.select([each], [], [], END_S)[0], "it lives on"
        took = time.monotonic() - began
        assert not any(each.is_running() and each.status() != psutil.STATUS_ZOMBIE for each in found)
        for each in ends:
            os.close(each)
    finally:
        saver.kill()
        saver.wait()
    return took


def measure(tries: int) -> dict[str, list[float]]:
    """Return how long after each end of a screensaver the last process of a guest has ended, in seconds, by how it was ended."""
    base = Path(tempfile.mkdtemp())
    took: dict[str, list[float]] = {}
    # Without "-s 0" the server itself blanks the screen after some minutes, which counts as locked.
    with x_server(base, "640x400", "-s", "0") as server:
        for first in range(0, tries, TRIES_OF_A_JOB):
            (folder := base / f"{first}").mkdir()
            with keypress.guest(folder, policy(server), SPIN) as host:
                for number in range(first, min(first + TRIES_OF_A_JOB, tries)):
                    way: Way = "killed" if number % 2 else "closed"
                    # Not at the same point of the node's own rhythm each time.
                    took.setdefault(way, []).append(end_of_saver(host, server, way, 0.137 + 0.017 * number % 0.1))
    return took


if __name__ == "__main__":
    found = measure(int(sys.argv[1]) if len(sys.argv) > 1 else TRIES)
    for way, seconds in found.items():
        each = [round(1000 * one) for one in seconds]
        print(
            f"{len(each)} screensavers {way}: a guest was gone after {statistics.median(each):g} ms, at worst {max(each)} ms"
        )
    sys.exit(max(map(max, found.values())) > GOAL_S)
