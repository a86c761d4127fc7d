/* procaio/csrc/await.c - a request as what an asyncio task waits on.
 *
 * `await request` makes a Waiter, which is at once the iterator that the task steps and the future
 * that the task waits for (the `_asyncio_future_blocking` protocol), so no Future is made.  Several
 * tasks, in several loops and threads, may wait for one request; each has its own Waiter.
 *
 * Who waits otherwise (trio, a greenlet, a Deferred: procaio/_loops) asks for a Waiter by
 * `request._waiter(loop)`, whose loop is then whatever has asyncio's names for calling things.
 */

#include "core.h"

struct Waiter {
    PyObject_HEAD
    Request *request;
    PyObject *loop;
    PyObject *wakeup, *context; /* what the task wants called; NULL before and after */
    PyObject *message;          /* of cancel() */
    Waiter *next;               /* of the same request, or of the same turn */
    unsigned long thread;
    bool blocking; /* the task has yet to see it */
    bool yielded;
    bool cancelled;
    bool is_called; /* at the end of the turn */
};

PyTypeObject *Waiter_Type;

static PyObject *str_call_soon, *str_call_soon_threadsafe, *kw_context, *str_attach;

/* A function that is imported when it is needed first. */
static PyObject *call_imported(PyObject **place, const char *module, const char *name,
                               PyObject *argument)
{
    if (!*place) {
        PyObject *imported = PyImport_ImportModule(module);
        *place = imported ? PyObject_GetAttrString(imported, name) : NULL;
        Py_XDECREF(imported);
        if (!*place)
            return NULL;
    }
    return argument ? PyObject_CallOneArg(*place, argument) : PyObject_CallNoArgs(*place);
}

static _Thread_local PyObject *stepping; /* the loop whose tasks are being stepped */

static PyObject *running_loop(void)
{
    if (stepping)
        return Py_NewRef(stepping);
    return call_imported(&hooks.running_loop, "asyncio.events", "_get_running_loop", NULL);
}

static bool others_may_run(void)
{
    static struct imported trio, twisted;
    return is_imported(&trio, "trio") || is_imported(&twisted, "twisted");
}

/* The loop watches the pool's descriptor from the first await on. */
static int attach(Pool *pool, PyObject *loop)
{
    if (likely(pool->loop == loop))
        return 0;
    PyObject *name = interned(&str_attach, "_attach");
    PyObject *done = name ? PyObject_CallMethodOneArg((PyObject *)pool, name, loop) : NULL;
    if (!done)
        return -1;
    Py_DECREF(done);
    Py_XSETREF(pool->loop, Py_NewRef(loop));
    return 0;
}

/* Takes over the reference to the loop. */
static Waiter *waiter_new(Request *request, PyObject *loop)
{
    Waiter *self = PyObject_GC_New(Waiter, Waiter_Type);
    if (!self) {
        Py_XDECREF(loop);
        return NULL;
    }
    self->request = (Request *)Py_NewRef((PyObject *)request);
    self->loop = loop;
    self->wakeup = self->context = self->message = NULL;
    self->next = NULL;
    self->thread = PyThread_get_thread_ident();
    self->blocking = self->yielded = self->cancelled = self->is_called = false;
    PyObject_GC_Track((PyObject *)self);
    return self;
}

static bool is_outstanding(Request *request)
{
    if (request->place < AT_CALLBACK &&
        (request->pool->fork_count != fork_count || !request->pool->segment))
        request->place = AT_DEAD;
    return request->place < AT_CALLBACK;
}

/* What was done at once is there when it is awaited: the task goes on with it, and need not leave
 * the turn of its loop.  Only so often in a turn, so that others get theirs. */
static bool take_at_hand(Request *request)
{
    Pool *pool = request->pool;
    if (pool->at_hand == 0 || !queue_take_at_hand(pool, request))
        return false;
    pool->at_hand--;
    pool->cached_fd = -1;
    deliver(pool, request); /* there is nobody to tell, so nothing can fail */
    poll_tell_others(pool);
    return true;
}

PyObject *request_await(PyObject *object)
{
    Request *request = (Request *)object;
    bool outstanding = is_outstanding(request);
    PyObject *loop = outstanding ? running_loop() : NULL;
    if (outstanding && !loop)
        return NULL;
    if (others_may_run() || loop == Py_None) {
        PyObject *other = call_loops("elsewhere", "(O)", object);
        if (other != Py_None) { /* what is to be stepped instead; or NULL */
            Py_XDECREF(loop);
            return other;
        }
        Py_DECREF(other);
        if (loop == Py_None) /* another thread has delivered it meanwhile */
            Py_CLEAR(loop);
    }
    if (loop && take_at_hand(request))
        Py_CLEAR(loop);
    if (loop && attach(request->pool, loop) < 0) {
        Py_DECREF(loop);
        return NULL;
    }
    return (PyObject *)waiter_new(request, loop);
}

static void enter_queue(Waiter *self)
{
    self->next = self->request->waiters; /* the request's reference to it */
    self->request->waiters = (Waiter *)Py_NewRef((PyObject *)self);
}

/* `_waiter(loop)`: None if it has ended.  Its `add_done_callback` says what is to be called in the
 * loop, its `stand_aside` and `give_up` that nobody waits there any more. */
PyObject *request_waiter(Request *request, PyObject *loop)
{
    if (!is_outstanding(request))
        Py_RETURN_NONE;
    if (attach(request->pool, loop) < 0)
        return NULL;
    Waiter *self = waiter_new(request, Py_NewRef(loop));
    if (self)
        enter_queue(self);
    return (PyObject *)self;
}

static void leave_queue(Waiter *self)
{
    for (Waiter **at = &self->request->waiters; *at; at = &(*at)->next)
        if (*at == self) {
            *at = self->next;
            self->next = NULL;
            Py_DECREF(self);
            return;
        }
}

static PySendResult step(PyObject *object, PyObject *argument, PyObject **result)
{
    (void)argument;
    Waiter *self = (Waiter *)object;
    Request *request = self->request;
    if (request->place < AT_CALLBACK) {
        if (self->yielded) {
            PyErr_SetString(PyExc_RuntimeError, "the awaiting task was resumed too early");
            *result = NULL;
            return PYGEN_ERROR;
        }
        self->yielded = self->blocking = true;
        enter_queue(self);
        *result = Py_NewRef(object);
        return PYGEN_NEXT;
    }
    if (request->value) {
        *result = Py_NewRef(request->value);
        return PYGEN_RETURN;
    }
    request_raise(request);
    *result = NULL;
    return PYGEN_ERROR;
}

static PyObject *iterate(PyObject *self)
{
    PyObject *result;
    PySendResult what = step(self, Py_None, &result);
    if (what == PYGEN_RETURN) {
        PyObject *stop = PyObject_CallOneArg(PyExc_StopIteration, result);
        if (stop)
            PyErr_SetObject(PyExc_StopIteration, stop);
        Py_XDECREF(stop);
        Py_DECREF(result);
        return NULL;
    }
    return result;
}

/* loop.call_soon(wakeup, self, context=context), from whichever thread this is. */
static int schedule(Waiter *self)
{
    if (!self->wakeup)
        return 0;
    PyObject *wakeup = self->wakeup, *context = self->context;
    self->wakeup = self->context = NULL;
    bool here = self->thread == PyThread_get_thread_ident();
    PyObject *name = here ? interned(&str_call_soon, "call_soon")
                          : interned(&str_call_soon_threadsafe, "call_soon_threadsafe");
    if (!kw_context)
        kw_context = Py_BuildValue("(s)", "context");
    PyObject *arguments[] = {self->loop, wakeup, (PyObject *)self, context};
    PyObject *handle =
        name && kw_context
            ? PyObject_VectorcallMethod(name, arguments, 3, context ? kw_context : NULL)
            : NULL;
    Py_DECREF(wakeup);
    Py_XDECREF(context);
    if (!handle) /* the loop was closed under its tasks: nobody is left to be told */
        PyErr_WriteUnraisable((PyObject *)self);
    Py_XDECREF(handle);
    return handle ? 0 : -1;
}

/* In a turn of its loop a task is stepped by the turn itself, at its end, as the loop would do next:
 * without a handle, its way through the queue and the Python code around both.  By then all is
 * settled here, so a task may do whatever it may do elsewhere, like run another loop. */
static _Thread_local struct turn {
    bool is_on, is_known;
    PyObject *loop; /* whose tasks are stepped: it is looked for when one of them waits */
    Waiter *first, **end;
} turn;

static void know_asyncio(void)
{
    PyObject *asyncio = PyImport_ImportModule("asyncio");
    hooks.Task = asyncio ? PyObject_GetAttrString(asyncio, "Task") : NULL;
    Py_XDECREF(asyncio);
    hooks.settled = hooks.Task ? call_loops("settled_future", "()") : NULL;
}

static void know_turn(void)
{
    turn.is_known = true;
    PyObject *loop = running_loop();
    PyObject *may = loop ? call_imported(&hooks.steps_tasks, "procaio._loops", "steps_tasks", loop)
                         : NULL;
    if (may == Py_True)
        turn.loop = Py_NewRef(loop);
    if (may == Py_True && !hooks.settled)
        know_asyncio();
    Py_XDECREF(may);
    Py_XDECREF(loop);
    PyErr_Clear(); /* it is called as ever then, and says itself what is wrong */
}

static bool is_its_turn(const Waiter *self)
{
    if (!turn.is_on || !self->wakeup || self->thread != PyThread_get_thread_ident())
        return false;
    if (!turn.is_known)
        know_turn();
    return turn.loop && turn.loop == self->loop;
}

/* It is on its way as if its loop had been told. */
static void step_later(Waiter *self)
{
    self->is_called = true;
    *turn.end = (Waiter *)Py_NewRef((PyObject *)self);
    turn.end = &self->next;
}

/* What a task of asyncio is woken with.  It asks that for its outcome, and does so most quickly if it
 * is a future of asyncio's own; the outcome itself it gets from the next step(). */
static PyObject *settled_for(Waiter *self, PyObject *wakeup)
{
    if (self->cancelled || !hooks.settled || !hooks.Task || !PyCFunction_Check(wakeup))
        return (PyObject *)self;
    PyObject *task = PyCFunction_GET_SELF(wakeup);
    return task && (PyObject *)Py_TYPE(task) == hooks.Task ? hooks.settled : (PyObject *)self;
}

/* 0, or -1 with what goes on into the loop, as it would from a call of its own: SystemExit. */
static int step_task(Waiter *self)
{
    PyObject *wakeup = self->wakeup, *context = self->context;
    if (!wakeup)
        return 0;
    if (context && PyContext_Enter(context) < 0) { /* whoever runs this is in it */
        PyErr_Clear();
        return schedule(self);
    }
    self->wakeup = self->context = NULL;
    PyObject *done = PyObject_CallOneArg(wakeup, settled_for(self, wakeup));
    if (context && PyContext_Exit(context) < 0)
        Py_CLEAR(done);
    Py_DECREF(wakeup);
    Py_XDECREF(context);
    Py_XDECREF(done);
    return done ? 0 : -1;
}

/* After an exception the loop calls them, if it goes on. */
static int step_tasks(Waiter *waiter, PyObject *loop, int failed)
{
    PyObject *type = NULL, *value = NULL, *traceback = NULL, *outer = stepping;
    stepping = loop;
    if (failed < 0)
        PyErr_Fetch(&type, &value, &traceback);
    while (waiter) {
        Waiter *next = waiter->next;
        waiter->next = NULL;
        if (failed < 0) {
            schedule(waiter);
        } else if ((failed = step_task(waiter)) < 0) {
            PyErr_Fetch(&type, &value, &traceback);
        }
        Py_DECREF(waiter);
        waiter = next;
    }
    stepping = outer;
    if (failed < 0)
        PyErr_Restore(type, value, traceback);
    return failed;
}

static int deliver_some(Pool *pool)
{
    enum { RESULTS = 32 };
    uint64_t processed;
    struct turn outer = turn;
    turn = (struct turn){.is_on = true, .end = &turn.first};
    int left = poll_some(pool, RESULTS, &processed);
    Waiter *tasks = turn.first;
    PyObject *loop = turn.loop;
    turn = outer;
    left = step_tasks(tasks, loop, left < 0 ? -1 : 0);
    Py_XDECREF(loop);
    return left;
}

/* Delivers some results in a turn of a loop.  A turn is kept short, so that timers and sockets get
 * theirs. */
int await_turn(Pool *pool)
{
    enum { AT_HAND = 16 };
    const struct pa_segment *segment = pool->segment;
    uint64_t began_ns = poll_turn_begins(pool);
    pool->at_hand = AT_HAND;
    int failed;
    do
        failed = deliver_some(pool);
    while (failed == 0 && pool->segment == segment && pool->fork_count == fork_count &&
           poll_turn_goes_on(pool, began_ns));
    return failed;
}

void waiters_wake(Request *request)
{
    Waiter *waiter = request->waiters, *reversed = NULL;
    request->waiters = NULL;
    while (waiter) { /* first come, first served */
        Waiter *next = waiter->next;
        waiter->next = reversed;
        reversed = waiter;
        waiter = next;
    }
    while (reversed) {
        Waiter *next = reversed->next;
        reversed->next = NULL;
        if (is_its_turn(reversed))
            step_later(reversed);
        else
            schedule(reversed);
        Py_DECREF(reversed);
        reversed = next;
    }
}

/* -- the future's side ------------------------------------------------------------------------ */

/* add_done_callback(wakeup, *, context=None) */
static PyObject *add_done_callback(Waiter *self, PyObject *const *args, Py_ssize_t count,
                                   PyObject *names)
{
    bool named = names && PyTuple_GET_SIZE(names) == 1 &&
                 PyUnicode_CompareWithASCIIString(PyTuple_GET_ITEM(names, 0), "context") == 0;
    if (count != 1 || (names && PyTuple_GET_SIZE(names) > 0 && !named)) {
        PyErr_SetString(PyExc_TypeError, "add_done_callback takes a callable and context=");
        return NULL;
    }
    if (self->wakeup) {
        PyErr_SetString(PyExc_RuntimeError, "only the awaiting task adds a callback");
        return NULL;
    }
    self->wakeup = Py_NewRef(args[0]);
    self->context = named && args[1] != Py_None ? Py_NewRef(args[1]) : NULL;
    if (self->request->place >= AT_CALLBACK)
        schedule(self);
    Py_RETURN_NONE;
}

static PyObject *remove_done_callback(Waiter *self, PyObject *wakeup)
{
    long removed = self->wakeup == wakeup && !self->is_called;
    if (removed) {
        Py_CLEAR(self->wakeup);
        Py_CLEAR(self->context);
    }
    return PyLong_FromLong(removed);
}

/* Nobody else may want the request.  A close is done all the same: whoever waits may be cancelled in
 * the `finally` that was to leave nothing open. */
static int stop_waiting(Waiter *self)
{
    Request *request = self->request;
    leave_queue(self);
    if (!request->waiters && !request->callback && !request->cancelled &&
        request->op != PA_OP_CLOSE && request->op != PA_OP_REPLACE && request->place < AT_CALLBACK)
        return request_cancel(request) < 0 ? -1 : 0;
    return 0;
}

/* The task is being cancelled. */
static PyObject *cancel(Waiter *self, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"msg", NULL};
    PyObject *message = Py_None;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "|O:cancel", names, &message))
        return NULL;
    if (self->cancelled || !self->wakeup || self->is_called)
        Py_RETURN_FALSE;
    self->cancelled = true;
    Py_XSETREF(self->message, Py_NewRef(message));
    Py_INCREF(self);
    int failed = stop_waiting(self);
    schedule(self);
    Py_DECREF(self);
    return failed ? NULL : Py_NewRef(Py_True);
}

/* The task asks for it when it is woken; the value itself is given by the next step. */
static PyObject *result(Waiter *self, PyObject *unused)
{
    (void)unused;
    if (!self->cancelled)
        Py_RETURN_NONE;
    PyObject *asyncio = PyImport_ImportModule("asyncio");
    PyObject *type = asyncio ? PyObject_GetAttrString(asyncio, "CancelledError") : NULL;
    Py_XDECREF(asyncio);
    if (!type)
        return NULL;
    if (self->message && self->message != Py_None)
        PyErr_SetObject(type, self->message);
    else
        PyErr_SetNone(type);
    Py_DECREF(type);
    return NULL;
}

/* The task will not take the value.  A descriptor that nobody else can reach is closed here: the
 * program never had it, so it gets no warning either. */
static void let_value_go(Waiter *self)
{
    const Request *request = self->request;
    if (request->value && FileHandle_Check(request->value) && Py_REFCNT(request) == 1 &&
        Py_REFCNT(request->value) == 1)
        filehandle_close(request->value);
}

/* Whoever waits goes; the request goes on. */
static PyObject *stand_aside(Waiter *self, PyObject *unused)
{
    (void)unused;
    Py_CLEAR(self->wakeup);
    Py_CLEAR(self->context);
    leave_queue(self);
    Py_RETURN_NONE;
}

/* Whoever waits has given up, and the request with it if nobody else wants it. */
static PyObject *give_up(Waiter *self, PyObject *unused)
{
    (void)unused;
    Py_CLEAR(self->wakeup);
    Py_CLEAR(self->context);
    Py_INCREF(self);
    int failed = stop_waiting(self);
    Py_DECREF(self);
    return failed ? NULL : Py_NewRef(Py_None);
}

/* What the event loop throws into the task (cancelled in the turn in which the result came). */
static PyObject *throw_(Waiter *self, PyObject *args)
{
    PyObject *type, *value = NULL, *traceback = NULL;
    if (!PyArg_ParseTuple(args, "O|OO:throw", &type, &value, &traceback))
        return NULL;
    let_value_go(self);
    if (PyExceptionInstance_Check(type))
        PyErr_SetObject((PyObject *)Py_TYPE(type), type);
    else
        PyErr_SetObject(type, value);
    return NULL;
}

/* The coroutine is closed while it awaits. */
static PyObject *close_(Waiter *self, PyObject *unused)
{
    (void)unused;
    let_value_go(self);
    Py_RETURN_NONE;
}

static PyObject *done(Waiter *self, PyObject *unused)
{
    (void)unused;
    return PyBool_FromLong(self->cancelled || self->request->place >= AT_CALLBACK);
}

static PyObject *cancelled(Waiter *self, PyObject *unused)
{
    (void)unused;
    return PyBool_FromLong(self->cancelled);
}

/* In place of get_loop(), after which asyncio looks first: a method takes longer to call. */
static PyObject *get_loop(Waiter *self, void *unused)
{
    (void)unused;
    return Py_NewRef(self->loop ? self->loop : Py_None);
}

static PyObject *get_blocking(Waiter *self, void *unused)
{
    (void)unused;
    return PyBool_FromLong(self->blocking);
}

static int set_blocking(Waiter *self, PyObject *value, void *unused)
{
    (void)unused;
    int truth = value ? PyObject_IsTrue(value) : 0;
    if (truth < 0)
        return -1;
    self->blocking = truth;
    return 0;
}

static PyObject *repr(Waiter *self)
{
    return PyUnicode_FromFormat("<awaiting %R>", self->request);
}

static int traverse(Waiter *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(self->request);
    Py_VISIT(self->loop);
    Py_VISIT(self->wakeup);
    Py_VISIT(self->context);
    Py_VISIT(self->message);
    return 0;
}

static int clear(Waiter *self)
{
    Py_CLEAR(self->loop);
    Py_CLEAR(self->wakeup);
    Py_CLEAR(self->context);
    Py_CLEAR(self->message);
    return 0;
}

static void dealloc(Waiter *self)
{
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack((PyObject *)self);
    clear(self);
    Py_CLEAR(self->request);
    PyObject_GC_Del(self);
    Py_DECREF(type);
}

static PyMethodDef methods[] = {
    {"add_done_callback", (PyCFunction)(void (*)(void))add_done_callback,
     METH_FASTCALL | METH_KEYWORDS, NULL},
    {"remove_done_callback", (PyCFunction)remove_done_callback, METH_O, NULL},
    {"cancel", (PyCFunction)(void (*)(void))cancel, METH_VARARGS | METH_KEYWORDS, NULL},
    {"give_up", (PyCFunction)give_up, METH_NOARGS, NULL},
    {"stand_aside", (PyCFunction)stand_aside, METH_NOARGS, NULL},
    {"result", (PyCFunction)result, METH_NOARGS, NULL},
    {"throw", (PyCFunction)throw_, METH_VARARGS, NULL},
    {"close", (PyCFunction)close_, METH_NOARGS, NULL},
    {"done", (PyCFunction)done, METH_NOARGS, NULL},
    {"cancelled", (PyCFunction)cancelled, METH_NOARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef getset[] = {
    {"_asyncio_future_blocking", (getter)get_blocking, (setter)set_blocking, NULL, NULL},
    {"_loop", (getter)get_loop, NULL, NULL, NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot slots[] = {
    {Py_tp_dealloc, dealloc},   {Py_tp_traverse, traverse}, {Py_tp_clear, clear},
    {Py_tp_repr, repr},         {Py_tp_methods, methods},   {Py_tp_getset, getset},
    {Py_tp_iter, PyObject_SelfIter}, {Py_tp_iternext, iterate}, {Py_am_send, step},
    {0, NULL},
};

PyType_Spec Waiter_Spec = {
    .name = "procaio._core.Waiter",
    .basicsize = sizeof(Waiter),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = slots,
};
