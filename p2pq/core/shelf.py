"""What a bridge has in stock of one master: attempts granted to it that no leaf has been given yet, and what goes with them.

A grant is checked as far as it must be to be passed on: it is that master's word to this bridge. Its leaves check the rest.
"""

from collections.abc import Iterable, Sequence
from itertools import islice
from typing import Final

import msgspec

from p2pq.core.events import LinkUp
from p2pq.core.grants import Master, open_grant
from p2pq.core.identity import Identity
from p2pq.core.placement import fits
from p2pq.core.slots import Room, refusal
from p2pq.core.through import cluster_of
from p2pq.errors import Reject
from p2pq.model.ids import JobId, LeaseId, Mono, NodeId, Wall
from p2pq.model.job import Fault, Profile
from p2pq.wire import prims, sign, trust
from p2pq.wire.messages import INLINE_BYTES_MAX, Granted, Request
from p2pq.wire.objects import Checkpoint, Grant, GrantItem, Manifest, SubGrant

JOBS_MAX: Final = 1024
"""Jobs per master whose manifest and keys are kept; the one used longest ago goes first, and is sent again when needed."""
JOBS_BYTES_MAX: Final = 64 << 20
"""... and the bytes of their manifests and keys in all."""
ENCLOSED_BYTES_MAX: Final = 64 << 20
"""Checkpoints and small blobs in stock in all. Beyond that attempts are given out without: blobs are fetched, and what an earlier
attempt left is lost to them."""
KEYS_MAX: Final = 4096
"""Leaves per job whose key is kept."""
_KEY_BYTES: Final = 256
"""What one of them is counted as."""


Opened = tuple[Grant, dict[LeaseId, bytes]]
"""A grant, and the signed checkpoints that came with it, by lease."""


class Stocked(msgspec.Struct):
    """A job of which there are, or were, attempts in stock."""

    raw: bytes
    """The signed manifest."""
    manifest: Manifest
    keys: dict[NodeId, bytes] = msgspec.field(default_factory=dict)
    """By leaf: the job key, as the master sealed it to that leaf."""

    @property
    def size(self) -> int:
        """What it takes, in bytes."""
        return len(self.raw) + _KEY_BYTES * len(self.keys)


class Lot(msgspec.Struct, kw_only=True):
    """What is left of one grant."""

    number: int
    since: Mono
    raw: bytes
    """The signed grant."""
    subs: tuple[bytes, ...]
    """The signed sub-grants of the bridges above, the outermost first."""
    grant: Grant
    """What of it is for this bridge."""
    job: Stocked
    left: dict[LeaseId, GrantItem]
    checkpoints: dict[LeaseId, bytes]
    avoid: dict[LeaseId, tuple[NodeId, ...]]
    """Leaves that some of them are not to run on."""
    blobs: tuple[bytes, ...]
    enclosed: int
    """Bytes of its checkpoints and blobs."""
    lacked: dict[NodeId, None] = msgspec.field(default_factory=dict)
    """Leaves that could have had some of it and lacked the job key."""

    @property
    def keyless(self) -> bool:
        """Whether one of these lacks it still."""
        return any(leaf not in self.job.keys for leaf in self.lacked)


class Seat(msgspec.Struct, frozen=True):
    """A leaf, what it offers at most, and the room that it has now."""

    leaf: NodeId
    profile: Profile | None
    """None where it has not been said yet."""
    room: Room


class Shelf:
    """The stock of one master, in the order in which it is given out: by priority, then as granted."""

    def __init__(self, identity: Identity, link: LinkUp) -> None:
        """Have nothing. ``link`` is the master's, or how a bridge above shows it."""
        self._identity = identity
        self._signer = prims.SigningKey(identity.secret)
        self._from = Master(
            link.peer, link.owner, link.caps, link.minor, identity.mesh, claimed=link.owner, way=link.path[::-1]
        )
        self._master, self._owner = link.peer, link.owner
        self._cluster = cluster_of((*link.path[::-1], identity.node)[0])
        self._jobs: dict[bytes, Stocked] = {}
        """By digest of the manifest, the least recently used first."""
        self._lots: list[Lot] = []
        self._where: dict[LeaseId, Lot] = {}
        self._counts: dict[JobId, int] = {}
        self._numbers = 0
        self._enclosed = 0
        """Bytes of checkpoints and blobs of all lots."""

    def __len__(self) -> int:
        """Return how many attempts there are."""
        return len(self._where)

    def __contains__(self, lease: LeaseId) -> bool:
        """Tell whether that attempt is in stock."""
        return lease in self._where

    def leases(self) -> tuple[LeaseId, ...]:
        """Return them all, as granted."""
        return tuple(self._where)

    def count(self, job: JobId) -> int:
        """Return how many attempts of a job there are."""
        return self._counts.get(job, 0)

    # -- in -------------------------------------------------------------------------------------------------------------

    def open(self, message: Granted) -> Opened:
        """Return the grant, and the checkpoints that came with it by lease, if they are that master's word to this bridge.

        Raises:
            Reject: they are not.
        """
        grant = open_grant(message, self._from, self._identity)
        named = {item.lease for item in grant.items}
        checkpoints = {}
        for raw in message.checkpoints:
            checkpoint = sign.open_signed(raw, Checkpoint, self._master)
            if (checkpoint.mesh, checkpoint.to) != (self._identity.mesh, self._cluster):
                raise Reject("checkpoint: not for this cluster")
            if checkpoint.lease not in named or checkpoint.lease in checkpoints:
                raise Reject("checkpoint: not of that grant")
            checkpoints[checkpoint.lease] = raw
        return grant, checkpoints

    def put(
        self, message: Granted, opened: Opened, fresh: dict[LeaseId, GrantItem], now: Mono, wall: Wall
    ) -> Lot | Fault:
        """Take in those attempts of a grant that are ``fresh``, one at least; return the lot, or why not.

        Raises:
            Reject: the manifest is not that master's word on that job, or claims another owner.
        """
        grant, checkpoints = opened
        if message.manifest:
            self._learn(grant, message.manifest)
        job = self._jobs.pop(grant.manifest, None)
        if job is None:
            return "no-manifest"
        self._jobs[grant.manifest] = job
        if job.manifest.job != grant.job or any(item.task >= job.manifest.tasks for item in grant.items):
            raise Reject("grant: not of that manifest")
        for leaf, key in message.keys:
            job.keys.pop(NodeId(leaf), None)
            job.keys[NodeId(leaf)] = key
        while len(job.keys) > KEYS_MAX:
            del job.keys[next(iter(job.keys))]
        self._trim()
        if wall > grant.expires + trust.SKEW_MS:
            return "late"
        avoid: dict[LeaseId, tuple[NodeId, ...]] = {}
        for lease, leaf in message.avoid:
            avoid[lease] = (*avoid.get(lease, ()), NodeId(leaf))
        self._numbers += 1
        # More than may be enclosed would be too long to be said with the manifest, and so much more to keep.
        blobs = message.blobs if sum(map(len, message.blobs)) <= INLINE_BYTES_MAX else ()
        enclosed = sum(map(len, (*blobs, *checkpoints.values())))
        if self._enclosed + enclosed > ENCLOSED_BYTES_MAX:
            blobs, checkpoints, enclosed = (), {}, 0
        self._enclosed += enclosed
        lot = Lot(
            number=self._numbers,
            since=now,
            raw=message.grant,
            subs=message.subs,
            grant=grant,
            job=job,
            left=dict(fresh),
            checkpoints=checkpoints,
            avoid=avoid,
            blobs=blobs,
            enclosed=enclosed,
        )
        self._lots.append(lot)
        self._lots.sort(key=lambda each: (-each.job.manifest.priority, each.number))
        self._where |= dict.fromkeys(fresh, lot)
        self._counts[JobId(grant.job)] = self.count(JobId(grant.job)) + len(fresh)
        return lot

    def _learn(self, grant: Grant, raw: bytes) -> None:
        if sign.digest(raw) != grant.manifest:
            raise Reject("grant: another manifest")
        manifest = sign.open_signed(raw, Manifest, self._master)
        if (manifest.mesh, manifest.node, manifest.owner) != (self._identity.mesh, self._master, self._owner):
            raise Reject("manifest: not of this master")
        if grant.manifest not in self._jobs:
            self._jobs[grant.manifest] = Stocked(raw, manifest)

    def _trim(self) -> None:
        while len(self._jobs) > JOBS_MAX or sum(job.size for job in self._jobs.values()) > JOBS_BYTES_MAX:
            del self._jobs[next(iter(self._jobs))]

    # -- out ------------------------------------------------------------------------------------------------------------

    def usable(self, lot: Lot, leaf: NodeId, profile: Profile) -> bool:
        """Tell whether that leaf could run attempts of a lot at all, and has been sent the key to do so."""
        if refusal(lot.job.manifest, profile, leaf, own=False):
            return False
        if leaf in lot.job.keys:
            return True
        lot.lacked[leaf] = None
        return False

    def usable_by_any(self, lot: Lot, leaves: Iterable[tuple[NodeId, Profile]]) -> bool:
        """Tell whether one of these could; ``Lot.keyless`` tells whether only a key was missing."""
        return any(self.usable(lot, leaf, profile) for leaf, profile in leaves)

    def take(self, seats: Sequence[Seat], request: Request, spare: int) -> tuple[Lot, tuple[LeaseId, ...]] | None:
        """Give who asks what it asks for, as far as there is: attempts of one grant.

        Args:
            seats: the leaf that asks, or, where a bridge below does, its leaves with room; none where it asks for a stock only.
            request: what is asked for now.
            spare: how many attempts are in stock that others do not have room for now; only of those it gets some ahead.
        """
        ahead = dict(request.ahead)
        judged: dict[bytes, tuple[Lot, list[Seat]]] = {}
        for lot in self._lots:
            # Of one job there may be hundreds of lots, and who could run one could run all.
            if (found := judged.get(lot.grant.manifest)) is None:
                offers = ((seat, seat.profile) for seat in seats)
                able = [seat for seat, offer in offers if offer is not None and self.usable(lot, seat.leaf, offer)]
                judged[lot.grant.manifest] = (lot, able)
            else:
                able = found[1]
                lot.lacked |= found[0].lacked
            if seats and not able:
                continue
            now = min(request.tasks_max, sum(fits(lot.job.manifest.resources, seat.room) for seat in able))
            limit = min(request.tasks_max, now + min(ahead.get(lot.grant.job, 0), max(0, spare - now)))
            free = (lease for lease in lot.left if _may_go(lot.avoid.get(lease, ()), able))
            leases = tuple(islice(free, limit))
            if leases:
                for lease in leases:
                    self.drop(lease)
                return lot, leases
        return None

    def parcel(
        self, lot: Lot, leases: tuple[LeaseId, ...], to: NodeId, nonce: bytes, keys: Iterable[NodeId], *, sent: bool
    ) -> Granted:
        """Return the message that gives these attempts to a leaf, or to a bridge below.

        Args:
            lot: what they are of.
            leases: which.
            to: who gets them, and signs them on to the next if it is a bridge.
            nonce: of its request.
            keys: the leaves whose keys go along.
            sent: it has the manifest.
        """
        sub = SubGrant(
            mesh=self._identity.mesh,
            node=self._identity.node,
            master=self._master,
            to=to,
            parent=sign.digest(lot.subs[-1] if lot.subs else lot.raw),
            nonce=nonce,
            leases=leases,
            expires=lot.grant.expires,
        )
        return Granted(
            grant=lot.raw,
            manifest=b"" if sent else lot.job.raw,
            blobs=lot.blobs,
            checkpoints=tuple(lot.checkpoints[lease] for lease in leases if lease in lot.checkpoints),
            subs=(*lot.subs, sign.sign(self._signer, sub)),
            keys=tuple((leaf, lot.job.keys[leaf]) for leaf in keys),
        )

    def drop(self, lease: LeaseId) -> bool:
        """Have that attempt no longer; return whether it was there."""
        lot = self._where.pop(lease, None)
        if lot is None:
            return False
        job = JobId(lot.grant.job)
        del lot.left[lease]
        self._counts[job] -= 1
        if not self._counts[job]:
            del self._counts[job]
        if not lot.left:
            self._lots.remove(lot)
            self._enclosed -= lot.enclosed
        return True

    def newest(self, count: int) -> tuple[LeaseId, ...]:
        """Remove and return up to so many attempts, those granted last first."""
        leases = tuple(islice(reversed(self._where), count))
        for lease in leases:
            self.drop(lease)
        return leases

    def rest(self, lot: Lot) -> tuple[LeaseId, ...]:
        """Remove and return what is left of a lot."""
        leases = tuple(lot.left)
        for lease in leases:
            self.drop(lease)
        return leases

    def waiting_since(self) -> Mono | None:
        """Return since when the oldest lot has been here, if there is one."""
        return min((lot.since for lot in self._lots), default=None)

    def overdue(self, patience_s: float, now: Mono) -> list[Lot]:
        """Return the lots that have been here for so long."""
        # Summed up as a deadline is, or a lot could be due and yet not be found for a rounding error.
        return [lot for lot in self._lots if lot.since + patience_s <= now]

    def unkey(self, leaves: Iterable[NodeId]) -> None:
        """Forget what was sealed to leaves: they may come back as other lives, with other keys."""
        gone = dict.fromkeys(leaves)
        for job in self._jobs.values():
            few = gone if len(gone) < len(job.keys) else job.keys
            for leaf in [leaf for leaf in few if leaf in gone and leaf in job.keys]:
                del job.keys[leaf]

    def check(self) -> None:
        """Assert that the indexes agree."""
        where = {lease: lot.number for lot in self._lots for lease in lot.left}
        assert where == {lease: lot.number for lease, lot in self._where.items()}, "the index by lease is wrong"
        counts: dict[bytes, int] = {}
        for lot in self._lots:
            assert lot.left, "an empty lot"
            counts[lot.grant.job] = counts.get(lot.grant.job, 0) + len(lot.left)
        assert counts == self._counts, "the count by job is wrong"
        assert self._enclosed == sum(lot.enclosed for lot in self._lots), "what is enclosed is miscounted"
        assert len(self._jobs) <= JOBS_MAX, "too many manifests"


def _may_go(avoids: tuple[NodeId, ...], able: Sequence[Seat]) -> bool:
    """Tell whether an attempt that avoids some leaves may run at one of these."""
    return not avoids or not able or any(seat.leaf not in avoids for seat in able)
