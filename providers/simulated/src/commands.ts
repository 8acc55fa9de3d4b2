import { Command, CommanderError, InvalidArgumentError } from 'commander'
import { Cloud } from './cloud.js'
import { cloudRules } from './cloud-state.js'
import { cloudConfigSchema } from './config.js'
import { rackRules } from './rack-state.js'
import { readWorld, type WorldReport } from './report.js'
import { worldOption } from './settings.js'
import { kindOfWorld, World } from './world.js'

const exitOk = 0
const exitFailure = 1
const exitUsage = 2

interface WorldFlag {
  readonly world: string
}

/** Runs one of the commands on a world: `ledger`, `vanish`, `plant`. @returns the exit code. */
export async function runCommand(argv: readonly string[], print: (text: string) => void): Promise<number> {
  const program = new Command('slipway-provider-simulated').exitOverride()
  const add = (name: string, description: string) =>
    program.command(name).description(description).addOption(worldOption().makeOptionMandatory()).exitOverride()
  add('ledger', 'Prints what a world has seen.')
    .option('--json', 'as JSON')
    .action(({ world, json }: WorldFlag & { json?: true }) => {
      const report = readWorld(world)
      print(json === true ? JSON.stringify(report, null, 2) : describe(report))
    })
  add('vanish', 'Makes a server or a machine disappear, as if somebody had pulled the plug for good.')
    .argument('<name>', "a server's name or id, or a machine's serial number")
    .action((name: string, { world }: WorldFlag) => print(vanish(world, name)))
  add('plant', 'Creates servers behind the back of every provider.')
    .requiredOption('--name <name>', 'its name')
    .option('--ownership-key <key>', 'the ownership key on it, <hub id>/<request id>; none without it', '')
    .option('--count <n>', 'how many; with more than one, their names end in a number', parseCount, 1)
    .option('--type <type>', 'its type', 'sim-small')
    .option('--location <location>', 'its location', 'sim-east')
    .action(async (flags: PlantFlags) => print(await plant(flags)))
  try {
    await program.parseAsync([...argv], { from: 'user' })
    return exitOk
  } catch (error) {
    if (error instanceof CommanderError) return error.exitCode === 0 ? exitOk : exitUsage
    console.error(error instanceof Error ? error.message : error)
    return exitFailure
  }
}

interface PlantFlags extends WorldFlag {
  readonly name: string
  readonly ownershipKey: string
  readonly count: number
  readonly type: string
  readonly location: string
}

function vanish(dir: string, name: string): string {
  if (kindOfWorld(dir) === 'rack') {
    const world = new World(dir, rackRules)
    world.ledger.commit((state) =>
      state.machines.get(name)?.vanishedAtMs === undefined ? { fact: 'machine.vanished', serial: name } : undefined,
    )
    world.close()
    return `${name} has vanished`
  }
  const world = new World(dir, cloudRules)
  world.settled()
  const line = world.ledger.commit((state) => {
    const server = [...state.live.values()].find(({ created }) => created.id === name || created.name === name)
    return server && { fact: 'server.vanished', id: server.created.id }
  })
  world.close()
  if (line?.fact !== 'server.vanished')
    throw new Error(`${dir} has no server ${name} that lives; see the ledger command`)
  return `${line.id} has vanished`
}

function parseCount(text: string): number {
  if (!/^[1-9]\d{0,3}$/.test(text)) throw new InvalidArgumentError('Give a whole number from 1 to 9999.')
  return Number(text)
}

/** @returns the ids, a line each. */
async function plant({ world: dir, name, ownershipKey, count, type, location }: PlantFlags): Promise<string> {
  const world = new World(dir, cloudRules)
  const { success, data } = cloudConfigSchema.safeParse(world.ledger.state.config ?? {})
  const config = success ? data : cloudConfigSchema.parse({})
  // Neither faults nor limits are for those who plant.
  const plain = cloudConfigSchema.parse({ types: config.types, locations: config.locations, idempotency: 'none' })
  const order = { ownershipKey, type, location, image: 'debian-13', labels: {} }
  const names = count === 1 ? [name] : Array.from({ length: count }, (_, index) => `${name}-${index + 1}`)
  try {
    const cloud = new Cloud(world, plain, { apiToken: undefined })
    const { signal } = new AbortController()
    const ids: string[] = []
    for (const each of names) ids.push(await cloud.createServer({ ...order, name: each }, signal))
    return ids.join('\n')
  } finally {
    world.close()
  }
}

function describe(report: WorldReport): string {
  const { totals, leftovers, lostAnswers } = report
  const sum = (counts: Readonly<Record<string, number>>) =>
    Object.entries(counts)
      .map(([name, count]) => `${name} ${count}`)
      .join(', ') || 'none'
  const lines = [
    `${report.kind} ${report.worldId} in ${report.dir}, seed ${report.seed}`,
    `lines: ${report.lines}; passed over: ${leftovers.torn} torn, ${leftovers.lost} that came second`,
    `calls: ${sum(report.calls)}`,
    `refused: ${sum(report.refusals)}; answers lost: ${lostAnswers}`,
    `created ${totals.creates}, deleted ${totals.deletes}, vanished ${totals.vanished}, phoned home ${totals.phonedHome}, wiped ${totals.wipes}`,
    `live now ${totals.live}, at most ${totals.maxLive}, at most ${totals.maxLiveByOwner} of one owner`,
    ...report.servers.filter(({ isLive }) => isLive).map((server) => serverLine(server)),
    ...report.machines.map((machine) => machineLine(machine)),
    ...report.violations.map(({ seq, what, message }) => `VIOLATION in line ${seq}: ${what}: ${message}`),
  ]
  return lines.join('\n')
}

function serverLine({ id, name, type, location, status, power, ownershipKey }: WorldReport['servers'][number]): string {
  return `server ${id}  ${name}  ${type}  ${location}  ${status}  power ${power}  ${ownershipKey}`
}

function machineLine({ serial, power, binding, soiledBy, wipes, isThere }: WorldReport['machines'][number]): string {
  const disks = soiledBy === undefined ? 'clean' : `data of ${soiledBy}`
  return `machine ${serial}  ${isThere ? `power ${power}` : 'vanished'}  ${binding ?? 'no host'}  ${disks}  wiped ${wipes.length} times`
}
