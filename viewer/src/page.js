// Page of one result: the views, the table, and the links between them.
import { facts, has } from './data.js'
import { el } from './dom.js'
import { choose, language, speaker } from './language.js'
import { correction } from './correction.js'
import { Slices, WINDOWS } from './slices.js'
import { Spine } from './spine.js'
import { curves, downloads, levelDetails, levelTable, number, provenance, warnings } from './tables.js'
import { TEXTS } from './texts.js'

const VIEWS = { front: [180, 5], left: [90, 5], back: [0, 5], right: [270, 5], top: [180, 89] }

let code = language()
let say = speaker(TEXTS, code)
const state = { selected: null, spine: null, slices: null, table: null }

const canvases = { spine: el('canvas', { id: 'spine', tabindex: '0' }), slices: el('canvas', { id: 'slices', tabindex: '0' }) }
const names = el('div', { class: 'names', 'aria-hidden': 'true' })
const frames = {
  spine: el('div', { class: 'frame' }, canvases.spine, names),
  slices: el('div', { class: 'frame' }, canvases.slices),
}
const place = el('output', { class: 'place', id: 'place' })
const details = el('div', { id: 'selected', 'aria-live': 'polite' })
const inputs = {}

function header() {
  const pick = el('select', { id: 'language', 'aria-label': say('language'), onchange: (event) => switchTo(event.target.value) })
  pick.append(el('option', { value: 'en', selected: code === 'en' }, 'English'), el('option', { value: 'es', selected: code === 'es' }, 'Español'))
  const back = facts.jobs_at ? el('a', { href: facts.jobs_at, class: 'button' }, say('jobs')) : null
  return el('header', {}, el('h1', {}, facts.name), el('p', { class: 'disclaimer' }, say('disclaimer')), back, pick)
}

function spinePanel() {
  const views = Object.entries(VIEWS).map(([name, [azimuth, elevation]]) => el('button', { type: 'button', onclick: () => state.spine?.look(azimuth, elevation) }, say(name)))
  const only = el('input', { type: 'checkbox', id: 'only', checked: state.spine?.only ?? false, onchange: (event) => state.spine?.showOnly(event.target.checked) })
  const named = el('input', { type: 'checkbox', id: 'named', checked: !names.hidden, onchange: (event) => (names.hidden = !event.target.checked) })
  canvases.spine.setAttribute('aria-label', `${say('spine')}. ${say('spineKeys')}`)
  return el(
    'section',
    { class: 'panel spine', 'aria-label': say('spine') },
    frames.spine,
    el('div', { class: 'tools' }, el('span', { class: 'group' }, views), el('label', {}, only, say('onlySelected')), el('label', {}, named, say('names'))),
    el('p', { class: 'hint' }, say('spineKeys')),
  )
}

function slicesPanel() {
  canvases.slices.setAttribute('aria-label', `${say('slices')}. ${say('slicesKeys')}`)
  const presets = Object.keys(WINDOWS).map((name) => el('button', { type: 'button', onclick: () => state.slices?.setWindow(...WINDOWS[name]) }, say(name)))
  const apply = () => state.slices?.setWindow(Number(inputs.centre.value), Number(inputs.width.value))
  const [centre, width] = [inputs.centre?.value ?? WINDOWS.bone[0], inputs.width?.value ?? WINDOWS.bone[1]]
  inputs.centre = slider('centre', -400, 1400, centre, apply)
  inputs.width = slider('width', 20, 2800, width, apply)
  inputs.overlay = slider('overlay', 0, 100, 100 * (state.slices?.opacity ?? 0.4), () => state.slices?.setOverlay(inputs.overlay.value / 100))
  const outline = el('input', { type: 'checkbox', checked: state.slices?.outline ?? false, onchange: (event) => state.slices?.setOutline(event.target.checked) })
  const label = (key, input) => el('label', {}, say(key), input)
  return el(
    'section',
    { class: 'panel slices', 'aria-label': say('slices') },
    frames.slices,
    place,
    el('div', { class: 'tools' }, el('span', { class: 'group', role: 'group', 'aria-label': say('window') }, presets), label('centre', inputs.centre), label('width', inputs.width), label('overlay', inputs.overlay), el('label', {}, outline, say('outline'))),
    el('p', { class: 'hint' }, say('slicesKeys'), facts.urls['ct.nii.gz'] ? '' : ` ${say('reduced')}`),
  )
}

function slider(id, min, max, value, oninput) {
  return el('input', { type: 'range', id, min, max, value, oninput })
}

function detailsPanel() {
  state.table = levelTable(say, { onSelect: (name) => select(name, true), onHide: (name, hidden) => state.spine?.hide(name, hidden) })
  const found = facts.levels.length
    ? el('div', { class: 'scroll' }, state.table)
    : el('div', { class: 'empty' }, el('h2', {}, say('noLevels')), el('p', {}, say('noLevelsHelp')))
  const corrections = facts.corrections.length ? el('p', { class: 'corrections' }, `${say('corrected')}: ${facts.corrections.join('; ')}`) : null
  return el(
    'section',
    { class: 'panel details', 'aria-label': say('details') },
    corrections,
    found,
    facts.levels.length ? el('p', { class: 'hint' }, say('heights')) : null,
    details,
    warnings(say),
    curves(say),
    downloads(say),
    provenance(say),
  )
}

function draw() {
  document.documentElement.lang = code
  document.getElementById('root').replaceChildren(header(), el('main', {}, spinePanel(), slicesPanel(), detailsPanel()))
  showSelected()
}

function switchTo(next) {
  code = next
  say = speaker(TEXTS, code)
  choose(code)
  draw()
  document.getElementById('language').focus()
}

function select(name, jump) {
  state.selected = name
  state.spine?.select(name)
  const level = facts.levels.find((row) => row.name === name)
  if (jump && level) state.slices?.goTo(level.at_mm)
  showSelected()
}

function showSelected() {
  state.table.select(state.selected)
  details.replaceChildren(levelDetails(state.selected, say))
  if (facts.correct_at) details.append(correction(state.selected, say))
}

function showPlace(mm, hu, level) {
  const text = [say('place', ...mm.map((value) => number(value))), hu === null ? '' : `${Math.round(hu)} ${say('hu')}`, level ?? '']
  place.textContent = text.filter(Boolean).join('   ')
}

function showWindow(centre, width) {
  inputs.centre.value = Math.round(centre)
  inputs.width.value = Math.round(width)
}

function trouble(frame, text) {
  frame.append(el('p', { class: 'trouble', role: 'alert' }, text))
}

async function start() {
  draw()
  if (!document.createElement('canvas').getContext('webgl2')) {
    Object.values(frames).forEach((frame) => trouble(frame, say('noWebgl')))
    return
  }
  try {
    await startSpine()
    await startSlices()
    document.documentElement.dataset.ready = 'yes'
  } catch (error) {
    console.error(error)
    Object.values(frames).forEach((frame) => trouble(frame, say('failed', error.message)))
    document.documentElement.dataset.ready = 'failed'
  }
}

async function startSpine() {
  if (!facts.meshes.length) {
    trouble(frames.spine, say(facts.levels.length ? 'noMeshes' : 'noLevels'))
    return
  }
  const spine = new Spine(canvases.spine, names, (name) => select(name, true))
  await spine.load()
  state.spine = spine
  document.documentElement.dataset.spine = Math.round(performance.now())
}

async function startSlices() {
  if (!has('ct.nii.gz')) {
    trouble(frames.slices, say('noCt'))
    return
  }
  const slices = new Slices(canvases.slices, showPlace, (name) => name && name !== state.selected && select(name, false), showWindow)
  await slices.load((share) => (place.textContent = say('loading', Math.round(100 * share))))
  state.slices = slices
  const middle = facts.levels[Math.floor(facts.levels.length / 2)]
  if (middle) slices.goTo(middle.at_mm)
  document.documentElement.dataset.slices = Math.round(performance.now())
}

// Access to the views for tests and for the console.
window.vertebral = { state, select }
start()
