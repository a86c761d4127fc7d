/* tests/native/odd_directories.c - directories as some file servers have them: to be preloaded.
 *
 * ODD says what is odd: "types" beyond those that there are, of names that begin with "odd";
 * "offsets" that look negative; or signals that have "interrupted" the first calls.
 */
#include <dlfcn.h>
#include <errno.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

struct record {
    uint64_t inode;
    int64_t offset;
    uint16_t size;
    uint8_t type;
    char name[];
};

static long (*real_syscall)(long, ...);
static int (*real_unlinkat)(int, const char *, int);
static off_t (*real_lseek)(int, off_t, int);
static int interrupted;

static void __attribute__((constructor)) begin(void)
{
    *(void **)&real_syscall = dlsym(RTLD_NEXT, "syscall");
    *(void **)&real_unlinkat = dlsym(RTLD_NEXT, "unlinkat");
    *(void **)&real_lseek = dlsym(RTLD_NEXT, "lseek");
}

static int is_odd(const char *how)
{
    const char *odd = getenv("ODD");
    return odd && strcmp(odd, how) == 0;
}

static int interrupts(void)
{
    errno = EINTR;
    return is_odd("interrupted") && interrupted++ % 2 == 0;
}

static void make_odd(char *records, long size)
{
    static uint8_t type = 99;
    for (char *at = records; at < records + size;) {
        struct record *record = (void *)at;
        if (is_odd("types") && strncmp(record->name, "odd", 3) == 0)
            record->type = ++type;
        if (is_odd("offsets"))
            record->offset |= INT64_MIN;
        at += record->size;
    }
}

long syscall(long number, ...)
{
    va_list list;
    long a[6];
    va_start(list, number);
    for (int i = 0; i < 6; i++)
        a[i] = va_arg(list, long);
    va_end(list);
    if (number == SYS_getdents64 && interrupts())
        return -1;
    long result = real_syscall(number, a[0], a[1], a[2], a[3], a[4], a[5]);
    if (number == SYS_getdents64 && result > 0)
        make_odd((char *)a[1], result);
    return result;
}

int unlinkat(int directory, const char *name, int flags)
{
    return interrupts() ? -1 : real_unlinkat(directory, name, flags);
}

off_t lseek(int fd, off_t offset, int whence)
{
    return real_lseek(fd, is_odd("offsets") ? offset & INT64_MAX : offset, whence);
}
