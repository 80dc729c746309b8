// Tables and lists of the page: levels, measurements, warnings, provenance, files.
import { facts } from './data.js'
import { dot, el } from './dom.js'

export function number(value, digits = 1) {
  if (value === null || value === undefined) return '–'
  return typeof value === 'number' ? value.toFixed(digits) : String(value)
}

const WHOLE = new Set(['core_mean_hu', 'genant_grade'])
const measured = new Map(facts.measured.vertebrae.map((row) => [row.name, row]))

export function levelTable(say, handlers) {
  const columns = ['confidence', 'volume_ml', ...facts.shown]
  const rows = facts.levels.map((level) => levelRow(level, say, handlers))
  const body = el('tbody', {}, rows)
  body.addEventListener('keydown', (event) => moveFocus(event, rows, handlers))
  const heads = columns.map((name) => el('th', { scope: 'col', title: name === 'confidence' ? say('confidenceLong') : null }, say(name)))
  const head = el('tr', {}, el('th', { scope: 'col' }, say('show')), el('th', { scope: 'col' }, say('level')), heads)
  const table = el('table', { class: 'levels', role: 'grid' }, el('thead', {}, head), body)
  table.select = (name) => {
    rows.forEach((row) => mark(row, row.dataset.level === name))
    reachable(rows)
  }
  return table
}

function levelRow(level, say, { onSelect, onHide }) {
  const figures = measured.get(level.name)?.figures ?? {}
  const eye = el('input', { type: 'checkbox', checked: true, 'aria-label': `${say('show')} ${level.name}` })
  eye.addEventListener('change', () => onHide(level.name, !eye.checked))
  eye.addEventListener('click', (event) => event.stopPropagation())
  const notes = [...level.needs_review, ...(level.touches_border ? [say('border')] : [])]
  const flag = notes.length ? el('span', { class: 'flag', title: `${say('review')}: ${notes.join('; ')}`, role: 'img', 'aria-label': say('review') }, '!') : null
  const cells = facts.shown.map((name) => figureCell(figures[name], name, say))
  return el(
    'tr',
    { 'data-level': level.name, 'aria-selected': 'false', onclick: () => onSelect(level.name) },
    el('td', {}, eye),
    el('th', { scope: 'row' }, dot(level.rgb), level.name, flag),
    el('td', { class: level.confidence < 0.8 ? 'low' : null }, number(level.confidence, 2)),
    el('td', {}, number(level.volume_ml)),
    cells,
  )
}

function figureCell(figure, name, say) {
  if (!figure) return el('td', {}, '–')
  const text = number(figure.value, WHOLE.has(name) ? 0 : 1)
  const title = figure.reason ? `${figure.quality === 'check' ? `${say('check')}: ` : ''}${figure.reason}` : null
  return el('td', { class: figure.quality === 'check' ? 'check' : null, title }, text)
}

function moveFocus(event, rows, { onSelect }) {
  const at = rows.indexOf(event.target.closest('tr'))
  const next = { ArrowDown: at + 1, ArrowUp: at - 1, Home: 0, End: rows.length - 1 }[event.key]
  if (event.key === 'Enter' || event.key === ' ') {
    if (event.target.tagName === 'INPUT') return
    event.preventDefault()
    onSelect(rows[at].dataset.level)
  } else if (next !== undefined && rows[next]) {
    event.preventDefault()
    rows[next].focus()
    onSelect(rows[next].dataset.level)
  }
}

/** Give the table one tab stop: the selected row, or the first; arrow keys move from there. */
function reachable(rows) {
  const chosen = rows.find((row) => row.getAttribute('aria-selected') === 'true') ?? rows[0]
  for (const row of rows) {
    row.tabIndex = row === chosen ? 0 : -1
    row.querySelector('input').tabIndex = row.tabIndex
  }
}

function mark(row, on) {
  row.setAttribute('aria-selected', String(on))
  if (!on) return
  const box = row.closest('.scroll')
  if (box && (row.offsetTop < box.scrollTop || row.offsetTop + row.offsetHeight > box.scrollTop + box.clientHeight)) row.scrollIntoView({ block: 'nearest' })
}

export function levelDetails(name, say) {
  const level = facts.levels.find((row) => row.name === name)
  if (!level) return el('p', { class: 'faint' }, say('nothingSelected'))
  const notes = [...level.needs_review, ...(level.touches_border ? [say('border')] : [])]
  const figures = Object.entries(measured.get(name)?.figures ?? {})
  const items = figures.map(([key, figure]) =>
    el('tr', {}, el('th', { scope: 'row' }, key), el('td', { class: figure.quality === 'check' ? 'check' : null }, number(figure.value, 2)), el('td', { class: 'why' }, figure.reason ?? '')),
  )
  return el(
    'div',
    {},
    el('h3', {}, dot(level.rgb), say('selected', name)),
    notes.length ? el('ul', { class: 'notes' }, notes.map((note) => el('li', {}, note))) : null,
    items.length ? el('details', {}, el('summary', {}, say('all', name)), el('table', { class: 'figures' }, el('tbody', {}, items))) : null,
  )
}

export function warnings(say) {
  const items = facts.warnings.map((text) => el('li', {}, text))
  return el('section', { class: facts.warnings.length ? 'warnings' : '' }, el('h2', {}, say('warnings')), items.length ? el('ul', {}, items) : el('p', { class: 'faint' }, say('noWarnings')))
}

export function curves(say) {
  const { regions, curves: bends, gaps } = facts.measured
  const angles = [...regions, ...bends].filter((row) => row.quality !== 'none')
  const parts = []
  if (angles.length) parts.push(figureTable(angles, ['angle_deg', 'length_mm'], say))
  if (gaps.length) parts.push(figureTable(gaps, ['disc_height_middle_mm', 'listhesis_mm'], say))
  return parts.length ? el('details', {}, el('summary', {}, say('curves')), parts) : ''
}

function figureTable(rows, columns, say) {
  const head = el('tr', {}, ['name', ...columns].map((key) => el('th', { scope: 'col' }, say(key))))
  const body = rows.map((row) => el('tr', {}, el('th', { scope: 'row' }, row.name.replaceAll('_', ' ')), columns.map((key) => figureCell(row.figures[key], key, say))))
  return el('table', {}, el('thead', {}, head), el('tbody', {}, body))
}

const licences = document.getElementById('licences').textContent

export function provenance(say) {
  const shift = Object.values(facts.level_shift).map((share) => number(share, 3)).join(' / ')
  const rows = flat(facts.provenance).filter(([key]) => !['runner_up', 'level_shift', 'disclaimer'].some((name) => key.startsWith(name)))
  const own = [[say('naming'), facts.runner_up.join(' ') || '–'], [say('shift'), shift || '–']]
  return el('details', {}, el('summary', {}, say('provenance')), el('table', { class: 'figures' }, el('tbody', {}, [...own, ...rows].map(([key, value]) => el('tr', {}, el('th', { scope: 'row' }, key), el('td', { class: 'why' }, value))))), el('details', {}, el('summary', {}, say('licences')), el('pre', {}, licences)))
}

function flat(value, prefix = '') {
  if (value === null || typeof value !== 'object') return [[prefix, value === null ? '–' : String(value)]]
  if (Array.isArray(value) && value.every((item) => item === null || typeof item !== 'object')) return [[prefix, value.join(', ') || '–']]
  return Object.entries(value).flatMap(([key, item]) => flat(item, prefix ? `${prefix}.${key}` : key))
}

export function downloads(say) {
  const base = facts.files_at ?? ''
  const links = facts.files.map((name) => el('li', {}, el('a', { href: `${base}${encodeURIComponent(name)}`, download: name }, name)))
  const zip = facts.zip_at ? el('p', {}, el('a', { href: facts.zip_at, class: 'button', download: true }, say('zip'))) : null
  return el('details', { open: Boolean(facts.zip_at) }, el('summary', {}, say('downloads')), zip, base ? null : el('p', { class: 'faint' }, say('downloadsNote')), el('ul', { class: 'files' }, links))
}
