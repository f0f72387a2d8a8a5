"""Print plans with sums over rows, columns or units as C: several sums in one pass over memory."""

from __future__ import annotations

from collections.abc import Sequence

from brickyard.optim.backends import lanes, wide
from brickyard.optim.backends.cgen import Printer, array_of, c_name
from brickyard.optim.backends.tiles import FORMS, INDEX, LOCAL, Loop, computed
from brickyard.optim.ir import Node, Space
from brickyard.optim.plan import Phase, Plan, is_sum


class ShapedPrinter(Printer):
    """Print one plan for tensors as matrices.

    Args:
        plan: what to print.
        types: storage type by array name, in the order of the pointer table.
        forms: which of ``FORMS`` the tensors have.
    """

    def __init__(self, plan: Plan, types: dict[str, str], forms: Sequence[str]) -> None:
        super().__init__(plan, types)
        self.forms = list(forms)
        inits = {"rows": Space.ROW, "cols": Space.COL}
        self.space = {s.name: inits.get(s.init, Space.ELEM) for s in plan.slot_list}
        self.kept = [n for n in plan.alive if is_sum(n) and n.space in (Space.COL, Space.MATRIX)]

    @property
    def passes(self) -> dict[str, list[Phase]]:
        """Return the passes by the form of the tensors that they are for."""
        return {form: self.plan.phases(self.early, LOCAL[form]) for form in self.forms}

    def function(self, form: str, number: int, phase: Phase) -> str:
        """Print the function that runs a phase over one chunk."""
        if form == "points":
            return super().function(form, number, phase)
        head = [lanes.helpers(self)] if form == "lanes" and number == 0 else []
        body = lanes.body(self, phase) if form == "lanes" else wide.body(self, phase)
        end = [wide.after(self, number, phase)] if self._calls(form, phase) else []
        return "\n".join([
            *head, f"static void {form}_{number}(const job *J, int64_t c) {{", *self.chunk(phase),
            "  const int64_t *D = J->dims + 5*t, R = D[2], C = D[3]; (void)R; (void)C;",
            *self.begin_sums(phase), *body, *self.end_sums(phase), "}", *end])  # fmt: skip

    def statements(self, phase: Phase, part: Loop, form: str, kept: Sequence[Node]) -> list[
            tuple[Space, str]]:  # fmt: skip
        """Print the values of a loop: read from buffers and arrays, or computed.

        Args:
            phase: the pass.
            part: the loop.
            form: of the tensors.
            kept: the values that have buffers.
        """
        lines, local = [], LOCAL[form]
        wanted = {*part.nodes, *(n.args[0] for n in part.sums), *part.stores.values()}
        own = {n for n in part.nodes if computed(n, phase)
               and (part.space in local or n.space not in local)}  # fmt: skip
        outside = Space.TENSOR if form == "lanes" else Space.MATRIX
        for node in sorted(wanted | {a for n in own for a in n.args}, key=lambda n: n.number):
            if node.space <= outside or node.op == "const":
                continue
            if node in own:
                text = self.compute(node)
                if node in kept:
                    text += f" B{node.number}[{INDEX[form][node.space]}] = v{node.number};"
            else:
                text = f"const real v{node.number} = {self._read(phase, node, form)};"
            lines.append((node.space, text))
        return lines

    def _read(self, phase: Phase, node: Node, form: str) -> str:
        """Print a value that another loop or the memory holds."""
        name, place = array_of(node, phase), INDEX[form][node.space]
        if name is None:
            complete = form == "wide" and node in self.kept
            return f"(real)K{node.number}[{place}]" if complete else f"B{node.number}[{place}]"
        if form == "lanes":
            return f"l{c_name(name)}[{place}]"
        return self.get(name, f"k + {place}" if node.space is Space.ROW else place)

    def _calls(self, form: str, phase: Phase) -> bool:
        return form == "wide" and wide.closes(self, phase)

    def close(self, form: str, number: int, phase: Phase) -> list[str]:
        """Print how chunks' sums become a tensor's, and what is stored between passes."""
        call = [f"    after_{number}(J, G);"] if self._calls(form, phase) else []
        return super().close(form, number, phase) + call

    def switch(self, bodies: dict[str, list[str]], tensor: str) -> list[str]:
        """Print what is done for a tensor of each form."""
        if len(bodies) == 1:
            return super().switch(bodies, tensor)
        return [line for form, body in bodies.items() for line in (
            f"    if (J->dims[5*({tensor})] == {FORMS[form]}) {{", *body, "    }")]  # fmt: skip
