"""How one environment is built: ``uv`` in a sandbox of its own, as a task of nobody's job.

First without any code of the packages being run, into which the packages kept for further builds come. Only where a package has
no wheel, once more with such code: then with nothing in reach that another build could use.
"""

import asyncio
import json
import os
import re
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from p2pq.daemon import crashpoints, files, limits
from p2pq.daemon.attempt import Outcome
from p2pq.daemon.buildproxy import BuildProxy
from p2pq.daemon.indexes import CERTIFICATES, Index
from p2pq.daemon.jobpython import JobPython
from p2pq.daemon.launches import TaskLaunch
from p2pq.daemon.limits import Limits
from p2pq.daemon.requirements import FAILED, Wanted
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
_UV: Final = "/p2pq-uv"
_PROGRAM: Final = "/p2pq-build.py"
_SOCKET: Final = "/p2pq-build.sock"
_WHEELS: Final = "/p2pq-wheels"
_ENV: Final = f"{JOB_FOLDER}/{MADE}"


@dataclass(frozen=True, slots=True)
class Built:
    """What came of a build: so many bytes, or why there is nothing."""

    bytes: int = 0
    failure: str = ""


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

    async def build(self, wanted: Wanted, target: Path, socket: Path, *, idle: bool = False) -> int:
        """Build an environment at ``target``; return its bytes.

        Args:
            wanted: what is to be in it.
            target: the folder to be made; it is whole when it appears.
            socket: where to listen for what the build wants of the network.
            idle: behind all else that this machine does.

        Raises:
            BuildError: it cannot be built here; one sentence says which package, and why.
            SandboxError, StorageError: this machine's doing.
        """
        proxy = BuildProxy(self.index.hosts)
        built = Built()
        # To fetch a repository runs more than one program; what that leaves is for no other build.
        sources = any("git+" in text for text in (*wanted.lines, wanted.lock)) or "{ git = " in wanted.lock
        for code in (True,) if sources else (False, True):
            async with proxy.serving(socket):
                launch = self._launch(wanted, target, socket, code=code, idle=idle)
                watching = asyncio.get_running_loop().create_task(self._watch_wheels(launch.lease), name="wheels")
                try:
                    outcome, built = await self.pool.run(launch)
                finally:
                    watching.cancel()
                    self.pool.end_job(launch.job)
            if not built.failure:
                return built.bytes
            if outcome.reason != "exit":
                break  # with code of packages it would take longer still
        raise BuildError(f"{FAILED}{wanted.source}: {built.failure}{_unreached(proxy)}")

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

    def _launch(self, wanted: Wanted, target: Path, socket: Path, *, code: bool, idle: bool) -> TaskLaunch[Built]:
        """Return how to build it; with ``code``: packages' own code may run, apart from what others will use."""
        mounts = [Mount(self.uv, _UV), Mount(Path(build_program.__file__), _PROGRAM), *self.index.mounts()]
        mounts.append(Mount(socket, _SOCKET))
        if not code:
            mounts.append(Mount(self.wheels, _WHEELS, writable=True))
        env = {
            "UV_CACHE_DIR": f"{JOB_FOLDER}/cache" if code else _WHEELS,
            "UV_LINK_MODE": "copy",
            "UV_NO_PROGRESS": "1",
            "UV_PYTHON_DOWNLOADS": "never",
            "UV_PYTHON_PREFERENCE": "only-system",
            "NO_COLOR": "1",
            "TMPDIR": f"{JOB_FOLDER}/tmp",  # noqa: S108  on the disk, as it may take much
            "GIT_TERMINAL_PROMPT": "0",
        }
        if self.index.certificates:
            env["SSL_CERT_FILE"] = CERTIFICATES
        disk_bytes = self.settings.disk_mb << 20
        return TaskLaunch(
            lease=f"environment {target.name}",
            job=f"environment {target.name} {code}".encode(),
            level="strict",
            argv=(str(self.python.executable), "-I", "-S", "-B", _PROGRAM, f"{JOB_FOLDER}/plan.json"),
            env=env,
            limits=Limits(
                cpus=1,
                memory_bytes=self.memory_mb << 20 if self.memory_mb else None,
                wall_s=float(self.settings.time_s),
                disk_bytes=disk_bytes,
                processes=PROCESSES,
                output_bytes=OUTPUT_BYTES,
            ),
            populate=lambda folder: self._populate(wanted, folder, code=code),
            collect=lambda folder, outcome: _collect(folder, outcome, target, wanted, disk_bytes),
            idle_priority=idle,
            background=idle,
            mounts=tuple(mounts),
        )

    def _populate(self, wanted: Wanted, folder: Path, *, code: bool) -> None:
        """Write down what is to be done."""
        (folder / "tmp").mkdir()
        python, environment = str(self.python.executable), f"{_ENV}/bin/python"
        steps: list[tuple[str, ...]] = [
            (_UV, "venv", "--no-config", "--no-project", "--relocatable", "--quiet", "--python", python, _ENV)
        ]
        install = [_UV, "pip", "install", "--no-config", "--quiet", "--python", environment, *self.index.options()]
        install += ["--requirement", f"{JOB_FOLDER}/requirements.txt"]
        if not code:
            install.append("--no-build")
        if wanted.constraints:
            (folder / "constraints.txt").write_text("\n".join([*wanted.constraints, ""]))
            install += ["--constraint", f"{JOB_FOLDER}/constraints.txt"]
        if wanted.lock:
            (folder / "project").mkdir()
            (folder / "project" / "pyproject.toml").write_text(wanted.project)
            (folder / "project" / "uv.lock").write_text(wanted.lock)
            steps.append((
                *(_UV, "export", "--no-config", "--quiet", "--offline", "--frozen", "--no-dev", "--no-emit-project"),
                *("--no-header", "--no-annotate", "--python", python, "--project", f"{JOB_FOLDER}/project"),
            ))  # fmt: skip
        (folder / "requirements.txt").write_text("\n".join([*wanted.lines, ""]))
        if wanted.lines or wanted.lock:
            steps.append(tuple(install))
        # Tasks cannot write there. Without `site`: code of the packages has no part in it.
        steps.append((
            *(python, "-I", "-S", "-m", "compileall", "-qq", "--invalidation-mode", "unchecked-hash"),
            *("-s", _ENV, "-p", INSIDE, f"{_ENV}/lib"),
        ))  # fmt: skip
        plan = {
            "proxy": _SOCKET,
            "steps": [
                {
                    "argv": argv,
                    "out": f"{JOB_FOLDER}/requirements.txt" if argv[1] == "export" else "",
                    "may_fail": "compileall" in argv,
                }
                for argv in steps
            ],
        }
        (folder / "plan.json").write_text(json.dumps(plan))


def _collect(folder: Path, outcome: Outcome, target: Path, wanted: Wanted, bytes_max: int) -> Built:
    """Put what was built where it belongs, or say why there is nothing. Whatever wrote it is dead; nothing of it is believed."""
    if outcome.reason != "ok":
        return Built(failure=_said(outcome))
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


def _said(outcome: Outcome) -> str:
    """Return in one sentence what uv said, or by which limit it was ended."""
    if outcome.reason != "exit":
        return outcome.detail
    with outcome.stderr.open("rb") as file:
        file.seek(max(0, file.seek(0, os.SEEK_END) - SAID_BYTES))
        text = file.read().decode(errors="replace")
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
    """Return what more there is to say where a build did not get to a host."""
    if proxy.refused:
        listed = ", ".join(map(names.display, proxy.refused))
        return f" (it asked for {listed}: not among the hosts that [environments] lets builds reach)"
    if proxy.unreached:
        return f" ({', '.join(proxy.unreached)} does not answer)"
    return ""
