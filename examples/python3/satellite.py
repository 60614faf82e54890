#!/usr/bin/env python3
"""A co2 satellite: prints what others relay, relays each line that it reads.

Usage: satellite.py RELAY PORT, for example: satellite.py http://127.0.0.1:2003 7001
"""
import pathlib
import secrets
import sys
import threading
from xmlrpc.client import ServerProxy
from xmlrpc.server import SimpleXMLRPCServer

relay = ServerProxy(sys.argv[1]).relay
port = int(sys.argv[2])
kept = pathlib.Path(f"notify_pass.{port}")  # after a restart the relay may still call with the password of before
kept.touch(0o600)
password = kept.read_text() or secrets.token_hex()
kept.write_text(password)
last = 0  # a repeat carries a msg_id that was there before


def notify(message):
    global last
    if not secrets.compare_digest(message["notify_pass"], password):
        raise ValueError("wrong password")
    if int(message["msg_id"]) > last:
        last = int(message["msg_id"])
        print(f"{message['host_id']}: {message['data']!r}", flush=True)
    return "OK"


server = SimpleXMLRPCServer(("", port), logRequests=False)
server.register_introspection_functions()
server.register_function(notify)
server.register_function(lambda: "pong", "ping")
threading.Thread(target=server.serve_forever, daemon=True).start()
host_id = relay.register({"port": port, "plugins": [], "nick": "python3", "notify_pass": password})
try:
    for line in sys.stdin:
        relay.relay({"host_id": host_id, "data": line.rstrip("\n")})
except KeyboardInterrupt:
    pass
relay.deregister({"host_id": host_id})
