/* benchmarks/native/plain_calls.c - what many calls are held against: system calls in threads.
 *
 *     plain_calls THREADS stat                     lines of input are paths
 *     plain_calls THREADS load                     likewise; each file gets memory of its own
 *     plain_calls THREADS read FILE SIZE [BLOCKS]  lines are offsets
 *
 * Each read gets its part of one memory, or there are BLOCKS, and each thread uses its share of them
 * again and again.  The memory begins at a page, as a Buffer does: to 16 bytes behind, where
 * that of malloc begins, some processors copy at half the speed.
 *
 * Each thread does its share, one call after the other.  A tenth is done before, to warm up.  One
 * JSON line is printed.
 */
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum { MOST_THREADS = 64, PAGE = 4096 };

struct share {
    size_t first, end, failed;
    size_t first_block, blocks;
    pthread_t thread;
};

static size_t count, room, size, blocks;
static char **lines, **loaded, *memory;
static struct stat *found;
static int file;
static _Thread_local const struct share *mine;

static void read_lines(void)
{
    char *line = NULL;
    size_t space = 0;
    ssize_t length;
    while ((length = getline(&line, &space, stdin)) > 0) {
        line[length - (line[length - 1] == '\n')] = '\0';
        if (count == room)
            lines = realloc(lines, (room = 2 * room + 1024) * sizeof *lines);
        lines[count++] = strdup(line);
    }
    free(line);
}

static int do_stat(size_t item)
{
    return stat(lines[item], &found[item]);
}

static int do_load(size_t item)
{
    struct stat st;
    int fd = open(lines[item], O_RDONLY | O_CLOEXEC);
    if (fd < 0 || fstat(fd, &st) < 0)
        return -1;
    free(loaded[item]);
    loaded[item] = malloc((size_t)st.st_size + 1);
    ssize_t got = read(fd, loaded[item], (size_t)st.st_size + 1);
    close(fd);
    return got == st.st_size ? 0 : -1;
}

static int do_read(size_t item)
{
    off_t offset = strtoll(lines[item], NULL, 10);
    char *block = memory + (mine->first_block + item % mine->blocks) * size;
    return pread(file, block, size, offset) == (ssize_t)size ? 0 : -1;
}

static int (*run)(size_t item);

static void *work(void *given)
{
    struct share *share = given;
    mine = share;
    for (size_t item = share->first; item < share->end; item++)
        share->failed += run(item) != 0;
    return NULL;
}

static size_t in_threads(size_t threads, size_t items)
{
    struct share shares[MOST_THREADS];
    size_t failed = 0;
    for (size_t i = 0; i < threads; i++) {
        size_t first_block = blocks * i / threads;
        shares[i] = (struct share){.first = items * i / threads,
                                   .end = items * (i + 1) / threads,
                                   .first_block = first_block,
                                   .blocks = blocks * (i + 1) / threads - first_block};
        if (pthread_create(&shares[i].thread, NULL, work, &shares[i]))
            exit(2);
    }
    for (size_t i = 0; i < threads; i++) {
        pthread_join(shares[i].thread, NULL);
        failed += shares[i].failed;
    }
    return failed;
}

static double cpu(void)
{
    struct rusage used;
    getrusage(RUSAGE_SELF, &used);
    return (double)(used.ru_utime.tv_sec + used.ru_stime.tv_sec) +
           1e-6 * (double)(used.ru_utime.tv_usec + used.ru_stime.tv_usec);
}

static double now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + 1e-9 * (double)time.tv_nsec;
}

int main(int argc, char **argv)
{
    size_t threads = argc > 2 ? (size_t)atoi(argv[1]) : 0;
    if (threads < 1 || threads > MOST_THREADS)
        return 2;
    read_lines();
    run = strcmp(argv[2], "stat") == 0 ? do_stat : strcmp(argv[2], "load") == 0 ? do_load : do_read;
    found = calloc(count, sizeof *found);
    loaded = calloc(count, sizeof *loaded);
    if (run == do_read) {
        if (argc < 5 || (file = open(argv[3], O_RDONLY | O_CLOEXEC)) < 0)
            return 2;
        size = (size_t)atoi(argv[4]);
        blocks = argc > 5 ? (size_t)atoi(argv[5]) : count;
        if (blocks < threads || posix_memalign((void **)&memory, PAGE, blocks * size))
            return 2;
        memset(memory, 1, blocks * size);
    }
    size_t failed = in_threads(threads, count / 10);
    double began = now(), before = cpu();
    failed += in_threads(threads, count);
    printf("{\"ops\": %zu, \"seconds\": %.6f, \"cpu\": %.6f}\n", failed ? 0 : count, now() - began,
           cpu() - before);
    return 0;
}
