"""The mutants: where, what stands there, what stands there instead, which promise that breaks, and what must notice."""

from typing import NamedTuple

UNIT = "tests/unit/core"
PROPERTY = "tests/property"


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


def _proof(name: str, old: str, new: str, breaks: str) -> Mutant:
    return Mutant(name, "p2pq/wire/provenance.py", old, new, breaks, "tests/unit/wire/test_provenance.py")


def _terms(name: str, old: str, new: str, breaks: str) -> Mutant:
    return Mutant(name, "p2pq/wire/peering.py", old, new, breaks, "tests/unit/wire/test_peering.py")


def _abroad(name: str, module: str, old: str, new: str, breaks: str) -> Mutant:
    return _core(name, module, old, new, breaks, f"{UNIT}/test_abroad.py", f"{UNIT}/test_peerings.py")


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
    _core("renew-a-dead-lease", "queue", "            if lease is not None and lease.worker == peer:\n                self._book.leases.renew",
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
          "if (result.mesh, result.node, result.by) != (self._identity.mesh, self._identity.node, peer):",
          "if result.by != peer:", "a result for another master does not count"),
    _core("settle-before-collected", "queue", "        if lease is None or lease.collecting is None:\n            return  # it was cancelled meanwhile\n        lease.detail",
          "        if lease is None:\n            return\n        lease.detail",
          "a result counts only once it is here", f"{UNIT}/test_queue.py", f"{UNIT}/test_book.py", f"{PROPERTY}/test_queue.py"),
    _core("no-receipt-for-late", "queue", '            self._receipt(peer, late, "late")\n', "            pass\n",
          "a worker forgets a result that comes late"),
    _core("repeat-a-request", "queue", "if worker.request is not None and worker.request.nonce == request.nonce:",
          "if False:", "a request is answered once"),
    _core("holding-ends-new-leases", "queue", "if lease.id < worker.mark and lease.id not in holds and lease.collecting is None:",
          "if lease.id not in holds and lease.collecting is None:",
          "what was granted since a link came up is not ended by its first words", f"{UNIT}/test_queue.py",
          f"{PROPERTY}/test_queue.py"),
    _core("holding-ends-collections", "queue", "if lease.id < worker.mark and lease.id not in holds and lease.collecting is None:",
          "if lease.id < worker.mark and lease.id not in holds:",
          "a result that is being fetched decides, not its worker's memory", f"{UNIT}/test_queue.py",
          f"{PROPERTY}/test_queue.py"),
    # -- the books
    _core("lose-a-task", "book", "        task.avoid = avoid\n        if avoid is None:\n            self._offer(job, index)\n",
          "        task.avoid = avoid\n        if avoid is None:\n", "a task that comes back waits again",
          f"{UNIT}/test_book.py"),
    _core("both-attempts-win", "book",
          "over = [self._revoke(job, task, other, now) for other in task.leases] if outcome.ok else []", "over = []",
          "the first result ends the other attempt", f"{UNIT}/test_second_attempts.py"),
    _core("second-attempt-at-the-same-worker", "book", "len(items) < limit and lease.worker != worker and", "len(items) < limit and",
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
          "if (receipt.mesh, receipt.node, receipt.to) != (mesh, master, self._identity.node):", "if False:",
          "a receipt to somebody else means nothing", f"{UNIT}/test_worker.py"),
    _core("hold-nothing", "reports", "Holding(leases=leases[:LEASES_MAX])", "Holding()",
          "a worker says what it holds when a link comes up", f"{UNIT}/test_worker.py"),
    _core("count-the-sleep", "waking", "        if event.counted:\n", "        if False:\n",
          "slept time is not run time", f"{UNIT}/test_waking.py", f"{UNIT}/test_worker.py"),
    _core("any-answer-will-do", "waking", "        if self._asked.get(master) != message.nonce:\n            return []\n", "",
          "an old answer lets nothing go on", f"{UNIT}/test_waking.py"),
    _core("room-for-nobody", "reserving", "        if now >= self._until:\n", "        if False:\n",
          "nobody keeps room for ever"),
    _core("anybody-is-an-owner", "worker", "any(owner != master.claimed for owner in message.owners)", "False",
          "nobody speaks for more owners than its certificate names"),
    _core("unfair-rest", "fairness", "took_s - charge.expected_s", "0.0", "an owner pays for what its attempts took"),
    _core("power-forgets-results", "records", "    return any(isinstance(row, _FULL) for row in rows)\n", "    return False\n",
          "a result that was acknowledged survives a loss of power"),
    # -- own network first
    _core("far-takes-what-fits-here", "overflow", "count - min(count, max(0, room - before) // cpus), False", "count, False",
          "no task goes far for which there is a free slot here", f"{UNIT}/test_overflow.py", f"{PROPERTY}/test_overflow.py"),
    _core("near-for-ever", "overflow", "now >= job.since + HOLD_S", "False",
          "whatever waits is offered everywhere in the end", f"{UNIT}/test_overflow.py", f"{PROPERTY}/test_overflow.py"),
    _core("held-and-forgotten", "overflow", "                self._hold(job, now)\n            if left:",
          "                pass\n            if left:", "who was kept out is told when it need not be", f"{UNIT}/test_overflow.py"),
    _core("open-and-close", "overflow", "        elif now >= self._seen + CALM_S:\n", "        else:\n",
          "small jobs around the limit open the way over bridges once"),
    _core("nothing-is-kept", "lately", "max(0, self._peaks[0][1] - self._now)", "0",
          "a slot between two tasks of its own network is not given away", f"{UNIT}/test_lately.py", f"{UNIT}/test_worker.py"),
    _core("one-account", "fairness", "{far: Fairness(scale_s, mode) for far in (False, True)}",
          "dict.fromkeys((False, True), Fairness(scale_s, mode))",
          "what happens near changes no shares among those behind bridges"),
    # -- trust
    _core("nobody-is-expelled-by-owner", "node",
          "            if owner in self._membership.bans:\n                turn.take(self._worker.expel(owner, now))\n",
          "            pass\n", "what runs for a banned owner stops, whoever granted it"),
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
    # -- provenance
    _proof("any-signer-will-do", "result = sign.open_signed(kept.signed, Result, worker)",
           "result = sign.open_claimed(kept.signed, Result, lambda claimed: claimed.by)",
           "a result is the word of the node that it was granted to"),
    _proof("any-job-will-do", "        raise Reject(OTHER_JOB)\n", "        pass\n", "a grant is for its own manifest"),
    _proof("any-lease-will-do", "        raise Reject(OTHER_GRANT)\n", "        pass\n", "a result came under the lease that was granted"),
    _proof("any-delivery-will-do", "    if found[0] != kept.item:\n", "    if False:\n", "what was delivered is what was signed"),
    _proof("any-root-will-do", "    if prims.mesh_id(root) == job.manifest.mesh:\n", "    if True:\n", "certificates lead to the mesh's own root"),
    _proof("any-holder-will-do", "    if cert.sub != worker:\n", "    if False:\n", "a certificate speaks for its holder only"),
    _proof("anybody-may-work", '    if "work" not in cert.caps:\n', "    if False:\n", "who may not work proves nothing"),
    _proof("bans-come-later", "return since is not None and since <= kept.wall", "return False",
           "the word of a node that was banned by then does not count"),
    # -- other meshes
    _terms("anybody-accepts", "    if word.mesh != terms.to:\n", "    if False:\n", "only the mesh that was asked accepts an offer"),
    _terms("accept-another-offer", "    if word.offer != sign.digest(offered):\n", "    if False:\n", "an acceptance is of one offer"),
    _terms("peerings-of-others", "    if own_root not in {terms.root, word.root}:\n", "    if False:\n",
           "a peering of two other meshes is nobody's here"),
    _terms("end-any-peering", "    if word.peering != peering:\n", "    if False:\n", "an end is of one peering"),
    _terms("wide-terms", "tuple(cap for cap in side.caps if cap in cert.caps)", "side.caps",
           "nobody may do more abroad than at home"),
    _terms("any-owner-abroad", "    if side.owners and cert.owner not in side.owners:\n", "    if False:\n",
           "a peering may be for some owners only"),
    _abroad("begin-again", "peerings", 'default=b""))', 'default=b"")) if not before.end else news',
            "what was ended does not begin again"),
    _abroad("signed-by-the-banned", "peerings", "        return not self._is_banned(opened.mesh, opened.their_issuer)\n",
            "        return True\n", "what a banned admin signed does not hold"),
    _abroad("lax-abroad", "grants", ', sandbox="strict")\n', ")\n", "what runs for another mesh is isolated as well as can be"),
    _abroad("namesakes", "grants", "manifest, owner=master.owner, ", "manifest, ", "an owner abroad is no owner of ours"),
    _abroad("who-is-let-in", "abroad", "return not link.mesh or any(", "return True or any(", "a link abroad takes a peering"),
    _abroad("go-on-abroad", "abroad", "            if self._meshes[node] not in meshes:\n", "            if False:\n",
            "nothing goes on for a mesh whose peering is over"),
    _abroad("a-way-through", "reaching", "        return not to.mesh and ", "        return ",
            "nothing leads from one other mesh to the next"),
    # -- the barrier
    Mutant("lose-the-barrier", "p2pq/daemon/driver.py", "        if turn.rows or self._turns:\n", "        if turn.rows:\n",
           "effects leave in the order in which they were decided", "tests/unit/daemon/test_driver.py"),
    Mutant("release-before-durable", "p2pq/daemon/driver.py", "    return turn.durable is None or turn.durable.done()\n",
           "    return True\n", "nobody is told of what is not durable", "tests/unit/daemon/test_driver.py"),
    # -- neighbours
    Mutant("send-away-again", "p2pq/daemon/neighbours.py", "        if asker in named:\n            return None\n", "",
           "whoever comes back to a holder is served", "tests/unit/daemon/test_neighbours.py"),
    Mutant("silent-while-waiting", "p2pq/daemon/transfer.py", "                    still()\n", "",
           "nobody is given up who waits for a slow holder", "tests/unit/daemon/test_neighbours.py"),
    Mutant("trust-a-liar", "p2pq/daemon/blobhttp.py", "            self._lied(peer)\n", "",
           "who sent other bytes is not asked again soon", "tests/unit/daemon/test_blobhttp.py"),
    Mutant("favours-without-limit", "p2pq/daemon/blobhttp.py", "return self._uploads if near else nullcontext()",
           "return nullcontext()", "what goes to neighbours leaves the machine to its owner",
           "tests/unit/daemon/test_blobhttp.py"),
)  # fmt: skip
