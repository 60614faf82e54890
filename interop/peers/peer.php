<?php
// A peer of the interop tests: PHP's xmlrpc extension, which makes and reads
// documents and leaves HTTP to others.
//
// php peer.php client URL PORT               calls the relay with every type
// php peer.php register URL PORT NICK        registers, prints the host id
// PEER_URL=… PEER_NICK=… php -S 127.0.0.1:PORT peer.php   serves notify and ping

const TEXT = "Grüße, 世界 & <co2>";
const OPTIONS = ['encoding' => 'utf-8', 'escaping' => 'markup'];

function call($url, $method, ...$params) {
    $doc = xmlrpc_encode_request($method, $params, OPTIONS);
    $answer = file_get_contents($url, false, stream_context_create(['http' => [
        'method' => 'POST', 'header' => "Content-Type: text/xml", 'content' => $doc, 'timeout' => 20]]));
    if ($answer === false) { echo "FAIL $method: no answer\n"; exit(1); }
    return xmlrpc_decode($answer, 'utf-8');
}

function typed($value, $type) { xmlrpc_set_type($value, $type); return $value; }

function check($name, $got, $want) {
    if ($got !== $want) { echo "FAIL $name got ", var_export($got, true), ", want ", var_export($want, true), "\n"; exit(1); }
    echo "ok $name\n";
}

function fault($name, $got, $code, $text) {
    check($name, is_array($got) && xmlrpc_is_fault($got) ? [$got['faultCode'], str_contains($got['faultString'], $text)] : $got, [$code, true]);
}

function client($url, $port) {
    check('ping', call($url, 'ping'), 'pong');
    check('text', call($url, 'test', TEXT), TEXT);
    check('space', call($url, 'test', "  a\tb\n "), "  a\tb\n ");
    check('empty', call($url, 'test', ''), '');
    foreach ([42, -2147483648, 2147483647] as $n) check('int', call($url, 'test', $n), $n);
    check('double', call($url, 'test', -0.125), -0.125);
    check('boolean', call($url, 'test', [true, false]), [true, false]);
    $when = call($url, 'test', typed('20030701T12:00:00', 'datetime'));
    check('dateTime', [xmlrpc_get_type($when), $when->scalar], ['datetime', '20030701T12:00:00']);
    $raw = implode('', array_map('chr', range(0, 255)));
    check('base64', call($url, 'test', typed($raw, 'base64'))->scalar, $raw);
    check('array', call($url, 'test', [1, ['two', []]]), [1, ['two', []]]);
    check('struct', call($url, 'test', ['a' => ['b' => [1]], 'c&d' => 'x']), ['a' => ['b' => [1]], 'c&d' => 'x']);
    check('listMethods', in_array('relay.register', call($url, 'system.listMethods')), true);
    fault('no method', call($url, 'no.such.method'), -32601, 'no.such.method');
    fault('not registered', call($url, 'relay.relay', ['host_id' => '127.0.0.1:1', 'data' => 1]), 1, 'registry.Co2RegistryError:');
    $host = call($url, 'relay.register', ['port' => (int) $port, 'plugins' => [], 'nick' => TEXT, 'notify_pass' => 'x']);
    check('register', call($url, 'relay.get_satellite_props', ['host_id' => $host])['nick'], TEXT);
    check('deregister', call($url, 'relay.deregister', ['host_id' => $host]), 'OK');
    echo "done\n";
}

function flat($v) { return is_array($v) ? implode(',', array_map('flat', $v)) : "$v"; }

function say($line) { fwrite(fopen('php://stderr', 'w'), $line . "\n"); }

function notify($method, $params) {
    $m = $params[0];
    $d = $m['data'];
    $nick = getenv('PEER_NICK');
    if (!is_array($d) || ($d['for'] ?? '') !== $nick) return 'OK';
    say(implode(' ', ['notify', "sender=$m[host_id]", 'pass=' . ($m['notify_pass'] === "pw-$nick" ? 'True' : 'False'),
        'id=' . (ctype_digit($m['msg_id']) ? 'True' : 'False'), 'text=' . bin2hex($d['text']), "n=$d[n]", "neg=$d[neg]", "d=$d[d]",
        'b=' . (int) $d['b'], 'bin=' . bin2hex($d['bin']->scalar), 'when=' . $d['when']->scalar, 'list=' . flat($d['list']),
        "empty=$d[empty]", "sub={$d['sub']['name']}/{$d['sub']['value']}"]));
    call(getenv('PEER_URL'), 'relay.relay', ['host_id' => '127.0.0.1:' . $_SERVER['SERVER_PORT'],
        'data' => ['for' => 'tester', 'echo' => $d['text'], 'nick' => $nick]]);
    return 'OK';
}

if (PHP_SAPI === 'cli-server') {
    $server = xmlrpc_server_create();
    xmlrpc_server_register_method($server, 'notify', 'notify');
    xmlrpc_server_register_method($server, 'ping', function () { return 'pong'; });
    header('Content-Type: text/xml');
    // PHP reads the call as Latin-1 unless told; it answers in ASCII.
    echo xmlrpc_server_call_method($server, file_get_contents('php://input'), null, ['encoding' => 'utf-8']);
} elseif ($argv[1] === 'client') {
    client($argv[2], $argv[3]);
} else {
    [, , $url, $port, $nick] = $argv;
    echo 'registered ', call($url, 'relay.register', ['port' => (int) $port, 'plugins' => ['a'], 'nick' => $nick, 'notify_pass' => "pw-$nick"]), "\n";
}
