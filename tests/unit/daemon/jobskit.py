"""Jobs beside a real store, for tests: the core is played by them."""

import asyncio
import os
import tempfile
from pathlib import Path

import msgspec

from p2pq.core.clock import WallClock
from p2pq.core.docket import Docket
from p2pq.core.effects import Record
from p2pq.core.events import CancelAsked, RetryAsked, Submitted
from p2pq.core.records import AttemptEnded, JobAdded, LeaseGranted, TasksCancelled
from p2pq.daemon import folders
from p2pq.daemon.blobstore import BlobStore
from p2pq.daemon.jobs import Jobs
from p2pq.daemon.submission import Author
from p2pq.errors import RefusedError
from p2pq.model.ids import LeaseId, MeshId, Mono, Wall
from p2pq.model.job import Outcome
from p2pq.wire import body, control, prims, seal, sign
from p2pq.wire.body import ResultBody
from p2pq.wire.control import Note
from p2pq.wire.objects import Manifest, ResultItem
from p2pq.wire.tree import File, Tree, convergent
from tests.unit.daemon.storekit import WORKER

KEY = prims.SigningKey(b"s" * 32)
AUTHOR = Author(KEY.public, KEY.seed, MeshId(b"m" * 32), "alice")
LEASE = LeaseId(1, 1)


class Transfers:
    """Brings what it was given, or fails as told."""

    def __init__(self, blobs):
        self.blobs = blobs
        self.error = None
        self.has = {}
        self.asked = []
        """Whom it was to fetch from, and through whom."""

    async def fetch(self, peer, missing, *, through=None):
        self.asked.append((peer, through))
        if self.error is not None:
            raise self.error
        for blob, _ in missing:
            self.blobs.add(blob, self.has[blob])


class Scheduler:
    """Knows one node and one reason."""

    reason = "no machine has that label"

    def why(self, job, task):
        return self.reason

    def task(self, job, task):
        return None

    def collecting(self, lease):
        return None

    def name_of(self, node):
        return "worker"

    def resolve_node(self, text):
        if text != "worker":
            raise RefusedError("no such node")
        return WORKER


class Rig:
    """Jobs beside a real store; the core is played by the test."""

    def __init__(self, opened, path, group):
        self.store = opened.store
        self.blobs = BlobStore(path / "blobs", quota_bytes=1 << 30, reserve_bytes=0)
        self.transfers = Transfers(self.blobs)
        self.scheduler = Scheduler()
        self.docket = Docket(AUTHOR.node, WallClock(Mono(0.0), Wall(0)))
        """The core, as far as tasks are run again."""
        self.posted = []
        self.sent = []
        self.heard = asyncio.Event()
        self.noted = asyncio.Event()
        self.jobs = Jobs(
            author=AUTHOR,
            store=self.store,
            blobs=self.blobs,
            transfers=self.transfers,
            scheduler=self.scheduler,
            tasks=group,
            post=self.post,
            post_durable=self.post_durable,
        )

    def post(self, event):
        self.posted.append(event)
        self.heard.set()

    async def post_durable(self, event):
        self.posted.append(event)
        match event:
            case Submitted():
                manifest = sign.open_signed(event.manifest, Manifest, AUTHOR.node)
                row = JobAdded(
                    job=manifest.job,
                    manifest=event.manifest,
                    key=event.key,
                    reply_secret=event.reply_secret,
                    wall=event.wall,
                    kept=event.kept,
                    halt=event.halt,
                )
                await self.write(row)
            case CancelAsked():
                await self.write(TasksCancelled(job=event.job, wall=event.wall))
            case RetryAsked():
                self.docket.out.clear()
                self.docket.retry(event)
                await self.write(*(effect.row for effect in self.docket.out if isinstance(effect, Record)))
                return self.docket.out
        return []

    async def write(self, *rows):
        await self.store.commit(rows, full=False)

    async def send(self, reply):
        self.sent.append(reply)
        if isinstance(reply, Note):
            self.noted.set()

    async def ask(self, method, request):
        self.sent = []
        await method(request, self.send)
        return self.sent

    async def submit(self, folder, **options):
        return (await self.ask(self.jobs.submit, control.Submit(folder=str(folder), **options)))[-1]

    async def event(self):
        async with asyncio.timeout(10):
            await self.heard.wait()
        self.heard.clear()
        return self.posted[-1]

    def result(self, job, task=0, *, attempt=1, outcome=None, store=True, printed="", files=(), lease=LEASE):
        """Make the sealed result of a task, its files being empty; return it and its blobs."""
        secret = self.store.secret(job)
        key = os.urandom(32)
        output = self.printed(printed) if printed else Tree()
        tree = Tree(files=tuple(File(name, False, 0, ()) for name in files))
        refs, parts = body.encrypt(key, ResultBody(tree=tree, output=output))
        reply = prims.x25519_public(secret.reply_secret)
        wrapped = seal.seal(reply, key, body.result_context(job, task, attempt, lease), os.urandom)
        found = {ref.blob: part for ref, part in zip(refs, parts, strict=True)}
        if store:
            for blob, part in found.items():
                self.blobs.add(blob, part)
        made = ResultItem(
            job=job,
            task=task,
            attempt=attempt,
            lease=lease,
            outcome=outcome or Outcome(reason="ok"),
            sandbox="strict",
            key=wrapped,
            body=refs,
            blobs=body.tree_refs(output),
        )
        return made, found

    def printed(self, text):
        """Put output into the store; return its tree."""
        with tempfile.TemporaryDirectory() as folder:
            Path(folder, "stdout").write_text(text)
            found = folders.scan(Path(folder))
            return folders.pack(Path(folder), found, self.blobs.add, convergent(b"s" * 32))

    async def settle(
        self, job, task=0, state="done", outcome=None, *, attempt=1, printed="", files=(), silent=False, **told
    ):
        lease = LeaseId(1, 100 * task + attempt)
        granted = LeaseGranted(lease=lease, job=job, task=task, attempt=attempt, worker=WORKER, wall=Wall(1))
        item, _ = self.result(job, task, attempt=attempt, outcome=outcome, printed=printed, files=files, lease=lease)
        if silent:
            item = msgspec.structs.replace(item, key=b"", body=(), blobs=())
        ended = AttemptEnded(
            lease=lease, job=job, task=task, worker=WORKER, result=item, state=state, wall=Wall(2), **told
        )
        await self.write(granted, ended)
        return item


def id_of(rig, view):
    return rig.jobs.catalogue.find(view.job).job
