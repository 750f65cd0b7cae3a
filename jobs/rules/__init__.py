"""The rule language, from text to Spark columns.

rule.py              the language by example; rules and repetitions, read from text
grammar.py           text -> syntax tree, by lark
tree_builder.py      what lark calls for each part of a rule, and what numbers may be
syntax_tree.py       the frozen nodes of the tree, which print as their text
column_types.py      which column a name means, and whether the parts of a rule fit together
errors.py            what is said of a rule that cannot be read, with a caret below it
apply.py             what rules mean on a table: answering its parts, judging rows
spark_columns.py     values and conditions as Spark columns
table_statistics.py  what is known of a whole table: thresholds, quotas, quantiles, ranks
thresholds.py        where best fractions and quantiles lie, without ranking the table
group_quotas.py      the best of each group, and minimum numbers of groups
ranks.py             rank(x), without bringing the table into one partition
"""
