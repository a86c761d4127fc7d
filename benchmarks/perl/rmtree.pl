# aio_rmtree: rmtree.pl THREADS WARM_UP DIRECTORY
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
        my ($path) = @_;
        aio_rmtree $path, sub { $_[0] and die "$path: $!\n" };
        Timed::finish;
        return 0;
    },
    [$warm_up],
    [$top]
);
