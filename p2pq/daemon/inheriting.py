"""What admins have said of this mesh, as a node starts with it.

From its store, without the words of a mesh that it has left, and from a join, which brings bans that must hold before the
first link.
"""

import logging

import msgspec

from p2pq.core.bans import Kept, row_of, subject_of
from p2pq.core.meshkeys import TIME_END
from p2pq.core.records import BanKept, MeshKeysKept, OwnerBanKept, Restored
from p2pq.errors import Reject
from p2pq.model.ids import Wall, short
from p2pq.wire import trust

log = logging.getLogger(__name__)

Rows = tuple[BanKept | OwnerBanKept | MeshKeysKept, ...]
Bans = tuple[Kept, ...]


def of_mesh(restored: Restored, root: bytes, wall: Wall, told: tuple[bytes, ...] = ()) -> tuple[Restored, Rows]:
    """Return what the core is to start with, and rows that make it so in the store.

    Args:
        restored: what the store gave back.
        root: the public key of this mesh's root.
        wall: the time by this machine's clock.
        told: signed bans that a join brought.
    """
    kept, void = _own_bans((*restored.bans, *restored.owner_bans), root, wall)
    heard = _told_bans(told, root, wall)
    new: Rows = (*void, *heard)
    keys = tuple(raw for raw in restored.mesh_keys if _is_key_of(raw, root))
    if keys != restored.mesh_keys:
        new = (*new, MeshKeysKept(signed=keys))
    bans = tuple(row for row in (*kept, *heard) if isinstance(row, BanKept))
    owner_bans = tuple(row for row in (*kept, *heard) if isinstance(row, OwnerBanKept))
    return msgspec.structs.replace(restored, bans=bans, owner_bans=owner_bans, mesh_keys=keys), new


def _own_bans(rows: Bans, root: bytes, wall: Wall) -> tuple[Bans, Bans]:
    """Let go of the bans of a mesh that this node has left; what else does not verify holds here, unsigned."""
    kept: list[Kept] = []
    void: list[Kept] = []
    for row in rows:
        try:
            if row.signed:
                trust.open_ban(row.signed, root, wall)
            kept.append(row)
        except Reject as error:
            subject = row.node if isinstance(row, BanKept) else row.owner
            shown = subject if isinstance(subject, str) else short(subject)
            log.warning("ban.not-verified", extra={"fields": {"peer": shown, "reason": error.reason}})
            if error.reason == trust.WRONG_ROOT:
                # Written over, or whoever joins would be told of it.
                void.append(row_of(subject, banned=False, issuer=row.issuer))
            elif row.banned:
                # Most often a clock that was set back: a ban errs towards holding, and the store keeps the signed one.
                kept.append(row_of(subject, banned=row.banned))
    return tuple(kept), tuple(void)


def _told_bans(told: tuple[bytes, ...], root: bytes, wall: Wall) -> Bans:
    rows = []
    for raw in told:
        try:
            word = trust.open_ban(raw, root, wall)
        except Reject as error:
            log.warning("join.ban-ignored", extra={"fields": {"reason": error.reason}})
            continue
        rows.append(row_of(subject_of(word), banned=word.banned, issuer=word.iss, signed=raw))
    return tuple(rows)


def _is_key_of(raw: bytes, root: bytes) -> bool:
    try:
        trust.open_mesh_key(raw, root, TIME_END)
    except Reject:
        return False
    return True
