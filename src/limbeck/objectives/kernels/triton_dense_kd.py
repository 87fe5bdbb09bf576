"""The kernel of `dense_kd`; to be imported only where triton is installed.

One program works on one row. Its first loop keeps running maxima and sums of exponentials of student and teacher, and
the teacher's mean of how far the logits are apart; its second one writes the gradient. Everything between is float32.
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def kernel(
    logits, told, labels, hard_scale, soft_scale, hard_out, soft_out, stride, told_stride, classes, common, temperature,
    WRITE: tl.constexpr, BLOCK: tl.constexpr, LOWEST: tl.constexpr,
):  # fmt: skip
    """Values of cross-entropy and T^2 KL of one row; with WRITE the gradient goes where the student's logits were."""
    row = tl.program_id(0).to(tl.int64)
    logits += row * stride
    told += row * told_stride
    label = tl.load(labels + row)
    labelled = tl.load(logits + label).to(tl.float32)
    labelled = tl.where(labelled < LOWEST, LOWEST, labelled)
    top, soft_top, told_top = -float("inf"), -float("inf"), -float("inf")
    total, soft_total, told_total, apart = 0.0, 0.0, 0.0, 0.0
    for start in range(0, classes, BLOCK):
        place = start + tl.arange(0, BLOCK)
        inside, shared = place < classes, place < common
        z = tl.load(logits + place, mask=inside, other=-float("inf")).to(tl.float32)
        z = tl.where(inside & (z < LOWEST), LOWEST, z)
        t = tl.load(told + place, mask=shared, other=-float("inf")).to(tl.float32)
        t = tl.where(shared & (t < LOWEST), LOWEST, t)
        new_top = tl.maximum(top, tl.max(z, 0))
        total = total * tl.exp(top - new_top) + tl.sum(tl.exp(z - new_top), 0)
        top = new_top
        if start < common:
            soft_z = tl.where(shared, z, -float("inf"))
            new_top = tl.maximum(soft_top, tl.max(soft_z, 0))
            shrink = tl.exp((soft_top - new_top) / temperature)
            soft_total = soft_total * shrink + tl.sum(tl.exp((soft_z - new_top) / temperature), 0)
            soft_top = new_top
            new_top = tl.maximum(told_top, tl.max(t, 0))
            shrink = tl.exp((told_top - new_top) / temperature)
            power = tl.exp((t - new_top) / temperature)
            apart = apart * shrink + tl.sum(tl.where(shared, power * (t - z), 0.0), 0)
            told_total = told_total * shrink + tl.sum(power, 0)
            told_top = new_top
    log_total, soft_log, told_log = tl.log(total), tl.log(soft_total), tl.log(told_total)
    tl.store(hard_out + row, log_total - (labelled - top))
    kl = (apart / told_total - (told_top - soft_top)) / temperature - told_log + soft_log
    tl.store(soft_out + row, temperature * temperature * kl)
    if WRITE:
        hard = tl.load(hard_scale + row)
        soft = tl.load(soft_scale + row) * temperature
        for start in range(0, classes, BLOCK):
            place = start + tl.arange(0, BLOCK)
            inside, shared = place < classes, place < common
            z = tl.load(logits + place, mask=inside, other=-float("inf")).to(tl.float32)
            z = tl.where(inside & (z < LOWEST), LOWEST, z)
            t = tl.load(told + place, mask=shared, other=-float("inf")).to(tl.float32)
            t = tl.where(shared & (t < LOWEST), LOWEST, t)
            mine = tl.exp((tl.where(shared, z, -float("inf")) - soft_top) / temperature - soft_log)
            slope = hard * tl.exp(z - top - log_total)
            slope += soft * (mine - tl.exp((t - told_top) / temperature - told_log))
            slope -= tl.where(place == label, hard, 0.0)
            tl.store(logits + place, slope.to(logits.dtype.element_ty), mask=inside)
