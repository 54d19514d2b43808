"""A node in the background, with the options of ``start``: they hold until ``stop``, also when the node dies in between."""

from pathlib import Path

import msgspec

from p2pq.cli.common import note
from p2pq.client.starter import OPTIONS_FILE, Options, kept, start_again
from p2pq.daemon.home import write_private
from p2pq.errors import RefusedError


def start(home: Path, given: Options) -> str:
    """Start a node with these options and those that still hold; say so if there are such. Return its ``ready`` line.

    Raises:
        ConfigError: it did not start because of a setting.
        NodeUnreachableError: it did not start for another reason.
        RefusedError: what is kept of the options cannot be read or written.
    """
    options = given.over(kept(home))
    ready = start_again(home, given, say=note)
    try:
        write_private(home / OPTIONS_FILE, msgspec.json.encode(options))
    except OSError as error:
        raise RefusedError(
            f"the node runs, but {home / OPTIONS_FILE} cannot be written: {error.strerror}; make room"
        ) from error
    return ready


def forget(home: Path) -> None:
    """The node was stopped: the next start begins with no options."""
    (home / OPTIONS_FILE).unlink(missing_ok=True)
