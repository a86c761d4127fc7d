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
        if (pool->fork_count == fork_count && !pool->is_inline &&
            pool->segment->header.identity != identity_number)
            return pool;
    return NULL;
}

/* Other threads may run meanwhile, so the list is looked through anew each time. */
static void renew_pools(void)
{
    Pool *pool;
    identity_number++;
    while ((pool = next_old_pool())) {
        Py_INCREF((PyObject *)pool);
        pool_renew(pool, identity_number);
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

/* -- Python's functions ----------------------------------------------------------------------- */

static const char *const changing[] = {
    "setuid", "seteuid", "setreuid", "setresuid",  "setgid",  "setegid",
    "setregid", "setresgid", "setgroups", "initgroups", "unshare", "setns",
};
enum { CHANGING = sizeof changing / sizeof changing[0] };
static PyMethodDef wrappers[CHANGING];

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

PyObject *identity_watch(PyObject *module, PyObject *os)
{
    (void)module;
    for (int i = 0; i < CHANGING; i++) {
        PyObject *original = PyObject_GetAttrString(os, changing[i]);
        if (!original) { /* this Python does not have it */
            PyErr_Clear();
            continue;
        }
        PyMethodDef *def = PyCFunction_Check(original) ? ((PyCFunctionObject *)original)->m_ml : NULL;
        if (def && def != &wrappers[i]) {
            wrappers[i] = (PyMethodDef){changing[i], (PyCFunction)(void (*)(void))change,
                                        METH_VARARGS | METH_KEYWORDS, def->ml_doc};
            PyObject *name = PyObject_GetAttrString(original, "__module__");
            PyObject *wrapper = PyCFunction_NewEx(&wrappers[i], original, name);
            int failed = !wrapper || PyObject_SetAttrString(os, changing[i], wrapper) < 0;
            Py_XDECREF(name);
            Py_XDECREF(wrapper);
            if (failed) {
                Py_DECREF(original);
                return NULL;
            }
        }
        Py_DECREF(original);
    }
    identity_note();
    Py_RETURN_NONE;
}
