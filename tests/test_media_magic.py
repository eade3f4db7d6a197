"""What kind of file some bytes are, when no name tells."""

import pytest
from media_files import heic, mp3, track
from tiny_files import picture, sound

from mmdata.corpora.files import suffix_of
from mmdata.media import decode
from mmdata.types import SUFFIXES, Modality, Reason, Rejected

IMAGE, AUDIO = Modality.IMAGE, Modality.AUDIO
KINDS = {
    "jpg": picture("JPEG"),
    "png": picture("PNG"),
    "gif": picture("GIF"),
    "webp": picture("WEBP"),
    "bmp": picture("BMP"),
    "tif": picture("TIFF"),
    "avif": picture("AVIF"),
    "heic": heic(),
    "wav": sound(),
    "flac": sound("FLAC"),
    "ogg": sound("OGG"),
    "mp3": mp3(1.0),
    "m4a": track("ipod", "aac"),
    "aac": track("adts", "aac"),
    "mp4": track("mp4", "aac", video="mpeg4"),
    "mov": track("mov", "aac"),
    "mkv": track("webm", "libopus"),  # WebM is Matroska
}


@pytest.mark.parametrize(("suffix", "data"), KINDS.items())
def test_the_first_bytes_of_every_kind_tell_its_suffix_and_it_can_be_decoded(suffix, data):
    modality = SUFFIXES[suffix]
    assert suffix_of(modality, None, data) == suffix
    assert suffix_of(modality, f"cat.{suffix.upper()}", b"") == suffix
    assert decode(modality, data).value is not None


@pytest.mark.parametrize(("modality", "suffix"), [(IMAGE, "mp4"), (AUDIO, "heic"), (AUDIO, "avif")])
def test_a_video_is_no_picture_and_a_picture_no_sound(modality, suffix):
    with pytest.raises(Rejected) as caught:
        decode(modality, KINDS[suffix])
    assert caught.value.reason is Reason.UNSUPPORTED
