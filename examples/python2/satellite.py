#!/usr/bin/env python2.7
# -*- coding: utf-8 -*-
"""A co2 satellite: prints what others relay, relays each line that it reads.

Usage: satellite.py RELAY PORT, for example: satellite.py http://127.0.0.1:2003 7001
"""
import os
import sys
import threading
from SimpleXMLRPCServer import SimpleXMLRPCServer
from xmlrpclib import ServerProxy

relay = ServerProxy(sys.argv[1]).relay
port = int(sys.argv[2])
# After a restart the relay may still call with the password of before.
kept = os.fdopen(os.open("notify_pass.%d" % port, os.O_RDWR | os.O_CREAT, 0600), "r+")
password = kept.read() or os.urandom(16).encode("hex")
kept.seek(0)
kept.write(password)
kept.close()
last = [0]  # a repeat carries a msg_id that was there before


def notify(message):
    if message["notify_pass"] != password:
        raise ValueError("wrong password")
    if int(message["msg_id"]) > last[0]:
        last[0] = int(message["msg_id"])
        data = message["data"]
        text = data if isinstance(data, basestring) else repr(data)
        if isinstance(text, unicode):  # xmlrpclib: str where it is ASCII
            text = text.encode("utf-8")
        sys.stdout.write("%s: %s\n" % (message["host_id"], text))
        sys.stdout.flush()
    return "OK"  # None would be a fault: XML-RPC has no None


server = SimpleXMLRPCServer(("", port), logRequests=False)
server.register_introspection_functions()
server.register_function(notify)
server.register_function(lambda: "pong", "ping")
serving = threading.Thread(target=server.serve_forever)
serving.daemon = True
serving.start()
host_id = relay.register({"port": port, "plugins": [], "nick": "python2", "notify_pass": password})
try:
    for line in iter(sys.stdin.readline, ""):
        relay.relay({"host_id": host_id, "data": line.rstrip("\n").decode("utf-8")})
except KeyboardInterrupt:
    pass
relay.deregister({"host_id": host_id})
