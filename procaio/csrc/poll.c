/* procaio/csrc/poll.c - poll_cb, and how the program waits.
 *
 * A worker rings the pool's descriptor only when the program has asked for it: it asks when it has
 * taken all results, then looks once more (wake.c has the fences).  The descriptor is an epoll set
 * that holds the bell (an eventfd, edge-triggered, so that asking the set also silences it), the
 * pidfds of the workers and of the spawner, and the pool's timer: of deadlines, naps and second tries.
 *
 * Of several threads that wait for one pool, one sleeps on the descriptor, the others on `news`.
 * Whoever delivers results tells them, and whoever stops sleeping lets another one take its place.
 */
#include <poll.h>
#include <unistd.h>

#include "core.h"

/* A signal that comes just before the sleep does not interrupt it: so sleep again and again. */
enum { LONGEST_SLEEP_MS = 1000 };

enum { EVENTS = 16, LOOK_EVERY = 256, MANY = 8, SELDOM = 64 };

void poll_kick(Pool *pool)
{
    uint64_t one = 1;
    if (pa_has_mark(pool->event_fd, PA_MARK_BELL))
        (void)!write(pool->event_fd, &one, sizeof one);
}

/* After results were delivered: other threads may have been waiting for just these. */
void poll_tell_others(Pool *pool)
{
    if (pool->followers > 0) {
        atomic_fetch_add_explicit(&pool->news, 1, memory_order_release);
        pa_futex_wake(&pool->news, INT32_MAX);
    }
    if (pool->somebody_sleeps || pool->greenlets > 0)
        poll_kick(pool);
}

static void ask(Pool *pool)
{
    pool->asking = true;
    pa_signal_request(pool->segment);
}

static void stop_asking(Pool *pool)
{
    if (!pool->asking)
        pa_signal_awake(pool->segment);
    else if (!pa_signal_withdraw(pool->segment))
        pool->rung = true; /* a worker was quicker: the descriptor is readable */
    pool->asking = false;
}

/* -- poll_cb ---------------------------------------------------------------------------------- */

/* Whether one more may be delivered in this call. */
static bool within_limits(const Pool *pool, uint64_t done, uint64_t most, uint64_t began_ns)
{
    if (done >= most)
        return false;
    if (pool->max_poll_time <= 0 || done == 0)
        return true;
    return (double)(pa_now_ns() - began_ns) < pool->max_poll_time * 1e9;
}

/* Somebody sleeps on the descriptor, or may at any time; else poll_sleep() asks when it does. */
static bool must_ask(const Pool *pool)
{
    return pool->watched || pool->somebody_sleeps;
}

/* On a way out of the pool that has not looked at all results, with the bell perhaps silenced and
 * nobody asked to ring it: the program may watch the descriptor next. */
void poll_leave_readable(Pool *pool)
{
    pool->rung = false;
    if (must_ask(pool))
        ask(pool);
    if (must_ask(pool) && queue_anything_pending(pool))
        poll_kick(pool);
}

/* False: the pool has been closed meanwhile, by the program's hook or another thread. */
static bool look_after(Pool *pool, const struct pa_segment *segment)
{
    pool_look_after(pool);
    return pool->segment == segment;
}

/* What is pending now, or the limit says: requests that callbacks make are for the next call, so
 * that a callback that always makes another one does not keep the loop. */
int poll_some(Pool *pool, uint64_t turn, uint64_t *processed)
{
    struct pa_segment *segment = pool->segment;
    identity_unsure = true;
    pool->cached_fd = -1;
    uint64_t most = pool->max_poll_reqs ? pool->max_poll_reqs : pool->nreqs;
    if (turn && turn < most)
        most = turn;
    uint64_t began_ns = pool->max_poll_time > 0 ? pa_now_ns() : 0, done = 0;
    *processed = 0;
    bool looked = ++pool->polls % LOOK_EVERY == 0 || timer_has_expired(pool);
    int outcome = 0;
    if (looked && !look_after(pool, segment))
        return outcome;
    for (;;) {
        stop_asking(pool);
        if (pool->rung) {
            pool->rung = false;
            looked = true;
            if (!look_after(pool, segment))
                return outcome;
        }
        queue_harvest(pool);
        if (unlikely(deaths_are_to_be_told(pool))) {
            outcome = deaths_tell(pool);
            if (pool->segment != segment) /* closed by the hook */
                return outcome;
            if (outcome < 0)
                break;
        }
        while (pool->pending_length > 0) {
            if (!within_limits(pool, done, most, began_ns)) {
                outcome = 1;
                break;
            }
            Request *request = queue_next_pending(pool);
            done += !request->is_husk;
            *processed = done;
            if (deliver(pool, request) < 0)
                outcome = -1;
            if (unlikely(pool->segment != segment)) /* closed by a callback */
                return outcome;
            if (outcome < 0)
                break;
        }
        if (outcome != 0)
            break;
        if (!must_ask(pool))
            break;
        ask(pool);
        if (queue_anything_pending(pool))
            continue;
        if (done > 0 || looked || pool->somebody_sleeps) /* that one is to see what rings */
            break;
        /* Called for nothing: has somebody died?  This silences the bell, which a worker may have
         * rung in answer to the asking of just now: so ask again. */
        looked = true;
        if (!look_after(pool, segment))
            return outcome;
    }
    if (outcome != 0) {
        poll_leave_readable(pool);
        if (outcome > 0 && !queue_anything_pending(pool))
            outcome = 0;
    }
    if (done > 0 && (pool->followers > 0 || pool->somebody_sleeps || pool->greenlets > 0))
        poll_tell_others(pool);
    else if (looked && pool->somebody_sleeps)
        poll_kick(pool); /* it may have been silenced before that one had seen it */
    orphans_sweep(pool);
    if (pool->overflow_length)
        queue_refill(pool);
    return outcome;
}

/* -- sleeping --------------------------------------------------------------------------------- */

/* Look for results for a while; no worker rings meanwhile.  Runs without the interpreter lock.
 * Each look takes cache lines away from the worker that writes them: with many requests
 * outstanding, looking less often finds more at a time. */
static bool spin(Pool *pool, uint64_t outstanding)
{
    uint64_t began = pa_now_ns(), spent = 0;
    int pauses = outstanding >= MANY ? SELDOM : 1;
    bool found = false;
    do {
        for (int look = 0; look < 16 && !found; look++) {
            found = queue_anything_pending(pool);
            if (!found)
                pa_relax(pauses);
        }
        spent = pa_now_ns() - began;
        if (!found && spent > PA_SPIN_ALONE_NS)
            pa_spin_yield();
    } while (!found && spent < pool->spin.ns);
    pa_spin_learn(&pool->spin, found);
    return found;
}

/* -- looking in vain, and naps ----------------------------------------------------------------- */

/* What a request takes like the one that was made last, on average. */
static uint64_t each_ns(const Pool *pool)
{
    const struct pa_header *header = &pool->segment->header;
    return atomic_load_explicit(&header->op_ns[pool->last_op], memory_order_relaxed);
}

/* Every core has a worker at work, and results are few: to look for one would take the core of its
 * worker, again and again. */
static bool looks_in_vain(const Pool *pool)
{
    return pool->nreqs >= pool->setup.permit_count && each_ns(pool) > PA_SLOW_NS;
}

/* To look for each result takes a core that a worker needs, and to be woken for each interrupts one.
 * So with work for several workers in sight the program sleeps for half of the time that they take,
 * and then finds many results.  0: there is little to do; or it is rather for one worker, as what is
 * written to one file is: that has a lock; or each takes so long that results are few, or is not work
 * at all but waits for a disk. */
static uint64_t time_to_nap(const Pool *pool)
{
    enum { ENOUGH_NS = 100000, LONGEST_NAP_NS = 150000, LONGEST_EACH_NS = 200000 };
    uint32_t cores = pool->setup.permit_count;
    if (pool->same_file || pool->wanted <= 1 || cores <= 1)
        return 0;
    uint64_t each = each_ns(pool);
    if (each > LONGEST_EACH_NS)
        return 0;
    uint64_t workers = cores < pool->wanted ? cores : pool->wanted;
    uint64_t work_ns = pa_lanes_depth(pool->segment) * each / workers;
    if (work_ns < ENOUGH_NS)
        return 0;
    return work_ns / 2 < LONGEST_NAP_NS ? work_ns / 2 : LONGEST_NAP_NS;
}

/* When a worker rang last. */
static uint64_t rung_ns(const Pool *pool)
{
    return atomic_load_explicit(&pool->segment->header.rung_ns, memory_order_relaxed);
}

/* -- turns of an event loop ------------------------------------------------------------------- */

uint64_t poll_turn_begins(Pool *pool)
{
    uint64_t now_ns = pa_now_ns();
    pa_spin_slept(&pool->turn_spin, pool->turn_ended_ns, rung_ns(pool));
    return now_ns;
}

/* A loop naps in its own sleep, which the timer ends.  Not again if that has brought nothing: much may
 * wait for workers that hang. */
static void let_nap(Pool *pool, uint64_t now_ns)
{
    uint64_t nap_ns = pool->napped_after == pool->totals.completed ? 0 : time_to_nap(pool);
    if (nap_ns == 0 || pool->somebody_sleeps || pool->lacks_spawner || queue_anything_pending(pool))
        return;
    pool->napped_after = pool->totals.completed;
    stop_asking(pool);
    if (pool->rung)
        return;
    if (timer_set(pool, now_ns + nap_ns) == 0)
        pa_signal_decline(pool->segment);
    else
        poll_leave_readable(pool);
}

/* With few requests outstanding this looks for the next result for a moment: to go to sleep for it, and
 * be woken, takes longer than most calls.  With many the loop may nap. */
bool poll_turn_goes_on(Pool *pool, uint64_t began_ns)
{
    enum { FEW = 4, LONGEST_TURN_NS = 50000 };
    uint64_t now_ns = pa_now_ns(), until_ns = now_ns + pool->turn_spin.ns;
    pool->turn_ended_ns = now_ns;
    if (pool->nreqs > FEW) {
        let_nap(pool, now_ns);
        return false;
    }
    if (pool->turn_spin.ns == 0 || pool->nreqs == 0 || pool->is_inline ||
        now_ns - began_ns > LONGEST_TURN_NS)
        return false;
    stop_asking(pool);
    bool found = queue_anything_pending(pool);
    while (!found && pool->turn_ended_ns < until_ns) {
        pa_relax(1);
        found = queue_anything_pending(pool);
        pool->turn_ended_ns = pa_now_ns();
    }
    pa_spin_learn(&pool->turn_spin, found);
    if (found)
        return true;
    ask(pool);
    return queue_anything_pending(pool);
}

uint64_t poll_ns(double seconds)
{
    return seconds > 1e9 ? UINT64_C(1000000000000000000) : (uint64_t)(seconds * 1e9);
}

/* Another thread sleeps on the descriptor already. */
static int follow(Pool *pool, double timeout)
{
    uint32_t news = atomic_load_explicit(&pool->news, memory_order_acquire);
    /* Bounded, so that a signal handler of the main thread gets its turn. */
    uint64_t limit_ns = timeout < 0 || timeout > 0.1 ? 100000000u : poll_ns(timeout) + 1;
    pool->followers++;
    Py_BEGIN_ALLOW_THREADS
    pa_futex_wait(&pool->news, news, limit_ns);
    Py_END_ALLOW_THREADS
    pool->followers--;
    return PyErr_CheckSignals();
}

/* Signal handlers of the program: one that raises leads out of the pool. */
static int signals(Pool *pool, const struct pa_segment *segment)
{
    if (PyErr_CheckSignals() == 0)
        return 0;
    if (pool->segment == segment)
        poll_leave_readable(pool);
    return -1;
}

/* In a greenlet others of its thread are to run meanwhile: 1 when they could, 0 elsewhere, or -1.
 * Its hub watches the descriptor, so whoever delivers results has to make that readable. */
static int sleep_in_greenlet(Pool *pool, Request *awaited, double timeout)
{
    static struct imported gevent;
    if (likely(!is_imported(&gevent, "gevent")))
        return 0;
    PyObject *request = awaited ? (PyObject *)awaited : Py_None;
    const struct pa_segment *segment = pool->segment;
    uint64_t completed = pool->totals.completed;
    pool->greenlets += !awaited;
    PyObject *slept = call_loops("sleep_in_greenlet", "(OOd)", pool, request, timeout);
    pool->greenlets -= !awaited;
    int truth = slept ? PyObject_IsTrue(slept) : -1;
    Py_XDECREF(slept);
    if (truth == 0 && (pool->segment != segment || pool->totals.completed != completed))
        truth = 1; /* while that ran another thread has delivered, and could not know who waits */
    return truth;
}

/* Nobody rings for results during a nap; what else there is to tell ends it, and is in `events`: how
 * many, or 0. */
static int nap(Pool *pool, uint64_t nap_ns, struct epoll_event events[EVENTS])
{
    struct timespec limit = {.tv_nsec = (long)nap_ns};
    struct pollfd news = {.fd = pool->epoll_fd, .events = POLLIN};
    pa_signal_decline(pool->segment);
    bool told = ppoll(&news, 1, &limit, NULL) > 0;
    pa_signal_awake(pool->segment);
    return told ? epoll_wait(pool->epoll_fd, events, EVENTS, 0) : 0;
}

/* So long a silence may have a reason.  A timer that goes off meanwhile does not end it. */
static void note_silence(Pool *pool, uint64_t slept_ns)
{
    if (pool->silent_after != pool->totals.completed)
        pool->silent_ns = 0;
    pool->silent_after = pool->totals.completed;
    pool->silent_ns += slept_ns;
    if (pool->silent_ns < LONGEST_SLEEP_MS * UINT64_C(1000000))
        return;
    pool->silent_ns = 0;
    queue_search(pool);
}

/* Sleep until something may have happened, perhaps to the request that is awaited.  0, or -1 with an
 * exception (of a signal handler). */
int poll_sleep(Pool *pool, Request *awaited, double timeout)
{
    int elsewhere = sleep_in_greenlet(pool, awaited, timeout);
    if (elsewhere != 0)
        return elsewhere < 0 ? -1 : 0;
    if (pool->somebody_sleeps)
        return follow(pool, timeout);
    struct pa_segment *segment = pool->segment;
    struct epoll_event events[EVENTS];
    int count = 0, milliseconds = LONGEST_SLEEP_MS;
    if (timeout >= 0 && timeout < LONGEST_SLEEP_MS / 1e3)
        milliseconds = (int)(timeout * 1e3 + 0.999);
    stop_asking(pool);
    if (pool->rung) { /* there is news already */
        pool->rung = false;
        pool_look_after(pool);
        return signals(pool, segment);
    }
    pool->somebody_sleeps = true;
    bool awake = false, lost = false, looks = pool->spin.ns > 0 && !looks_in_vain(pool);
    uint64_t slept_ns = 0, outstanding = pool->nreqs, nap_ns = time_to_nap(pool);
    Py_BEGIN_ALLOW_THREADS
    if (milliseconds != 0 && nap_ns > 0 && !awaited) {
        count = nap(pool, nap_ns, events);
        awake = count > 0 || queue_anything_pending(pool);
    } else if (milliseconds != 0 && looks) {
        awake = spin(pool, outstanding);
    }
    if (!awake) {
        ask(pool);
        if (!queue_anything_pending(pool)) {
            uint64_t began = pa_now_ns();
            lost = lost_anything(pool);
            count = lost ? 0 : epoll_wait(pool->epoll_fd, events, EVENTS, milliseconds);
            slept_ns = pa_now_ns() - began;
            pa_spin_slept(&pool->spin, began, rung_ns(pool));
        }
    }
    Py_END_ALLOW_THREADS
    pool->somebody_sleeps = false;
    if (pool->segment == segment && lost && lost_anything(pool)) /* still: see lost.c */
        lost_give_up(pool);
    if (pool->segment == segment && count > 0)
        pool_handle_events(pool, events, count);
    if (pool->segment == segment && milliseconds == LONGEST_SLEEP_MS)
        note_silence(pool, slept_ns);
    if (pool->followers > 0)
        poll_tell_others(pool);
    return signals(pool, segment);
}

PyObject *poll_wait_for(Request *request, double timeout)
{
    Pool *pool = request->pool;
    uint64_t end_ns = timeout >= 0 ? pa_now_ns() + poll_ns(timeout) : 0;
    while (request->place < AT_CALLBACK) {
        if (pool->fork_count != fork_count || !pool->segment) {
            request->place = AT_DEAD;
            break;
        }
        uint64_t processed;
        if (poll_some(pool, 0, &processed) < 0)
            return NULL;
        if (processed > 0 && PyErr_CheckSignals() < 0)
            return NULL;
        if (processed > 0 || request->place >= AT_CALLBACK)
            continue;
        double left = -1;
        if (timeout >= 0) {
            uint64_t now = pa_now_ns();
            if (now >= end_ns) {
                PyErr_Format(PyExc_TimeoutError, "%R has not ended in time", request);
                return NULL;
            }
            left = (double)(end_ns - now) / 1e9;
        }
        if (poll_sleep(pool, request, left) < 0)
            return NULL;
        /* Another thread has delivered it: that may have left more, and told of it by what has just
         * been taken from the descriptor. */
        if (request->place >= AT_CALLBACK && pool->segment && pool->fork_count == fork_count)
            poll_leave_readable(pool);
    }
    if (request->value)
        return Py_NewRef(request->value);
    request_raise(request);
    return NULL;
}
