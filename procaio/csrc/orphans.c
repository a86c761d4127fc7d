/* procaio/csrc/orphans.c - descriptors that a dead process has left open in the shared table.
 *
 * A worker that dies between opening a file and reporting it leaves a descriptor that nobody knows
 * by number, but it carries the mark of ops.c: O_ASYNC.  That flag cannot be taken off again, so what
 * the program takes over gets a second mark, F_SETSIG, which belongs to the open file too and says
 * nothing without an owner (SIGIO is what would be sent anyway).
 *
 * Other workers' descriptors, of this pool or of another one, are marked while they are on their
 * way.  So what is marked at the time of death is only a suspect; F_SETSIG tells it from a later file
 * under the same number.  It is an orphan if it is still a suspect when every request that was on
 * its way at that time, in any pool, has ended.  Suspects are marked before the requests are noted:
 * so whoever opened what was marked is noted.
 */
#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core.h"

/* Values of the second mark. */
#define SUSPECT SIGURG
#define TAKEN SIGIO
#define CLOSING SIGWINCH

/* One hunt for the whole process, because the descriptor table is one. */
static struct {
    int *suspects;
    size_t count, room;
    bool on;
    bool failed; /* no memory to note everything: it begins again */
} hunt;

static bool is_workers(int fd)
{
    int flags = fcntl(fd, F_GETFL);
    return flags >= 0 && flags & O_ASYNC && fcntl(fd, F_GETOWN) == 0;
}

bool orphans_is_one(int fd)
{
    int second = is_workers(fd) ? fcntl(fd, F_GETSIG) : TAKEN;
    return second != TAKEN && second != CLOSING;
}

/* Calls `visit` for every open descriptor. */
static void each_descriptor(void (*visit)(int fd))
{
    DIR *directory = opendir("/proc/self/fd");
    if (!directory) { /* no descriptor left to look with, so the limit is small enough to count */
        struct rlimit limit;
        if (getrlimit(RLIMIT_NOFILE, &limit) == 0)
            for (int fd = 0; fd < (int)limit.rlim_cur && fd < 1 << 20; fd++)
                visit(fd);
        return;
    }
    struct dirent *entry;
    while ((entry = readdir(directory))) {
        int fd = atoi(entry->d_name);
        if (entry->d_name[0] != '.' && fd != dirfd(directory))
            visit(fd);
    }
    closedir(directory);
}

static void suspect(int fd)
{
    if (!orphans_is_one(fd))
        return;
    if (hunt.count == hunt.room) {
        size_t room = hunt.room ? 2 * hunt.room : 16;
        int *grown = realloc(hunt.suspects, room * sizeof *grown);
        if (!grown) {
            hunt.failed = true;
            return;
        }
        hunt.suspects = grown;
        hunt.room = room;
    }
    if (fcntl(fd, F_SETSIG, SUSPECT) == 0)
        hunt.suspects[hunt.count++] = fd;
}

static void note_requests(Pool *pool)
{
    if (!pool->noted && !(pool->noted = malloc(PA_NSLOTS * sizeof *pool->noted))) {
        hunt.failed = true;
        return;
    }
    pool->noted_from = 0;
    for (uint32_t index = 0; index < PA_NSLOTS; index++) {
        uint32_t word =
            atomic_load_explicit(&pool->segment->slots[index].state, memory_order_acquire);
        enum pa_phase phase = pa_state_phase(word);
        bool on_its_way = phase == PA_EXECUTING || phase == PA_DONE || phase == PA_ABORTED;
        pool->noted[index] = on_its_way ? word : 0;
    }
}

void orphans_hunt(void)
{
    hunt.on = true;
    hunt.failed = false;
    hunt.count = 0;
    each_descriptor(suspect);
    for (Pool *pool = open_pools; pool; pool = pool->next_open)
        if (pool->fork_count == fork_count)
            note_requests(pool);
}

/* Called before the dead worker's requests are looked at. */
void orphans_look_for(Pool *pool, uint32_t worker)
{
    uint32_t activity =
        atomic_load_explicit(&pool->segment->workers[worker].activity, memory_order_relaxed);
    if (activity == PA_SEARCHING || activity == PA_SLEEPING)
        return;
    for (uint32_t index = 0; index < PA_NSLOTS; index++) {
        Request *request = pool->in_flight[index];
        uint32_t word =
            atomic_load_explicit(&pool->segment->slots[index].state, memory_order_acquire);
        bool opens = request && (pa_ops[request->op].opens ||
                                 pool->segment->slots[index].call_flags & PA_RESERVE);
        if (opens && pa_state_owner(word) == worker + 1 &&
            (pa_state_phase(word) == PA_EXECUTING || pa_state_phase(word) == PA_ABORTED)) {
            orphans_hunt();
            return;
        }
    }
}

static bool anything_on_its_way(Pool *pool)
{
    for (; pool->noted_from < PA_NSLOTS; pool->noted_from++) {
        uint32_t then = pool->noted[pool->noted_from];
        uint32_t now = atomic_load_explicit(&pool->segment->slots[pool->noted_from].state,
                                            memory_order_acquire);
        if (then != 0 && pa_state_generation(now) == pa_state_generation(then) &&
            pa_state_phase(now) != PA_FREE)
            return true;
    }
    return false;
}

/* A directory that is read in several steps is open between them. */
static bool is_parked(int fd)
{
    for (Pool *pool = open_pools; pool; pool = pool->next_open)
        for (uint32_t index = 0; index < PA_NSLOTS; index++)
            if (pool->in_flight[index] && pool->in_flight[index]->step_open &&
                pool->in_flight[index]->fd == fd)
                return true;
    return false;
}

void orphans_forget(Pool *pool)
{
    free(pool->noted);
    pool->noted = NULL;
}

void orphans_sweep(Pool *pool)
{
    if (likely(!hunt.on))
        return;
    if (unlikely(hunt.failed)) {
        orphans_hunt();
        return;
    }
    for (Pool *each = open_pools; each; each = each->next_open)
        if (each->noted && each->fork_count == fork_count && anything_on_its_way(each))
            return;
    for (size_t i = 0; i < hunt.count; i++) {
        int fd = hunt.suspects[i];
        if (orphans_is_one(fd) && fcntl(fd, F_GETSIG) == SUSPECT && !is_parked(fd))
            orphans_close(pool, fd);
    }
    for (Pool *each = open_pools; each; each = each->next_open)
        orphans_forget(each);
    hunt.on = false;
}

/* Nobody wants what a worker has opened.  Closing a file of a server that does not answer can take for
 * ever: so another worker does that, and the program only what cannot block, or if there is none and
 * no sign of such a server.  Else it stays for the hunt after the death of who waits for it. */
void orphans_close(Pool *pool, int fd)
{
    bool is_path = fcntl(fd, F_SETSIG, CLOSING) < 0;
    if (!is_path && queue_close(pool, fd))
        return;
    if (is_path || !pool_some_cannot_die())
        close(fd);
    else
        fcntl(fd, F_SETSIG, 0);
}

bool orphans_is_closing(int fd)
{
    return is_workers(fd) && fcntl(fd, F_GETSIG) == CLOSING;
}

/* The program takes over what a worker has opened: it is nobody's orphan from now on. */
void orphans_adopt(int fd)
{
    fcntl(fd, F_SETSIG, TAKEN);
}

static void close_marked(int fd)
{
    if (orphans_is_one(fd))
        close(fd);
}

/* In a forked child: copies of what the parent's workers had on its way.  Only while the child has
 * no requests of its own. */
void orphans_after_fork(void)
{
    hunt.on = false;
    for (Pool *pool = open_pools; pool; pool = pool->next_open)
        if (pool->fork_count == fork_count && pool->nreqs > 0)
            return;
    each_descriptor(close_marked);
}

/* -- what a dead spawner was reading ------------------------------------------------------------- */

static struct {
    const Pool *pool;
    int pid;
} dead_spawner;

/* The one before counts as well: it may have been buried first.  Not those before that: a spawner
 * made the next one since, and had read what it wanted. */
static bool is_worker(const Pool *pool, int pid)
{
    for (uint32_t worker = 0; worker < PA_MAX_WORKERS; worker++)
        if (pool->pids[worker] == pid || pool->last_pids[worker] == pid)
            return true;
    return false;
}

/* Its own maps (child.c), what is told of a descriptor, or a worker's stat (spawner.c).  The program
 * may read these, too: what the spawner opens is marked with O_DSYNC. */
static void close_what_spawner_read(int fd)
{
    char path[64], text[64], name[8], after;
    int pid;
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    ssize_t size = readlink(path, text, sizeof text - 1);
    text[size > 0 ? size : 0] = '\0';
    int count = sscanf(text, "/proc/%d/%7[a-z]%c", &pid, name, &after);
    int flags = count < 2 ? -1 : fcntl(fd, F_GETFL);
    if (flags < 0 || !(flags & O_DSYNC))
        return;
    bool told = count == 3 && after == '/' && strcmp(name, "fdinfo") == 0;
    bool maps = count == 2 && strcmp(name, "maps") == 0;
    bool stat = count == 2 && strcmp(name, "stat") == 0;
    if (((told || maps) && pid == dead_spawner.pid) || (stat && is_worker(dead_spawner.pool, pid)))
        close(fd);
}

void orphans_of_spawner(Pool *pool, int pid)
{
    pool_know_workers(pool);
    dead_spawner.pool = pool;
    dead_spawner.pid = pid;
    each_descriptor(close_what_spawner_read);
}

/* -- what has no mark ------------------------------------------------------------------------- */

static struct {
    uint64_t inode;
    uint32_t device;
} dead_copy;

static void close_path_of_copy(int fd)
{
    struct stat st;
    int flags = fcntl(fd, F_GETFL);
    if (flags >= 0 && flags & O_PATH && fstat(fd, &st) == 0 && st.st_ino == dead_copy.inode &&
        (uint32_t)st.st_dev == dead_copy.device)
        close(fd);
}

/* A worker that has died had, or was about to have, the destination of a copy open as O_PATH.  It has
 * just been made: nobody else has. */
void orphans_close_path(uint64_t inode, uint32_t device)
{
    dead_copy.inode = inode;
    dead_copy.device = device;
    each_descriptor(close_path_of_copy);
}
