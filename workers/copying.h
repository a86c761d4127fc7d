/* workers/copying.h - one file on its way into another one: calls_copy.c and calls_content.c. */
#ifndef PROCAIO_WORKERS_COPYING_H
#define PROCAIO_WORKERS_COPYING_H

#include <stdbool.h>
#include <sys/stat.h>

#include "calls.h"

struct pa_copying {
    const struct pa_call *call;
    int from, to;
    bool follows;  /* symlinks: on both sides */
    bool replaces; /* the destination is another file afterwards, as after a rename */
    struct stat source, destination;
};

static inline bool pa_same_file(const struct stat *a, const struct stat *b)
{
    return a->st_dev == b->st_dev && a->st_ino == b->st_ino;
}

/* 0, or a negated errno; -ECANCELED when the program has given up. */
int64_t pa_copy_content(const struct pa_copying *self);

/* Times, owner, permissions, access list, attributes of the user: as far as the program may.  What it
 * may not is no error. */
void pa_copy_attributes(const struct pa_copying *self);
void pa_copy_attributes_of_entry(const struct pa_copying *self); /* of what is not opened */

#endif
