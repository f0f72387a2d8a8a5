"""Box losses: degenerate boxes, boxes apart, and what CIoU holds constant."""

import math

import pytest
import torch

import brickyard.losses as L

ALL = [L.box_iou_loss, L.giou_loss, L.diou_loss, L.ciou_loss]


def gradient(loss, boxes, target):
    boxes = boxes.clone().requires_grad_()
    value = loss(boxes, target)
    (grad,) = torch.autograd.grad(value, boxes)
    assert bool(value.isfinite())
    assert bool(grad.isfinite().all())
    return value.item(), grad


@pytest.mark.parametrize("loss", ALL)
@pytest.mark.parametrize(
    ("box", "target"),
    [
        ([1.0, 1, 1, 1], [1.0, 1, 1, 1]),  # the same point twice
        ([1.0, 1, 1, 1], [2.0, 2, 2, 2]),  # two points
        ([1.0, 1, 3, 1], [1.0, 1, 3, 1]),  # a line
        ([3.0, 3, 1, 1], [0.0, 0, 2, 2]),  # corners out of order
        ([0.0, 0, 1e4, 1e4], [0.0, 0, 1e-4, 1e-4]),
        ([-1e4, -1e4, -1e4, -1e4], [1e4, 1e4, 1e4, 1e4]),
    ],
)
def test_degenerate_boxes_are_finite(loss, box, target):
    gradient(loss, torch.tensor([box]), torch.tensor([target]))


def test_boxes_apart_feel_a_pull_from_all_but_iou():
    box, target = torch.tensor([[0.0, 0.0, 1.0, 1.0]]), torch.tensor([[4.0, 0.0, 5.0, 1.0]])
    value, grad = gradient(L.box_iou_loss, box, target)
    assert value == 1
    assert not grad.any()
    for loss in ALL[1:]:
        value, grad = gradient(loss, box, target)
        assert value > 1
        assert grad[0, 2] < 0  # the right edge wants to move right


def test_the_trade_off_of_ciou_gets_no_gradient():
    """With alpha held at its value, the gradient is that of the paper's sum."""
    box = torch.tensor([[0.0, 0.0, 2.0, 1.0]], dtype=torch.float64)
    target = torch.tensor([[0.5, 0.0, 1.5, 2.0]], dtype=torch.float64)

    def parts(b):
        iou = 1 - L.box_iou_loss(b, target)
        shape = [torch.atan((r[0, 2] - r[0, 0]) / (r[0, 3] - r[0, 1])) for r in (target, b)]
        return iou, 4 / math.pi**2 * (shape[0] - shape[1]) ** 2

    iou, v = parts(box)
    alpha = v / (1 - iou + v)
    leaf = box.clone().requires_grad_()
    (wanted,) = torch.autograd.grad(L.diou_loss(leaf, target) + alpha * parts(leaf)[1], leaf)
    torch.testing.assert_close(gradient(L.ciou_loss, box, target)[1], wanted)


def test_bad_boxes_are_refused():
    good = torch.tensor([[0.0, 0.0, 1.0, 1.0]])
    with pytest.raises(ValueError, match=r"x1 <= x2 and y1 <= y2; got one of width or height -1"):
        L.giou_loss(good, torch.tensor([[1.0, 0.0, 0.0, 1.0]]))
    with pytest.raises(ValueError, match="4 numbers on the last axis"):
        L.giou_loss(torch.zeros(2, 5), torch.zeros(2, 5))
    with pytest.raises(ValueError, match="boxes and target must have the same shape"):
        L.giou_loss(good, good[0])
