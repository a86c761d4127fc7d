/* tests/model/identity.pml - the program becomes another user.
 *
 * Modelled: change(), renew_pools() and pool_renew() (procaio/csrc/identity.c, clearing.c), accept_result() of
 * what was refused (queue.c), the worker's told_to_leave(), refuse() and run_request()
 * (workers/loop.c), and of the spawner that it leaves, and whom it makes (workers/spawner.c).  How a
 * request comes to a worker and back is in ring.pml: here a claim and a result are one step each.
 *
 * Proved: no request that was made when the program had new rights is executed with old ones, and
 * every request is executed once, though workers refuse some, and DEATHS of them die.
 *
 * Every access to shared memory is a step of its own.  Another thread of the program makes requests
 * at any time, also in the middle of the change.
 */
#ifndef DEATHS
#define DEATHS 1
#endif
#ifndef NREQUESTS
#define NREQUESTS 2
#endif
#define NWORKERS 2

#define NOT_MADE 0
#define READY 1
#define EXECUTING 2
#define REFUSED 3 /* DONE, with PA_REFUSED */
#define DONE 4
#define ENDED 5

/* -- shared memory ------------------------------------------------------------------------------ */

byte identity; /* of the header */
byte phase[NREQUESTS], owner[NREQUESTS];

/* -- the program -------------------------------------------------------------------------------- */

byte number;            /* identity_number */
bool changed;           /* its rights are the new ones */
bool made_new[NREQUESTS]; /* the request was made with them */
byte executed[NREQUESTS];
byte deaths = DEATHS;
bool over;

/* What a spawner has from the program when it is cloned, and its workers from it. */
bool spawner_lives, spawner_rights;
byte spawner_identity;
bool lives[NWORKERS], dead[NWORKERS], rights[NWORKERS];
byte its_identity[NWORKERS];

#if NREQUESTS == 3
#define ALL_ENDED (phase[0] == ENDED && phase[1] == ENDED && phase[2] == ENDED)
#define IS_READY (phase[0] == READY || phase[1] == READY || phase[2] == READY)
#else
#define ALL_ENDED (phase[0] == ENDED && phase[1] == ENDED)
#define IS_READY (phase[0] == READY || phase[1] == READY)
#endif

active proctype Environment()
{
end:
    do
    :: over
    od
}

/* -- a worker ----------------------------------------------------------------------------------- */

#define DIE                                                                                       \
    if                                                                                            \
    :: deaths > 0 -> deaths--; goto leave                                                         \
    :: true                                                                                       \
    fi

active [NWORKERS] proctype Worker() provided (!over)
{
    byte w = _pid - 1, r;
end:
    do
    :: atomic { lives[w] -> r = 0 }
search:
#ifndef NO_LEAVING
        if /* told_to_leave() */
        :: identity != its_identity[w] -> goto leave
        :: else
        fi;
#endif
#ifdef LOOK_BEFORE_CLAIM
        if
        :: identity != its_identity[w] -> goto leave
        :: else
        fi;
#endif
idle:
        atomic {
            if
            :: phase[0] == READY -> r = 0
            :: phase[1] == READY -> r = 1
#if NREQUESTS > 2
            :: phase[2] == READY -> r = 2
#endif
            :: identity != its_identity[w] && !IS_READY -> goto search /* all bells were rung */
            fi;
            phase[r] = EXECUTING;
            owner[r] = w;
            DIE
        }
#ifndef LOOK_BEFORE_CLAIM
        if
        :: identity != its_identity[w] -> /* refuse() */
            atomic { phase[r] = REFUSED; DIE }
            goto search
        :: else
        fi;
#endif
        atomic {
            assert(!made_new[r] || rights[w]); /* with old rights */
            executed[r]++;
            assert(executed[r] == 1);
            phase[r] = DONE;
            DIE
        }
        goto search;
leave:
        atomic { lives[w] = false; dead[w] = true; r = 0 }
    od
}

/* -- the spawner -------------------------------------------------------------------------------- */

inline clone_worker(w)
{
    atomic {
        rights[w] = spawner_rights;
        its_identity[w] = spawner_identity;
        lives[w] = true
    }
}

active proctype Spawner() provided (!over)
{
end:
    do
    :: spawner_lives ->
        if
        :: identity != spawner_identity -> spawner_lives = false /* it leaves */
        :: identity == spawner_identity && IS_READY && !lives[0] && !dead[0] -> clone_worker(0)
        :: identity == spawner_identity && IS_READY && !lives[1] && !dead[1] -> clone_worker(1)
        fi
    od
}

/* -- the program -------------------------------------------------------------------------------- */

inline start_spawner()
{
    atomic {
        spawner_identity = identity;
        spawner_rights = changed;
        spawner_lives = true
    }
}

/* clearing.c: pool_renew() */
inline renew_spawner()
{
    !spawner_lives; /* end_spawner() waits for that */
#ifndef NO_NEW_SPAWNER
    start_spawner()
#else
    skip
#endif
}

/* identity.c: change() */
active proctype Changing() provided (!over)
{
    spawner_lives;
    number++;
    identity = number;
    renew_spawner();
#ifdef ONLY_BEFORE
    changed = true
#else
    atomic { /* from the call on until every pool knows, no other thread makes a request */
        changed = true;
#ifdef ONE_BY_ONE
    }
    atomic { /* but one did: while another pool's spawner was waited for */
#endif
        number++;
        identity = number
    }
    renew_spawner()
#endif
}

/* queue.c: queue_accept_result() */
inline accept(r)
{
    atomic {
        if
#ifdef NO_SENDING_AGAIN
        :: phase[r] == REFUSED -> phase[r] = ENDED
#else
        :: phase[r] == REFUSED -> phase[r] = READY
#endif
        :: phase[r] == DONE -> phase[r] = ENDED
        fi
    }
}

/* children.c: pool_bury_worker().  What it had begun has failed or is not repeated: here only what it had not
 * begun is of interest. */
inline bury(w)
{
    atomic {
        if
        :: phase[0] == EXECUTING && owner[0] == w -> phase[0] = READY
        :: else
        fi;
        if
        :: phase[1] == EXECUTING && owner[1] == w -> phase[1] = READY
        :: else
        fi;
#if NREQUESTS > 2
        if
        :: phase[2] == EXECUTING && owner[2] == w -> phase[2] = READY
        :: else
        fi;
#endif
        dead[w] = false
    }
}

inline make(r)
{
    atomic { phase[r] == NOT_MADE -> made_new[r] = changed; phase[r] = READY }
}

active proctype Program() provided (!over)
{
    start_spawner();
    do
    :: make(0)
    :: make(1)
#if NREQUESTS > 2
    :: make(2)
#endif
    :: (phase[0] == REFUSED || phase[0] == DONE) -> accept(0)
    :: (phase[1] == REFUSED || phase[1] == DONE) -> accept(1)
#if NREQUESTS > 2
    :: (phase[2] == REFUSED || phase[2] == DONE) -> accept(2)
#endif
    :: dead[0] -> bury(0)
    :: dead[1] -> bury(1)
    :: atomic {
            ALL_ENDED ->
            assert(executed[0] == 1 && executed[1] == 1);
            over = true
        }
    od
}
