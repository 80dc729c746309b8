"""Reading DICOM: series, slices, geometry, pixels, and DICOMweb."""
