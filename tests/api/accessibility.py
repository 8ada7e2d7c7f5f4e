"""Accessibility check of a page with axe-core."""

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page


def serious(page: Page) -> list[tuple[str, str, list[str]]]:
    """Serious and critical violations that axe-core finds in a page."""
    return [
        (one["id"], one["help"], [node["html"] for node in one["nodes"]])
        for one in Axe().run(page).response["violations"]
        if one["impact"] in {"serious", "critical"}
    ]
