"""Any image becomes what a Preprocess says; anything else gets a reason."""

import numpy as np
import pytest
from PIL import Image

from redline.core.errors import DataError
from redline.core.preprocess import Preprocess
from redline.core.tensor import Signature, TensorSpec
from redline.data.images import infer_preprocess, prepare, read_image

PLAIN = Preprocess(height_px=8, width_px=8, mean=(0, 0, 0), std=(1, 1, 1))
GRAY = Preprocess(height_px=8, width_px=8, mean=(0,), std=(1,), color="gray")


def signature(*shape, dtype="float32"):
    return Signature((TensorSpec("x", shape, dtype),), ())


def test_scale_mean_and_deviation():
    image = Image.new("RGB", (10, 10), (255, 0, 51))
    answer = prepare(image, Preprocess(height_px=8, width_px=8, mean=(0.5, 0.5, 0.2), std=(0.5, 0.25, 1.0)))
    assert answer.dtype == np.float32
    assert answer.flags.c_contiguous
    np.testing.assert_allclose(answer[:, 0, 0], [1, -2, 0], atol=1e-6)


def test_bgr_and_nhwc():
    image = Image.new("RGB", (10, 10), (255, 0, 0))
    answer = prepare(
        image, Preprocess(height_px=8, width_px=6, mean=(0,) * 3, std=(1,) * 3, color="bgr", layout="nhwc")
    )
    assert answer.shape == (8, 6, 3)
    assert answer[0, 0].tolist() == [0, 0, 1]


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr", "I", "F", "I;16", "HSV"])
@pytest.mark.parametrize("preprocess", [PLAIN, GRAY])
def test_every_mode_converts(mode, preprocess):
    image = Image.new(mode, (20, 12))
    answer = prepare(image, preprocess)
    assert answer.shape == (preprocess.channels, 8, 8)
    assert np.isfinite(answer).all()


def test_sixteen_bits_are_scaled_not_clipped(tmp_path):
    Image.fromarray(np.full((16, 16), 32768, np.uint16)).save(tmp_path / "deep.png")
    np.testing.assert_allclose(read_image(tmp_path / "deep.png", GRAY), 0.5, atol=0.01)


def test_transparency_is_dropped():
    assert prepare(Image.new("RGBA", (9, 9), (255, 0, 0, 0)), PLAIN)[:, 0, 0].tolist() == [1, 0, 0]


def test_exif_orientation_is_applied(tmp_path):
    pixels = np.zeros((16, 32), np.uint8)
    pixels[:, :16] = 255
    exif = Image.Exif()
    exif[0x0112] = 3
    Image.fromarray(pixels).save(tmp_path / "turned.png", exif=exif)
    stretched = Preprocess(height_px=8, width_px=8, mean=(0,), std=(1,), color="gray", resize="stretch")
    answer = read_image(tmp_path / "turned.png", stretched)
    assert answer[0, 0, 0] == 0
    assert answer[0, 0, -1] == 1


def test_crop_takes_the_centre_and_stretch_takes_all():
    pixels = np.zeros((64, 192), np.uint8)
    pixels[:, 64:128] = 255
    image = Image.fromarray(pixels)
    cropped = Preprocess(height_px=16, width_px=16, mean=(0,), std=(1,), color="gray", resize_ratio=1.0)
    stretched = Preprocess(height_px=16, width_px=16, mean=(0,), std=(1,), color="gray", resize="stretch")
    assert prepare(image, cropped).mean() > 0.95
    assert prepare(image, stretched).mean() == pytest.approx(1 / 3, abs=0.05)


def test_the_first_frame_of_an_animation_counts(tmp_path):
    frames = [Image.new("L", (9, 9), 255), Image.new("L", (9, 9), 0)]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    assert read_image(tmp_path / "a.gif", GRAY).min() == 1


def test_a_long_strip_does_not_fill_the_memory():
    assert prepare(Image.new("L", (60_000, 9)), Preprocess(height_px=224, width_px=224)).shape == (3, 224, 224)


def test_a_broken_file_gets_a_reason(tmp_path):
    good = tmp_path / "good.jpg"
    Image.effect_noise((64, 64), 50).save(good)
    whole = good.read_bytes()
    for name, content, reason in [
        ("cut.jpg", whole[: len(whole) // 2], "broken .*truncated"),
        ("text.jpg", b"hello", "not those of an image"),
        ("empty.png", b"", "not those of an image"),
    ]:
        (tmp_path / name).write_bytes(content)
        with pytest.raises(DataError, match=reason):
            read_image(tmp_path / name, PLAIN)


def test_tiny_and_huge_are_refused(tmp_path, monkeypatch):
    Image.new("P", (1, 1)).save(tmp_path / "dot.gif")
    with pytest.raises(DataError, match="1x1 pixels, smaller than 8"):
        read_image(tmp_path / "dot.gif", PLAIN)
    Image.new("L", (100, 100)).save(tmp_path / "bomb.png")
    for highest in (9_000, 1_000):
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", highest)
        with pytest.raises(DataError, match="decompression bomb"):
            read_image(tmp_path / "bomb.png", PLAIN)


def test_infer_preprocess():
    assert infer_preprocess(signature("n", 3, 24, 32)) == Preprocess(height_px=24, width_px=32)
    last = infer_preprocess(signature(1, 24, 32, 1))
    assert (last.color, last.layout, last.mean) == ("gray", "nhwc", (0.0,))
    assert infer_preprocess(signature("n", 5)) is None
    assert infer_preprocess(signature("n", 3, 8, 8, dtype="int64")) is None
    assert infer_preprocess(signature("n", 4, 24, 32)) is None


def test_infer_preprocess_of_a_dynamic_size():
    dynamic = signature("n", 3, "height", "width")
    with pytest.raises(DataError, match="dynamic in height"):
        infer_preprocess(dynamic)
    assert infer_preprocess(dynamic, size=(24, 32)).width_px == 32
    with pytest.raises(DataError, match="fixed at 8"):
        infer_preprocess(signature("n", 3, 8, 8), size=(16, 8))


def test_letterbox_keeps_all_of_the_image_and_fills_with_gray():
    pytest.importorskip("cv2")
    plain = {"height_px": 32, "width_px": 32, "resize": "letterbox"}
    answer = prepare(Image.new("RGB", (64, 32), (255, 0, 0)), Preprocess(**plain, mean=(0,) * 3, std=(1,) * 3))
    assert answer.shape == (3, 32, 32)
    assert answer[:, 16, 16].tolist() == [1, 0, 0]
    np.testing.assert_allclose(answer[:, :8], 114 / 255)
    np.testing.assert_allclose(answer[:, 24:], 114 / 255)
    gray = prepare(Image.new("L", (64, 32), 255), Preprocess(**plain, mean=(0,), std=(1,), color="gray"))
    assert (gray[0, 16, 16], gray.shape) == (1, (1, 32, 32))


def test_letterbox_gives_what_a_detector_prepares():
    pytest.importorskip("cv2")
    from redline.core.preprocess import Usage
    from redline.detection.letterbox import batch_of
    from redline.detection.preparing import letterbox_preprocess

    image = Image.effect_noise((57, 91), 80).convert("RGB")
    usage = Usage(preprocess=letterbox_preprocess(64, 96))
    np.testing.assert_array_equal(prepare(image, usage.preprocess), batch_of([np.asarray(image)], (64, 96))[0])
