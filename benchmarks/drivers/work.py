"""What tasks do. Workers of the peers import it, so it stands alone."""

import subprocess
from collections.abc import Sequence


def command(argv: Sequence[str]) -> int:
    """Run a command; return its exit code."""
    return subprocess.run(argv, stdin=subprocess.DEVNULL, check=False).returncode


def output(argv: Sequence[str]) -> str:
    """Run a command that must succeed; return what it printed."""
    done = subprocess.run(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True, check=True)
    return done.stdout


def nothing(number: int) -> int:
    """Do nothing, and let it be seen that it was done."""
    return number
