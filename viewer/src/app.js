// Start page of the app: upload a CT, follow the runs, open the results.
import { TEXTS } from './app_texts.js'
import { el } from './dom.js'
import { droppedFiles } from './dropped.js'
import { choose, language, speaker } from './language.js'

const POLL_MS = 700
// Roughly how much of a run each stage takes, of 100.
const WEIGHTS = { 'load model': 2, read: 3, prepare: 2, infer: 36, instances: 1, refine: 36, identify: 1, restore: 1, reconstruct: 7, measure: 3, write: 2, export: 1, preview: 4, report: 4 }
const { uploadGb, keepDays } = document.body.dataset

let code = language()
let say = speaker(TEXTS, code)
const jobs = el('div', { id: 'jobs', 'aria-live': 'polite' })
const notice = el('p', { id: 'notice', role: 'alert' })
const uploads = new Map()
let shown = ''

function draw() {
  document.documentElement.lang = code
  const pick = el('select', { id: 'language', 'aria-label': say('language'), onchange: (event) => switchTo(event.target.value) })
  pick.append(el('option', { value: 'en', selected: code === 'en' }, 'English'), el('option', { value: 'es', selected: code === 'es' }, 'Español'))
  document.getElementById('root').replaceChildren(
    el('header', {}, el('h1', {}, 'vertebral'), el('p', { class: 'disclaimer' }, say('disclaimer')), pick),
    el('main', {}, dropZone(), notice, el('h2', {}, say('jobs')), jobs),
  )
}

function switchTo(next) {
  code = next
  say = speaker(TEXTS, code)
  choose(code)
  shown = ''
  draw()
  refresh()
  document.getElementById('language').focus()
}

function dropZone() {
  const file = el('input', { type: 'file', id: 'file', hidden: true, onchange: (event) => give([...event.target.files]) })
  const folder = el('input', { type: 'file', id: 'folder', hidden: true, webkitdirectory: true, onchange: (event) => give([...event.target.files]) })
  const zone = el(
    'div',
    { class: 'drop', id: 'drop' },
    el('p', { class: 'big' }, say('drop')),
    el('p', {}, el('button', { type: 'button', onclick: () => file.click() }, say('file')), ' ', el('button', { type: 'button', onclick: () => folder.click() }, say('folder'))),
    el('p', { class: 'faint' }, say('local', Number(uploadGb), Number(keepDays))),
    file,
    folder,
  )
  for (const kind of ['dragenter', 'dragover']) {
    zone.addEventListener(kind, (event) => {
      event.preventDefault()
      zone.classList.add('over')
    })
  }
  zone.addEventListener('dragleave', () => zone.classList.remove('over'))
  zone.addEventListener('drop', async (event) => {
    event.preventDefault()
    zone.classList.remove('over')
    give(await droppedFiles(event.dataTransfer))
  })
  return zone
}

async function give(files) {
  notice.textContent = ''
  if (!files.length) {
    notice.textContent = say('nothingDropped')
    return
  }
  let id = null
  try {
    id = (await ask('api/jobs', 'POST')).id
    for (const [n, file] of files.entries()) {
      uploads.set(id, [n, files.length])
      await ask(`api/jobs/${id}/files/${n}`, 'PUT', file, { 'x-file-name': encodeURIComponent(suffixOf(file.name)) })
    }
    await ask(`api/jobs/${id}/start`, 'POST')
  } catch (error) {
    notice.textContent = say('uploadFailed', error.message)
    if (id) await ask(`api/jobs/${id}`, 'DELETE').catch(() => {})
  }
  uploads.delete(id)
  refresh()
}

/** The suffix tells the format; the rest of the name, which may identify a patient, stays in the browser. */
function suffixOf(name) {
  return /(\.[A-Za-z]{1,5}(\.gz)?)$/.exec(name)?.[1] ?? ''
}

async function ask(url, method, body = undefined, headers = {}) {
  const response = await fetch(url, { method, body, headers })
  const answer = await response.json().catch(() => ({}))
  if (!response.ok) throw new Error(answer.error ?? `${response.status}`)
  return answer
}

async function refresh() {
  try {
    const list = await ask('api/jobs', 'GET')
    if (notice.dataset.lost) {
      notice.textContent = ''
      delete notice.dataset.lost
    }
    const state = JSON.stringify([code, list, [...uploads]])
    if (state !== shown) show(list)
    shown = state
  } catch {
    notice.textContent = say('lost')
    notice.dataset.lost = 'yes'
  }
}

/** Existing cards stay in the document, so that they keep the focus. */
function show(list) {
  const known = new Map([...jobs.querySelectorAll('article')].map((card) => [card.dataset.id, card]))
  const cards = list.map((job) => {
    const card = jobCard(job)
    const old = known.get(job.id)
    if (old && old.dataset.kind === card.dataset.kind) {
      old.querySelector('.state').textContent = card.querySelector('.state').textContent
      const bar = old.querySelector('progress')
      if (bar) bar.value = card.querySelector('progress').value
      return old
    }
    return card
  })
  if (!cards.length) {
    jobs.replaceChildren(el('p', { class: 'faint' }, say('none')))
  } else if (cards.length !== jobs.children.length || cards.some((card, n) => jobs.children[n] !== card)) {
    jobs.replaceChildren(...cards)
  }
}

function jobCard(job) {
  const busy = ['uploading', 'queued', 'running'].includes(job.state)
  const button = (key, act, more = {}) => el('button', { type: 'button', onclick: act, ...more }, say(key))
  const act = (action, method = 'POST') => () => ask(`api/jobs/${job.id}${action}`, method).then(refresh, (error) => (notice.textContent = error.message))
  const remove = () => confirm(say('removeSure')) && act('', 'DELETE')()
  const actions = []
  if (job.state === 'done') {
    actions.push(el('a', { class: 'button main', href: `jobs/${job.id}/` }, say('look')))
    actions.push(el('a', { class: 'button', href: `jobs/${job.id}/all.zip`, download: true }, say('zip')))
  }
  if (job.state === 'queued' || job.state === 'running') actions.push(button('cancel', act('/cancel')))
  if (['failed', 'cancelled', 'interrupted'].includes(job.state)) actions.push(button('restart', act('/restart')))
  if (!busy) actions.push(button('remove', remove))
  return el(
    'article',
    { 'data-id': job.id, 'data-state': job.state, 'data-kind': `${job.state} ${code} ${job.error} ${job.corrected}` },
    el('h3', {}, new Date(1000 * job.created_s).toLocaleString(code)),
    el('p', { class: 'state' }, stateText(job)),
    busy ? el('progress', { max: 100, value: done(job), 'aria-label': say('jobs') }) : null,
    job.error ? el('p', { class: 'error' }, job.error) : null,
    job.error ? el('p', { class: 'faint' }, say('failedHelp')) : null,
    el('div', { class: 'actions' }, actions),
  )
}

function stateText(job) {
  if (job.state === 'uploading') return say('uploading', ...(uploads.get(job.id) ?? ['?', '?']))
  if (job.state === 'running') return say('running', say(job.stage || 'start'))
  return job.corrected ? `${say(job.state)}, ${say('corrected')}` : say(job.state)
}

function done(job) {
  if (job.state === 'uploading') {
    const [n, all] = uploads.get(job.id) ?? [0, 1]
    return (100 * n) / all
  }
  let sum = 0
  for (const [stage, weight] of Object.entries(WEIGHTS)) {
    if (stage === job.stage) return sum + weight * job.share
    sum += weight
  }
  return 0
}

draw()
refresh()
setInterval(refresh, POLL_MS)
// A file dropped outside the zone must not make the browser leave the page.
for (const kind of ['dragover', 'drop']) document.addEventListener(kind, (event) => event.preventDefault())
