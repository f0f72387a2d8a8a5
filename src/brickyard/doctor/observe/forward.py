"""Watch modules: which models are called, in which mode, with what; who holds which parameter."""

from __future__ import annotations

import weakref
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.nn.modules import module as torch_module

from brickyard.doctor import thresholds as T
from brickyard.doctor.observe import static
from brickyard.doctor.observe.chains import Chains
from brickyard.doctor.observe.patches import Patches
from brickyard.doctor.observe.places import inside, user_frame, user_place
from brickyard.doctor.observe.record import NOWHERE, Place
from brickyard.doctor.observe.tensors import finite, first_tensor, tensors, transformed

if TYPE_CHECKING:
    from brickyard.doctor.observe.track import Track
    from brickyard.doctor.observe.watcher import Watcher

NORMS = (nn.modules.batchnorm._BatchNorm,)
DROPS = (nn.modules.dropout._DropoutNd,)


@dataclass
class Root:
    """A model that the user's code called."""

    ref: weakref.ref[nn.Module]
    name: str
    place: Place
    trained: bool = False  # was called in training mode for a step
    probed: set[str] = field(default_factory=set)


@dataclass
class Call:
    """One call of a model while looking closely, kept until the step ends."""

    root: Root
    module: nn.Module
    args: Any
    kwargs: Any
    training: bool
    output: Any = None
    wrong: list[str] = field(default_factory=list)  # layers in evaluation mode


class Forwards:
    """Follow the calls of modules and the registration of parameters."""

    def __init__(self, watcher: Watcher) -> None:
        self.w = watcher
        self.roots: dict[int, Root] = {}
        self.calls: list[Call] = []
        self.clock = 0
        self.holders: dict[int, list[tuple[weakref.ref[nn.Module], str]]] = {}
        self.registered: dict[tuple[int, str], tuple[Any, int, Place]] = {}
        self.names: dict[int, str] = {}
        self.used: dict[int, list[int]] = {}  # module: calls with grad, without, in a checkpoint
        self.order: dict[int, int] = {}
        self.bad: dict[str, Any] = {}
        self.replicas: weakref.WeakSet[nn.Module] = weakref.WeakSet()
        self.stack: list[nn.Module] = []
        self._current: Call | None = None
        self._handles: list[Any] = []
        self._chains = Chains()
        self._evaluated, self.pending = 0, False

    def install(self, patches: Patches) -> None:
        """Hook the registration of parameters and modules."""
        patches.keep(
            torch_module.register_module_parameter_registration_hook(self._registered_parameter)
        )
        patches.keep(torch_module.register_module_module_registration_hook(self._registered_module))

    def look(self, on: bool) -> None:
        """Begin or end hooking calls."""
        for handle in self._handles:
            handle.remove()
            # torch 2.13 forgets this entry when a handle is removed
            getattr(torch_module, "_global_forward_hooks_with_kwargs", {}).pop(handle.id, None)
        self._handles = []
        self.stack.clear()
        if on:
            self._handles = [
                torch_module.register_module_forward_pre_hook(self._before),
                torch_module.register_module_forward_hook(self._after, with_kwargs=True),
            ]

    # -- registration --------------------------------------------------------------------------
    def _registered_parameter(self, module: nn.Module, name: str, param: Any) -> None:
        w = self.w
        if not w.active or w.busy or param is None:
            return
        with w.own_time("registration"):
            self.clock += 1
            key = (id(module), name)
            old = self.registered.get(key)
            place = user_place(2)
            before = module._parameters.get(name)
            if old is not None and before is not None and before is not param:
                self._untied(module, name, before, param, place)
            self.registered[key] = (weakref.ref(param), self.clock, place)
            holders = self.holders.setdefault(id(param), [])
            holders[:] = [(r, n) for r, n in holders if static.holds(r, n, param)]
            holders.append((weakref.ref(module), name))

    def _untied(self, module: nn.Module, name: str, old: Any, new: Any, place: Place) -> None:
        others = [
            (ref, attr)
            for ref, attr in self.holders.get(id(old), [])
            if ref() is not None and ref() is not module and static.holds(ref, attr, old)
        ]
        if others and getattr(new, "shape", None) == old.shape:
            self.w.ties.replaced((weakref.ref(module), name), others[0], place)

    def _registered_module(self, module: nn.Module, name: str, child: Any) -> None:
        if self.w.active and not self.w.busy:
            self.clock += 1
            if isinstance(module, nn.parallel.DistributedDataParallel):
                self.replicas.add(module)

    # -- calls ---------------------------------------------------------------------------------
    def _before(self, module: nn.Module, args: Any) -> None:
        w = self.w
        if w.busy or not w.deep or transformed():
            return
        with w.own_time("modules"):
            if not self.stack:
                self._begin(module, args)
            self.stack.append(module)
            entry = self.used.get(id(module))
            if entry is None:
                entry = self.used[id(module)] = [0, 0, 0]
                self.order[id(module)] = len(self.order)
            if torch.is_grad_enabled():
                entry[0] += 1
            else:
                entry[1] += 1
                if self._current is not None and not entry[2] and inside("utils/checkpoint.py"):
                    entry[2] = 1
            if self._current is not None and not module.training and not module._modules:
                self._mode(module)

    def _begin(self, module: nn.Module, args: Any) -> None:
        grad = torch.is_grad_enabled()
        self._current = None
        frame = user_frame(3)
        root = self.roots.get(id(module))
        if root is None or (root.ref() is not module and not self._inside(root, module)):
            root = self._known(module) or self._meet(module, frame)
        if root is None:
            return
        if grad:
            self._current = Call(root, module, args, {}, module.training)
            if len(self.calls) < 8:
                self.calls.append(self._current)
        else:
            self.w.seen.forwards.setdefault(root.name, {})["no_grad"] = True

    def _known(self, module: nn.Module) -> Root | None:
        """Return the model that holds a module, if that was met before."""
        if id(module) not in self.names:
            return None
        for root in list(self.roots.values()):
            if self._inside(root, module):
                self.roots[id(module)] = root
                return root
        return None

    @staticmethod
    def _inside(root: Root, module: nn.Module) -> bool:
        model = root.ref()
        return model is not None and any(m is module for m in model.modules())

    def _meet(self, module: nn.Module, frame: Any) -> Root | None:
        """Get to know a model; the one whose method called it when that holds it."""
        name, top = type(module).__name__, module
        while frame is not None:
            found = next((k for k, v in frame.f_locals.items() if v is top), None)
            if found:
                name = found
                break
            owner = frame.f_locals.get("self")
            if isinstance(owner, nn.Module) and any(m is top for m in owner.modules()):
                top, name, frame = owner, type(owner).__name__, frame.f_back
                continue
            break
        root = self.roots.get(id(top))
        if root is None or root.ref() is not top:
            if not any(True for _ in top.parameters()):
                return None
            from brickyard.doctor.observe.places import place_of

            root = Root(weakref.ref(top), name, place_of(frame))
            self.roots[id(top)] = root
            static.describe(self.w.seen, top, name)
            self._name(root)
            self.w.ties.meet(root)
        if top is not module:
            self.roots[id(module)] = root
        return root

    def _mode(self, module: nn.Module) -> None:
        """Note a layer that acts differently in training, in evaluation mode."""
        call = self._current
        if call is None:
            return
        if isinstance(module, DROPS):
            if module.p > 0:
                call.wrong.append(self.name_of(module))
        elif isinstance(module, NORMS):
            trained = [p for p in module.parameters(recurse=False) if p.requires_grad]
            if trained or not any(True for _ in module.parameters(recurse=False)):
                call.wrong.append(self.name_of(module))

    def _after(self, module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
        w = self.w
        if w.busy or not w.deep or transformed():
            return
        with w.own_time("modules"):
            while self.stack:
                if self.stack.pop() is module:
                    break
            if not self.stack:
                self._scale(module, output)
            if not module._modules and self._current is not None:
                self._leaf(module, args, output)
            if not self.stack and self._current is not None:
                call, self._current = self._current, None
                self._chains.end(w.seen, self.names, output)
                if call.training:  # of others nothing is asked: their graphs may go
                    call.kwargs, call.output = kwargs, output
                else:
                    call.args = ()
                w.probes.called(call)

    def _scale(self, module: nn.Module, output: Any) -> None:
        """Compare the size of outputs before training in evaluation and in training mode."""
        root = self.roots.get(id(module))
        out = first_tensor(output)
        if root is None or out is None or self.w.seen.step > 0 or not out.is_floating_point():
            return
        sizes = self.w.seen.forwards.setdefault(root.name, {})
        name = "train" if module.training else "eval"
        sizes.setdefault(name, float(out.detach().abs().mean()))
        if "norm" not in sizes:
            sizes["norm"] = any(isinstance(m, NORMS) for m in module.modules())
            sizes["place"] = root.place

    def _leaf(self, module: nn.Module, args: Any, output: Any) -> None:
        static.layer_called(self.w.seen, self, module, args)
        self._chains.layer(module, args, output)
        if not self.bad:
            out = first_tensor(output)
            if out is not None and not finite(out):
                inputs = tensors(args)
                self.bad = {
                    "module": f"{self.name_of(module)} ({type(module).__name__})",
                    "inputs_finite": all(finite(t) for t in inputs),
                    "weights_finite": all(finite(p) for p in module.parameters(recurse=False)),
                }

    def first_bad(self) -> dict[str, Any]:
        """Return the first layer whose output was not finite, if the step was looked at."""
        found = dict(self.bad)
        found["input_bad"] = self.w.data.last_is_bad()
        return found

    def forget_failed(self) -> None:
        """Forget calls that an exception ended: hooks do not hear of their end."""
        self.stack.clear()

    def reached(self, leaves: list[torch.Tensor]) -> None:
        """Compare the leaves of a loss's graph with the parameters of the models.

        Args:
            leaves: tensors that this backward pass gives gradients to.
        """
        known: set[int] = set()
        for root in self.roots.values():
            module = root.ref()
            if module is not None:
                known.update(id(p) for p in module.parameters())
        held = {id(p) for t in self.w.optimizers.at_hand() for p in t.params}
        for _, _, ids in self.w.optimizers.made.values():
            held |= ids
        for leaf in leaves:
            if id(leaf) in known or id(leaf) in held or not isinstance(leaf, nn.Parameter):
                continue
            owner = next((r() for r, n in self.holders.get(id(leaf), []) if r() is not None), None)
            called = owner is not None and id(owner) in self.used
            inner = called and id(owner) not in self.roots
            if inner or owner is None:
                self._unregistered(leaf, owner)

    def _unregistered(self, leaf: torch.Tensor, owner: nn.Module | None) -> None:
        kind = type(owner).__name__ if owner is not None else "Parameter"
        holder, place = static.find_container(self.roots.values(), owner, leaf)
        if owner is None and not holder:
            return
        where = holder or kind
        self.w.seen.note("unregistered", where, place, holds=kind, shape=tuple(leaf.shape))

    # -- steps ---------------------------------------------------------------------------------
    def mode_set(self, module: nn.Module, mode: bool) -> None:
        """Hear that a module's mode is set."""
        self.w.functions.sweep()
        if not mode and id(module) in self.roots:
            self.pending = True
            with self.w.own_time("evaluation"):
                self.w.evaluations.begin()
                self.w.swaps.evaluating()

    def stepped(self, track: Track | None) -> None:
        """Hear of the end of a step (of a backward pass where no optimizer steps)."""
        if self.pending:
            self.pending = False
            self._evaluated += 1
            if self._evaluated <= T.EPOCHS_LOOKED or self.w.share < T.SHARE:
                self.w.look_for(T.WINDOW)
        if not self.calls:
            return
        calls = self.calls
        if track is not None:
            ids = {id(p) for p in track.params if p.grad is not None}
            mine = [c for c in calls if static.reaches(c.module, ids)]
        else:
            mine = calls
        trained = {id(c.root) for c in mine if c.training}
        for call in mine:  # beside a call in training mode: an attack, a teacher
            if call.training or id(call.root) not in trained:
                self._judge_mode(call)
        self.w.probes.stepped(mine)
        if track is not None and track.seen.looked == 3:
            with self.w.own_time("checkpoints"):
                self._checkpoints(mine)
        self.calls = []
        self.bad = {}
        self.w.functions.stepped()

    def _checkpoints(self, calls: list[Call]) -> None:
        """Note blocks that ran inside a checkpoint without gradients, and never with."""
        for call in calls:
            for module in call.module.modules():
                used = self.used.get(id(module))
                if used is None or used[0] or not used[2]:
                    continue
                own = [p for p in module.parameters(recurse=False) if p.requires_grad]
                if own and all(p.grad is None for p in own):
                    self.w.seen.note("checkpoint-without-grad", self.name_of(module),
                                     call.root.place, params=len(own), steps=3)  # fmt: skip

    def _judge_mode(self, call: Call) -> None:
        if call.training:
            call.root.trained = True
        elif call.wrong:
            place = self.w.backwards.last_place
            note = self.w.seen.note("eval-in-step", call.root.name, place, layers=call.wrong[:4],
                                    count=len(call.wrong))  # fmt: skip
            note.values["trained_before"] = call.root.trained

    # -- names ---------------------------------------------------------------------------------
    def name_of(self, module: nn.Module) -> str:
        """Return the path of a module inside its model."""
        name = self.names.get(id(module))
        return name if name else type(module).__name__

    def _name(self, root: Root) -> None:
        module = root.ref()
        for path, one in module.named_modules() if module is not None else ():
            self.names[id(one)] = f"{root.name}.{path}" if path else root.name

    def name_parameters(self) -> None:
        """Give every parameter of the models its path and its owner."""
        seen_of = self.w.optimizers.seen_of
        for root in {id(r): r for r in self.roots.values()}.values():
            module = root.ref()
            if module is None:
                continue
            self._name(root)
            for path, one in module.named_modules():
                for attr, p in one._parameters.items():
                    if p is None:
                        continue
                    seen = seen_of(p)
                    if seen.owner and seen.root == root.name:
                        seen.order = self.order.get(id(one), seen.order)
                        continue
                    seen.name = ".".join(x for x in (root.name, path, attr) if x)
                    seen.root, seen.owner, seen.tracked = root.name, type(one).__name__, True
                    seen.order = self.order.get(id(one), -1)
                    _, clock, place = self.registered.get((id(one), attr), (None, -1, NOWHERE))
                    seen.registered_step, seen.place = clock, place
