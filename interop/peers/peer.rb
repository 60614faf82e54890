# A peer of the interop tests: Ruby's xmlrpc (client; server on WEBrick).
#
# peer.rb client URL PORT          calls the relay with every type
# peer.rb satellite URL PORT NICK  is a satellite until it is killed
require 'xmlrpc/client'
require 'xmlrpc/server'

$stdout.sync = true
TEXT = 'Grüße, 世界 & <co2>'
XMLRPC::Config.module_eval do
  remove_const(:ENABLE_NIL_PARSER); const_set(:ENABLE_NIL_PARSER, true)
  remove_const(:ENABLE_NIL_CREATE); const_set(:ENABLE_NIL_CREATE, true)
  remove_const(:ENABLE_BIGINT); const_set(:ENABLE_BIGINT, true)
end

def check(name, got, want)
  abort "FAIL #{name} got #{got.inspect}, want #{want.inspect}" unless got == want
  puts "ok #{name}"
end

def fault(name, code, text)
  check(name, yield, 'a fault')
rescue XMLRPC::FaultException => e
  check(name, [e.faultCode, e.faultString.include?(text)], [code, true])
end

def client(url, port)
  relay = XMLRPC::Client.new2(url)
  check('ping', relay.call('ping'), 'pong')
  check('text', relay.call('test', TEXT).dup.force_encoding('UTF-8'), TEXT)
  check('space', relay.call('test', "  a\tb\n "), "  a\tb\n ")
  check('empty', relay.call('test', ''), '')
  [42, -2147483648, 2147483647].each { |n| check('int', relay.call('test', n), n) }
  check('i8', relay.call('test', 9007199254740993), 9007199254740993)
  [1.5, -0.001, 1e20, 1e-7].each { |d| check('double', relay.call('test', d), d) }
  check('boolean', relay.call('test', [true, false]), [true, false])
  check('dateTime', relay.call('test', XMLRPC::DateTime.new(2003, 7, 1, 12, 0, 0)).to_a, [2003, 7, 1, 12, 0, 0])
  raw = (0..255).to_a.pack('C*')
  check('base64', relay.call('test', XMLRPC::Base64.new(raw)), raw)
  check('array', relay.call('test', [1, ['two', []], []]), [1, ['two', []], []])
  check('struct', relay.call('test', { 'a' => { 'b' => [1] }, 'c&d' => {} }), { 'a' => { 'b' => [1] }, 'c&d' => {} })
  check('nil', relay.call('test', [nil]), [nil])
  check('listMethods', relay.call('system.listMethods').include?('relay.register'), true)
  check('multicall', relay.multicall(['ping'], ['test', 1]), ['pong', 1])
  fault('no method', -32601, 'no.such.method') { relay.call('no.such.method') }
  fault('not registered', 1, 'registry.Co2RegistryError:') { relay.call('relay.relay', 'host_id' => '127.0.0.1:1', 'data' => 1) }
  host = relay.call('relay.register', 'port' => port.to_i, 'plugins' => [], 'nick' => 'ruby', 'notify_pass' => 'x')
  check('register', relay.call('relay.get_satellite_props', 'host_id' => host)['nick'], 'ruby')
  check('deregister', relay.call('relay.deregister', 'host_id' => host), 'OK')
  puts 'done'
end

def flat(value)
  value.is_a?(Array) ? value.map { |v| flat(v) }.join(',') : value.to_s
end

def line(m, d, nick)
  ['notify', "sender=#{m['host_id']}", "pass=#{m['notify_pass'] == "pw-#{nick}" ? 'True' : 'False'}",
   "id=#{m['msg_id'] =~ /\A\d+\z/ ? 'True' : 'False'}", "text=#{d['text'].unpack1('H*')}", "n=#{d['n']}", "neg=#{d['neg']}",
   "d=#{d['d']}", "b=#{d['b'] ? 1 : 0}", "bin=#{d['bin'].unpack1('H*')}", format('when=%04d%02d%02dT%02d:%02d:%02d', *d['when'].to_a),
   "list=#{flat(d['list'])}", "empty=#{d['empty']}", "sub=#{d['sub']['name']}/#{d['sub']['value']}"].join(' ')
end

def satellite(url, port, nick)
  relay = XMLRPC::Client.new2(url)
  host = nil
  server = XMLRPC::Server.new(port.to_i, '127.0.0.1', 4, File.open(File::NULL, 'w'), false)
  server.add_handler('ping') { 'pong' }
  server.add_handler('notify') do |m|
    d = m['data']
    if d.is_a?(Hash) && d['for'] == nick
      puts line(m, d, nick)
      text = d['text'].dup.force_encoding('UTF-8')
      relay.call('relay.relay', 'host_id' => host, 'data' => { 'for' => 'tester', 'echo' => text, 'nick' => nick })
    end
    'OK'
  end
  host = relay.call('relay.register', 'port' => port.to_i, 'plugins' => ['a'], 'nick' => nick, 'notify_pass' => "pw-#{nick}")
  puts "registered #{host}"
  server.serve
end

ARGV[0] == 'client' ? client(*ARGV[1..]) : satellite(*ARGV[1..])
