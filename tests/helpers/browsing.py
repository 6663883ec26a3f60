"""Checks of an HTML page in a browser."""

from pathlib import Path

UNNAMED = "img:not([alt]), img[alt=''], svg:not([aria-label]), svg[aria-label=''], audio:not([aria-label])"
UNNAMED = f"{UNNAMED}, svg a:not([aria-label])".replace("'", '"')


def inspect(browser, page: Path, **context) -> dict:
    """Open a page in a new tab.

    Returns:
        The tab, and what it violates: console messages, requests for other files, elements without a text alternative,
        duplicate ids, dead anchors, horizontal overflow in pixels; and the durations of its audio players, s.
    """
    report: dict = {"console": [], "requests": []}
    tab = browser.new_context(**context).new_page()
    tab.on("console", lambda message: report["console"].append(message.text))
    tab.on("pageerror", lambda error: report["console"].append(str(error)))
    tab.on("request", lambda request: report["requests"].append(request.url))
    tab.goto(page.as_uri())
    players = "Array.from(document.querySelectorAll('audio'))"
    tab.wait_for_function(f"{players}.every(player => player.readyState > 0)", timeout=20_000)
    report["durations"] = tab.evaluate(f"{players}.map(player => player.duration)")
    report["requests"] = [url for url in report["requests"] if not url.startswith("data:") and url != page.as_uri()]
    report["unnamed"] = tab.evaluate(f"[...document.querySelectorAll('{UNNAMED}')].map(e => e.outerHTML.slice(0, 80))")
    report["duplicate ids"] = tab.evaluate(
        """(() => { const ids = [...document.querySelectorAll('[id]')].map(e => e.id);
        return ids.filter((id, i) => ids.indexOf(id) !== i) })()"""
    )
    report["dead anchors"] = tab.evaluate(
        """[...document.querySelectorAll('a[href^="#"]')].map(a => a.getAttribute('href').slice(1))
        .filter(id => !document.getElementById(id))"""
    )
    report["overflow"] = tab.evaluate("document.documentElement.scrollWidth - innerWidth")
    report["tab"] = tab
    return report


def faultless(report: dict) -> bool:
    """Fail if the report of `inspect` has a violation."""
    keys = ("console", "requests", "unnamed", "duplicate ids", "dead anchors")
    assert {key: report[key] for key in keys if report[key]} == {}
    assert report["overflow"] <= 0
    return True
