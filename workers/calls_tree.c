/* workers/calls_tree.c - the steps of what is done to whole trees, one directory at a time.
 *
 * A directory is named by a descriptor of the program's somewhere above it, the anchor, and the way
 * from there.  On that way no symlink is followed and nothing leads upwards: whatever others do to
 * the tree meanwhile, what is removed or written lies in it.  Only the way to a tree's top, which the
 * program's caller has named, is looked up as any path (PA_TREE_TOP).
 *
 * What an answer says besides its records stands in the payload (struct pa_tree_answer).
 */
#include "calls.h"

#include <dirent.h>
#include <linux/openat2.h>
#include <stdalign.h>
#include <stdbool.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <time.h>

#include "../shm/wake.h"
#include "copying.h"

enum {
    DIRECTORY = O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC | O_ASYNC,
    LARGEST_RECORD = 280, /* 19 bytes, a name of 255 and its NUL, rounded up to 8 */
    LONGEST_NAME = 255,
    LONGEST_WAY = 4096,
    FIRST_CHUNK = 512,
    LARGEST_CHUNK = 8192,
    LONGEST_DEEP_WAY = 1024,
    MOST_SECTIONS = 63,
    ROOM_OF_A_SECTION = 2048, /* with less a directory is not begun */
};
static_assert(FIRST_CHUNK >= LARGEST_RECORD, "any name fits");

#define TURN_NS 5000000u        /* a long job comes back after this: others want to run too */
#define QUICK_CHUNK_NS 1000000u /* then the next chunk may be larger */
#define DEEP_NS 1000000u        /* other workers want to read some directories, too */
#define SETTLED_NS 50000000     /* no clock of a file system is coarser */

struct record { /* the kernel's linux_dirent64 */
    uint64_t inode;
    int64_t offset;
    uint16_t size;
    uint8_t type;
    char name[];
};

static bool is_dots(const char *name)
{
    return name[0] == '.' && (name[1] == '\0' || (name[1] == '.' && name[2] == '\0'));
}

static struct record *record_at(char *at)
{
    return (struct record *)(void *)at;
}

/* -- where it is ------------------------------------------------------------------------------ */

/* What is done here is not begun again as a whole when a signal has interrupted a part of it. */

static int64_t open_at(int directory, const char *path, int flags)
{
    int64_t fd;
    do
        fd = pa_outcome(syscall(SYS_openat, directory, path, flags));
    while (fd == -EINTR);
    return fd;
}

static int64_t read_directory(int fd, char *at, uint64_t size)
{
    int64_t got;
    do
        got = pa_outcome(syscall(SYS_getdents64, fd, at, size));
    while (got == -EINTR);
    return got;
}

static int64_t remove_at(int directory, const char *name, int flags)
{
    int64_t failed;
    do
        failed = pa_outcome(unlinkat(directory, name, flags));
    while (failed == -EINTR);
    return failed;
}

static int64_t stat_at(int directory, const char *name, struct stat *st, int flags)
{
    int64_t failed;
    do
        failed = pa_outcome(fstatat(directory, name, st, flags));
    while (failed == -EINTR);
    return failed;
}

/* For kernels without openat2, and where it is forbidden. */
static int64_t open_by_steps(int anchor, const char *way)
{
    int64_t fd = *way ? anchor : open_at(anchor, ".", DIRECTORY);
    while (*way) {
        char name[LONGEST_NAME + 1];
        size_t length = strcspn(way, "/");
        int64_t next = -ENAMETOOLONG;
        if (length <= LONGEST_NAME) {
            memcpy(name, way, length);
            name[length] = '\0';
            next = is_dots(name) ? -EXDEV : open_at((int)fd, name, DIRECTORY);
        }
        if (fd != anchor)
            syscall(SYS_close, (int)fd);
        if (next < 0)
            return next;
        fd = next;
        way += length;
        way += *way == '/';
    }
    return fd;
}

int64_t pa_open_beneath(int anchor, const char *way)
{
    struct open_how how = {.flags = DIRECTORY, .resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS};
    const char *path = *way ? way : ".";
    int64_t fd;
    do
        fd = pa_outcome(syscall(SYS_openat2, anchor, path, &how, sizeof how));
    while (fd == -EINTR);
    if (fd == -ENOSYS || fd == -EPERM)
        fd = open_by_steps(anchor, way);
    return fd == -ELOOP ? -ENOTDIR : fd;
}

/* The directory that is meant; the top of a tree, if it may be a symlink, is followed.  One that is
 * only to be opened need not be readable. */
static int64_t open_directory(const struct pa_call *call)
{
    const struct pa_slot *slot = call->slot;
    if (!(slot->flags & PA_TREE_TOP))
        return pa_open_beneath(slot->fd, call->path);
    int flags = slot->flags & PA_TREE_FOLLOW_TOP ? DIRECTORY & ~O_NOFOLLOW : DIRECTORY;
    int64_t fd = open_at(slot->fd, call->path, flags);
    if (fd == -EACCES && slot->flags & PA_TREE_UNREAD)
        fd = open_at(slot->fd, call->path, O_PATH | (flags & ~O_ASYNC));
    return fd == -ELOOP && !(slot->flags & PA_TREE_FOLLOW_TOP) ? -ENOTDIR : fd;
}

/* The one above it, and its own name there.  `*opened` is to be closed, if it is not -1. */
struct parent {
    int fd, opened;
    const char *name;
};

static int64_t find_parent(const struct pa_call *call, struct parent *parent)
{
    const struct pa_slot *slot = call->slot;
    const char *slash = slot->flags & PA_TREE_TOP ? NULL : strrchr(call->path, '/');
    *parent = (struct parent){.fd = slot->fd, .opened = -1, .name = call->path};
    if (!slash)
        return 0;
    char way[LONGEST_WAY];
    size_t length = (size_t)(slash - call->path);
    if (length >= sizeof way)
        return -ENAMETOOLONG;
    memcpy(way, call->path, length);
    way[length] = '\0';
    int64_t fd = pa_open_beneath(slot->fd, way);
    if (fd < 0)
        return fd;
    parent->fd = parent->opened = (int)fd;
    parent->name = slash + 1;
    return 0;
}

static void let_parent_go(const struct parent *parent)
{
    if (parent->opened >= 0)
        syscall(SYS_close, parent->opened);
}

/* 0: the name is, or was, that of the directory that is open as `fd`. */
static int64_t is_still(const struct parent *parent, int fd)
{
    struct stat named, opened;
    int64_t failed = pa_outcome(fstat(fd, &opened));
    if (!failed)
        failed = stat_at(parent->fd, parent->name, &named, AT_SYMLINK_NOFOLLOW);
    if (failed == -ENOENT && opened.st_nlink == 0)
        return 0; /* a worker has removed it, and died */
    bool same = !failed && named.st_dev == opened.st_dev && named.st_ino == opened.st_ino;
    return failed || same ? failed : -ENOTEMPTY;
}

static int64_t remove_directory(const struct pa_call *call)
{
    struct parent parent;
    int64_t failed = find_parent(call, &parent);
    if (failed)
        return failed;
    if (call->slot->fd2 >= 0)
        failed = is_still(&parent, call->slot->fd2);
    if (!failed)
        failed = remove_at(parent.fd, parent.name, AT_REMOVEDIR);
    else if (failed == -ENOENT)
        failed = -ESTALE; /* it has another name now */
    let_parent_go(&parent);
    return failed == -EEXIST ? -ENOTEMPTY : failed;
}

/* -- the answer ------------------------------------------------------------------------------- */

/* At the end of what succeeds: the paths lie where the answer goes. */
static void give_answer(const struct pa_call *call, const struct pa_tree_answer *answer)
{
    memcpy(call->slot->payload, answer, sizeof *answer);
}

/* -- what it holds ----------------------------------------------------------------------------- */

struct listing {
    const struct pa_call *call;
    int fd;
    char *start; /* of its records */
    uint64_t filled;
    uint64_t began;
    struct stat before;
    struct pa_tree_answer answer;
};

static uint64_t room_left(const struct listing *self)
{
    char *end = self->start + self->filled;
    return self->call->slot->length - (uint64_t)(end - self->call->data);
}

static int64_t read_records(struct listing *self)
{
    while (room_left(self) >= LARGEST_RECORD && !pa_must_stop(self->call)) {
        char *at = self->start + self->filled;
        int64_t got = read_directory(self->fd, at, room_left(self));
        if (got <= 0)
            return got;
        self->filled += (uint64_t)got;
        for (char *end = at + got; at < end; at += record_at(at)->size) {
            if (record_at(at)->type > DT_WHT) /* those above are ours */
                record_at(at)->type = DT_UNKNOWN;
            self->answer.next = record_at(at)->offset;
        }
    }
    self->answer.more = 1;
    return 0;
}

/* Where it lies behind a name: aligned as the records are. */
static size_t record_size(size_t name_size, size_t behind)
{
    return ((offsetof(struct record, name) + name_size + 7) & ~(size_t)7) + behind;
}

/* Appends a record with what stat says.  When the turn is over it has no type, and is left to the
 * program. */
static void add_with_stat(struct listing *self, const struct record *found)
{
    size_t name_size = strlen(found->name) + 1;
    size_t size = record_size(name_size, sizeof(struct pa_tree_entry));
    struct record *record = record_at(self->start + self->filled);
    struct pa_tree_entry entry = {.mode = 0};
    struct stat st;
    *record = (struct record){.offset = found->offset, .size = (uint16_t)size, .type = DT_UNKNOWN};
    memcpy(record->name, found->name, name_size);
    self->filled += size;
    if (is_dots(found->name))
        return;
    if (pa_now_ns() - self->began > TURN_NS) {
        self->answer.unknown++;
        return;
    }
    self->answer.looked++;
    int64_t failed = stat_at(self->fd, found->name, &st, AT_SYMLINK_NOFOLLOW);
    if (failed) {
        record->type = DT_FAILED;
        record->inode = (uint64_t)-failed;
        return;
    }
    record->type = S_ISDIR(st.st_mode) ? DT_DIR : DT_OTHER;
    record->inode = st.st_ino;
    entry = (struct pa_tree_entry){.dev = st.st_dev, .size = (uint64_t)st.st_size,
                                   .blocks = (uint64_t)st.st_blocks, .mode = st.st_mode,
                                   .nlink = (uint32_t)st.st_nlink};
    memcpy((char *)record + size - sizeof entry, &entry, sizeof entry);
}

/* A record grows to less than three times its size. */
static int64_t read_with_stats(struct listing *self)
{
    alignas(struct record) char chunk[LARGEST_CHUNK];
    while (room_left(self) >= 3 * LARGEST_RECORD && !pa_must_stop(self->call)) {
        uint64_t size = room_left(self) / 3;
        int64_t got = read_directory(self->fd, chunk, size < sizeof chunk ? size : sizeof chunk);
        if (got <= 0)
            return got;
        for (char *at = chunk; at < chunk + got; at += record_at(at)->size) {
            add_with_stat(self, record_at(at));
            self->answer.next = record_at(at)->offset;
        }
    }
    self->answer.more = 1;
    return 0;
}

/* An appended "/." lets the file system tell a directory from the rest, some without looking at the
 * file itself. */
static uint8_t look_at(int fd, const char *name, bool follow)
{
    char inside[LONGEST_NAME + 3];
    struct stat st;
    size_t length = strnlen(name, LONGEST_NAME);
    memcpy(inside, name, length);
    memcpy(inside + length, "/.", 3);
    int64_t failed = stat_at(fd, inside, &st, 0);
    if (failed == -ENOTDIR || failed == -ENOENT || failed == -ELOOP)
        return DT_OTHER;
    if (stat_at(fd, name, &st, AT_SYMLINK_NOFOLLOW))
        return DT_OTHER;
    if (S_ISDIR(st.st_mode))
        return DT_DIR;
    bool leads_to_one = follow && S_ISLNK(st.st_mode) && stat_at(fd, name, &st, 0) == 0 &&
                        S_ISDIR(st.st_mode);
    return leads_to_one ? DT_DIR_LINK : DT_OTHER;
}

/* On these a directory has a link from each directory in it. */
static bool counts_directories(int fd)
{
    struct statfs fs;
    if (fstatfs(fd, &fs) < 0)
        return false;
    switch ((uint32_t)fs.f_type) {
    case 0xef53:     /* ext2, ext3, ext4 */
    case 0x58465342: /* xfs */
    case 0x01021994: /* tmpfs */
    case 0xf2f52010: /* f2fs */
    case 0x3153464a: /* jfs */
    case 0x24051905: /* ubifs */
        return true;
    default:
        return false;
    }
}

static int64_t ns_of(const struct timespec *time)
{
    return time->tv_sec * INT64_C(1000000000) + time->tv_nsec;
}

/* How many directories are among what was read, or -1: nobody knows.  The count is only good for a
 * directory that was read as a whole and has not changed meanwhile, or just before. */
static int64_t expected_directories(const struct listing *self)
{
    struct stat after;
    struct timespec now;
    const struct stat *before = &self->before;
    if (self->answer.more || self->call->slot->call_flags & PA_BY_FD || before->st_nlink < 2 ||
        !counts_directories(self->fd) || fstat(self->fd, &after) < 0)
        return -1;
    clock_gettime(CLOCK_REALTIME, &now);
    if (ns_of(&before->st_ctim) != ns_of(&after.st_ctim) || before->st_nlink != after.st_nlink ||
        ns_of(&now) - ns_of(&after.st_ctim) < SETTLED_NS)
        return -1;
    return (int64_t)before->st_nlink - 2;
}

static bool is_likely_directory(const char *name)
{
    return name[0] == '.' || !strchr(name, '.');
}

/* Sees to what has no type, likely directories first, until all that there can be are found, or the
 * turn is over. */
static void find_types(struct listing *self, int64_t expected, bool follow)
{
    uint64_t began = pa_now_ns();
    char *end = self->start + self->filled;
    for (int likely = 1; likely >= 0; likely--)
        for (char *at = self->start; at < end; at += record_at(at)->size) {
            struct record *record = record_at(at);
            bool link = follow && record->type == DT_LNK;
            if ((record->type != DT_UNKNOWN && !link) || is_dots(record->name) ||
                is_likely_directory(record->name) != likely)
                continue;
            if (expected == 0 && !follow) {
                record->type = DT_OTHER;
                continue;
            }
            if (pa_now_ns() - began > TURN_NS || pa_must_stop(self->call)) {
                record->type = DT_UNKNOWN;
                continue;
            }
            record->type = look_at(self->fd, record->name, follow);
            self->answer.looked++;
            expected -= record->type == DT_DIR;
        }
}

/* What needs a look: counts what is known already out of what is expected. */
static void complete_types(struct listing *self)
{
    uint32_t flags = self->call->slot->flags;
    bool follow = flags & PA_TREE_FOLLOW, needed = false;
    int64_t known = 0;
    for (char *at = self->start, *end = at + self->filled; at < end; at += record_at(at)->size) {
        struct record *record = record_at(at);
        if (flags & PA_TREE_HIDE_TYPES)
            record->type = DT_UNKNOWN;
        bool dots = is_dots(record->name);
        known += record->type == DT_DIR && !dots;
        needed |= !dots && (record->type == DT_UNKNOWN || (follow && record->type == DT_LNK));
    }
    if (!needed)
        return;
    int64_t expected = expected_directories(self);
    find_types(self, expected < known ? -1 : expected - known, follow);
    for (char *at = self->start, *end = at + self->filled; at < end; at += record_at(at)->size)
        self->answer.unknown += record_at(at)->type == DT_UNKNOWN && !is_dots(record_at(at)->name);
}

static int64_t read_all(struct listing *self)
{
    if (self->call->slot->flags & PA_TREE_STAT)
        return read_with_stats(self);
    int64_t failed = read_records(self);
    if (!failed)
        complete_types(self);
    return failed;
}

/* Behind what is there: the way, then what that directory holds.  False: there is no room.  What
 * cannot be listed as a whole is left to a request of its own, which tells why. */
static bool add_section(struct listing *self, const char *way)
{
    size_t name_size = strlen(way) + 1, size = record_size(name_size, 0);
    if (room_left(self) < size + ROOM_OF_A_SECTION)
        return false;
    struct record *mark = record_at(self->start + self->filled);
    struct listing below = {
        .call = self->call, .start = (char *)mark + size, .began = self->began};
    int64_t fd = pa_open_beneath(self->fd, way);
    if (fd < 0)
        return true;
    below.fd = (int)fd;
    bool whole = fstat(below.fd, &below.before) == 0 && read_all(&below) == 0 && !below.answer.more;
    syscall(SYS_close, below.fd);
    self->answer.looked += below.answer.looked;
    if (!whole || below.answer.unknown)
        return !below.answer.more;
    *mark = (struct record){.size = (uint16_t)size, .type = DT_SECTION};
    memcpy(mark->name, way, name_size);
    self->filled += size + below.filled;
    return true;
}

/* Goes on with the directories that were found, those in them, and so on. */
static void list_deep(struct listing *self)
{
    const char *section = "";
    int sections = 0;
    for (char *at = self->start; at < self->start + self->filled; at += record_at(at)->size) {
        const struct record *record = record_at(at);
        if (record->type == DT_SECTION)
            section = record->name;
        if (record->type != DT_DIR || is_dots(record->name))
            continue;
        char way[LONGEST_DEEP_WAY];
        size_t above = strlen(section), length = strlen(record->name);
        if (above + 1 + length >= sizeof way)
            return;
        memcpy(way, section, above);
        way[above] = '/';
        memcpy(way + above + (above > 0), record->name, length + 1);
        if (sections++ == MOST_SECTIONS || pa_now_ns() - self->began > DEEP_NS ||
            pa_must_stop(self->call) || !add_section(self, way))
            return;
    }
}

static int64_t list_open(struct listing *self)
{
    const struct pa_slot *slot = self->call->slot;
    if (fstat(self->fd, &self->before) < 0)
        return -errno;
    pa_fill_stat(&self->answer.st, &self->before);
    if (slot->flags & PA_TREE_UNREAD)
        return 0;
    /* A worker that died here may have read some already. */
    if (slot->flags & PA_TREE_SEEK && lseek(self->fd, slot->file_offset, SEEK_SET) == -1)
        return -errno;
    int64_t failed = read_all(self);
    if (failed)
        return failed;
    if (slot->flags & PA_TREE_DEEP && !self->answer.more && !self->answer.unknown)
        list_deep(self);
    return (int64_t)self->filled;
}

/* The records of a directory, as many as there is room for, with their types.  It stays open if there
 * are more, if types are missing, or if it is wanted. */
int64_t pa_call_list(const struct pa_call *call)
{
    const struct pa_slot *slot = call->slot;
    bool given = slot->call_flags & PA_BY_FD;
    struct listing self = {.call = call, .start = call->data, .began = pa_now_ns(), .answer = {.fd = -1}};
    int64_t fd = given ? slot->fd : open_directory(call);
    if (fd < 0)
        return fd;
    self.fd = (int)fd;
    int64_t result = list_open(&self);
    bool keep = result >= 0 && (slot->flags & PA_TREE_KEEP || self.answer.more || self.answer.unknown);
    if (!given && keep)
        self.answer.fd = self.fd;
    else if (!given)
        syscall(SYS_close, self.fd);
    if (result >= 0)
        give_answer(call, &self.answer);
    return result;
}

/* Names with a byte before each, for its type, and a NUL behind it.  The names stay: the worker may
 * die, and all be done again. */
int64_t pa_call_types(const struct pa_call *call)
{
    const struct pa_slot *slot = call->slot;
    uint64_t at = 0;
    while (at < slot->length) {
        char name[LONGEST_NAME + 1];
        char *type = call->data + at++;
        size_t length = strnlen(call->data + at, slot->length - at);
        size_t kept = length < LONGEST_NAME ? length : LONGEST_NAME;
        memcpy(name, call->data + at, kept);
        name[kept] = '\0';
        at += length + 1;
        if (pa_must_stop(call))
            return -ECANCELED;
        *type = (char)look_at(slot->fd, name, slot->flags & PA_TREE_FOLLOW);
    }
    return (int64_t)slot->length;
}

/* -- taking it away ---------------------------------------------------------------------------- */

struct emptying {
    const struct pa_call *call;
    int fd;
    uint64_t filled;
    struct pa_tree_answer answer;
};

/* Subdirectories, and what could not be removed, are told to the program: the record itself, with an
 * errno for an inode. */
static void keep_record(struct emptying *self, const struct record *record, uint8_t type, int error)
{
    struct record *kept = record_at(self->call->data + self->filled);
    memcpy(kept, record, record->size);
    kept->type = type;
    kept->inode = (uint64_t)error;
    self->filled += record->size;
}

static void remove_entry(struct emptying *self, const struct record *record)
{
    if (record->type == DT_DIR) {
        keep_record(self, record, DT_DIR, 0);
        return;
    }
    int64_t failed = remove_at(self->fd, record->name, 0);
    if (failed == 0 || failed == -ENOENT)
        self->answer.removed += failed == 0;
    else if (failed == -EISDIR)
        keep_record(self, record, DT_DIR, 0);
    else
        keep_record(self, record, DT_FAILED, (int)-failed);
}

/* Removes what is no directory, chunk by chunk.  One worker does so at a time: the kernel changes a
 * directory for one caller after the other. */
static int64_t remove_entries(struct emptying *self)
{
    const struct pa_slot *slot = self->call->slot;
    alignas(struct record) char chunk[LARGEST_CHUNK];
    uint64_t size = FIRST_CHUNK, began = pa_now_ns(), chunk_began = began, now = began;
    while (slot->length - self->filled >= size) {
        int64_t got = read_directory(self->fd, chunk, size);
        if (got <= 0)
            return got;
        for (char *at = chunk; at < chunk + got; at += record_at(at)->size) {
            if (pa_must_stop(self->call))
                return -ECANCELED;
            if (!is_dots(record_at(at)->name))
                remove_entry(self, record_at(at));
        }
        now = pa_now_ns();
        if (now - began > TURN_NS)
            break;
        if (now - chunk_began < QUICK_CHUNK_NS && size < LARGEST_CHUNK)
            size *= 2;
        chunk_began = now;
    }
    self->answer.more = 1;
    return 0;
}

static int64_t empty_open(struct emptying *self)
{
    if (self->call->slot->flags & PA_TREE_SEEK && lseek(self->fd, 0, SEEK_SET) < 0)
        return -errno;
    return remove_entries(self);
}

/* Whatever is left in it the next request meets. */
static int64_t finish_emptying(struct emptying *self, bool keep)
{
    if (self->filled > 0 || self->answer.more || keep)
        return (int64_t)self->filled;
    int64_t failed = remove_directory(self->call);
    self->answer.gone = failed == 0 || failed == -ENOENT;
    /* Somebody has put something into it, or it was not read to its end: not over yet. */
    return failed == -ENOTEMPTY || self->answer.gone ? 0 : failed;
}

/* Removes what is no directory from a directory, and itself if nothing is left; with PA_TREE_ONLY_SELF
 * nothing but itself, if it is still what fd2 has open.  It stays open if there are more entries, or
 * if it is wanted and not gone. */
int64_t pa_call_empty(const struct pa_call *call)
{
    const struct pa_slot *slot = call->slot;
    bool given = slot->call_flags & PA_BY_FD;
    struct emptying self = {.call = call, .answer = {.fd = -1}};
    if (slot->flags & PA_TREE_ONLY_SELF) {
        int64_t failed = remove_directory(call);
        self.answer.gone = failed == 0 || failed == -ENOENT;
        if (self.answer.gone)
            give_answer(call, &self.answer);
        return self.answer.gone ? 0 : failed;
    }
    int64_t fd = given ? slot->fd : open_directory(call);
    if (fd < 0)
        return fd;
    self.fd = (int)fd;
    int64_t result = empty_open(&self);
    if (result >= 0)
        result = finish_emptying(&self, given || slot->flags & PA_TREE_STAYS);
    bool wanted = slot->flags & PA_TREE_KEEP && (self.filled > 0 || slot->flags & PA_TREE_STAYS);
    bool keep = result >= 0 && !self.answer.gone && (self.answer.more || wanted);
    if (!given && keep)
        self.answer.fd = self.fd;
    else if (!given)
        syscall(SYS_close, self.fd);
    if (result >= 0)
        give_answer(call, &self.answer);
    return result;
}

/* -- making it --------------------------------------------------------------------------------- */

/* Cuts the last component off; false: there is none to cut. */
static bool cut_last(char *path)
{
    size_t end = strlen(path);
    while (end > 1 && path[end - 1] == '/')
        end--;
    while (end > 0 && path[end - 1] != '/')
        end--;
    while (end > 1 && path[end - 1] == '/')
        end--;
    path[end] = '\0';
    return end > 0 && !(end == 1 && path[0] == '/');
}

/* What is there of a way that is to be made; in the end that is where it begins. */
static bool find_existing(int directory, char *way, struct stat *st)
{
    bool more = *way != '\0';
    while (fstatat(directory, way, st, 0) < 0) {
        if (errno != ENOENT || !more)
            return false;
        more = cut_last(way);
        if (*way == '\0')
            memcpy(way, ".", 2);
    }
    return true;
}

/* Whether a way leads to `top` or into it.  Up it is followed as far as a path can say. */
static bool leads_into(int directory, const char *path, const struct stat *top)
{
    static const char up[] = "/..";
    char way[LONGEST_WAY];
    struct stat st, below;
    size_t length = strlen(path);
    if (length + 2 > sizeof way)
        return false;
    memcpy(way, path, length + 1);
    if (!find_existing(directory, way, &st))
        return false;
    for (length = strlen(way); !pa_same_file(&st, top); length += strlen(up)) {
        below = st;
        if (length + sizeof up > sizeof way)
            return false;
        memcpy(way + length, up, sizeof up);
        if (fstatat(directory, way, &st, 0) < 0 || pa_same_file(&st, &below))
            return false;
    }
    return true;
}

/* By a worker that has died: nobody else was let in, and it is empty. */
static bool remove_made(const struct pa_slot *slot, const struct parent *parent)
{
    struct stat st;
    return fstatat(parent->fd, parent->name, &st, AT_SYMLINK_NOFOLLOW) == 0 &&
           (st.st_mode & 07777u & ~(slot->mode | S_ISGID)) == 0 &&
           remove_at(parent->fd, parent->name, AT_REMOVEDIR) == 0;
}

/* One that must not be there yet.  It is looked for before the slot says that it is being made: so what
 * is there after a worker's death is what that one has made, unless it does not look so. */
static int64_t make_new(const struct pa_call *call, const struct parent *parent)
{
    const struct pa_slot *slot = call->slot;
    struct stat st;
    uint16_t flags = __atomic_load_n(&slot->call_flags, __ATOMIC_ACQUIRE);
    if (flags & PA_CREATING)
        remove_made(slot, parent);
    int64_t result;
    if (flags & PA_CREATING && flags & PA_STOP) {
        result = -ECANCELED;
    } else if (fstatat(parent->fd, parent->name, &st, AT_SYMLINK_NOFOLLOW) == 0) {
        result = -EEXIST;
    } else {
        pa_raise_flag(call, PA_CREATING);
        result = pa_outcome(mkdirat(parent->fd, parent->name, slot->mode));
    }
    if (result < 0)
        pa_lower_flag(call, PA_CREATING);
    return result;
}

/* A directory that only its owner can use until it is complete; it stays open.  It is not made in the
 * one that is open as `fd2`, nor anywhere below that. */
int64_t pa_call_make_directory(const struct pa_call *call)
{
    const struct pa_slot *slot = call->slot;
    struct pa_tree_answer answer = {.fd = -1};
    struct parent parent;
    struct stat st;
    if (slot->fd2 >= 0 && fstat(slot->fd2, &st) == 0 && leads_into(slot->fd, call->path, &st))
        return -EINVAL;
    int64_t result = find_parent(call, &parent);
    if (result)
        return result;
    bool may_exist = slot->flags & PA_TREE_MAY_EXIST;
    result = may_exist ? pa_outcome(mkdirat(parent.fd, parent.name, slot->mode))
                       : make_new(call, &parent);
    bool is_there = result == 0 || (result == -EEXIST && may_exist);
    int64_t fd = is_there ? open_directory(call) : result;
    if (fd < 0 && result == 0)
        remove_at(parent.fd, parent.name, AT_REMOVEDIR); /* so that it can be made again */
    let_parent_go(&parent);
    if (fd < 0)
        return result == -EEXIST && fd == -ENOTDIR ? -EEXIST : fd;
    if (fstat((int)fd, &st) < 0) {
        result = -errno;
        syscall(SYS_close, (int)fd);
        return result;
    }
    pa_fill_stat(&answer.st, &st);
    answer.fd = (int32_t)fd;
    give_answer(call, &answer);
    return 0;
}

/* A directory's own attributes, once everything is in it.  Reading it has changed when it was last
 * accessed, so that is told. */
int64_t pa_call_finish_directory(const struct pa_call *call)
{
    const struct pa_slot *slot = call->slot;
    struct pa_copying self = {.call = call};
    int64_t from = pa_open_beneath(slot->fd, call->path), to = -1;
    if (from < 0)
        return from;
    self.from = (int)from;
    int64_t failed = pa_outcome(fstat(self.from, &self.source));
    self.source.st_atim = (struct timespec){.tv_sec = slot->atime_s, .tv_nsec = slot->atime_ns};
    if (!failed) {
        to = pa_open_beneath(slot->fd2, call->path2);
        failed = to < 0 ? to : 0;
    }
    if (!failed) {
        self.to = (int)to;
        pa_copy_attributes(&self);
        syscall(SYS_close, self.to);
    }
    syscall(SYS_close, self.from);
    return failed;
}

static bool is_directory(int directory, const char *path)
{
    struct stat st;
    return fstatat(directory, path, &st, 0) == 0 && S_ISDIR(st.st_mode);
}

/* Upwards to what is there, and down again.  Others may make the same at the same time. */
static int64_t make_parents(const struct pa_call *call)
{
    char path[LONGEST_WAY];
    size_t length = strlen(call->path);
    if (length >= sizeof path)
        return -ENAMETOOLONG;
    memcpy(path, call->path, length + 1);
    int64_t made = -ENOENT;
    while (made == -ENOENT && cut_last(path) && !pa_must_stop(call))
        made = pa_outcome(mkdirat(call->slot->fd, path, 0777));
    while ((made == 0 || made == -EEXIST) && !pa_must_stop(call)) {
        size_t end = strlen(path);
        while (call->path[end] == '/')
            end++;
        end += strcspn(call->path + end, "/");
        if (call->path[end + strspn(call->path + end, "/")] == '\0')
            return 0;
        memcpy(path, call->path, end);
        path[end] = '\0';
        made = pa_outcome(mkdirat(call->slot->fd, path, 0777));
    }
    return pa_must_stop(call) ? -ECANCELED : made;
}

/* The directory itself, which is there once those above it are. */
static bool ends_with_dot(const char *path)
{
    size_t end = strlen(path);
    while (end > 0 && path[end - 1] == '/')
        end--;
    return end > 1 && path[end - 1] == '.' && path[end - 2] == '/';
}

int64_t pa_call_make_directories(const struct pa_call *call)
{
    const struct pa_slot *slot = call->slot;
    int64_t result = pa_outcome(mkdirat(slot->fd, call->path, slot->mode));
    if (result == -ENOENT && *call->path) {
        result = make_parents(call);
        if (result == 0)
            result = pa_outcome(mkdirat(slot->fd, call->path, slot->mode));
        if (result == -EEXIST && ends_with_dot(call->path))
            result = 0;
    }
    bool fine = result == -EEXIST && slot->flags & PA_TREE_MAY_EXIST &&
                is_directory(slot->fd, call->path);
    return fine ? 0 : result;
}
