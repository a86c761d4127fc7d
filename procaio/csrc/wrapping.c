/* procaio/csrc/wrapping.c - functions of Python's own modules that change what workers go by.
 *
 * What stands in their place looks like them: a built-in function of the same name, text and module,
 * which can be pickled.  Programs that took the original before there was a pool still have it.
 */
#include "core.h"

/* A function of that name and of a module; whatever else somebody has put there is left alone. */
static bool is_original(PyObject *found, const char *name)
{
    if (!PyCFunction_CheckExact(found))
        return false;
    PyObject *self = PyCFunction_GET_SELF(found);
    return self && PyModule_Check(self) &&
           strcmp(((PyCFunctionObject *)found)->m_ml->ml_name, name) == 0;
}

static int make(struct wrapping *wrapping, PyObject *original)
{
    const char *doc = ((PyCFunctionObject *)original)->m_ml->ml_doc;
    wrapping->def = (PyMethodDef){wrapping->name, wrapping->function,
                                  METH_VARARGS | METH_KEYWORDS, doc};
    PyObject *home = PyObject_GetAttrString(original, "__module__");
    if (!home)
        return -1;
    wrapping->made = PyCFunction_NewEx(&wrapping->def, PyCFunction_GET_SELF(original), home);
    Py_DECREF(home);
    if (!wrapping->made)
        return -1;
    wrapping->original = Py_NewRef(original);
    return 0;
}

/* In the module, and in the one that it has it from (posix). */
static int replace(const struct wrapping *wrapping, PyObject *module)
{
    PyObject *dicts[] = {PyModule_GetDict(module),
                         PyModule_GetDict(PyCFunction_GET_SELF(wrapping->original))};
    for (int i = 0; i < 2; i++)
        if (PyDict_GetItemString(dicts[i], wrapping->name) == wrapping->original &&
            PyDict_SetItemString(dicts[i], wrapping->name, wrapping->made) < 0)
            return -1;
    return 0;
}

int wrap(PyObject *module, struct wrapping *wrappings, int count)
{
    if (!PyModule_Check(module)) {
        PyErr_SetString(PyExc_TypeError, "a module is needed");
        return -1;
    }
    for (struct wrapping *each = wrappings; each < wrappings + count; each++) {
        PyObject *found = PyDict_GetItemString(PyModule_GetDict(module), each->name);
        if (!each->original && found && is_original(found, each->name) && make(each, found) < 0)
            return -1;
        if (each->original && replace(each, module) < 0)
            return -1;
    }
    return 0;
}
