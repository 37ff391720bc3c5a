"""Halves (float16) to float32 and back: by the processor, or where it cannot, in integers with the same results."""

from typing import Any

from llvmlite import ir

from deepseek.kernels.tier import CONVERTS_HALVES


def widened_half(b: ir.IRBuilder, half: ir.Value) -> ir.Value:
    """A half, or a vector of them, as float32: exact."""
    if CONVERTS_HALVES:
        return b.fpext(half, _alike(half.type, ir.FloatType()))
    return widened_in_integers(b, half)


def narrowed_half(b: ir.IRBuilder, value: ir.Value) -> ir.Value:
    """A float32, or a vector of them, as half: to the nearest, ties to even, infinity beyond 65519."""
    if CONVERTS_HALVES:
        return b.fptrunc(value, _alike(value.type, ir.HalfType()))
    return narrowed_in_integers(b, value)


def widened_in_integers(b: ir.IRBuilder, half: ir.Value) -> ir.Value:
    whole = _alike(half.type, ir.FloatType())
    bits, constant = _bits(half.type)
    raw = b.zext(b.bitcast(half, _alike(half.type, ir.IntType(16))), bits)
    magnitude = b.and_(raw, constant(0x7FFF))
    sign = b.shl(b.and_(raw, constant(0x8000)), constant(16))
    # A half's exponent lacks 112 of a float's; infinity and NaN have all bits of it.
    scaled = b.bitcast(b.shl(magnitude, constant(13)), whole)
    scaled = b.bitcast(b.fmul(scaled, b.bitcast(constant(0x77800000), whole)), bits)
    is_special = b.icmp_signed(">", magnitude, constant(0x7BFF))
    special = b.or_(scaled, constant(0x7F800000))
    return b.bitcast(b.or_(sign, b.select(is_special, special, scaled)), whole)


def narrowed_in_integers(b: ir.IRBuilder, value: ir.Value) -> ir.Value:
    halves = _alike(value.type, ir.HalfType())
    bits, constant = _bits(value.type)
    raw = b.bitcast(value, bits)
    magnitude = b.and_(raw, constant(0x7FFFFFFF))
    sign = b.lshr(b.xor(raw, magnitude), constant(16))
    odd = b.and_(b.lshr(magnitude, constant(13)), constant(1))
    ordinary = b.lshr(b.add(magnitude, b.add(odd, constant(0xFFF - (112 << 23)))), constant(13))
    # A sum with 0.5 is rounded to multiples of 2**-24, the spacing of the smallest halves.
    half = constant(0x3F000000)
    small = b.bitcast(b.fadd(b.bitcast(magnitude, value.type), b.bitcast(half, value.type)), bits)
    result = b.select(b.icmp_signed("<", magnitude, constant(113 << 23)), b.sub(small, half), ordinary)
    result = b.select(b.icmp_signed(">", magnitude, constant(0x477FFFFF)), constant(0x7C00), result)
    result = b.select(b.icmp_signed(">", magnitude, constant(0x7F800000)), constant(0x7E00), result)
    return b.bitcast(b.trunc(b.or_(sign, result), _alike(value.type, ir.IntType(16))), halves)


def _alike(kind: ir.Type, element: ir.Type) -> ir.Type:
    """`element`, or a vector of as many as `kind` has."""
    return ir.VectorType(element, kind.count) if isinstance(kind, ir.VectorType) else element


def _bits(kind: ir.Type) -> tuple[ir.Type, Any]:
    """int32 of `kind`'s shape, and what makes its constants."""
    bits = _alike(kind, ir.IntType(32))
    count = getattr(kind, "count", 0)
    return bits, lambda value: ir.Constant(bits, [value] * count if count else value)
