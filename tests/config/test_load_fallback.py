"""What a broken configuration still gives, so that its Error event can be sent."""

from __future__ import annotations

import pytest

from miglet.config.load import fallback_settings, load
from miglet.config.schema import KEYS
from miglet.config.sources import Layers, document_layer
from miglet.config.sources import overlay_layer as layer
from tests.config.needed import NEEDED


def over_needed(wrong):
    """`wrong` in the environment, over a file with all that is needed."""
    return Layers(environment=wrong, file=layer("base", NEEDED))


def test_a_broken_configuration_leaves_what_reaches_the_controller():
    wrong = layer(
        "file",
        {
            "heartbeat.timeout": "1s",
            "heartbeat.interval": "2s",
            "controller.timeout": "soon",
            "controller.auth.ca_path": "/ca",
            "logging.level": "loud",
            "logging.format": "text",
            "paths.state": "relative",
            "metrics.listen": "127.0.0.1:1",
            "nonsense": 1,
        },
    )
    settings = fallback_settings(over_needed(wrong))
    assert settings is not None
    assert settings.controller.auth.ca_path == "/ca"
    assert settings.controller.timeout == 30.0
    assert (settings.heartbeat.interval, settings.heartbeat.timeout) == (15.0, 60.0)
    assert settings.paths.state == "/var/lib/miglet"
    assert settings.logging.level == "info"
    assert settings.metrics.listen == "127.0.0.1:1"
    assert set(settings) == set(KEYS)
    load(Layers(file=layer("fallback", settings.as_dict())))


@pytest.mark.parametrize(
    "wrong",
    [
        {"pool_id": "a b"},
        {"vm_id": ""},
        {"controller.endpoint": "http://far.example"},
        {"controller.proxy": "nonsense"},
        {"controller.auth.type": "mtls"},
        {"controller.auth": "mtls"},
    ],
)
def test_nothing_is_left_without_identity_endpoint_or_credentials(wrong):
    assert fallback_settings(over_needed(layer("environment", wrong))) is None


def test_nothing_is_left_of_an_unusable_file_alone():
    assert fallback_settings(Layers(file=document_layer("f", "["))) is None
    file = document_layer("f", "[")
    assert (
        fallback_settings(Layers(environment=layer("e", NEEDED), file=file)) is not None
    )
