"""Small scripts whose every visible trait must be the same in a fork of a warm interpreter and in a fresh one.

Each prints what it sees; what differs from run to run by its nature (process ids, times) it does not print.
"""

from textwrap import dedent
from typing import Final

_SCRIPTS: Final = {
    "empty": "",
    "prints": "print('hello')",
    "exit-0": "import sys; sys.exit()",
    "exit-3": "import sys; sys.exit(3)",
    "exit-300": "raise SystemExit(300)",
    "exit-text": "import sys; sys.exit('gone wrong \\u00e9')",
    "exit-false": "import sys; sys.exit(False)",
    "exit-object": "import sys; sys.exit([1, 2])",
    "exit-in-a-function": """
        import sys

        def f():
            try:
                sys.exit(4)
            finally:
                print("finally")

        f()
    """,
    "exit-at-once": "import os; print('lost?', end=''); os._exit(9)",
    "uncaught": """
        import json

        def parse(text):
            return json.loads(text)

        parse("{")
    """,
    "chained": """
        class Odd(Exception):
            pass

        try:
            try:
                1 / 0
            except ZeroDivisionError as error:
                raise Odd("first") from error
        except Odd:
            raise KeyError("second")
    """,
    "noted": """
        error = ValueError("x")
        if hasattr(error, "add_note"):
            error.add_note("a note")
        raise error
    """,
    "group": "raise ExceptionGroup('several', [ValueError(1), TypeError('two')])",
    "syntax-error": "import sys\nprint('never'\nx = = 1\n",
    "indentation-error": "def f():\n    pass\n  x = 1\n",
    "null-byte": "x = 1\0\n",
    "bad-encoding": "x = '\udcff'\n",
    "declared-encoding": "# -*- coding: latin-1 -*-\nprint(ascii('\udce9'))\n",
    "syntax-warning": "import json\nprint('a' is 'b', '\\d')\n",
    "keyboard-interrupt": "raise KeyboardInterrupt",
    "interrupted": "import os, signal; os.kill(os.getpid(), signal.SIGINT)",
    "killed": "import os, signal; print('before', flush=True); os.kill(os.getpid(), signal.SIGKILL)",
    "terminated": "import os, signal; os.kill(os.getpid(), signal.SIGTERM)",
    "aborted": "import os; os.abort()",
    "broken-pipe": """
        import os, sys
        read, write = os.pipe()
        os.close(read)
        os.write(write, b"x")
    """,
    "deep": """
        depth = 0

        def down():
            global depth
            depth += 1
            down()

        try:
            down()
        except RecursionError:
            print(depth)
        down()
    """,
    "atexit": """
        import atexit, json, sys
        atexit.register(print, "first registered")

        @atexit.register
        def last():
            print("last registered", file=sys.stderr)
            raise ValueError("in atexit")

        print("body")
    """,
    "excepthook": """
        import sys
        sys.excepthook = lambda kind, value, traceback: print("hook", kind.__name__, traceback.tb_frame.f_code.co_name)
        1 / 0
    """,
    "threads-left": """
        import threading, time

        def later():
            time.sleep(0.05)
            print("from the thread", threading.current_thread().name)

        threading.Thread(target=later, name="later").start()
        print(threading.main_thread() is threading.current_thread(), threading.current_thread().name)
    """,
    "daemon-threads-left": """
        import threading
        threading.Thread(target=threading.Event().wait, daemon=True).start()
        print("end")
    """,
    "a-thread-fails": """
        import threading
        threading.Thread(target=lambda: 1 / 0, name="t").start()
    """,
    "arguments": """
        import os, sys
        print([os.fsencode(arg) for arg in sys.argv], len(sys.orig_argv), sys.orig_argv[1:] == sys.argv)
    """,
    "main": """
        import sys
        import __main__
        print(__name__, __file__, __spec__, __package__, __doc__, type(__loader__).__name__, __builtins__)
        print(sys.modules["__main__"] is __main__, sorted(vars(__main__)), __annotations__)
        if __name__ == "__main__":
            print("is main")
    """,
    "interpreter": """
        import sys
        print(sys.flags, sys.path, sys.executable, sys.prefix, sys.warnoptions, sys._xoptions, sys.dont_write_bytecode)
        print(sorted(sys.path_importer_cache), [str(each) for each in sys.meta_path], len(sys.path_hooks))
        print(sys.getrecursionlimit(), sys.getswitchinterval(), sys.getfilesystemencoding(), sys.excepthook)
        print("sitecustomize" in sys.modules, "p2pq_script" in sys.modules, "_socket" in sys.modules)
    """,
    "frames": """
        import inspect, sys, traceback
        print(len(inspect.stack()), sys._getframe().f_back, sys.exc_info())
        traceback.print_stack()
    """,
    "streams": """
        import os, sys
        for stream in (sys.stdin, sys.stdout, sys.stderr):
            print(stream, stream.isatty(), stream.seekable(), stream.line_buffering, stream.write_through, stream.errors)
        print(repr(sys.stdin.read()), os.readlink("/proc/self/fd/0"), sys.__stdout__ is sys.stdout)
        print(sorted(map(int, os.listdir("/proc/self/fd")))[:-1])
    """,
    "much": """
        for number in range(20000):
            print(number, "x" * 80)
    """,
    "interleaved": """
        import os, sys
        print("one", end=" ")
        os.write(1, b"two ")
        sys.stdout.buffer.write(b"three\\xff ")
        print("four \\u20ac", end=" ")
        os.system("echo five")
    """,
    "cannot-encode": "print('\\udcff')",
    "signals": """
        import signal
        print({name: str(signal.getsignal(name)) for name in signal.valid_signals()}, signal.pthread_sigmask(0, ()))
    """,
    "process": """
        import os, resource
        print(os.getcwd(), os.getpid() == os.getpgid(0) == os.getsid(0), os.umask(0), os.nice(0), sorted(os.sched_getaffinity(0)))
        for name in sorted(dir(resource)):
            if name.startswith("RLIMIT_"):
                print(name, resource.getrlimit(getattr(resource, name)))
        try:
            os.waitpid(-1, 0)
        except ChildProcessError:
            print("no children")
    """,
    "environment": """
        import json, os, subprocess, sys
        print(dict(os.environ), dict(os.environb) == {os.fsencode(k): os.fsencode(v) for k, v in os.environ.items()})
        code = "import os; print(dict(os.environ))"
        subprocess.run([sys.executable, "-c", code])
    """,
    "parent": """
        import os
        with open(f"/proc/{os.getppid()}/cmdline", "rb") as file:
            print(b"runner" in file.read() or b"main.py" in file.read())
    """,
    "limits": """
        import resource
        resource.setrlimit(resource.RLIMIT_AS, (1 << 30, 1 << 30))
        bytearray(2 << 30)
    """,
    "processor-time": """
        import resource, time
        print(time.process_time() < 5.0, resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime)
        resource.setrlimit(resource.RLIMIT_CPU, (1, 1))
        while True:
            pass
    """,
    "pool": """
        import multiprocessing, os

        def square(number):
            return number * number

        if __name__ == "__main__":
            for method in ("fork", "spawn", "forkserver"):
                with multiprocessing.get_context(method).Pool(2) as pool:
                    print(method, pool.map(square, range(4)))
            print(multiprocessing.current_process().name, multiprocessing.active_children(), multiprocessing.parent_process())
    """,
    "futures": """
        from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor

        def fail(number):
            raise LookupError(number)

        if __name__ == "__main__":
            with ThreadPoolExecutor(2) as pool:
                print(list(pool.map(str, range(3))))
            with ProcessPoolExecutor(1) as pool:
                print(repr(pool.submit(fail, 3).exception()))
    """,
    "pickled": """
        import pickle
        from dataclasses import dataclass, field

        @dataclass(order=True)
        class Point:
            x: int
            y: list = field(default_factory=list)

        class Other:
            pass

        data = pickle.dumps([Point(1), Other])
        print(data, pickle.loads(data)[0], pickle.loads(data)[1] is Other, Point.__module__, Other)
    """,
    "annotated": """
        from __future__ import annotations
        import typing
        x: int = 3
        print(__annotations__, annotations.compiler_flag)
    """,
    "beside": """
        import helper
        from package.inner import VALUE
        import package
        print(helper.NAME, helper.__file__, VALUE, package.__path__, helper.cos(0))
    """,
    "shadows": """
        import email.message
        import colorsys
        import shadowed_by_nothing
    """,
    "no-such-module": "import json\nimport no_such_module_anywhere\nprint('never')\n",
    "fails-to-import": "import failing\n",
    "conditional": """
        import os
        os.environ["WANTED"] = "1"
        import reads_environment
        try:
            import no_such_module
        except ImportError as error:
            print(error.name, reads_environment.SEEN)
    """,
    "logging": """
        import logging
        logging.basicConfig(format="%(levelname)s %(name)s %(relativeCreated)d")
        logging.Formatter.converter = None
        logging.getLogger().handlers[0].setFormatter(logging.Formatter("%(levelname)s %(message)s"))
        logging.warning("said")
        print(logging.LogRecord("n", 10, "p", 1, "m", (), None).relativeCreated < 60_000)
    """,
    "warning": "import warnings\nwarnings.warn('careful')\nwarnings.warn('old', DeprecationWarning)\n",
    "asyncio": """
        import asyncio

        async def main():
            process = await asyncio.create_subprocess_exec("echo", "sub", stdout=-1)
            print(await process.stdout.read(), await asyncio.to_thread(max, 1, 2))
            raise LookupError("out of the loop")

        asyncio.run(main())
    """,
    "temporary": """
        import os, tempfile
        with tempfile.NamedTemporaryFile() as file:
            print(os.path.dirname(file.name), os.listdir(tempfile.gettempdir()) == [os.path.basename(file.name)])
    """,
    "numpy": """
        import numpy as np
        from numpy.linalg import eigvalsh
        print(eigvalsh(np.arange(16.0).reshape(4, 4) + np.eye(4)), np.random.default_rng(1).random(), np.geterr())
        np.random.seed(3)
        print(np.random.random(3), np.array([1.0]) / 0)
        np.linalg.inv(np.zeros((2, 2)))
    """,
    "garbage": """
        import gc, weakref

        class Cycle:
            pass

        a = Cycle()
        a.itself = a
        gone = weakref.ref(a, lambda _: print("collected"))
        del a
        gc.collect()
        print(gc.get_threshold(), gc.isenabled(), gc.garbage)

        class Last:
            def __del__(self):
                print("deleted at the end")

        last = Last()
        last.itself = last
    """,
    "unwritten": """
        import json
        json.hung_on = open(1, "w", closefd=False)
        json.hung_on.write("not written yet")
        left = open("left", "w")
        left.write("nor this")
        left.name_of_it = left
    """,
    "imports-at-the-end": """
        import decimal

        class Late:
            def __del__(self):
                import decimal
                from decimal import Decimal
                print(Decimal("1.10") + decimal.Decimal(1))

        late = Late()
    """,
    "ends-in-a-fork": """
        import atexit, os
        atexit.register(print, "at exit")
        if os.fork():
            os.wait()
            print("parent")
        else:
            print("child")
    """,
}

BESIDE: Final = {
    "helper.py": 'from math import cos\n\nNAME = "helper"\n',
    "package/__init__.py": "",
    "package/inner.py": "import decimal\nfrom . import deeper\nfrom .deeper import VALUE\n",
    "package/deeper.py": "VALUE = 7\n",
    "failing.py": "import json\n\ndef f():\n    raise RuntimeError('while importing')\n\nf()\n",
    "colorsys.py": "print('the one beside the script')\n",
    "quopri.py": "print('even where the library imports it')\n",
    "reads_environment.py": "import os\nSEEN = os.environ.get('WANTED')\n",
}
"""What lies beside each script."""

SCRIPTS: Final = {name: dedent(text) for name, text in _SCRIPTS.items()}
