"""Whose word the results of a job are: the evidence in the store, and the files that were delivered. Blocking, reads only.

It works whether the node runs or not.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

import msgspec

from p2pq.daemon import comparing, delivery, identity, sqlite, store, submission
from p2pq.daemon.blobstore import BlobMissingError, BlobReader
from p2pq.daemon.catalogue import find_job, index_of
from p2pq.daemon.comparing import Compared
from p2pq.daemon.evidence import Decided
from p2pq.daemon.history import History, JobExtra, JobRow, JobSecret
from p2pq.daemon.home import Home
from p2pq.daemon.views import rfc3339
from p2pq.errors import RefusedError, Reject, StorageError
from p2pq.model.ids import MeshId, NodeId, Wall, to_text
from p2pq.model.params import task_number
from p2pq.wire import body as bodies
from p2pq.wire import names, peering, prims, provenance, trust
from p2pq.wire.objects import Cert, OwnerBan
from p2pq.wire.peering import Opened
from p2pq.wire.provenance import Kept, Proven, Refuted, Unkept
from p2pq.wire.tree import select

PAGE: Final = 1000
NAMED_MAX: Final = 1000
"""Files of each kind that are named; the rest is counted."""
NOT_OPENED: Final = "its result is what its node signed, but does not open with the job's secret"
ANOTHER_KEY: Final = "its manifest is not signed by this node: it is damaged, or another key submitted it"


class Signer(msgspec.Struct, frozen=True, kw_only=True):
    """A node that signed results."""

    node: str
    name: str
    owner: str
    results: int
    mesh: str = ""
    """What its mesh is called, where that is another one."""
    banned: str | None = None
    """Since when it, or the admin that let it in, is banned; all its results had come before that."""


class Group(msgspec.Struct, frozen=True, kw_only=True):
    """Tasks that share what is said of them."""

    reason: str
    tasks: tuple[int, ...]


class Files(msgspec.Struct, frozen=True, kw_only=True):
    """What the delivered files of verified results are now."""

    same: int = 0
    differ: tuple[str, ...] = ()
    gone: tuple[str, ...] = ()
    unsure: tuple[str, ...] = ()
    """They cannot be read, or have the right size but cannot be compared any more."""
    unlisted: int = 0
    """Results of which nobody knows any more which files they had: that list made room for newer data."""
    undelivered: int = 0
    """Results that are not in their owner's folder yet."""
    unnamed: int = 0
    """Files of all these kinds beyond those that are named."""


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """What was found."""

    job: str
    name: str
    results: int
    """How many were looked at."""
    verified: int
    signers: tuple[Signer, ...] = ()
    refuted: tuple[Group, ...] = ()
    unkept: tuple[Group, ...] = ()
    without: int = 0
    """Tasks that failed without a result."""
    kept: tuple[tuple[str, int], ...] = ()
    """Jobs whose results were kept instead of running tasks again, and how many."""
    files: Files = Files()
    other_mesh: bool = False
    """The job was submitted in another mesh than this node is in now; bans are those of the present one."""

    @property
    def failed(self) -> bool:
        """Whether something is not as it must be."""
        return bool(self.refuted or self.files.differ)


def verify(home: Home, job: str, tasks: Sequence[int] = (), now: Callable[[], float] = time.time) -> Report:
    """Check what proves the results of a job, or of some of its tasks, and the files that were written out.

    Args:
        home: of the node that submitted it, whether that runs or not.
        job: its id, or the beginning of it.
        tasks: as people number them; none: all.
        now: the present, in seconds.

    Raises:
        NotFoundError: there is no such job or task.
        RefusedError: there is nothing to verify.
        StorageError: the store cannot be read.
    """
    with store.reading(home) as history:
        try:
            row = find_job(history, job)
            secret = history.secret(row.job)
            if secret is None:
                raise RefusedError(f"job {to_text(row.job)[:8]} is being let go of")
            wanted = sorted({index_of(row, number) for number in tasks})
            return _Verifier(home, history, row, secret, Wall(int(now() * 1000))).verify(wanted)
        except (msgspec.MsgspecError, TypeError, ValueError) as error:
            raise sqlite.damaged(home.store, "a value in it does not decode") from error


class _Verifier:
    """Looks at one job."""

    def __init__(self, home: Home, history: History, row: JobRow, secret: JobSecret, wall: Wall) -> None:
        self._history = history
        self._row = row
        self._secret = secret
        self._extra = row.extra or JobExtra()
        self._sweep = submission.open_sweep(self._extra)
        self._blobs = BlobReader(home.blobs)
        self._node = identity.stored_node(home)
        self._mesh = identity.stored_mesh(home)
        self._own_name = identity.trust_open(self._mesh)
        self._peerings = _peerings(history, self._mesh.root, wall)
        self._out = _outs(history, self._mesh.root, self._peerings, wall)
        self._proven: dict[NodeId, tuple[Proven, int]] = {}
        self._banned: dict[NodeId, Wall] = {}
        self._refuted: dict[str, list[int]] = {}
        self._unkept: dict[str, list[int]] = {}
        self._results = self._without = 0
        self._files = _Files(Path(self._extra.results))

    def verify(self, wanted: Sequence[int]) -> Report:
        """Look at these tasks, or at all."""
        job: provenance.Job | None = None
        with suppress(Reject):
            job = provenance.open_job(self._secret.manifest, self._node, self._row.job)
        for decided in self._decided(wanted):
            if decided.kept is None:
                self._without += 1
            else:
                self._look(decided, decided.kept, job)
        kept: dict[str, int] = {}
        for each in self._extra.kept if not wanted else ():
            kept[to_text(each.job)] = kept.get(to_text(each.job), 0) + each.stop - each.start
        if not (self._results or self._without or kept):
            raise RefusedError(
                f"nothing to verify: no task of job {to_text(self._row.job)[:8]}"
                f"{' that is named' if wanted else ''} has a result yet"
            )
        return Report(
            job=to_text(self._row.job),
            name=self._extra.name,
            results=self._results,
            verified=sum(count for _, count in self._proven.values()),
            signers=tuple(self._signer(proven, count) for proven, count in self._proven.values()),
            refuted=_groups(self._refuted),
            unkept=_groups(self._unkept),
            without=self._without,
            kept=tuple(kept.items()),
            files=self._files.told(),
            other_mesh=job is not None and job.manifest.mesh != prims.mesh_id(self._mesh.root),
        )

    def _decided(self, wanted: Sequence[int]) -> Iterator[Decided]:
        if wanted:
            for index in wanted:
                yield from (
                    found for found in self._history.decided(self._row.job, start=index, limit=1) if found.task == index
                )
            return
        start = 0
        while page := self._history.decided(self._row.job, start=start, limit=PAGE):
            yield from page
            start = page[-1].task + 1

    def _look(self, decided: Decided, kept: Kept, job: provenance.Job | None) -> None:
        self._results += 1
        number = task_number(self._sweep.array, self._sweep.axes, decided.task)
        finding = Refuted(ANOTHER_KEY) if job is None else provenance.check(kept, job, self._out, self._peerings)
        if isinstance(finding, Proven) and not decided.delivered:
            self._files.undelivered += 1
        elif isinstance(finding, Proven):
            try:
                self._compare(kept, number)
            except Reject:
                finding = Refuted(NOT_OPENED)
        match finding:
            case Proven():
                _, before = self._proven.get(finding.by, (finding, 0))
                self._proven[finding.by] = finding, before + 1
                if finding.banned is not None:
                    self._banned[finding.by] = min(finding.banned, self._banned.get(finding.by, finding.banned))
            case Refuted(reason):
                self._refuted.setdefault(reason, []).append(number)
            case Unkept(reason):
                self._unkept.setdefault(reason, []).append(number)

    def _compare(self, kept: Kept, number: int) -> None:
        """Compare the files of a result with what it says. Raises Reject: it does not open."""
        limits = delivery.limits_of(self._secret.manifest)
        try:
            body = delivery.open_result(kept.item, self._secret.reply_secret, self._blobs, limits)
        except StorageError:
            self._files.unlisted += 1
            return
        tree = body.tree
        if kept.item.outcome.ok:
            tree = select(tree, lambda path: not bodies.in_checkpoint(path))
        results = Path(self._extra.results)
        if not self._extra.results:
            return
        folder = delivery.target(results, tasks=self._extra.tasks, number=number)
        self._files.add(comparing.compare(tree, folder, self._blob), folder)

    def _blob(self, blob: bytes) -> bytes | None:
        try:
            return self._blobs.get(blob)
        except BlobMissingError:
            return None

    def _signer(self, proven: Proven, count: int) -> Signer:
        own = proven.by == self._node
        since = self._banned.get(proven.by)
        return Signer(
            node=to_text(proven.by),
            name=self._own_name.name if own else _here(proven.name, proven.mesh),
            owner=self._own_name.owner if own else _here(proven.owner, proven.mesh),
            results=count,
            mesh=proven.mesh,
            banned=None if since is None else rfc3339(since),
        )


def _here(name: str, realm: str) -> str:
    """Return what a node, or an owner, is called here, which may be of another mesh."""
    return peering.name_abroad(name, realm) if realm else name


class _Files:
    """Adds up what became of the files of all results."""

    def __init__(self, results: Path) -> None:
        self._results = results
        self._same = self._unnamed = 0
        self._paths: dict[str, list[str]] = {"differs": [], "gone": [], "unsure": []}
        self.unlisted = self.undelivered = 0

    def add(self, found: Compared, folder: Path) -> None:
        """Take in what was found in a task's folder."""
        self._same += found.same
        for kind, paths in self._paths.items():
            for path in getattr(found, kind):
                if len(paths) < NAMED_MAX:
                    paths.append(names.display(str((folder / path).relative_to(self._results.parent))))
                else:
                    self._unnamed += 1

    def told(self) -> Files:
        """Return the sum."""
        return Files(
            same=self._same,
            differ=tuple(self._paths["differs"]),
            gone=tuple(self._paths["gone"]),
            unsure=tuple(self._paths["unsure"]),
            unlisted=self.unlisted,
            undelivered=self.undelivered,
            unnamed=self._unnamed,
        )


def _groups(found: dict[str, list[int]]) -> tuple[Group, ...]:
    return tuple(Group(reason=reason, tasks=tuple(tasks)) for reason, tasks in found.items())


def _peerings(history: History, root: bytes, wall: Wall) -> tuple[Opened, ...]:
    """Return the peerings of this node's mesh that are kept and hold together."""
    found = []
    for known in history.peerings():
        with suppress(Reject):  # of a mesh that this node was in before
            found.append(peering.open_known(known, root, wall))
    return tuple(found)


def _outs(history: History, root: bytes, peerings: tuple[Opened, ...], wall: Wall) -> provenance.BannedSince:
    """Return since when somebody is out. What this node's user has banned bears no date, and counts from now on.

    A node is out by its id, whoever said so. The owners of each mesh are out by the word of its own admins; those of other
    meshes by ours, too, as ``OWNER@MESH``.
    """
    own = prims.mesh_id(root)
    realms = {opened.mesh: opened.name for opened in peerings}
    roots = {own: root, **{opened.mesh: opened.root for opened in peerings}}
    since: dict[tuple[bytes, bytes | str], Wall] = {(own, who): wall for who in history.banned_here()}
    for raw in (*history.signed_bans(), *history.peer_bans()):
        for mesh, key in roots.items():
            try:
                word = trust.open_ban(raw, key, wall)
            except Reject:
                continue  # of another mesh, or of one that this node was in before
            subject = mesh, (word.owner if isinstance(word, OwnerBan) else word.sub)
            if word.banned:
                since[subject] = min(since.get(subject, wall), Wall(word.at))

    def banned(cert: Cert) -> Wall | None:
        mesh = MeshId(cert.mesh)
        names = [(mesh, cert.sub), (mesh, cert.owner), (own, cert.sub)]
        if mesh in realms:
            names.append((own, peering.name_abroad(cert.owner, realms[mesh])))
        return min((since[each] for each in names if each in since), default=None)

    return banned
