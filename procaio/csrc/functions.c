/* procaio/csrc/functions.c - aio_*: one row of `specs` for each, and what fills a Request.
 *
 * Arguments are looked at in the call: whatever is wrong with them is raised here, in the program's
 * own line, with nothing queued and the next request's priority left as it was.
 */
#include <fcntl.h>
#include <sys/stat.h>

#include "core.h"

enum { MOST_PARAMETERS = 5 };

/* Fills the request from the values of its parameters (NULL: not given).  0, or -1 + exception. */
typedef int build(Request *request, PyObject *const *values);

struct spec {
    const char *name;
    enum pa_opcode op;
    enum result_kind kind;
    uint8_t required; /* of the parameters that may be positional */
    uint8_t positional;
    const char *parameters[MOST_PARAMETERS + 1]; /* positional ones first, then keyword-only */
    build *build;
};

/* -- arguments -------------------------------------------------------------------------------- */

/* A path as the kernel gets it: an ASCII str as it is, everything else as bytes. */
static PyObject *encode_path(PyObject *path, bool *is_bytes)
{
    PyObject *plain = PyOS_FSPath(path);
    if (!plain)
        return NULL;
    *is_bytes = PyBytes_Check(plain);
    const char *text;
    Py_ssize_t length;
    if (PyUnicode_Check(plain)) {
        if (!PyUnicode_IS_ASCII(plain))
            Py_SETREF(plain, PyUnicode_EncodeFSDefault(plain));
        if (!plain)
            return NULL;
    }
    if (PyBytes_Check(plain)) {
        text = PyBytes_AS_STRING(plain);
        length = PyBytes_GET_SIZE(plain);
    } else {
        text = (const char *)PyUnicode_1BYTE_DATA(plain);
        length = PyUnicode_GET_LENGTH(plain);
    }
    if (memchr(text, '\0', (size_t)length)) {
        PyErr_SetString(PyExc_ValueError, "embedded null byte in the path");
        Py_CLEAR(plain);
    }
    return plain;
}

static int take_number(PyObject *value, const char *name, int64_t least, int64_t most,
                       int64_t *number)
{
    PyObject *index = PyNumber_Index(value);
    if (!index) {
        if (PyErr_ExceptionMatches(PyExc_TypeError))
            PyErr_Format(PyExc_TypeError, "%s must be an integer, not %.100s", name,
                         Py_TYPE(value)->tp_name);
        return -1;
    }
    int overflow;
    long long n = PyLong_AsLongLongAndOverflow(index, &overflow);
    Py_DECREF(index);
    if (n == -1 && !overflow && PyErr_Occurred())
        return -1;
    if (overflow || n < least || n > most) {
        PyErr_Format(PyExc_ValueError, "%s is out of range: %R", name, value);
        return -1;
    }
    *number = n;
    return 0;
}

static int take_u32(PyObject *value, const char *name, uint32_t *number)
{
    int64_t n;
    if (!value)
        return 0;
    if (take_number(value, name, INT32_MIN, UINT32_MAX, &n) < 0)
        return -1;
    *number = (uint32_t)n;
    return 0;
}

/* An int is a descriptor, whatever its value; other objects are asked, and kept alive. */
static int take_fd(Request *request, PyObject *file)
{
    if (PyLong_Check(file)) {
        int overflow;
        long fd = PyLong_AsLongAndOverflow(file, &overflow);
        if (overflow || fd > INT32_MAX || fd < INT32_MIN) {
            PyErr_Format(PyExc_OverflowError, "not a descriptor: %R", file);
            return -1;
        }
        request->fd = (int)fd;
        return 0;
    }
    if (FileHandle_Check(file)) {
        request->fd = filehandle_fd(file);
        request->path = Py_NewRef(((FileHandle *)file)->name);
    } else {
        request->fd = PyObject_AsFileDescriptor(file);
    }
    if (request->fd < 0)
        return -1;
    request->file = Py_NewRef(file);
    return 0;
}

/* A file object that the request uses stays open at least as long as the request lives. */
static int keep(Request *request, PyObject *file)
{
    PyObject *kept = request->file ? PyTuple_Pack(2, request->file, file) : Py_NewRef(file);
    if (kept)
        Py_XSETREF(request->file, kept);
    return kept ? 0 : -1;
}

static int take_dir_fd(Request *request, PyObject *value, int *fd)
{
    *fd = AT_FDCWD;
    if (!value || value == Py_None)
        return 0;
    if (PyLong_Check(value)) {
        int64_t n;
        if (take_number(value, "dir_fd", INT32_MIN, INT32_MAX, &n) < 0)
            return -1;
        *fd = (int)n;
        return 0;
    }
    *fd = PyObject_AsFileDescriptor(value);
    return *fd < 0 ? -1 : keep(request, value);
}

static int take_path(Request *request, PyObject *path)
{
    bool is_bytes;
    if (!(request->fspath = encode_path(path, &is_bytes)))
        return -1;
    request->names_are_bytes = is_bytes;
    request->path = Py_NewRef(path);
    return 0;
}

static bool is_path(PyObject *object)
{
    if (PyUnicode_Check(object) || PyBytes_Check(object))
        return true;
    if (PyLong_Check(object) || FileHandle_Check(object))
        return false;
    return PyObject_HasAttrString((PyObject *)Py_TYPE(object), "__fspath__");
}

/* -- one function each ------------------------------------------------------------------------ */

static int build_nothing(Request *request, PyObject *const *values)
{
    (void)request;
    (void)values;
    return 0;
}

static int build_busy(Request *request, PyObject *const *values)
{
    double seconds = PyFloat_AsDouble(values[0]);
    if (seconds == -1 && PyErr_Occurred())
        return -1;
    if (!(seconds >= 0 && seconds < 1e9)) {
        PyErr_Format(PyExc_ValueError, "seconds is out of range: %R", values[0]);
        return -1;
    }
    request->length = (uint64_t)(seconds * 1e9);
    return 0;
}

/* path, dir_fd last */
static int build_path(Request *request, PyObject *const *values)
{
    if (take_path(request, values[0]) < 0)
        return -1;
    return take_dir_fd(request, values[1], &request->fd);
}

static int build_open(Request *request, PyObject *const *values)
{
    request->flags = O_RDONLY;
    request->mode = 0666;
    if (take_path(request, values[0]) < 0 || take_u32(values[1], "flags", &request->flags) < 0 ||
        take_u32(values[2], "mode", &request->mode) < 0)
        return -1;
    return take_dir_fd(request, values[3], &request->fd);
}

static int build_mkdir(Request *request, PyObject *const *values)
{
    request->mode = 0777;
    if (take_path(request, values[0]) < 0 || take_u32(values[1], "mode", &request->mode) < 0)
        return -1;
    return take_dir_fd(request, values[2], &request->fd);
}

static int build_rename(Request *request, PyObject *const *values)
{
    bool is_bytes;
    if (take_path(request, values[0]) < 0 ||
        !(request->fspath2 = encode_path(values[1], &is_bytes)))
        return -1;
    request->path2 = Py_NewRef(values[1]);
    if (take_dir_fd(request, values[2], &request->fd) < 0)
        return -1;
    return take_dir_fd(request, values[3], &request->fd2);
}

static int build_fd(Request *request, PyObject *const *values)
{
    return take_fd(request, values[0]);
}

/* Errors name the descriptor that was given, as those of os.stat do. */
static int take_fd_as_name(Request *request, PyObject *file)
{
    if (take_fd(request, file) < 0)
        return -1;
    if (!request->path)
        request->path = Py_NewRef(file);
    return 0;
}

static int build_stat(Request *request, PyObject *const *values)
{
    if (is_path(values[0]))
        return build_path(request, values);
    if (values[1] && values[1] != Py_None) {
        PyErr_SetString(PyExc_ValueError, "dir_fd goes with a path, not with a descriptor");
        return -1;
    }
    request->op = PA_OP_FSTAT;
    return take_fd_as_name(request, values[0]);
}

static int build_statvfs(Request *request, PyObject *const *values)
{
    if (is_path(values[0]))
        return take_path(request, values[0]);
    request->op = PA_OP_FSTATVFS;
    return take_fd_as_name(request, values[0]);
}

static int build_readdir(Request *request, PyObject *const *values)
{
    if (build_path(request, values) < 0)
        return -1;
    request->fd2 = request->fd; /* the slot's fd becomes the open directory */
    return 0;
}

static int build_readdirx(Request *request, PyObject *const *values)
{
    PyObject *const path_and_dir[] = {values[0], values[2]};
    if (take_u32(values[1], "flags", &request->flags) < 0)
        return -1;
    return build_readdir(request, path_and_dir);
}

/* A descriptor or FileHandle is closed.  A file object of somebody else keeps its number until it
 * is closed itself: dup2 of a dead pipe end takes the place of what it had open. */
static int build_close(Request *request, PyObject *const *values)
{
    if (take_fd(request, values[0]) < 0)
        return -1;
    if (PyLong_Check(values[0]))
        return 0;
    if (FileHandle_Check(values[0])) {
        ((FileHandle *)values[0])->fd = -1;
        request->closes_handle = true;
        return 0;
    }
    request->op = PA_OP_REPLACE;
    request->fd2 = pool_dead_fd(request->pool);
    return request->fd2 < 0 ? -1 : 0;
}

/* fh, offset, length */
static int take_range(Request *request, PyObject *const *values, int64_t *length)
{
    int64_t offset = -1;
    if (take_fd(request, values[0]) < 0)
        return -1;
    if (values[1] && values[1] != Py_None &&
        take_number(values[1], "offset", 0, INT64_MAX, &offset) < 0)
        return -1;
    request->offset = offset;
    *length = -1;
    if (values[2] && values[2] != Py_None)
        return take_number(values[2], "length", 0, INT64_MAX, length);
    return 0;
}

static int take_data_offset(PyObject *value, Py_ssize_t size, Py_ssize_t *offset)
{
    int64_t n = 0;
    if (value && value != Py_None &&
        take_number(value, "dataoffset", PY_SSIZE_T_MIN, PY_SSIZE_T_MAX, &n) < 0)
        return -1;
    if (n < 0)
        n += size;
    if (n < 0 || n > size) {
        PyErr_Format(PyExc_ValueError, "dataoffset %R is outside the %zd bytes of data", value, size);
        return -1;
    }
    *offset = (Py_ssize_t)n;
    return 0;
}

/* Memory that workers see too needs no copy: ours, or whatever lies in ours. */
static bool find_shared(Request *request, const char *at, uint64_t size)
{
    request->arena_segment =
        pa_arena_find(request->pool->arena, at, size, &request->arena_offset);
    return request->arena_segment != PA_NO_SEGMENT;
}

/* A Buffer of another pool, or of the parent before a fork, is memory like any other here. */
static bool is_own_buffer(const Request *request, PyObject *data)
{
    uint64_t offset;
    if (!Buffer_Check(data) || ((Buffer *)data)->released)
        return false;
    const Buffer *buffer = (Buffer *)data;
    return pa_arena_find(request->pool->arena, buffer->block.at, (uint64_t)buffer->size,
                         &offset) != PA_NO_SEGMENT;
}

static void export_buffer(Request *request, PyObject *data)
{
    ((Buffer *)data)->exports++;
    request->target = Py_NewRef(data);
}

static int export_view(Request *request, PyObject *data, int flags)
{
    Py_buffer *view = PyMem_Malloc(sizeof *view);
    if (!view) {
        PyErr_NoMemory();
        return -1;
    }
    if (PyObject_GetBuffer(data, view, flags) < 0) {
        PyMem_Free(view);
        if (PyErr_ExceptionMatches(PyExc_BufferError))
            PyErr_Format(PyExc_TypeError, "data must be a contiguous%s buffer, not this %.100s",
                         flags & PyBUF_WRITABLE ? ", writable" : "", Py_TYPE(data)->tp_name);
        return -1;
    }
    request->view = view;
    request->target = Py_NewRef(data);
    return 0;
}

static int read_into(Request *request, PyObject *data, PyObject *data_offset)
{
    Py_ssize_t size;
    char *memory;
    if (is_own_buffer(request, data)) {
        export_buffer(request, data);
        size = ((Buffer *)data)->size;
        memory = ((Buffer *)data)->block.at;
    } else {
        if (export_view(request, data, PyBUF_WRITABLE) < 0)
            return -1;
        size = request->view->len;
        memory = request->view->buf;
        request->cuts_target = PyByteArray_Check(data);
    }
    if (take_data_offset(data_offset, size, &request->data_offset) < 0)
        return -1;
    if (request->cuts_target)
        return 0;
    if (request->length > (uint64_t)(size - request->data_offset)) {
        PyErr_Format(PyExc_ValueError, "%llu bytes do not fit behind dataoffset %zd of %zd bytes",
                     (unsigned long long)request->length, request->data_offset, size);
        return -1;
    }
    bool shared = find_shared(request, memory + request->data_offset, request->length);
    if (shared && request->view) { /* hold the export, but read in place */
        request->data_offset = 0;
        request->in_place = true;
    }
    return 0;
}

static int build_read(Request *request, PyObject *const *values)
{
    int64_t length;
    if (take_range(request, values, &length) < 0)
        return -1;
    if (length < 0) {
        PyErr_SetString(PyExc_TypeError, "length must be an integer, not None");
        return -1;
    }
    request->length = (uint64_t)length;
    if (!values[3] || values[3] == Py_None) {
        request->kind = RESULT_BYTES;
        if (length > PY_SSIZE_T_MAX / 2)
            PyErr_Format(PyExc_ValueError, "length is out of range: %R", values[2]);
        return PyErr_Occurred() ? -1 : 0;
    }
    return read_into(request, values[3], values[4]);
}

/* Copied now, so that the caller may use the memory again; large data without the lock. */
static int copy_in(Request *request, const char *from, uint64_t size)
{
    struct pa_block block;
    int error = pool_alloc(request->pool, size, true, &block);
    if (error) {
        errno = -error;
        PyErr_SetFromErrno(PyExc_OSError);
        return -1;
    }
    if (size >= 256u << 10) {
        Py_BEGIN_ALLOW_THREADS
        memcpy(block.at, from, size);
        Py_END_ALLOW_THREADS
    } else {
        memcpy(block.at, from, size);
    }
    request->block = block;
    request->arena_segment =
        pa_arena_find(request->pool->arena, block.at, size, &request->arena_offset);
    return 0;
}

static int build_write(Request *request, PyObject *const *values)
{
    int64_t length;
    Py_ssize_t size;
    const char *memory;
    if (take_range(request, values, &length) < 0)
        return -1;
    if (is_own_buffer(request, values[3])) {
        export_buffer(request, values[3]);
        size = ((Buffer *)values[3])->size;
        memory = ((Buffer *)values[3])->block.at;
    } else {
        if (export_view(request, values[3], PyBUF_SIMPLE) < 0)
            return -1;
        size = request->view->len;
        memory = request->view->buf;
    }
    if (take_data_offset(values[4], size, &request->data_offset) < 0)
        return -1;
    int64_t rest = size - request->data_offset;
    if (length > rest) {
        PyErr_Format(PyExc_ValueError, "length %lld is more than the %lld bytes behind dataoffset",
                     (long long)length, (long long)rest);
        return -1;
    }
    request->length = (uint64_t)(length < 0 ? rest : length);
    memory += request->data_offset;
    if (request->length == 0 || find_shared(request, memory, request->length)) {
        request->in_place = true;
        return 0;
    }
    if (copy_in(request, memory, request->length) < 0)
        return -1;
    PyBuffer_Release(request->view);
    PyMem_Free(request->view);
    request->view = NULL;
    Py_CLEAR(request->target);
    return 0;
}

/* -- the table -------------------------------------------------------------------------------- */

enum {
    NOP, BUSY, OPEN, CLOSE, READ, WRITE, FSYNC, FDATASYNC, STAT, LSTAT, STATVFS, UNLINK, RMDIR,
    MKDIR, RENAME, READDIR, READDIRX, NSPECS
};

static const struct spec specs[NSPECS] = {
    [NOP] = {"aio_nop", PA_OP_NOP, RESULT_NOTHING, 0, 0, {NULL}, build_nothing},
    [BUSY] = {"aio_busy", PA_OP_BUSY, RESULT_NOTHING, 1, 1, {"seconds"}, build_busy},
    [OPEN] = {"aio_open", PA_OP_OPEN, RESULT_FILE, 1, 3, {"path", "flags", "mode", "dir_fd"},
              build_open},
    [CLOSE] = {"aio_close", PA_OP_CLOSE, RESULT_STATUS, 1, 1, {"fh"}, build_close},
    [READ] = {"aio_read", PA_OP_READ, RESULT_COUNT, 3, 5,
              {"fh", "offset", "length", "data", "dataoffset"}, build_read},
    [WRITE] = {"aio_write", PA_OP_WRITE, RESULT_COUNT, 4, 5,
               {"fh", "offset", "length", "data", "dataoffset"}, build_write},
    [FSYNC] = {"aio_fsync", PA_OP_FSYNC, RESULT_STATUS, 1, 1, {"fh"}, build_fd},
    [FDATASYNC] = {"aio_fdatasync", PA_OP_FDATASYNC, RESULT_STATUS, 1, 1, {"fh"}, build_fd},
    [STAT] = {"aio_stat", PA_OP_STAT, RESULT_STAT, 1, 1, {"fh_or_path", "dir_fd"}, build_stat},
    [LSTAT] = {"aio_lstat", PA_OP_LSTAT, RESULT_STAT, 1, 1, {"fh_or_path", "dir_fd"}, build_stat},
    [STATVFS] = {"aio_statvfs", PA_OP_STATVFS, RESULT_STATVFS, 1, 1, {"fh_or_path"},
                 build_statvfs},
    [UNLINK] = {"aio_unlink", PA_OP_UNLINK, RESULT_STATUS, 1, 1, {"path", "dir_fd"}, build_path},
    [RMDIR] = {"aio_rmdir", PA_OP_RMDIR, RESULT_STATUS, 1, 1, {"path", "dir_fd"}, build_path},
    [MKDIR] = {"aio_mkdir", PA_OP_MKDIR, RESULT_STATUS, 1, 2, {"path", "mode", "dir_fd"},
               build_mkdir},
    [RENAME] = {"aio_rename", PA_OP_RENAME, RESULT_STATUS, 2, 2,
                {"src", "dst", "src_dir_fd", "dst_dir_fd"}, build_rename},
    [READDIR] = {"aio_readdir", PA_OP_READDIR, RESULT_NAMES, 1, 1, {"path", "dir_fd"},
                 build_readdir},
    [READDIRX] = {"aio_readdirx", PA_OP_READDIR, RESULT_ENTRIES, 2, 2, {"path", "flags", "dir_fd"},
                  build_readdirx},
};

/* Interned names, for keywords. */
static PyObject *names[NSPECS][MOST_PARAMETERS];
static PyObject *name_callback, *name_pri, *name_pool;

int functions_ready(void)
{
    for (int s = 0; s < NSPECS; s++)
        for (int p = 0; p < MOST_PARAMETERS && specs[s].parameters[p]; p++)
            if (!(names[s][p] = PyUnicode_InternFromString(specs[s].parameters[p])))
                return -1;
    name_callback = PyUnicode_InternFromString("callback");
    name_pri = PyUnicode_InternFromString("pri");
    name_pool = PyUnicode_InternFromString("pool");
    return name_callback && name_pri && name_pool ? 0 : -1;
}

struct call {
    PyObject *values[MOST_PARAMETERS];
    PyObject *callback, *pri, *pool;
};

static bool same_name(PyObject *a, PyObject *b)
{
    return a == b || PyUnicode_Compare(a, b) == 0;
}

static PyObject **place_of(int which, struct call *call, PyObject *name)
{
    for (int p = 0; p < MOST_PARAMETERS && names[which][p]; p++)
        if (same_name(names[which][p], name))
            return &call->values[p];
    if (same_name(name, name_callback))
        return &call->callback;
    if (same_name(name, name_pri))
        return &call->pri;
    return same_name(name, name_pool) ? &call->pool : NULL;
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

static PyObject *submit(int which, PyObject *const *args, Py_ssize_t count, PyObject *keywords)
{
    const struct spec *spec = &specs[which];
    struct call call = {.pool = NULL};
    int priority;
    if (parse(which, &call, args, count, keywords) < 0 || take_priority(call.pri, &priority) < 0)
        return NULL;
    Pool *pool = pool_of(call.pool);
    if (!pool || pool_ensure_spawner(pool) < 0)
        return NULL;
    Request *request = request_new(pool, spec->op, spec->kind);
    if (!request)
        return NULL;
    request->pri = (int8_t)priority;
    request->callback = Py_XNewRef(call.callback);
    /* Making the arguments may run the program's code: the pool may be closed by then. */
    if (spec->build(request, call.values) < 0 || pool_check(pool) < 0) {
        if (request->closes_handle)
            ((FileHandle *)request->file)->fd = request->fd;
        Py_DECREF(request);
        return NULL;
    }
    priority_reset();
    queue_request(pool, request);
    return (PyObject *)request;
}

#define FUNCTION(name, which)                                                                      \
    static PyObject *name(PyObject *module, PyObject *const *args, Py_ssize_t count,               \
                          PyObject *keywords)                                                      \
    {                                                                                              \
        (void)module;                                                                              \
        return submit(which, args, count, keywords);                                               \
    }
FUNCTION(aio_nop, NOP)
FUNCTION(aio_busy, BUSY)
FUNCTION(aio_open, OPEN)
FUNCTION(aio_close, CLOSE)
FUNCTION(aio_read, READ)
FUNCTION(aio_write, WRITE)
FUNCTION(aio_fsync, FSYNC)
FUNCTION(aio_fdatasync, FDATASYNC)
FUNCTION(aio_stat, STAT)
FUNCTION(aio_lstat, LSTAT)
FUNCTION(aio_statvfs, STATVFS)
FUNCTION(aio_unlink, UNLINK)
FUNCTION(aio_rmdir, RMDIR)
FUNCTION(aio_mkdir, MKDIR)
FUNCTION(aio_rename, RENAME)
FUNCTION(aio_readdir, READDIR)
FUNCTION(aio_readdirx, READDIRX)

#define ROW(name, signature, text) ROW_AT(name, signature, "", text)
#define ROW_AT(name, signature, keywords, text)                                                    \
    {#name, (PyCFunction)(void (*)(void))name, METH_FASTCALL | METH_KEYWORDS,                      \
     #name "(" signature "callback=None, *, " keywords "pri=None, pool=None)\n--\n\n" text}

PyMethodDef aio_functions[] = {
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
        "A FileHandle counts as closed at once. Another file object is not closed itself: what it\n"
        "has open is, and its descriptor reads as end of file until the object is closed too."),
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
    ROW(aio_fsync, "fh, ", "Write a file's data and metadata to the disk. Yields 0. See fsync(2)."),
    ROW(aio_fdatasync, "fh, ",
        "Write a file's data to the disk, and of its metadata what reading them needs. Yields 0.\n"
        "See fdatasync(2)."),
    ROW_AT(aio_stat, "fh_or_path, ", "dir_fd=None, ",
        "Yields os.stat_result (None to the callback on failure); follows symlinks. Keyword\n"
        "`dir_fd` as in os.stat. See stat(2)."),
    ROW_AT(aio_lstat, "fh_or_path, ", "dir_fd=None, ",
        "Yields os.stat_result (None to the callback on failure) of the path itself, if it is a\n"
        "symlink too. Keyword `dir_fd` as in os.lstat. See lstat(2)."),
    ROW(aio_statvfs, "fh_or_path, ",
        "Yields os.statvfs_result of the file system (None to the callback on failure).\n"
        "See statvfs(3)."),
    ROW_AT(aio_unlink, "path, ", "dir_fd=None, ",
        "Remove a name. Yields 0, or -1 to the callback. Keyword `dir_fd`. See unlink(2)."),
    ROW_AT(aio_rmdir, "path, ", "dir_fd=None, ",
        "Remove an empty directory. Yields 0, or -1 to the callback. Keyword `dir_fd`.\n"
        "See rmdir(2)."),
    ROW_AT(aio_mkdir, "path, mode=0o777, ", "dir_fd=None, ",
        "Make a directory; `mode` less the umask at that time. Yields 0, or -1 to the callback.\n"
        "Keyword `dir_fd`. See mkdir(2)."),
    ROW_AT(aio_rename, "src, dst, ", "src_dir_fd=None, dst_dir_fd=None, ",
        "Rename, replacing what `dst` names. Yields 0, or -1 to the callback. Keywords\n"
        "`src_dir_fd`, `dst_dir_fd`. See rename(2)."),
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
    {NULL, NULL, 0, NULL},
};
