#!/usr/bin/perl
# A co2 satellite: prints what others relay, relays each line that it reads.
# Usage: satellite.pl RELAY PORT, for example: satellite.pl http://127.0.0.1:2003 7001
# Debian: librpc-xml-perl
use strict;
use warnings;
use open qw(:std :utf8);
use Fcntl;
use RPC::XML::Client;
use RPC::XML::Server;

my ($url, $port) = @ARGV;
$RPC::XML::ENCODING = 'utf-8';
$| = 1;
sub password { # the same after a restart, when the relay may still call with the one of before
    sysopen my $kept, "notify_pass.$port", O_RDWR | O_CREAT, 0600 or die "notify_pass.$port: $!";
    my $old = <$kept>;
    return $old if $old;
    open my $random, '<:raw', '/dev/urandom' or die "no /dev/urandom: $!";
    read $random, my $bytes, 16;
    my $new = unpack('H*', $bytes);
    print $kept $new;
    return $new;
}
my ($password, $last) = (password(), 0); # a repeat carries a msg_id that was there before

my $server = RPC::XML::Server->new(port => $port);
ref $server or die $server;
$server->add_procedure({ name => 'ping', signature => ['string'], code => sub { 'pong' } });
$server->add_procedure({ name => 'notify', signature => ['string struct'], code => sub {
    my $message = shift;
    die "wrong password\n" if $message->{notify_pass} ne $password;
    return 'OK' if $message->{msg_id} <= $last;
    $last = $message->{msg_id};
    my $data = RPC::XML::smart_encode($message->{data});
    print "$message->{host_id}: ", $data->type eq 'string' ? $data->value : $data->as_string, "\n";
    return 'OK';
} });

my $child = fork // die "cannot fork: $!";
if (!$child) { $server->server_loop(signal => 'TERM'); exit }

my $relay = RPC::XML::Client->new($url);
my $host_id = $relay->simple_request('relay.register',
    { port => RPC::XML::int->new($port), plugins => [], nick => 'perl', notify_pass => $password })
    // die "register: $RPC::XML::ERROR\n";
while (my $line = <STDIN>) {
    chomp $line;
    $relay->simple_request('relay.relay', { host_id => $host_id, data => RPC::XML::string->new($line) });
}
$relay->simple_request('relay.deregister', { host_id => $host_id });
kill 'TERM', $child;
