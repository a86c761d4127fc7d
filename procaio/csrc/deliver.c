/* procaio/csrc/deliver.c - the end of a request: its value, the tasks that wait, its callback.
 *
 * A callback may do anything: make and cancel requests, poll, close the pool.  The request's own
 * state is settled before it is called; an exception of the program's code goes to its hook.
 */
#include "core.h"

static PyObject *call(Request *request, PyObject *argument)
{
    PyObject *callback = request->callback;
    if (request->kind == RESULT_NOTHING)
        return PyObject_CallNoArgs(callback);
    if (request->kind == RESULT_ENTRIES || request->kind == RESULT_GROUP)
        return PyObject_CallObject(callback, argument);
    return PyObject_CallOneArg(callback, argument);
}

static bool must_go_up(void)
{
    return PyErr_ExceptionMatches(PyExc_KeyboardInterrupt) ||
           PyErr_ExceptionMatches(PyExc_SystemExit);
}

/* An exception of the program's code: 0 when it was dealt with, -1 when it must go up. */
int deliver_report_of(PyObject *culprit, PyObject *request)
{
    if (must_go_up())
        return -1;
    if (!hooks.on_error) {
        PyErr_WriteUnraisable(culprit);
        return 0;
    }
    PyObject *type, *value, *traceback;
    PyErr_Fetch(&type, &value, &traceback);
    PyErr_NormalizeException(&type, &value, &traceback);
    if (traceback)
        PyException_SetTraceback(value, traceback);
    PyObject *hook = Py_NewRef(hooks.on_error);
    PyObject *done = PyObject_CallFunctionObjArgs(hook, value, request, NULL);
    Py_XDECREF(type);
    Py_XDECREF(value);
    Py_XDECREF(traceback);
    bool leaves = !done && must_go_up();
    if (!done && !leaves)
        PyErr_WriteUnraisable(hook);
    Py_XDECREF(done);
    Py_DECREF(hook);
    return leaves ? -1 : 0;
}

int deliver_report(Request *request)
{
    PyObject *self = (PyObject *)request;
    return deliver_report_of(request->callback ? request->callback : self, self);
}

static int call_back(Request *request)
{
    PyObject *argument = request->is_group ? group_values(request)
                         : request->value  ? Py_NewRef(request->value)
                                           : result_on_failure(request);
    if (!argument)
        return deliver_report(request);
    int outer = callback_errno;
    bool outer_died = callback_died;
    callback_errno = request->error;
    callback_died = request->worker_died || request_is_garbled(request);
    PyObject *answer = call(request, argument);
    callback_errno = outer;
    callback_died = outer_died;
    Py_DECREF(argument);
    if (answer) {
        Py_DECREF(answer);
        return 0;
    }
    return deliver_report(request);
}

/* Nobody waits for it, and it does not count: queue_push_pending() has lent it a number. */
static int let_go(Pool *pool, Request *husk)
{
    husk->place = AT_CONCLUDING;
    deadlines_drop(husk);
    queue_conclude(pool, husk);
    husk->place = AT_DONE;
    pool->nreqs--;
    request_release_memory(husk);
    if (pool->overflow_length)
        queue_refill(pool);
    request_release_objects(husk);
    Py_DECREF(husk);
    return 0;
}

/* After the callback: nothing counts on the request from here on, and it counts on nothing.  So what it
 * held goes last of all: what goes with that may wait for everything that is outstanding. */
static int finish(Request *request, PyObject *feeder)
{
    if (request->waiters)
        waiters_wake(request);
    request->place = AT_DONE;
    PyObject *callback = request->callback;
    request->callback = NULL;
    int failed = request->group ? group_leave(request) : 0;
    Py_XDECREF(callback);
    Py_XDECREF(feeder);
    request_release_objects(request);
    Py_DECREF(request);
    return failed;
}

/* The same with an exception of the callback on its way up, which is the one that counts. */
static void finish_failed(Request *request, PyObject *feeder)
{
    PyObject *type, *value, *traceback;
    PyErr_Fetch(&type, &value, &traceback);
    finish(request, feeder);
    PyErr_Restore(type, value, traceback);
}

/* Ends a request: value, callback, waiting tasks.  Takes over the queue's reference. */
int deliver(Pool *pool, Request *request)
{
    if (unlikely(request->is_husk))
        return let_go(pool, request);
    if (request->is_group && group_must_wait(request)) {
        queue_let_wait(pool, request);
        return 0;
    }
    request->place = AT_CONCLUDING;
    if (unlikely(request->deadline))
        deadlines_drop(request);
    queue_conclude(pool, request);
    if (request->cancelled) /* perhaps just now, by another thread */
        Py_CLEAR(request->value);
    request->place = AT_CALLBACK;
    pool->nreqs--;
    pool->totals.completed++;
    pool->totals.failed += request->error != 0;
    request_release_memory(request);
    PyObject *feeder = request->is_group ? group_take_feeder(request) : NULL;
    if (pool->overflow_length)
        queue_refill(pool);
    Py_CLEAR(request->file); /* the callback finds it closed, if nobody else has it */
    if (request->callback && !request->cancelled && call_back(request) < 0) {
        finish_failed(request, feeder);
        return -1;
    }
    return finish(request, feeder);
}
