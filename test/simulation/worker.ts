import { SimDatabase } from './database.js'
import type { Profile } from './faults.js'
import { runSeed } from './run.js'
import { setUp } from './setup.js'

// A process that runs seeds one after another, as it is told to, on a database of its own.

interface Order {
  readonly server: string
  readonly database: string
  readonly profile?: Profile
}

async function main(): Promise<void> {
  const { server, database: name, profile } = JSON.parse(process.argv[2] ?? '{}') as Order
  const made = await setUp(server, name)
  const database = await SimDatabase.open(made.url)
  process.on('message', (seed: number | 'end') => {
    if (seed === 'end') {
      void database.close().then(() => process.disconnect())
      return
    }
    void runSeed(made, database, seed, process.env['SLIPWAY_SIMULATION_JOURNAL'] === '1', profile).then(
      (result) => process.send?.(result),
      (error: unknown) => {
        console.error(error)
        process.exit(1)
      },
    )
  })
  process.send?.('ready')
}

await main()
