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
    pool->spawner_pid = 0;
    pool->spawner_pidfd = -1;
    pool->free_count = PA_NSLOTS;
    for (uint32_t i = 0; i < PA_NSLOTS; i++)
        pool->free_slots[i] = PA_NSLOTS - 1 - i;
    memset(pool->result_heads, 0, sizeof pool->result_heads);
    memset(pool->generations, 0, sizeof pool->generations);
    memset(&pool->lanes, 0, sizeof pool->lanes);
    for (uint32_t worker = 0; worker < PA_MAX_WORKERS; worker++)
        pool->pidfds[worker] = pool->pids[worker] = -1;
    pool->worker_limit = 0;
    pool->renewed = pool->lags = false;
    pool->asking = true;
    pool->rung = pool->somebody_sleeps = pool->lacks_spawner = false;
    pool->followers = 0;
    pool->deaths_in_a_row = 0;
    pool->timer_ns = 0;
    memset(pool->condemned, 0, sizeof pool->condemned);
    memset(pool->wild, 0, sizeof pool->wild);
    pool->at_once_skip = pool->at_once_pause = 0;
    uint32_t limit_ns = pool->setup.spin_limit_ns;
    pool->spin = (struct pa_spin){.limit_ns = limit_ns, .ns = limit_ns};
    pool->fork_count = fork_count;
}

/* The descriptors; in a forked child `fd` is the number that poll_fileno had before. */
static int open_descriptors(Pool *pool, int fd)
{
    pool->event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    int set = epoll_create1(EPOLL_CLOEXEC);
    if (set >= 0 && fd >= 0 && set != fd) {
        int moved = dup3(set, fd, O_CLOEXEC);
        close(set);
        set = moved;
    }
    pool->epoll_fd = set;
    struct epoll_event event = {.events = EPOLLIN | EPOLLET, .data.u64 = EVENT_BELL};
    if (pool->event_fd < 0 || set < 0 ||
        epoll_ctl(set, EPOLL_CTL_ADD, pool->event_fd, &event) < 0)
        return -errno;
    return 0;
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

static void close_fd(int *fd)
{
    if (*fd >= 0)
        close(*fd);
    *fd = -1;
}

static void give_back(Pool *pool)
{
    struct pa_segment *segment = pool->segment;
    pool->segment = NULL;
    if (segment)
        pa_segment_unmap(segment);
    close_fd(&pool->segment_fd);
    close_fd(&pool->event_fd);
    close_fd(&pool->epoll_fd);
    close_fd(&pool->dead_fd);
    close_fd(&pool->timer_fd);
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
    int kept_fd = pool->fork_count != fork_count ? pool->epoll_fd : -1;
    pool->segment_fd = segment_fd; /* ours from here on */
    int error = pa_segment_map(segment_fd, &pool->segment);
    if (error) { /* Python may try again with other memory: poll_fileno keeps its number */
        close_fd(&pool->segment_fd);
        errno = -error;
        return PyErr_SetFromErrno(PyExc_OSError);
    }
    pa_segment_init(pool->segment, (uint32_t)(cores > 0 ? cores : 1));
    error = open_descriptors(pool, kept_fd);
    if (!error)
        error = map_region(pool);
    Py_XSETREF(pool->source, Py_NewRef(source));
    if (!error) {
        struct pa_header *header = &pool->segment->header;
        pool->arena = pa_arena_new(header->data_segments, make_shared_memory, pool);
        error = pool->arena ? 0 : -ENOMEM;
        pool->setup = header->setup;
        pool->setup.segment_fd = segment_fd;
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

/* Too many processes or descriptors, or too little memory: that may pass.  Requests wait. */
static void retry_soon(Pool *pool)
{
    pool->lacks_spawner = true;
    if (timer_set(pool, pa_now_ns() + RETRY_NS) < 0)
        poll_kick(pool); /* no timer either: whoever polls tries again at once */
}

int pool_ensure_spawner(Pool *pool)
{
    if (likely(pool->spawner_pid > 0) || pool->is_inline)
        return 0;
    int pidfd;
    write_header(pool);
    atomic_store(&pool->segment->header.shutdown, 0);
    int pid = pa_spawner_start(pool->segment, pool->region, &pool->setup, pool->identity, &pidfd);
    if (pid == -EAGAIN || pid == -ENOMEM || pid == -EMFILE || pid == -ENFILE) {
        retry_soon(pool);
        return 0;
    }
    if (pid < 0) {
        errno = -pid;
        PyErr_SetFromErrno(PyExc_OSError);
        return -1;
    }
    pool->lacks_spawner = false;
    pool->spawner_pid = pid;
    pool->spawner_pidfd = pidfd;
    struct epoll_event event = {.events = EPOLLIN, .data.u64 = EVENT_SPAWNER};
    epoll_ctl(pool->epoll_fd, EPOLL_CTL_ADD, pidfd, &event);
    return 0;
}

/* True once the process has ended; it is reaped.  `crashed`: not by leaving as it should.  What is no
 * child of the kind that ours are is neither reaped nor dead. */
static bool reap(int pidfd, bool *crashed)
{
    siginfo_t info = {.si_pid = 0};
    int flags = (int)(WEXITED | WNOHANG | __WCLONE);
    int failed = waitid((idtype_t)P_PIDFD, (id_t)pidfd, &info, flags);
    *crashed = failed || info.si_code != CLD_EXITED || info.si_status != 0;
    if (failed) /* the program's own waitpid(-1, __WALL) was first */
        return errno == ECHILD && syscall(SYS_pidfd_send_signal, pidfd, 0, NULL, 0) < 0 &&
               errno == ESRCH;
    return info.si_pid != 0;
}

/* Whether it is the pid, or a pidfd, of a child that was cloned as ours are; it is not reaped. */
static bool is_our_child(int kind, int id)
{
    siginfo_t info;
    int flags = (int)(WEXITED | WNOHANG | WNOWAIT | __WCLONE);
    return id >= (kind == P_PID) && waitid((idtype_t)kind, (id_t)id, &info, flags) == 0;
}

/* -- which worker is which ----------------------------------------------------------------------- */

static FILE *open_fdinfo(int fd)
{
    char path[64];
    snprintf(path, sizeof path, "/proc/self/fdinfo/%d", fd);
    return fopen(path, "re");
}

/* Of a pidfd; -1: it has been reaped, 0: it is no pidfd, or nobody can tell. */
static int pid_of(int pidfd)
{
    char line[256];
    int pid = 0;
    FILE *info = open_fdinfo(pidfd);
    while (info && pid == 0 && fgets(line, sizeof line, info))
        if (sscanf(line, "Pid: %d", &pid) != 1)
            pid = 0;
    if (info)
        fclose(info);
    return pid;
}

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
 * will do if it can be meant. */
static int pidfd_if_known(Pool *pool, uint32_t worker)
{
    if (pool->pidfds[worker] >= 0)
        return pool->pidfds[worker];
    int pidfd = atomic_load(&pool->segment->workers[worker].pidfd);
    return is_our_child(P_PIDFD, pidfd) && !is_known(pidfd) ? pidfd : -1;
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
    return epoll_ctl(pool->epoll_fd, how, pidfd, &event);
}

/* -- the dead ------------------------------------------------------------------------------------ */

/* The reading end of a pipe that nobody writes to: what aio_close puts in the place of a foreign
 * file's descriptor. */
int pool_dead_fd(Pool *pool)
{
    int ends[2];
    if (pool->dead_fd >= 0)
        return pool->dead_fd;
    if (pipe2(ends, O_CLOEXEC) < 0) {
        PyErr_SetFromErrno(PyExc_OSError);
        return -1;
    }
    close(ends[1]);
    return pool->dead_fd = ends[0];
}

/* A worker that dies again and again is replaced after growing pauses. */
static void slow_down(Pool *pool)
{
    struct pa_header *header = &pool->segment->header;
    uint32_t step = pool->deaths_in_a_row++;
    if (step < 4)
        return;
    uint64_t pause_ms = step < 14 ? UINT64_C(1) << (step - 4) : 1000;
    atomic_store_explicit(&header->start_not_before_ns, pa_now_ns() + pause_ms * 1000000,
                          memory_order_relaxed);
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

/* End a worker for the sake of the request that it executes; another one may be started at once. */
void pool_condemn(Pool *pool, uint32_t worker)
{
    struct pa_worker *record = &pool->segment->workers[worker];
    pool->condemned[worker / 64] |= UINT64_C(1) << worker % 64;
    pool->totals.aborted++;
    atomic_store_explicit(&record->life, PA_RETIRED, memory_order_release);
    syscall(SYS_pidfd_send_signal, pidfd_of(pool, worker), SIGKILL, NULL, 0);
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
    syscall(SYS_pidfd_send_signal, pidfd, SIGKILL, NULL, 0);
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
    bool crashed;
    if (watch_worker(pool, EPOLL_CTL_MOD, worker, pidfd) < 0 || !reap(pidfd, &crashed))
        return false;
    epoll_ctl(pool->epoll_fd, EPOLL_CTL_DEL, pidfd, NULL);
    close(pidfd);
    pool->pidfds[worker] = pool->pids[worker] = -1;
    bool by_itself = !was_condemned(pool, worker);
    if (pool_is_wild(pool, worker)) /* its records may say nothing of what it has open */
        orphans_hunt();
    pool->wild[worker / 64] &= ~(UINT64_C(1) << worker % 64);
    if (crashed) {
        pool->totals.worker_deaths += by_itself;
        orphans_look_for(pool, worker);
    }
    queue_worker_ended(pool, worker);
    /* What it held of the common good goes back; only then may its number be used again.  Its bit
     * first: while it stands, somebody may give it another permit and ring for it. */
    uint32_t dead = worker + 1;
    atomic_compare_exchange_strong(&segment->header.spinner, &dead, 0);
    pa_sleeper_remove(segment, worker);
    pa_permits_return(segment, worker);
    atomic_store_explicit(&record->pidfd, -1, memory_order_relaxed);
    atomic_store_explicit(&record->life, PA_VACANT, memory_order_release);
    if (crashed && by_itself)
        slow_down(pool);
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
        if (pidfd >= 0 && (is_our_child(P_PIDFD, pidfd) || pid_of(pidfd) < 0) && !is_known(pidfd)) {
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
    bool crashed;
    if (pool->spawner_pidfd < 0 || !reap(pool->spawner_pidfd, &crashed))
        return false;
    epoll_ctl(pool->epoll_fd, EPOLL_CTL_DEL, pool->spawner_pidfd, NULL);
    close(pool->spawner_pidfd);
    orphans_of_spawner(pool, pool->spawner_pid);
    pool->spawner_pidfd = -1;
    pool->spawner_pid = 0;
    pool->totals.spawner_deaths += crashed;
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
    int count;
} undead;

static void bury_undead(void)
{
    int count = undead.count;
    bool crashed;
    for (int i = undead.count; i-- > 0;)
        if (reap(undead.pidfds[i], &crashed)) {
            close(undead.pidfds[i]);
            undead.pidfds[i] = undead.pidfds[--undead.count];
        }
    if (undead.count < count)
        orphans_hunt();
}

/* They are the parent's children. */
void pool_after_fork(void)
{
    while (undead.count > 0)
        close(undead.pidfds[--undead.count]);
}

bool pool_look_after(Pool *pool)
{
    enum { MOST = 64 };
    struct epoll_event events[MOST];
    if (unlikely(undead.count > 0))
        bury_undead();
    int count = epoll_wait(pool->epoll_fd, events, MOST, 0);
    return pool_handle_events(pool, events, count);
}

/* Waits until it is dead, if it can die: one that is still blocked at that time cannot, one that
 * runs, or would run if there were a processor for it, can. */
static void await_death(int pidfd, int pid, uint64_t until_ns)
{
    struct pollfd dead = {.fd = pidfd, .events = POLLIN};
    Py_BEGIN_ALLOW_THREADS
    while (poll(&dead, 1, DEATH_LOOK_MS) <= 0)
        if (pa_now_ns() >= until_ns && pa_is_blocked(pid))
            break;
    Py_END_ALLOW_THREADS
}

/* It was told to leave, or killed. */
static void end_child(int pidfd, int pid, uint64_t until_ns)
{
    bool crashed;
    await_death(pidfd, pid, until_ns);
    if (reap(pidfd, &crashed) || undead.count == PA_MAX_WORKERS)
        close(pidfd);
    else
        undead.pidfds[undead.count++] = pidfd;
}

static void kill_child(int pidfd)
{
    syscall(SYS_pidfd_send_signal, pidfd, SIGKILL, NULL, 0);
}

/* It was told to leave, or killed. */
static void end_spawner(Pool *pool, uint64_t until_ns)
{
    struct pa_segment *segment = pool->segment;
    int spawner = pool->spawner_pidfd, pid = pool->spawner_pid;
    if (spawner < 0)
        return;
    pool->spawner_pidfd = -1; /* before other threads get their turn */
    epoll_ctl(pool->epoll_fd, EPOLL_CTL_DEL, spawner, NULL);
    end_child(spawner, pid, until_ns);
    if (pool->segment != segment)
        return;
    pool->spawner_pid = 0;
    orphans_of_spawner(pool, pid);
    adopt_workers(pool);
    atomic_store(&segment->header.monitor_asleep, 0);
}

/* Who is older begins nothing from here on. */
void pool_identify(Pool *pool, uint32_t identity)
{
    pool->identity = identity;
    pool->renewed = pool->lags = true;
    atomic_store(&pool->segment->header.identity, identity);
}

/* A new spawner, and so new workers: the program is somebody else now, or about to be. */
void pool_renew(Pool *pool)
{
    struct pa_segment *segment = pool->segment;
    pool->lags = false;
    pa_wake_all(segment);
    pa_monitor_ring(segment);
    end_spawner(pool, pa_now_ns() + PA_DEATH_NS); /* it leaves by itself */
    if (pool->segment != segment)
        return;
    end_its_wakings(segment);
    if (pool->nreqs > 0 && !pool->closed && pool_ensure_spawner(pool) < 0)
        PyErr_WriteUnraisable((PyObject *)pool);
}

/* -- closing ---------------------------------------------------------------------------------- */

/* The program is about to become another one (execve), which knows nothing of them.  If that fails
 * new ones are made.  Where something is outstanding they stay, and the spawner ends them then. */
void pool_clear(Pool *pool)
{
    struct pa_segment *segment = pool->segment;
    uint64_t until_ns = pa_now_ns() + PA_DEATH_NS;
    if (pool->nreqs > 0 || pool->spawner_pidfd < 0)
        return;
    kill_child(pool->spawner_pidfd);
    end_spawner(pool, until_ns);
    if (pool->segment == segment)
        pool_know_workers(pool);
    for (uint32_t worker = 0; worker < PA_MAX_WORKERS && pool->segment == segment; worker++) {
        int pidfd = pidfd_if_known(pool, worker);
        if (pidfd < 0)
            continue;
        pool->condemned[worker / 64] |= UINT64_C(1) << worker % 64;
        kill_child(pidfd);
        await_death(pidfd, pool->pids[worker], until_ns);
        if (pool->segment == segment)
            bury_worker(pool, worker, pidfd);
    }
}

/* The workers hold nothing that their death could hurt: requests have ended or are given up. */
static void end_children(Pool *pool)
{
    struct pa_segment *segment = pool->segment;
    uint64_t until_ns = pa_now_ns() + PA_DEATH_NS;
    atomic_store(&segment->header.shutdown, 1);
    pa_wake_all(segment);
    if (pool->spawner_pidfd >= 0) { /* first, so that nobody is born meanwhile */
        kill_child(pool->spawner_pidfd);
        end_spawner(pool, until_ns);
    }
    pool_know_workers(pool);
    int pidfds[PA_MAX_WORKERS];
    for (uint32_t worker = 0; worker < PA_MAX_WORKERS; worker++) {
        pidfds[worker] = pidfd_if_known(pool, worker);
        if (pidfds[worker] >= 0)
            kill_child(pidfds[worker]);
    }
    for (uint32_t worker = 0; worker < PA_MAX_WORKERS; worker++) {
        int pidfd = pidfds[worker];
        pool->pidfds[worker] = -1;
        atomic_store(&segment->workers[worker].pidfd, -1);
        if (pidfd >= 0) {
            end_child(pidfd, pool->pids[worker], until_ns);
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
    pool->closed = true;
    end_children(pool);
    queue_harvest(pool);
    memory_forget(pool);
    queue_fail_all(pool, error);
    orphans_sweep();
    Py_RETURN_NONE;
}

/* `_release()`: the segment and the descriptors, after `_kill`. */
PyObject *pool_release(Pool *pool, PyObject *unused)
{
    (void)unused;
    if (!pool->segment || pool->fork_count != fork_count)
        Py_RETURN_NONE;
    while (pool->somebody_sleeps || pool->followers > 0) {
        poll_tell_others(pool);
        Py_BEGIN_ALLOW_THREADS
        syscall(SYS_sched_yield);
        Py_END_ALLOW_THREADS
    }
    struct queue dead = {.first = NULL};
    queue_abandon(pool, &dead);
    take_off_list(pool); /* nothing of it is on its way any more */
    orphans_sweep();
    let_arena_go(pool);
    give_back(pool);
    queue_let_go(&dead);
    Py_CLEAR(pool->loop);
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
        if (pool->pidfds[worker] >= 0 && pid_of(pool->pidfds[worker]) != 0)
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
    close_fd(&pool->segment_fd);
    close_fd(&pool->event_fd);
    close_fd(&pool->dead_fd);
    close_fd(&pool->spawner_pidfd);
    close_fd(&pool->timer_fd);
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
    close_fd(&pool->epoll_fd);
    Py_RETURN_TRUE;
}

/* The object goes. */
void pool_end(Pool *pool)
{
    if (pool->segment && pool->fork_count == fork_count) { /* lost without close() */
        pool->closed = true;
        end_children(pool);
        memory_forget(pool);
        Py_XDECREF(pool_release(pool, NULL));
    }
    if (pool->arena && pool->fork_count != fork_count)
        pa_arena_abandon(pool->arena);
    if (pool->arena)
        pa_arena_destroy(pool->arena);
    take_off_list(pool);
}

/* -- the module's view ------------------------------------------------------------------------ */

int pool_check(Pool *pool)
{
    if (unlikely(pool->fork_count != fork_count) && !pool->closed) {
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
