/* procaio/csrc/pool.c - the pool's life: made, opened, closed, abandoned in a child.
 *
 * Policy is in Python (procaio/_pool.py); here is what touches the segment; children.c
 * has the processes.
 */
#include <fcntl.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "core.h"

#define CHUNK_NS 500000u
#define EVENT_BELL UINT64_MAX /* in the pool's set */

unsigned fork_count;
Pool *open_pools;

static void take_off_list(Pool *pool)
{
    for (Pool **at = &open_pools; *at; at = &(*at)->next_open)
        if (*at == pool) {
            *at = pool->next_open;
            break;
        }
    orphans_forget(pool);
}

/* -- shared memory ---------------------------------------------------------------------------- */

/* Asks Python for a descriptor; reserving a large one is done without the interpreter lock. */
static int make_shared_memory(void *context, uint64_t size, bool reserve, bool elsewhere)
{
    Pool *pool = context;
    PyObject *made = PyObject_CallFunction(pool->source, "KO", (unsigned long long)size,
                                           elsewhere ? Py_True : Py_False);
    if (!made) {
        int error = ENOMEM;
        PyObject *type, *value, *traceback;
        PyErr_Fetch(&type, &value, &traceback);
        PyErr_NormalizeException(&type, &value, &traceback);
        PyObject *number = value ? PyObject_GetAttrString(value, "errno") : NULL;
        if (number && PyLong_Check(number))
            error = (int)PyLong_AsLong(number);
        PyErr_Clear();
        Py_XDECREF(number);
        Py_XDECREF(type);
        Py_XDECREF(value);
        Py_XDECREF(traceback);
        return error > 0 ? -error : -ENOMEM;
    }
    int fd = (int)PyLong_AsLong(made);
    Py_DECREF(made);
    int failed = 0, error = 0;
    if (reserve) {
        Py_BEGIN_ALLOW_THREADS
        failed = fallocate(fd, 0, 0, (off_t)size);
        error = errno;
        Py_END_ALLOW_THREADS
    }
    if (failed) {
        close(fd);
        return -error;
    }
    return fd;
}

int pool_alloc(Pool *pool, uint64_t size, bool reserved, struct pa_block *block)
{
    struct pa_arena *arena = pool->arena;
    if (!arena)
        return -EBADF;
    unsigned forks = fork_count;
    int error = pa_arena_alloc(arena, size, reserved, block);
    if (unlikely(fork_count != forks)) /* in the child what has just been made is the parent's, too */
        pa_arena_abandon(arena);
    if (unlikely(pool->arena != arena)) {
        if (!error)
            pa_arena_free(arena, block);
        error = -EBADF;
    }
    if (error)
        pool_let_go_of_arena(pool, arena);
    return error;
}

void pool_let_go_of_arena(Pool *pool, struct pa_arena *arena)
{
    if (!pa_arena_is_idle(arena) || (arena == pool->arena && pool->segment))
        return;
    if (arena == pool->arena)
        pool->arena = NULL;
    pa_arena_destroy(arena);
}

/* -- opening ---------------------------------------------------------------------------------- */

static void reset_private_state(Pool *pool)
{
    pool->lost = false;
    pool->spawner_pid = 0;
    pool->spawner_pidfd = -1;
    pool->spawner_not_before_ns = 0;
    pool->free_count = PA_NSLOTS;
    for (uint32_t i = 0; i < PA_NSLOTS; i++)
        pool->free_slots[i] = PA_NSLOTS - 1 - i;
    memset(pool->result_heads, 0, sizeof pool->result_heads);
    memset(pool->generations, 0, sizeof pool->generations);
    memset(&pool->lanes, 0, sizeof pool->lanes);
    for (uint32_t worker = 0; worker < PA_MAX_WORKERS; worker++)
        pool->pidfds[worker] = pool->pids[worker] = -1;
    memset(pool->last_pids, 0, sizeof pool->last_pids);
    pool->worker_limit = 0;
    pool->renewed = false;
    pool->asking = true;
    pool->rung = pool->somebody_sleeps = pool->lacks_spawner = pool->spawner_is_old = false;
    pool->followers = 0;
    deaths_forget(pool);
    pool->timer_ns = 0;
    memset(pool->condemned, 0, sizeof pool->condemned);
    memset(pool->wild, 0, sizeof pool->wild);
    memset(pool->at_once_tries, 0, sizeof pool->at_once_tries);
    pool->cached_fd = -1;
    uint32_t limit_ns = pool->setup.spin_limit_ns;
    pool->spin = (struct pa_spin){.limit_ns = limit_ns, .ns = limit_ns};
    enum { IN_A_TURN_NS = 10000 };
    limit_ns = limit_ns < IN_A_TURN_NS ? limit_ns : IN_A_TURN_NS;
    pool->turn_spin = (struct pa_spin){.limit_ns = limit_ns, .ns = limit_ns};
    pool->fork_count = fork_count;
}

/* Whether the number that poll_fileno had is still this pool's, and no other's. */
static bool is_kept(const Pool *pool, int fd)
{
    for (const Pool *other = open_pools; other; other = other->next_open)
        if (other != pool && other->epoll_fd == fd)
            return false;
    return pa_has_mark(fd, PA_MARK_SET);
}

/* In a forked child `fd` is the number that poll_fileno had before, and keeps if it can be had. */
int pool_open_descriptors(Pool *pool, int fd)
{
    pool->event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    pool->epoll_fd = -1;
    int error = pa_make_own(&pool->event_fd, PA_MARK_BELL);
    if (error)
        return error;
    int set = epoll_create1(EPOLL_CLOEXEC);
    error = pa_make_own(&set, PA_MARK_SET);
    if (error)
        return error;
    if (fd >= 0 && set != fd && (is_kept(pool, fd) || fcntl(fd, F_GETFD) < 0)) {
        int moved = dup3(set, fd, O_CLOEXEC);
        error = moved < 0 ? -errno : 0;
        close(set);
        set = moved;
    }
    pool->epoll_fd = set;
    struct epoll_event event = {.events = EPOLLIN | EPOLLET, .data.u64 = EVENT_BELL};
    if (!error && epoll_ctl(set, EPOLL_CTL_ADD, pool->event_fd, &event) < 0)
        error = -errno;
    return error;
}

static int map_region(Pool *pool)
{
    if (pool->region)
        return 0;
    void *region = mmap(NULL, 2 * PA_STACK_SIZE, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (region == MAP_FAILED)
        return -errno;
    pool->region = region;
    return 0;
}

void pool_close_descriptors(Pool *pool)
{
    pa_close_own(&pool->segment_fd, PA_MARK_SEGMENT);
    pa_close_own(&pool->event_fd, PA_MARK_BELL);
    pa_close_own(&pool->dead_fd, PA_MARK_DEAD);
    pa_close_own(&pool->timer_fd, PA_MARK_TIMER);
    pool->timer_ns = 0;
}

/* The reading end of a pipe that nobody writes to: what aio_close puts in the place of a foreign
 * file's descriptor. */
int pool_dead_fd(Pool *pool)
{
    int ends[2];
    if (pa_has_mark(pool->dead_fd, PA_MARK_DEAD))
        return pool->dead_fd;
    if (pipe2(ends, O_CLOEXEC) < 0) {
        PyErr_SetFromErrno(PyExc_OSError);
        return -1;
    }
    close(ends[1]);
    int error = pa_make_own(&ends[0], PA_MARK_DEAD);
    if (error) {
        errno = -error;
        PyErr_SetFromErrno(PyExc_OSError);
    }
    return pool->dead_fd = ends[0];
}

static void close_set(Pool *pool)
{
    if (is_kept(pool, pool->epoll_fd))
        close(pool->epoll_fd);
    pool->epoll_fd = -1;
}

static void give_back(Pool *pool)
{
    struct pa_segment *segment = pool->segment;
    pool->segment = NULL;
    if (segment)
        pa_segment_unmap(segment);
    pool_close_descriptors(pool);
    if (pool->region)
        munmap(pool->region, 2 * PA_STACK_SIZE);
    pool->region = NULL;
}

/* What the program has said there is said again, in case somebody has written over it. */
void pool_write_header(Pool *pool)
{
    struct pa_header *header = &pool->segment->header;
    header->setup = pool->setup;
    atomic_store(&header->identity, pool->identity);
    atomic_store(&header->wanted, pool->wanted);
    atomic_store(&header->max_idle, pool->max_idle);
    atomic_store(&header->idle_timeout_ms, pool->idle_timeout_ms);
}

/* One is worth another worker before anybody has measured how long it takes. */
static void expect_chunks(struct pa_segment *segment)
{
    for (int op = PA_OP_STAT_MANY; op <= PA_OP_LOAD_MANY; op++)
        atomic_store(&segment->header.op_ns[op], CHUNK_NS);
}

PyObject *pool_open(Pool *pool, PyObject *args)
{
    int segment_fd, cores, is_inline;
    unsigned int workers, max_idle, idle_timeout_ms;
    unsigned long long title_at, title_size;
    PyObject *source;
    if (!PyArg_ParseTuple(args, "iipIIIKKO:_open", &segment_fd, &cores, &is_inline, &workers,
                          &max_idle, &idle_timeout_ms, &title_at, &title_size, &source))
        return NULL;
    int kept_fd = pool->epoll_fd; /* from before a fork */
    pool->segment_fd = segment_fd; /* ours from here on */
    int error = pa_make_own(&pool->segment_fd, PA_MARK_SEGMENT);
    if (!error)
        error = pa_segment_map(pool->segment_fd, &pool->segment);
    if (error) { /* Python may try again with other memory: poll_fileno keeps its number */
        pa_close_own(&pool->segment_fd, PA_MARK_SEGMENT);
        errno = -error;
        return PyErr_SetFromErrno(PyExc_OSError);
    }
    pa_segment_init(pool->segment, (uint32_t)(cores > 0 ? cores : 1));
    error = pool_open_descriptors(pool, kept_fd);
    if (!error)
        error = map_region(pool);
    Py_XSETREF(pool->source, Py_NewRef(source));
    if (!error) {
        struct pa_header *header = &pool->segment->header;
        pool->arena = pa_arena_new(header->data_segments, make_shared_memory, pool);
        error = pool->arena ? 0 : -ENOMEM;
        pool->setup = header->setup;
        pool->setup.segment_fd = pool->segment_fd;
        pool->setup.event_fd = pool->event_fd;
        pool->setup.epoll_fd = pool->epoll_fd;
        pool->setup.title_at = title_at;
        pool->setup.title_size = title_size;
        pool->identity = identity_number;
        pool->wanted = workers;
        pool->max_idle = max_idle;
        pool->idle_timeout_ms = idle_timeout_ms;
        pool_write_header(pool);
        expect_chunks(pool->segment);
    }
    if (error) {
        give_back(pool);
        close_set(pool);
        errno = -error;
        return PyErr_SetFromErrno(PyExc_OSError);
    }
    pool->is_inline = is_inline;
    pool->closed = false;
    reset_private_state(pool);
    pool->next_open = open_pools;
    open_pools = pool;
    Py_RETURN_NONE;
}

/* -- closing ---------------------------------------------------------------------------------- */

static void let_arena_go(Pool *pool)
{
    if (!pool->arena)
        return;
    pa_arena_detach(pool->arena);
    if (pa_arena_is_idle(pool->arena)) {
        pa_arena_destroy(pool->arena);
        pool->arena = NULL;
    }
}

/* `_kill(errno)`: end every process now; what has not ended fails with the errno. */
PyObject *pool_kill(Pool *pool, PyObject *args)
{
    int error;
    if (!PyArg_ParseTuple(args, "i:_kill", &error))
        return NULL;
    if (!pool->segment || pool->fork_count != fork_count)
        Py_RETURN_NONE;
    if (lost_anything(pool))
        lost_give_up(pool);
    pool->closed = true;
    if (!pool->segment)
        Py_RETURN_NONE;
    pool_end_children(pool);
    queue_harvest(pool);
    memory_forget(pool);
    queue_fail_all(pool, error);
    orphans_sweep(pool);
    Py_RETURN_NONE;
}

/* All but poll_fileno, whose number may be needed again. */
bool pool_release_segment(Pool *pool)
{
    struct pa_segment *segment = pool->segment;
    while (pool->segment == segment && (pool->somebody_sleeps || pool->followers > 0)) {
        poll_tell_others(pool);
        Py_BEGIN_ALLOW_THREADS
        syscall(SYS_sched_yield);
        Py_END_ALLOW_THREADS
    }
    if (pool->segment != segment) /* another thread was quicker */
        return true;
    if (!pool->closed && pool->nreqs > 0)
        return false;
    struct queue dead = {.first = NULL};
    queue_abandon(pool, &dead);
    take_off_list(pool); /* nothing of it is on its way any more */
    orphans_sweep(pool);
    let_arena_go(pool);
    give_back(pool);
    queue_let_go(&dead);
    deaths_forget(pool);
    Py_CLEAR(pool->loop);
    return true;
}

/* `_release()`: the segment and the descriptors, after `_kill`. */
PyObject *pool_release(Pool *pool, PyObject *unused)
{
    (void)unused;
    if (pool->fork_count != fork_count)
        Py_RETURN_NONE;
    if (pool->segment)
        pool_release_segment(pool);
    close_set(pool);
    Py_RETURN_NONE;
}

static bool opens_something(const Pool *pool)
{
    for (uint32_t index = 0; index < PA_NSLOTS; index++)
        if (pool->in_flight[index] && pa_ops[pool->in_flight[index]->op].opens)
            return true;
    return false;
}

/* In a forked child: let go of what is the parent's.  Data segments are replaced by zeroes before
 * anything is freed, so that nothing here can reach the parent's data; poll_fileno keeps its number
 * for the child's pool. */
PyObject *pool_abandon(Pool *pool, PyObject *unused)
{
    (void)unused;
    if (pool->fork_count == fork_count)
        Py_RETURN_NONE;
    if (!pool->segment) { /* closed, but a Buffer has outlived it */
        if (pool->arena)
            pa_arena_abandon(pool->arena);
        pool->arena = NULL;
        Py_RETURN_NONE;
    }
    struct pa_segment *segment = pool->segment;
    pool_know_workers(pool);
    for (uint32_t worker = 0; worker < PA_MAX_WORKERS; worker++) /* one may be younger than the fork */
        if (pool->pidfds[worker] >= 0 &&
            pool_is_pidfd_of(pool->pidfds[worker], pool->pids[worker]))
            close(pool->pidfds[worker]);
    bool opens = opens_something(pool);
    pool->jobs_done = NULL; /* few, small, and perhaps in a thread's hands when the fork came */
    atomic_store(&pool->jobs_done_count, 0);
    if (pool->arena) /* before anything is freed: it is freed here, and nowhere else */
        pa_arena_abandon(pool->arena);
    struct queue dead = {.first = NULL};
    queue_abandon(pool, &dead);
    let_arena_go(pool);
    pool->arena = NULL; /* what Buffers still have of it they keep: see buffer.c */
    pa_segment_unmap(segment);
    pool->segment = NULL;
    take_off_list(pool);
    pool_close_descriptors(pool);
    if (pool->spawner_pidfd >= 0 && pool_is_pidfd_of(pool->spawner_pidfd, pool->spawner_pid))
        close(pool->spawner_pidfd);
    pool->spawner_pidfd = -1;
    pool->region = NULL; /* the parent's stacks: private memory, and only a few pages of it */
    if (opens)
        orphans_after_fork();
    queue_let_go(&dead);
    Py_CLEAR(pool->loop);
    Py_RETURN_NONE;
}

/* `_disown()`: in a forked child that has not used the pool since: there is nothing to wait for, it
 * is just gone.  False where the pool is this process's own. */
PyObject *pool_disown(Pool *pool, PyObject *unused)
{
    if (pool->closed || pool->fork_count == fork_count)
        Py_RETURN_FALSE;
    pool->closed = true;
    Py_XDECREF(pool_abandon(pool, unused));
    close_set(pool);
    Py_RETURN_TRUE;
}

/* The object goes. */
void pool_end(Pool *pool)
{
    if (pool->segment && pool->fork_count == fork_count) { /* lost without close() */
        pool->closed = true;
        pool->lost = pool->lost || lost_anything(pool);
        pool_end_children(pool);
        memory_forget(pool);
        Py_XDECREF(pool_release(pool, NULL));
    }
    if (pool->arena && pool->fork_count != fork_count)
        pa_arena_abandon(pool->arena);
    if (pool->arena)
        pa_arena_destroy(pool->arena);
    take_off_list(pool);
    close_set(pool);
}

/* -- the module's view ------------------------------------------------------------------------ */

int pool_check(Pool *pool)
{
    if (unlikely(pool->fork_count != fork_count || (pool->lost && !pool->segment)) &&
        !pool->closed) {
        PyObject *done = PyObject_CallMethod((PyObject *)pool, "_reopen", NULL);
        if (!done)
            return -1;
        Py_DECREF(done);
    }
    if (likely(pool->segment && !pool->closed))
        return 0;
    PyErr_SetString(hooks.PoolClosed, "the pool is closed");
    return -1;
}

Pool *pool_of(PyObject *given)
{
    PyObject *pool = given;
    if (!given || given == Py_None) {
        if (unlikely(!hooks.default_pool || ((Pool *)hooks.default_pool)->closed)) {
            PyObject *made = hooks.make_default ? PyObject_CallNoArgs(hooks.make_default) : NULL;
            if (!made)
                return NULL;
            Py_DECREF(made); /* it has set the hook, which keeps it */
        }
        pool = hooks.default_pool;
    } else if (!PyObject_TypeCheck(given, Pool_Type)) {
        PyErr_Format(PyExc_TypeError, "pool must be a procaio.Pool or None, not %.100s",
                     Py_TYPE(given)->tp_name);
        return NULL;
    }
    return pool_check((Pool *)pool) < 0 ? NULL : (Pool *)pool;
}
