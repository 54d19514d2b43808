"""What proves the results of a master's jobs, in its store: each signed thing once, and gone with its job.

- ``grants``: by the first lease of each. All attempts of a grant have leases that follow each other without a gap, so the
  grant of a lease is the one of its job that begins last before it.
- ``subs``: the sub-grants of bridges by digest; each names the one above and its bridge's certificates, an attempt its last one.
- ``proofs``: signed results by digest, as one may hold many attempts; an attempt names its proof.
- ``chains``: the certificates of workers and bridges, shared by all jobs; each with the latest job that needed it.
"""

import sqlite3
from collections.abc import Iterable
from contextlib import suppress
from typing import Any, Final

import msgspec

from p2pq import decoders
from p2pq.core.records import GrantKept, HandedOn, Proof
from p2pq.errors import Reject
from p2pq.model.ids import JobId, LeaseId, NodeId, Wall
from p2pq.model.job import TaskState
from p2pq.wire import codec, prims, sign
from p2pq.wire.objects import Cert, ResultItem
from p2pq.wire.provenance import Handing, Kept

Certs = tuple[bytes, ...]
Where = tuple[int | None, int | None, int | None]
"""In which rows what proves a result is: the signed result, the certificates, and the last sub-grant."""
_NOWHERE: Final[Where] = (None, None, None)

OF_JOB: Final = """
SELECT t.task, t.state, t.delivered, a.attempt, a.epoch, a.counter, a.ended, CAST(a.result AS BLOB),
    CAST(proofs.signed AS BLOB), CAST(chains.certs AS BLOB), a.granted,
    a.sub, CAST(s1.signed AS BLOB), CAST(c1.certs AS BLOB), s1.above, CAST(s2.signed AS BLOB), CAST(c2.certs AS BLOB),
    s2.above, CAST(s3.signed AS BLOB), CAST(c3.certs AS BLOB), s3.above,
    (SELECT CAST(signed AS BLOB) FROM grants AS g WHERE g.n = a.n AND (g.epoch, g.counter) <= (a.epoch, a.counter)
    ORDER BY g.epoch DESC, g.counter DESC LIMIT 1)
FROM tasks AS t LEFT JOIN attempts AS a ON a.n = t.n AND a.task = t.task AND a.result IS NOT NULL
    AND a.attempt = coalesce(t.decided, t.attempts)
LEFT JOIN proofs ON proofs.p = a.proof LEFT JOIN chains ON chains.c = a.chain
LEFT JOIN subs AS s1 ON s1.s = a.sub LEFT JOIN subs AS s2 ON s2.s = s1.above LEFT JOIN subs AS s3 ON s3.s = s2.above
LEFT JOIN chains AS c1 ON c1.c = s1.chain LEFT JOIN chains AS c2 ON c2.c = s2.chain LEFT JOIN chains AS c3 ON c3.c = s3.chain
WHERE t.n = (SELECT n FROM jobs WHERE job = ? AND NOT pruned) AND t.state IN ('done', 'failed') AND t.task >= ?
ORDER BY t.task LIMIT ?
"""
"""Job, first task, rows at most. Bytes are bytes, whoever wrote them."""


NAMES: Final = "SELECT CAST(certs AS BLOB) FROM chains ORDER BY n"
"""The certificates of all workers whose results are kept, and of bridges, the latest at the end."""

_KEY_OF_LEASE: Final = (
    "SELECT n, epoch, counter FROM grants WHERE n = ? AND (epoch, counter) <= (?, ?) "
    "ORDER BY epoch DESC, counter DESC LIMIT 1"
)
_BY_KEY: Final = (
    "SELECT job, epoch, counter, signed FROM grants JOIN jobs USING (n) WHERE n = ? AND epoch = ? AND counter = ?"
)


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


class Proofs:
    """Keeps what proves results. What ended together has one proof, which is looked for once."""

    def __init__(self, db: sqlite3.Connection) -> None:
        """Use a connection within its transactions."""
        self._db = db
        self.forget()

    def forget(self) -> None:
        """What was kept may be gone: a transaction was undone."""
        self._last: tuple[int, Proof, Where] | None = None

    def keep(self, number: int | None, proof: Proof | None) -> Where:
        """Keep what proves a result of a live job; return where it is."""
        if number is None or proof is None:
            return _NOWHERE
        if self._last is None or self._last[0] != number or self._last[1] is not proof:
            self._last = (number, proof, _keep(self._db, number, proof))
        return self._last[2]


def _keep(db: sqlite3.Connection, number: int, proof: Proof) -> Where:
    digest = sign.digest(proof.signed)
    db.execute(
        "INSERT INTO proofs (n, digest, signed) VALUES (?, ?, ?) ON CONFLICT DO NOTHING", (number, digest, proof.signed)
    )
    (where,) = db.execute("SELECT p FROM proofs WHERE n = ? AND digest = ?", (number, digest)).fetchone()
    last: int | None = None
    for step in proof.handed:
        last = _keep_step(db, number, step, last)
    return where, _keep_chain(db, number, proof.certs), last


def _keep_step(db: sqlite3.Connection, number: int, step: HandedOn, above: int | None) -> int:
    """Keep a sub-grant for a job, below another one; return where it is."""
    digest = sign.digest(step.signed)
    found = db.execute("SELECT s, chain FROM subs WHERE n = ? AND digest = ?", (number, digest)).fetchone()
    if found is not None:
        where, chain = found
        if chain is None and step.certs:  # its bridge was not known when the first result of it came
            db.execute("UPDATE subs SET chain = ? WHERE s = ?", (_keep_chain(db, number, step.certs), where))
        return int(where)
    chain = _keep_chain(db, number, step.certs)
    (where,) = db.execute(
        "INSERT INTO subs (n, digest, above, chain, signed) VALUES (?, ?, ?, ?, ?) RETURNING s",
        (number, digest, above, chain, step.signed),
    ).fetchone()
    return int(where)


def _keep_chain(db: sqlite3.Connection, number: int, chain: Certs) -> int | None:
    """Keep certificates for a job; return where they are."""
    if not chain:
        return None
    certs = codec.encode(chain)
    digest = chain_digest(certs)
    db.execute(
        "INSERT INTO chains (digest, n, certs) VALUES (?, ?, ?) "
        "ON CONFLICT (digest) DO UPDATE SET n = excluded.n WHERE n < excluded.n",
        (digest, number, certs),
    )
    (found,) = db.execute("SELECT c FROM chains WHERE digest = ?", (digest,)).fetchone()
    return int(found)


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
    subs = db.execute("DELETE FROM subs WHERE s IN (SELECT s FROM subs WHERE n = ? LIMIT ?)", (number, limit))
    return grants + proofs.rowcount + subs.rowcount


def of_live_leases(db: sqlite3.Connection) -> tuple[GrantKept, ...]:
    """Return how the live leases were granted, each grant once, by job and lease."""
    found: dict[tuple[int, int, int], None] = {}
    for lease in db.execute("SELECT n, epoch, counter FROM leases ORDER BY n, epoch, counter").fetchall():
        # One by one: to read the grants themselves as often as there are leases would take a thousand times as long.
        key = db.execute(_KEY_OF_LEASE, lease).fetchone()
        if key is not None:
            found[key] = None
    grants = (db.execute(_BY_KEY, key).fetchone() for key in found)
    return tuple(GrantKept(job=JobId(job), lease=LeaseId(e, c), signed=signed) for job, e, c, signed in grants)


def forget_chains(db: sqlite3.Connection) -> None:
    """Delete certificates that no job can need any more: all jobs up to the latest that did are gone."""
    db.execute("DELETE FROM chains WHERE NOT EXISTS (SELECT * FROM jobs WHERE jobs.n <= chains.n)")


def names(rows: Iterable[tuple[bytes]]) -> dict[NodeId, str]:
    """Return, of rows of ``NAMES``, what each worker is called."""
    found: dict[NodeId, str] = {}
    for (certs,) in rows:
        with suppress(msgspec.MsgspecError, Reject, IndexError):  # what is damaged names nobody; a repair finds it
            first = sign.body_of(decoders.unpack(certs, Certs)[0])
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
    task, state, delivered, attempt, epoch, counter, ended, result, signed, certs, granted, *subs, grant = row
    if attempt is None:
        return Decided(task=task, state=state, delivered=bool(delivered), kept=None)
    kept = Kept(
        task=task,
        attempt=attempt,
        lease=LeaseId(epoch, counter),
        granted=Wall(granted),
        wall=Wall(ended),
        item=decoders.unpack(result, ResultItem),
        grant=grant or b"",
        signed=signed or b"",
        certs=_certs(certs),
        handed=_handed(subs),
        forgotten=epoch <= rebuilt,
    )
    return Decided(task=task, state=state, delivered=bool(delivered), kept=kept)


def _certs(raw: bytes | None) -> Certs:
    return () if raw is None else decoders.unpack(raw, Certs)


def _handed(found: list[Any]) -> tuple[Handing, ...]:
    """Return the sub-grants of a result, the outermost first; none if one of them is lost.

    ``found``: where the last one is, the sub-grant, its certificates; where the one above it is, and so on.
    """
    handed: list[Handing] = []
    where, *rest = found
    while where is not None and rest:
        signed, certs, where, *rest = rest
        if signed is None:
            return ()
        handed.insert(0, Handing(signed=signed, certs=_certs(certs)))
    return tuple(handed)
