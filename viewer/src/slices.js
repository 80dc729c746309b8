// Three slices through the CT with the labels overlaid.
import { Niivue, NVImage, SLICE_TYPE } from '@niivue/niivue'
import { blob, facts } from './data.js'

export const WINDOWS = { bone: [400, 1800], soft: [50, 400], wide: [300, 1370] }
const CONTRAST_DRAG = 1
const NEVER = 0
const CROSSHAIR_PX = 1.3

export class Slices {
  constructor(canvas, onMove, onClick, onWindow) {
    Object.assign(this, { canvas, onMove, onClick, onWindow })
    this.opacity = 0.4
    this.outline = false
  }

  async load(progress) {
    this.nv = new Niivue({
      backColor: [0, 0, 0, 1],
      crosshairColor: [1, 1, 1, 0.75],
      crosshairWidthUnit: 'mm',
      crosshairGap: 4,
      dragAndDropEnabled: false,
      dragMode: CONTRAST_DRAG,
      isOrientCube: false,
      isRadiologicalConvention: true,
      loadingText: '',
      logLevel: 'error',
      multiplanarPadPixels: 4,
      multiplanarShowRender: NEVER,
      sagittalNoseLeft: true,
      sliceType: SLICE_TYPE.MULTIPLANAR,
    })
    await this.nv.attachToCanvas(this.canvas, false)
    const image = await NVImage.new(await blob('ct.nii.gz', progress), 'ct.nii.gz', 'gray', 1, null, ...range(WINDOWS.bone))
    const labels = await NVImage.new(await blob('labels.nii.gz'), 'labels.nii.gz', 'gray', this.opacity)
    labels.setColormapLabel(colours())
    // Assigned first: each addVolume redraws all volumes.
    this.nv.volumes = [image]
    this.nv.addVolume(labels)
    this.nv.onLocationChange = (place) => this.onMove([...place.mm].slice(0, 3), this.hu(place), this.labelAt(place))
    this.nv.onIntensityChange = (volume) => this.onWindow((volume.cal_min + volume.cal_max) / 2, volume.cal_max - volume.cal_min)
    new ResizeObserver(() => requestAnimationFrame(() => this.thin())).observe(this.canvas)
    this.canvas.addEventListener('pointerup', () => setTimeout(() => this.onClick(this.label), 0))
    this.canvas.parentElement.addEventListener('keydown', (event) => this.onKey(event), { capture: true })
  }

  /** Keep the crosshairs just over one pixel wide at any zoom. */
  thin() {
    const tile = this.nv.screenSlices[0]
    if (!tile?.fovMM[0]) return
    this.nv.opts.crosshairWidth = (CROSSHAIR_PX * Math.abs(tile.fovMM[0])) / tile.leftTopWidthHeight[2]
    this.nv.drawScene()
  }

  hu(place) {
    return place.values[0]?.value ?? null
  }

  labelAt(place) {
    this.label = facts.palette[Math.round(place.values[1]?.value ?? 0)]?.[0] ?? null
    return this.label
  }

  onKey(event) {
    if (event.target !== this.canvas || event.ctrlKey || event.metaKey || event.altKey) return
    const steps = {
      ArrowLeft: [-1, 0, 0],
      ArrowRight: [1, 0, 0],
      ArrowUp: [0, 1, 0],
      ArrowDown: [0, -1, 0],
      PageUp: [0, 0, 1],
      PageDown: [0, 0, -1],
    }
    event.stopPropagation()
    if (!steps[event.key]) return
    event.preventDefault()
    this.nv.moveCrosshairInVox(...steps[event.key])
  }

  goTo(mm) {
    this.nv.scene.crosshairPos = this.nv.mm2frac(mm, 0, true)
    this.nv.createOnLocationChange()
    this.nv.drawScene()
  }

  setWindow(level, width) {
    const [image] = this.nv.volumes
    ;[image.cal_min, image.cal_max] = range([level, width])
    this.redraw()
    this.onWindow(level, width)
  }

  setOverlay(opacity) {
    this.opacity = opacity
    this.nv.volumes[1].opacity = opacity
    this.redraw()
  }

  setOutline(on) {
    this.outline = on
    this.nv.opts.atlasOutline = on ? 1 : 0
    this.redraw()
  }

  /** Recolour all volumes, at most once per frame, however fast a slider moves. */
  redraw() {
    cancelAnimationFrame(this.waiting)
    this.waiting = requestAnimationFrame(() => this.nv.updateGLVolume())
  }
}

function range([level, width]) {
  return [level - width / 2, level + width / 2]
}

function colours() {
  const rows = [[0, [0, 0, 0], 0, ''], ...Object.entries(facts.palette).map(([id, [name, rgb]]) => [Number(id), rgb, 255, name])]
  return {
    R: rows.map(([, rgb]) => rgb[0]),
    G: rows.map(([, rgb]) => rgb[1]),
    B: rows.map(([, rgb]) => rgb[2]),
    A: rows.map(([, , alpha]) => alpha),
    I: rows.map(([id]) => id),
    labels: rows.map(([, , , name]) => name),
  }
}
