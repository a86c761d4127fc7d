/* procaio/csrc/arguments.h - what the program gives, as what a Request holds.
 *
 * Every take_* gives 0, or -1 with an exception; a value that is NULL was not given.
 */
#ifndef PROCAIO_ARGUMENTS_H
#define PROCAIO_ARGUMENTS_H

#include "core.h"

int take_number(PyObject *value, const char *name, int64_t least, int64_t most, int64_t *number);
int take_u32(PyObject *value, const char *name, uint32_t *number); /* unchanged if not given */
int take_flag(PyObject *value, bool *flag);                        /* likewise */

bool is_path(PyObject *object);
PyObject *encode_path(PyObject *path, bool *is_bytes); /* new: a str with UTF-8 form, or bytes */
int take_path(Request *request, PyObject *path);
int take_path2(Request *request, PyObject *path);
int take_dir_fd(Request *request, PyObject *value, int *fd);

/* An int is a descriptor, whatever its value; other objects are asked, and kept alive. */
int descriptor_of(PyObject *file, int *fd);
int take_fd(Request *request, PyObject *file);
int take_second_fd(Request *request, PyObject *file);
int take_fd_as_name(Request *request, PyObject *file); /* errors name it, as those of os.stat do */

/* fh, offset, length: an offset that is None is -1, a length likewise. */
int take_range(Request *request, PyObject *const *values, int64_t *length);

/* Data of the program: where `data` lies, how many bytes it has, and the export that holds it. */
struct memory {
    char *at;
    Py_ssize_t size;
};
int take_data(Request *request, PyObject *data, bool writable, struct memory *memory);
int take_data_offset(PyObject *value, Py_ssize_t size, Py_ssize_t *offset);

/* `offset` and `length` of memory, in whole pages; negative ones count from the end.  `outwards`:
 * with the pages that are touched in part. */
int take_pages(PyObject *offset, PyObject *length, bool outwards, struct memory *memory);

/* Memory that workers see too needs no copy: ours, or whatever lies in ours. */
bool find_shared(Request *request, const char *at, uint64_t size);

/* Shared memory of the request's own. */
int take_block(Request *request, uint64_t size);

/* Copied now, `behind` so many bytes of the block, so that the caller may use the memory again.  What
 * cannot be read has failed: its errno is the request's. */
int copy_in(Request *request, const char *from, uint64_t size, uint64_t behind);

#define LARGE_COPY (256u << 10) /* from here on the interpreter lock is let go for a copy */

/* Between memory of ours and memory of `owner`, which may be mapped from a file that has become
 * shorter: 0, or an errno, and never a SIGBUS. */
int copy_from_owner(PyObject *owner, char *to, const char *from, size_t size);
int copy_to_owner(PyObject *owner, char *to, const char *from, size_t size);

#endif
