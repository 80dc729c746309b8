"""Files in and out: the only package that knows file formats (nibabel, SimpleITK, pydicom)."""
