"""On the owner's machine: packages for a job to bring along, found and fetched in the sandbox of a build.

Nothing of a package runs here: wheels only. What was fetched is kept by its hash, and what uv found for a target with it, so that
the same job is bundled without any network the next time.
"""

import asyncio
import hashlib
import json
import os
import ssl
import stat
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Final

from p2pq.daemon import building, bundles, files, limits, requirements
from p2pq.daemon.attempt import Outcome
from p2pq.daemon.building import Builder, Work, remove_tree, write_plan
from p2pq.daemon.bundles import Source, Target
from p2pq.daemon.environments import WHEELS_PART, Environments
from p2pq.daemon.indexes import CERTIFICATES
from p2pq.daemon.requirements import Wanted
from p2pq.daemon.sandbox import JOB_FOLDER, Mount
from p2pq.errors import BuildError, StorageError, UsageError
from p2pq.runner import fetch as fetch_program

PYLOCK: Final = "pylock.bundle.toml"
PYLOCK_BYTES_MAX: Final = 8 << 20
_PROGRAM: Final = "/p2pq-fetch.py"
_FETCHED: Final = "fetched"
AUTHORITIES: Final = (
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/cert.pem",
)
"""Where systems have the certificates that they trust, besides where Python says."""

Say = Callable[[str], Awaitable[None]]


class Bundler:
    """Makes bundles, one at a time. Use it from the event loop's thread only."""

    def __init__(self, environments: Environments) -> None:
        """Use what builds environments, and a folder beside them."""
        self._folder = environments.folder / "bundles"
        self._environments = environments
        self._lock = asyncio.Lock()

    @asynccontextmanager
    async def bundled(self, wanted: Wanted, targets: Mapping[Target, Sequence[str]], say: Say) -> AsyncIterator[Path]:
        """Give a folder that holds the wheels and the lists of all targets that can have them, until this is left.

        Args:
            wanted: what the job asks for.
            targets: the Pythons and machines, and who has them; the first one is this machine's own.
            say: told what is done, and for whom there is nothing.

        Raises:
            UsageError: there is nothing for any of them, or too much.
            SandboxError, StorageError: this machine's doing.
        """
        async with self._lock:
            stage = self._folder / "stage"
            try:
                await self._make(stage, wanted, targets, say)
                yield stage
            finally:
                with suppress(OSError):
                    await asyncio.to_thread(remove_tree, stage)

    async def _make(self, stage: Path, wanted: Wanted, targets: Mapping[Target, Sequence[str]], say: Say) -> None:
        try:
            await asyncio.to_thread(self._prepare, stage)
            builder = self._environments.builder(wanted.source)
            found = await self._resolve_all(builder, wanted, targets, say)
            await self._fetch(builder, wanted, found, say)
            await asyncio.to_thread(self._stage, stage, found)
        except BuildError as error:
            raise UsageError(f"--bundle: {error}") from error
        except OSError as error:
            raise StorageError(f"{self._folder} failed: {error.strerror}") from error

    def _prepare(self, stage: Path) -> None:
        for folder in (self._folder, self._folder / "wheels", self._folder / "found"):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        remove_tree(stage)
        stage.mkdir(mode=0o700)

    # ------------------------------------------------------------------ which

    async def _resolve_all(
        self, builder: Builder, wanted: Wanted, targets: Mapping[Target, Sequence[str]], say: Say
    ) -> dict[Target, tuple[Source, ...]]:
        """Return what each target takes; who cannot have it is told of, unless that is everybody."""
        found: dict[Target, tuple[Source, ...]] = {}
        failure: BuildError | None = None
        for target, nodes in list(targets.items())[: bundles.TARGETS_MAX]:
            who = f"{target} ({', '.join(nodes)})"
            try:
                found[target] = await self._resolve(builder, wanted, target, partial(say, f"bundle: {who} ..."))
            except BuildError as error:
                failure = failure or error
                await say(f"bundle: nothing for {who}: {error}")
        if failure is not None and not found:
            raise failure
        return found

    async def _resolve(
        self, builder: Builder, wanted: Wanted, target: Target, begins: Callable[[], Awaitable[None]]
    ) -> tuple[Source, ...]:
        """Return the wheels that a target takes, as they were found the first time.

        Raises:
            BuildError: it cannot have them.
        """
        platform = bundles.PLATFORMS.get((target.os, target.arch))
        if platform is None:
            raise BuildError(f"uv knows no wheels for {target.os} {target.arch}")
        if not requirements.python_fits(wanted.python, target.python):
            raise BuildError(f"{wanted.source} wants Python {wanted.python}")
        kept = self._kept(builder, wanted, target)
        with suppress(OSError, BuildError):  # not there, or not whole
            return bundles.chosen(await asyncio.to_thread(_read, kept), target)
        await begins()
        work = Work(
            name=f"bundle {kept.stem[:16]}",
            populate=partial(_ask, builder, wanted, target.python, platform),
            collect=_answer,
            code=False,
        )
        with self._environments.running():
            _, (text, failure), unreached = await builder.run(work, self._environments.socket())
        if failure:
            raise BuildError(f"{requirements.FAILED}{wanted.source}: {unreached}{failure}")
        found = bundles.chosen(text, target)
        if found:  # nothing is what markers make of it, if at all: then it is found again
            await asyncio.to_thread(_write, kept, text)
        return found

    def _kept(self, builder: Builder, wanted: Wanted, target: Target) -> Path:
        """Return where what was found for a target is kept."""
        platform = bundles.PLATFORMS[target.os, target.arch]
        name = requirements.digest(wanted, target.file, platform, *builder.index.texts())
        return self._folder / "found" / f"{name}.toml"

    def _forget(self, kept: Sequence[Path]) -> None:
        for path in kept:
            path.unlink(missing_ok=True)

    # ------------------------------------------------------------------ whence

    async def _fetch(
        self, builder: Builder, wanted: Wanted, found: Mapping[Target, Sequence[Source]], say: Say
    ) -> None:
        """Fetch what is not there yet.

        Raises:
            BuildError: it cannot be had.
        """
        by_hash = {source.wheel.sha256: source for sources in found.values() for source in sources}
        have = await asyncio.to_thread(self._have, by_hash)
        missing = [source for sha256, source in sorted(by_hash.items()) if sha256 not in have]
        if missing:
            known = sum(source.size for source in missing)
            size = f", {limits.size_text(known)}" if known else ""
            await say(f"bundle: fetching {len(missing)} of {len(by_hash)} wheels{size}")
            work = Work(
                name="bundle wheels",
                populate=partial(_order, builder, missing),
                collect=partial(self._take, missing),
                code=False,
                mounts=(Mount(Path(fetch_program.__file__), _PROGRAM), *_authorities(builder)),
            )
            with self._environments.running():
                _, failure, unreached = await builder.run(work, self._environments.socket())
            if failure:
                # Its index may have others by now: the next time it is asked again.
                of = [target for target, sources in found.items() if not have.issuperset(map(_hash, sources))]
                await asyncio.to_thread(self._forget, [self._kept(builder, wanted, target) for target in of])
                raise BuildError(f"{requirements.FAILED}{wanted.source}: {unreached}{failure}")
        quota_bytes = builder.settings.quota_mb << 20
        total = await asyncio.to_thread(self._make_room, by_hash, quota_bytes // WHEELS_PART)
        most = builder.settings.disk_mb << 20
        if total > most:
            raise BuildError(
                f"the wheels take {limits.size_text(total)}, more than the {limits.size_text(most)} of "
                "[environments] disk_mb; choose fewer kinds of nodes with --need or --where"
            )
        await say(f"bundle: {len(by_hash)} wheels, {limits.size_text(total)}, for {', '.join(map(str, sorted(found)))}")

    def _place(self, sha256: str) -> Path:
        return self._folder / "wheels" / f"{sha256}.whl"

    def _have(self, hashes: Mapping[str, Source]) -> set[str]:
        """Return which of them are there, and whole: nothing was synced, and disks forget."""
        found = set()
        for sha256 in hashes:
            with suppress(FileNotFoundError):
                if _sha256(self._place(sha256)) == sha256:
                    found.add(sha256)
        return found

    def _take(self, missing: Sequence[Source], folder: Path, outcome: Outcome) -> str:
        """Put what was fetched where it is kept, if it is what it should be; return why not, if it is not."""
        if outcome.reason != "ok":
            return building.said(outcome)
        for source in missing:
            path = folder / _FETCHED / source.wheel.sha256
            if not stat.S_ISREG(os.lstat(path).st_mode):
                return f"{source.wheel.file} is no file"
            if _sha256(path) != source.wheel.sha256:
                return f"{source.wheel.file} is not what its index promised (another SHA-256)"
            path.rename(self._place(source.wheel.sha256))
        return ""

    def _make_room(self, needed: Mapping[str, Source], most: int) -> int:
        """Let go of what this bundle does not need, if all takes more than ``most`` bytes; return the bytes of what it needs."""
        total = kept = 0
        others = []
        for path in (self._folder / "wheels").iterdir():
            size = path.stat().st_size
            kept += size
            if path.stem in needed:
                total += size
            else:
                others.append(path)
        if kept > most:
            for path in others:
                path.unlink()
        return total

    def _stage(self, stage: Path, found: Mapping[Target, Sequence[Source]]) -> None:
        """Lay out what travels.

        Raises:
            BuildError: two wheels of one name differ.
        """
        there: dict[str, str] = {}
        for target, sources in found.items():
            (stage / target.file).write_bytes(bundles.listed(sources))
            for wheel in (source.wheel for source in sources):
                if wheel.file not in there:
                    os.link(self._place(wheel.sha256), stage / wheel.file)
                elif there[wheel.file] != wheel.sha256:
                    raise BuildError(f"{wheel.file} differs between indexes, so it cannot be for all; use --where")
                there[wheel.file] = wheel.sha256


def _hash(source: Source) -> str:
    return source.wheel.sha256


def _write(path: Path, text: str) -> None:
    """Keep what uv has found, below its hash, so that it is there as a whole or not at all. Blocking."""
    raw = text.encode()
    fresh = path.with_name(f".{path.name}.new")
    fresh.write_bytes(f"# {hashlib.sha256(raw).hexdigest()}\n".encode() + raw)
    files.sync(fresh)
    fresh.rename(path)
    files.sync_folder(path.parent)


def _read(path: Path) -> str:
    """Return what was kept; blocking.

    Raises:
        OSError: it is not there.
        BuildError: it is not what was written.
    """
    head, _, raw = path.read_bytes().partition(b"\n")
    if head != f"# {hashlib.sha256(raw).hexdigest()}".encode():
        raise BuildError(f"{path} is damaged")
    return raw.decode(errors="replace")


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _ask(builder: Builder, wanted: Wanted, python: str, platform: str, folder: Path) -> None:
    """Write down how uv finds out what a target takes."""
    steps, said = builder.asked(wanted, folder)
    asking = (
        *(building.UV, "pip", "compile", "--no-config", "--quiet", "--no-header", "--no-build"),
        *("--python", str(builder.python.executable), "--python-version", python, "--python-platform", platform),
        *("--format", "pylock.toml", "--output-file", f"{JOB_FOLDER}/{PYLOCK}", *builder.index.options()),
        *_for_compile(said),
    )
    write_plan(folder, [*steps, (asking, "")])


def _for_compile(said: Sequence[str]) -> list[str]:
    """Return the same for ``uv pip compile``, which takes files of requirements without an option."""
    return [word for word in said if word != "--requirement"]


def _answer(folder: Path, outcome: Outcome) -> tuple[str, str]:
    """Return what uv has written, or why there is nothing."""
    if outcome.reason != "ok":
        return "", building.said(outcome)
    path = folder / PYLOCK
    if not stat.S_ISREG(os.lstat(path).st_mode) or path.stat().st_size > PYLOCK_BYTES_MAX:
        return "", "what uv has found is not a file of a size that it could have"
    text = path.read_text(errors="replace")
    return (text, "") if text.strip() else ("", "uv has written nothing of what it has found")


def _order(builder: Builder, missing: Sequence[Source], folder: Path) -> None:
    """Write down what is to be fetched."""
    order = {
        "folder": f"{JOB_FOLDER}/{_FETCHED}",
        "files": [(source.url, source.wheel.file, source.wheel.sha256) for source in missing],
        "bytes_max": builder.settings.disk_mb << 20,
    }
    (folder / "order.json").write_text(json.dumps(order))
    fetching = (str(builder.python.executable), "-I", "-S", "-B", _PROGRAM, f"{JOB_FOLDER}/order.json")
    write_plan(folder, [(fetching, "")])


def _authorities(builder: Builder) -> tuple[Mount, ...]:
    """Return the system's certificates, where the index has none of its own: unlike uv, Python brings none along."""
    if builder.index.certificates:
        return ()
    places = (ssl.get_default_verify_paths().openssl_cafile, *AUTHORITIES)
    return tuple(Mount(Path(each), CERTIFICATES) for each in places if Path(each).is_file())[:1]
