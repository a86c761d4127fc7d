/* procaio/csrc/system.c - system calls made here and now that Python's own modules lack.
 *
 * They are called without the interpreter lock, and an OSError tells of their failure.  Those that
 * some versions of Python have (timerfd_*) look exactly as there; procaio/_system.py chooses.
 */
#include "core.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <sys/syscall.h>
#include <sys/timerfd.h>
#include <unistd.h>

enum { NS_IN_SECOND = 1000000000 };

/* An int is a descriptor, whatever its value: the kernel says EBADF.  Other objects are asked. */
static int as_fd(PyObject *file, void *place)
{
    int *fd = place;
    if (!PyLong_Check(file)) {
        *fd = PyObject_AsFileDescriptor(file);
        return *fd >= 0;
    }
    long number = PyLong_AsLong(file);
    if (number == -1 && PyErr_Occurred())
        return 0;
    if (number > INT_MAX || number < INT_MIN) {
        PyErr_Format(PyExc_OverflowError, "not a descriptor: %R", file);
        return 0;
    }
    *fd = (int)number;
    return 1;
}

/* As Python's own timerfd functions take one: a negative int is a ValueError. */
static int as_timerfd(PyObject *file, void *place)
{
    int *fd = place;
    *fd = PyObject_AsFileDescriptor(file);
    return *fd >= 0;
}

static PyObject *failed(void)
{
    return PyErr_SetFromErrno(PyExc_OSError);
}

/* -- pipes ------------------------------------------------------------------------------------ */

static PyObject *do_tee(PyObject *module, PyObject *args, PyObject *keywords)
{
    (void)module;
    static char *names[] = {"src", "dst", "count", "flags", NULL};
    int src, dst, flags = 0;
    Py_ssize_t count, done;
    if (!PyArg_ParseTupleAndKeywords(args, keywords, "O&O&n|i:tee", names, as_fd, &src, as_fd, &dst,
                                     &count, &flags))
        return NULL;
    if (count < 0) {
        PyErr_SetString(PyExc_ValueError, "count cannot be negative");
        return NULL;
    }
    do {
        Py_BEGIN_ALLOW_THREADS
        done = tee(src, dst, (size_t)count, (unsigned)flags);
        Py_END_ALLOW_THREADS
        /* A signal handler may raise; else the call goes on. */
    } while (done < 0 && errno == EINTR && PyErr_CheckSignals() == 0);
    if (PyErr_Occurred())
        return NULL;
    return done < 0 ? failed() : PyLong_FromSsize_t(done);
}

static PyObject *do_pipesize(PyObject *module, PyObject *args, PyObject *keywords)
{
    (void)module;
    static char *names[] = {"fh", "new", NULL};
    PyObject *wanted = Py_None;
    int fd, size, command = F_GETPIPE_SZ, bytes = 0;
    if (!PyArg_ParseTupleAndKeywords(args, keywords, "O&|O:pipesize", names, as_fd, &fd, &wanted))
        return NULL;
    if (wanted != Py_None) {
        Py_ssize_t given = PyNumber_AsSsize_t(wanted, NULL); /* what is too large stays so */
        if (given == -1 && PyErr_Occurred())
            return NULL;
        if (given < 0 || given > INT_MAX)
            return PyErr_Format(PyExc_ValueError, "new is out of range: %R", wanted);
        command = F_SETPIPE_SZ;
        bytes = (int)given;
    }
    Py_BEGIN_ALLOW_THREADS
    size = fcntl(fd, command, bytes);
    Py_END_ALLOW_THREADS
    return size < 0 ? failed() : PyLong_FromLong(size);
}

/* -- timers ----------------------------------------------------------------------------------- */

/* Nanoseconds as the kernel wants them; a negative time, too, which it refuses. */
static struct timespec from_ns(int64_t ns)
{
    struct timespec time = {.tv_sec = ns / NS_IN_SECOND, .tv_nsec = ns % NS_IN_SECOND};
    if (time.tv_nsec < 0) {
        time.tv_sec--;
        time.tv_nsec += NS_IN_SECOND;
    }
    return time;
}

static int64_t to_ns(struct timespec time)
{
    return (int64_t)time.tv_sec * NS_IN_SECOND + time.tv_nsec;
}

static double to_seconds(struct timespec time)
{
    return (double)time.tv_sec + (double)time.tv_nsec / NS_IN_SECOND;
}

/* Rounded down to a nanosecond. */
static int seconds_to_ns(double seconds, int64_t *ns)
{
    if (isnan(seconds)) {
        PyErr_SetString(PyExc_ValueError, "a time cannot be NaN");
        return -1;
    }
    double exact = seconds * NS_IN_SECOND;
    if (!(exact >= (double)INT64_MIN && exact < -(double)INT64_MIN)) {
        PyErr_SetString(PyExc_OverflowError, "time out of range");
        return -1;
    }
    *ns = (int64_t)exact;
    if (exact < (double)*ns)
        --*ns;
    return 0;
}

/* In the order of os, which is not the one of struct itimerspec and IO::AIO. */
static PyObject *in_seconds(const struct itimerspec *timer)
{
    return Py_BuildValue("(dd)", to_seconds(timer->it_value), to_seconds(timer->it_interval));
}

static PyObject *in_ns(const struct itimerspec *timer)
{
    return Py_BuildValue("(LL)", (long long)to_ns(timer->it_value),
                         (long long)to_ns(timer->it_interval));
}

static PyObject *do_timerfd_create(PyObject *module, PyObject *args, PyObject *keywords)
{
    (void)module;
    static char *names[] = {"", "flags", NULL};
    int clock, fd, flags = 0;
    if (!PyArg_ParseTupleAndKeywords(args, keywords, "i|$i:timerfd_create", names, &clock, &flags))
        return NULL;
    Py_BEGIN_ALLOW_THREADS
    fd = timerfd_create(clock, flags | TFD_CLOEXEC); /* Python's descriptors are not inherited */
    Py_END_ALLOW_THREADS
    return fd < 0 ? failed() : PyLong_FromLong(fd);
}

static PyObject *set_timer(int fd, int flags, int64_t initial, int64_t interval,
                           PyObject *result(const struct itimerspec *))
{
    struct itimerspec previous,
        timer = {.it_interval = from_ns(interval), .it_value = from_ns(initial)};
    int status;
    Py_BEGIN_ALLOW_THREADS
    status = timerfd_settime(fd, flags, &timer, &previous);
    Py_END_ALLOW_THREADS
    return status < 0 ? failed() : result(&previous);
}

static char *settime_names[] = {"", "flags", "initial", "interval", NULL};

static PyObject *do_timerfd_settime(PyObject *module, PyObject *args, PyObject *keywords)
{
    (void)module;
    double initial = 0, interval = 0;
    int64_t initial_ns, interval_ns;
    int fd, flags = 0;
    if (!PyArg_ParseTupleAndKeywords(args, keywords, "O&|$idd:timerfd_settime", settime_names,
                                     as_timerfd, &fd, &flags, &initial, &interval) ||
        seconds_to_ns(initial, &initial_ns) < 0 || seconds_to_ns(interval, &interval_ns) < 0)
        return NULL;
    return set_timer(fd, flags, initial_ns, interval_ns, in_seconds);
}

static PyObject *do_timerfd_settime_ns(PyObject *module, PyObject *args, PyObject *keywords)
{
    (void)module;
    long long initial = 0, interval = 0;
    int fd, flags = 0;
    if (!PyArg_ParseTupleAndKeywords(args, keywords, "O&|$iLL:timerfd_settime_ns", settime_names,
                                     as_timerfd, &fd, &flags, &initial, &interval))
        return NULL;
    return set_timer(fd, flags, initial, interval, in_ns);
}

static PyObject *get_timer(PyObject *file, PyObject *result(const struct itimerspec *))
{
    struct itimerspec timer;
    int fd, status;
    if (!as_timerfd(file, &fd))
        return NULL;
    Py_BEGIN_ALLOW_THREADS
    status = timerfd_gettime(fd, &timer);
    Py_END_ALLOW_THREADS
    return status < 0 ? failed() : result(&timer);
}

static PyObject *do_timerfd_gettime(PyObject *module, PyObject *file)
{
    (void)module;
    return get_timer(file, in_seconds);
}

static PyObject *do_timerfd_gettime_ns(PyObject *module, PyObject *file)
{
    (void)module;
    return get_timer(file, in_ns);
}

/* -- processes -------------------------------------------------------------------------------- */

static PyObject *do_pidfd_getfd(PyObject *module, PyObject *args, PyObject *keywords)
{
    (void)module;
    static char *names[] = {"pidfd", "targetfd", "flags", NULL};
    int pidfd, target, flags = 0;
    long fd = -1;
    if (!PyArg_ParseTupleAndKeywords(args, keywords, "O&i|i:pidfd_getfd", names, as_fd, &pidfd,
                                     &target, &flags))
        return NULL;
#ifdef SYS_pidfd_getfd /* the C library may be older than the kernel */
    Py_BEGIN_ALLOW_THREADS
    fd = syscall(SYS_pidfd_getfd, pidfd, target, (unsigned)flags);
    Py_END_ALLOW_THREADS
#else
    errno = ENOSYS;
#endif
    return fd < 0 ? failed() : PyLong_FromLong(fd);
}

/* -- the table -------------------------------------------------------------------------------- */

#define WITH_KEYWORDS(name) \
    #name, (PyCFunction)(void (*)(void))do_##name, METH_VARARGS | METH_KEYWORDS

PyMethodDef system_functions[] = {
    {WITH_KEYWORDS(tee),
     "tee(src, dst, count, flags=0)\n--\n\n"
     "Duplicate up to `count` bytes from one pipe into another without consuming them.\n\n"
     "`src` is the end of a pipe that is read from, `dst` the end of another that is written to:\n"
     "descriptors, or objects with fileno(). `flags` is a combination of SPLICE_F_*; with\n"
     "SPLICE_F_NONBLOCK the call fails with EAGAIN where it would wait for data or room.\n\n"
     "Returns the number of bytes; 0 when nothing is left and nobody has `src` open for\n"
     "writing. Raises ValueError for a negative count, OSError on failure: EINVAL if one of\n"
     "them is no pipe, or both are the same. See tee(2). (IO::AIO tee)"},
    {WITH_KEYWORDS(pipesize),
     "pipesize(fh, new=None)\n--\n\n"
     "The capacity of a pipe in bytes; with `new`, set it first.\n\n"
     "`fh` is either end: a descriptor, or an object with fileno(). The kernel rounds `new` up\n"
     "to what it can do, at least one page.\n\n"
     "Returns the capacity that the pipe has now. Raises ValueError for a negative or huge\n"
     "`new`, OSError on failure: EBADF if `fh` is no pipe, EBUSY if more bytes are in it than\n"
     "`new`, EPERM above /proc/sys/fs/pipe-max-size. See F_SETPIPE_SZ in fcntl(2).\n"
     "(IO::AIO pipesize)"},
    {WITH_KEYWORDS(timerfd_create),
     "timerfd_create(clockid, /, *, flags=0)\n--\n\n"
     "Make a timer that is a descriptor, and return it.\n\n"
     "`clockid` is one of CLOCK_*, `flags` a combination of TFD_NONBLOCK and TFD_CLOEXEC; the\n"
     "descriptor is never inherited. Once timerfd_settime() has started the timer, reading 8\n"
     "bytes waits until it expires and gives how often it has, as an integer in the machine's\n"
     "order. Close the descriptor with os.close().\n\n"
     "Raises OSError on failure: EINVAL for an unknown clock or flag. See timerfd_create(2).\n"
     "(IO::AIO timerfd_create)"},
    {WITH_KEYWORDS(timerfd_settime),
     "timerfd_settime(fd, /, *, flags=0, initial=0.0, interval=0.0)\n--\n\n"
     "Start a timer of timerfd_create, or stop it; times are in seconds.\n\n"
     "It expires after `initial`, then again after each `interval`; an `interval` of 0 is once,\n"
     "an `initial` of 0 stops the timer. `fd` is a descriptor, or an object with fileno();\n"
     "`flags` a combination of TFD_TIMER_ABSTIME (`initial` is a time of the timer's clock) and\n"
     "TFD_TIMER_CANCEL_ON_SET.\n\n"
     "Returns what was set before, as (time until the next expiration, interval). Raises OSError\n"
     "on failure: EINVAL for a negative time, or if `fd` is no timer. See timerfd_settime(2).\n"
     "(IO::AIO timerfd_settime; there the interval comes first)"},
    {WITH_KEYWORDS(timerfd_settime_ns),
     "timerfd_settime_ns(fd, /, *, flags=0, initial=0, interval=0)\n--\n\n"
     "As timerfd_settime(), with integers in nanoseconds, also in what it returns."},
    {"timerfd_gettime", do_timerfd_gettime, METH_O,
     "timerfd_gettime(fd, /)\n--\n\n"
     "What a timer of timerfd_create is set to, in seconds.\n\n"
     "`fd` is a descriptor, or an object with fileno(). Returns (time until the next expiration,\n"
     "interval), the former 0.0 for a stopped timer. Raises OSError on failure: EINVAL if `fd` is\n"
     "no timer. See timerfd_gettime(2). (IO::AIO timerfd_gettime; there the interval comes first)"},
    {"timerfd_gettime_ns", do_timerfd_gettime_ns, METH_O,
     "timerfd_gettime_ns(fd, /)\n--\n\n"
     "As timerfd_gettime(), with integers in nanoseconds."},
    {WITH_KEYWORDS(pidfd_getfd),
     "pidfd_getfd(pidfd, targetfd, flags=0)\n--\n\n"
     "Duplicate a descriptor of another process, and return ours.\n\n"
     "`pidfd` is a descriptor of the process, as pidfd_open() gives it, or an object with\n"
     "fileno(); `targetfd` is the number of the descriptor over there; `flags` has to be 0. What\n"
     "is returned is not inherited; close it with os.close().\n\n"
     "Raises OSError on failure: EBADF if the process has no such descriptor, EPERM if we may\n"
     "not look into it (as for ptrace), ESRCH if it has ended. See pidfd_getfd(2).\n"
     "(IO::AIO pidfd_getfd)"},
    {NULL, NULL, 0, NULL},
};
