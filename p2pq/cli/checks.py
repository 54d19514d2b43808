"""What ``doctor`` can look at without a node."""

import os
import shutil
import sys
from pathlib import Path
from typing import Final

from p2pq.daemon.home import Home
from p2pq.errors import P2PQError
from p2pq.wire.control import Finding

FREE_BYTES_MIN: Final = 2 << 30


def without_node(home: Home) -> list[Finding]:
    """Return what was found about this machine and this home."""
    return [_python(), _home(home), _settings(home), *_store(home), _bubblewrap(), _disk(home.path)]


def with_sandbox(findings: list[Finding], level: str) -> list[Finding]:
    """Return what was found, told by the sandbox that the node proved: without bubblewrap ``basic`` may do."""
    return [
        Finding(
            check=each.check,
            ok=True,
            detail="it is not installed; the sandbox basic, which is weaker than strict, is used instead",
            suggestion=f"for strict, {each.suggestion}",
        )
        if level == "basic" and each.check == "bubblewrap" and not each.ok
        else each
        for each in findings
    ]


def _python() -> Finding:
    version = ".".join(map(str, sys.version_info[:3]))
    return Finding(check="python", ok=True, detail=f"{version} at {sys.executable}")


def _home(home: Home) -> Finding:
    if not home.path.exists():
        return Finding(check="home", ok=True, detail=f"{home.path} is made at the first start")
    try:
        Home.open(home.path, create=False)
    except P2PQError as error:
        return Finding(check="home", ok=False, detail=str(error), suggestion="mend it as the sentence says")
    return Finding(check="home", ok=True, detail=f"{home.path} is private")


def _settings(home: Home) -> Finding:
    from p2pq.daemon.settings import FILE, load  # noqa: PLC0415  slow to import

    file = home.path / FILE
    try:
        load(home.path, os.environ)
    except P2PQError as error:
        return Finding(
            check="settings", ok=False, detail=str(error), suggestion=f"correct {file} or the P2PQ_ variable"
        )
    return Finding(check="settings", ok=True, detail=f"{file} and the environment are good")


def _store(home: Home) -> list[Finding]:
    """Look through the store of a node that does not run; one that runs has done so itself."""
    if not home.path.exists() or home.running():
        return []
    from p2pq.daemon.identity import stored_node  # noqa: PLC0415  slow to import
    from p2pq.daemon.repair import trouble  # noqa: PLC0415
    from p2pq.daemon.store import missing  # noqa: PLC0415

    try:
        found = missing(home)
        if not found and not home.store.exists():
            return []
        found = found or trouble(home.store, stored_node(home))
    except P2PQError as error:
        return [Finding(check="store", ok=False, detail=str(error), suggestion="mend it as the sentence says")]
    if found:
        return [Finding(check="store", ok=False, detail=found, suggestion="p2pq repair")]
    return [Finding(check="store", ok=True, detail=f"{home.store} is whole")]


def _bubblewrap() -> Finding:
    found = shutil.which("bwrap", path=os.environ.get("PATH", "") + ":/usr/bin:/bin")
    if found is None:
        return Finding(
            check="bubblewrap",
            ok=False,
            detail="it is not installed, so other people's tasks are refused here and own tasks run without a sandbox",
            suggestion="install it, for instance: sudo apt install bubblewrap",
        )
    return Finding(check="bubblewrap", ok=True, detail=found)


def _disk(path: Path) -> Finding:
    while not path.exists():
        path = path.parent
    free = shutil.disk_usage(path).free
    if free < FREE_BYTES_MIN:
        return Finding(
            check="disk",
            ok=False,
            detail=f"only {free >> 20} MiB are free at {path}",
            suggestion="free some space, or move P2PQ_HOME to a larger disk",
        )
    return Finding(check="disk", ok=True, detail=f"{free >> 30} GiB free at {path}")
