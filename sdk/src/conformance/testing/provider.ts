import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { z } from 'zod'
import { ConsoleRefused } from '../../provider/console.js'
import { ProviderError } from '../../provider/errors.js'
import type {
  Context,
  DynamicDefinition,
  MachineSpec,
  ObservedMachine,
  OwnedMachine,
  Violation,
  WorkContext,
} from '../../provider/types.js'
import type { Defect } from './defects.js'
import { FolderCloud, FolderError, type FolderErrorCode, type FolderMachine } from './folder-cloud.js'

const configSchema = z.strictObject({ dir: z.string().min(1), listIntervalMs: z.int().min(1).optional() })
const credentialsSchema = z.strictObject({ token: z.string() })
const dataSchema = z.strictObject({ image: z.enum(['debian-13', 'alpine']).default('debian-13') })

type Config = z.infer<typeof configSchema>
type Credentials = z.infer<typeof credentialsSchema>
type Data = z.infer<typeof dataSchema>
type Ctx = Context<Config, Credentials>
type Work = WorkContext<Config, Credentials>

const types = ['small', 'large']
const pace = { initialDelayMs: 50, maxDelayMs: 200, timeoutMs: 10_000 }

const codes = {
  full: 'CAPACITY',
  throttled: 'RATE_LIMITED',
  forbidden: 'CREDENTIALS',
  'no-answer': 'TIMEOUT',
  broken: 'UNAVAILABLE',
  missing: 'INTERNAL',
} as const satisfies Record<FolderErrorCode, string>

/** A small provider of a cloud that is a folder, with at most one thing wrong with it. */
export function folderProvider(
  defect: Defect | undefined,
  stateDir: string,
): DynamicDefinition<Config, Credentials, Data> {
  const has = (...names: Defect[]): boolean => defect !== undefined && names.includes(defect)
  /** Calls the cloud, and says in the SDK's words what is wrong. */
  const call = async <Result>(context: Ctx, use: (cloud: FolderCloud) => Promise<Result>): Promise<Result> => {
    try {
      return await use(new FolderCloud(context.config.dir, context.credentials.token))
    } catch (error) {
      if (!(error instanceof FolderError)) throw error
      const code = has('calls-everything-internal') ? 'INTERNAL' : codes[error.code]
      throw new ProviderError(code, error.message, {
        retryable: true,
        ...(code === 'RATE_LIMITED' && { retryAfterMs: 1_000 }),
      })
    }
  }

  async function* allPages(context: Ctx): AsyncGenerator<FolderMachine> {
    for (let page = 0, more = true; more; page += 1) {
      try {
        const found = await call(context, (cloud) => cloud.page(page))
        yield* found.machines
        more = found.more && !has('lists-the-first-page-alone')
      } catch (error) {
        if (!has('calls-half-a-listing-whole')) throw error
        return
      }
    }
  }

  async function find(context: Ctx, { ownershipKey, name }: MachineSpec<Data>): Promise<string | undefined> {
    if (has('never-looks-before-it-creates', 'creates-again-after-a-lost-answer')) return undefined
    for await (const machine of allPages(context)) {
      if (machine.goneAtMs !== undefined) continue
      if (machine.key === ownershipKey || (has('adopts-by-name') && machine.name === name)) return machine.id
    }
    return undefined
  }

  async function createMachine(context: Work, spec: MachineSpec<Data>): Promise<ObservedMachine> {
    const key = has('creates-without-its-key') ? '' : spec.ownershipKey
    const make = async () => {
      // Not before the kit has seen what there was.
      if (has('does-not-wait-for-acks')) await sleep(400)
      const keys = has('drops-the-ssh-keys') ? [] : spec.bootstrap.sshPublicKeys
      return (await call(context, (cloud) => cloud.create(spec.name, key, keys))).id
    }
    const id = has('creates-outside-of-steps')
      ? await make()
      : await context.step('create', { run: make, find: () => find(context, spec) })
    if (!has('waits-before-it-reports-the-id')) await context.report({ externalId: id })
    await context.poll(async () => {
      const machine = await call(context, (cloud) => cloud.get(id))
      if (machine === undefined) throw new ProviderError('INTERNAL', `${id} has vanished`, { retryable: false })
      return machine.runsAtMs <= Date.now() ? machine : undefined
    }, pace)
    const attributes = has('shows-the-user-data') ? { cloudInit: spec.bootstrap.userData } : {}
    return { externalId: has('reports-another-id') ? `${id}-x` : id, power: 'on', attributes }
  }

  async function removeMachine(context: Work, key: string, name: string, known: string | undefined): Promise<void> {
    if (has('deletes-nothing')) return
    const ids = new Set<string>(known === undefined || !has('fails-where-it-is-missing') ? [] : [known])
    for await (const machine of allPages(context))
      if (machine.key === key || (has('deletes-by-name') && machine.name === name)) ids.add(machine.id)
    for (const id of ids) await call(context, (cloud) => cloud.remove(id))
    if (has('does-not-wait-until-it-is-gone')) return
    for (const id of ids)
      await context.poll(
        async () => ((await call(context, (cloud) => cloud.get(id))) === undefined ? true : undefined),
        pace,
      )
  }

  /** What a defect does whenever it looks around. */
  async function misbehave(context: Ctx, machine: FolderMachine): Promise<void> {
    if (has('looks-at-each-machine')) await call(context, (cloud) => cloud.get(machine.id))
    const isOurs = machine.key.startsWith(`${context.hubId}/`)
    if (has('removes-orphans-by-itself') && isOurs && machine.name === 'kit-foreign' && machine.goneAtMs === undefined)
      await call(context, (cloud) => cloud.remove(machine.id))
  }

  return {
    kind: 'dynamic',
    family: 'folder',
    version: '1',
    config: configSchema,
    credentials: credentialsSchema,
    data: dataSchema,
    effectTimeoutMs: 1_000,
    listIntervalMs: has('looks-at-each-machine') ? 300 : 1_000,
    offeringsIntervalMs: 1_000,
    async check(context) {
      const { token } = context.credentials
      if (has('logs-its-credentials')) context.log.info(`using ${token}`)
      if (has('keeps-its-credentials-in-a-file')) writeFileSync(join(stateDir, 'cache'), token)
      if (!has('takes-any-credentials')) await call(context, (cloud) => cloud.page(0))
    },
    async validate(context, spec, reinstall): Promise<readonly Violation[]> {
      if (reinstall !== undefined && has('refuses-reinstalls-while-it-is-full')) {
        const { full = false } = new FolderCloud(context.config.dir, context.credentials.token).faults
        if (full) return [{ field: 'spec.type_id', description: `there is no ${spec.typeId} left` }]
      }
      if (has('makes-what-it-validates')) await call(context, (cloud) => cloud.create(spec.name, ''))
      if (has('has-nothing-against-any-order') || types.includes(spec.typeId)) return []
      return [{ field: 'spec.type_id', description: `there is no ${spec.typeId}; take one of ${types.join(', ')}` }]
    },
    offerings() {
      const shape = { vcpus: 1, memoryMib: 1024, diskGib: 10 }
      const offered = types.map((typeId) => ({ typeId, shape, available: true }))
      return Promise.resolve(has('offers-everything-twice') ? [...offered, ...offered] : offered)
    },
    create: createMachine,
    async observe(context, id) {
      const machine = await call(context, (cloud) => cloud.get(id))
      return machine && { externalId: machine.id, power: machine.power }
    },
    delete: (context, { ownershipKey, name, externalId }) => removeMachine(context, ownershipKey, name, externalId),
    async *list(context): AsyncIterable<OwnedMachine> {
      if (has('is-busy-when-idle')) await call(context, (cloud) => cloud.create('busy', ''))
      for await (const machine of allPages(context)) {
        await misbehave(context, machine)
        const { id, name, power, key } = machine
        const ownershipKey = has('lists-another-key') ? `${key}-x` : key
        if (key !== '') yield { externalId: id, name, power, ownershipKey }
      }
    },
    async power(context, id, wish) {
      const times = wish === 'reboot' && has('reboots-twice') ? 2 : 1
      for (let time = 0; time < times; time += 1) await call(context, (cloud) => cloud.power(id, wish))
    },
    async reinstall(context, { externalId, reinstall }, spec) {
      if (has('makes-another-machine-where-it-reinstalls')) {
        await call(context, (cloud) => cloud.remove(externalId))
        await call(context, (cloud) => cloud.create(spec.name, spec.ownershipKey))
        return { externalId, power: 'on' }
      }
      const looks = !has('never-looks-before-it-reinstalls')
      await context.step('reinstall', {
        find: async () => {
          const machine = await call(context, (cloud) => cloud.get(externalId))
          return looks && machine?.mark === reinstall ? reinstall : undefined
        },
        run: async () => {
          const times = has('reinstalls-twice') ? 2 : 1
          for (let time = 0; time < times; time += 1)
            await call(context, (cloud) => cloud.reinstall(externalId, reinstall))
          return reinstall
        },
      })
      return { externalId, power: 'on' }
    },
    adopt: {
      async find(context, externalId) {
        const machine = await call(context, (cloud) => cloud.get(externalId))
        if (machine === undefined || machine.goneAtMs !== undefined) return undefined
        const ownershipKey = has('adopts-what-is-anothers') ? '' : machine.key
        return { externalId: machine.id, power: machine.power, ownershipKey }
      },
      async mark(context, { externalId, ownershipKey }) {
        await call(context, (cloud) => cloud.key(externalId, ownershipKey))
        if (has('switches-what-it-adopts')) await call(context, (cloud) => cloud.power(externalId, 'off'))
      },
      unmark: (context, { externalId }) =>
        call(context, (cloud) =>
          has('deletes-what-it-lets-go-of') ? cloud.remove(externalId) : cloud.key(externalId, ''),
        ),
    },
    async *console(context, { externalId: id }, { after, tailLines, follow }) {
      const machine = await call(context, (cloud) => cloud.get(id))
      if (machine === undefined && !has('shows-consoles-of-what-is-not-there'))
        throw new ConsoleRefused('not-found', `there is no ${id}`)
      const text = Array.from({ length: 10 }, (_, line) => `${id} says ${line}\n`).join('')
      let offset = after?.log === id && !has('shows-its-console-from-the-start') ? after.offset : 0
      const lines = (tailLines ?? 10) + (has('shows-more-lines-than-wanted') ? 1 : 0)
      if (after === undefined) offset = text.length - (text.length / 10) * Math.min(10, lines)
      const log = has('shows-its-console-from-the-start') ? `${id}-${Date.now()}` : id
      yield { position: { log, offset }, bytes: Buffer.from(text.slice(offset)) }
      if (follow) await new Promise((resolve) => context.signal.addEventListener('abort', resolve))
    },
    async rescue(context, id, wish) {
      if (has('starts-no-rescue-system') || (has('never-leaves-its-rescue-system') && !wish.enabled)) return
      await call(context, (cloud) => cloud.rescue(id, wish.enabled))
    },
  }
}
