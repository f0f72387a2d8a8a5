"""What we need of ``torch.optim.Optimizer`` beside its public interface, in one place.

torch wraps ``step`` in hooks and a profiler's range, which costs more than a small step. A step
that is marked as wrapped goes through torch's wrapper only when somebody listens. That takes four
private names of torch: where one is missing, ``step`` is left unmarked, torch wraps it by itself,
and every step takes the long way.
"""

from __future__ import annotations

import importlib
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import torch
from torch.utils.hooks import RemovableHandle


def _names() -> tuple[Any, Any, Any, Any] | None:
    """Return torch's global hooks before and after steps, its profiler and its wrapper."""
    try:
        module = importlib.import_module("torch.optim.optimizer")
        before, after = module._global_optimizer_pre_hooks, module._global_optimizer_post_hooks
        profiler = torch.autograd.profiler
        profiler._is_profiler_enabled  # noqa: B018  # read anew at every step
        return before, after, profiler, torch.optim.Optimizer.profile_hook_step
    except (ImportError, AttributeError):
        return None


def light(step: Callable[..., Any]) -> Callable[..., Any]:
    """Return ``step`` marked as wrapped, or as it is where torch has other names.

    Args:
        step: the method ``(optimizer, closure)``, without hooks.
    """
    found = _names()
    if found is None:
        return step
    before, after, profiler, wrap = found
    long = wrap(step)

    def short(self: Any, closure: Callable[[], Any] | None = None) -> Any:
        own = self.__dict__
        try:
            heard = own["_optimizer_step_pre_hooks"] or own["_optimizer_step_post_hooks"]
            heard = heard or profiler._is_profiler_enabled or before or after
        except (KeyError, AttributeError):
            heard = True
        return (long if heard else step)(self, closure)

    short.__name__, short.__qualname__, short.__doc__ = (
        step.__name__, step.__qualname__, step.__doc__)  # fmt: skip
    short.__module__, short.__annotations__ = step.__module__, step.__annotations__
    short.hooked = True  # type: ignore[attr-defined]
    return short


class Hooks:
    """Forget gradients, and keep the hooks around saving and loading, as torch's methods do."""

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget all gradients.

        Args:
            set_to_none: let go of their memory; else they become zeros.
        """
        if not set_to_none:
            super().zero_grad(set_to_none=False)  # pyright: ignore[reportAttributeAccessIssue]
            return
        # torch's own, behind its profiler's range, takes as long as a small step's launch.
        for group in self.param_groups:  # pyright: ignore[reportAttributeAccessIssue]
            for p in group["params"]:
                p.grad = None

    def _hooks(self, kind: str) -> OrderedDict[int, Callable[..., Any]]:
        lists = self.__dict__.setdefault("_hook_lists", {})
        return lists.setdefault(kind, OrderedDict())

    def _add(self, kind: str, hook: Callable[..., Any], prepend: bool) -> RemovableHandle:
        hooks = self._hooks(kind)
        handle = RemovableHandle(hooks)
        hooks[handle.id] = hook
        if prepend:
            hooks.move_to_end(handle.id, last=False)
        return handle

    def register_state_dict_pre_hook(
        self, hook: Callable[[Any], None], prepend: bool = False
    ) -> RemovableHandle:
        """Call ``hook(optimizer)`` before ``state_dict``.

        Args:
            hook: what to call.
            prepend: before the hooks that are there.
        """
        return self._add("save before", hook, prepend)

    def register_state_dict_post_hook(
        self, hook: Callable[[Any, Any], Any], prepend: bool = False
    ) -> RemovableHandle:
        """Call ``hook(optimizer, state_dict)`` after ``state_dict``; it may return another.

        Args:
            hook: what to call.
            prepend: before the hooks that are there.
        """
        return self._add("save after", hook, prepend)

    def register_load_state_dict_pre_hook(
        self, hook: Callable[[Any, Any], Any], prepend: bool = False
    ) -> RemovableHandle:
        """Call ``hook(optimizer, state_dict)`` before loading; it may return another.

        Args:
            hook: what to call.
            prepend: before the hooks that are there.
        """
        return self._add("load before", hook, prepend)

    def register_load_state_dict_post_hook(
        self, hook: Callable[[Any], None], prepend: bool = False
    ) -> RemovableHandle:
        """Call ``hook(optimizer)`` after loading.

        Args:
            hook: what to call.
            prepend: before the hooks that are there.
        """
        return self._add("load after", hook, prepend)
