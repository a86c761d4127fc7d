/* procaio/csrc/memory.c - what is done to the program's own memory: msync, mtouch, mlock.
 *
 * Workers have address spaces of their own, so threads of the program do this, started on demand
 * and without the interpreter lock.  A request takes its usual way through a slot: a thread moves it
 * to EXECUTING and DONE as a worker would, so state, cancelling and counting know no difference.
 *
 * One lock guards the queue, and all that threads touch of a pool.  A pool that goes takes its jobs
 * back under it (memory_forget); a thread that is stuck in a system call then finds nobody to tell.
 * The memory that it works on is held until it is done all the same: else the program could unmap it
 * and use its addresses for something else.
 *
 * Idle threads end before the program forks: what is left in a child of a program with many threads
 * is for others to worry about, Python to begin with, which warns of it.
 */
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "../../workers/calls.h"
#include "core.h"

enum { MOST_THREADS = 4, IDLE_SECONDS = 10, STACK_SIZE = 64 << 10, LARGEST_STACK = 32 << 20 };
#define LONGEST_EXIT_NS UINT64_C(10000000)

struct job {
    struct job *next;
    Pool *pool; /* NULL: it has gone */
    uint32_t entry, lane;
    char *address;
    Py_buffer *view;  /* of a request that was given up while it ran */
    PyObject *target; /* likewise */
    struct pa_slot slot; /* a copy: workers may write to the one that is shared */
};

struct thread {
    pthread_t id;
    bool is_there;
    bool is_busy; /* what it does may take for ever */
    bool is_joined; /* by whoever has told it to leave */
};

static struct {
    pthread_mutex_t lock;
    pthread_cond_t work;
    struct thread all[MOST_THREADS];
    bool leaving;         /* idle ones are to go */
    struct job *waiting; /* by priority */
    struct job *running;
    struct job *abandoned; /* done; what they hold is let go of with the interpreter lock */
    unsigned threads, idle, waiting_count;
} memory = {.lock = PTHREAD_MUTEX_INITIALIZER, .work = PTHREAD_COND_INITIALIZER};

bool memory_is_for(enum pa_opcode op)
{
    return op >= PA_OP_MSYNC && op <= PA_OP_MLOCKALL;
}

int64_t memory_run(struct pa_slot *slot, char *address)
{
    const struct pa_call call = {.slot = slot, .data = address};
    int64_t result;
    do
        result = pa_ops[slot->op].run(&call);
    while (result == -EINTR && pa_ops[slot->op].again_on_eintr);
    return result;
}

/* -- threads ---------------------------------------------------------------------------------- */

static struct pa_slot *slot_of(const struct job *job)
{
    return &job->pool->segment->slots[pa_entry_index(job->entry)];
}

static bool move(const struct job *job, enum pa_phase from, uint32_t owner, enum pa_phase to)
{
    uint32_t generation = pa_entry_generation(job->entry);
    return pa_state_move(slot_of(job), pa_state_word(from, owner, generation), to, THREAD_OWNER,
                         generation, PA_WORKER);
}

/* False: it was cancelled, or its pool has gone. */
static bool begin(const struct job *job)
{
    return job->pool && move(job, PA_READY, 0, PA_EXECUTING);
}

/* True: the pool has it now. */
static bool end(struct job *job, int64_t result)
{
    if (!job->pool)
        return false;
    slot_of(job)->result = result;
    if (!move(job, PA_EXECUTING, THREAD_OWNER, PA_DONE))
        return false;
    Pool *pool = job->pool;
    job->next = NULL;
    *(pool->jobs_done ? &pool->last_job_done->next : &pool->jobs_done) = job;
    pool->last_job_done = job;
    atomic_fetch_add_explicit(&pool->jobs_done_count, 1, memory_order_release);
    pa_signal_program(pool->segment, pool->event_fd);
    return true;
}

static void take_off(struct job **list, const struct job *job)
{
    while (*list != job)
        list = &(*list)->next;
    *list = job->next;
}

static void work_on(struct thread *self, struct job *job)
{
    bool delivered = false;
    job->next = memory.running;
    memory.running = job;
    if (begin(job)) {
        self->is_busy = true;
        pthread_mutex_unlock(&memory.lock);
        int64_t result = memory_run(&job->slot, job->address);
        pthread_mutex_lock(&memory.lock);
        self->is_busy = false;
        take_off(&memory.running, job);
        delivered = end(job, result);
    } else {
        take_off(&memory.running, job);
    }
    if (job->target) {
        job->next = memory.abandoned;
        memory.abandoned = job;
    } else if (!delivered) {
        free(job);
    }
}

/* False: nothing has come for a long time. */
static bool wait_for_work(void)
{
    struct timespec until;
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += IDLE_SECONDS;
    int error = 0;
    memory.idle++;
    while (!memory.waiting && !memory.leaving && !error)
        error = pthread_cond_timedwait(&memory.work, &memory.lock, &until);
    memory.idle--;
    return memory.waiting != NULL;
}

static void *thread_main(void *context)
{
    struct thread *self = context;
    pthread_mutex_lock(&memory.lock);
    while (memory.waiting || wait_for_work()) {
        struct job *job = memory.waiting;
        memory.waiting = job->next;
        memory.waiting_count--;
        work_on(self, job);
    }
    memory.threads--;
    if (!self->is_joined)
        pthread_detach(self->id);
    self->is_there = false;
    pthread_mutex_unlock(&memory.lock);
    return NULL;
}

static struct thread *vacant_thread(void)
{
    struct thread *thread = memory.all;
    while (thread->is_there)
        thread++;
    return thread;
}

/* Signals are for the program's other threads. */
static int start_thread(void)
{
    struct thread *thread = vacant_thread();
    pthread_attr_t attributes;
    sigset_t all, before;
    int error = pthread_attr_init(&attributes);
    if (error)
        return error;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    /* Libraries with much thread-local data make a small stack impossible: a larger one, then. */
    for (size_t size = STACK_SIZE; size <= LARGEST_STACK; size *= 8) {
        pthread_attr_setstacksize(&attributes, size);
        error = pthread_create(&thread->id, &attributes, thread_main, thread);
        if (error != EINVAL)
            break;
    }
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    pthread_attr_destroy(&attributes);
    if (error)
        return error;
    thread->is_there = true; /* it waits for the lock */
    thread->is_busy = false;
    thread->is_joined = false;
    memory.threads++;
    return 0;
}

/* -- the program's side ------------------------------------------------------------------------ */

static void enqueue(struct job *job)
{
    struct job **at = &memory.waiting;
    while (*at && (*at)->lane <= job->lane)
        at = &(*at)->next;
    job->next = *at;
    *at = job;
    memory.waiting_count++;
}

/* Lets go of what abandoned jobs have held, once they are done. */
void memory_sweep(void)
{
    pthread_mutex_lock(&memory.lock);
    struct job *job = memory.abandoned;
    memory.abandoned = NULL;
    pthread_mutex_unlock(&memory.lock);
    while (job) {
        struct job *next = job->next;
        if (job->view) {
            PyBuffer_Release(job->view);
            PyMem_Free(job->view);
        } else if (Buffer_Check(job->target)) {
            buffer_unexport((Buffer *)job->target);
        }
        Py_DECREF(job->target);
        free(job);
        job = next;
    }
}

/* The slot is READY already. */
int memory_submit(Pool *pool, Request *request, uint32_t index)
{
    struct pa_slot *slot = &pool->segment->slots[index];
    memory_sweep();
    struct job *job = malloc(sizeof *job);
    if (!job)
        return ENOMEM;
    uint32_t word = atomic_load_explicit(&slot->state, memory_order_relaxed);
    *job = (struct job){.pool = pool,
                        .entry = pa_entry(index, pa_state_generation(word)),
                        .lane = (uint32_t)(4 - request->pri),
                        .address = request->address};
    job->slot.op = request->op;
    job->slot.length = request->length;
    job->slot.flags = request->flags;
    int error = 0;
    pthread_mutex_lock(&memory.lock);
    enqueue(job);
    pthread_cond_signal(&memory.work);
    /* One that was woken counts as idle until it has the lock: so do the jobs that it will take. */
    if (memory.waiting_count > memory.idle && memory.threads < MOST_THREADS)
        error = start_thread();
    if (memory.threads > 0) {
        error = 0; /* one of those will come to it */
    } else {
        take_off(&memory.waiting, job);
        memory.waiting_count--;
    }
    pthread_mutex_unlock(&memory.lock);
    if (error)
        free(job);
    return error;
}

/* The one that would be begun last of the pool's jobs in `lane` and below. */
bool memory_take_last(Pool *pool, uint32_t lane, uint32_t *entry)
{
    struct job *last = NULL;
    pthread_mutex_lock(&memory.lock);
    for (struct job *job = memory.waiting; job; job = job->next)
        if (job->pool == pool && job->lane >= lane)
            last = job;
    if (last) {
        take_off(&memory.waiting, last);
        memory.waiting_count--;
        *entry = last->entry;
    }
    pthread_mutex_unlock(&memory.lock);
    bool found = last != NULL;
    free(last);
    return found;
}

bool memory_next_done(Pool *pool, uint32_t *entry)
{
    if (atomic_load_explicit(&pool->jobs_done_count, memory_order_acquire) == 0)
        return false;
    pthread_mutex_lock(&memory.lock);
    struct job *job = pool->jobs_done;
    pool->jobs_done = job->next;
    atomic_fetch_sub_explicit(&pool->jobs_done_count, 1, memory_order_relaxed);
    pthread_mutex_unlock(&memory.lock);
    *entry = job->entry;
    free(job);
    return true;
}

/* What the request holds, the job holds from now on. */
static void keep_memory(struct job *job)
{
    Request *request = job->pool->in_flight[pa_entry_index(job->entry)];
    job->pool = NULL;
    if (!request)
        return;
    job->view = request->view;
    job->target = request->target;
    request->view = NULL;
    request->exports = false;
    request->target = NULL;
}

/* The pool goes: nobody touches it from here on. */
void memory_forget(Pool *pool)
{
    uint32_t entry;
    pthread_mutex_lock(&memory.lock);
    for (struct job *job = memory.waiting; job; job = job->next)
        job->pool = job->pool == pool ? NULL : job->pool;
    for (struct job *job = memory.running; job; job = job->next)
        if (job->pool == pool)
            keep_memory(job);
    pthread_mutex_unlock(&memory.lock);
    while (memory_next_done(pool, &entry))
        ;
}

/* How many the system counts.  Those that were joined may be among them for a moment. */
static uint64_t count_threads(void)
{
    struct stat st;
    return stat("/proc/self/task", &st) < 0 ? 0 : st.st_nlink;
}

void memory_before_fork(void)
{
    pthread_t idle[MOST_THREADS];
    unsigned count = 0;
    uint64_t before = count_threads(), until_ns = pa_now_ns() + LONGEST_EXIT_NS;
    pthread_mutex_lock(&memory.lock);
    for (int i = 0; i < MOST_THREADS && !memory.waiting; i++)
        if (memory.all[i].is_there && !memory.all[i].is_busy) {
            memory.all[i].is_joined = true;
            idle[count++] = memory.all[i].id;
        }
    memory.leaving = count > 0;
    pthread_cond_broadcast(&memory.work);
    pthread_mutex_unlock(&memory.lock);
    for (unsigned i = 0; i < count; i++)
        pthread_join(idle[i], NULL);
    pthread_mutex_lock(&memory.lock);
    memory.leaving = false;
    pthread_mutex_unlock(&memory.lock);
    while (count > 0 && count_threads() > before - count && pa_now_ns() < until_ns)
        syscall(SYS_sched_yield);
}

/* In a forked child: the threads are not there, and the lock may be held by one of them. */
void memory_after_fork(void)
{
    memory.lock = (pthread_mutex_t)PTHREAD_MUTEX_INITIALIZER;
    memory.work = (pthread_cond_t)PTHREAD_COND_INITIALIZER;
    memory.waiting = memory.running = memory.abandoned = NULL;
    memory.threads = memory.idle = memory.waiting_count = 0;
    memset(memory.all, 0, sizeof memory.all);
}
