"""Triton kernels for all of a mixer that is independent for each channel: depthwise convolutions, GELU and BatchNorm.

Activations are (B, C, H, W) in float32 or bfloat16 at strides (sb, sc, sh, sw), which all tensors of one call share. Arithmetic
is in float32. A program computes a tile of BLOCK_H × BLOCK_W positions (P) × BLOCK_C channels of one clip. What it sums over
its positions is one row of `partial`, so that results do not depend on the order of programs. Importing this module needs
Triton. With TRITON_INTERPRET=1 in the environment before Triton is first imported, the kernels run on a CPU, slowly.
"""

import triton
import triton.language as tl


@triton.jit
def _tile(sc, sh, sw, C, H, W, BLOCK_H: tl.constexpr, BLOCK_W: tl.constexpr, BLOCK_C: tl.constexpr):
    """Return rows (P, 1), columns (P, 1), channels (1, BLOCK_C), their offsets in a clip (P, BLOCK_C), and which exist."""
    across = tl.cdiv(W, BLOCK_W)
    tile = tl.program_id(0)
    position = tl.arange(0, BLOCK_H * BLOCK_W)[:, None]
    h = (tile // across) * BLOCK_H + position // BLOCK_W
    w = (tile % across) * BLOCK_W + position % BLOCK_W
    c = tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C)[None, :]
    return h, w, c, c * sc + h * sh + w * sw, (h < H) & (w < W) & (c < C)


@triton.jit
def _of_clip(tensor, sb):
    """Return the address of this program's clip: a batch may have more than 2³¹ values, a clip does not."""
    return tensor + tl.program_id(2).to(tl.int64) * sb


@triton.jit
def _row():
    """Return the number of this program's row of `partial`: tiles of a clip, then clips."""
    return (tl.program_id(2) * tl.num_programs(0) + tl.program_id(0)).to(tl.int64)


@triton.jit
def _gelu(v):
    return 0.5 * v * (1.0 + tl.erf(v * 0.7071067811865476))


@triton.jit
def _gelu_slope(v):
    return 0.5 * (1.0 + tl.erf(v * 0.7071067811865476)) + v * tl.exp(-0.5 * v * v) * 0.3989422804014327


@triton.jit
def _store_sums(v, inside, c, partial, C):
    """Store a row (3, C) for gelu(v) at the tile's positions: number, sum, and sum of squares about the tile's mean."""
    a = tl.where(inside, _gelu(v), 0.0)
    count = tl.sum(inside.to(tl.float32), 0)[None, :]
    total = tl.sum(a, 0)[None, :]
    about_mean = tl.where(inside, a - total / tl.maximum(count, 1.0), 0.0)
    row = partial + _row() * 3 * C + c
    tl.store(row, count, mask=c < C)
    tl.store(row + C, total, mask=c < C)
    tl.store(row + 2 * C, tl.sum(about_mean * about_mean, 0)[None, :], mask=c < C)


@triton.jit
def convolve(
    x, weight, bias, out, partial, sb, sc, sh, sw, C, H, W, K: tl.constexpr, DILATION: tl.constexpr, SUMS: tl.constexpr,
    BLOCK_H: tl.constexpr, BLOCK_W: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    """Convolve x with weight (K², C) and bias (C); with SUMS, also store those of gelu(out), rows (3, C) of `partial`."""
    h, w, c, at, inside = _tile(sc, sh, sw, C, H, W, BLOCK_H, BLOCK_W, BLOCK_C)
    x = _of_clip(x, sb)
    total = tl.zeros([BLOCK_H * BLOCK_W, BLOCK_C], tl.float32) + tl.load(bias + c, mask=c < C, other=0.0)
    for i in range(K):
        dh = (i - K // 2) * DILATION
        in_row = (h + dh >= 0) & (h + dh < H) & (c < C)
        for j in tl.static_range(K):
            dw = (j - K // 2) * DILATION
            tap = tl.load(weight + (i * K + j) * C + c, mask=c < C, other=0.0)
            here = in_row & (w + dw >= 0) & (w + dw < W)
            total += tap * tl.load(x + at + dh * sh + dw * sw, mask=here, other=0.0).to(tl.float32)
    rounded = total.to(out.dtype.element_ty)
    tl.store(_of_clip(out, sb) + at, rounded, mask=inside)
    if SUMS:
        _store_sums(rounded.to(tl.float32), inside, c, partial, C)


@triton.jit
def convolve_backward(
    g, x, weight, added, gx, partial, sb, sc, sh, sw, C, H, W, K: tl.constexpr, DILATION: tl.constexpr, ADD: tl.constexpr,
    BLOCK_H: tl.constexpr, BLOCK_W: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    """Compute the gradients of `convolve` from g, that of its output, reading each shifted g once for both.

    gx is that of x, plus `added` with ADD. Rows (K² + 1, C) of `partial` sum up to those of weight and bias.
    """
    h, w, c, at, inside = _tile(sc, sh, sw, C, H, W, BLOCK_H, BLOCK_W, BLOCK_C)
    g = _of_clip(g, sb)
    value = tl.load(_of_clip(x, sb) + at, mask=inside, other=0.0).to(tl.float32)
    row = partial + _row() * (K * K + 1) * C + c
    total = tl.zeros([BLOCK_H * BLOCK_W, BLOCK_C], tl.float32)
    if ADD:
        total += tl.load(_of_clip(added, sb) + at, mask=inside, other=0.0).to(tl.float32)
    for i in range(K):
        dh = (i - K // 2) * DILATION
        in_row = (h - dh >= 0) & (h - dh < H) & inside
        for j in tl.static_range(K):
            dw = (j - K // 2) * DILATION
            tap = tl.load(weight + (i * K + j) * C + c, mask=c < C, other=0.0)
            here = in_row & (w - dw >= 0) & (w - dw < W)
            shifted = tl.load(g + at - dh * sh - dw * sw, mask=here, other=0.0).to(tl.float32)
            total += tap * shifted
            tl.store(row + (i * K + j) * C, tl.sum(shifted * value, 0)[None, :], mask=c < C)
    bias = tl.load(g + at, mask=inside, other=0.0).to(tl.float32)
    tl.store(row + K * K * C, tl.sum(bias, 0)[None, :], mask=c < C)
    tl.store(_of_clip(gx, sb) + at, total.to(gx.dtype.element_ty), mask=inside)


@triton.jit
def sums(
    v, partial, sb, sc, sh, sw, C, H, W, BLOCK_H: tl.constexpr, BLOCK_W: tl.constexpr, BLOCK_C: tl.constexpr
):  # fmt: skip
    """Store the sums of gelu(v), rows (3, C) of `partial`."""
    _, _, c, at, inside = _tile(sc, sh, sw, C, H, W, BLOCK_H, BLOCK_W, BLOCK_C)
    value = tl.load(_of_clip(v, sb) + at, mask=inside, other=0.0).to(tl.float32)
    _store_sums(value, inside, c, partial, C)


@triton.jit
def normalize(
    v, scale, shift, added, out, sb, sc, sh, sw, C, H, W, ADD: tl.constexpr,
    BLOCK_H: tl.constexpr, BLOCK_W: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    """Compute gelu(v) · scale + shift, of (C,), plus `added` with ADD."""
    _, _, c, at, inside = _tile(sc, sh, sw, C, H, W, BLOCK_H, BLOCK_W, BLOCK_C)
    a = _gelu(tl.load(_of_clip(v, sb) + at, mask=inside, other=0.0).to(tl.float32))
    total = a * tl.load(scale + c, mask=c < C, other=0.0) + tl.load(shift + c, mask=c < C, other=0.0)
    if ADD:
        total += tl.load(_of_clip(added, sb) + at, mask=inside, other=0.0).to(tl.float32)
    tl.store(_of_clip(out, sb) + at, total.to(out.dtype.element_ty), mask=inside)


@triton.jit
def gradient_sums(
    v, gz, mean, rstd, partial, sb, sc, sh, sw, C, H, W,
    BLOCK_H: tl.constexpr, BLOCK_W: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    """Store the sums of gz and of gz · (gelu(v) − mean) · rstd, rows (2, C) of `partial`."""
    _, _, c, at, inside = _tile(sc, sh, sw, C, H, W, BLOCK_H, BLOCK_W, BLOCK_C)
    a = _gelu(tl.load(_of_clip(v, sb) + at, mask=inside, other=0.0).to(tl.float32))
    g = tl.load(_of_clip(gz, sb) + at, mask=inside, other=0.0).to(tl.float32)
    normal = (a - tl.load(mean + c, mask=c < C, other=0.0)) * tl.load(rstd + c, mask=c < C, other=0.0)
    row = partial + _row() * 2 * C + c
    tl.store(row, tl.sum(g, 0)[None, :], mask=c < C)
    tl.store(row + C, tl.sum(g * normal, 0)[None, :], mask=c < C)


@triton.jit
def normalize_backward(
    v, gz, mean, rstd, gamma, mean_g, mean_gn, gv, sb, sc, sh, sw, C, H, W,
    BLOCK_H: tl.constexpr, BLOCK_W: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    """Compute the gradient of v from gz, that of BN(gelu(v)); mean_g and mean_gn (C,) are the means of `gradient_sums`."""
    _, _, c, at, inside = _tile(sc, sh, sw, C, H, W, BLOCK_H, BLOCK_W, BLOCK_C)
    value = tl.load(_of_clip(v, sb) + at, mask=inside, other=0.0).to(tl.float32)
    g = tl.load(_of_clip(gz, sb) + at, mask=inside, other=0.0).to(tl.float32)
    r = tl.load(rstd + c, mask=c < C, other=0.0)
    normal = (_gelu(value) - tl.load(mean + c, mask=c < C, other=0.0)) * r
    g -= tl.load(mean_g + c, mask=c < C, other=0.0) + normal * tl.load(mean_gn + c, mask=c < C, other=0.0)
    g *= r * tl.load(gamma + c, mask=c < C, other=0.0) * _gelu_slope(value)
    tl.store(_of_clip(gv, sb) + at, g.to(gv.dtype.element_ty), mask=inside)
