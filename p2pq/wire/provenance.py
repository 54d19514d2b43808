"""Whose word a result is: all that binds it to its job, checked again from what was kept.

The master signed the manifest, and grants that name the manifest's digest, a worker and leases. That worker signed the
result, which names the lease. Its certificates lead to the mesh's root, of which the mesh id in the manifest is the hash.
So all of it hangs on one key: the master's own. A worker of another mesh has certificates that lead to another root; what
binds that to the manifest's mesh is a peering, which both meshes have signed.

What was granted to a bridge (docs/adr/0201) is signed by one of its leaves. That it was to have it is what the bridges on the way
have signed: sub-grants, each of which names the one above, or the grant, and whom it is to. Where these were not told or are not
kept, all else is checked, and it is not proved.
"""

from collections.abc import Callable, Iterable
from typing import Final

import msgspec

from p2pq.errors import Reject
from p2pq.model.ids import JobId, LeaseId, NodeId, Wall
from p2pq.wire import peering, prims, sign, trust
from p2pq.wire.handing import FOREIGN, Step, hands_on, open_step
from p2pq.wire.objects import Cert, Grant, GrantItem, Manifest, Result, ResultItem
from p2pq.wire.peering import Opened

# Reasons, as the end of a sentence that begins with the task.
BAD_GRANT: Final = "its grant is not signed by this node, or was altered"
OTHER_JOB: Final = "its grant is for another job or manifest"
OTHER_GRANT: Final = "its grant is for other attempts"
OTHER_WORKER: Final = "it ran on a node that the job does not admit"
BAD_RESULT: Final = "its result is not signed by the node that it was granted to, or was altered"
OTHER_MASTER: Final = "its result was signed for another node, by another node or in another mesh"
OTHER_RESULT: Final = "its signed result does not hold this attempt under this lease"
NOT_DELIVERED: Final = "what was delivered is not what the signed result names"
OTHER_HOLDER: Final = "the certificate kept is not that of the node that signed its result"
NOT_PEERED: Final = (
    "no peering with the mesh of the node that signed its result let it work for this one when that came"
)
MAY_NOT_WORK: Final = "the node that signed its result may not work in this mesh"
BAD_SUBGRANT: Final = "a bridge's word on who was to run it is not signed by that bridge, or was altered"
OTHER_SUBGRANT: Final = "a bridge's word on who was to run it is for another grant or another lease"
OTHER_LEAF: Final = "it was handed on to another node than the one that signed its result"
OTHER_BRIDGE: Final = "the certificate kept is not that of a bridge that handed it on"
NO_BRIDGE: Final = "a node that handed it on may not be a bridge in this mesh"
_CHAIN: Final[dict[str, str]] = {
    trust.CHAIN_LENGTH: "the chain of certificates of {who} is too long",
    trust.BAD_CERT: "a certificate of {who} is not sound",
    trust.WRONG_ROOT: "the certificates of {who} lead to another mesh's root",
    trust.NOT_ADMIN: "the certificate of {who} was not issued by an admin of the mesh",
    trust.TOO_MANY_CAPS: "the certificate of {who} claims more than its issuer may give",
    trust.NOT_YET_VALID: "the certificate of {who} was not valid yet when {what}",
    trust.EXPIRED: "the certificate of {who} had expired when {what}",
    trust.BANNED: "{who} had been banned when {what}",
    trust.ISSUER_BANNED: "the admin that let in {who} had been banned when {what}",
}
CHAIN: Final = {
    reason: text.format(who="the node that signed its result", what="that came") for reason, text in _CHAIN.items()
}
CHAIN_OF_BRIDGE: Final = {
    reason: text.format(who="a bridge that handed it on", what="it did") for reason, text in _CHAIN.items()
}
NO_EVIDENCE: Final = (
    "no evidence was kept: it ended under an older version, or the evidence was lost with a damaged store"
)
NO_GRANT: Final = "its grant is not kept: it was lost with a damaged store"
NO_SUBGRANT: Final = (
    "not proved: a bridge handed it on, whose word on who was to run it is not kept; all else is in order"
)
NO_BRIDGE_CERTS: Final = "not proved: no certificates of a bridge that handed it on are kept; all else is in order"
NO_CERTS: Final = "no certificates of the node that signed its result are kept: they were lost with a damaged store"

BannedSince = Callable[[Cert], Wall | None]
"""Tells since when the holder of a certificate is out, as far as this node knows; None: it is not."""


class Handing(msgspec.Struct, frozen=True, kw_only=True):
    """What is kept of how a bridge handed an attempt on. Nothing of it has been checked."""

    signed: bytes
    """The sub-grant."""
    certs: tuple[bytes, ...] = ()
    """Of the bridge."""


class Kept(msgspec.Struct, frozen=True, kw_only=True):
    """What is kept of the attempt that decided a task. Nothing of it has been checked."""

    task: int
    attempt: int
    lease: LeaseId
    granted: Wall
    """When it was granted."""
    wall: Wall
    """When its result was taken in."""
    item: ResultItem
    """The result as it was delivered."""
    grant: bytes = b""
    signed: bytes = b""
    certs: tuple[bytes, ...] = ()
    handed: tuple[Handing, ...] = ()
    """By the bridges on the way, the outermost first."""
    forgotten: bool = False
    """Its lease may have been forgotten with a damaged store, and taken up again without a grant."""


class Proven(msgspec.Struct, frozen=True, kw_only=True):
    """All of it holds."""

    by: NodeId
    name: str = ""
    """By its certificate; empty where that is the master itself, whose key is enough."""
    owner: str = ""
    mesh: str = ""
    """What its mesh is called, where that is another one: its certificates and the peering are believed for that."""
    banned: Wall | None = None
    """Since when it, or who let it in, is out: after this result had come."""


class Refuted(msgspec.Struct, frozen=True):
    """Something is not as it must be."""

    reason: str


class Unkept(msgspec.Struct, frozen=True):
    """Something that it takes to tell was not kept."""

    reason: str


Finding = Proven | Refuted | Unkept


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """A job whose manifest its master signed."""

    master: NodeId
    manifest: Manifest
    digest: bytes


def open_job(raw: bytes, master: NodeId, job: JobId) -> Job:
    """Return a job by its signed manifest.

    Raises:
        Reject: ``master`` did not sign it, or it is that of another job.
    """
    manifest = sign.open_signed(raw, Manifest, master)
    if manifest.job != job or manifest.node != master:
        raise Reject("the manifest of another job")
    return Job(master=master, manifest=manifest, digest=sign.digest(raw))


def check(kept: Kept, job: Job, banned: BannedSince, peerings: Iterable[Opened] = ()) -> Finding:
    """Tell whether a result is what the node signed that it was granted to, and whether that node might work then.

    ``peerings`` are those of the job's mesh that are kept, those that are over by now, too.
    """
    if not (kept.signed and kept.grant):
        return Unkept(NO_GRANT if kept.signed else NO_EVIDENCE)
    try:
        grant = _grant(kept, job)
        if kept.forgotten and not _holds(grant, kept):
            return Unkept(NO_GRANT)
        worker = _granted(grant, kept, job)
        _result(kept, job, worker)
        proven = grant.key != b"" or _handed_on(kept, job, grant, worker, banned)
        found = Proven(by=worker) if worker == job.master else _holder(kept, job, worker, banned, peerings)
        if isinstance(found, Unkept) or proven:
            return found
        return Unkept(NO_BRIDGE_CERTS if kept.handed else NO_SUBGRANT)
    except Reject as reject:
        return Refuted(reject.reason)


def _grant(kept: Kept, job: Job) -> Grant:
    try:
        grant = sign.open_signed(kept.grant, Grant, job.master)
    except Reject:
        raise Reject(BAD_GRANT) from None
    manifest = job.manifest
    named = (grant.mesh, grant.node, grant.job, grant.manifest)
    if named != (manifest.mesh, job.master, manifest.job, job.digest):
        raise Reject(OTHER_JOB)
    return grant


def _holds(grant: Grant, kept: Kept) -> bool:
    return GrantItem(kept.task, kept.attempt, kept.lease) in grant.items


def _granted(grant: Grant, kept: Kept, job: Job) -> NodeId:
    """Return the worker that had this attempt; of what a bridge handed on, the one that says so."""
    if not _holds(grant, kept):
        raise Reject(OTHER_GRANT)
    worker = grant.to if grant.key else _signer(kept)
    if job.manifest.only not in {b"", worker}:
        raise Reject(OTHER_WORKER)
    return NodeId(worker)


def _signer(kept: Kept) -> bytes:
    try:
        return sign.open_claimed(kept.signed, Result, lambda claimed: claimed.by).by
    except Reject:
        raise Reject(BAD_RESULT) from None


def _handed_on(kept: Kept, job: Job, grant: Grant, worker: NodeId, banned: BannedSince) -> bool:
    """Follow an attempt from the bridge that it was granted to; return whether that shows that the worker was to have it.

    It does not where nothing is kept of it, or no certificates of one of the bridges. What is kept must hold all the same.
    """
    holder, above, leases = NodeId(grant.to), sign.digest(kept.grant), tuple(item.lease for item in grant.items)
    shown = bool(kept.handed)
    for each in kept.handed:
        step = _step(each, job)
        if step.sub.node != holder:
            raise Reject(BAD_SUBGRANT)
        if kept.lease not in step.sub.leases or not hands_on(step, above, holder, leases):
            raise Reject(OTHER_SUBGRANT)
        shown = _bridge(each, kept, job, holder, banned) and shown
        holder, above, leases = NodeId(step.sub.to), step.digest, step.sub.leases
    if kept.handed and holder != worker:
        raise Reject(OTHER_LEAF)
    return shown


def _step(each: Handing, job: Job) -> Step:
    try:
        return open_step(each.signed, job.manifest.mesh, job.master)
    except Reject as reject:
        raise Reject(OTHER_SUBGRANT if reject.reason == FOREIGN else BAD_SUBGRANT) from None


def _bridge(step: Handing, kept: Kept, job: Job, bridge: NodeId, banned: BannedSince) -> bool:
    """See to it that whoever handed an attempt on was a bridge then; return whether its certificates are kept.

    It did so between the grant and the result, and may have gone since.
    """
    if not step.certs:
        return False
    try:
        cert = _bridge_cert(step.certs, kept, job, banned)
    except Reject as reject:
        raise Reject(CHAIN_OF_BRIDGE.get(reject.reason, CHAIN_OF_BRIDGE[trust.BAD_CERT])) from None
    if cert.sub != bridge:
        raise Reject(OTHER_BRIDGE)
    if "bridge" not in cert.caps:
        raise Reject(NO_BRIDGE)
    return True


def _bridge_cert(chain: tuple[bytes, ...], kept: Kept, job: Job, banned: BannedSince) -> Cert:
    """Return a bridge's certificate, if it was valid at some time between the grant and the result: it may be a renewed one."""
    root = _root(chain)
    begins = (sign.open_claimed(raw, Cert, lambda claimed: claimed.iss).nbf for raw in chain)
    at = Wall(max(kept.granted, *begins))
    if prims.mesh_id(root) != job.manifest.mesh:
        raise Reject(trust.WRONG_ROOT)
    if at > kept.wall + trust.SKEW_MS:
        raise Reject(trust.NOT_YET_VALID)
    return trust.verify_chain(chain, root, at, lambda cert: _out_by(banned(cert), kept.granted))


def _out_by(since: Wall | None, at: Wall) -> bool:
    return since is not None and since <= at


def _result(kept: Kept, job: Job, worker: NodeId) -> None:
    try:
        result = sign.open_signed(kept.signed, Result, worker)
    except Reject:
        raise Reject(BAD_RESULT) from None
    if (result.mesh, result.node, result.by) != (job.manifest.mesh, job.master, worker):
        raise Reject(OTHER_MASTER)
    attempt = (job.manifest.job, kept.task, kept.attempt, kept.lease)
    found = [item for item in result.items if (item.job, item.task, item.attempt, item.lease) == attempt]
    if not found:
        raise Reject(OTHER_RESULT)
    # One that says two things of an attempt was believed in the first: the lease was being collected by then.
    if found[0] != kept.item:
        raise Reject(NOT_DELIVERED)


def _holder(kept: Kept, job: Job, worker: NodeId, banned: BannedSince, peerings: Iterable[Opened]) -> Proven | Unkept:
    """Return who the worker was by its certificates, if it might work for the job's mesh when its result came."""
    if not kept.certs:
        return Unkept(NO_CERTS)
    root = _root(kept.certs)
    if prims.mesh_id(root) == job.manifest.mesh:
        return _member(kept, root, worker, banned)
    abroad = [opened for opened in peerings if opened.root == root]
    if not abroad:
        raise Reject(CHAIN[trust.WRONG_ROOT])
    return _lent(kept, _member(kept, root, worker, banned), abroad)


def _lent(kept: Kept, found: Proven, peerings: list[Opened]) -> Proven:
    """Return who a worker of another mesh was, if a peering let it work for this one when its result came."""
    cert = sign.open_claimed(kept.certs[0], Cert, lambda claimed: claimed.iss)
    for opened in peerings:
        end = opened.exp if opened.ended is None else min(opened.exp, opened.ended)
        held = opened.at - trust.SKEW_MS <= kept.wall <= end + trust.SKEW_MS
        if held and "work" in peering.narrowed(cert, opened.theirs):
            return msgspec.structs.replace(found, mesh=opened.name)
    raise Reject(NOT_PEERED)


def _member(kept: Kept, root: bytes, worker: NodeId, banned: BannedSince) -> Proven:
    """Return who the worker was, if it might work in the mesh of that root when its result came."""
    outs: list[Wall] = []

    def was_out(cert: Cert) -> bool:
        since = banned(cert)
        if since is not None:
            outs.append(since)
        return _out_by(since, kept.wall)

    try:
        cert = trust.verify_chain(kept.certs, root, kept.wall, was_out)
    except Reject as reject:
        raise Reject(CHAIN[reject.reason]) from None
    if cert.sub != worker:
        raise Reject(OTHER_HOLDER)
    if "work" not in cert.caps:
        raise Reject(MAY_NOT_WORK)
    return Proven(by=worker, name=cert.name, owner=cert.owner, banned=min(outs, default=None))


def _root(certs: tuple[bytes, ...]) -> bytes:
    """Return the root that a chain ends at, by its own word."""
    try:
        return sign.open_claimed(certs[-1], Cert, lambda claimed: claimed.iss).iss
    except Reject:
        raise Reject(CHAIN[trust.BAD_CERT]) from None
