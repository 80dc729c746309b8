"""Formats, orientations, refusals: every error is one line that begins with the path."""

import gzip
import hashlib
import itertools
import logging
import shutil
import zipfile
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
from numpy.testing import assert_allclose, assert_array_equal

from vertebral.core.errors import GeometryError, ReadError, VertebralError
from vertebral.core.volume import Volume
from vertebral.io.ct import archive, nifti, read
from vertebral.io.ct.read import read_labels, read_scan

AXCODES = ["".join(c) for order in itertools.permutations(("LR", "PA", "IS")) for c in itertools.product(*order)]
TIDY = np.diag((-0.8, -0.9, 2.0, 1.0))


def refused(path: Path, words: str, kind: type[VertebralError] = ReadError, **options: Any) -> str:
    """Check that reading raises one line that names the path and matches `words`; return it."""
    with pytest.raises(kind, match=words) as caught:
        read_scan(path, **options)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert "\n" not in message
    return message


def save_nifti(path: Path, array: np.ndarray, affine: np.ndarray | None = TIDY, **header: Any) -> Path:
    """Write a NIfTI file and then set fields of its header behind nibabel's back."""
    image = nib.Nifti1Image(array, affine)
    image.to_filename(path)
    if header:
        fields = nib.Nifti1Header(path.read_bytes()[:348], check=False)
        for name, value in header.items():
            fields[name] = value
        path.write_bytes(fields.binaryblock + path.read_bytes()[348:])
    return path


def save_itk(path: Path, volume: Volume, compress: bool = False) -> Path:
    """Write `volume` (axes L, P, S) through SimpleITK, whose frame is LPS."""
    image = sitk.GetImageFromArray(volume.array.T)
    lps = np.diag((-1.0, -1, 1, 1)) @ volume.affine
    spacing = np.asarray(volume.spacing_mm)
    image.SetSpacing(spacing.tolist())
    image.SetOrigin(lps[:3, 3].tolist())
    image.SetDirection((lps[:3, :3] / spacing).ravel().tolist())
    sitk.WriteImage(image, str(path), compress)
    return path


def oblique(volume: Volume) -> Volume:
    """The same voxels, turned by 25 degrees about an askew axis."""
    axis = np.array([1.0, 2.0, 3.0]) / np.sqrt(14.0)
    cross = np.array([[0, -axis[2], axis[1]], [axis[2], 0, -axis[0]], [-axis[1], axis[0], 0]])
    turn = np.eye(4)
    turn[:3, :3] += np.sin(np.deg2rad(25)) * cross + (1 - np.cos(np.deg2rad(25))) * cross @ cross
    return Volume(volume.array, turn @ volume.affine)


def check_same(scan_volume: Volume, expected: Volume) -> None:
    """Check that both are one image in RAS, and int16."""
    assert scan_volume.array.dtype == np.int16
    assert_array_equal(scan_volume.to_ras().array, expected.to_ras().array)
    assert_allclose(scan_volume.to_ras().affine, expected.to_ras().affine, atol=1e-4)


# --- formats ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("axcodes", AXCODES)
def test_all_48_orientations(tmp_path, tiny_ct, axcodes):
    turned = tiny_ct.reoriented(axcodes)
    nib.Nifti1Image(turned.array, turned.affine).to_filename(tmp_path / "a.nii")
    scan = read_scan(tmp_path / "a.nii")
    assert scan.volume.grid.axcodes == axcodes
    check_same(scan.volume, tiny_ct)


@pytest.mark.parametrize("turn", [lambda volume: volume, oblique])
def test_all_formats_agree(tmp_path, tiny_ct, series, turn):
    ct = turn(tiny_ct)
    for suffix in (".nii", ".nii.gz"):
        nib.Nifti1Image(ct.array, ct.affine).to_filename(tmp_path / f"a{suffix}")
    nib.Nifti2Image(ct.array, ct.affine).to_filename(tmp_path / "two.nii.gz")
    for suffix in (".nrrd", ".nhdr", ".mha", ".mhd"):
        save_itk(tmp_path / f"a{suffix}", ct)
    save_itk(tmp_path / "packed.nrrd", ct, compress=True)
    save_itk(tmp_path / "packed.mha", ct, compress=True)
    lps = np.diag((-1.0, -1, 1, 1)) @ ct.affine
    series.axes = (lps[:3, :2] / (0.8, 0.9)).T
    series.origin, series.step = lps[:3, 3], lps[:3, 2]
    series.write()
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as packed:
        for file in series.folder.iterdir():
            packed.write(file, f"study/series/{file.name}")
        packed.writestr("__MACOSX/._slice", b"x")
    paths = [path for path in sorted(tmp_path.iterdir()) if path.suffix not in (".raw", ".zraw")]
    assert len(paths) == 11
    for path in paths:
        check_same(read_scan(path).volume, ct)


def test_metadata_and_notes_of_the_formats(tmp_path, tiny_ct):
    nifti = save_nifti(tmp_path / "a.nii.gz", tiny_ct.array, tiny_ct.affine)
    assert read_scan(nifti).metadata == {
        "format": "NIfTI",
        "stored_type": "int16",
        "qform_code": 0,
        "sform_code": 2,
    }
    nrrd = read_scan(save_itk(tmp_path / "a.nrrd", tiny_ct))
    assert nrrd.metadata == {"format": "Nrrd", "stored_type": "16-bit signed integer"}
    assert nrrd.notes == ()


@pytest.mark.parametrize(
    ("name", "stem"),
    [
        ("sub-verse004_ct.nii.gz", "sub-verse004"),
        ("my scan.NII", "my scan"),
        ("a_ct_b.v2_ct.nrrd", "a_ct_b.v2"),
        ("_ct.mha", "ct"),
        ("ct.nii", "ct"),
    ],
)
def test_stem(tmp_path, tiny_ct, name, stem):
    path = tmp_path / name
    if path.suffix in (".nrrd", ".mha"):
        save_itk(path, tiny_ct)
    else:
        save_nifti(tmp_path / name.lower(), tiny_ct.array).rename(path)
    assert read_scan(path).stem == stem


def test_sha256_is_over_the_bytes(tmp_path, tiny_ct):
    path = save_nifti(tmp_path / "a.nii.gz", tiny_ct.array)
    assert read_scan(path).sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    head = save_itk(tmp_path / "b.mhd", tiny_ct)
    both = head.read_bytes() + (tmp_path / "b.raw").read_bytes()
    assert read_scan(head).sha256 == hashlib.sha256(both).hexdigest()


def test_scan_keeps_the_path(tmp_path, tiny_ct):
    path = save_nifti(tmp_path / "a.nii", tiny_ct.array)
    assert read_scan(str(path)).path == path  # type: ignore[arg-type]  # a string is forgiven


# --- NIfTI: values ---------------------------------------------------------------------------------------------------


def test_rescale_of_the_header(tmp_path, tiny_ct):
    """Stored (HU + 1024) / 2 with slope 2 and intercept -1024: whole HU again."""
    even = tiny_ct.array // 2 * 2
    stored = ((even.astype(np.int32) + 1024) // 2).astype(np.uint16)
    path = save_nifti(tmp_path / "a.nii", stored, scl_slope=2, scl_inter=-1024)
    scan = read_scan(path)
    assert scan.volume.array.dtype == np.int16
    assert_array_equal(scan.volume.array, even)


def test_fractional_rescale_gives_float32(tmp_path, tiny_ct):
    path = save_nifti(tmp_path / "a.nii", tiny_ct.array, scl_slope=0.5, scl_inter=0.25)
    scan = read_scan(path)
    assert scan.volume.array.dtype == np.float32
    assert_array_equal(scan.volume.array, tiny_ct.array.astype(np.float32) / 2 + 0.25)


@pytest.mark.parametrize("dtype", [">i2", "<f4", ">f8", "<i4", "<i8"])
def test_stored_types_and_byte_orders(tmp_path, tiny_ct, dtype):
    header = nib.Nifti1Header(endianness=dtype[0])
    header.set_data_dtype(np.dtype(dtype))
    nib.Nifti1Image(tiny_ct.array.astype(dtype), tiny_ct.affine, header).to_filename(tmp_path / "a.nii.gz")
    check_same(read_scan(tmp_path / "a.nii.gz").volume, tiny_ct)


def test_trailing_axis_of_length_one(tmp_path, tiny_ct):
    path = save_nifti(tmp_path / "a.nii", tiny_ct.array[..., None, None], tiny_ct.affine)
    check_same(read_scan(path).volume, tiny_ct)


def test_padding_is_set_to_air(tmp_path, tiny_ct):
    array = tiny_ct.array.copy()
    array[0] = -2048
    scan = read_scan(save_nifti(tmp_path / "a.nii", array))
    assert (scan.volume.array[0] == -1024).all()
    assert "(90) were below -1024 HU" in scan.notes[0]


# --- NIfTI: geometry -------------------------------------------------------------------------------------------------


def test_qform_alone(tmp_path, tiny_ct):
    image = nib.Nifti1Image(tiny_ct.array, None)
    image.set_qform(tiny_ct.affine, code=1)
    image.set_sform(None, code=0)
    image.to_filename(tmp_path / "a.nii")
    scan = read_scan(tmp_path / "a.nii")
    check_same(scan.volume, tiny_ct)
    assert scan.notes == ()


def test_agreeing_forms_need_no_note(tmp_path, tiny_ct):
    image = nib.Nifti1Image(tiny_ct.array, oblique(tiny_ct).affine)
    image.set_qform(image.affine, code=1)
    image.to_filename(tmp_path / "a.nii")
    assert read_scan(tmp_path / "a.nii").notes == ()


def test_disagreeing_forms_take_the_sform(tmp_path, tiny_ct):
    """A shift by 3 mm to the right and 4 mm forwards is 5 mm."""
    image = nib.Nifti1Image(tiny_ct.array, tiny_ct.affine)
    shifted = tiny_ct.affine.copy()
    shifted[:2, 3] += (3, 4)
    image.set_qform(shifted, code=1)
    image.to_filename(tmp_path / "a.nii")
    scan = read_scan(tmp_path / "a.nii")
    check_same(scan.volume, tiny_ct)
    assert scan.notes == ("qform and sform disagree by up to 5.0 mm and 0.0 degrees; the sform was used",)


def test_turned_forms_name_the_angle(tmp_path, tiny_ct):
    image = nib.Nifti1Image(tiny_ct.array, tiny_ct.affine)
    image.set_qform(oblique(tiny_ct).affine, code=1)
    image.to_filename(tmp_path / "a.nii")
    assert "degrees; the sform was used" in read_scan(tmp_path / "a.nii").notes[0]


def test_unusable_qform_beside_a_sform(tmp_path, tiny_ct):
    path = save_nifti(tmp_path / "a.nii", tiny_ct.array, tiny_ct.affine, qform_code=1, quatern_b=3, quatern_c=3)
    assert read_scan(path).notes == ("the qform is invalid; the sform was used",)


def test_neither_form(tmp_path, tiny_ct):
    scan = read_scan(save_nifti(tmp_path / "a.nii", tiny_ct.array, qform_code=0, sform_code=0))
    assert_allclose(scan.volume.spacing_mm, (0.8, 0.9, 2.0))
    assert "only its spacing was used" in scan.notes[0]


def test_a_missing_qfac_is_mended_in_silence(tmp_path, tiny_ct, caplog, capfd):
    path = save_nifti(
        tmp_path / "a.nii", tiny_ct.array, sform_code=0, qform_code=1, pixdim=[0, 0.8, 0.9, 2, 0, 0, 0, 0]
    )
    with caplog.at_level(logging.DEBUG):
        assert_allclose(read_scan(path).volume.spacing_mm, (0.8, 0.9, 2.0), rtol=1e-6)
    assert caplog.records == []
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("bad", [0.0, -1.0, np.nan, np.inf])
@pytest.mark.parametrize("code", [0, 1])
def test_spacing_of_the_header(tmp_path, tiny_ct, bad, code):
    pixdim = [1, 0.8, bad, 2, 0, 0, 0, 0]
    path = save_nifti(tmp_path / "a.nii", tiny_ct.array, sform_code=0, qform_code=code, pixdim=pixdim)
    refused(path, r"spacing \[0\.8.*, (0\.0|-1\.0|nan|inf), 2\.0\] mm: every axis needs", GeometryError)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"srow_x": [0, 0, 0, 0]}, "every axis needs a spacing above zero"),
        ({"srow_x": [np.nan, 0, 0, 0]}, "the affine must be 4x4 and finite"),
        ({"srow_x": [-0.8, 0, 0.5, 0]}, "not at right angles"),
        ({"srow_x": [-0.0008, 0, 0, 0]}, r"spacing 0\.0008 x 0\.9 x 2 mm is outside the range of a patient CT"),
        ({"srow_x": [-80, 0, 0, 0]}, r"spacing 80 x 0\.9 x 2 mm"),
        ({"xyzt_units": 1}, "unit of length in the header is the metre"),
        ({"xyzt_units": 3}, "unit of length in the header is the micrometre"),
        ({"sform_code": 0, "qform_code": 1, "quatern_b": 3, "quatern_c": 3}, "orientation in the header is invalid"),
    ],
)
def test_affine_of_the_header(tmp_path, tiny_ct, fields, words):
    refused(save_nifti(tmp_path / "a.nii", tiny_ct.array, **fields), words, GeometryError)


# --- refusals --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("shape", "words"),
    [
        ((8, 9), r"shape \(8, 9\) is a single slice"),
        ((8, 9, 1), r"shape \(8, 9, 1\) is a single slice"),
        ((8, 9, 1, 1), r"single slice"),
        ((8, 9, 10, 2), r"shape \(8, 9, 10, 2\) has 4 axes: give one 3D volume"),
        ((8, 9, 10, 1, 3), r"has 5 axes"),
    ],
)
def test_number_of_axes(tmp_path, shape, words):
    refused(save_nifti(tmp_path / "a.nii", np.zeros(shape, np.int16)), words)


@pytest.mark.parametrize("dim", [[3, 8, 0, 10, 1, 1, 1, 1], [3, 8, -9, 10, 1, 1, 1, 1], [0] * 8])
def test_no_voxels(tmp_path, tiny_ct, dim):
    refused(save_nifti(tmp_path / "a.nii", tiny_ct.array, dim=dim), "no voxels|damaged")


@pytest.mark.parametrize("kind", [np.complex64, [("R", "u1"), ("G", "u1"), ("B", "u1")]])
def test_colours_and_complex_values(tmp_path, kind):
    message = refused(save_nifti(tmp_path / "a.nii", np.zeros((4, 5, 6), kind)), "one real number per voxel")
    assert ("RGB" in message) is isinstance(kind, list)


def test_not_finite(tmp_path, tiny_ct):
    array = tiny_ct.array.astype(np.float32)
    array[0, 0, :3] = np.nan
    refused(save_nifti(tmp_path / "a.nii.gz", array), "3 of 720 voxels are NaN or infinite")


def test_missing_intercept(tmp_path, tiny_ct):
    refused(
        save_nifti(tmp_path / "a.nii", (tiny_ct.array + 1024).astype(np.uint16)), "rescale intercept .* not applied"
    )


def test_paths_that_are_no_scan(tmp_path):
    refused(tmp_path / "none.nii.gz", "no such file or folder: check the path")
    (tmp_path / "empty.nii.gz").touch()
    refused(tmp_path / "empty.nii.gz", "the file is empty")
    (tmp_path / "photo.png").write_bytes(b"\x89PNG" + b"\0" * 400)
    refused(tmp_path / "photo.png", "not a supported image: give NIfTI")
    (tmp_path / "text.nii").write_text("hello " * 100)
    refused(tmp_path / "text.nii", "not a NIfTI file")
    (tmp_path / "text.nrrd").write_text("hello " * 100)
    refused(tmp_path / "text.nrrd", "not a valid NRRD or MetaImage file")
    (tmp_path / "text.mha").write_text("hello " * 100)
    refused(tmp_path / "text.mha", "not a valid NRRD or MetaImage file")


def test_analyze_and_pairs(tmp_path, tiny_ct):
    nib.Nifti1Pair(tiny_ct.array, tiny_ct.affine).to_filename(tmp_path / "a.hdr")
    (tmp_path / "a.hdr").rename(tmp_path / "a.nii")
    refused(tmp_path / "a.nii", "a header without voxel data")


def test_truncated_and_damaged_files(tmp_path, tiny_ct, monkeypatch):
    monkeypatch.setattr(nifti, "_MOST_TRAILING_BYTES", 999)
    plain = save_nifti(tmp_path / "plain.nii", tiny_ct.array).read_bytes()
    packed = gzip.compress(plain)
    flipped = bytearray(gzip.compress(plain, 0))
    flipped[-40] ^= 1  # no compression: one wrong bit in a voxel, which only the checksum can tell
    for name, content, words in [
        ("cut.nii", plain[:-10], "truncated or damaged"),
        ("head.nii", plain[:200], "truncated or damaged"),
        ("cut.nii.gz", packed[:-20], "truncated or damaged"),
        ("head.nii.gz", packed[:60], "truncated or damaged"),
        ("flipped.nii.gz", bytes(flipped), "CRC check failed"),
        ("plain.nii.gz", plain, "not gzip-compressed as its name implies"),
        ("long.nii.gz", gzip.compress(plain + b"\0" * 1000), "longer than its header says"),
        ("offset.nii", plain[:108] + np.float32(20).tobytes() + plain[112:], "truncated or damaged"),
        ("type.nii", plain[:70] + np.int16(77).tobytes() + plain[72:], "truncated or damaged"),
    ]:
        (tmp_path / name).write_bytes(content)
        refused(tmp_path / name, words)


def test_truncated_itk_files(tmp_path, tiny_ct):
    for name, compress in (("a.nrrd", False), ("b.nrrd", True), ("a.mha", False), ("b.mha", True)):
        path = save_itk(tmp_path / name, tiny_ct, compress)
        path.write_bytes(path.read_bytes()[:-50])
        refused(path, "truncated or damaged")


def test_detached_data(tmp_path, tiny_ct):
    for name in ("a.nhdr", "a.mhd"):
        path = save_itk(tmp_path / name, tiny_ct)
        (tmp_path / "a.raw").unlink()
        refused(path, "data file 'a.raw' is missing")
        path.write_bytes(path.read_bytes().replace(b"a.raw", b"").replace(b"data file:", b"").replace(b"Element", b""))
        refused(path, "names no data file")


def test_listed_data_files(tmp_path, tiny_ct):
    head = save_itk(tmp_path / "a.mhd", tiny_ct)
    raw = (tmp_path / "a.raw").read_bytes()
    names = [f"s{n}.raw" for n in range(10)]
    for n, name in enumerate(names):
        (tmp_path / name).write_bytes(raw[144 * n : 144 * (n + 1)])
    head.write_bytes(head.read_bytes().replace(b"a.raw", b"LIST\n" + "\n".join(names).encode()))
    scan = read_scan(head)
    check_same(scan.volume, tiny_ct)
    assert scan.sha256 == hashlib.sha256(head.read_bytes() + raw).hexdigest()


def test_itk_geometry_and_kinds(tmp_path, tiny_ct):
    zero = save_itk(tmp_path / "zero.mha", tiny_ct)
    zero.write_bytes(zero.read_bytes().replace(b"ElementSpacing = 0.8", b"ElementSpacing = 0.0"))
    refused(zero, "every axis needs a spacing above zero", GeometryError)
    skew = save_itk(tmp_path / "skew.nrrd", tiny_ct)
    skew.write_bytes(skew.read_bytes().replace(b"(0,0,2)", b"(0,1,2)"))
    refused(skew, "not at right angles", GeometryError)
    image = sitk.GetImageFromArray(np.zeros((4, 5, 6, 3), np.uint8), isVector=True)
    sitk.WriteImage(image, str(tmp_path / "rgb.mha"))
    refused(tmp_path / "rgb.mha", "vector of 8-bit unsigned integer: a CT has one real number per voxel")
    sitk.WriteImage(sitk.Image([6, 5], sitk.sitkInt16), str(tmp_path / "flat.nrrd"))
    refused(tmp_path / "flat.nrrd", r"shape \(6, 5\) is a single slice")
    sitk.WriteImage(sitk.Image([6, 5, 4, 2], sitk.sitkInt16), str(tmp_path / "time.nrrd"))
    refused(tmp_path / "time.nrrd", "has 4 axes")
    none = save_itk(tmp_path / "none.mha", tiny_ct)
    none.write_bytes(none.read_bytes().replace(b"DimSize = 8", b"DimSize = 0"))
    refused(none, "no voxels")


def test_nrrd_without_orientation_has_a_note(tmp_path, tiny_ct):
    path = save_itk(tmp_path / "a.nrrd", tiny_ct)
    head, voxels = path.read_bytes().split(b"\n\n", 1)
    lines = [line for line in head.split(b"\n") if not line.startswith(b"space")]
    path.write_bytes(b"\n".join([*lines, b"spacings: 0.8 0.9 2"]) + b"\n\n" + voxels)
    scan = read_scan(path)
    assert_allclose(scan.volume.spacing_mm, (0.8, 0.9, 2.0))
    assert "has no orientation" in scan.notes[0]


def test_series_is_for_dicom_only(tmp_path, tiny_ct):
    refused(save_nifti(tmp_path / "a.nii", tiny_ct.array), "--series 1.2 applies only to DICOM", series="1.2")


def test_folder_of_images(tmp_path, tiny_ct):
    save_nifti(tmp_path / "a.nii", tiny_ct.array)
    assert read_scan(tmp_path).volume.array.shape == (8, 9, 10)
    save_nifti(tmp_path / "b.nii", tiny_ct.array)
    refused(tmp_path, r"no DICOM, but 2 images \(a\.nii, b\.nii\): give one of these files")


def test_no_permission(tmp_path, tiny_ct, monkeypatch):
    path = save_nifti(tmp_path / "a.nii", tiny_ct.array)

    def denied(_: Path) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(read, "open_nifti", denied)
    refused(path, "no permission to read")


# --- memory ----------------------------------------------------------------------------------------------------------


def test_memory_is_asked_for_before_the_values_are_read(tmp_path, tiny_ct):
    """2000^3 voxels of which the file holds none: 96 GB at 12 bytes each."""
    path = save_nifti(tmp_path / "a.nii", tiny_ct.array, dim=[3, 2000, 2000, 2000, 1, 1, 1, 1])
    refused(path, r"2000 x 2000 x 2000 voxels need about 96 GB of memory, but only 16 GB are allowed", max_memory_gb=16)


def test_memory_of_the_machine(tmp_path, tiny_ct, monkeypatch):
    path = save_nifti(tmp_path / "a.nii", tiny_ct.array)
    monkeypatch.setattr(read, "free_memory_gb", lambda: 1e-6)
    refused(path, r"need about 8\.6e-06 GB of memory, but only 1e-06 GB are free")
    monkeypatch.setattr(read, "free_memory_gb", lambda: None)
    check_same(read_scan(path).volume, Volume(tiny_ct.array, TIDY))


def test_free_memory(tmp_path):
    assert 0.01 < (read.free_memory_gb() or 0) < 1e5
    (tmp_path / "meminfo").write_text("MemTotal: 16 kB\nMemAvailable:       8 kB\n")
    assert read._meminfo_available(tmp_path / "meminfo") == 8192
    assert read._meminfo_available(tmp_path / "none") is None
    for name, text in (
        ("memory.max", "1000"),
        ("memory.current", "700"),
        ("memory.stat", "anon 5\ninactive_file 200\n"),
    ):
        (tmp_path / name).write_text(text)
    assert read._cgroup_available(tmp_path) == 500
    (tmp_path / "memory.max").write_text("max\n")
    assert read._cgroup_available(tmp_path) is None


# --- zip -------------------------------------------------------------------------------------------------------------


def zipped(path: Path, members: dict[str, bytes]) -> Path:
    """Write a zip file with these members."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as packed:
        for name, content in members.items():
            packed.writestr(name, content)
    return path


@pytest.mark.parametrize("suffix", [".nii.gz", ".nrrd", ".mha"])
def test_zip_of_one_image(tmp_path, tiny_ct, suffix):
    inner = tmp_path / f"inner{suffix}"
    if suffix == ".nii.gz":
        save_nifti(inner, tiny_ct.array, tiny_ct.affine)
    else:
        save_itk(inner, tiny_ct)
    path = zipped(tmp_path / "case7_ct.zip", {f"folder/{inner.name}": inner.read_bytes(), "README.txt": b"hello"})
    scan = read_scan(path)
    check_same(scan.volume, tiny_ct)
    assert scan.stem == "case7"
    assert scan.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


def test_zip_refusals(tmp_path, tiny_ct):
    image = save_nifti(tmp_path / "a.nii", tiny_ct.array).read_bytes()
    refused(zipped(tmp_path / "two.zip", {"a.nii": image, "b/b.nii": image}), r"2 images \(a\.nii, b/b\.nii\)")
    refused(zipped(tmp_path / "none.zip", {"a.txt": b"hello"}), "none of the 1 files is DICOM")
    refused(zipped(tmp_path / "empty.zip", {}), "folder is empty")
    (tmp_path / "text.zip").write_text("hello")
    refused(tmp_path / "text.zip", "damaged, or not a zip file")
    cut = zipped(tmp_path / "cut.zip", {"a.nii": image}).read_bytes()
    (tmp_path / "cut.zip").write_bytes(cut[:100] + b"\xff" * 20 + cut[120:])
    refused(tmp_path / "cut.zip", "damaged|cannot be unpacked")


@pytest.mark.parametrize("name", ["../evil.nii", "a/../../evil.nii", "/evil.nii", "..\\evil.nii", "C:/evil.nii"])
def test_zip_with_a_name_that_leads_out(tmp_path, tiny_ct, name):
    image = save_nifti(tmp_path / "a.nii", tiny_ct.array).read_bytes()
    (tmp_path / "in").mkdir()
    refused(zipped(tmp_path / "in" / "a.zip", {"a.nii": image, name: image}), "points outside its folder: do not trust")
    assert not list(tmp_path.rglob("*evil*"))


def test_zip_with_a_link_or_a_password(tmp_path):
    link = zipfile.ZipInfo("link.nii")
    link.external_attr = 0o120777 << 16
    with zipfile.ZipFile(tmp_path / "link.zip", "w") as packed:
        packed.writestr(link, "/etc/passwd")
    refused(tmp_path / "link.zip", "contains a link")
    content = bytearray(zipped(tmp_path / "locked.zip", {"a.nii": b"x"}).read_bytes())
    content[content.index(b"PK\x01\x02") + 8] |= 1
    (tmp_path / "locked.zip").write_bytes(content)
    refused(tmp_path / "locked.zip", "encrypted")


def test_zip_bombs(tmp_path, monkeypatch):
    path = zipped(tmp_path / "a.zip", {"a.nii": b"\0" * 5000, "b.nii": b"\0" * 5000})
    monkeypatch.setattr(archive, "_MOST_BYTES", 9000)
    refused(path, r"unpacks to 0\.0 GB, above the limit")
    monkeypatch.setattr(archive, "_MOST_BYTES", 1 << 40)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10**9, 10**9 - 10_000, 10_000))
    refused(path, "above the limit")
    monkeypatch.setattr(archive, "_MOST_FILES", 1)
    refused(path, "contains 2 files, more than 1")


def test_nothing_is_left_of_a_zip(tmp_path, tiny_ct, monkeypatch):
    image = save_nifti(tmp_path / "a.nii", tiny_ct.array).read_bytes()
    (tmp_path / "scratch").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "scratch"))
    read_scan(zipped(tmp_path / "a.zip", {"a.nii": image}))
    refused(zipped(tmp_path / "b.zip", {"a.nii": image[:-5]}), "truncated")
    assert list((tmp_path / "scratch").iterdir()) == []


# --- labels ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("stored", "dtype"), [(np.uint8, np.uint8), (np.int16, np.uint8), (np.float64, np.uint8), (np.int32, np.uint16)]
)
def test_labels(tmp_path, tiny_ct, stored, dtype):
    array = np.zeros((4, 5, 6), stored)
    array[1, 2, 3] = 28 if dtype is np.uint8 else 300
    labels = read_labels(save_nifti(tmp_path / "a.nii.gz", array, tiny_ct.affine))
    assert labels.array.dtype == dtype
    assert_array_equal(labels.array, array)
    assert_allclose(labels.affine, tiny_ct.affine, atol=1e-6)


def test_labels_in_nrrd(tmp_path, tiny_ct):
    array = (tiny_ct.array > 200).astype(np.uint8)
    labels = read_labels(save_itk(tmp_path / "a.seg.nrrd", Volume(array, tiny_ct.affine)))
    assert_array_equal(labels.array, array)


@pytest.mark.parametrize(
    ("array", "words"),
    [
        (np.full((4, 5, 6), -1, np.int16), "values from -1 to -1"),
        (np.full((4, 5, 6), 0.5, np.float32), "some values are not whole numbers"),
        (np.zeros((4, 5, 6, 2), np.uint8), "has 4 axes"),
    ],
)
def test_what_is_no_label_map(tmp_path, array, words):
    with pytest.raises(ReadError, match=words) as caught:
        read_labels(save_nifti(tmp_path / "a.nii", array))
    assert str(caught.value).startswith(str(tmp_path / "a.nii"))


def test_labels_of_another_format(tmp_path):
    (tmp_path / "a.dcm").write_bytes(b"\0" * 128 + b"DICM")
    with pytest.raises(ReadError, match=r"label maps are read from \.nii\.gz"):
        read_labels(tmp_path / "a.dcm")
    with pytest.raises(ReadError, match="no such file"):
        read_labels(tmp_path / "none.nii.gz")


# --- real data -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["labelled/tptbox_label22", "labelled/ts_s0328_boneonly", "unlabelled/TotalSegmentator-s0521-crop"]
)
def test_real_crops_are_ct(shared_data, name):
    scan = read_scan(shared_data / "real" / f"{name}_ct.nii.gz")
    assert scan.volume.array.dtype == np.int16
    assert scan.stem == name.split("/")[1]


def test_real_labels_are_no_ct(shared_data):
    path = shared_data / "real" / "labelled" / "ts_aorta_cropped_T12only_seg-vert_msk.nii.gz"
    refused(path, r"a label map, not a CT \(1 distinct values up to 19")
    assert set(np.unique(read_labels(path).array)) == {0, 19}
