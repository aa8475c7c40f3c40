"""`python -m e2e.browser`: installs it, for `make setup`."""

from e2e.browser.install import install

if __name__ == "__main__":
    print(install())
