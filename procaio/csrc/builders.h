/* procaio/csrc/builders.h - one function for each kind of request: its values fill the Request.
 *
 * Arguments are looked at in the call: whatever is wrong with them is raised here, in the program's
 * own line, with nothing queued and the next request's priority left as it was.
 */
#ifndef PROCAIO_BUILDERS_H
#define PROCAIO_BUILDERS_H

#include "core.h"

/* The values of the parameters, in the order of the spec (NULL: not given).  0, or -1 + exception. */
typedef int build(Request *request, PyObject *const *values);

build build_nothing, build_busy;
build build_open, build_close, build_read, build_write, build_load;
build build_sendfile, build_readahead, build_truncate, build_fd, build_sync_file_range;
build build_copy, build_copy_entry;
build build_path, build_stat, build_statvfs, build_chmod, build_chown, build_utime;
build build_mkdir, build_mknod, build_rename, build_link, build_symlink, build_readlink;
build build_readdir, build_readdirx;
build build_seek, build_slurp, build_allocate, build_fadvise, build_copy_file_range, build_splice;
build build_tee, build_access, build_realpath, build_wd, build_rename2, build_statx;
build build_getxattr, build_setxattr, build_listxattr, build_removexattr;
build build_fiemap, build_fcntl, build_ioctl, build_replace;
build build_msync, build_mtouch, build_mlock, build_mlockall;
build build_mkdirs, build_composite, build_list, build_types, build_empty, build_make_directory;
build build_finish_directory;
build build_stat_many, build_read_many, build_load_many; /* batch.c */

#endif
