"""The cloud: its metadata server, the controller from its package, and machines.

All of it is only there beneath `tests/image/run`, which `make test-image` calls.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest
import yaml

from tests import reference_process as reference
from tests.image.booting import LAYERS, Box, booted
from tests.metadata_fakes import FakeGce
from tests.paths import TESTS
from tests.reference_process import ReferenceController, running_controller
from tests.runner_double.double import Double
from tests.systemd.machine import Machine

#: Where the firmware of `tests/image/run` has the metadata server.
METADATA_PORT = 8169

#: The token that the metadata bring, as the start has put it for the workers.
TOKEN = "/run/miglet/controller-token"

_numbers = itertools.count(4520031799277581759)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Elsewhere than in the cloud none of the tests of this folder runs."""
    missing = pytest.mark.skip(reason="only in `make test-image`")
    for item in items:
        if TESTS / "image" in item.path.parents and not LAYERS.exists():
            item.add_marker(missing)


@pytest.fixture(scope="session")
def controller(tmp_path_factory) -> Iterator[ReferenceController]:
    """`miglet-controller` from its package."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reference, "COMMAND", ["/usr/bin/miglet-controller"])
        with running_controller(tmp_path_factory.mktemp("cloud")) as running:
            yield running


@pytest.fixture(scope="session")
def metadata() -> Iterator[FakeGce]:
    """The metadata server."""
    with FakeGce(METADATA_PORT) as fake:
        yield fake


def pool(controller: ReferenceController) -> dict[str, str]:
    """What an instance template says: who the pool is, and where its controller."""
    settings = {
        "pool_id": "pool-1",
        "org_id": "org-1",
        "controller": {"endpoint": controller.endpoint},
        "github": {"org": "octo"},
        # There is no GitHub here to be reached, and little disk.
        "bootstrap": {"network": False, "min_free_disk": "1MB"},
    }
    token = controller.token_path.read_text().strip()
    return {
        "miglet-config": yaml.safe_dump(settings),
        "miglet-controller-token": token,
    }


Boot = Callable[..., tuple[Box, Machine]]


@pytest.fixture
def boot(controller, metadata) -> Iterator[Boot]:
    """Boots machines: `boot(*layers, **attributes)`, with `_` for `-`.

    What an attribute of None says is what the instance template does not.
    """
    with ExitStack() as stack:

        def make(*layers: str, **attributes: str | None) -> tuple[Box, Machine]:
            number = next(_numbers)
            spelt = {name.replace("_", "-"): text for name, text in attributes.items()}
            named = {**pool(controller), **spelt}
            metadata.change("instance/id", number)
            metadata.change("instance/attributes", {})
            metadata.describe(
                {k: text for k, text in named.items() if text is not None}
            )
            box = stack.enter_context(booted(*layers))
            double = Double(box.path("/opt/actions-runner"))
            vm = str(number)
            return box, Machine(box.console, controller, double, vm, (TOKEN,))

        yield make
