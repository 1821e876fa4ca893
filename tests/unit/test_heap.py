"""``heap``: what is there is out of the collector's sight, and new objects lie side by side."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest

from pop3gw import heap

PAGE = 4096
SIZES = [16, 32, 48, 160, 512]


@pytest.fixture(autouse=True)
def _as_before(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(heap, "_placeholders", [])
    yield
    gc.unfreeze()


def test_what_is_there_is_never_looked_at_again() -> None:
    there: list[object] = [[]]
    heap.settle()
    assert gc.get_freeze_count() > 0
    assert not any(found is there for found in gc.get_objects())
    later: list[object] = [[]]
    assert any(found is later for found in gc.get_objects())


@pytest.mark.parametrize("size", SIZES)
def test_where_there_were_gaps_new_objects_lie_side_by_side(size: int) -> None:
    make = heap._maker(size)
    old = [make() for _ in range(256 * 1024 // size)]
    del old[:: PAGE // size]  # a gap on each page
    assert pages([make() for _ in range(20)]) > 10
    heap.close_gaps()
    assert pages([make() for _ in range(20)]) <= 20 * size // PAGE + 3


def pages(objects: list[object]) -> int:
    """On how many pages they are."""
    return len({id(one) // PAGE for one in objects})


@pytest.mark.parametrize("size", SIZES)
def test_makers_make_new_objects_of_the_size(size: int) -> None:
    made = [heap._maker(size)() for _ in range(3)]
    assert len({*map(id, made)}) == 3
    assert all(size - 16 < one.__sizeof__() <= size for one in made)


@pytest.mark.interpreted
def test_another_allocator_costs_no_more_than_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heap, "MOST", 4096)
    monkeypatch.setattr(heap, "_POOL", 1 << 30)  # no such thing will be seen
    heap.close_gaps()
    assert 0 < sum(one.__sizeof__() for made in heap._placeholders for one in made) <= 32 * (4096 + 512)
