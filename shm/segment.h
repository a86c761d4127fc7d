/* shm/segment.h - mapping and reserving shared memory.  Program only. */
#ifndef PROCAIO_SHM_SEGMENT_H
#define PROCAIO_SHM_SEGMENT_H

#include "abi.h"

/* Reserve the part of the control segment that is always used, and map it.  0 or -errno. */
int pa_segment_map(int fd, struct pa_segment **segment);
void pa_segment_unmap(struct pa_segment *segment);

/* Fill in a fresh, zeroed segment: `cores` permits, nobody started yet. */
void pa_segment_init(struct pa_segment *segment, uint32_t cores);

#endif
