"""Reading CTs and label maps: NIfTI, NRRD, MetaImage, DICOM, and zip files of these."""
