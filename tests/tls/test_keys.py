"""Where keys come from: files that root alone may read, files with a passphrase, files that are renewed or broken."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import signal
import ssl
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.integration.conftest import Folders
from tests.integration.gateway import COMMAND
from tests.tls.certificates import NAME, Authority, Pair
from tests.tls.conftest import Dovecot
from tests.tls.gateway import Gateway, gateway, line

ROOT = os.geteuid() == 0


@pytest.fixture
def copied(folder: Path, authority: Authority) -> Pair:
    """The authority's pair, as files of the test's own, the key for its owner alone."""
    pair = Pair(folder / "cert.pem", folder / "key.pem")
    shutil.copy(authority.server.certificate, pair.certificate)
    shutil.copy(authority.server.key, pair.key)
    pair.key.chmod(0o600)
    return pair


def settings(pair: Pair, port: int, **more: object) -> dict[str, object]:
    return {
        "server": f"{NAME}:{port}",
        "tls": "implicit",
        "tls_certificate": pair.certificate,
        "tls_key": pair.key,
        **more,
    }


def shown(running: Gateway) -> str:
    """The fingerprint of the certificate that a client is shown."""
    context = ssl._create_unverified_context()
    with context.wrap_socket(running.connect("one")) as client:
        certificate = client.getpeercert(binary_form=True)
        assert certificate is not None
        return hashlib.sha256(certificate).hexdigest()


def test_a_key_that_only_who_starts_the_gateway_can_read(folders: Folders, copied: Pair) -> None:
    with gateway(folders(), {"one": settings(copied, 9)}) as running:
        assert shown(running) == copied.fingerprint
        workers = re.findall(r"workers run as the account (\S+)", running.log)
        assert bool(workers) is ROOT


def test_a_renewed_pair_is_taken_on_hup_and_a_broken_one_is_not(
    folders: Folders, authority: Authority, copied: Pair, dovecot: Dovecot
) -> None:
    with gateway(folders(), {"one": settings(copied, dovecot.clear)}) as running:
        old = copied.fingerprint
        context = authority.trusting()
        with context.wrap_socket(running.connect("one"), server_hostname=NAME) as lasting:
            assert line(lasting).startswith(b"+OK")

            renewed = authority.sign(NAME, "127.0.0.1")
            shutil.copy(renewed.certificate, copied.certificate)
            running.reload()  # the certificate is new, its key still the old one
            assert "the configuration was not reloaded" in running.log
            assert f"{running.file}:{line_of(running, 'tls_certificate')}: [one] tls_certificate: " in running.log
            assert "key values mismatch" in running.log
            assert shown(running) == old

            shutil.copy(renewed.key, copied.key)
            running.reload()
            assert shown(running) == renewed.fingerprint != old

            lasting.sendall(b"CAPA\r\n")
            assert line(lasting).startswith(b"+OK")


def line_of(made: Gateway, key: str) -> int:
    """The line of the configuration where this is set."""
    lines = made.file.read_text().splitlines()
    return next(number for number, text in enumerate(lines, start=1) if text.startswith(f"{key} "))


def break_key(pair: Pair) -> None:
    pair.key.write_text("-----BEGIN PRIVATE KEY-----\nnothing\n-----END PRIVATE KEY-----\n")


def remove_key(pair: Pair) -> None:
    pair.key.unlink()


@pytest.mark.parametrize(("harm", "key"), [(break_key, "tls_key"), (remove_key, "tls_key")], ids=["broken", "missing"])
@pytest.mark.parametrize("arguments", [["--check"], ["--foreground"]])
def test_what_can_not_be_used_is_said_with_file_line_and_key(
    folders: Folders, copied: Pair, harm: Callable[[Pair], None], key: str, arguments: list[str]
) -> None:
    made = Gateway(folders(), {"one": settings(copied, 9)}, {})
    harm(copied)
    done = subprocess.run(
        [COMMAND, "--config", made.file, *arguments], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 78
    assert f"{made.file}:{line_of(made, key)}: [one] {key}: " in done.stderr
    assert str(copied.key) in done.stderr
    assert "Traceback" not in done.stderr


def test_a_certificate_whose_time_is_over_is_told(folders: Folders, authority: Authority, copied: Pair) -> None:
    expired = authority.expired(NAME)
    with gateway(folders(), {"one": settings(copied, 9)}) as running:
        assert "expired" not in running.log
        shutil.copy(expired.certificate, copied.certificate)
        shutil.copy(expired.key, copied.key)
        running.reload()
        where = f"{running.file}:{line_of(running, 'tls_certificate')}: [one] tls_certificate"
        assert f"warning one: {where}: {copied.certificate}: certificate has expired" in running.log
        assert shown(running) == expired.fingerprint


def test_a_check_finds_a_certificate_whose_time_is_over(folders: Folders, authority: Authority, copied: Pair) -> None:
    expired = authority.expired("mail.example.org")
    pairs = settings(copied, 9)
    pairs["tls_certificate"] = f"{copied.certificate}, mail.example.org={expired.certificate}"
    pairs["tls_key"] = f"{copied.key}, {expired.key}"
    made = Gateway(folders(), {"one": pairs}, {})
    done = subprocess.run(
        [COMMAND, "--config", made.file, "--check"], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stdout) == (0, f"{made.file}: nothing else is wrong\n")
    where = f"{made.file}:{line_of(made, 'tls_certificate')}: [one] tls_certificate"
    assert done.stderr.startswith(
        f"pop3gw: {where}: {expired.certificate}: certificate has expired; expected one whose"
    )
    assert done.stderr.count("\n") == 1


def test_what_stands_behind_a_certificate_and_is_broken_keeps_nobody_from_a_start(
    folders: Folders, copied: Pair
) -> None:
    with copied.certificate.open("a") as file:
        file.write("-----BEGIN X509 CRL-----\nAAAA\n-----END X509 CRL-----\n")
    with gateway(folders(), {"one": settings(copied, 9)}) as running:
        assert shown(running) == copied.fingerprint


def test_a_service_with_tls_and_without_a_certificate_is_said(folders: Folders) -> None:
    made = Gateway(folders(), {"one": {"server": f"{NAME}:9", "tls": "required"}}, {})
    done = subprocess.run(
        [COMMAND, "--config", made.file, "--check"], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 78
    assert "[one] tls: required, but there is no tls_certificate" in done.stderr


def test_a_key_with_a_passphrase(folders: Folders, folder: Path, copied: Pair) -> None:
    secret = folder / "passphrase"
    secret.write_text("correct horse battery staple\n")
    secret.chmod(0o600)
    locked = folder / "locked.pem"
    subprocess.run(
        ["openssl", "pkey", "-in", copied.key, "-out", locked, "-aes256", "-passout", f"file:{secret}"],
        check=True,
        capture_output=True,
    )
    given = settings(Pair(copied.certificate, locked), 9, tls_key_passphrase=secret)
    with gateway(folders(), {"one": given}) as running:
        assert shown(running) == copied.fingerprint
        assert "correct horse" not in running.log


def test_a_template_that_is_started_anew_reads_the_keys_anew(folders: Folders, copied: Pair) -> None:
    with gateway(folders(), {"one": settings(copied, 9)}) as running:
        titles = {path: path.read_bytes() for path in Path("/proc").glob("[0-9]*/cmdline") if _is_ours(path, running)}
        (template,) = [int(path.parent.name) for path, title in titles.items() if b"template [one]" in title]
        os.kill(template, signal.SIGKILL)
        running.wait_for("another is started")
        assert shown(running) == copied.fingerprint


def _is_ours(path: Path, running: Gateway) -> bool:
    """Whether this process is of the gateway's session (each is started in one of its own)."""
    try:
        fields = (path.parent / "stat").read_text().rpartition(")")[2].split()
    except OSError:
        return False
    return int(fields[3]) == running.process.pid
