// Data of the page: facts, and files that are embedded in it or fetched from its server.
export const facts = JSON.parse(document.getElementById('facts').textContent)

export function has(name) {
  return name in facts.urls || inside(name) !== null
}

export async function blob(name, progress = () => {}) {
  if (name in facts.urls) return fetched(facts.urls[name], progress)
  const text = inside(name).textContent
  const raw = atob(text)
  const bytes = new Uint8Array(raw.length)
  for (let n = 0; n < raw.length; n++) bytes[n] = raw.charCodeAt(n)
  progress(1)
  return bytes.buffer
}

function inside(name) {
  return document.querySelector(`script[data-name="${CSS.escape(name)}"]`)
}

async function fetched(url, progress) {
  const response = await fetch(url)
  if (!response.ok) throw new Error(`${response.status}`)
  const total = Number(response.headers.get('content-length')) || 0
  const parts = []
  let done = 0
  for (const reader = response.body.getReader(); ; ) {
    const { value, done: end } = await reader.read()
    if (end) break
    parts.push(value)
    done += value.length
    if (total) progress(done / total)
  }
  const bytes = new Uint8Array(done)
  let at = 0
  for (const part of parts) {
    bytes.set(part, at)
    at += part.length
  }
  return bytes.buffer
}
