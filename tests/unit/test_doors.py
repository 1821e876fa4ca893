"""The sockets of attendants: bound, refused, removed."""

from __future__ import annotations

import os
import socket
import stat
from pathlib import Path

import pytest

from pop3gw import listeners
from pop3gw.doors import Doors, fault
from pop3gw.errors import ConfigurationError, StartError
from pop3gw.privileges import acting_as, find_account
from pop3gw.settings import Config, Service
from pop3gw.values import Address


def config(**settings: object) -> Config:
    return Config(source="pop3gw.conf", **{"control_socket": None, **settings})  # type: ignore[arg-type]


def test_nothing_that_is_not_asked_for() -> None:
    doors = Doors.open(config(), None)
    assert (doors.control, doors.metrics, doors.descriptors()) == (None, None, [])
    doors.close()


def test_the_control_socket_is_made_with_its_folder_and_removed(tmp_path: Path) -> None:
    path = tmp_path / "run" / "pop3gw.sock"
    doors = Doors.open(config(control_socket=str(path)), None)
    assert stat.S_IMODE(path.stat().st_mode) == 0o660
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))
    doors.close()
    assert not path.exists()


def test_one_that_was_left_behind_is_replaced_one_that_is_used_is_not(tmp_path: Path) -> None:
    path = str(tmp_path / "pop3gw.sock")
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(path)
    doors = Doors.open(config(control_socket=path), None)
    with pytest.raises(StartError, match="a gateway that runs; stop that one, or set another control_socket"):
        Doors.open(config(control_socket=path), None)
    assert Path(path).is_socket()
    doors.close()


def test_one_whose_gateway_has_no_time_is_used_too(tmp_path: Path) -> None:
    path = str(tmp_path / "pop3gw.sock")
    with socket.socket(socket.AF_UNIX) as door, socket.socket(socket.AF_UNIX) as waiting:
        door.bind(path)
        door.listen(0)
        waiting.connect(path)
        with pytest.raises(StartError, match="belongs to a gateway that runs"):
            Doors.open(config(control_socket=path), None)
        assert Path(path).is_socket()


def test_a_file_that_is_no_socket_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "notes"
    path.write_text("mine")
    with pytest.raises(StartError, match="it is no socket"):
        Doors.open(config(control_socket=str(path)), None)
    assert path.read_text() == "mine"


def test_a_socket_that_another_gateway_made_since_is_left_to_it(tmp_path: Path) -> None:
    path = tmp_path / "pop3gw.sock"
    first = Doors.open(config(control_socket=str(path)), None)
    path.unlink()
    second = Doors.open(config(control_socket=str(path)), None)
    first.close()
    assert path.is_socket()
    second.close()


@pytest.mark.parametrize("path", ["/nowhere/at/all/pop3gw.sock", "/tmp/" + "x" * 120])
def test_a_path_that_can_not_be_is_named(path: str) -> None:
    with pytest.raises(StartError, match="set control_socket"):
        Doors.open(config(control_socket=path), None)


def test_where_one_can_not_be_had_the_other_is_given_back(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ConfigurationError, match="metrics_listen"):
            Doors.open(config(metrics_listen=Address("127.0.0.1", port)), None)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with pytest.raises(StartError):
        Doors.open(config(metrics_listen=Address("127.0.0.1", port), control_socket=str(tmp_path)), None)
    socket.create_server(("127.0.0.1", port)).close()


def test_the_metrics_on_every_ipv6_address_leave_ipv4_to_a_listener() -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    service = Service(name="one", listen=(Address("0.0.0.0", port),), server=Address("192.0.2.1", 110))
    both = config(metrics_listen=Address("::", port), services=(service,))
    bound = listeners.bind(both, [])
    doors = Doors.open(both, None)
    try:
        listeners.listen(both, bound)
        assert doors.metrics_at() == Address("::", port)
        for host, end in (("127.0.0.1", bound[0].socket), ("::1", doors.metrics)):
            assert end is not None
            with socket.create_connection((host, port)), end.accept()[0] as accepted:
                assert accepted.getsockname()[0] == host
    finally:
        doors.close()
        listeners.close(bound)


def test_the_folder_of_the_control_socket_can_be_entered_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        Doors.open(config(control_socket=str(tmp_path / "run" / "pop3gw.sock")), None).close()
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "run").stat().st_mode) == 0o755


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another account")
def test_where_the_control_socket_could_not_be_made_is_known_before(folder: Path) -> None:
    nobody = find_account("nobody", None)
    assert nobody is not None
    for path in (f"{folder}/pop3gw.sock", f"{folder}/run/pop3gw.sock"):
        assert fault(path) == ""
        with acting_as(nobody):
            assert f"where this account (uid {nobody.uid}) may not write" in fault(path)
