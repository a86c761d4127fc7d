/* shm/state.c - the legal moves of a slot.  See state.h for what the word means. */
#include "state.h"

const uint8_t pa_movers[PA_NPHASES][PA_NPHASES] = {
    [PA_FREE] = {[PA_READY] = PA_PROGRAM},
    /* Back to FREE: withdrawn, by cancel() or for the sake of a request with a higher priority. */
    [PA_READY] = {[PA_EXECUTING] = PA_WORKER, [PA_FREE] = PA_PROGRAM},
    /* Back to FREE: its worker died.  A pool without workers plays the worker itself. */
    [PA_EXECUTING] = {[PA_DONE] = PA_WORKER, [PA_FREE] = PA_PROGRAM, [PA_ABORTED] = PA_PROGRAM},
    /* The worker is to die, and takes nothing any more.  FREE when it is dead. */
    [PA_ABORTED] = {[PA_FREE] = PA_PROGRAM},
    /* To READY: the next step of a request that takes several (a large directory). */
    [PA_DONE] = {[PA_FREE] = PA_PROGRAM, [PA_READY] = PA_PROGRAM},
};

bool pa_state_move(struct pa_slot *slot, uint32_t from, enum pa_phase to, uint32_t owner,
                   uint32_t generation, enum pa_mover mover)
{
    assert(pa_movers[pa_state_phase(from)][to] & mover);
    (void)mover;
    /* Release: what the mover wrote into the slot is there for whoever reads the new word.
     * Acquire: the mover sees what the one before it wrote. */
    return atomic_compare_exchange_strong_explicit(&slot->state, &from,
                                                   pa_state_word(to, owner, generation),
                                                   memory_order_acq_rel, memory_order_relaxed);
}
