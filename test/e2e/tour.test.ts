import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { chmodSync, copyFileSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import t, { type Test } from 'tap'
import { Process, root, Slipway } from '../tools/processes.js'

// The whole file may take longer than the runner's ordinary limit on a busy machine.
t.setTimeout(900_000)

// docs/tour.md, command by command, as a reader would type them.

interface Block {
  readonly name: string
  readonly commands: string
}

/** The tour's blocks of commands, by the word behind `sh`. */
function readBlocks(): readonly Block[] {
  const text = readFileSync(join(root, 'docs/tour.md'), 'utf8')
  return [...text.matchAll(/^```sh (\S+)\n([\s\S]*?)^```$/gm)].map((match) => ({
    name: match[1] ?? '',
    commands: match[2] ?? '',
  }))
}

interface Outcome {
  readonly code: number
  readonly output: string
}

/** A shell that stays, as a reader's does, with `slipway` in its path. */
class Shell {
  readonly #run: (commands: string) => Promise<Outcome>

  private constructor(run: (commands: string) => Promise<Outcome>) {
    this.#run = run
  }

  static start(t: Test, folder: string, env: Readonly<Record<string, string>>): Shell {
    const child = spawn('bash', ['--norc', '--noprofile'], {
      cwd: folder,
      env: { ...process.env, ...env, NO_COLOR: '1', SLIPWAY_CONFIG: join(folder, 'config.yaml') },
      stdio: ['pipe', 'pipe', 'inherit'],
    })
    t.teardown(async () => {
      const ended = once(child, 'exit')
      child.stdin.end()
      if (child.exitCode === null) await ended
    })
    const lines = createInterface(child.stdout)[Symbol.asyncIterator]()
    return new Shell(async (commands) => {
      // What goes wrong is shown too, but where it is kept.
      child.stdin.write(`{ eval ${quoted(commands)}\n} 2>&1; echo "@@@ $?"\n`)
      let output = ''
      for (;;) {
        const { value, done } = await lines.next()
        if (done === true) throw new Error(`the shell ended after ${output}`)
        const end = /^(.*)@@@ (\d+)$/.exec(value)
        if (end !== null) return { code: Number(end[2]), output: output + (end[1] ?? '') }
        output += `${value}\n`
      }
    })
  }

  run(commands: string): Promise<Outcome> {
    return this.#run(commands)
  }
}

const quoted = (text: string) => `'${text.replaceAll("'", `'\\''`)}'`

interface Line {
  readonly [column: string]: string | undefined
}

function parseCsv(text: string): readonly Line[] {
  const [head = '', ...lines] = text.split('\r\n').filter((line) => line !== '')
  const columns = head.split(',')
  return lines.map((line) => Object.fromEntries(line.split(',').map((cell, index) => [columns[index] ?? '', cell])))
}

/** Millionths of `12.34`. */
function micros(text: string | undefined): bigint {
  const [whole = '', fraction = ''] = (text ?? '').split('.')
  return BigInt(whole) * 1_000_000n + BigInt(fraction.padEnd(6, '0'))
}

const cents = (amount: bigint) => (amount + 5_000n) / 10_000n

void t.test('the tour', { timeout: 600_000 }, async (t) => {
  const slipway = await Slipway.start(t)
  const folder = join(slipway.folder, 'tour')
  const bin = join(folder, 'bin')
  mkdirSync(bin, { recursive: true })
  writeFileSync(
    join(bin, 'slipway'),
    `#!/bin/sh\nexec ${quoted(process.execPath)} ${quoted(join(root, 'sdk/bin/slipway.js'))} "$@"\n`,
  )
  chmodSync(join(bin, 'slipway'), 0o755)
  writeFileSync(join(folder, 'hub.token'), slipway.token, { mode: 0o600 })
  const shell = Shell.start(t, folder, {
    ...{ PATH: `${bin}:${process.env['PATH'] ?? ''}`, HUB: slipway.url, GATEWAY: slipway.gateway },
  })
  const outputs = new Map<string, string>()
  const blocks = readBlocks()
  t.strictSame(new Set(blocks.map((block) => block.name)).size, blocks.length, 'every block has a name of its own')
  for (const { name, commands } of blocks) {
    if (name === 'where') continue
    if (name === 'instance') {
      t.match(commands, /^slipway-provider-simulated .*--state-dir cloud --join-token-file cloud.join\n$/)
      startInstance(t, slipway, folder)
      continue
    }
    for (const command of commandsOf(commands)) {
      const { code, output } = await shell.run(command)
      outputs.set(name, `${outputs.get(name) ?? ''}${output}`)
      if (name === 'refused') t.equal(code, 1, output)
      else if (code !== 0) throw new Error(`${command} ended with ${code}:\n${output}`)
    }
  }
  const said = (name: string) => outputs.get(name) ?? ''

  t.match(said('catalog'), /^large +16 +32768 MiB +320 GiB +amd64 +32\.40 EUR\/h +1\.35 EUR +yes/m, 'its own price')
  t.match(said('catalog'), /^small .* 0\.0108 EUR\/h +6\.30 EUR +yes/m)
  t.match(said('catalog'), /sim-east \(simulated, 32\.40 EUR\/h, .*ago\)/)
  t.match(said('explain'), /^\* +cloud +sim-large +sim-east +32\.40 EUR\/h/m)
  t.match(said('explain'), /sim-west +32\.40 EUR\/h +LOCATION_NOT_ALLOWED/)
  t.match(said('order'), /web-1 .*READY/)
  t.match(said('refused'), /BUDGET_EXCEEDED/)
  t.match(said('refused'), /acme\/quotas\/all|quotas\/all allows 50\.00 EUR an hour/)
  t.match(said('usage'), /acme-web\/web-1 .*\nacme-web\/web-2 /)
  t.match(said('usage'), /^Total: \d+\.\d\d EUR$/m)
  checkBill(t, readFileSync(join(folder, 'acme.csv'), 'utf8'))

  await t.test('what the bill says of the time is what the hub says of the hosts', async (t) => {
    const lines = parseCsv(readFileSync(join(folder, 'acme.csv'), 'utf8'))
    const events = JSON.parse((await shell.run('slipway events host/web-1 -o json')).output) as readonly {
      readonly reason: string
      readonly time: string
    }[]
    const timeOf = (reason: string) => Date.parse(events.find((event) => event.reason === reason)?.time ?? '')
    const web1 = lines.filter((line) => line['host'] === 'web-1')
    const end = Math.max(...web1.map((line) => Date.parse(line['end_time'] ?? '')))
    const billableMs = web1.reduce((sum, line) => sum + Number(line['billable_seconds']) * 1_000, 0)
    // The event and the ledger are of one transaction.
    t.ok(Math.abs(end - timeOf('HostReleasing')) < 1_000, 'it ends when its release was asked for')
    t.ok(
      Math.abs(billableMs - (timeOf('HostReleasing') - timeOf('HostReady'))) < 2_000,
      'it is charged while it was READY',
    )
    const again = await shell.run('slipway usage -o csv')
    t.strictSame(parseCsv(again.output.replaceAll('\n', '\r\n').replaceAll('\r\r', '\r')), lines, 'and stays so')
  })
})

/** Each line of a block is a command, unless it goes on in a document of its own. */
function commandsOf(text: string): readonly string[] {
  const commands: string[] = []
  let open = false
  for (const line of text.split('\n').filter((each) => each !== '')) {
    if (open) commands.push(`${commands.pop() ?? ''}\n${line}`)
    else commands.push(line)
    if (/<<'END'$/.test(line)) open = true
    if (line === 'END') open = false
  }
  return commands.map((command) => (command.endsWith('\nEND') ? `${command}\n` : command))
}

function startInstance(t: Test, slipway: Slipway, folder: string): void {
  const state = join(folder, 'cloud')
  mkdirSync(state, { recursive: true })
  copyFileSync(join(folder, 'cloud.join'), join(state, 'join-token'))
  new Process(t, 'cloud', slipway.folder, [
    ...[join(root, 'providers/simulated/dist/src/main.js'), '--kind', 'dynamic', '--gateway', slipway.gateway],
    ...['--state-dir', state, '--join-token-file', join(state, 'join-token')],
  ])
}

/** The bill against the price list of the tour, less the tenth that was agreed on, reckoned anew from the bill's own times. */
function checkBill(t: Test, csv: string): void {
  t.ok(csv.split('\r\n').length >= 3, 'lines end as RFC 4180 says')
  const lines = parseCsv(csv)
  t.strictSame(new Set(lines.map((line) => line['host'])), new Set(['web-1', 'web-2']))
  // In the tour: 36 EUR an hour and 1.50 EUR once; the shape that was ordered is in no list, and costs what the provider says: 0.006 EUR an hour.
  const prices = {
    'web-1': { hourly: 32_400_000n, setup: 1_350_000n },
    'web-2': { hourly: 5_400n, setup: 0n },
  } as const
  const total = { billed: 0n, expected: 0n }
  for (const [host, { hourly, setup }] of Object.entries(prices)) {
    const own = lines.filter((line) => line['host'] === host)
    const ms = own.map((line) => BigInt(Math.round(Number(line['billable_seconds']) * 1_000)))
    t.ok(ms.every((each) => each > 0n) && own.every((line) => line['currency'] === 'EUR'))
    t.ok(own.every((line) => micros(line['hourly_price']) === hourly))
    const expected = ms.reduce((sum, each) => sum + (hourly * each * 2n + 3_600_000n) / 7_200_000n, setup)
    const billed = own.reduce((sum, line) => sum + micros(line['amount']), 0n)
    t.equal(billed, expected, `${host} to the millionth`)
    t.equal(
      own.reduce((sum, line) => sum + micros(line['setup_amount']), 0n),
      setup,
    )
    for (const line of own) {
      const span = Date.parse(line['end_time'] ?? '') - Date.parse(line['start_time'] ?? '')
      t.equal(Math.round(Number(line['allocated_seconds']) * 1_000), span, 'it had its machine all the time')
      t.ok(Number(line['billable_seconds']) <= Number(line['allocated_seconds']))
      t.ok(Number(line['powered_on_seconds']) <= Number(line['allocated_seconds']))
    }
    total.billed += billed
    total.expected += expected
  }
  t.equal(cents(total.billed), cents(total.expected), 'to the cent')
  t.ok(cents(total.billed) >= 135n, `${cents(total.billed)} cents`)
}
