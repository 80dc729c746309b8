"""CT painted from label maps.

The steps, in order, and their modules:

1. A body: `body_map` reads a whole-body label map, `spine_placement` puts a subject's vertebrae into it (`body_warp`
   bends it to them), `plain_trunk` makes a simple trunk where there is no body map. `body_cache` keeps bodies on disk.
2. A patient: `level_variants` changes the number of vertebrae, `arms` adds arms, `findings` adds disease and fractures.
3. HU: `painting` gives each of the `tissues` its HU in this patient.
4. A pose: `pose` turns, scales, warps and crops.
5. A scan: `artefacts` adds table, clothes, beam hardening and motion, `implants` metal, `scanner` blur and noise.

`synthetic_ct` runs steps 2 to 5, `synthetic_set` writes a set of CTs to disk. `random_draws` makes all random choices.
"""
