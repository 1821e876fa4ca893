"""The fuzz target, bounded: the kept corpus, and inputs that hypothesis makes up. ``grow`` extends the corpus."""

from __future__ import annotations

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.fuzz.grow import CORPUS
from tests.fuzz.target import POLICIES, run

KEPT = sorted(CORPUS.iterdir())


@pytest.mark.parametrize("path", KEPT, ids=lambda path: path.name)
def test_the_kept_corpus(path: object) -> None:
    run(CORPUS.joinpath(str(path)).read_bytes())


def test_the_corpus_is_there() -> None:
    assert len(KEPT) > 20


# Operations rather than octets: hypothesis then shrinks to a short session.
OPERATION = st.one_of(
    st.tuples(st.integers(0, 2), st.integers(0, 255)).map(bytes),
    st.tuples(st.integers(3, 5), st.integers(0, 255)).map(bytes),
    st.binary(min_size=1, max_size=6),
)


@settings(max_examples=2000, deadline=None, derandomize=True)
@given(policy=st.integers(0, len(POLICIES) - 1), operations=st.lists(OPERATION, max_size=40))
@example(policy=0, operations=[b"\xff"])
def test_a_reply_a_close_or_a_refusal(policy: int, operations: list[bytes]) -> None:
    run(bytes((policy,)) + b"".join(operations))
