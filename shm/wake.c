/* shm/wake.c - permits, bells and the program's signal.  See wake.h for the invariant.
 *
 * Every sleep follows one pattern, on both sides: announce that you sleep, full fence, look once
 * more.  Every wake-up follows its mirror image: publish, full fence, look whether somebody sleeps.
 * Whichever fence comes second sees what the other side wrote before its own, so a request and a
 * sleeper cannot miss each other.  Waking costs as much as several cached reads, so it is done only
 * when somebody sleeps and nobody else is going to look.
 */
#include "wake.h"

#include <linux/futex.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "marks.h"
#include "ring.h"

uint64_t pa_now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

void pa_futex_wait(_Atomic uint32_t *word, uint32_t expected, uint64_t timeout_ns)
{
    struct timespec limit = {.tv_sec = (time_t)(timeout_ns / 1000000000u),
                             .tv_nsec = (long)(timeout_ns % 1000000000u)};
    syscall(SYS_futex, word, FUTEX_WAIT, expected, timeout_ns ? &limit : NULL, NULL, 0);
}

void pa_futex_wake(_Atomic uint32_t *word, int count)
{
    syscall(SYS_futex, word, FUTEX_WAKE, count, NULL, NULL, 0);
}

/* Never more than there are words. */
static uint32_t permits(const struct pa_segment *segment)
{
    uint32_t count = segment->header.setup.permit_count;
    return count < PA_MAX_PERMITS ? count : PA_MAX_PERMITS;
}

uint32_t pa_permit_take(struct pa_segment *segment, uint32_t worker)
{
    struct pa_header *header = &segment->header;
    for (uint32_t permit = 0, count = permits(segment); permit < count; permit++) {
        uint32_t nobody = 0;
        if (atomic_load_explicit(&header->permits[permit], memory_order_relaxed) == 0 &&
            atomic_compare_exchange_strong_explicit(&header->permits[permit], &nobody, worker + 1,
                                                    memory_order_acq_rel, memory_order_relaxed))
            return permit;
    }
    return PA_NO_PERMIT;
}

uint32_t pa_permit_held(struct pa_segment *segment, uint32_t worker)
{
    struct pa_header *header = &segment->header;
    for (uint32_t permit = 0, count = permits(segment); permit < count; permit++)
        if (atomic_load_explicit(&header->permits[permit], memory_order_acquire) == worker + 1)
            return permit;
    return PA_NO_PERMIT;
}

bool pa_permit_revoke(struct pa_segment *segment, uint32_t permit, uint32_t holder)
{
    uint32_t expected = holder + 1;
    return atomic_compare_exchange_strong_explicit(&segment->header.permits[permit], &expected, 0,
                                                   memory_order_acq_rel, memory_order_relaxed);
}

void pa_permits_return(struct pa_segment *segment, uint32_t worker)
{
    for (uint32_t permit = 0, count = permits(segment); permit < count; permit++)
        if (atomic_load_explicit(&segment->header.permits[permit], memory_order_relaxed) ==
            worker + 1)
            pa_permit_revoke(segment, permit, worker);
}

bool pa_anybody_awake(struct pa_segment *segment)
{
    for (uint32_t permit = 0, count = permits(segment); permit < count; permit++)
        if (atomic_load_explicit(&segment->header.permits[permit], memory_order_relaxed))
            return true;
    return false;
}

bool pa_crowded(struct pa_segment *segment, uint64_t each_ns)
{
    bool program_counts = each_ns <= PA_SLOW_NS && !pa_signal_requested(segment);
    uint32_t awake = program_counts, count = permits(segment);
    for (uint32_t permit = 0; permit < count; permit++)
        awake += atomic_load_explicit(&segment->header.permits[permit], memory_order_relaxed) != 0;
    return awake >= count;
}

static bool sleeper_take(struct pa_segment *segment, uint32_t worker)
{
    uint64_t bit = UINT64_C(1) << (worker % 64);
    return atomic_fetch_and_explicit(&segment->header.sleepers[worker / 64], ~bit,
                                     memory_order_acq_rel) & bit;
}

void pa_sleeper_add(struct pa_segment *segment, uint32_t worker)
{
    atomic_fetch_or_explicit(&segment->header.sleepers[worker / 64], UINT64_C(1) << (worker % 64),
                             memory_order_acq_rel);
}

void pa_sleeper_remove(struct pa_segment *segment, uint32_t worker)
{
    sleeper_take(segment, worker);
}

uint32_t pa_sleepers_count(struct pa_segment *segment)
{
    uint32_t count = 0;
    for (uint32_t word = 0; word < PA_MAX_WORKERS / 64; word++)
        count += (uint32_t)__builtin_popcountll(
            atomic_load_explicit(&segment->header.sleepers[word], memory_order_relaxed));
    return count;
}

/* The sleeper with the lowest number: the same few workers stay warm. */
static bool first_sleeper(struct pa_segment *segment, uint32_t *worker)
{
    for (uint32_t word = 0; word < PA_MAX_WORKERS / 64; word++) {
        uint64_t bits = atomic_load_explicit(&segment->header.sleepers[word], memory_order_acquire);
        if (bits) {
            *worker = word * 64 + (uint32_t)__builtin_ctzll(bits);
            return true;
        }
    }
    return false;
}

void pa_wake_worker(struct pa_segment *segment, uint32_t worker)
{
    struct pa_worker *record = &segment->workers[worker];
    atomic_store_explicit(&record->rung_ns, pa_now_ns(), memory_order_relaxed);
    atomic_fetch_add_explicit(&record->bell, 1, memory_order_release);
    pa_futex_wake(&record->bell, 1);
}

bool pa_wake_one(struct pa_segment *segment)
{
    uint32_t worker;
    while (first_sleeper(segment, &worker)) {
        uint32_t permit = pa_permit_take(segment, worker);
        if (permit == PA_NO_PERMIT)
            return false;
        if (sleeper_take(segment, worker)) {
            pa_wake_worker(segment, worker);
            return true;
        }
        /* It woke by itself, or somebody else was quicker. */
        pa_permit_revoke(segment, permit, worker);
    }
    return false;
}

void pa_wake_all(struct pa_segment *segment)
{
    for (uint32_t worker = 0; worker < PA_MAX_WORKERS; worker++)
        if (atomic_load_explicit(&segment->workers[worker].life, memory_order_relaxed) != PA_VACANT)
            pa_wake_worker(segment, worker);
    pa_monitor_ring(segment);
}

void pa_monitor_ring(struct pa_segment *segment)
{
    struct pa_header *header = &segment->header;
    atomic_store_explicit(&header->monitor_asleep, 0, memory_order_relaxed);
    atomic_fetch_add_explicit(&header->monitor_bell, 1, memory_order_release);
    pa_futex_wake(&header->monitor_bell, 1);
}

void pa_monitor_ensure(struct pa_segment *segment)
{
    if (atomic_load_explicit(&segment->header.monitor_asleep, memory_order_relaxed))
        pa_monitor_ring(segment);
}

void pa_wake_after_push(struct pa_segment *segment)
{
    struct pa_header *header = &segment->header;
    /* Publish, then look.  Pairs with three fences: of the worker that stops spinning
     * (loop.c:stop_spinning), of the one that goes to sleep (loop.c:sleep_until_rung), and of the
     * spawner that stops watching (spawner.c:rest).  Each writes its word, fences, and then looks
     * at the lanes. */
    atomic_thread_fence(memory_order_seq_cst);
    if (atomic_load_explicit(&header->spinner, memory_order_relaxed))
        return;
    if (!pa_anybody_awake(segment) && pa_wake_one(segment))
        return;
    pa_monitor_ensure(segment);
}

void pa_signal_program(struct pa_segment *segment, int event_fd)
{
    struct pa_header *header = &segment->header;
    /* The result was published; look whether the program asked.  Pairs with the fence in
     * pa_signal_request(): the program asks, fences, and looks at the result rings. */
    atomic_thread_fence(memory_order_seq_cst);
    uint32_t asked = PA_WANTS_SIGNAL;
    if (atomic_load_explicit(&header->want_signal, memory_order_relaxed) != asked)
        return;
    if (atomic_compare_exchange_strong_explicit(&header->want_signal, &asked, PA_WANTS_NONE,
                                                memory_order_acq_rel, memory_order_relaxed)) {
        uint64_t one = 1;
        atomic_store_explicit(&header->rung_ns, pa_now_ns(), memory_order_relaxed);
        if (pa_has_mark(event_fd, PA_MARK_BELL))
            (void)!write(event_fd, &one, sizeof one);
    }
}

void pa_signal_request(struct pa_segment *segment)
{
    atomic_store_explicit(&segment->header.want_signal, PA_WANTS_SIGNAL, memory_order_relaxed);
    atomic_thread_fence(memory_order_seq_cst); /* pairs with the one in pa_signal_program() */
}

static void exchange_signal(struct pa_segment *segment, uint32_t from, uint32_t to)
{
    _Atomic uint32_t *word = &segment->header.want_signal;
    if (atomic_load_explicit(word, memory_order_relaxed) == from)
        atomic_compare_exchange_strong_explicit(word, &from, to, memory_order_acq_rel,
                                                memory_order_relaxed);
}

void pa_signal_decline(struct pa_segment *segment)
{
    exchange_signal(segment, PA_WANTS_NONE, PA_NAPS);
}

void pa_signal_awake(struct pa_segment *segment)
{
    exchange_signal(segment, PA_NAPS, PA_WANTS_NONE);
}

bool pa_signal_withdraw(struct pa_segment *segment)
{
    return atomic_exchange_explicit(&segment->header.want_signal, PA_WANTS_NONE,
                                    memory_order_acq_rel) == PA_WANTS_SIGNAL;
}

bool pa_signal_requested(struct pa_segment *segment)
{
    return atomic_load_explicit(&segment->header.want_signal, memory_order_relaxed);
}
