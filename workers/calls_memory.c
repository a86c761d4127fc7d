/* workers/calls_memory.c - syncing, touching and locking memory.
 *
 * These act on the address space of the process that calls them, so the program's own threads do
 * (procaio/csrc/memory.c).  Memory that was mapped from a file may have lost the file under it: that
 * must be an error here, and never a SIGBUS, so the memory is never touched by an instruction of ours.
 */
#include "calls.h"

#include <linux/futex.h>
#include <stdbool.h>
#include <sys/mman.h>
#include <sys/uio.h>

/* The system reads one byte for us. */
static int64_t read_page(char *at)
{
    char byte;
    struct iovec here = {.iov_base = &byte, .iov_len = 1}, there = {.iov_base = at, .iov_len = 1};
    int64_t got = pa_outcome(process_vm_readv(getpid(), &here, 1, &there, 1, 0));
    return got < 0 ? got : 0;
}

/* The system writes to it without changing it: "or 0", in one atomic step. */
static int64_t modify_page(char *at)
{
    static _Atomic uint32_t nobody_waits;
    uint32_t operation = FUTEX_OP(FUTEX_OP_OR, 0, FUTEX_OP_CMP_EQ, 0);
    int64_t result = pa_outcome(syscall(SYS_futex, &nobody_waits,
                                        FUTEX_WAKE_OP | FUTEX_PRIVATE_FLAG, 0, (void *)0, at,
                                        operation));
    return result < 0 ? result : 0;
}

/* For systems without MADV_POPULATE (Linux before 5.14). */
int64_t pa_touch_pages(char *at, uint64_t length, bool modify)
{
    uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE);
    for (uint64_t done = 0; done < length; done += page) {
        int64_t failed = modify ? modify_page(at + done) : read_page(at + done);
        if (failed)
            return failed;
    }
    return 0;
}

int64_t pa_call_mtouch(const struct pa_call *call)
{
    const struct pa_slot *slot = call->slot;
    bool modify = slot->flags & PA_MT_MODIFY;
    int64_t result = pa_outcome(madvise(call->data, slot->length,
                                        modify ? MADV_POPULATE_WRITE : MADV_POPULATE_READ));
    return result == -EINVAL ? pa_touch_pages(call->data, slot->length, modify) : result;
}

/* A file that has become shorter has lost what was mapped beyond its end: the last page tells. */
static int64_t look_for_lost_end(const struct pa_call *call)
{
    uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE);
    if (call->slot->length == 0)
        return 0;
    char *last = call->data + (call->slot->length - 1) / page * page;
    int64_t result = pa_outcome(madvise(last, page, MADV_POPULATE_READ));
    return result == -EFAULT ? result : 0;
}

int64_t pa_call_msync(const struct pa_call *call)
{
    int64_t result = pa_outcome(msync(call->data, call->slot->length, (int)call->slot->flags));
    return result < 0 ? result : look_for_lost_end(call);
}

int64_t pa_call_mlock(const struct pa_call *call)
{
    return pa_outcome(mlock(call->data, call->slot->length));
}

int64_t pa_call_mlockall(const struct pa_call *call)
{
    return pa_outcome(mlockall((int)call->slot->flags));
}
