/* procaio/csrc/children.c - the pool's processes: started, told apart, ended, buried.
 *
 * The spawner is the program's child, and so are the workers that it makes (CLONE_PARENT); each is
 * known by a pidfd in the pool's set, which becomes readable when it dies.
 */
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "core.h"

#ifndef P_PIDFD
#define P_PIDFD 3
#endif

#define EVENT_SPAWNER (UINT64_MAX - 1) /* in the pool's set, beside workers and PA_EVENT_* */
#define RETRY_NS 20000000
#define DEATH_LOOK_MS 10

/* Too many processes or descriptors, or too little memory; or it has died too often.  Requests wait. */
static void try_spawner_at(Pool *pool, uint64_t ns)
{
    pool->lacks_spawner = true;
    if (timer_set(pool, ns) < 0)
        poll_kick(pool); /* no timer either: whoever polls tries again at once */
}

void pool_retry_spawner(Pool *pool)
{
    try_spawner_at(pool, pa_now_ns() + RETRY_NS);
}

int pool_ensure_spawner(Pool *pool)
{
    if (likely(pool->spawner_pid > 0) || pool->is_inline || pool->lost || pools_are_clear())
        return 0;
    if (unlikely(pool->spawner_not_before_ns > 0) && pa_now_ns() < pool->spawner_not_before_ns) {
        try_spawner_at(pool, pool->spawner_not_before_ns);
        return 0;
    }
    identity_look(); /* it gets the rights that this thread has, and what it is known for */
    int pidfd;
    pool_write_header(pool);
    atomic_store(&pool->segment->header.shutdown, 0);
    int pid = pa_spawner_start(pool->segment, pool->region, &pool->setup, pool->identity, &pidfd);
    if (pid == -EAGAIN || pid == -ENOMEM || pid == -EMFILE || pid == -ENFILE) {
        pool_retry_spawner(pool);
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

/* The next worker that the set has: false at its end. */
static bool next_in_set(FILE *set, uint32_t *worker, int *pidfd)
{
    char line[256];
    unsigned long long data;
    while (fgets(line, sizeof line, set)) {
        if (sscanf(line, "tfd: %d events: %*x data: %llx", pidfd, &data) != 2)
            continue;
        *worker = (uint32_t)data;
        if (*worker < PA_MAX_WORKERS && data == PA_EVENT_OF(*worker, *pidfd))
            return true;
    }
    return false;
}

/* The number of a pidfd in a worker's record is not trusted, since anybody can write there: what is
 * killed or closed by it might be somebody else's.  But every worker's spawner has entered it into
 * the pool's set, of which the kernel tells what it holds. */
void pool_know_workers(Pool *pool)
{
    uint32_t worker;
    int pidfd;
    FILE *set = open_fdinfo(pool->epoll_fd);
    while (set && next_in_set(set, &worker, &pidfd)) {
        if (pool->pidfds[worker] == pidfd)
            continue;
        pool->pidfds[worker] = pidfd;
        pool->pids[worker] = pid_of(pidfd);
    }
    if (set)
        fclose(set);
}

/* An event may be older than a burial that another thread has seen to.  By now the number of the
 * pidfd may be that of another worker's.  Where the set cannot be read, the record has to do. */
static bool is_still_its(Pool *pool, uint32_t worker, int pidfd)
{
    uint32_t other;
    int number;
    bool found = false;
    FILE *set = open_fdinfo(pool->epoll_fd);
    if (!set)
        return atomic_load(&pool->segment->workers[worker].pidfd) == pidfd;
    while (!found && next_in_set(set, &other, &number))
        found = other == worker && number == pidfd;
    fclose(set);
    return found;
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
int pool_pidfd_of_worker(Pool *pool, uint32_t worker)
{
    int pidfd = atomic_load(&pool->segment->workers[worker].pidfd);
    if (pool->pidfds[worker] < 0 && is_our_child(P_PIDFD, pidfd) && !is_known(pidfd))
        return pidfd;
    return pool->pidfds[worker];
}

/* What waits for a worker's end has to know whom it waits for. */
int pool_learn_pid(Pool *pool, uint32_t worker, int pidfd)
{
    if (pool->pids[worker] <= 0)
        pool->pids[worker] = pid_of(pidfd);
    return pool->pids[worker];
}

static int pidfd_of(Pool *pool, uint32_t worker)
{
    if (pool->pidfds[worker] < 0)
        pool_know_workers(pool);
    return pool_pidfd_of_worker(pool, worker);
}

int pool_pid_of(Pool *pool, uint32_t worker)
{
    if (pool->pids[worker] > 0)
        return pool->pids[worker];
    int pid = atomic_load(&pool->segment->workers[worker].pid);
    return is_our_child(P_PID, pid) ? pid : 0;
}

static void watch_worker(const Pool *pool, uint32_t worker, int pidfd)
{
    struct epoll_event event = {.events = EPOLLIN, .data.u64 = PA_EVENT_OF(worker, pidfd)};
    if (pa_has_mark(pool->epoll_fd, PA_MARK_SET))
        epoll_ctl(pool->epoll_fd, EPOLL_CTL_ADD, pidfd, &event);
}

/* -- the dead ------------------------------------------------------------------------------------ */

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
void pool_end_its_wakings(struct pa_segment *segment)
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

void pool_kill_child(int pidfd)
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
    pool_kill_child(pidfd_of(pool, worker));
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
    pool_write_header(pool);
    pool_kill_child(pidfd);
}

/* The spawner uses no number that seems to be somebody's. */
static void vacate(Pool *pool, uint32_t worker)
{
    struct pa_worker *record = &pool->segment->workers[worker];
    int pidfd = atomic_load(&record->pidfd);
    if (pidfd >= 0 && pool->pidfds[worker] < 0 && atomic_load(&record->life) == PA_VACANT &&
        !is_our_child(P_PIDFD, pidfd))
        atomic_store(&record->pidfd, -1);
}

/* Nothing has happened for long. */
void pool_mend(Pool *pool)
{
    pool_know_workers(pool);
    for (uint32_t worker = 0; worker < PA_MAX_WORKERS; worker++)
        vacate(pool, worker);
    pool_write_header(pool);
}

void pool_distrust_all(Pool *pool, const uint64_t except[PA_MAX_WORKERS / 64])
{
    pool_know_workers(pool);
    for (uint32_t worker = 0; worker < PA_MAX_WORKERS; worker++)
        if (!(except[worker / 64] & UINT64_C(1) << worker % 64) &&
            pool_pidfd_of_worker(pool, worker) >= 0)
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

/* False: it lives, or is no such worker any more. */
bool pool_bury_worker(Pool *pool, uint32_t worker, int pidfd)
{
    struct pa_segment *segment = pool->segment;
    struct pa_worker *record = &segment->workers[worker];
    int exitcode;
    if (!is_still_its(pool, worker, pidfd) ||
        !reap(pidfd, pool_learn_pid(pool, worker, pidfd), &exitcode))
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
    pool->last_pids[worker] = pool->pids[worker];
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
    pool_end_its_wakings(segment);
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
            watch_worker(pool, worker, pidfd);
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
    pool_end_its_wakings(pool->segment);
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
            buried |= pool_bury_worker(pool, (uint32_t)what, (int)(what >> 32));
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
void children_after_fork(void)
{
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
    timer_ensure(pool);
    int count = epoll_wait(pool->epoll_fd, events, MOST, 0);
    return pool_handle_events(pool, events, count);
}

/* Waits until it is dead, if it can die: one that is still blocked at that time cannot, one that
 * runs, or would run if there were a processor for it, can. */
bool pool_await_death(int pidfd, int pid, uint64_t until_ns)
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
    pool_await_death(pidfd, pid, until_ns);
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
void pool_end_spawner(Pool *pool, uint64_t until_ns)
{
    struct pa_segment *segment = pool->segment;
    int spawner = pool->spawner_pidfd, pid = pool->spawner_pid;
    if (spawner < 0)
        return;
    pool->spawner_pidfd = -1; /* before other threads get their turn */
    if (pa_has_mark(pool->epoll_fd, PA_MARK_SET))
        epoll_ctl(pool->epoll_fd, EPOLL_CTL_DEL, spawner, NULL);
    if (!pool_await_death(spawner, pid, until_ns)) /* stopped, perhaps, with a worker half made */
        pool_kill_child(spawner);
    end_child(spawner, pid, until_ns + PA_DEATH_NS);
    if (pool->segment != segment)
        return;
    pool->spawner_pid = 0;
    orphans_of_spawner(pool, pid);
    adopt_workers(pool);
    atomic_store(&segment->header.monitor_asleep, 0);
}

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
        pool_kill_child(pool->spawner_pidfd);
        pool_end_spawner(pool, until_ns);
        if (pool->segment != segment)
            return;
    }
    if (pool->lost)
        lost_find_workers(pool);
    else
        pool_know_workers(pool);
    int pidfds[PA_MAX_WORKERS];
    for (uint32_t worker = 0; worker < PA_MAX_WORKERS; worker++) {
        pidfds[worker] = pool_pidfd_of_worker(pool, worker);
        if (pidfds[worker] >= 0)
            pool_kill_child(pidfds[worker]);
    }
    for (uint32_t worker = 0; worker < PA_MAX_WORKERS && pool->segment == segment; worker++) {
        int pidfd = pidfds[worker];
        pool->pidfds[worker] = -1;
        atomic_store(&segment->workers[worker].pidfd, -1);
        if (pidfd >= 0) {
            end_child(pidfd, pool_learn_pid(pool, worker, pidfd), until_ns);
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
