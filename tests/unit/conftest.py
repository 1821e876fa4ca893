"""What several units are tried with."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from pop3gw.poller import Poller


@pytest.fixture
def poller() -> Iterator[Poller]:
    poller = Poller()
    yield poller
    poller.close()
