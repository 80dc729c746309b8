// Replaces zarrita, which NiiVue needs for Zarr volumes only.
function absent() {
  throw new Error('Zarr volumes are not supported')
}
export const open = absent
export const root = absent
export const get = absent
export const slice = absent
export const registry = new Map()
export class FetchStore {}
