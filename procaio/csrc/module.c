/* procaio/csrc/module.c - the module procaio._core. */
#include <pthread.h>
#include <sys/mman.h>

#include "core.h"

struct hooks hooks;
_Thread_local int callback_errno;
_Thread_local bool callback_died;

/* The priority of the next request that this thread makes. */
static _Thread_local int next_priority;

extern PyType_Spec Request_Spec, Pool_Spec, FileHandle_Spec, Buffer_Spec, Waiter_Spec, Mapping_Spec, Group_Spec;

int priority_next(void)
{
    return next_priority;
}

void priority_reset(void)
{
    next_priority = 0;
}

static int clamp(long n)
{
    return n > 4 ? 4 : n < -4 ? -4 : (int)n;
}

/* An integer of any size, as a long that keeps its sign. */
static int as_long(PyObject *value, long *number)
{
    PyObject *index = PyNumber_Index(value);
    if (!index)
        return -1;
    int overflow;
    *number = PyLong_AsLongAndOverflow(index, &overflow);
    Py_DECREF(index);
    if (overflow)
        *number = overflow * 1000;
    return 0;
}

static PyObject *aioreq_pri(PyObject *module, PyObject *const *args, Py_ssize_t count)
{
    (void)module;
    if (count > 1)
        return PyErr_Format(PyExc_TypeError, "aioreq_pri() takes at most 1 argument");
    long n, previous = next_priority;
    if (count == 1 && args[0] != Py_None) {
        if (as_long(args[0], &n) < 0)
            return NULL;
        next_priority = clamp(n);
    }
    return PyLong_FromLong(previous);
}

static PyObject *aioreq_nice(PyObject *module, PyObject *value)
{
    (void)module;
    long n;
    if (as_long(value, &n) < 0)
        return NULL;
    next_priority = clamp(next_priority - (n > 8 ? 8 : n < -8 ? -8 : n));
    Py_RETURN_NONE;
}

static PyObject *current_errno(PyObject *module, PyObject *unused)
{
    (void)module;
    (void)unused;
    return PyLong_FromLong(callback_errno);
}

static PyObject *worker_died(PyObject *module, PyObject *unused)
{
    (void)module;
    (void)unused;
    return PyBool_FromLong(callback_died);
}

/* What is static here belongs to the main interpreter, and so do its objects. */
static int refuse_subinterpreter(void)
{
    if (PyInterpreterState_Get() == PyInterpreterState_Main())
        return 0;
    PyErr_SetString(PyExc_ImportError, "procaio works in the main interpreter only");
    return -1;
}

PyObject *interned(PyObject **place, const char *text)
{
    if (!*place)
        *place = PyUnicode_InternFromString(text);
    return *place;
}

/* Asked for each request; an import that changes the answer changes how many modules there are. */
bool is_imported(struct imported *asked, const char *text)
{
    PyObject *modules = PyImport_GetModuleDict();
    Py_ssize_t count = modules ? PyDict_GET_SIZE(modules) : 0;
    if (likely(asked->modules == modules && asked->count == count))
        return asked->found;
    PyObject *key = interned(&asked->name, text);
    asked->found = key && modules && PyDict_GetItemWithError(modules, key);
    asked->modules = modules;
    asked->count = count;
    return asked->found;
}

/* It is imported when it is needed first: it needs this module. */
PyObject *call_loops(const char *function, const char *format, ...)
{
    va_list values;
    va_start(values, format);
    PyObject *loops = PyImport_ImportModule("procaio._loops");
    PyObject *callable = loops ? PyObject_GetAttrString(loops, function) : NULL;
    PyObject *arguments = callable ? Py_VaBuildValue(format, values) : NULL;
    va_end(values);
    PyObject *found = arguments ? PyObject_CallObject(callable, arguments) : NULL;
    Py_XDECREF(arguments);
    Py_XDECREF(callable);
    Py_XDECREF(loops);
    return found;
}

/* The first thing that an import does to the module where another interpreter has it already. */
static PyObject *set_hook(PyObject *module, PyObject *args)
{
    (void)module;
    const char *name;
    PyObject *value;
    if (refuse_subinterpreter() < 0 || !PyArg_ParseTuple(args, "sO:_set_hook", &name, &value))
        return NULL;
    const struct {
        const char *name;
        PyObject **place;
    } places[] = {
        {"default_pool", &hooks.default_pool},   {"make_default", &hooks.make_default},
        {"on_error", &hooks.on_error},           {"WorkerDied", &hooks.WorkerDied},
        {"CrashLoopWarning", &hooks.CrashLoopWarning},
        {"PoolClosed", &hooks.PoolClosed},       {"RequestCancelled", &hooks.RequestCancelled},
        {"UTIME_NOW", &hooks.utime_now},         {"UTIME_OMIT", &hooks.utime_omit},
    };
    for (size_t i = 0; i < sizeof places / sizeof places[0]; i++) {
        if (strcmp(places[i].name, name) != 0)
            continue;
        PyObject *previous = *places[i].place;
        *places[i].place = value == Py_None ? NULL : Py_NewRef(value);
        return previous ? previous : Py_NewRef(Py_None);
    }
    return PyErr_Format(PyExc_KeyError, "no such hook: %s", name);
}

static PyObject *get_default_pool(PyObject *module, PyObject *unused)
{
    (void)module;
    (void)unused;
    return Py_NewRef(hooks.default_pool ? hooks.default_pool : Py_None);
}

/* In the order of enum pa_fault_point, without `nowhere`. */
static PyObject *fault_points(void)
{
    static const char *const names[PA_NFAULTS] = {
        [PA_FAULT_NOWHERE] = "",          [PA_FAULT_CLAIMED] = "claimed",
        [PA_FAULT_TAKEN] = "taken",       [PA_FAULT_CALLED] = "called",
        [PA_FAULT_DONE] = "done",         [PA_FAULT_PUBLISHED] = "published",
        [PA_FAULT_SIGNALLED] = "signalled", [PA_FAULT_SLEEPING] = "sleeping",
        [PA_FAULT_BORN] = "born",
    };
    PyObject *points = PyTuple_New(PA_NFAULTS - 1);
    for (int point = 1; points && point < PA_NFAULTS; point++) {
        PyObject *name = PyUnicode_FromString(names[point]);
        if (!name)
            Py_CLEAR(points);
        else
            PyTuple_SET_ITEM(points, point - 1, name);
    }
    return points;
}

static int add_object(PyObject *module, const char *name, PyObject *object)
{
    int failed = object ? PyModule_AddObjectRef(module, name, object) : -1;
    Py_XDECREF(object);
    return failed;
}

static PyMethodDef own_functions[] = {
    {"aioreq_pri", (PyCFunction)(void (*)(void))aioreq_pri, METH_FASTCALL,
     "aioreq_pri(pri=None, /)\n--\n\n"
     "The priority (-4 to 4, clamped) of the next request that this thread makes; returns the\n"
     "previous one. It is 0 again after every request. (IO::AIO aioreq_pri)"},
    {"aioreq_nice", aioreq_nice, METH_O,
     "aioreq_nice(adjust, /)\n--\n\n"
     "Subtract from the next request's priority; cumulative. (IO::AIO aioreq_nice)"},
    {"errno", current_errno, METH_NOARGS,
     "errno()\n--\n\n"
     "The errno of the request whose callback is running in this thread; 0 on success."},
    {"_worker_died", worker_died, METH_NOARGS, NULL},
    {"_set_hook", set_hook, METH_VARARGS, NULL},
    {"_watch_identity", identity_watch, METH_O, NULL},
    {"_look_for_lost", lost_look, METH_NOARGS, NULL},
    {"_watch_limits", limits_watch, METH_O, NULL},
    {"_resize", limits_resize, METH_VARARGS, NULL},
    {"_default_pool", get_default_pool, METH_NOARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static void forked(void)
{
    fork_count++;
    memory_after_fork();
    children_after_fork();
    clearing_after_fork();
}

static int add_type(PyObject *module, PyType_Spec *spec, const char *name, PyTypeObject **type)
{
    *type = (PyTypeObject *)PyType_FromSpec(spec);
    return *type ? PyModule_AddObjectRef(module, name, (PyObject *)*type) : -1;
}

/* Nobody else makes types from Request. */
static int add_group_type(PyObject *module)
{
    Request_Type->tp_flags |= Py_TPFLAGS_BASETYPE;
    Group_Type = (PyTypeObject *)PyType_FromSpecWithBases(&Group_Spec, (PyObject *)Request_Type);
    Request_Type->tp_flags &= ~Py_TPFLAGS_BASETYPE;
    return Group_Type ? PyModule_AddObjectRef(module, "Group", (PyObject *)Group_Type) : -1;
}

static PyModuleDef definition = {
    PyModuleDef_HEAD_INIT,
    .m_name = "procaio._core",
    .m_doc = "The hot half of procaio: requests, rings and the children's start.",
    .m_size = -1,
};

PyMODINIT_FUNC PyInit__core(void)
{
    PyObject *module = refuse_subinterpreter() < 0 ? NULL : PyModule_Create(&definition);
    if (!module)
        return NULL;
    if (arguments_ready() < 0 || results_ready() < 0 || functions_ready() < 0 ||
        PyModule_AddFunctions(module, own_functions) < 0 ||
        PyModule_AddFunctions(module, aio_functions) < 0 ||
        PyModule_AddFunctions(module, system_functions) < 0 ||
        add_type(module, &Request_Spec, "Request", &Request_Type) < 0 ||
        add_type(module, &Pool_Spec, "CorePool", &Pool_Type) < 0 ||
        add_type(module, &FileHandle_Spec, "FileHandle", &FileHandle_Type) < 0 ||
        add_type(module, &Buffer_Spec, "Buffer", &Buffer_Type) < 0 ||
        add_type(module, &Waiter_Spec, "Waiter", &Waiter_Type) < 0 ||
        add_type(module, &Mapping_Spec, "Mapping", &Mapping_Type) < 0 ||
        add_group_type(module) < 0 ||
        PyModule_AddType(module, Statx_Type) < 0 ||
        PyModule_AddFunctions(module, memory_functions) < 0 ||
        PyModule_AddFunctions(module, batch_functions) < 0 ||
        PyModule_AddIntConstant(module, "SEGMENT_SIZE", (long)sizeof(struct pa_segment)) < 0 ||
        PyModule_AddIntConstant(module, "MAX_WORKERS", PA_MAX_WORKERS) < 0 ||
        PyModule_AddIntConstant(module, "SLOTS", PA_NSLOTS) < 0 ||
        PyModule_AddIntMacro(module, MS_SYNC) < 0 || /* a default, for help() */
        add_object(module, "CONSTANTS", constants_dict()) < 0 ||
        add_object(module, "FAULT_POINTS", fault_points()) < 0 ||
        PyModule_AddIntConstant(module, "TREE_TOP", PA_TREE_TOP) < 0 ||
        PyModule_AddIntConstant(module, "TREE_FOLLOW_TOP", PA_TREE_FOLLOW_TOP) < 0 ||
        PyModule_AddIntConstant(module, "TREE_KEEP", PA_TREE_KEEP) < 0 ||
        PyModule_AddIntConstant(module, "TREE_FOLLOW", PA_TREE_FOLLOW) < 0 ||
        PyModule_AddIntConstant(module, "TREE_HIDE_TYPES", PA_TREE_HIDE_TYPES) < 0 ||
        PyModule_AddIntConstant(module, "TREE_UNREAD", PA_TREE_UNREAD) < 0 ||
        PyModule_AddIntConstant(module, "TREE_ONLY_SELF", PA_TREE_ONLY_SELF) < 0 ||
        PyModule_AddIntConstant(module, "TREE_SEEK", PA_TREE_SEEK) < 0 ||
        PyModule_AddIntConstant(module, "TREE_STAYS", PA_TREE_STAYS) < 0 ||
        PyModule_AddIntConstant(module, "TREE_MAY_EXIST", PA_TREE_MAY_EXIST) < 0 ||
        PyModule_AddIntConstant(module, "TREE_BYTES", PA_TREE_BYTES) < 0 ||
        PyModule_AddIntConstant(module, "TREE_STAT", PA_TREE_STAT) < 0 ||
        PyModule_AddIntConstant(module, "TREE_DEEP", PA_TREE_DEEP) < 0 ||
        PyModule_AddIntConstant(module, "FAULT_ALWAYS", PA_FAULT_ALWAYS) < 0) {
        Py_DECREF(module);
        return NULL;
    }
    pthread_atfork(memory_before_fork, NULL, forked);
    return module;
}
