# aio_scandir of a directory and all below, aio_lstat of everything: scan.pl THREADS WARM_UP DIRECTORY
use strict;
use warnings;
use FindBin;
use lib $FindBin::Bin;
use IO::AIO;
use Timed;

use constant DEPTH => 256;

my ($threads, $warm_up, $top) = @ARGV;
Timed::threads $threads;

Timed::once(
    sub {
        my ($entries, $size, @paths) = (0, 0);
        my $seen = sub {
            $_[0] and die "lstat: $!\n";
            $entries++;
            $size += -s _;
        };
        my $scan;
        $scan = sub {
            my ($path) = @_;
            aio_scandir $path, 0, sub {
                my ($dirs, $others) = @_;
                $dirs or die "$path: $!\n";
                push @paths, map { "$path/$_" } @$dirs, @$others;
                $scan->("$path/$_") for @$dirs;
            };
        };
        $scan->(@_);
        while (IO::AIO::nreqs) {
            IO::AIO::poll_wait;
            IO::AIO::poll_cb;
            aio_lstat pop @paths, $seen while @paths and IO::AIO::nreqs < DEPTH;
        }
        return $entries;
    },
    [$warm_up],
    [$top]
);
