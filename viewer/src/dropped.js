// Collects the files of a drop, including those in nested folders.
export async function droppedFiles(transfer) {
  const entries = [...transfer.items].map((item) => item.webkitGetAsEntry?.()).filter(Boolean)
  if (!entries.length) return [...transfer.files]
  const files = []
  for (const entry of entries) await collect(entry, files)
  return files
}

async function collect(entry, files) {
  if (entry.isFile) {
    files.push(await new Promise((resolve, reject) => entry.file(resolve, reject)))
    return
  }
  const reader = entry.createReader()
  for (;;) {
    // A reader returns entries in batches, and an empty batch at the end.
    const some = await new Promise((resolve, reject) => reader.readEntries(resolve, reject))
    if (!some.length) return
    for (const child of some) await collect(child, files)
  }
}
