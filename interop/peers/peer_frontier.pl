#!/usr/bin/perl
# A peer of the interop tests: Perl's Frontier::RPC, of 1998.
#
# peer_frontier.pl client URL PORT          calls the relay with every type
# peer_frontier.pl satellite URL PORT NICK  is a satellite until it is killed
use strict;
use warnings;
use utf8;
use Encode qw(decode encode is_utf8);
use Frontier::Client;
use Frontier::Daemon;

$| = 1;
binmode STDOUT, ':utf8';
my $TEXT = "Grüße, 世界 & <co2>";
my ($mode, $url, $port, $nick) = @ARGV;
my $relay = Frontier::Client->new(url => $url);

sub check {
    my ($name, $got, $want) = @_;
    if (!defined $got || $got ne $want) {
        print "FAIL $name got '", $got // 'undef', "', want '$want'\n";
        exit 1;
    }
    print "ok $name\n";
}

sub text { my $s = shift; return is_utf8($s) ? $s : decode('UTF-8', $s) }

# fault calls and returns the fault's text: Frontier dies of a fault.
sub fault {
    eval { $relay->call(@_) };
    return $@;
}

sub client {
    check('ping', $relay->call('ping'), 'pong');
    check('text', text($relay->call('test', $relay->string(encode('UTF-8', $TEXT)))), $TEXT);
    my $latin = Frontier::Client->new(url => $url, encoding => 'ISO-8859-1');
    check('latin-1', text($latin->call('test', $latin->string(encode('iso-8859-1', 'Grüße')))), 'Grüße');
    check('space', $relay->call('test', $relay->string("  a\tb\n ")), "  a\tb\n ");
    check('empty', $relay->call('test', $relay->string('')), '');
    for my $n (42, -2147483648, 2147483647) { check('int', $relay->call('test', $relay->int($n)), $n) }
    check('double', $relay->call('test', $relay->double('-0.125')), -0.125);
    check('boolean', $relay->call('test', $relay->boolean(1))->value, 1);
    check('dateTime', $relay->call('test', $relay->date_time('20030701T12:00:00'))->value, '20030701T12:00:00');
    my $raw = join '', map { chr } 0 .. 255;
    require MIME::Base64;
    my $got = $relay->call('test', $relay->base64(MIME::Base64::encode_base64($raw)));
    check('base64', MIME::Base64::decode_base64($got->value), $raw);
    my $array = $relay->call('test', [1, ['two', []]]);
    check('array', "$array->[0] $array->[1][0] " . @{ $array->[1][1] }, '1 two 0');
    my $struct = $relay->call('test', { a => { b => [1] }, c => {} });
    check('struct', "$struct->{a}{b}[0] " . join(',', sort keys %$struct), '1 a,c');
    check('no method', (fault('no.such.method') =~ /-32601/) ? 1 : 0, 1);
    check('not registered', (fault('relay.relay', { host_id => '127.0.0.1:1', data => 1 }) =~ /registry\.Co2RegistryError:/) ? 1 : 0, 1);
    my $host = $relay->call('relay.register', { port => $relay->int($port), plugins => [], nick => 'frontier', notify_pass => 'x' });
    check('register', $relay->call('relay.get_satellite_props', { host_id => $host })->{nick}, 'frontier');
    check('deregister', $relay->call('relay.deregister', { host_id => $host }), 'OK');
    print "done\n";
}

sub flat { my $v = shift; return ref $v ? join(',', map { flat($_) } @$v) : $v }

sub plain { my $v = shift; return ref $v ? $v->value : $v }

my $host;

sub notify {
    my $m = shift;
    my $d = $m->{data};
    return 'OK' if ref $d ne 'HASH' || ($d->{for} // '') ne $nick;
    my $text = text($d->{text});
    require MIME::Base64;
    print join(' ', 'notify', "sender=$m->{host_id}",
        'pass=' . ($m->{notify_pass} eq "pw-$nick" ? 'True' : 'False'), 'id=' . ($m->{msg_id} =~ /^\d+$/ ? 'True' : 'False'),
        'text=' . unpack('H*', encode('UTF-8', $text)), "n=$d->{n}", "neg=$d->{neg}", "d=$d->{d}", 'b=' . plain($d->{b}),
        'bin=' . unpack('H*', MIME::Base64::decode_base64(plain($d->{bin}))), 'when=' . plain($d->{when}), 'list=' . flat($d->{list}),
        "empty=$d->{empty}", "sub=$d->{sub}{name}/$d->{sub}{value}"), "\n";
    $relay->call('relay.relay', { host_id => $host,
        data => { for => 'tester', echo => $relay->string(encode('UTF-8', $text)), nick => $nick } });
    return 'OK';
}

# Frontier::Daemon serves in its constructor; so the registration comes first,
# and the relay's first calls wait in the listening socket's queue or fail and
# come again.
sub satellite {
    $host = $relay->call('relay.register', { port => $relay->int($port), plugins => ['a'], nick => $nick, notify_pass => "pw-$nick" });
    print "registered $host\n";
    Frontier::Daemon->new(LocalAddr => '127.0.0.1', LocalPort => $port, ReuseAddr => 1,
        methods => { ping => sub { 'pong' }, notify => \&notify }) or die "FAIL cannot listen: $!\n";
}

$mode eq 'client' ? client() : satellite();
