"""Tools to test a store of your own, by which ours are tested: contract suites, sample files, fault plans.

Needs pytest. Subclass a contract, name the class ``Test...``, and give it its fixture:

>>> import pytest
>>> from xetstore.blobs.memory import MemoryBlobStore
>>> from xetstore.testing import BlobStoreContract
>>> class TestMemoryBlobStore(BlobStoreContract):
...     @pytest.fixture
...     def blobs(self):
...         return MemoryBlobStore()
"""

from xetstore.testing.blobs import BlobStoreContract
from xetstore.testing.cas import CasContract
from xetstore.testing.clock import FakeClock
from xetstore.testing.embedded import EmbeddedCasContract
from xetstore.testing.faults import FaultPlan, FaultyBlobStore
from xetstore.testing.samples import Sample, make_sample, random_bytes, read_back, upload

__all__ = [
    "BlobStoreContract",
    "CasContract",
    "EmbeddedCasContract",
    "FakeClock",
    "FaultPlan",
    "FaultyBlobStore",
    "Sample",
    "make_sample",
    "random_bytes",
    "read_back",
    "upload",
]
