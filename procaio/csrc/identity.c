/* procaio/csrc/identity.c - the program becomes another user, or another program.
 *
 * Workers have the rights that the program had when their spawner was cloned.  When it gives up
 * some, or takes others, every pool is told a new number.  Workers and spawners that are older leave
 * without beginning anything (loop.c: has_rights_for), and a new spawner is cloned.  So no request is
 * executed with rights that the program did not have any more when it was made.
 *
 * Who finds out?  After a call of Python's own functions for that (os.setuid and its like, which are
 * wrapped) the program looks.  For what else may do it, C code or ctypes:
 *
 * - a program that may open everything (CAP_DAC_OVERRIDE): the workers look whether it still has
 *   the same capabilities, after each request was made and before it is executed;
 * - one that has other rights to give up: the program looks at itself with each request;
 * - one that has none has nothing to lose, and does not look.
 *
 * Groups may be changed by C code without a change of the capabilities: of no concern to who may
 * open everything, but new files get them.  This is found out later, when the program polls.
 */
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "../../workers/worker.h"
#include "core.h"

#define DOUBT_AGAIN_NS UINT64_C(10000000)
enum { KEPT_GROUPS = 64 };

struct identity {
    uid_t uids[3];
    gid_t gids[3];
    int group_count;
    gid_t groups[KEPT_GROUPS];
    struct __user_cap_data_struct capabilities[_LINUX_CAPABILITY_U32S_3];
};

uint32_t identity_number;
bool identity_unsure;

static struct identity known;
static uint64_t looked_at_ns;
static bool looks, looks_each_time;

/* -- what it is ------------------------------------------------------------------------------- */

static struct identity now_is(void)
{
    struct identity is;
    memset(&is, 0, sizeof is); /* they are compared as memory */
    getresuid(&is.uids[0], &is.uids[1], &is.uids[2]);
    getresgid(&is.gids[0], &is.gids[1], &is.gids[2]);
    is.group_count = getgroups(KEPT_GROUPS, is.groups);
    if (is.group_count < 0) /* there are more; which ones is not looked at */
        is.group_count = getgroups(0, NULL);
    struct __user_cap_header_struct version = {.version = _LINUX_CAPABILITY_VERSION_3};
    syscall(SYS_capget, &version, is.capabilities);
    return is;
}

static bool has_rights(const struct identity *is)
{
    bool one_user = is->uids[0] == is->uids[1] && is->uids[1] == is->uids[2];
    bool one_group = is->gids[0] == is->gids[1] && is->gids[1] == is->gids[2];
    return !one_user || !one_group || is->capabilities[0].permitted ||
           is->capabilities[1].permitted;
}

/* -- it changes ------------------------------------------------------------------------------- */

static void tell_pools(void)
{
    identity_number++;
    for (Pool *pool = open_pools; pool; pool = pool->next_open)
        if (pool->fork_count == fork_count && !pool->is_inline)
            pool_tell_identity(pool, identity_number);
}

void identity_look(void)
{
    struct identity is = now_is();
    bool changed = memcmp(&is, &known, sizeof is) != 0;
    uint32_t effective[_LINUX_CAPABILITY_U32S_3] = {is.capabilities[0].effective,
                                                    is.capabilities[1].effective};
    known = is;
    looks = has_rights(&is);
    looks_each_time = looks && !pa_opens_all(effective);
    looked_at_ns = pa_now_ns();
    identity_unsure = looks_each_time;
    if (changed)
        tell_pools();
}

void identity_may_have_changed(void)
{
    identity_unsure = false;
    if (looks_each_time || (looks && pa_now_ns() - looked_at_ns >= DOUBT_AGAIN_NS))
        identity_look();
}

/* A worker has left a request alone because of what it saw. */
void identity_doubted(Pool *pool)
{
    identity_look();
    if (atomic_load_explicit(&pool->segment->header.doubted, memory_order_relaxed) ==
        pool->identity + 1)
        tell_pools(); /* what it saw was of another thread, or is as it was before */
}

/* -- Python's functions ----------------------------------------------------------------------- */

enum after { RIGHTS, SHARING, PROGRAM };

static PyObject *call(int which, PyObject *args, PyObject *keywords);

/* Each is a function of its module, as the one that it stands for. */
#define WRAPPED(X) \
    X(setuid, RIGHTS) \
    X(seteuid, RIGHTS) \
    X(setreuid, RIGHTS) \
    X(setresuid, RIGHTS) \
    X(setgid, RIGHTS) \
    X(setegid, RIGHTS) \
    X(setregid, RIGHTS) \
    X(setresgid, RIGHTS) \
    X(setgroups, RIGHTS) \
    X(initgroups, RIGHTS) \
    X(unshare, SHARING) \
    X(setns, SHARING) \
    X(execv, PROGRAM) \
    X(execve, PROGRAM)

#define NUMBER(name, after) WRAPPED_##name,
#define FUNCTION(name, after) \
    static PyObject *wrapped_##name(PyObject *module, PyObject *args, PyObject *keywords) \
    { \
        (void)module; \
        return call(WRAPPED_##name, args, keywords); \
    }
#define ROW(name_, after) \
    {.name = #name_, .function = (PyCFunction)(void (*)(void))wrapped_##name_, .kind = after},

enum { WRAPPED(NUMBER) COUNT };
WRAPPED(FUNCTION)
static struct wrapping wrapped[] = {WRAPPED(ROW)};

/* What ends the processes is only done when the file can be executed: os.execvp tries several. */
static bool may_execute(PyObject *args, PyObject *keywords)
{
    PyObject *path = keywords ? PyDict_GetItemString(keywords, "path") : NULL, *bytes = NULL;
    if (!path && PyTuple_GET_SIZE(args) > 0)
        path = PyTuple_GET_ITEM(args, 0);
    if (path && PyLong_Check(path))
        return true; /* a descriptor */
    bool may = false;
    if (path && PyUnicode_FSConverter(path, &bytes)) {
        struct stat st;
        const char *name = PyBytes_AS_STRING(bytes);
        may = stat(name, &st) == 0 && S_ISREG(st.st_mode) &&
              faccessat(AT_FDCWD, name, X_OK, AT_EACCESS) == 0;
        Py_DECREF(bytes);
    }
    PyErr_Clear();
    return may;
}

static PyObject *call(int which, PyObject *args, PyObject *keywords)
{
    enum after after = (enum after)wrapped[which].kind;
    bool clears = after == SHARING || (after == PROGRAM && may_execute(args, keywords));
    if (clears)
        pools_clear(after == SHARING);
    PyObject *done = PyObject_Call(wrapped[which].original, args, keywords);
    identity_look();
    if (clears)
        pools_go_on();
    return done;
}

PyObject *identity_watch(PyObject *module, PyObject *os)
{
    (void)module;
    if (wrap(os, wrapped, COUNT) < 0)
        return NULL;
    identity_look();
    Py_RETURN_NONE;
}
