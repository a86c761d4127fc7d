/* shm/wake.h - who sleeps, who may run, who is woken.
 *
 * A permit is the right to run: there are as many as cores, a worker takes requests only while it
 * holds one.  A permit stands in one word (its holder), so it is never half handed over.
 *
 * The invariant that keeps requests from being forgotten: while a lane holds a request, one of
 * these is true, or will be made true by somebody who is awake:
 *   - a worker holds a permit and will look at the lanes before it gives it up (a spinner, or a
 *     worker between two requests, or one that was just woken);
 *   - the spawner watches with a time limit, as the monitor that takes permits away from workers
 *     that are stuck in a system call and wakes or starts others;
 *   - every worker that is allowed is executing.
 */
#ifndef PROCAIO_SHM_WAKE_H
#define PROCAIO_SHM_WAKE_H

#include <stdbool.h>
#include <time.h>

#include "abi.h"

#define PA_NO_PERMIT UINT32_MAX

uint64_t pa_now_ns(void);

/* Sleep while *word == expected; timeout in nanoseconds, 0 = none.  Spurious returns are normal. */
void pa_futex_wait(_Atomic uint32_t *word, uint32_t expected, uint64_t timeout_ns);
void pa_futex_wake(_Atomic uint32_t *word, int count);

/* Permits.  `worker` is an index; the permit's number is returned, or PA_NO_PERMIT. */
uint32_t pa_permit_take(struct pa_segment *segment, uint32_t worker);
uint32_t pa_permit_held(struct pa_segment *segment, uint32_t worker);
void pa_permits_return(struct pa_segment *segment, uint32_t worker); /* all that it holds */
bool pa_permit_revoke(struct pa_segment *segment, uint32_t permit, uint32_t holder);

/* Whether any worker holds a permit.  One that is stuck loses it while requests wait. */
bool pa_anybody_awake(struct pa_segment *segment);

/* Requests that take longer than this are slow: the program's turns are shorter. */
#define PA_SLOW_NS 40000u

/* True when one more awake, for requests that take `each_ns`, would be more than there are cores.  The
 * program counts as long as it has not asked to be rung, and does not nap: it is at work then, or looks
 * for results.  Not beside slow requests: it sleeps again before one has ended. */
bool pa_crowded(struct pa_segment *segment, uint64_t each_ns);

/* The sleepers' bits. */
void pa_sleeper_add(struct pa_segment *segment, uint32_t worker);
void pa_sleeper_remove(struct pa_segment *segment, uint32_t worker);
uint32_t pa_sleepers_count(struct pa_segment *segment);

/* Program: after pa_lane_push().  Makes sure that somebody will take the request. */
void pa_wake_after_push(struct pa_segment *segment);

/* Anyone: give a free permit to a sleeper and wake it.  False: no permit, or nobody sleeps. */
bool pa_wake_one(struct pa_segment *segment);
void pa_wake_worker(struct pa_segment *segment, uint32_t worker);
void pa_wake_all(struct pa_segment *segment);
void pa_monitor_ring(struct pa_segment *segment);
void pa_monitor_ensure(struct pa_segment *segment);

/* Worker: after pa_result_push().  Rings the program's descriptor, `event_fd`, if it asked. */
void pa_signal_program(struct pa_segment *segment, int event_fd);

/* Program: ask to be rung at the next result.  The caller must look at the rings once more before
 * it sleeps; pa_signal_withdraw() says whether somebody has rung already. */
void pa_signal_request(struct pa_segment *segment);
bool pa_signal_withdraw(struct pa_segment *segment);

/* Program: it sleeps for a while, and is not to be rung; and that is over.  Neither takes back what
 * another of its threads has asked for meanwhile. */
void pa_signal_decline(struct pa_segment *segment);
void pa_signal_awake(struct pa_segment *segment);

/* Whether it sleeps, rung or not. */
bool pa_signal_requested(struct pa_segment *segment);

#endif
