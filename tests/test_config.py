from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import Field

from ranker.config import Config, ConfigError, digest, dump_yaml, load_config, read_yaml_mapping


class Inner(Config):
    rate: float = Field(default=0.5, gt=0)
    kind: Literal["a", "b"] = "a"


class Outer(Config):
    seed: int
    names: tuple[str, ...] = ()
    inner: Inner = Inner()
    note: str | None = None


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "train.yaml"
    path.write_text("seed: 3\ninner: {rate: 0.25}\nnames: [x, y]\n")
    return path


def test_file_and_overrides(file: Path) -> None:
    config = load_config(Outer, file, ["inner.kind=b", "names=[z]", "seed=7", "note=a=b"])
    inner = Inner(rate=0.25, kind="b")
    assert config == Outer(seed=7, names=("z",), inner=inner, note="a=b")
    assert load_config(Outer, file) == Outer(seed=3, names=("x", "y"), inner=Inner(rate=0.25))
    assert load_config(Outer, None, ["seed=1"]) == Outer(seed=1)
    # A section that the file lacks is made.
    file.write_text("seed: 1")
    assert load_config(Outer, file, ["inner.rate=2"]).inner == Inner(rate=2)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("seed: 3\nsede: 4", "key 'sede' is unknown; did you mean 'seed'?"),
        ("seed: 3\nzzz: 4", "key 'zzz' is unknown"),
        ("seed: 3\ninner: {rat: 4}", "key 'inner.rat' is unknown; did you mean 'rate'?"),
        ("seed: 3\nrate: 4", "key 'rate' is unknown; did you mean 'inner.rate'?"),
        ("names: [x]", "key 'seed' is required"),
        ("seed: often", "key 'seed': Input should be a valid integer"),
        ("seed: 3\ninner: {rate: -1}", "key 'inner.rate': Input should be greater than 0, got -1"),
        ("seed: 3\ninner: {rate: .nan}", "key 'inner.rate': Input should be a finite number"),
        ("seed: 3\ninner: {kind: c}", "key 'inner.kind': Input should be 'a' or 'b', got 'c'"),
        ("seed: 3\nnames: [x, [y]]", "key 'names.1': Input should be a valid string"),
        ("- seed", "expected a mapping at the top, got list"),
        ("seed: [3", "invalid YAML: "),
        ("seed: 3\nseed: 4", "invalid YAML: key 'seed' is given twice, again in line 2"),
        ("seed: 3\ninner: {rate: 1, rate: 1}", "invalid YAML: key 'rate' is given twice"),
        ("seed: !!python/object/apply:os.system [true]", "invalid YAML: could not determine"),
        ("seed: 3\n1: 2", "key '1"),
    ],
)
def test_errors_name_file_and_key(text: str, message: str, file: Path) -> None:
    file.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load_config(Outer, file)
    assert str(caught.value).startswith(f"{file}: {message}")


def test_every_wrong_key_is_named(file: Path) -> None:
    file.write_text("inner: {rate: -1}\nnoot: x")
    with pytest.raises(ConfigError) as caught:
        load_config(Outer, file)
    assert [line.split(": ")[1] for line in str(caught.value).splitlines()] == [
        "key 'seed' is required",
        "key 'inner.rate'",
        "key 'noot' is unknown; did you mean 'note'?",
    ]


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("seed", "--set seed: expected key=value"),
        ("=3", "--set =3: expected key=value"),
        ("seed=[", r"--set seed=\[: '\[' is not a YAML value"),
        ("seed.low=3", "--set seed.low=3: 'seed' holds a value, not a section"),
        ("sede=3", "key 'sede' is unknown; did you mean 'seed'"),
        ("seed=" + "[" * 5000, "is not a YAML value"),
    ],
)
def test_wrong_overrides(override: str, message: str, file: Path) -> None:
    with pytest.raises(ConfigError, match=message):
        load_config(Outer, file, [override])


def test_a_wrong_value_is_blamed_on_the_override_that_set_it(file: Path) -> None:
    file.write_text("seed: 3\ninner: {rate: -1}\n")
    with pytest.raises(ConfigError) as caught:
        load_config(Outer, file, ["seed=low", "note=x"])
    by_key = {line.split("key ")[1].split(":")[0]: line for line in str(caught.value).splitlines()}
    assert by_key["'seed'"].startswith("--set seed=low: key 'seed': ")
    assert by_key["'inner.rate'"].startswith(f"{file}: key 'inner.rate': ")
    with pytest.raises(ConfigError, match=r"^--set inner=\{rate: -2\}: key 'inner.rate'"):
        load_config(Outer, file, ["inner={rate: -2}"])


def test_missing_file(file: Path) -> None:
    with pytest.raises(ConfigError, match=r"trian\.yaml: no such file; did you mean .*train\.yaml"):
        load_config(Outer, file.with_name("trian.yaml"))
    with pytest.raises(ConfigError, match=r"nowhere/train\.yaml: no such file$"):
        load_config(Outer, file.parent / "nowhere" / "train.yaml")
    with pytest.raises(ConfigError, match="can't be read"):
        load_config(Outer, file.parent)
    file.write_bytes(b"\xff\xfe\xff")
    with pytest.raises(ConfigError, match=r"train\.yaml: can't be read"):
        load_config(Outer, file)


def test_empty_file_means_defaults(file: Path) -> None:
    file.write_text("# nothing\n")
    assert load_config(Inner, file) == Inner()


ALIAS_BOMB = "a0: &a0 [x, x]\n" + "".join(
    f"a{k}: &a{k} [{', '.join([f'*a{k - 1}'] * 9)}]\n" for k in range(1, 20)
)
MERGE_BOMB = "a0: &a0 {x: 1}\n" + "".join(
    f"a{k}: &a{k} {{<<: [*a{k - 1}, *a{k - 1}]}}\n" for k in range(1, 40)
)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (ALIAS_BOMB, "invalid YAML: more than 32 aliases"),
        (MERGE_BOMB, "invalid YAML: more than 32 aliases"),
        ("seed: " + "[" * 20_000, "YAML nested too deeply"),
        ("seed: &a [*a]", "key 'seed': Input should be a valid integer"),
    ],
    ids=["aliases", "merges", "depth", "cycle"],
)
def test_bombs_end_quickly(text: str, message: str, file: Path) -> None:
    file.write_text(text)
    begin_s = time.monotonic()
    with pytest.raises(ConfigError, match=message):
        load_config(Outer, file)
    assert time.monotonic() - begin_s < 5


def test_aliases_and_merges_within_reason_work(file: Path) -> None:
    file.write_text("base: &base {rate: 1, kind: a}\nmine: {<<: *base, kind: b}\n")
    assert read_yaml_mapping(file)["mine"] == {"rate": 1, "kind": "b"}


# What people can type: no control characters, no line separators.
TEXT = st.text(st.characters(categories=["L", "N", "P", "S", "Zs"]))


@settings(max_examples=50, deadline=None)
@given(
    config=st.builds(
        Outer,
        seed=st.integers(),
        names=st.lists(TEXT, max_size=3).map(tuple),
        inner=st.builds(Inner, rate=st.floats(min_value=1e-300, allow_infinity=False)),
        note=st.none() | TEXT,
    )
)
def test_dump_is_read_back(tmp_path_factory: pytest.TempPathFactory, config: Outer) -> None:
    path = tmp_path_factory.mktemp("dump") / "config.yaml"
    path.write_text(dump_yaml(config), encoding="utf-8")
    again = load_config(Outer, path)
    assert again == config and digest(again) == digest(config)


def test_digest_is_the_meaning(file: Path) -> None:
    one = load_config(Outer, file)
    file.write_text("names: ['x', y]\ninner:\n  rate: 2.5e-1\nseed: 3 # the same\n")
    assert digest(load_config(Outer, file)) == digest(one)
    assert digest(load_config(Outer, file, ["seed=4"])) != digest(one)


def test_configs_are_frozen() -> None:
    with pytest.raises(ValueError, match="frozen"):
        Inner().rate = 3  # type: ignore[misc]


class Amounts(Config):
    count: int = 1
    share: float | None = None
    weights: dict[str, Annotated[float, Field(ge=0)]] = Field(default_factory=dict)
    flag: bool = False
    flag_or_count: bool | int = 0


@pytest.mark.parametrize("text", ["count: yes", "share: true", "weights: {click: on}"])
def test_a_truth_is_no_number(text: str, file: Path) -> None:
    file.write_text(text)
    key = text.split(":", maxsplit=1)[0]
    with pytest.raises(ConfigError, match=rf"key '{key}(\.click)?'.*(number|integer)"):
        load_config(Amounts, file)
    with pytest.raises(ConfigError, match=r"--set count=true: key 'count'"):
        load_config(Amounts, None, ["count=true"])


def test_truths_are_truths(file: Path) -> None:
    file.write_text("{count: 3, share: 1e-3, weights: {click: 1}, flag: no, flag_or_count: yes}")
    config = load_config(Amounts, file)
    assert (config.flag, config.flag_or_count, config.count) == (False, True, 3)
    assert (config.share, config.weights) == (1e-3, {"click": 1.0})


class Circle(Config):
    kind: Literal["circle"] = "circle"
    radius_m: float = 1.0


class Square(Config):
    kind: Literal["square"] = "square"
    side_m: float = 1.0


class Drawing(Config):
    shape: Annotated[Circle | Square, Field(discriminator="kind")] = Circle()


def test_an_alternative_must_say_its_kind(file: Path) -> None:
    file.write_text("shape: {radius_m: 2}")
    with pytest.raises(ConfigError, match=r"key 'shape\.kind' is required"):
        load_config(Drawing, file)
    file.write_text("shape: {kind: triangle}")
    with pytest.raises(ConfigError, match=r"key 'shape'.*'circle', 'square'"):
        load_config(Drawing, file)
