"""The folder that a node lives in: where everything lies, and that nobody else can read or replace it.

Nothing here is repaired silently: a mode, owner or kind that is not as it must be is refused with the command that mends it.
"""

import fcntl
import os
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final, Self

from p2pq.daemon import crashpoints, files
from p2pq.errors import ConfigError, RefusedError, StorageError
from p2pq.homes import TOKEN_FILE, default_path, plain_path, refuse_root, socket_path
from p2pq.model.ids import MeshId, short
from p2pq.wire.control import TOKEN_BYTES

LOOSE: Final = 0o077
SECRET_BYTES_MAX: Final = 1 << 20


class Home:
    """An opened home. ``Home.open`` is the way to get one; the paths below it are properties."""

    def __init__(self, path: Path, environ: Mapping[str, str] = os.environ) -> None:
        """Name a home without touching it; ``path`` is made absolute and free of symbolic links."""
        self.path = plain_path(path)
        self._environ = environ

    @classmethod
    def open(cls, path: Path | None = None, *, create: bool = True, environ: Mapping[str, str] = os.environ) -> Self:
        """Check the home and what lies in it; make what is missing.

        Raises:
            RefusedError: run as root without ``P2PQ_ALLOW_ROOT=1``, or there is no home and ``create`` is false.
            ConfigError: a mode, an owner or a kind of file is wrong; the message says how to mend it.
            StorageError: it cannot be made.
        """
        refuse_root(environ)
        home = cls(default_path(environ) if path is None else path, environ)
        if not home.path.exists() and not create:
            raise RefusedError(f"{home.path}: no node has run here; start one with `p2pq node`")
        try:
            home.path.mkdir(mode=0o700, parents=True, exist_ok=True)
            _check_folder(home.path)
            for folder in (home.mesh, home.blobs, home.scratch):
                folder.mkdir(mode=0o700, exist_ok=True)
                _check_folder(folder)
            if home.flight.exists():
                _check_folder(home.flight)
            for file in (home.identity_key, home.api_token, home.store, home.lock_file, *home.mesh.iterdir()):
                if file.is_symlink() or file.exists():
                    _check_secret(file)
            if home.config.exists():
                _check_config(home.config)
            if not home.api_token.exists():
                write_private(home.api_token, os.urandom(TOKEN_BYTES))
        except OSError as error:
            raise StorageError(
                f"{error.filename or home.path}: {error.strerror}; check the disk and the folder"
            ) from error
        return home

    @property
    def identity_key(self) -> Path:
        """The node's Ed25519 seed, 32 bytes: whoever has it is this node."""
        return self.path / "identity.key"

    @property
    def api_token(self) -> Path:
        """What a local client must show, 32 bytes."""
        return self.path / TOKEN_FILE

    @property
    def mesh(self) -> Path:
        """The folder with ``mesh.state`` and, at the founder, the root's key."""
        return self.path / "mesh"

    @property
    def mesh_state(self) -> Path:
        """Name, root key, certificates and mesh keys of the mesh that this node is in."""
        return self.mesh / "mesh.state"

    def root_key(self, mesh: MeshId) -> Path:
        """The Ed25519 seed of that mesh's root, only at its founder. Named by mesh: a new one never replaces an old one."""
        return self.mesh / f"root-{short(mesh)}.key"

    @property
    def config(self) -> Path:
        """The settings."""
        return self.path / "config.toml"

    @property
    def store(self) -> Path:
        """The database."""
        return self.path / "store.sqlite"

    @property
    def blobs(self) -> Path:
        """Ciphertext, by name."""
        return self.path / "blobs"

    @property
    def scratch(self) -> Path:
        """Where tasks run."""
        return self.path / "scratch"

    @property
    def environments(self) -> Path:
        """Packages that jobs asked for. Made when it is needed."""
        return self.path / "environments"

    @property
    def log(self) -> Path:
        """The node's log."""
        return self.path / "node.log"

    @property
    def flight(self) -> Path:
        """Records of what the core heard, where they are wanted; as secret as the home. Made when it is needed."""
        return self.path / "flight"

    @property
    def lock_file(self) -> Path:
        """Locked while a node runs; holds its process id."""
        return self.path / "node.lock"

    @property
    def socket(self) -> Path:
        """Where the local API listens (see ``socket_path``); its folder exists and is private after ``open_socket_folder``."""
        return socket_path(self.path, self._environ)

    def token(self) -> bytes:
        """Return the API token.

        Raises:
            ConfigError: the file is missing or is not a token.
        """
        token = read_private(self.api_token)
        if len(token) != TOKEN_BYTES:
            raise ConfigError(f"{self.api_token}: not a token; delete it and start the node again")
        return token

    def open_socket_folder(self) -> Path:
        """Make the socket's folder if it is not the home itself, and return the socket's path.

        Raises:
            ConfigError: the folder is open to others, or there is no place for a socket.
        """
        path = self.socket
        path.parent.mkdir(mode=0o700, exist_ok=True)
        _check_folder(path.parent)
        return path

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the home for one running node; the system lets go of it when the process ends, however it ends.

        Raises:
            RefusedError: another node runs on this home.
        """
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        fd = os.open(self.lock_file, flags, 0o600)
        try:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                other = os.pread(fd, 20, 0).decode(errors="replace").strip() or "unknown"
                raise RefusedError(
                    f"a node already runs on {self.path} (process {other}); stop it with `p2pq stop` or use another --home"
                ) from None
            os.ftruncate(fd, 0)
            os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
            crashpoints.reached("home.locked")
            for left_over in (*self.path.glob(".identity.key.*.new"), *self.mesh.glob(".*.new")):
                left_over.unlink()  # a secret that was being written when its node died
            yield
        finally:
            os.close(fd)

    def running(self) -> bool:
        """Tell whether a node runs on this home now."""
        try:
            fd = os.open(self.lock_file, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except FileNotFoundError:
            return False
        try:
            fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(fd)
        return False


def read_private(path: Path, *, size_max: int = SECRET_BYTES_MAX) -> bytes:
    """Return the content of a secret file, after checking the very file that was opened.

    Raises:
        ConfigError: missing, a symbolic link, another user's, open to others, or too long.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror}); put it back from a backup") from error
    try:
        _check_secret_stat(path, os.fstat(fd))
        data = bytearray()
        while len(data) <= size_max and (piece := os.read(fd, size_max + 1 - len(data))):
            data += piece
    finally:
        os.close(fd)
    if len(data) > size_max:
        raise ConfigError(f"{path}: far too long; put it back from a backup")
    return bytes(data)


def write_private(path: Path, data: bytes) -> None:
    """Replace a file at once and durably, readable by its owner alone. A crash leaves the old content or the new one.

    Raises:
        OSError: the disk is full or the folder cannot be written.
    """
    temporary = path.with_name(f".{path.name}.{os.urandom(6).hex()}.new")
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        try:
            rest = memoryview(data)
            while rest:
                rest = rest[os.write(fd, rest) :]
            os.fsync(fd)
        finally:
            os.close(fd)
        crashpoints.reached("secret.written")
        temporary.replace(path)
        crashpoints.reached("secret.renamed")
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    files.sync(path.parent)


def _check_owner(path: Path, found: os.stat_result) -> None:
    if found.st_uid != os.geteuid():
        raise ConfigError(f"{path}: belongs to another user; run `chown {os.geteuid()} {path}` or use another --home")


def _check_folder(path: Path) -> None:
    found = path.stat()
    if not stat.S_ISDIR(found.st_mode):
        raise ConfigError(f"{path}: not a folder; use another --home")
    _check_owner(path, found)
    if found.st_mode & LOOSE:
        raise ConfigError(f"{path}: open to other users; run `chmod 700 {path}`")


def _check_secret(path: Path) -> None:
    _check_secret_stat(path, path.lstat())


def _check_secret_stat(path: Path, found: os.stat_result) -> None:
    if not stat.S_ISREG(found.st_mode):
        raise ConfigError(f"{path}: not a regular file; put the file itself there")
    _check_owner(path, found)
    if found.st_mode & LOOSE:
        raise ConfigError(f"{path}: open to other users; run `chmod 600 {path}`")


def _check_config(path: Path) -> None:
    # Editors make 0644; the home keeps others out. But nobody else may write it.
    found = path.stat()
    _check_owner(path, found)
    if found.st_mode & 0o022:
        raise ConfigError(f"{path}: others may change it; run `chmod 600 {path}`")
