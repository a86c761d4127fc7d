/* procaio/csrc/queue.h - what queue.c and force.c share: the way of a request, and its end by force. */
#ifndef PROCAIO_QUEUE_H
#define PROCAIO_QUEUE_H

#include "core.h"

/* The highest priority first. */
static inline uint32_t lane_of(const Request *request)
{
    return (uint32_t)(4 - request->pri);
}

/* What does not fit into one block comes in steps. */
static inline bool takes_steps(const Request *request)
{
    return request->op == PA_OP_READDIR || request->op == PA_OP_LOAD;
}

static inline bool is_batch(const Request *request)
{
    return request->kind == RESULT_MANY;
}

static inline bool is_copy(const Request *request)
{
    return request->op == PA_OP_COPY || request->op == PA_OP_MOVE;
}

/* What is made has no part that may stay. */
static inline bool takes_notes(const Request *request)
{
    return is_copy(request) ||
           (request->op == PA_OP_MAKE_DIRECTORY && !(request->flags & PA_TREE_MAY_EXIST));
}

/* A dead worker has, or may have, left a part of a copy. */
static inline bool leaves_part(const Request *request)
{
    return request->was_creating || request->was_writing;
}

/* queue.c */
Request *queue_first_of(struct queue *queues); /* of the highest priority, or NULL */
void queue_enter_overflow(Pool *pool, Request *request, bool in_front);
void queue_leave_overflow(Pool *pool, Request *request);
int queue_fill_slot(Pool *pool, Request *request, struct pa_slot *slot); /* 0, or an errno */
bool queue_is_sound(const Pool *pool, const Request *request, uint32_t word);
void queue_free_slot(Pool *pool, Request *request);
void queue_harvest_worker(Pool *pool, uint32_t worker);
bool queue_accept_result(Pool *pool, uint32_t owner, uint32_t entry); /* false: it cannot be one */
void queue_close_step(Request *request);    /* what is kept open from step to step */
void queue_reopen_handle(Request *request); /* of a close that has not been begun */
bool queue_is_unclosed(const Request *request);

/* force.c */
void queue_clean_up(Pool *pool, Request *request); /* of the part that a dead worker has left */

#endif
