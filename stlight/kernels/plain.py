"""A switch to PyTorch's own operators: for counting operations, and as the reference that faster ones are compared with."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_only_plain: ContextVar[bool] = ContextVar("only_plain", default=False)


@contextmanager
def plain_operators() -> Iterator[None]:
    """Inside, every model computes by PyTorch's own operators."""
    token = _only_plain.set(True)
    try:
        yield
    finally:
        _only_plain.reset(token)


def only_plain() -> bool:
    """Whether the switch is on."""
    return _only_plain.get()
