"""The program that runs tasks inside a sandbox: standard library only, few imports, of which two lie beside it.

It is started once per job and slot, talks to the daemon over one inherited socket and runs one task after another. In
``strict`` it is process 1 of its PID namespace; in ``basic`` each task is shut in by itself, and so is it: ``confine.py``.
It holds no secret and the daemon believes nothing of what it says beyond the outcome of its own job's tasks, because a task may
have taken it over.

Frames, both ways: four bytes of length, big-endian, then a JSON object with ``op``.

From the daemon: ``setup`` (resource limits; first and once) · ``run`` (with two file descriptors, for standard output and
error, and a third for standard input if there is any) · ``signal`` (to the task's process group) · ``kill`` (everything).
To the daemon: ``ready`` · ``started`` · ``failed`` (could not be executed) · ``exited`` · ``clean`` or ``dirty`` (after each
task, when nothing of it is left or something is).

Short tasks come together: ``train`` (a list of them, with two descriptors that are both read and written) is answered by
``did``, once or several times, which tells how those ended that did since, in order, and what they printed. A train is over when
all have ended, or before that when one takes long (it then goes on as if it had come by ``run``), printed much (that lies in the
files), left anything in the folder that serves them all (``folder.py``) or could not be cleaned up after, or when the daemon says
``halt``; what has not begun by then never does.

A task that may be ``warm`` is forked off a process that has imported what its script does (``zygote.py``, ``warm.py``). Whatever
that one does or fails to do, at worst the task is started from scratch.
"""

import _socket
import binascii
import ctypes
import json
import os
import resource
import select
import signal
import struct
import sys
import time

TYPE_CHECKING = False  # importing typing for real would cost 2 ms at every start
if TYPE_CHECKING:
    from typing import Any

    from p2pq.runner.confine import Rules
    from p2pq.runner.folder import Folder
    from p2pq.runner.zygote import Warmth

HEAD_BYTES = 4
OUTPUTS = 2  # standard output and error; a third descriptor is standard input
FRAME_BYTES_MAX = 4 << 20
TEXT_CHARS_MAX = 200
IN_MEMORY = ("/tmp", "/dev/shm")  # noqa: S108  the sandbox's own, emptied after each task
PR_SET_DUMPABLE = 4
PR_SET_CHILD_SUBREAPER = 36
LONG_S = 0.05
"""Behind a task that takes longer nothing waits."""
TELL_S = 0.04
"""How often it is told what has ended."""
PRINTED_MAX = 4096
"""What a task of a train prints is told with its end, up to so many bytes."""
TOLD_MAX = 32768
"""Printed bytes in one message, about."""

# What the interpreter or this program changed; a task starts with the defaults.
SIGNALS_RESET = (signal.SIGPIPE, signal.SIGXFSZ, signal.SIGCHLD, signal.SIGINT, signal.SIGTERM)


class Runner:
    """Runs the tasks of one job, one at a time, until the daemon closes the socket."""

    def __init__(self, control: _socket.socket, level: str, folder: str, autogroup: int = -1) -> None:
        """Take the control socket; ``level`` is ``strict``, ``basic`` or ``none``; ``folder`` holds our other code.

        ``autogroup`` writes the weight of this session, where the kernel has such.
        """
        self.autogroup = autogroup
        self.lowers = False
        self.control = control
        self.folder = folder
        self.strict = level == "strict"
        self.basic = level == "basic"
        self.rules: Rules | None = None
        """What a task may reach, where it is the runner that shuts it in."""
        self.task_id = 0
        self.pid = 0
        self.started = 0.0
        self.keep: list[list[str]] = []
        self.train: Train | None = None
        self.warmth: Warmth | None = None

    def serve(self, wake_fd: int) -> None:
        """Handle frames and ended children until the socket closes; then leave nothing behind."""
        poll = select.poll()
        poll.register(self.control, select.POLLIN)
        poll.register(wake_fd, select.POLLIN)
        try:
            self.greet()
            while True:
                wait = poll.poll if self.warmth is None else self.warmth.waiting_for(poll)
                ready = {fd for fd, _ in wait(self.patience())}
                if not ready and self.train:
                    self.end_train(pid=self.pid)
                if wake_fd in ready:
                    os.read(wake_fd, 4096)
                    self.reap()
                if self.control.fileno() in ready:
                    self.handle(*self.receive())
        except (EOFError, ConnectionError):
            self.kill_everything()

    def greet(self) -> None:
        """Say that it serves; in strict, with /tmp and /dev/shm, so that the daemon can count what they hold."""
        body = b'{"op":"ready"}'
        fds = [os.open(root, os.O_PATH) for root in IN_MEMORY] if self.strict else []
        rights = [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, struct.pack(f"{len(fds)}i", *fds))]
        self.control.sendmsg([len(body).to_bytes(HEAD_BYTES, "big") + body], rights if fds else [])
        for fd in fds:
            os.close(fd)

    def receive(self) -> "tuple[dict[str, Any], list[int]]":
        """Read one frame and the descriptors that came with it; EOFError when the daemon is gone."""
        head, ancillary, _, _ = self.control.recvmsg(
            HEAD_BYTES, _socket.CMSG_SPACE(12), _socket.MSG_CMSG_CLOEXEC | _socket.MSG_WAITALL
        )
        fds = []
        for _, _, data in ancillary:
            fds += [int.from_bytes(data[i : i + 4], sys.byteorder) for i in range(0, len(data) - 3, 4)]
        size = int.from_bytes(head, "big")
        if len(head) != HEAD_BYTES or size > FRAME_BYTES_MAX:
            raise EOFError
        body = b""
        while len(body) < size:
            part = self.control.recv(size - len(body), _socket.MSG_WAITALL)
            if not part:
                raise EOFError
            body += part
        return json.loads(body), fds

    def send(self, **fields: object) -> None:
        """Send one frame."""
        body = json.dumps(fields, separators=(",", ":")).encode()
        self.control.sendall(len(body).to_bytes(HEAD_BYTES, "big") + body)

    def handle(self, message: "dict[str, Any]", fds: list[int]) -> None:
        """Do what one frame asks."""
        try:
            op = message["op"]
            if self.lowers:
                self.lower_session()
            if op in ("signal", "kill") and message["id"] == self.task_id and self.warmth is not None:
                self.warmth.wait_no_longer()
            busy = self.pid or (self.warmth and self.warmth.waiting)
            if op == "run" and OUTPUTS <= len(fds) <= OUTPUTS + 1 and not busy:
                self.run(message, *fds)
            elif op == "train" and len(fds) == OUTPUTS and not self.pid:
                self.train, fds = Train(message, fds), []
                self.go_on()
            elif op == "halt" and self.train and message["id"] == self.train.id:
                self.end_train(pid=self.pid)
            elif op == "signal" and message["id"] == self.task_id and self.pid:
                os.killpg(self.pid, message["signal"])
            elif op == "kill" and message["id"] == self.task_id and self.pid:
                self.kill_task()
            elif op == "setup":
                self.setup(message)
        except ProcessLookupError:
            pass  # it ended by itself; the child's end is reported as usual
        finally:
            for fd in fds:
                os.close(fd)

    def setup(self, message: "dict[str, Any]") -> None:
        """Apply the resource limits, which every task inherits and none can raise."""
        for name, value in message["rlimits"].items():
            which = getattr(resource, name)
            hard = resource.getrlimit(which)[1]
            capped = value if hard == resource.RLIM_INFINITY else min(value, hard)
            resource.setrlimit(which, (capped, capped))
        self.keep = message["keep"]
        self.lowers = message["autogroup"] and self.autogroup >= 0
        if self.lowers:
            self.lower_session()
        if self.basic:
            self.rules = __import__("confine").enclose(message["confine"], self.folder)

    def lower_session(self) -> None:
        """Lower this whole session against others: under autogroup, priorities only count inside one."""
        try:
            os.write(self.autogroup, b"19")
        except OSError:
            return  # the whole machine may do that ten times a second: again with the next order
        self.lowers = False

    def run(self, message: "dict[str, Any]", out: int, err: int, feed: int = -1) -> None:
        """Start one task, in a warm interpreter if it may be, and say so; without ``feed`` its standard input is empty."""
        if message.get("warm") and self.warmth is None:
            self.warmth = __import__("zygote").Warmth(self, kill_descendants)
        if not (message.get("warm") and self.warmth is not None and self.warmth.take(message, out, err)):
            self.run_cold(message, out, err, feed)

    def run_cold(self, message: "dict[str, Any]", out: int, err: int, feed: int = -1) -> None:
        """Start one task from scratch, in a process group of its own, and say so."""
        failed = self.begin(message, out, err, feed)
        if failed is None:
            self.send(op="started", id=self.task_id, pid=self.pid)
        else:
            self.send(op="failed", id=self.task_id, errno=failed)
            self.finish()

    def begin(self, message: "dict[str, Any]", out: int, err: int, feed: int = -1) -> "int | None":
        """Start one task in a process group of its own; return why it could not be, as an error number, if it could not."""
        self.task_id = message["id"]
        env, what, umask = message["env"], message["cwd"], message.get("umask")
        if umask is not None:
            os.umask(umask)  # all tasks of a runner have the same: they are of one job
        try:
            os.chdir(what)
            os.environ["PATH"] = env.get("PATH", os.defpath)  # posix_spawnp looks there
            self.started = time.monotonic()
            what = message["argv"][0]
            try:
                pid = self.spawn(message["argv"], env, out, err, feed)
            except OSError:
                if not message.get("otherwise"):
                    raise
                pid = self.spawn(message["otherwise"], env, out, err, feed)
        except (OSError, ValueError) as error:
            os.chdir("/")
            os.write(err, f"p2pq: {what}: {getattr(error, 'strerror', None) or error}\n".encode(errors="replace"))
            return getattr(error, "errno", 0) or 0
        os.chdir("/")
        self.pid = pid
        return None

    # -- trains

    def patience(self) -> "float | None":
        """Return for how many milliseconds what runs may take before nothing waits behind it any more."""
        return None if self.train is None else max(0.0, self.started + self.train.long_s - time.monotonic()) * 1000

    def go_on(self) -> None:
        """Begin the next task of the train; without one, or without a folder for it, it is over."""
        train = self.train
        while train is not None and train.tasks and train.furnish():
            task = train.tasks.pop()
            failed = self.begin(train.order(task), train.out, train.err)
            if failed is None:
                return
            train.end(errno=failed)
            self.after_one(train)
            train = self.train
        if train is not None:
            self.end_train()

    def after_one(self, train: "Train") -> None:
        """Clean up after a task of a train, take in what it printed, and tell of it if it is time."""
        why = self.clean_up() or train.empty_temporary()
        large = not (train.folder is None or train.folder.unchanged()) or not train.take_printed()
        if why or large:
            self.end_train(dirty=why, large=large)
        elif time.monotonic() - train.told >= TELL_S or train.printed >= TOLD_MAX:
            self.send(op="did", id=train.id, ends=train.news())

    def end_train(self, pid: int = 0, dirty: str = "", *, large: bool = False) -> None:
        """Begin no more of the train; tell what has ended, and what still runs."""
        train, self.train = self.train, None
        if train is not None:
            os.close(train.out)
            os.close(train.err)
            self.send(op="did", id=train.id, ends=train.news(), over=True, pid=pid or None, dirty=dirty, large=large)

    def spawn(self, argv: "list[str]", env: "dict[str, str]", out: int, err: int, feed: int = -1) -> int:
        """Start a program and return its process id."""
        if self.basic:
            return int(__import__("confine").spawn(argv, env, (feed, out, err), self.rules, SIGNALS_RESET))
        empty = (os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0)
        return os.posix_spawnp(
            argv[0],
            argv,
            env,
            file_actions=[
                (os.POSIX_SPAWN_DUP2, feed, 0) if feed >= 0 else empty,
                (os.POSIX_SPAWN_DUP2, out, 1),
                (os.POSIX_SPAWN_DUP2, err, 2),
            ],
            # Not a session: where others compute, the kernel lets each new one wait for its turn.
            setpgroup=0,
            setsigmask=(),
            setsigdef=SIGNALS_RESET,
        )

    def reap(self) -> None:
        """Collect every child that ended; when the task itself did, report it and clean up."""
        if self.warmth is not None and self.warmth.asked:
            return  # the task may have ended before its id is known here; this is called again when it is
        while True:
            try:
                pid, status, usage = os.wait4(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            if pid == self.pid:
                seconds = time.monotonic() - self.started
                self.pid = 0
                code = os.waitstatus_to_exitcode(status)
                if self.train is not None:
                    self.train.end(code, seconds, usage)
                    self.after_one(self.train)
                    self.go_on()
                    return
                self.send(
                    op="exited",
                    id=self.task_id,
                    exit=code if code >= 0 else None,
                    signal=-code if code < 0 else None,
                    seconds=seconds,
                    max_rss=usage.ru_maxrss * 1024,
                    utime=usage.ru_utime,
                    stime=usage.ru_stime,
                )
                self.finish()
                return

    def finish(self) -> None:
        """Leave nothing of the task and say so."""
        why = self.clean_up()
        if why:
            self.send(op="dirty", id=self.task_id, why=why)
        else:
            self.send(op="clean", id=self.task_id)

    def clean_up(self) -> str:
        """Leave nothing of the task: no process, nothing in /tmp and /dev/shm. Return why that is not so, if it is not."""
        try:
            if self.warmth is None or not self.warmth.kill_others():
                self.kill_everything()
            if self.strict:
                emptying = __import__("emptying")
                for root in IN_MEMORY:
                    emptying.empty_folder(root, emptying.keep_below(root, self.keep))
        except OSError as error:
            return str(error)[:TEXT_CHARS_MAX] or "unknown"
        return ""

    def kill_task(self) -> None:
        """Kill all but this process; the task's end is then reaped and reported as any other."""
        if self.strict:
            os.kill(-1, signal.SIGKILL)
        else:
            kill_descendants()

    def kill_everything(self) -> None:
        """Kill and reap until there is no child left; whatever was orphaned is a child by now."""
        while True:
            try:
                if os.waitpid(-1, os.WNOHANG)[0]:
                    continue
            except ChildProcessError:
                return
            if self.strict:
                os.kill(-1, signal.SIGKILL)
            else:
                kill_descendants()
            os.waitpid(-1, 0)


class Train:
    """Short tasks of one job, to run one after another, and what is to be told of them."""

    def __init__(self, message: "dict[str, Any]", fds: list[int]) -> None:
        """Take the order, and two files that every task finds empty."""
        self.id = message["id"]
        self.begun = 0
        self.common = message
        self.long_s: float = message["long_s"]
        self.tasks: list[dict[str, Any]] = message["tasks"][::-1]
        self.out, self.err = fds
        self.folder: Folder | None = None
        if message.get("files"):
            self.folder = __import__("folder").Folder(message["cwd"])
        self.ends: list[list[Any]] = []
        self.printed = 0
        self.told = time.monotonic()

    def furnish(self) -> bool:
        """Make the folder ready for the next task, if there is one for all of them; False: that failed."""
        if self.folder is None:
            return True
        try:
            if not self.folder.found:
                self.folder.remember()
            params = self.tasks[-1]["params"]
            if params:
                self.folder.give(params)
        except OSError:
            return False
        return True

    def empty_temporary(self) -> str:
        """Empty the folder for temporary files, where the tasks have one of their own; return why that failed, if it did."""
        try:
            if self.common.get("temporary"):
                __import__("emptying").empty_folder(self.common["temporary"])
        except OSError as error:
            return str(error)[:TEXT_CHARS_MAX] or "unknown"
        return ""

    def order(self, task: "dict[str, Any]") -> "dict[str, Any]":
        """Return what ``run`` would have brought for a task."""
        common = self.common
        self.begun += 1
        env = {**common["env"], **task["env"]}
        return {**task, "id": self.id + self.begun - 1, "env": env, "cwd": common["cwd"], "umask": common["umask"]}

    def end(
        self, code: int = 0, seconds: float = 0.0, usage: "resource.struct_rusage | None" = None, errno: int = 0
    ) -> None:
        """Note how a task ended, or that it could not be executed."""
        took = (0, 0.0, 0.0) if usage is None else (usage.ru_maxrss * 1024, usage.ru_utime, usage.ru_stime)
        self.ends.append([max(code, 0), max(-code, 0), errno, seconds, *took, "", ""])

    def take_printed(self) -> bool:
        """Take along what the task that ended last printed, unless it is much: then it stays in the files."""
        sizes = [os.fstat(fd).st_size for fd in (self.out, self.err)]
        if not any(sizes):
            return True
        if sum(sizes) > PRINTED_MAX:
            return False
        for fd, size, where in zip((self.out, self.err), sizes, (-2, -1), strict=True):
            if size:
                self.ends[-1][where] = binascii.b2a_base64(os.pread(fd, size, 0), newline=False).decode()
                os.ftruncate(fd, 0)
        self.printed += sum(sizes)
        return True

    def news(self) -> "list[list[Any]]":
        """Return what has ended and was not told of yet."""
        ends, self.ends, self.printed, self.told = self.ends, [], 0, time.monotonic()
        return ends


def kill_descendants(spared: int = 0) -> list[int]:
    """Kill every process below this one but one; return which were alive. A subreaper keeps them all, however they forked."""
    parents = {}
    ended = set()
    found = []
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                with open(f"/proc/{name}/stat", "rb") as file:
                    # The command name may hold spaces and brackets; the fields follow the last one.
                    state, parent = file.read().rpartition(b")")[2].split()[:2]
                    parents[int(name)] = int(parent)
                    # So is one shown whose main thread ended before others, too.
                    if state == b"Z" and len(os.listdir(f"/proc/{name}/task")) == 1:
                        ended.add(int(name))
            except OSError:
                continue  # it ended meanwhile
    me = os.getpid()
    for pid in parents:
        above = pid
        while above in parents and above != me:
            above = parents[above]
        if above == me and pid not in (me, spared):
            if pid not in ended:
                found.append(pid)
            try:
                os.kill(pid, signal.SIGKILL)
            except (ProcessLookupError, PermissionError):
                continue  # it ended meanwhile; its number may be another's by now
    return found


def main() -> None:
    """Start serving on the descriptor given as first argument; the second is the level, the last where our other code is."""
    fd, level, oom, folder = int(sys.argv[1]), *sys.argv[2:5]
    sys.path.append(folder)
    with open("/proc/self/oom_score_adj", "w") as file:  # this and the next before this process stops being dumpable
        file.write(oom)
    try:
        autogroup = os.open("/proc/self/autogroup", os.O_WRONLY)
    except OSError:
        autogroup = -1  # this kernel has none
    libc = ctypes.CDLL(None, use_errno=True)
    # Not dumpable: no task may read this process, trace it or take its socket.
    if libc.prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) or (
        level != "strict" and libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    ):
        raise OSError(ctypes.get_errno(), "prctl")
    os.set_inheritable(fd, False)
    wake_read, wake_write = os.pipe()
    os.set_blocking(wake_write, False)
    os.set_blocking(wake_read, False)
    signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # process 1 is immune to what it does not handle
    os.umask(0o022)
    Runner(_socket.socket(fileno=fd), level, folder, autogroup).serve(wake_read)


if __name__ == "__main__":
    main()
