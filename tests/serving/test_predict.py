"""Images and plain JSON in, classes out; and images that mean harm."""

from __future__ import annotations

import gzip
import json
import struct
import zlib
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tests.serving.fakes import Shelf, classify, picture, serve

from redline.core.errors import RequestError
from redline.core.preprocess import Preprocess
from redline.core.tensor import Signature, TensorSpec
from redline.serving.core import Call, Reply, Server
from redline.serving.images import decode_image
from redline.serving.limits import Limits
from redline.serving.multipart import files_of
from redline.verification.guesses import guesses_of

MOST_PIXELS = Limits().image_pixels


def predict(server: Server, body: bytes, content_type: str = "", path: str = "/predict/colours", **query: str) -> Reply:
    headers = {"content-type": content_type} if content_type else {}
    return server.answer(Call(method="POST", path=path, headers=headers, query=query, body=body))


def answer_of(reply: Reply) -> dict[str, Any]:
    assert reply.status == 200, reply.body
    found: dict[str, Any] = json.loads(reply.body)
    return found


def error_of(reply: Reply) -> str:
    return str(json.loads(reply.body)["error"])


def form(*files: bytes, field: str = "image") -> tuple[bytes, str]:
    parts = [
        f'--xyz\r\nContent-Disposition: form-data; name="{field}"; filename="f{at}"\r\n\r\n'.encode() + file + b"\r\n"
        for at, file in enumerate(files)
    ]
    return b"".join([*parts, b"--xyz--\r\n"]), 'multipart/form-data; boundary="xyz"'


@pytest.mark.parametrize(
    ("kind", "content_type"), [("PNG", "image/png"), ("JPEG", "image/jpeg"), ("WEBP", "image/webp")]
)
def test_an_image_becomes_its_classes(server: Server, kind: str, content_type: str) -> None:
    answer = answer_of(predict(server, picture("blue", kind=kind), content_type))
    assert (answer["model"], answer["version"]) == ("colours", "1")
    (row,) = answer["predictions"]
    assert (row[0]["name"], row[0]["class"]) == ("blue", 2)
    assert sum(one["probability"] for one in row) == pytest.approx(1)
    assert set(answer["ms"]) == {"queue", "decode", "infer", "encode"}
    assert all(value >= 0 for value in answer["ms"].values())


def test_top_bounds_what_is_told(server: Server) -> None:
    body = picture()
    assert len(answer_of(predict(server, body, "image/png", top="1"))["predictions"][0]) == 1
    assert len(answer_of(predict(server, body, "image/png", top="1000"))["predictions"][0]) == 3
    for wrong in ("0", "-1", "1001", "x", "", "1e2", "٣"):
        assert predict(server, body, "image/png", top=wrong).status == 400


def test_a_form_of_several_files_has_several_rows(server: Server) -> None:
    body, content_type = form(picture("red"), picture("green"), picture("blue", kind="JPEG"), field="anything")
    rows = answer_of(predict(server, body, content_type))["predictions"]
    assert [row[0]["name"] for row in rows] == ["red", "green", "blue"]


def test_an_image_without_its_type_is_known_by_its_first_bytes(server: Server) -> None:
    assert answer_of(predict(server, picture()))["predictions"]
    assert answer_of(predict(server, picture(kind="WEBP"), "application/octet-stream"))["predictions"]
    refused = predict(server, picture(), "application/x-www-form-urlencoded")
    assert (refused.status, "image/jpeg" in error_of(refused)) == (415, True)
    assert predict(server, b"no image", "").status == 415
    assert predict(server, b"GIF89a", "image/gif").status == 415


def test_a_compressed_body_is_inflated(server: Server) -> None:
    call = Call(
        method="POST",
        path="/predict/colours",
        headers={"content-type": "image/png", "content-encoding": "gzip"},
        body=gzip.compress(picture(), mtime=0),
    )
    assert server.answer(call).status == 200


def test_tensors_as_plain_json(server: Server) -> None:
    rows = [[0, 1, 2, 3], [1, 1, 1, 1]]
    for body in ({"inputs": {"x": rows}}, {"inputs": rows}, {"instances": rows}):
        reply = predict(server, json.dumps(body).encode(), "application/json; charset=utf-8", "/predict/affine")
        found = answer_of(reply)
        # The affine map's answer looks like scores of four classes.
        assert [row[0]["class"] for row in found["predictions"]] == [3, 0]
    body = {"inputs": {"a": [[1, 2]], "b": [[3, 4]], "on": [True]}}
    found = answer_of(predict(server, json.dumps(body).encode(), "application/json", "/predict/mixed"))
    assert found["predictions"][0][0]["class"] == 1


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"{}",
        b'{"inputs": {"x": [[1, 2, 3]]}}',
        b'{"inputs": {"x": [[1, 2, 3, "4"]]}}',
        b'{"inputs": {"x": [[1, 2, 3, 4], [1]]}}',
        b'{"inputs": {"z": [[1, 2, 3, 4]]}}',
        b'{"inputs": {"x": []}}',
        b'{"inputs": {"x": [[1, 2, 3, 1e400]]}}',
        b'{"inputs": ' + b"[" * 900 + b"]" * 900 + b"}",
    ],
)
def test_tensors_that_do_not_fit_are_400(server: Server, body: bytes) -> None:
    reply = predict(server, body, "application/json", "/predict/affine")
    assert (reply.status, bool(error_of(reply))) == (400, True)


def test_outputs_that_are_no_classes_are_told_with_their_shapes(tmp_path: Path) -> None:
    signature = Signature(
        (TensorSpec("x", ("batch", 2), "float32"),),
        (TensorSpec("boxes", ("batch", 1, 2), "float16"), TensorSpec("word", ("batch",), "object")),
    )

    def detect(inputs: Any) -> Any:
        words = np.array([b"caf\xc3\xa9"] * len(inputs["x"]), object)
        with np.errstate(over="ignore"):
            return {"boxes": inputs["x"][:, None].astype(np.float16), "word": words}

    models = serve(tmp_path, "detector", shelf=Shelf(runs={"detector": detect}, signatures={"detector": signature}))
    server = Server(models)
    # The only model needs no name.
    reply = predict(server, b'{"inputs": [[1, 0.5]]}', "application/json", "/predict")
    assert answer_of(reply)["outputs"] == [
        {"name": "boxes", "datatype": "FP16", "shape": [1, 1, 2], "data": [[[1, 0.5]]]},
        {"name": "word", "datatype": "BYTES", "shape": [1], "data": ["café"]},
    ]
    reply = predict(server, b'{"inputs": [[1e30, 0]]}', "application/json", "/predict")
    assert (reply.status, "NaN or infinite" in error_of(reply)) == (400, True)
    assert predict(server, picture(), "image/png", "/predict").status == 400
    models.close()


def test_which_model_has_to_be_said_where_there_are_several(server: Server) -> None:
    reply = predict(server, picture(), "image/png", "/predict")
    assert (reply.status, "affine, mixed, colours" in error_of(reply)) == (400, True)
    assert predict(server, picture(), "image/png", "/predict/nobody").status == 404
    assert predict(server, picture(), "image/png", version="1").status == 200
    assert predict(server, picture(), "image/png", version="7").status == 404


def test_a_model_that_takes_no_images_says_so(server: Server) -> None:
    reply = predict(server, picture(), "image/png", "/predict/affine")
    assert (reply.status, "does not say how an image becomes its input" in error_of(reply)) == (400, True)


def test_a_batch_that_is_fixed_in_the_file_is_filled_up(tmp_path: Path) -> None:
    seen: list[int] = []

    def run(inputs: Any) -> Any:
        seen.append(len(inputs["image"]))
        return classify(inputs)

    signature = Signature((TensorSpec("image", (4, 3, 8, 8), "float32"),), (TensorSpec("scores", (4, 3), "float32"),))
    models = serve(tmp_path, "colours", shelf=Shelf(runs={"colours": run}, signatures={"colours": signature}))
    server = Server(models)
    body, content_type = form(picture("green"), picture("red"))
    rows = answer_of(predict(server, body, content_type))["predictions"]
    assert [row[0]["name"] for row in rows] == ["green", "red"]
    assert set(seen) == {4}
    body, content_type = form(*[picture("green")] * 5)
    reply = predict(server, body, content_type)
    assert (reply.status, "at most 4 images at once, got 5" in error_of(reply)) == (400, True)
    models.close()


def test_a_model_may_be_dynamic_in_its_sides(tmp_path: Path) -> None:
    signature = Signature(
        (TensorSpec("image", ("batch", 3, "h", "w"), "float16"),), (TensorSpec("scores", ("batch", 3), "float16"),)
    )
    shelf = Shelf(signatures={"colours": signature}, preprocess=Preprocess(height_px=20, width_px=30))
    models = serve(tmp_path, "colours", shelf=shelf)
    answer = answer_of(predict(Server(models), picture("green"), "image/png"))
    assert answer["predictions"][0][0]["name"] == "green"
    models.close()


def test_forms_are_bounded(server_with: Callable[..., Server]) -> None:
    server = server_with(limits=Limits(batch_rows=2))
    body, content_type = form(*[picture()] * 3)
    assert predict(server, body, content_type).status == 413
    field = b'--xyz\r\nContent-Disposition: form-data; name="a"\r\n\r\n1\r\n'
    assert predict(server, field * 600 + b"--xyz--\r\n", content_type).status == 413
    reply = predict(server, field + b"--xyz--\r\n", content_type)
    assert (reply.status, "has no file" in error_of(reply)) == (400, True)


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        (b"", "multipart/form-data; boundary=xyz"),
        (form(b"x")[0], "multipart/form-data"),
        (form(b"x")[0], "multipart/form-data; boundary=other"),
        (form(b"x")[0], f"multipart/form-data; boundary={'x' * 71}"),
        (form(b"x")[0], "multipart/form-data; boundary=ü"),
        (form(b"x")[0][:-12], "multipart/form-data; boundary=xyz"),
        (b"--xyz\r\n\r\nno disposition\r\n--xyz--\r\n", "multipart/form-data; boundary=xyz"),
        (b'--xyz\r\nContent-Disposition: form-data; filename="', "multipart/form-data; boundary=xyz"),
    ],
)
def test_a_broken_form_is_400(body: bytes, content_type: str) -> None:
    with pytest.raises(RequestError) as caught:
        files_of(body, content_type, most_files=8)
    assert caught.value.status == 400


def test_a_file_of_a_form_keeps_its_bytes() -> None:
    odd = [bytes(range(256)), b"\r\n", b"", b"--xy\r\n--xyz-", b"\r\r\n\n" * 99]
    assert files_of(*form(*odd), most_files=8) == odd


def bomb(side_px: int) -> bytes:
    """A PNG that is small as a file and black."""
    rows = zlib.compress(bytes((1 + side_px) * side_px), 9)

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", side_px, side_px, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def test_a_bomb_is_413_before_a_pixel_is_decoded(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    body = bomb(4001)
    assert len(body) < 100_000

    def explode(*_: object) -> None:
        raise AssertionError("it was decoded")

    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", explode)
    reply = predict(server, body, "image/png")
    assert (reply.status, "4001x4001 pixels" in error_of(reply)) == (413, True)


@pytest.mark.parametrize("side_px", [10_000, 20_000, 2**31 - 1])
def test_a_size_that_only_the_header_claims_is_413(side_px: int) -> None:
    claimed = bytearray(bomb(8))
    claimed[16:24] = struct.pack(">II", side_px, side_px)
    claimed[29:33] = struct.pack(">I", zlib.crc32(claimed[12:29]))
    with pytest.raises(RequestError) as caught:
        decode_image(bytes(claimed), most_pixels=MOST_PIXELS)
    assert caught.value.status == 413


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_the_limit_itself_is_taken(kind: str) -> None:
    assert decode_image(picture(kind=kind, size=(100, 100)), most_pixels=10_000).size == (100, 100)
    with pytest.raises(RequestError) as caught:
        decode_image(picture(kind=kind, size=(101, 100)), most_pixels=10_000)
    assert caught.value.status == 413


def test_of_several_pictures_in_one_file_the_first_counts() -> None:
    file = BytesIO()
    Image.new("RGB", (8, 8), "red").save(file, "MPO", save_all=True, append_images=[Image.new("RGB", (8, 8), "blue")])
    pixel = decode_image(file.getvalue(), most_pixels=MOST_PIXELS).getpixel((4, 4))
    assert isinstance(pixel, tuple)
    assert pixel[0] > 200 > pixel[2]


@pytest.mark.parametrize("kind", ["GIF", "BMP", "TIFF", "PPM", "ICO", "PDF"])
def test_other_formats_are_no_images_here(kind: str) -> None:
    with pytest.raises(RequestError, match="JPEG, PNG or WebP") as caught:
        decode_image(picture(kind=kind), most_pixels=MOST_PIXELS)
    assert caught.value.status == 400


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_wherever_an_image_is_cut_or_bent_it_is_400_or_an_image(kind: str) -> None:
    whole = picture("red", kind=kind, size=(40, 30))
    random = np.random.default_rng(0)
    for at in range(0, len(whole), max(1, len(whole) // 100)):
        bent = bytearray(whole)
        bent[at] ^= int(random.integers(1, 256))
        for body in (whole[:at], bytes(bent)):
            try:
                decode_image(body, most_pixels=MOST_PIXELS)
            except RequestError as error:
                assert error.status in (400, 413)
                assert "0x" not in str(error)


def test_an_image_is_turned_upright(server: Server) -> None:
    image = Image.new("RGB", (40, 20), "red")
    exif = image.getexif()
    exif[0x0112] = 6
    file = BytesIO()
    image.save(file, "JPEG", exif=exif)
    assert decode_image(file.getvalue(), most_pixels=MOST_PIXELS).size == (20, 40)


def test_of_an_animation_the_first_frame_counts(server: Server) -> None:
    file = BytesIO()
    frames = [Image.new("RGB", (8, 8), color) for color in ("green", "red", "red")]
    frames[0].save(file, "WEBP", save_all=True, append_images=frames[1:], lossless=True)
    assert answer_of(predict(server, file.getvalue(), "image/webp"))["predictions"][0][0]["name"] == "green"


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "I;16", "CMYK"])
def test_every_mode_is_taken(server: Server, mode: str) -> None:
    file = BytesIO()
    Image.new(mode, (9, 9)).save(file, "JPEG" if mode == "CMYK" else "PNG")
    assert predict(server, file.getvalue(), "image/png").status == 200


def test_guesses_keep_probabilities_and_soften_scores() -> None:
    shares = np.array([[0.2, 0.8], [0.5, 0.5]], np.float32)
    assert [row[0].probability for row in guesses_of({"y": shares}, None)] == pytest.approx([0.8, 0.5])
    (row,) = guesses_of({"y": np.array([[1000.0, 0.0]])}, ["a", "b"])
    assert (row[0].name, row[0].probability) == ("a", 1.0)
    assert guesses_of({"y": np.array([[np.nan, 0.0]])}, None) == ()
    assert guesses_of({"y": np.zeros((2, 3), np.int64), "z": np.zeros((0, 3))}, None) == ()
    assert guesses_of({"y": shares}, ["one name too few"])[0][0].name is None
