"""Time from a stroke on the playground's page to the bars that include it, in a real browser.

    mlpserve-playground --models models &
    python benchmarks/playground.py --url http://localhost:8080

Each digit is drawn with a mouse that moves 60 times a second. For each place of the pen it is
measured, in the page, how long it takes from the pointer's event to the paint after the bars have
changed to an answer that includes it. A place that is drawn while an answer is under way waits for
the next.
"""

import argparse
import sys
from typing import Final

import numpy as np

from harness.drawing import STROKES, browsing, chromium, drawing
from harness.tables import markdown_table

FRAME_MS: Final = 1000 / 60
STEPS: Final = 10
MEASURE: Final = """() => {
    const waiting = [];
    let underway = [];
    window.measured = { latencies: [], calls: [], answers: 0 };
    for (const kind of ["pointerdown", "pointermove"]) {
        addEventListener(kind, (event) => event.buttons && waiting.push(event.timeStamp), true);
    }
    const fetched = window.fetch;
    window.fetch = async (path, options) => {
        const isDrawing = /api.predict.*prepare=[1-9]/.test(path);
        if (!isDrawing) return fetched(path, options);
        underway = waiting.splice(0);
        const begun = performance.now();
        const answer = await fetched(path, options);
        window.measured.calls.push(performance.now() - begun);
        return answer;
    };
    new MutationObserver(() => {
        const answered = underway;
        underway = [];
        if (answered.length) window.measured.answers += 1;
        requestAnimationFrame(() => {
            const { port1, port2 } = new MessageChannel();  // is told after the paint
            port1.onmessage = () => {
                const now = performance.now();
                window.measured.latencies.push(...answered.map((time) => now - time));
            };
            port2.postMessage(null);
        });
    }).observe(document.querySelector("#bars"), { childList: true, subtree: true });
}"""


def main() -> int:
    """Draw, and print a table of what was measured.

    Returns:
        The exit code.
    """
    parser = argparse.ArgumentParser(description="Time from a stroke to the playground's bars.")
    parser.add_argument("--url", default="http://localhost:8080", help="where the page answers")
    parser.add_argument("--rounds", type=int, default=3, help="how often each digit is drawn")
    options = parser.parse_args()
    program = chromium()
    if program is None:
        print("playground.py: needs chromium", file=sys.stderr)
        return 1
    with browsing(program) as browser:
        page = browser.new_page(viewport={"width": 1360, "height": 900})
        page.goto(options.url)
        page.wait_for_selector("body[data-state=ready]")
        page.evaluate(MEASURE)
        for digit in list(STROKES) * options.rounds:
            page.get_by_role("button", name="Clear").click()
            for _ in drawing(page, digit, steps=STEPS):
                page.wait_for_timeout(FRAME_MS)
            page.wait_for_timeout(10 * FRAME_MS)
        found = page.evaluate("window.measured")
    rows = [
        _row("from a place of the pen to the bars", found["latencies"]),
        _row("of it, the call of the playground", found["calls"]),
    ]
    print(markdown_table(["", "p50", "p95", "times"], rows))
    return 0


def _row(name: str, milliseconds: list[float]) -> list[str]:
    middle, high = np.percentile(milliseconds, [50, 95])
    return [name, f"{middle:.0f} ms", f"{high:.0f} ms", str(len(milliseconds))]


if __name__ == "__main__":
    raise SystemExit(main())
