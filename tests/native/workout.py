"""
Some of everything in one process: what `make asan` runs before the tests.

Reads, writes, stats, directories, Buffers, cancels, full queues, callbacks that raise, workers and
the spawner killed meanwhile. Results are checked roughly; the sanitizers do the rest.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import tempfile
import time

import procaio

ROUNDS = 40


def kill_one(pool: procaio.Pool, random_: random.Random) -> None:
    """Kill some worker, or the spawner."""
    statistics = pool.statistics()
    pids = [worker.pid for worker in statistics.workers if worker.pid > 0]
    if random_.randrange(4) == 0 and statistics.spawner_pid > 0:
        pids = [statistics.spawner_pid]
    if pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(random_.choice(pids), signal.SIGKILL)


def burst(pool: procaio.Pool, directory: str, fd: int, random_: random.Random) -> list:
    """Requests of all kinds."""
    path = os.path.join(directory, "data")
    made = []
    for _ in range(random_.randrange(1, 300)):
        offset, length = random_.randrange(1 << 20), random_.choice([1, 100, 4096, 70_000, 1 << 20])
        buffer = bytearray(length)
        kinds = [
            lambda: procaio.aio_read(fd, offset, length, pool=pool),  # noqa: B023 - called at once
            lambda: procaio.aio_read(fd, offset, length, buffer, pool=pool),  # noqa: B023
            lambda: procaio.aio_write(fd, offset, length, bytes(length), pool=pool),  # noqa: B023
            lambda: procaio.aio_stat(path, pool=pool),
            lambda: procaio.aio_stat(path + "/not/there" * random_.randrange(1, 50), pool=pool),
            lambda: procaio.aio_lstat(fd, pool=pool),
            lambda: procaio.aio_statvfs(directory, pool=pool),
            lambda: procaio.aio_readdir(directory, pool=pool),
            lambda: procaio.aio_nop(pool=pool),
            lambda: procaio.aio_open(path, os.O_RDONLY, 0, pool=pool),
        ]
        procaio.aioreq_pri(random_.randrange(-4, 5))
        with contextlib.suppress(TypeError):
            made.append(random_.choice(kinds)())
    return made


def main() -> None:
    """Many rounds; every request of each has to end."""
    random_ = random.Random(1)
    outcomes = {"value": 0, "error": 0, "cancelled": 0}
    with tempfile.TemporaryDirectory() as directory:
        for number in range(300):
            with open(os.path.join(directory, f"file-{number}"), "w"):
                pass
        with open(os.path.join(directory, "data"), "w+b") as file, procaio.Pool() as pool:
            file.write(bytes(2 << 20))
            file.flush()
            for number in range(ROUNDS):
                requests = burst(pool, directory, file.fileno(), random_)
                for request in random_.sample(requests, len(requests) // 8):
                    request.cancel()
                if number % 4 == 3:
                    kill_one(pool, random_)
                for request in requests:
                    try:
                        value = request.wait(60)
                        outcomes["value"] += 1
                        if isinstance(value, procaio.FileHandle):
                            value.close()
                    except procaio.RequestCancelled:
                        outcomes["cancelled"] += 1
                    except TimeoutError:
                        raise
                    except OSError:
                        outcomes["error"] += 1
            outcomes["deaths"] = pool.statistics().worker_deaths
    print(f"{time.process_time():.1f} s of processor time: {outcomes}")


if __name__ == "__main__":
    main()
