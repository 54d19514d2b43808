"""Who this node is: its key, the mesh that it is in, and what it may sign for others.

A node that starts for the first time founds a mesh of its own, so one machine works with no set-up. All that changes here is
written to the home before it counts.
"""

import getpass
import os
import platform
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Final, Literal

import msgspec
from msgspec import Meta

from p2pq.core.identity import Identity
from p2pq.daemon import crashpoints
from p2pq.daemon.home import Home, read_private, write_private
from p2pq.errors import ConfigError, RefusedError, Reject, StorageError
from p2pq.model.ids import MeshId, NodeId, Wall, short
from p2pq.wire import codec, prims, session, sign, trust
from p2pq.wire.objects import CAPABILITIES, Bytes32, Capability, Cert, Name

Entropy = Callable[[int], bytes]

SERIAL_BYTES: Final = 16
BOOT_BYTES: Final = 16
STATE_BYTES_MAX: Final = 64 << 10
NAME_CHARS_MAX: Final = 64
RENEW_FROM: Final = 2 / 3  # of the life of a certificate: from then on it is renewed
NO_ADMIN: Final = "this node is not an admin of its mesh; invite on one that is, `p2pq members` shows which"
ONLY_FOUNDER: Final = (
    "only the founder of a mesh can make admins; invite there, and let who is to be one reach it directly"
)


class MeshState(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the home keeps of the mesh. Holds the mesh keys, so it never appears in a log."""

    v: Literal[1] = 1
    name: Name
    root: Bytes32
    """The root's public key; the mesh id is its hash."""
    certs: Annotated[tuple[bytes, ...], Meta(min_length=1, max_length=trust.CHAIN_MAX)]
    """This node's chain, leaf first."""
    psks: Annotated[tuple[Bytes32, ...], Meta(min_length=1, max_length=session.PSKS_MAX)]
    """Mesh keys as they came with the membership, newest first; those that admins made since are in the store."""
    issued: Annotated[int, Meta(ge=0)] = 0
    """How many members this node has let in."""

    def __repr__(self) -> str:
        """Name the mesh, not its keys."""
        return f"MeshState({self.name!r})"


class NodeKeys:
    """This node's keys for one run of the daemon, and its place in the mesh, which may change while it runs."""

    def __init__(self, home: Home, key: prims.SigningKey, state: MeshState, entropy: Entropy) -> None:
        """Take what was loaded; draw what is new at every start: boot id, link static key and prekey."""
        self._home = home
        self._entropy = entropy
        self.key = key
        self.state = state
        self.cert = trust_open(state)
        """This node's own certificate."""
        self.boot = entropy(BOOT_BYTES)
        self.static = entropy(prims.KEY_BYTES)
        self.prekey = prims.x25519_public(entropy(prims.KEY_BYTES))
        """What others seal job keys to: the newest that the core has the private half of, once there is a core."""

    def __repr__(self) -> str:
        """Name the node, not its secrets."""
        return f"NodeKeys({short(self.node)}, mesh={self.state.name!r})"

    @property
    def node(self) -> NodeId:
        """This node's id."""
        return self.key.public

    @property
    def mesh(self) -> MeshId:
        """The id of the mesh."""
        return prims.mesh_id(self.state.root)

    @property
    def founder(self) -> bool:
        """Whether the mesh root's key lies here."""
        return self._home.root_key(self.mesh).exists()

    @property
    def solo(self) -> bool:
        """Whether this mesh has never had another member."""
        return self.founder and self.state.issued == 0

    @property
    def admin(self) -> bool:
        """Whether this node may let others in."""
        return "admin" in self.cert.caps

    def core_identity(self) -> Identity:
        """Return what the core signs and opens with: with a new prekey, of which only the public half is kept here."""
        cert = self.cert
        secret = self._entropy(prims.KEY_BYTES)
        self.prekey = prims.x25519_public(secret)
        return Identity(
            node=self.node,
            secret=self.key.seed,
            mesh=self.mesh,
            name=cert.name,
            owner=cert.owner,
            caps=cert.caps,
            boot=self.boot,
            prekey_secret=secret,
            prekey=self.prekey,
            root=self.state.root,
            psks=self.state.psks,
        )

    def local(self, addresses: tuple[str, ...], software: str) -> session.Local:
        """Return what links say of this node."""
        return session.Local(
            key=self.key,
            static=self.static,
            boot=self.boot,
            prekey=self.prekey,
            certs=self.state.certs,
            addresses=addresses,
            software=software,
        )

    def known_mesh(self, is_banned: trust.IsBanned, psks: tuple[bytes, ...] = ()) -> session.Mesh:
        """Return what links check peers by; without mesh keys, with those that came with the membership."""
        return session.Mesh(root=self.state.root, psks=psks or self.state.psks, is_banned=is_banned)

    # -- the mesh changes -------------------------------------------------------------------------------------------------

    def found(self, name: str, wall: Wall) -> None:
        """Found a new mesh and leave the old one; its root key is kept if it has other members.

        Raises:
            ConfigError: the name is not usable.
            StorageError: the home cannot be written.
        """
        cert, old, was_solo = self.cert, self.mesh, self.solo
        state = _fresh_state(self._home, self.key, (name, cert.name, cert.owner), wall, self._entropy)
        self._keep(state)
        crashpoints.reached("mesh.kept")
        if was_solo:
            self._home.root_key(old).unlink(missing_ok=True)

    def adopt(self, *, name: str, root: bytes, certs: tuple[bytes, ...], psks: tuple[bytes, ...], wall: Wall) -> None:
        """Become a member of another mesh: what a join ends with. The solo mesh is gone after this.

        Raises:
            RefusedError: this node's mesh has other members.
            Reject: the chain is not this node's or not valid, or a field is out of range.
            StorageError: the home cannot be written.
        """
        self.check_may_join()
        leaf = trust.verify_chain(certs, root, wall, is_banned=trust.nobody)
        if leaf.sub != self.node:
            raise Reject(session.NOT_HOLDER)
        old = self.mesh
        self._keep(MeshState(name=name, root=root, certs=certs, psks=psks[: session.PSKS_MAX]))
        crashpoints.reached("mesh.kept")
        if old != self.mesh:
            self._home.root_key(old).unlink(missing_ok=True)

    def check_may_join(self) -> None:
        """Check that joining would abandon nobody.

        Raises:
            RefusedError: this node's mesh has other members.
        """
        if not self.solo:
            raise RefusedError(
                f"this node is in mesh {self.state.name!r}, which has other members; "
                "join from another --home, or leave that mesh with `p2pq mesh init NAME` first"
            )

    # -- signing for others -----------------------------------------------------------------------------------------------

    def issue(self, subject: trust.Subject, wall: Wall) -> tuple[bytes, ...]:
        """Return the chain of a new member, signed by this node.

        Raises:
            RefusedError: this node is not an admin.
            Reject: the subject would get what this node may not give, or a field is out of range.
            StorageError: the home cannot be written.
        """
        if not self.admin:
            raise RefusedError(NO_ADMIN)
        if "admin" in subject.caps and not self.founder:
            raise RefusedError(ONLY_FOUNDER)
        chain = self._chain(subject, wall)
        self._keep(msgspec.structs.replace(self.state, issued=self.state.issued + 1))
        return chain

    def sign_ban(self, node: NodeId, wall: Wall, last: Wall, *, banned: bool) -> bytes:
        """Return this admin's signed ban (or its end); empty where this node is no admin: then it holds here only.

        Args:
            node: who is out, or in again.
            wall: the time by this machine's clock.
            last: when this node last said something of it; what it says now is later, whatever became of the clock.
            banned: out, or in again.

        Raises:
            RefusedError: a node cannot ban itself.
        """
        if node == self.node:
            raise RefusedError("a node cannot ban itself; stop it with `p2pq stop`")
        if not self.admin:
            return b""
        at = Wall(max(wall, last + 1))
        return trust.issue_ban(self.key, self.state.root, node, at=at, banned=banned, certs=self.state.certs)

    def sign_owner_ban(self, owner: str, wall: Wall, last: Wall, *, banned: bool) -> bytes:
        """Return this admin's signed ban of an owner (or its end), as ``sign_ban`` does.

        Raises:
            RefusedError: this node is of that owner, or nobody can be called so.
        """
        if owner == self.cert.owner:
            raise RefusedError(f"this node counts as {owner} itself, and cannot ban itself")
        if usable_name(owner) != owner:
            raise RefusedError("an owner's name has 1 to 64 printable characters; see `p2pq members`")
        if not self.admin:
            return b""
        at = Wall(max(wall, last + 1))
        return trust.issue_ban(self.key, self.state.root, owner, at=at, banned=banned, certs=self.state.certs)

    def sign_mesh_key(self, wall: Wall, newest: Wall) -> bytes:
        """Return a new key for the mesh, signed; dated after the newest that this node knows of.

        Raises:
            RefusedError: this node is not an admin.
        """
        if not self.admin:
            raise RefusedError("this node is not an admin of its mesh; rotate its key on the one that founded it")
        at = Wall(max(wall, newest + 1))
        key = self._entropy(prims.KEY_BYTES)
        return trust.issue_mesh_key(self.key, self.state.root, key, at=at, certs=self.state.certs)

    # -- renewal ----------------------------------------------------------------------------------------------------------

    def renewal_due(self, wall: Wall) -> bool:
        """Tell whether this node should ask for a new certificate; a founder makes its own."""
        return aged(self.cert, wall) and not self.founder

    def renew(self, old: Cert, wall: Wall) -> tuple[bytes, ...]:
        """Return a new chain for the holder of a sound certificate; nothing where this node cannot make one that lasts longer.

        The same node, name, owner and capabilities: an admin's from the founder, a member's from any admin that has all it has.

        Raises:
            ConfigError: the root key is damaged.
        """
        if "admin" in old.caps:
            able = self.founder
        else:
            able = self.admin and set(old.caps) <= set(self.cert.caps) and self.cert.exp > old.exp
        if not able:
            return ()
        return self._chain(trust.Subject(node=NodeId(old.sub), name=old.name, owner=old.owner, caps=old.caps), wall)

    def renew_own(self, wall: Wall) -> bool:
        """As founder: issue this node's own certificate anew once it has aged, as others end with it; return whether it had.

        Raises:
            ConfigError: the root key is damaged.
            StorageError: the home cannot be written.
        """
        if not self.founder or not aged(self.cert, wall):
            return False
        self.refresh(_load_root(self._home, self.mesh), self.cert.name, wall)
        return True

    def renewed(self, certs: tuple[bytes, ...], wall: Wall) -> bool:
        """Keep a renewed chain; return whether it is better than the one at hand.

        Raises:
            Reject: it is not valid, not this node's, or says something else of this node than the old one.
            StorageError: the home cannot be written.
        """
        old = self.cert
        new = trust.verify_chain(certs, self.state.root, wall, is_banned=trust.nobody)
        if (new.sub, new.name, new.owner, new.caps) != (old.sub, old.name, old.owner, old.caps):
            raise Reject(session.NOT_HOLDER)
        if new.exp <= old.exp:
            return False
        self._keep(msgspec.structs.replace(self.state, certs=certs))
        return True

    def refresh(self, root: prims.SigningKey, name: str, wall: Wall) -> None:
        """As founder: issue this node's own certificate anew, under this name.

        Raises:
            StorageError: the home cannot be written.
        """
        fresh = _founder_cert(root, self.node, (name, self.cert.owner), self._entropy(SERIAL_BYTES), wall)
        self._keep(msgspec.structs.replace(self.state, certs=(fresh,)))

    def _chain(self, subject: trust.Subject, wall: Wall) -> tuple[bytes, ...]:
        own, serial = self.state.certs[-1], self._entropy(SERIAL_BYTES)
        if "admin" in subject.caps:
            return (trust.issue_admin(_load_root(self._home, self.mesh), subject, serial=serial, wall=wall),)
        cert = trust.issue_member(self.key, own, self.state.root, subject, serial=serial, wall=wall)
        return (cert, own)

    def _keep(self, state: MeshState) -> None:
        _write(self._home.mesh_state, codec.encode(state))
        self.cert = trust_open(state)
        self.state = state


def load_or_create(home: Home, name: str, wall: Wall, entropy: Entropy, *, owner: str = "") -> NodeKeys:
    """Load this node's keys, or make them at the first start, together with a mesh of its own.

    Args:
        home: an opened home.
        name: the node's name for people; empty: the host name.
        wall: the time by this machine's clock.
        entropy: ``os.urandom`` outside of tests.
        owner: as whom this machine counts in a mesh that it founds; empty: the login name.

    Raises:
        ConfigError: a file is damaged, or this machine's clock cannot be right, or the membership has expired.
        StorageError: the home cannot be written.
    """
    key = _load_key(home, entropy)
    called = (usable_name(name or platform.node()), usable_name(owner or login_name()))
    if not home.mesh_state.exists():
        state = _fresh_state(home, key, (called[0], *called), wall, entropy)
        _write(home.mesh_state, codec.encode(state))
        return NodeKeys(home, key, state, entropy)
    state = _load_state(home)
    keys = NodeKeys(home, key, state, entropy)
    if keys.founder:
        return _refresh_founder(home, keys, called[0], wall)
    _check_own_chain(home, keys, wall)
    return keys


def stored_node(home: Home) -> NodeId:
    """Return who this home's node is, without making anything.

    Raises:
        ConfigError: its key is missing or damaged.
    """
    return _key(home).public


def stored_mesh(home: Home) -> MeshState:
    """Return what a home keeps of its mesh, whatever the clock says.

    Raises:
        ConfigError: it is missing or damaged.
    """
    return _load_state(home)


def trust_open(state: MeshState) -> Cert:
    """Return this node's own certificate at a time when it was valid (the clock is checked at load), or raise Reject."""
    return trust.verify_chain(state.certs, state.root, _middle(state.certs[0]), is_banned=trust.nobody)


def usable_name(text: str) -> str:
    """Return a text as a name for certificates: printable, 1 to 64 characters."""
    clean = "".join(char for char in text if char.isprintable()).strip()[:NAME_CHARS_MAX]
    return clean or "node"


def login_name() -> str:
    """Return the name of the user that runs this, or its number where it has none."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # no such user in the system's database
        return f"uid-{os.getuid()}"


def _load_key(home: Home, entropy: Entropy) -> prims.SigningKey:
    if not home.identity_key.exists():
        if home.mesh_state.exists():
            # The mesh's certificates name the old key; a new one would be nobody there.
            raise ConfigError(
                f"{home.identity_key}: missing, but this node was in a mesh; put the file back from a backup, "
                f"or delete {home.mesh} too and join again as a new node"
            )
        _write(home.identity_key, entropy(prims.KEY_BYTES))
    return _key(home)


def _key(home: Home) -> prims.SigningKey:
    seed = read_private(home.identity_key)
    if len(seed) != prims.KEY_BYTES:
        raise ConfigError(f"{home.identity_key}: damaged (not {prims.KEY_BYTES} bytes); put it back from a backup")
    return prims.SigningKey(seed)


def _load_root(home: Home, mesh: MeshId) -> prims.SigningKey:
    path = home.root_key(mesh)
    seed = read_private(path)
    if len(seed) != prims.KEY_BYTES or prims.mesh_id(prims.SigningKey(seed).public) != mesh:
        raise ConfigError(f"{path}: damaged, not the root key of this mesh; put it back from a backup")
    return prims.SigningKey(seed)


def _load_state(home: Home) -> MeshState:
    raw = read_private(home.mesh_state, size_max=STATE_BYTES_MAX)
    try:
        state = codec.decode_strict(raw, MeshState, size_max=STATE_BYTES_MAX)
        trust_open(state)
    except Reject as error:
        raise ConfigError(f"{home.mesh_state}: damaged ({error.reason}); put it back from a backup") from error
    return state


def _fresh_state(
    home: Home, key: prims.SigningKey, called: tuple[str, str, str], wall: Wall, entropy: Entropy
) -> MeshState:
    """Make a root and a mesh of one; ``called`` names mesh, node and owner. The root key is durable when this returns."""
    mesh_name, name, owner = called
    if usable_name(mesh_name) != mesh_name:
        raise ConfigError("a mesh's name has 1 to 64 printable characters")
    root = trust.make_root(entropy)
    mesh = prims.mesh_id(root.public)
    cert = _founder_cert(root, key.public, (name, owner), entropy(SERIAL_BYTES), wall)
    _write(home.root_key(mesh), root.seed)
    return MeshState(name=mesh_name, root=root.public, certs=(cert,), psks=(entropy(prims.KEY_BYTES),))


def _founder_cert(root: prims.SigningKey, node: NodeId, called: tuple[str, str], serial: bytes, wall: Wall) -> bytes:
    caps: tuple[Capability, ...] = CAPABILITIES
    subject = trust.Subject(node=node, name=called[0], owner=called[1], caps=caps)
    return trust.issue_admin(root, subject, serial=serial, wall=wall)


def _refresh_founder(home: Home, keys: NodeKeys, name: str, wall: Wall) -> NodeKeys:
    """Issue the founder's own certificate anew where it has aged, is not valid by this clock, or the name has changed."""
    root = _load_root(home, keys.mesh)
    cert = keys.cert
    if cert.sub != keys.node:
        raise _other_key(home)
    valid = cert.nbf - trust.SKEW_MS <= wall and not aged(cert, wall)
    if not valid or cert.name != name:
        keys.refresh(root, name, wall)
    return keys


def _check_own_chain(home: Home, keys: NodeKeys, wall: Wall) -> None:
    cert = keys.cert
    if cert.sub != keys.node:
        raise _other_key(home)
    try:
        trust.verify_chain(keys.state.certs, keys.state.root, wall, is_banned=trust.nobody)
    except Reject as error:
        now = _date(wall)
        if error.reason == trust.NOT_YET_VALID:
            raise ConfigError(
                f"this machine's clock says {now}, but this node's certificate begins {_date(cert.nbf)}; set the clock"
            ) from error
        raise ConfigError(
            f"this node's certificate ended {_date(cert.exp)} and this machine's clock says {now}; "
            f"set the clock if it is wrong, else delete {home.mesh} and join again"
        ) from error


def _other_key(home: Home) -> ConfigError:
    return ConfigError(
        f"{home.identity_key} is not the key that {home.mesh_state} was made for; "
        f"put the right one back, or delete {home.mesh} and join again"
    )


def aged(cert: Cert, wall: Wall) -> bool:
    """Tell whether it is time to renew a certificate."""
    return wall >= cert.nbf + (cert.exp - cert.nbf) * RENEW_FROM


def _middle(raw: bytes) -> Wall:
    """Return an instant at which the leaf was certainly valid, by its own word."""
    cert = sign.open_claimed(raw, Cert, lambda claimed: claimed.iss)
    return Wall((cert.nbf + cert.exp) // 2)


def _date(wall: int) -> str:
    return datetime.fromtimestamp(wall / 1000, UTC).strftime("%Y-%m-%d %H:%M UTC")


def _write(path: Path, data: bytes) -> None:
    try:
        write_private(path, data)
    except OSError as error:
        raise StorageError(
            f"{path}: {error.strerror}; nothing was changed; free some space or mend the folder"
        ) from error
