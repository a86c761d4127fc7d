/* procaio/csrc/builders.c - from the arguments of a call to a Request. */
#include "builders.h"

#include <fcntl.h>
#include <linux/fiemap.h>
#include <math.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include "arguments.h"

int build_nothing(Request *request, PyObject *const *values)
{
    (void)request;
    (void)values;
    return 0;
}

int build_busy(Request *request, PyObject *const *values)
{
    double seconds = PyFloat_AsDouble(values[0]);
    if (seconds == -1 && PyErr_Occurred())
        return -1;
    if (!(seconds >= 0 && seconds < 1e9)) {
        PyErr_Format(PyExc_ValueError, "seconds is out of range: %R", values[0]);
        return -1;
    }
    request->length = (uint64_t)(seconds * 1e9);
    return 0;
}

/* -- names ------------------------------------------------------------------------------------ */

/* path, dir_fd */
int build_path(Request *request, PyObject *const *values)
{
    if (take_path(request, values[0]) < 0)
        return -1;
    return take_dir_fd(request, values[1], &request->fd);
}

/* path, flags, mode, dir_fd */
int build_open(Request *request, PyObject *const *values)
{
    request->flags = O_RDONLY;
    request->mode = 0666;
    if (take_path(request, values[0]) < 0 || take_u32(values[1], "flags", &request->flags) < 0 ||
        take_u32(values[2], "mode", &request->mode) < 0)
        return -1;
    return take_dir_fd(request, values[3], &request->fd);
}

/* path, mode, dir_fd */
int build_mkdir(Request *request, PyObject *const *values)
{
    request->mode = 0777;
    if (take_path(request, values[0]) < 0 || take_u32(values[1], "mode", &request->mode) < 0)
        return -1;
    return take_dir_fd(request, values[2], &request->fd);
}

/* path, mode, device, dir_fd */
int build_mknod(Request *request, PyObject *const *values)
{
    int64_t device = 0;
    request->mode = 0600;
    if (take_path(request, values[0]) < 0 || take_u32(values[1], "mode", &request->mode) < 0 ||
        (values[2] && take_number(values[2], "dev", 0, INT64_MAX, &device) < 0))
        return -1;
    request->device = (uint64_t)device;
    return take_dir_fd(request, values[3], &request->fd);
}

/* src, dst, src_dir_fd, dst_dir_fd */
int build_rename(Request *request, PyObject *const *values)
{
    if (take_path(request, values[0]) < 0 || take_path2(request, values[1]) < 0 ||
        take_dir_fd(request, values[2], &request->fd) < 0)
        return -1;
    return take_dir_fd(request, values[3], &request->fd2);
}

/* src, dst, src_dir_fd, dst_dir_fd, follow_symlinks */
int build_link(Request *request, PyObject *const *values)
{
    bool follow = false;
    if (build_rename(request, values) < 0 || take_flag(values[4], &follow) < 0)
        return -1;
    request->no_follow = !follow;
    return 0;
}

/* src, dst, src_dir_fd, dst_dir_fd, follow_symlinks */
int build_copy(Request *request, PyObject *const *values)
{
    bool follow = true;
    if (build_rename(request, values) < 0 || take_flag(values[4], &follow) < 0)
        return -1;
    request->no_follow = !follow;
    return 0;
}

/* src, dst, tell_links, src_dir_fd, dst_dir_fd */
int build_copy_entry(Request *request, PyObject *const *values)
{
    PyObject *const as_rename[] = {values[0], values[1], values[3], values[4]};
    bool tells_links = false;
    if (build_rename(request, as_rename) < 0 || take_flag(values[2], &tells_links) < 0)
        return -1;
    request->no_follow = true;
    request->tells_links = tells_links;
    return 0;
}

/* src, dst, dir_fd: what the link says is not looked up anywhere */
int build_symlink(Request *request, PyObject *const *values)
{
    if (take_path(request, values[0]) < 0 || take_path2(request, values[1]) < 0)
        return -1;
    return take_dir_fd(request, values[2], &request->fd2);
}

/* path, dir_fd */
int build_readlink(Request *request, PyObject *const *values)
{
    request->length = LONGEST_LINK;
    return build_path(request, values);
}

/* path, dir_fd */
int build_readdir(Request *request, PyObject *const *values)
{
    if (build_path(request, values) < 0)
        return -1;
    request->fd2 = request->fd; /* the slot's fd becomes the open directory */
    return 0;
}

/* path, flags, dir_fd */
int build_readdirx(Request *request, PyObject *const *values)
{
    PyObject *const path_and_dir[] = {values[0], values[2]};
    if (take_u32(values[1], "flags", &request->flags) < 0)
        return -1;
    return build_readdir(request, path_and_dir);
}

/* -- what is known of a file ------------------------------------------------------------------- */

/* A path with its dir_fd and follow_symlinks, or a descriptor, which has neither; `by_fd` is its own
 * operation.  Either may be NULL: this function has no such parameter. */
static int take_fd_or_path(Request *request, PyObject *file, PyObject *dir_fd, PyObject *follow,
                           enum pa_opcode by_fd)
{
    bool follows = true;
    if (take_flag(follow, &follows) < 0)
        return -1;
    if (is_path(file)) {
        request->no_follow = !follows;
        return take_path(request, file) < 0 ? -1 : take_dir_fd(request, dir_fd, &request->fd);
    }
    if ((dir_fd && dir_fd != Py_None) || !follows) {
        PyErr_Format(PyExc_ValueError, "%s goes with a path, not with a descriptor",
                     follows ? "dir_fd" : "follow_symlinks");
        return -1;
    }
    request->op = (uint8_t)by_fd;
    return take_fd_as_name(request, file);
}

/* fh_or_path, dir_fd */
int build_stat(Request *request, PyObject *const *values)
{
    return take_fd_or_path(request, values[0], values[1], NULL, PA_OP_FSTAT);
}

int build_statvfs(Request *request, PyObject *const *values)
{
    return take_fd_or_path(request, values[0], NULL, NULL, PA_OP_FSTATVFS);
}

/* fh_or_path, offset */
int build_truncate(Request *request, PyObject *const *values)
{
    if (take_fd_or_path(request, values[0], NULL, NULL, PA_OP_FTRUNCATE) < 0)
        return -1;
    return take_number(values[1], "offset", 0, INT64_MAX, &request->offset);
}

/* fh_or_path, mode, dir_fd, follow_symlinks */
int build_chmod(Request *request, PyObject *const *values)
{
    if (take_fd_or_path(request, values[0], values[2], values[3], PA_OP_FCHMOD) < 0)
        return -1;
    return take_u32(values[1], "mode", &request->mode);
}

/* None and -1 leave it as it is. */
static int take_owner(PyObject *value, const char *name, uint32_t *owner)
{
    int64_t n = -1;
    if (value != Py_None && take_number(value, name, -1, UINT32_MAX - 1, &n) < 0)
        return -1;
    *owner = (uint32_t)n;
    return 0;
}

/* fh_or_path, uid, gid, dir_fd, follow_symlinks */
int build_chown(Request *request, PyObject *const *values)
{
    if (take_fd_or_path(request, values[0], values[3], values[4], PA_OP_FCHOWN) < 0 ||
        take_owner(values[1], "uid", &request->uid) < 0)
        return -1;
    return take_owner(values[2], "gid", &request->gid);
}

/* UTIME_NOW and UTIME_OMIT are objects of their own: as numbers of nanoseconds they are times. */
static bool take_special_time(PyObject *value, int64_t *seconds, uint32_t *ns)
{
    if (!value || (value != hooks.utime_now && value != hooks.utime_omit))
        return false;
    *seconds = 0;
    *ns = value == hooks.utime_now ? UTIME_NOW : UTIME_OMIT;
    return true;
}

/* Seconds: None is 0, as the reference says. */
static int take_seconds(PyObject *value, const char *name, int64_t *seconds, uint32_t *ns)
{
    *seconds = 0;
    *ns = 0;
    if (!value || value == Py_None || take_special_time(value, seconds, ns))
        return 0;
    if (PyIndex_Check(value))
        return take_number(value, name, INT64_MIN, INT64_MAX, seconds);
    double number = PyFloat_AsDouble(value);
    if (number == -1 && PyErr_Occurred())
        return -1;
    double whole, rest = floor(modf(number, &whole) * 1e9); /* rounded as os.utime does it */
    if (!(whole >= -9.2e18 && whole <= 9.2e18)) {
        PyErr_Format(PyExc_ValueError, "%s is out of range: %R", name, value);
        return -1;
    }
    *seconds = (int64_t)whole - (rest < 0);
    *ns = (uint32_t)(rest < 0 ? rest + 1e9 : rest);
    return 0;
}

static int take_nanoseconds(PyObject *value, int64_t *seconds, uint32_t *ns)
{
    if (take_special_time(value, seconds, ns))
        return 0;
    PyObject *billion = PyLong_FromLong(1000000000), *index = PyNumber_Index(value);
    PyObject *parts = billion && index ? PyNumber_Divmod(index, billion) : NULL;
    Py_XDECREF(billion);
    Py_XDECREF(index);
    if (!parts)
        return -1;
    int64_t rest;
    int failed = take_number(PyTuple_GET_ITEM(parts, 0), "ns", INT64_MIN, INT64_MAX, seconds) < 0 ||
                 take_number(PyTuple_GET_ITEM(parts, 1), "ns", 0, 999999999, &rest) < 0;
    Py_DECREF(parts);
    if (failed)
        return -1;
    *ns = (uint32_t)rest;
    return 0;
}

/* fh_or_path, atime, mtime, ns, dir_fd, follow_symlinks */
int build_utime(Request *request, PyObject *const *values)
{
    PyObject *atime = values[1], *mtime = values[2], *ns = values[3];
    if (take_fd_or_path(request, values[0], values[4], values[5], PA_OP_FUTIME) < 0)
        return -1;
    bool now = (!atime || atime == Py_None) && (!mtime || mtime == Py_None);
    if (ns && ns != Py_None) {
        if (!PyTuple_Check(ns) || PyTuple_GET_SIZE(ns) != 2) {
            PyErr_Format(PyExc_TypeError, "ns must be a tuple of two integers, not %R", ns);
            return -1;
        }
        if (!now) {
            PyErr_SetString(PyExc_ValueError, "either atime and mtime or ns can be given");
            return -1;
        }
        if (take_nanoseconds(PyTuple_GET_ITEM(ns, 0), &request->atime_s, &request->atime_ns) < 0)
            return -1;
        return take_nanoseconds(PyTuple_GET_ITEM(ns, 1), &request->mtime_s, &request->mtime_ns);
    }
    if (now) {
        request->atime_s = request->mtime_s = 0;
        request->atime_ns = request->mtime_ns = UTIME_NOW;
        return 0;
    }
    if (take_seconds(atime, "atime", &request->atime_s, &request->atime_ns) < 0)
        return -1;
    return take_seconds(mtime, "mtime", &request->mtime_s, &request->mtime_ns);
}

/* -- descriptors ------------------------------------------------------------------------------ */

int build_fd(Request *request, PyObject *const *values)
{
    return take_fd(request, values[0]);
}

/* A descriptor or FileHandle is closed.  A file object of somebody else keeps its number until it
 * is closed itself: dup2 of a dead pipe end takes the place of what it had open. */
int build_close(Request *request, PyObject *const *values)
{
    if (take_fd(request, values[0]) < 0)
        return -1;
    if (PyLong_Check(values[0]))
        return 0;
    if (FileHandle_Check(values[0])) {
        ((FileHandle *)values[0])->fd = -1;
        request->closes_handle = true;
        return 0;
    }
    request->op = PA_OP_REPLACE;
    request->fd2 = pool_dead_fd(request->pool);
    return request->fd2 < 0 ? -1 : 0;
}

static int must_be_given(PyObject *value, const char *name)
{
    if (value && value != Py_None)
        return 0;
    PyErr_Format(PyExc_TypeError, "%s must be an integer, not None", name);
    return -1;
}

/* out_fh, in_fh, in_offset, length */
int build_sendfile(Request *request, PyObject *const *values)
{
    PyObject *const range[] = {values[0], values[2], values[3]};
    int64_t length;
    if (must_be_given(values[3], "length") < 0 || take_range(request, range, &length) < 0)
        return -1;
    request->length = (uint64_t)length;
    return take_second_fd(request, values[1]);
}

/* fh, offset, length */
int build_readahead(Request *request, PyObject *const *values)
{
    int64_t length;
    if (must_be_given(values[1], "offset") < 0 || must_be_given(values[2], "length") < 0 ||
        take_range(request, values, &length) < 0)
        return -1;
    request->length = (uint64_t)length;
    return 0;
}

/* fh, offset, nbytes, flags */
int build_sync_file_range(Request *request, PyObject *const *values)
{
    return build_readahead(request, values) < 0 ? -1 : take_u32(values[3], "flags", &request->flags);
}

/* -- data ------------------------------------------------------------------------------------- */

static int read_into(Request *request, PyObject *data, PyObject *data_offset)
{
    struct memory memory;
    if (take_data(request, data, true, &memory) < 0)
        return -1;
    request->cuts_target = PyByteArray_Check(data);
    if (take_data_offset(data_offset, memory.size, &request->data_offset) < 0)
        return -1;
    if (request->cuts_target)
        return 0;
    if (request->length > (uint64_t)(memory.size - request->data_offset)) {
        PyErr_Format(PyExc_ValueError, "%llu bytes do not fit behind dataoffset %zd of %zd bytes",
                     (unsigned long long)request->length, request->data_offset, memory.size);
        return -1;
    }
    bool shared = find_shared(request, memory.at + request->data_offset, request->length);
    if (shared && request->view) { /* hold the export, but read in place */
        request->data_offset = 0;
        request->in_place = true;
    }
    return 0;
}

/* fh, offset, length, data, dataoffset */
int build_read(Request *request, PyObject *const *values)
{
    int64_t length;
    if (must_be_given(values[2], "length") < 0 || take_range(request, values, &length) < 0)
        return -1;
    request->length = (uint64_t)length;
    if (!values[3] || values[3] == Py_None) {
        request->kind = RESULT_BYTES;
        if (length > PY_SSIZE_T_MAX / 2)
            PyErr_Format(PyExc_ValueError, "length is out of range: %R", values[2]);
        return PyErr_Occurred() ? -1 : 0;
    }
    return read_into(request, values[3], values[4]);
}

/* The data are copied: the program may do with its own what it likes. */
static void let_data_go(Request *request)
{
    if (request->view) {
        PyBuffer_Release(request->view);
        PyMem_Free(request->view);
        request->view = NULL;
    } else {
        buffer_unexport((Buffer *)request->target);
        request->exports = false;
    }
    Py_CLEAR(request->target);
}

/* fh, offset, length, data, dataoffset */
int build_write(Request *request, PyObject *const *values)
{
    int64_t length;
    struct memory memory;
    if (take_range(request, values, &length) < 0 ||
        take_data(request, values[3], false, &memory) < 0 ||
        take_data_offset(values[4], memory.size, &request->data_offset) < 0)
        return -1;
    int64_t rest = memory.size - request->data_offset;
    if (length > rest) {
        PyErr_Format(PyExc_ValueError, "length %lld is more than the %lld bytes behind dataoffset",
                     (long long)length, (long long)rest);
        return -1;
    }
    request->length = (uint64_t)(length < 0 ? rest : length);
    memory.at += request->data_offset;
    if (request->length == 0 || find_shared(request, memory.at, request->length)) {
        request->in_place = true;
        return 0;
    }
    if (copy_in(request, memory.at, request->length, 0) < 0)
        return -1;
    let_data_go(request);
    return 0;
}

/* path, data, dir_fd */
int build_load(Request *request, PyObject *const *values)
{
    PyObject *const path_and_dir[] = {values[0], values[2]};
    struct memory memory;
    if (build_readdir(request, path_and_dir) < 0)
        return -1;
    request->offset = 0;
    request->limit = UINT64_MAX;
    if (!values[1] || values[1] == Py_None) {
        request->kind = RESULT_BYTES;
        return 0;
    }
    if (!PyByteArray_Check(values[1])) {
        PyErr_Format(PyExc_TypeError, "data must be a bytearray or None, not %.100s",
                     Py_TYPE(values[1])->tp_name);
        return -1;
    }
    request->cuts_target = true;
    return take_data(request, values[1], true, &memory);
}

/* path, offset, length, data, dir_fd */
int build_slurp(Request *request, PyObject *const *values)
{
    PyObject *const as_load[] = {values[0], values[3], values[4]};
    int64_t length = 0;
    if (build_load(request, as_load) < 0 ||
        take_number(values[1], "offset", INT64_MIN, INT64_MAX, &request->offset) < 0 ||
        take_number(values[2], "length", 0, INT64_MAX, &length) < 0)
        return -1;
    if (length > 0)
        request->limit = (uint64_t)length;
    return 0;
}

/* Behind the paths, where these are too long for a slot. */
static int copy_in_behind_paths(Request *request, PyObject *data)
{
    struct memory memory;
    size_t paths = queue_paths_size(request);
    request->offset = paths > PA_INLINE ? (int64_t)paths : 0;
    if (take_data(request, data, false, &memory) < 0)
        return -1;
    request->length = (uint64_t)memory.size;
    int failed = copy_in(request, memory.at, (uint64_t)memory.size, (uint64_t)request->offset);
    if (!failed)
        let_data_go(request);
    return failed;
}

/* path, data, mode, dir_fd */
int build_replace(Request *request, PyObject *const *values)
{
    request->mode = 0666;
    if (take_path(request, values[0]) < 0 || take_u32(values[2], "mode", &request->mode) < 0 ||
        take_dir_fd(request, values[3], &request->fd) < 0)
        return -1;
    return copy_in_behind_paths(request, values[1]);
}

/* -- positions, space, and between two descriptors ----------------------------------------------- */

/* fh, offset, whence */
int build_seek(Request *request, PyObject *const *values)
{
    if (take_fd(request, values[0]) < 0 ||
        take_number(values[1], "offset", INT64_MIN, INT64_MAX, &request->offset) < 0)
        return -1;
    return take_u32(values[2], "whence", &request->flags);
}

/* fh, mode, offset, length */
int build_allocate(Request *request, PyObject *const *values)
{
    PyObject *const range[] = {values[0], values[2], values[3]};
    return build_readahead(request, range) < 0 ? -1 : take_u32(values[1], "mode", &request->flags);
}

/* fh, offset, length, advice */
int build_fadvise(Request *request, PyObject *const *values)
{
    return build_readahead(request, values) < 0 ? -1 : take_u32(values[3], "advice", &request->flags);
}

static int take_offset(PyObject *value, const char *name, int64_t *offset)
{
    *offset = -1;
    return !value || value == Py_None ? 0 : take_number(value, name, 0, INT64_MAX, offset);
}

/* src, dst, count, offset_src, offset_dst */
int build_copy_file_range(Request *request, PyObject *const *values)
{
    int64_t count;
    if (take_fd(request, values[0]) < 0 || take_second_fd(request, values[1]) < 0 ||
        take_number(values[2], "count", 0, INT64_MAX, &count) < 0 ||
        take_offset(values[3], "offset_src", &request->offset) < 0)
        return -1;
    request->length = (uint64_t)count;
    return take_offset(values[4], "offset_dst", &request->offset2);
}

/* src, dst, count, offset_src, offset_dst, flags */
int build_splice(Request *request, PyObject *const *values)
{
    if (build_copy_file_range(request, values) < 0)
        return -1;
    return take_u32(values[5], "flags", &request->flags);
}

/* src, dst, count, flags */
int build_tee(Request *request, PyObject *const *values)
{
    PyObject *const ends[] = {values[0], values[1], values[2], NULL, NULL};
    if (build_copy_file_range(request, ends) < 0)
        return -1;
    return take_u32(values[3], "flags", &request->flags);
}

/* -- more of what is known of a file ------------------------------------------------------------- */

/* path, mode, dir_fd, effective_ids, follow_symlinks */
int build_access(Request *request, PyObject *const *values)
{
    bool effective = false, follow = true;
    if (take_path(request, values[0]) < 0 || take_u32(values[1], "mode", &request->mode) < 0 ||
        take_dir_fd(request, values[2], &request->fd) < 0 || take_flag(values[3], &effective) < 0 ||
        take_flag(values[4], &follow) < 0)
        return -1;
    request->flags = effective;
    request->no_follow = !follow;
    return 0;
}

/* path, dir_fd */
int build_realpath(Request *request, PyObject *const *values)
{
    return build_readlink(request, values);
}

/* path, dir_fd */
int build_wd(Request *request, PyObject *const *values)
{
    request->flags = O_PATH | O_DIRECTORY;
    return build_path(request, values);
}

/* src, dst, flags, src_dir_fd, dst_dir_fd */
int build_rename2(Request *request, PyObject *const *values)
{
    PyObject *const as_rename[] = {values[0], values[1], values[3], values[4]};
    if (build_rename(request, as_rename) < 0)
        return -1;
    return take_u32(values[2], "flags", &request->flags);
}

/* A path, or a descriptor in its place: then the path is empty. */
static int take_path_or_fd(Request *request, PyObject *file, PyObject *follow)
{
    if (take_fd_or_path(request, file, NULL, follow, request->op) < 0)
        return -1;
    if (request->fspath)
        return 0;
    request->by_fd = true;
    request->fspath = PyBytes_FromStringAndSize("", 0);
    return request->fspath ? 0 : -1;
}

/* fh_or_path, flags, mask, dir_fd */
int build_statx(Request *request, PyObject *const *values)
{
    request->length = sizeof(struct statx);
    request->mode = STATX_BASIC_STATS | STATX_BTIME;
    if (take_path_or_fd(request, values[0], NULL) < 0 ||
        take_u32(values[1], "flags", &request->flags) < 0 ||
        take_u32(values[2], "mask", &request->mode) < 0)
        return -1;
    if (!request->by_fd)
        return take_dir_fd(request, values[3], &request->fd);
    if (!values[3] || values[3] == Py_None)
        return 0;
    PyErr_SetString(PyExc_ValueError, "dir_fd goes with a path, not with a descriptor");
    return -1;
}

enum { LARGEST_ATTRIBUTE = 64 << 10 }; /* XATTR_SIZE_MAX, and XATTR_LIST_MAX */

/* The attribute is no file: it does not belong into an error's file names. */
static int take_attribute(Request *request, PyObject *attribute)
{
    if (take_path2(request, attribute) < 0)
        return -1;
    Py_CLEAR(request->path2);
    return 0;
}

/* fh_or_path, attribute, follow_symlinks */
int build_getxattr(Request *request, PyObject *const *values)
{
    request->length = LARGEST_ATTRIBUTE;
    if (take_path_or_fd(request, values[0], values[2]) < 0)
        return -1;
    return take_attribute(request, values[1]);
}

/* fh_or_path, attribute, value, flags, follow_symlinks */
int build_setxattr(Request *request, PyObject *const *values)
{
    if (take_path_or_fd(request, values[0], values[4]) < 0 ||
        take_attribute(request, values[1]) < 0 || take_u32(values[3], "flags", &request->flags) < 0)
        return -1;
    return copy_in_behind_paths(request, values[2]);
}

/* fh_or_path, follow_symlinks */
int build_listxattr(Request *request, PyObject *const *values)
{
    request->length = LARGEST_ATTRIBUTE;
    return take_path_or_fd(request, values[0], values[1]);
}

/* fh_or_path, attribute, follow_symlinks */
int build_removexattr(Request *request, PyObject *const *values)
{
    if (take_path_or_fd(request, values[0], values[2]) < 0)
        return -1;
    return take_attribute(request, values[1]);
}

/* -- control ---------------------------------------------------------------------------------- */

/* fh, start, length, flags, count */
int build_fiemap(Request *request, PyObject *const *values)
{
    const uint64_t extent = sizeof(struct fiemap_extent), step = 1024;
    int64_t length, count = 0;
    if (take_range(request, values, &length) < 0 ||
        take_u32(values[3], "flags", &request->flags) < 0)
        return -1;
    request->offset = request->offset < 0 ? 0 : request->offset;
    request->limit = length < 0 ? UINT64_MAX : (uint64_t)length;
    request->wants_all = !values[4] || values[4] == Py_None;
    if (!request->wants_all && take_number(values[4], "count", 1, 1 << 20, &count) < 0)
        return -1;
    request->length = sizeof(struct fiemap) + (request->wants_all ? step : (uint64_t)count) * extent;
    return 0;
}

/* numpy's arrays look like numbers too, and its numbers like buffers. */
static bool is_number(PyObject *argument)
{
    return PyIndex_Check(argument) &&
           !(PyObject_CheckBuffer(argument) && PySequence_Check(argument));
}

/* A number, bytes (and the bytes that come back are the result), or a buffer that is written to. */
static int take_argument(Request *request, PyObject *argument)
{
    /* The system does not know how much was given: there is room for the largest argument whose
     * size a request's number can tell, so that nothing else is overwritten. */
    enum { LEAST_ROOM = 16 << 10, LARGEST_ARGUMENT = 64 << 10 };
    struct memory memory;
    request->offset = 0;
    if (!argument || is_number(argument))
        return argument ? take_number(argument, "arg", INT64_MIN, INT64_MAX, &request->offset) : 0;
    bool writable = !PyBytes_Check(argument) && !PyUnicode_Check(argument);
    request->has_argument = true;
    if (take_data(request, argument, writable, &memory) < 0)
        return -1;
    if (memory.size > LARGEST_ARGUMENT) {
        PyErr_Format(PyExc_ValueError, "arg is too large: %zd bytes", memory.size);
        return -1;
    }
    uint64_t size = (uint64_t)memory.size, room = size < LEAST_ROOM ? LEAST_ROOM : size;
    if (take_block(request, room) < 0)
        return -1;
    request->length = size;
    if (size > 0)
        memcpy(request->block.at, memory.at, size);
    memset(request->block.at + size, 0, room - size);
    if (!writable) {
        let_data_go(request);
        request->kind = RESULT_ARGUMENT;
    }
    return 0;
}

/* fh, cmd, arg */
int build_fcntl(Request *request, PyObject *const *values)
{
    if (take_fd(request, values[0]) < 0 || take_u32(values[1], "cmd", &request->flags) < 0)
        return -1;
    return take_argument(request, values[2]);
}

/* fh, request, buf */
int build_ioctl(Request *request, PyObject *const *values)
{
    if (take_fd(request, values[0]) < 0 || take_u32(values[1], "request", &request->flags) < 0)
        return -1;
    return take_argument(request, values[2]);
}

/* -- the program's own memory ------------------------------------------------------------------ */

/* data, offset, length: whole pages, held until the request is done */
static int take_own_memory(Request *request, PyObject *const *values, bool writable)
{
    struct memory memory;
    if (take_data(request, values[0], writable, &memory) < 0 ||
        take_pages(values[1], values[2], true, &memory) < 0)
        return -1;
    request->address = memory.at;
    request->length = (uint64_t)memory.size;
    request->in_place = true;
    return 0;
}

/* data, offset, length, flags */
int build_msync(Request *request, PyObject *const *values)
{
    request->flags = MS_SYNC;
    if (take_u32(values[3], "flags", &request->flags) < 0)
        return -1;
    return take_own_memory(request, values, false);
}

/* data, offset, length, flags */
int build_mtouch(Request *request, PyObject *const *values)
{
    if (take_u32(values[3], "flags", &request->flags) < 0)
        return -1;
    if (request->flags & ~PA_MT_MODIFY) {
        PyErr_Format(PyExc_ValueError, "flags must be 0 or MT_MODIFY, not %R", values[3]);
        return -1;
    }
    return take_own_memory(request, values, request->flags != 0);
}

/* data, offset, length */
int build_mlock(Request *request, PyObject *const *values)
{
    if (Buffer_Check(values[0]))
        ((Buffer *)values[0])->altered = true;
    return take_own_memory(request, values, false);
}

/* flags */
int build_mlockall(Request *request, PyObject *const *values)
{
    return take_u32(values[0], "flags", &request->flags);
}

/* -- steps of trees ------------------------------------------------------------------------------ */

int build_composite(Request *request, PyObject *const *values)
{
    (void)values;
    Group *group = (Group *)request;
    group->composite = group->held = true;
    return 0;
}

enum { TREE_BLOCK = 32 << 10, LARGEST_TREE_BLOCK = 1 << 20 };

/* directory, path, flags: with None for a path the directory itself is meant, and goes on where it
 * was */
static int take_place(Request *request, PyObject *const *values)
{
    if (take_dir_fd(request, values[0], &request->fd) < 0 ||
        take_u32(values[2], "flags", &request->flags) < 0)
        return -1;
    request->offset = -1;
    request->by_fd = values[1] == Py_None;
    if (!request->by_fd && take_path(request, values[1]) < 0)
        return -1;
    request->names_are_bytes = request->flags & PA_TREE_BYTES;
    return 0;
}

/* directory, path, flags, offset, size */
int build_list(Request *request, PyObject *const *values)
{
    int64_t size = TREE_BLOCK;
    bool goes_on = values[3] && values[3] != Py_None;
    if (take_place(request, values) < 0 ||
        (goes_on && take_number(values[3], "offset", INT64_MIN, INT64_MAX, &request->offset) < 0) ||
        (values[4] && take_number(values[4], "size", 512, LARGEST_TREE_BLOCK, &size) < 0))
        return -1;
    request->length = (uint64_t)size;
    request->flags |= goes_on ? PA_TREE_SEEK : 0;
    return 0;
}

/* directory, names, flags */
int build_types(Request *request, PyObject *const *values)
{
    PyObject *const place[] = {values[0], Py_None, values[2]};
    if (take_place(request, place) < 0)
        return -1;
    request->offset = 0;
    return copy_in_behind_paths(request, values[1]);
}

/* directory, path, flags, itself: if it is given, only that one is removed */
int build_empty(Request *request, PyObject *const *values)
{
    request->length = TREE_BLOCK;
    if (values[3] && values[3] != Py_None && take_second_fd(request, values[3]) < 0)
        return -1;
    return take_place(request, values);
}

/* directory, path, flags, not_in */
int build_make_directory(Request *request, PyObject *const *values)
{
    request->mode = 0700;
    return take_place(request, values) < 0 ? -1 : take_dir_fd(request, values[3], &request->fd2);
}

/* src_directory, src_path, dst_directory, dst_path, atime_ns */
int build_finish_directory(Request *request, PyObject *const *values)
{
    PyObject *const as_rename[] = {values[1], values[3], values[0], values[2]};
    if (build_rename(request, as_rename) < 0)
        return -1;
    return take_nanoseconds(values[4], &request->atime_s, &request->atime_ns);
}

/* path, mode, exist_ok, dir_fd */
int build_mkdirs(Request *request, PyObject *const *values)
{
    bool exist_ok = false;
    PyObject *const as_mkdir[] = {values[0], values[1], values[3]};
    if (build_mkdir(request, as_mkdir) < 0 || take_flag(values[2], &exist_ok) < 0)
        return -1;
    request->flags = exist_ok ? PA_TREE_MAY_EXIST : 0;
    return 0;
}
