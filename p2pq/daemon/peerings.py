"""The local API's requests about other meshes: which there are, and how two admins agree by handing each other a file."""

import os
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Final, Literal

from p2pq.core.events import PeeringAsked
from p2pq.daemon.admin import Parts
from p2pq.daemon.views import rfc3339
from p2pq.errors import RefusedError, Reject
from p2pq.model.ids import MESH_ID_BYTES, Wall, from_text, plain, short, to_text
from p2pq.wire import peering, sign, trust
from p2pq.wire.control import Finding, Note, Reply
from p2pq.wire.messages import PeeringKnown
from p2pq.wire.objects import PEER_OWNERS_MAX, Peering, PeerSide
from p2pq.wire.peercontrol import PeerAccept, PeerEnd, PeeringFile, PeeringsList, PeeringView, PeerOffer
from p2pq.wire.peering import Opened

Send = Callable[[Reply], Awaitable[None]]
State = Literal["offered", "holds", "ended", "expired", "suspended"]

KEY_BYTES: Final = 32
PREFIX_CHARS_MIN: Final = 4

SENTENCES: Final[dict[str, str]] = {
    peering.NO_FILE: "that is no offer or peering; hand over what `p2pq mesh peer offer` or `accept` printed, whole",
    peering.SAME_MESH: "a mesh cannot peer with itself; give the id that `p2pq mesh` shows on a node of the other one",
    peering.NOT_ASKED: "another mesh than the one that was asked has accepted this offer; nothing was changed",
    peering.OTHER_OFFER: "the acceptance in this file is of another offer; nothing was changed",
    peering.NOT_OURS: "this is a peering between two other meshes; nothing was changed",
    peering.OVER: "its time is over; make a new offer with `p2pq mesh peer offer`",
    trust.NOT_YET_VALID: "it was signed later than this machine's clock says it is; compare the clocks of both machines",
}


class PeeringDesk:
    """Answers requests about other meshes. Use it from the event loop's thread only."""

    def __init__(self, parts: Parts, welcome: Mapping[bytes, tuple[str, ...]]) -> None:
        """Take the running node's parts, and what its configuration lets other meshes do."""
        self._p = parts
        self._welcome = welcome
        parts.more_findings = self.findings

    def findings(self) -> list[Finding]:
        """Return, for doctor, which [[peer]] do nothing: no peering holds with that mesh, or it is the own one."""
        now, abroad = _wall(), self._p.node.abroad
        held = {each.mesh for each in self._all() if abroad.peerings.holds(each.id, now, self._p.node.out)}
        own = ("which is this node's own", "remove that [[peer]] from config.toml; members need none")
        none = ("but no peering with it holds", "see `p2pq mesh peers`; an admin makes one with `p2pq mesh peer offer`")
        found = [(mesh, own if mesh == self._p.keys.mesh else none) for mesh in self._welcome if mesh not in held]
        return [
            Finding(
                check="other mesh",
                ok=False,
                detail=f"[[peer]] names the mesh {short(mesh)}, {what}",
                suggestion=todo,
            )
            for mesh, (what, todo) in found
        ]

    async def list(self, _request: PeeringsList, send: Send) -> None:
        """Answer ``PeeringsList``."""
        for opened in sorted(self._all(), key=lambda each: each.at, reverse=True):
            await send(self._view(opened))

    async def offer(self, request: PeerOffer, send: Send) -> None:
        """Answer ``PeerOffer``."""
        keys, now = self._p.keys, _wall()
        self._check_admin()
        to = _mesh_id(request.mesh)
        try:
            raw = peering.offer(
                keys.key,
                keys.state.certs,
                keys.state.root,
                name=keys.state.name,
                to=to,
                ours=PeerSide(caps=request.ours, owners=request.our_owners),
                theirs=PeerSide(caps=request.theirs, owners=request.their_owners),
                key=os.urandom(KEY_BYTES),
                at=now,
                exp=Wall(now + request.life_s * 1000),
            )
        except Reject as reject:
            sentence = SENTENCES.get(reject.reason) or (
                f"no such offer can be made ({reject.reason}): name at most {PEER_OWNERS_MAX} owners of each mesh, "
                "as they are called in `p2pq members`, and a time of at most a year"
            )
            raise RefusedError(sentence) from reject
        terms = peering.open_offer(raw, now)
        await send(PeeringFile(peering=self._offered(raw, terms, ours=True), text=peering.to_file(raw)))

    async def accept(self, request: PeerAccept, send: Send) -> None:
        """Answer ``PeerAccept``: countersign an offer to this mesh, or take in an offer of this mesh that was accepted."""
        now, keys = _wall(), self._p.keys
        try:
            file = peering.from_file(request.text)
            terms = peering.open_offer(file.offer, now)
            if (before := self._accepted(file, terms)) is not None:
                await send(before)
                return
            if file.accept:
                opened = peering.open_known(PeeringKnown(file.offer, file.accept), keys.state.root, now)
                await self._take_in(request, opened, PeeringKnown(file.offer, file.accept), send)
                return
            if terms.to != keys.mesh:
                raise RefusedError(self._not_to_us(terms))
            self._check_admin()
            if not request.sure:
                looked = self._offered(file.offer, terms, ours=False)
                await send(PeeringFile(peering=looked, beside=self._beside(looked)))
                return
            word = peering.accept(keys.key, keys.state.certs, keys.state.root, file.offer, name=keys.state.name, at=now)
            known = PeeringKnown(file.offer, word)
            opened = peering.open_known(known, keys.state.root, now)
        except Reject as reject:
            raise _refused(reject) from reject
        await self._take_in(request, opened, known, send, text=peering.to_file(file.offer, word))

    async def _take_in(
        self, request: PeerAccept, opened: Opened, known: PeeringKnown, send: Send, text: str = ""
    ) -> None:
        if request.sure:
            if _wall() > opened.exp:
                raise RefusedError(SENTENCES[peering.OVER])
            self._check_name(opened)
            found = self._p.node.abroad.peerings.get(opened.id)
            if found is not None and found.ended is not None:
                raise RefusedError(
                    f"this peering with {opened.name} was ended on {rfc3339(found.ended)}, for good; make a new offer"
                )
            await self._p.post_durable(PeeringAsked(known=known))
            if self._p.node.abroad.peerings.get(opened.id) is None:
                raise RefusedError("this mesh has too many peerings already; see `p2pq mesh peers`")
        view = self._view(self._p.node.abroad.peerings.get(opened.id) or opened)
        await send(PeeringFile(peering=view, text=text, beside=self._beside(view)))

    def _accepted(self, file: peering.File, terms: Peering) -> PeeringFile | None:
        """Return the answer to a file that says nothing new: a peering that holds here, accepted by that word or before."""
        peerings, ident = self._p.node.abroad.peerings, sign.digest(file.offer)
        known, opened = peerings.known(ident), peerings.get(ident)
        if known is None or opened is None or self._state(opened) != "holds":
            return None
        here = terms.to == self._p.keys.mesh
        if (file.accept or (known.accept if here else b"")) != known.accept:
            return None
        view = self._view(opened)
        text = peering.to_file(known.offer, known.accept) if here else ""
        return PeeringFile(peering=view, text=text, already=True, beside=self._beside(view))

    def _beside(self, view: PeeringView) -> tuple[PeeringView, ...]:
        """Return the other peerings with the same mesh that hold."""
        views = [self._view(each) for each in sorted(self._all(), key=lambda each: each.at)]
        return tuple(each for each in views if each.mesh == view.mesh and each.id != view.id and each.state == "holds")

    async def end(self, request: PeerEnd, send: Send) -> None:
        """Answer ``PeerEnd``."""
        self._check_admin()
        keys, peerings = self._p.keys, self._p.node.abroad.peerings
        live = [each for each in self._find(request.which) if each.ended is None]
        if not live:
            raise RefusedError(f"the peering with {request.which} has ended already")
        for opened in live:
            known = peerings.known(opened.id)
            if known is not None:
                at = Wall(max(_wall(), opened.at))
                word = peering.end(keys.key, keys.state.certs, keys.state.root, opened.id, at=at)
                await self._p.post_durable(PeeringAsked(known=PeeringKnown(known.offer, known.accept, word)))
        count = "The peering" if len(live) == 1 else f"{len(live)} peerings"
        await send(
            Note(
                text=f"{count} with {live[0].name} ended for good, here and on every node that hears of it. "
                "Tasks of its owners were stopped; a new one begins with `p2pq mesh peer offer`."
            )
        )

    # -- small things -----------------------------------------------------------------------------------------------------

    def _all(self) -> tuple[Opened, ...]:
        return self._p.node.abroad.peerings.all()

    def _find(self, which: str) -> tuple[Opened, ...]:
        wanted = plain(which)
        found = [each for each in self._all() if each.name == which]
        if not found and len(wanted) >= PREFIX_CHARS_MIN:
            found = [
                each
                for each in self._all()
                if to_text(each.mesh).startswith(wanted) or to_text(each.id).startswith(wanted)
            ]
        if not found:
            raise RefusedError(f"no peering with {which!r} is known here; see `p2pq mesh peers`")
        if len({each.mesh for each in found}) > 1:
            raise RefusedError(f"{which!r} could be more than one mesh; use the id, see `p2pq mesh peers`")
        return tuple(found)

    def _check_admin(self) -> None:
        if not self._p.keys.admin:
            raise RefusedError("this node is not an admin of its mesh; do that on the one that founded it")

    def _check_name(self, opened: Opened) -> None:
        """Owners abroad are told apart by the name of their mesh, so no two meshes known here have one name."""
        same = [each for each in self._all() if each.name == opened.name and each.mesh != opened.mesh]
        if opened.name == self._p.keys.state.name or same:
            raise RefusedError(
                f"there is another mesh here that is called {opened.name!r}, and people could not tell their owners apart; "
                "one of them has to be founded anew under another name"
            )

    def _not_to_us(self, terms: Peering) -> str:
        keys = self._p.keys
        if terms.mesh == keys.mesh:
            return "this is this mesh's own offer; hand it to an admin of the other mesh, who accepts it there"
        return (
            f"this offer is to the mesh {short(terms.to)}, and this one is {short(keys.mesh)}; "
            f"ask for an offer to {to_text(keys.mesh)}"
        )

    def _offered(self, raw: bytes, terms: Peering, *, ours: bool) -> PeeringView:
        """Show an offer as the side sees it that looks at it; the other mesh's name is not known before it accepts."""
        other = terms.to if ours else terms.mesh
        sides = (terms.ours, terms.theirs) if ours else (terms.theirs, terms.ours)
        return self._shown(
            sign.digest(raw), other, "" if ours else terms.name, "offered", sides, (terms.at, terms.exp), None
        )

    def _view(self, opened: Opened) -> PeeringView:
        sides, times = (opened.ours, opened.theirs), (opened.at, opened.exp)
        return self._shown(opened.id, opened.mesh, opened.name, self._state(opened), sides, times, opened.ended)

    def _state(self, opened: Opened) -> State:
        now = _wall()
        if opened.ended is not None:
            return "ended"
        if now > opened.exp:
            return "expired"
        peerings = self._p.node.abroad.peerings
        known = peerings.get(opened.id) is not None
        return "holds" if not known or peerings.holds(opened.id, now, self._p.node.out) else "suspended"

    def _shown(  # noqa: PLR0913, PLR0917  each is a different fact
        self,
        ident: bytes,
        mesh: bytes,
        name: str,
        state: State,
        sides: tuple[PeerSide, PeerSide],
        times: tuple[int, int],
        ended: Wall | None,
    ) -> PeeringView:
        welcome = self._welcome.get(mesh, ())
        return PeeringView(
            id=to_text(ident),
            mesh=to_text(mesh),
            name=name,
            state=state,
            ours=sides[0].caps,
            theirs=sides[1].caps,
            our_owners=sides[0].owners,
            their_owners=sides[1].owners,
            since=rfc3339(Wall(times[0])),
            until=rfc3339(Wall(times[1])),
            ended="" if ended is None else rfc3339(ended),
            accept="submit" in welcome,
            offer="work" in welcome,
            bridge="bridge" in welcome,
        )


def _mesh_id(text: str) -> bytes:
    try:
        return from_text(text, MESH_ID_BYTES)
    except Reject as reject:
        raise RefusedError(
            f"{text!r} is not a mesh's id; ask for the whole one that `p2pq mesh` shows on a node of the other mesh"
        ) from reject


def _refused(reject: Reject) -> RefusedError:
    sentence = SENTENCES.get(reject.reason)
    return RefusedError(
        sentence or f"what the other mesh's admin signed does not hold ({reject.reason}); ask for it again"
    )


def _wall() -> Wall:
    return Wall(int(time.time() * 1000))
