/* workers/ops.h - the table of operations. */
#ifndef PROCAIO_WORKERS_OPS_H
#define PROCAIO_WORKERS_OPS_H

#include <stdbool.h>

#include "../shm/abi.h"

/* A slot made ready to run: offsets turned into addresses of the process that runs it. */
struct pa_call {
    struct pa_slot *slot;
    const char *path, *path2;
    char *data; /* the block, or NULL */
    char *out;  /* the segment that read_many fills, or NULL: the block */
};

struct pa_op {
    const char *name;
    int64_t (*run)(const struct pa_call *call); /* >= 0, or a negated errno */
    bool again_on_eintr;
    bool again_if_worker_died; /* doing it twice is the same as doing it once */
    bool opens;                /* it may leave a descriptor behind if it is cut short */
    /* A form that the kernel promises not to block, to be tried in the program; -EAGAIN sends the
     * request on to a worker.  NULL: there is none. */
    int64_t (*run_cached)(const struct pa_call *call);
};

extern const struct pa_op pa_ops[PA_NOPS];

/* Run the slot's operation, in whichever process.  `data_base` is where the block's data segment
 * is mapped here, NULL without one; `out_base` likewise, if pa_op_has_out(). */
int64_t pa_op_run(struct pa_slot *slot, char *data_base,
                  const struct pa_data_segment *segment, /* NULL: it has no block */
                  char *out_base);
bool pa_op_waits(uint16_t op); /* if it takes long: for a disk, and needs no core meanwhile */
bool pa_op_has_out(const struct pa_slot *slot); /* a second segment: `out_segment` */

#endif
