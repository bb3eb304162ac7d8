"""`miglet config`: each value, its source and what it overrode, secrets masked."""

from __future__ import annotations

import json

from miglet.config.load import explain, explanation, load, origins_of
from miglet.config.schema import KEYS
from miglet.config.sources import Layers, command_line_layer
from miglet.config.sources import overlay_layer as layer
from tests.config.needed import NEEDED


def explained():
    proxy = {"controller.proxy": "http://me:hunter2@proxy.example:3128"}
    return load(
        Layers(
            command_line=command_line_layer(["heartbeat.interval=1500ms"]),
            metadata=layer("metadata", proxy),
            file=layer("file", {**NEEDED, **proxy, "heartbeat.interval": "20"}),
        )
    )


def test_every_value_is_explained_with_secrets_masked():
    rows = {row["key"]: row for row in explanation(explained())}
    assert [*rows] == [*KEYS]
    assert rows["heartbeat.interval"] == {
        "key": "heartbeat.interval",
        "value": "1s500ms",
        "source": "command line --set heartbeat.interval",
        "overrode": [
            {"source": "file", "value": "20s"},
            {"source": "default", "value": "15s"},
        ],
    }
    proxy = "http://***@proxy.example:3128"
    assert rows["controller.proxy"]["value"] == proxy
    assert rows["controller.proxy"]["overrode"] == [{"source": "file", "value": proxy}]
    assert "hunter2" not in json.dumps(rows)
    assert rows["features.perflog"]["value"] is True
    assert rows["github.labels"]["value"] == ["self-hosted", "linux", "x64"]
    assert rows["github.org"]["value"] is None


def test_the_table_has_a_line_for_every_key():
    lines = explain(explained()).splitlines()
    assert [line.split()[0] for line in lines] == ["KEY", *KEYS]
    (line,) = [line for line in lines if line.startswith("heartbeat.interval")]
    assert "1s500ms" in line
    assert line.endswith("20s (file); 15s (default)")
    assert "hunter2" not in "".join(lines)


def test_origins_come_back_from_the_rows():
    loaded = explained()
    rows = json.loads(json.dumps(explanation(loaded)))
    assert origins_of(rows) == loaded.origins
