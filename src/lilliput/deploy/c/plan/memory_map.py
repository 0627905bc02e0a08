"""What lies where and when: a table for the terminal, and a picture."""

from __future__ import annotations

from html import escape

from lilliput.deploy.c.operators import Buffer
from lilliput.deploy.c.plan.lifetimes import Plan, lifetimes

_WIDTH, _HEIGHT, _LEFT, _BOTTOM, _MARGIN = 960, 420, 72, 40, 14
# Light and dark surfaces both carry these.
_COLOURS = {"input": "#2f7ed8", "output": "#3a9d5d", "scratch": "#c9822b", "between": "#8a8fa3"}


def table(plan: Plan) -> str:
    """One line for each step with the bytes that live there, then one for each buffer with its place and life."""
    life = lifetimes(plan.program)
    used = [_used(plan, life, i) for i in range(len(plan.program.steps))]
    kinds = [type(step).__name__ for step in plan.program.steps]
    shown = "shown to be the least possible" if plan.optimal else f"at most {plan.gap:,} more than the least possible"
    lines = [f"Arena {plan.arena:,} bytes, {shown}."]
    if plan.patches is not None:
        lines.append(f"Steps up to {plan.patches.layer} in {plan.patches.rows} x {plan.patches.columns} patches, {plan.patches.extra:,} multiplications more.")
    lines += ["", f"{'step':>5}  {'bytes':>10}  operator            layer"]
    peak = max(used, default=0)
    lines += [f"{i:>5}  {bytes_:>10,}  {kind:<18}{'*' if bytes_ == peak else ' '} {step.layer}"
              for i, (bytes_, kind, step) in enumerate(zip(used, kinds, plan.program.steps, strict=True))]
    lines += ["", f"{'from':>10}  {'to':>10}  {'bytes':>10}  {'steps':>11}  buffer"]
    lines += [f"{plan.offsets[b]:>10,}  {plan.offsets[b] + b.bytes:>10,}  {b.bytes:>10,}  {f'{first}-{last}':>11}  {_named(b)}"
              for b, (first, last) in sorted(life.items(), key=lambda item: (item[1], plan.offsets[item[0]]))]
    return "\n".join(lines) + "\n"


def _named(buffer: Buffer) -> str:
    """A buffer and its bits where they are fewer than eight."""
    return buffer.name if buffer.bits == 8 else f"{buffer.name} ({buffer.bits} bits)"


def _used(plan: Plan, life: dict[Buffer, tuple[int, int]], step: int) -> int:
    """Bytes under any buffer that lives at a step; shared ones count once."""
    total, end = 0, 0
    for start, size in sorted((plan.offsets[b], b.bytes) for b, (first, last) in life.items() if first <= step <= last):
        total += max(start + size - max(start, end), 0)
        end = max(end, start + size)
    return total


def picture(plan: Plan) -> str:
    """The arena over the steps as SVG: a rectangle for each buffer, lowest offset at the bottom, its name and place as its title."""
    life = lifetimes(plan.program)
    roles = {port.buffer: "output" for port in plan.program.outputs} | {port.buffer: "input" for port in plan.program.inputs}
    roles |= {step.scratch: "scratch" for step in plan.program.steps if step.scratch is not None}
    across = (_WIDTH - _LEFT - _MARGIN) / max(len(plan.program.steps), 1)
    up = (_HEIGHT - _BOTTOM - _MARGIN) / max(plan.arena, 1)
    floor = _HEIGHT - _BOTTOM
    parts = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" '
             f'aria-label="{plan.arena} bytes over {len(plan.program.steps)} steps" font-family="sans-serif" font-size="12" fill="#767b8c">']
    for buffer, (first, last) in life.items():
        x, width = _LEFT + first * across, (last - first + 1) * across
        height, top = max(buffer.bytes * up, 0.5), floor - (plan.offsets[buffer] + buffer.bytes) * up
        place = f"{plan.offsets[buffer]:,} to {plan.offsets[buffer] + buffer.bytes:,}, {buffer.bytes:,} bytes"
        title = escape(f"{_named(buffer)}: {place}, steps {first} to {last}")
        parts.append(f'<rect x="{x:.2f}" y="{top:.2f}" width="{width:.2f}" height="{height:.2f}" fill="{_COLOURS[roles.get(buffer, "between")]}" '
                     f'fill-opacity="0.55" stroke="{_COLOURS[roles.get(buffer, "between")]}" stroke-width="0.6"><title>{title}</title></rect>')
    for share in (0, 0.25, 0.5, 0.75, 1):
        y, count = floor - share * plan.arena * up, round(share * plan.arena)
        parts.append(f'<path d="M{_LEFT} {y:.1f}H{_WIDTH - _MARGIN}" stroke="#767b8c" stroke-opacity="0.3"/>'
                     f'<text x="{_LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{count:,}</text>')
    for step in sorted({round(k * (len(plan.program.steps) - 1) / 8) for k in range(9)}) if plan.program.steps else []:
        parts.append(f'<text x="{_LEFT + (step + 0.5) * across:.1f}" y="{floor + 16}" text-anchor="middle">{step}</text>')
    for k, (role, colour) in enumerate(_COLOURS.items()):
        x = _LEFT + 110 * k
        parts.append(f'<rect x="{x}" y="{_HEIGHT - 14}" width="10" height="10" fill="{colour}" fill-opacity="0.55"/>'
                     f'<text x="{x + 15}" y="{_HEIGHT - 5}">{role}</text>')
    parts.append(f'<text x="{_WIDTH - _MARGIN}" y="{_HEIGHT - 5}" text-anchor="end">bytes of the arena, step by step</text>')
    return "\n".join([*parts, "</svg>"]) + "\n"
