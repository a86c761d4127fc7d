# aio_stat of the paths on standard input: stat.pl THREADS DEPTH
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
        my ($paths) = @_;
        my $next = 0;
        my $submit = sub { };
        my $done = sub {
            $_[0] and die "stat: $!\n";
            $submit->();
        };
        $submit = sub { aio_stat $paths->[$next++], $done if $next < @$paths };
        $submit->() for 1 .. $depth;
        Timed::finish;
    },
    Timed::items
);
