/* shm/marks.h - which descriptors are procaio's own.
 *
 * A program may close descriptors that it does not know (a daemon closes all of them), and a number
 * is somebody else's soon after.  Both sides know descriptors by their numbers only.  So each of
 * ours carries a mark: a signal number (F_SETSIG), which means nothing as long as the descriptor has
 * no owner.  Whoever writes to one, changes its file or closes it asks for the mark first.
 */
#ifndef PROCAIO_SHM_MARKS_H
#define PROCAIO_SHM_MARKS_H

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/stat.h>
#include <unistd.h>

/* Real-time signals.  The C library and child.c use others, but that would do no harm either. */
enum pa_mark {
    PA_MARK_BELL = 50, /* the eventfd that workers ring */
    PA_MARK_SET,       /* poll_fileno */
    PA_MARK_SEGMENT,
    PA_MARK_DATA,
    PA_MARK_TIMER,
    PA_MARK_DEAD, /* what is put in the place of a foreign file's descriptor */
};

static inline bool pa_has_mark(int fd, enum pa_mark mark)
{
    return fd >= 0 && fcntl(fd, F_GETSIG) == (int)mark;
}

/* Of data there are many, and a number that one pool has lost may be another's: these are told apart
 * by their files. */
static inline uint32_t pa_file_of(int fd)
{
    struct stat entry;
    return fstat(fd, &entry) < 0 ? 0 : (uint32_t)(entry.st_ino * 31 + entry.st_dev);
}

static inline bool pa_is_data(int fd, uint32_t file)
{
    return pa_has_mark(fd, PA_MARK_DATA) && pa_file_of(fd) == file;
}

/* Programs that were started with standard streams closed may open those later: a descriptor that has
 * the number of one gets another, if there is any left. */
static inline int pa_above_streams(int fd)
{
    int high = fd >= 0 && fd < 3 ? fcntl(fd, F_DUPFD_CLOEXEC, 3) : -1;
    if (high < 0)
        return fd;
    close(fd);
    return high;
}

/* A descriptor that was just opened (or the failure to) becomes ours: 0, or -errno and it is
 * closed. */
static inline int pa_make_own(int *fd, enum pa_mark mark)
{
    if (*fd < 0)
        return -errno;
    *fd = pa_above_streams(*fd);
    if (fcntl(*fd, F_SETSIG, (int)mark) == 0)
        return 0;
    int error = -errno;
    close(*fd);
    *fd = -1;
    return error;
}

static inline void pa_close_own(int *fd, enum pa_mark mark)
{
    if (pa_has_mark(*fd, mark))
        close(*fd);
    *fd = -1;
}

#endif
