"""DICOM in: series, slices, geometry, pixels, and DICOMweb."""
