"""Numbers on the command line: whole, and so that a run is possible."""

import argparse
from collections.abc import Callable
from typing import Final

NODES_MAX: Final = 20_000
TASKS_MAX: Final = 10_000_000
SEED_MAX: Final = (1 << 63) - 1
RUNS_MAX: Final = 1_000_000


def whole(least: int, most: int) -> Callable[[str], int]:
    """Return a type of argparse: a whole number between two others."""

    def number(text: str) -> int:
        try:
            value = int(text) if len(text) <= len(str(most)) + 1 else most + 1
        except ValueError:
            value = most + 1
        if not least <= value <= most:
            raise argparse.ArgumentTypeError(f"{text[:40]!r} is not a whole number from {least} to {most}")
        return value

    return number
