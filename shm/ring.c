/* shm/ring.c - bounded rings of entries (slot index + generation).
 *
 * A lane has one producer, the program, and many helping consumers: a worker claims the *slot*
 * first and advances `head` afterwards, whether or not the claim succeeded, so an index is never in
 * nobody's hands and there is no lock to die with.  Whoever comes next finds the slot not READY and
 * passes the entry.  A result ring has one producer, its worker, and one consumer, the program.
 *
 * Indices run freely and are masked on use, so tail - head is the depth even after they wrap.  A
 * result ring has a place for every slot and cannot overflow.  A lane can: entries of withdrawn
 * requests stay in it until they are passed.
 */
#include "ring.h"

#include "faults.h"
#include "state.h"

#define MASK (PA_NSLOTS - 1u)

/* No lane holds more than it has places for.  If its words say so, somebody has overwritten them:
 * whatever has a place is looked at again.  `head` was read before `tail`; if it is still the same
 * it was so when `tail` was read. */
static bool mend(struct pa_header *header, uint32_t lane, uint32_t *head, uint32_t tail)
{
    if (tail - *head <= PA_NSLOTS)
        return false;
    if (atomic_compare_exchange_strong_explicit(&header->heads[lane], head, tail - PA_NSLOTS,
                                                memory_order_acq_rel, memory_order_acquire))
        *head = tail - PA_NSLOTS;
    return true;
}

static uint32_t head_of(struct pa_segment *segment, uint32_t lane, uint32_t tail)
{
    struct pa_header *header = &segment->header;
    uint32_t head = atomic_load_explicit(&header->heads[lane], memory_order_acquire);
    while (mend(header, lane, &head, tail))
        ;
    return head;
}

bool pa_lane_push(struct pa_segment *segment, struct pa_lanes *lanes, uint32_t lane, uint32_t entry)
{
    struct pa_header *header = &segment->header;
    uint32_t tail = lanes->tails[lane];
    if (tail - lanes->heads[lane] >= PA_NSLOTS) {
        /* Heads only advance, so what was known is never more than what is. */
        lanes->heads[lane] = head_of(segment, lane, tail);
        if (tail - lanes->heads[lane] >= PA_NSLOTS)
            return false;
    }
    lanes->tails[lane] = tail + 1;
    atomic_store_explicit(&segment->lanes[lane][tail & MASK], entry, memory_order_relaxed);
    /* Release: whoever sees the tail sees the entry, and the slot that was filled before it. */
    atomic_store_explicit(&header->tails[lane], tail + 1, memory_order_release);
    return true;
}

/* The word of the slot that an entry names, if it still waits there. */
static struct pa_slot *ready_slot(struct pa_segment *segment, uint32_t entry, uint32_t *word)
{
    struct pa_slot *slot = &segment->slots[pa_entry_index(entry) & MASK];
    *word = atomic_load_explicit(&slot->state, memory_order_acquire);
    bool ready = *word == pa_state_word(PA_READY, 0, pa_entry_generation(entry));
    return ready ? slot : NULL;
}

void pa_lane_skip_stale(struct pa_segment *segment, const struct pa_lanes *lanes, uint32_t lane)
{
    struct pa_header *header = &segment->header;
    uint32_t tail = lanes->tails[lane], head = head_of(segment, lane, tail);
    while (head != tail) {
        uint32_t word;
        uint32_t entry =
            atomic_load_explicit(&segment->lanes[lane][head & MASK], memory_order_relaxed);
        if (ready_slot(segment, entry, &word))
            return;
        if (atomic_compare_exchange_strong_explicit(&header->heads[lane], &head, head + 1,
                                                    memory_order_acq_rel, memory_order_acquire))
            head++;
        if (mend(header, lane, &head, tail))
            return;
    }
}

static bool lane_claim(struct pa_segment *segment, uint32_t lane, uint32_t worker, uint32_t *entry,
                       struct pa_place *place)
{
    struct pa_header *header = &segment->header;
    uint32_t head = atomic_load_explicit(&header->heads[lane], memory_order_acquire);
    for (;;) {
        uint32_t tail = atomic_load_explicit(&header->tails[lane], memory_order_acquire);
        if (head == tail)
            return false;
        if (mend(header, lane, &head, tail))
            continue;
        *entry = atomic_load_explicit(&segment->lanes[lane][head & MASK], memory_order_relaxed);
        uint32_t word;
        struct pa_slot *slot = ready_slot(segment, *entry, &word);
        bool claimed = slot && pa_state_move(slot, word, PA_EXECUTING, worker + 1,
                                             pa_state_generation(word), PA_WORKER);
        if (claimed)
            pa_fault(segment, PA_FAULT_CLAIMED);
        *place = (struct pa_place){.lane = lane, .at = head};
        /* A worker that dies right here has the slot, and the next one passes its entry.  Failing
         * means that somebody else has passed it already; `head` is then where they are, and what
         * was read may have been written there later. */
        if (atomic_compare_exchange_strong_explicit(&header->heads[lane], &head, head + 1,
                                                    memory_order_acq_rel, memory_order_acquire)) {
            place->known = true;
            head++;
        }
        if (claimed)
            return true;
    }
}

bool pa_lane_claim(struct pa_segment *segment, uint32_t worker, uint32_t *entry,
                   struct pa_place *place)
{
    for (uint32_t lane = 0; lane < PA_NLANES; lane++)
        if (lane_claim(segment, lane, worker, entry, place))
            return true;
    return false;
}

uint32_t pa_lanes_depth(struct pa_segment *segment)
{
    struct pa_header *header = &segment->header;
    uint32_t depth = 0;
    for (uint32_t lane = 0; lane < PA_NLANES; lane++) {
        /* Head first: it never passes the tail that is read after it. */
        uint32_t head = atomic_load_explicit(&header->heads[lane], memory_order_acquire);
        depth += atomic_load_explicit(&header->tails[lane], memory_order_acquire) - head;
    }
    return depth;
}

bool pa_lanes_empty(struct pa_segment *segment)
{
    return pa_lanes_depth(segment) == 0;
}

void pa_result_push(struct pa_segment *segment, uint32_t worker, uint32_t entry)
{
    _Atomic uint32_t *counter = &segment->workers[worker].result_tail;
    uint32_t tail = atomic_load_explicit(counter, memory_order_relaxed);
    atomic_store_explicit(&segment->results[worker][tail & MASK], entry, memory_order_relaxed);
    atomic_store_explicit(counter, tail + 1, memory_order_release);
}

bool pa_result_pop(struct pa_segment *segment, uint32_t worker, uint32_t *head, uint32_t *entry)
{
    uint32_t tail =
        atomic_load_explicit(&segment->workers[worker].result_tail, memory_order_acquire);
    if (tail == *head)
        return false;
    *entry = atomic_load_explicit(&segment->results[worker][*head & MASK], memory_order_relaxed);
    ++*head;
    return true;
}
