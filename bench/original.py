"""The design of the relay of 2003, with Python's standard library alone.

One process; satellites' calls are served by xmlrpc.server. relay.relay puts
its struct into a queue in memory and answers; one thread takes it from there
and calls notify of every satellite but the sender, one after the other.
"""
import queue
import socketserver
import sys
import threading
import xmlrpc.client
import xmlrpc.server

TIMEOUT = 0.25  # seconds for a notify call; kind: without one, a satellite that hangs ends everything


class Transport(xmlrpc.client.Transport):
    """Keeps its connection and gives up on an answer after TIMEOUT."""

    def make_connection(self, host):
        connection = super().make_connection(host)
        connection.timeout = TIMEOUT
        return connection


class Handler(xmlrpc.server.SimpleXMLRPCRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def _dispatch(self, method, params):
        return self.server.call(method, self.client_address[0], params[0])


class Relay(socketserver.ThreadingMixIn, xmlrpc.server.SimpleXMLRPCServer):
    daemon_threads = True
    request_queue_size = 128

    def __init__(self, address):
        super().__init__(address, requestHandler=Handler, logRequests=False)
        self.satellites = {}
        self.waiting = queue.Queue()
        threading.Thread(target=self.deliver, daemon=True).start()

    def call(self, method, ip, struct):
        if method == "relay.register":
            host_id = "%s:%d" % (ip, struct["port"])
            proxy = xmlrpc.client.ServerProxy("http://" + host_id, transport=Transport())
            self.satellites[host_id] = (proxy, struct.get("notify_pass", ""))
            return host_id
        if method == "relay.relay":
            if struct["host_id"] not in self.satellites:
                raise KeyError(struct["host_id"])
            self.waiting.put(struct)
            return "OK"
        raise NameError(method)

    def deliver(self):
        while True:
            struct = self.waiting.get()
            for host_id, (proxy, password) in list(self.satellites.items()):
                if host_id == struct["host_id"]:
                    continue
                try:
                    proxy.notify(dict(struct, notify_pass=password))
                except (OSError, xmlrpc.client.Error):
                    pass  # it was for this satellite, and is lost


host, port = sys.argv[1].rsplit(":", 1)
Relay((host, int(port))).serve_forever()
