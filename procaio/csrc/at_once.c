/* procaio/csrc/at_once.c - what cannot block is done at once, in the program.
 *
 * Handing a cached 4 KiB read or a stat to another process and back costs as much as doing it, and
 * waking that process ten times as much.  So the kernel is asked for reads, names and small files that
 * it promises not to wait for (pa_op.run_cached); what it refuses goes to a worker, as everything else
 * does.  The request is pending then, like any that was executed: its callback runs in poll_cb, and
 * cancelling finds it so.
 *
 * A worker that is awake is fed first: with many requests outstanding the program and the workers
 * share the work.  Nothing of a higher priority is overtaken, and with one worker nothing at all.
 */
#include <fcntl.h>

#include "core.h"

enum {
    LARGEST = 16 << 10, /* copying more takes longer than handing it over */
    FEW = 4,            /* so few outstanding requests are not worth waking anybody for */
    FED = 8,            /* waiting requests that keep the workers at work meanwhile, */
    FED_PART = 2,       /* or such a part of the outstanding ones */
    LONGEST_PAUSE = 256,
};

/* Whether a worker would have begun something else before this one. */
static bool would_overtake(Pool *pool, const Request *request)
{
    struct pa_header *header = &pool->segment->header;
    if (pool->overflow_length > 0)
        return true;
    uint32_t wanted = pool->wanted;
    if (wanted <= 1)
        return wanted == 0 || pool->free_count < PA_NSLOTS;
    for (int lane = 0; lane < 4 - request->pri; lane++)
        if (atomic_load_explicit(&header->heads[lane], memory_order_relaxed) !=
            atomic_load_explicit(&header->tails[lane], memory_order_relaxed))
            return true;
    return false;
}

/* Whether it is rather for a worker, because there is work for several.  What counts is what waits for
 * them, and what has been done and may make more in its callback; not what they execute: that may hang
 * for ever.  If all that are awake do, nobody takes what waits.  A name takes longer to look up here
 * than to hand over, so the workers get all of them as long as they keep up.  A load takes longer here
 * than in a worker, too: it is worth it only if somebody had to be woken for nothing else. */
static bool workers_want_more(Pool *pool, const Request *request)
{
    uint32_t depth = pa_lanes_depth(pool->segment);
    if (request->op == PA_OP_LOAD)
        return pool->pending_length + depth > 0 || pa_anybody_awake(pool->segment);
    if (pool->nreqs <= FEW)
        return false;
    uint64_t part = pool->nreqs / FED_PART;
    bool fed = request->op == PA_OP_READ ? depth >= FED || depth >= part
                                         : depth >= FED && depth >= part;
    return pool->pending_length + depth >= FEW && !fed &&
           (depth == 0 || pa_anybody_awake(pool->segment));
}

/* After requests that were refused, some of that kind are not tried: a file that is not in the cache
 * would cost a system call more for each. */
static void learn(Pool *pool, uint8_t op, bool found)
{
    uint16_t pause = pool->at_once_tries[op].pause;
    if (found)
        pause = 0;
    else
        pause = pause == 0 ? 1 : pause < LONGEST_PAUSE ? (uint16_t)(pause * 2) : LONGEST_PAUSE;
    pool->at_once_tries[op].pause = pool->at_once_tries[op].skip = pause;
}

static bool is_paused(Pool *pool, uint8_t op)
{
    if (pool->at_once_tries[op].skip == 0)
        return false;
    pool->at_once_tries[op].skip--;
    return true;
}

/* Where the data go, or NULL: into memory that changes only when the request is done. */
static char *destination(Request *request)
{
    if (request->kind == RESULT_BYTES) {
        request->value = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)request->length);
        if (!request->value)
            PyErr_Clear();
        return request->value ? PyBytes_AS_STRING(request->value) : NULL;
    }
    if (request->cuts_target || (request->view && !request->in_place))
        return NULL;
    return pa_arena_base(request->pool->arena, request->arena_segment) + request->arena_offset;
}

/* Past the cache (O_DIRECT) the kernel does not wait for a place in the queue, but for the disk it does.
 * That is a call for each read; so what one has shown is good until the program polls, or awaits. */
static bool goes_to_cache(Pool *pool, int fd)
{
    if (fd == pool->cached_fd)
        return true;
    int flags = fcntl(fd, F_GETFL);
    if (flags < 0 || flags & O_DIRECT)
        return false;
    pool->cached_fd = fd;
    return true;
}

static bool has_cached_form(const Request *request)
{
    if (request->op == PA_OP_READ)
        return request->length > 0 && request->length <= LARGEST && request->offset >= 0;
    if (request->op == PA_OP_LOAD)
        return request->kind == RESULT_BYTES && request->offset == 0 &&
               request->limit == UINT64_MAX;
    return pa_ops[request->op].run_cached;
}

/* A short count may be the end of the file, or of what is in the cache: a worker finds out. */
static bool read_now(Request *request)
{
    char *data = goes_to_cache(request->pool, request->fd) ? destination(request) : NULL;
    if (!data)
        return false;
    struct pa_slot slot = {.fd = request->fd,
                           .file_offset = request->offset,
                           .length = request->length};
    const struct pa_call call = {.slot = &slot, .data = data};
    if (pa_ops[request->op].run_cached(&call) == (int64_t)request->length) {
        if (!request->value)
            request->value = PyLong_FromUnsignedLongLong(request->length);
        if (request->value)
            return true;
        PyErr_Clear();
    }
    Py_CLEAR(request->value);
    return false;
}

/* That there is no such name is an answer, too. */
static bool look_up_now(Request *request)
{
    char data[LARGEST];
    size_t length;
    struct pa_slot slot = {.fd = request->fd, .length = sizeof data};
    const struct pa_call call = {.slot = &slot,
                                 .path = queue_path(request->fspath, &length),
                                 .data = data};
    int64_t outcome = pa_ops[request->op].run_cached(&call);
    if (outcome == -EAGAIN)
        return false;
    slot.result = outcome;
    request->value = outcome > 0 ? PyBytes_FromStringAndSize(data, (Py_ssize_t)outcome)
                                 : result_take(request, &slot);
    if (request->value || request->error)
        return true;
    PyErr_Clear();
    return false;
}

bool at_once_run(Pool *pool, Request *request)
{
    uint8_t op = request->op;
    if (!has_cached_form(request) || !pool->at_once || pool->is_inline || is_paused(pool, op) ||
        workers_want_more(pool, request) || would_overtake(pool, request))
        return false;
    bool done = op == PA_OP_READ ? read_now(request) : look_up_now(request);
    learn(pool, op, done);
    return done;
}
