"""Packages that travel with a job, as wheels: for which Pythons and machines, which files, and how a worker finds its own.

A job that brings some has a folder for them, with one list for each target: what uv took for that Python and machine. A worker
believes nothing of it: it installs by name, version and hash, so that equal lists are equal environments, whoever they are of.
"""

import re
import tomllib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated, Any, Final, Literal
from urllib.parse import unquote, urlsplit

import msgspec
from msgspec import Meta

from p2pq import decoders
from p2pq.core.views import PeerView
from p2pq.daemon.requirements import LABEL, Wanted
from p2pq.errors import BuildError, RefusedError
from p2pq.model.job import Profile, Resources, missing_needs
from p2pq.wire import names
from p2pq.wire.tree import Tree, select

FOLDER: Final = ".p2pq/bundle"
"""Where they lie in the tree of a job; no task sees them there."""
TARGETS_MAX: Final = 16
WHEELS_MAX: Final = 2000
"""Of one target."""
LIST_BYTES_MAX: Final = 1 << 20
SOURCE: Final = "the bundle"
"""What such an environment is called where people hear of it."""
PLATFORMS: Final = {
    ("linux", "x86_64"): "x86_64-manylinux_2_28",
    ("linux", "aarch64"): "aarch64-manylinux_2_28",
    ("linux", "riscv64"): "riscv64-unknown-linux",
    ("darwin", "arm64"): "aarch64-apple-darwin",
    ("darwin", "x86_64"): "x86_64-apple-darwin",
}
"""What uv calls them. glibc 2.28 is what most wheels ask for, and what systems since 2019 have."""
_PYTHON: Final = re.compile(r"3\.[0-9]{1,3}")

Sha256 = Annotated[str, Meta(pattern=r"^[0-9a-f]{64}$")]


@dataclass(frozen=True, slots=True, order=True)
class Target:
    """A Python on a kind of machine."""

    python: str
    """As ``3.11``."""
    os: str
    arch: str

    @property
    def file(self) -> str:
        """The name of its list."""
        return f"cp{self.python.replace('.', '')}-{self.os}-{self.arch}.json"

    def __str__(self) -> str:
        """Return what people call it."""
        return f"Python {self.python} on {self.os} {self.arch}"


class Wheel(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """One file of a package."""

    name: Annotated[str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,199}$")]
    version: Annotated[str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9.!+_-]{0,99}$")]
    file: Annotated[str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9.!+_-]{0,240}\.whl$")]
    sha256: Sha256


class WheelList(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What one target installs: these and nothing else."""

    v: Literal[1] = 1
    wheels: Annotated[tuple[Wheel, ...], Meta(max_length=WHEELS_MAX)]

    def wanted(self) -> Wanted:
        """Return it as what an environment is built of."""
        lines = [f"{each.name}=={each.version} --hash=sha256:{each.sha256}" for each in self.wheels]
        return Wanted(SOURCE, tuple(sorted(set(lines))))


@dataclass(frozen=True, slots=True)
class Source:
    """A wheel, and where it can be had."""

    wheel: Wheel
    url: str
    size: int
    """Bytes, as far as the index has said; else 0."""


def target_of(version: str, system: str, machine: str) -> Target:
    """Return the target that this Python on this machine is.

    Args:
        version: of Python, as ``3.11.2``.
        system: as ``platform.system()`` says.
        machine: as ``platform.machine()`` says.
    """
    return Target(".".join(version.split(".")[:2]), system.lower(), machine)


def targets_of(profile: Profile) -> tuple[Target, ...]:
    """Return what a node says that its jobs run with; none where it does not say."""
    said = {key: [value for found, value in profile.labels if found == key] for key in ("python", "os", "arch")}
    pythons = [value for value in said["python"] if _PYTHON.fullmatch(value)]
    if not (pythons and said["os"] and said["arch"]):
        return ()
    return (Target(pythons[0], said["os"][0], said["arch"][0]),)


def wanted_by(
    own: tuple[str, Target], peers: Iterable[PeerView], resources: Resources, only: bytes, me: bytes
) -> dict[Target, tuple[str, ...]]:
    """Return the targets that a job may come to, with the names of who has them; this machine's own comes first.

    Args:
        own: this node's name, and its target.
        peers: the others, as this node sees them.
        resources: what the job asks for; a node without what it needs does not count.
        only: the one node that may run it, or empty.
        me: this node.
    """
    found: dict[Target, tuple[str, ...]] = {}
    if only in (b"", me):
        found[own[1]] = (own[0],)
    for peer in peers:
        profile = peer.profile
        if profile is None or only not in (b"", peer.id) or LABEL not in profile.labels:
            continue
        if missing_needs(resources, profile):
            continue
        for target in targets_of(profile):
            found[target] = (*found.get(target, ()), peer.name)
    return found


def chosen(pylock: str, target: Target) -> tuple[Source, ...]:
    """Return which wheel of each package of a ``pylock.toml`` to take; all that it names fit its target.

    Raises:
        BuildError: a package has none; the sentence says which.
    """
    try:
        packages = tomllib.loads(pylock).get("packages", [])
        found = [_choose(package, target) for package in packages]
    except (tomllib.TOMLDecodeError, RecursionError, AttributeError, TypeError, KeyError, ValueError) as error:
        raise BuildError(f"what uv found for {target} is not understood ({names.display(str(error))[:100]})") from error
    if len(found) > WHEELS_MAX:
        raise BuildError(f"for {target} there are more than {WHEELS_MAX} packages")
    return tuple(sorted(found, key=lambda source: source.wheel.file))


def _choose(package: dict[str, Any], target: Target) -> Source:
    sources = [_source(package, wheel) for wheel in package.get("wheels") or _archive(package)]
    if not sources:
        name = names.display(str(package["name"]))[:80]
        raise BuildError(f"{name} has no wheel for {target}; --bundle takes wheels only: pin a version that has one")
    # One made for the machine is there because it is better than the one for all; of several the smallest does.
    return min(sources, key=lambda each: (each.wheel.file.endswith("-any.whl"), each.size, each.wheel.file))


def _archive(package: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the wheel that a package was named by, if it was."""
    archive = package.get("archive")
    return [archive] if archive and _file_name(archive["url"]).endswith(".whl") else []


def _source(package: dict[str, Any], wheel: dict[str, Any]) -> Source:
    said = {
        "name": package["name"],
        "version": package["version"],
        "file": wheel.get("name") or _file_name(wheel["url"]),
        "sha256": wheel["hashes"]["sha256"],
    }
    size = wheel.get("size", 0)
    if urlsplit(wheel["url"]).scheme not in {"https", "http", "file"} or not isinstance(size, int):
        raise ValueError(wheel["url"])
    return Source(decoders.convert(tuple(said.values()), Wheel), wheel["url"], max(0, size))


def _file_name(url: str) -> str:
    return unquote(urlsplit(url).path.rpartition("/")[2])


def listed(sources: Iterable[Source]) -> bytes:
    """Return the list of a target, as it travels."""
    return msgspec.json.encode(WheelList(wheels=tuple(source.wheel for source in sources)))


def is_bundled(path: str) -> bool:
    """Tell whether a file of a job is one of the packages that it brings, or their lists."""
    return path.startswith(f"{FOLDER}/")


def own_files(tree: Tree) -> Tree:
    """Return what of a job's tree its tasks see."""
    return select(tree, lambda path: not is_bundled(path)) if _brings(tree) else tree


def _brings(tree: Tree) -> bool:
    return any(is_bundled(file.path) for file in tree.files)


@dataclass(frozen=True, slots=True)
class Brought:
    """The wheels that a job brings for this machine."""

    tree: Tree
    """Their files, by name."""


def find(tree: Tree, target: Target) -> str:
    """Return the path of a target's list in a job that brings packages; empty if it brings none.

    Raises:
        RefusedError: it brings some, but for others only.
    """
    if not _brings(tree):
        return ""
    path = f"{FOLDER}/{target.file}"
    if not any(file.path == path for file in tree.files):
        raise RefusedError(f"the job brings its packages along (--bundle), but none for {target}")
    return path


def read(raw: bytes) -> WheelList:
    """Return a list that came with a job.

    Raises:
        RefusedError: it is none.
    """
    try:
        if len(raw) > LIST_BYTES_MAX:
            raise msgspec.ValidationError("it is too long")
        return decoders.read_json(raw, WheelList)
    except msgspec.MsgspecError as error:
        raise RefusedError(f"the list of packages that the job brings is not understood ({error})") from error


def brought(tree: Tree, found: WheelList) -> Brought:
    """Return the wheels of a list.

    Raises:
        RefusedError: the job does not bring one of them.
    """
    paths = {f"{FOLDER}/{wheel.file}" for wheel in found.wheels}
    wheels = select(tree, lambda path: path in paths)
    if len(wheels.files) != len(paths):
        raise RefusedError("the job lists packages that it does not bring")
    at = len(FOLDER) + 1
    files = tuple(msgspec.structs.replace(file, path=file.path[at:]) for file in wheels.files)
    return Brought(msgspec.structs.replace(wheels, files=files))
