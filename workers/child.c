/* workers/child.c - what a newly cloned process does first: settle, and shed the program's memory.
 *
 * The spawner begins as a copy of the whole program, a worker as a copy of the spawner.  It keeps
 * what its own few functions need (their code, the writable data of the libraries they live in, its
 * stack, the thread pointer's surroundings) and gives everything else back, so that the program can
 * grow, shrink and rewrite its heap without a copy being kept here.  Shared mappings of the program
 * are unmapped: they would keep memory alive that the program has given up.
 */
#include <errno.h>
#include <fcntl.h>
#include <link.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "worker.h"

#define PAGE UINT64_C(4096)
#define TLS_REACH (64u * 1024u)

/* -- collecting, in the program --------------------------------------------------------------- */

static void keep_range(struct pa_keep *keep, uintptr_t start, uintptr_t end)
{
    if (keep->count < PA_KEEP_MAX) {
        keep->ranges[keep->count].start = start & ~(PAGE - 1);
        keep->ranges[keep->count].end = (end + PAGE - 1) & ~(PAGE - 1);
        keep->count++;
    }
}

struct anchors {
    struct pa_keep *keep;
    uintptr_t addresses[4];
};

static int keep_object(struct dl_phdr_info *info, size_t size, void *context)
{
    (void)size;
    struct anchors *anchors = context;
    bool wanted = false;
    for (int i = 0; i < info->dlpi_phnum; i++) {
        const ElfW(Phdr) *header = &info->dlpi_phdr[i];
        uintptr_t start = info->dlpi_addr + header->p_vaddr;
        for (size_t a = 0; a < sizeof anchors->addresses / sizeof anchors->addresses[0]; a++)
            if (header->p_type == PT_LOAD && anchors->addresses[a] >= start &&
                anchors->addresses[a] < start + header->p_memsz)
                wanted = true;
    }
    for (int i = 0; wanted && i < info->dlpi_phnum; i++) {
        const ElfW(Phdr) *header = &info->dlpi_phdr[i];
        uintptr_t start = info->dlpi_addr + header->p_vaddr;
        if (header->p_type == PT_LOAD && header->p_flags & PF_W)
            keep_range(anchors->keep, start, start + header->p_memsz);
    }
    return 0;
}

void pa_keep_collect(struct pa_keep *keep, const struct pa_segment *segment, const char *region)
{
    keep->count = 0;
    keep_range(keep, (uintptr_t)segment, (uintptr_t)segment + sizeof *segment);
    keep_range(keep, (uintptr_t)region, (uintptr_t)region + 2 * PA_STACK_SIZE);
    uintptr_t thread = (uintptr_t)pthread_self();
    keep_range(keep, thread - TLS_REACH, thread + TLS_REACH);
    /* This library, the C library, and the loader, whose data the C library reads. */
    struct anchors anchors = {
        .keep = keep,
        .addresses = {(uintptr_t)pa_keep_collect, (uintptr_t)syscall, (uintptr_t)memcpy,
                      (uintptr_t)getauxval(AT_BASE)},
    };
    dl_iterate_phdr(keep_object, &anchors);
}

/* -- shedding, in the child ------------------------------------------------------------------- */

#if defined(__SANITIZE_ADDRESS__)

void pa_child_shed(const struct pa_birth *birth)
{
    (void)birth; /* the sanitizer's own memory is needed */
}

#else

struct reader {
    int fd;
    size_t at, filled;
    char buffer[4096];
};

static int next_byte(struct reader *reader)
{
    if (reader->at == reader->filled) {
        ssize_t got = read(reader->fd, reader->buffer, sizeof reader->buffer);
        if (got <= 0)
            return -1;
        reader->filled = (size_t)got;
        reader->at = 0;
    }
    return (unsigned char)reader->buffer[reader->at++];
}

static int next_number(struct reader *reader, unsigned base, uintptr_t *value)
{
    *value = 0;
    for (;;) {
        int c = next_byte(reader);
        unsigned digit = c >= '0' && c <= '9'   ? (unsigned)(c - '0')
                         : c >= 'a' && c <= 'f' ? (unsigned)(c - 'a') + 10
                                                : base;
        if (digit >= base)
            return c;
        *value = *value * base + digit;
    }
}

/* Give back [start, end) less what is kept.  `drop` is called for each piece between. */
static void shed_range(const struct pa_keep *keep, uintptr_t start, uintptr_t end,
                       void (*drop)(uintptr_t, uintptr_t))
{
    while (start < end) {
        uintptr_t stop = end, next = end;
        for (uint32_t i = 0; i < keep->count; i++) {
            uintptr_t kept_start = keep->ranges[i].start, kept_end = keep->ranges[i].end;
            if (kept_start <= start && start < kept_end) {
                stop = start; /* inside: go on behind it */
                next = kept_end < end ? kept_end : end;
                break;
            }
            if (kept_start > start && kept_start < stop) {
                stop = kept_start;
                next = kept_start;
            }
        }
        if (stop > start)
            drop(start, stop);
        start = next;
    }
}

static void drop_pages(uintptr_t start, uintptr_t end)
{
    madvise((void *)start, end - start, MADV_DONTNEED);
}

static void drop_mapping(uintptr_t start, uintptr_t end)
{
    munmap((void *)start, end - start);
}

/* One line of /proc/self/maps: start-end perms offset dev:dev inode [name].  False at the end. */
static bool shed_line(struct reader *reader, const struct pa_keep *keep)
{
    uintptr_t start, end, skipped, inode;
    char perms[4];
    if (next_number(reader, 16, &start) != '-' || next_number(reader, 16, &end) != ' ')
        return false;
    for (int i = 0; i < 4; i++)
        perms[i] = (char)next_byte(reader);
    next_byte(reader);
    next_number(reader, 16, &skipped);
    next_number(reader, 16, &skipped);
    next_number(reader, 16, &skipped);
    int c = next_number(reader, 10, &inode);
    while (c == ' ')
        c = next_byte(reader);
    bool special = false; /* [vdso], [vvar], [vsyscall]; but [heap] and [stack] go */
    if (c == '[')
        special = (c = next_byte(reader)) == 'v';
    while (c != '\n' && c >= 0)
        c = next_byte(reader);

    if (perms[3] == 's')
        shed_range(keep, start, end, drop_mapping);
    else if (!special && (inode == 0 || perms[1] == 'w'))
        shed_range(keep, start, end, drop_pages);
    return c >= 0;
}

void pa_child_shed(const struct pa_birth *birth)
{
    /* O_DSYNC is a mark: should this process be killed now, the program closes it (orphans.c). */
    struct reader reader = {.fd = open("/proc/self/maps", O_RDONLY | O_CLOEXEC | O_DSYNC)};
    if (reader.fd < 0)
        return;
    while (shed_line(&reader, &birth->keep))
        ;
    close(reader.fd);
}

#endif

/* -- settling, in the child ------------------------------------------------------------------- */

/* It makes a child that was stopped go on, so that one learns of it, too. */
#define PARENT_DIED SIGCONT

static pid_t expected_parent;

/* The kernel sends PARENT_DIED whenever the *thread* that made us ends, and a shell sends it, too;
 * only if the whole program has gone are we somebody else's child. */
static void leave_if_orphaned(int signal_number)
{
    (void)signal_number;
    int saved = errno;
    if (syscall(SYS_getppid) != expected_parent)
        _exit(0);
    errno = saved;
}

static void settle_signals(void)
{
    struct sigaction fresh = {.sa_handler = SIG_DFL};
    for (int number = 1; number <= SIGRTMAX; number++)
        sigaction(number, &fresh, NULL);
    struct sigaction orphaned = {.sa_handler = leave_if_orphaned, .sa_flags = SA_RESTART};
    sigaction(PARENT_DIED, &orphaned, NULL);
    sigset_t blocked;
    sigfillset(&blocked);
    static const int deadly[] = {SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGABRT, SIGSYS, SIGTRAP};
    for (size_t i = 0; i < sizeof deadly / sizeof deadly[0]; i++)
        sigdelset(&blocked, deadly[i]);
    sigdelset(&blocked, PARENT_DIED);
    sigprocmask(SIG_SETMASK, &blocked, NULL);
}

void pa_text(char **at, const char *text)
{
    while (*text)
        *(*at)++ = *text++;
    **at = '\0';
}

void pa_text_number(char **at, uint32_t value)
{
    char digits[12];
    int count = 0;
    do
        digits[count++] = (char)('0' + value % 10);
    while ((value /= 10) > 0);
    while (count > 0)
        *(*at)++ = digits[--count];
    **at = '\0';
}

/* The kernel shows the argument area, and beyond it the environment's once the arguments' last
 * byte is no longer NUL.  Both are the program's own copy here: nobody reads them any more. */
void pa_child_show_title(const struct pa_birth *birth, const char *title)
{
    const struct pa_setup *setup = &birth->setup;
    char *area = (char *)(uintptr_t)setup->title_at;
    if (setup->title_size < 2)
        return;
    size_t length = strlen(title);
    if (length > setup->title_size - 1)
        length = setup->title_size - 1;
    memcpy(area, title, length);
    memset(area + length, 0, setup->title_size - length);
}

void pa_child_settle(const struct pa_birth *birth)
{
    expected_parent = birth->setup.program_pid;
    settle_signals();
    prctl(PR_SET_PDEATHSIG, PARENT_DIED, 0, 0, 0);
    /* It may have died before that. */
    if (syscall(SYS_getppid) != expected_parent)
        _exit(0);
}
