/* procaio/csrc/listings.c - what is in directories, and in steps of trees, turned into Python objects.
 *
 * Records as the kernel writes them (getdents64(2)) lie in a block, where a worker that has gone wild may
 * write, too: see results.c.
 */
#include <dirent.h>
#include <stdlib.h>
#include <unistd.h>

#include "results.h"

enum { /* API.md G: the names and values are the reference's */
    READDIR_DENTS = 1,
    READDIR_DIRS_FIRST = 2,
    READDIR_STAT_ORDER = 4,
    READDIR_FOUND_UNKNOWN = 8,
};

/* -- directories ------------------------------------------------------------------------------ */

struct record { /* the kernel's linux_dirent64 */
    uint64_t inode;
    int64_t offset;
    uint16_t size;
    uint8_t type;
    char name[];
};
#define RECORD_NAME offsetof(struct record, name)

struct entry {
    const char *name;
    uint64_t inode;
    uint16_t length;
    uint16_t size; /* of the record */
    uint8_t type;
    uint8_t rank; /* for READDIR_DIRS_FIRST: lower is likelier a directory */
};

/* Known directories first, known others last.  Of unknown ones those that begin with a dot, then
 * those without a dot, short names before long ones. */
static uint8_t rank_of(const char *name, size_t length, uint8_t type)
{
    if (type == DT_DIR)
        return 0;
    if (type != DT_UNKNOWN)
        return 255;
    if (name[0] == '.')
        return 1;
    if (memchr(name, '.', length))
        return 254;
    return (uint8_t)(length < 250 ? 2 + length : 252);
}

/* The next record of [at, at + left) that is not . or ..; NULL at the end, or, with *left > 0, where they
 * are broken. */
static const char *next_entry(const char *at, size_t *left, struct entry *entry)
{
    while (*left > 0) {
        struct record record;
        if (*left < RECORD_NAME + 1)
            return NULL;
        memcpy(&record, at, RECORD_NAME);
        if (record.size < RECORD_NAME + 1 || record.size > *left)
            return NULL;
        const char *name = at + RECORD_NAME;
        size_t length = strnlen(name, record.size - RECORD_NAME);
        if (record.type != DT_SECTION && memchr(name, '/', length))
            return NULL;
        at += record.size;
        *left -= record.size;
        if (length == 0 || (name[0] == '.' && (length == 1 || (length == 2 && name[1] == '.'))))
            continue;
        *entry = (struct entry){.name = name,
                                .inode = record.inode,
                                .length = (uint16_t)length,
                                .size = record.size,
                                .type = record.type};
        return at;
    }
    return NULL;
}

static int by_inode(const void *a, const void *b)
{
    uint64_t x = ((const struct entry *)a)->inode, y = ((const struct entry *)b)->inode;
    return (x > y) - (x < y);
}

static int by_rank(const void *a, const void *b)
{
    const struct entry *x = a, *y = b;
    return x->rank != y->rank ? (int)x->rank - (int)y->rank : by_inode(a, b);
}

static int by_rank_group_then_inode(const void *a, const void *b)
{
    const struct entry *x = a, *y = b;
    bool likely_x = x->rank < 254, likely_y = y->rank < 254;
    return likely_x != likely_y ? (int)likely_y - (int)likely_x : by_inode(a, b);
}

static void sort_entries(struct entry *entries, size_t count, uint32_t flags)
{
    if (flags & READDIR_DIRS_FIRST && flags & READDIR_STAT_ORDER)
        qsort(entries, count, sizeof *entries, by_rank_group_then_inode);
    else if (flags & READDIR_DIRS_FIRST)
        qsort(entries, count, sizeof *entries, by_rank);
    else if (flags & READDIR_STAT_ORDER)
        qsort(entries, count, sizeof *entries, by_inode);
}

static PyObject *name_object(const Request *request, const struct entry *entry)
{
    if (request->names_are_bytes)
        return PyBytes_FromStringAndSize(entry->name, entry->length);
    return PyUnicode_DecodeFSDefaultAndSize(entry->name, entry->length);
}

static PyObject *entry_object(const Request *request, const struct entry *entry)
{
    PyObject *name = name_object(request, entry);
    if (!name || !(request->kind == RESULT_ENTRIES && request->flags & READDIR_DENTS))
        return name;
    PyObject *type = PyLong_FromLong(entry->type), *inode = PyLong_FromUnsignedLongLong(entry->inode);
    PyObject *tuple = type && inode ? PyTuple_New(3) : NULL;
    if (!tuple) {
        Py_DECREF(name);
        Py_XDECREF(type);
        Py_XDECREF(inode);
        return NULL;
    }
    PyTuple_SET_ITEM(tuple, 0, name);
    PyTuple_SET_ITEM(tuple, 1, type);
    PyTuple_SET_ITEM(tuple, 2, inode);
    return tuple;
}

static PyObject *list_unsorted(Request *request, const char *records, size_t size, bool *unknown)
{
    PyObject *list = PyList_New(0);
    struct entry entry;
    while (list && (records = next_entry(records, &size, &entry))) {
        *unknown |= entry.type == DT_UNKNOWN;
        if (result_append(list, entry_object(request, &entry)) < 0)
            Py_CLEAR(list);
    }
    if (list && size > 0) {
        Py_DECREF(list);
        return result_garbage(request);
    }
    return list;
}

/* Entries in the order that was asked for, `count` of them, to be freed; NULL if there are none to be
 * had. */
static struct entry *sorted(Request *request, const char *records, size_t size, size_t *count,
                            bool *unknown)
{
    size_t most = size / (RECORD_NAME + 1) + 1;
    struct entry *entries = malloc(most * sizeof *entries);
    *count = 0;
    if (!entries) {
        PyErr_NoMemory();
        return NULL;
    }
    Py_BEGIN_ALLOW_THREADS
    while ((records = next_entry(records, &size, &entries[*count]))) {
        struct entry *entry = &entries[(*count)++];
        *unknown |= entry->type == DT_UNKNOWN;
        entry->rank = rank_of(entry->name, entry->length, entry->type);
    }
    sort_entries(entries, *count, request->flags);
    Py_END_ALLOW_THREADS
    if (size > 0) {
        free(entries);
        result_garbage(request);
        return NULL;
    }
    return entries;
}

static PyObject *list_of(Request *request, const struct entry *entries, size_t count)
{
    PyObject *list = PyList_New((Py_ssize_t)count);
    for (size_t i = 0; list && i < count; i++) {
        PyObject *item = entry_object(request, &entries[i]);
        if (item)
            PyList_SET_ITEM(list, (Py_ssize_t)i, item);
        else
            Py_CLEAR(list);
    }
    return list;
}

/* What was asked for, and what was found. */
uint32_t listing_flags(const Request *request, bool unknown)
{
    return (request->flags & ~(uint32_t)READDIR_FOUND_UNKNOWN) |
           (unknown ? READDIR_FOUND_UNKNOWN : 0u);
}

PyObject *listing_take(Request *request, size_t size)
{
    const char *records = request->block.at;
    if (request->gathered) {
        if (result_gather(request, size) < 0)
            return PyErr_NoMemory();
        records = request->gathered;
        size = request->gathered_size;
    }
    bool unknown = false, in_order = request->kind == RESULT_ENTRIES &&
                                     request->flags & (READDIR_DIRS_FIRST | READDIR_STAT_ORDER);
    size_t count;
    struct entry *entries = in_order ? sorted(request, records, size, &count, &unknown) : NULL;
    if (in_order && !entries)
        return NULL;
    int collected = garbage_stays();
    PyObject *value = in_order ? list_of(request, entries, count)
                               : list_unsorted(request, records, size, &unknown);
    if (value && request->kind == RESULT_ENTRIES)
        value = Py_BuildValue("NI", value, listing_flags(request, unknown));
    garbage_goes(collected);
    free(entries);
    return value;
}

/* -- steps of trees ---------------------------------------------------------------------------- */

/* The directory, if the worker has left it open. */
static PyObject *take_directory_handle(Request *request, int fd)
{
    if (fd < 0)
        return Py_NewRef(Py_None);
    if (!result_is_opened(request, fd))
        return result_garbage(request);
    PyObject *handle = filehandle_new_own(fd, request->path ? request->path : Py_None);
    if (handle)
        orphans_adopt(fd);
    else
        close(fd);
    return handle;
}

enum { DIRS, OTHERS, LINKS, UNKNOWN, NLISTS };

static int list_of_type(uint8_t type)
{
    return type == DT_DIR        ? DIRS
           : type == DT_DIR_LINK ? LINKS
           : type == DT_UNKNOWN  ? UNKNOWN
                                 : OTHERS;
}

/* (name, mode, links, size, blocks, device, inode), from behind the record's name. */
static PyObject *entry_with_stat(PyObject *name, const struct entry *entry)
{
    struct pa_tree_entry st = {.mode = 0};
    if (entry->size > RECORD_NAME + entry->length + sizeof st)
        memcpy(&st, entry->name - RECORD_NAME + entry->size - sizeof st, sizeof st);
    PyObject *tuple = PyTuple_New(7);
    if (!tuple) {
        Py_DECREF(name);
        return NULL;
    }
    const unsigned long long numbers[] = {st.mode, st.nlink, st.size, st.blocks, st.dev,
                                          entry->inode};
    PyTuple_SET_ITEM(tuple, 0, name);
    for (Py_ssize_t i = 0; i < 6; i++) {
        PyObject *number = PyLong_FromUnsignedLongLong(numbers[i]);
        if (!number) {
            Py_DECREF(tuple);
            return NULL;
        }
        PyTuple_SET_ITEM(tuple, i + 1, number);
    }
    return tuple;
}

/* What failed is told as (name, errno), all else by name, or with its stat. */
static PyObject *tree_entry(const Request *request, const struct entry *entry)
{
    PyObject *name = name_object(request, entry);
    if (name && entry->type == DT_FAILED)
        return Py_BuildValue("Ni", name, (int)entry->inode);
    bool has_stat = request->flags & PA_TREE_STAT && (entry->type == DT_DIR || entry->type == DT_OTHER);
    return name && has_stat ? entry_with_stat(name, entry) : name;
}

/* (way, directories, others, symlinks to directories): `lists` become those of this one, borrowed. */
static int begin_section(PyObject *sections, PyObject *way, PyObject *lists[NLISTS])
{
    PyObject *section = Py_BuildValue("N[][][]", way);
    if (!section)
        return -1;
    for (Py_ssize_t i = 0; i < UNKNOWN; i++)
        lists[i] = PyTuple_GET_ITEM(section, i + 1);
    lists[UNKNOWN] = lists[OTHERS]; /* there are none */
    return result_append(sections, section);
}

static int sort_out(Request *request, size_t size, PyObject *const own[NLISTS],
                    PyObject *sections)
{
    const char *records = request->block.at;
    struct entry entry;
    PyObject *lists[NLISTS] = {own[0], own[1], own[2], own[3]};
    while (size > 0 && (records = next_entry(records, &size, &entry))) {
        PyObject *name = tree_entry(request, &entry);
        if (!name)
            return -1;
        if (entry.type == DT_SECTION) {
            if (begin_section(sections, name, lists) < 0)
                return -1;
            continue;
        }
        /* A symlink to a directory stands among the directories too. */
        if (entry.type == DT_DIR_LINK && PyList_Append(lists[DIRS], name) < 0) {
            Py_DECREF(name);
            return -1;
        }
        if (result_append(lists[list_of_type(entry.type)], name) < 0)
            return -1;
    }
    if (size > 0)
        result_garbage(request);
    return size > 0 ? -1 : 0;
}

/* (handle or None, os.stat_result, directories, others, symlinks to directories, names without a type,
 * offset of the rest or None, how many entries were looked at, sections), or of a removal (handle or
 * None, how many names were removed, directories, failures, whether there is more, the directory is
 * gone). */
PyObject *listing_take_tree(Request *request, const struct pa_slot *slot, size_t size)
{
    struct pa_tree_answer answer;
    PyObject *lists[NLISTS], *value = NULL, *sections = PyList_New(0);
    memcpy(&answer, slot->payload, sizeof answer);
    PyObject *handle = take_directory_handle(request, answer.fd);
    bool ready = handle && sections;
    for (int i = 0; i < NLISTS; i++)
        ready = (lists[i] = PyList_New(0)) && ready;
    if (ready && sort_out(request, size, lists, sections) == 0) {
        if (request->kind == RESULT_LISTING)
            value = Py_BuildValue("ONOOOONIO", handle, result_take_stat(slot), lists[DIRS], lists[OTHERS],
                                  lists[LINKS], lists[UNKNOWN],
                                  answer.more ? PyLong_FromLongLong(answer.next)
                                              : Py_NewRef(Py_None),
                                  answer.looked, sections);
        else
            value = Py_BuildValue("OKOONN", handle, (unsigned long long)answer.removed,
                                  lists[DIRS], lists[OTHERS], PyBool_FromLong(answer.more),
                                  PyBool_FromLong(answer.gone));
    }
    Py_XDECREF(handle);
    Py_XDECREF(sections);
    for (int i = 0; i < NLISTS; i++)
        Py_XDECREF(lists[i]);
    return value;
}
