"""mmdata: raw images, audio and text to shards, cached features and an index that answers across modalities."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mmdata.retrieval.search import Index as Index
    from mmdata.retrieval.search import open_index as open_index
    from mmdata.storage.dataset import Dataset as Dataset
    from mmdata.storage.features import Features as Features

_HOMES = {
    "Dataset": "mmdata.storage.dataset",
    "Features": "mmdata.storage.features",
    "Index": "mmdata.retrieval.search",
    "open_index": "mmdata.retrieval.search",
}

__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    """The public names, each imported from its home when it is first used."""
    if name not in _HOMES:
        raise AttributeError(f"module 'mmdata' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOMES[name]), name)
