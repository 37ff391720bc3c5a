"""The table of README.md, from results.json, which keeps what the last run of each client gave."""

import json
from typing import Any

from install import HERE, all_clients

RESULTS = HERE / "results.json"
START, END = "<!-- table -->\n", "<!-- end of table -->\n"


def write_table(results: dict[str, Any]) -> None:
    """Adds results to the file and writes the table anew."""
    kept = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    for name, result in results.items():
        told = {key: result[key] for key in ("versions", "passed", "sent", "note", "refused")}
        kept[name] = {**told, "checks": {check: not error for check, error in result["checks"].items()}}
    RESULTS.write_text(json.dumps(dict(sorted(kept.items())), indent=1) + "\n")
    page = HERE / "README.md"
    before, rest = page.read_text().split(START)
    page.write_text(before + START + table(kept) + END + rest.split(END)[1])


def table(results: dict[str, Any]) -> str:
    rows = ["| client | version | driven by | requests | recorded | verdict |", "|---|---|---|---|---|---|"]
    for client in all_clients():
        result = results.get(client.name)
        if result is None:
            continue
        file = HERE / "recordings" / f"{client.name}.json"
        recorded = len(json.loads(file.read_text())) if file.exists() else 0
        cells = [client.name, ", ".join(result["versions"]), client.driven, result["sent"], recorded, _verdict(result)]
        rows.append("| " + " | ".join(str(cell).replace("|", "/") for cell in cells) + " |")
    return "\n".join(rows) + "\n"


def _verdict(result: dict[str, Any]) -> str:
    checks = result["checks"]
    count = f"{sum(checks.values())} of {len(checks)} checks"
    if result["passed"]:
        return f"passes, {count}"
    failed = [name for name, passed in checks.items() if not passed]
    reasons = [*failed, *(line[:80] for line in result["refused"][:1]), *([result["note"]] if result["note"] else [])]
    return f"fails, {count}: {'; '.join(reasons)}"
