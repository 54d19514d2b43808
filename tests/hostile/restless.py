"""Works in threads, children, sessions of their own and an orphan, and starts processes all the time, until ``over`` appears."""

import os
import subprocess
import sys
import threading
import time
from pathlib import Path


def count(name: str) -> None:
    with Path(name).open("ab", 0) as file:
        while True:
            file.write(b".")
            time.sleep(0.002)


if len(sys.argv) > 1:
    count(sys.argv[1])
for _ in range(3):
    threading.Thread(target=count, args=("thread",), daemon=True).start()
subprocess.Popen([sys.executable, __file__, "child"])
subprocess.Popen([sys.executable, __file__, "session"], start_new_session=True)
if os.fork() == 0:
    if os.fork() == 0:
        os.setsid()
        count("orphan")
    os._exit(0)
os.wait()
subprocess.Popen(["/bin/sh", "-c", "while /bin/true; do echo . >> forks; done"])
while not all(Path(name).exists() for name in ("thread", "child", "session", "orphan", "forks")):
    time.sleep(0.01)
print("up", flush=True)
while not Path("over").exists():
    time.sleep(0.005)
os._exit(0)
