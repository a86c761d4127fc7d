/* procaio/csrc/results.c - what a slot holds, turned into Python objects.
 *
 * Slot and block are shared memory, where a worker that has gone wild may write whatever it likes, at
 * any time: a number is read once, and checked against what was asked for before it is used.  What no
 * worker of ours writes fails the request (result_garbage()).
 */
#include <fcntl.h>
#include <linux/fiemap.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "results.h"

static PyTypeObject *stat_type, *statvfs_type;
static PyObject *minus_one, *zero;

PyTypeObject *Statx_Type;

static PyStructSequence_Field statx_fields[] = {
    {"stx_mask", "which fields are filled in (STATX_*)"},
    {"stx_blksize", "block size for efficient I/O"},
    {"stx_attributes", "STATX_ATTR_*"},
    {"stx_attributes_mask", "which attributes the file system knows"},
    {"stx_nlink", "hard links"},
    {"stx_uid", "owner"},
    {"stx_gid", "group"},
    {"stx_mode", "type and permissions"},
    {"stx_ino", "inode number"},
    {"stx_size", "bytes"},
    {"stx_blocks", "blocks of 512 bytes"},
    {"stx_dev", "device of the file system"},
    {"stx_rdev", "device, of a device file"},
    {"stx_atime_ns", "last access, ns since the epoch"},
    {"stx_btime_ns", "creation, ns since the epoch"},
    {"stx_ctime_ns", "last change of metadata, ns since the epoch"},
    {"stx_mtime_ns", "last modification, ns since the epoch"},
    {NULL, NULL},
};

static PyStructSequence_Desc statx_description = {
    .name = "procaio.statx_result",
    .doc = "What aio_statx yields: struct statx of statx(2).",
    .fields = statx_fields,
    .n_in_sequence = 17,
};

int results_ready(void)
{
    PyObject *os = PyImport_ImportModule("os");
    if (!os)
        return -1;
    stat_type = (PyTypeObject *)PyObject_GetAttrString(os, "stat_result");
    statvfs_type = (PyTypeObject *)PyObject_GetAttrString(os, "statvfs_result");
    Py_DECREF(os);
    minus_one = PyLong_FromLong(-1);
    zero = PyLong_FromLong(0);
    Statx_Type = PyStructSequence_NewType(&statx_description);
    return stat_type && statvfs_type && minus_one && zero && Statx_Type ? 0 : -1;
}

/* New value of a request whose worker has written what cannot be: none. */
PyObject *result_garbage(Request *request)
{
    request->garbled = true;
    request->error = EIO;
    return NULL;
}

static int64_t result_of(const struct pa_slot *slot)
{
    return __atomic_load_n(&slot->result, __ATOMIC_RELAXED);
}

static void copy_out(void *to, const void *from, size_t size)
{
    if (size < LARGE_COPY) {
        memcpy(to, from, size);
        return;
    }
    Py_BEGIN_ALLOW_THREADS
    memcpy(to, from, size);
    Py_END_ALLOW_THREADS
}

int result_append(PyObject *list, PyObject *item)
{
    if (!item)
        return -1;
    int failed = PyList_Append(list, item);
    Py_DECREF(item);
    return failed;
}

/* -- stat ------------------------------------------------------------------------------------- */

/* The places of os.stat_result beyond its ten visible fields; a test compares them with os.stat. */
enum { STAT_FLOATS = 10, STAT_NS = 13, STAT_BLKSIZE = 16, STAT_BLOCKS, STAT_RDEV };

int64_t result_in_ns(int64_t seconds, uint32_t ns)
{
    int64_t total;
    if (__builtin_mul_overflow(seconds, INT64_C(1000000000), &total) ||
        __builtin_add_overflow(total, (int64_t)ns, &total))
        return seconds < 0 ? INT64_MIN : INT64_MAX;
    return total;
}

static PyObject *nanoseconds(int64_t seconds, uint32_t ns)
{
    long long total;
    if (!__builtin_mul_overflow(seconds, 1000000000LL, &total) &&
        !__builtin_add_overflow(total, (long long)ns, &total))
        return PyLong_FromLongLong(total);
    PyObject *billion = PyLong_FromLong(1000000000), *s = PyLong_FromLongLong(seconds);
    PyObject *product = billion && s ? PyNumber_Multiply(s, billion) : NULL;
    PyObject *rest = PyLong_FromUnsignedLong(ns);
    PyObject *sum = product && rest ? PyNumber_Add(product, rest) : NULL;
    Py_XDECREF(billion);
    Py_XDECREF(s);
    Py_XDECREF(product);
    Py_XDECREF(rest);
    return sum;
}

PyObject *result_of_stat(const struct pa_stat *st)
{
    PyObject *result = PyStructSequence_New(stat_type);
    if (!result)
        return NULL;
    int64_t seconds[3] = {st->atime_s, st->mtime_s, st->ctime_s};
    uint32_t fraction[3] = {st->atime_ns, st->mtime_ns, st->ctime_ns};
    bool whole = true;
#define SET(at, value)                                                                             \
    do {                                                                                           \
        PyObject *item = (value);                                                                  \
        whole = whole && item;                                                                     \
        PyStructSequence_SetItem(result, at, item);                                                \
    } while (0)
    SET(0, PyLong_FromUnsignedLong(st->mode));
    SET(1, PyLong_FromUnsignedLongLong(st->ino));
    SET(2, PyLong_FromUnsignedLongLong(st->dev));
    SET(3, PyLong_FromUnsignedLongLong(st->nlink));
    SET(4, st->uid == UINT32_MAX ? PyLong_FromLong(-1) : PyLong_FromUnsignedLong(st->uid));
    SET(5, st->gid == UINT32_MAX ? PyLong_FromLong(-1) : PyLong_FromUnsignedLong(st->gid));
    SET(6, PyLong_FromLongLong(st->size));
    for (int i = 0; i < 3; i++) {
        SET(7 + i, PyLong_FromLongLong(seconds[i]));
        SET(STAT_FLOATS + i, PyFloat_FromDouble((double)seconds[i] + 1e-9 * fraction[i]));
        SET(STAT_NS + i, nanoseconds(seconds[i], fraction[i]));
    }
    SET(STAT_BLKSIZE, PyLong_FromLongLong(st->blksize));
    SET(STAT_BLOCKS, PyLong_FromLongLong(st->blocks));
    SET(STAT_RDEV, PyLong_FromUnsignedLongLong(st->rdev));
    if (!whole)
        Py_CLEAR(result);
    return result;
}

PyObject *result_take_stat(const struct pa_slot *slot)
{
    struct pa_stat st;
    memcpy(&st, slot->payload, sizeof st);
    return result_of_stat(&st);
}

/* A file of several names: nothing was done to it, and this tells it from others. */
static PyObject *take_entry(const Request *request, const struct pa_slot *slot, int64_t size)
{
    struct pa_stat st;
    memcpy(&st, slot->payload, sizeof st);
    if (request->tells_links && st.nlink > 1)
        return Py_BuildValue("KK", (unsigned long long)st.dev, (unsigned long long)st.ino);
    return PyLong_FromLongLong(size);
}

static PyObject *take_statvfs(const struct pa_slot *slot)
{
    struct pa_statvfs st;
    memcpy(&st, slot->payload, sizeof st);
    PyObject *result = PyStructSequence_New(statvfs_type);
    if (!result)
        return NULL;
    bool whole = true;
    const uint64_t fields[] = {st.bsize, st.frsize, st.blocks, st.bfree, st.bavail, st.files,
                               st.ffree, st.favail, st.flag,   st.namemax, st.fsid};
    for (Py_ssize_t i = 0; i < (Py_ssize_t)(sizeof fields / sizeof fields[0]); i++)
        SET(i, PyLong_FromUnsignedLongLong(fields[i]));
#undef SET
    if (!whole)
        Py_CLEAR(result);
    return result;
}

/* -- steps ------------------------------------------------------------------------------------- */

/* Append what this step brought to what the steps before it did. */
static int gather_from(Request *request, const char *from, size_t size)
{
    char *grown = realloc(request->gathered, request->gathered_size + size);
    if (!grown)
        return -1;
    memcpy(grown + request->gathered_size, from, size);
    request->gathered = grown;
    request->gathered_size += size;
    return 0;
}

int result_gather(Request *request, size_t size)
{
    return gather_from(request, request->block.at, size);
}

/* The next extents are looked for where these end. */
static bool fiemap_is_full(const Request *request, size_t count)
{
    return (request->length - sizeof(struct fiemap)) / sizeof(struct fiemap_extent) == count;
}

static bool fiemap_wants_more(Request *request, size_t count)
{
    struct fiemap_extent last;
    const char *extents = request->block.at + sizeof(struct fiemap);
    if (!request->wants_all || !fiemap_is_full(request, count) || request->cancelled)
        return false;
    memcpy(&last, extents + (count - 1) * sizeof last, sizeof last);
    uint64_t next = last.fe_logical + last.fe_length;
    uint64_t passed = next - (uint64_t)request->offset;
    if (last.fe_flags & FIEMAP_EXTENT_LAST || next <= (uint64_t)request->offset ||
        next > INT64_MAX || passed >= request->limit)
        return false;
    if (gather_from(request, extents, count * sizeof last) < 0) {
        request->error = ENOMEM;
        return false;
    }
    request->offset = (int64_t)next;
    request->limit -= passed;
    return true;
}

/* How large a block the next step gets.  A file says how much is left of it, and gets one byte more,
 * so that this step finds its end; but no more than is still asked for. */
static uint64_t next_step(const Request *request, const struct pa_slot *slot, uint64_t result)
{
    enum { LARGE_STEP = 1 << 20 };
    const uint64_t most = UINT64_C(1) << 30;
    if (request->op != PA_OP_LOAD)
        return LARGE_STEP;
    uint64_t rest, step = LARGE_STEP;
    uint64_t got = request->gathered_size + result;
    uint64_t wanted = request->limit > got ? request->limit - got : 1;
    memcpy(&rest, slot->payload, sizeof rest);
    if (rest > 0)
        step = rest < most ? rest + 1 : most;
    return step < wanted ? step : wanted;
}

bool result_may_be_a_step(const Request *request, const struct pa_slot *slot)
{
    int64_t result = result_of(slot);
    if (request->op == PA_OP_FIEMAP)
        return request->wants_all && result > 0 && fiemap_is_full(request, (size_t)result);
    return slot->call_flags & PA_MORE;
}

/* The descriptor is the program's to close from now on. */
bool result_keep_open(Request *request, int fd)
{
    bool meant = request->step_open ? fd == request->fd : fd >= 0 && orphans_is_one(fd);
    if (!meant) {
        result_garbage(request);
        return false;
    }
    request->fd = fd;
    request->step_open = true;
    return true;
}

/* Making memory may let other threads run.  They see a request that is about to get a slot: so
 * nobody takes its result once more when its worker dies, or ends it with the pool. */
static void make_larger(Pool *pool, Request *request, uint64_t size, struct pa_block *block)
{
    request->place = AT_NEW;
    int error = pool_alloc(pool, size, size <= PA_LARGEST_BLOCK, block);
    request->place = AT_SLOT;
    PyErr_Clear();
    if (request->error) /* aborted meanwhile */
        return;
    request->error = error         ? ENOMEM
                     : pool->lost   ? EBADF /* nobody would come to it any more */
                     : pool->closed ? ECANCELED
                                    : 0;
}

/* What did not fit: keep what came, and send the request on with a larger block. */
bool result_wants_more(Pool *pool, Request *request, struct pa_slot *slot)
{
    int64_t result = result_of(slot);
    if (request->op == PA_OP_FIEMAP)
        return result > 0 && fiemap_wants_more(request, (size_t)result);
    if (!(slot->call_flags & PA_MORE) || result < 0 ||
        (request->op != PA_OP_READDIR && request->op != PA_OP_LOAD) ||
        !result_keep_open(request, slot->fd))
        return false;
    if (request->cancelled || (uint64_t)result > request->length)
        return false;
    uint64_t step = next_step(request, slot, (uint64_t)result);
    struct pa_block larger = {.at = NULL};
    if (result_gather(request, (size_t)result) < 0)
        request->error = ENOMEM;
    else if (request->block.size < step)
        make_larger(pool, request, step, &larger);
    if (request->cancelled || request->error) {
        pa_arena_free(pool->arena, &larger);
        return false;
    }
    if (larger.at) {
        pa_arena_free(pool->arena, &request->block);
        request->block = larger;
        request->arena_segment =
            pa_arena_find(pool->arena, larger.at, step, &request->arena_offset);
    }
    request->length = step;
    return true;
}

/* -- everything else -------------------------------------------------------------------------- */

/* What the steps so far have brought, and `size` bytes of the block. */
static void copy_all_out(const Request *request, char *to, size_t size)
{
    if (request->gathered_size > 0)
        copy_out(to, request->gathered, request->gathered_size);
    if (size > 0)
        copy_out(to + request->gathered_size, request->block.at, size);
}

static PyObject *take_bytes(const Request *request, size_t size)
{
    size_t total = request->gathered_size + size;
    PyObject *bytes = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)total);
    if (bytes)
        copy_all_out(request, PyBytes_AS_STRING(bytes), size);
    return bytes;
}

/* A bytearray gets the size of what it holds now, and is held while other threads run. */
static PyObject *take_into_bytearray(Request *request, size_t size)
{
    size_t total = request->gathered_size + size;
    Py_buffer view;
    PyBuffer_Release(request->view);
    PyMem_Free(request->view);
    request->view = NULL;
    if (PyByteArray_Resize(request->target, request->data_offset + (Py_ssize_t)total) < 0 ||
        PyObject_GetBuffer(request->target, &view, PyBUF_WRITABLE) < 0)
        return NULL;
    copy_all_out(request, (char *)view.buf + request->data_offset, size);
    PyBuffer_Release(&view);
    return PyLong_FromSize_t(total);
}

static void take_argument_back(Request *request)
{
    char *to = request->view ? request->view->buf : ((Buffer *)request->target)->block.at;
    request->error = copy_to_owner(request->target, to, request->block.at, request->length);
}

/* Into the caller's own memory, which is held by an export until here. */
static PyObject *take_into_target(Request *request, size_t size)
{
    if (request->cuts_target)
        return take_into_bytearray(request, size);
    if (request->has_argument) { /* the whole of it, whatever the call has returned */
        take_argument_back(request);
    } else if (request->view && !request->in_place) {
        request->error = copy_to_owner(request->target,
                                       (char *)request->view->buf + request->data_offset,
                                       request->block.at, size);
    }
    if (request->error)
        return NULL;
    return PyLong_FromSize_t(size);
}

/* A path that cannot be decoded is told as the file system's encoding always does (PEP 383). */
static PyObject *take_link(const Request *request, size_t size)
{
    if (request->names_are_bytes)
        return PyBytes_FromStringAndSize(request->block.at, (Py_ssize_t)size);
    return PyUnicode_DecodeFSDefaultAndSize(request->block.at, (Py_ssize_t)size);
}

static PyObject *take_statx(const Request *request)
{
    struct statx st;
    memcpy(&st, request->block.at, sizeof st);
    PyObject *result = PyStructSequence_New(Statx_Type);
    if (!result)
        return NULL;
    const struct statx_timestamp *times[] = {&st.stx_atime, &st.stx_btime, &st.stx_ctime,
                                             &st.stx_mtime};
    const uint64_t numbers[] = {
        st.stx_mask, st.stx_blksize, st.stx_attributes, st.stx_attributes_mask, st.stx_nlink,
        st.stx_uid, st.stx_gid, st.stx_mode, st.stx_ino, st.stx_size, st.stx_blocks,
        makedev(st.stx_dev_major, st.stx_dev_minor), makedev(st.stx_rdev_major, st.stx_rdev_minor),
    };
    Py_ssize_t at = 0;
    for (size_t i = 0; i < sizeof numbers / sizeof numbers[0]; i++)
        PyStructSequence_SetItem(result, at++, PyLong_FromUnsignedLongLong(numbers[i]));
    for (size_t i = 0; i < 4; i++)
        PyStructSequence_SetItem(result, at++, nanoseconds(times[i]->tv_sec, times[i]->tv_nsec));
    for (Py_ssize_t i = 0; i < at; i++)
        if (!PyStructSequence_GetItem(result, i)) {
            Py_DECREF(result);
            return NULL;
        }
    return result;
}

/* Names, each with a NUL behind it. */
static PyObject *take_attributes(const Request *request, size_t size)
{
    const char *name = request->block.at, *end = name + size;
    PyObject *list = PyList_New(0);
    while (list && name < end) {
        size_t length = strnlen(name, (size_t)(end - name));
        if (result_append(list, PyUnicode_DecodeFSDefaultAndSize(name, (Py_ssize_t)length)) < 0)
            Py_CLEAR(list);
        name += length + 1;
    }
    return list;
}

static int append_extents(PyObject *list, const char *extents, size_t count)
{
    struct fiemap_extent extent;
    for (size_t i = 0; i < count; i++) {
        memcpy(&extent, extents + i * sizeof extent, sizeof extent);
        PyObject *tuple = Py_BuildValue("KKKI", (unsigned long long)extent.fe_logical,
                                        (unsigned long long)extent.fe_physical,
                                        (unsigned long long)extent.fe_length, extent.fe_flags);
        if (result_append(list, tuple) < 0)
            return -1;
    }
    return 0;
}

static PyObject *take_extents(Request *request, size_t count)
{
    const size_t size = sizeof(struct fiemap_extent);
    size_t room = (request->length - sizeof(struct fiemap)) / size;
    if (count > room)
        return result_garbage(request);
    PyObject *list = PyList_New(0);
    if (!list)
        return NULL;
    if (append_extents(list, request->gathered, request->gathered_size / size) < 0 ||
        append_extents(list, request->block.at + sizeof(struct fiemap), count) < 0)
        Py_CLEAR(list);
    return list;
}

/* -- descriptors ------------------------------------------------------------------------------- */

/* A worker has opened it, for this request or another one, and nobody has taken it over.  O_PATH leaves
 * no room for the mark that tells so. */
bool result_is_opened(const Request *request, int fd)
{
    bool may_be_path = request->kind == RESULT_FILE      ? request->flags & O_PATH
                       : request->kind == RESULT_LISTING ? request->flags & PA_TREE_UNREAD
                                                         : false;
    int flags = fcntl(fd, F_GETFL);
    return flags >= 0 && flags & O_PATH ? may_be_path : orphans_is_one(fd);
}

static PyObject *take_file(Request *request, int64_t result)
{
    int fd = (int)result;
    if (fd != result || !result_is_opened(request, fd))
        return result_garbage(request);
    PyObject *handle = filehandle_new(fd, (int)request->flags, request->path);
    if (!handle) {
        close(fd);
        return NULL;
    }
    orphans_adopt(fd);
    return handle;
}

/* Those whose result says how much of the block, of the caller's memory or of what was asked for is
 * meant. */
static bool fills_block(const Request *request)
{
    return request->op == PA_OP_READ || request->op == PA_OP_WRITE ||
           request->op == PA_OP_READDIR || request->op == PA_OP_READLINK ||
           request->op == PA_OP_LOAD || request->op == PA_OP_REALPATH ||
           request->op == PA_OP_GETXATTR || request->op == PA_OP_LISTXATTR ||
           request->op == PA_OP_TYPES || request->op == PA_OP_SENDFILE ||
           request->op == PA_OP_COPY_FILE_RANGE || request->op == PA_OP_SPLICE ||
           request->op == PA_OP_TEE || request->kind == RESULT_LISTING ||
           request->kind == RESULT_REMOVAL;
}

static PyObject *take_container(Request *request, const struct pa_slot *slot, int64_t result)
{
    PyObject *value = NULL;
    int collected = garbage_stays();
    switch ((enum result_kind)request->kind) {
    case RESULT_STAT:
        value = result_take_stat(slot);
        break;
    case RESULT_STATVFS:
        value = take_statvfs(slot);
        break;
    case RESULT_STATX:
        value = take_statx(request);
        break;
    case RESULT_ATTRIBUTES:
        value = take_attributes(request, (size_t)result);
        break;
    case RESULT_EXTENTS:
        value = take_extents(request, (size_t)result);
        break;
    case RESULT_LISTING:
    case RESULT_REMOVAL:
        value = listing_take_tree(request, slot, (size_t)result);
        break;
    case RESULT_ENTRY:
        value = take_entry(request, slot, result);
        break;
    case RESULT_MANY:
        value = batch_take(request, result);
        break;
    default: /* a group has no slot, and result_take() has seen to the others */
        Py_UNREACHABLE();
    }
    garbage_goes(collected);
    return value;
}

/* No code of the program runs meanwhile: it might wait for this very request, or close the pool. */
PyObject *result_take(Request *request, const struct pa_slot *slot)
{
    int64_t result = result_of(slot);
    if (result <= -4096 || (result > 0 && fills_block(request) &&
                            (uint64_t)result > request->length))
        return result_garbage(request);
    if (result < 0) {
        request->error = (int)-result;
        return NULL;
    }
    switch ((enum result_kind)request->kind) {
    case RESULT_NOTHING:
        return Py_NewRef(Py_None);
    case RESULT_STATUS:
        return Py_NewRef(zero);
    case RESULT_COUNT:
        return request->target ? take_into_target(request, (size_t)result)
                               : PyLong_FromLongLong(result);
    case RESULT_BYTES:
        return take_bytes(request, (size_t)result);
    case RESULT_FILE:
        return take_file(request, result);
    case RESULT_LINK:
        return take_link(request, (size_t)result);
    case RESULT_BOOL:
        return PyBool_FromLong(result != 0);
    case RESULT_ARGUMENT:
        return PyBytes_FromStringAndSize(request->block.at, (Py_ssize_t)request->length);
    case RESULT_NAMES:
    case RESULT_ENTRIES:
        return listing_take(request, (size_t)result);
    default:
        return take_container(request, slot, result);
    }
}

/* New reference: what the callback of a failed request gets. */
PyObject *result_on_failure(const Request *request)
{
    if (request->kind == RESULT_STATUS || request->kind == RESULT_COUNT ||
        request->kind == RESULT_ENTRY)
        return Py_NewRef(minus_one);
    if (request->kind == RESULT_ENTRIES)
        return Py_BuildValue("OI", Py_None, listing_flags(request, false));
    return Py_NewRef(Py_None);
}

/* Nobody wants it: what must not be lost with it is released. */
void result_discard(Request *request, const struct pa_slot *slot)
{
    int fd = -1;
    int64_t result = result_of(slot);
    if (result < 0)
        return;
    if (request->kind == RESULT_FILE) {
        fd = result <= INT32_MAX ? (int)result : INT32_MAX;
    } else if (request->kind == RESULT_LISTING || request->kind == RESULT_REMOVAL) {
        struct pa_tree_answer answer;
        memcpy(&answer, slot->payload, sizeof answer);
        fd = answer.fd;
    }
    if (fd >= 0 && result_is_opened(request, fd))
        orphans_close(request->pool, fd);
    else if (fd >= 0)
        request->garbled = true;
}
