/* procaio/csrc/constants.c - the values of the system's constants, as its headers have them.
 *
 * Which ones, docs/names.py writes into constants.h.  What this system lacks has no row; the groups
 * in procaio/_groups.py make it 0, as IO::AIO does.
 */
#include "core.h"

#include <dirent.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/falloc.h>
#include <linux/fiemap.h>
#include <linux/fs.h>
#include <linux/memfd.h>
#include <stdio.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/timerfd.h>
#include <sys/xattr.h>
#include <time.h>
#include <unistd.h>
#if __has_include(<sys/pidfd.h>)
#include <sys/pidfd.h>
#endif

/* The reference's names for what POSIX calls otherwise. */
#ifdef POSIX_FADV_NORMAL
#define FADV_NORMAL POSIX_FADV_NORMAL
#define FADV_RANDOM POSIX_FADV_RANDOM
#define FADV_SEQUENTIAL POSIX_FADV_SEQUENTIAL
#define FADV_WILLNEED POSIX_FADV_WILLNEED
#define FADV_DONTNEED POSIX_FADV_DONTNEED
#define FADV_NOREUSE POSIX_FADV_NOREUSE
#endif
#if !defined(MAP_ANONYMOUS) && defined(MAP_ANON)
#define MAP_ANONYMOUS MAP_ANON
#endif

static const struct {
    const char *name;
    long long value;
} constants[] = {
#define ROW(name) {#name, (long long)(name)},
#include "constants.h"
#undef ROW
};

PyObject *constants_dict(void)
{
    PyObject *dict = PyDict_New();
    for (size_t i = 0; dict && i < sizeof constants / sizeof constants[0]; i++) {
        PyObject *value = PyLong_FromLongLong(constants[i].value);
        if (!value || PyDict_SetItemString(dict, constants[i].name, value) < 0)
            Py_CLEAR(dict);
        Py_XDECREF(value);
    }
    return dict;
}
