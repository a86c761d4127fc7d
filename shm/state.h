/* shm/state.h - the life of a slot: one atomic word, one table of moves, one function that moves.
 *
 * The word holds the phase, the owner (worker + 1, 0 = nobody) and the generation, which grows by
 * one each time the slot is used again.  An entry of a ring names a slot by index and generation,
 * so an entry that was overtaken by events (the request was withdrawn, the slot serves another one)
 * is recognised and passed over.  Because every move is a compare-and-swap on the whole word, a
 * request is taken by one worker at the most, and a program that gave up on a worker cannot be
 * overwritten by it.
 */
#ifndef PROCAIO_SHM_STATE_H
#define PROCAIO_SHM_STATE_H

#include <stdbool.h>

#include "abi.h"

enum pa_phase { PA_FREE, PA_READY, PA_EXECUTING, PA_DONE, PA_ABORTED, PA_NPHASES };
enum pa_mover { PA_PROGRAM = 1, PA_WORKER = 2 };

#define PA_PHASE_BITS 3
#define PA_OWNER_BITS 9
#define PA_GENERATION_SHIFT (PA_PHASE_BITS + PA_OWNER_BITS)
static_assert(PA_GENERATION_SHIFT == PA_INDEX_BITS, "an entry's generation stands where a word's does");
static_assert(PA_MAX_WORKERS < 1u << PA_OWNER_BITS, "owner + 1 fits");

/* Who may move a slot from the row's phase to the column's; blank means nobody. */
extern const uint8_t pa_movers[PA_NPHASES][PA_NPHASES];

static inline uint32_t pa_state_word(enum pa_phase phase, uint32_t owner, uint32_t generation)
{
    return generation << PA_GENERATION_SHIFT | owner << PA_PHASE_BITS | (uint32_t)phase;
}
static inline enum pa_phase pa_state_phase(uint32_t word)
{
    return (enum pa_phase)(word & ((1u << PA_PHASE_BITS) - 1u));
}
static inline uint32_t pa_state_owner(uint32_t word)
{
    return word >> PA_PHASE_BITS & ((1u << PA_OWNER_BITS) - 1u);
}
static inline uint32_t pa_state_generation(uint32_t word)
{
    return word >> PA_GENERATION_SHIFT;
}

/* A ring's entry: index and generation of a slot. */
static inline uint32_t pa_entry(uint32_t index, uint32_t generation)
{
    return generation << PA_INDEX_BITS | index;
}
static inline uint32_t pa_entry_index(uint32_t entry)
{
    return entry & PA_INDEX_MASK;
}
static inline uint32_t pa_entry_generation(uint32_t entry)
{
    return entry >> PA_INDEX_BITS;
}

/* Move a slot that nobody but the program can move now, whatever its word says: it is FREE or DONE, or
 * whoever had it is dead. */
static inline void pa_state_set(struct pa_slot *slot, enum pa_phase to, uint32_t generation)
{
    atomic_store_explicit(&slot->state, pa_state_word(to, 0, generation), memory_order_release);
}

/* Move a slot whose word was read as `from`.  False: somebody else moved it first. */
bool pa_state_move(struct pa_slot *slot, uint32_t from, enum pa_phase to, uint32_t owner,
                   uint32_t generation, enum pa_mover mover);

#endif
