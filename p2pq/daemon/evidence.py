"""What proves the results of a master's jobs, in its store: each signed thing once, and gone with its job.

- ``grants``: by the first lease of each. All attempts of a grant have leases that follow each other without a gap, so the
  grant of a lease is the one of its job that begins last before it.
- ``proofs``: signed results by digest, as one may hold many attempts; an attempt names its proof.
- ``chains``: the certificates of workers, shared by all jobs; each with the latest job that needed it.
"""

import sqlite3
from collections.abc import Iterable
from contextlib import suppress
from typing import Any, Final

import msgspec

from p2pq.core.records import GrantKept, Proof
from p2pq.errors import Reject
from p2pq.model.ids import LeaseId, NodeId, Wall
from p2pq.model.job import TaskState
from p2pq.wire import codec, prims, sign
from p2pq.wire.objects import Cert, ResultItem
from p2pq.wire.provenance import Kept

Certs = tuple[bytes, ...]

OF_JOB: Final = """
SELECT t.task, t.state, t.delivered, a.attempt, a.epoch, a.counter, a.ended, CAST(a.result AS BLOB),
    CAST(proofs.signed AS BLOB), CAST(chains.certs AS BLOB),
    (SELECT CAST(signed AS BLOB) FROM grants AS g WHERE g.n = a.n AND (g.epoch, g.counter) <= (a.epoch, a.counter)
    ORDER BY g.epoch DESC, g.counter DESC LIMIT 1)
FROM tasks AS t LEFT JOIN attempts AS a ON a.n = t.n AND a.task = t.task AND a.result IS NOT NULL
    AND a.attempt = coalesce(t.decided, t.attempts)
LEFT JOIN proofs ON proofs.p = a.proof LEFT JOIN chains ON chains.c = a.chain
WHERE t.n = (SELECT n FROM jobs WHERE job = ? AND NOT pruned) AND t.state IN ('done', 'failed') AND t.task >= ?
ORDER BY t.task LIMIT ?
"""
"""Job, first task, rows at most. Bytes are bytes, whoever wrote them."""


NAMES: Final = "SELECT CAST(certs AS BLOB) FROM chains ORDER BY n"
"""The certificates of all workers whose results are kept, the latest at the end."""


class Decided(msgspec.Struct, frozen=True, kw_only=True):
    """A task that is over, and what is kept of the attempt that decided it, if one did."""

    task: int
    state: TaskState
    delivered: bool
    kept: Kept | None


def keep_grant(db: sqlite3.Connection, number: int | None, row: GrantKept) -> None:
    """Keep how attempts of a live job were granted."""
    if number is not None:
        # After a repair another grant may begin with the same lease.
        db.execute(
            "INSERT OR REPLACE INTO grants VALUES (?, ?, ?, ?)",
            (number, row.lease.epoch, row.lease.counter, row.signed),
        )


def keep(db: sqlite3.Connection, number: int | None, proof: Proof | None) -> tuple[int | None, int | None]:
    """Keep what proves a result of a live job; return where the signed result is, and the certificates."""
    if number is None or proof is None:
        return None, None
    digest = sign.digest(proof.signed)
    db.execute(
        "INSERT INTO proofs (n, digest, signed) VALUES (?, ?, ?) ON CONFLICT DO NOTHING", (number, digest, proof.signed)
    )
    (where,) = db.execute("SELECT p FROM proofs WHERE n = ? AND digest = ?", (number, digest)).fetchone()
    if not proof.certs:
        return where, None
    certs = codec.encode(proof.certs)
    digest = chain_digest(certs)
    db.execute(
        "INSERT INTO chains (digest, n, certs) VALUES (?, ?, ?) "
        "ON CONFLICT (digest) DO UPDATE SET n = excluded.n WHERE n < excluded.n",
        (digest, number, certs),
    )
    (chain,) = db.execute("SELECT c FROM chains WHERE digest = ?", (digest,)).fetchone()
    return where, chain


def chain_digest(certs: bytes) -> bytes:
    """Return the name of encoded certificates."""
    return prims.blake2b(certs, person="p2pq-chain")


def forget(db: sqlite3.Connection, number: int, limit: int) -> int:
    """Delete a piece of what proves the results of a job; return how much."""
    grants = db.execute(
        "DELETE FROM grants WHERE n = ? AND (epoch, counter) IN "
        "(SELECT epoch, counter FROM grants WHERE n = ? ORDER BY epoch, counter LIMIT ?)",
        (number, number, limit),
    ).rowcount
    proofs = db.execute("DELETE FROM proofs WHERE p IN (SELECT p FROM proofs WHERE n = ? LIMIT ?)", (number, limit))
    return grants + proofs.rowcount


def forget_chains(db: sqlite3.Connection) -> None:
    """Delete certificates that no job can need any more: all jobs up to the latest that did are gone."""
    db.execute("DELETE FROM chains WHERE NOT EXISTS (SELECT * FROM jobs WHERE jobs.n <= chains.n)")


def names(rows: Iterable[tuple[bytes]]) -> dict[NodeId, str]:
    """Return, of rows of ``NAMES``, what each worker is called."""
    found: dict[NodeId, str] = {}
    for (certs,) in rows:
        with suppress(msgspec.MsgspecError, Reject, IndexError):  # what is damaged names nobody; a repair finds it
            first = sign.body_of(msgspec.msgpack.decode(certs, type=Certs)[0])
            cert = codec.decode_strict(first, Cert, size_max=sign.size_max(Cert))
            found[NodeId(cert.sub)] = cert.name
    return found


def decided(rows: Iterable[tuple[Any, ...]], rebuilt: int) -> tuple[Decided, ...]:
    """Return rows of ``OF_JOB`` as values; leases of epochs up to ``rebuilt`` may have been forgotten once.

    Raises:
        msgspec.MsgspecError: one does not decode: the store is damaged.
    """
    return tuple(_decided(row, rebuilt) for row in rows)


def _decided(row: tuple[Any, ...], rebuilt: int) -> Decided:
    task, state, delivered, attempt, epoch, counter, ended, result, signed, certs, grant = row
    if attempt is None:
        return Decided(task=task, state=state, delivered=bool(delivered), kept=None)
    kept = Kept(
        task=task,
        attempt=attempt,
        lease=LeaseId(epoch, counter),
        wall=Wall(ended),
        item=msgspec.msgpack.decode(result, type=ResultItem),
        grant=grant or b"",
        signed=signed or b"",
        certs=() if certs is None else msgspec.msgpack.decode(certs, type=Certs),
        forgotten=epoch <= rebuilt,
    )
    return Decided(task=task, state=state, delivered=bool(delivered), kept=kept)
