"""Named instants around every durable step of a node, at which a test can have it die.

``P2PQ_CRASH_AT=NAME`` (or ``NAME:K``, for the K-th time it is reached) makes the process kill itself there, as
``kill -9`` would: nothing is flushed, closed or said. Without that variable a point costs next to nothing. Tests walk
``POINTS``; each of them must be shown to lose and double nothing (tests/e2e/test_crashes.py).
"""

import os
import signal
from collections.abc import Mapping
from typing import Final, get_args

from p2pq.core import records

VARIABLE: Final = "P2PQ_CRASH_AT"

COMMITS: Final = (*(row.__name__ for row in get_args(records.Row)), "ExtraKept")
"""Transactions, by what is in them; each has a point ``commit.X.before`` and ``commit.X.after``."""

POINTS: Final = (
    "home.locked",
    "secret.written",  # keys, the token, the mesh and its certificates: beside their place, synced
    "secret.renamed",  # in their place, the folder not synced
    "mesh.kept",  # the new mesh is durable, the old one's root key is still there
    "store.created",  # an empty store, beside its place
    "store.renamed",
    "migration.copied",  # the old store is aside as a whole
    "migration.before",
    "migration.after",
    "repair.built",  # the new store is whole, beside its place
    "repair.aside",  # the damaged one has a second name
    "repair.marked",  # a sentence is in its place
    "repair.cleared",  # its log is gone from there
    "repair.in-place",
    *(f"commit.{row}.{when}" for row in COMMITS for when in ("before", "after")),
    "prune.before",
    "prune.after",
    "blob.written",  # beside its place
    "blob.renamed",
    "blobs.synced",
    "environment.built",  # whole, beside its place
    "environment.in-place",
    "submit.packed",  # blobs are durable, nothing is queued
    "submit.rotated",  # earlier results are aside, nothing is queued
    "unpack.chunk",  # half a tree: of a job in the scratch folder, or of results in the staging folder
    "delivery.staged",  # a whole tree, in the staging folder
    "delivery.aside",  # what was in the way is aside
    "delivery.in-place",  # the results are there, the store does not know it
)


def _armed(environ: Mapping[str, str]) -> tuple[str, int]:
    name, _, number = environ.get(VARIABLE, "").partition(":")
    return (name, int(number) if number.isdecimal() else 1) if name in POINTS else ("", 0)


_name, _left = _armed(os.environ)


def armed() -> bool:
    """Tell whether this process is to die somewhere."""
    return _left > 0


def reached(name: str) -> None:
    """Die here if the environment says so."""
    global _left  # noqa: PLW0603  one count per process
    if name != _name:
        return
    _left -= 1
    if _left == 0:
        os.kill(os.getpid(), signal.SIGKILL)
