/* procaio/csrc/poll.c - poll_cb, and how the program waits.
 *
 * A worker rings the pool's descriptor only when the program has asked for it: it asks when it has
 * taken all results, then looks once more (wake.c has the fences).  The descriptor is an epoll set
 * that holds the bell (an eventfd, edge-triggered, so that asking the set also silences it), the
 * pidfds of the workers and of the spawner.
 *
 * Of several threads that wait for one pool, one sleeps on the descriptor, the others on `news`.
 * Whoever delivers results tells them, and whoever stops sleeping lets another one take its place.
 */
#include <unistd.h>

#include "core.h"

enum { EVENTS = 16, SPIN_MIN_NS = 1000, LOOK_EVERY = 256 };

void poll_kick(Pool *pool)
{
    uint64_t one = 1;
    (void)!write(pool->event_fd, &one, sizeof one);
}

/* After results were delivered: other threads may have been waiting for just these. */
void poll_tell_others(Pool *pool)
{
    if (pool->followers > 0) {
        atomic_fetch_add_explicit(&pool->news, 1, memory_order_release);
        pa_futex_wake(&pool->news, INT32_MAX);
    }
    if (pool->somebody_sleeps)
        poll_kick(pool);
}

static void ask(Pool *pool)
{
    pool->asking = true;
    pa_signal_request(pool->segment);
}

static void stop_asking(Pool *pool)
{
    if (pool->asking && !pa_signal_withdraw(pool->segment))
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

/* What is pending now, or the limit says: requests that callbacks make are for the next call, so
 * that a callback that always makes another one does not keep the loop. */
int poll_some(Pool *pool, uint64_t *processed)
{
    struct pa_segment *segment = pool->segment;
    uint64_t most = pool->max_poll_reqs ? pool->max_poll_reqs : pool->nreqs;
    uint64_t began_ns = pool->max_poll_time > 0 ? pa_now_ns() : 0, done = 0;
    bool looked = ++pool->polls % LOOK_EVERY == 0;
    int outcome = 0;
    if (looked)
        pool_look_after(pool);
    for (;;) {
        stop_asking(pool);
        if (pool->rung) {
            pool->rung = false;
            looked = true;
            pool_look_after(pool);
        }
        queue_harvest(pool);
        while (pool->pending_length > 0) {
            if (!within_limits(pool, done, most, began_ns)) {
                outcome = 1;
                break;
            }
            done++;
            if (queue_deliver(pool, queue_next_pending(pool)) < 0) {
                outcome = -1;
                break;
            }
            if (unlikely(pool->segment != segment)) { /* closed by a callback */
                *processed = done;
                return 0;
            }
        }
        if (outcome != 0)
            break;
        ask(pool);
        if (queue_anything_pending(pool))
            continue;
        if (done > 0 || looked)
            break;
        looked = true; /* called for nothing: has somebody died? */
        if (!pool_look_after(pool))
            break;
    }
    if (outcome != 0 && queue_anything_pending(pool))
        poll_kick(pool); /* the descriptor stays readable */
    else if (outcome > 0)
        outcome = 0;
    if (done > 0 && (pool->followers > 0 || pool->somebody_sleeps))
        poll_tell_others(pool);
    orphans_sweep();
    *processed = done;
    return outcome;
}

/* -- sleeping --------------------------------------------------------------------------------- */

static void relax(void)
{
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#endif
}

/* Look for results for a while; no worker rings meanwhile.  Runs without the interpreter lock. */
static bool spin(Pool *pool)
{
    uint64_t end = pa_now_ns() + pool->spin_ns;
    do {
        for (int look = 0; look < 16; look++) {
            if (queue_anything_pending(pool))
                return true;
            relax();
        }
    } while (pa_now_ns() < end);
    return false;
}

static void adapt_spinning(Pool *pool, uint64_t slept_ns)
{
    uint32_t limit = pool->segment->header.spin_limit_ns;
    if (slept_ns < 2 * (uint64_t)limit)
        pool->spin_ns = limit;
    else
        pool->spin_ns /= 2;
}

static uint64_t to_ns(double seconds)
{
    return seconds > 1e9 ? UINT64_C(1000000000000000000) : (uint64_t)(seconds * 1e9);
}

/* Another thread sleeps on the descriptor already. */
static int follow(Pool *pool, double timeout)
{
    uint32_t news = atomic_load_explicit(&pool->news, memory_order_acquire);
    /* Bounded, so that a signal handler of the main thread gets its turn. */
    uint64_t limit_ns = timeout < 0 || timeout > 0.1 ? 100000000u : to_ns(timeout) + 1;
    pool->followers++;
    Py_BEGIN_ALLOW_THREADS
    pa_futex_wait(&pool->news, news, limit_ns);
    Py_END_ALLOW_THREADS
    pool->followers--;
    return PyErr_CheckSignals();
}

/* Sleep until something may have happened.  0, or -1 with an exception (of a signal handler). */
int poll_sleep(Pool *pool, double timeout)
{
    if (pool->somebody_sleeps)
        return follow(pool, timeout);
    struct pa_segment *segment = pool->segment;
    struct epoll_event events[EVENTS];
    int count = 0, milliseconds = -1, error = 0;
    if (timeout >= 0)
        milliseconds = timeout > 1e6 ? 1000000000 : (int)(timeout * 1e3 + 0.999);
    pool->somebody_sleeps = true;
    stop_asking(pool);
    bool awake = pool->rung;
    Py_BEGIN_ALLOW_THREADS
    if (!awake && milliseconds != 0 && pool->spin_ns >= SPIN_MIN_NS)
        awake = spin(pool);
    if (!awake) {
        ask(pool);
        if (!queue_anything_pending(pool)) {
            uint64_t began = pa_now_ns();
            count = epoll_wait(pool->epoll_fd, events, EVENTS, milliseconds);
            error = errno;
            adapt_spinning(pool, pa_now_ns() - began);
        }
    }
    Py_END_ALLOW_THREADS
    pool->somebody_sleeps = false;
    if (pool->segment == segment && count > 0)
        pool_handle_events(pool, events, count);
    if (pool->followers > 0)
        poll_tell_others(pool);
    return count < 0 && error == EINTR ? PyErr_CheckSignals() : 0;
}

PyObject *poll_wait_for(Request *request, double timeout)
{
    Pool *pool = request->pool;
    uint64_t end_ns = timeout >= 0 ? pa_now_ns() + to_ns(timeout) : 0;
    while (request->place < AT_CALLBACK) {
        if (pool->fork_count != fork_count || !pool->segment) {
            request->place = AT_DEAD;
            break;
        }
        uint64_t processed;
        if (poll_some(pool, &processed) < 0)
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
        if (poll_sleep(pool, left) < 0)
            return NULL;
    }
    if (request->value)
        return Py_NewRef(request->value);
    request_raise(request);
    return NULL;
}
