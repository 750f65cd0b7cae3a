"""The rule language: text -> syntax tree -> Spark columns.

rule.py              the language by example; parses rules and repetitions
grammar.py           the grammar: text -> syntax tree, by lark
tree_builder.py      lark's callbacks, which build the tree and check its numbers
syntax_tree.py       the frozen nodes of the tree, which print as their text
column_types.py      binds names to columns and checks the types of a rule's parts
errors.py            messages for rules that cannot be parsed, with a caret below the rule
apply.py             what rules mean on a table: computes statistics, judges rows
spark_columns.py     values and conditions as Spark columns
table_statistics.py  what rules need to know of a whole table: cutoffs, quotas, quantiles, ranks
thresholds.py        cutoffs of best fractions and quantiles, without ranking the table
group_quotas.py      the best of each group, and minimum numbers of rows per group
ranks.py             rank(x), without bringing the table into one partition
"""
