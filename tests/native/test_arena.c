/* tests/native/test_arena.c - the arena against a plain list of what is in it.
 *
 *     test_arena [STEPS]
 *
 * Blocks of random sizes are taken and given back in random order, some from sources that say that
 * memory has run out.  Each block's ends carry its number, so two that overlap are seen; offsets,
 * sums and the return of memory are compared with the list.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "../../shm/arena.h"

#define MOST_BLOCKS 400u
#define MOST_BYTES (UINT64_C(192) << 20)

struct entry {
    struct pa_block block;
    uint64_t number;
};

static struct pa_data_segment table[PA_MAX_SEGMENTS];
static struct entry entries[MOST_BLOCKS];
static uint32_t count;
static uint64_t seed = 2463534242u, numbers, used, refused, elsewhere_used;

static void check(bool good, const char *what)
{
    if (good)
        return;
    fprintf(stderr, "test_arena: %s\n", what);
    abort();
}

static uint32_t random_below(uint32_t limit)
{
    seed ^= seed << 13;
    seed ^= seed >> 7;
    seed ^= seed << 17;
    return (uint32_t)(seed >> 32) % limit;
}

/* Sometimes /dev/shm is full, sometimes there is no memory at all. */
static int source(void *context, uint64_t size, bool reserve, bool elsewhere)
{
    (void)context;
    if (!elsewhere && random_below(8) == 0)
        return -ENOSPC;
    if (random_below(16) == 0)
        return -ENOMEM;
    elsewhere_used += elsewhere;
    int fd = memfd_create("arena", MFD_CLOEXEC);
    if (fd < 0 || ftruncate(fd, (off_t)size) < 0 ||
        (reserve && fallocate(fd, 0, 0, (off_t)size) < 0)) {
        int error = -errno;
        if (fd >= 0)
            close(fd);
        return error;
    }
    return fd;
}

static void mark(const struct entry *entry)
{
    memcpy(entry->block.at, &entry->number, sizeof entry->number);
    memcpy(entry->block.at + entry->block.size - sizeof entry->number, &entry->number,
           sizeof entry->number);
}

static void check_marks(const struct entry *entry)
{
    const char *end = entry->block.at + entry->block.size - sizeof entry->number;
    check(memcmp(entry->block.at, &entry->number, sizeof entry->number) == 0 &&
              memcmp(end, &entry->number, sizeof entry->number) == 0,
          "somebody wrote into a block");
}

static uint64_t random_size(void)
{
    static const uint32_t limits[] = {1, 4096, 70000, 1u << 20, PA_LARGEST_BLOCK, 12u << 20};
    uint32_t kind = random_below(40);
    return 1 + random_below(limits[kind < 6 ? kind : 1 + kind % 3]);
}

static void take(struct pa_arena *arena)
{
    struct entry *entry = &entries[count];
    uint64_t size = random_size(), offset;
    if (count == MOST_BLOCKS || used + 2 * size > MOST_BYTES)
        return;
    int error = pa_arena_alloc(arena, size, true, &entry->block);
    if (error) {
        check(error == -ENOMEM || error == -ENOSPC, "an unexpected error");
        refused++;
        return;
    }
    check(entry->block.size >= size && (uintptr_t)entry->block.at % PA_PAGE == 0, "a bad block");
    uint32_t row = pa_arena_find(arena, entry->block.at, entry->block.size, &offset);
    check(row == entry->block.segment && table[row].size >= offset + entry->block.size &&
              pa_arena_base(arena, row) + offset == entry->block.at,
          "a block is not where the table says");
    entry->number = ++numbers;
    mark(entry);
    used += entry->block.size;
    count++;
}

static void give(struct pa_arena *arena, uint32_t which)
{
    struct entry *entry = &entries[which];
    check_marks(entry);
    used -= entry->block.size;
    pa_arena_free(arena, &entry->block);
    check(entry->block.at == NULL, "a freed block still has an address");
    *entry = entries[--count];
}

int main(int argc, char **argv)
{
    unsigned long steps = argc > 1 ? strtoul(argv[1], NULL, 10) : 100000;
    struct pa_arena *arena = pa_arena_new(table, source, NULL);
    check(arena, "no memory");
    for (unsigned long step = 0; step < steps; step++) {
        /* Now mostly taking, now mostly giving back. */
        bool taking = random_below(100) < (step / 2000 % 2 ? 60u : 40u);
        if (taking || count == 0)
            take(arena);
        else
            give(arena, random_below(count));
        check(pa_arena_used(arena) == used, "the sum of the blocks is wrong");
        check(pa_arena_mapped(arena) >= used, "more is used than mapped");
        if (step % 1024 == 0)
            for (uint32_t which = 0; which < count; which++)
                check_marks(&entries[which]);
    }
    while (count > 0)
        give(arena, count - 1);
    check(pa_arena_used(arena) == 0, "blocks are left");
    check(pa_arena_mapped(arena) <= 2 * (uint64_t)PA_SHARED_SEGMENT, "memory was not given back");
    /* Everything that was cut up has grown together again. */
    for (uint32_t i = 0; i < 2 * PA_SHARED_SEGMENT / PA_LARGEST_BLOCK; i++) {
        uint64_t mapped = pa_arena_mapped(arena);
        if (mapped < (i / (PA_SHARED_SEGMENT / PA_LARGEST_BLOCK) + 1) * PA_SHARED_SEGMENT)
            break;
        check(pa_arena_alloc(arena, PA_LARGEST_BLOCK, true, &entries[i].block) == 0 &&
                  pa_arena_mapped(arena) == mapped,
              "free memory is in pieces");
        count++;
    }
    while (count > 0)
        pa_arena_free(arena, &entries[--count].block);
    pa_arena_destroy(arena);
    printf("ok: %" PRIu64 " blocks, %" PRIu64 " refused, %" PRIu64 " segments from elsewhere\n",
           numbers, refused, elsewhere_used);
    return 0;
}
