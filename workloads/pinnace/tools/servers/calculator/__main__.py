"""`python -m pinnace.tools.servers.calculator`: the tools `add`, `calculate` and `convert_units` over stdio."""

from __future__ import annotations

from fractions import Fraction
from typing import Annotated

from mcp.server.mcpserver import MCPServer
from mcp.server.mcpserver.tools import Tool
from mcp_types import CallToolResult, ToolAnnotations
from pydantic import Field

from pinnace.tools.outcome import Outcome
from pinnace.tools.servers.answer import answered, failed
from pinnace.tools.servers.calculator import CalculationError, convert, evaluate

PURE = ToolAnnotations(read_only_hint=True, idempotent_hint=True, open_world_hint=False)
_DIGITS = 4000  # of an exact result; a longer one is given as a decimal only


async def add(a: int, b: int) -> CallToolResult:
    """Adds two numbers."""
    return answered(str(a + b), {"sum": a + b})


# To the letter as the built-in task has it: a tiny model knows the one prompt that it was trained on.
_TWO_NUMBERS = {
    "type": "object",
    "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}},
    "required": ["a", "b"],
}
_ADD = Tool.from_function(add, annotations=PURE).model_copy(update={"parameters": _TWO_NUMBERS})
server = MCPServer("calculator", version="1", tools=[_ADD])


@server.tool(name="calculate", annotations=PURE)
async def calculate(
    expression: Annotated[
        str, Field(max_length=2000, description="e.g. (3/7 + 0.25) * 2^10, sqrt(2), mean([1, 2, 4])")
    ],
) -> CallToolResult:
    """Evaluate arithmetic exactly.

    Operators + - * / // % ^; sqrt, log, trigonometry in radians, factorial, comb, gcd, sum, mean, median, stdev …
    """
    try:
        value = evaluate(expression)
        decimal = _decimal(value)
    except CalculationError as error:
        return failed(Outcome.TOOL_ERROR, str(error))
    exact = str(value) if not isinstance(value, float) and value.numerator.bit_length() < 3 * _DIGITS else None
    text = (
        decimal
        if exact is None or exact == decimal
        else f"{exact} = {decimal}"
        if isinstance(value, Fraction)
        else exact
    )
    return answered(text, {"exact": exact, "decimal": decimal})


def _decimal(value: float | Fraction) -> str:
    if isinstance(value, int):
        return str(value) if value.bit_length() < 3 * _DIGITS else f"about 10^{value.bit_length() * 30103 // 100000}"
    try:
        return repr(float(value))
    except OverflowError:
        raise CalculationError("the result is too large to write as a decimal") from None


@server.tool(name="convert_units", annotations=PURE)
async def convert_units(
    value: float,
    from_unit: Annotated[str, Field(max_length=100, description="e.g. mile/hour, degF, kg*m^2/s^2")],
    to_unit: Annotated[str, Field(max_length=100, description="e.g. m/s, degC, joule")],
) -> CallToolResult:
    """Convert a value from one unit of measure to another."""
    try:
        converted = convert(value, from_unit, to_unit)
    except CalculationError as error:
        return failed(Outcome.TOOL_ERROR, str(error))
    return answered(f"{converted:.12g} {to_unit}", {"value": converted, "unit": to_unit})


if __name__ == "__main__":
    server.run("stdio")
