/* procaio/csrc/queue.c - the way of a request: overflow, slot, pending.
 *
 * A request that finds no free slot waits in an overflow queue of the program, one for each
 * priority; it gets a slot when one is freed, the highest priority first.  If all slots are taken
 * and some of them hold requests of a lower priority that no worker has begun, those are taken back
 * to make room.  A slot stays with its request until the callback's arguments are made.
 *
 * Every queue holds one reference to each of its requests.
 */
#include <unistd.h>

#include "queue.h"

#define GENERATION_MASK ((1u << (32 - PA_GENERATION_SHIFT)) - 1u)
#define READDIR_STEP (32u << 10)
#define LOAD_STEP (64u << 10) /* most files are smaller: one round trip */
#define FETCHED_AHEAD 16384
#define TAKE_BACK 16
#define INLINE_OWNER 1u /* a pool without workers runs its slots as worker 0 */

/* -- lists ------------------------------------------------------------------------------------ */

static void append(struct queue *queue, Request *request)
{
    request->next = NULL;
    request->previous = queue->last;
    if (queue->last)
        queue->last->next = request;
    else
        queue->first = request;
    queue->last = request;
    queue->length++;
}

static void prepend(struct queue *queue, Request *request)
{
    request->previous = NULL;
    request->next = queue->first;
    if (queue->first)
        queue->first->previous = request;
    else
        queue->last = request;
    queue->first = request;
    queue->length++;
}

static void unlink_(struct queue *queue, Request *request)
{
    if (request->previous)
        request->previous->next = request->next;
    else
        queue->first = request->next;
    if (request->next)
        request->next->previous = request->previous;
    else
        queue->last = request->previous;
    request->next = request->previous = NULL;
    queue->length--;
}

void queue_enter_overflow(Pool *pool, Request *request, bool in_front)
{
    (in_front ? prepend : append)(&pool->overflow[lane_of(request)], request);
    pool->overflow_length++;
    request->place = AT_OVERFLOW;
}

void queue_leave_overflow(Pool *pool, Request *request)
{
    unlink_(&pool->overflow[lane_of(request)], request);
    pool->overflow_length--;
    request->place = AT_NEW;
}

void queue_push_pending(Pool *pool, Request *request)
{
    append(&pool->pending[lane_of(request)], request);
    pool->pending_length++;
    pool->nreqs += request->is_husk; /* so that poll_cb comes to it; see deliver.c */
    request->place = AT_PENDING;
}

Request *queue_first_of(struct queue *queues)
{
    for (uint32_t lane = 0; lane < PA_NLANES; lane++)
        if (queues[lane].first)
            return queues[lane].first;
    return NULL;
}

Request *queue_next_pending(Pool *pool)
{
    Request *request = pool->pending_length ? queue_first_of(pool->pending) : NULL;
    if (request) {
        unlink_(&pool->pending[lane_of(request)], request);
        pool->pending_length--;
    }
    return request;
}

/* Whether this needs no worker any more, is what would be delivered next, and nobody but who awaits it
 * wants to know: then it is out of the queue, and to be delivered. */
bool queue_take_at_hand(Pool *pool, Request *request)
{
    bool is_wanted = request->is_group || request->callback || request->group || request->waiters;
    if (request->place != AT_PENDING || request->slot != NO_SLOT || is_wanted ||
        queue_first_of(pool->pending) != request)
        return false;
    return queue_next_pending(pool) == request;
}

/* -- slots ------------------------------------------------------------------------------------ */

static uint32_t next_generation(Pool *pool, uint32_t index)
{
    return pool->generations[index] = (pool->generations[index] + 1) & GENERATION_MASK;
}

/* Whether the word of a slot that holds a request can be.  If not, somebody has written over it. */
bool queue_is_sound(const Pool *pool, const Request *request, uint32_t word)
{
    uint32_t owner = pa_state_owner(word);
    enum pa_phase phase = pa_state_phase(word);
    if (pa_state_generation(word) != pool->generations[request->slot])
        return false;
    if (phase == PA_READY)
        return owner == 0;
    if (phase != PA_EXECUTING && phase != PA_DONE && phase != PA_ABORTED)
        return false;
    return memory_is_for(request->op) ? owner == THREAD_OWNER
                                      : owner > 0 && owner <= PA_MAX_WORKERS;
}

void queue_free_slot(Pool *pool, Request *request)
{
    uint32_t index = request->slot;
    pa_state_set(&pool->segment->slots[index], PA_FREE, pool->generations[index]);
    pool->in_flight[index] = NULL;
    pool->free_slots[pool->free_count++] = index;
    request->slot = NO_SLOT;
}

const char *queue_path(PyObject *path, size_t *length)
{
    const char *text;
    Py_ssize_t size;
    if (PyBytes_Check(path)) {
        text = PyBytes_AS_STRING(path);
        size = PyBytes_GET_SIZE(path);
    } else {
        text = PyUnicode_AsUTF8AndSize(path, &size); /* it is there: arguments.c sees to it */
    }
    *length = (size_t)size > LONGEST_PATH ? LONGEST_PATH : (size_t)size;
    return text;
}

size_t queue_paths_size(const Request *request)
{
    size_t length, length2;
    if (!request->fspath)
        return 0;
    queue_path(request->fspath, &length);
    if (!request->fspath2)
        return length + 1;
    queue_path(request->fspath2, &length2);
    return length + 1 + length2 + 1;
}

static void put_path(char *at, const char *path, size_t length)
{
    memcpy(at, path, length);
    at[length] = '\0';
}

/* The request's own block, if it needs one and has none yet. */
static int give_block(Pool *pool, Request *request, uint64_t size, bool reserved)
{
    if (request->block.at || size == 0)
        return 0;
    int error = pool_alloc(pool, size, reserved, &request->block);
    if (error) {
        PyErr_Clear();
        return -error;
    }
    request->arena_segment = pa_arena_find(pool->arena, request->block.at, size,
                                           &request->arena_offset);
    return 0;
}

/* Paths go into the slot if they fit, else to the start of the request's block. */
static int fill_paths(Pool *pool, Request *request, struct pa_slot *slot)
{
    size_t length, length2 = 0;
    const char *path = queue_path(request->fspath, &length), *path2 = NULL;
    if (request->fspath2)
        path2 = queue_path(request->fspath2, &length2);
    size_t size = queue_paths_size(request);
    char *at = slot->payload;
    if (size > PA_INLINE) {
        int error = give_block(pool, request, size, true);
        if (error)
            return error;
        at = request->block.at;
        slot->call_flags |= PA_PATHS_IN_ARENA;
    }
    put_path(at, path, length);
    slot->path2_at = (uint32_t)(length + 1);
    if (path2)
        put_path(at + length + 1, path2, length2);
    return 0;
}

/* What comes back has no size of its own, and fits. */
static bool fills_fixed_block(const Request *request)
{
    return request->op == PA_OP_READLINK || request->op == PA_OP_REALPATH ||
           request->op == PA_OP_STATX || request->op == PA_OP_GETXATTR ||
           request->op == PA_OP_LISTXATTR || request->op == PA_OP_FIEMAP ||
           request->op == PA_OP_LIST || request->op == PA_OP_EMPTY;
}

/* Paths that are too long for a slot lie where the answer will, and may need more room than that. */
static uint64_t room_for_answer(const Request *request)
{
    uint64_t paths = request->fspath ? queue_paths_size(request) : 0;
    return paths < request->length ? request->length : paths;
}

/* With what a dead worker has noted.  One that is not wanted any more only removes its part. */
static int noted_flags(const Request *request)
{
    return (request->tells_links ? PA_TELL_LINKS : 0) |
           (request->was_creating ? PA_CREATING : 0) | (request->was_writing ? PA_WRITING : 0) |
           (request->was_copying ? PA_COPYING : 0) |
           (request->cancelled || request->given_up ? PA_STOP : 0);
}

/* 0, or an errno: shared memory has run out. */
int queue_fill_slot(Pool *pool, Request *request, struct pa_slot *slot)
{
    int error = 0;
    slot->op = request->op;
    slot->call_flags = (uint16_t)((request->no_follow ? PA_NO_FOLLOW : 0) |
                                  (request->by_fd ? PA_BY_FD : 0) |
                                  (request->has_argument ? PA_DATA_IS_ARGUMENT : 0));
    if (takes_steps(request)) {
        if (!request->block.at)
            request->length = request->op == PA_OP_LOAD ? LOAD_STEP : READDIR_STEP;
        error = give_block(pool, request, request->length, true);
    } else if (fills_fixed_block(request)) {
        error = give_block(pool, request, room_for_answer(request), true);
    } else if (request->op == PA_OP_READ &&
               (request->block.at || request->arena_segment == PA_NO_SEGMENT)) {
        error = give_block(pool, request, request->length, false);
        if (request->length > PA_LARGEST_BLOCK) /* reserving takes time: the worker does it */
            slot->call_flags |= PA_RESERVE;
    }
    if (!error && request->fspath)
        error = fill_paths(pool, request, slot);
    if (error)
        return error;
    if (takes_notes(request)) /* last: other threads may have been let in */
        slot->call_flags |= (uint16_t)noted_flags(request);
    slot->fd = request->fd;
    slot->fd2 = request->fd2;
    slot->file_offset = request->offset;
    slot->length = request->length;
    slot->flags = request->flags;
    slot->mode = request->mode;
    slot->arena_segment = request->arena_segment;
    slot->arena_offset = request->arena_offset;
    slot->limit = request->limit;
    if (is_batch(request))
        slot->begun = request->begun;
    return 0;
}

/* To the program's own threads; what they cannot take has failed. */
static bool submit_memory(Pool *pool, Request *request, uint32_t index)
{
    int error = memory_submit(pool, request, index);
    if (error) {
        queue_free_slot(pool, request);
        queue_fail(pool, request, error);
    }
    return true;
}

/* A filled slot, FREE or DONE, becomes READY and goes into its lane.  False: the lane is full. */
static bool publish(Pool *pool, Request *request, uint32_t index)
{
    struct pa_slot *slot = &pool->segment->slots[index];
    uint32_t generation = next_generation(pool, index), lane = lane_of(request);
    pa_state_set(slot, PA_READY, generation);
    if (unlikely(memory_is_for(request->op)))
        return submit_memory(pool, request, index);
    if (!pa_lane_push(pool->segment, &pool->lanes, lane, pa_entry(index, generation))) {
        pa_lane_skip_stale(pool->segment, &pool->lanes, lane);
        if (!pa_lane_push(pool->segment, &pool->lanes, lane, pa_entry(index, generation))) {
            pa_state_set(slot, PA_FREE, generation);
            return false;
        }
    }
    pa_wake_after_push(pool->segment);
    return true;
}

/* The next step of a request goes into the same slot. */
static void fill_next_step(const Request *request, struct pa_slot *slot)
{
    slot->op = request->op;
    slot->fd = request->fd;
    slot->file_offset = request->offset;
    slot->length = request->length;
    slot->limit = request->limit - (takes_steps(request) ? request->gathered_size : 0);
    slot->arena_segment = request->arena_segment;
    slot->arena_offset = request->arena_offset;
    slot->call_flags = (uint16_t)(PA_CONTINUE | (slot->call_flags & PA_ONCE));
    if (request->length > PA_LARGEST_BLOCK)
        slot->call_flags |= PA_RESERVE;
}

/* A pool without workers: here and now, in this process. */
static void run_inline(Pool *pool, Request *request, uint32_t index)
{
    struct pa_slot *slot = &pool->segment->slots[index];
    uint32_t generation = next_generation(pool, index);
    pa_state_set(slot, PA_READY, generation);
    pa_state_move(slot, pa_state_word(PA_READY, 0, generation), PA_EXECUTING, INLINE_OWNER,
                  generation, PA_WORKER);
    char *base = NULL, *address = request->address;
    bool own_memory = memory_is_for(request->op);
    const struct pa_data_segment *data = NULL;
    if (slot->arena_segment != PA_NO_SEGMENT) {
        data = &pool->segment->header.data_segments[slot->arena_segment];
        base = pa_arena_base(pool->arena, slot->arena_segment);
    }
    char *out = pa_op_has_out(slot) ? pa_arena_base(pool->arena, slot->out_segment) : NULL;
    Py_BEGIN_ALLOW_THREADS
    slot->result = own_memory ? memory_run(slot, address) : pa_op_run(slot, base, data, out);
    Py_END_ALLOW_THREADS
    pa_state_move(slot, pa_state_word(PA_EXECUTING, INLINE_OWNER, generation), PA_DONE,
                  INLINE_OWNER, generation, PA_WORKER);
    if (result_wants_more(pool, request, slot)) {
        fill_next_step(request, slot);
        run_inline(pool, request, index);
        return;
    }
    queue_push_pending(pool, request);
    pa_signal_program(pool->segment, pool->event_fd);
}

/* max_parallel(0): the program's own threads do nothing then, as there are no workers. */
static bool is_stopped(const Pool *pool)
{
    return !pool->is_inline && pool->wanted == 0;
}

/* For a request that is in no queue.  False: it found no room.  The slot is taken before it is
 * filled, because making shared memory for it may let other threads in. */
static bool dispatch(Pool *pool, Request *request)
{
    if (pool->free_count == 0 || (unlikely(memory_is_for(request->op)) && is_stopped(pool)))
        return false;
    uint32_t index = pool->free_slots[--pool->free_count];
    unsigned forks = fork_count;
    int error = queue_fill_slot(pool, request, &pool->segment->slots[index]);
    if (unlikely(fork_count != forks)) { /* a child that was forked meanwhile: its parent does it */
        struct queue dead = {.first = NULL};
        request->place = AT_DEAD;
        append(&dead, request);
        queue_let_go(&dead);
        return true;
    }
    if (!error && !request->given_up) /* else it only removes its part */
        error = request->error;       /* aborted meanwhile */
    if (!error && unlikely(pool->closed || pool->lost)) { /* nobody would come to it any more */
        queue_clean_up(pool, request);
        error = pool->lost ? EBADF : ECANCELED;
    }
    if (error) {
        pool->free_slots[pool->free_count++] = index;
        queue_fail(pool, request, error);
        return true;
    }
    pool->in_flight[index] = request;
    request->slot = index;
    request->place = AT_SLOT;
    if (pool->is_inline) {
        run_inline(pool, request, index);
    } else if (!publish(pool, request, index)) {
        queue_free_slot(pool, request);
        return false;
    }
    return true;
}

/* Back into the overflow, before all others: true if it was READY. */
static bool take_back(Pool *pool, uint32_t entry)
{
    uint32_t index = pa_entry_index(entry) & (PA_NSLOTS - 1u);
    uint32_t generation = pa_entry_generation(entry);
    uint32_t ready = pa_state_word(PA_READY, 0, generation);
    struct pa_slot *slot = &pool->segment->slots[index];
    Request *request = pool->in_flight[index];
    if (!request || request->step_open ||
        atomic_load_explicit(&slot->state, memory_order_acquire) != ready ||
        !pa_state_move(slot, ready, PA_FREE, 0, generation, PA_PROGRAM))
        return false;
    queue_free_slot(pool, request);
    queue_enter_overflow(pool, request, true);
    return true;
}

/* Takes READY requests of lower lanes back into the overflow, the last ones first. */
static void make_room(Pool *pool, uint32_t lane)
{
    struct pa_segment *segment = pool->segment;
    int taken = 0;
    uint32_t entry;
    for (uint32_t victim = PA_NLANES - 1; victim > lane && taken < TAKE_BACK; victim--) {
        uint32_t head = atomic_load_explicit(&segment->header.heads[victim], memory_order_acquire);
        uint32_t tail = pool->lanes.tails[victim];
        for (; tail - head - 1 < PA_NSLOTS && taken < TAKE_BACK; tail--) {
            entry = atomic_load_explicit(
                &segment->lanes[victim][(tail - 1) & (PA_NSLOTS - 1u)], memory_order_relaxed);
            taken += take_back(pool, entry);
        }
    }
    while (taken < TAKE_BACK && memory_take_last(pool, lane + 1, &entry))
        taken += take_back(pool, entry);
}

void queue_refill(Pool *pool)
{
    while (pool->overflow_length > 0 && pool->free_count > 0) {
        Request *request = queue_first_of(pool->overflow);
        queue_leave_overflow(pool, request);
        if (!dispatch(pool, request)) {
            queue_enter_overflow(pool, request, true);
            return;
        }
    }
}

/* There may be fewer workers than before, or more. */
void queue_wanted_changed(Pool *pool)
{
    uint32_t entry;
    while (is_stopped(pool) && memory_take_last(pool, 0, &entry))
        take_back(pool, entry);
    queue_refill(pool);
}

/* What is made now is much like what waits: for poll.c, which wonders how long that takes. */
static void note_kind(Pool *pool, const Request *request)
{
    pool->same_file = request->op == PA_OP_WRITE && request->fd == pool->last_fd;
    pool->last_op = request->op;
    pool->last_fd = request->fd;
}

void queue_request(Pool *pool, Request *request)
{
    Py_INCREF(request); /* the queues' reference */
    pool->nreqs++;
    pool->totals.submitted++;
    note_kind(pool, request);
    if (unlikely(request->error || pool->lost)) { /* its data are gone already, or the pool's */
        queue_fail(pool, request, request->error ? request->error : EBADF);
        return;
    }
    if (at_once_run(pool, request)) {
        queue_push_pending(pool, request);
        pa_signal_program(pool->segment, pool->event_fd);
        return;
    }
    if (likely(pool->overflow_length == 0) && likely(dispatch(pool, request)))
        return;
    queue_enter_overflow(pool, request, false);
    if (pool->free_count == 0)
        make_room(pool, lane_of(request));
    queue_refill(pool);
}

/* -- results ---------------------------------------------------------------------------------- */

static void send(Pool *pool, Request *request)
{
    request->was_seen = false;
    if (!publish(pool, request, request->slot)) {
        request->error = EAGAIN;
        queue_push_pending(pool, request);
    }
}

static void send_on(Pool *pool, Request *request, struct pa_slot *slot)
{
    fill_next_step(request, slot);
    send(pool, request);
}

/* Nobody has begun it, but that is what the slot says: it is filled anew. */
static void send_again(Pool *pool, Request *request, struct pa_slot *slot)
{
    if (request->step_open)
        fill_next_step(request, slot);
    else
        queue_fill_slot(pool, request, slot); /* it has its block: that cannot fail */
    send(pool, request);
}

/* Small data that are about to be copied: ask for all cache lines now, while other results are seen
 * to.  They come from another core's cache, and one after the other that takes longer than the read. */
static void fetch_ahead(const Request *request, int64_t size)
{
    if (request->kind == RESULT_BYTES && request->block.at && size <= FETCHED_AHEAD)
        for (int64_t at = 0; at < size; at += PA_CACHE_LINE)
            __builtin_prefetch(request->block.at + at);
}

/* Not by the program where it was too slow for somebody: there close(2) may hang. */
void queue_close_step(Request *request)
{
    bool was_slow = request->cancelled || request->ended_early || request->aborted;
    if (request->step_open && was_slow)
        orphans_close(request->pool, request->fd);
    else if (request->step_open)
        close(request->fd);
    request->step_open = false;
}

void queue_reopen_handle(Request *request)
{
    if (request->closes_handle && request->file)
        ((FileHandle *)request->file)->fd = request->fd;
    request->closes_handle = false;
}

/* A worker was to close it, see queue_close().  By now it may be the number of something else. */
bool queue_is_unclosed(const Request *request)
{
    return request->is_husk && request->op == PA_OP_CLOSE && orphans_is_closing(request->fd);
}

/* A worker gives it back: it is older than the program's identity.  It has not begun the call. */
static void accept_refusal(Pool *pool, Request *request, struct pa_slot *slot)
{
    slot->call_flags &= (uint16_t)~PA_REFUSED;
    bool wanted = !request->cancelled && !request->error;
    if (wanted || leaves_part(request) || queue_is_unclosed(request)) {
        send_again(pool, request, slot);
        return;
    }
    queue_free_slot(pool, request);
    queue_reopen_handle(request);
    queue_push_pending(pool, request);
}

/* A worker refuses only what it was given after the program has become another user; or if somebody
 * has written over what it goes by. */
static bool may_be_refused(const Pool *pool)
{
    return pool->renewed || atomic_load_explicit(&pool->segment->header.identity,
                                                 memory_order_relaxed) != pool->identity;
}

/* False: whoever says that it is done cannot have done it. */
bool queue_accept_result(Pool *pool, uint32_t owner, uint32_t entry)
{
    uint32_t index = pa_entry_index(entry);
    Request *request = index < PA_NSLOTS ? pool->in_flight[index] : NULL;
    if (unlikely(!request || request->place != AT_SLOT))
        return false;
    struct pa_slot *slot = &pool->segment->slots[index];
    uint32_t word = atomic_load_explicit(&slot->state, memory_order_acquire);
    uint32_t generation = pool->generations[index];
    if (unlikely(word != pa_state_word(PA_DONE, owner, generation) ||
                 entry != pa_entry(index, generation)))
        return false;
    if (unlikely(slot->call_flags & PA_REFUSED)) {
        identity_doubted(pool);
        if (may_be_refused(pool)) {
            accept_refusal(pool, request, slot);
            return true;
        }
        request->garbled = true;
        queue_fail(pool, request, EIO);
        return false;
    }
    pool->deaths_in_a_row = 0;
    pool->in_crash_loop = false;
    if (unlikely(slot->call_flags & PA_MORE || request->wants_all) &&
        result_wants_more(pool, request, slot) && !request->error)
        send_on(pool, request, slot);
    else {
        fetch_ahead(request, slot->result);
        queue_push_pending(pool, request);
    }
    return true;
}

void queue_harvest_worker(Pool *pool, uint32_t worker)
{
    uint32_t entry;
    while (pa_result_pop(pool->segment, worker, &pool->result_heads[worker], &entry))
        if (unlikely(!queue_accept_result(pool, worker + 1, entry))) {
            pool_distrust(pool, worker);
            break;
        }
}

/* It only grows. */
static uint32_t worker_limit(Pool *pool)
{
    uint32_t limit =
        atomic_load_explicit(&pool->segment->header.worker_limit, memory_order_relaxed);
    uint32_t known = __atomic_load_n(&pool->worker_limit, __ATOMIC_RELAXED);
    if (likely(limit <= known))
        return known;
    known = limit < PA_MAX_WORKERS ? limit : PA_MAX_WORKERS;
    __atomic_store_n(&pool->worker_limit, known, __ATOMIC_RELAXED);
    return known;
}

void queue_harvest(Pool *pool)
{
    for (uint32_t worker = 0, limit = worker_limit(pool); worker < limit; worker++)
        queue_harvest_worker(pool, worker);
    uint32_t entry;
    while (unlikely(memory_next_done(pool, &entry)))
        queue_accept_result(pool, THREAD_OWNER, entry);
}

bool queue_anything_pending(Pool *pool)
{
    if (pool->pending_length > 0 ||
        atomic_load_explicit(&pool->jobs_done_count, memory_order_acquire) > 0)
        return true;
    for (uint32_t worker = 0, limit = worker_limit(pool); worker < limit; worker++)
        if (atomic_load_explicit(&pool->segment->workers[worker].result_tail,
                                 memory_order_acquire) !=
                __atomic_load_n(&pool->result_heads[worker], __ATOMIC_RELAXED) &&
            !pool_is_wild(pool, worker))
            return true;
    return false;
}

uint64_t queue_count_ready(Pool *pool)
{
    uint64_t count = pool->overflow_length;
    for (uint32_t index = 0; index < PA_NSLOTS; index++)
        if (pool->in_flight[index]) {
            uint32_t word =
                atomic_load_explicit(&pool->segment->slots[index].state, memory_order_relaxed);
            count += pa_state_phase(word) == PA_READY;
        }
    return count;
}

uint32_t queue_count_threads(Pool *pool)
{
    uint32_t count = 0;
    for (uint32_t index = 0; index < PA_NSLOTS; index++) {
        const Request *request = pool->in_flight[index];
        uint32_t word =
            atomic_load_explicit(&pool->segment->slots[index].state, memory_order_relaxed);
        count += request && memory_is_for(request->op) && pa_state_phase(word) == PA_EXECUTING;
    }
    return count;
}

/* -- ends other than by a worker -------------------------------------------------------------- */

void queue_fail(Pool *pool, Request *request, int error)
{
    if (!request->error)
        request->error = error;
    queue_push_pending(pool, request);
    pa_signal_program(pool->segment, pool->event_fd);
}

bool queue_withdraw(Request *request)
{
    Pool *pool = request->pool;
    request->cancelled = true;
    pool->totals.cancelled++;
    if (request->place == AT_OVERFLOW) {
        if (leaves_part(request))
            return false; /* see queue_fill_slot() */
        queue_leave_overflow(pool, request);
    } else if (request->place == AT_GROUP) {
        queue_wake_group(request);
        return true;
    } else {
        if (request->place != AT_SLOT)
            return false;
        struct pa_slot *slot = &pool->segment->slots[request->slot];
        uint32_t word = atomic_load_explicit(&slot->state, memory_order_acquire);
        if (leaves_part(request) || pa_state_phase(word) != PA_READY ||
            !pa_state_move(slot, word, PA_FREE, 0, pa_state_generation(word), PA_PROGRAM)) {
            __atomic_fetch_or(&slot->call_flags, PA_STOP, __ATOMIC_RELAXED);
            return false;
        }
        queue_free_slot(pool, request);
    }
    queue_close_step(request); /* now: nobody knows any more whose descriptor that is (orphans.c) */
    queue_reopen_handle(request);
    queue_push_pending(pool, request);
    pa_signal_program(pool->segment, pool->event_fd);
    queue_refill(pool);
    return true;
}

/* -- groups ----------------------------------------------------------------------------------- */

/* Pending at once: the next poll_cb sees whether it has members to wait for. */
void queue_group(Pool *pool, Request *group)
{
    Py_INCREF(group);
    pool->nreqs++;
    pool->totals.submitted++;
    queue_push_pending(pool, group);
    pa_signal_program(pool->segment, pool->event_fd);
}

void queue_let_wait(Pool *pool, Request *group)
{
    append(&pool->groups, group);
    group->place = AT_GROUP;
}

void queue_wake_group(Request *group)
{
    Pool *pool = group->pool;
    unlink_(&pool->groups, group);
    queue_push_pending(pool, group);
    pa_signal_program(pool->segment, pool->event_fd);
}

/* In a forked child, or when a pool goes: no callback, no trace.  Letting go of a request may run
 * code of the program, which may use the pool: so all are taken out first, and their memory freed. */
void queue_abandon(Pool *pool, struct queue *dead)
{
    Request *request;
    deadlines_forget(pool);
    while ((request = queue_first_of(pool->overflow))) {
        queue_leave_overflow(pool, request);
        append(dead, request);
    }
    while ((request = queue_next_pending(pool))) {
        if (request->slot != NO_SLOT)
            pool->in_flight[request->slot] = NULL;
        append(dead, request);
    }
    for (uint32_t index = 0; index < PA_NSLOTS; index++) {
        request = pool->in_flight[index];
        pool->in_flight[index] = NULL;
        if (request && request->place == AT_SLOT)
            append(dead, request);
    }
    while ((request = pool->groups.first)) {
        unlink_(&pool->groups, request);
        append(dead, request);
    }
    pool->nreqs = 0;
    for (request = dead->first; request; request = request->next) {
        request->place = AT_DEAD;
        request->slot = NO_SLOT;
        queue_close_step(request);
        if (request->block.at && pool->arena)
            pa_arena_free(pool->arena, &request->block);
        request->block.at = NULL;
    }
}

void queue_let_go(struct queue *dead)
{
    Request *request;
    while ((request = dead->first)) {
        unlink_(dead, request);
        if (request->group)
            group_forget(request);
        request_release_arguments(request);
        Py_DECREF(request);
    }
}

/* -- the end of its way ----------------------------------------------------------------------- */

/* A worker may be counting at this moment. */
uint64_t queue_copied(const Request *request)
{
    if (!is_copy(request))
        return 0;
    if (request->slot == NO_SLOT || !request->pool->segment)
        return request->length;
    return __atomic_load_n(&request->pool->segment->slots[request->slot].copied, __ATOMIC_RELAXED);
}

static void distrust_owner(Pool *pool, const struct pa_slot *slot)
{
    orphans_hunt(); /* what it has really opened */
    uint32_t owner = pa_state_owner(atomic_load(&slot->state));
    if (owner > 0 && owner <= PA_MAX_WORKERS && !pool->is_inline)
        pool_distrust(pool, owner - 1);
}

/* Takes the value out of the slot, whatever became of it.  The request's arguments stay: to let go of
 * them may run code of the program. */
void queue_conclude(Pool *pool, Request *request)
{
    struct pa_slot *slot = request->slot == NO_SLOT ? NULL : &pool->segment->slots[request->slot];
    if (is_copy(request))
        request->length = queue_copied(request);
    if (request->cancelled) {
        if (slot)
            result_discard(request, slot);
        request->error = 0;
    } else if (!request->error && slot) {
        PyObject *value = result_take(request, slot);
        if (!value && !request->error) { /* no memory, or a bytearray that others hold */
            request->error = PyErr_ExceptionMatches(PyExc_BufferError) ? EBUSY : ENOMEM;
            PyErr_Clear();
        }
        request->value = value;
    }
    if (slot && unlikely(request->garbled))
        distrust_owner(pool, slot);
    if (request->is_group)
        group_conclude(request);
    queue_close_step(request);
    if (slot)
        queue_free_slot(pool, request);
}
