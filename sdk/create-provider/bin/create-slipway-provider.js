#!/usr/bin/env node
import { cpSync, existsSync, readdirSync, readFileSync, renameSync, writeFileSync } from 'node:fs'
import { basename, dirname, join, resolve } from 'node:path'
import { fileURLToPath } from 'node:url'

// `npm create slipway-provider my-cloud`: copies the template into the folder my-cloud, for the family my-cloud.

const exitFailure = 1
const exitUsage = 2
const here = dirname(fileURLToPath(import.meta.url))
const template = join(here, '../template')
/** What the template calls its family, wherever it is named. */
const placeholder = 'my-cloud'
const familyPattern = /^[a-z]([a-z0-9-]{0,61}[a-z0-9])?$/

const usage = `usage: npm create slipway-provider FOLDER

Makes FOLDER with the skeleton of a provider; its last part is the family: lower-case letters, digits and dashes.
Then: cd FOLDER, npm install, npm test, npm run conformance.`

/** All files below a folder. */
function filesOf(folder) {
  return readdirSync(folder, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .map((entry) => join(entry.parentPath ?? entry.path, entry.name))
}

/** Files whose names begin with a dot would not survive being packed, so the template has them with an underscore. */
function dotNames(folder) {
  for (const entry of readdirSync(folder))
    if (entry.startsWith('_')) renameSync(join(folder, entry), join(folder, `.${entry.slice(1)}`))
}

/** In a checkout of Slipway itself the SDK is the one beside this package: it is not published yet. */
function useLocalSdk(folder) {
  const sdk = join(here, '../..')
  const manifest = join(sdk, 'package.json')
  if (!existsSync(manifest) || JSON.parse(readFileSync(manifest, 'utf8')).name !== '@slipway/sdk') return
  const file = join(folder, 'package.json')
  const own = JSON.parse(readFileSync(file, 'utf8'))
  own.dependencies['@slipway/sdk'] = `file:${sdk}`
  writeFileSync(file, `${JSON.stringify(own, undefined, 2)}\n`)
}

function create(target) {
  const folder = resolve(target)
  const family = basename(folder)
  if (!familyPattern.test(family)) {
    console.error(
      `"${family}" is no family name: lower-case letters, digits and dashes, beginning with a letter\n\n${usage}`,
    )
    return exitUsage
  }
  if (existsSync(folder) && readdirSync(folder).length > 0) {
    console.error(`${folder} is there already, and not empty: give another folder, or move it away`)
    return exitFailure
  }
  const isOfTheTemplate = (file) => !['node_modules', 'dist'].includes(basename(file))
  cpSync(template, folder, { recursive: true, filter: isOfTheTemplate })
  dotNames(folder)
  for (const file of filesOf(folder)) writeFileSync(file, readFileSync(file, 'utf8').replaceAll(placeholder, family))
  useLocalSdk(folder)
  console.log(`${family} is in ${folder}. Next:

  cd ${target}
  npm install
  npm test              # its own tests
  npm run conformance   # the kit: every case passes before you have changed a line

Then put your cloud's API into src/client.ts, and go on from there: README.md says in which order.`)
  return 0
}

const [target, ...rest] = process.argv.slice(2)
if (target === undefined || rest.length > 0 || target.startsWith('-')) {
  console.error(usage)
  process.exitCode = target === '--help' || target === '-h' ? 0 : exitUsage
} else {
  process.exitCode = create(target)
}
