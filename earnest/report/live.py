"""A live page on 127.0.0.1: verdicts, curves with their baselines, and findings as they come, without reloading.

One page of HTML, and one stream of server-sent events that carries the whole state whenever it changes. Only this
machine is served, only these two addresses, and what a log says arrives as data and is shown as text.
"""

import threading
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.resources import files
from typing import Any

from earnest.report import view
from earnest.report.as_json import strict_json
from earnest.rules.finding import Diagnosis, Finding
from earnest.run import Run

POINTS = 200  # of a curve
CURVES = 24
HEARTBEAT_S = 15.0
SHOWN = ("ce_nats", "loss", "grad_norm", "learning_rate", "accuracy_frac", "copy_frac")
POLICY = "default-src 'none'; script-src 'self' 'unsafe-inline'; style-src 'unsafe-inline'; connect-src 'self'"


def state_of(run: Run, diagnosis: Diagnosis | None, findings: list[Finding], ended: str | None) -> dict[str, Any]:
    """What the page shows."""
    verdicts = diagnosis.verdicts if diagnosis is not None else []
    rungs = {verdict.stream: verdict.ladder for verdict in verdicts}
    keys = [key for name in SHOWN for key in run.series if key.name == name and len(run.series[key].finite)]
    curves: list[dict[str, Any]] = []
    for key in keys[:CURVES]:
        ladder = rungs.get(key.stream, []) if key.stream is not None and key.name in ("ce_nats", "loss") else []
        binned = run.series[key].binned
        thin = max(1, -(-len(binned) // POINTS))
        points = list(zip(binned.step[::thin].tolist(), binned.value[::thin].tolist(), strict=True))
        baselines = [{"name": rung.name, "value": rung.value} for rung in ladder]
        curves.append({"key": view.line(key), "points": points, "baselines": baselines})
    return {
        "title": view.title(run),
        "step": run.last_step,
        "ended": ended,
        "verdicts": [
            {
                "stream": view.line(verdict.stream),
                "word": verdict.verdict,
                "level": view.LEVEL[verdict.verdict],
                "value": view.value(verdict),
                "baseline": view.baseline(verdict.baseline),
                "why": view.why(verdict),
            }
            for verdict in verdicts
        ],
        "findings": [
            {
                "rule": f"{finding.rule} {finding.name}",
                "severity": finding.severity,
                "about": view.about(finding),
                "summary": view.line(finding.summary),
                "fix": view.line(finding.fix),
            }
            for finding in view.in_order(findings)
        ],
        "curves": curves,
    }


class Page:
    """The server; `url` is its address. port: 0 takes a free one. Raises OSError if the port is taken."""

    def __init__(self, port: int = 0):
        self.changed = threading.Condition()
        self.number, self.text, self.closed = 0, "", False
        self.verdicts: list[dict[str, Any]] = []
        self.server = _Server(("127.0.0.1", port), _Handler)
        self.server.page = self
        self.url = f"http://127.0.0.1:{self.server.server_port}/"
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.1}, daemon=True)
        self.thread.start()

    def show(self, run: Run, diagnosis: Diagnosis | None, findings: list[Finding], ended: str | None) -> None:
        """The state from now on. Without a diagnosis the last verdicts stay."""
        state = state_of(run, diagnosis, findings, ended)
        if diagnosis is None:
            state["verdicts"] = self.verdicts
        self.verdicts = state["verdicts"]
        with self.changed:
            self.number, self.text = self.number + 1, strict_json(state)
            self.changed.notify_all()

    def wait(self) -> None:
        """Until Ctrl-C."""
        threading.Event().wait()

    def close(self) -> None:
        """Tell the readers that this is the end, and let go of the port."""
        with self.changed:
            self.closed = True
            self.changed.notify_all()
        self.server.shutdown()
        self.server.server_close()
        self.thread.join(5)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    allow_reuse_address = True
    page: Page


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        if self.headers.get("Host", "").rpartition(":")[0] not in ("127.0.0.1", "localhost"):
            self.send_error(403, "this machine only")
        elif self.path == "/":
            body = (files("earnest.report") / "live.html").read_bytes()
            self._head(200, {"Content-Type": "text/html; charset=utf-8", "Content-Length": str(len(body))})
            self.wfile.write(body)
        elif self.path == "/events":
            self._events()
        else:
            self.send_error(404)

    def _events(self) -> None:
        self._head(200, {"Content-Type": "text/event-stream", "Cache-Control": "no-store", "Connection": "close"})
        self.close_connection = True
        page, seen = self.server.page, 0
        try:
            while True:
                with page.changed:
                    page.changed.wait_for(lambda: page.closed or page.number > seen, HEARTBEAT_S)  # noqa: B023
                    number, text, closed = page.number, page.text, page.closed
                if number > seen:
                    seen = number
                    self.wfile.write(f"data: {text}\n\n".encode())
                elif not closed:
                    self.wfile.write(b": still here\n\n")
                if closed:
                    self.wfile.write(b"event: end\ndata: {}\n\n")
                    return
                self.wfile.flush()
        except OSError:  # the reader went away
            return

    def _head(self, status: int, headers: Mapping[str, str]) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Security-Policy": POLICY, "X-Content-Type-Options": "nosniff"}.items():
            self.send_header(name, value)
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        """Requests are not worth a line."""
