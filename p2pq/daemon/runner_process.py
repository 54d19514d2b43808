"""One runner process: its start, its messages (never trusted), its certain end.

Use it from the event loop's own thread only: the kernel ties ``PR_SET_PDEATHSIG``, by which a sandbox dies with the daemon,
to the thread that started it.
"""

import asyncio
import contextlib
import dataclasses
import json
import os
import signal
import socket
import struct
import subprocess
from collections.abc import Hashable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal, NewType, NoReturn

import msgspec
import psutil

from p2pq.daemon import autogroups, basic, limits, sandbox
from p2pq.daemon.cgroups import Group
from p2pq.daemon.runner_messages import TRAIN_MAX, Gone, Heard, Ready, decode
from p2pq.daemon.scratch import RUNNER_FILES, Scratch
from p2pq.errors import SandboxError
from p2pq.runner import emptying
from p2pq.runner import main as runner_main

if TYPE_CHECKING:
    from p2pq.daemon.hooks import Begun

FRAME_BYTES_MAX: Final = 128 << 10
"""The ends of some tasks, with what they printed."""
PENDING_MAX: Final = TRAIN_MAX + 8
"""A runner never has more messages under way than one task, or one train, makes; more is flooding."""

IN_MEMORY: Final = len(runner_main.IN_MEMORY)
READY_S: Final = 20.0
MARKED_ROUNDS_MAX: Final = 20
STDERR_BYTES_MAX: Final = 4096
OOM_ADJUST: Final = "800"
"""When the machine runs out of memory, the kernel takes tasks first."""

RUNNER_FILE: Final = Path(runner_main.__file__)
MARK: Final = "P2PQ_RUNNER"
"""Names the runner in the environment of tasks at level ``none``, to find what outlived a runner that was killed."""

Level = Literal["strict", "basic", "none"]
RunnerToken = NewType("RunnerToken", str)


class RunnerProcess:
    """A runner from start to certain death."""

    grouped = False
    """Its tasks are behind everything else, and the kernel has to be told so for each of their sessions."""
    furnished: Hashable = None
    """The key of what its folder holds for the next task; None: nothing."""
    tidying: "asyncio.Future[None] | None" = None
    """Its folders are made ready for the next task by that."""
    begun: "Begun | None" = None
    """What its job has run in it before all tasks, once it has."""

    def __init__(
        self,
        level: Level,
        python: sandbox.JobPython,
        scratch: Scratch,
        token: RunnerToken,
        mounts: tuple[sandbox.Mount, ...] = (),
    ) -> None:
        """Start the process; it is usable after ``ready``. In a sandbox it sees ``mounts`` besides.

        Raises:
            SandboxError: the program or bubblewrap could not be started.
        """
        self.level = level
        self.scratch = scratch
        self.token = token
        self.heard: asyncio.Queue[Heard] = asyncio.Queue()
        self.broken = False
        """It must not be used again."""

        self.group: Group | None = None
        """Its control group, where this daemon has been delegated one."""

        self.occupied = False
        """Something of a task may be alive; from its launch until the runner is clean."""

        self._loop = asyncio.get_running_loop()
        self.dead: asyncio.Future[None] = self._loop.create_future()
        """Done when no process of the runner is alive any more."""

        self.in_memory: list[int] = []
        """The sandbox's /tmp and /dev/shm, to count what they hold."""

        self._confinement = basic.confinement(python, scratch, mounts) if level == "basic" else None
        self._buffer = bytearray()
        self._last_words = ""
        self._inner_pid = 0
        self._inner_fd = -1
        self._info_fd = -1
        self._control, theirs = socket.socketpair()
        self._stderr_fd, their_stderr = os.pipe()
        try:
            self._process = self._spawn(python, theirs.fileno(), their_stderr, mounts)
        except BaseException:
            self._control.close()
            os.close(self._stderr_fd)
            self._close_fd("_info_fd")
            raise
        finally:
            theirs.close()
            os.close(their_stderr)
        os.set_blocking(self._stderr_fd, False)
        self._control.setblocking(False)
        self._process_fd = os.pidfd_open(self._process.pid)
        self._loop.add_reader(self._process_fd, self._on_end)
        self._loop.add_reader(self._control, self._on_readable)

    def _spawn(
        self, python: sandbox.JobPython, control: int, stderr: int, mounts: tuple[sandbox.Mount, ...]
    ) -> subprocess.Popen[bytes]:
        inside = [str(python.executable), "-I", "-S", "-B"]
        folder = sandbox.RUNNER_FOLDER if self.level == "strict" else str(self.scratch.runner)
        tail = [str(control), self.level, OOM_ADJUST, folder]
        command = sandbox.StrictCommand(argv=[*inside, str(RUNNER_FILE), *tail], fds=())
        keep = [control]
        if self.level == "strict":
            bwrap = sandbox.find_bwrap()
            if bwrap is None:
                raise SandboxError("bubblewrap (bwrap) is not installed")
            command = sandbox.strict_command(
                bwrap,
                python,
                self.scratch.job,
                [*inside, sandbox.RUNNER_PATH, *tail],
                [
                    sandbox.Mount(RUNNER_FILE, sandbox.RUNNER_PATH),
                    *(sandbox.Mount(file, f"{sandbox.RUNNER_FOLDER}/{name}") for name, file in RUNNER_FILES.items()),
                    *mounts,
                ],
            )
            self._info_fd, theirs = os.pipe()
            command.argv[1:1] = ["--info-fd", str(theirs)]
            command.fds += (theirs,)
        try:
            return subprocess.Popen(
                command.argv,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=stderr,
                cwd="/",
                env={"PATH": os.defpath, "LANG": "C.UTF-8"},
                pass_fds=[*keep, *command.fds],
                start_new_session=True,
            )
        except OSError as error:
            raise SandboxError(f"could not start {command.argv[0]}: {error.strerror}") from error
        finally:
            command.close()

    @property
    def pid(self) -> int:
        """The runner's own process id as this host counts; 0 before ``ready``."""
        return self._inner_pid

    async def ready(self) -> None:
        """Wait until the runner serves.

        Raises:
            SandboxError: it ended or was silent; the message holds what bubblewrap or Python said.
        """
        if self._inner_pid:
            return
        try:
            async with asyncio.timeout(READY_S):
                heard = await self.heard.get()
        except TimeoutError:
            heard = Gone(f"no answer within {READY_S:.0f} s")
        if not isinstance(heard, Ready):
            self.kill()
            await self.wait_dead()
            said = self._last_words or (heard.why if isinstance(heard, Gone) else "a wrong first message")
            raise SandboxError(f"the {self.level} sandbox did not start: {said}")
        if self.level != "strict":
            if self.level == "basic" and not limits.shown(self._process.pid):
                await self._hidden()
            self._inner_pid = self._process.pid
            return
        info = json.loads(os.read(self._info_fd, 4096))
        pid = int(info["child-pid"])
        self._inner_fd = os.pidfd_open(pid)
        self._inner_pid = pid
        if not limits.children(self._process.pid):
            await self._hidden()

    async def _hidden(self) -> NoReturn:
        """End it: what its tasks use could not be counted."""
        self.kill()
        await self.wait_dead()
        raise SandboxError(limits.HIDDEN)

    def _said(self) -> str:
        """Return the end of what the process wrote to standard error, on one printable line."""
        try:
            said = os.read(self._stderr_fd, STDERR_BYTES_MAX).decode(errors="replace")
        except (BlockingIOError, OSError):
            return ""
        line = (said.strip().splitlines() or [""])[-1]
        return "".join(char if char.isprintable() else "?" for char in line)[:300]

    def setup(self, rlimits: Mapping[str, int], keep: list[list[str]], *, idle_priority: bool) -> None:
        """Set what holds for all tasks of this runner. Call once, after ``ready``."""
        if idle_priority:
            self._lower()
            self.grouped = autogroups.enabled()
        self.send(
            {
                "op": "setup",
                "rlimits": dict(rlimits),
                "keep": keep,
                "autogroup": self.grouped,
                "confine": None if self._confinement is None else dataclasses.asdict(self._confinement),
            }
        )

    def _lower(self) -> None:
        """Let everyone else go first: the scheduler's idle class, the lowest nice, the idle class for disks."""
        os.setpriority(os.PRIO_PROCESS, self._inner_pid, 19)
        os.sched_setscheduler(self._inner_pid, os.SCHED_IDLE, os.sched_param(0))
        with contextlib.suppress(psutil.Error, OSError):  # some kernels have no I/O classes
            psutil.Process(self._inner_pid).ionice(psutil.IOPRIO_CLASS_IDLE)

    def pin(self, cpus: frozenset[int]) -> None:
        """Let the next task use these processors only."""
        # What it has imported ahead is in a process of its own, and forks do not ask the runner.
        for pid in limits.tree(self._inner_pid, 2):
            with contextlib.suppress(ProcessLookupError):  # it died: heard as Gone
                os.sched_setaffinity(pid, cpus)

    def send(self, message: dict[str, object], fds: tuple[int, ...] = ()) -> None:
        """Send one frame; a runner that does not read is broken, and is heard of as ``Gone``."""
        body = json.dumps(message, separators=(",", ":")).encode()
        frame = len(body).to_bytes(4, "big") + body
        try:
            # The buffer holds far more than a frame between two tasks; only a hostile runner leaves it full.
            sent = socket.send_fds(self._control, [frame], fds)
            if sent == len(frame):
                return
            self._control.setblocking(True)
            self._control.settimeout(1.0)
            self._control.sendall(frame[sent:])
            self._control.setblocking(False)
        except OSError as error:
            self._fail(f"it does not read: {error}")

    def _on_readable(self) -> None:
        try:
            data, rights, _, _ = self._control.recvmsg(65536, socket.CMSG_SPACE(2 * 4), socket.MSG_CMSG_CLOEXEC)
        except BlockingIOError:
            return
        except OSError:
            data, rights = b"", []
        self._take_descriptors(rights)
        if not data:
            self._fail("it closed its socket")
            return
        self._buffer += data
        while len(self._buffer) >= 4:  # noqa: PLR2004
            size = int.from_bytes(self._buffer[:4], "big")
            if size > FRAME_BYTES_MAX:
                self._fail("it sent an oversized message")
                return
            if len(self._buffer) < 4 + size:
                return
            body = bytes(self._buffer[4 : 4 + size])
            del self._buffer[: 4 + size]
            try:
                message = decode(body)
            except msgspec.MsgspecError:
                self._fail("it sent a malformed message")
                return
            if self.heard.qsize() >= PENDING_MAX:
                self._fail("it flooded the daemon with messages")
                return
            self.heard.put_nowait(message)

    def _take_descriptors(self, rights: list[tuple[int, int, bytes]]) -> None:
        """Keep those that come with the greeting, before any task ran; close all others."""
        for _, _, data in rights:
            for (fd,) in struct.iter_unpack("i", data):
                if self.level == "strict" and not self._inner_pid and len(self.in_memory) < IN_MEMORY:
                    self.in_memory.append(fd)
                else:
                    os.close(fd)

    def _fail(self, why: str) -> None:
        """Note that this runner is lost, tell the attempt, and end it."""
        if not self.broken:
            self.heard.put_nowait(Gone(why))
            self.kill()

    def kill(self) -> None:
        """End everything of this runner now; ``dead`` tells when that is done."""
        self.broken = True
        if self.dead.done():
            return
        self._loop.remove_reader(self._control)
        if self.level == "strict" and not self._inner_pid:
            # bubblewrap killed between its fork and its PR_SET_PDEATHSIG leaves a child that waits for ever (seen). It is
            # through within milliseconds; the runner then finds no daemon and ends.
            self._control.shutdown(socket.SHUT_RDWR)
            self._loop.call_later(READY_S, self._force)
        else:
            self._force()

    def _force(self) -> None:
        """Kill the process tree from the inside out."""
        if self.dead.done():
            return
        if self._inner_fd >= 0:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._inner_fd, signal.SIGKILL)
        elif self._process.returncode is None:
            kill_below(self._process.pid)
        self._process.kill()

    def _on_end(self) -> None:
        """Reap the process; in strict, its end is that of bubblewrap's outer process."""
        self._loop.remove_reader(self._process_fd)
        self._process.wait()
        if not self.broken:
            self._fail("it ended")
        self._loop.remove_reader(self._control)
        if self._inner_fd >= 0:
            # Process 1 is gone only when all others of its namespace are.
            self._loop.add_reader(self._inner_fd, self._on_inner_end)
        else:
            self._finish()

    def _on_inner_end(self) -> None:
        self._loop.remove_reader(self._inner_fd)
        self._finish()

    def _finish(self) -> None:
        try:
            try:
                self._end_the_rest()
            finally:
                self._let_go()
        finally:  # whatever fails: nobody waits for ever
            self.heard.put_nowait(Gone("it ended"))
            self.dead.set_result(None)

    def _end_the_rest(self) -> None:
        """Kill what a task may have left, and remove the control group."""
        if self.level == "none" and self.occupied:
            kill_marked(self.token)
        if self._confinement is not None and self.occupied:
            basic.kill_marked(self._confinement.mark)
        if self.group is not None:
            self.group.remove()

    def _let_go(self) -> None:
        """Close all that was held of the process, and keep its last words."""
        self._control.close()
        while self.in_memory:
            os.close(self.in_memory.pop())
        os.close(self._process_fd)
        self._close_fd("_inner_fd")
        self._close_fd("_info_fd")
        self._last_words = self._said()
        self._close_fd("_stderr_fd")

    async def wait_dead(self) -> None:
        """Wait for the end, however often the waiting is cancelled."""
        await asyncio.shield(self.dead)

    def _close_fd(self, name: str) -> None:
        fd: int = getattr(self, name)
        if fd >= 0:
            os.close(fd)
            setattr(self, name, -1)


def kill_below(pid: int) -> None:
    """Kill all processes below one, again until none is new."""
    killed: set[int] = set()
    while fresh := set(limits.tree(pid, 100_000)[1:]) - killed:
        for child in fresh:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(child, signal.SIGKILL)
        killed |= fresh


def kill_marked(token: RunnerToken) -> None:
    """Kill the processes whose environment names this runner: what a task orphaned by killing its runner.

    Returns when they are dead, or after some seconds where one cannot die.
    """
    mark = f"{MARK}={token}".encode()
    for _ in range(MARKED_ROUNDS_MAX):
        found = False
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                try:
                    if mark not in (entry / "environ").read_bytes().split(b"\0"):
                        continue
                    found = True
                    fd = os.pidfd_open(int(entry.name))
                except OSError:
                    continue  # another user's, or it ended
                with contextlib.suppress(ProcessLookupError):
                    signal.pidfd_send_signal(fd, signal.SIGKILL)
                basic.ended(fd, basic.DIES_S)
                os.close(fd)
        if not found:
            return


def purge(folder: Path) -> None:
    """Kill what an earlier daemon left in sandboxes, or half started, and delete its scratch folders."""
    basic.purge(folder)
    mark = f"{folder}/".encode()
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                argv = (entry / "cmdline").read_bytes().split(b"\0")
                if argv[0].endswith(b"bwrap") and any(arg.startswith(mark) for arg in argv):
                    os.kill(int(entry.name), signal.SIGKILL)
            except OSError:
                continue  # another user's, or it ended
    if folder.is_dir():
        emptying.empty_folder(str(folder))
