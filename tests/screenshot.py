"""Make docs/screensaver.png: ``python -m tests.screenshot FILE``. Two nodes, some work, and the screensaver on its own screen."""

import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "e2e"))

import lab

from tests.desktopkit import XServer, png, x_server

WORK = """
import os, time
for step in range(3000):
    with open(os.environ["P2PQ_RESULTS"] + "/.progress", "w") as file:
        file.write(str(min(1, (step + 40 * (1 + int(os.environ["P2PQ_TASK"]))) / 300)))
    time.sleep(0.1)
"""


ROWS = 100
"""Less light is a screen without tasks."""


def rows_of_light(server: XServer) -> int:
    """Return how many rows of the screen show something."""
    width, _, colors = server.pixels()
    return sum(any(colors[at : at + 3 * width]) for at in range(0, len(colors), 3 * width))


def shown() -> bytes:
    """Return the picture of a screen on which the screensaver runs."""
    base = Path(tempfile.mkdtemp())
    with lab.hosts(base, ["desk", "lab3"]) as (desk, lab3), x_server(base, "1280x720") as server:
        desk.settings = {"LOGNAME": "ben"}
        desk.start("--name", "desk")
        lab3.start("--name", "lab3", "--slots", "4")
        code = desk.ok("invite", "--owner", "anna").split()[0]
        lab3.ok("join", code, "--at", desk.address, "--yes")
        lab.until(lambda: any(peer["state"] == "up" for peer in desk.json("peers")), "both are linked")
        folder = str(lab.make_folder(base / "neurons", WORK))
        desk.submit(folder, "--array", "1-3", "--where", "lab3")
        lab.until(lambda: len(lab3.json("status")["running"]) == 3, "guests run")
        lab3.submit(folder, "--name", "neurons")
        lab.until(
            lambda: [each["progress"] is not None for each in lab3.json("status")["running"]] == [True] * 4, "all tell"
        )
        lab3.settings = server.environ
        saver = lab3.popen("screensaver", stdout=None, stderr=None)
        try:
            lab.until(lambda: rows_of_light(server) > ROWS, "it draws tasks")
            return png(*server.pixels())
        finally:
            saver.kill()
            saver.wait()


if __name__ == "__main__":
    Path(sys.argv[1]).write_bytes(shown())
