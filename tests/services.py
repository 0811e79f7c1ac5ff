"""The servers that tests talk to: where they are, and what happens when one is not there."""

from __future__ import annotations

import os
import socket

import pytest
from sqlalchemy.engine import URL, make_url

_DEFAULT_URLS = {
    "postgresql": "postgresql://postgres@127.0.0.1:5432/postgres",
    "mariadb": "mysql://root@127.0.0.1:3306/",
    "redis": "redis://127.0.0.1:6379/0",
    "rabbitmq": "amqp://guest:guest@127.0.0.1:5672//",
}
_CONNECT_TIMEOUT_SECONDS = 3.0


def variable_of(service: str) -> str:
    """Name the environment variable that moves a service elsewhere."""
    return f"TEST_{service.upper()}_URL"


def raw_url_of(service: str) -> str:
    """Give the URL of a service as text: the environment's, or the usual one on this machine."""
    return os.environ.get(variable_of(service)) or _DEFAULT_URLS[service]


def url_of(service: str) -> URL:
    """Give the URL of a service, parsed."""
    return make_url(raw_url_of(service))


def services_are_required() -> bool:
    """Say whether an unreachable service is a failure (``REQUIRE_SERVICES=1``) instead of a skip."""
    return os.environ.get("REQUIRE_SERVICES", "") not in ("", "0")


def give_up(reason: str) -> None:
    """Fail where services are required, skip where they are not."""
    if services_are_required():
        pytest.fail(f"{reason} (REQUIRE_SERVICES is set)", pytrace=False)
    pytest.skip(reason)


def require_service(service: str) -> str:
    """Give the URL of a service that accepts connections; otherwise skip or fail the test."""
    address = url_of(service)
    host, port = address.host or "127.0.0.1", address.port or url_of_default_port(service)
    try:
        socket.create_connection((host, port), timeout=_CONNECT_TIMEOUT_SECONDS).close()
    except OSError as error:
        give_up(f"{service} does not answer at {host}:{port} ({error}); set {variable_of(service)} to where it is")
    return raw_url_of(service)


def url_of_default_port(service: str) -> int:
    """Give the port that the service listens on when its URL names none."""
    port = make_url(_DEFAULT_URLS[service]).port
    assert port is not None
    return port
