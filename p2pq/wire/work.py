"""What masters and workers say to each other, over a link or through bridges: what there is, what is given, what became of it."""

from typing import Annotated, Final

import msgspec
from msgspec import Meta

from p2pq.model.ids import LeaseId
from p2pq.model.job import Fault, Profile
from p2pq.wire.objects import HOPS_MAX, ITEMS_MAX, Bytes16, Bytes32, Name, Sealed

PLACES_MAX: Final = 256
"""Leaves with room in one request of a cluster, and leaves whose job keys come with one grant."""
LEASES_MAX: Final = 65_536
OWNERS_MAX: Final = 256
SUB_BYTES_MAX: Final = 32 << 10
"""No signed ``SubGrant`` is longer: ITEMS_MAX leases with the longest numbers are 20 kB."""
SUBS_BYTES_MAX: Final = 192 << 10
"""Sub-grants that come with the results of one message, in all; a single result may come with HOPS_MAX of the longest."""
PROOF_BYTES_MAX: Final = 64 << 10
"""No signed grant of ITEMS_MAX attempts, and no sub-grant, is longer."""
PROOFS_MAX: Final = 4096
"""Grants and sub-grants that one message shows."""

Leases = Annotated[tuple[LeaseId, ...], Meta(max_length=LEASES_MAX)]
Sub = Annotated[bytes, Meta(max_length=SUB_BYTES_MAX)]
"""A signed ``SubGrant``."""
Subs = Annotated[tuple[Sub, ...], Meta(max_length=HOPS_MAX * ITEMS_MAX)]
Proofs = Annotated[tuple[Annotated[bytes, Meta(max_length=PROOF_BYTES_MAX)], ...], Meta(max_length=PROOFS_MAX)]
Count = Annotated[int, Meta(ge=0, lt=1 << 53)]


class LinkMessage(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """Base of all link messages."""


class ProfileIs(LinkMessage, frozen=True, kw_only=True, tag="pr"):
    """Worker to master: what I can offer. First after link-up, and again whenever it changes."""

    profile: Profile


class Holding(LinkMessage, frozen=True, kw_only=True, tag="ho"):
    """Worker to master, once after link-up: the leases of yours that I still hold (running, waiting, or a kept result).

    Whatever else the master believes this worker to hold is gone and is requeued at once.
    """

    leases: Leases = ()
    mandate: Annotated[bytes, Meta(max_length=1024)] = b""
    """Since minor 4: its signed ``Mandate``, over a link of its own or through a bridge."""
    proofs: Proofs = ()
    """Since minor 4, through a bridge: the grants and sub-grants by which these leases came here, each after what it names."""


class HasWork(LinkMessage, frozen=True, kw_only=True, tag="hw"):
    """Master to worker: the owners I have work for. ``counter`` grows with each change of what might fit."""

    counter: Count
    owners: Annotated[tuple[Name, ...], Meta(max_length=OWNERS_MAX)] = ()


class Place(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A leaf below a bridge, and the room that it has free."""

    leaf: Bytes32
    cpus: Annotated[int, Meta(ge=0, le=1 << 20)]
    memory_mb: Annotated[int, Meta(ge=0, le=1 << 30)] = 0
    gpus: Annotated[int, Meta(ge=0, le=1 << 10)] = 0


class Request(LinkMessage, frozen=True, kw_only=True, tag="rq"):
    """Worker to master: I have this much room; give me tasks of ``owner``. Lapses after REQUEST_TTL_S."""

    nonce: Bytes16
    owner: Name
    cpus: Annotated[int, Meta(ge=0, le=1 << 20)]
    """Free cpus; 0 with ``ahead`` > 0 asks only for leases ahead."""
    memory_mb: Annotated[int, Meta(ge=0, le=1 << 30)] = 0
    gpus: Annotated[int, Meta(ge=0, le=1 << 10)] = 0
    tasks_max: Annotated[int, Meta(ge=1, le=ITEMS_MAX)] = 1
    """At most so many attempts in all, running and ahead."""
    ahead: Annotated[tuple[tuple[Bytes16, Count], ...], Meta(max_length=64)] = ()
    """(job, n): up to n attempts beyond the free cpus for jobs whose task length this worker has measured."""
    places: Annotated[tuple[Place, ...], Meta(max_length=PLACES_MAX)] = ()
    """Of a cluster, since minor 4: the leaves that this room is on; ``cpus``, ``memory_mb`` and ``gpus`` are their sums."""


class Granted(LinkMessage, frozen=True, kw_only=True, tag="gr"):
    """Master to worker: a signed grant, the manifest if this link has not carried it yet, small blobs inline."""

    grant: bytes
    manifest: bytes = b""
    blobs: Annotated[tuple[bytes, ...], Meta(max_length=64)] = ()
    checkpoints: Annotated[tuple[bytes, ...], Meta(max_length=ITEMS_MAX)] = ()
    """Signed ``Checkpoint`` objects for some of the granted attempts. An older worker starts those from nothing."""
    subs: Annotated[tuple[Sub, ...], Meta(max_length=HOPS_MAX)] = ()
    """Signed ``SubGrant`` objects, since minor 4, the outermost bridge's first: it names the grant, each other the one before."""
    keys: Annotated[tuple[tuple[Bytes32, Sealed], ...], Meta(max_length=PLACES_MAX)] = ()
    """Since minor 4: the job key, sealed to the prekey of each of these leaves, where the bridge was not given it before."""
    avoid: Annotated[tuple[tuple[LeaseId, Bytes32], ...], Meta(max_length=ITEMS_MAX)] = ()
    """Since minor 4, to a cluster: attempts, each with a leaf that it is not to run on."""


class Nothing(LinkMessage, frozen=True, kw_only=True, tag="no"):
    """Master to worker: nothing of that owner fits what you asked with, as of this counter."""

    nonce: Bytes16
    owner: Name
    counter: Count
    wide: tuple[
        Annotated[int, Meta(ge=0, le=1 << 20)],
        Annotated[int, Meta(ge=0, le=1 << 30)],
        Annotated[int, Meta(ge=0, le=1 << 10)],
    ] = (0, 0, 0)
    """Cpus, mebibytes and gpus of a task that waits and needs more than it was asked with; since minor 2, zeros: none."""


class ReturnItem(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One lease handed back: why, and one sentence for people."""

    lease: LeaseId
    fault: Fault
    detail: Annotated[str, Meta(max_length=500)] = ""


class Return(LinkMessage, frozen=True, kw_only=True, tag="rt"):
    """Worker to master: I give these leases back (unstarted, faulty, evicted, draining); grant them elsewhere."""

    items: Annotated[tuple[ReturnItem, ...], Meta(max_length=ITEMS_MAX)]


class Beat(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One held lease in a heartbeat. ``progress`` is in thousandths, -1 where the task tells none."""

    lease: LeaseId
    running: bool = True
    progress: Annotated[int, Meta(ge=-1, le=1000)] = -1


class Heartbeat(LinkMessage, frozen=True, kw_only=True, tag="hb"):
    """Worker to master: I still hold these leases of yours; all are renewed."""

    beats: Annotated[tuple[Beat, ...], Meta(max_length=LEASES_MAX)]


class Recall(LinkMessage, frozen=True, kw_only=True, tag="rl"):
    """Master to worker: others are idle and nothing waits; hand back up to so many leases of yours that have not started."""

    tasks: Annotated[int, Meta(ge=1, le=ITEMS_MAX)]


class Cancel(LinkMessage, frozen=True, kw_only=True, tag="ca"):
    """Master to worker: these leases are over; stop what runs under them and forget it."""

    leases: Leases


class ResultReady(LinkMessage, frozen=True, kw_only=True, tag="rs"):
    """Worker to master: a signed result; small blobs inline, the rest to be fetched."""

    result: bytes
    blobs: Annotated[tuple[bytes, ...], Meta(max_length=256)] = ()
    subs: Subs = ()
    """Since minor 4: the sub-grants by which these leases came to the sender, and those above, each once, in any order."""


class Receipted(LinkMessage, frozen=True, kw_only=True, tag="rc"):
    """Master to worker: a signed receipt."""

    receipt: bytes


class Confirm(LinkMessage, frozen=True, kw_only=True, tag="cf"):
    """Worker to master: I slept. Which of these leases of yours are still mine? What runs under them stands still until then."""

    nonce: Bytes16
    leases: Leases


class Confirmed(LinkMessage, frozen=True, kw_only=True, tag="cd"):
    """Master to worker, in answer to Confirm: those that are, all renewed. The others are over: stop and forget them."""

    nonce: Bytes16
    leases: Leases = ()


class Leaving(LinkMessage, frozen=True, kw_only=True, tag="lv"):
    """The sender ends on purpose; its leases have been handed back."""
