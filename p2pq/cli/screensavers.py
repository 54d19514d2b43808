"""The command ``screensaver``: a window that shows what is computed here; while it is there, a policy may let guests run."""

import contextlib
import os
import re
import select
import struct
import threading
import time
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Final

import click

from p2pq.cli.canvas import Canvas
from p2pq.cli.common import home_of
from p2pq.cli.pictures import DIM, Line, lines, place
from p2pq.client import finding
from p2pq.daemon.sensors.claim import claimed
from p2pq.daemon.sensors.peeking import read_plain
from p2pq.daemon.sensors.xauthority import FILE_BYTES_MAX, cookie
from p2pq.daemon.sensors.xclient import XAnswerError, XClient, XGoneError
from p2pq.errors import P2PQError, RefusedError, UsageError
from p2pq.wire import control
from p2pq.wire.control import JobView, StatusView

ANSWER_S: Final = 10.0
"""An X server that takes longer has gone."""
FRAME_S: Final = 1.0
ASK_S: Final = 2.0
FIRST_S: Final = 0.5
"""Wait for the node's first answer before drawing."""
GRAB_S: Final = 3.0
"""A menu that is open holds the keyboard; then somebody is here."""
MOVED_PIXELS: Final = 10
"""Less is a table that was knocked against."""
WIDE_PIXELS: Final = 2200
"""From there on letters are twice as large."""

_KEY, _BUTTON, _MOTION, _DESTROYED, _CONFIGURED = 2, 4, 6, 17, 22
_STRUCTURE: Final = 1 << 17
_INPUT: Final = 1 | 1 << 2 | 1 << 6
_CREATE_WINDOW: Final = 1
_MAP_WINDOW: Final = 8
_GRAB_POINTER: Final = 26
_GRAB_KEYBOARD: Final = 31
_GET_INPUT_FOCUS: Final = 43
_CREATE_PIXMAP: Final = 53
_CREATE_CURSOR: Final = 93


@click.command("screensaver")
@click.option(
    "--window", "--window-id", "-window-id", metavar="ID", help="Draw in this window (default: XSCREENSAVER_WINDOW)."
)
@click.option("--root", "-root", is_flag=True, help="Draw on the desktop's background, where no window is given.")
@click.pass_context
def screensaver_command(ctx: click.Context, window: str | None, root: bool) -> int:
    """Draw what is computed here, for whom, how far it is and since when, as an X screensaver.

    Ends with its window or its X server. In a window of its own, which fills the screen, it ends with any key, click or
    movement. While it runs the policy `screensaver` lets guests run.
    """
    home = home_of(ctx).path
    given = window or os.environ.get("XSCREENSAVER_WINDOW")
    chosen = _number(given) if given else 0
    client = _dial(os.environ)
    try:
        saver = Saver(client, chosen or (client.screen.root if root else 0))
        home.mkdir(mode=0o700, parents=True, exist_ok=True)
        with claimed(home):
            saver.run(Watch(home))
    except XGoneError:
        return 0  # the session is over
    except XAnswerError as error:
        raise RefusedError(f"the X server refuses to let us draw in window {given or 'of our own'}: {error}") from error
    finally:
        client.close()
    return 0


def _number(text: str) -> int:
    if not re.fullmatch(r"0[xX][0-9a-fA-F]{1,8}|[0-9]{1,10}", text):
        raise UsageError(f"{text!r} is no window; give its number, as xwininfo prints it")
    return int(text, 0) & 0xFFFFFFFF


def _dial(environ: Mapping[str, str]) -> XClient:
    """Connect to the X server that the environment names."""
    named = re.fullmatch(r"(?:unix)?:(\d{1,5})(?:\.\d+)?", environ.get("DISPLAY", ""))
    if named is None:
        raise UsageError("DISPLAY names no X server of this machine; start the screensaver inside a desktop session")
    file = environ.get("XAUTHORITY") or str(Path(environ.get("HOME", "")) / ".Xauthority")
    number = int(named[1])
    try:
        return XClient(number, cookie(read_plain(file, FILE_BYTES_MAX), number), answer_s=ANSWER_S)
    except XGoneError as error:
        raise RefusedError(
            f"the X server :{number} cannot be reached ({error}); check DISPLAY and XAUTHORITY"
        ) from error


class Watch(threading.Thread):
    """Asks the node every two seconds, apart from what draws, which a node that is slow to answer must not hold up."""

    def __init__(self, home: Path) -> None:
        """Watch the node of a home."""
        super().__init__(name="watch", daemon=True)
        self._home = home
        self.asked = threading.Event()
        """It is known whether there is a node."""
        self.status: StatusView | None = None
        self.names: dict[str, str] = {}

    def run(self) -> None:
        """Ask for as long as the process runs."""
        while True:
            self.status = None
            with contextlib.suppress(P2PQError), finding.connect(self._home, start=False, say=lambda _: None) as node:
                while True:
                    status = node.one(control.Status(), StatusView)
                    if any(each.own and each.job not in self.names for each in status.running):
                        self.names = {job.job: job.name for job in node.all(control.Jobs(), JobView)}
                    self.status = status
                    self.asked.set()
                    time.sleep(ASK_S)
            self.asked.set()
            time.sleep(ASK_S)


class Saver:
    """Draws, and waits for what ends it."""

    def __init__(self, client: XClient, window: int) -> None:
        """Draw in a window, or where there is none (0) in one of our own, which fills the screen.

        Raises:
            RefusedError: somebody is using the keyboard or the mouse.
            XAnswerError: there is no such window.
            XGoneError: the server has gone.
        """
        self._client = client
        self._own = not window
        self._pointer: tuple[int, int] | None = None
        window = window or self._open()
        self._canvas = Canvas(client, window)
        self._canvas.hear(_STRUCTURE | (_INPUT if self._own else 0))
        if self._own:
            self._grab()
        client.ask(_GET_INPUT_FOCUS, 0, b"")  # now the window is there

    def run(self, watch: Watch) -> None:
        """Draw until somebody comes back, or the window goes.

        Raises:
            XGoneError: the server has gone.
        """
        watch.start()
        watch.asked.wait(FIRST_S)
        began = drawn = time.monotonic()
        while True:
            now = time.monotonic()
            if now >= drawn:
                self._draw(lines(watch.status, watch.names, datetime.now()), now - began)  # noqa: DTZ005  people's clock
                drawn = now + FRAME_S
            select.select([self._client], [], [], max(0.0, drawn - time.monotonic()))
            for event in self._client.events():
                if self._ends(event):
                    return

    def _ends(self, event: bytes) -> bool:
        kind = event[0] & 0x7F
        if kind == _CONFIGURED:
            self._canvas.resize()
        elif self._own and kind == _MOTION:
            x, y = struct.unpack_from("<hh", event, 20)
            if self._pointer is None:
                self._pointer = (x, y)
            return bool(abs(x - self._pointer[0]) + abs(y - self._pointer[1]) > MOVED_PIXELS)
        return kind == _DESTROYED or (self._own and kind in (_KEY, _BUTTON))

    def _draw(self, picture: list[Line], seconds: float) -> None:
        canvas = self._canvas
        doublings = 2 if canvas.width >= WIDE_PIXELS else 1 if canvas.width > canvas.letter_width * 100 else 0
        letters = max(1, canvas.width // (canvas.letter_width << doublings))
        step = (canvas.letter_height << doublings) * 5 // 4
        drawn = [(line, canvas.text(line.text[: letters >> line.large], doublings + line.large)) for line in picture]
        width = max(1, *(text.width for _, text in drawn))
        height = sum(step << line.large for line, _ in drawn)
        pixmap = canvas.begin(width, height)
        y = 0
        for line, text in drawn:
            canvas.put(pixmap, line.color, text, 0, y)
            if line.part is not None:
                thick, at = 1 << doublings, y + len(text.rows)
                canvas.fill(pixmap, DIM, [(0, at, width, thick)])
                canvas.fill(pixmap, line.color, [(0, at, round(width * max(0.0, min(1.0, line.part))), thick)])
            y += step << line.large
        x, y = place(seconds, (canvas.width - width, canvas.height - height))
        canvas.show(pixmap, x, y, width, height)

    def _open(self) -> int:
        """Return a new window over all others; the pointer is not to be seen there."""
        client, screen = self._client, self._client.screen
        window, pixmap, cursor = client.new_id(), client.new_id(), client.new_id()
        client.tell(_CREATE_PIXMAP, 1, struct.pack("<IIHH", pixmap, screen.root, 1, 1))
        client.tell(_CREATE_CURSOR, 0, struct.pack("<III", cursor, pixmap, pixmap) + bytes(16))
        # Background, no window manager, cursor.
        values = struct.pack("<IIII", 1 << 1 | 1 << 9 | 1 << 14, screen.black, 1, cursor)
        head = struct.pack("<IIhhHHHHI", window, screen.root, 0, 0, screen.width, screen.height, 0, 1, 0)
        client.tell(_CREATE_WINDOW, 0, head + values)
        client.tell(_MAP_WINDOW, 0, struct.pack("<I", window))
        return window

    def _grab(self) -> None:
        """Have all keys, clicks and movements come to us."""
        window = self._canvas.window
        pointer = struct.pack("<IHBBIII", window, 1 << 2 | 1 << 6, 1, 1, 0, 0, 0)
        keyboard = struct.pack("<IIBBxx", window, 0, 1, 1)
        until = time.monotonic() + GRAB_S
        for opcode, body in ((_GRAB_KEYBOARD, keyboard), (_GRAB_POINTER, pointer)):
            while self._client.ask(opcode, 0, body)[1]:
                if time.monotonic() > until:
                    raise RefusedError("another program holds the keyboard or the mouse; close its menu and try again")
                time.sleep(0.1)
