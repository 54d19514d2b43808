"""X servers that come, tell, and go."""

import contextlib
import socket
import struct
import subprocess
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from p2pq.daemon.sensors import displays
from p2pq.daemon.sensors.displays import AGAIN_S, RESCAN_S, Displays
from p2pq.daemon.sensors.kin import Kin
from p2pq.daemon.sensors.xclient import XClient, XGoneError
from tests.desktopkit import XServer, x_server
from tests.unit.daemon.sensors.prockit import FakeProc


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A test does not depend on how quick a server is."""
    monkeypatch.setattr(displays, "ANSWER_S", 20)


class Looked:
    """Displays of an environment, and their clock."""

    def __init__(self, environ: dict[str, str], root: Path | str = "", ours: tuple[int, ...] = ()) -> None:
        self.now = 100.0
        self.displays = Displays(environ, Kin(lambda: ours, str(root)), str(root), lambda: self.now)


@pytest.mark.desktop
def test_a_key_is_seen_at_once(tmp_path: Path) -> None:
    with x_server(tmp_path) as real:
        found = Looked(real.environ).displays
        assert found.look()
        real.do("xdotool", "key", "a", "sleep", "0.3")
        ((number, idle),) = found.each(lambda display: display.idle())
        assert number == real.number
        assert idle.seconds >= 0.25
        assert not idle.blanked
        real.key()
        ((_, again),) = found.each(lambda display: display.idle())
        assert again.seconds < idle.seconds + 0.25
        found.close()


@pytest.mark.desktop
def test_a_blanked_screen_is_seen(tmp_path: Path) -> None:
    with x_server(tmp_path) as real:
        found = Looked(real.environ).displays
        found.look()
        real.do("xset", "s", "activate")
        assert [idle.blanked for _, idle in found.each(lambda display: display.idle())] == [True]
        real.do("xset", "s", "reset")
        assert [idle.blanked for _, idle in found.each(lambda display: display.idle())] == [False]
        found.close()


class Drawn:
    """A client of a real server that plays window manager and program."""

    def __init__(self, real: XServer) -> None:
        self.client = XClient(real.number, b"", answer_s=20)
        self.root = self.client.screen.root

    def window(self, width: int, height: int) -> int:
        made = self.client.new_id()
        self.client.tell(1, 0, struct.pack("<IIhhHHHHII", made, self.root, 0, 0, width, height, 0, 1, 0, 0))
        self.client.tell(8, 0, struct.pack("<I", made))
        return made

    def put(self, window: int, name: str, *values: int) -> None:
        body = struct.pack(f"<IIIBxxxI{len(values)}I", window, self.client.atom(name), 33, 32, len(values), *values)
        self.client.tell(18, 0, body)
        self.client.ask(43, 0, b"")

    def focus(self, window: int) -> None:
        self.client.tell(42, 0, struct.pack("<II", window, 0))
        self.client.ask(43, 0, b"")


@pytest.mark.desktop
def test_a_window_that_fills_the_screen_is_seen(tmp_path: Path) -> None:
    with x_server(tmp_path, "400x300") as real:
        found = Looked(real.environ).displays
        found.look()

        def full() -> list[bool]:
            return [each for _, each in found.each(lambda display: display.full_screen())]

        drawn = Drawn(real)
        assert full() == [False]
        drawn.focus(drawn.window(399, 300))  # without a window manager
        assert full() == [False]
        drawn.focus(drawn.window(400, 300))
        assert full() == [True]
        small = drawn.window(200, 200)
        drawn.put(drawn.root, "_NET_SUPPORTING_WM_CHECK", small)
        assert full() == [False]
        drawn.put(drawn.root, "_NET_ACTIVE_WINDOW", small)
        assert full() == [False]
        drawn.put(small, "_NET_WM_STATE", 5, drawn.client.atom("_NET_WM_STATE_FULLSCREEN"))
        assert full() == [True]
        large = drawn.window(400, 300)
        drawn.put(drawn.root, "_NET_ACTIVE_WINDOW", large)
        assert full() == [True]
        drawn.put(large, "_NET_WM_WINDOW_TYPE", drawn.client.atom("_NET_WM_WINDOW_TYPE_DESKTOP"))
        assert full() == [False]
        drawn.put(drawn.root, "_NET_ACTIVE_WINDOW", 0x7777)  # closed meanwhile
        assert full() == []
        assert found.look()
        assert not found.refused
        drawn.client.close()
        found.close()


@pytest.mark.desktop
def test_xscreensaver_says_on_the_root_window_that_it_is_on(tmp_path: Path) -> None:
    with x_server(tmp_path) as real:
        found = Looked(real.environ).displays
        found.look()
        drawn = Drawn(real)
        assert found.each(lambda display: display.dark()) == [(real.number, False)]
        drawn.put(drawn.root, "_SCREENSAVER_STATUS", 0, 5, 5)
        assert found.each(lambda display: display.dark()) == [(real.number, False)]
        drawn.put(drawn.root, "_SCREENSAVER_STATUS", 1, 5, 5)
        assert found.each(lambda display: display.dark()) == [(real.number, True)]
        drawn.client.close()
        found.close()


@pytest.mark.desktop
def test_a_server_that_ends_is_let_go_of_and_one_that_comes_again_is_found(tmp_path: Path) -> None:
    with x_server(tmp_path) as real:
        looked = Looked({**real.environ, "DISPLAY": ":999"}, tmp_path)
        fake = FakeProc(tmp_path)
        fake.process(7)
        (fake.proc / "7" / "environ").write_text(f"A=b\0DISPLAY=:{real.number}\0")
        (tmp_path / "tmp").mkdir()
        (tmp_path / "tmp" / ".X11-unix").symlink_to("/tmp/.X11-unix")
        assert looked.displays.look()
        real.close()
        assert looked.displays.each(lambda display: display.idle()) == []
        assert looked.displays.refused[0].startswith(f"X server :{real.number}: ")
        assert not looked.displays.look()
        with x_server(tmp_path) as again:
            (fake.proc / "7" / "environ").write_text(f"DISPLAY=:{again.number}.0\0")
            assert not looked.displays.look()
            looked.now += AGAIN_S
            assert looked.displays.look()
            assert not looked.displays.refused
            looked.displays.close()


@pytest.mark.desktop
def test_a_session_is_found_from_outside_of_it_and_without_a_word_of_our_own(tmp_path: Path) -> None:
    with x_server(tmp_path) as real, subprocess.Popen(["cat"], env=real.environ, stdin=subprocess.PIPE) as inside:
        assert inside.stdin is not None
        reader = Kin(lambda: ())
        reader.look()
        found = Displays({"HOME": str(tmp_path)}, Kin(lambda: (), "/nonexistent"))
        with contextlib.closing(found):
            deadline = time.monotonic() + 60
            while real.number not in dict(found.each(lambda display: display.number)):
                assert time.monotonic() < deadline  # there may be others: a look does not ask for all of them
                found.look()
        inside.stdin.close()


def fake_machine(tmp_path: Path) -> FakeProc:
    (tmp_path / "tmp" / ".X11-unix").mkdir(parents=True)
    return FakeProc(tmp_path)


def test_what_our_own_processes_say_of_displays_is_not_believed(tmp_path: Path) -> None:
    fake = fake_machine(tmp_path)
    for pid in (7, 8):
        fake.process(pid)
        (fake.proc / str(pid) / "environ").write_text("WAYLAND_DISPLAY=wayland-0\0")
    looked = Looked({}, tmp_path, ours=(7, 8))
    assert not looked.displays.look()
    assert not looked.displays.wayland
    looked = Looked({}, tmp_path, ours=(7,))
    looked.displays.look()
    assert looked.displays.wayland


@pytest.mark.parametrize("display", ["", "localhost:10.0", "far:0", ":x", ":-1", ":123456", "/private/tmp/x:0"])
def test_displays_of_other_machines_are_none_of_ours(tmp_path: Path, display: str) -> None:
    fake_machine(tmp_path)
    looked = Looked({"DISPLAY": display}, tmp_path)
    assert not looked.displays.look()
    assert looked.displays.refused == ()


def test_on_a_wayland_desktop_no_x_server_is_started_by_asking_for_it(tmp_path: Path) -> None:
    fake_machine(tmp_path)
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "tmp" / ".X11-unix" / "X0"))
        listening.listen()
        listening.settimeout(0)
        looked = Looked({"DISPLAY": ":0", "WAYLAND_DISPLAY": "wayland-0"}, tmp_path)
        assert not looked.displays.look()
        assert looked.displays.wayland
        with pytest.raises(BlockingIOError):
            listening.accept()


def test_a_server_that_does_not_let_us_in_is_named_and_one_that_is_dead_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(displays, "ANSWER_S", 0.02)
    fake_machine(tmp_path)
    for name in ("X3", "X4"):
        with socket.socket(socket.AF_UNIX) as left_behind:
            left_behind.bind(str(tmp_path / "tmp" / ".X11-unix" / name))
    (tmp_path / "tmp" / ".X11-unix" / "X4").unlink()
    (tmp_path / "tmp" / ".X11-unix" / "X9").touch()
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "tmp" / ".X11-unix" / "X4"))
        listening.listen()
        looked = Looked({}, tmp_path)
        assert not looked.displays.look()
        assert looked.displays.refused == ("X server :4: timed out",)
        looked.now += RESCAN_S
    looked.displays.look()
    assert looked.displays.refused == ()


class Dialled(Looked):
    """A machine whose sockets are mere names, and what answers where one is dialled."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, names: int, **environ: str) -> None:
        super().__init__(environ, tmp_path)
        self.fake = fake_machine(tmp_path)
        self.folder = tmp_path / "tmp" / ".X11-unix"
        for number in range(names):
            (self.folder / f"X{number}").touch()
        self.numbers: list[int] = []
        self.good: set[int] = set()
        self.silent = True
        """Those that are not good take their time, else nobody listens there."""
        self.takes_s = 0.0
        monkeypatch.setattr(displays, "XClient", self.dial)
        monkeypatch.setattr(displays, "Display", lambda client: client)

    def dial(self, number: int, *_: object, **__: object) -> SimpleNamespace:
        self.numbers.append(number)
        self.now += self.takes_s
        if number in self.good:
            return SimpleNamespace(number=number, rootless=False, close=lambda: None)
        raise XGoneError("timed out") from (TimeoutError() if self.silent else None)

    def look(self, after: float = AGAIN_S) -> list[int]:
        """Look; return who was dialled."""
        self.now += after
        self.numbers.clear()
        self.displays.look()
        return list(self.numbers)


def test_thousands_of_sockets_that_never_answer_cost_little(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Dialled(monkeypatch, tmp_path, 40)
    machine.takes_s = displays.FIND_S / 3
    first = machine.look(0)
    assert 1 <= len(first) <= 3
    assert machine.now <= 100.0 + displays.FIND_S + 1e-6
    assert len(machine.displays.refused) == len(first) + 1  # and there may be more
    machine.takes_s = 0.0
    asked = first
    while len(asked) < 40:
        found = machine.look()
        assert 1 <= len(found) <= displays.DIALS_MAX
        asked += found
    assert sorted(asked) == list(range(40))
    assert len(machine.displays.refused) == 40
    assert machine.look() == []
    assert machine.look(RESCAN_S)[0] == first[0]
    for path in machine.folder.iterdir():
        path.unlink()
    assert machine.look() == []
    assert machine.displays.refused == ()
    assert machine.displays._known == {}


def test_a_server_behind_many_that_are_dead_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Dialled(monkeypatch, tmp_path, 30)
    machine.silent = False
    machine.good = {12}
    assert machine.look(0) == list(range(8))
    assert machine.displays.refused == ("X server :8: there are more than can be asked at once",)
    assert machine.look() == list(range(8, 16))
    assert [number for number, _ in machine.displays.each(lambda each: each.number)] == [12]
    assert machine.displays.refused  # one of the rest may be in use, too
    assert (machine.look() + machine.look())[:14] == list(range(16, 30))
    assert machine.displays.refused == ()
    assert machine.look() == []  # for RESCAN_S


def test_our_own_display_is_asked_first_and_then_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Dialled(monkeypatch, tmp_path, 40, DISPLAY=":33")
    machine.takes_s = displays.FIND_S
    assert machine.look(0) == [33]
    machine.takes_s = 0.0
    assert machine.look() == list(range(8))
    machine.good = {33}
    found = machine.look(RESCAN_S)
    assert found == [33]
    assert machine.displays.refused == ()


def test_more_sockets_than_anybody_needs_are_not_even_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(displays, "SOCKETS_MAX", 3)
    machine = Dialled(monkeypatch, tmp_path, 9)
    machine.silent = False
    assert len(machine.look(0)) == len(machine.look()) == 4
    ((number, _),) = [(int(each[10]), each) for each in machine.displays.refused]
    assert 0 <= number < 9
    assert len(machine.displays._known) == 4


def test_a_strange_server_that_falls_silent_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fall_silent(_: object) -> None:
        raise XGoneError("timed out") from TimeoutError()

    machine = Dialled(monkeypatch, tmp_path, 1)
    machine.good = {0}
    assert machine.look(0) == [0]
    assert machine.displays.each(fall_silent) == []
    assert machine.displays.refused == ("X server :0: timed out",)
    assert displays.trouble(machine.displays.refused) == "X server :0: timed out; it is asked again soon"
    assert machine.look() == [0], "once that may be for all that goes on here"
    assert machine.displays.each(fall_silent) == []
    assert machine.look() == []
    assert machine.displays.refused == ("X server :0: timed out",)
    assert machine.look(RESCAN_S) == [0]
    assert machine.displays.refused == ()
    machine.look(displays.LATE_S)
    assert machine.displays.each(fall_silent) == []
    assert machine.look() == [0]


def test_processes_that_name_more_than_can_be_asked_are_heard_soon(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine = Dialled(monkeypatch, tmp_path, 2, DISPLAY=":0")
    machine.fake.process(7)
    (machine.fake.proc / "7" / "environ").write_text("DISPLAY=:1\0")
    machine.takes_s = displays.FIND_S
    machine.good = {1}
    assert machine.look(0) == [0]
    assert len(machine.displays.refused) == 2
    assert machine.look() == [1]
    assert machine.displays.refused == ("X server :0: timed out",)
