"""Groups of rows that are nearly the same: candidates by shared keys, verified, then stars.

A node is a content: all rows with one perceptual hash, or with one normalized caption. Nodes are
ordered by the smallest xxhash64(uid) of their rows: at random, and the same in every run. An edge
joins two nodes that were compared and are near. Then, in that order, each node that no earlier one
has claimed claims all later ones that it shares an edge with: a star. So

- every member of a star is near its centre (verified, no chains of neighbours), and no two centres
  that were compared are near each other;
- what stands for a star is the first row of its centre, the one with the smallest xxhash64(uid);
- nothing depends on partitions or on the order of rows.

Nodes are compared where they share a key. A key that more than KEY_NODES nodes share (there are
such keys among a million charts on white) would cost the square of their number: of these nodes,
each is compared with the first only.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from functools import reduce
from operator import add

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

KEY_NODES = 100
"""So many nodes with a key in common are all compared with each other: 4,950 comparisons."""

COLLECTED_EDGES = 200_000
"""So many edges are sorted out on the driver, some 100 MB; more by rounds of joins."""

Node = tuple[int, int, str]
"""A node's place in the order: 1 if no row has a uid, else 0; smallest hash of a uid; its name."""


def nodes_of(rows: DataFrame, name: str, carried: Sequence[str]) -> DataFrame:
    """One row a node from rows with `row` and the column `name`, null where a row is no node's.

    Columns: `name`; `node` (struct: `absent`, `hash`, `name`); `first`, the smallest `row`; `rows`,
    how many there are; `carried`, which are the same in all rows of a node.
    """
    grouped = rows.where(F.col(name).isNotNull()).groupBy(F.col(name).alias("name"))
    nodes = grouped.agg(
        F.min("row").alias("first"),
        F.count("*").alias("rows"),
        *(F.first(column).alias(column) for column in carried),
    )
    node = F.struct(F.col("first.absent"), F.col("first.hash"), F.col("name"))
    return nodes.withColumn("node", node)


def candidates(nodes: DataFrame, keys: str, most: int = KEY_NODES) -> DataFrame:
    """Pairs of nodes that have one of their `keys` (arrays of whole numbers) in common.

    Columns `small` and `big`: nodes, the earlier one first. A pair may come more than once.
    """
    keyed = nodes.select("node", F.explode(keys).alias("key"))
    shared = keyed.groupBy("key").agg(F.count("*").alias("nodes"), F.min("node").alias("head"))
    keyed = keyed.join(shared.where("nodes > 1"), on="key", how="inner")
    compared = (F.col("nodes") <= most) | (F.col("node") == F.col("head"))
    small = keyed.where(compared).select("key", F.col("node").alias("small"))
    big = keyed.select("key", F.col("node").alias("big"))
    return small.join(big, on="key", how="inner").where("small < big").select("small", "big")


def near_images(nodes: DataFrame, distance: int) -> DataFrame:
    """Edges between nodes named by perceptual hashes at most `distance` bits apart."""
    pairs = candidates(nodes, "image_keys")
    apart = bits_apart(F.col("small.name"), F.col("big.name"))
    return pairs.where(apart <= distance).distinct()


def near_captions(nodes: DataFrame, similarity: float) -> DataFrame:
    """Edges between nodes whose `shingles` (sets, as arrays) have a Jaccard similarity of at least
    `similarity`."""
    pairs = candidates(nodes, "caption_keys").distinct()
    for end in ("small", "big"):
        parts = nodes.select(F.col("node").alias(end), F.col("shingles").alias(f"{end}_parts"))
        pairs = pairs.join(parts, on=end, how="inner")
    both = F.size("small_parts") + F.size("big_parts")
    common = F.size(F.array_intersect("small_parts", "big_parts"))
    near = common / (both - common) >= similarity
    return pairs.where(near).select("small", "big")


def bits_apart(one: Column, other: Column) -> Column:
    """How many bits two hashes of 16 hex digits differ in, 0..64."""

    def half(hash_: Column, start: int) -> Column:
        return F.conv(F.substring(hash_, start, 8), 16, 10).cast("long")

    differing = (F.bit_count(half(one, s).bitwiseXOR(half(other, s))) for s in (1, 9))
    return reduce(add, differing)


def groups(nodes: DataFrame, edges: DataFrame) -> DataFrame:
    """For each node its star: `name`, `centre` (the `first` row of its centre), `copies` (rows in
    the star). Actions: counts the edges."""
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
    """Claimed node -> its star, both by name: the first centre that it has an edge with."""
    earlier: dict[Node, list[Node]] = defaultdict(list)
    for small, big in edges:
        earlier[big].append(small)
    claims: dict[str, str] = {}
    for node in sorted(earlier):  # whoever is first in an edge has been decided before
        centres = [other for other in earlier[node] if other[2] not in claims]
        if centres:
            claims[node[2]] = min(centres)[2]
    return claims


def claims_by_rounds(edges: DataFrame) -> DataFrame:
    """`claims_of` for any number of edges: columns `name` and `star`.

    In each round every node that has no earlier one left is a centre, and claims. The order being
    random, the rounds are about as many as the logarithm of the nodes.
    """
    left = edges
    claimed: DataFrame | None = None
    while not left.isEmpty():
        bigs = left.select(F.col("big").alias("small"))
        centres = left.select("small").distinct().join(bigs, on="small", how="left_anti")
        gone = left.join(centres, on="small", how="left_semi").select("big").distinct()
        gone = gone.localCheckpoint()  # else the plan doubles in every round
        as_small = gone.withColumnRenamed("big", "small")
        left = left.join(gone, on="big", how="left_anti").select("small", "big")
        left = left.join(as_small, on="small", how="left_anti").localCheckpoint()
        claimed = gone if claimed is None else claimed.unionByName(gone)
    if claimed is None:
        return _as_claims(edges)
    as_small = claimed.withColumnRenamed("big", "small")
    return _as_claims(edges.join(as_small, on="small", how="left_anti"))


def _as_claims(edges: DataFrame) -> DataFrame:
    """From edges that start at centres."""
    first = edges.groupBy("big").agg(F.min("small").alias("small"))
    return first.select(F.col("big.name").alias("name"), F.col("small.name").alias("star"))


def _collected_claims(edges: DataFrame) -> DataFrame:
    ends = [f"{end}.{field}" for end in ("small", "big") for field in ("absent", "hash", "name")]
    rows = [tuple(row) for row in edges.select(*map(F.col, ends)).collect()]
    claims = claims_of((row[:3], row[3:]) for row in rows)
    return edges.sparkSession.createDataFrame(sorted(claims.items()), "name string, star string")
