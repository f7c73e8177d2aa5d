"""Settings, and the documents that are made from them."""

import ssl
from pathlib import Path

import pytest

from config import settings_docs
from config.environment import PREFIX
from config.settings import Settings, load, names, sources, wants_json
from dispatcher.errors import InvalidInput
from dispatcher.sending.tls import tls_context
from tasks import wiring

ROOT = Path(__file__).parents[2]
KEY = "aHVzaGh1c2hodXNoaHVzaGh1c2hodXNoaHVzaGh1c2g="
"""A Fernet key: `hush`, eight times."""


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Neither this machine's settings nor a `.env` count."""
    import os

    for name in [name for name in os.environ if name.startswith(PREFIX)]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


DEFAULTS = {
    "REDIS_URL": "redis://127.0.0.1:6379/0",
    "KEY_PREFIX": "dispatcher",
    "MAX_ATTEMPTS": 5,
    "BACKOFF_BASE_SECONDS": 15,
    "BACKOFF_FACTOR": 16,
    "BACKOFF_JITTER": 0.1,
    "EXPIRY_SECONDS": 172_800,
    "REQUEST_TIMEOUT_SECONDS": 10,
    "RETRY_AFTER_MAX_SECONDS": 3600,
    "MAX_CONCURRENCY": 20,
    "MAX_IN_FLIGHT": 4000,
    "ALLOW_HTTP": False,
    "ALLOWED_NETWORKS": [],
    "ALLOWED_PORTS": [],
    "LEDGER_RETENTION_SECONDS": 604_800,
    "DELIVERED_BODY_SECONDS": 3600,
    "TURN_SECONDS": 5,
    "LEASE_SECONDS": 30,
    "WAKE_SECONDS": 0.25,
}


def test_defaults() -> None:
    """The defaults are the documented ones."""
    shown = load().shown()
    assert DEFAULTS == {name: shown[PREFIX + name] for name in DEFAULTS}


def test_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Settings come from the environment; lists are comma-separated."""
    monkeypatch.setenv("DISPATCHER_MAX_ATTEMPTS", "3")
    monkeypatch.setenv("DISPATCHER_ALLOWED_NETWORKS", "127.0.0.0/8, 10.0.0.0/8")
    monkeypatch.setenv("DISPATCHER_ALLOWED_PORTS", "443,8443")
    settings = load()
    assert (3, ("127.0.0.0/8", "10.0.0.0/8"), (443, 8443)) == (
        settings.max_attempts,
        settings.allowed_networks,
        settings.allowed_ports,
    )


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("MAX_ATTEMPTS", "0", "DISPATCHER_MAX_ATTEMPTS"),
        ("MAX_ATTEMPTS", "five", "DISPATCHER_MAX_ATTEMPTS"),
        ("LEASE_SECONDS", "11", "LEASE_SECONDS"),
        ("LEDGER_RETENTION_SECONDS", "3600", "longest expiry"),
        ("ALLOWED_NETWORKS", "10.0.0.1/8", "DISPATCHER_ALLOWED_NETWORKS"),
        ("ALLOWED_PORTS", "https", "DISPATCHER_ALLOWED_PORTS"),
        ("ALLOWED_PORTS", "0", "DISPATCHER_ALLOWED_PORTS"),
        ("ALLOWED_PORTS", "443,99999", "DISPATCHER_ALLOWED_PORTS"),
        ("METRICS_PORT", "65536", "DISPATCHER_METRICS_PORT"),
        ("SECRET_KEYS", "abc", "key 1 of 1 is no Fernet key"),
        ("SECRET_KEYS", f"{KEY},abc", "key 2 of 2 is no Fernet key"),
        ("SECRET_KEYS", ",", "names no key"),
        ("DNS_SERVERS", "10.0.0.53:0", "name server's address"),
        ("DNS_SERVERS", "10.0.0.53:99999", "name server's address"),
        ("DNS_SERVERS", "ns1.example", "name server's address"),
        ("DNS_SERVERS", "10.0.0.53:dns", "name server's address"),
        ("LOG_LEVEL", "LOUD", "DISPATCHER_LOG_LEVEL: Input should be 'DEBUG', 'INFO', .*, not 'LOUD'"),
        ("ALLOW_HTTP", "ja", "DISPATCHER_ALLOW_HTTP: write true or false, not 'ja'"),
        ("KEY_PREFIX", "a:b", "DISPATCHER_KEY_PREFIX"),
        ("WAKE_SECONDS", "0.001", "DISPATCHER_WAKE_SECONDS: Input should be greater than or equal to 0.01"),
        ("TURN_SECONDS", "0.01", "DISPATCHER_TURN_SECONDS: Input should be greater than or equal to 0.1"),
        ("WAKE_SECONDS", "10.5", "DISPATCHER_WAKE_SECONDS: Input should be less than or equal to 10"),
    ],
)
def test_refused(monkeypatch: pytest.MonkeyPatch, name: str, value: str, says: str) -> None:
    """A setting that cannot be is refused in one line that names it."""
    monkeypatch.setenv(PREFIX + name, value)
    with pytest.raises(InvalidInput, match=says) as caught:
        load()
    assert "\n" not in str(caught.value)


FLOATS = [name.upper() for name, field in Settings.model_fields.items() if field.annotation is float]


@pytest.mark.parametrize("value", ["inf", "nan", "1e400"])
@pytest.mark.parametrize("name", FLOATS)
def test_numbers_are_finite(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    """No number of any setting is infinite or none, which timers and Redis would only refuse later."""
    monkeypatch.setenv(PREFIX + name, value)
    with pytest.raises(InvalidInput, match=f"{PREFIX}{name}: Input should be a finite number"):
        load()


@pytest.mark.parametrize("name", [name for name in FLOATS if name.endswith("_SECONDS")])
def test_times_are_bounded(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """No time is so long that it overflows when it is counted in milliseconds."""
    monkeypatch.setenv(PREFIX + name, "1e300")
    with pytest.raises(InvalidInput, match=f"{PREFIX}{name}: Input should be less than"):
        load()


def test_name_servers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Addresses of either family, with a port or without."""
    monkeypatch.setenv("DISPATCHER_DNS_SERVERS", "10.0.0.53, 10.0.0.54:5353, fd00::53, [fd00::53]:5353")
    assert ("10.0.0.53", "10.0.0.54:5353", "fd00::53", "[fd00::53]:5353") == load().dns_servers


def test_secrets_are_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither `repr` nor what is shown holds a password or a key."""
    monkeypatch.setenv("DISPATCHER_REDIS_URL", "redis://user:hush@redis.example/0")
    monkeypatch.setenv("DISPATCHER_SECRET_KEYS", KEY)
    settings = load()
    assert [] == [one for one in ("hush", KEY) if one in repr(settings) + str(settings.shown())]
    assert "redis://redis.example/0" == settings.shown()["DISPATCHER_REDIS_URL"]


def test_env_file() -> None:
    """A `.env` in the current folder is read, and the example file is a valid one."""
    text = (ROOT / ".env.example").read_text()
    enabled = "\n".join(
        line.removeprefix("# ") if line.startswith("# DISPATCHER_") else line for line in text.splitlines()
    )
    Path(".env").write_text(enabled)
    assert Settings(_env_file=None) == load()


@pytest.mark.parametrize("name", [document.name for document in settings_docs.DOCUMENTS])
def test_documents(name: str) -> None:
    """`.env.example` and the README's table are as `make docs` writes them."""
    assert settings_docs.written(ROOT / name) == (ROOT / name).read_text()


def test_own_authorities(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A file of authorities is trusted beside the system's; one that holds none is refused."""
    authority = ssl.create_default_context().get_ca_certs(binary_form=True)[0]
    (tmp_path / "good.pem").write_text(ssl.DER_cert_to_PEM_cert(authority))
    (tmp_path / "bad.pem").write_text("no certificate")
    monkeypatch.setenv("DISPATCHER_CA_FILE", str(tmp_path / "good.pem"))
    context = tls_context(load().ca_file)
    assert authority in context.get_ca_certs(binary_form=True)
    assert (ssl.TLSVersion.TLSv1_2, ssl.CERT_REQUIRED, True) == (
        context.minimum_version,
        context.verify_mode,
        context.check_hostname,
    )
    for name in ("bad.pem", "missing.pem"):
        monkeypatch.setenv("DISPATCHER_CA_FILE", str(tmp_path / name))
        with pytest.raises(InvalidInput, match="DISPATCHER_CA_FILE"):
            load()


@pytest.mark.parametrize(
    "url",
    ["proxy:8080", "socks5://proxy:1080", "http://", "http://u:hu/sh@proxy:1", "http://u:12/hush@proxy:1"],
)
def test_wrong_proxy(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    """A proxy URL that is none is refused, and none of it is told."""
    monkeypatch.setenv("DISPATCHER_PROXY_URL", url)
    with pytest.raises(InvalidInput, match="DISPATCHER_PROXY_URL") as caught:
        load()
    assert not [part for part in ("hu", "12", "sh") if part in str(caught.value).partition(";")[0]]


def test_alert_url_with_an_at(monkeypatch: pytest.MonkeyPatch) -> None:
    """An @ in the path of the operator's own hook is no password, and its path is not shown."""
    monkeypatch.setenv("DISPATCHER_ALERT_URL", "https://ops.example/@team/hush")
    assert "hush" not in repr(load().shown())


@pytest.mark.parametrize(
    ("name", "url"),
    [
        ("PROXY_URL", "http://user:hush@127.1:3128"),
        ("PROXY_URL", "http://user:hush@1.1.1.1[v1.x]:3128"),
        ("PROXY_URL", "http://user:hush@[::1%25lo]:3128"),
        ("PROXY_URL", "http://user:hush@proxy℀.example:3128"),
        ("PROXY_URL", "http://user:hush@proxy.example:99999"),
        ("ALERT_URL", "https://user:hush@alerts.example/"),
        ("ALERT_URL", "https://alerts.example/hush#top"),
        ("ALERT_URL", "https://[v1.x]/hush"),
    ],
)
def test_urls_that_nothing_could_be_sent_to(monkeypatch: pytest.MonkeyPatch, name: str, url: str) -> None:
    """A URL that the transport would refuse is refused at the start, in one line without what is secret in it."""
    monkeypatch.setenv(f"DISPATCHER_{name}", url)
    with pytest.raises(InvalidInput, match=f"DISPATCHER_{name}: (URL|is no URL|has a port)") as caught:
        load()
    assert "hush" not in str(caught.value)
    assert 1 == len(str(caught.value).splitlines())


def test_a_proxy_with_a_password(monkeypatch: pytest.MonkeyPatch) -> None:
    """User name and password of a proxy are no part of its host."""
    monkeypatch.setenv("DISPATCHER_PROXY_URL", "http://user:p%40ss@proxy.example:3128")
    assert "http://proxy.example:3128" == load().shown()["DISPATCHER_PROXY_URL"]


def test_networks(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is allowed, what is denied and where NAT64 is reach the one policy of worker and API."""
    monkeypatch.setenv("DISPATCHER_ALLOWED_NETWORKS", "10.0.0.0/8, 192.0.2.0/24")
    monkeypatch.setenv("DISPATCHER_DENIED_NETWORKS", "10.1.0.0/16,2606:4700::/32")
    monkeypatch.setenv("DISPATCHER_NAT64_PREFIXES", "2a00:1450:64::/96, fd00:64::/96")
    monkeypatch.setenv("DISPATCHER_ALLOWED_PORTS", "443")
    policy = wiring.addresses(load())
    assert [None] * 4 == [
        policy.refusal(host, 443)
        for host in ("10.2.0.1", "fd00:64::10.2.0.1", "2a00:1450:64::8.8.8.8", "8.8.8.8")
    ]
    for host in ("10.1.0.1", "fd00:64::10.1.0.1", "2606:4700::1", "2a00:1450:64::172.16.0.1", "fd00::1"):
        assert policy.refusal(host, 443)
    assert policy.refusal("8.8.8.8", 80)


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("DENIED_NETWORKS", "10.0.0.1/8", "host bits"),
        ("DENIED_NETWORKS", "example.com", "does not appear to be"),
        ("NAT64_PREFIXES", "64:ff9b:1::/47", "host bits|length"),
        ("NAT64_PREFIXES", "2001:db8::/33", "its length is 32, 40, 48, 56, 64 or 96"),
        ("NAT64_PREFIXES", "10.0.0.0/8", "10.0.0.0"),
    ],
)
def test_wrong_networks(monkeypatch: pytest.MonkeyPatch, name: str, value: str, text: str) -> None:
    """A network or a prefix that is none is refused at the start, in one line that names the setting."""
    monkeypatch.setenv(f"DISPATCHER_{name}", value)
    with pytest.raises(InvalidInput, match=f"DISPATCHER_{name}: .*({text})") as caught:
        load()
    assert 1 == len(str(caught.value).splitlines())


@pytest.mark.parametrize("name", [name.removeprefix(PREFIX) for name in names()])
def test_an_empty_value_is_none_at_all(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """A setting that is empty in the environment or in .env has its default; an empty one hides none in .env either."""
    monkeypatch.setenv(PREFIX + name, "")
    Path(".env").write_text(f"{PREFIX}{name}=\n")
    assert Settings.model_construct() == load()
    Path(".env").write_text(f"{PREFIX}MAX_ATTEMPTS=3\n")
    assert 3 == load().max_attempts


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("DISPATCHER_MAX_ATEMPTS", "did you mean DISPATCHER_MAX_ATTEMPTS?"),
        ("DISPATCHER_REDISURL", "did you mean DISPATCHER_REDIS_URL?"),
        ("dispatcher_log_levle", "did you mean DISPATCHER_LOG_LEVEL?"),
        ("DISPATCHER_API_PORT", "is no setting"),
        ("DISPATCHER_QWERTY", "`dispatcher config` lists all settings"),
    ],
)
@pytest.mark.parametrize("where", ["the environment", ".env"])
def test_unknown_names(monkeypatch: pytest.MonkeyPatch, name: str, near: str, where: str) -> None:
    """A name that nobody reads is refused in one line, with where it is and the setting that was meant."""
    if where == ".env":
        Path(".env").write_text(f"{name}=hush\n")
    else:
        monkeypatch.setenv(name, "hush")
    with pytest.raises(InvalidInput) as caught:
        load()
    said = str(caught.value)
    assert (True, True, 1, False) == (
        near in said,
        f"{name.upper()} in {where}" in said,
        len(said.splitlines()),
        "hush" in said,
    )


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("DISPATCHER_MAX_ATTEMPTS: 4\n", 1),
        ("\n# a comment\nDISPATCHER_KEY_PREFIX=a\n\nDISPATCHER_MAX_ATTEMPTS='4\n", 5),
        ('OTHER=1\nDISPATCHER_MAX_ATTEMPTS="4\nDISPATCHER_KEY_PREFIX="a"\n', 2),
        ("DISPATCHER_KEY_PREFIX=a\nDISPATCHER_MAX_ATTEMPTS\n", 2),
        ("export DISPATCHER_KEY_PREFIX=a\nDISPATCHER_MAX_ATTEMPTS 4\n", 2),
    ],
)
def test_a_broken_line(text: str, line: int) -> None:
    """A line of .env that cannot be read is refused with its number: else its setting kept its default, unnoticed."""
    Path(".env").write_text(text)
    with pytest.raises(InvalidInput, match=f"^line {line} of .env cannot be read") as caught:
        load()
    assert not wants_json()
    assert "4" not in str(caught.value)


def test_a_folder_of_that_name() -> None:
    """A .env that is no file is refused: its settings would keep their defaults, unnoticed."""
    Path(".env").mkdir()
    with pytest.raises(InvalidInput, match=r"^\.env is no file"):
        load()


def test_a_name_without_its_prefix(monkeypatch: pytest.MonkeyPatch) -> None:
    """In .env it is refused, unless the setting itself is set too; in the environment it is another program's."""
    monkeypatch.setenv("MAX_ATTEMPTS", "3")
    assert 5 == load().max_attempts
    Path(".env").write_text("MAX_ATTEMPTS=3\n")
    with pytest.raises(
        InvalidInput, match=r"MAX_ATTEMPTS in .env has no effect: write DISPATCHER_MAX_ATTEMPTS"
    ):
        load()
    Path(".env").write_text("MAX_ATTEMPTS=3\nDISPATCHER_MAX_ATTEMPTS=4\n")
    assert 4 == load().max_attempts


def test_upper_and_lower_case(monkeypatch: pytest.MonkeyPatch) -> None:
    """Level and format of logs are read in either case."""
    monkeypatch.setenv("DISPATCHER_LOG_LEVEL", "info")
    monkeypatch.setenv("DISPATCHER_LOG_FORMAT", "JSON")
    assert ("INFO", "json", True) == (load().log_level, load().log_format, wants_json())


def test_names_of_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """What Kubernetes sets for our Services, and what the compose file's passwords are called, is nobody's typo."""
    for name, value in {
        "DISPATCHER_API_SERVICE_HOST": "10.0.0.1",
        "DISPATCHER_API_SERVICE_PORT": "80",
        "DISPATCHER_API_SERVICE_PORT_HTTP": "80",
        "DISPATCHER_API_PORT": "tcp://10.0.0.1:80",
        "DISPATCHER_API_PORT_80_TCP": "tcp://10.0.0.1:80",
        "DISPATCHER_API_PORT_80_TCP_ADDR": "10.0.0.1",
        "DISPATCHER_API_PORT_80_TCP_PROTO": "tcp",
        "_DISPATCHER_COMPLETE": "complete_bash",
    }.items():
        monkeypatch.setenv(name, value)
    Path(".env").write_text("REDIS_PASSWORD=hush\nGRAFANA_PASSWORD=hush\n")
    assert Settings(_env_file=None) == load()


def test_where_settings_are_from(monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment wins over .env, and an empty value there does not."""
    Path(".env").write_text(f"{PREFIX}MAX_ATTEMPTS=3\n{PREFIX}LOG_LEVEL=ERROR\n{PREFIX}LOG_FORMAT=json\n")
    monkeypatch.setenv(f"{PREFIX}LOG_LEVEL", "WARNING")
    monkeypatch.setenv(f"{PREFIX}LOG_FORMAT", "")
    assert {
        f"{PREFIX}MAX_ATTEMPTS": ".env",
        f"{PREFIX}LOG_LEVEL": "the environment",
        f"{PREFIX}LOG_FORMAT": ".env",
    } == sources()
    assert ("WARNING", "json") == (load().log_level, load().log_format)


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("https://console.example", ""),
        ("https://console.example:8443/console/", ""),
        ("http://127.0.0.1:8090", ""),
        ("http://console.example", "write https://"),
        ("https://h/ops", "write https://HOST"),
        ("https://h /", "write https://HOST"),
        ("https://h:99999", "write https://HOST"),
        ("https://user:hush", "write https://HOST"),
        ("https://user:[hush]@h", "write https://HOST"),
        ("https://ünï.example", "in ASCII"),
    ],
)
def test_the_consoles_url(url: str, says: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What browsers could not reach, or what would lead elsewhere, is refused before the console starts."""
    monkeypatch.setenv("DISPATCHER_CONSOLE_URL", url)
    if not says:
        assert url.rstrip("/") == load().console_url
        return
    with pytest.raises(InvalidInput, match=says) as caught:
        load()
    assert "hush" not in str(caught.value)
