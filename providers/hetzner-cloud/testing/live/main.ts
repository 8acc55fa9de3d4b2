#!/usr/bin/env node
import { parseArgs } from 'node:util'
import { apiAt, record, replay } from './live.js'
import { sweep } from './sweeper.js'
import { microsOf } from '../../src/price.js'

// Runs the provider's scenarios against the real API, for whoever has a token of an empty project. It costs money: never more than the cap.
const help = `Usage: npm run live -w providers/hetzner-cloud -- record|replay|sweep [options]

  record   runs the scenarios against the API, writes a tape, deletes what is left
  replay   runs them against a tape
  sweep    deletes what earlier runs left in the project

The token is read from SLIPWAY_HETZNER_CLOUD_TOKEN. Take a project with nothing else in it.

  --tape FILE        default: hetzner-cloud.tape.jsonl
  --cap AMOUNT       the most that a run may cost, in the account's currency (default: 0.10)
  --type, --image, --location   of the servers (default: cx22, debian-12, fsn1)
  --endpoint URL     default: the vendor's`

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    tape: { type: 'string', default: 'hetzner-cloud.tape.jsonl' },
    cap: { type: 'string', default: '0.10' },
    type: { type: 'string', default: 'cx22' },
    image: { type: 'string', default: 'debian-12' },
    location: { type: 'string', default: 'fsn1' },
    endpoint: { type: 'string', default: 'https://api.hetzner.cloud/v1' },
  },
})

async function main(): Promise<boolean> {
  const { tape: tapeFile, cap, endpoint: upstream, type, image, location } = values
  const say = (line: string) => console.log(line)
  switch (positionals[0]) {
    case 'record': {
      const result = await record({
        upstream,
        token: token(),
        tapeFile,
        capMicros: microsOf(cap),
        type,
        image,
        location,
        say,
      })
      say(
        `${result.passed.length} passed, ${result.failed.length} failed; counted as ${Number(result.spentMicros) / 1e6} at most`,
      )
      if (result.swept.length > 0) say(`left behind, and deleted: ${result.swept.join(', ')}`)
      return result.failed.length === 0 && result.swept.length === 0
    }
    case 'replay': {
      const { passed, failed } = await replay(tapeFile, say)
      say(`${passed.length} passed, ${failed.length} failed`)
      return failed.length === 0
    }
    case 'sweep':
      for (const thing of await sweep(apiAt(upstream, token()))) say(`deleted ${thing}`)
      return true
    default:
      say(help)
      return false
  }
}

function token(): string {
  const given = process.env['SLIPWAY_HETZNER_CLOUD_TOKEN'] ?? ''
  if (given === '') throw new Error('set SLIPWAY_HETZNER_CLOUD_TOKEN')
  return given
}

try {
  process.exitCode = (await main()) ? 0 : 1
} catch (error) {
  console.error(error instanceof Error ? error.message : error)
  process.exitCode = 1
}
