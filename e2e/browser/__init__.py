"""A real headless Chromium for tests, from npm by a hashed lock; driven by its DevTools protocol."""

from e2e.browser.install import installed
from e2e.browser.page import Page, opened

__all__ = ["Page", "installed", "opened"]
