"""Settings of data sets and architectures where they are named, `--width`, and recipes of an architecture."""

from __future__ import annotations

import pytest

from bench import config, keys, plan, pool, recipe, registry
from bench.interface import UsageError


def resolved(*changes: str, **flags: object) -> config.Config:
    return config.resolve("digits", {"methods": "original", **flags}, changes)


def test_a_setting_reaches_the_function() -> None:
    narrow, wide = (pool.network(f"allcnn{own}")(3, 32, 10) for own in ("+width=0.25", ""))
    assert narrow[0].out_channels == 24
    assert wide[0].out_channels == 96


def test_width_is_short_for_a_setting_and_wins_over_one() -> None:
    assert resolved(architecture="smallvgg", width=0.25).architecture == "smallvgg+width=0.25"
    assert resolved(architecture="smallvgg+dropout=0.1+width=2", width=0.5).architecture == (
        "smallvgg+dropout=0.1+width=0.5"
    )


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"architecture": "allcnn+wdth=2"}, "unknown setting of allcnn 'wdth'; did you mean width?"),
        ({"architecture": "allcnn", "width": 0}, "the width of allcnn must be a number above 0, got 0"),
        ({"architecture": "allcnn", "width": float("nan")}, "the width of allcnn must be a number above 0, got nan"),
        ({"architecture": "allcnn+width=abc"}, "the width of allcnn must be a number above 0, got 'abc'"),
        ({"architecture": "allcnn+width=1+width=2"}, "sets one thing twice"),
        ({"dataset": "digits+train=100+train=200"}, "sets one thing twice"),
        ({"dataset": "digits+trian=200"}, "unknown setting of digits 'trian'; did you mean train?"),
        ({"recipe": "fats"}, "unknown recipe 'fats'"),
        (
            {"architecture": "digits_cnn", "recipe": "fast"},
            "digits_cnn has no recipe 'fast', only allcnn, smallvgg have",
        ),
    ],
)
def test_strange_settings_are_refused_in_one_line(flags: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        resolved(**flags)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_setting_makes_another_model_and_another_row_of_the_store() -> None:
    kinds = [
        keys.model_kind(resolved(architecture=name), plan.load_dataset("digits"))
        for name in ("digits_cnn", "digits_cnn+width=8", "digits_cnn+width=4")
    ]
    assert len(set(kinds)) == 3
    part, whole = (keys.model_kind(resolved(), plan.load_dataset(f"digits{own}")) for own in ("+test=100", ""))
    assert part != whole


@pytest.mark.parametrize("name", ["code", "paper", "fast"])
@pytest.mark.parametrize("architecture", ["allcnn", "smallvgg+width=0.5"])
def test_a_recipe_is_the_architectures_own(architecture: str, name: str) -> None:
    base = registry.variant(architecture)[0]
    assert resolved(architecture=architecture, recipe=name).recipe == recipe.load_recipe(f"{base}_{name}")


def test_fast_recipes_take_a_tenth_of_the_epochs() -> None:
    for name in ("allcnn", "smallvgg"):
        fast, code = (recipe.load_recipe(f"{name}_{kind}") for kind in ("fast", "code"))
        assert 10 * fast.epochs <= code.epochs
        assert fast.augment == code.augment == "crop_flip"
        assert (fast.precision, code.precision) == ("bfloat16", "float32")


def test_a_precision_makes_another_model() -> None:
    one, other = (
        keys.model_kind(resolved(f"recipe.precision={name}"), plan.load_dataset("digits"))
        for name in ("float32", "bfloat16")
    )
    assert one != other
