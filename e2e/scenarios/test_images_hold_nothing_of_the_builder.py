"""What was only there for the build stays out of every layer and of the configuration."""

from __future__ import annotations

import json
import re

import pytest

from e2e.images.engine import STORAGE
from e2e.images.recipe import RECIPES, version
from e2e.images.store import Store, StoredImage

# No cluster, but the built images, which `make scenarios` has.
pytestmark = pytest.mark.cluster

LEFTOVER = re.compile(
    r"^(etc/pip\.conf|etc/uv(/.*)?|root/\.(cache|config|pip|netrc).*|mnt/.+|tmp/.+|opt/uv(/.*)?|src(/.*)?|wheels(/.*)?"
    r"|var/lib/apt/lists/.+_Packages|(.*/)?\.git(/.*)?)$"
)
TRUST = "etc/ssl/certs/ca-certificates.crt"
PROXIES = re.compile(r"^(PIP_|UV_|SSL_|REQUESTS_CA|CURL_CA|HTTPS?_PROXY|https?_proxy|AWS_|.*(TOKEN|SECRET|PASSWORD))")


@pytest.fixture(params=list(RECIPES))
def image(request: pytest.FixtureRequest) -> StoredImage:
    return Store(STORAGE).image(RECIPES[request.param].reference("cpu"))


def test_no_layer_holds_build_configuration_caches_or_history(image: StoredImage) -> None:
    store = Store(STORAGE)
    found = [name for layer in image.layers[1:] for name in store.names(layer) if LEFTOVER.match(name)]
    assert [name for name in found if name.rstrip("/") not in {"tmp", "mnt", "root"}] == []


def test_the_trust_store_is_the_base_s_own(image: StoredImage) -> None:
    store = Store(STORAGE)
    assert TRUST in store.names(image.layers[0])
    assert all(TRUST not in store.names(layer) for layer in image.layers[1:])


def test_the_environment_carries_no_registry_setting_and_no_secret(image: StoredImage) -> None:
    settings = json.loads(image.config)["config"]
    assert [each for each in settings["Env"] if PROXIES.match(each)] == []
    assert settings["User"] == "65532:65532"


def test_labels_say_version_and_revision(image: StoredImage) -> None:
    assert image.labels["org.opencontainers.image.version"] == version()
    assert re.fullmatch(r"[0-9a-f]{40}(-dirty)?", image.labels["org.opencontainers.image.revision"])


def test_our_code_is_the_last_thin_layer(image: StoredImage) -> None:
    store = Store(STORAGE)
    names = store.names(image.layers[-1])
    assert all(name.startswith("opt") for name in names)
    assert {"opt/pinnace/pinnace/__init__.py", "opt/pinnace/bin/pinnace"} <= set(names)
    assert any(name.endswith(".pyc") for name in names)
    assert image.layers[-1].size < 10 << 20


def test_heavy_images_share_base_and_torch() -> None:
    store = Store(STORAGE)
    stacks = [
        [layer.digest for layer in store.image(recipe.reference("cpu")).layers]
        for recipe in RECIPES.values()
        if recipe.heavy
    ]
    # base, system packages, what to install, torch
    assert len({tuple(stack[:4]) for stack in stacks}) == 1
