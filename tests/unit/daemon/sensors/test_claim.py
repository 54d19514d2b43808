"""A screensaver's claim ends with its process, however that ends."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from p2pq.daemon.sensors.claim import FILE, Claim, claimed

HOLD = """
import sys
from pathlib import Path
from p2pq.daemon.sensors.claim import claimed
with claimed(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_claim_holds_as_long_as_somebody_makes_it(tmp_path: Path) -> None:
    claim = Claim(tmp_path)
    assert not claim.held()
    with claimed(tmp_path):
        assert claim.held()
        with claimed(tmp_path):  # one for each screen
            assert claim.held()
        assert claim.held()
    assert not claim.held()
    assert (tmp_path / FILE).stat().st_mode & 0o777 == 0o600


def test_what_is_no_file_of_ours_is_no_claim(tmp_path: Path) -> None:
    (tmp_path / FILE).symlink_to(tmp_path / "elsewhere")
    assert not Claim(tmp_path).held()
    with pytest.raises(OSError, match="symbolic links"), claimed(tmp_path):
        pass


def test_a_process_that_is_killed_claims_nothing(tmp_path: Path) -> None:
    claim = Claim(tmp_path)
    argv = [sys.executable, "-c", HOLD, str(tmp_path)]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"held\n"
        assert claim.held()
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert not claim.held()
