"""Convolutions against numpy in float64, and against the integer arithmetic bit for bit."""

import numpy as np
import pytest

from hashcompile_runtime import NativeError
from hashcompile_runtime._native import FLOAT, INT8, X_LAST, Y_LAST, Epilogue
from tests.runtime.oracle import (
    DENSE,
    EPS,
    ISAS,
    activations,
    finish,
    int8_weights,
    layer,
    quantize,
    quantized_tables,
)

# channels, filters, (H, W), kernel, strides, pads (top, left, bottom, right), dilations
SHAPES = [
    (16, 16, (8, 8), (3, 3), (1, 1), (1, 1, 1, 1), (1, 1)),
    (3, 20, (17, 13), (3, 3), (1, 1), (1, 1, 1, 1), (1, 1)),
    (3, 33, (19, 23), (7, 7), (2, 2), (3, 3, 3, 3), (1, 1)),
    (8, 64, (9, 11), (3, 5), (2, 1), (0, 2, 1, 3), (1, 1)),
    (32, 40, (10, 9), (3, 3), (1, 2), (2, 2, 2, 2), (2, 2)),
    (5, 17, (12, 12), (2, 3), (3, 2), (1, 0, 0, 2), (1, 3)),
    (64, 32, (7, 7), (1, 1), (1, 1), (0, 0, 0, 0), (1, 1)),
    (24, 48, (8, 6), (1, 1), (2, 2), (0, 0, 0, 0), (1, 1)),
    (12, 31, (1, 70), (1, 5), (1, 2), (0, 2, 0, 2), (1, 2)),
    (1, 1, (1, 1), (1, 1), (1, 1), (0, 0, 0, 0), (1, 1)),
    (2, 130, (3, 150), (2, 2), (1, 1), (0, 0, 0, 0), (1, 1)),
]


# channels, filters, groups, the rest as above
GROUPED = [
    (32, 32, 32, (9, 9), (3, 3), (1, 1), (1, 1, 1, 1), (1, 1)),  # depthwise
    (40, 40, 40, (12, 17), (3, 3), (2, 2), (1, 1, 1, 1), (1, 1)),
    (33, 33, 33, (9, 70), (3, 3), (1, 2), (2, 2, 2, 2), (3, 2)),
    (34, 34, 34, (9, 8), (3, 3), (1, 1), (2, 2, 2, 2), (2, 2)),
    (45, 45, 45, (11, 6), (5, 5), (2, 2), (2, 2, 2, 2), (1, 1)),
    (7, 7, 7, (1, 40), (1, 3), (1, 1), (0, 2, 0, 0), (1, 2)),
    (6, 18, 6, (8, 8), (3, 3), (1, 1), (1, 1, 1, 1), (1, 1)),  # three filters a channel
    (32, 64, 2, (8, 8), (3, 3), (1, 1), (1, 1, 1, 1), (1, 1)),  # whole pairs of tiles a group
    (24, 72, 2, (8, 8), (3, 3), (1, 1), (1, 1, 1, 1), (1, 1)),  # a pair of two groups
    (32, 32, 8, (5, 5), (3, 3), (2, 1), (1, 1, 1, 1), (1, 1)),  # eight groups a pair
]


def reference(weight, x, strides, pads, dilations, groups=1):
    """conv of (B, C, H, W) with (N, kh, kw, C / groups), in float64: one product for each tap of the window."""
    if groups > 1:
        parts = zip(np.split(weight, groups), np.split(x, groups, axis=1), strict=True)
        return np.concatenate([reference(w, part, strides, pads, dilations) for w, part in parts], axis=1)
    top, left, bottom, right = pads
    padded = np.pad(np.asarray(x, np.float64), ((0, 0), (0, 0), (top, bottom), (left, right)))
    _, kh, kw, _ = weight.shape
    OH, OW = (
        (size - (taps - 1) * dilation - 1) // stride + 1
        for size, taps, dilation, stride in zip(padded.shape[2:], (kh, kw), dilations, strides, strict=True)
    )
    y = np.zeros((len(x), len(weight), OH, OW))
    for i, j in np.ndindex(kh, kw):
        rows = slice(i * dilations[0], i * dilations[0] + (OH - 1) * strides[0] + 1, strides[0])
        columns = slice(j * dilations[1], j * dilations[1] + (OW - 1) * strides[1] + 1, strides[1])
        y += np.einsum(
            "nc,bchw->bnhw", weight[:, i, j].astype(np.float64), padded[:, :, rows, columns], optimize=True
        )
    return y


def build(shape, bits, group_rows=0, bias=True):
    C, N, (H, W), (kh, kw), *_ = shape
    return layer(bits, N, kh * kw * C, group_rows=group_rows, bias=bias), activations(2, C, H, W)


def int8_reference(of, x, shape):
    C, N, _, (kh, kw), strides, pads, dilations = shape
    t, table_scale = quantized_tables(of)
    images = [quantize(image) for image in x]
    total = reference(t.reshape(N, kh, kw, C), np.array([q for q, _ in images]), strides, pads, dilations)
    scale = np.array([s for _, s in images]).reshape(-1, 1, 1)
    return finish(of, total.transpose(0, 2, 3, 1), scale, table_scale).transpose(0, 3, 1, 2)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("bits", [2, 4, 5, 8, DENSE])
def test_conv(shape, bits, isa):
    C, N, _, kernel, strides, pads, dilations = shape
    of, x = build(shape, bits, group_rows=16 if bits == 4 else 0, bias=bits != 2)

    y = of.weight(FLOAT, isa).conv2d(x, kernel, strides, pads, dilations)
    window = (strides, pads, dilations)
    wanted = reference(of.dense.reshape(N, *kernel, C), x, *window)
    size = reference(np.abs(of.dense).reshape(N, *kernel, C), np.abs(x), *window)
    if of.bias is not None:
        wanted += of.bias[:, None, None]
        size += np.abs(of.bias)[:, None, None]
    K = of.dense.shape[1]
    assert y.shape == wanted.shape
    assert np.all(np.abs(y - wanted) <= EPS * (K + 4) * size)
    if bits == DENSE:
        return

    y = of.weight(INT8, isa).conv2d(x, kernel, strides, pads, dilations)
    np.testing.assert_array_equal(y, int8_reference(of, x, shape))


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("shape", GROUPED, ids=str)
@pytest.mark.parametrize("bits", [3, 4, DENSE])
def test_groups(shape, bits, isa):
    C, N, groups, size, kernel, *window = shape
    channels = C // groups
    of, x = layer(bits, N, kernel[0] * kernel[1] * channels), activations(3, C, *size)

    y = of.weight(FLOAT, isa, groups).conv2d(x, kernel, *window)
    wanted = reference(of.dense.reshape(N, *kernel, channels), x, *window, groups)
    size = reference(np.abs(of.dense).reshape(N, *kernel, channels), np.abs(x), *window, groups)
    wanted, size = wanted + of.bias[:, None, None], size + np.abs(of.bias)[:, None, None]
    assert np.all(np.abs(y - wanted) <= EPS * (of.dense.shape[1] + 4) * size)
    np.testing.assert_array_equal(of.weight(FLOAT, isa, groups).conv2d(x, kernel, *window, threads=2), y)
    if bits == DENSE:
        return

    y = of.weight(INT8, isa, groups).conv2d(x, kernel, *window, threads=2)
    t, table_scale = quantized_tables(of)
    images = [quantize(image) for image in x]
    total = reference(t.reshape(N, *kernel, channels), np.array([q for q, _ in images]), *window, groups)
    scale = np.array([s for _, s in images]).reshape(-1, 1, 1)
    wanted = finish(of, total.transpose(0, 2, 3, 1), scale, table_scale).transpose(0, 3, 1, 2)
    np.testing.assert_array_equal(y, wanted)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("shape", [SHAPES[1], SHAPES[4], SHAPES[6], SHAPES[8], *GROUPED], ids=str)
@pytest.mark.parametrize("last", [X_LAST, Y_LAST, X_LAST | Y_LAST])
def test_channels_last(last, shape, isa):
    """The same bits in another order, residual and all."""
    groups = shape[2] if len(shape) == 8 else 1
    C, N, *rest = shape
    size, kernel, *window = rest[1:] if groups > 1 else rest
    of, x = layer(DENSE, N, kernel[0] * kernel[1] * C // groups), activations(2, C, *size)
    weight = of.weight(FLOAT, isa, groups)
    added = activations(*weight.conv2d(x, kernel, *window).shape, seed=1)
    wanted = weight.conv2d(x, kernel, *window, epilogue=Epilogue("relu", residual=added))

    image, residual = (
        np.moveaxis(each, 1, -1) if last & flag else each for each, flag in ((x, X_LAST), (added, Y_LAST))
    )
    epilogue = Epilogue("relu", residual=np.ascontiguousarray(residual))
    for threads in (1, 2):
        y = weight.conv2d(image, kernel, *window, threads=threads, epilogue=epilogue, channels_last=last)
        np.testing.assert_array_equal(np.moveaxis(y, -1, 1) if last & Y_LAST else y, wanted)


def test_channels_last_is_for_floats():
    of, x = build(SHAPES[0], 4)
    with pytest.raises(NativeError, match="HC_INT8"):
        of.weight(INT8).conv2d(x, (3, 3), pads=(1, 1, 1, 1), channels_last=Y_LAST)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("compute", [FLOAT, INT8])
@pytest.mark.parametrize("residual", [False, True])
def test_epilogue(compute, isa, residual):
    """The plain outputs, then the residual and the activation in float32: nothing else changes."""
    shape = SHAPES[1]
    of, x = build(shape, 4)
    weight = of.weight(compute, isa)
    plain = weight.conv2d(x, *shape[3:])
    added = activations(*plain.shape, seed=1) if residual else None
    total = plain + added if residual else plain
    for activation, wanted in {
        "none": total,
        "relu": np.maximum(total, 0),
        "clip": np.clip(total, -1, 1.5),
    }.items():
        y = weight.conv2d(x, *shape[3:], epilogue=Epilogue(activation, -1, 1.5, added))
        np.testing.assert_array_equal(y, wanted)


def test_groups_that_do_not_divide_are_refused():
    of, x = layer(4, 12, 9), activations(1, 12, 4, 4)
    with pytest.raises(NativeError, match="5 groups do not divide 12 rows"):
        of.weight(groups=5)
    with pytest.raises(NativeError, match="13 channels in 12 groups"):
        of.weight(groups=12).conv2d(activations(1, 13, 4, 4), (3, 3))
    with pytest.raises(NativeError, match="a window of 3 x 3 x 2 channels; the weight has K = 9"):
        of.weight(groups=6).conv2d(x, (3, 3))


@pytest.mark.parametrize("isa", ISAS)
def test_codes_that_are_the_weights(isa):
    """Windows read in place, in several runs, and windows gathered."""
    for shape in (SHAPES[0], SHAPES[1]):
        C, N, (H, W), (kh, kw), *_ = shape
        of, x = int8_weights(N, kh * kw * C), activations(2, C, H, W)
        np.testing.assert_array_equal(
            of.weight(INT8, isa).conv2d(x, *shape[3:]), int8_reference(of, x, shape)
        )


@pytest.mark.parametrize("compute", [FLOAT, INT8])
@pytest.mark.parametrize("shape", SHAPES[:5], ids=str)
def test_threads_do_not_change_a_bit(shape, compute):
    of, x = build(shape, 4)
    weight = of.weight(compute)
    np.testing.assert_array_equal(weight.conv2d(x, *shape[3:]), weight.conv2d(x, *shape[3:], threads=2))


@pytest.mark.parametrize("isa", ISAS)
def test_a_window_longer_than_int32_sums(isa):
    shape = (65600, 17, (1, 3), (1, 1), (1, 1), (0, 0, 0, 0), (1, 1))
    of, x = build(shape, 4)
    np.testing.assert_array_equal(of.weight(INT8, isa).conv2d(x, *shape[3:]), int8_reference(of, x, shape))


@pytest.mark.parametrize("isa", ISAS)
def test_only_the_image_that_is_not_finite_is_nan(isa):
    of, x = build(SHAPES[0], 4)
    x[0, 3, 2, 2] = np.inf
    y = of.weight(INT8, isa).conv2d(x, *SHAPES[0][3:])
    assert np.isnan(y[0]).all()
    np.testing.assert_array_equal(y[1], int8_reference(of, x, SHAPES[0])[1])


@pytest.mark.parametrize("bits", [4, DENSE])
def test_no_images(bits):
    of, x = build(SHAPES[0], bits)
    assert of.weight().conv2d(x[:0], *SHAPES[0][3:]).shape == (0, 16, 8, 8)


@pytest.mark.parametrize(
    ("window", "message"),
    [
        ({"kernel": (3, 3), "strides": (0, 1)}, "vertical stride is 0"),
        ({"kernel": (3, 3), "pads": (0, -1, 0, 0)}, "left padding is -1"),
        (
            {"kernel": (3, 3), "dilations": (1, 5)},
            "a window that spans 11 does not fit the padded width of 8",
        ),
        ({"kernel": (3, 3), "dilations": (2**31, 1)}, "vertical dilation is 2147483648"),
        ({"kernel": (9, 1)}, "a window that spans 9 does not fit the padded height of 8"),
        ({"kernel": (1, 1)}, "a window of 1 x 1 x 16 channels; the weight has K = 144"),
        ({"kernel": (3, 3), "pads": (2**31 - 1,) * 4}, "overflows"),
    ],
)
def test_bad_windows_are_refused(window, message):
    of, x = build(SHAPES[0], 4)
    with pytest.raises(NativeError, match=message):
        of.weight().conv2d(x, **window)
