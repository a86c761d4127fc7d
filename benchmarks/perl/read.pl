# aio_read at the offsets on standard input: read.pl THREADS DEPTH FILE SIZE
use strict;
use warnings;
use FindBin;
use lib $FindBin::Bin;
use IO::AIO;
use Timed;

my ($threads, $depth, $path, $size) = @ARGV;
Timed::threads $threads;
my $file    = Timed::open_file $path;
my @buffers = map { [Timed::buffer $size] } 1 .. $depth;    # reused: each lane has its own

Timed::sample(
    sub {
        my ($offsets) = @_;
        my $next = 0;
        for my $lane (0 .. $depth - 1) {
            my ($data, $place) = @{ $buffers[$lane] };
            my $done;
            $done = sub {
                @_ and $_[0] != $size and die "read: $_[0]: $!\n";
                aio_read $file, $offsets->[$next++], $size, $$data, $place, $done
                    if $next < @$offsets;
            };
            $done->();
        }
        Timed::finish;
    },
    Timed::items
);
