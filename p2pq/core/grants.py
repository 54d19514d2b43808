"""Is this grant what it must be? Everything a worker checks before it runs what somebody sent."""

from typing import Final

import msgspec

from p2pq.core.identity import Identity
from p2pq.core.prekeys import Prekeys
from p2pq.core.slots import Attempt, refusal
from p2pq.core.through import cluster_of
from p2pq.errors import Reject
from p2pq.model.ids import LeaseId, Mono, NodeId, Wall
from p2pq.model.job import Fault, Profile
from p2pq.wire import body, seal, sign, trust
from p2pq.wire.handing import narrows, open_step
from p2pq.wire.messages import Granted
from p2pq.wire.objects import Checkpoint, Grant, Manifest, SubGrant

MANIFESTS_MAX: Final = 1024
MANIFEST_BYTES_SUM_MAX: Final = 64 << 20
"""Manifests kept per linked master, and their bytes in all; the one used longest ago goes first and is sent again when
needed."""


class Declined(msgspec.Struct, frozen=True):
    """A genuine grant that this worker cannot use: it is handed back."""

    fault: Fault
    detail: str


class Enclosed(msgspec.Struct, frozen=True):
    """What comes with a grant besides the manifest."""

    key: bytes
    """The job key, sealed to this node; empty where none came."""
    blobs: tuple[bytes, ...]
    """Ciphertext of small blobs."""
    checkpoints: dict[LeaseId, Checkpoint]
    """What attempts of the grant start with, by lease."""
    subs: tuple[bytes, ...] = ()
    """How the grant was handed on to this node, which its master is told with the results."""
    grant: bytes = b""
    """The signed grant itself."""


class Master(msgspec.Struct):
    """What a worker knows of a node that may grant: a linked one, or one behind bridges that speak for it."""

    node: NodeId
    owner: str
    caps: tuple[str, ...]
    minor: int
    """The newest minor version that both nodes speak."""
    mesh: bytes
    """The mesh that its jobs are of: ours, or its own."""
    foreign: bool = False
    claimed: str = ""
    """The owner as its certificate has it, and as it says it; ``owner`` is what it is called here."""
    way: tuple[NodeId, ...] = ()
    """The bridges that speak for it, the outermost first; none: it is linked, as every master of another mesh is."""
    brought: Mono | None = None
    """When it last granted something, or acknowledged a result, since it is linked or stands."""
    manifests: dict[bytes, Manifest] = msgspec.field(default_factory=dict)
    """By digest, the least recently used first."""
    sizes: dict[bytes, int] = msgspec.field(default_factory=dict)
    """Their lengths as they came, in bytes."""

    def keep(self, digest: bytes, manifest: Manifest, size: int) -> None:
        """Keep a manifest; the least recently used ones go where there are too many or too long ones."""
        self.manifests[digest] = manifest
        self.sizes[digest] = size
        while len(self.manifests) > MANIFESTS_MAX or sum(self.sizes.values()) > MANIFEST_BYTES_SUM_MAX:
            oldest = next(iter(self.manifests))
            del self.manifests[oldest], self.sizes[oldest]

    def names(self, me: NodeId) -> NodeId:
        """Return whom this master means where it speaks to this node: behind a bridge, all that the bridge speaks for."""
        return cluster_of(self.way[0]) if self.way else me


def open_grant(message: Granted, master: Master, identity: Identity) -> Grant:
    """Return the grant if it is that master's word to this node, or to a bridge that has handed it on.

    What was handed on has the attempts, the nonce and the time of the last sub-grant; it is still ``to`` the bridge. That those
    on the master's way may be bridges was seen as it was shown (``Throughs.show``).

    Raises:
        Reject: it is not, or was not handed on from bridge to bridge to this node, or that member may not give work.
    """
    receivers = (*master.way, identity.node)
    grant = sign.open_signed(message.grant, Grant, master.node)
    if (grant.mesh, grant.node, grant.to) != (master.mesh, master.node, receivers[0]):
        raise Reject("grant: not between these two nodes")
    if "submit" not in master.caps:
        raise Reject("grant: the peer may not give work")
    if len({item.lease for item in grant.items}) < len(grant.items):
        raise Reject("grant: a lease twice")
    if len(message.subs) != len(master.way):
        raise Reject("grant: not handed on by the bridges on its way")
    above = sign.digest(message.grant)
    for bridge, to, raw in zip(master.way, receivers[1:], message.subs, strict=True):
        step = open_step(raw, identity.mesh, master.node)
        if (step.sub.node, step.sub.to, step.sub.parent) != (bridge, to, above):
            raise Reject("sub-grant: not of that grant between these two nodes")
        grant, above = _part(grant, step.sub), step.digest
    return grant


def _part(grant: Grant, sub: SubGrant) -> Grant:
    """Return the part of a grant that was handed on."""
    if not narrows([item.lease for item in grant.items], sub.leases):
        raise Reject("sub-grant: leases that its bridge did not have, or in another order")
    leases = frozenset(sub.leases)
    items = tuple(item for item in grant.items if item.lease in leases)
    return msgspec.structs.replace(grant, items=items, nonce=sub.nonce, expires=min(grant.expires, sub.expires))


def manifest_of(grant: Grant, message: Granted, master: Master, me: NodeId, wall: Wall) -> Manifest | Declined:
    """Return the manifest of the granted job: from the message, or as this link carried it before.

    Declined where it did not come, or, through a bridge, the job key did not.

    Raises:
        Reject: the manifest is not that master's word on that job, or claims another owner.
    """
    if message.manifest:
        _learn(grant, message.manifest, master)
    if master.way and not any(leaf == me for leaf, _ in message.keys):
        # As with a manifest that did not come: its master sends it with the next grant.
        return Declined("no-manifest", "the job key did not come along")
    manifest = master.manifests.pop(grant.manifest, None)
    if manifest is None:
        return Declined("no-manifest", "")
    master.manifests[grant.manifest] = manifest
    if manifest.job != grant.job or any(item.task >= manifest.tasks for item in grant.items):
        raise Reject("grant: not of that manifest")
    if wall > manifest.expires + trust.SKEW_MS:
        return Declined("refused", "the job has expired (or a clock is wrong)")
    return manifest


def _learn(grant: Grant, raw: bytes, master: Master) -> None:
    if sign.digest(raw) != grant.manifest:
        raise Reject("grant: another manifest")
    manifest = sign.open_signed(raw, Manifest, master.node)
    if (manifest.mesh, manifest.node) != (master.mesh, master.node):
        raise Reject("manifest: not of this master")
    # The certificate says whose machine it is; fair shares are counted by that.
    if manifest.owner != master.claimed:
        raise Reject("manifest: another owner")
    if master.foreign:
        # From here on it is what it counts as here: of that owner abroad, and isolated as well as can be, whatever it asks for.
        manifest = msgspec.structs.replace(manifest, owner=master.owner, sandbox="strict")
    master.keep(grant.manifest, manifest, len(raw))


def open_key(enclosed: Enclosed, grant: Grant, manifest: Manifest, prekeys: Prekeys) -> bytes | Declined:
    """Return the job key, if it was sealed to this run of this node and is the one that the manifest commits to."""
    try:
        key = prekeys.open(enclosed.key, grant.manifest)
        seal.check_commitment(key, manifest.commit)
    except Reject as reject:
        return Declined("refused", f"the job key: {reject.reason}")
    return key


def open_enclosed(grant: Grant, message: Granted, master: Master, identity: Identity) -> Enclosed:
    """Return what came with a grant.

    Raises:
        Reject: a checkpoint is not that master's word to this node, or its bridge's cluster, on an attempt of this grant.
    """
    me = identity.node
    key = next((sealed for leaf, sealed in message.keys if leaf == me), b"") if master.way else grant.key
    attempts = {(item.task, item.lease) for item in grant.items}
    found: dict[LeaseId, Checkpoint] = {}
    for raw in message.checkpoints:
        checkpoint = sign.open_signed(raw, Checkpoint, master.node)
        if (checkpoint.mesh, checkpoint.node, checkpoint.to) != (master.mesh, master.node, master.names(me)):
            raise Reject("checkpoint: not between these two nodes")
        if checkpoint.job != grant.job or (checkpoint.task, checkpoint.lease) not in attempts:
            raise Reject("checkpoint: not of that grant")
        if checkpoint.lease in found:
            raise Reject("checkpoint: twice for one attempt")
        found[checkpoint.lease] = checkpoint
    return Enclosed(key, message.blobs, found, message.subs, message.grant)


def resume(attempt: Attempt, enclosed: Enclosed, master: Master, prekeys: Prekeys) -> str:
    """Let an attempt start with the checkpoint that came for it; return why not, where there is one that does not open.

    A master behind bridges does not know which leaf it will be: the key is not sealed, but encrypted under the job's.
    That costs the work behind it, never the task: the next worker would be no better off.
    """
    checkpoint = enclosed.checkpoints.get(attempt.lease)
    if checkpoint is None:
        return ""
    context = body.checkpoint_context(checkpoint.job, checkpoint.task, checkpoint.lease)
    try:
        attempt.checkpoint_key = (
            seal.unwrap(attempt.key, checkpoint.key, context) if master.way else prekeys.open(checkpoint.key, context)
        )
    except Reject as reject:
        return f"checkpoint: {reject.reason}"
    attempt.checkpoint = checkpoint.body
    return ""


def admit(
    grant: Grant, manifest: Manifest, profile: Profile, identity: Identity, wall: Wall, *, own: bool
) -> Manifest | Declined:
    """Tell whether a genuine grant may run here now: return the manifest, or why not."""
    if wall > grant.expires + trust.SKEW_MS:
        return Declined("late", "the grant has expired (or a clock is wrong)")
    reason = refusal(manifest, profile, identity.node, own=own)
    return Declined("refused", reason) if reason else manifest
