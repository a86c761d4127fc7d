/* workers/calls_cached.c - look-ups, and loads, that the kernel promises not to wait for.
 *
 * They run in the program itself, which must never block, under the interpreter lock.  A name is
 * looked up with RESOLVE_CACHED: only what is in the kernel's memory, without asking a file system
 * that wants to be asked.  O_PATH opens nothing: no FIFO, no device, no lease, no file of a server.
 *
 * What was found may be on a server all the same, if it is where something is mounted, or `.`: these
 * are asked about by nobody on the way.  Their attributes may take a round trip, so no mount point is
 * passed unseen (RESOLVE_NO_XDEV), and names that end with dots are left alone.  What is neither is
 * of a file system that has not wanted to be asked, or that remembers (NFS, FUSE): with
 * AT_STATX_DONT_SYNC it tells what it remembers.  That is good enough only where there is no server,
 * so the answer counts if its file system is known to be local.
 *
 * A name that is removed in between may make our descriptor the last one of its file.  What else a load
 * may wait for, which nobody can know before, stands in docs/design/segment.md.
 */
#include <linux/magic.h>
#include <linux/openat2.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/uio.h>
#include <time.h>

#include "calls.h"

/* Newer than some system's headers. */
enum {
    CACHED = 0x20,
    MOUNT_ID_UNIQUE = 0x4000,
    SUPERBLOCK = 0x1,
    ATTRIBUTES = 0x2,
    READ_ONLY = 0x1,
    NO_ATIME = 0x10,
    STRICT_ATIME = 0x20,
    SYS_STATMOUNT = 457
};

/* Of statmount(2). */
struct mount_query {
    uint32_t size, spare;
    uint64_t mount, what;
};
struct mount_answer {
    uint32_t size, options;
    uint64_t mask;
    uint32_t device_major, device_minor;
    uint64_t magic;
    uint32_t flags, type;
    uint64_t id, parent;
    uint32_t old_id, old_parent;
    uint64_t attributes;
    char rest[440];
};
_Static_assert(sizeof(struct mount_answer) == 512, "as the kernel has it");

/* What a file system does without asking anybody: each includes what is before it. */
enum trust { NOTHING, TELLS_ATTRIBUTES, LOADS };

/* The last ones only tell attributes: that F2FS opens a file may take its lock, an overlay opens what
 * lies below, perhaps on a server, and the others do not know RWF_NOWAIT.  An overlay's attributes are
 * in memory, or those of what lies below, which must not change. */
static enum trust trust_in_kind(uint64_t magic)
{
    enum { NLOADING = 3 };
    static const uint32_t kinds[] = {EXT4_SUPER_MAGIC, XFS_SUPER_MAGIC, BTRFS_SUPER_MAGIC,
                                     F2FS_SUPER_MAGIC, TMPFS_MAGIC,     RAMFS_MAGIC,
                                     SQUASHFS_MAGIC,   OVERLAYFS_SUPER_MAGIC};
    for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++)
        if (magic == kinds[i])
            return i < NLOADING ? LOADS : TELLS_ATTRIBUTES;
    return NOTHING;
}

static bool ask_mount(uint64_t id, uint64_t what, struct mount_answer *answer)
{
    struct mount_query query = {.size = sizeof query, .mount = id, .what = what};
    answer->mask = 0;
    syscall(SYS_STATMOUNT, &query, answer, sizeof *answer, 0);
    return answer->mask & what;
}

/* Mounts that were met; no other mount ever gets the number of one that is gone. */
static struct {
    uint64_t id;
    enum trust trust;
} mounts[32];

static enum trust trust_in(uint64_t id)
{
    size_t at = id % (sizeof mounts / sizeof mounts[0]);
    struct mount_answer answer;
    if (mounts[at].id != id) {
        bool known = ask_mount(id, SUPERBLOCK, &answer);
        mounts[at].id = id;
        mounts[at].trust = known ? trust_in_kind(answer.magic) : NOTHING;
    }
    return mounts[at].trust;
}

static int64_t fill(const struct pa_call *call, const struct statx *st)
{
    struct pa_stat out = {
        .dev = makedev(st->stx_dev_major, st->stx_dev_minor),
        .ino = st->stx_ino,
        .nlink = st->stx_nlink,
        .rdev = makedev(st->stx_rdev_major, st->stx_rdev_minor),
        .size = (int64_t)st->stx_size,
        .blksize = st->stx_blksize,
        .blocks = (int64_t)st->stx_blocks,
        .atime_s = st->stx_atime.tv_sec,
        .mtime_s = st->stx_mtime.tv_sec,
        .ctime_s = st->stx_ctime.tv_sec,
        .atime_ns = st->stx_atime.tv_nsec,
        .mtime_ns = st->stx_mtime.tv_nsec,
        .ctime_ns = st->stx_ctime.tv_nsec,
        .mode = st->stx_mode,
        .uid = st->stx_uid,
        .gid = st->stx_gid,
    };
    memcpy(call->slot->payload, &out, sizeof out);
    return 0;
}

/* What is remembered of it, and the number of its mount; 0: nobody knows. */
static uint64_t ask(int fd, struct statx *st)
{
    uint64_t mount;
    if (statx(fd, "", AT_EMPTY_PATH | AT_STATX_DONT_SYNC, STATX_BASIC_STATS | MOUNT_ID_UNIQUE,
              st) < 0 ||
        !(st->stx_mask & MOUNT_ID_UNIQUE))
        return 0;
    /* A field that older headers do not name. */
    memcpy(&mount, &st->stx_dev_minor + 1, sizeof mount);
    return mount;
}

static int64_t open_cached(int directory, const char *path, uint64_t flags, uint64_t resolve)
{
    struct open_how how = {.flags = O_CLOEXEC | flags, .resolve = CACHED | resolve};
    return pa_outcome(syscall(SYS_openat2, directory, path, &how, sizeof how));
}

/* Past mount points: these may be on the way to the directory, but not at its name's end. */
static int64_t open_across(int directory, const char *path, const char *name, uint64_t flags)
{
    char way[256];
    size_t length = (size_t)(name - path);
    if (length == 0 || length >= sizeof way)
        return -EAGAIN;
    memcpy(way, path, length);
    way[length] = '\0';
    int64_t parent = open_cached(directory, way, O_PATH | O_DIRECTORY, 0);
    if (parent < 0)
        return parent;
    int64_t fd = open_cached((int)parent, name, flags, RESOLVE_NO_XDEV);
    close((int)parent);
    return fd;
}

/* Behind the last slash; NULL if that is no name of its own. */
static const char *last_name(const char *path)
{
    const char *slash = strrchr(path, '/'), *name = slash ? slash + 1 : path;
    bool usable = *name && strcmp(name, ".") != 0 && strcmp(name, "..") != 0;
    return usable ? name : NULL;
}

/* A descriptor; -ENOENT, which is an answer; or -EAGAIN. */
static int64_t find(const struct pa_call *call, uint64_t flags)
{
    const char *name = last_name(call->path);
    if (!name)
        return -EAGAIN;
    int64_t fd = open_cached(call->slot->fd, call->path, flags, RESOLVE_NO_XDEV);
    if (fd == -EAGAIN || fd == -EXDEV) /* perhaps there is a mount point on the way */
        fd = open_across(call->slot->fd, call->path, name, flags);
    return fd >= 0 || fd == -ENOENT ? fd : -EAGAIN;
}

static int64_t stat_cached(const struct pa_call *call, uint64_t flags)
{
    struct statx st;
    int64_t fd = find(call, O_PATH | flags);
    if (fd < 0)
        return fd;
    uint64_t mount = ask((int)fd, &st);
    close((int)fd);
    return mount && trust_in(mount) >= TELLS_ATTRIBUTES ? fill(call, &st) : -EAGAIN;
}

int64_t pa_call_stat_cached(const struct pa_call *call)
{
    return stat_cached(call, 0);
}

int64_t pa_call_lstat_cached(const struct pa_call *call)
{
    return stat_cached(call, O_NOFOLLOW);
}

/* -- loads ------------------------------------------------------------------------------------ */

/* An ordinary file that fits, with room for one byte more; files of /proc say they are empty.  To
 * open one that is encrypted or verified may take what is on the disk. */
static bool can_be_loaded(const struct pa_call *call, const struct statx *st)
{
    return S_ISREG(st->stx_mode) && st->stx_size > 0 && st->stx_size < call->slot->length &&
           !(st->stx_attributes & (STATX_ATTR_ENCRYPTED | STATX_ATTR_VERITY));
}

static bool is_later(const struct statx_timestamp *time, const struct statx_timestamp *than)
{
    return time->tv_sec > than->tv_sec ||
           (time->tv_sec == than->tv_sec && time->tv_nsec > than->tv_nsec);
}

/* Whether the file system must write down that it was read, which may wait for its journal (relatime,
 * mount(8)).  How it is mounted may change at any time. */
static bool notes_access(uint64_t mount, const struct statx *st)
{
    enum { DAY = 24 * 60 * 60 };
    struct timespec now;
    struct mount_answer answer;
    const struct statx_timestamp *read = &st->stx_atime;
    if (!ask_mount(mount, ATTRIBUTES, &answer))
        return true;
    if (answer.attributes & (NO_ATIME | READ_ONLY))
        return false;
    clock_gettime(CLOCK_REALTIME_COARSE, &now);
    return answer.attributes & STRICT_ATIME || !is_later(read, &st->stx_mtime) ||
           !is_later(read, &st->stx_ctime) || now.tv_sec - read->tv_sec >= DAY - 1;
}

/* All of it, or -EAGAIN. */
static int64_t read_whole(const struct pa_call *call, int fd)
{
    struct iovec into = {.iov_base = call->data, .iov_len = call->slot->length};
    int64_t got = pa_outcome(preadv2(fd, &into, 1, 0, RWF_NOWAIT));
    return got >= 0 && got == lseek(fd, 0, SEEK_END) ? got : -EAGAIN;
}

/* What is opened has been looked at before: a FIFO or a device would be changed by it (and is, if it
 * gets the name in between).  O_NONBLOCK does not wait for whoever has a lease. */
int64_t pa_call_load_cached(const struct pa_call *call)
{
    struct statx st;
    int64_t fd = find(call, O_PATH);
    if (fd < 0)
        return fd;
    uint64_t mount = ask((int)fd, &st);
    close((int)fd);
    if (!mount || trust_in(mount) < LOADS || !can_be_loaded(call, &st) ||
        notes_access(mount, &st))
        return -EAGAIN;
    fd = find(call, O_RDONLY | O_NONBLOCK | O_NOCTTY);
    if (fd < 0)
        return -EAGAIN;
    int64_t result = read_whole(call, (int)fd);
    close((int)fd);
    return result;
}
