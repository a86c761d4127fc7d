/* procaio/csrc/pool.c - the pool's life: made, started, looked after, closed, abandoned in a child.
 *
 * Policy is in Python (procaio/_pool.py); here is what touches the segment and the processes.
 */
#include <dirent.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "core.h"

#ifndef P_PIDFD
#define P_PIDFD 3
#endif

/* What an event of the descriptor's set says: the number of a worker, or one of these. */
#define EVENT_BELL UINT64_MAX
#define EVENT_SPAWNER (UINT64_MAX - 1)
#define RETRY_NS 20000000
#define DEATH_LOOK_MS 10

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
    if (!pool->arena)
        return -EBADF;
    return pa_arena_alloc(pool->arena, size, reserved, block);
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
    pool->worker_limit = 0;
    pool->renewed = false;
    pool->asking = true;
    pool->rung = pool->somebody_sleeps = pool->lacks_spawner = pool->spawner_is_old = false;
    pool->followers = 0;
    deaths_forget(pool);
    pool->timer_ns = 0;
    memset(pool->condemned, 0, sizeof pool->condemned);
    memset(pool->wild, 0, sizeof pool->wild);
    pool->at_once_skip = pool->at_once_pause = 0;
    uint32_t limit_ns = pool->setup.spin_limit_ns;
    pool->spin = (struct pa_spin){.limit_ns = limit_ns, .ns = limit_ns};
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
static void write_header(Pool *pool)
{
    struct pa_header *header = &pool->segment->header;
    header->setup = pool->setup;
    atomic_store(&header->identity, pool->identity);
    atomic_store(&header->wanted, pool->wanted);
    atomic_store(&header->max_idle, pool->max_idle);
    atomic_store(&header->idle_timeout_ms, pool->idle_timeout_ms);
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
        write_header(pool);
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

/* -- children --------------------------------------------------------------------------------- */

/* Nothing is started now: see pools_clear(). */
static uint32_t clearing;

/* Too many processes or descriptors, or too little memory; or it has died too often.  Requests wait. */
static void try_spawner_at(Pool *pool, uint64_t ns)
{
    pool->lacks_spawner = true;
    if (timer_set(pool, ns) < 0)
        poll_kick(pool); /* no timer either: whoever polls tries again at once */
}

int pool_ensure_spawner(Pool *pool)
{
    if (likely(pool->spawner_pid > 0) || pool->is_inline || pool->lost ||
        clearing > 0)
        return 0;
    if (unlikely(pool->spawner_not_before_ns > 0) && pa_now_ns() < pool->spawner_not_before_ns) {
        try_spawner_at(pool, pool->spawner_not_before_ns);
        return 0;
    }
    identity_look(); /* it gets the rights that this thread has, and what it is known for */
    int pidfd;
    write_header(pool);
    atomic_store(&pool->segment->header.shutdown, 0);
    int pid = pa_spawner_start(pool->segment, pool->region, &pool->setup, pool->identity, &pidfd);
    if (pid == -EAGAIN || pid == -ENOMEM || pid == -EMFILE || pid == -ENFILE) {
        try_spawner_at(pool, pa_now_ns() + RETRY_NS);
        return 0;
    }
    if (pid < 0) {
        errno = -pid;
        PyErr_SetFromErrno(PyExc_OSError);
        return -1;
    }
    pool->lacks_spawner = pool->spawner_is_old = false;
    pool->spawner_pid = pid;
    pool->spawner_pidfd = pa_above_streams(pidfd);
    struct epoll_event event = {.events = EPOLLIN, .data.u64 = EVENT_SPAWNER};
    epoll_ctl(pool->epoll_fd, EPOLL_CTL_ADD, pool->spawner_pidfd, &event);
    return 0;
}

static FILE *open_fdinfo(int fd)
{
    char path[64];
    snprintf(path, sizeof path, "/proc/self/fdinfo/%d", fd);
    return fopen(path, "re");
}

enum { REAPED = -1, UNTOLD = -2 };

/* Of a pidfd; 0: it is none. */
static int pid_of(int pidfd)
{
    char line[256];
    int pid = 0;
    FILE *info = open_fdinfo(pidfd);
    if (!info) /* no /proc here, or no descriptor left to look with */
        return fcntl(pidfd, F_GETFD) < 0 ? 0 : UNTOLD;
    while (pid == 0 && fgets(line, sizeof line, info))
        if (sscanf(line, "Pid: %d", &pid) != 1)
            pid = 0;
    fclose(info);
    return pid;
}

/* Whether it is a pidfd at all, of that process or of one that was reaped.  What cannot be looked at
 * is believed. */
bool pool_is_pidfd_of(int fd, int pid)
{
    int found = pid_of(fd);
    return found != 0 && (found == pid || found == REAPED || found == UNTOLD);
}

/* True once the process has ended; it is reaped.  `exitcode`: 0 if it has left as it should, the
 * negated number of the signal that has ended it.  The program's own children are cloned otherwise:
 * whatever descriptor has the number by now, none of them is reaped. */
static bool reap(int pidfd, int pid, int *exitcode)
{
    siginfo_t info = {.si_pid = 0};
    int failed = waitid((idtype_t)P_PIDFD, (id_t)pidfd, &info, (int)(WEXITED | WNOHANG | __WCLONE));
    *exitcode = failed                        ? EXITCODE_UNKNOWN
                : info.si_code == CLD_EXITED ? info.si_status
                                             : -info.si_status;
    if (failed && errno == ECHILD) /* the program's own waitpid(-1, __WALL) was first */
        failed = !pool_is_pidfd_of(pidfd, pid);
    else if (!failed)
        failed = info.si_pid == 0;
    return !failed;
}

/* It was reaped.  A copy of the descriptor may be in another process, so closing it is not enough. */
static void drop_pidfd(const Pool *pool, int pidfd)
{
    if (pa_has_mark(pool->epoll_fd, PA_MARK_SET))
        epoll_ctl(pool->epoll_fd, EPOLL_CTL_DEL, pidfd, NULL);
    close(pidfd);
}

/* Whether it is the pid, or a pidfd, of a child that was cloned as ours are; it is not reaped. */
static bool is_our_child(int kind, int id)
{
    siginfo_t info;
    int flags = (int)(WEXITED | WNOHANG | WNOWAIT | __WCLONE);
    return id >= (kind == P_PID) && waitid((idtype_t)kind, (id_t)id, &info, flags) == 0;
}

bool pool_is_our_child(int pidfd)
{
    return is_our_child(P_PIDFD, pidfd);
}

/* -- which worker is which ----------------------------------------------------------------------- */

/* The number of a pidfd in a worker's record is not trusted, since anybody can write there: what is
 * killed or closed by it might be somebody else's.  But every worker's spawner has entered it into
 * the pool's set, of which the kernel tells what it holds. */
void pool_know_workers(Pool *pool)
{
    char line[256];
    int pidfd;
    unsigned long long data;
    FILE *set = open_fdinfo(pool->epoll_fd);
    while (set && fgets(line, sizeof line, set)) {
        if (sscanf(line, "tfd: %d events: %*x data: %llx", &pidfd, &data) != 2)
            continue;
        uint32_t worker = (uint32_t)data;
        if (worker >= PA_MAX_WORKERS || data != PA_EVENT_OF(worker, pidfd) ||
            pool->pidfds[worker] == pidfd)
            continue;
        pool->pidfds[worker] = pidfd;
        pool->pids[worker] = pid_of(pidfd);
    }
    if (set)
        fclose(set);
}

/* Of any pool. */
static bool is_known(int pidfd)
{
    for (Pool *pool = open_pools; pool; pool = pool->next_open) {
        if (pool->fork_count != fork_count)
            continue;
        pool_know_workers(pool);
        bool known = pidfd == pool->spawner_pidfd;
        for (uint32_t worker = 0; worker < PA_MAX_WORKERS; worker++)
            known = known || pool->pidfds[worker] == pidfd;
        if (known)
            return true;
    }
    return false;
}

/* One that is not in the set yet, or no descriptor is left to look into it with: what the record says
 * will do if it can be meant.  Else it is what is known by now: is_known() has looked again. */
static int pidfd_if_known(Pool *pool, uint32_t worker)
{
    int pidfd = atomic_load(&pool->segment->workers[worker].pidfd);
    if (pool->pidfds[worker] < 0 && is_our_child(P_PIDFD, pidfd) && !is_known(pidfd))
        return pidfd;
    return pool->pidfds[worker];
}

/* What waits for a worker's end has to know whom it waits for. */
static int learn_pid(Pool *pool, uint32_t worker, int pidfd)
{
    if (pool->pids[worker] <= 0)
        pool->pids[worker] = pid_of(pidfd);
    return pool->pids[worker];
}

static int pidfd_of(Pool *pool, uint32_t worker)
{
    if (pool->pidfds[worker] < 0)
        pool_know_workers(pool);
    return pidfd_if_known(pool, worker);
}

int pool_pid_of(Pool *pool, uint32_t worker)
{
    if (pool->pids[worker] > 0)
        return pool->pids[worker];
    int pid = atomic_load(&pool->segment->workers[worker].pid);
    return is_our_child(P_PID, pid) ? pid : 0;
}

static int watch_worker(Pool *pool, int how, uint32_t worker, int pidfd)
{
    struct epoll_event event = {.events = EPOLLIN, .data.u64 = PA_EVENT_OF(worker, pidfd)};
    if (!pa_has_mark(pool->epoll_fd, PA_MARK_SET))
        return -1;
    return epoll_ctl(pool->epoll_fd, how, pidfd, &event);
}

/* -- the dead ------------------------------------------------------------------------------------ */

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

/* Who dies again and again is replaced after growing pauses: not before the time that this gives. */
static uint64_t pause_after_death(Pool *pool, int exitcode)
{
    deaths_count(pool, exitcode);
    uint32_t step = pool->deaths_in_a_row - 1;
    if (step < 4)
        return 0;
    uint64_t pause_ms = step < 14 ? UINT64_C(1) << (step - 4) : 1000;
    return pa_now_ns() + pause_ms * 1000000;
}

/* Whoever has died may have been waking a worker.  It may have taken the sleeper's bit and not rung
 * its bell: all bells are rung.  Or it saw the bit of a worker that was buried meanwhile, and took a
 * permit for it: the number is vacant by now, so nobody else gives that permit back. */
static void end_its_wakings(struct pa_segment *segment)
{
    struct pa_header *header = &segment->header;
    for (uint32_t permit = 0; permit < PA_MAX_PERMITS; permit++) {
        uint32_t holder = atomic_load(&header->permits[permit]);
        if (holder > 0 && holder <= PA_MAX_WORKERS &&
            atomic_load(&segment->workers[holder - 1].life) == PA_VACANT)
            pa_permit_revoke(segment, permit, holder - 1);
    }
    pa_wake_all(segment);
}

static void kill_child(int pidfd)
{
    if (pool_is_our_child(pidfd))
        syscall(SYS_pidfd_send_signal, pidfd, SIGKILL, NULL, 0);
}

/* End a worker for the sake of the request that it executes; another one may be started at once. */
void pool_condemn(Pool *pool, uint32_t worker)
{
    struct pa_worker *record = &pool->segment->workers[worker];
    pool->condemned[worker / 64] |= UINT64_C(1) << worker % 64;
    pool->totals.aborted++;
    atomic_store_explicit(&record->life, PA_RETIRED, memory_order_release);
    kill_child(pidfd_of(pool, worker));
    if (!pa_lanes_empty(pool->segment))
        pa_monitor_ring(pool->segment);
}

bool pool_is_wild(const Pool *pool, uint32_t worker)
{
    return pool->wild[worker / 64] & UINT64_C(1) << worker % 64;
}

bool pool_has_wild(const Pool *pool)
{
    for (size_t i = 0; i < sizeof pool->wild / sizeof pool->wild[0]; i++)
        if (pool->wild[i])
            return true;
    return false;
}

/* It has written what no worker of ours writes, or may have: it is ended, and another one started. */
void pool_distrust(Pool *pool, uint32_t worker)
{
    int pidfd = pidfd_of(pool, worker);
    if (pool_is_wild(pool, worker))
        return;
    if (pidfd < 0) { /* there is none: somebody else has written into its place */
        atomic_store(&pool->segment->workers[worker].result_tail, pool->result_heads[worker]);
        return;
    }
    pool->wild[worker / 64] |= UINT64_C(1) << worker % 64;
    orphans_hunt();
    write_header(pool);
    kill_child(pidfd);
}

/* Nothing has happened for long. */
void pool_mend(Pool *pool)
{
    pool_know_workers(pool);
    write_header(pool);
}

void pool_distrust_all(Pool *pool, const uint64_t except[PA_MAX_WORKERS / 64])
{
    pool_know_workers(pool);
    for (uint32_t worker = 0; worker < PA_MAX_WORKERS; worker++)
        if (pool->pidfds[worker] >= 0 && !(except[worker / 64] & UINT64_C(1) << worker % 64))
            pool_distrust(pool, worker);
}

/* Whether it was we who wanted that. */
static bool was_condemned(Pool *pool, uint32_t worker)
{
    uint64_t bit = UINT64_C(1) << worker % 64;
    bool was = pool->condemned[worker / 64] & bit;
    pool->condemned[worker / 64] &= ~bit;
    return was;
}

/* `pidfd` is what the event said: that may be older than the burial. */
static bool bury_worker(Pool *pool, uint32_t worker, int pidfd)
{
    struct pa_segment *segment = pool->segment;
    struct pa_worker *record = &segment->workers[worker];
    int exitcode;
    if (watch_worker(pool, EPOLL_CTL_MOD, worker, pidfd) < 0 ||
        !reap(pidfd, learn_pid(pool, worker, pidfd), &exitcode))
        return false;
    drop_pidfd(pool, pidfd);
    bool by_us = was_condemned(pool, worker), has_died = exitcode != 0 && !by_us;
    if (pool_is_wild(pool, worker)) /* its records may say nothing of what it has open */
        orphans_hunt();
    pool->wild[worker / 64] &= ~(UINT64_C(1) << worker % 64);
    if (exitcode != 0)
        orphans_look_for(pool, worker);
    if (has_died) {
        pool->totals.worker_deaths++;
        deaths_note(pool, worker, exitcode);
    }
    pool->pidfds[worker] = pool->pids[worker] = -1;
    queue_worker_ended(pool, worker);
    /* What it held of the common good goes back; only then may its number be used again.  Its bit
     * first: while it stands, somebody may give it another permit and ring for it. */
    uint32_t dead = worker + 1;
    atomic_compare_exchange_strong(&segment->header.spinner, &dead, 0);
    pa_sleeper_remove(segment, worker);
    pa_permits_return(segment, worker);
    atomic_store_explicit(&record->pidfd, -1, memory_order_relaxed);
    atomic_store_explicit(&record->life, PA_VACANT, memory_order_release);
    if (has_died)
        atomic_store_explicit(&segment->header.start_not_before_ns,
                              pause_after_death(pool, exitcode), memory_order_relaxed);
    end_its_wakings(segment);
    return true;
}

/* The spawner is dead.  It may have been about to make a worker: then the record says so, but there
 * is no process.  Or it had made one, whose pidfd the kernel has put into the record (spawner.c),
 * but had not entered it into the set. */
static void adopt_workers(Pool *pool)
{
    struct pa_segment *segment = pool->segment;
    pool_know_workers(pool);
    for (uint32_t worker = 0; worker < PA_MAX_WORKERS; worker++) {
        struct pa_worker *record = &segment->workers[worker];
        uint32_t life = atomic_load(&record->life);
        if (life == PA_VACANT || pool->pidfds[worker] >= 0)
            continue;
        int pidfd = atomic_load(&record->pidfd);
        bool is_ours = is_our_child(P_PIDFD, pidfd) || (pidfd >= 0 && pid_of(pidfd) == REAPED);
        if (is_ours && !is_known(pidfd)) {
            watch_worker(pool, EPOLL_CTL_ADD, worker, pidfd);
        } else if (life == PA_STARTING && atomic_load(&record->pid) == 0) {
            pa_permits_return(segment, worker);
            atomic_store(&record->pidfd, -1);
            atomic_store(&record->life, PA_VACANT);
        }
    }
}

static bool bury_spawner(Pool *pool)
{
    int exitcode;
    if (pool->spawner_pidfd < 0 || !reap(pool->spawner_pidfd, pool->spawner_pid, &exitcode))
        return false;
    drop_pidfd(pool, pool->spawner_pidfd);
    orphans_of_spawner(pool, pool->spawner_pid);
    pool->spawner_pidfd = -1;
    pool->spawner_pid = 0;
    pool->spawner_is_old = false;
    pool->totals.spawner_deaths += exitcode != 0;
    pool->spawner_not_before_ns = exitcode != 0 ? pause_after_death(pool, exitcode) : 0;
    adopt_workers(pool);
    atomic_store(&pool->segment->header.monitor_asleep, 0);
    end_its_wakings(pool->segment);
    if (!pool->closed && pool_ensure_spawner(pool) < 0)
        PyErr_WriteUnraisable((PyObject *)pool);
    return true;
}

static void try_again(Pool *pool)
{
    if (pool->lacks_spawner && !pool->closed && pool_ensure_spawner(pool) < 0)
        PyErr_WriteUnraisable((PyObject *)pool);
}

/* True when somebody was buried. */
bool pool_handle_events(Pool *pool, const struct epoll_event *events, int count)
{
    bool buried = false;
    for (int i = 0; i < count; i++) {
        uint64_t what = events[i].data.u64;
        if (what == EVENT_SPAWNER)
            buried |= bury_spawner(pool);
        else if (what == PA_EVENT_TIMER) {
            timer_clear(pool);
            try_again(pool);
            deadlines_expire(pool);
        } else if (pool->lacks_spawner && pool->timer_fd < 0)
            try_again(pool);
        else if ((uint32_t)what < PA_MAX_WORKERS)
            buried |= bury_worker(pool, (uint32_t)what, (int)(what >> 32));
    }
    return buried;
}

/* Children of closed pools that did not die when they were killed: they wait for something in the
 * kernel.  Whoever closes or looks after a pool looks after them, too. */
static struct {
    int pidfds[PA_MAX_WORKERS];
    int pids[PA_MAX_WORKERS];
    int count;
} undead;

bool pool_some_cannot_die(void)
{
    return undead.count > 0;
}

static void bury_undead(void)
{
    int count = undead.count, exitcode;
    for (int i = undead.count; i-- > 0;)
        if (reap(undead.pidfds[i], undead.pids[i], &exitcode)) {
            close(undead.pidfds[i]);
            undead.pidfds[i] = undead.pidfds[--undead.count];
            undead.pids[i] = undead.pids[undead.count];
        }
    if (undead.count < count)
        orphans_hunt();
}

/* They are the parent's children. */
void pool_after_fork(void)
{
    clearing = 0;
    while (undead.count-- > 0)
        if (pool_is_pidfd_of(undead.pidfds[undead.count], undead.pids[undead.count]))
            close(undead.pidfds[undead.count]);
    undead.count = 0;
}

bool pool_look_after(Pool *pool)
{
    enum { MOST = 64 };
    struct epoll_event events[MOST];
    if (unlikely(undead.count > 0))
        bury_undead();
    if (unlikely(lost_anything(pool))) {
        lost_give_up(pool);
        return true;
    }
    int count = epoll_wait(pool->epoll_fd, events, MOST, 0);
    return pool_handle_events(pool, events, count);
}

/* Waits until it is dead, if it can die: one that is still blocked at that time cannot, one that
 * runs, or would run if there were a processor for it, can. */
static bool await_death(int pidfd, int pid, uint64_t until_ns)
{
    struct pollfd dead = {.fd = pidfd, .events = POLLIN};
    bool is_dead;
    Py_BEGIN_ALLOW_THREADS
    while (!(is_dead = poll(&dead, 1, DEATH_LOOK_MS) > 0))
        if (pa_now_ns() >= until_ns && pa_is_blocked(pid))
            break;
    Py_END_ALLOW_THREADS
    return is_dead;
}

/* It was told to leave, or killed. */
static void end_child(int pidfd, int pid, uint64_t until_ns)
{
    int exitcode;
    await_death(pidfd, pid, until_ns);
    bool reaped = reap(pidfd, pid, &exitcode);
    if (!reaped && !pool_is_pidfd_of(pidfd, pid))
        return;
    if (reaped || undead.count == PA_MAX_WORKERS) {
        close(pidfd);
        return;
    }
    undead.pidfds[undead.count] = pidfd;
    undead.pids[undead.count++] = pid;
}

/* It was told to leave, or killed. */
static void end_spawner(Pool *pool, uint64_t until_ns)
{
    struct pa_segment *segment = pool->segment;
    int spawner = pool->spawner_pidfd, pid = pool->spawner_pid;
    if (spawner < 0)
        return;
    pool->spawner_pidfd = -1; /* before other threads get their turn */
    if (pa_has_mark(pool->epoll_fd, PA_MARK_SET))
        epoll_ctl(pool->epoll_fd, EPOLL_CTL_DEL, spawner, NULL);
    if (!await_death(spawner, pid, until_ns)) /* stopped, perhaps, with a worker half made */
        kill_child(spawner);
    end_child(spawner, pid, until_ns + PA_DEATH_NS);
    if (pool->segment != segment)
        return;
    pool->spawner_pid = 0;
    orphans_of_spawner(pool, pid);
    adopt_workers(pool);
    atomic_store(&segment->header.monitor_asleep, 0);
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
    end_spawner(pool, pa_now_ns() + PA_DEATH_NS);
    if (pool->segment == segment)
        end_its_wakings(segment);
}

void pool_renew(Pool *pool)
{
    Py_INCREF((PyObject *)pool);
    replace_spawner(pool);
    if (pool->segment && !pool->closed && pool->nreqs > 0 && pool_ensure_spawner(pool) < 0)
        PyErr_WriteUnraisable((PyObject *)pool);
    Py_DECREF((PyObject *)pool);
}

/* -- clearing --------------------------------------------------------------------------------- */

static bool has_processes(Pool *pool)
{
    bool any = pool->spawner_pidfd >= 0;
    pool_know_workers(pool);
    for (uint32_t worker = 0; worker < PA_MAX_WORKERS && !any; worker++)
        any = pidfd_if_known(pool, worker) >= 0;
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
        int pidfd = pidfd_if_known(pool, worker);
        if (pidfd < 0)
            continue;
        await_death(pidfd, learn_pid(pool, worker, pidfd), until_ns);
        if (pool->segment != segment)
            return false;
        bury_worker(pool, worker, pidfd);
    }
    return true;
}

static void kill_workers(Pool *pool)
{
    for (uint32_t worker = 0; worker < PA_MAX_WORKERS; worker++) {
        int pidfd = pidfd_if_known(pool, worker);
        if (pidfd < 0)
            continue;
        pool->condemned[worker / 64] |= UINT64_C(1) << worker % 64;
        kill_child(pidfd);
    }
}

static void pool_clear(Pool *pool, bool patiently)
{
    struct pa_segment *segment = pool->segment;
    uint64_t until_ns = pa_now_ns() + PA_DEATH_NS;
    if (patiently)
        pool_tell_identity(pool, ++identity_number);
    else if (pool->spawner_pidfd >= 0)
        kill_child(pool->spawner_pidfd);
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
            try_spawner_at(pool, pa_now_ns() + RETRY_NS);
        }
    PyErr_Restore(type, value, traceback);
}

/* -- closing ---------------------------------------------------------------------------------- */

/* The workers hold nothing that their death could hurt: requests have ended or are given up.  If
 * other threads have closed the pool meanwhile, all is done. */
void pool_end_children(Pool *pool)
{
    struct pa_segment *segment = pool->segment;
    uint64_t until_ns = pa_now_ns() + PA_DEATH_NS;
    atomic_store(&segment->header.shutdown, 1);
    pa_wake_all(segment);
    if (pool->lost)
        lost_find_spawner(pool);
    if (pool->spawner_pidfd >= 0) { /* first, so that nobody is born meanwhile */
        kill_child(pool->spawner_pidfd);
        end_spawner(pool, until_ns);
        if (pool->segment != segment)
            return;
    }
    if (pool->lost)
        lost_find_workers(pool);
    else
        pool_know_workers(pool);
    int pidfds[PA_MAX_WORKERS];
    for (uint32_t worker = 0; worker < PA_MAX_WORKERS; worker++) {
        pidfds[worker] = pidfd_if_known(pool, worker);
        if (pidfds[worker] >= 0)
            kill_child(pidfds[worker]);
    }
    for (uint32_t worker = 0; worker < PA_MAX_WORKERS && pool->segment == segment; worker++) {
        int pidfd = pidfds[worker];
        pool->pidfds[worker] = -1;
        atomic_store(&segment->workers[worker].pidfd, -1);
        if (pidfd >= 0) {
            end_child(pidfd, learn_pid(pool, worker, pidfd), until_ns);
            if (pool->segment != segment)
                return;
            if (pool_is_wild(pool, worker))
                orphans_hunt();
            else
                orphans_look_for(pool, worker);
        }
    }
    bury_undead();
}

static void let_arena_go(Pool *pool)
{
    if (!pool->arena)
        return;
    pa_arena_detach(pool->arena);
    if (pa_arena_used(pool->arena) == 0) {
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
    while (pool->somebody_sleeps || pool->followers > 0) {
        poll_tell_others(pool);
        Py_BEGIN_ALLOW_THREADS
        syscall(SYS_sched_yield);
        Py_END_ALLOW_THREADS
    }
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
