/* shm/spin.h - looking for work for a while before going to sleep; the same on both sides.
 *
 * Waking a sleeper costs tens of microseconds, so a short look pays where the other side runs on
 * another core, and is pure waste where it waits for this one.  Nobody can tell beforehand; so the
 * time grows while looking finds something and shrinks while it does not.  Once it has gone to
 * nothing it comes back when the other side rings so soon that a look would have found something.
 */
#ifndef PROCAIO_SHM_SPIN_H
#define PROCAIO_SHM_SPIN_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/syscall.h>
#include <unistd.h>

#define PA_SPIN_MIN_NS 1000u
#define PA_SPIN_ALONE_NS 4000u /* after this, let others have the core between two looks */
#define PA_SPIN_MARGIN_NS 5000u /* beyond twice what the last wait took */

struct pa_spin {
    uint32_t limit_ns; /* 0: never */
    uint32_t ns;       /* how long to look; 0: not at all */
};

static inline void pa_relax(int pauses)
{
    for (int i = 0; i < pauses; i++) {
#if defined(__x86_64__) || defined(__i386__)
        __builtin_ia32_pause();
#elif defined(__aarch64__)
        __asm__ volatile("yield");
#endif
    }
}

static inline void pa_spin_yield(void)
{
    syscall(SYS_sched_yield);
}

/* After looking: did it find something? */
static inline void pa_spin_learn(struct pa_spin *spin, bool found)
{
    if (found)
        spin->ns = spin->ns * 2 < spin->limit_ns ? spin->ns * 2 : spin->limit_ns;
    else
        spin->ns = spin->ns / 2 < PA_SPIN_MIN_NS ? 0 : spin->ns / 2;
}

/* After a sleep that began at `began_ns`: the other side rang at `rung_ns`.  If that was before, and
 * something else has ended the sleep, it says nothing.  No fence orders that word: who reads an older
 * one, or garbage, looks for too short or too long a time, up to the limit. */
static inline void pa_spin_slept(struct pa_spin *spin, uint64_t began_ns, uint64_t rung_ns)
{
    uint64_t waited_ns = rung_ns - began_ns; /* huge if it has not rung */
    if (waited_ns >= spin->limit_ns)
        return;
    uint64_t enough_ns = 2 * waited_ns + PA_SPIN_MARGIN_NS;
    if (spin->ns < enough_ns)
        spin->ns = enough_ns < spin->limit_ns ? (uint32_t)enough_ns : spin->limit_ns;
}

#endif
