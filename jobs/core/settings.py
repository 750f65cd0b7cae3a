"""Settings of a job: one frozen pydantic model gives its options, its YAML keys and its defaults.

    class ScoreConfig(JobConfig):
        pairs: str = Field(description="pairs table: a path or catalog.schema.table")

    parse(ScoreConfig, ["--pairs", "P", "--limit", "5"], "score")

The command line wins over the YAML file (`--conf`), and the file over the default. Nothing is
guessed: an unknown key or option is an error that names the most similar one that exists.
"""

import argparse
import difflib
import sys
import types
import typing
from collections.abc import Mapping, Sequence
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, SecretBytes, SecretStr, ValidationError
from pydantic.fields import FieldInfo

from .. import JOBS, OLD_NAMES
from .errors import UsageError

C = TypeVar("C", bound="JobConfig")


class JobConfig(BaseModel):
    """Settings that every job has; a job's own model adds to them."""

    model_config = ConfigDict(frozen=True, extra="forbid", coerce_numbers_to_str=True)

    limit: int | None = Field(default=None, ge=1, description="use at most this many rows")
    dry_run: bool = Field(default=False, description="show what would be done and write nothing")
    debug: bool = Field(default=False, description="print the full traceback of a failure")


def conf_file(name: str) -> Traversable:
    """A file in `conf/`, in a checkout as well as in an installed wheel or a zip."""
    # It is always beside `jobs`. An editable install maps the packages one by one, so only the
    # folder of this package is sure to be found: the path starts there.
    return typing.cast(Path, files(__package__)).parent.parent / "conf" / name


def nearest(name: str, names: Sequence[str]) -> str:
    """The one of `names` that was probably meant by `name`, or an empty string."""
    folded = {n.lower(): n for n in names}
    matches = difflib.get_close_matches(name.lower(), folded, n=1, cutoff=0.5)
    return folded[matches[0]] if matches else ""


def parse(config_type: type[C], argv: Sequence[str] | None = None, job: str = "") -> C:
    """Read the command line, and the file that `--conf` names, into a frozen config.

    Raises UsageError for anything unknown, missing or out of range; SystemExit(0) after `--help`.
    """
    parser = _parser(config_type, job)
    parsed, unknown = parser.parse_known_args(sys.argv[1:] if argv is None else list(argv))
    if unknown:
        options = [_option(key) for key in config_type.model_fields] + ["--conf", "--help"]
        stray = next((word for word in unknown if word.startswith("-")), unknown[0])
        what = "option" if stray.startswith("-") else "argument"
        raise _unknown("", what, stray.split("=")[0], options)
    from_command_line = vars(parsed)
    path = from_command_line.pop("conf", None)
    for key in from_command_line.keys() & _mappings(config_type):
        from_command_line[key] = _mapping(_option(key), from_command_line[key])
    line_numbers: dict[str, int] = {}
    values: dict[str, Any] = {}
    if path is not None:
        values, line_numbers = _read_yaml(Path(path), config_type, job)
    for key in from_command_line.keys() & values.keys() & _mappings(config_type):
        if isinstance(values[key], dict):  # what the command line leaves out, the file says
            from_command_line[key] = values[key] | from_command_line[key]
    values |= from_command_line
    locations = {
        key: f"{path} line {line}: {key}"
        for key, line in line_numbers.items()
        if key not in from_command_line
    }
    try:
        return config_type.model_validate(values)
    except ValidationError as error:
        raise UsageError(_explain(error, config_type, locations)) from None


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UsageError(message.removeprefix("argument "))


def _parser(config_type: type[JobConfig], job: str) -> argparse.ArgumentParser:
    about = (config_type.__doc__ or "").strip().split("\n\n")[0]
    parser = _Parser(prog=f"mlm-filter {job}".strip(), description=about, allow_abbrev=False)
    parser.add_argument(
        "--conf", metavar="FILE", default=argparse.SUPPRESS, help="YAML file with these settings"
    )
    required = parser.add_argument_group("required")
    common, own = JobConfig.model_fields, config_type.__annotations__
    for key in sorted(config_type.model_fields, key=lambda key: (key in common, key not in own)):
        field = config_type.model_fields[key]
        group = required if field.is_required() else parser
        _add_option(group, key, field)
    return parser


def _add_option(group: "argparse._ActionsContainer", key: str, field: FieldInfo) -> None:
    option_type = _plain_type(field.annotation)
    text = (field.description or "").replace("%", "%%") + _default_text(field)
    common: dict[str, Any] = {"dest": key, "default": argparse.SUPPRESS, "help": text}
    if option_type is bool:
        group.add_argument(_option(key), action=argparse.BooleanOptionalAction, **common)
        return
    if _is_mapping(option_type):
        common |= {"action": "append", "metavar": "KEY=VALUE"}
    elif _is_list(option_type):
        common |= {"action": "append", "metavar": _metavar(_item_type(option_type))}
    else:
        common |= {"metavar": _metavar(option_type)}
    group.add_argument(_option(key), **common)


def _option(key: str) -> str:
    return "--" + key.replace("_", "-")


def _plain_type(annotation: Any) -> Any:
    """`X` for `X | None`, else the annotation itself."""
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        members = [arg for arg in typing.get_args(annotation) if arg is not type(None)]
        return members[0] if len(members) == 1 else annotation
    return annotation


def _is_list(annotation: Any) -> bool:
    return typing.get_origin(annotation) in (list, tuple, set, frozenset)


def _is_mapping(annotation: Any) -> bool:
    return typing.get_origin(annotation) is dict or (
        isinstance(annotation, type) and issubclass(annotation, BaseModel)
    )


def _mappings(config_type: type[JobConfig]) -> set[str]:
    """The settings that hold keys of their own: `--train language=full`, a mapping in YAML."""
    fields = config_type.model_fields.items()
    return {key for key, field in fields if _is_mapping(_plain_type(field.annotation))}


def _mapping(option: str, words: Sequence[str]) -> dict[str, Any]:
    """`KEY=VALUE` words as a mapping; values are read as YAML reads them."""
    found: dict[str, Any] = {}
    for word in words:
        key, equals, value = word.partition("=")
        if not equals or not key:
            raise UsageError(f"{option}: expected KEY=VALUE, not {word}")
        try:
            found[key] = yaml.safe_load(value)
        except yaml.YAMLError:
            found[key] = value
    return found


def _item_type(annotation: Any) -> Any:
    arguments = typing.get_args(annotation)
    return arguments[0] if arguments else str


def _is_secret(field: FieldInfo) -> bool:
    return _plain_type(field.annotation) in (SecretStr, SecretBytes)


def _metavar(annotation: Any) -> str:
    if typing.get_origin(annotation) is typing.Literal:
        return "{" + ",".join(str(value) for value in typing.get_args(annotation)) + "}"
    return {int: "N", float: "X"}.get(annotation, "TEXT")


def _default_text(field: FieldInfo) -> str:
    if field.is_required() or _is_secret(field):
        return ""
    default = field.get_default(call_default_factory=True)
    if isinstance(default, BaseModel):
        default = [f"{key}={value}" for key, value in default.model_dump().items()]
    if default is None or default is False or default in ("", [], (), {}):
        return ""
    text = ", ".join(map(str, default)) if isinstance(default, list | tuple) else str(default)
    if default is True:
        text = "on"
    return f" (default: {text})".replace("%", "%%")


def _unknown(location: str, what: str, name: str, names: Sequence[str]) -> UsageError:
    guess = nearest(name, names)
    hint = f"did you mean {guess}?" if guess else "see --help"
    return UsageError(f"{location}unknown {what} {name}; {hint}")


def _read_yaml(
    path: Path, config_type: type[JobConfig], job: str
) -> tuple[dict[str, Any], dict[str, int]]:
    """The settings of one job in a YAML file, and the line number of each."""
    try:
        text = path.read_text(encoding="utf-8-sig")
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        data = yaml.safe_load(text)
    except FileNotFoundError:
        raise UsageError(f"--conf: there is no file {path}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"--conf: cannot read {path}: {error}") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        at = f" line {mark.line + 1}" if mark else ""
        problem = getattr(error, "problem", None) or "not YAML"
        raise UsageError(f"{path}{at}: {problem}") from None
    if data is None:
        return {}, {}
    if not isinstance(node, yaml.MappingNode):
        raise UsageError(f"{path}: expected `key: value` lines, or one section per job")
    names = {key: OLD_NAMES.get(key, key) for key in data}
    sections = [
        key for key, value in data.items() if names[key] in JOBS and isinstance(value, Mapping)
    ]
    if sections:
        return _section(path, node, data, config_type, job)
    return _settings(path, node, data, config_type)


def _section(
    path: Path, node: yaml.MappingNode, data: dict[Any, Any], config_type: type[JobConfig], job: str
) -> tuple[dict[str, Any], dict[str, int]]:
    for key_node, value_node in node.value:
        line = key_node.start_mark.line + 1
        if OLD_NAMES.get(key_node.value, key_node.value) not in JOBS:
            raise _unknown(f"{path} line {line}: ", "section", key_node.value, tuple(JOBS))
        if data[key_node.value] is not None and not isinstance(value_node, yaml.MappingNode):
            raise UsageError(
                f"{path} line {line}: {key_node.value} must contain `key: value` lines"
            )
    section = next((key for key in data if OLD_NAMES.get(key, key) == job), None)
    if section is None:
        raise UsageError(f"{path}: no section {job!r}; it has {', '.join(map(str, data))}")
    if data[section] is None:
        return {}, {}
    inner = next(value for key, value in node.value if key.value == section)
    return _settings(path, inner, data[section], config_type)


def _settings(
    path: Path, node: yaml.MappingNode, data: dict[Any, Any], config_type: type[JobConfig]
) -> tuple[dict[str, Any], dict[str, int]]:
    fields = config_type.model_fields
    values: dict[str, Any] = {}
    line_numbers: dict[str, int] = {}
    for key_node, _ in node.value:
        key, line = str(key_node.value).replace("-", "_"), key_node.start_mark.line + 1
        if key not in fields:
            raise _unknown(f"{path} line {line}: ", "key", key, tuple(fields))
        if key in values:
            raise UsageError(f"{path} line {line}: {key} is set twice")
        is_list = _is_list(_plain_type(fields[key].annotation))
        value = data[key_node.value]
        values[key] = [value] if is_list and isinstance(value, str | int | float) else value
        line_numbers[key] = line
    return values, line_numbers


def _explain(
    error: ValidationError, config_type: type[JobConfig], locations: dict[str, str]
) -> str:
    """The first three problems, in one line. `locations` names file and line of YAML keys."""
    problems = []
    for item in error.errors(include_url=False)[:3]:
        key = str(item["loc"][0]) if item["loc"] else ""
        field = config_type.model_fields.get(key)
        location = locations.get(key, _option(key) if key else "")
        if field is None:
            problems.append(item["msg"].removeprefix("Value error, "))
        elif item["type"] == "missing":
            problems.append(f"missing {_option(key)} ({field.description or 'required'})")
        else:
            value = "the value given" if _is_secret(field) else repr(item["input"])
            inner = ".".join(map(str, item["loc"][1:]))
            where = f"{location} {inner}".strip()
            nested = _plain_type(field.annotation)
            if item["type"] == "extra_forbidden" and _is_mapping(nested):
                raise _unknown(f"{location}: ", "key", inner, tuple(nested.model_fields))
            problems.append(f"{where}: {value} is not allowed: {_allowed(item['msg'])}")
    return "; ".join(problems)


def _allowed(message: str) -> str:
    return message.removeprefix("Value error, ").replace("Input should", "it should")
