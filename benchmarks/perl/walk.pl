# aio_scandir of a directory, and of all below: walk.pl THREADS WARM_UP DIRECTORY
use strict;
use warnings;
use FindBin;
use lib $FindBin::Bin;
use IO::AIO;
use Timed;

my ($threads, $warm_up, $top) = @ARGV;
Timed::threads $threads;

Timed::once(
    sub {
        my $entries = 0;
        my $scan;
        $scan = sub {
            my ($path) = @_;
            aio_scandir $path, 0, sub {
                my ($dirs, $others) = @_;
                $dirs or die "$path: $!\n";
                $entries += @$dirs + @$others;
                $scan->("$path/$_") for @$dirs;
            };
        };
        $scan->(@_);
        Timed::finish;
        return $entries;
    },
    [$warm_up],
    [$top]
);
