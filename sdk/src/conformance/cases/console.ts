import { randomUUID } from 'node:crypto'
import { ConsoleEnd, type ConsoleData } from '@slipway/proto/provider/v1'
import type { Bench } from '../bench.js'
import type { Case } from '../case.js'
import type { Item } from '../gateway/item.js'
import type { HubSession } from '../gateway/session.js'
import { CaseSkipped, expectEqual } from '../until.js'

const needs = { capabilities: ['CONSOLE'] } as const
const plenty = 1024 * 1024

type Start = { case: 'after'; value: { log: string; offset: bigint } } | { case: 'tailLines'; value: number }

interface OpenOptions {
  readonly start?: Start
  readonly follow?: boolean
  readonly credit?: number
  readonly externalId?: string
}

/** One console that is looked at. */
class Viewer {
  readonly id = randomUUID()
  readonly #session: HubSession

  constructor(
    session: HubSession,
    item: Item,
    { start, follow = false, credit = plenty, externalId }: OpenOptions = {},
  ) {
    this.#session = session
    const { machine } = item.desired
    session.send({
      case: 'openConsole',
      value: {
        streamId: this.id,
        machineId: machine?.machineId ?? randomUUID(),
        externalId: externalId ?? machine?.externalId ?? item.observed.externalId,
        ...(machine?.providerData !== undefined && { providerData: machine.providerData }),
        ...(start !== undefined && { start }),
        follow,
        creditBytes: credit,
      },
    })
  }

  get pieces(): readonly ConsoleData[] {
    return this.#session.all('consoleData').filter(({ streamId }) => streamId === this.id)
  }

  get bytes(): Buffer {
    return Buffer.concat(this.pieces.map(({ data }) => data))
  }

  grant(bytes: number): void {
    this.#session.send({ case: 'consoleCredit', value: { streamId: this.id, bytes } })
  }

  close(): void {
    this.#session.send({ case: 'closeConsole', value: { streamId: this.id } })
  }

  async end(): Promise<ConsoleEnd> {
    return (await this.#session.expect('consoleClosed', ({ streamId }) => streamId === this.id, 'the end of a console'))
      .end
  }

  /** All of it. @throws CaseSkipped where the machine has none now. */
  async whole(): Promise<Buffer> {
    const end = await this.end()
    if (end === ConsoleEnd.ABSENT || end === ConsoleEnd.BUSY)
      throw new CaseSkipped('the machine has no console to show in the world of the adapter')
    expectEqual(ConsoleEnd[end], 'DONE', 'how a console ended that was not followed')
    this.expectInOrder()
    return this.bytes
  }

  /** Each piece begins where the one before ended, or says that there is a gap. */
  expectInOrder(): void {
    let at: { log: string; offset: bigint } | undefined
    for (const { position, data, gap } of this.pieces) {
      const { log = '', offset = 0n } = position ?? {}
      if (at !== undefined && !gap && log === at.log) expectEqual(offset, at.offset, 'where a piece begins')
      at = { log, offset: offset + BigInt(data.length) }
    }
  }
}

/** A machine with a console of some length. */
async function shown(bench: Bench, atLeast: number) {
  const { session, item, instance } = await bench.provisioned()
  const viewer = new Viewer(session, item)
  const whole = await viewer.whole()
  if (whole.length < atLeast) throw new CaseSkipped(`its console has ${whole.length} bytes, and ${atLeast} are needed`)
  return { session, item, instance, viewer, whole }
}

/** Consoles: bytes in order and once, within credit, beside all other work. */
export const consoleCases: readonly Case[] = [
  {
    id: 'console/shows-what-there-is',
    rule: 'A console that is not followed is told from its first byte to its last, in order, and ends as done.',
    needs,
    async run(bench) {
      const { session, item, whole } = await shown(bench, 1)
      const again = await new Viewer(session, item).whole()
      expectEqual(again.subarray(0, whole.length).equals(whole), true, 'that it begins with the same bytes again')
    },
  },
  {
    id: 'console/keeps-to-its-credit',
    rule: 'No more bytes are sent than there is credit for, however long it takes until there is more.',
    needs,
    async run(bench) {
      const { session, item, whole } = await shown(bench, 24)
      const viewer = new Viewer(session, item, { credit: 10 })
      await bench.until('the bytes that there is credit for', () => viewer.bytes.length >= 10)
      await session.beats(2)
      expectEqual(viewer.bytes.length, 10, 'bytes sent under a credit of 10')
      viewer.grant(7)
      await bench.until('the bytes of more credit', () => viewer.bytes.length >= 17)
      await session.beats(1)
      expectEqual(viewer.bytes.equals(whole.subarray(0, 17)), true, 'that the first 17 bytes came')
      viewer.expectInOrder()
      viewer.close()
    },
  },
  {
    id: 'console/goes-on-after-a-position',
    rule: 'A reader who comes back is told what follows its position, and nothing of what it has.',
    needs,
    async run(bench) {
      const { session, item, viewer, whole } = await shown(bench, 2)
      const [first] = viewer.pieces
      const half = Math.ceil((first?.data.length ?? 0) / 2)
      const { log = '', offset = 0n } = first?.position ?? {}
      const value = { log, offset: offset + BigInt(half) }
      const back = new Viewer(session, item, { start: { case: 'after', value } })
      const rest = await back.whole()
      expectEqual(back.pieces[0]?.gap, false, 'whether a gap was told')
      expectEqual(rest.subarray(0, whole.length - half).equals(whole.subarray(half)), true, 'that the rest came')
    },
  },
  {
    id: 'console/tells-of-a-gap',
    rule: 'Where the bytes after a position are gone, it begins with the first that there are, and says that some are missing.',
    needs,
    async run(bench) {
      const { session, item } = await shown(bench, 1)
      const value = { log: 'conformance.never.was', offset: 7n }
      const viewer = new Viewer(session, item, { start: { case: 'after', value } })
      await viewer.whole()
      expectEqual(viewer.pieces[0]?.gap, true, 'whether a gap was told')
    },
  },
  {
    id: 'console/begins-with-its-last-lines',
    rule: 'A tail begins so many lines before the end.',
    needs,
    async run(bench) {
      const { session, item } = await shown(bench, 1)
      const tail = await new Viewer(session, item, { start: { case: 'tailLines', value: 1 } }).whole()
      const none = await new Viewer(session, item, { start: { case: 'tailLines', value: 0 } }).whole()
      const whole = await new Viewer(session, item).whole()
      expectEqual(tail.toString('latin1').trimEnd().includes('\n'), false, 'whether more than a line came')
      expectEqual(whole.includes(tail), true, 'that it is a line of the console')
      expectEqual(none.length, 0, 'bytes of no lines')
    },
  },
  {
    id: 'console/ends-when-nobody-looks',
    rule: 'After CloseConsole nothing more is sent, whatever credit comes late.',
    needs,
    async run(bench) {
      const { session, item } = await shown(bench, 24)
      const viewer = new Viewer(session, item, { credit: 10, follow: true })
      await bench.until('the bytes that there is credit for', () => viewer.bytes.length >= 10)
      viewer.close()
      viewer.grant(plenty)
      await session.beats(2)
      expectEqual(viewer.bytes.length, 10, 'bytes sent before it was closed')
    },
  },
  {
    id: 'console/of-what-is-not-there',
    rule: 'For a machine that is not there a console ends at once as not found, or absent.',
    needs,
    async run(bench) {
      const { session, item } = await bench.provisioned()
      const end = await new Viewer(session, item, { externalId: 'conformance-never-was', follow: true }).end()
      expectEqual(
        end === ConsoleEnd.NOT_FOUND || end === ConsoleEnd.ABSENT,
        true,
        `that ${ConsoleEnd[end]} says that there is none`,
      )
    },
  },
  {
    id: 'console/holds-up-nothing',
    rule: 'A console that is looked at, and not read, holds up neither signs of life nor other work.',
    needs,
    async run(bench) {
      const { session, item } = await shown(bench, 1)
      const viewers = Array.from({ length: 4 }, () => new Viewer(session, item, { credit: 1, follow: true }))
      await bench.deprovision(item)
      await session.beats(2)
      for (const viewer of viewers) expectEqual(viewer.bytes.length <= 1, true, 'that each kept to its credit')
    },
  },
]
