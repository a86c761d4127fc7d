"""docs/porting.md names all that the five documents have, and only what exists here."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import pytest

import procaio

PAGE = (Path(__file__).resolve().parent.parent / "docs/porting.md").read_text()
SECTIONS = dict(re.findall(r"^## (.*)\n((?:(?!## ).*\n)*)", PAGE, re.MULTILINE))
ROWS = [
    (section, *(cell.strip() for cell in line.strip("|\n ").split(" | ")))
    for section, text in SECTIONS.items()
    for line in text.splitlines()
    if line.count(" | ") == 2 and not line.startswith(("| there", "|---"))
]

# Functions, methods, settings and constants of the documents, as their headings have them.
DOCUMENTS = {
    "IO::AIO 3.71": """
        aio_open aio_close aio_read aio_write aio_sendfile aio_readahead aio_stat aio_lstat
        aio_statvfs aio_utime aio_chown aio_truncate aio_chmod aio_unlink aio_mknod aio_link
        aio_symlink aio_readlink aio_rename aio_mkdir aio_rmdir aio_readdir aio_readdirx aio_load
        aio_copy aio_move aio_scandir aio_rmtree
        aio_sync aio_fsync aio_fdatasync aio_sync_file_range aio_pathsync aio_msync aio_mtouch
        aio_mlock aio_mlockall aio_group aio_nop IO::AIO::aio_busy aioreq_pri aioreq_nice
        cancel cb add cancel_subs result errno feed limit
        IO::AIO::poll_fileno IO::AIO::poll_cb IO::AIO::poll_wait IO::AIO::poll IO::AIO::flush
        IO::AIO::max_poll_reqs IO::AIO::max_poll_time IO::AIO::min_parallel IO::AIO::max_parallel
        IO::AIO::max_idle IO::AIO::max_outstanding IO::AIO::nreqs IO::AIO::nready IO::AIO::npending
        IO::AIO::sendfile IO::AIO::fadvise IO::AIO::madvise IO::AIO::mprotect IO::AIO::mmap
        IO::AIO::munmap IO::AIO::munlock IO::AIO::munlockall
        AnyEvent::AIO EV Event Glib Gtk2 Tk Danga::Socket fork
        O_RDONLY S_IFIFO PAGESIZE MT_MODIFY MCL_CURRENT MCL_FUTURE
        READDIR_DENTS READDIR_DIRS_FIRST READDIR_STAT_ORDER READDIR_FOUND_UNKNOWN
        DT_UNKNOWN DT_FIFO DT_CHR DT_DIR DT_BLK DT_REG DT_LNK DT_SOCK DT_WHT
        ST_RDONLY ST_NOSUID ST_NODEV ST_NOEXEC ST_SYNCHRONOUS ST_MANDLOCK ST_WRITE ST_APPEND
        ST_IMMUTABLE ST_NOATIME ST_NODIRATIME ST_RELATIME
        SYNC_FILE_RANGE_WAIT_BEFORE SYNC_FILE_RANGE_WRITE SYNC_FILE_RANGE_WAIT_AFTER
        MS_ASYNC MS_INVALIDATE MS_SYNC
        FADV_NORMAL FADV_SEQUENTIAL FADV_RANDOM FADV_NOREUSE FADV_WILLNEED FADV_DONTNEED
        MADV_NORMAL MADV_SEQUENTIAL MADV_RANDOM MADV_WILLNEED MADV_DONTNEED
        PROT_NONE PROT_READ PROT_WRITE PROT_EXEC
        MAP_SHARED MAP_PRIVATE MAP_ANONYMOUS MAP_HUGETLB MAP_LOCKED MAP_NORESERVE MAP_POPULATE
        MAP_NONBLOCK
    """,
    "IO::AIO 0.3": """
        aio_open aio_close aio_read aio_write aio_readahead aio_stat aio_lstat aio_unlink aio_fsync
        aio_fdatasync IO::AIO::poll_fileno IO::AIO::poll_cb IO::AIO::poll_wait IO::AIO::nreqs
        IO::AIO::min_parallel IO::AIO::max_parallel IO::AIO::max_outstanding
    """,
    "Linux::AIO 1.9": """
        Linux::AIO::min_parallel Linux::AIO::max_parallel Linux::AIO::poll_fileno
        Linux::AIO::poll_cb Linux::AIO::poll_wait Linux::AIO::nreqs aio_open aio_close aio_read
        aio_write aio_readahead aio_stat aio_lstat aio_unlink aio_fsync aio_fdatasync
    """,
    "Linux::AIO 0.01": """
        Linux::AIO::min_parallel Linux::AIO::poll_fileno Linux::AIO::poll_cb Linux::AIO::nreqs
        aio_read aio_write aio_open aio_close
    """,
    "Coro::AIO": """
        aio_open aio_close aio_read aio_write aio_sendfile aio_readahead aio_stat aio_lstat
        aio_unlink aio_rmdir aio_readdir aio_scandir aio_symlink aio_fsync aio_fdatasync
    """,
}


def names(cell: str) -> list[str]:
    """What a cell of the middle column names: the beginning of each piece of code."""
    pieces = [piece.removeprefix("await ") for piece in re.findall(r"`([^`]*)`", cell)]
    found = [re.match(r"[\w.]+\*?", piece) for piece in pieces]
    assert all(found), cell
    return [match[0] for match in found if match]


def exists(name: str) -> bool:
    """Whether procaio, or Python, has it; a name that ends with * is a group of constants."""
    if name.endswith("*"):
        return any(public.startswith(name[:-1]) for public in procaio.__all__)
    first, *rest = name.split(".")
    if first in {"await", "OSError"}:
        return True
    thing = getattr(procaio, first, None)
    if thing is None and rest:
        thing = importlib.import_module(first) if first in {"asyncio", "os", "selectors"} else None
    for part in rest:
        thing = getattr(thing, part, None)
    return thing is not None


def test_every_document_has_a_section_with_a_table() -> None:
    assert [*SECTIONS][1:] == list(DOCUMENTS)
    assert {section for section, *_ in ROWS} == set(DOCUMENTS)


@pytest.mark.parametrize("document", DOCUMENTS)
def test_page_has_a_row_for_everything_in_a_document(document: str) -> None:
    """Names are looked for as whole words of the first column."""
    there = [cell for section, cell, *_ in ROWS if section == document]
    words = {word for cell in there for word in re.findall(r"\w+(?:::\w+)*", cell)}
    assert [name for name in DOCUMENTS[document].split() if name not in words] == []


def test_page_names_only_what_exists() -> None:
    for _, there, here, _difference in ROWS:
        assert [name for name in names(here) if not exists(name)] == [], there
