"""That `p2pq screensaver` runs: it holds a lock in the home, which the kernel takes from it however it ends."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

FILE: Final = "screensaver.lock"


@contextmanager
def claimed(home: Path) -> Iterator[None]:
    """Say that a screensaver runs, for as long as this lasts; several may.

    Raises:
        OSError: the home is not there or not ours.
    """
    descriptor = os.open(home / FILE, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH)
        yield
    finally:
        os.close(descriptor)


class Claim:
    """The other side."""

    def __init__(self, home: Path) -> None:
        """Look into a home."""
        self._file = os.fspath(home / FILE)

    def held(self) -> bool:
        """Tell whether a screensaver runs now."""
        try:
            descriptor = os.open(self._file, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
        except OSError:
            return False
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        except OSError:
            return False
        finally:
            os.close(descriptor)
        return False
