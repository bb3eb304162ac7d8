"""The settings that every configuration must have."""

from __future__ import annotations

NEEDED = {
    "pool_id": "pool-1",
    "vm_id": "vm-1",
    "org_id": "org-1",
    "controller.endpoint": "https://controller.example",
}
