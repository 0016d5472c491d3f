"""What the request path counts. No label is taken from a request: an author must not be able to fill the memory of the metrics server."""

from prometheus_client import Counter, Gauge, Histogram

REQUESTS = Counter("mlwarden_admission_requests_total", "Reviews answered.", ["path", "decision"])
SECONDS = Histogram(
    "mlwarden_admission_seconds",
    "Time from the whole body read to the answer.",
    buckets=(0.0002, 0.0005, 0.001, 0.002, 0.005, 0.02, 0.1, 1, 10),
)
REVISION = Gauge("mlwarden_snapshot_revision", "Grows with every snapshot.")
AGE = Gauge("mlwarden_snapshot_age_seconds", "Seconds since the quietest watch gave a sign of life.")
BROKEN = Gauge("mlwarden_policies_broken", "Policies that do not compile: Unknown in every verdict.")
EXPIRES = Gauge("mlwarden_certificate_expires_timestamp_seconds", "When the webhook's certificate expires.")
EVENTS_DROPPED = Counter("mlwarden_debug_events_dropped_total", "Events about debug containers that were not written.")
