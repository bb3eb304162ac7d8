"""The metadata services of three clouds, as real HTTP servers on loopback.

They behave as documented: statuses, headers, etags and waiting at Google, tokens and
their lives at Amazon, versions at Microsoft; and they misbehave on request. What
they serve may change while they run; what they were asked is in `asked`.
"""

from __future__ import annotations

from tests.metadata_fakes.aws import FakeAws
from tests.metadata_fakes.azure import FakeAzure
from tests.metadata_fakes.gce import FakeGce
from tests.metadata_fakes.serving import Asked, Fake, Reply

FAKES: dict[str, type[Fake]] = {"gce": FakeGce, "aws": FakeAws, "azure": FakeAzure}

__all__ = ["FAKES", "Asked", "Fake", "FakeAws", "FakeAzure", "FakeGce", "Reply"]
