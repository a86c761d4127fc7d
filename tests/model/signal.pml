/* tests/model/signal.pml - results, and the descriptor that tells the program of them.
 *
 * Modelled: pa_result_push() and pa_signal_program() of every worker (shm/ring.c, shm/wake.c), each
 * of which may die at every step; the program's poll_some(), poll_sleep(), ask() and stop_asking()
 * (procaio/csrc/poll.c) in three kinds of program: one that waits by itself (request.wait()), -DWAITS;
 * one whose event loop watches poll_fileno and sleeps in it; and that with another thread in wait(),
 * -DBESIDE_WAIT: two sleep on one descriptor, and one ring wakes either.  Callbacks may raise, a
 * limit may end poll_cb early, and the program may sleep through other calls (max_parallel(),
 * poll_wait()).
 *
 * Proved: every request's result is delivered once, and the program never sleeps for ever while a
 * result waits (that would be an invalid end state).
 *
 * A store that the processor may delay stands in a one-entry buffer of its process: others see the
 * word only when the buffer is drained, at any time or at the next fence.  -DNO_FENCE_... removes a
 * fence; spin has to find the lost wake-up then.  So it has to with -DNO_ASK_..., which are errors
 * that it did find in the C.
 */
#ifndef NWORKERS
#define NWORKERS 2
#endif
#ifndef NRESULTS
#define NRESULTS 2 /* requests that each worker executes */
#endif
#ifndef DEATHS
#define DEATHS 1
#endif
#define NTOTAL (NWORKERS * NRESULTS)

/* -- shared memory ---------------------------------------------------------------------------- */

byte result_tail[NWORKERS]; /* as others see it */
bool result_buffered[NWORKERS]; /* one entry more waits in the worker's store buffer */
bool want_signal = true;    /* pa_segment_init() */
bool want_buffered;         /* the program's store of 1 waits in its store buffer */

/* -- the kernel: the epoll set of open_descriptors() ------------------------------------------ */

bool bell;           /* the eventfd, edge-triggered: set by a write, cleared by asking the set */
bool timer;          /* the timer's descriptor, readable when its time has come: see let_nap() */
bool dead[NWORKERS]; /* the worker's pidfd is readable, until bury_worker() takes it out */

bool kill[NWORKERS];
byte deaths = DEATHS;

/* -- the program's own ------------------------------------------------------------------------ */

byte result_head[NWORKERS];
bool ended[NWORKERS]; /* buried */
byte pending, delivered;
bool asking = true, rung;
bool finished;
bool lock_taken; /* the interpreter lock, where there are two threads */
#ifdef BESIDE_WAIT
bool somebody_sleeps = true; /* the other thread, in poll_sleep() */
#else
#define somebody_sleeps false
#endif

#if NWORKERS == 2
#define ANY_DEAD (dead[0] || dead[1])
#define RESULTS_WAIT (result_tail[0] != result_head[0] || result_tail[1] != result_head[1])
#else
#define ANY_DEAD (dead[0])
#define RESULTS_WAIT (result_tail[0] != result_head[0])
#endif
#define READABLE (bell || timer || ANY_DEAD)
#define ANYTHING_PENDING (pending > 0 || RESULTS_WAIT) /* queue_anything_pending() */

inline drain_result(w)
{
    result_tail[w] = result_tail[w] + result_buffered[w];
    result_buffered[w] = false
}
inline drain_want()
{
    want_signal = want_signal || want_buffered;
    want_buffered = false
}

/* The store buffers reach memory whenever they like. */
active proctype Drain()
{
end:
    do
    :: d_step { result_buffered[0] -> drain_result(0) }
#if NWORKERS == 2
    :: d_step { result_buffered[1] -> drain_result(1) }
#endif
    :: d_step { want_buffered -> drain_want() }
    od
}

/* -- a worker: the end of run_request() ------------------------------------------------------- */

proctype Worker(byte w)
{
    byte left = NRESULTS;
    bool wanted;
    {
        do
        :: left == 0 -> break
        :: left > 0 ->
            /* pa_result_push() */
            d_step { drain_result(w); result_buffered[w] = true; left-- }
            /* pa_signal_program() */
#ifndef NO_FENCE_WORKER_PUBLISH
            d_step { drain_result(w) }
#endif
            if
            :: !want_signal
            :: want_signal ->
                d_step { drain_result(w); wanted = want_signal; want_signal = false } /* exchange */
                if
                :: wanted -> bell = true /* write(event_fd) */
                :: else
                fi
            fi
        od
    } unless { kill[w] }
    skip;
    /* What was stored reaches memory before the kernel says that the process has ended. */
    d_step {
        drain_result(w);
        dead[w] = kill[w]
    }
end:
    false
}

active proctype Killer()
{
end:
    do
    :: d_step { deaths > 0 && !kill[0] && !finished -> deaths--; kill[0] = true }
#if NWORKERS == 2
    :: d_step { deaths > 0 && !kill[1] && !finished -> deaths--; kill[1] = true }
#endif
    od
}

/* -- the program ------------------------------------------------------------------------------ */

bool withdrew;

/* poll.c: ask() */
inline ask()
{
    d_step { asking = true; want_buffered = true }
#ifndef NO_FENCE_PROGRAM_ASK
    d_step { drain_want() }
#endif
}

/* poll.c: stop_asking() */
inline stop_asking()
{
    if
    :: asking ->
        d_step {
            drain_want(); /* an exchange cannot overtake the process's own store */
            withdrew = want_signal;
            want_signal = false;
            rung = rung || !withdrew;
            asking = false
        }
    :: else
    fi
}

/* queue.c: queue_harvest_worker() */
inline harvest(w)
{
    d_step { pending = pending + result_tail[w] - result_head[w]; result_head[w] = result_tail[w] }
}

/* children.c: pool_bury_worker().  What the worker had not published fails, or is run again: it ends. */
inline bury(w)
{
    if
    :: dead[w] ->
        dead[w] = false;
        harvest(w);
        d_step { pending = pending + NRESULTS - result_head[w]; ended[w] = true }
    :: else
    fi
}
inline bury_all()
{
    bury(0);
#if NWORKERS == 2
    bury(1)
#endif
}
inline harvest_all()
{
    if
    :: !ended[0] -> harvest(0)
    :: else
    fi;
#if NWORKERS == 2
    if
    :: !ended[1] -> harvest(1)
    :: else
    fi
#endif
}

/* children.c: pool_look_after() */
inline look_after()
{
    d_step { died = ANY_DEAD; bell = false; timer = false }
    if
    :: died -> bury_all()
    :: else
    fi
}

/* poll.c: poll_leave_readable() */
inline leave_readable()
{
    rung = false;
#ifndef WAITS
    ask();
#endif
    if
    :: ANYTHING_PENDING -> bell = true /* poll_kick() */
    :: else
    fi
}

/* poll.c: poll_some().  `once` is how often a callback may still raise or a limit strike. */
inline poll_some()
{
    done = 0;
    looked = false;
    outcome = 0;
    if
    :: timer -> looked = true; look_after() /* timer_has_expired() */
    :: else
    fi;
    do
    :: true ->
        stop_asking();
        if
        :: rung -> rung = false; looked = true; look_after()
        :: else
        fi;
        harvest_all();
        do
        :: pending == 0 -> break
        :: pending > 0 && once > 0 && done > 0 -> once--; outcome = 1; break /* within_limits() */
        :: pending > 0 -> d_step { done = 1; pending--; delivered++ } /* deliver() */
        :: pending > 0 && once > 0 -> /* the callback raises */
            d_step { done = 1; pending--; delivered++; once--; outcome = 2 }
            break
        od;
        if
        :: outcome != 0 -> break
        :: else
        fi;
#ifdef WAITS /* must_ask(): nobody watches the descriptor but poll_sleep(), which asks itself */
        break
#else
        ask();
        if
        :: ANYTHING_PENDING -> goto_next = true
        :: else -> goto_next = false
        fi;
        if
        :: goto_next
        :: !goto_next && (done > 0 || looked || somebody_sleeps) -> break
        :: !goto_next && !(done > 0 || looked || somebody_sleeps) ->
            looked = true;
            look_after();
#ifdef NO_ASK_AFTER_SILENCING /* as it was */
            if
            :: died
            :: else -> break
            fi
#endif
        fi
#endif
    od;
#ifndef NO_ASK_AFTER_RAISE /* as it was, but for the kick */
    if
    :: outcome != 0 -> leave_readable()
    :: else
    fi
#else
    if
    :: outcome != 0 && ANYTHING_PENDING -> bell = true
    :: else
    fi
#endif
}

/* poll.c: poll_sleep().  `brief`: with a timeout, which may pass at any time. */
inline poll_sleep(brief)
{
    stop_asking();
    if
    :: rung -> rung = false; look_after()
    :: !rung && ANYTHING_PENDING /* spin() found something */
    :: !rung -> /* nap(): nobody rings, and it ends by itself */
        d_step { died = ANY_DEAD; bell = false; timer = false }
        if
        :: died -> bury_all()
        :: else
        fi
    :: !rung -> /* ... or it did not, or was not tried */
        ask();
        if
        :: ANYTHING_PENDING
        :: !ANYTHING_PENDING ->
            if
            :: READABLE -> /* epoll_wait() */
                d_step { died = ANY_DEAD; bell = false; timer = false }
                if
                :: died -> bury_all()
                :: else
                fi
            :: brief
            fi
        fi
    fi
}

inline take_lock()
{
#ifdef BESIDE_WAIT
    atomic { !lock_taken -> lock_taken = true }
#else
    skip
#endif
}

/* poll.c: let_nap(), at the end of a turn of a loop.  The timer is set to a time that soon comes: here
 * it has come at once, or any time before the loop looks.  Without it nobody would end the nap. */
inline let_nap()
{
    if
    :: !ANYTHING_PENDING && !somebody_sleeps ->
        stop_asking();
        if
        :: rung
        :: else ->
#ifndef NO_TIMER
            timer = true
#endif
        fi
    :: true
    fi
}

active proctype Program()
{
    byte done, outcome, once = 1, naps = 1;
#ifdef BESIDE_WAIT
    naps = 0; /* it would only follow the other thread */
#endif
    bool looked, died, goto_next;
    run Worker(0);
#if NWORKERS == 2
    run Worker(1);
#endif
#ifdef WAITS
    /* poll.c: poll_wait_for() */
    do
    :: delivered == NTOTAL -> break
    :: else ->
        poll_some();
        if
        :: done > 0
        :: done == 0 && delivered < NTOTAL -> poll_sleep(false)
        :: done == 0 && delivered == NTOTAL
        fi
    od;
#else
    /* An event loop that watches poll_fileno and calls poll_cb() when it is readable.  It also
     * sleeps in the pool, without handling results: max_parallel() and poll_wait(). */
    do
    :: delivered == NTOTAL -> break
    :: READABLE ->
        take_lock();
        poll_some();
        if
        :: (done > 0 || looked) && somebody_sleeps -> bell = true /* poll_tell_others() */
        :: else
        fi;
        let_nap();
        lock_taken = false
    :: naps > 0 && delivered < NTOTAL ->
        naps--;
        poll_sleep(true);
        look_after();
#ifndef NO_ASK_AFTER_SLEEP /* as it was */
        leave_readable()
#endif
    od;
#endif
    finished = true;
    assert(delivered == NTOTAL && pending == 0)
}

#ifdef BESIDE_WAIT
/* poll.c: poll_wait_for() in another thread, for the request that is delivered first. */
active proctype Waiter()
{
    byte done, outcome, once;
    bool looked, died, goto_next;
    do
    :: READABLE -> /* epoll_wait(), without the lock */
        d_step { bell = false; timer = false };
        take_lock();
        somebody_sleeps = false;
        do
        :: delivered > 0 -> break
        :: delivered == 0 ->
            poll_some();
            if
            :: delivered > 0 -> goto told /* by poll_some(), which asks */
            :: else
            fi;
            ask();
            if
            :: ANYTHING_PENDING
            :: else -> break
            fi
        od;
        if
        :: delivered > 0 -> break
        :: else -> somebody_sleeps = true; lock_taken = false
        fi
    od;
#ifndef RING_TAKEN_ALONG /* as it was */
    leave_readable();
#endif
told:
    lock_taken = false
}
#endif
