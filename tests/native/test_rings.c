/* tests/native/test_rings.c - the rings, the slots and the waking, between threads.
 *
 *     test_rings [REQUESTS]
 *
 * The workers are threads that run pa_worker_loop(), the monitor is a thread with a short version of
 * workers/spawner.c, and the program is a small version of procaio/csrc/queue.c and poll.c: so the
 * sanitizers see everything that in the product happens between processes.  What is tried: several
 * lanes, withdrawals, full lanes, requests that keep a worker busy, bursts and quiet times, indices
 * that wrap.  Every request must end exactly once; a wait that lasts too long is a lost wake-up.
 */
#include <inttypes.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <unistd.h>

#include "../../shm/marks.h"
#include "../../shm/ring.h"
#include "../../shm/segment.h"
#include "../../shm/state.h"
#include "../../shm/wake.h"
#include "../../workers/worker.h"

#define WORKERS 4u
#define PERMITS 2u
#define NEARLY_WRAPPED (UINT32_MAX - 3000u)
#define MOST_IN_FLIGHT PA_NSLOTS
#define BUSY_NS 300000u
#define TOO_LONG_MS 20000
#define UNTOUCHED INT64_MIN

enum ending { WAITS, EXECUTED, WITHDRAWN };

static struct pa_segment *segment;
static uint32_t requests = 200000, made, ended, withdrawn, rings;
static uint8_t *endings;
static uint32_t in_flight[PA_NSLOTS]; /* request + 1 */
static uint32_t free_slots[PA_NSLOTS], free_count;
static uint32_t result_heads[WORKERS];
static struct pa_lanes lanes;
static uint64_t seed = 88172645463325252u;

static void fail(const char *what)
{
    fprintf(stderr, "test_rings: %s\n", what);
    fprintf(stderr, "  made %" PRIu32 " ended %" PRIu32 " withdrawn %" PRIu32 " in lanes %" PRIu32
                    " sleepers %" PRIu32 " spinner %" PRIu32 " monitor asleep %" PRIu32 "\n",
            made, ended, withdrawn, pa_lanes_depth(segment), pa_sleepers_count(segment),
            atomic_load(&segment->header.spinner), atomic_load(&segment->header.monitor_asleep));
    for (uint32_t permit = 0; permit < segment->header.setup.permit_count; permit++)
        fprintf(stderr, "  permit %" PRIu32 ": %" PRIu32 "\n", permit,
                atomic_load(&segment->header.permits[permit]));
    abort();
}

static void check(bool good, const char *what)
{
    if (!good)
        fail(what);
}

/* xorshift: the same numbers in every run. */
static uint32_t random_below(uint32_t limit)
{
    seed ^= seed << 13;
    seed ^= seed >> 7;
    seed ^= seed << 17;
    return (uint32_t)(seed >> 32) % limit;
}

/* -- the workers and the monitor --------------------------------------------------------------- */

static void *work(void *number)
{
    const struct pa_rights rights = {.watched = false};
    pa_worker_loop(segment, &segment->header.setup, (uint32_t)(uintptr_t)number, &rights, 0);
    return NULL;
}

/* Takes the permits of workers that run the same request as at the last look. */
static void revoke_stuck(uint32_t *taken_before)
{
    for (uint32_t permit = 0; permit < segment->header.setup.permit_count; permit++) {
        uint32_t holder =
            atomic_load_explicit(&segment->header.permits[permit], memory_order_acquire);
        if (holder == 0)
            continue;
        struct pa_worker *record = &segment->workers[holder - 1];
        uint32_t taken = atomic_load_explicit(&record->taken, memory_order_acquire);
        if (taken == taken_before[holder - 1] &&
            atomic_load_explicit(&record->activity, memory_order_relaxed) == PA_RUNNING)
            pa_permit_revoke(segment, permit, holder - 1);
        taken_before[holder - 1] = taken;
    }
}

static uint32_t permits_in_use(void)
{
    uint32_t count = 0;
    for (uint32_t permit = 0; permit < segment->header.setup.permit_count; permit++)
        count += atomic_load_explicit(&segment->header.permits[permit], memory_order_relaxed) != 0;
    return count;
}

/* spawner.c:rest() */
static void rest(void)
{
    struct pa_header *header = &segment->header;
    uint32_t rung = atomic_load_explicit(&header->monitor_bell, memory_order_acquire);
    atomic_store_explicit(&header->monitor_asleep, 1, memory_order_relaxed);
    atomic_thread_fence(memory_order_seq_cst);
    if (pa_lanes_empty(segment) && !atomic_load_explicit(&header->shutdown, memory_order_relaxed))
        pa_futex_wait(&header->monitor_bell, rung, 0);
    atomic_store_explicit(&header->monitor_asleep, 0, memory_order_relaxed);
}

static void *watch(void *unused)
{
    (void)unused;
    uint32_t taken[WORKERS] = {0}, quiet = 0;
    while (!atomic_load_explicit(&segment->header.shutdown, memory_order_relaxed)) {
        uint32_t rung = atomic_load_explicit(&segment->header.monitor_bell, memory_order_acquire);
        revoke_stuck(taken);
        if (!pa_lanes_empty(segment)) {
            quiet = 0;
            if (permits_in_use() == 0)
                pa_wake_one(segment);
        } else if (++quiet > 3) {
            rest();
            quiet = 0;
            continue;
        }
        pa_futex_wait(&segment->header.monitor_bell, rung, 100000);
    }
    return NULL;
}

/* -- the program ------------------------------------------------------------------------------- */

static void slot_free(uint32_t index)
{
    struct pa_slot *slot = &segment->slots[index];
    uint32_t word = atomic_load_explicit(&slot->state, memory_order_acquire);
    if (pa_state_phase(word) != PA_FREE)
        check(pa_state_move(slot, word, PA_FREE, 0, pa_state_generation(word), PA_PROGRAM),
              "a slot of the program's was moved by somebody else");
    in_flight[index] = 0;
    free_slots[free_count++] = index;
}

static void end_request(uint32_t request, enum ending how)
{
    check(endings[request] == WAITS, "a request ended twice");
    endings[request] = (uint8_t)how;
    ended++;
    withdrawn += how == WITHDRAWN;
}

/* queue.c:dispatch() and publish().  False: the lane is full of requests that wait. */
static bool submit(uint32_t request)
{
    uint32_t index = free_slots[--free_count], lane = random_below(PA_NLANES);
    struct pa_slot *slot = &segment->slots[index];
    slot->op = random_below(4096) == 0 ? PA_OP_BUSY : PA_OP_NOP;
    slot->length = BUSY_NS;
    slot->call_flags = 0;
    slot->arena_segment = PA_NO_SEGMENT;
    slot->result = UNTOUCHED;
    uint32_t word = atomic_load_explicit(&slot->state, memory_order_acquire);
    uint32_t generation = (pa_state_generation(word) + 1) & 0xfffffu;
    in_flight[index] = request + 1;
    check(pa_state_move(slot, word, PA_READY, 0, generation, PA_PROGRAM), "a free slot was moved");
    if (!pa_lane_push(segment, &lanes, lane, pa_entry(index, generation))) {
        pa_lane_skip_stale(segment, &lanes, lane);
        if (!pa_lane_push(segment, &lanes, lane, pa_entry(index, generation))) {
            slot_free(index);
            return false;
        }
    }
    pa_wake_after_push(segment);
    return true;
}

/* queue.c:queue_withdraw() for whatever is in a random slot. */
static void withdraw(void)
{
    uint32_t index = random_below(PA_NSLOTS), request = in_flight[index];
    struct pa_slot *slot = &segment->slots[index];
    uint32_t word = atomic_load_explicit(&slot->state, memory_order_acquire);
    if (request == 0 || pa_state_phase(word) != PA_READY ||
        !pa_state_move(slot, word, PA_FREE, 0, pa_state_generation(word), PA_PROGRAM))
        return;
    check(slot->result == UNTOUCHED, "a withdrawn request was executed");
    slot_free(index);
    end_request(request - 1, WITHDRAWN);
}

static void accept_result(uint32_t entry)
{
    uint32_t index = pa_entry_index(entry);
    check(index < PA_NSLOTS && in_flight[index], "a result of no request");
    struct pa_slot *slot = &segment->slots[index];
    uint32_t word = atomic_load_explicit(&slot->state, memory_order_acquire);
    check(pa_state_phase(word) == PA_DONE && pa_state_generation(word) == pa_entry_generation(entry),
          "a result that is not done");
    check(slot->result == 0, "a request that was not executed");
    uint32_t request = in_flight[index] - 1;
    slot_free(index);
    end_request(request, EXECUTED);
}

static uint32_t harvest(void)
{
    uint32_t count = 0, entry;
    for (uint32_t worker = 0; worker < WORKERS; worker++)
        while (pa_result_pop(segment, worker, &result_heads[worker], &entry)) {
            accept_result(entry);
            count++;
        }
    return count;
}

/* poll.c: ask, look once more, sleep. */
static void wait_for_results(void)
{
    struct pollfd event = {.fd = segment->header.setup.event_fd, .events = POLLIN};
    pa_signal_request(segment);
    if (harvest() > 0) {
        pa_signal_withdraw(segment);
        return;
    }
    check(poll(&event, 1, TOO_LONG_MS) > 0, "nothing happens any more: a wake-up was lost");
    uint64_t count;
    check(read(event.fd, &count, sizeof count) == sizeof count, "the bell cannot be read");
    rings += (uint32_t)count;
}

static void run_program(void)
{
    while (ended < requests) {
        uint32_t burst = random_below(8) == 0 ? MOST_IN_FLIGHT : random_below(64) + 1;
        while (burst-- > 0 && made < requests && free_count > 0) {
            if (!submit(made))
                break;
            made++;
            if (random_below(8) == 0)
                withdraw();
        }
        uint32_t keep = random_below(4) == 0 ? 0 : random_below(MOST_IN_FLIGHT);
        while (PA_NSLOTS - free_count > keep)
            if (harvest() == 0)
                wait_for_results();
        if (random_below(64) == 0) /* long enough for everybody to fall asleep */
            usleep(2000);
    }
}

static void prepare(void)
{
    segment = mmap(NULL, sizeof *segment, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    endings = calloc(requests, 1);
    check(segment != MAP_FAILED && endings, "no memory");
    pa_segment_init(segment, PERMITS);
    struct pa_header *header = &segment->header;
    header->setup.event_fd = eventfd(0, EFD_CLOEXEC);
    check(pa_make_own(&header->setup.event_fd, PA_MARK_BELL) == 0, "no descriptor");
    atomic_store(&header->wanted, WORKERS);
    atomic_store(&header->max_idle, WORKERS);
    atomic_store(&header->idle_timeout_ms, 1000);
    atomic_store(&header->worker_limit, WORKERS);
    for (uint32_t lane = 0; lane < PA_NLANES; lane++) {
        atomic_store(&header->heads[lane], NEARLY_WRAPPED);
        atomic_store(&header->tails[lane], NEARLY_WRAPPED);
        lanes.heads[lane] = lanes.tails[lane] = NEARLY_WRAPPED;
    }
    for (uint32_t worker = 0; worker < WORKERS; worker++) {
        result_heads[worker] = NEARLY_WRAPPED;
        atomic_store(&segment->workers[worker].result_tail, NEARLY_WRAPPED);
        atomic_store(&segment->workers[worker].life, PA_ALIVE);
    }
    for (uint32_t index = 0; index < PA_NSLOTS; index++)
        free_slots[free_count++] = index;
}

int main(int argc, char **argv)
{
    pthread_t threads[WORKERS], monitor;
    if (argc > 1)
        requests = (uint32_t)strtoul(argv[1], NULL, 10);
    prepare();
    for (uintptr_t worker = 0; worker < WORKERS; worker++)
        check(pthread_create(&threads[worker], NULL, work, (void *)worker) == 0, "no thread");
    check(pthread_create(&monitor, NULL, watch, NULL) == 0, "no thread");
    run_program();
    atomic_store(&segment->header.shutdown, 1);
    pa_wake_all(segment);
    for (uint32_t worker = 0; worker < WORKERS; worker++)
        pthread_join(threads[worker], NULL);
    pthread_join(monitor, NULL);

    uint32_t taken = 0;
    for (uint32_t worker = 0; worker < WORKERS; worker++)
        taken += atomic_load(&segment->workers[worker].taken);
    check(taken + withdrawn == requests, "the workers have taken more or fewer than they should");
    check(free_count == PA_NSLOTS, "a slot is missing");
    for (uint32_t permit = 0; permit < PERMITS; permit++)
        check(atomic_load(&segment->header.permits[permit]) == 0, "a permit is missing");
    printf("ok: %" PRIu32 " requests ended once, %" PRIu32 " withdrawn, %" PRIu32 " rings\n", ended,
           withdrawn, rings);
    free(endings);
    munmap(segment, sizeof *segment);
    return 0;
}
