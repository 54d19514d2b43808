"""Whom an X server lets in: the cookies that a file ``.Xauthority`` holds."""

import struct
from typing import Final

COOKIE: Final = b"MIT-MAGIC-COOKIE-1"
FILE_BYTES_MAX: Final = 1 << 20


def cookie(content: bytes, display: int) -> bytes:
    """Return the cookie for a display of this machine, empty where the file holds none (a server may let us in without).

    Entries for displays of other machines may have the same number; those of this one (family 256; 65535: of any) come first.
    """
    found: list[tuple[bool, bytes]] = []
    rest = memoryview(content)
    try:
        while rest:
            (family,) = struct.unpack_from(">H", rest)
            rest = rest[2:]
            fields = []
            for _ in range(4):
                (size,) = struct.unpack_from(">H", rest)
                fields.append(struct.unpack_from(f"{size}s", rest, 2)[0])
                rest = rest[2 + size :]
            _, number, name, data = fields
            if name == COOKIE and number in (b"", b"%d" % display):
                found.append((family not in {256, 65_535}, data))
    except struct.error:
        pass  # cut off: what came before still counts
    return min(found, key=lambda each: each[0])[1] if found else b""
