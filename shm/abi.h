/* shm/abi.h - the layout of the segment: the one description that program and workers share.
 *
 * The control segment holds a header, one record for each worker, the slots, nine request lanes and
 * one result ring for each worker.  Everything is counted in indices and offsets, never in pointers,
 * so program and workers need not map it alike.  Data (arena blocks, Buffers) lives in data segments
 * that are added as they are needed; the header's table names their descriptors.
 *
 * Who writes a field stands beside it.  A field that both sides write is _Atomic and its legal
 * moves are in state.h (slots) or wake.c (permits, bells, flags).  The program checks whatever it
 * reads from here: a worker may have died half way, or written garbage.
 */
#ifndef PROCAIO_SHM_ABI_H
#define PROCAIO_SHM_ABI_H

#include <assert.h>
#include <stdalign.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

#define PA_MAGIC 0x6f696170u /* "paio" */
#define PA_NSLOTS 2048u      /* a power of two, at most 1 << PA_INDEX_BITS */
#define PA_INDEX_BITS 12
#define PA_INDEX_MASK ((1u << PA_INDEX_BITS) - 1u)
#define PA_NLANES 9u /* lane 0 is priority 4, lane 8 is priority -4 */
#define PA_MAX_WORKERS 256u
#define PA_MAX_PERMITS 64u
#define PA_MAX_SEGMENTS 1024u
#define PA_INLINE 192u /* bytes of a slot for short paths and fixed-size results */
#define PA_NO_SEGMENT UINT32_MAX
#define PA_CACHE_LINE 64

static_assert((PA_NSLOTS & (PA_NSLOTS - 1u)) == 0, "indices are masked");
static_assert(PA_NSLOTS <= PA_INDEX_MASK + 1u, "an index fits its bits");
static_assert(ATOMIC_INT_LOCK_FREE == 2 && ATOMIC_LLONG_LOCK_FREE == 2,
              "a hidden lock is private to one process");

/* The operations, rows of pa_ops[] in workers/ops.c. */
enum pa_opcode {
    PA_OP_NOP,
    PA_OP_BUSY,
    PA_OP_OPEN,
    PA_OP_CLOSE,
    PA_OP_REPLACE,
    PA_OP_READ,
    PA_OP_WRITE,
    PA_OP_FSYNC,
    PA_OP_FDATASYNC,
    PA_OP_STAT,
    PA_OP_LSTAT,
    PA_OP_FSTAT,
    PA_OP_STATVFS,
    PA_OP_FSTATVFS,
    PA_OP_UNLINK,
    PA_OP_RMDIR,
    PA_OP_MKDIR,
    PA_OP_RENAME,
    PA_OP_READDIR,
    PA_OP_SENDFILE,
    PA_OP_READAHEAD,
    PA_OP_TRUNCATE,
    PA_OP_FTRUNCATE,
    PA_OP_SYNC,
    PA_OP_SYNC_FILE_RANGE,
    PA_OP_PATHSYNC,
    PA_OP_LOAD,
    PA_OP_CHMOD,
    PA_OP_FCHMOD,
    PA_OP_CHOWN,
    PA_OP_FCHOWN,
    PA_OP_UTIME,
    PA_OP_FUTIME,
    PA_OP_MKNOD,
    PA_OP_LINK,
    PA_OP_SYMLINK,
    PA_OP_READLINK,
    PA_OP_SEEK,
    PA_OP_ALLOCATE,
    PA_OP_FADVISE,
    PA_OP_SYNCFS,
    PA_OP_COPY_FILE_RANGE,
    PA_OP_SPLICE,
    PA_OP_TEE,
    PA_OP_ACCESS,
    PA_OP_REALPATH,
    PA_OP_STATX,
    PA_OP_GETXATTR,
    PA_OP_SETXATTR,
    PA_OP_LISTXATTR,
    PA_OP_REMOVEXATTR,
    PA_OP_FIEMAP,
    PA_OP_FCNTL,
    PA_OP_IOCTL,
    PA_OP_REPLACE_FILE,
    PA_OP_COPY,
    PA_OP_MOVE,
    PA_OP_MAKE_DIRECTORIES,
    /* Steps of whole trees: calls_tree.c. */
    PA_OP_LIST,
    PA_OP_TYPES,
    PA_OP_EMPTY,
    PA_OP_MAKE_DIRECTORY,
    PA_OP_FINISH_DIRECTORY,
    /* Chunks of batches: calls_many.c. */
    PA_OP_STAT_MANY,
    PA_OP_READ_MANY,
    PA_OP_LOAD_MANY,
    /* On the program's own memory, so done by its own threads: procaio/csrc/memory.c. */
    PA_OP_MSYNC,
    PA_OP_MTOUCH,
    PA_OP_MLOCK,
    PA_OP_MLOCKALL,
    PA_NOPS
};

/* Of mtouch. */
#define PA_MT_MODIFY 1u

/* Of the steps of trees. */
enum {
    PA_TREE_TOP = 1 << 0,        /* the caller's own path: looked up as any other */
    PA_TREE_FOLLOW_TOP = 1 << 1, /* and may be a symlink */
    PA_TREE_KEEP = 1 << 2,       /* the directory stays open */
    PA_TREE_FOLLOW = 1 << 3,     /* tell symlinks that lead to directories from others */
    PA_TREE_HIDE_TYPES = 1 << 4, /* tests: as on a file system that does not tell them */
    PA_TREE_UNREAD = 1 << 5,     /* list: open it, no more */
    PA_TREE_ONLY_SELF = 1 << 6,  /* empty: remove the directory, nothing in it */
    PA_TREE_MAY_EXIST = 1 << 7,  /* make: a directory that is there will do */
    PA_TREE_BYTES = 1 << 8,      /* the program wants names as bytes */
    PA_TREE_DEEP = 1 << 9,       /* list: directories in it too, as many as there is room for */
    PA_TREE_STAT = 1 << 10,      /* list: each record with a struct pa_tree_entry behind its name */
    PA_TREE_SEEK = 1 << 11,      /* list: go on where `file_offset` says; empty: at the start */
    PA_TREE_STAYS = 1 << 12,     /* empty: the directory itself is not removed */
};

/* Types of records besides the system's. */
enum {
    DT_OTHER = 100,    /* anything but a directory */
    DT_DIR_LINK = 101, /* a symlink that leads to one */
    DT_FAILED = 102,   /* could not be removed: the inode is an errno */
    DT_SECTION = 103,  /* what follows is in the directory to which this name is the way */
};

/* Bits of pa_slot.call_flags. */
enum {
    PA_PATHS_IN_ARENA = 1 << 0, /* too long for the slot: they stand at the start of the block */
    PA_RESERVE = 1 << 1,        /* the worker reserves the block's space before it is written */
    PA_CONTINUE = 1 << 2,       /* readdir, load: go on with what `fd` has open */
    PA_MORE = 1 << 3,           /* likewise, set by the worker: not at the end yet, `fd` stays open */
    PA_NO_FOLLOW = 1 << 4,      /* a symlink itself is meant */
    PA_ONCE = 1 << 5,           /* load, set by the worker: what it reads cannot be read again */
    PA_BY_FD = 1 << 6,          /* `fd` is the file itself; there is no path */
    PA_DATA_IS_ARGUMENT = 1 << 7, /* fcntl, ioctl: the argument is the block, else file_offset */
    PA_STOP = 1 << 8,           /* set by the program: nobody wants it any more */
    /* copy, move, make_directory: how far the worker is, for the one that comes after its death. */
    PA_CREATING = 1 << 9,  /* an empty destination may be its own */
    PA_WRITING = 1 << 10,  /* the destination, which the slot names, is its own and not whole */
    PA_COPYING = 1 << 11,  /* move: the source is where it was */
    PA_TELL_LINKS = 1 << 12, /* copy: nothing is done to a file of several names */
    PA_REFUSED = 1 << 13,    /* set by the worker: not begun, since it has an old identity */
    PA_OPENS_PATH = 1 << 14, /* copy: the destination, just made, may be open as O_PATH */
};

/* One request through its whole life.  The program fills it while it is FREE; the worker that moved
 * it to EXECUTING owns everything but `state` until it moves it to DONE. */
struct pa_slot {
    alignas(PA_CACHE_LINE) _Atomic uint32_t state; /* phase, owner, generation: state.h */
    uint16_t op;
    uint16_t call_flags;
    int32_t fd;  /* the descriptor, or the directory of `path` */
    union {
        int32_t fd2;          /* what sendfile reads from, or the directory of `path2` */
        uint32_t out_segment; /* read_many: where `at` of the items counts, or PA_NO_SEGMENT */
    };
    union {
        int64_t file_offset; /* -1: the descriptor's own position */
        uint64_t table_at;   /* batches: where the outcomes begin in the block */
        int64_t atime_s;
        uint64_t destination_inode; /* copy, by the worker: with PA_WRITING */
    };
    union {
        uint64_t length; /* bytes; nanoseconds for busy */
        int64_t mtime_s;
        uint64_t device;
        uint64_t copied; /* copy, by the worker: bytes so far */
    };
    union {
        uint64_t arena_offset; /* of the block, counted from the start of its data segment */
        int64_t file_offset2;  /* where there is no block: of fd2, -1 is its position */
    };
    uint32_t arena_segment;
    union {
        uint32_t flags; /* of the system call */
        uint32_t count; /* batches: items */
        uint32_t uid;   /* UINT32_MAX: leave it */
        uint32_t atime_ns;
        uint32_t destination_device; /* copy, by the worker: with PA_WRITING */
    };
    union {
        uint32_t mode;
        uint32_t gid; /* UINT32_MAX: leave it */
        uint32_t mtime_ns;
    };
    union {
        uint32_t path2_at; /* where path2 begins, counted from path */
        uint32_t begun;    /* batches: the item to go on with; by the worker: the one it is at */
    };
    union {
        int64_t result; /* >= 0, or a negated errno */
        uint64_t limit; /* load, fiemap, until they have run: at most so many bytes */
    };
    alignas(PA_CACHE_LINE) char payload[PA_INLINE]; /* paths going in, struct pa_stat coming out */
};

#define PA_AT(type, field, at) static_assert(offsetof(struct type, field) == (at), #field " moved")
PA_AT(pa_slot, state, 0);
PA_AT(pa_slot, op, 4);
PA_AT(pa_slot, call_flags, 6);
PA_AT(pa_slot, fd, 8);
PA_AT(pa_slot, fd2, 12);
PA_AT(pa_slot, file_offset, 16);
PA_AT(pa_slot, length, 24);
PA_AT(pa_slot, arena_offset, 32);
PA_AT(pa_slot, arena_segment, 40);
PA_AT(pa_slot, flags, 44);
PA_AT(pa_slot, mode, 48);
PA_AT(pa_slot, path2_at, 52);
PA_AT(pa_slot, result, 56);
PA_AT(pa_slot, payload, 64);
static_assert(sizeof(struct pa_slot) == 256, "four cache lines");

/* What stat and statvfs leave in the payload. */
struct pa_stat {
    uint64_t dev, ino, nlink, rdev;
    int64_t size, blksize, blocks;
    int64_t atime_s, mtime_s, ctime_s;
    uint32_t atime_ns, mtime_ns, ctime_ns;
    uint32_t mode, uid, gid;
};
static_assert(sizeof(struct pa_stat) == 104 && sizeof(struct pa_stat) <= PA_INLINE, "fits a slot");

struct pa_statvfs {
    uint64_t bsize, frsize, blocks, bfree, bavail, files, ffree, favail, flag, namemax, fsid;
};
static_assert(sizeof(struct pa_statvfs) == 88 && sizeof(struct pa_statvfs) <= PA_INLINE,
              "fits a slot");

/* What stat says of an entry; its inode is that of the record. */
struct pa_tree_entry {
    uint64_t dev, size, blocks;
    uint32_t mode, nlink;
};

/* What the steps of trees leave there. */
struct pa_tree_answer {
    struct pa_stat st;
    int64_t next;     /* list: where the next one goes on, if there is more */
    uint64_t removed; /* empty: so many names */
    int32_t fd;       /* the directory, if it stays open */
    uint32_t unknown; /* list: so many have no type yet */
    uint32_t looked;  /* list: at so many entries */
    uint8_t more;
    uint8_t gone; /* empty: the directory itself is */
};
static_assert(sizeof(struct pa_tree_answer) <= PA_INLINE, "fits a slot");

/* Batches.  The block of a chunk holds what to do: paths, each with a NUL behind it, or struct
 * pa_many_read; from `table_at` on what came of each; and behind that, unless there is another
 * segment for them, the data. */
struct pa_many_read {
    int64_t offset;
    uint64_t length;
    uint64_t at; /* from the start of the block, or of the other segment */
    int32_t fd;
    uint32_t unused;
};
static_assert(sizeof(struct pa_many_read) == 32, "no holes");

/* A size, 0, or a negated errno; beyond those: */
#define PA_ITEM_DIED INT64_C(-4096)  /* by the program: three workers died over it */
#define PA_ITEM_LARGE INT64_C(-4097) /* load: no chunk has room for it */

struct pa_many_stat {
    int64_t outcome;
    struct pa_stat st;
};

struct pa_many_load {
    int64_t outcome;
    uint64_t at; /* of the data, from the start of the block */
};

/* A worker's life, in pa_worker.life. */
enum pa_life {
    PA_VACANT,   /* no process; set by the program once the last one was reaped */
    PA_STARTING, /* set by the spawner before it clones */
    PA_ALIVE,    /* set by the worker */
    PA_RETIRED,  /* set by the worker: it leaves because it was told to, or was idle too long */
};

/* Where a test can make a worker die: faults.h. */
enum pa_fault_point {
    PA_FAULT_NOWHERE,
    PA_FAULT_CLAIMED,   /* the slot is EXECUTING, the lane's head not advanced */
    PA_FAULT_TAKEN,     /* before the call */
    PA_FAULT_CALLED,    /* after the call, its result still in a register */
    PA_FAULT_DONE,      /* the slot is DONE, not in the result ring */
    PA_FAULT_PUBLISHED, /* in the result ring, the program not rung */
    PA_FAULT_SIGNALLED, /* the program was rung */
    PA_FAULT_SLEEPING,  /* announced as a sleeper, before the last look */
    PA_FAULT_BORN,      /* its process has just been made */
    PA_NFAULTS
};
#define PA_FAULT_ALWAYS INT32_MIN /* for pa_header.fault_countdown: whoever gets there dies */

/* What a worker is doing, in pa_worker.activity. */
enum pa_activity { PA_SEARCHING, PA_SLEEPING, PA_RUNNING };

struct pa_worker {
    /* Written by the worker, read by the program all the time. */
    alignas(PA_CACHE_LINE) _Atomic uint32_t result_tail; /* entries it ever published */
    /* Written by the worker, read by the monitor now and then. */
    alignas(PA_CACHE_LINE) _Atomic uint32_t activity; /* enum pa_activity */
    _Atomic uint32_t taken;                           /* requests it ever took */
    _Atomic uint32_t op;                              /* of the request it took last */
    /* Written by others. */
    alignas(PA_CACHE_LINE) _Atomic uint32_t bell; /* futex; +1 wakes the worker */
    _Atomic uint32_t life;                        /* enum pa_life */
    _Atomic uint32_t retire;                      /* program: leave after the current request */
    _Atomic int32_t pid;                          /* spawner; the kernel, once it exists */
    _Atomic int32_t pidfd;                        /* spawner; the kernel, just before it exists */
    _Atomic uint64_t rung_ns;                     /* CLOCK_MONOTONIC: when somebody rang its bell */
};
PA_AT(pa_worker, result_tail, 0);
PA_AT(pa_worker, activity, 64);
PA_AT(pa_worker, taken, 68);
PA_AT(pa_worker, op, 72);
PA_AT(pa_worker, bell, 128);
PA_AT(pa_worker, life, 132);
PA_AT(pa_worker, retire, 136);
PA_AT(pa_worker, pid, 140);
PA_AT(pa_worker, pidfd, 144);
PA_AT(pa_worker, rung_ns, 152);
static_assert(sizeof(struct pa_worker) == 192, "a line for each kind of reader and writer");

struct pa_data_segment {
    uint64_t size;
    uint64_t file_offset; /* where it begins in the file */
    int32_t fd;
    uint32_t generation; /* +1 each time the row is used for another segment, or for none */
    uint32_t lent;       /* the program's own file: `fd` carries no mark (marks.h) */
    uint32_t file;       /* which one it is: pa_file_of() */
};

/* What never changes while the pool lives.  Everybody has a copy, for numbers of descriptors and
 * processes are not taken from where anybody can write. */
struct pa_setup {
    uint32_t magic;
    int32_t program_pid;
    int32_t segment_fd;
    int32_t event_fd; /* rung when results wait and the program asked */
    int32_t epoll_fd; /* the program's poll_fileno; the spawner adds the workers' pidfds to it */
    uint32_t permit_count;
    uint64_t title_at; /* address and size of the argument area, for the process title */
    uint64_t title_size;
    uint32_t spin_limit_ns; /* 0: never spin */
};

/* What an event of a worker's pidfd says in the program's set. */
#define PA_EVENT_OF(worker, pidfd) ((uint64_t)(uint32_t)(pidfd) << 32 | (worker))

/* What the program wants to be told of results: nothing, it is awake; a ring at the next one; or, while
 * it sleeps for a short time, nothing either. */
enum pa_signal { PA_WANTS_NONE, PA_WANTS_SIGNAL, PA_NAPS };

struct pa_header {
    struct pa_setup setup; /* written by the program only */

    /* Settings: written by the program, read by all. */
    alignas(PA_CACHE_LINE) _Atomic uint32_t shutdown;
    _Atomic uint32_t wanted; /* workers allowed */
    _Atomic uint32_t max_idle;
    _Atomic uint32_t idle_timeout_ms;
    _Atomic uint64_t start_not_before_ns; /* CLOCK_MONOTONIC; delays the replacing of workers */
    _Atomic int32_t start_errno;          /* spawner: why the last start failed, or 0 */
    _Atomic uint32_t worker_limit;        /* spawner: no worker ever had this number or a higher one */
    _Atomic uint32_t fault_point;         /* tests: enum pa_fault_point, where a worker dies */
    _Atomic uint32_t fault_signal;
    _Atomic int32_t fault_countdown; /* how often the point is passed before it strikes */
    _Atomic uint32_t withdrawn;      /* rows of `data_segments` that are to be mapped no more */
    _Atomic uint32_t identity;       /* grows when the program becomes another user: identity.c */
    _Atomic uint32_t limits;         /* grows when it sets its limits: limits.c */
    _Atomic uint32_t doubted;        /* workers: the identity + 1 that the program has lost */

    alignas(PA_CACHE_LINE) _Atomic uint32_t tails[PA_NLANES]; /* +1 with every submission */
    alignas(PA_CACHE_LINE) _Atomic uint32_t heads[PA_NLANES]; /* advanced by whoever passes an entry */
    alignas(PA_CACHE_LINE) _Atomic uint32_t want_signal; /* what the program wants: enum pa_signal */
    _Atomic uint64_t rung_ns; /* CLOCK_MONOTONIC: when a worker rang the program's descriptor */

    /* Sleeping and waking: wake.c. */
    alignas(PA_CACHE_LINE) _Atomic uint32_t spinner; /* worker + 1 that looks for work right now */
    _Atomic uint32_t monitor_asleep;                 /* spawner: it sleeps without a time limit */
    _Atomic uint64_t sleepers[PA_MAX_WORKERS / 64];
    alignas(PA_CACHE_LINE) _Atomic uint32_t monitor_bell; /* futex of the spawner */
    alignas(PA_CACHE_LINE) _Atomic uint32_t permits[PA_MAX_PERMITS]; /* 0 or holder + 1 */

    /* Written by workers: a moving average of what each operation takes. */
    alignas(PA_CACHE_LINE) _Atomic uint32_t op_ns[128];

    alignas(PA_CACHE_LINE) struct pa_data_segment data_segments[PA_MAX_SEGMENTS];
};
PA_AT(pa_header, shutdown, 64);
PA_AT(pa_header, tails, 128);
PA_AT(pa_header, heads, 192);
PA_AT(pa_header, want_signal, 256);
PA_AT(pa_header, rung_ns, 264);
PA_AT(pa_header, spinner, 320);
PA_AT(pa_header, monitor_bell, 384);
PA_AT(pa_header, permits, 448);
PA_AT(pa_header, op_ns, 704);
PA_AT(pa_header, data_segments, 1216);
static_assert(PA_NOPS <= 128, "op_ns has a place for each");

struct pa_segment {
    struct pa_header header;
    alignas(PA_CACHE_LINE) struct pa_worker workers[PA_MAX_WORKERS];
    struct pa_slot slots[PA_NSLOTS];
    alignas(PA_CACHE_LINE) _Atomic uint32_t lanes[PA_NLANES][PA_NSLOTS];
    /* Reserved ring by ring, when a worker first gets it. */
    alignas(4096) _Atomic uint32_t results[PA_MAX_WORKERS][PA_NSLOTS];
};
static_assert(sizeof(struct pa_segment) % 4096 == 0, "whole pages");
static_assert(sizeof(uint32_t) * PA_NSLOTS % 4096 == 0, "a result ring is whole pages");

#endif
