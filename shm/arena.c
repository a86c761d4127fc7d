/* shm/arena.c - a buddy allocator over shared segments that come and go.
 *
 * Only the program allocates, and all bookkeeping is in its private memory: a worker that dies, or
 * writes garbage, cannot corrupt it.  Small blocks (powers of two, page aligned) share segments of
 * 32 MiB; a block above 8 MiB has a segment of its own, which goes when it is freed.  A segment's
 * space is reserved with fallocate in units of 256 KiB before the program touches it, so that a
 * full /dev/shm is an errno and never a SIGBUS.  Of empty shared segments two are kept.
 *
 * Not thread-safe: the caller holds the interpreter lock, and `source` may let it go, so nothing is
 * half done when it is called.
 */
#include "arena.h"
#include "marks.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define LEAVES (PA_SHARED_SEGMENT / PA_PAGE)
#define UNIT (256u << 10)
#define UNITS (PA_SHARED_SEGMENT / UNIT)
#define TOP (PA_ORDERS - 1u)
#define FREE_MARK 0x80u /* in `order`: the block that begins here is free */
#define NO_BLOCK 0xffu  /* in `order`: no block begins here */
#define END UINT32_MAX
#define KEPT_EMPTY 2u

struct shared {
    uint8_t order[LEAVES];
    uint32_t next[LEAVES], previous[LEAVES]; /* free lists, by leaf */
    uint32_t free_list[PA_ORDERS];
    uint8_t reserved[UNITS];
};

struct segment {
    char *base; /* NULL: the row is vacant */
    uint64_t size, used;
    uint64_t file_offset;
    int fd;
    uint32_t file; /* which one that is, as long as nobody has closed it */
    bool lent;             /* not ours: neither unmapped nor closed here */
    struct shared *shared; /* NULL: one block has it all */
};

struct pa_arena {
    struct pa_data_segment *table;
    pa_arena_source *source;
    void *context;
    uint32_t rows; /* rows below this one may be in use */
    uint32_t hint; /* the row that had room last */
    uint32_t empty;
    uint32_t lent;
    uint32_t callers; /* just now, of pa_arena_alloc(): counted, as all here, with the caller's lock */
    uint64_t mapped, used;
    struct segment segments[PA_MAX_SEGMENTS];
};

struct pa_arena *pa_arena_new(struct pa_data_segment *table, pa_arena_source *source,
                              void *context)
{
    struct pa_arena *arena = calloc(1, sizeof *arena);
    if (arena) {
        arena->table = table;
        arena->source = source;
        arena->context = context;
    }
    return arena;
}

/* -- free lists ------------------------------------------------------------------------------- */

static void list_add(struct shared *shared, uint32_t leaf, uint32_t order)
{
    uint32_t head = shared->free_list[order];
    shared->order[leaf] = (uint8_t)(order | FREE_MARK);
    shared->next[leaf] = head;
    shared->previous[leaf] = END;
    if (head != END)
        shared->previous[head] = leaf;
    shared->free_list[order] = leaf;
}

static void list_remove(struct shared *shared, uint32_t leaf, uint32_t order)
{
    uint32_t next = shared->next[leaf], previous = shared->previous[leaf];
    if (previous == END)
        shared->free_list[order] = next;
    else
        shared->next[previous] = next;
    if (next != END)
        shared->previous[next] = previous;
    shared->order[leaf] = NO_BLOCK;
}

static struct shared *shared_new(void)
{
    struct shared *shared = malloc(sizeof *shared);
    if (!shared)
        return NULL;
    memset(shared->order, NO_BLOCK, sizeof shared->order);
    memset(shared->reserved, 0, sizeof shared->reserved);
    for (uint32_t order = 0; order < PA_ORDERS; order++)
        shared->free_list[order] = END;
    for (uint32_t leaf = LEAVES; leaf > 0; leaf -= 1u << TOP)
        list_add(shared, leaf - (1u << TOP), TOP);
    return shared;
}

/* -- segments --------------------------------------------------------------------------------- */

static void publish(struct pa_arena *arena, uint32_t row)
{
    if (!arena->table)
        return;
    arena->table[row].fd = arena->segments[row].fd;
    arena->table[row].size = arena->segments[row].size;
    arena->table[row].file_offset = arena->segments[row].file_offset;
    arena->table[row].lent = arena->segments[row].lent;
    arena->table[row].file = arena->segments[row].file;
    arena->table[row].generation++;
}

static void segment_drop(struct pa_arena *arena, uint32_t row)
{
    struct segment *segment = &arena->segments[row];
    munmap(segment->base, segment->size);
    if (pa_is_data(segment->fd, segment->file)) {
        /* Workers that still map it hold no memory after this. */
        (void)!ftruncate(segment->fd, 0);
        close(segment->fd);
    }
    arena->mapped -= segment->size;
    free(segment->shared);
    *segment = (struct segment){.fd = -1};
    publish(arena, row);
}

static int segment_map(struct segment *segment, bool shared)
{
    if (shared && !(segment->shared = shared_new()))
        return -ENOMEM;
    void *base = mmap(NULL, segment->size, PROT_READ | PROT_WRITE, MAP_SHARED, segment->fd, 0);
    if (base == MAP_FAILED) {
        int error = -errno;
        free(segment->shared);
        return error;
    }
    segment->base = base;
    return 0;
}

static int enter(struct pa_arena *arena, const struct segment *segment)
{
    uint32_t row = 0;
    while (row < PA_MAX_SEGMENTS && arena->segments[row].base)
        row++;
    if (row == PA_MAX_SEGMENTS)
        return -ENOMEM;
    arena->segments[row] = *segment;
    if (row >= arena->rows)
        arena->rows = row + 1;
    publish(arena, row);
    return (int)row;
}

int pa_arena_lend(struct pa_arena *arena, char *base, uint64_t size, int fd, uint64_t file_offset)
{
    struct segment segment = {
        .base = base, .size = size, .fd = fd, .file_offset = file_offset, .lent = true};
    if (arena->lent == PA_MOST_LENT)
        return -ENOMEM;
    int row = enter(arena, &segment);
    if (row >= 0)
        arena->lent++;
    return row;
}

bool pa_arena_is_lent(const struct pa_arena *arena, uint32_t row)
{
    return arena->segments[row].lent;
}

void pa_arena_return(struct pa_arena *arena, uint32_t row)
{
    arena->segments[row] = (struct segment){.fd = -1};
    arena->lent--;
    publish(arena, row);
}

/* A new segment.  A dedicated one may be asked for with its space reserved. */
static int segment_add(struct pa_arena *arena, uint64_t size, bool shared, bool reserve,
                       bool elsewhere, uint32_t *row)
{
    int fd = arena->source(arena->context, size, reserve, elsewhere);
    if (fd < 0)
        return fd;
    int error = pa_make_own(&fd, PA_MARK_DATA);
    if (error)
        return error;
    struct segment segment = {.size = size, .fd = fd, .file = pa_file_of(fd)};
    error = segment_map(&segment, shared);
    int entered = error ? error : enter(arena, &segment);
    if (entered < 0) {
        if (!error) {
            munmap(segment.base, size);
            free(segment.shared);
        }
        close(fd);
        return entered;
    }
    *row = (uint32_t)entered;
    arena->mapped += size;
    return 0;
}

static int reserve_units(struct pa_arena *arena, uint32_t row, uint32_t leaf, uint64_t size)
{
    struct shared *shared = arena->segments[row].shared;
    uint64_t start = (uint64_t)leaf * PA_PAGE / UNIT, end = ((uint64_t)leaf * PA_PAGE + size - 1) / UNIT;
    for (uint64_t unit = start; unit <= end; unit++) {
        if (shared->reserved[unit])
            continue;
        if (!pa_is_data(arena->segments[row].fd, arena->segments[row].file))
            return -EBADF;
        if (fallocate(arena->segments[row].fd, 0, (off_t)(unit * UNIT), UNIT) < 0)
            return -errno;
        shared->reserved[unit] = 1;
    }
    return 0;
}

/* -- blocks ----------------------------------------------------------------------------------- */

static bool buddy_take(struct shared *shared, uint32_t order, uint32_t *leaf)
{
    uint32_t from = order;
    while (from < PA_ORDERS && shared->free_list[from] == END)
        from++;
    if (from == PA_ORDERS)
        return false;
    *leaf = shared->free_list[from];
    list_remove(shared, *leaf, from);
    while (from > order) {
        from--;
        list_add(shared, *leaf + (1u << from), from);
    }
    shared->order[*leaf] = (uint8_t)order;
    return true;
}

static void buddy_give(struct shared *shared, uint32_t leaf, uint32_t order)
{
    shared->order[leaf] = NO_BLOCK;
    while (order < TOP) {
        uint32_t buddy = leaf ^ 1u << order;
        if (shared->order[buddy] != (order | FREE_MARK))
            break;
        list_remove(shared, buddy, order);
        leaf &= ~(1u << order);
        order++;
    }
    list_add(shared, leaf, order);
}

static int take_from(struct pa_arena *arena, uint32_t row, uint32_t order, struct pa_block *block)
{
    struct segment *segment = &arena->segments[row];
    uint32_t leaf;
    if (!buddy_take(segment->shared, order, &leaf))
        return -EAGAIN;
    uint64_t size = (uint64_t)PA_PAGE << order;
    int error = reserve_units(arena, row, leaf, size);
    if (error) {
        buddy_give(segment->shared, leaf, order);
        return error;
    }
    if (segment->used == 0 && arena->empty > 0)
        arena->empty--;
    segment->used += size;
    arena->used += size;
    arena->hint = row;
    *block = (struct pa_block){
        .at = segment->base + (uint64_t)leaf * PA_PAGE, .size = size, .segment = row};
    return 0;
}

/* From a new segment, which goes again if its space cannot be had. */
static int take_from_new(struct pa_arena *arena, uint32_t order, bool elsewhere,
                         struct pa_block *block)
{
    uint32_t row;
    int error = segment_add(arena, PA_SHARED_SEGMENT, true, false, elsewhere, &row);
    if (error)
        return error;
    arena->empty++;
    error = take_from(arena, row, order, block);
    if (error) {
        segment_drop(arena, row);
        arena->empty--;
    }
    return error;
}

/* Of /dev/shm; there is memory elsewhere. */
static bool is_full(int error)
{
    return error == -ENOSPC || error == -EDQUOT;
}

static int alloc_small(struct pa_arena *arena, uint64_t size, struct pa_block *block)
{
    uint32_t order = 0;
    while ((uint64_t)PA_PAGE << order < size)
        order++;
    for (uint32_t i = 0; i < arena->rows; i++) {
        uint32_t row = (arena->hint + i) % arena->rows;
        if (arena->segments[row].shared && take_from(arena, row, order, block) == 0)
            return 0;
    }
    int error = take_from_new(arena, order, false, block);
    return is_full(error) ? take_from_new(arena, order, true, block) : error;
}

static int alloc_large(struct pa_arena *arena, uint64_t size, bool reserved, struct pa_block *block)
{
    uint32_t row;
    size = (size + PA_PAGE - 1) & ~(uint64_t)(PA_PAGE - 1);
    /* Without a reservation nobody would notice here that there is no space: elsewhere at once. */
    int error = segment_add(arena, size, false, reserved, !reserved, &row);
    if (is_full(error) && reserved)
        error = segment_add(arena, size, false, reserved, true, &row);
    if (error)
        return error;
    arena->segments[row].used = size;
    arena->used += size;
    *block = (struct pa_block){.at = arena->segments[row].base, .size = size, .segment = row};
    return 0;
}

int pa_arena_alloc(struct pa_arena *arena, uint64_t size, bool reserved, struct pa_block *block)
{
    if (size == 0)
        size = 1;
    if (size > (uint64_t)INT64_MAX / 2)
        return -ENOMEM;
    arena->callers++;
    int error = size <= PA_LARGEST_BLOCK ? alloc_small(arena, size, block)
                                         : alloc_large(arena, size, reserved, block);
    arena->callers--;
    return error;
}

void pa_arena_free(struct pa_arena *arena, struct pa_block *block)
{
    if (!block->at)
        return;
    struct segment *segment = &arena->segments[block->segment];
    arena->used -= block->size;
    segment->used -= block->size;
    if (segment->shared) {
        uint32_t leaf = (uint32_t)((uint64_t)(block->at - segment->base) / PA_PAGE);
        buddy_give(segment->shared, leaf, segment->shared->order[leaf]);
        if (segment->used == 0 && ++arena->empty > KEPT_EMPTY) {
            segment_drop(arena, block->segment);
            arena->empty--;
        }
    } else {
        segment_drop(arena, block->segment);
    }
    block->at = NULL;
}

uint32_t pa_arena_find(const struct pa_arena *arena, const void *at, uint64_t size,
                       uint64_t *offset)
{
    uintptr_t start = (uintptr_t)at;
    for (uint32_t row = 0; row < arena->rows; row++) {
        const struct segment *segment = &arena->segments[row];
        uintptr_t base = (uintptr_t)segment->base;
        if (base && start >= base && start - base <= segment->size &&
            size <= segment->size - (start - base)) {
            *offset = start - base;
            return row;
        }
    }
    return PA_NO_SEGMENT;
}

char *pa_arena_base(const struct pa_arena *arena, uint32_t segment)
{
    return segment < PA_MAX_SEGMENTS ? arena->segments[segment].base : NULL;
}

uint64_t pa_arena_mapped(const struct pa_arena *arena)
{
    return arena->mapped;
}

uint64_t pa_arena_used(const struct pa_arena *arena)
{
    return arena->used;
}

bool pa_arena_is_idle(const struct pa_arena *arena)
{
    return arena->used == 0 && arena->callers == 0;
}

void pa_arena_destroy(struct pa_arena *arena)
{
    for (uint32_t row = 0; row < arena->rows; row++)
        if (arena->segments[row].base && !arena->segments[row].lent)
            segment_drop(arena, row);
    free(arena);
}

void pa_arena_detach(struct pa_arena *arena)
{
    arena->table = NULL;
}

void pa_arena_abandon(struct pa_arena *arena)
{
    arena->table = NULL;
    arena->lent = 0;
    for (uint32_t row = 0; row < arena->rows; row++) {
        struct segment *segment = &arena->segments[row];
        if (!segment->base)
            continue;
        if (segment->lent) {
            *segment = (struct segment){.fd = -1};
            continue;
        }
        if (pa_is_data(segment->fd, segment->file))
            close(segment->fd);
        segment->fd = -1;
        mmap(segment->base, segment->size, PROT_READ | PROT_WRITE,
             MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED | MAP_NORESERVE, -1, 0);
    }
}
