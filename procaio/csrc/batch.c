/* procaio/csrc/batch.c - batches: many items as one request, without an object for each on the way.
 *
 * procaio/_batches.py cuts a batch into chunks, each a request of its own; workers/calls_many.c
 * does them.  The chunks of a batch have this in common, a tuple:
 *
 *   bytes   the items: paths, each with a NUL behind it, or struct pa_many_read
 *   bytes   n + 1 numbers of 64 bits: where each path begins; or how many bytes the reads before
 *           each are to bring
 *   names   what the program gave: errors name it, and its descriptors stay open
 *   bool    the outcome is records (below), not a list with an object for each item
 *
 * A chunk gives what became of its first items, of one at least: as many as were done.  False
 * stands for a file that no chunk has room for.  Invariants: `begun` items of the block's table are
 * done and are not done again, whoever died; the program takes lengths and positions from its own
 * copy, and from the table only what lies within the block.
 */
#include <fcntl.h>

#include "arguments.h"
#include "builders.h"

#define MOST_ITEMS (1 << 20)  /* of a chunk */
#define LOAD_BLOCK (1u << 20) /* paths, table and data of a chunk of files */
#define LEAST_FOR_DATA (64u << 10)

enum { ITEMS, ENDS, NAMES, AS_RECORDS, NPARTS };

/* What arrays have for each item; procaio/_batches.py has the same as types of numpy. */
struct stat_record {
    uint64_t ino, dev, nlink, rdev;
    int64_t size, blocks, blksize;
    int64_t atime_ns, mtime_ns, ctime_ns;
    uint32_t mode, uid, gid;
    int32_t err;
};
static_assert(sizeof(struct stat_record) == 96, "no holes");

struct size_record {
    int64_t size;
    int32_t err;
    int32_t unused;
};
static_assert(sizeof(struct size_record) == 16, "no holes");

/* -- packing ----------------------------------------------------------------------------------- */

struct packing {
    PyObject *items, *ends;
    size_t used;
    Py_ssize_t count; /* items so far */
};

static uint64_t *ends_of(PyObject *bytes)
{
    return (uint64_t *)(void *)PyBytes_AS_STRING(bytes);
}

static int packing_begin(struct packing *self, Py_ssize_t count, Py_ssize_t size)
{
    self->used = 0;
    self->count = 0;
    self->ends = NULL;
    if (count > PY_SSIZE_T_MAX / 64) {
        self->items = PyErr_NoMemory();
        return -1;
    }
    self->items = PyBytes_FromStringAndSize(NULL, size);
    self->ends = PyBytes_FromStringAndSize(NULL, (count + 1) * (Py_ssize_t)sizeof(uint64_t));
    if (self->ends)
        ends_of(self->ends)[0] = 0;
    return self->items && self->ends ? 0 : -1;
}

/* New tuple of both; NULL if it has failed. */
static PyObject *packing_end(struct packing *self, bool failed)
{
    PyObject *both = NULL;
    if (!failed && _PyBytes_Resize(&self->items, (Py_ssize_t)self->used) == 0)
        both = PyTuple_Pack(2, self->items, self->ends);
    Py_XDECREF(self->items);
    Py_XDECREF(self->ends);
    return both;
}

static int packing_add(struct packing *self, const char *text, size_t length)
{
    if (memchr(text, '\0', length)) {
        PyErr_SetString(PyExc_ValueError, "embedded null byte in a path");
        return -1;
    }
    if (length > LONGEST_PATH)
        length = LONGEST_PATH;
    size_t room = (size_t)PyBytes_GET_SIZE(self->items);
    if (room - self->used <= length &&
        _PyBytes_Resize(&self->items, (Py_ssize_t)(2 * room + length + 1)) < 0)
        return -1;
    char *to = PyBytes_AS_STRING(self->items) + self->used;
    memcpy(to, text, length);
    to[length] = '\0';
    self->used += length + 1;
    ends_of(self->ends)[++self->count] = self->used;
    return 0;
}

static int packing_add_object(struct packing *self, PyObject *path)
{
    bool is_bytes;
    Py_ssize_t length;
    const char *text;
    PyObject *encoded = encode_path(path, &is_bytes);
    if (!encoded)
        return -1;
    if (PyBytes_Check(encoded)) {
        text = PyBytes_AS_STRING(encoded);
        length = PyBytes_GET_SIZE(encoded);
    } else {
        text = PyUnicode_AsUTF8AndSize(encoded, &length); /* it is there: encode_path() */
    }
    int failed = text ? packing_add(self, text, (size_t)length) : -1;
    Py_DECREF(encoded);
    return failed;
}

static PyObject *pack_paths(PyObject *module, PyObject *paths)
{
    (void)module;
    if (!PyTuple_CheckExact(paths))
        return PyErr_Format(PyExc_TypeError, "a tuple is needed, not %.100s",
                            Py_TYPE(paths)->tp_name);
    struct packing self;
    Py_ssize_t count = PyTuple_GET_SIZE(paths);
    bool failed = packing_begin(&self, count, 32 * count + 64) < 0;
    for (Py_ssize_t i = 0; i < count && !failed; i++)
        failed = packing_add_object(&self, PyTuple_GET_ITEM(paths, i)) < 0;
    return packing_end(&self, failed);
}

/* Of an array of type U: NULs fill it up. */
static int packing_add_text(struct packing *self, const Py_UCS4 *text, Py_ssize_t length)
{
    char ascii[256];
    bool plain = length <= (Py_ssize_t)sizeof ascii;
    while (length > 0 && text[length - 1] == 0)
        length--;
    for (Py_ssize_t i = 0; i < length; i++) {
        if (text[i] > 0x10ffff) {
            PyErr_SetString(PyExc_ValueError, "a path holds what is no character");
            return -1;
        }
        plain = plain && text[i] < 128;
        if (plain)
            ascii[i] = (char)text[i];
    }
    if (plain)
        return packing_add(self, ascii, (size_t)length);
    PyObject *object = PyUnicode_FromKindAndData(PyUnicode_4BYTE_KIND, text, length);
    int failed = object ? packing_add_object(self, object) : -1;
    Py_XDECREF(object);
    return failed;
}

/* array, bytes of an item, whether they are characters (of type U) */
static PyObject *pack_path_array(PyObject *module, PyObject *args)
{
    (void)module;
    Py_buffer view;
    Py_ssize_t size;
    int is_text;
    if (!PyArg_ParseTuple(args, "y*np", &view, &size, &is_text))
        return NULL;
    if (size <= 0 || view.len % size || (is_text && size % 4)) {
        PyBuffer_Release(&view);
        return PyErr_Format(PyExc_ValueError, "not an array of items of %zd bytes", size);
    }
    struct packing self;
    Py_ssize_t count = view.len / size;
    bool failed = packing_begin(&self, count, view.len / (is_text ? 4 : 1) + count + 64) < 0;
    const char *at = view.buf;
    for (Py_ssize_t i = 0; i < count && !failed; i++, at += size) {
        size_t length = (size_t)size;
        if (is_text) {
            failed = packing_add_text(&self, (const Py_UCS4 *)(const void *)at, size / 4) < 0;
            continue;
        }
        while (length > 0 && at[length - 1] == '\0')
            length--;
        failed = packing_add(&self, at, length) < 0;
    }
    PyBuffer_Release(&view);
    return packing_end(&self, failed);
}

/* Numbers: one for all, a tuple of them, or memory with 64 bits each. */
struct column {
    const char *name;
    PyObject *tuple;
    Py_buffer view;
    int64_t one;
};

static int column_open(struct column *self, PyObject *values, const char *name, Py_ssize_t count)
{
    Py_ssize_t size = count;
    *self = (struct column){.name = name};
    if (PyTuple_CheckExact(values)) {
        self->tuple = values;
        size = PyTuple_GET_SIZE(values);
    } else if (PyMemoryView_Check(values)) {
        if (PyObject_GetBuffer(values, &self->view, PyBUF_SIMPLE) < 0)
            return -1;
        size = self->view.len / (Py_ssize_t)sizeof(int64_t);
    } else if (take_number(values, name, 0, INT64_MAX, &self->one) < 0) {
        return -1;
    }
    if (size != count) {
        PyErr_Format(PyExc_ValueError, "there are %zd %ss for %zd reads", size, name, count);
        return -1;
    }
    return 0;
}

static void column_close(struct column *self)
{
    if (self->view.obj)
        PyBuffer_Release(&self->view);
}

static int column_get(const struct column *self, Py_ssize_t at, int64_t *number)
{
    if (self->tuple)
        return take_number(PyTuple_GET_ITEM(self->tuple, at), self->name, 0, INT64_MAX, number);
    *number = self->view.obj ? ((const int64_t *)self->view.buf)[at] : self->one;
    if (*number >= 0)
        return 0;
    PyErr_Format(PyExc_ValueError, "%s is out of range: %lld", self->name, (long long)*number);
    return -1;
}

static int pack_read(struct packing *self, PyObject *file, const struct column *offsets,
                     const struct column *lengths)
{
    struct pa_many_read item = {.at = 0};
    int64_t length;
    if (descriptor_of(file, &item.fd) < 0 || column_get(offsets, self->count, &item.offset) < 0 ||
        column_get(lengths, self->count, &length) < 0)
        return -1;
    item.length = (uint64_t)length;
    uint64_t before = ends_of(self->ends)[self->count];
    if (item.length > (uint64_t)INT64_MAX - before) {
        PyErr_SetString(PyExc_ValueError, "all lengths together are out of range");
        return -1;
    }
    memcpy(PyBytes_AS_STRING(self->items) + self->used, &item, sizeof item);
    self->used += sizeof item;
    ends_of(self->ends)[++self->count] = before + item.length;
    return 0;
}

/* how many, the file of all or a tuple, offsets, lengths */
static PyObject *pack_reads(PyObject *module, PyObject *args)
{
    (void)module;
    struct packing self;
    struct column offsets = {.name = NULL}, lengths = {.name = NULL};
    PyObject *files, *given_offsets, *given_lengths;
    Py_ssize_t count;
    if (!PyArg_ParseTuple(args, "nOOO", &count, &files, &given_offsets, &given_lengths))
        return NULL;
    bool several = PyTuple_CheckExact(files);
    if (count < 0 || count > PY_SSIZE_T_MAX / 64 ||
        (several && PyTuple_GET_SIZE(files) != count))
        return PyErr_Format(PyExc_ValueError, "there are not %zd files", count);
    Py_ssize_t size = count * (Py_ssize_t)sizeof(struct pa_many_read);
    bool failed = packing_begin(&self, count, size) < 0 ||
                  column_open(&offsets, given_offsets, "offset", count) < 0 ||
                  column_open(&lengths, given_lengths, "length", count) < 0;
    for (Py_ssize_t i = 0; i < count && !failed; i++)
        failed = pack_read(&self, several ? PyTuple_GET_ITEM(files, i) : files, &offsets,
                           &lengths) < 0;
    column_close(&offsets);
    column_close(&lengths);
    return packing_end(&self, failed);
}

/* out, pool: whether workers of the pool can fill it */
static PyObject *is_shared(PyObject *module, PyObject *args)
{
    (void)module;
    PyObject *out, *given;
    uint64_t offset;
    if (!PyArg_ParseTuple(args, "O!O", Buffer_Type, &out, &given))
        return NULL;
    Pool *pool = pool_of(given);
    const Buffer *buffer = (Buffer *)out;
    if (!pool)
        return NULL;
    return PyBool_FromLong(!buffer->released && pool->arena &&
                           pa_arena_find(pool->arena, buffer->block.at, (uint64_t)buffer->size,
                                         &offset) != PA_NO_SEGMENT);
}

PyMethodDef batch_functions[] = {
    {"_pack_paths", pack_paths, METH_O, NULL},
    {"_pack_path_array", pack_path_array, METH_VARARGS, NULL},
    {"_pack_reads", pack_reads, METH_VARARGS, NULL},
    {"_is_shared", is_shared, METH_VARARGS, NULL},
    {NULL, NULL, 0, NULL},
};

/* -- chunks ------------------------------------------------------------------------------------ */

static PyObject *part_of(const Request *request, int part)
{
    return PyTuple_GET_ITEM(PyTuple_GET_ITEM(request->file, 0), part);
}

static const uint64_t *ends_of_chunk(const Request *request)
{
    return ends_of(part_of(request, ENDS)) + request->data_offset;
}

static const struct pa_many_read *reads_of_chunk(const Request *request)
{
    const void *items = PyBytes_AS_STRING(part_of(request, ITEMS));
    return (const struct pa_many_read *)items + request->data_offset;
}

static bool is_batch(PyObject *batch, size_t item)
{
    if (!PyTuple_CheckExact(batch) || PyTuple_GET_SIZE(batch) != NPARTS ||
        !PyBytes_CheckExact(PyTuple_GET_ITEM(batch, ITEMS)) ||
        !PyBytes_CheckExact(PyTuple_GET_ITEM(batch, ENDS)))
        return false;
    PyObject *items = PyTuple_GET_ITEM(batch, ITEMS), *ends = PyTuple_GET_ITEM(batch, ENDS);
    size_t count = (size_t)PyBytes_GET_SIZE(ends) / sizeof(uint64_t);
    size_t size = (size_t)PyBytes_GET_SIZE(items);
    return count > 0 && size == (item ? (count - 1) * item : ends_of(ends)[count - 1]);
}

/* batch, first, end: [first, end) of it.  `item` is the size of one, 0 for paths. */
static int take_items(Request *request, PyObject *const *values, size_t item)
{
    int64_t first, end, most;
    if (!is_batch(values[0], item)) {
        PyErr_SetString(PyExc_TypeError, "not a batch");
        return -1;
    }
    most = PyBytes_GET_SIZE(PyTuple_GET_ITEM(values[0], ENDS)) / (int64_t)sizeof(uint64_t) - 1;
    if (take_number(values[1], "first", 0, most - 1, &first) < 0)
        return -1;
    if (most - first > MOST_ITEMS)
        most = first + MOST_ITEMS;
    if (take_number(values[2], "end", first + 1, most, &end) < 0)
        return -1;
    PyObject *kept = PyTuple_Pack(2, values[0], request->file ? request->file : Py_None);
    if (!kept)
        return -1;
    Py_XSETREF(request->file, kept);
    request->data_offset = (Py_ssize_t)first;
    request->flags = (uint32_t)(end - first);
    request->as_records = part_of(request, AS_RECORDS) == Py_True;
    return 0;
}

/* The block gets the items at its start, then the table with `entry` bytes for each. */
static int take_chunk(Request *request, const void *items, uint64_t size, uint64_t entry,
                      uint64_t data)
{
    uint64_t table_at = (size + 7) / 8 * 8, data_at = table_at + request->flags * entry;
    if (take_block(request, data_at + data) < 0)
        return -1;
    memcpy(request->block.at, items, size);
    request->offset = (int64_t)table_at;
    request->length = data_at + data;
    return 0;
}

static int take_paths(Request *request, PyObject *const *values, uint64_t entry, uint64_t block)
{
    if (take_dir_fd(request, values[3], &request->fd) < 0 || take_items(request, values, 0) < 0)
        return -1;
    const uint64_t *ends = ends_of_chunk(request);
    uint64_t size = ends[request->flags] - ends[0], used = size + 8 + request->flags * entry;
    uint64_t data = block < used + LEAST_FOR_DATA ? LEAST_FOR_DATA : block - used;
    if (block == 0)
        data = 0;
    return take_chunk(request, PyBytes_AS_STRING(part_of(request, ITEMS)) + ends[0], size, entry,
                      data);
}

/* batch, first, end, dir_fd, follow_symlinks */
int build_stat_many(Request *request, PyObject *const *values)
{
    bool follow = true;
    if (take_flag(values[4], &follow) < 0)
        return -1;
    request->no_follow = !follow;
    return take_paths(request, values, sizeof(struct pa_many_stat), 0);
}

/* batch, first, end, dir_fd */
int build_load_many(Request *request, PyObject *const *values)
{
    return take_paths(request, values, sizeof(struct pa_many_load), LOAD_BLOCK);
}

/* `out`: what they read lies there as in the whole batch, one behind the other. */
static int take_out(Request *request, PyObject *out, uint64_t *start)
{
    struct memory memory;
    const uint64_t *ends = ends_of_chunk(request);
    uint64_t size = ends[request->flags] - ends[0];
    if (take_data(request, out, true, &memory) < 0)
        return -1;
    if (ends[request->flags] > (uint64_t)memory.size ||
        (size > 0 && !find_shared(request, memory.at + ends[0], size))) {
        PyErr_SetString(PyExc_ValueError, "out is not a Buffer of the pool with room for it all");
        return -1;
    }
    *start = request->arena_offset;
    request->fd2 = (int)request->arena_segment; /* the slot's out_segment */
    return 0;
}

/* batch, first, end, out */
int build_read_many(Request *request, PyObject *const *values)
{
    uint64_t start = 0;
    bool has_out = values[3] != Py_None;
    if (take_items(request, values, sizeof(struct pa_many_read)) < 0 ||
        (has_out && take_out(request, values[3], &start) < 0))
        return -1;
    const uint64_t *ends = ends_of_chunk(request);
    const struct pa_many_read *items = reads_of_chunk(request);
    uint64_t size = request->flags * sizeof *items, data = ends[request->flags] - ends[0];
    if (take_chunk(request, items, size, sizeof(int64_t), has_out ? 0 : data) < 0)
        return -1;
    if (!has_out)
        start = request->length - data;
    struct pa_many_read *todo = (void *)request->block.at;
    for (uint32_t i = 0; i < request->flags; i++)
        todo[i].at = start + (ends[i] - ends[0]);
    return 0;
}

/* -- what became of them ----------------------------------------------------------------------- */

static size_t entry_size(const Request *request)
{
    return request->op == PA_OP_STAT_MANY   ? sizeof(struct pa_many_stat)
           : request->op == PA_OP_LOAD_MANY ? sizeof(struct pa_many_load)
                                            : sizeof(int64_t);
}

/* All begin with the outcome. */
static char *entry_of(const Request *request, uint32_t item)
{
    return request->block.at + request->offset + item * entry_size(request);
}

void batch_give_up_item(Request *request)
{
    const int64_t died = PA_ITEM_DIED;
    memcpy(entry_of(request, request->begun++), &died, sizeof died);
}

static PyObject *name_of(const Request *request, uint32_t item)
{
    PyObject *names = part_of(request, NAMES);
    Py_ssize_t at = request->data_offset + (Py_ssize_t)item;
    bool several = request->op != PA_OP_READ_MANY || PyTuple_CheckExact(names);
    PyObject *name = several ? PySequence_GetItem(names, at) : Py_NewRef(names);
    if (name && request->op == PA_OP_READ_MANY)
        Py_SETREF(name, Py_NewRef(FileHandle_Check(name) ? ((FileHandle *)name)->name : Py_None));
    return name;
}

/* New exception, which stands for the item. */
static PyObject *error_of(const Request *request, uint32_t item, int64_t outcome)
{
    PyObject *error, *name = name_of(request, item);
    if (!name)
        return NULL;
    if (outcome == PA_ITEM_DIED)
        error = PyObject_CallFunction(hooks.WorkerDied, "isO", EIO, "workers died over it", name);
    else if (name == Py_None)
        error = PyObject_CallFunction(PyExc_OSError, "is", (int)-outcome, strerror((int)-outcome));
    else
        error = PyObject_CallFunction(PyExc_OSError, "isO", (int)-outcome, strerror((int)-outcome),
                                      name);
    Py_DECREF(name);
    return error;
}

/* What a worker has left in the table of an item, read once.  `from`, `most`: where its data are,
 * and how many they can be. */
struct outcome {
    int64_t number;
    struct pa_stat st;
    uint64_t from, most;
};

/* False: it cannot be. */
static bool look_at(const Request *request, uint32_t item, struct outcome *found)
{
    const char *entry = entry_of(request, item);
    memcpy(&found->number, entry, sizeof found->number);
    found->from = found->most = 0;
    if (request->op == PA_OP_STAT_MANY) {
        memcpy(&found->st, entry + offsetof(struct pa_many_stat, st), sizeof found->st);
    } else if (request->op == PA_OP_READ_MANY) {
        const uint64_t *ends = ends_of_chunk(request);
        found->most = ends[item + 1] - ends[item];
        found->from = request->length - (ends[request->flags] - ends[item]);
    } else {
        memcpy(&found->from, entry + offsetof(struct pa_many_load, at), sizeof found->from);
        found->most = found->from <= request->length ? request->length - found->from : 0;
    }
    return found->number < 0 ? found->number >= PA_ITEM_DIED
                             : (uint64_t)found->number <= found->most;
}

static int32_t errno_of(const struct outcome *found)
{
    if (found->number >= 0)
        return 0;
    return found->number == PA_ITEM_DIED ? EIO : (int32_t)-found->number;
}

static PyObject *object_of(const Request *request, uint32_t item, const struct outcome *found)
{
    if (found->number < 0)
        return error_of(request, item, found->number);
    if (request->op == PA_OP_STAT_MANY)
        return result_of_stat(&found->st);
    if (request->target) /* it has been read to where it belongs */
        return PyLong_FromLongLong(found->number);
    return PyBytes_FromStringAndSize(request->block.at + found->from, (Py_ssize_t)found->number);
}

static PyObject *list_of(Request *request, uint32_t count)
{
    struct outcome found;
    PyObject *list = PyList_New((Py_ssize_t)count);
    for (uint32_t item = 0; list && item < count; item++) {
        bool sound = look_at(request, item, &found);
        PyObject *object = sound ? object_of(request, item, &found) : result_garbage(request);
        if (object)
            PyList_SET_ITEM(list, (Py_ssize_t)item, object);
        else
            Py_CLEAR(list);
    }
    return list;
}

static void fill_stat_record(struct stat_record *to, const struct outcome *found)
{
    const struct pa_stat *st = &found->st;
    *to = (struct stat_record){.err = errno_of(found)};
    if (to->err)
        return;
    to->ino = st->ino;
    to->dev = st->dev;
    to->nlink = st->nlink;
    to->rdev = st->rdev;
    to->size = st->size;
    to->blocks = st->blocks;
    to->blksize = st->blksize;
    to->atime_ns = result_in_ns(st->atime_s, st->atime_ns);
    to->mtime_ns = result_in_ns(st->mtime_s, st->mtime_ns);
    to->ctime_ns = result_in_ns(st->ctime_s, st->ctime_ns);
    to->mode = st->mode;
    to->uid = st->uid;
    to->gid = st->gid;
}

/* New bytes: a record for each. */
static PyObject *records_of(Request *request, uint32_t count)
{
    bool stats = request->op == PA_OP_STAT_MANY;
    size_t size = stats ? sizeof(struct stat_record) : sizeof(struct size_record);
    PyObject *records = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)(count * size));
    struct outcome found;
    char *to = records ? PyBytes_AS_STRING(records) : NULL;
    for (uint32_t item = 0; records && item < count; item++, to += size) {
        if (!look_at(request, item, &found)) {
            Py_DECREF(records);
            return result_garbage(request);
        }
        if (stats)
            fill_stat_record((struct stat_record *)(void *)to, &found);
        else
            *(struct size_record *)(void *)to = (struct size_record){
                .size = found.number > 0 ? found.number : 0, .err = errno_of(&found)};
    }
    return records;
}

/* New tuple: records, and the data one behind the other.  What was looked at before may have been
 * written over since. */
static PyObject *packed_of(Request *request, uint32_t count)
{
    PyObject *records = records_of(request, count);
    if (!records)
        return NULL;
    const struct size_record *sizes = (const void *)PyBytes_AS_STRING(records);
    int64_t total = 0;
    for (uint32_t item = 0; item < count; item++)
        if (__builtin_add_overflow(total, sizes[item].size, &total) ||
            total > (int64_t)request->length) {
            Py_DECREF(records);
            return result_garbage(request);
        }
    PyObject *data = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)total);
    char *to = data ? PyBytes_AS_STRING(data) : NULL;
    for (uint32_t item = 0; data && item < count; item++) {
        struct outcome found;
        bool sound = look_at(request, item, &found);
        if (sizes[item].size > 0 && (!sound || found.number != sizes[item].size)) {
            Py_CLEAR(data);
            result_garbage(request);
        } else if (sizes[item].size > 0) {
            memcpy(to, request->block.at + found.from, (size_t)found.number);
            to += found.number;
        }
    }
    PyObject *both = data ? PyTuple_Pack(2, records, data) : NULL;
    Py_XDECREF(data);
    Py_DECREF(records);
    return both;
}

PyObject *batch_take(Request *request, int64_t result)
{
    int64_t first;
    if (result < 1 || result < request->begun || result > request->flags)
        return result_garbage(request);
    memcpy(&first, entry_of(request, 0), sizeof first);
    if (request->op == PA_OP_LOAD_MANY && first == PA_ITEM_LARGE)
        Py_RETURN_FALSE;
    uint32_t count = (uint32_t)result;
    if (!request->as_records)
        return list_of(request, count);
    return request->op == PA_OP_LOAD_MANY ? packed_of(request, count) : records_of(request, count);
}
