"""What a job asks for against what a worker offers."""

import typing

import msgspec
import pytest

from p2pq.model import job
from p2pq.model.job import Limits, Outcome, Profile, Resources, missing_needs

LINUX = ("os", "linux")
BRIAN = ("has", "brian2")
NUMPY = ("has", "numpy")


@pytest.mark.parametrize(
    ("needs", "labels", "missing"),
    [
        ((), (), ()),
        ((), (LINUX,), ()),
        ((LINUX,), (LINUX, BRIAN), ()),
        ((LINUX, BRIAN), (LINUX,), ("has=brian2",)),
        ((BRIAN, NUMPY), (NUMPY,), ("has=brian2",)),
        ((("os", "macos"),), (LINUX,), ("os=macos",)),
    ],
)
def test_missing_needs_names_exactly_what_is_missing(needs, labels, missing):
    assert missing_needs(Resources(needs=needs), Profile(labels=labels)) == missing


@pytest.mark.parametrize("reason", typing.get_args(job.Reason))
def test_only_ok_is_a_success(reason):
    assert Outcome(reason=reason).ok == (reason == "ok")


def test_reasons_and_faults_are_apart_where_both_could_be_meant():
    """A task's own end counts against it, a worker's fault does not: no word may mean both."""
    assert set(typing.get_args(job.Reason)) & set(typing.get_args(job.Fault)) == set()


@pytest.mark.parametrize(
    ("type_", "value"),
    [
        (Resources, {"cpus": 0}),
        (Resources, {"cpus": job.CPUS_MAX + 1}),
        (Resources, {"memory_mb": -1}),
        (Resources, {"needs": [["a", "b"]] * 33}),
        (Resources, {"needs": [["", "b"]]}),
        (Limits, {"time_s": 0}),
        (Limits, {"processes": 0}),
        (Profile, {"sandbox": "perfect"}),
        (Profile, {"reason": "x" * 301}),
        (Outcome, {"reason": "exit", "exit": 256}),
        (Outcome, {"reason": "signal", "signal": 0}),
        (Outcome, {"reason": "unheard-of"}),
        (Outcome, {"reason": "ok", "run_ms": 1 << 48}),
    ],
)
def test_out_of_range_dies_at_the_edge(type_, value):
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert(value, type_)


def test_defaults_ask_for_one_cpu_and_a_day():
    assert Resources().cpus == 1
    assert Limits().time_s == 24 * 3600
    assert Profile().slots == 0
    assert not Profile().accepts
