"""Constants: the names of the references, the values of the system, types that hold together."""

from __future__ import annotations

import enum
import fcntl
import mmap
import os
import pickle
import select
import stat
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import procaio
from procaio import _constants, _core

if TYPE_CHECKING:
    from types import ModuleType

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "docs"))
import names as written  # noqa: E402 - docs/ is no package

NAMES = [name for name in procaio._constants.__all__ if name.isupper()]
GROUPS = [
    group
    for group in vars(_constants).values()
    if isinstance(group, type) and issubclass(group, enum.Enum)
]
FLAGS = [group for group in GROUPS if issubclass(group, enum.IntFlag)]

# What the documentation of each ancestor names, read and typed by hand.
IO_AIO_3_71 = """
    O_RDONLY O_CREAT S_IFIFO
    READDIR_DENTS READDIR_DIRS_FIRST READDIR_STAT_ORDER READDIR_FOUND_UNKNOWN
    DT_UNKNOWN DT_FIFO DT_CHR DT_DIR DT_BLK DT_REG DT_LNK DT_SOCK DT_WHT
    ST_RDONLY ST_NOSUID ST_NODEV ST_NOEXEC ST_SYNCHRONOUS ST_MANDLOCK ST_WRITE ST_APPEND
    ST_IMMUTABLE ST_NOATIME ST_NODIRATIME ST_RELATIME
    SYNC_FILE_RANGE_WAIT_BEFORE SYNC_FILE_RANGE_WRITE SYNC_FILE_RANGE_WAIT_AFTER
    MS_ASYNC MS_INVALIDATE MS_SYNC MT_MODIFY MCL_CURRENT MCL_FUTURE
    FADV_NORMAL FADV_SEQUENTIAL FADV_RANDOM FADV_NOREUSE FADV_WILLNEED FADV_DONTNEED
    MADV_NORMAL MADV_SEQUENTIAL MADV_RANDOM MADV_WILLNEED MADV_DONTNEED
    PROT_NONE PROT_READ PROT_WRITE PROT_EXEC
    MAP_SHARED MAP_PRIVATE MAP_ANONYMOUS MAP_ANON MAP_HUGETLB MAP_LOCKED MAP_NORESERVE
    MAP_POPULATE MAP_NONBLOCK PAGESIZE
"""
REFERENCES = {
    "IO::AIO 3.71": IO_AIO_3_71,
    "IO::AIO 0.3": "O_RDONLY",
    "Linux::AIO 1.9": "O_RDONLY O_DIRECT",
    "Coro::AIO": "O_RDONLY",
}

# What functions of later versions take.
LATER = """
    RENAME_NOREPLACE RENAME_EXCHANGE RENAME_WHITEOUT
    FALLOC_FL_KEEP_SIZE FALLOC_FL_PUNCH_HOLE FALLOC_FL_COLLAPSE_RANGE FALLOC_FL_ZERO_RANGE
    FALLOC_FL_INSERT_RANGE FALLOC_FL_UNSHARE_RANGE
    SEEK_SET SEEK_CUR SEEK_END SEEK_DATA SEEK_HOLE UTIME_NOW UTIME_OMIT
    SPLICE_F_MOVE SPLICE_F_NONBLOCK SPLICE_F_MORE SPLICE_F_GIFT
    EFD_CLOEXEC EFD_NONBLOCK EFD_SEMAPHORE
    TFD_NONBLOCK TFD_CLOEXEC TFD_TIMER_ABSTIME TFD_TIMER_CANCEL_ON_SET
    CLOCK_REALTIME CLOCK_MONOTONIC CLOCK_BOOTTIME CLOCK_REALTIME_ALARM CLOCK_BOOTTIME_ALARM
    MFD_CLOEXEC MFD_ALLOW_SEALING MFD_HUGETLB MCL_ONFAULT MREMAP_MAYMOVE MREMAP_FIXED
    FIEMAP_FLAG_SYNC FIEMAP_FLAG_XATTR FIEMAP_EXTENT_LAST FIEMAP_EXTENT_SHARED
    STATX_BASIC_STATS STATX_BTIME STATX_ALL STATX_ATTR_IMMUTABLE
    AT_FDCWD AT_SYMLINK_NOFOLLOW AT_EMPTY_PATH AT_STATX_DONT_SYNC XATTR_CREATE XATTR_REPLACE
    F_DUPFD_CLOEXEC F_OFD_SETLK F_SETPIPE_SZ F_ADD_SEALS F_SEAL_WRITE FICLONE FS_IOC_FIEMAP
"""

# Under other names in Python's own modules.
ELSEWHERE = {
    f"FADV_{what}": f"POSIX_FADV_{what}"
    for what in ("NORMAL", "RANDOM", "SEQUENTIAL", "WILLNEED", "DONTNEED", "NOREUSE")
}

# Names that no Linux has (some, other systems do), and those that came with newer headers.
NEVER_ON_LINUX = {"O_EXEC", "O_SEARCH", "O_TTY_INIT", "S_IFWHT"}
NEWER = {
    "F_SEAL_EXEC", "MADV_COLLAPSE", "MADV_SOFT_OFFLINE", "MFD_EXEC", "MFD_NOEXEC_SEAL",
    "MFD_HUGE_16GB", "PIDFD_NONBLOCK", "PIDFD_THREAD",
    "STATX_ATTR_WRITE_ATOMIC", "STATX_DIOALIGN", "STATX_DIO_READ_ALIGN", "STATX_MNT_ID_UNIQUE",
    "STATX_SUBVOL", "STATX_WRITE_ATOMIC",
}  # fmt: skip


# -- names -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("reference", REFERENCES)
def test_every_constant_that_a_reference_names_exists(reference: str) -> None:
    for name in REFERENCES[reference].split():
        assert isinstance(getattr(procaio, name), int), name
        assert name in procaio.__all__


@pytest.mark.parametrize("name", LATER.split())
def test_constants_of_later_versions_exist(name: str) -> None:
    assert isinstance(getattr(procaio, name), int)
    assert name in procaio.__all__


def test_no_name_is_exported_twice() -> None:
    assert len(procaio.__all__) == len(set(procaio.__all__))
    assert all(hasattr(procaio, name) for name in procaio.__all__)


@pytest.mark.parametrize("group", GROUPS, ids=lambda group: group.__name__)
def test_names_at_module_level_are_the_members(group: type[enum.IntEnum]) -> None:
    """Also those that share a value: each name gives the member, and the member its value."""
    assert getattr(procaio, group.__name__) is group
    assert group.__doc__
    for name, member in group.__members__.items():
        assert getattr(procaio, name) is member
        assert type(member) is group
        assert name in procaio.__all__


def test_every_name_is_in_a_group_but_those_that_no_other_goes_with() -> None:
    members = {name for group in GROUPS for name in group.__members__}
    assert set(NAMES) - members == {"AT_FDCWD", "PAGESIZE", "PIPE_BUF"}


@pytest.mark.parametrize("path", written.FILES, ids=lambda path: path.name)
def test_what_is_written_from_the_groups_is_up_to_date(path: Path) -> None:
    """`python docs/names.py` has nothing to change."""
    assert path.read_text() == written.FILES[path]()


# -- values ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("module", [os, stat, mmap, fcntl, select, time], ids=lambda m: m.__name__)
def test_values_are_those_of_the_modules_of_python(module: ModuleType) -> None:
    theirs = {name: getattr(module, ELSEWHERE.get(name, name), None) for name in NAMES}
    theirs = {name: value for name, value in theirs.items() if isinstance(value, int)}
    assert theirs
    assert {name: int(getattr(procaio, name)) for name in theirs} == theirs


@pytest.mark.parametrize(
    ("prefix", "module"),
    [
        ("O_", os),
        ("SEEK_", os),
        ("ST_", os),
        ("SPLICE_F_", os),
        ("EFD_", os),
        ("XATTR_", os),
        ("S_I", stat),
        ("PROT_", mmap),
        ("MAP_", mmap),
        ("MADV_", mmap),
        ("F_SEAL_", fcntl),
    ],
)
def test_what_python_has_of_a_group_is_there(prefix: str, module: ModuleType) -> None:
    theirs = {name for name in dir(module) if name.startswith(prefix)}
    functions = {"S_IMODE"} | {name for name in theirs if callable(getattr(module, name))}
    others = {"XATTR_SIZE_MAX", "S_IFDOOR", "S_IFPORT"}  # no flag, or of other systems
    assert theirs - functions - others <= set(NAMES)


def test_types_of_directory_entries_are_those_of_st_mode() -> None:
    """As in the C library: DT_x is S_IFx without the twelve bits below."""
    assert procaio.DT_FIFO == procaio.S_IFIFO >> 12
    for kind in ("CHR", "DIR", "BLK", "REG", "LNK", "SOCK"):
        assert getattr(procaio, f"DT_{kind}") == getattr(stat, f"S_IF{kind}") >> 12
    assert procaio.DT_UNKNOWN == 0


def test_values_that_are_our_own_are_those_of_the_reference() -> None:
    assert [flag.value for flag in procaio.ReaddirFlags] == [1, 2, 4, 8]
    assert procaio.MT_MODIFY == 1


def test_names_that_the_system_lacks_are_zero() -> None:
    """And no others: a name that nobody has is a typing error."""
    lacking = set(written.read().compiled) - set(_core.CONSTANTS)
    assert lacking <= NEVER_ON_LINUX | NEWER
    assert lacking >= NEVER_ON_LINUX
    for name in lacking:
        assert getattr(procaio, name) == 0


def test_values_are_those_that_the_compiler_gave() -> None:
    for name, value in _core.CONSTANTS.items():
        assert getattr(procaio, name) == value, name


def test_page_and_pipe_are_measured() -> None:
    assert procaio.PAGESIZE == mmap.PAGESIZE
    assert procaio.PIPE_BUF == select.PIPE_BUF


# -- types -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("group", FLAGS, ids=lambda group: group.__name__)
def test_flags_of_a_group_stay_in_it(group: type[enum.IntFlag]) -> None:
    """Combined with each other, with a number, and with nothing."""
    union = group(0)
    for member in group.__members__.values():
        union |= member
        assert type(union) is group
        assert union & member == member
        assert type(member | 1) is group
    assert union == sum(1 << n for n in range(64) if union >> n & 1)
    assert type(group(0)) is group
    assert repr(group(0)).startswith(f"<{group.__name__}")


@pytest.mark.parametrize(
    ("combined", "text"),
    [
        (procaio.O_WRONLY | procaio.O_CREAT, "O_WRONLY|O_CREAT"),
        (procaio.PROT_READ | procaio.PROT_WRITE, "PROT_READ|PROT_WRITE"),
        (procaio.S_IFIFO, "S_IFIFO"),
        (procaio.PROT_NONE, "PROT_NONE"),
    ],
)
def test_repr_tells_the_names(combined: enum.IntFlag, text: str) -> None:
    """In any order: older versions of Python begin with the highest bit."""
    inside = repr(combined).partition(".")[2].partition(":")[0]
    assert set(inside.split("|")) == set(text.split("|"))


def test_special_times_are_objects_of_their_own() -> None:
    """A number of the same value is an ordinary time."""
    assert type(procaio.UTIME_NOW) is type(procaio.UTIME_OMIT) is procaio.UtimeSpecial
    assert procaio.UTIME_NOW is procaio.UtimeSpecial(procaio.UTIME_NOW.value)
    assert procaio.UTIME_NOW is not procaio.UTIME_OMIT
    assert not isinstance(int(procaio.UTIME_NOW), procaio.UtimeSpecial)
    assert int(procaio.UTIME_NOW) == 2**30 - 1
    assert int(procaio.UTIME_OMIT) == 2**30 - 2


def test_special_times_are_known_to_utime_and_numbers_are_times(
    pool: procaio.Pool, data_file: Path
) -> None:
    """Nanosecond by nanosecond: the same number once as the object, once as an int (F3)."""
    now, omit = procaio.UTIME_NOW, procaio.UTIME_OMIT
    procaio.aio_utime(data_file, ns=(int(now), int(omit)), pool=pool).wait()
    found = data_file.stat()
    assert (found.st_atime_ns, found.st_mtime_ns) == (int(now), int(omit))
    procaio.aio_utime(data_file, ns=(now, omit), pool=pool).wait()
    found = data_file.stat()
    assert abs(found.st_atime - time.time()) < 60
    assert found.st_mtime_ns == int(omit)


def test_utime_without_times_is_now(pool: procaio.Pool, data_file: Path) -> None:
    os.utime(data_file, (1, 1))
    procaio.aio_utime(data_file, pool=pool).wait()
    found = data_file.stat()
    assert abs(found.st_atime - time.time()) < 60
    assert abs(found.st_mtime - time.time()) < 60


def test_constants_go_where_os_takes_numbers(tmp_path: Path) -> None:
    path = tmp_path / "file"
    flags = procaio.O_WRONLY | procaio.O_CREAT | procaio.O_EXCL
    os.close(os.open(path, flags, procaio.S_IRUSR | procaio.S_IWUSR))
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert procaio.FileMode(path.stat().st_mode) & procaio.S_IFMT == procaio.S_IFREG


@pytest.mark.parametrize("value", [procaio.O_CREAT, procaio.UTIME_NOW, procaio.DT_DIR])
def test_constants_survive_pickling(value: enum.Enum) -> None:
    assert pickle.loads(pickle.dumps(value)) is value


@pytest.mark.slow
def test_type_checkers_know_names_and_groups(tmp_path: Path) -> None:
    """Of a program that imports them from procaio, under the strictest settings."""
    pytest.importorskip("mypy")
    program = tmp_path / "program.py"
    program.write_text(
        "import procaio\n"
        "from procaio import DT_DIR, O_CREAT, O_RDONLY, PAGESIZE, UTIME_NOW\n"
        "a: procaio.OpenFlags = O_RDONLY | O_CREAT\n"
        "b: procaio.DirentType = DT_DIR\n"
        "c: procaio.UtimeSpecial = UTIME_NOW\n"
        "d: int = PAGESIZE | procaio.PROT_READ\n"
        "e: procaio.OpenFlags = DT_DIR  # type: ignore[assignment]\n"
    )
    subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--warn-unused-ignores", program],
        cwd=ROOT,
        check=True,
    )
