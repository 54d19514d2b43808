"""Calls of this machine: what comes back is opened as it was."""

from dataclasses import dataclass

import pytest

from p2pq.client.here import Here, RemoteTraceback
from p2pq.runner import calls


class StiffError(Exception):
    """Does not let itself be changed."""

    def __setattr__(self, name, value):
        raise AttributeError(name)


@dataclass(frozen=True)
class FrozenError(Exception):
    """Cannot be opened, as that changes it."""

    number: int


def back(error, ways):
    return ways(memoryview(calls.Pickled().failure(error)[1]), "here")


@pytest.mark.parametrize("ways", [Here(None).failure, Here(None).other])
def test_an_exception_has_its_traceback_even_if_it_cannot_be_changed(ways):
    error = back(StiffError(3), ways)
    assert (type(error), error.args) == (StiffError, (3,))
    assert isinstance(error.__cause__, RemoteTraceback)
    assert "StiffError: 3" in str(error.__cause__)


def test_one_that_cannot_travel_is_told_of():
    error = back(FrozenError(3), Here(None).failure)
    assert type(error) is RuntimeError
    assert "FrozenError: 3 (the exception itself cannot travel: FrozenInstanceError" in str(error)


def test_results_are_opened():
    assert Here(None).result(memoryview(calls.pickled({1})), "here") == {1}
    assert Here(None).jobs([1, 2]) == [[1, 2]]
