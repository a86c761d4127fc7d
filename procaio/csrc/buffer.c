/* procaio/csrc/buffer.c - Buffer: memory that the program and its workers share.
 *
 * The block stays while anything looks at it: a view, or a request in flight.  release() only says
 * that the owner is done with it.
 */
#include <sys/mman.h>

#include "core.h"

PyTypeObject *Buffer_Type;

static void give_back(Buffer *self)
{
    if (!self->block.at)
        return;
    if (self->pool->fork_count != fork_count && self->arena == self->pool->arena) {
        self->block.at = NULL; /* just forked: the memory is still the parent's */
        return;
    }
    if (self->altered) { /* whoever gets the pages next knows nothing of it */
        mprotect(self->block.at, self->block.size, PROT_READ | PROT_WRITE);
        munlock(self->block.at, self->block.size);
    }
    pa_arena_free(self->arena, &self->block);
    pool_let_go_of_arena(self->pool, self->arena);
}

void buffer_unexport(Buffer *buffer)
{
    if (--buffer->exports == 0 && buffer->released)
        give_back(buffer);
}

static PyObject *new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"size", "pool", NULL};
    Py_ssize_t size;
    PyObject *given = NULL;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "n|O:Buffer", names, &size, &given))
        return NULL;
    if (size < 0)
        return PyErr_Format(PyExc_ValueError, "size must not be negative: %zd", size);
    Buffer *self = (Buffer *)type->tp_alloc(type, 0); /* may run code of the program: first of all */
    Pool *pool = self ? pool_of(given) : NULL;
    if (!pool) {
        Py_XDECREF(self);
        return NULL;
    }
    self->pool = (Pool *)Py_NewRef((PyObject *)pool);
    struct pa_block block;
    int error = pool_alloc(pool, (uint64_t)size, true, &block);
    if (error) {
        Py_DECREF(self);
        if (PyErr_Occurred())
            return NULL;
        errno = -error;
        return PyErr_SetFromErrno(PyExc_OSError);
    }
    if (block.size <= PA_LARGEST_BLOCK) /* larger ones are fresh from the system */
        memset(block.at, 0, (size_t)size);
    self->arena = pool->arena;
    self->block = block;
    self->size = size;
    return (PyObject *)self;
}

/* Only visited: the pool clears what leads from it back here. */
static int traverse(Buffer *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(self->pool);
    return 0;
}

static void dealloc(Buffer *self)
{
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack((PyObject *)self);
    if (self->pool)
        give_back(self);
    Py_CLEAR(self->pool);
    type->tp_free(self);
    Py_DECREF(type);
}

static int check(Buffer *self)
{
    if (!self->released)
        return 0;
    PyErr_SetString(PyExc_ValueError, "operation on a released Buffer");
    return -1;
}

static int get_buffer(Buffer *self, Py_buffer *view, int flags)
{
    if (check(self) < 0) {
        view->obj = NULL;
        return -1;
    }
    if (PyBuffer_FillInfo(view, (PyObject *)self, self->block.at, self->size, 0, flags) < 0)
        return -1;
    self->exports++;
    return 0;
}

static void release_buffer(Buffer *self, Py_buffer *view)
{
    (void)view;
    buffer_unexport(self);
}

static PyObject *release(Buffer *self, PyObject *unused)
{
    (void)unused;
    if (!self->released) {
        self->released = true;
        if (self->exports == 0)
            give_back(self);
    }
    Py_RETURN_NONE;
}

static PyObject *enter(Buffer *self, PyObject *unused)
{
    (void)unused;
    return check(self) < 0 ? NULL : Py_NewRef((PyObject *)self);
}

static Py_ssize_t length(Buffer *self)
{
    return check(self) < 0 ? -1 : self->size;
}

PyObject *buffer_subscript(PyObject *self, PyObject *key)
{
    PyObject *view = PyMemoryView_FromObject(self);
    if (!view)
        return NULL;
    PyObject *item = PyObject_GetItem(view, key);
    /* A slice is copied out: holding a view would keep the memory beyond release(). */
    if (item && PyMemoryView_Check(item))
        Py_SETREF(item, PyBytes_FromObject(item));
    Py_DECREF(view);
    return item;
}

int buffer_assign(PyObject *self, PyObject *key, PyObject *value)
{
    PyObject *view = PyMemoryView_FromObject(self);
    if (!view)
        return -1;
    int failed = value ? PyObject_SetItem(view, key, value) : PyObject_DelItem(view, key);
    Py_DECREF(view);
    return failed;
}

static PyObject *repr(Buffer *self)
{
    return PyUnicode_FromFormat("<Buffer size=%zd%s>", self->size,
                                self->released ? " released" : "");
}

static PyMethodDef methods[] = {
    {"release", (PyCFunction)release, METH_NOARGS,
     "release($self, /)\n--\n\nGive the memory back. It goes once no view and no request in flight\n"
     "uses it; this object is not usable from now on. Releasing twice does nothing."},
    {"__enter__", (PyCFunction)enter, METH_NOARGS, NULL},
    {"__exit__", (PyCFunction)release, METH_VARARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot slots[] = {
    {Py_tp_new, new},
    {Py_tp_dealloc, dealloc},
    {Py_tp_traverse, traverse},
    {Py_tp_repr, repr},
    {Py_tp_methods, methods},
    {Py_bf_getbuffer, get_buffer},
    {Py_bf_releasebuffer, release_buffer},
    {Py_mp_length, length},
    {Py_mp_subscript, buffer_subscript},
    {Py_mp_ass_subscript, buffer_assign},
    {Py_tp_doc,
     "Buffer(size, pool=None)\n--\n\nZeroed memory that the program and its workers share.\n\n"
     "As the `data` of aio_read and aio_write it is used in place, without a copy; so is any\n"
     "other object whose memory lies in it (a memoryview, a numpy array made with frombuffer).\n"
     "Supports the buffer protocol (writable), len(), indexing (slices are copied out) and `with`.\n"
     "Raises OSError with ENOSPC or ENOMEM when shared memory has run out."},
    {0, NULL},
};

PyType_Spec Buffer_Spec = {
    .name = "procaio.Buffer",
    .basicsize = sizeof(Buffer),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC,
    .slots = slots,
};
