/* procaio/csrc/core.h - the types of procaio._core, and who does what.
 *
 *   module.c      the module, the next request's priority
 *   constants.c   the system's constants
 *   system.c      calls that are made at once: tee, timerfd_*, ...
 *   functions.c   aio_*: their table, and how a call is parsed
 *   builders.c    from the arguments to a Request; arguments.c has what they are made of
 *   pool.c        the pool's life: opened, closed, left behind in a forked child
 *   children.c    its processes: started, told apart, ended, buried
 *   clearing.c    new ones, because the program becomes something else
 *   pool_type.c   Pool: polling, counters, settings, statistics
 *   orphans.c     descriptors that a dead worker has left open
 *   queue.c       requests on their way: overflow, slots, results
 *   force.c       those that no worker ends: aborted, of dead workers, with nonsense in their slots
 *   deadlines.c   when they must have ended
 *   deaths.c      the program is told that workers have died
 *   identity.c    the program becomes another user
 *   limits.c      and it changes its limits
 *   deliver.c     the end of it: value, waiting tasks, callback
 *   poll.c        waiting, and whose turn it is
 *   results.c     what a slot holds, as Python objects
 *   listings.c    likewise, of directories and trees
 *   request.c     Request
 *   group.c       Group: a request that is done when its members are
 *   await.c       a request as what an asyncio task waits on
 *   batch.c       many items as one request: packed, and taken out
 *   at_once.c     what cannot block, done in the program
 *   memory.c      what is done to the program's own memory, by threads of the program
 *   mapping.c     Mapping, and the calls on memory that do not wait
 *   buffer.c filehandle.c
 *
 * Everything here runs with the interpreter lock held unless it says otherwise; the lock is what
 * protects a pool's private state.  Objects are made and freed at any time by the program's other
 * threads, so nothing is half done when Python code is called.
 */
#ifndef PROCAIO_CORE_H
#define PROCAIO_CORE_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <structmember.h>

#include <stdbool.h>
#include <sys/epoll.h>

#include "../../shm/arena.h"
#include "../../shm/marks.h"
#include "../../shm/ring.h"
#include "../../shm/segment.h"
#include "../../shm/spin.h"
#include "../../shm/state.h"
#include "../../shm/wake.h"
#include "../../workers/ops.h"
#include "../../workers/worker.h"

#define NO_SLOT UINT32_MAX
#define THREAD_OWNER (PA_MAX_WORKERS + 1u) /* in a slot's word: a thread of the program (memory.c) */
#define LONGEST_PATH 8192u /* beyond PATH_MAX the kernel says ENAMETOOLONG whatever follows */
#define LONGEST_LINK 4096u /* what a symlink can say: PATH_MAX */
#define likely(x) __builtin_expect(!!(x), 1)
#define unlikely(x) __builtin_expect(!!(x), 0)

typedef struct Pool Pool;
typedef struct Request Request;
typedef struct Waiter Waiter;
typedef struct Group Group;

/* How a slot's result becomes the callback's argument. */
enum result_kind {
    RESULT_NOTHING,
    RESULT_STATUS, /* 0 or -1 */
    RESULT_COUNT,  /* bytes, or -1 */
    RESULT_BYTES,
    RESULT_FILE,
    RESULT_STAT,
    RESULT_STATVFS,
    RESULT_NAMES,
    RESULT_ENTRIES, /* readdirx: (entries, flags) */
    RESULT_LINK,    /* what a symlink says, or another path */
    RESULT_BOOL,
    RESULT_STATX,
    RESULT_ATTRIBUTES, /* names of extended ones */
    RESULT_EXTENTS,
    RESULT_ARGUMENT, /* of fcntl and ioctl: the bytes that came back */
    RESULT_LISTING,  /* of one step of a tree: a tuple, see listings.c */
    RESULT_REMOVAL,  /* likewise */
    RESULT_ENTRY,    /* of _copy_entry: its size, or what tells a file of several names */
    RESULT_MANY,     /* of a chunk of a batch: see batch.c */
    RESULT_GROUP,
};

/* Where a request is.  Only these moves: NEW -> OVERFLOW|SLOT|PENDING, OVERFLOW <-> SLOT,
 * SLOT -> PENDING, OVERFLOW -> PENDING, PENDING <-> GROUP, PENDING -> CONCLUDING -> CALLBACK -> DONE,
 * anything -> DEAD. */
enum place {
    AT_NEW,      /* in no queue: being made, or given a slot */
    AT_OVERFLOW, /* made, no slot yet */
    AT_SLOT,     /* its slot is READY, EXECUTING, or DONE and not harvested */
    AT_GROUP,    /* a group that waits for its members */
    AT_PENDING,  /* executed, or failed; waits for poll_cb */
    AT_CONCLUDING, /* its value is being made: other threads may run, and still have to wait */
    AT_CALLBACK, /* value, errno and error are there; the callback runs */
    AT_DONE,
    AT_DEAD, /* made before a fork, seen in the child; or its pool was closed under it */
};

struct Request {
    PyObject_HEAD
    PyObject *dict;
    PyObject *weakrefs;
    Pool *pool;
    PyObject *callback;        /* NULL: none */
    PyObject *value;           /* once done; NULL if it failed or yields nothing */
    PyObject *path, *path2;    /* the caller's own objects, for errors */
    PyObject *fspath, *fspath2; /* what the kernel gets: a str's UTF-8 form, or bytes */
    PyObject *file;            /* kept alive, and open, until the request is done */
    PyObject *target;          /* a Buffer or bytearray, or NULL */
    Py_buffer *view;           /* export of the caller's data while a read is in flight */
    Waiter *waiters;
    Request *next, *previous; /* in its queue */
    Group *group;             /* whose member it is */
    Request *group_next, *group_previous;
    char *gathered;           /* readdir, load: what the steps so far have brought */
    size_t gathered_size;
    struct pa_block block;    /* its own block of the arena */
    union {
        uint64_t arena_offset; /* where the data are, also when the block is not its own */
        char *address;         /* of the program's own memory */
        int64_t offset2;
    };
    uint32_t arena_segment;
    uint32_t slot;
    union {
        int64_t offset, atime_s;
    };
    union {
        uint64_t length, device;
        int64_t mtime_s;
    };
    Py_ssize_t data_offset;
    union {
        uint64_t limit; /* load, fiemap: so many bytes at the most */
        uint32_t begun; /* batches: so many items need not be done again */
    };
    int fd, fd2;
    union {
        uint32_t flags, uid, atime_ns;
    };
    union {
        uint32_t mode, gid, mtime_ns;
    };
    uint32_t deadline; /* its place in the pool's heap + 1; 0: none */
    int error; /* errno once it has failed */
    uint8_t op, kind, place;
    int8_t pri;
    uint8_t tries;        /* how many workers died over it */
    bool is_group : 1;
    bool cancelled : 1;   /* nobody wants the result */
    bool worker_died : 1; /* the outcome is unknown */
    bool closes_handle : 1; /* aio_close of a FileHandle: `file` gets its number back if withdrawn */
    bool names_are_bytes : 1;
    bool no_follow : 1;
    bool by_fd : 1; /* no path: `fd` is the file itself */
    bool has_argument : 1; /* fcntl, ioctl: the block is one */
    bool wants_all : 1;    /* fiemap: all extents, in as many steps as that takes */
    bool step_open : 1; /* readdir, load: fd is a descriptor of ours, between two steps */
    bool exports : 1;     /* `target` is a Buffer, used without a view */
    bool in_place : 1;    /* `view` lies in shared memory: nothing is copied out */
    bool cuts_target : 1; /* read into a bytearray: resize it */
    bool tells_links : 1; /* _copy_entry: of a file of several names */
    bool as_records : 1;  /* batches: no object for each item */
    /* Of a copy whose worker died: what that had noted in the slot (abi.h), and that the next one is
     * only to remove what there is. */
    bool was_creating : 1;
    bool was_writing : 1;
    bool was_copying : 1;
    bool given_up : 1;
    bool ended_early : 1; /* by abort() or its deadline */
    bool aborted : 1;     /* likewise, but a worker is still at it, or has to remove its part */
    bool is_husk : 1;     /* what is left of one that has ended: see queue_detach() */
    /* When it was looked at before: of a husk a worker was removing the part; of another one it seemed
     * that nobody was going to bring it. */
    bool was_seen : 1;
    bool lost : 1;        /* nobody knows which worker has it: its slot says what cannot be */
    bool garbled : 1;     /* its slot, or its block, holds what no worker of ours writes */
};

struct Group {
    Request request;
    Request *members, *last;
    uint64_t active; /* members */
    uint64_t added;  /* members it ever had */
    uint64_t limit;
    PyObject *feeder, *values;
    int error;
    int abort_error; /* it is to fail with this when its members have ended */
    uint16_t height; /* how many groups are one within the other below it, at most */
    bool feeding;   /* the feeder is being called */
    bool worker_died; /* over a member, and so it fails like that one */
    bool composite; /* procaio makes the members; an errno is a failure */
    bool held;      /* and may make more: it does not end */
    bool closed;    /* no more members */
};

struct queue {
    Request *first, *last;
    uint64_t length;
};

typedef struct {
    uint64_t submitted, completed, failed, cancelled, rerun, died, worker_deaths, spawner_deaths,
        started, aborted;
} Totals;

/* A worker that was not ended by the pool. */
struct death {
    uint32_t worker;
    int pid, exitcode;
    const char *operation; /* what it executed, or NULL */
};
#define EXITCODE_UNKNOWN INT_MIN /* the program itself has reaped it */

struct Pool {
    PyObject_HEAD
    PyObject *weakrefs;
    PyObject *dict;
    struct pa_segment *segment; /* NULL: closed */
    struct pa_arena *arena;
    PyObject *source; /* makes shared memory: (size, elsewhere) -> fd */
    char *region;     /* stacks of the children; stays mapped as long as the pool */
    int segment_fd, event_fd, epoll_fd, dead_fd;
    int timer_fd;      /* made when it is first needed */
    uint64_t timer_ns; /* what it is set to; 0: nothing */
    struct deadline *deadlines;
    uint32_t deadline_count, deadline_room;
    uint64_t condemned[PA_MAX_WORKERS / 64]; /* workers that are to die for an abort */
    uint64_t wild[PA_MAX_WORKERS / 64];      /* for what they have, or may have, written */
    /* Copies of what is in the segment, and what the program goes by: anybody can write there. */
    struct pa_setup setup;
    uint32_t wanted, max_idle, idle_timeout_ms, identity;
    bool renewed; /* the identity has changed */
    uint32_t worker_limit;
    struct pa_lanes lanes;
    int pidfds[PA_MAX_WORKERS], pids[PA_MAX_WORKERS]; /* -1: not known, see know_workers() */
    int last_pids[PA_MAX_WORKERS];                    /* of the last one buried, or 0 */
    int spawner_pid, spawner_pidfd;
    uint64_t spawner_not_before_ns; /* 0: it may be started at once */
    unsigned fork_count;
    bool is_inline, closed;
    bool asking; /* workers are to ring; see poll.c */
    bool rung;   /* one did */
    bool lacks_spawner; /* it could not be started; to be tried again */
    uint64_t looked_at_ns; /* for what is lost */
    bool lost; /* the program has closed its descriptors; see lost.c */
    bool is_ending; /* a thread is ending the workers for that */
    bool spawner_is_old; /* the program has become somebody else; it leaves by itself */
    uint32_t cleared;    /* in this round: pools_clear() */
    bool watched; /* somebody was given the descriptor */
    bool at_once; /* what cannot block is done in the program */
    struct {
        uint16_t skip, pause;
    } at_once_tries[PA_NOPS];
    int cached_fd; /* -1, or reads from it did not go past the cache when last asked: at_once.c */
    uint8_t last_op; /* of the request that was made last */
    bool same_file;  /* that one writes, and to the file to which the one before did */
    int last_fd;
    uint32_t at_hand; /* so many results of such may be awaited without leaving the loop's turn */
    unsigned polls;
    uint32_t free_count;
    uint64_t nreqs, overflow_length, pending_length;
    double max_poll_time;
    uint64_t max_poll_reqs, max_outstanding;
    struct pa_spin spin;      /* how long to look for results before sleeping */
    struct pa_spin turn_spin; /* likewise, at the end of a turn of an event loop */
    uint64_t turn_ended_ns;
    uint64_t napped_after; /* a loop: when so many requests had ended */
    uint64_t silent_ns, silent_after; /* slept since so many requests had ended */
    uint32_t deaths_in_a_row; /* of children, with no result in between */
    bool in_crash_loop;       /* more than could be an accident; the program was told, or */
    bool must_warn;           /* is to be told at the next poll */
    int last_exitcode;
    PyObject *on_death; /* the program's hook, or NULL; what it has not been told yet: */
    struct death *deaths;
    uint32_t death_count;
    Totals totals;
    /* Threads that wait: one sleeps on the descriptor, the others on `news`. */
    bool somebody_sleeps;
    uint32_t followers;
    uint32_t greenlets; /* that wait for whatever comes, in gevent's hub */
    _Atomic uint32_t news;
    struct job *jobs_done, *last_job_done; /* memory.c; under its lock */
    _Atomic uint32_t jobs_done_count;
    /* While dead workers' descriptors are hunted: the slots' words when it began (orphans.c). */
    uint32_t *noted, noted_from;
    Pool *next_open; /* of `open_pools` */
    PyObject *loop; /* the event loop that was attached last */
    Request *in_flight[PA_NSLOTS];
    uint32_t generations[PA_NSLOTS]; /* of the slots */
    uint32_t free_slots[PA_NSLOTS];
    uint32_t result_heads[PA_MAX_WORKERS];
    struct queue overflow[PA_NLANES], pending[PA_NLANES];
    struct queue groups; /* that wait for their members */
};

typedef struct {
    PyObject_HEAD
    int fd; /* -1: closed, or handed to aio_close */
    int flags;
    PyObject *name;
    bool is_own; /* procaio's: closed without a warning when it is no longer used */
} FileHandle;

typedef struct {
    PyObject_HEAD
    Pool *pool;
    struct pa_arena *arena; /* the pool's, at least until a fork */
    struct pa_block block;
    Py_ssize_t size;
    Py_ssize_t exports; /* views, and requests in flight */
    bool released;
    bool altered; /* its pages may be protected or locked */
} Buffer;

extern PyTypeObject *Request_Type, *Pool_Type, *FileHandle_Type, *Buffer_Type, *Waiter_Type;
extern PyTypeObject *Mapping_Type, *Statx_Type, *Group_Type;
#define Request_Check(o) (Py_TYPE(o) == Request_Type || Py_TYPE(o) == Group_Type)

/* Objects of the Python half, set once by procaio/__init__.py. */
extern struct hooks {
    PyObject *default_pool;   /* the Pool, or NULL */
    PyObject *make_default;   /* () -> Pool */
    PyObject *on_error;       /* hook(exception, request), or NULL */
    PyObject *WorkerDied, *RequestCancelled, *PoolClosed, *CrashLoopWarning;
    PyObject *utime_now, *utime_omit; /* known by what they are, not by their value */
    PyObject *running_loop;   /* () -> the asyncio loop of this thread, or None */
    PyObject *steps_tasks;    /* (loop) -> whether its turn may step its tasks */
    PyObject *settled;        /* a future of asyncio that is done */
    PyObject *Task;           /* asyncio's */
} hooks;

extern unsigned fork_count; /* grows in a forked child */
extern Pool *open_pools;    /* those that have a segment */

/* module.c */
PyObject *interned(PyObject **place, const char *text); /* a name that is made once and kept */
struct imported {
    PyObject *name, *modules; /* that dictionary, with `count` entries, gave this answer */
    Py_ssize_t count;
    bool found;
};
bool is_imported(struct imported *asked, const char *text); /* what is not does not run either */
PyObject *call_loops(const char *function, const char *format, ...); /* of procaio._loops */
int priority_next(void);
void priority_reset(void);
extern _Thread_local int callback_errno;
extern _Thread_local bool callback_died; /* its outcome is unknown */

/* pool.c */
Pool *pool_of(PyObject *given); /* borrowed; the default pool for NULL or None, started if need be */
int pool_check(Pool *pool);     /* open, and this process's own: 0, or -1 with an exception */
int pool_dead_fd(Pool *pool);   /* reads as end of file; made on demand, -1 + exception */
int pool_open_descriptors(Pool *pool, int fd); /* 0 or -errno */
void pool_close_descriptors(Pool *pool);       /* but for poll_fileno */
bool pool_release_segment(Pool *pool); /* false: another thread has made requests meanwhile */
void pool_write_header(Pool *pool);
int pool_alloc(Pool *pool, uint64_t size, bool reserved, struct pa_block *block);
/* That of a closed pool, or of the parent of a forked child, goes with the last that uses it. */
void pool_let_go_of_arena(Pool *pool, struct pa_arena *arena);
PyObject *pool_open(Pool *pool, PyObject *args); /* these are methods */
PyObject *pool_kill(Pool *pool, PyObject *args);
PyObject *pool_release(Pool *pool, PyObject *unused);
PyObject *pool_abandon(Pool *pool, PyObject *unused);
PyObject *pool_disown(Pool *pool, PyObject *unused);
void pool_end(Pool *pool);

/* children.c */
#define PA_DEATH_NS UINT64_C(250000000) /* who lives so long after a SIGKILL may live longer */
int pool_ensure_spawner(Pool *pool);
void pool_retry_spawner(Pool *pool); /* soon */
bool pool_look_after(Pool *pool); /* clear the signal, bury the dead; true if somebody was dead */
bool pool_handle_events(Pool *pool, const struct epoll_event *events, int count);
bool pool_is_our_child(int pidfd);
bool pool_is_pidfd_of(int fd, int pid);
void pool_know_workers(Pool *pool);
int pool_pidfd_of_worker(Pool *pool, uint32_t worker); /* if it is known by now: or -1 */
int pool_pid_of(Pool *pool, uint32_t worker);          /* 0: it has none */
int pool_learn_pid(Pool *pool, uint32_t worker, int pidfd);
void pool_condemn(Pool *pool, uint32_t worker);
void pool_distrust(Pool *pool, uint32_t worker);
void pool_distrust_all(Pool *pool, const uint64_t except[PA_MAX_WORKERS / 64]);
bool pool_is_wild(const Pool *pool, uint32_t worker);
bool pool_has_wild(const Pool *pool);
void pool_mend(Pool *pool);
void pool_kill_child(int pidfd);
bool pool_await_death(int pidfd, int pid, uint64_t until_ns);
bool pool_bury_worker(Pool *pool, uint32_t worker, int pidfd);
void pool_end_spawner(Pool *pool, uint64_t until_ns);
void pool_end_its_wakings(struct pa_segment *segment);
void pool_end_children(Pool *pool);
bool pool_some_cannot_die(void);
void children_after_fork(void);

/* clearing.c */
void pool_tell_identity(Pool *pool, uint32_t identity);
void pool_renew(Pool *pool);      /* when it was told; other threads may run meanwhile */
void pools_clear(bool patiently); /* end all processes, and start none until pools_go_on() */
void pools_go_on(void);
bool pools_are_clear(void);
void clearing_after_fork(void);

/* deadlines.c */
#define PA_EVENT_TIMER (UINT64_MAX - 2) /* in the pool's set */
int timer_set(Pool *pool, uint64_t ns); /* at that time or before: 0, or -1 + errno */
bool timer_has_expired(const Pool *pool);
void timer_ensure(Pool *pool); /* if the program has closed it: another one, set to the same time */
void timer_clear(Pool *pool);
int deadlines_prepare(Pool *pool); /* for one more; 0, or -1 with an exception */
void deadlines_add(Pool *pool, Request *request, uint64_t ns);
void deadlines_drop(Request *request);
void deadlines_expire(Pool *pool);
void deadlines_forget(Pool *pool);

/* deaths.c */
void deaths_note(Pool *pool, uint32_t worker, int exitcode);
void deaths_count(Pool *pool, int exitcode);
bool deaths_are_to_be_told(const Pool *pool);
int deaths_tell(Pool *pool); /* 0, or -1 with an exception */
void deaths_forget(Pool *pool);

/* identity.c */
extern uint32_t identity_number; /* of what the program is now */
extern bool identity_unsure;     /* its code has run since the last look */
void identity_look(void);
void identity_may_have_changed(void);
void identity_doubted(Pool *pool); /* by a worker */
PyObject *identity_watch(PyObject *module, PyObject *os);

/* wrapping.c */
struct wrapping {
    const char *name;
    PyCFunction function; /* METH_VARARGS | METH_KEYWORDS */
    int kind;
    PyMethodDef def;
    PyObject *original, *made; /* NULL: this Python does not have it */
};
int wrap(PyObject *module, struct wrapping *wrappings, int count);

/* limits.c */
PyObject *limits_watch(PyObject *module, PyObject *resource);
PyObject *limits_resize(PyObject *module, PyObject *args);

/* lost.c */
bool lost_anything(const Pool *pool);
void lost_find_spawner(Pool *pool);
void lost_find_workers(Pool *pool);
void lost_give_up(Pool *pool);
int lost_check(Pool *pool); /* 0, or -1 with an exception */
PyObject *lost_look(PyObject *module, PyObject *unused);

/* orphans.c */
void orphans_hunt(void);
void orphans_look_for(Pool *pool, uint32_t worker);
void orphans_sweep(Pool *pool);
void orphans_close(Pool *pool, int fd);
bool orphans_is_closing(int fd);
void orphans_forget(Pool *pool);
void orphans_adopt(int fd);
bool orphans_is_one(int fd); /* a worker has opened it, and the program not taken it over */
void orphans_after_fork(void);
void orphans_close_path(uint64_t inode, uint32_t device);
void orphans_of_spawner(Pool *pool, int pid);

/* queue.c */
void queue_request(Pool *pool, Request *request);
const char *queue_path(PyObject *path, size_t *length); /* as the kernel gets it */
size_t queue_paths_size(const Request *request); /* in a slot, or in a block */
void queue_refill(Pool *pool);
void queue_harvest(Pool *pool);
bool queue_withdraw(Request *request); /* cancel: true if it will never run */
void queue_fail(Pool *pool, Request *request, int error);
uint64_t queue_copied(const Request *request);
void queue_abandon(Pool *pool, struct queue *dead);
void queue_let_go(struct queue *dead);
uint64_t queue_count_ready(Pool *pool);
uint32_t queue_count_threads(Pool *pool); /* requests that threads of the program execute */
void queue_wanted_changed(Pool *pool);
Request *queue_next_pending(Pool *pool);
bool queue_take_at_hand(Pool *pool, Request *request); /* true: deliver it now */
void queue_push_pending(Pool *pool, Request *request);
bool queue_anything_pending(Pool *pool);
void queue_group(Pool *pool, Request *group);
void queue_wake_group(Request *group); /* nothing is left to wait for */
void queue_let_wait(Pool *pool, Request *group);
void queue_conclude(Pool *pool, Request *request); /* its value, out of its slot */

/* force.c */
bool queue_abort(Pool *pool, Request *request, int error); /* false: it has ended already */
void queue_detach(Pool *pool, Request *request);
void queue_watch_husk(Pool *pool, Request *husk);
bool queue_close(Pool *pool, int fd);
void queue_inspect(Pool *pool); /* for slots that say what cannot be */
void queue_search(Pool *pool);  /* likewise, when nothing has happened for long */
bool queue_expire(Pool *pool, Request *request); /* false: it is done, and will be delivered */
void queue_worker_ended(Pool *pool, uint32_t worker);
void queue_fail_all(Pool *pool, int error);

/* deliver.c */
int deliver(Pool *pool, Request *request); /* 0, or -1 with an exception */
int deliver_report(Request *request);      /* likewise, of an exception that is set */
int deliver_report_of(PyObject *culprit, PyObject *request); /* likewise; raised by that */

/* poll.c */
uint64_t poll_turn_begins(Pool *pool);
bool poll_turn_goes_on(Pool *pool, uint64_t began_ns); /* there are more results */
/* At most `turn` requests (0: what the settings say).  0 all, 1 something left, -1 exception. */
int poll_some(Pool *pool, uint64_t turn, uint64_t *processed);
int poll_sleep(Pool *pool, Request *awaited, double timeout); /* 0, or -1 with an exception */
PyObject *poll_wait_for(Request *request, double timeout);
uint64_t poll_ns(double seconds); /* at most what can be added to a time */
void poll_kick(Pool *pool);
void poll_leave_readable(Pool *pool);
void poll_tell_others(Pool *pool);

/* arguments.c */
int arguments_ready(void);

/* results.c */
int results_ready(void);
PyObject *result_take(Request *request, const struct pa_slot *slot); /* new value; NULL + error */
bool result_keep_open(Request *request, int fd); /* of a step; false: a worker cannot have meant it */
PyObject *result_garbage(Request *request); /* what no worker of ours writes: NULL, it has failed */
PyObject *result_of_stat(const struct pa_stat *st);
int64_t result_in_ns(int64_t seconds, uint32_t ns); /* or the nearest that there is */
PyObject *result_on_failure(const Request *request);
void result_discard(Request *request, const struct pa_slot *slot);
bool result_wants_more(Pool *pool, Request *request, struct pa_slot *slot);
bool result_may_be_a_step(const Request *request, const struct pa_slot *slot); /* of several */

/* batch.c */
PyObject *batch_take(Request *request, int64_t result); /* as result_take() */
void batch_give_up_item(Request *request);              /* the first that has not been done */
extern PyMethodDef batch_functions[];

/* request.c */
Request *request_new(Pool *pool, enum pa_opcode op, enum result_kind kind);
Request *request_new_husk(Pool *pool, enum pa_opcode op);
Request *request_husk(Request *request); /* NULL: no memory */
void request_release_memory(Request *request);
void request_release_objects(Request *request);
void request_release_arguments(Request *request);
PyObject *request_error(const Request *request); /* new exception instance */
bool request_is_garbled(const Request *request); /* and so has failed */
void request_raise(const Request *request);

void request_init(Request *self, Pool *pool, enum pa_opcode op, enum result_kind kind);
int request_cancel(Request *request); /* 1: it will never run, 0: it may, -1: exception */

/* group.c */
Request *group_new(Pool *pool);
bool group_must_wait(const Request *group);
int group_leave(Request *member); /* it is done, or cancelled; 0, or -1 with an exception */
void group_forget(Request *member);
int group_cancel_members(Request *group);
bool group_abort(Request *group, int error);
void group_conclude(Request *group);
PyObject *group_take_feeder(Request *group); /* the caller's now; may be NULL */
PyObject *group_values(const Request *group);
void group_clear(Request *group);
int group_traverse(Request *group, visitproc visit, void *arg);

/* Before 3.12 whoever makes a container may have garbage collected, and so run code of the program.  Not
 * around what lets go of the interpreter lock: another thread may call gc.disable() then. */
static inline int garbage_stays(void)
{
    return PY_VERSION_HEX < 0x030C0000 ? PyGC_Disable() : 0;
}

static inline void garbage_goes(int collected)
{
    if (collected)
        PyGC_Enable();
}

/* await.c */
PyObject *request_await(PyObject *request);
PyObject *request_waiter(Request *request, PyObject *loop); /* a method */
void waiters_wake(Request *request);
int await_turn(Pool *pool); /* what a loop calls; -1 with an exception */

/* filehandle.c */
PyObject *filehandle_new(int fd, int flags, PyObject *name);
PyObject *filehandle_new_own(int fd, PyObject *name);
int filehandle_fd(PyObject *object); /* -1 with ValueError when closed */
void filehandle_close(PyObject *object); /* without a word */
#define FileHandle_Check(o) (Py_TYPE(o) == FileHandle_Type)
#define Buffer_Check(o) (Py_TYPE(o) == Buffer_Type)

/* at_once.c */
bool at_once_run(Pool *pool, Request *request); /* true: it has been executed */

/* memory.c */
bool memory_is_for(enum pa_opcode op);
int memory_submit(Pool *pool, Request *request, uint32_t index); /* 0 or an errno */
int64_t memory_run(struct pa_slot *slot, char *address);
bool memory_take_last(Pool *pool, uint32_t lane, uint32_t *entry);
bool memory_next_done(Pool *pool, uint32_t *entry);
void memory_forget(Pool *pool);
void memory_sweep(void);
void memory_before_fork(void);
void memory_after_fork(void);

/* mapping.c */
bool mapping_lend(Pool *pool, const char *at, uint64_t size); /* if it lies in a Mapping */
bool mapping_has_its_file(const char *at, uint64_t size);     /* its descriptor still is */
extern PyMethodDef memory_functions[];

/* buffer.c */
void buffer_unexport(Buffer *buffer);
PyObject *buffer_subscript(PyObject *self, PyObject *key);
int buffer_assign(PyObject *self, PyObject *key, PyObject *value);

/* constants.c */
PyObject *constants_dict(void); /* new: name -> value of those that the system has */

/* system.c */
extern PyMethodDef system_functions[];

/* functions.c */
extern PyMethodDef aio_functions[];
int functions_ready(void);

#endif
