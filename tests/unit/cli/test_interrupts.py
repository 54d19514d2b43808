"""Signals that stop a command: raised at once, or held back."""

import os
import signal

import pytest

from p2pq.cli.interrupts import Interrupts, StoppedError

ME = os.getpid()


@pytest.fixture(autouse=True)
def restored():
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    yield before
    for number, handler in before.items():
        signal.signal(number, handler)


def test_what_was_there_is_put_back(restored):
    with pytest.raises(StoppedError) as stopped, Interrupts():
        os.kill(ME, signal.SIGTERM)
    assert stopped.value.exit_code == 143
    assert {number: signal.getsignal(number) for number in restored} == restored


def test_what_is_ignored_stays_ignored():
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    with Interrupts():
        os.kill(ME, signal.SIGHUP)
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN


def test_one_is_held_back_and_said(capfd):
    with Interrupts() as interrupts:
        interrupts.hold("in a moment")
        os.kill(ME, signal.SIGINT)
        assert capfd.readouterr().err == "p2pq: in a moment\n"
        with pytest.raises(StoppedError) as stopped:
            interrupts.release()
        assert stopped.value.exit_code == 130


def test_a_second_one_is_not():
    with Interrupts() as interrupts:
        interrupts.hold("in a moment")
        os.kill(ME, signal.SIGINT)
        with pytest.raises(StoppedError):
            os.kill(ME, signal.SIGINT)


def test_none_came():
    with Interrupts() as interrupts:
        interrupts.hold("in a moment")
        interrupts.release()
        with pytest.raises(StoppedError):
            os.kill(ME, signal.SIGINT)
