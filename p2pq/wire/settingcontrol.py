"""What the local API is asked, and answers, about settings and what the machine's owner wants now: part of ``control``."""

from typing import Annotated

from msgspec import Meta

from p2pq.wire.peercontrol import Said


class SettingsList(Said, frozen=True, kw_only=True):
    """What the running node goes by. Items: SettingView."""


class PauseGuests(Said, frozen=True, kw_only=True):
    """Let no guests run here, for so many seconds or until said otherwise; or end that. Item: Note."""

    paused: bool = True
    for_s: Annotated[float, Meta(gt=0, le=366 * 24 * 3600)] | None = None


class SettingView(Said, frozen=True, kw_only=True, omit_defaults=False):
    """One setting in force."""

    key: str
    value: bool | int | float | str | tuple[str, ...] | dict[str, str] | None
    origin: str
    """Where it came from: ``default``, the path of the file, the name of the environment variable, or ``option``."""
