#!/usr/bin/env node
import { defineProvider } from '@slipway/sdk'
import { CommanderError } from 'commander'
import { hetznerCloudProvider } from './provider.js'
import { settingsHelp, takeSettings } from './settings.js'

const exitUsage = 2

async function main(argv: readonly string[]): Promise<void> {
  const { settings, rest } = takeSettings(argv)
  if (rest.some((argument) => argument === '--help' || argument === '-h')) console.log(settingsHelp())
  await defineProvider(hetznerCloudProvider(settings)).serve(rest)
}

try {
  await main(process.argv.slice(2))
} catch (error) {
  if (!(error instanceof CommanderError)) throw error
  process.exitCode = exitUsage
}
