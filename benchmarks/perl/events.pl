#!/usr/bin/perl
# The program of benchmarks/events/program.py with IO::AIO: the same commands, the same answers.
use strict;
use warnings;
use Errno;
use Fcntl;
use IO::AIO;
use JSON::PP;
use Time::HiRes qw(time sleep);

use constant { WORKERS => 4, BLOCK => 16, WRITTEN => "written" };

my (%calls, %ends, $held);
my $input = "";
$| = 1;
IO::AIO::max_parallel WORKERS;

sub word {
    return "done" if $_[0] >= 0;
    my ($name) = grep { $!{$_} } keys %!;
    return "OSError " . ($name // $! + 0);
}

# A call as soon as it is begun is [request, word, value]; the word is there when it has ended.
sub begin {
    my ($operation, $path, $offset) = @_;
    my $call = [];
    my $data = "";
    if ($operation eq "write") {
        sysopen(my $file, $path, O_WRONLY | O_CREAT, 0600) or die;
        $call->[0] = aio_write $file, 0, length WRITTEN, WRITTEN, 0, sub { $call->[1] = word(@_) };
        $call->[3] = $file;
        return $call;
    }
    sysopen(my $file, $path, O_RDONLY) or die;
    my @what = $operation eq "read" ? (undef, 1) : ($offset, BLOCK);
    $call->[0] = aio_read $file, $what[0], $what[1], $data, 0, sub {
        $call->[1] = word(@_);
        $call->[2] = $data;
    };
    $call->[3] = $file;
    return $call;
}

# Runs callbacks until a condition holds, or so many seconds have passed.
sub until_true {
    my ($condition, $seconds) = @_;
    my $end = time + $seconds;
    while (!$condition->() && (my $rest = $end - time) > 0) {
        IO::AIO::poll_cb;
        vec(my $set = "", IO::AIO::poll_fileno, 1) = 1;
        select $set, undef, undef, $rest < 0.01 ? $rest : 0.01 unless $condition->();
    }
    return $condition->();
}

sub ended {
    my ($call, $seconds) = @_;
    my $limit = $call->[4];
    if (defined $limit) {    # IO::AIO has none: the caller gives up
        until_true(sub { defined $call->[1] }, $limit - time);
        if (!defined $call->[1]) {
            $call->[0]->cancel;
            return { word => "TimeoutError" };
        }
    }
    until_true(sub { defined $call->[1] }, $seconds) or return { word => "hangs" };
    return { word => $call->[1], value => $call->[2] };
}

sub blocks {
    my ($path, $seconds) = @_;
    open my $file, "<:raw", $path or die;
    my $content = do { local $/; <$file> };
    my @calls = map { begin("block", $path, $_ * BLOCK) } 0 .. length($content) / BLOCK - 1;
    my $end = time + $seconds;
    for my $n (0 .. $#calls) {
        my $answer = ended($calls[$n], $end - time);
        return $answer->{word} if $answer->{word} ne "done";
        return "wrong bytes" if $answer->{value} ne substr $content, $n * BLOCK, BLOCK;
    }
    return "right";
}

my %commands = (
    begin => sub {
        my ($command) = @_;
        my $call = begin(@{ $command->{call} });
        $call->[4] = time + $command->{limit} if defined $command->{limit};
        $calls{ $command->{number} } = $call;
        return {};
    },
    wait => sub { ended($calls{ $_[0]{number} }, $_[0]{seconds}) },
    blocks => sub { { word => blocks($_[0]{path}, $_[0]{seconds}) } },
    fork => sub {
        my ($command) = @_;
        my @what = ($command->{path}, $command->{seconds});
        pipe my $reader, my $writer or die;
        my $pid = fork // die;
        if (!$pid) {
            IO::AIO::reinit;    # as the manual asks for
            syswrite $writer, blocks(@what);
            kill KILL => $$;
        }
        close $writer;
        my $here = blocks(@what);
        vec(my $set = "", fileno $reader, 1) = 1;
        my $there = "hangs";
        sysread $reader, $there, 1000 if select $set, undef, undef, $what[1] + 1;
        kill KILL => $pid;
        waitpid $pid, 0;
        return { child => $there, parent => $here };
    },
    hold => sub {
        my ($command) = @_;
        undef $held;
        $held = "x" x $command->{size} if $command->{size};
        return {};
    },
);

while (1) {
    my $line = <STDIN> // last;
    my $command = decode_json $line;
    last if $command->{do} eq "end";
    print encode_json($commands{ $command->{do} }->($command)), "\n";
}
