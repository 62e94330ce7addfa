"""Charts as files."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestrator.publish import replace

if TYPE_CHECKING:
    import altair as alt

SUFFIXES = (".pdf", ".svg", ".png", ".html")


def save(chart: alt.TopLevelMixin, path: Path | str) -> None:
    """Write a chart as its suffix says: vector pdf or svg with real text, png (two pixels a point), or one
    html that needs no network. Atomic. Raises ValueError for other suffixes, StoreError if it can't be written.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise ValueError(f"cannot write {path.name!r}: the name must end in one of {', '.join(SUFFIXES)}")
    replace(path, _rendered(chart.to_dict(), suffix))


def _rendered(spec: dict[str, Any], suffix: str) -> bytes:
    import vl_convert

    if suffix == ".html":
        return _html(spec).encode()
    if suffix == ".svg":
        return str(vl_convert.vegalite_to_svg(spec)).encode()
    if suffix == ".png":
        return bytes(vl_convert.vegalite_to_png(spec, scale=2))
    return bytes(vl_convert.vegalite_to_pdf(spec))


def _html(spec: dict[str, Any]) -> str:
    """One page with everything in it.

    vl-convert writes the chart into a script as it is, so that a value such as `</script>` would end the
    script. Here `<` goes in as a token, and becomes an escape of JavaScript's once it is there.
    """
    import vl_convert

    text = json.dumps(spec)
    token = f"@{hashlib.sha256(text.encode()).hexdigest()[:24]}@"
    page = str(vl_convert.vegalite_to_html(json.loads(text.replace("<", token)), bundle=True))
    return page.replace(token, "\\u003c")
