"""The value of an arithmetic expression that a model wrote, without running anything of it."""

import ast
import operator
from fractions import Fraction

MAX_CHARS = 300
OPERATORS = {ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv}


def evaluate(text: str) -> tuple[Fraction, list[int]] | None:
    """(exact value, the whole numbers in it); None unless `text` is only whole numbers, + - * / and brackets.

    There are no powers, names or calls, so its cost is bounded by its length. A division by zero gives None too.
    """
    if len(text) > MAX_CHARS:
        return None
    numbers: list[int] = []
    try:
        return _value(ast.parse(text.strip(), mode="eval").body, numbers), numbers
    except (SyntaxError, ValueError, ZeroDivisionError, RecursionError, MemoryError):
        return None


def _value(node: ast.expr, numbers: list[int]) -> Fraction:
    if isinstance(node, ast.Constant) and type(node.value) is int:
        numbers.append(node.value)
        return Fraction(node.value)
    if isinstance(node, ast.BinOp) and type(node.op) in OPERATORS:
        return OPERATORS[type(node.op)](_value(node.left, numbers), _value(node.right, numbers))
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        return -_value(node.operand, numbers)
    raise ValueError("not arithmetic")
