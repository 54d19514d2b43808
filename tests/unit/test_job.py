"""What a task reads that its job was submitted with."""

import pickle  # noqa: TID251  what this very program has made

import pytest

from p2pq import job


@pytest.fixture(autouse=True)
def _fresh():
    job.data.cache_clear()


def test_a_task_has_what_its_job_was_submitted_with(tmp_path, monkeypatch):
    monkeypatch.setenv("P2PQ_PARAMS", str(tmp_path / "params.json"))
    with pytest.raises(RuntimeError, match="submitted without data"):
        job.data()
    (tmp_path / "data.pickle").write_bytes(pickle.dumps({"any": [1, 2]}))
    assert job.data() == {"any": [1, 2]}
    assert job.data() is job.data()


def test_elsewhere_there_is_nothing(monkeypatch):
    monkeypatch.delenv("P2PQ_PARAMS", raising=False)
    with pytest.raises(RuntimeError, match="no task of p2pq"):
        job.data()
