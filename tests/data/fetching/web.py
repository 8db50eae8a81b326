"""A real web server on localhost that misbehaves as told, and notes what it was asked."""

import contextlib
import re
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Site:
    """What lies at each path, and what happens there."""

    def __init__(self):
        self.files = {}
        self.asked = []
        self.cuts = {}
        """At a path: of the next answers, how many bytes come before the connection is cut."""
        self.status = {}
        """Status instead of the file, by path; a list is worked off, then the file is there."""
        self.redirects = {}
        self.silent = {}
        """At a path: after how many bytes nothing more comes, while the connection stays; below 0 not even an answer."""
        self.over = threading.Event()
        self.trickle = {}
        """At a path: so many bytes at a time, twenty times a second."""
        self.encoding = ""
        self.ranges = True
        self.etag = '"1"'
        self.content_type = "application/octet-stream"
        self.url = ""

    def answer(self, handler):
        path, wanted = handler.path, handler.headers.get("Range")
        self.asked.append((path, wanted))
        if self.silent.get(path, 0) < 0:
            self.over.wait()
            return
        status = self.status.get(path)
        if isinstance(status, list):
            status = status.pop(0) if status else None
        if status:
            handler.send_response(status)
            handler.send_header("Retry-After", "3600")
            handler.send_header("Content-Length", "0")
            handler.end_headers()
        elif path in self.redirects:
            handler.send_response(302)
            handler.send_header("Location", self.redirects[path])
            handler.send_header("Content-Length", "0")
            handler.end_headers()
        elif path in self.files:
            self._send(handler, path, wanted)
        else:
            handler.send_error(404)

    def _send(self, handler, path, wanted):
        content, first = self.files[path], 0
        unchanged = handler.headers.get("If-Range") in (None, self.etag)
        if wanted and self.ranges and unchanged:
            first = int(re.fullmatch(r"bytes=(\d+)-", wanted)[1])
            if first >= len(content):
                handler.send_response(416)
                handler.send_header("Content-Range", f"bytes */{len(content)}")
                handler.send_header("Content-Length", "0")
                handler.end_headers()
                return
            handler.send_response(206)
            handler.send_header("Content-Range", f"bytes {first}-{len(content) - 1}/{len(content)}")
        else:
            handler.send_response(200)
        body = content[first:]
        handler.send_header("Content-Type", self.content_type)
        handler.send_header("Content-Length", str(len(body)))
        if self.encoding:
            handler.send_header("Content-Encoding", self.encoding)
        if self.etag:
            handler.send_header("ETag", self.etag)
        handler.end_headers()
        if path in self.silent:
            handler.wfile.write(body[: self.silent[path]])
            handler.wfile.flush()
            self.over.wait()
        elif path in self.trickle:
            for start in range(0, len(body), self.trickle[path]):
                handler.wfile.write(body[start : start + self.trickle[path]])
                time.sleep(0.05)
        elif self.cuts.get(path):
            handler.wfile.write(body[: self.cuts[path].pop(0)])
            handler.wfile.flush()
            handler.close_connection = True
        else:
            handler.wfile.write(body)


@contextlib.contextmanager
def serving():
    """A site that is served as long as the block lasts."""
    site = Site()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self):
            with contextlib.suppress(OSError):
                site.answer(self)

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    server.handle_error = lambda *_: None  # a client that has gone is no error
    site.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield site
    finally:
        site.over.set()
        server.shutdown()
        server.server_close()
        thread.join()
