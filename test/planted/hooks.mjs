// Puts a wrong version in the place of a right one as it is loaded. The product knows nothing of it.
let planted

export function initialize(data) {
  planted = data
}

export async function load(url, context, nextLoad) {
  const loaded = await nextLoad(url, context)
  const changes = planted.changes.filter((change) => new URL(url).pathname.endsWith(change.file))
  if (changes.length === 0) return loaded
  let source = loaded.source.toString()
  for (const { file, find, replace } of changes) {
    if (source.split(find).length !== 2)
      throw new Error(`planted bug ${planted.name}: ${file} does not hold this once: ${find}`)
    source = source.replace(find, () => replace)
  }
  return { ...loaded, source }
}
