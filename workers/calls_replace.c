/* workers/calls_replace.c - a file's new content, all of it or nothing, whatever dies.
 *
 * The content is written to a file without a name, or with one of its own where the file system has
 * no such files; it is on the disk before it gets the old one's name, and so is the name when the
 * request is done.
 */
#include "calls.h"

#include <stdbool.h>
#include <stdio.h> /* declares renameat; nothing else of it is used here */
#include <string.h>
#include <sys/random.h>

enum { LONGEST = 4096, TRIES = 100 };

struct replacing {
    const struct pa_call *call;
    int directory, file;
    const char *name;
    char temporary[32]; /* empty: the file has no name yet */
};

/* The directory of the path; `name` is what follows. */
static int64_t open_directory(struct replacing *self)
{
    char directory[LONGEST];
    const char *path = self->call->path, *slash = strrchr(path, '/');
    size_t length = slash ? (size_t)(slash - path) + 1 : 0;
    self->name = path + length;
    if (length >= sizeof directory)
        return -ENAMETOOLONG;
    if (*self->name == '\0')
        return *path ? -EISDIR : -ENOENT;
    memcpy(directory, length ? path : ".", length ? length : 1);
    directory[length ? length : 1] = '\0';
    return pa_open_marked_at(self->call->slot->fd, directory, O_RDONLY | O_DIRECTORY, 0);
}

static void make_name(char *temporary)
{
    static const char digits[] = "0123456789abcdefghijklmnopqrstuv";
    unsigned char random[16];
    (void)!getrandom(random, sizeof random, 0);
    memcpy(temporary, ".procaio-", 9);
    for (size_t i = 0; i < sizeof random; i++)
        temporary[9 + i] = digits[random[i] & 31];
    temporary[9 + sizeof random] = '\0';
}

static int64_t open_with_name(struct replacing *self)
{
    int64_t fd = -EEXIST;
    for (int tries = 0; fd == -EEXIST && tries < TRIES; tries++) {
        make_name(self->temporary);
        fd = pa_open_marked_at(self->directory, self->temporary, O_WRONLY | O_CREAT | O_EXCL,
                               self->call->slot->mode);
    }
    if (fd < 0)
        self->temporary[0] = '\0';
    return fd;
}

static int64_t open_file(struct replacing *self)
{
    int64_t fd =
        pa_open_marked_at(self->directory, ".", O_WRONLY | O_TMPFILE, self->call->slot->mode);
    if (fd == -EOPNOTSUPP || fd == -EISDIR || fd == -EINVAL || fd == -ENOENT)
        fd = open_with_name(self);
    return fd;
}

static int64_t write_content(const struct replacing *self)
{
    const struct pa_slot *slot = self->call->slot;
    const char *data = self->call->data + slot->file_offset;
    for (uint64_t done = 0; done < slot->length;) {
        int64_t put =
            pa_outcome(syscall(SYS_write, self->file, data + done, slot->length - done));
        if (put < 0 && put != -EINTR)
            return put;
        done += put > 0 ? (uint64_t)put : 0;
    }
    return pa_outcome(syscall(SYS_fsync, self->file));
}

static int64_t give_name(struct replacing *self)
{
    char link[PA_FD_LINK];
    if (self->temporary[0])
        return 0;
    int64_t failed = -EEXIST;
    pa_fd_link(link, self->file);
    for (int tries = 0; failed == -EEXIST && tries < TRIES; tries++) {
        make_name(self->temporary);
        failed = pa_outcome(
            linkat(AT_FDCWD, link, self->directory, self->temporary, AT_SYMLINK_FOLLOW));
    }
    if (failed)
        self->temporary[0] = '\0';
    return failed;
}

static int64_t take_place(struct replacing *self)
{
    int64_t failed = write_content(self);
    if (!failed)
        failed = give_name(self);
    if (!failed)
        failed = pa_outcome(
            renameat(self->directory, self->temporary, self->directory, self->name));
    if (failed && self->temporary[0])
        unlinkat(self->directory, self->temporary, 0);
    return failed ? failed : pa_outcome(syscall(SYS_fsync, self->directory));
}

int64_t pa_call_replace_file(const struct pa_call *call)
{
    struct replacing self = {.call = call};
    int64_t directory = open_directory(&self);
    if (directory < 0)
        return directory;
    self.directory = (int)directory;
    int64_t result = open_file(&self);
    if (result >= 0) {
        self.file = (int)result;
        result = take_place(&self);
        syscall(SYS_close, self.file);
    }
    syscall(SYS_close, self.directory);
    return result;
}
