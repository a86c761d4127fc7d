/* shm/arena.h - blocks of shared memory for the bytes of reads, writes, long paths and Buffers. */
#ifndef PROCAIO_SHM_ARENA_H
#define PROCAIO_SHM_ARENA_H

#include <stdbool.h>
#include <sys/types.h>

#include "abi.h"

#define PA_PAGE 4096u
#define PA_ORDERS 12u                              /* blocks of 4 KiB << 0 … 11 */
#define PA_LARGEST_BLOCK (PA_PAGE << (PA_ORDERS - 1)) /* 8 MiB; larger ones get a segment each */
#define PA_SHARED_SEGMENT (32u << 20)
#define PA_MOST_LENT (PA_MAX_SEGMENTS / 2) /* the other rows are for what is ours */

struct pa_block {
    char *at;         /* NULL: no block */
    uint64_t size;    /* usable bytes */
    uint32_t segment; /* row of the header's table */
};

struct pa_arena;

/* Makes a descriptor of `size` bytes of shared memory: the descriptor, or -errno.  `reserve`: with
 * its space.  `elsewhere`: /dev/shm is full, take it from the system's memory at large. */
typedef int pa_arena_source(void *context, uint64_t size, bool reserve, bool elsewhere);

struct pa_arena *pa_arena_new(struct pa_data_segment *table, pa_arena_source *source,
                              void *context);
void pa_arena_destroy(struct pa_arena *arena);

/* The header's table is about to go; blocks that are still in use stay valid. */
void pa_arena_detach(struct pa_arena *arena);

/* In a forked child: what the parent shares with its workers is replaced by zeroed private memory
 * at the same addresses, so that the child's copies of Buffers stay harmless. */
void pa_arena_abandon(struct pa_arena *arena);

/* `reserved`: the space is there when the call returns, so the program may touch it.  Otherwise
 * only the system call that fills the block finds out whether it is.  0 or -errno. */
int pa_arena_alloc(struct pa_arena *arena, uint64_t size, bool reserved, struct pa_block *block);
void pa_arena_free(struct pa_arena *arena, struct pa_block *block);

/* Memory of the program's that workers can map too: `size` bytes at `base` are what `fd` holds from
 * `file_offset` on.  The row, or -errno.  It is the caller's own again after pa_arena_return(). */
int pa_arena_lend(struct pa_arena *arena, char *base, uint64_t size, int fd, uint64_t file_offset);
void pa_arena_return(struct pa_arena *arena, uint32_t row);
bool pa_arena_is_lent(const struct pa_arena *arena, uint32_t row);

/* The data segment in which [at, at + size) lies, or PA_NO_SEGMENT; *offset counts from its start. */
uint32_t pa_arena_find(const struct pa_arena *arena, const void *at, uint64_t size,
                       uint64_t *offset);
char *pa_arena_base(const struct pa_arena *arena, uint32_t segment);
uint64_t pa_arena_mapped(const struct pa_arena *arena); /* bytes of all data segments */
uint64_t pa_arena_used(const struct pa_arena *arena);   /* bytes of all blocks */

/* There is no block of it, and nobody is just making one: its source may let other code run. */
bool pa_arena_is_idle(const struct pa_arena *arena);

#endif
