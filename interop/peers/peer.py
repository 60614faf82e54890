# -*- coding: utf-8 -*-
"""A peer of the interop tests, for Python 2.7 and 3.6 to 3.13.

peer.py client URL PORT           calls the relay with every type
peer.py satellite URL PORT NICK   is a satellite until it is killed
"""
from __future__ import print_function, unicode_literals
import binascii
import datetime
import sys

try:
    import xmlrpc.client as xmlrpclib
    from xmlrpc.server import SimpleXMLRPCServer, SimpleXMLRPCRequestHandler
except ImportError:  # Python 2
    import xmlrpclib
    from SimpleXMLRPCServer import SimpleXMLRPCServer, SimpleXMLRPCRequestHandler

TEXT = "Grüße, 世界 & <co2>"


def say(*words):
    line = " ".join(words)
    sys.stdout.write(line if sys.version_info[0] > 2 else line.encode("utf-8"))
    sys.stdout.write(str("\n"))
    sys.stdout.flush()


def check(name, got, want):
    if got != want or type(got) is not type(want) and not isinstance(got, (str, bytes, type(""))):
        say("FAIL", name, "got %r, want %r" % (got, want))
        sys.exit(1)
    say("ok", name)


def fault(name, call, code, text):
    try:
        say("FAIL", name, "got %r, want a fault" % (call(),))
        sys.exit(1)
    except xmlrpclib.Fault as f:
        check(name, (f.faultCode, text in f.faultString), (code, True))


class Gzipped(xmlrpclib.Transport):
    encode_threshold = 1  # requests are compressed


def client(url, port):
    relay = xmlrpclib.ServerProxy(url, allow_none=True)
    check("ping", relay.ping(), "pong")
    check("text", relay.test(TEXT), TEXT)
    check("space", relay.test("  a\tb\n "), "  a\tb\n ")
    check("empty", relay.test(""), "")
    for n in (42, -2147483648, 2147483647):
        check("int", relay.test(n), n)
    for d in (1.5, -0.001, 1e300, 0.1):
        check("double", relay.test(d), d)
    check("boolean", relay.test([True, False]), [True, False])
    when = xmlrpclib.DateTime(str("20030701T12:00:00"))
    check("dateTime", relay.test(when).value, when.value)
    raw = bytes(bytearray(range(256)))
    check("base64", relay.test(xmlrpclib.Binary(raw)).data, raw)
    check("array", relay.test([1, ["two", []], []]), [1, ["two", []], []])
    check("struct", relay.test({"a": {"b": [1]}, "c&d": {}, TEXT: "x"}), {"a": {"b": [1]}, "c&d": {}, TEXT: "x"})
    check("nil", relay.test([None]), [None])
    native = xmlrpclib.ServerProxy(url, use_datetime=True)
    day = datetime.datetime(2003, 7, 1, 12)
    check("datetime", native.test(day), day)
    latin = xmlrpclib.ServerProxy(url, encoding="iso-8859-1")
    check("latin-1", latin.test("Grüße"), "Grüße")
    gzipped = xmlrpclib.ServerProxy(url, transport=Gzipped())
    check("gzip", gzipped.test("x" * 5000), "x" * 5000)
    check("listMethods", "relay.register" in relay.system.listMethods(), True)
    check("methodSignature", relay.system.methodSignature("ping")[0][0], "string")
    calls = xmlrpclib.MultiCall(relay)
    calls.ping()
    calls.test(1)
    check("multicall", list(calls()), ["pong", 1])
    fault("no method", lambda: relay.no.such.method(), -32601, "no.such.method")
    fault("not registered", lambda: relay.relay.relay({"host_id": "127.0.0.1:1", "data": 1}), 1, "registry.Co2RegistryError:")
    host = relay.relay.register({"port": int(port), "plugins": [], "nick": TEXT, "notify_pass": "x"})
    check("register", relay.relay.get_satellite_props({"host_id": host})["nick"], TEXT)
    check("deregister", relay.relay.deregister({"host_id": host}), "OK")
    fault("unknown", lambda: relay.relay.deregister({"host_id": host}), 1, "exceptions.KeyError:'%s'" % host)
    say("done")


def flat(value):
    if isinstance(value, list):
        return ",".join(flat(v) for v in value)
    return "%s" % value


def satellite(url, port, nick):
    relay = xmlrpclib.ServerProxy(url)

    def notify(message):
        data = message["data"]
        if not isinstance(data, dict) or data.get("for") != nick:
            return "OK"
        say("notify", "sender=" + message["host_id"], "pass=" + str(message["notify_pass"] == "pw-" + nick),
            "id=" + str(message["msg_id"].isdigit()),
            "text=" + binascii.hexlify(data["text"].encode("utf-8")).decode(), "n=%d" % data["n"], "neg=%d" % data["neg"],
            "d=%s" % data["d"], "b=%d" % data["b"], "bin=" + binascii.hexlify(data["bin"].data).decode(),
            "when=" + data["when"].value, "list=" + flat(data["list"]), "empty=" + data["empty"],
            "sub=%s/%d" % (data["sub"]["name"], data["sub"]["value"]))
        relay.relay.relay({"host_id": host, "data": {"for": "tester", "echo": data["text"], "nick": nick}})
        return "OK"

    class Handler(SimpleXMLRPCRequestHandler):
        # Python 3 and 2.7 can keep connections alive; then nobody else is served.
        protocol_version = str("HTTP/1.1" if nick.endswith("keep") else "HTTP/1.0")

    server = SimpleXMLRPCServer(("127.0.0.1", int(port)), requestHandler=Handler, logRequests=False)
    server.register_introspection_functions()
    server.register_function(notify, "notify")
    server.register_function(lambda: "pong", "ping")
    host = relay.relay.register({"port": int(port), "plugins": ["a"], "nick": nick, "notify_pass": "pw-" + nick})
    say("registered", host)
    server.serve_forever()


arguments = [a if sys.version_info[0] > 2 else a.decode("utf-8") for a in sys.argv[2:]]
if sys.argv[1] == "client":
    client(*arguments)
else:
    satellite(*arguments)
