/* procaio/csrc/force.c - how a request ends, or begins again, that no worker has brought to its end.
 *
 * It is aborted, or late; its worker has died; its slot says what cannot be; or all fail, because the
 * pool has lost its shared memory.
 */
#include <fcntl.h>

#include "queue.h"

#define MOST_TRIES 2

static void keep_error(Request *request, int error)
{
    if (!request->error)
        request->error = error;
}

/* It ends when its worker is dead, or another one has removed its part; but not later than that. */
static void end_soon(Pool *pool, Request *request, int error)
{
    request->aborted = true;
    keep_error(request, error);
    if (deadlines_prepare(pool) == 0)
        deadlines_add(pool, request, pa_now_ns() + PA_DEATH_NS);
    else /* no memory: then it may be later */
        PyErr_Clear();
}

/* No worker has it. */
static void end_now(Pool *pool, Request *request, int error)
{
    request->ended_early = true;
    queue_close_step(request);
    queue_reopen_handle(request);
    queue_fail(pool, request, error);
}

/* Of what a dead worker has left another one is about to make a copy: it is to remove it. */
static void abort_part(Pool *pool, Request *request, int error)
{
    if (!request->given_up)
        request->tries = 0; /* see give_up() */
    request->given_up = true; /* see queue_fill_slot() */
    if (request->place == AT_SLOT)
        __atomic_fetch_or(&pool->segment->slots[request->slot].call_flags, PA_STOP,
                          __ATOMIC_RELAXED);
    end_soon(pool, request, error);
}

/* False: a worker has taken it. */
static bool abort_ready(Pool *pool, Request *request, uint32_t word, int error)
{
    struct pa_slot *slot = &pool->segment->slots[request->slot];
    if (leaves_part(request)) {
        abort_part(pool, request, error);
        return true;
    }
    if (!pa_state_move(slot, word, PA_FREE, 0, pa_state_generation(word), PA_PROGRAM))
        return false;
    queue_free_slot(pool, request);
    end_now(pool, request, error);
    return true;
}

static void end_aborted(Pool *pool, Request *request, bool begun);

/* Nobody can have them any more. */
static void end_lost(Pool *pool)
{
    for (uint32_t index = 0; index < PA_NSLOTS; index++) {
        Request *request = pool->in_flight[index];
        if (!request || request->place != AT_SLOT || !request->lost || memory_is_for(request->op))
            continue;
        request->lost = false;
        end_aborted(pool, request, true);
    }
}

static void mark_busy(const Pool *pool, uint64_t busy[PA_MAX_WORKERS / 64])
{
    for (uint32_t index = 0; index < PA_NSLOTS; index++) {
        const Request *request = pool->in_flight[index];
        uint32_t word =
            atomic_load_explicit(&pool->segment->slots[index].state, memory_order_acquire);
        uint32_t worker = pa_state_owner(word) - 1;
        if (request && request->place == AT_SLOT && !memory_is_for(request->op) &&
            queue_is_sound(pool, request, word) && pa_state_phase(word) == PA_EXECUTING)
            busy[worker / 64] |= UINT64_C(1) << worker % 64;
    }
}

/* Whoever may have one that is lost is ended: every worker but those that have another one. */
static void end_suspects(Pool *pool)
{
    uint64_t busy[PA_MAX_WORKERS / 64] = {0};
    mark_busy(pool, busy);
    pool_distrust_all(pool, busy);
    if (!pool_has_wild(pool))
        end_lost(pool);
}

static void lose(Pool *pool, Request *request, int error)
{
    request->lost = request->garbled = true;
    end_soon(pool, request, error);
    if (memory_is_for(request->op)) /* a thread has it, or nobody; see abort_executing() */
        queue_detach(pool, request);
}

void queue_inspect(Pool *pool)
{
    bool found = false;
    for (uint32_t index = 0; index < PA_NSLOTS && !pool->is_inline; index++) {
        Request *request = pool->in_flight[index];
        uint32_t word =
            atomic_load_explicit(&pool->segment->slots[index].state, memory_order_acquire);
        if (!request || request->place != AT_SLOT || request->lost ||
            queue_is_sound(pool, request, word))
            continue;
        lose(pool, request, EIO);
        found = true;
    }
    if (found)
        end_suspects(pool);
}

/* False: the worker has done it. */
static bool end_worker_of(Pool *pool, Request *request, uint32_t word)
{
    struct pa_slot *slot = &pool->segment->slots[request->slot];
    uint32_t owner = pa_state_owner(word);
    if (!queue_is_sound(pool, request, word)) {
        lose(pool, request, EIO);
        end_suspects(pool);
        return true;
    }
    if (!pa_state_move(slot, word, PA_ABORTED, owner, pa_state_generation(word), PA_PROGRAM))
        return false;
    pool_condemn(pool, owner - 1);
    return true;
}

static bool abort_executing(Pool *pool, Request *request, uint32_t word, int error)
{
    if (memory_is_for(request->op)) { /* a thread: nothing ends it */
        keep_error(request, error);
        queue_detach(pool, request);
        return true;
    }
    if (!end_worker_of(pool, request, word))
        return false;
    end_soon(pool, request, error);
    return true;
}

/* Whether nobody is going to bring the result, as it seems just now. */
static bool seems_lost(Pool *pool, const Request *request, uint32_t word)
{
    uint32_t worker = pa_state_owner(word) - 1;
    if (memory_is_for(request->op))
        return pa_state_phase(word) == PA_DONE;
    if (pa_state_phase(word) == PA_READY)
        return false;
    const struct pa_worker *record = &pool->segment->workers[worker];
    return pa_state_phase(word) == PA_DONE || pool_pid_of(pool, worker) == 0 ||
           atomic_load_explicit(&record->activity, memory_order_relaxed) == PA_SLEEPING;
}

static bool is_done_by_somebody(Pool *pool, uint32_t word)
{
    uint32_t worker = pa_state_owner(word) - 1;
    return pa_state_phase(word) == PA_DONE && worker < PA_MAX_WORKERS &&
           pool_pid_of(pool, worker) > 0;
}

/* Slots whose entries are in a lane. */
static void mark_queued(const Pool *pool, uint64_t queued[PA_NSLOTS / 64])
{
    const struct pa_segment *segment = pool->segment;
    for (uint32_t lane = 0; lane < PA_NLANES; lane++) {
        uint32_t tail = pool->lanes.tails[lane];
        uint32_t count = tail - atomic_load(&segment->header.heads[lane]);
        for (; count - 1 < PA_NSLOTS; count--) {
            uint32_t entry = atomic_load_explicit(
                &segment->lanes[lane][(tail - count) & (PA_NSLOTS - 1)], memory_order_relaxed);
            uint32_t index = pa_entry_index(entry);
            if (index < PA_NSLOTS && pa_entry_generation(entry) == pool->generations[index])
                queued[index / 64] |= UINT64_C(1) << index % 64;
        }
    }
}

/* What has been READY for long, and is in no lane any more, goes there again. */
static void queue_again(Pool *pool, const Request *request)
{
    uint32_t index = request->slot;
    pa_lane_push(pool->segment, &pool->lanes, lane_of(request),
                 pa_entry(index, pool->generations[index]));
}

void queue_search(Pool *pool)
{
    uint64_t queued[PA_NSLOTS / 64] = {0};
    bool lost = false, waits = false;
    if (pool->is_inline || pool->nreqs == 0)
        return;
    queue_harvest(pool);
    if (queue_anything_pending(pool))
        return;
    pool_mend(pool);
    mark_queued(pool, queued);
    for (uint32_t index = 0; index < PA_NSLOTS; index++) {
        Request *request = pool->in_flight[index];
        if (!request || request->place != AT_SLOT || request->lost || request->is_husk)
            continue;
        uint32_t word =
            atomic_load_explicit(&pool->segment->slots[index].state, memory_order_acquire);
        bool sound = queue_is_sound(pool, request, word), seen = request->was_seen;
        request->was_seen = sound && seems_lost(pool, request, word);
        if (request->was_seen && seen && is_done_by_somebody(pool, word)) {
            pool_distrust(pool, pa_state_owner(word) - 1); /* when it is dead the result is taken */
        } else if (!sound || (request->was_seen && seen)) {
            lose(pool, request, EIO);
            lost = true;
        } else if (pa_state_phase(word) == PA_READY && !memory_is_for(request->op)) {
            waits = true;
            if (!(queued[index / 64] & UINT64_C(1) << index % 64))
                queue_again(pool, request);
        }
    }
    if (waits)
        pa_wake_all(pool->segment);
    if (lost)
        end_suspects(pool);
}

static bool abort_in_slot(Pool *pool, Request *request, int error)
{
    struct pa_slot *slot = &pool->segment->slots[request->slot];
    uint32_t word = atomic_load_explicit(&slot->state, memory_order_acquire);
    if (unlikely(!queue_is_sound(pool, request, word))) {
        lose(pool, request, error);
        end_suspects(pool);
        return true;
    }
    if (pa_state_phase(word) == PA_READY) {
        if (abort_ready(pool, request, word, error))
            return true;
        word = atomic_load_explicit(&slot->state, memory_order_acquire);
    }
    if (pa_state_phase(word) == PA_EXECUTING) {
        if (abort_executing(pool, request, word, error))
            return true;
        word = atomic_load_explicit(&slot->state, memory_order_acquire);
    }
    if (pa_state_phase(word) != PA_DONE)
        return false;
    bool refused = slot->call_flags & PA_REFUSED;
    if (refused && leaves_part(request))
        abort_part(pool, request, error);
    else if (refused || result_may_be_a_step(request, slot))
        request->error = error; /* it is not sent on: see queue_accept_result() */
    else
        return false;
    return true;
}

static bool abort_anywhere(Pool *pool, Request *request, int error)
{
    if (request->is_group)
        return request->place <= AT_PENDING && group_abort(request, error);
    if (request->place == AT_SLOT) /* without workers it is the program itself that is at it */
        return !pool->is_inline && abort_in_slot(pool, request, error);
    if (request->place > AT_OVERFLOW)
        return false;
    if (leaves_part(request)) {
        abort_part(pool, request, error);
    } else if (request->place == AT_NEW) { /* another thread is about to dispatch it */
        keep_error(request, error);
    } else {
        queue_leave_overflow(pool, request);
        end_now(pool, request, error);
    }
    return true;
}

bool queue_abort(Pool *pool, Request *request, int error)
{
    if (request->ended_early || !abort_anywhere(pool, request, error))
        return false;
    request->ended_early = true;
    return true;
}

bool queue_expire(Pool *pool, Request *request)
{
    if (queue_abort(pool, request, ETIMEDOUT) || request->place != AT_SLOT || pool->is_inline)
        return true;
    queue_harvest(pool);
    if (request->place != AT_SLOT)
        return true;
    if (!request->was_seen) {
        request->was_seen = true;
        return false;
    }
    uint32_t word =
        atomic_load_explicit(&pool->segment->slots[request->slot].state, memory_order_acquire);
    if (is_done_by_somebody(pool, word)) { /* its entry is gone: as in queue_search() */
        pool_distrust(pool, pa_state_owner(word) - 1);
        return true;
    }
    lose(pool, request, ETIMEDOUT);
    end_suspects(pool);
    return request->ended_early = true;
}

/* The request ends, though a worker that cannot die is still at it, or none has come to remove its
 * part.  What that one may read and write stays until it is dead, and so does the slot. */
void queue_detach(Pool *pool, Request *request)
{
    enum place place = request->place;
    if (place > AT_SLOT)
        return;
    Request *husk = place == AT_NEW ? NULL : request_husk(request);
    if (!husk) { /* no memory, or another thread has it in hand: later */
        end_soon(pool, request, request->error);
        return;
    }
    if (place == AT_SLOT) {
        pool->in_flight[husk->slot] = husk;
    } else {
        queue_leave_overflow(pool, request);
        queue_enter_overflow(pool, husk, true);
    }
    if (husk->given_up)
        queue_watch_husk(pool, husk);
    queue_push_pending(pool, request);
    pa_signal_program(pool->segment, pool->event_fd);
}

/* A worker is to remove what the husk has left.  It may be long until one comes to that, but none
 * is let do it for ever. */
void queue_watch_husk(Pool *pool, Request *husk)
{
    if (husk->place > AT_SLOT)
        return;
    uint32_t word = 0;
    if (husk->place == AT_SLOT)
        word = atomic_load_explicit(&pool->segment->slots[husk->slot].state, memory_order_acquire);
    bool executing = pa_state_phase(word) == PA_EXECUTING;
    if (executing && husk->was_seen && end_worker_of(pool, husk, word))
        return;
    husk->was_seen = executing;
    end_soon(pool, husk, husk->error);
}

/* A worker closes it, whenever one has time for it.  False: there is none. */
bool queue_close(Pool *pool, int fd)
{
    if (!pool->segment || pool->closed || pool->is_inline || pool->fork_count != fork_count)
        return false;
    Request *husk = request_new_husk(pool, PA_OP_CLOSE);
    if (!husk)
        return false;
    husk->fd = fd;
    queue_enter_overflow(pool, husk, false);
    queue_watch_husk(pool, husk);
    return true;
}

static bool repeatable(const Request *request, const struct pa_slot *slot)
{
    if (!pa_ops[request->op].again_if_worker_died)
        return false;
    if (request->op == PA_OP_LOAD || request->op == PA_OP_COPY)
        return !(slot->call_flags & PA_ONCE);
    if (request->op == PA_OP_MAKE_DIRECTORIES)
        return request->flags & PA_TREE_MAY_EXIST;
    if (request->op == PA_OP_MOVE) /* else it may have been done */
        return slot->call_flags & PA_COPYING;
    if (request->op != PA_OP_READ && request->op != PA_OP_WRITE)
        return true;
    if (request->offset < 0) /* the position has moved, or not */
        return false;
    return request->op == PA_OP_READ || !(fcntl(request->fd, F_GETFL) & O_APPEND);
}

/* What a worker has noted, for the one that does it again or removes the part. */
static void keep_notes(Request *request, const struct pa_slot *slot)
{
    request->was_creating = slot->call_flags & PA_CREATING;
    request->was_writing = slot->call_flags & PA_WRITING;
    request->was_copying = slot->call_flags & PA_COPYING;
    if (!is_copy(request))
        return;
    request->offset = (int64_t)slot->destination_inode;
    request->flags = slot->destination_device;
}

/* What a dead worker has done of a chunk is not done again, and the item over which the third one
 * died is not tried again. */
static void go_on_behind(Request *request, const struct pa_slot *slot)
{
    uint32_t at = __atomic_load_n(&slot->begun, __ATOMIC_RELAXED);
    if (at > request->begun && at <= request->flags) {
        request->begun = at;
        request->tries = 0;
    } else if (request->tries >= MOST_TRIES && request->begun < request->flags) {
        batch_give_up_item(request);
        request->tries = 0;
    }
}

/* Takes from the slot what a dead worker has left there. */
static void clear_after_death(Pool *pool, Request *request)
{
    const struct pa_slot *slot = &pool->segment->slots[request->slot];
    if (is_copy(request) && slot->call_flags & PA_OPENS_PATH)
        orphans_close_path(slot->destination_inode, slot->destination_device);
    if (takes_notes(request))
        keep_notes(request, slot);
    queue_free_slot(pool, request);
}

/* It is not done again; but another worker removes the part of a copy, and if that one dies over it
 * the next one, until three have. */
static void give_up(Pool *pool, Request *request)
{
    request->tries = request->given_up ? request->tries + 1 : 0;
    request->given_up = true;
    request->was_seen = false;
    if (leaves_part(request) && request->tries <= MOST_TRIES)
        queue_enter_overflow(pool, request, true);
    else
        queue_push_pending(pool, request);
}

/* Its worker is dead.  What it had not begun, or what can be done twice, is done again; of the rest
 * the outcome is unknown.  A part of a copy that stays a part is removed first. */
static void rerun_or_fail(Pool *pool, Request *request, bool begun)
{
    const struct pa_slot *slot = &pool->segment->slots[request->slot];
    begun = begun || request->step_open; /* it begins again with its first step */
    if (is_batch(request))
        go_on_behind(request, slot);
    bool again = !request->cancelled && !request->given_up && request->tries < MOST_TRIES &&
                 (!begun || repeatable(request, slot));
    again = again || queue_is_unclosed(request);
    clear_after_death(pool, request);
    if (again) {
        request->tries++;
        request->was_seen = false;
        pool->totals.rerun++;
        if (takes_steps(request)) { /* from the start */
            queue_close_step(request);
            request->fd = request->fd2;
            free(request->gathered);
            request->gathered = NULL;
            request->gathered_size = 0;
        }
        queue_enter_overflow(pool, request, true);
        return;
    }
    if (!request->error) {
        request->worker_died = true;
        request->error = EIO;
    }
    pool->totals.died += !request->given_up;
    give_up(pool, request);
}

/* Its worker was killed for that, and is dead now.  Where removing the part of a copy has taken too
 * long nobody tries it again: that one would hang, too. */
static void end_aborted(Pool *pool, Request *request, bool begun)
{
    bool hung_over_part = request->is_husk && request->given_up; /* see queue_watch_husk() */
    if (!begun)
        queue_reopen_handle(request);
    clear_after_death(pool, request);
    if (hung_over_part)
        queue_push_pending(pool, request);
    else
        give_up(pool, request);
}

void queue_worker_ended(Pool *pool, uint32_t worker)
{
    struct pa_worker *record = &pool->segment->workers[worker];
    uint32_t activity = atomic_load_explicit(&record->activity, memory_order_relaxed);
    bool begun = activity != PA_SEARCHING && activity != PA_SLEEPING;
    queue_harvest_worker(pool, worker);
    /* If there is more, it is nothing that could be taken. */
    atomic_store_explicit(&record->result_tail, pool->result_heads[worker], memory_order_relaxed);
    queue_inspect(pool);
    for (uint32_t index = 0; index < PA_NSLOTS; index++) {
        Request *request = pool->in_flight[index];
        uint32_t word =
            atomic_load_explicit(&pool->segment->slots[index].state, memory_order_acquire);
        if (!request || request->place != AT_SLOT || pa_state_owner(word) != worker + 1 ||
            request->lost || !queue_is_sound(pool, request, word))
            continue;
        if (pa_state_phase(word) == PA_DONE) /* it died before it could publish it */
            queue_accept_result(pool, worker + 1, pa_entry(index, pa_state_generation(word)));
        else if (pa_state_phase(word) == PA_ABORTED)
            end_aborted(pool, request, begun);
        else if (pa_state_phase(word) == PA_EXECUTING)
            rerun_or_fail(pool, request, begun);
    }
    if (!pool_has_wild(pool))
        end_lost(pool);
    queue_refill(pool);
}

/* Part of a copy that was under way: there is no worker any more that could remove it.  It is one
 * name, so the program does that in between; but it does not touch what was aborted, where it may
 * get stuck itself. */
static void remove_part(Pool *pool, Request *request)
{
    struct pa_slot slot = {.op = PA_OP_NOP};
    if (!leaves_part(request) || request->aborted)
        return;
    request->given_up = true;
    if (queue_fill_slot(pool, request, &slot))
        return;
    bool in_arena = slot.arena_segment != PA_NO_SEGMENT;
    pa_op_run(&slot, in_arena ? pa_arena_base(pool->arena, slot.arena_segment) : NULL, NULL,
              NULL);
}

/* What a worker would have done. */
void queue_clean_up(Pool *pool, Request *request)
{
    remove_part(pool, request);
    if (queue_is_unclosed(request))
        orphans_close(pool, request->fd);
}

/* Every request that has not ended fails; the workers are gone.  What was done is not undone: its
 * result is delivered, though its worker was not able to report it. */
void queue_fail_all(Pool *pool, int error)
{
    Request *request;
    while ((request = queue_first_of(pool->overflow))) {
        queue_leave_overflow(pool, request);
        queue_reopen_handle(request);
        queue_clean_up(pool, request);
        queue_fail(pool, request, error);
    }
    for (uint32_t index = 0; index < PA_NSLOTS; index++) {
        request = pool->in_flight[index];
        if (!request || request->place != AT_SLOT)
            continue;
        struct pa_slot *slot = &pool->segment->slots[index];
        uint32_t word = atomic_load(&slot->state);
        if (pool->is_inline && pa_state_phase(word) == PA_EXECUTING)
            continue; /* another thread is at it, and will push it */
        enum pa_phase phase =
            queue_is_sound(pool, request, word) ? pa_state_phase(word) : PA_ABORTED;
        if (phase == PA_READY)
            queue_reopen_handle(request);
        if (phase == PA_DONE && slot->call_flags & PA_MORE) {
            result_keep_open(request, slot->fd);
        } else if (phase == PA_DONE) {
            queue_push_pending(pool, request);
            continue;
        }
        if (takes_notes(request))
            keep_notes(request, slot);
        queue_free_slot(pool, request);
        queue_clean_up(pool, request);
        queue_fail(pool, request, error);
    }
    while (pool->groups.first) {
        pool->groups.first->error = error;
        queue_wake_group(pool->groups.first);
    }
}
