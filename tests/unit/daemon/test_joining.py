import asyncio
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from p2pq.core.events import LinkUp
from p2pq.core.reaching import via_address
from p2pq.daemon.identity import NodeKeys
from p2pq.daemon.joining import OPEN_MAX, Invitation, Invitations, Joined, join_mesh, with_port
from p2pq.daemon.views import rfc3339
from p2pq.errors import ConfigError, NodeUnreachableError, RefusedError, UsageError
from p2pq.model.ids import NodeId, Wall
from p2pq.wire import join
from tests.unit.daemon.linkkit import Node, admit, keys_at, wall


class Inviter(Node):
    """A node that serves invitations."""

    def __init__(self, keys: NodeKeys, group: asyncio.TaskGroup, **options: Any) -> None:
        super().__init__(keys, group)
        self.slots: list[str] = []
        self.joined: list[str] = []
        settings: dict[str, Any] = {
            "wall": wall,
            "entropy": os.urandom,
            "admit": self.links.admit,
            "show_slot": self.slots.append,
            "joined": lambda _node, name: self.joined.append(name),
        }
        self.invitations = Invitations(keys, **(settings | options))
        self.links.add_routes(self.invitations.routes())


@asynccontextmanager
async def inviting(keys: NodeKeys, **options: Any) -> AsyncIterator[Inviter]:
    async with asyncio.TaskGroup() as group:
        inviter = Inviter(keys, group, **options)
        await inviter.links.start()
        try:
            yield inviter
        finally:
            inviter.invitations.close()
            await inviter.links.close()


async def nobody(_slot: str, _timeout: float) -> tuple[str, ...]:
    return ()


async def enter(
    keys: NodeKeys, code: str, at: str = "", find: Any = nobody, clock: Callable[[], Wall] = wall
) -> Joined:
    async with aiohttp.ClientSession() as http, asyncio.timeout(10):
        return await join_mesh(keys, http, code, at=at, find=find, wall=clock, entropy=os.urandom)


def wrong(invitation: Invitation) -> str:
    """Return a code with the same slot and another secret."""
    other = "2222-2222" if invitation.code.secret != "22222222" else "3333-3333"
    return f"{invitation.code.slot}-{other}"


async def test_a_code_lets_one_in(tmp_path: Path) -> None:
    a, b = keys_at(tmp_path / "a", "hub"), keys_at(tmp_path / "b", "ant")
    told = tuple(f"10.0.0.{number}:9476" for number in range(1, 30))
    async with inviting(a, peers=lambda: (*told, "8.8.8.8:9476", "10.0.0.1:22")) as hub:
        opened = hub.invitations.invite(("work", "submit"), owner="lab")
        assert hub.slots == [opened.code.slot]
        joined = await enter(b, opened.code.text.lower(), at=hub.address)
        assert (joined.name, joined.owner, joined.caps) == ("ant", "lab", ("submit", "work"))
        assert joined.inviter == hub.address
        assert joined.peers == told
        assert b.mesh == a.mesh
        assert keys_at(tmp_path / "b").mesh == a.mesh  # it is durable
        assert hub.joined == ["ant"]
        assert hub.slots[-1] == ""
        assert not hub.invitations.open_invitations()
        async with asyncio.TaskGroup() as group:
            ant = Node(b, group)
            await ant.links.start()
            ant.links.dial(hub.address)
            assert (await ant.event(LinkUp)).peer == a.node
            await ant.links.close()


async def test_who_is_linked_over_a_bridge_is_told_to_no_joiner(tmp_path: Path) -> None:
    a, b = keys_at(tmp_path / "a", "hub"), keys_at(tmp_path / "b", "ant")
    behind = via_address(NodeId(b"b" * 32), NodeId(b"n" * 32))
    async with inviting(a, peers=lambda: (*[behind] * 64, "10.0.0.1:9476")) as hub:
        joined = await enter(b, hub.invitations.invite(("work",)).code.text, at=hub.address)
        assert joined.peers == ("10.0.0.1:9476",)


async def test_a_found_inviter(tmp_path: Path) -> None:
    a, b = keys_at(tmp_path / "a", "hub"), keys_at(tmp_path / "b", "ant")
    async with inviting(a) as hub:
        opened = hub.invitations.invite(("work",))

        async def find(slot: str, _timeout: float) -> tuple[str, ...]:
            return ("127.0.0.1:1", hub.address) if slot == opened.code.slot else ()

        assert (await enter(b, opened.code.text, find=find)).caps == ("work",)


async def test_a_wrong_code_three_times_burns_it(tmp_path: Path) -> None:
    a, b = keys_at(tmp_path / "a", "hub"), keys_at(tmp_path / "b", "ant")
    async with inviting(a) as hub:
        opened = hub.invitations.invite(("work",), uses=5)
        for _ in range(3):
            assert hub.invitations.open_invitations() == (opened,)
            with pytest.raises(RefusedError, match="code is wrong"):
                await enter(b, wrong(opened), at=hub.address)
        assert not hub.invitations.open_invitations()
        with pytest.raises(RefusedError, match="no open invitation"):
            await enter(b, opened.code.text, at=hub.address)
    assert b.solo


async def test_guesses_at_the_same_time_are_three_at_most(tmp_path: Path) -> None:
    a = keys_at(tmp_path / "a", "hub")
    joiners = [keys_at(tmp_path / f"b{i}", f"b{i}") for i in range(6)]
    async with inviting(a) as hub:
        opened = hub.invitations.invite(("work",))
        seen: list[str] = []

        async def guess(keys: NodeKeys) -> None:
            with pytest.raises(RefusedError) as refused:
                await enter(keys, wrong(opened), at=hub.address)
            seen.append(str(refused.value))

        async with asyncio.TaskGroup() as group:
            for keys in joiners:
                group.create_task(guess(keys))
        assert opened.failures == 3
        assert sum("code is wrong" in each for each in seen) == 3
        assert sum("no open invitation" in each for each in seen) == 3


async def test_a_used_and_an_expired_code(tmp_path: Path) -> None:
    a, b, c = (keys_at(tmp_path / x, x) for x in "abc")
    async with inviting(a) as hub:
        opened = hub.invitations.invite(("work",))
        await enter(b, opened.code.text, at=hub.address)
        with pytest.raises(RefusedError, match="was used, has expired"):
            await enter(c, opened.code.text, at=hub.address)
        late = hub.invitations.invite(("work",), ttl_s=1)
        late.timer.cancel()  # type: ignore[union-attr]
        hub.invitations._end(late)
        with pytest.raises(RefusedError, match="was used, has expired"):
            await enter(c, late.code.text, at=hub.address)


async def test_an_invitation_ends_by_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with inviting(keys_at(tmp_path / "a")) as hub:
        ended = asyncio.Event()
        monkeypatch.setattr(hub.invitations, "_show_slot", lambda slot: None if slot else ended.set())
        loop = asyncio.get_running_loop()
        monkeypatch.setattr(loop, "call_later", lambda _delay, *call: loop.call_soon(*call))
        hub.invitations.invite(("work",), ttl_s=600)
        monkeypatch.undo()
        await asyncio.sleep(0)
        assert not hub.invitations.open_invitations()


async def test_two_joiners_race_for_one_use(tmp_path: Path) -> None:
    a, b, c = (keys_at(tmp_path / x, x) for x in "abc")
    async with inviting(a) as hub:
        opened = hub.invitations.invite(("work",))
        got: list[Joined | Exception] = []

        async def race(keys: NodeKeys) -> None:
            try:
                got.append(await enter(keys, opened.code.text, at=hub.address))
            except RefusedError as error:
                got.append(error)

        async with asyncio.TaskGroup() as group:
            group.create_task(race(b))
            group.create_task(race(c))
        assert sorted(type(each).__name__ for each in got) == ["Joined", "RefusedError"]
        assert a.state.issued == 1


async def test_several_uses_and_equal_names(tmp_path: Path) -> None:
    a, b, c = keys_at(tmp_path / "a", "box"), keys_at(tmp_path / "b", "box"), keys_at(tmp_path / "c", "box")
    async with inviting(a) as hub:
        opened = hub.invitations.invite(("work",), uses=2)
        assert (await enter(b, opened.code.text, at=hub.address)).name == "box-2"
        assert (await enter(c, opened.code.text, at=hub.address)).name == "box-3"


async def test_who_joins_again_keeps_its_name_and_nobody_else_gets_it(tmp_path: Path) -> None:
    a, b, c = keys_at(tmp_path / "a", "hub"), keys_at(tmp_path / "b", "box"), keys_at(tmp_path / "c", "box")
    known = {b.node: "box"}
    async with inviting(
        a, names=lambda joiner: frozenset(name for node, name in known.items() if node != joiner)
    ) as hub:
        opened = hub.invitations.invite(("work",), uses=2)
        assert (await enter(b, opened.code.text, at=hub.address)).name == "box"
        b.found("elsewhere", wall())
        again = hub.invitations.invite(("work", "bridge"), uses=2)
        joined = await enter(b, again.code.text, at=hub.address)
        assert (joined.name, joined.caps) == ("box", ("bridge", "work"))
        known.clear()
        assert (await enter(c, again.code.text, at=hub.address)).name == "box-2"  # given a moment ago, if not known yet


async def test_a_lost_answer_may_be_asked_for_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    a, b = keys_at(tmp_path / "a", "hub"), keys_at(tmp_path / "b", "ant")
    async with inviting(a) as hub:
        opened = hub.invitations.invite(("work",), uses=2)
        with monkeypatch.context() as patch:
            patch.setattr(b, "adopt", lambda **_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
            with pytest.raises(NodeUnreachableError):
                await enter(b, opened.code.text, at=hub.address)
        assert b.solo
        await enter(b, opened.code.text, at=hub.address)
        assert a.state.issued == 1
        assert opened.uses == 1


async def test_the_banned_do_not_join(tmp_path: Path) -> None:
    a, b = keys_at(tmp_path / "a", "hub"), keys_at(tmp_path / "b", "ant")
    async with inviting(a, is_banned=lambda who, owner: (who, owner) == (b.node, a.cert.owner)) as hub:
        opened = hub.invitations.invite(("work",))
        with pytest.raises(RefusedError, match="banned"):
            await enter(b, opened.code.text, at=hub.address)
        with pytest.raises(RefusedError, match="said no"):
            await enter(keys_at(tmp_path / "a"), opened.code.text, at=hub.address)
        assert opened.uses == 1
    assert b.solo


async def test_clocks_that_differ(tmp_path: Path) -> None:
    a, b = keys_at(tmp_path / "a", "hub"), keys_at(tmp_path / "b", "ant")
    async with inviting(a) as hub:
        opened = hub.invitations.invite(("work",))
        with pytest.raises(RefusedError, match="clocks"):
            await enter(b, opened.code.text, at=hub.address, clock=lambda: Wall(wall() + 24 * 3600 * 1000))
        assert opened.uses == 1


async def test_who_may_invite_and_for_what(tmp_path: Path) -> None:
    a, b, c = (keys_at(tmp_path / x, x) for x in "abc")
    admit(a, b)
    admit(a, c, caps=("admin", "submit", "work"))
    async with inviting(a) as founder, inviting(b) as member, inviting(c) as admin:
        with pytest.raises(RefusedError, match=r"not an admin.*`p2pq members`"):
            member.invitations.invite(("work",))
        with pytest.raises(RefusedError, match=r"only the founder.*reach it directly"):
            admin.invitations.invite(("admin",))
        for call in (
            lambda: founder.invitations.invite(("fly",)),
            lambda: founder.invitations.invite(("work",), ttl_s=0),
            lambda: founder.invitations.invite(("work",), uses=0),
            lambda: founder.invitations.invite(("work",), owner="a\nb"),
        ):
            with pytest.raises(ConfigError):
                call()
        for number in range(OPEN_MAX):
            founder.invitations.invite(("work",), ttl_s=900 - 100 * number)
        assert len({each.code.slot for each in founder.invitations.open_invitations()}) == OPEN_MAX
        first = rfc3339(founder.invitations.open_invitations()[-1].expires)
        with pytest.raises(RefusedError, match=f"4 invitations are open, .* the next expires at {first}, in 10 min"):
            founder.invitations.invite(("work",))
        assert "secret" not in repr(founder.invitations.open_invitations())
        code = founder.invitations.open_invitations()[0].code
        assert code.secret not in repr(founder.invitations.open_invitations())


async def test_who_has_a_mesh_does_not_join_another(tmp_path: Path) -> None:
    a, b = keys_at(tmp_path / "a"), keys_at(tmp_path / "b")
    admit(a, b)
    for keys in (a, b):
        with pytest.raises(RefusedError, match="other members"):
            await enter(keys, "4T-K7QX-93FD")
    with pytest.raises(UsageError):
        await enter(keys_at(tmp_path / "c"), "nonsense")


async def test_nobody_invites(tmp_path: Path) -> None:
    keys = keys_at(tmp_path / "a")
    with pytest.raises(NodeUnreachableError, match=r"--at HOST:PORT.*not over a bridge"):
        await enter(keys, "4T-K7QX-93FD")
    with pytest.raises(NodeUnreachableError, match=r"no node listens.*not over a bridge"):
        await enter(keys, "4T-K7QX-93FD", at="127.0.0.1:1")


async def test_rogue_inviters_with_the_same_slot_get_three_guesses(tmp_path: Path) -> None:
    """H31: each stranger that shows the slot may guess once; after three the joiner stops."""
    a, b = keys_at(tmp_path / "a"), keys_at(tmp_path / "b")
    async with inviting(a) as hub:
        rogue = hub.invitations.invite(("work",), uses=9)
        code = wrong(rogue)
        tries: list[str] = []
        real = hub.invitations._exchange

        async def counted(stream: web.WebSocketResponse, request: web.Request) -> None:
            tries.append(request.path)
            rogue.failures = 0
            rogue.guesses.release()
            await real(stream, request)

        hub.invitations._exchange = counted  # type: ignore[method-assign]

        async def find(_slot: str, _timeout: float) -> tuple[str, ...]:
            return (hub.address,) * 6

        with pytest.raises(RefusedError, match="code is wrong"):
            await enter(b, code, find=find)
        assert len(tries) == 3
    assert b.solo


async def test_noise_on_the_join_path(tmp_path: Path) -> None:
    async with inviting(keys_at(tmp_path / "a")) as hub, aiohttp.ClientSession() as http:
        opened = hub.invitations.invite(("work",))
        url = f"http://{hub.address}/p2pq/1/join"
        async with http.get(url) as answer:
            assert answer.status == 400
        for first in (b"", b"x", b"??" + bytes(33), opened.code.slot.encode() + bytes(33), b"x" * 5000):
            async with http.ws_connect(url) as stream:
                await stream.send_bytes(first)
                assert (await stream.receive()).type in (aiohttp.WSMsgType.CLOSE, aiohttp.WSMsgType.CLOSED)
        async with http.ws_connect(url) as stream:
            await stream.send_str("hello")
            assert (await stream.receive()).type is aiohttp.WSMsgType.CLOSE
        assert opened.failures == 0
        assert hub.invitations.open_invitations() == (opened,)


@pytest.mark.parametrize(
    ("text", "full"),
    [
        ("10.0.0.1", "10.0.0.1:9476"),
        ("10.0.0.1:80", "10.0.0.1:80"),
        ("host", "host:9476"),
        ("host:1234", "host:1234"),
        ("fd00::1", "[fd00::1]:9476"),
        ("[fd00::1]", "[fd00::1]:9476"),
        ("[fd00::1]:5000", "[fd00::1]:5000"),
    ],
)
def test_the_default_port(text: str, full: str) -> None:
    assert with_port(text) == full


def test_codes_are_crockford() -> None:
    assert join.parse_code(join.new_code(os.urandom).text)
