"""`package.module:name` -> the object, for what an operator names in its own configuration.

Knows: how to import. Refuses to know: what the object is for. Nothing that a peer names is ever imported: the
caller says so with `allowed=False`, and every failure is the error class the caller asks for.
"""

from __future__ import annotations

import importlib

from p2pmarket.errors import UserFault


def load_plugin(reference: str, *, allowed: bool, error: type[UserFault]) -> object:
    """The object called `reference`, "package.module:name".

    :raises error: not allowed, no such module or name, or the module fails while it is imported
    """
    if not allowed:
        raise error(
            f"{reference!r} names Python code, which is never imported on a peer's word; "
            "name it in your own configuration to use it"
        )
    module_name, _, name = reference.partition(":")
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as reason:
        missing = reason.name or module_name
        raise error(
            f"{reference!r} cannot be imported: there is no module {missing!r} among the installed packages and the "
            "folders of PYTHONPATH; run with PYTHONPATH=. for one in the current folder, or install its package"
        ) from reason
    except Exception as reason:  # a plugin's module may fail in any way
        raise error(f"{reference!r} cannot be imported: {type(reason).__name__}: {reason}") from reason
    try:
        return getattr(module, name)
    except AttributeError:
        raise error(f"module {module_name!r} has no {name!r}; it was named by {reference!r}") from None
