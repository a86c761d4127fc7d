# A no-op and a callback for each: noop.pl THREADS DEPTH, as often as there are lines of input
use strict;
use warnings;
use FindBin;
use lib $FindBin::Bin;
use IO::AIO;
use Timed;

my ($threads, $depth) = @ARGV;
Timed::threads $threads;

Timed::sample(
    sub {
        my $left = @{ $_[0] };
        my $done;
        $done = sub { aio_nop $done if $left-- > 0 };
        $done->() for 1 .. $depth;
        Timed::finish;
    },
    Timed::items
);
