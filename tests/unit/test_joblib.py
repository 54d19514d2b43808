"""joblib on p2pq, against a node that makes its calls."""

from concurrent.futures import ThreadPoolExecutor

import joblib
import pytest

import p2pq.joblib
from p2pq.joblib import P2PQBackend
from p2pq.runner.calls import run_items
from tests.unit.client.callskit import CallsNode, complain, square


@pytest.fixture
def node(tmp_path, monkeypatch):
    monkeypatch.setenv("P2PQ_ALLOW_ROOT", "1")
    with CallsNode(tmp_path / "home", slots=3) as found:
        yield found


def test_parallel_makes_its_calls_there(node):
    with joblib.parallel_config(backend="p2pq", home=node.home, name="mine", memory="1G"):
        assert joblib.effective_n_jobs() == 3
        assert joblib.Parallel()(joblib.delayed(square)(number) for number in range(20)) == [n * n for n in range(20)]
    assert {request.name for request in node.submitted} == {"mine"}
    assert node.submitted[0].resources.memory_mb == 1024


def test_an_exception_ends_it_and_it_can_be_used_again(node):
    with joblib.parallel_config(backend="p2pq", home=node.home, n_jobs=2), joblib.Parallel() as parallel:
        # Of several that fail whichever ends first is told: only one does.
        calls = [joblib.delayed(complain if number == 2 else square)(number) for number in (1, 2, 3)]
        with pytest.raises(ValueError, match="no 2"):
            parallel(calls)
        assert parallel(joblib.delayed(square)(number) for number in (1, 2)) == [1, 4]


def test_one_at_a_time_is_made_where_it_is(node):
    with joblib.parallel_config(backend="p2pq", home=node.home, n_jobs=1):
        assert joblib.Parallel()([joblib.delayed(square)(2)]) == [4]
    assert node.submitted == []


@pytest.mark.parametrize(("asked", "found"), [(None, 1), (2, 2), (7, 7), (-1, 3), (-2, 2), (-9, 1)])
def test_how_many_at_a_time(node, asked, found):
    assert P2PQBackend(home=node.home, inner_max_num_threads=1).effective_n_jobs(asked) == found


def test_how_many_never(node, monkeypatch):
    backend = P2PQBackend(home=node.home)
    with pytest.raises(ValueError, match="no meaning"):
        backend.effective_n_jobs(0)
    monkeypatch.setenv("P2PQ_TASK", "0")
    assert backend.effective_n_jobs(-1) == 1
    backend.terminate()
    backend.abort_everything(ensure_ready=False)
    assert p2pq.joblib.__all__ == ["P2PQBackend"]


class Threads(ThreadPoolExecutor):
    """An executor that says what it was asked for."""

    asked = []  # noqa: RUF012

    def __init__(self, workers, **options):
        super().__init__(workers)
        self.asked.append(options)

    def submit(self, function, *args):
        self.asked.append(function)
        return super().submit(function, *args)


def test_other_machines_get_nothing_of_joblib(monkeypatch):
    monkeypatch.setattr(p2pq.joblib, "Executor", Threads)
    monkeypatch.setattr(p2pq.joblib, "node_slots", lambda **said: 5 if said == {"where": "any"} else 0)
    with joblib.parallel_config(backend="p2pq", where="any"):
        assert joblib.effective_n_jobs() == 5
        assert joblib.Parallel()(joblib.delayed(square)(number) for number in range(9)) == [n * n for n in range(9)]
    assert Threads.asked[0] == {"name": "joblib", "where": "any"}
    assert set(Threads.asked[1:]) == {run_items}
