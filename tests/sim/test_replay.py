"""Records of a simulated mesh replay without a difference, and the command shows what was decided, or where it differs."""

from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from p2pq.core import flight
from p2pq.core import node as core
from p2pq.daemon.recorder import Recorder, record
from simulations import host, replay
from simulations.__main__ import main
from simulations.play import play
from simulations.scenarios import SCENARIOS


class Recorded(Recorder):
    """A recorded core that readers may read too."""

    def __getattr__(self, name: str) -> object:
        return getattr(self._node, name)


def recording(folder: Path) -> Callable[..., Recorded]:
    """Return what a simulated host builds in place of its core: one that is written down."""

    def build(identity, settings, restored, rng, _entropy, *, now, wall, links_max, bridging, batching) -> Recorded:
        header = flight.Header(
            software="simulated",
            identity=identity,
            settings=settings,
            restored=restored,
            links_max=links_max,
            keep_days=core.KEEP_DAYS,
            now=now,
            wall=wall,
            seed=rng.randbytes(32),
            bridging=bridging,
            batching=batching,
        )
        found = record(folder / identity.name, header, header.begin(), lambda *_args, **_fields: None)
        assert found is not None
        found.__class__ = Recorded
        return found  # type: ignore[return-value]

    return build


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give the records of a mesh in which hosts crash and links break."""
    found = tmp_path_factory.mktemp("flight")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(host, "Node", recording(found))
        report = play(SCENARIOS["crashes"], 3, nodes=8, tasks=60)
    assert report.crashes > 0
    return found


def run(path: Path, *options: str) -> tuple[int, list[str]]:
    said: list[str] = []
    code = replay.main([str(path), *options], said.append)
    return code, "\n".join(said).splitlines()


def test_every_life_of_every_host_decides_the_same_again(folder):
    records = sorted(folder.glob("*/*.flight"))
    assert len(records) > 8, "somebody crashed, so there are more lives than hosts"
    for path in records:
        code, said = run(path, "--show", "none", "--check")
        assert code == 0, said
        assert said[-1].endswith("0 differences")
        assert int(said[-1].split()[0]) > 10


def size(path: Path) -> int:
    return path.stat().st_size


def busiest(folder: Path) -> Path:
    return max(folder.glob("*/*.flight"), key=size)


def test_each_decision_is_one_line_without_keys(folder):
    code, said = run(busiest(folder))
    assert code == 0
    assert "simulated, began 20" in said[0]
    events, effects = (int(part.split()[0]) for part in said[-1].split(", ")[:2])
    assert len(said) == events + 2
    assert sum(line.count("; ") + 1 for line in said[1:-1] if not line.endswith("->  -")) >= effects
    for shown in ("Tick wall=", " says Request nonce=", "record LeaseGranted lease=", "tell TaskSettled", "key=<"):
        assert any(shown in line for line in said), shown


def test_what_is_shown_can_be_chosen(folder):
    path = busiest(folder)
    everything = run(path)[1][1:-1]
    events = run(path, "--show", "events")[1][1:-1]
    effects = run(path, "--show", "effects")[1][1:-1]
    assert [line.partition("  ->  ")[0] for line in everything] == events
    assert len(effects) == int(run(path)[1][-1].split()[2])
    at_s = [float(line.split()[0]) for line in events]
    first = next(at for at in range(len(at_s) // 2, len(at_s)) if at_s[at] > at_s[at - 1])
    assert at_s[0] == 0.0, "instants are counted from the beginning"
    middle_s = (at_s[first - 1] + at_s[first]) / 2
    assert run(path, "--from", str(middle_s))[1][1:-1] == everything[first:]
    until = run(path, "--until", str(middle_s))[1]
    assert until[1:-1] == everything[:first]
    assert int(until[-1].split()[0]) == first


def test_one_job_can_be_followed(folder):
    path = max((path for path in folder.glob("*/*.flight") if b"Submitted" in path.read_bytes()), key=size)
    everything = run(path)[1][1:-1]
    queued = next(line for line in everything if "record JobAdded job=" in line)
    job = queued.partition("record JobAdded job=")[2].split()[0]
    story = run(path, "--job", job)[1][1:-1]
    assert 3 < len(story) < len(everything)
    assert set(story) >= {line for line in everything if f"job={job}" in line}
    assert any(f"job={job}" not in line and "lease=" in line for line in story), "its leases are followed too"
    assert run(path, "--job", "zzzzzzzz")[1][1:-1] == []


# -- records that end badly --------------------------------------------------------------------------------------------


def rewritten(folder: Path, target: Path, change: Callable[[int, flight.Entry], flight.Entry | None]) -> Path:
    """Write a record again with its entries changed, from the place on where ``change`` returns None without them."""
    with busiest(folder).open("rb") as file, target.open("wb") as out:
        header, entries = flight.read(file.read)
        out.write(flight.MAGIC + flight.pack(header))
        for number, entry in enumerate(entries):
            if (new := change(number, entry)) is None:
                break
            out.write(flight.pack(new))
    return target


def test_a_difference_is_shown_with_what_came_before(folder, tmp_path):
    def change(number: int, entry: flight.Entry) -> flight.Entry:
        return msgspec.structs.replace(entry, digest=b"elsewise") if number == 41 else entry

    code, said = run(rewritten(folder, tmp_path / "x", change), "--show", "none")
    assert code == 1
    assert said.index("decision 21 differs:") == 1 + replay.CONTEXT
    assert all("  ->  " in line for line in said[1 : 1 + replay.CONTEXT])
    assert said[12].endswith(f"digest {b'elsewise'.hex()}")
    assert said[13].startswith("  replayed: ")
    assert said[-1].startswith("21 events, ")
    assert said[-1].endswith(" effects, then a difference")


def test_other_draws_decide_otherwise(folder, monkeypatch):
    monkeypatch.setattr(flight.Stream, "take", lambda _self, size: bytes(size))
    code, said = run(busiest(folder), "--show", "none")
    assert code == 1
    differs = next(number for number, line in enumerate(said) if line.endswith(" differs:"))
    assert any(line.startswith("    ") for line in said[differs:]), "what it decides now"


def test_a_record_cut_anywhere_replays_up_to_there(folder, tmp_path):
    raw = busiest(folder).read_bytes()
    events = int(run(busiest(folder), "--show", "none")[1][-1].split()[0])
    path = tmp_path / "x"
    for cut in (1, 30, 500, len(raw) // 2):
        path.write_bytes(raw[:-cut])
        code, said = run(path, "--show", "none")
        assert code == 0
        assert said[-1].endswith("0 differences; the record was cut off in the middle of its last entry")
        assert 0 < int(said[-1].split()[0]) <= events
    path.write_bytes(raw + bytes(100))
    code, said = run(path, "--show", "none")
    assert code == 1
    assert said[-1].endswith("0 differences; the rest cannot be read (flight: damaged)")


def test_a_core_that_broke_breaks_again(folder, tmp_path, monkeypatch):
    def broke(number: int, entry: flight.Entry) -> flight.Entry | None:
        return None if number > 101 else flight.Broke("too much") if number == 101 else entry

    path = rewritten(folder, tmp_path / "x", broke)
    code, said = run(path, "--show", "none")
    assert code == 1, "it no longer breaks"
    assert "  recorded: too much" in said
    calls = 0
    handle = core.Node.handle

    def breaking(self, event, now):
        nonlocal calls
        calls += 1
        if calls > 50:
            raise AssertionError("too much")
        return handle(self, event, now)

    monkeypatch.setattr(core.Node, "handle", breaking)
    code, said = run(path, "--show", "none")
    assert code == 0
    assert said[-1].endswith("0 differences; then the core broke, as it did then: too much")
    calls = 20
    code, said = run(path, "--show", "none")
    assert code == 1, "it breaks too early"
    assert "  replayed: too much" in said


def test_an_event_that_killed_the_process_is_taken_in_last(folder, tmp_path, monkeypatch):
    path = rewritten(folder, tmp_path / "x", lambda number, entry: None if number > 100 else entry)
    code, said = run(path, "--show", "none")
    assert code == 0
    assert said[-1].startswith("51 events, ")
    handle = core.Node.handle

    def dying(self, event, now):
        if dying.left == 0:
            raise KeyError("x")
        dying.left -= 1
        return handle(self, event, now)

    dying.left = 50
    monkeypatch.setattr(core.Node, "handle", dying)
    code, said = run(path, "--show", "none")
    assert code == 0
    assert said[-1].endswith("then the core broke, as it did then: KeyError('x')")


def test_broken_invariants_are_found_where_they_begin_or_where_they_were_noticed(folder, tmp_path, monkeypatch):
    def check(self) -> None:
        raise AssertionError("the count is wrong")

    found = rewritten(
        folder, tmp_path / "x", lambda number, entry: flight.Broke("the count is wrong") if number == 20 else entry
    )
    assert run(found, "--show", "none")[0] == 1, "the check holds now"
    monkeypatch.setattr(core.Node, "check", check)
    short = rewritten(
        folder,
        tmp_path / "y",
        lambda number, entry: None if number > 20 else flight.Broke("the count is wrong") if number == 20 else entry,
    )
    code, said = run(short, "--show", "none")
    assert code == 0
    assert said[-1].endswith("as it did then: the count is wrong")
    code, said = run(short, "--show", "none", "--check")
    assert code == 1
    assert said[-2] == "after that event an invariant does not hold: the count is wrong"
    assert said[-1].startswith("1 events")


def test_what_is_no_record_is_said(tmp_path, capsys):
    assert main(["replay", str(tmp_path / "nothing")]) == 2
    assert "No such file" in capsys.readouterr().err
    (tmp_path / "x").write_text("something else")
    assert main(["replay", str(tmp_path / "x")]) == 2
    assert "not a flight record" in capsys.readouterr().err
