"""The generator pcg4d-boxmuller-2 in its three forms: numpy (the reference), torch and ONNX.

Counter-based: any normal of any draw can be computed alone, so draws can be split over chunks, threads and machines.
The hash is pcg4d (Jarzynski & Olano, "Hash Functions for GPU Rendering", JCGT 9(3), 2020) of an element, a draw and a
64-bit key. By itself it hardly spreads what differs in a word's high bits, so its words are mixed first: seed and
stream by SplitMix64 (Steele, Lea & Flood, OOPSLA 2014), once for a stream, and the draw by lowbias32 (Wellons,
"Prospecting for Hash Functions", 2018), once for a draw. Box & Muller (1958) turns pairs of uniforms into pairs of
normals. The integers agree exactly in all forms, the normals within a few ULP.
"""

import math

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

MULTIPLIER = 1664525
INCREMENT = 1013904223
SPLITMIX = (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB)
LOWBIAS = (0x7FEB352D, 0x846CA68B)


def normals(draws: ArrayLike, seed: int, stream: int, n: int) -> NDArray[np.float64]:
    """Reference: standard normals [S, n] for draws [S] of integers, accurate to float64 but for the uniforms.

    The uniforms are rounded to float32 as in the other forms, since near 1 the logarithm magnifies that rounding.
    """
    quarter = -(-n // 4)
    mask = np.uint64(0xFFFFFFFF)
    names = np.asarray(draws, dtype=np.int64).reshape(-1, 1)
    x = np.broadcast_to(np.arange(quarter, dtype=np.uint64), (len(names), quarter))
    y = np.broadcast_to(names.astype(np.uint64) & mask, x.shape)
    key = _key(seed, stream)
    z = np.full(x.shape, key >> 32, dtype=np.uint64)
    w = np.full(x.shape, key & 0xFFFFFFFF, dtype=np.uint64)
    x, y = ((v * np.uint64(MULTIPLIER) + np.uint64(INCREMENT)) & mask for v in (x, y))
    x = x ^ (x >> np.uint64(16))
    y = _lowbias32(y)
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


def _lowbias32(v: NDArray[np.uint64]) -> NDArray[np.uint64]:
    v = v ^ (v >> np.uint64(16))
    for factor, shift in zip(LOWBIAS, (15, 16), strict=True):
        v = v * np.uint64(factor) & np.uint64(0xFFFFFFFF)
        v = v ^ (v >> np.uint64(shift))
    return v


def _key(seed: int, stream: int) -> int:
    """SplitMix64's first number from the state seed xor stream · 2^32."""
    key = ((seed ^ stream << 32) + SPLITMIX[0]) % 2**64
    key = (key ^ key >> 30) * SPLITMIX[1] % 2**64
    key = (key ^ key >> 27) * SPLITMIX[2] % 2**64
    return key ^ key >> 31


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
    """The four words that normals are made of, each int32 [S, quarter] with the bits of an unsigned number.

    TorchScript has no unsigned arithmetic: signed integers wrap the same way, and (v >> k) & mask is the logical shift.
    """
    x = torch.arange(quarter, device=draws.device).to(torch.int32).unsqueeze(0)
    y = draws.to(torch.int32).unsqueeze(1)
    x = x * 1664525 + 1013904223
    y = y * 1664525 + 1013904223
    x = x ^ ((x >> 16) & 0xFFFF)
    # lowbias32
    y = (y ^ ((y >> 16) & 0xFFFF)) * 0x7FEB352D
    y = (y ^ ((y >> 15) & 0x1FFFF)) * (0x846CA68B - 0x100000000)
    y = y ^ ((y >> 16) & 0xFFFF)
    # SplitMix64
    if stream >= 0x80000000:
        stream = stream - 0x100000000
    key = (seed ^ (stream * 0x100000000)) - 0x61C8864680B583EB
    key = (key ^ ((key >> 30) & 0x3FFFFFFFF)) * -0x40A7B892E31B1A47
    key = (key ^ ((key >> 27) & 0x1FFFFFFFFF)) * -0x6B2FB644ECCEEE15
    key = key ^ ((key >> 31) & 0x1FFFFFFFF)
    z = (key >> 32).to(torch.int32)
    w = key.to(torch.int32)
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

    These are the words x, y, z, w that n normals are made of, for checking a host's integers bit by bit.
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
        "fifteen = Constant<value = uint32 {15}>()",
        "sixteen = Constant<value = uint32 {16}>()",
        f"multiplier = Constant<value = uint32 {{{MULTIPLIER}}}>()",
        f"increment = Constant<value = uint32 {{{INCREMENT}}}>()",
        *(f"lowbias{k} = Constant<value = uint32 {{{factor}}}>()" for k, factor in enumerate(LOWBIAS)),
        "length = Squeeze(n, axis0)",
        "padded = Add(length, three)",
        "quarter = Div(padded, four)",
        "elements = Range(zero, quarter, one)",
        "element = Cast<to = 12>(elements)",
        "names = BitwiseAnd(draws, low_bits)",
        "column = Unsqueeze(names, axis1)",
        "draw = Cast<to = 12>(column)",
        "element_product = Mul(element, multiplier)",
        "element_sum = Add(element_product, increment)",
        *_onnx_shifted("element_sum", "sixteen", "x1"),
        "draw_product = Mul(draw, multiplier)",
        "draw_sum = Add(draw_product, increment)",
        *_onnx_shifted("draw_sum", "sixteen", "draw_folded"),
        "draw_mixed0 = Mul(draw_folded, lowbias0)",
        *_onnx_shifted("draw_mixed0", "fifteen", "draw_folded0"),
        "draw_mixed1 = Mul(draw_folded0, lowbias1)",
        *_onnx_shifted("draw_mixed1", "sixteen", "y1"),
        *_onnx_key(),
    ]
    lines += _onnx_round(1, 2)
    for v in "xyzw":
        lines += _onnx_shifted(f"{v}2", "sixteen", f"{v}3")
    return lines + _onnx_round(3, 4)


def _onnx_key() -> list[str]:
    """From seed and stream: z1, w1, the halves of SplitMix64's number."""
    numbers = {"thirty": 30, "twenty_seven": 27, "thirty_one": 31, "thirty_two": 32, "low_half": 0xFFFFFFFF}
    numbers |= {f"splitmix{k}": number for k, number in enumerate(SPLITMIX)}
    return [
        *(f"{name} = Constant<value = uint64 {{{number}}}>()" for name, number in numbers.items()),
        "seed_bits = Cast<to = 13>(seed)",
        "stream64 = Constant<value_int: int = @stream>()",
        "stream_bits = Cast<to = 13>(stream64)",
        'stream_high = BitShift<direction = "LEFT">(stream_bits, thirty_two)',
        "state = BitwiseXor(seed_bits, stream_high)",
        "ka = Add(state, splitmix0)",
        *_onnx_shifted("ka", "thirty", "kb"),
        "kc = Mul(kb, splitmix1)",
        *_onnx_shifted("kc", "twenty_seven", "kd"),
        "ke = Mul(kd, splitmix2)",
        *_onnx_shifted("ke", "thirty_one", "key"),
        'key_high = BitShift<direction = "RIGHT">(key, thirty_two)',
        "key_low = BitwiseAnd(key, low_half)",
        "z1 = Cast<to = 12>(key_high)",
        "w1 = Cast<to = 12>(key_low)",
    ]


def _onnx_shifted(old: str, bits: str, new: str) -> list[str]:
    """new = old ^ old >> bits"""
    return [f'{new}_shift = BitShift<direction = "RIGHT">({old}, {bits})', f"{new} = BitwiseXor({old}, {new}_shift)"]


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
