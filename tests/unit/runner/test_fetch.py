"""The program that fetches files of packages."""

import http.server
import json
import threading

import pytest

from p2pq.runner import fetch


class Handler(http.server.BaseHTTPRequestHandler):
    failures = 0
    promised = 0

    def do_GET(self):
        if type(self).failures:
            type(self).failures -= 1
            self.send_error(503)
            return
        self.send_response(200)
        self.send_header("Content-Length", str(type(self).promised or 4))
        self.end_headers()
        self.wfile.write(b"data")

    def log_message(self, *_):
        pass


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setattr(fetch, "PAUSE_S", 0.0)
    monkeypatch.setattr(Handler, "failures", 0)
    monkeypatch.setattr(Handler, "promised", 0)
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as serving:
        threading.Thread(target=serving.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{serving.server_port}"
        serving.shutdown()


def order(path, files, bytes_max=100):
    files = [(url, f"{name}.whl", name) for url, name in files]
    said = {"folder": str(path / "there"), "files": files, "bytes_max": bytes_max}
    (path / "order.json").write_text(json.dumps(said))
    return fetch.main(str(path / "order.json"))


def test_files_come_from_addresses_and_from_folders(server, tmp_path):
    (tmp_path / "near").write_bytes(b"near by")
    Handler.failures = 2
    assert order(tmp_path, [[f"{server}/a", "a"], [(tmp_path / "near").as_uri(), "b"]]) == 0
    assert (tmp_path / "there/a").read_bytes() == b"data"
    assert (tmp_path / "there/b").read_bytes() == b"near by"


def test_what_cannot_be_had_is_named(server, tmp_path, capsys):
    Handler.failures = fetch.TRIES
    assert order(tmp_path, [[f"{server}/a", "a"]]) == 1
    assert capsys.readouterr().err == "error: a.whl cannot be fetched: Service Unavailable\n"
    assert order(tmp_path, [[(tmp_path / "missing").as_uri(), "b"]]) == 1
    assert "error: b.whl cannot be fetched: " in capsys.readouterr().err


def test_what_was_cut_off_is_not_taken(server, tmp_path, capsys):
    Handler.promised = 9
    assert order(tmp_path, [[f"{server}/a", "a"]]) == 1
    assert "a.whl cannot be fetched: it was cut off after 4 of 9 bytes" in capsys.readouterr().err


def test_all_together_have_a_limit(server, tmp_path, capsys):
    assert order(tmp_path, [[f"{server}/a", "a"], [f"{server}/b", "b"]], bytes_max=8) == 0
    assert order(tmp_path, [[f"{server}/a", "a"], [f"{server}/b", "b"]], bytes_max=7) == 1
    assert "b.whl cannot be fetched: it is larger than a build may write" in capsys.readouterr().err
