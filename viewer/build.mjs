// Bundles the page and the app into the package (`make viewer`). The outputs are committed, so users do not need npm.
import { build } from 'esbuild'
import { readFileSync, readdirSync, writeFileSync } from 'node:fs'

const PAGE = '../src/vertebral/stages/report/static'
const APP = '../src/vertebral/web/static'
const options = { bundle: true, minify: true, format: 'iife', target: 'es2022', legalComments: 'none', metafile: true }
// The page reads no Zarr, whose codecs would be two thirds of the page.
const alias = { zarrita: './src/no_zarr.js' }

// NiiVue computes gradients of every volume for volume rendering, which the page never uses: saves time and memory.
const withoutGradients = {
  name: 'without-gradients',
  setup({ onLoad }) {
    onLoad({ filter: /@niivue\/niivue\/build\/niivue\/index\.js$/ }, ({ path }) => {
      const call = /(if \(layer === 0\) \{\s+this\.volumeTexture = outTexture;\s+)(this\.gradientTexture = gradientGL\(\{)/
      const text = readFileSync(path, 'utf8')
      if (!call.test(text)) throw new Error('NiiVue changed: check how it computes gradients')
      return { contents: text.replace(call, '$1if (this.opts.sliceType === 4) $2'), loader: 'js' }
    })
  },
}

const page = await build({ ...options, alias, plugins: [withoutGradients], entryPoints: ['src/page.js'], outfile: `${PAGE}/page.js` })
await build({ ...options, entryPoints: ['src/page.css'], outfile: `${PAGE}/page.css` })
await build({ ...options, entryPoints: ['src/app.js'], outfile: `${APP}/app.js` })
await build({ ...options, entryPoints: ['src/app.css'], outfile: `${APP}/app.css` })

// These sequences would end the script element, even inside a string.
for (const file of [`${PAGE}/page.js`, `${APP}/app.js`]) {
  const text = readFileSync(file, 'utf8').replaceAll('</script', '<\\/script').replaceAll('<!--', '<\\!--')
  writeFileSync(file, text)
}

const packages = new Set()
for (const input of Object.keys(page.metafile.inputs)) {
  const found = /node_modules\/((?:@[^/]+\/)?[^/]+)/.exec(input)
  if (found) packages.add(found[1])
}
const notices = [...packages].sort().map((name) => {
  const folder = `node_modules/${name}`
  const { version, license } = JSON.parse(readFileSync(`${folder}/package.json`, 'utf8'))
  const file = readdirSync(folder).find((entry) => /^licen[cs]e/i.test(entry))
  const text = file ? readFileSync(`${folder}/${file}`, 'utf8') : readFileSync(`licences/${name.replace('/', '+')}.txt`, 'utf8')
  return `${name} ${version} (${license})\n\n${text.trim()}\n`
})
writeFileSync(`${PAGE}/LICENCES.txt`, `page.js contains (NiiVue without its gradients and its reader of Zarr):\n\n${notices.join(`\n${'-'.repeat(78)}\n\n`)}`)
