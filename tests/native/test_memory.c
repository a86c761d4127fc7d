/* tests/native/test_memory.c - touching pages, as it is done where the system has no call for it.
 *
 *     test_memory
 *
 * Private, shared, read-only and forbidden memory, files that are cut under their mapping: an errno
 * and never a signal, the bytes stay as they were, and what was modified counts as changed.  Then
 * the calls themselves, which use the fallback only on old systems.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "../../workers/calls.h"

enum { PAGES = 16 };

static size_t page;
static unsigned checks;

static void check(bool good, const char *what)
{
    checks++;
    if (good)
        return;
    fprintf(stderr, "test_memory: %s (errno %d)\n", what, errno);
    abort();
}

static char *map(int prot, int flags, int fd)
{
    char *at = mmap(NULL, PAGES * page, prot, fd < 0 ? flags | MAP_ANONYMOUS : flags, fd, 0);
    check(at != MAP_FAILED, "mmap");
    return at;
}

static int file(void)
{
    int fd = memfd_create("test_memory", MFD_CLOEXEC);
    check(fd >= 0 && ftruncate(fd, (off_t)(PAGES * page)) == 0, "memfd_create");
    return fd;
}

static unsigned resident(char *at)
{
    unsigned char pages[PAGES];
    unsigned count = 0;
    check(mincore(at, PAGES * page, pages) == 0, "mincore");
    for (int i = 0; i < PAGES; i++)
        count += pages[i] & 1u;
    return count;
}

/* Pages that are there and not shared with the file or the zero page: bit 61 of /proc/self/pagemap
 * says otherwise, bit 63 says that there is one. */
static unsigned own_pages(const char *at)
{
    uint64_t entries[PAGES];
    int fd = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
    off_t from = (off_t)((uintptr_t)at / page * sizeof entries[0]);
    check(fd >= 0 && pread(fd, entries, sizeof entries, from) == (ssize_t)sizeof entries, "pagemap");
    close(fd);
    unsigned count = 0;
    for (int i = 0; i < PAGES; i++)
        count += entries[i] >> 63 && !(entries[i] >> 61 & 1);
    return count;
}

static void fill(char *at)
{
    for (size_t i = 0; i < PAGES * page; i++)
        at[i] = (char)(i * 31 + i / page);
}

static void check_filled(const char *at, size_t size)
{
    for (size_t i = 0; i < size; i++)
        if (at[i] != (char)(i * 31 + i / page))
            check(false, "a byte has changed");
}

static void test_fresh_memory(int flags)
{
    for (int modify = 0; modify <= 1; modify++) {
        char *at = map(PROT_READ | PROT_WRITE, flags, -1);
        check(pa_touch_pages(at, PAGES * page, modify) == 0, "fresh memory is touched");
        check(resident(at) == PAGES, "all its pages are there");
        for (size_t i = 0; i < PAGES * page; i++)
            if (at[i])
                check(false, "fresh memory is not zero");
        fill(at);
        check(pa_touch_pages(at, PAGES * page, modify) == 0, "it is touched again");
        check_filled(at, PAGES * page);
        munmap(at, PAGES * page);
    }
}

static void test_only_what_was_asked_for(void)
{
    char *at = map(PROT_READ | PROT_WRITE, MAP_PRIVATE, -1);
    check(pa_touch_pages(at, 0, true) == 0 && own_pages(at) == 0, "nothing is touched");
    check(pa_touch_pages(at + 2 * page, 3 * page, true) == 0 && own_pages(at) == 3,
          "three pages are touched");
    munmap(at, PAGES * page);
}

static void test_modified_pages_are_own_ones(void)
{
    int fd = file();
    char *shared = map(PROT_READ | PROT_WRITE, MAP_SHARED, fd);
    fill(shared);
    char *at = map(PROT_READ | PROT_WRITE, MAP_PRIVATE, fd);
    check(pa_touch_pages(at, PAGES * page, false) == 0 && own_pages(at) == 0,
          "what is only read stays the file's");
    check(pa_touch_pages(at, PAGES * page, true) == 0 && own_pages(at) == PAGES,
          "what is modified is copied");
    check_filled(at, PAGES * page);
    check_filled(shared, PAGES * page);
    munmap(at, PAGES * page);
    munmap(shared, PAGES * page);
    close(fd);
}

static void test_lost_pages(int flags)
{
    int fd = file();
    char *at = map(PROT_READ | PROT_WRITE, flags, fd);
    check(ftruncate(fd, (off_t)(PAGES / 2 * page)) == 0, "ftruncate");
    for (int modify = 0; modify <= 1; modify++) {
        check(pa_touch_pages(at, PAGES / 2 * page, modify) == 0, "what is left can be touched");
        check(pa_touch_pages(at, PAGES * page, modify) == -EFAULT, "what is lost is an error");
        check(pa_touch_pages(at + (PAGES - 1) * page, page, modify) == -EFAULT, "the last page too");
    }
    munmap(at, PAGES * page);
    close(fd);
}

static void test_forbidden_pages(void)
{
    char *at = map(PROT_READ | PROT_WRITE, MAP_PRIVATE, -1);
    fill(at);
    mprotect(at + page, page, PROT_NONE);
    check(pa_touch_pages(at, page, true) == 0, "the page before can be touched");
    check(pa_touch_pages(at, PAGES * page, false) == -EFAULT, "what cannot be read is an error");
    check(pa_touch_pages(at, PAGES * page, true) == -EFAULT, "nor can it be modified");
    mprotect(at, PAGES * page, PROT_READ);
    check(pa_touch_pages(at, PAGES * page, false) == 0, "read-only memory can be read");
    check(pa_touch_pages(at, PAGES * page, true) == -EFAULT, "but not modified");
    check_filled(at, PAGES * page);
    munmap(at, PAGES * page);
    check(pa_touch_pages(at, page, false) == -EFAULT, "unmapped memory is an error");
    check(pa_touch_pages(at, page, true) == -EFAULT, "likewise");
}

/* -- while another thread writes ------------------------------------------------------------------ */

static struct {
    _Atomic uint32_t *counter;
    atomic_bool stop;
} writer;

static void *count_up(void *counted)
{
    uint64_t *count = counted;
    while (!atomic_load(&writer.stop)) {
        atomic_fetch_add(writer.counter, 1);
        ++*count;
    }
    return NULL;
}

static void test_no_write_is_lost(void)
{
    char *at = map(PROT_READ | PROT_WRITE, MAP_SHARED, -1);
    uint64_t count = 0;
    pthread_t thread;
    writer.counter = (_Atomic uint32_t *)(void *)at;
    check(pthread_create(&thread, NULL, count_up, &count) == 0, "pthread_create");
    for (int i = 0; i < 20000; i++)
        check(pa_touch_pages(at, page, true) == 0, "it is touched");
    atomic_store(&writer.stop, true);
    pthread_join(thread, NULL);
    check(atomic_load(writer.counter) == (uint32_t)count, "a write was lost");
    munmap(at, PAGES * page);
}

/* -- the calls ------------------------------------------------------------------------------------ */

static void test_calls(void)
{
    int fd = file();
    char *at = map(PROT_READ | PROT_WRITE, MAP_SHARED, fd);
    fill(at);
    struct pa_slot slot = {.length = PAGES * page, .flags = MS_SYNC};
    struct pa_call call = {.slot = &slot, .data = at};
    check(pa_call_msync(&call) == 0, "msync");
    slot.flags = PA_MT_MODIFY;
    check(pa_call_mtouch(&call) == 0, "mtouch");
    check_filled(at, PAGES * page);
    check(ftruncate(fd, (off_t)page) == 0, "ftruncate");
    check(pa_call_mtouch(&call) == -EFAULT, "mtouch of what is lost");
    slot.flags = MS_SYNC;
    int64_t result = pa_call_msync(&call);
    check(result == -EFAULT || result == 0, "msync of what is lost"); /* old systems do not tell */
    slot.length = page;
    check(pa_call_msync(&call) == 0, "msync of what is left");
    check_filled(at, page);
    slot.flags = MS_SYNC | MS_ASYNC;
    check(pa_call_msync(&call) == -EINVAL, "msync with flags that exclude each other");
    munmap(at, PAGES * page);
    close(fd);
}

int main(void)
{
    page = (size_t)sysconf(_SC_PAGESIZE);
    test_fresh_memory(MAP_PRIVATE);
    test_fresh_memory(MAP_SHARED);
    test_only_what_was_asked_for();
    test_modified_pages_are_own_ones();
    test_lost_pages(MAP_SHARED);
    test_lost_pages(MAP_PRIVATE);
    test_forbidden_pages();
    test_no_write_is_lost();
    test_calls();
    printf("ok: %u checks\n", checks);
    return 0;
}
