/* workers/spawner.c - the small process that makes the workers, and watches that work goes on.
 *
 * It is cloned while the pool starts and has shed the program's memory, so a worker costs the same
 * to start however large the program has grown.  Workers are made with CLONE_PARENT: they are the
 * program's children, and only the program reaps them.
 *
 * As the monitor it looks, with growing intervals, while requests wait.  A worker that has run one
 * request since the last look and sleeps in the kernel is stuck in a system call; one that was
 * stopped is stuck wherever it is.  Its permit is taken away and given to another worker, which is
 * woken or started.  So as many workers as it takes are busy when the storage is slow, and no more
 * than there are cores when it is fast.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/kcmp.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "../shm/faults.h"
#include "../shm/marks.h"
#include "../shm/ring.h"
#include "../shm/wake.h"
#include "worker.h"

#define LOOK_MIN_NS UINT64_C(100000)
#define LOOK_MAX_NS UINT64_C(2000000)
#define REST_AFTER_NS UINT64_C(5000000)
#define BACKLOG_NS UINT64_C(100000)
#define CHECK_NS UINT64_C(500000000)

/* Descriptors, working directory and umask are the program's, live; memory is not.  Exit signal 0:
 * the program's SIGCHLD handler and waitpid(-1) never see them. */
#define CLONE_AS (CLONE_FILES | CLONE_FS | CLONE_PIDFD)
static_assert(sizeof(_Atomic int32_t) == sizeof(int), "the kernel writes pidfd and pid as ints");

/* The longest time that the program lets starting wait. */
#define LONGEST_PAUSE_NS UINT64_C(2000000000)

struct monitor {
    struct pa_birth *birth;
    struct pa_segment *segment;
    uint64_t looked_at_ns;
    uint64_t checked_at_ns;
    uint32_t taken[PA_MAX_WORKERS];  /* by each worker, at the last look */
    uint64_t cpu_ns[PA_MAX_WORKERS]; /* used by each worker, at the last look */
    int pidfds[PA_MAX_WORKERS];      /* as they were written, here or by a spawner before */
};

static uint32_t living(struct pa_segment *segment, uint32_t *vacant)
{
    uint32_t count = 0;
    *vacant = PA_MAX_WORKERS;
    for (uint32_t worker = PA_MAX_WORKERS; worker-- > 0;) {
        uint32_t life = atomic_load_explicit(&segment->workers[worker].life, memory_order_acquire);
        int pidfd = atomic_load_explicit(&segment->workers[worker].pidfd, memory_order_relaxed);
        if (life == PA_VACANT && pidfd < 0) /* both were written by whoever buried the last one */
            *vacant = worker;
        else if (life != PA_RETIRED)
            count++;
    }
    return count;
}

static int reserve_results(const struct pa_birth *birth, uint32_t worker)
{
    const size_t size = sizeof birth->segment->results[0];
    off_t at = (off_t)(offsetof(struct pa_segment, results) + worker * size);
    if (!pa_has_mark(birth->setup.segment_fd, PA_MARK_SEGMENT))
        return -EBADF;
    return fallocate(birth->setup.segment_fd, 0, at, (off_t)size) == 0 ? 0 : -errno;
}

/* As pa_above_streams() does, but the record names it all the time. */
static void keep_streams_free(struct pa_worker *record)
{
    int pidfd = atomic_load_explicit(&record->pidfd, memory_order_relaxed);
    int high = pidfd < 3 ? fcntl(pidfd, F_DUPFD_CLOEXEC, 3) : -1;
    if (high < 0)
        return;
    atomic_store_explicit(&record->pidfd, high, memory_order_release);
    close(pidfd);
}

/* A worker is born with the limits that this process has. */
static void follow_limits(struct pa_birth *birth, bool look)
{
    uint32_t limits =
        atomic_load_explicit(&birth->segment->header.limits, memory_order_acquire);
    if (look || limits != birth->limits)
        pa_take_limits(birth->rights.pid);
    birth->limits = limits;
}

/* Whether it is a pidfd of that process, as far as the system tells ("Pid:", TAB, number). */
static bool is_pidfd_of(int pidfd, pid_t pid)
{
    char text[512], wanted[32] = "\nPid:\t", *at = text;
    pa_text(&at, "/proc/self/fdinfo/");
    pa_text_number(&at, (uint32_t)pidfd);
    /* O_DSYNC is a mark: see state_of(). */
    int fd = pidfd < 0 ? -1 : open(text, O_RDONLY | O_CLOEXEC | O_DSYNC);
    if (fd < 0)
        return pidfd >= 0;
    ssize_t size = read(fd, text, sizeof text - 1);
    close(fd);
    text[size > 0 ? size : 0] = '\0';
    at = wanted + strlen(wanted);
    pa_text_number(&at, (uint32_t)pid);
    pa_text(&at, "\n");
    return strstr(text, wanted) != NULL;
}

static int clone_worker(struct monitor *monitor, uint32_t worker)
{
    struct pa_birth *birth = monitor->birth;
    struct pa_segment *segment = birth->segment;
    struct pa_worker *record = &segment->workers[worker];
    int error = reserve_results(birth, worker);
    if (error)
        return error;
    if (worker >= atomic_load_explicit(&segment->header.worker_limit, memory_order_relaxed))
        atomic_store_explicit(&segment->header.worker_limit, worker + 1, memory_order_relaxed);
    atomic_store_explicit(&record->pid, 0, memory_order_relaxed);
    atomic_store_explicit(&record->retire, 0, memory_order_relaxed);
    atomic_store_explicit(&record->pidfd, -1, memory_order_relaxed);
    atomic_store_explicit(&record->activity, PA_SEARCHING, memory_order_relaxed);
    atomic_store_explicit(&record->life, PA_STARTING, memory_order_release);
    pa_permit_take(segment, worker);
    birth->worker = worker;
    /* The kernel itself writes pidfd and pid into the record: should this process be killed now, the
     * program finds a worker that was made, and one that was not (children.c:adopt_workers). */
    pid_t pid = clone(pa_worker_main, birth->worker_stack + PA_STACK_SIZE,
                      CLONE_AS | CLONE_PARENT | CLONE_CHILD_SETTID, birth, (int *)&record->pidfd,
                      NULL, (int *)&record->pid);
    if (pid < 0) {
        error = -errno;
        pa_permits_return(segment, worker);
        atomic_store_explicit(&record->pidfd, -1, memory_order_relaxed);
        atomic_store_explicit(&record->life, PA_VACANT, memory_order_release);
        return error;
    }
    keep_streams_free(record);
    int pidfd = atomic_load_explicit(&record->pidfd, memory_order_relaxed);
    if (!is_pidfd_of(pidfd, pid)) { /* somebody has just written over it */
        pidfd = (int)syscall(SYS_pidfd_open, pid, 0);
        atomic_store_explicit(&record->pidfd, pidfd, memory_order_relaxed);
    }
    struct epoll_event event = {.events = EPOLLIN, .data.u64 = PA_EVENT_OF(worker, pidfd)};
    if (pa_has_mark(birth->setup.epoll_fd, PA_MARK_SET))
        epoll_ctl(birth->setup.epoll_fd, EPOLL_CTL_ADD, pidfd, &event);
    monitor->pidfds[worker] = pidfd;
    return 0;
}

/* True when a worker was started. */
static bool start_worker(struct monitor *monitor)
{
    struct pa_header *header = &monitor->segment->header;
    uint32_t vacant;
    uint32_t count = living(monitor->segment, &vacant);
    if (count >= atomic_load_explicit(&header->wanted, memory_order_relaxed) ||
        vacant == PA_MAX_WORKERS)
        return false;
    uint64_t now = pa_now_ns();
    uint64_t then = atomic_load_explicit(&header->start_not_before_ns, memory_order_relaxed);
    if (now < then && then - now < LONGEST_PAUSE_NS)
        return false;
    follow_limits(monitor->birth, false);
    int error = clone_worker(monitor, vacant);
    atomic_store_explicit(&header->start_errno, -error, memory_order_relaxed);
    if (error) { /* no memory, too many processes: try again a little later */
        follow_limits(monitor->birth, true);
        atomic_store_explicit(&header->start_not_before_ns, now + 10 * LOOK_MAX_NS,
                              memory_order_relaxed);
    }
    return error == 0;
}

/* The processor time of another process: clock ids carry the pid (clock_getcpuclockid). */
static uint64_t cpu_time(pid_t pid)
{
    struct timespec used;
    if (syscall(SYS_clock_gettime, (clockid_t)(~(unsigned)pid << 3 | 2u), &used) != 0)
        return 0;
    return (uint64_t)used.tv_sec * 1000000000u + (uint64_t)used.tv_nsec;
}

/* What the system says that the process does (proc(5), field 3), or '?'. */
static char state_of(pid_t pid)
{
    char path[32] = "", text[64], *at = path;
    pa_text(&at, "/proc/");
    pa_text_number(&at, (uint32_t)pid);
    pa_text(&at, "/stat");
    /* O_DSYNC is a mark: should this process be killed now, the program closes it (orphans.c). */
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_DSYNC);
    if (fd < 0)
        return '?';
    ssize_t size = read(fd, text, sizeof text - 1);
    close(fd);
    /* "PID (NAME) S ...": the name has at most 15 bytes, and perhaps a parenthesis. */
    for (ssize_t i = size - 3; i >= 0; i--)
        if (text[i] == ')' && text[i + 1] == ' ')
            return text[i + 2];
    return '?';
}

/* True unless it runs, or waits for a processor. */
bool pa_is_blocked(pid_t pid)
{
    return state_of(pid) != 'R';
}

/* By a signal, or a debugger. */
static bool has_stopped(char state)
{
    return state == 'T' || state == 't';
}

/* Whether a worker that holds a permit makes nothing of it: it is stuck in a system call, or has
 * stopped.  One that executes nothing is looked at only if requests are waiting. */
static bool is_stuck(struct monitor *monitor, uint32_t worker, bool waiting, uint64_t elapsed_ns)
{
    struct pa_segment *segment = monitor->segment;
    struct pa_worker *record = &segment->workers[worker];
    uint32_t taken = atomic_load_explicit(&record->taken, memory_order_acquire);
    uint32_t activity = atomic_load_explicit(&record->activity, memory_order_relaxed);
    bool running = activity == PA_RUNNING;
    pid_t pid = atomic_load_explicit(&record->pid, memory_order_relaxed);
    uint64_t used = cpu_time(pid);
    bool idle =
        taken == monitor->taken[worker] && used - monitor->cpu_ns[worker] < elapsed_ns / 2;
    monitor->taken[worker] = taken;
    monitor->cpu_ns[worker] = used;
    if (!idle || !(running || waiting))
        return false;
    /* Little processor time may also mean that the machine is busy. */
    char state = state_of(pid);
    uint32_t spinner = worker + 1;
    if (has_stopped(state)) /* nobody relies on its looking at the lanes */
        atomic_compare_exchange_strong(&segment->header.spinner, &spinner, 0);
    else if (activity == PA_SLEEPING) /* who gave it the permit may have stopped before ringing */
        pa_wake_worker(segment, worker);
    return running ? state != 'R' : has_stopped(state);
}

static bool is_vacant(const struct pa_segment *segment, uint32_t worker)
{
    return worker >= PA_MAX_WORKERS ||
           atomic_load_explicit(&segment->workers[worker].life, memory_order_relaxed) == PA_VACANT;
}

/* How long a worker's request is likely to take. */
static uint64_t expected_ns(const struct pa_segment *segment, uint32_t worker)
{
    const uint32_t kinds = sizeof segment->header.op_ns / sizeof segment->header.op_ns[0];
    uint32_t op = atomic_load_explicit(&segment->workers[worker].op, memory_order_relaxed);
    return atomic_load_explicit(&segment->header.op_ns[op % kinds], memory_order_relaxed);
}

/* Takes the permits of workers that are stuck, and of numbers that are vacant: whoever took those
 * for a sleeper that was buried meanwhile may have stopped.  Gives the number of those in use. */
static uint32_t revoke_stuck(struct monitor *monitor, bool waiting, uint64_t elapsed_ns,
                             uint64_t *slowest_ns)
{
    struct pa_segment *segment = monitor->segment;
    uint32_t in_use = 0;
    *slowest_ns = 0;
    for (uint32_t permit = 0; permit < monitor->birth->setup.permit_count; permit++) {
        uint32_t holder =
            atomic_load_explicit(&segment->header.permits[permit], memory_order_acquire);
        if (holder == 0)
            continue;
        uint32_t worker = holder - 1;
        if (is_vacant(segment, worker)) {
            pa_permit_revoke(segment, permit, worker);
            continue;
        }
        if (is_stuck(monitor, worker, waiting, elapsed_ns) &&
            pa_permit_revoke(segment, permit, worker))
            continue;
        in_use++;
        uint64_t each = expected_ns(segment, worker);
        if (each > *slowest_ns)
            *slowest_ns = each;
    }
    return in_use;
}

/* One look.  True when it changed something. */
static bool look(struct monitor *monitor)
{
    uint64_t now = pa_now_ns();
    uint64_t elapsed = now - monitor->looked_at_ns;
    monitor->looked_at_ns = now;
    uint32_t depth = pa_lanes_depth(monitor->segment);
    uint64_t slowest_ns;
    uint32_t in_use = revoke_stuck(monitor, depth > 0, elapsed, &slowest_ns);
    if (depth == 0)
        return false;
    if (in_use > 0 && (depth * slowest_ns < BACKLOG_NS || pa_crowded(monitor->segment, slowest_ns)))
        return false;
    if (pa_wake_one(monitor->segment))
        return true;
    return in_use < monitor->birth->setup.permit_count && start_worker(monitor);
}

/* In another root, or in a namespace of processes that has no /proc of its own, it does not. */
static bool proc_knows_us(void)
{
    char text[12] = "", own[12] = "", *at = own;
    pa_text_number(&at, (uint32_t)getpid());
    ssize_t size = readlink("/proc/self", text, sizeof text - 1);
    return size > 0 && strcmp(text, own) == 0;
}

/* False: the program has become another one (execve), which knows nothing of us.  Our descriptors
 * are in the old table, and in its new one no descriptor of the segment is open.  Where there is no
 * /proc to tell (chroot), the tables are compared; where that is not allowed it is taken to be there.
 * So it is when its first thread has ended and others go on: that one has no table. */
static bool program_is_there(const struct pa_setup *setup)
{
    pid_t program = setup->program_pid;
    struct stat ours, its;
    if (fstat(setup->segment_fd, &ours) < 0)
        return true;
    char path[64] = "", *at = path;
    pa_text(&at, "/proc/");
    pa_text_number(&at, (uint32_t)program);
    pa_text(&at, "/fd/");
    if (!proc_knows_us() || stat(path, &its) < 0)
        return syscall(SYS_kcmp, program, (pid_t)syscall(SYS_getpid), KCMP_FILES, 0, 0) <= 0;
    pa_text_number(&at, (uint32_t)setup->segment_fd);
    if (stat(path, &its) < 0)
        return errno != ENOENT || state_of(program) == 'Z';
    return ours.st_dev == its.st_dev && ours.st_ino == its.st_ino;
}

/* Nobody waits for what the workers do. */
static void end_workers(const struct monitor *monitor)
{
    struct pa_segment *segment = monitor->segment;
    atomic_store(&segment->header.shutdown, 1);
    pa_wake_all(segment);
    for (uint32_t worker = 0; worker < PA_MAX_WORKERS; worker++) {
        int pidfd = atomic_load(&segment->workers[worker].pidfd);
        if (pidfd >= 0 && pidfd == monitor->pidfds[worker])
            syscall(SYS_pidfd_send_signal, pidfd, SIGKILL, NULL, 0);
    }
}

static void check_program(struct monitor *monitor)
{
    uint64_t now = pa_now_ns();
    if (now - monitor->checked_at_ns < CHECK_NS)
        return;
    monitor->checked_at_ns = now;
    if (!program_is_there(&monitor->birth->setup))
        end_workers(monitor);
}

static bool told_to_leave(const struct monitor *monitor)
{
    return atomic_load_explicit(&monitor->segment->header.shutdown, memory_order_relaxed) ||
           !pa_has_identity(monitor->segment, monitor->birth->rights.identity);
}

static bool nothing_to_do(const struct monitor *monitor)
{
    return pa_lanes_empty(monitor->segment) && !told_to_leave(monitor);
}

/* Nothing waits: sleep until somebody rings.  False: nobody has for a while. */
static bool rest(const struct monitor *monitor)
{
    struct pa_segment *segment = monitor->segment;
    struct pa_header *header = &segment->header;
    uint32_t rung = atomic_load_explicit(&header->monitor_bell, memory_order_acquire);
    atomic_store_explicit(&header->monitor_asleep, 1, memory_order_relaxed);
    /* Announced; look once more.  Pairs with the fence in pa_wake_after_push(). */
    atomic_thread_fence(memory_order_seq_cst);
    if (nothing_to_do(monitor))
        pa_futex_wait(&header->monitor_bell, rung, CHECK_NS);
    atomic_store_explicit(&header->monitor_asleep, 0, memory_order_relaxed);
    return atomic_load_explicit(&header->monitor_bell, memory_order_relaxed) != rung ||
           !nothing_to_do(monitor);
}

static void watch(struct monitor *monitor)
{
    struct pa_segment *segment = monitor->segment;
    struct pa_header *header = &segment->header;
    uint64_t interval_ns = LOOK_MIN_NS, quiet_since_ns = 0;
    while (!told_to_leave(monitor)) {
        uint32_t rung = atomic_load_explicit(&header->monitor_bell, memory_order_acquire);
        check_program(monitor);
        if (look(monitor))
            interval_ns = LOOK_MIN_NS;
        else if (interval_ns < LOOK_MAX_NS)
            interval_ns *= 2;
        if (!pa_lanes_empty(segment))
            quiet_since_ns = 0;
        else if (quiet_since_ns == 0)
            quiet_since_ns = monitor->looked_at_ns;
        else if (monitor->looked_at_ns - quiet_since_ns > REST_AFTER_NS) {
            while (!rest(monitor))
                check_program(monitor);
            quiet_since_ns = 0;
            interval_ns = LOOK_MIN_NS;
            continue;
        }
        pa_futex_wait(&header->monitor_bell, rung, interval_ns);
    }
}

static void title_of(char *title, const char *role, const struct pa_setup *setup)
{
    pa_text(&title, "procaio: ");
    pa_text(&title, role);
    pa_text(&title, " of ");
    pa_text_number(&title, (uint32_t)setup->program_pid);
}

int pa_spawner_main(void *context)
{
    struct pa_birth *birth = context;
    char title[64];
    title_of(title, "spawner", &birth->setup);
    pa_child_settle(birth);
    pa_child_shed(birth);
    pa_child_show_title(birth, title);
    prctl(PR_SET_NAME, "procaio-spawner", 0, 0, 0);
    struct monitor monitor = {.birth = birth, .segment = birth->segment};
    for (uint32_t worker = 0; worker < PA_MAX_WORKERS; worker++)
        monitor.pidfds[worker] = atomic_load(&birth->segment->workers[worker].pidfd);
    watch(&monitor);
    return 0;
}

/* A worker that is woken on the program's core does not push it off: the program's event loop has
 * other things to do too.  A real-time policy of the program's choice stays. */
static void give_way(void)
{
    struct sched_param none = {.sched_priority = 0};
    if (sched_getscheduler(0) == SCHED_OTHER)
        sched_setscheduler(0, SCHED_BATCH, &none);
}

int pa_worker_main(void *context)
{
    struct pa_birth *birth = context;
    struct pa_segment *segment = birth->segment;
    pa_fault(segment, PA_FAULT_BORN);
    char role[32] = "", *at = role;
    pa_text(&at, "worker ");
    pa_text_number(&at, birth->worker);
    char title[64];
    title_of(title, role, &birth->setup);
    pa_child_settle(birth); /* and it has nothing to shed: the spawner has done so */
    pa_child_show_title(birth, title);
    memcpy(role, "procaio-", 8);
    at = role + 8;
    pa_text(&at, "w");
    pa_text_number(&at, birth->worker);
    prctl(PR_SET_NAME, role, 0, 0, 0);
    give_way();
    struct pa_worker *record = &segment->workers[birth->worker];
    atomic_store_explicit(&record->life, PA_ALIVE, memory_order_release);
    pa_worker_loop(segment, &birth->setup, birth->worker, &birth->rights, birth->limits);
    return 0;
}

/* After unshare(CLONE_NEWPID): the program would be nobody's parent there.  Before the first child
 * the link leads nowhere. */
static bool children_get_other_pids(void)
{
    static const char path[] = "/proc/self/ns/pid_for_children";
    struct stat own, childrens, link;
    if (stat("/proc/self/ns/pid", &own) < 0 || lstat(path, &link) < 0)
        return false;
    return stat(path, &childrens) < 0 || own.st_ino != childrens.st_ino;
}

int pa_spawner_start(struct pa_segment *segment, char *region, const struct pa_setup *setup,
                     uint32_t identity, int *pidfd)
{
    if (children_get_other_pids())
        return -EINVAL;
    struct pa_birth *birth = (struct pa_birth *)region;
    *birth = (struct pa_birth){
        .segment = segment,
        .worker_stack = region + PA_STACK_SIZE,
        .setup = *setup,
        .rights = {.identity = identity, .pid = setup->program_pid},
        .limits = atomic_load_explicit(&segment->header.limits, memory_order_acquire),
    };
    pa_capabilities(birth->rights.pid, birth->rights.effective);
    birth->rights.watched = pa_opens_all(birth->rights.effective);
    pa_keep_collect(&birth->keep, segment, region);
    /* A signal between the clone and the child's own settings would run the program's handler. */
    sigset_t all, saved;
    sigfillset(&all);
    sigprocmask(SIG_SETMASK, &all, &saved);
    *pidfd = -1;
    pid_t pid = clone(pa_spawner_main, region + PA_STACK_SIZE, CLONE_AS, birth, pidfd);
    int error = errno;
    sigprocmask(SIG_SETMASK, &saved, NULL);
    return pid < 0 ? -error : pid;
}
