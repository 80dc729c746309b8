"""A tiny CT that passes for one, and a DICOM series of it."""

from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.uid import CTImageStorage, EnhancedCTImageStorage, ExplicitVRLittleEndian, generate_uid

from vertebral.core.volume import Volume

LPS_TO_RAS = np.diag((-1.0, -1.0, 1.0, 1.0))
Edit = Callable[[int, Dataset], None]


@pytest.fixture
def shared_data() -> Path:
    """The data beside the checkout."""
    folder = Path(__file__).parents[3] / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"no {folder}")
    return folder


@pytest.fixture
def tiny_ct() -> Volume:
    """int16 HU, 8 x 9 x 10 voxels, axes L, P, S: air, tissue and bone with noise, and no two voxels in symmetry."""
    rng = np.random.default_rng(7)
    hu = rng.integers(-1000, -900, (8, 9, 10))
    hu[1:7, 1:8, :] = rng.integers(-120, 120, (6, 7, 10))
    hu[3:5, 3:6, 2:9] = rng.integers(300, 800, (2, 3, 7))
    affine = np.array([[-0.8, 0, 0, 10], [0, -0.9, 0, 20], [0, 0, 2, 5], [0, 0, 0, 1]], float)
    return Volume(hu.astype(np.int16), affine)


class SeriesWriter:
    """Writes `hu` (columns, rows, slices) on an LPS grid as DICOM files that hold HU + 1024."""

    def __init__(self, folder: Path, hu: NDArray[np.int16]) -> None:
        self.folder, self.hu = folder, hu
        self.axes = np.array([[1.0, 0, 0], [0, 1.0, 0]])
        self.columns_mm, self.rows_mm = 0.8, 0.9
        self.origin, self.step = np.array([-10.0, -20.0, 5.0]), np.array([0.0, 0, 2.0])
        self.uid = "1.2.3.4"

    def place(self, n: int, item: Dataset) -> None:
        item.ImagePositionPatient = [round(float(x), 9) for x in self.origin + n * self.step]

    def measures(self, item: Dataset) -> None:
        item.PixelSpacing = [self.rows_mm, self.columns_mm]
        item.SliceThickness = 2

    def header(self, sop_class: str = CTImageStorage) -> Dataset:
        ds = Dataset()
        ds.file_meta = FileMetaDataset()
        ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        ds.SOPClassUID, ds.SOPInstanceUID = sop_class, generate_uid()
        ds.Modality, ds.ImageType = "CT", ["ORIGINAL", "PRIMARY", "AXIAL"]
        ds.SeriesInstanceUID, ds.StudyInstanceUID = self.uid, "1.2"
        ds.PatientName, ds.PatientID, ds.PatientBirthDate = "Doe^Jane", "4711987", "19700101"
        ds.SeriesDescription, ds.Manufacturer = "Jane Doe spine", "ACME"
        ds.ConvolutionKernel, ds.KVP = ["B60f", "2"], 120
        ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
        ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 16, 16, 15, 0
        ds.Columns, ds.Rows = self.hu.shape[:2]
        return ds

    def write(self, edit: Edit | None = None, numbers: Iterable[int] | None = None) -> Path:
        """One file a slice; their names run against the stack. `edit` changes a header before it is written."""
        self.folder.mkdir(parents=True, exist_ok=True)
        for n in range(self.hu.shape[2]) if numbers is None else numbers:
            ds = self.header()
            ds.ImageOrientationPatient = [round(float(x), 12) for x in self.axes.ravel()]
            self.place(n, ds)
            self.measures(ds)
            ds.RescaleSlope, ds.RescaleIntercept, ds.RescaleType = 1, -1024, "HU"
            ds.PixelData = (self.hu[:, :, n].T.astype(np.int32) + 1024).astype(np.uint16).tobytes()
            if edit:
                edit(n, ds)
            ds.save_as(self.folder / f"{self.uid}_{99 - n}", enforce_file_format=bool(ds.SOPClassUID))
        return self.folder

    def write_enhanced(self) -> Path:
        """The whole series as one multi-frame file."""
        self.folder.mkdir(parents=True, exist_ok=True)
        ds = self.header(EnhancedCTImageStorage)
        shared, orientation, measures, rescale = Dataset(), Dataset(), Dataset(), Dataset()
        orientation.ImageOrientationPatient = list(self.axes.ravel())
        self.measures(measures)
        rescale.RescaleSlope, rescale.RescaleIntercept, rescale.RescaleType = 1, -1024, "HU"
        shared.PlaneOrientationSequence = Sequence([orientation])
        shared.PixelMeasuresSequence = Sequence([measures])
        shared.PixelValueTransformationSequence = Sequence([rescale])
        frames = []
        for n in range(self.hu.shape[2]):
            frame, position = Dataset(), Dataset()
            self.place(n, position)
            frame.PlanePositionSequence = Sequence([position])
            frames.append(frame)
        ds.NumberOfFrames = len(frames)
        ds.SharedFunctionalGroupsSequence = Sequence([shared])
        ds.PerFrameFunctionalGroupsSequence = Sequence(frames)
        ds.PixelData = (self.hu.transpose(2, 1, 0).astype(np.int32) + 1024).astype(np.uint16).tobytes()
        ds.save_as(self.folder / "enhanced.dcm", enforce_file_format=True)
        return self.folder


@pytest.fixture
def series(tmp_path: Path, tiny_ct: Volume) -> SeriesWriter:
    """A writer of `tiny_ct` into the folder `scan`; it can be bent before it writes."""
    return SeriesWriter(tmp_path / "scan", tiny_ct.array)
