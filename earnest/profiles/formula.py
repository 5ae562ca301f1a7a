"""Levels as formulas: ``ln(3072) + 0.3 * ln(2048)``, ``0.5 * sub_discriminators``; a name is a fact's."""

import ast
import math
import operator
from collections.abc import Callable, Mapping

OPERATORS: dict[type[ast.operator], Callable[[float, float], float]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: lambda a, b: a / b,
}


def evaluate(formula: str, known: Mapping[str, object]) -> float | None:
    """The value of a formula, or None if it names a fact that is not known.

    Numbers, names of facts, ``+ - * /`` and ``ln(...)``; raises ValueError for anything else.
    """
    return _value(ast.parse(formula, mode="eval").body, known)


def _value(node: ast.expr, known: Mapping[str, object]) -> float | None:
    match node:
        case ast.Constant(value=int() | float() as number):
            return float(number)
        case ast.Name(id=name):
            fact = known.get(name)
            return float(fact) if isinstance(fact, int | float) else None
        case ast.Call(func=ast.Name(id="ln"), args=[of]):
            inner = _value(of, known)
            return None if inner is None else math.log(inner)
        case ast.BinOp(left=left, op=op, right=right) if type(op) in OPERATORS:
            a, b = _value(left, known), _value(right, known)
            return None if a is None or b is None else OPERATORS[type(op)](a, b)
        case _:
            raise ValueError(f"{ast.unparse(node)!r} is no number, fact, ln(...), or sum or product of them")
