"""The table of faults: what may come in or happen, and what must become of it. One row a fault, numbered as in the list
that the project set out with. A row is either tried here, on its own bytes, or names the tests that try it.
"""

import ast
import struct
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from media_files import (
    claiming_everything,
    cmyk,
    cmyk_without_adobe,
    frames,
    heic,
    inflating,
    mp3,
    photo,
    png16,
    png_that_says,
    png_with,
    sideways,
    stretched,
    tagged,
    tiff,
    tiff_loop,
    tone,
    track,
    with_header,
    ycck,
)
from PIL import Image
from tiny_files import RED, picture, saved, sound, written

from mmdata.cluster import Resources
from mmdata.config import ShardConfig
from mmdata.media import decode
from mmdata.stages.shard import shard
from mmdata.storage.dataset import Dataset
from mmdata.storage.receipts import read_receipts, read_rejects
from mmdata.types import Modality, Outcome, Reason, Rejected

TESTS = Path(__file__).parent
IMAGE, AUDIO, TEXT = Modality.IMAGE, Modality.AUDIO, Modality.TEXT
WAV, FLAC, MP3, OGG = sound(), written(tone(), "FLAC"), mp3(), sound("OGG", seconds=2)


@dataclass(frozen=True)
class Tried:
    """A part and what `decode` must make of it: None is ok, a Reason a reject, a tuple of one a repair."""

    row: int
    event: str
    modality: Modality
    data: bytes
    outcome: Reason | tuple[Reason, ...] | None = None
    instead: str = ""  # where the list says something else: why we do this


@dataclass(frozen=True)
class Held:
    """An event, what must become of it, and the tests that hold it."""

    row: int
    event: str
    outcome: str
    tests: tuple[str, ...]
    instead: str = ""


TRIED = [
    Tried(1, "jpeg cut at its end", IMAGE, photo()[:-40], Reason.DECODE_TRUNCATED),
    Tried(1, "png cut at its end", IMAGE, picture(size=(64, 64))[:-30], Reason.DECODE_TRUNCATED),
    Tried(
        2, "jpeg with flipped bits", IMAGE, with_header(photo((256, 256)), 2500, ">I", 0x5A5A5A5A), Reason.DECODE_FAILED
    ),
    Tried(3, "png of 30000 x 30000", IMAGE, png_that_says(30_000, 30_000), Reason.DECODE_BOMB),
    Tried(3, "png of 12000 x 12000", IMAGE, png_that_says(12_000, 12_000), Reason.DECODE_BOMB),
    Tried(4, "png with 100 MB of text", IMAGE, png_with(b"zTXt", b"a\0\0" + inflating(100)), Reason.DECODE_BOMB),
    Tried(4, "png with 100 MB of profile", IMAGE, png_with(b"iCCP", b"a\0\0" + inflating(100)), Reason.DECODE_BOMB),
    Tried(4, "tiff whose directories are a loop", IMAGE, tiff_loop(), None, "its first page is whole, and ends"),
    Tried(5, "postscript", IMAGE, b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", Reason.UNSUPPORTED),
    Tried(5, "a PDF", IMAGE, b"%PDF-1.7\n1 0 obj\n", Reason.UNSUPPORTED),
    Tried(5, "a page of HTML", IMAGE, b"<!doctype html><html><body>404</body></html>", Reason.UNSUPPORTED),
    *[Tried(6, f"orientation {n}", IMAGE, sideways(n, "JPEG", quality=95)) for n in range(1, 9)],
    Tried(7, "Adobe's CMYK", IMAGE, cmyk((0, 255, 255, 0))),
    Tried(7, "CMYK, not inverted", IMAGE, cmyk_without_adobe((0, 255, 255, 0))),
    Tried(7, "YCCK", IMAGE, ycck((0, 255, 255, 0))),
    Tried(8, "16-bit grey", IMAGE, png16(stretched((6, 8), 0, 65535, np.uint16))),
    Tried(8, "16-bit RGB", IMAGE, png16(np.full((6, 8, 3), 25_700, np.uint16))),
    Tried(8, "tiff of floats", IMAGE, tiff(np.full((6, 8, 1), 0.4, np.float32))),
    Tried(
        8, "tiff of floats beyond any scale", IMAGE, tiff(stretched((6, 8), -9, 1e6, np.float32)), (Reason.RESCALED,)
    ),
    Tried(9, "RGBA", IMAGE, saved(Image.new("RGBA", (8, 6), (0, 0, 0, 0)), "PNG")),
    Tried(9, "grey with alpha", IMAGE, saved(Image.new("LA", (8, 6), (0, 0)), "PNG")),
    Tried(9, "palette", IMAGE, saved(Image.new("RGB", (8, 6), RED).convert("P"), "PNG")),
    Tried(9, "1 bit", IMAGE, saved(Image.new("1", (8, 6), 1), "PNG")),
    Tried(10, "animated gif", IMAGE, frames("GIF", RED, (0, 0, 0)), (Reason.FIRST_FRAME,)),
    Tried(10, "animated webp", IMAGE, frames("WEBP", RED, (0, 0, 0)), (Reason.FIRST_FRAME,)),
    Tried(
        10, "tiff of two pages", IMAGE, frames("TIFF", RED, (0, 0, 0)), (Reason.FIRST_FRAME,), "counted, not only noted"
    ),
    Tried(11, "no bytes", IMAGE, b"", Reason.EMPTY),
    Tried(11, "1 x 1", IMAGE, picture(size=(1, 1))),
    Tried(
        11,
        "1 x 10000",
        IMAGE,
        picture(size=(1, 10_000)),
        Reason.DECODE_BOMB,
        "an encoder that resizes the shorter side to 224 would make 224 x 2.2 million pixels of it",
    ),
    Tried(12, "jpeg and garbage", IMAGE, picture("JPEG") + b"garbage"),
    Tried(12, "two jpegs in one file", IMAGE, picture("JPEG") + picture("JPEG")),
    Tried(13, "HEIC", IMAGE, heic(), None, "read, with the extra heif; without it unsupported, with what to install"),
    Tried(13, "AVIF", IMAGE, picture("AVIF"), None, "read: Pillow's wheel has it"),
    Tried(13, "JPEG XL", IMAGE, b"\xff\x0a\xfa\x7f" + bytes(50), Reason.UNSUPPORTED),
    Tried(14, "wav without frames", AUDIO, written(np.zeros(0)), Reason.EMPTY),
    Tried(14, "wav of one frame", AUDIO, written(np.ones(1)), (Reason.SILENT,), "padding is the encoder's business"),
    Tried(15, "cut wav", AUDIO, WAV[:-400], Reason.DECODE_TRUNCATED),
    Tried(15, "cut flac", AUDIO, FLAC[:-2000], Reason.DECODE_FAILED, "its frames have checksums: libFLAC sees damage"),
    Tried(15, "cut ogg", AUDIO, OGG[:-200], Reason.DECODE_TRUNCATED),
    Tried(15, "cut mp3", AUDIO, MP3[:-2000], Reason.DECODE_TRUNCATED),
    Tried(15, "ogg without frames", AUDIO, written(np.zeros(0), "OGG"), Reason.EMPTY),
    Tried(
        16,
        "flac that says 2^36 frames",
        AUDIO,
        claiming_everything(FLAC),
        Reason.TOO_LONG,
        "a reject, not the first 30 seconds: what the rest of the file is cannot be told",
    ),
    Tried(17, "NaN", AUDIO, written(np.full(50, np.nan), subtype="FLOAT"), Reason.NONFINITE_INPUT),
    Tried(17, "infinite", AUDIO, written(np.full(50, np.inf), subtype="FLOAT"), Reason.NONFINITE_INPUT),
    Tried(17, "1e5 times full scale", AUDIO, written(tone(0.1, 1e5), subtype="FLOAT"), (Reason.RESCALED,)),
    Tried(17, "a little over full scale", AUDIO, written(tone(0.1, 1.5), subtype="FLOAT"), None, "codecs overshoot"),
    Tried(18, "silence", AUDIO, written(np.zeros(1600)), (Reason.SILENT,)),
    Tried(18, "direct current", AUDIO, written(np.full(1600, 0.3)), (Reason.SILENT,)),
    Tried(19, "8 channels", AUDIO, written(tone(0.1, channels=8))),
    Tried(19, "1024 channels", AUDIO, written(tone(0.1, channels=1024)), None, "blocks are bounded, so are channels"),
    Tried(20, "200 kHz", AUDIO, sound(rate=200_000)),
    Tried(20, "44.1 kHz", AUDIO, sound(rate=44_100)),
    Tried(20, "1 Hz", AUDIO, with_header(WAV, 24, "<I", 1), Reason.BAD_SAMPLE_RATE),
    Tried(20, "1 MHz", AUDIO, with_header(WAV, 24, "<I", 1_000_000), Reason.BAD_SAMPLE_RATE),
    Tried(21, "mp3 that begins in the middle", AUDIO, MP3[1000:]),
    Tried(21, "mp3 with a broken tag", AUDIO, tagged(MP3, b"\x7f\x7f\x7f\x7f"), Reason.DECODE_FAILED),
    Tried(22, "mp4 with a sound track", AUDIO, track("mp4", "aac", video="mpeg4")),
    Tried(22, "mp4 without one", AUDIO, track("mp4", None, video="mpeg4"), Reason.UNSUPPORTED),
    Tried(23, "latin-1", TEXT, "großer Ball".encode("latin-1"), Reason.BAD_TEXT),
    Tried(23, "a lone surrogate", TEXT, b"\xff\xfe" + struct.pack("<2H", 0xD800, 0x61), Reason.BAD_TEXT),
    Tried(23, "utf-16 with a byte order mark", TEXT, "großer Ball".encode("utf-16")),
    Tried(23, "NULs", TEXT, b"a\0 ball\0"),
    Tried(24, "10 MB of text", TEXT, b"a word " * 1_500_000, (Reason.TOO_LONG,)),
    Tried(24, "a word of a million letters", TEXT, b"x" * 1_000_000, (Reason.TOO_LONG,)),
    Tried(24, "no bytes", TEXT, b"", Reason.EMPTY),
    Tried(24, "white space", TEXT, b" \n\t ", Reason.EMPTY),
]

HELD = [
    Held(3, "bombs of every format", "rejected in 256 MB", ("test_media::test_a_bomb_is_rejected_in_little_memory",)),
    Held(
        6,
        "EXIF orientation",
        "upright in every format",
        ("test_media_table::test_every_kind_of_image_becomes_rgb_on_white",),
    ),
    Held(
        18,
        "a vector without direction",
        "reject zero_norm",
        ("test_extract::test_a_sample_without_a_usable_vector_is_a_reject_with_its_reason",),
    ),
    Held(
        25,
        "a key that comes twice",
        "the second is a reject duplicate_key; one row a key",
        (
            "test_table::test_a_key_that_comes_twice_is_a_counted_reject",
            "test_folder::test_a_second_image_of_one_stem_is_a_counted_reject",
            "test_folder::test_keys_that_differ_in_case_or_form_are_different_samples",
        ),
        "a reject and no stop: the others are wanted. NFC and NFD are two keys: a file system may hold both",
    ),
    Held(
        26,
        "odd keys",
        "every key comes back as it was",
        (
            "test_shards::test_any_keys_survive_together",
            "test_shard_stage::test_weird_names_survive",
            "test_shard_stage::test_any_key_of_a_table_survives",
        ),
    ),
    Held(
        27,
        "a sample without one modality",
        "kept, null there, absent for that encoder; --require makes it a reject",
        (
            "test_extract::test_samples_without_the_modality_are_absent_and_not_rejected",
            "test_shard_stage::test_a_sample_without_a_required_part_is_a_reject",
            "test_fusion_data::test_features_are_joined_by_key_and_what_is_missing_is_masked",
        ),
    ),
    Held(
        28,
        "members apart, without or with odd suffixes",
        "grouped by key; counted, not dropped",
        (
            "test_webdataset_corpus::test_members_that_are_not_neighbours_are_still_one_sample",
            "test_webdataset_corpus::test_members_that_are_no_media_are_counted",
            "test_webdataset_corpus::test_suffixes_are_taken_in_any_case_and_keys_as_they_are",
        ),
    ),
    Held(
        29,
        "a tar that is damaged",
        "an error with tar, offset and count; --salvage takes the rest",
        (
            "test_tar::test_every_kind_of_damage_is_told_with_tar_and_offset",
            "test_tar::test_a_tar_cut_anywhere_is_damage",
            "test_webdataset_corpus::test_salvage_keeps_what_is_whole_and_counts_each_hole_as_a_reject",
        ),
    ),
    Held(
        30,
        "links, devices, paths and huge headers in a tar",
        "rejects, never followed; nothing is unpacked",
        (
            "test_webdataset_corpus::test_what_is_no_file_is_a_reject_and_never_followed",
            "test_tar::test_a_hostile_header_costs_no_memory_and_is_damage_with_its_offset",
            "test_safety::test_a_hostile_corpus_runs_nothing_and_reads_nothing_outside",
        ),
    ),
    Held(
        31,
        "pickles, .pth and object arrays",
        "never opened",
        (
            "test_safety::test_a_hostile_corpus_runs_nothing_and_reads_nothing_outside",
            "test_safety::test_no_line_of_ours_can_run_code_from_data",
        ),
    ),
    Held(
        32,
        "a worker is killed",
        "the same rows and receipts",
        (
            "test_crash_points::test_a_run_that_is_killed_at_a_point_is_finished_by_the_same_command",
            "test_cluster::test_a_worker_that_is_killed_is_replaced_and_nothing_is_lost_or_doubled",
        ),
    ),
    Held(
        33,
        "the driver is killed",
        "the same command finishes; nothing is done twice",
        (
            "test_crash_points::test_a_run_that_is_killed_at_any_operation_of_the_storage_is_finished_by_the_same_command",
            "test_kill::test_a_run_survives_ten_kills_at_random_moments",
        ),
    ),
    Held(
        34,
        "Ctrl-C and SIGTERM",
        "ends within seconds, says how to go on, exit 130 or 143",
        ("test_ending::test_a_run_that_is_stopped_ends_at_once_and_says_how_to_go_on",),
    ),
    Held(
        35,
        "the disk is full",
        "exit 4 with the file named; nothing half there; the same command finishes",
        ("test_full_disk::test_a_full_disk_ends_a_stage_with_four_and_the_same_command_finishes_it",),
    ),
    Held(
        36,
        "a disk that cannot be written",
        "exit 4 with the file named",
        ("test_full_disk::test_a_disk_that_cannot_be_written_ends_a_stage_with_four_and_names_the_file",),
    ),
    Held(
        37,
        "an object store that fails",
        "bounded retries; 403 and 404 at once, with bucket and key",
        (
            "test_object_store::test_every_operation_gets_over_trouble",
            "test_object_store::test_a_store_that_stays_busy_is_given_up_in_time",
            "test_object_store::test_wrong_credentials_end_a_run_at_once_with_bucket_and_key_named",
            "test_object_store::test_the_main_job_over_a_bad_network_gives_the_rows_of_a_good_one",
        ),
    ),
    Held(
        38,
        "an upload in parts that breaks off",
        "shards are sent in one piece, so there are no parts",
        ("test_object_store::test_a_shard_is_sent_in_one_piece_and_leaves_no_parts",),
        "parts exist only of an index that is written over; the bucket's own rule for unfinished uploads removes them",
    ),
    Held(
        39,
        "a source file that changes after the plan",
        "reject source_changed",
        (
            "test_folder::test_a_file_that_changes_after_the_plan_is_a_reject",
            "test_table::test_a_table_that_changes_after_the_plan_rejects_its_rows",
            "test_webdataset_corpus::test_a_tar_that_changes_after_the_plan_rejects_its_rows",
        ),
    ),
    Held(
        40,
        "the device is out of memory",
        "half the batch, remembered; one sample alone is a reject oom",
        (
            "test_extract::test_out_of_memory_halves_the_batch_and_loses_nothing",
            "test_extract::test_the_batch_size_that_fits_is_remembered",
        ),
    ),
    Held(
        41,
        "the system kills a worker for its memory",
        "bisected to the sample, a reject oom",
        (
            "test_poison::test_a_picture_that_floods_the_memory_is_a_reject_for_memory",
            "test_poison::test_where_workers_die_by_chance_no_healthy_sample_is_lost",
        ),
    ),
    Held(
        42,
        "NaN, infinite or zero vectors",
        "a reject; a whole shard of them is an error",
        (
            "test_extract::test_a_sample_without_a_usable_vector_is_a_reject_with_its_reason",
            "test_extract::test_an_encoder_that_gives_no_number_at_all_is_a_model_error",
        ),
    ),
    Held(
        43,
        "vectors of another length or number",
        "an error that names both",
        ("test_extract::test_an_encoder_that_gives_what_its_card_does_not_say_is_a_model_error",),
    ),
    Held(
        44,
        "another model under the same name",
        "refused with the differing fields",
        (
            "test_extract::test_another_encoder_under_a_name_that_is_taken_is_a_conflict",
            "test_features::test_a_file_of_another_encoder_is_never_mixed_in",
            "test_search::test_vectors_of_another_space_are_refused_with_both_cards",
        ),
    ),
    Held(
        45,
        "two runs at once",
        "one dataset, every row once",
        (
            "test_two_runs::test_two_runs_at_once_make_one_dataset",
            "test_two_runs::test_two_runs_at_once_on_one_cluster_make_one_dataset",
            "test_index_living::test_of_two_runs_at_once_the_second_is_told",
        ),
    ),
    Held(
        46,
        "a clock that is wrong",
        "no decision looks at it",
        ("test_safety::test_no_decision_looks_at_the_clock",),
        "gc compares ages, and takes them from the store's own clock",
    ),
    Held(
        47,
        "the same folder with other options",
        "refused with the differing fields",
        (
            "test_shard_stage::test_another_option_is_a_conflict_with_both_sides_named",
            "test_extract::test_other_options_are_a_conflict_that_names_them",
        ),
    ),
    Held(
        48,
        "an index older than its features",
        "brought up to date by the same command; says when a rebuild is due",
        (
            "test_index_living::test_what_is_added_later_is_found_as_if_it_had_been_there",
            "test_index_living::test_beyond_a_bound_the_label_says_that_a_rebuild_is_due",
        ),
    ),
    Held(
        49,
        "a damaged index, table or shard",
        "an error before it is used; verify finds any flipped byte",
        (
            "test_index::test_a_damaged_file_is_damage_that_names_it",
            "test_verify::test_a_flipped_byte_anywhere_in_any_kind_of_file_is_found",
        ),
    ),
    Held(
        50,
        "k = 0, k > n, NaN queries, filters that nothing passes",
        "an error, or fewer hits; never an id of -1",
        (
            "test_search::test_k_below_one_is_refused",
            "test_index::test_k_above_the_number_of_rows_gives_every_row_once",
            "test_search::test_a_query_that_cannot_be_answered_says_why",
            "test_index::test_a_filter_that_nothing_passes_gives_no_hits",
        ),
    ),
    Held(
        51,
        "a decoder or an encoder that hangs or crashes",
        "bisected to the sample, a reject timeout or crash",
        (
            "test_poison::test_pictures_that_crash_or_hang_their_decoder_are_rejects_of_the_shard_stage",
            "test_poison::test_texts_that_crash_or_hang_an_encoder_are_rejects_of_the_extract_stage",
            "test_poison::test_a_shard_over_its_time_is_tried_sample_by_sample",
        ),
    ),
    Held(
        52,
        "a package or an extra that is not there",
        "the line that installs it",
        (
            "test_user_encoder::test_a_package_that_is_missing_is_named_with_what_installs_it",
            "test_doctor::test_an_extra_that_is_not_installed_names_the_line_that_brings_it",
        ),
    ),
]


def known_tests() -> set[str]:
    """`file::function` of every test there is."""
    return {
        f"{path.stem}::{node.name}"
        for path in TESTS.glob("test_*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")
    }


def outcome(modality: Modality, data: bytes) -> Reason | tuple[Reason, ...] | None:
    try:
        return decode(modality, data).repairs or None
    except Rejected as problem:
        return problem.reason


@pytest.mark.parametrize("fault", TRIED, ids=lambda fault: f"{fault.row}: {fault.event}")
def test_every_bad_part_has_the_outcome_of_the_table(fault):
    assert outcome(fault.modality, fault.data) == fault.outcome


def test_no_row_of_the_table_is_left_out():
    assert sorted({fault.row for fault in [*TRIED, *HELD]}) == list(range(1, 53))


def test_every_test_that_the_table_names_exists():
    named = {name for fault in HELD for name in fault.tests}
    assert named - known_tests() == set()


def test_a_corpus_of_every_fault_is_sharded_and_every_row_accounted_for(tmp_path):
    """Each part alone in a sample: what the table rejects is a reject with the same reason, everything else is kept."""
    suffixes = {IMAGE: "png", AUDIO: "wav", TEXT: "txt"}
    (tmp_path / "corpus").mkdir()
    for number, fault in enumerate(TRIED):
        (tmp_path / "corpus" / f"{number:03d}.{suffixes[fault.modality]}").write_bytes(fault.data)
    url = str(tmp_path / "dataset")
    shard(ShardConfig(dataset=url, source=str(tmp_path / "corpus"), max_reject_rate=1.0), Resources(workers=0))
    store = Dataset.open(url).store
    bad = {
        int(reject.key): reject.reason for reject in read_rejects(store, "shards") if reject.outcome == Outcome.REJECTED
    }
    assert bad == {n: fault.outcome for n, fault in enumerate(TRIED) if isinstance(fault.outcome, Reason)}
    (receipt,) = read_receipts(store, "shards").values()
    assert receipt.rows_in == receipt.rows_out + sum(receipt.rejected.values()) == len(TRIED)
