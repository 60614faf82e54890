#!/usr/bin/perl
# A peer of the interop tests: Perl's RPC::XML.
#
# peer_rpcxml.pl client URL PORT          calls the relay with every type
# peer_rpcxml.pl satellite URL PORT NICK  is a satellite until it is killed
use strict;
use warnings;
use utf8;
use Encode qw(encode);
use RPC::XML;
use RPC::XML::Client;
use RPC::XML::Server;

$| = 1;
binmode STDOUT, ':utf8';
my $TEXT = "Grüße, 世界 & <co2>";
my ($mode, $url, $port, $nick) = @ARGV;
my $relay = RPC::XML::Client->new($url);

# call returns the answer as an RPC::XML object.
sub call {
    my $answer = $relay->send_request(@_);
    ref $answer or die "FAIL $_[0]: $answer\n";
    return $answer;
}

sub check {
    my ($name, $got, $want) = @_;
    if (!defined $got || $got ne $want) {
        print "FAIL $name got '", $got // 'undef', "', want '$want'\n";
        exit 1;
    }
    print "ok $name\n";
}

sub client {
    check('ping', call('ping')->value, 'pong');
    # RPC::XML takes and gives characters, and always writes UTF-8, even when
    # it declares us-ascii, as it does by default.
    check('text declared us-ascii', call('test', $TEXT)->value, $TEXT);
    local $RPC::XML::ENCODING = 'utf-8';
    check('text', call('test', $TEXT)->value, $TEXT);
    check('space', call('test', RPC::XML::string->new("  a\tb\n "))->value, "  a\tb\n ");
    check('empty', call('test', RPC::XML::string->new(''))->value, '');
    for my $n (42, -2147483648, 2147483647) {
        my $v = call('test', RPC::XML::int->new($n));
        check('int', $v->type . $v->value, "int$n");
    }
    my $big = call('test', RPC::XML::i8->new('9007199254740993'));
    check('i8', $big->type . $big->value, 'i89007199254740993');
    check('double', call('test', RPC::XML::double->new(-0.125))->value, -0.125);
    check('boolean', call('test', RPC::XML::boolean->new('true'))->value, 1);
    check('dateTime', call('test', RPC::XML::datetime_iso8601->new('20030701T12:00:00'))->value, '20030701T12:00:00');
    my $raw = join '', map { chr } 0 .. 255;
    check('base64', call('test', RPC::XML::base64->new($raw))->value, $raw);
    my $array = call('test', [1, ['two', []]])->value;
    check('array', "$array->[0] $array->[1][0] " . @{ $array->[1][1] }, '1 two 0');
    my $struct = call('test', { a => { b => [1] }, 'c&d' => {} })->value;
    check('struct', "$struct->{a}{b}[0] " . join(',', sort keys %$struct), '1 a,c&d');
    { local $RPC::XML::ALLOW_NIL = 1; check('nil', call('test', RPC::XML::nil->new)->type, 'nil'); }
    check('listMethods', scalar(grep { $_ eq 'relay.register' } @{ call('system.listMethods')->value }), 1);
    my $fault = call('no.such.method');
    check('no method', $fault->is_fault && $fault->code, -32601);
    $fault = call('relay.relay', { host_id => '127.0.0.1:1', data => 1 });
    check('not registered', $fault->code . substr($fault->string, 0, 26), '1registry.Co2RegistryError:');
    my $host = call('relay.register', { port => RPC::XML::int->new($port), plugins => [], nick => 'perl', notify_pass => 'x' })->value;
    check('register', call('relay.get_satellite_props', { host_id => $host })->value->{nick}, 'perl');
    check('deregister', call('relay.deregister', { host_id => $host })->value, 'OK');
    print "done\n";
}

sub flat { my $v = shift; return ref $v ? join(',', map { flat($_) } @$v) : $v }

sub satellite {
    local $RPC::XML::ENCODING = 'utf-8';
    my $server = RPC::XML::Server->new(host => '127.0.0.1', port => $port, no_default => 1);
    ref $server or die "FAIL $server\n";
    my $host;
    $server->add_procedure({ name => 'ping', signature => ['string'], code => sub { 'pong' } });
    $server->add_procedure({
        name => 'notify', signature => ['string struct'],
        code => sub {
            my $m = shift;
            my $d = $m->{data};
            return 'OK' if ref $d ne 'HASH' || ($d->{for} // '') ne $nick;
            my $text = $d->{text};
            print join(' ', 'notify', "sender=$m->{host_id}",
                'pass=' . ($m->{notify_pass} eq "pw-$nick" ? 'True' : 'False'), 'id=' . ($m->{msg_id} =~ /^\d+$/ ? 'True' : 'False'),
                'text=' . unpack('H*', encode('UTF-8', $text)), "n=$d->{n}", "neg=$d->{neg}", "d=$d->{d}", "b=$d->{b}",
                'bin=' . unpack('H*', $d->{bin}), "when=$d->{when}", 'list=' . flat($d->{list}), "empty=$d->{empty}",
                "sub=$d->{sub}{name}/$d->{sub}{value}"), "\n";
            call('relay.relay', { host_id => $host,
                data => { for => 'tester', echo => $text, nick => $nick } });
            return 'OK';
        } });
    $host = call('relay.register', { port => RPC::XML::int->new($port), plugins => ['a'], nick => $nick, notify_pass => "pw-$nick" })->value;
    print "registered $host\n";
    $server->server_loop;
}

$mode eq 'client' ? client() : satellite();
