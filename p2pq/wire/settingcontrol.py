"""What the local API is asked, and answers, about settings: part of ``control``."""

from p2pq.wire.peercontrol import Said


class SettingsList(Said, frozen=True, kw_only=True):
    """What the running node goes by. Items: SettingView."""


class SettingView(Said, frozen=True, kw_only=True, omit_defaults=False):
    """One setting in force."""

    key: str
    value: bool | int | float | str | tuple[str, ...] | dict[str, str] | None
    origin: str
    """Where it came from: ``default``, the path of the file, the name of the environment variable, or ``option``."""
