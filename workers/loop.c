/* workers/loop.c - a worker's life: take, run, publish, search, sleep.
 *
 * What may be called here: system calls, and C library functions that are async-signal-safe.  No
 * malloc, no stdio, no lock of the program, no Python; the heap of the program is not even there
 * any more.  The process ends without a word (worker.h).
 *
 * A worker takes requests only while it holds a permit (wake.h).  It may lose it while a system
 * call takes long; then it publishes what it has done, and sleeps unless another permit is free.
 */
#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "../shm/faults.h"
#include "../shm/marks.h"
#include "../shm/ring.h"
#include "../shm/spin.h"
#include "../shm/state.h"
#include "../shm/wake.h"
#include "calls.h"
#include "worker.h"

/* Another worker is worth waking when the requests in sight take longer than waking it does. */
#define WAKE_COST_NS 60000u
#define SAMPLE_MASK 7u /* one operation of eight is timed */

/* Where a data segment is mapped in this process: filled when a request first needs it, and again
 * when the program has replaced the segment. */
struct mapping {
    char *base;
    uint64_t size;
    uint32_t generation;
};

struct self {
    struct pa_segment *segment;
    struct pa_worker *record;
    uint32_t index;
    uint32_t permit;
    uint32_t taken;
    uint32_t withdrawn; /* of the header, as it was seen last */
    const struct pa_rights *rights;
    uint32_t checked[PA_NLANES]; /* what stood in the lanes before this was made by who we are */
    bool doubtful;               /* the program has other rights by now */
    uint32_t limits; /* of the header, when this worker's own were set */
    int event_fd;
    int written_fd; /* to what the last write was */
    struct pa_spin spin;
    bool spinning; /* this worker is the header's spinner */
    struct mapping mappings[PA_MAX_SEGMENTS];
};

static bool told_to_leave(const struct self *self)
{
    return atomic_load_explicit(&self->segment->header.shutdown, memory_order_relaxed) ||
           !pa_has_identity(self->segment, self->rights->identity) || self->doubtful ||
           atomic_load_explicit(&self->record->retire, memory_order_relaxed);
}

/* -- limits ----------------------------------------------------------------------------------- */

/* What the program spends of these is not what a child spends: such a limit is only raised. */
static bool is_private(int kind)
{
    return kind == RLIMIT_AS || kind == RLIMIT_CPU;
}

static bool take_limit(pid_t program, int kind)
{
    struct rlimit its, ours;
    if (prlimit(program, kind, NULL, &its) < 0 || prlimit(0, kind, NULL, &ours) < 0)
        return false;
    if ((its.rlim_cur == ours.rlim_cur && its.rlim_max == ours.rlim_max) ||
        (is_private(kind) && its.rlim_cur <= ours.rlim_cur))
        return false;
    if (prlimit(0, kind, &its, NULL) == 0)
        return true;
    struct rlimit most = {.rlim_cur = its.rlim_cur < ours.rlim_max ? its.rlim_cur : ours.rlim_max,
                          .rlim_max = ours.rlim_max};
    return most.rlim_cur != ours.rlim_cur && prlimit(0, kind, &most, NULL) == 0;
}

bool pa_take_limits(pid_t program)
{
    static const int kinds[] = {RLIMIT_NOFILE, RLIMIT_FSIZE, RLIMIT_NPROC, RLIMIT_AS, RLIMIT_CPU};
    bool changed = false;
    for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++)
        changed |= take_limit(program, kinds[i]);
    return changed;
}

/* The program says so where it sets them itself. */
static void follow_limits(struct self *self)
{
    uint32_t limits =
        atomic_load_explicit(&self->segment->header.limits, memory_order_acquire);
    if (limits == self->limits)
        return;
    self->limits = limits;
    pa_take_limits(self->rights->pid);
}

/* What has failed for the sake of a limit that the program has no more, and has done nothing, is
 * done again.  The others fail once. */
static bool is_worth_another_try(struct self *self, const struct pa_slot *slot, int64_t result)
{
    if (result != -EMFILE && result != -EFBIG)
        return false;
    if (!pa_take_limits(self->rights->pid) || slot->op >= PA_NOPS)
        return false;
    const struct pa_op *op = &pa_ops[slot->op];
    bool writes_in_slot =
        slot->op == PA_OP_COPY || slot->op == PA_OP_MOVE || slot->op == PA_OP_REPLACE_FILE;
    return !writes_in_slot && (op->again_if_worker_died || (result == -EMFILE && op->opens));
}

/* -- requests --------------------------------------------------------------------------------- */

/* The program may have closed it.  What it has lent it looks at itself (mapping.c). */
static bool is_there(const struct pa_data_segment *data)
{
    return data->lent || pa_is_data(data->fd, data->file);
}

static int map_data(struct self *self, uint32_t row, char **base)
{
    if (row >= PA_MAX_SEGMENTS)
        return -ENOMEM;
    const struct pa_data_segment *data = &self->segment->header.data_segments[row];
    struct mapping *mapping = &self->mappings[row];
    *base = mapping->base;
    if (mapping->base && mapping->generation == data->generation)
        return 0;
    if (mapping->base)
        munmap(mapping->base, mapping->size);
    mapping->base = NULL;
    if (!is_there(data))
        return -EBADF;
    off_t at = (off_t)data->file_offset;
    void *made = mmap(NULL, data->size, PROT_READ | PROT_WRITE, MAP_SHARED, data->fd, at);
    if (made == MAP_FAILED) /* lent by the program, to be read only: EACCES, EPERM if it is sealed */
        made = mmap(NULL, data->size, PROT_READ, MAP_SHARED, data->fd, at);
    *base = mapping->base = made == MAP_FAILED ? NULL : made;
    mapping->size = data->size;
    mapping->generation = data->generation;
    return *base ? 0 : -ENOMEM;
}

/* What the program has taken back is not kept from going. */
static void unmap_withdrawn(struct self *self)
{
    uint32_t withdrawn =
        atomic_load_explicit(&self->segment->header.withdrawn, memory_order_acquire);
    if (withdrawn == self->withdrawn)
        return;
    self->withdrawn = withdrawn;
    for (uint32_t row = 0; row < PA_MAX_SEGMENTS; row++) {
        struct mapping *mapping = &self->mappings[row];
        if (mapping->base &&
            mapping->generation != self->segment->header.data_segments[row].generation) {
            munmap(mapping->base, mapping->size);
            mapping->base = NULL;
        }
    }
}

/* When there is no memory the system ends the process that has most, which would be the program.  A
 * worker's life is cheaper: one that asks for much memory offers its own while it does so.  What it
 * has reserved goes with it, and one request has failed. */
struct offer {
    char before[8];
    ssize_t size; /* of what stood there before; <= 0: nothing is offered */
};

static void write_offer(struct offer *offer, bool take_back)
{
    static const char most[] = "1000";
    int64_t fd = pa_open_marked_at(AT_FDCWD, "/proc/self/oom_score_adj", O_RDWR, 0);
    if (fd < 0)
        return;
    if (take_back)
        (void)!write((int)fd, offer->before, (size_t)offer->size);
    else if ((offer->size = read((int)fd, offer->before, sizeof offer->before)) > 0)
        (void)!write((int)fd, most, sizeof most - 1);
    close((int)fd);
}

static int64_t run_offering(struct pa_slot *slot, char *base, const struct pa_data_segment *data)
{
    struct offer offer = {.size = 0};
    write_offer(&offer, false);
    int64_t result = pa_op_run(slot, base, data, NULL);
    if (offer.size > 0)
        write_offer(&offer, true);
    return result;
}

static int map_segment(struct self *self, uint32_t row, char **base)
{
    int error = map_data(self, row, base);
    if (error == -ENOMEM && pa_take_limits(self->rights->pid))
        error = map_data(self, row, base);
    return error;
}

static int64_t perform(struct self *self, struct pa_slot *slot)
{
    char *base = NULL, *out = NULL;
    const struct pa_data_segment *data = NULL;
    int error = 0;
    if (slot->arena_segment != PA_NO_SEGMENT) {
        error = map_segment(self, slot->arena_segment, &base);
        if (error)
            return error;
        data = &self->segment->header.data_segments[slot->arena_segment];
    }
    if (pa_op_has_out(slot))
        error = map_segment(self, slot->out_segment, &out);
    if (error)
        return error;
    return slot->call_flags & PA_RESERVE ? run_offering(slot, base, data)
                                         : pa_op_run(slot, base, data, out);
}

static void learn_duration(struct pa_header *header, uint16_t op, uint64_t ns)
{
    uint32_t old = atomic_load_explicit(&header->op_ns[op], memory_order_relaxed);
    uint32_t sample = ns > 100000000u ? 100000000u : (uint32_t)ns;
    uint32_t average = old ? old - old / 8 + sample / 8 : sample;
    atomic_store_explicit(&header->op_ns[op], average, memory_order_relaxed);
}

/* The spinner has found a request: from now on nobody looks at the lanes while it runs. */
static void stop_spinning(struct self *self)
{
    struct pa_header *header = &self->segment->header;
    self->spinning = false;
    atomic_store_explicit(&header->spinner, 0, memory_order_relaxed);
    /* Pairs with pa_wake_after_push(), which relies on a spinner that it sees. */
    atomic_thread_fence(memory_order_seq_cst);
    if (!pa_lanes_empty(self->segment))
        pa_monitor_ensure(self->segment);
}

/* One file is written by one at a time: it has a lock, for which a second worker would wait. */
static bool is_for_one(struct self *self, const struct pa_slot *slot)
{
    if (slot->op != PA_OP_WRITE)
        return false;
    bool again = slot->fd == self->written_fd;
    self->written_fd = slot->fd;
    return again;
}

/* Wake another worker if what waits is worth it; it will do the same: a chain.  In any case see to
 * it that the monitor watches: this worker's request may take for ever, and the program that pushed
 * the others saw no permit held and woke a worker for each, perhaps this one. */
static void wake_next(struct self *self, const struct pa_slot *slot, uint16_t op)
{
    bool for_one = is_for_one(self, slot);
    uint32_t depth = pa_lanes_depth(self->segment);
    if (depth == 0)
        return;
    pa_monitor_ensure(self->segment);
    uint64_t each =
        atomic_load_explicit(&self->segment->header.op_ns[op], memory_order_relaxed);
    if (!for_one && depth * each > WAKE_COST_NS && !pa_crowded(self->segment, each))
        pa_wake_one(self->segment);
}

/* Its permit is for somebody else while this worker waits for a disk.  The monitor would find out, but
 * a worker that is seldom asleep for long is looked at too late. */
static void step_aside(struct self *self, uint16_t op)
{
    struct pa_segment *segment = self->segment;
    if (!pa_op_waits(op) || atomic_load_explicit(&segment->header.op_ns[op],
                                                 memory_order_relaxed) < WAKE_COST_NS)
        return;
    pa_permits_return(segment, self->index);
    self->permit = PA_NO_PERMIT;
    /* Given back; look whether somebody needs it.  Pairs with the fence in pa_wake_after_push(). */
    atomic_thread_fence(memory_order_seq_cst);
    if (!pa_lanes_empty(segment) && !pa_wake_one(segment))
        pa_monitor_ensure(segment);
}

void pa_capabilities(pid_t pid, uint32_t effective[_LINUX_CAPABILITY_U32S_3])
{
    struct __user_cap_header_struct header = {_LINUX_CAPABILITY_VERSION_3, pid};
    struct __user_cap_data_struct data[_LINUX_CAPABILITY_U32S_3] = {{0}};
    syscall(SYS_capget, &header, data);
    for (int i = 0; i < _LINUX_CAPABILITY_U32S_3; i++)
        effective[i] = data[i].effective;
}

/* Whether the request was made by the user that we are.  The number in the header says so if the
 * program knows; that it has lost or taken rights behind its own back (identity.c) is seen by
 * looking.  One look is good for all that stood in the lanes before it. */
static bool has_rights_for(struct self *self, const struct pa_place *place)
{
    struct pa_header *header = &self->segment->header;
    const struct pa_rights *rights = self->rights;
    /* The slot's READY was written after the new number, and seen before that is read here. */
    if (!pa_has_identity(self->segment, rights->identity))
        return false;
    if (!rights->watched ||
        (place->known && self->checked[place->lane] - place->at - 1 < PA_NSLOTS))
        return true;
    uint32_t tails[PA_NLANES], effective[_LINUX_CAPABILITY_U32S_3];
    for (uint32_t lane = 0; lane < PA_NLANES; lane++)
        tails[lane] = atomic_load_explicit(&header->tails[lane], memory_order_acquire);
    pa_capabilities(rights->pid, effective);
    self->doubtful = memcmp(effective, rights->effective, sizeof effective) != 0;
    if (self->doubtful)
        atomic_store_explicit(&header->doubted, rights->identity + 1, memory_order_relaxed);
    else
        memcpy(self->checked, tails, sizeof tails);
    return !self->doubtful;
}

/* What was made after the program had become another user is not done with the old one's rights. */
static void refuse(struct self *self, struct pa_slot *slot, uint32_t entry)
{
    uint32_t generation = pa_entry_generation(entry);
    slot->call_flags |= PA_REFUSED;
    if (!pa_state_move(slot, pa_state_word(PA_EXECUTING, self->index + 1, generation), PA_DONE,
                       self->index + 1, generation, PA_WORKER))
        _exit(1);
    pa_result_push(self->segment, self->index, entry);
    pa_signal_program(self->segment, self->event_fd);
}

static void run_request(struct self *self, uint32_t entry, const struct pa_place *place)
{
    struct pa_segment *segment = self->segment;
    uint32_t generation = pa_entry_generation(entry);
    struct pa_slot *slot = &segment->slots[pa_entry_index(entry)];
    uint16_t op = slot->op < PA_NOPS ? slot->op : 0;

    pa_fault(segment, PA_FAULT_TAKEN);
    if (self->spinning)
        stop_spinning(self);
    if (!has_rights_for(self, place)) {
        refuse(self, slot, entry);
        return;
    }
    wake_next(self, slot, op);
    step_aside(self, op);
    self->taken++;
    atomic_store_explicit(&self->record->op, op, memory_order_relaxed);
    atomic_store_explicit(&self->record->activity, PA_RUNNING, memory_order_relaxed);
    atomic_store_explicit(&self->record->taken, self->taken, memory_order_release);

    follow_limits(self);
    bool timed = (self->taken & SAMPLE_MASK) == 1;
    uint64_t began = timed ? pa_now_ns() : 0;
    int64_t result = perform(self, slot);
    if (result < 0 && is_worth_another_try(self, slot, result))
        result = perform(self, slot);
    if (timed)
        learn_duration(&segment->header, op, pa_now_ns() - began);

    pa_fault(segment, PA_FAULT_CALLED);
    slot->result = result;
    /* It fails if the program has aborted the request.  Then this worker takes no other one: the
     * signal that is to end it may come at any time, or, if the program may not send it, never. */
    if (!pa_state_move(slot, pa_state_word(PA_EXECUTING, self->index + 1, generation), PA_DONE,
                       self->index + 1, generation, PA_WORKER))
        _exit(1);
    /* Not earlier: a dead worker that has a slot but is not running it has not begun the call. */
    atomic_store_explicit(&self->record->activity, PA_SEARCHING, memory_order_relaxed);
    pa_fault(segment, PA_FAULT_DONE);
    pa_result_push(segment, self->index, entry);
    pa_fault(segment, PA_FAULT_PUBLISHED);
    pa_signal_program(segment, self->event_fd);
    pa_fault(segment, PA_FAULT_SIGNALLED);
}

static bool has_permit(struct self *self)
{
    _Atomic uint32_t *permits = self->segment->header.permits;
    if (self->permit != PA_NO_PERMIT &&
        atomic_load_explicit(&permits[self->permit], memory_order_relaxed) == self->index + 1)
        return true;
    self->permit = pa_permit_take(self->segment, self->index);
    return self->permit != PA_NO_PERMIT;
}

/* Look at the lanes for a while before going to sleep.  One worker at a time does so. */
static bool spin(struct self *self)
{
    struct pa_segment *segment = self->segment;
    struct pa_header *header = &segment->header;
    if (self->spin.ns == 0)
        return false;
    if (!self->spinning) {
        uint32_t nobody = 0;
        if (!atomic_compare_exchange_strong_explicit(&header->spinner, &nobody, self->index + 1,
                                                     memory_order_acq_rel, memory_order_relaxed))
            return false;
        self->spinning = true;
    }
    uint64_t began = pa_now_ns(), spent = 0;
    bool found = false;
    do {
        for (int look = 0; look < 32 && !found; look++) {
            found = !pa_lanes_empty(segment);
            pa_relax(1);
        }
        spent = pa_now_ns() - began;
        if (!found && spent > PA_SPIN_ALONE_NS)
            pa_spin_yield();
    } while (!found && !told_to_leave(self) && spent < self->spin.ns);
    pa_spin_learn(&self->spin, found);
    if (found)
        return true;
    stop_spinning(self);
    return !pa_lanes_empty(segment);
}

/* True when this worker has been idle too long and enough others are. */
static bool idle_too_long(const struct self *self, uint64_t slept_ns)
{
    struct pa_header *header = &self->segment->header;
    uint64_t limit_ns =
        atomic_load_explicit(&header->idle_timeout_ms, memory_order_relaxed) * UINT64_C(1000000);
    return slept_ns >= limit_ns &&
           pa_sleepers_count(self->segment) >
               atomic_load_explicit(&header->max_idle, memory_order_relaxed);
}

/* False: the worker is to leave. */
static bool sleep_until_rung(struct self *self)
{
    struct pa_segment *segment = self->segment;
    struct pa_header *header = &segment->header;
    _Atomic uint32_t *bell = &self->record->bell;
    uint32_t rung = atomic_load_explicit(bell, memory_order_acquire);
    unmap_withdrawn(self);
    atomic_store_explicit(&self->record->activity, PA_SLEEPING, memory_order_relaxed);
    pa_sleeper_add(segment, self->index);
    pa_fault(segment, PA_FAULT_SLEEPING);
    pa_permits_return(segment, self->index);
    self->permit = PA_NO_PERMIT;
    /* Announced; look once more.  Pairs with the fence in pa_wake_after_push(). */
    atomic_thread_fence(memory_order_seq_cst);

    bool stay = true;
    uint64_t began = pa_now_ns();
    while (atomic_load_explicit(bell, memory_order_acquire) == rung) {
        if (told_to_leave(self)) {
            stay = false;
            break;
        }
        if (!pa_lanes_empty(segment) && has_permit(self))
            break;
        bool surplus = pa_sleepers_count(segment) >
                       atomic_load_explicit(&header->max_idle, memory_order_relaxed);
        uint64_t limit_ns =
            atomic_load_explicit(&header->idle_timeout_ms, memory_order_relaxed) * UINT64_C(1000000);
        pa_futex_wait(bell, rung, surplus ? limit_ns + 1 : 0);
        if (surplus && idle_too_long(self, pa_now_ns() - began) &&
            atomic_load_explicit(bell, memory_order_acquire) == rung) {
            stay = false;
            break;
        }
    }
    pa_sleeper_remove(segment, self->index);
    atomic_store_explicit(&self->record->activity, PA_SEARCHING, memory_order_relaxed);
    /* Whoever rang has handed over a permit, unless it was taken away again meanwhile. */
    self->permit = pa_permit_held(segment, self->index);
    pa_spin_slept(&self->spin, began,
                  atomic_load_explicit(&self->record->rung_ns, memory_order_relaxed));
    return stay;
}

static void leave(struct self *self)
{
    struct pa_segment *segment = self->segment;
    atomic_store_explicit(&self->record->life, PA_RETIRED, memory_order_release);
    if (self->spinning)
        stop_spinning(self);
    pa_permits_return(segment, self->index);
    /* A bell that rang for this worker in the last moment is passed on. */
    atomic_thread_fence(memory_order_seq_cst);
    if (!pa_lanes_empty(segment) && !pa_wake_one(segment))
        pa_monitor_ring(segment);
}

void pa_worker_loop(struct pa_segment *segment, const struct pa_setup *setup, uint32_t worker,
                    const struct pa_rights *rights, uint32_t limits)
{
    struct self self = {
        .segment = segment,
        .record = &segment->workers[worker],
        .index = worker,
        .rights = rights,
        .limits = limits,
        .event_fd = setup->event_fd,
        .written_fd = -1,
        .permit = pa_permit_held(segment, worker),
        .taken = atomic_load_explicit(&segment->workers[worker].taken, memory_order_relaxed),
        .spin = {.limit_ns = setup->spin_limit_ns, .ns = setup->spin_limit_ns},
    };
    while (!told_to_leave(&self)) {
        uint32_t entry;
        struct pa_place place;
        unmap_withdrawn(&self); /* here too: under load it never sleeps */
        if (has_permit(&self)) {
            if (pa_lane_claim(segment, worker, &entry, &place)) {
                run_request(&self, entry, &place);
                continue;
            }
            if (spin(&self))
                continue;
        } else if (self.spinning) {
            stop_spinning(&self);
        }
        if (!sleep_until_rung(&self))
            break;
    }
    leave(&self);
}
