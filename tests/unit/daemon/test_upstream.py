"""Which proxy leads from a node to its indexes."""

import pytest

from p2pq.daemon import upstream
from p2pq.daemon.upstream import Proxies, Upstream
from p2pq.errors import ConfigError

ONE = Upstream("one.example", 3128)


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({}, Proxies()),
        ({"HTTPS_PROXY": "http://one.example:3128"}, Proxies(https=ONE)),
        ({"https_proxy": "one.example:3128", "HTTPS_PROXY": "http://two.example"}, Proxies(https=ONE)),
        ({"http_proxy": "http://one.example:3128/"}, Proxies(http=ONE)),
        ({"ALL_PROXY": "http://one.example:3128"}, Proxies(ONE, ONE)),
        ({"HTTPS_PROXY": "http://two.example"}, Proxies(https=Upstream("two.example", 80))),
        (
            {"HTTPS_PROXY": "http://me:p%40ss@one.example:3128"},
            Proxies(https=Upstream("one.example", 3128, b"Proxy-Authorization: Basic bWU6cEBzcw==\r\n")),
        ),
        (
            {"HTTPS_PROXY": "http://one.example:3128", "NO_PROXY": "localhost, .lab.example,*.b.example,x:8080,*"},
            Proxies(https=ONE, spared=("localhost", "lab.example", "b.example", "x", "*")),
        ),
    ],
)
def test_it_is_told_by_the_usual_variables(environ, expected):
    assert upstream.find(environ) == expected


def test_some_hosts_are_reached_without():
    proxies = Proxies(https=ONE, spared=("lab.example",))
    assert proxies.to("pypi.org", secure=True) is ONE
    assert proxies.to("pypi.org", secure=False) is None
    assert [proxies.to(host, secure=True) for host in ("lab.example", "a.lab.example")] == [None, None]
    assert proxies.to("collab.example", secure=True) is ONE
    assert Proxies(https=ONE, spared=("*",)).to("pypi.org", secure=True) is None
    assert ONE.address == ("one.example", 3128)


@pytest.mark.parametrize("text", ["socks5://one.example:1080", "https://one.example", "http://:80", "http://x:y"])
def test_other_kinds_are_refused_without_a_word_of_passwords(text):
    with pytest.raises(ConfigError, match="HTTPS_PROXY") as caught:
        upstream.find({"HTTPS_PROXY": text.replace("://", "://me:secret@")})
    assert "secret" not in str(caught.value)
