/* workers/ops.c - the system calls, one row each.
 *
 * Runs in a worker, which shares the program's descriptor table, working directory and umask, and
 * in the program itself for pools without workers.  Everything here is async-signal-safe.
 *
 * A descriptor that an operation opens is marked with O_ASYNC, which does nothing by itself (no
 * owner is set).  If the worker dies before the program has taken it over, the program finds the
 * mark in its own descriptor table and closes what nobody will ever report (orphans.c).
 */
#include "ops.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

static int64_t outcome(int64_t value)
{
    return value < 0 ? -errno : value;
}

static int64_t run_nop(const struct pa_call *call)
{
    (void)call;
    return 0;
}

static int64_t run_busy(const struct pa_call *call)
{
    struct timespec left = {.tv_sec = (time_t)(call->slot->length / 1000000000u),
                            .tv_nsec = (long)(call->slot->length % 1000000000u)};
    int error;
    while ((error = clock_nanosleep(CLOCK_MONOTONIC, 0, &left, &left)) == EINTR)
        ;
    return -error;
}

static int64_t run_open(const struct pa_call *call)
{
    const struct pa_slot *slot = call->slot;
    return outcome(syscall(SYS_openat, slot->fd, call->path,
                           slot->flags | O_CLOEXEC | O_ASYNC | O_LARGEFILE, slot->mode));
}

static int64_t run_close(const struct pa_call *call)
{
    /* Linux has released the descriptor even when it says EINTR. */
    int64_t result = outcome(syscall(SYS_close, call->slot->fd));
    return result == -EINTR ? 0 : result;
}

/* Closes what fd has open, but keeps the number taken: fd2 is put in its place. */
static int64_t run_replace(const struct pa_call *call)
{
    int64_t result = outcome(syscall(SYS_dup3, call->slot->fd2, call->slot->fd, O_CLOEXEC));
    return result < 0 ? result : 0;
}

static int64_t run_read(const struct pa_call *call)
{
    const struct pa_slot *slot = call->slot;
    if (slot->file_offset < 0)
        return outcome(syscall(SYS_read, slot->fd, call->data, slot->length));
    return outcome(syscall(SYS_pread64, slot->fd, call->data, slot->length, slot->file_offset));
}

static int64_t run_write(const struct pa_call *call)
{
    const struct pa_slot *slot = call->slot;
    if (slot->file_offset < 0)
        return outcome(syscall(SYS_write, slot->fd, call->data, slot->length));
    return outcome(syscall(SYS_pwrite64, slot->fd, call->data, slot->length, slot->file_offset));
}

static int64_t run_fsync(const struct pa_call *call)
{
    return outcome(syscall(SYS_fsync, call->slot->fd));
}

static int64_t run_fdatasync(const struct pa_call *call)
{
    return outcome(syscall(SYS_fdatasync, call->slot->fd));
}

static int64_t give_stat(const struct pa_call *call, int failed, const struct stat *st)
{
    if (failed)
        return -errno;
    struct pa_stat out = {
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
    memcpy(call->slot->payload, &out, sizeof out);
    return 0;
}

static int64_t run_stat(const struct pa_call *call)
{
    struct stat st;
    return give_stat(call, fstatat(call->slot->fd, call->path, &st, 0), &st);
}

static int64_t run_lstat(const struct pa_call *call)
{
    struct stat st;
    return give_stat(call, fstatat(call->slot->fd, call->path, &st, AT_SYMLINK_NOFOLLOW), &st);
}

static int64_t run_fstat(const struct pa_call *call)
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

static int64_t run_statvfs(const struct pa_call *call)
{
    struct statvfs st;
    return give_statvfs(call, statvfs(call->path, &st), &st);
}

static int64_t run_fstatvfs(const struct pa_call *call)
{
    struct statvfs st;
    return give_statvfs(call, fstatvfs(call->slot->fd, &st), &st);
}

static int64_t run_unlink(const struct pa_call *call)
{
    return outcome(unlinkat(call->slot->fd, call->path, 0));
}

static int64_t run_rmdir(const struct pa_call *call)
{
    return outcome(unlinkat(call->slot->fd, call->path, AT_REMOVEDIR));
}

static int64_t run_mkdir(const struct pa_call *call)
{
    return outcome(mkdirat(call->slot->fd, call->path, call->slot->mode));
}

static int64_t run_rename(const struct pa_call *call)
{
    return outcome(renameat(call->slot->fd, call->path, call->slot->fd2, call->path2));
}

/* Fills the block with the kernel's own records.  A directory that does not fit stays open, and the
 * program comes back for the rest: from then on the descriptor is the program's to close, so that
 * it is closed once, wherever a worker dies. */
static int64_t run_readdir(const struct pa_call *call)
{
    enum { LARGEST_RECORD = 280 }; /* 19 bytes, a name of 255 and its NUL, rounded up to 8 */
    struct pa_slot *slot = call->slot;
    int64_t fd = slot->fd;
    if (!(slot->call_flags & PA_CONTINUE)) {
        fd = outcome(syscall(SYS_openat, slot->fd, call->path,
                             O_RDONLY | O_DIRECTORY | O_NONBLOCK | O_CLOEXEC | O_ASYNC |
                                 O_LARGEFILE));
        if (fd < 0)
            return fd;
    }
    uint64_t filled = 0;
    int64_t got = 1;
    while (slot->length - filled >= LARGEST_RECORD) {
        got = outcome(
            syscall(SYS_getdents64, fd, call->data + filled, slot->length - filled));
        if (got <= 0)
            break;
        filled += (uint64_t)got;
    }
    if (got > 0) {
        slot->fd = (int32_t)fd;
        slot->call_flags |= PA_MORE;
        return (int64_t)filled;
    }
    if (!(slot->call_flags & PA_CONTINUE))
        syscall(SYS_close, (int)fd);
    return got < 0 ? got : (int64_t)filled;
}

const struct pa_op pa_ops[PA_NOPS] = {
    /*                   name         call           EINTR  died   opens  cached */
    [PA_OP_NOP] = {"nop", run_nop, true, true, false, NULL},
    [PA_OP_BUSY] = {"busy", run_busy, false, true, false, NULL},
    [PA_OP_OPEN] = {"open", run_open, true, false, true, NULL},
    [PA_OP_CLOSE] = {"close", run_close, false, false, false, NULL},
    [PA_OP_REPLACE] = {"close", run_replace, false, false, false, NULL},
    [PA_OP_READ] = {"read", run_read, true, true, false, NULL},    /* not from the position */
    [PA_OP_WRITE] = {"write", run_write, true, true, false, NULL}, /* not with O_APPEND */
    [PA_OP_FSYNC] = {"fsync", run_fsync, true, false, false, NULL}, /* may hide an earlier EIO */
    [PA_OP_FDATASYNC] = {"fdatasync", run_fdatasync, true, false, false, NULL},
    [PA_OP_STAT] = {"stat", run_stat, true, true, false, NULL},
    [PA_OP_LSTAT] = {"lstat", run_lstat, true, true, false, NULL},
    [PA_OP_FSTAT] = {"fstat", run_fstat, true, true, false, NULL},
    [PA_OP_STATVFS] = {"statvfs", run_statvfs, true, true, false, NULL},
    [PA_OP_FSTATVFS] = {"fstatvfs", run_fstatvfs, true, true, false, NULL},
    [PA_OP_UNLINK] = {"unlink", run_unlink, true, false, false, NULL},
    [PA_OP_RMDIR] = {"rmdir", run_rmdir, true, false, false, NULL},
    [PA_OP_MKDIR] = {"mkdir", run_mkdir, true, false, false, NULL},
    [PA_OP_RENAME] = {"rename", run_rename, true, false, false, NULL},
    [PA_OP_READDIR] = {"readdir", run_readdir, true, true, true, NULL},
};

int64_t pa_op_run(struct pa_slot *slot, char *data_base, int data_fd)
{
    if (slot->op >= PA_NOPS)
        return -ENOSYS;
    const struct pa_op *op = &pa_ops[slot->op];
    char *data = data_base ? data_base + slot->arena_offset : NULL;
    const char *path = slot->call_flags & PA_PATHS_IN_ARENA ? data : slot->payload;
    struct pa_call call = {
        .slot = slot, .path = path, .path2 = path + slot->path2_at, .data = data};
    if (slot->call_flags & PA_RESERVE) {
        int64_t reserved = outcome(
            fallocate(data_fd, 0, (off_t)slot->arena_offset, (off_t)slot->length));
        if (reserved < 0)
            return reserved;
    }
    int64_t result;
    do
        result = op->run(&call);
    while (result == -EINTR && op->again_on_eintr);
    return result;
}
