-- Ready-made queries over the tables. The table names are those of the views that
--     jobs.tables.sql_views.create_views(spark, pairs=..., scores=..., selection=..., ...)
-- creates; `mlm-filter query --name NAME --scores S ...` runs one and prints its rows. Every query
-- runs as written here. Scores are 0..100; a table with several scorers gives a row for each.

-- name: rows_by_status
-- How many rows have been scored, and why the others have not.
SELECT scorer, status, count(*) AS rows, any_value(reason) AS example
FROM scores
GROUP BY scorer, status
ORDER BY scorer, rows DESC;

-- name: failures
-- Why rows have no scores, commonest first, with the uids of three examples. Reasons that differ
-- only in numbers, hashes or paths are one.
SELECT scorer, status, reason, count(*) AS rows,
       array_sort(collect_set(uid) FILTER (WHERE place <= 3)) AS examples
FROM (
  SELECT *, dense_rank() OVER (PARTITION BY scorer, status, reason ORDER BY uid NULLS LAST) AS place
  FROM (
    SELECT scorer, status, uid,
           regexp_replace(
             regexp_replace(reason, '(?<=^cannot read ).+?(?=: )|(?<!\\w)(\\w+:/)?/[^\\s:,)]+', 'PATH'),
             '0x[0-9a-fA-F]+|\\b[0-9a-f]{8,}\\b|[0-9]+', 'N') AS reason
    FROM scores
    WHERE status NOT IN ('ok', 'caption_truncated')
  )
)
GROUP BY scorer, status, reason
ORDER BY rows DESC, scorer, status, reason;

-- name: score_statistics
-- Mean, spread and quartiles of each metric.
SELECT scorer, metric, count(*) AS rows, round(avg(score), 2) AS mean,
       round(stddev(score), 2) AS deviation, round(median(score), 2) AS median,
       round(percentile(score, 0.25), 2) AS lower_quartile,
       round(percentile(score, 0.75), 2) AS upper_quartile
FROM scores UNPIVOT (score FOR metric IN (itm, odf, ctq, su))
GROUP BY scorer, metric
ORDER BY scorer, metric;

-- name: score_histogram
-- How many pairs have scores of 0 to 9, 10 to 19 ... of each metric; 100 is in the last.
SELECT scorer, metric, CAST(least(floor(score / 10) * 10, 90) AS INT) AS from_score,
       count(*) AS rows
FROM scores UNPIVOT (score FOR metric IN (itm, odf, ctq, su))
GROUP BY scorer, metric, from_score
ORDER BY scorer, metric, from_score;

-- name: metric_agreement
-- Do the metrics agree? Pearson's correlation of each pair of metrics; nothing if a metric has only
-- one value (where corr() divides by zero).
SELECT scorer, count(itm) AS rows,
       round(try_divide(covar_pop(itm, odf), stddev_pop(itm) * stddev_pop(odf)), 3) AS itm_odf,
       round(try_divide(covar_pop(itm, ctq), stddev_pop(itm) * stddev_pop(ctq)), 3) AS itm_ctq,
       round(try_divide(covar_pop(itm, su), stddev_pop(itm) * stddev_pop(su)), 3) AS itm_su,
       round(try_divide(covar_pop(odf, ctq), stddev_pop(odf) * stddev_pop(ctq)), 3) AS odf_ctq,
       round(try_divide(covar_pop(odf, su), stddev_pop(odf) * stddev_pop(su)), 3) AS odf_su,
       round(try_divide(covar_pop(ctq, su), stddev_pop(ctq) * stddev_pop(su)), 3) AS ctq_su
FROM scores
GROUP BY scorer
ORDER BY scorer;

-- name: best_pairs
-- The captions that match their images best.
SELECT uid, scorer, itm, odf, ctq, su, left(caption, 200) AS caption, source_path
FROM scored_pairs
WHERE itm IS NOT NULL
ORDER BY itm DESC, odf DESC, xxhash64(uid), uid
LIMIT 20;

-- name: worst_pairs
-- The captions that match their images worst.
SELECT uid, scorer, itm, odf, ctq, su, left(caption, 200) AS caption, source_path
FROM scored_pairs
WHERE itm IS NOT NULL
ORDER BY itm, odf, xxhash64(uid), uid
LIMIT 20;

-- name: doubtful_pairs
-- Where the model itself is least sure of the match: the flattest distributions over 0 to 100.
SELECT uid, scorer, round(itm_entropy, 2) AS bits_of_doubt, itm, itm_mode,
       left(caption, 200) AS caption
FROM scored_pairs
WHERE itm_entropy IS NOT NULL
ORDER BY itm_entropy DESC, xxhash64(uid), uid
LIMIT 20;

-- name: fluent_but_wrong
-- Well-written captions of something else: a filter on text alone would keep them.
SELECT uid, scorer, round(ctq - itm, 2) AS gap, ctq, itm, left(caption, 200) AS caption
FROM scored_pairs
WHERE ctq > itm
ORDER BY ctq - itm DESC, xxhash64(uid), uid
LIMIT 20;

-- name: top_by_weighted_rank
-- Best by the weighted sum of two ranks (0 to 1), which no metric's scale can dominate. Sorts the
-- whole table in one partition: above some ten million rows use a rule with rank() instead.
SELECT uid, scorer, round(0.6 * itm_rank + 0.4 * odf_rank, 4) AS rank, itm, odf
FROM (
  SELECT uid, scorer, itm, odf,
         percent_rank() OVER (PARTITION BY scorer ORDER BY itm) AS itm_rank,
         percent_rank() OVER (PARTITION BY scorer ORDER BY odf) AS odf_rank
  FROM scores
  WHERE itm IS NOT NULL AND odf IS NOT NULL
)
ORDER BY 0.6 * itm_rank + 0.4 * odf_rank DESC, xxhash64(uid), uid
LIMIT 20;

-- name: threshold_curve
-- How many pairs would a rule `itm >= t` keep, for t in steps of 5?
SELECT scorer, threshold,
       sum(rows) OVER (PARTITION BY scorer ORDER BY threshold DESC) AS kept,
       round(sum(rows) OVER (PARTITION BY scorer ORDER BY threshold DESC)
             / sum(rows) OVER (PARTITION BY scorer), 4) AS kept_fraction
FROM (
  SELECT scorer, CAST(floor(itm / 5) * 5 AS INT) AS threshold, count(*) AS rows
  FROM scores
  WHERE itm IS NOT NULL
  GROUP BY scorer, CAST(floor(itm / 5) * 5 AS INT)
)
ORDER BY scorer, threshold;

-- name: means_by_source
-- Which sources are good? A source is the folder or the tar that an image came from.
SELECT scorer, regexp_replace(source_path, '(#[^#]*|/[^/#]*)$', '') AS source,
       count(*) AS rows, count(itm) AS scored, round(avg(itm), 2) AS itm, round(avg(odf), 2) AS odf,
       round(avg(ctq), 2) AS ctq, round(avg(su), 2) AS su
FROM scored_pairs
GROUP BY scorer, source
ORDER BY itm DESC NULLS LAST, source;

-- name: scores_by_caption_length
-- Do long captions score better?
SELECT scorer, words AS from_words, count(*) AS rows, round(avg(itm), 2) AS itm,
       round(avg(odf), 2) AS odf, round(avg(ctq), 2) AS ctq, round(avg(su), 2) AS su
FROM (
  SELECT *, CAST(floor(least(size(split(trim(caption), '\\s+')), 60) / 5) * 5 AS INT) AS words
  FROM scored_pairs
  WHERE itm IS NOT NULL
)
GROUP BY scorer, words
ORDER BY scorer, words;

-- name: unscored_pairs
-- How many pairs have no scores yet.
SELECT count(*) AS rows, count_if(scorer IS NULL) AS unscored
FROM scored_pairs;

-- name: shared_captions
-- Captions that many images share: boilerplate, such as a shop's name.
SELECT any_value(left(caption, 200)) AS caption, count(*) AS rows,
       count(DISTINCT image_sha) AS images
FROM pairs
GROUP BY caption_sha
HAVING count(DISTINCT image_sha) > 1
ORDER BY images DESC, rows DESC, caption_sha
LIMIT 20;

-- name: scorer_drift
-- How two scorers differ on the pairs that both have scored: an old model and a new one.
SELECT a.scorer AS first, b.scorer AS second, metric, count(*) AS rows,
       round(avg(b.score - a.score), 3) AS mean_change,
       round(avg(abs(b.score - a.score)), 3) AS mean_absolute_change,
       round(try_divide(covar_pop(a.score, b.score),
                        stddev_pop(a.score) * stddev_pop(b.score)), 3) AS correlation
FROM (
  SELECT uid, image_sha, caption_sha, copy, scorer, metric, score
  FROM scores UNPIVOT (score FOR metric IN (itm, odf, ctq, su))
) AS a
JOIN (
  SELECT uid, image_sha, caption_sha, copy, scorer, metric, score
  FROM scores UNPIVOT (score FOR metric IN (itm, odf, ctq, su))
) AS b USING (uid, image_sha, caption_sha, copy, metric)
WHERE a.scorer < b.scorer
GROUP BY a.scorer, b.scorer, metric
ORDER BY first, second, metric;

-- name: funnel
-- The first rule that each row failed; `kept` if it failed none.
SELECT coalesce(first_failed_rule, 'kept') AS fate, count(*) AS rows,
       round(100 * count(*) / sum(count(*)) OVER (), 2) AS percent
FROM selection
GROUP BY first_failed_rule
ORDER BY rows DESC, fate;

-- name: failed_by_one_rule
-- Rows that fail a single rule: loosening that rule would bring them back.
SELECT first_failed_rule AS rule, count(*) AS rows, round(avg(itm), 2) AS itm,
       round(avg(odf), 2) AS odf
FROM selection
WHERE NOT keep AND size(map_filter(rules, (name, passed) -> NOT coalesce(passed, false))) = 1
GROUP BY first_failed_rule
ORDER BY rows DESC, rule;

-- name: kept_by_source
-- What the filter does to each source.
SELECT regexp_replace(source_path, '(#[^#]*|/[^/#]*)$', '') AS source, count(*) AS rows,
       count_if(keep) AS kept, round(100 * count_if(keep) / count(*), 2) AS percent
FROM selected_pairs
GROUP BY source
ORDER BY percent DESC, source;

-- name: repetitions
-- How often kept pairs are repeated, and how many samples that makes.
SELECT repetitions, count(*) AS rows, sum(repetitions) AS samples
FROM selection
WHERE keep
GROUP BY repetitions
ORDER BY repetitions;

-- name: kept_by_language
-- How much of each language does the filter keep?
SELECT g.language, count(*) AS rows, count_if(s.keep) AS kept,
       round(100 * count_if(s.keep) / count(*), 2) AS percent
FROM selection AS s
JOIN signals AS g
  ON s.uid = g.uid AND s.image_sha = g.image_sha AND s.caption_sha = g.caption_sha
GROUP BY g.language
ORDER BY rows DESC, g.language;

-- name: near_duplicates_kept
-- Images of which several near duplicates were kept.
SELECT coalesce(g.near_image_of, g.uid) AS image, count(*) AS kept,
       sort_array(collect_list(g.uid)) AS uids
FROM selection AS s
JOIN signals AS g
  ON s.uid = g.uid AND s.image_sha = g.image_sha AND s.caption_sha = g.caption_sha
WHERE s.keep
GROUP BY coalesce(g.near_image_of, g.uid)
HAVING count(*) > 1
ORDER BY kept DESC, image
LIMIT 20;

-- name: runs_by_speed
-- What the runs have cost: hours, rows per second, and how the tasks spent their time.
SELECT run_id, job, started_at, rows, round(seconds / 3600, 3) AS hours,
       round(rows_per_second, 2) AS rows_per_second,
       transform_values(seconds_by_stage, (stage, s) -> round(s, 1)) AS seconds_by_stage,
       rows_by_status
FROM runs
ORDER BY started_at DESC;

-- name: best_scorers
-- Which scorer agrees best with the ratings, by metric.
SELECT metric, scorer, score_column, round(spearman, 3) AS spearman,
       round(spearman_low, 3) AS low, round(spearman_high, 3) AS high, n
FROM evaluation
WHERE statistics = 'agreement' AND kind = 'all'
ORDER BY metric, spearman DESC NULLS LAST, scorer, score_column;
