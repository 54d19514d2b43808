"""Times and sizes as people type them: ``15m``, ``4G``."""

import math
import re
from typing import Final

from p2pq.errors import UsageError

SECONDS_MAX: Final = 366 * 24 * 3600
"""No duration is longer: no task may run for longer, and nothing else is meant to last so long."""
MEGABYTES_MAX: Final = 1 << 24


def parse_seconds(text: str) -> int:
    """Parse ``90``, ``90s``, ``15m``, ``2h``, ``1d``, ``1h30m`` or ``HH:MM:SS``.

    Raises:
        UsageError: it is none of these, or not above zero.
    """
    clock = re.fullmatch(r"(?:(\d{1,9}):)?(\d{1,9}):(\d\d)", text)
    units = re.fullmatch(r"(?:(\d{1,9})d)?(?:(\d{1,9})h)?(?:(\d{1,9})m)?(?:(\d{1,12})s?)?", text)
    seconds = 0
    if clock:
        hours, minutes, rest = (int(part or 0) for part in clock.groups())
        seconds = hours * 3600 + minutes * 60 + rest
    elif units:
        days, hours, minutes, rest = (int(part or 0) for part in units.groups())
        seconds = ((days * 24 + hours) * 60 + minutes) * 60 + rest
    if seconds <= 0:
        raise UsageError(f"{text!r} is not a duration; write it like 90, 15m, 2h, 1d or 01:30:00")
    if seconds > SECONDS_MAX:
        raise UsageError(f"{text!r} is longer than a year; write it like 90, 15m, 2h, 1d or 01:30:00")
    return seconds


def parse_milliseconds(text: str) -> int:
    """Parse seconds with a fraction, ``0.5`` or ``.25s``, none at all (``0``), and what ``parse_seconds`` does; round up.

    Raises:
        UsageError: it is none of these.
    """
    plain = re.fullmatch(r"([0-9]{1,9}(?:\.[0-9]{0,9})?|\.[0-9]{1,9})s?", text)
    return parse_seconds(text) * 1000 if plain is None else math.ceil(float(plain[1]) * 1000)


def parse_megabytes(text: str) -> int:
    """Parse ``512``, ``512M``, ``4G``, ``4GiB`` into mebibytes.

    Raises:
        UsageError: it is none of these.
    """
    match = re.fullmatch(r"(\d{1,12}(?:\.\d{1,12})?)\s*([kmgt]?)(?:i?b)?", text.strip(), re.IGNORECASE)
    if match is None:
        raise UsageError(f"{text!r} is not a size; write it like 512M or 4G")
    factor = {"": 1.0, "k": 1 / 1024, "m": 1.0, "g": 1024.0, "t": 1024.0**2}[match.group(2).lower()]
    megabytes = round(float(match.group(1)) * factor)
    if megabytes > MEGABYTES_MAX:
        raise UsageError(f"{text!r} is more than any machine has; write it like 512M or 4G")
    if megabytes < 1:
        raise UsageError(f"{text!r} is less than a mebibyte; write it like 512M or 4G")
    return megabytes
