"""The mutants: where, what stands there, what stands there instead, which promise that breaks, and what must notice."""

from typing import NamedTuple

UNIT = "tests/unit/core"
PROPERTY = "tests/property"
HANDING_ON = f"{UNIT}/test_handing_on.py"


class Mutant(NamedTuple):
    """One planted fault."""

    name: str
    file: str
    """Below the project's root."""
    old: str
    """Stands exactly once in the file."""
    new: str
    breaks: str
    tests: str
    """The tests, divided by blanks, of which one at least must fail."""


def _core(name: str, module: str, old: str, new: str, breaks: str, *tests: str) -> Mutant:
    chosen = tests or (f"{UNIT}/test_{module}.py",)
    return Mutant(name, f"p2pq/core/{module}.py", old, new, breaks, " ".join(chosen))


MUTANTS = (
    # -- leases
    _core("forget-the-epoch", "leases", "return LeaseId(self.epoch, self._next)", "return LeaseId(1, self._next)",
          "leases of two lives of a master have different names", f"{UNIT}/test_leases.py", f"{UNIT}/test_queue.py"),
    _core("reuse-a-lease", "leases", "        self._next += 1\n", "        self._next += 0\n",
          "a lease is granted once"),
    _core("renew-for-ever", "leases",
          "        if lease.collecting is None:\n            self._due.set(lease.id, min(Mono(now + self._lease_s), lease.until))\n"
          "\n    def confirm",
          "        if lease.collecting is None:\n            self._due.set(lease.id, Mono(now + self._lease_s))\n"
          "\n    def confirm",
          "nobody holds a lease beyond what its task may take"),
    _core("renew-a-dead-lease", "queue",
          "            if lease is not None and (lease.worker == peer or self._follows(lease, peer)):\n                self._book.leases.renew",
          "            if lease is not None:\n                self._book.leases.renew",
          "only its holder renews a lease", f"{UNIT}/test_queue.py", f"{PROPERTY}/test_queue.py"),
    _core("expire-while-collecting", "leases", "        lease.collecting = item\n        self._due.cancel(lease.id)\n",
          "        lease.collecting = item\n", "a result that is being fetched is not lost to a time-out"),
    _core("settle-and-forget", "leases", "        settled.add(lease.id.counter)\n        self.end(lease)\n",
          "        self.end(lease)\n", "what was settled is remembered for good"),
    _core("future-leases-are-unknown", "leases", '        if lease.epoch > self.epoch:\n            return "over"\n', "",
          "whoever holds a lease of a forgotten life lets go of it"),
    _core("sleep-expires-leases", "leases", "            lease.until = Mono(lease.until + counted_s)\n", "",
          "no lease expires because its master slept"),
    # -- results
    _core("any-worker-any-lease", "queue",
          "(lease.worker, lease.job, lease.task, lease.attempt) != (peer, item.job, item.task, item.attempt)",
          "(lease.job, lease.task) != (item.job, item.task)",
          "a result counts under the lease of its worker and attempt only", f"{UNIT}/test_queue.py",
          f"{PROPERTY}/test_queue.py"),
    _core("results-for-others", "queue",
          "if (result.mesh, result.node) != (self._identity.mesh, self._identity.node):", "if False:",
          "a result for another master does not count"),
    _core("settle-before-collected", "queue", "        if lease is None or lease.collecting is None:\n            return  # it was cancelled meanwhile\n        lease.detail",
          "        if lease is None:\n            return\n        lease.detail",
          "a result counts only once it is here", f"{UNIT}/test_queue.py", f"{UNIT}/test_book.py", f"{PROPERTY}/test_queue.py"),
    _core("no-receipt-for-late", "queue", '            self._receipt(peer, late, "late", now)\n', "            pass\n",
          "a worker forgets a result that comes late"),
    _core("repeat-a-request", "granting", "if worker.request is not None and worker.request.nonce == request.nonce:",
          "if False:", "a request is answered once", f"{UNIT}/test_queue.py"),
    _core("holding-ends-new-leases", "queue", "if lease.id < worker.mark and lease.id not in holds and lease.collecting is None:",
          "if lease.id not in holds and lease.collecting is None:",
          "what was granted since a link came up is not ended by its first words", f"{UNIT}/test_queue.py",
          f"{PROPERTY}/test_queue.py"),
    _core("holding-ends-collections", "queue", "if lease.id < worker.mark and lease.id not in holds and lease.collecting is None:",
          "if lease.id < worker.mark and lease.id not in holds:",
          "a result that is being fetched decides, not its worker's memory", f"{UNIT}/test_queue.py",
          f"{PROPERTY}/test_queue.py"),
    # -- clusters
    _core("anybody-is-a-leaf", "clusters", '        if "work" not in cert.caps:\n', "        if False:\n",
          "a leaf is who may work by its own certificate"),
    _core("a-banned-leaf-stays", "clusters", "            self.leaves.pop(node, None)\n            self._left.pop(node, None)\n",
          "            pass\n", "nothing that a banned leaf brings counts", f"{UNIT}/test_clusters.py",
          f"{UNIT}/test_reports_of_clusters.py"),
    _core("any-leaf-s-results", "queue", "            if cluster.speaks_for(NodeId(result.by)):\n", "            if True:\n",
          "a result that a bridge brings is a leaf's of its own", f"{UNIT}/test_reports_of_clusters.py"),
    _core("believe-the-bridge", "queue", "            if lease.runner != by:\n", "            if lease.runner == peer:\n",
          "failures count against the leaf that signed for them", f"{UNIT}/test_reports_of_clusters.py"),
    _core("place-at-strangers", "queue", "            if not cluster.speaks_for(leaf):\n", "            if False:\n",
          "leases are placed at known leaves", f"{UNIT}/test_reports_of_clusters.py"),
    _core("the-sum-is-room", "granting", "count = min(fits(job.ask.resources, place), request.tasks_max)",
          "count = min(fits(job.ask.resources, request), request.tasks_max)", "a task runs at one leaf"),
    _core("avoid-nobody", "book", "                        rooms.shun(items[-1].lease, avoided)\n", "                        pass\n",
          "a retry goes to another leaf where there is one", f"{UNIT}/test_granting.py"),
    _core("a-suspect-leaf-is-hidden", "granting", "doubtful = self._book.doubtful(job, cluster.leaves, now)", "doubtful = []",
          "a leaf that must prove itself gets one attempt at a time"),
    _core("key-for-nobody", "granting", "                view.keyed[job.id] = None\n", "                pass\n",
          "a leaf's key is sent once"),
    # -- the books
    _core("lose-a-task", "book", "        task.avoid = avoid\n        if avoid is None:\n            self._offer(job, index)\n",
          "        task.avoid = avoid\n        if avoid is None:\n", "a task that comes back waits again",
          f"{UNIT}/test_book.py"),
    _core("both-attempts-win", "book",
          "over = [self._revoke(job, task, other, now) for other in task.leases] if outcome.ok else []", "over = []",
          "the first result ends the other attempt", f"{UNIT}/test_second_attempts.py"),
    _core("second-attempt-at-the-same-worker", "book", "lease.runner != worker and (rooms", "(rooms",
          "a second attempt runs elsewhere", f"{UNIT}/test_second_attempts.py"),
    _core("fail-while-the-other-runs", "book", "        if not outcome.ok and task.leases:\n", "        if False:\n",
          "a failure leaves the task to its other attempt", f"{UNIT}/test_second_attempts.py"),
    _core("grant-without-record", "book", "        self.out += [fx.Record(row=row), fx.Emit(notice=granted)]\n",
          "        self.out += [fx.Emit(notice=granted)]\n", "a grant is durable before it is said",
          f"{UNIT}/test_queue.py", f"{PROPERTY}/test_queue.py"),
    _core("one-retry-more", "book", "task.failures <= job.manifest.retries", "task.failures <= job.manifest.retries + 1",
          "a task is tried as often as was asked for", f"{UNIT}/test_book.py"),
    _core("no-avoidance", "book", "        if not was_shy and self._other_is_able(job, avoid):\n", "        if False:\n",
          "a retry goes to another worker where there is one", f"{UNIT}/test_book.py"),
    _core("end-before-delivery", "jobs", "        return not self.undelivered and not self.unsettled\n",
          "        return not self.unsettled\n", "a job ends when its results are in its owner's folder",
          f"{UNIT}/test_book.py", f"{UNIT}/test_jobs.py"),
    _core("a-ledger-of-one-attempt", "ledger", 'if task.state == "running" and not task.live:', 'if task.state == "running":',
          "a task runs on while one of its attempts does", f"{UNIT}/test_ledger.py", f"{PROPERTY}/test_store.py"),
    # -- whose fault
    _core("blame-the-task", "judging", "        return suspect\n", "        return False\n",
          "failures at a suspect do not count against tasks"),
    _core("forgive-twice", "standing", "        streak.update(dict.fromkeys(counted, 0))\n", "",
          "what is forgiven is forgiven once"),
    _core("everybody-is-suspect", "standing", "        if ended < OTHERS_MIN:\n            return False\n", "",
          "nobody is suspect without a comparison"),
    _core("sleep-for-ever", "judging", "            self.wake.append(worker)\n", "            pass\n",
          "a worker that had to wait is told when it need not"),
    _core("one-worker-uses-up-a-task", "judging", "        return not again or task.returns", "        return True or task.returns",
          "one worker alone does not use up a task's faults"),
    # -- the worker
    _core("take-unasked-grants", "worker", "        if asked is None:\n", "        if asked is None and not grant.items:\n",
          "a worker runs only what it asked for"),
    _core("run-twice", "worker", "[item for item in grant.items if not self._reports.known(master.node, item.lease)]",
          "list(grant.items)", "a grant that comes twice runs once", f"{UNIT}/test_worker.py", f"{PROPERTY}/test_worker.py"),
    _core("result-without-record", "reports", "        out.append(Record(row=kept))\n", "",
          "a result is durable before it is said", f"{UNIT}/test_worker.py"),
    _core("forget-before-the-receipt", "reports",
          "        for item in receipt.items:\n            self.release(master, item.lease, out)\n", "        pass\n",
          "a receipt lets a worker forget", f"{UNIT}/test_worker.py"),
    _core("believe-any-receipt", "reports",
          "if not ours or (receipt.mesh, receipt.node) != (self._identity.mesh, master):", "if False:",
          "a receipt to somebody else means nothing", f"{UNIT}/test_worker.py"),
    _core("any-cluster-will-do", "reports", "        if not ours or (receipt", "        if (receipt",
          "a receipt to another cluster means nothing", HANDING_ON),
    _core("anybody-is-a-bridge", "grants", '        if bridge not in peers or "bridge" not in peers[bridge].caps:\n',
          "        if bridge not in peers:\n", "only bridges hand grants on", HANDING_ON),
    _core("hand-on-what-one-does-not-have", "grants",
          "    if tuple(item.lease for item in items) != sub.leases:\n", "    if not items:\n",
          "a bridge hands on leases that it was granted, each once", HANDING_ON),
    _core("any-grant-is-its-parent", "grants",
          "(sub.mesh, sub.node, sub.to, sub.parent) != (identity.mesh, bridge, to, sign.digest(parent))",
          "(sub.mesh, sub.node, sub.to) != (identity.mesh, bridge, to)",
          "a sub-grant belongs to one grant", HANDING_ON),
    _core("sub-grants-for-others", "grants",
          "(sub.mesh, sub.node, sub.to, sub.parent) != (identity.mesh, bridge, to, sign.digest(parent))",
          "(sub.mesh, sub.node, sub.parent) != (identity.mesh, bridge, sign.digest(parent))",
          "what was handed on to another leaf does not run here", HANDING_ON),
    _core("the-masters-nonce-will-do", "grants", "nonce=sub.nonce, ", "",
          "a sub-grant answers this worker's own request", HANDING_ON),
    _core("a-sub-grant-is-for-ever", "grants", "min(grant.expires, sub.expires)", "grant.expires",
          "what was handed on expires with its sub-grant", HANDING_ON),
    Mutant("a-wrapped-key-is-a-body", "p2pq/wire/seal.py", '    return prims.derive(key, b"", "p2pq-wrap")\n', "    return key\n",
           "nothing that is encrypted for one purpose opens for another", "tests/unit/wire/test_seal.py"),
    _core("hold-nothing", "reports", "Holding(leases=leases[:LEASES_MAX])", "Holding()",
          "a worker says what it holds when a link comes up", f"{UNIT}/test_worker.py"),
    _core("count-the-sleep", "waking", "        if event.counted:\n", "        if False:\n",
          "slept time is not run time", f"{UNIT}/test_waking.py", f"{UNIT}/test_worker.py"),
    _core("any-answer-will-do", "waking", "        if self._asked.get(master) != message.nonce:\n            return []\n", "",
          "an old answer lets nothing go on", f"{UNIT}/test_waking.py"),
    _core("room-for-nobody", "reserving", "        if now >= self._until:\n", "        if False:\n",
          "nobody keeps room for ever"),
    _core("anybody-is-an-owner", "worker", "any(owner != master.owner for owner in message.owners)", "False",
          "nobody speaks for more owners than its certificate names"),
    _core("unfair-rest", "fairness", "took_s - charge.expected_s", "0.0", "an owner pays for what its attempts took"),
    _core("power-forgets-results", "records", "    return any(isinstance(row, _FULL) for row in rows)\n", "    return False\n",
          "a result that was acknowledged survives a loss of power"),
    # -- trust
    _core("nobody-is-expelled-by-owner", "node",
          "                turn.take(self._worker.expel(owner, now))\n", "", "what runs for a banned owner stops, whoever granted it"),
    _core("a-banned-link-lives-on", "membership", "                self._link_down(node, trust.BANNED, now, out)\n", "",
          "what comes over the link of a banned node does not count"),
    _core("no-heads", "membership", "        if self._links[peer].minor >= msg.TRUST_SINCE:\n            heads =",
          "        if False:\n            heads =", "linked nodes end up knowing the same bans and mesh keys",
          f"{PROPERTY}/test_gossip.py"),
    _core("heads-once", "membership", "                if wall is not None:  # once a minute\n", "                if False:\n",
          "a message that was lost is made up for", f"{PROPERTY}/test_gossip.py"),
    _core("the-last-key-heard-wins", "meshkeys", "key=lambda each: (each[0].at, each[0].key, each[1]), reverse=True)",
          "key=lambda each: each[0].at, reverse=True)", "two admins that rotate at once converge"),
    _core("any-date-counts", "bans", "(known[0].at, known[1]) >= (word.at, raw)", "False",
          "of one admin on one node the latest word counts"),
    # -- the barrier
    Mutant("lose-the-barrier", "p2pq/daemon/driver.py", "        if turn.rows or self._turns:\n", "        if turn.rows:\n",
           "effects leave in the order in which they were decided", "tests/unit/daemon/test_driver.py"),
    Mutant("release-before-durable", "p2pq/daemon/driver.py", "    return turn.durable is None or turn.durable.done()\n",
           "    return True\n", "nobody is told of what is not durable", "tests/unit/daemon/test_driver.py"),
)  # fmt: skip
