"""`p2pq screensaver` on a screen of a test's own: where it draws, what ends it, and that its end is seen."""

import os
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from p2pq.daemon.sensors import Sensors
from p2pq.daemon.sensors.xclient import XClient
from tests.covers import covers
from tests.desktopkit import XServer, x_server

pytestmark = [pytest.mark.desktop, pytest.mark.slow]
SIZE = (640, 400)


def environment(real: XServer, home: Path, **more: str) -> dict[str, str]:
    root = str(Path(__file__).parents[3])
    return os.environ | real.environ | {"P2PQ_HOME": str(home), "PYTHONPATH": root} | more


@contextmanager
def saver(real: XServer, home: Path, *options: str, **more: str) -> Iterator["subprocess.Popen[str]"]:
    """Run the screensaver, and kill it if a test has not ended it."""
    argv = [sys.executable, "-m", "p2pq", "screensaver", *options]
    with subprocess.Popen(argv, env=environment(real, home, **more), stderr=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def until(condition: Callable[[], object]) -> None:
    """Ask again and again until it is so."""
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def lit(real: XServer) -> list[tuple[int, int]]:
    """Return where there is light."""
    width, _, colors = real.pixels()
    return [(at % width, at // width) for at in range(len(colors) // 3) if any(colors[3 * at : 3 * at + 3])]


def reads(home: Path, real: XServer) -> bool:
    """Tell what the sensors say of it."""
    sensors = Sensors(home, needs=("screen",), environ=real.environ)
    try:
        readings = sensors.readings()
    finally:
        sensors.close()
    assert not (readings.saver and readings.full_screen)
    return readings.saver


@pytest.fixture
def real(tmp_path: Path) -> Iterator[XServer]:
    with x_server(tmp_path, f"{SIZE[0]}x{SIZE[1]}") as server:
        yield server


@pytest.fixture
def home(tmp_path: Path) -> Path:
    made = tmp_path / "home"
    made.mkdir(mode=0o700)
    return made


COMES_BACK = {
    "key": (["key", "a"],),
    "click": (["click", "1"],),
    "movement": (["mousemove", "10", "10"], ["mousemove", "300", "300"]),
}


@covers("screensaver")
@pytest.mark.parametrize("how", COMES_BACK)
def test_a_window_of_its_own_is_there_until_somebody_comes_back(real: XServer, home: Path, how: str) -> None:
    assert not reads(home, real)
    with saver(real, home) as process:  # p2pq screensaver
        argv = process.args
        assert isinstance(argv, list)
        assert argv[-1] == "screensaver"
        until(lambda: lit(real))
        assert reads(home, real)
        for command in COMES_BACK[how]:
            real.do("xdotool", *command)
        assert process.wait(60) == 0
    assert not reads(home, real)


def test_a_table_that_is_knocked_against_does_not_end_it(real: XServer, home: Path) -> None:
    real.do("xdotool", "mousemove", "100", "100")
    with saver(real, home) as process:
        until(lambda: lit(real))
        real.do("xdotool", "mousemove", "102", "101", "mousemove", "104", "103")
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(0.5)
        real.key()
        assert process.wait(60) == 0


def window(client: XClient, *, at: tuple[int, int], size: tuple[int, int]) -> int:
    """Open a window that no window manager touches."""
    made = client.new_id()
    head = struct.pack("<IIhhHHHHI", made, client.screen.root, *at, *size, 0, 1, 0)
    client.tell(1, 0, head + struct.pack("<III", 1 << 1 | 1 << 9, client.screen.black, 1))
    client.tell(8, 0, struct.pack("<I", made))
    client.ask(43, 0, b"")
    return made


@covers("screensaver --window")
@pytest.mark.parametrize("by", ["option", "as xscreensaver has it", "environment"])
def test_a_window_that_is_given_is_drawn_in_until_it_closes(real: XServer, home: Path, by: str) -> None:
    client = XClient(real.number, b"", answer_s=20)
    made = window(client, at=(320, 0), size=(320, 400))
    options = {"option": ["--window", hex(made)], "as xscreensaver has it": ["-window-id", hex(made)]}.get(by, [])
    more = {} if options else {"XSCREENSAVER_WINDOW": str(made)}
    with saver(real, home, *options, **more) as process:
        until(lambda: lit(real))
        assert all(x >= 320 for x, _ in lit(real))
        real.do("xdotool", "key", "a", "click", "1")  # that is for whoever has opened it
        assert reads(home, real)
        client.tell(4, 0, struct.pack("<I", made))
        client.ask(43, 0, b"")
        assert process.wait(60) == 0
    assert not reads(home, real)
    client.close()


@covers("screensaver --root")
def test_the_background_is_drawn_on(real: XServer, home: Path) -> None:
    client = XClient(real.number, b"", answer_s=20)
    window(client, at=(0, 0), size=(320, 400))
    with saver(real, home, "--root") as process:
        until(lambda: lit(real))
        assert all(x >= 320 for x, _ in lit(real))  # the window is before it
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == -signal.SIGTERM
    assert not reads(home, real)
    client.close()


def test_it_ends_with_the_session(real: XServer, home: Path) -> None:
    with saver(real, home) as process:
        until(lambda: lit(real))
        real.close()
        assert process.wait(60) == 0


def test_when_it_is_killed_nothing_says_that_it_runs(real: XServer, home: Path) -> None:
    with saver(real, home) as process:
        until(lambda: lit(real))
        assert reads(home, real)
        process.kill()
        process.wait(60)
        assert not reads(home, real)


def test_where_the_keyboard_is_held_it_does_not_start(real: XServer, home: Path) -> None:
    client = XClient(real.number, b"", answer_s=20)
    assert client.ask(31, 0, struct.pack("<IIBBxx", client.screen.root, 0, 1, 1))[1] == 0
    with saver(real, home) as process:
        _, said = process.communicate(timeout=60)
        assert process.returncode == 4
        assert said == "p2pq: another program holds the keyboard or the mouse; close its menu and try again\n"
    assert not lit(real)
    client.close()


@pytest.mark.parametrize(
    ("options", "more", "code", "said"),
    [
        (["--window", "seven"], {}, 2, "'seven' is no window; give its number"),
        (["--window", "0x7777"], {}, 4, "refuses to let us draw in window 0x7777"),
        ([], {"DISPLAY": ""}, 2, "DISPLAY names no X server of this machine"),
        ([], {"DISPLAY": "far:0"}, 2, "DISPLAY names no X server of this machine"),
        ([], {"DISPLAY": ":65000"}, 4, "the X server :65000 cannot be reached"),
    ],
)
def test_bad_input_gets_one_sentence(
    real: XServer, home: Path, options: list[str], more: dict[str, str], code: int, said: str
) -> None:
    with saver(real, home, *options, **more) as process:
        _, error = process.communicate(timeout=60)
        assert process.returncode == code
        assert said in error
        assert len(error.splitlines()) == 1
