/* workers/calls_names.c - names, and what is known of files: open, stat, chmod, rename, readdir. */
#include "calls.h"

#include <stdbool.h>
#include <stdio.h> /* declares renameat; nothing else of it is used here */
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>

int64_t pa_call_open(const struct pa_call *call)
{
    return pa_open_marked(call, call->slot->flags);
}

int64_t pa_call_close(const struct pa_call *call)
{
    /* Linux has released the descriptor even when it says EINTR. */
    int64_t result = pa_outcome(syscall(SYS_close, call->slot->fd));
    return result == -EINTR ? 0 : result;
}

/* Closes what fd has open, but keeps the number taken: fd2 is put in its place. */
int64_t pa_call_replace(const struct pa_call *call)
{
    int64_t result = pa_outcome(syscall(SYS_dup3, call->slot->fd2, call->slot->fd, O_CLOEXEC));
    return result < 0 ? result : 0;
}

void pa_fill_stat(struct pa_stat *out, const struct stat *st)
{
    *out = (struct pa_stat){
        .dev = st->st_dev,
        .ino = st->st_ino,
        .nlink = st->st_nlink,
        .rdev = st->st_rdev,
        .size = st->st_size,
        .blksize = st->st_blksize,
        .blocks = st->st_blocks,
        .atime_s = st->st_atim.tv_sec,
        .mtime_s = st->st_mtim.tv_sec,
        .ctime_s = st->st_ctim.tv_sec,
        .atime_ns = (uint32_t)st->st_atim.tv_nsec,
        .mtime_ns = (uint32_t)st->st_mtim.tv_nsec,
        .ctime_ns = (uint32_t)st->st_ctim.tv_nsec,
        .mode = st->st_mode,
        .uid = st->st_uid,
        .gid = st->st_gid,
    };
}

static int64_t give_stat(const struct pa_call *call, int failed, const struct stat *st)
{
    struct pa_stat out;
    if (failed)
        return -errno;
    pa_fill_stat(&out, st);
    memcpy(call->slot->payload, &out, sizeof out);
    return 0;
}

int64_t pa_call_stat(const struct pa_call *call)
{
    struct stat st;
    return give_stat(call, fstatat(call->slot->fd, call->path, &st, 0), &st);
}

int64_t pa_call_lstat(const struct pa_call *call)
{
    struct stat st;
    return give_stat(call, fstatat(call->slot->fd, call->path, &st, AT_SYMLINK_NOFOLLOW), &st);
}

int64_t pa_call_fstat(const struct pa_call *call)
{
    struct stat st;
    return give_stat(call, fstat(call->slot->fd, &st), &st);
}

static int64_t give_statvfs(const struct pa_call *call, int failed, const struct statvfs *st)
{
    if (failed)
        return -errno;
    struct pa_statvfs out = {
        .bsize = st->f_bsize,
        .frsize = st->f_frsize,
        .blocks = st->f_blocks,
        .bfree = st->f_bfree,
        .bavail = st->f_bavail,
        .files = st->f_files,
        .ffree = st->f_ffree,
        .favail = st->f_favail,
        .flag = st->f_flag,
        .namemax = st->f_namemax,
        .fsid = st->f_fsid,
    };
    memcpy(call->slot->payload, &out, sizeof out);
    return 0;
}

int64_t pa_call_statvfs(const struct pa_call *call)
{
    struct statvfs st;
    return give_statvfs(call, statvfs(call->path, &st), &st);
}

int64_t pa_call_fstatvfs(const struct pa_call *call)
{
    struct statvfs st;
    return give_statvfs(call, fstatvfs(call->slot->fd, &st), &st);
}

static int at_flags(const struct pa_call *call)
{
    return call->slot->call_flags & PA_NO_FOLLOW ? AT_SYMLINK_NOFOLLOW : 0;
}

int64_t pa_call_chmod(const struct pa_call *call)
{
    return pa_outcome(fchmodat(call->slot->fd, call->path, call->slot->mode, at_flags(call)));
}

int64_t pa_call_fchmod(const struct pa_call *call)
{
    return pa_outcome(fchmod(call->slot->fd, call->slot->mode));
}

int64_t pa_call_chown(const struct pa_call *call)
{
    const struct pa_slot *slot = call->slot;
    return pa_outcome(fchownat(slot->fd, call->path, slot->uid, slot->gid, at_flags(call)));
}

int64_t pa_call_fchown(const struct pa_call *call)
{
    return pa_outcome(fchown(call->slot->fd, call->slot->uid, call->slot->gid));
}

static void times_of(const struct pa_slot *slot, struct timespec times[2])
{
    times[0] = (struct timespec){.tv_sec = slot->atime_s, .tv_nsec = slot->atime_ns};
    times[1] = (struct timespec){.tv_sec = slot->mtime_s, .tv_nsec = slot->mtime_ns};
}

int64_t pa_call_utime(const struct pa_call *call)
{
    struct timespec times[2];
    times_of(call->slot, times);
    return pa_outcome(utimensat(call->slot->fd, call->path, times, at_flags(call)));
}

/* Not utimensat without a path: to that, the number of AT_FDCWD is no descriptor. */
int64_t pa_call_futime(const struct pa_call *call)
{
    struct timespec times[2];
    times_of(call->slot, times);
    return pa_outcome(futimens(call->slot->fd, times));
}

int64_t pa_call_unlink(const struct pa_call *call)
{
    return pa_outcome(unlinkat(call->slot->fd, call->path, 0));
}

int64_t pa_call_rmdir(const struct pa_call *call)
{
    return pa_outcome(unlinkat(call->slot->fd, call->path, AT_REMOVEDIR));
}

int64_t pa_call_mkdir(const struct pa_call *call)
{
    return pa_outcome(mkdirat(call->slot->fd, call->path, call->slot->mode));
}

int64_t pa_call_mknod(const struct pa_call *call)
{
    const struct pa_slot *slot = call->slot;
    return pa_outcome(mknodat(slot->fd, call->path, slot->mode, slot->device));
}

int64_t pa_call_rename(const struct pa_call *call)
{
    const struct pa_slot *slot = call->slot;
    if (slot->flags == 0)
        return pa_outcome(renameat(slot->fd, call->path, slot->fd2, call->path2));
    return pa_outcome(renameat2(slot->fd, call->path, slot->fd2, call->path2, slot->flags));
}

int64_t pa_call_link(const struct pa_call *call)
{
    const struct pa_slot *slot = call->slot;
    int flags = slot->call_flags & PA_NO_FOLLOW ? 0 : AT_SYMLINK_FOLLOW;
    return pa_outcome(linkat(slot->fd, call->path, slot->fd2, call->path2, flags));
}

int64_t pa_call_symlink(const struct pa_call *call)
{
    return pa_outcome(symlinkat(call->path, call->slot->fd2, call->path2));
}

int64_t pa_call_readlink(const struct pa_call *call)
{
    const struct pa_slot *slot = call->slot;
    return pa_outcome(readlinkat(slot->fd, call->path, call->data, slot->length));
}

/* Fills the block with the kernel's own records.  A directory that does not fit stays open, and the
 * program comes back for the rest: from then on the descriptor is the program's to close, so that
 * it is closed once, wherever a worker dies. */
int64_t pa_call_readdir(const struct pa_call *call)
{
    enum { LARGEST_RECORD = 280 }; /* 19 bytes, a name of 255 and its NUL, rounded up to 8 */
    struct pa_slot *slot = call->slot;
    int64_t fd = slot->fd;
    if (!(slot->call_flags & PA_CONTINUE)) {
        fd = pa_open_marked(call, O_RDONLY | O_DIRECTORY | O_NONBLOCK);
        if (fd < 0)
            return fd;
    }
    uint64_t filled = 0;
    int64_t got = 1;
    while (slot->length - filled >= LARGEST_RECORD && !pa_must_stop(call)) {
        got = pa_outcome(
            syscall(SYS_getdents64, fd, call->data + filled, slot->length - filled));
        if (got <= 0)
            break;
        filled += (uint64_t)got;
    }
    if (got > 0) {
        slot->fd = (int32_t)fd;
        pa_raise_flag(call, PA_MORE);
        return (int64_t)filled;
    }
    if (!(slot->call_flags & PA_CONTINUE))
        syscall(SYS_close, (int)fd);
    return got < 0 ? got : (int64_t)filled;
}

/* 1, or 0 for whatever reason, as access() of Python's os has it. */
int64_t pa_call_access(const struct pa_call *call)
{
    const struct pa_slot *slot = call->slot;
    int flags = at_flags(call) | (slot->flags ? AT_EACCESS : 0);
    return faccessat(slot->fd, call->path, (int)slot->mode, flags) == 0;
}

int64_t pa_call_statx(const struct pa_call *call)
{
    const struct pa_slot *slot = call->slot;
    uint32_t flags = slot->flags;
    const char *path = call->path;
    if (slot->call_flags & PA_BY_FD) {
        flags |= AT_EMPTY_PATH;
        path = "";
    }
    return pa_outcome(syscall(SYS_statx, slot->fd, path, flags, slot->mode, call->data));
}
