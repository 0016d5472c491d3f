"""What every long-running process of mlwarden starts with: its options, its settings, its client, its log."""

import argparse
import logging
import os
import sys
from pathlib import Path

import msgspec

from mlwarden import policy
from mlwarden.cluster.client import SERVICE_ACCOUNT, Client
from mlwarden.errors import InputError
from mlwarden.model.policy import Settings


def add_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options that all processes share; the environment gives their defaults."""
    env = os.environ.get
    parser.add_argument("--settings", default=env("MLWARDEN_SETTINGS", ""), metavar="FILE", help="the chart's settings, as YAML")
    parser.add_argument("--kubeconfig", default="", metavar="FILE", help="instead of the pod's service account")
    parser.add_argument("--service-account-dir", default=env("MLWARDEN_SERVICE_ACCOUNT_DIR", SERVICE_ACCOUNT), metavar="DIR")
    parser.add_argument("--host", default=env("MLWARDEN_HOST", ""), help="the address to listen on, every one where empty")
    parser.add_argument("--probe-port", type=int, default=int(env("MLWARDEN_PROBE_PORT", "8081")), metavar="PORT")


async def connect(options: argparse.Namespace) -> Client:
    """Returns the client that the options ask for.

    Raises:
        ClusterError: there is neither a kubeconfig nor a service account.
    """
    if options.kubeconfig:
        return await Client.from_kubeconfig(options.kubeconfig)
    host, port = os.environ.get("KUBERNETES_SERVICE_HOST", "kubernetes.default.svc"), os.environ.get("KUBERNETES_SERVICE_PORT", "443")
    return Client.in_cluster(service_account_dir=options.service_account_dir, host=host, port=port)


def load_settings(path: str) -> Settings:
    """Returns the settings in a YAML file, the defaults where no file is named.

    Raises:
        InputError: it cannot be read, or says what does not exist.
    """
    if not path:
        return Settings()
    try:
        documents = policy.yaml_loads(Path(path).read_text(encoding="utf-8"))
        settings = msgspec.convert(documents[0] if documents else {}, Settings)
    except (OSError, msgspec.ValidationError) as error:
        hint = "the chart writes this file; values.yaml explains it"
        raise InputError(f"the settings in {path} cannot be used: {error}", hint=hint) from error
    if settings.default_profile not in settings.profiles:
        raise InputError(f"the settings in {path}: defaultProfile {settings.default_profile!r} is not one of the profiles")
    return settings


def start_logging() -> None:
    """Logs to standard error, one line each, as containers do."""
    level = os.environ.get("MLWARDEN_LOG", "INFO").upper()
    logging.basicConfig(stream=sys.stderr, level=level, format="%(asctime)s %(levelname)s %(name)s: %(message)s", force=True)
    logging.getLogger("aiohttp").setLevel(logging.WARNING)
