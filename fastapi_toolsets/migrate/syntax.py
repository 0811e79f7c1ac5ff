"""What an expression or a statement is, by Python's own syntax tree, whatever file it stands in."""

from __future__ import annotations

import ast
from collections.abc import Iterator


def chain_of(node: ast.expr | None) -> str | None:
    """Return the dotted name that an expression is, or ``None`` where it is something else."""
    parts: list[str] = []
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    if not isinstance(node, ast.Name):
        return None
    return ".".join([node.id, *reversed(parts)])


def first_line(node: ast.stmt) -> int:
    """Return the line on which a statement begins, its decorators included."""
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) and node.decorator_list:
        return min(node.lineno, node.decorator_list[0].lineno)
    return node.lineno


def expressions_in(text: str) -> Iterator[ast.expr]:
    """Yield the expressions in a string that is one, and nothing from any other."""
    try:
        expression = ast.parse(text.strip(), mode="eval")
    except (SyntaxError, ValueError, RecursionError):
        return
    yield from (node for node in ast.walk(expression) if isinstance(node, ast.expr))


def position_of(node: ast.expr) -> tuple[int, int, int, int]:
    """Sort by the beginning, and the outer of two that begin together first."""
    return node.lineno, node.col_offset, -(node.end_lineno or 0), -(node.end_col_offset or 0)


def unsubscripted(node: ast.expr) -> ast.expr:
    """Return what stands before the brackets: the class of ``Base[int]``."""
    return node.value if isinstance(node, ast.Subscript) else node


def is_of_the_application(call: ast.Call) -> bool:
    """Whether a call of ``on_event`` is FastAPI's own ``app.on_event("startup")``."""
    match call.args:
        case [ast.Constant(value="startup" | "shutdown"), *_]:
            return True
        case _:
            return False


def is_super(node: ast.expr) -> bool:
    """Whether an expression is a call of ``super()``."""
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "super"


def strings_in(node: ast.expr) -> Iterator[str]:
    """Yield the strings of a list, a tuple or a set, or of several that are added, as ``__all__`` is given them."""
    match node:
        case ast.List(elts=elements) | ast.Tuple(elts=elements) | ast.Set(elts=elements):
            for element in elements:
                if isinstance(element, ast.Constant) and isinstance(element.value, str):
                    yield element.value
        case ast.BinOp(left=left, op=ast.Add(), right=right):
            yield from strings_in(left)
            yield from strings_in(right)
        case _:
            pass


def parameters_of(arguments: ast.arguments) -> Iterator[ast.arg]:
    """Yield the parameters of a function, those with a star behind the others."""
    yield from (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs)
    yield from (each for each in (arguments.vararg, arguments.kwarg) if each is not None)


def outside_of(arguments: ast.arguments) -> Iterator[ast.expr | None]:
    """Yield what of a function's parameters belongs to the scope around it: annotations and defaults."""
    yield from (argument.annotation for argument in parameters_of(arguments))
    yield from (*arguments.defaults, *arguments.kw_defaults)
