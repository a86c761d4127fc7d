/* tests/model/ring.pml - slots, lanes, result rings, and workers that die at every step.
 *
 * Modelled: the program's publish(), pa_lane_push(), pa_lane_skip_stale(), queue_refill(),
 * queue_withdraw() and make_room(), abort_in_slot(), queue_accept_result() and queue_worker_ended()
 * (shm/ring.c, procaio/csrc/queue.c and force.c); the workers' lane_claim(), the rest of
 * run_request() and pa_result_push() (shm/ring.c, workers/loop.c).  Nobody sleeps here (wake.pml
 * does): a process that has nothing to do waits until it has.
 *
 * An aborted worker is killed: the signal comes at any of its steps, or, if the program may not send
 * it, never.
 *
 * Proved: every request ends exactly once (no state in which nothing goes on and one has not ended);
 * it is executed by one worker at a time, never after it was cancelled; one that must not be done
 * twice is started once at the most; no result ring overflows.
 *
 * Every access to shared memory is a step of its own.  A worker may die between any two of its
 * writes, DEATHS times in a run.  Lanes have a place for each slot, as in the C, and their indices
 * begin where they wrap.  Publishing needs no more than release and acquire: what needs a fence is
 * in wake.pml and signal.pml.
 */
#ifndef NREQUESTS
#define NREQUESTS 3
#endif
#ifndef DEATHS
#define DEATHS 1
#endif
#ifndef WITHDRAWALS
#define WITHDRAWALS 1
#endif
#ifndef ABORTS
#define ABORTS 0
#endif
#ifndef MOST_TRIES
#define MOST_TRIES 1
#endif
#ifndef NLANES
#define NLANES 2
#endif
#define NSLOTS 2
#define NWORKERS 2
#define FIRST 255
#define AT(i) ((i) & (NSLOTS - 1))
#define DEPTH(ring) ((ring.tail - ring.head) & 255)

#if NLANES > 1
#define SOMETHING_THERE (lanes[0].head != lanes[0].tail || lanes[1].head != lanes[1].tail)
#else
#define SOMETHING_THERE (lanes[0].head != lanes[0].tail)
#endif

#define FREE 0
#define READY 1
#define EXECUTING 2
#define DONE 3
#define ABORTED 4

/* -- shared memory ---------------------------------------------------------------------------- */

typedef Slot {
    byte phase, owner, generation; /* one word in the C: read and moved in one step */
    byte request
}
typedef Ring {
    byte entry[NSLOTS]; /* pa_entry() of index and generation; 0 once it was passed */
    byte head, tail
}
#define ENTRY(index, generation) ((generation) * NSLOTS + (index))
#define INDEX(entry) ((entry) & (NSLOTS - 1))
#define GENERATION(entry) ((entry) / NSLOTS)
Slot slots[NSLOTS];
#define NAMES_READY(entry)                                                                        \
    (slots[INDEX(entry)].phase == READY && slots[INDEX(entry)].generation == GENERATION(entry))
Ring lanes[NLANES];
Ring results[NWORKERS]; /* the head is the program's own */

/* -- what is proved of ------------------------------------------------------------------------- */

bool executing[NREQUESTS], cancelled[NREQUESTS], done[NREQUESTS], aborted[NREQUESTS];
byte started[NREQUESTS];
#define REPEATABLE(r) ((r) != 0)

bool ended[NWORKERS]; /* dead, and not buried */
bool condemned[NWORKERS]; /* its request was aborted: a signal is on its way */
byte deaths = DEATHS;
bool over;

active proctype Environment()
{
end:
    do
    :: over /* for ever: the end of a run is no deadlock */
    od
}

/* -- a worker ---------------------------------------------------------------------------------- */

#define DIE                                                                                       \
    if                                                                                            \
    :: deaths > 0 -> deaths--; goto dead                                                          \
    :: condemned[w] -> goto dead                                                                  \
    :: true                                                                                       \
    fi

/* ring.c: the claim itself, slot READY -> EXECUTING(me) */
inline claim_slot()
{
    if /* ready_slot() */
    :: NAMES_READY(entry) ->
        atomic {
            if /* compare-and-swap */
            :: NAMES_READY(entry) ->
                slots[INDEX(entry)].phase = EXECUTING;
                slots[INDEX(entry)].owner = w + 1;
                claimed = true;
                DIE
            :: else
            fi
        }
    :: else
    fi
}

inline advance_head()
{
    atomic {
        if
        :: lanes[lane].head == head ->
            lanes[lane].entry[AT(head)] = 0;
            head++;
            lanes[lane].head = head
        :: else -> head = lanes[lane].head
        fi;
        DIE
    }
}

proctype Worker(byte w) provided (!over)
{
    byte lane, head, entry, request;
    bool claimed;
born:
end:
    !ended[w];
    atomic { true; DIE }
search:
    assert(!condemned[w]); /* it would take another request, and the signal would end that one */
    /* pa_lane_claim() */
    SOMETHING_THERE;
    lane = 0;
    head = lanes[0].head;
    do
    :: lane == NLANES -> lane = 0; head = 0; goto search
    :: lane < NLANES ->
        if
        :: head == lanes[lane].tail ->
            atomic {
                lane++;
                head = 0;
                if
                :: lane < NLANES -> head = lanes[lane].head
                :: else
                fi
            }
        /* Not at the tail, and not after that either: the entry may as well be read now. */
        :: atomic { head != lanes[lane].tail -> entry = lanes[lane].entry[AT(head)] }
#ifdef ADVANCE_FIRST
            advance_head();
            claim_slot();
#else
            claim_slot();
            advance_head();
#endif
            if
            :: claimed -> break
            :: else -> entry = 0
            fi
        fi
    od;
    /* run_request() */
    atomic {
        claimed = false;
        lane = 0;
        head = 0;
        request = slots[INDEX(entry)].request;
        assert(!executing[request] && !cancelled[request] && !done[request]);
        executing[request] = true;
        started[request]++;
        assert(REPEATABLE(request) || started[request] == 1);
        DIE
    }
#ifdef PUBLISH_FIRST
    results[w].entry[AT(results[w].tail)] = entry;
    atomic { results[w].tail++; DIE }
#endif
    atomic { /* EXECUTING -> DONE, or it was aborted */
        assert(slots[INDEX(entry)].owner == w + 1 &&
               slots[INDEX(entry)].generation == GENERATION(entry));
        if
        :: slots[INDEX(entry)].phase == EXECUTING -> slots[INDEX(entry)].phase = DONE
        :: else ->
            assert(slots[INDEX(entry)].phase == ABORTED);
#ifdef GO_ON_ABORTED
            executing[request] = false;
            entry = 0;
            request = 0;
            goto search
#else
            goto dead
#endif
        fi;
        executing[request] = false;
        request = 0;
        DIE
    }
#ifndef PUBLISH_FIRST
    /* pa_result_push() */
    assert(DEPTH(results[w]) < NSLOTS);
    results[w].entry[AT(results[w].tail)] = entry;
    atomic { results[w].tail++; entry = 0; DIE }
#endif
    goto search;
dead:
    atomic {
        if
        :: (slots[INDEX(entry)].phase == EXECUTING || slots[INDEX(entry)].phase == ABORTED) &&
           slots[INDEX(entry)].owner == w + 1 ->
            executing[slots[INDEX(entry)].request] = false
        :: else
        fi;
        lane = 0; head = 0; entry = 0; request = 0; claimed = false;
        ended[w] = true
    }
    goto born
}

/* -- the program ------------------------------------------------------------------------------- */

byte in_flight[NSLOTS];        /* request + 1 */
bool overflow[NREQUESTS];      /* made, no slot yet */
byte tries[NREQUESTS];
bool refill;                   /* something has happened after which queue_refill() is called */

#if NREQUESTS == 3
#define ALL_DONE (done[0] && done[1] && done[2])
#define WAITING (overflow[0] || overflow[1] || overflow[2])
#define FIRST_WAITING (overflow[0] -> 0 : (overflow[1] -> 1 : 2))
#else
#define ALL_DONE (done[0] && done[1])
#define WAITING (overflow[0] || overflow[1])
#define FIRST_WAITING (overflow[0] -> 0 : 1)
#endif

inline end_request(r)
{
    assert(!done[r]);
    done[r] = true
}
inline slot_free(at)
{
    slots[at].phase = FREE;
    slots[at].owner = 0;
    slots[at].request = 0;
    in_flight[at] = 0;
    refill = true
}

/* queue.c: queue_accept_result() */
inline accept(at, expected)
{
    atomic {
        if
        :: in_flight[at] != 0 && slots[at].phase == DONE && slots[at].generation == expected ->
            end_request(in_flight[at] - 1);
            slot_free(at)
        :: else
        fi
    }
}

/* queue.c: queue_harvest_worker(), one entry */
inline pop_result(who)
{
    atomic {
        entry = results[who].entry[AT(results[who].head)];
        results[who].entry[AT(results[who].head)] = 0;
        results[who].head++
    }
    accept(INDEX(entry), GENERATION(entry));
    entry = 0
}

/* ring.c: pa_lane_skip_stale() */
inline skip_stale()
{
    head = lanes[lane].head;
    do
    :: head == lanes[lane].tail -> break
    :: else ->
        entry = lanes[lane].entry[AT(head)];
        if
        :: NAMES_READY(entry) -> break
        :: else ->
            atomic {
                if
                :: lanes[lane].head == head ->
                    lanes[lane].entry[AT(head)] = 0;
                    head++;
                    lanes[lane].head = head
                :: else -> head = lanes[lane].head
                fi
            }
        fi
    od;
    entry = 0
}

/* ring.c: pa_lane_push() */
inline lane_push(at)
{
    head = lanes[lane].head;
    pushed = ((lanes[lane].tail - head) & 255) < NSLOTS;
    head = 0;
    if
    :: pushed ->
        lanes[lane].entry[AT(lanes[lane].tail)] = ENTRY(at, slots[at].generation);
        lanes[lane].tail++
    :: else
    fi
}

/* queue.c: dispatch() and publish() */
inline dispatch()
{
    atomic {
        refill = true;
        request = FIRST_WAITING;
        overflow[request] = false;
        if
        :: in_flight[0] == 0 -> slot = 0
        :: in_flight[1] == 0 -> slot = 1
        fi;
        lane = request % NLANES;
        slots[slot].request = request;
        slots[slot].generation++;
        slots[slot].phase = READY;
        in_flight[slot] = request + 1
    }
    lane_push(slot);
#ifndef NO_SKIP_STALE
    if
    :: !pushed -> skip_stale(); lane_push(slot)
    :: else
    fi;
#endif
    if
    :: !pushed -> /* somebody's request must be in the way */
        atomic {
            assert(slots[slot].phase == READY);
            slot_free(slot);
            overflow[request] = true;
            refill = false
        }
    :: else
    fi;
    d_step { pushed = false; lane = 0; slot = 0; request = 0 }
}

/* queue.c: queue_withdraw(), or what make_room() does with one slot */
inline withdraw(at)
{
    atomic {
        slots[at].phase == READY && withdrawals > 0 ->
        withdrawals--;
        request = in_flight[at] - 1;
        slot_free(at);
        if
        :: cancelled[request] = true; end_request(request)
        :: overflow[request] = true
        fi;
        request = 0
    }
}

/* force.c: abort_in_slot() of what a worker executes; the slot stays until that is dead */
inline abort(at)
{
    atomic {
        slots[at].phase == EXECUTING && aborts > 0 ->
        aborts--;
        request = in_flight[at] - 1;
#ifdef ABORT_BY_SIGNAL
        skip; /* killed, and no more */
#else
        slots[at].phase = ABORTED;
#endif
        aborted[request] = true;
        condemned[slots[at].owner - 1] = true;
#ifdef FREE_ABORTED
        slot_free(at);
        end_request(request);
#endif
        request = 0
    }
}

/* force.c: queue_worker_ended(), for one slot */
inline look_at_slot(who, at)
{
    if
    :: in_flight[at] != 0 && slots[at].owner == who + 1 && slots[at].phase == DONE ->
#ifdef NO_LOOK_FOR_DONE
        skip
#else
        accept(at, slots[at].generation)
#endif
    :: in_flight[at] != 0 && slots[at].owner == who + 1 && slots[at].phase == ABORTED ->
#ifdef NO_LOOK_FOR_ABORTED
        skip
#else
        atomic { /* end_aborted() */
            end_request(in_flight[at] - 1);
            slot_free(at)
        }
#endif
    :: in_flight[at] != 0 && slots[at].owner == who + 1 && slots[at].phase == EXECUTING ->
        atomic { /* rerun_or_fail() */
            request = in_flight[at] - 1;
            slot_free(at);
            if
#ifdef RERUN_ALL
            :: tries[request] < MOST_TRIES ->
#else
            :: REPEATABLE(request) && tries[request] < MOST_TRIES ->
#endif
                tries[request]++;
                overflow[request] = true
            :: else -> end_request(request) /* WorkerDied */
            fi;
            request = 0
        }
    :: else
    fi
}

inline bury(who)
{
#ifdef REUSED_FIRST
    atomic { condemned[who] = false; ended[who] = false }
#endif
#ifndef RING_FORGOTTEN
    do
    :: results[who].head != results[who].tail -> pop_result(who)
    :: else -> break
    od;
#endif
    look_at_slot(who, 0);
    look_at_slot(who, 1);
#ifdef RING_FORGOTTEN
    results[who].head = results[who].tail;
#endif
#ifndef REUSED_FIRST
    atomic { condemned[who] = false; ended[who] = false }
#endif
}

active proctype Program() provided (!over)
{
    byte withdrawals = WITHDRAWALS, aborts = ABORTS, request, slot, lane, head, entry;
    bool pushed;
    d_step {
        lanes[0].head = FIRST; lanes[0].tail = FIRST;
#if NLANES > 1
        lanes[1].head = FIRST; lanes[1].tail = FIRST;
#endif
        results[0].head = FIRST; results[0].tail = FIRST;
        results[1].head = FIRST; results[1].tail = FIRST;
        overflow[0] = true;
        overflow[1] = true;
#if NREQUESTS > 2
        overflow[2] = true;
#endif
        refill = true
    }
    run Worker(0);
    run Worker(1);
    do
    :: refill && WAITING && (in_flight[0] == 0 || in_flight[1] == 0) -> dispatch()
    :: withdraw(0)
    :: withdraw(1)
    :: abort(0)
    :: abort(1)
    :: results[0].head != results[0].tail && !ended[0] -> pop_result(0)
    :: results[1].head != results[1].tail && !ended[1] -> pop_result(1)
    :: ended[0] -> bury(0)
    :: ended[1] -> bury(1)
    :: ALL_DONE -> over = true
    od
}
