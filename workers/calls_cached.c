/* workers/calls_cached.c - look-ups that the kernel promises not to wait for.
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
 * A name that is removed in between may make our descriptor the last one of its file.
 */
#include <linux/magic.h>
#include <linux/openat2.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

#include "calls.h"

/* Newer than some system's headers. */
enum { CACHED = 0x20, MOUNT_ID_UNIQUE = 0x4000, SUPERBLOCK = 0x1, SYS_STATMOUNT = 457 };

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
    char rest[480];
};

/* Its attributes are in memory, or those of what lies below: an overlay's must not change. */
static bool is_local_kind(uint64_t magic)
{
    static const uint32_t kinds[] = {EXT4_SUPER_MAGIC, XFS_SUPER_MAGIC,       BTRFS_SUPER_MAGIC,
                                     F2FS_SUPER_MAGIC, TMPFS_MAGIC,           RAMFS_MAGIC,
                                     SQUASHFS_MAGIC,   OVERLAYFS_SUPER_MAGIC};
    for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++)
        if (magic == kinds[i])
            return true;
    return false;
}

/* Mounts that were met; no other mount ever gets the number of one that is gone. */
static struct {
    uint64_t id;
    bool local;
} mounts[32];

static bool is_local(uint64_t id)
{
    size_t at = id % (sizeof mounts / sizeof mounts[0]);
    if (mounts[at].id == id)
        return mounts[at].local;
    struct mount_query query = {.size = sizeof query, .mount = id, .what = SUPERBLOCK};
    struct mount_answer answer = {.mask = 0};
    syscall(SYS_STATMOUNT, &query, &answer, sizeof answer, 0);
    mounts[at].id = id;
    mounts[at].local = answer.mask & SUPERBLOCK && is_local_kind(answer.magic);
    return mounts[at].local;
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

static int64_t stat_found(const struct pa_call *call, int fd)
{
    struct statx st;
    uint64_t mount;
    if (statx(fd, "", AT_EMPTY_PATH | AT_STATX_DONT_SYNC, STATX_BASIC_STATS | MOUNT_ID_UNIQUE,
              &st) < 0 ||
        !(st.stx_mask & MOUNT_ID_UNIQUE))
        return -EAGAIN;
    /* A field that older headers do not name. */
    memcpy(&mount, &st.stx_dev_minor + 1, sizeof mount);
    return is_local(mount) ? fill(call, &st) : -EAGAIN;
}

static int64_t look_up(int directory, const char *path, uint64_t flags, uint64_t resolve)
{
    struct open_how how = {.flags = O_PATH | O_CLOEXEC | flags, .resolve = CACHED | resolve};
    return pa_outcome(syscall(SYS_openat2, directory, path, &how, sizeof how));
}

/* Past mount points: these may be on the way to the directory, but not at its name's end. */
static int64_t look_up_across(int directory, const char *path, const char *name, uint64_t flags)
{
    char way[256];
    size_t length = (size_t)(name - path);
    if (length == 0 || length >= sizeof way)
        return -EAGAIN;
    memcpy(way, path, length);
    way[length] = '\0';
    int64_t parent = look_up(directory, way, O_DIRECTORY, 0);
    if (parent < 0)
        return parent;
    int64_t fd = look_up((int)parent, name, flags, RESOLVE_NO_XDEV);
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

static int64_t stat_cached(const struct pa_call *call, uint64_t flags)
{
    const char *name = last_name(call->path);
    if (!name)
        return -EAGAIN;
    int64_t fd = look_up(call->slot->fd, call->path, flags, RESOLVE_NO_XDEV);
    if (fd == -EAGAIN || fd == -EXDEV) /* perhaps there is a mount point on the way */
        fd = look_up_across(call->slot->fd, call->path, name, flags);
    if (fd < 0)
        return fd == -ENOENT ? fd : -EAGAIN;
    int64_t result = stat_found(call, (int)fd);
    close((int)fd);
    return result;
}

int64_t pa_call_stat_cached(const struct pa_call *call)
{
    return stat_cached(call, 0);
}

int64_t pa_call_lstat_cached(const struct pa_call *call)
{
    return stat_cached(call, O_NOFOLLOW);
}
