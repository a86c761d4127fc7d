/* procaio/csrc/arguments.c - numbers, paths, descriptors and memory that the program gives. */
#include "arguments.h"

#include <fcntl.h>
#include <sys/uio.h>
#include <unistd.h>

/* -- numbers ---------------------------------------------------------------------------------- */

int take_number(PyObject *value, const char *name, int64_t least, int64_t most, int64_t *number)
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

int take_u32(PyObject *value, const char *name, uint32_t *number)
{
    int64_t n;
    if (!value)
        return 0;
    if (take_number(value, name, INT32_MIN, UINT32_MAX, &n) < 0)
        return -1;
    *number = (uint32_t)n;
    return 0;
}

int take_flag(PyObject *value, bool *flag)
{
    int truth = value ? PyObject_IsTrue(value) : *flag;
    if (truth < 0)
        return -1;
    *flag = truth;
    return 0;
}

/* -- paths ------------------------------------------------------------------------------------ */

static bool names_are_utf8; /* the file system's encoding */

int arguments_ready(void)
{
    PyObject *letter = PyUnicode_FromOrdinal(0xe9);
    PyObject *encoded = letter ? PyUnicode_EncodeFSDefault(letter) : NULL;
    names_are_utf8 = encoded && strcmp(PyBytes_AS_STRING(encoded), "\xc3\xa9") == 0;
    if (letter && !encoded) /* it knows fewer letters */
        PyErr_Clear();
    Py_XDECREF(encoded);
    Py_XDECREF(letter);
    return letter ? 0 : -1;
}

/* The UTF-8 form of a str, which the str keeps; NULL if that is not what the kernel is to get. */
static const char *utf8_of(PyObject *text, Py_ssize_t *length)
{
    if (!names_are_utf8 && !PyUnicode_IS_ASCII(text))
        return NULL;
    const char *utf8 = PyUnicode_AsUTF8AndSize(text, length);
    if (!utf8) /* bytes that are no text stand in it as surrogates */
        PyErr_Clear();
    return utf8;
}

/* A path as the kernel gets it: a str of which the UTF-8 form will do, everything else as bytes, so
 * that a path takes no memory of the request's own. */
PyObject *encode_path(PyObject *path, bool *is_bytes)
{
    PyObject *plain = PyOS_FSPath(path);
    if (!plain)
        return NULL;
    *is_bytes = PyBytes_Check(plain);
    const char *text = NULL;
    Py_ssize_t length;
    if (!*is_bytes && !(text = utf8_of(plain, &length))) {
        Py_SETREF(plain, PyUnicode_EncodeFSDefault(plain));
        if (!plain)
            return NULL;
    }
    if (!text) {
        text = PyBytes_AS_STRING(plain);
        length = PyBytes_GET_SIZE(plain);
    }
    if (memchr(text, '\0', (size_t)length)) {
        PyErr_SetString(PyExc_ValueError, "embedded null byte in the path");
        Py_CLEAR(plain);
    }
    return plain;
}

int take_path(Request *request, PyObject *path)
{
    bool is_bytes;
    if (!(request->fspath = encode_path(path, &is_bytes)))
        return -1;
    request->names_are_bytes = is_bytes;
    request->path = Py_NewRef(path);
    return 0;
}

int take_path2(Request *request, PyObject *path)
{
    bool is_bytes;
    if (!(request->fspath2 = encode_path(path, &is_bytes)))
        return -1;
    request->path2 = Py_NewRef(path);
    return 0;
}

bool is_path(PyObject *object)
{
    if (PyUnicode_Check(object) || PyBytes_Check(object))
        return true;
    if (PyLong_Check(object) || FileHandle_Check(object))
        return false;
    return PyObject_HasAttrString((PyObject *)Py_TYPE(object), "__fspath__");
}

/* -- descriptors ------------------------------------------------------------------------------ */

/* A file object that the request uses stays open at least as long as the request lives. */
static int keep(Request *request, PyObject *file)
{
    PyObject *kept = request->file ? PyTuple_Pack(2, request->file, file) : Py_NewRef(file);
    if (kept)
        Py_XSETREF(request->file, kept);
    return kept ? 0 : -1;
}

int descriptor_of(PyObject *file, int *fd)
{
    if (PyLong_Check(file)) {
        int overflow;
        long number = PyLong_AsLongAndOverflow(file, &overflow);
        if (overflow || number > INT32_MAX || number < INT32_MIN) {
            PyErr_Format(PyExc_OverflowError, "not a descriptor: %R", file);
            return -1;
        }
        *fd = (int)number;
        return 0;
    }
    *fd = FileHandle_Check(file) ? filehandle_fd(file) : PyObject_AsFileDescriptor(file);
    return *fd < 0 ? -1 : 0;
}

int take_fd(Request *request, PyObject *file)
{
    if (descriptor_of(file, &request->fd) < 0)
        return -1;
    if (PyLong_Check(file))
        return 0;
    if (FileHandle_Check(file))
        request->path = Py_NewRef(((FileHandle *)file)->name);
    request->file = Py_NewRef(file);
    return 0;
}

int take_second_fd(Request *request, PyObject *file)
{
    if (descriptor_of(file, &request->fd2) < 0)
        return -1;
    return PyLong_Check(file) ? 0 : keep(request, file);
}

int take_fd_as_name(Request *request, PyObject *file)
{
    if (take_fd(request, file) < 0)
        return -1;
    if (!request->path)
        request->path = Py_NewRef(file);
    return 0;
}

int take_dir_fd(Request *request, PyObject *value, int *fd)
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

int take_range(Request *request, PyObject *const *values, int64_t *length)
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

/* -- memory ----------------------------------------------------------------------------------- */

bool find_shared(Request *request, const char *at, uint64_t size)
{
    Pool *pool = request->pool;
    if (!pool->arena || size == 0) /* closed by the program's code just now; nobody's bytes */
        return false;
    uint32_t row = pa_arena_find(pool->arena, at, size, &request->arena_offset);
    if (row == PA_NO_SEGMENT) {
        if (mapping_lend(pool, at, size) && pool->arena)
            row = pa_arena_find(pool->arena, at, size, &request->arena_offset);
    } else if (pa_arena_is_lent(pool->arena, row) && !mapping_has_its_file(at, size)) {
        row = PA_NO_SEGMENT;
    }
    request->arena_segment = row;
    return row != PA_NO_SEGMENT;
}

/* A Buffer of another pool, or of the parent before a fork, is memory like any other here. */
static bool is_own_buffer(const Request *request, PyObject *data)
{
    uint64_t offset;
    if (!Buffer_Check(data) || ((Buffer *)data)->released || !request->pool->arena)
        return false;
    const Buffer *buffer = (Buffer *)data;
    return pa_arena_find(request->pool->arena, buffer->block.at, (uint64_t)buffer->size,
                         &offset) != PA_NO_SEGMENT;
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

int take_data(Request *request, PyObject *data, bool writable, struct memory *memory)
{
    if (is_own_buffer(request, data)) { /* no view is needed */
        Buffer *buffer = (Buffer *)data;
        buffer->exports++;
        request->exports = true;
        request->target = Py_NewRef(data);
        *memory = (struct memory){buffer->block.at, buffer->size};
        return 0;
    }
    if (export_view(request, data, writable ? PyBUF_WRITABLE : PyBUF_SIMPLE) < 0)
        return -1;
    *memory = (struct memory){request->view->buf, request->view->len};
    return 0;
}

int take_data_offset(PyObject *value, Py_ssize_t size, Py_ssize_t *offset)
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

int take_pages(PyObject *offset, PyObject *length, bool outwards, struct memory *memory)
{
    int64_t start = 0, end = memory->size, n;
    if (offset && offset != Py_None) {
        if (take_number(offset, "offset", PY_SSIZE_T_MIN, PY_SSIZE_T_MAX, &start) < 0)
            return -1;
        start += start < 0 ? memory->size : 0;
        if (start < 0 || start > memory->size) {
            PyErr_Format(PyExc_ValueError, "offset %R is outside the %zd bytes of data", offset,
                         memory->size);
            return -1;
        }
    }
    if (length && length != Py_None) {
        if (take_number(length, "length", PY_SSIZE_T_MIN, PY_SSIZE_T_MAX, &n) < 0)
            return -1;
        if (n < 0)
            end += n;
        else if (n < end - start)
            end = start + n;
        if (end < start) {
            PyErr_Format(PyExc_ValueError, "length %R ends before offset %lld", length,
                         (long long)start);
            return -1;
        }
    }
    uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE);
    uintptr_t first = (uintptr_t)memory->at + (uintptr_t)start;
    uintptr_t last = (uintptr_t)memory->at + (uintptr_t)end;
    if (end == start)
        last = first = first & ~(page - 1);
    else if (outwards) {
        first &= ~(page - 1);
        last = (last + page - 1) & ~(page - 1);
    } else {
        first = (first + page - 1) & ~(page - 1);
        last &= ~(page - 1);
    }
    *memory = (struct memory){(char *)first, last > first ? (Py_ssize_t)(last - first) : 0};
    return 0;
}

/* Whether it is of just the type that the module has by this name.  A module that the program has
 * not imported has made nothing; a type that was seen is kept. */
static bool is_exactly(PyObject *object, const char *module, const char *name, PyTypeObject **seen)
{
    if (!*seen) {
        PyObject *key = PyUnicode_FromString(module);
        PyObject *imported = key ? PyImport_GetModule(key) : NULL;
        PyObject *type = imported ? PyObject_GetAttrString(imported, name) : NULL;
        if (type && PyType_Check(type))
            *seen = (PyTypeObject *)Py_NewRef(type);
        PyErr_Clear();
        Py_XDECREF(type);
        Py_XDECREF(imported);
        Py_XDECREF(key);
    }
    return *seen == Py_TYPE(object);
}

static bool is_array(PyObject *object)
{
    static PyTypeObject *array;
    return is_exactly(object, "array", "array", &array);
}

static bool is_numpy_array(PyObject *object)
{
    static PyTypeObject *ndarray;
    return is_exactly(object, "numpy", "ndarray", &ndarray);
}

/* Whether the memory is on a heap for certain.  Of everything else nobody knows where it comes from:
 * a memoryview or an array may lie in a mapped file. */
static bool is_on_heap(PyObject *owner)
{
    PyObject *held = Py_NewRef(owner);
    bool known = false;
    for (int depth = 0; depth < 16 && held && !known; depth++) {
        PyObject *below = NULL;
        known = PyBytes_Check(held) || PyByteArray_Check(held) || Buffer_Check(held);
        if (PyMemoryView_Check(held)) {
            below = Py_XNewRef(PyMemoryView_GET_BUFFER(held)->obj);
        } else if (!known && is_array(held)) {
            known = true;
        } else if (!known && is_numpy_array(held)) {
            below = PyObject_GetAttrString(held, "base");
            known = below == Py_None;
            PyErr_Clear();
        }
        Py_SETREF(held, below);
    }
    Py_XDECREF(held);
    return known;
}

/* `outwards`: from ours to the owner's.  The system touches the owner's memory as it does in read()
 * and write(); only ours is the "other process's", which must be memory that stays. */
static int copy_by_system(char *to, const char *from, size_t size, bool outwards)
{
    pid_t self = getpid();
    for (size_t done = 0; done < size;) {
        struct iovec target = {.iov_base = to + done, .iov_len = size - done};
        struct iovec source = {.iov_base = (char *)(uintptr_t)from + done, .iov_len = size - done};
        ssize_t copied = outwards ? process_vm_readv(self, &target, 1, &source, 1, 0)
                                  : process_vm_writev(self, &source, 1, &target, 1, 0);
        if (copied == 0)
            return EFAULT;
        if (copied < 0 && (errno == ENOSYS || errno == EPERM)) { /* a container that forbids it */
            memcpy(to + done, from + done, size - done);
            return 0;
        }
        if (copied < 0)
            return errno;
        done += (size_t)copied;
    }
    return 0;
}

static int copy(PyObject *owner, char *to, const char *from, size_t size, bool outwards)
{
    int error = 0;
    if (size == 0)
        return 0;
    bool careful = !is_on_heap(owner);
    if (size < LARGE_COPY) {
        if (careful)
            return copy_by_system(to, from, size, outwards);
        memcpy(to, from, size);
        return 0;
    }
    Py_BEGIN_ALLOW_THREADS
    if (careful)
        error = copy_by_system(to, from, size, outwards);
    else
        memcpy(to, from, size);
    Py_END_ALLOW_THREADS
    return error;
}

int copy_from_owner(PyObject *owner, char *to, const char *from, size_t size)
{
    return copy(owner, to, from, size, false);
}

int copy_to_owner(PyObject *owner, char *to, const char *from, size_t size)
{
    return copy(owner, to, from, size, true);
}

int take_block(Request *request, uint64_t size)
{
    struct pa_block block;
    if (pool_check(request->pool) < 0) /* closed by the program's code just now */
        return -1;
    int error = pool_alloc(request->pool, size, true, &block);
    if (error) {
        errno = -error;
        PyErr_SetFromErrno(PyExc_OSError);
        return -1;
    }
    request->block = block;
    request->arena_segment =
        pa_arena_find(request->pool->arena, block.at, size, &request->arena_offset);
    return 0;
}

int copy_in(Request *request, const char *from, uint64_t size, uint64_t behind)
{
    if (size + behind == 0)
        return 0;
    if (take_block(request, size + behind) < 0)
        return -1;
    request->error = copy_from_owner(request->target, request->block.at + behind, from, size);
    return 0;
}
