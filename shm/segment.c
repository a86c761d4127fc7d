/* shm/segment.c - mapping and reserving the control segment.
 *
 * Space is reserved with fallocate before it is touched, so a full /dev/shm is an errno here and
 * never a SIGBUS later.  The result rings are reserved one by one as workers are started, but the
 * first one at once: one worker can always be had.
 */
#include "segment.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#define SPIN_LIMIT_NS 100000u /* what two wake-ups cost: spinning longer cannot pay */

int pa_segment_map(int fd, struct pa_segment **segment)
{
    if (ftruncate(fd, sizeof **segment) < 0 ||
        fallocate(fd, 0, 0, (off_t)offsetof(struct pa_segment, results[1])) < 0)
        return -errno;
    void *at = mmap(NULL, sizeof **segment, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (at == MAP_FAILED)
        return -errno;
    *segment = at;
    return 0;
}

void pa_segment_unmap(struct pa_segment *segment)
{
    munmap(segment, sizeof *segment);
}

void pa_segment_init(struct pa_segment *segment, uint32_t cores)
{
    struct pa_header *header = &segment->header;
    header->setup.magic = PA_MAGIC;
    header->setup.program_pid = getpid();
    header->setup.permit_count = cores < PA_MAX_PERMITS ? cores : PA_MAX_PERMITS;
    header->setup.spin_limit_ns = cores > 1 ? SPIN_LIMIT_NS : 0;
    atomic_store(&header->want_signal, PA_WANTS_SIGNAL);
    for (uint32_t worker = 0; worker < PA_MAX_WORKERS; worker++)
        atomic_store(&segment->workers[worker].pidfd, -1);
}
