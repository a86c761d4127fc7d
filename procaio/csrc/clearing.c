/* procaio/csrc/clearing.c - the pools get new processes, because the program becomes something else:
 * another user, or another program.
 */
#include "core.h"

static uint32_t clearing; /* nothing is started now */

bool pools_are_clear(void)
{
    return clearing > 0;
}

void clearing_after_fork(void)
{
    clearing = 0;
}

/* The program is somebody else now: what was started before leaves by itself, and who is older begins
 * nothing from here on. */
void pool_tell_identity(Pool *pool, uint32_t identity)
{
    struct pa_segment *segment = pool->segment;
    pool->identity = identity;
    pool->renewed = true;
    atomic_store(&segment->header.identity, identity);
    pool->spawner_is_old = pool->spawner_pid > 0;
    pa_wake_all(segment);
    pa_monitor_ring(segment);
}

/* One spawner at a time: the new one is started when the old one has gone. */
static void replace_spawner(Pool *pool)
{
    struct pa_segment *segment = pool->segment;
    pool->spawner_is_old = false;
    pool_end_spawner(pool, pa_now_ns() + PA_DEATH_NS);
    if (pool->segment == segment)
        pool_end_its_wakings(segment);
}

void pool_renew(Pool *pool)
{
    Py_INCREF((PyObject *)pool);
    replace_spawner(pool);
    if (pool->segment && !pool->closed && pool->nreqs > 0 && pool_ensure_spawner(pool) < 0)
        PyErr_WriteUnraisable((PyObject *)pool);
    Py_DECREF((PyObject *)pool);
}

static bool has_processes(Pool *pool)
{
    bool any = pool->spawner_pidfd >= 0;
    pool_know_workers(pool);
    for (uint32_t worker = 0; worker < PA_MAX_WORKERS && !any; worker++)
        any = pool_pidfd_of_worker(pool, worker) >= 0;
    return any;
}

static Pool *next_to_clear(uint32_t round)
{
    for (Pool *pool = open_pools; pool; pool = pool->next_open)
        if (pool->fork_count == fork_count && !pool->closed && pool->cleared != round &&
            has_processes(pool))
            return pool;
    return NULL;
}

/* False: the pool has been closed meanwhile. */
static bool await_workers(Pool *pool, uint64_t until_ns)
{
    struct pa_segment *segment = pool->segment;
    for (uint32_t worker = 0; worker < PA_MAX_WORKERS; worker++) {
        int pidfd = pool_pidfd_of_worker(pool, worker);
        if (pidfd < 0)
            continue;
        pool_await_death(pidfd, pool_learn_pid(pool, worker, pidfd), until_ns);
        if (pool->segment != segment)
            return false;
        pool_bury_worker(pool, worker, pidfd);
    }
    return true;
}

static void kill_workers(Pool *pool)
{
    for (uint32_t worker = 0; worker < PA_MAX_WORKERS; worker++) {
        int pidfd = pool_pidfd_of_worker(pool, worker);
        if (pidfd < 0)
            continue;
        pool->condemned[worker / 64] |= UINT64_C(1) << worker % 64;
        pool_kill_child(pidfd);
    }
}

static void pool_clear(Pool *pool, bool patiently)
{
    struct pa_segment *segment = pool->segment;
    uint64_t until_ns = pa_now_ns() + PA_DEATH_NS;
    if (patiently)
        pool_tell_identity(pool, ++identity_number);
    else if (pool->spawner_pidfd >= 0)
        pool_kill_child(pool->spawner_pidfd);
    replace_spawner(pool);
    if (pool->segment != segment || (patiently && !await_workers(pool, until_ns)))
        return;
    kill_workers(pool);
    await_workers(pool, pa_now_ns() + PA_DEATH_NS);
}

/* The program is about to become another one (execve), which knows nothing of its processes, or to
 * share no longer with them what it shares.  Requests that are executed then are those of dead
 * workers: some are run again if it does not come to that.  Patiently: what ends soon may end. */
void pools_clear(bool patiently)
{
    static uint32_t round;
    uint32_t this_round = ++round;
    Pool *pool;
    clearing++;
    while ((pool = next_to_clear(this_round))) {
        Py_INCREF((PyObject *)pool);
        pool->cleared = this_round;
        pool_clear(pool, patiently);
        Py_DECREF((PyObject *)pool);
    }
}

void pools_go_on(void)
{
    PyObject *type, *value, *traceback;
    PyErr_Fetch(&type, &value, &traceback);
    clearing -= clearing > 0;
    for (Pool *pool = open_pools; pool; pool = pool->next_open)
        if (pool->fork_count == fork_count && pool->nreqs > 0 && !pool->closed &&
            pool_ensure_spawner(pool) < 0) {
            PyErr_Clear(); /* whoever polls will be told, should it fail again */
            pool_retry_spawner(pool);
        }
    PyErr_Restore(type, value, traceback);
}
