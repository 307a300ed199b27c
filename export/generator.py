"""The generator pcg4d-boxmuller-1 in its three forms: numpy (the reference), torch and ONNX.

Counter-based: any normal of any draw can be computed alone, so draws can be split over chunks, threads and machines.
The hash is pcg4d (Jarzynski & Olano, "Hash Functions for GPU Rendering", JCGT 9(3), 2020); Box & Muller (1958)
turns pairs of uniforms into pairs of normals. The integers agree exactly in all forms, the normals within a few ULP.
"""

import math

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

MULTIPLIER = 1664525
INCREMENT = 1013904223


def normals(draws: ArrayLike, seed: int, stream: int, n: int) -> NDArray[np.float64]:
    """Reference: standard normals [S, n] for draws [S] of integers, accurate to float64 but for the uniforms.

    The uniforms are rounded to float32 as in the other forms, since near 1 the logarithm magnifies that rounding.
    """
    quarter = -(-n // 4)
    mask = np.uint64(0xFFFFFFFF)
    names = np.asarray(draws, dtype=np.int64).reshape(-1, 1)
    x = np.broadcast_to(np.arange(quarter, dtype=np.uint64), (len(names), quarter))
    y = np.broadcast_to(names.astype(np.uint64) & mask, x.shape)
    z = np.full(x.shape, (stream ^ (seed >> 32)) & 0xFFFFFFFF, dtype=np.uint64)
    w = np.full(x.shape, seed & 0xFFFFFFFF, dtype=np.uint64)
    x, y, z, w = ((v * np.uint64(MULTIPLIER) + np.uint64(INCREMENT)) & mask for v in (x, y, z, w))
    for first in (True, False):
        x = (x + y * w) & mask
        y = (y + z * x) & mask
        z = (z + x * y) & mask
        w = (w + y * z) & mask
        if first:
            x, y, z, w = (v ^ (v >> np.uint64(16)) for v in (x, y, z, w))
    ux, uy, uz, uw = (_uniform(v).astype(np.float64) for v in (x, y, z, w))
    near, far = np.sqrt(-2 * np.log(ux)), np.sqrt(-2 * np.log(uz))
    lanes = (
        near * np.cos(2 * np.pi * uy),
        near * np.sin(2 * np.pi * uy),
        far * np.cos(2 * np.pi * uw),
        far * np.sin(2 * np.pi * uw),
    )
    return np.concatenate(lanes, axis=1)[:, :n]


def _uniform(v: NDArray[np.uint64]) -> NDArray[np.float32]:
    return (v >> np.uint64(8)).astype(np.float32) * np.float32(2**-24) + np.float32(2**-25)


def torch_normals(draws: Tensor, seed: Tensor, stream: int, n: int) -> Tensor:
    """Standard normals float32 [S, n] for draws int64 [S] and a scalar int64 seed. TorchScript compiles it."""
    x, y, z, w = torch_words(draws, seed, stream, (n + 3) // 4)
    near = torch.sqrt(torch.log(((x >> 8) & 0xFFFFFF).to(torch.float32) * 2**-24 + 2**-25) * -2.0)
    far = torch.sqrt(torch.log(((z >> 8) & 0xFFFFFF).to(torch.float32) * 2**-24 + 2**-25) * -2.0)
    turn = ((y >> 8) & 0xFFFFFF).to(torch.float32) * (math.pi * 2**-23) + math.pi * 2**-24
    turn_far = ((w >> 8) & 0xFFFFFF).to(torch.float32) * (math.pi * 2**-23) + math.pi * 2**-24
    lanes = [near * torch.cos(turn), near * torch.sin(turn), far * torch.cos(turn_far), far * torch.sin(turn_far)]
    return torch.cat(lanes, dim=1)[:, :n]


def torch_words(draws: Tensor, seed: Tensor, stream: int, quarter: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The four words of pcg4d that normals are made of, each int32 [S, quarter] with the bits of an unsigned number.

    TorchScript has no unsigned arithmetic: int32 wraps the same way, and (v >> k) & mask is the logical shift.
    """
    x = torch.arange(quarter, device=draws.device).to(torch.int32).unsqueeze(0)
    y = draws.to(torch.int32).unsqueeze(1)
    z = (seed >> 32).to(torch.int32) ^ stream
    w = seed.to(torch.int32)
    x = x * 1664525 + 1013904223
    y = y * 1664525 + 1013904223
    z = z * 1664525 + 1013904223
    w = w * 1664525 + 1013904223
    x = x + y * w
    y = y + z * x
    z = z + x * y
    w = w + y * z
    x = x ^ ((x >> 16) & 0xFFFF)
    y = y ^ ((y >> 16) & 0xFFFF)
    z = z ^ ((z >> 16) & 0xFFFF)
    w = w ^ ((w >> 16) & 0xFFFF)
    x = x + y * w
    y = y + z * x
    z = z + x * y
    w = w + y * z
    return x, y, z, w


def onnx_normals() -> str:
    """The ONNX function murho.Normals(draws int64 [S], seed int64, n int64 [1]) -> float32 [S, n], attribute stream."""
    lines = [
        *_onnx_hash(),
        "eight = Constant<value = uint32 {8}>()",
        f"uniform_scale = Constant<value = float {{{2**-24!r}}}>()",
        f"uniform_shift = Constant<value = float {{{2**-25!r}}}>()",
        f"turn_scale = Constant<value = float {{{math.pi * 2**-23!r}}}>()",
        f"turn_shift = Constant<value = float {{{math.pi * 2**-24!r}}}>()",
        "minus_two = Constant<value = float {-2.0}>()",
        "rest = Mod(length, four)",
        "whole = Equal(rest, zero)",
    ]
    for v in "xyzw":
        lines += [f'{v}b = BitShift<direction = "RIGHT">({v}4, eight)', f"{v}f = Cast<to = 1>({v}b)"]
    for v in "xz":
        lines += [f"{v}s = Mul({v}f, uniform_scale)", f"{v}u = Add({v}s, uniform_shift)", f"{v}l = Log({v}u)"]
        lines += [f"{v}q = Mul({v}l, minus_two)", f"{v}r = Sqrt({v}q)"]
    for v in "yw":
        lines += [f"{v}s = Mul({v}f, turn_scale)", f"{v}t = Add({v}s, turn_shift)"]
        lines += [f"{v}cos = Cos({v}t)", f"{v}sin = Sin({v}t)"]
    lines += ["lane0 = Mul(xr, ycos)", "lane1 = Mul(xr, ysin)", "lane2 = Mul(zr, wcos)", "lane3 = Mul(zr, wsin)"]
    lines += ["lanes = Concat<axis = 1>(lane0, lane1, lane2, lane3)"]
    # A copy that is not needed where n is a multiple of four. Runtimes decide it when they load the file.
    lines += [
        "noise = If<then_branch = uncut () => (float[?, ?] all) { all = Identity(lanes) },",
        "  else_branch = cut () => (float[?, ?] first) { first = Slice(lanes, axis0, n, axis1) }>(whole)",
    ]
    return _onnx_function("Normals", "noise", lines)


def onnx_words() -> str:
    """The ONNX function murho.Words(draws int64 [S], seed int64, n int64 [1]) -> int64 [S, 4, ⌈n/4⌉], attribute stream.

    These are the words x, y, z, w of pcg4d that n normals are made of, for checking a host's integers bit by bit.
    """
    lines = _onnx_hash()
    for v in "xyzw":
        lines += [f"{v}i = Cast<to = 7>({v}4)", f"{v}row = Unsqueeze({v}i, axis1)"]
    return _onnx_function("Words", "words", [*lines, "words = Concat<axis = 1>(xrow, yrow, zrow, wrow)"])


def _onnx_hash() -> list[str]:
    """From draws, seed, n and stream: the words x4, y4, z4, w4, uint32 [S, ⌈n/4⌉]."""
    lines = [
        "axis0 = Constant<value = int64[1] {0}>()",
        "axis1 = Constant<value = int64[1] {1}>()",
        "zero = Constant<value = int64 {0}>()",
        "one = Constant<value = int64 {1}>()",
        "three = Constant<value = int64 {3}>()",
        "four = Constant<value = int64 {4}>()",
        "low_bits = Constant<value = int64 {4294967295}>()",
        "thirty_two = Constant<value = uint64 {32}>()",
        "sixteen = Constant<value = uint32 {16}>()",
        f"multiplier = Constant<value = uint32 {{{MULTIPLIER}}}>()",
        f"increment = Constant<value = uint32 {{{INCREMENT}}}>()",
        "length = Squeeze(n, axis0)",
        "padded = Add(length, three)",
        "quarter = Div(padded, four)",
        "elements = Range(zero, quarter, one)",
        "x0 = Cast<to = 12>(elements)",
        "names = BitwiseAnd(draws, low_bits)",
        "column = Unsqueeze(names, axis1)",
        "y0 = Cast<to = 12>(column)",
        "seed_bits = Cast<to = 13>(seed)",
        'high64 = BitShift<direction = "RIGHT">(seed_bits, thirty_two)',
        "high = Cast<to = 12>(high64)",
        "stream64 = Constant<value_int: int = @stream>()",
        "stream32 = Cast<to = 12>(stream64)",
        "z0 = BitwiseXor(stream32, high)",
        "low64 = BitwiseAnd(seed, low_bits)",
        "w0 = Cast<to = 12>(low64)",
    ]
    for v in "xyzw":
        lines += [f"{v}m = Mul({v}0, multiplier)", f"{v}1 = Add({v}m, increment)"]
    lines += _onnx_round(1, 2)
    for v in "xyzw":
        lines += [f'{v}h = BitShift<direction = "RIGHT">({v}2, sixteen)', f"{v}3 = BitwiseXor({v}2, {v}h)"]
    return lines + _onnx_round(3, 4)


def _onnx_function(name: str, output: str, lines: list[str]) -> str:
    body = "\n  ".join(lines)
    head = f'<opset_import: ["" : 18], domain: "murho">\n{name} <stream> (draws, seed, n) => ({output})'
    return f"{head}\n{{\n  {body}\n}}"


def _onnx_round(old: int, new: int) -> list[str]:
    """x += y*w; y += z*x; z += x*y; w += y*z, each from the newest values."""
    lines = []
    age = dict.fromkeys("xyzw", old)
    for v, a, b in ("xyw", "yzx", "zxy", "wyz"):
        lines += [f"{v}p{old} = Mul({a}{age[a]}, {b}{age[b]})", f"{v}{new} = Add({v}{old}, {v}p{old})"]
        age[v] = new
    return lines
