/* procaio/csrc/limits.c - what the system allows the program (setrlimit), and its children.
 *
 * Limits are a process's own: workers have those that the program had when the spawner was cloned.
 * So the functions of Python's `resource` that set them are wrapped, once there is a pool, and say
 * so in the header; every worker sets its own before its next request (loop.c: pa_take_limits).
 * A change that comes in another way, as by prlimit(1), is found out by whoever fails for want of
 * descriptors, processes or memory.
 */
#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "core.h"

/* -- they change ------------------------------------------------------------------------------ */

enum { SETRLIMIT, PRLIMIT, COUNT };
static struct wrapping wrapped[COUNT];

static void tell_pools(void)
{
    for (Pool *pool = open_pools; pool; pool = pool->next_open)
        if (pool->fork_count == fork_count && !pool->is_inline)
            atomic_fetch_add_explicit(&pool->segment->header.limits, 1, memory_order_release);
}

static PyObject *set_own(PyObject *module, PyObject *args, PyObject *keywords)
{
    (void)module;
    PyObject *done = PyObject_Call(wrapped[SETRLIMIT].original, args, keywords);
    if (done)
        tell_pools();
    return done;
}

/* Those of any process: its first argument is the pid. */
static PyObject *set_any(PyObject *module, PyObject *args, PyObject *keywords)
{
    (void)module;
    PyObject *done = PyObject_Call(wrapped[PRLIMIT].original, args, keywords);
    if (!done)
        return NULL;
    long pid = PyLong_AsLong(PyTuple_GET_ITEM(args, 0)); /* it was good enough for the call */
    PyErr_Clear();
    if (PyTuple_GET_SIZE(args) > 2 && (pid == 0 || pid == getpid()))
        tell_pools();
    return done;
}

static struct wrapping wrapped[COUNT] = {
    {.name = "setrlimit", .function = (PyCFunction)(void (*)(void))set_own},
    {.name = "prlimit", .function = (PyCFunction)(void (*)(void))set_any},
};

PyObject *limits_watch(PyObject *module, PyObject *resource)
{
    (void)module;
    if (wrap(resource, wrapped, COUNT) < 0)
        return NULL;
    Py_RETURN_NONE;
}

/* -- the size of shared memory ---------------------------------------------------------------- */

struct resizing {
    int fd;
    off_t size;
    int error;
};

static int resize_in_child(void *context)
{
    struct resizing *resizing = context;
    struct rlimit none = {.rlim_cur = RLIM_INFINITY, .rlim_max = RLIM_INFINITY}, own;
    if (setrlimit(RLIMIT_FSIZE, &none) < 0 && getrlimit(RLIMIT_FSIZE, &own) == 0) {
        own.rlim_cur = own.rlim_max;
        setrlimit(RLIMIT_FSIZE, &own);
    }
    resizing->error = ftruncate(resizing->fd, resizing->size) < 0 ? errno : 0;
    return 0;
}

/* RLIMIT_FSIZE is meant for files, but the system applies it to shared memory, too, and sends
 * SIGXFSZ.  The soft limit can be raised; for the whole program that would be seen by its other
 * threads, so a child does it that shares its memory and lives no longer than this. */
static int resize_without_limit(int fd, off_t size)
{
    enum { STACK = 32 << 10 };
    alignas(16) char stack[STACK];
    struct resizing resizing = {.fd = fd, .size = size, .error = EFBIG};
    sigset_t all, saved;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &saved);
    pid_t pid = clone(resize_in_child, stack + STACK, CLONE_VM | CLONE_VFORK | CLONE_FILES,
                      &resizing);
    int error = pid < 0 ? errno : 0;
    while (pid > 0 && waitpid(pid, NULL, __WALL) < 0 && errno == EINTR)
        ;
    pthread_sigmask(SIG_SETMASK, &saved, NULL);
    return error ? error : resizing.error;
}

/* `_resize(fd, size)`: ftruncate for shared memory. */
PyObject *limits_resize(PyObject *module, PyObject *args)
{
    (void)module;
    int fd;
    long long size;
    struct rlimit limit;
    if (!PyArg_ParseTuple(args, "iL:_resize", &fd, &size))
        return NULL;
    int error;
    if (getrlimit(RLIMIT_FSIZE, &limit) == 0 && (rlim_t)size > limit.rlim_cur)
        error = resize_without_limit(fd, size);
    else
        error = ftruncate(fd, size) < 0 ? errno : 0;
    if (error == 0)
        Py_RETURN_NONE;
    errno = error;
    if (error != EFBIG)
        return PyErr_SetFromErrno(PyExc_OSError);
    PyObject *why = Py_BuildValue("is", error, "RLIMIT_FSIZE is too small for shared memory");
    if (why)
        PyErr_SetObject(PyExc_OSError, why);
    Py_XDECREF(why);
    return NULL;
}
