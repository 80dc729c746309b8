// English or Spanish: the browser's language, unless the reader chose; the choice stays in the browser.
const KEY = 'vertebral-language'

export function language() {
  try {
    const chosen = localStorage.getItem(KEY)
    if (chosen === 'en' || chosen === 'es') return chosen
  } catch {
    // A browser may refuse storage to a page from disk.
  }
  return (navigator.language || 'en').toLowerCase().startsWith('es') ? 'es' : 'en'
}

export function choose(code) {
  try {
    localStorage.setItem(KEY, code)
  } catch {
    // Then the choice lasts as long as the page.
  }
}

/** say(key, ...values) in one language; `{0}` in a text stands for the first value. */
export function speaker(texts, code) {
  return (key, ...values) => {
    const text = texts[code][key] ?? texts.en[key] ?? key
    return text.replace(/\{(\d)\}/g, (_, n) => values[Number(n)])
  }
}
