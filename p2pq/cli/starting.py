"""A node in the background, with the options of ``start``: they hold until ``stop``, also when the node dies in between."""

from pathlib import Path
from typing import Final

import msgspec

from p2pq.cli.common import note
from p2pq.client.starter import start_node
from p2pq.daemon.home import write_private
from p2pq.errors import RefusedError

FILE: Final = "start.json"
BYTES_MAX: Final = 1 << 20


class Options(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What ``start`` was told; what it was not told is None, empty or false."""

    name: str | None = None
    slots: int | None = None
    listen: str | None = None
    peer: tuple[str, ...] = ()
    label: tuple[str, ...] = ()
    no_mdns: bool = False
    no_accept: bool = False
    bridge: bool = False
    flight: bool = False

    def over(self, kept: "Options") -> "Options":
        """Return these, and those of ``kept`` of which these say nothing."""
        given = {name: value for name in self.__struct_fields__ if _says(value := getattr(self, name))}
        return msgspec.structs.replace(kept, **given)

    def argv(self) -> list[str]:
        """Return them as a command line."""
        words: list[str] = []
        for name in self.__struct_fields__:
            value, option = getattr(self, name), f"--{name.replace('_', '-')}"
            if value is True:
                words.append(option)
            elif _says(value):
                for each in value if isinstance(value, tuple) else (value,):
                    words += [option, str(each)]
        return words


def _says(value: object) -> bool:
    return value is not None and value is not False and value != ()


def start(home: Path, given: Options | None = None) -> str:
    """Start a node with these options and those that still hold; say so if there are such. Return its ``ready`` line.

    Raises:
        ConfigError: it did not start because of a setting.
        NodeUnreachableError: it did not start for another reason.
        RefusedError: what is kept of the options cannot be read or written.
    """
    given, kept = given or Options(), _kept(home)
    options = given.over(kept)
    if kept != Options():
        note(f"no `p2pq stop` since the last start, so its options hold: {' '.join(options.argv())}")
    ready = start_node(home, options.argv())
    try:
        write_private(home / FILE, msgspec.json.encode(options))
    except OSError as error:
        raise RefusedError(
            f"the node runs, but {home / FILE} cannot be written: {error.strerror}; make room"
        ) from error
    return ready


def forget(home: Path) -> None:
    """The node was stopped: the next start begins with no options."""
    (home / FILE).unlink(missing_ok=True)


def _kept(home: Path) -> Options:
    path = home / FILE
    try:
        with path.open("rb") as file:
            return msgspec.json.decode(file.read(BYTES_MAX), type=Options)
    except FileNotFoundError:
        return Options()
    except (OSError, msgspec.DecodeError) as error:
        raise RefusedError(f"{path} cannot be read; `p2pq stop` forgets the options of the last start") from error
