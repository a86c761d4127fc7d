/* workers/calls_realpath.c - the absolute path of a file, without any symlink in it.
 *
 * The system knows the path of whatever is open.  But what is open as O_PATH cannot carry the mark of
 * calls.h: a worker that dies would leave it so.  Therefore nothing is opened.  The system says which
 * file is meant, then the way there is gone name by name, and has to end at that file.
 */
#include "calls.h"

#include <limits.h>
#include <stdbool.h>
#include <string.h>
#include <sys/stat.h>

enum { MOST_LINKS = 40, ROOM = 4 * PATH_MAX };

struct way {
    int fd;      /* where a relative path begins */
    size_t base; /* so much of `name` is what that is called; 0: it does not begin with it */
    size_t length;
    int links;
    char *rest;          /* what has still to be gone, at the end of `room` */
    char name[PATH_MAX]; /* the path so far, no link in it; "": the root */
    char room[ROOM];
};

static int64_t put_before(struct way *way, const char *path, size_t size)
{
    if (size > (size_t)(way->rest - way->room))
        return -ENAMETOOLONG;
    way->rest -= size;
    memcpy(way->rest, path, size);
    return 0;
}

static int64_t begin_at_directory(struct way *way)
{
    char link[PA_FD_LINK] = "/proc/self/cwd";
    if (way->fd != AT_FDCWD)
        pa_fd_link(link, way->fd);
    int64_t size = pa_outcome(readlinkat(AT_FDCWD, link, way->name, sizeof way->name - 1));
    if (size < 0)
        return size;
    if (size == 0 || way->name[0] != '/')
        return -ENOENT;
    way->length = size == 1 ? 0 : (size_t)size;
    way->base = way->length;
    return 0;
}

static void go_up(struct way *way)
{
    while (way->length > 0 && way->name[--way->length] != '/')
        ;
    if (way->length < way->base)
        way->base = 0;
}

/* Asked from where the path began, if it is below that: the directories above may be closed. */
static int64_t read_link(const struct way *way, char *target, size_t size)
{
    if (way->base > 0)
        return pa_outcome(readlinkat(way->fd, way->name + way->base + 1, target, size));
    return pa_outcome(readlinkat(AT_FDCWD, way->name, target, size));
}

static int64_t enter(struct way *way, const char *entry, size_t size)
{
    char target[PATH_MAX];
    size_t above = way->length;
    if (above + 1 + size >= sizeof way->name)
        return -ENAMETOOLONG;
    way->name[above] = '/';
    memcpy(way->name + above + 1, entry, size);
    way->length = above + 1 + size;
    way->name[way->length] = '\0';
    int64_t got = read_link(way, target, sizeof target);
    if (got < 0)
        return got == -EINVAL ? 0 : got; /* no link */
    if (++way->links > MOST_LINKS)
        return -ELOOP;
    way->length = above;
    if (got > 0 && target[0] == '/')
        way->length = way->base = 0;
    return put_before(way, target, (size_t)got);
}

static int64_t go(struct way *way)
{
    int64_t failed = 0;
    while (!failed) {
        char *entry = way->rest + strspn(way->rest, "/");
        size_t size = strcspn(entry, "/");
        way->rest = entry + size;
        if (size == 0)
            break;
        if (size == 2 && entry[0] == '.' && entry[1] == '.')
            go_up(way);
        else if (size != 1 || entry[0] != '.')
            failed = enter(way, entry, size);
    }
    if (way->length == 0)
        way->name[way->length++] = '/';
    way->name[way->length] = '\0';
    return failed;
}

/* False: a name that is none, of a pipe or of what was removed.  A file that may not be looked at by
 * the whole of its path is taken to be there. */
static bool is_name_of(const struct stat *meant, const char *name)
{
    struct stat named;
    if (lstat(name, &named) < 0)
        return errno != ENOENT && errno != ENOTDIR;
    return named.st_ino == meant->st_ino && named.st_dev == meant->st_dev;
}

int64_t pa_call_realpath(const struct pa_call *call)
{
    const struct pa_slot *slot = call->slot;
    struct way way;
    struct stat meant;
    way.fd = slot->fd;
    way.base = way.length = 0;
    way.links = 0;
    way.rest = way.room + ROOM - 1;
    *way.rest = '\0';
    int64_t failed = pa_outcome(fstatat(slot->fd, call->path, &meant, AT_NO_AUTOMOUNT));
    if (!failed)
        failed = put_before(&way, call->path, strlen(call->path));
    if (!failed && call->path[0] != '/')
        failed = begin_at_directory(&way);
    if (!failed)
        failed = go(&way);
    if (failed)
        return failed;
    if (!is_name_of(&meant, way.name))
        return -ENOENT;
    if (way.length > slot->length)
        return -ENAMETOOLONG;
    memcpy(call->data, way.name, way.length); /* the path may have been there */
    return (int64_t)way.length;
}
