# aio_write at the offsets on standard input: write.pl THREADS DEPTH SIZE FILE
use strict;
use warnings;
use FindBin;
use lib $FindBin::Bin;
use IO::AIO;
use Timed;

my ($threads, $depth, $size, $path) = @ARGV;
Timed::threads $threads;
my $file = Timed::open_file $path, "+<:raw";
my $data = "x" x $size;

Timed::sample(
    sub {
        my ($offsets) = @_;
        my $next = 0;
        my $done;
        $done = sub {
            @_ and $_[0] != $size and die "write: $!\n";
            aio_write $file, $offsets->[$next++], $size, $data, 0, $done if $next < @$offsets;
        };
        $done->() for 1 .. $depth;
        Timed::finish;
    },
    Timed::items
);
