"""Evaluates arithmetic: Python's expression syntax, a closed list of functions, exact rationals, bounded work.

Nothing is executed: the syntax tree is walked, and a node that is not listed is refused. Work is bounded by sizes that
are checked before each operation, so no expression runs long and no timer is needed.
"""

from __future__ import annotations

import ast
import math
import warnings
from collections.abc import Callable, Sequence
from fractions import Fraction

Number = int | float | Fraction
_LONGEST = 2000  # characters
_MOST_BITS = 50_000  # of any number; about 15,000 digits
_MOST_NODES = 1000
_MOST_EXPONENT = 4000
_MOST_FACTORIAL = 2000


_SIGNS = str.maketrans({"\N{MULTIPLICATION SIGN}": "*", "\N{DIVISION SIGN}": "/", "\N{MINUS SIGN}": "-"})


class CalculationError(ValueError):
    """The expression can't be evaluated; the message says why."""


def evaluate(expression: str) -> Number:
    """The value: an int or Fraction where it is exact, a float where a function or a decimal exponent made it inexact.

    Decimals such as 0.1 are exact (1/10). `^` is taken as power, as people write it.

    Raises:
        CalculationError: It is no arithmetic expression, divides by zero, or grows beyond all use.
    """
    if len(expression) > _LONGEST:
        raise CalculationError(f"an expression has at most {_LONGEST} characters")
    source = expression.strip().replace("^", "**").translate(_SIGNS)
    try:
        with warnings.catch_warnings():
            # `1if` and the like: Python still takes them, with a warning.
            warnings.simplefilter("error", SyntaxWarning)
            tree = ast.parse(source, mode="eval")
        if sum(1 for _ in ast.walk(tree)) > _MOST_NODES:
            raise CalculationError(f"an expression has at most {_MOST_NODES} terms")
        return _scalar(_value(tree.body, source))
    except SyntaxError as error:
        raise CalculationError(f"no arithmetic expression: {error.msg} at character {error.offset}") from None
    except ZeroDivisionError:
        raise CalculationError("division by zero") from None
    except OverflowError:
        raise CalculationError("the result is too large") from None
    except (RecursionError, MemoryError):
        raise CalculationError("the expression is nested too deeply") from None


def _scalar(value: Number | list[Number]) -> Number:
    if isinstance(value, list):
        raise CalculationError("a list is no result; use sum, mean, median, min or max of it")
    if isinstance(value, float) and not math.isfinite(value):
        raise CalculationError("the result is not a finite number")
    return value.numerator if isinstance(value, Fraction) and value.denominator == 1 else value


def _value(node: ast.expr, source: str) -> Number | list[Number]:
    match node:
        case ast.Constant() | ast.Name():
            return _atom(node, source)
        case ast.UnaryOp(op=ast.USub() | ast.UAdd() as sign, operand=operand):
            value = _scalar(_value(operand, source))
            return -value if isinstance(sign, ast.USub) else value
        case ast.BinOp(left=left, op=op, right=right) if type(op) in _OPERATORS:
            return _OPERATORS[type(op)](_scalar(_value(left, source)), _scalar(_value(right, source)))
        case ast.List(elts=items) | ast.Tuple(elts=items):
            return [_scalar(_value(item, source)) for item in items]
        case ast.Call(func=ast.Name(id=name), args=arguments, keywords=[]):
            return _called(name, [_value(argument, source) for argument in arguments])
    raise CalculationError(f"{ast.get_source_segment(source, node)!r} is no arithmetic")


def _atom(node: ast.Constant | ast.Name, source: str) -> Number:
    written = ast.get_source_segment(source, node) or ""
    if isinstance(node, ast.Name):
        if node.id not in _CONSTANTS:
            raise _unknown(node.id)
        return _CONSTANTS[node.id]
    if isinstance(node.value, float):
        return _decimal(written)
    if isinstance(node.value, int) and not isinstance(node.value, bool):
        return _bounded(node.value)
    raise CalculationError(f"{written!r} is no number")


def _unknown(name: str) -> CalculationError:
    return CalculationError(f"{name} is not known here; known are {', '.join(sorted({*_FUNCTIONS, *_CONSTANTS}))}")


def _decimal(written: str) -> Number:
    """The digits as written: 0.1 is a tenth here, not the nearest binary fraction."""
    digits = written.replace("_", "").lower()
    # Looked at first: 1e999999999 would have to be written out.
    if abs(int(digits.partition("e")[2] or "0")) > _MOST_EXPONENT:
        raise CalculationError("the number is too large or too small")
    return _bounded(Fraction(digits))


def _called(name: str, arguments: Sequence[Number | list[Number]]) -> Number:
    if name not in _FUNCTIONS:
        raise _unknown(name)
    try:
        return _bounded(_FUNCTIONS[name](*arguments))
    except (TypeError, ValueError) as error:
        if isinstance(error, CalculationError):
            raise
        raise CalculationError(f"{name}: {error}") from None


def _bits(value: Number) -> int:
    if isinstance(value, Fraction):
        return value.numerator.bit_length() + value.denominator.bit_length()
    return value.bit_length() if isinstance(value, int) else 64


def _bounded(value: Number) -> Number:
    if _bits(value) > _MOST_BITS:
        raise CalculationError("the result has too many digits")
    return value


def _product(a: Number, b: Number) -> Number:
    if _bits(a) + _bits(b) > _MOST_BITS:
        raise CalculationError("the result has too many digits")
    return a * b


def _quotient(a: Number, b: Number) -> Number:
    return a / b if isinstance(a, float) or isinstance(b, float) else Fraction(a) / Fraction(b)


def _power(a: Number, b: Number) -> Number:
    exponent = b.numerator if isinstance(b, Fraction) and b.denominator == 1 else b
    if isinstance(exponent, int) and not isinstance(a, float):
        if _bits(a) * abs(exponent) > _MOST_BITS:
            raise CalculationError("the result has too many digits")
        return Fraction(a) ** exponent
    result = float(a) ** float(exponent)
    if isinstance(result, complex):
        raise CalculationError("a root of a negative number is not real")
    return float(result)


def _floor(a: Number, b: Number) -> Number:
    return a // b


def _remainder(a: Number, b: Number) -> Number:
    return a % b


def _sum(a: Number, b: Number) -> Number:
    return _bounded(a + b)


def _difference(a: Number, b: Number) -> Number:
    return _bounded(a - b)


_OPERATORS: dict[type[ast.operator], Callable[[Number, Number], Number]] = {
    ast.Add: _sum,
    ast.Sub: _difference,
    ast.Mult: _product,
    ast.Div: _quotient,
    ast.FloorDiv: _floor,
    ast.Mod: _remainder,
    ast.Pow: _power,
}


def _whole(value: object, most: int) -> int:
    if isinstance(value, Fraction) and value.denominator == 1:
        value = value.numerator
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= most:
        raise CalculationError(f"an integer from 0 to {most} is needed, not {value}")
    return value


def _flat(*arguments: Number | list[Number]) -> list[Number]:
    """`mean(1, 2)` and `mean([1, 2])` mean the same."""
    return [number for argument in arguments for number in (argument if isinstance(argument, list) else [argument])]


def _median(*arguments: Number | list[Number]) -> Number:
    values = sorted(_flat(*arguments))
    if not values:
        raise CalculationError("median of nothing")
    middle = len(values) // 2
    return values[middle] if len(values) % 2 else _quotient(_sum(values[middle - 1], values[middle]), 2)


def _variance(*arguments: Number | list[Number]) -> Number:
    """Of a sample (n - 1), exact for exact values."""
    values = _flat(*arguments)
    mean = _mean(values)
    return _quotient(_total([_product(_difference(x, mean), _difference(x, mean)) for x in values]), len(values) - 1)


def _total(*arguments: Number | list[Number]) -> Number:
    total: Number = 0
    for value in _flat(*arguments):
        total = _sum(total, value)
    return total


def _mean(*arguments: Number | list[Number]) -> Number:
    return _quotient(_total(*arguments), len(_flat(*arguments)))


def _integral(function: Callable[[int], int]) -> Callable[[Number], Number]:
    return lambda value: function(_whole(value, _MOST_FACTORIAL))


def _rounded(value: Number, digits: Number = 0) -> Number:
    places = _whole(digits, 100)
    return round(value, places) if isinstance(value, float) else round(Fraction(value), places)


def _real(function: Callable[..., float]) -> Callable[..., Number]:
    return lambda *arguments: function(*(float(argument) for argument in arguments))


def _root(value: Number) -> Number:
    """Exact for perfect squares."""
    if isinstance(value, int | Fraction) and value >= 0:
        fraction = Fraction(value)
        top, bottom = math.isqrt(fraction.numerator), math.isqrt(fraction.denominator)
        if Fraction(top * top, bottom * bottom) == fraction:
            return Fraction(top, bottom)
    return math.sqrt(value)


_CONSTANTS: dict[str, Number] = {"pi": math.pi, "e": math.e, "tau": math.tau}
_REAL = (
    "sin",
    "cos",
    "tan",
    "asin",
    "acos",
    "atan",
    "atan2",
    "sinh",
    "cosh",
    "tanh",
    "exp",
    "log",
    "log2",
    "log10",
    "degrees",
    "radians",
    "hypot",
)
_FUNCTIONS: dict[str, Callable[..., Number]] = {
    **{name: _real(getattr(math, name)) for name in _REAL},
    "ln": _real(math.log),
    "sqrt": _root,
    "abs": abs,
    "round": _rounded,
    "floor": math.floor,
    "ceil": math.ceil,
    "factorial": _integral(math.factorial),
    "comb": lambda n, k: math.comb(_whole(n, _MOST_FACTORIAL), _whole(k, _MOST_FACTORIAL)),
    "perm": lambda n, k: math.perm(_whole(n, _MOST_FACTORIAL), _whole(k, _MOST_FACTORIAL)),
    "gcd": lambda *a: math.gcd(*(_whole(x, 1 << 64) for x in _flat(*a))),
    "lcm": lambda *a: math.lcm(*(_whole(x, 1 << 64) for x in _flat(*a)[:200])),
    "min": lambda *a: min(_flat(*a)),
    "max": lambda *a: max(_flat(*a)),
    "sum": _total,
    "mean": _mean,
    "median": _median,
    "stdev": lambda *a: _root(_variance(*a)),
    "variance": _variance,
}
