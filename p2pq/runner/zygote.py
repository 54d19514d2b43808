"""How the runner starts tasks in forks of a warm interpreter: standard library only; it enters the sandbox beside ``warm.py``.

Whatever that interpreter does or fails to do, at worst a task is started from scratch.
"""

import _socket
import os
import signal
import struct
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    import select
    from collections.abc import Callable
    from typing import Any

    from p2pq.runner.main import Runner

CHANNEL = "P2PQ_WARM"
HIDDEN = ".p2pq-warm"
"""The end of a script's name while an interpreter starts."""
NUMBER_BYTES = 4
IMPORT_S = 10.0
"""How long a task waits for what it imports to be imported ahead; then it does without."""
FORK_S = 3.0
FAILURES_MAX = 3
"""So often an interpreter may end, or not answer, before there is no further one."""
ROUNDS_MAX = 20
ORDER_BYTES_MAX = 100_000
"""What fits into the buffer of a socket."""


class Warmth:
    """Starts tasks by a zygote: one at a time, of which the runner hears later by ``begin`` or ``run_cold``."""

    def __init__(self, runner: "Runner", kill_descendants: "Callable[[int], list[int]]") -> None:
        """Take the runner, and what kills all processes below it but one. ``sitecustomize.py`` lies beside this file."""
        self.runner = runner
        self.kill_descendants = kill_descendants
        self.folder = os.path.dirname(os.path.abspath(__file__))
        self.pid = 0
        """The zygote's process id; 0 if there has been none."""
        self.channel: _socket.socket | None = None
        self.ready = False
        """It has imported."""
        self.failures = 0
        self.stopped = False
        """It stands still, as no task runs."""
        self.waiting: tuple[dict[str, Any], list[int]] | None = None
        """The task that it is to start, and its outputs."""
        self.asked = False
        """It was told of it."""
        self.until = 0.0
        self.hidden = ""
        """Where the script belongs, if it may be elsewhere."""
        self.like: list[Any] = []
        """What all tasks that it starts have in common."""

    def take(self, message: "dict[str, Any]", out: int, err: int) -> bool:
        """Take a task if it can be started by the zygote; False: it is to be started from scratch."""
        env = message["env"]
        like = [message["argv"][:2], message["cwd"], {key: env[key] for key in env if not key.startswith("P2PQ_")}]
        self.go_on()
        if self.channel is not None and self.like != like:
            self.lose()
        fresh = self.channel is None
        try:
            if os.pathsep in self.folder or message.get("umask") is not None or len(order(message)) > ORDER_BYTES_MAX:
                return False
            if fresh and self.failures < FAILURES_MAX:
                self.start(message)
                self.like = like
        except (OSError, ValueError):
            self.failures = FAILURES_MAX
        if self.channel is None or not (fresh or self.ready):
            return False
        self.runner.task_id, self.runner.started = message["id"], time.monotonic()
        self.waiting = message, [os.dup(out), os.dup(err)]
        self.until = self.runner.started + IMPORT_S
        if self.ready:
            self.ask()
        return True

    def start(self, message: "dict[str, Any]") -> None:
        """Start an interpreter that imports ahead; its environment is the tasks' but for what differs between them.

        Raises:
            OSError, ValueError: it cannot be started.
        """
        env = {
            key: value for key, value in message["env"].items() if not key.startswith("P2PQ_") or key == "P2PQ_RUNNER"
        }
        name = os.path.join(env.get("TMPDIR", "/tmp"), HIDDEN)  # noqa: S108  where there is no other
        said = os.open(name, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        os.unlink(name)
        ours, theirs = _socket.socketpair()
        os.set_inheritable(theirs.fileno(), True)
        try:
            os.chdir(message["cwd"])
            path = env.get("PYTHONPATH")
            env |= {"PYTHONPATH": self.folder + (os.pathsep + path if path else ""), CHANNEL: str(theirs.fileno())}
            # If it did not import our code it would run the script, so the script is where only our code finds it.
            self.hidden = os.path.abspath(message["argv"][1])
            os.rename(self.hidden, self.hidden + HIDDEN)
            self.pid = self.runner.spawn(message["argv"][:2], env, said, said)
        except BaseException:
            self.reveal()
            ours.close()
            raise
        finally:
            os.chdir("/")
            theirs.close()
            os.close(said)
        self.channel, self.ready = ours, False

    def reveal(self) -> bool:
        """Put the script back where it was, and tell whether it was hidden."""
        hidden, self.hidden = self.hidden, ""
        try:
            os.rename(hidden + HIDDEN, hidden)
        except OSError:
            return False
        return True

    def waiting_for(self, poll: "select.poll") -> "Callable[[float | None], list[tuple[int, int]]]":
        """Return what polls, hears what the zygote says, and lets no task wait for too long."""

        def wait(patience_ms: "float | None") -> "list[tuple[int, int]]":
            fd = -1 if self.channel is None else self.channel.fileno()
            if fd >= 0:
                poll.register(fd, 1)  # select.POLLIN
            if self.waiting:
                patience_ms = max(self.until - time.monotonic(), 0.0) * 1000
            found = poll.poll(patience_ms)
            if fd >= 0:
                poll.unregister(fd)
            if any(each == fd for each, _ in found):
                self.hear()
            if self.waiting and time.monotonic() >= self.until:
                self.wait_no_longer()
            return found

        return wait

    def ask(self) -> None:
        """Have it start the task that waits."""
        if self.waiting is None or self.channel is None:
            return
        message, fds = self.waiting
        self.asked, self.until = True, time.monotonic() + FORK_S
        rights = [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, struct.pack(f"{len(fds)}i", *fds))]
        data = order(message)
        data = len(data).to_bytes(NUMBER_BYTES, "big") + data
        try:
            if self.channel.sendmsg([data], rights, _socket.MSG_DONTWAIT) != len(data):
                self.lose()
        except OSError:
            self.lose()

    def hear(self) -> None:
        """Take that it is ready, or which process the task is; believe it only if that is the runner's child."""
        if self.channel is None:
            return
        try:
            data = self.channel.recv(NUMBER_BYTES, _socket.MSG_DONTWAIT)
        except OSError:
            data = b""
        pid = int.from_bytes(data, "big")
        if len(data) == NUMBER_BYTES and not pid and not self.ready:
            self.ready = True
            self.reveal()  # it has, if it is honest
            self.ask()
        elif len(data) == NUMBER_BYTES and self.waiting and self.asked and pid != self.pid and is_child(pid):
            for fd in self.waiting[1]:
                os.close(fd)
            self.waiting, self.asked = None, False
            self.runner.pid = pid
            self.runner.send(op="started", id=self.runner.task_id, pid=pid, beside=self.pid)
            self.runner.reap()
        else:
            self.lose()

    def wait_no_longer(self) -> None:
        """Start the task that waits, if one does, from scratch."""
        if self.asked or (self.waiting and self.reveal()):
            self.lose()  # it may have begun to start it; or cannot be trusted to find that it should not
        elif self.waiting:
            self.start_cold()

    def lose(self) -> None:
        """End the zygote, which does not do what it should; what it was to start is started from scratch."""
        if self.channel is not None:
            self.channel.close()
        self.channel = None
        if self.asked or not self.ready:  # else it was ended along with a task
            self.failures += 1
        self.ready = False
        self.reveal()
        if is_child(self.pid):
            os.kill(self.pid, signal.SIGKILL)
        if self.asked:
            self.runner.kill_everything()  # it may have started it
        if self.waiting:
            self.start_cold()

    def kill_others(self) -> bool:
        """Stop the zygote, and kill and reap all others below the runner; False where there is no zygote that would stop.

        What a task has put into the zygote does not run either, until the next task does: the daemon works in the job's folder
        meanwhile.
        """
        if self.pid not in children() or not self.stop():
            return False
        for _ in range(ROUNDS_MAX):
            others = self.kill_descendants(self.pid)
            for pid in children():
                if pid != self.pid:
                    os.waitpid(pid, 0)
            if not others and children() == [self.pid]:
                return True
        return False

    def stop(self) -> bool:
        """Let the zygote stand still; tell whether it does."""
        try:
            os.kill(self.pid, signal.SIGSTOP)
            self.stopped = os.WIFSTOPPED(os.waitpid(self.pid, os.WUNTRACED)[1])
        except OSError:
            return False
        return self.stopped

    def go_on(self) -> None:
        """Let it run beside a task."""
        if self.stopped and is_child(self.pid):
            os.kill(self.pid, signal.SIGCONT)
        self.stopped = False

    def start_cold(self) -> None:
        """Start the task that waits from scratch."""
        if self.waiting is None:
            return
        message, fds = self.waiting
        self.waiting, self.asked = None, False
        try:
            self.runner.run_cold(message, fds[0], fds[1])
        finally:
            for fd in fds:
                os.close(fd)


def children() -> list[int]:
    """Return this process's children, of its only thread, ended ones included; empty where the kernel does not tell."""
    try:
        with open("/proc/thread-self/children", "rb") as file:
            return [int(pid) for pid in file.read().split()]
    except OSError:
        return []


def order(message: "dict[str, Any]") -> bytes:
    """Return what a zygote is told of a task; see ``warm.py``."""
    argv, env = message["argv"], message["env"]
    fields = [message["cwd"], str(len(argv)), *argv, *(f"{key}={value}" for key, value in env.items())]
    return b"".join(os.fsencode(field) + b"\0" for field in fields)


def is_child(pid: int) -> bool:
    """Whether a process is a child of this one, ended or not."""
    if pid <= 0:
        return False
    try:
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except (OSError, OverflowError):
        return False
    return True
