/* procaio/csrc/results.h - what results.c and listings.c share. */
#ifndef PROCAIO_RESULTS_H
#define PROCAIO_RESULTS_H

#include "arguments.h"

/* results.c */
int result_append(PyObject *list, PyObject *item);      /* steals the item, which may be NULL */
int result_gather(Request *request, size_t size);       /* what this step brought, to the others' */
PyObject *result_take_stat(const struct pa_slot *slot); /* new reference */
bool result_is_opened(const Request *request, int fd);

/* listings.c: new values, as result_take() */
PyObject *listing_take(Request *request, size_t size);
PyObject *listing_take_tree(Request *request, const struct pa_slot *slot, size_t size);
uint32_t listing_flags(const Request *request, bool unknown); /* what aio_readdirx returns beside */

#endif
