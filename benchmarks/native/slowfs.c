/* benchmarks/native/slowfs.c - a file system on which every call takes a while.
 *
 *     slowfs SOURCE MOUNTPOINT [-o delay_ms=N,remember=N,threads=N,hang=PREFIX,hang_reads,hang_closes]
 *
 * It shows the directory SOURCE at MOUNTPOINT.  The kernel remembers nothing of it, neither names
 * nor attributes nor data (but names and attributes for `remember` seconds), so that each call of
 * a program becomes at least one request here, and each request that somebody waits for is answered
 * after `delay_ms` milliseconds.  Requests do not delay each other: that many `threads` (64) sleep
 * side by side.
 *
 * Whoever looks up a name that begins with PREFIX gets no answer until the file system is gone,
 * not even when it is killed.  Listing the directory shows the name all the same.  With `hang_reads`
 * so does whoever reads from a file, and with `hang_closes` whoever closes one.
 *
 * The extended attribute `user.slowfs.calls` of MOUNTPOINT is the number of requests so far that
 * somebody waits or has waited for, the one for the attribute included.
 *
 * It stays in the foreground, prints "ready" when it is mounted, and goes with SIGTERM, SIGINT,
 * SIGHUP or its parent: then it is unmounted, used or not, and requests without an answer fail.
 *
 * The delay is put between receiving a request and handing it to libfuse, not into the functions
 * below: libfuse calls two of them for some requests.
 */
#define FUSE_USE_VERSION 31
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <fuse.h>
#include <fuse_lowlevel.h>
#include <linux/fuse.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/xattr.h>
#include <time.h>
#include <unistd.h>

enum { MOST_THREADS = 1024 };

static struct {
    unsigned delay_ms;
    unsigned threads;
    unsigned remember; /* seconds */
    char *hang;
    int hang_reads;
    int hang_closes;
    char *source;
    char *mountpoint;
} settings = { .threads = 64 };

static atomic_ulong calls;

/* The process has SOURCE as its working directory; libfuse's paths begin there with a slash. */
static const char *here(const char *path)
{
    return path[1] ? path + 1 : ".";
}

static int status(long result)
{
    return result < 0 ? -errno : (int)result;
}

static int handle(const struct fuse_file_info *info)
{
    return (int)info->fh;
}

/* -- names and attributes: the system calls ------------------------------------------------------ */

static int slow_getattr(const char *path, struct stat *st, struct fuse_file_info *info)
{
    return status(info ? fstat(handle(info), st) : lstat(here(path), st));
}

static int slow_access(const char *path, int mode)
{
    return status(access(here(path), mode));
}

static int slow_readlink(const char *path, char *buffer, size_t size)
{
    ssize_t length = readlink(here(path), buffer, size - 1);
    if (length < 0)
        return -errno;
    buffer[length] = '\0';
    return 0;
}

static int slow_mknod(const char *path, mode_t mode, dev_t device)
{
    return status(mknod(here(path), mode, device));
}

static int slow_mkdir(const char *path, mode_t mode)
{
    return status(mkdir(here(path), mode));
}

static int slow_unlink(const char *path)
{
    return status(unlink(here(path)));
}

static int slow_rmdir(const char *path)
{
    return status(rmdir(here(path)));
}

static int slow_symlink(const char *target, const char *path)
{
    return status(symlink(target, here(path)));
}

static int slow_rename(const char *from, const char *to, unsigned flags)
{
    return status(renameat2(AT_FDCWD, here(from), AT_FDCWD, here(to), flags));
}

static int slow_link(const char *from, const char *to)
{
    return status(link(here(from), here(to)));
}

static int slow_chmod(const char *path, mode_t mode, struct fuse_file_info *info)
{
    return status(info ? fchmod(handle(info), mode) : chmod(here(path), mode));
}

static int slow_chown(const char *path, uid_t uid, gid_t gid, struct fuse_file_info *info)
{
    return status(info ? fchown(handle(info), uid, gid) : lchown(here(path), uid, gid));
}

static int slow_truncate(const char *path, off_t size, struct fuse_file_info *info)
{
    return status(info ? ftruncate(handle(info), size) : truncate(here(path), size));
}

static int slow_utimens(const char *path, const struct timespec t[2], struct fuse_file_info *info)
{
    if (info)
        return status(futimens(handle(info), t));
    return status(utimensat(AT_FDCWD, here(path), t, AT_SYMLINK_NOFOLLOW));
}

static int slow_setxattr(const char *path, const char *name, const char *value, size_t size,
                         int flags)
{
    return status(lsetxattr(here(path), name, value, size, flags));
}

/* As getxattr(2) gives a value: a size of 0 asks how long it is. */
static int number_of_calls(char *value, size_t size)
{
    char digits[24];
    int length = snprintf(digits, sizeof digits, "%lu", atomic_load(&calls));
    if (size && size < (size_t)length)
        return -ERANGE;
    if (size)
        memcpy(value, digits, (size_t)length);
    return length;
}

static int slow_getxattr(const char *path, const char *name, char *value, size_t size)
{
    if (!path[1] && strcmp(name, "user.slowfs.calls") == 0)
        return number_of_calls(value, size);
    return status(lgetxattr(here(path), name, value, size));
}

static int slow_listxattr(const char *path, char *names, size_t size)
{
    return status(llistxattr(here(path), names, size));
}

static int slow_removexattr(const char *path, const char *name)
{
    return status(lremovexattr(here(path), name));
}

static int slow_statfs(const char *path, struct statvfs *st)
{
    return status(statvfs(here(path), st));
}

/* -- open files and directories ------------------------------------------------------------------ */

static int opened(int fd, struct fuse_file_info *info)
{
    if (fd < 0)
        return -errno;
    info->fh = (uint64_t)fd;
    info->direct_io = 1; /* no page cache */
    return 0;
}

static int slow_open(const char *path, struct fuse_file_info *info)
{
    return opened(open(here(path), (info->flags & ~O_DIRECT) | O_CLOEXEC), info);
}

static int slow_create(const char *path, mode_t mode, struct fuse_file_info *info)
{
    return opened(open(here(path), (info->flags & ~O_DIRECT) | O_CREAT | O_CLOEXEC, mode), info);
}

static int slow_read(const char *path, char *buffer, size_t size, off_t at,
                     struct fuse_file_info *info)
{
    (void)path;
    return status(pread(handle(info), buffer, size, at));
}

static int slow_write(const char *path, const char *buffer, size_t size, off_t at,
                      struct fuse_file_info *info)
{
    (void)path;
    return status(pwrite(handle(info), buffer, size, at));
}

/* There to be waited for by close(). */
static int slow_flush(const char *path, struct fuse_file_info *info)
{
    (void)path;
    (void)info;
    return 0;
}

static int slow_fsync(const char *path, int data_only, struct fuse_file_info *info)
{
    (void)path;
    return status(data_only ? fdatasync(handle(info)) : fsync(handle(info)));
}

static int slow_release(const char *path, struct fuse_file_info *info)
{
    (void)path;
    return status(close(handle(info)));
}

static int slow_opendir(const char *path, struct fuse_file_info *info)
{
    int fd = open(here(path), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return -errno;
    info->fh = (uint64_t)fd;
    return 0;
}

static int slow_readdir(const char *path, void *all, fuse_fill_dir_t fill, off_t at,
                        struct fuse_file_info *info, enum fuse_readdir_flags flags)
{
    (void)path, (void)at, (void)flags;
    int fd = openat(handle(info), ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *directory = fd < 0 ? NULL : fdopendir(fd);
    if (!directory)
        return -errno;
    /* Offsets of 0 let libfuse keep everything and hand it out as the kernel asks for it. */
    for (struct dirent *entry; (entry = readdir(directory));) {
        struct stat st = { .st_ino = entry->d_ino, .st_mode = DTTOIF(entry->d_type) };
        if (fill(all, entry->d_name, &st, 0, 0))
            break;
    }
    closedir(directory);
    return 0;
}

/* -- nothing is cached ----------------------------------------------------------------------------- */

static void *slow_init(struct fuse_conn_info *connection, struct fuse_config *config)
{
    config->entry_timeout = config->attr_timeout = config->negative_timeout = settings.remember;
    config->use_ino = 1;
    config->hard_remove = 1; /* not a rename to a hidden name */
    config->nullpath_ok = 1; /* open files are known by their descriptors */
    /* Attributes come when they are asked for, not with the names; what is received is in memory,
     * not in a pipe, so that receive() can look at it. */
    connection->want &= ~(unsigned)(FUSE_CAP_READDIRPLUS | FUSE_CAP_READDIRPLUS_AUTO |
                                    FUSE_CAP_WRITEBACK_CACHE | FUSE_CAP_SPLICE_READ);
    connection->want |= connection->capable & FUSE_CAP_PARALLEL_DIROPS;
    connection->max_background = settings.threads;
    return NULL;
}

static const struct fuse_operations operations = {
    .init = slow_init,
    .getattr = slow_getattr,
    .access = slow_access,
    .readlink = slow_readlink,
    .mknod = slow_mknod,
    .mkdir = slow_mkdir,
    .unlink = slow_unlink,
    .rmdir = slow_rmdir,
    .symlink = slow_symlink,
    .rename = slow_rename,
    .link = slow_link,
    .chmod = slow_chmod,
    .chown = slow_chown,
    .truncate = slow_truncate,
    .utimens = slow_utimens,
    .setxattr = slow_setxattr,
    .getxattr = slow_getxattr,
    .listxattr = slow_listxattr,
    .removexattr = slow_removexattr,
    .statfs = slow_statfs,
    .open = slow_open,
    .create = slow_create,
    .read = slow_read,
    .write = slow_write,
    .flush = slow_flush,
    .fsync = slow_fsync,
    .release = slow_release,
    .opendir = slow_opendir,
    .readdir = slow_readdir,
    .fsyncdir = slow_fsync,
    .releasedir = slow_release,
};

/* -- requests -------------------------------------------------------------------------------------- */

/* Whether a program waits for the answer. */
static bool awaited(uint32_t opcode)
{
    switch (opcode) {
    case FUSE_INIT:
    case FUSE_DESTROY:
    case FUSE_FORGET:
    case FUSE_BATCH_FORGET:
    case FUSE_RELEASE:
    case FUSE_RELEASEDIR:
        return false;
    default:
        return true;
    }
}

/* Whether the request is never answered.  Names need no other look than this: the kernel looks
 * them up before it does anything else with them, as it remembers none. */
static bool hangs(const struct fuse_in_header *request)
{
    const char *name = (const char *)(request + 1);
    if (request->opcode == FUSE_READ)
        return settings.hang_reads;
    if (request->opcode == FUSE_FLUSH)
        return settings.hang_closes;
    return settings.hang && request->opcode == FUSE_LOOKUP &&
           strncmp(name, settings.hang, strlen(settings.hang)) == 0;
}

static void delay(void)
{
    struct timespec t = { settings.delay_ms / 1000, settings.delay_ms % 1000 * 1000000L };
    while (nanosleep(&t, &t) && errno == EINTR)
        ;
}

static void *receive(void *session)
{
    struct fuse_buf buffer = { .mem = NULL };
    for (;;) {
        int length = fuse_session_receive_buf(session, &buffer);
        if (length == -EINTR || length == -EAGAIN)
            continue;
        if (length <= 0)
            break;
        const struct fuse_in_header *request = buffer.mem;
        /* An interrupt is a request to hurry, which may be ignored. */
        if (request->opcode == FUSE_INTERRUPT)
            continue;
        bool waits = awaited(request->opcode);
        atomic_fetch_add(&calls, waits);
        if (hangs(request))
            continue;
        if (waits)
            delay();
        fuse_session_process_buf(session, &buffer);
    }
    kill(getpid(), SIGTERM); /* unmounted by somebody else */
    return NULL;
}

/* -- the process ----------------------------------------------------------------------------------- */

#define OPTION(text, field) { text, offsetof(__typeof__(settings), field), 1 }

static const struct fuse_opt options[] = {
    OPTION("delay_ms=%u", delay_ms),
    OPTION("remember=%u", remember),
    OPTION("threads=%u", threads),
    OPTION("hang=%s", hang),
    OPTION("hang_reads", hang_reads),
    OPTION("hang_closes", hang_closes),
    FUSE_OPT_END,
};

static int on_argument(void *data, const char *argument, int key, struct fuse_args *rest)
{
    (void)data, (void)rest;
    if (key != FUSE_OPT_KEY_NONOPT)
        return 1; /* libfuse's */
    char **place = !settings.source ? &settings.source : &settings.mountpoint;
    if (*place)
        return -1;
    *place = realpath(argument, NULL);
    if (!*place)
        perror(argument);
    return *place ? 0 : -1;
}

static bool parse(struct fuse_args *arguments)
{
    bool well = !fuse_opt_parse(arguments, &settings, options, on_argument) && settings.mountpoint &&
                settings.threads && settings.threads <= MOST_THREADS;
    if (!well)
        fputs("usage: slowfs SOURCE MOUNTPOINT "
              "[-o delay_ms=N,hang=PREFIX,hang_reads,hang_closes,remember=N,threads=N]\n",
              stderr);
    return well;
}

static void serve_until_signal(struct fuse *fuse, const sigset_t *ends)
{
    for (unsigned n = 0; n < settings.threads; n++) {
        pthread_t thread;
        if (pthread_create(&thread, NULL, receive, fuse_get_session(fuse)))
            return;
        pthread_detach(thread);
    }
    puts("ready");
    fflush(stdout);
    int number;
    sigwait(ends, &number);
}

int main(int argc, char *argv[])
{
    struct fuse_args arguments = FUSE_ARGS_INIT(argc, argv);
    sigset_t ends;
    sigemptyset(&ends);
    sigaddset(&ends, SIGTERM);
    sigaddset(&ends, SIGINT);
    sigaddset(&ends, SIGHUP);
    pthread_sigmask(SIG_BLOCK, &ends, NULL);
    prctl(PR_SET_PDEATHSIG, SIGTERM);
    umask(0); /* modes are the callers' */

    if (!parse(&arguments))
        return 2;
    if (chdir(settings.source)) {
        perror(settings.source);
        return 1;
    }
    struct fuse *fuse = fuse_new(&arguments, &operations, sizeof operations, NULL);
    if (!fuse || fuse_mount(fuse, settings.mountpoint))
        return 1;
    serve_until_signal(fuse, &ends);
    fuse_unmount(fuse);
    _exit(0); /* threads that sleep are not waited for: with the process, its requests fail */
}
