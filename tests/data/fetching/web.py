"""A real web server on localhost that misbehaves on request and logs what it was asked."""

import contextlib
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Site:
    """The files of a web site and the faults of each path."""

    def __init__(self):
        self.files = {}
        self.asked = []
        self.cuts = {}
        """By path: for each of the next answers, the number of bytes sent before the connection is cut."""
        self.status = {}
        """By path: a status instead of the file, or a list of them before the file."""
        self.redirects = {}
        self.mute = set()
        """Paths that accept a connection and never answer."""
        self.endless = set()
        """Paths that state no length and send their content again and again."""
        self.stated_lengths = {}
        """Content-Length by path, if it is a lie."""
        self.over = threading.Event()
        self.encoding = ""
        self.ranges = True
        self.etag = '"1"'
        self.content_types = {}
        """By path, if it is not a binary file's."""
        self.url = ""

    def answer(self, handler):
        path, wanted = handler.path, handler.headers.get("Range")
        self.asked.append((path, wanted))
        if path in self.mute:
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
        handler.send_header("Content-Type", self.content_types.get(path, "application/octet-stream"))
        if path in self.endless:
            handler.end_headers()
            while not self.over.is_set():
                handler.wfile.write(body)
        handler.send_header("Content-Length", self.stated_lengths.get(path, str(len(body))))
        if self.encoding:
            handler.send_header("Content-Encoding", self.encoding)
        if self.etag:
            handler.send_header("ETag", self.etag)
        handler.end_headers()
        if self.cuts.get(path):
            handler.wfile.write(body[: self.cuts[path].pop(0)])
            handler.wfile.flush()
            handler.close_connection = True
        else:
            handler.wfile.write(body)


@contextlib.contextmanager
def serving():
    """Serve a site until the block ends."""
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
    server.handle_error = lambda *_: None  # a client that disconnects is no error
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
