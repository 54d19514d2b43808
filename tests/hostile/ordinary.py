"""Not hostile at all: what ordinary programs do must work in the sandbox."""

import asyncio
import multiprocessing
import tempfile
import threading
from multiprocessing import shared_memory


def square(number):
    return number * number


async def sub():
    process = await asyncio.create_subprocess_exec("printf", "sub", stdout=asyncio.subprocess.PIPE)
    return (await process.communicate())[0]


if __name__ == "__main__":
    done = []
    threads = [threading.Thread(target=done.append, args=(1,)) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with tempfile.TemporaryFile("w+") as file:
        file.write("x")
        file.seek(0)
        text = file.read()
    print(len(done), asyncio.run(sub()), text, flush=True)
    with multiprocessing.get_context("fork").Pool(2) as pool:
        squares = pool.map(square, [1, 2, 3])
    memory = shared_memory.SharedMemory(create=True, size=100)
    memory.buf[0] = 5
    print(squares, memory.buf[0])
    memory.close()
    memory.unlink()
