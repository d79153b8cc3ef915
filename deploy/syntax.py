"""The syntax tree of Python source, parsed so that nothing else in the process can spoil it."""

from __future__ import annotations

import ast
import gc
import threading

_alone = threading.RLock()


def parsed(source: str | bytes) -> ast.Module:
    """Return the tree of a module's source. Raises SyntaxError.

    CPython before 3.11.8 counts the depth of the trees that it builds in one place for all threads
    (python/cpython#106905). Where the cyclic collector runs amid it, a finalizer may parse too (to format a traceback
    is to parse), or let another thread do so; the count is wrong afterwards, and a SystemError is raised. Without the
    collector nothing else runs until the tree is there.
    """
    with _alone:
        collects = gc.isenabled()
        gc.disable()
        try:
            return ast.parse(source)
        finally:
            if collects:
                gc.enable()
