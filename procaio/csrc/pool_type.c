/* procaio/csrc/pool_type.c - what Python sees of a pool: polling, counters, settings, statistics.
 *
 * Its life is in pool.c, the waiting in poll.c.  Whatever runs callbacks or lets other threads run
 * may find the pool closed afterwards.
 */
#include "core.h"

PyTypeObject *Pool_Type;

/* -- polling ---------------------------------------------------------------------------------- */

static PyObject *poll_cb(Pool *pool, PyObject *unused)
{
    (void)unused;
    uint64_t processed;
    if (pool_check(pool) < 0)
        return NULL;
    int left = poll_some(pool, 0, &processed);
    while (left >= 0 && pool->max_outstanding && pool->segment &&
           pool->nreqs > pool->max_outstanding) {
        if (processed == 0 && poll_sleep(pool, NULL, -1) < 0)
            return NULL;
        left = poll_some(pool, 0, &processed);
    }
    return left < 0 ? NULL : PyLong_FromLong(-left);
}

/* Until something is pending or is to be told, or another thread has ended something. */
static int wait_for_news(Pool *pool)
{
    uint64_t completed = pool->totals.completed;
    while (pool->segment && pool->fork_count == fork_count) {
        queue_harvest(pool);
        if (pool->nreqs == 0 || queue_anything_pending(pool) || deaths_are_to_be_told(pool) ||
            pool->totals.completed != completed)
            return 0;
        if (poll_sleep(pool, NULL, -1) < 0)
            return -1;
    }
    return 0;
}

static PyObject *poll_wait(Pool *pool, PyObject *unused)
{
    (void)unused;
    if (pool_check(pool) < 0 || wait_for_news(pool) < 0)
        return NULL;
    if (pool->segment)
        poll_leave_readable(pool);
    Py_RETURN_NONE;
}

static PyObject *poll(Pool *pool, PyObject *unused)
{
    (void)unused;
    uint64_t processed = 0;
    if (pool_check(pool) < 0)
        return NULL;
    while (processed == 0 && pool->segment && pool->nreqs > 0) {
        if (poll_some(pool, 0, &processed) < 0)
            return NULL;
        if (processed == 0 && pool->nreqs > 0 && wait_for_news(pool) < 0)
            return NULL;
    }
    return PyLong_FromUnsignedLongLong(processed);
}

/* flush(timeout=None): until nothing is outstanding. */
static PyObject *flush(Pool *pool, PyObject *args)
{
    PyObject *given = Py_None;
    if (!PyArg_ParseTuple(args, "|O:flush", &given))
        return NULL;
    double timeout = given == Py_None ? -1 : PyFloat_AsDouble(given);
    if (PyErr_Occurred() || (!pool->closed && pool_check(pool) < 0))
        return NULL;
    uint64_t end_ns = timeout >= 0 ? pa_now_ns() + poll_ns(timeout) : 0, processed;
    while (pool->segment && pool->nreqs > 0) {
        if (poll_some(pool, 0, &processed) < 0)
            return NULL;
        if (processed > 0) {
            if (PyErr_CheckSignals() < 0)
                return NULL;
            continue;
        }
        double left = -1;
        if (timeout >= 0) {
            uint64_t now = pa_now_ns();
            if (now >= end_ns)
                Py_RETURN_FALSE;
            left = (double)(end_ns - now) / 1e9;
        }
        if (pool->nreqs > 0 && poll_sleep(pool, NULL, left) < 0)
            return NULL;
    }
    Py_RETURN_TRUE;
}

/* What a loop calls when poll_fileno is readable. */
static PyObject *on_readable(Pool *pool, PyObject *unused)
{
    (void)unused;
    if (!pool->segment || pool->fork_count != fork_count)
        Py_RETURN_NONE;
    return await_turn(pool) < 0 ? NULL : Py_NewRef(Py_None);
}

static PyObject *pool_fileno(Pool *pool, PyObject *unused)
{
    (void)unused;
    if (pool_check(pool) < 0)
        return NULL;
    if (!pool->watched) {
        pool->watched = true;
        poll_kick(pool); /* results may wait already, with nobody asked to ring */
    }
    return PyLong_FromLong(pool->epoll_fd);
}

static PyObject *sleep_(Pool *pool, PyObject *arg)
{
    double seconds = PyFloat_AsDouble(arg);
    if (PyErr_Occurred() || pool_check(pool) < 0 || poll_sleep(pool, NULL, seconds) < 0)
        return NULL;
    if (pool->segment)
        pool_look_after(pool);
    if (pool->segment) /* still */
        poll_leave_readable(pool);
    Py_RETURN_NONE;
}

/* -- counters --------------------------------------------------------------------------------- */

static PyObject *nreqs(Pool *pool, PyObject *unused)
{
    (void)unused;
    return PyLong_FromUnsignedLongLong(pool->fork_count == fork_count ? pool->nreqs : 0);
}

static PyObject *nready(Pool *pool, PyObject *unused)
{
    (void)unused;
    bool alive = pool->segment && pool->fork_count == fork_count;
    return PyLong_FromUnsignedLongLong(alive ? queue_count_ready(pool) : 0);
}

static PyObject *npending(Pool *pool, PyObject *unused)
{
    (void)unused;
    if (!pool->segment || pool->fork_count != fork_count)
        return PyLong_FromLong(0);
    queue_harvest(pool);
    return PyLong_FromUnsignedLongLong(pool->pending_length);
}

static uint32_t count_workers(Pool *pool)
{
    uint32_t count = 0;
    for (uint32_t worker = 0; pool->segment && worker < PA_MAX_WORKERS; worker++) {
        uint32_t life = atomic_load(&pool->segment->workers[worker].life);
        count += life == PA_STARTING || life == PA_ALIVE;
    }
    return count;
}

static PyObject *nworkers(Pool *pool, PyObject *unused)
{
    (void)unused;
    return PyLong_FromUnsignedLong(pool->fork_count == fork_count ? count_workers(pool) : 0);
}

/* -- settings --------------------------------------------------------------------------------- */

/* `_wanted(n)`: how many workers there may be; surplus ones are told to leave. */
static PyObject *set_wanted(Pool *pool, PyObject *arg)
{
    unsigned long wanted = PyLong_AsUnsignedLong(arg);
    if (PyErr_Occurred() || pool_check(pool) < 0)
        return NULL;
    struct pa_segment *segment = pool->segment;
    pool->wanted = (uint32_t)wanted;
    atomic_store(&segment->header.wanted, pool->wanted);
    uint32_t count = count_workers(pool);
    /* The highest numbers first; a worker that was told so before may stay after all. */
    for (uint32_t worker = PA_MAX_WORKERS; worker-- > 0;) {
        struct pa_worker *record = &segment->workers[worker];
        uint32_t life = atomic_load(&record->life);
        if (life != PA_STARTING && life != PA_ALIVE)
            continue;
        bool leave = count > wanted;
        atomic_store(&record->retire, leave);
        if (leave) {
            count--;
            pa_wake_worker(segment, worker);
        }
    }
    if (pool->spawner_pid)
        pa_monitor_ring(segment);
    queue_wanted_changed(pool);
    Py_RETURN_NONE;
}

/* `_surplus(n)`: whether there are more workers than that; for 0, or threads that execute. */
static PyObject *has_surplus(Pool *pool, PyObject *arg)
{
    unsigned long wanted = PyLong_AsUnsignedLong(arg);
    if (PyErr_Occurred())
        return NULL;
    if (!pool->segment || pool->fork_count != fork_count)
        Py_RETURN_FALSE;
    return PyBool_FromLong(count_workers(pool) > wanted ||
                           (wanted == 0 && queue_count_threads(pool) > 0));
}

/* `_idle(max_idle, idle_timeout_ms)`: those that sleep look at it at once. */
static PyObject *set_idle(Pool *pool, PyObject *args)
{
    unsigned int max_idle, idle_timeout_ms;
    if (!PyArg_ParseTuple(args, "II:_idle", &max_idle, &idle_timeout_ms) || pool_check(pool) < 0)
        return NULL;
    pool->max_idle = max_idle;
    pool->idle_timeout_ms = idle_timeout_ms;
    atomic_store(&pool->segment->header.max_idle, max_idle);
    atomic_store(&pool->segment->header.idle_timeout_ms, idle_timeout_ms);
    pa_wake_all(pool->segment);
    Py_RETURN_NONE;
}

/* `_on_death(hook or None)`: called with the number, pid, exit code and operation of a worker. */
static PyObject *set_on_death(Pool *pool, PyObject *hook)
{
    Py_XSETREF(pool->on_death, hook == Py_None ? NULL : Py_NewRef(hook));
    Py_RETURN_NONE;
}

static PyObject *arm_fault(Pool *pool, PyObject *args)
{
    unsigned int point, signal_number;
    int countdown;
    if (!PyArg_ParseTuple(args, "IIi:_arm_fault", &point, &signal_number, &countdown) ||
        pool_check(pool) < 0)
        return NULL;
    struct pa_header *header = &pool->segment->header;
    atomic_store(&header->fault_signal, signal_number);
    atomic_store(&header->fault_countdown, countdown);
    atomic_store(&header->fault_point, point);
    Py_RETURN_NONE;
}

/* -- statistics ------------------------------------------------------------------------------- */

static PyObject *worker_snapshot(Pool *pool, uint32_t worker)
{
    static const char *const activities[] = {"search", "sleep", "execute"};
    struct pa_worker *record = &pool->segment->workers[worker];
    uint32_t activity = atomic_load(&record->activity) % 3, op = atomic_load(&record->op);
    bool running = activity == PA_RUNNING && op < PA_NOPS;
    return Py_BuildValue("IisIz", worker, pool_pid_of(pool, worker), activities[activity],
                         atomic_load(&record->taken), running ? pa_ops[op].name : NULL);
}

static PyObject *snapshot(Pool *pool, PyObject *unused)
{
    (void)unused;
    if (pool_check(pool) < 0)
        return NULL;
    queue_harvest(pool);
    pool_know_workers(pool);
    PyObject *lanes = PyList_New(0), *workers = PyList_New(0);
    for (uint32_t lane = 0; lanes && lane < PA_NLANES; lane++) {
        uint64_t queued = pool->overflow[lane].length;
        for (uint32_t i = 0; i < PA_NSLOTS; i++)
            if (pool->in_flight[i] && pool->in_flight[i]->pri == 4 - (int)lane) {
                uint32_t word = atomic_load(&pool->segment->slots[i].state);
                queued += pa_state_phase(word) == PA_READY;
            }
        PyObject *item = PyLong_FromUnsignedLongLong(queued);
        if (!item || PyList_Append(lanes, item) < 0)
            Py_CLEAR(lanes);
        Py_XDECREF(item);
    }
    for (uint32_t worker = 0; workers && worker < PA_MAX_WORKERS; worker++) {
        uint32_t life = atomic_load(&pool->segment->workers[worker].life);
        /* One that has no pid yet: whoever sends signals to what is listed must not hit 0. */
        if ((life != PA_STARTING && life != PA_ALIVE) || pool_pid_of(pool, worker) == 0)
            continue;
        PyObject *item = worker_snapshot(pool, worker);
        if (!item || PyList_Append(workers, item) < 0)
            Py_CLEAR(workers);
        Py_XDECREF(item);
    }
    if (!lanes || !workers) {
        Py_XDECREF(lanes);
        Py_XDECREF(workers);
        return NULL;
    }
    const Totals *t = &pool->totals;
    return Py_BuildValue(
        "{s:N,s:N,s:K,s:K,s:K,s:K,s:K,s:K,s:K,s:K,s:K,s:K,s:K,s:I,s:K,s:K,s:i,s:i}", "queued", lanes,
        "workers", workers, "outstanding", pool->nreqs, "pending", pool->pending_length, "submitted",
        t->submitted, "completed", t->completed, "failed", t->failed, "cancelled", t->cancelled,
        "rerun", t->rerun, "aborted", t->aborted, "died", t->died, "worker_deaths",
        t->worker_deaths, "spawner_deaths", t->spawner_deaths, "deadlines",
        (unsigned int)pool->deadline_count, "shared_bytes",
        (uint64_t)offsetof(struct pa_segment, results) +
            (pool->arena ? pa_arena_mapped(pool->arena) : 0),
        "shared_used", pool->arena ? pa_arena_used(pool->arena) : (uint64_t)0, "spawner_pid",
        pool->spawner_pid, "start_errno",
        (int)atomic_load(&pool->segment->header.start_errno));
}

/* -- the type --------------------------------------------------------------------------------- */

static PyObject *new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    (void)args;
    (void)kwargs;
    Pool *self = (Pool *)type->tp_alloc(type, 0);
    if (!self)
        return NULL;
    self->segment_fd = self->event_fd = self->epoll_fd = self->dead_fd = -1;
    self->spawner_pidfd = self->timer_fd = -1;
    self->fork_count = fork_count;
    self->closed = true;
    return (PyObject *)self;
}

static int traverse(Pool *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(self->dict);
    Py_VISIT(self->source);
    Py_VISIT(self->loop);
    Py_VISIT(self->on_death);
    return 0;
}

static int clear(Pool *self)
{
    Py_CLEAR(self->dict);
    Py_CLEAR(self->source);
    Py_CLEAR(self->loop);
    Py_CLEAR(self->on_death);
    return 0;
}

static void dealloc(Pool *self)
{
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack((PyObject *)self);
    if (self->weakrefs)
        PyObject_ClearWeakRefs((PyObject *)self);
    pool_end(self);
    deaths_forget(self);
    clear(self);
    type->tp_free(self);
    Py_DECREF(type);
}

/* Not whether it is closed, but whether it has what it needs, and is this process's own. */
static PyObject *is_open(Pool *pool, PyObject *unused)
{
    (void)unused;
    return PyBool_FromLong(pool->segment && pool->fork_count == fork_count);
}

static PyMethodDef methods[] = {
    {"_open", (PyCFunction)pool_open, METH_VARARGS, NULL},
    {"_kill", (PyCFunction)pool_kill, METH_VARARGS, NULL},
    {"_release", (PyCFunction)pool_release, METH_NOARGS, NULL},
    {"_abandon", (PyCFunction)pool_abandon, METH_NOARGS, NULL},
    {"_disown", (PyCFunction)pool_disown, METH_NOARGS, NULL},
    {"_is_open", (PyCFunction)is_open, METH_NOARGS, NULL},
    {"_wanted", (PyCFunction)set_wanted, METH_O, NULL},
    {"_surplus", (PyCFunction)has_surplus, METH_O, NULL},
    {"_idle", (PyCFunction)set_idle, METH_VARARGS, NULL},
    {"_on_death", (PyCFunction)set_on_death, METH_O, NULL},
    {"_sleep", (PyCFunction)sleep_, METH_O, NULL},
    {"_flush", (PyCFunction)flush, METH_VARARGS, NULL},
    {"_snapshot", (PyCFunction)snapshot, METH_NOARGS, NULL},
    {"_arm_fault", (PyCFunction)arm_fault, METH_VARARGS, NULL},
    {"_on_readable", (PyCFunction)on_readable, METH_NOARGS, NULL},
    {"poll_fileno", (PyCFunction)pool_fileno, METH_NOARGS,
     "poll_fileno($self, /)\n--\n\n"
     "A descriptor that is readable while results wait; call poll_cb() then. Its number never\n"
     "changes in the life of the pool."},
    {"poll_cb", (PyCFunction)poll_cb, METH_NOARGS,
     "poll_cb($self, /)\n--\n\n"
     "End the requests that were executed: callbacks run, waiting tasks are woken.\n\n"
     "Does not wait, unless max_outstanding says so. Returns 0 when all were processed and -1 when\n"
     "some are left, because of max_poll_reqs or max_poll_time or because callbacks made more\n"
     "(the descriptor stays readable then)."},
    {"poll_wait", (PyCFunction)poll_wait, METH_NOARGS,
     "poll_wait($self, /)\n--\n\n"
     "Wait until a request has been executed, or poll_cb() has something else to tell\n"
     "(on_worker_death). Returns at once if no request is outstanding or one is pending already."},
    {"poll", (PyCFunction)poll, METH_NOARGS,
     "poll($self, /)\n--\n\n"
     "Wait until some requests were executed, and process them; returns how many.\n\n"
     "0 only when nothing is outstanding."},
    {"nreqs", (PyCFunction)nreqs, METH_NOARGS,
     "nreqs($self, /)\n--\n\nRequests that are ready, executing or pending."},
    {"nready", (PyCFunction)nready, METH_NOARGS,
     "nready($self, /)\n--\n\nRequests that no worker has taken yet."},
    {"npending", (PyCFunction)npending, METH_NOARGS,
     "npending($self, /)\n--\n\nRequests that were executed and wait for poll_cb()."},
    {"nworkers", (PyCFunction)nworkers, METH_NOARGS,
     "nworkers($self, /)\n--\n\nWorker processes that live; 0 before the first request."},
    {NULL, NULL, 0, NULL},
};

static PyMemberDef members[] = {
    {"__dictoffset__", T_PYSSIZET, offsetof(Pool, dict), READONLY, NULL},
    {"__weaklistoffset__", T_PYSSIZET, offsetof(Pool, weakrefs), READONLY, NULL},
    {"closed", T_BOOL, offsetof(Pool, closed), READONLY, "True once close() was called."},
    {"_spawner_pid", T_INT, offsetof(Pool, spawner_pid), READONLY, NULL},
    {"_at_once", T_BOOL, offsetof(Pool, at_once), 0, NULL},
    {"_max_poll_reqs", T_ULONGLONG, offsetof(Pool, max_poll_reqs), 0, NULL},
    {"_max_poll_time", T_DOUBLE, offsetof(Pool, max_poll_time), 0, NULL},
    {"_max_outstanding", T_ULONGLONG, offsetof(Pool, max_outstanding), 0, NULL},
    {NULL, 0, 0, 0, NULL},
};

static PyType_Slot slots[] = {
    {Py_tp_new, new},         {Py_tp_dealloc, dealloc}, {Py_tp_traverse, traverse},
    {Py_tp_clear, clear},     {Py_tp_methods, methods}, {Py_tp_members, members},
    {Py_tp_doc, "What procaio.Pool is made from; use that."},
    {0, NULL},
};

PyType_Spec Pool_Spec = {
    .name = "procaio._core.CorePool",
    .basicsize = sizeof(Pool),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_BASETYPE,
    .slots = slots,
};
