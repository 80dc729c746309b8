"""Small DICOM series that results can refer to, in any pose, with labels that no mirror image can pass for."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, EnhancedCTImageStorage, ExplicitVRLittleEndian, generate_uid

from vertebral.core.volume import Volume

PATIENT = "Müller^Änne"
SHAPE = (12, 11, 9)  # columns, rows, slices
COS, SIN = np.cos(np.deg2rad(25.0)), np.sin(np.deg2rad(25.0))
Edit = Callable[[int, Dataset], None]


@dataclass(frozen=True)
class Pose:
    """LPS+ mm: the directions of columns and rows, the first slice's position, the step from slice to slice."""

    column: tuple[float, float, float] = (1.0, 0.0, 0.0)
    row: tuple[float, float, float] = (0.0, 1.0, 0.0)
    origin: tuple[float, float, float] = (-31.0, 12.0, -407.5)
    step: tuple[float, float, float] = (0.0, 0.0, 2.5)
    pixel_mm: tuple[float, float] = (0.8, 0.9)  # between columns, between rows


POSES = {
    "axial": Pose(),
    "feet first": Pose(step=(0.0, 0.0, -2.5)),
    "prone": Pose(column=(-1.0, 0.0, 0.0), row=(0.0, -1.0, 0.0)),
    "sagittal": Pose(column=(0.0, 1.0, 0.0), row=(0.0, 0.0, -1.0), step=(3.0, 0.0, 0.0)),
    "coronal, from the back": Pose(column=(1.0, 0.0, 0.0), row=(0.0, 0.0, -1.0), step=(0.0, -3.0, 0.0)),
    "oblique": Pose(column=(COS, 0.0, -SIN), row=(0.0, 1.0, 0.0), step=(2.5 * SIN, 0.0, 2.5 * COS)),
    "oblique, downwards": Pose(
        column=(COS, SIN, 0.0), row=(-SIN * COS, COS * COS, SIN), step=(-2 * SIN * SIN, 2 * SIN * COS, -2 * COS)
    ),
}


@dataclass
class Series:
    """A CT to write, of noise or of `values`; `study`, `series` and `frame` are its UIDs."""

    pose: Pose = field(default_factory=Pose)
    shape: tuple[int, int, int] = SHAPE
    values: NDArray[np.int16] | None = None
    study: str = field(default_factory=generate_uid)
    series: str = field(default_factory=generate_uid)
    frame: str = field(default_factory=generate_uid)

    @property
    def hu(self) -> NDArray[np.int16]:
        """Values that pass for a CT: air, tissue, some bone; (columns, rows, slices)."""
        if self.values is not None:
            return self.values
        rng = np.random.default_rng(3)
        hu = rng.integers(-1000, -900, self.shape)
        inner = tuple(slice(1, n - 1) for n in self.shape)
        hu[inner] = rng.integers(-120, 120, hu[inner].shape)
        core = tuple(slice(n // 3, n // 2 + 1) for n in self.shape)
        hu[core] = rng.integers(300, 800, hu[core].shape)
        return hu.astype(np.int16)

    def write(self, folder: Path, edit: Edit | None = None) -> Path:
        """One file a slice; neither names nor instance numbers are in the order of the stack."""
        folder.mkdir(parents=True, exist_ok=True)
        hu = self.hu
        for n in range(self.shape[2]):
            ds = self._header(CTImageStorage)
            ds.ImageOrientationPatient = [round(x, 9) for x in (*self.pose.column, *self.pose.row)]
            ds.ImagePositionPatient = self._position(n)
            ds.PixelSpacing, ds.SliceThickness = [self.pose.pixel_mm[1], self.pose.pixel_mm[0]], 2.5
            ds.RescaleSlope, ds.RescaleIntercept, ds.RescaleType = 1, -1024, "HU"
            ds.InstanceNumber = (n * 4) % self.shape[2] + 1
            ds.PixelData = (hu[:, :, n].T.astype(np.int32) + 1024).astype(np.uint16).tobytes()
            if edit:
                edit(n, ds)
            ds.save_as(folder / f"{(n * 5) % self.shape[2]}.dcm", enforce_file_format=bool(ds.SOPInstanceUID))
        return folder

    def write_enhanced(self, folder: Path) -> Path:
        """One multi-frame file, its frames in no order of the stack."""
        folder.mkdir(parents=True, exist_ok=True)
        ds = self._header(EnhancedCTImageStorage)
        orientation, measures, rescale = Dataset(), Dataset(), Dataset()
        orientation.ImageOrientationPatient = [round(x, 9) for x in (*self.pose.column, *self.pose.row)]
        measures.PixelSpacing, measures.SliceThickness = [self.pose.pixel_mm[1], self.pose.pixel_mm[0]], 2.5
        rescale.RescaleSlope, rescale.RescaleIntercept, rescale.RescaleType = 1, -1024, "HU"
        shared = Dataset()
        shared.PlaneOrientationSequence, shared.PixelMeasuresSequence = [orientation], [measures]
        shared.PixelValueTransformationSequence = [rescale]
        order = [(n * 5) % self.shape[2] for n in range(self.shape[2])]
        frames = []
        for n in order:
            frame, position = Dataset(), Dataset()
            position.ImagePositionPatient = self._position(n)
            frame.PlanePositionSequence = [position]
            frames.append(frame)
        ds.NumberOfFrames, ds.InstanceNumber = len(frames), 1
        ds.SharedFunctionalGroupsSequence, ds.PerFrameFunctionalGroupsSequence = [shared], frames
        ds.PixelData = (self.hu[:, :, order].transpose(2, 1, 0).astype(np.int32) + 1024).astype(np.uint16).tobytes()
        ds.save_as(folder / "enhanced.dcm", enforce_file_format=True)
        return folder

    def _position(self, n: int) -> list[float]:
        return [round(float(x), 6) for x in np.add(self.pose.origin, np.multiply(self.pose.step, n))]

    def _header(self, sop_class: str) -> Dataset:
        ds = Dataset()
        ds.file_meta = FileMetaDataset()
        ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        ds.SpecificCharacterSet = "ISO_IR 100"
        ds.SOPClassUID, ds.SOPInstanceUID = sop_class, generate_uid()
        ds.Modality, ds.ImageType = "CT", ["ORIGINAL", "PRIMARY", "AXIAL"]
        ds.StudyInstanceUID, ds.SeriesInstanceUID, ds.FrameOfReferenceUID = self.study, self.series, self.frame
        ds.PatientName, ds.PatientID, ds.PatientBirthDate, ds.PatientSex = PATIENT, "4711", "19700101", "F"
        ds.StudyDate, ds.StudyTime, ds.StudyID, ds.AccessionNumber = "20240229", "101112", "7", "A7"
        ds.SeriesNumber, ds.Manufacturer = 3, "ACME"
        ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
        ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 16, 16, 15, 0
        ds.Columns, ds.Rows = self.shape[:2]
        return ds


def series_of(ct: Volume) -> Series:
    """Return a series with the values of a CT whose axes run along those of the patient."""
    turned = ct.reoriented("LPS")
    columns_mm, rows_mm, slices_mm = turned.spacing_mm
    x, y, z = (turned.affine[:3, 3] * (-1, -1, 1)).tolist()
    pose = Pose(origin=(x, y, z), step=(0.0, 0.0, slices_mm), pixel_mm=(columns_mm, rows_mm))
    return Series(pose, turned.grid.shape, np.clip(turned.array, -1024, 3000).astype(np.int16))


def lopsided(shape: tuple[int, int, int] = SHAPE) -> NDArray[np.uint8]:
    """T12 (19), L1 (20) and L2 (21) on (columns, rows, slices): like no flip or swap of themselves, one with a hole."""
    labels = np.zeros(shape, np.uint8)
    labels[2:8, 2:9, 1:3] = 19
    labels[3:5, 4:6, 1] = 0  # a hole in one slice
    labels[8, 9, 1] = 19  # touches at a corner only
    labels[1:4, 3:5, 4] = 20
    labels[1:9, 3, 5] = 20
    labels[6:8, 3:8, 6] = 21
    labels[9, 7, 6:8] = 21
    return labels


def labels_on(volume: Volume) -> Volume:
    """`lopsided` on the grid of a volume that was read."""
    return Volume(lopsided(volume.grid.shape), volume.affine)
