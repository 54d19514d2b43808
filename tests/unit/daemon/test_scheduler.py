"""What the local API may ask of the running core, and how nodes are named."""

from types import SimpleNamespace

import pytest

from p2pq.core.through import cluster_of
from p2pq.daemon.scheduler import Scheduler
from p2pq.errors import RefusedError
from p2pq.model.ids import JobId, Mono, NodeId, short, to_text

ME, A, B = (NodeId(char * 32) for char in (b"m", b"a", b"b"))
JOB = JobId(b"j" * 16)


FAR = {}
"""Those that take part through a bridge."""


@pytest.fixture
def scheduler():
    node = SimpleNamespace(
        job=lambda job: object() if job == JOB else None,
        tasks=lambda job, start, limit: [(job, start, limit)] if start < 2 else [],
        why=lambda job, task, now, name_of: f"{task} at {now}, see {name_of(A)}" if job == JOB else None,
        name_of=lambda node: FAR.get(node, ""),
        peers=lambda _: [SimpleNamespace(id=node, name=name) for node, name in FAR.items()],
    )
    found = Scheduler(node, me=ME, name="desk", mono=lambda: Mono(5.0))
    found.remember(A, "alpha")
    found.remember(B, "beta")
    return found


def test_it_reads_tasks_and_reasons_of_live_jobs_only(scheduler):
    assert scheduler.task(JOB, 1) == (JOB, 1, 1)
    assert scheduler.task(JOB, 2) is None
    assert scheduler.task(JobId(b"x" * 16), 0) is None
    assert scheduler.why(JOB, None) == "None at 5.0, see alpha"
    assert scheduler.why(JobId(b"x" * 16), None) is None


def test_nodes_are_called_as_people_call_them(scheduler):
    assert [scheduler.name_of(node) for node in (ME, A, NodeId(b"z" * 32))] == ["desk", "alpha", short(b"z" * 32)]


def test_nobody_sees_the_id_of_a_cluster(scheduler):
    assert scheduler.name_of(cluster_of(A)) == "alpha"
    assert scheduler.resolve_node("alpha") == A
    with pytest.raises(RefusedError, match="no node called"):
        scheduler.resolve_node(to_text(cluster_of(A)))


def test_who_takes_part_through_a_bridge_has_a_name_too_and_keeps_it(scheduler, monkeypatch):
    far, other = NodeId(b"f" * 32), NodeId(b"o" * 32)
    monkeypatch.setitem(FAR, far, "dora")
    assert scheduler.name_of(far) == "dora"
    monkeypatch.setitem(FAR, other, "emil")
    assert scheduler.resolve_node("emil") == other
    FAR.clear()
    assert [scheduler.name_of(node) for node in (far, other)] == ["dora", "emil"]


def test_a_node_is_found_by_name_or_beginning_of_its_id(scheduler):
    assert scheduler.resolve_node("beta") == B
    assert scheduler.resolve_node("desk") == ME
    assert scheduler.resolve_node(to_text(A)[:10].upper()) == A


@pytest.mark.parametrize("text", ["gamma", "al", to_text(A)[:3], ""])
def test_what_names_nobody_is_refused(scheduler, text):
    with pytest.raises(RefusedError, match="peers"):
        scheduler.resolve_node(text)


def test_what_names_two_is_refused(scheduler):
    scheduler.remember(NodeId(b"c" * 32), "alpha")
    with pytest.raises(RefusedError, match="could be 2"):
        scheduler.resolve_node("alpha")


def test_what_lacks_an_environment_is_told_what_to_do(scheduler):
    said = "needs env=uv, which nobody has (ann); label a node so, or submit without --need env=uv."
    scheduler._node.why = lambda *_: said
    told = (
        "`p2pq doctor` there says why it builds no environments; `--env none` runs the job with Python as it is there"
    )
    assert scheduler.why(JOB, None) == f"needs env=uv, which nobody has (ann); {told}."
