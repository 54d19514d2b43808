"""What ``verify`` finds in a home: whose word results are, what cannot be told, and what became of the files."""

import os
import shutil
from pathlib import Path

import msgspec
import pytest

from p2pq.core import records
from p2pq.daemon import delivery, sqlite, verifying
from p2pq.daemon.blobstore import BlobStore
from p2pq.daemon.history import JobExtra
from p2pq.daemon.history import Kept as KeptTasks
from p2pq.daemon.home import Home
from p2pq.daemon.repair import repair
from p2pq.daemon.store import Store
from p2pq.daemon.submission import Sweep
from p2pq.daemon.unpack import collect
from p2pq.daemon.verifying import Files, Group, Report, Signer, verify
from p2pq.errors import NotFoundError, RefusedError, StorageError, StoreDamagedError
from p2pq.model.ids import JobId, LeaseId, NodeId, Wall, to_text
from p2pq.model.job import Outcome
from p2pq.model.params import count_tasks, parse_array
from p2pq.wire import body as bodies
from p2pq.wire import peering, prims, provenance, seal, sign, trust
from p2pq.wire.body import ResultBody
from p2pq.wire.objects import BlobRef, Capability, Grant, GrantItem, Manifest, PeerSide, Result, ResultItem, SubGrant
from p2pq.wire.tree import Tree, TreeLimits, select
from tests.unit.daemon.linkkit import keys_at
from tests.unit.daemon.storekit import raw

WALL = Wall(1_800_000_000_000)
HOUR_MS = 3600 * 1000
JOB = JobId(b"a job of a test.")
NAME = to_text(JOB)
OK = Outcome(reason="ok", exit=0)
BAD = Outcome(reason="exit", exit=3)
REPLY = b"r" * 32
BERT = prims.SigningKey(b"bert".ljust(32, b"."))
CARL = prims.SigningKey(b"carl".ljust(32, b"."))


class Life:
    """A node that has run a job, and stopped."""

    def __init__(self, tmp_path: Path, *, array: str = "0-3", job: JobId = JOB) -> None:
        self.path = tmp_path / "home"
        self.keys = keys_at(self.path, "anna", WALL)
        self.home = Home.open(self.path, environ={"P2PQ_ALLOW_ROOT": "1"})
        self.results = tmp_path / "job" / "results"
        sweep = Sweep(parse_array(array), ())
        self.tasks = count_tasks(sweep.array, sweep.axes)
        self.job = job
        axes = msgspec.msgpack.encode(sweep)
        self.extra = JobExtra(name="sim", results=str(self.results), tasks=self.tasks, axes=axes)
        self.blobs = BlobStore(self.home.blobs, quota_bytes=1 << 30, reserve_bytes=0)
        manifest = Manifest(
            mesh=self.keys.mesh,
            node=self.keys.node,
            owner="ann",
            job=job,
            tasks=self.tasks,
            reply=prims.x25519_public(REPLY),
            commit=b"c" * 32,
            body=(BlobRef(b"b" * 32, 10),),
            submitted=WALL,
            expires=WALL + HOUR_MS,
        )
        self.manifest = sign.sign(self.keys.key, manifest)
        self.rows: list[records.Row] = [
            records.JobAdded(job=job, manifest=self.manifest, key=b"k" * 32, reply_secret=REPLY, wall=WALL)
        ]

    def certs(self, who: prims.SigningKey, name: str, *caps: Capability) -> tuple[bytes, ...]:
        return self.keys.issue(
            trust.Subject(node=NodeId(who.public), name=name, owner=f"{name}'s", caps=caps or ("work",)), WALL
        )

    def finish(
        self,
        task: int,
        who: prims.SigningKey,
        certs=(),
        *,
        outcome=OK,
        proof=True,
        delivered=True,
        over=None,
        shown: tuple[bytes, ...] | None = None,
        **files: str,
    ):
        """Grant a task, to a bridge if it goes ``over`` one, let a node send what it left, and write that out.

        That bridge tells whom it handed it on to, if it is ``shown`` by certificates.
        """
        lease = LeaseId(1, task)
        source = self.path / "scratch" / str(task)
        for name, content in (files or {"out": f"result {task}"}).items():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            (source / name).write_text(content)
        tree, _ = collect(source, TreeLimits(), self.blobs.put, lambda _: os.urandom(32))
        key = os.urandom(32)
        refs, parts = bodies.encrypt(key, ResultBody(tree=tree, output=Tree()))
        for ref, part in zip(refs, parts, strict=True):
            self.blobs.put(ref.blob, part)
        sealed = seal.seal(prims.x25519_public(REPLY), key, bodies.result_context(self.job, task, 1, lease), os.urandom)
        item = ResultItem(
            job=self.job, task=task, attempt=1, lease=lease, outcome=outcome, sandbox="strict", key=sealed, body=refs,
            blobs=bodies.tree_refs(tree),
        )  # fmt: skip
        worker = NodeId(who.public)
        signed = sign.sign(who, Result(mesh=self.keys.mesh, node=self.keys.node, by=worker, items=(item,)))
        grant = Grant(
            mesh=self.keys.mesh, node=self.keys.node, to=over.public if over else worker, nonce=bytes(16), job=self.job,
            manifest=sign.digest(self.manifest), items=(GrantItem(task, 1, lease),), key=b"" if over else b"g" * 80,
            expires=WALL,
        )  # fmt: skip
        granted = sign.sign(self.keys.key, grant)
        handed: tuple[records.HandedOn, ...] = ()
        if over and shown is not None:
            sub = SubGrant(
                mesh=self.keys.mesh, node=over.public, master=self.keys.node, to=worker, parent=sign.digest(granted),
                nonce=bytes(16), leases=(lease,), expires=WALL,
            )  # fmt: skip
            handed = (records.HandedOn(signed=sign.sign(over, sub), certs=shown),)
        self.rows += [
            records.LeaseGranted(lease=lease, job=self.job, task=task, attempt=1, worker=worker, wall=WALL),
            records.GrantKept(job=self.job, lease=lease, signed=granted),
            records.AttemptEnded(
                lease=lease, job=self.job, task=task, worker=worker, result=item, wall=Wall(WALL + HOUR_MS),
                state="done" if outcome.ok else "failed",
                proof=records.Proof(signed=signed, certs=certs, handed=handed) if proof else None,
            ),
        ]  # fmt: skip
        if delivered:
            self.rows.append(records.TaskDelivered(job=self.job, task=task))
            if outcome.ok:
                tree = select(tree, lambda path: not bodies.in_checkpoint(path))
            delivery.write(tree, self.blobs, delivery.target(self.results, tasks=self.tasks, number=task))

    async def stop(self, *more: records.Row) -> None:
        """Write all that happened into the store."""
        store, _ = Store.open(self.home.store, lambda: WALL)
        store.start()
        store.keep_extra(self.job, self.extra)
        await store.commit([*self.rows, *more], full=True)
        await store.close()

    def verify(self, *tasks: int, job: str = NAME) -> Report:
        return verify(self.home, job, tasks, lambda: (WALL + 5 * HOUR_MS) / 1000)


@pytest.fixture
def life(tmp_path: Path) -> Life:
    return Life(tmp_path)


def signer(who: prims.SigningKey, name: str, results: int, banned: str | None = None) -> Signer:
    return Signer(node=to_text(who.public), name=name, owner=f"{name}'s", results=results, banned=banned)


async def test_a_job_of_two_nodes_and_this_one(life: Life) -> None:
    bert, carl = life.certs(BERT, "bert"), life.certs(CARL, "carl")
    life.finish(0, BERT, bert)
    life.finish(1, CARL, carl, outcome=BAD, **{"deep/file": "of a failure", ".checkpoint/state": "kept, as it failed"})
    life.finish(2, BERT, bert, out="fine", **{".checkpoint/state": "not written out"})
    life.finish(3, life.keys.key)
    await life.stop()
    own = Signer(node=to_text(life.keys.node), name="anna", owner="ann", results=1)
    report = Report(
        job=NAME,
        name="sim",
        results=4,
        verified=4,
        signers=(signer(BERT, "bert", 2), signer(CARL, "carl", 1), own),
        files=Files(same=5),
    )
    assert life.verify() == report
    assert not report.failed
    assert life.verify(job=NAME[:6]) == report
    assert (life.verify(2, 1, 2).results, life.verify(3).signers) == (2, (own,))


async def test_what_is_wrong_is_told_by_task(life: Life) -> None:
    bert = life.certs(BERT, "bert")
    life.finish(0, BERT, bert)
    life.finish(1, BERT, life.certs(CARL, "carl"))
    life.finish(2, BERT)
    life.finish(3, BERT, bert, proof=False)
    await life.stop()
    report = life.verify()
    assert report.signers == (signer(BERT, "bert", 1),)
    assert report.refuted == (Group(reason=provenance.OTHER_HOLDER, tasks=(1,)),)
    assert report.unkept == (
        Group(reason=provenance.NO_CERTS, tasks=(2,)),
        Group(reason=provenance.NO_EVIDENCE, tasks=(3,)),
    )
    assert report.failed
    assert (report.results, report.verified, report.files) == (4, 1, Files(same=1))
    assert not life.verify(3).failed


async def test_what_a_bridge_handed_on_is_called_not_proved_and_nothing_worse(life: Life) -> None:
    bert = life.certs(BERT, "bert")
    life.finish(0, BERT, bert)
    life.finish(1, BERT, bert, over=CARL)
    life.finish(2, BERT, life.certs(CARL, "carl"), over=CARL)
    await life.stop()
    report = life.verify(0, 1)
    assert (report.verified, report.unkept) == (1, (Group(reason=provenance.NO_SUBGRANT, tasks=(1,)),))
    assert not report.failed
    assert life.verify().refuted == (Group(reason=provenance.OTHER_HOLDER, tasks=(2,)),)


async def test_what_a_bridge_handed_on_is_proved_by_its_word(life: Life) -> None:
    bert, carl = life.certs(BERT, "bert"), life.certs(CARL, "carl", "bridge")
    life.finish(0, BERT, bert, over=CARL, shown=carl)
    life.finish(1, BERT, bert, over=CARL, shown=())
    life.finish(2, BERT, bert, over=CARL, shown=life.certs(CARL, "carl", "work"))
    await life.stop()
    report = life.verify(0)
    assert (report.verified, report.signers, report.failed) == (1, (signer(BERT, "bert", 1),), False)
    assert life.verify(1).unkept == (Group(reason=provenance.NO_BRIDGE_CERTS, tasks=(1,)),)
    assert life.verify(2).refuted == (Group(reason=provenance.NO_BRIDGE, tasks=(2,)),)


async def test_tasks_are_called_by_their_numbers(tmp_path: Path) -> None:
    life = Life(tmp_path, array="5,9")
    life.finish(1, BERT, proof=False)
    life.finish(0, life.keys.key)
    await life.stop()
    assert life.verify().unkept[0].tasks == (9,)
    with pytest.raises(NotFoundError, match="no task 1"):
        life.verify(1)
    assert life.verify(9).files == Files()
    assert life.verify(5).files == Files(gone=("results/5/out",)), "this test wrote it where task 0 is"


async def test_files_that_were_altered_or_are_gone(life: Life) -> None:
    for task in range(3):
        life.finish(task, life.keys.key)
    await life.stop()
    (life.results / "0" / "out").write_text("RESULT 0")
    (life.results / "1" / "out").unlink()
    report = life.verify()
    assert report.files == Files(same=1, differ=("results/0/out",), gone=("results/1/out",))
    assert (report.verified, report.failed) == (3, True)
    shutil.rmtree(life.home.blobs)
    life.home.blobs.mkdir(mode=0o700)
    report = life.verify()
    assert (report.verified, report.files, report.failed) == (3, Files(unlisted=3), False)


async def test_files_whose_content_is_not_kept_any_more(life: Life) -> None:
    life.finish(0, life.keys.key, same="as it was", other="not any more")
    await life.stop()
    with sqlite.connect(life.home.store, readonly=True) as db:
        (found,) = db.execute("SELECT result FROM attempts").fetchone()
    for ref in msgspec.msgpack.decode(found, type=ResultItem).blobs:
        name = to_text(ref.blob)
        (life.home.blobs / name[:2] / name).unlink()
    assert life.verify().files == Files(same=2), "put together again they are the very blob"
    (life.results / "0" / "other").write_text("any more not")
    report = life.verify()
    assert set(report.files.unsure) >= {"results/0/other"}
    assert not report.failed


async def test_names_that_are_too_many_are_counted(life: Life, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verifying, "NAMED_MAX", 2)
    life.finish(0, life.keys.key, **{name: name for name in "abcde"})
    await life.stop()
    shutil.rmtree(life.results)
    assert life.verify().files == Files(gone=("results/0/a", "results/0/b"), unnamed=3)


async def test_results_that_are_not_in_their_folder_yet(life: Life) -> None:
    life.finish(0, life.keys.key, delivered=False)
    await life.stop()
    assert life.verify().files == Files(undelivered=1)


async def test_pages_are_gone_through(life: Life, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verifying, "PAGE", 2)
    for task in range(4):
        life.finish(task, life.keys.key)
    await life.stop()
    assert life.verify().verified == 4


async def test_who_has_been_banned_since_and_who_had_been(life: Life) -> None:
    life.finish(0, BERT, life.certs(BERT, "bert"))
    life.finish(1, CARL, life.certs(CARL, "carl"))
    keys = life.keys
    here = records.BanKept(node=NodeId(BERT.public), banned=True)
    early = trust.issue_ban(keys.key, keys.state.root, "carl's", at=Wall(WALL + 1), certs=keys.state.certs)
    by_admin = records.OwnerBanKept(owner="carl's", banned=True, issuer=keys.node, signed=early)
    await life.stop(here, by_admin)
    report = life.verify()
    assert report.signers == (signer(BERT, "bert", 1, "2027-01-15T13:00:00Z"),), "a local ban bears no date"
    assert report.refuted == (Group(reason=provenance.CHAIN[trust.BANNED], tasks=(1,)),)


async def test_bans_that_were_lifted_or_came_later_or_are_another_meshs(life: Life) -> None:
    bert, carl = life.certs(BERT, "bert"), life.certs(CARL, "carl")
    life.finish(0, BERT, bert)
    life.finish(1, CARL, carl)
    life.finish(2, CARL, carl)
    keys, root = life.keys, prims.SigningKey(b"another root".ljust(32, b"."))
    lifted = trust.issue_ban(
        keys.key, keys.state.root, NodeId(BERT.public), at=WALL, banned=False, certs=keys.state.certs
    )
    later = trust.issue_ban(
        keys.key, keys.state.root, NodeId(CARL.public), at=Wall(WALL + 2 * HOUR_MS), certs=keys.state.certs
    )
    foreign = trust.issue_ban(root, root.public, "bert's", at=WALL)
    await life.stop(
        records.BanKept(node=NodeId(BERT.public), banned=False, issuer=keys.node, signed=lifted),
        records.BanKept(node=NodeId(CARL.public), banned=True, issuer=keys.node, signed=later),
        records.OwnerBanKept(owner="bert's", banned=True, issuer=root.public, signed=foreign),
    )
    assert life.verify().signers == (signer(BERT, "bert", 1), signer(CARL, "carl", 2, "2027-01-15T10:00:00Z"))


async def test_a_job_of_another_mesh_is_checked_against_that_meshs_root(life: Life) -> None:
    life.finish(0, BERT, life.certs(BERT, "bert"))
    await life.stop()
    assert not life.verify().other_mesh
    life.keys.found("new", WALL)
    report = life.verify()
    assert (report.verified, report.other_mesh) == (1, True)


async def test_a_job_of_another_key(life: Life) -> None:
    life.finish(0, BERT, life.certs(BERT, "bert"))
    life.manifest = sign.sign(BERT, sign.open_signed(life.manifest, Manifest, life.keys.node))
    life.rows[0] = msgspec.structs.replace(life.rows[0], manifest=life.manifest)
    await life.stop()
    report = life.verify()
    assert report.refuted == (Group(reason=verifying.ANOTHER_KEY, tasks=(0,)),)


async def test_a_result_that_does_not_open(life: Life) -> None:
    life.finish(0, BERT, life.certs(BERT, "bert"))
    life.rows[0] = msgspec.structs.replace(life.rows[0], reply_secret=b"x" * 32)
    await life.stop()
    assert life.verify().refuted == (Group(reason=verifying.NOT_OPENED, tasks=(0,)),)


async def test_tasks_without_a_result(life: Life) -> None:
    life.finish(0, life.keys.key)
    life.extra = msgspec.structs.replace(
        life.extra, kept=(KeptTasks(2, 3, JobId(b"e" * 16), 0), KeptTasks(3, 4, JobId(b"e" * 16), 7))
    )
    given_up = records.TaskEnded(job=JOB, task=1, state="failed", detail="given up", wall=WALL)
    await life.stop(given_up)
    report = life.verify()
    assert (report.results, report.verified, report.without) == (1, 1, 1)
    assert report.kept == ((to_text(b"e" * 16), 2),)
    assert life.verify(0).kept == ()


async def test_nothing_to_verify_yet(life: Life) -> None:
    await life.stop()
    with pytest.raises(RefusedError, match="nothing to verify: no task of job"):
        life.verify()
    with pytest.raises(RefusedError, match="that is named has a result yet"):
        life.verify(0)
    with pytest.raises(NotFoundError, match="there is no job"):
        life.verify(job="zzzz")


async def test_homes_without_a_store_to_read(life: Life, tmp_path: Path) -> None:
    with pytest.raises(StoreDamagedError, match="the store is missing"):
        life.verify()
    empty = Home.open(tmp_path / "empty", environ={"P2PQ_ALLOW_ROOT": "1"})
    with pytest.raises(RefusedError, match="no node has run here"):
        verify(empty, NAME)
    await life.stop()
    raw(life.home.store, "PRAGMA user_version = 1")
    with pytest.raises(RefusedError, match="written by an older p2pq; start the node once"):
        life.verify()
    raw(life.home.store, "PRAGMA user_version = 99")
    with pytest.raises(RefusedError, match="newer p2pq"):
        life.verify()
    life.home.store.write_bytes(b"junk" * 2000)
    with pytest.raises(StorageError):
        life.verify()


@pytest.mark.parametrize("value", ["x'c1'", "'text'", "7", "x'93a0'"])
@pytest.mark.parametrize("column", ["attempts SET result", "chains SET certs", "extras SET extra"])
async def test_a_store_with_values_that_mean_nothing(life: Life, column: str, value: str) -> None:
    life.finish(0, BERT, life.certs(BERT, "bert"))
    await life.stop()
    raw(life.home.store, f"UPDATE {column} = {value}")
    with pytest.raises(StoreDamagedError, match="does not decode"):
        life.verify()


async def test_reading_changes_nothing(life: Life) -> None:
    life.finish(0, life.keys.key)
    await life.stop()
    before = life.home.store.read_bytes()
    life.verify()
    assert life.home.store.read_bytes() == before
    store, restored = Store.open(life.home.store, lambda: WALL)
    assert [job.job for job in restored.jobs] == [JOB]
    assert life.verify().verified == 1, "while the store is in use"
    await store.close()


async def test_what_a_repair_has_saved_is_verified_and_what_it_lost_accuses_nobody(life: Life) -> None:
    bert = life.certs(BERT, "bert")
    for task in range(3):
        life.finish(task, BERT, bert)
    await life.stop()
    raw(life.home.store, "DELETE FROM grants WHERE counter = 1")
    raw(life.home.store, "UPDATE proofs SET digest = x'00' WHERE p = 3")
    saved = {table.table: (table.saved, table.dropped) for table in repair(life.home, life.keys.node, WALL).tables}
    assert [saved[table] for table in ("grants", "proofs", "chains")] == [(2, 0), (2, 1), (1, 0)]
    report = life.verify()
    assert report.signers == (signer(BERT, "bert", 1),)
    assert report.unkept == (
        Group(reason=provenance.NO_GRANT, tasks=(1,)),
        Group(reason=provenance.NO_EVIDENCE, tasks=(2,)),
    )
    assert not report.failed


async def test_evidence_of_a_job_that_is_lost_is_of_no_use(life: Life) -> None:
    life.finish(0, BERT, life.certs(BERT, "bert"))
    await life.stop()
    raw(life.home.store, "DELETE FROM jobs")
    dropped = {table.table: table.dropped for table in repair(life.home, life.keys.node, WALL).tables}
    assert (dropped["grants"], dropped["proofs"]) == (1, 1)


async def test_grants_that_are_not_this_nodes_are_not_saved(life: Life) -> None:
    life.finish(0, BERT, life.certs(BERT, "bert"))
    life.rows[2] = msgspec.structs.replace(
        life.rows[2], signed=sign.sign(BERT, sign.open_signed(life.rows[2].signed, Grant, life.keys.node))
    )
    life.finish(1, BERT, life.certs(BERT, "bert"))
    await life.stop()
    raw(life.home.store, "UPDATE grants SET counter = 9 WHERE counter = 1")
    assert {table.table: table.dropped for table in repair(life.home, life.keys.node, WALL).tables}["grants"] == 2


# -- workers of another mesh ---------------------------------------------------------------------------------------------

THERE, BOSS = prims.SigningKey(b"there".ljust(32, b".")), prims.SigningKey(b"boss".ljust(32, b"."))


def abroad(key: prims.SigningKey, name: str) -> tuple[bytes, ...]:
    """Return the chain of a node of another mesh; its admin's own, for the admin."""
    boss = trust.Subject(node=BOSS.public, name="boss", owner="boss", caps=("admin", "work"))
    admin = trust.issue_admin(THERE, boss, serial=bytes(16), wall=WALL)
    if key is BOSS:
        return (admin,)
    subject = trust.Subject(node=key.public, name=name, owner=f"{name}'s", caps=("work",))
    return (trust.issue_member(BOSS, admin, THERE.public, subject, serial=bytes(16), wall=WALL), admin)


def peering_of(life: Life, until: int) -> records.PeeringKept:
    keys = life.keys
    side = PeerSide(caps=("submit", "work"))
    offer = peering.offer(
        keys.key,
        keys.state.certs,
        keys.state.root,
        name="here",
        to=prims.mesh_id(THERE.public),
        ours=side,
        theirs=side,
        key=bytes(32),
        at=WALL,
        exp=Wall(until),
    )
    accept = peering.accept(BOSS, abroad(BOSS, ""), THERE.public, offer, name="there", at=WALL)
    return records.PeeringKept(id=sign.digest(offer), offer=offer, accept=accept)


async def test_results_from_another_mesh_hang_on_the_peering(life: Life) -> None:
    """Owners of the same name here and there are two; bans count by whose word they are about."""
    life.finish(0, BERT, abroad(BERT, "bert"))
    life.finish(1, CARL, abroad(CARL, "carl"))
    keys = life.keys
    by_boss = trust.issue_ban(BOSS, THERE.public, "carl's", at=Wall(WALL + 1), certs=abroad(BOSS, ""))
    namesake = trust.issue_ban(keys.key, keys.state.root, "bert's", at=WALL, certs=keys.state.certs)
    await life.stop(
        peering_of(life, WALL + 100 * HOUR_MS),
        records.PeeringKept(id=b"?", offer=b"of a mesh", accept=b"that was left"),
        records.PeerBanKept(mesh=prims.mesh_id(THERE.public), issuer=BOSS.public, subject=b"o", signed=by_boss),
        records.OwnerBanKept(owner="bert's", banned=True, issuer=keys.node, signed=namesake),
    )
    report = life.verify()
    assert report.signers == (
        msgspec.structs.replace(signer(BERT, "bert", 1), name="bert@there", owner="bert's@there", mesh="there"),
    )
    assert report.refuted == (Group(reason=provenance.CHAIN[trust.BANNED], tasks=(1,)),)


@pytest.mark.parametrize("peered", [True, False], ids=["over by then", "never made"])
async def test_results_from_a_mesh_without_a_peering_are_refuted(life: Life, *, peered: bool) -> None:
    life.finish(0, BERT, abroad(BERT, "bert"))
    await life.stop(*([peering_of(life, WALL + 1)] if peered else []))
    reason = provenance.NOT_PEERED if peered else provenance.CHAIN[trust.WRONG_ROOT]
    assert life.verify().refuted == (Group(reason=reason, tasks=(0,)),)


async def test_an_owner_abroad_is_banned_here_by_its_name_there(life: Life) -> None:
    life.finish(0, BERT, abroad(BERT, "bert"))
    keys = life.keys
    word = trust.issue_ban(keys.key, keys.state.root, "bert's@there", at=Wall(WALL + 1), certs=keys.state.certs)
    ban = records.OwnerBanKept(owner="bert's@there", banned=True, issuer=keys.node, signed=word)
    await life.stop(peering_of(life, WALL + 100 * HOUR_MS), ban)
    assert life.verify().refuted == (Group(reason=provenance.CHAIN[trust.BANNED], tasks=(0,)),)
