"""
Thumbnails of grey images: load, make smaller, write, with many files in flight.

    python thumbnails.py SOURCE TARGET

Reads every .pgm file of SOURCE; writes thumbnails, at most 64 pixels wide and high, to TARGET.
Workers read and write files while Python computes; a thumbnail appears complete or not at all.
"""

from __future__ import annotations

import asyncio
import os
import re
import sys

import procaio

IN_FLIGHT = 32
HEADER = re.compile(rb"P5\s+(\d+)\s+(\d+)\s+255\s")


def shrunk(image: bytes, most: int = 64) -> bytes:
    """Give the image with every n-th pixel of every n-th row, so that it is small enough."""
    header = HEADER.match(image)
    if not header:
        raise ValueError("not a binary PGM image with 255 shades")
    width, height = int(header[1]), int(header[2])
    pixels = image[header.end() :]
    if len(pixels) < width * height:
        raise ValueError("the image is cut off")
    step = max(1, -(-max(width, height) // most))
    rows = [pixels[y * width : (y + 1) * width : step] for y in range(0, height, step)]
    return b"P5 %d %d 255\n" % (len(rows[0]), len(rows)) + b"".join(rows)


async def write(path: str, data: bytes) -> None:
    """Write a new file under another name, then give it its own."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
    fh = await procaio.aio_open(path + ".part", flags)
    try:
        written = 0
        while written < len(data):
            written += await procaio.aio_write(fh, written, None, data, written)
    finally:
        await procaio.aio_close(fh)
    await procaio.aio_rename(path + ".part", path)


async def thumbnail(source: str, target: str, turns: asyncio.Semaphore) -> bool:
    """Make one thumbnail; tell whether that went well."""
    async with turns:
        try:
            await write(target, shrunk(await procaio.aio_load(source)))
        except (OSError, ValueError) as error:
            print(f"{source}: {error}", file=sys.stderr)
            return False
        return True


async def main(source: str, target: str) -> None:
    """Make all thumbnails."""
    names = [name for name in await procaio.aio_readdir(source) if name.endswith(".pgm")]
    turns = asyncio.Semaphore(IN_FLIGHT)
    made = await asyncio.gather(
        *(thumbnail(f"{source}/{name}", f"{target}/{name}", turns) for name in names)
    )
    print(f"{sum(made)} thumbnails, {made.count(False)} failures")


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2]))
