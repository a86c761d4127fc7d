/* shm/faults.h - points at which a test can let a worker die.
 *
 * Every build has them, so what is tested is what is shipped: a point costs one load of a word that
 * is hardly ever written.
 */
#ifndef PROCAIO_SHM_FAULTS_H
#define PROCAIO_SHM_FAULTS_H

#include <signal.h>
#include <stdbool.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "abi.h"

static inline void pa_fault(struct pa_segment *segment, enum pa_fault_point point)
{
    struct pa_header *header = &segment->header;
    if (atomic_load_explicit(&header->fault_point, memory_order_relaxed) != (uint32_t)point)
        return;
    bool always = atomic_load_explicit(&header->fault_countdown, memory_order_relaxed) ==
                  PA_FAULT_ALWAYS;
    if (!always &&
        atomic_fetch_sub_explicit(&header->fault_countdown, 1, memory_order_relaxed) != 0)
        return;
    /* The system call, because the C library may remember the program's own pid. */
    long self = syscall(SYS_getpid);
    syscall(SYS_kill, self, atomic_load_explicit(&header->fault_signal, memory_order_relaxed));
}

#endif
