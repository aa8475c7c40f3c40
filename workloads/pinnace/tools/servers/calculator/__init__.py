"""Exact arithmetic and units of measure."""

from pinnace.tools.servers.calculator.expression import CalculationError, evaluate
from pinnace.tools.servers.calculator.units import convert

__all__ = ["CalculationError", "convert", "evaluate"]
