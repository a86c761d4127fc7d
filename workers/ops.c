/* workers/ops.c - the table of operations, and how one is run. */
#include <time.h>

#include "../shm/marks.h"
#include "calls.h"

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

const struct pa_op pa_ops[PA_NOPS] = {
    /* name, call, again on EINTR, again if the worker died, opens, cached: see struct pa_op */
    [PA_OP_NOP] = {"nop", run_nop, true, true, false, NULL},
    [PA_OP_BUSY] = {"busy", run_busy, false, true, false, NULL},
    [PA_OP_OPEN] = {"open", pa_call_open, true, false, true, NULL},
    [PA_OP_CLOSE] = {"close", pa_call_close, false, false, false, NULL},
    [PA_OP_REPLACE] = {"close", pa_call_replace, false, false, false, NULL},
    /* Not again from the position. */
    [PA_OP_READ] = {"read", pa_call_read, true, true, false, pa_call_read_cached},
    [PA_OP_WRITE] = {"write", pa_call_write, true, true, false, NULL}, /* not with O_APPEND */
    /* Doing it twice may hide an earlier EIO: no sync of certain files is done so. */
    [PA_OP_FSYNC] = {"fsync", pa_call_fsync, true, false, false, NULL},
    [PA_OP_FDATASYNC] = {"fdatasync", pa_call_fdatasync, true, false, false, NULL},
    [PA_OP_SYNC] = {"sync", pa_call_sync, true, true, false, NULL},
    [PA_OP_SYNC_FILE_RANGE] = {"sync_file_range", pa_call_sync_file_range, true, false, false,
                               NULL},
    [PA_OP_PATHSYNC] = {"pathsync", pa_call_pathsync, true, false, true, NULL},
    /* On EINTR it goes on by itself. */
    [PA_OP_SENDFILE] = {"sendfile", pa_call_sendfile, false, false, false, NULL},
    [PA_OP_READAHEAD] = {"readahead", pa_call_readahead, true, true, false, NULL},
    [PA_OP_TRUNCATE] = {"truncate", pa_call_truncate, true, true, false, NULL},
    [PA_OP_FTRUNCATE] = {"ftruncate", pa_call_ftruncate, true, true, false, NULL},
    /* Once only from what has no length and is no ordinary file (PA_ONCE). */
    [PA_OP_LOAD] = {"load", pa_call_load, true, true, true, pa_call_load_cached},
    [PA_OP_STAT] = {"stat", pa_call_stat, true, true, false, pa_call_stat_cached},
    [PA_OP_LSTAT] = {"lstat", pa_call_lstat, true, true, false, pa_call_lstat_cached},
    [PA_OP_FSTAT] = {"fstat", pa_call_fstat, true, true, false, NULL},
    [PA_OP_STATVFS] = {"statvfs", pa_call_statvfs, true, true, false, NULL},
    [PA_OP_FSTATVFS] = {"fstatvfs", pa_call_fstatvfs, true, true, false, NULL},
    [PA_OP_CHMOD] = {"chmod", pa_call_chmod, true, true, false, NULL},
    [PA_OP_FCHMOD] = {"fchmod", pa_call_fchmod, true, true, false, NULL},
    [PA_OP_CHOWN] = {"chown", pa_call_chown, true, true, false, NULL},
    [PA_OP_FCHOWN] = {"fchown", pa_call_fchown, true, true, false, NULL},
    [PA_OP_UTIME] = {"utime", pa_call_utime, true, true, false, NULL},
    [PA_OP_FUTIME] = {"futime", pa_call_futime, true, true, false, NULL},
    [PA_OP_UNLINK] = {"unlink", pa_call_unlink, true, false, false, NULL},
    [PA_OP_RMDIR] = {"rmdir", pa_call_rmdir, true, false, false, NULL},
    [PA_OP_MKDIR] = {"mkdir", pa_call_mkdir, true, false, false, NULL},
    [PA_OP_MKNOD] = {"mknod", pa_call_mknod, true, false, false, NULL},
    [PA_OP_RENAME] = {"rename", pa_call_rename, true, false, false, NULL},
    [PA_OP_LINK] = {"link", pa_call_link, true, false, false, NULL},
    [PA_OP_SYMLINK] = {"symlink", pa_call_symlink, true, false, false, NULL},
    [PA_OP_READLINK] = {"readlink", pa_call_readlink, true, true, false, NULL},
    [PA_OP_READDIR] = {"readdir", pa_call_readdir, true, true, true, NULL},
    [PA_OP_SEEK] = {"seek", pa_call_seek, false, false, false, NULL},
    [PA_OP_ALLOCATE] = {"allocate", pa_call_allocate, true, false, false, NULL},
    [PA_OP_FADVISE] = {"fadvise", pa_call_fadvise, true, true, false, NULL},
    [PA_OP_SYNCFS] = {"syncfs", pa_call_syncfs, true, false, false, NULL},
    [PA_OP_COPY_FILE_RANGE] = {"copy_file_range", pa_call_copy_file_range, true, false, false,
                               NULL},
    [PA_OP_SPLICE] = {"splice", pa_call_splice, true, false, false, NULL},
    [PA_OP_TEE] = {"tee", pa_call_tee, true, false, false, NULL},
    [PA_OP_ACCESS] = {"access", pa_call_access, true, true, false, NULL},
    [PA_OP_REALPATH] = {"realpath", pa_call_realpath, true, true, false, NULL},
    [PA_OP_STATX] = {"statx", pa_call_statx, true, true, false, NULL},
    [PA_OP_GETXATTR] = {"getxattr", pa_call_getxattr, true, true, false, NULL},
    [PA_OP_SETXATTR] = {"setxattr", pa_call_setxattr, true, false, false, NULL},
    [PA_OP_LISTXATTR] = {"listxattr", pa_call_listxattr, true, true, false, NULL},
    [PA_OP_REMOVEXATTR] = {"removexattr", pa_call_removexattr, true, false, false, NULL},
    [PA_OP_FIEMAP] = {"fiemap", pa_call_fiemap, true, true, false, NULL},
    [PA_OP_FCNTL] = {"fcntl", pa_call_fcntl, true, false, false, NULL},
    [PA_OP_IOCTL] = {"ioctl", pa_call_ioctl, true, false, false, NULL},
    [PA_OP_REPLACE_FILE] = {"replace", pa_call_replace_file, false, false, true, NULL},
    /* Not from or to a FIFO or a device. */
    [PA_OP_COPY] = {"copy", pa_call_copy, false, true, true, NULL},
    [PA_OP_MOVE] = {"move", pa_call_move, false, true, true, NULL}, /* not once it is renamed */
    [PA_OP_MAKE_DIRECTORIES] = {"mkdirs", pa_call_make_directories, true, true, false,
                                NULL}, /* if they may exist */
    /* On EINTR these go on by themselves. */
    [PA_OP_LIST] = {"list", pa_call_list, false, true, true, NULL},
    [PA_OP_TYPES] = {"types", pa_call_types, false, true, false, NULL},
    [PA_OP_EMPTY] = {"empty", pa_call_empty, false, true, true, NULL},
    [PA_OP_MAKE_DIRECTORY] = {"make_directory", pa_call_make_directory, true, true, true, NULL},
    [PA_OP_FINISH_DIRECTORY] = {"finish_directory", pa_call_finish_directory, true, true, true,
                                NULL},
    [PA_OP_STAT_MANY] = {"stat_many", pa_call_stat_many, false, true, false, NULL},
    [PA_OP_READ_MANY] = {"read_many", pa_call_read_many, false, true, false, NULL},
    [PA_OP_LOAD_MANY] = {"load_many", pa_call_load_many, false, true, true, NULL},
    [PA_OP_MSYNC] = {"msync", pa_call_msync, true, false, false, NULL},
    [PA_OP_MTOUCH] = {"mtouch", pa_call_mtouch, true, false, false, NULL},
    [PA_OP_MLOCK] = {"mlock", pa_call_mlock, true, false, false, NULL},
    [PA_OP_MLOCKALL] = {"mlockall", pa_call_mlockall, true, false, false, NULL},
};

bool pa_op_waits(uint16_t op)
{
    return op == PA_OP_FSYNC || op == PA_OP_FDATASYNC || op == PA_OP_SYNC || op == PA_OP_SYNCFS ||
           op == PA_OP_SYNC_FILE_RANGE || op == PA_OP_PATHSYNC || op == PA_OP_REPLACE_FILE;
}

bool pa_op_has_out(const struct pa_slot *slot)
{
    return slot->op == PA_OP_READ_MANY && slot->out_segment != PA_NO_SEGMENT;
}

int64_t pa_op_run(struct pa_slot *slot, char *data_base, const struct pa_data_segment *segment,
                  char *out_base)
{
    if (slot->op >= PA_NOPS)
        return -ENOSYS;
    const struct pa_op *op = &pa_ops[slot->op];
    char *data = data_base ? data_base + slot->arena_offset : NULL;
    const char *path = slot->call_flags & PA_PATHS_IN_ARENA ? data : slot->payload;
    struct pa_call call = {
        .slot = slot, .path = path, .path2 = path + slot->path2_at, .data = data, .out = out_base};
    if (slot->call_flags & PA_BY_FD && slot->fd < 0)
        return -EBADF; /* one of them is AT_FDCWD, which some calls take for a directory */
    if (slot->call_flags & PA_RESERVE) {
        if (!segment || !pa_is_data(segment->fd, segment->file))
            return -EBADF;
        int64_t reserved = pa_outcome(
            fallocate(segment->fd, 0, (off_t)slot->arena_offset, (off_t)slot->length));
        if (reserved < 0)
            return reserved;
    }
    int64_t result;
    do
        result = op->run(&call);
    while (result == -EINTR && op->again_on_eintr);
    return result;
}
