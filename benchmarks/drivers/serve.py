"""``python serve.py PEER FOLDER``: start a peer, say what it can do, and measure what is asked, one line of JSON each.

A peer is a module ``with_PEER`` with ``peer(folder)``, a context manager that gives an object with some of these methods:

- ``commands(argvs)``: run commands, return their exit codes (-1: not zero, and the peer does not say more);
- ``one(argv)``: run one command and return its exit code, if there is a shorter way than ``commands``;
- ``calls(count)``: call ``work.nothing`` with each number below ``count`` and return what it returned;
- ``chunks(count)``: the same, with several calls to a message, where the peer has an option for that;
- ``outputs(argvs)``: run commands, return what each printed.

``setting`` of the object says how the peer is used, ``lacks`` why a method is not there.
"""

import importlib
import json
import os
import sys
import time
from pathlib import Path
from typing import Any, Final

WORKS: Final = ("commands", "calls", "chunks", "outputs")


def main() -> None:
    """Serve until standard input ends."""
    name, folder = sys.argv[1:]
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print is no answer

    def answer(**fields: object) -> None:
        answers.write(json.dumps(fields) + "\n")
        answers.flush()

    try:
        module = importlib.import_module(f"with_{name}")
    except ImportError as error:
        answer(missing=str(error))
        return
    with module.peer(Path(folder)) as peer:
        able = [work for work in WORKS if hasattr(peer, work)]
        answer(works=able, setting=peer.setting, lacks=getattr(peer, "lacks", {}))
        for line in sys.stdin:
            request = json.loads(line)
            try:
                answer(**_measure(peer, request))
            except Exception as error:  # noqa: BLE001  whatever the peer raises is what it did, not our end
                answer(error=f"{type(error).__name__}: {error}")


def _measure(peer: Any, request: dict[str, Any]) -> dict[str, Any]:
    match request["work"]:
        case "commands":
            took, codes = _timed(lambda: peer.commands([request["argv"]] * request["count"]))
            return {"seconds": [took], "good": sum(code == 0 for code in codes)}
        case "latency":
            one = getattr(peer, "one", None) or (lambda argv: peer.commands([argv])[0])
            runs = [_timed(lambda: one(request["argv"])) for _ in range(request["count"])]
            return {"seconds": [took for took, _ in runs], "good": sum(code == 0 for _, code in runs)}
        case "calls" | "chunks" as work:
            took, results = _timed(lambda: list(getattr(peer, work)(request["count"])))
            return {"seconds": [took], "good": sum(one == number for number, one in enumerate(results))}
        case "outputs":
            took, outputs = _timed(lambda: peer.outputs(request["argvs"]))
            return {"seconds": [took], "good": len(outputs), "outputs": outputs}
        case other:
            raise ValueError(f"there is no work {other!r}")


def _timed(work: Any) -> tuple[float, Any]:
    began = time.perf_counter()
    done = work()
    return time.perf_counter() - began, done


if __name__ == "__main__":
    main()
