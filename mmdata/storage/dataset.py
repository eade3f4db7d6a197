"""The dataset: the folder or prefix that holds shards, features, heads and indexes."""

from importlib.metadata import version

from mmdata.errors import Conflict, NotFound
from mmdata.storage.sealed import seal, unseal
from mmdata.storage.store import Store

FORMAT = 1
SHARDS = "shards"


class Dataset:
    """Paths below one URL. Opening reads one small file; pickles as its URL."""

    def __init__(self, url: str) -> None:
        self.store = Store(url)
        self.url = self.store.url

    def __reduce__(self) -> tuple[type["Dataset"], tuple[str]]:
        return Dataset, (self.url,)

    @classmethod
    def create(cls, url: str) -> "Dataset":
        """The dataset at `url`, made if there is none. Raises Conflict when its format is another one."""
        dataset = cls(url)
        facts = {"format": FORMAT, "created_by": {"mmdata": version("mmdata")}}
        dataset.store.create("dataset.json", seal(facts))
        return cls.open(url)

    @classmethod
    def open(cls, url: str) -> "Dataset":
        """The dataset at `url`. Raises NotFound when there is none, Conflict when its format is another one."""
        dataset = cls(url)
        try:
            facts = unseal(dataset.store.read("dataset.json"), dataset.store.where("dataset.json"))
        except NotFound as error:
            raise NotFound(f"{url} is not a dataset; make one with: mmdata shard SOURCE {url}") from error
        if facts.get("format") != FORMAT:
            raise Conflict(f"{url} has format {facts.get('format')}, this mmdata reads format {FORMAT}")
        return dataset

    def names(self, kind: str) -> list[str]:
        """The feature sets, heads or indexes there are: `kind` is "features", "heads" or "indexes"."""
        return sorted({info.path.split("/")[1] for info in self.store.list(kind)})


def features_folder(name: str) -> str:
    return f"features/{name}"


def head_folder(name: str) -> str:
    return f"heads/{name}"


def predictions_folder(name: str) -> str:
    return f"predictions/{name}"


def index_folder(name: str) -> str:
    return f"indexes/{name}"


def stage_folders(dataset: Dataset) -> dict[str, str]:
    """What has receipts, shards first, and its folder: `shards`, FEATURES, `predictions/HEAD`."""
    features = {name: features_folder(name) for name in dataset.names("features")}
    predictions = {f"predictions/{name}": predictions_folder(name) for name in dataset.names("predictions")}
    return {"shards": SHARDS} | features | predictions
