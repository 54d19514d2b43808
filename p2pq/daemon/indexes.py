"""Where builds of environments get packages: what the node's owner has said, in p2pq's settings, uv's, or pip's.

The first of these that names any place counts, as a whole: ``[environments]``, uv's variables, pip's variables, pip's files;
else the Python Package Index.
"""

import asyncio
import configparser
import dataclasses
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import SplitResult, unquote, urlsplit

from p2pq.daemon import upstream
from p2pq.daemon.jobpython import inside
from p2pq.daemon.sandbox import Mount
from p2pq.daemon.upstream import Proxies
from p2pq.errors import ConfigError
from p2pq.model.config import EnvironmentSettings

PYPI: Final = "https://pypi.org/simple"
PYPI_FILES: Final = "files.pythonhosted.org"
"""Where the Python Package Index has the files themselves."""
NOWHERE: Final = "none"
_INSIDE: Final = "/p2pq-index"
CERTIFICATES: Final = "/p2pq-certificates"
"""Where a build finds them."""
SYSTEM_FILES: Final = (Path("/etc/xdg/pip/pip.conf"), Path("/etc/pip.conf"))
PORTS: Final = {"https": 443, "http": 80}
REACH_S: Final = 3.0


@dataclass(frozen=True, slots=True)
class Index:
    """Places of packages; ``fix`` has looked at them."""

    url: str = PYPI
    """Empty: there is none, but what follows."""
    extra: tuple[str, ...] = ()
    find_links: tuple[str, ...] = ()
    best: bool = False
    """The newest of all places counts, as it does for pip; else the first place that has a package."""
    certificates: str = ""
    """A file of those whose word for an https:// address counts, instead of uv's own."""
    hosts: frozenset[tuple[str, int]] = frozenset()
    """All that a build may reach."""
    secure: frozenset[tuple[str, int]] = frozenset()
    """Those of them that it may reach by https only."""
    proxies: Proxies = upstream.NONE
    """What leads to those."""
    folders: tuple[tuple[str, Path, str], ...] = ()
    """Of places on this machine: the place, the folder that a build may read for it, and the place as it finds it."""

    def options(self) -> tuple[str, ...]:
        """Return what uv is told."""
        found = {place: inside for place, _, inside in self.folders}
        said = ["--default-index", found.get(self.url, self.url)] if self.url else ["--no-index"]
        for url in self.extra:
            said += ["--index", found.get(url, url)]
        for place in self.find_links:
            said += ["--find-links", found.get(place, place)]
        if self.best:
            said += ["--index-strategy", "unsafe-best-match"]
        return tuple(said)

    def mounts(self) -> tuple[Mount, ...]:
        """Return what a build sees of this machine for it."""
        seen = [Mount(folder, f"{_INSIDE}/{number}") for number, (_, folder, _) in enumerate(self.folders)]
        if self.certificates:
            seen.append(Mount(Path(self.certificates), CERTIFICATES))
        return tuple(seen)

    def texts(self) -> tuple[str, ...]:
        """Return what two nodes' environments of the same name have in common."""
        return self.url, *self.extra, "", *self.find_links, "best" if self.best else ""


def find(settings: EnvironmentSettings, environ: Mapping[str, str], *, homes: Iterable[Path], prefix: Path) -> Index:
    """Return where packages come from.

    Args:
        settings: p2pq's own.
        environ: uv's and pip's variables are looked for there.
        homes: folders that no build may see.
        prefix: that of the Python in which pip may have a file of settings.

    Raises:
        ConfigError: an address is of no use here; the sentence says which, and what to do.
    """
    pip = _pip(environ, prefix)
    said = settings.index, settings.extra_indexes, settings.find_links
    uv = (
        environ.get("UV_DEFAULT_INDEX") or environ.get("UV_INDEX_URL", ""),
        _words(environ.get("UV_INDEX") or environ.get("UV_EXTRA_INDEX_URL", "")),
        _words(environ.get("UV_FIND_LINKS", "").replace(",", " ")),
    )
    pips = pip.get("index-url", ""), _words(pip.get("extra-index-url", "")), _words(pip.get("find-links", ""))
    url, extra, links = next((each for each in (said, uv, pips) if any(each)), pips)
    as_pip = (url, extra, links) == pips
    if as_pip and pip.get("no-index", "").lower() in {"1", "true", "yes", "on"}:
        url = NOWHERE
    best = as_pip or environ.get("UV_INDEX_STRATEGY", "") == "unsafe-best-match"
    certificates = settings.certificates or environ.get("SSL_CERT_FILE", "") or pip.get("cert", "")
    url = "" if url == NOWHERE else (url or PYPI)
    urls = tuple(url.partition("=")[2] if _named(url) else url for url in extra)  # uv lets them have names
    found = Index(url, urls, links, best and bool(extra), certificates, proxies=upstream.find(environ))
    return fix(found, settings.hosts, homes)


def fix(index: Index, hosts: Iterable[str], homes: Iterable[Path]) -> Index:
    """Return the same with what it lets builds reach and read.

    Raises:
        ConfigError: as ``find``.
    """
    reached = {_host(host) for host in hosts}
    secure = {each for each in reached if each[1] == PORTS["https"]}
    plain: set[tuple[str, int]] = set()
    folders: list[tuple[str, Path, str]] = []
    places = dict.fromkeys(each for each in (index.url, *index.extra, *index.find_links) if each)
    for place in places:
        parts = _split(place)
        if parts.scheme in PORTS:
            found = {(str(parts.hostname), parts.port or PORTS[parts.scheme])}
            if parts.hostname == "pypi.org":
                found.add((PYPI_FILES, PORTS["https"]))
            reached |= found
            (secure if parts.scheme == "https" else plain).update(found)
        else:
            folder = Path(unquote(parts.path) if parts.scheme else place).expanduser()
            # Pages of an index name files that lie beside them.
            inner = f"{_INSIDE}/{len(folders)}"
            if place in index.find_links:
                folders.append((place, _seen(folder, homes), inner))
            elif folder.name == "simple":
                folders.append((place, _seen(folder.parent, homes), f"file://{inner}/simple"))
            else:
                folders.append((place, _seen(folder, homes), f"file://{inner}"))
    if index.certificates and not Path(index.certificates).is_file():
        raise ConfigError(f"{index.certificates}, which is to hold certificates for packages, is not a file")
    only = frozenset(secure - plain)
    return dataclasses.replace(index, hosts=frozenset(reached), secure=only, folders=tuple(folders))


async def silent(index: Index) -> str:
    """Return the host of the index if it does not answer."""
    if index.url.startswith(("https:", "http:")):
        parts = urlsplit(index.url)
        host, port = str(parts.hostname), parts.port or PORTS[parts.scheme]
        proxy = index.proxies.to(host, secure=parts.scheme == "https")
        host, port = (host, port) if proxy is None else proxy.address
        try:
            async with asyncio.timeout(REACH_S):
                _, writer = await asyncio.open_connection(host, port)
        except (OSError, TimeoutError):
            return host if proxy is None else f"the proxy {host}"
        writer.close()
    return ""


def _split(place: str) -> SplitResult:
    """Return the parts of an address; a path has no scheme.

    Raises:
        ConfigError: it is of no use.
    """
    try:
        parts = urlsplit(place)
        _ = parts.port
    except ValueError:
        raise ConfigError(f"{place!r} is no address of packages; see [environments] in config.toml") from None
    if parts.scheme not in {"https", "http", "file", ""} or (parts.scheme in PORTS and not parts.hostname):
        raise ConfigError(f"{place!r} is no address of packages; write https://…, file:///… or a path")
    if parts.password or (parts.username and parts.scheme in PORTS):
        # Whatever a build knows, the code of the packages that it installs can know.
        raise ConfigError(
            f"the index at {parts.hostname} takes a password, which code of packages could read during a build; "
            "set [environments] index to one that takes none"
        )
    return parts


def _host(text: str) -> tuple[str, int]:
    """Return a host and its port, as ``[environments] hosts`` has it.

    Raises:
        ConfigError: it is none.
    """
    name, colon, port = text.rpartition(":")
    if not colon:
        name, port = text, str(PORTS["https"])
    if not name or not port.isdecimal() or not 0 < int(port) < 1 << 16 or "/" in name:
        raise ConfigError(f"[environments] hosts has {text!r}; write HOST or HOST:PORT")
    return name.lower(), int(port)


def _seen(folder: Path, homes: Iterable[Path]) -> Path:
    """Return a folder of packages as builds see it.

    Raises:
        ConfigError: they must not, or it is none.
    """
    if not folder.is_absolute() or not folder.is_dir():
        raise ConfigError(f"{folder}, which is to hold packages, is not a folder (named by its whole path)")
    plain = Path(os.path.realpath(folder))
    if any(inside(Path(os.path.realpath(home)), plain) for home in homes) or plain == Path("/"):
        raise ConfigError(f"{folder}, which is to hold packages, holds a home, which builds must not see")
    return folder


def _named(url: str) -> bool:
    name, equals, _ = url.partition("=")
    return bool(equals) and "/" not in name and ":" not in name


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


def _pip(environ: Mapping[str, str], prefix: Path) -> dict[str, str]:
    """Return pip's settings: of its files, the later ones count more, and of its variables."""
    found: dict[str, str] = {}
    home = Path(environ.get("HOME") or os.path.expanduser("~"))  # noqa: PTH111  where HOME is not set
    own = Path(environ.get("XDG_CONFIG_HOME") or home / ".config")
    files = [*SYSTEM_FILES, home / ".pip/pip.conf", own / "pip/pip.conf"]
    files.append(prefix / "pip.conf")
    if (named := environ.get("PIP_CONFIG_FILE")) is not None:
        files = [] if named == os.devnull else [*files, Path(named)]
    for file in files:
        parser = configparser.RawConfigParser()
        try:
            parser.read_string(file.read_text(errors="replace"))
        except (OSError, configparser.Error):
            continue  # pip complains of it, too
        for section in ("global", "install"):
            if parser.has_section(section):
                found |= {key.replace("_", "-"): value for key, value in parser.items(section)}
    names = ("index-url", "extra-index-url", "find-links", "no-index", "cert")
    variables = {name: environ.get("PIP_" + name.replace("-", "_").upper(), "") for name in names}
    return found | {name: value for name, value in variables.items() if value}
