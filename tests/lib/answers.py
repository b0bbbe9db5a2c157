# SPDX-License-Identifier: Apache-2.0
"""Something on a Unix socket that answers as a pagerd would that is in a bad way.

    with answers.Answers(path, {"/health": {"status": "ok"}}) as server:
        ...
        server.shutdown()"""
import http.server
import json
import socketserver
import threading


class Answers(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    """Something that answers as a pagerd in a bad way would."""
    daemon_threads = True

    def __init__(self, path, answers):
        self.answers = answers
        super().__init__(path, Handler)
        threading.Thread(target=self.serve_forever, daemon=True).start()


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        answer = self.server.answers.get(self.path)
        text = json.dumps(answer or {"code": "not-found", "error": "no"}).encode()
        self.send_response(200 if answer else 404)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def address_string(self):
        return "unix"

    def log_message(self, format, *args):
        pass
