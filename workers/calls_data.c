/* workers/calls_data.c - reading, writing, copying and syncing what files hold. */
#include "calls.h"

#include <poll.h>
#include <stdbool.h>
#include <string.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/uio.h>

/* On the worker's stack, which is small. */
enum { COPY_BLOCK = 32 << 10 };

int64_t pa_call_read(const struct pa_call *call)
{
    const struct pa_slot *slot = call->slot;
    if (slot->file_offset < 0)
        return pa_outcome(syscall(SYS_read, slot->fd, call->data, slot->length));
    return pa_outcome(syscall(SYS_pread64, slot->fd, call->data, slot->length, slot->file_offset));
}

int64_t pa_call_read_cached(const struct pa_call *call)
{
    const struct pa_slot *slot = call->slot;
    struct iovec into = {.iov_base = call->data, .iov_len = slot->length};
    return pa_outcome(preadv2(slot->fd, &into, 1, slot->file_offset, RWF_NOWAIT));
}

int64_t pa_call_write(const struct pa_call *call)
{
    const struct pa_slot *slot = call->slot;
    if (slot->file_offset < 0)
        return pa_outcome(syscall(SYS_write, slot->fd, call->data, slot->length));
    return pa_outcome(syscall(SYS_pwrite64, slot->fd, call->data, slot->length, slot->file_offset));
}

/* Opens what is to be loaded, and goes to its offset (below 0: counted from the end).  Says whether
 * it can be done again, should this worker die over it, and how long the file is, if that is to be
 * read from its start.  A length is known without asking for all attributes; what has none may have
 * more: files of /proc, FIFOs, devices. */
static int64_t open_to_load(const struct pa_call *call, int64_t *size)
{
    struct stat st;
    off_t offset = call->slot->file_offset;
    int64_t fd = pa_open_marked(call, O_RDONLY | O_NOCTTY);
    if (fd < 0)
        return fd;
    if (offset == 0 && (*size = lseek((int)fd, 0, SEEK_END)) <= 0)
        lseek((int)fd, 0, SEEK_SET); /* the end of a log of messages is not its beginning */
    if (*size <= 0 && (fstat((int)fd, &st) < 0 || !S_ISREG(st.st_mode)))
        pa_raise_flag(call, PA_ONCE);
    if (offset != 0 && lseek((int)fd, offset, offset < 0 ? SEEK_END : SEEK_SET) < 0) {
        int error = errno;
        close((int)fd);
        return -error;
    }
    return fd;
}

/* What is left of a file, for the size of the next block; 0 where nobody knows. */
static uint64_t rest_of(int fd)
{
    struct stat st;
    off_t at = lseek(fd, 0, SEEK_CUR);
    if (at < 0 || fstat(fd, &st) < 0 || st.st_size <= at)
        return 0;
    return (uint64_t)(st.st_size - at);
}

/* Reads to the end of the file, not to its size: files of /proc have none.  But what gives just that
 * much, and had room for more, has come to its end.  A file that does not fit into the block stays
 * open, as a directory does (pa_call_readdir). */
int64_t pa_call_load(const struct pa_call *call)
{
    struct pa_slot *slot = call->slot;
    bool goes_on = slot->call_flags & PA_CONTINUE;
    int64_t size = 0;
    int64_t fd = goes_on ? slot->fd : open_to_load(call, &size);
    if (fd < 0)
        return fd;
    uint64_t filled = 0, most = slot->length < slot->limit ? slot->length : slot->limit;
    int64_t got = 1;
    while (filled < most && got > 0 && !pa_must_stop(call)) {
        char *to = call->data + filled;
        do /* where the length was asked for, the position is there */
            got = pa_outcome(size > 0 ? syscall(SYS_pread64, fd, to, most - filled, filled)
                                      : syscall(SYS_read, fd, to, most - filled));
        while (got == -EINTR);
        filled += got > 0 ? (uint64_t)got : 0;
        if (filled == (uint64_t)size && got > 0 && filled < most)
            got = 0;
    }
    if (got > 0 && filled < slot->limit) {
        if (size > 0)
            lseek((int)fd, (off_t)filled, SEEK_SET);
        uint64_t rest = rest_of((int)fd);
        memcpy(slot->payload, &rest, sizeof rest);
        slot->fd = (int32_t)fd;
        pa_raise_flag(call, PA_MORE);
        return (int64_t)filled;
    }
    if (!goes_on)
        syscall(SYS_close, (int)fd);
    return got < 0 ? got : (int64_t)filled;
}

/* -- sendfile --------------------------------------------------------------------------------- */

static bool must_be_emulated(int64_t error)
{
    static const int errors[] = {EINVAL,       ENOSYS,     ENOTSUP, EOPNOTSUPP,
                                 EAFNOSUPPORT, EPROTOTYPE, ENOTSOCK};
    for (size_t i = 0; i < sizeof errors / sizeof errors[0]; i++)
        if (error == -errors[i])
            return true;
    return false;
}

/* All of it.  `lossless`: what was read cannot be read again, so a socket that takes nothing now is
 * waited for. */
static int64_t write_all(int fd, const char *data, uint64_t size, bool lossless, uint64_t *written)
{
    for (*written = 0; *written < size;) {
        int64_t put = pa_outcome(syscall(SYS_write, fd, data + *written, size - *written));
        if (put == -EAGAIN && lossless) {
            struct pollfd writable = {.fd = fd, .events = POLLOUT};
            put = pa_outcome(poll(&writable, 1, -1));
            if (put >= 0)
                continue;
        }
        if (put < 0 && put != -EINTR)
            return put;
        *written += put > 0 ? (uint64_t)put : 0;
    }
    return 0;
}

/* Reads at `offset`, or at the position if that is -1, and writes. */
static int64_t copy_in_steps(int out, int in, int64_t offset, uint64_t length)
{
    char block[COPY_BLOCK];
    uint64_t done = 0;
    while (done < length) {
        uint64_t want = length - done < sizeof block ? length - done : sizeof block, written;
        int64_t got = offset < 0 ? pa_outcome(syscall(SYS_read, in, block, want))
                                 : pa_outcome(syscall(SYS_pread64, in, block, want,
                                                      offset + (int64_t)done));
        if (got == -EINTR)
            continue;
        if (got <= 0)
            return got < 0 && done == 0 ? got : (int64_t)done;
        int64_t failed = write_all(out, block, (uint64_t)got, offset < 0, &written);
        done += written;
        if (failed)
            return done == 0 ? failed : (int64_t)done;
    }
    return (int64_t)done;
}

int64_t pa_call_sendfile(const struct pa_call *call)
{
    enum { MOST_AT_ONCE = 0x7ffff000 }; /* the system copies no more in one call */
    const struct pa_slot *slot = call->slot;
    off_t offset = slot->file_offset;
    uint64_t done = 0;
    while (done < slot->length) {
        uint64_t left = slot->length - done;
        int64_t sent = pa_outcome(sendfile(slot->fd, slot->fd2, offset < 0 ? NULL : &offset,
                                           left < MOST_AT_ONCE ? left : MOST_AT_ONCE));
        if (sent == -EINTR)
            continue;
        if (sent < 0 && done == 0 && must_be_emulated(sent))
            return copy_in_steps(slot->fd, slot->fd2, slot->file_offset, slot->length);
        if (sent <= 0)
            return sent < 0 && done == 0 ? sent : (int64_t)done;
        done += (uint64_t)sent;
    }
    return (int64_t)done;
}

/* -- the page cache and the disk -------------------------------------------------------------- */

/* Reading has the same effect where the system cannot read ahead. */
static int64_t read_and_forget(int fd, int64_t offset, uint64_t length)
{
    char block[COPY_BLOCK];
    while (length > 0) {
        int64_t got = pa_outcome(syscall(SYS_pread64, fd, block,
                                         length < sizeof block ? length : sizeof block, offset));
        if (got == -EINTR)
            continue;
        if (got <= 0)
            return got;
        offset += got;
        length -= (uint64_t)got;
    }
    return 0;
}

int64_t pa_call_readahead(const struct pa_call *call)
{
    const struct pa_slot *slot = call->slot;
    int64_t result = pa_outcome(readahead(slot->fd, slot->file_offset, slot->length));
    if (result == -EINVAL || result == -ENOSYS || result == -EOPNOTSUPP)
        return read_and_forget(slot->fd, slot->file_offset, slot->length);
    return result;
}

int64_t pa_call_truncate(const struct pa_call *call)
{
    return pa_outcome(truncate(call->path, call->slot->file_offset));
}

int64_t pa_call_ftruncate(const struct pa_call *call)
{
    return pa_outcome(ftruncate(call->slot->fd, call->slot->file_offset));
}

int64_t pa_call_sync(const struct pa_call *call)
{
    (void)call;
    sync();
    return 0;
}

int64_t pa_call_fsync(const struct pa_call *call)
{
    return pa_outcome(syscall(SYS_fsync, call->slot->fd));
}

int64_t pa_call_fdatasync(const struct pa_call *call)
{
    int64_t result = pa_outcome(syscall(SYS_fdatasync, call->slot->fd));
    return result == -ENOSYS ? pa_call_fsync(call) : result;
}

int64_t pa_call_sync_file_range(const struct pa_call *call)
{
    const struct pa_slot *slot = call->slot;
    int64_t result = pa_outcome(
        sync_file_range(slot->fd, slot->file_offset, (off_t)slot->length, slot->flags));
    return result == -ENOSYS ? pa_call_fdatasync(call) : result;
}

int64_t pa_call_pathsync(const struct pa_call *call)
{
    uint32_t flags = O_NONBLOCK | O_NOCTTY;
    int64_t fd = pa_open_marked(call, O_RDONLY | flags);
    if (fd == -EACCES) /* perhaps it may be written only */
        fd = pa_open_marked(call, O_WRONLY | flags);
    if (fd < 0)
        return fd;
    int64_t result = pa_outcome(syscall(SYS_fsync, (int)fd));
    syscall(SYS_close, (int)fd);
    return result;
}

int64_t pa_call_syncfs(const struct pa_call *call)
{
    return pa_outcome(syncfs(call->slot->fd));
}

int64_t pa_call_fadvise(const struct pa_call *call)
{
    const struct pa_slot *slot = call->slot;
    return -posix_fadvise(slot->fd, slot->file_offset, (off_t)slot->length, (int)slot->flags);
}

/* -- positions and space ---------------------------------------------------------------------- */

int64_t pa_call_seek(const struct pa_call *call)
{
    const struct pa_slot *slot = call->slot;
    return pa_outcome(lseek(slot->fd, slot->file_offset, (int)slot->flags));
}

int64_t pa_call_allocate(const struct pa_call *call)
{
    const struct pa_slot *slot = call->slot;
    return pa_outcome(
        fallocate(slot->fd, (int)slot->flags, slot->file_offset, (off_t)slot->length));
}

/* -- between two descriptors ------------------------------------------------------------------- */

static off_t *offset_or_position(off_t *offset)
{
    return *offset < 0 ? NULL : offset;
}

int64_t pa_call_copy_file_range(const struct pa_call *call)
{
    const struct pa_slot *slot = call->slot;
    off_t from = slot->file_offset, to = slot->file_offset2;
    return pa_outcome(copy_file_range(slot->fd, offset_or_position(&from), slot->fd2,
                                      offset_or_position(&to), slot->length, 0));
}

int64_t pa_call_splice(const struct pa_call *call)
{
    const struct pa_slot *slot = call->slot;
    off_t from = slot->file_offset, to = slot->file_offset2;
    return pa_outcome(splice(slot->fd, offset_or_position(&from), slot->fd2,
                             offset_or_position(&to), slot->length, slot->flags));
}

int64_t pa_call_tee(const struct pa_call *call)
{
    const struct pa_slot *slot = call->slot;
    return pa_outcome(tee(slot->fd, slot->fd2, slot->length, slot->flags));
}
