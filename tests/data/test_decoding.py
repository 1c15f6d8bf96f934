"""One file to one array: every mode gives the colours that a viewer would show, or a reason."""

import contextlib
import io
import os
import struct
import sys
import warnings
import zlib
from functools import cache
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from stages.lib.core.errors import UserError
from stages.lib.data import decoding
from stages.lib.data.decoding import UnreadableError, decode


def saved(path, image, **options):
    image.save(path, **options)
    return path


def colour(path, size=None, mode="RGB"):
    """The one colour of a plain image."""
    pixels = decode(path, size, mode)
    assert pixels.dtype == np.uint8
    flat = pixels.reshape(len(pixels), -1)
    assert (flat == flat[:, :1]).all()
    return tuple(flat[:, 0].tolist())


def plain(mode, value, size=(16, 12)):
    return Image.new(mode, size, value)


def palette(index, **info):
    image = plain("P", index)
    image.putpalette([10, 20, 30, 200, 100, 50])
    image.info |= info
    return image


@pytest.mark.parametrize(
    ("ending", "image", "expected"),
    [
        ("png", plain("1", 1), (255, 255, 255)),
        ("png", plain("L", 77), (77, 77, 77)),
        ("png", plain("RGB", (1, 2, 3)), (1, 2, 3)),
        ("png", palette(1), (200, 100, 50)),
        ("gif", palette(1), (200, 100, 50)),
        ("png", palette(1, transparency=1), (255, 255, 255)),
        ("png", plain("LA", (0, 0)), (255, 255, 255)),
        ("png", plain("RGBA", (0, 0, 0, 51)), (204, 204, 204)),
        ("tif", plain("CMYK", (0, 255, 255, 0)), (255, 0, 0)),
        ("tif", plain("YCbCr", (77, 128, 128)), (77, 77, 77)),
        ("bmp", plain("RGB", (1, 2, 3)), (1, 2, 3)),
        ("tif", plain("F", 0.2), (51, 51, 51)),
    ],
)
@pytest.mark.parametrize("size", [None, 8, 20])
def test_every_mode_gives_the_colour_that_is_seen(tmp_path, ending, image, expected, size):
    path = saved(tmp_path / f"x.{ending}", image)
    assert colour(path, size) == expected


@pytest.mark.parametrize(("ending", "order"), [("png", "<"), ("tif", "<"), ("tif", ">")])
def test_16_bit_greys_are_scaled_not_clipped(tmp_path, ending, order):
    levels = np.arange(65536, dtype=order + "u2").reshape(256, 256)
    path = saved(tmp_path / f"x.{ending}", Image.fromarray(levels))
    assert np.array_equal(decode(path, None, "L")[0], np.rint(levels / 257))
    path = saved(tmp_path / f"y.{ending}", Image.fromarray(np.full_like(levels, 32896)))
    assert colour(path, 8) == (128,) * 3


def test_deep_pgm_files_are_scaled_and_floats_round_to_the_nearest(tmp_path):
    path = tmp_path / "x.pgm"
    path.write_bytes(b"P5 8 8 1023\n" + struct.pack(">64H", *[1023] * 64))
    assert colour(path, mode="L") == (255,)
    levels = np.linspace(0, 1, 256, dtype=np.float32).reshape(16, 16)
    path = saved(tmp_path / "x.tif", Image.fromarray(levels))
    assert np.array_equal(decode(path, None, "L")[0], np.arange(256).reshape(16, 16))


def tiff(path, numbers, **tags):
    """A TIFF of one channel, uncompressed, with these tags, as other programs write them."""
    numbers = np.asarray(numbers)
    height, width = numbers.shape
    bits = tags.pop("bits", numbers.dtype.itemsize * 8)
    data = numbers.astype(numbers.dtype.newbyteorder("<")).tobytes()
    if bits == 12:
        pairs = numbers.reshape(-1, 2).astype(np.uint32)
        packed = (pairs[:, 0] << 12) | pairs[:, 1]
        data = b"".join(int(value).to_bytes(3, "big") for value in packed)
    form = {"u": 1, "i": 2, "f": 3}[numbers.dtype.kind]
    entries = {
        256: width, 257: height, 258: bits, 259: 1, 262: 1, 273: 8, 277: 1, 278: height,
        279: len(data), 339: form,
    } | {int(name.lstrip("t")): value for name, value in tags.items()}  # fmt: skip
    fields = b""
    for tag, value in sorted(entries.items()):
        if value < 0:
            fields += struct.pack("<HHIi", tag, 9, 1, value)
        else:
            fields += struct.pack("<HHII", tag, 4, 1, value)
    header = struct.pack("<2sHI", b"II", 42, 8 + len(data))
    path.write_bytes(header + data + struct.pack("<H", len(entries)) + fields + bytes(4))
    return path


RAMP = np.arange(4096, dtype=np.uint16).reshape(64, 64)
SIGNED = np.arange(-32768, 32768, 16, dtype=np.int16).reshape(64, 64)
TWELVE = np.rint(RAMP / 4095 * 255)


@pytest.mark.parametrize(
    ("numbers", "tags", "expected"),
    [
        (RAMP, {}, np.rint(RAMP / 257)),
        (RAMP, {"t281": 4095}, TWELVE),
        (RAMP // 2, {"t281": 2047}, np.rint(RAMP // 2 / 2047 * 255)),
        (RAMP, {"t281": 4000 + 95}, TWELVE),
        (RAMP, {"bits": 12}, TWELVE),
        (RAMP, {"t262": 0}, 255 - np.rint(RAMP / 257)),
        (RAMP, {"t262": 0, "t281": 4095}, 255 - TWELVE),
        (SIGNED, {}, np.rint((SIGNED.astype(int) + 32768) / 257)),
        (SIGNED // 64, {"t340": -512, "t341": 511}, np.rint((SIGNED // 64 + 512.0) / 1023 * 255)),
        ((RAMP // 16).astype(np.uint8), {}, RAMP // 16),
        ((RAMP // 16).astype(np.uint8), {"t262": 0}, 255 - RAMP // 16),
        ((RAMP // 16).astype(np.int16).astype(np.int8), {}, (RAMP // 16).astype(np.uint8) ^ 128),
        (RAMP.astype(np.int32), {"t340": 0, "t341": 4095}, TWELVE),
    ],
)
def test_the_range_that_a_tiff_declares_is_used(tmp_path, numbers, tags, expected):
    found = decode(tiff(tmp_path / "x.tif", numbers, **tags), None, "L")[0]
    assert np.array_equal(found, expected)


def png(path, depth, kind, rows, key):
    """A PNG with a colour key. kind: 0 for grey, 2 for RGB; rows: packed bytes, one a row."""

    def chunk(name, content):
        body = name + content
        return struct.pack(">I", len(content)) + body + struct.pack(">I", zlib.crc32(body))

    per_pixel = depth * (3 if kind == 2 else 1)
    width = len(rows[0]) * 8 // per_pixel
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", struct.pack(">IIBBBBB", width, len(rows), depth, kind, 0, 0, 0))
        + chunk(b"tRNS", struct.pack(f">{len(key)}H", *key))
        + chunk(b"IDAT", zlib.compress(b"".join(b"\0" + row for row in rows)))
        + chunk(b"IEND", b"")
    )
    return path


@pytest.mark.parametrize("depth", [1, 2, 4, 8, 16])
@pytest.mark.parametrize("share", [0, 1])
def test_a_grey_colour_key_is_transparent_at_every_depth(tmp_path, depth, share):
    top = 2**depth - 1
    key = share * top
    values = [0, top] * 8  # half of the pixels are the key
    number = 0
    for value in values:
        number = number << depth | value
    row = number.to_bytes(2 * depth, "big")
    path = png(tmp_path / "x.png", depth, 0, [row] * 16, [key])
    expected = [255 if value == key else 255 * value // top for value in values]
    assert decode(path, None, "L")[0, 3].tolist() == expected


@pytest.mark.parametrize("depth", [8, 16])
def test_a_colour_key_is_transparent_in_rgb(tmp_path, depth):
    top = 2**depth - 1
    colours = [(0, top, 0), (top // 3, 0, top)] * 4
    row = b"".join(value.to_bytes(depth // 8, "big") for colour in colours for value in colour)
    path = png(tmp_path / "x.png", depth, 2, [row] * 8, colours[1])
    found = decode(path, None, "RGB")
    assert found[:, 2].T.tolist() == [[0, 255, 0], [255, 255, 255]] * 4


def test_of_16_bit_greys_only_the_very_level_is_transparent(tmp_path):
    row = b"".join(value.to_bytes(2, "big") for value in (1000, 1001) * 4)
    path = png(tmp_path / "x.png", 16, 0, [row] * 8, [1001])
    assert decode(path, None, "L")[0, 0].tolist() == [4, 255] * 4


def test_a_byte_changed_in_a_png_never_passes(tmp_path):
    whole = encoded("png")
    data = whole.index(b"IDAT")
    for place in np.random.default_rng(0).integers(data, len(whole) - 16, 60):
        damaged = bytearray(whole)
        damaged[place] ^= 1 << (place % 8)
        (tmp_path / "x.png").write_bytes(damaged)
        with decoding.quiet_pillow(), pytest.raises(UnreadableError):
            decode(tmp_path / "x.png", 16, "RGB")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n{} loop\n", "PostScript, which Pillow"),
        (b"\xc5\xd0\xd3\xc6" + bytes(40), "PostScript, which Pillow does not read: it"),
        (b"\0\0\0\x18ftypheic" + bytes(40), "HEIC, which Pillow does not read: pip install"),
        (b"\xff\x0a" + bytes(40), "read: pip install pillow-jxl-plugin"),
        (b"\0\0\0\x0cJXL \r\n\x87\n" + bytes(40), "JPEG XL, which Pillow does not read"),
    ],
)  # fmt: skip
def test_formats_of_other_packages_are_named_and_no_interpreter_is_started(
    tmp_path, content, words, monkeypatch
):
    monkeypatch.setattr("subprocess.Popen", None)
    (tmp_path / "x.jpg").write_bytes(content)
    with decoding.quiet_pillow(), pytest.raises(UnreadableError) as error:
        decode(tmp_path / "x.jpg", 16, "RGB")
    assert words in str(error.value)


def test_plugins_that_are_installed_are_used(monkeypatch):
    registered = []
    plugin = SimpleNamespace(register_heif_opener=lambda: registered.append("heif"))
    monkeypatch.setitem(sys.modules, "pillow_heif", plugin)
    with decoding.quiet_pillow():
        assert registered == ["heif"]


def test_jpeg_colours_survive_in_cmyk(tmp_path):
    path = saved(tmp_path / "x.jpg", plain("CMYK", (0, 255, 255, 0), (64, 64)), quality=100)
    assert np.abs(np.subtract(colour(path, 16), (255, 0, 0))).max() <= 2


UPRIGHT = np.arange(3 * 9 * 14, dtype=np.uint8).reshape(9, 14, 3)
# How a viewer turns what is stored, per value of the EXIF tag.
TURNS = {
    1: lambda a: a,
    2: np.fliplr,
    3: lambda a: np.rot90(a, 2),
    4: np.flipud,
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: np.rot90(a, 2).swapaxes(0, 1),
    8: lambda a: np.rot90(a, 1),
}


@pytest.mark.parametrize("orientation", TURNS)
@pytest.mark.parametrize("ending", ["png", "webp", "tif"])
def test_images_are_turned_upright(tmp_path, orientation, ending):
    back = {6: 8, 8: 6}.get(orientation, orientation)
    stored = Image.fromarray(np.ascontiguousarray(TURNS[back](UPRIGHT)))
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"lossless": True} if ending == "webp" else {}
    path = saved(tmp_path / f"x.{ending}", stored, exif=exif, **options)
    assert np.array_equal(decode(path, None, "RGB"), UPRIGHT.transpose(2, 0, 1))


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
def test_a_broken_exif_block_makes_no_broken_image(tmp_path):
    path = saved(
        tmp_path / "x.jpg", plain("L", 77, (16, 16)), exif=b"Exif\0\0II*\0\xff\xff\xff\xff"
    )
    assert colour(path, mode="L") == (77,)


@pytest.mark.parametrize("upright", [False, True])
def test_the_shorter_side_is_resized_and_the_centre_kept(tmp_path, upright):
    pixels = np.random.default_rng(0).integers(0, 256, (40, 120, 3), dtype=np.uint8)
    image = Image.fromarray(pixels)
    expected = image.resize((48, 16), Image.Resampling.BICUBIC).crop((16, 0, 32, 16))
    if upright:
        image, expected = (one.transpose(Image.Transpose.TRANSPOSE) for one in (image, expected))
    found = decode(saved(tmp_path / "x.png", image), 16, "RGB").astype(int)
    assert np.abs(found.transpose(1, 2, 0) - np.asarray(expected)).max() <= 1


def test_a_large_jpeg_decoded_at_a_part_of_its_size_looks_the_same(tmp_path):
    ramp = np.add.outer(np.arange(512), np.arange(768)) * 255 // 1280
    image = Image.fromarray(ramp.astype(np.uint8))
    quick = decode(saved(tmp_path / "x.jpg", image, quality=95), 32, "L").astype(int)
    whole = decode(saved(tmp_path / "x.png", image), 32, "L").astype(int)
    assert np.abs(quick - whole).max() <= 3


def test_an_image_of_the_size_asked_for_is_not_touched_and_the_first_frame_counts(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    path = saved(tmp_path / "x.png", Image.fromarray(pixels))
    assert np.array_equal(decode(path, 16, "RGB"), pixels.transpose(2, 0, 1))
    frames = [plain("L", level) for level in (40, 200)]
    path = saved(tmp_path / "x.gif", frames[0], save_all=True, append_images=frames[1:])
    assert colour(path, mode="L") == (40,)


FORMATS = ("png", "jpeg", "webp", "tiff", "bmp", "gif")


@cache
def encoded(ending):
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(noise).save(file, ending)
    return file.getvalue()


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "an empty file"),
        (b"hello", "not an image"),
        *(
            (content, "")
            for content in (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff\xe0", b"GIF89a", b"BM")
        ),
        *((encoded(ending)[:-1000], "") for ending in FORMATS),
        *((encoded(ending)[:100], "") for ending in ("png", "jpeg", "webp", "gif")),
    ],
)
@pytest.mark.parametrize("size", [None, 16])
def test_a_damaged_file_has_a_reason_and_nothing_on_stderr(tmp_path, capfd, content, reason, size):
    path = tmp_path / "x"
    path.write_bytes(content)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with decoding.quiet_pillow(), pytest.raises(UnreadableError) as error:
            decode(path, size, "RGB")
    assert reason in str(error.value)
    assert str(error.value)
    assert "\n" not in str(error.value)
    assert str(tmp_path) not in str(error.value)
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("ending", FORMATS)
def test_random_damage_gives_an_image_or_a_reason(tmp_path, ending):
    path = tmp_path / "x"
    for seed in range(40):
        generator = np.random.default_rng(seed)
        content = bytearray(encoded(ending))
        for place in generator.integers(0, len(content), 8):
            content[place] = generator.integers(0, 256)
        path.write_bytes(content)
        with decoding.quiet_pillow(), contextlib.suppress(UnreadableError):
            assert decode(path, 16, "RGB").shape == (3, 16, 16)


def test_a_huge_image_is_refused_before_it_is_decoded(tmp_path, capfd):
    def chunk(kind, content):
        body = kind + content
        return struct.pack(">I", len(content)) + body + struct.pack(">I", zlib.crc32(body))

    header = struct.pack(">IIBBBBB", 100_000, 100_000, 8, 2, 0, 0, 0)
    path = tmp_path / "x.png"
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"") * 2)
    with decoding.quiet_pillow(), pytest.raises(UnreadableError, match="10000 million pixels"):
        decode(path, 16, "RGB")
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize(
    ("image", "reason"),
    [
        *((plain("F", level), "not all within 0…1") for level in (-0.1, 1.01, np.nan, np.inf)),
        (plain("I", 70_000), "32-bit"),
        (plain("LAB", (1, 2, 3)), "mode LAB"),
    ],
)
def test_colours_of_no_known_range_are_named(tmp_path, image, reason):
    with pytest.raises(UnreadableError, match=reason):
        decode(saved(tmp_path / "x.tif", image), 8, "L")


@pytest.mark.parametrize(
    ("name", "reason"),
    [("pipe", "not a regular file"), ("broken", "a link that leads nowhere"),
     ("itself", "ymbolic link"), ("nothing", "gone")],
)  # fmt: skip
def test_things_that_are_no_files_have_a_reason(tmp_path, name, reason):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "broken").symlink_to(tmp_path / "nothing")
    (tmp_path / "itself").symlink_to(tmp_path / "itself")
    with pytest.raises(UnreadableError, match=reason):
        decode(tmp_path / name, 8, "L")


def test_an_image_too_large_to_keep_its_size_is_told_the_remedy(tmp_path):
    path = saved(tmp_path / "x.png", plain("L", 0, (1025, 8)))
    with pytest.raises(UserError, match=r"data\.image_size: auto, but .* 1025×8 pixels"):
        decode(path, None, "L")
    assert colour(path, 8, "L") == (0,)
