# A peer of the interop tests: Tcl's xmlrpc 0.3.
#
# peer.tcl client URL PORT          calls the relay with every type
# peer.tcl satellite URL PORT NICK  is a satellite until it is killed
#
# The package counts Content-Length in characters: with any other encoding than
# a single byte's, it waits for ever for the rest of a text that is not ASCII.
# So its sockets speak Latin-1, and the texts are converted here.
encoding system iso8859-1
package require xmlrpc
fconfigure stdout -buffering line -encoding utf-8

set TEXT "Gr\u00fc\u00dfe, \u4e16\u754c & <co2>"
lassign $argv mode url port nick

# text converts characters to what the package sends, and escapes as it does not.
proc text {s} { string map {& &amp; < &lt; > &gt;} [encoding convertto utf-8 $s] }
proc untext {s} { encoding convertfrom utf-8 [string map {&lt; < &gt; > &amp; &} $s] }

# call returns the answer's value without the (empty) remainder before it.
proc call {method args} {
    global url
    lindex [xmlrpc::call $url RPC2 $method $args] 1
}

proc check {name got want} {
    if {$got ne $want} { puts "FAIL $name got '$got', want '$want'"; exit 1 }
    puts "ok $name"
}

proc member {name alist} { lindex [xmlrpc::assoc $name $alist] 1 }

proc client {} {
    global TEXT outer inner reg rel id port
    check ping [call ping] pong
    check text [untext [call test [list string [text $TEXT]]]] $TEXT
    check empty [call test {string {}}] ""
    foreach n {42 -2147483648 2147483647} { check int [call test [list int $n]] $n }
    check double [call test {double -0.125}] -0.125
    check boolean [call test {boolean 1}] 1
    check dateTime [call test {dateTime.iso8601 20030701T12:00:00}] 20030701T12:00:00
    set raw [binary format c* {0 1 2 127 -128 -1}]
    check base64 [binary decode base64 [call test [list base64 [binary encode base64 $raw]]]] $raw
    check array [call test {array {{int 1} {array {{string two} {array {}}}}}}] {1 {two {}}}
    set inner(b) {int 1}
    set outer(a) {struct inner}
    set outer(c) {string x}
    set got [call test {struct outer}]
    check struct "[member b [member a $got]] [member c $got]" "1 x"
    check listMethods [expr {"relay.register" in [call system.listMethods]}] 1
    check "no method" [member faultCode [call no.such.method]] -32601
    set rel(host_id) {string 127.0.0.1:1}
    set rel(data) {int 1}
    check "not registered" [string range [member faultString [call relay.relay {struct rel}]] 0 25] registry.Co2RegistryError:
    set reg(port) [list int $port]
    set reg(nick) {string tcl}
    set id(host_id) [list string [call relay.register {struct reg}]]
    check register [member nick [call relay.get_satellite_props {struct id}]] tcl
    check deregister [call relay.deregister {struct id}] OK
    puts done
}

proc flat {v} { string map {{ } ,} [string map {\{ "" \} ""} $v] }

proc notify {m} {
    global nick host echo answer
    set d [member data $m]
    if {[catch {member for $d} for] || $for ne $nick} { return {string OK} }
    set text [untext [member text $d]]
    binary scan [encoding convertto utf-8 $text] H* hex
    binary scan [binary decode base64 [member bin $d]] H* bin
    puts "notify sender=[member host_id $m] pass=[expr {[member notify_pass $m] eq "pw-$nick" ? {True} : {False}}]\
id=[expr {[string is digit -strict [member msg_id $m]] ? {True} : {False}}] text=$hex n=[member n $d] neg=[member neg $d]\
d=[member d $d] b=[member b $d] bin=$bin when=[member when $d] list=[flat [member list $d]] empty=[member empty $d]\
sub=[member name [member sub $d]]/[member value [member sub $d]]"
    # Not from here: the package's call would wait within its own server.
    after 0 [list relayBack $text]
    return {string OK}
}

proc relayBack {text} {
    global nick host back backData
    set backData(for) {string tester}
    set backData(echo) [list string [text $text]]
    set backData(nick) [list string $nick]
    set back(host_id) [list string $host]
    set back(data) {struct backData}
    call relay.relay {struct back}
}

proc ping {} { return {string pong} }

proc satellite {} {
    global url port nick host reg
    xmlrpc::serve $port
    set reg(port) [list int $port]
    set reg(plugins) {array {{string a}}}
    set reg(nick) [list string $nick]
    set reg(notify_pass) [list string pw-$nick]
    set host [call relay.register {struct reg}]
    puts "registered $host"
    vwait forever
}

if {$mode eq "client"} client else satellite
