"""The table of one family's methods on one network: one file of results to a case, so that it resumes, and one page of Markdown."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from lilliput.core.atomic import write_text

HOME = Path(__file__).resolve().parent
_BEGIN, _END = "<!-- table -->", "<!-- end of table -->"
Rows = list[dict[str, Any]]


@dataclass(frozen=True, kw_only=True)
class Family:
    """Where a family's results and page stand, and how a case is measured; a row of the table is the seeds of one case.

    A case is a catalogue id, settings, perhaps a seed (`s1`) and another network than ResNet-8 (`@resnet20`).
    """

    name: str
    page: str
    measure: Callable[[str], dict[str, Any]]
    table: Callable[[Rows], str]

    @property
    def folder(self) -> Path:
        """One file to a case."""
        return HOME / "results" / self.name

    def file_of(self, case: str) -> Path:
        """Where a case's result stands."""
        return self.folder / f"{case.removeprefix(f'{self.name}.').replace(' ', '-')}.json"

    def results(self) -> Rows:
        """What is measured."""
        return [json.loads(path.read_text()) for path in sorted(self.folder.glob("*.json"))]

    def main(self, cases: Callable[[], Iterable[str]]) -> None:
        """Measure what is not measured yet, `[--table] [CASE ...]`, then write the page."""
        parser = argparse.ArgumentParser()
        parser.add_argument("--table", action="store_true")
        parser.add_argument("cases", nargs="*")
        options = parser.parse_args()
        torch.set_num_threads(1)
        self.folder.mkdir(parents=True, exist_ok=True)
        for case in () if options.table else dict.fromkeys(options.cases or cases()):
            if not self.file_of(case).exists():
                result = self.measure(case)
                write_text(self.file_of(case), json.dumps(result, indent=1) + "\n")
                print(case, f"{result['drop']:+.2f}", f"{result['seconds']:.0f} s", flush=True)
        page = HOME / self.page
        before, _, rest = page.read_text().partition(_BEGIN)
        write_text(page, f"{before}{_BEGIN}\n{self.table(self.results())}\n{_END}{rest.partition(_END)[2]}")


def settings(case: str) -> tuple[int, str, list[str]]:
    """Seed, network, and the settings that are neither."""
    seed, network, rest = 0, "resnet8", []
    for part in case.split()[1:]:
        if part[0] == "s" and part[1:].isdigit():
            seed = int(part[1:])
        elif part[0] == "@":
            network = part[1:]
        else:
            rest.append(part)
    return seed, network, rest


def by_case(results: Rows) -> dict[str, Rows]:
    """Results by case, the seed aside; seeds in order."""
    groups: dict[str, Rows] = {}
    for result in sorted(results, key=lambda r: settings(r["case"])[0]):
        _, network, rest = settings(result["case"])
        name = " ".join((result["case"].split()[0], *rest, *((f"@{network}",) if network != "resnet8" else ())))
        groups.setdefault(name, []).append(result)
    return groups
