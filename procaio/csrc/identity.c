/* procaio/csrc/identity.c - the program becomes another user.
 *
 * Workers have the rights that the program had when their spawner was cloned.  When it gives up
 * some, or takes others, every pool gets a new spawner, and workers that are older neither stay nor
 * begin anything (loop.c: refuse).  So no request is executed with rights that the program did not
 * have any more when it was made.
 *
 * Python's own functions for that (os.setuid and its like) are wrapped, once there is a pool.  Other
 * ways, as by ctypes, are found out by looking: with the first request after a poll, if the last
 * look was some time ago and the program has any rights to give up.
 */
#include <linux/capability.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "core.h"

#define LOOK_AGAIN_NS UINT64_C(100000)
enum { MOST_GROUPS = 65536, KEPT_GROUPS = 64 };

struct identity {
    uid_t uids[3];
    gid_t gids[3];
    int group_count;
    gid_t groups[KEPT_GROUPS];
    struct __user_cap_data_struct capabilities[2];
    ino_t mounts;
};

uint32_t identity_number;
bool identity_unsure;

static struct identity known;
static uint64_t looked_at_ns;

/* -- what it is ------------------------------------------------------------------------------- */

static struct identity now_is(void)
{
    struct identity is;
    memset(&is, 0, sizeof is); /* they are compared as memory */
    getresuid(&is.uids[0], &is.uids[1], &is.uids[2]);
    getresgid(&is.gids[0], &is.gids[1], &is.gids[2]);
    is.group_count = getgroups(0, NULL);
    if (is.group_count <= KEPT_GROUPS)
        getgroups(KEPT_GROUPS, is.groups);
    struct __user_cap_header_struct version = {.version = _LINUX_CAPABILITY_VERSION_3};
    syscall(SYS_capget, &version, is.capabilities);
    struct stat st;
    if (stat("/proc/self/ns/mnt", &st) == 0)
        is.mounts = st.st_ino;
    return is;
}

static bool has_rights(const struct identity *is)
{
    bool one_user = is->uids[0] == is->uids[1] && is->uids[1] == is->uids[2];
    bool one_group = is->gids[0] == is->gids[1] && is->gids[1] == is->gids[2];
    return !one_user || !one_group || is->capabilities[0].permitted ||
           is->capabilities[1].permitted;
}

void identity_note(void)
{
    known = now_is();
    looked_at_ns = pa_now_ns();
}

/* -- it changes ------------------------------------------------------------------------------- */

static Pool *next_old_pool(void)
{
    for (Pool *pool = open_pools; pool; pool = pool->next_open)
        if (pool->fork_count == fork_count && !pool->is_inline && pool->lags)
            return pool;
    return NULL;
}

/* All pools know before other threads may run and make requests: that is while a spawner is waited
 * for, so the list is looked through anew each time. */
static void renew_pools(void)
{
    Pool *pool;
    identity_number++;
    for (pool = open_pools; pool; pool = pool->next_open)
        if (pool->fork_count == fork_count && !pool->is_inline)
            pool_identify(pool, identity_number);
    while ((pool = next_old_pool())) {
        Py_INCREF((PyObject *)pool);
        pool_renew(pool);
        Py_DECREF((PyObject *)pool);
    }
}

void identity_look(void)
{
    identity_unsure = false;
    uint64_t now_ns = pa_now_ns();
    if (now_ns - looked_at_ns < LOOK_AGAIN_NS || !has_rights(&known))
        return;
    looked_at_ns = now_ns;
    struct identity is = now_is();
    if (memcmp(&is, &known, sizeof is) == 0)
        return;
    known = is;
    renew_pools();
}

/* Before the program becomes another one: by execve its children are not ended. */
static void clear_pools(void)
{
    enum { MOST = 64 };
    Pool *pools[MOST];
    int count = 0;
    for (Pool *pool = open_pools; pool && count < MOST; pool = pool->next_open)
        if (pool->fork_count == fork_count && !pool->is_inline)
            pools[count++] = (Pool *)Py_NewRef((PyObject *)pool);
    while (count-- > 0) {
        pool_clear(pools[count]);
        Py_DECREF((PyObject *)pools[count]);
    }
}

/* -- Python's functions ----------------------------------------------------------------------- */

static const char *const wrapped[] = {
    "setuid", "seteuid", "setreuid", "setresuid", "setgid", "setegid", "setregid",
    "setresgid", "setgroups", "initgroups", "unshare", "setns", "execv", "execve",
};
enum { WRAPPED = sizeof wrapped / sizeof wrapped[0], FIRST_EXEC = WRAPPED - 2 };
static PyMethodDef wrappers[WRAPPED];

/* Before, too: afterwards the program may not be allowed any more to end the workers it had. */
static PyObject *change(PyObject *original, PyObject *args, PyObject *keywords)
{
    renew_pools();
    PyObject *done = PyObject_Call(original, args, keywords);
    PyObject *type, *value, *traceback;
    PyErr_Fetch(&type, &value, &traceback);
    identity_note();
    renew_pools();
    PyErr_Restore(type, value, traceback);
    return done;
}

static PyObject *exec(PyObject *original, PyObject *args, PyObject *keywords)
{
    clear_pools();
    return PyObject_Call(original, args, keywords);
}

/* What stands there is a built-in function afterwards, too: it binds to no object. */
static int wrap(PyObject *os, int which, PyObject *original)
{
    const PyMethodDef *def = ((PyCFunctionObject *)original)->m_ml;
    PyCFunctionWithKeywords function = which < FIRST_EXEC ? change : exec;
    if (def == &wrappers[which])
        return 0;
    wrappers[which] = (PyMethodDef){wrapped[which], (PyCFunction)(void (*)(void))function,
                                    METH_VARARGS | METH_KEYWORDS, def->ml_doc};
    PyObject *module = PyObject_GetAttrString(original, "__module__");
    PyObject *wrapper = PyCFunction_NewEx(&wrappers[which], original, module);
    Py_XDECREF(module);
    int failed = !wrapper || PyObject_SetAttrString(os, wrapped[which], wrapper) < 0;
    Py_XDECREF(wrapper);
    return failed ? -1 : 0;
}

PyObject *identity_watch(PyObject *module, PyObject *os)
{
    (void)module;
    for (int which = 0; which < WRAPPED; which++) {
        PyObject *original = PyObject_GetAttrString(os, wrapped[which]);
        if (!original) /* this Python does not have it */
            PyErr_Clear();
        int failed = original && PyCFunction_Check(original) ? wrap(os, which, original) : 0;
        Py_XDECREF(original);
        if (failed)
            return NULL;
    }
    identity_note();
    Py_RETURN_NONE;
}
