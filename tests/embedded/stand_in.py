"""Stands in for `mlwarden` on the host node: says what it was given, answers probes, and ends as it is told."""

import http.server
import json
import os
import signal
import sys
from pathlib import Path


class Probes(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        ready = self.path != "/readyz" or Path(os.environ["TMPDIR"], "unready").exists() is False
        self.send_response(200 if ready else 503)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 -- the base class's name
        pass


def main() -> int:
    account = Path(os.environ["MLWARDEN_SERVICE_ACCOUNT_DIR"])
    said = {
        "arguments": sys.argv[1:],
        "environment": dict(os.environ),
        "account": {path.name: path.read_text(encoding="utf-8") for path in account.iterdir()},
        "files": {each: Path(each.partition("=")[2]).read_text(encoding="utf-8") for each in sys.argv[1:] if each.startswith("--read=")},
    }
    sys.stdout.write(json.dumps(said) + "\n")
    sys.stdout.flush()
    if "--exit" in sys.argv:
        return int(sys.argv[sys.argv.index("--exit") + 1])

    def terminate(number: int, frame: object) -> None:
        sys.stdout.write("terminated\n")
        sys.stdout.flush()
        raise SystemExit(0)

    signal.signal(signal.SIGTERM, terminate)
    http.server.HTTPServer(("127.0.0.1", int(os.environ["MLWARDEN_PROBE_PORT"])), Probes).serve_forever()
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
