"""A reference controller, asked with a credential or without."""

from __future__ import annotations

import requests


def status(endpoint: str, authorization: str | None = None, **options) -> int:
    headers = {"Authorization": authorization} if authorization else {}
    url = f"{endpoint}/api/v1/vms"
    return requests.get(url, headers=headers, timeout=10, **options).status_code
