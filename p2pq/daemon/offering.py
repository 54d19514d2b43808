"""What this machine offers as a worker: slots, memory, labels, and whether guests are welcome at all."""

import os
import platform
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

import psutil

from p2pq.core.events import Offering
from p2pq.daemon import gpus, requirements
from p2pq.daemon.jobpython import JobPython, python_features, resolve_python
from p2pq.daemon.selftest import IsolationReport, self_test
from p2pq.errors import SandboxError
from p2pq.model.config import Settings
from p2pq.model.job import Profile

MEMORY_MB_MIN: Final = 512
"""What a task that asks for nothing gets at least, however many slots there are."""
LABELS_MAX: Final = 256
LABEL_CHARS_MAX: Final = 64


@dataclass(frozen=True, slots=True)
class Machine:
    """What there is."""

    slots: int
    memory_mb: int
    task_memory_mb: int
    """Limit of a task that asks for none."""
    gpus: tuple[int, ...] = ()
    """Their numbers."""


def machine(settings: Settings) -> Machine:
    """Look at this machine, as far as the settings do not say."""
    slots = len(os.sched_getaffinity(0)) if settings.node.slots is None else settings.node.slots
    memory_mb = psutil.virtual_memory().total >> 20
    task_memory_mb = settings.runner.memory_mb or max(MEMORY_MB_MIN, memory_mb // max(1, slots))
    return Machine(slots=slots, memory_mb=memory_mb, task_memory_mb=task_memory_mb, gpus=gpus.find(settings.node.gpus))


def find_python(settings: Settings, home: Path) -> tuple[JobPython, str]:
    """Return the interpreter of jobs and, where it cannot be used in a sandbox, the reason why.

    Own tasks then run without a sandbox, and still with the interpreter that the settings name: another one would lack
    the packages that they were written for.
    """
    wanted = Path(settings.runner.python).expanduser() if settings.runner.python else None
    try:
        return resolve_python(wanted, user_home=Path.home(), p2pq_home=home), ""
    except SandboxError as error:
        version = ".".join(map(str, sys.version_info[:3]))
        return JobPython(executable=wanted or Path(sys.executable), prefixes=(), version=version), str(error)


def prove(
    python: JobPython, home: Path, socket: Path, problem: str, floor: Literal["strict", "basic"] = "strict"
) -> tuple[IsolationReport, frozenset[str]]:
    """Run the self-test and ask what the interpreter can import. Blocking, some 60 ms; call it in a worker thread."""
    with ThreadPoolExecutor(1, thread_name_prefix="p2pq-features") as pool:
        asked = pool.submit(python_features, python)  # side by side: own tasks wait for both
        if problem:
            report = IsolationReport("none", problem, "set [runner] python to an interpreter in a folder of its own")
        else:
            report = self_test(python, user_home=Path.home(), p2pq_home=home, socket_path=socket, floor=floor)
    try:
        features = asked.result()
    except SandboxError as error:
        return IsolationReport("none", str(error), report.suggestion), frozenset()
    return report, features


def offering(  # noqa: PLR0913  what there is to know of a machine
    settings: Settings,
    found: Machine,
    python: JobPython,
    features: frozenset[str],
    report: IsolationReport,
    full: str = "",
    *,
    builds: bool = False,
) -> Offering:
    """Return what to tell the core: the profile for guests, and the one for this machine's own tasks.

    ``builds`` says that environments can be built here, if a sandbox holds.
    ``full`` says why no task could be started for lack of disk; empty if there is enough.
    """
    if not settings.node.accept:
        reason = "this node runs nobody else's tasks (accept = false)"
    elif report.level == "none":
        reason = f"tasks of others cannot be shut in here: {report.reason}"
    elif found.slots == 0:
        reason = "this node offers no slots (slots = 0)"
    elif full:
        reason = full
    else:
        reason = ""
    guests = Profile(
        slots=found.slots,
        memory_mb=found.memory_mb,
        gpus=len(found.gpus),
        labels=labels(settings, python, features, builds=builds and report.level == "strict"),
        sandbox=report.level,
        accepts=not reason,
        reason=reason[:300],
    )
    own = Profile(
        slots=max(1, found.slots),
        memory_mb=found.memory_mb,
        gpus=len(found.gpus),
        labels=guests.labels,
        sandbox=report.level,
        accepts=True,
    )
    return Offering(profile=guests, own=own)


def kind_of_machine() -> tuple[tuple[str, str], tuple[str, str]]:
    """Return the labels of what programs are made for."""
    return ("os", platform.system().lower()), ("arch", platform.machine())


def labels(
    settings: Settings, python: JobPython, features: frozenset[str], *, builds: bool = False
) -> tuple[tuple[str, str], ...]:
    """Return what ``--need`` is matched against: the settings' labels first, so that no number of modules crowds them out."""
    minor = ".".join(python.version.split(".")[:2])
    installed = sorted(name for name in features - sys.stdlib_module_names if not name.startswith("_"))
    pairs = [
        *sorted(settings.node.labels.items()),
        *([requirements.LABEL] if builds else []),
        *kind_of_machine(),
        ("python", python.version),
        ("python", minor),
        *(("has", name) for name in installed),
    ]
    fitting = (pair for pair in dict.fromkeys(pairs) if all(0 < len(part) <= LABEL_CHARS_MAX for part in pair))
    return tuple(fitting)[:LABELS_MAX]
