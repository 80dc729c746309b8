// Corrects the level of a vertebra through the server of this page.
import { facts } from './data.js'
import { el } from './dom.js'

export function correction(name, say) {
  const level = facts.levels.find((row) => row.name === name)
  const status = el('p', { role: 'status', class: 'status' })
  const undo = facts.corrections.length ? el('button', { type: 'button', onclick: () => send([], say, status) }, say('correctUndo')) : null
  if (!level || !facts.known.includes(name)) return el('div', { class: 'correction' }, undo, status)
  const choice = el('select', { id: 'correct-to' }, facts.known.map((other) => el('option', { value: other, selected: other === name }, other)))
  const go = el('button', { type: 'button', id: 'correct', onclick: () => choice.value !== name && send(withPin(choice.value, level.centroid_ras_mm), say, status) }, say('correctGo'))
  return el('div', { class: 'correction' }, el('label', { for: 'correct-to' }, say('correctHelp', name)), choice, go, undo, status)
}

// Centroids closer than this belong to the same vertebra.
const SAME_MM = 5

/** All levels set by hand so far and this one, which replaces an earlier one of the same vertebra. */
function withPin(name, point) {
  const others = facts.pins.filter((pin) => Math.hypot(...pin.point_mm.map((value, n) => value - point[n])) > SAME_MM)
  return [...others, { level: name, point_mm: point }]
}

async function send(pins, say, status) {
  status.textContent = say('correcting')
  document.querySelectorAll('.correction button').forEach((button) => (button.disabled = true))
  const response = await fetch(facts.correct_at, { method: 'POST', headers: { 'content-type': 'application/json' }, body: JSON.stringify({ pins }) })
  if (response.ok) {
    location.reload()
    return
  }
  const { error } = await response.json().catch(() => ({ error: `${response.status}` }))
  status.textContent = error
  document.querySelectorAll('.correction button').forEach((button) => (button.disabled = false))
}
