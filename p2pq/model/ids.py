"""Identifiers and instants: how they look in memory and how people read and type them.

Ids are bytes inside and lower-case base32 outside. A clock reading is either ``Mono`` (control) or ``Wall``
(data); the type keeps them apart.
"""

from base64 import b32decode, b32encode
from typing import Annotated, NewType

import msgspec
from msgspec import Meta

from p2pq.errors import Reject

NodeId = NewType("NodeId", bytes)
"""32 bytes: the Ed25519 public key of a node. The key is the node."""

JobId = NewType("JobId", bytes)
"""16 random bytes, drawn by the submitting node."""

BlobId = NewType("BlobId", bytes)
"""32 bytes: BLAKE2b-256 of a blob's ciphertext."""

MeshId = NewType("MeshId", bytes)
"""32 bytes: BLAKE2b-256 of the mesh root's public key, personalised ``p2pq-mesh``."""

Mono = NewType("Mono", float)
"""Seconds on a clock that never jumps back; the only kind of time that is compared to decide something."""

Wall = NewType("Wall", int)
"""Milliseconds since the Unix epoch, UTC; data for people and certificates."""

NODE_ID_BYTES = 32
JOB_ID_BYTES = 16
BLOB_ID_BYTES = 32
MESH_ID_BYTES = 32
SHORT_CHARS = 8
"""How many characters of an id are shown where a whole one would be in the way. For display only."""


class LeaseId(msgspec.Struct, frozen=True, array_like=True, order=True, gc=False):
    """The time-limited right to run one attempt; unique per master. A higher epoch outdates lower ones."""

    epoch: Annotated[int, Meta(ge=0, lt=1 << 53)]
    counter: Annotated[int, Meta(ge=0, lt=1 << 53)]

    def __str__(self) -> str:
        """Return ``epoch.counter``."""
        return f"{self.epoch}.{self.counter}"


class TaskKey(msgspec.Struct, frozen=True, array_like=True, order=True, gc=False):
    """One task of one job: the job and the task's index, from 0."""

    job: bytes
    task: int


def to_text(raw: bytes) -> str:
    """Return the whole id as lower-case base32 without padding."""
    return b32encode(raw).decode().rstrip("=").lower()


def short(raw: bytes) -> str:
    """Return the first eight characters of the id's text; never use it to compare."""
    return to_text(raw)[:SHORT_CHARS]


def plain(text: str) -> str:
    """Return an id, or the beginning of one, as ``to_text`` prints it, whatever case, spaces and dashes it was typed with."""
    return text.lower().replace("-", "").replace(" ", "")


def from_text(text: str, size: int) -> bytes:
    """Parse what ``to_text`` printed, ignoring case, spaces and dashes.

    Raises:
        Reject: the text is not base32 of exactly ``size`` bytes.
    """
    clean = plain(text).upper()
    try:
        raw = b32decode(clean + "=" * (-len(clean) % 8))
    except ValueError as error:
        raise Reject("not an id") from error
    if len(raw) != size or to_text(raw).upper() != clean:
        raise Reject("not an id")
    return raw
