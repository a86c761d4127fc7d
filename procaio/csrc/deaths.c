/* procaio/csrc/deaths.c - the program is told that workers have died.
 *
 * They are noted when they are buried, which may be anywhere; the program's hook is called, and the
 * warning given, where callbacks are.
 */
#include "core.h"

enum { FEW = 8 }; /* may die in a row, beyond as many as there may be */

void deaths_note(Pool *pool, uint32_t worker, int exitcode)
{
    const struct pa_worker *record = &pool->segment->workers[worker];
    uint32_t op = atomic_load_explicit(&record->op, memory_order_relaxed);
    bool running = op < PA_NOPS && atomic_load_explicit(&record->activity,
                                                        memory_order_relaxed) == PA_RUNNING;
    if (!pool->on_death)
        return;
    struct death *grown = realloc(pool->deaths, (pool->death_count + 1) * sizeof *grown);
    if (!grown)
        return;
    pool->deaths = grown;
    pool->deaths[pool->death_count++] = (struct death){
        .worker = worker,
        .pid = pool->pids[worker],
        .exitcode = exitcode,
        .operation = running ? pa_ops[op].name : NULL,
    };
}

/* Somebody was replaced so often that it is no accident: once, until something has been completed. */
void deaths_count(Pool *pool, int exitcode)
{
    uint32_t wanted =
        atomic_load_explicit(&pool->segment->header.wanted, memory_order_relaxed);
    pool->deaths_in_a_row++;
    if (pool->in_crash_loop || pool->deaths_in_a_row <= (uint64_t)wanted + FEW)
        return;
    pool->in_crash_loop = pool->must_warn = true;
    pool->last_exitcode = exitcode;
}

bool deaths_are_to_be_told(const Pool *pool)
{
    return pool->must_warn || pool->death_count > 0;
}

static int warn(Pool *pool)
{
    int code = pool->last_exitcode;
    pool->must_warn = false;
    return PyErr_WarnFormat(hooks.CrashLoopWarning, 1,
                            "the workers of %R keep dying: %u in a row, the last one %s %d, and "
                            "nothing is completed; new ones are started after growing pauses",
                            (PyObject *)pool, pool->deaths_in_a_row,
                            code < 0 ? "by signal" : "with exit status", code < 0 ? -code : code);
}

static int call(Pool *pool, const struct death *death)
{
    PyObject *hook = Py_NewRef(pool->on_death);
    PyObject *exitcode = death->exitcode == EXITCODE_UNKNOWN ? Py_NewRef(Py_None)
                                                             : PyLong_FromLong(death->exitcode);
    PyObject *done = exitcode ? PyObject_CallFunction(hook, "IiOz", death->worker, death->pid,
                                                      exitcode, death->operation)
                              : NULL;
    Py_XDECREF(exitcode);
    int failed = done ? 0 : deliver_report_of(hook, Py_None);
    Py_XDECREF(done);
    Py_DECREF(hook);
    return failed;
}

/* 0, or -1 with an exception that must go up.  The pool may be closed afterwards. */
int deaths_tell(Pool *pool)
{
    const struct pa_segment *segment = pool->segment;
    if (pool->must_warn && warn(pool) < 0 && deliver_report_of((PyObject *)pool, Py_None) < 0)
        return -1;
    while (pool->segment == segment && pool->death_count > 0) {
        struct death first = pool->deaths[0];
        pool->death_count--;
        memmove(pool->deaths, pool->deaths + 1, pool->death_count * sizeof first);
        if (pool->on_death && call(pool, &first) < 0)
            return -1;
    }
    return 0;
}

void deaths_forget(Pool *pool)
{
    free(pool->deaths);
    pool->deaths = NULL;
    pool->death_count = pool->deaths_in_a_row = 0;
    pool->in_crash_loop = pool->must_warn = false;
}
