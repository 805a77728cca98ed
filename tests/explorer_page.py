"""What tests do on an explorer's page: find its dividers, drag them, read its texts."""

from playwright.sync_api import Locator, Page


def handles(page: Page) -> Locator:
    """The dividers."""
    return page.locator("[role=slider]")


def cuts_of(page: Page) -> tuple[int, ...]:
    """Where they are."""
    return tuple(int(handle.get_attribute("aria-valuenow") or -1) for handle in handles(page).all())


def verdict_of(page: Page) -> str:
    """The sentence above the ribbon."""
    return (page.locator(".pl-verdict > span").text_content() or "").replace("\u00a0", " ")


def texts(page: Page, selector: str) -> list[str]:
    """Texts of the elements that have one."""
    return [text for text in page.locator(selector).all_text_contents() if text]


def drag(page: Page, index: int, dx: float, *, release: bool = True) -> None:
    """Drag a divider by so many pixels."""
    box = handles(page).nth(index).locator(".pl-grip").bounding_box()
    assert box is not None
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x + dx, y + 10, steps=8)
    page.evaluate("() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
    if release:
        page.mouse.up()
