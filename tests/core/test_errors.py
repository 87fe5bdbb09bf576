"""What an error says."""

from __future__ import annotations

import pytest

from limbeck.core import errors
from limbeck.core.errors import LimbeckError, MissingExtra, nearest

KINDS = ("RecipeError", "DataError", "ModelError", "ArtifactError", "TrainingError", "BudgetError", "MissingExtra")


def test_a_message_says_what_got_allowed_and_fix() -> None:
    error = LimbeckError("it is wrong", got=0, allowed="1 or 2", fix="choose 1")
    assert str(error) == "it is wrong\n  got: 0\n  allowed: 1 or 2\n  fix: choose 1"
    assert (error.what, error.got, error.allowed, error.fix) == ("it is wrong", 0, "1 or 2", "choose 1")


def test_what_is_not_known_is_left_out_and_zero_is_known() -> None:
    assert str(LimbeckError("it is wrong")) == "it is wrong"
    assert str(LimbeckError("it is wrong", got="")) == "it is wrong\n  got: "
    assert str(LimbeckError("it is wrong", got=False)) == "it is wrong\n  got: False"


@pytest.mark.parametrize("name", KINDS)
def test_every_kind_can_be_caught_as_one_and_is_told_in_the_module(name: str) -> None:
    assert issubclass(getattr(errors, name), LimbeckError)
    assert name in (errors.__doc__ or "")


def test_all_kinds_are_listed() -> None:
    found = {n for n, c in vars(errors).items() if isinstance(c, type) and issubclass(c, LimbeckError)}
    assert found == {"LimbeckError", *KINDS}


def test_a_missing_extra_prints_its_pip_line() -> None:
    assert str(MissingExtra("wandb", "wandb")).endswith("fix: pip install 'limbeck[wandb]'")


@pytest.mark.parametrize(
    ("name", "known", "found"),
    [
        ("temprature", ["temperature", "weight"], "temperature"),
        ("lable", ["label", "text"], "label"),
        ("zzz", ["label", "text"], None),
        ("label", [], None),
        ("", ["label"], None),
        ("kl", ["kl", "reverse_kl"], "kl"),
    ],
)
def test_the_nearest_name(name: str, known: list[str], found: str | None) -> None:
    assert nearest(name, known) == found
    assert nearest(name, iter(known)) == found
