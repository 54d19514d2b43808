"""show JOB.TASK against a node that says what the test wants."""

from contextlib import nullcontext
from types import SimpleNamespace

from p2pq.cli import attempts
from p2pq.wire.control import AttemptView, TaskView


def test_an_attempt_names_its_node_and_the_bridges_before_it(monkeypatch, capsys):
    task = TaskView(task=3, state="done", attempts=2, node="leaf", via=("gate",))
    tried = [
        AttemptView(attempt=1, node="here", state="lost", granted="2026-01-01T00:00:00Z"),
        AttemptView(attempt=2, node="leaf", via=("gate", "far"), state="done", granted="2026-01-01T00:01:00Z"),
    ]
    asked = []
    node = SimpleNamespace(ask=lambda request: asked.append(request) or [task, *tried])
    monkeypatch.setattr(attempts, "connect", lambda _ctx: nullcontext(node))
    attempts.show_task(None, "abcd", 3, as_json=False)
    assert [(each.job, each.task) for each in asked] == [("abcd", 3)]
    first, second = capsys.readouterr().out.splitlines()[-2:]
    assert first.split()[:3] == ["1", "here", "lost"]
    assert second.split()[:7] == ["2", "leaf", "<", "gate", "<", "far", "done"]
