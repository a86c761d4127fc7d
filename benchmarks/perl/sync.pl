# aio_write at the offsets on standard input, and aio_fdatasync after each: sync.pl THREADS SIZE FILE...
use strict;
use warnings;
use FindBin;
use lib $FindBin::Bin;
use IO::AIO;
use Timed;

my ($threads, $size, @paths) = @ARGV;
Timed::threads $threads;
my @files = map { Timed::open_file $_, "+<:raw" } @paths;
my $data  = "x" x $size;

Timed::sample(
    sub {
        my ($offsets) = @_;
        my $next = 0;
        for my $file (@files) {
            my $submit;
            my $written = sub {
                $_[0] == $size or die "write: $!\n";
                aio_fdatasync $file, sub { $_[0] and die "fdatasync: $!\n"; $submit->() };
            };
            $submit = sub {
                aio_write $file, $offsets->[$next++], $size, $data, 0, $written
                    if $next < @$offsets;
            };
            $submit->();
        }
        Timed::finish;
    },
    Timed::items
);
