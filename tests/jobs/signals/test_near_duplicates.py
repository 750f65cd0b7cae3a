"""Groups of rows that are nearly the same, without Spark."""

import random

from hypothesis import given, settings
from hypothesis import strategies as st

from jobs.signals.near_duplicates import Node, claims_of

NO_DEADLINE = settings(deadline=None)  # the machine may be busy


NODES = [(n % 2, n * 7919 % 31, f"node-{n}") for n in range(12)]


@NO_DEADLINE
@given(
    st.sets(st.tuples(st.sampled_from(NODES), st.sampled_from(NODES)), max_size=40), st.randoms()
)
def test_stars_are_near_their_centres_and_centres_are_apart(
    drawn: set[tuple[Node, Node]], rng: random.Random
) -> None:
    edges = [(min(pair), max(pair)) for pair in drawn if pair[0] != pair[1]]
    claims = claims_of(edges)
    by_name = {node[2]: node for node in NODES}
    edge_names = {(small[2], big[2]) for small, big in edges}
    for name, centre in claims.items():
        assert (centre, name) in edge_names
        assert centre not in claims
        assert by_name[centre] < by_name[name]
        centres = [earlier for earlier, n in edge_names if n == name and earlier not in claims]
        assert centre == min(centres, key=by_name.__getitem__)
    for small, big in edge_names:
        assert small in claims or big in claims
    rng.shuffle(edges)
    assert claims_of(edges) == claims
