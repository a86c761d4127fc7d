# One aio_read at a time, at the offsets on standard input: latency.pl THREADS FILE SIZE
use strict;
use warnings;
use FindBin;
use lib $FindBin::Bin;
use IO::AIO;
use POSIX qw(ceil);
use Time::HiRes qw(clock_gettime CLOCK_MONOTONIC);
use Timed;

my ($threads, $path, $size) = @ARGV;
Timed::threads $threads;
my $file = Timed::open_file $path;
my ($data, $place) = Timed::buffer $size;
my @microseconds;

sub percentile {
    my ($percent) = @_;
    my @ordered = sort { $a <=> $b } @microseconds;
    return $ordered[ ceil(@ordered * $percent / 100) - 1 ];
}

Timed::sample(
    sub {
        my ($offsets) = @_;
        @microseconds = ();
        for my $offset (@$offsets) {
            my $start = clock_gettime(CLOCK_MONOTONIC);
            aio_read $file, $offset, $size, $$data, $place,
                sub { $_[0] == $size or die "read: $!\n" };
            Timed::finish;
            push @microseconds, (clock_gettime(CLOCK_MONOTONIC) - $start) * 1e6;
        }
    },
    Timed::items,
    sub { sprintf ", \"value\": %.3f, \"extra\": {\"p99\": %.3f}", percentile(50), percentile(99) }
);
