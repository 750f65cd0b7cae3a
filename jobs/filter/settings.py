"""The settings of the filter job: rules, and the tables to read and to write."""

from collections.abc import Sequence
from typing import Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from ..core.errors import UsageError
from ..core.settings import JobConfig
from ..rules.rule import Repetition, Rule, parse_repetition, parse_rule
from ..tables import delta
from .joined_signals import Source, parse_source

MAX_WHAT_IFS = 12
"""So that there are at most 2**12 combinations of rules to count."""


class FilterConfig(JobConfig):
    """Keep the best pairs by rules over their scores."""

    scores: str = Field(description="scores table: a path or catalog.schema.table")
    selection: str | None = Field(
        None, description="table to write: which rows are kept, and which rule the others failed"
    )
    rule: list[str] = Field(
        [], description='e.g. "itm >= 66" or "best: top 30% of odf"; repeat for more'
    )
    combine: Literal["and", "or"] = Field(
        "and", description="keep what passes all rules (and) or at least one (or)"
    )
    repeat: list[str] = Field(
        [],
        description='how often to repeat kept rows: "3 where itm >= 90" or "1 + 2*rank(itm),'
        ' at most 3"; if several apply, the largest counts',
    )
    what_if: list[str] = Field(
        [], description="count what this rule would keep, and write nothing; repeat to compare"
    )
    signals: list[str] = Field(
        [], description="table to join for the rules: [NAME=]TABLE [on KEY,KEY]; repeat for more"
    )
    signals_key: list[str] = Field(
        [], description="key to join --signals on without `on` (default: uid and hashes)"
    )
    scorer: str | None = Field(None, description="whose scores to use, if the table has several")
    pairs: str | None = Field(None, description="pairs table, for --output and for rules")
    output: str | None = Field(None, description="table to write: the kept pairs and their scores")
    uid_column: str = Field("uid", description="column of --pairs with the pair's key")
    image_column: str = Field("image", description="column of --pairs with the image's bytes")
    image_path_column: str | None = Field(
        None, description="column of --pairs with the image's path, instead of its bytes"
    )
    caption_column: str = Field("caption", description="column of --pairs with the caption")

    @field_validator("rule", "what_if", "signals", mode="before")
    @classmethod
    def _yaml_names(cls, given: Any, info: Any) -> Any:
        """YAML reads ``- match: itm >= 66`` as a mapping."""
        if isinstance(given, dict):
            given = [given]
        if not isinstance(given, list):
            return given
        template = "{}={}" if info.field_name == "signals" else "`{}`: {}"
        texts: list[Any] = []
        for each in given:
            is_named = isinstance(each, dict)
            texts += [template.format(*item) for item in each.items()] if is_named else [each]
        return texts

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.limit is not None:
            raise UsageError(
                "filter takes no --limit, because `top` rules are about all rows; try --dry-run"
            )
        fields = type(self).model_fields
        for name in () if self.what_if else ("rule", "selection"):
            if not getattr(self, name):
                raise UsageError(f"missing --{name} ({fields[name].description})")
        if (self.pairs is None) != (self.output is None) and not (self.pairs and self.what_if):
            raise UsageError(
                "--pairs and --output go together: the pairs table, and where to write the kept"
                " pairs (for a table that only rules use, give --signals)"
            )
        own = [ref for ref in (self.scores, self.pairs, self.selection, self.output) if ref]
        joined = [source.ref for source in self.sources()]  # may also be the scores or pairs table
        for number, ref in enumerate(own):
            is_written = ref in (self.selection, self.output)
            others = own[:number] + (joined if is_written else [])
            if any(delta.same(ref, other) for other in others):
                raise UsageError(f"{ref} is named twice: each option needs a table of its own")
        self.parsed_rules()
        self.parsed_what_ifs()
        self.parsed_repetitions()
        return self

    def parsed_rules(self) -> list[Rule]:
        """The rules in their order.

        Raises:
            UsageError: a text is not a rule, or two rules have the same name.
        """
        return _parse_rules(self.rule)

    def parsed_what_ifs(self) -> list[Rule]:
        """The rules to compare. Raises UsageError, as for rules."""
        if len(self.what_if) > MAX_WHAT_IFS:
            raise UsageError(f"--what-if compares at most {MAX_WHAT_IFS} rules")
        return _parse_rules(self.what_if)

    def parsed_repetitions(self) -> list[Repetition]:
        """The repetitions in their order. Raises UsageError if one cannot be parsed."""
        return [parse_repetition(text) for text in self.repeat]

    def sources(self) -> list[Source]:
        """The tables of signals. Raises UsageError if two have the same name."""
        sources = [parse_source(text, self.signals_key) for text in self.signals]
        names = [source.name.lower() for source in sources]
        for source in sources:
            if names.count(source.name.lower()) > 1:
                raise UsageError(
                    f"two tables of signals are called {source.name}: name one of them, as in"
                    f" other={source.ref}"
                )
        return sources


def _parse_rules(texts: Sequence[str]) -> list[Rule]:
    rules = [parse_rule(text) for text in texts]
    names = [rule.name for rule in rules]
    for name in names:
        if names.count(name) > 1:
            raise UsageError(f"two rules are named {name!r}; name a rule as in `name: rule`")
    return rules
