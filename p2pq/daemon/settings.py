"""Settings: defaults < ``HOME/config.toml`` < ``P2PQ_<SECTION>_<KEY>`` < options. The only reader of the configuration.

In the environment lists are separated by commas and maps are ``k=v,k=v``. ``Effective`` says where each value came from.
"""

import os
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final, get_args, get_origin

import msgspec

from p2pq import decoders
from p2pq.core import policy
from p2pq.daemon import wording
from p2pq.errors import ConfigError
from p2pq.model import config
from p2pq.model.config import Settings

CONFIG_BYTES_MAX: Final = 1 << 20
FILE: Final = "config.toml"
DEFAULT: Final = "default"
OPTION: Final = "option"
PREFIX: Final = "P2PQ_"
LOAD_PROBE: Final = "policy.load_probe"
_LISTS: Final = ("peer",)


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """One setting: its dotted key, its value and where that came from."""

    key: str
    value: Any
    origin: str
    """``default``, the path of the file, the name of the environment variable, or ``option``."""


class Effective(msgspec.Struct, frozen=True, kw_only=True):
    """What holds."""

    settings: Settings
    entries: tuple[Entry, ...]
    """Every setting, in the order of ``model.config``."""

    def rows(self) -> list[tuple[str, Any, str]]:
        """Return key, value and origin of every setting."""
        return [(entry.key, entry.value, entry.origin) for entry in self.entries]


def load(home: Path, env: Mapping[str, str] = os.environ, overrides: Mapping[str, Any] | None = None) -> Effective:
    """Put the layers together and check them.

    Args:
        home: the node's folder; its ``config.toml`` may be missing.
        env: the environment.
        overrides: what options say, by dotted key (``node.slots``); None for an option that was not given.

    Raises:
        ConfigError: the file cannot be read or parsed; a key is unknown; a value is of the wrong type, out of range, or
            at odds with another. The message names the place, the key and what was expected.
    """
    path = home / FILE
    values: dict[str, dict[str, Any]] = {section: {} for section in _sections()}
    origins: dict[str, str] = {}
    file = _read(path)
    for key, value in _flatten(file):
        origins[key] = str(path)
        _put(values, key, value)
    for name, text in env.items():
        if (named := _key_of(name)) is not None:
            origins[named] = name
            _put(values, named, _parse(name, text, _field(named)))
    for key, value in (overrides or {}).items():
        if value is None:
            continue
        if key not in _keys():
            raise ConfigError(f"{wording.unknown(key, _keys())} (option)")
        origins[key] = OPTION
        _put(values, key, _checked(value, _field(key), key, OPTION, strict=True))
    settings = _convert({**values, **{key: file[key] for key in ("config_version", *_LISTS) if key in file}}, str(path))
    try:
        config.check(settings)
        policy.check(settings.policy)
        if origins.get(LOAD_PROBE) == OPTION:
            _check_load_is_asked_for(settings)
    except ConfigError as error:
        places = [place for key, place in origins.items() if key in str(error)] or [str(path)]
        raise ConfigError(f"{error} ({', '.join(dict.fromkeys(places))})") from None
    entries = [Entry(key=key, value=_get(settings, key), origin=origins.get(key, DEFAULT)) for key in _keys()]
    for name in _LISTS:
        # Lists of tables stand in the file alone, and are shown where there are any.
        for number, table in enumerate(getattr(settings, name)):
            parts = msgspec.structs.asdict(table).items()
            entries += [Entry(key=f"{name}[{number}].{key}", value=value, origin=str(path)) for key, value in parts]
    return Effective(settings=settings, entries=tuple(entries))


def _check_load_is_asked_for(settings: Settings) -> None:
    """Assert that the policy goes by the load, of which an option tells."""
    if "load" not in policy.OwnerPolicy(settings.policy).needs:
        mode = settings.policy.mode[:80]
        raise ConfigError(f'{LOAD_PROBE} is for a policy that goes by the load; "{mode}" does not, "idle" does')


def variable(key: str) -> str:
    """Return the name of the environment variable that sets a dotted key: ``node.slots`` is ``P2PQ_NODE_SLOTS``."""
    return PREFIX + key.replace(".", "_").upper()


def _sections() -> dict[str, type[msgspec.Struct]]:
    return {
        field.name: field.type
        for field in msgspec.structs.fields(Settings)
        if isinstance(field.type, type) and issubclass(field.type, msgspec.Struct)
    }


def _keys() -> tuple[str, ...]:
    return tuple(
        f"{section}.{field.name}" for section, kind in _sections().items() for field in msgspec.structs.fields(kind)
    )


def _field(key: str) -> Any:  # noqa: ANN401  a type may be anything
    section, name = key.split(".")
    return next(field.type for field in msgspec.structs.fields(_sections()[section]) if field.name == name)


def _get(settings: Settings, key: str) -> object:
    section, name = key.split(".")
    return getattr(getattr(settings, section), name)


def _put(values: dict[str, dict[str, Any]], key: str, value: object) -> None:
    section, name = key.split(".")
    values[section][name] = value


# -- the file ---------------------------------------------------------------------------------------------------------


def _read(path: Path) -> dict[str, Any]:
    """Return what the file says, each key known and each value checked, so that errors name the file."""
    try:
        with path.open("rb") as file:
            raw = file.read(CONFIG_BYTES_MAX + 1)
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror})") from error
    if len(raw) > CONFIG_BYTES_MAX:
        raise ConfigError(f"{path}: far too long for a configuration")
    try:
        table = tomllib.loads(raw.decode())
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not UTF-8 text (byte {error.start})") from error
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise ConfigError(f"{path}: not TOML: {error}") from error
    _convert(table, str(path))
    return table


def _convert(table: Mapping[str, Any], where: str) -> Settings:
    try:
        return decoders.convert(table, Settings)
    except msgspec.ValidationError as error:
        raise ConfigError(f"{wording.complaint(table, Settings)} ({where})") from error


def _flatten(table: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for section in _sections():
        for name, value in table.get(section, {}).items():
            yield f"{section}.{name}", value


# -- the environment --------------------------------------------------------------------------------------------------


def _key_of(name: str) -> str | None:
    """Return the key that a variable sets; None for what is no setting (``P2PQ_HOME``, a task's ``P2PQ_TASK``)."""
    for section in _sections():
        prefix = f"{PREFIX}{section.upper()}_"
        if name.startswith(prefix):
            key = f"{section}.{name.removeprefix(prefix).lower()}"
            if key not in _keys():
                names = [variable(known) for known in _keys()]
                raise ConfigError(f"{wording.unknown(name, names)} (environment)")
            return key
    return None


def _parse(name: str, text: str, kind: Any) -> object:  # noqa: ANN401
    value: object = text
    if _is_container(kind, tuple):
        value = [part.strip() for part in text.split(",") if part.strip()]
    elif _is_container(kind, dict):
        pairs = [part.partition("=") for part in text.split(",") if part.strip()]
        if any(not equals for _, equals, _ in pairs):
            raise ConfigError(f'{name} is "{text}"; write k=v,k=v (environment)')
        value = {left.strip(): right.strip() for left, _, right in pairs}
    elif kind is bool:
        value = {"yes": "true", "on": "true", "no": "false", "off": "false"}.get(text.lower(), text.lower())
    return _checked(value, kind, name, "environment", strict=False)


def _is_container(kind: Any, wanted: type) -> bool:  # noqa: ANN401
    """Tell whether a possibly annotated type is a ``tuple[...]`` or a ``dict[...]``."""
    bare = get_args(kind)[0] if hasattr(kind, "__metadata__") else kind
    return get_origin(bare) is wanted


def _checked(value: object, kind: Any, key: str, where: str, *, strict: bool) -> object:  # noqa: ANN401
    try:
        converted: object = decoders.convert(value, kind, strict=strict)
    except msgspec.ValidationError as error:
        raise ConfigError(f"{wording.wrong(key, value, kind, quoted=False)} ({where})") from error
    return converted
