/* procaio/csrc/request.c - Request: what the program holds while a worker does the work. */
#include <unistd.h>

#include "core.h"

PyTypeObject *Request_Type;

/* Requests are made and freed by the hundred thousand: the memory of some is kept. */
enum { KEPT = 256 };
static Request *kept[KEPT];
static int kept_count;

void request_init(Request *self, Pool *pool, enum pa_opcode op, enum result_kind kind)
{
    memset((char *)self + sizeof(PyObject), 0, sizeof *self - sizeof(PyObject));
    self->pool = (Pool *)Py_NewRef((PyObject *)pool);
    self->op = (uint8_t)op;
    self->kind = (uint8_t)kind;
    self->slot = NO_SLOT;
    self->arena_segment = PA_NO_SEGMENT;
    self->fd = self->fd2 = -1;
    self->offset = -1;
}

Request *request_new(Pool *pool, enum pa_opcode op, enum result_kind kind)
{
    Request *self;
    if (kept_count > 0) {
        self = kept[--kept_count];
        PyObject_Init((PyObject *)self, Request_Type);
    } else {
        self = PyObject_GC_New(Request, Request_Type);
        if (!self)
            return NULL;
    }
    request_init(self, pool, op, kind);
    PyObject_GC_Track((PyObject *)self);
    return self;
}

/* One that no program knows of.  NULL without an exception: there is no memory. */
Request *request_new_husk(Pool *pool, enum pa_opcode op)
{
    int collected = garbage_stays(); /* no code of the program runs here */
    Request *husk = request_new(pool, op, RESULT_STATUS);
    garbage_goes(collected);
    if (husk)
        husk->is_husk = husk->cancelled = true;
    else
        PyErr_Clear();
    return husk;
}

/* Takes over what a worker may still read and write, and the place of the request. */
Request *request_husk(Request *self)
{
    Request *husk = request_new_husk(self->pool, self->op);
    if (!husk)
        return NULL;
    husk->kind = self->kind;
    enum { FROM = offsetof(Request, gathered) };
    memcpy((char *)husk + FROM, (char *)self + FROM, sizeof *self - FROM);
    husk->fspath = self->fspath;
    husk->fspath2 = self->fspath2;
    husk->file = self->file;
    husk->target = self->target;
    husk->view = self->view;
    husk->exports = self->exports;
    husk->is_husk = husk->cancelled = true;
    husk->closes_handle = false;
    husk->deadline = 0;
    self->fspath = self->fspath2 = self->file = self->target = NULL;
    self->view = NULL;
    self->exports = false;
    self->gathered = NULL;
    self->block.at = NULL;
    self->arena_segment = PA_NO_SEGMENT;
    self->slot = NO_SLOT;
    self->step_open = false;
    return husk;
}

/* Its memory, of which the callback may make use; the objects stay.  No code of the program runs, but for
 * a __release_buffer__ written in Python (3.12). */
void request_release_memory(Request *self)
{
    if (self->block.at && self->pool && self->pool->arena)
        pa_arena_free(self->pool->arena, &self->block);
    self->block.at = NULL;
    self->arena_segment = PA_NO_SEGMENT;
    if (self->view) {
        PyBuffer_Release(self->view);
        PyMem_Free(self->view);
        self->view = NULL;
    } else if (self->exports) {
        buffer_unexport((Buffer *)self->target);
        self->exports = false;
    }
    if (unlikely(self->gathered))
        free(self->gathered);
    self->gathered = NULL;
}

/* The objects that it holds until it is done.  Its names stay, for errors and the repr. */
void request_release_objects(Request *self)
{
    Py_CLEAR(self->target);
    Py_CLEAR(self->file);
    Py_CLEAR(self->fspath);
    Py_CLEAR(self->fspath2);
}

void request_release_arguments(Request *self)
{
    request_release_memory(self);
    request_release_objects(self);
}

/* The pool is visited, but not cleared: it is needed to the end, and clears what leads back here. */
static int traverse(Request *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(self->pool);
    Py_VISIT(self->dict);
    Py_VISIT(self->callback);
    Py_VISIT(self->value);
    Py_VISIT(self->path);
    Py_VISIT(self->path2);
    Py_VISIT(self->file);
    Py_VISIT(self->target);
    return self->is_group ? group_traverse(self, visit, arg) : 0;
}

static int clear(Request *self)
{
    Py_CLEAR(self->dict);
    Py_CLEAR(self->callback);
    Py_CLEAR(self->value);
    Py_CLEAR(self->path);
    Py_CLEAR(self->path2);
    if (self->is_group)
        group_clear(self);
    return 0;
}

static void dealloc(Request *self)
{
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack((PyObject *)self);
    if (self->weakrefs)
        PyObject_ClearWeakRefs((PyObject *)self);
    if (self->place != AT_DONE) /* then it holds nothing any more */
        request_release_arguments(self);
    clear(self);
    Py_CLEAR(self->pool);
    if (kept_count < KEPT && type == Request_Type)
        kept[kept_count++] = self;
    else
        PyObject_GC_Del(self);
    Py_DECREF(type);
}

/* -- what became of it ------------------------------------------------------------------------ */

bool request_is_garbled(const Request *self)
{
    return self->garbled && !self->ended_early;
}

static PyObject *build_error(const Request *self)
{
    if (request_is_garbled(self))
        return PyObject_CallFunction(hooks.WorkerDied, "isO", self->error,
                                     "a worker has written what cannot be, and was ended; whether "
                                     "the call was made is unknown",
                                     self->path ? self->path : Py_None);
    if (self->worker_died)
        return PyObject_CallFunction(hooks.WorkerDied, "isO", self->error,
                                     "the worker died; whether the call was made is unknown",
                                     self->path ? self->path : Py_None);
    PyObject *name = self->path, *name2 = self->path2;
    const char *why = !self->ended_early          ? strerror(self->error)
                      : self->error == ETIMEDOUT ? "the request has not ended in time"
                                                 : "the request was aborted";
    if (name2)
        return PyObject_CallFunction(PyExc_OSError, "isOOO", self->error, why, name, Py_None,
                                     name2);
    if (name)
        return PyObject_CallFunction(PyExc_OSError, "isO", self->error, why, name);
    return PyObject_CallFunction(PyExc_OSError, "is", self->error, why);
}

PyObject *request_error(const Request *self)
{
    return build_error(self);
}

/* A new instance each time: raised twice, an exception would pile up tracebacks. */
void request_raise(const Request *self)
{
    if (self->cancelled) {
        PyErr_SetString(hooks.RequestCancelled, "the request was cancelled");
        return;
    }
    if (self->place == AT_DEAD) {
        PyErr_SetString(hooks.PoolClosed, "the request's pool is gone");
        return;
    }
    PyObject *error = build_error(self);
    if (error) {
        PyErr_SetObject((PyObject *)Py_TYPE(error), error);
        Py_DECREF(error);
    }
}

static const char *state_name(const Request *self)
{
    if (self->cancelled)
        return "cancelled";
    switch (self->place) {
    case AT_NEW:
    case AT_OVERFLOW:
        return "ready";
    case AT_GROUP:
        return "execute";
    case AT_SLOT: {
        uint32_t word =
            atomic_load_explicit(&self->pool->segment->slots[self->slot].state, memory_order_acquire);
        enum pa_phase phase = pa_state_phase(word);
        return phase == PA_READY ? "ready" : phase == PA_DONE ? "pending" : "execute";
    }
    case AT_PENDING:
    case AT_CONCLUDING:
        return "pending";
    case AT_DEAD:
        return "dead";
    default:
        return "done";
    }
}

static bool owned(const Request *self)
{
    return self->pool->fork_count == fork_count;
}

static PyObject *get_state(Request *self, void *unused)
{
    (void)unused;
    return PyUnicode_FromString(!owned(self) && self->place < AT_DONE ? "dead" : state_name(self));
}

static PyObject *get_result(Request *self, void *unused)
{
    (void)unused;
    return Py_NewRef(self->value && self->place >= AT_CALLBACK ? self->value : Py_None);
}

static PyObject *get_errno(Request *self, void *unused)
{
    (void)unused;
    return PyLong_FromLong(self->place >= AT_CALLBACK ? self->error : 0);
}

static PyObject *get_error(Request *self, void *unused)
{
    (void)unused;
    if (self->place < AT_CALLBACK || self->error == 0 || self->cancelled)
        Py_RETURN_NONE;
    return build_error(self);
}

static PyObject *get_pri(Request *self, void *unused)
{
    (void)unused;
    return PyLong_FromLong(self->pri);
}

static PyObject *get_copied(Request *self, void *unused)
{
    (void)unused;
    return PyLong_FromUnsignedLongLong(owned(self) ? queue_copied(self) : 0);
}

static PyObject *get_callback(Request *self, void *unused)
{
    (void)unused;
    return Py_NewRef(self->callback ? self->callback : Py_None);
}

static PyObject *repr(Request *self)
{
    const char *state = !owned(self) && self->place < AT_DONE ? "dead" : state_name(self);
    PyObject *what = NULL;
    if (self->path2)
        what = PyUnicode_FromFormat(" %R -> %R", self->path, self->path2);
    else if (self->path)
        what = PyUnicode_FromFormat(" %R", self->path);
    else
        what = self->fd >= 0 ? PyUnicode_FromFormat(" fd=%d", self->fd) : PyUnicode_New(0, 0);
    if (!what)
        return NULL;
    const char *name = self->is_group ? "group" : pa_ops[self->op].name;
    PyObject *text = PyUnicode_FromFormat("<%s %s%U %s pri=%d%s>",
                                          self->is_group ? "Group" : "Request", name, what, state,
                                          self->pri, self->error ? " failed" : "");
    Py_DECREF(what);
    return text;
}

/* -- methods ---------------------------------------------------------------------------------- */

/* A group takes its members with it; a member does not keep its group waiting. */
int request_cancel(Request *self)
{
    if (self->cancelled || self->place >= AT_CALLBACK || !owned(self) || !self->pool->segment)
        return 0;
    Py_INCREF(self);
    int withdrawn = queue_withdraw(self), failed = 0;
    if (self->is_group)
        failed = group_cancel_members(self);
    if (self->group && group_leave(self) < 0)
        failed = -1;
    Py_DECREF(self);
    return failed ? -1 : withdrawn;
}

static PyObject *cancel(Request *self, PyObject *unused)
{
    (void)unused;
    int withdrawn = request_cancel(self);
    return withdrawn < 0 ? NULL : PyBool_FromLong(withdrawn);
}

static PyObject *abort_(Request *self, PyObject *unused)
{
    (void)unused;
    if (self->place >= AT_CONCLUDING || !owned(self) || !self->pool->segment)
        Py_RETURN_FALSE;
    return PyBool_FromLong(queue_abort(self->pool, self, ECANCELED));
}

static PyObject *set_callback(Request *self, PyObject *callback)
{
    if (callback != Py_None && !PyCallable_Check(callback))
        return PyErr_Format(PyExc_TypeError, "callback must be callable or None, not %.100s",
                            Py_TYPE(callback)->tp_name);
    if (self->place >= AT_CALLBACK)
        return get_callback(self, NULL);
    PyObject *previous = self->callback;
    self->callback = callback == Py_None ? NULL : Py_NewRef(callback);
    return previous ? previous : Py_NewRef(Py_None);
}

static PyObject *wait_(Request *self, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"timeout", NULL};
    PyObject *given = Py_None;
    double timeout = -1;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "|O:wait", names, &given))
        return NULL;
    if (given != Py_None) {
        timeout = PyFloat_AsDouble(given);
        if (timeout == -1 && PyErr_Occurred())
            return NULL;
        if (!(timeout >= 0))
            return PyErr_Format(PyExc_ValueError, "timeout must not be negative: %R", given);
    }
    return poll_wait_for(self, timeout);
}

static PyMethodDef methods[] = {
    {"__class_getitem__", Py_GenericAlias, METH_O | METH_CLASS, /* Request[bytes], in annotations */
     "Type checkers know what a request yields."},
    {"cancel", (PyCFunction)cancel, METH_NOARGS,
     "cancel($self, /)\n--\n\n"
     "Give up on this request: its callback will not be called.\n\n"
     "Returns True if no worker had taken it, so it will never run, and False if it runs or has\n"
     "ended (a system call in progress is not interrupted; its result is thrown away, and a\n"
     "descriptor that arrives is closed). Waiting for it raises RequestCancelled. It counts in\n"
     "nreqs() until it has passed poll_cb(). Once the callback was called this does nothing."},
    {"abort", (PyCFunction)abort_, METH_NOARGS,
     "abort($self, /)\n--\n\n"
     "End this request now: it completes with ECANCELED, and its callback is called.\n\n"
     "If a worker executes it that one is killed, however long its system call would take, and\n"
     "replaced; whether the call was made is unknown then. A group's members are aborted, and the\n"
     "group ends when they have. Returns False if that changes nothing: the request has ended, or was\n"
     "aborted before, or the program itself executes it (Pool(inline=True)). The `timeout` of every\n"
     "function does the same with ETIMEDOUT, so many seconds after the call."},
    {"cb", (PyCFunction)set_callback, METH_O,
     "cb($self, callback, /)\n--\n\nReplace the callback (None: no callback); returns the previous "
     "one.\nDoes nothing once the callback was called."},
    {"wait", (PyCFunction)(void (*)(void))wait_, METH_VARARGS | METH_KEYWORDS,
     "wait($self, /, timeout=None)\n--\n\n"
     "Poll the request's pool until it is done; return its value or raise its OSError.\n\n"
     "Callbacks of other requests run meanwhile. Raises RequestCancelled if it was cancelled, and\n"
     "TimeoutError after `timeout` seconds; the request goes on then. May be called in a callback."},
    {"_waiter", (PyCFunction)request_waiter, METH_O, NULL},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef getset[] = {
    {"state", (getter)get_state, NULL,
     "'ready' (no worker has it), 'execute', 'pending' (executed, waits for poll_cb), 'done',\n"
     "'cancelled', or 'dead' (made before a fork and seen in the child).",
     NULL},
    {"result", (getter)get_result, NULL,
     "What await and wait() give; None while it is not done, or if it failed.", NULL},
    {"errno", (getter)get_errno, NULL, "0 on success and while it is not done, else the errno.",
     NULL},
    {"error", (getter)get_error, NULL, "The OSError of a failed request, with its path; or None.",
     NULL},
    {"pri", (getter)get_pri, NULL, "The priority, -4 to 4.", NULL},
    {"copied", (getter)get_copied, NULL,
     "How far aio_copy, or aio_move to another file system, is: bytes of the file, holes included.\n"
     "It grows while they run, and stays as it is afterwards; 0 for everything else.",
     NULL},
    {"callback", (getter)get_callback, NULL, "The callback, or None.", NULL},
    {"__dict__", PyObject_GenericGetDict, PyObject_GenericSetDict, NULL, NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyMemberDef members[] = {
    {"__dictoffset__", T_PYSSIZET, offsetof(Request, dict), READONLY, NULL},
    {"__weaklistoffset__", T_PYSSIZET, offsetof(Request, weakrefs), READONLY, NULL},
    {NULL, 0, 0, 0, NULL},
};

static PyType_Slot slots[] = {
    {Py_tp_dealloc, dealloc},
    {Py_tp_traverse, traverse},
    {Py_tp_clear, clear},
    {Py_tp_repr, repr},
    {Py_tp_methods, methods},
    {Py_tp_getset, getset},
    {Py_tp_members, members},
    {Py_am_await, request_await},
    {Py_tp_doc, "One operation on its way: what every aio_ function returns.\n\n"
                "It can be awaited (by several tasks, and again when it is done), waited for with\n"
                "wait(), cancelled, and given attributes of the program's own."},
    {0, NULL},
};

PyType_Spec Request_Spec = {
    .name = "procaio.Request",
    .basicsize = sizeof(Request),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = slots,
};
