"""
The groups of constants, with the names of IO::AIO and of the manual pages.

Each name stands here once, as `auto()`: its value is what the C compiler found in the system's
headers, or 0 if they lack it. From this file `docs/names.py` writes the table for the compiler,
`csrc/constants.h`, and the same names at module level, `_constants.py`.

Flags combine with `|` and stay in their group. Names of one value are one member: the one that
comes first, which gives its name to the repr.
"""

from __future__ import annotations

import enum
import os
from enum import auto
from typing import Any

from procaio._core import CONSTANTS

AT_FDCWD: int = CONSTANTS["AT_FDCWD"]
"""In place of a directory's descriptor: the working directory. openat(2)"""

PAGESIZE: int = os.sysconf("SC_PAGESIZE")
"""Bytes of a page of memory: offsets of mappings are multiples of it. mmap(2)"""

PIPE_BUF: int = CONSTANTS["PIPE_BUF"]
"""Bytes that are written to a pipe in one piece, whoever else writes. pipe(7)"""


def _from_compiler(name: str, start: int, count: int, last_values: list[Any]) -> int:  # noqa: ARG001
    """Give `auto()` its value: the name is enough."""
    return CONSTANTS.get(name, 0)


class _Flags(enum.IntFlag):
    """Bits to be combined."""

    _generate_next_value_ = staticmethod(_from_compiler)


class _Values(enum.IntEnum):
    """One of several."""

    _generate_next_value_ = staticmethod(_from_compiler)


# -- opening, permissions, positions ---------------------------------------------------------------


class OpenFlags(_Flags):
    """How aio_open opens, and what pipe2 sets. open(2)"""

    O_RDONLY = auto()
    O_WRONLY = auto()
    O_RDWR = auto()
    O_ACCMODE = auto()
    O_CREAT = auto()
    O_EXCL = auto()
    O_NOCTTY = auto()
    O_TRUNC = auto()
    O_APPEND = auto()
    O_NONBLOCK = auto()
    O_NDELAY = auto()
    O_DSYNC = auto()
    O_SYNC = auto()
    O_RSYNC = auto()
    O_FSYNC = auto()
    O_ASYNC = auto()
    O_DIRECT = auto()
    O_LARGEFILE = auto()
    O_DIRECTORY = auto()
    O_NOFOLLOW = auto()
    O_NOATIME = auto()
    O_CLOEXEC = auto()
    O_PATH = auto()
    O_TMPFILE = auto()
    O_EXEC = auto()
    O_SEARCH = auto()
    O_TTY_INIT = auto()


class FileMode(_Flags):
    """The kind of a file and its permissions: st_mode, and the mode of aio_mknod. inode(7)"""

    S_IFMT = auto()
    S_IFSOCK = auto()
    S_IFLNK = auto()
    S_IFREG = auto()
    S_IFBLK = auto()
    S_IFDIR = auto()
    S_IFCHR = auto()
    S_IFIFO = auto()
    S_IFWHT = auto()
    S_ISUID = auto()
    S_ISGID = auto()
    S_ISVTX = auto()
    S_IRWXU = auto()
    S_IRUSR = auto()
    S_IWUSR = auto()
    S_IXUSR = auto()
    S_IRWXG = auto()
    S_IRGRP = auto()
    S_IWGRP = auto()
    S_IXGRP = auto()
    S_IRWXO = auto()
    S_IROTH = auto()
    S_IWOTH = auto()
    S_IXOTH = auto()
    S_IREAD = auto()
    S_IWRITE = auto()
    S_IEXEC = auto()


class AccessMode(_Flags):
    """What aio_access asks for. access(2)"""

    F_OK = auto()
    X_OK = auto()
    W_OK = auto()
    R_OK = auto()


class AtFlags(_Flags):
    """How a path relative to a directory is resolved; AT_STATX_* for aio_statx. openat(2)"""

    AT_SYMLINK_NOFOLLOW = auto()
    AT_EACCESS = auto()
    AT_REMOVEDIR = auto()
    AT_SYMLINK_FOLLOW = auto()
    AT_NO_AUTOMOUNT = auto()
    AT_EMPTY_PATH = auto()
    AT_RECURSIVE = auto()
    AT_STATX_SYNC_TYPE = auto()
    AT_STATX_SYNC_AS_STAT = auto()
    AT_STATX_FORCE_SYNC = auto()
    AT_STATX_DONT_SYNC = auto()


class Whence(_Values):
    """From where aio_seek counts, or what it looks for. lseek(2)"""

    SEEK_SET = auto()
    SEEK_CUR = auto()
    SEEK_END = auto()
    SEEK_DATA = auto()
    SEEK_HOLE = auto()


class RenameFlags(_Flags):
    """What aio_rename2 does when the destination exists. renameat2(2)"""

    RENAME_NOREPLACE = auto()
    RENAME_EXCHANGE = auto()
    RENAME_WHITEOUT = auto()


class UtimeSpecial(_Values):
    """In place of nanoseconds: the current time, or no change.

    Only these objects are special; an int of the same value is an ordinary time. utimensat(2)
    """

    UTIME_NOW = auto()
    UTIME_OMIT = auto()


class XattrFlags(_Flags):
    """Whether aio_setxattr makes or changes an attribute; 0 = whatever is needed. setxattr(2)"""

    XATTR_CREATE = auto()
    XATTR_REPLACE = auto()


# -- directories -----------------------------------------------------------------------------------


class ReaddirFlags(enum.IntFlag):
    """What aio_readdirx is asked for, and what it found. The values are those of IO::AIO."""

    READDIR_DENTS = 1
    READDIR_DIRS_FIRST = 2
    READDIR_STAT_ORDER = 4
    READDIR_FOUND_UNKNOWN = 8


class DirentType(_Values):
    """The kind of a directory entry, as the file system reports it. readdir(3)"""

    DT_UNKNOWN = auto()
    DT_FIFO = auto()
    DT_CHR = auto()
    DT_DIR = auto()
    DT_BLK = auto()
    DT_REG = auto()
    DT_LNK = auto()
    DT_SOCK = auto()
    DT_WHT = auto()


# -- what is known of a file -----------------------------------------------------------------------


class StatvfsFlags(_Flags):
    """How a file system is mounted: f_flag of aio_statvfs. statvfs(3)"""

    ST_RDONLY = auto()
    ST_NOSUID = auto()
    ST_NODEV = auto()
    ST_NOEXEC = auto()
    ST_SYNCHRONOUS = auto()
    ST_MANDLOCK = auto()
    ST_WRITE = auto()
    ST_APPEND = auto()
    ST_IMMUTABLE = auto()
    ST_NOATIME = auto()
    ST_NODIRATIME = auto()
    ST_RELATIME = auto()


class StatxMask(_Flags):
    """Which fields aio_statx is to give, and has given. statx(2)"""

    STATX_TYPE = auto()
    STATX_MODE = auto()
    STATX_NLINK = auto()
    STATX_UID = auto()
    STATX_GID = auto()
    STATX_ATIME = auto()
    STATX_MTIME = auto()
    STATX_CTIME = auto()
    STATX_INO = auto()
    STATX_SIZE = auto()
    STATX_BLOCKS = auto()
    STATX_BASIC_STATS = auto()
    STATX_BTIME = auto()
    STATX_ALL = auto()
    STATX_MNT_ID = auto()
    STATX_DIOALIGN = auto()
    STATX_MNT_ID_UNIQUE = auto()
    STATX_SUBVOL = auto()
    STATX_WRITE_ATOMIC = auto()
    STATX_DIO_READ_ALIGN = auto()


class StatxAttributes(_Flags):
    """Attributes of a file, from aio_statx. statx(2)"""

    STATX_ATTR_COMPRESSED = auto()
    STATX_ATTR_IMMUTABLE = auto()
    STATX_ATTR_APPEND = auto()
    STATX_ATTR_NODUMP = auto()
    STATX_ATTR_ENCRYPTED = auto()
    STATX_ATTR_AUTOMOUNT = auto()
    STATX_ATTR_MOUNT_ROOT = auto()
    STATX_ATTR_VERITY = auto()
    STATX_ATTR_DAX = auto()
    STATX_ATTR_WRITE_ATOMIC = auto()


class FiemapFlags(_Flags):
    """What aio_fiemap does before it looks, and whose extents it gives. linux/fiemap.h"""

    FIEMAP_FLAG_SYNC = auto()
    FIEMAP_FLAG_XATTR = auto()
    FIEMAP_FLAG_CACHE = auto()
    FIEMAP_FLAGS_COMPAT = auto()


class ExtentFlags(_Flags):
    """What an extent of aio_fiemap is like. linux/fiemap.h"""

    FIEMAP_EXTENT_LAST = auto()
    FIEMAP_EXTENT_UNKNOWN = auto()
    FIEMAP_EXTENT_DELALLOC = auto()
    FIEMAP_EXTENT_ENCODED = auto()
    FIEMAP_EXTENT_DATA_ENCRYPTED = auto()
    FIEMAP_EXTENT_NOT_ALIGNED = auto()
    FIEMAP_EXTENT_DATA_INLINE = auto()
    FIEMAP_EXTENT_DATA_TAIL = auto()
    FIEMAP_EXTENT_UNWRITTEN = auto()
    FIEMAP_EXTENT_MERGED = auto()
    FIEMAP_EXTENT_SHARED = auto()


# -- space, caches, writing to disk ----------------------------------------------------------------


class AllocateFlags(_Flags):
    """What aio_allocate does with a range of a file. fallocate(2)"""

    FALLOC_FL_KEEP_SIZE = auto()
    FALLOC_FL_PUNCH_HOLE = auto()
    FALLOC_FL_COLLAPSE_RANGE = auto()
    FALLOC_FL_ZERO_RANGE = auto()
    FALLOC_FL_INSERT_RANGE = auto()
    FALLOC_FL_UNSHARE_RANGE = auto()


class FileAdvice(_Values):
    """How a file is going to be read, for fadvise. posix_fadvise(2)"""

    FADV_NORMAL = auto()
    FADV_RANDOM = auto()
    FADV_SEQUENTIAL = auto()
    FADV_WILLNEED = auto()
    FADV_DONTNEED = auto()
    FADV_NOREUSE = auto()


class SyncRangeFlags(_Flags):
    """Which writing aio_sync_file_range starts and waits for. sync_file_range(2)"""

    SYNC_FILE_RANGE_WAIT_BEFORE = auto()
    SYNC_FILE_RANGE_WRITE = auto()
    SYNC_FILE_RANGE_WAIT_AFTER = auto()
    SYNC_FILE_RANGE_WRITE_AND_WAIT = auto()


# -- memory ----------------------------------------------------------------------------------------


class Protection(_Flags):
    """What may be done with pages, for mmap and mprotect. mmap(2)"""

    PROT_NONE = auto()
    PROT_READ = auto()
    PROT_WRITE = auto()
    PROT_EXEC = auto()
    PROT_GROWSDOWN = auto()
    PROT_GROWSUP = auto()


class MapFlags(_Flags):
    """Of what kind a mapping is. mmap(2)"""

    MAP_SHARED = auto()
    MAP_PRIVATE = auto()
    MAP_SHARED_VALIDATE = auto()
    MAP_ANONYMOUS = auto()
    MAP_ANON = auto()
    MAP_FIXED = auto()
    MAP_FIXED_NOREPLACE = auto()
    MAP_32BIT = auto()
    MAP_DENYWRITE = auto()
    MAP_EXECUTABLE = auto()
    MAP_GROWSDOWN = auto()
    MAP_HUGETLB = auto()
    MAP_LOCKED = auto()
    MAP_NONBLOCK = auto()
    MAP_NORESERVE = auto()
    MAP_POPULATE = auto()
    MAP_STACK = auto()
    MAP_SYNC = auto()


class RemapFlags(_Flags):
    """Whether mremap may move the mapping. mremap(2)"""

    MREMAP_MAYMOVE = auto()
    MREMAP_FIXED = auto()
    MREMAP_DONTUNMAP = auto()


class MemoryAdvice(_Values):
    """How memory is going to be used, for madvise. madvise(2)"""

    MADV_NORMAL = auto()
    MADV_RANDOM = auto()
    MADV_SEQUENTIAL = auto()
    MADV_WILLNEED = auto()
    MADV_DONTNEED = auto()
    MADV_FREE = auto()
    MADV_REMOVE = auto()
    MADV_DONTFORK = auto()
    MADV_DOFORK = auto()
    MADV_MERGEABLE = auto()
    MADV_UNMERGEABLE = auto()
    MADV_HUGEPAGE = auto()
    MADV_NOHUGEPAGE = auto()
    MADV_DONTDUMP = auto()
    MADV_DODUMP = auto()
    MADV_WIPEONFORK = auto()
    MADV_KEEPONFORK = auto()
    MADV_COLD = auto()
    MADV_PAGEOUT = auto()
    MADV_POPULATE_READ = auto()
    MADV_POPULATE_WRITE = auto()
    MADV_DONTNEED_LOCKED = auto()
    MADV_COLLAPSE = auto()
    MADV_HWPOISON = auto()
    MADV_SOFT_OFFLINE = auto()


class SyncFlags(_Flags):
    """Whether aio_msync waits, and for whom. msync(2)"""

    MS_ASYNC = auto()
    MS_INVALIDATE = auto()
    MS_SYNC = auto()


class TouchFlags(enum.IntFlag):
    """What aio_mtouch does with pages: 0 reads them. The value is that of IO::AIO."""

    MT_MODIFY = 1


class LockFlags(_Flags):
    """Which pages aio_mlockall locks. mlockall(2)"""

    MCL_CURRENT = auto()
    MCL_FUTURE = auto()
    MCL_ONFAULT = auto()


# -- descriptors of other kinds --------------------------------------------------------------------


class SpliceFlags(_Flags):
    """How splice and tee move data. splice(2)"""

    SPLICE_F_MOVE = auto()
    SPLICE_F_NONBLOCK = auto()
    SPLICE_F_MORE = auto()
    SPLICE_F_GIFT = auto()


class EventfdFlags(_Flags):
    """How eventfd counts, and its descriptor's flags. eventfd(2)"""

    EFD_SEMAPHORE = auto()
    EFD_NONBLOCK = auto()
    EFD_CLOEXEC = auto()


class TimerfdFlags(_Flags):
    """For timerfd_create, and TFD_TIMER_* for timerfd_settime. timerfd_create(2)"""

    TFD_NONBLOCK = auto()
    TFD_CLOEXEC = auto()
    TFD_TIMER_ABSTIME = auto()
    TFD_TIMER_CANCEL_ON_SET = auto()


class Clock(_Values):
    """The clock that a timerfd goes by; time.CLOCK_* are as good. timerfd_create(2)"""

    CLOCK_REALTIME = auto()
    CLOCK_MONOTONIC = auto()
    CLOCK_BOOTTIME = auto()
    CLOCK_REALTIME_ALARM = auto()
    CLOCK_BOOTTIME_ALARM = auto()


class MemfdFlags(_Flags):
    """For memfd_create. memfd_create(2)"""

    MFD_CLOEXEC = auto()
    MFD_ALLOW_SEALING = auto()
    MFD_HUGETLB = auto()
    MFD_NOEXEC_SEAL = auto()
    MFD_EXEC = auto()
    MFD_HUGE_64KB = auto()
    MFD_HUGE_512KB = auto()
    MFD_HUGE_1MB = auto()
    MFD_HUGE_2MB = auto()
    MFD_HUGE_8MB = auto()
    MFD_HUGE_16MB = auto()
    MFD_HUGE_32MB = auto()
    MFD_HUGE_256MB = auto()
    MFD_HUGE_512MB = auto()
    MFD_HUGE_1GB = auto()
    MFD_HUGE_2GB = auto()
    MFD_HUGE_16GB = auto()


class PidfdFlags(_Flags):
    """For pidfd_open. pidfd_open(2)"""

    PIDFD_NONBLOCK = auto()
    PIDFD_THREAD = auto()


# -- aio_fcntl and aio_ioctl -----------------------------------------------------------------------


class FcntlCommand(_Values):
    """What aio_fcntl does. fcntl(2)"""

    F_DUPFD = auto()
    F_DUPFD_CLOEXEC = auto()
    F_GETFD = auto()
    F_SETFD = auto()
    F_GETFL = auto()
    F_SETFL = auto()
    F_GETLK = auto()
    F_SETLK = auto()
    F_SETLKW = auto()
    F_OFD_GETLK = auto()
    F_OFD_SETLK = auto()
    F_OFD_SETLKW = auto()
    F_GETOWN = auto()
    F_SETOWN = auto()
    F_GETSIG = auto()
    F_SETSIG = auto()
    F_GETLEASE = auto()
    F_SETLEASE = auto()
    F_NOTIFY = auto()
    F_GETPIPE_SZ = auto()
    F_SETPIPE_SZ = auto()
    F_ADD_SEALS = auto()
    F_GET_SEALS = auto()


class DescriptorFlags(_Flags):
    """For F_GETFD and F_SETFD. fcntl(2)"""

    FD_CLOEXEC = auto()


class LockType(_Values):
    """For F_SETLK and F_SETLEASE. fcntl(2)"""

    F_RDLCK = auto()
    F_WRLCK = auto()
    F_UNLCK = auto()


class SealFlags(_Flags):
    """What may no longer be done to a memfd, for F_ADD_SEALS. fcntl(2)"""

    F_SEAL_SEAL = auto()
    F_SEAL_SHRINK = auto()
    F_SEAL_GROW = auto()
    F_SEAL_WRITE = auto()
    F_SEAL_FUTURE_WRITE = auto()
    F_SEAL_EXEC = auto()


class IoctlRequest(_Values):
    """What aio_ioctl does to files and file systems. ioctl_fs(2), linux/fs.h"""

    FIFREEZE = auto()
    FITHAW = auto()
    FITRIM = auto()
    FICLONE = auto()
    FICLONERANGE = auto()
    FIDEDUPERANGE = auto()
    FS_IOC_GETFLAGS = auto()
    FS_IOC_SETFLAGS = auto()
    FS_IOC_GETVERSION = auto()
    FS_IOC_SETVERSION = auto()
    FS_IOC_FIEMAP = auto()
    FS_IOC_FSGETXATTR = auto()
    FS_IOC_FSSETXATTR = auto()


class InodeFlags(_Flags):
    """For FS_IOC_GETFLAGS and FS_IOC_SETFLAGS. ioctl_iflags(2)"""

    FS_SECRM_FL = auto()
    FS_UNRM_FL = auto()
    FS_COMPR_FL = auto()
    FS_SYNC_FL = auto()
    FS_IMMUTABLE_FL = auto()
    FS_APPEND_FL = auto()
    FS_NODUMP_FL = auto()
    FS_NOATIME_FL = auto()
    FS_DIRTY_FL = auto()
    FS_COMPRBLK_FL = auto()
    FS_NOCOMP_FL = auto()
    FS_ENCRYPT_FL = auto()
    FS_INDEX_FL = auto()
    FS_JOURNAL_DATA_FL = auto()
    FS_NOTAIL_FL = auto()
    FS_DIRSYNC_FL = auto()
    FS_TOPDIR_FL = auto()
    FS_NOCOW_FL = auto()
    FS_PROJINHERIT_FL = auto()
    FS_FL_USER_VISIBLE = auto()
    FS_FL_USER_MODIFIABLE = auto()


class XFlags(_Flags):
    """For FS_IOC_FSGETXATTR and FS_IOC_FSSETXATTR. linux/fs.h"""

    FS_XFLAG_REALTIME = auto()
    FS_XFLAG_PREALLOC = auto()
    FS_XFLAG_IMMUTABLE = auto()
    FS_XFLAG_APPEND = auto()
    FS_XFLAG_SYNC = auto()
    FS_XFLAG_NOATIME = auto()
    FS_XFLAG_NODUMP = auto()
    FS_XFLAG_RTINHERIT = auto()
    FS_XFLAG_PROJINHERIT = auto()
    FS_XFLAG_NOSYMLINKS = auto()
    FS_XFLAG_EXTSIZE = auto()
    FS_XFLAG_EXTSZINHERIT = auto()
    FS_XFLAG_NODEFRAG = auto()
    FS_XFLAG_FILESTREAM = auto()
    FS_XFLAG_DAX = auto()
    FS_XFLAG_COWEXTSIZE = auto()
    FS_XFLAG_HASATTR = auto()
