/* procaio/csrc/orphans.c - descriptors that a dead process has left open in the shared table.
 *
 * A worker that dies between opening a file and reporting it leaves a descriptor that nobody knows
 * by number, but it carries the mark of ops.c (O_ASYNC).  Other workers' descriptors carry the mark
 * too while they are on their way.  So what is marked at the time of death is only a suspect; it is
 * an orphan if it is still marked, and still the same file, when every request that was executing
 * at that time has ended.
 */
#include <dirent.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core.h"

struct suspect {
    int fd;
    dev_t device;
    ino_t inode;
};

struct orphan {
    struct suspect *suspects;
    size_t count;
    uint32_t executing[PA_NSLOTS]; /* the words of the slots at that time; 0 = not executing */
};

/* An O_ASYNC that came with open() cannot be taken off again.  So the program puts a signal beside
 * it when it takes a descriptor over (results.c); and where it uses O_ASYNC itself there is an
 * owner.  Neither is there as long as a descriptor is on its way. */
static bool is_marked(int fd)
{
    struct f_owner_ex owner = {.pid = 0};
    int flags = fcntl(fd, F_GETFL);
    return flags >= 0 && flags & O_ASYNC && fcntl(fd, F_GETSIG) == 0 &&
           fcntl(fd, F_GETOWN_EX, &owner) == 0 && owner.pid == 0;
}

static bool is_same(const struct suspect *suspect)
{
    struct stat st;
    return fstat(suspect->fd, &st) == 0 && st.st_dev == suspect->device &&
           st.st_ino == suspect->inode;
}

/* Calls `visit` for every open descriptor. */
static void each_descriptor(void (*visit)(void *context, int fd), void *context)
{
    DIR *directory = opendir("/proc/self/fd");
    if (!directory)
        return;
    struct dirent *entry;
    while ((entry = readdir(directory))) {
        int fd = atoi(entry->d_name);
        if (entry->d_name[0] != '.' && fd != dirfd(directory))
            visit(context, fd);
    }
    closedir(directory);
}

static void suspect(void *context, int fd)
{
    struct orphan *orphan = context;
    struct stat st;
    if (!is_marked(fd) || fstat(fd, &st) < 0)
        return;
    struct suspect *grown =
        realloc(orphan->suspects, (orphan->count + 1) * sizeof *orphan->suspects);
    if (!grown)
        return;
    orphan->suspects = grown;
    grown[orphan->count++] = (struct suspect){.fd = fd, .device = st.st_dev, .inode = st.st_ino};
}

void orphans_forget(Pool *pool)
{
    if (pool->orphans)
        free(pool->orphans->suspects);
    free(pool->orphans);
    pool->orphans = NULL;
}

/* Called before the dead worker's requests are looked at. */
void orphans_look_for(Pool *pool, uint32_t worker)
{
    uint32_t op = atomic_load_explicit(&pool->segment->workers[worker].op, memory_order_relaxed);
    if (op < PA_NOPS && !pa_ops[op].opens)
        return;
    if (!pool->orphans && !(pool->orphans = calloc(1, sizeof *pool->orphans)))
        return;
    free(pool->orphans->suspects);
    pool->orphans->suspects = NULL;
    pool->orphans->count = 0;
    each_descriptor(suspect, pool->orphans);
    for (uint32_t index = 0; index < PA_NSLOTS; index++) {
        uint32_t word =
            atomic_load_explicit(&pool->segment->slots[index].state, memory_order_acquire);
        bool busy = pa_state_phase(word) == PA_EXECUTING && pa_state_owner(word) != worker + 1;
        bool waits = pa_state_phase(word) == PA_DONE;
        pool->orphans->executing[index] = busy || waits ? word : 0;
    }
}

static bool on_its_way(Pool *pool, uint32_t index)
{
    uint32_t then = pool->orphans->executing[index];
    if (then == 0)
        return false;
    uint32_t now = atomic_load_explicit(&pool->segment->slots[index].state, memory_order_acquire);
    return pa_state_generation(now) == pa_state_generation(then) && pa_state_phase(now) != PA_FREE;
}

static bool is_parked(Pool *pool, int fd)
{
    for (uint32_t index = 0; index < PA_NSLOTS; index++)
        if (pool->in_flight[index] && pool->in_flight[index]->dir_open &&
            pool->in_flight[index]->fd == fd)
            return true;
    return false;
}

void orphans_sweep(Pool *pool)
{
    struct orphan *orphan = pool->orphans;
    if (!orphan)
        return;
    for (uint32_t index = 0; index < PA_NSLOTS; index++)
        if (on_its_way(pool, index))
            return;
    for (size_t i = 0; i < orphan->count; i++) {
        struct suspect *it = &orphan->suspects[i];
        if (is_marked(it->fd) && is_same(it) && !is_parked(pool, it->fd))
            close(it->fd);
    }
    orphans_forget(pool);
}

/* -- after the spawner's death: pidfds of workers that it had not recorded ---------------------- */

static int pid_of_pidfd(int fd)
{
    char path[64], text[512];
    snprintf(path, sizeof path, "/proc/self/fdinfo/%d", fd);
    int info = open(path, O_RDONLY | O_CLOEXEC);
    if (info < 0)
        return 0;
    ssize_t size = read(info, text, sizeof text - 1);
    close(info);
    if (size <= 0)
        return 0;
    text[size] = '\0';
    const char *line = strstr(text, "\nPid:");
    return line ? atoi(line + 5) : 0;
}

static void close_unrecorded(void *context, int fd)
{
    Pool *pool = context;
    int pid = pid_of_pidfd(fd);
    if (pid == 0)
        return;
    for (uint32_t worker = 0; worker < PA_MAX_WORKERS; worker++) {
        struct pa_worker *record = &pool->segment->workers[worker];
        if (atomic_load(&record->pid) == pid && atomic_load(&record->life) != PA_VACANT &&
            atomic_load(&record->pidfd) < 0)
            close(fd);
    }
}

void orphans_close_pidfds(Pool *pool)
{
    each_descriptor(close_unrecorded, pool);
}

/* -- what a child reads before it sheds the program's memory (workers/child.c) ------------------ */

struct dead {
    const Pool *pool;
    int pid;
    bool all_workers;
};

static bool is_dead(const struct dead *dead, int pid)
{
    if (pid == dead->pid)
        return true;
    for (uint32_t worker = 0; dead->all_workers && worker < PA_MAX_WORKERS; worker++)
        if (atomic_load(&dead->pool->segment->workers[worker].pid) == pid)
            return true;
    return false;
}

static void close_maps(void *context, int fd)
{
    char path[64], text[64], after;
    int pid, end = 0;
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    ssize_t size = readlink(path, text, sizeof text - 1);
    text[size > 0 ? size : 0] = '\0';
    if (sscanf(text, "/proc/%d/maps%n%c", &pid, &end, &after) == 1 && end > 0 &&
        is_dead(context, pid))
        close(fd);
}

/* A child that is killed in its first millisecond leaves its /proc/self/maps open. */
void orphans_close_maps(Pool *pool, int pid, bool all_workers)
{
    struct dead dead = {.pool = pool, .pid = pid, .all_workers = all_workers};
    each_descriptor(close_maps, &dead);
}
