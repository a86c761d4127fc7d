# What the scripts share: the number of threads, the main loop, warm-up, clocks, and the sample as JSON.
package Timed;
use strict;
use warnings;
use IO::AIO;
use Time::HiRes qw(clock_gettime CLOCK_MONOTONIC CLOCK_PROCESS_CPUTIME_ID);

use constant WARM_UP_SHARE => 10;    # as in measure.py
use constant PAGE          => 4096;

sub threads {
    my ($threads) = @_;
    IO::AIO::min_parallel $threads;
    IO::AIO::max_parallel $threads;
}

# The main loop as the manual of IO::AIO writes it.
sub finish {
    IO::AIO::poll_wait, IO::AIO::poll_cb while IO::AIO::nreqs;
}

# Runs a tenth to warm up, then everything.
sub sample {
    my ($run, $items, $more) = @_;
    my $warm_up = int(@$items / WARM_UP_SHARE) || 1;
    $run->([@$items[0 .. $warm_up - 1]]);
    measure(sub { $run->($items); return scalar @$items }, $more);
}

# Runs it with some arguments to warm up, then with others; it returns how much it did.
sub once {
    my ($run, $warm_up, $measured) = @_;
    $run->(@$warm_up);
    measure(sub { $run->(@$measured) });
}

# The process's CPU clock covers its threads.
sub measure {
    my ($run, $more) = @_;
    my @before = (clock_gettime(CLOCK_PROCESS_CPUTIME_ID), clock_gettime(CLOCK_MONOTONIC));
    my $ops    = $run->();
    my @after  = (clock_gettime(CLOCK_MONOTONIC), clock_gettime(CLOCK_PROCESS_CPUTIME_ID));
    printf "{\"ops\": %d, \"seconds\": %.9f, \"cpu\": %.9f%s}\n",
        $ops, $after[0] - $before[1], $after[1] - $before[0], $more ? $more->() : "";
}

sub open_file {
    my ($path, $mode) = @_;
    open my $file, $mode // "<:raw", $path or die "$path: $!\n";
    return $file;
}

# Memory to read into, and the offset in it at which a page begins, as those of everybody do. It is
# written to, so that it is no copy yet to be made.
sub buffer {
    my ($size) = @_;
    my $data = "\0" x ($size + PAGE);
    substr $data, 0, 1, "\0";
    return (\$data, -unpack("J", pack "p", $data) % PAGE);
}

# Numbers and paths come on standard input, one a line: both sides work through the same list.
sub items {
    chomp(my @items = <STDIN>);
    return \@items;
}

1;
