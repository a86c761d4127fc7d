/* benchmarks/native/ring_limit.c - the limit: the same rings and workers, and nothing else.
 *
 *     ring_limit sleep|look WORKERS many DEPTH SECONDS [FILE]
 *     ring_limit sleep|look WORKERS one COUNT [FILE]
 *
 * A C program keeps DEPTH no-ops (or 4 KiB preads of FILE) outstanding and counts what comes back;
 * or does COUNT of them, one at a time, and says how long one takes (median and p99, microseconds).
 * Where there are no results it sleeps, or first looks for some for a while, as procaio's wait() and
 * poll() do, and its event loops for a moment.  What Python adds to this is the rest of the time.
 * One JSON line is printed.
 */
#include <fcntl.h>
#include <inttypes.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "../../shm/marks.h"
#include "../../shm/ring.h"
#include "../../shm/segment.h"
#include "../../shm/spin.h"
#include "../../shm/state.h"
#include "../../shm/wake.h"
#include "../../workers/worker.h"

#define BLOCK 4096u
#define SECOND 1000000000u

static struct pa_segment *segment;
static uint32_t heads[PA_MAX_WORKERS];
static struct pa_lanes lanes;
static int file = -1;
static uint64_t blocks, sleeps;
static struct pa_spin spin; /* all zero: it does not look */

static void submit(uint32_t index)
{
    struct pa_slot *slot = &segment->slots[index];
    uint32_t word = atomic_load_explicit(&slot->state, memory_order_acquire);
    uint32_t generation = (pa_state_generation(word) + 1) & 0xfffff;
    slot->op = file < 0 ? PA_OP_NOP : PA_OP_READ;
    slot->call_flags = 0;
    slot->fd = file;
    slot->length = BLOCK;
    slot->file_offset = file < 0 ? 0 : (int64_t)((uint64_t)random() % blocks * BLOCK);
    slot->arena_segment = file < 0 ? PA_NO_SEGMENT : 0;
    slot->arena_offset = (uint64_t)index * BLOCK;
    pa_state_set(slot, PA_READY, generation);
    pa_lane_push(segment, &lanes, 4, pa_entry(index, generation));
    pa_wake_after_push(segment);
}

static bool anything_pending(void)
{
    uint32_t limit = atomic_load_explicit(&segment->header.worker_limit, memory_order_relaxed);
    for (uint32_t worker = 0; worker < limit; worker++)
        if (atomic_load_explicit(&segment->workers[worker].result_tail, memory_order_acquire) !=
            heads[worker])
            return true;
    return false;
}

/* Gives how many results there were.  `again`: each slot gets the next request. */
static uint32_t reap(bool again)
{
    uint32_t limit = atomic_load_explicit(&segment->header.worker_limit, memory_order_relaxed);
    uint32_t count = 0, entry;
    for (uint32_t worker = 0; worker < limit; worker++)
        while (pa_result_pop(segment, worker, &heads[worker], &entry)) {
            uint32_t index = pa_entry_index(entry);
            struct pa_slot *slot = &segment->slots[index];
            uint32_t word = atomic_load_explicit(&slot->state, memory_order_acquire);
            pa_state_set(slot, PA_FREE, pa_state_generation(word));
            if (again)
                submit(index);
            count++;
        }
    return count;
}

static void open_file(const char *path)
{
    struct stat st;
    file = open(path, O_RDONLY | O_CLOEXEC);
    if (file < 0 || fstat(file, &st) < 0 || st.st_size < BLOCK)
        exit(2);
    blocks = (uint64_t)st.st_size / BLOCK;
    int fd = memfd_create("data", MFD_CLOEXEC);
    if (pa_make_own(&fd, PA_MARK_DATA) < 0 || ftruncate(fd, PA_NSLOTS * BLOCK) < 0)
        exit(2);
    segment->header.data_segments[0] =
        (struct pa_data_segment){.size = PA_NSLOTS * BLOCK, .fd = fd, .generation = 1};
}

/* Look for results for a while, as procaio's wait() does. */
static bool look(void)
{
    uint64_t began = pa_now_ns(), spent = 0;
    bool found = false;
    do {
        for (int times = 0; times < 16 && !found; times++) {
            found = anything_pending();
            if (!found)
                pa_relax(1);
        }
        spent = pa_now_ns() - began;
        if (!found && spent > PA_SPIN_ALONE_NS)
            pa_spin_yield();
    } while (!found && spent < spin.ns);
    pa_spin_learn(&spin, found);
    return found;
}

/* Wait until there may be results. */
static void rest(void)
{
    struct epoll_event event;
    if (spin.ns > 0 && look())
        return;
    pa_signal_request(segment);
    if (!anything_pending()) {
        uint64_t began = pa_now_ns();
        epoll_wait(segment->header.setup.epoll_fd, &event, 1, 1000);
        pa_spin_slept(&spin, began,
                      atomic_load_explicit(&segment->header.rung_ns, memory_order_relaxed));
        sleeps++;
    }
    pa_signal_withdraw(segment);
}

static void many(uint32_t depth, uint64_t seconds)
{
    uint64_t began = pa_now_ns(), end = began + seconds * SECOND, ops = 0;
    for (uint32_t index = 0; index < depth; index++)
        submit(index);
    while (pa_now_ns() < end) {
        uint32_t got = reap(true);
        ops += got;
        if (got == 0)
            rest();
    }
    uint32_t op_ns = atomic_load(&segment->header.op_ns[file < 0 ? PA_OP_NOP : PA_OP_READ]);
    printf("{\"ops\": %" PRIu64 ", \"seconds\": %.3f, "
           "\"extra\": {\"sleeps\": %" PRIu64 ", \"op_ns\": %" PRIu32 "}}\n",
           ops, (double)(pa_now_ns() - began) / SECOND, sleeps, op_ns);
}

static int in_order(const void *a, const void *b)
{
    uint64_t one = *(const uint64_t *)a, other = *(const uint64_t *)b;
    return (one > other) - (one < other);
}

/* A tenth more is done before, to warm up. */
static void one(uint32_t count)
{
    uint32_t warm_up = count / 10;
    uint64_t *took = calloc(count, sizeof *took), first = pa_now_ns();
    for (uint32_t number = 0; number < warm_up + count; number++) {
        uint64_t began = pa_now_ns();
        submit(0);
        while (reap(false) == 0)
            rest();
        if (number >= warm_up)
            took[number - warm_up] = pa_now_ns() - began;
    }
    double seconds = (double)(pa_now_ns() - first) / SECOND;
    qsort(took, count, sizeof *took, in_order);
    printf("{\"ops\": %" PRIu32 ", \"seconds\": %.6f, \"value\": %.3f, "
           "\"extra\": {\"p99\": %.3f}}\n",
           warm_up + count, seconds, (double)took[(count - 1) / 2] / 1e3,
           (double)took[(count - 1) * 99 / 100] / 1e3);
    free(took);
}

static int start(uint32_t workers)
{
    cpu_set_t cores;
    int fd = memfd_create("ring_limit", MFD_CLOEXEC), pidfd;
    if (sched_getaffinity(0, sizeof cores, &cores) < 0 || pa_make_own(&fd, PA_MARK_SEGMENT) < 0 ||
        pa_segment_map(fd, &segment) < 0)
        return -1;
    pa_segment_init(segment, (uint32_t)CPU_COUNT(&cores));
    struct pa_header *header = &segment->header;
    header->setup.segment_fd = fd;
    header->setup.event_fd = eventfd(0, EFD_CLOEXEC);
    header->setup.epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    if (pa_make_own(&header->setup.event_fd, PA_MARK_BELL) < 0 ||
        pa_make_own(&header->setup.epoll_fd, PA_MARK_SET) < 0)
        return -1;
    atomic_store(&header->wanted, workers);
    struct epoll_event event = {.events = EPOLLIN | EPOLLET, .data.u64 = UINT64_MAX};
    epoll_ctl(header->setup.epoll_fd, EPOLL_CTL_ADD, header->setup.event_fd, &event);
    char *region = mmap(NULL, 2 * PA_STACK_SIZE, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    return pa_spawner_start(segment, region, &header->setup, 0, &pidfd);
}

int main(int argc, char **argv)
{
    bool single = argc > 3 && strcmp(argv[3], "one") == 0;
    int last = single ? 4 : 5;
    if (argc <= last)
        return 2;
    uint32_t depth = single ? 1 : (uint32_t)atoi(argv[4]);
    int spawner = depth <= PA_NSLOTS ? start((uint32_t)atoi(argv[2])) : -1;
    if (spawner < 0)
        return 2;
    if (strcmp(argv[1], "look") == 0)
        spin.ns = spin.limit_ns = segment->header.setup.spin_limit_ns;
    if (argc > last + 1)
        open_file(argv[last + 1]);
    if (single)
        one((uint32_t)atoi(argv[last]));
    else
        many(depth, (uint64_t)atoi(argv[last]));
    atomic_store(&segment->header.shutdown, 1);
    pa_wake_all(segment);
    kill(spawner, SIGKILL);
    while (waitpid(-1, NULL, __WALL) > 0)
        ;
    return 0;
}
