/* workers/calls.h - what the rows of pa_ops are made of: one function for each system call.
 *
 * They run in a worker, which shares the program's descriptor table, working directory and umask,
 * and in the program itself for pools without workers; those that are named ..._cached only in the
 * program, before it turns to a worker.  All are async-signal-safe: system calls, and
 * nothing that allocates or locks.  Each gives a number >= 0 or a negated errno.
 */
#ifndef PROCAIO_WORKERS_CALLS_H
#define PROCAIO_WORKERS_CALLS_H

#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "ops.h"

#ifndef MADV_POPULATE_READ
#define MADV_POPULATE_READ 22
#define MADV_POPULATE_WRITE 23
#endif

static inline int64_t pa_outcome(int64_t value)
{
    return value < 0 ? -errno : value;
}

/* The program has cancelled it: a long call looks now and then, and ends early. */
static inline bool pa_must_stop(const struct pa_call *call)
{
    return __atomic_load_n(&call->slot->call_flags, __ATOMIC_RELAXED) & PA_STOP;
}

/* The program may set PA_STOP at the same time.  What was written before is seen with it. */
static inline void pa_raise_flag(const struct pa_call *call, uint16_t flag)
{
    __atomic_fetch_or(&call->slot->call_flags, flag, __ATOMIC_RELEASE);
}

static inline void pa_lower_flag(const struct pa_call *call, uint16_t flag)
{
    __atomic_fetch_and(&call->slot->call_flags, (uint16_t)~flag, __ATOMIC_RELEASE);
}

/* Opened by an operation for itself.  O_ASYNC does nothing (no owner is set): it is a mark.  Should
 * the worker die before the descriptor is closed, or before the program has taken it over, the
 * program finds it in its own table and closes what nobody will ever report (orphans.c). */
static inline int64_t pa_open_marked_at(int dir_fd, const char *path, uint32_t flags, uint32_t mode)
{
    return pa_outcome(
        syscall(SYS_openat, dir_fd, path, flags | O_CLOEXEC | O_ASYNC | O_LARGEFILE, mode));
}

static inline int64_t pa_open_marked(const struct pa_call *call, uint32_t flags)
{
    return pa_open_marked_at(call->slot->fd, call->path, flags, call->slot->mode);
}

/* The name that the system has for what is open; written without stdio, see loop.c. */
enum { PA_FD_LINK = 32 };

static inline void pa_fd_link(char link[PA_FD_LINK], int fd)
{
    static const char prefix[] = "/proc/self/fd/";
    char digits[12];
    int count = 0;
    size_t at = 0;
    for (; prefix[at]; at++)
        link[at] = prefix[at];
    for (int rest = fd; count == 0 || rest > 0; rest /= 10)
        digits[count++] = (char)('0' + rest % 10);
    while (count > 0)
        link[at++] = digits[--count];
    link[at] = '\0';
}

/* calls_data.c */
int64_t pa_call_read(const struct pa_call *call);
int64_t pa_call_read_cached(const struct pa_call *call);
int64_t pa_call_write(const struct pa_call *call);
int64_t pa_call_load(const struct pa_call *call);
int64_t pa_call_sendfile(const struct pa_call *call);
int64_t pa_call_readahead(const struct pa_call *call);
int64_t pa_call_truncate(const struct pa_call *call);
int64_t pa_call_ftruncate(const struct pa_call *call);
int64_t pa_call_sync(const struct pa_call *call);
int64_t pa_call_fsync(const struct pa_call *call);
int64_t pa_call_fdatasync(const struct pa_call *call);
int64_t pa_call_sync_file_range(const struct pa_call *call);
int64_t pa_call_pathsync(const struct pa_call *call);
int64_t pa_call_syncfs(const struct pa_call *call);
int64_t pa_call_seek(const struct pa_call *call);
int64_t pa_call_allocate(const struct pa_call *call);
int64_t pa_call_fadvise(const struct pa_call *call);
int64_t pa_call_copy_file_range(const struct pa_call *call);
int64_t pa_call_splice(const struct pa_call *call);
int64_t pa_call_tee(const struct pa_call *call);

/* calls_control.c */
int64_t pa_call_fcntl(const struct pa_call *call);
int64_t pa_call_ioctl(const struct pa_call *call);
int64_t pa_call_fiemap(const struct pa_call *call);
int64_t pa_call_getxattr(const struct pa_call *call);
int64_t pa_call_setxattr(const struct pa_call *call);
int64_t pa_call_listxattr(const struct pa_call *call);
int64_t pa_call_removexattr(const struct pa_call *call);

/* calls_copy.c */
int64_t pa_call_copy(const struct pa_call *call);
int64_t pa_call_move(const struct pa_call *call);

/* calls_tree.c */
int64_t pa_open_beneath(int anchor, const char *way); /* a directory; "": the anchor again */
int64_t pa_call_list(const struct pa_call *call);
int64_t pa_call_types(const struct pa_call *call);
int64_t pa_call_empty(const struct pa_call *call);
int64_t pa_call_make_directory(const struct pa_call *call);
int64_t pa_call_finish_directory(const struct pa_call *call);
int64_t pa_call_make_directories(const struct pa_call *call);

/* calls_many.c */
int64_t pa_call_stat_many(const struct pa_call *call);
int64_t pa_call_read_many(const struct pa_call *call);
int64_t pa_call_load_many(const struct pa_call *call);

/* calls_replace.c */
int64_t pa_call_replace_file(const struct pa_call *call);

/* calls_names.c */
struct stat;
void pa_fill_stat(struct pa_stat *out, const struct stat *st);
int64_t pa_call_open(const struct pa_call *call);
int64_t pa_call_close(const struct pa_call *call);
int64_t pa_call_replace(const struct pa_call *call);
int64_t pa_call_stat(const struct pa_call *call);
int64_t pa_call_lstat(const struct pa_call *call);
int64_t pa_call_fstat(const struct pa_call *call);
int64_t pa_call_statvfs(const struct pa_call *call);
int64_t pa_call_fstatvfs(const struct pa_call *call);
int64_t pa_call_chmod(const struct pa_call *call);
int64_t pa_call_fchmod(const struct pa_call *call);
int64_t pa_call_chown(const struct pa_call *call);
int64_t pa_call_fchown(const struct pa_call *call);
int64_t pa_call_utime(const struct pa_call *call);
int64_t pa_call_futime(const struct pa_call *call);
int64_t pa_call_unlink(const struct pa_call *call);
int64_t pa_call_rmdir(const struct pa_call *call);
int64_t pa_call_mkdir(const struct pa_call *call);
int64_t pa_call_mknod(const struct pa_call *call);
int64_t pa_call_rename(const struct pa_call *call);
int64_t pa_call_link(const struct pa_call *call);
int64_t pa_call_symlink(const struct pa_call *call);
int64_t pa_call_readlink(const struct pa_call *call);
int64_t pa_call_readdir(const struct pa_call *call);
int64_t pa_call_access(const struct pa_call *call);
int64_t pa_call_statx(const struct pa_call *call);

/* calls_cached.c */
int64_t pa_call_stat_cached(const struct pa_call *call);
int64_t pa_call_lstat_cached(const struct pa_call *call);
int64_t pa_call_load_cached(const struct pa_call *call);

/* calls_realpath.c */
int64_t pa_call_realpath(const struct pa_call *call);

/* calls_memory.c; `data` is an address of the program. */
int64_t pa_call_msync(const struct pa_call *call);
int64_t pa_call_mtouch(const struct pa_call *call);
int64_t pa_call_mlock(const struct pa_call *call);
int64_t pa_call_mlockall(const struct pa_call *call);
int64_t pa_touch_pages(char *at, uint64_t length, bool modify);

#endif
