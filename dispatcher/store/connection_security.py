"""Who else could connect to a Redis or a broker, or read the traffic: passwords and TLS. No I/O."""

import ipaddress
import ssl
from collections.abc import Mapping
from typing import Any

from dispatcher.store.check_finding import Finding, Verdict, not_allowed


def access(config: dict[str, Any], user: dict[str, Any]) -> Finding:
    """Whether strangers can connect, from CONFIG GET and ACL GETUSER default; each is empty if forbidden."""
    if "bind" not in config and not user:
        return not_allowed("access", "set a password for each user", "CONFIG and ACL are")
    if config.get("requirepass") or (user and "nopass" not in user["flags"]):
        return Finding("access", Verdict.OK, "the default user has a password, or is off")
    binds = set(str(config.get("bind", "")).replace("-", " ").split())
    if binds and all(_is_local(bind) for bind in binds):
        return Finding("access", Verdict.OK, "no password, but only this machine can connect")
    if config.get("protected-mode") == "yes" and not binds - {"*", "0.0.0.0", "::", "::*"}:  # noqa: S104
        return Finding("access", Verdict.OK, "no password, but protected-mode lets only this machine in")
    return Finding(
        "access",
        Verdict.WARNING,
        "the default user has no password, and Redis listens beyond this machine",
        "set requirepass or an ACL user, and put it into DISPATCHER_REDIS_URL",
    )


def encryption(subject: str, host: str, tls: Mapping[str, Any]) -> Finding:
    """How a connection to `host` (empty: a unix socket) is encrypted; `tls` has redis-py's options (empty: no TLS)."""
    if not tls:
        return _in_clear(subject, host)
    if tls.get("ssl_cert_reqs") is ssl.CERT_NONE:
        return Finding(
            subject,
            Verdict.WARNING,
            "TLS, certificate not verified (ssl_cert_reqs=none): anyone in between can read the password",
            "take ssl_cert_reqs out of the URL, and set DISPATCHER_REDIS_CA_FILE for a private authority",
        )
    if not tls.get("ssl_check_hostname", True):
        return Finding(
            subject,
            Verdict.WARNING,
            "TLS, certificate verified, but not its name (ssl_check_hostname=false)",
            "take ssl_check_hostname out of the URL, and connect by the name that the certificate has",
        )
    return Finding(subject, Verdict.OK, "TLS, certificate and name verified")


def _in_clear(subject: str, host: str) -> Finding:
    if not host:
        return Finding(subject, Verdict.OK, "none, a unix socket")
    if _is_local(host):
        return Finding(subject, Verdict.OK, "none, on this machine")
    return Finding(
        subject,
        Verdict.WARNING,
        "the connection is not encrypted: password, secrets and callbacks can be read on the way",
        "use rediss://, unless the network is your own",
    )


def _is_local(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
