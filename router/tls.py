"""TLS on both sides: the router's own certificate towards clients, and what it shows and trusts towards backends."""

from __future__ import annotations

import ssl
from collections.abc import Sequence

from router.config import ConfigError, RouterConfig


def listening(config: RouterConfig) -> ssl.SSLContext | None:
    """To speak HTTPS with clients; None: plain HTTP. Raises :class:`ConfigError`."""
    if config.tls_cert_path is None and config.tls_key_path is None:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    _show(context, ("--tls-cert-path", config.tls_cert_path), ("--tls-key-path", config.tls_key_path))
    return context


def towards_backends(config: RouterConfig) -> ssl.SSLContext | None:
    """To speak HTTPS with backends, trusting the system's authorities and those given. Raises :class:`ConfigError`.

    None: the settings ask for nothing but the system's.
    """
    if not (config.ca_cert_paths or config.client_cert_path or config.client_key_path):
        return None
    context = ssl.create_default_context()
    context.set_alpn_protocols(["http/1.1"])
    _trust(context, config.ca_cert_paths)
    if config.client_cert_path is not None or config.client_key_path is not None:
        _show(context, ("--client-cert-path", config.client_cert_path), ("--client-key-path", config.client_key_path))
    return context


def _show(context: ssl.SSLContext, cert: tuple[str, str | None], key: tuple[str, str | None]) -> None:
    """Load a certificate chain and its key; each comes with its flag's name."""
    for (name, path), (other, _) in ((cert, key), (key, cert)):
        if path is None:
            raise ConfigError(f"{name} is missing: {other} needs it")
        try:
            with open(path, "rb"):
                pass
        except OSError as error:
            raise ConfigError(f"{name} {path} cannot be read: {error.strerror}") from None
    try:
        context.load_cert_chain(str(cert[1]), str(key[1]), password=lambda: "")
    except (ssl.SSLError, ValueError) as error:
        reason = getattr(error, "reason", None) or str(error)
        raise ConfigError(f"{cert[0]} {cert[1]} and {key[0]} {key[1]} do not work together: {reason}") from None


def _trust(context: ssl.SSLContext, paths: Sequence[str]) -> None:
    for path in paths:
        try:
            context.load_verify_locations(path)
        except FileNotFoundError:
            raise ConfigError(f"--ca-cert-paths {path} does not exist") from None
        except (OSError, ssl.SSLError) as error:
            reason = getattr(error, "reason", None) or error.strerror or str(error)
            raise ConfigError(f"--ca-cert-paths {path} holds no certificate: {reason}") from None
