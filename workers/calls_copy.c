/* workers/calls_copy.c - a whole file copied, or moved, in one request.
 *
 * The outcome is that of `cp -p`: content with its holes, times, owner, permissions.  Nothing is
 * touched before it is certain that source and destination are two files.  A copy that fails, or is
 * cancelled, leaves no part of itself behind.
 */
#include "calls.h"

#include <linux/fs.h>
#include <stdbool.h>
#include <stdio.h> /* declares renameat; nothing else of it is used here */
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/xattr.h>

enum { AT_ONCE = 8 << 20, COPY_BLOCK = 32 << 10, LARGEST_ACL = 4096, LONGEST_LINK = 4096 };

struct copying {
    const struct pa_call *call;
    int from, to;
    struct stat source, destination;
};

/* -- content ---------------------------------------------------------------------------------- */

/* What has no positions is read, and written, where it is. */
static int64_t read_some(int fd, char *data, size_t size, off_t at)
{
    int64_t got = pa_outcome(syscall(SYS_pread64, fd, data, size, at));
    return got == -ESPIPE ? pa_outcome(syscall(SYS_read, fd, data, size)) : got;
}

static int64_t write_some(int fd, const char *data, size_t size, off_t at)
{
    int64_t put = pa_outcome(syscall(SYS_pwrite64, fd, data, size, at));
    return put == -ESPIPE ? pa_outcome(syscall(SYS_write, fd, data, size)) : put;
}

/* Up to `end`, or to the end of the file: how much, or an error. */
static int64_t copy_by_hand(const struct copying *self, off_t at, off_t end)
{
    char block[COPY_BLOCK];
    off_t start = at;
    while (at < end && !pa_must_stop(self->call)) {
        size_t want = end - at < COPY_BLOCK ? (size_t)(end - at) : COPY_BLOCK;
        int64_t got = read_some(self->from, block, want, at), done = 0;
        if (got == 0)
            return at - start;
        if (got < 0 && got != -EINTR)
            return got;
        while (done < got) {
            int64_t put = write_some(self->to, block + done, (size_t)(got - done), at + done);
            if (put < 0 && put != -EINTR)
                return put;
            done += put > 0 ? put : 0;
        }
        at += got > 0 ? got : 0;
    }
    return at < end ? -ECANCELED : at - start;
}

static bool is_final(int64_t error)
{
    return error == -EIO || error == -ENOSPC || error == -EDQUOT || error == -EFBIG ||
           error == -ENOMEM;
}

/* Within the kernel, which shares blocks where the file system can.  What it cannot do, or says is
 * the end (files of /proc have no size), is done by hand. */
static int64_t copy_range(const struct copying *self, off_t start, off_t end)
{
    off_t at = start;
    while (at < end) {
        off_t from = at, to = at;
        size_t want = end - at < AT_ONCE ? (size_t)(end - at) : AT_ONCE;
        if (pa_must_stop(self->call))
            return -ECANCELED;
        int64_t got = pa_outcome(copy_file_range(self->from, &from, self->to, &to, want, 0));
        if (got == -EINTR)
            continue;
        if (is_final(got))
            return got;
        if (got <= 0) {
            int64_t rest = copy_by_hand(self, at, end);
            return rest < 0 ? rest : at - start + rest;
        }
        at += got;
    }
    return at - start;
}

/* Holes stay holes.  Where nobody can tell, all is data. */
static int64_t copy_content(const struct copying *self)
{
    const off_t unknown = INT64_MAX;
    bool sparse = S_ISREG(self->source.st_mode) && S_ISREG(self->destination.st_mode);
    struct stat now;
    off_t at = 0;
    if (sparse && self->source.st_size > 0 && ioctl(self->to, FICLONE, self->from) == 0)
        return 0;
    for (;;) {
        off_t data = sparse ? lseek(self->from, at, SEEK_DATA) : -1;
        if (data < 0 && sparse && errno == ENXIO)
            break;
        data = data < at ? at : data;
        off_t end = sparse ? lseek(self->from, data, SEEK_HOLE) : -1;
        end = end <= data ? unknown : end;
        int64_t copied = copy_range(self, data, end);
        if (copied < 0)
            return copied;
        at = data + copied;
        if (copied < end - data)
            break;
    }
    if (sparse && fstat(self->from, &now) == 0 && now.st_size > at)
        return pa_outcome(ftruncate(self->to, now.st_size));
    return 0;
}

/* -- everything else -------------------------------------------------------------------------- */

/* As far as the program may; what it may not is no error.  Changing the owner takes set-user-ID off,
 * so the permissions come last, and are not given to somebody else's file. */
static void copy_attributes(const struct copying *self)
{
    const struct stat *st = &self->source;
    const struct timespec times[] = {st->st_atim, st->st_mtim};
    char acl[LARGEST_ACL];
    futimens(self->to, times);
    bool owned = fchown(self->to, st->st_uid, st->st_gid) == 0;
    fchmod(self->to, st->st_mode & (owned ? 07777u : 0777u));
    ssize_t size = fgetxattr(self->from, "system.posix_acl_access", acl, sizeof acl);
    if (size > 0)
        fsetxattr(self->to, "system.posix_acl_access", acl, (size_t)size, 0);
}

static int64_t open_source(struct copying *self)
{
    const struct pa_slot *slot = self->call->slot;
    int64_t fd = pa_outcome(syscall(SYS_openat, slot->fd, self->call->path,
                                    O_RDONLY | O_NOCTTY | O_CLOEXEC | O_ASYNC));
    if (fd < 0)
        return fd;
    self->from = (int)fd;
    int64_t failed = pa_outcome(fstat(self->from, &self->source));
    if (!failed && S_ISDIR(self->source.st_mode))
        failed = -EISDIR;
    if (failed)
        syscall(SYS_close, self->from);
    return failed;
}

/* A new file belongs to nobody but its owner until it has the source's permissions. */
static int64_t open_destination(struct copying *self)
{
    const struct pa_slot *slot = self->call->slot;
    int64_t fd = pa_outcome(syscall(SYS_openat, slot->fd2, self->call->path2,
                                    O_WRONLY | O_CREAT | O_NOCTTY | O_CLOEXEC | O_ASYNC, 0200));
    if (fd < 0)
        return fd;
    self->to = (int)fd;
    const struct stat *a = &self->source, *b = &self->destination;
    int64_t failed = pa_outcome(fstat(self->to, &self->destination));
    if (!failed && a->st_dev == b->st_dev && a->st_ino == b->st_ino)
        failed = -EINVAL; /* onto itself: nothing was changed */
    if (!failed && S_ISREG(b->st_mode))
        failed = pa_outcome(ftruncate(self->to, 0));
    if (failed)
        syscall(SYS_close, self->to);
    return failed;
}

int64_t pa_call_copy(const struct pa_call *call)
{
    struct copying self = {.call = call};
    int64_t result = open_source(&self);
    if (result < 0)
        return result;
    result = open_destination(&self);
    if (result == 0) {
        result = copy_content(&self);
        if (result == 0)
            copy_attributes(&self);
        int64_t closed = pa_outcome(syscall(SYS_close, self.to)); /* servers say now what failed */
        if (result == 0 && closed != -EINTR)
            result = closed;
        if (result < 0 && S_ISREG(self.destination.st_mode))
            unlinkat(call->slot->fd2, call->path2, 0);
    }
    syscall(SYS_close, self.from);
    return result;
}

/* To another file system: a symlink says the same there. */
static int64_t copy_link(const struct pa_call *call)
{
    const struct pa_slot *slot = call->slot;
    char link[LONGEST_LINK + 1];
    int64_t size = pa_outcome(readlinkat(slot->fd, call->path, link, LONGEST_LINK));
    if (size < 0)
        return size;
    link[size] = '\0';
    int64_t result = pa_outcome(symlinkat(link, slot->fd2, call->path2));
    if (result == -EEXIST && unlinkat(slot->fd2, call->path2, 0) == 0)
        result = pa_outcome(symlinkat(link, slot->fd2, call->path2));
    return result;
}

int64_t pa_call_move(const struct pa_call *call)
{
    const struct pa_slot *slot = call->slot;
    struct stat st;
    int64_t result = pa_outcome(renameat(slot->fd, call->path, slot->fd2, call->path2));
    if (result != -EXDEV)
        return result;
    if (fstatat(slot->fd, call->path, &st, AT_SYMLINK_NOFOLLOW) < 0)
        return -errno;
    result = S_ISLNK(st.st_mode) ? copy_link(call) : pa_call_copy(call);
    return result < 0 ? result : pa_outcome(unlinkat(slot->fd, call->path, 0));
}
