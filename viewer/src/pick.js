// Projects points in mm to the canvas, and finds the mesh under a point of the canvas.

/** `mvp` is column-major 4x4; returns [x, y, depth] in pixels of a canvas of `width` x `height`, or null behind the camera. */
export function project(mvp, [x, y, z], width, height) {
  const w = mvp[3] * x + mvp[7] * y + mvp[11] * z + mvp[15]
  if (Math.abs(w) < 1e-9) return null
  const clipX = (mvp[0] * x + mvp[4] * y + mvp[8] * z + mvp[12]) / w
  const clipY = (mvp[1] * x + mvp[5] * y + mvp[9] * z + mvp[13]) / w
  const depth = (mvp[2] * x + mvp[6] * y + mvp[10] * z + mvp[14]) / w
  return [(0.5 + clipX / 2) * width, (0.5 - clipY / 2) * height, depth]
}

/** Index of the frontmost visible mesh ({points, triangles, visible}) at (x, y), or -1. */
export function meshAt(meshes, mvp, x, y, width, height) {
  let found = -1
  let nearest = Infinity
  meshes.forEach((mesh, index) => {
    if (!mesh.visible) return
    const depth = depthAt(mesh, mvp, x, y, width, height)
    if (depth < nearest) {
      nearest = depth
      found = index
    }
  })
  return found
}

function depthAt({ points, triangles }, mvp, x, y, width, height) {
  const count = points.length / 3
  const screen = new Float32Array(points.length)
  for (let n = 0; n < count; n++) {
    const at = project(mvp, [points[3 * n], points[3 * n + 1], points[3 * n + 2]], width, height)
    screen.set(at ?? [NaN, NaN, NaN], 3 * n)
  }
  let nearest = Infinity
  for (let n = 0; n < triangles.length; n += 3) {
    const depth = depthInside(screen, 3 * triangles[n], 3 * triangles[n + 1], 3 * triangles[n + 2], x, y)
    if (depth < nearest) nearest = depth
  }
  return nearest
}

function depthInside(screen, a, b, c, x, y) {
  const abx = screen[b] - screen[a]
  const aby = screen[b + 1] - screen[a + 1]
  const acx = screen[c] - screen[a]
  const acy = screen[c + 1] - screen[a + 1]
  const area = abx * acy - aby * acx
  if (!(Math.abs(area) > 1e-9)) return Infinity
  const px = x - screen[a]
  const py = y - screen[a + 1]
  const v = (px * acy - py * acx) / area
  const w = (abx * py - aby * px) / area
  if (v < 0 || w < 0 || v + w > 1) return Infinity
  return screen[a + 2] + v * (screen[b + 2] - screen[a + 2]) + w * (screen[c + 2] - screen[a + 2])
}
