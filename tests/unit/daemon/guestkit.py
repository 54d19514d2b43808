"""What the tests of attempts share: the order to run one."""

from p2pq.core.effects import Start
from p2pq.core.events import Exited
from p2pq.daemon.environments import Environment
from p2pq.model.ids import JobId, LeaseId, NodeId
from p2pq.model.job import Limits, Resources
from p2pq.wire import prims
from p2pq.wire.body import AnyJobBody
from p2pq.wire.objects import ResultItem

REPLY = b"r" * 32
"""Opens results."""


class NoEnvironments:
    """Environments of jobs that ask for none, and what was asked of them."""

    def __init__(self) -> None:
        self.result: Environment | Exception | None = None
        self.asked: list[Start] = []

    async def of_task(self, start: Start, _job: AnyJobBody) -> Environment | None:
        self.asked.append(start)
        if isinstance(self.result, Exception):
            raise self.result
        if self.result is not None:
            self.result.hold()
        return self.result


def start_of(*, master: NodeId, lease: LeaseId, job: JobId, **fields: object) -> Start:
    plain = {
        "owner": "x",
        "task": 0,
        "attempt": 1,
        "tasks": 1,
        "key": b"k" * 32,
        "reply": prims.x25519_public(REPLY),
        "body": (),
        "blobs": (),
        "resources": Resources(),
        "limits": Limits(),
        "sandbox": "strict",
        "own": False,
    }
    return Start(master=master, lease=lease, job=job, **(plain | fields))  # type: ignore[arg-type]


def result_of(start: Start, event: Exited) -> ResultItem:
    """Return what its master is told of an attempt that ended."""
    return ResultItem(
        job=start.job,
        task=start.task,
        attempt=start.attempt,
        lease=start.lease,
        outcome=event.outcome,
        sandbox=start.sandbox,
        key=event.key,
        body=event.body,
        blobs=event.blobs,
    )
