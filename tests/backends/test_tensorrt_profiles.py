"""Optimization profiles as they are asked for, and the options that hold them."""

from __future__ import annotations

import pytest

from redline.backends.tensorrt.options import TensorRtOptions
from redline.backends.tensorrt.profiles import DEFAULT, Profile, Range, parse_profiles
from redline.core.errors import InputError
from redline.core.tensor import Signature, TensorSpec


def signature(*shape: int | str, name: str = "image") -> Signature:
    return Signature(inputs=(TensorSpec(name=name, shape=shape, dtype="float32"),), outputs=())


def text_of(profile: Profile, what: Signature) -> dict[str, str]:
    return {name: str(limits) for name, limits in profile.ranges(what).items()}


def test_batch_sizes_become_shapes() -> None:
    (profile,) = parse_profiles("1,32,64")
    limits = profile.ranges(signature("batch", 3, 224, 224))["image"]
    assert (limits.smallest, limits.usual, limits.largest) == ((1, 3, 224, 224), (32, 3, 224, 224), (64, 3, 224, 224))


def test_several_profiles_stand_behind_each_other() -> None:
    first, second = parse_profiles(" 1,4,8 ; 16,32,64;")
    assert (first.batch, second.batch) == ((1, 4, 8), (16, 32, 64))


def test_nothing_is_no_profile_and_takes_a_default() -> None:
    assert parse_profiles("") == ()
    limits = Profile().ranges(signature("n", 3))["image"]
    assert (limits.smallest[0], limits.usual[0], limits.largest[0]) == DEFAULT


def test_whole_shapes_are_named_by_input_and_joined_with_a_plus() -> None:
    (profile,) = parse_profiles("image=1x3x64x64,2x3x128x128,4x3x256x256+scale=1,2,4")
    two = Signature(
        inputs=(
            TensorSpec(name="image", shape=("n", 3, "h", "w"), dtype="float32"),
            TensorSpec(name="scale", shape=("n",), dtype="float32"),
        ),
        outputs=(),
    )
    assert text_of(profile, two) == {"image": "1x3x64x64 to 4x3x256x256", "scale": "1 to 4"}


def test_a_model_of_fixed_shapes_needs_none() -> None:
    assert parse_profiles("1,2,4")[0].ranges(signature(1, 3, 8, 8)) == {}


@pytest.mark.parametrize(
    "text", ["1,2", "1,2,3,4", "a,b,c", "1;2;3", "image=1x3,2x3", "image=1x3x8x8,2x3,4x3x8x8", "1x2,3,4", "image="]
)
def test_what_is_no_profile_is_refused_with_how_to_write_one(text: str) -> None:
    with pytest.raises(InputError, match=r"expected MIN,OPT,MAX batch sizes such as 1,32,64"):
        parse_profiles(text)


@pytest.mark.parametrize("text", ["2,1,3", "1,5,4", "0,1,2", "-1,1,1", "x=1x8,2x4,4x8"])
def test_sizes_must_rise_and_be_positive(text: str) -> None:
    with pytest.raises(InputError, match="1 <= MIN <= OPT <= MAX"):
        parse_profiles(text)


def test_a_size_that_nobody_named_is_asked_for() -> None:
    with pytest.raises(InputError, match=r"dynamic beyond the batch; name its shapes: --profile image=MIN,OPT,MAX"):
        parse_profiles("1,2,4")[0].ranges(signature("n", 3, "h", "w"))


def test_shapes_that_do_not_fit_the_model_are_refused() -> None:
    with pytest.raises(InputError, match="got profile shape 1x1x8x8, expected"):
        parse_profiles("image=1x1x8x8,2x1x8x8,4x1x8x8")[0].ranges(signature("n", 3, 8, 8))
    with pytest.raises(InputError, match="got profile shape 1x3, expected"):
        parse_profiles("image=1x3,2x3,4x3")[0].ranges(signature("n", 3, 8, 8))
    with pytest.raises(InputError, match="got a profile for picture, expected image"):
        parse_profiles("picture=1x3,2x3,4x3")[0].ranges(signature("n", 3))


@pytest.mark.parametrize(
    ("shape", "fits"), [((1, 3), True), ((4, 3), True), ((5, 3), False), ((2, 2), False), ((2,), False)]
)
def test_a_range_knows_what_it_holds(shape: tuple[int, ...], fits: bool) -> None:
    assert Range(smallest=(1, 3), usual=(2, 3), largest=(4, 3)).holds(shape) == fits


@pytest.mark.parametrize(
    ("option", "value", "told"),
    [
        ("precision", "fp64", "precision is 'fp64', expected one of auto, fp32, tf32, fp16, bf16, int8"),
        ("typing", "loose", "typing is 'loose', expected one of auto, weak, strong"),
        ("calibrator", "max", "calibrator is 'max', expected one of entropy, minmax"),
        ("workspace_bytes", -1, "workspace_bytes is -1, expected 0 or more"),
        ("calibration_batch", -1, "calibration_batch is -1"),
        ("device", -1, "device is -1"),
        ("optimization_level", 6, "optimization_level is 6, expected 0 to 5"),
        ("target", "8.9", "target is '8.9', expected a compute capability such as sm89"),
        ("profiles", "1,2", "got profile '1,2'"),
    ],
)
def test_options_are_checked_where_they_are_made(option: str, value: object, told: str) -> None:
    with pytest.raises(InputError, match=told.replace(".", r"\.")):
        TensorRtOptions(**{option: value})  # type: ignore[arg-type]


def test_options_hold_their_profiles_as_values() -> None:
    assert [profile.batch for profile in TensorRtOptions(profiles="1,2,3;4,5,6").parsed_profiles] == [
        (1, 2, 3),
        (4, 5, 6),
    ]
