"""Constants of aio_readdirx, with the names and values of IO::AIO."""

from __future__ import annotations

import enum

__all__ = [
    "DT_BLK",
    "DT_CHR",
    "DT_DIR",
    "DT_FIFO",
    "DT_LNK",
    "DT_REG",
    "DT_SOCK",
    "DT_UNKNOWN",
    "DT_WHT",
    "READDIR_DENTS",
    "READDIR_DIRS_FIRST",
    "READDIR_FOUND_UNKNOWN",
    "READDIR_STAT_ORDER",
    "DirentType",
    "ReaddirFlags",
]


class ReaddirFlags(enum.IntFlag):
    """What aio_readdirx is asked for, and what it found."""

    READDIR_DENTS = 1
    READDIR_DIRS_FIRST = 2
    READDIR_STAT_ORDER = 4
    READDIR_FOUND_UNKNOWN = 8


class DirentType(enum.IntEnum):
    """The kind of a directory entry, as the file system reports it (dirent.h)."""

    DT_UNKNOWN = 0
    DT_FIFO = 1
    DT_CHR = 2
    DT_DIR = 4
    DT_BLK = 6
    DT_REG = 8
    DT_LNK = 10
    DT_SOCK = 12
    DT_WHT = 14


READDIR_DENTS = ReaddirFlags.READDIR_DENTS
READDIR_DIRS_FIRST = ReaddirFlags.READDIR_DIRS_FIRST
READDIR_STAT_ORDER = ReaddirFlags.READDIR_STAT_ORDER
READDIR_FOUND_UNKNOWN = ReaddirFlags.READDIR_FOUND_UNKNOWN

DT_UNKNOWN = DirentType.DT_UNKNOWN
DT_FIFO = DirentType.DT_FIFO
DT_CHR = DirentType.DT_CHR
DT_DIR = DirentType.DT_DIR
DT_BLK = DirentType.DT_BLK
DT_REG = DirentType.DT_REG
DT_LNK = DirentType.DT_LNK
DT_SOCK = DirentType.DT_SOCK
DT_WHT = DirentType.DT_WHT
