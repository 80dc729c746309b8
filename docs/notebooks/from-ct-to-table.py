# %% [markdown]
# # From a CT to a table, a mesh and a picture
#
# This notebook takes a synthetic CT through the package, in memory. It needs no data, and takes about half a minute on
# two CPU cores. It is kept as text, in the percent format: open it in VS Code or PyCharm, in Jupyter with `jupytext`,
# or run it with Python. The tests run it too.
#
# It needs pandas for the table (`pip install 'vertebral[pandas]'`). For research, not for diagnosis.

# %%
from PIL import Image

import vertebral
from vertebral.core.anatomy import parse_levels
from vertebral.data.phantom import make_phantom

# %% [markdown]
# ## A CT
#
# The phantom is a trunk with five vertebrae, in Hounsfield units, and its labels are known. For a CT of your own, give
# `segment` the path of a NIfTI file or of a DICOM folder, or an image of nibabel or SimpleITK.

# %%
phantom = make_phantom(parse_levels("T8-T12"), spacing_mm=2.0)
ct = phantom.ct
print(ct.array.shape, ct.array.dtype, ct.spacing_mm, "mm")

# %% [markdown]
# ## Segment it
#
# Nothing is written. With many scans, load the networks once, `models = vertebral.load_models()`, and give `models` to
# each call.

# %%
result = vertebral.segment(ct)
for row in result.vertebrae:
    print(f"{row.level}: confidence {row.confidence:.2f}, quality {row.quality:.2f}", *row.needs_review, sep=", ")
print(*result.warnings, sep="\n")

# %% [markdown]
# ## How good is it?
#
# The phantom's own labels are the reference. All five vertebrae get the right names. T7 and L1 do not exist in the
# phantom: what is found at the ends of so short a scan cannot be trusted, and L1 is marked for review.

# %%
scored = vertebral.evaluate(result.labels, phantom.labels)
print(f"spine: Dice {scored.spine.dice:.3f}, HD95 {scored.spine.hd95_mm:.1f} mm")
for score in scored.levels:
    print(f"{score.name}: Dice {score.dice:.3f}")

# %% [markdown]
# ## The table
#
# One row per vertebra. Next to each figure is a column with its quality: `good`, or `check` or `none` with the reason.

# %%
table = result.to_pandas()
shown = table[["level", "confidence", "volume_ml", "height_anterior_mm"]].round(2)
print(shown.assign(quality=table["height_anterior_mm_quality"].str.partition(":")[0]))
table.to_csv("vertebrae.csv", index=False)

# %% [markdown]
# ```text
#   level  confidence  volume_ml  height_anterior_mm quality
# 0    T7        0.91        NaN                 NaN    none
# 1    T8        0.92      25.58               22.69   check
# 2    T9        0.92      26.42               20.38   check
# 3   T10        0.92      29.25               21.04   check
# 4   T11        0.92      33.28               22.60   check
# 5   T12        0.89      35.10               23.94   check
# 6    L1        0.78      12.58               11.97   check
# ```
#
# Voxels of 2 mm are too coarse for `good` heights; T7 is cut by the border of the scan. Last digits vary between
# processors.
#
# Discs, regions and curves are tables of `result.measurements`. `vertebral.measure` gives the same for any label map:
# here for the phantom's own labels.

# %%
expected = {gap.name: gap for gap in vertebral.measure(phantom.labels, ct).gaps}
for gap in result.measurements.gaps:
    if gap.name in expected:
        heights_mm = [row.value("disc_height_middle_mm") for row in (gap, expected[gap.name])]
        print("{}: {:.1f} mm, in the phantom {:.1f} mm".format(gap.name, *heights_mm))

# %% [markdown]
# ## A mesh
#
# `result.surfaces` are closed surfaces in mm (RAS+). `vertebral.mesh` makes them from a label map, with the options for
# printing; neighbours keep the clearance.

# %%
surface = next(surface for surface in result.surfaces if surface.level.name == "T10").to_trimesh()
print(f"{surface.metadata['name']}: watertight {surface.is_watertight}, {surface.volume / 1000:.1f} ml")
surface.export("T10.stl")

for printed in vertebral.mesh(result.labels, levels=["T10", "T11"], clearance_mm=0.5):
    printed.to_trimesh().export(f"{printed.name}_for_printing.stl")

# %% [markdown]
# ## A picture, and all files
#
# `save` writes what `vertebral run` writes: label map, centroids, surfaces, measurements, preview, report and manifest.

# %%
manifest = result.save("result", overwrite=True)
print(*(row["file"] for row in manifest["outputs"]), sep="\n")
picture = Image.open("result/ct_preview.png")
picture.load()
picture

# %% [markdown]
# ![The phantom with the labels found, and their surfaces](../images/notebook_preview.png)
