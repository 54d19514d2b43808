"""The local API's requests about the node and its mesh: status, peers, members, invite, join, ban, doctor, stop."""

import logging
import os
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Final, Literal

from p2pq import __version__
from p2pq.core.events import BanAsked, Event, MeshKeyAsked, OwnerBanAsked
from p2pq.core.kept import KEPT_BYTES_MAX, KEPT_MAX, KeptFor
from p2pq.core.node import Node
from p2pq.core.views import PeerView as CorePeer
from p2pq.daemon import netinfo
from p2pq.daemon.blobstore import BlobStore
from p2pq.daemon.dialing import ALREADY
from p2pq.daemon.discovery import Discovery
from p2pq.daemon.environments import Environments
from p2pq.daemon.home import Home
from p2pq.daemon.identity import NodeKeys
from p2pq.daemon.joining import Invitations, join_mesh
from p2pq.daemon.links import Links
from p2pq.daemon.peerfindings import of_peers
from p2pq.daemon.scheduler import Scheduler
from p2pq.daemon.selftest import IsolationReport
from p2pq.daemon.store import Store
from p2pq.daemon.views import policy_view, rfc3339, spoken_view
from p2pq.errors import RefusedError
from p2pq.model.ids import Mono, Wall, short, to_text
from p2pq.wire import control, prims, session
from p2pq.wire.control import (
    Finding,
    InviteView,
    MemberView,
    MeshView,
    Note,
    PeerView,
    Reply,
)
from p2pq.wire.parts import KeptLimits, KeptView, RunningView

log = logging.getLogger(__name__)

Send = Callable[[Reply], Awaitable[None]]

SKEW_MS_MAX: Final = 5_000
CERT_SOON_MS: Final = 30 * 24 * 3600 * 1000
DAY_S: Final = 24 * 3600
MARK_BYTES: Final = 4
NEARLY: Final = 0.8
"""Of a limit of kept results: from here on doctor says so."""


@dataclass(slots=True)
class Parts:
    """The running node's parts, as the requests need them."""

    home: Home
    keys: NodeKeys
    node: Node
    links: Links
    discovery: Discovery | None
    invitations: Invitations
    scheduler: Scheduler
    store: Store
    blobs: BlobStore
    environments: Environments
    counters: Counter[str]
    carried: Counter[str]
    """Bytes of blobs, by where they came from and went."""
    mono: Callable[[], Mono]
    post_durable: Callable[[Event], Awaitable[object]]
    restart: Callable[[tuple[str, ...], tuple[bytes, ...]], Awaitable[None]]
    """Begin anew in the mesh that the keys now name, with these addresses to try and these bans."""
    stop: Callable[[bool], None]
    keep_days: int
    """So long results are kept for an absent master."""
    bridge: bool = False
    """It is to carry links between peers, whether its certificate lets it or not."""
    batch: bool = False
    """... and to speak for its leaves."""
    held: Callable[[str], AbstractContextManager[object]] = nullcontext
    """Takes no submission while it is open; says why."""
    isolation: IsolationReport | None = None
    """What the self-test proved; None until it has run."""
    duplicate: str = ""
    """A sentence, if another node with this node's key was met."""
    owner_findings: Callable[[], list[Finding]] = list
    """What there is to say of sensors."""
    more_findings: Callable[[], list[Finding]] = list
    """What other parts have for doctor."""


class Admin:
    """Answers requests about the node. Use it from the event loop's thread only."""

    def __init__(self, parts: Parts) -> None:
        """Take the parts."""
        self._p = parts

    # ------------------------------------------------------------------ looking

    async def status(self, _request: control.Status, send: Send) -> None:
        """Answer ``Status``."""
        p = self._p
        policy = p.node.policy()
        now = p.mono()
        name_of = p.scheduler.name_of
        running = tuple(
            RunningView(
                job=to_text(guest.job),
                task=guest.task,
                owner=guest.owner,
                node=name_of(guest.master),
                seconds=round(guest.since_s, 1),
                own=guest.own,
                state=guest.state,
                progress=None if guest.progress < 0 else guest.progress / 1000,
            )
            for guest in p.node.guests(now)
            if guest.state != "waiting"
        )
        isolation = p.isolation
        await send(
            control.StatusView(
                id=to_text(p.keys.node),
                name=p.keys.cert.name,
                mesh=p.keys.state.name,
                version=__version__,
                address=next(iter(p.links.addresses), f"127.0.0.1:{p.links.port}"),
                slots=policy.slots,
                free=policy.free,
                policy=policy_view(policy),
                running=running,
                peers=sum(peer.state == "up" for peer in p.node.peers(now)),
                queued=sum(job.pending for job in p.node.jobs()),
                sandbox="unknown" if isolation is None else isolation.level,
                sandbox_reason="" if isolation is None or isolation.level == "strict" else isolation.reason,
                kept_results=sum(each.results for each in policy.kept),
                kept=tuple(map(self._kept_view, policy.kept)),
                kept_limits=KeptLimits(results=KEPT_MAX, bytes=KEPT_BYTES_MAX, days=p.keep_days),
                owner=p.keys.cert.owner,
                counters={
                    **p.counters,
                    **{f"link.{key}": count for key, count in p.links.counters.items()},
                    **{f"blobs.{key}": count for key, count in p.carried.items()},
                },
                bridging=self._bridging()[0],
                bridge=tuple(spoken_view(each, name_of) for each in p.node.spoken()),
                disk={
                    "blobs_bytes": p.blobs.used_bytes,
                    "blobs": len(p.blobs),
                    "environments_bytes": p.environments.used_bytes,
                    "environments": len(p.environments),
                },
                home=str(p.home.path),
                pid=os.getpid(),
            )
        )

    def _kept_view(self, kept: KeptFor) -> KeptView:
        return KeptView(
            owner=kept.owner,
            node=self._p.scheduler.name_of(kept.master),
            results=kept.results,
            bytes=kept.bytes,
            oldest_s=max(0.0, (_wall() - kept.since) / 1000),
            full=kept.full,
        )

    async def peers(self, _request: control.PeersList, send: Send) -> None:
        """Answer ``PeersList``."""
        for peer in self._p.node.peers(self._p.mono()):
            if peer.id is not None or peer.reason != ALREADY:  # else a further address of a node that has its own line
                await send(self._peer(peer))

    def _peer(self, peer: CorePeer) -> PeerView:
        p = self._p
        rtt = None if peer.id is None else p.links.rtt(peer.id)
        return PeerView(
            id="" if peer.id is None else to_text(peer.id),
            name=peer.name or ("" if peer.id is None else p.scheduler.name_of(peer.id)),
            address=peer.address,
            state=peer.state,
            rtt_ms=None if rtt is None else round(rtt * 1000, 3),
            slots=peer.slots if peer.state == "up" else None,
            free=peer.free if peer.state == "up" else None,
            has_work=peer.has_work,
            mesh=peer.realm or (p.keys.state.name if peer.state == "up" else ""),
            via=tuple(map(p.scheduler.name_of, peer.path)),
            owner=peer.owner,
            reason=peer.reason or ("" if peer.profile is None else peer.profile.reason),
        )

    async def members(self, _request: control.Members, send: Send) -> None:
        """Answer ``Members``: this node and everyone it has met."""
        p = self._p
        cert = p.keys.cert
        await send(
            MemberView(
                id=to_text(cert.sub),
                name=cert.name,
                owner=cert.owner,
                caps=cert.caps,
                expires=rfc3339(cert.exp),
                state="self",
            )
        )
        for peer in p.node.peers(p.mono()):
            if peer.id is None or peer.realm:
                continue
            info = p.links.info(peer.id)
            state: Literal["up", "down", "banned"] = "up" if peer.state == "up" else "down"
            await send(
                MemberView(
                    id=to_text(peer.id),
                    name=peer.name,
                    owner=peer.owner,
                    caps=peer.caps,
                    expires="" if info is None else rfc3339(info.cert_expires),
                    state="banned" if p.node.banned(peer.id, peer.owner) else state,
                )
            )

    async def mesh(self, _request: control.Mesh, send: Send) -> None:
        """Answer ``Mesh``."""
        await send(self._mesh_view())

    def _mesh_view(self) -> MeshView:
        keys = self._p.keys
        known = sum(peer.id is not None and not peer.realm for peer in self._p.node.peers(self._p.mono()))
        return MeshView(
            id=to_text(keys.mesh),
            name=keys.state.name,
            founder=keys.founder,
            caps=keys.cert.caps,
            owner=keys.cert.owner,
            members=known + 1,
            solo=keys.solo,
            key=prims.derive(self._p.node.mesh_keys.psks[0], b"", "p2pq-mark", size=MARK_BYTES).hex(),
        )

    # ------------------------------------------------------------------ changing

    async def mesh_init(self, request: control.MeshInit, send: Send) -> None:
        """Answer ``MeshInit``: a new mesh; the node begins anew in it."""
        with self._p.held("founding another mesh"):
            self._refuse_live_jobs("founding another mesh")
            self._p.keys.found(request.name, _wall())
            await self._p.restart((), ())
        await send(self._mesh_view())

    async def invite(self, request: control.Invite, send: Send) -> None:
        """Answer ``Invite``."""
        p = self._p
        caps = tuple(sorted(set(request.caps)))
        invitation = p.invitations.invite(caps, request.owner, request.ttl_s, request.uses)
        await send(
            InviteView(
                code=invitation.code.text,
                owner=invitation.owner,
                caps=invitation.caps,
                expires=rfc3339(invitation.expires),
                uses=request.uses,
                addresses=p.links.addresses,
            )
        )

    async def join(self, request: control.Join, send: Send) -> None:
        """Answer ``Join``: by code, into another mesh; the node begins anew in it."""
        p = self._p
        p.keys.check_may_join()
        with p.held("joining another mesh"):
            self._refuse_live_jobs("joining another mesh")
            joined = await join_mesh(
                p.keys,
                p.links.http,
                request.code,
                at=request.at,
                find=_nobody if p.discovery is None else p.discovery.find_inviter,
                wall=_wall,
                entropy=os.urandom,
                software=f"p2pq {__version__}",
            )
            log.info("mesh.joined", extra={"fields": {"mesh": joined.mesh, "as": joined.owner}})
            await p.restart((joined.inviter, *joined.peers), joined.bans)
        await send(self._mesh_view())

    def _refuse_live_jobs(self, what: str) -> None:
        live = self._p.store.live_jobs()
        if live:
            raise RefusedError(
                f"{len(live)} jobs of this node have not ended, and {what} would strand them; "
                "wait for them or cancel them (`p2pq jobs`), then try again"
            )
        kept = sum(each.results for each in self._p.node.policy().kept)
        if kept:
            raise RefusedError(
                f"{kept} results of others' tasks wait here for their owners; try again when they have them"
            )

    async def ban(self, request: control.BanMember, send: Send) -> None:
        """Answer ``BanMember``."""
        p = self._p
        node = p.scheduler.resolve_node(request.who)
        signed = p.keys.sign_ban(node, _wall(), p.node.ban_at(node), banned=request.banned)
        await p.post_durable(BanAsked(node=node, banned=request.banned, signed=signed))
        await send(_banned(f"{p.scheduler.name_of(node)} ({short(node)}) is", signed, banned=request.banned))

    async def ban_owner(self, request: control.BanOwner, send: Send) -> None:
        """Answer ``BanOwner``."""
        p, owner = self._p, request.owner
        signed = p.keys.sign_owner_ban(owner, _wall(), p.node.ban_at(owner), banned=request.banned)
        await p.post_durable(OwnerBanAsked(owner=owner, banned=request.banned, signed=signed))
        await send(_banned(f"All nodes of {owner} are", signed, banned=request.banned))

    async def rotate_key(self, _request: control.RotateKey, send: Send) -> None:
        """Answer ``RotateKey``."""
        p = self._p
        signed = p.keys.sign_mesh_key(_wall(), p.node.mesh_keys.newest_at)
        await p.post_durable(MeshKeyAsked(signed=signed))
        linked = sum(not p.node.abroad.mesh_of(peer) for peer in p.links.peers())
        await send(
            Note(
                text=f"The mesh has a new key; {linked} linked {'node was' if linked == 1 else 'nodes were'} told. "
                f"The last {session.PSKS_MAX} keys let a node in: one that is away learns the new one when it is back."
            )
        )

    async def stop(self, request: control.Stop, send: Send) -> None:
        """Answer ``Stop``: the node goes down after the answer."""
        del send
        self._p.stop(request.now)

    # ------------------------------------------------------------------ doctor

    async def doctor(self, _request: control.Doctor, send: Send) -> None:
        """Answer ``Doctor``."""
        for finding in (
            self._sandbox(),
            await self._p.environments.finding(),
            self._store_finding(),
            self._kept(),
            self._clock(),
            self._certificate(),
            self._listening(),
            self._mdns(),
            *self._bridge(),
            *of_peers(self._p.node.peers(self._p.mono()), lambda node: bool(self._p.node.abroad.mesh_of(node))),
            *self._p.owner_findings(),
            *self._p.more_findings(),
        ):
            await send(finding)

    def _sandbox(self) -> Finding:
        report = self._p.isolation
        if report is None:
            return Finding(check="sandbox", ok=True, detail="the self-test is still running")
        return Finding(check="sandbox", ok=report.level != "none", detail=report.reason, suggestion=report.suggestion)

    def _store_finding(self) -> Finding:
        trouble = self._p.store.trouble
        if trouble is not None:
            return Finding(check="store", ok=False, detail=str(trouble), suggestion="mend the disk; nothing is lost")
        return Finding(check="store", ok=True, detail="everything acknowledged is on disk")

    def _kept(self) -> Finding:
        """Tell of results that wait for an absent owner; in time, before no more is taken or the first are forgotten."""
        views = [self._kept_view(each) for each in self._p.node.policy().kept]
        if not views:
            return Finding(check="kept results", ok=True, detail="none wait here for an absent node")
        days = self._p.keep_days
        full = [view for view in views if view.full]
        near = [
            view
            for view in views
            if max(view.results / KEPT_MAX, view.bytes / KEPT_BYTES_MAX, view.oldest_s / (days * DAY_S)) >= NEARLY
        ]
        worst = next(iter([*full, *near, *views]))
        size = f"{worst.results} of at most {KEPT_MAX}, {worst.bytes >> 20} of at most {KEPT_BYTES_MAX >> 20} MB"
        age = f"the oldest for {worst.oldest_s / DAY_S:.1f} of at most {days} days"
        return Finding(
            check="kept results",
            ok=not full,
            detail=f"results wait here for {worst.node}{' (' + worst.owner + ')' if worst.owner else ''}: {size}, {age}"
            + ("; nothing more is taken of it" if full else ""),
            suggestion=f"start {worst.node}: it fetches them; what is too old is forgotten" if full or near else "",
        )

    def _clock(self) -> Finding:
        p = self._p
        skews = {peer: info.wall_skew_ms for peer in p.links.peers() if (info := p.links.info(peer)) is not None}
        off = [
            f"{p.scheduler.name_of(peer)} by {skew / 1000:+.0f} s"
            for peer, skew in skews.items()
            if abs(skew) > SKEW_MS_MAX
        ]
        if off:
            return Finding(
                check="clock",
                ok=False,
                detail=f"this clock and that of {', '.join(off[:3])} differ",
                suggestion="turn on time synchronisation: timedatectl set-ntp true",
            )
        nodes = "1 linked node" if len(skews) == 1 else f"{len(skews)} linked nodes"
        return Finding(
            check="clock", ok=True, detail=f"agrees with {nodes}" if skews else "no linked node to compare with"
        )

    def _certificate(self) -> Finding:
        expires = self._p.keys.cert.exp
        soon = expires - _wall() < CERT_SOON_MS
        return Finding(
            check="membership",
            ok=not soon and not self._p.duplicate,
            detail=self._p.duplicate or f"of mesh {self._p.keys.state.name!r} until {rfc3339(expires)}",
            suggestion="let this node meet an admin of the mesh, directly or over bridges; it renews by itself"
            if soon
            else "",
        )

    def _listening(self) -> Finding:
        addresses = self._p.links.addresses
        if not addresses:
            return Finding(
                check="network",
                ok=True,
                detail=f"port {self._p.links.port} on this machine only: no address that others can reach",
                suggestion="connect the machine to a network, or use --listen HOST:PORT",
            )
        here_only = all(netinfo.host_of(address) in {"127.0.0.1", "::1"} for address in addresses)
        finding = "" if self._p.discovery is None else ", and UDP 5353 for finding each other"
        return Finding(
            check="network",
            ok=True,
            detail=f"peers can connect to {', '.join(addresses[:4])}{' (this machine only)' if here_only else ''}",
            suggestion="" if here_only else f"a firewall must let TCP port {self._p.links.port} in{finding}",
        )

    def _mdns(self) -> Finding:
        discovery = self._p.discovery
        if discovery is None:
            return Finding(check="discovery", ok=True, detail="off (--no-mdns); only --peer and remembered peers")
        return Finding(
            check="discovery",
            ok=not discovery.problem,
            detail=discovery.problem or "looking for peers by mDNS, and seen by them",
            suggestion="use --peer HOST:PORT where multicast does not get through" if discovery.problem else "",
        )

    def _bridge(self) -> list[Finding]:
        detail, todo = self._bridging()
        return [Finding(check="bridge", ok=not todo, detail=detail, suggestion=todo)] if detail else []

    def _bridging(self) -> tuple[str, str]:
        """Return what this node carries as a bridge, or why nothing and what to do; nothing where it is not to be one."""
        if not self._p.bridge:
            todo = "set enabled = true there, too, or start it with --bridge"
            return ("is no bridge, so [bridge] batch = true does nothing", todo) if self._p.batch else ("", "")
        if "bridge" not in self._p.keys.cert.caps:
            todo = (
                "leave the mesh with `p2pq mesh init NAME` and join it again with a code of "
                "`p2pq invite --caps work,submit,bridge`, or let it be no bridge"
            )
            return "is to be a bridge, but its certificate does not let it", todo
        detail = f"carries links between peers, {self._p.links.relays.carried} now"
        if self._p.batch:
            spoken = self._p.node.spoken()
            leaves = {leaf for each in spoken for leaf, _ in each.leaves}
            detail = f"speaks for workers here, now {len(leaves)}, to masters, now {len(spoken)}; {detail}"
        return detail, ""


def _banned(who: str, signed: bytes, *, banned: bool) -> Note:
    """Say what was done, and how far it reaches."""
    reach = "here and, as you are an admin, on every node that hears of it" if signed else "on this node"
    return Note(text=f"{who} {'banned' if banned else 'no longer banned'} {reach}.")


async def _nobody(_slot: str, _timeout_s: float) -> tuple[str, ...]:
    return ()


def _wall() -> Wall:
    return Wall(int(time.time() * 1000))
