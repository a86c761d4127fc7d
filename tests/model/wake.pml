/* tests/model/wake.pml - who sleeps, who may run, who is woken.
 *
 * Modelled: the program's pa_wake_after_push(), pool_bury_worker() and pa_wake_all() (shm/wake.c,
 * procaio/csrc/children.c), the whole of pa_worker_loop() (workers/loop.c: permits, spinning, sleeping,
 * leaving), and the monitor's look(), rest() and start_worker() (workers/spawner.c).  One lane,
 * and a claim in one step: what a claim is made of is in ring.pml.
 *
 * Proved: no request is forgotten.  Nobody's sleep has a time limit here, except where the C relies
 * on it (the monitor that watches); so a state in which everybody sleeps while a request waits is
 * an invalid end state.  Request 0 is the worst that can happen to a worker: it is executed only
 * after the last request was, like a read from a pipe that the last request writes to.
 *
 * Every access to shared memory is a step of its own; what a process does by itself until the next
 * one belongs to the step.  DEATHS workers die, between any two of their writes: to others, a death
 * before a read and one after it are the same, and a death while asleep is one before falling asleep
 * that is noticed late.
 *
 * Where the C decides by measured time, the model decides at random, but where deciding again would
 * hide that somebody waits for ever, it decides once for all (-DBACKLOG=true or false).
 *
 * Stores that a processor may delay stand in one-entry store buffers once their fence is removed
 * (-DNO_FENCE_...): others see them when the buffer is drained, at any time, or at the next
 * read-modify-write of the same process.  A store with its fence is one step: what comes between
 * the two reads nothing.  After two read-modify-writes a load may be done before both (on Arm it
 * may): with -DNO_FENCE_SLEEP the look that follows them is done first.  The monitor, which the
 * program rings at every push that wakes nobody, makes up for that within its interval; so the run
 * that shows it is without one (-DNO_MONITOR: it never looks, and no request needs another).
 */
#ifndef NPERMITS
#define NPERMITS 1
#endif
#ifndef NREQUESTS
#define NREQUESTS 2
#endif
#ifndef DEATHS
#define DEATHS 0
#endif
#ifndef RETIRES
#define RETIRES 0 /* workers that leave because they were idle too long */
#endif
#ifndef MONITOR_DEATHS
#define MONITOR_DEATHS 0
#endif
#ifndef BACKLOG
#define BACKLOG false /* what waits takes longer than waking a worker */
#endif
#define NWORKERS 2
#define NONE 255

#define VACANT 0
#define STARTING 1
#define ALIVE 2
#define RETIRED 3

/* -- shared memory ---------------------------------------------------------------------------- */

byte lane[NREQUESTS + DEATHS];
byte tail, head;
byte permits[NPERMITS]; /* 0 or holder + 1 */
bool sleepers[NWORKERS];
byte spinner;
bool monitor_asleep;
byte life[NWORKERS];
bool running[NWORKERS];   /* pa_worker.activity is PA_RUNNING */
byte executing[NWORKERS]; /* the slot that is EXECUTING(w): request + 1 */
bool finished[NREQUESTS]; /* the slot is DONE; what follows is in signal.pml */

/* Bells.  Their owners compare them with `rung`, which they read before they announce that they
 * sleep; so what counts is whether a bell was rung since then.  At other times it is no matter. */
#define NO_MATTER 0
#define QUIET 1
#define RUNG 2
byte bell[NWORKERS], monitor_bell;
#define RING(b) b = (b == QUIET -> RUNG : b)

#define LANES_EMPTY (head == tail)

/* -- store buffers, where a fence is missing --------------------------------------------------- */

byte own_tail; /* the program's; `tail` may lag behind */
#ifdef NO_FENCE_PUSH
#define STORE_TAIL skip
#define DRAIN_TAIL tail = own_tail
#else
#define STORE_TAIL tail = own_tail
#define DRAIN_TAIL skip
#endif

#ifdef NO_FENCE_SPIN
bool spinner_cleared[NWORKERS];
#define CLEAR_SPINNER(w) spinner_cleared[w] = true
#define DRAIN_SPINNER(w)                                                                          \
    spinner = (spinner_cleared[w] -> 0 : spinner);                                                \
    spinner_cleared[w] = false
#else
#define CLEAR_SPINNER(w) spinner = 0
#define DRAIN_SPINNER(w) skip
#endif

#ifdef NO_FENCE_REST
bool asleep_set;
#define SET_ASLEEP asleep_set = true
#define CLEAR_ASLEEP                                                                              \
    asleep_set = false;                                                                           \
    monitor_asleep = false
#else
#define SET_ASLEEP monitor_asleep = true
#define CLEAR_ASLEEP monitor_asleep = false
#endif

/* -- the kernel -------------------------------------------------------------------------------- */

bool ended[NWORKERS], monitor_ended; /* and not buried */
byte deaths = DEATHS, monitor_deaths = MONITOR_DEATHS, retires = RETIRES;
bool over; /* every request has ended: nothing more to find out */

#if NREQUESTS == 2
#define ALL_FINISHED (finished[0] && finished[1])
#else
#define ALL_FINISHED (finished[0] && finished[1] && finished[2])
#endif

active proctype Environment()
{
end:
    do
    :: over /* for ever: the end of a run is no deadlock */
#ifdef NO_FENCE_PUSH
    :: d_step { tail != own_tail -> DRAIN_TAIL }
#endif
#ifdef NO_FENCE_SPIN
    :: d_step { spinner_cleared[0] -> DRAIN_SPINNER(0) }
    :: d_step { spinner_cleared[1] -> DRAIN_SPINNER(1) }
#endif
#ifdef NO_FENCE_REST
    :: d_step { asleep_set -> asleep_set = false; monitor_asleep = true }
#endif
    od
}

/* One access to shared memory, after which the process may be dead. */
#if DEATHS > 0 || MONITOR_DEATHS > 0
#define DIE                                                                                       \
    if                                                                                            \
    :: mortal && deaths > 0 -> deaths--; goto dead                                                \
    :: monitor && monitor_deaths > 0 -> monitor_deaths--; goto dead                               \
    :: true                                                                                       \
    fi
#else
#define DIE skip
#endif

/* -- shm/wake.c -------------------------------------------------------------------------------- */

/* pa_permit_take(): a compare-and-swap for each permit. */
inline permit_take(w, taken)
{
    atomic {
        taken = (permits[0] == 0 -> 0 : NONE);
        permits[0] = (permits[0] == 0 -> w + 1 : permits[0]);
        DIE
    }
#if NPERMITS > 1
    if
    :: taken == NONE ->
        atomic {
            taken = (permits[1] == 0 -> 1 : NONE);
            permits[1] = (permits[1] == 0 -> w + 1 : permits[1]);
            DIE
        }
    :: else
    fi
#endif
}
#define REVOKE(p, w) permits[p] = (permits[p] == (w) + 1 -> 0 : permits[p])
inline permits_return(w)
{
    atomic { REVOKE(0, w); DIE }
#if NPERMITS > 1
    atomic { REVOKE(1, w); DIE }
#endif
}
/* pa_permit_held() */
#if NPERMITS > 1
#define HELD(w) (permits[0] == (w) + 1 -> 0 : (permits[1] == (w) + 1 -> 1 : NONE))
#else
#define HELD(w) (permits[0] == (w) + 1 -> 0 : NONE)
#endif

inline monitor_ring()
{
    atomic { monitor_asleep = false; DIE }
    atomic { RING(monitor_bell); DIE }
}
inline monitor_ensure()
{
    if
    :: monitor_asleep -> monitor_ring()
    :: else
    fi
}

inline wake_one()
{
    do
    :: atomic {
           whom = (sleepers[0] -> 0 : (sleepers[1] -> 1 : NONE)); /* first_sleeper() */
           woke = false;
           if
           :: whom == NONE -> break
           :: else
           fi
       }
       permit_take(whom, given);
       if
       :: given == NONE -> whom = NONE; break
       :: else
       fi;
       atomic { woke = sleepers[whom]; sleepers[whom] = false; DIE } /* sleeper_take() */
       if
       :: atomic { woke -> RING(bell[whom]); whom = NONE; given = NONE; DIE; break }
       :: atomic { else -> REVOKE(given, whom); whom = NONE; given = NONE; DIE }
       fi
    od
}

/* -- a worker: workers/loop.c ------------------------------------------------------------------ */

inline stop_spinning(w)
{
    atomic { spinning = false; CLEAR_SPINNER(w); DIE }
    if
    :: !LANES_EMPTY -> monitor_ensure()
    :: else
    fi
}

inline has_permit(w)
{
    if
    :: permit != NONE && permits[permit] == w + 1
    :: else ->
        atomic { DRAIN_SPINNER(w); permit = NONE }
        permit_take(w, permit)
    fi
}

/* spin(): `found` says whether it is worth another attempt to claim. */
inline spin(w)
{
    found = false;
#ifdef SPIN
    if
    :: !spinning -> skip /* spin_ns is too small */
    :: !spinning ->
        atomic {
            DRAIN_SPINNER(w);
            spinning = (spinner == 0);
            spinner = (spinner == 0 -> w + 1 : spinner);
            DIE
        }
    :: spinning
    fi;
    if
    :: spinning && !LANES_EMPTY -> found = true
    :: spinning -> stop_spinning(w); found = !LANES_EMPTY /* its time is over */
    :: !spinning
    fi
#endif
}

inline run_request(w)
{
    if
    :: spinning -> stop_spinning(w)
    :: else
    fi;
    if /* wake_next() */
    :: !LANES_EMPTY ->
#ifndef NO_ENSURE_BEFORE_RUN /* as it was */
        monitor_ensure();
#endif
        if /* worth it? */
        :: BACKLOG -> atomic { DRAIN_SPINNER(w); woke = false } wake_one(); woke = false
        :: !BACKLOG
        fi
    :: else
    fi;
    atomic { running[w] = true; DIE }
#ifndef NO_MONITOR
    executing[w] != 1 || finished[NREQUESTS - 1]; /* perform() */
#endif
    atomic {
        assert(!finished[executing[w] - 1]);
        finished[executing[w] - 1] = true;
        executing[w] = 0;
        running[w] = false;
        over = ALL_FINISHED;
        DIE
    }
}

inline sleep_until_rung(w)
{
    atomic {
        bell[w] = QUIET; /* rung = *bell */
#ifdef NO_FENCE_SLEEP
        saw = !LANES_EMPTY
#endif
    }
    atomic { DRAIN_SPINNER(w); sleepers[w] = true; DIE }
    permits_return(w);
    permit = NONE;
    /* Fence; look once more. */
    do
    :: bell[w] == RUNG -> break
    :: bell[w] == QUIET ->
#ifdef NO_FENCE_SLEEP
        atomic { found = saw; saw = !LANES_EMPTY } /* one look too early */
#else
        found = !LANES_EMPTY;
#endif
        if
        :: found ->
            found = false;
            permit_take(w, permit); /* has_permit() */
            if
            :: permit != NONE -> break
            :: else
            fi
        :: else
        fi;
        if
        :: bell[w] == RUNG /* futex wait */
        :: retires > 0 && bell[w] == QUIET -> atomic { retires--; stay = false; break }
        fi
    od;
    atomic { bell[w] = NO_MATTER; sleepers[w] = false; DIE }
    permit = HELD(w)
}

inline leave(w)
{
    atomic { life[w] = RETIRED; DIE }
    permits_return(w);
    if
    :: !LANES_EMPTY ->
        wake_one();
        if
        :: !woke -> monitor_ring()
        :: else
        fi
    :: else
    fi
}

proctype Worker(byte w) provided (!over)
{
    byte permit, whom, given;
    bool woke, spinning, found, stay;
    bool mortal = true, monitor = false;
#ifdef NO_FENCE_SLEEP
    bool saw;
#endif
born:
end:
    life[w] == ALIVE && !ended[w];
    atomic { permit = HELD(w); whom = NONE; given = NONE; stay = true; DIE }
    do
    :: true ->
        has_permit(w);
        if
        :: permit != NONE ->
            if
            :: atomic { /* claim */
                   !LANES_EMPTY ->
                   executing[w] = lane[head] + 1;
                   lane[head] = 0;
                   head++;
                   DIE
               }
               run_request(w);
               goto again
            :: LANES_EMPTY -> spin(w)
            fi;
            if
            :: found -> found = false; goto again
            :: else
            fi
        :: else ->
            if
            :: spinning -> stop_spinning(w)
            :: else
            fi
        fi;
        sleep_until_rung(w);
        if
        :: !stay -> break
        :: else
        fi;
again:
        skip
    od;
    leave(w);
dead:
    /* What it stored reaches memory before anybody hears of its end. */
    atomic {
        DRAIN_SPINNER(w);
        permit = 0; whom = 0; given = 0; woke = false; spinning = false; found = false;
        stay = false;
        bell[w] = NO_MATTER;
#ifdef NO_FENCE_SLEEP
        saw = false;
#endif
        ended[w] = true
    }
    goto born
}

/* -- the monitor: workers/spawner.c ------------------------------------------------------------ */

#define STUCK(p) (permits[p] != 0 && running[permits[p] - 1])
#if NPERMITS > 1
#define ANY_STUCK (STUCK(0) || STUCK(1))
#define IN_USE ((permits[0] != 0) + (permits[1] != 0))
#else
#define ANY_STUCK STUCK(0)
#define IN_USE (permits[0] != 0)
#endif
#define SOMEBODY_SLEEPS (sleepers[0] || sleepers[1])
#define CAN_START (life[0] == VACANT || life[1] == VACANT)
/* Looking again and again without changing anything is no step here: else nobody would ever be
 * seen to wait.  So the monitor looks when it will change something. */
#define WILL_CHANGE                                                                               \
    (!LANES_EMPTY && (ANY_STUCK || ((IN_USE == 0 || BACKLOG) && IN_USE < NPERMITS &&              \
                                    (SOMEBODY_SLEEPS || CAN_START))))

inline revoke_stuck(p)
{
#ifdef STALE /* what was read may have changed by the time of the compare-and-swap */
    atomic {
        holder = permits[p];
        if
        :: holder != 0 && running[holder - 1]
        :: else -> holder = 0
        fi
    }
    if
    :: holder != 0 -> atomic { REVOKE(p, holder - 1); holder = 0; DIE }
    :: else
    fi
#else
    atomic {
        permits[p] = (STUCK(p) -> 0 : permits[p]);
        DIE
    }
#endif
}

inline start_worker()
{
    whom = (life[0] == VACANT -> 0 : (life[1] == VACANT -> 1 : NONE));
    if
    :: whom != NONE ->
        /* A spawner that dies before the clone is not modelled: the number is lost then. */
        d_step { life[whom] = STARTING; running[whom] = false }
        monitor = false;
        permit_take(whom, given);
        atomic { life[whom] = ALIVE; whom = NONE; given = NONE; monitor = true; DIE }
    :: else
    fi
}

inline look()
{
    revoke_stuck(0);
#if NPERMITS > 1
    revoke_stuck(1);
#endif
    holder = IN_USE;
    if
    :: LANES_EMPTY || (holder > 0 && !BACKLOG)
    :: else ->
        wake_one();
        if
        :: !woke && holder < NPERMITS -> start_worker()
        :: else
        fi
    fi;
    d_step { holder = 0; woke = false }
}

inline rest()
{
    atomic { monitor_bell = QUIET; DIE } /* rung = *bell */
    atomic { SET_ASLEEP; DIE }
    if
    :: LANES_EMPTY -> monitor_bell == RUNG /* futex wait */
    :: else
    fi;
    atomic { CLEAR_ASLEEP; monitor_bell = NO_MATTER; DIE }
}

active proctype Monitor() provided (!over)
{
    byte holder, whom = NONE, given = NONE;
    bool woke, mortal = false, monitor = true;
born:
end:
    !monitor_ended;
    do
#ifndef NO_MONITOR
    :: WILL_CHANGE -> look()
#ifndef NO_REST
    :: LANES_EMPTY -> rest()
#endif
#endif
    :: false
    od;
dead:
    atomic { holder = 0; whom = NONE; given = NONE; woke = false; monitor_bell = NO_MATTER; monitor_ended = true }
    goto born
}

/* -- the program ------------------------------------------------------------------------------- */

inline wake_after_push()
{
    if
#ifdef SPIN
    :: spinner != 0
#endif
    :: else ->
#if NPERMITS > 1
        if /* any_permit_held() */
        :: permits[0] != 0
        :: else ->
            if
            :: permits[1] != 0
            :: else -> atomic { DRAIN_TAIL; woke = false } wake_one()
            fi
        fi;
#else
        if
        :: permits[0] != 0
        :: else -> atomic { DRAIN_TAIL; woke = false } wake_one()
        fi;
#endif
        if
        :: !woke -> monitor_ensure()
        :: woke -> woke = false
        fi
    fi
}

inline wake_all()
{
    if
    :: life[0] != VACANT -> RING(bell[0])
    :: else
    fi;
    if
    :: life[1] != VACANT -> RING(bell[1])
    :: else
    fi;
    monitor_ring()
}

/* end_its_wakings().  To read both words in one step shows as much: here only the program makes a
 * number vacant, and the compare-and-swap, a step of its own, fails if the permit has changed. */
#define LOST(p) (permits[p] != 0 && life[permits[p] - 1] == VACANT)
inline return_lost(p)
{
    if
    :: atomic { LOST(p) -> holder = permits[p] }
       d_step { REVOKE(p, holder - 1); holder = 0 }
    :: else
    fi
}
inline end_its_wakings()
{
#ifndef OLD_WAKINGS /* as it was */
    return_lost(0);
#if NPERMITS > 1
    return_lost(1);
#endif
#endif
    wake_all()
}

/* bury_worker(): its request is run again, its share of the common good goes back. */
inline bury(w)
{
    if
    :: executing[w] != 0 ->
        d_step {
            lane[own_tail] = executing[w] - 1;
            own_tail++;
            STORE_TAIL;
            executing[w] = 0
        }
        wake_after_push()
    :: else
    fi;
    d_step { DRAIN_TAIL; spinner = (spinner == w + 1 -> 0 : spinner) }
#ifdef OLD_BURIAL
    permits_return(w);
    sleepers[w] = false;
#else
    sleepers[w] = false;
    permits_return(w);
#endif
    d_step { life[w] = VACANT; ended[w] = false }
    end_its_wakings()
}

/* bury_spawner() */
inline bury_monitor()
{
    monitor_asleep = false;
    monitor_ended = false;
#ifndef OLD_SPAWNER_BURIAL
    end_its_wakings()
#endif
}

active proctype Program() provided (!over)
{
    byte next, holder, whom = NONE, given = NONE;
    bool woke, mortal = false, monitor = false;
#ifndef COLD
    d_step { life[0] = ALIVE; life[1] = ALIVE }
#endif
    run Worker(0);
    run Worker(1);
    do
    :: next < NREQUESTS ->
        d_step { lane[own_tail] = next; own_tail++; STORE_TAIL; next++ }
        wake_after_push()
    :: ended[0] -> bury(0)
    :: ended[1] -> bury(1)
#if MONITOR_DEATHS > 0
    :: monitor_ended -> bury_monitor()
#endif
    od;
dead:
    skip
}
