"""Results as DICOM objects in the study of the CT: SEG, RT Structure Set, encapsulated STL, structured report."""
