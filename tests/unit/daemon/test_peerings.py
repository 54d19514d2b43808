"""How two admins agree through their nodes: offers, acceptances, ends, and everything that is refused on the way."""

import time
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from p2pq.core.abroad import Abroad
from p2pq.core.events import PeeringAsked
from p2pq.core.records import Restored
from p2pq.daemon import peerings as module
from p2pq.daemon.peerings import PeeringDesk
from p2pq.errors import RefusedError
from p2pq.model.ids import Mono, Wall, to_text
from p2pq.wire import peering, trust
from p2pq.wire.control import Note
from p2pq.wire.messages import PeeringKnown
from p2pq.wire.objects import PEER_CAPABILITIES
from p2pq.wire.peercontrol import PeerAccept, PeerEnd, PeeringFile, PeeringsList, PeeringView, PeerOffer
from tests.unit.daemon.linkkit import keys_at

DAY_S = 24 * 3600


def now() -> Wall:
    return Wall(int(time.time() * 1000))


class Lab:
    """The founder of a mesh, what it knows of others, and its desk."""

    def __init__(self, path: Path, name: str, welcome: Mapping[bytes, tuple[str, ...]] | None = None) -> None:
        self.keys = keys_at(path / name, name)
        self.keys.found(f"mesh-{name}", now())
        self.banned: set[bytes] = set()
        links: dict[Any, Any] = {}
        self.abroad = Abroad(
            self.keys.core_identity(), Restored(), dict(welcome or {}), lambda _: now(), links, self.out
        )
        self.asked: list[PeeringAsked] = []
        self.deaf = False
        node = SimpleNamespace(abroad=self.abroad, out=self.out)
        parts: Any = SimpleNamespace(keys=self.keys, node=node, post_durable=self.post)
        self.desk = PeeringDesk(parts, welcome or {})

    @property
    def id(self) -> str:
        return to_text(self.keys.mesh)

    def out(self, cert: Any) -> bool:
        return cert.sub in self.banned

    async def post(self, event: PeeringAsked) -> None:
        self.asked.append(event)
        if not self.deaf:
            self.abroad.heard(self.keys.node, (event.known,), Mono(0.0), [])

    async def ask(self, request: Any) -> list[Any]:
        sent: list[Any] = []

        async def send(reply: Any) -> None:
            sent.append(reply)

        methods = {PeeringsList: "list", PeerOffer: "offer", PeerAccept: "accept", PeerEnd: "end"}
        await getattr(self.desk, methods[type(request)])(request, send)
        return sent

    async def offer(self, to: str, **changes: Any) -> PeeringFile:
        plain: dict[str, Any] = {"ours": PEER_CAPABILITIES, "theirs": ("work",), "life_s": 90 * DAY_S}
        [found] = await self.ask(PeerOffer(mesh=to, **(plain | changes)))
        return found

    async def accept(self, text: str, *, sure: bool = True) -> PeeringFile:
        [found] = await self.ask(PeerAccept(text=text, sure=sure))
        return found

    async def views(self) -> list[PeeringView]:
        return await self.ask(PeeringsList())

    async def refuses(self, request: Any) -> str:
        with pytest.raises(RefusedError) as refused:
            await self.ask(request)
        return str(refused.value)


@pytest.fixture
def labs(tmp_path: Path) -> tuple[Lab, Lab]:
    a = Lab(tmp_path, "a")
    return a, Lab(tmp_path, "b", {a.keys.mesh: ("submit", "work")})


async def test_a_file_goes_there_and_back(labs: tuple[Lab, Lab]) -> None:
    a, b = labs
    offered = await a.offer(b.id.upper(), our_owners=("bob", "ann"))
    assert (offered.peering.state, offered.peering.mesh, offered.peering.name) == ("offered", b.id, "")
    assert (offered.peering.our_owners, a.asked) == (("ann", "bob"), [])
    looked = await b.accept(offered.text, sure=False)
    assert (looked.peering.state, looked.peering.mesh, looked.peering.name) == ("offered", a.id, "mesh-a")
    assert (looked.peering.ours, looked.peering.theirs, looked.text) == (("work",), PEER_CAPABILITIES, "")
    assert b.asked == []
    accepted = await b.accept(offered.text)
    assert (accepted.peering.state, accepted.peering.their_owners) == ("holds", ("ann", "bob"))
    assert (accepted.peering.accept, accepted.peering.offer, accepted.peering.bridge) == (True, True, False)
    looked = await a.accept(accepted.text, sure=False)
    assert (looked.peering.state, looked.peering.name, a.asked) == ("holds", "mesh-b", [])
    taken = await a.accept(accepted.text)
    assert (taken.text, taken.peering.accept) == ("", False)
    assert [view.state for lab in labs for view in await lab.views()] == ["holds", "holds"]
    assert {view.id for lab in labs for view in await lab.views()} == {offered.peering.id}


async def test_what_was_accepted_already_is_not_accepted_anew(
    labs: tuple[Lab, Lab], monkeypatch: pytest.MonkeyPatch
) -> None:
    a, b = labs
    offered = await a.offer(b.id)
    first = await b.accept(offered.text)
    assert (first.already, first.beside) == (False, ())
    monkeypatch.setattr(module, "_wall", lambda: Wall(now() + 5000))
    for text in (offered.text, first.text):
        for sure in (False, True):
            again = await b.accept(text, sure=sure)
            assert (again.already, again.text, again.peering) == (True, first.text, first.peering)
    assert len(b.asked) == 1
    assert [(await a.accept(first.text)).already for _ in range(2)] == [False, True]
    assert (len(a.asked), (await a.accept(first.text, sure=False)).already) == (1, True)
    assert "own offer" in await a.refuses(PeerAccept(text=offered.text, sure=True))


async def test_another_acceptance_of_the_same_offer_is_heard(labs: tuple[Lab, Lab], tmp_path: Path) -> None:
    """Two admins may accept one offer before they hear of each other; the earlier one counts everywhere."""
    a, b = labs
    offered = await a.offer(b.id)
    one = await b.accept(offered.text)
    b.abroad = Abroad(b.keys.core_identity(), Restored(), {}, lambda _: now(), {}, b.out)
    b.desk._p.node.abroad = b.abroad
    other = await b.accept(offered.text)
    assert other.text != one.text
    assert [(await a.accept(each.text)).already for each in (one, other)] == [False, False]
    assert len(a.asked) == 2


async def test_another_peering_with_the_same_mesh_is_named_beside_it(labs: tuple[Lab, Lab]) -> None:
    a, b = labs
    await peered(a, b)
    [first] = await b.views()
    offered = await a.offer(b.id, ours=("submit",))
    looked = await b.accept(offered.text, sure=False)
    accepted = await b.accept(offered.text)
    assert [each.beside for each in (looked, accepted)] == [(first,)] * 2
    assert [view.state for view in await b.views()] == ["holds", "holds"]
    taken = await a.accept(accepted.text)
    assert [each.id for each in taken.beside] == [first.id]
    await b.ask(PeerEnd(which=first.id))
    assert [view.state for view in await b.views()] == ["holds", "ended"]
    assert (await b.accept(offered.text)).beside == (), "what has ended counts no longer"


async def peered(a: Lab, b: Lab, **changes: Any) -> str:
    """Let them peer; return the file."""
    text = (await b.accept((await a.offer(b.id, **changes)).text)).text
    await a.accept(text)
    return text


@pytest.mark.parametrize("by", ["name", "mesh", "peering"])
async def test_either_ends_it_for_good(labs: tuple[Lab, Lab], by: str) -> None:
    a, b = labs
    text = await peered(a, b)
    [view] = await b.views()
    which = {"name": "mesh-a", "mesh": a.id[:8].upper(), "peering": view.id[:8]}[by]
    [note] = await b.ask(PeerEnd(which=which))
    assert isinstance(note, Note)
    assert "The peering with mesh-a ended for good" in note.text
    [view] = await b.views()
    assert (view.state, view.ended != "") == ("ended", True)
    assert "has ended already" in await b.refuses(PeerEnd(which=which))
    assert "was ended on" in await b.refuses(PeerAccept(text=text, sure=True))
    a.abroad.heard(a.keys.node, (b.asked[-1].known,), Mono(0.0), [])
    assert [view.state for view in await a.views()] == ["ended"]


async def test_all_with_a_mesh_end_together(labs: tuple[Lab, Lab]) -> None:
    a, b = labs
    await peered(a, b)
    await peered(b, a)
    [note] = await a.ask(PeerEnd(which="mesh-b"))
    assert "2 peerings with mesh-b" in note.text
    assert [view.state for view in await a.views()] == ["ended", "ended"]


async def test_who_is_no_admin_signs_nothing(labs: tuple[Lab, Lab], tmp_path: Path) -> None:
    a, b = labs
    text = await peered(a, b)
    offered = await b.offer(a.id)
    member = keys_at(tmp_path / "member", "member")
    caps = ("work",)
    chain = a.keys.issue(trust.Subject(node=member.node, name="m", owner="m", caps=caps), now())
    member.adopt(name="mesh-a", root=a.keys.state.root, certs=chain, psks=a.keys.state.psks, wall=now())
    a.desk._p.keys = member
    for request in (
        PeerOffer(mesh=b.id, ours=("work",), theirs=("work",), life_s=60),
        PeerAccept(text=offered.text),
        PeerEnd(which="mesh-b"),
    ):
        assert "not an admin" in await a.refuses(request)
    assert (await a.accept(text)).peering.state == "holds", "what both have signed is for every member to take in"


async def test_what_is_refused_says_what_to_do(labs: tuple[Lab, Lab], tmp_path: Path) -> None:
    a, b = labs
    third = Lab(tmp_path, "c")
    offered, other = await a.offer(b.id), await a.offer(third.id)
    text = (await b.accept(offered.text)).text
    assert "not a mesh's id" in await a.refuses(PeerOffer(mesh="lab", ours=("work",), theirs=("work",), life_s=1))
    assert "with itself" in await a.refuses(PeerOffer(mesh=a.id, ours=("work",), theirs=("work",), life_s=1))
    too_long = PeerOffer(mesh=b.id, ours=("work",), theirs=("work",), life_s=401 * DAY_S)
    assert "bad-peering" in await a.refuses(too_long)
    assert "no offer" in await a.refuses(PeerAccept(text="hello"))
    assert "own offer" in await a.refuses(PeerAccept(text=offered.text))
    assert a.id[:8] not in await b.refuses(PeerAccept(text=other.text))
    assert f"ask for an offer to {b.id}" in await b.refuses(PeerAccept(text=other.text))
    assert "two other meshes" in await third.refuses(PeerAccept(text=text, sure=True))
    file, wrong = peering.from_file(text), peering.from_file(other.text)
    mixed = peering.to_file(wrong.offer, file.accept)
    assert "another mesh than the one that was asked" in await a.refuses(PeerAccept(text=mixed, sure=True))
    again = peering.from_file((await a.offer(b.id)).text)
    assert "another offer" in await a.refuses(PeerAccept(text=peering.to_file(again.offer, file.accept)))
    for which in ("mesh-x", "zzz", a.id[:3]):
        assert "p2pq mesh peers" in await b.refuses(PeerEnd(which=which))


async def test_what_is_over_is_not_taken_in(labs: tuple[Lab, Lab], monkeypatch: pytest.MonkeyPatch) -> None:
    a, b = labs
    offered = await a.offer(b.id, life_s=60)
    text = (await b.accept(offered.text)).text
    monkeypatch.setattr(module, "_wall", lambda: Wall(now() + 3600_000))
    assert "its time is over" in await a.refuses(PeerAccept(text=text, sure=True))
    assert "its time is over" in await b.refuses(PeerAccept(text=offered.text, sure=True))
    assert [view.state for view in await b.views()] == ["expired"]
    monkeypatch.setattr(module, "_wall", lambda: Wall(now() - 3600_000))
    assert "compare the clocks" in await b.refuses(PeerAccept(text=text))


async def test_one_whose_signer_is_banned_is_suspended(labs: tuple[Lab, Lab]) -> None:
    a, b = labs
    await peered(a, b)
    a.banned.add(a.keys.node)
    assert [view.state for view in await a.views()] == ["suspended"]


async def test_doctor_says_where_a_word_of_the_configuration_does_nothing(labs: tuple[Lab, Lab]) -> None:
    a, b = labs
    [finding] = b.desk._p.more_findings()
    assert (finding.ok, a.id[:8] in finding.detail) == (False, True)
    await peered(a, b)
    assert (a.desk._p.more_findings(), b.desk._p.more_findings()) == ([], [])
    await a.ask(PeerEnd(which="mesh-b"))
    b.abroad.heard(b.keys.node, (a.asked[-1].known,), Mono(0.0), [])
    assert len(b.desk._p.more_findings()) == 1


async def test_doctor_says_that_a_peer_is_the_own_mesh(labs: tuple[Lab, Lab]) -> None:
    a, b = labs
    b.desk._welcome = {b.keys.mesh: ("submit",)}
    [finding] = b.desk.findings()
    assert not finding.ok
    assert finding.detail == f"[[peer]] names the mesh {b.id[:8]}, which is this node's own"
    assert "remove that [[peer]] from config.toml" in finding.suggestion
    b.desk._welcome = {a.keys.mesh: ("submit",)}
    [finding] = b.desk.findings()
    assert "no peering with it holds" in finding.detail


async def test_no_two_meshes_have_one_name(labs: tuple[Lab, Lab], tmp_path: Path) -> None:
    a, b = labs
    await peered(a, b)
    twin, namesake = Lab(tmp_path, "twin"), Lab(tmp_path, "namesake")
    for lab, name in ((twin, "mesh-b"), (namesake, "mesh-a")):
        lab.keys.found(name, now())
        lab.abroad = Abroad(lab.keys.core_identity(), Restored(), {}, lambda _: now(), {}, lab.out)
        lab.desk._p.node.abroad = lab.abroad
        offered = await lab.offer(a.id)
        assert "another mesh here that is called" in await a.refuses(PeerAccept(text=offered.text, sure=True))


async def test_a_node_that_has_no_room_says_so(labs: tuple[Lab, Lab]) -> None:
    a, b = labs
    offered = await a.offer(b.id)
    b.deaf = True
    assert "too many peerings" in await b.refuses(PeerAccept(text=offered.text, sure=True))


async def test_two_meshes_that_begin_alike_are_told_apart(
    labs: tuple[Lab, Lab], monkeypatch: pytest.MonkeyPatch
) -> None:
    a, b = labs
    await peered(a, b)
    [opened] = a.abroad.peerings.all()
    twin = SimpleNamespace(name="other", mesh=opened.mesh[:31] + bytes([opened.mesh[31] ^ 1]), id=b"i" * 32)
    monkeypatch.setattr(a.abroad.peerings, "all", lambda: (opened, twin))
    assert "more than one mesh" in await a.refuses(PeerEnd(which=b.id[:10]))


async def test_an_end_that_lost_its_peering_meanwhile_ends_nothing(
    labs: tuple[Lab, Lab], monkeypatch: pytest.MonkeyPatch
) -> None:
    a, b = labs
    await peered(a, b)
    before = len(a.asked)
    monkeypatch.setattr(a.abroad.peerings, "known", lambda _: None)
    await a.ask(PeerEnd(which="mesh-b"))
    assert len(a.asked) == before
    assert isinstance(b.asked[0].known, PeeringKnown)
