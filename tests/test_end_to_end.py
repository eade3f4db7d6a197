"""The whole job: from files to the right picture for a sentence."""

from mmdata import open_index
from mmdata.storage.dataset import Dataset
from mmdata.storage.receipts import read_receipts
from mmdata.types import Modality


def test_a_sentence_finds_its_own_text_first(built: Dataset) -> None:
    index = open_index(built, "minilm")
    sentence = index.rows["caption"][7].as_py()
    first = index.search(index.encode(Modality.TEXT, sentence), k=3)[0][0]
    assert first.caption == sentence
    assert first.score > 0.999


def test_a_sentence_finds_pictures_through_the_head(built: Dataset) -> None:
    index = open_index(built, "pictures.image")
    hits = index.search(index.encode(Modality.TEXT, "a red star"), k=5)[0]
    assert [hit.rank for hit in hits] == [1, 2, 3, 4, 5]
    assert all(hit.member.endswith(".png") for hit in hits)


def test_every_receipt_accounts_for_every_row(built: Dataset) -> None:
    for folder in ("shards", *(f"features/{name}" for name in built.names("features"))):
        for receipt in read_receipts(built.store, folder).values():
            assert receipt.rows_in == receipt.rows_out + sum(receipt.rejected.values())
