"""What a client needs, from a kubeconfig file, as kubectl would have it: credential plugins, client certificates, contexts.

The official client reads the file; only its result is used. It is imported here and only when asked for: it costs 20 MB.
"""

import ssl
from typing import Any

from mlwarden.errors import InputError


def tls(ca: str | None) -> ssl.SSLContext:
    """Returns a context that trusts the cluster's authority (None: the system's).

    As lenient as client-go about how that authority's certificate is written: many clusters' have no key identifiers, which Python 3.13
    refuses by default.
    """
    context = ssl.create_default_context(cafile=ca)
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    return context


def read(path: str | None, context: str | None) -> tuple[str, ssl.SSLContext, str]:
    """Returns server, TLS context and bearer token of a context. Blocking.

    Raises:
        InputError: there is no such file or context, or it cannot be used.
    """
    from kubernetes import client, config  # noqa: PLC0415 -- 20 MB that no process in the cluster needs

    settings: Any = client.Configuration()
    try:
        config.load_kube_config(config_file=path, context=context, client_configuration=settings)
        secured = tls(settings.ssl_ca_cert)
        if not settings.verify_ssl:
            secured.check_hostname, secured.verify_mode = False, ssl.CERT_NONE
        if settings.cert_file:
            secured.load_cert_chain(settings.cert_file, settings.key_file)
    except (config.ConfigException, OSError, ssl.SSLError) as error:
        raise InputError(f"the kubeconfig cannot be used: {error}", hint="check `kubectl config current-context`") from error
    token = settings.get_api_key_with_prefix("BearerToken") or settings.get_api_key_with_prefix("authorization") or ""
    return settings.host, secured, token.removeprefix("Bearer ")


def namespace(path: str | None, context: str | None) -> str:
    """Returns the namespace of a context, `default` where it names none.

    Raises:
        InputError: the file cannot be used.
    """
    from kubernetes import config  # noqa: PLC0415 -- as above

    try:
        contexts, active = config.list_kube_config_contexts(config_file=path)
    except (config.ConfigException, OSError) as error:
        raise InputError(f"the kubeconfig cannot be used: {error}", hint="check `kubectl config current-context`") from error
    chosen = next((each for each in contexts if each["name"] == context), active) if context else active
    return str((chosen or {}).get("context", {}).get("namespace") or "default")
