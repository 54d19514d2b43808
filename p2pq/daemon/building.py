"""How one environment is built: ``uv`` in a sandbox of its own, as a task of nobody's job.

First without any code of the packages being run, into which the packages kept for further builds come. Only where a package has
no wheel, once more with such code: then with nothing in reach that another build could use.
"""

import asyncio
import json
import os
import re
import stat
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final, Generic, TypeVar

from p2pq.daemon import crashpoints, files, limits
from p2pq.daemon.attempt import Outcome
from p2pq.daemon.buildproxy import BuildProxy
from p2pq.daemon.indexes import CERTIFICATES, Index
from p2pq.daemon.jobpython import JobPython
from p2pq.daemon.launches import TaskLaunch
from p2pq.daemon.limits import Limits
from p2pq.daemon.requirements import FAILED, REQUIREMENTS, Wanted
from p2pq.daemon.runners import RunnerPool
from p2pq.daemon.sandbox import JOB_FOLDER, Mount
from p2pq.errors import BuildError, StorageError
from p2pq.model.config import EnvironmentSettings
from p2pq.runner import build as build_program
from p2pq.runner.emptying import empty_folder
from p2pq.wire import names

INSIDE: Final = "/p2pq-env"
"""Where tasks find their environment."""
ABOUT: Final = "about.json"
MADE: Final = "env"
PROCESSES: Final = 512
WATCH_S: Final = 2.0
ENDLESS: Final = 1 << 62
OUTPUT_BYTES: Final = 16 << 20
SAID_BYTES: Final = 64 << 10
SAID_CHARS: Final = 360
_CONCLUSION: Final = ", we can conclude that your requirements are unsatisfiable"
UV: Final = "/p2pq-uv"
"""Where a build finds it."""
BROUGHT: Final = "wheels"
"""Its folder for packages that a job has brought."""
_PROGRAM: Final = "/p2pq-build.py"
_SOCKET: Final = "/p2pq-build.sock"
_WHEELS: Final = "/p2pq-wheels"
_ENV: Final = f"{JOB_FOLDER}/{MADE}"


@dataclass(frozen=True, slots=True)
class Built:
    """What came of a build: so many bytes, or why there is nothing."""

    bytes: int = 0
    failure: str = ""


Step = tuple[tuple[str, ...], str]
"""A program with its arguments, and the file that takes what it prints on standard output, or nothing."""
Bring = Callable[[Path], None]
"""Writes wheels into a folder. Blocking."""
R = TypeVar("R")


@dataclass(frozen=True, slots=True, kw_only=True)
class Work(Generic[R]):
    """One run of uv in a sandbox."""

    name: str
    populate: Callable[[Path], None]
    """Writes into its folder what it needs, the plan among it."""
    collect: Callable[[Path, Outcome], R]
    code: bool
    """Packages' own code may run, apart from what other builds will use."""
    offline: bool = False
    """It gets nothing of the network, or of the index."""
    idle: bool = False
    """Behind all else that this machine does."""
    mounts: tuple[Mount, ...] = ()

    @property
    def apart(self) -> bool:
        """Return whether it has nothing of what is kept for further builds."""
        return self.code or self.offline


@dataclass(frozen=True, slots=True, kw_only=True)
class Builder:
    """Builds environments on this node, into folders of which each appears complete."""

    pool: RunnerPool
    python: JobPython
    index: Index
    uv: Path
    settings: EnvironmentSettings
    memory_mb: int
    wheels: Path
    """Packages kept for further builds, as uv keeps them."""

    async def build(
        self, wanted: Wanted, target: Path, socket: Path, *, idle: bool = False, bring: Bring | None = None
    ) -> int:
        """Build an environment at ``target``; return its bytes.

        Args:
            wanted: what is to be in it.
            target: the folder to be made; it is whole when it appears.
            socket: where to listen for what the build wants of the network.
            idle: behind all else that this machine does.
            bring: puts all wheels where the build has them: no index is asked, and nothing of the network reached.

        Raises:
            BuildError: it cannot be built here; one sentence says which package, and why.
            SandboxError, StorageError: this machine's doing.
        """
        disk_bytes = self.settings.disk_mb << 20
        # To fetch a repository runs more than one program; what that leaves is for no other build.
        sources = any("git+" in text for text in (*wanted.lines, wanted.lock)) or "{ git = " in wanted.lock
        failure = ""
        for code in (True,) if sources else (False,) if bring is not None else (False, True):
            work = Work(
                name=f"{target.name} {code}",
                populate=partial(self._populate, wanted, code=code, bring=bring),
                collect=partial(_collect, target=target, wanted=wanted, bytes_max=disk_bytes),
                code=code,
                offline=bring is not None,
                idle=idle,
            )
            outcome, built, unreached = await self.run(work, socket)
            if not built.failure:
                return built.bytes
            failure = unreached + built.failure
            if outcome.reason != "exit":
                break  # with code of packages it would take longer still
        raise BuildError(f"{FAILED}{wanted.source}: {failure}")

    async def run(self, work: Work[R], socket: Path) -> tuple[Outcome, R, str]:
        """Run it; return how it ended, what was collected, and what comes before its failure if it did not get to a host.

        Raises:
            SandboxError, StorageError: this machine's doing.
        """
        proxy = BuildProxy(self.index.hosts, self.index.proxies, secure=self.index.secure)
        async with AsyncExitStack() as stack:
            if not work.offline:
                await stack.enter_async_context(proxy.serving(socket))
            launch = self._launch(work, socket)
            if not work.apart:
                watching = asyncio.get_running_loop().create_task(self._watch_wheels(launch.lease), name="wheels")
                stack.callback(watching.cancel)
            try:
                outcome, made = await self.pool.run(launch)
            finally:
                self.pool.end_job(launch.job)
        return outcome, made, _unreached(proxy)

    async def _watch_wheels(self, lease: str) -> None:
        """End a build that keeps more for further ones than it may write."""
        most = self.settings.disk_mb << 20
        begun = await asyncio.to_thread(limits.folder_bytes, self.wheels, ENDLESS)
        while True:
            now = asyncio.get_running_loop().time()
            size = await asyncio.to_thread(limits.folder_bytes, self.wheels, ENDLESS)
            if (size or 0) - (begun or 0) > most:
                detail = f"its packages take more than {limits.size_text(most)} ([environments] disk_mb)"
                await self.pool.kill(lease, "disk-limit", detail, grace_s=0.0)
            took = asyncio.get_running_loop().time() - now
            await asyncio.sleep(max(WATCH_S, took * limits.DISK_POLL_RATIO))

    def _launch(self, work: Work[R], socket: Path) -> TaskLaunch[R]:
        """Return how to run it."""
        mounts = [Mount(self.uv, UV), Mount(Path(build_program.__file__), _PROGRAM), *work.mounts]
        if not work.offline:
            mounts += [*self.index.mounts(), Mount(socket, _SOCKET)]
        if not work.apart:
            mounts.append(Mount(self.wheels, _WHEELS, writable=True))
        env = {
            "UV_CACHE_DIR": f"{JOB_FOLDER}/cache" if work.apart else _WHEELS,
            "UV_LINK_MODE": "copy",
            "UV_NO_PROGRESS": "1",
            "UV_PYTHON_DOWNLOADS": "never",
            "UV_PYTHON_PREFERENCE": "only-system",
            "NO_COLOR": "1",
            "TMPDIR": f"{JOB_FOLDER}/tmp",  # noqa: S108  on the disk, as it may take much
            "GIT_TERMINAL_PROMPT": "0",
        }
        if self.index.certificates or any(mount.inside == CERTIFICATES for mount in work.mounts):
            env["SSL_CERT_FILE"] = CERTIFICATES
        return TaskLaunch(
            lease=f"environment {work.name}",
            job=f"environment {work.name}".encode(),
            level="strict",
            argv=(str(self.python.executable), "-I", "-S", "-B", _PROGRAM, f"{JOB_FOLDER}/plan.json"),
            env=env,
            limits=Limits(
                cpus=1,
                memory_bytes=self.memory_mb << 20 if self.memory_mb else None,
                wall_s=float(self.settings.time_s),
                disk_bytes=self.settings.disk_mb << 20,
                processes=PROCESSES,
                output_bytes=OUTPUT_BYTES,
            ),
            populate=work.populate,
            collect=work.collect,
            idle_priority=work.idle,
            background=work.idle,
            mounts=tuple(mounts),
        )

    def _populate(self, wanted: Wanted, folder: Path, *, code: bool, bring: Bring | None) -> None:
        """Write down what is to be done."""
        python, environment = str(self.python.executable), f"{_ENV}/bin/python"
        steps: list[Step] = [
            ((UV, "venv", "--no-config", "--no-project", "--relocatable", "--quiet", "--python", python, _ENV), "")
        ]
        asked, said = self.asked(wanted, folder)
        steps += asked
        install = [UV, "pip", "install", "--no-config", "--quiet", "--python", environment, *said]
        if bring is None:
            install += self.index.options()
        else:
            bring(folder / BROUGHT)
            install += ["--offline", "--no-index", "--find-links", f"{JOB_FOLDER}/{BROUGHT}"]
            install += ["--no-deps", "--require-hashes"]
        if not code:
            install.append("--no-build")
        if wanted.lines or wanted.lock:
            steps.append((tuple(install), ""))
        # Tasks cannot write there. Without `site`: code of the packages has no part in it.
        compiling = (
            *(python, "-I", "-S", "-m", "compileall", "-qq", "--invalidation-mode", "unchecked-hash"),
            *("-s", _ENV, "-p", INSIDE, f"{_ENV}/lib"),
        )
        write_plan(folder, [*steps, (compiling, "")], offline=bring is not None)

    def asked(self, wanted: Wanted, folder: Path) -> tuple[list[Step], list[str]]:
        """Write down what is wanted; return the steps that make it readable for ``uv pip``, and how that is told of it."""
        options = ["--requirement", f"{JOB_FOLDER}/{REQUIREMENTS}"]
        steps: list[Step] = []
        if wanted.constraints:
            (folder / "constraints.txt").write_text("\n".join([*wanted.constraints, ""]))
            options += ["--constraint", f"{JOB_FOLDER}/constraints.txt"]
        if wanted.lock:
            (folder / "project").mkdir()
            (folder / "project" / "pyproject.toml").write_text(wanted.project)
            (folder / "project" / "uv.lock").write_text(wanted.lock)
            export = (
                *(UV, "export", "--no-config", "--quiet", "--offline", "--frozen", "--no-dev", "--no-emit-project"),
                *("--no-header", "--no-annotate", "--python", str(self.python.executable)),
                *("--project", f"{JOB_FOLDER}/project"),
            )
            steps.append((export, f"{JOB_FOLDER}/{REQUIREMENTS}"))
        (folder / REQUIREMENTS).write_text("\n".join([*wanted.lines, ""]))
        return steps, options


def write_plan(folder: Path, steps: list[Step], *, offline: bool = False) -> None:
    """Write down what ``runner/build.py`` is to do, and make the folder for temporary files."""
    (folder / "tmp").mkdir()
    plan = {
        "proxy": "" if offline else _SOCKET,
        "steps": [{"argv": argv, "out": out, "may_fail": "compileall" in argv} for argv, out in steps],
    }
    (folder / "plan.json").write_text(json.dumps(plan))


def _collect(folder: Path, outcome: Outcome, *, target: Path, wanted: Wanted, bytes_max: int) -> Built:
    """Put what was built where it belongs, or say why there is nothing. Whatever wrote it is dead; nothing of it is believed."""
    if outcome.reason != "ok":
        return Built(failure=said(outcome))
    made = folder / MADE
    if not stat.S_ISDIR(os.lstat(made).st_mode):
        return Built(failure="a package has put something else in the place of the environment")
    size = limits.folder_bytes(made, bytes_max)
    if size is None or size > bytes_max:
        return Built(failure=f"it takes more than {limits.size_text(bytes_max)} ([environments] disk_mb)")
    fresh = target.with_name(f".{target.name}.new")
    try:
        remove_tree(fresh)
        fresh.mkdir(mode=0o700)
        made.rename(fresh / MADE)
        (fresh / ABOUT).write_text(json.dumps({"v": 1, "bytes": size, "source": wanted.source}))
        files.sync_tree(fresh)
        crashpoints.reached("environment.built")
        fresh.rename(target)
        files.sync(target.parent)
        crashpoints.reached("environment.in-place")
    except OSError as error:
        raise StorageError(f"{target.parent} failed: {error.strerror}") from error
    return Built(bytes=size)


def remove_tree(folder: Path) -> None:
    """Delete a folder, whatever packages have put into it; one that is not there is no error.

    Raises:
        OSError: it cannot be deleted.
    """
    if os.path.lexists(folder):
        empty_folder(str(folder))
        folder.rmdir()


def said(outcome: Outcome, *, last: bool = False) -> str:
    """Return in one sentence what uv said, or by which limit it was ended; ``last``: of other programs, their last line."""
    if outcome.reason != "exit":
        return outcome.detail
    with outcome.stderr.open("rb") as file:
        file.seek(max(0, file.seek(0, os.SEEK_END) - SAID_BYTES))
        text = file.read().decode(errors="replace")
    if last:
        text = (text.strip().splitlines() or [""])[-1]
    return shortened(text) or outcome.detail


def shortened(text: str) -> str:
    """Return what uv says went wrong, on one line: its last error with the causes, without hints and advice."""
    text = re.sub(r"\x1b\[[0-9;]*[A-Za-z]", "", text)
    text = text[text.rfind("error: ") :] if "error: " in text else text
    text = text.removeprefix("error: ").partition("\nhint: ")[0]
    text = re.sub(r"\.?\s*\n\s*cause: ", ": ", text)
    plain = names.harmless(" ".join(text.split())).rstrip(".").removesuffix(_CONCLUSION)
    return plain if len(plain) <= SAID_CHARS else plain[: SAID_CHARS - 1] + "…"


def _unreached(proxy: BuildProxy) -> str:
    """Return what is to be said first where a build did not get to a host."""
    if proxy.refused:
        listed = ", ".join(map(names.display, proxy.refused))
        return f"it asked for {listed}: not among the hosts that [environments] lets builds reach; "
    if proxy.unreached:
        return f"{', '.join(proxy.unreached)} does not answer; "
    return ""
