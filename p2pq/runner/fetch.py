"""The program that fetches files of packages inside the sandbox of a build: standard library only.

Its order is JSON: ``folder`` (where they go), ``files`` (each an address, what people call it, and
its name there), ``bytes_max`` (of all together). What it gets is looked at outside; whatever it prints is for people.
"""

import json
import os
import sys
import time
import urllib.request

TIMEOUT_S = 60
PIECE_BYTES = 1 << 20
TRIES = 3
PAUSE_S = 1.0


def main(path: str) -> int:
    """Fetch all files of an order; return 0, or 1 once it has said which could not be had."""
    with open(path, encoding="utf-8") as file:
        order = json.load(file)
    os.makedirs(order["folder"], exist_ok=True)
    left = order["bytes_max"]
    for url, name, file_name in order["files"]:
        try:
            left -= fetch(url, os.path.join(order["folder"], file_name), left)
        except (OSError, ValueError) as error:
            sys.stderr.write(f"error: {name} cannot be fetched: {getattr(error, 'reason', None) or error}\n")
            return 1
    return 0


def fetch(url: str, path: str, bytes_max: int) -> int:
    """Write what is at an address to a file; return its bytes. What was cut off is tried again.

    Raises:
        OSError: it cannot be had.
        ValueError: it has more bytes than it may.
    """
    for left in reversed(range(TRIES)):
        try:
            return copy(url, path, bytes_max)
        except OSError:
            if not left:
                raise
            time.sleep(PAUSE_S)
    raise AssertionError("the last try returns or raises")


def copy(url: str, path: str, bytes_max: int) -> int:
    """As ``fetch``, once."""
    size = 0
    # Which schemes there may be was looked at outside, and all that can be reached is the index.
    with urllib.request.urlopen(url, timeout=TIMEOUT_S) as answer, open(path, "wb") as file:  # noqa: S310
        promised = answer.headers.get("Content-Length")
        while piece := answer.read(PIECE_BYTES):
            size += len(piece)
            if size > bytes_max:
                raise ValueError("it is larger than a build may write ([environments] disk_mb)")
            file.write(piece)
    if promised is not None and promised.isdecimal() and int(promised) != size:
        raise OSError(f"it was cut off after {size} of {promised} bytes")
    return size


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
