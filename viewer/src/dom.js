// Creates elements; text is never parsed as markup.
export function el(tag, attributes = {}, ...children) {
  const node = document.createElement(tag)
  for (const [key, value] of Object.entries(attributes)) {
    if (value === undefined || value === null || value === false) continue
    if (key.startsWith('on')) node.addEventListener(key.slice(2), value)
    else if (key === 'class') node.className = value
    else if (key === 'value' || key === 'checked' || key === 'disabled') node[key] = value
    else node.setAttribute(key, value === true ? '' : value)
  }
  node.append(...children.flat().filter((child) => child !== null && child !== undefined))
  return node
}

export function dot([red, green, blue]) {
  const node = el('span', { class: 'dot', 'aria-hidden': 'true' })
  node.style.backgroundColor = `rgb(${red}, ${green}, ${blue})`
  return node
}
