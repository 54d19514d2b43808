"""Names inside a tree: what is unsafe here is refused, what is merely odd gets a warning.

A path in a tree is relative, ``/``-separated UTF-8. Joined to a root it can never lead outside that root. Names that
only
trouble other systems or people (control characters, look-alikes, ``con.txt``) travel, because the job may need them.
"""

import re
import unicodedata
from collections.abc import Iterable
from typing import Final

from p2pq.errors import Reject

NAME_BYTES_MAX: Final = 255
"""Longest path component; the limit of every common Linux file system."""
PATH_BYTES_MAX: Final = 4095
"""Longest path: PATH_MAX without its terminating NUL."""
DEPTH_MAX: Final = 128
"""Most components in a path; bounds recursion and open directories."""
WARNINGS_MAX: Final = 20
"""Most warnings that ``odd_names`` returns; the rest is a count."""
_DISPLAY_CHARS_MAX: Final = 200

_PLAIN = re.compile(r"[A-Za-z0-9_+=,@%~#()/-](?:[A-Za-z0-9_+=,@%~# ()./-]*[A-Za-z0-9_+=,@%~#()/-])?")
_EDGE = re.compile(r"[. ](?:/|$)")
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]")
_BIDI = re.compile("[\u061c\u200b-\u200f\u202a-\u202e\u2060\u2066-\u2069\ufeff]")
_UNSHOWN = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060\u2066-\u2069\ufeff\ud800-\udfff]")
_DEVICE = re.compile(r"(?i)(?:con|prn|aux|nul|com[0-9]|lpt[0-9])(?:\..*)?")


def check_name(name: str) -> None:
    """Refuse a path component that is unsafe here.

    Raises:
        Reject: empty, ``.``, ``..``, holding ``/`` or NUL, longer than NAME_BYTES_MAX, or not UTF-8.
    """
    if name in {"", ".", ".."}:
        raise Reject("a name is empty, . or ..")
    if "/" in name or "\0" in name:
        raise Reject("a name holds / or NUL")
    if len(_utf8(name)) > NAME_BYTES_MAX:
        raise Reject("a name is too long")


def check_path(path: str) -> None:
    """Refuse a path that is not a plain relative path below the root.

    Raises:
        Reject: absolute, an unsafe component (see ``check_name``), too long or too deep.
    """
    if len(_utf8(path)) > PATH_BYTES_MAX:
        raise Reject("a path is too long")
    parts = path.split("/")
    if len(parts) > DEPTH_MAX:
        raise Reject("a path is too deep")
    for part in parts:
        check_name(part)


def walk_target(path: str, target: str) -> tuple[tuple[str, ...], str]:
    """Follow a symlink's target by its letters alone, from the folder that holds the link.

    Args:
        path: the link's own path, already checked.
        target: what the link points to.

    Returns:
        The paths passed on the way (each used as a folder) and the path reached; ``""`` is the root.

    Raises:
        Reject: empty, absolute, too long, not UTF-8, holding NUL, or leading outside the root.
    """
    if not target or target.startswith("/") or "\0" in target:
        raise Reject("a symlink's target is empty or absolute")
    if len(_utf8(target)) > PATH_BYTES_MAX:
        raise Reject("a symlink's target is too long")
    here = path.split("/")[:-1]
    passed: list[str] = []
    for part in target.split("/"):
        if part in {"", "."}:
            continue
        passed.append("/".join(here))
        if part != "..":
            here.append(part)
        elif here:
            here.pop()
        else:
            raise Reject("a symlink leads outside the tree")
        if len(here) > DEPTH_MAX:
            raise Reject("a symlink's target is too deep")
    return tuple(passed), "/".join(here)


def odd_names(paths: Iterable[str]) -> list[str]:
    """Return one warning per odd path, for people: at most WARNINGS_MAX, then how many more there are.

    Odd are control and direction-changing characters, names that Windows or macOS cannot hold or would confuse with
    another name of this tree, and backslashes.
    """
    warnings: list[str] = []
    more = 0
    seen: dict[str, str] = {}
    for path in paths:
        reason = odd_name(path)
        twin = seen.setdefault(unicodedata.normalize("NFC", path).casefold(), path)
        if reason is None and twin != path:
            reason = f"looks like {display(twin)} on some systems"
        if reason is not None and len(warnings) < WARNINGS_MAX:
            warnings.append(f"{display(path)}: {reason}")
        elif reason is not None:
            more += 1
    if more:
        warnings.append(f"and {more} more odd names")
    return warnings


def odd_name(path: str) -> str | None:  # noqa: PLR0911  one return per oddity reads best
    """Return why a safe path is odd, or None."""
    if _PLAIN.fullmatch(path) and not _EDGE.search(path) and not _device(path):
        return None
    if _CONTROL.search(path):
        return "holds a control character"
    if _BIDI.search(path):
        return "holds an invisible or direction-changing character"
    if "\\" in path:
        return "holds a backslash"
    if not unicodedata.is_normalized("NFC", path):
        return "is not in the usual Unicode form (NFC)"
    if _device(path):
        return "is a device name on Windows"
    if _EDGE.search(path):
        return "ends in a dot or a space"
    return None


def harmless(text: str) -> str:
    """Return text that is safe to print on a terminal: control, bidi and undecodable characters are replaced."""
    return _UNSHOWN.sub("\ufffd", text)


def display(text: str) -> str:
    """Return text that is safe to print on a terminal as ``harmless`` does, at most 200 characters long."""
    clean = harmless(text[: _DISPLAY_CHARS_MAX + 1])
    return clean if len(clean) <= _DISPLAY_CHARS_MAX else clean[: _DISPLAY_CHARS_MAX - 1] + "…"


def _device(path: str) -> bool:
    return any(_DEVICE.fullmatch(part) for part in path.split("/"))


def _utf8(text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        raise Reject("a name is not UTF-8") from error
