"""An interpreter with Brian2, for the example that is swept: ``python -m tests.netns.brian`` makes it, which takes a minute.

It is that of ``BRIAN2_PYTHON``, else of a venv that pip fills once, kept beside the other caches of this environment by what
it holds. The suite begins with it, in the background; whoever needs it waits until it is there.
"""

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

EXAMPLE: Final = Path(__file__).parents[2] / "examples/brian2-sweep"
PIP_S: Final = 240


def python() -> str:
    """Return its path; make it first, or wait for who does, if it is not there yet."""
    if named := os.environ.get("BRIAN2_PYTHON"):
        return named
    wanted = (EXAMPLE / "requirements.txt").read_text()
    mark = hashlib.sha256(f"{sys.version} {sys.base_prefix} {wanted}".encode()).hexdigest()[:12]
    venv = Path(sys.prefix, "cache", f"brian2-{mark}")
    venv.parent.mkdir(exist_ok=True)
    with venv.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (venv / "complete").exists():
            _make(venv)
    return str(venv / "bin/python")


def _make(venv: Path) -> None:
    shutil.rmtree(venv, ignore_errors=True)
    subprocess.run([sys.executable, "-m", "venv", str(venv)], check=True, timeout=PIP_S)
    pip = [str(venv / "bin/python"), "-m", "pip", "install", "-q", "--disable-pip-version-check"]
    subprocess.run([*pip, "-r", str(EXAMPLE / "requirements.txt")], check=True, timeout=PIP_S)
    (venv / "complete").touch()


if __name__ == "__main__":
    python()
