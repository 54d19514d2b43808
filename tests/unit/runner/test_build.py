"""The program inside the sandbox of a build: its steps, and how connections get to the proxy."""

import json
import socket
import sys
import threading

from p2pq.runner import build


def plan(tmp_path, *steps, proxy=""):
    path = tmp_path / "plan.json"
    path.write_text(json.dumps({"proxy": proxy, "steps": [{"out": "", "may_fail": False, **step} for step in steps]}))
    return str(path)


def python(code):
    return [sys.executable, "-c", code]


def test_steps_run_one_after_another_until_one_fails(tmp_path):
    out = tmp_path / "out"
    steps = (
        {"argv": python("print('one')"), "out": str(out)},
        {"argv": python("raise SystemExit(5)"), "may_fail": True},
        {"argv": python("raise SystemExit(7)")},
        {"argv": python("print('two')"), "out": str(out)},
    )
    assert build.main(plan(tmp_path, *steps)) == 7
    assert out.read_text() == "one\n"
    assert build.main(plan(tmp_path, *steps[:2])) == 0


def test_a_signal_counts_as_in_a_shell(tmp_path):
    assert build.main(plan(tmp_path, {"argv": python("import os; os.kill(os.getpid(), 9)")})) == 137


def test_connections_go_to_the_proxy(tmp_path):
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "s"))
        server.listen()
        heard = []

        def serve():
            with server.accept()[0] as connection:
                heard.append(connection.recv(100))
                connection.sendall(b"answer")

        thread = threading.Thread(target=serve)
        thread.start()
        code = (
            "import os, socket\n"
            "assert os.environ['HTTPS_PROXY'] == os.environ['http_proxy']\n"
            "s = socket.create_connection(('127.0.0.1', int(os.environ['HTTPS_PROXY'].rpartition(':')[2])))\n"
            "s.sendall(b'question')\n"
            "raise SystemExit(s.recv(100) != b'answer')\n"
        )
        assert build.main(plan(tmp_path, {"argv": python(code)}, proxy=str(tmp_path / "s"))) == 0
        thread.join()
    assert heard == [b"question"]


def test_without_a_proxy_a_connection_ends(tmp_path):
    port = build.listen(str(tmp_path / "gone"))
    with socket.create_connection(("127.0.0.1", port)) as connection:
        assert connection.recv(100) == b""
