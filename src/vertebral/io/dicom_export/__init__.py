"""Results as DICOM objects that belong to the study of the CT: SEG, RT Structure Set, encapsulated STL, report."""
