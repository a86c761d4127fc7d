/* procaio/csrc/at_once.c - what cannot block is done at once, in the program.
 *
 * Handing a cached 4 KiB read to another process and back costs as much as the read, and waking that
 * process ten times as much.  So the kernel is asked for reads that it promises not to wait for
 * (pa_op.run_cached); what it refuses goes to a worker, as everything else does.  The request is
 * pending then, like any that was executed: its callback runs in poll_cb, and cancelling finds it so.
 *
 * A worker that is awake is fed first: with many requests outstanding the program and the workers
 * share the work.  Nothing of a higher priority is overtaken, and with one worker nothing at all.
 */
#include <fcntl.h>

#include "core.h"

enum {
    LARGEST = 16 << 10, /* copying more takes longer than handing it over */
    FEW = 4,            /* so few outstanding requests are not worth waking anybody for */
    FED = 16,           /* waiting requests that keep the workers awake */
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
 * for ever.  If all that are awake do, nobody takes what waits. */
static bool workers_want_more(Pool *pool)
{
    if (pool->nreqs <= FEW)
        return false;
    uint32_t depth = pa_lanes_depth(pool->segment);
    return pool->pending_length + depth >= FEW && depth < FED &&
           (depth == 0 || pa_anybody_awake(pool->segment));
}

/* After requests that were refused, some are not tried: a file that is not in the cache would cost
 * a system call more for each. */
static void learn(Pool *pool, bool found)
{
    if (found) {
        pool->at_once_pause = 0;
        return;
    }
    pool->at_once_pause = pool->at_once_pause ? pool->at_once_pause * 2 : 1;
    if (pool->at_once_pause > LONGEST_PAUSE)
        pool->at_once_pause = LONGEST_PAUSE;
    pool->at_once_skip = pool->at_once_pause;
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

/* Past the cache: the kernel does not wait for a place in the queue, but for the disk it does. */
static bool is_direct(int fd)
{
    int flags = fcntl(fd, F_GETFL);
    return flags < 0 || flags & O_DIRECT;
}

/* A short count may be the end of the file, or of what is in the cache: a worker finds out. */
static bool run(Request *request)
{
    if (is_direct(request->fd))
        return false;
    char *data = destination(request);
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

bool at_once_run(Pool *pool, Request *request)
{
    if (request->op != PA_OP_READ || request->length > LARGEST || request->length == 0 ||
        request->offset < 0 || !pool->at_once || pool->is_inline)
        return false;
    if (pool->at_once_skip > 0) {
        pool->at_once_skip--;
        return false;
    }
    if (workers_want_more(pool) || would_overtake(pool, request))
        return false;
    bool done = run(request);
    learn(pool, done);
    return done;
}
