#!/usr/bin/env node
import { defineProvider } from '@slipway/sdk'
import { CommanderError } from 'commander'
import { pino } from 'pino'
import { cloudRules } from './cloud-state.js'
import { runCommand } from './commands.js'
import { hasLedger } from './ledger.js'
import { cloudProvider } from './provider.js'
import { rackProvider } from './rack-provider.js'
import { rackRules } from './rack-state.js'
import { ownHelp, takeOwnFlags, type OwnFlags } from './settings.js'
import type { WorldState } from './world.js'
import { Worlds } from './worlds.js'

const commands = ['ledger', 'vanish', 'plant']
const exitFailure = 1
const exitUsage = 2

async function main(argv: readonly string[]): Promise<void> {
  if (commands.includes(argv[0] ?? '')) {
    process.exitCode = await runCommand(argv, (text) => console.log(text))
    return
  }
  const flags = parse(argv)
  if (flags === undefined) {
    process.exitCode = exitUsage
    return
  }
  if (flags.rest.some((argument) => argument === '--help' || argument === '-h')) console.log(ownHelp())
  if (flags.kind === 'dynamic') {
    const worlds = resumed(new Worlds(cloudRules), flags)
    await defineProvider(cloudProvider(worlds, flags.settings)).serve(flags.rest)
  } else {
    const worlds = resumed(new Worlds(rackRules), flags)
    await defineProvider(rackProvider(worlds, flags.settings)).serve(flags.rest)
  }
}

function parse(argv: readonly string[]): OwnFlags | undefined {
  try {
    return takeOwnFlags(argv, process.env)
  } catch (error) {
    if (error instanceof CommanderError) return undefined
    throw error
  }
}

/** Machines run whether or not the hub can be reached, so a world that is there already goes on at once. */
function resumed<State extends WorldState>(worlds: Worlds<State>, { settings }: OwnFlags): Worlds<State> {
  const dir = settings.worldFor(undefined)
  if (hasLedger(dir)) worlds.open(dir, pino({ level: process.env['SLIPWAY_LOG_LEVEL'] ?? 'info' }))
  return worlds
}

try {
  await main(process.argv.slice(2))
} catch (error) {
  console.error(error instanceof Error ? error.message : error)
  process.exit(exitFailure)
}
