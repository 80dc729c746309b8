"""Reading CTs: NIfTI, NRRD, MetaImage, and archives of DICOM."""
