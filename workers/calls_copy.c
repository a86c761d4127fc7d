/* workers/calls_copy.c - a whole file copied, or moved, in one request.
 *
 * The outcome is that of `cp -p`: content with its holes, times, owner, permissions.  Nothing is
 * touched before it is certain that source and destination are two files.
 *
 * A copy that fails, or is cancelled, leaves no part of itself behind, and neither does one whose
 * worker dies.  For that the worker notes in the slot how far it is.  After its death the program
 * gives the slot, notes and all, to another worker, which does the copy anew; or with PA_STOP set
 * from the beginning, and then it only removes what there is.  The notes are taken back when the
 * destination is whole, so from there on nobody removes it.
 */
#include <stdio.h> /* declares renameat; nothing else of it is used here */
#include <string.h>

#include "copying.h"

enum { LONGEST_PATH = 4096, MOST_LOOKS = 16 };

#define NEW_MODE 0200 /* nobody's but its owner's until it has the source's permissions */

static int64_t open_marked(int directory, const char *path, int flags)
{
    return pa_open_marked_at(directory, path, (uint32_t)flags | O_NOCTTY, NEW_MODE);
}

/* Not to wait for a FIFO or a device is not to wait for a lease either; that of a file is waited for. */
static int64_t open_entry_at(int directory, const char *path, int flags)
{
    struct stat st;
    int64_t fd = open_marked(directory, path, flags);
    if (fd == -EAGAIN && fstatat(directory, path, &st, AT_SYMLINK_NOFOLLOW) == 0 &&
        S_ISREG(st.st_mode))
        fd = open_marked(directory, path, flags & ~O_NONBLOCK);
    return fd;
}

/* -- notes, and what they are for ------------------------------------------------------------- */

static uint16_t notes(const struct pa_call *call)
{
    return __atomic_load_n(&call->slot->call_flags, __ATOMIC_ACQUIRE);
}

static void note_writing(const struct pa_call *call, const struct stat *destination)
{
    call->slot->destination_inode = destination->st_ino;
    call->slot->destination_device = (uint32_t)destination->st_dev;
    pa_raise_flag(call, PA_WRITING);
    pa_lower_flag(call, PA_CREATING);
}

/* The destination is the one that was noted.  Of what was just being created nobody knows the number,
 * but it is empty, and nobody else may look into it. */
static bool is_part(const struct pa_call *call, const struct stat *st)
{
    uint16_t noted = notes(call);
    if (noted & PA_WRITING && st->st_ino == call->slot->destination_inode &&
        (uint32_t)st->st_dev == call->slot->destination_device)
        return true;
    return noted & PA_CREATING && !S_ISDIR(st->st_mode) && st->st_size == 0 &&
           (st->st_mode & 07777u & ~(unsigned)NEW_MODE) == 0;
}

/* By the name that the system knows; false if that is no name of it any more. */
static bool unlink_opened(int fd, const struct stat *opened)
{
    char link[PA_FD_LINK], path[LONGEST_PATH + 1];
    struct stat st;
    pa_fd_link(link, fd);
    ssize_t size = readlink(link, path, LONGEST_PATH);
    if (size <= 0)
        return false;
    path[size] = '\0';
    return lstat(path, &st) == 0 && pa_same_file(&st, opened) && unlink(path) == 0;
}

/* What is behind a symlink, which stays, or cannot be removed: then it is emptied. */
static void remove_opened(const struct pa_call *call, bool follow)
{
    struct stat st;
    int64_t fd = open_marked(call->slot->fd2, call->path2,
                             O_WRONLY | O_NONBLOCK | (follow ? 0 : O_NOFOLLOW));
    if (fd < 0)
        return;
    if (fstat((int)fd, &st) == 0 && S_ISREG(st.st_mode) && is_part(call, &st) &&
        !(follow && unlink_opened((int)fd, &st)))
        (void)!ftruncate((int)fd, 0);
    syscall(SYS_close, (int)fd);
}

static void undo(const struct pa_call *call)
{
    const struct pa_slot *slot = call->slot;
    struct stat st, behind;
    if (notes(call) & (PA_CREATING | PA_WRITING) &&
        fstatat(slot->fd2, call->path2, &st, AT_SYMLINK_NOFOLLOW) == 0) {
        if (is_part(call, &st)) {
            if (unlinkat(slot->fd2, call->path2, 0) < 0 && S_ISREG(st.st_mode))
                remove_opened(call, false);
        } else if (S_ISLNK(st.st_mode) && fstatat(slot->fd2, call->path2, &behind, 0) == 0 &&
                   S_ISREG(behind.st_mode) && is_part(call, &behind)) {
            remove_opened(call, true);
        }
    }
    pa_lower_flag(call, PA_CREATING | PA_WRITING);
}

/* -- the source ------------------------------------------------------------------------------- */

/* It blocks for neither a FIFO nor a device when only regular files are meant. */
static int64_t open_source(struct pa_copying *self)
{
    const struct pa_slot *slot = self->call->slot;
    struct stat looked_at = self->source;
    int64_t fd = open_entry_at(slot->fd, self->call->path,
                               O_RDONLY | (self->follows ? 0 : O_NOFOLLOW | O_NONBLOCK));
    if (!self->follows && (fd == -ELOOP || fd == -ENXIO))
        return -EAGAIN; /* it was replaced meanwhile */
    if (fd < 0)
        return fd;
    self->from = (int)fd;
    int64_t failed = pa_outcome(fstat(self->from, &self->source));
    if (!failed && S_ISDIR(self->source.st_mode))
        failed = -EISDIR;
    if (!failed && !self->follows && !pa_same_file(&looked_at, &self->source))
        failed = -EAGAIN;
    if (failed)
        syscall(SYS_close, self->from);
    else if (!S_ISREG(self->source.st_mode))
        pa_raise_flag(self->call, PA_ONCE);
    return failed;
}

static int64_t look_at_source(struct pa_copying *self)
{
    const struct pa_slot *slot = self->call->slot;
    return pa_outcome(fstatat(slot->fd, self->call->path, &self->source, AT_SYMLINK_NOFOLLOW));
}

/* -- the destination -------------------------------------------------------------------------- */

/* Makes what is not there yet: -EEXIST if it is. */
typedef int64_t maker(struct pa_copying *self);

static int64_t make_file(struct pa_copying *self)
{
    int64_t fd = open_marked(self->call->slot->fd2, self->call->path2,
                             O_WRONLY | O_CREAT | O_EXCL);
    if (fd < 0)
        return fd;
    self->to = (int)fd;
    return 0;
}

static int64_t make_link(struct pa_copying *self)
{
    const struct pa_slot *slot = self->call->slot;
    char link[LONGEST_PATH + 1];
    int64_t size = pa_outcome(readlinkat(slot->fd, self->call->path, link, LONGEST_PATH));
    if (size < 0)
        return size;
    link[size] = '\0';
    return pa_outcome(symlinkat(link, slot->fd2, self->call->path2));
}

static int64_t make_node(struct pa_copying *self)
{
    const struct stat *st = &self->source;
    return pa_outcome(mknodat(self->call->slot->fd2, self->call->path2,
                              (st->st_mode & S_IFMT) | NEW_MODE, st->st_rdev));
}

static int64_t make_noted(struct pa_copying *self, maker *make)
{
    const struct pa_call *call = self->call;
    struct stat *st = &self->destination;
    pa_raise_flag(call, PA_CREATING);
    int64_t made = make(self);
    if (made < 0)
        pa_lower_flag(call, PA_CREATING);
    else if ((make == make_file ? fstat(self->to, st)
                                : fstatat(call->slot->fd2, call->path2, st,
                                          AT_SYMLINK_NOFOLLOW)) == 0)
        note_writing(call, st);
    return made;
}

/* -EAGAIN: there is room now. */
static int64_t make_room(struct pa_copying *self)
{
    const struct pa_call *call = self->call;
    struct stat st;
    if (fstatat(call->slot->fd2, call->path2, &st, AT_SYMLINK_NOFOLLOW) < 0)
        return errno == ENOENT ? -EAGAIN : -errno;
    if (S_ISDIR(st.st_mode))
        return -EISDIR;
    if (pa_same_file(&st, &self->source))
        return -EINVAL; /* onto itself: nothing was changed */
    return unlinkat(call->slot->fd2, call->path2, 0) < 0 && errno != ENOENT ? -errno : -EAGAIN;
}

/* The file that is there gets the content.  Until it is cut it is no part of this copy, unless a dead
 * worker has noted it. */
static int64_t take_opened(struct pa_copying *self)
{
    const struct pa_call *call = self->call;
    bool noted = false;
    int64_t failed = pa_outcome(fstat(self->to, &self->destination));
    if (!failed && pa_same_file(&self->source, &self->destination))
        failed = -EINVAL; /* onto itself: nothing was changed */
    if (!failed && S_ISREG(self->destination.st_mode)) {
        noted = is_part(call, &self->destination);
        note_writing(call, &self->destination);
        failed = pa_outcome(ftruncate(self->to, 0));
        if (failed && !noted)
            pa_lower_flag(call, PA_WRITING);
    } else if (!failed) {
        pa_raise_flag(call, PA_ONCE);
    }
    if (failed)
        syscall(SYS_close, self->to);
    return failed;
}

/* Through symlinks, also one that leads nowhere: then what it says is created. */
static int64_t open_followed(struct pa_copying *self)
{
    const struct pa_call *call = self->call;
    int64_t fd = open_marked(call->slot->fd2, call->path2, O_WRONLY);
    if (fd == -ENOENT) {
        pa_raise_flag(call, PA_CREATING);
        fd = open_marked(call->slot->fd2, call->path2, O_WRONLY | O_CREAT);
    }
    if (fd < 0) {
        pa_lower_flag(call, PA_CREATING);
        return fd;
    }
    self->to = (int)fd;
    return take_opened(self);
}

/* A regular file of one name only: what has others keeps what it holds.  Whatever else is there makes
 * room. */
static int64_t open_entry(struct pa_copying *self)
{
    const struct pa_call *call = self->call;
    struct stat st;
    int looked = fstatat(call->slot->fd2, call->path2, &st, AT_SYMLINK_NOFOLLOW);
    if (self->replaces || looked < 0 || !S_ISREG(st.st_mode) || st.st_nlink > 1)
        return make_room(self);
    int64_t fd = open_entry_at(call->slot->fd2, call->path2, O_WRONLY | O_NOFOLLOW | O_NONBLOCK);
    if (fd == -ENOENT || fd == -ELOOP || fd == -ENXIO)
        return -EAGAIN; /* it was replaced meanwhile */
    if (fd < 0)
        return fd;
    self->to = (int)fd;
    if (fstat(self->to, &self->destination) == 0 && S_ISREG(self->destination.st_mode))
        return take_opened(self);
    syscall(SYS_close, self->to);
    return -EAGAIN;
}

/* `there`: what to do if something is; -EAGAIN has it made once more. */
static int64_t make_or(struct pa_copying *self, maker *make, maker *there)
{
    int64_t result = -EAGAIN;
    for (int looks = 0; result == -EAGAIN && looks < MOST_LOOKS; looks++) {
        result = make_noted(self, make);
        if (result == -EEXIST)
            result = there(self);
    }
    return result;
}

/* -- requests --------------------------------------------------------------------------------- */

static int64_t copy_opened(struct pa_copying *self)
{
    int64_t result = make_or(self, make_file, self->follows ? open_followed : open_entry);
    if (result == 0) {
        result = pa_copy_content(self);
        if (result == 0 && S_ISREG(self->destination.st_mode))
            pa_copy_attributes(self);
        int64_t closed = pa_outcome(syscall(SYS_close, self->to)); /* servers say now what failed */
        if (result == 0 && closed != -EINTR)
            result = closed;
    }
    syscall(SYS_close, self->from);
    return result;
}

static int64_t copy_regular(struct pa_copying *self)
{
    int64_t result = open_source(self);
    return result < 0 ? result : copy_opened(self);
}

/* A file of several names, if that is what is asked for. */
static bool is_only_told(const struct pa_copying *self)
{
    return self->call->slot->call_flags & PA_TELL_LINKS && !S_ISDIR(self->source.st_mode) &&
           self->source.st_nlink > 1;
}

/* As it is: a symlink, a FIFO, a socket and a device are made anew. */
static int64_t copy_entry(struct pa_copying *self)
{
    int64_t result = -EAGAIN;
    for (int looks = 0; result == -EAGAIN && looks < MOST_LOOKS; looks++) {
        result = look_at_source(self);
        if (result < 0 || is_only_told(self))
            return result;
        if (S_ISDIR(self->source.st_mode))
            return -EISDIR;
        if (S_ISREG(self->source.st_mode)) {
            result = copy_regular(self);
        } else {
            result = make_or(self, S_ISLNK(self->source.st_mode) ? make_link : make_node,
                             make_room);
            if (result == 0)
                pa_copy_attributes_of_entry(self);
        }
    }
    return result;
}

/* What is whole is nobody's to remove. */
static int64_t copy(struct pa_copying *self)
{
    const struct pa_call *call = self->call;
    if (notes(call) & PA_CREATING && !(notes(call) & PA_WRITING))
        undo(call);
    int64_t result = pa_must_stop(call) ? -ECANCELED
                     : self->follows    ? copy_regular(self)
                                        : copy_entry(self);
    if (result < 0)
        undo(call);
    else
        pa_lower_flag(call, PA_CREATING | PA_WRITING);
    return result;
}

int64_t pa_call_copy(const struct pa_call *call)
{
    struct pa_slot *slot = call->slot;
    struct pa_copying self = {.call = call, .follows = !(slot->call_flags & PA_NO_FOLLOW)};
    int64_t result = copy(&self);
    const struct stat *st = &self.source;
    if (result < 0)
        return result;
    if (slot->call_flags & PA_TELL_LINKS) { /* the paths are not needed any more */
        struct pa_stat told = {
            .dev = st->st_dev, .ino = st->st_ino, .nlink = st->st_nlink, .mode = st->st_mode};
        memcpy(slot->payload, &told, sizeof told);
    }
    return S_ISREG(st->st_mode) ? st->st_size : 0;
}

/* Whoever has put another file there meanwhile keeps it. */
static int64_t remove_source(const struct pa_copying *self)
{
    const struct pa_slot *slot = self->call->slot;
    struct stat now;
    if (fstatat(slot->fd, self->call->path, &now, AT_SYMLINK_NOFOLLOW) < 0)
        return -errno;
    if (!pa_same_file(&now, &self->source))
        return -EAGAIN;
    return pa_outcome(unlinkat(slot->fd, self->call->path, 0));
}

/* Renamed, or, to another file system, copied as it is and then removed.  One that is repeated was
 * copying already. */
int64_t pa_call_move(const struct pa_call *call)
{
    const struct pa_slot *slot = call->slot;
    struct pa_copying self = {.call = call, .replaces = true};
    if (!(notes(call) & PA_COPYING)) {
        if (pa_must_stop(call))
            return -ECANCELED;
        int64_t renamed = pa_outcome(renameat(slot->fd, call->path, slot->fd2, call->path2));
        if (renamed != -EXDEV)
            return renamed;
        pa_raise_flag(call, PA_COPYING);
    }
    int64_t result = copy(&self);
    if (result < 0)
        return result;
    pa_lower_flag(call, PA_COPYING);
    return remove_source(&self);
}
