/* tests/native/test_spin.c - how long the program and a worker look before they sleep.
 *
 *     test_spin
 */
#include <stdio.h>
#include <stdlib.h>

#include "../../shm/spin.h"

enum { LIMIT_NS = 100000, NOW_NS = 1000000 };

static void check(bool good, const char *what)
{
    if (good)
        return;
    fprintf(stderr, "test_spin: %s\n", what);
    abort();
}

static struct pa_spin given_up(uint32_t limit_ns)
{
    struct pa_spin spin = {.limit_ns = limit_ns, .ns = limit_ns};
    for (int vain = 0; vain < 32; vain++)
        pa_spin_learn(&spin, false);
    check(spin.ns == 0, "looking in vain comes to an end");
    return spin;
}

int main(void)
{
    struct pa_spin spin = given_up(LIMIT_NS);
    pa_spin_slept(&spin, NOW_NS, NOW_NS - 1);
    check(spin.ns == 0, "a ring from before the sleep says nothing");
    pa_spin_slept(&spin, NOW_NS, NOW_NS + LIMIT_NS);
    check(spin.ns == 0, "nor does one that came too late for any look");

    pa_spin_slept(&spin, NOW_NS, NOW_NS + 20000);
    check(spin.ns > 20000 && spin.ns < LIMIT_NS, "one that came soon would have been seen");
    uint32_t before_ns = spin.ns;
    pa_spin_slept(&spin, NOW_NS, NOW_NS + 1000);
    check(spin.ns == before_ns, "a shorter wait does not make a look shorter");
    pa_spin_slept(&spin, NOW_NS, NOW_NS + LIMIT_NS - 1);
    check(spin.ns == LIMIT_NS, "no look is longer than the limit");
    pa_spin_learn(&spin, true);
    check(spin.ns == LIMIT_NS, "not after finding something, either");

    struct pa_spin never = given_up(0);
    pa_spin_slept(&never, NOW_NS, NOW_NS);
    pa_spin_learn(&never, true);
    check(never.ns == 0, "with one core nobody looks");
    return 0;
}
