/* shm/ring.h - lanes (requests on their way to the workers) and result rings (their way back). */
#ifndef PROCAIO_SHM_RING_H
#define PROCAIO_SHM_RING_H

#include <stdbool.h>

#include "abi.h"

/* The program's own: where it is with each lane.  The heads are as it saw them last, so that it need
 * not look at each push. */
struct pa_lanes {
    uint32_t tails[PA_NLANES], heads[PA_NLANES];
};

/* Program: append a READY slot to a lane.  False: the lane is full of stale entries. */
bool pa_lane_push(struct pa_segment *segment, struct pa_lanes *lanes, uint32_t lane, uint32_t entry);

/* Program: pass entries at the head that name no READY slot.  Workers do so too. */
void pa_lane_skip_stale(struct pa_segment *segment, const struct pa_lanes *lanes, uint32_t lane);

/* Where in its lane an entry was. */
struct pa_place {
    uint32_t lane, at;
    bool known; /* false: nobody knows */
};

/* Worker: take the first request of the highest lane.  False: there is none. */
bool pa_lane_claim(struct pa_segment *segment, uint32_t worker, uint32_t *entry,
                   struct pa_place *place);

/* Anyone: entries in all lanes, stale ones included. */
uint32_t pa_lanes_depth(struct pa_segment *segment);
bool pa_lanes_empty(struct pa_segment *segment);

/* Worker: publish that a slot is DONE. */
void pa_result_push(struct pa_segment *segment, uint32_t worker, uint32_t entry);

/* Program: take the next entry; `head` is the program's own count of what it took.  If the ring says
 * that it holds more than it can, an entry is an old one, which the slot tells. */
bool pa_result_pop(struct pa_segment *segment, uint32_t worker, uint32_t *head, uint32_t *entry);

#endif
