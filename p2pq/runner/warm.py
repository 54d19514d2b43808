"""An interpreter that has imported what a job's script imports, and forks off the job's tasks: standard library only, one file.

The runner starts it once, as the job's own Python on its way to ``main.py`` (which is hidden until this code has the word):
``site`` imports this file under the name ``sitecustomize``, as the last thing before the script. Here it imports ahead and then
waits for orders. Each order makes a fork in which ``main`` returns, so that the interpreter itself goes on to run the script:
whatever a fresh interpreter does for a script, from ``__main__`` to the exit code, is done by the same code here.

An order: four bytes of length, big-endian, with two descriptors (standard output and error); then fields that end with a zero
byte: folder, number of arguments, arguments, variables. The answer is a process id in four bytes, 0 if there is none; before
all others a 0 that says that it has imported.
"""

import os
import sys

TYPE_CHECKING = False  # whatever is imported here, scripts would find in sys.modules
if TYPE_CHECKING:
    import _socket
    from collections.abc import Callable, Iterable
    from types import ModuleType
    from typing import Any

NAME = "sitecustomize"
SCRIPTS = "p2pq_script"
CHANNEL = "P2PQ_WARM"
HIDDEN = ".p2pq-warm"
WITHOUT = "P2PQ_WARM_WITHOUT"
NUMBER_BYTES = 4
BEGINNINGS_MAX = 8
"""So many modules may be left out one after the other; then it gives up."""
EXIT_UNUSABLE = 70

UNSAFE = frozenset(
    {
        *("cupy", "grpc", "jax", "jaxlib", "jpype", "mpi4py", "pycuda", "pyopencl", "pyspark", "ray", "tensorflow"),
        *("gi", "PyQt5", "PyQt6", "PySide2", "PySide6", "tkinter"),
    }
)
"""What does not work in forks, or says so, though it starts no thread when it is imported."""

# -- importing ahead -------------------------------------------------------------------------------------------------------


class UnfitError(Exception):
    """A module cannot be imported ahead; its argument says which."""


class Ahead:
    """Imports modules ahead, if nothing tells afterwards that it was done ahead."""

    def __init__(self, local: "set[str]", without: "Iterable[str]") -> None:
        """Take the names of modules beside the script, and the modules that proved unfit before."""
        self.local = local
        self.without = frozenset(without)
        self.unseeded: list[Any] = []
        """Generators of random numbers that were made here without a seed."""
        self._before = set(sys.modules)
        self._state = self._look()

    def take(self, name: str, names: tuple[str, ...]) -> None:
        """Import a module.

        Raises:
            UnfitError: it must not be; this interpreter is spoilt.
        """
        top = name.partition(".")[0]
        if top in self.without or top in UNSAFE:
            return
        try:
            with self._seeds(top):
                __import__(name, fromlist=names)
            for known, (rest, _) in KNOWN.items():
                if known in sys.modules and known not in self._before:
                    rest(sys.modules[known])
            sys.stdout.flush()
            sys.stderr.flush()
        except BaseException as error:
            raise UnfitError(top) from error
        fresh = {module.partition(".")[0] for module in sys.modules.keys() - self._before}
        if self._look() != self._state or fresh & self.local or fresh & UNSAFE:
            raise UnfitError(top)
        self._before |= sys.modules.keys()

    def _look(self) -> "tuple[object, ...]":
        """Return what an import must leave as it was: threads, children, files, what was printed, the folder."""
        return (
            len(os.listdir("/proc/self/task")),
            children(),
            open_files(),
            os.fstat(1).st_size,
            os.getcwd(),
            tuple(sorted(os.listdir(os.environ.get("TMPDIR", "/tmp")))),  # noqa: S108  where there is no other
        )

    def _seeds(self, top: str) -> "Seeds":
        return Seeds(self.unseeded if top not in sys.stdlib_module_names and "random" not in self.local else None)


class Seeds:
    """While it is entered, notes which generators of ``random`` are seeded by chance."""

    def __init__(self, noted: "list[Any] | None") -> None:
        """Take the list that they go to; None: do nothing."""
        self.noted = noted

    def __enter__(self) -> None:
        """Watch ``random.Random``."""
        noted = self.noted
        if noted is None:
            return
        self.kind = __import__("random").Random
        self.seed = seed = self.kind.seed

        def seed_and_note(generator: "Any", a: "Any" = None, *rest: "Any", **named: "Any") -> None:
            seed(generator, a, *rest, **named)
            noted[:] = [each for each in noted if each is not generator]
            if a is None:
                noted.append(generator)

        self.kind.seed = seed_and_note

    def __exit__(self, *_: object) -> None:
        """Leave it as it was."""
        if self.noted is not None:
            self.kind.seed = self.seed


def children() -> str:
    """Return the ids of this process's children."""
    with open(f"/proc/self/task/{os.getpid()}/children") as file:
        return file.read()


def open_files() -> "list[str]":
    """Return which files are open besides devices, such as /dev/null, which forks may share."""
    found = []
    for name in os.listdir("/proc/self/fd"):
        try:
            target = os.readlink(f"/proc/self/fd/{name}")
        except OSError:
            continue  # the one that lists
        if not target.startswith("/dev/"):
            found.append(f"{name} {target}")
    return sorted(found)


# -- what forks must not share ---------------------------------------------------------------------------------------------


def nothing(_: "ModuleType") -> None:
    """Leave a module as it is."""


def logging_anew(module: "ModuleType") -> None:
    """Count the time since the start from now on."""
    import time

    now = time.time_ns() if isinstance(module._startTime, int) else time.time()
    module._startTime = now  # type: ignore[attr-defined]


def multiprocessing_anew(module: "ModuleType") -> None:
    """Have a secret of one's own."""
    module.current_process().authkey = os.urandom(32)


def numpy_noted(module: "ModuleType") -> "list[Any]":
    """Return numpy's generators of random numbers that were seeded by chance."""
    import gc

    found = []
    for each in gc.get_objects():
        if type(each) in (module.Generator, module.RandomState):
            bits = each.bit_generator if hasattr(each, "bit_generator") else each._bit_generator
            entropy = getattr(getattr(bits, "seed_seq", None), "entropy", 0)
            if isinstance(entropy, int) and entropy >> 64:  # nobody types so long a seed
                found.append(bits)
    return found


def brian2_rest(module: "ModuleType") -> None:
    """End its log, and delete the files of it."""
    logger, log = module.BrianLogger, __import__("logging")
    for name in ("brian2", "py.warnings"):
        for handler in list(log.getLogger(name).handlers):
            log.getLogger(name).removeHandler(handler)
            handler.close()
    logger.file_handler = logger.console_handler = None
    for path in (logger.tmp_log, logger.tmp_script):
        if path is not None:
            os.remove(path)
    logger.tmp_log = logger.tmp_script = None


def brian2_anew(module: "ModuleType") -> None:
    """Begin its log as at its import."""
    module.BrianLogger.initialize()


KNOWN: "dict[str, tuple[Callable[[ModuleType], None], Callable[[ModuleType], None]]]" = {
    "logging": (nothing, logging_anew),
    "multiprocessing.process": (nothing, multiprocessing_anew),
    "brian2.utils.logger": (brian2_rest, brian2_anew),
}
"""Modules that keep what belongs to one process: what is done to them once, and in each fork."""


# -- the end of a task -----------------------------------------------------------------------------------------------------


class Kept:
    """Stands in ``sys.modules`` for a module that the end of the interpreter is to leave alone."""

    def __init__(self, module: "ModuleType") -> None:
        """Have all that the module has."""
        self.__dict__ = module.__dict__


class Leaving:
    """Keeps what was imported ahead from being taken apart, object by object, at the end of each task.

    That would copy every page that a fork shares with others, and takes longer than many a task. What the script made is taken
    apart as ever. Called last of what is done ``atexit``.
    """

    def __init__(self) -> None:
        """Register it: what is registered first is called last."""
        self.modules: dict[str, ModuleType] = {}
        __import__("atexit").register(self)

    def keep(self) -> None:
        """Keep the modules that there are now, and what hangs on them, out of sight of the garbage collector."""
        import gc

        own, kind = ("__main__", "sys", "builtins"), type(sys)  # there are other things than modules in sys.modules
        self.modules = {name: each for name, each in sys.modules.items() if name not in own and isinstance(each, kind)}
        everything: list[object] = list(self.modules.values())
        everything.append(everything)  # nobody else need hold it
        gc.collect()
        gc.freeze()

    def __call__(self) -> None:
        """Write out what is in buffers, as these may hang on what is kept; then put the modules out of reach."""
        import gc
        from _io import _IOBase

        try:
            for each in gc.get_objects():
                if issubclass(type(each), _IOBase) and not each.closed and each.writable():
                    each.flush()
        except (OSError, ValueError):
            pass  # it says so itself when it is closed
        for name, module in self.modules.items():
            if sys.modules.get(name) is module:
                sys.modules[name] = Kept(module)  # type: ignore[assignment]


# -- orders ----------------------------------------------------------------------------------------------------------------


class Order:
    """What a task is to be: its folder, its arguments, its environment, its outputs."""

    def __init__(self, data: bytes, fds: "list[int]") -> None:
        """Read it. It comes from the runner, and is believed."""
        fields = [os.fsdecode(field) for field in data.split(b"\0")[:-1]]
        count = int(fields[1])
        self.cwd = fields[0]
        self.argv = fields[2 : 2 + count]
        self.env = dict(pair.split("=", 1) for pair in fields[2 + count :])
        self.fds = fds


def receive(channel: "_socket.socket") -> Order:
    """Wait for an order; without a runner there is nothing left to do."""
    head, ancillary, _, _ = channel.recvmsg(NUMBER_BYTES, 64, 0x40000000 | 0x100)  # MSG_CMSG_CLOEXEC, MSG_WAITALL
    fds = []
    for _, _, rights in ancillary:
        fds += [int.from_bytes(rights[at : at + 4], sys.byteorder) for at in range(0, len(rights) - 3, 4)]
    size = int.from_bytes(head, "big")
    data = b""
    while head and len(data) < size:
        part = channel.recv(size - len(data))
        if not part:
            break
        data += part
    if len(fds) != 2 or len(data) != size:  # noqa: PLR2004
        os._exit(0)
    return Order(data, fds)


def fork(channel: "_socket.socket") -> bool:
    """Fork a process that becomes the runner's child, as the one between ends; return True in it alone.

    It leads a process group of its own before the runner is told its id, and goes on only then, with its new parent.
    """
    told, tell = os.pipe()
    gate, opening = os.pipe()
    between = os.fork()
    if not between:
        if os.fork():
            os._exit(0)
        os.setpgid(0, 0)
        os.write(tell, b"%d" % os.getpid())
        for fd in (told, tell, opening):
            os.close(fd)
        os.read(gate, 1)
        os.close(gate)
        return True
    os.close(tell)
    os.close(gate)
    os.waitpid(between, 0)
    channel.send(int(os.read(told, 20) or b"0").to_bytes(NUMBER_BYTES, "big"))
    os.close(told)
    os.close(opening)
    return False


def become(order: Order, added: "dict[str, str | None]", unseeded: "list[Any]") -> None:
    """Be the task of an order.

    Args:
        order: of the runner.
        added: what the interpreter and the imports made of the environment; None: taken out.
        unseeded: generators of random numbers that are to be seeded anew.
    """
    for fd, number in zip(order.fds, (1, 2), strict=True):
        os.dup2(fd, number)
        os.close(fd)
    os.chdir(order.cwd)
    os.environ.clear()
    os.environ.update(order.env)
    for name, value in added.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value
    # A module of this fork's own: what the garbage collector was told to leave alone it would never take apart.
    old, new = sys.modules["__main__"], type(sys)("__main__")
    new.__dict__.clear()
    new.__dict__.update(old.__dict__)
    sys.modules["__main__"] = new
    sys.argv[:] = order.argv[1:]
    sys.orig_argv[:] = order.argv
    for generator in unseeded:
        if hasattr(generator, "seed"):
            generator.seed()
        else:
            generator.state = type(generator)().state
    for name, (_, anew) in KNOWN.items():
        if name in sys.modules:
            anew(sys.modules[name])


def difference(before: "dict[str, str]", after: "dict[str, str]") -> "dict[str, str | None]":
    """Return what was set and, as None, what was taken out."""
    changed: dict[str, str | None] = {key: value for key, value in after.items() if before.get(key) != value}
    return changed | dict.fromkeys(before.keys() - after.keys())


def begin_again(environment: "dict[str, str]", without: "list[str]") -> None:
    """Start over as the same process, without a module."""
    for pid in children().split():
        os.kill(int(pid), 9)
        os.waitpid(int(pid), 0)
    os.ftruncate(1, 0)
    if len(without) > BEGINNINGS_MAX:
        os._exit(EXIT_UNUSABLE)
    os.execve(sys.executable, sys.orig_argv, {**environment, WITHOUT: " ".join(without)})  # noqa: S606  no shell is wanted


def installed(top: str) -> bool:
    """Whether there is a module of that name; what lies beside the script is not looked at yet."""
    return top in sys.modules or any(finder.find_spec(top, None) for finder in sys.meta_path)


def serve(scripts: "ModuleType", fd: int, without: "list[str]", entered: "dict[str, str]") -> None:
    """Import ahead, and fork for each order; return in the forks only.

    Args:
        scripts: ``script.py``.
        fd: the channel to the runner.
        without: modules that proved unfit before.
        entered: the environment as it was at first.
    """
    before = dict(os.environ)
    leaving = Leaving()
    script = scripts.Script(os.getcwd(), installed).read(sys.orig_argv[1])
    ahead = Ahead(scripts.names_in(os.getcwd()), without)
    try:
        for name, names in script:
            ahead.take(name, names)
    except UnfitError as error:
        begin_again(entered, [*without, str(error)])
    unseeded = ahead.unseeded
    if "numpy.random" in sys.modules:
        unseeded += numpy_noted(sys.modules["numpy.random"])
    changed = difference(before, dict(os.environ))
    own = "_socket" not in sys.modules
    channel = __import__("_socket").socket(fileno=fd)
    leaving.keep()
    channel.send(bytes(NUMBER_BYTES))
    while True:
        order = receive(channel)
        if not fork(channel):
            for each in order.fds:
                os.close(each)
            continue
        channel.close()
        if own:
            del sys.modules["_socket"]
        # What is in neither came from the interpreter itself, as LC_CTYPE may.
        kept: dict[str, str | None] = {
            key: value for key, value in before.items() if key not in order.env and not key.startswith("P2PQ_")
        }
        become(order, kept | changed, unseeded)
        return


def main() -> bool:
    """Leave no trace of how this came to be imported, and serve; return, in a task, whether there is another of its name."""
    entered = dict(os.environ)
    folder, colon, path = os.environ.pop("PYTHONPATH").partition(os.pathsep)
    if colon:
        os.environ["PYTHONPATH"] = path
    script = os.path.abspath(sys.orig_argv[1])
    if os.path.exists(script + HIDDEN):
        os.rename(script + HIDDEN, script)
    fd, without = int(os.environ.pop(CHANNEL)), os.environ.pop(WITHOUT, "").split()
    scripts = __import__(SCRIPTS)
    sys.path.remove(folder)
    sys.path_importer_cache.pop(folder, None)
    del sys.modules[NAME], sys.modules[SCRIPTS]
    try:
        __import__(NAME)
    except ImportError as error:
        if error.name != NAME:
            raise
    serve(scripts, fd, without, entered)
    return NAME in sys.modules


if __name__ == NAME:
    try:
        found = main()
    except BaseException:  # noqa: BLE001  the runner then starts the task from scratch
        os._exit(EXIT_UNUSABLE)
    if not found:
        raise ImportError(f"No module named {NAME!r}", name=NAME)  # what ``site`` expects where there is none
