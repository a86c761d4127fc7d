/* procaio/csrc/deadlines.c - when requests must have ended, and the pool's timer.
 *
 * A heap of times, the earliest first; each request knows its place in it, so that one that ends in
 * time is taken out.  The timer is one descriptor in the pool's set.  It is set to the earliest of
 * the times, or earlier: setting it later is not worth a system call.  A program that always finds
 * results does not look at the set, so poll_cb asks timer_has_expired(), too.
 *
 * A deadline that has passed ends the request (queue_abort).  If its worker had to be killed for
 * that the request gets a second one, for the worker's death: some cannot die (a disk that does not
 * answer, a frozen file system), and then the request ends without (queue_detach).
 */
#include <sys/timerfd.h>
#include <unistd.h>

#include "core.h"

struct deadline {
    uint64_t ns; /* as pa_now_ns() */
    Request *request;
};

enum { FIRST_ROOM = 64 };

/* -- the timer -------------------------------------------------------------------------------- */

static int open_timer(Pool *pool)
{
    if (pool->timer_fd >= 0)
        return 0;
    struct epoll_event event = {.events = EPOLLIN, .data.u64 = PA_EVENT_TIMER};
    int fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
    int error = pa_make_own(&fd, PA_MARK_TIMER);
    if (error) {
        errno = -error;
        return -1;
    }
    if (!pa_has_mark(pool->epoll_fd, PA_MARK_SET))
        error = EBADF;
    else if (epoll_ctl(pool->epoll_fd, EPOLL_CTL_ADD, fd, &event) < 0)
        error = errno;
    if (error) {
        close(fd);
        errno = error;
        return -1;
    }
    pool->timer_fd = fd;
    pool->timer_ns = 0;
    return 0;
}

int timer_set(Pool *pool, uint64_t ns)
{
    if (pool->timer_fd >= 0 && !pa_has_mark(pool->timer_fd, PA_MARK_TIMER)) {
        pool->timer_fd = -1; /* closed by the program */
        pool->timer_ns = 0;
    }
    if (open_timer(pool) < 0)
        return -1;
    if (pool->timer_ns && pool->timer_ns <= ns)
        return 0;
    struct itimerspec at = {.it_value = {.tv_sec = (time_t)(ns / 1000000000u),
                                         .tv_nsec = (long)(ns % 1000000000u)}};
    if (timerfd_settime(pool->timer_fd, TFD_TIMER_ABSTIME, &at, NULL) < 0)
        return -1;
    pool->timer_ns = ns;
    return 0;
}

bool timer_has_expired(const Pool *pool)
{
    return pool->timer_ns && pool->timer_ns <= pa_now_ns();
}

void timer_ensure(Pool *pool)
{
    if (pool->timer_ns && unlikely(!pa_has_mark(pool->timer_fd, PA_MARK_TIMER)) &&
        timer_set(pool, pool->timer_ns) < 0)
        poll_kick(pool); /* there is none: who sleeps until then is woken now */
}

void timer_clear(Pool *pool)
{
    uint64_t expirations;
    if (pa_has_mark(pool->timer_fd, PA_MARK_TIMER))
        (void)!read(pool->timer_fd, &expirations, sizeof expirations);
    pool->timer_ns = 0;
}

/* -- the heap --------------------------------------------------------------------------------- */

static void put(Pool *pool, uint32_t at, struct deadline deadline)
{
    pool->deadlines[at] = deadline;
    deadline.request->deadline = at + 1;
}

/* The place is free; whatever belongs there goes there. */
static void sift(Pool *pool, uint32_t at, struct deadline deadline)
{
    struct deadline *heap = pool->deadlines;
    for (uint32_t up = (at - 1) / 2; at > 0 && heap[up].ns > deadline.ns; up = (at - 1) / 2) {
        put(pool, at, heap[up]);
        at = up;
    }
    for (uint32_t down = 2 * at + 1; down < pool->deadline_count; down = 2 * at + 1) {
        if (down + 1 < pool->deadline_count && heap[down + 1].ns < heap[down].ns)
            down++;
        if (heap[down].ns >= deadline.ns)
            break;
        put(pool, at, heap[down]);
        at = down;
    }
    put(pool, at, deadline);
}

int deadlines_prepare(Pool *pool)
{
    if (open_timer(pool) < 0) {
        PyErr_SetFromErrno(PyExc_OSError);
        return -1;
    }
    if (pool->deadline_count < pool->deadline_room)
        return 0;
    uint32_t room = pool->deadline_room ? 2 * pool->deadline_room : FIRST_ROOM;
    struct deadline *grown = realloc(pool->deadlines, room * sizeof *grown);
    if (!grown) {
        PyErr_NoMemory();
        return -1;
    }
    pool->deadlines = grown;
    pool->deadline_room = room;
    return 0;
}

void deadlines_drop(Request *request)
{
    Pool *pool = request->pool;
    if (!request->deadline)
        return;
    uint32_t at = request->deadline - 1;
    request->deadline = 0;
    struct deadline last = pool->deadlines[--pool->deadline_count];
    if (at < pool->deadline_count)
        sift(pool, at, last);
}

void deadlines_add(Pool *pool, Request *request, uint64_t ns)
{
    deadlines_drop(request);
    pool->deadline_count++;
    sift(pool, pool->deadline_count - 1, (struct deadline){.ns = ns, .request = request});
    timer_set(pool, ns);
}

void deadlines_expire(Pool *pool)
{
    uint64_t now = pa_now_ns();
    while (pool->deadline_count > 0 && pool->deadlines[0].ns <= now) {
        Request *request = pool->deadlines[0].request;
        Py_INCREF(request); /* another thread may deliver it while results are harvested */
        deadlines_drop(request);
        if (request->is_husk)
            queue_watch_husk(pool, request);
        else if (request->aborted)
            queue_detach(pool, request);
        else if (!queue_expire(pool, request))
            deadlines_add(pool, request, now + PA_DEATH_NS); /* it should have been by then */
        Py_DECREF(request);
    }
    if (pool->deadline_count > 0)
        timer_set(pool, pool->deadlines[0].ns);
}

void deadlines_forget(Pool *pool)
{
    for (uint32_t at = 0; at < pool->deadline_count; at++)
        pool->deadlines[at].request->deadline = 0;
    free(pool->deadlines);
    pool->deadlines = NULL;
    pool->deadline_count = pool->deadline_room = 0;
}
