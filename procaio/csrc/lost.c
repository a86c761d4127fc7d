/* procaio/csrc/lost.c - the program has closed descriptors that it does not know, ours among them.
 *
 * Daemons do that (os.closerange), and so does a program that closes a number twice.  Nothing can be
 * done with such a pool: its shared memory has no name but its descriptor.  It is noticed by the
 * marks (shm/marks.h): with the first request after a poll, if the last look was some time ago;
 * before the program sleeps; and when it asks the set.  Then the workers are ended, whatever is
 * outstanding fails with EBADF, and when that has been delivered the next request makes a new
 * segment.  A pool that was idle loses nothing.  The timer alone can be replaced: another one is
 * opened then, and set to the same time.
 */
#include <fcntl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "core.h"

#define LOOK_AGAIN_NS UINT64_C(100000)

bool lost_anything(const Pool *pool)
{
    return !pool->lost && !(pa_has_mark(pool->event_fd, PA_MARK_BELL) &&
                            pa_has_mark(pool->epoll_fd, PA_MARK_SET) &&
                            pa_has_mark(pool->segment_fd, PA_MARK_SEGMENT));
}

/* -- the children ----------------------------------------------------------------------------- */

/* A pidfd of the child.  As long as nobody but us waits for it its pid is nobody else's. */
static int find_child(int pidfd, int pid)
{
    siginfo_t info;
    int flags = (int)(WEXITED | WNOHANG | WNOWAIT | __WCLONE);
    if (pidfd >= 0 && pool_is_our_child(pidfd) && pool_is_pidfd_of(pidfd, pid))
        return pidfd;
    if (pid <= 0 || waitid(P_PID, (id_t)pid, &info, flags) < 0)
        return -1;
    return (int)syscall(SYS_pidfd_open, pid, 0);
}

void lost_find_spawner(Pool *pool)
{
    pool->spawner_pidfd = find_child(pool->spawner_pidfd, pool->spawner_pid);
}

void lost_find_workers(Pool *pool)
{
    for (uint32_t worker = 0; worker < PA_MAX_WORKERS; worker++) {
        struct pa_worker *record = &pool->segment->workers[worker];
        if (atomic_load(&record->life) == PA_VACANT)
            continue;
        int pid = pool_pid_of(pool, worker);
        int pidfd = pool->pidfds[worker] >= 0 ? pool->pidfds[worker] : atomic_load(&record->pidfd);
        pool->pidfds[worker] = find_child(pidfd, pid);
        pool->pids[worker] = pid;
    }
}

/* -- the pool --------------------------------------------------------------------------------- */

/* What the program waits for and polls must work until all has been delivered. */
static void open_again(Pool *pool)
{
    int set = pool->epoll_fd;
    pool_close_descriptors(pool);
    if (pool_open_descriptors(pool, set) < 0)
        pool->epoll_fd = pool->epoll_fd < 0 ? set : pool->epoll_fd; /* poll_cb does without */
    pool->setup.event_fd = pool->event_fd;
    pool->setup.epoll_fd = pool->epoll_fd;
    pool->segment->header.setup = pool->setup;
    poll_kick(pool);
    PyObject *done = PyObject_CallMethod((PyObject *)pool, "_attach_again", NULL);
    if (!done)
        PyErr_WriteUnraisable((PyObject *)pool);
    Py_XDECREF(done);
}

void lost_give_up(Pool *pool)
{
    struct pa_segment *segment = pool->segment;
    Py_INCREF((PyObject *)pool);
    pool->lost = pool->is_ending = true;
    pool_end_children(pool);
    pool->is_ending = false;
    if (pool->segment == segment) {
        queue_harvest(pool);
        memory_forget(pool);
        queue_fail_all(pool, EBADF);
        open_again(pool);
    }
    Py_DECREF((PyObject *)pool);
}

/* Other threads may run meanwhile, so the list is looked through anew each time. */
PyObject *lost_look(PyObject *module, PyObject *unused)
{
    (void)module;
    (void)unused;
    Pool *pool = open_pools;
    while (pool) {
        bool lost = pool->fork_count == fork_count && !pool->closed && lost_anything(pool);
        if (lost)
            lost_give_up(pool);
        pool = lost ? open_pools : pool->next_open;
    }
    Py_RETURN_NONE;
}

/* All has been delivered: it may begin anew, if no thread is in the way. */
static bool is_over(const Pool *pool)
{
    return pool->lost && pool->nreqs == 0 && pool->segment && !pool->closed;
}

/* The words of the segment may be somewhere else then, or where they were. */
static void await_others(Pool *pool)
{
    while (is_over(pool) && (pool->is_ending || pool->somebody_sleeps || pool->followers > 0)) {
        poll_tell_others(pool);
        Py_BEGIN_ALLOW_THREADS
        syscall(SYS_sched_yield);
        Py_END_ALLOW_THREADS
    }
}

int lost_check(Pool *pool)
{
    uint64_t now_ns = pa_now_ns();
    if (!pool->lost && pool->spawner_pid > 0 && now_ns - pool->looked_at_ns < LOOK_AGAIN_NS)
        return 0;
    pool->looked_at_ns = now_ns;
    if (unlikely(lost_anything(pool)))
        lost_give_up(pool);
    else
        timer_ensure(pool);
    if (likely(!pool->lost) || pool->nreqs > 0)
        return 0;
    PyObject *done = PyObject_CallMethod((PyObject *)pool, "_detach_all", NULL);
    if (!done)
        return -1;
    Py_DECREF(done);
    await_others(pool);
    if (is_over(pool)) /* another thread has not been quicker */
        pool_release_segment(pool);
    return pool_check(pool);
}
