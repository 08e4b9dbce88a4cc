"""Values arrive as they are, through fire and MONAI, whatever characters are in them; options keep their kind."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from fire.parser import DefaultParseValue
from hypothesis import given, settings
from hypothesis import strategies as st
from monai.bundle import ConfigParser

from propl_monai.common.config_values import as_argument, as_config, check_path, read_setting
from propl_monai.errors import ProPLError

NAMES = ["data#2", "2024", "1e3", "True", "a,b", "[x]", "{x}", "@x", "$x", "%x", "two words", "it's", 'say "x"', "-x"]
NAMES += ["", "None", "100%#1", "a@::b", "x::y", "\udcff", "ü", "a\\#b", "1/8", "0x10", "'q'", "~", "line\nbreak"]


def parsed(value: Any) -> Any:
    """A value as a component of a config gets it."""
    parser = ConfigParser({"key": value, "part": {"_target_": "collections.OrderedDict", "given": "@key"}})
    return parser.get_parsed_content("part")["given"]


@pytest.mark.parametrize("name", NAMES)
def test_text_survives_a_command_line_and_a_config(name: str) -> None:
    assert parsed(DefaultParseValue(as_argument(name))) == name
    assert not as_argument(name).startswith("-")
    assert parsed(as_config(name)) == name
    values = ConfigParser({"key": as_config([name, 3])}).get_parsed_content("key")
    assert values == [name, 3]
    assert ConfigParser({"key": DefaultParseValue(as_argument([name, 3]))}).get_parsed_content("key") == values


@settings(deadline=None)  # no test asserts a time
@given(st.text("#@$%:\\'\"[]{}(),- =1aT", max_size=8))
def test_any_text_survives(text: str) -> None:
    assert parsed(DefaultParseValue(as_argument(text))) == text


def test_plain_values_stay_readable() -> None:
    assert as_argument("runs/mine") == "runs/mine" and as_argument(Path("a b")) == "a b"
    assert as_argument(True) == "True" and as_argument([64, 64]) == "[64, 64]"


@pytest.mark.parametrize(
    ("text", "present", "value"),
    [
        *[("3", 1, 3), ("1e-3", 0.1, 0.001), ("2", 0.1, 2), ("true", False, True), ("False", True, False)],
        *[("[64, 64]", [224, 224], [64, 64]), ("[LA, TG]", ["a"], ["LA", "TG"]), ("LA", ["a"], "LA")],
        *[
            ("['a,b', '2024']", ["a"], ["a,b", "2024"]),
            ('["a#b"]', None, ["a#b"]),
            ("null", None, None),
            ("4", None, 4),
        ],
        *[("1/4", "1/8", "1/4"), ("2", "1/8", "2"), ("none", "imagenet", "none"), ("BUSI#2", None, "BUSI#2")],
        *[("$x", "text", "$x"), ("cpu", "$torch.device('cpu')", "cpu"), ("0.1", "@learning_rate", 0.1)],
    ],
)
def test_an_option_has_the_kind_of_the_present_one(text: str, present: Any, value: Any) -> None:
    found = read_setting("key", text, present)
    assert found == value and type(found) is type(value)


@pytest.mark.parametrize("key", ["datalist_file", "model_dir", "weights", "encoder_weights", "prompts"])
@pytest.mark.parametrize("text", ["2024", "[x]", "true"])
def test_paths_stay_text(key: str, text: str) -> None:
    assert read_setting(key, text, None) == text and read_setting(key, text, "$@bundle_root") == text
    assert read_setting(key, "null", None) is None


@pytest.mark.parametrize(
    ("text", "present", "fact"),
    [
        *[("x", 1, "is not a whole number"), ("1.5", 1, "is not a whole number"), ("true", 1, "is not a whole number")],
        *[("1_000", 0.1, "is not a number"), ("NaN", 0.1, "is not a number"), ("1e999", 0.1, "is not a number")],
        *[("yes", True, "is neither true nor false"), ("5", [1, 2], "is not a list")],
        ("x", {"lr": 1}, "is a group of keys; give one of them, such as key#lr"),
    ],
)
def test_an_option_of_another_kind_is_refused_by_name(text: str, present: Any, fact: str) -> None:
    with pytest.raises(ProPLError, match=fact) as caught:
        read_setting("key", text, present)
    assert caught.value.where.endswith("set key")


@pytest.mark.parametrize("path", ["data#2", "2024", "1e3", "True", "a,b", "[x]", "{x}"])
def test_a_path_that_monai_would_read_as_another_is_refused(path: str) -> None:
    with pytest.raises(ProPLError, match=r"MONAI's command line.*; (give \./|rename it).*or use `propl`") as caught:
        check_path("dataset_dir", path)
    assert caught.value.where == f"--dataset_dir {path}"
    check_path("epochs", path)


@pytest.mark.parametrize("path", ["data", "./2024", "./a,b", "./{x}", "/a/b c", "$@bundle_root", "'2024'", "None"])
def test_other_paths_pass(path: str) -> None:
    check_path("dataset_dir", path)
