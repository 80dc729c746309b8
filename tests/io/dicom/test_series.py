"""DICOM series with answers worked by hand: the LPS position (-10, -20, 5) is (10, 20, 5) in RAS, and so on."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk  # noqa: N813
from numpy.testing import assert_allclose, assert_array_equal
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.uid import EnhancedMRImageStorage, MRImageStorage, SecondaryCaptureImageStorage

from vertebral.core.errors import GeometryError, ReadError, VertebralError
from vertebral.core.volume import Volume
from vertebral.io.ct.read import read_scan

TURN_DEG = 20.0


def setting(**values: Any) -> Callable[[int, Dataset], None]:
    """An edit that sets attributes in every slice."""

    def edit(_: int, ds: Dataset) -> None:
        for keyword, value in values.items():
            setattr(ds, keyword, value)

    return edit


def in_slice(number: int, **values: Any) -> Callable[[int, Dataset], None]:
    """An edit that sets attributes in one slice."""
    return lambda n, ds: setting(**values)(n, ds) if n == number else None


def without(*keywords: str) -> Callable[[int, Dataset], None]:
    """An edit that removes attributes from every slice."""

    def edit(_: int, ds: Dataset) -> None:
        for keyword in keywords:
            delattr(ds, keyword)

    return edit


def refused(path: Path, words: str, kind: type[VertebralError] = ReadError, **options: Any) -> str:
    """Check that reading raises one line that names the path and matches `words`; return it."""
    with pytest.raises(kind, match=words) as caught:
        read_scan(path, **options)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert "\n" not in message
    return message


def test_axial_series_by_hand(series, tiny_ct):
    scan = read_scan(series.write())
    assert scan.volume.array.dtype == np.int16
    assert_array_equal(scan.volume.array, tiny_ct.array)
    assert_allclose(scan.volume.affine, tiny_ct.affine, atol=1e-9)
    assert scan.volume.grid.axcodes == "LPS"
    assert scan.notes == ()
    assert scan.stem == "scan"


def test_metadata_is_technical_only(series):
    scan = read_scan(series.write())
    assert scan.metadata == {
        "format": "DICOM",
        "modality": "CT",
        "slices": 10,
        "manufacturer": "ACME",
        "model": "",
        "kernel": "B60f 2",
        "kvp": 120.0,
        "slice_thickness_mm": 2.0,
    }


def test_feet_first_order_gives_the_same_volume(series, tiny_ct):
    """Written from the top downwards, against the normal of the slices."""
    series.hu = tiny_ct.array[:, :, ::-1]
    series.origin, series.step = np.array([-10.0, -20, 23]), np.array([0.0, 0, -2])
    scan = read_scan(series.write())
    assert_array_equal(scan.volume.array, tiny_ct.array)
    assert_allclose(scan.volume.affine, tiny_ct.affine, atol=1e-9)


def test_prone_patient(series, tiny_ct):
    """Columns grow to the right and rows to the front, so the normal still points up."""
    series.axes = np.array([[-1.0, 0, 0], [0, -1.0, 0]])
    scan = read_scan(series.write())
    assert scan.volume.grid.axcodes == "RAS"
    assert_array_equal(scan.volume.array, tiny_ct.array)
    assert_allclose(scan.volume.grid.to_world(np.array([1, 0, 0])), [10.8, 20, 5])


def test_sagittal_slices(series):
    """Columns grow to the back, rows downwards; their normal points to the right, while the files run leftwards."""
    series.axes, series.step = np.array([[0, 1.0, 0], [0, 0, -1.0]]), np.array([2.0, 0, 0])
    scan = read_scan(series.write())
    assert scan.volume.grid.axcodes == "PIR"
    assert_array_equal(scan.volume.array, series.hu[:, :, ::-1])
    assert_allclose(scan.volume.grid.to_world(np.array([0, 0, 9])), [10, 20, 5])


def test_oblique_slices(series):
    """Turned by 20 degrees about the left-right axis; every voxel stays where its slice says."""
    turn = np.deg2rad(TURN_DEG)
    down = np.array([0, np.cos(turn), np.sin(turn)])
    series.axes = np.array([[1.0, 0, 0], down])
    series.step = 2 * np.cross(series.axes[0], series.axes[1])
    scan = read_scan(series.write())
    assert_array_equal(scan.volume.array, series.hu)
    expected_lps = series.origin + 3 * 0.8 * series.axes[0] + 4 * 0.9 * down + 5 * series.step
    assert_allclose(scan.volume.grid.to_world(np.array([3, 4, 5])), expected_lps * (-1, -1, 1), atol=1e-6)


def test_gantry_tilt_is_refused_with_its_angle(series):
    turn = np.deg2rad(10.0)
    series.axes = np.array([[1.0, 0, 0], [0, np.cos(turn), np.sin(turn)]])
    refused(series.write(), r"10\.0 degrees .* resample", GeometryError)


def test_a_third_of_a_degree_is_no_tilt(series, tiny_ct):
    turn = np.deg2rad(0.3)
    series.axes = np.array([[1.0, 0, 0], [0, np.cos(turn), np.sin(turn)]])
    assert_array_equal(read_scan(series.write()).volume.array, tiny_ct.array)


@pytest.mark.parametrize(
    ("numbers", "words"),
    [
        ([0, 1, 2, 4, 5, 6, 7], r"1 slice\(s\) missing at 11\.00 mm"),
        ([0, 1, 2, 3, 6, 7], r"2 slice\(s\) missing at 13\.00, 15\.00 mm"),
        ([0, 1, 3], r"1 slice\(s\) missing at 9\.00 mm"),
        ([4], "single slice"),
    ],
)
def test_missing_slices_are_named(series, numbers, words):
    refused(series.write(numbers=numbers), words)


def test_uneven_slices_are_refused(series):
    series.place = lambda n, item: setattr(item, "ImagePositionPatient", [-10, -20, 5 + 2 * n + (0.4 if n == 6 else 0)])
    refused(series.write(), r"from 1\.600 to 2\.400 mm: slice 1\.2\.3\.4_93 is 0\.35 mm off", GeometryError)


def test_rounded_positions_are_kept_with_a_note(series, tiny_ct):
    """A spacing of 0.625 mm whose positions were rounded to 0.1 mm."""
    series.place = lambda n, item: setattr(item, "ImagePositionPatient", [-10, -20, round(n * 0.625, 1)])
    scan = read_scan(series.write())
    assert_array_equal(scan.volume.array, tiny_ct.array)
    assert scan.volume.spacing_mm[2] == pytest.approx(51.75 / 82.5)
    assert "from 0.600 to 0.700 mm were treated as 0.627 mm" in scan.notes[0]


def test_duplicate_position_is_refused(series):
    folder = series.write()
    (folder / "copy").write_bytes((folder / "1.2.3.4_97").read_bytes())
    message = refused(folder, r"1 slice position\(s\) occur twice \(first .* at 9\.00 mm\)")
    assert "copy" in message
    assert "1.2.3.4_97" in message


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        (in_slice(3, Rows=5), r"differ in size \(8 x 9 and 8 x 5 pixels\)"),
        (in_slice(3, PixelSpacing=[0.9, 0.7]), r"differ in pixel spacing \(\(0\.8, 0\.9\) and \(0\.7, 0\.9\) mm\)"),
        (in_slice(3, ImageOrientationPatient=[1, 0, 0, 0, 0, 1]), "differ in orientation"),
        (in_slice(3, ImageOrientationPatient=[1, 0, 0, 1, 0, 0]), "not two perpendicular directions"),
        (in_slice(3, ImagePositionPatient=[1, 2]), r"1\.2\.3\.4_96 has ImagePositionPatient .*, not 3 finite"),
        (setting(PixelSpacing=[0, 0.8]), r"PixelSpacing 0, 0\.8 mm"),
        (without("RescaleIntercept"), "has no RescaleIntercept"),
        (without("RescaleSlope", "RescaleIntercept"), "has no RescaleSlope"),
        (without("PixelSpacing"), "has no PixelSpacing"),
        (setting(RescaleType="Z_EFF"), "values of type Z_EFF, not HU"),
        (setting(SamplesPerPixel=3), "3 samples per pixel"),
        (setting(NumberOfFrames=4), "several frames without functional groups"),
        (in_slice(3, PixelData=b"\0" * 20), r"slice 1\.2\.3\.4_96 is truncated or damaged"),
        (without("PixelData"), "is truncated or damaged"),
    ],
)
def test_what_a_slice_can_lack(series, edit, words):
    refused(series.write(edit), words)


def test_each_slice_has_its_own_rescale(series, tiny_ct):
    """Odd slices hold HU + 2000, even ones HU + 1024."""

    def edit(n: int, ds: Dataset) -> None:
        if n % 2:
            ds.RescaleIntercept = -2000
            ds.PixelData = (tiny_ct.array[:, :, n].T.astype(np.int32) + 2000).astype(np.uint16).tobytes()

    assert_array_equal(read_scan(series.write(edit)).volume.array, tiny_ct.array)


def test_fractional_slope_gives_float32(series):
    scan = read_scan(series.write(setting(RescaleSlope=1.25)))
    assert scan.volume.array.dtype == np.float32
    assert_array_equal(scan.volume.array, (series.hu.astype(np.float64) + 1024) * 1.25 - 1024)


@pytest.mark.parametrize(
    ("stored", "attributes"),
    [
        (-2000, {"PixelPaddingValue": -2000}),
        (-2000, {"PixelPaddingValue": -3000, "PixelPaddingRangeLimit": -1500}),
        (1900, {"PixelPaddingValue": 1900}),
    ],
)
def test_padding_becomes_air(series, tiny_ct, stored, attributes):
    def edit(n: int, ds: Dataset) -> None:
        plane = tiny_ct.array[:, :, n].T.astype(np.int16) + np.int16(1024)
        plane[0, 0] = stored
        ds.PixelRepresentation, ds.PixelData = 1, plane.astype(np.int16).tobytes()
        setting(**attributes)(n, ds)

    scan = read_scan(series.write(edit))
    expected = tiny_ct.array.copy()
    expected[0, 0, :] = -1024
    assert_array_equal(scan.volume.array, expected)
    assert scan.notes == ("1.4 % of the voxels (10) were below -1024 HU and were set to -1024",)


def test_padding_value_stored_as_unsigned(series, tiny_ct):
    """63536 is -2000 as 16 bits."""

    def edit(n: int, ds: Dataset) -> None:
        plane = tiny_ct.array[:, :, n].T + np.int16(1024)
        plane[0, 0] = -2000
        ds.PixelRepresentation, ds.PixelData = 1, plane.tobytes()
        ds.add_new("PixelPaddingValue", "US", 63536)

    assert (read_scan(series.write(edit)).volume.array[0, 0] == -1024).all()


def test_two_series_need_a_choice(series, tiny_ct):
    series.write()
    series.uid = "1.2.3.9"
    series.hu = tiny_ct.array[:, :, :6] + np.int16(1)
    folder = series.write()
    message = refused(folder, "2 CT series: choose one with --series UID")
    assert "1.2.3.4 (10 slices, 2 mm thick, pixels 0.9 x 0.8 mm, kernel B60f 2)" in message
    assert "1.2.3.9 (6 slices" in message
    assert "Jane" not in message
    assert_array_equal(read_scan(folder, series="1.2.3.4").volume.array, tiny_ct.array)
    assert read_scan(folder, series="1.2.3.9").volume.array.shape == (8, 9, 6)
    refused(folder, r"--series 1\.2\.3 matches 2 series", series="1.2.3")
    refused(folder, r"--series 9 matches no series", series="9")
    assert read_scan(folder / "1.2.3.9_99").volume.array.shape == (8, 9, 6)


def test_the_start_of_a_uid_is_enough_and_a_whole_one_wins(series):
    series.write()
    series.uid, series.hu = "1.2.3.45", series.hu[:, :, :4]
    folder = series.write()
    assert read_scan(folder, series="1.2.3.4").volume.array.shape[2] == 10
    assert read_scan(folder, series="1.2.3.45").volume.array.shape[2] == 4


def test_nested_files_of_any_name_and_other_objects_are_sorted_out(series, tiny_ct):
    folder = series.write()
    (folder / "1.2.3.4_95").rename(folder / "slice.dcm")
    (folder / "deep").mkdir()
    (folder / "1.2.3.4_94").rename(folder / "deep" / "IM")
    (folder / "notes.txt").write_text("hello")
    (folder / "empty").touch()
    others = series.folder.parent / "others"
    series.folder, series.uid = others, "7.7"
    series.write(setting(ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"]), [0])
    series.write(setting(Modality="SR", SOPClassUID="1.2.840.10008.5.1.4.1.1.88.11"), [1])
    series.write(setting(Modality="MR", SOPClassUID=MRImageStorage), [2])
    series.write(setting(SOPClassUID=SecondaryCaptureImageStorage), [3])
    message = refused(others, "no CT series: found ")
    assert "1 x CT Secondary Capture Image Storage, 1 x CT scout, 1 x MR, 1 x SR" in message
    others.rename(folder / "others")
    assert_array_equal(read_scan(folder).volume.array, tiny_ct.array)


def test_only_mr(series):
    folder = series.write(setting(Modality="MR", SOPClassUID=EnhancedMRImageStorage))
    refused(folder, "no CT series: found 10 x MR; give the folder of a CT")


def test_folders_without_dicom(tmp_path):
    refused(tmp_path, "the folder is empty")
    (tmp_path / "a.txt").write_text("no image at all")
    refused(tmp_path, "none of the 1 files is DICOM")


def test_a_file_without_preamble_is_read(series, tiny_ct):
    folder = series.write()
    for file in folder.iterdir():
        ds = pydicom.dcmread(file)
        del ds.file_meta
        ds.save_as(file, implicit_vr=True, little_endian=True)
    assert_array_equal(read_scan(folder).volume.array, tiny_ct.array)


def test_a_damaged_file_is_named(series):
    folder = series.write()
    (folder / "broken").write_bytes(b"\0" * 128 + b"DICM" + b"\x02\x00\x10\x00UI\xff\xff")
    refused(folder, "the DICOM file broken is damaged")


def test_a_file_that_only_begins_like_dicom_is_no_image(series, tiny_ct):
    folder = series.write()
    (folder / "other").write_bytes(b"\x08\x00\x05\x00CS\xff\xff" + bytes(range(256)) * 3)
    assert_array_equal(read_scan(folder).volume.array, tiny_ct.array)


def test_no_series_uid_and_no_sop_class(series, tiny_ct):
    """An anonymiser emptied them, as in the real series of shared/data."""
    folder = series.write(setting(SOPClassUID="", SeriesInstanceUID=""))
    assert_array_equal(read_scan(folder).volume.array, tiny_ct.array)
    assert_array_equal(read_scan(folder / "1.2.3.4_99").volume.array, tiny_ct.array)


def test_enhanced_multi_frame(series, tiny_ct):
    scan = read_scan(series.write_enhanced())
    assert_array_equal(scan.volume.array, tiny_ct.array)
    assert_allclose(scan.volume.affine, tiny_ct.affine, atol=1e-9)
    assert scan.metadata["slices"] == 10
    assert scan.metadata["slice_thickness_mm"] == 2.0


def test_enhanced_scout_is_no_ct(series):
    folder = series.write_enhanced()
    ds = pydicom.dcmread(folder / "enhanced.dcm")
    ds.ImageType = ["ORIGINAL", "PRIMARY", "LOCALIZER", "NONE"]
    ds.save_as(folder / "enhanced.dcm")
    refused(folder, "found 1 x CT scout")


def compress(plane: np.ndarray, folder: Path, compressor: str) -> Dataset:
    """Let GDCM compress one plane (rows, columns) of stored values without loss."""
    writer = sitk.ImageFileWriter()
    writer.SetImageIO("GDCMImageIO")
    writer.SetFileName(str(folder / "compressed.dcm"))
    writer.UseCompressionOn()
    writer.SetCompressor(compressor)
    writer.Execute(sitk.GetImageFromArray(plane[None]))
    return pydicom.dcmread(folder / "compressed.dcm")


@pytest.mark.parametrize("compressor", ["JPEG", "JPEG2000"])
def test_compressed_slices(series, tiny_ct, tmp_path, compressor):
    """JPEG lossless has no decoder in pydicom alone: GDCM takes over, and padding is still known."""

    def edit(n: int, ds: Dataset) -> None:
        plane = (tiny_ct.array[:, :, n].T.astype(np.int32) + 1024).astype(np.uint16)
        plane[0, 0] = 4000
        packed = compress(plane, tmp_path, compressor)
        ds.file_meta.TransferSyntaxUID = packed.file_meta.TransferSyntaxUID
        ds.PixelData, ds["PixelData"].VR = packed.PixelData, "OB"
        ds["PixelData"].is_undefined_length = True
        ds.PixelPaddingValue = 4000

    expected = tiny_ct.array.copy()
    expected[0, 0, :] = -1024
    assert_array_equal(read_scan(series.write(edit)).volume.array, expected)


def test_compression_that_nothing_here_decodes(series):
    def edit(_: int, ds: Dataset) -> None:
        ds.file_meta.TransferSyntaxUID = pydicom.uid.HTJ2KLossless
        ds.PixelData = encapsulate([b"\1\2\3\4"])
        ds["PixelData"].is_undefined_length = True

    message = refused(series.write(edit), r"cannot be decoded \(High-Throughput JPEG 2000")
    assert "install a decoder" in message


def test_enhanced_compression_without_decoder(series):
    folder = series.write_enhanced()
    ds = pydicom.dcmread(folder / "enhanced.dcm")
    ds.file_meta.TransferSyntaxUID = pydicom.uid.JPEGLSLossless
    ds.PixelData = encapsulate([b"\1\2\3\4"] * 10)
    ds["PixelData"].is_undefined_length = True
    ds.save_as(folder / "enhanced.dcm")
    refused(folder, "frame 1 is compressed .* no decoder is installed")


@pytest.mark.parametrize("name", ["Doe Jane 2026", "case_4711987"])
def test_patient_in_the_folder_name_stays_out_of_the_stem(series, name):
    series.folder = series.folder.parent / name
    scan = read_scan(series.write())
    assert re.fullmatch("ct_[0-9a-f]{8}", scan.stem)
    assert scan.stem in scan.notes[0]


def test_stem_of_a_folder(series):
    series.folder = series.folder.parent / "Case 12 (ü)_ct"
    assert read_scan(series.write()).stem == "Case_12_"
    series.folder = series.folder.parent / "ID4711987"
    assert read_scan(series.write(setting(PatientIdentityRemoved="YES"))).stem == "ID4711987"


def test_hash_depends_on_the_slices_only(series, tmp_path):
    """Neither on the names of the files nor on what lies beside them."""
    folder = series.write()
    first = read_scan(folder).sha256
    for n, file in enumerate(sorted(folder.iterdir())):
        file.rename(folder / f"x{n}")
    (folder / "README").write_text("more")
    assert read_scan(folder).sha256 == first
    assert len(first) == 64


def test_real_series(shared_data):
    """JPEG 2000, 20 slices, 2 mm apart; an anonymiser emptied its SOP class and UIDs."""
    folder = shared_data / "real" / "dicom" / "ts_example_20slices"
    volume: Volume = read_scan(folder).volume
    assert volume.array.shape == (512, 512, 20)
    assert volume.array.dtype == np.int16
    assert volume.array.min() == -1024
    assert_allclose(volume.spacing_mm, (0.9765625, 0.9765625, 2.0))
    assert_allclose(volume.affine[:3, 3], (249.51171875, 437.51171875, -804.5))
    assert volume.grid.axcodes == "LPS"
