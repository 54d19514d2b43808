"""Where packages come from: the owner's own settings, uv's, pip's, in this order; and what of it builds may reach and read."""

from pathlib import Path

import pytest

from p2pq.daemon import indexes
from p2pq.daemon.indexes import PYPI, find
from p2pq.daemon.sandbox import Mount
from p2pq.errors import ConfigError
from p2pq.model.config import EnvironmentSettings


@pytest.fixture
def here(tmp_path, monkeypatch):
    """Return a finder of indexes in a home where pip has no settings but those that a test gives it."""
    monkeypatch.setattr(indexes, "SYSTEM_FILES", (tmp_path / "etc.conf",))

    def finder(environ=None, /, **settings):
        return find(
            EnvironmentSettings(**settings),
            {"HOME": str(tmp_path), **(environ or {})},
            homes=[tmp_path / "home"],
            prefix=tmp_path / "prefix",
        )

    return finder


def test_by_itself_it_is_the_python_package_index(here):
    index = here()
    assert index.options() == ("--default-index", PYPI)
    assert index.hosts == index.secure == {("pypi.org", 443), ("files.pythonhosted.org", 443)}
    assert index.mounts() == ()


def test_the_owners_own_settings_come_first(here, tmp_path):
    environ = {"UV_DEFAULT_INDEX": "https://uv.example/simple", "PIP_INDEX_URL": "https://pip.example/simple"}
    index = here(
        environ,
        index="https://own.example:8443/simple",
        extra_indexes=("http://more.example",),
        hosts=("files.example", "x.example:81"),
    )
    assert index.options() == ("--default-index", "https://own.example:8443/simple", "--index", "http://more.example")
    assert index.hosts == {("own.example", 8443), ("more.example", 80), ("files.example", 443), ("x.example", 81)}
    assert index.secure == {("own.example", 8443), ("files.example", 443)}
    assert here(environ).url == "https://uv.example/simple"
    assert here({"PIP_INDEX_URL": "https://pip.example/simple"}).url == "https://pip.example/simple"


def test_a_host_that_an_address_names_for_http_is_not_for_https_only(here):
    index = here(index="https://a.example:81/x", extra_indexes=("http://a.example:81/y", "http://b.example:443"))
    assert (index.hosts, index.secure) == ({("a.example", 81), ("b.example", 443)}, frozenset())


def test_the_variables_of_uv(here, tmp_path):
    environ = {"UV_INDEX_URL": "https://a.example", "UV_INDEX": "name=https://b.example https://c.example/?x=y"}
    index = here(environ)
    assert (index.url, index.extra) == ("https://a.example", ("https://b.example", "https://c.example/?x=y"))
    links = tmp_path / "links"
    links.mkdir()
    assert "--index-strategy" not in index.options()
    assert here(environ | {"UV_INDEX_STRATEGY": "unsafe-best-match"}).best
    assert here({"UV_FIND_LINKS": f"{links},https://d.example"}).find_links == (str(links), "https://d.example")


def test_the_settings_of_pip(here, tmp_path):
    (tmp_path / "etc.conf").write_text("[global]\nindex-url = https://system.example\ncert = /nowhere\n")
    own = tmp_path / ".config/pip/pip.conf"
    own.parent.mkdir(parents=True)
    authority = tmp_path / "ca.pem"
    authority.touch()
    ours = "[global]\nindex-url = https://own.example\n\n[install]\nextra_index_url = https://x.example\n  https://y.example\n"
    own.write_text(f"{ours}cert = {authority}\n")
    index = here()
    assert (index.url, index.extra) == ("https://own.example", ("https://x.example", "https://y.example"))
    assert index.mounts() == (Mount(authority, indexes.CERTIFICATES),)
    index = here({"PIP_EXTRA_INDEX_URL": "https://z.example"})
    assert index.extra == ("https://z.example",)
    assert index.options()[-2:] == ("--index-strategy", "unsafe-best-match"), "as pip does"
    with pytest.raises(ConfigError, match="/nowhere, which is to hold certificates"):
        here({"PIP_CONFIG_FILE": "/dev/null", "PIP_CERT": "/nowhere"})
    assert here({"PIP_CONFIG_FILE": "/dev/null"}).url == PYPI
    named = tmp_path / "named.conf"
    named.write_text("[global\n")
    assert here({"PIP_CONFIG_FILE": str(named)}).url == "https://own.example"
    named.write_text("[global]\nno-index = yes\nindex-url =\nextra-index-url =\n")
    assert here({"PIP_CONFIG_FILE": str(named)}).options() == ("--no-index",)


def test_folders_are_seen_and_named_where_a_build_finds_them(here, tmp_path):
    links, mirror = tmp_path / "links", tmp_path / "mirror" / "simple"
    links.mkdir()
    mirror.mkdir(parents=True)
    index = here(index=f"file://{mirror}", find_links=(str(links),), extra_indexes=(str(tmp_path / "links"),))
    assert index.options() == (
        *("--default-index", "file:///p2pq-index/0/simple"),
        *("--index", "/p2pq-index/1", "--find-links", "/p2pq-index/1"),
    )  # fmt: skip
    assert index.mounts() == (Mount(mirror.parent, "/p2pq-index/0"), Mount(links, "/p2pq-index/1"))
    assert index.hosts == frozenset()
    assert here(index="none", find_links=(str(links),)).options() == ("--no-index", "--find-links", "/p2pq-index/0")


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"index": "https://user:secret@host/simple"}, "takes a password"),
        ({"index": "https://token@host/simple"}, "takes a password"),
        ({"index": "ftp://host"}, "write https://"),
        ({"index": "https://"}, "write https://"),
        ({"index": "https://host:port"}, "no address of packages"),
        ({"find_links": ("relative",)}, "is not a folder"),
        ({"find_links": ("/nowhere/at/all",)}, "is not a folder"),
        ({"find_links": ("/",)}, "holds a home"),
        ({"hosts": ("https://host",)}, "write HOST or HOST:PORT"),
        ({"hosts": ("host:0",)}, "write HOST or HOST:PORT"),
        ({"certificates": "/nowhere"}, "is not a file"),
    ],
)
def test_what_is_of_no_use_is_said(here, settings, said):
    with pytest.raises(ConfigError, match=said) as caught:
        here(**settings)
    assert "secret" not in str(caught.value)
    assert "token" not in str(caught.value)


def test_a_home_is_not_shown_by_any_name(here, tmp_path):
    (tmp_path / "home").mkdir()
    (tmp_path / "link").symlink_to(tmp_path)
    for folder in (tmp_path, tmp_path / "home", Path(tmp_path / "link")):
        with pytest.raises(ConfigError, match="holds a home"):
            here(find_links=(str(folder),))
