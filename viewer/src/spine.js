// The spine in 3D: rotate, zoom, hide, pick.
import { Niivue, NVMesh, SLICE_TYPE } from '@niivue/niivue'
import { blob, facts } from './data.js'
import { meshAt, project } from './pick.js'
import { el } from './dom.js'

const PALE = [196, 200, 205]
const TURN_DEG = 10
const MOST_TILT_DEG = 89
// A press that moves less than this is a click.
const CLICK_PX = 5

export class Spine {
  constructor(canvas, names, onPick) {
    this.canvas = canvas
    this.names = names
    this.onPick = onPick
    this.meshes = []
    this.selected = null
    this.only = false
    this.hidden = new Set()
  }

  async load() {
    this.nv = new Niivue({
      backColor: [0.09, 0.11, 0.14, 1],
      isOrientCube: false,
      dragAndDropEnabled: false,
      loadingText: '',
      logLevel: 'error',
      show3Dcrosshair: false,
      sliceType: SLICE_TYPE.RENDER,
    })
    await this.nv.attachToCanvas(this.canvas, true)
    for (const { level, blob: name } of facts.meshes) {
      const { rgb } = facts.levels.find((row) => row.name === level)
      const mesh = await NVMesh.readMesh(await blob(name), name, this.nv.gl, 1, new Uint8Array([...rgb, 255]))
      this.meshes.push({ level, mesh, rgb, points: new Float32Array(mesh.pts), triangles: mesh.tris, visible: true })
    }
    for (const { mesh } of this.meshes) this.nv.addMesh(mesh)
    for (const { name, at_mm: at } of facts.levels) {
      this.names.append(el('span', { 'data-level': name, 'data-at': at.join(',') }, name))
    }
    this.nv.setSliceType(SLICE_TYPE.RENDER)
    this.nv.onAzimuthElevationChange = () => this.placeNames()
    this.listen()
    this.look(110, 10)
    this.fit()
  }

  listen() {
    let pressed = null
    this.canvas.addEventListener('pointerdown', (event) => (pressed = [event.clientX, event.clientY]))
    this.canvas.addEventListener('pointerup', (event) => {
      if (pressed && Math.hypot(event.clientX - pressed[0], event.clientY - pressed[1]) < CLICK_PX) this.pick(event)
      pressed = null
    })
    for (const kind of ['pointermove', 'touchmove', 'wheel']) {
      this.canvas.addEventListener(kind, () => requestAnimationFrame(() => this.placeNames()), { passive: true })
    }
    // NiiVue's own keys depend on the position of the mouse; these do not.
    this.canvas.parentElement.addEventListener('keydown', (event) => this.onKey(event), { capture: true })
    new ResizeObserver(() => this.placeNames()).observe(this.canvas.parentElement)
  }

  onKey(event) {
    if (event.target !== this.canvas || event.ctrlKey || event.metaKey || event.altKey) return
    const { renderAzimuth: azimuth, renderElevation: elevation } = this.nv.scene
    const actions = {
      ArrowLeft: () => this.look(azimuth - TURN_DEG, elevation),
      ArrowRight: () => this.look(azimuth + TURN_DEG, elevation),
      ArrowUp: () => this.look(azimuth, Math.min(MOST_TILT_DEG, elevation + TURN_DEG)),
      ArrowDown: () => this.look(azimuth, Math.max(-MOST_TILT_DEG, elevation - TURN_DEG)),
      '+': () => this.zoom(1.15),
      '-': () => this.zoom(1 / 1.15),
    }
    event.stopPropagation()
    if (!actions[event.key]) return
    event.preventDefault()
    actions[event.key]()
  }

  look(azimuth, elevation) {
    this.nv.setRenderAzimuthElevation((azimuth + 360) % 360, elevation)
    this.placeNames()
  }

  /** Fill the canvas: NiiVue leaves room for the diagonal of the bounding box. */
  fit() {
    const { clientWidth: width, clientHeight: height } = this.canvas
    const mvp = this.mvp()
    let reach = 0
    for (const { points } of this.meshes) {
      for (let n = 0; n < points.length; n += 30) {
        const at = project(mvp, points.subarray(n, n + 3), width, height)
        if (at) reach = Math.max(reach, Math.abs(at[0] / width - 0.5), Math.abs(at[1] / height - 0.5))
      }
    }
    if (reach > 0) this.zoom(0.46 / reach)
  }

  zoom(by) {
    this.nv.setScale(Math.min(4, Math.max(0.4, this.nv.scene.volScaleMultiplier * by)))
    this.placeNames()
  }

  pick(event) {
    const box = this.canvas.getBoundingClientRect()
    const found = meshAt(this.meshes, this.mvp(), event.clientX - box.left, event.clientY - box.top, box.width, box.height)
    if (found >= 0) this.onPick(this.meshes[found].level)
  }

  mvp() {
    const { width, height } = this.canvas
    return this.nv.calculateMvpMatrix(null, [0, 0, width, height], this.nv.scene.renderAzimuth, this.nv.scene.renderElevation)[0]
  }

  placeNames() {
    if (!this.nv?.gl || !this.meshes.length) return
    const { clientWidth: width, clientHeight: height } = this.canvas
    const mvp = this.mvp()
    for (const span of this.names.children) {
      const at = project(mvp, span.dataset.at.split(',').map(Number), width, height)
      const shown = at && at[0] > 0 && at[0] < width && at[1] > 0 && at[1] < height && this.isShown(span.dataset.level)
      span.hidden = !shown
      if (shown) span.style.transform = `translate(${at[0].toFixed(1)}px, ${at[1].toFixed(1)}px) translate(-50%, -50%)`
      span.classList.toggle('selected', span.dataset.level === this.selected)
    }
  }

  isShown(level) {
    return !this.hidden.has(level) && !(this.only && this.selected && this.selected !== level)
  }

  select(level) {
    this.selected = level
    this.paint()
  }

  showOnly(only) {
    this.only = only
    this.paint()
  }

  hide(level, hidden) {
    if (hidden) this.hidden.add(level)
    else this.hidden.delete(level)
    this.paint()
  }

  paint() {
    for (const item of this.meshes) {
      const faded = this.selected && item.level !== this.selected
      const rgb = faded ? item.rgb.map((value, n) => Math.round(0.3 * value + 0.7 * PALE[n])) : item.rgb
      item.visible = this.isShown(item.level)
      item.mesh.visible = item.visible
      item.mesh.rgba255 = new Uint8Array([...rgb, 255])
      item.mesh.updateMesh(this.nv.gl)
    }
    this.nv.drawScene()
    this.placeNames()
  }
}
