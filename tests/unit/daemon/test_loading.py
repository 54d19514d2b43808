"""The daemon is imported with less, and everything is as before afterwards."""

import gc
import os
import ssl
import subprocess
import sys

import pytest

from p2pq.daemon import app, loading


@pytest.fixture(autouse=True)
def _thawed():
    """Let the collector of the test run see everything again."""
    yield
    gc.unfreeze()


def test_it_returns_what_runs_a_node():
    assert loading.load() is app.run


def test_the_environment_and_the_collector_are_as_before(monkeypatch):
    monkeypatch.setenv("SSL_CERT_FILE", "/mine")
    monkeypatch.delenv("SSL_CERT_DIR", raising=False)
    loading.load()
    assert os.environ["SSL_CERT_FILE"] == "/mine"
    assert "SSL_CERT_DIR" not in os.environ
    assert gc.isenabled()


def test_no_authorities_are_read_meanwhile():
    with loading._no_certificates():
        assert ssl.create_default_context().get_ca_certs() == []


def test_what_seldom_matters_is_not_imported():
    """Each of these costs tens of milliseconds of every start."""
    code = "import sys; from p2pq.daemon import loading; loading.load(); print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert "p2pq.daemon.app" in loaded
    assert not {"spake2", "cryptography", "pathspec", "rich"} & set(loaded)
