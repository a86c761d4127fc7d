/* workers/calls_control.c - fcntl, ioctl, extents and extended attributes. */
#include "calls.h"

#include <linux/fiemap.h>
#include <linux/fs.h>
#include <stdbool.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/xattr.h>

/* A number, or the memory that it is about. */
static long argument_of(const struct pa_call *call)
{
    const struct pa_slot *slot = call->slot;
    return slot->call_flags & PA_DATA_IS_ARGUMENT ? (long)call->data : (long)slot->file_offset;
}

/* Locks belong to the descriptor table, which is the program's. */
int64_t pa_call_fcntl(const struct pa_call *call)
{
    return pa_outcome(syscall(SYS_fcntl, call->slot->fd, call->slot->flags, argument_of(call)));
}

int64_t pa_call_ioctl(const struct pa_call *call)
{
    return pa_outcome(syscall(SYS_ioctl, call->slot->fd, call->slot->flags, argument_of(call)));
}

/* The block gets struct fiemap and as many extents as it has room for; `limit` bytes from
 * `file_offset` on are asked about. */
int64_t pa_call_fiemap(const struct pa_call *call)
{
    struct pa_slot *slot = call->slot;
    struct fiemap *map = (struct fiemap *)call->data;
    uint64_t room = (slot->length - sizeof *map) / sizeof map->fm_extents[0];
    *map = (struct fiemap){.fm_start = (uint64_t)slot->file_offset,
                           .fm_length = slot->limit,
                           .fm_flags = slot->flags,
                           .fm_extent_count = (uint32_t)room};
    int64_t failed = pa_outcome(ioctl(slot->fd, FS_IOC_FIEMAP, map));
    return failed < 0 ? failed : (int64_t)map->fm_mapped_extents;
}

/* -- extended attributes: path is the file's, path2 the attribute's name ------------------------ */

enum how { BY_PATH, BY_LINK, BY_FD };

static enum how how(const struct pa_call *call)
{
    uint16_t flags = call->slot->call_flags;
    return flags & PA_BY_FD ? BY_FD : flags & PA_NO_FOLLOW ? BY_LINK : BY_PATH;
}

int64_t pa_call_getxattr(const struct pa_call *call)
{
    const struct pa_slot *slot = call->slot;
    switch (how(call)) {
    case BY_FD:
        return pa_outcome(fgetxattr(slot->fd, call->path2, call->data, slot->length));
    case BY_LINK:
        return pa_outcome(lgetxattr(call->path, call->path2, call->data, slot->length));
    default:
        return pa_outcome(getxattr(call->path, call->path2, call->data, slot->length));
    }
}

/* The value stands in the block, from `file_offset` on: paths may stand before it. */
int64_t pa_call_setxattr(const struct pa_call *call)
{
    const struct pa_slot *slot = call->slot;
    const char *value = call->data + slot->file_offset;
    int flags = (int)slot->flags;
    switch (how(call)) {
    case BY_FD:
        return pa_outcome(fsetxattr(slot->fd, call->path2, value, slot->length, flags));
    case BY_LINK:
        return pa_outcome(lsetxattr(call->path, call->path2, value, slot->length, flags));
    default:
        return pa_outcome(setxattr(call->path, call->path2, value, slot->length, flags));
    }
}

int64_t pa_call_listxattr(const struct pa_call *call)
{
    const struct pa_slot *slot = call->slot;
    switch (how(call)) {
    case BY_FD:
        return pa_outcome(flistxattr(slot->fd, call->data, slot->length));
    case BY_LINK:
        return pa_outcome(llistxattr(call->path, call->data, slot->length));
    default:
        return pa_outcome(listxattr(call->path, call->data, slot->length));
    }
}

int64_t pa_call_removexattr(const struct pa_call *call)
{
    switch (how(call)) {
    case BY_FD:
        return pa_outcome(fremovexattr(call->slot->fd, call->path2));
    case BY_LINK:
        return pa_outcome(lremovexattr(call->path, call->path2));
    default:
        return pa_outcome(removexattr(call->path, call->path2));
    }
}
