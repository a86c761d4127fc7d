/* procaio/csrc/group.c - Group: a request that is done when its members are.
 *
 * A group needs no worker.  It is made pending at once; if it has members when poll_cb comes to it,
 * or a feeder that may still add some, it waits (AT_GROUP, in the pool's queue of waiting groups)
 * until the last one's callback has returned, and becomes pending again.
 *
 * A member belongs to one group, from add() until it has passed poll_cb or is cancelled.  It holds a
 * reference to the group; the group's list of members holds none, for every member that is not done
 * is held by its pool.
 *
 * The feeder is called while fewer than `limit` members are there: by feed() and limit(), and when
 * one has gone.  It is never called within itself.
 */
#include "core.h"

#define MOST_NESTED 1000

enum { FED_AT_LEAST = 2 };

PyTypeObject *Group_Type;

/* -- its end ---------------------------------------------------------------------------------- */

/* Nothing keeps it from ending: a paused feeder (limit 0) does, and whoever makes a composite's
 * members; of an abort the latter learns from one of them. */
static bool is_over(const Group *self)
{
    bool is_fed = self->feeder && !self->abort_error;
    return self->active == 0 && !is_fed && !self->feeding && !self->held;
}

static void end_if_over(Group *self)
{
    if (self->request.place == AT_GROUP && is_over(self))
        queue_wake_group(&self->request);
}

bool group_must_wait(const Request *request)
{
    return !request->cancelled && !request->error && !is_over((const Group *)request);
}

PyObject *group_take_feeder(Request *request)
{
    Group *self = (Group *)request;
    PyObject *feeder = self->feeder;
    self->feeder = NULL;
    return feeder;
}

static bool wants_more(const Group *self)
{
    return self->feeder && !self->feeding && !self->abort_error && self->active < self->limit &&
           self->request.place != AT_DEAD;
}

/* A feeder is let go of when nothing waits for it: what goes with it may wait for the group. */
static int feed_now(Group *self)
{
    int failed = 0;
    while (!failed && wants_more(self)) {
        uint64_t before = self->added;
        PyObject *feeder = Py_NewRef(self->feeder), *gone = NULL;
        self->feeding = true;
        PyObject *done = PyObject_CallOneArg(feeder, (PyObject *)self);
        if (!done || self->added == before) /* it has nothing more */
            gone = group_take_feeder(&self->request);
        if (!done)
            failed = deliver_report(&self->request);
        self->feeding = false;
        end_if_over(self);
        Py_XDECREF(done);
        Py_XDECREF(gone);
        Py_DECREF(feeder);
    }
    if (!self->feeding)
        end_if_over(self);
    return failed;
}

/* -- members ---------------------------------------------------------------------------------- */

static void take_out(Request *member)
{
    Group *self = member->group;
    if (member->group_previous)
        member->group_previous->group_next = member->group_next;
    else
        self->members = member->group_next;
    if (member->group_next)
        member->group_next->group_previous = member->group_previous;
    else
        self->last = member->group_previous;
    member->group_next = member->group_previous = NULL;
    member->group = NULL;
    self->active--;
}

int group_leave(Request *member)
{
    Group *self = member->group;
    take_out(member);
    int failed = feed_now(self);
    Py_DECREF(self);
    return failed;
}

void group_forget(Request *member)
{
    Group *self = member->group;
    take_out(member);
    Py_DECREF(self);
}

static void put_in(Group *self, Request *member)
{
    member->group = (Group *)Py_NewRef((PyObject *)self);
    member->group_previous = self->last;
    if (self->last)
        self->last->group_next = member;
    else
        self->members = member;
    self->last = member;
    self->active++;
    self->added++;
    if (!member->is_group)
        return;
    uint16_t height = (uint16_t)(((Group *)member)->height + 1);
    for (Group *group = self; group && group->height < height; group = group->request.group)
        group->height = height++;
}

/* The group is, directly or not, a member of `member`. */
static bool contains(const Request *member, const Group *self)
{
    for (const Group *group = self; group; group = group->request.group)
        if (&group->request == member)
            return true;
    return false;
}

/* Ending a group goes down into its members, by recursion. */
static bool nests_too_deep(const Request *member, const Group *self)
{
    uint32_t depth = ((const Group *)member)->height + 1u;
    for (const Group *group = self; group; group = group->request.group)
        depth++;
    return depth > MOST_NESTED;
}

static int check_open(const Group *self)
{
    const Request *request = &self->request;
    if (request->place < AT_CONCLUDING && request->pool->fork_count == fork_count)
        return 0;
    PyErr_SetString(PyExc_RuntimeError, "the group is done");
    return -1;
}

static int check_member(const Group *self, PyObject *object)
{
    if (!Request_Check(object)) {
        PyErr_Format(PyExc_TypeError, "only requests can be members, not %.100s",
                     Py_TYPE(object)->tp_name);
        return -1;
    }
    const Request *member = (Request *)object;
    if (contains(member, self)) {
        PyErr_SetString(PyExc_ValueError, "a group cannot be a member of itself");
        return -1;
    }
    if (member->is_group && nests_too_deep(member, self)) {
        PyErr_Format(PyExc_RecursionError, "groups nest at most %d deep", MOST_NESTED);
        return -1;
    }
    if (member->group && member->group != self) {
        PyErr_SetString(PyExc_ValueError, "the request is a member of another group");
        return -1;
    }
    return 0;
}

static void abort_member(Request *member)
{
    if (member->group) /* else it had ended before */
        queue_abort(member->pool, member, ECANCELED);
}

static PyObject *add(Group *self, PyObject *args)
{
    if (check_open(self) < 0)
        return NULL;
    if (self->closed && !self->composite && !self->abort_error) {
        PyErr_SetString(PyExc_RuntimeError, "cancel_subs() has ended the adding to this group");
        return NULL;
    }
    for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(args); i++)
        if (check_member(self, PyTuple_GET_ITEM(args, i)) < 0)
            return NULL;
    for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(args); i++) {
        Request *member = (Request *)PyTuple_GET_ITEM(args, i);
        if (member->place < AT_DONE && !member->cancelled && !member->group)
            put_in(self, member);
    }
    /* What comes too late shares the group's fate. */
    for (Py_ssize_t i = 0; self->abort_error && i < PyTuple_GET_SIZE(args); i++)
        abort_member((Request *)PyTuple_GET_ITEM(args, i));
    bool cancelled = self->request.cancelled || (self->closed && !self->abort_error);
    if (cancelled && group_cancel_members(&self->request) < 0)
        return NULL;
    return Py_NewRef(args);
}

/* -- cancelling ------------------------------------------------------------------------------- */

int group_cancel_members(Request *request)
{
    Group *self = (Group *)request;
    int failed = 0;
    Py_INCREF(self);
    PyObject *feeder = group_take_feeder(request);
    self->held = false;
    while (self->members && !failed) {
        Request *member = (Request *)Py_NewRef((PyObject *)self->members);
        group_forget(member);
        failed = request_cancel(member) < 0;
        Py_DECREF(member);
    }
    end_if_over(self);
    Py_XDECREF(feeder);
    Py_DECREF(self);
    return failed ? -1 : 0;
}

/* False: it has ended, or was aborted before.  No code of the program runs here. */
bool group_abort(Request *request, int error)
{
    Group *self = (Group *)request;
    if (self->abort_error)
        return false;
    self->abort_error = error;
    self->closed = true;
    for (Request *member = self->members; member; member = member->group_next)
        abort_member(member);
    end_if_over(self);
    return true;
}

static PyObject *cancel_subs(Group *self, PyObject *unused)
{
    (void)unused;
    if (self->request.place >= AT_CONCLUDING || self->request.pool->fork_count != fork_count)
        Py_RETURN_NONE;
    self->closed = true;
    return group_cancel_members(&self->request) < 0 ? NULL : Py_NewRef(Py_None);
}

/* A composite request has all its members: it is done when they are.  With an errno it fails, and the
 * error names the paths.  It may be that of a member over which workers have died. */
static PyObject *end(Group *self, PyObject *args)
{
    PyObject *path, *path2 = NULL;
    int died;
    if (!PyArg_ParseTuple(args, "ipO|O:_end", &self->error, &died, &path, &path2))
        return NULL;
    self->worker_died = died;
    Py_XSETREF(self->request.path, Py_NewRef(path));
    Py_XSETREF(self->request.path2, Py_XNewRef(path2));
    self->held = false;
    end_if_over(self);
    Py_RETURN_NONE;
}

/* -- settings --------------------------------------------------------------------------------- */

static PyObject *set_result(Group *self, PyObject *args)
{
    if (check_open(self) < 0)
        return NULL;
    Py_XSETREF(self->values, Py_NewRef(args));
    Py_RETURN_NONE;
}

static PyObject *set_errno(Group *self, PyObject *args)
{
    PyObject *value = Py_None;
    long number = callback_errno;
    if (!PyArg_ParseTuple(args, "|O:errno", &value) || check_open(self) < 0)
        return NULL;
    if (value != Py_None && (number = PyLong_AsLong(value)) == -1 && PyErr_Occurred())
        return NULL;
    if (number < 0 || number > 4095)
        return PyErr_Format(PyExc_ValueError, "not an errno: %R", value);
    self->error = (int)number;
    Py_RETURN_NONE;
}

static PyObject *feed(Group *self, PyObject *feeder)
{
    if (check_open(self) < 0)
        return NULL;
    if (feeder != Py_None && !PyCallable_Check(feeder))
        return PyErr_Format(PyExc_TypeError, "the feeder must be callable or None, not %.100s",
                            Py_TYPE(feeder)->tp_name);
    bool dead = self->closed || self->request.cancelled;
    PyObject *before = group_take_feeder(&self->request);
    self->feeder = feeder == Py_None || dead ? NULL : Py_NewRef(feeder);
    if (self->feeder && self->limit == 0)
        self->limit = FED_AT_LEAST;
    int failed = feed_now(self);
    Py_XDECREF(before);
    return failed < 0 ? NULL : Py_NewRef(Py_None);
}

static PyObject *set_limit(Group *self, PyObject *value)
{
    long long limit = PyLong_AsLongLong(value);
    if ((limit == -1 && PyErr_Occurred()) || check_open(self) < 0)
        return NULL;
    if (limit < 0)
        return PyErr_Format(PyExc_ValueError, "limit must not be negative: %R", value);
    self->limit = (uint64_t)limit;
    return feed_now(self) < 0 ? NULL : Py_NewRef(Py_None);
}

static PyObject *iterate(Group *self)
{
    PyObject *list = PyList_New(0);
    for (Request *member = self->members; list && member; member = member->group_next)
        if (PyList_Append(list, (PyObject *)member) < 0)
            Py_CLEAR(list);
    PyObject *iterator = list ? PyObject_GetIter(list) : NULL;
    Py_XDECREF(list);
    return iterator;
}

/* -- what it yields --------------------------------------------------------------------------- */

PyObject *group_values(const Request *request)
{
    const Group *self = (const Group *)request;
    return self->values ? Py_NewRef(self->values) : PyTuple_New(0);
}

void group_conclude(Request *request)
{
    Group *self = (Group *)request;
    if (request->cancelled || request->error) /* the pool's end is an error */
        return;
    request->error = self->abort_error ? self->abort_error : self->error;
    request->worker_died = self->worker_died && !self->abort_error;
    if (self->abort_error || (self->composite && self->error))
        return;
    Py_ssize_t count = self->values ? PyTuple_GET_SIZE(self->values) : 0;
    request->value = Py_NewRef(count == 0   ? Py_None
                               : count == 1 ? PyTuple_GET_ITEM(self->values, 0)
                                            : self->values);
}

/* -- the type --------------------------------------------------------------------------------- */

void group_clear(Request *request)
{
    Group *self = (Group *)request;
    Py_CLEAR(self->feeder);
    Py_CLEAR(self->values);
}

int group_traverse(Request *request, visitproc visit, void *arg)
{
    Group *self = (Group *)request;
    Py_VISIT(self->feeder);
    Py_VISIT(self->values);
    return 0;
}

Request *group_new(Pool *pool)
{
    Group *self = PyObject_GC_New(Group, Group_Type);
    if (!self)
        return NULL;
    memset((char *)self + sizeof(Request), 0, sizeof *self - sizeof(Request));
    request_init(&self->request, pool, PA_OP_NOP, RESULT_GROUP);
    self->request.is_group = true;
    PyObject_GC_Track((PyObject *)self);
    return &self->request;
}

static Py_ssize_t length(Group *self)
{
    return (Py_ssize_t)self->active;
}

/* Also without members. */
static int truth(Group *self)
{
    (void)self;
    return 1;
}

static PyMethodDef methods[] = {
    {"add", (PyCFunction)add, METH_VARARGS,
     "add($self, /, *requests)\n--\n\n"
     "Make requests members; returns them, as a tuple. The group is done when all of them are.\n\n"
     "Any request can be one, other groups too, until the group's callback is called (RuntimeError\n"
     "from then on). One that is done is ignored; ValueError for a member of another group, and for\n"
     "a group that would be a member of itself; RecursionError for more than 1000 groups that are one\n"
     "within the other. (IO::AIO add)"},
    {"cancel_subs", (PyCFunction)cancel_subs, METH_NOARGS,
     "cancel_subs($self, /)\n--\n\n"
     "Cancel all members and the feeder, but not the group: it ends normally, and takes no more\n"
     "members. (IO::AIO cancel_subs)"},
    {"result", (PyCFunction)set_result, METH_VARARGS,
     "result($self, /, *values)\n--\n\n"
     "Set what the callback gets as its arguments, and await and wait() give: None, the one value, or\n"
     "the tuple of them. The last call counts. (IO::AIO result)"},
    {"errno", (PyCFunction)set_errno, METH_VARARGS,
     "errno($self, number=None, /)\n--\n\n"
     "Set what errno() gives in the group's callback: a number, or None for the errno of the request\n"
     "whose callback is running. It is 0 otherwise. (IO::AIO errno)"},
    {"_end", (PyCFunction)end, METH_VARARGS, NULL},
    {"feed", (PyCFunction)feed, METH_O,
     "feed($self, feeder, /)\n--\n\n"
     "Let `feeder(group)` be called, now and later, while the group has fewer members than its\n"
     "limit; it is to add some, and is removed once it adds none. A limit of 0 becomes 2. None\n"
     "removes the feeder. What it raises goes to the hook of on_callback_error, and it is removed.\n"
     "(IO::AIO feed)"},
    {"limit", (PyCFunction)set_limit, METH_O,
     "limit($self, number, /)\n--\n\n"
     "How many members the feeder is to keep there; add() does not care. With 0 the feeder rests, and\n"
     "the group waits until the limit is raised again. (IO::AIO limit)"},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot slots[] = {
    {Py_tp_methods, methods},
    {Py_tp_iter, iterate},
    {Py_sq_length, length},
    {Py_nb_bool, truth},
    {Py_tp_doc, "A request that is done when its members are: what aio_group() returns.\n\n"
                "It iterates over the members that are not done, and len() counts them. Cancelling it\n"
                "cancels them too, and theirs. Whatever else a request can, it can."},
    {0, NULL},
};

PyType_Spec Group_Spec = {
    .name = "procaio.Group",
    .basicsize = sizeof(Group),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = slots,
};
