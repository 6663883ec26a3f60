"""Pages opened in a browser, and what a person or a machine could object to."""

from pathlib import Path

UNNAMED = "img:not([alt]), img[alt=''], svg:not([aria-label]), svg[aria-label=''], audio:not([aria-label])"
UNNAMED = f"{UNNAMED}, svg a:not([aria-label])".replace("'", '"')


def inspect(browser, page: Path, **context) -> dict:
    """Open a page; what a person or a machine could object to."""
    seen: dict = {"console": [], "requests": []}
    tab = browser.new_context(**context).new_page()
    tab.on("console", lambda message: seen["console"].append(message.text))
    tab.on("pageerror", lambda error: seen["console"].append(str(error)))
    tab.on("request", lambda request: seen["requests"].append(request.url))
    tab.goto(page.as_uri())
    players = "Array.from(document.querySelectorAll('audio'))"
    tab.wait_for_function(f"{players}.every(player => player.readyState > 0)", timeout=20_000)
    seen["durations"] = tab.evaluate(f"{players}.map(player => player.duration)")
    seen["requests"] = [url for url in seen["requests"] if not url.startswith("data:") and url != page.as_uri()]
    seen["unnamed"] = tab.evaluate(f"[...document.querySelectorAll('{UNNAMED}')].map(e => e.outerHTML.slice(0, 80))")
    seen["twice"] = tab.evaluate(
        """(() => { const ids = [...document.querySelectorAll('[id]')].map(e => e.id);
        return ids.filter((id, i) => ids.indexOf(id) !== i) })()"""
    )
    seen["dangling"] = tab.evaluate(
        """[...document.querySelectorAll('a[href^="#"]')].map(a => a.getAttribute('href').slice(1))
        .filter(id => !document.getElementById(id))"""
    )
    seen["too wide"] = tab.evaluate("document.documentElement.scrollWidth - innerWidth")
    seen["tab"] = tab
    return seen


def faultless(seen: dict) -> bool:
    faults = {key: seen[key] for key in ("console", "requests", "unnamed", "twice", "dangling") if seen[key]}
    assert faults == {}
    assert seen["too wide"] <= 0
    return True
