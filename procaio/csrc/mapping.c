/* procaio/csrc/mapping.c - Mapping: memory that the program maps; and the calls on memory that are
 * done at once.
 *
 * A Mapping that shares its pages (MAP_SHARED) keeps a descriptor of the file that it maps, so that
 * workers can map it too: the first time it is the data of a read or write it is lent to that pool,
 * and nothing is copied from then on.  A program may close descriptors that are not its own, and the
 * number is another file's then: so before each use it is made sure that it is still the file.
 */
#include "arguments.h"

#include <fcntl.h>
#include <linux/fs.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

typedef struct Mapping Mapping;
struct Mapping {
    PyObject_HEAD
    PyObject *weakrefs;
    char *base; /* NULL: unmapped */
    Py_ssize_t length;
    uint64_t mapped; /* whole pages */
    int64_t offset;
    int prot, fd; /* fd -1: nobody else can map the same pages */
    dev_t device; /* of `fd` */
    ino_t inode;
    Py_ssize_t exports;
    Pool *pool; /* that it is lent to, or NULL */
    struct pa_arena *arena;
    uint32_t row;
    unsigned lent_in; /* the fork_count then: a child's pool may have an arena at the same place */
    Mapping *next, *previous; /* of those with a descriptor */
};

PyTypeObject *Mapping_Type;
static Mapping *shareable;
#define Mapping_Check(o) (Py_TYPE(o) == Mapping_Type)

/* -- lending ---------------------------------------------------------------------------------- */

/* Gives the pool that had it, or NULL.  To let go of that may run the program's code: last of all. */
static Pool *take_back(Mapping *self)
{
    Pool *pool = self->pool;
    self->pool = NULL;
    if (pool && pool->arena == self->arena && pool->fork_count == fork_count &&
        self->lent_in == fork_count) {
        pa_arena_return(self->arena, self->row);
        if (pool->segment) {
            atomic_fetch_add_explicit(&pool->segment->header.withdrawn, 1, memory_order_release);
            pa_wake_all(pool->segment);
        }
    }
    return pool;
}

/* Lent to a pool that is still there. */
static bool is_lent(const Mapping *self)
{
    return self->pool && self->pool->arena == self->arena && self->pool->segment &&
           self->pool->fork_count == fork_count && self->lent_in == fork_count;
}

static bool has_its_file(int fd, dev_t device, ino_t inode)
{
    struct statx st;
    return statx(fd, "", AT_EMPTY_PATH | AT_STATX_DONT_SYNC, STATX_INO, &st) == 0 &&
           st.stx_ino == inode && makedev(st.stx_dev_major, st.stx_dev_minor) == device;
}

static Mapping *find(const char *at, uint64_t size)
{
    Mapping *self = shareable;
    while (self && !(at >= self->base && size <= self->mapped &&
                     (uint64_t)(at - self->base) <= self->mapped - size))
        self = self->next;
    return self;
}

bool mapping_lend(Pool *pool, const char *at, uint64_t size)
{
    Mapping *self = find(at, size);
    if (!self || pool->is_inline || !pool->segment || is_lent(self) ||
        !has_its_file(self->fd, self->device, self->inode))
        return false;
    Pool *before = take_back(self);
    int row = pa_arena_lend(pool->arena, self->base, self->mapped, self->fd,
                            (uint64_t)self->offset);
    if (row >= 0) {
        self->pool = (Pool *)Py_NewRef((PyObject *)pool);
        self->arena = pool->arena;
        self->row = (uint32_t)row;
        self->lent_in = fork_count;
    }
    Py_XDECREF(before);
    return row >= 0;
}

bool mapping_has_its_file(const char *at, uint64_t size)
{
    const Mapping *self = find(at, size);
    return self && has_its_file(self->fd, self->device, self->inode);
}

static void enlist(Mapping *self)
{
    self->next = shareable;
    if (shareable)
        shareable->previous = self;
    shareable = self;
}

static void delist(Mapping *self)
{
    if (self->previous)
        self->previous->next = self->next;
    else if (shareable == self)
        shareable = self->next;
    if (self->next)
        self->next->previous = self->previous;
    self->next = self->previous = NULL;
}

/* -- mapping ---------------------------------------------------------------------------------- */

static void unmap(Mapping *self)
{
    if (!self->base)
        return;
    char *base = self->base;
    int fd = self->fd;
    self->base = NULL; /* first: other threads and the program's code get their turn below */
    self->fd = -1;
    delist(self);
    Pool *pool = take_back(self);
    Py_BEGIN_ALLOW_THREADS /* may write a lot */
    munmap(base, self->mapped);
    if (fd >= 0 && has_its_file(fd, self->device, self->inode))
        close(fd);
    Py_END_ALLOW_THREADS
    Py_XDECREF(pool);
}

/* Shared memory that has no file gets one, so that workers can map it: the descriptor, or -1. */
static int make_file(int64_t length)
{
    int fd = memfd_create("procaio-mapping", MFD_CLOEXEC);
    if (fd >= 0 && ftruncate(fd, length) == 0)
        return fd;
    PyErr_SetFromErrno(PyExc_OSError);
    if (fd >= 0)
        close(fd);
    return -1;
}

/* Files and disks, which end somewhere; -1: other things decide for themselves what can be mapped. */
static int64_t size_of(int fd, const struct stat *st)
{
    uint64_t size;
    if (S_ISREG(st->st_mode))
        return st->st_size;
    return S_ISBLK(st->st_mode) && ioctl(fd, BLKGETSIZE64, &size) == 0 ? (int64_t)size : -1;
}

/* The descriptor of what is to be mapped.  It must be as long as the mapping, or using its end would
 * be a SIGBUS.  Mapped twice, a device (/dev/zero) may give other memory each time: only files and
 * disks can be lent. */
static int open_source(Mapping *self, PyObject *file, int given, bool *can_be_lent)
{
    struct stat st;
    int fd = given < 0 ? make_file(self->length) : fcntl(given, F_DUPFD_CLOEXEC, 3);
    if (fd < 0 || fstat(fd, &st) < 0) {
        if (!PyErr_Occurred())
            PyErr_SetFromErrnoWithFilenameObject(PyExc_OSError, file);
        if (fd >= 0)
            close(fd);
        return -1;
    }
    int64_t size = size_of(fd, &st);
    if (size >= 0 && (self->offset > size || self->length > size - self->offset)) {
        PyErr_Format(PyExc_ValueError, "%zd bytes at offset %lld are more than the file has (%lld)",
                     self->length, (long long)self->offset, (long long)size);
        close(fd);
        return -1;
    }
    *can_be_lent = size >= 0;
    self->device = st.st_dev;
    self->inode = st.st_ino;
    self->fd = fd;
    return 0;
}

static int map_source(Mapping *self, PyObject *file, int flags, bool can_be_lent)
{
    void *base;
    int failed;
    Py_BEGIN_ALLOW_THREADS
    base = mmap(NULL, self->mapped, self->prot, self->fd < 0 ? flags | MAP_ANONYMOUS
                                                             : flags & ~MAP_ANONYMOUS,
                self->fd, self->offset);
    failed = errno;
    Py_END_ALLOW_THREADS
    if (base == MAP_FAILED) {
        errno = failed;
        PyErr_SetFromErrnoWithFilenameObject(PyExc_OSError, file);
        return -1;
    }
    self->base = base;
    if (can_be_lent) {
        enlist(self);
    } else if (self->fd >= 0) {
        close(self->fd);
        self->fd = -1;
    }
    return 0;
}

static PyObject *mmap_(PyObject *module, PyObject *args, PyObject *kwargs)
{
    (void)module;
    static char *names[] = {"length", "prot", "flags", "fh", "offset", NULL};
    Py_ssize_t length;
    int prot, flags, given = -1;
    PyObject *file = Py_None;
    long long offset = 0;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "nii|OL:mmap", names, &length, &prot, &flags,
                                     &file, &offset))
        return NULL;
    if (length <= 0)
        return PyErr_Format(PyExc_ValueError, "length must be positive: %zd", length);
    if (offset < 0)
        return PyErr_Format(PyExc_ValueError, "offset must not be negative: %lld", offset);
    if (flags & (MAP_FIXED | MAP_FIXED_NOREPLACE | MAP_GROWSDOWN))
        return PyErr_Format(PyExc_ValueError, "these flags need an address: %#x", flags);
    if (file != Py_None) {
        given = PyObject_AsFileDescriptor(file);
        if (given < 0)
            return NULL;
    }
    Mapping *self = PyObject_GC_New(Mapping, Mapping_Type);
    if (!self)
        return NULL;
    uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE);
    memset((char *)self + sizeof(PyObject), 0, sizeof *self - sizeof(PyObject));
    self->length = length;
    self->mapped = ((uint64_t)length + page - 1) / page * page;
    self->offset = offset;
    self->prot = prot;
    self->fd = -1;
    bool shared = (flags & MAP_TYPE) != MAP_PRIVATE, can_be_lent = false;
    PyObject *name = file == Py_None ? NULL : file;
    if (((shared || name) && open_source(self, name, given, &can_be_lent) < 0) ||
        map_source(self, name, flags, shared && can_be_lent) < 0) {
        if (self->fd >= 0)
            close(self->fd);
        self->fd = -1;
        Py_DECREF(self);
        return NULL;
    }
    PyObject_GC_Track((PyObject *)self);
    return (PyObject *)self;
}

static int check(Mapping *self)
{
    if (self->base)
        return 0;
    PyErr_SetString(PyExc_ValueError, "operation on a Mapping that is unmapped");
    return -1;
}

static PyObject *munmap_(Mapping *self, PyObject *unused)
{
    (void)unused;
    if (self->exports > 0)
        memory_sweep();
    if (self->base && self->exports > 0) {
        PyErr_SetString(PyExc_BufferError, "views of the Mapping, or requests with it, still exist");
        return NULL;
    }
    unmap(self);
    Py_RETURN_NONE;
}

static PyObject *munmap_function(PyObject *module, PyObject *mapping)
{
    (void)module;
    if (!Mapping_Check(mapping))
        return PyErr_Format(PyExc_TypeError, "munmap() takes a Mapping, not %.100s",
                            Py_TYPE(mapping)->tp_name);
    return munmap_((Mapping *)mapping, NULL);
}

/* Only visited: the pool clears what leads from it back here. */
static int traverse(Mapping *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(self->pool);
    return 0;
}

static void dealloc(Mapping *self)
{
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack((PyObject *)self);
    if (self->weakrefs)
        PyObject_ClearWeakRefs((PyObject *)self);
    unmap(self);
    PyObject_GC_Del(self);
    Py_DECREF(type);
}

static int get_buffer(Mapping *self, Py_buffer *view, int flags)
{
    view->obj = NULL;
    if (check(self) < 0)
        return -1;
    if (!(self->prot & PROT_READ)) {
        PyErr_SetString(PyExc_BufferError, "the Mapping was made without PROT_READ");
        return -1;
    }
    if (PyBuffer_FillInfo(view, (PyObject *)self, self->base, self->length,
                          !(self->prot & PROT_WRITE), flags) < 0)
        return -1;
    self->exports++;
    return 0;
}

static void release_buffer(Mapping *self, Py_buffer *view)
{
    (void)view;
    self->exports--;
}

static Py_ssize_t length(Mapping *self)
{
    return check(self) < 0 ? -1 : self->length;
}

static PyObject *enter(Mapping *self, PyObject *unused)
{
    (void)unused;
    return check(self) < 0 ? NULL : Py_NewRef((PyObject *)self);
}

static PyObject *repr(Mapping *self)
{
    if (!self->base)
        return PyUnicode_FromString("<Mapping unmapped>");
    return PyUnicode_FromFormat("<Mapping length=%zd offset=%lld>", self->length,
                                (long long)self->offset);
}

static PyMethodDef methods[] = {
    {"munmap", (PyCFunction)munmap_, METH_NOARGS,
     "munmap($self, /)\n--\n\nGive the memory back to the system. A BufferError while views of it\n"
     "exist or requests use it; nothing if that is done already. See munmap(2)."},
    {"__enter__", (PyCFunction)enter, METH_NOARGS, NULL},
    {"__exit__", (PyCFunction)munmap_, METH_VARARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static PyMemberDef members[] = {
    {"__weaklistoffset__", T_PYSSIZET, offsetof(Mapping, weakrefs), READONLY, NULL},
    {NULL, 0, 0, 0, NULL},
};

static PyType_Slot slots[] = {
    {Py_tp_dealloc, dealloc},
    {Py_tp_traverse, traverse},
    {Py_tp_repr, repr},
    {Py_tp_methods, methods},
    {Py_tp_members, members},
    {Py_bf_getbuffer, get_buffer},
    {Py_bf_releasebuffer, release_buffer},
    {Py_mp_length, length},
    {Py_mp_subscript, buffer_subscript},
    {Py_mp_ass_subscript, buffer_assign},
    {Py_tp_doc,
     "Memory that mmap() has mapped: a buffer, writable if it was mapped with PROT_WRITE.\n\n"
     "Supports len(), indexing (slices are copied out) and `with`; it is unmapped by munmap(), at\n"
     "the end of `with`, or when it is collected. As the `data` of aio_read and aio_write one that\n"
     "is MAP_SHARED is used in place, without a copy."},
    {0, NULL},
};

PyType_Spec Mapping_Spec = {
    .name = "procaio.Mapping",
    .basicsize = sizeof(Mapping),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = slots,
};

/* -- calls on memory that do not wait ----------------------------------------------------------- */

/* Python's own, and not a class that only calls itself so. */
static bool is_python_mmap(PyObject *data)
{
    static PyTypeObject *type;
    if (!type && strcmp(Py_TYPE(data)->tp_name, "mmap.mmap") == 0) {
        PyObject *module = PyImport_ImportModule("mmap");
        type = module ? (PyTypeObject *)PyObject_GetAttrString(module, "mmap") : NULL;
        Py_XDECREF(module);
        PyErr_Clear();
    }
    return type && Py_TYPE(data) == type;
}

/* Memory in pages of its own: what is done to whole pages does not hit anything else. */
static bool has_own_pages(PyObject *data)
{
    return Mapping_Check(data) || Buffer_Check(data) || is_python_mmap(data);
}

typedef int memory_call(void *at, size_t size, int what);

static int call_munlock(void *at, size_t size, int unused)
{
    (void)unused;
    return munlock(at, size);
}

static PyObject *on_pages(PyObject *data, PyObject *offset, PyObject *size, int what, bool outwards,
                          memory_call *call)
{
    Py_buffer view;
    if (PyObject_GetBuffer(data, &view, PyBUF_SIMPLE) < 0)
        return NULL;
    struct memory memory = {view.buf, view.len};
    int failed = take_pages(offset, size, outwards, &memory), error;
    if (!failed && memory.size > 0) {
        Py_BEGIN_ALLOW_THREADS
        failed = call(memory.at, (size_t)memory.size, what);
        error = errno;
        Py_END_ALLOW_THREADS
        if (failed) {
            errno = error;
            PyErr_SetFromErrno(PyExc_OSError);
        }
    }
    PyBuffer_Release(&view);
    if (failed)
        return NULL;
    Py_RETURN_NONE;
}

static PyObject *madvise_(PyObject *module, PyObject *args, PyObject *kwargs)
{
    (void)module;
    static char *names[] = {"data", "offset", "length", "advice", NULL};
    PyObject *data, *offset, *size;
    int advice;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "OOOi:madvise", names, &data, &offset, &size,
                                     &advice))
        return NULL;
    return on_pages(data, offset, size, advice, has_own_pages(data), madvise);
}

static PyObject *mprotect_(PyObject *module, PyObject *args, PyObject *kwargs)
{
    (void)module;
    static char *names[] = {"data", "offset", "length", "protect", NULL};
    PyObject *data, *offset, *size;
    int protect;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "OOOi:mprotect", names, &data, &offset, &size,
                                     &protect))
        return NULL;
    if (!has_own_pages(data))
        return PyErr_Format(PyExc_TypeError, "data must be a Mapping, mmap.mmap or Buffer, not %.100s",
                            Py_TYPE(data)->tp_name);
    if (Buffer_Check(data))
        ((Buffer *)data)->altered = true;
    return on_pages(data, offset, size, protect, true, mprotect);
}

static PyObject *munlock_(PyObject *module, PyObject *args, PyObject *kwargs)
{
    (void)module;
    static char *names[] = {"data", "offset", "length", NULL};
    PyObject *data, *offset = NULL, *size = NULL;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O|OO:munlock", names, &data, &offset, &size))
        return NULL;
    return on_pages(data, offset, size, 0, true, call_munlock);
}

static PyObject *munlockall_(PyObject *module, PyObject *unused)
{
    (void)module;
    (void)unused;
    if (munlockall() < 0)
        return PyErr_SetFromErrno(PyExc_OSError);
    Py_RETURN_NONE;
}

static PyObject *mlockall_(PyObject *module, PyObject *arg)
{
    (void)module;
    int64_t flags;
    int failed, error;
    if (take_number(arg, "flags", INT32_MIN, INT32_MAX, &flags) < 0)
        return NULL;
    Py_BEGIN_ALLOW_THREADS
    failed = mlockall((int)flags);
    error = errno;
    Py_END_ALLOW_THREADS
    if (failed) {
        errno = error;
        return PyErr_SetFromErrno(PyExc_OSError);
    }
    Py_RETURN_NONE;
}

#define WITH_KEYWORDS(function) (PyCFunction)(void (*)(void))function, METH_VARARGS | METH_KEYWORDS

PyMethodDef memory_functions[] = {
    {"mmap", WITH_KEYWORDS(mmap_),
     "mmap(length, prot, flags, fh=None, offset=0)\n--\n\n"
     "Map `length` bytes of a file, from `offset` (whole pages) on, or of fresh memory if `fh` is\n"
     "None; gives a Mapping.\n\n"
     "`prot` and `flags` are PROT_* and MAP_*. ValueError for a length of 0, and for more than the\n"
     "file has: using what lies beyond its end would kill the program. See mmap(2)."},
    {"munmap", munmap_function, METH_O,
     "munmap(mapping, /)\n--\n\nUnmap what mmap() has mapped; see Mapping.munmap()."},
    {"madvise", WITH_KEYWORDS(madvise_),
     "madvise(data, offset, length, advice)\n--\n\n"
     "Tell the system how memory will be used (MADV_*). `offset` and `length` as for aio_msync. Of\n"
     "memory that shares its pages with other objects only whole pages are meant. See madvise(2)."},
    {"mprotect", WITH_KEYWORDS(mprotect_),
     "mprotect(data, offset, length, protect)\n--\n\n"
     "Allow or forbid the use of pages (PROT_*) of a Mapping, mmap.mmap or Buffer. What is forbidden\n"
     "and done all the same kills the program. `offset` and `length` as for aio_msync.\n"
     "See mprotect(2)."},
    {"munlock", WITH_KEYWORDS(munlock_),
     "munlock(data, offset=0, length=None)\n--\n\n"
     "Undo aio_mlock. `offset` and `length` as for aio_msync. See munlock(2)."},
    {"munlockall", munlockall_, METH_NOARGS,
     "munlockall()\n--\n\nUndo all locking of memory. See munlockall(2)."},
    {"mlockall", mlockall_, METH_O,
     "mlockall(flags, /)\n--\n\nLike aio_mlockall, here and now. See mlockall(2)."},
    {NULL, NULL, 0, NULL},
};
