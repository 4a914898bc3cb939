"""YAML and ``--set key=value`` become frozen pydantic models; errors name file and key."""

from __future__ import annotations

import difflib
import hashlib
import json
from collections import deque
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypeVar, get_args

import yaml
from pydantic import (
    BaseModel,
    ConfigDict,
    ValidationError,
    model_validator,
)

MAX_ALIASES = 32  # merge keys (<<) of aliases can double a mapping again and again
ConfigType = TypeVar("ConfigType", bound="Config")
YamlValue = object


class Config(BaseModel):
    """Base of every config and record model: frozen, strict about unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _no_truth_is_a_number(cls, values: object) -> object:
        """In YAML yes, on and true are the same; as a word none of them is parsed as a 1."""
        if not isinstance(values, dict):
            return values
        return {
            name: _as_words(value)
            if name in cls.model_fields and _is_numeric(cls.model_fields[name].annotation)
            else value
            for name, value in values.items()
        }


def _is_numeric(annotation: object) -> bool:
    kinds = _leaf_types(annotation)
    return bool not in kinds and bool(kinds & {int, float})


def _as_words(value: object) -> object:
    if isinstance(value, dict):
        return {name: _as_word(part) for name, part in value.items()}
    return [_as_word(part) for part in value] if isinstance(value, list) else _as_word(value)


def _as_word(value: object) -> object:
    return str(value).lower() if isinstance(value, bool) else value


def _leaf_types(annotation: object) -> set[object]:
    """The types that a type is made of: ``dict[str, int | None]`` of str, int and None."""
    parts = get_args(annotation)
    return set().union(*map(_leaf_types, parts)) if parts else {annotation}


class ConfigError(ValueError):
    """The user's configuration can't be used; the message names file and key."""


def load_config(
    config_type: type[ConfigType], path: Path | None, overrides: Sequence[str] = ()
) -> ConfigType:
    """Read ``path`` (the defaults when ``None``) and apply ``key.sub=value`` overrides.

    Raises:
        ConfigError: unreadable file, invalid YAML, unknown key or wrong value.
    """
    values = {} if path is None else read_yaml_mapping(path)
    for override in overrides:
        _apply_override(values, override)
    source = "the defaults" if path is None else str(path)
    return parse_config(config_type, values, source=source, overrides=overrides)


def parse_config(
    config_type: type[ConfigType],
    values: Mapping[str, YamlValue],
    *,
    source: str,
    overrides: Sequence[str] = (),
) -> ConfigType:
    """Validate ``values``; ``source`` is what error messages call their origin.

    A wrong key that one of the ``overrides`` has set is blamed on that override.

    Raises:
        ConfigError: with one line per wrong key, and the closest known key where one is likely.
    """
    try:
        return config_type.model_validate(values)
    except ValidationError as error:
        lines = []
        for problem in error.errors():
            override = _override_of(problem["loc"], overrides)
            origin = source if override is None else f"--set {override}"
            lines.append(f"{origin}: {_describe(config_type, dict(problem))}")
        raise ConfigError("\n".join(lines)) from None


def read_yaml_mapping(path: Path) -> dict[str, YamlValue]:
    """Read a YAML file whose top level is a mapping.

    Raises:
        ConfigError: missing or unreadable file, invalid YAML, or another top level.
    """
    try:
        values = _parse_yaml(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file{_similar_file(path)}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: can't be read: {error}") from None
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: invalid YAML: {' '.join(str(error).split())}") from None
    except RecursionError:
        raise ConfigError(f"{path}: YAML nested too deeply") from None
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise ConfigError(f"{path}: expected a mapping at the top, got {type(values).__name__}")
    return values


def dump_yaml(config: Config) -> str:
    """Render a config as YAML in declaration order; ``load_config`` reads it back.

    Nulls are written: left out, they would come back as defaults.
    """
    return yaml.safe_dump(
        config.model_dump(mode="json"), sort_keys=False, allow_unicode=True, width=100
    )


def digest(config: Config) -> str:
    """Hex sha256 of a config's canonical JSON: equal digests mean equal meaning."""
    canonical = json.dumps(config.model_dump(mode="json"), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()


class _Loader(yaml.SafeLoader):
    """Safe YAML that also refuses a key given twice and a bomb of aliases."""

    num_aliases = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            self.num_aliases += 1
            if self.num_aliases > MAX_ALIASES:
                raise yaml.YAMLError(f"more than {MAX_ALIASES} aliases")
        return super().compose_node(parent, index)

    def compose_mapping_node(self, anchor: dict[str, yaml.Node]) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        seen: set[str] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                if key.value in seen:
                    line = key.start_mark.line + 1
                    raise yaml.YAMLError(f"key {key.value!r} is given twice, again in line {line}")
                seen.add(key.value)
        return node


def _parse_yaml(text: str) -> YamlValue:
    return yaml.load(text, Loader=_Loader)


def _apply_override(values: dict[str, YamlValue], override: str) -> None:
    key, separator, text = override.partition("=")
    if not separator or not key.strip():
        raise ConfigError(f"--set {override}: expected key=value, e.g. --set training.seed=3")
    try:
        value = _parse_yaml(text)
    except (yaml.YAMLError, RecursionError):
        raise ConfigError(f"--set {override}: {text!r} is not a YAML value") from None
    *parents, last = key.strip().split(".")
    node = values
    for parent in parents:
        child = node.setdefault(parent, {})
        if not isinstance(child, dict):
            raise ConfigError(f"--set {override}: {parent!r} holds a value, not a section")
        node = child
    node[last] = value


def _override_of(location: Sequence[int | str], overrides: Sequence[str]) -> str | None:
    """The last override that set the key at ``location``, or a section around or below it.

    A union's tag is part of a location but of no key, so keys are looked for in order, not
    one after the other.
    """
    place = [str(part) for part in location]
    for override in reversed(overrides):
        key = override.partition("=")[0].strip().split(".")
        if place[:1] == key[:1] and (_in_order(key, place) or _in_order(place, key)):
            return override
    return None


def _in_order(parts: Sequence[str], whole: Sequence[str]) -> bool:
    """Whether all ``parts`` occur in ``whole``, in their order."""
    rest = iter(whole)
    return all(part in rest for part in parts)


def _describe(config_type: type[Config], problem: Mapping[str, object]) -> str:
    location = problem["loc"]
    assert isinstance(location, tuple)
    key = ".".join(str(part) for part in location)
    if problem["type"] == "extra_forbidden":
        key_by_name, name = _keys_by_name(config_type), str(location[-1])
        close = difflib.get_close_matches(name, sorted(key_by_name), n=1)
        # a right name in a wrong place is told by its place
        meant = key_by_name[name] if close == [name] else "".join(close)
        hint = f"; did you mean {meant!r}?" if meant else ""
        return f"key {key!r} is unknown{hint}"
    message = str(problem["msg"]).removeprefix("Value error, ")
    if problem["type"] == "missing":
        return f"key {key!r} is required"
    if problem["type"] == "union_tag_not_found":
        return f"key '{key}.kind' is required: it says which of the alternatives {key!r} is"
    got = problem["input"]
    shown = "" if isinstance(got, dict | list) else f", got {got!r}"
    return f"key {key!r}: {message}{shown}" if key else message


def _keys_by_name(config_type: type[BaseModel]) -> dict[str, str]:
    """Each field's name -> its dotted key, the shortest if several have the name."""
    keys: dict[str, str] = {}
    pending: deque[tuple[str, object]] = deque([("", config_type)])
    seen: set[object] = set()
    while pending:
        prefix, current = pending.popleft()
        if current in seen:
            continue
        seen.add(current)
        if isinstance(current, type) and issubclass(current, BaseModel):
            for name, field in current.model_fields.items():
                keys.setdefault(name, f"{prefix}{name}")
                pending.append((f"{prefix}{name}.", field.annotation))
        else:
            pending.extend((prefix, part) for part in getattr(current, "__args__", ()))
    return keys


def _similar_file(path: Path) -> str:
    if not path.parent.is_dir():
        return ""
    close = difflib.get_close_matches(path.name, [p.name for p in path.parent.iterdir()], n=1)
    return f"; did you mean {path.parent / close[0]}?" if close else ""
