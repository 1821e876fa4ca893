"""The stream that speaks TLS, against OpenSSL at the other end of a socket pair."""

from __future__ import annotations

import contextlib
import resource
import selectors
import shutil
import socket
import ssl
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pop3gw.errors import TlsError
from pop3gw.settings import Service
from pop3gw.stream import Stream
from pop3gw.tls import Contexts, contexts
from pop3gw.tlsstream import TlsStream, subject_text
from pop3gw.values import Address, Certificate, Tls, TlsVersion
from tests.tls.certificates import NAME, Authority, Pair
from tests.tls.peer import Peer


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("tls"))


def service(pair: Pair | None = None, /, **settings: object) -> Service:
    given: dict[str, object] = {"name": "one", "listen": (), "server": Address(NAME, 995), **settings}
    if pair is not None:
        given |= {"tls": Tls.IMPLICIT, "tls_certificate": (Certificate("", str(pair.certificate)),)}
        given |= {"tls_key": (str(pair.key),)}
    return Service(**given)  # type: ignore[arg-type]  # by name


Pairs = Callable[..., tuple[TlsStream, Peer]]


@pytest.fixture
def talk(authority: Authority) -> Iterator[Pairs]:
    """Makes the stream of a client's connection, hands shaken, and the client."""
    opened: list[socket.socket] = []

    def make(context: ssl.SSLContext | None = None, **settings: object) -> tuple[TlsStream, Peer]:
        ours, theirs = socket.socketpair()
        opened.extend((ours, theirs))
        for end in (ours, theirs):
            end.setblocking(False)
        stream = contexts(service(authority.server, **settings)).to_client(Stream(ours))
        peer = Peer(context or authority.trusting(), theirs)
        peer.shake(stream)
        return stream, peer

    yield make
    for end in opened:
        end.close()


def to_server(authority: Authority, pair: Pair, **settings: object) -> tuple[TlsStream, Peer, list[socket.socket]]:
    ours, theirs = socket.socketpair()
    for end in (ours, theirs):
        end.setblocking(False)
    made = contexts(service(server_tls=Tls.IMPLICIT, server_ca=str(authority.file), **settings))
    return made.to_server(Stream(ours)), Peer(authority.serving(pair), theirs, server_side=True), [ours, theirs]


def test_what_is_said_is_heard(talk: Pairs) -> None:
    stream, peer = talk()
    assert stream.facts().version == "TLSv1.3"
    assert stream.subject() is None
    peer.say(b"USER alice\r\n")
    assert stream.read() == b"USER alice\r\n"
    assert stream.read() is None
    assert stream.write(b"+OK\r\n")
    assert peer.hears() == b"+OK\r\n"


def test_words_behind_the_handshake_are_there_at_once(authority: Authority) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        for end in (ours, theirs):
            end.setblocking(False)
        stream = contexts(service(authority.server)).to_client(Stream(ours))
        peer = Peer(authority.trusting(), theirs)
        with pytest.raises(ssl.SSLWantReadError):
            peer.tls.do_handshake()
        peer.exchange()
        assert not stream.shake_hands()
        peer.exchange()
        peer.tls.do_handshake()
        peer.tls.write(b"CAPA\r\n")
        peer.exchange()
        assert stream.shake_hands()
        assert stream.read() == b"CAPA\r\n"


@pytest.mark.parametrize("size", [1, 16_384, 16_385, 65_536, 1_000_000])
def test_any_size_passes_both_ways(talk: Pairs, size: int) -> None:
    stream, peer = talk()
    data = bytes(index % 251 for index in range(size))
    heard = b""
    stream.write(data)
    while len(heard) < size:
        heard += peer.hears()
        stream.flush()
    assert heard == data
    peer.tls.write(data)
    sealed = memoryview(peer.go.read())
    said = b""
    while sealed or len(said) < size:
        with contextlib.suppress(BlockingIOError):
            sealed = sealed[peer.socket.send(sealed) :]
        said += stream.read() or b""
    assert said == data


def test_a_reader_that_stops_is_waited_for_and_nothing_is_sealed_twice(talk: Pairs) -> None:
    stream, peer = talk()
    assert not stream.write(b"x" * (1 << 20))
    assert stream.unsent is not None
    assert len(stream.unsent) < 1 << 17  # the rest is not sealed before it can go
    assert not stream.write(b"y")
    heard = b""
    while not heard.endswith(b"y"):
        heard += peer.hears()
        stream.flush()
    assert heard == b"x" * (1 << 20) + b"y"
    assert stream.unsent is None


def test_what_was_left_goes_out_by_flush_alone(talk: Pairs) -> None:
    """Who flushes tells the session that all has gone."""
    stream, peer = talk()
    while stream.write(bytes(1024)):
        pass
    peer.hears()
    assert not stream.write(b"y")
    assert stream.flush()
    assert peer.hears().endswith(b"y")


def test_close_notify_is_an_end_of_file(talk: Pairs) -> None:
    stream, peer = talk()
    with pytest.raises(ssl.SSLWantReadError):
        peer.tls.unwrap()
    peer.exchange()
    assert stream.read() == b""
    assert stream.ended


def test_last_words_with_their_close_notify_are_heard_with_the_end(talk: Pairs) -> None:
    stream, peer = talk()
    peer.tls.write(b"QUIT\r\n")
    with pytest.raises(ssl.SSLWantReadError):
        peer.tls.unwrap()
    peer.exchange()
    assert stream.read() == b"QUIT\r\n"
    assert stream.ended


def test_an_end_without_close_notify_is_an_error(talk: Pairs) -> None:
    stream, peer = talk()
    peer.say(b"half of ")
    peer.socket.shutdown(socket.SHUT_WR)
    assert stream.read() == b"half of "
    with pytest.raises(OSError, match="without close_notify"):
        stream.read()


@pytest.mark.parametrize("garbage", [b"+OK in clear\r\n", b"\x17\x03\x03\x00\x20" + bytes(32)])
def test_what_is_no_tls_is_an_error(talk: Pairs, garbage: bytes) -> None:
    stream, peer = talk()
    peer.socket.sendall(garbage)
    with pytest.raises(OSError, match=r"."):
        stream.read()


BROKEN_RECORD = b"\x17\x03\x03\x00\x20" + bytes(32)


@pytest.mark.parametrize("size", [9, 100_000])
def test_what_was_whole_before_a_broken_record_is_heard(talk: Pairs, size: int) -> None:
    stream, peer = talk()
    for end in (stream.socket, peer.socket):
        for option in (socket.SO_RCVBUF, socket.SO_SNDBUF):
            end.setsockopt(socket.SOL_SOCKET, option, 1 << 20)
    stream.most = 1 << 20  # so that much more is read at once than passes through OpenSSL at once
    answer = b"x" * size
    peer.tls.write(answer)
    peer.socket.sendall(peer.go.read() + BROKEN_RECORD + bytes(1 << 17))
    heard = b""
    while not stream.ended:
        heard += stream.read() or b""
    assert heard == answer
    assert "bad record mac" in str(stream.failure)


def test_what_was_whole_before_the_peer_is_gone_is_heard(talk: Pairs) -> None:
    """Also where our alert about the rest does not reach it any more."""
    stream, peer = talk()
    peer.tls.write(b"+OK bye\r\n")
    peer.socket.sendall(peer.go.read() + BROKEN_RECORD)
    peer.socket.close()
    assert stream.read() == b"+OK bye\r\n"
    assert "bad record mac" in str(stream.failure)


def test_the_end_of_writing_is_told_and_what_comes_behind_it_is_not_opened(talk: Pairs) -> None:
    stream, peer = talk()
    stream.write(b"+OK bye\r\n")
    stream.end_writing()
    assert peer.hears() == b"+OK bye\r\n"
    assert peer.socket.recv(1) == b""
    peer.socket.sendall(b"no TLS at all")
    assert stream.read() == b"no TLS at all"
    peer.socket.shutdown(socket.SHUT_WR)
    assert stream.read() == b""
    assert stream.ended


def test_a_close_says_close_notify(talk: Pairs) -> None:
    stream, peer = talk()
    stream.close()
    assert peer.hears() == b""  # with less it would be SSLEOFError


def test_the_oldest_version_is_that_of_the_settings(talk: Pairs, authority: Authority) -> None:
    context = authority.trusting()
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    with pytest.raises(OSError, match="unsupported protocol"):
        talk(context, tls_min_version=TlsVersion.V1_3)


def test_a_cipher_without_aead_is_for_whom_asks_for_it(talk: Pairs, authority: Authority) -> None:
    context = authority.trusting()
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers("ECDHE-ECDSA-AES256-SHA384")
    with pytest.raises(OSError, match="no shared cipher"):
        talk(context)
    stream, _ = talk(context, tls_ciphers="ECDHE+AES")
    assert stream.facts().cipher == "ECDHE-ECDSA-AES256-SHA384"


def test_ciphers_are_those_of_the_settings(talk: Pairs, authority: Authority) -> None:
    context = authority.trusting()
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    stream, _ = talk(context, tls_ciphers="ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-RSA-AES128-GCM-SHA256")
    assert "AES128-GCM-SHA256" in stream.facts().cipher


def test_a_clients_certificate_is_verified_and_its_subject_told(talk: Pairs, authority: Authority) -> None:
    pair = authority.sign("alice@example.com", common_name="Alice, of the office")
    context = authority.trusting()
    context.load_cert_chain(pair.certificate, pair.key)
    stream, _ = talk(context, tls_client_ca=str(authority.file))
    subject = stream.subject()
    assert subject is not None
    assert "CN=Alice\\, of the office" in subject.split(",O=")[0]


def test_a_clients_certificate_of_somebody_else_is_refused(talk: Pairs, authority: Authority, tmp_path: Path) -> None:
    pair = Authority(tmp_path).sign("mallory@example.com")
    context = authority.trusting()
    context.load_cert_chain(pair.certificate, pair.key)
    with pytest.raises(OSError, match="the certificate fails"):
        talk(context, tls_client_ca=str(authority.file))


def test_an_authority_below_another_is_trusted_by_itself(authority: Authority) -> None:
    pair, own = authority.below(NAME)
    ours, theirs = socket.socketpair()
    with ours, theirs:
        for end in (ours, theirs):
            end.setblocking(False)
        made = contexts(service(server_tls=Tls.IMPLICIT, server_ca=str(own), server_name=NAME))
        stream, peer = made.to_server(Stream(ours)), Peer(authority.serving(pair), theirs, server_side=True)
        peer.shake(stream)
        peer.say(b"+OK ready\r\n")
        assert stream.read() == b"+OK ready\r\n"


def test_a_client_need_not_show_one(talk: Pairs, authority: Authority) -> None:
    stream, _ = talk(tls_client_ca=str(authority.file))
    assert stream.subject() is None


@pytest.mark.parametrize(
    ("asked", "shown"),
    [
        (None, "first.example"),
        ("unknown.example", "first.example"),
        ("second.example", "second.example"),
        ("SECOND.example", "second.example"),
        ("a.third.example", "*.third.example"),
        ("a.b.third.example", "first.example"),
    ],
)
def test_the_certificate_is_that_of_the_name(authority: Authority, asked: str | None, shown: str) -> None:
    names = ("first.example", "second.example", "*.third.example")
    pairs = [authority.sign(name) for name in names]
    certificates = tuple(
        Certificate(name if number else "", str(pair.certificate))
        for number, (name, pair) in enumerate(zip(names, pairs, strict=True))
    )
    made = contexts(
        Service(
            name="one",
            listen=(),
            server=Address(NAME, 110),
            tls=Tls.REQUIRED,
            tls_certificate=certificates,
            tls_key=tuple(str(pair.key) for pair in pairs),
        )
    )
    context = authority.trusting()
    context.check_hostname = False
    ours, theirs = socket.socketpair()
    with ours, theirs:
        for end in (ours, theirs):
            end.setblocking(False)
        peer = Peer(context, theirs)
        peer.tls = context.wrap_bio(peer.come, peer.go, server_hostname=asked)
        peer.shake(made.to_client(Stream(ours)))
        certificate = peer.tls.getpeercert()
    assert certificate is not None
    assert certificate["subjectAltName"] == (("DNS", shown),)


# Towards the server.


def test_a_server_is_verified(authority: Authority) -> None:
    stream, peer, ends = to_server(authority, authority.server)
    peer.shake(stream)
    peer.say(b"+OK ready\r\n")
    assert stream.read() == b"+OK ready\r\n"
    for end in ends:
        end.close()


@pytest.mark.parametrize(
    ("which", "settings", "said"),
    [
        ("expired", {}, "certificate has expired"),
        ("elsewhere", {}, "Hostname mismatch"),
        ("here", {"server_name": "other.example"}, "Hostname mismatch"),
        ("unknown", {}, "unable to get local issuer certificate"),
        ("here", {"server_fingerprint": ("0" * 64,)}, "fingerprint is"),
    ],
)
def test_a_server_that_is_another_is_not_used(
    authority: Authority, tmp_path: Path, which: str, settings: dict[str, object], said: str
) -> None:
    pair = {
        "expired": lambda: authority.expired(NAME),
        "elsewhere": lambda: authority.sign("elsewhere.example"),
        "here": lambda: authority.server,
        "unknown": lambda: Authority(tmp_path).sign(NAME),
    }[which]()
    stream, peer, ends = to_server(authority, pair, **settings)
    with pytest.raises(OSError, match=said):
        peer.shake(stream)
    for end in ends:
        end.close()


def test_a_server_by_its_fingerprint_its_name_and_its_chain(authority: Authority) -> None:
    pair = authority.chained("real.example")
    settings = {"server_name": "real.example", "server_fingerprint": ("0" * 64, pair.fingerprint)}
    stream, peer, ends = to_server(authority, pair, **settings)
    peer.shake(stream)
    for end in ends:
        end.close()


@pytest.mark.parametrize("hashed", [False, True], ids=["as it is", "with hash links"])
def test_authorities_are_those_in_a_folder(authority: Authority, tmp_path: Path, hashed: bool) -> None:
    folder = tmp_path / "authorities"
    folder.mkdir()
    for name, one in (("theirs.crt", Authority(tmp_path)), ("ours.pem", authority)):
        (folder / name).write_bytes(one.file.read_bytes())
    if hashed:
        subprocess.run(["openssl", "rehash", folder], check=True, capture_output=True)
    (folder / "folder").mkdir()
    (folder / "README").write_text("Not a certificate.\n")
    (folder / "gone.pem").symlink_to("nowhere")
    made = contexts(service(server_tls=Tls.IMPLICIT, server_ca=str(folder)))
    shutil.rmtree(folder)  # all is read by now
    ours, theirs = socket.socketpair()
    with ours, theirs:
        for end in (ours, theirs):
            end.setblocking(False)
        peer = Peer(authority.serving(), theirs, server_side=True)
        peer.shake(made.to_server(Stream(ours)))


def test_the_gateway_shows_its_own_certificate(authority: Authority) -> None:
    own = authority.sign("gateway.example", common_name="gateway")
    serving = authority.serving()
    serving.verify_mode = ssl.CERT_REQUIRED
    serving.load_verify_locations(authority.file)
    stream, peer, ends = to_server(
        authority, authority.server, server_certificate=str(own.certificate), server_key=str(own.key)
    )
    peer.tls = serving.wrap_bio(peer.come, peer.go, server_side=True)
    peer.shake(stream)
    assert "gateway" in str(peer.tls.getpeercert())
    for end in ends:
        end.close()


# Settings that can't be used.


def encrypted(pair: Pair, folder: Path, passphrase: str) -> str:
    path = folder / "encrypted.key"
    subprocess.run(
        ["openssl", "pkey", "-in", pair.key, "-out", path, "-aes256", "-passout", f"pass:{passphrase}"],
        check=True,
        capture_output=True,
    )
    return str(path)


def test_a_key_with_its_passphrase(authority: Authority, tmp_path: Path) -> None:
    secret = tmp_path / "passphrase"
    secret.write_text("correct horse\n")
    key = encrypted(authority.server, tmp_path, "correct horse")
    certificate = (Certificate("", str(authority.server.certificate)),)
    made = contexts(
        service(tls=Tls.IMPLICIT, tls_certificate=certificate, tls_key=(key,), tls_key_passphrase=str(secret))
    )
    assert made.client is not None


@pytest.mark.parametrize(
    ("settings", "key", "found"),
    [
        ({"tls_certificate": ()}, "tls", "implicit, but there is no tls_certificate"),
        ({"tls_key": ("{other}", "{other}")}, "tls_key", "2 keys for 1 certificates"),
        ({"tls_key": ("{other}",)}, "tls_certificate", "key values mismatch"),
        ({"tls_key": ("/nonexistent",)}, "tls_key", "/nonexistent: No such file or directory"),
        ({"tls_certificate": (Certificate("", "/nonexistent"),)}, "tls_certificate", "No such file or directory"),
        *(
            ({"tls_certificate": (Certificate("", bad),)}, "tls_certificate", f"{bad}: no certificate can be read")
            for bad in ("{text}", "{nothing}", "{key}", "{half}", "{binary}")
        ),
        *(
            ({"tls_key": (bad,)}, "tls_key", f"{bad}: no key can be read from it")
            for bad in ("{text}", "{nothing}", "{certificate}", "{half key}")
        ),
        (
            {"tls_certificate": (Certificate("", "{certificate}"),), "tls_key": ()},
            "tls_certificate",
            "{certificate}: no key can be read from it",
        ),
        ({"tls_key": ("{encrypted}",)}, "tls_key", "it is encrypted, and there is no passphrase"),
        (
            {"tls_key": ("{encrypted}",), "tls_key_passphrase": "{text}"},
            "tls_key",
            "the passphrase is another",
        ),
        ({"tls_key": ("{encrypted}",), "tls_key_passphrase": "/nonexistent"}, "tls_key_passphrase", "No such file"),
        ({"tls_client_ca": "{text}"}, "tls_client_ca", "{text}: "),
        ({"tls_ciphers": "NONSENSE"}, "tls_ciphers", '"NONSENSE", of which OpenSSL knows no cipher'),
        ({"server_tls": Tls.REQUIRED, "server_ca": "/nonexistent"}, "server_ca", "No such file or directory"),
        ({"server_tls": Tls.REQUIRED, "server_ca": "{text}"}, "server_ca", "{text}: no certificate or crl found"),
        ({"server_tls": Tls.REQUIRED, "server_ca": "{empty}"}, "server_ca", "{empty}: no certificate is in it"),
        ({"server_tls": Tls.REQUIRED, "server_ca": "{broken}"}, "server_ca", "{broken}/broken.pem: no PEM, or cut off"),
        ({"tls_client_ca": "{empty}"}, "tls_client_ca", "{empty}: no certificate is in it"),
        ({"server_tls": Tls.REQUIRED, "server_certificate": "{text}"}, "server_certificate", "{text}: no certificate"),
        (
            {"server_tls": Tls.REQUIRED, "server_certificate": "{certificate}", "server_key": "{text}"},
            "server_key",
            "{text}: no key can be read from it",
        ),
    ],
)
def test_settings_that_can_not_be_used_are_named(
    authority: Authority, tmp_path: Path, settings: dict[str, object], key: str, found: str
) -> None:
    text = tmp_path / "text"
    text.write_text("nothing like it\n")
    empty, broken = tmp_path / "empty", tmp_path / "broken"
    empty.mkdir()
    broken.mkdir()
    (broken / "broken.pem").write_text("-----BEGIN CERTIFICATE-----\nnothing\n-----END CERTIFICATE-----\n")
    (tmp_path / "nothing").touch()
    pair = authority.sign("a.example")
    halves = [path.read_text()[: path.stat().st_size // 3] for path in (pair.certificate, pair.key)]
    (tmp_path / "half").write_text(halves[0])
    (tmp_path / "half key").write_text(halves[1])
    (tmp_path / "binary").write_bytes(ssl.PEM_cert_to_DER_cert(authority.file.read_text()))
    places = {
        **{f"{{{name}}}": str(tmp_path / name) for name in ("nothing", "half", "half key", "binary")},
        "{key}": str(pair.key),
        "{certificate}": str(pair.certificate),
        "{empty}": str(empty),
        "{broken}": str(broken),
        "{other}": str(authority.sign("other.example").key),
        "{text}": str(text),
        "{encrypted}": encrypted(authority.server, tmp_path, "correct horse"),
    }

    def filled(value: object) -> object:
        if isinstance(value, tuple):
            return tuple(filled(item) for item in value)
        if isinstance(value, Certificate):
            return Certificate(value.name, places.get(value.file, value.file))
        return places.get(value, value) if isinstance(value, str) else value

    base = service(authority.server)
    given = {name: getattr(base, name) for name in ("name", "listen", "server", "tls", "tls_certificate", "tls_key")}
    with pytest.raises(TlsError) as caught:
        contexts(Service(**{**given, **{name: filled(value) for name, value in settings.items()}}))
    (fault,) = caught.value.faults
    assert fault.key == key
    for name, place in places.items():
        found = found.replace(name, place)
    assert found in fault.found
    assert fault.expected


def test_all_settings_that_can_not_be_used_are_named_each_once() -> None:
    wrong: dict[str, object] = {
        "tls": Tls.IMPLICIT,
        "tls_certificate": (Certificate("", "/no/one"), Certificate("a.example", "/no/two")),
        "tls_key": ("/no/key", "/no/key"),
        "tls_key_passphrase": "/no/passphrase",
        "tls_client_ca": "/no/clients",
        "tls_ciphers": "NONSENSE",
        "server_tls": Tls.REQUIRED,
        "server_ca": "/no/servers",
        "server_certificate": "/no/own",
    }

    def told(**settings: object) -> list[tuple[str, str]]:
        with pytest.raises(TlsError) as caught:
            contexts(service(**{**wrong, **settings}))
        return [(fault.key, fault.found.partition(":")[0]) for fault in caught.value.faults]

    assert sorted(told()) == sorted(
        [
            ("tls_ciphers", '"NONSENSE", of which OpenSSL knows no cipher'),
            ("tls_certificate", "/no/one"),
            ("tls_certificate", "/no/two"),
            ("tls_key", "/no/key"),
            ("tls_key_passphrase", "/no/passphrase"),
            ("tls_client_ca", "/no/clients"),
            ("server_ca", "/no/servers"),
            ("server_certificate", "/no/own"),
        ]
    )
    lacking = told(tls_certificate=())
    assert lacking[0] == ("tls", "implicit, but there is no tls_certificate")
    assert lacking[1][0] == "tls_ciphers"


# Small things.


def test_warming_up_changes_nothing(talk: Pairs, authority: Authority) -> None:
    for made in (
        contexts(service(authority.server)),
        contexts(service(server_tls=Tls.IMPLICIT, server_ca=str(authority.file))),
        Contexts(),
    ):
        made.warm_up()
    talk()


@pytest.mark.parametrize(
    ("name", "text"),
    [
        (((("countryName", "DE"),), (("commonName", "Alice"),)), "CN=Alice,C=DE"),
        (((("commonName", "a"), ("userId", "b")),), "CN=a+UID=b"),
        (((("commonName", '#a, "b"+c\\ '),),), 'CN=\\#a\\, \\"b\\"\\+c\\\\\\ '),
        (((("serialNumber", "7"),),), "serialNumber=7"),
        (((("commonName", " "),),), "CN=\\ "),
        (((("commonName", "a\nb\u2028"),),), "CN=a\\0Ab\\E2\\80\\A8"),
    ],
)
def test_subjects_are_written_as_rfc_4514_wants(name: tuple[tuple[tuple[str, str], ...], ...], text: str) -> None:
    assert subject_text(name) == text


def test_a_session_with_bulk_behind_it_keeps_little_memory(talk: Pairs) -> None:
    stream, peer = talk()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for _ in range(50):
        stream.write(b"x" * (1 << 18))
        while stream.unsent is not None:
            peer.hears()
            stream.flush()
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 8192  # KiB; 12.5 MiB have passed


def test_a_handshake_waits_for_what_the_peer_owes(authority: Authority) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.setblocking(False)
        stream = contexts(service(authority.server)).to_client(Stream(ours))
        assert not stream.shake_hands()
        assert stream.waits_for == selectors.EVENT_READ
        theirs.close()
        with pytest.raises(OSError, match="without close_notify"):
            stream.shake_hands()


@pytest.mark.interpreted  # that it is asked for is seen, not what comes of it
def test_parts_of_what_tls_says_are_acknowledged_at_once(authority: Authority, monkeypatch: pytest.MonkeyPatch) -> None:
    acknowledged: list[Stream] = []
    monkeypatch.setattr(Stream, "acknowledge", lambda stream: acknowledged.append(stream))
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.setblocking(False)
        theirs.setblocking(False)
        stream = contexts(service(authority.server)).to_client(Stream(ours))
        peer = Peer(authority.trusting(), theirs)
        with pytest.raises(ssl.SSLWantReadError):
            peer.tls.do_handshake()
        hello = peer.go.read()
        for part, more in ((hello[:100], 1), (hello[100:], 0)):  # to a whole one there is an answer
            before = len(acknowledged)
            theirs.send(part)
            assert not stream.shake_hands()
            assert len(acknowledged) - before == more
        peer.shake(stream)
        peer.tls.write(b"NOOP\r\n")
        record = peer.go.read()
        for part, data, more in ((record[:10], None, 1), (record[10:], b"NOOP\r\n", 0)):
            before = len(acknowledged)
            theirs.send(part)
            assert stream.read() == data
            assert len(acknowledged) - before == more
