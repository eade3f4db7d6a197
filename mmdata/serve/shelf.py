"""The indexes of a dataset, kept open; a newer generation takes the place of the old one."""

from collections.abc import Iterator, Mapping

from mmdata.errors import NotFound
from mmdata.retrieval.generation import index_names
from mmdata.retrieval.search import Index
from mmdata.storage.dataset import Dataset, index_folder


class Shelf:
    """Every index there is. A request that holds an older generation goes on with it."""

    def __init__(self, dataset: Dataset) -> None:
        self.dataset = dataset
        self._versions: dict[str, str] = {}
        self._indexes: Mapping[str, Index] = {}
        self.refresh()

    def refresh(self) -> None:
        """Open what is new or has changed, and let go of what is gone."""
        found, versions = {}, {}
        for name in index_names(self.dataset):
            info = self.dataset.store.info(f"{index_folder(name)}/index.json")
            if info is None:
                continue
            versions[name] = info.version
            same = self._versions.get(name) == info.version
            found[name] = self._indexes[name] if same else Index(self.dataset, name)
        self._indexes, self._versions = found, versions

    def __iter__(self) -> Iterator[Index]:
        return iter(self._indexes.values())

    def __getitem__(self, name: str) -> Index:
        if name not in self._indexes:
            raise NotFound(f"there is no index {name!r}; there are: {', '.join(self._indexes) or 'none'}")
        return self._indexes[name]
