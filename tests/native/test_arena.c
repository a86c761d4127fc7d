/* tests/native/test_arena.c - the arena against a plain list of what is in it.
 *
 *     test_arena [STEPS]
 *
 * Blocks of random sizes are taken and given back in random order, some from sources that say that
 * memory has run out.  Each block's ends carry its number, so two that overlap are seen; offsets,
 * sums and the return of memory are compared with the list.  Meanwhile memory of others is lent and
 * taken back; it must be found, and never be unmapped, closed or counted.
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

/* -- lent memory ---------------------------------------------------------------------------------- */

#define MOST_LENT 8u

static struct loan {
    char *base;
    uint64_t size, file_offset;
    int fd;
    uint32_t row;
} loans[MOST_LENT];
static uint32_t loan_count;
static uint64_t lent_ever;

static void check_loan(const struct pa_arena *arena, const struct loan *loan)
{
    uint64_t offset;
    const struct pa_data_segment *data = &table[loan->row];
    check(data->fd == loan->fd && data->size == loan->size && data->file_offset == loan->file_offset,
          "the table says something else of lent memory");
    check(pa_arena_is_lent(arena, loan->row), "lent memory counts as ours");
    check(pa_arena_find(arena, loan->base, loan->size, &offset) == loan->row && offset == 0 &&
              pa_arena_find(arena, loan->base + loan->size - 1, 1, &offset) == loan->row &&
              offset == loan->size - 1,
          "lent memory is not found");
    check(pa_arena_find(arena, loan->base + 1, loan->size, &offset) != loan->row,
          "more is found than was lent");
    check(pa_arena_base(arena, loan->row) == loan->base, "lent memory lies elsewhere");
}

static void check_usable(const struct loan *loan)
{
    loan->base[0] = loan->base[loan->size - 1] = 'l';
    check(fcntl(loan->fd, F_GETFD) >= 0, "a lent descriptor was closed");
}

static struct loan new_loan(void)
{
    struct loan loan = {.size = (1u + random_below(4)) * PA_PAGE,
                        .file_offset = random_below(3) * PA_PAGE};
    loan.fd = memfd_create("loan", MFD_CLOEXEC);
    check(loan.fd >= 0 && ftruncate(loan.fd, (off_t)(loan.size + loan.file_offset)) == 0, "memfd");
    loan.base = mmap(NULL, loan.size, PROT_READ | PROT_WRITE, MAP_SHARED, loan.fd,
                     (off_t)loan.file_offset);
    check(loan.base != MAP_FAILED, "mmap");
    return loan;
}

static void end_loan(const struct loan *loan)
{
    check_usable(loan);
    munmap(loan->base, loan->size);
    close(loan->fd);
}

static void lend(struct pa_arena *arena)
{
    if (loan_count == MOST_LENT)
        return;
    struct loan loan = new_loan();
    uint64_t mapped = pa_arena_mapped(arena);
    int row = pa_arena_lend(arena, loan.base, loan.size, loan.fd, loan.file_offset);
    check(row >= 0 && pa_arena_mapped(arena) == mapped, "it cannot be lent");
    loan.row = (uint32_t)row;
    check_loan(arena, &loan);
    loans[loan_count++] = loan;
    lent_ever++;
}

static void take_back(struct pa_arena *arena, uint32_t which)
{
    struct loan loan = loans[which];
    uint32_t generation = table[loan.row].generation;
    uint64_t offset;
    check_loan(arena, &loan);
    pa_arena_return(arena, loan.row);
    check(table[loan.row].generation != generation && table[loan.row].fd == -1,
          "the table does not say that it was taken back");
    check(pa_arena_find(arena, loan.base, 1, &offset) == PA_NO_SEGMENT, "it is still found");
    end_loan(&loan);
    loans[which] = loans[--loan_count];
}

/* Rows for what is ours are left, however much is lent. */
static void test_most_lent(void)
{
    static uint32_t rows[PA_MAX_SEGMENTS];
    struct pa_arena *arena = pa_arena_new(table, source, NULL);
    struct loan loan = new_loan();
    uint32_t lent = 0;
    int row;
    while ((row = pa_arena_lend(arena, loan.base, loan.size, loan.fd, 0)) >= 0)
        rows[lent++] = (uint32_t)row;
    check(row == -ENOMEM && lent == PA_MOST_LENT, "too much, or too little, can be lent");
    struct pa_block block;
    int error;
    while ((error = pa_arena_alloc(arena, 1, true, &block)) != 0)
        check(error == -ENOSPC || error == -ENOMEM, "no room is left");
    pa_arena_return(arena, rows[0]);
    check(pa_arena_lend(arena, loan.base, loan.size, loan.fd, 0) == (int)rows[0],
          "a row that came back is not lent again");
    pa_arena_free(arena, &block);
    pa_arena_destroy(arena);
    end_loan(&loan);
}

/* A forked child, or a pool that goes: what was lent is the lender's as before. */
static void test_end_with_loans(bool abandon)
{
    struct pa_arena *arena = pa_arena_new(table, source, NULL);
    struct loan loan = new_loan();
    struct pa_block block;
    uint64_t offset;
    int row = pa_arena_lend(arena, loan.base, loan.size, loan.fd, loan.file_offset);
    loan.row = (uint32_t)row;
    check_loan(arena, &loan);
    while (pa_arena_alloc(arena, 9u << 20, true, &block) != 0)
        ;
    block.at[0] = 'b';
    if (abandon) {
        pa_arena_abandon(arena);
        check(block.at[0] == 0, "the parent's memory is still there");
        check(pa_arena_find(arena, loan.base, 1, &offset) == PA_NO_SEGMENT, "it is still lent");
        check(pa_arena_find(arena, block.at, 1, &offset) == block.segment, "a block is lost");
        check_usable(&loan);
    } else {
        pa_arena_detach(arena);
        pa_arena_return(arena, loan.row);
        check(pa_arena_lend(arena, loan.base, loan.size, loan.fd, loan.file_offset) == row,
              "it cannot be lent again");
    }
    pa_arena_free(arena, &block);
    pa_arena_destroy(arena);
    end_loan(&loan);
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
        if (random_below(50) == 0)
            lend(arena);
        else if (loan_count > 0 && random_below(50) == 0)
            take_back(arena, random_below(loan_count));
        check(pa_arena_used(arena) == used, "the sum of the blocks is wrong");
        check(pa_arena_mapped(arena) >= used, "more is used than mapped");
        if (step % 1024 == 0)
            for (uint32_t which = 0; which < count; which++)
                check_marks(&entries[which]);
        if (step % 1024 == 0)
            for (uint32_t which = 0; which < loan_count; which++)
                check_loan(arena, &loans[which]);
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
    while (loan_count > 0)
        end_loan(&loans[--loan_count]);
    test_most_lent();
    test_end_with_loans(false);
    test_end_with_loans(true);
    printf("ok: %" PRIu64 " blocks, %" PRIu64 " refused, %" PRIu64 " segments from elsewhere, "
           "%" PRIu64 " lent\n",
           numbers, refused, elsewhere_used, lent_ever);
    return 0;
}
