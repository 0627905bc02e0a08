"""Figures of code for microcontrollers."""

from __future__ import annotations

from collections.abc import Callable

from benchmarks.figures.base import Cell, Figure, Rows

_BOARDS = ("cortex-m0", "cortex-m3", "cortex-m4", "cortex-m7", "cortex-m33", "cortex-m55", "riscv32")


_TINY = ("image classification", "keyword spotting", "anomaly detection", "visual wake words")


def _tflm(rows: Rows) -> Cell:
    text = "; ".join(f"{name} {r['micro']['equal']}/{r['inputs']}" for name, r in rows.items())
    other = "; ".join(f"{r['reference']['equal']}, {r['builtin']['equal']}, {r['delegate']['equal']}" for r in rows.values())
    plain = ", ".join(str(r["reference"].get("equal_once", "?")) for r in rows.values())
    return text, f"LiteRT's reference, built-in and XNNPACK kernels: {other}; its reference where linear layers round once, as it does: {plain}", len(rows) == 3 and all(r["micro"]["equal"] == r["inputs"] for r in rows.values())


def _beside(rows: Rows) -> Cell:
    sides = [[f"{c['ram']:,} / {c['code'] + c['constants']:,} bytes, {c['instructions'] / 1e6:.1f} M" for c in r["beside"]] for r in rows.values()]
    less = all(a[key] <= b[key] for r in rows.values() for a, b in [r["beside"]] for key in ("ram", "instructions"))
    return "; ".join(ours for ours, _ in sides), "TensorFlow Lite Micro " + "; ".join(theirs for _, theirs in sides), less and len(sides) == 3


def _exact(rows: Rows) -> Cell:
    differ, operators = sum(r["differ"] for r in rows.values()), sum(r["operators"] for r in rows.values())
    return f"{differ} of {sum(r['codes'] for r in rows.values()):,} codes in {operators:,} runs", "", differ == 0 and len(rows) == 7


def _networks_exact(rows: Rows) -> Cell:
    wrong = {case: sum(rows[case][board]["wrong"] for board in _BOARDS) for case in _TINY}
    return "; ".join(f"{case} {count}" for case, count in wrong.items()), "", not any(wrong.values())


def _instructions(board: str, limits: tuple[float, float, float]) -> Callable[[Rows], Cell]:
    """Against what CMSIS-NN takes, in millions."""

    def cell(rows: Rows) -> Cell:
        layers = [rows[board][name] for name in ("3 x 3", "depthwise", "1 x 1")]
        text = " / ".join(f"{layer['instructions'] / 1e6:.2f}" for layer in layers)
        return f"{text} M", "", all(x["instructions"] <= 1e6 * limit and x["wrong"] == 0 for x, limit in zip(layers, limits, strict=True))

    return cell


def _arena(kind: str, limits: tuple[int, ...]) -> Callable[[Rows], Cell]:
    def cell(rows: Rows) -> Cell:
        sizes = [rows[case][kind] for case in _TINY]
        theirs = "TensorFlow Lite Micro 55,984 / 24,272 / 3,984" if kind == "plain" else ""
        return " / ".join(f"{size:,}" for size in sizes) + " bytes", theirs, all(a <= b for a, b in zip(sizes, limits, strict=True))

    return cell


def _patched(rows: Rows) -> Cell:
    r = rows["patches"]
    cells = []
    good = True
    for name in ("plain", "overlap"):
        split = r[f"{name}_patches"]
        ratio, more = r[name] / split["arena"], split["macs"] / r["macs"] - 1
        good &= ratio >= 4 and more <= 0.25 and split["faults"] == 0
        cells.append(f"{'without' if name == 'plain' else 'with'} overlap {r[name]:,} -> {split['arena']:,} bytes ({ratio:.2f}x), {100 * more:+.1f}% MACs")
    moved = rows.get("patches, redistributed")
    if moved:
        more = " and ".join(f"{100 * (moved[f'{name}_patches']['macs'] / moved['macs'] - 1):+.1f}%" for name in ("plain", "overlap"))
        cells.append(f"with the receptive field redistributed {more}")
    return "; ".join(cells), "", good


def _flash(rows: Rows) -> Cell:
    r = rows["keyword spotting"]
    beyond = r["code"] + r["constants"] - r["weights"]
    return f"{beyond:,} bytes, {r['code']:,} of them code", "", beyond <= 12 * 1024


def _few_bits(rows: Rows) -> Cell:
    r = rows["few bits"]
    plain, packed, coded = (r[name] for name in ("plain", "packed", "coded"))
    slower = [other["instructions"] / plain["instructions"] for other in (packed, coded)]
    text = (f"{packed['weights'] / plain['weights']:.3f}x and {coded['weights'] / plain['weights']:.3f}x of the bytes; "
            f"{slower[0]:.3f}x and {slower[1]:.3f}x of the instructions")
    good = packed["weights"] <= 0.52 * plain["weights"] and coded["weights"] < packed["weights"] and max(slower) <= 1.35
    return text, "", good and not any(x["wrong"] for x in r.values())


def _sub_byte(rows: Rows) -> Cell:
    whole, packed = (rows["few bits, activations too"][name] for name in ("bytes", "sub_byte"))
    ratio, slower = packed["arena"] / whole["arena"], packed["instructions"] / whole["instructions"]
    text = f"{whole['arena']:,} -> {packed['arena']:,} bytes ({ratio:.3f}x), {packed['packed']} values packed; {slower:.3f}x of the instructions"
    return text, "", ratio <= 0.6 and slower <= 1.35 and not (whole["wrong"] or packed["wrong"])


def _generated(rows: Rows) -> Cell:
    seconds = [rows[case]["generate_seconds"] for case in _TINY]
    return " / ".join(f"{s:.1f}" for s in seconds) + " s, compiling for the size of the code included", "", max(seconds) < 3


FIGURES = (
    Figure(name="MLPerf Tiny's int8 models, lowered: outputs equal to TensorFlow Lite Micro's", bar="all", file="tflm", cell=_tflm),
    Figure(name="the same on x86-64, plain kernels: arena / flash, instructions of one run", bar="less memory, fewer instructions", file="tflm",
           cell=_beside),
    Figure(name="random operators on seven processors: codes that differ from the integer reference", bar="0", file="mcu_exact", cell=_exact),
    Figure(name="the MLPerf Tiny networks on seven processors: codes that differ", bar="0", file="mcu", cell=_networks_exact),
    Figure(name="3 x 3 / depthwise / 1 x 1 layer on Cortex-M4: instructions", bar="<= 5.49 / 0.95 / 3.18 M (CMSIS-NN)", file="mcu_kernels",
           cell=_instructions("cortex-m4", (5.49, 0.95, 3.18))),
    Figure(name="the same on Cortex-M55", bar="<= 0.94 / 0.46 / 0.73 M (CMSIS-NN)", file="mcu_kernels", cell=_instructions("cortex-m55", (0.94, 0.46, 0.73))),
    Figure(name="arena of image classification / keyword spotting / anomaly detection / visual wake words, without overlap",
           bar="<= 49,152 / 16,000 / 768 / 55,296", file="mcu", cell=_arena("plain", (49152, 16000, 768, 55296))),
    Figure(name="the same, with overlap", bar="<= 49,152 / 8,200 / 768 / 38,000", file="mcu", cell=_arena("overlap", (49152, 8200, 768, 38000))),
    Figure(name="MobileNetV2 at 224² in patches: arena and multiplications", bar=">= 4x less, <= 25% more", file="mcu", cell=_patched),
    Figure(name="keyword spotting on Cortex-M4 at -Os: flash beyond weights", bar="<= 12 KB", file="mcu", cell=_flash),
    Figure(name="ResNet-8 with weights of 4 bits, packed and coded, against int8 on Cortex-M4",
           bar="<= 0.52x, smaller still; <= 1.35x instructions", file="mcu", cell=_few_bits),
    Figure(name="the same with activations of 4 bits too: arena on Cortex-M4, activations packed against bytes",
           bar="<= 0.6x; <= 1.35x instructions", file="mcu", cell=_sub_byte),
    Figure(name="time to generate the four networks", bar="< 3 s", file="mcu", cell=_generated),
)
