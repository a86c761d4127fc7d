/* benchmarks/native/ring_limit.c - the limit: the same rings and workers, and nothing else.
 *
 *     ring_limit WORKERS DEPTH SECONDS [FILE]
 *
 * A C program keeps DEPTH no-ops (or 4 KiB preads of FILE) outstanding and counts what comes back.
 * What Python adds to this is the rest of the time.  One JSON line is printed.
 */
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "../../shm/marks.h"
#include "../../shm/ring.h"
#include "../../shm/segment.h"
#include "../../shm/state.h"
#include "../../shm/wake.h"
#include "../../workers/worker.h"

#define BLOCK 4096u

static struct pa_segment *segment;
static uint32_t heads[PA_MAX_WORKERS];
static struct pa_lanes lanes;
static int file = -1;
static uint64_t blocks;

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

static uint32_t reap(void)
{
    uint32_t count = 0, entry;
    for (uint32_t worker = 0; worker < 64; worker++)
        while (pa_result_pop(segment, worker, &heads[worker], &entry)) {
            uint32_t index = pa_entry_index(entry);
            struct pa_slot *slot = &segment->slots[index];
            uint32_t word = atomic_load_explicit(&slot->state, memory_order_acquire);
            pa_state_set(slot, PA_FREE, pa_state_generation(word));
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

int main(int argc, char **argv)
{
    if (argc < 4)
        return 2;
    uint32_t workers = (uint32_t)atoi(argv[1]), depth = (uint32_t)atoi(argv[2]);
    uint64_t seconds = (uint64_t)atoi(argv[3]);
    int fd = memfd_create("ring_limit", MFD_CLOEXEC), pidfd;
    if (depth > PA_NSLOTS || pa_make_own(&fd, PA_MARK_SEGMENT) < 0 ||
        pa_segment_map(fd, &segment) < 0)
        return 2;
    pa_segment_init(segment, (uint32_t)sysconf(_SC_NPROCESSORS_ONLN));
    struct pa_header *header = &segment->header;
    header->setup.segment_fd = fd;
    header->setup.event_fd = eventfd(0, EFD_CLOEXEC);
    header->setup.epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    if (pa_make_own(&header->setup.event_fd, PA_MARK_BELL) < 0 ||
        pa_make_own(&header->setup.epoll_fd, PA_MARK_SET) < 0)
        return 2;
    atomic_store(&header->wanted, workers);
    struct epoll_event event = {.events = EPOLLIN | EPOLLET, .data.u64 = UINT64_MAX};
    epoll_ctl(header->setup.epoll_fd, EPOLL_CTL_ADD, header->setup.event_fd, &event);
    if (argc > 4)
        open_file(argv[4]);
    char *region = mmap(NULL, 2 * PA_STACK_SIZE, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    int spawner = pa_spawner_start(segment, region, &header->setup, 0, &pidfd);
    if (spawner < 0)
        return 2;

    uint64_t began = pa_now_ns(), end = began + seconds * 1000000000u, ops = 0, sleeps = 0;
    for (uint32_t index = 0; index < depth; index++)
        submit(index);
    while (pa_now_ns() < end) {
        uint32_t got = reap();
        ops += got;
        if (got)
            continue;
        pa_signal_request(segment);
        got = reap();
        if (got == 0) {
            sleeps++;
            epoll_wait(header->setup.epoll_fd, &event, 1, 1000);
        }
        ops += got;
        pa_signal_withdraw(segment);
    }
    double took = (double)(pa_now_ns() - began) / 1e9;
    printf("{\"ops\": %llu, \"seconds\": %.3f, \"sleeps\": %llu, \"op_ns\": %u}\n",
           (unsigned long long)ops, took, (unsigned long long)sleeps,
           atomic_load(&header->op_ns[file < 0 ? PA_OP_NOP : PA_OP_READ]));
    atomic_store(&header->shutdown, 1);
    pa_wake_all(segment);
    kill(spawner, SIGKILL);
    while (waitpid(-1, NULL, __WALL) > 0)
        ;
    return 0;
}
