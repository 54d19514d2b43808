"""The last local step: firing rate against input rate, as ``rate.svg`` beside the results.

Standard library only, so that it runs wherever the results came back to; equal results give an equal file.
"""

import json
import sys
from pathlib import Path

WIDTH, HEIGHT = 480, 320
LEFT, RIGHT, TOP, BOTTOM = 56, 16, 20, 44
SERIES = (("rate_exc_hz", "#1f77b4", "excitatory"), ("rate_inh_hz", "#d62728", "inhibitory"))


def ticks(top: float) -> list[float]:
    """Return a handful of round numbers from 0 to at least ``top``."""
    step = next(s * 10**e for e in range(-3, 6) for s in (1, 2, 5) if s * 10**e * 6 >= top)
    return [step * k for k in range(int(-(-top // step)) + 1)]


def draw(reports: list[dict[str, float]]) -> str:
    """Return the plot as SVG."""
    x_ticks = ticks(max(report["rate"] for report in reports))
    y_ticks = ticks(max(max(report[key] for report in reports) for key, _, _ in SERIES) or 1.0)

    def x(value: float) -> float:
        return LEFT + value / x_ticks[-1] * (WIDTH - LEFT - RIGHT)

    def y(value: float) -> float:
        return HEIGHT - BOTTOM - value / y_ticks[-1] * (HEIGHT - TOP - BOTTOM)

    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{HEIGHT}" font-family="sans-serif">',
        "<style>text{font-size:11px}</style>",
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>',
    ]
    out.extend(
        f'<text x="{x(value):.1f}" y="{HEIGHT - BOTTOM + 16}" text-anchor="middle">{value:g}</text>'
        for value in x_ticks
    )
    out.extend(
        f'<path d="M{LEFT} {y(value):.1f}H{WIDTH - RIGHT}" stroke="#ddd"/>'
        f'<text x="{LEFT - 6}" y="{y(value) + 4:.1f}" text-anchor="end">{value:g}</text>'
        for value in y_ticks
    )
    for row, (key, colour, label) in enumerate(SERIES):
        points = [(x(report["rate"]), y(report[key])) for report in reports]
        path = "L".join(f"{px:.1f} {py:.1f}" for px, py in points)
        out.append(f'<path d="M{path}" fill="none" stroke="{colour}" stroke-width="1.5"/>')
        out.extend(f'<circle cx="{px:.1f}" cy="{py:.1f}" r="3" fill="{colour}"/>' for px, py in points)
        out.append(f'<text x="{LEFT + 10}" y="{TOP + 14 + 15 * row}" fill="{colour}">{label}</text>')
    out += [
        f'<text x="{(LEFT + WIDTH - RIGHT) / 2:.1f}" y="{HEIGHT - 8}" text-anchor="middle">input rate (Hz)</text>',
        f'<text transform="translate(14 {HEIGHT / 2:.0f}) rotate(-90)" text-anchor="middle">firing rate (Hz)</text>',
        "</svg>",
    ]
    return "\n".join(out) + "\n"


def main() -> None:
    """Read ``results/**/rate.json``, print them as a table, write ``results/rate.svg``."""
    root = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent / "results"
    reports = [json.loads(path.read_text()) for path in root.glob("**/rate.json")]
    if not reports:
        sys.exit(f"no rate.json under {root}; submit the folder first")
    reports.sort(key=lambda report: report["rate"])
    for report in reports:
        print(f"{report['rate']:6g} Hz in  {report['rate_exc_hz']:7.2f} Hz out")
    (root / "rate.svg").write_text(draw(reports))
    print(f"{len(reports)} points: {root / 'rate.svg'}")


if __name__ == "__main__":
    main()
