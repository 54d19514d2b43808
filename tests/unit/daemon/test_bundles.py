"""Packages that travel: for whom, which wheels, and what a worker takes of what comes."""

import msgspec
import pytest

from p2pq.core.views import PeerView
from p2pq.daemon import bundles
from p2pq.daemon.bundles import Source, Target, Wheel, WheelList
from p2pq.daemon.requirements import Wanted
from p2pq.errors import BuildError, RefusedError
from p2pq.model.ids import NodeId
from p2pq.model.job import Profile, Resources
from p2pq.wire.tree import Chunk, File, Part, Tree

ME, ANNA, BERT = (NodeId(bytes([number]) * 32) for number in (1, 2, 3))
HERE = Target("3.11", "linux", "x86_64")
THERE = Target("3.12", "linux", "aarch64")
ONE, TWO = "1" * 64, "2" * 64
LABELS = (("env", "uv"), ("os", "linux"), ("arch", "x86_64"), ("python", "3.11.2"), ("python", "3.11"))


def peer(node: NodeId, name: str, labels=LABELS, *, offers: bool = True) -> PeerView:
    profile = Profile(slots=1, memory_mb=1024, labels=labels, sandbox="strict", accepts=True) if offers else None
    return PeerView(
        id=node,
        name=name,
        owner="ann",
        address="",
        path=(),
        state="up",
        reason="",
        slots=1,
        free=1,
        has_work=False,
        profile=profile,
        boot=b"",
    )


def test_a_target_is_a_minor_version_on_a_kind_of_machine():
    assert bundles.target_of("3.11.2", "Linux", "x86_64") == HERE
    assert (HERE.file, str(HERE)) == ("cp311-linux-x86_64.json", "Python 3.11 on linux x86_64")


def test_a_node_says_by_its_labels_what_fits_it():
    profile = peer(ANNA, "anna").profile
    assert profile is not None
    assert bundles.targets_of(profile) == (HERE,)
    for missing in ("python", "os", "arch"):
        fewer = msgspec.structs.replace(profile, labels=tuple(pair for pair in LABELS if pair[0] != missing))
        assert bundles.targets_of(fewer) == ()
    odd = msgspec.structs.replace(profile, labels=(*LABELS[:3], ("python", "3.11.2"), ("python", "../x")))
    assert bundles.targets_of(odd) == ()


def test_wheels_are_for_those_who_may_run_the_job():
    other = (("env", "uv"), ("os", "linux"), ("arch", "aarch64"), ("python", "3.12"))
    peers = [
        peer(ANNA, "anna"),
        peer(BERT, "bert", other),
        peer(BERT, "carl", LABELS[1:]),
        peer(BERT, "dora", offers=False),
    ]
    any_need = Resources()

    def wanted(resources=any_need, only=b""):
        return bundles.wanted_by(("me", HERE), peers, resources, only, ME)

    assert list(wanted().items()) == [(HERE, ("me", "anna")), (THERE, ("bert",))]
    assert wanted(Resources(needs=(("arch", "aarch64"),))) == {HERE: ("me",), THERE: ("bert",)}
    assert wanted(only=ME) == {HERE: ("me",)}
    assert wanted(only=ANNA) == {HERE: ("anna",)}


def pylock(*packages: str) -> str:
    return 'lock-version = "1.0"\n' + "".join(f"[[packages]]\n{each}\n" for each in packages)


def wheel_of(file: str, sha256: str = ONE, size: int = 0) -> str:
    said = f", size = {size}" if size else ""
    return f'{{ url = "https://files.example/a/{file}"{said}, hashes = {{ sha256 = "{sha256}" }} }}'


def test_of_several_wheels_the_one_for_the_machine_is_taken_and_the_smallest_of_those():
    files = [
        wheel_of("x-1.0-py3-none-any.whl", ONE, 1),
        wheel_of("x-1.0-cp311-cp311-manylinux_2_17_x86_64.whl", TWO, 30),
        wheel_of("x-1.0-cp311-cp311-manylinux_2_28_x86_64.whl", "3" * 64, 20),
    ]
    text = pylock(f'name = "x"\nversion = "1.0"\nwheels = [{", ".join(files)}]')
    [found] = bundles.chosen(text, HERE)
    assert found == Source(
        Wheel("x", "1.0", "x-1.0-cp311-cp311-manylinux_2_28_x86_64.whl", "3" * 64),
        "https://files.example/a/x-1.0-cp311-cp311-manylinux_2_28_x86_64.whl",
        20,
    )


def test_a_wheel_that_was_named_by_its_address_is_taken():
    archive = wheel_of("y%2B1-2.0-py3-none-any.whl")
    [found] = bundles.chosen(pylock(f'name = "y"\nversion = "2.0"\narchive = {archive}'), HERE)
    assert found.wheel == Wheel("y", "2.0", "y+1-2.0-py3-none-any.whl", ONE)
    assert bundles.chosen(pylock(), HERE) == ()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (pylock('name = "x"\nversion = "1"\nsdist = {}'), "x has no wheel for Python 3.11 on linux x86_64"),
        (pylock(f'name = "x"\nversion = "1"\narchive = {wheel_of("x-1.tar.gz")}'), "x has no wheel for"),
        ("[", "is not understood"),
        ("packages = 3", "is not understood"),
        (pylock('version = "1"'), "is not understood"),
        (pylock(f'name = "x"\nwheels = [{wheel_of("x-1-py3-none-any.whl")}]'), "is not understood"),
        (pylock(f'name = "x"\nversion = "1"\nwheels = [{wheel_of("x-1.zip")}]'), "is not understood"),
        (pylock(f'name = "x"\nversion = "1"\nwheels = [{wheel_of("..%2Fx.whl")}]'), "is not understood"),
        (
            pylock(f'name = "x"\nversion = "1"\nwheels = [{wheel_of("x-1-py3-none-any.whl", "1" * 63)}]'),
            "is not understood",
        ),
        (
            pylock(f'name = "x"\nversion = "1"\nwheels = [{wheel_of("x-1-py3-none-any.whl").replace("https", "ftp")}]'),
            "is not understood",
        ),
    ],
)
def test_what_has_no_wheel_or_is_not_understood_is_said(text, said):
    with pytest.raises(BuildError, match=said):
        bundles.chosen(text, HERE)


def test_there_are_not_too_many(monkeypatch):
    monkeypatch.setattr(bundles, "WHEELS_MAX", 1)
    package = f'name = "x"\nversion = "1"\nwheels = [{wheel_of("x-1-py3-none-any.whl")}]'
    assert len(bundles.chosen(pylock(package), HERE)) == 1
    with pytest.raises(BuildError, match="more than 1 packages"):
        bundles.chosen(pylock(package, package), HERE)


A = Wheel("x", "1.0", "x-1.0-py3-none-any.whl", ONE)
B = Wheel("y", "2.0+cpu", "y-2.0+cpu-cp311-cp311-linux_x86_64.whl", TWO)


def test_a_list_travels_and_is_installed_by_hash():
    raw = bundles.listed([Source(B, "https://x/y", 1), Source(A, "https://x/x", 1)])
    found = bundles.read(raw)
    assert found == WheelList(wheels=(B, A))
    assert found.wanted() == Wanted("the bundle", (f"x==1.0 --hash=sha256:{ONE}", f"y==2.0+cpu --hash=sha256:{TWO}"))


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"[]",
        b'{"v":2,"wheels":[]}',
        b'{"v":1,"wheels":[],"more":1}',
        b'{"v":1,"wheels":[["x","1","../x.whl","%s"]]}' % ONE.encode(),
        b'{"v":1,"wheels":[["x","1 --index-url=http://evil","x.whl","%s"]]}' % ONE.encode(),
        b'{"v":1,"wheels":[["x\\n-e .","1","x.whl","%s"]]}' % ONE.encode(),
        b'{"v":1,"wheels":[["x","1","x.whl","short"]]}',
        b" " * (bundles.LIST_BYTES_MAX + 1),
    ],
)
def test_a_hostile_list_is_refused(raw):
    with pytest.raises(RefusedError, match="not understood"):
        bundles.read(raw)


def tree(*paths: str) -> Tree:
    chunks = tuple(Chunk(bytes([number]) * 32, bytes(32), 20, 4, packed=False) for number in range(len(paths)))
    files = tuple(File(path, False, 4, (Part(number, 0, 4),)) for number, path in enumerate(paths))
    return Tree(files=files, chunks=chunks)


WHOLE = tree("main.py", f".p2pq/bundle/{HERE.file}", f".p2pq/bundle/{A.file}", f".p2pq/bundle/{B.file}")


def test_tasks_see_nothing_of_it():
    assert [file.path for file in bundles.own_files(WHOLE).files] == ["main.py"]
    assert len(bundles.own_files(WHOLE).chunks) == 1
    plain = tree("main.py", ".p2pq/bundler")
    assert bundles.own_files(plain) is plain


def test_a_worker_finds_its_own_list_or_leaves_the_job_to_others():
    assert bundles.find(WHOLE, HERE) == f".p2pq/bundle/{HERE.file}"
    assert bundles.find(tree("main.py"), HERE) == ""
    with pytest.raises(RefusedError, match=r"none for Python 3\.12 on linux aarch64"):
        bundles.find(WHOLE, THERE)


def test_it_takes_the_wheels_of_its_list_and_no_others():
    found = bundles.brought(WHOLE, WheelList(wheels=(B,)))
    assert [file.path for file in found.tree.files] == [B.file]
    assert [chunk.blob[0] for chunk in found.tree.chunks] == [3]
    absent = Wheel("z", "1", "z-1-py3-none-any.whl", ONE)
    with pytest.raises(RefusedError, match="does not bring"):
        bundles.brought(WHOLE, WheelList(wheels=(A, absent)))
