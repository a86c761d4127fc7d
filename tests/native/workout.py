"""
Some of everything in one process: what `make asan` runs before the tests.

Reads, writes, copies, metadata, directories, links, memory, cancels, full queues, callbacks that
raise, workers and the spawner killed meanwhile. Results are checked roughly; the sanitizers do the
rest.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import stat
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


def of_files(
    pool: procaio.Pool, directory: str, path: str, fd: int, random_: random.Random
) -> list:
    """Loading, copying, cutting and syncing."""
    small = os.path.join(directory, f"file-{random_.randrange(300)}")
    offset, length = random_.randrange(1 << 20), random_.choice([0, 1, 5000, 1 << 20])
    return [
        lambda: procaio.aio_load(path, pool=pool),
        lambda: procaio.aio_load(path, bytearray(length), pool=pool),
        lambda: procaio.aio_load(small + "/" * random_.randrange(5000), pool=pool),
        lambda: procaio.aio_load(directory, pool=pool),
        lambda: procaio.aio_sendfile(fd, fd, offset, length, pool=pool),
        lambda: procaio.aio_readahead(fd, offset, length, pool=pool),
        lambda: procaio.aio_truncate(small, random_.randrange(10_000), pool=pool),
        lambda: procaio.aio_truncate(fd, 2 << 20, pool=pool),
        lambda: procaio.aio_sync_file_range(fd, offset, length, random_.randrange(9), pool=pool),
        lambda: procaio.aio_pathsync(small, pool=pool),
    ]


def of_names(
    pool: procaio.Pool, directory: str, path: str, fd: int, random_: random.Random
) -> list:
    """Times, modes, owners and links."""
    name = os.path.join(directory, f"made-{random_.randrange(20)}")
    other = os.path.join(directory, f"made-{random_.randrange(20)}")
    return [
        lambda: procaio.aio_utime(path, random_.uniform(-1e9, 1e9), None, pool=pool),
        lambda: procaio.aio_utime(fd, ns=(random_.randrange(10**18), -1), pool=pool),
        lambda: procaio.aio_chown(path, None, -1, pool=pool),
        lambda: procaio.aio_chmod(fd, 0o600 | random_.randrange(0o100), pool=pool),
        lambda: procaio.aio_mknod(name, stat.S_IFIFO | 0o600, pool=pool),
        lambda: procaio.aio_link(path, name, pool=pool),
        lambda: procaio.aio_symlink("x" * random_.randrange(5000), name, pool=pool),
        lambda: procaio.aio_rename(name, other, pool=pool),
        lambda: procaio.aio_unlink(other, pool=pool),
        lambda: procaio.aio_readlink(name, pool=pool),
        lambda: procaio.aio_readlink(name + "/" * random_.randrange(10_000), pool=pool),
    ]


def of_memory(pool: procaio.Pool, buffer: bytearray, random_: random.Random) -> list:
    """On the program's own memory."""
    offset = random_.randrange(len(buffer))
    return [
        lambda: procaio.aio_msync(buffer, offset, pool=pool),
        lambda: procaio.aio_mtouch(buffer, offset, None, random_.randrange(2), pool=pool),
        lambda: procaio.aio_mlock(buffer, 0, offset, pool=pool),
    ]


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
            *of_files(pool, directory, path, fd, random_),
            *of_names(pool, directory, path, fd, random_),
            *of_memory(pool, buffer, random_),
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
    procaio.munlockall()
    print(f"{time.process_time():.1f} s of processor time: {outcomes}")


if __name__ == "__main__":
    main()
