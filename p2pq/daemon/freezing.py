"""On the owner's machine: a script, its packages and Python as one program, for workers that have neither.

PyInstaller makes it, in an environment of its own, in the sandbox of a build and without any network: it runs code of the
packages to see what they load. What it made is kept by all that went into it.
"""

import asyncio
import hashlib
import os
import shutil
import stat
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Final

from p2pq.daemon import building, files, limits, requirements
from p2pq.daemon.additions import Brought
from p2pq.daemon.attempt import Outcome
from p2pq.daemon.building import INSIDE, Builder, Work, remove_tree, write_plan
from p2pq.daemon.bundling import Say
from p2pq.daemon.environments import WHEELS_PART, Environment, Environments
from p2pq.daemon.requirements import Wanted
from p2pq.daemon.sandbox import JOB_FOLDER, Mount
from p2pq.daemon.submission import Looked
from p2pq.errors import BuildError, StorageError, UsageError

FOLDER: Final = ".p2pq/frozen"
"""Where the program lies in the tree of a job."""
PROGRAM: Final = "main"
FREEZER: Final = Wanted("--freeze", ("pyinstaller>=6,<7",))
_FREEZER: Final = "/p2pq-freezer"
MODULES: Final = (".py", ".so")
"""Files of these kinds are what a script imports; the others travel beside it as ever."""
MODULES_BYTES_MAX: Final = 256 << 20
_SOURCES: Final = "sources"
_MADE: Final = "dist"


class Freezer:
    """Makes programs, one at a time. Use it from the event loop's thread only."""

    def __init__(self, environments: Environments) -> None:
        """Use what builds environments, and a folder beside them."""
        self._folder = environments.folder / "frozen"
        self._stage = environments.folder / "freezing"
        self._environments = environments
        self._lock = asyncio.Lock()

    @asynccontextmanager
    async def frozen(self, folder: Path, looked: Looked, say: Say) -> AsyncIterator[Brought]:
        """Give the program of a job, until this is left.

        Args:
            folder: the job's.
            looked: what is in it.
            say: told what is done.

        Raises:
            UsageError: it cannot be made; the sentence says why.
            SandboxError, StorageError: this machine's doing.
        """
        async with self._lock:
            place = await self._make(folder, looked, say)
            yield Brought(place, FOLDER, PROGRAM)

    async def _make(self, folder: Path, looked: Looked, say: Say) -> Path:
        if not looked.main.endswith(".py"):
            raise UsageError(f"--freeze is for Python, and {looked.main} is none; an executable travels as it is")
        if shutil.which("objdump") is None:
            raise UsageError("--freeze takes objdump, which is not installed here; install binutils")
        try:
            builder = self._environments.builder("--freeze")
            modules = [path for path in looked.files if path.endswith(MODULES) or path == looked.main]
            # Named and made by one copy: whoever edits the folder meanwhile does not give the name to something else.
            await asyncio.to_thread(_copy, folder, modules, self._stage)
            name = await asyncio.to_thread(_name, builder, self._stage, looked, modules)
            place = self._folder / name
            if not place.is_dir():
                await say("freeze: making one program of the script and its packages ...")
                await self._build(builder, place, looked)
            size = await asyncio.to_thread(self._make_room, place, builder.settings.quota_mb << 20)
        except BuildError as error:
            raise UsageError(f"--freeze: {error}") from error
        except OSError as error:
            raise StorageError(f"{error.filename or self._folder} failed: {error.strerror}") from error
        finally:
            with suppress(OSError):
                await asyncio.to_thread(remove_tree, self._stage)
        await say(f"freeze: a program of {limits.size_text(size)}")
        return place

    async def _build(self, builder: Builder, place: Path, looked: Looked) -> None:
        held: list[Environment] = []
        try:
            held.append(await self._environments.get(self._environments.order(FREEZER)))
            mounts = [Mount(held[0].folder / building.MADE, _FREEZER)]
            if looked.wanted is not None:
                held.append(await self._environments.get(self._environments.order(looked.wanted)))
                mounts += held[1].mounts()
            work = Work(
                name=f"freeze {place.name[:16]}",
                populate=partial(_populate, self._stage, looked.main),
                collect=partial(_collect, place=place, bytes_max=builder.settings.disk_mb << 20),
                code=True,
                offline=True,
                mounts=tuple(mounts),
            )
            _, failure, _ = await builder.run(work, self._environments.socket())
        finally:
            for environment in held:
                environment.let_go()
        if failure:
            raise BuildError(failure)

    def _make_room(self, place: Path, quota_bytes: int) -> int:
        """Let go of the programs that were used least recently, if all take more than their part; return one's bytes."""
        os.utime(place)
        sizes = {each: limits.folder_bytes(each, building.ENDLESS) or 0 for each in self._folder.iterdir()}
        total = sum(sizes.values())
        for each in sorted(sizes, key=lambda each: each.lstat().st_mtime):
            if total > quota_bytes // WHEELS_PART and each != place:
                remove_tree(each)
                total -= sizes[each]
        return sizes[place]


def _copy(folder: Path, modules: Sequence[str], stage: Path) -> None:
    """Copy what a program is made of.

    Raises:
        BuildError: it is too much.
    """
    remove_tree(stage)
    stage.mkdir(parents=True)
    total = 0
    for path in modules:
        target = stage / path
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(folder / path, target)
        total += target.stat().st_size
        if total > MODULES_BYTES_MAX:
            raise BuildError(f"the modules in the folder take more than {limits.size_text(MODULES_BYTES_MAX)}")


def _name(builder: Builder, stage: Path, looked: Looked, modules: Sequence[str]) -> str:
    """Return by which name a program goes: equal names are equal programs."""
    wanted = looked.wanted or Wanted("nothing")
    python = str(builder.python.executable), builder.python.version
    about = requirements.digest(wanted, *FREEZER.lines, looked.main, *python, *builder.index.texts())
    found = hashlib.sha256(about.encode())
    for path in sorted(modules):
        content = (stage / path).read_bytes()
        found.update(f"{path}\0{len(content)}\0".encode(errors="surrogateescape") + content)
    return found.hexdigest()


def _populate(stage: Path, main: str, scratch: Path) -> None:
    """Write down how the program is made, and copy what it is made of."""
    shutil.copytree(stage, scratch / _SOURCES)
    script = f"{JOB_FOLDER}/{_SOURCES}/{main}"
    # What the script imports is found as Python finds it: beside the script, then among its packages.
    freezing = (
        *("/bin/sh", "-c", f'PYTHONPATH="$(echo {INSIDE}/lib/python3*/site-packages)" exec "$@"', "sh"),
        *(f"{_FREEZER}/bin/python", "-m", "PyInstaller", "--log-level", "ERROR", "--noconfirm", "--onedir"),
        *("--name", PROGRAM, "--paths", str(Path(script).parent), "--distpath", f"{JOB_FOLDER}/{_MADE}"),
        *("--workpath", f"{JOB_FOLDER}/work", "--specpath", f"{JOB_FOLDER}/work", script),
    )
    write_plan(scratch, [(freezing, "")], offline=True)


def _collect(folder: Path, outcome: Outcome, *, place: Path, bytes_max: int) -> str:
    """Put the program where it is kept; return why there is none, if there is none. Whatever wrote it is dead."""
    if outcome.reason != "ok":
        return building.said(outcome, last=True)
    made = folder / _MADE / PROGRAM
    # Each component, from the outermost: code of packages may have put a link to a folder of the owner's in place of any.
    if not all(_is_folder(each) for each in (made.parent, made)):
        return "PyInstaller has put something else in the place of the program"
    size = limits.folder_bytes(made, bytes_max)
    if size is None or size > bytes_max:
        return f"the program takes more than {limits.size_text(bytes_max)} ([environments] disk_mb)"
    place.parent.mkdir(mode=0o700, exist_ok=True)
    remove_tree(place)
    files.sync_tree(made)  # a program that is there counts as whole
    made.rename(place)
    files.sync(place.parent)
    return ""


def _is_folder(path: Path) -> bool:
    """Tell whether that is a folder itself, and no link to one."""
    try:
        return stat.S_ISDIR(os.lstat(path).st_mode)
    except FileNotFoundError:
        return False
