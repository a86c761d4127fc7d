# aio_slurp of the paths on standard input: load.pl THREADS DEPTH LENGTH, 0 for a length that it is to find out
use strict;
use warnings;
use FindBin;
use lib $FindBin::Bin;
use IO::AIO;
use Timed;

my ($threads, $depth, $length) = @ARGV;
Timed::threads $threads;

Timed::sample(
    sub {
        my ($paths) = @_;
        my $next = 0;
        my $submit;
        $submit = sub {
            return unless $next < @$paths;
            my $data;
            aio_slurp $paths->[$next++], 0, $length, $data, sub {
                $_[0] > 0 && length $data == $_[0] or die "slurp: $!\n";
                $submit->();
            };
        };
        $submit->() for 1 .. $depth;
        Timed::finish;
    },
    Timed::items
);
