"""A study in a terminal: the short form of its table."""

from __future__ import annotations

from rich.table import Table
from rich.text import Text

from redline.findings.claims import SAME_BAND, claim_of, is_disturbed
from redline.reporting.table import Cells, table_lines, why_not
from redline.study.rows import Study


def study_table(study: Study) -> Table:
    """The short form of the table; why cells have no numbers stands under it, for a terminal is narrow."""
    gated = any(row.passed is not None for row in study.rows) and study.run.purpose == "tune"
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0), header_style="bold", caption_justify="left")
    table.add_column("", no_wrap=True)
    table.add_column("variant", overflow="fold", min_width=12)
    table.add_column("ran\nin", no_wrap=True)
    headings = ["median\nms", *([] if gated else ["p90\nms", "images\n/s"]), "peak\nMB", "speed-\nup", "99 %\ninterval"]
    for heading in [*headings, *(["same\n%", "right\n%"] if gated else [])]:
        table.add_column(heading, justify="right", no_wrap=True)
    for model in study.models:
        for size in dict.fromkeys(row.size for row in study.at(model=model)):
            for line in table_lines(study, model, size):
                if line.begins:
                    told = f"{model if len(study.models) > 1 else ''} {line.row.device} {line.shape} {line.row.loader}"
                    table.add_row(Text(""), Text(told.strip(), style="dim"))
                # As Text, so that square brackets in a user's names are not read as markup.
                table.add_row(*_cells(line, gated=gated), style=_style(line))
    reasons = "\n".join(_reasons(study))
    table.caption = Text("\n" + reasons) if reasons else None
    return table


_SHORT = {"disturbed": "disturbed", "undecided": "undecided", "same": "same", "baseline": "base"}


def _style(line: Cells) -> str:
    if line.row.recommended:
        return "bold"
    return "dim" if line.row.outcome != "measured" or line.row.passed is False else ""


def _cells(line: Cells, *, gated: bool) -> list[Text]:
    row = line.row
    if row.outcome != "measured":
        return [Text(""), Text(row.variant), Text(""), Text(row.outcome)]
    claim = claim_of(row)
    speedup = _SHORT.get(claim.verdict if claim else "", line.speedup)
    numbers = [
        line.median_ms,
        *([] if gated else [line.p90_ms, line.throughput]),
        line.memory_mb + ("?" if line.memory_doubt else ""),
        speedup,
        line.interval.replace(" to ", "–"),
    ]
    if gated:
        numbers += [line.agreement.removesuffix(" %"), line.accuracy.removesuffix(" %")]
    marks = ("★" if row.recommended else "✗" if row.passed is False else "") + ("✓" if row.confirmed else "")
    return [Text(text) for text in (marks, row.variant, row.precision + ("!" if row.fell_back else ""), *numbers)]


def _reasons(study: Study) -> list[str]:
    """Why cells have no numbers or no speed-up, and which precision was asked for; each said once."""
    cells: dict[str, int] = {}
    for row in study.rows:
        claim = claim_of(row)
        told = [f"{row.variant} on {row.device} {why_not(row)}"] if row.outcome != "measured" else []
        if row.fell_back:
            told.append(f"{row.variant} on {row.device} was asked for {row.requested} and ran in {row.layers_text}")
        if row.passed is False:
            told.append(f"✗ {row.variant} did not pass the gate: {row.gate_reason}")
        if claim is not None and is_disturbed(claim):
            told.append(f"too disturbed to say: {'; '.join(claim.reasons)}; {claim.advice}")
        for text in told:
            cells[text] = cells.get(text, 0) + 1
    if any(row.memory_sound is False for row in study.rows):
        cells["? memory is not sound: the baseline's own copy needs another amount"] = 1
    if any(row.confirmed for row in study.rows):
        cells["✓ measured again in fresh processes, on which alone its speed-up rests"] = 1
    if any((claim := claim_of(row)) and claim.verdict == "same" for row in study.rows):
        cells[f"same: the interval lies within {100 * SAME_BAND:.0f} % of the baseline"] = 1
    return [f"{text} ({count} cells)" if count > 1 else text for text, count in cells.items()]
