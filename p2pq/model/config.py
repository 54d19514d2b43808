"""Every setting of a node, with unit, default and limits. Read by ``daemon/settings.py``.

Names carry their unit. A relation between settings is asserted in ``check``. Unknown keys are refused by name.
"""

from typing import Annotated, Final, Literal

import msgspec
from msgspec import Meta

from p2pq.errors import ConfigError, Reject
from p2pq.model.ids import MESH_ID_BYTES, MeshId, from_text

Label = Annotated[
    str,
    Meta(
        pattern=r"^[A-Za-z0-9_.+-]{1,64}$",
        description="text in quotes: 1 to 64 letters, digits, dots, dashes, plus signs and underscores",
    ),
]
WHOLE_ID: Final = "the other mesh's whole id, 52 characters in quotes, as `p2pq mesh peers` shows it"
Seconds = Annotated[float, Meta(gt=0, le=1e9)]
Megabytes = Annotated[int, Meta(ge=0, le=1 << 30)]
Share = Annotated[float, Meta(ge=0, le=1e6)]
"""A part of all cores; a load probe of the user's own may count in anything."""
Hour = Annotated[
    str, Meta(pattern=r"^([01][0-9]|2[0-3]):[0-5][0-9]$", description='a time of day in quotes, as "07:30" or "22:00"')
]
RULE_CHARS_MAX: Final = 500
SIGNALS: Final = ("HUP", "INT", "QUIT", "USR1", "USR2", "ALRM", "TERM", "XCPU", "WINCH", "PWR")
"""Signals by which a task may be told to leave a checkpoint: it can catch them."""
SIGNALS_MAX: Final = 64
DEAF: Final = {9: "KILL", 17: "CHLD", 18: "CONT", 19: "STOP", "KILL": 9, "CHLD": 17, "CONT": 18, "STOP": 19}
"""Those by which it cannot, or which say something else."""


class _Section(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of all sections."""


class NodeSettings(_Section, frozen=True, kw_only=True):
    """[node]: this node's name, what it offers and where it listens."""

    name: Annotated[str, Meta(max_length=64)] = ""
    """What people see; empty: the host name. A nickname only: the key is the identity."""
    slots: Annotated[int, Meta(ge=0, le=4096)] | None = None
    """Cpus that tasks may use; unset: as many as the machine has."""
    gpus: Annotated[int, Meta(ge=0, le=64)] | None = None
    """Gpus that tasks may use; unset: as many as the machine has."""
    listen: Annotated[str, Meta(max_length=64)] = "0.0.0.0:0"
    """HOST:PORT for peers; port 0 picks 9476 if it is free, else any."""
    peers: Annotated[tuple[Annotated[str, Meta(max_length=255)], ...], Meta(max_length=64)] = ()
    """HOST:PORT of nodes to link to besides those found."""
    mdns: bool = True
    """Find peers on the local network and be found."""
    accept: bool = True
    """Run other people's tasks (sandboxed, without network) at all."""
    labels: dict[Label, Label] = {}
    """What ``--need K=V`` of a job is matched against, besides os, arch, python and has."""
    links_max: Annotated[int, Meta(ge=1, le=4096)] = 64
    """Links to peers at most; above that the node says so."""


class RunnerSettings(_Section, frozen=True, kw_only=True):
    """[runner]: how tasks are run."""

    python: Annotated[str, Meta(max_length=4096)] = ""
    """The interpreter for Python jobs; empty: the one that runs the node."""
    sandbox_floor: Literal["strict", "basic"] = "strict"
    """The weakest sandbox that tasks of others may run in here: ``basic`` is used where ``strict`` does not hold."""
    memory_mb: Megabytes = 0
    """Memory limit of a task that asks for none; 0: an equal part of the machine per slot, at least 512."""
    time_s: Annotated[int, Meta(ge=1, le=366 * 24 * 3600)] = 24 * 3600
    """The longest a guest's task may run here, whatever it asks for."""
    disk_mb: Megabytes = 16 * 1024
    """The most a task may write to its scratch folder."""
    idle_s: Seconds = 30.0
    """An unused runner is ended after this long."""
    grace_s: Seconds = 5.0
    """From SIGTERM, on which a task may leave a checkpoint, to SIGKILL. A node that is going down gives at most 2.5 s."""


class EnvironmentSettings(_Section, frozen=True, kw_only=True):
    """[environments]: packages that jobs ask for, built with uv and kept for the next job that asks for the same."""

    index: Annotated[str, Meta(max_length=4096)] = ""
    """Address of a package index; empty: what uv's variables or pip's settings name, else PyPI; ``none``: there is none."""
    extra_indexes: Annotated[tuple[Annotated[str, Meta(max_length=4096)], ...], Meta(max_length=16)] = ()
    """Further ones; a package that one of them has is taken from there."""
    find_links: Annotated[tuple[Annotated[str, Meta(max_length=4096)], ...], Meta(max_length=16)] = ()
    """Folders, or addresses of pages, with packages as files."""
    hosts: Annotated[tuple[Annotated[str, Meta(max_length=255)], ...], Meta(max_length=64)] = ()
    """HOST or HOST:PORT that builds may reach besides those of the indexes, as some keep their files elsewhere."""
    certificates: Annotated[str, Meta(max_length=4096)] = ""
    """A file of certificates to trust for these; empty: SSL_CERT_FILE, what pip's settings name, else uv's own."""
    quota_mb: Megabytes = 20 * 1024
    """Disk for environments and packages kept for further ones; the least recently used that no task needs go first."""
    disk_mb: Megabytes = 8 * 1024
    """The most that one build may write."""
    time_s: Annotated[int, Meta(ge=1, le=24 * 3600)] = 1800
    """The longest that one build may take."""


class StoreSettings(_Section, frozen=True, kw_only=True):
    """[store]: how much disk may be used."""

    blobs_mb: Megabytes = 20 * 1024
    """Quota for blobs; the least recently used that no live job needs go first."""
    reserve_mb: Megabytes = 1024
    """Free disk that is left alone; nothing is taken in below it."""
    keep_jobs: Annotated[int, Meta(ge=1, le=1_000_000)] = 1000
    """Finished jobs that `p2pq jobs` still lists."""
    keep_days: Annotated[int, Meta(ge=1, le=3650)] = 30
    """Days that finished jobs, and results kept for an absent owner, stay."""


class BridgeSettings(_Section, frozen=True, kw_only=True):
    """[bridge]: carry links between peers that cannot reach each other."""

    enabled: bool = False
    """Be a bridge; takes the capability ``bridge`` (`p2pq invite --caps work,submit,bridge`), which founders have."""
    batch: bool = False
    """As a bridge, speak for the workers linked here to masters that they have no link to, with few messages, instead."""


class PolicySettings(_Section, frozen=True, kw_only=True):
    """[policy]: when guests may run on this machine, which is first of all its owner's."""

    mode: Annotated[str, Meta(min_length=1, max_length=RULE_CHARS_MAX)] = "always"
    """``always``, ``idle``, ``night``, ``screensaver``, or a rule over what the sensors say (``core.rules``)."""
    idle_s: Seconds = 900.0
    """idle: guests start after this long without input ..."""
    load_max: Share = 0.3
    """... while other programs use no more than this part of the cores."""
    load_pause: Share = 0.5
    """idle: once other programs have used this part of the cores ..."""
    load_pause_s: Annotated[float, Meta(ge=0, le=1e9)] = 120.0
    """... for this long, guests are out of the way."""
    resume_s: Annotated[float, Meta(ge=0, le=1e9)] = 300.0
    """They go on when it has been quiet again for this long."""
    evict_s: Annotated[float, Meta(ge=0, le=1e9)] = 600.0
    """What has stood still for this long goes back to its owner, and elsewhere."""
    on_return: Literal["suspend", "kill"] = "suspend"
    """What becomes of guests when they have to get out of the way. ``screensaver`` kills, always."""
    checkpoint_signal: Annotated[
        str | int, Meta(description='a signal\'s name in quotes, as "TERM" or "USR1", or its number, from 1 to 64')
    ] = "TERM"
    """What tells a task that is to go that it may leave a checkpoint."""
    grace_s: Annotated[float, Meta(ge=0, le=3600)] = 10.0
    """From that signal to SIGKILL."""
    start: Hour = "22:00"
    """night: guests run from here ..."""
    end: Hour = "07:00"
    """... until here, by the local clock."""
    programs: Annotated[tuple[Annotated[str, Meta(min_length=1, max_length=255)], ...], Meta(max_length=64)] = ()
    """Names of programs; while one of them runs, guests are out of the way. idle, night and screensaver only."""
    on_battery: bool = False
    """Let guests run on battery, too. idle, night and screensaver only, which otherwise need to know."""
    full_screen: bool = True
    """A program that fills the screen keeps guests out of the way. idle and night only, which then need to know."""
    load_probe: Annotated[str, Meta(max_length=4096)] = ""
    """A command that prints what counts as the load instead, as a number; empty: what other programs use of the cores."""
    suspended_memory_mb: Megabytes | None = None
    """Guests that stand still and take more memory than this, together, go at once; unset: no limit."""

    @property
    def signal(self) -> str | int:
        """The signal's name without SIG, or its number."""
        text = str(self.checkpoint_signal).removeprefix("SIG")
        return int(text) if text.isdecimal() else text

    @property
    def from_minute(self) -> int:
        """Minutes from midnight to ``start``."""
        return _minutes(self.start)

    @property
    def to_minute(self) -> int:
        """Minutes from midnight to ``end``."""
        return _minutes(self.end)


class ScheduleSettings(_Section, frozen=True, kw_only=True):
    """[schedule]: leases, requests and fairness; the defaults are what the simulations check."""

    lease_s: Seconds = 60.0
    """A lease that is not renewed for this long is over."""
    heartbeat_s: Seconds = 15.0
    """How often a worker renews its leases."""
    request_s: Seconds = 2.0
    """A request that is not answered within this time has lapsed."""
    ahead_s: Annotated[float, Meta(ge=0, le=60)] = 1.0
    """At most this much work is leased ahead of what runs."""
    fairness: Literal["time", "uniform"] = "time"
    """``time``: owners share time equally; ``uniform``: a random owner per request (for comparison)."""
    fair_scale_s: Seconds = 10.0
    """An owner that is this much ahead is drawn e times less often; where attempts are short, two mean attempts count instead."""
    backoff_s: Seconds = 1.0
    """First pause before a failed task is tried again on the same worker; doubles up to 60 s."""


class LogSettings(_Section, frozen=True, kw_only=True):
    """[log]: what the node writes to standard error and to ``HOME/node.log``."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    """The least important lines that are written."""
    json: bool = False
    """One JSON object a line instead of text."""
    flight: bool = False
    """Write what the core hears to ``HOME/flight``, so that it can be replayed; such a file holds the node's keys."""


class PeerSettings(_Section, frozen=True, kw_only=True):
    """[[peer]]: what this node has to do with another mesh, as far as a peering with that one lets it.

    A mesh that is not named gets no link, whatever admins have signed.
    """

    mesh: Annotated[str, Meta(min_length=52, max_length=64, description=WHOLE_ID)]
    """The other mesh's id, as `p2pq mesh peers` shows it."""
    accept: bool = False
    """Run tasks of its owners here: always in the strict sandbox, and after those of the own mesh."""
    offer: bool = False
    """Let its machines run the jobs of this node: their owners can read what is submitted."""
    bridge: bool = False
    """Let its bridges carry links to this node, and, as a bridge, carry links between the two meshes."""

    @property
    def id(self) -> MeshId:
        """The mesh.

        Raises:
            Reject: it is no mesh's id.
        """
        return MeshId(from_text(self.mesh, MESH_ID_BYTES))


class Settings(_Section, frozen=True, kw_only=True):
    """The whole configuration."""

    config_version: Literal[1] = 1
    node: NodeSettings = NodeSettings()
    runner: RunnerSettings = RunnerSettings()
    environments: EnvironmentSettings = EnvironmentSettings()
    store: StoreSettings = StoreSettings()
    schedule: ScheduleSettings = ScheduleSettings()
    policy: PolicySettings = PolicySettings()
    bridge: BridgeSettings = BridgeSettings()
    log: LogSettings = LogSettings()
    peer: Annotated[
        tuple[PeerSettings, ...],
        Meta(max_length=64, description="[[peer]] in double brackets, once for each other mesh, at most 64 times"),
    ] = ()
    """What this node has to do with other meshes."""

    @property
    def welcome(self) -> dict[bytes, tuple[str, ...]]:
        """Return, by mesh, what this node lets members of another one do here: capabilities, sorted."""
        return {each.id: _welcome(each) for each in self.peer}


def check(settings: Settings) -> None:
    """Assert the relations between settings.

    Raises:
        ConfigError: naming both settings.
    """
    meshes: list[bytes] = []
    for number, peer in enumerate(settings.peer):
        try:
            meshes.append(peer.id)
        except Reject:
            raise ConfigError(f'peer[{number}].mesh is "{peer.mesh}", which is no id; write {WHOLE_ID}') from None
        if meshes.index(meshes[-1]) < number:
            raise ConfigError(
                f"peer[{number}].mesh names the same mesh as peer[{meshes.index(meshes[-1])}].mesh; "
                "write all that holds for it under one [[peer]]"
            )
    _check_policy(settings.policy)
    schedule = settings.schedule
    if schedule.lease_s < 3 * schedule.heartbeat_s:
        raise ConfigError(
            f"schedule.lease_s ({schedule.lease_s:g}) must be at least three times "
            f"schedule.heartbeat_s ({schedule.heartbeat_s:g}), or one lost message ends a lease"
        )


def _check_policy(policy: PolicySettings) -> None:
    name, said = policy.signal, f"policy.checkpoint_signal is {policy.checkpoint_signal}"
    if name in DEAF:
        raise ConfigError(f"{said}, on which no task can leave a checkpoint; write one like TERM or USR1")
    if name not in SIGNALS and not (isinstance(name, int) and 1 <= name <= SIGNALS_MAX):
        raise ConfigError(f"{said}; write a number from 1 to {SIGNALS_MAX} or one of {', '.join(SIGNALS)}")
    if policy.load_pause < policy.load_max:
        raise ConfigError(
            f"policy.load_pause ({policy.load_pause:g}) must be at least policy.load_max ({policy.load_max:g}), "
            "or guests would begin at a load that ends them"
        )
    if policy.start == policy.end:
        raise ConfigError(
            f'policy.start and policy.end are both "{policy.start}"; write the hours between which guests may run'
        )


def _minutes(hour: str) -> int:
    hours, _, minutes = hour.partition(":")
    return 60 * int(hours) + int(minutes)


def _welcome(peer: PeerSettings) -> tuple[str, ...]:
    caps = {"bridge": peer.bridge, "submit": peer.accept, "work": peer.offer}
    return tuple(cap for cap, wanted in caps.items() if wanted)
