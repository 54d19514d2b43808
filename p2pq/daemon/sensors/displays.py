"""X servers of this machine: which there are, and what they say of whoever sits there.

A node may have been started by ssh or by the service manager, without a word about a screen; then the environment of the
user's other processes tells. Servers that come later, or come again, are found later.
"""

import math
import os
import re
import socket
import stat
import struct
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final, NamedTuple, TypeVar

from p2pq.daemon.sensors import peeking, xauthority
from p2pq.daemon.sensors.kin import Kin
from p2pq.daemon.sensors.xclient import FOLDER, XAnswerError, XClient, XGoneError

ANSWER_S: Final = 0.02
"""A server that takes longer is let go of for some seconds."""
AGAIN_S: Final = 2.0
"""Look for servers again after that, where there is none,"""
RESCAN_S: Final = 30.0
"""and after that, where there are some. One that refused or was silent is not dialled again before that either."""
LATE_S: Final = 300.0
"""One that is silent twice within that is let go of for longer."""
TIMED_OUT: Final = "timed out"
DISPLAYS_MAX: Final = 8
DIALS_MAX: Final = 8
"""So many of those that nobody but their socket's name tells of are dialled in one look: everybody may make sockets there,"""
FIND_S: Final = 0.06
"""and it takes no longer than that."""
SOCKETS_MAX: Final = 1000
"""More than that are not looked at."""
_LAST_DIAL_S: Final = FIND_S - ANSWER_S
_SOCKET: Final = re.compile(r"X(\d{1,5})")
_UNASKED: Final = "there are more than can be asked at once"
_LOCAL: Final = re.compile(r"(?:unix)?:(\d{1,5})(?:\.\d+)?")
_GET_GEOMETRY: Final = 14
_GET_INPUT_FOCUS: Final = 43
_SAVER_QUERY_INFO: Final = 1
_DPMS_INFO: Final = 7
_SAVER_ON: Final = 1

T = TypeVar("T")


class Idle(NamedTuple):
    """What a server's screen saver extension says."""

    seconds: float
    """Since the last key or mouse event."""
    blanked: bool


class Word(NamedTuple):
    """What came of dialling a server that did not let us in."""

    at: float
    refused: str
    """Why it does not; empty where nobody listened."""


class Display:
    """One X server that lets us in."""

    def __init__(self, client: XClient) -> None:
        """Take a connection."""
        self._client = client
        self.number = client.display
        self.rootless = bool(client.extension("XWAYLAND"))
        """A guest of a Wayland desktop: it hears of keys only what is meant for its own windows."""
        self.tells = bool(client.extension("MIT-SCREEN-SAVER"))

    def close(self) -> None:
        """Close the connection."""
        self._client.close()

    def idle(self) -> Idle:
        """Return how long nobody has touched anything, and whether the server has blanked its screen."""
        client = self._client
        opcode = client.extension("MIT-SCREEN-SAVER")
        reply = client.ask(opcode, _SAVER_QUERY_INFO, struct.pack("<I", client.screen.root))
        (milliseconds,) = struct.unpack_from("<I", reply, 16)
        return Idle(milliseconds / 1000, reply[1] == _SAVER_ON)

    def dark(self) -> bool:
        """Tell whether the monitor is off, or xscreensaver has blanked or locked the screen."""
        client = self._client
        opcode = client.extension("DPMS")
        if opcode:
            level, enabled = struct.unpack_from("<H?", client.ask(opcode, _DPMS_INFO, b""), 8)
            if enabled and level:
                return True
        status = client.property(client.screen.root, "_SCREENSAVER_STATUS")
        return bool(status and status[0])

    def full_screen(self) -> bool:
        """Tell whether the window in front fills its screen."""
        client = self._client
        root = client.screen.root
        if client.property(root, "_NET_SUPPORTING_WM_CHECK"):
            front = (client.property(root, "_NET_ACTIVE_WINDOW") or (0,))[0]
            if not front:
                return False
            if client.atom("_NET_WM_STATE_FULLSCREEN") in client.property(front, "_NET_WM_STATE"):
                return True
            if client.atom("_NET_WM_WINDOW_TYPE_DESKTOP") in client.property(front, "_NET_WM_WINDOW_TYPE"):
                return False
        else:
            (front,) = struct.unpack_from("<I", client.ask(_GET_INPUT_FOCUS, 0, b""), 8)
            if front in (0, 1, root):  # none, and whatever the pointer is on
                return False
        width, height = struct.unpack_from("<HH", client.ask(_GET_GEOMETRY, 0, struct.pack("<I", front)), 16)
        return bool(width >= client.screen.width and height >= client.screen.height)


class Displays:
    """Those X servers of this machine that let us in, now. Not for several threads."""

    def __init__(
        self,
        environ: Mapping[str, str],
        kin: Kin,
        root: str = "",
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Look for them in an environment, below ``root``, and in the environment of this user's processes but for ours."""
        self._environ = environ
        self._kin = kin
        self._root = root
        self._folder = root + FOLDER
        self._clock = clock
        self._open: dict[int, Display] = {}
        self._looked: float | None = None
        self._lost = False
        self._known: dict[tuple[int, str], Word] = {}
        """Those dialled in vain, by number and file of cookies; forgotten once nothing names them any more."""
        self._late: dict[int, float] = {}
        """When servers that nobody but their socket's name tells of did not answer in time."""
        self._named: set[tuple[int, str]] = set()
        """What is named in this look,"""
        self._told: set[int] = set()
        """and which servers by an environment, not by a socket that anybody may have made."""
        self._spent_s = 0.0
        """What dialling took in this look."""
        self._scans = False
        """Some of the sockets were not asked yet."""
        self.wayland = False
        """A Wayland desktop of this user runs."""
        self.refused: tuple[str, ...] = ()
        """Servers that do not let us in, or have just stopped to answer, with why."""

    def close(self) -> None:
        """Let go of all."""
        for display in self._open.values():
            display.close()
        self._open.clear()
        self._looked = None

    def look(self) -> bool:
        """Look for servers, if it is time; tell whether there is any that lets us in."""
        now = self._clock()
        pause_s = RESCAN_S if self._open and not self._lost else AGAIN_S
        if self._looked is None or now - self._looked >= pause_s:
            self._looked = now
            self._lost = False
            self._find()
        return bool(self._open)

    def each(self, ask: Callable[[Display], T]) -> list[tuple[int, T]]:
        """Ask each server and return answers by its number; one that does not answer is let go of, and has none."""
        answers = []
        for number, display in sorted(self._open.items()):
            try:
                answers.append((number, ask(display)))
            except XAnswerError:
                continue  # a window that closed meanwhile
            except XGoneError as error:
                display.close()
                del self._open[number]
                self._lost = True
                if number not in self._told and isinstance(error.__cause__, TimeoutError):
                    # On a busy machine anybody may be late once; who is again is let alone for longer.
                    now = self._clock()
                    if now - self._late.get(number, -math.inf) < LATE_S:
                        self._known[number, self._cookies(self._environ)] = Word(now, str(error))
                    self._late = {each: at for each, at in self._late.items() if now - at < LATE_S} | {number: now}
                self.refused = (*self.refused, f"X server :{number}: {error}")
        return answers

    def _find(self) -> None:
        self.wayland = False
        self._spent_s = 0.0
        self._named.clear()
        for environ in self._environments():
            self._try(environ)
            if self._open and environ is self._environ:
                break
        self._told = {number for number, _ in self._named}
        unasked = None
        if not self.wayland and (not self._open or (self._scans and self._told.isdisjoint(self._open))):
            unasked = self._scan()
        self._scans = unasked is not None
        self._known = {key: word for key, word in self._known.items() if key in self._named}
        vain = [(number, word.refused) for (number, _), word in self._known.items() if word.refused]
        refused = {number: why for number, why in vain if number not in self._open}
        if unasked is not None:
            refused.setdefault(unasked, _UNASKED)
        self._lost = _UNASKED in refused.values()
        self.refused = tuple(f"X server :{number}: {why}" for number, why in refused.items())

    def _scan(self) -> int | None:
        """Dial some of those that have a socket, first whom it has been longest for; return one that never was, if any."""
        file = self._cookies(self._environ)
        names = peeking.some_names(self._folder, SOCKETS_MAX + 1)
        keys = [(int(named[1]), file) for named in map(_SOCKET.fullmatch, names) if named]
        keys.sort(key=lambda key: (self._known[key].at if key in self._known else -math.inf, key))
        self._named.update(keys)
        left = DIALS_MAX
        unasked = keys[-1][0] if len(names) > SOCKETS_MAX and keys else None
        for key in keys:
            if len(self._open) >= DISPLAYS_MAX or self.wayland:
                break
            if left and self._may_dial():
                left -= self._dial(key)
            elif key[0] not in self._open and key not in self._known:
                return key[0]
        return unasked

    def _may_dial(self) -> bool:
        return self._spent_s <= _LAST_DIAL_S

    def _cookies(self, environ: Mapping[str, str]) -> str:
        return environ.get("XAUTHORITY") or os.path.join(self._environ.get("HOME", ""), ".Xauthority")

    def _try(self, environ: Mapping[str, str]) -> None:
        """Open what an environment names."""
        if environ.get("WAYLAND_DISPLAY"):
            self.wayland = True  # what is there for X programs is started on demand, and hears little
            return
        named = _LOCAL.fullmatch(environ.get("DISPLAY", ""))
        if named is not None:
            key = int(named[1]), self._cookies(environ)
            self._named.add(key)
            if not self._may_dial():
                self._known.setdefault(key, Word(-math.inf, _UNASKED))
            else:
                self._dial(key)

    def _dial(self, key: tuple[int, str]) -> bool:
        """Open a server, unless that was in vain lately; tell whether it was dialled."""
        number, file = key
        began, word, path = self._clock(), self._known.get(key), f"{self._folder}/X{number}"
        if number in self._open or len(self._open) >= DISPLAYS_MAX:
            return False
        if word is not None and word.refused and began - word.at < RESCAN_S and os.path.exists(path):
            return False
        cookie = xauthority.cookie(peeking.read_plain(file, xauthority.FILE_BYTES_MAX), number)
        client = None
        try:
            client = XClient(number, cookie, answer_s=ANSWER_S, folder=self._folder)
            display = Display(client)
        except (XGoneError, XAnswerError) as error:
            if client is not None:
                client.close()
            # Who was silent listens; to find that out once more would take as long again.
            listens = isinstance(error.__cause__, TimeoutError) or _listens(path)
            self._known[key] = Word(began, str(error) if listens else "")
            return True
        finally:
            self._spent_s += self._clock() - began
        self._known.pop(key, None)
        if display.rootless:
            self.wayland = True
            display.close()
        else:
            self._open[number] = display
        return True

    def _environments(self) -> Iterator[Mapping[str, str]]:
        """Yield our environment, then those of this user's processes; what ours (guests!) say is not believed."""
        yield self._environ
        self._kin.look()
        ours = self._kin.pids
        seen = set()
        for pid in peeking.processes(f"{self._root}/proc"):
            folder = f"{self._root}/proc/{pid}"
            if pid in ours or not _belongs_to_us(folder):
                continue
            found = {}
            for line in peeking.read(f"{folder}/environ").split(b"\0"):
                name, _, value = line.partition(b"=")
                if name in (b"DISPLAY", b"XAUTHORITY", b"WAYLAND_DISPLAY"):
                    found[name.decode()] = os.fsdecode(value)
            if found and (key := tuple(sorted(found.items()))) not in seen:
                seen.add(key)
                yield found


def trouble(refused: Sequence[str]) -> str:
    """Return why the first of some servers says nothing, and what to do about it."""
    asks = "it is asked again soon" if refused[0].endswith(TIMED_OUT) else ""
    return f"{refused[0]}; {asks or 'start the node as the user who is logged in there'}"


def _belongs_to_us(path: str) -> bool:
    try:
        return os.stat(path).st_uid == os.geteuid()
    except OSError:
        return False


def _listens(path: str) -> bool:
    """Tell whether somebody listens at a socket, rather than having left it behind."""
    try:
        if not stat.S_ISSOCK(os.stat(path).st_mode):
            return False
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as dial:
            dial.settimeout(ANSWER_S)
            dial.connect(path)
    except ConnectionRefusedError:
        return False
    except OSError:
        return os.path.exists(path)
    return True
