/* tests/model/birth.pml - workers are made by spawners that die, and their numbers are used again.
 *
 * Modelled: the spawner's start_worker() and clone_worker() (workers/spawner.c), what the kernel does in
 * clone(), and the program's bury_worker(), bury_spawner() and adopt_workers()
 * (procaio/csrc/children.c).  What becomes of the requests of the dead is in ring.pml, of who waits for
 * whom in wake.pml.
 *
 * Proved: no two processes ever have one number; however many workers and spawners die, and at
 * whichever step, in the end every number has a living worker whose death the program will see, and
 * no permit stands in the name of a number without a process.
 *
 * Every access to shared memory, and every system call, is a step of its own.  A worker may die at any
 * time, DEATHS times in a run, a spawner between any two of its steps, SPAWNER_DEATHS times.
 */
#ifndef DEATHS
#define DEATHS 2
#endif
#ifndef SPAWNER_DEATHS
#define SPAWNER_DEATHS 2
#endif
#ifndef NWORKERS
#define NWORKERS 2
#endif

#define VACANT 0
#define STARTING 1
#define ALIVE 2

/* -- shared memory ------------------------------------------------------------------------------ */

byte life[NWORKERS];
bool has_pid[NWORKERS], has_pidfd[NWORKERS], permit[NWORKERS];

/* -- the kernel --------------------------------------------------------------------------------- */

bool lives[NWORKERS], zombie[NWORKERS], in_set[NWORKERS];
byte open_pidfds[NWORKERS]; /* descriptors that nobody has closed */
bool spawner_lives, spawner_zombie;
byte deaths = DEATHS, spawner_deaths = SPAWNER_DEATHS;
bool over; /* nobody is left to die, and all is as it should be */

active proctype Environment()
{
end:
    do
    :: over
    od
}

/* -- a worker ----------------------------------------------------------------------------------- */

active [NWORKERS] proctype Worker() provided (!over)
{
    byte w = _pid - 1;
end:
    do
    :: lives[w] && !has_pid[w] -> has_pid[w] = true /* the kernel, in the child */
    :: lives[w] && has_pid[w] && life[w] == STARTING -> life[w] = ALIVE
    :: atomic { lives[w] && deaths > 0 -> deaths--; lives[w] = false; zombie[w] = true }
    od
}

/* -- the spawner -------------------------------------------------------------------------------- */

#define DIE                                                                                       \
    if                                                                                            \
    :: spawner_deaths > 0 -> spawner_deaths--; goto dead                                          \
    :: true                                                                                       \
    fi

#define IS_VACANT(w) (life[w] == VACANT && !has_pidfd[w])

active proctype Spawner() provided (!over)
{
    byte w;
end:
    do
    :: !spawner_lives -> spawner_lives
    :: else ->
        atomic {
            if
            :: IS_VACANT(0) -> w = 0
            :: !IS_VACANT(0) && IS_VACANT(1) -> w = 1
            fi;
            DIE
        }
        atomic { has_pid[w] = false; DIE }
        atomic { has_pidfd[w] = false; DIE }
        atomic { life[w] = STARTING; DIE }
        atomic { permit[w] = true; DIE } /* pa_permit_take(): there is one for each here */
        atomic { /* clone() */
            assert(!lives[w] && !zombie[w]);
            lives[w] = true;
            open_pidfds[w]++;
#ifndef NO_KERNEL_PIDFD
            has_pidfd[w] = true;
#endif
            DIE
        }
#ifdef NO_KERNEL_PIDFD
        atomic { has_pidfd[w] = true; DIE }
#endif
        atomic { in_set[w] = true; DIE }
    od;
dead:
    atomic { spawner_lives = false; spawner_zombie = true; w = 0 }
    goto end
}

/* -- the program -------------------------------------------------------------------------------- */

inline bury_worker(w)
{
    atomic { /* reap, take out of the set, close */
        zombie[w] = false;
        in_set[w] = false;
        open_pidfds[w]--
    }
#ifdef VACANT_FIRST
    has_pidfd[w] = false;
    life[w] = VACANT;
    permit[w] = false
#else
    permit[w] = false;
    has_pidfd[w] = false;
    life[w] = VACANT
#endif
}

/* children.c: adopt_workers(), of one number.  The spawner is dead and no other is there yet. */
inline adopt(w)
{
    if
    :: life[w] == VACANT || in_set[w]
#ifndef NO_ADOPTION
    :: !(life[w] == VACANT || in_set[w]) && has_pidfd[w] -> in_set[w] = true
#else
    :: !(life[w] == VACANT || in_set[w]) && has_pidfd[w]
#endif
#ifdef VACATE_STARTING
    :: !(life[w] == VACANT || in_set[w]) && life[w] == STARTING ->
        permit[w] = false; has_pidfd[w] = false; life[w] = VACANT
#endif
    :: !(life[w] == VACANT || in_set[w]) && !has_pidfd[w] ->
#ifndef NO_VACATING
        if
        :: life[w] == STARTING && !has_pid[w] ->
            permit[w] = false;
            life[w] = VACANT
        :: else
        fi
#else
        skip
#endif
    fi
}

#define SETTLED(w) (lives[w] && life[w] == ALIVE && in_set[w] && permit[w] && open_pidfds[w] == 1)

active proctype Program() provided (!over)
{
    spawner_lives = true;
    do
    :: in_set[0] && zombie[0] -> bury_worker(0)
    :: in_set[1] && zombie[1] -> bury_worker(1)
    :: spawner_zombie ->
        spawner_zombie = false;
        adopt(0);
        adopt(1);
        spawner_lives = true
    :: atomic {
            deaths == 0 && spawner_deaths == 0 && SETTLED(0) && SETTLED(1) -> over = true
        }
    /* Not all have to die. */
    :: atomic { deaths > 0 -> deaths-- }
    :: atomic { spawner_deaths > 0 -> spawner_deaths-- }
    od
}
