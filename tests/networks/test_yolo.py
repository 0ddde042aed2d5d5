"""The detector's answer has the layout that is read, its boxes are where its head says, and its loss knows better."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from redline.core.errors import InputError
from redline.core.preprocess import Detection
from redline.detection.decoding import Decoder
from redline.detection.letterbox import identity
from redline.networks.seeded import seed_weights
from redline.networks.table import MODELS
from redline.networks.yolo import Raw, Yolo, YoloPlan, nuclei, yolo_n
from redline.networks.yolo_loss import assign, box_iou, complete_iou, detection_loss
from redline.networks.zoo import build


@pytest.fixture(autouse=True, scope="module")
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)  # on a busy machine two small threads wait for each other
    yield
    torch.set_num_threads(before)


def small(strides=(8, 16), num_classes=3) -> Yolo:
    plan = YoloPlan(widths=(4, 8, 8, 8), depths=(1, 1, 1), strides=strides, box_width=8, class_width=8, bins=6)
    model = Yolo(plan, num_classes=num_classes)
    seed_weights(model, 1)
    return model.eval()


@pytest.mark.parametrize("strides", [(4,), (8,), (16,), (4, 8), (8, 16), (4, 8, 16)])
@torch.inference_mode()
def test_one_cell_for_each_place_of_each_grid(strides):
    answer = small(strides)(torch.rand(2, 3, 64, 96))
    assert answer.shape == (2, 7, sum((64 // stride) * (96 // stride) for stride in strides))
    assert ((answer[:, 4:] > 0) & (answer[:, 4:] < 1)).all()
    assert (answer[:, 2:4] > 0).all()


@torch.inference_mode()
def test_boxes_reach_from_their_cells_as_far_as_the_head_says():
    model = small()
    images = torch.rand(1, 3, 32, 64)
    raw, answer = model.raw(images), model(images)
    assert raw.centres[:2].tolist() == [[4, 4], [12, 4]]
    assert raw.centres[8].tolist() == [4, 12]  # the next row of the finer grid
    assert raw.centres[32].tolist() == [8, 8]
    assert raw.strides.tolist() == [8] * 32 + [16] * 8
    assert ((raw.sides >= 0) & (raw.sides <= 5)).all()
    cell = 34  # the third of the coarser grid
    left, top, right, bottom = (raw.sides[0, cell] * 16).tolist()
    x, y, width, height = answer[0, :4, cell].tolist()
    assert (x - width / 2, y - height / 2) == pytest.approx((40 - left, 8 - top), abs=1e-3)
    assert (x + width / 2, y + height / 2) == pytest.approx((40 + right, 8 + bottom), abs=1e-3)
    torch.testing.assert_close(answer[0, 4:, cell], raw.logits[0, cell].sigmoid())


@torch.inference_mode()
def test_rows_of_a_batch_do_not_touch_each_other():
    model, images = small(), torch.rand(3, 3, 64, 64)
    torch.testing.assert_close(model(images)[1:2], model(images[1:2]), rtol=1e-4, atol=1e-4)


@torch.inference_mode()
def test_redline_reads_the_answer():
    model = small(num_classes=3)
    answer = model(torch.rand(1, 3, 64, 64))
    answer[0, 4:, :] = 0
    answer[0, :, 21] = torch.tensor([30.0, 20, 8, 4, 0.1, 0.2, 0.9])
    decode = Decoder(detection=Detection(task="detect", head="v8"), class_count=3)
    found = decode({"output": answer.numpy()}, [identity((64, 64))], (64, 64)).detections
    assert found.boxes.tolist() == [[26, 18, 34, 22]]
    assert found.classes.tolist() == [2]
    assert found.scores.tolist() == pytest.approx([0.9])


def macs_of(model, side_px: int) -> int:
    total = 0

    def count(layer, _inputs, output):
        nonlocal total
        total += output[0].numel() * layer.weight[0].numel()

    for layer in model.modules():
        if isinstance(layer, torch.nn.Conv2d):
            layer.register_forward_hook(count)
    with torch.inference_mode():
        model(torch.zeros(1, 3, side_px, side_px))
    return total


def test_size_n_costs_what_that_size_costs():
    model = yolo_n().eval()
    assert 3.0e6 < sum(parameter.numel() for parameter in model.parameters()) < 3.3e6
    assert 8e9 < 2 * macs_of(model, 640) < 9e9
    assert 2 * macs_of(nuclei().eval(), 256) < 0.8e9


@torch.inference_mode()
def test_random_weights_find_next_to_nothing():
    """So that a benchmark with them spends its time in the network, as one with trained weights does."""
    entry = MODELS["yolo_n"]
    image = torch.rand(1, *entry.shape, generator=torch.Generator().manual_seed(0))
    answer = build("yolo_n")(image)
    assert answer.shape == (1, 84, 8400)
    assert int((answer[0, 4:] > 0.25).any(0).sum()) <= 20


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"depths": (1,)}, "1 depths for 4 widths"),
        ({"strides": ()}, "got strides"),
        ({"strides": (4, 16)}, "neighbours"),
        ({"strides": (16, 8)}, "the finest first"),
        ({"strides": (16, 32)}, "got strides"),
    ],
)
def test_a_plan_that_cannot_be(change, message):
    sound = {"widths": (4, 8, 8, 8), "depths": (1, 1, 1), "strides": (8,), "box_width": 8, "class_width": 8}
    with pytest.raises(InputError, match=message):
        YoloPlan(**(sound | change))


def cells(boxes, logits) -> Raw:
    """A head of one grid of stride 4 over 16x8 pixels that says these boxes."""
    places = torch.tensor([[x, y] for y in (2.0, 6.0) for x in (2.0, 6.0, 10.0, 14.0)])
    sides = torch.cat([places - boxes[:, :2], boxes[:, 2:] - places], dim=1)[None] / 4
    return Raw(places, torch.full((8,), 4.0), sides, logits[None])


def test_labels_get_the_cells_within_them_that_say_them_best():
    label = torch.tensor([[0.0, 0.0, 8.0, 8.0]])
    boxes = label.repeat(8, 1)
    boxes[0] = torch.tensor([0.0, 0.0, 4.0, 8.0])
    raw = cells(boxes, torch.zeros(8, 1))
    found = assign(raw, 0, raw.corners()[0], label, torch.zeros(1, dtype=torch.long))
    assert found.cells.tolist() == [0, 1, 4, 5]
    assert found.labels.tolist() == [0] * 4
    assert found.beliefs.tolist() == pytest.approx([0.5**4, 1, 1, 1], abs=1e-5)


def test_a_cell_of_two_labels_takes_the_one_it_overlaps_more():
    labels = torch.tensor([[0.0, 0.0, 16.0, 8.0], [4.0, 0.0, 8.0, 4.0]])
    boxes = labels[:1].repeat(8, 1)
    boxes[1] = labels[1]
    raw = cells(boxes, torch.zeros(8, 1))
    found = assign(raw, 0, raw.corners()[0], labels, torch.zeros(2, dtype=torch.long))
    assert dict(zip(found.cells.tolist(), found.labels.tolist(), strict=True))[1] == 1
    assert set(found.labels.tolist()) == {0, 1}


def test_an_image_without_labels_teaches_that_nothing_is_there():
    raw = cells(torch.tensor([[0.0, 0, 4, 4]]).repeat(8, 1), torch.zeros(8, 2, requires_grad=True))
    loss = detection_loss(raw, [torch.zeros(0, 4)], [torch.zeros(0, dtype=torch.long)])
    assert float(loss.detach()) == pytest.approx(16 * np.log(2), rel=1e-5)


def test_the_loss_falls_towards_what_should_be_said():
    label, kind = torch.tensor([[0.0, 0.0, 8.0, 8.0]]), torch.zeros(1, dtype=torch.long)
    right = torch.full((8, 1), -6.0)
    right[[0, 1, 4, 5]] = 6.0

    def loss(boxes, logits):
        return float(detection_loss(cells(boxes, logits), [label], [kind]))

    good = loss(label.repeat(8, 1), right)
    assert good < loss(label.repeat(8, 1) + 2, right) < loss(label.repeat(8, 1) + 4, right)
    assert good < loss(label.repeat(8, 1), -right)


def test_overlaps_are_those_of_arithmetic():
    one = torch.tensor([[0.0, 0, 4, 4]])
    others = torch.tensor([[0.0, 0, 4, 4], [2.0, 0, 6, 4], [4.0, 0, 8, 4], [9.0, 9, 9, 9]])
    assert box_iou(one, others)[0].tolist() == pytest.approx([1, 1 / 3, 0, 0], abs=1e-6)
    whole = complete_iou(one.repeat(3, 1), others[:3]).tolist()
    assert whole == pytest.approx([1, 1 / 3 - 4 / 52, -16 / 80], abs=1e-5)
    assert float(complete_iou(one, torch.tensor([[1.0, 1, 3, 3]]))) == pytest.approx(0.25, abs=1e-5)
    assert float(complete_iou(one, torch.tensor([[0.0, 1, 4, 3]]))) < 0.5  # as wide as it is, not as high


def test_a_few_steps_teach_one_image():
    torch.manual_seed(0)
    model = small(strides=(4,), num_classes=1).train()
    images = torch.zeros(2, 3, 32, 32)
    images[:, :, 8:16, 12:24] = 1
    boxes, kinds = [torch.tensor([[12.0, 8, 24, 16]])] * 2, [torch.zeros(1, dtype=torch.long)] * 2
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    for _ in range(60):
        loss = detection_loss(model.raw(images), boxes, kinds)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        answer = model(images)[0]
    best = answer[:, answer[4].argmax()]
    assert best[4] > 0.4
    assert best[:4].tolist() == pytest.approx([18, 12, 12, 8], abs=2)


@torch.inference_mode()
def test_a_cell_is_silent_beside_a_surer_one():
    plan = YoloPlan(widths=(4, 8), depths=(1,), strides=(4,), box_width=8, class_width=8, bins=6, peaks=True)
    model = Yolo(plan, num_classes=2).eval()
    seed_weights(model, 3)
    images = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    peaked = model(images)[0, 4:].reshape(2, 8, 8)
    model.plan = replace(plan, peaks=False)
    free = model(images)[0, 4:].reshape(2, 8, 8)
    for kind in range(2):
        for y in range(8):
            for x in range(8):
                around = free[kind, max(0, y - 1) : y + 2, max(0, x - 1) : x + 2]
                if free[kind, y, x] == around.max():
                    assert peaked[kind, y, x] == free[kind, y, x]
                else:
                    assert peaked[kind, y, x] < 1e-6
    assert (peaked > 1e-6).sum() < 40
