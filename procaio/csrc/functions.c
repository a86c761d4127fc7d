/* procaio/csrc/functions.c - aio_*: one row of `specs` for each, how a call is parsed, and its help. */
#include <fcntl.h>

#include "arguments.h"
#include "builders.h"

enum { MOST_PARAMETERS = 6 };

struct spec {
    const char *name;
    enum pa_opcode op;
    enum result_kind kind;
    uint8_t required; /* of the parameters that may be positional */
    uint8_t positional;
    const char *parameters[MOST_PARAMETERS + 1]; /* positional ones first, then keyword-only */
    build *build;
};

enum {
    GROUP, NOP, BUSY, OPEN, CLOSE, READ, WRITE, LOAD, SENDFILE, READAHEAD, TRUNCATE, SYNC, FSYNC,
    FDATASYNC, SYNC_FILE_RANGE, PATHSYNC, STAT, LSTAT, STATVFS, UTIME, CHOWN, CHMOD, UNLINK,
    RMDIR, MKDIR, MKNOD, LINK, SYMLINK, RENAME, READLINK, READDIR, READDIRX, SLURP, COPY, COPY_ENTRY, MOVE, REPLACE, SEEK,
    ALLOCATE, FADVISE, SYNCFS, COPY_FILE_RANGE, SPLICE, TEE, ACCESS, REALPATH, WD, RENAME2, STATX,
    GETXATTR, SETXATTR, LISTXATTR, REMOVEXATTR, FIEMAP, FCNTL, IOCTL, MSYNC, MTOUCH, MLOCK,
    MLOCKALL, MKDIRS, COMPOSITE, LIST, TYPES, EMPTY, MAKE_DIRECTORY, FINISH_DIRECTORY,
    STAT_MANY, READ_MANY, LOAD_MANY, NSPECS
};

static const struct spec specs[NSPECS] = {
    [GROUP] = {"aio_group", PA_OP_NOP, RESULT_GROUP, 0, 0,
        {NULL}, build_nothing},
    [NOP] = {"aio_nop", PA_OP_NOP, RESULT_NOTHING, 0, 0,
        {NULL}, build_nothing},
    [BUSY] = {"aio_busy", PA_OP_BUSY, RESULT_NOTHING, 1, 1,
        {"seconds"}, build_busy},
    [OPEN] = {"aio_open", PA_OP_OPEN, RESULT_FILE, 1, 3,
        {"path", "flags", "mode", "dir_fd"}, build_open},
    [CLOSE] = {"aio_close", PA_OP_CLOSE, RESULT_STATUS, 1, 1,
        {"fh"}, build_close},
    [READ] = {"aio_read", PA_OP_READ, RESULT_COUNT, 3, 5,
        {"fh", "offset", "length", "data", "dataoffset"}, build_read},
    [WRITE] = {"aio_write", PA_OP_WRITE, RESULT_COUNT, 4, 5,
        {"fh", "offset", "length", "data", "dataoffset"}, build_write},
    [LOAD] = {"aio_load", PA_OP_LOAD, RESULT_COUNT, 1, 2,
        {"path", "data", "dir_fd"}, build_load},
    [SENDFILE] = {"aio_sendfile", PA_OP_SENDFILE, RESULT_COUNT, 4, 4,
        {"out_fh", "in_fh", "in_offset", "length"}, build_sendfile},
    [READAHEAD] = {"aio_readahead", PA_OP_READAHEAD, RESULT_STATUS, 3, 3,
        {"fh", "offset", "length"}, build_readahead},
    [TRUNCATE] = {"aio_truncate", PA_OP_TRUNCATE, RESULT_STATUS, 2, 2,
        {"fh_or_path", "offset"}, build_truncate},
    [SYNC] = {"aio_sync", PA_OP_SYNC, RESULT_STATUS, 0, 0,
        {NULL}, build_nothing},
    [FSYNC] = {"aio_fsync", PA_OP_FSYNC, RESULT_STATUS, 1, 1,
        {"fh"}, build_fd},
    [FDATASYNC] = {"aio_fdatasync", PA_OP_FDATASYNC, RESULT_STATUS, 1, 1,
        {"fh"}, build_fd},
    [SYNC_FILE_RANGE] = {"aio_sync_file_range", PA_OP_SYNC_FILE_RANGE, RESULT_STATUS, 4, 4,
        {"fh", "offset", "nbytes", "flags"}, build_sync_file_range},
    [PATHSYNC] = {"aio_pathsync", PA_OP_PATHSYNC, RESULT_STATUS, 1, 1,
        {"path", "dir_fd"}, build_path},
    [STAT] = {"aio_stat", PA_OP_STAT, RESULT_STAT, 1, 1,
        {"fh_or_path", "dir_fd"}, build_stat},
    [LSTAT] = {"aio_lstat", PA_OP_LSTAT, RESULT_STAT, 1, 1,
        {"fh_or_path", "dir_fd"}, build_stat},
    [STATVFS] = {"aio_statvfs", PA_OP_STATVFS, RESULT_STATVFS, 1, 1,
        {"fh_or_path"}, build_statvfs},
    [UTIME] = {"aio_utime", PA_OP_UTIME, RESULT_STATUS, 1, 3,
        {"fh_or_path", "atime", "mtime", "ns", "dir_fd", "follow_symlinks"}, build_utime},
    [CHOWN] = {"aio_chown", PA_OP_CHOWN, RESULT_STATUS, 3, 3,
        {"fh_or_path", "uid", "gid", "dir_fd", "follow_symlinks"}, build_chown},
    [CHMOD] = {"aio_chmod", PA_OP_CHMOD, RESULT_STATUS, 2, 2,
        {"fh_or_path", "mode", "dir_fd", "follow_symlinks"}, build_chmod},
    [UNLINK] = {"aio_unlink", PA_OP_UNLINK, RESULT_STATUS, 1, 1,
        {"path", "dir_fd"}, build_path},
    [RMDIR] = {"aio_rmdir", PA_OP_RMDIR, RESULT_STATUS, 1, 1,
        {"path", "dir_fd"}, build_path},
    [MKDIR] = {"aio_mkdir", PA_OP_MKDIR, RESULT_STATUS, 1, 2,
        {"path", "mode", "dir_fd"}, build_mkdir},
    [MKNOD] = {"aio_mknod", PA_OP_MKNOD, RESULT_STATUS, 1, 3,
        {"path", "mode", "dev", "dir_fd"}, build_mknod},
    [LINK] = {"aio_link", PA_OP_LINK, RESULT_STATUS, 2, 2,
        {"src", "dst", "src_dir_fd", "dst_dir_fd", "follow_symlinks"}, build_link},
    [SYMLINK] = {"aio_symlink", PA_OP_SYMLINK, RESULT_STATUS, 2, 2,
        {"src", "dst", "dir_fd"}, build_symlink},
    [RENAME] = {"aio_rename", PA_OP_RENAME, RESULT_STATUS, 2, 2,
        {"src", "dst", "src_dir_fd", "dst_dir_fd"}, build_rename},
    [READLINK] = {"aio_readlink", PA_OP_READLINK, RESULT_LINK, 1, 1,
        {"path", "dir_fd"}, build_readlink},
    [READDIR] = {"aio_readdir", PA_OP_READDIR, RESULT_NAMES, 1, 1,
        {"path", "dir_fd"}, build_readdir},
    [READDIRX] = {"aio_readdirx", PA_OP_READDIR, RESULT_ENTRIES, 2, 2,
        {"path", "flags", "dir_fd"}, build_readdirx},
    [COPY] = {"aio_copy", PA_OP_COPY, RESULT_STATUS, 2, 2,
        {"src", "dst", "src_dir_fd", "dst_dir_fd", "follow_symlinks"}, build_copy},
    [COPY_ENTRY] = {"_copy_entry", PA_OP_COPY, RESULT_ENTRY, 3, 3,
        {"src", "dst", "tell_links", "src_dir_fd", "dst_dir_fd"}, build_copy_entry},
    [MOVE] = {"aio_move", PA_OP_MOVE, RESULT_STATUS, 2, 2,
        {"src", "dst", "src_dir_fd", "dst_dir_fd"}, build_rename},
    [SLURP] = {"aio_slurp", PA_OP_LOAD, RESULT_COUNT, 3, 4,
        {"path", "offset", "length", "data", "dir_fd"}, build_slurp},
    [REPLACE] = {"aio_replace", PA_OP_REPLACE_FILE, RESULT_STATUS, 2, 3,
        {"path", "data", "mode", "dir_fd"}, build_replace},
    [SEEK] = {"aio_seek", PA_OP_SEEK, RESULT_COUNT, 3, 3,
        {"fh", "offset", "whence"}, build_seek},
    [ALLOCATE] = {"aio_allocate", PA_OP_ALLOCATE, RESULT_STATUS, 4, 4,
        {"fh", "mode", "offset", "length"}, build_allocate},
    [FADVISE] = {"aio_fadvise", PA_OP_FADVISE, RESULT_STATUS, 4, 4,
        {"fh", "offset", "length", "advice"}, build_fadvise},
    [SYNCFS] = {"aio_syncfs", PA_OP_SYNCFS, RESULT_STATUS, 1, 1,
        {"fh"}, build_fd},
    [COPY_FILE_RANGE] = {"aio_copy_file_range", PA_OP_COPY_FILE_RANGE, RESULT_COUNT, 3, 5,
        {"src", "dst", "count", "offset_src", "offset_dst"}, build_copy_file_range},
    [SPLICE] = {"aio_splice", PA_OP_SPLICE, RESULT_COUNT, 3, 6,
        {"src", "dst", "count", "offset_src", "offset_dst", "flags"}, build_splice},
    [TEE] = {"aio_tee", PA_OP_TEE, RESULT_COUNT, 3, 4,
        {"src", "dst", "count", "flags"}, build_tee},
    [ACCESS] = {"aio_access", PA_OP_ACCESS, RESULT_BOOL, 2, 2,
        {"path", "mode", "dir_fd", "effective_ids", "follow_symlinks"}, build_access},
    [REALPATH] = {"aio_realpath", PA_OP_REALPATH, RESULT_LINK, 1, 1,
        {"path", "dir_fd"}, build_realpath},
    [WD] = {"aio_wd", PA_OP_OPEN, RESULT_FILE, 1, 1,
        {"path", "dir_fd"}, build_wd},
    [RENAME2] = {"aio_rename2", PA_OP_RENAME, RESULT_STATUS, 3, 3,
        {"src", "dst", "flags", "src_dir_fd", "dst_dir_fd"}, build_rename2},
    [STATX] = {"aio_statx", PA_OP_STATX, RESULT_STATX, 1, 3,
        {"fh_or_path", "flags", "mask", "dir_fd"}, build_statx},
    [GETXATTR] = {"aio_getxattr", PA_OP_GETXATTR, RESULT_BYTES, 2, 2,
        {"fh_or_path", "attribute", "follow_symlinks"}, build_getxattr},
    [SETXATTR] = {"aio_setxattr", PA_OP_SETXATTR, RESULT_STATUS, 3, 4,
        {"fh_or_path", "attribute", "value", "flags", "follow_symlinks"}, build_setxattr},
    [LISTXATTR] = {"aio_listxattr", PA_OP_LISTXATTR, RESULT_ATTRIBUTES, 1, 1,
        {"fh_or_path", "follow_symlinks"}, build_listxattr},
    [REMOVEXATTR] = {"aio_removexattr", PA_OP_REMOVEXATTR, RESULT_STATUS, 2, 2,
        {"fh_or_path", "attribute", "follow_symlinks"}, build_removexattr},
    [FIEMAP] = {"aio_fiemap", PA_OP_FIEMAP, RESULT_EXTENTS, 1, 5,
        {"fh", "start", "length", "flags", "count"}, build_fiemap},
    [FCNTL] = {"aio_fcntl", PA_OP_FCNTL, RESULT_COUNT, 2, 3,
        {"fh", "cmd", "arg"}, build_fcntl},
    [IOCTL] = {"aio_ioctl", PA_OP_IOCTL, RESULT_COUNT, 2, 3,
        {"fh", "request", "buf"}, build_ioctl},
    [MSYNC] = {"aio_msync", PA_OP_MSYNC, RESULT_STATUS, 1, 4,
        {"data", "offset", "length", "flags"}, build_msync},
    [MTOUCH] = {"aio_mtouch", PA_OP_MTOUCH, RESULT_STATUS, 1, 4,
        {"data", "offset", "length", "flags"}, build_mtouch},
    [MLOCK] = {"aio_mlock", PA_OP_MLOCK, RESULT_STATUS, 1, 3,
        {"data", "offset", "length"}, build_mlock},
    [MLOCKALL] = {"aio_mlockall", PA_OP_MLOCKALL, RESULT_STATUS, 1, 1,
        {"flags"}, build_mlockall},
    [MKDIRS] = {"aio_mkdirs", PA_OP_MAKE_DIRECTORIES, RESULT_STATUS, 1, 3,
        {"path", "mode", "exist_ok", "dir_fd"}, build_mkdirs},
    [COMPOSITE] = {"_composite", PA_OP_NOP, RESULT_GROUP, 0, 0,
        {NULL}, build_composite},
    [LIST] = {"_list", PA_OP_LIST, RESULT_LISTING, 3, 5,
        {"directory", "path", "flags", "offset", "size"}, build_list},
    [TYPES] = {"_types", PA_OP_TYPES, RESULT_BYTES, 3, 3,
        {"directory", "names", "flags"}, build_types},
    [EMPTY] = {"_empty", PA_OP_EMPTY, RESULT_REMOVAL, 3, 4,
        {"directory", "path", "flags", "itself"}, build_empty},
    [MAKE_DIRECTORY] = {"_make_directory", PA_OP_MAKE_DIRECTORY, RESULT_LISTING, 3, 4,
        {"directory", "path", "flags", "not_in"}, build_make_directory},
    [FINISH_DIRECTORY] = {"_finish_directory", PA_OP_FINISH_DIRECTORY, RESULT_STATUS, 5, 5,
        {"src_directory", "src_path", "dst_directory", "dst_path", "atime_ns"},
        build_finish_directory},
    [STAT_MANY] = {"_stat_many", PA_OP_STAT_MANY, RESULT_MANY, 4, 5,
        {"batch", "first", "end", "dir_fd", "follow_symlinks"}, build_stat_many},
    [READ_MANY] = {"_read_many", PA_OP_READ_MANY, RESULT_MANY, 4, 4,
        {"batch", "first", "end", "out"}, build_read_many},
    [LOAD_MANY] = {"_load_many", PA_OP_LOAD_MANY, RESULT_MANY, 4, 4,
        {"batch", "first", "end", "dir_fd"}, build_load_many},
};

/* Interned names, for keywords. */
static PyObject *names[NSPECS][MOST_PARAMETERS];
static PyObject *name_callback, *name_pri, *name_timeout, *name_pool;

int functions_ready(void)
{
    for (int s = 0; s < NSPECS; s++)
        for (int p = 0; p < MOST_PARAMETERS && specs[s].parameters[p]; p++)
            if (!(names[s][p] = PyUnicode_InternFromString(specs[s].parameters[p])))
                return -1;
    name_callback = PyUnicode_InternFromString("callback");
    name_pri = PyUnicode_InternFromString("pri");
    name_timeout = PyUnicode_InternFromString("timeout");
    name_pool = PyUnicode_InternFromString("pool");
    return name_callback && name_pri && name_timeout && name_pool ? 0 : -1;
}

struct call {
    PyObject *values[MOST_PARAMETERS];
    PyObject *callback, *pri, *timeout, *pool;
};

static bool is_same(PyObject *a, PyObject *b)
{
    return a == b;
}

static bool is_equal(PyObject *a, PyObject *b)
{
    return PyUnicode_Compare(a, b) == 0;
}

static inline PyObject **find_place(int which, struct call *call, PyObject *name,
                                    bool (*is_it)(PyObject *, PyObject *))
{
    for (int p = 0; p < MOST_PARAMETERS && names[which][p]; p++)
        if (is_it(names[which][p], name))
            return &call->values[p];
    if (is_it(name, name_callback))
        return &call->callback;
    if (is_it(name, name_pri))
        return &call->pri;
    if (is_it(name, name_timeout))
        return &call->timeout;
    return is_it(name, name_pool) ? &call->pool : NULL;
}

/* Names that stand in a program are interned, as ours are: then nothing has to be compared. */
static PyObject **place_of(int which, struct call *call, PyObject *name)
{
    PyObject **place = find_place(which, call, name, is_same);
    return likely(place) ? place : find_place(which, call, name, is_equal);
}

static int parse(int which, struct call *call, PyObject *const *args, Py_ssize_t count,
                 PyObject *keywords)
{
    const struct spec *spec = &specs[which];
    Py_ssize_t given = count;
    /* Optional arguments may be left out before a callback. */
    if (count > spec->required && count <= spec->positional && PyCallable_Check(args[count - 1]))
        call->callback = args[--given];
    else if (count == spec->positional + 1)
        call->callback = args[--given];
    if (given > spec->positional) {
        PyErr_Format(PyExc_TypeError, "%s() takes %d arguments and a callback (%zd given)",
                     spec->name, spec->positional, count);
        return -1;
    }
    for (Py_ssize_t i = 0; i < given; i++)
        call->values[i] = args[i];
    Py_ssize_t nkeywords = keywords ? PyTuple_GET_SIZE(keywords) : 0;
    for (Py_ssize_t k = 0; k < nkeywords; k++) {
        PyObject *name = PyTuple_GET_ITEM(keywords, k), **place = place_of(which, call, name);
        if (!place || *place) {
            PyErr_Format(PyExc_TypeError,
                         place ? "%s() got several values for '%U'"
                               : "%s() got an unexpected keyword argument '%U'",
                         spec->name, name);
            return -1;
        }
        *place = args[count + k];
    }
    for (int p = 0; p < spec->required; p++)
        if (!call->values[p]) {
            PyErr_Format(PyExc_TypeError, "%s() misses its argument '%s'", spec->name,
                         spec->parameters[p]);
            return -1;
        }
    if (call->callback == Py_None)
        call->callback = NULL;
    if (call->callback && !PyCallable_Check(call->callback)) {
        PyErr_Format(PyExc_TypeError, "callback must be callable or None, not %.100s",
                     Py_TYPE(call->callback)->tp_name);
        return -1;
    }
    return 0;
}

static bool spec_takes_path(const struct spec *spec)
{
    return strcmp(spec->parameters[0], "path") == 0 ||
           strcmp(spec->parameters[0], "fh_or_path") == 0;
}

/* The parameter for the directory of the path `p`; NULL: that is no path, or it has none. */
static PyObject **directory_of(const struct spec *spec, struct call *call, int p)
{
    const char *path = spec->parameters[p], *wanted = "dir_fd";
    bool is_dst = strcmp(path, "dst") == 0;
    if (strcmp(path, "src") == 0 || is_dst)
        wanted = is_dst ? "dst_dir_fd" : "src_dir_fd";
    else if (p > 0 || !spec_takes_path(spec))
        return NULL;
    for (int d = spec->positional; d < MOST_PARAMETERS && spec->parameters[d]; d++)
        if (strcmp(spec->parameters[d], wanted) == 0 ||
            (is_dst && strcmp(spec->parameters[d], "dir_fd") == 0)) /* of symlink */
            return &call->values[d];
    return NULL;
}

/* Where a call has no dir_fd the system is told the directory by its descriptor's name.  The path
 * becomes a new object, which the caller of this function owns. */
static int join(Request *request, PyObject *directory, PyObject **path)
{
    PyObject *bytes;
    int fd;
    if (take_dir_fd(request, directory, &fd) < 0 || !PyUnicode_FSConverter(*path, &bytes))
        return -1;
    const char *text = PyBytes_AS_STRING(bytes);
    if (fd != AT_FDCWD && *text != '\0' && *text != '/')
        Py_SETREF(bytes, PyBytes_FromFormat("/proc/self/fd/%d/%s", fd, text));
    *path = bytes;
    return bytes ? 0 : -1;
}

/* (directory, path) stands for a path and its dir_fd.  What is no such tuple stays as it is: no
 * builder takes a tuple for a path. */
static int build_with_tuples(const struct spec *spec, Request *request, struct call *call)
{
    PyObject *joined = NULL, *path = NULL;
    for (int p = 0; p < 2; p++) {
        PyObject *tuple = call->values[p];
        if (!tuple || !PyTuple_CheckExact(tuple) || PyTuple_GET_SIZE(tuple) != 2)
            continue;
        PyObject *first = PyTuple_GET_ITEM(tuple, 0), *second = PyTuple_GET_ITEM(tuple, 1);
        PyObject **directory = directory_of(spec, call, p);
        if (directory && (!*directory || *directory == Py_None)) {
            *directory = first;
            call->values[p] = second;
        } else if (!directory && p == 0 && spec_takes_path(spec) && is_path(second)) {
            path = joined = second;
            if (join(request, first, &joined) < 0)
                return -1;
            call->values[p] = joined;
        }
    }
    int failed = spec->build(request, call->values);
    if (joined && !failed)
        Py_SETREF(request->path, Py_NewRef(path));
    Py_XDECREF(joined);
    return failed;
}

static int take_priority(PyObject *given, int *priority)
{
    *priority = priority_next();
    if (!given || given == Py_None)
        return 0;
    PyObject *index = PyNumber_Index(given);
    if (!index)
        return -1;
    int overflow;
    long n = PyLong_AsLongAndOverflow(index, &overflow);
    Py_DECREF(index);
    if (overflow)
        n = overflow * 4;
    *priority = (int)(n > 4 ? 4 : n < -4 ? -4 : n);
    return 0;
}

/* It is given in seconds from now on.  0: there is none. */
static int take_timeout(PyObject *given, uint64_t *deadline_ns)
{
    *deadline_ns = 0;
    if (likely(!given) || given == Py_None)
        return 0;
    double seconds = PyFloat_AsDouble(given);
    if (seconds == -1 && PyErr_Occurred())
        return -1;
    if (!(seconds >= 0)) {
        PyErr_Format(PyExc_ValueError, "timeout must not be negative: %R", given);
        return -1;
    }
    *deadline_ns = pa_now_ns() + poll_ns(seconds);
    return 0;
}

static PyObject *submit(int which, PyObject *const *args, Py_ssize_t count, PyObject *keywords)
{
    const struct spec *spec = &specs[which];
    struct call call = {.pool = NULL};
    int priority;
    uint64_t deadline_ns;
    if (parse(which, &call, args, count, keywords) < 0 ||
        take_priority(call.pri, &priority) < 0 || take_timeout(call.timeout, &deadline_ns) < 0)
        return NULL;
    bool unsure = identity_unsure;
    if (unlikely(unsure))
        identity_may_have_changed();
    Pool *pool = pool_of(call.pool);
    bool is_group = spec->kind == RESULT_GROUP;
    if (!pool)
        return NULL;
    Py_INCREF(pool); /* making the request may run the program's code, too: garbage is collected */
    bool lost = unlikely(unsure || pool->spawner_pid == 0) && lost_check(pool) < 0;
    Request *request = lost       ? NULL
                       : is_group ? group_new(pool)
                                  : request_new(pool, spec->op, spec->kind);
    Py_DECREF(pool);
    if (!request)
        return NULL;
    request->pri = (int8_t)priority;
    request->callback = Py_XNewRef(call.callback);
    bool tuples = (call.values[0] && PyTuple_CheckExact(call.values[0])) ||
                  (call.values[1] && PyTuple_CheckExact(call.values[1]));
    int failed = unlikely(tuples) ? build_with_tuples(spec, request, &call)
                                  : spec->build(request, call.values);
    /* Making the arguments may run the program's code: the pool may be closed by then, or have lost
     * its spawner (identity.c). */
    if (failed < 0 || pool_check(pool) < 0 || (!is_group && pool_ensure_spawner(pool) < 0) ||
        (unlikely(deadline_ns) && deadlines_prepare(pool) < 0)) {
        if (request->closes_handle)
            ((FileHandle *)request->file)->fd = request->fd;
        Py_DECREF(request);
        return NULL;
    }
    priority_reset();
    if (unlikely(deadline_ns))
        deadlines_add(pool, request, deadline_ns);
    (is_group ? queue_group : queue_request)(pool, request);
    if (unlikely(pool->spawner_is_old))
        pool_renew(pool);
    return (PyObject *)request;
}

#define FUNCTION(name, which)                                                                      \
    static PyObject *name(PyObject *module, PyObject *const *args, Py_ssize_t count,               \
                          PyObject *keywords)                                                      \
    {                                                                                              \
        (void)module;                                                                              \
        return submit(which, args, count, keywords);                                               \
    }
FUNCTION(aio_group, GROUP)
FUNCTION(aio_nop, NOP)
FUNCTION(aio_busy, BUSY)
FUNCTION(aio_open, OPEN)
FUNCTION(aio_close, CLOSE)
FUNCTION(aio_read, READ)
FUNCTION(aio_write, WRITE)
FUNCTION(aio_load, LOAD)
FUNCTION(aio_sendfile, SENDFILE)
FUNCTION(aio_readahead, READAHEAD)
FUNCTION(aio_truncate, TRUNCATE)
FUNCTION(aio_sync, SYNC)
FUNCTION(aio_fsync, FSYNC)
FUNCTION(aio_fdatasync, FDATASYNC)
FUNCTION(aio_sync_file_range, SYNC_FILE_RANGE)
FUNCTION(aio_pathsync, PATHSYNC)
FUNCTION(aio_stat, STAT)
FUNCTION(aio_lstat, LSTAT)
FUNCTION(aio_statvfs, STATVFS)
FUNCTION(aio_utime, UTIME)
FUNCTION(aio_chown, CHOWN)
FUNCTION(aio_chmod, CHMOD)
FUNCTION(aio_unlink, UNLINK)
FUNCTION(aio_rmdir, RMDIR)
FUNCTION(aio_mkdir, MKDIR)
FUNCTION(aio_mknod, MKNOD)
FUNCTION(aio_link, LINK)
FUNCTION(aio_symlink, SYMLINK)
FUNCTION(aio_rename, RENAME)
FUNCTION(aio_readlink, READLINK)
FUNCTION(aio_readdir, READDIR)
FUNCTION(aio_readdirx, READDIRX)
FUNCTION(aio_slurp, SLURP)
FUNCTION(aio_copy, COPY)
FUNCTION(copy_entry, COPY_ENTRY)
FUNCTION(aio_move, MOVE)
FUNCTION(aio_replace, REPLACE)
FUNCTION(aio_seek, SEEK)
FUNCTION(aio_allocate, ALLOCATE)
FUNCTION(aio_fadvise, FADVISE)
FUNCTION(aio_syncfs, SYNCFS)
FUNCTION(aio_copy_file_range, COPY_FILE_RANGE)
FUNCTION(aio_splice, SPLICE)
FUNCTION(aio_tee, TEE)
FUNCTION(aio_access, ACCESS)
FUNCTION(aio_realpath, REALPATH)
FUNCTION(aio_wd, WD)
FUNCTION(aio_rename2, RENAME2)
FUNCTION(aio_statx, STATX)
FUNCTION(aio_getxattr, GETXATTR)
FUNCTION(aio_setxattr, SETXATTR)
FUNCTION(aio_listxattr, LISTXATTR)
FUNCTION(aio_removexattr, REMOVEXATTR)
FUNCTION(aio_fiemap, FIEMAP)
FUNCTION(aio_fcntl, FCNTL)
FUNCTION(aio_ioctl, IOCTL)
FUNCTION(aio_msync, MSYNC)
FUNCTION(aio_mtouch, MTOUCH)
FUNCTION(aio_mlock, MLOCK)
FUNCTION(aio_mlockall, MLOCKALL)
FUNCTION(aio_mkdirs, MKDIRS)
FUNCTION(_composite, COMPOSITE)
FUNCTION(_list, LIST)
FUNCTION(_types, TYPES)
FUNCTION(_empty, EMPTY)
FUNCTION(_make_directory, MAKE_DIRECTORY)
FUNCTION(_finish_directory, FINISH_DIRECTORY)
FUNCTION(_stat_many, STAT_MANY)
FUNCTION(_read_many, READ_MANY)
FUNCTION(_load_many, LOAD_MANY)

#define ROW(name, signature, text) ROW_AT(name, signature, "", text)
#define ROW_AT(name, signature, keywords, text)                                                    \
    {#name, (PyCFunction)(void (*)(void))name, METH_FASTCALL | METH_KEYWORDS,                      \
     #name "(" signature "callback=None, *, " keywords                                             \
           "pri=None, timeout=None, pool=None)\n--\n\n" text}

PyMethodDef aio_functions[] = {
    ROW(aio_group, "",
        "Make a Group: a request that is done when those that are added to it are.\n\n"
        "The callback gets what Group.result() was given; await and wait() give it too. Without any\n"
        "member it is done at the next poll_cb(). (IO::AIO aio_group)"),
    ROW(aio_nop, "",
        "Do nothing, the whole way round: useful to measure and to wait for a place in the queue.\n\n"
        "The callback is called without arguments; await and wait() give None. (IO::AIO aio_nop)"),
    ROW(aio_busy, "seconds, ",
        "Keep a worker busy (asleep) for some seconds; a float is fine.\n\n"
        "The callback is called without arguments; await and wait() give None. (IO::AIO aio_busy)"),
    ROW_AT(aio_open, "path, flags=os.O_RDONLY, mode=0o666, ", "dir_fd=None, ",
        "Open a file; yields a FileHandle, or None to the callback on failure. See open(2).\n\n"
        "`flags` are those of os.open; the descriptor is never inherited (O_CLOEXEC). `mode`, less\n"
        "the umask at that time, is for files that are created. Keyword `dir_fd` as in os.open."),
    ROW(aio_close, "fh, ",
        "Close a descriptor or FileHandle in a worker: flushing to a server, or the last close of a\n"
        "deleted file, does not block the program. Yields 0, or -1 to the callback. See close(2).\n\n"
        "It may overtake requests that are under way: end those first. A FileHandle counts as closed at\n"
        "once. Another file object is not closed itself: what it has open is, and its descriptor reads\n"
        "as end of file until the object is closed too."),
    ROW(aio_read, "fh, offset, length, data=None, dataoffset=0, ",
        "Read up to `length` bytes at `offset`; yields how many were read, 0 at end of file.\n\n"
        "`offset` None reads at the descriptor's position and moves it; an int leaves it alone.\n"
        "Without `data` the bytes themselves are the result (None to the callback on failure).\n"
        "A bytearray as `data` is resized to dataoffset + the bytes read. Any other writable buffer\n"
        "(Buffer, memoryview, array, numpy array) keeps its size and must have room: ValueError.\n"
        "A Buffer, or what lies in one, is read into without a copy. `dataoffset` < 0 counts from\n"
        "the end. The data stay as they were on failure. See pread(2)."),
    ROW(aio_write, "fh, offset, length, data, dataoffset=0, ",
        "Write `length` bytes of `data`, from `dataoffset` on, at `offset`; yields how many were\n"
        "written (short counts happen), or -1 to the callback. See pwrite(2).\n\n"
        "`offset` None writes at the descriptor's position and moves it. `length` None writes the\n"
        "rest; more than there is raises ValueError. The data are copied in the call, except those\n"
        "in a Buffer, which are written as they are when the request runs."),
    ROW_AT(aio_load, "path, data=None, ", "dir_fd=None, ",
        "Read a whole file, to its end and not to its size, so files of /proc load too; yields the\n"
        "bytes, or None to the callback on failure.\n\n"
        "With a bytearray as `data` it is filled instead, and the number of bytes is the result (-1\n"
        "to the callback on failure; the bytearray stays as it was). Opening, reading and closing of\n"
        "a small file is one round trip. Keyword `dir_fd`. (IO::AIO aio_load)"),
    ROW(aio_sendfile, "out_fh, in_fh, in_offset, length, ",
        "Copy `length` bytes of `in_fh`, from `in_offset` on, to `out_fh` at its position; yields how\n"
        "many were written, or -1 to the callback.\n\n"
        "Fewer are copied at the end of the file, and where a non-blocking socket takes no more\n"
        "(EAGAIN if it takes none). The position of `in_fh` stays; `in_offset` None reads at it and\n"
        "moves it. Where the system cannot (what is no file, or no socket) the data are read and\n"
        "written instead. See sendfile(2)."),
    ROW(aio_readahead, "fh, offset, length, ",
        "Bring a part of a file into the page cache, so that reading it will not wait. Yields 0.\n"
        "See readahead(2); what it refuses is read and forgotten."),
    ROW(aio_truncate, "fh_or_path, offset, ",
        "Cut a file, or extend it with a hole, to `offset` bytes. Yields 0, or -1 to the callback.\n"
        "See truncate(2)."),
    ROW(aio_sync, "",
        "Write everything that waits to be written, of all file systems. Yields 0. See sync(2)."),
    ROW(aio_fsync, "fh, ", "Write a file's data and metadata to the disk. Yields 0. See fsync(2)."),
    ROW(aio_fdatasync, "fh, ",
        "Write a file's data to the disk, and of its metadata what reading them needs. Yields 0.\n"
        "See fdatasync(2)."),
    ROW(aio_sync_file_range, "fh, offset, nbytes, flags, ",
        "Start or await the writing of a part of a file, without its metadata, as `flags`\n"
        "(SYNC_FILE_RANGE_*) say; `nbytes` 0 means to the end. Yields 0, or -1 to the callback.\n"
        "See sync_file_range(2); where the system lacks it, fdatasync or fsync is done."),
    ROW_AT(aio_pathsync, "path, ", "dir_fd=None, ",
        "Open, fsync and close what a path names; after a rename, that of the directory makes it\n"
        "durable. Yields 0, or -1 to the callback. Keyword `dir_fd`. (IO::AIO aio_pathsync)"),
    ROW_AT(aio_stat, "fh_or_path, ", "dir_fd=None, ",
        "Yields os.stat_result (None to the callback on failure); follows symlinks. Keyword\n"
        "`dir_fd` as in os.stat. See stat(2)."),
    ROW_AT(aio_lstat, "fh_or_path, ", "dir_fd=None, ",
        "Yields os.stat_result (None to the callback on failure) of the path itself, if it is a\n"
        "symlink too. Keyword `dir_fd` as in os.lstat. See lstat(2)."),
    ROW(aio_statvfs, "fh_or_path, ",
        "Yields os.statvfs_result of the file system (None to the callback on failure).\n"
        "See statvfs(3)."),
    ROW_AT(aio_utime, "fh_or_path, atime=None, mtime=None, ",
           "ns=None, dir_fd=None, follow_symlinks=True, ",
        "Set the times of last access and modification. Yields 0, or -1 to the callback.\n\n"
        "In seconds since the epoch, fractions too; both None is now, one None is 0. Exact times go\n"
        "into `ns`, a tuple of two numbers of nanoseconds. UTIME_NOW and UTIME_OMIT (leave it) may\n"
        "stand for any of them. Keywords `dir_fd`, `follow_symlinks`. See utimensat(2)."),
    ROW_AT(aio_chown, "fh_or_path, uid, gid, ", "dir_fd=None, follow_symlinks=True, ",
        "Set owner and group; None and -1 leave one as it is. Yields 0, or -1 to the callback.\n"
        "Keywords `dir_fd`, `follow_symlinks`. See chown(2)."),
    ROW_AT(aio_chmod, "fh_or_path, mode, ", "dir_fd=None, follow_symlinks=True, ",
        "Set the permissions. Yields 0, or -1 to the callback. Keywords `dir_fd`, `follow_symlinks`\n"
        "(a symlink itself has no permissions on Linux: EOPNOTSUPP). See chmod(2)."),
    ROW_AT(aio_unlink, "path, ", "dir_fd=None, ",
        "Remove a name. Yields 0, or -1 to the callback. Keyword `dir_fd`. See unlink(2)."),
    ROW_AT(aio_rmdir, "path, ", "dir_fd=None, ",
        "Remove an empty directory. Yields 0, or -1 to the callback. Keyword `dir_fd`.\n"
        "See rmdir(2)."),
    ROW_AT(aio_mkdir, "path, mode=0o777, ", "dir_fd=None, ",
        "Make a directory; `mode` less the umask at that time. Yields 0, or -1 to the callback.\n"
        "Keyword `dir_fd`. See mkdir(2)."),
    ROW_AT(aio_mknod, "path, mode=0o600, dev=0, ", "dir_fd=None, ",
        "Make a FIFO, a device or a file, as the S_IF* in `mode` says; permissions less the umask at\n"
        "that time. `dev` is a number as os.makedev gives it. Yields 0, or -1 to the callback.\n"
        "Keyword `dir_fd`. See mknod(2)."),
    ROW_AT(aio_link, "src, dst, ", "src_dir_fd=None, dst_dir_fd=None, follow_symlinks=False, ",
        "Give the file `src` another name `dst`. Yields 0, or -1 to the callback.\n\n"
        "If `src` is a symlink, it gets the name itself, unless `follow_symlinks`. Keywords\n"
        "`src_dir_fd`, `dst_dir_fd`. See link(2)."),
    ROW_AT(aio_symlink, "src, dst, ", "dir_fd=None, ",
        "Make a symlink `dst` that says `src`. Yields 0, or -1 to the callback. Keyword `dir_fd`, of\n"
        "`dst`. See symlink(2)."),
    ROW_AT(aio_rename, "src, dst, ", "src_dir_fd=None, dst_dir_fd=None, ",
        "Rename, replacing what `dst` names. Yields 0, or -1 to the callback. Keywords\n"
        "`src_dir_fd`, `dst_dir_fd`. See rename(2)."),
    ROW_AT(aio_readlink, "path, ", "dir_fd=None, ",
        "Yields what a symlink says, str or bytes like the path; None to the callback on failure.\n"
        "Keyword `dir_fd`. See readlink(2)."),
    ROW_AT(aio_readdir, "path, ", "dir_fd=None, ",
        "Yields a list of the names in a directory, of any size, unsorted, without '.' and '..';\n"
        "str or bytes like the path. None to the callback on failure. Keyword `dir_fd`.\n"
        "See getdents64(2)."),
    ROW_AT(aio_readdirx, "path, flags, ", "dir_fd=None, ",
        "Like aio_readdir, ordered and detailed as `flags` say (READDIR_*); yields (entries, flags).\n\n"
        "The callback gets two arguments; (None, flags) on failure. With READDIR_DENTS an entry is\n"
        "(name, type, inode), type one of DT_*. READDIR_DIRS_FIRST puts likely directories first,\n"
        "READDIR_STAT_ORDER orders for stat'ing all. The flags that come back are those asked for,\n"
        "and READDIR_FOUND_UNKNOWN if some type was DT_UNKNOWN. (IO::AIO aio_readdirx)"),
    ROW_AT(aio_slurp, "path, offset, length, data=None, ", "dir_fd=None, ",
        "Read a part of a file by its path: `length` bytes (0: to the end) from `offset` on, which\n"
        "counts from the end if it is negative; yields the bytes, or None to the callback on failure.\n"
        "Fewer come where the file ends; an offset before its beginning is EINVAL.\n\n"
        "With a bytearray as `data` as in aio_load. Keyword `dir_fd`. (IO::AIO aio_slurp)"),
    ROW_AT(aio_copy, "src, dst, ", "src_dir_fd=None, dst_dir_fd=None, follow_symlinks=True, ",
        "Copy a file as `cp -p` does: content with its holes, times, owner, permissions, access list\n"
        "and the user's attributes, all but the content as far as the program may. Yields 0, or -1 to\n"
        "the callback. Keywords `src_dir_fd`, `dst_dir_fd`.\n\n"
        "The kernel copies, and shares blocks where the file system can; Request.copied tells how far\n"
        "it is. A new file has no permissions for others until it has the source's; one that is there\n"
        "is written over. EISDIR for a directory, EINVAL for a copy onto itself, which changes nothing.\n"
        "A `dst` that is a FIFO or a device gets the content alone.\n\n"
        "On an error, when it is cancelled, and when its worker dies and it cannot be done again, what\n"
        "there is of `dst` is removed, also if an older file was there. If `dst` is a symlink, that is\n"
        "the file it leads to, and the symlink stays. What cannot be removed (the directory forbids it)\n"
        "is left empty.\n\n"
        "With `follow_symlinks` False an entry is copied as it is: a symlink, FIFO, socket or device is\n"
        "made anew, and a `dst` that is one of these, or a file of several names, is replaced. (IO::AIO\n"
        "aio_copy)"),
    {"_copy_entry", (PyCFunction)(void (*)(void))copy_entry, METH_FASTCALL | METH_KEYWORDS,
     "_copy_entry(src, dst, tell_links, callback=None, *, src_dir_fd=None, dst_dir_fd=None, "
     "pri=None, pool=None)\n--\n\n"
     "aio_copy with follow_symlinks=False that yields the size of a regular file, 0 for others, or\n"
     "-1 to the callback on failure. If `tell_links` is true, nothing is done to a regular file of\n"
     "several names, and (device, inode) is the result."},
    ROW_AT(aio_move, "src, dst, ", "src_dir_fd=None, dst_dir_fd=None, ",
        "Rename a file. If `dst` is on another file system, copy it there as aio_copy does with\n"
        "follow_symlinks=False, then unlink `src`. Yields 0, or -1 to the callback. Keywords\n"
        "`src_dir_fd`, `dst_dir_fd`.\n\n"
        "Like a rename it replaces what `dst` names: to another file system by unlinking that before\n"
        "the copy begins. On an error `src` is where it was, and nothing of a copy stays; but if only\n"
        "the unlinking fails, both are there, whole. EISDIR for a directory on another file system,\n"
        "EAGAIN if `src` is not the file any more that was copied. (IO::AIO aio_move)"),
    ROW_AT(aio_replace, "path, data, mode=0o666, ", "dir_fd=None, ",
        "Give a file new content, all of it or nothing: whatever dies, the file is the old one or the\n"
        "new one, and the new one is on the disk when the request has ended.\n\n"
        "The content is written to a temporary file of the same directory, synced, and renamed; then\n"
        "the directory is synced. `mode`, less the umask, is for the new file: nothing is taken over\n"
        "from the old one. A symlink is replaced itself. Yields 0, or -1 to the callback; after an\n"
        "error of the last step the new content is there, but may not survive a power cut. A worker\n"
        "that dies just before the renaming leaves the new content beside the old file, under a name\n"
        "that begins with .procaio-; where the file system lacks O_TMPFILE, perhaps a part of it."),
    ROW(aio_seek, "fh, offset, whence, ",
        "Move a descriptor's position; yields the new one, or -1 to the callback. `whence` is SEEK_SET,\n"
        "SEEK_CUR, SEEK_END, SEEK_DATA or SEEK_HOLE. See lseek(2)."),
    ROW(aio_allocate, "fh, mode, offset, length, ",
        "Reserve space for a part of a file, or do to it what `mode` (FALLOC_FL_*) says. Yields 0, or\n"
        "-1 to the callback. See fallocate(2)."),
    ROW(aio_fadvise, "fh, offset, length, advice, ",
        "Tell the system how a part of a file (`length` 0: the rest) will be used (FADV_*). Yields 0,\n"
        "or -1 to the callback. See posix_fadvise(2)."),
    ROW(aio_syncfs, "fh, ",
        "Write everything to the disk that waits for it in the file system of `fh`. Yields 0, or -1 to\n"
        "the callback. See syncfs(2)."),
    ROW(aio_copy_file_range, "src, dst, count, offset_src=None, offset_dst=None, ",
        "Copy up to `count` bytes from the descriptor `src` to `dst` within the kernel, sharing blocks\n"
        "where the file system can; yields how many, or -1 to the callback.\n\n"
        "Offsets that are None are the descriptors' positions, which move. See copy_file_range(2)."),
    ROW(aio_splice, "src, dst, count, offset_src=None, offset_dst=None, flags=0, ",
        "Move up to `count` bytes between two descriptors, one of them a pipe; yields how many, or -1\n"
        "to the callback. `flags` are SPLICE_F_*. See splice(2)."),
    ROW(aio_tee, "src, dst, count, flags=0, ",
        "Copy up to `count` bytes from one pipe into another one without taking them out; yields how\n"
        "many, or -1 to the callback. `flags` are SPLICE_F_*. See tee(2)."),
    ROW_AT(aio_access, "path, mode, ", "dir_fd=None, effective_ids=False, follow_symlinks=True, ",
        "Yields whether the program may use a path as `mode` (os.F_OK, R_OK, W_OK, X_OK) says; False\n"
        "for whatever reason. Keywords as in os.access. See access(2)."),
    ROW_AT(aio_realpath, "path, ", "dir_fd=None, ",
        "Yields the absolute path without any symlink in it, str or bytes like the path; None to the\n"
        "callback on failure. The path must exist; ENOENT for what has no path, as a pipe or a removed\n"
        "directory. (IO::AIO aio_realpath)"),
    ROW_AT(aio_wd, "path, ", "dir_fd=None, ",
        "Open a directory to work in; yields a FileHandle that can be `dir_fd`, or the first half of a\n"
        "(directory, path) tuple wherever a path is taken. None to the callback on failure. Nothing\n"
        "can be read from it (O_PATH). (IO::AIO aio_wd)"),
    ROW_AT(aio_rename2, "src, dst, flags, ", "src_dir_fd=None, dst_dir_fd=None, ",
        "Rename as `flags` say: RENAME_NOREPLACE fails with EEXIST if `dst` is there, RENAME_EXCHANGE\n"
        "swaps the two. Yields 0, or -1 to the callback. See renameat2(2)."),
    ROW_AT(aio_statx, "fh_or_path, flags=0, mask=0xFFF, ", "dir_fd=None, ",
        "Yields a statx_result (None to the callback on failure), with the time of creation among\n"
        "others. `flags` are AT_*, `mask` says what is wanted (STATX_*; the default is\n"
        "STATX_BASIC_STATS and STATX_BTIME). See statx(2)."),
    ROW_AT(aio_getxattr, "fh_or_path, attribute, ", "follow_symlinks=True, ",
        "Yields the value of an extended attribute, bytes; None to the callback on failure.\n"
        "See getxattr(2)."),
    ROW_AT(aio_setxattr, "fh_or_path, attribute, value, flags=0, ", "follow_symlinks=True, ",
        "Set an extended attribute to `value`, any buffer; `flags` are XATTR_CREATE and XATTR_REPLACE.\n"
        "Yields 0, or -1 to the callback. See setxattr(2)."),
    ROW_AT(aio_listxattr, "fh_or_path, ", "follow_symlinks=True, ",
        "Yields the list of the names of a file's extended attributes; None to the callback on\n"
        "failure. See listxattr(2)."),
    ROW_AT(aio_removexattr, "fh_or_path, attribute, ", "follow_symlinks=True, ",
        "Remove an extended attribute. Yields 0, or -1 to the callback. See removexattr(2)."),
    ROW(aio_fiemap, "fh, start=0, length=None, flags=0, count=None, ",
        "Yields where a part of a file (`length` None: the rest) is on the disk, as a list of (logical,\n"
        "physical, length, flags), the first three in bytes, flags FIEMAP_EXTENT_*; None to the\n"
        "callback on failure. `flags` are FIEMAP_FLAG_*; at most `count` extents (None: all).\n"
        "See ioctl_fiemap(2)."),
    ROW(aio_fcntl, "fh, cmd, arg=0, ",
        "Yields what fcntl(2) returns, or -1 to the callback. `arg` is a number, a writable buffer that\n"
        "is changed in place, or bytes: then the bytes that came back are the result (None to the\n"
        "callback on failure). Record locks belong to the program, as if it had made the call."),
    ROW(aio_ioctl, "fh, request, buf=0, ",
        "Yields what ioctl(2) returns, or -1 to the callback. `buf` as `arg` of aio_fcntl; an address in\n"
        "it means nothing to the worker that makes the call. At most 64 KiB; requests that write as much\n"
        "as they are told to must be given room for it."),
    ROW(aio_msync, "data, offset=0, length=None, flags=MS_SYNC, ",
        "Write the changed pages of mapped memory to its file. Yields 0, or -1 to the callback.\n\n"
        "`data` is a Mapping, an mmap.mmap or any other contiguous buffer. A negative `offset` counts\n"
        "from the end; `length` None, or more than there is, means to the end, and a negative one\n"
        "leaves off as many bytes there. Whole pages are meant. `flags` are MS_*. EFAULT says that the\n"
        "file has become shorter than the mapping, and what lay beyond its end is lost.\n"
        "A thread of the program does it, without the interpreter lock. See msync(2)."),
    ROW(aio_mtouch, "data, offset=0, length=None, flags=0, ",
        "Bring pages of memory in, so that using them will not wait; with MT_MODIFY as `flags` they\n"
        "count as changed too, but are not. Yields 0, or -1 to the callback.\n\n"
        "`data`, `offset` and `length` as for aio_msync. EFAULT says that the file has become shorter\n"
        "than the mapping; there is no SIGBUS. See MADV_POPULATE_READ in madvise(2)."),
    ROW(aio_mlock, "data, offset=0, length=None, ",
        "Bring pages of memory in and keep them there, until munlock(), munlockall() or the end of\n"
        "the mapping. Yields 0, or -1 to the callback.\n\n"
        "`data`, `offset` and `length` as for aio_msync. See mlock(2)."),
    ROW(aio_mlockall, "flags, ",
        "Keep all memory of the program in memory, as `flags` (MCL_*) say, until munlockall(). Yields\n"
        "0, or -1 to the callback. See mlockall(2)."),
    ROW_AT(aio_mkdirs, "path, mode=0o777, exist_ok=False, ", "dir_fd=None, ",
        "Create a directory, and those above it that are missing; yields 0, or -1 to the callback.\n\n"
        "As os.makedirs: `mode` less the umask is the last one's, the others have 0o777 less it; with\n"
        "`exist_ok` a directory that is there already will do. See mkdir(2)."),
    ROW(_composite, "",
        "A Group whose members procaio makes. It waits for _end(), and with an errno it fails."),
    ROW(_list, "directory, path, flags, offset=None, size=32768, ",
        "A step of a tree: what a directory holds. See workers/calls_tree.c."),
    ROW(_types, "directory, names, flags, ", "A step of a tree: what names stand for."),
    ROW(_empty, "directory, path, flags, itself=None, ",
        "A step of a tree: remove what is no directory, and the directory if nothing is left."),
    ROW(_make_directory, "directory, path, flags, not_in=None, ",
        "A step of a tree: make a directory, and open it. EINVAL if it would lie in `not_in`."),
    ROW(_finish_directory, "src_directory, src_path, dst_directory, dst_path, atime_ns, ",
        "A step of a tree: give a directory the attributes of another one."),
    ROW(_stat_many, "batch, first, end, dir_fd, follow_symlinks=True, ",
        "A chunk of a batch. See procaio/csrc/batch.c."),
    ROW(_read_many, "batch, first, end, out, ", "A chunk of a batch."),
    ROW(_load_many, "batch, first, end, dir_fd, ", "A chunk of a batch."),
    {NULL, NULL, 0, NULL},
};
