"""Does not want to end: ignores SIGTERM, stops itself, or closes its output and runs on."""
# Plain system calls, as an attacker writes them.
# ruff: noqa: PTH123

import os
import signal
import sys
import time

if "ignore" in sys.argv:
    for number in set(signal.valid_signals()) - {signal.SIGKILL, signal.SIGSTOP}:
        try:
            signal.signal(number, signal.SIG_IGN)
        except OSError:
            continue
with open("begun", "w"):
    pass
if "close" in sys.argv:
    os.close(1)
    os.close(2)
if "polite" in sys.argv:

    def bye(*_):
        print("saved", flush=True)
        os._exit(7)

    signal.signal(signal.SIGTERM, bye)
if "stop" in sys.argv:
    os.kill(os.getpid(), signal.SIGSTOP)
while True:
    time.sleep(100)
