import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { missingPackages } from '@slipway/provider-qemu/testing'
import { findPython, pythonAdapter, pythonCommand, pythonNeeds } from './python.js'
import { bareMetalProgram } from './adapters/bare-metal.js'
import { qemuProgram } from './adapters/qemu.js'
import { hetznerCloudFlags, hetznerCloudProgram } from './adapters/hetzner-cloud.js'
import { simulatedFlags, simulatedProgram } from './adapters/simulated.js'

const here = dirname(fileURLToPath(import.meta.url))

/** What the kit needs to run against a provider of ours. */
export interface Target {
  readonly name: string
  /** The adapter's file. */
  readonly adapter: string
  /** What starts an instance. */
  readonly command: readonly string[]
}

const cloud: Target = {
  name: 'simulated-cloud',
  adapter: join(here, 'adapters/simulated.js'),
  command: [process.execPath, simulatedProgram, '--kind', 'dynamic', ...simulatedFlags],
}

const rack: Target = {
  name: 'simulated-rack',
  adapter: join(here, 'adapters/simulated-rack.js'),
  command: [process.execPath, simulatedProgram, '--kind', 'static', ...simulatedFlags],
}

const bareMetal: Target = {
  name: 'bare-metal',
  adapter: join(here, 'adapters/bare-metal.js'),
  command: [process.execPath, bareMetalProgram],
}

const hetznerCloud: Target = {
  name: 'hetzner-cloud',
  adapter: join(here, 'adapters/hetzner-cloud.js'),
  command: [process.execPath, hetznerCloudProgram, ...hetznerCloudFlags],
}

/** What cannot be run here, and what is missing for it. */
export class Unsupported extends Error {
  override readonly name = 'Unsupported'
}

function python(): readonly Target[] {
  const program = findPython()
  if (program === undefined) throw new Unsupported(`the provider in Python cannot be run here: install ${pythonNeeds}`)
  return [{ name: 'python', adapter: pythonAdapter, command: pythonCommand(program) }]
}

function qemu(): readonly Target[] {
  const missing = missingPackages()
  if (missing.length > 0)
    throw new Unsupported(`real machines cannot be run here: install the Debian packages ${missing.join(', ')}`)
  return [{ name: 'qemu', adapter: join(here, 'adapters/qemu.js'), command: [process.execPath, qemuProgram] }]
}

/** What a name given to `npm run conformance` stands for. @throws Unsupported where it cannot be run here. */
export const families: Readonly<Record<string, () => readonly Target[]>> = {
  simulated: () => [cloud, rack],
  [cloud.name]: () => [cloud],
  [rack.name]: () => [rack],
  [bareMetal.name]: () => [bareMetal],
  [hetznerCloud.name]: () => [hetznerCloud],
  qemu,
  python,
}
