"""An environment of their own for the peers: what they need never comes into that of p2pq."""

import os
import shutil
import subprocess
import sys
import venv
from pathlib import Path
from typing import Final

REQUIREMENTS: Final = Path(__file__).parents[1] / "peers.txt"
DEFAULT: Final = Path("/var/tmp/p2pq-peers")
"""Outside of homes, as p2pq's sandbox shows tasks no interpreter that lies in one."""
BY_HAND: Final = {"parallel": "parallel", "xargs": "findutils", "redis-server": "redis-server"}
"""Programs that PyPI does not have, with Debian's packages."""


def python_of(environment: Path) -> Path:
    """Return its interpreter, whether or not it is there."""
    return environment / "bin/python"


def install(environment: Path, requirements: Path = REQUIREMENTS) -> None:
    """Make the environment, or bring it up to date.

    Raises:
        subprocess.CalledProcessError: pip could not; it has said why.
    """
    if not python_of(environment).exists():
        venv.create(environment, with_pip=True)
    kept = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTHONHOME")}
    pip = [str(python_of(environment)), "-m", "pip", "install", "--no-input", "--quiet", "-r", str(requirements)]
    subprocess.run(pip, env=kept, check=True)
    for program, package in BY_HAND.items():
        if shutil.which(program) is None:
            print(f"{program} is not installed: apt install {package}", file=sys.stderr)
