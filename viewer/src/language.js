// English or Spanish: the language of the browser, unless the user chose one; the choice is stored in the browser.
const KEY = 'vertebral-language'

export function language() {
  try {
    const chosen = localStorage.getItem(KEY)
    if (chosen === 'en' || chosen === 'es') return chosen
  } catch {
    // A browser may refuse storage for a page opened from disk.
  }
  return (navigator.language || 'en').toLowerCase().startsWith('es') ? 'es' : 'en'
}

export function choose(code) {
  try {
    localStorage.setItem(KEY, code)
  } catch {
    // Then the choice lasts until the page is closed.
  }
}

/** Return say(key, ...values) for one language; `{0}` in a text is replaced by the first value. */
export function speaker(texts, code) {
  return (key, ...values) => {
    const text = texts[code][key] ?? texts.en[key] ?? key
    return text.replace(/\{(\d)\}/g, (_, n) => values[Number(n)])
  }
}
