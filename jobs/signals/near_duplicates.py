"""Groups of rows that are nearly the same: candidates by shared keys, verified, grouped into stars.

A node is one content: all rows with the same perceptual hash, or with the same normalized caption.
Nodes are ordered by the smallest xxhash64(uid) of their rows: a random order, but the same in every
run. An edge joins two nodes that were compared and are near. Then, in that order, each node that no
earlier one has claimed becomes a centre and claims all later nodes that it shares an edge with: a
star. So

- every member of a star is near its centre (verified; no chains of neighbours), and no two centres
  that were compared are near each other;
- a star is represented by the first row of its centre, the one with the smallest xxhash64(uid);
- nothing depends on partitions or on the order of rows.

Nodes are compared if they share a key. Comparing all nodes of a common key would take the square of
their number (a million charts on white have such keys): if more than KEY_NODES nodes share a key,
each of them is compared with the first only.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from functools import reduce
from operator import add

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

KEY_NODES = 100
"""Up to this many nodes with a common key are all compared with each other: 4,950 comparisons."""

COLLECTED_EDGES = 200_000
"""Up to this many edges are grouped on the driver, in some 100 MB; more in rounds of joins."""

Node = tuple[int, int, str]
"""A node, in sort order: 1 if none of its rows has a uid, else 0; smallest hash of a uid; name."""


def nodes_of(rows: DataFrame, name: str, extra: Sequence[str]) -> DataFrame:
    """One row per node, from rows with `row` and the column `name` (null: the row has no node).

    Columns: `name`; `node` (struct: `absent`, `hash`, `name`); `first`, the smallest `row`; `rows`,
    how many there are; and the columns in `extra`, which are the same in all rows of a node.
    """
    grouped = rows.where(F.col(name).isNotNull()).groupBy(F.col(name).alias("name"))
    nodes = grouped.agg(
        F.min("row").alias("first"),
        F.count("*").alias("rows"),
        *(F.first(column).alias(column) for column in extra),
    )
    node = F.struct(F.col("first.absent"), F.col("first.hash"), F.col("name"))
    return nodes.withColumn("node", node)


def candidates(nodes: DataFrame, keys: str, max_nodes: int = KEY_NODES) -> DataFrame:
    """Pairs of nodes that have one of their `keys` (arrays of integers) in common.

    Columns `small` and `big`: the earlier and the later node. A pair may occur more than once.
    """
    keyed = nodes.select("node", F.explode(keys).alias("key"))
    shared = keyed.groupBy("key").agg(F.count("*").alias("nodes"), F.min("node").alias("first"))
    keyed = keyed.join(shared.where("nodes > 1"), on="key", how="inner")
    compared = (F.col("nodes") <= max_nodes) | (F.col("node") == F.col("first"))
    small = keyed.where(compared).select("key", F.col("node").alias("small"))
    big = keyed.select("key", F.col("node").alias("big"))
    return small.join(big, on="key", how="inner").where("small < big").select("small", "big")


def near_images(nodes: DataFrame, distance: int) -> DataFrame:
    """Edges between nodes whose perceptual hashes differ in at most `distance` of 64 bits."""
    pairs = candidates(nodes, "image_keys")
    bits = hamming_distance(F.col("small.name"), F.col("big.name"))
    return pairs.where(bits <= distance).distinct()


def near_captions(nodes: DataFrame, similarity: float) -> DataFrame:
    """Edges between nodes whose `shingles` (arrays without repeats) have at least this Jaccard
    similarity, 0..1."""
    pairs = candidates(nodes, "caption_keys").distinct()
    for end in ("small", "big"):
        shingles = nodes.select(
            F.col("node").alias(end), F.col("shingles").alias(f"{end}_shingles")
        )
        pairs = pairs.join(shingles, on=end, how="inner")
    common = F.size(F.array_intersect("small_shingles", "big_shingles"))
    union = F.size("small_shingles") + F.size("big_shingles") - common
    return pairs.where(common / union >= similarity).select("small", "big")


def hamming_distance(a: Column, b: Column) -> Column:
    """The number of bits in which two hashes of 16 hex digits differ, 0..64."""

    def half(hash_: Column, start: int) -> Column:
        return F.conv(F.substring(hash_, start, 8), 16, 10).cast("long")

    differing = (F.bit_count(half(a, s).bitwiseXOR(half(b, s))) for s in (1, 9))
    return reduce(add, differing)


def groups(nodes: DataFrame, edges: DataFrame) -> DataFrame:
    """The star of each node: `name`, `centre` (the `first` row of its centre), `copies` (its rows).

    Runs Spark jobs: it counts the edges.
    """
    edges = edges.persist()
    few = edges.count() <= COLLECTED_EDGES
    claims = _collected_claims(edges) if few else claims_by_rounds(edges).localCheckpoint()
    edges.unpersist()
    named = nodes.select("name", "node", "first", "rows").join(claims, on="name", how="left")
    named = named.withColumn("star", F.coalesce("star", "name"))
    stars = named.groupBy("star").agg(
        F.min_by("first", "node").alias("centre"), F.sum("rows").alias("copies")
    )
    return named.select("name", "star").join(stars, on="star", how="inner").drop("star")


def claims_of(edges: Iterable[tuple[Node, Node]]) -> dict[str, str]:
    """Claimed node -> its centre, both by name: the first centre that it has an edge with."""
    earlier: dict[Node, list[Node]] = defaultdict(list)
    for small, big in edges:
        earlier[big].append(small)
    claims: dict[str, str] = {}
    for node in sorted(earlier):  # the earlier node of each edge has been decided before
        centres = [other for other in earlier[node] if other[2] not in claims]
        if centres:
            claims[node[2]] = min(centres)[2]
    return claims


def claims_by_rounds(edges: DataFrame) -> DataFrame:
    """`claims_of` for any number of edges: columns `name` and `star`.

    In each round, every node that has no earlier neighbour left becomes a centre and claims. As the
    order is random, it takes about as many rounds as the logarithm of the number of nodes.
    """
    remaining = edges
    claimed: DataFrame | None = None
    while not remaining.isEmpty():
        later = remaining.select(F.col("big").alias("small"))
        centres = remaining.select("small").distinct().join(later, on="small", how="left_anti")
        new_claims = remaining.join(centres, on="small", how="left_semi").select("big").distinct()
        new_claims = new_claims.localCheckpoint()  # else the plan doubles in every round
        as_small = new_claims.withColumnRenamed("big", "small")
        remaining = remaining.join(new_claims, on="big", how="left_anti").select("small", "big")
        remaining = remaining.join(as_small, on="small", how="left_anti").localCheckpoint()
        claimed = new_claims if claimed is None else claimed.unionByName(new_claims)
    if claimed is None:
        return _as_claims(edges)
    as_small = claimed.withColumnRenamed("big", "small")
    return _as_claims(edges.join(as_small, on="small", how="left_anti"))


def _as_claims(edges: DataFrame) -> DataFrame:
    """The first centre of each claimed node, from edges that all start at centres."""
    first = edges.groupBy("big").agg(F.min("small").alias("small"))
    return first.select(F.col("big.name").alias("name"), F.col("small.name").alias("star"))


def _collected_claims(edges: DataFrame) -> DataFrame:
    ends = [f"{end}.{field}" for end in ("small", "big") for field in ("absent", "hash", "name")]
    rows = [tuple(row) for row in edges.select(*map(F.col, ends)).collect()]
    claims = claims_of((row[:3], row[3:]) for row in rows)
    return edges.sparkSession.createDataFrame(sorted(claims.items()), "name string, star string")
