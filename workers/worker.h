/* workers/worker.h - entry points of the children. */
#ifndef PROCAIO_WORKERS_WORKER_H
#define PROCAIO_WORKERS_WORKER_H

#include <linux/capability.h>
#include <stdbool.h>
#include <sys/types.h>

#include "../shm/abi.h"

#define PA_STACK_SIZE (128u * 1024u)
#define PA_KEEP_MAX 16

/* What a child keeps of the program's memory when it sheds the rest: found out by the program,
 * which may use the C library for it. */
struct pa_keep {
    uint32_t count;
    struct {
        uintptr_t start, end;
    } ranges[PA_KEEP_MAX];
};

/* Who the program was when the spawner was cloned: identity.c. */
struct pa_rights {
    uint32_t identity;
    bool watched; /* what it may do is looked at, again and again: */
    pid_t pid;
    uint32_t effective[_LINUX_CAPABILITY_U32S_3];
};

/* What the program hands to the spawner, and the spawner to every worker.  It lies at the start of
 * the spawner's stack region, so it is kept. */
struct pa_birth {
    struct pa_segment *segment;
    struct pa_keep keep;
    char *worker_stack; /* PA_STACK_SIZE bytes; each worker has its own copy of it */
    uint32_t worker;    /* the one that is being born */
    struct pa_rights rights;
    uint32_t limits;    /* of the header, when the spawner's own were set */
    struct pa_setup setup;
};

/* Program: clone the spawner.  Gives its pid and sets *pidfd, or a negated errno.  `region` is
 * 2 * PA_STACK_SIZE bytes of private memory that stays mapped for as long as the pool lives. */
int pa_spawner_start(struct pa_segment *segment, char *region, const struct pa_setup *setup,
                     uint32_t identity, int *pidfd);

/* The children themselves; clone(2) ends them with what these return, and nothing else runs. */
int pa_spawner_main(void *birth);
int pa_worker_main(void *birth);

/* Whether a child of ours sleeps in the kernel, whatever for. */
bool pa_is_blocked(pid_t pid);

/* A worker's work without its process: takes requests until it is told to leave.  Tests and the
 * benchmark's limit program run it in threads. */
void pa_worker_loop(struct pa_segment *segment, const struct pa_setup *setup, uint32_t worker,
                    const struct pa_rights *rights, uint32_t limits);

/* The capabilities that the first thread of a process has in effect. */
void pa_capabilities(pid_t pid, uint32_t effective[_LINUX_CAPABILITY_U32S_3]);

/* It may open whatever there is. */
static inline bool pa_opens_all(const uint32_t effective[_LINUX_CAPABILITY_U32S_3])
{
    return effective[0] & 1u << CAP_DAC_OVERRIDE;
}

/* loop.c: limits are a process's own, so a child has those that the program had.  Sets them to what
 * the program has now; true if that has changed something. */
bool pa_take_limits(pid_t program);

/* The program is still the user that it was. */
static inline bool pa_has_identity(const struct pa_segment *segment, uint32_t identity)
{
    return atomic_load_explicit(&segment->header.identity, memory_order_relaxed) == identity;
}

/* child.c: what a new process does before anything else. */
void pa_child_settle(const struct pa_birth *birth);
void pa_child_show_title(const struct pa_birth *birth, const char *title);
void pa_child_shed(const struct pa_birth *birth);
void pa_keep_collect(struct pa_keep *keep, const struct pa_segment *segment, const char *region);
void pa_text_number(char **at, uint32_t value);
void pa_text(char **at, const char *text);

#endif
