/* workers/calls_many.c - chunks of batches: many items in one block (abi.h).
 *
 * A chunk gives the number of items that are done, counted from its first; it need not be all of
 * them.  It ends after a while, so that nobody who is more urgent waits for long, and where there
 * is no room for more data.  Before each item the worker notes which one it is: should it die, the
 * next one goes on there.
 */
#include <string.h>
#include <sys/stat.h>

#include "../shm/wake.h"
#include "calls.h"

#define LONGEST_CHUNK_NS 2000000u
#define MOST_POPULATED (4u << 20)
#define LOOK_AT_CLOCK 8u /* after so many items, and after 1, 2 and 4: they may take long */

/* Where in the chunk the worker is. */
struct progress {
    const struct pa_call *call;
    uint32_t item, first;
    uint64_t until_ns;
};

static struct progress begin(const struct pa_call *call)
{
    uint32_t item = call->slot->begun;
    return (struct progress){call, item, item, pa_now_ns() + LONGEST_CHUNK_NS};
}

/* What was written of the items before is seen with the note. */
static void note(const struct progress *at)
{
    __atomic_store_n(&at->call->slot->begun, at->item, __ATOMIC_RELEASE);
}

/* False: the chunk ends here. */
static bool goes_on(const struct progress *at)
{
    note(at);
    uint32_t done = at->item - at->first;
    if (at->item >= at->call->slot->count || pa_must_stop(at->call))
        return false;
    if (done == 0 || (done % LOOK_AT_CLOCK && done & (done - 1)))
        return true;
    return pa_now_ns() < at->until_ns;
}

static const char *path_of(const struct progress *at)
{
    const char *path = at->call->data;
    for (uint32_t item = 0; item < at->item; item++)
        path += strlen(path) + 1;
    return path;
}

int64_t pa_call_stat_many(const struct pa_call *call)
{
    struct progress at = begin(call);
    struct pa_many_stat *table = (void *)(call->data + call->slot->table_at);
    int flags = call->slot->call_flags & PA_NO_FOLLOW ? AT_SYMLINK_NOFOLLOW : 0;
    for (const char *path = path_of(&at); goes_on(&at); at.item++) {
        struct pa_many_stat *to = &table[at.item];
        struct stat st;
        int64_t outcome;
        do
            outcome = pa_outcome(fstatat(call->slot->fd, path, &st, flags));
        while (outcome == -EINTR);
        if (outcome == 0)
            pa_fill_stat(&to->st, &st);
        else
            to->st = (struct pa_stat){.mode = 0};
        to->outcome = outcome;
        path += strlen(path) + 1;
    }
    return at.item;
}

/* Each page of a Buffer that this worker has not touched yet would cost an exception within a read.  If
 * a page is there, whoever has written it, looking at one maps its neighbours, too (fault_around_bytes
 * in debugfs); if not, all are made together.  Linux before 5.14 does neither, and nothing is lost. */
static void populate(const struct pa_call *call, const struct pa_many_read *items, uint32_t count)
{
    enum { PAGE = 4 << 10, WINDOW = 64 << 10 };
    unsigned char there[MOST_POPULATED / PAGE];
    uintptr_t start = (uintptr_t)(call->out + items[0].at) & -(uintptr_t)PAGE;
    uintptr_t end = (uintptr_t)(call->out + items[count - 1].at + items[count - 1].length);
    size_t size = (end - start + PAGE - 1) & -(size_t)PAGE;
    if (size > MOST_POPULATED || mincore((void *)start, size, there) < 0)
        return;
    for (size_t at = 0, next; at < size; at = next) {
        size_t left_in_window = WINDOW - (start + at) % WINDOW;
        next = left_in_window < size - at ? at + left_in_window : size;
        bool whole = true;
        for (size_t page = at / PAGE; page < next / PAGE; page++)
            whole = whole && there[page] & 1;
        madvise((void *)(start + at), whole ? PAGE : next - at,
                whole ? MADV_POPULATE_READ : MADV_POPULATE_WRITE);
    }
}

int64_t pa_call_read_many(const struct pa_call *call)
{
    struct progress at = begin(call);
    const struct pa_many_read *todo = (const void *)call->data;
    int64_t *table = (void *)(call->data + call->slot->table_at);
    char *base = call->out ? call->out : call->data;
    if (call->out && at.item < call->slot->count)
        populate(call, todo + at.item, call->slot->count - at.item);
    for (; goes_on(&at); at.item++) {
        const struct pa_many_read *item = &todo[at.item];
        int64_t got;
        do
            got = pa_outcome(syscall(SYS_pread64, item->fd, base + item->at, item->length,
                                     item->offset));
        while (got == -EINTR);
        table[at.item] = got;
    }
    return at.item;
}

/* -- load -------------------------------------------------------------------------------------- */

/* A FIFO without a writer is not waited for.  What somebody holds a lease on is (open(2)). */
static int64_t open_item(const struct pa_call *call, const char *path)
{
    int64_t fd;
    do
        fd = pa_open_marked_at(call->slot->fd, path, O_RDONLY | O_NONBLOCK | O_NOCTTY, 0);
    while (fd == -EINTR);
    return fd == -EAGAIN ? pa_open_marked_at(call->slot->fd, path, O_RDONLY | O_NOCTTY, 0) : fd;
}

/* Up to the end: what has a size and gives just that has come to it.  A file that does not leave a
 * byte of the room free may be longer. */
static int64_t read_item(int fd, char *to, uint64_t room, uint64_t size)
{
    uint64_t filled = 0;
    while (filled < room) {
        int64_t got = pa_outcome(syscall(SYS_read, fd, to + filled, room - filled));
        if (got < 0 && got != -EINTR)
            return got;
        filled += got > 0 ? (uint64_t)got : 0;
        if (got == 0 || (filled == size && size > 0 && filled < room))
            return (int64_t)filled;
    }
    return PA_ITEM_LARGE;
}

static int64_t load_item(const struct pa_call *call, const char *path, char *to, uint64_t room)
{
    struct stat st;
    int64_t fd = open_item(call, path);
    if (fd < 0)
        return fd;
    int64_t outcome = pa_outcome(fstat((int)fd, &st));
    if (outcome == 0 && S_ISDIR(st.st_mode))
        outcome = -EISDIR;
    else if (outcome == 0 && (!S_ISREG(st.st_mode) || (uint64_t)st.st_size >= room))
        outcome = PA_ITEM_LARGE;
    else if (outcome == 0)
        outcome = read_item((int)fd, to, room, (uint64_t)st.st_size);
    syscall(SYS_close, (int)fd);
    return outcome;
}

/* Behind the data of the items before. */
static uint64_t end_of_data(const struct progress *at, const struct pa_many_load *table)
{
    const struct pa_slot *slot = at->call->slot;
    uint64_t end = slot->table_at + slot->count * sizeof *table;
    for (uint32_t item = 0; item < at->item; item++)
        end += table[item].outcome > 0 ? (uint64_t)table[item].outcome : 0;
    return end;
}

/* What is too large for the rest of the block comes first in another chunk; and what comes first
 * and is too large is that chunk's only item, which the program loads by itself. */
int64_t pa_call_load_many(const struct pa_call *call)
{
    struct progress at = begin(call);
    const struct pa_slot *slot = call->slot;
    struct pa_many_load *table = (void *)(call->data + slot->table_at);
    uint64_t end = end_of_data(&at, table);
    for (const char *path = path_of(&at); goes_on(&at); at.item++) {
        uint64_t room = end < slot->length ? slot->length - end : 0;
        int64_t outcome = load_item(call, path, call->data + end, room);
        if (outcome == PA_ITEM_LARGE && at.item > 0)
            break;
        table[at.item] = (struct pa_many_load){.outcome = outcome, .at = end};
        if (outcome == PA_ITEM_LARGE)
            return 1;
        end += outcome > 0 ? (uint64_t)outcome : 0;
        path += strlen(path) + 1;
    }
    return at.item;
}
