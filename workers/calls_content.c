/* workers/calls_content.c - what a copy takes over from its source: content, holes, attributes. */
#include <linux/fs.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/xattr.h>

#include "copying.h"

enum { AT_ONCE = 8 << 20, COPY_BLOCK = 32 << 10, LARGEST_ATTRIBUTE = 64 << 10 };

static const char access_list[] = "system.posix_acl_access";
static const char default_list[] = "system.posix_acl_default"; /* for what a directory gets */

/* -- content ---------------------------------------------------------------------------------- */

/* For whoever wants to know how far it is. */
static void tell(const struct pa_copying *self, off_t at)
{
    __atomic_store_n(&self->call->slot->copied, (uint64_t)at, __ATOMIC_RELAXED);
}

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
static int64_t copy_by_hand(const struct pa_copying *self, off_t at, off_t end)
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
        tell(self, at);
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
static int64_t copy_range(const struct pa_copying *self, off_t start, off_t end)
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
        tell(self, at);
    }
    return at - start;
}

/* Holes stay holes.  Where nobody can tell, all is data. */
int64_t pa_copy_content(const struct pa_copying *self)
{
    const off_t unknown = INT64_MAX;
    bool sparse = S_ISREG(self->source.st_mode) && S_ISREG(self->destination.st_mode);
    struct stat now;
    off_t at = 0;
    if (sparse && self->source.st_size > 0 && ioctl(self->to, FICLONE, self->from) == 0) {
        tell(self, self->source.st_size);
        return 0;
    }
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
    if (!sparse || fstat(self->from, &now) < 0 || now.st_size <= at)
        return 0;
    int64_t failed = pa_outcome(ftruncate(self->to, now.st_size)); /* it ends with a hole */
    if (!failed)
        tell(self, now.st_size);
    return failed;
}

/* -- attributes ------------------------------------------------------------------------------- */

static bool is_taken_over(const char *name)
{
    return strncmp(name, "user.", 5) == 0 || strcmp(name, access_list) == 0 ||
           strcmp(name, default_list) == 0;
}

/* Names, and one value, are larger than what a worker's stack has left, so they get pages. */
static void copy_extended(const struct pa_copying *self)
{
    if (flistxattr(self->from, NULL, 0) <= 0)
        return;
    char *names = mmap(NULL, 2 * LARGEST_ATTRIBUTE, PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (names == MAP_FAILED)
        return;
    char *value = names + LARGEST_ATTRIBUTE;
    ssize_t size = flistxattr(self->from, names, LARGEST_ATTRIBUTE - 1);
    for (const char *name = names; name < names + size; name += strlen(name) + 1) {
        ssize_t length = is_taken_over(name)
                             ? fgetxattr(self->from, name, value, LARGEST_ATTRIBUTE)
                             : -1;
        if (length >= 0)
            fsetxattr(self->to, name, value, (size_t)length, 0);
    }
    munmap(names, 2 * LARGEST_ATTRIBUTE);
}

/* Its group, if not its owner. */
static bool give_to_owner(int directory, const char *path, int flags, const struct stat *st)
{
    if (fchownat(directory, path, st->st_uid, st->st_gid, flags) == 0)
        return true;
    (void)!fchownat(directory, path, (uid_t)-1, st->st_gid, flags);
    return false;
}

/* Set-user-ID is not given to somebody else's file. */
static mode_t permissions(const struct stat *st, bool owned)
{
    return st->st_mode & (owned ? 07777u : 0777u);
}

/* A directory may have given the new file access lists; the source's own take their place.
 * Changing the owner takes set-user-ID off, so the permissions come last. */
void pa_copy_attributes(const struct pa_copying *self)
{
    const struct stat *st = &self->source;
    const struct timespec times[] = {st->st_atim, st->st_mtim};
    futimens(self->to, times);
    fremovexattr(self->to, access_list);
    if (S_ISDIR(st->st_mode))
        fremovexattr(self->to, default_list);
    copy_extended(self);
    bool owned = give_to_owner(self->to, "", AT_EMPTY_PATH, st);
    fchmod(self->to, permissions(st, owned));
}

/* Of what cannot be opened, like a symlink, or should not, like a device.  Whatever has its name
 * meanwhile is let alone.  O_PATH leaves no room for the mark by which orphans.c knows what a dead
 * worker had open: so that is noted in the slot. */
void pa_copy_attributes_of_entry(const struct pa_copying *self)
{
    const struct pa_call *call = self->call;
    const struct stat *st = &self->source;
    const struct timespec times[] = {st->st_atim, st->st_mtim};
    char link[PA_FD_LINK];
    struct stat named;
    pa_raise_flag(call, PA_OPENS_PATH);
    int fd = openat(call->slot->fd2, call->path2, O_PATH | O_NOFOLLOW | O_CLOEXEC);
    if (fd >= 0 && fstat(fd, &named) == 0 && named.st_ino == self->destination.st_ino &&
        named.st_dev == self->destination.st_dev) {
        bool owned = give_to_owner(fd, "", AT_EMPTY_PATH, st);
        pa_fd_link(link, fd);
        if (!S_ISLNK(st->st_mode))
            (void)!fchmodat(AT_FDCWD, link, permissions(st, owned), 0);
        utimensat(fd, "", times, AT_EMPTY_PATH);
    }
    if (fd >= 0)
        close(fd);
    pa_lower_flag(call, PA_OPENS_PATH);
}
