/* procaio/csrc/filehandle.c - FileHandle: the descriptor that aio_open yields. */
#include <unistd.h>

#include "core.h"

PyTypeObject *FileHandle_Type;

PyObject *filehandle_new(int fd, int flags, PyObject *name)
{
    FileHandle *self = PyObject_New(FileHandle, FileHandle_Type);
    if (!self)
        return NULL;
    self->fd = fd;
    self->flags = flags;
    self->name = Py_NewRef(name);
    self->is_own = false;
    return (PyObject *)self;
}

PyObject *filehandle_new_own(int fd, PyObject *name)
{
    PyObject *self = filehandle_new(fd, 0, name);
    if (self)
        ((FileHandle *)self)->is_own = true;
    return self;
}

int filehandle_fd(PyObject *object)
{
    int fd = ((FileHandle *)object)->fd;
    if (fd < 0)
        PyErr_SetString(PyExc_ValueError, "I/O operation on a closed FileHandle");
    return fd;
}

void filehandle_close(PyObject *object)
{
    FileHandle *self = (FileHandle *)object;
    if (self->fd >= 0)
        close(self->fd);
    self->fd = -1;
}

static void finalize(FileHandle *self)
{
    if (self->fd < 0)
        return;
    if (self->is_own) {
        filehandle_close((PyObject *)self);
        return;
    }
    PyObject *type, *value, *traceback;
    PyErr_Fetch(&type, &value, &traceback);
    if (PyErr_ResourceWarning((PyObject *)self, 1, "unclosed %R", self) < 0)
        PyErr_WriteUnraisable((PyObject *)self);
    filehandle_close((PyObject *)self);
    PyErr_Restore(type, value, traceback);
}

static void dealloc(FileHandle *self)
{
    if (PyObject_CallFinalizerFromDealloc((PyObject *)self) < 0)
        return;
    PyTypeObject *type = Py_TYPE(self);
    Py_CLEAR(self->name);
    PyObject_Free(self);
    Py_DECREF(type);
}

static PyObject *repr(FileHandle *self)
{
    if (self->fd < 0)
        return PyUnicode_FromFormat("<FileHandle %R closed>", self->name);
    return PyUnicode_FromFormat("<FileHandle %R fd=%d>", self->name, self->fd);
}

static PyObject *fileno_(PyObject *self, PyObject *unused)
{
    (void)unused;
    int fd = filehandle_fd(self);
    return fd < 0 ? NULL : PyLong_FromLong(fd);
}

static PyObject *close_(FileHandle *self, PyObject *unused)
{
    (void)unused;
    int fd = self->fd, failed = 0;
    self->fd = -1;
    if (fd >= 0) {
        Py_BEGIN_ALLOW_THREADS
        failed = close(fd);
        Py_END_ALLOW_THREADS
    }
    if (failed && errno != EINTR)
        return PyErr_SetFromErrnoWithFilenameObject(PyExc_OSError, self->name);
    Py_RETURN_NONE;
}

static PyObject *detach(PyObject *self, PyObject *unused)
{
    PyObject *fd = fileno_(self, unused);
    if (fd)
        ((FileHandle *)self)->fd = -1;
    return fd;
}

static PyObject *enter(PyObject *self, PyObject *unused)
{
    (void)unused;
    return filehandle_fd(self) < 0 ? NULL : Py_NewRef(self);
}

static PyObject *leave(FileHandle *self, PyObject *args)
{
    return close_(self, args);
}

static PyObject *get_closed(FileHandle *self, void *unused)
{
    (void)unused;
    return PyBool_FromLong(self->fd < 0);
}

static PyObject *get_name(FileHandle *self, void *unused)
{
    (void)unused;
    return Py_NewRef(self->name);
}

static PyMethodDef methods[] = {
    {"fileno", fileno_, METH_NOARGS,
     "fileno($self, /)\n--\n\nThe descriptor. ValueError once the handle is closed."},
    {"close", (PyCFunction)close_, METH_NOARGS,
     "close($self, /)\n--\n\nClose the descriptor here and now; see aio_close for the way that\n"
     "does not block. Closing twice does nothing."},
    {"detach", detach, METH_NOARGS,
     "detach($self, /)\n--\n\nGive up the descriptor without closing it, and return it."},
    {"__enter__", enter, METH_NOARGS, NULL},
    {"__exit__", (PyCFunction)leave, METH_VARARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef getset[] = {
    {"closed", (getter)get_closed, NULL, "True once closed, detached or handed to aio_close.", NULL},
    {"name", (getter)get_name, NULL, "The path it was opened with, the caller's own object.", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot slots[] = {
    {Py_tp_dealloc, dealloc}, {Py_tp_finalize, finalize}, {Py_tp_repr, repr},
    {Py_tp_methods, methods},
    {Py_tp_getset, getset},
    {Py_tp_doc, "An open file, as aio_open yields it: usable wherever a descriptor is.\n\n"
                "A context manager; a ResourceWarning tells of one that was lost unclosed."},
    {0, NULL},
};

PyType_Spec FileHandle_Spec = {
    .name = "procaio.FileHandle",
    .basicsize = sizeof(FileHandle),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = slots,
};
